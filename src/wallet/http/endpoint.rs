//! Where a wallet's HTTP interface is, and whether a secret may be sent there at all.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use super::tls::Pin;
use crate::fetch::address::is_public;

/// Why a wallet's address can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// Neither http nor https, or no host.
    #[error("a wallet's address begins with https:// (or http:// on this machine or network) and names a host")]
    NoAddress,
    /// A user name, password, query or fragment stands in it.
    #[error("a wallet's address holds no user name, password, query or fragment: the secret has a key of its own")]
    NotPlain,
    /// Whoever listens on the way would have the secret.
    #[error(
        "the secret would cross the internet in the clear: use https:// for a host outside this machine and network"
    )]
    PlainHttp,
    /// A certificate without TLS proves nothing.
    #[error("a certificate is configured but the address begins with http://: write https://")]
    UselessCertificate,
    /// No PEM certificate.
    #[error("the certificate file holds no PEM certificate")]
    NoCertificate,
}

/// A wallet's HTTP interface. Plain http is only spoken to this machine and private networks, whatever a name resolves to.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    url: Url,
    pin: Option<Pin>,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("url", &self.url.as_str()).field("pin", &self.pin).finish()
    }
}

impl Endpoint {
    /// An interface at `url`, which may have a path. With `certificate` (PEM) exactly that one is accepted, without it
    /// those the public authorities signed.
    ///
    /// # Errors
    /// What is wrong, for the operator.
    pub fn new(url: &Url, certificate: Option<&[u8]>) -> Result<Self, EndpointError> {
        let host = url.host().ok_or(EndpointError::NoAddress)?;
        let plain = match url.scheme() {
            "https" => false,
            "http" => true,
            _ => return Err(EndpointError::NoAddress),
        };
        let clean = url.username().is_empty() && url.password().is_none();
        if !clean || url.query().is_some() || url.fragment().is_some() {
            return Err(EndpointError::NotPlain);
        }
        if plain {
            let public = match host {
                Host::Ipv4(ip) => is_public(IpAddr::V4(ip)),
                Host::Ipv6(ip) => is_public(IpAddr::V6(ip)),
                // Judged when it is resolved, each time.
                Host::Domain(_) => false,
            };
            if public {
                return Err(EndpointError::PlainHttp);
            }
            if certificate.is_some() {
                return Err(EndpointError::UselessCertificate);
            }
        }
        let pin = certificate.map(|pem| Pin::from_pem(pem).ok_or(EndpointError::NoCertificate)).transpose()?;
        Ok(Self { url: url.clone(), pin })
    }

    pub(super) fn pin(&self) -> Option<&Pin> {
        self.pin.as_ref()
    }

    pub(super) fn is_plain(&self) -> bool {
        self.url.scheme() == "http"
    }

    /// The address of `path` (segments between slashes) under this one.
    pub(super) fn at(&self, path: &str, query: &[(&str, &str)]) -> Url {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path.split('/').filter(|segment| !segment.is_empty()));
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    /// The socket addresses behind it that may be connected to. Empty when there are none.
    pub(super) async fn addresses(&self) -> Vec<SocketAddr> {
        let port = self.url.port_or_known_default().unwrap_or_default();
        let found: Vec<SocketAddr> = match self.url.host() {
            Some(Host::Ipv4(ip)) => vec![SocketAddr::new(ip.into(), port)],
            Some(Host::Ipv6(ip)) => vec![SocketAddr::new(ip.into(), port)],
            Some(Host::Domain(name)) => match tokio::net::lookup_host((name, port)).await {
                Ok(found) => found.collect(),
                Err(_) => Vec::new(),
            },
            None => Vec::new(),
        };
        found.into_iter().filter(|address| !self.is_plain() || !is_public(address.ip())).collect()
    }
}

/// Resolves names to private addresses only: for plain http, so that no name ever leads a secret onto the internet.
#[derive(Debug)]
pub(super) struct PrivateOnly;

impl Resolve for PrivateOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let private: Vec<SocketAddr> = found.filter(|address| !is_public(address.ip())).collect();
            if private.is_empty() {
                return Err(EndpointError::PlainHttp.into());
            }
            Ok(Box::new(private.into_iter()) as Addrs)
        })
    }
}
