//! What the chain says of a run, round by round: who takes part, who committed, what was selected and why, which head the
//! electorate agrees on. Pure: final states go in, news comes out.
//!
//! An observer follows strictly forward. A state that the chain has forgotten costs the rounds up to now, never a wrong
//! word about them.

use super::News;
use covey_proto::chain::ChainView;
use covey_proto::run::Run;
use covey_proto::{BlockNumber, Digest, Round, RunId, Uid};
use covey_round::clock::{BeyondBlocks, RoundBlocks, last_anchored};
use covey_round::select::{Outcome, SelectError, Selection, offered, select};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The rounds of a run, as far as they are known.
pub struct Rounds {
    run: Arc<Run>,
    run_id: RunId,
    open: Option<OpenRound>,
    /// The last decided round's selection: its header must name the same.
    decided: Option<(Round, Vec<(Uid, Digest)>)>,
}

/// The round that is under way.
struct OpenRound {
    blocks: RoundBlocks,
    at_a: Option<Arc<ChainView>>,
    /// The state at C, and what stands there.
    at_c: Option<(Arc<ChainView>, BTreeMap<Uid, Digest>)>,
}

/// A header that the electorate vouches for, to be fetched from peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VouchedHead {
    /// The round that it ends.
    pub round: Round,
    /// Its digest.
    pub head: Digest,
    /// What it must say was applied, if the round was seen here.
    pub selected: Option<Vec<(Uid, Digest)>>,
    /// Who voted for it: they have it.
    pub holders: Vec<Uid>,
}

impl Rounds {
    /// Nothing is known yet.
    pub fn new(run: Arc<Run>) -> Rounds {
        Rounds { run_id: run.id(), run, open: None, decided: None }
    }

    /// The block whose state is needed next, once it is final; none before the run begins or after its last round.
    pub fn needed(&mut self, finalised: BlockNumber) -> Option<BlockNumber> {
        if self.open.is_none() {
            let round = last_anchored(&self.run, finalised)?;
            self.open = self.at(round).ok();
        }
        let open = self.open.as_ref()?;
        let block = match (&open.at_a, &open.at_c) {
            (None, _) => open.blocks.anchor,
            (_, None) => open.blocks.commit,
            _ => open.blocks.vote,
        };
        (block <= finalised).then_some(block)
    }

    fn at(&self, round: Round) -> Result<OpenRound, BeyondBlocks> {
        Ok(OpenRound { blocks: RoundBlocks::of(&self.run, round)?, at_a: None, at_c: None })
    }

    /// The state that was needed is no longer to be had: goes on with the round that is under way now.
    pub fn forget(&mut self) {
        (self.open, self.decided) = (None, None);
    }

    /// The round whose reveals are awaited, with what they must be.
    pub fn offered(&self) -> Option<(Round, &BTreeMap<Uid, Digest>)> {
        let open = self.open.as_ref()?;
        Some((open.blocks.round, &open.at_c.as_ref()?.1))
    }

    /// The round under way, or the one that comes next.
    pub fn round(&self) -> Round {
        self.open.as_ref().map_or(Round(0), |open| open.blocks.round)
    }

    /// Takes in the state that was [needed](Rounds::needed).
    ///
    /// # Errors
    /// The state is not of that block: the ledger's mistake.
    pub fn learn(&mut self, view: Arc<ChainView>) -> Result<(Option<News>, Option<VouchedHead>), SelectError> {
        let Some(open) = &mut self.open else { return Ok((None, None)) };
        let (run, run_id, blocks) = (&self.run, self.run_id, open.blocks);
        let (Some(at_a), at_c) = (&open.at_a, &open.at_c) else {
            let news = opened(run, &blocks, &view);
            open.at_a = Some(view);
            return Ok((Some(news), None));
        };
        let Some((at_c, _)) = at_c else {
            let offered = offered(run, run_id, blocks.round, at_a, &view)?;
            let news = News::Committed { round: blocks.round, uids: offered.keys().copied().collect() };
            open.at_c = Some((view, offered));
            return Ok((Some(news), None));
        };
        let selection = select(run, run_id, blocks.round, at_a, at_c, &view)?;
        let before = self.decided.take();
        let vouched = vouched(run_id, blocks.round, &selection, before);
        let news = decided(blocks.round, &selection);
        self.decided = Some((blocks.round, chosen(&selection)));
        self.open = self.at(blocks.round.next()).ok();
        Ok((Some(news), vouched))
    }
}

fn opened(run: &Run, blocks: &RoundBlocks, view: &ChainView) -> News {
    let may_vote = |member: &&covey_proto::chain::Member| member.permit && member.stake >= run.electorate.stake_min;
    News::Opened {
        round: blocks.round,
        first: blocks.start,
        last: BlockNumber(blocks.next_start.0.saturating_sub(1)),
        members: view.members.len(),
        validators: view.members.values().filter(may_vote).count(),
    }
}

fn chosen(selection: &Selection) -> Vec<(Uid, Digest)> {
    match &selection.outcome {
        Outcome::Chosen(chosen) => chosen.clone(),
        Outcome::Void(_) => Vec::new(),
    }
}

fn decided(round: Round, selection: &Selection) -> News {
    let chosen: Vec<Uid> = chosen(selection).iter().map(|(uid, _)| *uid).collect();
    let share =
        |stake: u128| if selection.total_stake == 0 { 0.0 } else { stake as f64 / selection.total_stake as f64 };
    let support = |uid: &Uid| share(selection.support.get(uid).copied().unwrap_or(0));
    let missed = selection.offered.keys().filter(|uid| !chosen.contains(uid));
    News::Decided {
        round,
        missed: missed.map(|uid| (*uid, support(uid))).collect(),
        void: match &selection.outcome {
            Outcome::Void(reason) => Some(reason.to_string()),
            Outcome::Chosen(_) => None,
        },
        selected: chosen,
        voted: selection.voted.iter().collect(),
        electorate: selection.voters.len(),
        heads: selection.heads.iter().map(|(head, stake)| (*head, share(*stake))).collect(),
    }
}

/// The header that the votes of a round vouch for: the round's before.
fn vouched(
    run_id: RunId,
    round: Round,
    selection: &Selection,
    before: Option<(Round, Vec<(Uid, Digest)>)>,
) -> Option<VouchedHead> {
    let head = selection.agreed.filter(|head| *head != run_id.0)?;
    let round = round.previous()?;
    let selected = before.filter(|(decided, _)| *decided == round).map(|(_, selected)| selected);
    Some(VouchedHead { round, head, selected, holders: selection.group.iter().collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preset::Template;
    use covey_proto::Hotkey;
    use covey_proto::chain::{Member, Slot};
    use covey_proto::record::{Contribution, Record, Vote};
    use covey_proto::run::{Chain, Data};

    fn run() -> Arc<Run> {
        let chain = Chain { genesis: Digest::of(b"chain"), netuid: 1, start: 8, genesis_state: Digest::ZERO };
        let data = Data { digest: Digest::of(b"data"), samples: 1000 };
        Arc::new(Template::load("tiny").unwrap().resolve(&chain, &data).unwrap())
    }

    fn hotkey(uid: u8) -> Hotkey {
        Hotkey::new([uid; 32])
    }

    /// Two miners and one validator, with these records set one block before.
    fn view(block: BlockNumber, records: &[(u8, Record)]) -> Arc<ChainView> {
        let member = |uid: u8| Member {
            uid: Uid::from(uid),
            hotkey: hotkey(uid),
            registered_at: BlockNumber(0),
            permit: uid == 2,
            stake: if uid == 2 { 1_000_000 } else { 0 },
        };
        let slot = |(uid, record): &(u8, Record)| {
            (hotkey(*uid), Slot { block: BlockNumber(block.0 - 1), bytes: record.to_bytes() })
        };
        Arc::new(ChainView {
            block,
            hash: Digest::of(&block.0.to_le_bytes()),
            members: (0..3).map(|uid| (Uid::from(uid), member(uid))).collect(),
            slots: records.iter().map(slot).collect(),
        })
    }

    /// Lets a round pass in which uid 0 and 1 commit and the validator votes for uid 0 alone, with this head.
    fn pass(rounds: &mut Rounds, run: &Run, round: Round, head: Digest) -> (Vec<News>, Option<VouchedHead>) {
        let run_id = run.id();
        let blocks = RoundBlocks::of(run, round).unwrap();
        let end = BlockNumber(blocks.vote.0 + 1);
        let commit = |uid: u8| {
            let manifest = Digest::of(&[uid]);
            (uid, Record { contribution: Some(Contribution { round, manifest }), ..Record::of(run_id) })
        };
        let ballot = [Uid::from(0)].into_iter().collect();
        let vote = (2, Record { vote: Some(Vote { round, head, ballot }), ..Record::of(run_id) });
        let mut news = Vec::new();
        assert_eq!(rounds.needed(end), Some(blocks.anchor));
        news.extend(rounds.learn(view(blocks.anchor, &[])).unwrap().0);
        assert_eq!(rounds.needed(BlockNumber(blocks.commit.0 - 1)), None, "not final yet");
        assert_eq!(rounds.needed(end), Some(blocks.commit));
        news.extend(rounds.learn(view(blocks.commit, &[commit(0), commit(1)])).unwrap().0);
        assert_eq!(rounds.offered().unwrap().1.len(), 2);
        assert_eq!(rounds.needed(end), Some(blocks.vote));
        let (last, vouched) = rounds.learn(view(blocks.vote, &[commit(0), commit(1), vote])).unwrap();
        news.extend(last);
        (news, vouched)
    }

    #[test]
    fn a_round_is_told_as_the_chain_decides_it_and_the_next_vouches_for_it() {
        let run = run();
        let mut rounds = Rounds::new(run.clone());
        assert_eq!(rounds.needed(BlockNumber(0)), None, "the run has not begun");
        let (news, vouched) = pass(&mut rounds, &run, Round(0), run.id().0);
        assert_eq!(vouched, None, "round 0 has none before it");
        assert!(matches!(&news[0], News::Opened { members: 3, validators: 1, .. }), "{news:?}");
        assert!(matches!(&news[1], News::Committed { uids, .. } if uids.len() == 2), "{news:?}");
        let News::Decided { selected, missed, void: None, .. } = &news[2] else { panic!("{news:?}") };
        assert_eq!(
            (&selected[..], missed.keys().copied().collect::<Vec<_>>()),
            (&[Uid::from(0)][..], vec![Uid::from(1)])
        );
        let head = Digest::of(b"head of round 0");
        let (_, vouched) = pass(&mut rounds, &run, Round(1), head);
        let vouched = vouched.unwrap();
        assert_eq!((vouched.round, vouched.head), (Round(0), head));
        assert_eq!(vouched.selected, Some(vec![(Uid::from(0), Digest::of(&[0]))]));
        assert_eq!(vouched.holders, [Uid::from(2)]);
    }

    #[test]
    fn a_forgotten_state_skips_to_the_round_that_is_under_way() {
        let run = run();
        let mut rounds = Rounds::new(run.clone());
        let late = RoundBlocks::of(&run, Round(7)).unwrap();
        assert!(rounds.needed(BlockNumber(run.chain.start)).is_some());
        rounds.forget();
        assert_eq!(rounds.needed(late.commit), Some(late.anchor));
        assert_eq!(rounds.round(), Round(7));
    }
}
