//! Single steps: what must be so in one engine whatever the others do.

use super::world::{MINER, VALIDATOR, devnet, hotkey};
use super::*;
use covey_proto::chain::{Member, Slot};
use covey_proto::record::{Contribution, Record};
use std::collections::BTreeMap;

/// One engine, fed by hand. Uid 0 is its own; uid 1 is somebody else's, who has committed to something every round.
struct Bench {
    run: Arc<Run>,
    engine: Engine,
}

impl Bench {
    fn new(roles: Roles) -> Bench {
        let run = Arc::new(devnet());
        let tip = Tip::genesis(run.id());
        Bench { engine: Engine::new(run.clone(), roles, Some(hotkey(0)), tip, None), run }
    }

    fn without_state(mut self) -> Bench {
        self.engine = self.engine.without_state();
        self
    }

    fn blocks(&self, round: u32) -> RoundBlocks {
        RoundBlocks::of(&self.run, Round(round)).unwrap()
    }

    fn tell(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.engine.handle(event, &mut actions);
        actions
    }

    /// The chain stands at `best`, two blocks after the final one.
    fn best(&mut self, best: u32) -> Vec<Action> {
        self.tell(Event::Heads { best: BlockNumber(best), finalised: BlockNumber(best - 2) })
    }

    fn view(&mut self, block: BlockNumber) -> Vec<Action> {
        let member = |uid: u8| {
            let uid = Uid::from(uid);
            Member { uid, hotkey: hotkey(uid.index()), registered_at: BlockNumber(0), permit: true, stake: 10 }
        };
        let mut record = Record::of(self.run.id());
        let round = clock::last_committed(&self.run, block).unwrap_or(Round(0));
        record.contribution = Some(Contribution { round, manifest: Digest::of(b"made") });
        let slot = Slot { block: BlockNumber(block.0.saturating_sub(1)), bytes: record.to_bytes() };
        self.tell(Event::View(Arc::new(ChainView {
            block,
            hash: Digest::of(&block.0.to_le_bytes()),
            members: BTreeMap::from([0, 1].map(|uid| (Uid::from(uid), member(uid)))),
            slots: BTreeMap::from([(hotkey(1), slot)]),
        })))
    }
}

#[test]
fn a_state_asked_for_before_the_node_fell_behind_is_not_taken_for_another() {
    let mut bench = Bench::new(VALIDATOR);
    let (old, new) = (bench.blocks(0).anchor, bench.blocks(3));
    assert!(matches!(bench.best(old.0 + 2)[..], [Action::Read(block)] if block == old));
    assert!(bench.best(new.vote.0 + 2).is_empty(), "one state at a time");
    assert!(!bench.engine.is_live());
    assert!(matches!(bench.view(old)[..], [Action::Read(block)] if block == new.anchor));
}

/// A given first state is fetched: until it is here the node opens no round, however often the chain moves.
#[test]
fn who_lacks_the_first_state_waits_for_it_and_then_takes_part() {
    let mut bench = Bench::new(MINER).without_state();
    let round = bench.blocks(0);
    assert!(bench.best(round.anchor.0 + 2).is_empty());
    assert!(!bench.engine.is_live() && !bench.engine.is_idle());
    assert!(matches!(bench.tell(Event::Given)[..], [Action::Read(block)] if block == round.anchor));
    assert!(matches!(bench.view(round.anchor)[..], [Action::Train(_)]));
    assert!(bench.engine.is_live());
}

/// Others are rounds ahead: a later state that they agree on will do, and where they agree on none the next round may.
#[test]
fn who_lacks_the_first_state_may_join_by_a_later_one_and_never_stands_on_nothing() {
    let mut bench = Bench::new(MINER).without_state();
    let round = bench.blocks(1);
    assert!(matches!(bench.best(round.vote.0 + 2)[..], [Action::Read(block)] if block == round.anchor));
    bench.view(round.anchor);
    bench.view(round.commit);
    assert!(bench.view(round.vote).is_empty(), "nobody has voted for a head");
    assert!(bench.best(round.vote.0 + 3).is_empty() && !bench.engine.is_live(), "and it does not ask again and again");
    let again = bench.tell(Event::Given);
    assert!(matches!(again[..], [Action::Read(block)] if block == round.anchor), "with a state it looks again");
    bench.view(round.anchor);
    bench.view(round.commit);
    bench.view(round.vote);
    assert!(bench.engine.is_live(), "nobody else is there to begin");
}

#[test]
fn a_joiner_reads_the_states_of_one_round_though_the_chain_goes_on() {
    let mut bench = Bench::new(VALIDATOR);
    let (round, later) = (bench.blocks(3), bench.blocks(4));
    assert!(matches!(bench.best(round.vote.0 + 2)[..], [Action::Read(block)] if block == round.anchor));
    bench.best(later.vote.0 + 2);
    assert!(matches!(bench.view(round.anchor)[..], [Action::Read(block)] if block == round.commit));
    assert!(matches!(bench.view(round.commit)[..], [Action::Read(block)] if block == round.vote));
}

#[test]
fn who_falls_behind_while_it_trains_stops() {
    let mut bench = Bench::new(MINER);
    let (round, later) = (bench.blocks(0), bench.blocks(2));
    bench.best(round.anchor.0 + 2);
    assert!(matches!(bench.view(round.anchor)[..], [Action::Train(_)]));
    let actions = bench.best(later.vote.0 + 2);
    assert!(matches!(actions[..], [Action::StopTraining(Round(0)), Action::Read(_)]), "{actions:?}");
    assert!(!bench.engine.is_idle());
}

#[test]
fn a_state_that_cannot_be_read_is_asked_for_once_a_block() {
    let mut bench = Bench::new(MINER);
    let anchor = bench.blocks(0).anchor;
    bench.best(anchor.0 + 2);
    assert!(bench.tell(Event::NoView(anchor)).is_empty());
    assert!(matches!(bench.best(anchor.0 + 3)[..], [Action::Read(block)] if block == anchor));
}

/// Up to the exchange, at block `best`.
fn revealed(best: u32) -> (Bench, Vec<Action>) {
    let mut bench = Bench::new(VALIDATOR);
    let round = bench.blocks(0);
    bench.best(round.anchor.0 + 2);
    bench.view(round.anchor);
    bench.best(best);
    let actions = bench.view(round.commit);
    (bench, actions)
}

#[test]
fn who_reveals_late_votes_when_it_has_what_there_is_or_a_block_later() {
    let due = Bench::new(VALIDATOR).blocks(0).vote_submit.0;
    let votes = |actions: &[Action]| actions.iter().filter(|action| matches!(action, Action::Vote { .. })).count();

    let (mut bench, actions) = revealed(due);
    assert_eq!(votes(&actions), 0, "nothing is held yet");
    let actions = bench.tell(Event::Held(Round(0), Uid::from(1)));
    assert!(matches!(&actions[..], [Action::Vote { held, .. }] if held.contains(Uid::from(1))));

    let (mut bench, _) = revealed(due);
    assert_eq!(votes(&bench.best(due + 1)), 1, "an empty ballot is better than none");
    assert_eq!(votes(&bench.tell(Event::Held(Round(0), Uid::from(1)))), 0, "one vote a round");

    let (mut bench, _) = revealed(due - 1);
    assert_eq!(votes(&bench.tell(Event::Held(Round(0), Uid::from(1)))), 0, "too early");
    assert_eq!(votes(&bench.best(due)), 1);
}

#[test]
fn what_is_over_is_said_of_a_rounds_collection_and_what_starves_of_its_application() {
    let (mut bench, _) = revealed(Bench::new(VALIDATOR).blocks(0).vote_submit.0 - 1);
    assert!(!bench.engine.is_idle());
    bench.tell(Event::CollectingOver(Round(7)));
    bench.tell(Event::Starving(Round(0)));
    assert!(!bench.engine.is_idle());
    bench.tell(Event::CollectingOver(Round(0)));
    assert!(bench.engine.is_idle(), "what is missing is given up");
    // Opened again: it is collected anew.
    let round = bench.blocks(0);
    bench.tell(Event::NoView(round.vote));
    assert_eq!(bench.engine.phase(), "exchange", "nobody asked for that block");
    bench.best(round.vote.0 + 2);
    bench.tell(Event::NoView(round.vote));
    bench.best(round.vote.0 + 3);
    for block in [round.anchor, round.commit, round.vote] {
        // As a joiner, which finds no agreed head.
        bench.view(block);
    }
    bench.view(round.anchor);
    bench.view(round.commit);
    assert_eq!((bench.engine.phase(), bench.engine.is_idle()), ("exchange", false));
    bench.view(round.vote);
    assert_eq!(bench.engine.phase(), "apply");
    bench.tell(Event::Scored(Round(0)));
    for event in [Event::CollectingOver(Round(0)), Event::Starving(Round(1))] {
        bench.tell(event);
        assert!(!bench.engine.is_idle(), "it applies, and says nothing of waiting");
    }
    bench.tell(Event::Starving(Round(0)));
    assert!(bench.engine.is_idle(), "it waits for bytes: the others may go on");
}

/// Up to the point where round 0 is decided and being applied, by a miner.
fn settling() -> Bench {
    let mut bench = Bench::new(MINER);
    let round = bench.blocks(0);
    bench.best(round.anchor.0 + 2);
    bench.view(round.anchor);
    bench.tell(Event::Trained(Round(0), None));
    bench.best(round.vote.0 + 2);
    bench.view(round.commit);
    assert!(matches!(bench.view(round.vote)[..], [Action::Apply(_)]));
    bench
}

#[test]
fn the_next_round_is_trained_while_the_head_is_being_hashed() {
    let (mut bench, head) = (settling(), Digest::of(b"head"));
    let (next, after) = (bench.blocks(1), bench.blocks(2));
    assert!(bench.tell(Event::Stepped(Round(0))).is_empty());
    assert_eq!((bench.engine.phase(), bench.engine.is_idle()), ("apply", false));
    assert!(matches!(bench.best(next.anchor.0 + 2)[..], [Action::Read(block)] if block == next.anchor));
    let actions = bench.view(next.anchor);
    assert!(matches!(&actions[..], [Action::Train(task)] if (task.round, task.base) == (Round(1), None)));
    // However late the head is: nothing that names it is done before, and the node does not take itself for one behind.
    assert!(matches!(bench.best(next.commit.0 + 2)[..], [Action::StopTraining(Round(1))]));
    bench.best(after.vote.0 + 2);
    assert!(bench.engine.is_live() && !bench.engine.is_idle());
    assert_eq!(bench.engine.tip(), Tip::genesis(bench.run.id()));
    let actions = bench.tell(Event::Applied(Round(0), head));
    assert_eq!(bench.engine.tip(), Tip { round: Some(Round(0)), head });
    assert!(!bench.engine.is_live(), "it is behind now, and knows where it stands: {actions:?}");
}

#[test]
fn a_head_in_time_lets_the_round_go_on_and_its_contribution_be_committed() {
    let (mut bench, head) = (settling(), Digest::of(b"head"));
    let next = bench.blocks(1);
    bench.tell(Event::Stepped(Round(0)));
    bench.best(next.anchor.0 + 2);
    bench.view(next.anchor);
    assert!(bench.tell(Event::Applied(Round(0), head)).is_empty());
    assert!(!bench.engine.is_idle(), "it trains");
    let made = Digest::of(b"mine");
    assert!(
        matches!(bench.tell(Event::Trained(Round(1), Some(made)))[..], [Action::Commit(Round(1), digest)] if digest == made)
    );
    assert!(matches!(bench.best(next.commit.0 + 2)[..], [Action::Read(block)] if block == next.commit));
    let actions = bench.view(next.commit);
    assert!(matches!(&actions[..], [Action::Collect(collection)] if collection.base == head), "{actions:?}");
}

#[test]
fn a_state_that_cannot_be_read_while_the_head_is_hashed_does_not_make_a_joiner() {
    let mut bench = settling();
    let next = bench.blocks(1);
    bench.tell(Event::Stepped(Round(0)));
    bench.best(next.anchor.0 + 2);
    assert!(bench.tell(Event::NoView(next.anchor)).is_empty());
    assert!(matches!(bench.best(next.anchor.0 + 3)[..], [Action::Read(block)] if block == next.anchor));
    bench.tell(Event::NoView(next.anchor));
    bench.tell(Event::Applied(Round(0), Digest::of(b"head")));
    assert!(bench.engine.is_live());
    assert!(matches!(bench.best(next.anchor.0 + 4)[..], [Action::Read(block)] if block == next.anchor));
}

#[test]
fn what_was_stepped_or_applied_of_another_round_changes_nothing() {
    let mut bench = settling();
    for event in [Event::Stepped(Round(1)), Event::Applied(Round(1), Digest::of(b"head"))] {
        bench.tell(event);
        assert_eq!((bench.engine.phase(), bench.engine.tip().round), ("apply", None));
    }
    bench.tell(Event::Stepped(Round(0)));
    bench.tell(Event::Stepped(Round(0)));
    bench.tell(Event::Applied(Round(1), Digest::of(b"head")));
    assert_eq!(bench.engine.tip().round, None);
    bench.tell(Event::Applied(Round(0), Digest::of(b"head")));
    bench.tell(Event::Applied(Round(0), Digest::of(b"another")));
    assert_eq!(bench.engine.tip(), Tip { round: Some(Round(0)), head: Digest::of(b"head") });
}
