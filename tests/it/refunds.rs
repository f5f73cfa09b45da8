//! Credit paid back: by itself, by the operator, and at most once whatever happens in between.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use assert_cmd::Command;
use coinop::daemon::service::RefundPlan;
use coinop::executor::Prepared;
use coinop::inference::echo::Echo;
use coinop::job::event::Invoice;
use coinop::job::id::PaymentHash;
use coinop::job::{
    Code, CustomerId, EffectKey, Estimate, Failure, JobEvent, JobId, JobKind, JobRequest, Params, QuoteDraft, Rates,
    Terms,
};
use coinop::ledger::{Account, RefundState};
use coinop::lnurl::LnurlClient;
use coinop::money::{Msat, MsatDelta};
use coinop::nip90::Order;
use coinop::provider::{AutomaticRefunds, Clock, RefundError, RefundOrder, RefundTerms, reconcile_refunds, refund_now};
use coinop::store::{NewRefund, NotReserved, Store};
use coinop::testing::lnurl_service::{Cheats, LnurlService};
use coinop::testing::market::{Customer, MarketBuilder, PATIENCE, POCKET_MONEY, TestMarket, within};
use coinop::wallet::fake::{FakeNetwork, FakeWallet, FakeWalletOptions, NETWORK};
use coinop::wallet::{InvoiceState, Payer, Wallet, WalletError};
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};

const PRICE: Msat = Msat::sat(21);

fn plan(automatic: Option<AutomaticRefunds>) -> RefundPlan {
    RefundPlan {
        lnurl: LnurlClient::new(NETWORK, true),
        max_fee_percent: 1,
        automatic,
        every: Duration::from_millis(20),
    }
}

fn above(sats: u32) -> Option<AutomaticRefunds> {
    Some(AutomaticRefunds { above: Msat::sat(sats), max_per_day: Msat::sat(1_000) })
}

/// A market whose first job fails, a customer, and the customer's lightning address.
async fn open(change: impl FnOnce(MarketBuilder) -> MarketBuilder) -> (TestMarket, Customer, LnurlService) {
    let echo = Echo::new();
    echo.fail(1);
    let market = change(TestMarket::new().backend(echo)).start().await;
    let customer = market.customer().await;
    let service = LnurlService::start(customer.wallet.clone()).await;
    (market, customer, service)
}

/// Pays for a job that fails.
async fn pay_for_nothing(customer: &Customer, order: &Order) {
    let mut posted = customer.post(order).await;
    let invoice = posted.invoice().await;
    customer.pay(&invoice).await.unwrap();
    assert_eq!(posted.refusal().await.code, Code::Backend);
}

fn asking_back(customer: &Customer, address: String) -> Order {
    let mut order = customer.order("fail");
    order.params.push("refund", vec![address]);
    order
}

/// How a refund is paid by hand.
fn by_hand() -> RefundTerms {
    RefundTerms {
        lnurl: LnurlClient::new(NETWORK, true),
        addresses: Arc::new(()),
        max_fee_percent: 1,
        clock: Clock::system(),
    }
}

fn all_of(customer: &Customer, to: Option<String>) -> RefundOrder {
    RefundOrder { customer: customer.signer.customer_id(), amount: None, to, automatic_limit: None }
}

async fn balance(store: &Store, account: Account) -> MsatDelta {
    let balances = store.balances().await.unwrap();
    balances.iter().find(|line| line.account == account).map_or(MsatDelta::ZERO, |line| line.balance)
}

/// The market's store, wallet and a customer with credit of the price.
async fn in_credit() -> (TestMarket, Customer, LnurlService, Store, FakeWallet) {
    let (market, customer, service) = open(|market| market).await;
    pay_for_nothing(&customer, &customer.order("fail")).await;
    let (store, wallet) = (market.service().provider().store().clone(), market.wallet().clone());
    (market, customer, service, store, wallet)
}

#[tokio::test(flavor = "multi_thread")]
async fn credit_goes_back_by_itself_to_where_the_request_said() {
    let (mut market, customer, service) = open(|market| market.refunds(plan(above(21)))).await;
    let mut news = customer.wallet.updates().await.unwrap();
    pay_for_nothing(&customer, &asking_back(&customer, service.address_of("ann"))).await;
    let paid = within("the refund", news.next()).await.unwrap();
    assert!(matches!(paid.state, InvoiceState::Settled { amount: PRICE, .. }));
    assert_eq!(customer.wallet.funds().unwrap(), POCKET_MONEY);
    market.stop(PATIENCE).await;
    let (store, _closing) = market.second_store();
    let refunds = store.refunds().await.unwrap();
    assert_eq!((refunds.len(), refunds[0].state, refunds[0].automatic), (1, RefundState::Paid, true));
    assert_eq!(refunds[0].payment_hash, paid.payment_hash);
    for account in [Account::Wallet, Account::Refunds, Account::Customer(customer.signer.customer_id())] {
        assert_eq!(balance(&store, account).await, MsatDelta::ZERO, "{account}");
    }
    drop(store);
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_request_names_its_address_just_as_well() {
    let (market, customer, service) = open(|market| market.refunds(plan(above(21)))).await;
    let mut news = customer.wallet.updates().await.unwrap();
    let mut order = asking_back(&customer, service.address_of("ann"));
    order.encryption = Some(coinop::job::Encryption::Nip44);
    pay_for_nothing(&customer, &order).await;
    within("the refund", news.next()).await.unwrap();
    assert_eq!(customer.wallet.funds().unwrap(), POCKET_MONEY);
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credit_goes_back_by_itself_to_the_address_of_the_profile() {
    let (market, customer, service) = open(|market| market.refunds(plan(above(21)))).await;
    let mut news = customer.wallet.updates().await.unwrap();
    let profile = serde_json::json!({ "name": "ann", "lud16": service.address_of("ann") }).to_string();
    customer.send(&customer.raw::<&str>(0, &[], &profile, Timestamp::now())).await;
    pay_for_nothing(&customer, &customer.order("fail")).await;
    within("the refund", news.next()).await.unwrap();
    assert_eq!(customer.wallet.funds().unwrap(), POCKET_MONEY);
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credit_below_the_limit_waits_for_the_next_job() {
    let (mut market, customer, service) = open(|market| market.refunds(plan(above(22)))).await;
    pay_for_nothing(&customer, &asking_back(&customer, service.address_of("ann"))).await;
    market.stop(PATIENCE).await;
    market.start_again().await.unwrap();
    let mut covered = customer.post(&customer.order("covered")).await;
    assert_eq!(covered.result().await.content, "covered");
    assert_eq!(service.invoices_asked(), 0);
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_an_address_that_is_none_is_told_so() {
    let (market, customer, _service) = open(|market| market).await;
    let mut posted = customer.post(&asking_back(&customer, "ann at example".into())).await;
    let refusal = posted.refusal().await;
    assert_eq!(refusal.code, Code::BadRequest);
    assert!(refusal.text.contains("refund"), "{}", refusal.text);
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_pays_credit_back_to_any_address() {
    let (market, customer, service, store, wallet) = in_credit().await;
    let terms = by_hand();
    let part = RefundOrder { amount: Some(Msat::sat(6)), ..all_of(&customer, Some(service.address_of("ann"))) };
    let refund = refund_now(&store, &wallet, &terms, part).await.unwrap();
    assert_eq!((refund.amount, refund.state, refund.automatic), (Msat::sat(6), RefundState::Paid, false));
    let rest = refund_now(&store, &wallet, &terms, all_of(&customer, Some(service.url_of("ann")))).await.unwrap();
    assert_eq!(rest.amount, Msat::sat(15));
    assert_eq!((customer.wallet.funds().unwrap(), wallet.funds().unwrap()), (POCKET_MONEY, Msat::ZERO));
    let nothing = refund_now(&store, &wallet, &terms, all_of(&customer, Some(service.address_of("ann")))).await;
    assert!(matches!(nothing, Err(RefundError::NothingToPay { .. })));
    drop((store, wallet));
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_that_can_not_be_leaves_the_credit_as_it_was() {
    let (market, customer, service, store, wallet) = in_credit().await;
    let terms = by_hand();
    let credit = async || store.credit(customer.signer.customer_id()).await.unwrap();
    let to_ann = || all_of(&customer, Some(service.address_of("ann")));
    let refused = refund_now(&store, &wallet, &terms, all_of(&customer, None)).await;
    assert!(matches!(refused, Err(RefundError::NoAddress)), "{refused:?}");
    let too_much = RefundOrder { amount: Some(Msat::sat(22)), ..to_ann() };
    let refused = refund_now(&store, &wallet, &terms, too_much).await;
    assert!(matches!(refused, Err(RefundError::NotReserved(NotReserved::TooLittleCredit { credit: PRICE }))));
    let split = RefundOrder { amount: Some(Msat::msat(1_500)), ..to_ann() };
    assert!(matches!(refund_now(&store, &wallet, &terms, split).await, Err(RefundError::WholeSats)));
    // An address that cheats.
    service.cheat(Cheats { amount: Some(Msat::sat(20)), ..Cheats::default() });
    assert!(matches!(refund_now(&store, &wallet, &terms, to_ann()).await, Err(RefundError::Lnurl(_))));
    service.cheat(Cheats::default());
    // An address inside the operator's network.
    let strict = RefundTerms { lnurl: LnurlClient::new(NETWORK, false), ..by_hand() };
    let refused = refund_now(&store, &wallet, &strict, to_ann()).await.unwrap_err();
    assert!(refused.to_string().contains("public host"), "{refused}");
    // A payment that finds no way, for certain.
    wallet.faults().fail_next(WalletError::PaymentFailed("no route".into()));
    let failed = refund_now(&store, &wallet, &terms, to_ann()).await;
    assert!(matches!(failed, Err(RefundError::Failed(WalletError::PaymentFailed(_)))), "{failed:?}");
    assert_eq!((credit().await, wallet.funds().unwrap()), (PRICE, PRICE));
    assert_eq!(store.check_books().await.unwrap(), Vec::<String>::new());
    drop((store, wallet));
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fees_are_the_operator_s_and_limited() {
    let costly = FakeWalletOptions { routing_fee: Msat::msat(211), ..FakeWalletOptions::default() };
    let (market, customer, service) = open(|market| market.wallet(costly)).await;
    pay_for_nothing(&customer, &customer.order("fail")).await;
    let (store, wallet) = (market.service().provider().store().clone(), market.wallet().clone());
    let to_ann = || all_of(&customer, Some(service.address_of("ann")));
    // One percent of 21 sat is 210 msat.
    let failed = refund_now(&store, &wallet, &by_hand(), to_ann()).await;
    assert!(matches!(failed, Err(RefundError::Failed(_))), "{failed:?}");
    let generous = RefundTerms { max_fee_percent: 2, ..by_hand() };
    let part = RefundOrder { amount: Some(Msat::sat(20)), ..to_ann() };
    let paid = refund_now(&store, &wallet, &generous, part).await.unwrap();
    assert_eq!(paid.fees, Some(Msat::msat(211)));
    assert_eq!(balance(&store, Account::Fees).await, MsatDelta::plus(Msat::msat(211)));
    assert_eq!(balance(&store, Account::Wallet).await, MsatDelta::plus(wallet.funds().unwrap()));
    drop((store, wallet));
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_whose_answer_is_lost_is_found_and_not_made_again() {
    let (market, customer, service, store, wallet) = in_credit().await;
    let to_ann = || all_of(&customer, Some(service.address_of("ann")));
    // The wallet pays, and neither answers that nor the first question about it.
    wallet.faults().lose_next_answer();
    wallet.faults().lose_next_answer();
    let doubt = refund_now(&store, &wallet, &by_hand(), to_ann()).await;
    assert!(matches!(doubt, Err(RefundError::InDoubt { .. })), "{doubt:?}");
    assert_eq!(store.credit(customer.signer.customer_id()).await.unwrap(), Msat::ZERO);
    assert_eq!(balance(&store, Account::Refunds).await, MsatDelta::minus(PRICE));
    assert_eq!(reconcile_refunds(&store, &wallet, Timestamp::now()).await.unwrap(), 0);
    assert_eq!(store.refunds().await.unwrap()[0].state, RefundState::Paid);
    assert_eq!(customer.wallet.funds().unwrap(), POCKET_MONEY);
    drop((store, wallet));
    market.finish().await;
}

/// A refund as a process that died left it: set aside, and (`asked`) perhaps paid.
async fn left_behind(store: &Store, customer: CustomerId, hash: PaymentHash, at: Timestamp, asked: bool) {
    let new = NewRefund {
        payment_hash: hash,
        customer,
        amount: PRICE,
        target: "ann@example.com".into(),
        expires_at: at,
        automatic_limit: None,
    };
    store.reserve_refund(new, at).await.unwrap().unwrap();
    if asked {
        assert!(store.begin_refund(hash).await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credit_set_aside_by_a_process_that_died_before_paying_is_given_back() {
    let (mut market, customer, _service) = open(|market| market.refunds(plan(None))).await;
    pay_for_nothing(&customer, &customer.order("fail")).await;
    market.stop(PATIENCE).await;
    let (store, closing) = market.second_store();
    left_behind(&store, customer.signer.customer_id(), PaymentHash([7; 32]), Timestamp::now(), false).await;
    drop(store);
    tokio::task::spawn_blocking(move || closing.wait()).await.unwrap();
    market.start_again().await.unwrap();
    market.stop(PATIENCE).await;
    let (store, _closing) = market.second_store();
    assert_eq!(store.credit(customer.signer.customer_id()).await.unwrap(), PRICE);
    drop(store);
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_paid_by_a_process_that_died_is_booked_by_the_next() {
    let (market, customer, service, store, wallet) = in_credit().await;
    let terms = by_hand();
    let endpoint = terms.lnurl.resolve(&service.address_of("ann").parse().unwrap()).await.unwrap();
    let invoice = terms.lnurl.invoice(&endpoint, PRICE, Timestamp::now()).await.unwrap();
    left_behind(&store, customer.signer.customer_id(), invoice.payment_hash, Timestamp::now(), true).await;
    wallet.pay(&invoice.bolt11, Msat::ZERO).await.unwrap();
    assert_eq!(reconcile_refunds(&store, &wallet, Timestamp::now()).await.unwrap(), 0);
    assert_eq!(store.refunds().await.unwrap()[0].state, RefundState::Paid);
    assert_eq!(store.check_books().await.unwrap(), Vec::<String>::new());
    drop((store, wallet));
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_nobody_knows_the_end_of_is_never_paid_again_and_not_given_back_too_soon() {
    let (market, customer, service, store, wallet) = in_credit().await;
    let (now, us) = (Timestamp::now(), customer.signer.customer_id());
    left_behind(&store, us, PaymentHash([7; 32]), now, true).await;
    assert_eq!(reconcile_refunds(&store, &wallet, now).await.unwrap(), 1);
    assert_eq!(store.credit(us).await.unwrap(), Msat::ZERO);
    let again = refund_now(&store, &wallet, &by_hand(), all_of(&customer, Some(service.address_of("ann")))).await;
    assert!(matches!(again, Err(RefundError::NothingToPay { .. })), "{again:?}");
    // A wallet that does not answer says nothing about it either.
    wallet.faults().go_silent(true);
    let much_later = now + SignedDuration::from_hours(16 * 24);
    assert_eq!(reconcile_refunds(&store, &wallet, much_later).await.unwrap(), 1);
    wallet.faults().go_silent(false);
    assert_eq!(reconcile_refunds(&store, &wallet, much_later).await.unwrap(), 0);
    assert_eq!((store.credit(us).await.unwrap(), wallet.funds().unwrap()), (PRICE, PRICE));
    drop((store, wallet));
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_a_job_goes_back_too() {
    let rates = coinop::job::Rates { per_1k_generated: Msat::sat(1_000), ..Default::default() };
    let market = TestMarket::new().rates(rates).terms(Terms::Prepay).refunds(plan(above(5))).start().await;
    let customer = market.customer().await;
    let service = LnurlService::start(customer.wallet.clone()).await;
    let mut news = customer.wallet.updates().await.unwrap();
    let mut order = asking_back(&customer, service.address_of("ann"));
    order.params.push("max_tokens", vec!["10".into()]);
    let mut posted = customer.post(&order).await;
    let invoice = posted.invoice().await;
    customer.pay(&invoice).await.unwrap();
    posted.result().await;
    within("the refund", news.next()).await.unwrap();
    assert_eq!(customer.wallet.funds().unwrap(), POCKET_MONEY.checked_sub(Msat::sat(1)).unwrap());
    market.finish().await;
}

/// Runs the program on an installation while the services of the test go on.
async fn coinop(home: &Path, args: &[&str]) -> (i32, String) {
    let mut command = Command::cargo_bin("coinop").unwrap();
    command.env_clear().arg("--home").arg(home.join("home")).arg("--password-file").arg(home.join("pw")).args(args);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    assert!(!said.contains("panicked"), "{said}");
    (output.status.code().unwrap(), said)
}

/// A customer's credit in a database, from a job that failed.
async fn owe(store: &Store, customer: CustomerId, amount: Msat) {
    let request = JobRequest {
        id: JobId([1; 32]),
        customer,
        kind: JobKind::TextGeneration,
        created_at: Timestamp::now(),
        expires_at: None,
        inputs: vec![],
        params: Params::default(),
        output: None,
        bid: None,
        addressed: true,
        relays: vec![],
        encryption: None,
        event_json: "{}".into(),
    };
    let estimate = Estimate::tokens(1, 1);
    let draft = QuoteDraft {
        rates: Rates { base: amount, ..Rates::default() },
        estimate,
        terms: Terms::Prepay,
        on_the_house: false,
        free_per_day: 0,
        whole_sats: false,
        payment_window: SignedDuration::from_secs(60),
    };
    let (job, now) = (request.id, Timestamp::now());
    let prepared = Prepared {
        estimate,
        prompt_is_exact: true,
        stream: false,
        rates: None,
        lane: None,
        work: serde_json::Value::Null,
    };
    store.open_job(request, prepared, draft, now).await.unwrap();
    let invoice = Invoice { bolt11: "lnbcrt".into(), payment_hash: PaymentHash([1; 32]), amount, expires_at: now };
    store.advance(job, JobEvent::InvoiceIssued(invoice), now).await.unwrap();
    store.advance(job, JobEvent::PaymentSettled { amount }, now).await.unwrap();
    store.advance(job, JobEvent::run_failed(Failure::backend("x")), now).await.unwrap();
    for key in EffectKey::ALL {
        store.advance(job, JobEvent::NoticeDone(key), now).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_lists_credit_and_pays_it_back_once() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path();
    fs::write(home.join("pw"), "orbit velvet tundra seven").unwrap();
    let words = "leader monkey parrot ring guide accident before fence cannon height naive bean";
    fs::write(home.join("words"), words).unwrap();
    let phrase = home.join("words");
    let mut init = vec!["init", "--yes", "--phrase-file", phrase.to_str().unwrap(), "--relay", "ws://127.0.0.1:1"];
    init.extend(["--backend", "echo", "--play-money", "--terms", "prepay", "--base", "2sat"]);
    let (code, said) = coinop(home, &init).await;
    assert_eq!(code, 0, "{said}");
    // The customer's address is on this machine.
    let file = home.join("home").join("config.toml");
    let private = fs::read_to_string(&file).unwrap().replace("allow_private = false", "allow_private = true");
    fs::write(&file, private).unwrap();

    let customer = CustomerId(coinop::identity::Signer::random().customer_id().0);
    let (store, closing) = Store::open(&home.join("home").join("coinop.db")).unwrap();
    owe(&store, customer, PRICE).await;
    drop(store);
    tokio::task::spawn_blocking(move || closing.wait()).await.unwrap();
    // The provider's wallet has the money, and the customer's is on the same network.
    let (code, invoice) = coinop(home, &["wallet", "invoice", "21sat", "--json"]).await;
    assert_eq!(code, 0, "{invoice}");
    let invoice: serde_json::Value = serde_json::from_str(&invoice).unwrap();
    let network = FakeNetwork::open(&home.join("home").join("play-money.journal")).unwrap();
    let rich = FakeWalletOptions { opening_balance: PRICE, ..FakeWalletOptions::default() };
    let payer = FakeWallet::open(&network, &[5; 32], rich).unwrap();
    payer.pay(invoice["bolt11"].as_str().unwrap(), Msat::ZERO).await.unwrap();
    let purse = FakeWallet::open(&network, &[6; 32], FakeWalletOptions::default()).unwrap();
    let service = LnurlService::start(purse.clone()).await;

    let (code, listed) = coinop(home, &["refund", "--json"]).await;
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!((code, &listed["credit"][0]["credit_msat"]), (0, &serde_json::json!(21_000)));
    let (key, to) = (customer.to_string(), service.address_of("ann"));
    let (code, paid) = coinop(home, &["refund", &key, "--to", &to, "--json"]).await;
    assert_eq!(code, 0, "{paid}");
    let paid: serde_json::Value = serde_json::from_str(&paid).unwrap();
    assert_eq!(paid[0]["refund"]["state"], "paid");
    assert_eq!(purse.funds().unwrap(), PRICE);
    let (code, again) = coinop(home, &["refund", &key, "--to", &to]).await;
    assert!(code == 1 && again.contains("less than a satoshi"), "{again}");
    let (code, none) = coinop(home, &["refund"]).await;
    assert!(code == 0 && none.contains("No customer has credit"), "{none}");
    let (code, wrong) = coinop(home, &["refund", "nobody"]).await;
    assert_eq!(code, 2, "{wrong}");
    assert_eq!(coinop(home, &["ledger"]).await.0, 0);
}
