//! What the wallet remembers, read page by page (`list_transactions`).

use std::collections::HashSet;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

use super::NwcWallet;
use super::wire::{self, Method};
use crate::wallet::{History, Received, Sent, WalletError};

/// How much earlier than the time asked for transactions are listed: wallets list by when an invoice was made, and it is
/// paid, or taken, up to about a day later.
const MADE_BEFORE: SignedDuration = SignedDuration::from_hours(2 * 24);

/// Transactions asked for at once: a message carries 64 KiB at most (NIP-44), and some wallets tell a lot of each.
const PAGE: u32 = 20;

/// Transactions read at most.
const MOST_LISTED: u32 = 20_000;

impl NwcWallet {
    /// The wallet's transactions in one direction that were made at `since` or later, as far as they can be read.
    async fn list(&self, direction: &str, since: Timestamp) -> Result<Vec<wire::Transaction>, WalletError> {
        let from = since.checked_sub(MADE_BEFORE).unwrap_or(Timestamp::UNIX_EPOCH).as_second();
        let (mut listed, mut known, mut offset) = (Vec::new(), HashSet::new(), 0);
        loop {
            let params = wire::ListTransactions {
                from: u64::try_from(from).unwrap_or(0),
                limit: PAGE,
                offset,
                unpaid: false,
                direction: direction.to_owned(),
            };
            let page: wire::Transactions = self.call(Method::ListTransactions, params).await?;
            let told = u32::try_from(page.transactions.len()).unwrap_or(u32::MAX);
            let mut news = false;
            for transaction in page.transactions {
                // Of the other direction, when the wallet does not filter.
                let Ok(transaction) = serde_json::from_value::<wire::Transaction>(transaction) else { continue };
                let fitting = transaction.direction.as_deref().is_none_or(|said| said == direction);
                if let Some(hash) = transaction.hash().filter(|_| fitting)
                    && known.insert(hash)
                {
                    news = true;
                    listed.push(transaction);
                }
            }
            offset = offset.saturating_add(told);
            // A wallet that knows no offset tells the same page again and again.
            if told == 0 || !news {
                return Ok(listed);
            }
            if offset >= MOST_LISTED {
                return Err(WalletError::BadAnswer(format!("it lists more than {MOST_LISTED} transactions")));
            }
        }
    }
}

#[async_trait]
impl History for NwcWallet {
    async fn received(&self, since: Timestamp) -> Result<Vec<Received>, WalletError> {
        let now = Timestamp::now();
        let mut received: Vec<_> =
            self.list("incoming", since).await?.iter().filter_map(|told| told.received(now)).collect();
        received.retain(|one| one.at.is_none_or(|at| at.as_second() >= since.as_second()));
        Ok(received)
    }

    async fn sent(&self, since: Timestamp) -> Result<Vec<Sent>, WalletError> {
        let mut sent: Vec<_> = self.list("outgoing", since).await?.iter().filter_map(wire::Transaction::sent).collect();
        sent.retain(|one| one.at.is_none_or(|at| at.as_second() >= since.as_second()));
        Ok(sent)
    }
}
