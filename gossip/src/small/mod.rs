//! Small blobs and everything else that one request and one answer carry: whom to ask, what goes over the stream, who is
//! answered.
//!
//! [`fetch`] decides which blob to ask of whom and when to ask another; [`answers`] bounds what others may ask at a time;
//! [`terms`] is what a fetch is given and how it ends, for small blobs and large ones alike. None of them does I/O.
//! [`codec`] is the stream's form. Large blobs travel in pieces: `downloads.rs` and the crate `covey_exchange`.

pub(crate) mod answers;
pub(crate) mod codec;
pub(crate) mod fetch;
pub(crate) mod terms;
