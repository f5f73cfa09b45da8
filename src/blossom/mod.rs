//! Blossom: files on servers that keep them by their SHA-256 (BUD-01, BUD-02), for results that no event has room for.
//!
//! Whoever uploads knows the hash before, so a server can neither change a file nor mix two up: what it says of a file is
//! compared with what was sent, and what is fetched with what was promised. A server sees what it keeps, and anybody who knows
//! the hash can have it: what nobody may read yet, or only one, is put there [`sealed`].

use std::fmt;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bitcoin::hashes::{Hash, sha256};
use bytes::Bytes;
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode};
use serde::Deserialize;
use url::Url;

use crate::fetch::{FetchError, Fetcher};
use crate::nip90::Codec;
pub use crate::nip90::{Blob, SEALED_WITH, Seal};

mod sealed;

/// How long a permit to upload is good for: a slow upload, and clocks that differ.
const PERMIT_LIFE: SignedDuration = SignedDuration::from_mins(10);

/// How much earlier than now a permit is dated: servers refuse what was signed after their own clock.
const PERMIT_SLACK: SignedDuration = SignedDuration::from_secs(30);

/// How much larger a file is when it is sealed.
pub const SEAL_BYTES: u64 = 16;

/// Attempts to upload, when a server may just be busy.
const ATTEMPTS: usize = 3;

/// Bytes of what a server says of a file.
const MAX_ANSWER_BYTES: usize = 16 * 1024;

/// Bytes of a server's reason that are kept for the log.
const MAX_REASON_BYTES: usize = 200;

/// Where a server says why not, in the spellings of several years.
const REASON_HEADERS: [&str; 3] = ["x-reason", "blossom-upload-message", "x-upload-error"];

/// The name of a file that nobody has: no content has this hash that anybody knows of.
const NO_FILE: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Why a file is not there, or not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BlossomError {
    /// The configured address is none.
    #[error(
        "a file server's address begins with https:// (or http://) and holds no user name, password, query or fragment"
    )]
    BadServer,
    /// No connection, or it broke off.
    #[error("the file server can't be reached")]
    Unreachable,
    /// Took too long.
    #[error("the file server took longer than {} s", .limit.as_secs())]
    Timeout {
        /// Time allowed.
        limit: Duration,
    },
    /// More than is put there, or fetched.
    #[error("the file has {bytes} bytes, more than the {limit} that are taken")]
    TooLarge {
        /// Bytes it has.
        bytes: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// The server does not take it.
    #[error("the file server answers with status {status}: {reason}")]
    Refused {
        /// Its status.
        status: u16,
        /// Its words, as far as they can be printed.
        reason: String,
    },
    /// The server says something that is none of its answers.
    #[error("the file server's answer can't be read")]
    BadAnswer,
    /// The server says, or gives, something else than was put there or promised.
    #[error("the file server has another file than it should")]
    OtherFile,
    /// The permit could not be signed.
    #[error("the permit to upload could not be signed")]
    Unsigned,
    /// The file could not be sealed, or not be looked at.
    #[error("the file could not be encrypted or checked")]
    Cipher,
    /// The file could not be fetched.
    #[error(transparent)]
    NotFetched(#[from] FetchError),
}

impl BlossomError {
    /// Whether trying again soon may help.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable | Self::Timeout { .. } => true,
            Self::Refused { status, .. } => matches!(status, 408 | 425 | 429 | 500..),
            _ => false,
        }
    }

    /// Whether something was had that is not what was promised, or what was promised can't be; else nothing was had.
    pub fn is_another(&self) -> bool {
        match self {
            Self::OtherFile | Self::BadAnswer | Self::Cipher => true,
            Self::BadServer
            | Self::Unreachable
            | Self::Timeout { .. }
            | Self::TooLarge { .. }
            | Self::Refused { .. }
            | Self::Unsigned
            | Self::NotFetched(_) => false,
        }
    }

    /// Whether nothing was fetched because the address is none of a public host.
    pub fn is_not_public(&self) -> bool {
        matches!(self, Self::NotFetched(FetchError::NotPublic))
    }
}

/// A server, and what it is used for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlossomConfig {
    /// Where it is.
    pub server: Url,
    /// Bytes of the largest file that is put there.
    pub max_bytes: u64,
    /// Time for one upload.
    pub timeout: Duration,
}

impl BlossomConfig {
    /// That server with usual bounds: 64 MiB, a minute.
    pub fn new(server: Url) -> Self {
        Self { server, max_bytes: 64 * 1024 * 1024, timeout: Duration::from_secs(60) }
    }
}

/// One server, and our key that it knows us by.
#[derive(Clone)]
pub struct Blossom {
    client: Client,
    upload: Url,
    config: BlossomConfig,
    codec: Codec,
}

impl fmt::Debug for Blossom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blossom").field("config", &self.config).finish_non_exhaustive()
    }
}

/// What a server says of a file it has taken.
#[derive(Deserialize)]
struct Descriptor {
    url: String,
    sha256: String,
    size: u64,
}

impl Blossom {
    /// Uploads to that server as the codec's key. The process must have a default rustls provider (`main` installs it).
    ///
    /// # Errors
    /// When the address is none, or no client can be made.
    pub fn new(config: BlossomConfig, codec: Codec) -> Result<Self, BlossomError> {
        let server = &config.server;
        let clean = server.username().is_empty() && server.password().is_none();
        let plain = clean && server.query().is_none() && server.fragment().is_none() && server.has_host();
        if !plain || !matches!(server.scheme(), "http" | "https") {
            return Err(BlossomError::BadServer);
        }
        let mut upload = server.clone();
        upload.path_segments_mut().map_err(|()| BlossomError::BadServer)?.pop_if_empty().push("upload");
        let client = Client::builder()
            .no_proxy()
            // A file that is put elsewhere than the operator chose is put nowhere.
            .redirect(Policy::none())
            .referer(false)
            .connect_timeout(config.timeout)
            .user_agent(concat!("coinop/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|_| BlossomError::Unreachable)?;
        Ok(Self { client, upload, config, codec })
    }

    /// Whether there is a server: it is asked for a file that nobody has, and any answer will do. Returns its status.
    ///
    /// # Errors
    /// When nobody answers within the limit.
    pub async fn answers(&self, limit: Duration) -> Result<u16, BlossomError> {
        let mut nothing = self.upload.clone();
        nothing.path_segments_mut().map_err(|()| BlossomError::BadServer)?.pop().push(NO_FILE);
        let asking = self.client.head(nothing).send();
        match tokio::time::timeout(limit, asking).await {
            Ok(Ok(response)) => Ok(response.status().as_u16()),
            Ok(Err(_)) => Err(BlossomError::Unreachable),
            Err(_) => Err(BlossomError::Timeout { limit }),
        }
    }

    /// Bytes of the largest file that is put there.
    pub fn max_bytes(&self) -> u64 {
        self.config.max_bytes
    }

    /// Puts a file there. Safe to do again: it is known by its hash.
    ///
    /// # Errors
    /// When the server does not take it, or says it has something else.
    pub async fn upload(&self, content: impl Into<Bytes>, media_type: &str) -> Result<Blob, BlossomError> {
        let content: Bytes = content.into();
        let bytes = content.len() as u64;
        if bytes > self.config.max_bytes {
            return Err(BlossomError::TooLarge { bytes, limit: self.config.max_bytes });
        }
        let sha256 = blocking({
            let content = content.clone();
            move || sha256::Hash::hash(&content).to_string()
        })
        .await?;
        let limit = self.config.timeout;
        let attempt = || async {
            let uploading = self.upload_once(content.clone(), &sha256, media_type);
            tokio::time::timeout(limit, uploading).await.unwrap_or(Err(BlossomError::Timeout { limit }))
        };
        attempt
            .retry(ExponentialBuilder::default().with_jitter().with_max_times(ATTEMPTS - 1))
            .sleep(tokio::time::sleep)
            .when(BlossomError::is_passing)
            .await
    }

    /// Puts a file there that nobody can read who is not told the seal in the answer. Each time is another file.
    ///
    /// # Errors
    /// As [`Blossom::upload`], and when it can't be sealed.
    pub async fn upload_sealed(&self, content: Vec<u8>) -> Result<Blob, BlossomError> {
        let (sealed, seal) = blocking(move || sealed::seal(content)).await??;
        let blob = self.upload(sealed, "application/octet-stream").await?;
        Ok(Blob { seal: Some(seal), ..blob })
    }

    async fn upload_once(&self, content: Bytes, sha256: &str, media_type: &str) -> Result<Blob, BlossomError> {
        let size = content.len() as u64;
        let response = self
            .client
            .put(self.upload.clone())
            .header(AUTHORIZATION, self.permit(sha256)?)
            .header(CONTENT_TYPE, media_type)
            .header("x-sha-256", sha256)
            .body(content)
            .send()
            .await
            .map_err(|_| BlossomError::Unreachable)?;
        let status = response.status();
        if !status.is_success() {
            return Err(refused(status, &response));
        }
        let told: Descriptor = serde_json::from_slice(&answer(response).await?).map_err(|_| BlossomError::BadAnswer)?;
        let blob = Blob::told(&told.url, &told.sha256, told.size).ok_or(BlossomError::BadAnswer)?;
        if blob.sha256 == sha256 && blob.size == size { Ok(blob) } else { Err(BlossomError::OtherFile) }
    }

    fn permit(&self, sha256: &str) -> Result<String, BlossomError> {
        let now = Timestamp::now();
        let (from, until) = (now.checked_sub(PERMIT_SLACK), now.checked_add(PERMIT_LIFE));
        let (Ok(from), Ok(until)) = (from, until) else { return Err(BlossomError::Unsigned) };
        let permit = self.codec.upload_permit(sha256, from, until).map_err(|_| BlossomError::Unsigned)?;
        Ok(format!("Nostr {}", STANDARD.encode(permit.json)))
    }
}

/// Fetches a file that somebody told of, and opens it when it is sealed: under the rules for strangers' addresses, and only
/// when it is what was promised.
///
/// # Errors
/// When it is larger than the fetcher takes, can't be had, or is another one.
pub async fn fetch(fetcher: &Fetcher, blob: &Blob) -> Result<Vec<u8>, BlossomError> {
    let limit = fetcher.max_bytes() as u64;
    if blob.size > limit {
        return Err(BlossomError::TooLarge { bytes: blob.size, limit });
    }
    let content = match fetcher.at_most(blob.size).fetch_bytes(&blob.url).await {
        // Larger than was promised.
        Err(FetchError::TooLarge { .. }) => return Err(BlossomError::OtherFile),
        fetched => fetched?,
    };
    let blob = blob.clone();
    let checked = move || {
        let is_it = content.len() as u64 == blob.size && sha256::Hash::hash(&content).to_string() == blob.sha256;
        match &blob.seal {
            _ if !is_it => Err(BlossomError::OtherFile),
            Some(seal) => sealed::open(&content, seal),
            None => Ok(content),
        }
    };
    blocking(checked).await?
}

/// Hashes and ciphers of large files take longer than other tasks may wait.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, BlossomError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| BlossomError::Cipher)
}

/// The server's own words are for the operator's log: cut, and without what can't be printed.
fn refused(status: StatusCode, response: &Response) -> BlossomError {
    let said = REASON_HEADERS.iter().find_map(|name| response.headers().get(*name));
    let reason = said.map_or_else(|| "no reason given".into(), |value| String::from_utf8_lossy(value.as_bytes()));
    let printable = reason.chars().filter(|c| !c.is_control()).take(MAX_REASON_BYTES).collect();
    BlossomError::Refused { status: status.as_u16(), reason: printable }
}

async fn answer(response: Response) -> Result<Vec<u8>, BlossomError> {
    let mut body = Vec::new();
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| BlossomError::Unreachable)?;
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(BlossomError::BadAnswer);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

#[cfg(test)]
mod tests;
