//! Every term of payment, and credit.

use std::sync::Arc;

use coinop::inference::echo::Echo;
use coinop::job::{Code, Rates, Terms};
use coinop::ledger::Account;
use coinop::money::Msat;
use coinop::nip90::Order;
use coinop::requester::{Choice, Limits, Plan, Progress};
use coinop::testing::market::{Customer, TestMarket, within};
use coinop::wallet::WalletError;
use coinop::wallet::fake::NETWORK;
use jiff::SignedDuration;

/// 1 sat for each token written, nothing for those read.
fn a_sat_a_token() -> Rates {
    Rates { per_1k_generated: Msat::sat(1_000), ..Rates::default() }
}

fn order_of(customer: &Customer, text: &str, max_tokens: u32) -> Order {
    let mut order = customer.order(text);
    order.params.push("max_tokens", vec![max_tokens.to_string()]);
    order
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepaid_job_is_done_after_the_payment_and_not_before() {
    let echo = Echo::new();
    let market = TestMarket::new().price(Msat::sat(21)).backend(echo.clone()).start().await;
    let customer = market.customer().await;
    let mut posted = customer.post(&customer.order("hello over there")).await;

    let invoice = posted.invoice().await;
    assert_eq!((invoice.amount, invoice.feedback.terms), (Msat::sat(21), Some(Terms::Prepay)));
    assert_eq!(echo.runs(), 0);
    customer.pay(&invoice).await.unwrap();

    let result = posted.result().await;
    assert_eq!(result.content, "hello over there");
    assert_eq!(result.receipt.terms, Some(Terms::Prepay));
    assert_eq!(result.receipt.paid, Some(Msat::sat(21)));
    assert_eq!(result.receipt.credit, Some(Msat::ZERO));
    assert_eq!(result.amount.unwrap().bolt11, Some(invoice.bolt11));
    assert_eq!((echo.runs(), market.wallet().funds().unwrap()), (1, Msat::sat(21)));
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postpaid_result_is_never_out_before_it_is_paid() {
    let echo = Echo::new();
    let market = TestMarket::new().terms(Terms::Postpay).backend(echo.clone()).start().await;
    let customer = market.customer().await;
    let mut posted = customer.post(&customer.order("work first")).await;

    let invoice = posted.invoice().await;
    assert_eq!(echo.runs(), 1);
    // The result is signed and stored by now; a restart must not let it out either.
    customer.ping().await;
    let said = market.answers(posted.job).await;
    assert!(said.iter().all(|event| event.kind.as_u16() == 7000), "{said:?}");

    customer.pay(&invoice).await.unwrap();
    assert_eq!(posted.result().await.content, "work first");
    assert_eq!(echo.runs(), 1);
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unpaid_postpaid_result_stays_here() {
    let market = TestMarket::new().terms(Terms::Postpay).start().await;
    let customer = market.customer().await;
    let mut posted = customer.post(&customer.order("never paid")).await;
    let invoice = posted.invoice().await;
    market.wallet().expire(&invoice.payment_hash).unwrap();
    market.moments().told(posted.job, "lapsed").await;
    let job = posted.job;
    assert_eq!(market.finish().await.answers_of_kind(job, 6050).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_free_job_asks_for_nothing() {
    let market = TestMarket::new().terms(Terms::Free).without_wallet().start().await;
    let customer = market.customer().await;
    let mut posted = customer.post(&customer.broadcast("for nothing")).await;
    let result = posted.result().await;
    assert_eq!((result.content.as_str(), result.amount), ("for nothing", None));
    assert_eq!(result.receipt.terms, Some(Terms::Free));
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_free_quota_is_a_day_s_and_then_it_costs() {
    let market = TestMarket::new().price(Msat::sat(3)).free_per_day(2).start().await;
    let customer = market.customer().await;
    for text in ["one", "two"] {
        assert_eq!(customer.post(&customer.order(text)).await.result().await.content, text);
    }
    let mut third = customer.post(&customer.order("three")).await;
    assert_eq!(third.invoice().await.amount, Msat::sat(3));
    let other = market.customer().await;
    assert_eq!(other.post(&other.order("mine")).await.result().await.content, "mine");
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn held_money_is_taken_once_the_work_is_done() {
    let echo = Echo::new().gated();
    let market = TestMarket::new().terms(Terms::Hold).backend(echo.clone()).start().await;
    let customer = market.customer().await;
    let mut posted = customer.post(&customer.order("hold it")).await;
    let invoice = posted.invoice().await;
    assert_eq!(invoice.feedback.terms, Some(Terms::Hold));
    let paying = customer.begin_to_pay(&invoice);
    within("the run", echo.wait_for_runs(1)).await;
    assert_eq!(market.wallet().funds().unwrap(), Msat::ZERO);
    assert!(!paying.is_finished());

    echo.release(1);
    assert_eq!(posted.result().await.content, "hold it");
    paying.await.unwrap().unwrap();
    assert_eq!(market.wallet().funds().unwrap(), Msat::sat(21));
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn held_money_goes_back_when_the_work_fails() {
    let echo = Echo::new();
    echo.fail(1);
    let market = TestMarket::new().terms(Terms::Hold).backend(echo).start().await;
    let customer = market.customer().await;
    let before = customer.wallet.funds().unwrap();
    let mut posted = customer.post(&customer.order("fail")).await;
    let invoice = posted.invoice().await;
    let paying = customer.begin_to_pay(&invoice);
    assert_eq!(posted.refusal().await.code, Code::Backend);
    assert!(matches!(paying.await.unwrap(), Err(WalletError::PaymentFailed(_))));
    assert_eq!(customer.wallet.funds().unwrap(), before);
    let store = market.service().provider().store().clone();
    assert_eq!(store.credit(customer.signer.customer_id()).await.unwrap(), Msat::ZERO);
    drop(store);
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_used_pays_for_the_next_job() {
    let market = TestMarket::new().rates(a_sat_a_token()).start().await;
    let customer = market.customer().await;

    let mut first = customer.post(&order_of(&customer, "three words only", 10)).await;
    let invoice = first.invoice().await;
    assert_eq!(invoice.amount, Msat::sat(10));
    customer.pay(&invoice).await.unwrap();
    let receipt = first.result().await.receipt;
    assert_eq!((receipt.paid, receipt.credit), (Some(Msat::sat(3)), Some(Msat::sat(7))));

    let mut second = customer.post(&order_of(&customer, "two words", 10)).await;
    let invoice = second.invoice().await;
    assert_eq!(invoice.amount, Msat::sat(3));
    assert!(invoice.feedback.text.as_ref().unwrap().contains("7 sat of your credit"), "{:?}", invoice.feedback.text);
    customer.pay(&invoice).await.unwrap();
    let receipt = second.result().await.receipt;
    assert_eq!((receipt.paid, receipt.credit), (Some(Msat::sat(2)), Some(Msat::sat(8))));

    // Now the credit covers all of it.
    let mut third = customer.post(&order_of(&customer, "covered", 8)).await;
    let receipt = third.result().await.receipt;
    assert_eq!((receipt.paid, receipt.credit), (Some(Msat::sat(1)), Some(Msat::sat(7))));
    assert!(third.heard.iter().all(|answer| !format!("{:?}", answer.body).contains("PaymentRequired")));

    let balances = market.service().provider().store().balances().await.unwrap();
    let of = |account| balances.iter().find(|line| line.account == account).map(|line| line.balance.as_msat());
    assert_eq!(of(Account::Wallet), Some(13_000));
    assert_eq!(of(Account::Customer(customer.signer.customer_id())), Some(-7_000));
    assert_eq!(of(Account::Income(coinop::job::JobKind::TextGeneration)), Some(-6_000));
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postpaid_job_costs_what_it_used() {
    let market = TestMarket::new().rates(a_sat_a_token()).terms(Terms::Postpay).start().await;
    let customer = market.customer().await;
    let mut posted = customer.post(&order_of(&customer, "four words are used", 100)).await;
    let invoice = posted.invoice().await;
    assert_eq!(invoice.amount, Msat::sat(4));
    customer.pay(&invoice).await.unwrap();
    assert_eq!(posted.result().await.receipt.credit, Some(Msat::ZERO));
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepaid_job_that_fails_becomes_credit_that_pays_the_next_try() {
    let echo = Echo::new();
    echo.fail(1);
    let market = TestMarket::new().backend(echo.clone()).start().await;
    let customer = market.customer().await;
    let mut posted = customer.post(&customer.order("unlucky")).await;
    let invoice = posted.invoice().await;
    customer.pay(&invoice).await.unwrap();
    let refusal = posted.refusal().await;
    assert_eq!(refusal.code, Code::Backend);
    assert!(refusal.text.contains("21 sat became credit"), "{}", refusal.text);

    let mut again = customer.post(&customer.order("unlucky again")).await;
    assert_eq!(again.result().await.content, "unlucky again");
    assert_eq!(echo.runs(), 2);
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_buyer_s_side_buys_from_the_provider_s_side() {
    let market = TestMarket::new().price(Msat::sat(5)).start().await;
    let customer = market.customer().await;
    let request = customer.sign(&customer.broadcast("buy this"));
    let job = coinop::job::JobId(request.id.0);
    let kind = coinop::job::JobKind::TextGeneration;
    let from = jiff::Timestamp::UNIX_EPOCH;
    let answers = customer.relays.follow(job, kind, &[], from, customer.codec.clone());
    let limits = Limits {
        max_cost: Msat::sat(5),
        offer_window: SignedDuration::from_millis(1),
        timeout: SignedDuration::from_secs(60),
    };
    let plan = Plan { request, asked: vec![], limits, choice: Choice::Cheapest, max_fee_percent: 0, network: NETWORK };
    let paid = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&paid);
    let receipt = within(
        "the purchase",
        customer.buyer().buy(plan, answers.readable(), move |progress| {
            if let Progress::Paid { amount, .. } = progress {
                seen.lock().unwrap().push(amount);
            }
        }),
    )
    .await
    .unwrap();
    assert_eq!((receipt.result.content.as_str(), receipt.paid), ("buy this", Msat::sat(5)));
    assert_eq!(*paid.lock().unwrap(), [Msat::sat(5)]);
    market.finish().await;
}
