//! Gathering what a round offers: the shell around [`Gatherer`], which decides whom to believe, what to fetch, whom to ask.
//!
//! `listening` turns what the network says into checked announcements before the node's loop hears of it; [`fetch`] has a
//! contribution's bytes and makes sure that they stay; [`Gathering`] carries out what the gatherer says, and keeps what of
//! the round is held.

mod fetching;
mod listening;

pub use fetching::{Fetch, Fetched, fetch};
pub use listening::{Heard, Malformed, Received, listen, read};

use super::context::Context;
use super::{Done, Jobs};
use crate::chain::Ledger;
use crate::compute::off_the_queue;
use crate::contribution::Contribution;
use covey_gossip::{PeerKey, Verdict};
use covey_proto::record::UidSet;
use covey_proto::{Digest, Round, Uid};
use covey_round::engine::{self, Collection, Engine};
use covey_round::gather::{Action, Announced, Event, Gatherer, Outcome, Patience};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What gossip has not brought after this long is asked for, and again as long after each answer.
const PULL_AFTER: Duration = Duration::from_secs(1);

/// An announcement that was decoded and hashed.
pub type Announcement = Announced<PeerKey, Received>;

/// What peers have of a round's announcements.
pub struct Pulled {
    round: Round,
    announcements: Vec<Announcement>,
    malformed: BTreeSet<PeerKey>,
}

/// What has come of a round.
pub struct Gathering {
    gatherer: Gatherer<PeerKey, Received>,
    /// The instant from which the gatherer counts time.
    start: Instant,
    /// The last round that was opened.
    collection: Option<Arc<Collection>>,
    /// Whose contributions of it are held: valid, and all their bytes on the disk.
    held: BTreeMap<Uid, Arc<Contribution>>,
}

impl Gathering {
    /// Nothing has come yet; what is missing of a round is given up after `give_up_after`.
    pub fn new(give_up_after: Duration) -> Gathering {
        Gathering {
            gatherer: Gatherer::new(Patience { pull_after: PULL_AFTER, give_up_after }),
            start: Instant::now(),
            collection: None,
            held: BTreeMap::new(),
        }
    }

    /// What is held of a round; nothing of a round that was not gathered last.
    pub fn held(&self, round: Round) -> BTreeMap<Uid, Arc<Contribution>> {
        let is_of = self.collection.as_ref().is_some_and(|collection| collection.round == round);
        if is_of { self.held.clone() } else { BTreeMap::new() }
    }

    /// Who committed in a round; nobody of a round that was not gathered last.
    pub fn offered(&self, round: Round) -> Vec<Uid> {
        let collection = self.collection.iter().filter(|collection| collection.round == round);
        collection.flat_map(|collection| collection.offered.keys().copied()).collect()
    }

    /// What the last round that was opened offers.
    pub fn collection(&self) -> Option<&Arc<Collection>> {
        self.collection.as_ref()
    }

    /// Returns when the gatherer is to be told that time has passed.
    pub async fn wait(&self) {
        match self.gatherer.deadline() {
            Some(deadline) => tokio::time::sleep_until((self.start + deadline).into()).await,
            None => std::future::pending().await,
        }
    }

    /// A round's offers are known: gather them. `mine` is this node's own contribution, if it made one.
    pub fn open<L: Ledger>(
        &mut self,
        (context, jobs): (&Arc<Context<L>>, &mut Jobs),
        engine: &Engine,
        collection: Arc<Collection>,
        mine: Option<Digest>,
    ) -> Vec<engine::Event> {
        let event = Event::Opened { round: collection.round, offered: collection.offered.clone(), mine };
        self.collection = Some(collection);
        self.held.clear();
        self.handle((context, jobs), engine, event)
    }

    /// A fetch has ended.
    pub fn on_fetched<L: Ledger>(
        &mut self,
        with: (&Arc<Context<L>>, &mut Jobs),
        engine: &Engine,
        fetched: Fetched,
    ) -> Vec<engine::Event> {
        let Fetched { round, uid, found } = fetched;
        let node = &with.0.name;
        let outcome = match found {
            Ok(contribution) => {
                if self.collection.as_ref().is_some_and(|collection| collection.round == round) {
                    self.held.insert(uid, contribution);
                }
                Outcome::Held
            }
            Err(error) if error.is_the_authors_fault() => {
                tracing::debug!(%node, %round, %uid, %error, "contribution refused");
                Outcome::Invalid
            }
            Err(error) => {
                tracing::warn!(%node, %round, %uid, %error, "contribution not had");
                Outcome::NotHad
            }
        };
        self.handle(with, engine, Event::Fetched { round, uid, outcome })
    }

    /// Peers have answered.
    pub fn on_pulled<L: Ledger>(
        &mut self,
        with: (&Arc<Context<L>>, &mut Jobs),
        engine: &Engine,
        pulled: Pulled,
    ) -> Vec<engine::Event> {
        let Pulled { round, announcements, malformed } = pulled;
        self.handle(with, engine, Event::Pulled { round, announcements, malformed })
    }

    /// Tells the gatherer, does what it says; gives what it has for the node's state machine.
    pub fn handle<L: Ledger>(
        &mut self,
        (context, jobs): (&Arc<Context<L>>, &mut Jobs),
        engine: &Engine,
        event: Event<PeerKey, Received>,
    ) -> Vec<engine::Event> {
        let mut actions = Vec::new();
        self.gatherer.stand_at(engine.tip().next(), engine.is_collecting());
        self.gatherer.handle(self.start.elapsed(), event, &mut actions);
        let mut events = Vec::new();
        for action in actions {
            match action {
                Action::Tell(event) => events.push(event),
                action => self.perform(context, jobs, action),
            }
        }
        events
    }

    fn perform<L: Ledger>(&self, context: &Arc<Context<L>>, jobs: &mut Jobs, action: Action<PeerKey, Received>) {
        match action {
            Action::Take(announced) => {
                let Announced { round, uid, digest, from, mut body } = announced;
                body.judge(Verdict::Accept);
                context.network.remember(round, uid, body.bytes);
                self.fetch(context, jobs, (uid, digest), Some((from, body.announcement)));
            }
            Action::TakeOwn { uid, digest, .. } => self.fetch(context, jobs, (uid, digest), None),
            Action::PassOn(mut announced) => announced.body.judge(Verdict::Accept),
            Action::Ignore(mut announced) => announced.body.judge(Verdict::Ignore),
            Action::Refuse(Announced { round, uid, from, mut body, .. }) => {
                body.judge(Verdict::Reject);
                tracing::debug!(node = %context.name, %from, %round, %uid, "announced what its author did not commit");
            }
            Action::Pull { round, have } => {
                let pull = pull(context.clone(), round, have);
                jobs.spawn(async move { Done::Pulled(pull.await) });
            }
            Action::Ban(peer) => {
                let network = context.network.clone();
                jobs.spawn_silent(async move { network.ban(peer).await });
            }
            // The caller takes it.
            Action::Tell(_) => {}
        }
    }

    fn fetch<L: Ledger>(
        &self,
        context: &Arc<Context<L>>,
        jobs: &mut Jobs,
        (uid, digest): (Uid, Digest),
        from: Option<(PeerKey, covey_proto::message::Announcement)>,
    ) {
        let Some(collection) = self.collection.clone() else { return };
        let fetch = fetch(context.clone(), Fetch { collection, uid, digest, from });
        jobs.spawn(async move {
            let (fetched, took) = fetch.await;
            Done::Fetched(fetched, took)
        });
    }
}

/// Asks peers for a round's announcements, but for those of `have`.
async fn pull<L: Ledger>(context: Arc<Context<L>>, round: Round, have: UidSet) -> Pulled {
    let found = context.network.announcements(round, have).await;
    let (run_id, inline_max) = (context.run_id, context.run.compress.inline_max);
    let read_all = move || {
        let mut pulled = Pulled { round, announcements: Vec::new(), malformed: BTreeSet::new() };
        for (from, bytes) in found {
            match read(run_id, inline_max, bytes, from) {
                Ok(announcement) => pulled.announcements.push(announcement),
                Err(_) => drop(pulled.malformed.insert(from)),
            }
        }
        pulled
    };
    off_the_queue(read_all).await
}
