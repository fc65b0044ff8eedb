//! The streams of the blob exchange: their opening, and a task for each that reads, writes, checks and reports.
//!
//! What to ask of whom is the scheduler's decision, who may send next the governor's (`covey_exchange`); what is kept the
//! store's. Here bytes move: [`fetcher`] asks for pieces and gives them to the store as they come, [`server`] answers as
//! [`serving`] allows, [`asker`] and [`teller`] exchange who holds what. All of it reports to the network's task, in
//! batches; nothing here waits for it but when it is far behind.

mod asker;
mod behaviour;
mod block;
mod end;
mod env;
mod fetcher;
mod handler;
mod inbound;
mod protocol;
mod report;
mod server;
mod serving;
mod teller;

pub(crate) use asker::Asker;
pub(crate) use behaviour::{Links, StreamOpened};
pub(crate) use env::{Env, Report};
pub(crate) use fetcher::{FetchOrder, Fetcher};
pub(crate) use handler::OpenStream;
pub(crate) use inbound::serve;
pub(crate) use serving::Serving;
