//! A second pair of eyes: computes a finished swarm again from what it left, and believes none of it.
//!
//! The chain's blocks are executed again from its genesis (every signature, nonce, hash and commitment), by the runtime
//! itself and not by the client that the nodes had; each round's selection follows from it;
//! contributions are taken from whatever store holds them, by hash; aggregate, state root and header are computed anew,
//! from the run's own beginning. The headers that the swarm left, the heads that its validators voted for and the states
//! that its nodes have saved must be these, and none may be of a round that the chain does not reach. The first difference
//! is named: round, shard and tensor, or the node.

mod error;
pub mod subnet;

pub use error::{AuditError, Difference, Fault, Place};

use crate::contribution::{Contribution, ShardCheck, Unfit, check_shape};
use crate::disk::folder::{Folder, NodeState};
use crate::peer::next_parameters;
use covey_devnet::{Replay, Replayed};
use covey_gossip::store::{Store, StoreError};
use covey_proto::blob::{Header, Manifest, StateManifest};
use covey_proto::chain::ChainView;
use covey_proto::layout::Layout;
use covey_proto::run::Run;
use covey_proto::{BlockNumber, Digest, Round, RunId, Uid};
use covey_round::clock::RoundBlocks;
use covey_round::engine::Tip;
use covey_round::select::{Outcome, SelectError, Selection, select};
use covey_sparseloco::{Assembly, state_manifest_on, state_root};
use covey_trainer::genesis::initial_state;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// What an audit has found right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Rounds computed again.
    pub rounds: u32,
    /// The state root after each.
    pub state_roots: Vec<Digest>,
    /// Contributions decoded and applied again.
    pub contributions: usize,
    /// Rounds whose head more than half of the electorate's stake voted for.
    pub vouched: u32,
}

/// Computes a finished swarm again.
///
/// # Errors
/// Its files cannot be read, or the first difference.
pub fn audit(folder: &Folder) -> Result<Report, AuditError> {
    Auditor::open(folder)?.audit(folder)
}

/// What a node has saved.
struct Claim {
    node: String,
    tip: Tip,
    /// The root of its parameters.
    root: Digest,
}

struct Auditor {
    run: Run,
    run_id: RunId,
    layout: Layout,
    stores: Vec<Store>,
    /// One of each node that has a state.
    claims: Vec<Claim>,
    /// The newest claim's headers, as far back as stores have them.
    headers: BTreeMap<Round, Header>,
    /// head(round) as computed, from round 0.
    heads: Vec<Digest>,
    parameters: Vec<f32>,
    threads: usize,
    tip: Tip,
    report: Report,
}

impl Auditor {
    fn open(folder: &Folder) -> Result<Auditor, AuditError> {
        let path = folder.run();
        let text = std::fs::read_to_string(&path).map_err(|error| AuditError::Io { path, error })?;
        let run = Run::from_toml(&text)?;
        let (run_id, layout) = (run.id(), run.layout());
        let stores = open_stores(folder)?;
        let parameters = first_state(&run, &layout, &stores)?;
        let cut = run.compress.state_elements as usize;
        let mut claims = Vec::new();
        for found in folder.states(layout.elements())? {
            let NodeState { node, state } = found?;
            claims.push(Claim { node, tip: state.tip, root: state_root(&state.parameters, cut) });
        }
        let newest = newest(&claims).ok_or_else(|| AuditError::NoState(folder.path().to_owned()))?.tip;
        let mut auditor = Auditor {
            stores,
            tip: Tip::genesis(run_id),
            report: Report { rounds: 0, state_roots: Vec::new(), contributions: 0, vouched: 0 },
            headers: BTreeMap::new(),
            heads: Vec::new(),
            run,
            run_id,
            layout,
            claims,
            parameters,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
        };
        auditor.headers = auditor.walk(newest);
        Ok(auditor)
    }

    /// The headers from the newest back to round 0, by hash. They only tell a difference more precisely: where one is in
    /// no store, the heads of the nodes are compared all the same.
    fn walk(&self, newest: Tip) -> BTreeMap<Round, Header> {
        let (mut headers, mut at) = (BTreeMap::new(), newest);
        while let Some(round) = at.round
            && let Some(header) = self.blob(at.head).and_then(|bytes| Header::from_bytes(&bytes).ok())
        {
            at = Tip { round: round.previous(), head: header.parent };
            headers.insert(round, header);
        }
        headers
    }

    /// A blob by name, from whatever store has it; every store checks the hash.
    fn blob(&self, name: Digest) -> Option<Vec<u8>> {
        self.stores.iter().find_map(|store| store.get(&name).ok().flatten())
    }

    fn audit(mut self, folder: &Folder) -> Result<Report, AuditError> {
        let last = newest(&self.claims).and_then(|claim| claim.tip.round);
        let mut views: BTreeMap<BlockNumber, ChainView> = BTreeMap::new();
        let chain = Replay::open(&folder.chain())?;
        let finalised = chain.finalised();
        // Number 0, the genesis, comes first.
        for (number, replayed) in (0..=finalised).zip(chain) {
            let replayed = replayed?;
            if number == 0 {
                self.check_genesis(folder, &replayed)?;
            }
            let Some(round) = Some(self.tip.next()).filter(|round| Some(*round) <= last) else { continue };
            let blocks = RoundBlocks::of(&self.run, round).map_err(SelectError::from)?;
            let wanted = [blocks.anchor, blocks.commit, blocks.vote];
            if wanted.contains(&BlockNumber(number)) {
                let netuid = self.run.chain.netuid;
                let view =
                    subnet::view(netuid, number, &replayed).map_err(|error| AuditError::View { number, error })?;
                views.insert(BlockNumber(number), view.ok_or(AuditError::NoSubnet { number, netuid })?);
            }
            if let [Some(at_a), Some(at_c), Some(at_v)] = wanted.map(|block| views.get(&block)) {
                let selection = select(&self.run, self.run_id, round, at_a, at_c, at_v)?;
                let hashes = [at_a.hash, at_c.hash, at_v.hash];
                self.check_votes(round, &selection)?;
                self.check_round(round, selection, hashes)?;
                views.clear();
            }
        }
        self.check_claims()?;
        Ok(self.report)
    }

    /// The chain is the one that the run is on.
    fn check_genesis(&self, folder: &Folder, first: &Replayed) -> Result<(), AuditError> {
        let (got, needed) = (Digest::new(first.block.hash.0), self.run.chain.genesis);
        if got == needed { Ok(()) } else { Err(AuditError::OtherChain { path: folder.chain(), got, needed }) }
    }

    /// The chain reaches as far as every node, and every node has what was computed for its round.
    fn check_claims(&self) -> Result<(), AuditError> {
        let cut_off = |claim: &&Claim| claim.tip.round > self.tip.round;
        if let Some(Claim { node, tip: Tip { round: Some(claimed), .. }, .. }) = self.claims.iter().find(cut_off) {
            return Err(AuditError::CutOff { computed: self.tip.round, claimed: *claimed, node: node.clone() });
        }
        for Claim { node, tip, root } in &self.claims {
            let (head, state) = match tip.round {
                None => (Tip::genesis(self.run_id).head, self.run.chain.genesis_state),
                Some(round) => (self.heads[round.0 as usize], self.report.state_roots[round.0 as usize]),
            };
            let node = node.clone();
            let what = if tip.head != head {
                Fault::Head { computed: head, claimed: tip.head, node }
            } else if *root != state {
                Fault::Saved { computed: state, claimed: *root, node }
            } else {
                continue;
            };
            return Err(Box::new(Difference { round: tip.round.unwrap_or(Round(0)), what }).into());
        }
        Ok(())
    }

    /// The head that the round's votes agree on is the one computed for the round before.
    fn check_votes(&mut self, round: Round, selection: &Selection) -> Result<(), AuditError> {
        let Some(claimed) = selection.agreed else { return Ok(()) };
        self.report.vouched += 1;
        if claimed == self.tip.head {
            return Ok(());
        }
        let what = Fault::Votes { computed: self.tip.head, claimed };
        Err(Box::new(Difference { round: round.previous().unwrap_or(round), what }).into())
    }

    fn check_round(&mut self, round: Round, selection: Selection, hashes: [Digest; 3]) -> Result<(), AuditError> {
        let chosen = match selection.outcome {
            Outcome::Chosen(chosen) => chosen,
            Outcome::Void(_) => Vec::new(),
        };
        let mut selected = Vec::with_capacity(chosen.len());
        for (uid, digest) in &chosen {
            selected.push(Arc::new(self.contribution(round, *uid, *digest)?));
        }
        let mut parameters = std::mem::take(&mut self.parameters);
        let blobs = |root: &Digest| Ok(self.blob(*root));
        next_parameters(&self.run, &self.layout, round, &mut parameters, (&selected, &blobs), self.threads)
            .map_err(|error| AuditError::Step { round, error })?;
        self.parameters = parameters;
        let manifest = state_manifest_on(self.threads, &self.parameters, self.run.compress.state_elements as usize);
        let [hash_a, hash_c, hash_v] = hashes;
        let computed = Header {
            run: self.run_id,
            round,
            parent: self.tip.head,
            hash_a,
            hash_c,
            hash_v,
            selected: chosen,
            state: manifest.root(),
        };
        self.compare(&computed, &manifest)?;
        self.tip = Tip { round: Some(round), head: computed.digest() };
        self.heads.push(self.tip.head);
        self.report.rounds += 1;
        self.report.contributions += selected.len();
        self.report.state_roots.push(computed.state);
        Ok(())
    }

    fn contribution(&self, round: Round, uid: Uid, digest: Digest) -> Result<Contribution, AuditError> {
        let missing = |what: String, digest| AuditError::Missing { round, what, digest };
        let bytes = self.blob(digest).ok_or_else(|| missing(format!("manifest of uid {uid}"), digest))?;
        let unfit = |error| AuditError::Unfit { round, uid, error };
        let manifest = Manifest::from_bytes(&bytes).map_err(|error| unfit(Unfit::NoManifest(error)))?;
        check_shape(&self.run, &self.layout, &manifest).map_err(unfit)?;
        let mut check = ShardCheck::new(manifest.clone());
        for (number, shard) in manifest.shards.iter().enumerate() {
            let bytes = self.blob(shard.root);
            let bytes = bytes.ok_or_else(|| missing(format!("shard {number} of uid {uid}"), shard.root))?;
            let (named, got) = (shard.size, bytes.len() as u64);
            if named != got {
                return Err(unfit(Unfit::Size { root: shard.root, named, got }));
            }
            check.push(&self.run, &self.layout, &bytes).map_err(unfit)?;
        }
        Ok(check.finish().expect("every shard of the manifest was pushed"))
    }

    /// Holds a computed header against the swarm's.
    fn compare(&self, computed: &Header, manifest: &StateManifest) -> Result<(), AuditError> {
        let round = computed.round;
        let Some(claimed) = self.headers.get(&round) else { return Ok(()) };
        let uids = |header: &Header| header.selected.iter().map(|(uid, _)| *uid).collect();
        let what = if computed.selected != claimed.selected {
            Fault::Selection { computed: uids(computed), claimed: uids(claimed) }
        } else if computed.state != claimed.state {
            Fault::State {
                computed: computed.state,
                claimed: claimed.state,
                place: self.place(manifest, claimed.state),
            }
        } else if computed != claimed {
            Fault::Header { computed: computed.digest(), claimed: claimed.digest() }
        } else {
            return Ok(());
        };
        Err(Box::new(Difference { round, what }).into())
    }

    /// Where a computed state first differs from a claimed one.
    fn place(&self, computed: &StateManifest, claimed: Digest) -> Place {
        let (elements, cut) = (self.layout.elements(), self.run.compress.state_elements as usize);
        let claimed = self.blob(claimed).and_then(|bytes| StateManifest::from_bytes(&bytes, elements, cut).ok());
        let Some(claimed) = claimed else { return Place::Unknown };
        let differs = computed.shards.iter().zip(&claimed.shards).position(|(a, b)| a != b);
        let Some(number) = differs else { return Place::Unknown };
        let shard = number * cut..(number + 1) * cut;
        let tensors = self.layout.tensors_in(shard).map(|tensor| tensor.name.clone()).collect();
        Place::Shard { number, tensors }
    }
}

/// The state that the run begins with: drawn, or of somebody's model, which the stores must hold by its root.
fn first_state(run: &Run, layout: &Layout, stores: &[Store]) -> Result<Vec<f32>, AuditError> {
    let (cut, claimed) = (run.compress.state_elements as usize, run.chain.genesis_state);
    let Ok(drawn) = initial_state(&run.model) else {
        let blob = |name: &Digest| stores.iter().find_map(|store| store.get(name).ok().flatten());
        let missing = |digest| AuditError::NoGenesis { digest };
        let list = blob(&claimed).ok_or_else(|| missing(claimed))?;
        let manifest = StateManifest::from_bytes(&list, layout.elements(), cut).map_err(|_| missing(claimed))?;
        let mut state = Assembly::new(layout.elements());
        for shard in &manifest.shards {
            let bytes = blob(&shard.root).ok_or_else(|| missing(shard.root))?;
            state.push(&bytes).map_err(|_| missing(shard.root))?;
        }
        return state.finish().map_err(|_| missing(claimed));
    };
    let computed = state_root(&drawn, cut);
    if computed == claimed { Ok(drawn) } else { Err(AuditError::Genesis { computed, claimed }) }
}

/// The newest of what nodes have; of equally new ones the first node's.
fn newest(claims: &[Claim]) -> Option<&Claim> {
    claims.iter().rev().max_by_key(|claim| claim.tip.round)
}

/// The stores of all nodes that have one. Opening one takes its lock: no node may be at home.
fn open_stores(folder: &Folder) -> Result<Vec<Store>, AuditError> {
    let open = |path: &PathBuf| {
        Store::open(path, u64::MAX).map_err(|error| match error {
            StoreError::Locked(path) => AuditError::Running(path),
            error => AuditError::Store(error),
        })
    };
    folder.nodes()?.iter().filter(|path| path.join("blobs").is_dir()).map(open).collect()
}
