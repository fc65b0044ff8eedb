//! A model's numbers as the CPU uses them, and where each tensor lies in the flat state.

use covey_proto::layout::Layout;
use covey_proto::run::Model;
use std::ops::Range;

/// Sizes in elements.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) vocabulary: usize,
    pub(super) width: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head: usize,
    /// Width of all queries of a token.
    pub(super) query_width: usize,
    /// Width of all keys of a token, and of all values.
    pub(super) kv_width: usize,
    pub(super) feed_forward: usize,
    pub(super) sequence: usize,
    pub(super) epsilon: f32,
    pub(super) elements: usize,
    pub(super) embedding: Range<usize>,
    /// The embedding again where it is tied.
    pub(super) output: Range<usize>,
    pub(super) tied: bool,
    pub(super) last_norm: Range<usize>,
    pub(super) layers: Vec<LayerShape>,
}

/// Where a layer's tensors lie. The order of names puts queries next to values and gates next to ups, so each pair is
/// one matrix and one product.
#[derive(Clone, Debug)]
pub(super) struct LayerShape {
    pub(super) attention_norm: Range<usize>,
    /// `[query_width + kv_width, width]`.
    pub(super) query_value: Range<usize>,
    /// `[kv_width, width]`.
    pub(super) key: Range<usize>,
    /// `[width, query_width]`.
    pub(super) attention_out: Range<usize>,
    pub(super) mlp_norm: Range<usize>,
    /// `[2·feed_forward, width]`.
    pub(super) gate_up: Range<usize>,
    /// `[width, feed_forward]`.
    pub(super) down: Range<usize>,
}

impl Shape {
    pub(super) fn of(model: &Model) -> Shape {
        let layout = Layout::of(model);
        let find = |name: &str| layout.tensor(name).expect("the layout of a model has all its tensors").range();
        let joined = |first: Range<usize>, second: Range<usize>| {
            assert_eq!(first.end, second.start, "tensors that follow one another by name lie next to one another");
            first.start..second.end
        };
        let layer = |number: u32| {
            let find = |name: &str| find(&format!("model.layers.{number}.{name}.weight"));
            LayerShape {
                attention_norm: find("input_layernorm"),
                query_value: joined(find("self_attn.q_proj"), find("self_attn.v_proj")),
                key: find("self_attn.k_proj"),
                attention_out: find("self_attn.o_proj"),
                mlp_norm: find("post_attention_layernorm"),
                gate_up: joined(find("mlp.gate_proj"), find("mlp.up_proj")),
                down: find("mlp.down_proj"),
            }
        };
        let embedding = find("model.embed_tokens.weight");
        Shape {
            vocabulary: model.vocabulary as usize,
            width: model.width as usize,
            heads: model.heads as usize,
            kv_heads: model.kv_heads as usize,
            head: model.head_width() as usize,
            query_width: model.query_width() as usize,
            kv_width: (model.kv_heads * model.head_width()) as usize,
            feed_forward: model.feed_forward as usize,
            sequence: model.sequence as usize,
            epsilon: model.norm_epsilon as f32,
            elements: layout.elements(),
            output: if model.tied { embedding.clone() } else { find("lm_head.weight") },
            embedding,
            tied: model.tied,
            last_norm: find("model.norm.weight"),
            layers: (0..model.layers).map(layer).collect(),
        }
    }

    /// Query heads that share one key and value head.
    pub(super) fn group(&self) -> usize {
        self.heads / self.kv_heads
    }
}
