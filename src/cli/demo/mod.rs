//! `coinop demo`: the whole business on one machine, with nobody's account and nobody's money.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use comfy_table::{Cell, CellAlignment};
use jiff::SignedDuration;
use serde::Serialize;

mod money;
mod timeline;
mod unplugged;

use money::{Market, Purse};
use timeline::{Happening, Timeline, first};
use unplugged::Unplugged;

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
use crate::metrics::Metrics;
use crate::money::Msat;
use crate::nip90::{Codec, Order, ReadLimits};
use crate::provider::{Clock, HoldKey, Offer, Settings};
use crate::relays::{PoolConfig, RelayPool};
use crate::requester::purchase::Ending;
use crate::requester::{BuyError, Buyer, Choice, Limits, Plan};
use crate::store::{AccountBalance, EntryRow, Store};
use crate::testing::relay::TestRelay;

/// The most the customer pays for a job.
const MAX_COST: Msat = Msat::sat(1_000);

/// The demo's price list: 1 sat a job, and a toy model's tokens at toy prices.
const RATES: Rates =
    Rates { base: Msat::sat(1), per_1k_prompt: Msat::sat(20), per_1k_generated: Msat::sat(200), ..Rates::FREE };

/// Tokens each job may use at most: what is quoted.
const MAX_TOKENS: u32 = 48;

/// How long one job may take. On a slow machine the first one waits for the model's first token.
const JOB_TIMEOUT: SignedDuration = SignedDuration::from_secs(120);

/// How long anything else may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks at a job.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

#[cfg(feature = "ldk")]
const EXAMPLES: &str = "\
Starts a relay on loopback, a private bitcoin network, two Lightning nodes with a channel between them, a provider with a
tiny model, and a customer, all in this process, and lets them do three jobs: a Lean 4 proof, paid before (prepay); a Rocq
proof, encrypted (NIP-44), whose payment is held until it is done (hold); and one that fails on purpose, so that the held
payment goes back. Needs no network, account or configuration and leaves nothing behind. The payments are real Lightning
payments; only the bitcoin are not.

Exit codes: 0 it all went as it should, paid and booked, 1 not (the reason is printed).

Examples:
  coinop demo
  coinop demo --json | jq .wallets";

#[cfg(not(feature = "ldk"))]
const EXAMPLES: &str = "\
Starts a relay on loopback, a provider with a tiny model and a customer in this process, and lets them do three jobs with
play money (this build has no Lightning node): a Lean 4 proof, paid before (prepay); a Rocq proof, encrypted (NIP-44), whose
payment is held until it is done (hold); and one that fails on purpose, so that the held payment goes back. Needs no network,
account or configuration and leaves nothing behind.

Exit codes: 0 it all went as it should, paid and booked, 1 not (the reason is printed).

Examples:
  coinop demo
  coinop demo --json | jq .wallets";

/// Watch a job being sold, paid, done and booked, on this machine alone
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct DemoArgs {}

/// A job of the demo.
struct DemoJob {
    number: u32,
    about: &'static str,
    prompt: &'static str,
    encrypted: bool,
    terms: Terms,
    /// The model breaks down in the middle of it.
    fails: bool,
}

const JOBS: [DemoJob; 3] = [
    DemoJob {
        number: 1,
        about: "a Lean 4 proof, posted in the open, paid before",
        prompt: "theorem t (p q : Prop) (hp : p) (hq : q) : p ∧ q := by",
        encrypted: false,
        terms: Terms::Prepay,
        fails: false,
    },
    DemoJob {
        number: 2,
        about: "a Rocq proof, encrypted (NIP-44), the payment held",
        prompt: "Theorem t : forall n : nat, n + 0 = n.",
        encrypted: true,
        terms: Terms::Hold,
        fails: false,
    },
    DemoJob {
        number: 3,
        about: "fails on purpose, the held payment goes back",
        prompt: "theorem t (p q : Prop) (hp : p) (hq : q) : p ∨ q := by",
        encrypted: false,
        terms: Terms::Hold,
        fails: true,
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
    terms: Terms,
    /// Nothing when it failed.
    content: Option<String>,
    /// Why it failed.
    failure: Option<String>,
    paid_msat: u64,
    cost_msat: Option<u64>,
    credit_msat: Option<u64>,
    tokens: Option<u64>,
    mflops: Option<u64>,
}

/// A wallet before and after, in its own words.
#[derive(Debug, Serialize)]
struct Balance {
    who: &'static str,
    wallet: String,
    before: crate::wallet::Balance,
    after: crate::wallet::Balance,
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
    let market = Market::open(folder, &identity, &customer, &mut timeline).await?;
    let before = (balance(market.till()).await?, balance(market.purse()).await?);

    let pool = Arc::new(RelayPool::connect(pool_config(&url), &customer.signer, None).await?);
    ensure!(pool.connected(1, PATIENCE).await == 1, "the customer could not connect to the relay");
    let database = folder.join("coinop.db");
    let mut sold = Vec::new();
    for (turn, job) in JOBS.iter().enumerate() {
        // Each kind of terms is a provider of its own, over the same database: as after a restart with another configuration.
        let backend: Arc<dyn Inference> =
            if job.fails { Arc::new(Unplugged(backend.clone())) } else { backend.clone() };
        let service =
            Service::start(service_plan(&identity, &url, &database, job.terms, market.till(), backend)).await?;
        ensure!(service.relays().connected(1, PATIENCE).await == 1, "the provider could not connect to the relay");
        let again = if turn == 0 { "online" } else { "restarted" };
        let what = format!("{again} as {}…, terms {}", first(&identity.npub(), 16), job.terms);
        timeline.tell(None, None, "provider", what, None);
        let done = buy(job, &identity, &customer, &market, &pool, &mut timeline).await;
        // What is left to be done (giving back what was held) is done before it stops.
        let settled = match &done {
            Ok(sold) => settled(&service, job, sold.id).await,
            Err(_) => Ok(()),
        };
        ensure!(service.stop(PATIENCE).await, "the provider did not stop in order");
        settled?;
        sold.push(done?);
    }
    timeline.tell(None, None, "provider", "stopped in order".into(), None);
    pool.shutdown().await;
    relay.stop().await;

    let (store, _closing) = Store::open(&database)?;
    let problems = store.check_books().await?;
    if !problems.is_empty() {
        return Err(CommandError::failure(format!("the books are not in order: {}", problems.join("; "))).into());
    }
    let paid = sold.iter().map(|job| job.paid_msat).sum::<u64>();
    let (till, purse) = after(paid, &market, before).await?;
    let name = market.till().name().to_owned();
    let wallets = vec![
        Balance { who: "customer", wallet: name.clone(), before: before.1, after: purse },
        Balance { who: "provider", wallet: name, before: before.0, after: till },
    ];
    let report = Report {
        provider_npub: identity.npub(),
        relay: url,
        model,
        timeline: timeline.happenings,
        jobs: sold,
        ledger: store.ledger(None, None).await?,
        accounts: store.balances().await?,
        wallets,
    };
    market.close().await;
    Ok(report)
}

/// What a wallet says it has.
async fn balance(wallet: Purse) -> Result<crate::wallet::Balance> {
    wallet.balance().await?.context("the wallet does not say what it has")
}

/// Waits until the job is at its end: delivered, or failed with its money back where it came from.
async fn settled(service: &Service, job: &DemoJob, id: JobId) -> Result<()> {
    use crate::job::{PaymentState, WorkState};
    let wanted = |found: &crate::job::Job| {
        if job.fails {
            found.work == WorkState::Failed && found.payment == PaymentState::Released
        } else {
            found.work == WorkState::Delivered && found.payment.allows_publishing()
        }
    };
    let looking = async {
        loop {
            if service.provider().store().job(id).await?.is_some_and(|stored| wanted(&stored.job)) {
                return anyhow::Ok(());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking)
        .await
        .with_context(|| format!("job {} did not come to its end", job.number))?
}

/// What the wallets (the provider's, the customer's) say at the end: what was paid for jobs moved, and nothing for the one
/// that failed. The payment that goes back may still be on its way.
async fn after(
    paid: u64,
    market: &Market,
    before: (crate::wallet::Balance, crate::wallet::Balance),
) -> Result<(crate::wallet::Balance, crate::wallet::Balance)> {
    let less = |before: Msat, after: Msat| before.as_msat().saturating_sub(after.as_msat());
    let began = Instant::now();
    loop {
        let now = (balance(market.till()).await?, balance(market.purse()).await?);
        let spent = less(before.1.spendable, now.1.spendable);
        // What a node could receive before and can't any more is what it received.
        let received = match (before.0.receivable, now.0.receivable) {
            (Some(before), Some(after)) => less(before, after),
            _ => less(now.0.spendable, before.0.spendable),
        };
        if (spent, received) == (paid, paid) {
            return Ok(now);
        }
        ensure!(
            began.elapsed() < PATIENCE,
            "{paid} msat were paid for jobs, but the customer's wallet has {spent} msat less, the provider's {received} more"
        );
        tokio::time::sleep(LOOK_AGAIN).await;
    }
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

fn pool_config(url: &str) -> PoolConfig {
    PoolConfig { relays: vec![url.to_owned()], allow_private: true, ..PoolConfig::default() }
}

fn service_plan(
    identity: &Identity,
    url: &str,
    database: &std::path::Path,
    terms: Terms,
    wallet: Purse,
    backend: Arc<dyn Inference>,
) -> ServicePlan {
    let limit = Duration::try_from(JOB_TIMEOUT).unwrap_or(PATIENCE);
    let offer = Offer { rates: RATES, terms, free_per_day: 0, hold_for: Offer::hold_for(limit) };
    ServicePlan {
        signer: identity.signer.clone(),
        read_limits: ReadLimits { allow_private_relays: true, ..ReadLimits::default() },
        database: Some(database.to_owned()),
        relays: pool_config(url),
        inbox_room: crate::relays::DEFAULT_INBOX_ROOM,
        settings: Settings { offers: [(JobKind::TextGeneration, offer)].into(), ..Settings::default() },
        retention: Duration::from_secs(24 * 60 * 60),
        wallet: Some(wallet),
        zaps: None,
        refunds: None,
        desk: None,
        files: None,
        hold_key: Some(HoldKey::new(*identity.wallet.hold_secret())),
        router: Box::new(move |_| {
            let text = TextExecutor::new(backend, Arc::new(TextOnly), TextLimits::default(), limit);
            Router::new().with(JobKind::TextGeneration, Arc::new(text))
        }),
        ad: None,
        clock: Clock::system(),
        witness: Arc::new(()),
        metrics: Metrics::new(),
        metrics_at: None,
        background: Vec::new(),
    }
}

async fn buy(
    job: &DemoJob,
    provider: &Identity,
    customer: &Identity,
    market: &Market,
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
        bid: Some(MAX_COST),
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
        limits: Limits { max_cost: MAX_COST, offer_window: SignedDuration::from_secs(1), timeout: JOB_TIMEOUT },
        // There is nobody else to wait for.
        choice: Choice::First,
        max_fee_percent: 0,
        network: bitcoin::Network::Regtest,
    };
    let buyer = Buyer { publisher: pool.clone(), wallet: Some(market.purse()), book: None, clock };
    let bought = buyer.buy(plan, answers.readable(), |progress| timeline.hear(job.number, progress)).await;
    let mut sold = Sold {
        job: job.number,
        id,
        about: job.about,
        prompt: job.prompt,
        encrypted: job.encrypted,
        terms: job.terms,
        content: None,
        failure: None,
        paid_msat: 0,
        cost_msat: None,
        credit_msat: None,
        tokens: None,
        mflops: None,
    };
    match bought {
        Ok(receipt) if !job.fails => {
            timeline.delivered(job.number, &receipt);
            let told = receipt.result.receipt;
            sold.paid_msat = receipt.paid.as_msat();
            sold.cost_msat = told.paid.map(Msat::as_msat);
            sold.credit_msat = told.credit.map(Msat::as_msat);
            sold.tokens = told.usage.map(crate::job::Usage::total);
            sold.mflops = told.mflops;
            sold.content = Some(receipt.result.content);
        }
        Ok(_) => anyhow::bail!("job {} was to fail, and was done", job.number),
        Err(problem @ (BuyError::Ended { ending: Ending::Failed(_), .. } | BuyError::Payment(_))) if job.fails => {
            timeline.tell(Some(job.number), None, "customer", format!("nothing was paid: {problem}"), None);
            sold.failure = Some(problem.to_string());
        }
        Err(problem) => {
            return Err(problem).with_context(|| format!("job {} ({}) was not done", job.number, job.about));
        }
    }
    Ok(sold)
}

fn text(report: &Report) -> String {
    let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    let sats = |msat: u64| Msat::from_msat(msat).unwrap_or(Msat::MAX).to_string();
    let mut jobs = table::new(["job", "terms", "asked", "got", "paid", "cost", "credit after", "tokens"]);
    for job in &report.jobs {
        let got = job.content.as_deref().map_or_else(
            || format!("nothing: {}", job.failure.as_deref().unwrap_or_default()),
            |content| content.trim().to_owned(),
        );
        jobs.add_row([
            Cell::new(format!("{} {}", job.job, job.about)),
            Cell::new(job.terms),
            Cell::new(job.prompt),
            Cell::new(first(&got, 80)),
            right(sats(job.paid_msat)),
            right(job.cost_msat.map_or_else(String::new, sats)),
            right(job.credit_msat.map_or_else(String::new, sats)),
            right(job.tokens.map_or_else(String::new, |tokens| tokens.to_string())),
        ]);
    }
    let mut wallets = table::new(["wallet", "can pay before", "after", "can receive before", "after"]);
    for wallet in &report.wallets {
        let receivable =
            |amount: Option<Msat>| amount.map_or_else(|| "not told".to_owned(), |amount| amount.to_string());
        wallets.add_row([
            Cell::new(format!("{} ({})", wallet.who, wallet.wallet)),
            right(wallet.before.spendable.to_string()),
            right(wallet.after.spendable.to_string()),
            right(receivable(wallet.before.receivable)),
            right(receivable(wallet.after.receivable)),
        ]);
    }
    format!(
        "\nJobs\n{jobs}\n\nLedger of the provider\n{}\nWallets, as they say themselves\n{wallets}\n",
        super::ledger::books_text(&report.ledger, &report.accounts)
    )
}
