//! The machine: hands each event to the part of discovery that it is for.

use super::keys::{run_key, state_key};
use super::lists::RecordLists;
use super::look_ups::LookUps;
use super::neighbours::Neighbours;
use super::publications::Publications;
use super::types::{DiscoveryAction, DiscoveryEvent, IdentifyReport, LookUpId, Surroundings};
use crate::peers::external::Candidates;
use crate::peers::leads::Leads;
use crate::peers::providers::Rank;
use crate::peers::{Multiaddr, PeerKey};
use covey_proto::{Digest, RunId};
use std::collections::BTreeSet;
use std::time::Instant;

/// All of discovery.
#[derive(Debug)]
pub(crate) struct Discovery {
    run: RunId,
    peers_target: usize,
    leads: Leads,
    candidates: Candidates,
    neighbours: Neighbours,
    look_ups: LookUps,
    publications: Publications,
    lists: RecordLists,
}

impl Discovery {
    /// That of a node which wants to be connected to so many peers.
    pub(crate) fn new(run: RunId, peers_target: usize, now: Instant) -> Discovery {
        Discovery {
            run,
            peers_target,
            leads: Leads::default(),
            candidates: Candidates::default(),
            neighbours: Neighbours::new(),
            look_ups: LookUps::new(now),
            publications: Publications::default(),
            lists: RecordLists::default(),
        }
    }

    /// Peers that others named, for the dialer.
    pub(crate) fn leads(&self) -> &Leads {
        &self.leads
    }

    /// Whether there are more peers than are wanted, so that connections of look-ups may go.
    pub(crate) fn has_plenty(&self, connected: usize) -> bool {
        connected > self.peers_target
    }

    /// Takes an event at `now` and appends what is to be done, in that order.
    pub(crate) fn handle(
        &mut self,
        now: Instant,
        event: DiscoveryEvent,
        around: &mut dyn Surroundings,
        out: &mut Vec<DiscoveryAction>,
    ) {
        match event {
            DiscoveryEvent::Connected => self.lists.ask(now, self.peers_target, around, out),
            DiscoveryEvent::Left { peer } => {
                self.neighbours.left(&peer);
                self.lists.left(&peer);
            }
            DiscoveryEvent::Identified(report) => self.identified(report, around, out),
            DiscoveryEvent::Serves { peer, dialled } => {
                if around.connected().contains(&peer) {
                    self.neighbours.serves(peer, dialled, around, out);
                }
            }
            DiscoveryEvent::Offer { peer, key } => self.neighbours.offers(peer, key, now, around, out),
            DiscoveryEvent::Ranked { peer, member } => {
                let rank = if member { Rank::Member } else { Rank::Stranger };
                out.push(DiscoveryAction::Rank { peer, rank });
                if member {
                    self.neighbours.changed(peer, around, out);
                }
            }
            DiscoveryEvent::Banned { peer } => {
                self.leads.forget(&peer);
                out.extend([DiscoveryAction::Forget { peer }, DiscoveryAction::Remove { peer }]);
            }
            DiscoveryEvent::DialFailed { peer } => self.leads.failed(&peer),
            DiscoveryEvent::Wanted { state, asker } => self.look_ups.want(state_key(&state), asker, around, out),
            DiscoveryEvent::Found { look_up, providers } => self.found(look_up, providers, now, around, out),
            DiscoveryEvent::LookUpEnded { look_up } => self.ended(look_up, now, around, out),
            DiscoveryEvent::Published { publication, with } => self.publications.ended(publication, with, now),
            DiscoveryEvent::Tick => self.tick(now, around, out),
        }
    }

    fn identified(&mut self, report: IdentifyReport, around: &mut dyn Surroundings, out: &mut Vec<DiscoveryAction>) {
        let peer = report.peer;
        let Some(ip) = around.seen_at(&peer) else { return };
        // Whoever was dialled sees a port that is of this connection only, and who comes through a relay the relay's.
        if report.dialled_here_directly()
            && let Some(address) = self.candidates.seen(&report.observed, peer, ip)
        {
            out.push(DiscoveryAction::ReachedAt { address });
        }
        self.neighbours.certified(report, ip);
        self.neighbours.changed(peer, around, out);
    }

    fn found(
        &mut self,
        look_up: LookUpId,
        providers: Vec<(PeerKey, Vec<Multiaddr>)>,
        now: Instant,
        around: &mut dyn Surroundings,
        out: &mut Vec<DiscoveryAction>,
    ) {
        if !self.look_ups.is_open(look_up) {
            return;
        }
        for (peer, addresses) in providers {
            if around.is_banned(&peer) || !self.look_ups.found(look_up, peer) {
                continue;
            }
            if !around.connected().contains(&peer) {
                self.leads.add(peer, &addresses, now);
            }
        }
        out.push(DiscoveryAction::DialSoon);
    }

    fn ended(
        &mut self,
        look_up: LookUpId,
        now: Instant,
        around: &mut dyn Surroundings,
        out: &mut Vec<DiscoveryAction>,
    ) {
        if let Some((asker, found)) = self.look_ups.ended(look_up) {
            let peers = self.ranked(found, now, around);
            out.push(DiscoveryAction::Answer { asker, peers });
        }
    }

    /// Members first, then from as many networks as there are.
    fn ranked(&self, found: BTreeSet<PeerKey>, now: Instant, around: &dyn Surroundings) -> Vec<PeerKey> {
        let (mut members, others): (Vec<_>, Vec<_>) = found.into_iter().partition(|peer| around.is_named(peer));
        let order = self.leads.all(now);
        let place = |peer: &PeerKey| order.iter().position(|(other, _)| other == peer).unwrap_or(usize::MAX);
        let mut others: Vec<(usize, PeerKey)> = others.into_iter().map(|peer| (place(&peer), peer)).collect();
        others.sort();
        members.extend(others.into_iter().map(|(_, peer)| peer));
        members
    }

    fn tick(&mut self, now: Instant, around: &mut dyn Surroundings, out: &mut Vec<DiscoveryAction>) {
        self.lists.ask(now, self.peers_target, around, out);
        let mut wanted: BTreeSet<Digest> = around.states().iter().map(state_key).collect();
        if around.takes_part() {
            wanted.insert(run_key(self.run));
        }
        self.publications.tend(wanted, now, around, out);
        self.look_ups.begin(around, out);
        let few = around.connected().len() < self.peers_target;
        self.look_ups.look_for_the_run(run_key(self.run), few, now, around, out);
    }
}
