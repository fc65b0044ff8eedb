//! Gathering what a round offers: what is done with a ruling of [`super::collect`], with what was fetched, and with what
//! others were asked for.

use super::Peer;
use super::collect::{Accepted, Collector, Inbox, Incoming, Ruling, verdict};
use super::tasks;
use crate::chain::Ledger;
use crate::contribution::{Contribution, ObtainError};
use covey_gossip::{PeerKey, Verdict};
use covey_proto::{Digest, Round, Uid};
use covey_round::engine::Event;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What gossip has not brought after this long is asked for, and again after as long.
const PULL_AFTER: Duration = Duration::from_secs(1);

impl<L: Ledger> Peer<L> {
    /// A round's offers are known: collect them.
    pub(super) fn collect(&mut self, collector: Collector) {
        let round = collector.collection.round;
        let journal = self.context.journal.read();
        let mine = journal.contribution.filter(|made| made.round == round).map(|made| made.manifest);
        self.collector = Some(collector);
        self.take_my_own(mine);
        for incoming in self.inbox.take() {
            self.on_announcement(incoming);
        }
        self.spawn(tasks::patience(self.context.patience, round));
        self.spawn(tasks::pull_later(PULL_AFTER, round));
    }

    /// A miner holds its own contribution: it is checked like any other.
    fn take_my_own(&mut self, mine: Option<Digest>) {
        let Some(collector) = &mut self.collector else { return };
        let own = collector.collection.offered.iter().find(|(_, digest)| Some(**digest) == mine);
        if let Some((&uid, &digest)) = own {
            collector.taken.insert(uid);
            let job = tasks::Fetch { collection: collector.collection.clone(), uid, digest, from: None };
            self.spawn(tasks::fetch(self.context.clone(), job));
        }
    }

    /// Asks peers for what has not been announced, while it can still be voted for.
    pub(super) fn pull_what_is_missing(&mut self, round: Round) {
        let collector = self.collector.as_ref().filter(|collector| collector.collection.round == round);
        if let Some(have) = collector.filter(|collector| collector.is_waiting()).map(|collector| collector.taken)
            && self.engine.is_collecting()
        {
            self.spawn(tasks::pull(self.context.clone(), round, have));
        }
    }

    /// Peers have answered: their announcements are ruled on like any other. Of a peer that hands out what nobody
    /// committed, nothing more is looked at.
    pub(super) fn on_pulled(&mut self, round: Round, announcements: Vec<Incoming>) {
        let mut liars: BTreeSet<PeerKey> = BTreeSet::new();
        for incoming in announcements {
            let from = incoming.from;
            if !liars.contains(&from) && !self.on_announcement(incoming) {
                liars.insert(from);
            }
        }
        for liar in liars {
            let network = self.context.network.clone();
            self.running.spawn(async move { network.ban(liar).await });
        }
        self.spawn(tasks::pull_later(PULL_AFTER, round));
    }

    /// Rules on an announcement; false if whoever handed it over is to blame.
    pub(super) fn on_announcement(&mut self, mut incoming: Incoming) -> bool {
        let (run_id, inline_max) = (self.context.run_id, self.context.run.compress.inline_max);
        let next = self.engine.tip().next();
        let collection = self.collector.as_ref().filter(|_| self.engine.is_collecting()).map(|known| &known.collection);
        let collected = collection.map(|collection| (collection.round, &collection.offered));
        let ruling = Inbox::rule(run_id, inline_max, collected, next, &incoming);
        if let Some(verdict) = verdict(&ruling) {
            self.judge(&mut incoming, verdict);
        }
        match ruling {
            Ruling::Accept(accepted) => self.accept(*accepted),
            Ruling::Wait => {
                for mut incoming in self.inbox.wait(Instant::now(), incoming) {
                    self.judge(&mut incoming, Verdict::Ignore);
                }
            }
            Ruling::Ignore => {}
            Ruling::Reject(blame) => {
                tracing::debug!(node = %self.context.name, from = %incoming.from, %blame, "announcement refused");
                return false;
            }
        }
        true
    }

    fn judge(&self, incoming: &mut Incoming, verdict: Verdict) {
        if let Some(ticket) = incoming.ticket.take() {
            self.context.network.judge(ticket, verdict);
        }
    }

    fn accept(&mut self, accepted: Accepted) {
        let Some(collector) = &mut self.collector else { return };
        let uid = accepted.announcement.manifest.uid;
        if collector.taken.contains(uid) {
            return;
        }
        collector.taken.insert(uid);
        let collection = collector.collection.clone();
        self.context.network.remember(collection.round, uid, accepted.bytes);
        let from = Some((accepted.from, accepted.announcement));
        let job = tasks::Fetch { collection, uid, digest: accepted.digest, from };
        self.spawn(tasks::fetch(self.context.clone(), job));
    }

    /// A contribution was fetched and decoded, or not. What was not to be had now may be announced and fetched again.
    pub(super) fn on_collected(
        &mut self,
        round: Round,
        uid: Uid,
        found: Result<Arc<Contribution>, ObtainError>,
    ) -> Option<Event> {
        let collector = self.collector.as_mut().filter(|collector| collector.collection.round == round)?;
        match found {
            Ok(contribution) => {
                collector.held.insert(uid, contribution);
                Some(Event::Held(round, uid))
            }
            Err(ObtainError::Unfit(why)) => {
                tracing::debug!(node = %self.context.name, %round, %uid, %why, "contribution refused");
                Some(Event::Refused(round, uid))
            }
            Err(why) => {
                tracing::warn!(node = %self.context.name, %round, %uid, %why, "contribution not had");
                collector.taken.remove(uid);
                self.spawn(tasks::pull_later(PULL_AFTER, round));
                None
            }
        }
    }
}
