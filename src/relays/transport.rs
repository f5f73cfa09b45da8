//! How websockets are opened: the host resolved once and pinned, small messages sent at once, huge ones never buffered.
//!
//! Relays in the configuration are the operator's choice and may stand anywhere. Any other (a customer named it) must lead
//! to a public address, judged after the name was resolved, and the connection goes to the address that was judged.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_wsocket::{ConnectionMode, Message, Url, WebSocket};
use futures::stream::{SplitSink, StreamExt, TryStreamExt};
use futures::{Sink, SinkExt};
use jiff::{SignedDuration, Timestamp};
use nostr::util::BoxedFuture;
use nostr_sdk::pool::transport::error::TransportError;
use nostr_sdk::pool::transport::websocket::{WebSocketSink, WebSocketStream, WebSocketTransport};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::client::Response;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::fetch::address;

/// Bytes a socket reads at once. A tenth of the default, because there may be many sockets and all of them are mostly idle.
const READ_BUFFER_BYTES: usize = 16 * 1024;

/// Bytes of one message beyond which the connection is closed, so that a relay can't fill our memory. Far above the limit
/// at which a message is merely dropped: a stored event that closes the connection would do so again after each reconnect,
/// and so shut us off from the relay.
const MAX_BUFFERED_BYTES: usize = 8 * 1024 * 1024;

/// Opens the pool's websockets.
#[derive(Debug)]
pub(super) struct Transport {
    /// The operator's own relays.
    trusted: HashSet<String>,
    allow_private: bool,
    connect_timeout: Duration,
    /// What came of the last attempt to connect to each trusted relay.
    meetings: Mutex<HashMap<String, Meeting>>,
}

/// What was learnt when connecting to a relay.
#[derive(Debug, Clone, Default)]
pub(super) struct Meeting {
    /// How far the server's clock is ahead of ours, if it told its time (HTTP `Date`).
    pub(super) skew: Option<SignedDuration>,
    /// Why there is no connection.
    pub(super) problem: Option<String>,
}

impl Transport {
    pub(super) fn new(
        trusted: impl IntoIterator<Item = String>,
        allow_private: bool,
        connect_timeout: Duration,
    ) -> Self {
        let trusted = trusted.into_iter().collect();
        Self { trusted, allow_private, connect_timeout, meetings: Mutex::default() }
    }

    /// What the last attempt to connect to a trusted relay taught.
    pub(super) fn meeting(&self, url: &str) -> Meeting {
        self.meetings.lock().unwrap_or_else(PoisonError::into_inner).get(url).cloned().unwrap_or_default()
    }

    fn remember(&self, url: &Url, meeting: Meeting) {
        // Only the operator's relays, so that strangers can't make this grow.
        if self.trusted.contains(url.as_str()) {
            self.meetings.lock().unwrap_or_else(PoisonError::into_inner).insert(url.to_string(), meeting);
        }
    }

    async fn open(&self, url: &Url) -> Result<WebSocket, TransportError> {
        let trusted = self.trusted.contains(url.as_str());
        let addresses = address::resolve(url, trusted || self.allow_private).await.map_err(TransportError::backend)?;
        let stream = connect_any(&addresses, self.connect_timeout).await.map_err(TransportError::backend)?;
        stream.set_nodelay(true).map_err(TransportError::backend)?;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(READ_BUFFER_BYTES)
            .max_message_size(Some(MAX_BUFFERED_BYTES))
            .max_frame_size(Some(MAX_BUFFERED_BYTES));
        let opening = tokio_tungstenite::client_async_tls_with_config(url.as_str(), stream, Some(config), None);
        let (socket, response) = Box::pin(opening).await.map_err(TransportError::backend)?;
        self.remember(url, Meeting { skew: server_skew(&response, Timestamp::now()), problem: None });
        Ok(WebSocket::Tokio(socket))
    }
}

impl WebSocketTransport for Transport {
    fn support_ping(&self) -> bool {
        true
    }

    fn connect<'a>(
        &'a self,
        url: &'a Url,
        _mode: &'a ConnectionMode,
        timeout: Duration,
    ) -> BoxedFuture<'a, Result<(WebSocketSink, WebSocketStream), TransportError>> {
        Box::pin(async move {
            let timeout = timeout.min(self.connect_timeout);
            let opened = tokio::time::timeout(timeout, self.open(url)).await;
            let socket = opened.map_err(TransportError::backend).flatten().inspect_err(|error| {
                tracing::debug!(relay = %url, %error, "No connection to {url}");
                self.remember(url, Meeting { skew: None, problem: Some(error.to_string()) });
            })?;
            let (sink, stream) = socket.split();
            let sink: WebSocketSink = Box::new(PlainSink(sink));
            let stream: WebSocketStream = Box::pin(stream.map_err(TransportError::backend));
            Ok((sink, stream))
        })
    }
}

/// Tries the addresses in turn, none of them so long that the next has no time left.
async fn connect_any(addresses: &[SocketAddr], timeout: Duration) -> io::Result<TcpStream> {
    let patience = timeout / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    let mut problem = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match tokio::time::timeout(patience, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => problem = error,
            Err(_) => problem = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(problem)
}

/// The `Date` header against our clock.
fn server_skew(response: &Response, now: Timestamp) -> Option<SignedDuration> {
    let date = response.headers().get("date")?.to_str().ok()?;
    let theirs = jiff::fmt::rfc2822::parse(date).ok()?.timestamp();
    Some(theirs.duration_since(now))
}

/// Translates errors. Not `sink_map_err`, which panics when polled after an error, as the library does.
struct PlainSink(SplitSink<WebSocket, Message>);

impl Sink<Message> for PlainSink {
    type Error = TransportError;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.0.poll_ready_unpin(cx).map_err(TransportError::backend)
    }

    fn start_send(mut self: Pin<&mut Self>, message: Message) -> Result<(), TransportError> {
        self.0.start_send_unpin(message).map_err(TransportError::backend)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.0.poll_flush_unpin(cx).map_err(TransportError::backend)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.0.poll_close_unpin(cx).map_err(TransportError::backend)
    }
}
