//! Which peer speaks for which uid, and where members listen.
//!
//! A record *binds* only when its own peer presents it over a connection that proves the peer's key: a hotkey could sign
//! a record that names somebody else's peer. A record that was heard by gossip only says where to dial.

use super::PeerKey;
use super::bans::MemberKey;
use super::way::Way;
use covey_proto::chain::ChainView;
use covey_proto::message::{PEER_RECORDS_MAX, PeerRecord, SignedPeerRecord};
use covey_proto::record::UidSet;
use covey_proto::{Digest, Uid};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Records of peers whose uid the chain view does not have yet, at most.
const WAITING_MAX: usize = 512;
/// Records of one uid that are kept until there is a chain view to tell which is the member's.
const EARLY_MAX: usize = 4;
/// Addresses of one peer, from all records that name it.
const ADDRESSES_MAX: usize = 16;

/// Why a record does not count.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Refusal {
    #[error("the record names another peer than the one that presented it")]
    Impostor,
    #[error("the record is of another chain or subnet")]
    OtherNetwork,
    #[error("the record's uid, hotkey and registration are no member's")]
    NoMember,
    #[error("the record has expired")]
    Expired,
    #[error("a record with the same or a higher sequence is known")]
    Stale,
    #[error("two records of one sequence void each other")]
    Twins,
}

impl Refusal {
    /// Whether only a peer that lies can cause it; the rest may be a matter of whose chain view is ahead.
    pub(crate) fn is_a_lie(self) -> bool {
        matches!(self, Refusal::Impostor)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Bound(PeerKey, Uid),
    Unbound(PeerKey, Uid),
}

#[derive(Debug)]
struct Bound {
    peer: PeerKey,
    record: SignedPeerRecord,
}

#[derive(Debug)]
pub(crate) struct Book {
    genesis: Digest,
    netuid: u16,
    own: Option<SignedPeerRecord>,
    view: Option<Arc<ChainView>>,
    /// Presented before the chain view knew them.
    waiting: HashMap<PeerKey, SignedPeerRecord>,
    bound: BTreeMap<Uid, Bound>,
    uids: HashMap<PeerKey, Uid>,
    /// Heard by gossip: the highest sequence of each uid.
    heard: BTreeMap<Uid, SignedPeerRecord>,
    /// Heard before there was a chain view to check them against: the last of each key that claims the uid.
    early: BTreeMap<Uid, Vec<SignedPeerRecord>>,
    /// The highest sequence that twins have voided, by member.
    voided: HashMap<MemberKey, u64>,
}

pub(crate) fn member_of(record: &PeerRecord) -> MemberKey {
    (record.uid, record.hotkey, record.registered_at)
}

impl Book {
    pub(crate) fn new(genesis: Digest, netuid: u16) -> Book {
        Book {
            genesis,
            netuid,
            own: None,
            view: None,
            waiting: HashMap::new(),
            bound: BTreeMap::new(),
            uids: HashMap::new(),
            heard: BTreeMap::new(),
            early: BTreeMap::new(),
            voided: HashMap::new(),
        }
    }

    pub(crate) fn own(&self) -> Option<&SignedPeerRecord> {
        self.own.as_ref()
    }

    pub(crate) fn set_own(&mut self, record: SignedPeerRecord) {
        self.own = Some(record);
    }

    pub(crate) fn peer_of(&self, uid: Uid) -> Option<PeerKey> {
        self.bound.get(&uid).map(|bound| bound.peer)
    }

    /// The peer that a uid's record names, shown or only heard of: enough to ask it for what is checked anyway.
    pub(crate) fn likely_peer_of(&self, uid: Uid) -> Option<PeerKey> {
        let heard = || PeerKey::from_bytes(&self.heard.get(&uid)?.record().peer).ok();
        self.peer_of(uid).or_else(heard)
    }

    pub(crate) fn uid_of(&self, peer: &PeerKey) -> Option<Uid> {
        self.uids.get(peer).copied()
    }

    /// Whether the chain was seen: before, nobody can be known as a member's peer.
    pub(crate) fn has_view(&self) -> bool {
        self.view.is_some()
    }

    /// Whether a member's record names this peer, shown by itself or only heard of. Each member can name one, or two
    /// while it moves.
    pub(crate) fn is_named(&self, peer: &PeerKey) -> bool {
        let id = peer.to_bytes();
        self.uids.contains_key(peer) || self.heard.values().any(|signed| signed.record().peer == id)
    }

    pub(crate) fn member_of(&self, peer: &PeerKey) -> Option<MemberKey> {
        let uid = self.uids.get(peer)?;
        self.bound.get(uid).map(|bound| member_of(bound.record.record()))
    }

    /// Peers to dial, with their addresses: those that members' records name. A member may name another's peer, so the
    /// addresses of all records that name one are dialled, those that it showed itself first. Where a record leads through
    /// a relay it says nothing of where its peer is.
    pub(crate) fn addresses(&self) -> BTreeMap<PeerKey, Vec<String>> {
        let mut found: BTreeMap<PeerKey, Vec<String>> = BTreeMap::new();
        for signed in self.bound.values().map(|bound| &bound.record).chain(self.heard.values()) {
            let Ok(peer) = PeerKey::from_bytes(&signed.record().peer) else { continue };
            let known = found.entry(peer).or_default();
            for address in &signed.record().addresses {
                let fresh = known.len() < ADDRESSES_MAX && !known.contains(address);
                if fresh && Way::to_text(address) == Way::Direct {
                    known.push(address.clone());
                }
            }
        }
        found
    }

    /// The addresses of the record that a peer showed itself.
    pub(crate) fn shown_addresses(&self, peer: &PeerKey) -> &[String] {
        let bound = self.uids.get(peer).and_then(|uid| self.bound.get(uid));
        bound.map_or(&[], |bound| &bound.record.record().addresses)
    }

    /// Members' records for somebody who has those of `have`: the own one, then others, from the uid after `turn` on.
    pub(crate) fn sample(&self, have: &UidSet, turn: u8) -> Vec<SignedPeerRecord> {
        let mut known: BTreeMap<Uid, &SignedPeerRecord> = self.heard.iter().map(|(uid, heard)| (*uid, heard)).collect();
        // What a peer showed itself is worth more than what was only heard.
        known.extend(self.bound.iter().map(|(uid, bound)| (*uid, &bound.record)));
        let own = self.own.as_ref().filter(|own| self.check(own.record()).is_ok());
        let own_uid = own.map(|own| own.record().uid);
        let from = Uid::from(turn);
        let others = known.range(from..).chain(known.range(..from)).filter(|(uid, _)| Some(**uid) != own_uid);
        let all = own.into_iter().chain(others.map(|(_, record)| *record));
        all.filter(|signed| !have.contains(signed.record().uid)).take(PEER_RECORDS_MAX).cloned().collect()
    }

    /// The uids whose records are known.
    pub(crate) fn known_uids(&self) -> UidSet {
        let own = self.own.iter().map(|own| own.record().uid);
        own.chain(self.heard.keys().copied()).chain(self.bound.keys().copied()).collect()
    }

    /// The records of other members, to introduce a newcomer to them.
    pub(crate) fn records(&self) -> impl Iterator<Item = &SignedPeerRecord> {
        let unheard = self.bound.iter().filter(|(uid, _)| !self.heard.contains_key(uid));
        self.heard.values().chain(unheard.map(|(_, bound)| &bound.record))
    }

    fn check(&self, record: &PeerRecord) -> Result<(), Refusal> {
        if record.genesis != self.genesis || record.netuid != self.netuid {
            return Err(Refusal::OtherNetwork);
        }
        let view = self.view.as_ref().ok_or(Refusal::NoMember)?;
        let member = view.members.get(&record.uid).ok_or(Refusal::NoMember)?;
        if member.hotkey != record.hotkey || member.registered_at != record.registered_at {
            return Err(Refusal::NoMember);
        }
        if record.expiry < view.block {
            return Err(Refusal::Expired);
        }
        if self.voided.get(&member_of(record)).is_some_and(|sequence| record.sequence <= *sequence) {
            return Err(Refusal::Twins);
        }
        Ok(())
    }

    /// A peer presents a record over its own connection.
    pub(crate) fn present(&mut self, peer: PeerKey, signed: SignedPeerRecord) -> Result<Vec<Change>, Refusal> {
        let record = signed.record();
        if record.peer != peer.to_bytes() {
            return Err(Refusal::Impostor);
        }
        match self.check(record) {
            Err(Refusal::NoMember) if self.waiting.len() < WAITING_MAX || self.waiting.contains_key(&peer) => {
                self.waiting.insert(peer, signed);
                return Err(Refusal::NoMember);
            }
            checked => checked?,
        }
        let (uid, key) = (record.uid, member_of(record));
        let mut changes = Vec::new();
        if let Some(bound) = self.bound.get(&uid) {
            let held = bound.record.record();
            let same_member = member_of(held) == key;
            if same_member && held.sequence == record.sequence {
                if held == record {
                    return Ok(changes);
                }
                self.voided.insert(key, record.sequence);
                self.unbind(uid, &mut changes);
                // The change matters more to the caller than the refusal.
                return if changes.is_empty() { Err(Refusal::Twins) } else { Ok(changes) };
            }
            if same_member && held.sequence > record.sequence {
                return Err(Refusal::Stale);
            }
            if bound.peer == peer {
                self.bound.insert(uid, Bound { peer, record: signed });
                return Ok(changes);
            }
            self.unbind(uid, &mut changes);
        }
        // One uid a peer: its own word for another ends the first.
        if let Some(other) = self.uid_of(&peer) {
            self.unbind(other, &mut changes);
        }
        self.bound.insert(uid, Bound { peer, record: signed });
        self.uids.insert(peer, uid);
        changes.push(Change::Bound(peer, uid));
        Ok(changes)
    }

    fn unbind(&mut self, uid: Uid, changes: &mut Vec<Change>) {
        if let Some(bound) = self.bound.remove(&uid) {
            self.uids.remove(&bound.peer);
            changes.push(Change::Unbound(bound.peer, uid));
        }
    }

    /// One key more that claims a uid: whose it is, the chain will tell. Who comes first stays, since anybody can make
    /// keys; what is lost so is asked for again once the chain is seen.
    fn keep_early(&mut self, signed: SignedPeerRecord) {
        let claims = self.early.entry(signed.record().uid).or_default();
        let key = member_of(signed.record());
        let full = claims.len() >= EARLY_MAX;
        match claims.iter_mut().find(|claim| member_of(claim.record()) == key) {
            Some(claim) if claim.record().sequence > signed.record().sequence => {}
            Some(claim) => *claim = signed,
            None if full => {}
            None => claims.push(signed),
        }
    }

    /// A record came by gossip or in somebody's list. True if it is news, false if it repeats what is known.
    pub(crate) fn hear(&mut self, signed: SignedPeerRecord) -> Result<bool, Refusal> {
        let record = signed.record();
        if self.view.is_none() {
            self.keep_early(signed);
            return Err(Refusal::NoMember);
        }
        self.check(record)?;
        let known = self.heard.get(&record.uid).map(SignedPeerRecord::record);
        if let Some(known) = known.filter(|known| member_of(known) == member_of(record)) {
            if known.sequence > record.sequence {
                return Err(Refusal::Stale);
            }
            if known.sequence == record.sequence {
                return if known == record { Ok(false) } else { Err(Refusal::Twins) };
            }
        }
        self.heard.insert(record.uid, signed);
        Ok(true)
    }

    /// The chain moved: what does not hold any more goes, what waited may bind.
    pub(crate) fn set_view(&mut self, view: Arc<ChainView>) -> Vec<Change> {
        self.view = Some(view);
        let mut changes = Vec::new();
        let checks = |book: &Book, record: &SignedPeerRecord| book.check(record.record()).is_ok();
        let ended: Vec<Uid> =
            self.bound.iter().filter(|(_, bound)| !checks(self, &bound.record)).map(|(uid, _)| *uid).collect();
        ended.into_iter().for_each(|uid| self.unbind(uid, &mut changes));
        let old: Vec<Uid> =
            self.heard.iter().filter(|(_, record)| !checks(self, record)).map(|(uid, _)| *uid).collect();
        old.iter().for_each(|uid| drop(self.heard.remove(uid)));
        let members = self.view.as_ref().map(|view| &view.members);
        let is_member = |(uid, hotkey, registered): &MemberKey| {
            members
                .and_then(|members| members.get(uid))
                .is_some_and(|m| m.hotkey == *hotkey && m.registered_at == *registered)
        };
        self.voided.retain(|member, _| is_member(member));
        for record in std::mem::take(&mut self.early).into_values().flatten() {
            // One that does not count is forgotten.
            let _ = self.hear(record);
        }
        for (peer, record) in std::mem::take(&mut self.waiting) {
            changes.extend(self.present(peer, record).unwrap_or_default());
        }
        changes
    }

    /// A peer left. Its binding stays, so that it can be found again.
    pub(crate) fn disconnected(&mut self, peer: &PeerKey) {
        self.waiting.remove(peer);
    }
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
