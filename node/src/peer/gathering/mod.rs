//! Gathering what a round offers: the shell around [`Gatherer`], which decides whom to believe, what to fetch, whom to ask.
//!
//! `listening` turns what the network says into checked announcements before the node's loop hears of it; [`Gathering`]
//! carries out what the gatherer says, or gives it to the loop as [`Work`], and keeps what of the round is held; [`fetch`]
//! has a contribution's bytes and makes sure that they stay.

mod fetching;
mod listening;

pub(super) use fetching::{Fetch, Fetched, fetch};
pub(super) use listening::{Heard, listen};
pub use listening::{Malformed, Received, read};

use super::context::Context;
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
pub(super) struct Pulled {
    round: Round,
    announcements: Vec<Announcement>,
    malformed: BTreeSet<PeerKey>,
}

/// What has come of a round.
pub(super) struct Gathering {
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
    pub(super) fn new(give_up_after: Duration) -> Gathering {
        Gathering {
            gatherer: Gatherer::new(Patience { pull_after: PULL_AFTER, give_up_after }),
            start: Instant::now(),
            collection: None,
            held: BTreeMap::new(),
        }
    }

    /// What is held of a round; nothing of a round that was not gathered last.
    pub(super) fn held(&self, round: Round) -> BTreeMap<Uid, Arc<Contribution>> {
        let is_of = self.collection.as_ref().is_some_and(|collection| collection.round == round);
        if is_of { self.held.clone() } else { BTreeMap::new() }
    }

    /// Who committed in a round; nobody of a round that was not gathered last.
    pub(super) fn offered(&self, round: Round) -> Vec<Uid> {
        let collection = self.collection.iter().filter(|collection| collection.round == round);
        collection.flat_map(|collection| collection.offered.keys().copied()).collect()
    }

    /// What the last round that was opened offers.
    pub(super) fn collection(&self) -> Option<&Arc<Collection>> {
        self.collection.as_ref()
    }

    /// Returns when the gatherer is to be told that time has passed.
    pub(super) async fn wait(&self) {
        match self.gatherer.deadline() {
            Some(deadline) => tokio::time::sleep_until((self.start + deadline).into()).await,
            None => std::future::pending().await,
        }
    }

    /// A round's offers are known: gather them. `mine` is this node's own contribution, if it made one.
    pub(in crate::peer) fn open(&mut self, engine: &Engine, collection: Arc<Collection>, mine: Option<Digest>) -> ToDo {
        let event = Event::Opened { round: collection.round, offered: collection.offered.clone(), mine };
        self.collection = Some(collection);
        self.held.clear();
        self.handle(engine, event)
    }

    /// A fetch has ended; `node` is for the log.
    pub(in crate::peer) fn on_fetched(&mut self, node: &str, engine: &Engine, fetched: Fetched) -> ToDo {
        let Fetched { round, uid, found } = fetched;
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
        self.handle(engine, Event::Fetched { round, uid, outcome })
    }

    /// Peers have answered.
    pub(in crate::peer) fn on_pulled(&mut self, engine: &Engine, pulled: Pulled) -> ToDo {
        let Pulled { round, announcements, malformed } = pulled;
        self.handle(engine, Event::Pulled { round, announcements, malformed })
    }

    /// Tells the gatherer; gives what is to be done for it.
    pub(in crate::peer) fn handle(&mut self, engine: &Engine, event: Event<PeerKey, Received>) -> ToDo {
        let mut actions = Vec::new();
        self.gatherer.stand_at(engine.tip().next(), engine.is_collecting());
        self.gatherer.handle(self.start.elapsed(), event, &mut actions);
        let mut to_do = ToDo::default();
        actions.into_iter().for_each(|action| self.carry_out(action, &mut to_do));
        to_do
    }

    /// Judges at once; what takes time is for the loop to start.
    fn carry_out(&self, action: Action<PeerKey, Received>, to_do: &mut ToDo) {
        match action {
            Action::Take(Announced { round, uid, digest, from, mut body }) => {
                body.judge(Verdict::Accept);
                to_do.work.push(Work::Remember { round, uid, bytes: body.bytes.clone() });
                self.fetch((uid, digest), Some((from, body.bytes)), to_do);
            }
            Action::TakeOwn { uid, digest, .. } => self.fetch((uid, digest), None, to_do),
            Action::PassOn(mut announced) => announced.body.judge(Verdict::Accept),
            Action::Ignore(mut announced) => announced.body.judge(Verdict::Ignore),
            Action::Refuse(Announced { round, uid, from, mut body, .. }) => {
                body.judge(Verdict::Reject);
                tracing::debug!(%from, %round, %uid, "announced what its author did not commit");
            }
            Action::Pull { round, have } => to_do.work.push(Work::Pull { round, have }),
            Action::Ban(peer) => to_do.work.push(Work::Ban(peer)),
            Action::Tell(event) => to_do.events.push(event),
        }
    }

    fn fetch(&self, (uid, digest): (Uid, Digest), from: Option<(PeerKey, Vec<u8>)>, to_do: &mut ToDo) {
        if let Some(collection) = self.collection.clone() {
            to_do.work.push(Work::Fetch(Box::new(Fetch { collection, uid, digest, from })));
        }
    }
}

/// What the gatherer wants of the node's loop.
#[derive(Default)]
pub(in crate::peer) struct ToDo {
    /// For the node's state machine.
    pub(in crate::peer) events: Vec<engine::Event>,
    /// To be started, in order.
    pub(in crate::peer) work: Vec<Work>,
}

/// Something that takes time, or the network.
pub(in crate::peer) enum Work {
    /// Keep an announcement for peers that missed it.
    Remember {
        /// Its round.
        round: Round,
        /// Its author.
        uid: Uid,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// Have a contribution: [`fetch`].
    Fetch(Box<Fetch>),
    /// Ask peers: [`pull`].
    Pull {
        /// The round.
        round: Round,
        /// What has been announced already.
        have: UidSet,
    },
    /// Connect to this peer no more.
    Ban(PeerKey),
}

/// Asks peers for a round's announcements, but for those of `have`.
pub(in crate::peer) async fn pull<L: Ledger>(context: Arc<Context<L>>, round: Round, have: UidSet) -> Pulled {
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
