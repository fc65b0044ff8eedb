//! What histories must come to, and single steps of the submitter one by one.

use super::world::*;
use super::*;
use covey_proto::{Digest, Round, Uid};

/// All that can go wrong with a chain, a process and their connection.
fn bad() -> Faults {
    let chain = ChainFaults { empty: 3, forget: 12, reorganise: 8, rival: 25, fail: 0 };
    Faults { kill: 300, silence: 8, journal: 0, too_soon: 3, chain }
}

#[test]
fn without_faults_everything_stands_and_is_signed_once() {
    for seed in 0..20 {
        let mut world = World::new(seed);
        for round in 0..4 {
            world.play_round(round, false);
            assert_eq!(world.stands(round), (true, true), "round {round}");
        }
        let shares = [0, 1, 2, 3].into_iter().flat_map(|round| [round, round + 1_000]);
        assert_eq!(world.weights(), shares.collect::<Vec<u16>>());
        assert!(!world.told.contains(&News::SigningAnew), "{:?}", world.told);
        assert!(world.unanswered().is_empty());
    }
}

/// Whatever has happened: once the chain takes calls for long enough, everything stands.
#[test]
fn histories_of_faults_and_kills_end_well_when_the_chain_takes_calls_again() {
    let (mut kills, mut anew) = (0, 0);
    for seed in 0..200 {
        let mut world = World::new(seed);
        world.faults = bad();
        for round in 0..4 {
            world.play_round(round, true);
            assert_eq!(world.stands(round), (true, true), "seed {seed}, round {round}: {:?}", world.told);
            // Older ones may come after them, once: a crash forgets who had which nonce.
            assert!(world.weights().contains(&(round as u16 + 2_000)), "seed {seed}, round {round}: {:?}", world.told);
            assert!(world.unanswered().is_empty(), "seed {seed}: {:?}", world.unanswered());
        }
        kills += world.kills;
        anew += world.told.iter().filter(|news| **news == News::SigningAnew).count();
    }
    assert!(kills > 200 && anew > 200, "only {kills} kills and {anew} lost calls");
}

/// Faults that never end: nothing need stand, and nothing wrong is done (the world asserts what must hold).
#[test]
fn histories_without_mercy_break_no_promise() {
    for seed in 0..200 {
        let mut world = World::new(seed);
        world.faults = Faults { kill: 150, silence: 3, journal: 6, ..bad() };
        world.faults.chain.fail = 10;
        for round in 0..4 {
            world.play_round(round, false);
        }
    }
}

/// Killed between any two steps, with or without a pool that forgets: the journal brings it all back.
#[test]
fn a_node_killed_at_any_step_still_has_its_contribution_and_vote_on_chain() {
    for forgets in [false, true] {
        let mut whole = World::new(7);
        whole.play_round(0, false);
        for step in 0..whole.steps {
            let mut world = World::new(7);
            world.kill_at(step, forgets);
            world.play_round(0, false);
            assert_eq!(world.kills, 1);
            assert_eq!(world.stands(0), (true, true), "killed at step {step}: {:?}", world.told);
        }
    }
}

// ---- single steps ---------------------------------------------------------------------------------------------------

struct Bench(Submitter);

impl Bench {
    fn new(memory: Memory) -> Bench {
        let mut bench = Bench(Submitter::new(RUN, Some(ME), memory));
        bench.heads(10);
        bench
    }

    fn tell(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.0.handle(event, &mut actions);
        actions
    }

    fn heads(&mut self, best: u32) -> Vec<Action> {
        self.tell(Event::Heads { best: BlockNumber(best), finalised: BlockNumber(best - 2) })
    }

    fn wish(&mut self, ticket: u64, wish: Wish, until: u32) -> Vec<Action> {
        self.tell(Event::Wished { ticket: Ticket(ticket), wish, until: BlockNumber(until) })
    }

    fn signed(&mut self, ticket: u64, call: u8) -> Vec<Action> {
        self.tell(Event::Signed(Ticket(ticket), Ok(bytes(call))))
    }

    fn taken(&mut self, ticket: u64) -> Vec<Action> {
        self.tell(Event::HandedOver(Ticket(ticket), Ok(())))
    }
}

fn bytes(call: u8) -> SignedCall {
    SignedCall(vec![call])
}

fn row(share: u16) -> Wish {
    Wish::Weights(vec![(Uid::from(1), share)])
}

fn not_submitted(actions: &[Action]) -> Option<&Obstacle> {
    actions.iter().find_map(|action| match action {
        Action::Tell(_, News::NotSubmitted(obstacle)) => Some(obstacle),
        _ => None,
    })
}

#[test]
fn a_second_wish_is_signed_after_the_first_is_with_the_chain() {
    let mut bench = Bench::new(Memory::default());
    assert!(matches!(bench.wish(1, row(1), 90)[..], [Action::Sign(Ticket(1), _)]));
    assert!(bench.wish(2, Wish::Vote(vote(0)), 80).is_empty(), "it waits for its turn");
    assert_eq!(bench.signed(1, 7), [Action::HandOver(Ticket(1), bytes(7))]);
    let actions = bench.taken(1);
    assert!(matches!(actions[..], [Action::Answer(Ticket(1)), Action::Sign(Ticket(2), _)]), "{actions:?}");
}

#[test]
fn a_nonce_that_the_chain_has_not_seen_is_the_next_to_be_handed_over() {
    let mut bench = Bench::new(Memory::default());
    bench.wish(1, row(1), 90);
    bench.wish(2, Wish::Vote(vote(0)), 80);
    bench.signed(1, 7);
    let silence = || Trouble::NoAnswer("cut".into());
    let actions = bench.tell(Event::HandedOver(Ticket(1), Err(silence())));
    let told = Action::Tell(Ticket(1), News::TryingAgain(silence()));
    assert_eq!(actions, [Action::Answer(Ticket(1)), told, Action::Pause(Ticket(1))], "and nothing is signed");
    assert_eq!(bench.tell(Event::PauseOver(Ticket(1))), [Action::HandOver(Ticket(1), bytes(7))]);
    assert!(matches!(bench.taken(1)[..], [Action::Sign(Ticket(2), _)]));
}

#[test]
fn who_waits_for_a_signature_holds_up_nobody() {
    let mut bench = Bench::new(Memory::default());
    bench.wish(1, Wish::Vote(vote(0)), 80);
    bench.wish(2, row(1), 90);
    let actions = bench.tell(Event::Signed(Ticket(1), Err(Trouble::NoAnswer("cut".into()))));
    assert!(matches!(actions[..], [Action::Tell(..), Action::Pause(Ticket(1)), Action::Sign(Ticket(2), _)]));
}

#[test]
fn weights_that_come_too_soon_wait_for_their_block_and_their_author_does_not() {
    let mut bench = Bench::new(Memory::default());
    bench.wish(1, row(1), 90);
    let not_yet = |at| Trouble::NotYet { at: BlockNumber(at), why: "too soon".into() };
    let actions = bench.tell(Event::Signed(Ticket(1), Err(not_yet(20))));
    assert_eq!(actions, [Action::Answer(Ticket(1)), Action::Tell(Ticket(1), News::TryingLater(not_yet(20)))]);
    assert!(bench.heads(18).is_empty());
    assert!(matches!(bench.heads(19)[..], [Action::Sign(Ticket(1), _)]), "the next block is 20");
    let actions = bench.tell(Event::Signed(Ticket(1), Err(not_yet(90))));
    assert_eq!(not_submitted(&actions), Some(&Obstacle::Chain(not_yet(90))), "they would be of no use by then");
}

#[test]
fn newer_weights_end_older_ones_but_a_nonce_is_handed_over_all_the_same() {
    let mut bench = Bench::new(Memory::default());
    bench.wish(1, row(1), 90);
    bench.signed(1, 7);
    bench.taken(1);
    assert!(matches!(bench.wish(2, row(2), 90)[..], [Action::Sign(Ticket(2), _)]));
    assert!(bench.wish(3, row(3), 90).is_empty());
    let actions = bench.wish(4, row(4), 90);
    let told = Action::Tell(Ticket(3), News::NotSubmitted(Obstacle::NewerWeights));
    assert_eq!(actions, [told, Action::Answer(Ticket(3))]);
    assert_eq!(bench.signed(2, 8), [Action::HandOver(Ticket(2), bytes(8))], "it has its nonce");
    assert!(matches!(bench.taken(2)[..], [Action::Answer(Ticket(2)), Action::Sign(Ticket(4), _)]));
    bench.signed(4, 9);
    bench.taken(4);
    let asked = Action::AskFate(Ticket(4), bytes(9), BlockNumber(9));
    assert_eq!(bench.heads(11), [asked], "of the others nobody asks any more");
}

#[test]
fn the_same_bytes_go_out_at_every_block_until_the_record_stands() {
    let mut bench = Bench::new(Memory::default());
    bench.wish(1, Wish::Vote(vote(0)), 80);
    bench.signed(1, 7);
    bench.taken(1);
    for best in 11..15 {
        assert_eq!(bench.heads(best), [Action::ReadSlot(Ticket(1), BlockNumber(best - 2))]);
        let asked = bench.tell(Event::Slot(Ticket(1), None));
        assert_eq!(asked, [Action::AskFate(Ticket(1), bytes(7), BlockNumber(best - 2))]);
        assert_eq!(bench.tell(Event::Fate(Ticket(1), Fate::Open)), [Action::HandOver(Ticket(1), bytes(7))]);
        bench.tell(Event::HandedOver(Ticket(1), Err(Trouble::Refused("it is in a block".into()))));
    }
    bench.heads(15);
    let mut record = Record::of(RUN);
    record.vote = Some(vote(0));
    assert!(bench.tell(Event::Slot(Ticket(1), Some(record))).is_empty());
    assert!(bench.heads(16).is_empty(), "it stands");
}

#[test]
fn a_lost_call_is_signed_anew_and_a_failed_one_is_not() {
    let mut bench = Bench::new(Memory::default());
    bench.wish(1, Wish::Vote(vote(0)), 80);
    bench.signed(1, 7);
    bench.taken(1);
    bench.heads(11);
    bench.tell(Event::Slot(Ticket(1), None));
    let actions = bench.tell(Event::Fate(Ticket(1), Fate::Lost));
    assert!(matches!(actions[..], [Action::Tell(_, News::SigningAnew), Action::Sign(Ticket(1), _)]), "{actions:?}");
    assert_eq!(bench.signed(1, 8), [Action::HandOver(Ticket(1), bytes(8))]);
    bench.taken(1);
    bench.heads(12);
    bench.tell(Event::Slot(Ticket(1), None));
    let failed = || "no permit".to_owned();
    let actions = bench.tell(Event::Fate(Ticket(1), Fate::Failed(failed())));
    assert_eq!(actions, [Action::Tell(Ticket(1), News::FailedOnChain(failed()))]);
    assert!(bench.heads(13).is_empty());
}

#[test]
fn a_record_that_was_lost_is_not_signed_over_a_later_one() {
    let mut bench = Bench::new(Memory::default());
    for (ticket, wish) in [(1, Wish::Vote(vote(0))), (2, Wish::Contribution(contribution(1)))] {
        bench.wish(ticket, wish, 80);
        bench.signed(ticket, ticket as u8);
        bench.tell(Event::Journalled(Ticket(ticket)));
        bench.taken(ticket);
    }
    bench.heads(11);
    bench.tell(Event::Slot(Ticket(1), None));
    let actions = bench.tell(Event::Fate(Ticket(1), Fate::Lost));
    assert_eq!(not_submitted(&actions), Some(&Obstacle::LaterRecord));
    assert!(!actions.iter().any(|action| matches!(action, Action::Sign(..))));
}

#[test]
fn a_contribution_repeats_the_last_vote_and_is_journalled_before_it_is_handed_over() {
    let mut bench = Bench::new(Memory { vote: Some(vote(0)), contribution: None });
    let mut record = Record::of(RUN);
    (record.contribution, record.vote) = (Some(contribution(1)), Some(vote(0)));
    let actions = bench.wish(1, Wish::Contribution(contribution(1)), 80);
    assert_eq!(actions, [Action::Sign(Ticket(1), Content::Record(record))]);
    assert_eq!(bench.signed(1, 7), [Action::Journal(Ticket(1), contribution(1), bytes(7))]);
    assert_eq!(bench.tell(Event::Journalled(Ticket(1))), [Action::HandOver(Ticket(1), bytes(7))]);
}

#[test]
fn what_the_journal_does_not_take_is_not_handed_over() {
    let mut bench = Bench::new(Memory::default());
    bench.wish(1, Wish::Contribution(contribution(1)), 80);
    bench.signed(1, 7);
    let actions = bench.tell(Event::NotJournalled(Ticket(1), "full".into()));
    assert!(not_submitted(&actions).is_some_and(Obstacle::needs_a_person));
    assert!(bench.heads(11).is_empty());
}

#[test]
fn a_second_contribution_of_a_round_is_refused_and_the_same_one_is_no_second() {
    let mut bench = Bench::new(Memory::default());
    let mine = contribution(1);
    bench.wish(1, Wish::Contribution(mine), 80);
    bench.signed(1, 7);
    bench.tell(Event::Journalled(Ticket(1)));
    bench.taken(1);
    assert_eq!(bench.wish(2, Wish::Contribution(mine), 80), [Action::Answer(Ticket(2))], "it is on its way");
    let other = Contribution { manifest: Digest::of(b"other"), ..mine };
    let actions = bench.wish(3, Wish::Contribution(other), 80);
    assert_eq!(not_submitted(&actions), Some(&Obstacle::SecondContribution(mine)));
}

#[test]
fn a_journalled_call_is_resumed_in_time_and_only_its_author_resumes_it() {
    let memory = |author| Memory {
        vote: None,
        contribution: Some(MemorisedContribution {
            contribution: contribution(1),
            until: BlockNumber(80),
            call: Some((bytes(7), author)),
        }),
    };
    let own = Submitter::new(RUN, Some(ME), memory(Some(ME)));
    assert_eq!(own.to_resume(BlockNumber(79)), Some(&bytes(7)));
    assert_eq!(own.to_resume(BlockNumber(80)), None, "it is too late for it");
    let mut bench = Bench(own);
    let actions = bench.wish(1, Wish::Contribution(contribution(1)), 80);
    assert_eq!(actions, [Action::HandOver(Ticket(1), bytes(7))], "the same bytes");
    for author in [Some(Hotkey::new([2; 32])), None] {
        let other = Submitter::new(RUN, Some(ME), memory(author));
        assert_eq!(other.to_resume(BlockNumber(0)), None);
        let actions = Bench(other).wish(1, Wish::Contribution(contribution(1)), 80);
        assert!(matches!(actions[..], [Action::Sign(..)]), "signed with this node's own hotkey");
    }
}

#[test]
fn what_is_late_is_given_up_and_its_author_is_told() {
    let mut bench = Bench::new(Memory::default());
    let actions = bench.wish(1, Wish::Vote(vote(0)), 10);
    let (best, until) = (BlockNumber(10), BlockNumber(10));
    assert_eq!(not_submitted(&actions), Some(&Obstacle::TooLate { best, until }));
    assert!(actions.contains(&Action::Answer(Ticket(1))));
    bench.wish(2, row(1), 90);
    bench.wish(3, Wish::Vote(vote(0)), 12);
    let actions = bench.heads(12);
    assert!(actions.contains(&Action::Answer(Ticket(3))), "it waits for no turn any more: {actions:?}");
}

#[test]
fn a_node_without_a_hotkey_signs_nothing_and_no_wish_waits_without_bound() {
    let mut nobody = Bench(Submitter::new(RUN, None, Memory::default()));
    let actions = nobody.wish(1, row(1), 90);
    assert_eq!(not_submitted(&actions), Some(&Obstacle::NoHotkey));
    let mut bench = Bench::new(Memory::default());
    let max = UNDER_WAY_MAX as u64;
    for ticket in 0..max {
        bench.wish(ticket, Wish::Vote(Vote { round: Round(ticket as u32), ..vote(0) }), 80 + ticket as u32);
    }
    let actions = bench.wish(max, Wish::Vote(Vote { round: Round(max as u32), ..vote(0) }), 900);
    assert!(matches!(not_submitted(&actions), Some(Obstacle::TooMany { .. })));
    assert!(actions.contains(&Action::Answer(Ticket(1))), "what is needed for the shortest time makes room");
    assert_eq!(bench.0.under_way.len(), UNDER_WAY_MAX);
}
