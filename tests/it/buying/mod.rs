//! The buying side pays at most once and within its budget, whatever happens in between: several processes at once, one that
//! is killed while it pays, one that is interrupted, a payment that comes back.

mod interrupted;
mod killed;
mod shopper;

use std::fs;
use std::process::{Command, Stdio};

use coinop::inference::echo::Echo;
use coinop::job::{JobId, Terms};
use coinop::money::Msat;
use coinop::testing::market::{POCKET_MONEY, TestMarket};
use coinop::testing::nwc_service::{NwcService, NwcServiceOptions};
use serde_json::Value;

use shopper::states;
pub(crate) use shopper::{Shopper, ended, err, run, signal};

const PRICE: Msat = Msat::sat(21);

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
