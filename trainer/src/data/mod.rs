//! Documents to token shards and back.
