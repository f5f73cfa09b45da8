//! A provider with its relays, started and stopped in order.
//!
//! Start: store, relays (requests pile up in the inbox), provider, what an earlier process left, then intake. Stop: intake,
//! the inbox's rest, runs (a grace period), the outbox's last words, the ads, the sockets, the database.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use tokio::net::TcpListener;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::tasks::Tasks;
use super::zaps::ZapListener;
use crate::blossom::Blossom;
use crate::executor::Router;
use crate::identity::Signer;
use crate::job::JobKind;
use crate::job::id::NostrKey;
use crate::lnurl::LnurlClient;
use crate::metrics::{Metrics, OpenJobs};
use crate::nip90::handler_info::{Ad, Profile};
use crate::nip90::{Codec, ReadLimits};
use crate::provider::{
    Advertiser, AutomaticRefunds, Clock, HoldKey, Parts, Provider, RefundTerms, Settings, Witness, ZapAddress,
    keep_refunding, return_unasked_refunds,
};
use crate::relays::{Inbox, Intake, PoolConfig, RelayError, RelayPool};
use crate::store::{Closing, Store, StoreError};
use crate::wallet::Wallet;
use crate::wallet::desk::Desk;
use crate::web;

/// The cursor's name in the store.
const RELAY_CURSOR: &str = "relays";

/// How often it is remembered up to when the relays have been read.
const CURSOR_EVERY: Duration = Duration::from_secs(10);

/// How far before the cursor requests are asked for again: covers clocks that differ and requests that were being made
/// ready when the process ended. What is known already costs a look.
const CURSOR_OVERLAP: Duration = Duration::from_secs(15 * 60);

/// How long long-lived tasks get to end once they are told.
const TASK_GRACE: Duration = Duration::from_secs(10);

/// What customers see of us.
#[derive(Debug, Clone)]
pub struct AdPlan {
    /// One ad a kind served.
    pub ads: Vec<Ad>,
    /// Kinds that are sold and not offered now: their ads are taken back.
    pub withheld: Vec<JobKind>,
    /// Who we are.
    pub profile: Option<Profile>,
    /// Whether we say that we are here.
    pub heartbeat: bool,
    /// How often the ads are published again.
    pub refresh: Duration,
    /// Whether they are taken back when we stop.
    pub withdraw_on_shutdown: bool,
}

/// How credit is paid back.
#[derive(Debug, Clone, Copy)]
pub struct RefundPlan {
    /// How addresses are asked for invoices.
    pub lnurl: LnurlClient,
    /// The most paid in routing fees, in percent of the amount.
    pub max_fee_percent: u32,
    /// What is paid back without being asked; nothing else is when none.
    pub automatic: Option<AutomaticRefunds>,
    /// How often refunds are looked at.
    pub every: Duration,
}

/// How often refunds are looked at unless told otherwise: nobody waits for one.
pub const REFUNDS_EVERY: Duration = Duration::from_secs(60);

/// Something a part of the service has to do as long as it runs: the pool's health checks, say.
pub struct Background {
    /// What it is, for the log.
    pub name: &'static str,
    /// Does it, until the token is cancelled.
    #[allow(clippy::type_complexity)] // Named by its field.
    pub run: Box<dyn FnOnce(CancellationToken) -> BoxFuture<'static, ()> + Send>,
}

impl std::fmt::Debug for Background {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Background").field(&self.name).finish()
    }
}

/// Everything a service is made of.
#[allow(missing_debug_implementations)] // Made of traits.
pub struct Plan {
    /// Our key.
    pub signer: Signer,
    /// How strangers' events are read.
    pub read_limits: ReadLimits,
    /// Where things are kept; `None` keeps them in memory.
    pub database: Option<PathBuf>,
    /// Where requests come from.
    pub relays: PoolConfig,
    /// Requests that wait to be read; beyond it the relays' sockets wait.
    pub inbox_room: usize,
    /// How we sell.
    pub settings: Settings,
    /// How long finished jobs are kept.
    pub retention: Duration,
    /// How we are paid.
    pub wallet: Option<Arc<dyn Wallet>>,
    /// Our lightning address, when zaps of it count as payment.
    pub zaps: Option<ZapAddress>,
    /// How credit is paid back; only a wallet that pays does.
    pub refunds: Option<RefundPlan>,
    /// For hold invoices.
    pub hold_key: Option<HoldKey>,
    /// Where results go that are too large for an event.
    pub files: Option<Blossom>,
    /// Where commands beside us use the wallet.
    pub desk: Option<Desk>,
    /// Who does what, given the relays (for inputs that are events).
    #[allow(clippy::type_complexity)] // Named by its field.
    pub router: Box<dyn FnOnce(Arc<RelayPool>) -> Router + Send>,
    /// What customers see of us; `None` says nothing.
    pub ad: Option<AdPlan>,
    /// The time.
    pub clock: Clock,
    /// Told of each step.
    pub witness: Arc<dyn Witness>,
    /// What is counted; the parts count into the same.
    pub metrics: Metrics,
    /// Where the numbers are shown, when they are.
    pub metrics_at: Option<TcpListener>,
    /// What else runs as long as the service does.
    pub background: Vec<Background>,
}

/// Why a service did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The relays.
    #[error(transparent)]
    Relays(#[from] RelayError),
}

/// A running service.
#[derive(Debug)]
pub struct Service {
    provider: Arc<Provider>,
    relays: Arc<RelayPool>,
    tasks: Tasks,
    intake: tokio::task::JoinHandle<()>,
    closing: Closing,
}

impl Service {
    /// Starts.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(plan: Plan) -> Result<Self, StartError> {
        let (store, closing) = match &plan.database {
            Some(path) => Store::open(path)?,
            None => Store::in_memory()?,
        };
        let codec = Codec::new(plan.signer.clone(), plan.read_limits);
        let offered = plan.settings.offers.keys();
        offered.clone().for_each(|kind| plan.metrics.sells(*kind));
        // Whoever names us for what is not offered now hears so.
        let kinds: BTreeSet<JobKind> = offered.chain(&plan.settings.withheld).copied().collect();
        let since = read_since(&store, &plan.relays, plan.clock.now()).await?;
        let (inbox_end, inbox) = Inbox::channel(codec.clone(), plan.inbox_room);
        let intake = Intake { kinds: kinds.into_iter().collect(), since, inbox: inbox_end };
        let urls = plan.relays.relays.clone();
        let relays = Arc::new(RelayPool::connect(plan.relays, &plan.signer, Some(intake)).await?);
        let desk = plan.desk.zip(plan.wallet.clone());
        let parts = Parts {
            store: store.clone(),
            codec: codec.clone(),
            publisher: relays.clone(),
            wallet: plan.wallet.clone(),
            zaps: plan.zaps.clone(),
            hold_key: plan.hold_key,
            files: plan.files,
            router: (plan.router)(relays.clone()),
            clock: plan.clock.clone(),
            witness: plan.witness,
            metrics: plan.metrics.clone(),
        };
        let (late, payment_poll) = (plan.settings.late_payment_window, plan.settings.payment_poll);
        let provider = Provider::new(parts, plan.settings);
        provider.recover().await?;
        return_unasked_refunds(&store, plan.clock.now()).await?;

        let mut tasks = Tasks::new();
        tasks.spawn("payments", |shutdown| Arc::clone(&provider).watch_payments(shutdown));
        tasks.spawn("audit", |shutdown| Arc::clone(&provider).watch_books(shutdown));
        tasks.spawn("housekeeping", |shutdown| Arc::clone(&provider).keep_house(plan.retention, shutdown));
        for Background { name, run } in plan.background {
            tasks.spawn(name, run);
        }
        if let Some(listener) = plan.metrics_at {
            // Weak: the numbers outlive the provider, whose end is waited for.
            let provider = Arc::downgrade(&provider);
            plan.metrics.open_jobs_from(move || {
                let busy = provider.upgrade()?.busy();
                Some(OpenJobs { queued: busy.queued, quoted: busy.quoted })
            });
            tasks.spawn("metrics", |shutdown| web::serve(listener, plan.metrics, shutdown));
        }
        if let Some((desk, wallet)) = desk {
            tasks.spawn("wallet desk", |shutdown| desk.serve(wallet, shutdown));
        }
        if plan.zaps.is_some() {
            let listener = ZapListener {
                provider: Arc::clone(&provider),
                relays: relays.clone(),
                store: store.clone(),
                clock: plan.clock.clone(),
                us: NostrKey(plan.signer.provider_id().0),
                late,
                every: payment_poll,
            };
            tasks.spawn("zaps", |shutdown| listener.run(shutdown));
        }
        if let (Some(refunds), Some(wallet)) = (plan.refunds, plan.wallet)
            && wallet.payer().is_some()
        {
            let terms = RefundTerms {
                lnurl: refunds.lnurl,
                addresses: relays.clone(),
                max_fee_percent: refunds.max_fee_percent,
                clock: plan.clock.clone(),
            };
            let store = store.clone();
            tasks.spawn("refunds", |shutdown| {
                keep_refunding(store, wallet, terms, refunds.automatic, refunds.every, shutdown)
            });
        }
        if let Some(ad) = plan.ad {
            let advertiser = Advertiser {
                codec,
                publisher: relays.clone(),
                clock: plan.clock.clone(),
                ads: ad.ads,
                withheld: ad.withheld,
                profile: ad.profile,
                relays: urls,
                heartbeat: ad.heartbeat,
                refresh: ad.refresh,
                withdraw_on_shutdown: ad.withdraw_on_shutdown,
            };
            tasks.spawn("advertising", |shutdown| advertiser.run(shutdown));
        }
        // Ends when the intake is stopped and the inbox is empty, which is before the other tasks end.
        let intake = tokio::spawn(take_in(inbox, Arc::clone(&provider), Arc::clone(&relays), store, plan.clock));
        Ok(Self { provider, relays, tasks, intake, closing })
    }

    /// The provider.
    pub fn provider(&self) -> &Arc<Provider> {
        &self.provider
    }

    /// The relays.
    pub fn relays(&self) -> &Arc<RelayPool> {
        &self.relays
    }

    /// Waits until something that should run until the end ends by itself: names it.
    pub async fn failed(&mut self) -> String {
        match self.tasks.first_to_end().await {
            Some(ended) => ended,
            None => std::future::pending().await,
        }
    }

    /// Stops: runs get `grace` to finish. Returns whether all of them did.
    pub async fn stop(self, grace: Duration) -> bool {
        let Self { provider, relays, tasks, intake, closing } = self;
        relays.stop_intake();
        // Before the intake is waited for: it may itself be waiting for a place.
        provider.stop_taking();
        if let Err(problem) = intake.await {
            warn!(%problem, "The intake did not end well");
        }
        let finished = provider.shut_down(grace).await;
        tasks.end(TASK_GRACE).await;
        relays.shutdown().await;
        drop((provider, relays));
        if tokio::task::spawn_blocking(move || closing.wait()).await.is_err() {
            warn!("The database did not close in order");
        }
        finished
    }
}

async fn take_in(mut inbox: Inbox, provider: Arc<Provider>, relays: Arc<RelayPool>, store: Store, clock: Clock) {
    let mut tick = tokio::time::interval(CURSOR_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            incoming = inbox.next() => match incoming {
                Some(incoming) => provider.receive(incoming).await,
                None => break,
            },
            _ = tick.tick() => {
                // Up to now, when a relay is there to have told us and nothing it told us waits.
                let read = inbox.waiting() == 0 && relays.health().iter().any(|relay| relay.connected);
                if read && let Err(problem) = store.set_cursor(RELAY_CURSOR, clock.now()).await {
                    warn!(%problem, "The cursor could not be kept");
                }
            }
        }
    }
    info!("No more requests are taken");
}

/// From when on requests are asked for: where we were, or just now on the first start. Never further back than a request is
/// worth answering.
async fn read_since(store: &Store, relays: &PoolConfig, now: Timestamp) -> Result<Timestamp, StoreError> {
    let back = |span: Duration| {
        SignedDuration::try_from(span).ok().and_then(|span| now.checked_sub(span).ok()).unwrap_or(Timestamp::UNIX_EPOCH)
    };
    let oldest = back(relays.limits.max_request_age);
    let overlap = SignedDuration::try_from(CURSOR_OVERLAP).unwrap_or(SignedDuration::ZERO);
    Ok(match store.cursor(RELAY_CURSOR).await? {
        Some(cursor) => cursor.checked_sub(overlap).unwrap_or(Timestamp::UNIX_EPOCH).max(oldest),
        None => back(relays.limits.max_clock_skew).max(oldest),
    })
}
