//! Addresses, certificates, and servers that misbehave: nothing hangs, and nothing secret is told.

use std::time::Duration;

use secrecy::ExposeSecret;
use url::Url;

use super::*;
use crate::testing::wallet_servers::{Fault, lnd, phoenixd};
use crate::wallet::http::{EndpointError, Pin};
use crate::wallet::lnd::LndWallet;
use crate::wallet::phoenixd::PhoenixdWallet;

const HASTY: HttpOptions = HttpOptions {
    request_timeout: Duration::from_millis(500),
    payment_timeout: Duration::from_millis(500),
    max_body: 64 * 1024,
    poll: Duration::from_millis(20),
};

fn endpoint(url: &str, certificate: Option<&[u8]>) -> Result<Endpoint, EndpointError> {
    Endpoint::new(&Url::parse(url).unwrap(), certificate)
}

#[test]
fn a_secret_crosses_the_internet_only_encrypted() {
    for good in [
        "http://127.0.0.1:8080",
        "http://[::1]:8080/",
        "http://192.168.1.7:9740",
        "http://phoenixd:9740",
        "https://lnbits.example/base",
        "https://203.0.113.7:8080",
    ] {
        assert!(endpoint(good, None).is_ok(), "{good}");
    }
    for (bad, why) in [
        ("http://8.8.8.8:8080", EndpointError::PlainHttp),
        ("http://[2606:4700::1111]:8080", EndpointError::PlainHttp),
        ("ftp://127.0.0.1/", EndpointError::NoAddress),
        ("https://user:word@127.0.0.1/", EndpointError::NotPlain),
        ("https://127.0.0.1/?key=1", EndpointError::NotPlain),
    ] {
        assert_eq!(endpoint(bad, None), Err(why), "{bad}");
    }
    assert_eq!(endpoint("http://127.0.0.1/", Some(NODE_PEM)), Err(EndpointError::UselessCertificate));
    assert_eq!(endpoint("https://127.0.0.1/", Some(b"no certificate")), Err(EndpointError::NoCertificate));
    assert!(Pin::from_pem(NODE_PEM).is_some() && Pin::from_pem(NODE_PEM) != Pin::from_pem(OTHER_PEM));
}

#[test]
fn paths_are_put_under_the_address() {
    let endpoint = endpoint("https://host.example/lnd/", None).unwrap();
    assert_eq!(endpoint.at("v1/getinfo", &[]).as_str(), "https://host.example/lnd/v1/getinfo");
    let asked = endpoint.at("v1/x", &[("a", "b&c")]);
    assert_eq!(asked.as_str(), "https://host.example/lnd/v1/x?a=b%26c");
    assert_eq!(endpoint.at("../../admin", &[]).host_str(), Some("host.example"));
}

async fn lnd_with(certificate: &'static [u8]) -> Result<LndWallet, WalletError> {
    let (backing, _) = wallets();
    let server = lnd::start(backing).await.unwrap();
    let tls = TlsFront::open(server.address()).await.unwrap();
    let endpoint = Endpoint::new(&url_of("https", tls.address()), Some(certificate)).unwrap();
    LndWallet::connect(endpoint, &secret(lnd::MACAROON), NETWORK, OPTIONS).await
}

#[tokio::test]
async fn only_the_pinned_certificate_is_spoken_to() {
    assert!(lnd_with(NODE_PEM).await.is_ok());
    let refused = lnd_with(OTHER_PEM).await.unwrap_err();
    assert!(matches!(&refused, WalletError::Unreachable(why) if why.contains("certificate")), "{refused}");
}

#[tokio::test]
async fn an_authority_nobody_knows_is_not_trusted_without_being_pinned() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (backing, _) = wallets();
    let server = lnd::start(backing).await.unwrap();
    let tls = TlsFront::open(server.address()).await.unwrap();
    let endpoint = Endpoint::new(&url_of("https", tls.address()), None).unwrap();
    let refused = LndWallet::connect(endpoint, &secret(lnd::MACAROON), NETWORK, OPTIONS).await.unwrap_err();
    assert!(matches!(&refused, WalletError::Unreachable(why) if why.contains("certificate")), "{refused}");
}

/// A phoenixd: the plainest of them.
async fn plain() -> (WalletServer, PhoenixdWallet) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let server = phoenixd::start(wallets().0).await.unwrap();
    let endpoint = Endpoint::new(&server.url(), None).unwrap();
    let wallet = PhoenixdWallet::connect(endpoint, &secret(phoenixd::PASSWORD), NETWORK, HASTY).await.unwrap();
    (server, wallet)
}

#[tokio::test]
async fn a_server_that_is_silent_drips_or_floods_is_given_up_on() {
    let (server, wallet) = plain().await;
    for fault in [Fault::Silence, Fault::Drip, Fault::Flood] {
        server.faults().next(fault.clone());
        let error = wallet.create_invoice(&request(PRICE)).await.unwrap_err();
        assert!(!error.is_definitive(), "{fault:?}: {error}");
    }
    assert!(wallet.create_invoice(&request(PRICE)).await.is_ok());
}

#[tokio::test]
async fn every_status_has_its_meaning() {
    let (server, wallet) = plain().await;
    for (status, definitive) in [
        (200, false),
        (201, false),
        (302, false),
        (400, true),
        (401, true),
        (403, true),
        (404, true),
        (408, false),
        (409, true),
        (429, true),
        (499, false),
        (500, false),
        (502, false),
        (503, false),
        (520, false),
    ] {
        server.faults().next(Fault::Answer { status, body: "<html>no</html>".into() });
        let error = wallet.create_invoice(&request(PRICE)).await.unwrap_err();
        assert_eq!(error.is_definitive(), definitive, "{status}: {error}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (server, wallet) = plain().await;
    let elsewhere = phoenixd::start(wallets().0).await.unwrap();
    let there = format!("<a href=\"{}\">here</a>", elsewhere.url());
    server.faults().next(Fault::Answer { status: 307, body: there });
    assert!(matches!(wallet.balance().await, Err(WalletError::BadAnswer(_))));
}

#[tokio::test]
async fn a_server_that_is_away_is_unreachable() {
    let (server, wallet) = plain().await;
    drop(server);
    let error = wallet.balance().await.unwrap_err();
    assert!(matches!(error, WalletError::Unreachable(_)), "{error}");
}

#[tokio::test]
async fn neither_secret_nor_invoice_is_shown() {
    let (server, wallet) = plain().await;
    let shown = format!("{wallet:?}");
    assert!(!shown.contains(phoenixd::PASSWORD), "{shown}");
    let invoice = wallet.create_invoice(&request(PRICE)).await.unwrap();
    let long = format!("what about {} and {}", invoice.bolt11, "71a8c14c1407c113601079c4302dab36460f0ccd0ad506f1f2dc");
    for status in [400, 500] {
        server.faults().next(Fault::Answer { status, body: long.clone() });
        let error = wallet.create_invoice(&request(PRICE)).await.unwrap_err().to_string();
        assert!(error.contains("what about … and …"), "{error}");
    }
    drop(server);
    let payer = wallet.payer().unwrap();
    let error = payer.payment(&invoice.payment_hash).await.unwrap_err().to_string();
    assert!(!error.contains(&invoice.payment_hash.to_string()) && !error.contains("127.0.0.1"), "{error}");
    assert!(secret("x").expose_secret() == "x");
}
