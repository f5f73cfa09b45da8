//! Git's own protocol (`git://`): a connection to an address that was looked up once and is public.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use gix_transport::Protocol;
use gix_transport::client::blocking_io::Transport;
use gix_transport::client::git::ConnectMode;
use gix_transport::client::git::blocking_io::Connection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use url::Url;

use super::RepositoryError;
use super::remote::Rules;
use super::watch::Watch;
use crate::fetch::address;

/// Connects to the host, to ask for what lies at `path`.
pub(super) fn connect(
    watch: &Arc<Watch>,
    host: &Url,
    path: &str,
    rules: Rules,
) -> Result<Box<dyn Transport>, RepositoryError> {
    let addresses = watch.wait(address::resolve_by(host, rules.may_connect))??;
    let (read, write) = watch.wait(first_that_answers(&addresses))?.ok_or(RepositoryError::Unreachable)?.into_split();
    let name = (host.host_str().unwrap_or_default().to_owned(), host.port());
    let (read, write) = (Incoming { watch: Arc::clone(watch), read }, Outgoing { watch: Arc::clone(watch), write });
    Ok(Box::new(Connection::new(read, write, Protocol::V2, path, Some(name), ConnectMode::Daemon, false)))
}

async fn first_that_answers(addresses: &[SocketAddr]) -> Option<TcpStream> {
    for address in addresses {
        if let Ok(stream) = TcpStream::connect(address).await {
            return Some(stream);
        }
    }
    None
}

struct Incoming {
    watch: Arc<Watch>,
    read: OwnedReadHalf,
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.watch.wait(self.read.read(buffer)).map_err(|cause| self.watch.end(cause))?;
        let read = read.map_err(|_| self.watch.end(RepositoryError::Unreachable))?;
        self.watch.count(read).map_err(|cause| self.watch.end(cause))?;
        Ok(read)
    }
}

struct Outgoing {
    watch: Arc<Watch>,
    write: OwnedWriteHalf,
}

impl Write for Outgoing {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.watch.wait(self.write.write(buffer)).map_err(|cause| self.watch.end(cause))?;
        written.map_err(|_| self.watch.end(RepositoryError::Unreachable))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
