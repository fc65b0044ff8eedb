//! Templates of well-known models against what `transformers` makes of them, and templates that are up to no good.

use super::{ChatError, ChatTemplate, FUEL, Message};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

/// SmolLM2's, and most models' that speak ChatML.
const CHATML: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// LLaMA 2's, shortened: exceptions, namespaces, slices, methods.
const LLAMA2: &str = "{%- if messages[0]['role'] == 'system' %}
    {%- set system = '<<SYS>>\\n' + messages[0]['content'].strip() + '\\n<</SYS>>\\n\\n' %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = '' %}
{%- endif %}
{%- for message in messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
    {%- endif %}
    {%- if message.role == 'user' %}
        {{- bos_token + '[INST] ' + (system if loop.first else '') + message['content'] | trim + ' [/INST]' }}
    {%- else %}
        {%- generation %}{{- ' ' ~ message['content'].strip() ~ ' ' + eos_token }}{%- endgeneration %}
    {%- endif %}
{%- endfor %}";

fn template(source: &str) -> ChatTemplate {
    let tokens = [("bos_token", "<s>"), ("eos_token", "</s>")];
    let tokens: BTreeMap<_, _> = tokens.map(|(name, token)| (name.to_owned(), token.to_owned())).into();
    ChatTemplate::new(source, tokens).unwrap()
}

fn talk(turns: &[(&str, &str)]) -> Vec<Message> {
    turns.iter().map(|(role, content)| Message::new(*role, *content)).collect()
}

#[test]
fn a_conversation_becomes_the_text_that_transformers_makes_of_it() {
    let turns = talk(&[("user", " Hi, <you> & 'me'! "), ("assistant", "Hello."), ("user", "Bye?")]);
    assert_eq!(
        template(CHATML).render(&turns, true).unwrap(),
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n<|im_start|>user\n Hi, <you> & 'me'! <|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nBye?<|im_end|>\n<|im_start|>assistant\n"
    );
    let with_system = [talk(&[("system", " Be brief. ")]), turns].concat();
    assert_eq!(
        template(LLAMA2).render(&with_system, false).unwrap(),
        "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi, <you> & 'me'! [/INST] Hello. </s><s>[INST] Bye? [/INST]"
    );
}

#[test]
fn what_python_has_and_templates_use_works() {
    let cases = [
        ("{{ messages[0] | tojson }}", r#"{"role": "user", "content": "a<b"}"#),
        ("{{ [1, {'é': none}] | tojson(indent=2) }}", "[\n  1,\n  {\n    \"é\": null\n  }\n]"),
        ("{% for m in messages if m.role == 'user' %}{{ loop.last }}{% endfor %}", "True"),
        ("{% for m in messages %}{{ m.content.split('<')[-1].upper() }}{% break %}{% endfor %}", "B"),
        ("{{ messages[-1].content.startswith('a') and tools is none }}", "True"),
        ("{% set n = namespace(x=1) %}{% for m in messages %}{% set n.x = n.x + 1 %}{% endfor %}{{ n.x }}", "2"),
        ("{{ messages[0].get('name', 'nobody') }}{{ messages[0].name }}", "nobody"),
        ("{% if strftime_now is defined %}{{ strftime_now('%Y') | length }}{% endif %}", "4"),
        ("a\n  {% if true %}\nb\n  {% endif %}\nc\n", "a\nb\nc"),
        ("{% macro say(x) %}{{ x }}!{% endmacro %}{{ say('hey') }}", "hey!"),
    ];
    for (source, expected) in cases {
        let got = template(source).render(&talk(&[("user", "a<b")]), true);
        assert_eq!(got.unwrap_or_else(|error| panic!("{source}: {error}")), expected, "{source}");
    }
}

#[test]
fn a_template_that_refuses_says_why() {
    let refused = template(LLAMA2).render(&talk(&[("assistant", "I begin.")]), true).unwrap_err();
    assert!(
        refused.to_string().ends_with("Conversation roles must alternate user/assistant/user/assistant/..."),
        "{refused}"
    );
    let broken = ChatTemplate::new("{% if %}", BTreeMap::new()).err().unwrap();
    assert!(matches!(broken, ChatError::Parse(_)), "{broken}");
}

#[test]
fn a_template_without_end_or_measure_is_stopped() {
    let begun = Instant::now();
    for source in [
        "{% for a in range(10000) %}{% for b in range(10000) %}{{ a }}{% endfor %}{% endfor %}",
        "{% set n = namespace(x='aaaaaaaa') %}{% for a in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
        "{{ 'a' * 99999999999 }}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
    ] {
        assert!(matches!(template(source).render(&[], true), Err(ChatError::Render(_))), "{source}");
    }
    assert!(begun.elapsed() < Duration::from_secs(60), "{FUEL} is too much fuel");
}

fn folder(config: &Value, file: Option<&str>) -> Result<Option<ChatTemplate>, ChatError> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    if let Some(file) = file {
        fs::write(folder.path().join("chat_template.jinja"), file).unwrap();
    }
    ChatTemplate::load(folder.path())
}

#[test]
fn a_folders_template_is_the_file_or_the_settings_or_the_default_of_several() {
    let rendered = |config: Value, file| folder(&config, file).unwrap().unwrap().render(&[], true).unwrap();
    let bos = json!({ "content": "<s>", "lstrip": false });
    assert_eq!(rendered(json!({ "chat_template": "{{ bos_token }}x", "bos_token": bos }), None), "<s>x");
    assert_eq!(rendered(json!({ "chat_template": "x", "bos_token": "b" }), Some("file {{ bos_token }}")), "file b");
    let several = json!([{ "name": "rag", "template": "r" }, { "name": "default", "template": "d" }]);
    assert_eq!(rendered(json!({ "chat_template": several }), None), "d");
}

#[test]
fn a_template_that_is_none_is_refused_and_none_is_none() {
    assert!(folder(&json!({ "chat_template": null }), None).unwrap().is_none());
    assert!(ChatTemplate::load(std::path::Path::new("nowhere")).unwrap().is_none());
    let missing = ChatTemplate::read(std::path::Path::new("nowhere.jinja")).err().unwrap().to_string();
    assert!(missing.contains("nowhere.jinja is missing"), "{missing}");
    for other in [json!(7), json!([{ "name": "rag", "template": "r" }]), json!("x".repeat((1 << 20) + 1))] {
        let fault = folder(&json!({ "chat_template": other }), None).err().unwrap();
        assert!(matches!(fault, ChatError::Kind { .. }), "{fault}");
    }
}
