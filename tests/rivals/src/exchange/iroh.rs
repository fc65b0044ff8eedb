//! iroh-blobs, as its documentation starts it, but for relays and discovery: addresses are given. Its memory store for
//! memory, its file store for files. Encrypted, verified as it arrives.

use super::role::Task;
use super::{Failure, Storage};
use iroh::endpoint::{Connection, presets};
use iroh::protocol::Router;
use iroh::{Endpoint, EndpointAddr, RelayMode};
use iroh_blobs::api::Store;
use iroh_blobs::api::blobs::BlobStatus;
use iroh_blobs::store::fs::FsStore;
use iroh_blobs::store::mem::MemStore;
use iroh_blobs::{BlobsProtocol, Hash};
use std::net::SocketAddr;

async fn endpoint(listen: SocketAddr) -> Result<Endpoint, Failure> {
    Ok(Endpoint::builder(presets::Minimal)
        .relay_mode(RelayMode::Disabled)
        .clear_ip_transports()
        .bind_addr(listen)?
        .bind()
        .await?)
}

async fn store(task: &Task) -> Result<Store, Failure> {
    Ok(match task.storage {
        Storage::Discard | Storage::Memory => MemStore::new().into(),
        Storage::Files => FsStore::load(task.folder.join("iroh")).await?.into(),
    })
}

/// Imports the source and serves it. The offer is `ID,ADDRESS,HASH`.
pub async fn provide(task: &Task) -> Result<(String, Router), Failure> {
    let store = store(task).await?;
    let tag = store.blobs().add_path(std::path::absolute(&task.source)?).await?;
    let endpoint = endpoint(task.listen).await?;
    let address = endpoint.bound_sockets().first().copied().ok_or("iroh listens nowhere")?;
    let offer = format!("{},{address},{}", endpoint.id(), tag.hash);
    let router = Router::builder(endpoint).accept(iroh_blobs::ALPN, BlobsProtocol::new(&store, None)).spawn();
    Ok((offer, router))
}

pub struct Fetcher {
    /// Its connections end with it.
    _endpoint: Endpoint,
    connection: Connection,
    store: Store,
    hash: Hash,
}

impl Fetcher {
    pub async fn connect(task: &Task) -> Result<Fetcher, Failure> {
        let parts: Vec<&str> = task.offer()?.split(',').collect();
        let &[id, address, hash] = parts.as_slice() else {
            return Err("an offer of iroh-blobs is ID,ADDRESS,HASH".into());
        };
        let store = store(task).await?;
        let endpoint = endpoint(SocketAddr::new(task.listen.ip(), 0)).await?;
        let provider = EndpointAddr::new(id.parse()?).with_ip_addr(address.parse()?);
        let connection = endpoint.connect(provider, iroh_blobs::ALPN).await?;
        Ok(Fetcher { _endpoint: endpoint, connection, store, hash: hash.parse()? })
    }

    pub async fn fetch(&mut self) -> Result<u64, Failure> {
        self.store.remote().fetch(self.connection.clone(), self.hash).await?;
        match self.store.blobs().status(self.hash).await? {
            BlobStatus::Complete { size } => Ok(size),
            _ => Err("iroh-blobs says that it is done, but its store has not all of it".into()),
        }
    }
}
