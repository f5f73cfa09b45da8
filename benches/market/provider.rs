//! The provider: coinop's own service over a file database, with the echo for a model.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use coinop::daemon::service::{Plan, Service};
use coinop::executor::Router;
use coinop::executor::inference::TextExecutor;
use coinop::executor::sources::TextOnly;
use coinop::identity::Signer;
use coinop::inference::echo::Echo;
use coinop::inference::{Generate, Generation, Inference, InferenceError, Message, ModelInfo, PromptTokens, TextSink};
use coinop::job::admission::Rules;
use coinop::job::text::TextLimits;
use coinop::job::{JobKind, Rates, Terms};
use coinop::metrics::Metrics;
use coinop::money::Msat;
use coinop::nip90::ReadLimits;
use coinop::provider::{Clock, Offer, Settings};
use coinop::relays::{DEFAULT_INBOX_ROOM, IntakeLimits, PoolConfig, Rate};
use coinop::wallet::Wallet;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::child;
use crate::wallet::RemoteWallet;

/// What a prepaid job costs. A base price only, so that no credit is left that would pay for a later job.
pub(crate) const PRICE: Msat = Msat::sat(21);

/// How long the relay may take to be reached.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs get this long when the bench asks the provider to end.
const GRACE: Duration = Duration::from_secs(10);

/// What a provider is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Task {
    pub(crate) relay: String,
    pub(crate) database: PathBuf,
    pub(crate) secret_key: String,
    /// Where its wallet is; without one its work is free.
    pub(crate) wallet: Option<SocketAddr>,
    /// Jobs worked on at once, and how long each takes.
    pub(crate) jobs_running: usize,
    pub(crate) work: Duration,
}

/// Serves until the bench asks to end.
pub(crate) fn serve(task: &str) -> Result<()> {
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
    let task: Task = serde_json::from_str(task)?;
    // As `coinop serve` makes it.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let service = Service::start(plan(task).await?).await?;
        ensure!(service.relays().connected(1, PATIENCE).await == 1, "the relay was not reached");
        child::ready("provider")?;
        child::asked_to_end().await;
        service.stop(GRACE).await;
        Ok(())
    })
}

/// A provider without the limits that protect a real one from its customers: the bench is all of them at once.
async fn plan(task: Task) -> Result<Plan> {
    let signer = Signer::new(nostr::Keys::parse(&task.secret_key).context("the secret key")?);
    let wallet = match task.wallet {
        Some(address) => Some(Arc::new(RemoteWallet::connect(address).await?) as Arc<dyn Wallet>),
        None => None,
    };
    let base = if wallet.is_some() { PRICE } else { Msat::ZERO };
    let offer = Offer {
        rates: Rates { base, ..Rates::default() },
        terms: Terms::Prepay,
        free_per_day: 0,
        hold_for: Offer::hold_for(Duration::from_secs(60)),
    };
    let unlimited = Rate::per_minute(u32::MAX, u32::MAX);
    let backend = Arc::new(Slow { echo: Echo::new(), work: task.work });
    let time_limit = Duration::from_secs(60);
    Ok(Plan {
        signer,
        read_limits: ReadLimits::default(),
        database: Some(task.database),
        relays: PoolConfig {
            relays: vec![task.relay],
            limits: IntakeLimits { per_author: unlimited, overall: unlimited, ..IntakeLimits::default() },
            ..PoolConfig::default()
        },
        inbox_room: DEFAULT_INBOX_ROOM,
        settings: Settings {
            offers: BTreeMap::from([(JobKind::TextGeneration, offer)]),
            rules: Rules {
                max_queued: usize::MAX,
                max_open_quotes: usize::MAX,
                max_per_customer: usize::MAX,
                ..Rules::default()
            },
            jobs_running: task.jobs_running,
            ..Settings::default()
        },
        retention: Duration::from_secs(30 * 24 * 60 * 60),
        wallet,
        desk: None,
        zaps: None,
        refunds: None,
        files: None,
        hold_key: None,
        router: Box::new(move |_| {
            let text = TextExecutor::new(backend, Arc::new(TextOnly), TextLimits::default(), time_limit);
            Router::new().with(JobKind::TextGeneration, Arc::new(text))
        }),
        ad: None,
        clock: Clock::system(),
        witness: Arc::new(()),
        metrics: Metrics::new(),
        metrics_at: None,
        background: Vec::new(),
    })
}

/// The echo, taking its time.
struct Slow {
    echo: Echo,
    work: Duration,
}

#[async_trait]
impl Inference for Slow {
    async fn models(&self) -> Result<Vec<ModelInfo>, InferenceError> {
        self.echo.models().await
    }

    async fn count_prompt_tokens(
        &self,
        model: Option<&str>,
        messages: &[Message],
    ) -> Result<PromptTokens, InferenceError> {
        self.echo.count_prompt_tokens(model, messages).await
    }

    async fn generate(
        &self,
        request: &Generate,
        sink: Option<TextSink>,
        cancel: &CancellationToken,
    ) -> Result<Generation, InferenceError> {
        if !self.work.is_zero() {
            tokio::time::sleep(self.work).await;
        }
        self.echo.generate(request, sink, cancel).await
    }
}
