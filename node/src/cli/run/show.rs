//! A run as a person reads it before joining: what it is, how long a round takes, what a node must have. 80 columns.

use crate::footprint::{Footprint, contribution_bytes, footprint};
use crate::report::units::{bytes, seconds, short, thousands};
use crate::service::DEVICE;
use covey_proto::Round;
use covey_proto::layout::Layout;
use covey_proto::run::{Beacon, Run};
use covey_round::engine::Roles;
use covey_trainer::BackendError;
use std::fmt::Write;

/// The whole text; a block takes `block` seconds.
pub(super) fn text(run: &Run, block: f64) -> String {
    let mut page = Page::default();
    let layout = run.layout();
    page.line("run", &run.id().to_string());
    page.line("chain", &run.chain.genesis.to_string());
    page.line("", &format!("subnet {}", run.chain.netuid));
    round(run, block, &mut page);
    work(run, &layout, &mut page);
    needs(run, &layout, block, &mut page);
    page.0
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn line(&mut self, name: &str, says: &str) {
        // A string takes whatever is written to it.
        let _ = writeln!(self.0, "{name:<11} {says}");
    }
}

fn round(run: &Run, block: f64, page: &mut Page) {
    let clock = &run.clock;
    let time = |blocks: u32| seconds(f64::from(blocks) * block);
    page.line("", &format!("round 0 starts at block {}", thousands(run.chain.start.into())));
    page.line("a round", &format!("{} blocks, {} at {block} s a block", clock.length, time(clock.length)));
    let trains = clock.commit.saturating_sub(clock.commit_margin + 2);
    page.line("", &format!("trains until block {trains} of it, commits by {}, votes by {}", clock.commit, clock.vote));
    let electorate = &run.electorate;
    page.line(
        "",
        &format!("applies {} to {} contributions", electorate.contributions_min, electorate.contributions_max),
    );
    if clock.beacon == Beacon::Seed {
        page.line("", "its randomness can be foreseen (clock.beacon = \"seed\"): for tests");
    }
}

fn work(run: &Run, layout: &Layout, page: &mut Page) {
    let model = &run.model;
    let parameters = layout.elements() as u64;
    page.line("model", &format!("{} parameters: {} layers of width {}", short(parameters), model.layers, model.width));
    page.line(
        "",
        &format!("{} tokens, sequences of {}", thousands(model.vocabulary.into()), thousands(model.sequence.into())),
    );
    let tokens = run.data.samples.saturating_mul(model.sequence.into());
    page.line("data", &run.data.digest.to_string());
    page.line("", &format!("{} sequences, {} tokens", thousands(run.data.samples), short(tokens)));
    for phase in &run.phases {
        let tokens = phase.samples.saturating_mul(model.sequence.into());
        page.line(&format!("from {}", phase.from), &phase.digest.to_string());
        page.line("", &format!("{} sequences, {} tokens", thousands(phase.samples), short(tokens)));
    }
    let steps = run.inner.steps.count(Round(0)) as u64;
    let sequences = steps.saturating_mul(run.inner.batch.into());
    let tokens = short(sequences.saturating_mul(model.sequence.into()));
    page.line(
        "training",
        &format!("{steps} steps of {} sequences a round and miner: {tokens} tokens", run.inner.batch),
    );
}

fn needs(run: &Run, layout: &Layout, block: f64, page: &mut Page) {
    let state = 4 * layout.elements() as u64;
    let contribution = contribution_bytes(run, layout);
    let all = contribution.saturating_mul(run.electorate.contributions_max.into());
    page.line("bytes", &format!("a contribution about {}, a full round {}", bytes(contribution), bytes(all)));
    page.line("", &format!("the state {}, which a newcomer fetches first", bytes(state)));
    let clock = &run.clock;
    // From the deadline of commitments to the last block for what is announced, everybody's bytes go around.
    let window = f64::from(clock.vote.saturating_sub(clock.announce_margin + clock.commit)) * block;
    let mbit = |number: u64| number as f64 * 8.0 / 1e6 / window.max(1e-3);
    page.line("a node", &format!("receives a full round within {}: {} down", seconds(window), rate(mbit(all))));
    page.line("", &format!("a miner sends its own twice or more: {} up", rate(2.0 * mbit(contribution))));
    for (name, says) in std::iter::once("memory").chain(std::iter::repeat("")).zip(memory(run)) {
        page.line(name, &says);
    }
    let kept = u64::from(run.electorate.checkpoint).saturating_add(4).saturating_mul(all).saturating_add(2 * state);
    page.line("disk", &format!("{} of states, {} of blobs that are kept for others", bytes(2 * state), bytes(kept)));
    page.line("on chain", &stake(run));
}

/// The most memory that a node of each role will have at once, and what a miner's is for.
fn memory(run: &Run) -> Vec<String> {
    let miner = Roles { miner: true, validator: false };
    let roles =
        [("miner", miner), ("validator", Roles { miner: false, validator: true }), ("seeder", Roles::default())];
    let needed = |(role, roles)| Ok(format!("{role} {}", bytes(footprint(run, roles, &DEVICE)?.total())));
    let all: Result<Vec<String>, BackendError> = roles.into_iter().map(needed).collect();
    match (all, footprint(run, miner, &DEVICE)) {
        (Ok(all), Ok(of_miner)) => {
            let Footprint { process, state, device, activations, data, contributions } = of_miner;
            let (model, activations, data) = (bytes(state + device), bytes(activations), bytes(data));
            let (contributions, process) = (bytes(contributions), bytes(process));
            vec![
                format!("{} at most;", all.join(", ")),
                format!("of a miner's, the model takes {model}, activations {activations},"),
                format!("data {data}, contributions {contributions}, the process {process}"),
            ]
        }
        (Err(error), _) | (_, Err(error)) => vec![format!("unknown: {error}")],
    }
}

fn stake(run: &Run) -> String {
    match run.electorate.stake_min {
        0 | 1 => "a validator needs a permit and any stake".to_owned(),
        rao => format!("a validator needs a permit and a stake of {}", thousands(rao)),
    }
}

fn rate(mbit: f64) -> String {
    match mbit {
        mbit if mbit < 0.095 => "under 0.1 Mbit/s".to_owned(),
        mbit if mbit < 9.95 => format!("{mbit:.1} Mbit/s"),
        mbit => format!("{} Mbit/s", thousands(mbit.round() as u64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preset::{PRESETS, Template};
    use covey_proto::Digest;
    use covey_proto::run::{Chain, Data};

    #[test]
    fn a_run_is_shown_in_eighty_columns() {
        for (name, ..) in PRESETS {
            let chain =
                Chain { genesis: Digest::of(b"x"), netuid: 65_535, start: 1 << 30, genesis_state: Digest::ZERO };
            let data = Data { digest: Digest::of(b"y"), samples: 123_456_789 };
            let run = Template::load(name).unwrap().resolve(&chain, &data).unwrap();
            let text = text(&run, 12.0);
            assert!(text.contains(&run.id().to_string()), "{text}");
            for line in text.lines() {
                assert!(line.chars().count() <= 80, "{name}: {line}");
            }
        }
    }
}
