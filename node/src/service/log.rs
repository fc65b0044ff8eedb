//! A node's log, on standard error: whoever starts the process says where that goes. The last error is kept, too, for
//! the node's status.

use crate::observe::Board;
use std::fmt::{Debug, Write};
use std::io::IsTerminal;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::{EnvFilter, Registry};

/// Characters of an error that are kept.
const ERROR_CHARS_MAX: usize = 500;

/// Logs from now on, by `COVEY_LOG` or else `filter`; errors go to the board as well.
///
/// # Errors
/// The filter is none.
pub fn start(filter: &str, board: Board) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter = match EnvFilter::try_from_env("COVEY_LOG") {
        Ok(filter) => filter,
        Err(_) => EnvFilter::try_new(filter)?,
    };
    let lines =
        tracing_subscriber::fmt::layer().with_ansi(std::io::stderr().is_terminal()).with_writer(std::io::stderr);
    let subscriber = Registry::default().with(filter).with(lines).with(LastError(board));
    // Set once, by the binary's main command.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(())
}

struct LastError(Board);

impl<S: Subscriber> Layer<S> for LastError {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() != Level::ERROR {
            return;
        }
        let mut text = Text::default();
        event.record(&mut text);
        let said = [text.message, text.fields].concat().chars().take(ERROR_CHARS_MAX).collect();
        self.0.change(|board| board.error = Some(said));
    }
}

/// An event's message and then its fields.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            "node" => Ok(()),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_is_on_the_board_and_warnings_are_not() {
        let board = Board::default();
        let subscriber = Registry::default().with(LastError(board.clone()));
        tracing::subscriber::with_default(subscriber, || {
            tracing::error!(node = "miner-0", round = 3, "the disk is full");
            tracing::warn!("a peer is slow");
        });
        assert_eq!(board.read().error.as_deref(), Some("the disk is full round=3"));
        tracing::subscriber::with_default(Registry::default().with(LastError(board.clone())), || {
            tracing::error!("{}", "x".repeat(10_000));
        });
        assert_eq!(board.read().error.map(|error| error.len()), Some(ERROR_CHARS_MAX));
    }
}
