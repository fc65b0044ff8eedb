//! What a validator thinks of each peer: from loss scores to weights on chain, and to who is known to be bad.
//!
//! Each validator has its own ratings; nothing that all must agree on depends on them. Measuring gains is scoring's
//! work; what a rating does to a ballot is decided by [`crate::ballot`].
//!
//! # The rule
//! Of each evaluated contribution come two relative loss improvements, `own` on the data its author was assigned and
//! `random` on data nobody was (Gauntlet, arXiv 2505.21684; parameters as in Templar). From them, per peer:
//!
//! - *usefulness* u: the mean of the last [`GAINS_KEPT`] of `random ÷ m`, cut to −1 … 1, where m is the mean of that
//!   round's positive `random`. Relative to the round, so gains that shrink as training goes on weigh the same; cut, so
//!   one lucky set of sequences is worth no more than an ordinary good one. A round in which nobody has a positive
//!   gain says nothing here: the step was too long, or the data odd, for everybody. Of the gains 0.02, 0.01 and −0.01 m is
//!   0.015, so that these peers get 1 (1.33, cut), 0.67 and −0.67.
//! - *own*: a moving average b ← b + α(±1 − b) of "own > random", from 0. Who did not train on its data (copies,
//!   mixtures, another's data) wins half of the time. The average of such a coin has deviation s = √(α ÷ (2 − α)), and
//!   f = (b + s) ÷ 4s, cut to 0.1 … 1: it starts at ¼, and three deviations are full trust. With
//!   α = 0.05 s is 0.16: who wins nine comparisons of ten comes to b = 0.8 and has full trust, who wins half stays near ¼.
//!   Gauntlet's max(0, b) would
//!   take everything from an honest peer of near-chance comparisons every few rounds.
//! - *skill*: a Plackett–Luce rating by rank of `random`; q = 1 ÷ (1 + exp((ō − o) ÷ 2β)), o its ordinal μ − 3σ and
//!   ō the mean ordinal of the useful: something like the chance to beat an average peer. Gauntlet multiplies by the ordinal
//!   itself, which leaves an unlucky one of a few equal peers below zero for tens of rounds.
//!
//! `score = max(0, u) · f · q · 0.75^a` after a rounds of absence, and a weight is score^power, normalised. A failure
//! (a contribution that was offered, but is invalid, or whose bytes nobody gave) counts as a lost comparison, −1 of usefulness
//! and the last rank.
//!
//! What that gives is measured in `trials`, over some 300 seeded swarms a case: a noise miner whose random gain is never
//! positive has no weight from the first useful round on; one whose random gains drift around nothing has under 2 % from
//! round 10 on, in 99 swarms of 100, with three honest peers or twelve; so do the 25 of a swarm of 256. One of three
//! honest peers is pushed under a tenth of an equal share over 40 rounds in 5 swarms of 300 (17 where own data wins only
//! 60 %), by Gauntlet's product in 26 (61).

mod bytes;
mod skill;
#[cfg(test)]
mod trials;

pub use bytes::{BYTES_MAX, RatingsError};
pub use skill::Skill;

use covey_proto::chain::Member;
use covey_proto::run::Scoring;
use covey_proto::{BlockNumber, Hotkey, Round, Uid};
use std::collections::{BTreeMap, BTreeSet};

/// Evaluations that usefulness remembers: a bad round is outweighed by the next good one, and forgotten after eight.
pub const GAINS_KEPT: usize = 8;
/// Evaluations before a peer can be called bad, or good: one bad set of sequences must not decide.
pub const EVALUATIONS_MIN: u32 = 3;
/// A peer known bad and not evaluated for this many rounds may try once more. What is let in so is clipped, and one in
/// 32 rounds; never would shut out who mended its node.
pub const PAROLE_ROUNDS: u32 = 32;
/// The least f: comparisons alone never end a useful peer, or a swarm whose comparisons are all near chance would now
/// and then have nobody to give weight to.
const OWN_TRUST_MIN: f64 = 0.1;
/// What a round of absence leaves of a score (Templar).
const ABSENCE: f64 = 0.75;

/// Whose rating it is. Another holder of the uid starts anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey {
    /// The uid.
    pub uid: Uid,
    /// Its holder's key.
    pub hotkey: Hotkey,
    /// The block at which the holder registered.
    pub registered_at: BlockNumber,
}

impl From<&Member> for PeerKey {
    fn from(member: &Member) -> PeerKey {
        PeerKey { uid: member.uid, hotkey: member.hotkey, registered_at: member.registered_at }
    }
}

/// What came of looking at one peer in one round. Who was not looked at is not mentioned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Evaluation {
    /// Relative improvements, `(before − after) ÷ before`. A number that is not finite counts as [`Evaluation::Failed`].
    Gains {
        /// On samples assigned to the peer.
        own: f64,
        /// On samples assigned to nobody.
        random: f64,
    },
    /// Offered, but invalid, or its bytes could not be had in time.
    Failed,
    /// Nothing was offered.
    Absent,
}

/// One peer's evaluation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// Whose.
    pub peer: PeerKey,
    /// What came of it.
    pub evaluation: Evaluation,
}

/// What is known of one peer.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Rating {
    /// Its Plackett–Luce skill.
    pub skill: Skill,
    /// b: the moving average of "own > random", −1 to 1.
    pub average: f64,
    /// The last relative gains, oldest first, at most [`GAINS_KEPT`], each −1 to 1.
    pub gains: Vec<f64>,
    /// Evaluations, failed ones too.
    pub evaluations: u32,
    /// The round of the last evaluation.
    pub evaluated: Round,
    /// Rounds without an offer since.
    pub absent: u32,
}

impl Rating {
    /// u, if a round has said anything about it yet.
    pub fn usefulness(&self) -> Option<f64> {
        (!self.gains.is_empty()).then(|| self.gains.iter().sum::<f64>() / self.gains.len() as f64)
    }

    fn evaluate(&mut self, round: Round, average: f64, won: bool, gain: Option<f64>) {
        if round.0.saturating_sub(self.evaluated.0) > PAROLE_ROUNDS {
            self.gains.clear();
        }
        self.average += average * (if won { 1.0 } else { -1.0 } - self.average);
        if let Some(gain) = gain {
            if self.gains.len() == GAINS_KEPT {
                self.gains.remove(0);
            }
            self.gains.push(gain);
        }
        self.evaluations = self.evaluations.saturating_add(1);
        self.evaluated = round;
        self.absent = 0;
    }
}

/// How a peer stands for a ballot: coarse, because honest validators' ratings differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Standing {
    /// Too few evaluations to tell, or none for long.
    Unrated,
    /// Useful so far, with this score.
    Admitted(f64),
    /// Several evaluations, and no use on average.
    Bad,
}

/// An evaluation of a round that is already in the ratings, or older.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("round {got} comes after round {last} was rated: rounds must rise")]
pub struct StaleRound {
    /// The round that came.
    pub got: Round,
    /// The last that is in.
    pub last: Round,
}

/// A validator's ratings: at most one peer a uid.
#[derive(Clone, Debug, PartialEq)]
pub struct Ratings {
    /// α of the moving average, 0 to 1.
    average: f64,
    last: Option<Round>,
    peers: BTreeMap<Uid, (PeerKey, Rating)>,
}

impl Ratings {
    /// Ratings of nobody.
    pub fn new(scoring: &Scoring) -> Ratings {
        Ratings { average: scoring.average, last: None, peers: BTreeMap::new() }
    }

    /// The last round that is in.
    pub fn last(&self) -> Option<Round> {
        self.last
    }

    /// What is known of a peer.
    pub fn rating(&self, peer: &PeerKey) -> Option<&Rating> {
        self.peers.get(&peer.uid).filter(|(key, _)| key == peer).map(|(_, rating)| rating)
    }

    /// Takes in a round's evaluations, in whatever order; of two of one uid the first counts.
    ///
    /// If not one contribution could be evaluated, the failures are more likely this node's: only absences count.
    ///
    /// # Errors
    /// [`StaleRound`] for a round that is in already; nothing has changed then.
    pub fn observe(&mut self, round: Round, scored: &[Scored]) -> Result<(), StaleRound> {
        if let Some(last) = self.last.filter(|last| round <= *last) {
            return Err(StaleRound { got: round, last });
        }
        self.last = Some(round);
        let mut seen = BTreeSet::new();
        let mut entrants: Vec<(PeerKey, Option<(f64, f64)>)> = Vec::new();
        for Scored { peer, evaluation } in scored.iter().filter(|scored| seen.insert(scored.peer.uid)) {
            match *evaluation {
                Evaluation::Absent => self.note_absence(peer),
                Evaluation::Failed => entrants.push((*peer, None)),
                Evaluation::Gains { own, random } => {
                    entrants.push((*peer, (own.is_finite() && random.is_finite()).then_some((own, random))));
                }
            }
        }
        if entrants.iter().any(|(_, gains)| gains.is_some()) {
            entrants.sort_unstable_by_key(|(peer, _)| *peer);
            self.rate(round, &entrants);
        }
        Ok(())
    }

    fn note_absence(&mut self, peer: &PeerKey) {
        if let Some((_, rating)) = self.peers.get_mut(&peer.uid).filter(|(key, _)| key == peer) {
            rating.absent = rating.absent.saturating_add(1);
        }
    }

    fn rate(&mut self, round: Round, entrants: &[(PeerKey, Option<(f64, f64)>)]) {
        let scale =
            mean(entrants.iter().filter_map(|(_, gains)| gains.map(|gains| gains.1)).filter(|gain| *gain > 0.0));
        let mut skills = Vec::with_capacity(entrants.len());
        for (peer, gains) in entrants {
            let rating = self.entry(*peer);
            skills.push(rating.skill);
            let (won, gain) = match gains {
                None => (false, Some(-1.0)),
                Some((own, random)) => (own > random, scale.map(|scale| (random / scale).clamp(-1.0, 1.0))),
            };
            let average = self.average;
            self.entry(*peer).evaluate(round, average, won, gain);
        }
        let strengths: Vec<f64> =
            entrants.iter().map(|(_, gains)| gains.map_or(f64::NEG_INFINITY, |gains| gains.1)).collect();
        skill::rank(&mut skills, &strengths);
        for ((peer, _), skill) in entrants.iter().zip(skills) {
            self.entry(*peer).skill = skill;
        }
    }

    fn entry(&mut self, peer: PeerKey) -> &mut Rating {
        let (key, rating) = self.peers.entry(peer.uid).or_insert_with(|| (peer, Rating::default()));
        if *key != peer {
            (*key, *rating) = (peer, Rating::default());
        }
        rating
    }

    /// Scores of those of `members` that have a rating, 0 or more.
    pub fn scores(&self, members: &BTreeMap<Uid, Member>) -> BTreeMap<Uid, f64> {
        let rated: Vec<(Uid, &Rating)> =
            members.iter().filter_map(|(uid, member)| Some((*uid, self.rating(&member.into())?))).collect();
        let useful = |rating: &Rating| rating.usefulness().unwrap_or(0.0).max(0.0);
        let ordinals = rated.iter().filter(|(_, rating)| useful(rating) > 0.0);
        let middle = mean(ordinals.map(|(_, rating)| rating.skill.ordinal())).unwrap_or(0.0);
        let score = |rating: &Rating| {
            let skill = 1.0 / (1.0 + ((middle - rating.skill.ordinal()) / (2.0 * skill::BETA)).exp());
            let absence = ABSENCE.powi(rating.absent.min(1000) as i32);
            useful(rating) * self.own_trust(rating.average) * skill * absence
        };
        rated.iter().map(|(uid, rating)| (*uid, score(rating))).collect()
    }

    /// f: what the moving average is worth.
    fn own_trust(&self, average: f64) -> f64 {
        let deviation = (self.average / (2.0 - self.average)).sqrt();
        // An average that never moves says nothing about anyone.
        if deviation > 0.0 { ((average + deviation) / (4.0 * deviation)).clamp(OWN_TRUST_MIN, 1.0) } else { 1.0 }
    }

    /// Shares of the weight among `members`, summing to 1: scores to the run's power. Empty if nobody has a score.
    pub fn shares(&self, members: &BTreeMap<Uid, Member>, power: f64) -> BTreeMap<Uid, f64> {
        let scores = self.scores(members);
        let top = scores.values().copied().fold(0.0, f64::max);
        // By the largest first: no power overflows or vanishes for all.
        let powers: BTreeMap<Uid, f64> = scores
            .into_iter()
            .filter(|(_, score)| *score > 0.0)
            .map(|(uid, score)| (uid, (score / top).powf(power)))
            .collect();
        let total: f64 = powers.values().sum();
        powers.into_iter().map(|(uid, value)| (uid, value / total)).collect()
    }

    /// [`Ratings::shares`] as chains take them: the largest is 65,535, what rounds to 0 is left out.
    pub fn weights(&self, members: &BTreeMap<Uid, Member>, power: f64) -> BTreeMap<Uid, u16> {
        let shares = self.shares(members, power);
        let top = shares.values().copied().fold(0.0, f64::max);
        let weight = |share: f64| (share / top * f64::from(u16::MAX)).round() as u16;
        shares.into_iter().map(|(uid, share)| (uid, weight(share))).filter(|(_, weight)| *weight > 0).collect()
    }

    /// How each of `members` stands in `round`.
    pub fn standings(&self, members: &BTreeMap<Uid, Member>, round: Round) -> BTreeMap<Uid, Standing> {
        let scores = self.scores(members);
        let standing = |uid: &Uid, member: &Member| {
            let Some(rating) = self.rating(&member.into()).filter(|rating| rating.evaluations >= EVALUATIONS_MIN)
            else {
                return Standing::Unrated;
            };
            let lapsed = round.0.saturating_sub(rating.evaluated.0) > PAROLE_ROUNDS;
            match rating.usefulness() {
                Some(useful) if useful > 0.0 => Standing::Admitted(scores.get(uid).copied().unwrap_or(0.0)),
                Some(_) if !lapsed => Standing::Bad,
                _ => Standing::Unrated,
            }
        };
        members.iter().map(|(uid, member)| (*uid, standing(uid, member))).collect()
    }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0u32), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

#[cfg(test)]
mod tests;
