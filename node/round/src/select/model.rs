//! The selection once more, word by word from its definition and without care for speed, on random states: whatever
//! stands in the slots, both must say the same.

use super::tests::{Rig, key};
use super::*;
use covey_proto::chain::Slot;
use covey_proto::record::Contribution;
use proptest::prelude::*;

/// What a random slot holds, if it is a record at all.
type RandomRecord = (bool, Option<(u32, u8)>, Option<(u32, u8, Vec<u8>)>);

const ROUND: u32 = super::tests::ROUND.0;

/// Mostly of the round, or mostly of those before it.
fn record(now: u32) -> impl Strategy<Value = RandomRecord> {
    let round = move || prop_oneof![now => Just(ROUND), 4 => ROUND - 10..ROUND, 1 => Just(ROUND + 1)];
    let head = prop_oneof![12 => Just(1u8), 3 => Just(2), 1 => Just(0)];
    let ballot = proptest::collection::vec(0u8..12, 2..9);
    (
        proptest::bool::weighted(0.95),
        proptest::option::weighted(0.8, (round(), any::<u8>())),
        proptest::option::weighted(0.9, (round(), head, ballot)),
    )
}

/// A random subnet of twelve with few places, so that ties, thin majorities and the limit K are common.
fn any_rig() -> impl Strategy<Value = Rig> {
    let member = (proptest::bool::weighted(0.7), prop_oneof![Just(100u64), 0u64..200], proptest::bool::weighted(0.95));
    let slots = |now| proptest::collection::vec(proptest::option::weighted(0.9, record(now)), 12);
    let block = proptest::collection::vec(-8i64..100, 12);
    (proptest::collection::vec(member, 12), slots(1), slots(40), slots(40), block, 1u32..5, 0u32..4).prop_map(
        |(members, a, c, v, blocks, places, least)| {
            let mut run = crate::clock::tests::bittensor();
            run.electorate.contributions_max = places + 3;
            run.electorate.contributions_min = least.clamp(1, places);
            let mut rig = Rig::of(run, &[]);
            for (uid, (permit, stake, present)) in (0u8..).zip(members) {
                rig.member(uid, stake, permit);
                if !present {
                    rig.a.members.remove(&Uid::from(uid));
                }
            }
            let run_id = rig.id;
            let anchor = i64::from(rig.a.block.0);
            for (view, slots) in [(&mut rig.a, a), (&mut rig.c, c), (&mut rig.v, v)] {
                for ((uid, slot), block) in (0u8..).zip(slots).zip(&blocks) {
                    let Some(slot) = slot else { continue };
                    let block = BlockNumber((anchor + block) as u32);
                    view.slots.insert(key(uid), Slot { block, bytes: bytes_of(run_id, slot) });
                }
            }
            rig
        },
    )
}

fn bytes_of(run_id: RunId, (ours, contribution, vote): RandomRecord) -> Vec<u8> {
    let mut record = Record::of(run_id);
    record.contribution =
        contribution.map(|(round, manifest)| Contribution { round: Round(round), manifest: Digest::of(&[manifest]) });
    record.vote = vote.map(|(round, head, ballot)| Vote {
        round: Round(round),
        head: if head == 0 { Digest::ZERO } else { Digest::of(&[head]) },
        ballot: ballot.into_iter().map(Uid::from).collect(),
    });
    if !ours {
        record.run[0] ^= 1;
    }
    record.to_bytes()
}

/// Chosen, or none if void; and the agreed head.
fn model(rig: &Rig) -> (Option<Vec<(Uid, Digest)>>, Option<Digest>) {
    let (run, electorate) = (&rig.run, &rig.run.electorate);
    let slot = |view: &ChainView, uid: u8| {
        let slot = view.slots.get(&rig.a.members.get(&Uid::from(uid))?.hotkey)?.clone();
        Some((slot.block, Record::from_bytes(&slot.bytes).ok().filter(|record| record.run == rig.id.0.prefix())?))
    };
    let vote = |view: &ChainView, uid: u8| slot(view, uid)?.1.vote;
    let stake = |uid: u8| u128::from(rig.a.members[&Uid::from(uid)].stake);
    let all = 0u8..12;
    let may =
        |uid: &u8| rig.a.members.get(&Uid::from(*uid)).is_some_and(|m| m.permit && m.stake >= electorate.stake_min);
    let now = |uid: &u8| vote(&rig.v, *uid).is_some_and(|vote| vote.round.0 == ROUND);
    let before = |uid: &u8| {
        vote(&rig.a, *uid).is_some_and(|vote| ROUND - electorate.window <= vote.round.0 && vote.round.0 < ROUND)
    };
    let mut voters: Vec<u8> = all.clone().filter(may).filter(before).collect();
    if voters.is_empty() {
        voters = all.clone().filter(may).filter(now).collect();
    }
    let total: u128 = voters.iter().map(|uid| stake(*uid)).sum();
    if total == 0 || total < u128::from(electorate.electorate_min) {
        return (None, None);
    }
    let ballots: Vec<(u8, Vote)> = voters
        .iter()
        .filter(|uid| now(uid))
        .map(|uid| (*uid, vote(&rig.v, *uid).unwrap()))
        .filter(|(_, vote)| vote.ballot.len() <= electorate.contributions_max as usize && vote.head != Digest::ZERO)
        .collect();
    let behind =
        |head: Digest| ballots.iter().filter(|(_, v)| v.head == head).map(|(uid, _)| stake(*uid)).sum::<u128>();
    let heads = [1u8, 2].map(|head| Digest::of(&[head]));
    let head = match ballots.is_empty() {
        true => return (None, None),
        false if heads.iter().all(|head| ballots.iter().any(|(_, vote)| vote.head == *head)) => {
            match behind(heads[0]).cmp(&behind(heads[1])) {
                std::cmp::Ordering::Greater => heads[0],
                std::cmp::Ordering::Less => heads[1],
                std::cmp::Ordering::Equal => return (None, None),
            }
        }
        false => ballots[0].1.head,
    };
    let support = |uid: u8| {
        let bit = |vote: &Vote| vote.head == head && vote.ballot.contains(Uid::from(uid));
        ballots.iter().filter(|(_, vote)| bit(vote)).map(|(uid, _)| stake(*uid)).sum::<u128>()
    };
    let blocks = RoundBlocks::of(run, Round(ROUND)).unwrap();
    let mut chosen: Vec<(u8, Digest)> = all
        .filter_map(|uid| {
            let (block, record) = slot(&rig.c, uid)?;
            let contribution = record.contribution.filter(|contribution| contribution.round.0 == ROUND)?;
            (blocks.anchor < block && block <= blocks.commit).then_some((uid, contribution.manifest))
        })
        .filter(|(uid, _)| 2 * support(*uid) > total)
        .collect();
    let tie = |uid: u8| {
        let mut bytes = [0; 32];
        let (run, hash) = (*rig.id.0.as_bytes(), *rig.v.hash.as_bytes());
        let parts = [&run[..], &ROUND.to_le_bytes(), &hash, &u32::from(uid).to_le_bytes()].concat();
        covey_proto::derive("covey/1/tie", &[&parts]).fill(&mut bytes);
        bytes
    };
    chosen.sort_by(|(one, _), (other, _)| support(*other).cmp(&support(*one)).then(tie(*one).cmp(&tie(*other))));
    chosen.truncate(electorate.contributions_max as usize);
    chosen.sort();
    let agreed = (2 * behind(head) > total).then_some(head);
    let enough = chosen.len() >= electorate.contributions_min as usize;
    (enough.then(|| chosen.into_iter().map(|(uid, digest)| (Uid::from(uid), digest)).collect()), agreed)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn the_selection_is_its_definition(rig in any_rig()) {
        let selection = rig.select();
        let chosen = match selection.outcome {
            Outcome::Chosen(chosen) => Some(chosen),
            Outcome::Void(_) => None,
        };
        prop_assert_eq!((chosen, selection.agreed), model(&rig));
    }
}
