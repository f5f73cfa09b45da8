//! Addresses people pay to: a lightning address, an LNURL, or the https address behind either.

use std::fmt;
use std::str::FromStr;

use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32, Hrp};
use url::Url;

use super::error::TargetError;

/// Characters of a target. LUD-01 sets no limit; QR codes end here.
const MAX_TARGET_CHARS: usize = 2_048;

/// Characters of a lightning address: what mail allows.
const MAX_ADDRESS_CHARS: usize = 320;

/// The human-readable part of LUD-01.
const LNURL_HRP: Hrp = Hrp::parse_unchecked("lnurl");

/// An address to pay to. Shown as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    written: String,
    place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// LUD-16. The scheme is decided when it is asked.
    Address { name: String, host: String },
    /// LUD-01, or the address itself.
    Url(Url),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let text = text.trim();
        if text.len() > MAX_TARGET_CHARS {
            return Err(TargetError::TooLong);
        }
        let bare = strip(text, "lightning:").unwrap_or(text);
        let place = if strip(bare, "lnurl1").is_some() {
            Place::Url(decode(bare)?)
        } else if bare.contains("://") {
            let url = Url::parse(bare).map_err(|_| TargetError::NoAddress)?;
            Place::Url(web(url).ok_or(TargetError::NoAddress)?)
        } else {
            address(bare)?
        };
        Ok(Self { written: bare.to_owned(), place })
    }
}

impl Target {
    /// Where it is asked. Plain HTTP only where private addresses are allowed: a lightning address at an IP address
    /// or at localhost is then asked without encryption, as no authority gives those a certificate.
    ///
    /// # Errors
    /// [`TargetError::NotHttps`].
    pub(super) fn url(&self, allow_private: bool) -> Result<Url, TargetError> {
        let url = match &self.place {
            Place::Url(url) => url.clone(),
            Place::Address { name, host } => {
                let path = format!("{host}/.well-known/lnurlp/{name}");
                let url = Url::parse(&format!("https://{path}")).map_err(|_| TargetError::NoAddress)?;
                match url.host() {
                    Some(url::Host::Domain(name)) if name != "localhost" => url,
                    None => return Err(TargetError::NoAddress),
                    _ if allow_private => Url::parse(&format!("http://{path}")).map_err(|_| TargetError::NoAddress)?,
                    // Refused as not public when it is asked.
                    _ => url,
                }
            }
        };
        if url.scheme() == "https" || allow_private { Ok(url) } else { Err(TargetError::NotHttps) }
    }
}

/// The rest behind a prefix in either case.
fn strip<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    match text.get(..prefix.len()) {
        Some(start) if start.eq_ignore_ascii_case(prefix) => Some(&text[prefix.len()..]),
        _ => None,
    }
}

/// LUD-01. bech32, not bech32m, however long.
fn decode(text: &str) -> Result<Url, TargetError> {
    let checked = CheckedHrpstring::new::<Bech32>(text)
        .map_err(|_| TargetError::BadLnurl("its checksum or letters are wrong"))?;
    if checked.hrp() != LNURL_HRP {
        return Err(TargetError::BadLnurl("it begins with something else than lnurl"));
    }
    let bytes: Vec<u8> = checked.byte_iter().collect();
    let text = String::from_utf8(bytes).map_err(|_| TargetError::BadLnurl("it holds no address"))?;
    let url = Url::parse(&text).map_err(|_| TargetError::BadLnurl("it holds no address"))?;
    web(url).ok_or(TargetError::BadLnurl("it holds no web address"))
}

fn web(url: Url) -> Option<Url> {
    (matches!(url.scheme(), "http" | "https") && url.has_host()).then_some(url)
}

/// LUD-16: `name@host`, the name of `a-z0-9-_.` (and `+`, for tags).
fn address(text: &str) -> Result<Place, TargetError> {
    let (name, host) = text.split_once('@').ok_or(TargetError::NoAddress)?;
    let name = name.to_ascii_lowercase();
    let good_name = !name.is_empty()
        && !name.starts_with('.')
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.' | b'+'));
    let good_host = host.contains(['.', ':']) || host.eq_ignore_ascii_case("localhost");
    let plain = host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b':' | b'[' | b']' | b'_'));
    if !good_name || !good_host || !plain || text.len() > MAX_ADDRESS_CHARS {
        return Err(TargetError::NoAddress);
    }
    Ok(Place::Address { name, host: host.to_ascii_lowercase() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The example of LUD-01.
    const LNURL: &str = "LNURL1DP68GURN8GHJ7UM9WFMXJCM99E3K7MF0V9CXJ0M385EKVCENXC6R2C35XVUKXEFCV5MKVV34X5EKZD3EV56NYD3HXQURZEPEXEJXXEPNXSCRVWFNV9NXZCN9XQ6XYEFHVGCXXCMYXYMNSERXFQ5FNS";

    fn url(text: &str) -> Result<String, TargetError> {
        text.parse::<Target>().and_then(|target| target.url(false)).map(|url| url.to_string())
    }

    #[test]
    fn each_form_leads_to_its_endpoint() {
        let service = "https://service.com/api?q=3fc3645b439ce8e7f2553a69e5267081d96dcd340693afabe04be7b0ccd178df";
        for text in [LNURL, &LNURL.to_lowercase(), &format!("lightning:{LNURL}"), service] {
            assert_eq!(url(text).as_deref(), Ok(service));
        }
        let well_known = "https://example.com/.well-known/lnurlp/ann.b-1_x+tag";
        for text in ["ann.b-1_x+tag@example.com", " Ann.B-1_x+Tag@Example.com ", "lightning:ann.b-1_x+tag@example.com"]
        {
            assert_eq!(url(text).as_deref(), Ok(well_known));
        }
        assert_eq!(url("me@example.com:8443").as_deref(), Ok("https://example.com:8443/.well-known/lnurlp/me"));
    }

    #[test]
    fn what_is_no_address_is_refused_with_a_reason() {
        for junk in [
            "",
            "me",
            "me@",
            "@example.com",
            "me@host",
            "a b@example.com",
            "me@exa mple.com",
            "ftp://x.org/",
            "me@example.com/path",
            "me@evil.com#@example.com",
            "me@a@b.com",
            "../x@example.com",
            ".x@example.com",
            "https://",
            "file:///etc/passwd",
            "mé@example.com",
        ] {
            assert_eq!(url(junk), Err(TargetError::NoAddress), "{junk}");
        }
        assert_eq!(url(&"a".repeat(5_000)), Err(TargetError::TooLong));
        assert!(matches!(url(&LNURL.replace("DP68", "DP69")), Err(TargetError::BadLnurl(_))));
        assert_eq!(url("http://example.com/pay"), Err(TargetError::NotHttps));
    }

    #[test]
    fn an_lnurl_of_something_else_than_a_web_address_is_refused() {
        for inside in ["javascript:alert(1)", "file:///etc/passwd", "nothing"] {
            let text = bech32::encode::<Bech32>(LNURL_HRP, inside.as_bytes()).unwrap();
            assert!(matches!(url(&text), Err(TargetError::BadLnurl(_))), "{inside}");
        }
        let other = bech32::encode::<Bech32>(Hrp::parse("lnurk").unwrap(), b"https://example.com").unwrap();
        assert_eq!(url(&other), Err(TargetError::NoAddress));
    }

    #[test]
    fn plain_http_is_spoken_in_closed_networks_only() {
        let target: Target = "me@127.0.0.1:8080".parse().unwrap();
        assert_eq!(target.url(true).unwrap().as_str(), "http://127.0.0.1:8080/.well-known/lnurlp/me");
        assert_eq!(target.url(false).unwrap().scheme(), "https");
        let public: Target = "me@example.com".parse().unwrap();
        assert_eq!(public.url(true).unwrap().scheme(), "https");
    }

    proptest! {
        #[test]
        fn no_text_panics_the_reader(text in "(lightning:)?(lnurl1|https://)?\\PC{0,80}(@\\PC{0,30})?") {
            let _ = url(&text);
        }
    }
}
