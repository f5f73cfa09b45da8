//! A wallet's news, as a stream that ends at the first error: whoever listens looks up and asks for another.
//!
//! Some servers answer a subscription only when there is something to tell, so that nobody could wait for it to be opened. The
//! task sends it at once and reads along; it ends with the stream it feeds.

use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::wallet::{InvoiceUpdate, WalletError};

/// News read ahead of whoever listens.
const READ_AHEAD: usize = 256;

/// What a subscription says: news, or why it ended.
pub(crate) type News = Result<InvoiceUpdate, WalletError>;

/// The news until the first error.
pub(crate) fn until_error(
    wallet: &'static str,
    news: impl Stream<Item = News> + Send + 'static,
) -> BoxStream<'static, InvoiceUpdate> {
    let said = news.scan((), move |(), said| {
        if let Err(error) = &said {
            tracing::debug!(wallet, %error, "The wallet's news broke off");
        }
        std::future::ready(said.ok())
    });
    said.boxed()
}

/// The news until the first error, asked for and read by a task of its own from now on.
pub(crate) fn told(
    wallet: &'static str,
    news: impl Stream<Item = News> + Send + 'static,
) -> BoxStream<'static, InvoiceUpdate> {
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    let mut news = until_error(wallet, news);
    let task = tokio::spawn(async move {
        while let Some(update) = news.next().await {
            // Nobody listens any more.
            if sender.send(update).await.is_err() {
                return;
            }
        }
    });
    let reading = (receiver, AbortOnDropHandle::new(task));
    stream::unfold(reading, |mut reading| async move { Some((reading.0.recv().await?, reading)) }).boxed()
}
