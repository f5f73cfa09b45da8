//! A gate in front of a server: what goes through can be cut at any moment, as a network does.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

/// Forwards TCP connections to a server on loopback. Dropping it closes the gate and cuts everything.
#[derive(Debug)]
pub struct Gate {
    address: SocketAddr,
    passing: Arc<Mutex<JoinSet<()>>>,
    _porter: AbortOnDropHandle<()>,
}

impl Gate {
    /// Opens a gate to `server` on a port of its own.
    ///
    /// # Errors
    /// When there is no port to listen on.
    pub async fn open(server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let passing = Arc::new(Mutex::new(JoinSet::new()));
        let admitted = Arc::clone(&passing);
        let porter = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                admitted.lock().unwrap_or_else(PoisonError::into_inner).spawn(forward(client, server));
            }
        });
        Ok(Self { address, passing, _porter: AbortOnDropHandle::new(porter) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts every connection there is. New ones are let through.
    pub fn cut(&self) {
        self.passing.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }
}

async fn forward(mut client: TcpStream, server: SocketAddr) {
    if let Ok(mut server) = TcpStream::connect(server).await {
        // Small messages must not wait for each other.
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let _ = copy_bidirectional(&mut client, &mut server).await;
    }
}
