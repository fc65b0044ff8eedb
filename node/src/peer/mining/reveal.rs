//! The reveal: what was committed is unveiled, and its announcement, made from the store, published until somebody hears it.

use crate::chain::Ledger;
use crate::compute::off_the_queue;
use crate::peer::context::Context;
use crate::peer::mining::miner::own_tag;
use covey_proto::blob::Manifest;
use covey_proto::message::Announcement;
use covey_proto::{Digest, Round, Uid};
use std::sync::Arc;
use std::time::Duration;

/// Between two tries of a reveal.
const RETRY: Duration = Duration::from_millis(500);
/// Tries without anybody to hear it; whoever misses it asks for it.
const TRIES_MAX: u32 = 10;

/// Reveals the journalled contribution, if there is one of this round.
pub(in crate::peer) async fn announce<L: Ledger>(context: Arc<Context<L>>, round: Round) {
    let Some(made) = context.journal.read().contribution.filter(|made| made.round == round) else { return };
    let owned = context.clone();
    let reveal = move || {
        let announcement = own_announcement(&owned, made.manifest);
        // Whoever hears of it asks for it at once.
        (announcement, owned.network.store().unveil(&own_tag(round)))
    };
    let (uid, bytes) = match off_the_queue(reveal).await {
        (Some(announcement), Ok(())) => announcement,
        (None, _) => {
            tracing::error!(node = %context.name, %round, "my contribution is not in my store: nothing is revealed");
            return;
        }
        (_, Err(error)) => {
            tracing::error!(node = %context.name, %round, %error, "my contribution stays veiled: nothing is revealed");
            return;
        }
    };
    context.network.remember(round, uid, bytes.clone());
    for _ in 0..TRIES_MAX {
        match context.network.publish(bytes.clone()).await {
            Ok(_) => return,
            Err(error) => {
                tracing::warn!(node = %context.name, %round, %error, "revealing again");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

fn own_announcement<L>(context: &Context<L>, digest: Digest) -> Option<(Uid, Vec<u8>)> {
    let store = context.network.store();
    let get = |name| store.get(&name).ok().flatten();
    let manifest = Manifest::from_bytes(&get(digest)?).ok()?;
    let limit = u64::from(context.run.compress.inline_max);
    let small = manifest.shards.iter().filter(|shard| shard.size <= limit);
    let inline = small.map(|shard| get(shard.root)).collect::<Option<Vec<_>>>()?;
    Some((manifest.uid, Announcement { manifest, inline }.to_bytes()))
}
