//! Answers that come in pieces: lines of JSON, or server-sent events. Both survive being cut anywhere by the network, hold
//! at most one piece, and end with an error when nothing comes for too long.

use std::fmt;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use reqwest::Response;
use sse_stream::SseByteStream;
use tokio::time::timeout;
use tokio_util::codec::{FramedRead, LinesCodec, LinesCodecError};
use tokio_util::io::StreamReader;

use super::{Trouble, broken};

/// Lines of JSON (NDJSON).
pub struct Lines(Pieces);

/// The data of server-sent events.
pub struct Events(Pieces);

struct Pieces {
    pieces: BoxStream<'static, Result<String, Trouble>>,
    silence: Duration,
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lines")
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Events")
    }
}

impl Lines {
    pub(super) fn new(response: Response, limit: usize, silence: Duration) -> Self {
        let bytes = response.bytes_stream().map_err(|error| io::Error::other(broken(&error)));
        let lines = FramedRead::new(StreamReader::new(bytes), LinesCodec::new_with_max_length(limit));
        let pieces = lines.map_err(move |error| match error {
            LinesCodecError::MaxLineLengthExceeded => Trouble::TooLarge(limit),
            LinesCodecError::Io(error) => told(error),
        });
        Self(Pieces { pieces: pieces.boxed(), silence })
    }

    /// The next line that is not blank; `None` when the server ended the stream.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn next(&mut self) -> Result<Option<String>, Trouble> {
        self.0.next().await
    }
}

impl Events {
    pub(super) fn new(response: Response, limit: usize, silence: Duration) -> Self {
        let bytes = response.bytes_stream().map_err(|error| io::Error::other(broken(&error)));
        let (mut open, mut at_line_start) = (0_usize, true);
        // The decoder keeps an event until it ends. Between two blank lines at most `limit` bytes may come, however they
        // are cut.
        let bounded = bytes.map(move |chunk: io::Result<Bytes>| {
            let chunk = chunk?;
            for byte in &chunk {
                open = if *byte == b'\n' && at_line_start { 0 } else { open.saturating_add(1) };
                at_line_start = *byte == b'\n' || (*byte == b'\r' && at_line_start);
            }
            if open > limit { Err(io::Error::other(Trouble::TooLarge(limit))) } else { Ok(chunk) }
        });
        let events = SseByteStream::new(bounded);
        let pieces = events.filter_map(|event| async {
            match event {
                Ok(event) => event.data.map(Ok),
                Err(sse_stream::Error::Body(error)) => Some(Err(error
                    .downcast::<io::Error>()
                    .map_or(Trouble::Broken("the connection broke"), |error| told(*error)))),
                Err(_) => Some(Err(Trouble::Garbage("it is no stream of events"))),
            }
        });
        Self(Pieces { pieces: pieces.boxed(), silence })
    }

    /// The next event's data that is not blank; `None` when the server ended the stream.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn next(&mut self) -> Result<Option<String>, Trouble> {
        self.0.next().await
    }
}

impl Pieces {
    async fn next(&mut self) -> Result<Option<String>, Trouble> {
        let silence = self.silence;
        let next = async {
            loop {
                match self.pieces.next().await {
                    Some(Ok(piece)) if piece.trim().is_empty() => {}
                    other => return other.transpose(),
                }
            }
        };
        timeout(silence, next).await.unwrap_or(Err(Trouble::Silent(silence)))
    }
}

/// The trouble that went through a reader as an error of its kind.
fn told(error: io::Error) -> Trouble {
    if error.kind() == io::ErrorKind::InvalidData {
        return Trouble::Garbage("it is no UTF-8");
    }
    error
        .into_inner()
        .and_then(|inner| inner.downcast::<Trouble>().ok())
        .map_or(Trouble::Broken("the connection broke"), |trouble| *trouble)
}
