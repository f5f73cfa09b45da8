//! What work costs.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::outcome::{Compute, Usage};
use crate::money::Msat;

/// Tokens a rate is quoted for.
pub const TOKENS_PER_RATE: u64 = 1_000;

/// Milliseconds in a second.
const MS_PER_SECOND: u64 = 1_000;

/// Mebibytes times milliseconds in a gigabyte (1,024 MiB) for a minute.
const MIB_MS_PER_GB_MINUTE: u64 = 1_024 * 60 * 1_000;

/// Milliseconds of the longest job anybody thinks of: ten years.
const LONGEST_WALL_MS: u64 = 10 * 365 * 24 * 60 * 60 * 1_000;

/// An operator's rates for one kind: base + per 1,000 prompt tokens + per 1,000 generated tokens + per second in a sandbox +
/// per gigabyte of its memory and minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rates {
    /// For taking the job at all.
    pub base: Msat,
    /// For every 1,000 tokens read.
    pub per_1k_prompt: Msat,
    /// For every 1,000 tokens written.
    pub per_1k_generated: Msat,
    /// For every second in a sandbox.
    #[serde(default)]
    pub per_second: Msat,
    /// For every gigabyte (1,024 MiB) of memory that is set aside in a sandbox, and minute.
    #[serde(default)]
    pub per_gb_minute: Msat,
}

impl Rates {
    /// Nothing costs anything.
    pub const FREE: Self = Self {
        base: Msat::ZERO,
        per_1k_prompt: Msat::ZERO,
        per_1k_generated: Msat::ZERO,
        per_second: Msat::ZERO,
        per_gb_minute: Msat::ZERO,
    };

    /// The cost of `usage`, each part rounded up to a millisatoshi.
    pub fn cost(&self, usage: Usage) -> Msat {
        self.base
            .saturating_add(self.per_1k_prompt.per(u64::from(usage.prompt_tokens), TOKENS_PER_RATE))
            .saturating_add(self.per_1k_generated.per(u64::from(usage.generated_tokens), TOKENS_PER_RATE))
            .saturating_add(self.per_second.per(usage.compute.wall_ms(), MS_PER_SECOND))
            .saturating_add(self.per_gb_minute.per(usage.compute.mib_ms(), MIB_MS_PER_GB_MINUTE))
    }

    /// How long a sandbox may be used for at most so much, when the job uses `other` besides; `None` when there is nothing
    /// left for it. As long as one likes where time costs nothing.
    pub fn affordable_wall(&self, most: Msat, other: Usage, memory_mib: u32) -> Option<Duration> {
        let left = most.checked_sub(self.cost(Usage { compute: Compute::NONE, ..other })).ok()?;
        let cost = |wall_ms: u64| {
            let compute = Compute { wall: Duration::from_millis(wall_ms), memory_mib };
            Self { base: Msat::ZERO, ..*self }.cost(Usage { compute, ..Usage::NONE })
        };
        if cost(LONGEST_WALL_MS) <= left {
            return Some(Duration::MAX);
        }
        // Longer never costs less.
        let (mut fits, mut too_long) = (0, LONGEST_WALL_MS);
        while too_long - fits > 1 {
            let middle = fits + (too_long - fits) / 2;
            if cost(middle) <= left { fits = middle } else { too_long = middle }
        }
        (fits > 0).then(|| Duration::from_millis(fits))
    }

    /// Whether everything is for nothing.
    pub fn is_free(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::job::Compute;

    #[test]
    fn more_tokens_never_cost_less() {
        let rates = Rates {
            base: Msat::sat(1),
            per_1k_prompt: Msat::msat(333),
            per_1k_generated: Msat::msat(1),
            ..Rates::FREE
        };
        let cost = |prompt, generated| rates.cost(Usage::tokens(prompt, generated));
        assert_eq!(cost(0, 0), Msat::sat(1));
        assert_eq!(cost(1, 1), Msat::msat(1_002));
        assert!(cost(5_000, 10) > cost(4_999, 10).saturating_sub(Msat::msat(1)));
    }

    #[test]
    fn time_in_a_sandbox_and_its_memory_are_charged_by_the_millisecond() {
        let rates = Rates { per_second: Msat::msat(100), per_gb_minute: Msat::sat(6), ..Rates::FREE };
        let cost = |wall_ms, memory_mib| {
            let compute = Compute { wall: Duration::from_millis(wall_ms), memory_mib };
            rates.cost(Usage { compute, ..Usage::NONE })
        };
        assert_eq!(cost(0, 4_096), Msat::ZERO);
        assert_eq!(cost(1_000, 0), Msat::msat(100));
        assert_eq!(cost(1, 0), Msat::msat(1));
        assert_eq!(cost(60_000, 1_024), Msat::sat(6 + 6));
        assert_eq!(cost(30_000, 512), Msat::msat(3_000 + 1_500));
    }

    #[test]
    fn what_is_affordable_costs_no_more_and_a_millisecond_longer_would() {
        let rates =
            Rates { base: Msat::sat(2), per_second: Msat::msat(333), per_gb_minute: Msat::sat(7), ..Rates::FREE };
        let cost = |wall, memory_mib| rates.cost(Usage { compute: Compute { wall, memory_mib }, ..Usage::NONE });
        for (most, memory) in [(Msat::sat(3), 512), (Msat::sat(100), 4_096), (Msat::sat(1_000_000), 1)] {
            let wall = rates.affordable_wall(most, Usage::NONE, memory).unwrap();
            assert!(cost(wall, memory) <= most && cost(wall + Duration::from_millis(1), memory) > most, "{wall:?}");
        }
        assert_eq!(rates.affordable_wall(Msat::sat(2), Usage::NONE, 512), None);
        assert_eq!(rates.affordable_wall(Msat::sat(1), Usage::NONE, 512), None);
        assert_eq!(Rates::FREE.affordable_wall(Msat::ZERO, Usage::NONE, 512), Some(Duration::MAX));
    }
}
