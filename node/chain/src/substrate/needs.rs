//! What this client needs of a chain: calls, storage and runtime APIs by name, with the arguments and types that it
//! gives and takes. Looked up in the metadata when connecting, and after an upgrade of the runtime.

use super::calls::{self, Row};
use super::metagraph;
use super::runtime::{DynamicCall, Misfit, Runtime};
use covey_proto::Hotkey;
use std::fmt;
use subxt::ext::scale_decode::DecodeAsType;

/// What is lost where a need is not met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// Nothing works without it.
    Essential,
    /// One thing does not work without it.
    Feature(&'static str),
}

/// A need that a chain does not meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its name.
    pub name: String,
    /// What is wrong with it.
    pub why: String,
    /// What is lost.
    pub weight: Weight,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault { name, why, weight } = self;
        match weight {
            Weight::Essential => write!(f, "{name}: {why}"),
            Weight::Feature(lost) => write!(f, "{name}: {why}; without it: {lost}"),
        }
    }
}

/// A runtime that lacks something essential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// The runtime's version.
    pub spec_version: u32,
    /// All that is missing or has changed, the essential first.
    pub faults: Vec<Fault>,
}

impl std::error::Error for Unfit {}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the chain's runtime {} is not one that this version of Covey knows:", self.spec_version)?;
        self.faults.iter().try_for_each(|fault| write!(f, "\n  {fault}"))?;
        write!(f, "\n  try: a newer version of Covey, or another endpoint")
    }
}

/// Why a call cannot be made as this client makes it.
#[derive(Debug, thiserror::Error)]
enum CallFault {
    /// No such call.
    #[error("there is none")]
    Missing,
    /// It takes other arguments.
    #[error("its arguments are ({}), not ({})", .takes.join(", "), .given.join(", "))]
    Arguments { takes: Vec<String>, given: Vec<String> },
    /// Its arguments have other types.
    #[error(transparent)]
    Types(#[from] Misfit),
}

/// How a need is looked up.
enum Need {
    /// A call, with arguments as this client gives them.
    Call(fn() -> DynamicCall),
    /// A storage item: its key is made and its default decoded as this client does.
    Storage(&'static str, &'static str, fn(&Runtime) -> Result<(), Misfit>),
    /// A runtime API's method, and fields that its answer must have.
    Api(&'static str, &'static str, fn(&Runtime) -> Result<(), Misfit>, &'static [&'static str]),
}

const SOMEONE: [u8; 32] = [7; 32];

fn item<V: DecodeAsType>(runtime: &Runtime, pallet: &str, name: &str) -> Result<(), Misfit> {
    runtime.value::<V>(pallet, name, None).map(drop)
}

fn row() -> Row {
    Row { uids: vec![0, 1], values: vec![1, u16::MAX], version_key: 0 }
}

/// Plain storage: no key.
macro_rules! plain {
    ($pallet:literal, $item:literal, $value:ty) => {
        Need::Storage($pallet, $item, |runtime| {
            runtime.key($pallet, $item, ())?;
            item::<$value>(runtime, $pallet, $item)
        })
    };
}

/// Storage by netuid, or by the index of a mechanism.
macro_rules! by_netuid {
    ($item:literal, $value:ty) => {
        Need::Storage("SubtensorModule", $item, |runtime| {
            runtime.key("SubtensorModule", $item, (1_u16,))?;
            item::<$value>(runtime, "SubtensorModule", $item)
        })
    };
}

/// Storage by netuid and hotkey.
macro_rules! by_hotkey {
    ($pallet:literal, $item:literal, $value:ty) => {
        Need::Storage($pallet, $item, |runtime| {
            runtime.key($pallet, $item, (1_u16, SOMEONE))?;
            item::<$value>(runtime, $pallet, $item)
        })
    };
}

const METAGRAPH_FIELDS: &[&str] = &[
    "block",
    "tempo",
    "hotkeys",
    "coldkeys",
    "axons",
    "validator_permit",
    "last_update",
    "incentives",
    "block_at_registration",
    "total_stake",
    "commitments",
];

/// All needs, and what is lost where one is not met.
fn needs() -> Vec<(Weight, Need)> {
    use Weight::{Essential, Feature};
    const REGISTER: Weight = Feature("`covey register`");
    const LIMIT: Weight = Feature("registering checks the price beforehand, and may pay more if it rises meanwhile");
    const AXON: Weight = Feature("the node's address on chain");
    const WEIGHTS: Weight = Feature("setting weights");
    const HIDDEN: Weight = Feature("setting weights where the subnet hides them");
    const SPACE: Weight = Feature("checking that a run's rounds fit the chain's space for commitments");
    const EPOCHS: Weight = Feature("subnets whose epochs are counted from the last one");
    vec![
        (Essential, Need::Call(|| calls::set_commitment(1, &[5; 114]))),
        (
            Essential,
            Need::Api(
                metagraph::API,
                metagraph::METHOD,
                |runtime| runtime.api(metagraph::API, metagraph::METHOD, (1_u16, vec![7_u16])).map(drop),
                METAGRAPH_FIELDS,
            ),
        ),
        (
            Essential,
            Need::Storage("Commitments", "CommitmentOf", |runtime| {
                runtime.key("Commitments", "CommitmentOf", (1_u16, SOMEONE)).map(drop)
            }),
        ),
        (
            Essential,
            Need::Storage("System", "Account", |runtime| {
                runtime.key("System", "Account", (SOMEONE,))?;
                item::<super::account::Account>(runtime, "System", "Account")
            }),
        ),
        (Essential, Need::Storage("System", "Events", |runtime| runtime.key("System", "Events", ()).map(drop))),
        (Essential, by_netuid!("NetworksAdded", bool)),
        (WEIGHTS, Need::Call(|| calls::set_weights(1, &row()))),
        (WEIGHTS, by_hotkey!("SubtensorModule", "Uids", u16)),
        (WEIGHTS, by_netuid!("SubnetworkN", u16)),
        (WEIGHTS, by_netuid!("MinAllowedWeights", u16)),
        (WEIGHTS, by_netuid!("MaxWeightsLimit", u16)),
        (WEIGHTS, by_netuid!("WeightsSetRateLimit", u64)),
        (WEIGHTS, by_netuid!("WeightsVersionKey", u64)),
        (WEIGHTS, by_netuid!("ValidatorPermit", Vec<bool>)),
        (WEIGHTS, by_netuid!("LastUpdate", Vec<u64>)),
        (WEIGHTS, by_netuid!("CommitRevealWeightsEnabled", bool)),
        (
            WEIGHTS,
            Need::Storage("SubtensorModule", "Weights", |runtime| {
                runtime.key("SubtensorModule", "Weights", (1_u16, 0_u16))?;
                item::<Vec<(u16, u16)>>(runtime, "SubtensorModule", "Weights")
            }),
        ),
        (HIDDEN, Need::Call(|| calls::commit_timelocked_weights(1, &[1; 600], 9, 4))),
        (HIDDEN, by_netuid!("RevealPeriodEpochs", u64)),
        (HIDDEN, plain!("SubtensorModule", "CommitRevealWeightsVersion", u16)),
        (HIDDEN, by_netuid!("Tempo", u16)),
        (HIDDEN, plain!("Drand", "LastStoredRound", u64)),
        (HIDDEN, plain!("Drand", "BeaconConfig", super::beacon::Stored)),
        (EPOCHS, by_netuid!("LastEpochBlock", u64)),
        (EPOCHS, by_netuid!("PendingEpochAt", u64)),
        (SPACE, plain!("Commitments", "MaxSpace", u32)),
        (SPACE, by_hotkey!("Commitments", "UsedSpaceOf", super::space::Used)),
        (REGISTER, Need::Call(|| calls::burned_register(1, &Hotkey::new(SOMEONE)))),
        (REGISTER, by_netuid!("Burn", u64)),
        (LIMIT, Need::Call(|| calls::register_limit(1, &Hotkey::new(SOMEONE), 1_000_000))),
        (AXON, Need::Call(|| calls::serve_axon(1, std::net::SocketAddr::from(([203, 0, 113, 9], 4_242))))),
    ]
}

/// Everything that a runtime lacks or has otherwise, the essential first.
pub(super) fn faults(runtime: &Runtime) -> Vec<Fault> {
    let unmet = |(weight, need): (Weight, Need)| {
        let (name, why) = look_up(runtime, &need)?;
        Some(Fault { name, why, weight })
    };
    let mut faults: Vec<Fault> = needs().into_iter().filter_map(unmet).collect();
    faults.sort_by_key(|fault| fault.weight != Weight::Essential);
    faults
}

/// Refuses a runtime that lacks something essential; says what else it lacks.
pub(super) fn check(runtime: &Runtime) -> Result<(), Unfit> {
    let faults = faults(runtime);
    if faults.iter().any(|fault| fault.weight == Weight::Essential) {
        return Err(Unfit { spec_version: runtime.spec_version, faults });
    }
    for fault in faults {
        tracing::info!(runtime = runtime.spec_version, %fault, "the chain lacks");
    }
    Ok(())
}

/// Name and reason, if a need is not met.
fn look_up(runtime: &Runtime, need: &Need) -> Option<(String, String)> {
    match need {
        Need::Call(call) => {
            let call = call();
            let name = format!("call {}.{}", call.pallet, call.name);
            look_up_call(runtime, &call).err().map(|why| (name, why.to_string()))
        }
        Need::Storage(pallet, item, check) => {
            let name = format!("storage {pallet}.{item}");
            if !runtime.has_storage(pallet, item) {
                return Some((name, "there is none".into()));
            }
            check(runtime).err().map(|why| (name, why.to_string()))
        }
        Need::Api(api, method, check, fields) => {
            let name = format!("runtime API {api}.{method}");
            if let Err(why) = check(runtime) {
                return Some((name, why.to_string()));
            }
            let missing = runtime.answer_lacks(api, method, fields);
            (!missing.is_empty()).then(|| (name, format!("its answer lacks {}", missing.join(", "))))
        }
    }
}

fn look_up_call(runtime: &Runtime, call: &DynamicCall) -> Result<(), CallFault> {
    let takes = runtime.call_arguments(call.pallet, call.name).ok_or(CallFault::Missing)?;
    let given = call.argument_names();
    if takes != given {
        return Err(CallFault::Arguments { takes, given });
    }
    Ok(runtime.call_data(call).map(drop)?)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use covey_proto::Digest;
    use subxt::Metadata;

    /// The chain's metadata of December 2025: see tests/data/finney.md.
    pub(in super::super) fn finney() -> Runtime {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/finney.scale");
        let metadata = Metadata::decode_from(&std::fs::read(path).unwrap()).unwrap();
        Runtime::new(metadata.arc(), 365, 1, Digest::ZERO)
    }

    #[test]
    fn bittensor_meets_every_need_but_those_that_came_later() {
        let faults = faults(&finney());
        let names: Vec<&str> = faults.iter().map(|fault| fault.name.as_str()).collect();
        let later = [
            "storage SubtensorModule.LastEpochBlock",
            "storage SubtensorModule.PendingEpochAt",
            "call SubtensorModule.register_limit",
        ];
        assert_eq!(names, later, "{faults:#?}");
        assert!(check(&finney()).is_ok());
        assert_eq!(finney().slot_ms(), 12_000);
    }

    #[test]
    fn bittensor_has_every_error_that_there_is_advice_for() {
        let finney = finney();
        for (pallet, name) in super::super::advice::known_errors() {
            let errors = finney.metadata().pallet_by_name(pallet).and_then(|pallet| pallet.error_variants());
            let known = errors.is_some_and(|all| all.iter().any(|error| error.name == name));
            // Came later.
            assert!(known || name == "RegistrationPriceLimitExceeded", "{pallet}.{name}");
        }
    }

    #[test]
    fn what_a_runtime_lacks_is_listed_whole_the_essential_first() {
        let finney = finney();
        let lacks = |need: Need| look_up(&finney, &need).unwrap();
        let (name, why) = lacks(Need::Call(|| DynamicCall::new("SubtensorModule", "fly", [])));
        assert_eq!((name.as_str(), why.as_str()), ("call SubtensorModule.fly", "there is none"));
        let (_, why) = lacks(Need::Call(|| DynamicCall::new("Commitments", "set_commitment", [])));
        assert_eq!(why, "its arguments are (netuid, info), not ()");
        let (name, _) = lacks(Need::Storage("SubtensorModule", "Gone", |_| Ok(())));
        assert_eq!(name, "storage SubtensorModule.Gone");
        let (_, why) = lacks(by_netuid!("Burn", bool));
        assert!(why.contains("SubtensorModule.Burn"), "{why}");
        let (_, why) = lacks(Need::Api(metagraph::API, metagraph::METHOD, |_| Ok(()), &["block", "wings"]));
        assert_eq!(why, "its answer lacks wings");
        let fault = |weight| Fault { name: "storage A.B".into(), why: "there is none".into(), weight };
        let unfit = Unfit { spec_version: 9, faults: vec![fault(Weight::Essential), fault(Weight::Feature("flying"))] };
        let said = unfit.to_string();
        assert!(said.contains("runtime 9") && said.contains("without it: flying") && said.contains("try: "), "{said}");
    }
}
