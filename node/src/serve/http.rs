//! The paths: a request's body is read within bounds, waits for its turn, and is answered whole or as a stream of
//! server-sent events, as OpenAI's interface has them.

use super::answer::{Head, Usage};
use super::error::ApiError;
use super::request::{Asked, Kind};
use super::worker::{Event, Queue};
use axum::body::{Body, to_bytes};
use axum::extract::{Path, State};
use axum::http::{Method, Uri};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::stream;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;

/// Bytes of a body. A million tokens of text have some four million.
const BODY_BYTES_MAX: usize = 8 << 20;
/// How long a body may take to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// What all requests share.
pub(super) struct Face {
    queue: Queue,
    name: String,
    context: usize,
    since: u64,
    requests: AtomicU64,
}

impl Face {
    pub(super) fn new(queue: Queue, name: String, context: usize) -> Face {
        Face { queue, name, context, since: now(), requests: AtomicU64::new(seed()) }
    }

    fn model(&self) -> Value {
        json!({ "id": self.name, "object": "model", "created": self.since, "owned_by": "covey", "max_model_len": self.context })
    }

    /// Whether a request means the model that there is; one that names none does.
    fn check(&self, asked: Option<&str>) -> Result<(), ApiError> {
        match asked.filter(|asked| *asked != self.name) {
            Some(asked) => Err(ApiError::Model { asked: asked.to_owned(), here: self.name.clone() }),
            None => Ok(()),
        }
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Chance, where the request has no seed; the time, where the system has no chance to give.
fn seed() -> u64 {
    getrandom::u64().unwrap_or_else(|_| now())
}

pub(super) fn router(face: Arc<Face>) -> Router {
    Router::new()
        .route("/v1/completions", post(completions))
        .route("/v1/chat/completions", post(chat))
        .route("/v1/models", get(models))
        .route("/v1/models/{*name}", get(model))
        .route("/health", get(|| async { Json(json!({ "status": "ok" })) }))
        .fallback(nowhere)
        .method_not_allowed_fallback(nowhere)
        .with_state(face)
}

async fn nowhere(method: Method, uri: Uri) -> ApiError {
    // A path is as long as a head may be; a message is not.
    let path = uri.path().chars().take(100).collect();
    ApiError::Path { method: method.to_string(), path }
}

async fn models(State(face): State<Arc<Face>>) -> Json<Value> {
    Json(json!({ "object": "list", "data": [face.model()] }))
}

async fn model(State(face): State<Arc<Face>>, Path(name): Path<String>) -> Result<Json<Value>, ApiError> {
    face.check(Some(&name))?;
    Ok(Json(face.model()))
}

async fn completions(State(face): State<Arc<Face>>, body: Body) -> Result<Response, ApiError> {
    answer(&face, Kind::Completion, body).await
}

async fn chat(State(face): State<Arc<Face>>, body: Body) -> Result<Response, ApiError> {
    answer(&face, Kind::Chat, body).await
}

async fn answer(face: &Face, kind: Kind, body: Body) -> Result<Response, ApiError> {
    let body = tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, BODY_BYTES_MAX)).await;
    let body = body.map_err(|_| ApiError::BodyTime { seconds: BODY_TIMEOUT.as_secs() })?;
    let body = body.map_err(|_| ApiError::BodyBytes { max: BODY_BYTES_MAX })?;
    let asked = Asked::read(kind, &body, seed())?;
    face.check(asked.model.as_deref())?;
    let (stream, counted) = (asked.stream, asked.usage);
    let mut events = face.queue.push(asked)?;
    // The first event says whether there will be a text, while the status can still say so.
    let (prompt, state) = match events.recv().await {
        Some(Event::Begun { prompt, state }) => (prompt, state),
        Some(Event::Failed(error)) => return Err(error),
        _ => return Err(ApiError::Ending),
    };
    let number = face.requests.fetch_add(1, Ordering::Relaxed);
    let head = Head { kind, number, created: now(), model: face.name.clone(), state };
    if stream {
        return Ok(streamed(Talk { head, prompt, counted, events, next: Next::Begin }));
    }
    loop {
        match events.recv().await {
            Some(Event::Done(done)) => {
                let usage = Usage { prompt, completion: done.tokens };
                return Ok(Json(head.whole(&done.text, done.finish, usage)).into_response());
            }
            Some(Event::Failed(error)) => return Err(error),
            Some(_) => {}
            None => return Err(ApiError::Ending),
        }
    }
}

/// An answer that is streamed.
struct Talk {
    head: Head,
    prompt: usize,
    /// Whether the counts are wanted at the end.
    counted: bool,
    events: mpsc::Receiver<Event>,
    next: Next,
}

/// What a stream says next.
enum Next {
    Begin,
    Text,
    Usage(Usage),
    Done,
    Nothing,
}

fn streamed(talk: Talk) -> Response {
    let events = stream::unfold(talk, |mut talk| async {
        let data = talk.next().await?;
        Some((Ok::<_, Infallible>(sse::Event::default().data(data)), talk))
    });
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}

impl Talk {
    /// The next event's data; none after the last.
    async fn next(&mut self) -> Option<String> {
        loop {
            match std::mem::replace(&mut self.next, Next::Text) {
                Next::Begin => {
                    if let Some(chunk) = self.head.begin() {
                        return Some(chunk.to_string());
                    }
                }
                Next::Text => return Some(self.more().await),
                Next::Usage(usage) => {
                    self.next = Next::Done;
                    return Some(self.head.usage(usage).to_string());
                }
                Next::Done => {
                    self.next = Next::Nothing;
                    return Some("[DONE]".into());
                }
                Next::Nothing => return None,
            }
        }
    }

    async fn more(&mut self) -> String {
        match self.events.recv().await {
            Some(Event::Text(text)) => self.head.piece(&text).to_string(),
            Some(Event::Done(done)) => {
                let usage = Usage { prompt: self.prompt, completion: done.tokens };
                self.next = if self.counted { Next::Usage(usage) } else { Next::Done };
                self.head.end(done.finish).to_string()
            }
            other => {
                // The status is long gone: clients look for an error in the data.
                self.next = Next::Done;
                let error = if let Some(Event::Failed(error)) = other { error } else { ApiError::Ending };
                error.to_json().to_string()
            }
        }
    }
}
