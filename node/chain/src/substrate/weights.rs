//! Weights: held to the subnet's rules before they cost a refusal, and set in the open or locked to the beacon as the
//! subnet wants it.

use super::beacon::{self, Opening};
use super::calls::{self, Row};
use super::epoch::Epochs;
use super::link::Link;
use super::runtime::{DynamicCall, Runtime};
use super::storage::{Place, Values};
use crate::LedgerError;
use codec::Encode;
use covey_proto::{BlockNumber, Hotkey, Uid};
use std::sync::Arc;

/// How the chain hides weights: the form that this client knows, in which the payload names its author.
const HIDING_VERSION: u16 = 4;

/// Bytes of a locked row at most, by the chain's own bound.
const SEALED_MAX: usize = 5_000;

/// Blocks until a call that is signed now is in one, at the earliest.
const NEXT: u64 = 1;

/// What a subnet asks of a row of weights, and of who sets it.
#[derive(Clone, Debug)]
struct Rules {
    netuid: u16,
    hotkey: Hotkey,
    /// The newest block.
    best: u64,
    uid: Option<u16>,
    members: u16,
    permit: bool,
    last_update: u64,
    rate_limit: u64,
    entries_min: u16,
    /// The largest share of one uid; of `u16::MAX`.
    share_max: u16,
    version_key: u64,
}

/// Why weights are not set. Each says what to do.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Fault {
    #[error("hotkey {hotkey} is not registered on subnet {netuid}: run `covey register`")]
    Unregistered { hotkey: Hotkey, netuid: u16 },
    #[error(
        "weights were set {ago} blocks ago; subnet {netuid} allows them each {limit} blocks: wait {} blocks",
        limit - ago
    )]
    TooSoon { ago: u64, limit: u64, netuid: u16 },
    #[error("hotkey {hotkey} has no validator permit on subnet {netuid}: it needs more stake, and an epoch to be seen")]
    NoPermit { hotkey: Hotkey, netuid: u16 },
    #[error("weights for {got} uids; subnet {netuid} wants {min} or more")]
    TooFew { got: usize, min: u16, netuid: u16 },
    #[error("weights for uid {uid}; subnet {netuid} has uids below {members}")]
    NoSuchUid { uid: u16, members: u16, netuid: u16 },
    #[error("two weights for uid {uid}")]
    Twice { uid: u16 },
    #[error("one uid has {share} of 65535 of all weight; subnet {netuid} allows {max}")]
    TooMuch { share: u64, max: u16, netuid: u16 },
}

impl Fault {
    /// The same at the newest block that the rules were read at.
    fn at(self, best: u64) -> LedgerError {
        let why = self.to_string();
        let Fault::TooSoon { ago, limit, .. } = self else { return LedgerError::Refused(why) };
        let at = best.saturating_add(NEXT).saturating_add(limit.saturating_sub(ago));
        LedgerError::NotYet { at: BlockNumber(u32::try_from(at).unwrap_or(u32::MAX)), why }
    }
}

impl Rules {
    /// Whether a row may be set by the next block.
    fn check(&self, row: &Row) -> Result<(), Fault> {
        let Rules { netuid, hotkey, members, .. } = *self;
        let uid = self.uid.ok_or(Fault::Unregistered { hotkey, netuid })?;
        let ago = (self.best + NEXT).saturating_sub(self.last_update);
        if self.last_update != 0 && ago < self.rate_limit {
            return Err(Fault::TooSoon { ago, limit: self.rate_limit, netuid });
        }
        // Anybody may say that only itself is worth anything.
        let own = row.uids == [uid];
        if !own && !self.permit {
            return Err(Fault::NoPermit { hotkey, netuid });
        }
        let min = self.entries_min.min(members);
        if !own && row.uids.len() < usize::from(min) {
            return Err(Fault::TooFew { got: row.uids.len(), min, netuid });
        }
        let mut sorted = row.uids.clone();
        sorted.sort_unstable();
        if let Some(uid) = sorted.last().copied().filter(|uid| *uid >= members) {
            return Err(Fault::NoSuchUid { uid, members, netuid });
        }
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Fault::Twice { uid: pair[0] });
        }
        let sum: u64 = row.values.iter().map(|value| u64::from(*value)).sum();
        let top = row.values.iter().copied().max().map_or(0, u64::from);
        let share = (top * u64::from(u16::MAX)).checked_div(sum).unwrap_or(0);
        if !own && share > u64::from(self.share_max) {
            return Err(Fault::TooMuch { share, max: self.share_max, netuid });
        }
        Ok(())
    }
}

/// Where the rules stand in storage.
struct Places {
    uid: Place,
    members: Place,
    permits: Place,
    updates: Place,
    rate_limit: Place,
    entries_min: Place,
    share_max: Place,
    version_key: Place,
    hidden: Place,
    number: Place,
}

impl Places {
    fn new(runtime: &Runtime, netuid: u16, hotkey: &Hotkey) -> Result<Places, LedgerError> {
        let of = |item| Place::new(runtime, "SubtensorModule", item, (netuid,));
        Ok(Places {
            uid: Place::new(runtime, "SubtensorModule", "Uids", (netuid, *hotkey.as_bytes()))?,
            members: of("SubnetworkN")?,
            permits: of("ValidatorPermit")?,
            updates: of("LastUpdate")?,
            rate_limit: of("WeightsSetRateLimit")?,
            entries_min: of("MinAllowedWeights")?,
            share_max: of("MaxWeightsLimit")?,
            version_key: of("WeightsVersionKey")?,
            hidden: of("CommitRevealWeightsEnabled")?,
            number: Place::new(runtime, "System", "Number", ())?,
        })
    }

    fn all(&self) -> [&Place; 10] {
        let Places { uid, members, permits, updates, rate_limit, .. } = self;
        let Places { entries_min, share_max, version_key, hidden, number, .. } = self;
        [uid, members, permits, updates, rate_limit, entries_min, share_max, version_key, hidden, number]
    }

    fn rules(&self, values: &Values, netuid: u16, hotkey: Hotkey) -> Result<Rules, LedgerError> {
        let uid: Option<u16> = values.get(&self.uid)?;
        let at = usize::from(uid.unwrap_or(u16::MAX));
        let (permits, updates): (Vec<bool>, Vec<u64>) = (values.need(&self.permits)?, values.need(&self.updates)?);
        Ok(Rules {
            netuid,
            hotkey,
            best: values.need::<u32>(&self.number)?.into(),
            uid,
            members: values.need(&self.members)?,
            permit: permits.get(at).copied().unwrap_or(false),
            last_update: updates.get(at).copied().unwrap_or(0),
            rate_limit: values.need(&self.rate_limit)?,
            entries_min: values.need(&self.entries_min)?,
            share_max: values.need(&self.share_max)?,
            version_key: values.need(&self.version_key)?,
        })
    }
}

/// What is locked: whose weights they are, so that nobody else's copy of them counts, and the weights.
#[derive(Encode)]
struct Payload<'a> {
    hotkey: Vec<u8>,
    uids: &'a [u16],
    values: &'a [u16],
    version_key: u64,
}

/// The call that sets weights as the subnet wants them set. Of the main mechanism: a run knows no other.
pub(super) async fn call(link: &Link, hotkey: Hotkey, weights: &[(Uid, u16)]) -> Result<DynamicCall, LedgerError> {
    let (netuid, runtime) = (link.settings.netuid, link.runtime().await?);
    let places = Places::new(&runtime, netuid, &hotkey)?;
    let values = link.read(&runtime, &places.all(), None).await?;
    let rules = places.rules(&values, netuid, hotkey)?;
    // A `Uid` is below 256.
    let (uids, shares) = weights.iter().map(|(uid, share)| (uid.number() as u16, *share)).unzip();
    let row = Row { uids, values: shares, version_key: rules.version_key };
    rules.check(&row).map_err(|fault| fault.at(rules.best))?;
    match values.need::<bool>(&places.hidden)? {
        true => locked(link, &runtime, hotkey, &row, rules.best).await,
        false => Ok(calls::set_weights(netuid, &row)),
    }
}

/// Locks a row to the round after which the chain opens it.
async fn locked(
    link: &Link,
    runtime: &Arc<Runtime>,
    hotkey: Hotkey,
    row: &Row,
    best: u64,
) -> Result<DynamicCall, LedgerError> {
    let netuid = link.settings.netuid;
    let of = |item| Place::new(runtime, "SubtensorModule", item, (netuid,));
    let (period, version) =
        (of("RevealPeriodEpochs")?, Place::new(runtime, "SubtensorModule", "CommitRevealWeightsVersion", ())?);
    let newest = Place::new(runtime, "Drand", "LastStoredRound", ())?;
    let beacon = Place::new(runtime, "Drand", "BeaconConfig", ())?;
    let now = Place::new(runtime, "Timestamp", "Now", ())?;
    let epochs = EpochPlaces::new(runtime, netuid)?;
    let places = [vec![&period, &version, &newest, &beacon, &now], epochs.all()].concat();
    let values = link.read(runtime, &places, None).await?;
    let version: u16 = values.need(&version)?;
    if version != HIDING_VERSION {
        return Err(LedgerError::Refused(format!(
            "the chain hides weights in its form {version}; this version of Covey knows {HIDING_VERSION}: update it"
        )));
    }
    let beacon: beacon::Stored = values.need(&beacon)?;
    // In the next block, or later: should it be an epoch later, its round has come all the same.
    let included = best + NEXT;
    let opens = epochs.epochs(&values, netuid)?.opens_at(included, values.need(&period)?);
    let blocks = opens.map(|opens| opens.saturating_sub(best));
    let (now_ms, newest) = (values.need(&now)?, values.need(&newest)?);
    let opening = |blocks| Opening { now_ms, slot_ms: runtime.slot_ms(), blocks, newest };
    let round = blocks.and_then(|blocks| beacon.round_for(opening(blocks)));
    let too_short = || {
        LedgerError::Refused(format!(
            "subnet {netuid} hides weights, but its epochs end before a round of the beacon comes, each {} s",
            beacon.period
        ))
    };
    let round = round.ok_or_else(too_short)?;
    let payload = Payload {
        hotkey: hotkey.as_bytes().to_vec(),
        uids: &row.uids,
        values: &row.values,
        version_key: row.version_key,
    };
    let mut entropy = [0; 32];
    getrandom::fill(&mut entropy).map_err(|error| LedgerError::Unreachable(format!("no randomness: {error}")))?;
    let sealed = covey_timelock::lock(&beacon.public_key, round, &payload.encode(), &entropy);
    match sealed {
        Some(sealed) if sealed.len() <= SEALED_MAX => {
            Ok(calls::commit_timelocked_weights(netuid, &sealed, round, version))
        }
        Some(sealed) => {
            Err(LedgerError::Refused(format!("locked weights of {} bytes; the chain takes {SEALED_MAX}", sealed.len())))
        }
        None => Err(LedgerError::Refused("the chain's beacon has a public key that is none".into())),
    }
}

/// Where a subnet's epochs stand in storage, by whichever arithmetic the chain has.
pub(super) struct EpochPlaces {
    tempo: Place,
    memory: Option<(Place, Place)>,
}

impl EpochPlaces {
    pub(super) fn new(runtime: &Runtime, netuid: u16) -> Result<EpochPlaces, LedgerError> {
        let of = |item| Place::new(runtime, "SubtensorModule", item, (netuid,));
        let memory = match runtime.has_storage("SubtensorModule", "LastEpochBlock") {
            true => Some((of("LastEpochBlock")?, of("PendingEpochAt")?)),
            false => None,
        };
        Ok(EpochPlaces { tempo: of("Tempo")?, memory })
    }

    pub(super) fn all(&self) -> Vec<&Place> {
        let memory = self.memory.iter().flat_map(|(last, pending)| [last, pending]);
        std::iter::once(&self.tempo).chain(memory).collect()
    }

    pub(super) fn epochs(&self, values: &Values, netuid: u16) -> Result<Epochs, LedgerError> {
        let tempo = values.need(&self.tempo)?;
        Ok(match &self.memory {
            Some((last, pending)) => {
                Epochs::ByMemory { tempo, last: values.need(last)?, pending: values.need(pending)? }
            }
            None => Epochs::ByNumber { tempo, netuid },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules {
            netuid: 3,
            hotkey: Hotkey::new([1; 32]),
            best: 1_000,
            uid: Some(2),
            members: 5,
            permit: true,
            last_update: 900,
            rate_limit: 100,
            entries_min: 2,
            share_max: u16::MAX,
            version_key: 0,
        }
    }

    fn row(entries: &[(u16, u16)]) -> Row {
        let (uids, values) = entries.iter().copied().unzip();
        Row { uids, values, version_key: 0 }
    }

    #[test]
    fn a_row_that_breaks_no_rule_is_set() {
        assert_eq!(rules().check(&row(&[(0, 1), (4, u16::MAX)])), Ok(()));
        assert_eq!(Rules { last_update: 0, rate_limit: 5_000, ..rules() }.check(&row(&[(0, 1), (1, 1)])), Ok(()));
        assert_eq!(Rules { permit: false, ..rules() }.check(&row(&[(2, 1)])), Ok(()), "the own uid alone");
        assert_eq!(Rules { members: 1, uid: Some(0), ..rules() }.check(&row(&[(0, 1)])), Ok(()));
    }

    #[test]
    fn who_is_too_soon_is_told_how_long_to_wait() {
        let fault = Rules { last_update: 989, ..rules() }.check(&row(&[(0, 1), (1, 1)])).unwrap_err().to_string();
        assert_eq!(fault, "weights were set 12 blocks ago; subnet 3 allows them each 100 blocks: wait 88 blocks");
        assert_eq!(
            Rules { last_update: 901, ..rules() }.check(&row(&[(0, 1), (1, 1)])),
            Ok(()),
            "the next block is late enough"
        );
        assert!(Rules { last_update: 902, ..rules() }.check(&row(&[(0, 1), (1, 1)])).is_err());
    }

    #[test]
    fn who_is_too_soon_is_told_which_block_takes_the_row() {
        let rules = Rules { last_update: 989, ..rules() };
        let LedgerError::NotYet { at, .. } = rules.check(&row(&[(0, 1), (1, 1)])).unwrap_err().at(rules.best) else {
            panic!("it is only too soon");
        };
        assert_eq!(at, BlockNumber(1_089));
        let then = Rules { best: u64::from(at.0) - NEXT, ..rules.clone() };
        assert_eq!(then.check(&row(&[(0, 1), (1, 1)])), Ok(()), "signed at the block before, it is in that one");
        let early = Rules { best: then.best - 1, ..rules };
        assert!(early.check(&row(&[(0, 1), (1, 1)])).is_err());
        let fault = Fault::Twice { uid: 3 };
        assert!(matches!(fault.at(5), LedgerError::Refused(_)));
    }

    #[test]
    fn each_rule_has_advice() {
        let two = row(&[(0, 1), (1, 1)]);
        let said = |rules: Rules, row: &Row| rules.check(row).unwrap_err().to_string();
        assert!(said(Rules { uid: None, ..rules() }, &two).contains("run `covey register`"));
        assert!(said(Rules { permit: false, ..rules() }, &two).contains("no validator permit on subnet 3"));
        assert!(said(rules(), &row(&[(0, 1)])).contains("weights for 1 uids; subnet 3 wants 2 or more"));
        assert!(said(rules(), &row(&[(0, 1), (5, 1)])).contains("uid 5; subnet 3 has uids below 5"));
        assert!(said(rules(), &row(&[(1, 1), (1, 2)])).contains("two weights for uid 1"));
        let narrow = Rules { share_max: u16::MAX / 2, ..rules() };
        assert!(said(narrow.clone(), &row(&[(0, 1), (1, 2)])).contains("43690 of 65535"));
        assert_eq!(narrow.check(&row(&[(0, 0), (1, 0)])), Ok(()), "no weight at all is the chain's matter");
    }
}
