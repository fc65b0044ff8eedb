//! One thread owns the model; requests wait for it in a queue, in the order in which they came.
//!
//! Whoever waits hears of its request by [`Event`]s. When nobody listens any more, its request is given up: before it
//! begins, or at the next token.

use super::engine::{Engine, TalkError};
use super::error::ApiError;
use super::request::{Asked, Prompt};
use covey_trainer::generate::{Continue, Continued, Finish, GenerateError};
use std::ops::ControlFlow;
use std::thread::JoinHandle;
use tokio::sync::mpsc::{self, error::TrySendError};

/// Requests that wait. At some seconds each, who is behind so many has long gone.
const QUEUE_MAX: usize = 32;
/// Events of a request besides its pieces of text.
const EVENTS_BESIDES: usize = 8;

/// What a request hears.
#[derive(Debug)]
pub(super) enum Event {
    /// Its turn has come, and its prompt has so many tokens.
    Begun {
        /// Tokens of the prompt.
        prompt: usize,
        /// Which state answers.
        state: String,
    },
    /// More text.
    Text(String),
    /// All is said.
    Done(Continued),
    /// There is no text, or no more.
    Failed(ApiError),
}

pub(super) struct Job {
    asked: Asked,
    tell: mpsc::Sender<Event>,
}

/// Where requests queue. When the last one is dropped, the thread ends.
#[derive(Clone)]
pub(super) struct Queue {
    jobs: mpsc::Sender<Job>,
    context: usize,
}

impl Queue {
    /// A queue that nobody works off.
    #[cfg(test)]
    pub(super) fn without_a_thread(context: usize) -> (Queue, mpsc::Receiver<Job>) {
        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        (Queue { jobs, context }, queue)
    }

    /// Puts a request at the end.
    pub(super) fn push(&self, asked: Asked) -> Result<mpsc::Receiver<Event>, ApiError> {
        // A piece a token at most, so that the model never waits for a slow reader.
        let pieces = asked.tokens_max.map_or(self.context, |most| most.min(self.context));
        let (tell, told) = mpsc::channel(pieces + EVENTS_BESIDES);
        match self.jobs.try_send(Job { asked, tell }) {
            Ok(()) => Ok(told),
            Err(TrySendError::Full(_)) => Err(ApiError::Busy { waiting: QUEUE_MAX }),
            Err(TrySendError::Closed(_)) => Err(ApiError::Ending),
        }
    }
}

/// Starts the thread.
///
/// # Errors
/// The system has no thread left.
pub(super) fn start(mut engine: Engine) -> std::io::Result<(Queue, JoinHandle<()>)> {
    let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE_MAX);
    let context = engine.context();
    let work = move || {
        while let Some(Job { asked, tell }) = queue.blocking_recv() {
            if tell.is_closed() {
                continue;
            }
            let last = match answer(&mut engine, &asked, &tell) {
                Ok(done) => Event::Done(done),
                Err(error) => Event::Failed(error),
            };
            // Nobody may listen any more.
            let _ = tell.try_send(last);
        }
    };
    let thread = std::thread::Builder::new().name("model".into()).spawn(work)?;
    Ok((Queue { jobs, context }, thread))
}

fn answer(engine: &mut Engine, asked: &Asked, tell: &mpsc::Sender<Event>) -> Result<Continued, ApiError> {
    engine.renew().map_err(|error| ApiError::State(error.to_string()))?;
    let prompt = tokens(engine, &asked.prompt)?;
    let context = engine.context();
    if prompt.len() >= context {
        return Err(ApiError::TooLong { prompt: prompt.len(), context });
    }
    // Nothing slides here: a text ends with the context.
    let room = context - prompt.len();
    let how = Continue {
        tokens_max: asked.tokens_max.map_or(room, |most| most.min(room)),
        sampling: asked.sampling,
        ends: engine.ends().clone(),
        stop: asked.stop.clone(),
    };
    let begun = Event::Begun { prompt: prompt.len(), state: engine.state() };
    if tell.try_send(begun).is_err() {
        return Ok(Continued { text: String::new(), tokens: 0, finish: Finish::Broken });
    }
    let mut on_text = |piece: &str| {
        let heard =
            if piece.is_empty() { !tell.is_closed() } else { tell.try_send(Event::Text(piece.to_owned())).is_ok() };
        if heard { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    engine.run(&prompt, &how, &mut on_text).map_err(failed)
}

fn tokens(engine: &Engine, prompt: &Prompt) -> Result<Vec<u32>, ApiError> {
    match prompt {
        Prompt::Text(text) => engine.encode(text).map_err(failed),
        Prompt::Tokens(tokens) => {
            let vocabulary = engine.model().vocabulary;
            match tokens.iter().find(|token| **token >= vocabulary) {
                None => Ok(tokens.clone()),
                Some(token) => Err(ApiError::Value {
                    name: "prompt".into(),
                    value: format!("a list with token {token}"),
                    needed: format!("tokens below {vocabulary}"),
                }),
            }
        }
        Prompt::Conversation(messages) => engine.encode_chat(messages).map_err(|error| match error {
            TalkError::Chat(refused) => ApiError::Conversation(refused.to_string()),
            TalkError::Generate(error) => failed(error),
        }),
    }
}

fn failed(error: GenerateError) -> ApiError {
    match error {
        GenerateError::Empty => ApiError::Value {
            name: "prompt".into(),
            value: "empty".into(),
            needed: "a text of one token or more".into(),
        },
        other => ApiError::Device(other.to_string()),
    }
}
