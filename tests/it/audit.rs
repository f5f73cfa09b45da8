//! Do the books say what the wallet says? A provider that compares by itself, wallets that lie, and the program's answer.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use coinop::identity::Signer;
use coinop::job::id::ProviderId;
use coinop::money::Msat;
use coinop::provider::audit::{WalletSide, audit};
use coinop::provider::{AuditReport, DifferenceKind};
use coinop::testing::market::{Customer, POCKET_MONEY, TestMarket, within};
use coinop::testing::relay::TestRelay;
use coinop::wallet::fake::{FakeNetwork, FakeWallet, FakeWalletOptions};
use coinop::wallet::{
    Balance, Capabilities, History, HoldInvoices, Invoice, InvoiceRequest, InvoiceState, InvoiceUpdate, PaymentHash,
    Wallet, WalletError,
};
use futures::stream::BoxStream;
use jiff::Timestamp;
use serde_json::Value;
use tempfile::TempDir;

const PRICE: Msat = Msat::sat(21);
const OFTEN: Duration = Duration::from_millis(20);

/// How a wallet may mislead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    /// Every invoice is settled, when asked.
    Settled,
    /// One sat less arrived than did, when asked.
    Less,
    /// It tells no history.
    Forgetful,
}

struct Liar(FakeWallet, Lie);

#[async_trait]
impl Wallet for Liar {
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn name(&self) -> &str {
        "liar"
    }

    async fn create_invoice(&self, request: &InvoiceRequest) -> Result<Invoice, WalletError> {
        self.0.create_invoice(request).await
    }

    async fn look_up(&self, payment_hash: &PaymentHash) -> Result<InvoiceState, WalletError> {
        Ok(match (self.0.look_up(payment_hash).await?, self.1) {
            (_, Lie::Settled) => InvoiceState::Settled { amount: PRICE, at: None },
            (InvoiceState::Settled { amount, at }, Lie::Less) => {
                InvoiceState::Settled { amount: amount.saturating_sub(Msat::sat(1)), at }
            }
            (state, _) => state,
        })
    }

    async fn updates(&self) -> Result<BoxStream<'static, InvoiceUpdate>, WalletError> {
        self.0.updates().await
    }

    async fn balance(&self) -> Result<Option<Balance>, WalletError> {
        self.0.balance().await
    }

    fn history(&self) -> Option<&dyn History> {
        if self.1 == Lie::Forgetful { None } else { self.0.history() }
    }

    fn hold_invoices(&self) -> Option<&dyn HoldInvoices> {
        self.0.hold_invoices()
    }
}

async fn report(market: &TestMarket, wallet: &dyn Wallet) -> AuditReport {
    audit(market.service().provider().store(), wallet, None).await.unwrap()
}

fn kinds(report: &AuditReport) -> Vec<DifferenceKind> {
    report.differences.iter().map(|difference| difference.kind).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_of_which_nothing_was_heard_is_found_by_comparing_and_honoured() {
    let market = TestMarket::new().settings(|settings| settings.audit_every = OFTEN).start().await;
    market.wallet().faults().drop_updates(true);
    let customer = market.customer().await;
    // Neither news nor looking up tells of it: both would come after the test's patience.
    assert_eq!(customer.buys("found").await.content, "found");
    let found = report(&market, market.wallet()).await;
    assert_eq!((found.booked, found.settled, found.differences), (1, 1, vec![]));
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_provider_finds_it_honours_at_once() {
    let market = TestMarket::new().start().await;
    market.wallet().faults().drop_updates(true);
    let customer = market.customer().await;
    let mut posted = customer.post(&customer.order("paid in silence")).await;
    let invoice = posted.invoice().await;
    customer.pay(&invoice).await.unwrap();
    let found = report(&market, market.wallet()).await;
    assert_eq!(kinds(&found), [DifferenceKind::Unbooked]);
    assert_eq!((found.differences[0].job, found.differences[0].in_wallet), (Some(posted.job), Some(PRICE)));

    let left = market.service().provider().compare_books(market.wallet()).await.unwrap();
    assert_eq!(left.differences, []);
    assert_eq!(posted.result().await.content, "paid in silence");
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settled_invoice_that_nobody_paid_shows_up() {
    let lie = |wallet| Arc::new(Liar(wallet, Lie::Settled)) as Arc<dyn Wallet>;
    let settings = TestMarket::new().settings(|settings| settings.payment_poll = OFTEN);
    let market = settings.wallet_behind(lie).start().await;
    let customer = market.customer().await;
    let mut posted = customer.post(&customer.order("given away")).await;
    assert_eq!(posted.result().await.content, "given away");
    let found = report(&market, &Liar(market.wallet().clone(), Lie::Settled)).await;
    assert_eq!((kinds(&found), found.differences[0].job), (vec![DifferenceKind::Unlisted], Some(posted.job)));
    // And an honest look finds that it was never paid.
    assert_eq!(kinds(&report(&market, market.wallet()).await), [DifferenceKind::Unpaid]);
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_amount_the_wallet_told_wrongly_shows_up() {
    let lie = |wallet| Arc::new(Liar(wallet, Lie::Less)) as Arc<dyn Wallet>;
    let settings = TestMarket::new().settings(|settings| settings.payment_poll = OFTEN);
    let market = settings.wallet_behind(lie).start().await;
    market.wallet().faults().drop_updates(true);
    let customer = market.customer().await;
    let mut posted = customer.post(&customer.order("short")).await;
    let invoice = posted.invoice().await;
    customer.pay(&invoice).await.unwrap();
    posted.refusal().await;
    let found = report(&market, market.wallet()).await;
    assert_eq!(kinds(&found), [DifferenceKind::Amount]);
    let difference = &found.differences[0];
    assert_eq!((difference.booked, difference.in_wallet), (Some(Msat::sat(20)), Some(PRICE)));
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_without_a_history_is_asked_invoice_by_invoice() {
    let market = TestMarket::new().start().await;
    let customer = market.customer().await;
    customer.buys("paid").await;
    let mut posted = customer.post(&customer.order("never paid")).await;
    posted.invoice().await;
    let forgetful = Liar(market.wallet().clone(), Lie::Forgetful);
    let found = report(&market, &forgetful).await;
    assert_eq!((found.wallet_side, found.booked, found.settled), (WalletSide::LookUps, 1, 1));
    assert_eq!((found.differences, found.unanswered), (vec![], 0));

    // Silence is no difference, and no agreement either.
    market.wallet().faults().go_silent(true);
    let found = report(&market, &forgetful).await;
    assert_eq!((found.differences, found.unanswered), (vec![], 2));
    assert!(audit(market.service().provider().store(), market.wallet(), None).await.is_err());
    market.wallet().faults().go_silent(false);
    customer.cancel(posted.job).await;
    posted.refusal().await;
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invoice_that_says_it_is_ours_and_is_nobody_s_shows_up_and_others_do_not() {
    let market = TestMarket::new().start().await;
    let made = async |description: &str| {
        let request =
            InvoiceRequest { amount: PRICE, description: description.into(), expiry: Duration::from_secs(600) };
        let invoice = market.wallet().create_invoice(&request).await.unwrap();
        market.wallet().settle(&invoice.payment_hash).unwrap();
        invoice.payment_hash
    };
    made("for the roof").await;
    let lost = made("coinop 5050 job 00ff").await;
    let found = report(&market, market.wallet()).await;
    assert_eq!((kinds(&found), found.differences[0].payment_hash), (vec![DifferenceKind::Unknown], Some(lost)));
    // What came before the time asked for is not compared.
    let later = Timestamp::now() + jiff::SignedDuration::from_hours(1);
    let found = audit(market.service().provider().store(), market.wallet(), Some(later)).await.unwrap();
    assert_eq!((found.settled, found.differences), (0, vec![]));
    market.finish().await;
}

// The program itself.

struct Machine(TempDir);

impl Machine {
    fn home(&self) -> PathBuf {
        self.0.path().join("home")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coinop"));
        command.env_clear().arg("--home").arg(self.home()).arg("--password-file").arg(self.0.path().join("pw"));
        command.args(args).stdin(Stdio::null());
        command
    }

    async fn coinop(&self, args: &[&str]) -> Output {
        let mut command = self.command(args);
        let ended = tokio::task::spawn_blocking(move || command.output().unwrap());
        within("the program's end", ended).await.unwrap()
    }

    async fn audit(&self) -> (Option<i32>, Value) {
        let ended = self.coinop(&["ledger", "audit", "--json"]).await;
        let report = serde_json::from_slice(&ended.stdout);
        let report = report.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&ended.stderr)));
        (ended.status.code(), report)
    }

    fn serve(&self) -> Serving {
        let log = fs::File::options().create(true).append(true).open(self.0.path().join("log")).unwrap();
        Serving(self.command(&["serve"]).stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }
}

struct Serving(Child);

impl Serving {
    async fn stop(mut self) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let ended = tokio::task::spawn_blocking(move || self.0.wait().unwrap());
        assert!(within("the program's end", ended).await.unwrap().success());
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_says_by_its_exit_code_whether_books_and_wallet_agree() {
    let relay = TestRelay::start().await.unwrap();
    let machine = Machine(tempfile::tempdir().unwrap());
    fs::write(machine.0.path().join("pw"), "orbit velvet tundra seven").unwrap();
    let init = ["init", "--yes", "--backend", "echo", "--play-money", "--terms", "prepay", "--base", "21sat"];
    let free = ["--per-1k-prompt", "0", "--per-1k-generated", "0", "--relay"];
    let made = machine.coinop(&[&init[..], &free[..], &[&relay.url()]].concat()).await;
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let identity = machine.coinop(&["identity", "show", "--json"]).await;
    let identity: Value = serde_json::from_slice(&identity.stdout).unwrap();
    let provider: ProviderId = identity["public_key"].as_str().unwrap().parse().unwrap();

    let serving = machine.serve();
    within("the provider to come online", relay.wait_subscriptions(1)).await;
    let journal = machine.home().join("play-money.journal");
    let network = FakeNetwork::open(&journal).unwrap();
    let purse = FakeWalletOptions { opening_balance: POCKET_MONEY, ..FakeWalletOptions::default() };
    let purse = FakeWallet::open(&network, &[2; 32], purse).unwrap();
    let customer = Customer::join(Signer::random(), &[relay.url()], provider, purse).await;
    customer.buys("first").await;
    let (code, report) = machine.audit().await;
    assert_eq!((code, &report["booked"], &report["settled"]), (Some(0), &1.into(), &1.into()), "{report}");

    // Paid while nobody serves.
    let mut posted = customer.post(&customer.order("second")).await;
    let invoice = posted.invoice().await;
    serving.stop().await;
    customer.pay(&invoice).await.unwrap();
    let (code, report) = machine.audit().await;
    let difference = &report["differences"][0];
    assert_eq!((code, &difference["kind"], &difference["wallet_msat"]), (Some(1), &"unbooked".into(), &21_000.into()));
    assert_eq!(difference["job"], posted.job.to_string().as_str());
    let shown = machine.coinop(&["ledger", "audit"]).await;
    assert!(String::from_utf8_lossy(&shown.stdout).contains("unbooked"));
    assert!(String::from_utf8_lossy(&shown.stderr).contains("differ in 1 place"));

    let serving = machine.serve();
    assert_eq!(posted.result().await.content, "second");
    serving.stop().await;
    assert_eq!(machine.audit().await.0, Some(0));

    // The wallet has lost everything: what the books say was paid is not there.
    fs::remove_file(&journal).unwrap();
    let (code, report) = machine.audit().await;
    assert_eq!((code, report["differences"].as_array().unwrap().len()), (Some(1), 2), "{report}");
    assert_eq!(report["differences"][0]["kind"], "unpaid");
}
