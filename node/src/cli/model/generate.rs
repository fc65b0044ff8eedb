//! `covey generate`: continues a prompt, or talks, in a terminal.

use crate::cli::{Done, Failure, Plain, shown};
use crate::serve::{Engine, Source};
use clap::Args;
use covey_trainer::chat::Message;
use covey_trainer::generate::{Continue, Continued, Finish, Sampling};
use std::io::{BufRead, IsTerminal, Read, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;

/// Bytes of a line of a conversation.
const LINE_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("source").required(true).args(["model", "node"]))]
pub(crate) struct GenerateArgs {
    /// A folder that `covey export` wrote, or another LLaMA model in Hugging Face's layout.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// The newest state of a node (its node.toml or that file's folder), or of a swarm (its --out folder).
    #[arg(long, value_name = "PATH")]
    node: Option<PathBuf>,
    /// The tokenizer.json of a node's state, where it is not with the node's data.
    #[arg(long, value_name = "FILE", requires = "node")]
    tokenizer: Option<PathBuf>,
    /// The text to continue.
    #[arg(required_unless_present = "chat", conflicts_with = "chat")]
    prompt: Option<String>,
    /// Talk: each line of standard input is a message, answered before the next. The model needs a chat template.
    #[arg(long)]
    chat: bool,
    /// With --chat: the one message to answer, instead of standard input.
    #[arg(long, value_name = "TEXT", requires = "chat")]
    message: Option<String>,
    /// With --chat: what comes before the conversation, as the system's message.
    #[arg(long, value_name = "TEXT", requires = "chat")]
    system: Option<String>,
    /// A chat template to use in place of the model's.
    #[arg(long, value_name = "FILE", requires = "chat")]
    template: Option<PathBuf>,
    /// Tokens to add at most; 64, or 512 with --chat.
    #[arg(long)]
    tokens: Option<usize>,
    #[command(flatten)]
    choosing: ChoosingArgs,
    /// End the text before this string; may be given several times.
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Cores to use; all, unless said.
    #[arg(long)]
    threads: Option<usize>,
}

/// How tokens are chosen.
#[derive(Debug, Args)]
struct ChoosingArgs {
    /// 0 always takes the likeliest token.
    #[arg(long, default_value_t = 0.8)]
    temperature: f64,
    /// Draw from the so many likeliest tokens only; 0 is all.
    #[arg(long, default_value_t = 0)]
    top_k: usize,
    /// Draw from the likeliest tokens that have this share of the probability together.
    #[arg(long, default_value_t = 1.0)]
    top_p: f64,
    /// Draw only tokens that have at least this share of the likeliest one's probability.
    #[arg(long, default_value_t = 0.0)]
    min_p: f64,
    /// Make tokens that were seen less likely; 1 does not.
    #[arg(long, default_value_t = 1.0)]
    repetition_penalty: f64,
    /// Makes the choice at a temperature above 0 repeatable.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl ChoosingArgs {
    fn sampling(&self) -> Sampling {
        let ChoosingArgs { temperature, top_k, top_p, min_p, repetition_penalty, seed } = *self;
        Sampling { temperature, top_k, top_p, min_p, repetition_penalty, seed }
    }
}

pub(crate) fn generate(args: &GenerateArgs) -> Result<Done, Failure> {
    let sampling = args.choosing.sampling();
    sampling.check()?;
    let source = match (&args.model, &args.node) {
        (Some(model), _) => Source::Model(model.clone()),
        (None, Some(path)) => Source::Node { path: path.clone(), tokenizer: args.tokenizer.clone() },
        (None, None) => return Err(Plain("name a --model or a --node".into()).into()),
    };
    let mut engine = Engine::open(&source, args.template.as_deref(), args.threads)?;
    let tokens_max = args.tokens.unwrap_or(if args.chat { 512 } else { 64 });
    let how = Continue { tokens_max, sampling, ends: engine.ends().clone(), stop: args.stop.clone() };
    match &args.prompt {
        Some(prompt) => {
            let tokens = engine.encode(prompt)?;
            warn_of_a_long_prompt(tokens.len(), engine.context());
            let _ = say(prompt);
            engine.run(&tokens, &how, &mut say)?;
            println!();
        }
        None => talk(&mut engine, args, &how)?,
    }
    Ok(Done::Well)
}

/// Says on standard error that the model does not see all.
fn warn_of_a_long_prompt(tokens: usize, context: usize) {
    if tokens > context {
        eprintln!("the prompt has {tokens} tokens; the model sees the last {context}");
    }
}

/// Shows a piece of text at once, whatever a model has made up. Who reads no more has enough.
fn say(text: &str) -> ControlFlow<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(shown::text(text).as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    }
}

/// A conversation, from --message or line by line, until the input ends or nobody reads the answers.
fn talk(engine: &mut Engine, args: &GenerateArgs, how: &Continue) -> Result<(), Failure> {
    let mut conversation: Vec<Message> = Vec::new();
    conversation.extend(args.system.iter().map(|system| Message::new("system", system)));
    if let Some(message) = &args.message {
        conversation.push(Message::new("user", message));
        answer(engine, &conversation, how)?;
        return Ok(());
    }
    // A first, unsaid rendering, so that a model without a template says so before anything is typed.
    let probe = [conversation.as_slice(), &[Message::new("user", "")]].concat();
    engine.encode_chat(&probe)?;
    let typed = std::io::stdin().is_terminal();
    let mut input = std::io::stdin().lock();
    loop {
        if typed {
            let _ = say("> ");
        }
        let Some(line) = line(&mut input)? else { break };
        if line.trim().is_empty() {
            continue;
        }
        conversation.push(Message::new("user", line));
        let answered = answer(engine, &conversation, how)?;
        if answered.finish == Finish::Broken {
            break;
        }
        conversation.push(Message::new("assistant", answered.text));
    }
    if typed {
        println!();
    }
    Ok(())
}

fn answer(engine: &mut Engine, conversation: &[Message], how: &Continue) -> Result<Continued, Failure> {
    let tokens = engine.encode_chat(conversation)?;
    warn_of_a_long_prompt(tokens.len(), engine.context());
    let answered = engine.run(&tokens, how, &mut say)?;
    println!();
    Ok(answered)
}

/// The next line without its end; none at the end of the input.
fn line(input: &mut impl BufRead) -> Result<Option<String>, Failure> {
    let mut line = String::new();
    let read = input.take(LINE_BYTES_MAX + 1).read_line(&mut line)?;
    if read as u64 > LINE_BYTES_MAX {
        return Err(Plain(format!("a message has at most {LINE_BYTES_MAX} bytes")).into());
    }
    let text = line.strip_suffix('\n').unwrap_or(&line);
    Ok((read > 0).then(|| text.strip_suffix('\r').unwrap_or(text).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_without_their_ends_and_are_not_endless() {
        let mut input = "one\r\ntwo\n\nlast".as_bytes();
        let lines: Vec<String> = std::iter::from_fn(|| line(&mut input).unwrap()).collect();
        assert_eq!(lines, ["one", "two", "", "last"]);
        let long = "x".repeat(LINE_BYTES_MAX as usize + 1);
        assert!(line(&mut long.as_bytes()).is_err());
    }
}
