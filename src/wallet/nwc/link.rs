//! Calls over the relays: a request event out, the response that names it back, and notifications in between.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use jiff::Timestamp;
use nostr::{Event, EventBuilder, EventId, Keys, Kind, PublicKey, Tag, TagKind};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{broadcast, oneshot};

use super::cipher::{Cipher, NIP44_NOTIFICATION};
use super::meeting::{Arrival, Arrivals, Meeting};
use super::wire::{Call, Method, Notification, Reply};
use crate::wallet::{InvoiceUpdate, WalletError};

/// News kept for a slow reader. One that falls further behind finds its stream ended and looks up.
const NEWS_KEPT: usize = 1_024;

/// The name of the tag that names the encryption (NIP-47).
pub(crate) const ENCRYPTION_TAG: &str = "encryption";

/// One client of one wallet service.
pub(super) struct Link {
    meeting: Meeting,
    keys: Keys,
    wallet: PublicKey,
    cipher: Cipher,
    waiting: Mutex<HashMap<EventId, oneshot::Sender<Result<Reply, WalletError>>>>,
    /// Replaced after every gap, which ends the streams that read it: their readers look up and open new ones.
    news: Mutex<broadcast::Sender<InvoiceUpdate>>,
}

impl Link {
    pub(super) fn new(meeting: Meeting, keys: Keys, wallet: PublicKey, cipher: Cipher) -> Self {
        let news = Mutex::new(broadcast::Sender::new(NEWS_KEPT));
        Self { meeting, keys, wallet, cipher, waiting: Mutex::default(), news }
    }

    /// Calls the wallet and waits at most `patience`. The request carries the same limit, so that a wallet that comes back
    /// later does not act on what nobody waits for any more.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        params: impl Serialize,
        patience: Duration,
    ) -> Result<T, WalletError> {
        let request = self.request(method, params, patience)?;
        let (answer, answered) = oneshot::channel();
        lock(&self.waiting).insert(request.id, answer);
        // Also when the caller gives up.
        let _forget = Forget { link: self, id: request.id };
        let exchange = async {
            let mut answered = answered;
            tokio::select! {
                reply = &mut answered => return reply,
                sent = self.meeting.send(&request) => if let Err(error) = sent { return Ok(Err(error)); },
            }
            answered.await
        };
        let reply = match tokio::time::timeout(patience, exchange).await {
            Ok(Ok(reply)) => reply?,
            Ok(Err(_)) => return Err(WalletError::Unreachable("the connection was closed".into())),
            Err(_) => {
                return Err(WalletError::Unreachable(format!("no answer to {} in {patience:?}", method.word())));
            }
        };
        let result = reply.into_result(method)?;
        serde_json::from_value(result).map_err(|error| {
            WalletError::BadAnswer(format!("the result of {} ({:?})", method.word(), error.classify()))
        })
    }

    /// News from now until the next gap.
    pub(super) fn updates(&self) -> BoxStream<'static, InvoiceUpdate> {
        let news = lock(&self.news).subscribe();
        // A reader that lags has missed news: its stream ends like after any other gap.
        stream::unfold(news, |mut news| async move { news.recv().await.ok().map(|update| (update, news)) }).boxed()
    }

    /// Hands out what comes in, until the connection is left. The one place that reads the relays.
    pub(super) async fn listen(&self, mut arrivals: Arrivals) {
        while let Some(arrival) = arrivals.next().await {
            match arrival {
                Arrival::Event(event) => self.take(&event),
                Arrival::Gap => {
                    tracing::info!("The connection to the wallet had a gap; everything open is looked up again");
                    self.end_streams();
                }
            }
        }
        lock(&self.waiting).clear();
        self.end_streams();
    }

    /// Leaves the relays, which also ends [`Link::listen`].
    pub(super) async fn leave(&self) {
        self.meeting.leave().await;
    }

    fn request(&self, method: Method, params: impl Serialize, patience: Duration) -> Result<Event, WalletError> {
        let refused = |_| WalletError::Refused("the request can't be written".into());
        let params = serde_json::to_value(params).map_err(refused)?;
        let call = Call { method: method.word().to_owned(), params };
        let text = serde_json::to_string(&call).map_err(refused)?;
        let content = self.cipher.encrypt(&self.keys, &self.wallet, &text)?;
        let until = nostr::Timestamp::now() + patience;
        EventBuilder::new(Kind::WalletConnectRequest, content)
            .tag(Tag::public_key(self.wallet))
            .tag(Tag::custom(TagKind::custom(ENCRYPTION_TAG), [self.cipher.word()]))
            .tag(Tag::expiration(until))
            .sign_with_keys(&self.keys)
            .map_err(|_| WalletError::Refused("the request can't be signed".into()))
    }

    /// Believes the wallet's key only; the pool has checked the signature.
    fn take(&self, event: &Event) {
        // The library takes an id it has verified once for verified, whatever else the event says.
        if event.pubkey != self.wallet || !event.verify_id() {
            return;
        }
        match event.kind {
            Kind::WalletConnectResponse => {
                // The event answers the first of ours that it names.
                let waiting = event.tags.event_ids().find_map(|id| lock(&self.waiting).remove(id));
                if let Some(waiting) = waiting {
                    // Whoever gave up waiting needs no answer.
                    let _ = waiting.send(self.read(event));
                }
            }
            kind if kind == Kind::WalletConnectNotification || kind == NIP44_NOTIFICATION => {
                match self.read::<Notification>(event) {
                    Ok(notification) => {
                        if let Some(update) = notification.update(Timestamp::now()) {
                            let _ = lock(&self.news).send(update);
                        }
                    }
                    Err(error) => tracing::debug!(%error, "A notification of the wallet is skipped"),
                };
            }
            _ => {}
        }
    }

    fn read<T: DeserializeOwned>(&self, event: &Event) -> Result<T, WalletError> {
        let text = Cipher::of(&event.content).decrypt(&self.keys, &self.wallet, &event.content)?;
        // serde's own words may quote what it read.
        serde_json::from_str(&text).map_err(|error| WalletError::BadAnswer(format!("{:?} error", error.classify())))
    }

    fn end_streams(&self) {
        *lock(&self.news) = broadcast::Sender::new(NEWS_KEPT);
    }
}

/// Stops waiting for a response when dropped.
struct Forget<'a> {
    link: &'a Link,
    id: EventId,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        lock(&self.link.waiting).remove(&self.id);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
