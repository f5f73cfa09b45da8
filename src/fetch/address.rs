//! Which addresses a stranger may make us connect to. Pure but for the one name lookup.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use url::{Host, Url};

/// Why an address is not connected to. Says nothing about what the name resolved to: whether a name exists inside the
/// operator's network is not the customer's business, so an unknown name and a private one read the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// There is no host in the address.
    #[error("the address names no host")]
    NoHost,
    /// The name is unknown, or leads only to addresses that are not public.
    #[error("the address does not lead to a public host")]
    NotPublic,
}

/// Whether `ip` is a public unicast address: anything with a special purpose (IANA registries for IPv4 and IPv6) is not.
///
/// IPv6 forms that carry an IPv4 address (mapped, compatible, 6to4, Teredo, NAT64) are refused whole, because what they
/// reach depends on translators we know nothing about.
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let special = match (a, b, c) {
        // "this network", private, loopback.
        (0 | 10 | 127, _, _) => true,
        // Carrier-grade NAT 100.64.0.0/10 (RFC 6598).
        (100, 64..=127, _) => true,
        // Link-local, where clouds keep their metadata services.
        (169, 254, _) => true,
        (172, 16..=31, _) => true,
        // IETF protocol assignments, documentation 192.0.2.0/24.
        (192, 0, 0 | 2) => true,
        // 6to4 relay anycast.
        (192, 88, 99) => true,
        (192, 168, _) => true,
        // Benchmarking 198.18.0.0/15, documentation 198.51.100.0/24 and 203.0.113.0/24.
        (198, 18 | 19, _) | (198, 51, 100) | (203, 0, 113) => true,
        // Multicast, reserved, broadcast.
        (224..=255, _, _) => true,
        _ => false,
    };
    !special
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let [a, b, ..] = ip.segments();
    // Global unicast is 2000::/3; loopback, unspecified, mapped, compatible, NAT64, unique local, link-local and multicast all
    // lie outside of it.
    let global_unicast = a & 0xe000 == 0x2000;
    // 2001::/23: Teredo, benchmarking, ORCHID and the other protocol assignments.
    let protocol_assignment = a == 0x2001 && b < 0x0200;
    let documentation = (a == 0x2001 && b == 0x0db8) || (a == 0x3fff && b < 0x1000);
    let six_to_four = a == 0x2002;
    global_unicast && !protocol_assignment && !documentation && !six_to_four
}

/// Whether the host of `url`, where it is written as an address, may be connected to. Names pass: they are judged when
/// resolved. Decimal, octal, hexadecimal and shortened spellings of IPv4 have been made plain by the URL parser (WHATWG).
pub fn literal_is_public(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => is_public_v4(ip),
        Some(Host::Ipv6(ip)) => is_public_v6(ip),
        Some(Host::Domain(_)) => true,
        None => false,
    }
}

/// Whether an address may be connected to.
pub type Rule = fn(IpAddr) -> bool;

/// The rule where private addresses are allowed, or are not.
pub fn rule(allow_private: bool) -> Rule {
    if allow_private { |_| true } else { is_public }
}

/// Looks the host of `url` up, once, and gives the addresses that may be connected to.
///
/// The caller must connect to exactly these: a second lookup could answer differently (DNS rebinding).
pub async fn resolve(url: &Url, allow_private: bool) -> Result<Vec<SocketAddr>, AddressError> {
    resolve_by(url, rule(allow_private)).await
}

/// Looks the host of `url` up, once, and gives the addresses that a rule allows.
pub async fn resolve_by(url: &Url, may_connect: Rule) -> Result<Vec<SocketAddr>, AddressError> {
    let port = url.port_or_known_default().ok_or(AddressError::NoHost)?;
    let found: Vec<SocketAddr> = match url.host().ok_or(AddressError::NoHost)? {
        Host::Ipv4(ip) => vec![SocketAddr::new(ip.into(), port)],
        Host::Ipv6(ip) => vec![SocketAddr::new(ip.into(), port)],
        Host::Domain(name) => {
            tokio::net::lookup_host((name, port)).await.map_err(|_| AddressError::NotPublic)?.collect()
        }
    };
    let usable: Vec<SocketAddr> = found.into_iter().filter(|address| may_connect(address.ip())).collect();
    if usable.is_empty() { Err(AddressError::NotPublic) } else { Ok(usable) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_addresses_are_public() {
        for text in
            ["8.8.8.8", "1.1.1.1", "100.63.255.255", "100.128.0.0", "172.32.0.1", "2606:4700::1111", "2a00:1450::1"]
        {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn special_addresses_are_not_public() {
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:2::1",
            "2001:10::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "3fff::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn odd_spellings_of_loopback_are_seen_through() {
        for text in [
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0177.0.0.1/",
            "http://127.1/",
            "http://0x7f.1/",
            "http://[::ffff:7f00:1]/",
            "http://0/",
            "http://１２７.0.0.1/",
            "http://127.0.0.1./",
        ] {
            assert!(!literal_is_public(&Url::parse(text).unwrap()), "{text}");
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_home_is_refused_like_one_that_leads_nowhere() {
        let home = resolve(&Url::parse("http://localhost/").unwrap(), false).await;
        let nowhere = resolve(&Url::parse("http://no-such-host.invalid/").unwrap(), false).await;
        assert_eq!(home, Err(AddressError::NotPublic));
        assert_eq!(home, nowhere);
        assert!(resolve(&Url::parse("http://localhost:81/").unwrap(), true).await.is_ok());
    }
}
