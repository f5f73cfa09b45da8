//! Asking a server within bounds: one answer, or a stream of lines.

use std::error::Error as _;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use url::form_urlencoded;

use super::HttpOptions;
use super::endpoint::{Endpoint, EndpointError, PrivateOnly};
use crate::wallet::WalletError;
use crate::wallet::words::spoken;

/// How often an idle connection is asked whether it still is one: a stream that broke without a word ends within a few
/// of these.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// The header that opens the wallet. Never shown.
#[derive(Clone)]
pub(crate) struct Credential {
    name: HeaderName,
    value: HeaderValue,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({})", self.name)
    }
}

impl Credential {
    /// A header of that name. `None` when the secret can't stand in a header, which no genuine one can't.
    pub(crate) fn header(name: &'static str, secret: &SecretString) -> Option<Self> {
        let mut value = HeaderValue::from_str(secret.expose_secret()).ok()?;
        value.set_sensitive(true);
        Some(Self { name: HeaderName::from_static(name), value })
    }

    pub(super) fn name(&self) -> &HeaderName {
        &self.name
    }

    pub(super) fn value(&self) -> &HeaderValue {
        &self.value
    }
}

/// What a server answered. Its body is never shown: it may hold preimages.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    body: Vec<u8>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answer({}, {} bytes)", self.status, self.body.len())
    }
}

impl Answer {
    /// The body as `T`.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, WalletError> {
        parse(&self.body)
    }

    /// The body as words to show.
    pub(crate) fn words(&self) -> String {
        spoken(&String::from_utf8_lossy(&self.body))
    }

    /// What a status means where the server says nothing more exact. A "not found" is not one of an invoice: it may be
    /// that of a wrong address.
    pub(crate) fn failure(&self, words: String) -> WalletError {
        match self.status.as_u16() {
            401 | 403 => WalletError::Unauthorized(words),
            // Not heard in time, or the connection was given up on: what happened is not known.
            408 | 499 => WalletError::Internal(words),
            429 => WalletError::RateLimited,
            400..=498 => WalletError::Refused(words),
            500.. => WalletError::Internal(words),
            status => WalletError::BadAnswer(format!("it answers with status {status}")),
        }
    }
}

/// Reads `T` out of a body. The error never quotes it.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, WalletError> {
    serde_json::from_slice(body).map_err(|error| {
        let kind = if error.is_data() { "it is not of the form expected" } else { "it is no JSON" };
        WalletError::BadAnswer(kind.into())
    })
}

/// Asks one server, with the secret.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    client: Client,
    endpoint: Endpoint,
    credential: Credential,
    options: HttpOptions,
}

impl Caller {
    /// For an interface.
    pub(crate) fn new(
        endpoint: Endpoint,
        credential: Option<Credential>,
        options: HttpOptions,
    ) -> Result<Self, WalletError> {
        let credential =
            credential.ok_or_else(|| WalletError::Unauthorized("its secret holds characters no secret has".into()))?;
        let builder = Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .referer(false)
            .connect_timeout(options.request_timeout)
            .tcp_keepalive(KEEPALIVE)
            .user_agent(concat!("coinop/", env!("CARGO_PKG_VERSION")));
        let builder = match endpoint.pin() {
            Some(pin) => builder.use_preconfigured_tls(pin.client()),
            None => builder,
        };
        let builder = if endpoint.is_plain() { builder.dns_resolver(Arc::new(PrivateOnly)) } else { builder };
        let client = builder.build().map_err(|_| WalletError::Internal("no HTTP client can be made here".into()))?;
        Ok(Self { client, endpoint, credential, options })
    }

    pub(crate) fn options(&self) -> HttpOptions {
        self.options
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(crate) fn credential(&self) -> &Credential {
        &self.credential
    }

    /// `GET path?query`.
    pub(crate) async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Answer, WalletError> {
        self.answer(self.getting(path, query), self.options.request_timeout).await
    }

    /// `POST path` with a JSON body.
    pub(crate) async fn post(&self, path: &str, body: &impl Serialize) -> Result<Answer, WalletError> {
        self.post_within(path, body, self.options.request_timeout).await
    }

    /// `POST path` with a JSON body, for an answer that takes long.
    pub(crate) async fn post_within(
        &self,
        path: &str,
        body: &impl Serialize,
        patience: Duration,
    ) -> Result<Answer, WalletError> {
        self.answer(self.posting(path, body), patience).await
    }

    /// `POST path` with a form, for an answer that takes that long.
    pub(crate) async fn post_form(
        &self,
        path: &str,
        fields: &[(&str, &str)],
        patience: Duration,
    ) -> Result<Answer, WalletError> {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let request = self.client.post(self.endpoint.at(path, &[])).body(body);
        self.answer(request.header(CONTENT_TYPE, "application/x-www-form-urlencoded"), patience).await
    }

    /// `GET path?query`, answered by lines for as long as the server likes. Sent when first polled; nothing may come, not
    /// even a status, until there is something to tell.
    pub(crate) fn get_lines(&self, path: &str, query: &[(&str, &str)]) -> Lines {
        self.lines(self.getting(path, query))
    }

    /// `POST path` with a JSON body, answered by lines.
    pub(crate) fn post_lines(&self, path: &str, body: &impl Serialize) -> Lines {
        self.lines(self.posting(path, body))
    }

    fn getting(&self, path: &str, query: &[(&str, &str)]) -> RequestBuilder {
        self.client.get(self.endpoint.at(path, query))
    }

    fn posting(&self, path: &str, body: &impl Serialize) -> RequestBuilder {
        let body = serde_json::to_vec(body).expect("requests have string keys only");
        self.client.post(self.endpoint.at(path, &[])).header(CONTENT_TYPE, "application/json").body(body)
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, WalletError> {
        let request = request.header(self.credential.name.clone(), self.credential.value.clone());
        request.send().await.map_err(|error| unreachable(&error))
    }

    async fn answer(&self, request: RequestBuilder, patience: Duration) -> Result<Answer, WalletError> {
        let limit = self.options.max_body;
        let asked = async {
            let response = self.send(request).await?;
            let status = response.status();
            Ok(Answer { status, body: body(response, limit).await? })
        };
        in_time(patience, asked).await
    }

    fn lines(&self, request: RequestBuilder) -> Lines {
        Lines { state: State::Unsent(Box::new((self.clone(), request))), buffer: Vec::new() }
    }
}

/// `asked`, unless it takes too long.
pub(crate) async fn in_time<T>(
    patience: Duration,
    asked: impl Future<Output = Result<T, WalletError>>,
) -> Result<T, WalletError> {
    let late = || WalletError::Unreachable(format!("no whole answer within {} s", patience.as_secs_f32()));
    timeout(patience, asked).await.unwrap_or_else(|_| Err(late()))
}

async fn body(response: Response, limit: usize) -> Result<Vec<u8>, WalletError> {
    let too_large = || WalletError::BadAnswer(format!("it is larger than {limit} bytes"));
    // The declared length only saves time; what counts is what arrives.
    if response.content_length().is_some_and(|length| length > limit as u64) {
        return Err(too_large());
    }
    let mut body = Vec::new();
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| unreachable(&error))?;
        if body.len() + chunk.len() > limit {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// What an input or output error was made of: it does not count that among its sources.
fn innermost<'a>(mut error: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    while let Some(within) = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        error = within;
    }
    error
}

/// Why nothing came, without the address (which may hold an invoice) and without anybody's own words.
fn unreachable(error: &reqwest::Error) -> WalletError {
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_within = innermost(cause);
        if let Some(rustls::Error::InvalidCertificate(_)) = cause_within.downcast_ref() {
            return WalletError::Unreachable("its TLS certificate is not the one that is trusted".into());
        }
        if let Some(endpoint) = cause_within.downcast_ref::<EndpointError>() {
            return WalletError::Unreachable(endpoint.to_string());
        }
        source = cause.source();
    }
    let why = if error.is_connect() {
        "no connection to it"
    } else if error.is_timeout() {
        "it took too long"
    } else {
        "the connection broke"
    };
    WalletError::Unreachable(why.into())
}

/// A stream of lines, each at most as long as an answer may be.
pub(crate) struct Lines {
    state: State,
    buffer: Vec<u8>,
}

enum State {
    Unsent(Box<(Caller, RequestBuilder)>),
    Open {
        chunks: BoxStream<'static, reqwest::Result<Vec<u8>>>,
        limit: usize,
    },
    /// The server refused; its answer is the only line.
    Refused(Answer),
    Ended,
}

/// What comes of a stream of lines.
pub(crate) enum Line {
    /// A line of a stream, without its end.
    Said(Vec<u8>),
    /// The server answered with an error instead.
    Refused(Answer),
}

impl Lines {
    /// The next line; `None` when the server ended the stream.
    pub(crate) async fn next(&mut self) -> Result<Option<Line>, WalletError> {
        loop {
            match std::mem::replace(&mut self.state, State::Ended) {
                State::Unsent(unsent) => {
                    let (caller, request) = *unsent;
                    let response = caller.send(request).await?;
                    let limit = caller.options.max_body;
                    self.state = if response.status().is_success() {
                        let chunks = response.bytes_stream().map(|chunk| chunk.map(|bytes| bytes.to_vec())).boxed();
                        State::Open { chunks, limit }
                    } else {
                        let status = response.status();
                        State::Refused(Answer { status, body: body(response, limit).await? })
                    };
                }
                State::Open { mut chunks, limit } => {
                    if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                        let rest = self.buffer.split_off(end + 1);
                        let line = std::mem::replace(&mut self.buffer, rest);
                        self.state = State::Open { chunks, limit };
                        if line.iter().all(u8::is_ascii_whitespace) {
                            continue;
                        }
                        return Ok(Some(Line::Said(line)));
                    }
                    match chunks.next().await {
                        Some(Ok(chunk)) if self.buffer.len() + chunk.len() > limit => {
                            return Err(WalletError::BadAnswer(format!("a line is larger than {limit} bytes")));
                        }
                        Some(Ok(chunk)) => {
                            self.buffer.extend_from_slice(&chunk);
                            self.state = State::Open { chunks, limit };
                        }
                        Some(Err(error)) => return Err(unreachable(&error)),
                        // What has no end of line is no line: the server was cut off.
                        None if self.buffer.iter().all(u8::is_ascii_whitespace) => return Ok(None),
                        None => return Ok(Some(Line::Said(std::mem::take(&mut self.buffer)))),
                    }
                }
                State::Refused(answer) => return Ok(Some(Line::Refused(answer))),
                State::Ended => return Ok(None),
            }
        }
    }
}
