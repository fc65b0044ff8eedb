//! What a client is told: endpoints, subnet, bounds.

use covey_proto::Digest;
use std::time::Duration;

/// What a client of a chain is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the chain is asked: `ws://` or `wss://`, the preferred one first. At most [`ENDPOINTS_MAX`].
    pub endpoints: Vec<String>,
    /// The subnet.
    pub netuid: u16,
    /// The chain's genesis hash; a chain with another is refused. None takes the chain of the first endpoint.
    pub genesis: Option<Digest>,
    /// Whether each final block that is read is read from two endpoints, where there are two, and must be the same.
    pub cross_check: bool,
    /// How long things may take.
    pub bounds: Bounds,
}

/// Endpoints of a chain: more than anybody needs.
pub const ENDPOINTS_MAX: usize = 8;

/// How long things may take, and how long a call is good for.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// To connect.
    pub connect_timeout: Duration,
    /// For one answer; then the connection counts as broken.
    pub request_timeout: Duration,
    /// For one request over all endpoints and tries; then whoever asks is told that the chain does not answer.
    pub patience: Duration,
    /// Between two tries to connect at first; it doubles up to [`Bounds::backoff_max`].
    pub backoff: Duration,
    /// Between two tries to connect at most.
    pub backoff_max: Duration,
    /// Without a block for so long, an endpoint is asked whether it lives, and another is tried if there is one.
    pub silence: Duration,
    /// Blocks that a signed call may wait for its block, at least; a power of two from 8 to 1,024.
    pub mortality: u32,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(10),
            patience: Duration::from_secs(30),
            backoff: Duration::from_millis(250),
            backoff_max: Duration::from_secs(15),
            // Five slots of Bittensor.
            silence: Duration::from_secs(60),
            mortality: 64,
        }
    }
}

impl Settings {
    /// One subnet through these endpoints; the rest as it usually is.
    pub fn new(endpoints: Vec<String>, netuid: u16) -> Settings {
        Settings { endpoints, netuid, genesis: None, cross_check: true, bounds: Bounds::default() }
    }
}
