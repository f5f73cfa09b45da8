//! A buyer in a process of its own, frozen while it pays and killed.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use coinop::identity::Signer;
use coinop::job::id::ProviderId;
use coinop::job::{JobId, JobKind};
use coinop::money::Msat;
use coinop::nip90::SignedEvent;
use coinop::provider::Clock;
use coinop::requester::{Book, BuyError, Buyer, Choice, Limits, NotBegun, Plan};
use coinop::store::purchases::{Purchases, SpendingState, Spent};
use coinop::testing::market::{Customer, PATIENCE, POCKET_MONEY, TestMarket, within};
use coinop::testing::nwc_service::{NwcService, NwcServiceOptions};
use coinop::wallet::fake::{FakeNetwork, FakeWallet, FakeWalletOptions, NETWORK};
use coinop::wallet::nwc::{NwcOptions, NwcUri, NwcWallet};
use coinop::wallet::{
    Balance, Capabilities, Invoice, InvoiceRequest, InvoiceState, InvoiceUpdate, Payer, Payment, PaymentHash, Wallet,
    WalletError,
};
use futures::stream::BoxStream;
use jiff::{SignedDuration, Timestamp};
use nostr::Keys;
use serde::{Deserialize, Serialize};

use super::PRICE;
use crate::crash::{MARK, ORDERS, Running};

/// What the child is to do.
#[derive(Clone, Serialize, Deserialize)]
struct Orders {
    relay: String,
    wallet: String,
    /// The key that signed the request: answers are for it.
    key: String,
    provider: ProviderId,
    request: SignedEvent,
    book: PathBuf,
    freeze: Option<Freeze>,
}

/// Where it freezes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Freeze {
    /// The payment is written down, the wallet was not asked.
    BeforePaying,
    /// The wallet has paid, nobody wrote it down.
    AfterPaying,
}

/// A wallet that never answers a payment.
struct Frozen(NwcWallet, Option<Freeze>);

#[async_trait]
impl Wallet for Frozen {
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn name(&self) -> &str {
        "frozen"
    }

    async fn create_invoice(&self, request: &InvoiceRequest) -> Result<Invoice, WalletError> {
        self.0.create_invoice(request).await
    }

    async fn look_up(&self, payment_hash: &PaymentHash) -> Result<InvoiceState, WalletError> {
        self.0.look_up(payment_hash).await
    }

    async fn updates(&self) -> Result<BoxStream<'static, InvoiceUpdate>, WalletError> {
        self.0.updates().await
    }

    async fn balance(&self) -> Result<Option<Balance>, WalletError> {
        self.0.balance().await
    }

    fn payer(&self) -> Option<&dyn Payer> {
        Some(self)
    }
}

#[async_trait]
impl Payer for Frozen {
    async fn pay(&self, bolt11: &str, max_fee: Msat) -> Result<Payment, WalletError> {
        let payer = self.0.payer().unwrap();
        match self.1 {
            None => return payer.pay(bolt11, max_fee).await,
            Some(Freeze::BeforePaying) => {}
            Some(Freeze::AfterPaying) => assert!(payer.pay(bolt11, max_fee).await.is_ok()),
        }
        println!("{MARK}frozen");
        std::future::pending().await
    }

    async fn payment(&self, payment_hash: &PaymentHash) -> Result<Option<Payment>, WalletError> {
        self.0.payer().unwrap().payment(payment_hash).await
    }
}

/// Not a test: the buyer's process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "is started by the stories here"]
async fn child() {
    let Ok(orders) = std::env::var(ORDERS) else { return };
    let orders: Orders = serde_json::from_str(&orders).unwrap();
    let uri: NwcUri = orders.wallet.parse().unwrap();
    let wallet = NwcWallet::connect(&uri, NwcOptions::default()).await.unwrap();
    let signer = Signer::new(Keys::parse(&orders.key).unwrap());
    let unused = FakeWallet::open(&FakeNetwork::in_memory(), &[9; 32], FakeWalletOptions::default()).unwrap();
    let listener = Customer::join(signer, &[orders.relay], orders.provider, unused).await;
    let job = JobId(orders.request.id.0);
    let from = Timestamp::UNIX_EPOCH;
    let answers = listener.relays.follow(job, JobKind::TextGeneration, &[], from, listener.codec.clone());
    let (purchases, _closing) = Purchases::open(&orders.book).unwrap();
    let buyer = Buyer {
        publisher: listener.relays.clone(),
        wallet: Some(Arc::new(Frozen(wallet, orders.freeze))),
        book: Some(Book { purchases, max_per_day: None }),
        clock: Clock::system(),
    };
    let plan = Plan {
        request: orders.request,
        asked: vec![orders.provider],
        limits: Limits {
            max_cost: PRICE,
            offer_window: SignedDuration::from_millis(1),
            timeout: SignedDuration::from_secs(60),
        },
        choice: Choice::First,
        max_fee_percent: 0,
        network: NETWORK,
    };
    match buyer.buy(plan, answers.readable(), |_| ()).await {
        Ok(_) => println!("{MARK}bought"),
        Err(BuyError::NotBegun(NotBegun::Known(state))) => println!("{MARK}known {}", state.word()),
        Err(other) => panic!("{other}"),
    }
}

/// This test's process of its own.
fn start(orders: &Orders) -> Running {
    Running::start_child("buying::killed::child", orders)
}

async fn says(buyer: &mut Running) -> String {
    within("a word of the buyer's process", buyer.says()).await
}

/// The buyer is killed while it pays, and its successor finds the same invoice again. Returns the book afterwards, the
/// wallet asked, and what the buyer's wallet has.
async fn killed(freeze: Freeze) -> (Spent, Msat) {
    let market = TestMarket::new().price(PRICE).start().await;
    let customer = market.customer().await;
    let relay = market.relay(0).url();
    let service =
        NwcService::start(std::slice::from_ref(&relay), customer.wallet.clone(), NwcServiceOptions::default())
            .await
            .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let orders = Orders {
        relay,
        wallet: service.uri().to_owned(),
        key: customer.signer.keys().secret_key().to_secret_hex(),
        provider: market.provider().provider_id(),
        request: customer.sign(&customer.order("once")),
        book: folder.path().join("payments.db"),
        freeze: Some(freeze),
    };
    let mut first = start(&orders);
    assert_eq!(says(&mut first).await, "frozen");
    first.kill();
    if freeze == Freeze::AfterPaying {
        market.moments().told(JobId(orders.request.id.0), "payment-settled").await;
    }

    let mut second = start(&Orders { freeze: None, ..orders.clone() });
    let said = says(&mut second).await;
    match freeze {
        Freeze::BeforePaying => assert_eq!(said, "known paying"),
        // The result may be read before the invoice.
        Freeze::AfterPaying => assert!(["known paying", "bought"].contains(&said.as_str()), "{said}"),
    }
    drop(second);

    let (purchases, _closing) = Purchases::open(&orders.book).unwrap();
    let book = Book { purchases, max_per_day: None };
    let uri: NwcUri = orders.wallet.parse().unwrap();
    let wallet = NwcWallet::connect(&uri, NwcOptions::default()).await.unwrap();
    book.reconcile(wallet.payer().unwrap(), NETWORK, Timestamp::now(), PATIENCE).await.unwrap();
    let mut payments = book.purchases.payments(0).await.unwrap();
    assert_eq!(payments.len(), 1);
    let funds = customer.wallet.funds().unwrap();
    market.finish().await;
    (payments.remove(0), funds)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_buyer_killed_before_it_paid_leaves_a_doubt_and_its_successor_pays_nothing() {
    let (payment, funds) = killed(Freeze::BeforePaying).await;
    assert_eq!((payment.state, funds), (SpendingState::Paying, POCKET_MONEY));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_buyer_killed_after_it_paid_has_its_proof_at_the_next_start_and_paid_once() {
    let (payment, funds) = killed(Freeze::AfterPaying).await;
    assert_eq!((payment.state, funds), (SpendingState::Paid, POCKET_MONEY.saturating_sub(PRICE)));
    assert!(payment.preimage.is_some());
}
