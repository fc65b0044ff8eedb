//! Whom a validator evaluates in a round: how many it has time for, and who comes first.

use covey_proto::run::Run;
use covey_proto::{Digest, Round, Uid, derive};
use covey_round::assign::samples_per_member;
use covey_round::engine::Collection;
use covey_round::rating::{PeerKey, Ratings};

/// Contributions that a validator may evaluate in a round: as many as fit into the stated share of the time in which a
/// miner trains.
///
/// A sequence costs a miner a forward and a backward pass, about three forward passes; a contribution costs a validator
/// three forward passes of an evaluation set (own data before and after, random data after). At least one is evaluated.
pub fn evaluations_max(run: &Run, round: Round) -> usize {
    let training = samples_per_member(run, round) as f64;
    ((run.scoring.share * training / f64::from(run.scoring.sequences)) as usize).max(1)
}

/// Whom to evaluate first: who has waited longest, ties in an order of this voter's own.
pub fn order(collection: &Collection, ratings: &Ratings, voter: Uid) -> Vec<Uid> {
    let waited = |uid: &Uid| {
        let member = collection.members.get(uid)?;
        Some(ratings.rating(&PeerKey::from(member))?.evaluated)
    };
    let tie = |uid: &Uid| {
        let parts =
            [collection.beacon.as_bytes().as_slice(), &voter.number().to_le_bytes(), &uid.number().to_le_bytes()];
        let mut bytes = [0; 32];
        derive("covey/1/look", &parts).fill(&mut bytes);
        Digest::new(bytes)
    };
    let mut uids: Vec<Uid> = collection.offered.keys().copied().collect();
    uids.sort_by_cached_key(|uid| (waited(uid), tie(uid)));
    uids
}
