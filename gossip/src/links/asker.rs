//! Asks one peer what it holds of the blobs that are wanted, and passes on what it says, as long as it is connected.
//!
//! A stream that breaks is opened again, later each time, and what is wanted then is asked anew.

use super::block::Block;
use super::end::End;
use super::env::{Env, Pacer, flush, write};
use super::protocol::Protocol;
use super::report::Reports;
use crate::peers::PeerKey;
use covey_exchange::frames::{Frame, Holding, Wish};
use covey_exchange::governor::ByteRate;
use covey_exchange::scheduler::Event;
use covey_proto::Digest;
use covey_proto::blob::BlobRef;
use covey_proto::pieces::{PieceSet, Pieces};
use libp2p::swarm::Stream;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Bytes of a frame of holdings but its set or runs.
const FRAME_BYTES: usize = 37;
/// Wishes that wait for a link: those of every blob that may be wanted of a peer, and as many that are over.
const WISHES_MAX: usize = 1024;
/// Bytes of holdings that a peer may send, a second and at once: sets of 256 blobs of many GiB, and a hundred thousand runs
/// of news a second, which no honest peer has. What comes faster waits in its stream.
const HEARD: ByteRate = ByteRate { per_second: 1 << 20, burst: 4 << 20 };
/// Blobs whose last size is remembered: all that may be wanted of a peer, several times over.
const SIZES_MAX: usize = 4096;
/// First wait before a stream that broke is opened again; doubles up to [`AGAIN_MAX`].
const AGAIN_MIN: Duration = Duration::from_millis(250);
const AGAIN_MAX: Duration = Duration::from_secs(30);

/// The network's end of a link. The link's task ends when it goes.
pub(crate) struct Asker(mpsc::Sender<Wish>);

impl Asker {
    /// A link to `peer`, and the task that runs it. The stream is opened at the first wish.
    pub(crate) fn new(env: Arc<Env>, peer: PeerKey) -> (Asker, impl Future<Output = ()> + Send) {
        let (sender, wishes) = mpsc::channel(WISHES_MAX);
        let task = Task { env, peer, wishes, wanted: Wanted::default(), reports: Reports::new() };
        (Asker(sender), task.run())
    }

    /// Whether there was room for the wish.
    pub(crate) fn send(&self, wish: Wish) -> bool {
        self.0.try_send(wish).is_ok()
    }
}

struct Task {
    env: Arc<Env>,
    peer: PeerKey,
    wishes: mpsc::Receiver<Wish>,
    wanted: Wanted,
    reports: Reports,
}

/// What is wanted of the peer.
#[derive(Default)]
struct Wanted {
    /// No more than the scheduler wants of one peer.
    blobs: BTreeMap<Digest, BlobRef>,
    /// The sizes under which blobs were wanted last; at most [`SIZES_MAX`].
    sizes: BTreeMap<Digest, u64>,
    /// Those of `sizes` that were wanted under another size before: a word of that one may cross this one.
    resized: BTreeSet<Digest>,
}

impl Wanted {
    fn note(&mut self, wish: &Wish) {
        match wish {
            Wish::Want(blob) => {
                self.blobs.insert(blob.root, *blob);
                if self.sizes.len() >= SIZES_MAX && !self.sizes.contains_key(&blob.root) {
                    self.sizes.retain(|root, _| self.blobs.contains_key(root));
                    self.resized.retain(|root| self.blobs.contains_key(root));
                }
                if self.sizes.insert(blob.root, blob.size).is_some_and(|size| size != blob.size) {
                    self.resized.insert(blob.root);
                }
            }
            Wish::Unwant(root) => drop(self.blobs.remove(root)),
        }
    }
}

impl Task {
    async fn run(mut self) {
        let mut again = AGAIN_MIN;
        loop {
            if self.wanted.blobs.is_empty() {
                match self.wishes.recv().await {
                    Some(wish) => self.wanted.note(&wish),
                    None => return,
                }
                continue;
            }
            let start = Instant::now();
            let end = match self.env.open(self.peer, Protocol::Holdings).await {
                Some(stream) => self.talk(stream).await,
                None => End::Closed,
            };
            if matches!(end, End::Released) {
                return;
            }
            tracing::debug!(peer = %self.peer, %end, "a link for holdings has ended");
            self.reports.end(self.peer, end);
            self.reports.send(&self.env).await;
            again = if start.elapsed() > AGAIN_MAX { AGAIN_MIN } else { (again * 2).min(AGAIN_MAX) };
            if !self.pause(again).await {
                return;
            }
        }
    }

    /// Waits, hearing wishes. False once nobody has any.
    async fn pause(&mut self, time: Duration) -> bool {
        let end = tokio::time::Instant::now() + time;
        loop {
            tokio::select! {
                wish = self.wishes.recv() => match wish {
                    Some(wish) => self.wanted.note(&wish),
                    None => return false,
                },
                () = tokio::time::sleep_until(end) => return true,
            }
        }
    }

    async fn talk(&mut self, mut stream: Stream) -> End {
        let mut block = Block::new();
        let mut heard = Pacer::new(HEARD);
        let mut out = Vec::new();
        self.wanted.blobs.values().for_each(|blob| Wish::Want(*blob).encode(&mut out));
        loop {
            if let Err(end) = self.step(&mut stream, &mut block, &mut heard, &mut out).await {
                return end;
            }
        }
    }

    async fn step(
        &mut self,
        stream: &mut Stream,
        block: &mut Block,
        heard: &mut Pacer,
        out: &mut Vec<u8>,
    ) -> Result<(), End> {
        if !out.is_empty() {
            write(stream, out, &self.env.limits).await?;
            flush(stream, &self.env.limits).await?;
            out.clear();
        }
        tokio::select! {
            wish = self.wishes.recv() => {
                let mut next = Some(wish.ok_or(End::Released)?);
                while let Some(wish) = next {
                    self.wanted.note(&wish);
                    wish.encode(out);
                    next = self.wishes.try_recv().ok();
                }
            }
            holding = block.next::<Holding, _>(stream) => {
                let mut bytes = self.hear(holding?)?;
                while let Some(holding) = block.frame::<Holding>()? {
                    bytes += self.hear(holding)?;
                }
                block.rest();
                self.reports.send(&self.env).await;
                heard.pay(bytes).await;
            }
        }
        Ok(())
    }

    /// Passes on what the peer holds; returns its bytes.
    fn hear(&mut self, holding: Holding) -> Result<u64, End> {
        let bytes = match &holding {
            Holding::Bitfield { set, .. } => set.len(),
            Holding::Have { runs, .. } => 8 * runs.len(),
        };
        if let Some(event) = news(self.peer, &self.wanted, holding)? {
            self.reports.event(event);
        }
        Ok((FRAME_BYTES + bytes) as u64)
    }
}

/// What a peer's word says of a blob that is wanted. Nothing of one that is not wanted any more, or may have been said of it
/// under another size: the two words crossed.
fn news(peer: PeerKey, wanted: &Wanted, holding: Holding) -> Result<Option<Event<PeerKey>>, End> {
    let (Holding::Bitfield { root, .. } | Holding::Have { root, .. }) = &holding;
    let root = *root;
    let Some(pieces) = wanted.blobs.get(&root).and_then(Pieces::of_blob) else { return Ok(None) };
    let count = pieces.count();
    let may_cross = wanted.resized.contains(&root);
    Ok(Some(match holding {
        Holding::Bitfield { set, .. } => {
            let Some(set) = PieceSet::from_bytes(&set, count) else {
                let breach = || End::Breach(format!("a BITFIELD that is no set of {count} pieces"));
                return if may_cross { Ok(None) } else { Err(breach()) };
            };
            Event::Holds { peer, root, set }
        }
        Holding::Have { runs, .. } => {
            if let Some(beyond) = runs.iter().find(|run| run.end > count) {
                let breach = || End::Breach(format!("HAVE of pieces {beyond:?} of {count}"));
                return if may_cross { Ok(None) } else { Err(breach()) };
            }
            Event::Have { peer, root, runs }
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::test_peer;
    use covey_proto::pieces::PIECE_BYTES;

    /// A blob of ten pieces is wanted, and another is not any more.
    fn heard(holding: impl Fn(Digest) -> Holding) -> (Result<Option<Event<PeerKey>>, End>, bool) {
        let blob = |name: &[u8]| BlobRef { root: Digest::of(name), size: 10 * PIECE_BYTES };
        let (is, was) = (blob(b"is"), blob(b"was"));
        let mut wanted = Wanted::default();
        [Wish::Want(was), Wish::Want(is), Wish::Unwant(was.root)].iter().for_each(|wish| wanted.note(wish));
        let crossed = matches!(news(test_peer(1), &wanted, holding(was.root)), Ok(None));
        (news(test_peer(1), &wanted, holding(is.root)), crossed)
    }

    #[test]
    fn a_word_of_what_is_wanted_is_passed_on_and_one_that_crossed_is_not() {
        let (set, crossed) = heard(|root| Holding::Bitfield { root, set: vec![0b11, 0] });
        assert!(matches!(set, Ok(Some(Event::Holds { set, .. })) if set.iter().eq([0, 1])) && crossed);
        let (run, crossed) = heard(|root| Holding::Have { root, runs: vec![2..4, 9..10] });
        assert!(matches!(run, Ok(Some(Event::Have { runs, .. })) if runs == [2..4, 9..10]) && crossed);
    }

    #[test]
    fn a_word_of_a_blob_s_former_size_is_no_breach_of_its_present_one() {
        let blob = BlobRef { root: Digest::of(b"blob"), size: 10 * PIECE_BYTES };
        let mut wanted = Wanted::default();
        let other = BlobRef { size: 2 * PIECE_BYTES, ..blob };
        [Wish::Want(blob), Wish::Unwant(blob.root), Wish::Want(other)].iter().for_each(|wish| wanted.note(wish));
        for holding in [
            Holding::Bitfield { root: blob.root, set: vec![0b11, 0] },
            Holding::Have { root: blob.root, runs: vec![0..1, 9..10] },
        ] {
            assert!(matches!(news(test_peer(1), &wanted, holding), Ok(None)));
        }
    }

    #[test]
    fn pieces_that_a_blob_does_not_have_are_a_breach_unless_it_is_not_wanted() {
        for set in [vec![0b11], vec![0, 0b100], vec![0; 3]] {
            let (set, crossed) = heard(|root| Holding::Bitfield { root, set: set.clone() });
            assert!(matches!(set, Err(End::Breach(_))) && crossed);
        }
        let (run, crossed) = heard(|root| Holding::Have { root, runs: vec![0..1, 9..11] });
        let Err(End::Breach(why)) = run else { panic!("{run:?}") };
        assert_eq!((why.as_str(), crossed), ("HAVE of pieces 9..11 of 10", true));
    }
}
