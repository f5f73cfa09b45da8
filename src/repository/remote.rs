//! Where a repository is: an address that a customer wrote, taken apart.

use bitcoin::hashes::{Hash, sha256};
use url::Url;

use super::{CommitId, RepositoryError};
use crate::fetch::address;

/// Characters an address may have; more is nobody's honest address.
const MAX_URL_LENGTH: usize = 2048;

/// The port of git's own protocol.
const GIT_PORT: u16 = 9418;

/// What may be connected to, on every hop.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// Which addresses.
    pub(super) may_connect: address::Rule,
    /// Whether plain HTTP is spoken.
    pub(super) plain_http: bool,
}

impl Rules {
    /// Where private addresses are allowed, or are not.
    pub(super) fn new(allow_private: bool) -> Self {
        Self { may_connect: address::rule(allow_private), plain_http: allow_private }
    }
}

/// Where a repository is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Remote {
    /// Over HTTP.
    Http(Url),
    /// Over git's own protocol.
    Git {
        /// The host and port, written as an HTTP address so that its host is read by the same rules.
        host: Url,
        /// The path on it.
        path: String,
    },
}

impl Remote {
    /// Reads an address. Plain HTTP only where private addresses are allowed: on the open network anybody in between could
    /// answer it. Git's own protocol is no safer, but a commit's id says what must come.
    pub(super) fn parse(text: &str, allow_private: bool) -> Result<Self, RepositoryError> {
        let text = text.trim();
        if text.len() > MAX_URL_LENGTH || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(RepositoryError::BadUrl);
        }
        let url = Url::parse(text).map_err(|_| RepositoryError::BadUrl)?;
        let secret = !url.username().is_empty() || url.password().is_some();
        if secret || url.query().is_some() || url.fragment().is_some() || url.host_str().is_none_or(str::is_empty) {
            return Err(RepositoryError::BadUrl);
        }
        match url.scheme() {
            "https" => Ok(Self::Http(url)),
            "http" if allow_private => Ok(Self::Http(url)),
            "git" => {
                let (name, port) = (url.host_str().unwrap_or_default(), url.port().unwrap_or(GIT_PORT));
                let host = Url::parse(&format!("http://{name}:{port}/")).map_err(|_| RepositoryError::BadUrl)?;
                // Escapes could smuggle control characters into the request's line.
                let path = url.path().to_owned();
                if path.len() < 2 || path.contains('%') {
                    return Err(RepositoryError::BadUrl);
                }
                Ok(Self::Git { host, path })
            }
            _ => Err(RepositoryError::BadUrl),
        }
    }

    /// What a commit of it is kept under. Of the address too: who may read a commit at one address may not at another.
    pub(super) fn key(&self, commit: &CommitId) -> String {
        let address = match self {
            Self::Http(url) => url.to_string(),
            Self::Git { host, path } => format!("git {host} {path}"),
        };
        sha256::Hash::hash(format!("{address}\n{commit}").as_bytes()).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_repositories_are_read() {
        for text in ["https://example.com/a.git", " https://example.com:8443/a/b ", "https://example.com/%20a"] {
            assert!(matches!(Remote::parse(text, false), Ok(Remote::Http(_))), "{text}");
        }
        let Ok(Remote::Git { host, path }) = Remote::parse("git://example.com/a/b.git", false) else {
            panic!("no git address");
        };
        assert_eq!((host.as_str(), path.as_str()), ("http://example.com:9418/", "/a/b.git"));
        assert!(Remote::parse("http://example.com/a.git", true).is_ok());
    }

    #[test]
    fn what_is_no_public_address_of_a_repository_is_refused() {
        for text in [
            "",
            "example.com/a.git",
            "git@example.com:a/b.git",
            "ssh://example.com/a.git",
            "file:///etc",
            "/etc",
            "ext::sh -c whoami",
            "http://example.com/a.git",
            "ftp://example.com/a.git",
            "https://user@example.com/a.git",
            "https://user:pass@example.com/a.git",
            "https://example.com/a.git?x=1",
            "https://example.com/a.git#x",
            "git://example.com",
            "git://example.com/",
            "git:///a.git",
            "git://example.com/a%00host=b",
            "git://example.com/a\nb",
            "https://example.com/a b",
        ] {
            assert!(matches!(Remote::parse(text, false), Err(RepositoryError::BadUrl)), "{text}");
        }
        let long = format!("https://example.com/{}", "a".repeat(MAX_URL_LENGTH));
        assert!(matches!(Remote::parse(&long, false), Err(RepositoryError::BadUrl)));
    }

    #[test]
    fn odd_spellings_of_a_host_are_made_plain() {
        let Ok(Remote::Git { host, .. }) = Remote::parse("git://2130706433/a", false) else { panic!("no git address") };
        assert_eq!(host.as_str(), "http://127.0.0.1:9418/");
    }
}
