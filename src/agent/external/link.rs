//! The link to a cell: the relay that runs there, and the connections that come out of it.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::codec::FramedRead;

use super::connections::Connections;
use super::frame::{Broken, Frames, Kind, MOST_CARRIED, VERSION, put};
use crate::sandbox::Pipe;

/// The relay, a program for Python 3 that needs nothing but its standard library.
const RELAY: &str = include_str!("relay.py");

/// Where it listens in the cell. Nobody else is in that network.
pub(super) const PORT: u16 = 41_011;

/// Where it puts files, outside the workspace.
pub(super) const FOLDER: &str = "/tmp/coinop-agent";

/// The program for [`crate::sandbox::Cell::pipe`].
pub(super) fn relay() -> Vec<String> {
    ["python3", "-I", "-c", RELAY, &PORT.to_string(), FOLDER].map(str::to_owned).into()
}

type Shared = Arc<Mutex<Connections>>;

fn locked(shared: &Shared) -> MutexGuard<'_, Connections> {
    // Nothing in here panics between two changes that belong together.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A relay that listens.
pub(super) struct Link {
    stdin: Box<dyn AsyncWrite + Send + Unpin>,
    frames: FramedRead<Box<dyn AsyncRead + Send + Unpin>, Frames>,
    connections: Shared,
}

/// Ends the agent of a link.
#[derive(Debug, Clone)]
pub(super) struct Stopper(Shared);

impl Stopper {
    /// Asks the relay to end the agent.
    pub(super) fn stop(&self) {
        locked(&self.0).send(Kind::Stop, 0, &[]);
    }
}

impl Link {
    /// Hands the instructions to a relay that was just started and waits until it listens. It may say `most` bytes in all.
    pub(super) async fn open(pipe: Pipe, instructions: &str, patience: Duration, most: u64) -> Result<Self, Broken> {
        let Pipe { mut stdin, stdout } = pipe;
        let mut frames = FramedRead::new(stdout, Frames);
        let greeting = async {
            let mut told = BytesMut::new();
            // Also when there are none: the file is there.
            let pieces = instructions.as_bytes().chunks(MOST_CARRIED).chain(instructions.is_empty().then_some(&[][..]));
            for piece in pieces {
                put(&mut told, Kind::File, 0, piece);
            }
            put(&mut told, Kind::Start, 0, &[]);
            stdin.write_all(&told).await?;
            stdin.flush().await?;
            let hello = frames.next().await.ok_or(Broken::Closed)??;
            if hello.kind != Kind::Hello || hello.carried[..] != [VERSION] {
                return Err(Broken::OutOfPlace("it does not say hello"));
            }
            Ok(())
        };
        timeout(patience, greeting).await.unwrap_or(Err(Broken::Closed))?;
        Ok(Self { stdin, frames, connections: Arc::new(Mutex::new(Connections::new(most))) })
    }

    pub(super) fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.connections))
    }

    /// Serves the connections, all in this task, until the relay is gone or says what can't be.
    pub(super) async fn serve(self, answer: impl Fn(Wire) -> BoxFuture<'static, ()> + Send + Sync) -> Broken {
        let Self { mut stdin, mut frames, connections } = self;
        let _closed = Closing(Arc::clone(&connections));
        let (opened, mut opening) = mpsc::unbounded_channel();
        let reading = async {
            loop {
                poll_fn(|cx| locked(&connections).poll_room(cx)).await;
                let frame = match frames.next().await {
                    None => return Broken::Closed,
                    Some(Err(broken)) => return broken,
                    Some(Ok(frame)) => frame,
                };
                let taken = locked(&connections).take(&frame);
                match taken {
                    Ok(None) => {}
                    // As many as can be open wait here at most.
                    Ok(Some(id)) => drop(opened.send(id)),
                    Err(broken) => return broken,
                }
            }
        };
        let writing = async {
            loop {
                let waiting = poll_fn(|cx| locked(&connections).poll_waiting(cx)).await;
                let written = async {
                    stdin.write_all(&waiting).await?;
                    stdin.flush().await
                };
                if let Err(error) = written.await {
                    return Broken::Pipe(error);
                }
            }
        };
        let answering = async {
            let mut running = FuturesUnordered::new();
            loop {
                tokio::select! {
                    Some(id) = opening.recv() => running.push(answer(Wire { connections: Arc::clone(&connections), id })),
                    Some(()) = running.next() => {}
                }
            }
        };
        tokio::select! {
            broken = reading => broken,
            broken = writing => broken,
            () = answering => Broken::Closed,
        }
    }
}

/// Tells every connection that nobody is there any more, however serving ended.
struct Closing(Shared);

impl Drop for Closing {
    fn drop(&mut self) {
        locked(&self.0).close();
    }
}

/// A connection of a program in the cell. Dropped, it is closed.
pub(super) struct Wire {
    connections: Shared,
    id: u32,
}

impl Drop for Wire {
    fn drop(&mut self) {
        locked(&self.connections).forget(self.id);
    }
}

fn gone() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

impl Read for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, mut into: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let read = std::task::ready!(locked(&self.connections).poll_read(self.id, into.remaining(), cx));
        Poll::Ready(read.map(|bytes| into.put_slice(&bytes)).ok_or_else(gone))
    }
}

impl Write for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        locked(&self.connections).poll_write(self.id, bytes, cx).map(|written| written.ok_or_else(gone))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        locked(&self.connections).end(self.id);
        Poll::Ready(Ok(()))
    }
}
