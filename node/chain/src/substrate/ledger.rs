//! What users of a Substrate chain hold: connects, and answers as [`Ledger`] asks. Which endpoint is asked, what its
//! answers mean and what becomes of calls, other files decide.

use super::calls;
use super::keeper::Keeper;
use super::link::Link;
use super::metagraph::Metagraph;
use super::needs::{self, Fault};
use super::runtime::{DynamicCall, Mortality, Sign};
use super::session::DialError;
use super::settings::{self, ENDPOINTS_MAX, Settings};
use super::signed::{self, Final, Signed};
use super::storage::Place;
use super::views::Views;
use super::weights;
use super::witness::Witness;
use crate::{Call, Fate, Heads, Ledger, LedgerError, SignedCall, Weights};
use covey_proto::chain::{COMMITMENT_BYTES_MAX, ChainView};
use covey_proto::{BlockNumber, Digest, Hotkey, HotkeyPair, Uid};
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Endpoints that cannot be.
    #[error("{0}")]
    Settings(String),
    /// No endpoint will do.
    #[error("no endpoint of the chain will do:{}", .0.iter().map(|(url, why)| format!("\n  {url}: {why}")).collect::<String>())]
    NoEndpoint(Vec<(String, DialError)>),
    /// There is no such subnet.
    #[error("the chain has no subnet {0}")]
    NoSubnet(u16),
    /// The chain stopped answering.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

struct Shared {
    link: Arc<Link>,
    views: Views,
    keeper: Arc<Keeper>,
    tasks: Vec<AbortHandle>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// A subnet of a Substrate chain. Cheap to clone; it disconnects when the last clone is dropped.
#[derive(Clone)]
pub struct SubstrateLedger {
    shared: Arc<Shared>,
}

impl SubstrateLedger {
    /// Connects to the first endpoint that will do, and from then on to one after another as they fail. Runs on the
    /// current tokio runtime.
    ///
    /// # Errors
    /// No endpoint answers, has the right genesis, and a runtime with what this client needs; there is no such subnet.
    pub async fn connect(settings: Settings) -> Result<SubstrateLedger, ConnectError> {
        check(&settings)?;
        let netuid = settings.netuid;
        let (link, supervisor) = Link::connect(settings).await.map_err(|tries| {
            ConnectError::NoEndpoint(tries.into_iter().map(|(url, why)| (url.to_string(), why)).collect())
        })?;
        let mut heads = link.heads();
        let keeper = Arc::new(Keeper::new(link.clone()));
        let witness = Arc::new(Witness::new(link.clone()));
        let tasks = vec![
            tokio::spawn(supervisor).abort_handle(),
            tokio::spawn(keeper.clone().run()).abort_handle(),
            tokio::spawn(witness.clone().run()).abort_handle(),
        ];
        let ledger = SubstrateLedger {
            shared: Arc::new(Shared { views: Views::new(link.clone(), witness), link, keeper, tasks }),
        };
        let link = &ledger.shared.link;
        // Heads come right after the connection: nobody should see a chain at block 0 that is not.
        let known = async { heads.wait_for(|_| link.newest_final().is_some()).await.is_ok() };
        // What `wait_for` gives locks the heads: it must not outlive this line.
        let is_known = tokio::time::timeout(link.settings.bounds.patience, known).await.unwrap_or(false);
        if !is_known {
            return Err(LedgerError::Unreachable("it says nothing of its final blocks".into()).into());
        }
        let runtime = link.runtime().await?;
        let place = Place::new(&runtime, "SubtensorModule", "NetworksAdded", (netuid,)).map_err(LedgerError::from)?;
        if !link.read(&runtime, &[&place], None).await?.need::<bool>(&place)? {
            return Err(ConnectError::NoSubnet(netuid));
        }
        Ok(ledger)
    }

    /// The subnet with all its members at a final block.
    ///
    /// # Errors
    /// No such state (yet, or any more), or no answer.
    pub async fn metagraph(&self, block: BlockNumber) -> Result<Metagraph, LedgerError> {
        self.shared.views.metagraph(block).await
    }

    /// What the chain lacks of what this client can do; nothing that is essential.
    ///
    /// # Errors
    /// No answer.
    pub async fn lacks(&self) -> Result<Vec<Fault>, LedgerError> {
        Ok(needs::faults(&*self.link().runtime().await?))
    }

    /// Requests made so far, and bytes of their answers: for measurements.
    pub fn traffic(&self) -> (u64, u64) {
        self.link().traffic()
    }

    pub(super) fn link(&self) -> &Link {
        &self.shared.link
    }

    /// Signs a call with an account's next nonce.
    pub(super) async fn sign_call(&self, pair: &dyn Sign, call: &DynamicCall) -> Result<SignedCall, LedgerError> {
        let link = self.link();
        link.agreed()?;
        let runtime = link.runtime().await?;
        let account = pair.account();
        let next = link.next_nonce(&account).await?;
        let heads = *link.heads().borrow();
        let (birth, birth_hash) = link
            .newest_final()
            .ok_or_else(|| LedgerError::Unreachable("it has said nothing of its final blocks".into()))?;
        let at = Final { block: heads.finalised, spec_version: runtime.spec_version };
        let nonce = self.shared.keeper.next(&account, next, at);
        let period = signed::period(heads.best, birth, link.settings.bounds.mortality);
        let mortality = Mortality { period, birth: birth.0, birth_hash };
        let extrinsic = runtime.sign(pair, call, nonce, mortality)?;
        Ok(Signed::new(account, nonce, mortality, runtime.spec_version, extrinsic).to_call())
    }

    /// Whether a call cannot come any more after a final block: its nonce is used there, by this call or by another, or its
    /// time is over.
    async fn is_spent(&self, signed: &Signed, block: BlockNumber) -> Result<bool, LedgerError> {
        let link = self.link();
        link.agreed()?;
        let hash = link.final_hash(block).await?;
        let runtime = link.runtime_at(hash, block).await?;
        if signed.is_over(Final { block, spec_version: runtime.spec_version }) {
            return Ok(true);
        }
        let nonces = link.final_nonces(&runtime, &[signed.account], hash).await?;
        Ok(nonces.first().is_some_and(|nonce| signed.nonce < *nonce))
    }
}

fn check(settings: &Settings) -> Result<(), ConnectError> {
    let fault = |what: String| Err(ConnectError::Settings(what));
    let n = settings.endpoints.len();
    if n == 0 || n > ENDPOINTS_MAX {
        return fault(format!("{n} endpoints of the chain: 1 to {ENDPOINTS_MAX} are taken"));
    }
    for url in &settings.endpoints {
        if !(url.starts_with("ws://") || url.starts_with("wss://")) {
            let url = settings::Endpoint::new(url);
            return fault(format!("endpoint {url:?}: it begins with ws:// or wss://"));
        }
    }
    let mortality = settings.bounds.mortality;
    if !mortality.is_power_of_two() || !(8..=1_024).contains(&mortality) {
        return fault(format!("a mortality of {mortality} blocks: a power of two from 8 to 1024 is taken"));
    }
    Ok(())
}

impl Ledger for SubstrateLedger {
    fn genesis(&self) -> Digest {
        self.link().genesis
    }

    fn netuid(&self) -> u16 {
        self.link().settings.netuid
    }

    fn heads(&self) -> watch::Receiver<Heads> {
        self.link().heads()
    }

    async fn view(&self, block: BlockNumber) -> Result<ChainView, LedgerError> {
        let view = self.shared.views.get(block).await?;
        Ok(ChainView::clone(&view))
    }

    async fn weights(&self) -> Result<Weights, LedgerError> {
        let link = self.link();
        let heads = *link.heads().borrow();
        let view = self.shared.views.get(heads.finalised).await?;
        let runtime = link.runtime().await?;
        let validators: Vec<_> = view.members.values().filter(|member| member.permit).collect();
        let place =
            |uid: Uid| Place::new(&runtime, "SubtensorModule", "Weights", (link.settings.netuid, uid.number() as u16));
        let places = validators.iter().map(|member| place(member.uid)).collect::<Result<Vec<_>, _>>()?;
        let values = link.read(&runtime, &places.iter().collect::<Vec<_>>(), None).await?;
        let mut weights = Weights::new();
        for (member, place) in validators.iter().zip(&places) {
            let row: Vec<(u16, u16)> = values.get(place)?.unwrap_or_default();
            if !row.is_empty() {
                let known = row.into_iter().filter_map(|(uid, share)| Some((Uid::new(uid.into())?, share)));
                weights.insert(member.hotkey, known.collect());
            }
        }
        Ok(weights)
    }

    async fn sign(&self, pair: &HotkeyPair, call: Call) -> Result<SignedCall, LedgerError> {
        let netuid = self.netuid();
        let call = match call {
            Call::Commit(bytes) if bytes.len() > COMMITMENT_BYTES_MAX => {
                let n = bytes.len();
                return Err(LedgerError::Refused(format!(
                    "a commitment of {n} bytes; the chain takes {COMMITMENT_BYTES_MAX}"
                )));
            }
            Call::Commit(bytes) => calls::set_commitment(netuid, &bytes),
            Call::SetWeights(row) => weights::call(self.link(), pair.hotkey(), &row).await?,
        };
        self.sign_call(pair, &call).await
    }

    fn author(&self, call: &SignedCall) -> Result<Hotkey, LedgerError> {
        Ok(Hotkey::new(Signed::from_call(call)?.account))
    }

    async fn fate(&self, call: &SignedCall, block: BlockNumber) -> Result<Fate, LedgerError> {
        let signed = Signed::from_call(call)?;
        if !self.is_spent(&signed, block).await? {
            return Ok(Fate::Open);
        }
        match self.shared.keeper.fate(&signed, block).await {
            Some(fate) => Ok(fate),
            // Handed over by an earlier life of this process, or not at all.
            None => self.shared.keeper.resolve(&signed, block).await,
        }
    }

    async fn submit(&self, call: &SignedCall) -> Result<(), LedgerError> {
        self.link().agreed()?;
        self.shared.keeper.submit(Arc::new(Signed::from_call(call)?)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_and_mortality_that_cannot_be_are_refused_with_what_can() {
        let of = |endpoints: &[&str], mortality: u32| {
            let mut settings = Settings::new(endpoints.iter().map(|url| (*url).to_owned()).collect(), 3);
            settings.bounds.mortality = mortality;
            check(&settings).map_err(|error| error.to_string())
        };
        let one = ["wss://entrypoint-finney.opentensor.ai:443"];
        assert_eq!((of(&one, 8), of(&one, 1_024)), (Ok(()), Ok(())));
        let many = ["ws://127.0.0.1:9944"; ENDPOINTS_MAX + 1];
        for (endpoints, mortality, why) in [
            (&[][..], 64, "0 endpoints of the chain"),
            (&many[..], 64, "endpoints of the chain: 1 to"),
            (&["https://node.example"], 64, "it begins with ws:// or wss://"),
            (&one, 4, "a mortality of 4 blocks"),
            (&one, 65, "a mortality of 65 blocks"),
            (&one, 2_048, "a power of two from 8 to 1024"),
        ] {
            let said = of(endpoints, mortality).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
    }
}
