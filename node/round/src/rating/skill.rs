//! Plackett–Luce ratings, as OpenSkill computes them: what a ranking says about those who were ranked.
//!
//! Source: Weng and Lin, *A Bayesian approximation method for online ranking* (JMLR 12, 2011), algorithm 4, each peer a
//! team of one, with OpenSkill's additive τ; β and τ are Templar's.

/// How sure a rating starts: μ₀ = 25, σ₀ = 25/3, so that the ordinal starts at 0.
const MU: f64 = 25.0;
/// σ₀.
const SIGMA: f64 = MU / 3.0;
/// β: how much a performance varies around the skill.
pub(super) const BETA: f64 = 7.0;
/// τ: how much skill may drift between two rankings.
const TAU: f64 = 0.1;
/// κ: the least share of its variance that a ranking leaves.
const KAPPA: f64 = 1e-4;

/// What is believed of a peer's skill: normal, mean μ, deviation σ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Skill {
    /// μ.
    pub mu: f64,
    /// σ, above 0.
    pub sigma: f64,
}

impl Default for Skill {
    fn default() -> Skill {
        Skill { mu: MU, sigma: SIGMA }
    }
}

impl Skill {
    /// μ − 3σ: the skill that is as good as certain. It starts at 0.
    pub fn ordinal(&self) -> f64 {
        self.mu - 3.0 * self.sigma
    }
}

/// Moves the skills of those who were ranked by `strengths`, higher is better, equal is a tie. Fewer than two say nothing.
///
/// With c = √Σ(σᵢ² + β²), pᵢq = exp(μᵢ/c) ÷ Σ over those ranked at or below q of exp(μ/c), and A_q the size of q's tie:
/// Ω = Σ over q ranked at or above i of ((i = q) − pᵢq)/A_q and Δ = Σ of pᵢq(1 − pᵢq)/A_q; then μ += σ²/c·Ω and
/// σ² × = max(1 − (σ/c)³·Δ, κ). Takes n² steps.
pub(super) fn rank(skills: &mut [Skill], strengths: &[f64]) {
    if skills.len() < 2 {
        return;
    }
    skills.iter_mut().for_each(|skill| skill.sigma = (skill.sigma * skill.sigma + TAU * TAU).sqrt());
    let c = skills.iter().map(|skill| skill.sigma * skill.sigma + BETA * BETA).sum::<f64>().sqrt();
    // The shares pᵢq do not change when all exponents are shifted: by the largest, nothing overflows.
    let top = skills.iter().map(|skill| skill.mu).fold(f64::NEG_INFINITY, f64::max);
    let power: Vec<f64> = skills.iter().map(|skill| ((skill.mu - top) / c).exp()).collect();
    let count = skills.len();
    let below = |q: usize| (0..count).filter(move |i| strengths[*i] <= strengths[q]).map(|i| power[i]).sum::<f64>();
    let tied = |q: usize| (0..count).filter(|i| strengths[*i] == strengths[q]).count() as f64;
    let round: Vec<(f64, f64)> = (0..count).map(|q| (below(q), tied(q))).collect();
    for i in 0..count {
        let (mut omega, mut delta) = (0.0, 0.0);
        for (q, (below, tied)) in round.iter().enumerate().filter(|(q, _)| strengths[*q] >= strengths[i]) {
            // Nothing below: so far behind that exp vanished. Losing again says nothing new.
            let p = if *below > 0.0 { power[i] / below } else { 1.0 };
            omega += (if i == q { 1.0 - p } else { -p }) / tied;
            delta += p * (1.0 - p) / tied;
        }
        let skill = &mut skills[i];
        let ratio = skill.sigma / c;
        skill.mu += skill.sigma * ratio * omega;
        skill.sigma *= (1.0 - ratio * ratio * ratio * delta).max(KAPPA).sqrt();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duel_moves_both_by_the_formula() {
        // By hand: σ² = 69.4544, c = √(2·118.4544) = 15.391871, p = 1/2.
        let mut skills = [Skill::default(); 2];
        rank(&mut skills, &[2.0, 1.0]);
        let (c, variance) = (15.391_871_f64, 69.454_444_f64);
        let sigma = (variance * (1.0 - 0.25 * (variance.sqrt() / c).powi(3))).sqrt();
        assert!((skills[0].mu - (25.0 + variance / c / 2.0)).abs() < 1e-5, "{skills:?}");
        assert!((skills[1].mu - (25.0 - variance / c / 2.0)).abs() < 1e-5, "{skills:?}");
        assert!(skills.iter().all(|skill| (skill.sigma - sigma).abs() < 1e-5), "{skills:?}");
    }

    /// The numbers are the openskill 6.2.0 package's, PlackettLuce(beta=7, tau=0.1), ranks 2 1 2 4 4.
    #[test]
    fn a_ranking_with_ties_moves_skills_as_openskill_does() {
        let before = [(25.0, 25.0 / 3.0), (31.0, 6.0), (18.0, 7.5), (22.0, 5.0), (25.0, 25.0 / 3.0)];
        let mut skills = before.map(|(mu, sigma)| Skill { mu, sigma });
        rank(&mut skills, &[2.0, 3.0, 2.0, 1.0, 1.0]);
        let after = [
            (25.05946119849562, 8.255638310311529),
            (32.18051589142879, 5.989538367083987),
            (18.372625783129827, 7.459875768333917),
            (21.567572864331375, 4.984837498431053),
            (23.40447644304742, 8.201452363354827),
        ];
        for (skill, (mu, sigma)) in skills.iter().zip(after) {
            assert!((skill.mu - mu).abs() < 1e-9 && (skill.sigma - sigma).abs() < 1e-9, "{skill:?}, not {mu} {sigma}");
        }
    }

    #[test]
    fn a_tie_of_equals_moves_nobody() {
        let mut skills = [Skill::default(); 3];
        rank(&mut skills, &[1.0; 3]);
        assert!(skills.iter().all(|skill| (skill.mu - 25.0).abs() < 1e-9), "{skills:?}");
        assert!(skills.iter().all(|skill| skill.sigma < SIGMA));
    }

    #[test]
    fn who_is_hopelessly_behind_stays_a_number() {
        let mut skills = [Skill { mu: 1e6, sigma: 1.0 }, Skill { mu: -1e6, sigma: 1.0 }];
        rank(&mut skills, &[2.0, 1.0]);
        assert!(skills.iter().all(|skill| skill.mu.is_finite() && skill.sigma > 0.0), "{skills:?}");
        rank(&mut skills, &[1.0, 2.0]);
        assert!(skills.iter().all(|skill| skill.mu.is_finite() && skill.sigma > 0.0), "{skills:?}");
    }

    #[test]
    fn skills_stay_finite_over_ten_thousand_equal_rounds() {
        let mut skills = vec![Skill::default(); 16];
        let strengths: Vec<f64> = (0..16).map(f64::from).collect();
        (0..10_000).for_each(|_| rank(&mut skills, &strengths));
        assert!(skills.iter().all(|skill| skill.mu.is_finite() && skill.sigma > 0.0), "{skills:?}");
        assert!(skills.windows(2).all(|pair| pair[0].mu < pair[1].mu));
    }
}
