//! TLS in front of a server, with a certificate that signs itself.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

/// The server's certificate.
pub(crate) const NODE_PEM: &[u8] = include_bytes!("../../../../tests/data/tls/node.pem");
const NODE_KEY: &[u8] = include_bytes!("../../../../tests/data/tls/node.key");

/// Somebody else's.
pub(crate) const OTHER_PEM: &[u8] = include_bytes!("../../../../tests/data/tls/other.pem");

/// Decrypts what comes and hands it to a server on loopback.
pub(crate) struct TlsFront {
    address: SocketAddr,
    _porter: AbortOnDropHandle<()>,
}

impl TlsFront {
    pub(crate) async fn open(server: SocketAddr) -> io::Result<Self> {
        let certificate = CertificateDer::from_pem_slice(NODE_PEM).unwrap();
        let key = PrivateKeyDer::from_pem_slice(NODE_KEY).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let porter = tokio::spawn(async move {
            let mut inside = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                inside.spawn(async move {
                    let _ = client.set_nodelay(true);
                    let Ok(mut client) = acceptor.accept(client).await else { return };
                    if let Ok(mut server) = TcpStream::connect(server).await {
                        let _ = server.set_nodelay(true);
                        let _ = copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
        Ok(Self { address, _porter: AbortOnDropHandle::new(porter) })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}
