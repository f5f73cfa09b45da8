//! A wallet's news, read by a task of its own.
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

/// Reads `news` from now on. The stream ends at the first error: whoever listens looks up and asks for another.
pub(crate) fn told(
    wallet: &'static str,
    news: impl Stream<Item = News> + Send + 'static,
) -> BoxStream<'static, InvoiceUpdate> {
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    let task = tokio::spawn(async move {
        let mut news = std::pin::pin!(news);
        while let Some(said) = news.next().await {
            match said {
                // Nobody listens any more.
                Ok(update) if sender.send(update).await.is_err() => return,
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(wallet, %error, "The wallet's news broke off");
                    return;
                }
            }
        }
    });
    let reading = (receiver, AbortOnDropHandle::new(task));
    stream::unfold(reading, |mut reading| async move { Some((reading.0.recv().await?, reading)) }).boxed()
}
