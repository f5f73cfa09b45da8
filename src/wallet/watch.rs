//! One supervised stream of news for every wallet: reopening and backing off live here, not in the backends.
//!
//! A stream of news can end, lag or fall silent. So every time it is (re)opened the reader is told, and looks up
//! whatever it is waiting for: nothing is known of the time before. Silence can't be seen from here; the reader also looks
//! up now and then.

use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;

use super::{InvoiceUpdate, Wallet};

/// The first wait after a stream ended. Short: most ends are a relay's or a proxy's restart.
pub const FIRST_DELAY: Duration = Duration::from_millis(500);

/// The longest wait: a wallet that comes back is noticed within this (and by the reader's own look-ups).
pub const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// What a watched wallet has to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchEvent {
    /// News of one invoice.
    Update(InvoiceUpdate),
    /// The stream was opened, for the first time or again: look up everything that is open. From here on news flows, so
    /// whatever changes after the look-up is told.
    Reconnected,
}

/// News of `wallet` until `shutdown`. Never ends before, whatever the wallet does.
pub fn updates(
    wallet: Arc<dyn Wallet>,
    shutdown: CancellationToken,
) -> impl Stream<Item = WatchEvent> + Send + 'static {
    updates_with(wallet, shutdown, FIRST_DELAY, LONGEST_DELAY)
}

/// [`updates`] with other waits between attempts.
pub fn updates_with(
    wallet: Arc<dyn Wallet>,
    shutdown: CancellationToken,
    first_delay: Duration,
    longest_delay: Duration,
) -> impl Stream<Item = WatchEvent> + Send + 'static {
    let builder = ExponentialBuilder::default()
        .with_min_delay(first_delay)
        .with_max_delay(longest_delay)
        .with_jitter()
        .without_max_times();
    let watched = Watched { wallet, builder, backoff: builder.build(), longest_delay, open: None, wait: false };
    stream::unfold(watched, |mut watched| async move { Some((watched.next().await, watched)) })
        .take_until(shutdown.cancelled_owned())
}

struct Watched {
    wallet: Arc<dyn Wallet>,
    builder: ExponentialBuilder,
    backoff: ExponentialBackoff,
    longest_delay: Duration,
    open: Option<(BoxStream<'static, InvoiceUpdate>, Instant)>,
    /// Whether a stream ended or could not be opened, so that the next attempt has to wait.
    wait: bool,
}

impl Watched {
    async fn next(&mut self) -> WatchEvent {
        loop {
            if let Some((open, since)) = &mut self.open {
                let next = open.next().await;
                // A stream that delivers or lasts is healthy; one that opens and ends at once keeps backing off.
                if next.is_some() || since.elapsed() > self.longest_delay {
                    self.backoff = self.builder.build();
                }
                match next {
                    Some(update) => return WatchEvent::Update(update),
                    None => {
                        tracing::debug!(wallet = self.wallet.name(), "The wallet's stream of news ended");
                        self.open = None;
                        self.wait = true;
                    }
                }
            }
            if self.wait {
                let delay = self.backoff.next().expect("a backoff without a limit always has a next delay");
                tokio::time::sleep(delay).await;
            }
            match self.wallet.updates().await {
                Ok(stream) => {
                    self.open = Some((stream, Instant::now()));
                    return WatchEvent::Reconnected;
                }
                Err(error) => {
                    tracing::warn!(wallet = self.wallet.name(), %error, "The wallet gives no news; trying again");
                    self.wait = true;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::Msat;
    use crate::wallet::fake::{FakeNetwork, FakeWallet, FakeWalletOptions};
    use crate::wallet::{InvoiceRequest, WalletError};

    const SHORT: Duration = Duration::from_millis(1);

    fn wallet() -> FakeWallet {
        FakeWallet::open(&FakeNetwork::in_memory(), &[1; 32], FakeWalletOptions::default()).unwrap()
    }

    fn watched(wallet: &FakeWallet, shutdown: &CancellationToken) -> impl Stream<Item = WatchEvent> + Unpin + use<> {
        Box::pin(updates_with(Arc::new(wallet.clone()), shutdown.clone(), SHORT, SHORT))
    }

    async fn paid(wallet: &FakeWallet) -> InvoiceUpdate {
        let request = InvoiceRequest { amount: Msat::sat(1), description: "x".into(), expiry: Duration::from_secs(60) };
        let invoice = wallet.create_invoice(&request).await.unwrap();
        wallet.settle(&invoice.payment_hash).unwrap();
        let state = wallet.look_up(&invoice.payment_hash).await.unwrap();
        InvoiceUpdate { payment_hash: invoice.payment_hash, state }
    }

    #[tokio::test]
    async fn a_stream_that_ends_is_opened_again_and_the_reader_told_to_look_up() {
        let wallet = wallet();
        let mut watched = watched(&wallet, &CancellationToken::new());
        assert_eq!(watched.next().await, Some(WatchEvent::Reconnected));
        let update = paid(&wallet).await;
        assert_eq!(watched.next().await, Some(WatchEvent::Update(update)));
        wallet.faults().break_streams();
        assert_eq!(watched.next().await, Some(WatchEvent::Reconnected));
        let update = paid(&wallet).await;
        assert_eq!(watched.next().await, Some(WatchEvent::Update(update)));
    }

    #[tokio::test]
    async fn a_wallet_that_gives_no_stream_is_asked_until_it_does() {
        let wallet = wallet();
        for _ in 0..3 {
            wallet.faults().fail_next(WalletError::RateLimited);
        }
        assert_eq!(watched(&wallet, &CancellationToken::new()).next().await, Some(WatchEvent::Reconnected));
    }

    #[tokio::test]
    async fn shutdown_ends_the_watch_even_while_it_waits() {
        let wallet = wallet();
        let shutdown = CancellationToken::new();
        let mut watched = watched(&wallet, &shutdown);
        assert_eq!(watched.next().await, Some(WatchEvent::Reconnected));
        shutdown.cancel();
        assert_eq!(watched.next().await, None);
    }
}
