//! One miner on a chain in memory. Whom nobody has registered looks on and says so, and takes part once it can. What it has
//! committed and not revealed, no stranger gets.

use crate::rig::dataset;
use covey::chain::memory::{Genesis, MemoryLedger};
use covey::chain::{Ledger, STATE_KEPT};
use covey::compute::Compute;
use covey::peer::{Config, Ended, Peer, Status};
use covey::preset::Template;
use covey_gossip::store::Store;
use covey_gossip::{Hint, Limits, TransportOptions};
use covey_proto::record::{Contribution, Record};
use covey_proto::run::{Chain, Data, Run};
use covey_proto::{BlockNumber, Digest, HotkeyPair};
use covey_round::engine::Roles;
use covey_sparseloco::state_root;
use covey_trainer::Device;
use covey_trainer::genesis::initial_state;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

const NETUID: u16 = 3;

/// The tiny preset on a chain of nobody.
fn run(ledger: &MemoryLedger) -> Run {
    let data = Data { digest: dataset().digest(), samples: dataset().samples(32) };
    let mut chain = Chain { genesis: ledger.genesis(), netuid: NETUID, start: 8, genesis_state: Digest::ZERO };
    let template = Template::load("tiny").expect("a preset of this binary");
    let draft = template.resolve(&chain, &data).expect("a run");
    chain.genesis_state =
        state_root(&initial_state(&draft.model).expect("it has a seed"), draft.compress.state_elements as usize);
    template.resolve(&chain, &data).expect("a run")
}

fn config(folder: &Path, ledger: &MemoryLedger, hotkey: HotkeyPair) -> Config<MemoryLedger> {
    Config {
        name: "stranger".into(),
        directory: folder.to_owned(),
        roles: Roles { miner: true, validator: false },
        run: Arc::new(run(ledger)),
        ledger: ledger.clone(),
        data: vec![dataset()],
        listen: vec!["/ip4/127.0.0.1/tcp/0".into()],
        bootstrap: Vec::new(),
        reachable: true,
        heartbeat: Duration::from_millis(200),
        limits: Limits::default(),
        transport: TransportOptions::default(),
        store_bytes_max: 1 << 30,
        compute: Compute::new(1),
        device: Device::Cpu { threads: 1 },
        save_rounds: 1,
        hotkey: Some(hotkey),
        genesis: None,
        misbehaviour: None,
        archive: false,
        patience: Duration::from_millis(50),
        observer: None,
    }
}

/// Makes a block whenever the node is idle, until its status is as wanted.
async fn produce_until(ledger: &MemoryLedger, status: &mut watch::Receiver<Status>, is_so: impl Fn(&Status) -> bool) {
    for _ in 0..STATE_KEPT {
        let best = ledger.produce().number;
        let idle = status.wait_for(|status| status.seen >= best && (status.idle || !status.live)).await;
        let status = idle.expect("the node lives").clone();
        assert_eq!(status.halted, None);
        if is_so(&status) {
            return;
        }
        // A node that is joining is never idle: it asks its peers, of whom there are none.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("not in {STATE_KEPT} blocks: {:?}", status.borrow());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_registered_follows_and_takes_part_as_soon_as_it_is() {
    let ledger = MemoryLedger::new(Genesis { nonce: 1, netuid: NETUID, members: Vec::new(), finality_lag: 2 });
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hotkey = || HotkeyPair::from_seed([7; 32]);
    let peer = Peer::start(config(folder.path(), &ledger, hotkey())).await.expect("it starts all the same");
    let (stop, stopped) = watch::channel(false);
    let mut status = peer.status();
    let running = tokio::spawn(peer.run(stopped));
    produce_until(&ledger, &mut status, |status| status.live && status.seen >= BlockNumber(20)).await;
    assert_eq!((status.borrow().uid, status.borrow().contributed), (None, 0), "it looks on");
    ledger.register(&hotkey()).await.expect("the pool has room");
    produce_until(&ledger, &mut status, |status| status.contributed >= 1).await;
    assert!(status.borrow().uid.is_some());
    stop.send_replace(true);
    assert_eq!(running.await.expect("it does not panic"), Ended::Stopped);
}

/// The contribution that stands in the slot of `hotkey` at the newest final block.
async fn committed(ledger: &MemoryLedger, hotkey: &HotkeyPair) -> Option<Contribution> {
    let finalised = ledger.heads().borrow().finalised;
    let view = ledger.view(finalised).await.ok()?;
    Record::from_bytes(&view.slots.get(&hotkey.hotkey())?.bytes).ok()?.contribution
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_a_contribution_between_its_commitment_and_its_reveal() {
    let ledger = MemoryLedger::new(Genesis { nonce: 2, netuid: NETUID, members: Vec::new(), finality_lag: 2 });
    let folders = [tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder")];
    let hotkey = HotkeyPair::from_seed([7; 32]);
    ledger.register(&hotkey).await.expect("the pool has room");
    let mut config = config(folders[0].path(), &ledger, HotkeyPair::from_seed([7; 32]));
    // A copier: it is connected to the miner and asks it for whatever stands on the chain.
    let run_id = config.run.id();
    let mut copier = covey_gossip::Config::new(folders[1].path(), ledger.genesis(), NETUID, run_id);
    copier.listen = vec!["/ip4/127.0.0.1/tcp/0".into()];
    let store = Store::open(folders[1].path().join("blobs"), 1 << 30).expect("a store");
    let (copier, _events) = covey_gossip::start(copier, store).await.expect("it listens");
    config.bootstrap = copier.addresses();
    let peer = Peer::start(config).await.expect("it starts");
    let (stop, stopped) = watch::channel(false);
    let mut status = peer.status();
    let running = tokio::spawn(peer.run(stopped));
    let ask = async |manifest, patience| {
        let hints: Vec<Hint> = copier.peers().iter().map(|peer| Hint::Peer(peer.peer)).collect();
        assert!(!hints.is_empty(), "they are connected");
        copier.fetch_unsized(manifest, 1 << 20, &hints, patience).await
    };
    let clock = run(&ledger).clock;
    let (mut refused, mut had) = (0, false);
    while !had {
        let best = ledger.produce().number;
        let idle = status.wait_for(|status| status.seen >= best && (status.idle || !status.live)).await;
        assert!(idle.expect("the node lives").seen < BlockNumber(STATE_KEPT), "it never came");
        if let Some(made) = committed(&ledger, &hotkey).await {
            had = ask(made.manifest, Duration::from_millis(100)).await.is_ok();
            let deadline = 8 + made.round.0 * clock.length + clock.commit;
            let finalised = ledger.heads().borrow().finalised;
            assert!(!had || finalised >= BlockNumber(deadline), "had at block {finalised}, before {deadline}");
            refused += u32::from(!had);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(refused > 0, "it was asked for before its reveal");
    stop.send_replace(true);
    assert_eq!(running.await.expect("it does not panic"), Ended::Stopped);
}
