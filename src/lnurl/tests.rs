//! Against a service on loopback, honest and not.

use serde_json::json;

use super::*;
use crate::fetch::FetchError;
use crate::testing::lnurl_service::{Cheats, LnurlService};
use crate::wallet::InvoiceError;
use crate::wallet::fake::{FakeNetwork, FakeWallet, FakeWalletOptions, NETWORK};

async fn service() -> LnurlService {
    let wallet = FakeWallet::open(&FakeNetwork::in_memory(), &[1; 32], FakeWalletOptions::default()).unwrap();
    LnurlService::start(wallet).await
}

fn client() -> LnurlClient {
    LnurlClient::new(NETWORK, true)
}

async fn ask(service: &LnurlService, amount: Msat) -> Result<PayableInvoice, LnurlError> {
    let endpoint = client().resolve(&service.address_of("ann").parse()?).await?;
    client().invoice(&endpoint, amount, Timestamp::now()).await
}

#[tokio::test]
async fn an_address_gives_an_invoice_over_exactly_what_was_asked() {
    let service = service().await;
    assert_eq!(ask(&service, Msat::msat(21_500)).await.unwrap().amount, Msat::msat(21_500));
    let endpoint = client().resolve(&service.url_of("ann").parse().unwrap()).await.unwrap();
    assert!(endpoint.zap_signer.is_some());
    service.cheat(Cheats { no_zaps: true, ..Cheats::default() });
    let endpoint = client().resolve(&service.url_of("ann").parse().unwrap()).await.unwrap();
    assert_eq!(endpoint.zap_signer, None);
}

#[tokio::test]
async fn an_amount_outside_of_what_it_takes_is_not_asked_for() {
    let service = service().await;
    for amount in [Msat::msat(999), Msat::sat(100_001)] {
        assert!(matches!(ask(&service, amount).await, Err(LnurlError::AmountNotTaken { .. })));
    }
    assert_eq!(service.invoices_asked(), 0);
}

#[tokio::test]
async fn an_invoice_that_is_not_the_one_asked_for_is_never_paid() {
    let service = service().await;
    let sat = Msat::sat(21);
    service.cheat(Cheats { amount: Some(Msat::sat(210)), ..Cheats::default() });
    let other = LnurlError::OtherAmount { asked: sat, invoiced: Msat::sat(210) };
    assert_eq!(ask(&service, sat).await, Err(other));
    service.cheat(Cheats { commits_to: Some("something else".into()), ..Cheats::default() });
    assert_eq!(ask(&service, sat).await, Err(LnurlError::Invoice(InvoiceError::OtherDescription)));
    for (answer, is_right) in [
        (
            json!({ "pr": "lnbc1junk" }),
            (|e| matches!(e, LnurlError::Invoice(InvoiceError::Unreadable(_)))) as fn(&_) -> bool,
        ),
        (json!({ "pr": null }), |e| matches!(e, LnurlError::BadAnswer(_))),
        (json!({ "status": "ERROR", "reason": "the node is down" }), |e| {
            *e == LnurlError::Refused("the node is down".into())
        }),
        (json!([]), |e| matches!(e, LnurlError::BadAnswer(_))),
    ] {
        service.cheat(Cheats { invoice: Some(answer.clone()), ..Cheats::default() });
        let problem = ask(&service, sat).await.unwrap_err();
        assert!(is_right(&problem), "{answer}: {problem}");
    }
    let mainnet = LnurlClient::new(Network::Bitcoin, true);
    service.cheat(Cheats::default());
    let endpoint = mainnet.resolve(&service.address_of("ann").parse().unwrap()).await.unwrap();
    let wrong = mainnet.invoice(&endpoint, sat, Timestamp::now()).await;
    assert!(matches!(wrong, Err(LnurlError::Invoice(InvoiceError::WrongNetwork { .. }))));
}

#[tokio::test]
async fn an_address_inside_our_own_network_is_refused_in_words() {
    let service = service().await;
    let strict = LnurlClient::new(NETWORK, false);
    for text in [service.address_of("ann"), "ann@localhost".into(), "ann@10.0.0.1".into(), "ann@[::1]:8080".into()] {
        let refused = strict.resolve(&text.parse().unwrap()).await.unwrap_err();
        assert_eq!(refused, LnurlError::Fetch(FetchError::NotPublic), "{text}");
        assert!(refused.to_string().contains("does not lead to a public host"), "{refused}");
    }
    let plain = strict.resolve(&service.url_of("ann").parse().unwrap()).await;
    assert_eq!(plain, Err(LnurlError::Target(TargetError::NotHttps)));
}

#[tokio::test]
async fn a_callback_without_encryption_is_not_asked() {
    let callback = Url::parse("http://example.com/pay").unwrap();
    assert_eq!(LnurlClient::new(NETWORK, false).check_scheme(&callback), Err(LnurlError::Insecure));
    assert_eq!(client().check_scheme(&callback), Ok(()));
}
