//! stub
use super::*;
use futures::Stream;
use tokio_util::sync::CancellationToken;
/// x
pub enum WatchEvent {
    /// x
    Update(InvoiceUpdate),
    /// x
    Reconnected,
}
/// x
pub fn updates(
    _wallet: std::sync::Arc<dyn Wallet>,
    _shutdown: CancellationToken,
) -> impl Stream<Item = WatchEvent> + Send {
    futures::stream::pending()
}
