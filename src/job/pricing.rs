//! What work costs.

use serde::{Deserialize, Serialize};

use super::outcome::Usage;
use crate::money::Msat;

/// Tokens a rate is quoted for.
pub const TOKENS_PER_RATE: u64 = 1_000;

/// An operator's rates for one kind: base + per 1,000 prompt tokens + per 1,000 generated tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rates {
    /// For taking the job at all.
    pub base: Msat,
    /// For every 1,000 tokens read.
    pub per_1k_prompt: Msat,
    /// For every 1,000 tokens written.
    pub per_1k_generated: Msat,
}

impl Rates {
    /// The cost of `usage`, each part rounded up to a millisatoshi.
    pub fn cost(&self, usage: Usage) -> Msat {
        self.base
            .saturating_add(self.per_1k_prompt.per(u64::from(usage.prompt_tokens), TOKENS_PER_RATE))
            .saturating_add(self.per_1k_generated.per(u64::from(usage.generated_tokens), TOKENS_PER_RATE))
    }

    /// Whether everything is for nothing.
    pub fn is_free(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_tokens_never_cost_less() {
        let rates = Rates { base: Msat::sat(1), per_1k_prompt: Msat::msat(333), per_1k_generated: Msat::msat(1) };
        let cost = |prompt, generated| rates.cost(Usage { prompt_tokens: prompt, generated_tokens: generated });
        assert_eq!(cost(0, 0), Msat::sat(1));
        assert_eq!(cost(1, 1), Msat::msat(1_002));
        assert!(cost(5_000, 10) > cost(4_999, 10).saturating_sub(Msat::msat(1)));
    }
}
