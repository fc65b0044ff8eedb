//! Continues texts, a token at a time, with whatever is loaded.
//!
//! [`generate`] keeps the order: read the prompt, choose a token, give its text away, until something ends the text. Which
//! token is chosen, `sampler` decides; where a text ends, `stop`; when a token's text is sure, `stream`. How logits
//! come about is the backend's ([`LanguageModel::extend`]), which keeps what it computed of the context: a prompt that
//! begins like the one before it costs only its rest.

mod sampler;
mod stop;
mod stream;

pub use sampler::{Sampler, Sampling, SamplingFault};
pub use stop::{EndsError, EndsFault, TextEnds};
pub use stream::TextStream;
pub use tokenizers::Tokenizer;

use crate::backend::{BackendError, LanguageModel};
use std::ops::ControlFlow;
use stop::StopStrings;

/// Tokens of a prompt that are read between two questions whether to go on.
const PROMPT_STEP: usize = 256;

/// How a prompt is continued.
#[derive(Clone, Debug, PartialEq)]
pub struct Continue {
    /// The most tokens to add.
    pub tokens_max: usize,
    /// How each is chosen.
    pub sampling: Sampling,
    /// The model's own ends.
    pub ends: TextEnds,
    /// Strings that end the text; none of them is part of it.
    pub stop: Vec<String>,
}

impl Continue {
    /// Up to `tokens_max` of the likeliest tokens, to an end by the tokenizer's names.
    pub fn likeliest(tokens_max: usize, tokenizer: &Tokenizer) -> Continue {
        let ends = TextEnds::of_tokenizer(tokenizer);
        Continue { tokens_max, sampling: Sampling::default(), ends, stop: Vec::new() }
    }
}

/// Why a text went no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model ended it, with this token.
    End(u32),
    /// A stop string came.
    Stop,
    /// It has as many tokens as were asked for.
    Length,
    /// Whoever was to have it wants no more.
    Broken,
}

/// What came of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Continued {
    /// What was added.
    pub text: String,
    /// Tokens that were added, the one that ended the text not counted.
    pub tokens: usize,
    /// Why it ended.
    pub finish: Finish,
}

/// Why a prompt could not be continued.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The tokenizer failed.
    #[error("the tokenizer fails: {0}")]
    Tokenizer(String),
    /// Nothing to start from.
    #[error("the prompt is empty, and the tokenizer has no token that begins a text")]
    Empty,
    /// A temperature that is none, say.
    #[error(transparent)]
    Sampling(#[from] SamplingFault),
    /// The model refused: a tokenizer of another model, say.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

fn tokenizer_fault(error: tokenizers::Error) -> GenerateError {
    GenerateError::Tokenizer(error.to_string())
}

/// The tokens of a text to be continued, with what the tokenizer's post-processor puts around a text (a begin token,
/// mostly) where `special` says so. A text without any token begins with `ends.begin`.
///
/// # Errors
/// The tokenizer fails, or an empty text where nothing begins one.
pub fn encode_prompt(
    tokenizer: &Tokenizer,
    prompt: &str,
    special: bool,
    ends: &TextEnds,
) -> Result<Vec<u32>, GenerateError> {
    let mut tokens = tokenizer.encode(prompt, special).map_err(tokenizer_fault)?.get_ids().to_vec();
    // Some post-processors end a text, too, as for training: what is to be continued has no end, but one that was typed.
    let typed = |token: u32| tokenizer.id_to_token(token).is_some_and(|name| prompt.ends_with(&name));
    if let Some(last) = tokens.pop_if(|last| special && ends.end.contains(last) && !typed(*last))
        && tokens.is_empty()
    {
        tokens.push(last);
    }
    if tokens.is_empty() {
        tokens.push(ends.begin.ok_or(GenerateError::Empty)?);
    }
    Ok(tokens)
}

/// Continues the tokens `prompt` with what is loaded in `loaded`. `on_text` gets the text piece by piece, as soon as it is
/// sure, and says whether to go on; while a long prompt is read it gets empty pieces. The pieces together are the text
/// that is returned.
///
/// The model sees at most its `sequence` last tokens. Of a longer prompt it sees the last ones. When the text grows beyond
/// it, the oldest quarter of what it sees is forgotten and the rest read again, since positions count from the first token
/// that is seen.
///
/// # Errors
/// An empty prompt, numbers to choose by that are none, a tokenizer that is not the model's.
pub fn generate(
    loaded: &mut dyn LanguageModel,
    sequence: usize,
    tokenizer: &Tokenizer,
    prompt: &[u32],
    how: &Continue,
    on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
) -> Result<Continued, GenerateError> {
    let mut sampler = Sampler::new(how.sampling)?;
    let mut text =
        Text { stream: TextStream::new(tokenizer), stops: StopStrings::new(&how.stop), whole: String::new() };
    let mut tokens = prompt.to_vec();
    let mut first = tokens.len().saturating_sub(sequence);
    let finish = loop {
        if tokens.len() - prompt.len() == how.tokens_max {
            break Finish::Length;
        }
        if tokens.len() - first > sequence {
            first = tokens.len() - (sequence - sequence / 4).max(1);
        }
        let Some(logits) = read(loaded, &tokens[first..], on_text)? else { break Finish::Broken };
        let token = sampler.choose(logits, &tokens);
        if how.ends.end.contains(&token) {
            break Finish::End(token);
        }
        tokens.push(token);
        let wanted = text.push(token, on_text)?;
        if text.stops.found() {
            break Finish::Stop;
        }
        if wanted.is_break() {
            break Finish::Broken;
        }
    };
    let tokens = tokens.len() - prompt.len();
    let (text, stopped) = text.finish(on_text)?;
    Ok(Continued { text, tokens, finish: if stopped { Finish::Stop } else { finish } })
}

/// The logits after `wanted`, of which the model may remember a beginning; none if `on_text` breaks off.
fn read<'m>(
    loaded: &'m mut dyn LanguageModel,
    wanted: &[u32],
    on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
) -> Result<Option<&'m [f32]>, GenerateError> {
    let known = loaded.context().iter().zip(wanted).take_while(|(known, wanted)| known == wanted).count();
    // The last token's logits are not kept.
    let known = known.min(wanted.len().saturating_sub(1));
    loaded.rewind(known);
    let mut rest = &wanted[known..];
    while rest.len() > PROMPT_STEP {
        let (step, later) = rest.split_at(PROMPT_STEP);
        loaded.extend(step)?;
        if on_text("").is_break() {
            return Ok(None);
        }
        rest = later;
    }
    Ok(Some(loaded.extend(rest)?))
}

/// The text so far, and what stands between a token and its reader.
struct Text<'a> {
    stream: TextStream<'a>,
    stops: StopStrings,
    whole: String,
}

impl Text<'_> {
    fn push(
        &mut self,
        token: u32,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, GenerateError> {
        let piece = self.stream.push(token).map_err(tokenizer_fault)?;
        let shown = self.stops.push(&piece);
        self.whole.push_str(&shown);
        Ok(on_text(&shown))
    }

    /// The whole text, and whether a stop string was in what was held back.
    fn finish(mut self, on_text: &mut dyn FnMut(&str) -> ControlFlow<()>) -> Result<(String, bool), GenerateError> {
        let piece = self.stream.finish().map_err(tokenizer_fault)?;
        let mut shown = self.stops.push(&piece);
        shown.push_str(&self.stops.finish());
        self.whole.push_str(&shown);
        if !shown.is_empty() {
            // Nothing follows: whether more is wanted does not matter.
            let _ = on_text(&shown);
        }
        Ok((self.whole, self.stops.found()))
    }
}

#[cfg(test)]
mod tests;
