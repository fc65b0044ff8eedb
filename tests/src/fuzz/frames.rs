//! The frames of the exchange's two protocols, as any of the four sides reads them.

use super::take;
use covey_exchange::Class;
use covey_exchange::frames::{Answer, Asked, CONTROL_BYTES_MAX, Frame, Holding, Order, Reject, Split, Wish, split};
use covey_proto::Digest;
use covey_proto::blob::BlobRef;
use std::fmt::Debug;

/// The first byte says which side reads, the rest is what came.
pub(super) fn frames(mut data: &[u8]) -> bool {
    let [side] = take(&mut data);
    match side % 4 {
        0 => stream::<Wish>(data),
        1 => stream::<Holding>(data),
        2 => stream::<Order>(data),
        _ => stream::<Answer>(data),
    }
}

/// Reads frames to the end, or to the first that is none; whether they were all frames.
fn stream<F: Frame + Debug + PartialEq>(mut data: &[u8]) -> bool {
    loop {
        match split::<F>(data) {
            Ok(Split::Frame(frame, taken)) => {
                let mut again = Vec::new();
                frame.encode(&mut again);
                assert_eq!(again, data[..taken], "{frame:?}");
                data = &data[taken..];
            }
            Ok(Split::Need(bytes)) => {
                assert!(bytes > data.len() && bytes <= CONTROL_BYTES_MAX, "{bytes} needed, {} there", data.len());
                return data.is_empty();
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                return false;
            }
        }
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let root = Digest::of(b"a blob");
    let blob = BlobRef { root, size: 40 << 20 };
    let have = Holding::Have { root, runs: vec![0..3, 5..6, 39..40] };
    let request = Asked::new(7, blob, 16, 16).ok().map(Order::Request);
    vec![
        side(0, &[Wish::Want(blob), Wish::Unwant(root)]),
        side(1, &[Holding::Bitfield { root, set: vec![0xa5; 5] }, have]),
        side(
            2,
            &[Some(Order::Hello(Class::State)), request, Some(Order::Cancel(7))]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>(),
        ),
        side(3, &[Answer::Reject { id: 7, why: Reject::NotNow }, Answer::Piece { id: 8, bytes: 65_536 }]),
    ]
}

fn side<F: Frame>(side: u8, frames: &[F]) -> Vec<u8> {
    let mut bytes = vec![side];
    frames.iter().for_each(|frame| frame.encode(&mut bytes));
    bytes
}
