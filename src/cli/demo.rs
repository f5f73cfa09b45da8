//! `coinop demo`: the whole business on one machine, with nobody's account and nobody's money.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use comfy_table::{Cell, CellAlignment};
use jiff::SignedDuration;
use serde::Serialize;

use super::exit::{CommandError, Exit};
use super::{Globals, table};
use crate::daemon::service::{Plan as ServicePlan, Service};
use crate::executor::Router;
use crate::executor::inference::TextExecutor;
use crate::executor::sources::TextOnly;
use crate::identity::{Account, Identity, Phrase, WordCount};
use crate::inference::Inference;
use crate::job::text::TextLimits;
use crate::job::{Encryption, Input, InputKind, JobId, JobKind, Params, Rates, Terms};
use crate::money::Msat;
use crate::nip90::{Codec, Order, ReadLimits};
use crate::provider::{Clock, HOLD_SLACK, HoldKey, Offer, Settings};
use crate::relays::{PoolConfig, RelayPool};
use crate::requester::{Buyer, Choice, Limits, Plan, Progress, Receipt};
use crate::store::{AccountBalance, EntryRow, Store};
use crate::testing::relay::TestRelay;
use crate::wallet::fake::{self, FakeNetwork, FakeWallet, FakeWalletOptions};

/// What the customer begins with.
const POCKET_MONEY: Msat = Msat::sat(1_000);

/// The demo's price list: 1 sat a job, and a toy model's tokens at toy prices.
const RATES: Rates = Rates { base: Msat::sat(1), per_1k_prompt: Msat::sat(20), per_1k_generated: Msat::sat(200) };

/// Tokens each job may use at most: what is quoted.
const MAX_TOKENS: u32 = 48;

/// How long one job may take. On a slow machine the first one waits for the model's first token.
const JOB_TIMEOUT: SignedDuration = SignedDuration::from_secs(120);

/// How long anything else may take.
const PATIENCE: Duration = Duration::from_secs(30);

const EXAMPLES: &str = "\
Starts a relay on loopback, a provider with a tiny model in this process, and a customer with play money, and lets them do
two jobs: a Lean 4 proof, posted in the open, and a Rocq proof, encrypted (NIP-44). Needs no network, account or
configuration and leaves nothing behind. The invoices are real, signed BOLT 11 (regtest); the money is not.

Exit codes: 0 both jobs were done, paid and booked, 1 not (the reason is printed).

Examples:
  coinop demo
  coinop demo --json | jq .ledger";

/// Watch a job being sold, paid, done and booked, on this machine alone
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct DemoArgs {}

/// A line of the timeline.
#[derive(Debug, Clone, Serialize)]
struct Happening {
    /// Since the demo began.
    at_ms: u64,
    job: Option<u32>,
    /// The Nostr event's kind, when it was one.
    kind: Option<u16>,
    who: &'static str,
    what: String,
    amount_msat: Option<u64>,
}

/// Tells what happens: at once to people, at the end to scripts.
struct Timeline {
    began: Instant,
    quiet: bool,
    happenings: Vec<Happening>,
}

impl Timeline {
    fn tell(&mut self, job: Option<u32>, kind: Option<u16>, who: &'static str, what: String, amount: Option<Msat>) {
        let at = self.began.elapsed();
        if !self.quiet {
            let kind = kind.map_or_else(|| "-".into(), |kind| kind.to_string());
            let amount = amount.map_or_else(String::new, |amount| amount.to_string());
            eprintln!("{:>8.3} s  {kind:>5}  {who:<8}  {amount:>10}  {what}", at.as_secs_f64());
        }
        let at_ms = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
        self.happenings.push(Happening { at_ms, job, kind, who, what, amount_msat: amount.map(Msat::as_msat) });
    }

    fn hear(&mut self, job: u32, progress: Progress) {
        let some = Some(job);
        match progress {
            Progress::Posted(report) => {
                let what =
                    format!("job {job} requested; {} of {} relays took it", report.accepted(), report.verdicts.len());
                self.tell(some, Some(JobKind::TextGeneration.request_kind()), "customer", what, None);
            }
            Progress::Offered(offer) => {
                let terms = offer.terms.map_or("unstated", Terms::word);
                let what = format!("payment-required, terms {terms}, invoice {}…", first(&offer.bolt11, 24));
                self.tell(some, Some(7000), "provider", what, Some(offer.amount));
            }
            Progress::Passed { why, .. } => self.tell(some, Some(7000), "provider", format!("no offer: {why}"), None),
            Progress::Chosen(offer) => self.tell(some, None, "customer", "pays the invoice".into(), Some(offer.amount)),
            Progress::Paid { amount, .. } => self.tell(some, None, "wallet", "settled".into(), Some(amount)),
            Progress::Returned { amount } => self.tell(some, None, "wallet", "came back".into(), Some(amount)),
            Progress::Working { .. } => self.tell(some, Some(7000), "provider", "processing".into(), None),
            Progress::Piece(_) => self.tell(some, Some(7000), "provider", "partial".into(), None),
            Progress::Refused { refusal, .. } => {
                self.tell(some, Some(7000), "provider", format!("error {}: {refusal}", refusal.code), None);
            }
        }
    }

    fn delivered(&mut self, job: u32, receipt: &Receipt) {
        let told = &receipt.result.receipt;
        let tokens = told
            .usage
            .map_or_else(String::new, |usage| format!(", {} + {} tokens", usage.prompt_tokens, usage.generated_tokens));
        let model = told.model.as_deref().unwrap_or("a model");
        let what = format!("result by {model}{tokens}: {}", first(receipt.result.content.trim(), 60));
        self.tell(Some(job), Some(JobKind::TextGeneration.result_kind()), "provider", what, told.paid);
    }
}

/// The first characters of a text, on one line.
fn first(text: &str, characters: usize) -> String {
    text.chars().take(characters).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A job of the demo.
struct DemoJob {
    number: u32,
    about: &'static str,
    prompt: &'static str,
    encrypted: bool,
}

const JOBS: [DemoJob; 2] = [
    DemoJob {
        number: 1,
        about: "a Lean 4 proof, posted in the open",
        prompt: "theorem t (p q : Prop) (hp : p) (hq : q) : p ∧ q := by",
        encrypted: false,
    },
    DemoJob {
        number: 2,
        about: "a Rocq proof, encrypted (NIP-44)",
        prompt: "Theorem t : forall n : nat, n + 0 = n.",
        encrypted: true,
    },
];

/// What came of a job.
#[derive(Debug, Serialize)]
struct Sold {
    job: u32,
    id: JobId,
    about: &'static str,
    prompt: &'static str,
    encrypted: bool,
    content: String,
    paid_msat: u64,
    cost_msat: Option<u64>,
    credit_msat: Option<u64>,
    tokens: Option<u64>,
    mflops: Option<u64>,
}

/// A wallet before and after.
#[derive(Debug, Serialize)]
struct Balance {
    who: &'static str,
    before_msat: u64,
    after_msat: u64,
}

#[derive(Debug, Serialize)]
struct Report {
    provider_npub: String,
    relay: String,
    model: String,
    timeline: Vec<Happening>,
    jobs: Vec<Sold>,
    ledger: Vec<EntryRow>,
    accounts: Vec<AccountBalance>,
    wallets: Vec<Balance>,
}

/// Runs the command.
pub async fn run(_: DemoArgs, globals: &Globals) -> Result<ExitCode> {
    let folder = tempfile::tempdir().context("no temporary folder can be made")?;
    let timeline = Timeline { began: Instant::now(), quiet: globals.json || globals.quiet, happenings: Vec::new() };
    let report = play(folder.path(), timeline).await?;
    globals.print(&report, || text(&report))?;
    Ok(Exit::Ok.into())
}

async fn play(folder: &std::path::Path, mut timeline: Timeline) -> Result<Report> {
    let relay = TestRelay::start().await.context("no relay can be started on loopback")?;
    let url = relay.url();
    timeline.tell(None, None, "relay", format!("listening on {url}"), None);

    let backend = model(folder).await?;
    let model = backend.models().await?.first().map_or_else(String::new, |model| model.name.clone());
    timeline.tell(None, None, "provider", format!("model {model} is loaded"), None);

    // One phrase gives the Nostr key and the wallet's, as it would for an operator.
    let identity = Identity::from_phrase(&Phrase::generate(WordCount::Twelve)?, Account::default());
    let customer = Identity::from_phrase(&Phrase::generate(WordCount::Twelve)?, Account::default());
    let network = FakeNetwork::in_memory();
    let till = open_wallet(&network, &identity, Msat::ZERO)?;
    let purse = open_wallet(&network, &customer, POCKET_MONEY)?;

    let database = folder.join("coinop.db");
    let service = Service::start(service_plan(&identity, &url, &database, till.clone(), backend)).await?;
    ensure!(service.relays().connected(1, PATIENCE).await == 1, "the provider could not connect to the relay");
    timeline.tell(None, None, "provider", format!("online as {}…", first(&identity.npub(), 16)), None);

    let pool = Arc::new(RelayPool::connect(pool_config(&url), &customer.signer, None).await?);
    ensure!(pool.connected(1, PATIENCE).await == 1, "the customer could not connect to the relay");
    let mut sold = Vec::new();
    for job in &JOBS {
        sold.push(buy(job, &identity, &customer, purse.clone(), &pool, &mut timeline).await?);
    }
    pool.shutdown().await;
    ensure!(service.stop(PATIENCE).await, "the provider did not stop in order");
    timeline.tell(None, None, "provider", "stopped in order".into(), None);
    relay.stop().await;

    let (store, _closing) = Store::open(&database)?;
    for job in &sold {
        let stored = store.job(job.id).await?.with_context(|| format!("job {} is not in the store", job.job))?;
        ensure!(
            stored.job.work == crate::job::WorkState::Delivered,
            "job {} is {} instead of delivered",
            job.job,
            stored.job.work.word()
        );
    }
    let problems = store.check_books().await?;
    if !problems.is_empty() {
        return Err(CommandError::failure(format!("the books are not in order: {}", problems.join("; "))).into());
    }
    let wallets = vec![
        Balance { who: "customer", before_msat: POCKET_MONEY.as_msat(), after_msat: purse.funds()?.as_msat() },
        Balance { who: "provider", before_msat: 0, after_msat: till.funds()?.as_msat() },
    ];
    Ok(Report {
        provider_npub: identity.npub(),
        relay: url,
        model,
        timeline: timeline.happenings,
        jobs: sold,
        ledger: store.ledger(None, None).await?,
        accounts: store.balances().await?,
        wallets,
    })
}

#[cfg(feature = "mistralrs")]
async fn model(folder: &std::path::Path) -> Result<Arc<dyn Inference>> {
    use crate::inference::mistral_rs::{MistralRs, MistralRsConfig};
    use crate::inference::tiny;
    let config = MistralRsConfig {
        model_path: tiny::write_to(folder).context("the model can't be written to the temporary folder")?,
        name: Some(tiny::MODEL_NAME.into()),
        context_tokens: None,
        chat_template: None,
    };
    Ok(Arc::new(MistralRs::load(config, |progress| tracing::info!("{progress}")).await?))
}

/// A build without in-process inference has a model that repeats what it is told.
#[cfg(not(feature = "mistralrs"))]
async fn model(_: &std::path::Path) -> Result<Arc<dyn Inference>> {
    Ok(Arc::new(crate::inference::echo::Echo::new()))
}

fn open_wallet(network: &FakeNetwork, identity: &Identity, opening_balance: Msat) -> Result<Arc<FakeWallet>> {
    let options = FakeWalletOptions { opening_balance, ..FakeWalletOptions::default() };
    let key = identity.wallet.play_money_node_key().secret_bytes();
    Ok(Arc::new(FakeWallet::open(network, &key, options)?))
}

fn pool_config(url: &str) -> PoolConfig {
    PoolConfig { relays: vec![url.to_owned()], allow_private: true, ..PoolConfig::default() }
}

fn service_plan(
    identity: &Identity,
    url: &str,
    database: &std::path::Path,
    wallet: Arc<FakeWallet>,
    backend: Arc<dyn Inference>,
) -> ServicePlan {
    let offer = Offer { rates: RATES, terms: Terms::Prepay, free_per_day: 0, hold_for: HOLD_SLACK };
    let limit = Duration::try_from(JOB_TIMEOUT).unwrap_or(PATIENCE);
    ServicePlan {
        signer: identity.signer.clone(),
        read_limits: ReadLimits { allow_private_relays: true, ..ReadLimits::default() },
        database: Some(database.to_owned()),
        relays: pool_config(url),
        inbox_room: crate::relays::DEFAULT_INBOX_ROOM,
        settings: Settings { offers: [(JobKind::TextGeneration, offer)].into(), ..Settings::default() },
        retention: Duration::from_secs(24 * 60 * 60),
        wallet: Some(wallet),
        hold_key: Some(HoldKey::new(*identity.wallet.hold_secret())),
        router: Box::new(move |_| {
            let text = TextExecutor::new(backend, Arc::new(TextOnly), TextLimits::default(), limit);
            Router::new().with(JobKind::TextGeneration, Arc::new(text))
        }),
        ad: None,
        clock: Clock::system(),
        witness: Arc::new(()),
    }
}

async fn buy(
    job: &DemoJob,
    provider: &Identity,
    customer: &Identity,
    purse: Arc<FakeWallet>,
    pool: &Arc<RelayPool>,
    timeline: &mut Timeline,
) -> Result<Sold> {
    let clock = Clock::system();
    let codec = Codec::new(customer.signer.clone(), ReadLimits { allow_private_relays: true, ..ReadLimits::default() });
    let mut params = Params::default();
    params.push("max_tokens", vec![MAX_TOKENS.to_string()]);
    params.push("temperature", vec!["0".into()]);
    // The open request is for anybody, the encrypted one only its addressee can read.
    let asked = if job.encrypted { vec![provider.signer.provider_id()] } else { Vec::new() };
    let order = Order {
        kind: JobKind::TextGeneration,
        inputs: vec![Input { data: job.prompt.into(), kind: InputKind::Text, relay: None, marker: None }],
        params,
        output: None,
        bid: Some(POCKET_MONEY),
        providers: asked.clone(),
        relays: Vec::new(),
        expires_at: clock.now().checked_add(JOB_TIMEOUT).ok(),
        encryption: job.encrypted.then_some(Encryption::Nip44),
    };
    let request = codec.request(&order, clock.now())?;
    let id = JobId(request.id.0);
    let since = clock.now().checked_sub(JOB_TIMEOUT)?;
    let answers = pool.follow(id, order.kind, &[], since, codec);
    let plan = Plan {
        request,
        asked,
        limits: Limits { max_cost: POCKET_MONEY, offer_window: SignedDuration::from_secs(1), timeout: JOB_TIMEOUT },
        // There is nobody else to wait for.
        choice: Choice::First,
        max_fee_percent: 0,
        network: fake::NETWORK,
    };
    let buyer = Buyer { publisher: pool.clone(), wallet: Some(purse), book: None, clock };
    let receipt = buyer
        .buy(plan, answers.readable(), |progress| timeline.hear(job.number, progress))
        .await
        .with_context(|| format!("job {} ({}) was not done", job.number, job.about))?;
    timeline.delivered(job.number, &receipt);
    let told = &receipt.result.receipt;
    Ok(Sold {
        job: job.number,
        id,
        about: job.about,
        prompt: job.prompt,
        encrypted: job.encrypted,
        paid_msat: receipt.paid.as_msat(),
        cost_msat: told.paid.map(Msat::as_msat),
        credit_msat: told.credit.map(Msat::as_msat),
        tokens: told.usage.map(crate::job::Usage::total),
        mflops: told.mflops,
        content: receipt.result.content,
    })
}

fn text(report: &Report) -> String {
    let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    let sats = |msat: u64| Msat::from_msat(msat).unwrap_or(Msat::MAX).to_string();
    let mut jobs = table::new(["job", "asked", "got", "paid", "cost", "credit after", "tokens"]);
    for job in &report.jobs {
        jobs.add_row([
            Cell::new(format!("{} {}", job.job, job.about)),
            Cell::new(job.prompt),
            Cell::new(first(job.content.trim(), 80)),
            right(sats(job.paid_msat)),
            right(job.cost_msat.map_or_else(String::new, sats)),
            right(job.credit_msat.map_or_else(String::new, sats)),
            right(job.tokens.map_or_else(String::new, |tokens| tokens.to_string())),
        ]);
    }
    let mut wallets = table::new(["wallet", "before", "after"]);
    for wallet in &report.wallets {
        wallets.add_row([Cell::new(wallet.who), right(sats(wallet.before_msat)), right(sats(wallet.after_msat))]);
    }
    format!(
        "\nJobs\n{jobs}\n\nLedger of the provider\n{}\nWallets\n{wallets}\n",
        super::ledger::books_text(&report.ledger, &report.accounts)
    )
}
