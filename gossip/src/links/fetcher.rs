//! Asks one peer for pieces of one class, and gives what comes to the store as it comes.
//!
//! Bytes lie in one buffer from the socket to the store, and are hashed and written from there, a group at a time, in the
//! task itself: 64 KiB take some 15 µs to hash and as long to copy to the page cache, less than handing them to another
//! thread and being told of it costs. Where a disk is so far behind that writing waits for it, the task leaves its thread to
//! others while it writes, if the runtime has several.

use super::block::{BUSY_BYTES, Block};
use super::end::End;
use super::env::{Env, Report, flush, write};
use super::protocol::Protocol;
use super::report::Reports;
use crate::peers::PeerKey;
use crate::store::{Fed, Partial, Receive, ReceiveError, StoreError};
use covey_exchange::Class;
use covey_exchange::frames::{self, Answer, Asked, Frame};
use covey_exchange::scheduler::{Event, Rejected, RequestId};
use libp2p::swarm::Stream;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::mpsc;

/// Orders that wait for a link: twice the requests that may be open, and as many cancels.
const ORDERS_MAX: usize = 256;
/// Requests that a peer has not answered, cancelled ones among them, before the stream is given up.
const OPEN_MAX: usize = 1024;
/// Orders written at once.
const ORDERS_AT_ONCE: usize = 64;
/// A buffer's worth of groups that took longer than this waited for a disk: 256 KiB take 0.2 ms otherwise.
const SLOW: Duration = Duration::from_millis(5);
/// So many buffers are then written beside the runtime.
const SLOW_BLOCKS: u32 = 64;

/// What the network's task wants of a link.
pub(crate) enum FetchOrder {
    /// Ask for these groups, for this blob of the store's.
    Request { request: RequestId, groups: Range<u64>, partial: Partial },
    /// Take it back.
    Cancel { request: RequestId },
}

/// The network's end of a link. The link's task ends when it goes.
pub(crate) struct Fetcher(mpsc::Sender<FetchOrder>);

impl Fetcher {
    /// A link of `class` to `peer`, and the task that runs it. The stream is opened at the first request, and again after
    /// it broke.
    pub(crate) fn new(env: Arc<Env>, peer: PeerKey, class: Class) -> (Fetcher, impl Future<Output = ()> + Send) {
        let (sender, orders) = mpsc::channel(ORDERS_MAX);
        (Fetcher(sender), run(env, peer, class, orders))
    }

    /// Whether there was room for the order.
    pub(crate) fn send(&self, order: FetchOrder) -> bool {
        self.0.try_send(order).is_ok()
    }
}

async fn run(env: Arc<Env>, peer: PeerKey, class: Class, mut orders: mpsc::Receiver<FetchOrder>) {
    let mut reports = Reports::new();
    while let Some(order) = orders.recv().await {
        let FetchOrder::Request { request, .. } = &order else { continue };
        let request = *request;
        match env.open(peer, Protocol::Pieces).await {
            None => {
                reports.event(Event::Failed { request });
                while let Ok(order) = orders.try_recv() {
                    if let FetchOrder::Request { request, .. } = order {
                        reports.event(Event::Failed { request });
                    }
                }
            }
            Some(stream) => {
                let mut link = Link::new(env.clone(), class, stream, reports);
                let end = link.run(order, &mut orders).await;
                tracing::debug!(%peer, ?class, %end, "a link for pieces has ended");
                reports = link.into_reports(peer, end);
            }
        }
        reports.send(&env).await;
    }
}

struct OpenRequest {
    request: RequestId,
    asked: Asked,
    partial: Partial,
    cancelled: bool,
}

/// An answer that is being read.
struct Current {
    open: OpenRequest,
    left: usize,
    /// None once the store did not take it: the rest is passed over.
    receive: Option<Receive>,
    /// Whether any of it was missing here.
    fresh: bool,
}

struct Link {
    env: Arc<Env>,
    class: Class,
    stream: Stream,
    block: Block,
    /// By the number on the wire.
    open: HashMap<u32, OpenRequest>,
    current: Option<Current>,
    reports: Reports,
    out: Vec<u8>,
    slow: u32,
}

/// The number of a request on the wire: no two that are open differ by 2³².
fn number(request: RequestId) -> u32 {
    request.0 as u32
}

impl Link {
    fn new(env: Arc<Env>, class: Class, stream: Stream, reports: Reports) -> Link {
        let (open, block, out) = (HashMap::new(), Block::new(), Vec::new());
        Link { env, class, stream, block, open, current: None, reports, out, slow: 0 }
    }

    async fn run(&mut self, first: FetchOrder, orders: &mut mpsc::Receiver<FetchOrder>) -> End {
        frames::Order::Hello(self.class).encode(&mut self.out);
        let mut first = Some(first);
        loop {
            let step = match first.take() {
                Some(order) => self.order(order, orders).await,
                None => self.step(orders).await,
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    async fn step(&mut self, orders: &mut mpsc::Receiver<FetchOrder>) -> Result<(), End> {
        // What is told late is told before anything is waited for.
        let due = self.reports.due();
        tokio::select! {
            biased;
            order = orders.recv() => self.order(order.ok_or(End::Released)?, orders).await,
            read = self.block.fill(&mut self.stream) => {
                let read = read?;
                self.env.paid(read).await;
                self.digest()?;
                if self.reports.is_urgent() || self.reports.due().is_some_and(|due| due <= Instant::now()) {
                    self.reports.send(&self.env).await;
                }
                Ok(())
            }
            () = until(due) => {
                self.reports.send(&self.env).await;
                Ok(())
            }
        }
    }

    /// Writes an order, and those that wait behind it.
    async fn order(&mut self, order: FetchOrder, orders: &mut mpsc::Receiver<FetchOrder>) -> Result<(), End> {
        self.put(order);
        for _ in 1..ORDERS_AT_ONCE {
            match orders.try_recv() {
                Ok(order) => self.put(order),
                Err(_) => break,
            }
        }
        if self.open.len() > OPEN_MAX {
            return Err(End::Nuisance("it answers neither requests nor cancels"));
        }
        let out = std::mem::take(&mut self.out);
        write(&mut self.stream, &out, &self.env.limits).await?;
        flush(&mut self.stream, &self.env.limits).await?;
        self.out = out;
        self.out.clear();
        Ok(())
    }

    fn put(&mut self, order: FetchOrder) {
        match order {
            FetchOrder::Request { request, groups, partial } => {
                let count = (groups.end - groups.start) as u16;
                let Ok(asked) = Asked::new(number(request), partial.blob(), groups.start, count) else {
                    return self.reports.event(Event::Failed { request });
                };
                self.env.shared.traffic.piece_requests_out.add(1);
                self.env.shared.traffic.piece_requests_open.add(1);
                frames::Order::Request(asked.clone()).encode(&mut self.out);
                self.open.insert(asked.id, OpenRequest { request, asked, partial, cancelled: false });
            }
            FetchOrder::Cancel { request } => {
                // What is on its way goes on: its groups count.
                if let Some(open) = self.open.get_mut(&number(request)) {
                    open.cancelled = true;
                    frames::Order::Cancel(number(request)).encode(&mut self.out);
                }
            }
        }
    }

    /// Uses what has come, as far as it goes.
    fn digest(&mut self) -> Result<(), End> {
        let aside = self.slow > 0 && Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread;
        let start = Instant::now();
        let done = if aside { tokio::task::block_in_place(|| self.items()) } else { self.items() };
        self.slow = if start.elapsed() > SLOW { SLOW_BLOCKS } else { self.slow.saturating_sub(1) };
        done
    }

    fn items(&mut self) -> Result<(), End> {
        loop {
            let more = match self.current.take() {
                Some(current) => self.body(current)?,
                None => self.head()?,
            };
            if !more {
                if self.open.is_empty() && self.current.is_none() {
                    self.block.rest();
                }
                return Ok(());
            }
        }
    }

    /// Reads a frame; whether there may be more.
    fn head(&mut self) -> Result<bool, End> {
        let Some(answer) = self.block.frame::<Answer>()? else { return Ok(false) };
        let (Answer::Piece { id, .. } | Answer::Reject { id, .. }) = answer;
        let Some(open) = self.open.remove(&id) else {
            return Err(End::Breach(format!("an answer to request {id}, which is not open")));
        };
        let request = open.request;
        match answer {
            Answer::Reject { why, .. } => {
                self.env.shared.traffic.piece_requests_open.sub(1);
                self.reports.event(Event::Rejected { request, why: reason(why) });
            }
            Answer::Piece { bytes, .. } => {
                let expected = open.asked.answer_bytes();
                if bytes != expected {
                    self.open.insert(id, open);
                    return Err(End::Breach(format!("a PIECE of {bytes} bytes; {expected} were asked for")));
                }
                self.reports.event(Event::First { request });
                self.block.reserve(BUSY_BYTES);
                let receive = Some(open.partial.receive(open.asked.groups.clone()));
                self.current = Some(Current { open, left: bytes, receive, fresh: false });
            }
        }
        Ok(true)
    }

    /// Reads an item of an answer; whether there may be more.
    fn body(&mut self, mut current: Current) -> Result<bool, End> {
        let wanted = match &current.receive {
            Some(receive) => receive.next_len().unwrap_or(0),
            None => current.left.min(self.block.filled().len()),
        };
        if current.left == 0 {
            self.finish(current);
            return Ok(true);
        }
        let Some(item) = self.block.filled().get(..wanted).filter(|item| !item.is_empty()) else {
            self.current = Some(current);
            return Ok(false);
        };
        let fed = current.receive.as_mut().map(|receive| receive.feed(item));
        self.block.consume(wanted);
        current.left = current.left.saturating_sub(wanted);
        match fed {
            Some(Ok(Fed::Group { group, bytes, fresh })) => {
                let traffic = &self.env.shared.traffic;
                traffic.of(self.class).0.add_bytes(bytes as usize);
                if !fresh {
                    traffic.groups_duplicate.add(bytes as usize);
                }
                current.fresh |= fresh;
                self.reports.event(Event::Group { request: current.open.request, group });
            }
            Some(Ok(Fed::Proof)) | None => {}
            Some(Err(ReceiveError::Store(error))) => {
                self.broken(&current.open, error);
                current.receive = None;
            }
            Some(Err(ReceiveError::Wrong { .. } | ReceiveError::Over)) => {
                let request = current.open.request;
                self.env.shared.traffic.piece_requests_open.sub(1);
                self.env.shared.traffic.pieces_wrong.add(1);
                self.reports.event(Event::Wrong { request });
                return Err(End::Wrong);
            }
        }
        self.current = Some(current);
        Ok(true)
    }

    /// All of an answer came.
    fn finish(&mut self, current: Current) {
        let Current { open, receive, fresh, .. } = current;
        let OpenRequest { request, ref asked, cancelled, .. } = open;
        let traffic = &self.env.shared.traffic;
        traffic.piece_requests_open.sub(1);
        if cancelled {
            traffic.pieces_late.add(asked.answer_bytes());
        }
        match receive.map(Receive::finish) {
            Some(Ok(received)) => {
                traffic.of(self.class).0.add_count();
                if received.piece_complete && fresh {
                    traffic.pieces_good.add(1);
                    self.env.news.piece();
                }
                self.reports.event(Event::Done { request });
            }
            Some(Err(error)) => {
                self.broken(&open, error);
                self.reports.event(Event::Failed { request });
            }
            None => self.reports.event(Event::Failed { request }),
        }
    }

    /// The store did not take what came. Of a request that was cancelled it need not: the blob is not wanted any more, or
    /// was begun anew under another size.
    fn broken(&mut self, open: &OpenRequest, error: StoreError) {
        if !open.cancelled {
            self.reports.push(Report::Store { blob: open.asked.blob, error: Arc::new(error) });
        }
    }

    /// Tells that nothing more comes.
    fn into_reports(mut self, peer: PeerKey, end: End) -> Reports {
        // Of a wrong answer the scheduler knows already.
        let current = self.current.take().map(|current| current.open);
        for open in current.into_iter().chain(self.open.into_values()) {
            self.env.shared.traffic.piece_requests_open.sub(1);
            self.reports.event(Event::Failed { request: open.request });
        }
        self.reports.end(peer, end);
        self.reports
    }
}

fn reason(why: frames::Reject) -> Rejected {
    match why {
        frames::Reject::NotHeld => Rejected::NotHeld,
        frames::Reject::TooMuch => Rejected::TooMuch,
        frames::Reject::NotNow => Rejected::NotNow,
        frames::Reject::Cancelled => Rejected::Cancelled,
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
