//! `Aura`: a name for the slot's length, which clients read to turn blocks into seconds. There are no authorities here.

pub use pallet::*;

#[frame_support::pallet(dev_mode)]
#[allow(missing_docs)]
pub mod pallet {
    use frame_support::pallet_prelude::*;

    /// What clients ask for.
    #[pallet::config]
    pub trait Config: frame_system::Config {
        /// Milliseconds between two blocks.
        #[pallet::constant]
        type SlotDuration: Get<u64>;
    }

    /// The length of a slot, and nothing else.
    #[pallet::pallet]
    pub struct Pallet<T>(_);
}
