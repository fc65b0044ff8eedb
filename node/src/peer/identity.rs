//! Who the node is on this chain: its uid, what it tells its peers of itself, and whether it is in the same run as others.

use super::agreement::{self, RunPrefix};
use super::context::Context;
use covey_proto::chain::{ChainView, Member};
use covey_proto::message::{PEER_ADDRESSES_MAX, PeerRecord};
use covey_proto::{BlockNumber, Uid};
use covey_round::rating::PeerKey;
use std::time::SystemTime;

/// Blocks for which a peer record counts: a day of 12 s blocks.
const RECORD_BLOCKS: u32 = 7200;

/// What the node knows of itself from the chain.
#[derive(Debug, Default)]
pub struct Identity {
    uid: Option<Uid>,
    /// Whether it has been said that the hotkey is not registered.
    is_stranger: bool,
    /// The run of which it has been said that more members are in it than in this one.
    outnumbered_by: Option<RunPrefix>,
    /// As whom the node has introduced itself to its peers, and when.
    introduced: Option<(PeerKey, BlockNumber)>,
}

impl Identity {
    /// The node's uid, once registered.
    pub fn uid(&self) -> Option<Uid> {
        self.uid
    }

    /// Takes in the chain's state at a final block.
    pub fn on_view<L>(&mut self, context: &Context<L>, view: &ChainView) {
        let member = context.hotkey().and_then(|hotkey| view.member(&hotkey).copied());
        self.uid = member.map(|member| member.uid);
        self.say_whether_registered(context, member.as_ref());
        if let Some(member) = member
            && self.is_introduction_due(&member, view.block)
        {
            self.introduced = Some((PeerKey::from(&member), view.block));
            introduce(context, &member, view.block);
        }
        self.compare_runs(context, view);
    }

    /// Says each change once.
    fn say_whether_registered<L>(&mut self, context: &Context<L>, member: Option<&Member>) {
        let (node, netuid) = (&context.name, context.run.chain.netuid);
        let Some(hotkey) = context.hotkey().filter(|_| self.is_stranger == member.is_some()) else { return };
        self.is_stranger = member.is_none();
        match member {
            Some(member) => tracing::info!(%node, uid = %member.uid, "registered: taking part from the next round on"),
            None => tracing::error!(
                %node,
                "hotkey {hotkey} is not registered on subnet {netuid}: run `covey register`; following meanwhile"
            ),
        }
    }

    /// Whether peers know the node as another member, or what they know will soon expire.
    fn is_introduction_due(&self, member: &Member, now: BlockNumber) -> bool {
        self.introduced
            .is_none_or(|(known, at)| known != PeerKey::from(member) || now.0.saturating_sub(at.0) > RECORD_BLOCKS / 2)
    }

    /// Says once of each run that most members are in it and this node is not.
    fn compare_runs<L>(&mut self, context: &Context<L>, view: &ChainView) {
        if let Some(found) = agreement::outnumbered(view, &context.run, context.run_id)
            && self.outnumbered_by != Some(found.other)
        {
            self.outnumbered_by = Some(found.other);
            tracing::error!(node = %context.name, "{found}");
        }
    }
}

/// Tells the network who this node is: its peer id speaks for the member's hotkey.
fn introduce<L>(context: &Context<L>, member: &Member, now: BlockNumber) {
    let Some(pair) = &context.pair else { return };
    let record = PeerRecord {
        genesis: context.run.chain.genesis,
        netuid: context.run.chain.netuid,
        uid: member.uid,
        hotkey: member.hotkey,
        registered_at: member.registered_at,
        peer: context.network.peer_id().to_bytes(),
        addresses: context.network.addresses().into_iter().take(PEER_ADDRESSES_MAX).collect(),
        sequence: milliseconds_now(),
        expiry: BlockNumber(now.0.saturating_add(RECORD_BLOCKS)),
    };
    context.network.set_record(record.sign(pair));
}

/// The highest sequence wins, also after a restart with other ports: any clock that rises will do.
fn milliseconds_now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use covey_proto::Hotkey;

    fn member(uid: u8, registered_at: u32) -> Member {
        let registered_at = BlockNumber(registered_at);
        Member { uid: Uid::from(uid), hotkey: Hotkey::new([1; 32]), registered_at, permit: false, stake: 0 }
    }

    #[test]
    fn a_node_introduces_itself_when_its_peers_know_it_as_nobody_as_another_or_soon_no_more() {
        let (old, now) = (BlockNumber(100), BlockNumber(100 + RECORD_BLOCKS / 2));
        let mut identity = Identity::default();
        assert!(identity.is_introduction_due(&member(3, 7), old));
        identity.introduced = Some((PeerKey::from(&member(3, 7)), old));
        assert!(!identity.is_introduction_due(&member(3, 7), now));
        assert!(identity.is_introduction_due(&member(3, 7), BlockNumber(now.0 + 1)));
        assert!(identity.is_introduction_due(&member(3, 8), now), "registered anew");
        assert!(identity.is_introduction_due(&member(4, 7), now));
    }
}
