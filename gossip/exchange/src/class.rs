//! What transfers are for: which of them goes first where a line is full is decided by it, elsewhere.

/// What a transfer is for: what is served first when a line is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Contributions of a current round: everybody waits for them.
    Round,
    /// A model's state: a newcomer waits for it.
    State,
    /// Everything else: training data, archives.
    Data,
}

impl Class {
    /// All, the most urgent first.
    pub const ALL: [Class; 3] = [Class::Round, Class::State, Class::Data];

    /// Its byte on the wire.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The class of a byte on the wire.
    pub const fn from_number(number: u8) -> Option<Class> {
        match number {
            0 => Some(Class::Round),
            1 => Some(Class::State),
            2 => Some(Class::Data),
            _ => None,
        }
    }
}
