//! When a subnet's epochs begin, by either arithmetic, and so when the chain opens weights that were locked. Pure.

/// How a subnet's epochs are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Epochs {
    /// By block number: block b is in epoch (b + netuid + 1) ÷ (tempo + 1). Subtensor until 2026.
    ByNumber {
        /// Blocks of an epoch, less one.
        tempo: u16,
        /// Shifts the subnets against each other.
        netuid: u16,
    },
    /// From the last one: the next begins a tempo later, or at a block that was asked for. Subtensor since June 2026.
    ByMemory {
        /// Blocks of an epoch.
        tempo: u16,
        /// The block at which the current one began.
        last: u64,
        /// A block at which one is due besides; 0 for none.
        pending: u64,
    },
}

impl Epochs {
    /// The first block of the epoch that is `period` epochs after the one of block `included`. None where epochs never
    /// end.
    pub fn opens_at(self, included: u64, period: u64) -> Option<u64> {
        match self {
            Epochs::ByNumber { tempo, netuid } => {
                let (length, offset) = (u64::from(tempo) + 1, u64::from(netuid) + 1);
                if tempo == 0 {
                    return None;
                }
                let epoch = (included.checked_add(offset)? / length).checked_add(period)?;
                epoch.checked_mul(length)?.checked_sub(offset)
            }
            Epochs::ByMemory { tempo, last, pending } => {
                if tempo == 0 {
                    return None;
                }
                let regular = last.checked_add(tempo.into())?;
                let due = if pending > 0 { regular.min(pending) } else { regular };
                // One that is due by then begins in that very block, before its calls: the next is a tempo later.
                let next = if due > included { due } else { included.checked_add(tempo.into())? };
                next.checked_add(period.checked_sub(1)?.checked_mul(tempo.into())?)
            }
        }
    }

    /// Blocks of an epoch.
    pub fn length(self) -> u64 {
        match self {
            Epochs::ByNumber { tempo, .. } => u64::from(tempo) + 1,
            Epochs::ByMemory { tempo, .. } => tempo.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_by_number_begin_where_the_remainder_is_zero() {
        for (tempo, netuid) in [(1, 1), (9, 3), (360, 41), (99, 0)] {
            let epochs = Epochs::ByNumber { tempo, netuid };
            let index = |block: u64| (block + u64::from(netuid) + 1) / (u64::from(tempo) + 1);
            for block in 0..1_500 {
                for period in 1..3 {
                    let opens = epochs.opens_at(block, period).unwrap();
                    assert_eq!(index(opens), index(block) + period, "{epochs:?}, block {block}");
                    assert_eq!(index(opens - 1), index(block) + period - 1, "{epochs:?}, block {block}");
                }
            }
        }
    }

    #[test]
    fn epochs_by_memory_begin_a_tempo_after_the_last() {
        let epochs = Epochs::ByMemory { tempo: 100, last: 50, pending: 0 };
        assert_eq!(epochs.opens_at(60, 1), Some(150));
        assert_eq!(epochs.opens_at(60, 3), Some(350));
        assert_eq!(epochs.opens_at(149, 1), Some(150), "the last block before it");
        assert_eq!(epochs.opens_at(150, 1), Some(250), "in the block where one begins");
        assert_eq!(epochs.opens_at(170, 1), Some(270), "one that is late begins in that block");
        let asked_for = Epochs::ByMemory { tempo: 100, last: 50, pending: 70 };
        assert_eq!(asked_for.opens_at(60, 1), Some(70));
        assert_eq!(asked_for.opens_at(60, 2), Some(170));
        assert_eq!(asked_for.opens_at(70, 1), Some(170), "it begins in that block");
        assert_eq!(asked_for.opens_at(80, 1), Some(180), "it is late");
    }

    #[test]
    fn epochs_that_never_end_open_nothing_and_no_number_overflows() {
        assert_eq!(Epochs::ByNumber { tempo: 0, netuid: 1 }.opens_at(5, 1), None);
        assert_eq!(Epochs::ByMemory { tempo: 0, last: 5, pending: 0 }.opens_at(5, 1), None);
        for epochs in [
            Epochs::ByNumber { tempo: u16::MAX, netuid: u16::MAX },
            Epochs::ByMemory { tempo: u16::MAX, last: u64::MAX, pending: u64::MAX },
        ] {
            assert_eq!(epochs.opens_at(u64::MAX, u64::MAX), None);
        }
    }
}
