//! A line between a client and a devnet, with what lines have: cuts, silence, an end.

use super::world::AbortOnDrop;
use covey_devnet::Handle;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Between a client and a devnet: a line that can be cut, closed, or held still.
pub(crate) struct Line {
    address: SocketAddr,
    pub(crate) state: Arc<watch::Sender<LineState>>,
    _task: AbortOnDrop,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LineState {
    /// Counts up with each cut.
    pub(crate) cuts: u32,
    closed: bool,
    frozen: bool,
    garbled: bool,
}

impl Line {
    pub(crate) async fn to(devnet: &Handle) -> Line {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it listens");
        let state = Arc::new(watch::Sender::new(LineState::default()));
        let (to, states) = (devnet.address(), state.clone());
        let task = tokio::spawn(async move {
            loop {
                let Ok((near, _)) = listener.accept().await else { return };
                if states.borrow().closed {
                    continue;
                }
                let Ok(far) = TcpStream::connect(to).await else { continue };
                let states = states.subscribe();
                tokio::spawn(async move {
                    let cuts = states.borrow().cuts;
                    let (near_in, near_out) = near.into_split();
                    let (far_in, far_out) = far.into_split();
                    let mut cut = states.clone();
                    tokio::select! {
                        _ = pass(near_in, far_out, states.clone()) => {}
                        _ = pass(far_in, near_out, states.clone()) => {}
                        _ = cut.wait_for(|state| state.cuts != cuts) => {}
                    }
                });
            }
        });
        Line { address, state, _task: AbortOnDrop(task) }
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    pub(crate) fn cut(&self) {
        self.state.send_modify(|state| state.cuts += 1);
    }

    pub(crate) fn close(&self) {
        self.state.send_modify(|state| (state.closed, state.cuts) = (true, state.cuts + 1));
    }

    /// From now on values that are read come as nonsense.
    pub(crate) fn garble(&self) {
        self.state.send_modify(|state| state.garbled = true);
    }

    pub(crate) fn freeze(&self, frozen: bool) {
        self.state.send_modify(|state| state.frozen = frozen);
    }
}

pub(crate) async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut states: watch::Receiver<LineState>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        if states.borrow().garbled {
            garble(&mut buffer[..n]);
        }
        if states.wait_for(|state| !state.frozen).await.is_err() || to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
}

/// Misspells a field of every answer to a question for values. What servers send is not masked.
fn garble(bytes: &mut [u8]) {
    const FIELD: &[u8] = b"\"changes\"";
    while let Some(at) = bytes.windows(FIELD.len()).position(|window| window == FIELD) {
        bytes[at + 1] = b'?';
    }
}
