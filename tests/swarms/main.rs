//! Whole swarms: processes of the binary on a chain of their own, run to their end, and held against what they must be.

mod audit;
mod churn;
mod honest;
mod killed;
mod rig;
mod stranger;
