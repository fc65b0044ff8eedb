//! Swarms of simulated gains: how fast honest peers and noise come apart, and who is wronged on the way.

use super::*;
use crate::clock::tests::bittensor;
use covey_proto::random::SplitMix64;

/// What befalls a simulated swarm.
pub(super) struct Dice(SplitMix64);

impl Dice {
    pub(super) fn seeded(seed: u64) -> Dice {
        Dice(SplitMix64::seeded(seed))
    }

    /// 0 to 1.
    pub(super) fn unit(&mut self) -> f64 {
        self.0.unit()
    }
    /// About normal, of deviation 1: a sum of twelve.
    pub(super) fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
    fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }
}

pub(super) fn key(uid: u8) -> PeerKey {
    PeerKey { uid: uid.into(), hotkey: Hotkey::new([uid; 32]), registered_at: BlockNumber(1) }
}

pub(super) fn members(count: usize) -> BTreeMap<Uid, Member> {
    (0..count)
        .map(|uid| {
            let PeerKey { uid, hotkey, registered_at } = key(uid as u8);
            (uid, Member { uid, hotkey, registered_at, permit: false, stake: 0 })
        })
        .collect()
}

/// How a simulated peer does.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Gains of 1 ± `spread` between peers, ± `luck` between rounds; own beats random with that probability.
    Honest { luck: f64, wins: f64 },
    /// Never a positive random gain, own a coin.
    Noise,
    /// Random gains around nothing, of that deviation, own a coin.
    Drift(f64),
    /// As useful as the honest, of `luck`, but own is a coin: trained on no data of its own.
    Copy { luck: f64 },
}

struct Trial {
    ratings: Ratings,
    members: BTreeMap<Uid, Member>,
    kinds: Vec<(Kind, f64)>,
    dice: Dice,
    round: u32,
}

impl Trial {
    fn of(seed: u64, kinds: &[Kind]) -> Trial {
        let mut dice = Dice::seeded(seed);
        Trial {
            ratings: Ratings::new(&bittensor().scoring),
            members: members(kinds.len()),
            kinds: kinds.iter().map(|kind| (*kind, 1.0 + 0.15 * dice.normal())).collect(),
            dice,
            round: 0,
        }
    }

    /// A round in which `evaluated` of the peers are looked at; gains shrink to a fiftieth within fifty rounds.
    fn round(&mut self, evaluated: usize) {
        let scale = 0.02 * (-0.08 * f64::from(self.round)).exp();
        let dice = &mut self.dice;
        // The sequences that all are judged by are odd together.
        let common = 0.3 * dice.normal();
        let mut order: Vec<usize> = (0..self.kinds.len()).collect();
        (0..evaluated.min(order.len())).for_each(|i| {
            let other = i + (dice.unit() * (order.len() - i) as f64) as usize;
            order.swap(i, other);
        });
        let scored: Vec<Scored> = order[..evaluated.min(order.len())]
            .iter()
            .map(|uid| {
                let (kind, quality) = self.kinds[*uid];
                let (random, wins) = match kind {
                    Kind::Honest { luck, wins } => (quality + common + luck * dice.normal(), wins),
                    Kind::Noise => (-0.3 * dice.unit(), 0.5),
                    Kind::Drift(deviation) => (deviation * dice.normal(), 0.5),
                    Kind::Copy { luck } => (quality + common + luck * dice.normal(), 0.5),
                };
                let own = random + if dice.chance(wins) { 0.1 } else { -0.1 };
                let evaluation = Evaluation::Gains { own: own * scale, random: random * scale };
                Scored { peer: key(*uid as u8), evaluation }
            })
            .collect();
        self.ratings.observe(Round(self.round), &scored).unwrap();
        self.round += 1;
    }

    fn share(&self, wanted: impl Fn(Kind) -> bool) -> f64 {
        let shares = self.ratings.shares(&self.members, 2.0);
        shares.iter().filter(|(uid, _)| wanted(self.kinds[uid.index()].0)).map(|(_, share)| share).sum()
    }

    fn shares(&self) -> Vec<f64> {
        let shares = self.ratings.shares(&self.members, 2.0);
        (0..self.kinds.len()).map(|uid| shares.get(&Uid::from(uid as u8)).copied().unwrap_or(0.0)).collect()
    }
}

fn bad(kind: Kind) -> bool {
    matches!(kind, Kind::Noise | Kind::Drift(_))
}

/// Runs `trials` seeded swarms for `rounds`, all peers evaluated; `after` sees each round's (seed, swarm).
fn trials(kinds: &[Kind], trials: u64, rounds: u32, mut after: impl FnMut(u32, Vec<(u64, &Trial)>)) {
    let mut swarms: Vec<Trial> = (0..trials).map(|seed| Trial::of(seed, kinds)).collect();
    for round in 1..=rounds {
        swarms.iter_mut().for_each(|swarm| swarm.round(kinds.len()));
        after(round, (0..).zip(&swarms).collect());
    }
}

/// Fails if in more than `unlucky` of a hundred swarms the noise has `bound` of the weight or more, at any one round
/// from the tenth on.
fn expect_noise_below(bound: f64, unlucky: u64, kinds: &[Kind], count: u64) {
    trials(kinds, count, 50, |round, swarms| {
        if round < 10 {
            return;
        }
        let over: Vec<(u64, f64)> =
            swarms.iter().map(|(seed, swarm)| (*seed, swarm.share(bad))).filter(|(_, share)| *share >= bound).collect();
        assert!(
            over.len() as u64 * 100 <= unlucky * count,
            "round {round}, {kinds:?}: (seed, share of noise) {over:?}"
        );
        for (seed, swarm) in swarms {
            let all = swarm.share(|_| true);
            assert!((all - 1.0).abs() < 1e-9, "round {round}, seed {seed}: shares sum to {all}");
        }
    });
}

const STEADY: f64 = 0.4;

fn honest(wins: f64) -> Kind {
    Kind::Honest { luck: STEADY, wins }
}

#[test]
fn one_noise_miner_among_three_honest_ends_below_two_percent() {
    for wins in [[0.8; 3], [0.9, 0.7, 0.6], [0.55; 3]] {
        expect_noise_below(0.001, 0, &[honest(wins[0]), honest(wins[1]), honest(wins[2]), Kind::Noise], 300);
        expect_noise_below(0.02, 1, &[honest(wins[0]), honest(wins[1]), honest(wins[2]), Kind::Drift(0.3)], 300);
    }
}

/// Late in training one evaluation says little: an honest gain is negative in one round of six. What drifts around no
/// gain at all is then, for a while, lucky in a few swarms of a hundred.
#[test]
fn noise_stays_below_two_percent_when_honest_gains_are_mostly_luck() {
    let honest = Kind::Honest { luck: 1.0, wins: 0.6 };
    expect_noise_below(0.001, 0, &[honest, honest, honest, Kind::Noise], 300);
    expect_noise_below(0.02, 4, &[honest, honest, honest, Kind::Drift(0.2)], 300);
}

#[test]
fn noise_in_the_majority_still_gets_nothing_while_someone_is_useful() {
    expect_noise_below(0.001, 0, &[honest(0.8), Kind::Noise, Kind::Noise, Kind::Noise], 100);
}

#[test]
fn noise_ends_below_two_percent_in_a_swarm_of_16_and_of_256() {
    expect_noise_below(0.02, 1, &[vec![honest(0.75); 12], vec![Kind::Drift(0.3); 4]].concat(), 100);
    let kinds = [vec![honest(0.7); 231], vec![Kind::Drift(0.3); 25]].concat();
    let mut swarm = Trial::of(1, &kinds);
    (0..10).for_each(|_| swarm.round(256));
    assert!(swarm.share(bad) < 0.02, "seed 1: noise has {}", swarm.share(bad));
}

/// Of 256, a validator looks at 20 a round: each peer about every 13 rounds.
#[test]
fn noise_ends_below_two_percent_where_few_are_evaluated_a_round() {
    let kinds = [vec![honest(0.75); 192], vec![Kind::Drift(0.3); 64]].concat();
    let mut swarm = Trial::of(2, &kinds);
    (0..40).for_each(|_| swarm.round(20));
    assert!(swarm.share(bad) < 0.02, "seed 2: noise has {}", swarm.share(bad));
}

/// Chance comparisons earn a copy, on average, well under half of what an honest peer earns.
#[test]
fn who_trains_on_no_data_of_its_own_falls_behind_as_useful_as_it_is() {
    let kinds = [honest(0.8), honest(0.8), honest(0.8), Kind::Copy { luck: STEADY }];
    trials(&kinds, 300, 40, |round, swarms| {
        if round == 10 || round == 40 {
            let copies = swarms.iter().map(|(_, swarm)| swarm.share(|kind| matches!(kind, Kind::Copy { .. })));
            let copies = copies.sum::<f64>() / 300.0;
            let bound = if round == 10 { 0.12 } else { 0.06 };
            assert!(copies < bound, "round {round}: copies have {copies}; an equal share is 0.25");
        }
    });
}

/// Gauntlet's final score, ordinal × max(0, average), to the same power: what our rule is compared with.
fn gauntlet(swarm: &Trial) -> Vec<f64> {
    let score = |uid: usize| {
        let rating = swarm.ratings.rating(&key(uid as u8));
        rating.map_or(0.0, |rating| rating.skill.ordinal().max(0.0) * rating.average.max(0.0))
    };
    let powers: Vec<f64> = (0..swarm.kinds.len()).map(|uid| score(uid).powi(2)).collect();
    let total: f64 = powers.iter().sum();
    powers.iter().map(|power| if total > 0.0 { power / total } else { 0.0 }).collect()
}

/// Swarms of three honest and one noise in which, on average over rounds 11 to 50, somebody honest earned less than a
/// tenth of an equal share, by either rule.
fn wronged(wins: f64, count: usize) -> (usize, usize) {
    let kinds = [honest(wins), honest(wins), honest(wins), Kind::Noise];
    let mut earned = vec![([0.0; 3], [0.0; 3]); count];
    trials(&kinds, count as u64, 50, |round, swarms| {
        for (seed, swarm) in swarms.into_iter().filter(|_| round > 10) {
            let (ours, theirs) = &mut earned[seed as usize];
            ours.iter_mut().zip(swarm.shares()).for_each(|(sum, share)| *sum += share / 40.0);
            theirs.iter_mut().zip(gauntlet(swarm)).for_each(|(sum, share)| *sum += share / 40.0);
        }
    });
    let wrongs = |shares: &[f64; 3]| shares.iter().any(|share| *share < 0.1 / 3.0);
    let by_ours = earned.iter().filter(|(ours, _)| wrongs(ours)).count();
    (by_ours, earned.iter().filter(|(_, theirs)| wrongs(theirs)).count())
}

/// The seeds are fixed: of 300 swarms each. Peers differ by 15 %, so some of those who earn little do so rightly.
#[test]
fn an_honest_peer_earns_where_comparisons_are_near_chance_and_gauntlets_product_wrongs_more() {
    for (wins, ours_max) in [(0.8, 6), (0.6, 20)] {
        let (ours, theirs) = wronged(wins, 300);
        println!("wins {wins}: {ours} of 300 swarms wrong somebody, by Gauntlet's product {theirs}");
        assert!(ours <= ours_max && ours * 2 < theirs, "wins {wins}: ours {ours}, Gauntlet's {theirs}");
    }
}
