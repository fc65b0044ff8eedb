//! Whether a process that has ended is started again, and when. Pure: it is told how the life went and how long it was.

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

/// What comes after an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing: it was told to end.
    AsTold,
    /// It is started again after this pause.
    Again(Duration),
    /// It stays away, and why.
    Never(String),
}

/// What its supervisor wanted of a process when it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// To run: nobody expected the end.
    Running,
    /// To die and to be started again: the supervisor has killed it to see whether it recovers.
    Crashed,
    /// To end for good.
    Ended,
}

/// How a life ended.
#[derive(Clone, Debug)]
pub struct Death {
    /// What its supervisor wanted.
    pub wanted: Wanted,
    /// This life or an earlier one came as far as doing what the process was started for.
    pub was_ready: bool,
    /// It said that a person must look at it, and why.
    pub halted: Option<String>,
    /// It said what it cannot do, and why.
    pub failed: Option<String>,
    /// Its exit code; none if a signal ended it.
    pub exit_code: Option<i32>,
    /// From its start to its end.
    pub lived: Duration,
}

/// The deaths of one process over its lives.
#[derive(Clone, Debug)]
pub struct Restarts {
    limits: Limits,
    /// In a row, each soon after the start.
    deaths: u32,
}

impl Restarts {
    /// Of a process that has not died yet.
    pub fn new(limits: Limits) -> Restarts {
        Restarts { limits, deaths: 0 }
    }

    /// What comes after a death.
    ///
    /// A process that cannot even start (wrong settings, no disk) is not tried again: it would say the same. One that has
    /// been ready before is, whatever it says: what it lacks may be back, the chain for one.
    pub fn after(&mut self, death: Death) -> Next {
        match death.wanted {
            Wanted::Ended => return Next::AsTold,
            // Not counted: the supervisor may kill as often as it likes.
            Wanted::Crashed => return Next::Again(self.limits.pause),
            Wanted::Running => {}
        }
        if let Some(why) = death.halted {
            return Next::Never(format!("halted: {why}"));
        }
        if let Some(error) = death.failed.filter(|_| !death.was_ready) {
            return Next::Never(error);
        }
        // Ended in good order although it was to run: somebody else sent it a signal.
        if let Some(0 | 129 | 130 | 143) = death.exit_code {
            return Next::Never("somebody else told it to end".into());
        }
        self.died(death.lived)
    }

    fn died(&mut self, lived: Duration) -> Next {
        let Limits { pause, pause_max, recovered, deaths_max } = self.limits;
        if lived >= recovered {
            self.deaths = 0;
        }
        self.deaths += 1;
        if self.deaths >= deaths_max {
            let deaths = self.deaths;
            return Next::Never(format!("died {deaths} times in a row, each soon after its start; its log says why"));
        }
        let doubled = 1_u32.checked_shl(self.deaths - 1).unwrap_or(u32::MAX);
        Next::Again(pause.saturating_mul(doubled).min(pause_max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(1);

    /// Killed by a signal after a second of good work.
    const DEATH: Death =
        Death { wanted: Wanted::Running, was_ready: true, halted: None, failed: None, exit_code: None, lived: SOON };

    fn is_given_up(next: &Next, deaths: u32) -> bool {
        matches!(next, Next::Never(why) if why.contains(&format!("died {deaths} times")))
    }

    #[test]
    fn pauses_double_up_to_a_bound_and_then_it_is_given_up() {
        let mut restarts = Restarts::new(Limits::default());
        let pauses = [200, 400, 800, 1600, 3200, 6400, 10_000];
        for pause in pauses {
            assert_eq!(restarts.after(DEATH), Next::Again(Duration::from_millis(pause)));
        }
        let next = restarts.after(DEATH);
        assert!(is_given_up(&next, 8), "{next:?}");
    }

    #[test]
    fn who_lived_long_has_recovered() {
        let mut restarts = Restarts::new(Limits::default());
        for _ in 0..100 {
            assert_eq!(restarts.after(DEATH), Next::Again(Duration::from_millis(200)));
            assert_eq!(restarts.after(DEATH), Next::Again(Duration::from_millis(400)));
            let late = Death { lived: Duration::from_secs(60), ..DEATH };
            assert_eq!(restarts.after(late), Next::Again(Duration::from_millis(200)));
            restarts = Restarts::new(Limits::default());
        }
    }

    #[test]
    fn a_supervisor_without_patience_gives_up_at_once() {
        let mut restarts = Restarts::new(Limits { deaths_max: 1, ..Limits::default() });
        let next = restarts.after(DEATH);
        assert!(is_given_up(&next, 1), "{next:?}");
    }

    #[test]
    fn who_was_told_to_end_stays_away_whatever_else_it_said() {
        let mut restarts = Restarts::new(Limits::default());
        let death = Death { wanted: Wanted::Ended, halted: Some("fork".into()), exit_code: Some(1), ..DEATH };
        assert_eq!(restarts.after(death), Next::AsTold);
    }

    #[test]
    fn deaths_that_the_supervisor_wished_for_are_not_counted() {
        let mut restarts = Restarts::new(Limits { deaths_max: 2, ..Limits::default() });
        let pause = Next::Again(Limits::default().pause);
        for _ in 0..10 {
            assert_eq!(restarts.after(Death { wanted: Wanted::Crashed, ..DEATH }), pause);
        }
        assert_eq!(restarts.after(DEATH), pause, "the first one that counts");
    }

    #[test]
    fn who_halts_is_left_alone_and_who_fails_only_before_it_was_ever_ready() {
        let mut restarts = Restarts::new(Limits::default());
        let halted = Death { halted: Some("fork".into()), ..DEATH };
        assert_eq!(restarts.after(halted), Next::Never("halted: fork".into()));
        let failed = Death { failed: Some("no disk".into()), exit_code: Some(1), ..DEATH };
        assert!(matches!(restarts.after(failed.clone()), Next::Again(_)), "it has been ready before");
        let new = Death { was_ready: false, ..failed };
        assert_eq!(restarts.after(new), Next::Never("no disk".into()));
    }

    #[test]
    fn who_ends_in_good_order_was_told_to_by_somebody_else() {
        for code in [0, 129, 130, 143] {
            let next = Restarts::new(Limits::default()).after(Death { exit_code: Some(code), ..DEATH });
            assert!(matches!(next, Next::Never(_)), "exit code {code}: {next:?}");
        }
        let next = Restarts::new(Limits::default()).after(Death { exit_code: Some(101), ..DEATH });
        assert!(matches!(next, Next::Again(_)), "a panic: {next:?}");
    }
}
