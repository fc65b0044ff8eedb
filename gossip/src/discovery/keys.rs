//! Under which keys of Kademlia peers are found. `docs/protocol.md` lists the contexts.

use covey_proto::{Digest, RunId, derive};

/// The key under which those who take part in a run are found.
pub(crate) fn run_key(run: RunId) -> Digest {
    key("covey/1/run-peers", &run.0)
}

/// The key under which those who hold a state are found.
pub(crate) fn state_key(root: &Digest) -> Digest {
    key("covey/1/state-peers", root)
}

fn key(context: &str, of: &Digest) -> Digest {
    let mut bytes = [0; 32];
    derive(context, &[of.as_bytes()]).fill(&mut bytes);
    Digest::new(bytes)
}
