//! Fetches what a stranger's address points to, without letting the stranger use us to reach the operator's network.
//!
//! Every hop is checked anew: scheme, no credentials, resolved once and pinned to public addresses ([`address`]). Time, size
//! and redirects are bounded, no cookies or proxies are used, and only UTF-8 text comes back, unless bytes are asked for.

pub mod address;

use std::time::Duration;

use futures::StreamExt;
use reqwest::header::{CONTENT_TYPE, LOCATION};
use reqwest::redirect::Policy;
use reqwest::{Client, Response};
use url::{Host, Url};

use self::address::AddressError;

/// Characters an address may have; more is nobody's honest address.
const MAX_URL_LENGTH: usize = 2048;

/// Bounds on a fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchLimits {
    /// Bytes of body taken; a longer one is an error, never cut.
    pub max_bytes: usize,
    /// Time for everything: lookups, redirects, body.
    pub timeout: Duration,
    /// Redirects followed.
    pub max_redirects: usize,
    /// Whether loopback and private addresses may be fetched (tests, own networks).
    pub allow_private: bool,
    /// Whether plain HTTP is refused, on every hop: for answers that money depends on.
    pub https_only: bool,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self {
            max_bytes: 128 * 1024,
            timeout: Duration::from_secs(15),
            max_redirects: 3,
            allow_private: false,
            https_only: false,
        }
    }
}

/// Why nothing was fetched, in words a customer may read: they never tell what lies inside the operator's network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// It is no address.
    #[error("this is not a valid URL")]
    BadUrl,
    /// Neither http nor https.
    #[error("only http and https URLs are fetched")]
    Scheme,
    /// Plain HTTP where only HTTPS will do.
    #[error("only https URLs are fetched here")]
    NotHttps,
    /// A user name or password stands in it.
    #[error("a URL with a user name or password is not fetched")]
    Credentials,
    /// It leads nowhere public.
    #[error("the URL does not lead to a public host")]
    NotPublic,
    /// No connection, or it broke.
    #[error("the URL could not be reached")]
    Unreachable,
    /// The server said no.
    #[error("the server answered with status {0}")]
    Status(u16),
    /// It redirects on and on, or to nowhere.
    #[error("the URL redirects too often or to no address")]
    Redirects,
    /// Too much.
    #[error("the content is larger than {limit} bytes")]
    TooLarge {
        /// Bytes allowed.
        limit: usize,
    },
    /// Not text, by its declared type.
    #[error("the content is not text")]
    NotText,
    /// Not UTF-8.
    #[error("the content is not valid UTF-8")]
    NotUtf8,
    /// Took too long.
    #[error("the URL took longer than {} s", .limit.as_secs())]
    Timeout {
        /// Time allowed.
        limit: Duration,
    },
}

impl From<AddressError> for FetchError {
    fn from(error: AddressError) -> Self {
        match error {
            AddressError::NoHost => Self::BadUrl,
            AddressError::NotPublic => Self::NotPublic,
        }
    }
}

/// Fetches from strangers' addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fetcher {
    limits: FetchLimits,
}

/// What is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Text,
    Bytes,
}

enum Hop {
    Done(Response),
    Elsewhere(Url),
}

impl Fetcher {
    /// A fetcher within `limits`. The process must have a default rustls provider (`main` installs it).
    pub fn new(limits: FetchLimits) -> Self {
        Self { limits }
    }

    /// Whether loopback and private addresses may be fetched.
    pub fn allows_private(&self) -> bool {
        self.limits.allow_private
    }

    /// Bytes of the largest body taken.
    pub fn max_bytes(&self) -> usize {
        self.limits.max_bytes
    }

    /// The same, with no more bytes than that.
    #[must_use]
    pub fn at_most(mut self, max_bytes: u64) -> Self {
        self.limits.max_bytes = self.limits.max_bytes.min(usize::try_from(max_bytes).unwrap_or(usize::MAX));
        self
    }

    /// The text at `url`.
    pub async fn fetch_text(&self, url: &str) -> Result<String, FetchError> {
        let body = self.in_time(self.fetch(url, Wanted::Text)).await?;
        String::from_utf8(body).map_err(|_| FetchError::NotUtf8)
    }

    /// The bytes at `url`, whatever they are: for a reader who knows what they must be.
    pub async fn fetch_bytes(&self, url: &str) -> Result<Vec<u8>, FetchError> {
        self.in_time(self.fetch(url, Wanted::Bytes)).await
    }

    async fn in_time<T>(&self, fetching: impl Future<Output = Result<T, FetchError>>) -> Result<T, FetchError> {
        let limit = self.limits.timeout;
        tokio::time::timeout(limit, fetching).await.map_err(|_| FetchError::Timeout { limit })?
    }

    async fn fetch(&self, url: &str, wanted: Wanted) -> Result<Vec<u8>, FetchError> {
        if url.len() > MAX_URL_LENGTH {
            return Err(FetchError::BadUrl);
        }
        let mut url = Url::parse(url).map_err(|_| FetchError::BadUrl)?;
        for _ in 0..=self.limits.max_redirects {
            match self.hop(&url).await? {
                Hop::Done(response) => return self.body(response, wanted).await,
                Hop::Elsewhere(next) => url = next,
            }
        }
        Err(FetchError::Redirects)
    }

    /// Asks one server. A client a hop, because the pinned addresses belong to the client.
    async fn hop(&self, url: &Url) -> Result<Hop, FetchError> {
        check(url)?;
        if self.limits.https_only && url.scheme() != "https" {
            return Err(FetchError::NotHttps);
        }
        let addresses = address::resolve(url, self.limits.allow_private).await?;
        let mut builder = Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .connect_timeout(self.limits.timeout)
            .pool_max_idle_per_host(0)
            .user_agent(concat!("coinop/", env!("CARGO_PKG_VERSION")));
        if let Some(Host::Domain(name)) = url.host() {
            builder = builder.resolve_to_addrs(name, &addresses);
        }
        let client = builder.build().map_err(|_| FetchError::Unreachable)?;
        let response = client.get(url.clone()).send().await.map_err(|_| FetchError::Unreachable)?;
        let status = response.status();
        if status.is_redirection() {
            let target = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let next = target.and_then(|target| url.join(target).ok()).ok_or(FetchError::Redirects)?;
            return Ok(Hop::Elsewhere(next));
        }
        if !status.is_success() {
            return Err(FetchError::Status(status.as_u16()));
        }
        Ok(Hop::Done(response))
    }

    async fn body(&self, response: Response, wanted: Wanted) -> Result<Vec<u8>, FetchError> {
        let limit = self.limits.max_bytes;
        let kind = response.headers().get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or("?"));
        if wanted == Wanted::Text && !kind.is_none_or(is_text) {
            return Err(FetchError::NotText);
        }
        // The declared length only saves time; what counts is what arrives.
        if response.content_length().is_some_and(|length| length > limit as u64) {
            return Err(FetchError::TooLarge { limit });
        }
        let mut body = Vec::new();
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|_| FetchError::Unreachable)?;
            if body.len() + chunk.len() > limit {
                return Err(FetchError::TooLarge { limit });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

fn check(url: &Url) -> Result<(), FetchError> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(FetchError::Scheme);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(FetchError::Credentials);
    }
    Ok(())
}

/// Whether a media type is text a model could read.
fn is_text(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.starts_with("text/")
        || essence.ends_with("+json")
        || essence.ends_with("+xml")
        || matches!(
            essence.as_str(),
            "application/json"
                | "application/xml"
                | "application/x-ndjson"
                | "application/yaml"
                | "application/toml"
                | "application/javascript"
        )
}

#[cfg(test)]
mod tests;
