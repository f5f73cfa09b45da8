//! Hints over a websocket: that something happened to an invoice. What happened is looked up.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::client_async_tls_with_config;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::Uri;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::caller::{Caller, in_time};
use crate::wallet::{PaymentHash, WalletError};

/// Bytes of a message. One tells of one payment.
const MAX_MESSAGE: usize = 256 * 1024;

/// Silence after which the connection counts as dead. The servers ping every 10 or 20 seconds.
const MAX_SILENCE: Duration = Duration::from_secs(90);

/// The payment hashes that the websocket at `path` names from now on, as far as `read` finds any in a message. With
/// `credential` the secret is sent along. Ends when the connection does.
pub(crate) async fn hints(
    caller: &Caller,
    path: &str,
    credential: bool,
    read: fn(&str) -> Option<PaymentHash>,
) -> Result<BoxStream<'static, PaymentHash>, WalletError> {
    let mut url = caller.endpoint().at(path, &[]);
    let scheme = if caller.endpoint().is_plain() { "ws" } else { "wss" };
    url.set_scheme(scheme).map_err(|()| WalletError::Internal("the address has no websocket form".into()))?;
    let uri: Uri =
        url.as_str().parse().map_err(|_| WalletError::Internal("the address has no websocket form".into()))?;
    let mut request = uri.into_client_request().map_err(|error| failure(&error))?;
    if credential {
        request.headers_mut().insert(caller.credential().name(), caller.credential().value().clone());
    }
    let opened = async {
        let addresses = caller.endpoint().addresses().await;
        let stream = TcpStream::connect(addresses.as_slice())
            .await
            .map_err(|_| WalletError::Unreachable("no connection to it".into()))?;
        let config = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
        client_async_tls_with_config(request, stream, Some(config), None).await.map_err(|error| failure(&error))
    };
    let (socket, _) = in_time(caller.options().request_timeout, opened).await?;
    let named = stream::unfold(socket, move |mut socket| async move {
        loop {
            // Reading answers pings by itself.
            match timeout(MAX_SILENCE, socket.next()).await {
                Ok(Some(Ok(Message::Text(text)))) => {
                    if let Some(hash) = read(text.as_str()) {
                        return Some((hash, socket));
                    }
                }
                Ok(Some(Ok(Message::Close(_)) | Err(_)) | None) | Err(_) => return None,
                Ok(Some(Ok(_))) => {}
            }
        }
    });
    Ok(named.boxed())
}

/// Why there is no websocket, without anybody's own words.
fn failure(error: &Error) -> WalletError {
    match error {
        Error::Http(response) if matches!(response.status().as_u16(), 401 | 403) => {
            WalletError::Unauthorized("its news are not for this secret".into())
        }
        Error::Http(response) => {
            WalletError::Unreachable(format!("its websocket answers with status {}", response.status().as_u16()))
        }
        Error::Tls(_) => WalletError::Unreachable("its TLS certificate is not one that is trusted".into()),
        _ => WalletError::Unreachable("no websocket to it".into()),
    }
}
