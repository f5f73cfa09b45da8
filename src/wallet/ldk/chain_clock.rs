//! How far the chain may be while its source is silent.
//!
//! The deadlines of holds are heights, and the node knows only the height its chain source told it last. A source that is
//! away hides the deadline, so the clock stands in for it: pessimistically, as a payment that goes back too early costs a
//! sale and one that is claimed too late costs the money.

use std::time::Duration;

use bitcoin::Network;
use jiff::Timestamp;

use super::{Shared, WalletError};
use crate::wallet::hold_window::{self, BLOCK, SETTLE_MARGIN_BLOCKS};

/// With a chain source silent for longer than this no hold is begun: nobody could say when it ends.
pub(super) const LONGEST_SILENCE: Duration = Duration::from_secs(60 * 60);

/// The time the node has after its start to look at the chain. Until then nothing is concluded from how long it was away:
/// the true height comes in a moment.
pub(super) const FIRST_LOOK: Duration = Duration::from_secs(120);

/// Blocks that may have been found since the chain source answered last: none within the time of one, then as many as
/// bad luck may bring.
fn blocks_in(silence: Duration) -> u32 {
    if silence <= BLOCK { 0 } else { hold_window::blocks(silence).saturating_sub(SETTLE_MARGIN_BLOCKS) }
}

/// From one time to a later one; nothing when the clock went back.
fn between(earlier: Timestamp, later: Timestamp) -> Duration {
    Duration::try_from(later.duration_since(earlier)).unwrap_or_default()
}

impl Shared {
    /// How long ago the chain source answered last; nothing for a node that looks only when it is told to. A node that never
    /// had an answer waits for one since it was opened.
    fn silence(&self, now: Timestamp) -> Duration {
        if !self.looks_by_itself {
            return Duration::ZERO;
        }
        let told = self.node.status().latest_lightning_wallet_sync_timestamp;
        let last = told.and_then(|secs| Timestamp::from_second(i64::try_from(secs).ok()?).ok());
        between(last.unwrap_or(self.opened_at), now)
    }

    /// The height of the chain, or what it may be by now when its source is silent. On regtest blocks know no clock.
    pub(super) fn estimated_height(&self) -> u32 {
        let now = Timestamp::now();
        let known = self.height();
        if self.network == Network::Regtest || between(self.opened_at, now) < FIRST_LOOK {
            return known;
        }
        known.saturating_add(blocks_in(self.silence(now)))
    }

    /// Whether the chain source answered lately enough to begin a hold.
    pub(super) fn chain_answers(&self) -> Result<(), WalletError> {
        answers(self.silence(Timestamp::now()))
    }
}

fn answers(silence: Duration) -> Result<(), WalletError> {
    if silence <= LONGEST_SILENCE {
        return Ok(());
    }
    let minutes = silence.as_secs() / 60;
    Err(WalletError::Unreachable(format!("the chain source has not answered for {minutes} minutes")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_chain_source_moves_the_chain_on_by_more_than_the_clock_says() {
        assert_eq!(blocks_in(Duration::ZERO), 0);
        assert_eq!(blocks_in(BLOCK), 0);
        assert!(blocks_in(BLOCK + Duration::from_secs(1)) > 2);
        let hour = blocks_in(Duration::from_secs(60 * 60));
        assert!((7..=18).contains(&hour), "{hour}");
        assert!(blocks_in(Duration::from_secs(24 * 60 * 60)) > 144);
    }

    #[test]
    fn no_hold_is_begun_after_an_hour_of_silence() {
        assert_eq!(answers(LONGEST_SILENCE), Ok(()));
        let silent = answers(LONGEST_SILENCE + Duration::from_secs(60)).unwrap_err();
        assert_eq!(silent, WalletError::Unreachable("the chain source has not answered for 61 minutes".into()));
    }

    #[test]
    fn a_clock_that_went_back_is_no_silence() {
        let now = Timestamp::constant(1_800_000_000, 0);
        assert_eq!(between(now, Timestamp::constant(1_700_000_000, 0)), Duration::ZERO);
        assert_eq!(between(now, Timestamp::constant(1_800_000_060, 0)), Duration::from_secs(60));
    }
}
