//! The model again, in f64, as slowly and plainly as its definition: what the backends are judged by.

use covey_proto::layout::Layout;
use covey_proto::run::Model;
use std::ops::Range;

/// Mean cross-entropy in nats of `rows` of `sequence + 1` tokens.
pub(crate) fn loss(model: &Model, state: &[f64], rows: &[u32]) -> f64 {
    let mut sum = 0.0;
    let mut predictions = 0;
    for row in rows.chunks(model.sequence as usize + 1) {
        let logits = logits(model, state, &row[..row.len() - 1]);
        for (logits, target) in logits.iter().zip(&row[1..]) {
            let sum_exp: f64 = logits.iter().map(|logit| logit.exp()).sum();
            sum += sum_exp.ln() - logits[*target as usize];
            predictions += 1;
        }
    }
    sum / f64::from(predictions)
}

/// Logits of each position of one sequence.
pub(crate) fn logits(model: &Model, state: &[f64], tokens: &[u32]) -> Vec<Vec<f64>> {
    let layout = Layout::of(model);
    let tensor = |name: &str| &state[layout.tensor(name).expect("a tensor of that name").range()];
    let width = model.width as usize;
    let embedding = tensor("model.embed_tokens.weight");
    let mut x: Vec<Vec<f64>> =
        tokens.iter().map(|token| embedding[*token as usize * width..][..width].to_vec()).collect();
    for layer in 0..model.layers {
        let tensor = |name: &str| tensor(&format!("model.layers.{layer}.{name}.weight"));
        let normed: Vec<_> = x.iter().map(|x| norm(model, x, tensor("input_layernorm"))).collect();
        let project = |name: &str| normed.iter().map(|x| linear(x, tensor(name))).collect::<Vec<_>>();
        let mixed =
            attention(model, &project("self_attn.q_proj"), &project("self_attn.k_proj"), &project("self_attn.v_proj"));
        for (x, mixed) in x.iter_mut().zip(mixed) {
            add(x, &linear(&mixed, tensor("self_attn.o_proj")));
            let normed = norm(model, x, tensor("post_attention_layernorm"));
            let (gate, up) = (linear(&normed, tensor("mlp.gate_proj")), linear(&normed, tensor("mlp.up_proj")));
            let hidden: Vec<f64> = gate.iter().zip(&up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
            add(x, &linear(&hidden, tensor("mlp.down_proj")));
        }
    }
    let output = if model.tied { embedding } else { tensor("lm_head.weight") };
    x.iter().map(|x| linear(&norm(model, x, tensor("model.norm.weight")), output)).collect()
}

fn add(x: &mut [f64], y: &[f64]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

fn linear(x: &[f64], weight: &[f64]) -> Vec<f64> {
    weight.chunks(x.len()).map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
}

fn norm(model: &Model, x: &[f64], weight: &[f64]) -> Vec<f64> {
    let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
    let r = 1.0 / (mean + model.norm_epsilon).sqrt();
    x.iter().zip(weight).map(|(x, w)| x * r * w).collect()
}

/// Hugging Face's rotate_half: pair i is (x[i], x[i + n/2]), turned by position·theta^(−2i/n).
fn rotate(model: &Model, x: &[f64], position: usize) -> Vec<f64> {
    let half = x.len() / 2;
    let mut out = vec![0.0; x.len()];
    for i in 0..half {
        let angle = position as f64 * frequency(model, model.rope_theta.powf(-2.0 * i as f64 / x.len() as f64));
        out[i] = x[i] * angle.cos() - x[i + half] * angle.sin();
        out[i + half] = x[i + half] * angle.cos() + x[i] * angle.sin();
    }
    out
}

/// LLaMA 3's stretching, by wavelengths, as transformers writes it.
fn frequency(model: &Model, frequency: f64) -> f64 {
    let Some(by) = &model.rope_scaling else { return frequency };
    let (original, wavelength) = (f64::from(by.original_sequence), 2.0 * std::f64::consts::PI / frequency);
    if wavelength > original / by.low_frequency_factor {
        return frequency / by.factor;
    }
    if wavelength < original / by.high_frequency_factor {
        return frequency;
    }
    let smooth =
        (original / wavelength - by.low_frequency_factor) / (by.high_frequency_factor - by.low_frequency_factor);
    (1.0 - smooth) * frequency / by.factor + smooth * frequency
}

fn attention(model: &Model, q: &[Vec<f64>], k: &[Vec<f64>], v: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let head = model.head_width() as usize;
    let group = (model.heads / model.kv_heads) as usize;
    let rotated = |rows: &[Vec<f64>], columns: &Range<usize>| -> Vec<Vec<f64>> {
        rows.iter().enumerate().map(|(position, row)| rotate(model, &row[columns.clone()], position)).collect()
    };
    let mut out = vec![Vec::new(); q.len()];
    for number in 0..model.heads as usize {
        let kv_columns = number / group * head..(number / group + 1) * head;
        let (queries, keys) = (rotated(q, &(number * head..(number + 1) * head)), rotated(k, &kv_columns));
        for (position, out) in out.iter_mut().enumerate() {
            let score = |key: &Vec<f64>| queries[position].iter().zip(key).map(|(q, k)| q * k).sum::<f64>();
            let weights: Vec<f64> =
                keys[..=position].iter().map(|key| (score(key) / (head as f64).sqrt()).exp()).collect();
            let sum: f64 = weights.iter().sum();
            for column in kv_columns.clone() {
                out.push(weights.iter().zip(v).map(|(w, v)| w / sum * v[column]).sum());
            }
        }
    }
    out
}
