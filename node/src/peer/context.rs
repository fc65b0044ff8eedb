//! What all parts of one node share. Nothing of it changes but the journal and the queue for the chain, which have an
//! owner each.

use super::submitting::SubmitHandle;
use crate::compute::Compute;
use crate::disk::{Disk, JournalFile};
use crate::misbehave::Misbehaviour;
use covey_gossip::Handle;
use covey_proto::layout::Layout;
use covey_proto::run::Run;
use covey_proto::{Hotkey, HotkeyPair, RunId};
use covey_round::engine::Roles;
use std::sync::Arc;
use std::time::Duration;

/// What all parts of one node share.
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
    /// Where calls to the chain go.
    pub submit: SubmitHandle,
    /// The hotkey; a node that only follows signs nothing.
    pub pair: Option<Arc<HotkeyPair>>,
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
}

impl<L> Context<L> {
    /// The public half of the hotkey; none of a node that only follows.
    pub fn hotkey(&self) -> Option<Hotkey> {
        let pair = self.pair.as_ref().filter(|_| self.roles != Roles::default());
        pair.map(|pair| pair.hotkey())
    }
}
