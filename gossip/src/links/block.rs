//! What has come on a stream and was not used yet: one run of bytes, so that frames and groups are read where they lie.

use super::end::End;
use covey_exchange::frames::{Frame, Split, split};
use futures::{AsyncRead, AsyncReadExt};

/// Bytes at rest: for control frames.
const REST_BYTES: usize = 4 * 1024;
/// Bytes while pieces come: four groups, so that what a group leaves over is seldom moved.
pub(super) const BUSY_BYTES: usize = 256 * 1024;

pub(super) struct Block {
    bytes: Vec<u8>,
    from: usize,
    to: usize,
}

impl Block {
    pub(super) fn new() -> Block {
        Block { bytes: vec![0; REST_BYTES], from: 0, to: 0 }
    }

    pub(super) fn filled(&self) -> &[u8] {
        &self.bytes[self.from..self.to]
    }

    /// Lets go of the first bytes.
    pub(super) fn consume(&mut self, bytes: usize) {
        self.from = (self.from + bytes).min(self.to);
        if self.from == self.to {
            (self.from, self.to) = (0, 0);
        }
    }

    /// Makes room for `bytes` in one run, of which some may be there.
    pub(super) fn reserve(&mut self, bytes: usize) {
        if self.from + bytes > self.bytes.len() {
            self.bytes.copy_within(self.from..self.to, 0);
            (self.from, self.to) = (0, self.to - self.from);
        }
        if bytes > self.bytes.len() {
            self.bytes.resize(bytes.next_power_of_two(), 0);
        }
    }

    /// Gives memory back if nothing is in it.
    pub(super) fn rest(&mut self) {
        if self.from == self.to && self.bytes.len() > REST_BYTES {
            *self = Block::new();
        }
    }

    /// Reads what has come, at least a byte. Cancel safe.
    pub(super) async fn fill<T: AsyncRead + Unpin>(&mut self, stream: &mut T) -> Result<usize, End> {
        if self.to == self.bytes.len() {
            self.reserve(self.to - self.from + 1);
        }
        match stream.read(&mut self.bytes[self.to..]).await? {
            0 => Err(End::Closed),
            read => {
                self.to += read;
                Ok(read)
            }
        }
    }

    /// Takes a frame, if one is there.
    pub(super) fn frame<F: Frame>(&mut self) -> Result<Option<F>, End> {
        match split::<F>(self.filled())? {
            Split::Frame(frame, used) => {
                self.consume(used);
                Ok(Some(frame))
            }
            Split::Need(bytes) => {
                self.reserve(bytes);
                Ok(None)
            }
        }
    }

    /// Reads until a frame is there. Cancel safe.
    pub(super) async fn next<F: Frame, T: AsyncRead + Unpin>(&mut self, stream: &mut T) -> Result<F, End> {
        loop {
            if let Some(frame) = self.frame()? {
                return Ok(frame);
            }
            self.fill(stream).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use covey_exchange::frames::Order;
    use futures::executor::block_on;
    use futures::io::Cursor;

    #[test]
    fn frames_come_whole_however_they_lie() {
        let mut bytes = Vec::new();
        (0..3000).for_each(|id| Order::Cancel(id).encode(&mut bytes));
        let (mut stream, mut block) = (Cursor::new(bytes), Block::new());
        for id in 0..3000 {
            let frame: Order = block_on(block.next(&mut stream)).unwrap();
            assert_eq!(frame, Order::Cancel(id));
        }
        assert!(matches!(block_on(block.next::<Order, _>(&mut stream)), Err(End::Closed)));
        assert!(block.filled().is_empty());
    }

    #[test]
    fn what_is_left_over_moves_to_the_front_and_memory_is_given_back() {
        let mut block = Block::new();
        block.reserve(BUSY_BYTES);
        let mut stream = Cursor::new((0..=255).cycle().take(BUSY_BYTES + 100).collect::<Vec<u8>>());
        block_on(block.fill(&mut stream)).unwrap();
        block.consume(BUSY_BYTES - 3);
        let left = block.filled().to_vec();
        block.reserve(1000);
        assert_eq!(block.filled(), left);
        block_on(block.fill(&mut stream)).unwrap();
        assert_eq!(block.filled().len(), 103);
        block.consume(103);
        block.rest();
        assert_eq!(block.bytes.len(), REST_BYTES);
    }
}
