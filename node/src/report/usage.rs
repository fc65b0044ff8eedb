//! What each role of a swarm has cost its machine: the memory it needs, and what it asks of a disk. A role is as costly as
//! the costliest of its nodes.

use super::units;
use crate::observe::Usage;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The roles in the order in which they are shown; others follow.
const ORDER: [&str; 4] = ["miner", "validator", "seeder", SUPERVISOR];

/// The role of the process that looks after the others and evaluates their states.
pub const SUPERVISOR: &str = "supervisor";

/// What a role has cost. None where the system did not tell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoleUsage {
    /// `miner`, `validator`, `seeder`, `supervisor`.
    pub role: String,
    /// Processes with this role.
    pub nodes: u32,
    /// The most bytes of memory that one of them had at once.
    pub memory_peak: Option<u64>,
    /// The same in bytes for each parameter of the model.
    pub memory_a_parameter: Option<f64>,
    /// Bytes that one of them has written in all, the most of any.
    pub disk_written: Option<u64>,
    /// The same divided by the rounds.
    pub disk_written_a_round: Option<u64>,
}

/// The cost of each role, given that of each process.
pub fn by_role<'a>(
    processes: impl IntoIterator<Item = (&'a str, Usage)>,
    parameters: u64,
    rounds: u32,
) -> Vec<RoleUsage> {
    let mut roles: BTreeMap<(usize, &str), (u32, Usage)> = BTreeMap::new();
    for (role, usage) in processes {
        let place = ORDER.iter().position(|known| *known == role).unwrap_or(ORDER.len());
        let (nodes, most) = roles.entry((place, role)).or_default();
        *nodes += 1;
        most.memory_peak = most.memory_peak.max(usage.memory_peak);
        most.disk_written = most.disk_written.max(usage.disk_written);
    }
    let of_role = |((_, role), (nodes, most)): ((usize, &str), (u32, Usage))| RoleUsage {
        role: role.to_owned(),
        nodes,
        memory_peak: most.memory_peak,
        memory_a_parameter: most.memory_peak.filter(|_| parameters > 0).map(|peak| peak as f64 / parameters as f64),
        disk_written: most.disk_written,
        disk_written_a_round: most.disk_written.and_then(|bytes| bytes.checked_div(rounds.into())),
    };
    roles.into_iter().map(of_role).collect()
}

/// The cost of all roles in words, a line for memory and a line for disks; none where nothing is known.
pub fn lines(roles: &[RoleUsage]) -> Vec<String> {
    let memory = |role: &RoleUsage| {
        let (peak, each) = (role.memory_peak?, role.memory_a_parameter?);
        Some(format!("{} {} ({each:.1} bytes a parameter)", role.role, units::bytes(peak)))
    };
    let disk = |role: &RoleUsage| Some(format!("{} {}", role.role, units::bytes(role.disk_written_a_round?)));
    let line = |what: &str, roles: Vec<String>| (!roles.is_empty()).then(|| format!("{what}: {}", roles.join(", ")));
    let memory = line("most memory", roles.iter().filter_map(memory).collect());
    let disk = line("written to disk a round", roles.iter().filter_map(disk).collect());
    memory.into_iter().chain(disk).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(memory_peak: u64, disk_written: u64) -> Usage {
        Usage { memory_peak: Some(memory_peak), disk_written: Some(disk_written) }
    }

    #[test]
    fn a_role_costs_what_the_costliest_of_its_nodes_does() {
        let processes = [
            (SUPERVISOR, usage(400, 0)),
            ("miner", usage(2600, 900)),
            ("seeder", Usage::default()),
            ("miner", usage(2500, 1000)),
        ];
        let roles = by_role(processes, 100, 10);
        let names: Vec<&str> = roles.iter().map(|role| role.role.as_str()).collect();
        assert_eq!(names, ["miner", "seeder", SUPERVISOR]);
        let miner = &roles[0];
        assert_eq!((miner.nodes, miner.memory_peak, miner.memory_a_parameter), (2, Some(2600), Some(26.0)));
        assert_eq!((miner.disk_written, miner.disk_written_a_round), (Some(1000), Some(100)));
        assert_eq!(
            lines(&roles),
            [
                "most memory: miner 2.60 kB (26.0 bytes a parameter), supervisor 400 B (4.0 bytes a parameter)",
                "written to disk a round: miner 100 B, supervisor 0 B"
            ]
        );
    }

    #[test]
    fn what_is_not_known_is_not_said() {
        let roles = by_role([("miner", Usage::default())], 100, 10);
        assert!(lines(&roles).is_empty());
        assert_eq!(by_role([("miner", usage(1, 1))], 0, 0)[0].disk_written_a_round, None, "no round was finished");
    }
}
