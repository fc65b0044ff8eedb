//! Building: a genesis from settings, a block from its parent's state and a list of transactions.

use super::state::{self, Nodes, Overlay, State, VERSION, empty_root};
use crate::config::ChainSpec;
use crate::pallets::{commitments, drand, settings, subtensor};
use crate::runtime::{Executive, Header, Runtime, RuntimeCall, RuntimeGenesisConfig, UncheckedExtrinsic};
use codec::{Decode, DecodeAll, Encode};
use covey_timelock as timelock;
use sp_core::{H256, OpaqueMetadata};
use sp_runtime::traits::{BlakeTwo256, Hash, Header as _};
use sp_runtime::transaction_validity::{InvalidTransaction, TransactionValidityError};
use sp_runtime::{BuildStorage, Digest, DigestItem};
use sp_state_machine::Backend;
use sp_trie::DBValue;

/// Whose digest item a block has: its fork's number, so that two forks never share a block.
const ENGINE: [u8; 4] = *b"cvdn";

/// Why no block was built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The settings make no genesis.
    #[error("these settings make no genesis: {0}")]
    Genesis(String),
    /// The runtime stopped at a step that cannot fail: a fault of the devnet.
    #[error("the runtime panicked at {0}, a fault of the devnet")]
    Panicked(&'static str),
}

/// A block, with the nodes that its state adds.
pub(super) struct Built {
    pub(super) header: Header,
    pub(super) body: Vec<Vec<u8>>,
    pub(super) nodes: Vec<(H256, DBValue)>,
}

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is in the block, whether or not its call succeeded.
    Included,
    /// It may be in a later one.
    Later,
    /// It never will.
    Invalid,
}

/// The first block, and the hash of the runtime's metadata. Its settings name that hash, because clients keep metadata
/// by genesis.
pub(super) fn genesis(spec: &ChainSpec, nonce: H256) -> Result<(Built, H256), BuildError> {
    let first = genesis_with(spec, nonce, H256::zero())?;
    let nodes = Nodes::default();
    nodes.extend(first.nodes);
    let state = State::new(nodes, *first.header.state_root());
    let metadata: Option<OpaqueMetadata> = state
        .ask("Metadata_metadata_at_version", &15_u32.encode())
        .map_err(|error| BuildError::Genesis(error.to_string()))?;
    let hash = BlakeTwo256::hash(&metadata.map(|metadata| (*metadata).clone()).unwrap_or_default());
    Ok((genesis_with(spec, nonce, hash)?, hash))
}

fn genesis_with(spec: &ChainSpec, nonce: H256, metadata_hash: H256) -> Result<Built, BuildError> {
    let secret = timelock::secret(&spec.beacon_seed);
    let config = RuntimeGenesisConfig {
        balances: pallet_balances::GenesisConfig { balances: spec.accounts.clone(), ..Default::default() },
        devnet: settings::GenesisConfig {
            stateful_epochs: spec.stateful_epochs,
            slot_ms: spec.slot_ms,
            local_axons: spec.local_axons,
            beacon_secret: secret,
            nonce,
            metadata_hash,
            _config: Default::default(),
        },
        drand: drand::GenesisConfig {
            public_key: timelock::public_key(&secret),
            period: spec.beacon_period_s,
            genesis_time: u32::try_from(spec.genesis_ms / 1_000).unwrap_or(0),
            _config: Default::default(),
        },
        commitments: commitments::GenesisConfig { max_space: spec.max_space, _config: Default::default() },
        subtensor_module: subtensor::GenesisConfig {
            subnets: spec.subnets.clone(),
            stake_threshold: spec.stake_threshold,
            _config: Default::default(),
        },
        ..Default::default()
    };
    let storage = config.build_storage().map_err(BuildError::Genesis)?;
    let state = State::new(Nodes::default(), empty_root());
    let all = storage.top.iter().map(|(key, value)| (&key[..], Some(&value[..])));
    let (root, mut nodes) = state.backend().storage_root(all, VERSION);
    let nodes = nodes.drain().into_iter().filter(|(_, (_, count))| *count > 0);
    let nodes = nodes.map(|(key, (value, _))| (H256::from_slice(&key[key.len() - 32..]), value)).collect();
    let header = Header::new(0, empty_root(), root, H256::zero(), Digest::default());
    Ok(Built { header, body: Vec::new(), nodes })
}

/// The fork that a block was made on.
pub(super) fn fork(header: &Header) -> Option<u64> {
    let log = header.digest().logs().first()?;
    u64::decode_all(&mut log.as_pre_runtime().filter(|(engine, _)| *engine == ENGINE)?.1).ok()
}

/// The time that a block's first transaction says.
pub(super) fn timestamp(bytes: &[u8]) -> Option<u64> {
    match UncheckedExtrinsic::decode(&mut &bytes[..]).ok()?.function {
        RuntimeCall::Timestamp(pallet_timestamp::Call::set { now }) => Some(now),
        _ => None,
    }
}

/// A block on `parent`, of as many of `transactions` as are valid and fit, in this order.
pub(super) fn block(
    parent: &Header,
    state: &State,
    now_ms: u64,
    fork: u64,
    transactions: &[UncheckedExtrinsic],
) -> Result<(Built, Vec<Fate>), BuildError> {
    let backend = state.backend();
    let mut overlay = Overlay::default();
    let digest = Digest { logs: vec![DigestItem::PreRuntime(ENGINE, fork.encode())] };
    let header = Header::new(parent.number() + 1, H256::zero(), H256::zero(), parent.hash(), digest);
    state::run(&backend, &mut overlay, || Executive::initialize_block(&header))
        .ok_or(BuildError::Panicked("initialize_block"))?;
    let time =
        UncheckedExtrinsic::new_bare(RuntimeCall::Timestamp(pallet_timestamp::Call::<Runtime>::set { now: now_ms }));
    let mut body = vec![time.encode()];
    let set = state::run(&backend, &mut overlay, || Executive::apply_extrinsic(time));
    if !matches!(set, Some(Ok(Ok(())))) {
        return Err(BuildError::Panicked("the timestamp"));
    }
    let mut fates = Vec::with_capacity(transactions.len());
    for transaction in transactions {
        overlay.start_transaction();
        let outcome = state::run(&backend, &mut overlay, || Executive::apply_extrinsic(transaction.clone()));
        let fate = match outcome {
            Some(Ok(_)) => Fate::Included,
            Some(Err(TransactionValidityError::Invalid(
                InvalidTransaction::Future | InvalidTransaction::ExhaustsResources,
            ))) => Fate::Later,
            Some(Err(_)) | None => Fate::Invalid,
        };
        let closed = if fate == Fate::Included {
            body.push(transaction.encode());
            overlay.commit_transaction()
        } else {
            overlay.rollback_transaction()
        };
        closed.map_err(|_| BuildError::Panicked("a storage transaction"))?;
        fates.push(fate);
    }
    let header =
        state::run(&backend, &mut overlay, Executive::finalize_block).ok_or(BuildError::Panicked("finalize_block"))?;
    let changes =
        overlay.drain_storage_changes(&backend, VERSION).map_err(|_| BuildError::Panicked("the storage root"))?;
    let (root, nodes) = state::new_nodes(changes);
    debug_assert_eq!(root, *header.state_root());
    Ok((Built { header, body, nodes }, fates))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GENESIS: &str = "630828733fa503d7adb08ddcbfc155fedda3c8478e236baaf2734d169dfed61f";
    const METADATA: &str = "389fbfa726cc0140628feccb0c36264b9ab5acf739b4a37f59e37f2ed1fa0c18";

    /// Genesis and metadata as they have been since the first swarms: a folder of theirs holds this chain's blocks, and
    /// `covey audit` executes them again from a genesis that it makes anew. The metadata's hash is part of it, so a `///`
    /// at a storage item, a call, an event or an error, which FRAME writes into the metadata, changes both.
    #[test]
    fn a_chain_of_yesterday_begins_as_it_did() {
        let (built, metadata) = genesis(&ChainSpec::default(), H256::repeat_byte(7)).unwrap();
        let (header, metadata) = (format!("{:x}", built.header.hash()), format!("{metadata:x}"));
        assert_eq!((&header[..], &metadata[..]), (GENESIS, METADATA));
    }
}
