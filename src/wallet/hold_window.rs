//! How long a payment can be held, in blocks: HTLCs know no clock.

use std::time::Duration;

/// The time a block takes on average.
pub const BLOCK: Duration = Duration::from_secs(600);

/// Blocks between our taking the money and the network taking it back in which nothing but trouble happens: the peer is
/// away, the chain source is slow. Inside it nothing is taken any more.
pub const SETTLE_MARGIN_BLOCKS: u32 = 6;

/// The most blocks a payment is held for: a day. What an invoice asks for at the last hop (BOLT 11 `c`) is that and the
/// receiving node's own margin. Payers refuse paths that lock their money for much longer.
pub const MOST_BLOCKS: u32 = 144;

/// Blocks to ask for so that a payment can be held for `hold_for`, the margin included. Blocks come unevenly: in the time
/// of `n` of them three standard deviations more may come.
pub fn blocks(hold_for: Duration) -> u32 {
    let expected = hold_for.as_secs().div_ceil(BLOCK.as_secs());
    u32::try_from(with_bad_luck(expected)).unwrap_or(u32::MAX).saturating_add(SETTLE_MARGIN_BLOCKS)
}

/// The longest time whose [`blocks`] are at most `most`.
pub fn longest(most: u32) -> Duration {
    let room = u64::from(most.saturating_sub(SETTLE_MARGIN_BLOCKS));
    let expected = (0..=room).rev().find(|expected| with_bad_luck(*expected) <= room).unwrap_or(0);
    Duration::from_secs(expected * BLOCK.as_secs())
}

fn with_bad_luck(expected: u64) -> u64 {
    expected.saturating_add((expected.saturating_mul(9)).isqrt()).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_into_the_longest_hold_asks_for_no_more_blocks_than_there_are() {
        for most in [0, 1, 7, 18, 40, MOST_BLOCKS, 2_016] {
            let longest = longest(most);
            assert!(longest.is_zero() || blocks(longest) <= most, "{most}");
            assert!(blocks(longest + BLOCK) > most, "{most}");
        }
        assert!(longest(MOST_BLOCKS) > Duration::from_secs(16 * 60 * 60));
        assert!(longest(SETTLE_MARGIN_BLOCKS).is_zero());
    }

    #[test]
    fn a_short_hold_still_leaves_room_for_a_few_blocks() {
        assert!(blocks(Duration::from_secs(1)) >= SETTLE_MARGIN_BLOCKS + 2);
        assert_eq!(blocks(Duration::MAX), u32::MAX);
    }
}
