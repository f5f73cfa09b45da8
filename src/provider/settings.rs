//! How the operator wants to sell.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::job::admission::Rules;
use crate::job::{JobKind, Rates, Terms};
use crate::wallet::{HoldInvoices, Wallet};

/// What one kind of job is sold for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// The price list.
    pub rates: Rates,
    /// When paid work is paid.
    pub terms: Terms,
    /// Jobs a key has for nothing a day.
    pub free_per_day: u32,
    /// How long a payment has to be held for [`Terms::Hold`]: the wait for a turn, the run at its longest, and settling.
    pub hold_for: Duration,
}

/// What a hold lasts beyond the job's turn and run: settling, and a restart of ours in between.
pub const HOLD_SLACK: Duration = Duration::from_secs(20 * 60);

impl Offer {
    /// How long a payment has to be held for a job that runs for at most `time_limit`, and may wait as long for its turn.
    pub fn hold_for(time_limit: Duration) -> Duration {
        time_limit.saturating_mul(2).saturating_add(HOLD_SLACK)
    }

    /// How long of that a job may wait for its turn.
    pub fn longest_wait(&self) -> Duration {
        self.time_limit()
    }

    /// How long of that a job may run.
    pub fn time_limit(&self) -> Duration {
        self.hold_for.saturating_sub(HOLD_SLACK) / 2
    }

    /// The terms a wallet can really do: a job whose payment it can't hold for long enough is paid before instead.
    pub fn terms_with(&self, wallet: Option<&dyn Wallet>) -> Terms {
        let longest = wallet.and_then(Wallet::hold_invoices).map(HoldInvoices::longest_hold);
        match self.terms {
            Terms::Hold if longest.is_none_or(|longest| longest < self.hold_for) => Terms::Prepay,
            terms => terms,
        }
    }
}

/// How the operator wants to sell.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What is sold, and for how much.
    pub offers: BTreeMap<JobKind, Offer>,
    /// What the operator sells and can't be done now: whoever names us for it hears so.
    pub withheld: BTreeSet<JobKind>,
    /// Who may order, and how much at once.
    pub rules: Rules,
    /// Jobs worked on at once; further ones wait their turn. 0 for as many as the executors have room for.
    pub jobs_running: usize,
    /// Requests made ready (inputs fetched, tokens counted) at once; further ones wait in the relays' queue.
    pub preparing: usize,
    /// How long a customer has to pay.
    pub payment_window: Duration,
    /// How long after that a payment is still looked for.
    pub late_payment_window: Duration,
    /// How often the wallet is asked about open invoices, besides its own news.
    pub payment_poll: Duration,
    /// How often the books are compared with the wallet, besides at the start; zero for never.
    pub audit_every: Duration,
    /// How long a result is offered to the relays before it is given up and credited.
    pub result_retry_for: Duration,
    /// How long error feedback is offered to the relays.
    pub notice_retry_for: Duration,
    /// The least time between two pieces of partial output.
    pub partial_every: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            offers: BTreeMap::new(),
            withheld: BTreeSet::new(),
            rules: Rules::default(),
            jobs_running: 4,
            preparing: 64,
            payment_window: Duration::from_secs(10 * 60),
            late_payment_window: Duration::from_secs(24 * 60 * 60),
            payment_poll: Duration::from_secs(15),
            audit_every: Duration::from_secs(60 * 60),
            result_retry_for: Duration::from_secs(3 * 24 * 60 * 60),
            notice_retry_for: Duration::from_secs(10 * 60),
            partial_every: Duration::from_secs(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wallet::fake::{FakeNetwork, FakeWallet, FakeWalletOptions};
    use crate::wallet::hold_window;

    fn offer(terms: Terms, time_limit: Duration) -> Offer {
        Offer { rates: Rates::default(), terms, free_per_day: 0, hold_for: Offer::hold_for(time_limit) }
    }

    fn wallet(hold_invoices: bool) -> FakeWallet {
        let options = FakeWalletOptions { hold_invoices, ..FakeWalletOptions::default() };
        FakeWallet::open(&FakeNetwork::in_memory(), &[1; 32], options).unwrap()
    }

    #[test]
    fn a_job_that_does_not_fit_the_hold_window_is_paid_before() {
        let longest = hold_window::longest(hold_window::MOST_BLOCKS);
        let (short, long) = (Duration::from_secs(300), longest);
        assert_eq!(offer(Terms::Hold, short).terms_with(Some(&wallet(true))), Terms::Hold);
        assert_eq!(offer(Terms::Hold, long).terms_with(Some(&wallet(true))), Terms::Prepay);
        assert_eq!(offer(Terms::Hold, short).terms_with(Some(&wallet(false))), Terms::Prepay);
        assert_eq!(offer(Terms::Postpay, long).terms_with(Some(&wallet(false))), Terms::Postpay);
        assert_eq!(offer(Terms::Hold, short).terms_with(None), Terms::Prepay);
    }
}
