//! The provider is killed (SIGKILL) while a cell runs: the next start removes what was left, and the job is run again.

use std::path::PathBuf;
use std::sync::Arc;

use coinop::daemon::service::Service;
use coinop::identity::Signer;
use coinop::job::Terms;
use coinop::money::Msat;
use coinop::sandbox::{Runtime, Sandbox};
use coinop::testing::engine;
use coinop::testing::market::{Customer, PATIENCE, POCKET_MONEY, within};
use coinop::testing::nwc_service::{NwcService, NwcServiceOptions};
use coinop::testing::relay::TestRelay;
use coinop::wallet::fake::{FakeNetwork, FakeWallet, FakeWalletOptions};
use coinop::wallet::nwc::{NwcOptions, NwcUri, NwcWallet};
use nostr::Keys;
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};

use super::RATES;
use super::shop::{self, Engine, read};
use crate::crash::{MARK, ORDERS, Running};

/// What the child is to be.
#[derive(Clone, Serialize, Deserialize)]
struct Orders {
    relay: String,
    wallet: String,
    key: String,
    database: PathBuf,
    instance: String,
}

/// Not a test: the provider's process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "is started by the story here"]
async fn child() {
    let Ok(orders) = std::env::var(ORDERS) else { return };
    let orders: Orders = serde_json::from_str(&orders).unwrap();
    let mut stop = signal(SignalKind::terminate()).unwrap();
    let uri: NwcUri = orders.wallet.parse().unwrap();
    let wallet = NwcWallet::connect(&uri, NwcOptions::default()).await.unwrap();
    let hosts = engine::hosts(&orders.instance, Runtime::Runc).await.unwrap();
    // As at every start.
    let swept = hosts.sweep_all().await;
    println!("{MARK}swept {}", swept.removed);
    // As at every start, too: until an engine was looked at it has no room.
    assert!(!hosts.images(Runtime::Runc).await.unwrap().is_empty());
    let folder = tempfile::tempdir().unwrap();
    let executor = shop::executor(Arc::clone(&hosts), Runtime::Runc, &folder, None);
    let plan = shop::selling(executor, RATES, Terms::Prepay).plan(
        Signer::new(Keys::parse(&orders.key).unwrap()),
        vec![orders.relay],
        orders.database,
        Some(Arc::new(wallet)),
        Arc::new(()),
    );
    let service = Service::start(plan).await.unwrap();
    println!("{MARK}ready");
    stop.recv().await;
    assert!(service.stop(PATIENCE).await);
    hosts.shut_down().await;
    println!("{MARK}stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_killed_while_a_cell_runs_removes_it_and_runs_the_job_again() {
    let instance = format!("coinop-killed-{:016x}", rand::random::<u64>());
    if engine::hosts(&instance, Runtime::Runc).await.is_none() {
        return;
    }
    let machine = Engine::of_this_machine();
    let relay = TestRelay::start().await.unwrap();
    let network = FakeNetwork::in_memory();
    let wallet = FakeWallet::open(&network, &[1; 32], FakeWalletOptions::default()).unwrap();
    let service = NwcService::start(&[relay.url()], wallet.clone(), NwcServiceOptions::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let provider = Signer::random();
    let orders = Orders {
        relay: relay.url(),
        wallet: service.uri().to_owned(),
        key: provider.keys().secret_key().to_secret_hex(),
        database: folder.path().join("coinop.sqlite"),
        instance: instance.clone(),
    };
    let purse = FakeWalletOptions { opening_balance: POCKET_MONEY, ..FakeWalletOptions::default() };
    let purse = FakeWallet::open(&network, &[2; 32], purse).unwrap();
    let customer = Customer::join(Signer::random(), &[relay.url()], provider.provider_id(), purse).await;

    let mut running = Running::start_child("sandbox_runs::killed::child", &orders);
    while within("the provider", running.says()).await != "ready" {}
    let mut commands = machine.commands(&instance);
    let order =
        shop::order(&customer, &[("cmd_0", "echo first > x; sleep 5"), ("cmd_1", "cat x"), ("expect_exit", "0")]);
    let mut posted = customer.post(&order).await;
    let invoice = posted.invoice().await;
    customer.pay(&invoice).await.unwrap();
    let container = commands.begun_by(posted.job).await;
    running.kill();
    assert!(machine.has(&container).await, "nobody was there to remove it");

    let mut running = Running::start_child("sandbox_runs::killed::child", &orders);
    let swept = within("the sweep", running.says()).await;
    assert_ne!(swept, "swept 0");
    assert!(!machine.has(&container).await);
    let result = posted.result().await;
    assert_eq!(read(&result).stdout, "first\n");
    assert!(running.ends().await);
    let results = posted.heard.iter().filter(|answer| matches!(answer.body, coinop::nip90::AnswerBody::Result(_)));
    assert_eq!(results.count(), 1);
    assert_eq!(wallet.funds().unwrap(), invoice.amount, "it was paid once");
    assert!(result.receipt.paid.unwrap() >= Msat::sat(15));
    machine.has_nothing_of(&instance).await;
    service.shutdown().await;
}
