//! What a chain's refusals mean, and what to do about them: tables of the pool's numbers, and of the errors of calls that
//! failed in a block. `{key}` and `{net}` stand for the account that signed and the subnet.

use super::failure::Failure;
use crate::LedgerError;
use covey_proto::Hotkey;

/// Subtensor's numbers of "Custom error": what it refuses before it is in a block.
const POOL: [(u8, &str); 17] = [
    (1, "{key} has too little stake on subnet {net} for weights: add stake to it"),
    (2, "{key} has too little money: send it some TAO"),
    (3, "there is no subnet {net}"),
    (4, "there is no such hotkey, or it is another coldkey's"),
    (6, "subnet {net} is asked too often by {key}: wait some blocks"),
    (10, "{key} is not registered on any subnet: run `covey register`"),
    (11, "the chain takes no such address for an axon: it must be public"),
    (12, "the axon was set a moment ago: wait some blocks"),
    (13, "port 0 is no port"),
    (14, "too many transactions in this block: try again with the next"),
    (15, "no weights were committed that could be revealed"),
    (16, "weights are revealed in another epoch than this"),
    (17, "weights and uids differ in number"),
    (18, "there is no such uid"),
    (19, "{key} is not registered on subnet {net}: run `covey register`"),
    (20, "the chain has disabled this call"),
    (255, "the chain does not say why: look whether {key} is registered on subnet {net} and has stake"),
];

/// Errors of calls that failed in a block, by pallet and name.
const DISPATCH: [(&str, &str, &str); 27] = [
    ("Commitments", "AccountNotAllowedCommit", "{key} is not registered on subnet {net}: run `covey register`"),
    (
        "Commitments",
        "SpaceLimitExceeded",
        "{key} has used its space for commitments of this epoch on subnet {net}; longer rounds need less",
    ),
    ("Commitments", "TooManyFieldsInCommitmentInfo", "the chain takes fewer fields in a commitment: update Covey"),
    ("SubtensorModule", "HotKeyNotRegisteredInSubNet", "{key} is not registered on subnet {net}: run `covey register`"),
    ("SubtensorModule", "HotKeyNotRegisteredInNetwork", "{key} is not registered on any subnet: run `covey register`"),
    ("SubtensorModule", "HotKeyAccountNotExists", "{key} was never registered: run `covey register`"),
    (
        "SubtensorModule",
        "NeuronNoValidatorPermit",
        "{key} has no validator permit on subnet {net}: it needs more stake, and an epoch to be seen",
    ),
    (
        "SubtensorModule",
        "NotEnoughStakeToSetWeights",
        "{key} has too little stake on subnet {net} for weights: add stake to it",
    ),
    (
        "SubtensorModule",
        "SettingWeightsTooFast",
        "weights were set a moment ago: subnet {net} wants more blocks in between",
    ),
    (
        "SubtensorModule",
        "CommittingWeightsTooFast",
        "weights were committed a moment ago: subnet {net} wants more blocks in between",
    ),
    ("SubtensorModule", "IncorrectWeightVersionKey", "subnet {net} wants weights of a newer version: update Covey"),
    ("SubtensorModule", "WeightVecLengthIsLow", "subnet {net} wants weights for more uids"),
    ("SubtensorModule", "MaxWeightExceeded", "one uid has more of the weight than subnet {net} allows"),
    ("SubtensorModule", "UidVecContainInvalidOne", "weights for a uid that subnet {net} has not"),
    ("SubtensorModule", "DuplicateUids", "two weights for one uid"),
    (
        "SubtensorModule",
        "CommitRevealEnabled",
        "subnet {net} hides weights since a moment ago: they are committed the next time",
    ),
    (
        "SubtensorModule",
        "CommitRevealDisabled",
        "subnet {net} no longer hides weights: they are set in the open the next time",
    ),
    ("SubtensorModule", "IncorrectCommitRevealVersion", "the chain hides weights in another form: update Covey"),
    ("SubtensorModule", "TooManyUnrevealedCommits", "ten hidden rows wait for their epoch: set weights less often"),
    ("SubtensorModule", "HotKeyAlreadyRegisteredInSubNet", "{key} is on subnet {net} already"),
    ("SubtensorModule", "NotEnoughBalanceToStake", "{key} has too little money: send it some TAO"),
    (
        "SubtensorModule",
        "RegistrationPriceLimitExceeded",
        "a uid of subnet {net} costs more than the limit: raise it, or wait",
    ),
    (
        "SubtensorModule",
        "TooManyRegistrationsThisBlock",
        "others registered in the same block: try again with the next",
    ),
    (
        "SubtensorModule",
        "TooManyRegistrationsThisInterval",
        "subnet {net} takes no more registrations for now: try again later",
    ),
    ("SubtensorModule", "SubNetRegistrationDisabled", "subnet {net} takes no registrations: ask its owner"),
    (
        "SubtensorModule",
        "NoNeuronIdAvailable",
        "every uid of subnet {net} is too new to be given away: try again later",
    ),
    ("SubtensorModule", "ServingRateLimitExceeded", "the axon was set a moment ago: wait some blocks"),
];

/// Errors of transactions by the text that nodes put into their data.
const INVALID: [(&str, &str); 6] = [
    ("Transaction is outdated", "its nonce was used: it is in a block, or another call of {key} is"),
    (
        "Transaction has a bad signature",
        "its time is over, or the chain was upgraded since it was signed: it is signed anew",
    ),
    ("Transaction has an ancient birth block", "its time is over: it is signed anew"),
    ("Transaction will be valid in the future", "calls before it have not come: they are sent again"),
    ("Inability to pay some fees", "{key} has too little money for the fee: send it some TAO"),
    ("Transaction would exhaust the block limits", "blocks are full: try again with the next"),
];

/// Whose call it is, and where.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) account: [u8; 32],
    pub(super) netuid: u16,
    pub(super) nonce: u64,
}

impl Case {
    fn fill(&self, text: &str) -> String {
        text.replace("{key}", &Hotkey::new(self.account).to_string()).replace("{net}", &self.netuid.to_string())
    }
}

/// Why the pool did not take a call.
pub(super) fn of_pool(failure: Failure, case: Case) -> LedgerError {
    let Failure::Refused(error) = failure else { return failure.into() };
    let data = error.data.as_ref().map(|data| data.get().trim_matches('"').to_owned()).unwrap_or_default();
    let Case { nonce, .. } = case;
    let said = match data.as_str() {
        "" => format!("{} ({})", error.message, error.code),
        data => format!("{}: {data} ({})", error.message, error.code),
    };
    match error.code {
        // Full: those that pay less wait outside.
        1016 => LedgerError::Unreachable(format!("its pool is full: {said}")),
        1011 => LedgerError::Unreachable(said),
        1014 => LedgerError::Refused(format!("another call of nonce {nonce} waits already; sign again ({said})")),
        1012 => LedgerError::Refused(format!("it was refused or included a moment ago ({said})")),
        _ => match meaning(&data) {
            Some(advice) => LedgerError::Refused(format!("{} ({said})", case.fill(advice))),
            None => LedgerError::Refused(said),
        },
    }
}

fn meaning(data: &str) -> Option<&'static str> {
    if let Some(number) = data.strip_prefix("Custom error: ") {
        let number: u8 = number.parse().ok()?;
        return POOL.iter().find(|(known, _)| *known == number).map(|(_, advice)| *advice);
    }
    INVALID.iter().find(|(text, _)| data.contains(text)).map(|(_, advice)| *advice)
}

/// Why a call failed in its block.
pub(super) fn of_dispatch(pallet: &str, name: &str, case: Case) -> String {
    match DISPATCH.iter().find(|known| (known.0, known.1) == (pallet, name)) {
        Some((.., advice)) => format!("{} ({pallet}.{name})", case.fill(advice)),
        None => format!("{pallet}.{name}"),
    }
}

/// Errors by pallet and name: a test looks whether the chain has them.
#[cfg(test)]
pub(super) fn known_errors() -> impl Iterator<Item = (&'static str, &'static str)> {
    DISPATCH.iter().map(|(pallet, name, _)| (*pallet, *name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use subxt::rpcs::UserError;

    fn case() -> Case {
        Case { account: [7; 32], netuid: 3, nonce: 12 }
    }

    fn refused(code: i32, message: &str, data: &str) -> LedgerError {
        let data = serde_json::value::RawValue::from_string(format!("{data:?}")).ok();
        of_pool(Failure::Refused(UserError { code, message: message.into(), data }), case())
    }

    #[test]
    fn numbers_of_the_pool_become_advice_with_names() {
        let said = refused(1010, "Invalid Transaction", "Custom error: 19").to_string();
        let key = Hotkey::new([7; 32]).to_string();
        assert!(said.contains(&format!("{key} is not registered on subnet 3: run `covey register`")), "{said}");
        assert!(said.contains("Custom error: 19"), "the chain's own words stay: {said}");
        let unknown = refused(1010, "Invalid Transaction", "Custom error: 77").to_string();
        assert!(unknown.contains("Custom error: 77"), "{unknown}");
    }

    #[test]
    fn what_may_pass_is_worth_another_try_and_what_will_not_is_not() {
        assert!(matches!(refused(1016, "Immediately Dropped", ""), LedgerError::Unreachable(_)));
        assert!(matches!(refused(1014, "Priority is too low", ""), LedgerError::Refused(_)));
        let outdated = refused(1010, "Invalid Transaction", "Transaction is outdated");
        assert!(matches!(&outdated, LedgerError::Refused(why) if why.contains("its nonce was used")), "{outdated}");
        let gone = of_pool(Failure::Unreachable("cut".into()), case());
        assert!(matches!(gone, LedgerError::Unreachable(_)));
    }

    #[test]
    fn failures_in_a_block_become_advice() {
        let said = of_dispatch("Commitments", "SpaceLimitExceeded", case());
        assert!(said.contains("has used its space") && said.ends_with("(Commitments.SpaceLimitExceeded)"), "{said}");
        assert_eq!(of_dispatch("Balances", "Whatever", case()), "Balances.Whatever");
    }
}
