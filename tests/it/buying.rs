//! The buying side pays at most once and within its budget, whatever happens in between: several processes at once, one that
//! is killed while it pays, one that is interrupted, a payment that comes back.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use coinop::identity::Signer;
use coinop::inference::echo::Echo;
use coinop::job::id::ProviderId;
use coinop::job::{JobId, JobKind, Terms};
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
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::mpsc;

const PRICE: Msat = Msat::sat(21);

/// Where the child finds its [`Orders`].
const ORDERS: &str = "COINOP_BUYING_CHILD";

/// What stands before the lines meant for the parent: the test harness writes to the same place.
const MARK: &str = "@@ ";

// A buyer in a process of its own, frozen while it pays.

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

/// The buyer's process, and what it says.
struct Running {
    process: Child,
    lines: mpsc::UnboundedReceiver<String>,
}

/// A story that goes wrong leaves no process behind.
impl Drop for Running {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Running {
    fn start(orders: &Orders) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["buying::child", "--exact", "--ignored", "--nocapture"])
            .env(ORDERS, serde_json::to_string(orders).unwrap())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (say, lines) = mpsc::unbounded_channel();
        let output = BufReader::new(process.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some((_, told)) = line.split_once(MARK) {
                    let _ = say.send(told.to_owned());
                }
            }
        });
        Self { process, lines }
    }

    async fn says(&mut self) -> String {
        within("a word of the buyer's process", self.lines.recv()).await.expect("it does not end without a word")
    }
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
    let mut first = Running::start(&orders);
    assert_eq!(first.says().await, "frozen");
    // SIGKILL: it has no say in it.
    first.process.kill().unwrap();
    first.process.wait().unwrap();
    if freeze == Freeze::AfterPaying {
        market.moments().told(JobId(orders.request.id.0), "payment-settled").await;
    }

    let mut second = Running::start(&Orders { freeze: None, ..orders.clone() });
    let said = second.says().await;
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

// The program itself.

/// A buyer's folder: a configuration that pays from a wallet behind a relay.
pub(crate) struct Shopper {
    folder: TempDir,
    pub(crate) provider: ProviderId,
    service: NwcService,
    wallet: FakeWallet,
}

impl Shopper {
    pub(crate) async fn at(market: &TestMarket, budget: &str) -> Self {
        let customer = market.customer().await;
        let relay = market.relay(0).url();
        let service =
            NwcService::start(std::slice::from_ref(&relay), customer.wallet.clone(), NwcServiceOptions::default())
                .await
                .unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("nwc"), service.uri()).unwrap();
        let config = format!(
            "[relays]\nurls = [\"{relay}\"]\n[wallet]\nnetwork = \"regtest\"\n\
             [requester]\nwallet = \"file:nwc\"\nmax_per_day = \"{budget}\"\n"
        );
        fs::write(folder.path().join("config.toml"), config).unwrap();
        Self { folder, provider: market.provider().provider_id(), service, wallet: customer.wallet.clone() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coinop"));
        command.env_clear().arg("--home").arg(self.path()).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn request(&self, text: &str) -> Command {
        let provider = self.provider.to_string();
        self.command(&["request", text, "--provider", &provider, "--max-cost", "50sat", "--timeout", "2m"])
    }

    async fn list(&self) -> Value {
        let listed = run(self.command(&["payments", "list", "--json"])).await;
        assert!(listed.status.success(), "{}", err(&listed));
        serde_json::from_slice(&listed.stdout).unwrap()
    }
}

pub(crate) async fn run(mut command: Command) -> Output {
    let ended = tokio::task::spawn_blocking(move || command.output().unwrap());
    within("the program's end", ended).await.unwrap()
}

pub(crate) async fn ended(child: Child) -> Output {
    let ended = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    within("the program's end", ended).await.unwrap()
}

/// Sends a signal to the program: `INT` is what Ctrl-C sends.
pub(crate) fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status();
    assert!(sent.unwrap().success());
}

pub(crate) fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn states(listed: &Value) -> Vec<&str> {
    listed["payments"].as_array().unwrap().iter().map(|line| line["state"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn several_buyers_at_once_spend_the_budget_once() {
    let market = TestMarket::new().price(PRICE).start().await;
    // Twice 21 sat and their 5 in fees, at most.
    let shopper = Shopper::at(&market, "60sat").await;
    let runs = futures::future::join_all((0..4).map(|number| run(shopper.request(&format!("job {number}"))))).await;
    let codes: Vec<_> = runs.iter().map(|output| output.status.code().unwrap()).collect();
    let said: Vec<String> = runs.iter().map(err).collect();
    assert_eq!(codes.iter().filter(|code| **code == 0).count(), 2, "{codes:?} {said:#?}");
    assert_eq!(codes.iter().filter(|code| **code == 4).count(), 2, "{codes:?} {said:#?}");
    for (code, said) in codes.iter().zip(&said) {
        assert!(*code == 0 || said.contains("left of the 60 sat") && said.contains("free again at"), "{said}");
    }
    let listed = shopper.list().await;
    assert_eq!((states(&listed), &listed["left_msat"]), (vec!["paid", "paid"], &18_000.into()));
    assert_eq!(shopper.wallet.funds().unwrap(), POCKET_MONEY.saturating_sub(Msat::sat(42)));
    assert_eq!(market.wallet().funds().unwrap(), Msat::sat(42));
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_proves_what_was_paid_for_what() {
    let market = TestMarket::new().price(PRICE).start().await;
    let shopper = Shopper::at(&market, "").await;
    let file = shopper.path().join("receipt.json");
    let mut request = shopper.request("prove it");
    request.args(["--receipt", file.to_str().unwrap()]);
    let bought = run(request).await;
    assert!(bought.status.success(), "{}", err(&bought));
    assert_eq!(String::from_utf8_lossy(&bought.stdout), "prove it\n");

    let receipt: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(receipt["provider"], shopper.provider.to_string().as_str());
    assert_eq!((&receipt["payment"]["amount_msat"], &receipt["payment"]["state"]), (&21_000.into(), &"paid".into()));
    let preimage: [u8; 32] = hex::decode(receipt["payment"]["preimage"].as_str().unwrap()).unwrap().try_into().unwrap();
    let hash = coinop::wallet::bolt11::hash_of(&preimage).to_string();
    assert_eq!(receipt["payment"]["payment_hash"], hash.as_str());
    let job: JobId = receipt["request"].as_str().unwrap().parse().unwrap();
    let results = market.answers(job).await;
    assert!(results.iter().any(|event| event.id.to_hex() == receipt["result"].as_str().unwrap()));

    let kept = run(shopper.command(&["payments", "receipt", &job.to_string()[..12]])).await;
    let kept: Value = serde_json::from_slice(&kept.stdout).unwrap();
    assert_eq!(kept["payment"], receipt["payment"]);
    #[cfg(unix)]
    for private in [file, shopper.path().join("payments.db")] {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(&private).unwrap().permissions().mode() & 0o777, 0o600, "{}", private.display());
    }
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_killed_while_its_hold_is_pending_is_settled_in_the_book_later() {
    let echo = Echo::new().gated();
    let market = TestMarket::new().price(PRICE).terms(Terms::Hold).backend(echo.clone()).start().await;
    let shopper = Shopper::at(&market, "100sat").await;
    let mut requesting = shopper.request("held").spawn().unwrap();
    market.moments().told_in_all("payment-held", 1).await;
    requesting.kill().unwrap();
    ended(requesting).await;

    let listed = shopper.list().await;
    assert_eq!((states(&listed), &listed["left_msat"]), (vec!["paying"], &74_000.into()));
    echo.release(1);
    market.moments().told_in_all("payment-settled", 1).await;
    let listed = shopper.list().await;
    assert_eq!((states(&listed), &listed["left_msat"]), (vec!["paid"], &79_000.into()));
    assert_eq!(shopper.wallet.funds().unwrap(), POCKET_MONEY.saturating_sub(PRICE));
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_request_calls_the_job_off_and_what_was_held_comes_back() {
    let echo = Echo::new().gated();
    let market = TestMarket::new().price(PRICE).terms(Terms::Hold).backend(echo.clone()).start().await;
    let shopper = Shopper::at(&market, "100sat").await;
    let requesting = shopper.request("held").spawn().unwrap();
    within("the run", echo.wait_for_runs(1)).await;
    signal(&requesting, "INT");
    let interrupted = ended(requesting).await;
    assert_eq!(interrupted.status.code(), Some(130), "{}", err(&interrupted));
    for told in ["Calling the order off", "cancelled as you asked", "came back: nothing was paid"] {
        assert!(err(&interrupted).contains(told), "{told}: {}", err(&interrupted));
    }
    let listed = shopper.list().await;
    assert_eq!((states(&listed), &listed["left_msat"]), (vec!["failed"], &100_000.into()));
    assert_eq!(shopper.wallet.funds().unwrap(), POCKET_MONEY);
    // The gate was never opened: only a stopped run lets the market close.
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_cancellation_nobody_answers_says_that_its_payment_is_under_way() {
    let echo = Echo::new().gated();
    let mut market = TestMarket::new().price(PRICE).terms(Terms::Hold).backend(echo.clone()).start().await;
    let shopper = Shopper::at(&market, "100sat").await;
    let requesting = shopper.request("held").spawn().unwrap();
    within("the run", echo.wait_for_runs(1)).await;
    // The provider is away. Its wallet still holds the money.
    market.stop(Duration::ZERO).await;
    signal(&requesting, "INT");
    let interrupted = ended(requesting).await;
    assert_eq!(interrupted.status.code(), Some(130), "{}", err(&interrupted));
    for told in ["has not answered it yet", "under way or in doubt", "coinop payments list", "the request is"] {
        assert!(err(&interrupted).contains(told), "{told}: {}", err(&interrupted));
    }
    assert_eq!(states(&shopper.list().await), ["paying"]);
    // When it is back it finds the cancellation at the relay.
    market.start_again().await.unwrap();
    market.moments().told_in_all("cancelled", 1).await;
    market.moments().told_in_all("hold-released", 1).await;
    assert_eq!(states(&shopper.list().await), ["failed"]);
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_interruption_ends_at_once_and_leaves_the_payment_in_the_book() {
    let echo = Echo::new().gated();
    let mut market = TestMarket::new().price(PRICE).terms(Terms::Hold).backend(echo.clone()).start().await;
    let shopper = Shopper::at(&market, "100sat").await;
    let mut requesting = shopper.request("held").spawn().unwrap();
    within("the run", echo.wait_for_runs(1)).await;
    // Nobody answers the cancellation: there is time for a second one.
    market.stop(Duration::ZERO).await;
    let mut lines = BufReader::new(requesting.stderr.take().unwrap()).lines().map_while(Result::ok);
    signal(&requesting, "TERM");
    let reading = tokio::task::spawn_blocking(move || {
        assert!(lines.any(|line| line.contains("Calling the order off")));
        lines
    });
    let lines = within("the first to be heard", reading).await.unwrap();
    signal(&requesting, "INT");
    let reading = tokio::task::spawn_blocking(move || lines.collect::<Vec<_>>().join("\n"));
    let said = within("the last words", reading).await.unwrap();
    let interrupted = ended(requesting).await;
    assert_eq!(interrupted.status.code(), Some(130), "{said}");
    assert!(said.contains("interrupted again") && said.contains("coinop payments list"), "{said}");
    assert_eq!(states(&shopper.list().await), ["paying"]);
    market.start_again().await.unwrap();
    market.moments().told_in_all("hold-released", 1).await;
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_comes_back_is_nothing_paid_and_frees_its_money() {
    let echo = Echo::new();
    echo.fail(1);
    let market = TestMarket::new().price(PRICE).terms(Terms::Hold).backend(echo).start().await;
    let shopper = Shopper::at(&market, "100sat").await;
    let failed = run(shopper.request("in vain")).await;
    assert_eq!(failed.status.code(), Some(6), "{}", err(&failed));
    assert!(err(&failed).contains("nothing was paid"), "{}", err(&failed));
    let listed = shopper.list().await;
    assert_eq!((states(&listed), &listed["left_msat"]), (vec!["failed"], &100_000.into()));
    assert_eq!(shopper.wallet.funds().unwrap(), POCKET_MONEY);
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_on_another_network_and_an_empty_budget_are_told_before_anything_is_asked() {
    let market = TestMarket::new().price(PRICE).start().await;
    let shopper = Shopper::at(&market, "21sat").await;
    let other = run({
        let mut command = shopper.request("x");
        command.args(["--network", "signet"]);
        command
    })
    .await;
    assert_eq!(other.status.code(), Some(1));
    assert!(err(&other).contains("the wallet is on regtest"), "{}", err(&other));

    // Without fees the last sat can be spent.
    let config = shopper.path().join("config.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}max_fee_percent = 0\n")).unwrap();
    assert!(run(shopper.request("all of it")).await.status.success());
    let broke = run(shopper.request("and more")).await;
    assert_eq!(broke.status.code(), Some(4), "{}", err(&broke));
    assert!(err(&broke).contains("nothing is left of the budget of 21 sat"), "{}", err(&broke));
    assert!(!err(&broke).contains("Posted"), "{}", err(&broke));

    // A wallet that has not the right to pay is found out before, too.
    let options = NwcServiceOptions { pay: false, ..NwcServiceOptions::default() };
    let poor = NwcService::start(&[market.relay(0).url()], shopper.service.wallet().clone(), options).await.unwrap();
    fs::write(shopper.path().join("nwc"), poor.uri()).unwrap();
    let unable = run(shopper.request("x")).await;
    assert_eq!(unable.status.code(), Some(2), "{}", err(&unable));
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wallet_of_this_installation_pays_when_it_is_told_to() {
    let market = TestMarket::new().price(PRICE).start().await;
    let shopper = Shopper::at(&market, "100sat").await;
    // An installation that sells with the same wallet.
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("pw"), "orbit velvet tundra seven").unwrap();
    fs::write(home.path().join("nwc"), shopper.service.uri()).unwrap();
    let coinop = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coinop"));
        command.env_clear().arg("--home").arg(home.path()).arg("--password-file").arg(home.path().join("pw"));
        command.args(args).stdin(Stdio::null());
        command
    };
    let relay = market.relay(0).url();
    let init = ["init", "--yes", "--backend", "echo", "--nwc", "file:nwc", "--base", "2sat", "--relay", &relay];
    let made = run(coinop(&init)).await;
    assert!(made.status.success(), "{}", err(&made));
    let config = home.path().join("config.toml");
    let text = fs::read_to_string(&config).unwrap();
    let text = text.replace("network = \"bitcoin\"", "network = \"regtest\"");
    let text = text.replace("\nwallet = \"\"\n", "\nwallet = \"own\"\n");
    fs::write(&config, text).unwrap();
    let provider = shopper.provider.to_string();
    let bought = run(coinop(&["request", "from our own", "--provider", &provider])).await;
    assert!(bought.status.success(), "{}", err(&bought));
    assert_eq!(shopper.wallet.funds().unwrap(), POCKET_MONEY.saturating_sub(PRICE));
    market.finish().await;
}
