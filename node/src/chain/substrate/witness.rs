//! A second opinion: what one endpoint says of a final block is asked of another, and must be the same. Where no other
//! can be reached, or it has not seen the block yet, one opinion has to do.

use super::header::{Header, digest, hexed};
use super::link::Link;
use super::session::{AskError, DialError, Session};
use crate::chain::LedgerError;
use covey_proto::{BlockNumber, Digest};
use std::sync::Arc;
use std::time::Duration;
use subxt::rpcs::client::rpc_params;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Between two looks whether the other endpoint has come as far.
const LOOK: Duration = Duration::from_millis(250);
/// How long one waits for it to come: blocks reach endpoints within a second or two of each other.
const WAIT: Duration = Duration::from_secs(4);
/// After a vain try another is made when this has passed.
const REST: Duration = Duration::from_secs(60);

/// The other endpoint.
#[derive(Default)]
pub(super) struct Witness(Mutex<State>);

#[derive(Default)]
struct State {
    session: Option<Arc<Session>>,
    /// Until when it is not asked: it could not be reached, or was behind.
    rests_until: Option<Instant>,
}

/// What is to be confirmed: a method's answer at a block.
pub(super) struct Claim<'a> {
    pub(super) block: BlockNumber,
    pub(super) hash: Digest,
    pub(super) method: &'a str,
    pub(super) arguments: &'a str,
    pub(super) answer: &'a str,
}

impl Witness {
    /// Asks for a second opinion.
    ///
    /// # Errors
    /// There is one, and it differs.
    pub(super) async fn confirm(&self, link: &Link, claim: Claim<'_>) -> Result<(), LedgerError> {
        if !link.settings.cross_check || link.settings.endpoints.len() < 2 {
            return Ok(());
        }
        let mut state = self.0.lock().await;
        if state.rests_until.is_some_and(|until| Instant::now() < until) {
            return Ok(());
        }
        let said = match state.session(link).await {
            Some(session) => opinion(&session, &claim).await.map(|said| (session, said)),
            None => Err(AskError::Broken("no second endpoint answers".into())),
        };
        match said {
            Ok((_, Opinion::Same)) => Ok(()),
            Ok((session, Opinion::Other(what))) => {
                let Claim { block, .. } = claim;
                let what = format!("{} says otherwise of final block {block}: {what}", session.url);
                link.disagree(what.clone());
                Err(LedgerError::Disagreement(what))
            }
            Ok((session, Opinion::Behind)) => {
                tracing::info!(url = %session.url, block = %claim.block, "the second endpoint is behind: one has to do");
                state.rest();
                Ok(())
            }
            Err(error) => {
                tracing::info!(?error, block = %claim.block, "no second opinion: one endpoint has to do");
                state.rest();
                Ok(())
            }
        }
    }
}

impl State {
    fn rest(&mut self) {
        *self = State { session: None, rests_until: Some(Instant::now() + REST) };
    }

    /// A connection to an endpoint that is not the one in use.
    async fn session(&mut self, link: &Link) -> Option<Arc<Session>> {
        let in_use = link.url();
        if let Some(session) = &self.session
            && session.fault().is_none()
            && Some(&session.url) != in_use.as_ref()
        {
            return Some(session.clone());
        }
        for url in link.settings.endpoints.iter().filter(|url| in_use.as_deref() != Some(url.as_str())) {
            match link.open(&Arc::from(url.as_str())).await {
                Ok(session) => {
                    let session = Arc::new(session);
                    self.session = Some(session.clone());
                    return Some(session);
                }
                Err(error @ DialError::Unreachable(_)) => tracing::debug!(%url, %error, "no second opinion from here"),
                Err(error) => tracing::warn!(%url, %error, "no second opinion from here"),
            }
        }
        None
    }
}

enum Opinion {
    Same,
    Other(String),
    Behind,
}

async fn opinion(session: &Session, claim: &Claim<'_>) -> Result<Opinion, AskError> {
    let deadline = Instant::now() + WAIT;
    while finalised(session).await? < claim.block {
        if Instant::now() >= deadline {
            return Ok(Opinion::Behind);
        }
        tokio::time::sleep(LOOK).await;
    }
    let hash: Option<String> = session.ask("chain_getBlockHash", rpc_params![claim.block.0]).await?;
    match hash.as_deref().and_then(digest) {
        Some(hash) if hash == claim.hash => {}
        Some(hash) => return Ok(Opinion::Other(format!("its hash is {hash}, not {}", claim.hash))),
        None => return Ok(Opinion::Behind),
    }
    let params = rpc_params![claim.method, claim.arguments, hexed(claim.hash.as_bytes())];
    let answer: String = session.ask("state_call", params).await?;
    Ok(match answer == claim.answer {
        true => Opinion::Same,
        false => Opinion::Other(format!("its answer to {} differs", claim.method)),
    })
}

async fn finalised(session: &Session) -> Result<BlockNumber, AskError> {
    let hash: String = session.ask("chain_getFinalizedHead", rpc_params![]).await?;
    let header: Option<Header> = session.ask("chain_getHeader", rpc_params![hash]).await?;
    let number = header.and_then(|header| header.number());
    number.ok_or_else(|| AskError::Garbled("a final block without a header".into()))
}
