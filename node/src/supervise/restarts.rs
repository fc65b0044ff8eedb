//! Whether a process that died is started again, and when. Pure: it is told the time.

use std::time::Duration;

/// How patient a supervisor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The pause before the first restart; it doubles with each death that follows soon.
    pub pause: Duration,
    /// The longest pause.
    pub pause_max: Duration,
    /// Who has lived so long has recovered: the next death is a first one.
    pub recovered: Duration,
    /// Deaths in a row, each soon after the start, after which it is given up.
    pub deaths_max: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            pause: Duration::from_millis(200),
            pause_max: Duration::from_secs(10),
            recovered: Duration::from_secs(60),
            deaths_max: 8,
        }
    }
}

/// What to do after a death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Start it again after a pause.
    Again(Duration),
    /// It dies whatever one does.
    GiveUp {
        /// Deaths in a row.
        deaths: u32,
    },
}

/// The deaths of one process over its lives.
#[derive(Clone, Debug)]
pub struct Restarts {
    limits: Limits,
    deaths: u32,
}

impl Restarts {
    /// Of a process that has not died yet.
    pub fn new(limits: Limits) -> Restarts {
        Restarts { limits, deaths: 0 }
    }

    /// The pause after a death that counts as none.
    pub fn pause(&self) -> Duration {
        self.limits.pause
    }

    /// It has died after living so long.
    pub fn died(&mut self, lived: Duration) -> Verdict {
        let Limits { pause, pause_max, recovered, deaths_max } = self.limits;
        if lived >= recovered {
            self.deaths = 0;
        }
        self.deaths += 1;
        if self.deaths >= deaths_max {
            return Verdict::GiveUp { deaths: self.deaths };
        }
        let doubled = 1_u32.checked_shl(self.deaths - 1).unwrap_or(u32::MAX);
        Verdict::Again(pause.saturating_mul(doubled).min(pause_max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(1);

    #[test]
    fn pauses_double_up_to_a_bound_and_then_it_is_given_up() {
        let mut restarts = Restarts::new(Limits::default());
        let pauses = [200, 400, 800, 1600, 3200, 6400, 10_000];
        for pause in pauses {
            assert_eq!(restarts.died(SOON), Verdict::Again(Duration::from_millis(pause)));
        }
        assert_eq!(restarts.died(SOON), Verdict::GiveUp { deaths: 8 });
    }

    #[test]
    fn who_lived_long_has_recovered() {
        let mut restarts = Restarts::new(Limits::default());
        for _ in 0..100 {
            assert_eq!(restarts.died(SOON), Verdict::Again(Duration::from_millis(200)));
            assert_eq!(restarts.died(SOON), Verdict::Again(Duration::from_millis(400)));
            assert_eq!(restarts.died(Duration::from_secs(60)), Verdict::Again(Duration::from_millis(200)));
            restarts = Restarts::new(Limits::default());
        }
    }

    #[test]
    fn a_supervisor_without_patience_gives_up_at_once() {
        let mut restarts = Restarts::new(Limits { deaths_max: 1, ..Limits::default() });
        assert_eq!(restarts.died(SOON), Verdict::GiveUp { deaths: 1 });
    }
}
