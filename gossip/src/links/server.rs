//! Answers one stream of requests: reads what is asked, writes what the governor grants.
//!
//! The two halves share a task, so that neither waits for the other's lock, and a request is read while an answer is being
//! written. What is asked beyond the bounds is refused, and at twice the bounds the peer is disconnected; a peer that does
//! not read is disconnected after a while, and holds one answer and a socket's buffer until then.

use super::block::Block;
use super::end::End;
use super::env::{Env, Pacer, flush, write};
use super::protocol::StreamPlace;
use super::report::Reports;
use super::serving::{Buffer, HEAD_BYTES, Outbox, Turn};
use crate::peers::PeerKey;
use covey_exchange::Class;
use covey_exchange::frames::{Answer, Asked, Frame, Order, Reject};
use covey_exchange::governor::{ByteRate, Refused, Ticket};
use covey_proto::pieces::Pieces;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite};
use libp2p::swarm::Stream;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of one write: larger ones, and much smaller ones, are slower on yamux and Noise.
const WRITE_BYTES_MAX: usize = 64 * 1024;
/// Requests and cancels that are read, a second and at once: those of 4 GB/s in pieces of 1 MiB. More wait in their stream.
const ORDERS: ByteRate = ByteRate { per_second: 4096, burst: 4096 };
/// Refusals that wait to be written before requests are not read any more.
const REJECTS_MAX: usize = 256;
/// Time between two looks whether they are fewer.
const REJECTS_LOOK: Duration = Duration::from_millis(20);

/// Serves one stream of pieces until it ends.
pub(super) async fn run(env: Arc<Env>, peer: PeerKey, mut stream: Stream, place: StreamPlace) {
    let mut block = Block::new();
    let end = match block.next::<Order, _>(&mut stream).await {
        Ok(Order::Hello(class)) => serve(&env, peer, class, block, stream).await,
        Ok(_) => End::Breach("a stream of pieces that does not begin with HELLO".into()),
        Err(end) => end,
    };
    tracing::debug!(%peer, %end, "a stream of requests has ended");
    drop(place);
    let mut reports = Reports::new();
    reports.end(peer, end);
    reports.send(&env).await;
}

async fn serve(env: &Arc<Env>, peer: PeerKey, class: Class, block: Block, stream: Stream) -> End {
    let outbox = Outbox::new(peer, class);
    let (input, output) = stream.split();
    let reader = Reader { env, outbox: &outbox, block, orders: Pacer::new(ORDERS) };
    let writer = Writer { env, outbox: &outbox, class, current: None };
    let end = tokio::select! {
        end = reader.run(input) => end,
        end = writer.run(output) => end,
    };
    env.serving.gone(&outbox);
    end
}

struct Reader<'a> {
    env: &'a Arc<Env>,
    outbox: &'a Arc<Outbox>,
    block: Block,
    orders: Pacer,
}

impl Reader<'_> {
    async fn run<T: AsyncRead + Unpin>(mut self, mut input: T) -> End {
        loop {
            let done = match self.block.next::<Order, _>(&mut input).await {
                Ok(order) => self.order(order),
                Err(end) => Err(end),
            };
            if let Err(end) = done {
                return end;
            }
            self.orders.pay(1).await;
            while self.outbox.rejects() > REJECTS_MAX {
                tokio::time::sleep(REJECTS_LOOK).await;
            }
        }
    }

    fn order(&mut self, order: Order) -> Result<(), End> {
        match order {
            Order::Hello(_) => Err(End::Breach("a second HELLO".into())),
            Order::Cancel(id) => {
                self.env.serving.cancel(self.outbox, id);
                Ok(())
            }
            Order::Request(asked) => self.request(asked),
        }
    }

    fn request(&mut self, asked: Asked) -> Result<(), End> {
        let id = asked.id;
        let traffic = &self.env.shared.traffic;
        traffic.piece_requests_in.add(1);
        if self.outbox.is_open(id) {
            return Err(End::Breach(format!("a second request {id} while the first is open")));
        }
        let held = self.env.shared.store.public().holdings(&asked.blob);
        let piece = Pieces::of_blob(&asked.blob).map(|pieces| pieces.piece_of(asked.groups.start));
        let refused = if piece.is_some_and(|piece| held.contains(piece)) {
            match self.env.serving.enqueue(self.outbox, asked) {
                Ok(()) => return Ok(()),
                Err(refused) if refused.disconnects() => return Err(End::Nuisance("it floods requests")),
                Err(Refused::Peers { .. }) => Reject::NotNow,
                Err(_) => Reject::TooMuch,
            }
        } else {
            Reject::NotHeld
        };
        traffic.piece_requests_refused.add(1);
        self.outbox.reject(id, refused);
        Ok(())
    }
}

struct Writer<'a> {
    env: &'a Arc<Env>,
    outbox: &'a Arc<Outbox>,
    class: Class,
    /// The answer that is being written, and how much of it is.
    current: Option<(Ticket, Buffer, usize)>,
}

impl Writer<'_> {
    async fn run<T: AsyncWrite + Unpin>(mut self, mut output: T) -> End {
        loop {
            let Some(turn) = self.outbox.turn(self.current.is_some()) else {
                if let Err(end) = flush(&mut output, &self.env.limits).await {
                    return end;
                }
                self.outbox.bell.notified().await;
                continue;
            };
            let written = match turn {
                Turn::Reject(id, why) => {
                    let mut bytes = Vec::new();
                    Answer::Reject { id, why }.encode(&mut bytes);
                    write(&mut output, &bytes, &self.env.limits).await
                }
                Turn::Grant(ticket, bytes) => self.grant(&mut output, ticket, bytes).await,
            };
            if let Err(end) = written {
                return end;
            }
        }
    }

    async fn grant<T: AsyncWrite + Unpin>(&mut self, output: &mut T, ticket: Ticket, bytes: usize) -> Result<(), End> {
        let current = self.current.take().filter(|(current, _, _)| *current == ticket);
        let begun = current.or_else(|| Some((ticket, self.outbox.take(ticket)?, 0)));
        let Some((ticket, buffer, mut at)) = begun else { return Ok(()) };
        // The frame's head goes with its first bytes.
        let end = (if at == 0 { HEAD_BYTES } else { at } + bytes).min(buffer.len());
        for chunk in buffer.get(at..end).unwrap_or_default().chunks(WRITE_BYTES_MAX + HEAD_BYTES) {
            write(output, chunk, &self.env.limits).await?;
        }
        at = end;
        let traffic = &self.env.shared.traffic;
        traffic.of(self.class).1.add_bytes(bytes);
        if self.env.serving.written(ticket, bytes) {
            traffic.of(self.class).1.add_count();
            self.outbox.written(ticket, buffer);
        } else {
            self.current = Some((ticket, buffer, at));
        }
        Ok(())
    }
}
