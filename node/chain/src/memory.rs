//! A chain inside the process: blocks when told, finality a fixed number of blocks behind, signatures and nonces checked.
//!
//! For simulation: it neither persists nor talks.

mod call;

use super::{Call, Fate, Heads, Ledger, LedgerError, STATE_KEPT, SignedCall, Weights};
use call::Signed;
use covey_proto::chain::{ChainView, Member, Slot};
use covey_proto::{BlockNumber, Digest, Hotkey, HotkeyPair, Uid};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Calls that wait for a block. 256 members of a few calls each.
const POOL_MAX: usize = 4096;
/// Blocks that finality may be behind: their states are kept besides the last [`STATE_KEPT`] final ones.
pub const FINALITY_LAG_MAX: u32 = 64;

/// How a chain begins.
#[derive(Clone, Debug)]
pub struct Genesis {
    /// Makes two chains of the same members two chains.
    pub nonce: u64,
    /// The subnet.
    pub netuid: u16,
    /// Who is registered from the start.
    pub members: Vec<Member>,
    /// Blocks that finality is behind: at most [`FINALITY_LAG_MAX`].
    pub finality_lag: u32,
}

impl Genesis {
    /// The genesis hash.
    pub fn hash(&self) -> Digest {
        let mut hasher = blake3::Hasher::new_derive_key("covey/1/memory-genesis");
        hasher.update(&self.nonce.to_le_bytes());
        hasher.update(&self.netuid.to_le_bytes());
        hasher.update(&self.finality_lag.to_le_bytes());
        for member in &self.members {
            hasher.update(&member.uid.number().to_le_bytes());
            hasher.update(member.hotkey.as_bytes());
            hasher.update(&member.registered_at.0.to_le_bytes());
            hasher.update(&[member.permit.into()]);
            hasher.update(&member.stake.to_le_bytes());
        }
        Digest::new(*hasher.finalize().as_bytes())
    }
}

/// A block as it was made.
#[derive(Clone, Debug)]
pub struct Block {
    /// Its number.
    pub number: BlockNumber,
    /// Its hash: of its parent's, its number and its calls.
    pub hash: Digest,
    /// What it did, in order.
    pub calls: Vec<SignedCall>,
}

/// The chain's state after a block.
#[derive(Clone, Debug, Default)]
struct State {
    members: BTreeMap<Uid, Member>,
    slots: BTreeMap<Hotkey, Slot>,
    nonces: BTreeMap<Hotkey, u64>,
    weights: Weights,
}

struct Chain {
    /// The last [`STATE_KEPT`] states behind the finalised one, and those after it; the oldest first.
    states: VecDeque<Made>,
    pool: Vec<(Signed, SignedCall)>,
}

/// A block as it is kept.
struct Made {
    number: BlockNumber,
    hash: Digest,
    /// Digests of its calls.
    calls: Vec<Digest>,
    /// The state after it.
    state: Arc<State>,
}

/// The chain. Cheap to clone.
#[derive(Clone)]
pub struct MemoryLedger {
    genesis: Arc<Genesis>,
    chain: Arc<Mutex<Chain>>,
    heads: Arc<watch::Sender<Heads>>,
}

impl MemoryLedger {
    /// A chain at block 0.
    ///
    /// # Panics
    /// If its finality is more than [`FINALITY_LAG_MAX`] blocks behind.
    pub fn new(genesis: Genesis) -> MemoryLedger {
        let lag = genesis.finality_lag;
        assert!(lag <= FINALITY_LAG_MAX, "finality {lag} blocks behind; at most {FINALITY_LAG_MAX}");
        let members = genesis.members.iter().map(|member| (member.uid, *member)).collect();
        let state = State { members, ..State::default() };
        let states = VecDeque::from([Made {
            number: BlockNumber(0),
            hash: genesis.hash(),
            calls: Vec::new(),
            state: Arc::new(state),
        }]);
        MemoryLedger {
            genesis: Arc::new(genesis),
            chain: Arc::new(Mutex::new(Chain { states, pool: Vec::new() })),
            heads: Arc::new(watch::Sender::new(Heads::default())),
        }
    }

    /// Makes a block of all that waits.
    pub fn produce(&self) -> Block {
        let mut chain = self.chain();
        let mut pool = std::mem::take(&mut chain.pool);
        // The order in which calls came must not matter: tests compare whole chains.
        pool.sort_by_key(|(a, _)| (a.hotkey, a.nonce));
        let (number, hash, state) = chain.tip();
        let number = BlockNumber(number.0 + 1);
        let mut state = State::clone(&state);
        pool.retain(|(signed, _)| state.execute(number, signed).is_ok());
        let calls: Vec<SignedCall> = pool.into_iter().map(|(_, call)| call).collect();
        let block = Block { number, hash: block_hash(hash, number, &calls), calls };
        chain.push(&block, state, self.genesis.finality_lag);
        drop(chain);
        self.announce(number);
        block
    }

    fn announce(&self, best: BlockNumber) {
        let finalised = BlockNumber(best.0.saturating_sub(self.genesis.finality_lag));
        self.heads.send_replace(Heads { best, finalised });
    }

    /// The hash of a final block, and the state after it.
    fn final_state(&self, block: BlockNumber) -> Result<(Digest, Arc<State>), LedgerError> {
        let heads = *self.heads.borrow();
        let missing = LedgerError::NoState { block, kept: STATE_KEPT, best: heads.best };
        if block > heads.finalised {
            return Err(missing);
        }
        self.chain().at(block).map(|made| (made.hash, made.state.clone())).ok_or(missing)
    }

    /// Takes a free uid for a hotkey, unless it has one: the next block does it.
    ///
    /// # Errors
    /// The pool is full.
    pub async fn register(&self, pair: &HotkeyPair) -> Result<(), LedgerError> {
        let hotkey = pair.hotkey();
        if self.chain().tip().2.members.values().any(|member| member.hotkey == hotkey) {
            return Ok(());
        }
        self.submit(&self.sign_next(pair, None)?).await
    }

    fn sign_next(&self, pair: &HotkeyPair, call: Option<Call>) -> Result<SignedCall, LedgerError> {
        let nonce = {
            let chain = self.chain();
            let (_, _, state) = chain.tip();
            let waiting = chain.waiting(&pair.hotkey()).map(|signed| signed.nonce).max();
            match waiting.map_or_else(|| Some(state.next_nonce(&pair.hotkey())), |nonce| nonce.checked_add(1)) {
                Some(nonce) => nonce,
                None => return Err(LedgerError::Refused(format!("a call of nonce {} waits: none is left", u64::MAX))),
            }
        };
        Ok(Signed { hotkey: pair.hotkey(), nonce, call }.to_bytes(pair, self.genesis()))
    }

    fn chain(&self) -> MutexGuard<'_, Chain> {
        // A panic inside the lock leaves a whole state behind: states are replaced, never edited.
        self.chain.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Chain {
    fn tip(&self) -> (BlockNumber, Digest, Arc<State>) {
        let Made { number, hash, state, .. } = self.states.back().expect("a chain has its genesis");
        (*number, *hash, state.clone())
    }

    fn push(&mut self, block: &Block, state: State, finality_lag: u32) {
        let Block { number, hash, calls } = block;
        let calls = calls.iter().map(|call| Digest::of(&call.0)).collect();
        self.states.push_back(Made { number: *number, hash: *hash, calls, state: Arc::new(state) });
        let kept = (STATE_KEPT + finality_lag) as usize;
        while self.states.len() > kept {
            self.states.pop_front();
        }
    }

    /// A hotkey's calls that wait for a block.
    fn waiting(&self, hotkey: &Hotkey) -> impl Iterator<Item = &Signed> {
        self.pool.iter().map(|(signed, _)| signed).filter(move |signed| signed.hotkey == *hotkey)
    }

    fn at(&self, block: BlockNumber) -> Option<&Made> {
        let first = self.states.front()?.number;
        self.states.get(block.0.checked_sub(first.0)? as usize)
    }
}

impl State {
    fn next_nonce(&self, hotkey: &Hotkey) -> u64 {
        self.nonces.get(hotkey).copied().unwrap_or(0)
    }

    fn execute(&mut self, block: BlockNumber, signed: &Signed) -> Result<(), LedgerError> {
        let next = self.next_nonce(&signed.hotkey);
        if signed.nonce != next {
            return Err(LedgerError::Refused(format!(
                "nonce {} of {}; the next is {next}",
                signed.nonce, signed.hotkey
            )));
        }
        self.nonces.insert(signed.hotkey, next + 1);
        match &signed.call {
            None => self.register(block, signed.hotkey),
            Some(Call::Commit(bytes)) => {
                self.slots.insert(signed.hotkey, Slot { block, bytes: bytes.clone() });
            }
            Some(Call::SetWeights(weights)) => {
                self.weights.insert(signed.hotkey, weights.clone());
            }
        }
        Ok(())
    }

    /// The lowest free uid; nothing if there is none, or the hotkey has one.
    fn register(&mut self, block: BlockNumber, hotkey: Hotkey) {
        if self.members.values().any(|member| member.hotkey == hotkey) {
            return;
        }
        if let Some(uid) = (0..=u8::MAX).map(Uid::from).find(|uid| !self.members.contains_key(uid)) {
            self.members.insert(uid, Member { uid, hotkey, registered_at: block, permit: false, stake: 0 });
        }
    }
}

fn block_hash(parent: Digest, number: BlockNumber, calls: &[SignedCall]) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key("covey/1/memory-block");
    hasher.update(parent.as_bytes());
    hasher.update(&number.0.to_le_bytes());
    for call in calls {
        hasher.update(Digest::of(&call.0).as_bytes());
    }
    Digest::new(*hasher.finalize().as_bytes())
}

impl Ledger for MemoryLedger {
    fn genesis(&self) -> Digest {
        self.genesis.hash()
    }

    fn netuid(&self) -> u16 {
        self.genesis.netuid
    }

    fn heads(&self) -> watch::Receiver<Heads> {
        self.heads.subscribe()
    }

    async fn view(&self, block: BlockNumber) -> Result<ChainView, LedgerError> {
        let (hash, state) = self.final_state(block)?;
        Ok(ChainView { block, hash, members: state.members.clone(), slots: state.slots.clone() })
    }

    async fn weights(&self) -> Result<Weights, LedgerError> {
        Ok(self.chain().tip().2.weights.clone())
    }

    async fn sign(&self, pair: &HotkeyPair, call: Call) -> Result<SignedCall, LedgerError> {
        self.sign_next(pair, Some(call))
    }

    fn author(&self, call: &SignedCall) -> Result<Hotkey, LedgerError> {
        Ok(Signed::from_bytes(&call.0, self.genesis())?.hotkey)
    }

    async fn fate(&self, call: &SignedCall, block: BlockNumber) -> Result<Fate, LedgerError> {
        let signed = Signed::from_bytes(&call.0, self.genesis())?;
        let (_, state) = self.final_state(block)?;
        if signed.nonce >= state.next_nonce(&signed.hotkey) {
            return Ok(Fate::Open);
        }
        // Whoever waits for a call asks at every final block, long before its block is forgotten.
        let name = Digest::of(&call.0);
        let is_done = self.chain().states.iter().any(|made| made.number <= block && made.calls.contains(&name));
        Ok(if is_done { Fate::Done } else { Fate::Lost })
    }

    async fn submit(&self, call: &SignedCall) -> Result<(), LedgerError> {
        let signed = Signed::from_bytes(&call.0, self.genesis())?;
        let mut chain = self.chain();
        if chain.pool.iter().any(|(_, waiting)| waiting == call) {
            return Ok(());
        }
        let (_, _, state) = chain.tip();
        let (nonce, next) = (signed.nonce, state.next_nonce(&signed.hotkey));
        if nonce < next {
            return Err(LedgerError::Refused(format!("nonce {nonce} was used; the next is {next}")));
        }
        if chain.waiting(&signed.hotkey).any(|waiting| waiting.nonce == nonce) {
            return Err(LedgerError::Refused(format!("another call of nonce {nonce} waits already; sign again")));
        }
        if chain.pool.len() >= POOL_MAX {
            return Err(LedgerError::Unreachable(format!("{POOL_MAX} calls wait already; try again after a block")));
        }
        chain.pool.push((signed, call.clone()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> (MemoryLedger, HotkeyPair) {
        let pair = HotkeyPair::from_seed([1; 32]);
        let member =
            Member { uid: Uid::from(0), hotkey: pair.hotkey(), registered_at: BlockNumber(0), permit: true, stake: 10 };
        (MemoryLedger::new(Genesis { nonce: 1, netuid: 3, members: vec![member], finality_lag: 2 }), pair)
    }

    #[tokio::test]
    async fn a_commitment_counts_when_final_and_overwrites_the_last() {
        let (ledger, pair) = ledger();
        for text in ["first", "second"] {
            let call = ledger.sign(&pair, Call::Commit(text.into())).await.unwrap();
            ledger.submit(&call).await.unwrap();
            ledger.submit(&call).await.unwrap();
            ledger.produce();
        }
        assert!(ledger.view(BlockNumber(1)).await.is_err(), "block 1 is not final at 2");
        ledger.produce();
        ledger.produce();
        let first = ledger.view(BlockNumber(1)).await.unwrap();
        assert_eq!(first.slots[&pair.hotkey()], Slot { block: BlockNumber(1), bytes: b"first".to_vec() });
        let second = ledger.view(BlockNumber(2)).await.unwrap();
        assert_eq!(second.slots[&pair.hotkey()].bytes, b"second");
    }

    #[tokio::test]
    async fn strangers_cannot_speak_for_a_hotkey_or_too_long() {
        let (ledger, pair) = ledger();
        let mut call = ledger.sign(&pair, Call::Commit(b"mine".to_vec())).await.unwrap();
        let last = call.0.len() - 1;
        call.0[last] ^= 1;
        assert!(matches!(ledger.submit(&call).await, Err(LedgerError::Refused(_))));
        let long = ledger.sign(&pair, Call::Commit(vec![0; 129])).await.unwrap();
        assert!(matches!(ledger.submit(&long).await, Err(LedgerError::Refused(_))));
    }

    #[tokio::test]
    async fn old_state_is_gone_and_a_newcomer_gets_a_free_uid() {
        let (ledger, _) = ledger();
        let newcomer = HotkeyPair::from_seed([2; 32]);
        ledger.register(&newcomer).await.unwrap();
        for _ in 0..STATE_KEPT + 10 {
            ledger.produce();
        }
        let heads = *ledger.heads().borrow();
        assert!(ledger.view(BlockNumber(3)).await.is_err());
        let view = ledger.view(heads.finalised).await.unwrap();
        assert_eq!(view.member(&newcomer.hotkey()).map(|member| member.uid), Some(Uid::from(1)));
    }

    #[tokio::test]
    async fn one_call_waits_for_each_nonce_and_the_next_comes_behind_them() {
        let (ledger, pair) = ledger();
        let first = ledger.sign(&pair, Call::Commit(b"first".to_vec())).await.unwrap();
        let rival = ledger.sign(&pair, Call::Commit(b"rival".to_vec())).await.unwrap();
        ledger.submit(&first).await.unwrap();
        assert!(matches!(ledger.submit(&rival).await, Err(LedgerError::Refused(_))), "nonce 0 waits already");
        ledger.submit(&first).await.unwrap();
        // A call that comes before the one it follows: nonces 0 and 2 wait, and the next is 3.
        let behind = Signed { hotkey: pair.hotkey(), nonce: 2, call: Some(Call::Commit(b"third".to_vec())) };
        ledger.submit(&behind.to_bytes(&pair, ledger.genesis())).await.unwrap();
        let next = ledger.sign(&pair, Call::Commit(b"next".to_vec())).await.unwrap();
        assert_eq!(Signed::from_bytes(&next.0, ledger.genesis()).unwrap().nonce, 3);
        assert_eq!(ledger.produce().calls, [first], "nonce 1 never came");
        let next = ledger.sign(&pair, Call::Commit(b"next".to_vec())).await.unwrap();
        assert_eq!(Signed::from_bytes(&next.0, ledger.genesis()).unwrap().nonce, 1);
        let last = Signed { nonce: u64::MAX, ..behind };
        ledger.submit(&last.to_bytes(&pair, ledger.genesis())).await.unwrap();
        assert!(matches!(ledger.sign(&pair, Call::Commit(b"next".to_vec())).await, Err(LedgerError::Refused(_))));
    }

    #[tokio::test]
    async fn what_became_of_a_call_is_known_once_its_nonce_is_used_at_a_final_block() {
        let (ledger, pair) = ledger();
        let lost = ledger.sign(&pair, Call::Commit(b"lost".to_vec())).await.unwrap();
        let rival = ledger.sign(&pair, Call::Commit(b"rival".to_vec())).await.unwrap();
        ledger.submit(&rival).await.unwrap();
        ledger.produce();
        let refused = ledger.submit(&lost).await;
        assert!(matches!(refused, Err(LedgerError::Refused(_))), "used, but maybe not for good");
        for (block, fates) in [(0, [Fate::Open, Fate::Open]), (1, [Fate::Lost, Fate::Done])] {
            let block = BlockNumber(block);
            while ledger.heads().borrow().finalised < block {
                ledger.produce();
            }
            for (call, fate) in [&lost, &rival].into_iter().zip(fates) {
                assert_eq!(ledger.fate(call, block).await.unwrap(), fate, "at block {block}");
            }
        }
        assert!(ledger.fate(&lost, BlockNumber(99)).await.is_err(), "a block to come");
    }

    #[tokio::test]
    async fn a_full_pool_takes_no_more_until_a_block_has_emptied_it() {
        let (ledger, pair) = ledger();
        for nonce in 0..POOL_MAX as u64 {
            let waits = Signed { hotkey: pair.hotkey(), nonce, call: None };
            ledger.chain().pool.push((waits, SignedCall(nonce.to_le_bytes().to_vec())));
        }
        let call = ledger.sign(&pair, Call::Commit(b"late".to_vec())).await.unwrap();
        let full = ledger.submit(&call).await;
        assert!(matches!(&full, Err(LedgerError::Unreachable(why)) if why.contains("4096 calls wait")), "{full:?}");
        ledger.produce();
        ledger.submit(&call).await.unwrap();
    }

    #[test]
    fn two_chains_of_the_same_members_are_two_chains() {
        let genesis = |nonce, finality_lag| Genesis { nonce, netuid: 3, members: Vec::new(), finality_lag };
        assert_eq!(genesis(1, 2).hash(), genesis(1, 2).hash());
        assert_ne!(genesis(1, 2).hash(), genesis(2, 2).hash());
        assert_ne!(genesis(1, 2).hash(), genesis(1, 3).hash());
    }

    #[tokio::test]
    async fn weights_for_every_uid_fit_a_call_and_more_do_not() {
        let (ledger, pair) = ledger();
        let every: Vec<(Uid, u16)> = (0..=u8::MAX).map(|uid| (Uid::from(uid), u16::MAX)).collect();
        let call = ledger.sign(&pair, Call::SetWeights(every.clone())).await.unwrap();
        ledger.submit(&call).await.unwrap();
        ledger.produce();
        assert_eq!(ledger.weights().await.unwrap()[&pair.hotkey()], every, "as of the newest block, not yet final");
        let call = ledger.sign(&pair, Call::SetWeights(every.repeat(2))).await.unwrap();
        assert!(matches!(ledger.submit(&call).await, Err(LedgerError::Refused(_))));
    }
}
