//! Asking and answering: what goes over a request's stream, which peer to ask for what, what to answer from.
//!
//! [`fetch`], [`reveals`] and [`claims`] decide and do no I/O; [`codec`] is the stream's form, [`serve`] bounds what others may ask.

pub(crate) mod claims;
pub(crate) mod codec;
pub(crate) mod downloads;
pub(crate) mod fetch;
pub(crate) mod reveals;
pub(crate) mod serve;
pub(crate) mod wanted;
