//! The validators' weights as a swarm's report shows them: one row, whatever the number of validators.

use crate::chain::{Ledger, Weights};
use covey_proto::Uid;
use covey_proto::chain::ChainView;
use std::collections::BTreeMap;

/// The weights as they stand on chain now; nothing where the chain does not answer, or nobody has set any.
pub(super) async fn weights_now(ledger: &impl Ledger) -> BTreeMap<Uid, f64> {
    let finalised = ledger.heads().borrow().finalised;
    match (ledger.weights().await, ledger.view(finalised).await) {
        (Ok(weights), Ok(view)) => mean(&weights, &view),
        _ => BTreeMap::new(),
    }
}

/// The validators' rows, each normalised to a sum of 1, weighed by stake. Sums to 1.
fn mean(weights: &Weights, view: &ChainView) -> BTreeMap<Uid, f64> {
    let mut mean: BTreeMap<Uid, f64> = BTreeMap::new();
    let mut total = 0.0;
    for (hotkey, shares) in weights {
        let sum: f64 = shares.iter().map(|(_, share)| f64::from(*share)).sum();
        let Some(member) = view.member(hotkey).filter(|_| sum > 0.0) else { continue };
        total += member.stake as f64;
        for (uid, share) in shares {
            *mean.entry(*uid).or_default() += member.stake as f64 * f64::from(*share) / sum;
        }
    }
    mean.values_mut().for_each(|share| *share /= total);
    mean
}

#[cfg(test)]
mod tests {
    use super::*;
    use covey_proto::chain::Member;
    use covey_proto::{BlockNumber, Digest, Hotkey};

    fn hotkey(number: u8) -> Hotkey {
        Hotkey::new([number; 32])
    }

    #[test]
    fn a_row_counts_by_its_validators_stake_and_not_by_its_own_sum() {
        let member = |number: u8, stake| {
            let uid = Uid::from(number);
            (uid, Member { uid, hotkey: hotkey(number), registered_at: BlockNumber(1), permit: true, stake })
        };
        let members = BTreeMap::from([member(1, 300), member(2, 100), member(3, 100)]);
        let view = ChainView { block: BlockNumber(9), hash: Digest::ZERO, slots: BTreeMap::new(), members };
        let rows = [
            (1, vec![(7, 10), (8, 30)]),
            (2, vec![(7, 60_000)]),
            (3, vec![(8, 0)]),
            // No member any more.
            (4, vec![(9, 1)]),
        ];
        let row = |(number, shares): (u8, Vec<(u8, u16)>)| {
            (hotkey(number), shares.into_iter().map(|(uid, share)| (Uid::from(uid), share)).collect())
        };
        let mean = mean(&rows.into_iter().map(row).collect(), &view);
        let expected = [(Uid::from(7), (300.0 * 0.25 + 100.0) / 400.0), (Uid::from(8), 300.0 * 0.75 / 400.0)];
        assert_eq!(mean, BTreeMap::from(expected));
    }

    #[test]
    fn without_rows_there_are_no_weights() {
        let view =
            ChainView { block: BlockNumber(9), hash: Digest::ZERO, slots: BTreeMap::new(), members: BTreeMap::new() };
        assert!(mean(&Weights::new(), &view).is_empty());
    }
}
