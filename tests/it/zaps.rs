//! Zaps as payment (NIP-57): what releases a job, and what never does.

use std::time::Duration;

use coinop::identity::Signer;
use coinop::inference::echo::Echo;
use coinop::job::id::EventId;
use coinop::job::{Job, JobId, PaidBy, PaymentState, Purse, Terms, WorkState};
use coinop::ledger::Account;
use coinop::money::{Msat, MsatDelta};
use coinop::nip90::{AnswerBody, Status};
use coinop::store::ZapRow;
use coinop::testing::lnurl_service::LnurlService;
use coinop::testing::market::{Customer, Invoiced, MarketBuilder, PATIENCE, Posted, TestMarket};
use coinop::wallet::fake::{FakeNetwork, FakeWallet, FakeWalletOptions};
use coinop::wallet::{PayableInvoice, WalletError};
use jiff::{SignedDuration, Timestamp};
use nostr::{Event, EventBuilder, JsonUtil, Keys, Kind, Tag};

/// A market whose lightning address another wallet serves.
async fn open(change: impl FnOnce(MarketBuilder) -> MarketBuilder) -> (TestMarket, LnurlService) {
    let elsewhere = FakeWallet::open(&FakeNetwork::in_memory(), &[9; 32], FakeWalletOptions::default()).unwrap();
    let service = LnurlService::start(elsewhere).await;
    let market = change(TestMarket::new().zaps(service.address_of("shop"))).start().await;
    (market, service)
}

/// Orders, and gives the offer's event with its invoice.
async fn ordered(customer: &Customer, text: &str) -> (Posted, Invoiced, EventId) {
    let mut posted = customer.post(&customer.order(text)).await;
    let invoice = posted.invoice().await;
    let offer = posted.heard.iter().find(
        |answer| matches!(&answer.body, AnswerBody::Feedback(feedback) if feedback.status == Status::PaymentRequired),
    );
    let offer = offer.unwrap().id;
    (posted, invoice, offer)
}

/// What a wallet's zap of an event leaves behind: the request, the invoice and the receipt.
fn zapped(
    market: &TestMarket,
    service: &LnurlService,
    zapper: &Signer,
    event: EventId,
    amount: Msat,
) -> (Event, PayableInvoice, Event) {
    let request = LnurlService::zap_request(zapper, market.provider().provider_id(), event, amount);
    let invoice = service.zap_invoice(&request, amount);
    let receipt = service.receipt(&request, &invoice);
    (request, invoice, receipt)
}

async fn zap(market: &TestMarket, service: &LnurlService, customer: &Customer, event: EventId, amount: Msat) {
    let (.., receipt) = zapped(market, service, &customer.signer, event, amount);
    market.relay(0).publish(receipt).await;
}

async fn balance(market: &TestMarket, account: Account) -> MsatDelta {
    let balances = market.service().provider().store().balances().await.unwrap();
    balances.iter().find(|line| line.account == account).map_or(MsatDelta::ZERO, |line| line.balance)
}

/// Stops the provider, after which everything it heard is decided.
async fn decided(market: &mut TestMarket, job: JobId) -> (Job, Vec<ZapRow>) {
    market.stop(PATIENCE).await;
    let (store, _closing) = market.second_store();
    (store.job(job).await.unwrap().unwrap().job, store.zaps().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zap_of_the_offer_releases_a_prepaid_job() {
    let (market, service) = open(|market| market).await;
    let customer = market.customer().await;
    let (mut posted, _, offer) = ordered(&customer, "zap me").await;
    zap(&market, &service, &customer, offer, Msat::sat(21)).await;
    assert_eq!(posted.result().await.content, "zap me");
    let job = market.job(posted.job).await;
    assert_eq!((job.payment, job.paid_by, job.paid), (PaymentState::Settled, PaidBy::Zap, Msat::sat(21)));
    assert_eq!(balance(&market, Account::Address).await, MsatDelta::plus(Msat::sat(21)));
    assert_eq!(balance(&market, Account::Wallet).await, MsatDelta::ZERO);
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn anybody_may_pay_for_the_customer() {
    let (market, service) = open(|market| market).await;
    let customer = market.customer().await;
    let (mut posted, _, offer) = ordered(&customer, "a friend pays").await;
    let (.., receipt) = zapped(&market, &service, &Signer::random(), offer, Msat::sat(21));
    market.relay(0).publish(receipt).await;
    assert_eq!(posted.result().await.content, "a friend pays");
    market.finish().await;
}

/// Receipts that pay for nothing, each wrong in one thing.
fn forgeries(
    market: &TestMarket,
    service: &LnurlService,
    customer: &Customer,
    job: JobId,
    offer: EventId,
) -> Vec<Event> {
    let (us, price) = (market.provider().provider_id(), Msat::sat(21));
    let (request, invoice, honest) = zapped(market, service, &customer.signer, offer, price);
    let now = Timestamp::now();
    // Signed by the service itself, so that only what it says is wrong.
    let with = |name: &str, value: String| {
        let tags = honest.tags.iter().map(|tag| match tag.as_slice() {
            [found, ..] if found == name => Tag::parse([name.to_owned(), value.clone()]).unwrap(),
            _ => tag.clone(),
        });
        service.sign(EventBuilder::new(Kind::from_u16(9735), "").tags(tags))
    };
    let other_request = LnurlService::zap_request(&customer.signer, us, EventId([7; 32]), price);
    let for_another_amount = LnurlService::zap_request(&customer.signer, us, offer, Msat::sat(42));
    let of_the_request = zapped(market, service, &customer.signer, EventId(job.0), price).2;
    let for_others = LnurlService::zap_request(&customer.signer, customer.signer.provider_id(), offer, price);
    vec![
        // By anybody: this is what a peer releases paid jobs on.
        LnurlService::receipt_by(&Keys::generate(), &request, &invoice.bolt11, now),
        LnurlService::receipt_by(customer.signer.keys(), &request, &invoice.bolt11, now),
        // An invoice for something else, or none.
        with("bolt11", service.zap_invoice(&other_request, price).bolt11),
        with("bolt11", "lnbcrt1junk".into()),
        // A zap request that nobody signed, or for another amount.
        with("description", request.as_json().replacen("\"content\":\"\"", "\"content\":\"x\"", 1)),
        service.receipt(&for_another_amount, &service.zap_invoice(&for_another_amount, price)),
        // Not one of our events: a stranger's, and the customer's own request.
        service.receipt(&other_request, &service.zap_invoice(&other_request, price)),
        of_the_request,
        // Somebody else was zapped.
        with("description", for_others.as_json()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn no_forged_receipt_releases_a_job() {
    let echo = Echo::new();
    let (mut market, service) = open(|market| market.backend(echo.clone())).await;
    let customer = market.customer().await;
    let (posted, _, offer) = ordered(&customer, "not for nothing").await;
    for forged in forgeries(&market, &service, &customer, posted.job, offer) {
        market.relay(0).publish(forged).await;
    }
    // An honest one behind them: when it has counted, they have been heard.
    let (mut other, _, other_offer) = ordered(&customer, "honest").await;
    zap(&market, &service, &customer, other_offer, Msat::sat(21)).await;
    assert_eq!(other.result().await.content, "honest");
    let (job, zaps) = decided(&mut market, posted.job).await;
    assert_eq!((job.work, job.payment, job.paid), (WorkState::Waiting, PaymentState::Awaiting, Msat::ZERO));
    assert_eq!((zaps.len(), echo.runs()), (1, 1));
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zap_counts_once_however_many_receipts_say_so() {
    let (mut market, service) = open(|market| market).await;
    let customer = market.customer().await;
    let (mut posted, _, offer) = ordered(&customer, "once").await;
    let (request, invoice, receipt) = zapped(&market, &service, &customer.signer, offer, Msat::sat(21));
    market.relay(0).publish(receipt).await;
    posted.result().await;
    for later in 1..4 {
        let at = Timestamp::now() + SignedDuration::from_secs(later);
        market.relay(0).publish(service.receipt_at(&request, &invoice, at)).await;
    }
    let (mut other, _, other_offer) = ordered(&customer, "behind them").await;
    zap(&market, &service, &customer, other_offer, Msat::sat(21)).await;
    other.result().await;
    let (job, zaps) = decided(&mut market, posted.job).await;
    assert_eq!((job.paid, job.credited, zaps.len()), (Msat::sat(21), Msat::ZERO, 2));
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zap_of_too_little_becomes_credit_and_the_job_waits() {
    let (market, service) = open(|market| market).await;
    let customer = market.customer().await;
    let (mut posted, _, offer) = ordered(&customer, "stingy").await;
    zap(&market, &service, &customer, offer, Msat::sat(20)).await;
    market.moments().told(posted.job, "zapped").await;
    let job = market.job(posted.job).await;
    assert_eq!((job.work, job.payment), (WorkState::Waiting, PaymentState::Awaiting));
    let store = market.service().provider().store().clone();
    assert_eq!(store.credit(customer.signer.customer_id()).await.unwrap(), Msat::sat(20));
    drop(store);
    zap(&market, &service, &customer, offer, Msat::sat(21)).await;
    posted.result().await;
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_zaps_and_pays_the_invoice_has_credit() {
    let (market, service) = open(|market| market).await;
    let customer = market.customer().await;
    let (mut posted, invoice, offer) = ordered(&customer, "twice").await;
    zap(&market, &service, &customer, offer, Msat::sat(21)).await;
    posted.result().await;
    customer.pay(&invoice).await.unwrap();
    market.moments().told(posted.job, "payment-settled").await;
    // And a zap of the result on top.
    let result = posted.heard.last().unwrap().id;
    zap(&market, &service, &customer, result, Msat::sat(5)).await;
    market.moments().told_in_all("zapped", 2).await;
    let store = market.service().provider().store().clone();
    assert_eq!(store.credit(customer.signer.customer_id()).await.unwrap(), Msat::sat(26));
    drop(store);
    let mut covered = customer.post(&customer.order("covered")).await;
    assert_eq!(covered.result().await.content, "covered");
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zap_withdraws_the_hold_invoice() {
    let (market, service) = open(|market| market.terms(Terms::Hold)).await;
    let customer = market.customer().await;
    let (mut posted, invoice, offer) = ordered(&customer, "no need to hold").await;
    zap(&market, &service, &customer, offer, Msat::sat(21)).await;
    posted.result().await;
    market.moments().told(posted.job, "hold-released").await;
    assert!(matches!(customer.pay(&invoice).await, Err(WalletError::PaymentFailed(_))));
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_our_own_wallet_knows_the_invoice_its_word_decides() {
    let echo = Echo::new();
    let poll = Duration::from_millis(20);
    let (mut market, service) = open(|m| m.backend(echo.clone()).settings(|s| s.payment_poll = poll)).await;
    service.pay_into(market.wallet().clone());
    let customer = market.customer().await;
    let (mut posted, _, offer) = ordered(&customer, "the wallet knows").await;
    let (_, invoice, receipt) = zapped(&market, &service, &customer.signer, offer, Msat::sat(21));
    // The service says it is paid before it is.
    market.relay(0).publish(receipt).await;
    let (mut other, other_invoice, _) = ordered(&customer, "meanwhile").await;
    customer.pay(&other_invoice).await.unwrap();
    other.result().await;
    let (job, zaps) = decided(&mut market, posted.job).await;
    assert_eq!((job.work, zaps.len(), echo.runs()), (WorkState::Waiting, 0, 1));
    // Not forgotten over the restart, and counted once the money is there.
    market.start_again().await.unwrap();
    market.wallet().settle(&invoice.payment_hash).unwrap();
    assert_eq!(posted.result().await.content, "the wallet knows");
    assert_eq!(balance(&market, Account::Wallet).await, MsatDelta::plus(Msat::sat(42)));
    let zaps = market.service().provider().store().zaps().await.unwrap();
    assert_eq!((zaps.len(), zaps[0].purse), (1, Purse::Wallet));
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_that_does_not_answer_is_asked_again() {
    let (market, service) = open(|m| m.settings(|s| s.payment_poll = Duration::from_millis(20))).await;
    let customer = market.customer().await;
    let (mut posted, _, offer) = ordered(&customer, "patience").await;
    market.wallet().faults().go_silent(true);
    zap(&market, &service, &customer, offer, Msat::sat(21)).await;
    customer.ping().await;
    assert_eq!(market.job(posted.job).await.work, WorkState::Waiting);
    market.wallet().faults().go_silent(false);
    posted.result().await;
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_that_came_while_we_were_down_is_found() {
    let (mut market, service) = open(|market| market).await;
    let customer = market.customer().await;
    let (mut posted, _, offer) = ordered(&customer, "while you were out").await;
    market.stop(PATIENCE).await;
    zap(&market, &service, &customer, offer, Msat::sat(21)).await;
    market.start_again().await.unwrap();
    assert_eq!(posted.result().await.content, "while you were out");
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zap_lets_a_postpaid_result_out() {
    let (market, service) = open(|market| market.terms(Terms::Postpay)).await;
    let customer = market.customer().await;
    let (mut posted, _, offer) = ordered(&customer, "work first").await;
    zap(&market, &service, &customer, offer, Msat::sat(21)).await;
    assert_eq!(posted.result().await.content, "work first");
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zap_of_a_free_result_is_a_gift() {
    let (mut market, service) = open(|market| market.terms(Terms::Free)).await;
    let customer = market.customer().await;
    let mut posted = customer.post(&customer.order("for nothing")).await;
    posted.result().await;
    let result = posted.heard.last().unwrap().id;
    zap(&market, &service, &customer, result, Msat::sat(21)).await;
    customer.ping().await;
    let (job, zaps) = decided(&mut market, posted.job).await;
    assert_eq!((job.paid, zaps.len()), (Msat::ZERO, 0));
    market.finish().await;
}
