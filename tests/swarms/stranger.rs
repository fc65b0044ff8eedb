//! A node whose hotkey nobody has registered, on a chain in memory: it looks on, says so, and takes part once it can.

use crate::rig::dataset;
use covey::chain::memory::{Genesis, MemoryLedger};
use covey::chain::{Ledger, STATE_KEPT};
use covey::compute::Compute;
use covey::peer::{Config, Ended, Peer, Status};
use covey::preset::Template;
use covey_gossip::{Limits, TransportOptions};
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
    chain.genesis_state = state_root(&initial_state(&draft.model), draft.compress.state_elements as usize);
    template.resolve(&chain, &data).expect("a run")
}

fn config(folder: &Path, ledger: &MemoryLedger, hotkey: HotkeyPair) -> Config<MemoryLedger> {
    Config {
        name: "stranger".into(),
        directory: folder.to_owned(),
        roles: Roles { miner: true, validator: false },
        run: Arc::new(run(ledger)),
        ledger: ledger.clone(),
        data: Some(dataset()),
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
