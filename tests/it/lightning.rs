//! Jobs paid with real Lightning payments: the provider's wallet and the customer's are embedded nodes with a channel between
//! them, on a chain that executes every script. What moved is asked of the nodes themselves.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::{Amount, OutPoint};
use coinop::inference::echo::Echo;
use coinop::job::{Code, PaymentState, Terms, WorkState};
use coinop::money::Msat;
use coinop::testing::market::{Customer, PATIENCE, TestMarket, within};
use coinop::testing::regtest::{ChannelPlan, Regtest, RegtestNode, free_address, own_node};
use coinop::wallet::ldk::{LdkConfig, LdkLsp, LdkWallet};
use coinop::wallet::{InvoiceState, Node as _, Wallet, WalletError, hold_window};
use tempfile::TempDir;

use crate::on_chain::{CHANNEL_FEE_PPM, liquidity_provider, on_every_chain};

const PRICE: Msat = Msat::sat(21);

on_every_chain! {
    a_prepaid_job_is_paid_and_delivered
    a_postpaid_result_is_out_once_the_node_has_the_money
    held_money_is_taken_once_the_result_is_stored
    a_job_that_fails_gives_the_held_money_back
    a_job_that_takes_too_long_gives_the_held_money_back
    a_job_its_customer_drops_gives_the_held_money_back
    a_hold_whose_deadline_passes_in_blocks_charges_nothing_and_stays_off_the_chain
    a_job_too_long_to_be_held_is_paid_before
    a_provider_without_a_channel_is_paid_over_one_made_for_it
}

/// What each node has on the chain at first: a channel and the reserve for closing it.
const PURSE: Amount = Amount::from_sat(2_000_000);

/// The customer opens it. A part is the provider's from the start, so that every satoshi more can be seen.
const CHANNEL: ChannelPlan = ChannelPlan { size: Amount::from_sat(1_000_000), gift: Amount::from_sat(200_000) };

/// Blocks after which any payment that was held when they began has gone home, had nobody given it back.
const PAST_EVERY_DEADLINE: u32 = 60;

/// Between two looks at what nobody tells.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The provider's node and the customer's, and the chain they are on.
struct Lightning {
    regtest: Regtest,
    till: Arc<LdkWallet>,
    purse: Arc<LdkWallet>,
    _folders: [TempDir; 2],
}

/// The seeds of the two.
pub const TILL: [u8; 64] = [1; 64];
pub const CUSTOMER: [u8; 64] = [2; 64];

pub async fn node(config: LdkConfig, seed: &[u8; 64]) -> Arc<LdkWallet> {
    Arc::new(LdkWallet::open(config, seed).await.unwrap())
}

pub fn listening(mut config: LdkConfig) -> LdkConfig {
    config.listen = vec![free_address().unwrap().to_string()];
    config
}

impl Lightning {
    /// A chain, two nodes with money on it, and a channel from the customer to the provider.
    async fn open(regtest: Regtest) -> Self {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let till = node(listening(own_node(&regtest.access(), &folders[0].path().join("node"))), &TILL).await;
        let purse = node(own_node(&regtest.access(), &folders[1].path().join("node")), &CUSTOMER).await;
        open_channel(&regtest, &till, &purse).await;
        Self { regtest, till, purse, _folders: folders }
    }

    async fn customer(&self, market: &TestMarket) -> Customer {
        market.customer().await.pays_with(self.purse.clone())
    }

    /// Mines blocks, one after the other, both reading each.
    async fn mine(&self, blocks: u32) {
        for _ in 0..blocks {
            self.regtest.mine(1, &[&*self.till, &*self.purse]).await;
        }
    }

    /// What holds the channel's money.
    async fn funding(&self) -> OutPoint {
        self.purse.channels().await.unwrap()[0].funding.unwrap()
    }

    /// What each can pay: the customer, the provider.
    async fn funds(&self) -> (Msat, Msat) {
        (spendable(&self.purse).await, spendable(&self.till).await)
    }

    /// Waits until so much has moved from the customer to the provider since then, and nothing is under way.
    async fn moved(&self, before: (Msat, Msat), amount: Msat) {
        let after = (before.0.checked_sub(amount).unwrap(), before.1.saturating_add(amount));
        let looking = async {
            while self.funds().await != after {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        if tokio::time::timeout(PATIENCE, looking).await.is_err() {
            panic!("{:?} became {:?}, not {after:?}", before, self.funds().await);
        }
    }

    /// The channel is as alive as ever, and nothing of it was ever taken to the chain.
    async fn nothing_on_the_chain(&self, funding: OutPoint) {
        assert!(self.regtest.is_unspent(&funding).await, "the channel was closed");
        assert_eq!(self.regtest.mempool().await, []);
        assert_eq!(self.purse.usable_channels(&self.till.node_id()).await, 1);
    }

    async fn shut_down(self) {
        self.till.shut_down().await;
        self.purse.shut_down().await;
    }
}

/// Money for both, and a channel from the customer to the provider.
pub async fn open_channel(regtest: &Regtest, till: &LdkWallet, purse: &LdkWallet) {
    regtest.fund(till, PURSE).await;
    regtest.fund(purse, PURSE).await;
    regtest.open_channel(purse, till, CHANNEL).await;
}

pub async fn spendable(wallet: &LdkWallet) -> Msat {
    wallet.balance().await.unwrap().unwrap().spendable
}

async fn a_prepaid_job_is_paid_and_delivered(regtest: Regtest) {
    let lightning = Lightning::open(regtest).await;
    let market = TestMarket::new().price(PRICE).paid_into(lightning.till.clone()).start().await;
    let customer = lightning.customer(&market).await;
    let before = lightning.funds().await;
    assert_eq!(customer.buys("for real money").await.content, "for real money");
    lightning.moved(before, PRICE).await;
    market.finish().await;
    lightning.shut_down().await;
}

async fn a_postpaid_result_is_out_once_the_node_has_the_money(regtest: Regtest) {
    let lightning = Lightning::open(regtest).await;
    let market = TestMarket::new().price(PRICE).terms(Terms::Postpay).paid_into(lightning.till.clone()).start().await;
    let customer = lightning.customer(&market).await;
    let before = lightning.funds().await;
    assert_eq!(customer.buys("work first").await.content, "work first");
    lightning.moved(before, PRICE).await;
    market.finish().await;
    lightning.shut_down().await;
}

async fn held_money_is_taken_once_the_result_is_stored(regtest: Regtest) {
    let lightning = Lightning::open(regtest).await;
    let echo = Echo::new().gated();
    let market = hold_market(&lightning, echo.clone()).await;
    let customer = lightning.customer(&market).await;
    let before = lightning.funds().await;
    let mut posted = customer.post(&customer.order("hold it")).await;
    let invoice = posted.invoice().await;
    assert_eq!(invoice.feedback.terms, Some(Terms::Hold));
    let paying = customer.begin_to_pay(&invoice);
    within("the run", echo.wait_for_runs(1)).await;
    let held = lightning.till.look_up(&invoice.payment_hash).await;
    assert_eq!(held, Ok(InvoiceState::Held { amount: PRICE }));
    assert!(!paying.is_finished());
    assert_eq!(spendable(&lightning.till).await, before.1, "held is not had");

    echo.release(1);
    assert_eq!(posted.result().await.content, "hold it");
    paying.await.unwrap().unwrap();
    lightning.moved(before, PRICE).await;
    let job = market.job(posted.job).await;
    assert_eq!((job.work, job.payment), (WorkState::Delivered, PaymentState::Settled));
    market.finish().await;
    lightning.shut_down().await;
}

async fn hold_market(lightning: &Lightning, echo: Echo) -> TestMarket {
    let market = TestMarket::new().price(PRICE).terms(Terms::Hold).backend(echo);
    market.paid_into(lightning.till.clone()).start().await
}

async fn a_job_that_fails_gives_the_held_money_back(regtest: Regtest) {
    let lightning = Lightning::open(regtest).await;
    let echo = Echo::new();
    echo.fail(1);
    let market = hold_market(&lightning, echo).await;
    let customer = lightning.customer(&market).await;
    let (before, funding) = (lightning.funds().await, lightning.funding().await);
    let mut posted = customer.post(&customer.order("fail")).await;
    let paying = customer.begin_to_pay(&posted.invoice().await);
    assert_eq!(posted.refusal().await.code, Code::Backend);
    assert!(matches!(paying.await.unwrap(), Err(WalletError::PaymentFailed(_))));
    lightning.moved(before, Msat::ZERO).await;
    lightning.nothing_on_the_chain(funding).await;
    assert_eq!(market.job(posted.job).await.payment, PaymentState::Released);
    market.finish().await;
    lightning.shut_down().await;
}

async fn a_job_that_takes_too_long_gives_the_held_money_back(regtest: Regtest) {
    let lightning = Lightning::open(regtest).await;
    let market = TestMarket::new().price(PRICE).terms(Terms::Hold).backend(Echo::new().gated());
    let market = market.time_limit(Duration::from_millis(300)).paid_into(lightning.till.clone()).start().await;
    let customer = lightning.customer(&market).await;
    let before = lightning.funds().await;
    let mut posted = customer.post(&customer.order("too slow")).await;
    let paying = customer.begin_to_pay(&posted.invoice().await);
    assert_eq!(posted.refusal().await.code, Code::Timeout);
    assert!(matches!(paying.await.unwrap(), Err(WalletError::PaymentFailed(_))));
    lightning.moved(before, Msat::ZERO).await;
    market.finish().await;
    lightning.shut_down().await;
}

async fn a_job_its_customer_drops_gives_the_held_money_back(regtest: Regtest) {
    let lightning = Lightning::open(regtest).await;
    let echo = Echo::new().gated();
    let market = hold_market(&lightning, echo.clone()).await;
    let customer = lightning.customer(&market).await;
    let before = lightning.funds().await;
    let mut posted = customer.post(&customer.order("never mind")).await;
    let paying = customer.begin_to_pay(&posted.invoice().await);
    within("the run", echo.wait_for_runs(1)).await;
    customer.cancel(posted.job).await;
    assert!(matches!(paying.await.unwrap(), Err(WalletError::PaymentFailed(_))));
    lightning.moved(before, Msat::ZERO).await;
    assert_eq!(market.job(posted.job).await.work, WorkState::Cancelled);
    market.finish().await;
    lightning.shut_down().await;
}

async fn a_hold_whose_deadline_passes_in_blocks_charges_nothing_and_stays_off_the_chain(regtest: Regtest) {
    let lightning = Lightning::open(regtest).await;
    let echo = Echo::new().gated();
    let market = hold_market(&lightning, echo.clone()).await;
    let customer = lightning.customer(&market).await;
    let (before, funding) = (lightning.funds().await, lightning.funding().await);
    let mut posted = customer.post(&customer.order("while blocks come")).await;
    let invoice = posted.invoice().await;
    let paying = customer.begin_to_pay(&invoice);
    within("the run", echo.wait_for_runs(1)).await;

    // Longer than was asked for: payers add blocks to hide where a payment goes.
    let mut blocks = 0;
    while lightning.till.look_up(&invoice.payment_hash).await != Ok(InvoiceState::Cancelled) {
        assert!(blocks < 4 * hold_window::MOST_BLOCKS, "the hold never ends");
        lightning.mine(1).await;
        blocks += 1;
    }
    let refusal = posted.refusal().await;
    assert_eq!(refusal.code, Code::Expired, "{}", refusal.text);
    echo.release(1);
    assert!(matches!(paying.await.unwrap(), Err(WalletError::PaymentFailed(_))));
    lightning.mine(PAST_EVERY_DEADLINE).await;
    lightning.moved(before, Msat::ZERO).await;
    lightning.nothing_on_the_chain(funding).await;
    let job = market.job(posted.job).await;
    assert_eq!((job.work, job.payment, job.paid), (WorkState::Failed, PaymentState::Released, Msat::ZERO));
    market.finish().await;
    lightning.shut_down().await;
}

async fn a_job_too_long_to_be_held_is_paid_before(regtest: Regtest) {
    let lightning = Lightning::open(regtest).await;
    let market = TestMarket::new().price(PRICE).terms(Terms::Hold).time_limit(Duration::from_secs(12 * 60 * 60));
    let market = market.paid_into(lightning.till.clone()).start().await;
    let customer = lightning.customer(&market).await;
    let before = lightning.funds().await;
    let mut posted = customer.post(&customer.order("a long one")).await;
    let invoice = posted.invoice().await;
    assert_eq!(invoice.feedback.terms, Some(Terms::Prepay));
    customer.pay(&invoice).await.unwrap();
    assert_eq!(posted.result().await.content, "a long one");
    lightning.moved(before, PRICE).await;
    market.finish().await;
    lightning.shut_down().await;
}

async fn a_provider_without_a_channel_is_paid_over_one_made_for_it(regtest: Regtest) {
    // What a channel costs is taken from the first payment, so it has to be worth it.
    const FIRST: Msat = Msat::sat(50_000);
    let lsp = liquidity_provider(&regtest);
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut config = own_node(&regtest.access(), &folders[0].path().join("node"));
    config.lsp = Some(LdkLsp { node: RegtestNode::address(&lsp), token: None });
    let till = node(config, &TILL).await;
    let purse = node(own_node(&regtest.access(), &folders[1].path().join("node")), &CUSTOMER).await;
    regtest.fund(&lsp, PURSE).await;
    regtest.fund(&*purse, PURSE).await;
    regtest.open_channel(&*purse, &lsp, CHANNEL).await;
    RegtestNode::sync(&*till).await;

    let market = TestMarket::new().price(FIRST).terms(Terms::Hold).paid_into(till.clone()).start().await;
    let customer = market.customer().await.pays_with(purse.clone());
    let mut posted = customer.post(&customer.order("my first")).await;
    let paying = customer.begin_to_pay(&posted.invoice().await);
    assert_eq!(posted.result().await.content, "my first");
    paying.await.unwrap().unwrap();
    assert_eq!(market.job(posted.job).await.paid, FIRST, "the customer is not asked for what the channel costs");
    let status = till.status().await.unwrap();
    let kept = FIRST.per(u64::from(CHANNEL_FEE_PPM), 1_000_000);
    assert_eq!(status.in_channels, FIRST.checked_sub(kept).unwrap());
    let channels = till.channels().await.unwrap();
    assert_eq!((channels.len(), channels[0].peer), (1, RegtestNode::address(&lsp).node));
    market.finish().await;
    till.shut_down().await;
    purse.shut_down().await;
}
