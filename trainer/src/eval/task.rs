//! Multiple-choice items, a JSON object a line, in the layouts of ARC, HellaSwag, PIQA and MMLU as their data sets have them,
//! or plain; and what lm-eval's tasks ask of them (`lm_eval/tasks/{arc,hellaswag,piqa,mmlu}`).

use super::EvalError;
use serde::Deserialize;

/// Choices of an item.
const CHOICES_MAX: usize = 64;
/// Bytes of a question, or of a choice.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// How a file's lines are to be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `question`, `choices` {`text`, `label`}, `answerKey`.
    Arc,
    /// `activity_label`, `ctx_a`, `ctx_b`, `endings`, `label`.
    HellaSwag,
    /// `goal`, `sol1`, `sol2`, `label`.
    Piqa,
    /// `question`, `choices`, `answer`, perhaps `subject`.
    Mmlu,
    /// `query`, `choices`, `gold`.
    Plain,
}

/// Their names.
pub const LAYOUTS: [(&str, Layout); 5] = [
    ("arc", Layout::Arc),
    ("hellaswag", Layout::HellaSwag),
    ("piqa", Layout::Piqa),
    ("mmlu", Layout::Mmlu),
    ("plain", Layout::Plain),
];

impl Layout {
    /// Its name.
    pub fn name(self) -> &'static str {
        LAYOUTS.iter().find(|(_, layout)| *layout == self).map_or("plain", |(name, _)| name)
    }

    /// The layout of that name.
    pub fn named(name: &str) -> Option<Layout> {
        LAYOUTS.iter().find(|(of, _)| *of == name).map(|(_, layout)| *layout)
    }

    /// The layout that a line's keys have, if they have one.
    pub fn of(line: &str) -> Option<Layout> {
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).ok()?;
        let has = |keys: &[&str]| keys.iter().all(|key| object.contains_key(*key));
        match () {
            () if has(&["question", "choices", "answerKey"]) => Some(Layout::Arc),
            () if has(&["ctx_a", "ctx_b", "endings", "label"]) => Some(Layout::HellaSwag),
            () if has(&["goal", "sol1", "sol2", "label"]) => Some(Layout::Piqa),
            () if has(&["question", "choices", "answer"]) => Some(Layout::Mmlu),
            () if has(&["query", "choices", "gold"]) => Some(Layout::Plain),
            () => None,
        }
    }
}

/// One item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What the model reads before a choice.
    pub query: String,
    /// What may follow, after a space.
    pub choices: Vec<String>,
    /// The right one's number, from 0.
    pub gold: usize,
    /// What is said once before examples and question.
    pub description: String,
}

#[derive(Deserialize)]
struct Arc {
    question: String,
    choices: ArcChoices,
    #[serde(rename = "answerKey")]
    answer: String,
}

#[derive(Deserialize)]
struct ArcChoices {
    text: Vec<String>,
    label: Vec<String>,
}

#[derive(Deserialize)]
struct HellaSwag {
    activity_label: String,
    ctx_a: String,
    ctx_b: String,
    endings: Vec<String>,
    label: Number,
}

#[derive(Deserialize)]
struct Piqa {
    goal: String,
    sol1: String,
    sol2: String,
    label: Number,
}

#[derive(Deserialize)]
struct Mmlu {
    question: String,
    choices: Vec<String>,
    answer: Number,
    #[serde(default)]
    subject: String,
}

#[derive(Deserialize)]
struct Plain {
    query: String,
    choices: Vec<String>,
    gold: Number,
}

/// A choice's number; data sets write some as texts.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Whole(usize),
    Text(String),
}

impl Number {
    fn get(&self) -> Option<usize> {
        match self {
            Number::Whole(number) => Some(*number),
            Number::Text(text) => text.parse().ok(),
        }
    }
}

impl Item {
    /// The item in a line.
    ///
    /// # Errors
    /// Not that layout, texts that are too long, or an answer that is none of the choices.
    pub fn parse(layout: Layout, line: &str) -> Result<Item, EvalError> {
        let item = match layout {
            Layout::Arc => {
                let Arc { question, choices, answer } = object(line)?;
                let gold = choices.label.iter().position(|label| *label == answer);
                Item::new(format!("Question: {question}\nAnswer:"), choices.text, gold)
            }
            Layout::HellaSwag => {
                let HellaSwag { activity_label, ctx_a, ctx_b, endings, label } = object(line)?;
                let query = cleaned(&format!("{activity_label}: {ctx_a} {}", capitalised(&ctx_b)));
                Item::new(query, endings.iter().map(|ending| cleaned(ending)).collect(), label.get())
            }
            Layout::Piqa => {
                let Piqa { goal, sol1, sol2, label } = object(line)?;
                Item::new(format!("Question: {goal}\nAnswer:"), vec![sol1, sol2], label.get())
            }
            Layout::Mmlu => mmlu(object(line)?),
            Layout::Plain => {
                let Plain { query, choices, gold } = object(line)?;
                Item::new(query, choices, gold.get())
            }
        }?;
        let texts = item.choices.iter().chain([&item.query]);
        match texts.map(String::len).max() {
            Some(longest) if longest > TEXT_BYTES_MAX => {
                Err(EvalError::Item(format!("a text of {longest} bytes; the limit is {TEXT_BYTES_MAX}")))
            }
            _ => Ok(item),
        }
    }

    fn new(query: String, choices: Vec<String>, gold: Option<usize>) -> Result<Item, EvalError> {
        if !(2..=CHOICES_MAX).contains(&choices.len()) {
            return Err(EvalError::Item(format!("{} choices; there must be 2 to {CHOICES_MAX}", choices.len())));
        }
        match gold.filter(|gold| *gold < choices.len()) {
            Some(gold) => Ok(Item { query, choices, gold, description: String::new() }),
            None => Err(EvalError::Item(format!("the answer is none of the {} choices", choices.len()))),
        }
    }

    /// What the model reads before a choice, with `examples` that are answered before it.
    pub fn context(&self, examples: &[Item]) -> String {
        let mut context = self.description.clone();
        for example in examples {
            context.push_str(&format!("{} {}\n\n", example.query, example.choices[example.gold]));
        }
        context.push_str(&self.query);
        context
    }
}

fn object<'l, T: Deserialize<'l>>(line: &'l str) -> Result<T, EvalError> {
    serde_json::from_str(line).map_err(|error| EvalError::Item(error.to_string()))
}

/// The choices stand in the question; what is to follow is their letter.
fn mmlu(item: Mmlu) -> Result<Item, EvalError> {
    let letters: Vec<String> = ('A'..='Z').take(item.choices.len()).map(String::from).collect();
    let mut query = item.question.trim().to_owned();
    for (letter, choice) in letters.iter().zip(&item.choices) {
        query.push_str(&format!("\n{letter}. {choice}"));
    }
    query.push_str("\nAnswer:");
    let mut item_of = Item::new(query, letters, item.answer.get())?;
    if !item.subject.is_empty() {
        let subject = item.subject.replace('_', " ");
        item_of.description =
            format!("The following are multiple choice questions (with answers) about {subject}.\n\n");
    }
    Ok(item_of)
}

/// Python's `capitalize`: the first letter large, all others small.
fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    first.chain(letters.as_str().to_lowercase().chars()).collect()
}

/// lm-eval's `preprocess` of HellaSwag: without WikiHow's brackets.
fn cleaned(text: &str) -> String {
    let text = text.trim().replace(" [title]", ". ");
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(open) = rest.find('[') {
        let inside = &rest[open..];
        // `\[.*?\]`: to the next bracket on the same line.
        match inside.find(']').filter(|close| !inside[..*close].contains('\n')) {
            Some(close) => {
                out.push_str(&rest[..open]);
                rest = &inside[close + 1..];
            }
            None => {
                out.push_str(&rest[..=open]);
                rest = &inside[1..];
            }
        }
    }
    out.push_str(rest);
    out.replace("  ", " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(line: &str) -> Item {
        Item::parse(Layout::of(line).unwrap(), line).unwrap()
    }

    /// What lm-eval 0.4 makes of the same lines.
    #[test]
    fn layouts_ask_what_lm_eval_asks() {
        let arc = item(
            r#"{"id":"x","question":"Why?","choices":{"text":["a","b","c"],"label":["1","2","3"]},"answerKey":"2"}"#,
        );
        assert_eq!((arc.context(&[]).as_str(), arc.gold), ("Question: Why?\nAnswer:", 1));
        assert_eq!(arc.context(&[arc.clone()]), "Question: Why?\nAnswer: b\n\nQuestion: Why?\nAnswer:");
        let swag = item(
            r#"{"activity_label":"Baking","ctx_a":"He [header] mixes [title] flour.","ctx_b":"then HE","endings":["[step] eats  it.","no [unclosed"],"label":"0"}"#,
        );
        assert_eq!(swag.query, "Baking: He mixes. flour. Then he");
        assert_eq!((&swag.choices[..], swag.gold), (&[" eats it.".to_owned(), "no [unclosed".to_owned()][..], 0));
        let piqa = item(r#"{"goal":"Dry it.","sol1":"Sun.","sol2":"Rain.","label":0}"#);
        assert_eq!((piqa.query.as_str(), piqa.choices.len()), ("Question: Dry it.\nAnswer:", 2));
        let mmlu = item(r#"{"question":" 1+1? ","choices":["1","2","3","4"],"answer":1,"subject":"abstract_algebra"}"#);
        assert_eq!(
            mmlu.context(&[]),
            "The following are multiple choice questions (with answers) about abstract algebra.\n\n1+1?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:"
        );
        assert_eq!(mmlu.choices, ["A", "B", "C", "D"]);
        assert_eq!(item(r#"{"query":"q","choices":["x","y"],"gold":"1"}"#).gold, 1);
    }

    #[test]
    fn what_is_no_item_is_refused_with_the_reason() {
        let fault = |layout, line: &str| Item::parse(layout, line).unwrap_err().to_string();
        assert!(fault(Layout::Piqa, "{}").contains("missing field `goal`"));
        assert!(fault(Layout::Plain, r#"{"query":"q","choices":["x"],"gold":0}"#).contains("1 choices"));
        assert!(fault(Layout::Plain, r#"{"query":"q","choices":["x","y"],"gold":2}"#).contains("none of the 2"));
        assert!(fault(Layout::Mmlu, r#"{"question":"q","choices":["x","y"],"answer":"B"}"#).contains("none of the 2"));
        assert!(fault(Layout::Arc, "[1,").contains("EOF") || fault(Layout::Arc, "[1,").contains("expected"));
        let long = format!(r#"{{"query":"{}","choices":["x","y"],"gold":0}}"#, "q".repeat(TEXT_BYTES_MAX + 1));
        assert!(fault(Layout::Plain, &long).contains("the limit is"));
        assert_eq!((Layout::of("{\"a\":1}"), Layout::of("no JSON")), (None, None));
    }
}
