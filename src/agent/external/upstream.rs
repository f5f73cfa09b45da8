//! The one endpoint that agents may ask, and how it is asked: with the operator's key, which no cell ever sees.

use std::fmt;

use bytes::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, Response};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::timeout;
use url::Url;

use super::ExternalError;
use super::door::Door;
use crate::inference::http::ServerOptions;

/// Anthropic's header for a key.
const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Anthropic's own host, which wants its keys in a header of its own.
const ANTHROPIC: &str = "api.anthropic.com";

/// What an agent's request may say of itself; everything else stays behind.
const PASSED: [&str; 2] = ["anthropic-version", "anthropic-beta"];

/// The longest of those, in bytes.
const LONGEST_PASSED: usize = 1_000;

/// Where an endpoint wants its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyHeader {
    /// `Authorization: Bearer …`
    Bearer,
    /// `x-api-key: …`, as Anthropic wants it.
    XApiKey,
}

impl KeyHeader {
    /// What an endpoint at that address usually wants.
    pub fn usual(endpoint: &Url) -> Self {
        if endpoint.host_str() == Some(ANTHROPIC) { Self::XApiKey } else { Self::Bearer }
    }
}

/// Why there is no answer. The words are for the agent, and tell it nothing of the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoAnswer {
    Unreachable,
    Silent,
}

/// The endpoint.
pub(super) struct Upstream {
    client: Client,
    base: Url,
    key: Option<(HeaderName, HeaderValue)>,
    secret: Option<SecretString>,
    options: ServerOptions,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("base", &self.base.as_str()).finish_non_exhaustive()
    }
}

impl Upstream {
    /// The endpoint whose paths begin at `base`, such as `https://api.example.com/v1`.
    ///
    /// # Errors
    /// When the address or the key can't be used.
    pub(super) fn new(
        base: &Url,
        key: Option<&SecretString>,
        header: KeyHeader,
        options: ServerOptions,
    ) -> Result<Self, ExternalError> {
        if base.cannot_be_a_base() || !matches!(base.scheme(), "http" | "https") {
            return Err(ExternalError::Endpoint);
        }
        let secret = key.cloned();
        let key = key.map(|key| {
            let (name, value) = match header {
                KeyHeader::Bearer => (AUTHORIZATION, format!("Bearer {}", key.expose_secret())),
                KeyHeader::XApiKey => (X_API_KEY, key.expose_secret().to_owned()),
            };
            let mut value = HeaderValue::try_from(value).map_err(|_| ExternalError::Key)?;
            value.set_sensitive(true);
            Ok::<_, ExternalError>((name, value))
        });
        let client = Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .referer(false)
            .connect_timeout(options.connect_timeout)
            .user_agent(concat!("coinop/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|_| ExternalError::NoClient)?;
        let mut base = base.clone();
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        Ok(Self { client, base, key: key.transpose()?, secret, options })
    }

    /// How the endpoint is treated.
    pub(super) fn options(&self) -> &ServerOptions {
        &self.options
    }

    /// Whether a body repeats the key. Some endpoints do, to say that it is wrong.
    pub(super) fn is_told_in(&self, body: &[u8]) -> bool {
        let told = |secret: &[u8]| !secret.is_empty() && body.windows(secret.len()).any(|part| part == secret);
        self.secret.as_ref().is_some_and(|secret| told(secret.expose_secret().as_bytes()))
    }

    /// Asks, and waits for the head of the answer.
    pub(super) async fn ask(&self, door: Door, body: Option<Bytes>, agent: &HeaderMap) -> Result<Response, NoAnswer> {
        let url = self.base.join(door.path()).map_err(|_| NoAnswer::Unreachable)?;
        let mut asked = self.client.request(door.method(), url);
        if let Some(body) = body {
            asked = asked.header(CONTENT_TYPE, "application/json").body(body);
        }
        for name in PASSED {
            if let Some(value) = agent.get(name).filter(|value| value.len() <= LONGEST_PASSED && door == Door::Messages)
            {
                asked = asked.header(name, value);
            }
        }
        if let Some((name, value)) = &self.key {
            asked = asked.header(name, value.clone());
        }
        match timeout(self.options.silence, asked.send()).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                // Without the address, which may hold more than the operator wants to read in a log.
                tracing::warn!(error = %error.without_url(), "The external agent's endpoint can't be asked");
                Err(NoAnswer::Unreachable)
            }
            Err(_) => Err(NoAnswer::Silent),
        }
    }
}
