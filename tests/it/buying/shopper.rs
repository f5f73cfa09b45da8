//! The program itself, as a buyer runs it.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use coinop::job::id::ProviderId;
use coinop::testing::market::{TestMarket, within};
use coinop::testing::nwc_service::{NwcService, NwcServiceOptions};
use coinop::wallet::fake::FakeWallet;
use serde_json::Value;
use tempfile::TempDir;

/// A buyer's folder: a configuration that pays from a wallet behind a relay.
pub(crate) struct Shopper {
    folder: TempDir,
    pub(crate) provider: ProviderId,
    pub(crate) service: NwcService,
    pub(crate) wallet: FakeWallet,
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

    pub(crate) fn request(&self, text: &str) -> Command {
        let provider = self.provider.to_string();
        self.command(&["request", text, "--provider", &provider, "--max-cost", "50sat", "--timeout", "2m"])
    }

    pub(crate) async fn list(&self) -> Value {
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

pub(crate) fn states(listed: &Value) -> Vec<&str> {
    listed["payments"].as_array().unwrap().iter().map(|line| line["state"].as_str().unwrap()).collect()
}
