//! What a swarm is asked to do: how many nodes of which kind, who misbehaves, who is killed, who comes later.

use crate::misbehave::Misbehaviour;
use crate::preset::Template;
use crate::service::role;
use covey_proto::{Round, Uid};
use covey_round::engine::Roles;
use covey_trainer::data::Dataset;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// Nodes of a swarm on one machine; a run has 256 uids.
const NODES_MAX: usize = 256;

/// The chain's process, for who wants to kill it.
pub(super) const DEVNET: &str = "devnet";

/// The phases that a node's status shows (`covey_round::engine::Engine::phase`).
pub(super) const PHASES: [&str; 7] = ["joining", "wait", "train", "commit", "exchange", "apply", "score"];

/// All that `covey swarm` can be asked.
#[derive(Clone)]
pub struct Options {
    /// The preset or run file.
    pub template: Template,
    /// The training data.
    pub data: Arc<Dataset>,
    /// Other data from some rounds on, in their order.
    pub phases: Vec<(Round, Arc<Dataset>)>,
    /// Rounds to run.
    pub rounds: u32,
    /// The nodes.
    pub counts: Counts,
    /// Makes keys, genesis and run.
    pub seed: u64,
    /// Whether the run's randomness comes from the seed, so that another swarm with it ends with the same root.
    pub repeatable: bool,
    /// What goes wrong on purpose.
    pub script: Script,
    /// Cores that each node may use at once.
    pub cores: usize,
    /// Whether validators' weights are hidden until a later epoch, as is usual on Bittensor.
    pub hidden_weights: bool,
    /// The executable that nodes and chain are processes of: `covey`.
    pub program: PathBuf,
    /// How long what others have is waited for before a node calls itself idle.
    pub patience: Duration,
    /// Held-out sequences behind each round's loss.
    pub heldout_sequences: u64,
}

impl Options {
    /// What `round` trains on.
    pub fn data_of(&self, round: Round) -> &Arc<Dataset> {
        self.phases.iter().rev().find(|(from, _)| *from <= round).map_or(&self.data, |(_, data)| data)
    }
}

/// What goes wrong on purpose.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// So many miners of each kind misbehave: the last ones.
    pub misbehave: Vec<(Misbehaviour, usize)>,
    /// Who is killed, and when.
    pub kills: Vec<Kill>,
    /// In these rounds one more miner comes.
    pub joins: Vec<Round>,
}

/// A node to kill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    /// Its name.
    pub node: String,
    /// In which round.
    pub round: Round,
    /// When in the round.
    pub moment: Moment,
}

/// When in a round a node is killed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Moment {
    /// At once.
    #[default]
    Any,
    /// As soon as its status shows this phase.
    Phase(String),
}

impl FromStr for Kill {
    type Err = String;
    /// `NODE@ROUND`, or `NODE@ROUND:PHASE`.
    fn from_str(text: &str) -> Result<Kill, String> {
        let form = || format!("{text:?} is not NODE@ROUND, like miner-1@3");
        let (node, when) = text.split_once('@').ok_or_else(form)?;
        let (round, moment) = match when.split_once(':') {
            Some((round, phase)) if PHASES.contains(&phase) => (round, Moment::Phase(phase.to_owned())),
            Some((_, phase)) => return Err(format!("no phase {phase:?}; there are {}", PHASES.join(", "))),
            None => (when, Moment::Any),
        };
        let round = Round(round.parse().map_err(|_| form())?);
        Ok(Kill { node: node.to_owned(), round, moment })
    }
}

/// Why what was asked for cannot be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlanError {
    /// Nobody who does the work.
    #[error("a swarm needs at least one miner and one validator; this one has {miners} and {validators}")]
    TooFew {
        /// Miners.
        miners: usize,
        /// Validators.
        validators: usize,
    },
    /// More than there are uids.
    #[error("{0} miners and validators; a run has {NODES_MAX} uids")]
    TooMany(usize),
    /// More miners are to validate than there are.
    #[error("{both} miners are to validate too, but there are {miners}")]
    TooManyBoth {
        /// To do both.
        both: usize,
        /// Miners.
        miners: usize,
    },
    /// More misbehave than there are.
    #[error("{wanted} miners are to misbehave, but there are {miners}")]
    TooManyCheats {
        /// To misbehave.
        wanted: usize,
        /// Miners.
        miners: usize,
    },
    /// A node that is not there.
    #[error("there is no node {name:?} to kill; there are {known}")]
    NoNode {
        /// The name.
        name: String,
        /// The names.
        known: String,
    },
    /// A phase of who has none.
    #[error("{DEVNET} has no phases; give {DEVNET}@{round} alone")]
    NoPhase {
        /// The round.
        round: Round,
    },
    /// A round that will not be.
    #[error("round {round} is not one of the {rounds} rounds (0 to {last})")]
    NoRound {
        /// The round.
        round: Round,
        /// Rounds.
        rounds: u32,
        /// The last.
        last: u32,
    },
}

/// How many nodes of each kind there are from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Miners.
    pub miners: usize,
    /// Validators that do not mine.
    pub validators: usize,
    /// So many of the miners, the first ones, validate too.
    pub both: usize,
}

/// Checks what a swarm is asked to do, before anything is made ready for it.
///
/// # Errors
/// What was asked for cannot be.
pub fn check(rounds: u32, counts: Counts, script: &Script) -> Result<(), PlanError> {
    Plan::of(rounds, counts, script).map(drop)
}

/// A node of the plan.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// What it does.
    pub roles: Roles,
    /// Its uid from genesis on; none of a seeder, or of who comes later.
    pub uid: Option<Uid>,
    /// What it does wrong.
    pub misbehaviour: Option<Misbehaviour>,
    /// When it comes, if not at the start.
    pub joins: Option<Round>,
}

impl Node {
    /// Whether it only follows, and keeps every round.
    pub(super) fn is_seeder(&self) -> bool {
        self.roles == Roles::default()
    }

    /// The command of `covey` that it is started with. Who mines and validates is a miner there.
    pub(super) fn command(&self) -> &'static str {
        role(Roles { validator: self.roles.validator && !self.roles.miner, ..self.roles })
    }
}

/// Who is there, and what happens to them.
pub(super) struct Plan {
    /// In the order of starting.
    order: Vec<Arc<str>>,
    nodes: BTreeMap<Arc<str>, Node>,
    kills: Vec<Kill>,
    away: Vec<(Arc<str>, Round)>,
}

impl Plan {
    /// The plan that the options make.
    ///
    /// # Errors
    /// What was asked for cannot be.
    pub(super) fn new(options: &Options) -> Result<Plan, PlanError> {
        Plan::of(options.rounds, options.counts, &options.script)
    }

    /// The plan of a swarm of so many rounds and nodes, in which this goes wrong.
    ///
    /// # Errors
    /// What was asked for cannot be.
    pub(super) fn of(rounds: u32, counts: Counts, script: &Script) -> Result<Plan, PlanError> {
        let Counts { miners, validators, both } = counts;
        if miners == 0 || validators == 0 {
            return Err(PlanError::TooFew { miners, validators });
        }
        if both > miners {
            return Err(PlanError::TooManyBoth { both, miners });
        }
        let all = miners + validators + script.joins.len();
        if all > NODES_MAX {
            return Err(PlanError::TooMany(all));
        }
        let mut plan =
            Plan { order: Vec::new(), nodes: BTreeMap::new(), kills: script.kills.clone(), away: Vec::new() };
        let cheats = cheats(script, miners)?;
        let (miner, validator) = (Roles { miner: true, validator: false }, Roles { miner: false, validator: true });
        let node = |roles, uid| Node { roles, uid, misbehaviour: None, joins: None };
        plan.add("seeder-0".into(), node(Roles::default(), None));
        for (number, misbehaviour) in cheats.into_iter().enumerate() {
            let roles = Roles { validator: number < both, ..miner };
            plan.add(format!("miner-{number}"), Node { misbehaviour, ..node(roles, uid(number)) });
        }
        for number in 0..validators {
            plan.add(format!("validator-{number}"), node(validator, uid(miners + number)));
        }
        for (number, round) in script.joins.iter().enumerate() {
            plan.add(format!("miner-{}", miners + number), Node { joins: Some(*round), ..node(miner, None) });
        }
        plan.check(rounds)?;
        Ok(plan)
    }

    fn add(&mut self, name: String, node: Node) {
        let name: Arc<str> = name.into();
        self.order.push(name.clone());
        self.nodes.insert(name, node);
    }

    fn check(&self, rounds: u32) -> Result<(), PlanError> {
        let joins = self.nodes.values().filter_map(|node| node.joins);
        if let Some(round) = self.kills.iter().map(|kill| kill.round).chain(joins).find(|round| round.0 >= rounds) {
            return Err(PlanError::NoRound { round, rounds, last: rounds.saturating_sub(1) });
        }
        let is_timed = |kill: &&Kill| kill.node == DEVNET && kill.moment != Moment::Any;
        if let Some(kill) = self.kills.iter().find(is_timed) {
            return Err(PlanError::NoPhase { round: kill.round });
        }
        let is_there = |name: &str| name == DEVNET || self.nodes.contains_key(name);
        match self.kills.iter().find(|kill| !is_there(&kill.node)) {
            Some(kill) => {
                let known = format!("{}, {DEVNET}", self.order.join(", "));
                Err(PlanError::NoNode { name: kill.node.clone(), known })
            }
            None => Ok(()),
        }
    }

    /// The nodes, by name.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (&Arc<str>, &Node)> {
        self.nodes.iter()
    }

    /// A node of the plan.
    ///
    /// # Panics
    /// If there is none of that name; names come from the plan.
    pub(super) fn node(&self, name: &str) -> &Node {
        self.nodes.get(name).expect("a name of the plan")
    }

    /// Who is there from the start: the seeder first, since the others dial it.
    pub(super) fn first_nodes(&self) -> Vec<Arc<str>> {
        self.order.iter().filter(|name| self.node(name).joins.is_none()).cloned().collect()
    }

    /// Who comes in this round, or should have.
    pub(super) fn due_to_join(&mut self, round: Round) -> Vec<Arc<str>> {
        let due = |node: &Node| node.joins.is_some_and(|joins| joins <= round);
        let names = self.order.iter().filter(|name| due(self.node(name))).cloned().collect::<Vec<_>>();
        for name in &names {
            if let Some(node) = self.nodes.get_mut(name) {
                node.joins = None;
            }
        }
        names
    }

    /// Who is to be killed now, given each node's round and phase; with the round.
    pub(super) fn due_to_die(&mut self, phases: &BTreeMap<Arc<str>, (Round, String)>) -> Vec<(Arc<str>, Round)> {
        let mut due: Vec<(Arc<str>, Round)> = Vec::new();
        self.kills.retain(|kill| {
            let Some((name, (round, phase))) = phases.get_key_value(kill.node.as_str()) else { return true };
            let now = match &kill.moment {
                Moment::Any => *round >= kill.round,
                // Past its round, any phase will do: the phase was too short to be seen.
                Moment::Phase(wanted) => (*round == kill.round && phase == wanted) || *round > kill.round,
            };
            if now && !due.iter().any(|(other, _)| other == name) {
                due.push((name.clone(), *round));
            }
            !now
        });
        due
    }

    /// Whether anybody is still to be killed.
    pub(super) fn has_kills(&self) -> bool {
        !self.kills.is_empty()
    }

    /// A node was killed, and is to be started again in a round.
    pub(super) fn killed(&mut self, name: &Arc<str>, back: Round) {
        self.away.push((name.clone(), back));
    }

    /// Whether anybody is to be started again later.
    pub(super) fn is_anybody_away(&self) -> bool {
        !self.away.is_empty()
    }

    /// Who is to be started again now: the seeder alone, if it is among them, and the others when this is asked again.
    pub(super) fn due_to_return(&mut self, round: Round) -> Vec<Arc<str>> {
        let is_due = |(_, back): &(Arc<str>, Round)| *back <= round;
        let is_seeder = |(name, _): &(Arc<str>, Round)| self.nodes.get(name).is_some_and(Node::is_seeder);
        let seeder_first = self.away.iter().any(|away| is_due(away) && is_seeder(away));
        let is_next = |away: &(Arc<str>, Round)| is_due(away) && (!seeder_first || is_seeder(away));
        let (next, away): (Vec<_>, Vec<_>) = self.away.iter().cloned().partition(is_next);
        self.away = away;
        next.into_iter().map(|(name, _)| name).collect()
    }
}

/// The uid that the chain begins with for the node of this number: miners come first, then validators.
fn uid(number: usize) -> Option<Uid> {
    u8::try_from(number).ok().map(Uid::from)
}

/// What each miner does wrong: the last ones cheat.
fn cheats(script: &Script, miners: usize) -> Result<Vec<Option<Misbehaviour>>, PlanError> {
    let wanted: usize = script.misbehave.iter().map(|(_, count)| count).sum();
    let honest = miners.checked_sub(wanted).ok_or(PlanError::TooManyCheats { wanted, miners })?;
    let cheats = script.misbehave.iter().flat_map(|(kind, count)| std::iter::repeat_n(Some(*kind), *count));
    Ok(std::iter::repeat_n(None, honest).chain(cheats).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_is_written_as_node_at_round() {
        let kill: Kill = "miner-1@3".parse().unwrap();
        assert_eq!(kill, Kill { node: "miner-1".into(), round: Round(3), moment: Moment::Any });
        let kill: Kill = "validator-0@4:apply".parse().unwrap();
        assert_eq!(kill.moment, Moment::Phase("apply".into()));
        assert!("miner-1".parse::<Kill>().unwrap_err().contains("NODE@ROUND"));
        assert!("miner-1@3:trian".parse::<Kill>().unwrap_err().contains("train"));
    }

    fn counts(miners: usize, validators: usize, both: usize) -> Counts {
        Counts { miners, validators, both }
    }

    #[test]
    fn the_chain_has_no_phases() {
        let script = |kill: &str| Script { kills: vec![kill.parse().unwrap()], ..Script::default() };
        assert_eq!(check(5, counts(1, 1, 0), &script("devnet@3")), Ok(()));
        let error = check(5, counts(1, 1, 0), &script("devnet@3:train")).unwrap_err();
        assert_eq!(error, PlanError::NoPhase { round: Round(3) });
        assert_eq!(error.to_string(), "devnet has no phases; give devnet@3 alone");
    }

    #[test]
    fn what_cannot_be_is_refused_before_anything_runs() {
        let refused = |rounds, counts, script: Script| check(rounds, counts, &script).unwrap_err();
        let none = Script::default;
        assert_eq!(refused(5, counts(1, 0, 1), none()), PlanError::TooFew { miners: 1, validators: 0 });
        assert_eq!(refused(5, counts(2, 1, 3), none()), PlanError::TooManyBoth { both: 3, miners: 2 });
        let joins = Script { joins: vec![Round(1)], ..none() };
        assert_eq!(refused(5, counts(255, 1, 0), joins.clone()), PlanError::TooMany(257));
        assert_eq!(refused(1, counts(1, 1, 0), joins), PlanError::NoRound { round: Round(1), rounds: 1, last: 0 });
        let kill = Script { kills: vec!["miner-9@0".parse().unwrap()], ..none() };
        let error = refused(5, counts(1, 1, 0), kill).to_string();
        assert!(error.contains("seeder-0, miner-0, validator-0, devnet"), "{error}");
    }

    #[test]
    fn uids_go_to_miners_then_validators_and_to_nobody_who_comes_later() {
        let script = Script { joins: vec![Round(2)], ..Script::default() };
        let mut plan = Plan::of(5, counts(2, 1, 1), &script).unwrap();
        let uid = |plan: &Plan, name: &str| plan.node(name).uid;
        assert_eq!(uid(&plan, "seeder-0"), None);
        assert_eq!(["miner-0", "miner-1", "validator-0"].map(|name| uid(&plan, name).unwrap().number()), [0, 1, 2]);
        assert_eq!(uid(&plan, "miner-2"), None);
        assert_eq!(plan.node("miner-0").roles, Roles { miner: true, validator: true });
        assert_eq!(plan.node("miner-0").command(), "miner");
        assert_eq!(plan.first_nodes().first().map(|name| &**name), Some("seeder-0"), "the others dial it");
        assert!(plan.due_to_join(Round(1)).is_empty());
        assert_eq!(plan.due_to_join(Round(3)), ["miner-2".into()], "late, but it comes");
        assert!(plan.due_to_join(Round(3)).is_empty(), "once");
    }

    #[test]
    fn a_node_is_killed_in_its_phase_or_as_soon_as_its_round_is_over() {
        let kills = ["miner-0@3:apply", "miner-0@3", "miner-1@2"].map(|kill| kill.parse().unwrap()).to_vec();
        let mut plan = Plan::of(9, counts(2, 1, 0), &Script { kills, ..Script::default() }).unwrap();
        let mut due = |round: u32, phase: &str| {
            let now = (Round(round), phase.to_owned());
            let phases = BTreeMap::from([("miner-0".into(), now)]);
            plan.due_to_die(&phases).into_iter().map(|(name, round)| (name.to_string(), round.0)).collect::<Vec<_>>()
        };
        assert!(due(2, "apply").is_empty());
        assert_eq!(due(3, "train"), [("miner-0".to_owned(), 3)], "any phase will do for the second kill");
        assert!(due(3, "train").is_empty());
        assert_eq!(due(4, "wait"), [("miner-0".to_owned(), 4)], "its phase was too short to be seen");
        assert!(plan.has_kills(), "miner-1 has not been seen yet");
    }

    #[test]
    fn the_seeder_comes_back_before_the_others() {
        let mut plan = Plan::of(9, counts(2, 1, 0), &Script::default()).unwrap();
        for (name, back) in [("miner-0", 5), ("seeder-0", 5), ("miner-1", 6)] {
            plan.killed(&name.into(), Round(back));
        }
        let mut due = |round| plan.due_to_return(Round(round)).iter().map(|name| name.to_string()).collect::<Vec<_>>();
        assert!(due(4).is_empty());
        assert_eq!(due(5), ["seeder-0"]);
        assert_eq!(due(5), ["miner-0"]);
        assert_eq!(due(u32::MAX), ["miner-1"]);
        assert!(!plan.is_anybody_away());
    }

    #[test]
    fn the_last_miners_cheat() {
        let script = Script { misbehave: vec![(Misbehaviour::Noise, 1), (Misbehaviour::Flip, 1)], ..Script::default() };
        let kinds = cheats(&script, 3).unwrap();
        assert_eq!(kinds, [None, Some(Misbehaviour::Noise), Some(Misbehaviour::Flip)]);
        assert_eq!(cheats(&script, 1), Err(PlanError::TooManyCheats { wanted: 2, miners: 1 }));
    }
}
