//! A server on loopback with a very small model, and clients of all sorts.

use super::worker::Queue;
use super::{Engine, Server, Source};
use crate::disk::Disk;
use crate::testing::tiny_run;
use covey_proto::run::Model;
use covey_proto::{Digest, Round};
use covey_round::engine::Tip;
use covey_trainer::{genesis, hf};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const TEMPLATE: &str = "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools here') }}{% endif %}{{ m.role[0] }} {{ m.content }} {% endfor %}{% if add_generation_prompt %}a{% endif %}";
/// Longer than any test waits for what comes at once.
const LONG: Duration = Duration::from_secs(60);

/// Words w0 to w253, u, a; no token ends a text.
fn write_tokenizer(path: &Path) {
    let words = (0..254).map(|at| format!("w{at}")).chain(["u".into(), "a".into()]);
    let vocabulary: serde_json::Map<String, Value> = words.zip(0..).map(|(word, id)| (word, json!(id))).collect();
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": [], "decoder": null, "pre_tokenizer": { "type": "WhitespaceSplit" },
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "w0" },
    });
    fs::write(path, json.to_string()).unwrap();
}

fn model(sequence: u32) -> Model {
    Model { vocabulary: 256, sequence, ..tiny_run(Digest::of(b"data")).model }
}

/// A model's folder, with a chat template or without.
fn folder(sequence: u32, template: Option<&str>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (tokenizer, model) = (folder.path().join("given.json"), model(sequence));
    write_tokenizer(&tokenizer);
    let dir = folder.path().join("small");
    hf::export(&dir, &model, &genesis::initial_state(&model).unwrap(), &tokenizer).unwrap();
    if let Some(template) = template {
        fs::write(dir.join("chat_template.jinja"), template).unwrap();
    }
    folder
}

struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<()>,
}

impl Running {
    async fn start(source: &Source) -> Running {
        let engine = Engine::open(source, None, Some(1)).unwrap();
        let server = Server::bind("127.0.0.1:0".parse().unwrap(), engine).await.unwrap();
        let (stop, stopped) = oneshot::channel();
        let address = server.address().unwrap();
        let ended = tokio::spawn(server.run(async {
            let _ = stopped.await;
        }));
        Running { address, stop, ended }
    }

    async fn of(folder: &tempfile::TempDir) -> Running {
        Running::start(&Source::Model(folder.path().join("small"))).await
    }

    async fn send(&self, method: &str, path: &str, body: impl Into<Bytes>) -> Response<Incoming> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::builder().method(method).uri(path).header("host", "here").body(Full::new(body.into()));
        sender.send_request(request.unwrap()).await.unwrap()
    }

    async fn ask(&self, method: &str, path: &str, body: impl Into<Bytes>) -> (u16, Value) {
        let response = self.send(method, path, body).await;
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap())
    }

    async fn complete(&self, body: Value) -> Value {
        let (status, answer) = self.ask("POST", "/v1/completions", body.to_string()).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// The data of all events of a stream.
    async fn stream(&self, path: &str, body: Value) -> Vec<Value> {
        let response = self.send("POST", path, body.to_string()).await;
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let mut events: Vec<&str> = text.split("\n\n").filter_map(|event| event.strip_prefix("data: ")).collect();
        assert_eq!(events.pop(), Some("[DONE]"));
        events.into_iter().map(|event| serde_json::from_str(event).unwrap()).collect()
    }

    async fn end(self) {
        let _ = self.stop.send(());
        tokio::time::timeout(LONG, self.ended).await.expect("the server ends").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_completion_is_whole_or_in_pieces_the_same_text() {
    let folder = folder(64, None);
    let server = Running::of(&folder).await;
    let body = json!({ "model": "small", "prompt": "w1 w2 w3", "max_tokens": 12, "seed": 5, "user": "somebody" });
    let whole = server.complete(body.clone()).await;
    assert_eq!(whole["usage"], json!({ "prompt_tokens": 3, "completion_tokens": 12, "total_tokens": 15 }));
    assert_eq!((&whole["model"], &whole["choices"][0]["finish_reason"]), (&json!("small"), &json!("length")));
    let text = whole["choices"][0]["text"].as_str().unwrap();
    assert_eq!(text.split(' ').count(), 12, "{text}");
    assert_eq!(server.complete(body.clone()).await["choices"], whole["choices"], "the same seed, the same text");

    let mut streamed = body.clone();
    streamed["stream"] = true.into();
    streamed["stream_options"] = json!({ "include_usage": true });
    let events = server.stream("/v1/completions", streamed).await;
    let pieces: String = events.iter().filter_map(|event| event["choices"][0]["text"].as_str()).collect();
    assert_eq!(pieces, text);
    let (usage, events) = events.split_last().unwrap();
    assert_eq!((&usage["usage"], &usage["choices"]), (&whole["usage"], &json!([])));
    assert_eq!(events.last().unwrap()["choices"][0]["finish_reason"], "length");
    assert!(events.len() > 8, "piece by piece");

    let mut stopped = body;
    let third = text.split(' ').nth(2).unwrap();
    stopped["stop"] = json!([third]);
    let stopped = server.complete(stopped).await;
    assert_eq!(stopped["choices"][0]["finish_reason"], "stop");
    assert_eq!(stopped["choices"][0]["text"].as_str().unwrap(), &text[..text.find(third).unwrap()]);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_goes_through_the_models_template() {
    let folder = folder(64, Some(TEMPLATE));
    let server = Running::of(&folder).await;
    let messages = json!([{ "role": "user", "content": "w1 w2" }]);
    let body = json!({ "messages": messages, "max_completion_tokens": 5, "temperature": 0 });
    let (status, answer) = server.ask("POST", "/v1/chat/completions", body.to_string()).await;
    assert_eq!(status, 200, "{answer}");
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    let plain = server.complete(json!({ "prompt": "u w1 w2 a", "max_tokens": 5, "temperature": 0 })).await;
    assert_eq!(plain["choices"][0]["text"], json!(text));
    assert_eq!(answer["usage"]["prompt_tokens"], 4);
    let mut streamed = body.clone();
    streamed["stream"] = true.into();
    let events = server.stream("/v1/chat/completions", streamed).await;
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    let pieces: String = events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(pieces, text);
    let refused = json!({ "messages": [{ "role": "tool", "content": "x" }] }).to_string();
    let (status, answer) = server.ask("POST", "/v1/chat/completions", refused).await;
    assert_eq!((status, &answer["error"]["param"]), (400, &json!("messages")));
    assert!(answer["error"]["message"].as_str().unwrap().ends_with("no tools here"), "{answer}");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_answered_has_a_status_and_a_reason() {
    let folder = folder(16, None);
    let server = Running::of(&folder).await;
    let long = json!({ "prompt": vec![1; 16] }).to_string();
    let chat = json!({ "messages": [{ "role": "user", "content": "w1" }] }).to_string();
    let cases = [
        ("POST", "/v1/completions", "{".to_owned(), 400, "no JSON object"),
        (
            "POST",
            "/v1/completions",
            json!({ "prompt": "a", "model": "gpt-4" }).to_string(),
            404,
            "it is called \"small\"",
        ),
        ("POST", "/v1/completions", json!({ "prompt": [300] }).to_string(), 400, "tokens below 256"),
        ("POST", "/v1/completions", json!({ "prompt": "" }).to_string(), 400, "prompt is empty"),
        ("POST", "/v1/completions", long, 400, "context has 16 tokens; the prompt has 16"),
        ("POST", "/v1/chat/completions", chat, 400, "has no chat template"),
        ("POST", "/v1/completions", "x".repeat((8 << 20) + 1), 413, "more than 8388608 bytes"),
        ("GET", "/v1/completions", String::new(), 404, "nothing is at GET /v1/completions"),
        ("GET", "/v2", String::new(), 404, "there is /v1/completions"),
        ("GET", "/v1/models/other", String::new(), 404, "there is no model \"other\""),
    ];
    for (method, path, body, status, message) in cases {
        let (got, answer) = server.ask(method, path, body).await;
        let said = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(got == status && said.contains(message), "{method} {path}: {got} {answer}");
        assert_eq!(answer["error"]["type"], "invalid_request_error");
    }
    let (status, models) = server.ask("GET", "/v1/models", "").await;
    assert_eq!((status, &models["data"][0]["id"]), (200, &json!("small")));
    assert_eq!(server.ask("GET", "/v1/models/small", "").await.1["max_model_len"], 16);
    assert_eq!(server.ask("GET", "/health", "").await, (200, json!({ "status": "ok" })));
    // A text ends with the context, whatever is asked for.
    let filled = server.complete(json!({ "prompt": vec![1; 10], "max_tokens": 1000 })).await;
    assert_eq!(filled["usage"]["total_tokens"], 16);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_makes_room_for_the_next() {
    // To the end of this context it would go on for many minutes.
    let folder = folder(1 << 18, None);
    let server = Running::of(&folder).await;
    for stream in [true, false] {
        let endless = json!({ "prompt": "w1", "max_tokens": 1 << 18, "stream": stream }).to_string();
        let going = server.send("POST", "/v1/completions", endless);
        let going = tokio::time::timeout(Duration::from_millis(700), async {
            let mut body = going.await.into_body();
            while body.frame().await.is_some() {}
        });
        assert!(going.await.is_err(), "it goes on");
        let next = server.complete(json!({ "prompt": "w1", "max_tokens": 2 }));
        tokio::time::timeout(LONG, next).await.expect("the first one's place is free");
    }
    // The end does not wait for a text to be whole.
    let endless = json!({ "prompt": "w1", "max_tokens": 1 << 18, "stream": true }).to_string();
    let response = server.send("POST", "/v1/completions", endless).await;
    server.end().await;
    drop(response);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nodes_newest_state_answers_and_a_newer_one_takes_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let mut run = tiny_run(Digest::of(b"data"));
    run.model = model(32);
    fs::write(at.join("run.toml"), run.to_toml()).unwrap();
    write_tokenizer(&at.join("tokenizer.json"));
    let disk = Disk::open(&at.join("nodes/miner-0")).unwrap();
    let source = Source::Node { path: at.to_owned(), tokenizer: None };
    let none = Engine::open(&source, None, Some(1)).err().unwrap().to_string();
    assert!(none.contains("no state of this run is saved"), "{none}");
    let mut state = genesis::initial_state(&run.model).unwrap();
    let tip = |round| Tip { round: Some(Round(round)), head: Digest::of(b"head") };
    disk.write_state(&tip(3), Digest::of(b"root"), &state).unwrap();
    let server = Running::start(&source).await;
    let body = json!({ "prompt": "w1", "max_tokens": 8, "temperature": 0 });
    let first = server.complete(body.clone()).await;
    assert_eq!(first["system_fingerprint"], "round 3");
    state.iter_mut().for_each(|value| *value = -*value * 3.0);
    disk.write_state(&tip(4), Digest::of(b"root"), &state).unwrap();
    let second = server.complete(body).await;
    assert_eq!(second["system_fingerprint"], "round 4");
    assert_ne!(first["choices"][0]["text"], second["choices"][0]["text"]);
    server.end().await;
    let nowhere = Engine::open(&Source::Node { path: at.join("nodes"), tokenizer: None }, None, Some(1)).err().unwrap();
    assert!(nowhere.to_string().contains("is no node.toml, has none"), "{nowhere}");
}

#[test]
fn who_comes_when_the_queue_is_full_is_told_so() {
    let (queue, _jobs) = Queue::without_a_thread(64);
    let asked = || super::request::Asked::read(super::request::Kind::Completion, b"{\"prompt\": \"a\"}", 0).unwrap();
    let mut waiting = Vec::new();
    let refused = loop {
        match queue.push(asked()) {
            Ok(told) => waiting.push(told),
            Err(error) => break error,
        }
    };
    assert_eq!((waiting.len(), refused.to_string()), (32, "32 requests wait already: try again later".into()));
}
