//! Indexes of repositories, ordered and paid for, made of real repositories on a real git server.

use std::sync::Arc;
use std::time::Duration;

use coinop::code::digests::tree_sha256;
use coinop::executor::repo_index::RepoIndexExecutor;
use coinop::inference::Inference;
use coinop::inference::echo::Echo;
use coinop::job::repo_index::{RepoIndexLimits, RepoIndexResult};
use coinop::job::{Code, Encryption, Input, InputKind, JobKind, Params, Rates, Terms};
use coinop::money::Msat;
use coinop::nip90::Order;
use coinop::provider::Offer;
use coinop::repository::{Repositories, RepositoryLimits};
use coinop::testing::git_server::GitServer;
use coinop::testing::market::{Customer, MarketBuilder, POCKET_MONEY, TestMarket};
use tempfile::TempDir;

const RATES: Rates = Rates { base: Msat::sat(5), per_second: Msat::sat(1), per_1k_prompt: Msat::sat(1), ..Rates::FREE };

/// A git server, and a market where indexes are sold.
struct World {
    git: GitServer,
    market: TestMarket,
    _folder: TempDir,
}

async fn open(
    terms: Terms,
    limits: RepoIndexLimits,
    change: impl FnOnce(MarketBuilder) -> MarketBuilder,
) -> Option<World> {
    // Another test may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let git = GitServer::start().await?;
    let folder = tempfile::tempdir().unwrap();
    let fetched = RepositoryLimits {
        max_bytes: 1024 * 1024,
        max_files: 100,
        time: Duration::from_secs(60),
        cache_bytes: 16 * 1024 * 1024,
        allow_private: true,
    };
    let repositories = Repositories::new(folder.path().to_owned(), fetched);
    let backend: Arc<dyn Inference> = Arc::new(Echo::new().with_embeddings());
    let executor = RepoIndexExecutor::new(repositories, Some(backend), limits);
    let offer = Offer { rates: RATES, terms, free_per_day: 0, hold_for: Offer::hold_for(Duration::from_secs(60)) };
    let market = TestMarket::new().selling(JobKind::RepoIndex, Arc::new(executor), offer);
    let market = change(market).start().await;
    Some(World { git, market, _folder: folder })
}

/// Limits whose price is low enough for pocket money and small enough to reckon with.
fn a_minute() -> RepoIndexLimits {
    RepoIndexLimits { time: Duration::from_secs(60), max_tokens: 10_000, ..RepoIndexLimits::default() }
}

fn order(customer: &Customer, url: String, params: &[(&str, &str)]) -> Order {
    let mut list = Params::default();
    params.iter().for_each(|(key, value)| list.push(key, vec![(*value).to_owned()]));
    let repository = Input { data: url, kind: InputKind::Url, relay: None, marker: Some("repo".to_owned()) };
    Order { kind: JobKind::RepoIndex, inputs: vec![repository], params: list, ..customer.order("") }
}

fn a_project(git: &GitServer) -> String {
    let repository = git.repository("project");
    repository
        .write("src/lib.rs", "/// Adds.\npub fn add(a: u8, b: u8) -> u8 {\n    a + b\n}\n")
        .write("Cargo.toml", "[dependencies]\nserde = \"1\"\n");
    repository.commit("a project").to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_ordered_paid_and_delivered_and_what_was_not_used_is_credit() {
    let Some(World { git, market, _folder }) = open(Terms::Prepay, a_minute(), |market| market).await else { return };
    let commit = a_project(&git);
    let customer = market.customer().await;
    let mut posted = customer.post(&order(&customer, git.http_url("project"), &[("index_type", "all")])).await;
    let invoice = posted.invoice().await;
    // Base, a minute, and as many tokens as there may be.
    assert_eq!(invoice.amount, Msat::sat(5 + 60 + 10));
    customer.pay(&invoice).await.unwrap();
    let result = posted.result().await;
    let index: RepoIndexResult = serde_json::from_str(&result.content).unwrap();
    assert_eq!(index.commit, commit);
    assert_eq!(index.indexes.symbols.unwrap()[0].name, "add");
    assert_eq!(index.indexes.dependencies.unwrap()[0].name, "serde");
    assert_eq!(index.tree_sha256, tree_sha256(&index.indexes.digests.unwrap()));
    assert_eq!(index.indexes.embeddings.unwrap().entries.len(), 2);
    let told = |key: &str| result.receipt.facts.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone());
    assert_eq!(told("commit"), Some(commit));
    assert_eq!(told("tree_sha256"), Some(index.tree_sha256));
    let (paid, credit) = (result.receipt.paid.unwrap(), result.receipt.credit.unwrap());
    assert!(paid >= Msat::sat(5) && paid < invoice.amount, "{paid}");
    assert_eq!(paid.saturating_add(credit), invoice.amount);
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_order_is_indexed_just_as_well() {
    let Some(World { git, market, _folder }) = open(Terms::Free, a_minute(), |market| market).await else { return };
    a_project(&git);
    let customer = market.customer().await;
    let order = Order { encryption: Some(Encryption::Nip44), ..order(&customer, git.git_url("project"), &[]) };
    let result = customer.post(&order).await.result().await;
    let index: RepoIndexResult = serde_json::from_str(&result.content).unwrap();
    assert_eq!(index.indexes.symbols.unwrap()[0].name, "add");
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bid_makes_an_index_smaller_and_too_small_a_bid_is_told_the_price() {
    let Some(World { git, market, _folder }) = open(Terms::Prepay, a_minute(), |market| market).await else { return };
    a_project(&git);
    let customer = market.customer().await;
    let bid = |sats: u32| Order { bid: Some(Msat::sat(sats)), ..order(&customer, git.git_url("project"), &[]) };
    let mut posted = customer.post(&bid(25)).await;
    let invoice = posted.invoice().await;
    assert!(invoice.amount <= Msat::sat(25), "{}", invoice.amount);
    customer.pay(&invoice).await.unwrap();
    posted.result().await;
    let refusal = customer.post(&bid(6)).await.refusal().await;
    assert_eq!(refusal.code, Code::Price);
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_indexed_is_refused_before_money_moves() {
    let Some(World { git, market, _folder }) = open(Terms::Prepay, a_minute(), |market| market).await else { return };
    a_project(&git);
    git.repository("empty");
    let customer = market.customer().await;
    let project = || git.git_url("project");
    for (url, params, named) in [
        (git.git_url("missing"), &[][..], "input repo"),
        (git.http_url("private/project"), &[], "input repo"),
        (git.git_url("empty"), &[], "the repository is empty"),
        ("ext::sh -c id".to_owned(), &[], "is no address"),
        (project(), &[("git_ref", "nope")], "param git_ref"),
        (project(), &[("git_ref", "1234567890123456789012345678901234567890")], "param git_ref"),
        (project(), &[("index_type", "vectors")], "param index_type"),
        (project(), &[("max_file_size", "99999999999")], "param max_file_size"),
        (project(), &[("include", "../..")], "param include"),
        (project(), &[("index_type", "embeddings"), ("embedding_model", "x")], "param embedding_model"),
    ] {
        let refusal = customer.post(&order(&customer, url.clone(), params)).await.refusal().await;
        assert!(matches!(refusal.code, Code::BadRequest | Code::Unsupported), "{url}: {refusal:?}");
        assert!(refusal.text.contains(named), "'{}' does not say '{named}'", refusal.text);
        assert!(!refusal.text.contains("127.0.0.1"), "{}", refusal.text);
    }
    let store = market.service().provider().store();
    assert!(store.list_jobs(Default::default()).await.unwrap().is_empty(), "no job, so no invoice");
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_found_out_after_payment_is_paid_back() {
    let Some(World { git, market, _folder }) = open(Terms::Prepay, a_minute(), |market| market).await else { return };
    let hostile = git.repository("hostile");
    let blob = hostile.blob(b"#!/bin/sh\n");
    let hooks = hostile.tree(&[("100755", b"post-checkout", &blob)]);
    hostile.commit_entries(&[("40000", b".GIT", &hooks)]);
    let large = git.repository("large");
    large.write("zeros", vec![0; 5_000_000]).commit("much more than may come out");
    let many = git.repository("many");
    (0..150).for_each(|n| {
        many.write(&format!("f{n}"), n.to_string());
    });
    many.commit("many");
    let customer = market.customer().await;
    let mut spent = Msat::ZERO;
    for (name, said) in [("hostile", "git's own folder"), ("large", "larger than"), ("many", "more than 100 files")] {
        let mut posted = customer.post(&order(&customer, git.git_url(name), &[])).await;
        // What was paid for the first is credit that pays for the others.
        if spent == Msat::ZERO {
            let invoice = posted.invoice().await;
            customer.pay(&invoice).await.unwrap();
            spent = invoice.amount;
        }
        let refusal = posted.refusal().await;
        assert_eq!(refusal.code, Code::BadRequest, "{refusal:?}");
        assert!(refusal.text.contains(said), "{}", refusal.text);
    }
    assert_eq!(customer.wallet.funds().unwrap(), POCKET_MONEY.saturating_sub(spent));
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_payment_goes_back_when_the_repository_is_gone() {
    let Some(World { git, market, _folder }) = open(Terms::Hold, a_minute(), |market| market).await else { return };
    a_project(&git);
    let customer = market.customer().await;
    let mut posted = customer.post(&order(&customer, git.git_url("project"), &[])).await;
    let invoice = posted.invoice().await;
    std::fs::remove_dir_all(git.repository("project").folder()).unwrap();
    let paying = customer.pay(&invoice);
    let (paid, refusal) = tokio::join!(paying, posted.refusal());
    assert!(paid.is_err(), "the payment was held and went back");
    assert!(refusal.text.starts_with("input repo"), "{}", refusal.text);
    assert_eq!(customer.wallet.funds().unwrap(), POCKET_MONEY);
    market.finish().await;
}
