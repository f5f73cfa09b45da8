//! Ctrl-C and SIGTERM while something is ordered: the first calls the order off, any other ends the command at once.

use std::pin::pin;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::sync::watch;

use crate::cli::exit::CommandError;
use crate::daemon::signals::Signals;

/// How soon after the first a signal is taken for the same one: timeout(1) and shells send it to the process and to its group,
/// or two kinds of it.
const SAME_SIGNAL: Duration = Duration::from_secs(1);

/// How far the order is, as far as an interruption is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nobody was asked for anything yet.
    Opening,
    /// The request is out, and can be called off.
    Ordered,
    /// It is being called off.
    CalledOff,
    /// It has ended, one way or the other.
    Ended,
}

/// What an interruption does to an order.
#[derive(Debug)]
pub(super) struct Interrupt(watch::Sender<Stage>);

impl Interrupt {
    /// Of an order that is not out yet.
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(Stage::Opening))
    }

    /// From here on there is something to call off.
    pub(super) fn ordered(&self) {
        self.0.send_replace(Stage::Ordered);
    }

    /// Returns when the order is to be called off.
    pub(super) async fn called_off(&self) {
        // The sender lives as long as this.
        let _ = self.0.subscribe().wait_for(|stage| *stage == Stage::CalledOff).await;
    }

    /// From here on there is nothing to call off any more. Returns whether it was called off.
    pub(super) fn ended(&self) -> bool {
        self.0.send_replace(Stage::Ended) == Stage::CalledOff
    }

    /// Runs what is ordered, to its end or until it is to end at once.
    ///
    /// # Errors
    /// As it does; or when it was ended at once, in words that say what may be left.
    pub(super) async fn heeding<T>(&self, running: impl Future<Output = Result<T>>) -> Result<T> {
        let mut signals = Signals::listen().context("signals can't be listened for")?;
        let mut running = pin!(running);
        let mut heard: Option<tokio::time::Instant> = None;
        loop {
            tokio::select! {
                ended = &mut running => return ended,
                signal = signals.next() => {
                    signal.context("signals can't be listened for")?;
                    if heard.is_some_and(|at| at.elapsed() < SAME_SIGNAL) {
                        continue;
                    }
                    heard = Some(tokio::time::Instant::now());
                    self.hear()?;
                }
            }
        }
    }

    /// Hears a signal.
    fn hear(&self) -> Result<(), CommandError> {
        match *self.0.borrow() {
            Stage::Ordered => {}
            Stage::Opening => return Err(CommandError::interrupted("interrupted before anybody was asked")),
            Stage::CalledOff => {
                return Err(CommandError::interrupted("interrupted again, while the order was being called off").help(
                    "a payment that was begun is never made twice; 'coinop payments list' asks the wallet what became of it",
                ));
            }
            Stage::Ended => {
                return Err(CommandError::interrupted("interrupted after the order had ended")
                    .help("'coinop payments list' says what was paid; the receipt is kept there, too"));
            }
        }
        self.0.send_replace(Stage::CalledOff);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_interruption_calls_the_order_off_and_the_second_ends_at_once() {
        let interrupt = Interrupt::new();
        interrupt.ordered();
        interrupt.hear().unwrap();
        interrupt.called_off().await;
        let at_once = interrupt.hear().unwrap_err();
        assert_eq!(at_once.code(), 130);
        assert!(interrupt.ended());
    }

    #[test]
    fn where_there_is_nothing_to_call_off_it_ends_at_once() {
        let interrupt = Interrupt::new();
        assert_eq!(interrupt.hear().unwrap_err().code(), 130);
        interrupt.ordered();
        assert!(!interrupt.ended());
        assert_eq!(interrupt.hear().unwrap_err().code(), 130);
    }
}
