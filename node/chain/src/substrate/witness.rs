//! A second opinion: what one endpoint says of a final block is asked of another, and must be the same. Where no other
//! can be reached, or it has not seen the block yet, [`SecondOpinion`] says whether one has to do. It fails closed:
//! whoever can cut off the honest endpoint must not thereby make the other one's word the truth.

use super::header::{Header, digest, hexed};
use super::link::Link;
use super::session::{AskError, DialError, Session};
use super::settings::{Endpoint, SecondOpinion};
use crate::LedgerError;
use covey_proto::{BlockNumber, Digest};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use subxt::rpcs::client::rpc_params;
use tokio::sync::watch;
use tokio::time::Instant;

/// Between two looks whether the other endpoint has come as far.
const LOOK: Duration = Duration::from_millis(250);
/// How long one waits for it to come: blocks reach endpoints within a second or two of each other.
const WAIT: Duration = Duration::from_secs(4);
/// After a vain try another is made when this has passed, where one opinion has to do.
const REST: Duration = Duration::from_secs(60);
/// The same where nothing is read until then.
const REST_REQUIRED: Duration = Duration::from_secs(3);
/// Between two warnings that there is no second opinion.
const WARN_EACH: Duration = Duration::from_secs(60);

/// How long a connection to the other endpoint is waited for, when it is being made.
const READY: Duration = Duration::from_secs(2);
/// How long a second opinion may take in all.
const OPINION: Duration = Duration::from_secs(8);

/// The other endpoint.
pub(super) struct Witness {
    link: Arc<Link>,
    state: watch::Sender<State>,
    /// When it was last said that there is no second opinion.
    warned: Mutex<Option<Instant>>,
}

#[derive(Clone, Default)]
enum State {
    /// Nobody has asked yet.
    #[default]
    Idle,
    /// It is being dialled, beside.
    Wanted,
    /// It can be asked.
    Ready(Arc<Session>),
    /// Until then it is not asked: it could not be reached, or was behind.
    Resting(Instant),
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
    pub(super) fn new(link: Arc<Link>) -> Witness {
        Witness { link, state: watch::Sender::default(), warned: Mutex::default() }
    }

    /// Asks for a second opinion.
    ///
    /// # Errors
    /// There is one, and it differs; there is none, and one is required.
    pub(super) async fn confirm(&self, claim: Claim<'_>) -> Result<(), LedgerError> {
        let link = &self.link;
        if link.settings.second_opinion == SecondOpinion::Off || link.settings.endpoints.len() < 2 {
            return Ok(());
        }
        let block = claim.block;
        let Some(session) = self.session().await else {
            return self.without(block, "no other endpoint answers".into());
        };
        let url = &session.url;
        let why = match tokio::time::timeout(OPINION, opinion(&session, &claim)).await {
            Ok(Ok(Opinion::Same)) => return Ok(()),
            Ok(Ok(Opinion::Other(what))) => {
                let what = format!("{url} says otherwise of final block {block}: {what}");
                link.disagree(what.clone());
                return Err(LedgerError::Disagreement(what));
            }
            Ok(Ok(Opinion::Behind)) => format!("{url} is behind"),
            Ok(Err(error)) => format!("{url} does not answer: {error:?}"),
            Err(_) => format!("{url} does not answer within {OPINION:?}"),
        };
        self.state.send_replace(self.rest());
        self.without(block, why)
    }

    /// What becomes of a block that nobody confirms.
    fn without(&self, block: BlockNumber, why: String) -> Result<(), LedgerError> {
        let is_required = self.link.settings.second_opinion == SecondOpinion::Required;
        if self.is_time_to_warn() {
            if is_required {
                tracing::warn!(
                    %block, why,
                    "no second opinion: nothing is read, and no vote cast, until a second endpoint says the same; mend it, \
                     name another one or only one in chain.endpoints, or set chain.second_opinion = \"preferred\""
                );
            } else {
                tracing::warn!(
                    %block, why,
                    "no second opinion: one endpoint has to do, as chain.second_opinion has it; mend the other, or name \
                     another in chain.endpoints"
                );
            }
        }
        if is_required { Err(LedgerError::Unconfirmed { block, why }) } else { Ok(()) }
    }

    fn is_time_to_warn(&self) -> bool {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let is_due = warned.is_none_or(|at| now.saturating_duration_since(at) >= WARN_EACH);
        if is_due {
            *warned = Some(now);
        }
        is_due
    }

    fn rest(&self) -> State {
        let rest = match self.link.settings.second_opinion {
            SecondOpinion::Required => REST_REQUIRED,
            SecondOpinion::Preferred | SecondOpinion::Off => REST,
        };
        State::Resting(Instant::now() + rest)
    }

    /// The connection to an endpoint that is not the one in use, if it is there or about to be.
    async fn session(&self) -> Option<Arc<Session>> {
        let in_use = self.link.url();
        self.state.send_if_modified(|state| {
            let is_wanted = match state {
                State::Idle => true,
                State::Ready(session) => session.fault().is_some() || Some(&session.url) == in_use.as_ref(),
                State::Wanted | State::Resting(_) => false,
            };
            if is_wanted {
                *state = State::Wanted;
            }
            is_wanted
        });
        let mut states = self.state.subscribe();
        let known = states.wait_for(|state| !matches!(state, State::Wanted));
        match tokio::time::timeout(READY, known).await.ok()?.ok()?.clone() {
            State::Ready(session) => Some(session),
            State::Idle | State::Wanted | State::Resting(_) => None,
        }
    }

    /// Keeps the connection to the other endpoint, while somebody wants it: beside, since an endpoint that does not answer
    /// takes long to dial.
    pub(super) async fn run(self: Arc<Witness>) {
        let mut changes = self.state.subscribe();
        loop {
            let state = changes.borrow_and_update().clone();
            match state {
                State::Wanted => {
                    let found = self.connect().await;
                    self.state.send_replace(found.map_or_else(|| self.rest(), State::Ready));
                }
                State::Resting(until) => {
                    tokio::time::sleep_until(until).await;
                    self.state.send_replace(State::Idle);
                }
                State::Idle | State::Ready(_) => {
                    if changes.changed().await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn connect(&self) -> Option<Arc<Session>> {
        let in_use = self.link.url();
        let all = self.link.settings.endpoints.iter().map(|url| Endpoint::new(url));
        for url in all.filter(|url| in_use.as_ref() != Some(url)) {
            match self.link.open(&url).await {
                Ok(session) => return Some(Arc::new(session)),
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
