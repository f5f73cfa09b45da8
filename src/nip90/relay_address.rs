//! Which relays a stranger may send us to.
//!
//! A request's `relays` tag makes us open connections, so an address is taken only when it is a websocket address on a
//! public host: no loopback, private, link-local, shared (CGNAT) or otherwise special range, no name that only means
//! something on our own network, no credentials. Names are not resolved here; the relay pool asks [`is_public`] again about
//! what they resolve to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// Bytes of a relay address. Longer ones are no addresses anybody types.
const MAX_ADDRESS_BYTES: usize = 256;

/// Addresses of one list that are looked at, so that a list of thousands costs nothing.
const MAX_EXAMINED: usize = 32;

/// Name endings that never lead to a public relay: local networks (RFC 6762, RFC 8375, ICANN's `internal`) and overlay
/// networks that we do not reach.
const LOCAL_NAMES: [&str; 8] = ["localhost", "local", "internal", "lan", "home.arpa", "onion", "i2p", "test"];

/// Why a relay address is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRelay {
    /// No address at all, or one nobody types.
    #[error("no relay address; write wss://host or ws://host")]
    Unreadable,
    /// Another scheme than a websocket's.
    #[error("a relay address begins with wss:// or ws://")]
    Scheme,
    /// A user name or password in it.
    #[error("a relay address holds no user name or password")]
    Credentials,
    /// A host that is not on the public network.
    #[error("the host is not on the public network")]
    NotPublic,
}

/// A relay address in its normal form: scheme and host in lower case, default port and lone slash left out.
///
/// # Errors
/// [`BadRelay`] when it is no websocket address or, unless `allow_private`, not on a public host.
pub fn vetted(text: &str, allow_private: bool) -> Result<String, BadRelay> {
    let text = text.trim();
    if text.is_empty() || text.len() > MAX_ADDRESS_BYTES {
        return Err(BadRelay::Unreadable);
    }
    let mut url = Url::parse(text).map_err(|_| BadRelay::Unreadable)?;
    if !matches!(url.scheme(), "ws" | "wss") {
        return Err(BadRelay::Scheme);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(BadRelay::Credentials);
    }
    let public = match url.host() {
        None => return Err(BadRelay::Unreadable),
        // The parser has turned every spelling of an address (hex, octal, short, one number) into the address itself.
        Some(Host::Ipv4(address)) => is_public(IpAddr::V4(address)),
        Some(Host::Ipv6(address)) => is_public(IpAddr::V6(address)),
        Some(Host::Domain(name)) => is_public_name(name),
    };
    if !public && !allow_private {
        return Err(BadRelay::NotPublic);
    }
    url.set_fragment(None);
    let mut normal = url.to_string();
    if url.path() == "/" && url.query().is_none() {
        normal.truncate(normal.trim_end_matches('/').len());
    }
    Ok(normal)
}

/// The usable addresses of a list, normal, without repetitions, at most `max`.
pub fn vetted_list<'a>(addresses: impl Iterator<Item = &'a str>, max: usize, allow_private: bool) -> Vec<String> {
    let mut list = Vec::new();
    for address in addresses.take(MAX_EXAMINED) {
        if list.len() >= max {
            break;
        }
        if let Ok(normal) = vetted(address, allow_private)
            && !list.contains(&normal)
        {
            list.push(normal);
        }
    }
    list
}

/// Whether a name can be a public host's. One label alone is a name on somebody's own network.
fn is_public_name(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name.contains('.')
        && !LOCAL_NAMES.iter().any(|local| name.strip_suffix(local).is_some_and(|rest| rest.ends_with('.')))
}

/// Whether an address is on the public network. Everything special is not: loopback, private, link-local, shared,
/// multicast, documentation, reserved, and IPv6 forms that carry such an IPv4 address.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(a == 0                                        // "this" network
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || (a == 100 && (64..128).contains(&b))     // shared, carrier-grade NAT (RFC 6598)
        || (a == 192 && b == 0 && c == 0)           // protocol assignments
        || (a == 192 && b == 88 && c == 99)         // 6to4 relays
        || (a == 198 && (b == 18 || b == 19))       // benchmarks
        || address.is_documentation()
        || a >= 224) // multicast, reserved, broadcast
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(inner) = carried_v4(address) {
        return is_public_v4(inner);
    }
    let [first, second, ..] = address.segments();
    // Only 2000::/3 is given out; within it: documentation, benchmarks, ORCHID, Teredo (whose inner address is obscured).
    (0x2000..0x4000).contains(&first)
        && !(first == 0x2001 && (second < 0x0200 || second == 0x0db8))
        && !(first == 0x3fff && second < 0x1000)
}

/// The IPv4 address an IPv6 address stands for: mapped, compatible, translated (NAT64, local NAT64) or 6to4.
fn carried_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let join = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        Ipv4Addr::new(a, b, c, d)
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0, 0, 0, 0, 0, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(join(high, low)),
        [0x2002, high, low, ..] => Some(join(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_relay_is_taken_in_its_normal_form() {
        for (written, normal) in [
            ("wss://Relay.Example.com/", "wss://relay.example.com"),
            (" ws://relay.example.com:80 ", "ws://relay.example.com"),
            ("wss://relay.example.com:7777/nostr/?auth=no#x", "wss://relay.example.com:7777/nostr/?auth=no"),
            ("wss://8.8.8.8", "wss://8.8.8.8"),
            ("wss://[2606:4700::1111]:8443", "wss://[2606:4700::1111]:8443"),
        ] {
            assert_eq!(vetted(written, false).as_deref(), Ok(normal));
        }
    }

    #[test]
    fn a_private_relay_is_refused_in_every_spelling_unless_allowed() {
        for written in [
            "ws://localhost",
            "ws://LOCALHOST.:80",
            "ws://a.localhost",
            "ws://printer.local",
            "ws://abc.onion",
            "ws://db",
            "ws://127.0.0.1",
            "ws://127.1",
            "ws://0x7f.1",
            "ws://2130706433",
            "ws://0177.0.0.1",
            "ws://0.0.0.0",
            "ws://10.0.0.1",
            "ws://172.16.0.1",
            "ws://192.168.1.1",
            "ws://169.254.169.254",
            "ws://100.64.0.1",
            "ws://100.127.255.255",
            "ws://198.18.0.1",
            "ws://224.0.0.1",
            "ws://255.255.255.255",
            "ws://[::1]",
            "ws://[::]",
            "ws://[fe80::1]",
            "ws://[fc00::1]",
            "ws://[fd12::1]",
            "ws://[ff02::1]",
            "ws://[::ffff:127.0.0.1]",
            "ws://[::ffff:10.0.0.1]",
            "ws://[::127.0.0.1]",
            "ws://[64:ff9b::7f00:1]",
            "ws://[2002:7f00:1::]",
            "ws://[2001:db8::1]",
            "ws://[2001::1]",
            "ws://relay.internal",
            "ws://x.home.arpa",
        ] {
            assert_eq!(vetted(written, false), Err(BadRelay::NotPublic), "{written}");
            assert!(vetted(written, true).is_ok(), "{written}");
        }
    }

    #[test]
    fn what_is_no_websocket_address_is_refused_even_where_private_ones_are_allowed() {
        let long = format!("wss://{}.example.com", "a".repeat(300));
        for (written, why) in [
            ("", BadRelay::Unreadable),
            ("relay.example.com", BadRelay::Unreadable),
            ("http://relay.example.com", BadRelay::Scheme),
            ("file:///etc/passwd", BadRelay::Scheme),
            ("wss://", BadRelay::Unreadable),
            ("wss://user:secret@relay.example.com", BadRelay::Credentials),
            (long.as_str(), BadRelay::Unreadable),
        ] {
            assert_eq!(vetted(written, true), Err(why), "{written}");
        }
    }

    #[test]
    fn neighbours_of_special_ranges_are_public() {
        for public in
            ["100.63.255.255", "100.128.0.1", "172.32.0.1", "198.20.0.1", "223.255.255.255", "2001:4860::8888"]
        {
            assert!(is_public(public.parse().expect("an address")), "{public}");
        }
    }

    #[test]
    fn a_list_is_bounded_and_free_of_repetitions() {
        let many: Vec<String> = (0..1_000).map(|n| format!("wss://r{}.example.com/", n / 2)).collect();
        let list = vetted_list(many.iter().map(String::as_str), 3, false);
        assert_eq!(list, ["wss://r0.example.com", "wss://r1.example.com", "wss://r2.example.com"]);
        let junk = (0..100).map(|_| "http://x").chain(["wss://late.example.com"]);
        assert!(vetted_list(junk, 3, false).is_empty());
    }
}
