//! Numbers that change with the round: data in run.toml, the same bits for everyone.

use crate::Round;
use crate::error::DecodeError;
use crate::wire;
use serde::{Deserialize, Serialize};

/// Points of a schedule, at most.
pub const POINTS_MAX: usize = 64;

/// A number by round: points of (round, value), rounds rising. In run.toml a plain number stands for one point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "ScheduleText", into = "ScheduleText")]
pub struct Schedule(Vec<(u32, f64)>);

#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum ScheduleText {
    Constant(f64),
    Points(Vec<(u32, f64)>),
}

impl From<ScheduleText> for Schedule {
    fn from(written: ScheduleText) -> Schedule {
        match written {
            ScheduleText::Constant(value) => Schedule(vec![(0, value)]),
            ScheduleText::Points(points) => Schedule(points),
        }
    }
}

impl From<Schedule> for ScheduleText {
    fn from(schedule: Schedule) -> ScheduleText {
        match schedule.0[..] {
            [(0, value)] => ScheduleText::Constant(value),
            _ => ScheduleText::Points(schedule.0),
        }
    }
}

impl Schedule {
    /// One value for every round.
    pub fn constant(value: f64) -> Schedule {
        Schedule(vec![(0, value)])
    }

    /// A schedule of these points.
    pub fn points(points: Vec<(u32, f64)>) -> Schedule {
        Schedule(points)
    }

    /// The round of the last point: where the schedule has said all.
    pub fn end(&self) -> Round {
        Round(self.0.last().map_or(0, |point| point.0))
    }

    /// The value of the last point at or before `round`, the first point's before it.
    pub fn held(&self, round: Round) -> f64 {
        let after = self.0.partition_point(|point| point.0 <= round.0);
        self.0.get(after.saturating_sub(1)).map_or(0.0, |point| point.1)
    }

    /// The value of the last point at or before `round`, as a count.
    pub fn count(&self, round: Round) -> usize {
        self.held(round) as usize
    }

    /// Linear between points, the first and last points' values outside; `at` is in rounds and may lie between two.
    /// Only + − × ÷ in f64: the same bits everywhere.
    pub fn linear(&self, at: f64) -> f64 {
        let after = self.0.partition_point(|point| f64::from(point.0) <= at);
        match (after.checked_sub(1).and_then(|before| self.0.get(before)), self.0.get(after)) {
            (Some(&(r0, v0)), Some(&(r1, v1))) => {
                v0 + (v1 - v0) * ((at - f64::from(r0)) / (f64::from(r1) - f64::from(r0)))
            }
            (Some(&(_, value)), None) | (None, Some(&(_, value))) => value,
            (None, None) => 0.0,
        }
    }

    /// What is wrong with it, if anything.
    pub(crate) fn fault(&self, least: f64, most: f64, whole: bool) -> Option<String> {
        if self.0.is_empty() || self.0.len() > POINTS_MAX {
            return Some(format!("has {} points; it must have 1 to {POINTS_MAX}", self.0.len()));
        }
        if self.0.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
            return Some("has rounds that do not rise".into());
        }
        let bad = self.0.iter().find(|(_, value)| {
            !(least..=most).contains(value) || value.is_sign_negative() || (whole && value.fract() != 0.0)
        });
        let kind = if whole { "a whole number " } else { "" };
        bad.map(|(round, value)| format!("is {value} at round {round}; it must be {kind}{least} to {most}"))
    }

    pub(crate) fn to_wire(&self) -> Vec<wire::Point> {
        self.0.iter().map(|&(round, value)| wire::Point { round, value }).collect()
    }

    pub(crate) fn from_wire(points: Vec<wire::Point>, name: &'static str) -> Result<Schedule, DecodeError> {
        if points.is_empty() || points.len() > POINTS_MAX {
            return Err(DecodeError::Field(name));
        }
        Ok(Schedule(points.into_iter().map(|point| (point.round, point.value)).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_is_linear_or_held() {
        let schedule = Schedule::points(vec![(2, 1.0), (4, 3.0)]);
        assert_eq!([0.0, 2.0, 3.0, 3.5, 4.0, 9.0].map(|at| schedule.linear(at)), [1.0, 1.0, 2.0, 2.5, 3.0, 3.0]);
        assert_eq!([0, 2, 3, 4, 9].map(|round| schedule.held(Round(round))), [1.0, 1.0, 1.0, 3.0, 3.0]);
        assert_eq!(schedule.end(), Round(4));
    }
}
