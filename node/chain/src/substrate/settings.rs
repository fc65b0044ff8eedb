//! What a client is told: endpoints, subnet, bounds.

use covey_proto::Digest;
use std::sync::Arc;
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
    /// Whether each final block that is read is read from two endpoints, where two are named, and must be the same.
    pub second_opinion: SecondOpinion,
    /// How long things may take.
    pub bounds: Bounds,
}

/// What becomes of a final block that the endpoint in use tells of and no other confirms, where several are named. One
/// that another endpoint contradicts is never used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SecondOpinion {
    /// It is not used until another endpoint says the same.
    #[default]
    Required,
    /// It is used where no other endpoint can be reached or has come as far; a warning says so.
    Preferred,
    /// No other endpoint is asked.
    Off,
}

/// Endpoints of a chain: more than anybody needs.
pub const ENDPOINTS_MAX: usize = 8;

/// An endpoint's URL. It is shown as scheme, host and port: the rest may hold names, passwords and paid keys.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Endpoint(Arc<str>);

impl Endpoint {
    pub(super) fn new(url: &str) -> Endpoint {
        Endpoint(Arc::from(url))
    }

    /// With all that is in it: to connect.
    pub(super) fn whole(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (scheme, rest) = self.0.split_once("://").map_or((None, &*self.0), |(scheme, rest)| (Some(scheme), rest));
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = authority.rsplit('@').next().unwrap_or_default();
        match scheme {
            Some(scheme) => write!(f, "{scheme}://{host}"),
            None => f.write_str(host),
        }
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{self}\"")
    }
}

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
        Settings {
            endpoints,
            netuid,
            genesis: None,
            second_opinion: SecondOpinion::default(),
            bounds: Bounds::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_shown_without_its_secrets() {
        for (url, shown) in [
            ("ws://127.0.0.1:9944", "ws://127.0.0.1:9944"),
            ("wss://me:secret@chain.example:443/rpc/secret?apikey=secret", "wss://chain.example:443"),
            ("wss://chain.example?apikey=secret@host", "wss://chain.example"),
            ("chain.example?apikey=secret", "chain.example"),
        ] {
            let endpoint = Endpoint::new(url);
            assert_eq!((endpoint.to_string(), endpoint.whole()), (shown.to_owned(), url));
            assert_eq!(format!("{endpoint:?}"), format!("{shown:?}"));
        }
    }
}
