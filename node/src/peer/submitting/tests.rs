//! The task with a chain in memory: what it writes into the journal, hands over, and says to whoever waits.

use super::*;
use crate::chain::memory::{Genesis, MemoryLedger};
use crate::chain::{Call, Fate, Heads, Weights};
use crate::disk::JournalFile;
use crate::disk::{Disk, JournalContribution};
use crate::preset::Template;
use covey_proto::chain::ChainView;
use covey_proto::run::Run;
use covey_proto::run::{Chain, Data};
use covey_proto::{Digest, Hotkey, Round};
use covey_proto::{HotkeyPair, Uid};
use covey_round::submit::Wish;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::watch;

/// A chain whose answers to submissions can be cut off.
struct Cut {
    ledger: MemoryLedger,
    is_cut: AtomicBool,
}

impl Ledger for Cut {
    fn genesis(&self) -> Digest {
        self.ledger.genesis()
    }
    fn netuid(&self) -> u16 {
        self.ledger.netuid()
    }
    fn heads(&self) -> watch::Receiver<Heads> {
        self.ledger.heads()
    }
    async fn view(&self, block: BlockNumber) -> Result<ChainView, LedgerError> {
        self.ledger.view(block).await
    }
    async fn weights(&self) -> Result<Weights, LedgerError> {
        self.ledger.weights().await
    }
    async fn sign(&self, pair: &HotkeyPair, call: Call) -> Result<SignedCall, LedgerError> {
        self.ledger.sign(pair, call).await
    }
    fn author(&self, call: &SignedCall) -> Result<Hotkey, LedgerError> {
        self.ledger.author(call)
    }
    async fn fate(&self, call: &SignedCall, block: BlockNumber) -> Result<Fate, LedgerError> {
        self.ledger.fate(call, block).await
    }
    async fn submit(&self, call: &SignedCall) -> Result<(), LedgerError> {
        if self.is_cut.load(Ordering::Acquire) {
            return Err(LedgerError::Unreachable("cut".into()));
        }
        self.ledger.submit(call).await
    }
}

/// A node's folder, its chain, and the task between them.
struct Rig {
    run: Arc<Run>,
    ledger: Arc<Cut>,
    journal: Arc<JournalFile>,
    submit: SubmitHandle,
    task: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    _folder: tempfile::TempDir,
}

fn pair(number: u8) -> HotkeyPair {
    HotkeyPair::from_seed([number; 32])
}

fn mine() -> record::Contribution {
    record::Contribution { round: Round(0), manifest: Digest::of(b"manifest") }
}

impl Rig {
    /// A node that has journalled its contribution of round 0, and signed nothing.
    fn new() -> Rig {
        let chain = Chain { genesis: Digest::ZERO, netuid: 3, start: 10, genesis_state: Digest::ZERO };
        let data = Data { digest: Digest::ZERO, samples: 9 };
        let run = Template::load("tiny").unwrap().resolve(&chain, &data).unwrap();
        let genesis = Genesis { nonce: 1, netuid: 3, members: Vec::new(), finality_lag: 2 };
        let ledger = Cut { ledger: MemoryLedger::new(genesis), is_cut: AtomicBool::new(false) };
        let folder = tempfile::tempdir().unwrap();
        let journal = Arc::new(Disk::open(folder.path()).unwrap().journal().unwrap());
        let made = JournalContribution { round: Round(0), base: Digest::ZERO, manifest: mine().manifest, call: None };
        journal.change(|journal| journal.contribution = Some(made)).unwrap();
        let (submit, _) = SubmitHandle::new();
        Rig { run: Arc::new(run), ledger: Arc::new(ledger), journal, submit, task: None, _folder: folder }
    }

    /// The contribution's call as a hotkey signs it, in the journal and nowhere else: the process ended just then.
    async fn signed_before_a_crash(&self, by: &HotkeyPair) -> SignedCall {
        let record = Record { contribution: Some(mine()), ..Record::of(self.run.id()) };
        let call = self.ledger.sign(by, Call::Commit(record.to_bytes())).await.unwrap();
        let note = |journal: &mut Journal| journal.contribution.as_mut().unwrap().call = Some(hex::encode(&call.0));
        self.journal.change(note).unwrap();
        call
    }

    async fn start(&mut self) -> Result<(), LedgerError> {
        let (submit, orders) = SubmitHandle::new();
        let signer = Signer {
            name: "tested".into(),
            run: self.run.clone(),
            run_id: self.run.id(),
            ledger: self.ledger.clone(),
            journal: self.journal.clone(),
            pair: Some(Arc::new(pair(1))),
        };
        self.task = Some(Box::pin(start(signer, orders).await?));
        self.submit = submit;
        Ok(())
    }

    /// Waits for something while the task runs.
    async fn during<T>(&mut self, what: impl Future<Output = T>) -> T {
        let task = self.task.as_mut().unwrap();
        tokio::select! {
            biased;
            () = task => panic!("the task ended"),
            done = what => done,
        }
    }

    async fn put(&mut self, wish: Wish, until: BlockNumber) {
        let submit = self.submit.clone();
        self.during(submit.put(wish, until)).await;
    }

    /// Makes a block, of which the task hears; gives its calls.
    async fn block(&mut self) -> Vec<SignedCall> {
        let block = self.ledger.ledger.produce();
        for _ in 0..20 {
            self.during(tokio::task::yield_now()).await;
        }
        block.calls
    }

    fn commit(&self) -> BlockNumber {
        RoundBlocks::of(&self.run, Round(0)).unwrap().commit
    }

    fn journalled(&self) -> Option<SignedCall> {
        let call = self.journal.read().contribution.unwrap().call;
        call.map(|digits| SignedCall(hex::decode(digits).unwrap()))
    }
}

#[tokio::test]
async fn a_contribution_is_in_the_journal_before_the_chain_and_in_one_block_only() {
    let mut rig = Rig::new();
    rig.start().await.unwrap();
    rig.put(Wish::Contribution(mine()), rig.commit()).await;
    let call = rig.journalled().expect("it is journalled");
    assert_eq!(rig.block().await, std::slice::from_ref(&call));
    for _ in 0..6 {
        assert_eq!(rig.block().await, [], "sent again, and in a block once");
    }
    let view = rig.ledger.view(BlockNumber(1)).await.unwrap();
    let record = Record::from_bytes(&view.slots[&pair(1).hotkey()].bytes).unwrap();
    assert_eq!((record.contribution, record.vote), (Some(mine()), None));
}

#[tokio::test]
async fn what_a_crash_left_signed_is_handed_over_before_anything_else_is_signed() {
    let mut rig = Rig::new();
    let call = rig.signed_before_a_crash(&pair(1)).await;
    rig.start().await.unwrap();
    rig.put(Wish::Weights(vec![(Uid::from(1), 7)]), BlockNumber(90)).await;
    rig.put(Wish::Contribution(mine()), rig.commit()).await;
    let calls = rig.block().await;
    assert_eq!((calls.len(), &calls[0]), (2, &call), "the same bytes, with the first nonce");
}

#[tokio::test]
async fn another_hotkeys_call_is_not_sent_and_the_contribution_is_signed_anew() {
    let mut rig = Rig::new();
    let foreign = rig.signed_before_a_crash(&pair(2)).await;
    rig.start().await.unwrap();
    assert_eq!(rig.block().await, []);
    rig.put(Wish::Contribution(mine()), rig.commit()).await;
    let own = rig.journalled().unwrap();
    assert_ne!(own, foreign);
    assert_eq!(rig.ledger.author(&own).unwrap(), pair(1).hotkey());
    assert_eq!(rig.block().await, [own]);
}

#[tokio::test]
async fn without_an_answer_to_what_was_signed_before_the_node_does_not_start() {
    let mut rig = Rig::new();
    rig.signed_before_a_crash(&pair(1)).await;
    rig.ledger.is_cut.store(true, Ordering::Release);
    assert!(matches!(rig.start().await, Err(LedgerError::Unreachable(_))));
}

#[tokio::test]
async fn what_the_journal_does_not_name_and_what_is_late_is_not_handed_over() {
    let mut rig = Rig::new();
    rig.start().await.unwrap();
    let other = record::Contribution { round: Round(1), manifest: Digest::of(b"other") };
    rig.put(Wish::Contribution(other), BlockNumber(90)).await;
    rig.put(Wish::Contribution(mine()), BlockNumber(0)).await;
    assert_eq!(rig.block().await, []);
    assert_eq!(rig.journalled(), None);
}

#[tokio::test]
async fn whoever_sets_weights_waits_for_one_try_and_the_newest_stand() {
    let mut rig = Rig::new();
    rig.start().await.unwrap();
    rig.ledger.is_cut.store(true, Ordering::Release);
    let submit = rig.submit.clone();
    rig.during(submit.set_weights(vec![(Uid::from(1), 1)], BlockNumber(90))).await;
    assert_eq!(rig.block().await, [], "the chain did not answer");
    rig.ledger.is_cut.store(false, Ordering::Release);
    rig.during(submit.set_weights(vec![(Uid::from(1), 2)], BlockNumber(90))).await;
    rig.block().await;
    assert_eq!(rig.ledger.weights().await.unwrap()[&pair(1).hotkey()], [(Uid::from(1), 2)]);
}

#[tokio::test]
async fn with_the_task_gone_nobody_waits() {
    let mut rig = Rig::new();
    rig.start().await.unwrap();
    rig.task = None;
    rig.submit.put(Wish::Contribution(mine()), rig.commit()).await;
    assert_eq!(rig.journalled(), None);
}
