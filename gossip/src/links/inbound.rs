//! Serves the streams that peers open: each by what it is for.

use super::env::Env;
use super::handler::InboundStream;
use super::protocol::Protocol;
use super::{server, teller};
use crate::peers::PeerKey;
use std::sync::Arc;

/// Serves a stream that a peer opened, until it ends.
pub(crate) async fn serve(env: Arc<Env>, peer: PeerKey, opened: InboundStream) {
    let InboundStream { protocol, stream, place } = opened;
    match protocol {
        Protocol::Holdings => teller::run(env, peer, stream, place).await,
        Protocol::Pieces => server::run(env, peer, stream, place).await,
    }
}
