//! Which contributions a round applies: a pure function of three finalised states, the same for everyone.
//!
//! The anchor A says who may vote and with what stake, the commit deadline C what is offered, the vote deadline V what
//! was voted. More than half of the electorate's stake, behind one head, decides. What a validator puts on its ballot
//! is its own policy ([`crate::ballot`]); fetching and applying what was chosen is for others.

use crate::clock::{BeyondBlocks, RoundBlocks, beacon, derive_digest};
use covey_proto::chain::{ChainView, Member};
use covey_proto::record::{Record, UidSet, Vote};
use covey_proto::run::Run;
use covey_proto::{BlockNumber, Digest, Round, RunId, Uid};
use std::collections::BTreeMap;

/// What a round's three states decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// What is applied, or why nothing is.
    pub outcome: Outcome,
    /// The head that over half of the electorate's stake votes for: it vouches for the round before this one.
    pub agreed: Option<Digest>,
    /// The electorate: whose stake the majority is counted in.
    pub voters: UidSet,
    /// T: the electorate's stake.
    pub total_stake: u128,
    /// Members with permit and stake whose slot at V holds a vote of this round, in the electorate or not, whatever
    /// the vote says. A sign of life: if it is empty for three rounds, a miner stops training until somebody votes again.
    pub voted: UidSet,
    /// Stake of the electorate's ballots by head: the evidence when votes split.
    pub heads: BTreeMap<Digest, u128>,
    /// G: the voters behind the leading head; empty if two heads lead. A voter has fetched and checked what is on its ballot,
    /// so these are the peers to fetch it from.
    pub group: UidSet,
    /// Stake of G behind each uid that it votes for, offered or not.
    pub support: BTreeMap<Uid, u128>,
    /// The manifests' digests that stand at C.
    pub offered: BTreeMap<Uid, Digest>,
}

/// What a round applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// These manifests, by uid rising; at least `contributions_min`, at most `contributions_max`.
    Chosen(Vec<(Uid, Digest)>),
    /// Nothing: the state stays as it is.
    Void(VoidReason),
}

/// Why a round applies nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VoidReason {
    /// Nobody with a permit and enough stake votes, or those who do have no stake.
    #[error("nobody with stake votes")]
    NoElectorate,
    /// The electorate's stake is below the run's least.
    #[error("the electorate's stake is {total}; the run asks for {needed}")]
    ThinElectorate {
        /// T.
        total: u128,
        /// The run's `electorate_min`.
        needed: u64,
    },
    /// No voter's slot holds a valid ballot with a head.
    #[error("none of the {voters} voters cast a valid ballot with a head")]
    NoBallot {
        /// Voters.
        voters: usize,
    },
    /// Two heads lead with the same stake.
    #[error("two heads lead with stake {stake} each")]
    TiedHeads {
        /// The stake behind each.
        stake: u128,
    },
    /// Fewer contributions than the run's least have a majority.
    #[error("{chosen} contributions have a majority; the run asks for {needed}")]
    TooFew {
        /// With a majority.
        chosen: usize,
        /// The run's `contributions_min`.
        needed: u32,
    },
}

/// States that are not this round's: the caller's mistake, never a peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// The round has no blocks.
    #[error(transparent)]
    Round(#[from] BeyondBlocks),
    /// A state of another block.
    #[error("round {round} is decided by the state at {name} = {needed}, not at {got}: read the chain at {needed}")]
    WrongBlock {
        /// The round.
        round: Round,
        /// A, C or V.
        name: char,
        /// The block of the state that came.
        got: BlockNumber,
        /// The block it must be of.
        needed: BlockNumber,
    },
}

/// What `round` applies, from the states at its A, C and V.
///
/// # Errors
/// [`SelectError`] if a state is not of the round's block.
pub fn select(
    run: &Run,
    run_id: RunId,
    round: Round,
    at_a: &ChainView,
    at_c: &ChainView,
    at_v: &ChainView,
) -> Result<Selection, SelectError> {
    let blocks = RoundBlocks::of(run, round)?;
    same_block(round, 'V', at_v, blocks.vote)?;
    let offered = offered(run, run_id, round, at_a, at_c)?;

    let votes = votes_of_round(run, run_id, round, at_a, at_v);
    let electorate = electorate(run, run_id, round, at_a, &votes);
    let total = electorate.values().map(|stake| u128::from(*stake)).sum::<u128>();
    let mut selection = Selection {
        outcome: Outcome::Void(VoidReason::NoElectorate),
        agreed: None,
        voters: electorate.keys().copied().collect(),
        total_stake: total,
        voted: votes.keys().copied().collect(),
        heads: BTreeMap::new(),
        group: UidSet::default(),
        support: BTreeMap::new(),
        offered,
    };
    let entropy = beacon(run, run_id, at_v.block, at_v.hash);
    selection.outcome = match decide(run, &electorate, &votes, &mut selection) {
        Err(reason) => Outcome::Void(reason),
        Ok(()) => chosen(run, &selection, |uid| tie_order(run_id, round, entropy, uid)),
    };
    Ok(selection)
}

/// The manifests that stand at C: `digest` of each member at A whose slot at C holds a contribution of this round that
/// was set after A. Needed as soon as C is final; [`select`] says it again.
///
/// # Errors
/// [`SelectError`] if a state is not of the round's block.
pub fn offered(
    run: &Run,
    run_id: RunId,
    round: Round,
    at_a: &ChainView,
    at_c: &ChainView,
) -> Result<BTreeMap<Uid, Digest>, SelectError> {
    let blocks = RoundBlocks::of(run, round)?;
    same_block(round, 'A', at_a, blocks.anchor)?;
    same_block(round, 'C', at_c, blocks.commit)?;
    let manifest = |member: &Member| {
        let slot = at_c.slots.get(&member.hotkey)?;
        let contribution = record_of(run_id, &slot.bytes)?.contribution?;
        let standing = contribution.round == round && blocks.anchor < slot.block && slot.block <= blocks.commit;
        standing.then_some(contribution.manifest)
    };
    Ok(at_a.members.iter().filter_map(|(uid, member)| Some((*uid, manifest(member)?))).collect())
}

fn same_block(round: Round, name: char, view: &ChainView, needed: BlockNumber) -> Result<(), SelectError> {
    match view.block == needed {
        true => Ok(()),
        false => Err(SelectError::WrongBlock { round, name, got: view.block, needed }),
    }
}

/// The record in a slot, if it is one and this run's. Anything else is no vote and no contribution, and no offence.
fn record_of(run_id: RunId, bytes: &[u8]) -> Option<Record> {
    Record::from_bytes(bytes).ok().filter(|record| record.is_of(run_id))
}

/// The vote in the member's slot in that state.
fn vote_of(run_id: RunId, member: &Member, view: &ChainView) -> Option<Vote> {
    record_of(run_id, &view.slots.get(&member.hotkey)?.bytes)?.vote
}

/// Members at A that may vote, of whom `stake_min` is asked.
fn eligible<'a>(run: &Run, at_a: &'a ChainView) -> impl Iterator<Item = (Uid, &'a Member)> {
    let stake_min = run.electorate.stake_min;
    let members = at_a.members.iter().map(|(uid, member)| (*uid, member));
    members.filter(move |(_, member)| member.permit && member.stake >= stake_min)
}

/// A vote and what stands behind it.
struct Cast {
    stake: u64,
    vote: Vote,
}

/// The votes of this round in the slots at V, of members that may vote.
fn votes_of_round(run: &Run, run_id: RunId, round: Round, at_a: &ChainView, at_v: &ChainView) -> BTreeMap<Uid, Cast> {
    eligible(run, at_a)
        .filter_map(|(uid, member)| {
            let vote = vote_of(run_id, member, at_v).filter(|vote| vote.round == round)?;
            Some((uid, Cast { stake: member.stake, vote }))
        })
        .collect()
}

/// Who counts, and with what stake: who voted within W rounds before this one, as the slots at A show. If nobody did
/// (genesis, or all are gone), who votes now.
fn electorate(
    run: &Run,
    run_id: RunId,
    round: Round,
    at_a: &ChainView,
    votes: &BTreeMap<Uid, Cast>,
) -> BTreeMap<Uid, u64> {
    let recent = round.0.saturating_sub(run.electorate.window)..round.0;
    let standing: BTreeMap<Uid, u64> = eligible(run, at_a)
        .filter(|(_, member)| vote_of(run_id, member, at_a).is_some_and(|vote| recent.contains(&vote.round.0)))
        .map(|(uid, member)| (uid, member.stake))
        .collect();
    match standing.is_empty() {
        true => votes.iter().map(|(uid, cast)| (*uid, cast.stake)).collect(),
        false => standing,
    }
}

/// Fills in the heads, the group behind the leading one, its support and the agreed head.
fn decide(
    run: &Run,
    electorate: &BTreeMap<Uid, u64>,
    votes: &BTreeMap<Uid, Cast>,
    selection: &mut Selection,
) -> Result<(), VoidReason> {
    let total = selection.total_stake;
    if total == 0 {
        return Err(VoidReason::NoElectorate);
    }
    let needed = run.electorate.electorate_min;
    if total < u128::from(needed) {
        return Err(VoidReason::ThinElectorate { total, needed });
    }
    let places = run.electorate.contributions_max as usize;
    let ballots = || {
        let cast = electorate.iter().filter_map(|(uid, stake)| Some((*uid, *stake, votes.get(uid)?.vote)));
        cast.filter(|(_, _, vote)| vote.ballot.len() <= places && vote.head != Digest::ZERO)
    };
    for (_, stake, vote) in ballots() {
        *selection.heads.entry(vote.head).or_default() += u128::from(stake);
    }
    let Some(most) = selection.heads.values().copied().max() else {
        return Err(VoidReason::NoBallot { voters: electorate.len() });
    };
    let mut leading = selection.heads.iter().filter(|(_, stake)| **stake == most).map(|(head, _)| *head);
    let (Some(head), None) = (leading.next(), leading.next()) else {
        return Err(VoidReason::TiedHeads { stake: most });
    };
    for (uid, stake, vote) in ballots().filter(|(_, _, vote)| vote.head == head) {
        selection.group.insert(uid);
        for voted in vote.ballot.iter() {
            *selection.support.entry(voted).or_default() += u128::from(stake);
        }
    }
    selection.agreed = is_majority(most, total).then_some(head);
    Ok(())
}

/// The offered uids with a majority: the `contributions_max` of most support, ties in the round's random order.
fn chosen(run: &Run, selection: &Selection, tie_order: impl Fn(Uid) -> Digest) -> Outcome {
    let support = |uid: &Uid| selection.support.get(uid).copied().unwrap_or(0);
    let mut chosen: Vec<(Uid, Digest)> = selection
        .offered
        .iter()
        .filter(|(uid, _)| is_majority(support(uid), selection.total_stake))
        .map(|(uid, manifest)| (*uid, *manifest))
        .collect();
    chosen.sort_by_cached_key(|(uid, _)| (std::cmp::Reverse(support(uid)), tie_order(*uid), *uid));
    chosen.truncate(run.electorate.contributions_max as usize);
    chosen.sort_by_key(|(uid, _)| *uid);
    let needed = run.electorate.contributions_min;
    match chosen.len() < needed as usize {
        true => Outcome::Void(VoidReason::TooFew { chosen: chosen.len(), needed }),
        false => Outcome::Chosen(chosen),
    }
}

/// More than half. The sums are of at most 256 u64, so that twice one stays far below u128's end.
fn is_majority(stake: u128, total: u128) -> bool {
    2 * stake > total
}

/// `derive("covey/1/tie", run ‖ r u32 LE ‖ beacon(V) ‖ u u32 LE)`: known only after the votes.
fn tie_order(run_id: RunId, round: Round, entropy: Digest, uid: Uid) -> Digest {
    let (round, uid) = (round.0.to_le_bytes(), uid.number().to_le_bytes());
    derive_digest("covey/1/tie", &[run_id.0.as_bytes(), &round, entropy.as_bytes(), &uid])
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
