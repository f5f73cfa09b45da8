use std::net::SocketAddr;

use futures::StreamExt;
use nostr_relay_builder::builder::RateLimit;
use nostr_relay_builder::{LocalRelay, RelayBuilder};

use super::*;
use crate::testing::gate::Gate;
use crate::testing::nwc_service::{NwcService, NwcServiceOptions};
use crate::testing::wallet_contract::WalletUnderTest;
use crate::wallet::fake::{FakeNetwork, FakeWallet, FakeWalletOptions, NETWORK};

const PRICE: Msat = Msat::sat(21);

/// Long enough for a busy machine, short enough that a message lost with a connection is asked for again soon.
const OPTIONS: NwcOptions = NwcOptions {
    network: Some(NETWORK),
    connect_timeout: Duration::from_secs(20),
    request_timeout: Duration::from_secs(3),
    payment_timeout: Duration::from_secs(10),
    retry: Duration::from_millis(50),
};

/// A relay, a service, its client, and somebody else with a wallet.
struct NwcWorld {
    wallet: Arc<NwcWallet>,
    /// The client after a restart.
    restarted: std::sync::Mutex<Option<Arc<NwcWallet>>>,
    service: NwcService,
    other: FakeWallet,
    gates: Vec<Gate>,
    _relays: Vec<LocalRelay>,
}

/// A relay behind a gate. The relay itself stays up: whether it was restarted or the line was cut, ephemeral messages are
/// lost and the sockets are gone.
async fn relay() -> (LocalRelay, Gate, String) {
    let relay =
        LocalRelay::new(RelayBuilder::default().rate_limit(RateLimit { max_reqs: 1_000, notes_per_minute: 100_000 }));
    relay.run().await.unwrap();
    let url = relay.url().await;
    let address: SocketAddr = url.as_str().trim_start_matches("ws://").trim_end_matches('/').parse().unwrap();
    let gate = Gate::open(address).await.unwrap();
    let url = format!("ws://{}", gate.address());
    (relay, gate, url)
}

async fn world_with(relays: usize, options: NwcServiceOptions) -> NwcWorld {
    let (mut gates, mut running, mut urls) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..relays {
        let (relay, gate, url) = relay().await;
        gates.push(gate);
        running.push(relay);
        urls.push(url);
    }
    let network = FakeNetwork::in_memory();
    let rich = FakeWalletOptions { opening_balance: Msat::sat(1_000), ..FakeWalletOptions::default() };
    let backing = FakeWallet::open(&network, &[1; 32], rich).unwrap();
    let other = FakeWallet::open(&network, &[2; 32], rich).unwrap();
    let service = NwcService::start(&urls, backing, options).await.unwrap();
    let wallet = NwcWallet::connect(&service.uri().parse().unwrap(), OPTIONS).await.unwrap();
    NwcWorld { wallet: Arc::new(wallet), restarted: Default::default(), service, other, gates, _relays: running }
}

async fn world() -> NwcWorld {
    world_with(1, NwcServiceOptions::default()).await
}

fn all(spendable: Msat) -> Balance {
    Balance { spendable, receivable: None, on_chain: None }
}

#[async_trait]
impl WalletUnderTest for NwcWorld {
    fn wallet(&self) -> Arc<dyn Wallet> {
        let restarted = self.restarted.lock().unwrap().clone();
        restarted.unwrap_or_else(|| Arc::clone(&self.wallet))
    }

    fn network(&self) -> Network {
        NETWORK
    }

    async fn pay(&self, invoice: &Invoice) {
        self.service.wallet().settle(&invoice.payment_hash).unwrap();
    }

    async fn pay_amount(&self, invoice: &Invoice, amount: Msat) -> bool {
        self.service.wallet().settle_amount(&invoice.payment_hash, amount).is_ok()
    }

    async fn expire(&self, invoice: &Invoice) -> bool {
        self.service.wallet().expire(&invoice.payment_hash).is_ok()
    }

    async fn pay_late(&self, invoice: &Invoice) -> bool {
        self.service.wallet().settle(&invoice.payment_hash).is_ok()
    }

    async fn repeat_news(&self, invoice: &Invoice) -> bool {
        self.service.wallet().repeat_news(&invoice.payment_hash).is_ok()
    }

    async fn lie_about_amount(&self, amount: Option<Msat>) -> bool {
        self.service.faults().lie_about_amount(amount);
        true
    }

    async fn interrupt(&self) {
        self.gates.iter().for_each(Gate::cut);
    }

    async fn restart(&self) -> bool {
        self.wallet.link.leave().await;
        let again = NwcWallet::connect(&self.service.uri().parse().unwrap(), OPTIONS).await.unwrap();
        *self.restarted.lock().unwrap() = Some(Arc::new(again));
        true
    }

    async fn pass_deadline(&self, invoice: &Invoice) -> bool {
        self.service.wallet().expire(&invoice.payment_hash).is_ok()
    }

    async fn foreign_invoice(&self, amount: Msat) -> Invoice {
        self.other.create_invoice(&request(amount)).await.unwrap()
    }

    async fn too_much(&self) -> Msat {
        self.service.wallet().funds().unwrap().saturating_add(Msat::msat(1))
    }
}

mod over_nip44 {
    use super::*;
    crate::wallet_contract!(world);
}

mod over_nip04 {
    use super::*;

    async fn open() -> NwcWorld {
        let world = world_with(1, NwcServiceOptions { nip44: false, ..NwcServiceOptions::default() }).await;
        assert!(!world.wallet.info().nip44);
        world
    }

    crate::wallet_contract! { open =>
        an_invoice_says_what_was_asked
        a_paid_invoice_is_settled_and_told
        a_held_payment_is_settled_by_its_preimage
        paying_gives_the_proof
    }
}

mod over_two_relays {
    use super::*;

    async fn open() -> NwcWorld {
        world_with(2, NwcServiceOptions::default()).await
    }

    crate::wallet_contract! { open =>
        a_paid_invoice_is_settled_and_told
        paying_gives_the_proof
        news_flows_again_after_an_interruption
    }
}

fn request(amount: Msat) -> InvoiceRequest {
    InvoiceRequest { amount, description: "a job".into(), expiry: Duration::from_secs(60) }
}

#[tokio::test]
async fn it_knows_what_the_connection_may_do() {
    let world = world().await;
    let info = world.wallet.info();
    assert_eq!((info.alias.as_deref(), info.network, info.nip44), (Some("fake"), NETWORK, true));
    assert_eq!(world.wallet.capabilities(), Capabilities { hold_invoices: true, pay: true, whole_sats: true });
    assert_eq!(world.wallet.balance().await, Ok(Some(all(Msat::sat(1_000)))));
    let options = NwcServiceOptions { hold_invoices: false, pay: false, ..NwcServiceOptions::default() };
    let world = world_with(1, options).await;
    assert_eq!(world.wallet.capabilities(), Capabilities { hold_invoices: false, pay: false, whole_sats: true });
    assert!(world.wallet.hold_invoices().is_none() && world.wallet.payer().is_none());
}

#[tokio::test]
async fn a_wallet_that_does_not_introduce_itself_is_spoken_to_in_nip04() {
    let world = world_with(1, NwcServiceOptions { introduces_itself: false, ..NwcServiceOptions::default() }).await;
    assert!(!world.wallet.info().nip44);
    assert!(world.wallet.create_invoice(&request(PRICE)).await.is_ok());
}

#[tokio::test]
async fn a_wallet_on_another_network_is_refused() {
    let world = world().await;
    let uri = world.service.uri().parse().unwrap();
    let refused = NwcWallet::connect(&uri, NwcOptions { network: Some(Network::Bitcoin), ..OPTIONS }).await;
    assert!(matches!(refused, Err(WalletError::Refused(_))), "{refused:?}");
}

#[tokio::test]
async fn a_silent_wallet_is_unreachable_and_nothing_is_certain() {
    let world = world().await;
    world.service.faults().go_silent(true);
    let patience = Duration::from_millis(200);
    let hurried = world.wallet.link.call::<wire::Balance>(Method::GetBalance, serde_json::json!({}), patience).await;
    let error = hurried.err().unwrap();
    assert!(matches!(error, WalletError::Unreachable(_)));
    assert!(!error.is_definitive());
    world.service.faults().go_silent(false);
    assert!(world.wallet.balance().await.is_ok());
}

#[tokio::test]
async fn without_a_relay_connecting_ends() {
    let (relay, gate, url) = relay().await;
    relay.shutdown();
    drop(gate);
    let uri = format!(
        "nostr+walletconnect://{}?relay={url}&secret={}",
        "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798",
        "11".repeat(32)
    );
    let options = NwcOptions { connect_timeout: Duration::from_millis(500), ..OPTIONS };
    let error = NwcWallet::connect(&uri.parse().unwrap(), options).await.err().unwrap();
    assert!(matches!(error, WalletError::Unreachable(_)), "{error}");
}

#[tokio::test]
async fn every_error_code_has_its_meaning() {
    let world = world().await;
    for (code, definitive) in [
        ("RATE_LIMITED", true),
        ("NOT_IMPLEMENTED", true),
        ("INSUFFICIENT_BALANCE", true),
        ("QUOTA_EXCEEDED", true),
        ("RESTRICTED", true),
        ("UNAUTHORIZED", true),
        ("NOT_FOUND", true),
        ("INTERNAL", false),
        ("OTHER", false),
        ("SOMETHING_NEW", false),
    ] {
        world.service.faults().fail_next(code);
        let error = world.wallet.create_invoice(&request(PRICE)).await.unwrap_err();
        assert_eq!(error.is_definitive(), definitive, "{code}: {error}");
    }
}

#[tokio::test]
async fn a_failed_payment_is_believed_only_after_looking_it_up() {
    let world = world().await;
    let payer = world.wallet.payer().unwrap();
    let unpaid = world.foreign_invoice(PRICE).await;
    world.service.faults().fail_next("PAYMENT_FAILED");
    assert!(matches!(payer.pay(&unpaid.bolt11, Msat::ZERO).await, Err(WalletError::PaymentFailed(_))));
    // The wallet says failed, but the money went out before.
    world.service.wallet().pay(&unpaid.bolt11, Msat::ZERO).await.unwrap();
    world.service.faults().fail_next("PAYMENT_FAILED");
    let paid = payer.pay(&unpaid.bolt11, Msat::ZERO).await.unwrap();
    assert!(bolt11::is_preimage(&paid.preimage, &unpaid.payment_hash));
}

#[tokio::test]
async fn settling_what_is_settled_is_done_whatever_the_wallet_says() {
    let world = world().await;
    let holds = world.wallet.hold_invoices().unwrap();
    let preimage = [8; 32];
    let invoice =
        holds.create_hold_invoice(&request(PRICE), &bolt11::hash_of(&preimage), Duration::from_secs(60)).await.unwrap();
    world.pay(&invoice).await;
    world.service.faults().fail_next("OTHER");
    assert!(holds.settle(&preimage).await.is_err(), "it is only held");
    holds.settle(&preimage).await.unwrap();
    world.service.faults().fail_next("OTHER");
    holds.settle(&preimage).await.unwrap();
}

#[tokio::test]
async fn a_hold_is_given_back_once_its_deadline_is_a_block_that_has_come() {
    let options =
        NwcServiceOptions { block_height: Some(100), settle_deadline: Some(110), ..NwcServiceOptions::default() };
    let world = world_with(1, options).await;
    assert!(world.wallet.info().tells_height);
    let holds = world.wallet.hold_invoices().unwrap();
    let made = async |preimage: [u8; 32]| {
        let hash = bolt11::hash_of(&preimage);
        let invoice = holds.create_hold_invoice(&request(PRICE), &hash, Duration::from_secs(60)).await.unwrap();
        world.pay(&invoice).await;
        hash
    };
    let (in_time, too_late) = ([8; 32], [9; 32]);
    let hash = made(in_time).await;
    world.service.faults().reach_block(109);
    holds.settle(&in_time).await.unwrap();
    assert!(matches!(world.wallet.look_up(&hash).await, Ok(InvoiceState::Settled { .. })));
    let hash = made(too_late).await;
    world.service.faults().reach_block(110);
    assert!(holds.settle(&too_late).await.is_err_and(|error| error.is_definitive()));
    assert_eq!(world.wallet.look_up(&hash).await, Ok(InvoiceState::Cancelled));
    // What is taken already stays so.
    holds.settle(&in_time).await.unwrap();
}

#[tokio::test]
async fn a_wallet_whose_holds_are_too_short_makes_none() {
    let world = world().await;
    let holds = world.wallet.hold_invoices().unwrap();
    let hash = bolt11::hash_of(&[8; 32]);
    // The service asks for 144 blocks, whatever it is told.
    let longer = hold_window::longest(hold_window::MOST_BLOCKS) + hold_window::BLOCK;
    let refused = holds.create_hold_invoice(&request(PRICE), &hash, longer).await;
    assert!(matches!(refused, Err(WalletError::BadInvoice(_))), "{refused:?}");
    assert!(holds.create_hold_invoice(&request(PRICE), &hash, holds.longest_hold()).await.is_ok());
}

#[tokio::test]
async fn a_history_is_read_page_by_page_and_only_where_it_may_be() {
    let world = world().await;
    let began = Timestamp::now();
    for _ in 0..5 {
        let invoice = world.wallet.create_invoice(&request(PRICE)).await.unwrap();
        world.pay(&invoice).await;
        let bill = world.foreign_invoice(PRICE).await;
        world.wallet.pay(&bill.bolt11, Msat::ZERO).await.unwrap();
    }
    let history = world.wallet.history().unwrap();
    let received = history.received(began).await.unwrap();
    assert_eq!((received.len(), received[0].description.as_deref()), (5, Some("a job")));
    assert_eq!(history.sent(began).await.unwrap().len(), 5);
    let later = began + jiff::SignedDuration::from_hours(1);
    assert_eq!((history.received(later).await.unwrap(), history.sent(later).await.unwrap()), (vec![], vec![]));
    let options = NwcServiceOptions { lists_transactions: false, ..NwcServiceOptions::default() };
    assert!(world_with(1, options).await.wallet.history().is_none());
}

#[tokio::test]
async fn an_unreadable_answer_says_nothing_for_certain() {
    let world = world().await;
    world.service.faults().garble_next();
    let error = world.wallet.create_invoice(&request(PRICE)).await.unwrap_err();
    assert!(matches!(error, WalletError::BadAnswer(_)), "{error}");
    assert!(!error.is_definitive());
}

#[tokio::test]
async fn a_strangers_answer_is_not_heard() {
    let world = world().await;
    world.service.faults().answer_as_stranger_first(true);
    assert_eq!(world.wallet.balance().await, Ok(Some(all(Msat::sat(1_000)))));
}

#[tokio::test]
async fn without_notifications_looking_up_still_works() {
    let world = world_with(1, NwcServiceOptions { notifications: false, ..NwcServiceOptions::default() }).await;
    let invoice = world.wallet.create_invoice(&request(PRICE)).await.unwrap();
    world.pay(&invoice).await;
    assert!(matches!(world.wallet.look_up(&invoice.payment_hash).await, Ok(InvoiceState::Settled { .. })));
}

#[tokio::test]
async fn one_relay_of_two_is_enough() {
    let mut world = world_with(2, NwcServiceOptions::default()).await;
    // Closed for good, with everything that passed through it.
    world.gates.remove(0);
    let invoice = world.wallet.create_invoice(&request(PRICE)).await.unwrap();
    let mut news = world.wallet.updates().await.unwrap();
    world.pay(&invoice).await;
    while let Some(update) = news.next().await {
        if update.payment_hash == invoice.payment_hash {
            return;
        }
    }
    assert!(matches!(world.wallet.look_up(&invoice.payment_hash).await, Ok(InvoiceState::Settled { .. })));
}

#[tokio::test]
async fn shutting_down_ends_the_news() {
    let world = world().await;
    let mut news = world.wallet.updates().await.unwrap();
    let NwcWorld { wallet, service, .. } = world;
    Arc::into_inner(wallet).unwrap().shutdown().await;
    assert_eq!(news.next().await, None);
    service.shutdown().await;
}

mod parsing {
    use serde_json::json;

    use super::super::wire::{
        Balance, ByHash, Call, Info, ListTransactions, MakeInvoice, Notification, Paid, PayInvoice, Reply,
        SettleHoldInvoice, Transaction, Transactions,
    };
    use super::*;

    /// The examples of the page that describes the wire form, by what they are examples of.
    fn examples(what: &str) -> Vec<&'static str> {
        let page = include_str!("../../../nips/47.md");
        let fence = format!("```json {what}\n");
        page.split(fence.as_str()).skip(1).map(|rest| rest.split("```").next().unwrap_or_default()).collect()
    }

    /// Reads into `T` and writes again.
    fn round<T: serde::Serialize + serde::de::DeserializeOwned>(body: &serde_json::Value) -> serde_json::Value {
        let read: T = serde_json::from_value(body.clone()).unwrap();
        serde_json::to_value(read).unwrap()
    }

    #[test]
    fn the_requests_of_the_page_are_the_requests_we_write() {
        let requests = examples("request");
        assert_eq!(requests.len(), 9);
        for text in requests {
            let call: Call = serde_json::from_str(text).unwrap();
            let written = match call.method.as_str() {
                "get_info" | "get_balance" => json!({}),
                "make_invoice" | "make_hold_invoice" => round::<MakeInvoice>(&call.params),
                "lookup_invoice" | "cancel_hold_invoice" => round::<ByHash>(&call.params),
                "pay_invoice" => round::<PayInvoice>(&call.params),
                "list_transactions" => round::<ListTransactions>(&call.params),
                "settle_hold_invoice" => round::<SettleHoldInvoice>(&call.params),
                other => panic!("the page shows an unknown method {other}"),
            };
            assert_eq!(written, call.params, "{}", call.method);
        }
    }

    #[test]
    fn the_responses_and_notifications_of_the_page_are_read() {
        let responses = examples("response");
        assert_eq!(responses.len(), 7);
        for text in responses {
            let reply: Reply = serde_json::from_str(text).unwrap();
            let Some(result) = reply.result else {
                assert_eq!(WalletError::from(reply.error.unwrap()), WalletError::InsufficientFunds);
                continue;
            };
            match reply.result_type.as_str() {
                "get_info" => assert_eq!(serde_json::from_value::<Info>(result).unwrap().methods.len(), 2),
                "make_invoice" => assert_eq!(state(result), Ok(InvoiceState::Open)),
                "lookup_invoice" => assert!(matches!(state(result), Ok(InvoiceState::Settled { .. }))),
                "pay_invoice" => {
                    assert_eq!(serde_json::from_value::<Paid>(result).unwrap().fees_paid, Some(Msat::msat(12)))
                }
                "get_balance" => {
                    assert_eq!(serde_json::from_value::<Balance>(result).unwrap().balance, Msat::sat(1_000))
                }
                "list_transactions" => {
                    let listed = serde_json::from_value::<Transactions>(result).unwrap().transactions.remove(0);
                    let told: Transaction = serde_json::from_value(listed).unwrap();
                    let received = told.received(now()).unwrap();
                    assert_eq!((received.payment_hash, received.amount), (HASH, PRICE));
                }
                other => panic!("the page shows an unknown result {other}"),
            }
        }
        let notifications = examples("notification");
        assert_eq!(notifications.len(), 2);
        for text in notifications {
            let update = serde_json::from_str::<Notification>(text).unwrap().update(now()).unwrap();
            assert_eq!(update.payment_hash, HASH);
        }
    }

    const HASH: PaymentHash = PaymentHash([3; 32]);

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn state(body: serde_json::Value) -> Result<InvoiceState, WalletError> {
        serde_json::from_value::<Transaction>(body).unwrap().invoice_state(now())
    }

    #[test]
    fn every_state_is_understood_and_so_is_none() {
        let settled = InvoiceState::Settled { amount: PRICE, at: Timestamp::from_second(5).ok() };
        assert_eq!(state(json!({"state": "settled", "amount": 21_000, "settled_at": 5})), Ok(settled));
        assert_eq!(state(json!({"amount": 21_000, "settled_at": 5, "state": null})), Ok(settled));
        assert_eq!(state(json!({"state": "accepted", "amount": 21_000})), Ok(InvoiceState::Held { amount: PRICE }));
        assert_eq!(state(json!({"state": "pending", "settled_at": null, "preimage": null})), Ok(InvoiceState::Open));
        assert_eq!(state(json!({"state": "pending", "expires_at": 1_799_999_999})), Ok(InvoiceState::Expired));
        assert_eq!(state(json!({"expires_at": 1_800_000_001, "settled_at": 0})), Ok(InvoiceState::Open));
        assert_eq!(state(json!({"state": "expired"})), Ok(InvoiceState::Expired));
        assert_eq!(state(json!({"state": "failed"})), Ok(InvoiceState::Cancelled));
        assert_eq!(state(json!({"type": "outgoing", "state": "settled"})), Err(WalletError::NotFound));
        assert!(matches!(state(json!({"state": "settled"})), Err(WalletError::BadAnswer(_))));
        assert!(matches!(state(json!({"state": "odd"})), Err(WalletError::BadAnswer(_))));
    }

    #[test]
    fn only_what_is_settled_came_or_went() {
        let told = |body: serde_json::Value| serde_json::from_value::<Transaction>(body).unwrap();
        let sent = told(json!({"type": "outgoing", "state": "settled", "payment_hash": HASH, "amount": 21_000}));
        assert_eq!(sent.sent().map(|one| one.amount), Some(PRICE));
        assert_eq!(sent.received(now()), None);
        for state in ["pending", "failed", "accepted"] {
            let other = told(json!({"type": "outgoing", "state": state, "payment_hash": HASH, "amount": 21_000}));
            assert_eq!(other.sent(), None);
        }
        // Without an amount nothing can be compared.
        assert_eq!(told(json!({"type": "outgoing", "state": "settled", "payment_hash": HASH})).sent(), None);
        assert_eq!(told(json!({"state": "settled", "payment_hash": HASH})).received(now()), None);
    }

    #[test]
    fn a_claimed_payment_needs_its_proof() {
        let told = |preimage: &str| -> Transaction {
            serde_json::from_value(json!({"type": "outgoing", "state": "settled", "preimage": preimage})).unwrap()
        };
        assert!(matches!(told("").payment(&HASH), Err(WalletError::BadAnswer(_))));
        assert!(matches!(told(&"00".repeat(32)).payment(&HASH), Err(WalletError::BadAnswer(_))));
        let preimage = [4; 32];
        let paid = told(&hex::encode(preimage)).payment(&bolt11::hash_of(&preimage)).unwrap().unwrap();
        assert_eq!(paid.preimage, preimage);
    }

    #[test]
    fn notifications_of_other_things_are_no_news() {
        let told = |kind: &str, body: serde_json::Value| {
            let text = json!({"notification_type": kind, "notification": body}).to_string();
            serde_json::from_str::<Notification>(&text).unwrap().update(now())
        };
        let body = json!({"type": "incoming", "payment_hash": HASH, "amount": 21_000});
        let held = InvoiceUpdate { payment_hash: HASH, state: InvoiceState::Held { amount: PRICE } };
        assert_eq!(told("hold_invoice_accepted", body.clone()), Some(held));
        assert!(matches!(told("payment_received", body.clone()), Some(update) if update.payment_hash == HASH));
        assert_eq!(told("payment_sent", body), None);
        assert_eq!(told("payment_received", json!({"amount": 1})), None);
        assert_eq!(told("payment_received", json!([])), None);
    }

    #[test]
    fn a_wallets_words_never_carry_secrets_on() {
        let secret = "71a8c14c1407c113601079c4302dab36460f0ccd0ad506f1f2dc73b5100e4f3c";
        let body =
            json!({"result_type": "x", "error": {"code": "OTHER", "message": format!("bad\u{7} {secret} thing")}});
        let reply: Reply = serde_json::from_value(body).unwrap();
        let error = reply.into_result(Method::GetInfo).unwrap_err().to_string();
        assert!(!error.contains(secret) && error.contains("bad … thing"), "{error}");
    }

    #[test]
    fn an_answer_to_another_method_is_no_answer() {
        let reply: Reply = serde_json::from_value(json!({"result_type": "get_info", "result": {}})).unwrap();
        assert!(matches!(reply.into_result(Method::PayInvoice), Err(WalletError::BadAnswer(_))));
    }
}
