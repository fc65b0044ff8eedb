//! Which nonce a call gets, and which calls that were handed over are still on their way. Decides; asks nobody.

use super::signed::{Final, Signed};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// Calls of all accounts that may be on their way: a node has one or two a round.
const LIVE_MAX: usize = 256;

/// Calls that were taken by a pool and whose nonces are not yet used at a final block.
#[derive(Debug, Default)]
pub(super) struct Nonces {
    live: BTreeMap<([u8; 32], u64), Arc<Signed>>,
    /// Nonces of calls that are being signed and handed over, and until when: no other call gets them.
    reserved: BTreeMap<([u8; 32], u64), Instant>,
}

/// A call that cannot come any more, or is in a final block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settled {
    pub(super) call: Arc<Signed>,
    /// Whether its nonce is used, by it or by another. If not, its era is over.
    pub(super) used: bool,
}

impl Nonces {
    /// The nonce of the account's next call. `next` is the chain's: it counts what is in blocks and what its pool has.
    pub(super) fn next(&self, account: &[u8; 32], next: u64, at: Final) -> u64 {
        // The pool may have lost a call, by a reorganisation or a restart: it is sent again and keeps its nonce.
        let taken = |nonce: u64| {
            let key = (*account, nonce);
            self.reserved.contains_key(&key) || self.live.get(&key).is_some_and(|call| !call.is_over(at))
        };
        (next..).find(|nonce| !taken(*nonce)).unwrap_or(next)
    }

    /// Keeps a nonce for a call that is not with a pool yet. Not for ever: should that call never be handed over, its nonce
    /// must go to another, since no later one can be used before it.
    pub(super) fn reserve(&mut self, account: &[u8; 32], nonce: u64, until: Instant) {
        self.reserved.insert((*account, nonce), until);
        while self.reserved.len() > LIVE_MAX {
            let first = self.reserved.iter().min_by_key(|(_, until)| **until).map(|(key, _)| *key);
            let Some(first) = first else { return };
            self.reserved.remove(&first);
        }
    }

    /// Gives up what was reserved and has not come.
    pub(super) fn expire(&mut self, now: Instant) {
        self.reserved.retain(|_, until| *until > now);
    }

    /// Gives up the reservation of a call that no pool will take.
    pub(super) fn release(&mut self, call: &Signed) {
        self.reserved.remove(&(call.account, call.nonce));
    }

    /// Notes a call that a pool took.
    pub(super) fn note(&mut self, call: Arc<Signed>) {
        self.release(&call);
        self.live.insert((call.account, call.nonce), call);
        while self.live.len() > LIVE_MAX {
            // The one that dies first is the one that matters least.
            let oldest = self.live.iter().min_by_key(|(_, call)| call.dies).map(|(key, _)| *key);
            let Some(oldest) = oldest else { return };
            self.live.remove(&oldest);
        }
    }

    /// Forgets a call that is on its way no more.
    pub(super) fn forget(&mut self, call: &Signed) {
        let key = (call.account, call.nonce);
        if self.live.get(&key).is_some_and(|live| **live == *call) {
            self.live.remove(&key);
        }
    }

    /// The accounts that have calls on their way.
    pub(super) fn accounts(&self) -> Vec<[u8; 32]> {
        let mut all: Vec<[u8; 32]> = self.live.keys().map(|(account, _)| *account).collect();
        all.dedup();
        all
    }

    /// The calls of an account that the chain's pool does not have: those are sent again.
    pub(super) fn lost(&self, account: &[u8; 32], next: u64) -> Vec<Arc<Signed>> {
        self.live.range((*account, next)..=(*account, u64::MAX)).map(|(_, call)| call.clone()).collect()
    }

    /// What a final block has settled of an account's: `nonce` is the account's after it.
    pub(super) fn settled(&self, account: &[u8; 32], nonce: u64, at: Final) -> Vec<Settled> {
        let of_account = self.live.range((*account, 0)..=(*account, u64::MAX));
        of_account
            .filter(|((_, its), call)| *its < nonce || call.is_over(at))
            .map(|((_, its), call)| Settled { call: call.clone(), used: *its < nonce })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::runtime::Mortality;
    use super::*;
    use covey_proto::{BlockNumber, Digest};

    const ME: [u8; 32] = [1; 32];

    fn call(nonce: u64, birth: u32) -> Arc<Signed> {
        let mortality = Mortality { period: 64, birth, birth_hash: Digest::ZERO };
        Arc::new(Signed::new(ME, nonce, mortality, 365, vec![nonce as u8, birth as u8]))
    }

    fn at(block: u32) -> Final {
        Final { block: BlockNumber(block), spec_version: 365 }
    }

    #[test]
    fn a_call_that_the_chain_lost_keeps_its_nonce() {
        let mut nonces = Nonces::default();
        nonces.note(call(5, 100));
        assert_eq!(nonces.next(&ME, 6, at(101)), 6, "the pool has it");
        assert_eq!(nonces.next(&ME, 5, at(101)), 6, "a reorganisation lost it; it is sent again");
        assert_eq!(nonces.lost(&ME, 5), [call(5, 100)]);
        assert!(nonces.lost(&ME, 6).is_empty());
    }

    #[test]
    fn a_nonce_is_reserved_until_its_call_is_taken_or_refused_or_does_not_come() {
        let now = Instant::now();
        let until = now + std::time::Duration::from_secs(60);
        let mut nonces = Nonces::default();
        nonces.reserve(&ME, 5, until);
        assert_eq!(nonces.next(&ME, 5, at(101)), 6, "it is being handed over");
        assert_eq!(nonces.next(&[2; 32], 5, at(101)), 5, "another account's is another");
        nonces.release(&call(5, 100));
        assert_eq!(nonces.next(&ME, 5, at(101)), 5, "it was refused");
        nonces.reserve(&ME, 5, until);
        nonces.note(call(5, 100));
        nonces.forget(&call(5, 100));
        assert_eq!(nonces.next(&ME, 5, at(101)), 5, "taken, and settled");
        nonces.reserve(&ME, 5, until);
        nonces.expire(now);
        assert_eq!(nonces.next(&ME, 5, at(101)), 6);
        nonces.expire(until);
        assert_eq!(nonces.next(&ME, 5, at(101)), 5, "it has not come");
    }

    #[test]
    fn the_nonce_of_a_call_that_died_is_free() {
        let mut nonces = Nonces::default();
        nonces.note(call(5, 100));
        nonces.note(call(6, 150));
        assert_eq!(nonces.next(&ME, 5, at(163)), 5);
        assert_eq!(nonces.settled(&ME, 5, at(163)), [Settled { call: call(5, 100), used: false }]);
        nonces.forget(&call(5, 100));
        assert_eq!(nonces.accounts(), [ME], "nonce 6 still waits");
    }

    #[test]
    fn a_final_nonce_settles_what_came_before() {
        let mut nonces = Nonces::default();
        (5..8).for_each(|nonce| nonces.note(call(nonce, 100)));
        let used = |nonce| Settled { call: call(nonce, 100), used: true };
        assert_eq!(nonces.settled(&ME, 7, at(110)), [used(5), used(6)]);
        assert_eq!(nonces.settled(&[2; 32], 99, at(110)), []);
        assert_eq!(nonces.next(&ME, 7, at(110)), 8);
    }

    #[test]
    fn calls_on_their_way_are_bounded() {
        let mut nonces = Nonces::default();
        (0..1_000).for_each(|nonce| nonces.note(call(nonce, nonce as u32)));
        assert_eq!(nonces.live.len(), LIVE_MAX);
        assert!(nonces.lost(&ME, 999).len() == 1, "the newest stay");
    }
}
