//! Plain TCP: nothing encrypted, nothing verified. What the machine, or the line, can do.

use super::content::{BLOCK, Sink, Source};
use super::role::Task;
use super::{Congestion, Failure};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Serves the source to whoever connects and says how many bytes it wants. The offer is the address.
pub async fn provide(task: &Task) -> Result<(String, TcpServer), Failure> {
    let listener = TcpListener::bind(task.listen).await?;
    let offer = listener.local_addr()?.to_string();
    let source = Source::open(task.storage, &task.source)?;
    let congestion = task.congestion;
    let server = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let source = source.clone();
            tokio::spawn(async move {
                if let Err(error) = serve(stream, &source, congestion).await {
                    eprintln!("tcp: {error}");
                }
            });
        }
    });
    Ok((offer, TcpServer(server)))
}

/// Serves while it lives.
pub struct TcpServer(tokio::task::JoinHandle<()>);

impl Drop for TcpServer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn serve(mut stream: TcpStream, source: &Source, congestion: Congestion) -> Result<(), Failure> {
    set_up(&stream, congestion)?;
    let bytes = stream.read_u64_le().await?;
    let mut block = vec![0x5a; BLOCK];
    let mut at = 0;
    while at < bytes {
        let part = (bytes - at).min(BLOCK as u64) as usize;
        source.read(at, &mut block[..part])?;
        stream.write_all(&block[..part]).await?;
        at += part as u64;
    }
    stream.shutdown().await?;
    Ok(())
}

fn set_up(stream: &TcpStream, congestion: Congestion) -> Result<(), Failure> {
    stream.set_nodelay(true)?;
    if congestion == Congestion::Bbr {
        SockRef::from(stream).set_tcp_congestion(b"bbr").map_err(|error| format!("no BBR here: {error}"))?;
    }
    Ok(())
}

pub struct Fetcher(TcpStream);

impl Fetcher {
    pub async fn connect(task: &Task) -> Result<Fetcher, Failure> {
        let stream = TcpStream::connect(task.offer()?).await?;
        set_up(&stream, task.congestion)?;
        Ok(Fetcher(stream))
    }

    pub async fn fetch(&mut self, task: &Task) -> Result<u64, Failure> {
        let mut sink = Sink::create(task.storage, &task.folder.join("fetched"))?;
        self.0.write_u64_le(task.bytes).await?;
        let mut block = vec![0; BLOCK];
        let mut got = 0;
        loop {
            let read = self.0.read(&mut block).await?;
            if read == 0 {
                return Ok(got);
            }
            sink.write(&block[..read])?;
            got += read as u64;
        }
    }
}
