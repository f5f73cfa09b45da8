//! Asking a model server over HTTP within bounds: every answer is bounded in size and time, redirects are not followed,
//! proxies not used, and the key is never shown. What a server says is not trusted: it may be the wrong program, half
//! started, or dying.

mod stream;

use std::fmt;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use url::Url;

pub use self::stream::{Events, Lines};
use super::InferenceError;

/// Bytes of a server's own words that are repeated to the operator.
const MOST_WORDS_BYTES: usize = 300;

/// How long an unused connection is kept. Usual servers (uvicorn under vLLM, llama.cpp's) close theirs after five seconds; who
/// asks at that very moment is told that the connection broke.
const KEEP_CONNECTION: Duration = Duration::from_secs(4);

/// Bounds of talking to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerOptions {
    /// How long a connection may take to come about.
    pub connect_timeout: Duration,
    /// How long a whole short answer may take (a list of models, a count of tokens).
    pub answer_timeout: Duration,
    /// How long a stream may be silent: until its first piece, and between two.
    pub silence: Duration,
    /// Bytes of a short answer, and of one line or event of a stream.
    pub max_body: usize,
}

impl Default for ServerOptions {
    /// Five seconds to connect, ten for an answer; two minutes of silence, in which a long prompt is read; 32 MiB, which a
    /// list of a whole vocabulary fits in.
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            answer_timeout: Duration::from_secs(10),
            silence: Duration::from_secs(120),
            max_body: 32 * 1024 * 1024,
        }
    }
}

/// Why a server gave no answer that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// It answered with an error.
    #[error("it answers {status}{}", said(.body))]
    Status {
        /// The HTTP status.
        status: StatusCode,
        /// What it said, bounded.
        body: Bytes,
    },
    /// No connection, or one that broke.
    #[error("{0}")]
    Broken(&'static str),
    /// Nothing came in time.
    #[error("nothing came within {} s", .0.as_secs())]
    Silent(Duration),
    /// More came than an answer may be.
    #[error("its answer is larger than {0} bytes")]
    TooLarge(usize),
    /// What came is not what was asked for.
    #[error("its answer is not of the form expected: {0}")]
    Garbage(&'static str),
}

impl From<Trouble> for InferenceError {
    /// For a server that says nothing more exact.
    fn from(trouble: Trouble) -> Self {
        match &trouble {
            Trouble::Status { status, .. } => match status.as_u16() {
                401 | 403 => Self::Unusable(format!("{trouble}; is its key right?")),
                429 | 503 => Self::Busy(trouble.to_string()),
                _ => Self::Backend(trouble.to_string()),
            },
            _ => Self::Backend(trouble.to_string()),
        }
    }
}

/// A server's own words, for the operator: one line, bounded, without control characters.
pub(super) fn words(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(MOST_WORDS_BYTES)]);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// What a server says went wrong, behind a colon: the message of the usual forms, or plain text. Other JSON and pages tell
/// people nothing.
fn said(body: &[u8]) -> String {
    let message = match serde_json::from_slice::<serde_json::Value>(body) {
        Ok(value) => {
            let error = value.get("error").unwrap_or(&value);
            let message = error.get("message").or_else(|| error.get("detail")).unwrap_or(error);
            message.as_str().map(|text| words(text.as_bytes()))
        }
        Err(_) if matches!(body.trim_ascii_start().first(), None | Some(b'<' | b'{' | b'[')) => None,
        Err(_) => Some(words(body)),
    };
    message.map_or_else(String::new, |message| format!(": {message}"))
}

/// A model server.
#[derive(Clone)]
pub struct Server {
    client: Client,
    base: Url,
    key: Option<HeaderValue>,
    options: ServerOptions,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("base", &self.base.as_str()).finish_non_exhaustive()
    }
}

impl Server {
    /// The server at `base`, whose paths begin below it, with a key for `Authorization: Bearer` when it wants one.
    ///
    /// # Errors
    /// [`InferenceError::Unusable`] when the address can't be a base, or the key can't stand in a header.
    pub fn new(base: &Url, key: Option<&SecretString>, options: ServerOptions) -> Result<Self, InferenceError> {
        let unusable = |what: &str| InferenceError::Unusable(what.to_owned());
        if base.cannot_be_a_base() || !matches!(base.scheme(), "http" | "https") {
            return Err(unusable("its address is no http:// or https:// address"));
        }
        let key = key.map(|key| {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose_secret()))
                .map_err(|_| unusable("its key holds characters that no key has"))?;
            value.set_sensitive(true);
            Ok::<_, InferenceError>(value)
        });
        let client = Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .referer(false)
            .connect_timeout(options.connect_timeout)
            .pool_idle_timeout(KEEP_CONNECTION)
            .user_agent(concat!("coinop/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|_| unusable("no HTTP client can be made here"))?;
        let mut base = base.clone();
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        Ok(Self { client, base, key: key.transpose()?, options })
    }

    /// Where it is.
    pub fn base(&self) -> &Url {
        &self.base
    }

    /// `GET path`, a short JSON answer. `path` begins without a slash.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Trouble> {
        parse(&self.answer(self.client.get(self.at(path)?), self.options.answer_timeout).await?)
    }

    /// `POST path` with a JSON body, a short JSON answer.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Trouble> {
        parse(&self.answer(self.posting(path, body)?, self.options.answer_timeout).await?)
    }

    /// The same, where the answer is the work itself: it may take as long as a stream may be silent.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn post_for_work<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Trouble> {
        parse(&self.answer(self.posting(path, body)?, self.options.silence).await?)
    }

    /// `POST path` with a JSON body, answered by lines (NDJSON). Dropping the stream closes the connection, which is how a
    /// server is told to stop.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn post_for_lines(&self, path: &str, body: &impl Serialize) -> Result<Lines, Trouble> {
        let response = self.begin(self.posting(path, body)?).await?;
        Ok(Lines::new(response, self.options.max_body, self.options.silence))
    }

    /// `POST path` with a JSON body, answered by server-sent events.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn post_for_events(&self, path: &str, body: &impl Serialize) -> Result<Events, Trouble> {
        let response = self.begin(self.posting(path, body)?).await?;
        Ok(Events::new(response, self.options.max_body, self.options.silence))
    }

    fn at(&self, path: &str) -> Result<Url, Trouble> {
        self.base.join(path).map_err(|_| Trouble::Broken("its address can't be put together"))
    }

    fn posting(&self, path: &str, body: &impl Serialize) -> Result<RequestBuilder, Trouble> {
        let body = serde_json::to_vec(body).expect("requests have string keys only");
        Ok(self.client.post(self.at(path)?).header(CONTENT_TYPE, "application/json").body(body))
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Trouble> {
        let request = match &self.key {
            Some(key) => request.header(AUTHORIZATION, key.clone()),
            None => request,
        };
        request.send().await.map_err(|error| broken(&error))
    }

    async fn answer(&self, request: RequestBuilder, patience: Duration) -> Result<Bytes, Trouble> {
        in_time(patience, async {
            let response = self.send(request).await?;
            let status = response.status();
            let body = whole(response, self.options.max_body).await?;
            if status.is_success() { Ok(body) } else { Err(Trouble::Status { status, body }) }
        })
        .await
    }

    /// Sends, and waits for the head of a stream: servers send it with the first piece.
    async fn begin(&self, request: RequestBuilder) -> Result<Response, Trouble> {
        let response = in_time(self.options.silence, self.send(request)).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = in_time(self.options.answer_timeout, whole(response, self.options.max_body)).await?;
        Err(Trouble::Status { status, body })
    }
}

/// Reads `T` out of an answer. The error never quotes it.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Trouble> {
    serde_json::from_slice(body).map_err(|error| {
        Trouble::Garbage(if error.is_data() { "a field is missing or wrong" } else { "it is no JSON" })
    })
}

async fn in_time<T>(patience: Duration, asked: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
    timeout(patience, asked).await.unwrap_or(Err(Trouble::Silent(patience)))
}

async fn whole(response: Response, limit: usize) -> Result<Bytes, Trouble> {
    let mut body = Vec::new();
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| broken(&error))?;
        if body.len() + chunk.len() > limit {
            return Err(Trouble::TooLarge(limit));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.into())
}

/// Why nothing came, in words of ours: the error's own name the address and may quote the server.
pub(super) fn broken(error: &reqwest::Error) -> Trouble {
    Trouble::Broken(if error.is_connect() {
        "no connection to it: is it running?"
    } else if error.is_timeout() {
        "it took too long"
    } else {
        "the connection broke"
    })
}
