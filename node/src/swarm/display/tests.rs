//! Golden texts at 80 and 40 columns and off a terminal, and a toy terminal that obeys what the display writes.

use super::lines::{Paint, block, event_lines, round_text, work_line};
use super::*;

fn node(name: &str, role: &str, phase: &'static str, loss: Option<f64>) -> NodeLine {
    NodeLine { name: name.into(), role: role.into(), phase, round: 12, loss, live: true, note: None }
}

fn frame() -> Frame {
    let mut nodes = vec![
        node("miner-0", "miner", "train", Some(4.8123)),
        node("miner-1", "miner", "compress", Some(4.9)),
        node("miner-2", "miner", "wait", Some(f64::NAN)),
        node("validator-0", "validator", "score", None),
        node("seeder-0", "seeder", "serve", None),
    ];
    nodes[1].live = false;
    nodes[2].note = Some("noise".into());
    Frame {
        round: 12,
        rounds: 48,
        elapsed: Duration::from_secs(34),
        heldout_loss: Some(4.812),
        heldout_by_round: (0..13).map(|i| 6.9 - f64::from(i) * 0.17).collect(),
        tokens: 1_234_567,
        tokens_per_second: 18_234.4,
        bytes: 123_400_000,
        peers: 8,
        nodes,
        last: Some("miner-1 is killed in round 11".into()),
    }
}

fn line() -> RoundLine {
    RoundLine {
        round: 3,
        rounds: 48,
        loss: Some(6.8119),
        tokens_per_second: 1234.0,
        bytes: 12_345_678,
        selected: 4,
        offered: 4,
        root: "9f31c2d1".into(),
        took: Duration::from_millis(1400),
    }
}

const WIDE: &str = concat!(
    " round 12/48  ━━━━━━━━━━━━────────────────────────────────────  0:34, 1:42 left\n",
    " loss 4.812  █▇▇▆▆▅▅▄▃▃▂▂▁  18,234 tok/s  123 MB  1.23 M tokens  8 peers\n",
    " ● miner-0      train        12  4.812\n",
    " ○ miner-1      compress     12  4.900\n",
    " ● miner-2      wait         12      –  noise\n",
    " ● validator-0  score        12\n",
    " ● seeder-0     serve        12\n",
    " last  miner-1 is killed in round 11",
);

const NARROW: &str = concat!(
    " round 12/48  ━━──────  0:34, 1:42 left\n",
    " loss 4.812  █▇▇▆▆▅▄▄▃▃▂▁  18,234 tok/s\n",
    " ● miner-0      train      4.812\n",
    " ○ miner-1      compress   4.900\n",
    " ● miner-2      wait           –  noise\n",
    " ● validator-0  score\n",
    " ● seeder-0     serve\n",
    " last  miner-1 is killed in round 11",
);

#[test]
fn the_block_at_80_columns() {
    assert_eq!(block(&frame(), 79, 23, Paint::None).join("\n"), WIDE);
}

#[test]
fn the_block_at_40_columns() {
    assert_eq!(block(&frame(), 39, 23, Paint::None).join("\n"), NARROW);
}

#[test]
fn no_line_is_wider_than_the_terminal_and_no_block_higher() {
    let mut frame = frame();
    frame.nodes.extend((0..30).map(|i| node(&format!("miner-with-a-long-name-{i}-名前"), "miner", "train", Some(1e9))));
    frame.nodes[0].note = Some("\u{1b}[2Jsteers the terminal\nif it can\r".into());
    for columns in (1..120).step_by(3) {
        for rows in [1, 2, 3, 5, 24] {
            for paint in [Paint::None, Paint::Colours] {
                let lines = block(&frame, columns, rows, paint);
                assert!(lines.len() <= rows, "{columns} × {rows}");
                let widest = lines.iter().map(|line| console::measure_text_width(line)).max().unwrap();
                assert!(widest <= columns, "{widest} at {columns} × {rows}");
                assert!(lines.iter().all(|line| !line.contains("\x1b[2J")), "{columns} × {rows}");
            }
        }
    }
}

#[test]
fn too_many_nodes_leave_the_odd_ones_and_a_count() {
    let mut frame = frame();
    let many = (3..40).map(|i| node(&format!("miner-{i}"), "miner", "train", None));
    frame.nodes.splice(3..3, many);
    let lines = block(&frame, 79, 8, Paint::None);
    let names: Vec<&str> = lines.iter().map(|line| line.split_whitespace().nth(1).unwrap()).collect();
    assert_eq!(names[2..6], ["miner-0", "miner-1", "miner-2", "miner-3"]);
    assert_eq!(lines[6], " … and 36 miners, 1 validator and 1 seeder");
}

#[test]
fn a_round_is_one_line() {
    let wide = "round 3/48  loss 6.812  1,234 tok/s  12.3 MB  selected 4/4  root 9f31c2d1  1.4 s";
    assert_eq!(round_text(&line(), usize::MAX, Paint::None), wide);
    assert_eq!(
        round_text(&line(), 79, Paint::None),
        "round 3/48  loss 6.812  1,234 tok/s  selected 4/4  root 9f31c2d1  1.4 s"
    );
    assert_eq!(round_text(&line(), 39, Paint::None), "round 3/48  loss 6.812  selected 4/4");
    assert_eq!(round_text(&line(), 4, Paint::None), "rou…");
}

#[test]
fn an_event_is_broken_and_not_cut() {
    let text = "ROOTS DISAGREE in round 7: miner-1 has 1234abcd, not 9f31c2d1";
    assert_eq!(event_lines(text, usize::MAX, Paint::None), [format!("!!! {text}")]);
    assert_eq!(
        event_lines(text, 39, Paint::None),
        ["!!! ROOTS DISAGREE in round 7: miner-1", "!!! has 1234abcd, not 9f31c2d1"]
    );
    assert_eq!(event_lines("miner-1 joins in round 7", 20, Paint::None), ["  * miner-1 joins in", "    round 7"]);
    assert_eq!(event_lines("", 20, Paint::None), ["  *"]);
    assert_eq!(event_lines("abcdefgh", 8, Paint::None), ["  * abcd", "    efgh"]);
}

#[test]
fn colours_are_absent_unless_asked_for() {
    let plain = [block(&frame(), 79, 23, Paint::None).concat(), round_text(&line(), 79, Paint::None)].concat();
    assert!(!plain.contains('\x1b'));
    let coloured = block(&frame(), 79, 23, Paint::Colours).join("\n");
    assert_eq!(console::strip_ansi_codes(&coloured), WIDE);
}

#[test]
fn an_empty_frame_is_shown_too() {
    let lines = block(&Frame::default(), 79, 23, Paint::None);
    assert_eq!(lines[1], " loss –  0 tok/s  0 B  0 tokens  0 peers");
    assert!(lines[0].starts_with(" round 0/0  ─"));
}

/// What was written, for a test to look at.
#[derive(Clone, Default)]
struct Tape(Arc<Mutex<Vec<u8>>>);

impl Write for Tape {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Tape {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// The rows of an endless terminal that got all of it.
    fn terminal(&self) -> Vec<String> {
        let (mut rows, mut row) = (vec![String::new()], 0);
        let text = self.text();
        let mut letters = text.chars();
        while let Some(letter) = letters.next() {
            match letter {
                '\n' => {
                    row += 1;
                    rows.resize(rows.len().max(row + 1), String::new());
                }
                '\r' => {}
                '\x1b' => {
                    let code = control_sequence(&mut letters);
                    match code.split_at(code.len() - 1) {
                        (up, "A") => row -= up.parse::<usize>().unwrap(),
                        (_, "J") => {
                            rows.truncate(row);
                            rows.push(String::new());
                        }
                        (_, "m") => {}
                        other => panic!("the display wrote {other:?}"),
                    }
                }
                _ => rows[row].push(letter),
            }
        }
        rows.truncate(row);
        rows
    }
}

/// What follows an escape and a bracket, up to the letter that ends it.
fn control_sequence(letters: &mut impl Iterator<Item = char>) -> String {
    assert_eq!(letters.next(), Some('['));
    let mut code = String::new();
    for letter in letters {
        code.push(letter);
        if letter.is_alphabetic() {
            break;
        }
    }
    code
}

fn on_terminal() -> (Display, Tape) {
    let tape = Tape::default();
    let mode = Mode::Block { paint: Paint::None, size: || (80, 24) };
    (Display::of(Box::new(tape.clone()), mode), tape)
}

#[test]
fn rounds_and_events_stand_above_the_block() {
    let (display, tape) = on_terminal();
    display.frame(&frame());
    display.event("miner-1 joins in round 12");
    display.round(&line());
    let mut later = frame();
    later.nodes.truncate(1);
    display.frame(&later);
    let rows = tape.terminal();
    assert_eq!(rows[0], "  * miner-1 joins in round 12");
    assert!(rows[1].starts_with("round 3/48"));
    assert!(rows[2].starts_with(" round 12/48"));
    assert_eq!(rows.len(), 2 + 4, "{rows:#?}");
    display.finish();
    assert_eq!(tape.terminal().len(), 2);
}

#[test]
fn dropping_the_display_takes_only_the_block_away() {
    let (display, tape) = on_terminal();
    display.event("one");
    display.frame(&frame());
    drop(display);
    assert_eq!(tape.terminal(), ["  * one"]);
}

#[test]
fn the_terminal_is_left_with_no_mode_changed() {
    let (display, tape) = on_terminal();
    display.frame(&frame());
    assert!(!tape.text().contains("\x1b[?"), "a private mode would outlive a killed process");
    assert!(tape.text().ends_with('\n'), "the cursor rests below the block");
}

#[test]
fn an_unchanged_frame_is_not_written_again() {
    let (display, tape) = on_terminal();
    display.frame(&frame());
    let before = tape.text().len();
    display.frame(&frame());
    assert_eq!(tape.text().len(), before);
}

#[test]
fn off_a_terminal_there_are_only_whole_lines() {
    let tape = Tape::default();
    let display = Display::of(Box::new(tape.clone()), Mode::Plain);
    display.frame(&frame());
    display.round(&line());
    display.event("round 4 is void: the electorate's stake is too small");
    display.event("ROOTS DISAGREE in round 5");
    display.finish();
    drop(display);
    assert_eq!(
        tape.text(),
        "round 3/48  loss 6.812  1,234 tok/s  12.3 MB  selected 4/4  root 9f31c2d1  1.4 s\n  * round 4 is void: the \
         electorate's stake is too small\n!!! ROOTS DISAGREE in round 5\n"
    );
}

fn work(done: u64, seconds: u64) -> WorkLine {
    let (elapsed, at_most) = (Duration::from_secs(seconds), Duration::from_secs(30));
    WorkLine { what: "held-out loss of the last state".into(), done, of: 2048, noun: "sequence", elapsed, at_most }
}

#[test]
fn work_after_the_last_round_has_a_bar_and_a_bound() {
    let wide = " held-out loss of the last state  ━━━────────────  512/2,048, 0:04 of at most 0:30";
    assert_eq!(work_line(&work(512, 4), 82, Paint::None), wide);
    let narrow = " held-out loss of the last state  512/…";
    assert_eq!(work_line(&work(512, 4), 39, Paint::None), narrow);
    for done in [0, 2048, u64::MAX] {
        assert_eq!(console::measure_text_width(&work_line(&work(done, 40), 20, Paint::Colours)), 20);
    }
}

#[test]
fn work_takes_the_blocks_place_and_goes_with_it() {
    let (display, tape) = on_terminal();
    display.frame(&frame());
    display.work(&work(8, 0));
    display.work(&work(512, 4));
    assert_eq!(tape.terminal().len(), 1, "{:#?}", tape.terminal());
    assert!(tape.terminal()[0].contains("512/2,048"));
    display.finish();
    assert!(tape.terminal().is_empty());
}

/// In a log, three minutes of silence would look like a hang, and five lines a second like a flood.
#[test]
fn off_a_terminal_work_says_how_far_it_is_every_ten_seconds() {
    let tape = Tape::default();
    let display = Display::of(Box::new(tape.clone()), Mode::Plain);
    for (done, seconds) in [(0, 0), (8, 1), (512, 9), (600, 10), (601, 10), (1500, 25)] {
        display.work(&work(done, seconds));
    }
    display.work(&WorkLine { what: "losses of rounds".into(), of: 1, noun: "round", ..work(0, 25) });
    assert_eq!(
        tape.text(),
        "  * held-out loss of the last state: 0 of 2,048 sequences after 0:00, at most 0:30\n  * held-out loss of the \
         last state: 600 of 2,048 sequences after 0:10, at most 0:30\n  * held-out loss of the last state: 1,500 of 2,048 \
         sequences after 0:25, at most 0:30\n  * losses of rounds: 0 of 1 round after 0:25, at most 0:30\n"
    );
}
