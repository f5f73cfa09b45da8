//! What every wallet must do, whatever it is made of. One suite; each backend brings a [`WalletUnderTest`] and the
//! [`wallet_contract!`](crate::wallet_contract) macro makes a test of each rule.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backon::{ExponentialBuilder, Retryable};
use bitcoin::Network;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::job::id::PaymentHash;
use crate::money::Msat;
use crate::wallet::watch::{self, WatchEvent};
use crate::wallet::{
    HoldInvoices, Invoice, InvoiceRequest, InvoiceState, InvoiceUpdate, Payer, Wallet, WalletError, bolt11,
};

/// How long a rule may wait for news. Far more than any backend needs on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the suite asks for.
const AMOUNT: Msat = Msat::sat(21);

/// How long holds last.
const HOLD: Duration = Duration::from_secs(60 * 60);

/// A wallet and the world around it, which the suite moves.
#[async_trait]
pub trait WalletUnderTest: Send + Sync {
    /// The wallet.
    fn wallet(&self) -> Arc<dyn Wallet>;

    /// The network its invoices are for.
    fn network(&self) -> Network;

    /// Somebody pays an invoice of the wallet in full. For a hold invoice the money is held when this returns; else it is
    /// settled.
    async fn pay(&self, invoice: &Invoice);

    /// Somebody pays another amount than asked. `false` when that can't be done to this wallet.
    async fn pay_amount(&self, invoice: &Invoice, amount: Msat) -> bool;

    /// The time to pay an invoice of the wallet is over. `false` when that would take too long.
    async fn expire(&self, invoice: &Invoice) -> bool;

    /// Somebody pays an expired invoice all the same. `false` when that can't be done to this wallet.
    async fn pay_late(&self, invoice: &Invoice) -> bool;

    /// The wallet tells the same news again. `false` when it can't be made to.
    async fn repeat_news(&self, invoice: &Invoice) -> bool;

    /// The wallet makes its invoices over this amount, whatever is asked. `false` when it can't be made to.
    async fn lie_about_amount(&self, amount: Option<Msat>) -> bool;

    /// The connection to the wallet breaks, now. It comes back by itself.
    async fn interrupt(&self);

    /// Our side ends and starts anew: from now on [`WalletUnderTest::wallet`] is another one, of the same wallet. `false`
    /// when there is nothing of ours to restart.
    async fn restart(&self) -> bool {
        false
    }

    /// A held payment of the invoice passes its deadline without being taken. `false` when that would take too long.
    async fn pass_deadline(&self, _invoice: &Invoice) -> bool {
        false
    }

    /// An invoice of somebody else that the wallet can pay.
    async fn foreign_invoice(&self, amount: Msat) -> Invoice;

    /// More than the wallet has.
    async fn too_much(&self) -> Msat;
}

/// Makes a module's tests from the suite: `wallet_contract!(open)` where `open` is an async function that makes a new
/// [`WalletUnderTest`] each time.
#[macro_export]
macro_rules! wallet_contract {
    ($open:path) => {
        $crate::wallet_contract! { $open =>
            an_invoice_says_what_was_asked
            every_invoice_has_its_own_hash
            a_paid_invoice_is_settled_and_told
            an_unpaid_invoice_expires
            a_late_payment_is_seen
            another_amount_is_reported_as_it_arrived
            the_same_news_twice_says_the_same
            an_invoice_over_another_amount_is_never_handed_on
            an_unknown_hash_is_not_found
            a_held_payment_is_settled_by_its_preimage
            a_cancelled_hold_is_over
            nothing_is_taken_before_it_is_held
            a_hold_past_its_deadline_pays_nothing
            the_same_hold_invoice_can_be_asked_for_twice
            a_hold_survives_a_restart
            an_invoice_survives_a_restart
            paying_gives_the_proof
            an_invoice_is_paid_once
            what_came_and_went_is_remembered
            what_it_cannot_afford_is_not_paid
            a_payment_in_an_interruption_is_found_by_looking_up
            news_flows_again_after_an_interruption
        }
    };
    ($open:path => $($rule:ident)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $rule() {
                $crate::testing::wallet_contract::$rule($open().await).await;
            }
        )+
    };
}

/// Amount, description, hash, network and expiry are those asked for, and it is open.
pub async fn an_invoice_says_what_was_asked(world: impl WalletUnderTest) {
    let wallet = world.wallet();
    let asked = request(AMOUNT);
    let invoice = wallet.create_invoice(&asked).await.expect("an invoice");
    let read = bolt11::read_for_paying(&invoice.bolt11, world.network(), Timestamp::now()).expect("a good invoice");
    assert_eq!((read.amount, read.payment_hash), (AMOUNT, invoice.payment_hash));
    assert_eq!(read.description.as_deref(), Some(asked.description.as_str()));
    assert_eq!((invoice.amount, invoice.expires_at), (AMOUNT, read.expires_at));
    let remaining = invoice.expires_at.duration_since(Timestamp::now()).unsigned_abs();
    assert!(remaining <= asked.expiry && remaining + PATIENCE >= asked.expiry, "expires in {remaining:?}");
    assert_eq!(wallet.look_up(&invoice.payment_hash).await, Ok(InvoiceState::Open));
}

/// The same request twice makes two invoices.
pub async fn every_invoice_has_its_own_hash(world: impl WalletUnderTest) {
    let wallet = world.wallet();
    let first = wallet.create_invoice(&request(AMOUNT)).await.expect("an invoice");
    let second = wallet.create_invoice(&request(AMOUNT)).await.expect("an invoice");
    assert_ne!(first.payment_hash, second.payment_hash);
}

/// A payment is seen both ways: as news and by looking up.
pub async fn a_paid_invoice_is_settled_and_told(world: impl WalletUnderTest) {
    let wallet = world.wallet();
    let mut news = wallet.updates().await.expect("news");
    let invoice = wallet.create_invoice(&request(AMOUNT)).await.expect("an invoice");
    let other = wallet.create_invoice(&request(AMOUNT)).await.expect("an invoice");
    world.pay(&invoice).await;
    assert_settled(next_of(&mut news, &invoice).await, AMOUNT);
    assert_settled(wallet.look_up(&invoice.payment_hash).await.expect("known"), AMOUNT);
    assert_eq!(wallet.look_up(&other.payment_hash).await, Ok(InvoiceState::Open));
}

/// Time alone changes it.
pub async fn an_unpaid_invoice_expires(world: impl WalletUnderTest) {
    let wallet = world.wallet();
    let invoice = wallet.create_invoice(&request(AMOUNT)).await.expect("an invoice");
    if world.expire(&invoice).await {
        assert_eq!(wallet.look_up(&invoice.payment_hash).await, Ok(InvoiceState::Expired));
    }
}

/// Money that comes after the expiry is money.
pub async fn a_late_payment_is_seen(world: impl WalletUnderTest) {
    let wallet = world.wallet();
    let mut news = wallet.updates().await.expect("news");
    let invoice = wallet.create_invoice(&request(AMOUNT)).await.expect("an invoice");
    if world.expire(&invoice).await && world.pay_late(&invoice).await {
        let told = until(&mut news, &invoice, |state| matches!(state, InvoiceState::Settled { .. })).await;
        assert_settled(told, AMOUNT);
        assert_settled(wallet.look_up(&invoice.payment_hash).await.expect("known"), AMOUNT);
    }
}

/// What arrived is reported, not what was asked.
pub async fn another_amount_is_reported_as_it_arrived(world: impl WalletUnderTest) {
    let wallet = world.wallet();
    let mut news = wallet.updates().await.expect("news");
    let invoice = wallet.create_invoice(&request(AMOUNT)).await.expect("an invoice");
    let arrived = AMOUNT.saturating_add(Msat::sat(1));
    if world.pay_amount(&invoice, arrived).await {
        assert_settled(next_of(&mut news, &invoice).await, arrived);
        assert_settled(wallet.look_up(&invoice.payment_hash).await.expect("known"), arrived);
    }
}

/// News may repeat; it is the same news.
pub async fn the_same_news_twice_says_the_same(world: impl WalletUnderTest) {
    let wallet = world.wallet();
    let mut news = wallet.updates().await.expect("news");
    let invoice = wallet.create_invoice(&request(AMOUNT)).await.expect("an invoice");
    world.pay(&invoice).await;
    let first = next_of(&mut news, &invoice).await;
    if world.repeat_news(&invoice).await {
        assert_eq!(next_of(&mut news, &invoice).await, first);
    }
    assert_settled(wallet.look_up(&invoice.payment_hash).await.expect("known"), AMOUNT);
}

/// A lying wallet is caught before its invoice reaches anybody.
pub async fn an_invoice_over_another_amount_is_never_handed_on(world: impl WalletUnderTest) {
    let wallet = world.wallet();
    let invoiced = AMOUNT.saturating_add(Msat::msat(1));
    if world.lie_about_amount(Some(invoiced)).await {
        let made = wallet.create_invoice(&request(AMOUNT)).await;
        assert_eq!(made, Err(WalletError::InvoiceAmountMismatch { asked: AMOUNT, invoiced }));
        world.lie_about_amount(None).await;
        assert!(wallet.create_invoice(&request(AMOUNT)).await.is_ok());
    }
}

/// Nobody's hash is nobody's.
pub async fn an_unknown_hash_is_not_found(world: impl WalletUnderTest) {
    let wallet = world.wallet();
    assert_eq!(wallet.look_up(&PaymentHash([7; 32])).await, Err(WalletError::NotFound));
    if let Some(payer) = wallet.payer() {
        assert_eq!(payer.payment(&PaymentHash([7; 32])).await, Ok(None));
    }
}

/// Open, held, settled; settling again is no error.
pub async fn a_held_payment_is_settled_by_its_preimage(world: impl WalletUnderTest) {
    let wallet = world.wallet();
    let Some(holds) = holds(wallet.as_ref()) else { return };
    let mut news = wallet.updates().await.expect("news");
    let preimage = [21; 32];
    let hash = bolt11::hash_of(&preimage);
    let invoice = holds.create_hold_invoice(&request(AMOUNT), &hash, HOLD).await.expect("a hold invoice");
    assert_eq!((invoice.payment_hash, invoice.amount), (hash, AMOUNT));
    assert_eq!(wallet.look_up(&hash).await, Ok(InvoiceState::Open));
    world.pay(&invoice).await;
    assert_eq!(next_of(&mut news, &invoice).await, InvoiceState::Held { amount: AMOUNT });
    assert_eq!(wallet.look_up(&hash).await, Ok(InvoiceState::Held { amount: AMOUNT }));
    holds.settle(&preimage).await.expect("settles");
    let told = until(&mut news, &invoice, |state| matches!(state, InvoiceState::Settled { .. })).await;
    assert_settled(told, AMOUNT);
    assert_settled(wallet.look_up(&hash).await.expect("known"), AMOUNT);
    holds.settle(&preimage).await.expect("settling twice is no error");
    assert!(holds.cancel(&hash).await.is_err(), "what is taken can't be given back");
}

/// Held, cancelled; cancelling again is no error, and the money can't be taken any more.
pub async fn a_cancelled_hold_is_over(world: impl WalletUnderTest) {
    let wallet = world.wallet();
    let Some(holds) = holds(wallet.as_ref()) else { return };
    let preimage = [22; 32];
    let hash = bolt11::hash_of(&preimage);
    let invoice = holds.create_hold_invoice(&request(AMOUNT), &hash, HOLD).await.expect("a hold invoice");
    world.pay(&invoice).await;
    holds.cancel(&hash).await.expect("cancels");
    assert_eq!(wallet.look_up(&hash).await, Ok(InvoiceState::Cancelled));
    holds.cancel(&hash).await.expect("cancelling twice is no error");
    assert!(holds.settle(&preimage).await.is_err());
    assert_eq!(wallet.look_up(&hash).await, Ok(InvoiceState::Cancelled));
}

/// Settling an unpaid hold invoice takes nothing.
pub async fn nothing_is_taken_before_it_is_held(world: impl WalletUnderTest) {
    let wallet = world.wallet();
    let Some(holds) = holds(wallet.as_ref()) else { return };
    let preimage = [23; 32];
    let hash = bolt11::hash_of(&preimage);
    holds.create_hold_invoice(&request(AMOUNT), &hash, HOLD).await.expect("a hold invoice");
    assert!(holds.settle(&preimage).await.is_err());
    assert_eq!(wallet.look_up(&hash).await, Ok(InvoiceState::Open));
    assert!(holds.settle(&[24; 32]).await.is_err(), "nobody knows that preimage");
}

/// The network takes it back; taking it afterwards is a clear error and takes nothing.
pub async fn a_hold_past_its_deadline_pays_nothing(world: impl WalletUnderTest) {
    let wallet = world.wallet();
    let Some(holds) = holds(wallet.as_ref()) else { return };
    let preimage = [25; 32];
    let hash = bolt11::hash_of(&preimage);
    let invoice = holds.create_hold_invoice(&request(AMOUNT), &hash, HOLD).await.expect("a hold invoice");
    world.pay(&invoice).await;
    if world.pass_deadline(&invoice).await {
        assert!(holds.settle(&preimage).await.is_err(), "taking it too late is no success");
        assert_eq!(wallet.look_up(&hash).await, Ok(InvoiceState::Cancelled));
    }
}

/// As after a crash between making and recording it.
pub async fn the_same_hold_invoice_can_be_asked_for_twice(world: impl WalletUnderTest) {
    let wallet = world.wallet();
    let Some(holds) = holds(wallet.as_ref()) else { return };
    let preimage = [26; 32];
    let hash = bolt11::hash_of(&preimage);
    holds.create_hold_invoice(&request(AMOUNT), &hash, HOLD).await.expect("a hold invoice");
    let again = holds.create_hold_invoice(&request(AMOUNT), &hash, HOLD).await.expect("the hold invoice again");
    assert_eq!((again.payment_hash, again.amount), (hash, AMOUNT));
    world.pay(&again).await;
    assert_eq!(wallet.look_up(&hash).await, Ok(InvoiceState::Held { amount: AMOUNT }));
    holds.cancel(&hash).await.expect("cancels");
}

/// Held, our side dies, comes back, takes it.
pub async fn a_hold_survives_a_restart(world: impl WalletUnderTest) {
    let wallet = world.wallet();
    let preimage = [27; 32];
    let hash = bolt11::hash_of(&preimage);
    let invoice = {
        let Some(holds) = holds(wallet.as_ref()) else { return };
        holds.create_hold_invoice(&request(AMOUNT), &hash, HOLD).await.expect("a hold invoice")
    };
    world.pay(&invoice).await;
    drop(wallet);
    if world.restart().await {
        let wallet = world.wallet();
        assert_eq!(look_up_until(wallet.as_ref(), &invoice, is_held).await, InvoiceState::Held { amount: AMOUNT });
        let holds = holds(wallet.as_ref()).expect("it could before");
        holds.settle(&preimage).await.expect("settles");
        assert_settled(look_up_until(wallet.as_ref(), &invoice, is_settled).await, AMOUNT);
    }
}

/// Made, our side dies, comes back, is paid.
pub async fn an_invoice_survives_a_restart(world: impl WalletUnderTest) {
    let wallet = world.wallet();
    let invoice = wallet.create_invoice(&request(AMOUNT)).await.expect("an invoice");
    drop(wallet);
    if world.restart().await {
        let wallet = world.wallet();
        assert_eq!(look_up_stubbornly(wallet.as_ref(), &invoice).await, InvoiceState::Open);
        world.pay(&invoice).await;
        assert_settled(look_up_until(wallet.as_ref(), &invoice, is_settled).await, AMOUNT);
    }
}

/// Asked twice to pay the same invoice, the wallet has paid once.
pub async fn an_invoice_is_paid_once(world: impl WalletUnderTest) {
    let wallet = world.wallet();
    let Some(payer) = payer(wallet.as_ref()) else { return };
    let invoice = world.foreign_invoice(AMOUNT).await;
    let first = payer.pay(&invoice.bolt11, AMOUNT).await.expect("pays");
    let balance = wallet.balance().await.expect("a balance");
    if let Ok(again) = payer.pay(&invoice.bolt11, AMOUNT).await {
        assert_eq!(again.preimage, first.preimage);
    }
    assert_eq!(wallet.balance().await.expect("a balance"), balance, "it was paid twice");
    assert_eq!(payer.payment(&invoice.payment_hash).await.expect("known").expect("made").preimage, first.preimage);
}

/// What the books are compared with.
pub async fn what_came_and_went_is_remembered(world: impl WalletUnderTest) {
    let wallet = world.wallet();
    let began = Timestamp::now() - jiff::SignedDuration::from_secs(60);
    let Some(history) = wallet.history() else { return };
    let invoice = wallet.create_invoice(&request(AMOUNT)).await.expect("an invoice");
    let unpaid = wallet.create_invoice(&request(AMOUNT)).await.expect("an invoice");
    world.pay(&invoice).await;
    assert_settled(look_up_until(wallet.as_ref(), &invoice, is_settled).await, AMOUNT);
    let received = history.received(began).await.expect("what came");
    let found: Vec<_> = received.iter().filter(|one| one.payment_hash == invoice.payment_hash).collect();
    assert_eq!(found.iter().map(|one| one.amount).collect::<Vec<_>>(), [AMOUNT]);
    assert!(received.iter().all(|one| one.payment_hash != unpaid.payment_hash));
    if let Some(payer) = payer(wallet.as_ref()) {
        let bill = world.foreign_invoice(AMOUNT).await;
        payer.pay(&bill.bolt11, AMOUNT).await.expect("pays");
        let sent = history.sent(began).await.expect("what went");
        let found: Vec<_> = sent.iter().filter(|one| one.payment_hash == bill.payment_hash).collect();
        assert_eq!(found.iter().map(|one| one.amount).collect::<Vec<_>>(), [AMOUNT]);
    }
}

/// Paying returns the preimage of the hash, and so does asking later.
pub async fn paying_gives_the_proof(world: impl WalletUnderTest) {
    let wallet = world.wallet();
    let Some(payer) = payer(wallet.as_ref()) else { return };
    let invoice = world.foreign_invoice(AMOUNT).await;
    assert_eq!(payer.payment(&invoice.payment_hash).await, Ok(None));
    let payment = payer.pay(&invoice.bolt11, AMOUNT).await.expect("pays");
    assert!(bolt11::is_preimage(&payment.preimage, &invoice.payment_hash));
    let known = payer.payment(&invoice.payment_hash).await.expect("known").expect("made");
    assert_eq!(known.preimage, payment.preimage);
}

/// For certain.
pub async fn what_it_cannot_afford_is_not_paid(world: impl WalletUnderTest) {
    let wallet = world.wallet();
    let Some(payer) = payer(wallet.as_ref()) else { return };
    let invoice = world.foreign_invoice(world.too_much().await).await;
    let error = payer.pay(&invoice.bolt11, AMOUNT).await.expect_err("it has not that much");
    assert!(error.is_definitive(), "{error}");
    assert_eq!(payer.payment(&invoice.payment_hash).await.unwrap_or(None), None);
}

/// What a broken connection hides, the look-up after it shows.
pub async fn a_payment_in_an_interruption_is_found_by_looking_up(world: impl WalletUnderTest) {
    let wallet = world.wallet();
    let invoice = wallet.create_invoice(&request(AMOUNT)).await.expect("an invoice");
    let mut watched = Box::pin(watch::updates(Arc::clone(&wallet), CancellationToken::new()));
    assert_eq!(within(watched.next()).await, Some(WatchEvent::Reconnected));
    world.interrupt().await;
    world.pay(&invoice).await;
    reconnected(&mut watched).await;
    assert_settled(look_up_stubbornly(wallet.as_ref(), &invoice).await, AMOUNT);
}

/// A watcher is told to look up, and hears what comes after.
pub async fn news_flows_again_after_an_interruption(world: impl WalletUnderTest) {
    let wallet = world.wallet();
    let invoice = wallet.create_invoice(&request(AMOUNT)).await.expect("an invoice");
    let mut watched = Box::pin(watch::updates(Arc::clone(&wallet), CancellationToken::new()));
    assert_eq!(within(watched.next()).await, Some(WatchEvent::Reconnected));
    world.interrupt().await;
    reconnected(&mut watched).await;
    // Both ends are back when this is answered.
    assert_eq!(look_up_stubbornly(wallet.as_ref(), &invoice).await, InvoiceState::Open);
    world.pay(&invoice).await;
    let state = loop {
        match within(watched.next()).await.expect("a watch never ends") {
            WatchEvent::Update(update) if update.payment_hash == invoice.payment_hash => break update.state,
            WatchEvent::Update(_) => {}
            // With several connections there may be several interruptions.
            WatchEvent::Reconnected => match look_up_stubbornly(wallet.as_ref(), &invoice).await {
                InvoiceState::Open => {}
                state => break state,
            },
        }
    };
    assert_settled(state, AMOUNT);
}

fn request(amount: Msat) -> InvoiceRequest {
    InvoiceRequest {
        amount, description: "coinop job 5a5a… — “text”".to_owned(), expiry: Duration::from_secs(600)
    }
}

fn holds(wallet: &dyn Wallet) -> Option<&dyn HoldInvoices> {
    assert_eq!(wallet.hold_invoices().is_some(), wallet.capabilities().hold_invoices);
    wallet.hold_invoices()
}

fn payer(wallet: &dyn Wallet) -> Option<&dyn Payer> {
    assert_eq!(wallet.payer().is_some(), wallet.capabilities().pay);
    wallet.payer()
}

fn assert_settled(state: InvoiceState, expected: Msat) {
    match state {
        InvoiceState::Settled { amount, .. } => assert_eq!(amount, expected),
        other => panic!("expected it settled, found {other:?}"),
    }
}

async fn within<T>(event: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, event).await.expect("it should have happened by now")
}

/// The next news of an invoice.
async fn next_of(news: &mut BoxStream<'static, InvoiceUpdate>, invoice: &Invoice) -> InvoiceState {
    until(news, invoice, |_| true).await
}

async fn until(
    news: &mut BoxStream<'static, InvoiceUpdate>,
    invoice: &Invoice,
    wanted: impl Fn(InvoiceState) -> bool,
) -> InvoiceState {
    let search = async {
        loop {
            let update = news.next().await.expect("the stream should be alive");
            if update.payment_hash == invoice.payment_hash && wanted(update.state) {
                return update.state;
            }
        }
    };
    within(search).await
}

async fn reconnected(watched: &mut (impl Stream<Item = WatchEvent> + Unpin)) {
    while within(watched.next()).await != Some(WatchEvent::Reconnected) {}
}

fn is_held(state: InvoiceState) -> bool {
    matches!(state, InvoiceState::Held { .. })
}

fn is_settled(state: InvoiceState) -> bool {
    matches!(state, InvoiceState::Settled { .. })
}

/// Looks up until it stands as wanted: news may still be on its way.
async fn look_up_until(wallet: &dyn Wallet, invoice: &Invoice, wanted: fn(InvoiceState) -> bool) -> InvoiceState {
    let search = async {
        loop {
            let state = look_up_stubbornly(wallet, invoice).await;
            if wanted(state) {
                return state;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(search).await
}

/// Looks up as a provider does: again, as long as the answer is only that nobody answers.
async fn look_up_stubbornly(wallet: &dyn Wallet, invoice: &Invoice) -> InvoiceState {
    let backoff = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(20))
        .with_max_delay(Duration::from_secs(1))
        .without_max_times();
    let look_up = || wallet.look_up(&invoice.payment_hash);
    let found = look_up.retry(backoff).sleep(tokio::time::sleep).when(|error: &WalletError| !error.is_definitive());
    within(found).await.expect("known")
}
