//! A conversation becomes a document: its text as a chat template writes it, and which parts of it are learnt.
//!
//! Learnt is what the assistant says, to the end of its turn: all that the template adds between asking it to speak and the
//! next message. That is found by rendering the conversation up to each answer, so that any template will do that writes
//! messages one after the other and never changes what it has written.

use super::document::Document;
use crate::chat::{ChatError, ChatTemplate, Message};
use std::ops::Range;

/// Messages of the longest conversation: each answer renders it once.
pub const MESSAGES_MAX: usize = 200;
/// Who is learnt from.
const ASSISTANT: &str = "assistant";

/// Why a conversation cannot be learnt from.
#[derive(Debug, thiserror::Error)]
pub enum ConversationFault {
    /// Nobody answers.
    #[error("no message has the role \"assistant\": nothing is to be learnt")]
    Unanswered,
    /// Too many messages.
    #[error("{0} messages; at most {MESSAGES_MAX} are read: cut it in parts")]
    Long(usize),
    /// The template refuses it.
    #[error(transparent)]
    Template(#[from] ChatError),
    /// The template writes earlier messages in another way once there are later ones.
    #[error(
        "the chat template changes what it wrote before message {0}: it cannot be said which part the assistant says"
    )]
    Rewritten(usize),
}

/// The document of a conversation.
///
/// # Errors
/// Nothing in it is to be learnt, it is too long, or `template` does not take it.
pub fn document(name: String, messages: &[Message], template: &ChatTemplate) -> Result<Document, ConversationFault> {
    if messages.len() > MESSAGES_MAX {
        return Err(ConversationFault::Long(messages.len()));
    }
    let text = template.render(messages, false)?;
    let mut learnt: Vec<Range<usize>> = Vec::new();
    for (at, _) in messages.iter().enumerate().filter(|(_, message)| message.role == ASSISTANT) {
        let asked = template.render(&messages[..at], true)?;
        let answered = template.render(&messages[..=at], false)?;
        if !answered.starts_with(&asked) || !text.starts_with(&answered) {
            return Err(ConversationFault::Rewritten(at));
        }
        learnt.push(asked.len()..answered.len());
    }
    if learnt.is_empty() {
        Err(ConversationFault::Unanswered)
    } else {
        Ok(Document { name, text, learnt: Some(learnt) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn talk(turns: &[(&str, &str)]) -> Vec<Message> {
        turns.iter().map(|(role, content)| Message::new(*role, *content)).collect()
    }

    fn template(source: &str) -> ChatTemplate {
        ChatTemplate::new(source, BTreeMap::from([("eos_token".to_owned(), "</s>".to_owned())])).unwrap()
    }

    #[test]
    fn what_the_assistant_says_is_learnt_to_the_end_of_its_turn() {
        let turns =
            talk(&[("system", "Be brief."), ("user", "Hi?"), ("assistant", "Hé."), ("user", "Bye"), ("assistant", "")]);
        let document = document("a#1".into(), &turns, &ChatTemplate::named("chatml").unwrap()).unwrap();
        let learnt: Vec<&str> = document.learnt.iter().flatten().map(|range| &document.text[range.clone()]).collect();
        assert_eq!(learnt, ["Hé.<|im_end|>\n", "<|im_end|>\n"]);
        assert!(document.text.starts_with("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi?"));
    }

    #[test]
    fn what_cannot_be_learnt_from_is_refused_with_the_reason() {
        let chatml = ChatTemplate::named("chatml").unwrap();
        let fault = |turns: &[(&str, &str)], template: &ChatTemplate| {
            document(String::new(), &talk(turns), template).unwrap_err().to_string()
        };
        assert!(fault(&[("user", "Hi?")], &chatml).contains("no message has the role"));
        assert!(fault(&[("user", "Hi?"); 201], &chatml).contains("201 messages"));
        let strict = template(
            "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}{% endfor %}",
        );
        assert!(fault(&[("tool", "x"), ("assistant", "y")], &strict).contains("no tools"));
        let forgetful = template("{% for m in messages %}{{ m.content if loop.last else '-' }}{% endfor %}");
        assert!(fault(&[("user", "x"), ("assistant", "y"), ("user", "z")], &forgetful).contains("before message 1"));
    }
}
