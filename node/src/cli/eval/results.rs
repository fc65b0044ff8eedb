//! From log-likelihoods to what is shown: shares of right choices, perplexities, a table within 80 columns.

use super::tasks::{Asked, Kind, Task};
use covey_trainer::eval::text::Perplexity;
use covey_trainer::eval::{Answered, Share};
use serde_json::{Value, json};
use std::fmt::Write;

/// A task's numbers, with each item's; `found` are its log-likelihoods, by item.
pub(super) fn of(task: &Task, asked: &[Asked], found: &[&[f64]]) -> Value {
    match &task.kind {
        Kind::Items(layout, items) => {
            let answered: Vec<Answered> =
                items.iter().zip(found).map(|(item, found)| Answered::new(&item.choices, found.to_vec())).collect();
            let share = |hit: &dyn Fn(&Answered) -> usize| {
                let hits = items.iter().zip(&answered).filter(|(item, answered)| hit(answered) == item.gold).count();
                Share::new(hits, items.len())
            };
            let (acc, acc_norm) = (share(&|of| of.choice), share(&|of| of.choice_norm));
            let item = |(item, of): (&covey_trainer::eval::task::Item, &Answered)| {
                json!({
                    "gold": item.gold,
                    "choice": of.choice,
                    "choice_norm": of.choice_norm,
                    "log_likelihoods": of.log_likelihoods,
                })
            };
            json!({
                "task": task.name,
                "layout": layout.name(),
                "items": items.len(),
                "acc": acc.share,
                "acc_stderr": acc.error,
                "acc_norm": acc_norm.share,
                "acc_norm_stderr": acc_norm.error,
                "answers": items.iter().zip(&answered).map(item).collect::<Vec<_>>(),
            })
        }
        Kind::Texts(texts) => {
            let one = |((text, asked), found): ((&String, &Asked), &&[f64])| {
                Perplexity::new(text, asked.tokens, -found.iter().sum::<f64>())
            };
            let each: Vec<Perplexity> = texts.iter().zip(asked).zip(found).map(one).collect();
            let all = each.iter().fold(Perplexity::default(), |all, one| all.plus(*one));
            json!({
                "task": task.name,
                "layout": "text",
                "items": texts.len(),
                "nats_per_token": all.nats_per_token(),
                "bits_per_byte": all.bits_per_byte(),
                "byte_perplexity": all.by_byte(),
                "word_perplexity": all.by_word(),
                "log_likelihoods": each.iter().map(|one| -one.nats).collect::<Vec<_>>(),
            })
        }
    }
}

/// All tasks, a line for each number.
pub(super) fn table(results: &[Value]) -> String {
    let mut page = format!("{:<24} {:>6}  {:<16} {:>10}  {:>8}\n", "task", "items", "", "", "± error");
    for result in results {
        let text = |key: &str| result[key].as_str().unwrap_or_default();
        let mut name = text("task").chars().take(24).collect::<String>();
        let mut items = result["items"].to_string();
        let shown = ["acc", "acc_norm", "bits_per_byte", "nats_per_token", "byte_perplexity", "word_perplexity"];
        for key in shown.into_iter().filter(|key| result[*key].is_number()) {
            let number = result[key].as_f64().unwrap_or(f64::NAN);
            let error =
                result[format!("{key}_stderr")].as_f64().map_or_else(String::new, |error| format!("{error:.4}"));
            // A string takes whatever is written to it.
            let _ = writeln!(page, "{name:<24} {items:>6}  {key:<16} {number:>10.4}  {error:>8}");
            (name, items) = (String::new(), String::new());
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use covey_trainer::eval::task::{Item, Layout};

    #[test]
    fn items_are_counted_and_texts_are_measured() {
        let item = |gold| Item {
            query: "q".into(),
            choices: vec!["a".into(), "bbbb".into()],
            gold,
            description: String::new(),
        };
        let items = Task { name: "x".repeat(90), kind: Kind::Items(Layout::Plain, vec![item(0), item(1), item(1)]) };
        let found: [&[f64]; 3] = [&[-1.0, -2.0], &[-1.0, -2.0], &[-2.0, -1.0]];
        let choice = of(&items, &[], &found);
        assert_eq!((choice["acc"].as_f64(), choice["acc_norm"].as_f64()), (Some(2.0 / 3.0), Some(2.0 / 3.0)));
        assert_eq!(choice["answers"][0]["choice_norm"], 1, "-2 over four letters is more than -1 over one");
        let texts = Task { name: "t".into(), kind: Kind::Texts(vec!["ab cd".into()]) };
        let asked = [Asked { lists: vec![], tokens: 2 }];
        let text = of(&texts, &asked, &[&[-1.0, -0.5]]);
        assert_eq!(text["nats_per_token"], 0.75);
        let page = table(&[choice, text]);
        assert!(page.lines().all(|line| line.chars().count() <= 80), "{page}");
        assert!(page.contains("acc_norm") && page.contains("bits_per_byte"), "{page}");
    }
}
