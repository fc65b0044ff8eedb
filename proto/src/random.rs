//! Numbers that follow from a seed: for tests, simulations and ties, and for the data assignment's permutation.
//!
//! SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014): one addition and two
//! multiplications a number, any seed will do, and the same numbers on every machine. Whoever sees one number knows all
//! that follow, so nothing that must not be guessed comes from here: a round's randomness is the chain's, keys are the
//! system's.

/// A sequence of numbers that its seed determines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitMix64 {
    state: u64,
}

/// 2⁶⁴ divided by the golden ratio, odd: the states of one seed come back after 2⁶⁴ numbers.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl SplitMix64 {
    /// The sequence of `seed`. Seeds that differ in one bit give sequences that have nothing in common.
    pub const fn seeded(seed: u64) -> SplitMix64 {
        SplitMix64 { state: seed }
    }

    /// The next number: each of 0 to 2⁶⁴ − 1 is as likely.
    #[inline]
    pub fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(STEP);
        finalise(self.state)
    }

    /// A number below `bound`, by remainder: of a bound of some billions, none is likelier than another by 10⁻⁹. 0 if
    /// `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw().checked_rem(bound).unwrap_or(0)
    }

    /// A number from 0 up to, not including, 1: one of 2⁵³, all that an f64 of this range tells apart.
    pub fn unit(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// SplitMix64's finaliser: a permutation of the 64-bit numbers in which every bit of `z` reaches every bit of the result.
#[inline]
pub const fn finalise(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first numbers of seed 1234567, as published with other implementations (Rosetta Code, "Pseudo-random
    /// numbers/Splitmix64").
    #[test]
    fn the_numbers_are_the_published_ones() {
        let mut numbers = SplitMix64::seeded(1_234_567);
        let first: [u64; 5] = std::array::from_fn(|_| numbers.draw());
        assert_eq!(
            first,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423,
                4_593_380_528_125_082_431,
                16_408_922_859_458_223_821,
            ]
        );
    }

    #[test]
    fn what_is_drawn_is_within_its_bounds() {
        let mut numbers = SplitMix64::seeded(7);
        assert_eq!(numbers.below(0), 0);
        assert!((0..1000).all(|_| numbers.below(6) < 6 && (0.0..1.0).contains(&numbers.unit())));
        let mut seen = [false; 6];
        (0..1000).for_each(|_| seen[numbers.below(6) as usize] = true);
        assert_eq!(seen, [true; 6]);
    }
}
