//! What all parts of one node share, and never change.

use super::submitting::SubmitHandle;
use crate::compute::Compute;
use crate::disk::{Disk, JournalFile};
use crate::misbehave::Misbehaviour;
use covey_gossip::Handle;
use covey_proto::chain::Member;
use covey_proto::layout::Layout;
use covey_proto::message::{PEER_ADDRESSES_MAX, PeerRecord};
use covey_proto::run::Run;
use covey_proto::{BlockNumber, Hotkey, HotkeyPair, RunId};
use covey_round::engine::Roles;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

/// Blocks for which a peer record counts: a day of 12 s blocks.
pub(super) const RECORD_BLOCKS: u32 = 7200;

/// What all parts of one node share, and never change.
pub struct Context<L> {
    /// The node's name, for people.
    pub name: Arc<str>,
    /// The run.
    pub run: Arc<Run>,
    /// Its name.
    pub run_id: RunId,
    /// How its parameters lie.
    pub layout: Arc<Layout>,
    /// The chain.
    pub ledger: Arc<L>,
    /// The network.
    pub network: Handle,
    /// The folder.
    pub disk: Disk,
    /// What was committed last.
    pub journal: Arc<JournalFile>,
    /// The hotkey; a node that only follows signs nothing.
    pub pair: Option<Arc<HotkeyPair>>,
    /// Brings what it signs into blocks.
    pub submit: SubmitHandle,
    /// What the node does besides following.
    pub roles: Roles,
    /// Where heavy work goes.
    pub compute: Compute,
    /// How long what others have is waited for before the node calls itself idle.
    pub patience: Duration,
    /// Whether every round is kept for ever, or as many as the protocol asks.
    pub archive: bool,
    /// What it does wrong, if anything.
    pub misbehaviour: Option<Misbehaviour>,
    /// Held while a round is scored: whoever waits longest is next.
    pub scoring: tokio::sync::Mutex<()>,
    /// The miner is to forget its optimizer and error feedback before it trains again: the node joined by state.
    pub forget: AtomicBool,
}

impl<L> Context<L> {
    /// Tells the network who this node is: its peer id speaks for the member's hotkey.
    pub fn introduce(&self, member: &Member, now: BlockNumber) {
        let Some(pair) = &self.pair else { return };
        let record = PeerRecord {
            genesis: self.run.chain.genesis,
            netuid: self.run.chain.netuid,
            uid: member.uid,
            hotkey: member.hotkey,
            registered_at: member.registered_at,
            peer: self.network.peer_id().to_bytes(),
            addresses: self.network.addresses().into_iter().take(PEER_ADDRESSES_MAX).collect(),
            sequence: milliseconds_now(),
            expiry: BlockNumber(now.0.saturating_add(RECORD_BLOCKS)),
        };
        self.network.set_record(record.sign(pair));
    }

    /// The public half of the hotkey; none of a node that only follows.
    pub fn hotkey(&self) -> Option<Hotkey> {
        let pair = self.pair.as_ref().filter(|_| self.roles != Roles::default());
        pair.map(|pair| pair.hotkey())
    }
}

/// The highest sequence wins, also after a restart with other ports: any clock that rises will do.
fn milliseconds_now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
