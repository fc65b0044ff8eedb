//! What comes on a stream of `/covey/1/get`, as either side reads it.

use super::proto::{requests, responses};
use covey_gossip::taken_and_written_again;

/// What is taken begins the stream, byte by byte: no second form of it is accepted.
pub(super) fn get_stream(data: &[u8]) -> bool {
    let taken = taken_and_written_again(data);
    for message in taken.iter().flatten() {
        assert_eq!(Some(message.as_slice()), data.get(..message.len()));
    }
    taken.iter().any(Option::is_some)
}

pub(super) fn get_streams() -> Vec<Vec<u8>> {
    let framed = |message: Vec<u8>| [(message.len() as u32).to_le_bytes().to_vec(), message].concat();
    requests().into_iter().chain(responses()).map(framed).collect()
}
