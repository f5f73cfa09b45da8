//! What tests make go wrong with a fake wallet.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::money::Msat;
use crate::wallet::WalletError;

/// The faults of one fake wallet. All off at first; each can be switched while the wallet is in use.
#[derive(Debug, Default)]
pub struct Faults {
    set: Mutex<Set>,
}

#[derive(Debug, Default)]
struct Set {
    silent: bool,
    lie: Option<Msat>,
    failures: VecDeque<WalletError>,
    lost_answers: usize,
    duplicate_updates: bool,
    drop_updates: bool,
    streams: CancellationToken,
}

impl Faults {
    /// The wallet no longer answers: every call ends as unreachable at once, as an adapter reports after its deadline,
    /// and nothing happens; no news comes either.
    pub fn go_silent(&self, silent: bool) {
        self.lock().silent = silent;
    }

    /// The wallet makes its invoices over this amount, whatever was asked.
    pub fn lie_about_amount(&self, amount: Option<Msat>) {
        self.lock().lie = amount;
    }

    /// The next call fails with this and nothing happens. Further ones queue up.
    pub fn fail_next(&self, error: WalletError) {
        self.lock().failures.push_back(error);
    }

    /// The next call is carried out, but its answer is lost: the caller sees an unreachable wallet and must ask.
    pub fn lose_next_answer(&self) {
        self.lock().lost_answers += 1;
    }

    /// All news comes twice.
    pub fn duplicate_updates(&self, duplicate: bool) {
        self.lock().duplicate_updates = duplicate;
    }

    /// No news comes, though the stream stays open.
    pub fn drop_updates(&self, drop: bool) {
        self.lock().drop_updates = drop;
    }

    /// Ends every stream of news that is open now.
    pub fn break_streams(&self) {
        std::mem::take(&mut self.lock().streams).cancel();
    }

    /// Asked before a call is carried out.
    pub(super) fn before(&self) -> Result<(), WalletError> {
        let mut set = self.lock();
        if set.silent {
            return Err(WalletError::Unreachable("the fake wallet was told to be silent".into()));
        }
        set.failures.pop_front().map_or(Ok(()), Err)
    }

    /// Asked after a call was carried out, before it is answered.
    pub(super) fn after(&self) -> Result<(), WalletError> {
        let mut set = self.lock();
        if set.lost_answers == 0 {
            return Ok(());
        }
        set.lost_answers -= 1;
        Err(WalletError::Unreachable("the fake wallet was told to lose this answer".into()))
    }

    /// The amount to make an invoice over when `asked` was asked.
    pub(super) fn amount(&self, asked: Msat) -> Msat {
        self.lock().lie.unwrap_or(asked)
    }

    /// How often an update is to be delivered.
    pub(super) fn copies(&self) -> usize {
        let set = self.lock();
        match (set.silent || set.drop_updates, set.duplicate_updates) {
            (true, _) => 0,
            (false, false) => 1,
            (false, true) => 2,
        }
    }

    /// Cancelled when the streams that are open now shall end.
    pub(super) fn stream_end(&self) -> CancellationToken {
        self.lock().streams.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Set> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
