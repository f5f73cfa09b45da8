//! A door for websockets: connections that ask for one are taken here, all others go through to the HTTP server.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures::{SinkExt, StreamExt};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_util::task::AbortOnDropHandle;

use super::{Backing, WalletServer};
use crate::wallet::{InvoiceUpdate, Wallet};

/// Bytes of a request that are looked at to find its path.
const HEAD: usize = 512;

/// What is particular about a server's websocket.
pub(super) struct Door {
    /// Where it is.
    pub(super) path: String,
    /// The header that opens it, if there is one.
    pub(super) authorization: Option<String>,
    /// What is said of an invoice, if anything.
    pub(super) say: fn(&Backing, &InvoiceUpdate) -> Option<String>,
}

/// Opens the door in front of `server`, which is reached through it from then on.
pub(super) async fn open(mut server: WalletServer, door: Door) -> io::Result<WalletServer> {
    let behind = server.address;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    server.address = listener.local_addr()?;
    let (backing, door) = (Arc::clone(&server.backing), Arc::new(door));
    let porter = tokio::spawn(async move {
        // They end with the porter.
        let mut inside = JoinSet::new();
        while let Ok((client, _)) = listener.accept().await {
            inside.spawn(let_in(client, behind, Arc::clone(&backing), Arc::clone(&door)));
        }
    });
    server._tasks.push(AbortOnDropHandle::new(porter));
    Ok(server)
}

async fn let_in(mut client: TcpStream, behind: SocketAddr, backing: Arc<Backing>, door: Arc<Door>) {
    let _ = client.set_nodelay(true);
    let mut head = [0; HEAD];
    let Ok(read) = client.peek(&mut head).await else { return };
    if String::from_utf8_lossy(&head[..read]).starts_with(&format!("GET {} ", door.path)) {
        tell(client, &backing, &door).await;
    } else if let Ok(mut server) = TcpStream::connect(behind).await {
        let _ = server.set_nodelay(true);
        let _ = copy_bidirectional(&mut client, &mut server).await;
    }
}

async fn tell(client: TcpStream, backing: &Arc<Backing>, door: &Door) {
    // Listening first: what happens after the handshake is told.
    let Ok(mut news) = backing.wallet.updates().await else { return };
    #[expect(clippy::result_large_err, reason = "the library's own type")]
    let check = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        let found = request.headers().get("authorization").and_then(|value| value.to_str().ok());
        if door.authorization.is_none() || found == door.authorization.as_deref() {
            Ok(response)
        } else {
            let mut refused = ErrorResponse::new(None);
            *refused.status_mut() = axum::http::StatusCode::UNAUTHORIZED;
            Err(refused)
        }
    };
    let Ok(mut socket) = accept_hdr_async(client, check).await else { return };
    let _listener = backing.listen();
    loop {
        tokio::select! {
            update = news.next() => {
                let Some(update) = update else { return };
                if let Some(text) = (door.say)(backing, &update)
                    && socket.send(Message::text(text)).await.is_err()
                {
                    return;
                }
            }
            heard = socket.next() => if !matches!(heard, Some(Ok(_))) { return },
        }
    }
}
