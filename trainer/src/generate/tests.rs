//! Prompts continued by a small model of words: what ends a text, what is seen of a long one, what is read again.

use super::{Continue, Continued, Finish, GenerateError, Sampling, TextEnds, encode_prompt, generate};
use crate::backend::{BackendError, LanguageModel, LoadError, TryError};
use crate::cpu::CpuModel;
use crate::genesis;
use crate::testing::{small_model, word_tokenizer};
use covey_proto::run::Model;
use covey_sparseloco::state::as_le_bytes;
use covey_sparseloco::{CodecError, OuterStep, SparseShard};
use std::io;
use std::ops::ControlFlow;
use tokenizers::{PostProcessorWrapper, Tokenizer};

const SEQUENCE: usize = 12;

fn loaded() -> CpuModel {
    let model = Model { vocabulary: 23, ..small_model() };
    let mut state = genesis::initial_state(&model).unwrap();
    // Livelier than a first state, whose logits hardly differ.
    state.iter_mut().for_each(|value| *value *= 8.0);
    let mut loaded = CpuModel::new(&model, 1);
    loaded.load(&mut as_le_bytes(&state)).unwrap();
    loaded
}

/// Up to `tokens_max` tokens, to no end of the model's own.
fn endless(tokens_max: usize) -> Continue {
    Continue { tokens_max, sampling: Sampling::default(), ends: TextEnds::default(), stop: Vec::new() }
}

fn run(loaded: &mut dyn LanguageModel, prompt: &[u32], how: &Continue) -> Continued {
    let mut shown = String::new();
    let mut on_text = |piece: &str| {
        shown.push_str(piece);
        ControlFlow::Continue(())
    };
    let done = generate(loaded, SEQUENCE, &word_tokenizer(), prompt, how, &mut on_text).unwrap();
    assert_eq!(shown, done.text);
    done
}

/// A model that counts what it is given, and answers with the token after the last one.
struct Counting {
    context: Vec<u32>,
    given: usize,
    logits: Vec<f32>,
}

impl LanguageModel for Counting {
    fn load(&mut self, _: &mut dyn io::Read) -> Result<(), LoadError> {
        Ok(())
    }
    fn batches_at_once(&self) -> usize {
        1
    }
    fn losses(&mut self, _: &[crate::Batch]) -> Result<Vec<f64>, BackendError> {
        Err(BackendError::NotLoaded)
    }
    fn text_losses(&mut self, _: &[Vec<u32>]) -> Result<Vec<f64>, BackendError> {
        Err(BackendError::NotLoaded)
    }
    fn logits(&mut self, _: &[u32]) -> Result<Vec<f32>, BackendError> {
        Err(BackendError::NotLoaded)
    }
    fn context(&self) -> &[u32] {
        &self.context
    }
    fn extend(&mut self, tokens: &[u32]) -> Result<&[f32], BackendError> {
        self.given += tokens.len();
        self.context.extend_from_slice(tokens);
        self.logits = vec![0.0; 22];
        let next = tokens.last().map_or(0, |token| (*token as usize + 1) % 22);
        self.logits[next] = 1.0;
        Ok(&self.logits)
    }
    fn rewind(&mut self, length: usize) {
        self.context.truncate(length);
    }
    fn try_step(
        &mut self,
        _: &mut dyn Iterator<Item = Result<SparseShard, CodecError>>,
        _: &[Option<f32>],
        _: OuterStep<'_>,
    ) -> Result<(), TryError> {
        Ok(())
    }
    fn undo(&mut self) {}
}

fn counting() -> Counting {
    Counting { context: Vec::new(), given: 0, logits: Vec::new() }
}

#[test]
fn a_token_costs_one_token_and_a_prompt_that_begins_alike_its_rest() {
    let mut model = counting();
    assert_eq!(run(&mut model, &[1, 2, 3], &endless(4)).text, "w4 w5 w6 w7");
    assert_eq!(model.given, 3 + 3, "the last token need not be read");
    let text = run(&mut model, &[1, 2, 3, 4, 9], &endless(2)).text;
    assert_eq!((text.as_str(), model.given), ("w10 w11", 6 + 2));
    run(&mut model, &[1, 2, 3, 4, 9], &endless(1));
    assert_eq!(model.given, 8 + 1, "the last token's logits are not kept");
}

#[test]
fn beyond_the_sequence_the_oldest_quarter_is_forgotten_and_the_rest_read_again() {
    let mut model = counting();
    let prompt: Vec<u32> = (0..15).collect();
    run(&mut model, &prompt, &endless(1));
    assert_eq!(model.context, prompt[3..]);
    run(&mut model, &prompt, &endless(3));
    // 12 are full: 9 of 13 are read again, and then one more.
    assert_eq!(model.context, [7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
    assert_eq!(model.given, 12 + 1 + 9 + 1);
}

#[test]
fn a_remembered_prompt_gives_the_very_text_that_a_fresh_one_gives() {
    let how = Continue { sampling: Sampling { temperature: 1.2, seed: 5, ..Sampling::default() }, ..endless(9) };
    let fresh = |prompt: &[u32]| run(&mut loaded(), prompt, &how);
    let mut one = loaded();
    for prompt in [&[1, 2, 3][..], &[1, 2, 3, 4, 5], &[1, 2], &[7]] {
        assert_eq!(run(&mut one, prompt, &how), fresh(prompt));
    }
}

#[test]
fn a_text_ends_where_the_model_or_a_string_ends_it() {
    let ends = TextEnds { end: vec![20, 6], begin: None };
    let done = run(&mut counting(), &[3], &Continue { ends, ..endless(9) });
    assert_eq!(done, Continued { text: "w4 w5".into(), tokens: 2, finish: Finish::End(6) });
    let stop = vec!["w6 w7".into(), " w9".into()];
    let done = run(&mut counting(), &[3], &Continue { stop, ..endless(9) });
    assert_eq!(done, Continued { text: "w4 w5 ".into(), tokens: 4, finish: Finish::Stop });
    assert_eq!(
        run(&mut counting(), &[3], &endless(0)),
        Continued { text: String::new(), tokens: 0, finish: Finish::Length }
    );
}

#[test]
fn whoever_breaks_off_waits_for_neither_text_nor_prompt() {
    let (tokenizer, mut pieces) = (word_tokenizer(), 0);
    let mut breaking = |_: &str| {
        pieces += 1;
        if pieces == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let done = generate(&mut counting(), SEQUENCE, &tokenizer, &[3], &endless(9), &mut breaking).unwrap();
    assert_eq!(done, Continued { text: "w4 w5".into(), tokens: 2, finish: Finish::Broken });
    let mut model = counting();
    let long = vec![1; 2_000];
    let done = generate(&mut model, 4_000, &tokenizer, &long, &endless(9), &mut |_| ControlFlow::Break(())).unwrap();
    assert_eq!((done.finish, model.given), (Finish::Broken, super::PROMPT_STEP));
}

#[test]
fn a_prompt_begins_as_the_post_processor_says_and_does_not_end() {
    let mut tokenizer = word_tokenizer();
    let around = serde_json::json!({ "type": "TemplateProcessing",
        "single": [{ "SpecialToken": { "id": "w21", "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } },
                   { "SpecialToken": { "id": "<|endoftext|>", "type_id": 0 } }], "pair": [],
        "special_tokens": { "w21": { "id": "w21", "ids": [21], "tokens": ["w21"] },
                            "<|endoftext|>": { "id": "<|endoftext|>", "ids": [22], "tokens": ["<|endoftext|>"] } } });
    tokenizer.with_post_processor(Some(serde_json::from_value::<PostProcessorWrapper>(around).unwrap()));
    let ends = TextEnds::of_tokenizer(&tokenizer);
    let encoded = |tokenizer: &Tokenizer, text, special| encode_prompt(tokenizer, text, special, &ends).unwrap();
    assert_eq!(encoded(&tokenizer, "w1 w2", true), [21, 1, 2]);
    assert_eq!(encoded(&tokenizer, "w1 w2", false), [1, 2]);
    assert_eq!(encoded(&tokenizer, "", true), [21]);
    assert_eq!(encoded(&tokenizer, "", false), [22], "the end of one text begins the next");
    assert_eq!(encoded(&tokenizer, "w1 <|endoftext|>", false), [1, 22], "typed");
    let nothing = encode_prompt(&word_tokenizer(), "", true, &TextEnds::default());
    assert!(matches!(nothing, Err(GenerateError::Empty)));
}
