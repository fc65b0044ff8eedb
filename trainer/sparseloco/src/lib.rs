//! SparseLoCo without a model: chunks, top-k, quantisers, error feedback, shard codec, aggregator, outer step, state root.
