//! The selection, case by case: who votes, what is offered, what is chosen.

use super::*;
use crate::clock::tests::bittensor;
use covey_proto::Hotkey;
use covey_proto::chain::Slot;
use covey_proto::record::Contribution;
use proptest::prelude::*;

pub(super) const ROUND: Round = Round(20);

/// A subnet at the three blocks of one round. Validators are those given stake, each of whom voted in the round before.
#[derive(Clone, Debug)]
pub(super) struct Rig {
    pub(super) run: Run,
    pub(super) id: RunId,
    pub(super) a: ChainView,
    pub(super) c: ChainView,
    pub(super) v: ChainView,
}

pub(super) fn key(uid: u8) -> Hotkey {
    Hotkey::new([uid; 32])
}

fn head(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

fn manifest(uid: u8) -> Digest {
    Digest::of(&[uid])
}

impl Rig {
    fn new(stakes: &[u64]) -> Rig {
        Rig::of(bittensor(), stakes)
    }

    pub(super) fn of(run: Run, stakes: &[u64]) -> Rig {
        let blocks = RoundBlocks::of(&run, ROUND).unwrap();
        let view = |block: BlockNumber| ChainView {
            block,
            hash: Digest::of(&block.0.to_le_bytes()),
            members: BTreeMap::new(),
            slots: BTreeMap::new(),
        };
        let (a, c, v) = (view(blocks.anchor), view(blocks.commit), view(blocks.vote));
        let mut rig = Rig { id: run.id(), run, a, c, v };
        for (uid, stake) in stakes.iter().enumerate() {
            rig.member(uid as u8, *stake, *stake > 0);
            if *stake > 0 {
                rig.voted_before(uid as u8, 1);
            }
        }
        rig
    }

    pub(super) fn member(&mut self, uid: u8, stake: u64, permit: bool) {
        let member = Member { uid: uid.into(), hotkey: key(uid), registered_at: BlockNumber(1), permit, stake };
        self.a.members.insert(uid.into(), member);
    }

    fn record(&self, contribution: Option<Contribution>, vote: Option<Vote>) -> Vec<u8> {
        Record { run: self.id.0.prefix(), contribution, vote }.to_bytes()
    }

    fn vote(&self, round: Round, head: Digest, ballot: &[u8]) -> Vec<u8> {
        let ballot = ballot.iter().map(|uid| Uid::from(*uid)).collect();
        self.record(None, Some(Vote { round, head, ballot }))
    }

    fn voted_before(&mut self, uid: u8, rounds_ago: u32) {
        let bytes = self.vote(Round(ROUND.0 - rounds_ago), head("old"), &[]);
        self.a.slots.insert(key(uid), Slot { block: BlockNumber(1), bytes });
    }

    fn votes(&mut self, uid: u8, head: Digest, ballot: &[u8]) {
        let bytes = self.vote(ROUND, head, ballot);
        self.v.slots.insert(key(uid), Slot { block: self.v.block, bytes });
    }

    fn offers(&mut self, uid: u8) {
        let contribution = Contribution { round: ROUND, manifest: manifest(uid) };
        let bytes = self.record(Some(contribution), None);
        self.c.slots.insert(key(uid), Slot { block: self.c.block, bytes });
        self.a.members.entry(uid.into()).or_insert(Member {
            uid: uid.into(),
            hotkey: key(uid),
            registered_at: BlockNumber(1),
            permit: false,
            stake: 0,
        });
    }

    pub(super) fn select(&self) -> Selection {
        select(&self.run, self.id, ROUND, &self.a, &self.c, &self.v).unwrap()
    }

    fn chosen(&self) -> Vec<u8> {
        match self.select().outcome {
            Outcome::Chosen(chosen) => chosen.iter().map(|(uid, _)| uid.index() as u8).collect(),
            Outcome::Void(reason) => panic!("void: {reason}"),
        }
    }

    fn void(&self) -> VoidReason {
        match self.select().outcome {
            Outcome::Void(reason) => reason,
            Outcome::Chosen(chosen) => panic!("chosen: {chosen:?}"),
        }
    }
}

/// Three validators of 100 (uids 0 to 2), miners 10 to 14 who all offer.
fn swarm() -> Rig {
    let mut rig = Rig::new(&[100, 100, 100]);
    (10..15).for_each(|uid| rig.offers(uid));
    rig
}

/// [`swarm`], where everyone votes for everything.
fn settled() -> Rig {
    let mut rig = swarm();
    (0..3).for_each(|uid| rig.votes(uid, head("h"), &[10, 11, 12, 13, 14]));
    rig
}

#[test]
fn what_all_vote_for_is_chosen_and_its_head_agreed() {
    let selection = settled().select();
    let expected: Vec<_> = (10..15).map(|uid| (Uid::from(uid), manifest(uid))).collect();
    assert_eq!(selection.outcome, Outcome::Chosen(expected.clone()));
    assert_eq!(selection.agreed, Some(head("h")));
    assert_eq!((selection.total_stake, selection.voters.len(), selection.group.len()), (300, 3, 3));
    assert_eq!(selection.offered, expected.into_iter().collect());
}

#[test]
fn without_any_voter_the_round_is_void() {
    let mut rig = swarm();
    rig.a.slots.clear();
    assert_eq!(rig.void(), VoidReason::NoElectorate);
}

#[test]
fn voters_without_stake_are_no_electorate() {
    let mut run = bittensor();
    run.electorate.stake_min = 0;
    run.electorate.electorate_min = 0;
    let mut rig = Rig::of(run, &[]);
    rig.member(0, 0, true);
    rig.voted_before(0, 1);
    rig.votes(0, head("h"), &[]);
    assert_eq!(rig.void(), VoidReason::NoElectorate);
}

#[test]
fn an_electorate_below_the_runs_least_is_void() {
    let mut rig = Rig::new(&[60, 39]);
    rig.votes(0, head("h"), &[]);
    assert_eq!(rig.void(), VoidReason::ThinElectorate { total: 99, needed: 100 });
    assert_eq!(rig.select().agreed, None);
}

#[test]
fn silence_of_the_whole_electorate_is_void() {
    assert_eq!(swarm().void(), VoidReason::NoBallot { voters: 3 });
}

#[test]
fn a_ballot_without_a_head_or_with_too_many_ones_counts_for_nothing() {
    let mut rig = swarm();
    rig.votes(0, Digest::ZERO, &[10]);
    rig.votes(1, head("h"), &(30..51).collect::<Vec<_>>());
    assert_eq!(rig.void(), VoidReason::NoBallot { voters: 3 });
    assert_eq!(rig.select().voted.len(), 2);
}

#[test]
fn two_heads_of_the_same_stake_are_void() {
    let mut rig = swarm();
    rig.votes(0, head("h"), &[10, 11, 12, 13]);
    rig.votes(1, head("g"), &[10, 11, 12, 13]);
    assert_eq!(rig.void(), VoidReason::TiedHeads { stake: 100 });
    let selection = rig.select();
    assert_eq!((selection.agreed, selection.group.len(), selection.heads.len()), (None, 0, 2));
}

#[test]
fn fewer_than_the_runs_least_are_void_but_the_head_is_agreed() {
    let mut rig = swarm();
    (0..3).for_each(|uid| rig.votes(uid, head("h"), &[10, 11, 12]));
    assert_eq!(rig.void(), VoidReason::TooFew { chosen: 3, needed: 4 });
    assert_eq!(rig.select().agreed, Some(head("h")));
}

#[test]
fn exactly_half_is_no_majority_and_one_more_is() {
    let mut rig = Rig::new(&[100, 50, 50]);
    (10..15).for_each(|uid| rig.offers(uid));
    rig.votes(0, head("h"), &[10, 11, 12, 13]);
    assert_eq!(rig.void(), VoidReason::TooFew { chosen: 0, needed: 4 });
    assert_eq!(rig.select().agreed, None);
    rig.member(0, 101, true);
    assert_eq!(rig.chosen(), [10, 11, 12, 13]);
    assert_eq!(rig.select().agreed, Some(head("h")));
}

#[test]
fn a_leading_head_under_half_is_not_agreed_and_chooses_nothing() {
    let mut rig = Rig::new(&[40, 30, 30]);
    (10..15).for_each(|uid| rig.offers(uid));
    for (uid, name) in [(0, "h"), (1, "g"), (2, "f")] {
        rig.votes(uid, head(name), &[10, 11, 12, 13]);
    }
    assert_eq!(rig.void(), VoidReason::TooFew { chosen: 0, needed: 4 });
    assert_eq!((rig.select().agreed, rig.select().group.len()), (None, 1));
}

#[test]
fn votes_behind_another_head_do_not_support() {
    let mut rig = swarm();
    rig.votes(0, head("h"), &[10, 11, 12, 13]);
    rig.votes(1, head("h"), &[10, 11, 12, 13, 14]);
    rig.votes(2, head("false"), &[14]);
    assert_eq!(rig.chosen(), [10, 11, 12, 13]);
}

#[test]
fn ghosts_are_never_chosen() {
    let mut rig = settled();
    let a = rig.a.block;
    // Set at the anchor or before: its author had not seen this round's data.
    rig.c.slots.get_mut(&key(10)).unwrap().block = a;
    // Last round's contribution, another run's, bytes that are no record.
    let old = Contribution { round: Round(ROUND.0 - 1), manifest: manifest(11) };
    rig.c.slots.get_mut(&key(11)).unwrap().bytes = rig.record(Some(old), None);
    rig.c.slots.get_mut(&key(12)).unwrap().bytes[2] ^= 1;
    rig.c.slots.get_mut(&key(13)).unwrap().bytes.push(0);
    // A hotkey that had no uid at the anchor.
    rig.a.members.remove(&Uid::from(14));
    assert!(rig.select().offered.is_empty());
    assert_eq!(rig.void(), VoidReason::TooFew { chosen: 0, needed: 4 });
}

#[test]
fn a_departed_members_slot_is_not_its_successors() {
    let mut rig = settled();
    rig.a.members.get_mut(&Uid::from(10)).unwrap().hotkey = key(200);
    assert_eq!(rig.chosen(), [11, 12, 13, 14]);
}

#[test]
fn who_may_not_vote_is_not_counted() {
    let mut rig = settled();
    rig.member(3, 1 << 40, false);
    rig.member(4, 9, true);
    for uid in [3, 4] {
        rig.voted_before(uid, 1);
        rig.votes(uid, head("false"), &[]);
    }
    assert_eq!(rig.select().voters.len(), 3);
    assert_eq!(rig.chosen(), [10, 11, 12, 13, 14]);
}

#[test]
fn a_voter_counts_for_w_rounds_and_no_longer() {
    for (ago, voters) in [(8, 4), (9, 3), (0, 3)] {
        let mut rig = settled();
        rig.member(3, 100, true);
        rig.voted_before(3, ago);
        assert_eq!(rig.select().voters.len(), voters, "last voted {ago} rounds ago");
    }
}

#[test]
fn a_silent_whale_voids_until_its_window_ends() {
    let mut rig = settled();
    rig.member(3, 300, true);
    rig.voted_before(3, 8);
    assert_eq!(rig.void(), VoidReason::TooFew { chosen: 0, needed: 4 });
    rig.voted_before(3, 9);
    assert_eq!(rig.chosen().len(), 5);
}

#[test]
fn an_empty_electorate_is_filled_by_who_votes_now() {
    let mut rig = settled();
    rig.a.slots.clear();
    rig.v.slots.remove(&key(2));
    assert_eq!(rig.chosen(), [10, 11, 12, 13, 14]);
    assert_eq!(rig.select().total_stake, 200);
    // One standing voter is enough to end it.
    rig.voted_before(2, 3);
    assert_eq!(rig.void(), VoidReason::NoBallot { voters: 1 });
}

#[test]
fn stake_sums_past_u64_are_counted() {
    let mut rig = Rig::new(&[u64::MAX, u64::MAX, u64::MAX]);
    (10..15).for_each(|uid| rig.offers(uid));
    (0..2).for_each(|uid| rig.votes(uid, head("h"), &[10, 11, 12, 13]));
    assert_eq!(rig.chosen(), [10, 11, 12, 13]);
    assert_eq!(rig.select().total_stake, 3 * u128::from(u64::MAX));
}

#[test]
fn of_more_than_k_those_of_most_support_stay_and_ties_follow_the_beacon() {
    let mut run = bittensor();
    run.electorate.contributions_max = 6;
    run.electorate.contributions_min = 1;
    let mut rig = Rig::of(run, &[100, 100, 100]);
    (10..20).for_each(|uid| rig.offers(uid));
    rig.votes(0, head("h"), &[10, 11, 12, 13, 14, 15]);
    rig.votes(1, head("h"), &[10, 11, 12, 16, 17, 18]);
    rig.votes(2, head("h"), &[13, 14, 15, 16, 17, 18]);
    // Nine have 200 of 300; six places.
    let by_tie = |rig: &Rig| {
        let mut uids: Vec<u8> = (10..19).collect();
        uids.sort_by_key(|uid| tie_order(rig.id, ROUND, rig.v.hash, Uid::from(*uid)));
        let mut kept = uids[..6].to_vec();
        kept.sort();
        kept
    };
    assert_eq!(rig.chosen(), by_tie(&rig));
    let before = rig.chosen();
    let moved = (0u32..20).any(|i| {
        rig.v.hash = Digest::of(&i.to_le_bytes());
        assert_eq!(rig.chosen(), by_tie(&rig));
        rig.chosen() != before
    });
    assert!(moved, "the tie order does not depend on hash(V)");
    // With all three behind one of them, it leads whatever the beacon says.
    rig.votes(2, head("h"), &[13, 14, 15, 16, 17, 10]);
    assert!(rig.chosen().contains(&10));
}

/// Computed by a second implementation. Others check themselves against it.
#[test]
fn the_tie_order_is_the_documented_one() {
    let order = tie_order(RunId(head("run")), Round(7), head("V"), Uid::from(3));
    assert_eq!(order.to_string(), "eee37eae4c9cebb518f99ba19ed6ee4b9b3d743adf2dd96c7cf828b3692bd483");
}

#[test]
fn a_state_of_another_block_is_refused() {
    let rig = settled();
    let fault = select(&rig.run, rig.id, ROUND, &rig.a, &rig.v, &rig.v).unwrap_err();
    assert_eq!(fault.to_string(), "round 20 is decided by the state at C = 3392, not at 3408: read the chain at 3392");
}

/// What a random voter does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Behaviour {
    Honest,
    Silent,
    /// Votes for another head.
    FalseHead(u8),
    /// The right head, and any ballot: ghosts, nothing, a few.
    Liar([u8; 32]),
    /// Bytes that are no record.
    Garbage,
}

fn behaviour() -> impl Strategy<Value = Behaviour> {
    prop_oneof![
        6 => Just(Behaviour::Honest),
        1 => Just(Behaviour::Silent),
        1 => (0u8..3).prop_map(Behaviour::FalseHead),
        1 => any::<[u8; 32]>().prop_map(Behaviour::Liar),
        1 => Just(Behaviour::Garbage),
    ]
}

/// Voters of random stake and behaviour; miners from uid 100, some of whom offer. The honest vote for `agreed`.
fn electorate_of(voters: &[(u64, Behaviour)], offering: &[bool], agreed: &[bool]) -> Rig {
    let mut rig = Rig::new(&voters.iter().map(|voter| voter.0).collect::<Vec<_>>());
    let miner = |i: usize| 100 + i as u8;
    offering.iter().enumerate().filter(|(_, offers)| **offers).for_each(|(i, _)| rig.offers(miner(i)));
    let good: Vec<u8> = agreed.iter().enumerate().filter(|(_, good)| **good).map(|(i, _)| miner(i)).collect();
    for (uid, (_, behaviour)) in voters.iter().enumerate() {
        let uid = uid as u8;
        match behaviour {
            Behaviour::Honest => rig.votes(uid, head("h"), &good),
            Behaviour::Silent => {}
            Behaviour::FalseHead(which) => rig.votes(uid, Digest::of(&[*which, 99]), &good),
            Behaviour::Liar(bits) => {
                let ballot: Vec<u8> = (0..20).map(|i| 90 + bits[i] % 40).collect();
                rig.votes(uid, head("h"), &ballot);
            }
            Behaviour::Garbage => {
                rig.v.slots.insert(key(uid), Slot { block: rig.v.block, bytes: vec![0xC5; 78] });
            }
        }
    }
    rig
}

fn any_electorate() -> impl Strategy<Value = (Vec<(u64, Behaviour)>, Rig, Vec<bool>)> {
    let voters = proptest::collection::vec((10u64..1_000_000, behaviour()), 1..12);
    let miners = proptest::collection::vec((proptest::bool::weighted(0.8), proptest::bool::weighted(0.8)), 4..16);
    (voters, miners).prop_map(|(voters, miners)| {
        let (offering, agreed): (Vec<bool>, Vec<bool>) =
            miners.iter().map(|(offers, good)| (*offers, *offers && *good)).unzip();
        let rig = electorate_of(&voters, &offering, &agreed);
        (voters, rig, agreed)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn whoever_votes_only_what_is_offered_and_has_a_majority_is_chosen((_, rig, _) in any_electorate()) {
        let selection = rig.select();
        prop_assert_eq!(&selection, &rig.clone().select());
        if let Outcome::Chosen(chosen) = &selection.outcome {
            prop_assert!(chosen.windows(2).all(|pair| pair[0].0 < pair[1].0));
            prop_assert!(chosen.len() <= 20);
            for (uid, digest) in chosen {
                prop_assert_eq!(selection.offered.get(uid), Some(digest));
                prop_assert!(2 * selection.support[uid] > selection.total_stake);
            }
        }
        let group: u128 = selection.group.iter().map(|uid| u128::from(rig.a.members[&uid].stake)).sum();
        prop_assert_eq!(selection.agreed.is_some(), 2 * group > selection.total_stake);
    }

    /// The protocol's assumption: malicious under a third, malicious and silent under half, and the honest agree.
    #[test]
    fn under_the_assumption_the_honest_win_and_no_ghost_does((voters, rig, agreed) in any_electorate()) {
        let stake = |wanted: &dyn Fn(Behaviour) -> bool| -> u128 {
            voters.iter().filter(|(_, behaviour)| wanted(*behaviour)).map(|(stake, _)| u128::from(*stake)).sum()
        };
        let total = stake(&|_| true);
        let honest = stake(&|behaviour| behaviour == Behaviour::Honest);
        let silent = stake(&|behaviour| matches!(behaviour, Behaviour::Silent | Behaviour::Garbage));
        let assumed = 2 * honest > total && 3 * (total - honest - silent) < total && total >= 100;
        if !assumed {
            return Ok(()); // Some 60 % of the cases hold it.
        }
        let selection = rig.select();
        prop_assert_eq!(selection.agreed, Some(head("h")));
        let good = agreed.iter().filter(|good| **good).count();
        match &selection.outcome {
            Outcome::Chosen(chosen) => {
                let chosen: Vec<usize> = chosen.iter().map(|(uid, _)| uid.index() - 100).collect();
                for (i, _) in agreed.iter().enumerate().filter(|(_, good)| **good) {
                    prop_assert!(chosen.contains(&i), "{i} was agreed on and is missing from {chosen:?}");
                }
                // Liars alone choose nothing: each chosen has an honest voter behind it.
                prop_assert!(chosen.iter().all(|i| agreed[*i]));
            }
            Outcome::Void(reason) => prop_assert_eq!(*reason, VoidReason::TooFew { chosen: good, needed: 4 }),
        }
    }
}
