//! The program itself, from `init` to the books, as an operator walks through it.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use coinop::identity::Signer;
use coinop::job::id::ProviderId;
use coinop::money::Msat;
use coinop::testing::market::{Customer, POCKET_MONEY, within};
use coinop::testing::relay::TestRelay;
use coinop::wallet::fake::{FakeNetwork, FakeWallet, FakeWalletOptions};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) struct Machine(TempDir);

impl Machine {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("pw"), "orbit velvet tundra seven").unwrap();
        Self(folder)
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.0.path().join("home")
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coinop"));
        command.env_clear().arg("--home").arg(self.home()).arg("--password-file").arg(self.0.path().join("pw"));
        command.args(args).stdin(Stdio::null());
        command
    }

    pub(crate) async fn coinop(&self, args: &[&str]) -> Output {
        let mut command = self.command(args);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }

    pub(crate) async fn json(&self, args: &[&str]) -> Value {
        serde_json::from_slice(&self.coinop(args).await.stdout).unwrap()
    }

    /// `coinop serve`; what it writes is kept for when something goes wrong.
    pub(crate) fn serve(&self) -> Child {
        let log = fs::File::options().create(true).append(true).open(self.log()).unwrap();
        self.command(&["serve"]).stdout(Stdio::null()).stderr(log).spawn().unwrap()
    }

    fn log(&self) -> PathBuf {
        self.0.path().join("log")
    }
}

pub(crate) async fn ends_in_order(machine: &Machine, mut serving: Child) {
    let pid = serving.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let ended = tokio::task::spawn_blocking(move || serving.wait().unwrap());
    let status = within("the program's end", ended).await.unwrap();
    assert_eq!(status.code(), Some(0), "{}", fs::read_to_string(machine.log()).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn from_init_to_the_books() {
    let relay = TestRelay::start().await.unwrap();
    let machine = Machine::new();
    let mut init = vec!["init", "--yes", "--backend", "echo", "--play-money", "--terms", "prepay"];
    init.extend(["--base", "21sat", "--per-1k-prompt", "0", "--per-1k-generated", "0"]);
    machine.coinop(&[&init[..], &["--relay", &relay.url()]].concat()).await;
    let identity = machine.json(&["identity", "show", "--json"]).await;
    let provider: ProviderId = identity["public_key"].as_str().unwrap().parse().unwrap();

    let serving = machine.serve();
    // The provider's subscription is open: it is there.
    within("the provider to come online", relay.wait_subscriptions(1)).await;
    let network = FakeNetwork::open(&machine.home().join("play-money.journal")).unwrap();
    let purse = FakeWalletOptions { opening_balance: POCKET_MONEY, ..FakeWalletOptions::default() };
    let purse = FakeWallet::open(&network, &[2; 32], purse).unwrap();
    let customer = Customer::join(Signer::random(), &[relay.url()], provider, purse).await;
    let result = customer.buys("sold over the counter").await;
    assert_eq!(result.content, "sold over the counter");
    assert_eq!(result.receipt.paid, Some(Msat::sat(21)));
    ends_in_order(&machine, serving).await;

    let jobs = machine.json(&["jobs", "list", "--json"]).await;
    let jobs = jobs.as_array().unwrap();
    assert_eq!(jobs.len(), 1);
    assert_eq!((&jobs[0]["work"], &jobs[0]["payment"]), (&"delivered".into(), &"settled".into()));
    assert_eq!((&jobs[0]["paid_msat"], &jobs[0]["cost_msat"]), (&21_000.into(), &21_000.into()));
    let earnings = machine.json(&["earnings", "--json"]).await;
    assert_eq!((&earnings[0]["jobs"], &earnings[0]["earned_msat"]), (&1.into(), &21_000.into()));
    let csv = String::from_utf8(machine.coinop(&["ledger", "--format", "csv"]).await.stdout).unwrap();
    let lines: Vec<&str> = csv.lines().collect();
    // Two entries with two postings each, and the heading.
    assert_eq!(lines.len(), 5, "{csv}");
    assert!(lines.iter().any(|line| line.contains("wallet") && line.ends_with("21000")), "{csv}");

    // Prompts, results and invoices are nobody's business but the customer's.
    let log = fs::read_to_string(machine.log()).unwrap();
    for private in ["sold over the counter", "lnbcrt", "orbit velvet"] {
        assert!(!log.contains(private), "'{private}' is in the log: {log}");
    }

    // And again: what is done stays done.
    let serving = machine.serve();
    customer.ping().await;
    ends_in_order(&machine, serving).await;
    assert_eq!(machine.json(&["jobs", "list", "--json"]).await.as_array().unwrap().len(), 1);
}
