//! Histories of a gatherer: what it asks of whom, and when.

use super::*;

const ROUND: Round = Round(5);
const PATIENCE: Patience = Patience { pull_after: Duration::from_secs(1), give_up_after: Duration::from_secs(10) };

/// A gatherer, its clock, and what it said last.
struct Rig {
    gatherer: Gatherer<u8, &'static str>,
    now: Duration,
}

fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

fn announced(round: Round, uid: u8, text: &'static str, from: u8) -> Announced<u8, &'static str> {
    Announced { round, uid: Uid::from(uid), digest: digest(text), from, body: text }
}

impl Rig {
    /// A node that has applied everything before `ROUND`.
    fn new() -> Rig {
        let mut gatherer = Gatherer::new(PATIENCE);
        gatherer.stand_at(ROUND, false);
        Rig { gatherer, now: Duration::ZERO }
    }

    /// With the round open: uids 0, 1, 2 have committed to "zero", "one", "two".
    fn open(mine: Option<&str>) -> (Rig, Vec<String>) {
        let mut rig = Rig::new();
        let said = rig.reveal(mine);
        (rig, said)
    }

    fn reveal(&mut self, mine: Option<&str>) -> Vec<String> {
        self.gatherer.stand_at(ROUND, true);
        let offered = (0..).map(Uid::from).zip(["zero", "one", "two"].map(digest)).collect();
        self.tell(Event::Opened { round: ROUND, offered, mine: mine.map(digest) })
    }

    fn tell(&mut self, event: Event<u8, &'static str>) -> Vec<String> {
        let mut actions = Vec::new();
        self.gatherer.handle(self.now, event, &mut actions);
        actions.iter().map(say).collect()
    }

    fn announce(&mut self, uid: u8, text: &'static str, from: u8) -> Vec<String> {
        self.tell(Event::Announced(announced(ROUND, uid, text, from)))
    }

    fn fetched(&mut self, uid: u8, outcome: Outcome) -> Vec<String> {
        self.tell(Event::Fetched { round: ROUND, uid: Uid::from(uid), outcome })
    }

    fn after(&mut self, seconds: u64) -> Vec<String> {
        self.now += Duration::from_secs(seconds);
        self.tell(Event::Tick)
    }
}

/// An action in few words.
fn say(action: &Action<u8, &'static str>) -> String {
    match action {
        Action::PassOn(announced) => format!("pass on {}", announced.body),
        Action::Ignore(announced) => format!("ignore {}", announced.body),
        Action::Refuse(announced) => format!("refuse {}", announced.body),
        Action::Take(announced) => format!("take {} of {}", announced.body, announced.from),
        Action::TakeOwn { uid, .. } => format!("take my own {uid}"),
        Action::Pull { have, .. } => format!("pull all but {:?}", have.iter().map(Uid::number).collect::<Vec<_>>()),
        Action::Ban(peer) => format!("ban {peer}"),
        Action::Tell(event) => format!("{event:?}"),
    }
}

#[test]
fn what_was_committed_is_passed_on_and_fetched_once_and_anything_else_is_refused() {
    let (mut rig, _) = Rig::open(None);
    assert_eq!(rig.announce(1, "one", 9), ["take one of 9"]);
    assert_eq!(rig.announce(1, "one", 8), ["pass on one"], "it is being fetched");
    assert_eq!(rig.announce(1, "another", 8), ["refuse another"]);
    assert_eq!(rig.announce(7, "one", 8), ["refuse one"], "uid 7 has committed to nothing");
    assert_eq!(rig.fetched(1, Outcome::Held), ["Held(Round(5), Uid(1))"]);
    assert_eq!(rig.fetched(1, Outcome::Invalid), ["Refused(Round(5), Uid(1))"]);
}

#[test]
fn a_node_fetches_its_own_contribution_from_itself() {
    let (_, said) = Rig::open(Some("two"));
    assert_eq!(said, ["take my own 2"]);
    let (_, said) = Rig::open(Some("never committed"));
    assert!(said.is_empty());
}

#[test]
fn an_early_announcement_waits_for_its_round_and_others_rounds_are_ignored() {
    let mut rig = Rig::new();
    assert!(rig.announce(1, "one", 9).is_empty());
    assert!(rig.announce(1, "false", 8).is_empty());
    assert_eq!(rig.tell(Event::Announced(announced(Round(4), 1, "old", 9))), ["ignore old"]);
    assert_eq!(rig.tell(Event::Announced(announced(Round(6), 1, "far", 9))), ["ignore far"]);
    assert_eq!(rig.reveal(None), ["take one of 9", "refuse false"]);
}

#[test]
fn early_announcements_are_bounded_in_all_a_peer_and_in_time() {
    let mut rig = Rig::new();
    for _ in 0..EARLY_PEER_MAX {
        assert!(rig.announce(1, "one", 9).is_empty());
    }
    assert_eq!(rig.announce(1, "one", 9), ["ignore one"], "that neighbour has its share");
    for peer in 10..=16 {
        (0..EARLY_PEER_MAX).for_each(|_| drop(rig.announce(1, "one", peer)));
    }
    assert_eq!(rig.announce(1, "last", 16), ["ignore last"], "there is no room");
    rig.now += EARLY_TIMEOUT + Duration::from_secs(1);
    let said = rig.announce(1, "fresh", 99);
    assert_eq!((said.len(), &*said[0]), (EARLY_MAX, "ignore one"));
    assert!(rig.announce(1, "fresh", 99).is_empty(), "there is room again");
}

#[test]
fn many_that_make_early_announcements_up_shut_out_each_other_only() {
    let mut rig = Rig::new();
    for peer in 10..18 {
        (0..EARLY_PEER_MAX).for_each(|_| drop(rig.announce(1, "false", peer)));
    }
    assert_eq!(rig.announce(1, "one", 99), ["ignore false"], "one of theirs gives way");
    let said = rig.reveal(None);
    assert_eq!(said.len(), EARLY_MAX);
    assert!(said.contains(&"take one of 99".to_owned()), "{said:?}");
}

#[test]
fn peers_are_asked_for_what_is_missing_until_everything_was_announced() {
    let (mut rig, _) = Rig::open(None);
    rig.announce(0, "zero", 9);
    assert_eq!(rig.gatherer.deadline(), Some(PATIENCE.pull_after));
    assert_eq!(rig.after(1), ["pull all but [0]"]);
    assert!(rig.after(3).is_empty(), "the answer is awaited");
    let announcements = vec![announced(ROUND, 1, "one", 7)];
    let said = rig.tell(Event::Pulled { round: ROUND, announcements, malformed: BTreeSet::new() });
    assert_eq!(said, ["take one of 7"]);
    assert_eq!(rig.after(1), ["pull all but [0, 1]"]);
    rig.announce(2, "two", 9);
    rig.tell(Event::Pulled { round: ROUND, announcements: Vec::new(), malformed: BTreeSet::new() });
    assert!(rig.after(1).is_empty(), "nothing is missing");
    assert_eq!(rig.gatherer.deadline(), Some(PATIENCE.give_up_after));
}

#[test]
fn what_was_not_to_be_had_is_asked_for_again_and_fetched_from_who_announces_it_next() {
    let (mut rig, _) = Rig::open(None);
    for (uid, text) in [(0, "zero"), (1, "one"), (2, "two")] {
        rig.announce(uid, text, 9);
    }
    assert!(rig.after(1).is_empty());
    assert!(rig.fetched(1, Outcome::NotHad).is_empty(), "a vote may still wait for it");
    assert_eq!(rig.after(1), ["pull all but [0, 2]"]);
    assert!(rig.fetched(2, Outcome::NotHad).is_empty(), "the question under way has not asked for it");
    let announcements = vec![announced(ROUND, 1, "one", 7)];
    let said = rig.tell(Event::Pulled { round: ROUND, announcements, malformed: BTreeSet::new() });
    assert_eq!(said, ["take one of 7"]);
    assert_eq!(rig.after(1), ["pull all but [0, 1]"]);
}

#[test]
fn who_hands_out_on_request_what_nobody_committed_is_banned_and_read_no_further() {
    let (mut rig, _) = Rig::open(None);
    rig.after(1);
    let announcements = vec![
        announced(ROUND, 1, "false", 7),
        announced(ROUND, 1, "one", 7),
        announced(ROUND, 2, "two", 8),
        announced(ROUND, 0, "zero", 6),
    ];
    let said = rig.tell(Event::Pulled { round: ROUND, announcements, malformed: [6].into() });
    let expected = ["refuse false", "ignore one", "take two of 8", "ignore zero", "ban 6", "ban 7"];
    assert_eq!(said, expected);
}

#[test]
fn what_is_missing_is_given_up_once_and_still_asked_for() {
    let (mut rig, _) = Rig::open(None);
    rig.after(1);
    assert_eq!(rig.after(9), ["CollectingOver(Round(5))"]);
    assert!(rig.after(9).is_empty());
    rig.tell(Event::Pulled { round: ROUND, announcements: Vec::new(), malformed: BTreeSet::new() });
    assert_eq!(rig.after(1), ["pull all but []"]);
}

#[test]
fn a_round_that_is_opened_again_begins_anew() {
    let (mut rig, _) = Rig::open(None);
    rig.announce(1, "one", 9);
    rig.after(9);
    rig.reveal(None);
    assert_eq!(rig.announce(1, "one", 9), ["take one of 9"]);
    assert_eq!(rig.after(1), ["pull all but [1]"], "the first collection's time was over now");
    assert_eq!(rig.after(9), ["CollectingOver(Round(5))"]);
}

#[test]
fn after_the_vote_nothing_is_passed_on_or_asked_for_but_what_is_fetched_counts() {
    let (mut rig, _) = Rig::open(None);
    rig.announce(1, "one", 9);
    rig.gatherer.stand_at(ROUND, false);
    assert!(rig.announce(2, "two", 9).is_empty(), "should the round be opened again, it is there");
    assert!(rig.after(1).is_empty());
    assert_eq!(rig.fetched(1, Outcome::Held), ["Held(Round(5), Uid(1))"]);
    rig.gatherer.stand_at(ROUND.next(), false);
    assert_eq!(rig.announce(2, "two", 9), ["ignore two"]);
    let late = Event::Fetched { round: Round(4), uid: Uid::from(1), outcome: Outcome::Held };
    assert!(rig.tell(late).is_empty());
}
