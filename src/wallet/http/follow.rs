//! Invoices that are watched one by one, because the wallet's own stream of news leaves them out: hold invoices of LND and
//! Core Lightning.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt;
use futures::stream::{self, BoxStream, SelectAll};
use tokio::sync::broadcast;

use super::news::News;
use crate::wallet::PaymentHash;

/// Invoices watched at once. Beyond it only looking up helps; a connection each is what it costs.
const MOST_FOLLOWED: usize = 128;

/// The invoices to watch. Those that are over are forgotten.
#[derive(Debug)]
pub(crate) struct Followed {
    hashes: Mutex<BTreeSet<PaymentHash>>,
    added: broadcast::Sender<PaymentHash>,
}

impl Default for Followed {
    fn default() -> Self {
        Self { hashes: Mutex::default(), added: broadcast::Sender::new(MOST_FOLLOWED) }
    }
}

impl Followed {
    /// Watches that invoice too, if there is room.
    pub(crate) fn add(&self, hash: PaymentHash) {
        let mut hashes = self.lock();
        if hashes.len() < MOST_FOLLOWED && hashes.insert(hash) {
            // Without a stream there is nobody to tell; one that is opened later finds it in the set.
            let _ = self.added.send(hash);
        }
    }

    /// It is over.
    pub(crate) fn remove(&self, hash: &PaymentHash) {
        self.lock().remove(hash);
    }

    /// How many are watched.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// What is watched.
    pub(crate) fn all(&self) -> Vec<PaymentHash> {
        self.lock().iter().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<PaymentHash>> {
        self.hashes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The news of every invoice that is or will be followed, each from what `open` makes for it. One that ends without an
/// error is over; an error ends them all.
pub(crate) fn followed_updates(
    followed: Arc<Followed>,
    open: impl Fn(PaymentHash) -> BoxStream<'static, News> + Send + 'static,
) -> BoxStream<'static, News> {
    // Subscribed before the set is read, so that none falls in between; one told twice is opened twice, which says the
    // same twice.
    let added = followed.added.subscribe();
    let mut streams = SelectAll::new();
    streams.extend(followed.all().into_iter().map(&open));
    stream::unfold((followed, added, streams, open), |(followed, mut added, mut streams, open)| async move {
        loop {
            tokio::select! {
                more = added.recv() => match more {
                    Ok(hash) => streams.push(open(hash)),
                    // Some were missed: open all there are.
                    Err(broadcast::error::RecvError::Lagged(_)) => {
                        streams.clear();
                        streams.extend(followed.all().into_iter().map(&open));
                    }
                    Err(broadcast::error::RecvError::Closed) => return None,
                },
                Some(said) = streams.next() => return Some((said, (followed, added, streams, open))),
            }
        }
    })
    .boxed()
}
