//! Swarms whose data changes: text first, then conversations among the text.

use crate::rig::{Rig, dataset};
use covey_proto::Round;
use covey_proto::run::Run;
use covey_trainer::chat::ChatTemplate;
use covey_trainer::data::{Dataset, PrepareOptions, prepare, read_documents, synthetic};
use covey_trainer::hf::{self, Chat, ExportOptions};
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// Conversations and replayed text, cut into the tokens of the tests' data.
fn conversations(dir: &Path) -> Arc<Dataset> {
    let mut lines = String::new();
    for n in 0..3000 {
        let say = |role: &str, text: String| format!(r#"{{"role":"{role}","content":"{text}"}}"#);
        let turns = [say("user", format!("Is {n} even?")), say("assistant", answer(n).to_owned())];
        writeln!(lines, r#"{{"messages":[{}]}}"#, turns.join(",")).unwrap();
    }
    let path = dir.join("chats.jsonl");
    fs::write(&path, lines).unwrap();
    let template = ChatTemplate::named("chatml").unwrap();
    let mut documents = read_documents(&path, Some(&template)).unwrap();
    documents.extend(synthetic::documents(9, 40_000));
    let options = PrepareOptions {
        tokenizer: Some(fs::read(dataset().tokenizer_path()).unwrap()),
        chat_template: Some(template.source().to_owned()),
        sequence: 32,
        heldout_share: 0.1,
        ..PrepareOptions::default()
    };
    prepare(documents, &options, &dir.join("chats"), &mut |_| {}).unwrap();
    Arc::new(Dataset::open(&dir.join("chats"), None).unwrap())
}

fn answer(n: u32) -> &'static str {
    if n.is_multiple_of(2) { "Yes, the last digit says so." } else { "No, the last digit says it is odd." }
}

/// All nodes change together, a newcomer and one that was killed too; the loss is that of the phase's own text, and what comes
/// out knows how to talk.
#[test]
fn a_run_goes_from_text_to_conversations() {
    let temporary = tempfile::tempdir().unwrap();
    let chats = conversations(temporary.path());
    let swarm =
        Rig::seeded(22).rounds(12).miners(3).validators(1).phase(4, chats.clone()).join(5).kill("miner-1@4").run();
    swarm.expect_agreement();
    let folder = &swarm.folder;
    let run = Run::from_toml(&fs::read_to_string(folder.run()).unwrap()).unwrap();
    assert_eq!([3, 4].map(|round| run.data_of(Round(round)).digest), [dataset().digest(), chats.digest()]);
    let losses = &swarm.summary.heldout_loss;
    assert!(losses[4] < losses[0], "it learns the text: {losses:?}");
    assert!(losses[12] < losses[5], "and then to answer: {losses:?}");
    assert_eq!(swarm.summary.data, chats.manifest().name, "what it was judged by in the end");

    let newest = folder.newest_state(run.layout().elements()).unwrap().unwrap();
    let template = ChatTemplate::read(&folder.chat_template()).unwrap();
    let end = template.end_of_answer(&hf::read_tokenizer(&folder.tokenizer()).unwrap());
    assert_eq!(end, None, "its tokenizer was trained on text alone");
    let chat = Some(Chat { template: template.source().to_owned(), end: Some(7) });
    let out = temporary.path().join("out");
    let options = ExportOptions { chat, ..ExportOptions::default() };
    hf::export_as(&out, &run.model, &newest.state.parameters, &folder.tokenizer(), &options).unwrap();
    assert_eq!(fs::read_to_string(out.join("chat_template.jinja")).unwrap(), template.source());
    let generation: serde_json::Value =
        serde_json::from_slice(&fs::read(out.join("generation_config.json")).unwrap()).unwrap();
    assert_eq!(generation["eos_token_id"], serde_json::json!([0, 7]));
}
