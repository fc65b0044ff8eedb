//! A text continued with what is kept of it, against the whole text computed again: every position, every shape of head.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod common;

use common::{Draw, lively_state, small_model};
use covey_proto::run::{Model, RopeScaling};
use covey_sparseloco::state::as_le_bytes;
use covey_trainer::{BackendError, Device, LanguageModel, open_backend};

fn loaded(model: &Model, threads: usize) -> Box<dyn LanguageModel> {
    let state: Vec<f32> = lively_state(model, 3).iter().map(|value| *value as f32).collect();
    let mut loaded = open_backend(&Device::Cpu { threads }, model).unwrap().model().unwrap();
    loaded.load(&mut as_le_bytes(&state)).unwrap();
    loaded
}

fn text(model: &Model, length: usize) -> Vec<u32> {
    let mut draw = Draw::new(9);
    (0..length).map(|_| draw.below(model.vocabulary)).collect()
}

/// Grouped and ungrouped heads, one key head for all, heads wider than a vector and narrower, tied and untied, and a
/// sequence longer than a block of a prompt.
fn models() -> Vec<Model> {
    let long = |tied| Model { sequence: 75, ..small_model(tied) };
    vec![
        small_model(true),
        long(false),
        Model { heads: 4, kv_heads: 4, width: 24, ..long(true) },
        Model { heads: 2, kv_heads: 1, width: 20, ..long(false) },
        Model { heads: 2, kv_heads: 2, width: 144, feed_forward: 203, ..long(true) },
        Model { heads: 3, kv_heads: 1, width: 192, feed_forward: 130, vocabulary: 401, ..long(true) },
        Model { head: Some(10), rope_scaling: Some(STRETCHED), ..long(true) },
    ]
}

const STRETCHED: RopeScaling =
    RopeScaling { factor: 4.0, low_frequency_factor: 1.0, high_frequency_factor: 3.0, original_sequence: 16 };

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn a_continued_text_has_the_logits_of_the_whole_one_at_every_position() {
    for model in models() {
        let (mut loaded, text) = (loaded(&model, 1), text(&model, model.sequence as usize));
        let whole = loaded.logits(&text).unwrap();
        let largest = whole.iter().fold(0.0f32, |most, value| most.max(value.abs()));
        for (position, expected) in whole.chunks_exact(model.vocabulary as usize).enumerate() {
            let got = loaded.extend(&text[position..=position]).unwrap();
            for (got, expected) in got.iter().zip(expected) {
                let error = (got - expected).abs() / largest;
                assert!(error < 1e-5, "{model:?}, position {position}: {got}, expected {expected}");
            }
            assert_eq!(loaded.context(), &text[..=position]);
        }
    }
}

#[test]
fn no_bit_depends_on_threads_or_on_how_a_text_is_cut_into_calls() {
    for model in models() {
        let text = text(&model, model.sequence as usize);
        let one_by_one = {
            let mut loaded = loaded(&model, 1);
            text.iter().map(|token| bits(loaded.extend(&[*token]).unwrap())).collect::<Vec<_>>()
        };
        for (threads, cuts) in [(1, vec![text.len()]), (2, vec![1, 5, text.len()]), (3, vec![3, 4, 6]), (7, vec![6])] {
            let (mut loaded, mut from) = (loaded(&model, threads), 0);
            for end in cuts {
                let got = bits(loaded.extend(&text[from..end]).unwrap());
                assert!(got == one_by_one[end - 1], "{model:?}, {threads} threads, tokens {from}..{end}");
                from = end;
            }
        }
    }
}

#[test]
fn a_context_is_taken_back_to_any_length() {
    let model = Model { sequence: 75, ..small_model(true) };
    let (mut loaded, text) = (loaded(&model, 1), text(&model, 75));
    let expected = bits(loaded.extend(&text[..50]).unwrap());
    loaded.extend(&text[50..75]).unwrap();
    for length in [49, 33, 1, 0] {
        loaded.rewind(length);
        assert_eq!(loaded.context(), &text[..length]);
        loaded.extend(&text[60..70.min(60 + 75 - length)]).unwrap();
        loaded.rewind(length);
        assert!(bits(loaded.extend(&text[length..50]).unwrap()) == expected, "back to {length}");
    }
    loaded.rewind(1_000);
    assert_eq!(loaded.context().len(), 50, "there is nothing beyond its end to forget");
}

#[test]
fn what_cannot_follow_is_refused_and_changes_nothing() {
    let model = small_model(true);
    let (mut loaded, text) = (loaded(&model, 1), text(&model, 7));
    loaded.extend(&text[..5]).unwrap();
    let refused = [
        (vec![], BackendError::Length { got: 0, max: 7 }),
        (vec![1, 2, 3], BackendError::Length { got: 8, max: 7 }),
        (vec![1, 23], BackendError::Token { token: 23, vocabulary: 23 }),
    ];
    for (tokens, error) in refused {
        assert_eq!(loaded.extend(&tokens).unwrap_err(), error);
        assert_eq!(loaded.context(), &text[..5]);
    }
    let mut empty = open_backend(&Device::Cpu { threads: 1 }, &model).unwrap().model().unwrap();
    assert_eq!(empty.extend(&[1]).unwrap_err(), BackendError::NotLoaded);
}

#[test]
fn other_parameters_forget_the_context() {
    let model = small_model(true);
    let (mut judge, text) = (loaded(&model, 1), text(&model, 7));
    judge.extend(&text[..5]).unwrap();
    let state: Vec<f32> = lively_state(&model, 4).iter().map(|value| *value as f32).collect();
    judge.load(&mut as_le_bytes(&state)).unwrap();
    assert_eq!(judge.context(), &[] as &[u32]);
    let expected = judge.logits(&text).unwrap();
    let got = judge.extend(&text).unwrap();
    let last = &expected[expected.len() - got.len()..];
    assert!(got.iter().zip(last).all(|(got, expected)| (got - expected).abs() < 1e-4));
}
