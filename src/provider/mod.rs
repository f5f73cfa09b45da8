//! Sells: takes requests, quotes, is paid, does the work, delivers, keeps the books.
//!
//! One file a verb: [`intake`](Provider::receive), quoting, settlement, running, publishing, recovery. Each tells the store
//! a fact and does what the store answers; the state itself lives in [`crate::job`]. Traits in, no concrete wallet, backend
//! or relay.

mod advertising;
pub mod audit;
mod census;
mod clock;
mod delivering;
mod fetching;
mod given_away;
mod hold;
mod intake;
mod publishing;
mod queue;
mod quoting;
mod recovery;
mod refunds;
mod running;
mod settings;
mod settlement;
mod witness;
mod zaps;

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use lru::LruCache;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, error, info, info_span};

pub use advertising::Advertiser;
pub use audit::{AuditError, AuditReport, Difference, DifferenceKind, audit};
pub use clock::Clock;
pub use hold::HoldKey;
pub use refunds::{
    AutomaticRefunds, RefundError, RefundOrder, RefundTerms, keep_refunding, reconcile_refunds, refund_now,
    return_unasked_refunds,
};
pub use settings::{HOLD_SLACK, Offer, Settings};
pub use witness::{Moment, Witness};
pub use zaps::ZapAddress;

use crate::blossom::Blossom;
use crate::executor::{Prepared, Router};
use crate::job::queue::Lane;
use crate::job::{CustomerId, Effect, EffectKey, Estimate, Job, JobEvent, JobId, Notice, WorkState};
use crate::metrics::{JobEnd, Metrics};
use crate::money::Msat;
use crate::nip90::{Codec, ReplyTo, SignedEvent};
use crate::relays::Publisher;
use crate::store::{Advanced, Store, StoreError};
use crate::wallet::Wallet;
use census::Census;
use fetching::Fetching;
use given_away::GivenAway;
use queue::Turns;
use running::Underway;

/// Jobs whose request is kept in memory between two steps; any other is read from the store again.
const LIVE_JOBS: NonZeroUsize = NonZeroUsize::new(2_048).expect("not zero");

/// Bytes of a request's prepared work above which it is not kept in memory.
const LIVE_JOB_BYTES: usize = 4 * 1024;

/// Invoices the wallet is asked for at once: wallets limit their callers.
const INVOICES_AT_ONCE: usize = 32;

/// How long a request may take to be made ready, its inputs fetched and its tokens counted.
const PREPARE_LIMIT: Duration = Duration::from_secs(90);

/// Cancellations remembered for requests we have not seen yet.
const EARLY_CANCELLATIONS: NonZeroUsize = NonZeroUsize::new(4_096).expect("not zero");

/// What a provider is made of.
#[derive(Clone)]
#[allow(missing_debug_implementations)] // Made of traits; a provider shows its settings.
pub struct Parts {
    /// Jobs, money, acts.
    pub store: Store,
    /// Our key and the wire.
    pub codec: Codec,
    /// The way out.
    pub publisher: Arc<dyn Publisher>,
    /// How we are paid; without one only free work is done.
    pub wallet: Option<Arc<dyn Wallet>>,
    /// Our lightning address, when zaps of it count as payment.
    pub zaps: Option<ZapAddress>,
    /// For hold invoices.
    pub hold_key: Option<HoldKey>,
    /// Where results go that are too large for an event; without it they are cut.
    pub files: Option<Blossom>,
    /// Who does what.
    pub router: Router,
    /// The time.
    pub clock: Clock,
    /// Told of each step; see [`Witness`].
    pub witness: Arc<dyn Witness>,
    /// What is counted.
    pub metrics: Metrics,
}

/// A provider at work. Cloned by `Arc`; see [`Provider::shut_down`] for its end.
pub struct Provider {
    parts: Parts,
    settings: Settings,
    census: Census,
    tasks: TaskTracker,
    /// Ends waiting (for a retry, for a turn); work under way goes on.
    closing: CancellationToken,
    /// Ends work under way.
    stop: CancellationToken,
    preparing: Arc<Semaphore>,
    /// For requests whose inputs have to be fetched.
    fetching: Fetching,
    given_away: GivenAway,
    turns: Arc<Turns>,
    running: Mutex<HashMap<JobId, Underway>>,
    live: Mutex<LruCache<JobId, Arc<Live>>>,
    in_flight: Mutex<HashSet<(JobId, EffectKey)>>,
    cancelled_early: Mutex<LruCache<(JobId, CustomerId), ()>>,
    /// Jobs whose run was stopped, for a run that begins at the same moment.
    called_off: Mutex<LruCache<JobId, ()>>,
    /// Bounds how many invoices the wallet is asked for at once.
    invoicing: Semaphore,
    zap_desk: zaps::ZapDesk,
    /// How long the next look at a hold that the wallet left open is put off, and what ends the wait.
    hold_pauses: Mutex<HashMap<JobId, settlement::HoldPause>>,
    /// An act could not be recorded and has to be found in the outbox again.
    stranded: AtomicBool,
}

impl std::fmt::Debug for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Provider").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// What is needed of a request between two steps.
#[derive(Debug)]
struct Live {
    reply_to: ReplyTo,
    expires_at: Option<Timestamp>,
    prepared: Prepared,
    request: Arc<crate::job::JobRequest>,
    result: Mutex<Option<SignedEvent>>,
}

/// How busy a provider is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy {
    /// Jobs running or waiting their turn.
    pub queued: usize,
    /// Quotes waiting for payment.
    pub quoted: usize,
}

impl Provider {
    /// A provider; it does nothing until it is handed requests or asked to recover.
    pub fn new(parts: Parts, settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            preparing: Arc::new(Semaphore::new(settings.preparing.max(1))),
            fetching: Fetching::default(),
            given_away: GivenAway::new(settings.rules.max_given_away),
            turns: Turns::new(parts.clock.clone(), parts.router.clone(), settings.jobs_running),
            parts,
            settings,
            census: Census::default(),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            stop: CancellationToken::new(),
            running: Mutex::default(),
            live: Mutex::new(LruCache::new(LIVE_JOBS)),
            in_flight: Mutex::default(),
            cancelled_early: Mutex::new(LruCache::new(EARLY_CANCELLATIONS)),
            called_off: Mutex::new(LruCache::new(EARLY_CANCELLATIONS)),
            invoicing: Semaphore::new(INVOICES_AT_ONCE),
            zap_desk: zaps::ZapDesk::default(),
            hold_pauses: Mutex::default(),
            stranded: AtomicBool::new(false),
        })
    }

    /// How busy we are.
    pub fn busy(&self) -> Busy {
        let (queued, quoted) = self.census.totals();
        Busy { queued, quoted }
    }

    /// How many jobs wait for their turn.
    pub fn waiting(&self) -> usize {
        self.turns.waiting()
    }

    /// Tells the queue how long a run of that size took, as each run of ours does: for somebody who knows how fast a lane is
    /// before its first job. Until then nobody is told how long they wait, and nobody is refused for it.
    pub fn note_pace(&self, lane: Lane, estimate: Estimate, took: Duration) {
        self.turns.note_run(lane, estimate, took);
    }

    /// The store, for reports.
    pub fn store(&self) -> &Store {
        &self.parts.store
    }

    /// Takes nothing new from now on, and lets nobody wait for it: what is being made ready is dropped (the relays still
    /// have it), what waits for a retry stays in the outbox.
    pub fn stop_taking(&self) {
        self.closing.cancel();
        self.preparing.close();
    }

    /// Ends: takes nothing new, lets runs finish for `grace`, then parks them (they run again after a restart), and leaves
    /// what could not be sent in the outbox. Returns whether everything under way was finished.
    pub async fn shut_down(&self, grace: Duration) -> bool {
        self.stop_taking();
        self.turns.close();
        self.tasks.close();
        let finished = tokio::time::timeout(grace, self.tasks.wait()).await.is_ok();
        if !finished {
            info!(grace_s = grace.as_secs(), "Parking the jobs still running after the grace period");
            self.stop.cancel();
            // Everything answers to `stop` at once.
            self.tasks.wait().await;
        }
        finished
    }

    /// Tells the store a fact and does what it answers.
    async fn tell(self: &Arc<Self>, job: JobId, event: JobEvent) -> Result<Job, StoreError> {
        let name = event.name();
        let advanced = self.parts.store.advance(job, event, self.parts.clock.now()).await?;
        Ok(self.follow_up(advanced, name).await)
    }

    /// Does what the store answered to a fact.
    async fn follow_up(self: &Arc<Self>, advanced: Advanced, fact: &'static str) -> Job {
        let Advanced { job, effects, changed, before } = advanced;
        self.parts.witness.at(Moment::Told(fact), job.id).await;
        if changed {
            self.census.note(&job);
            self.count_end(&job, before);
            self.count_given_away(&job, before);
            info!(job.id = %job.id, work = job.work.word(), payment = job.payment.word(), "Job {}: {fact}", job.id);
        }
        self.act(&job, effects);
        job
    }

    /// Counts a job that was open before and is over now, and what it earned. One that is paid after it lapsed ends twice.
    fn count_end(&self, job: &Job, before: WorkState) {
        let end = match job.work {
            WorkState::Delivered => JobEnd::Delivered,
            WorkState::Failed => JobEnd::Failed,
            WorkState::Cancelled => JobEnd::Cancelled,
            WorkState::Expired => JobEnd::Expired,
            WorkState::Waiting | WorkState::Running | WorkState::Finished => return,
        };
        if before.is_over() {
            return;
        }
        self.parts.metrics.job_ended(job.kind, end);
        if end == JobEnd::Delivered {
            let cost = job.cost.unwrap_or(Msat::ZERO);
            self.parts.metrics.earned(job.kind, cost);
            self.given_away.paid(job.customer, cost);
        }
    }

    /// Counts work that was given away; only what had begun, before which a job costs us nothing.
    fn count_given_away(&self, job: &Job, before: WorkState) {
        let had_begun = before == WorkState::Finished || self.has_begun(job.id);
        if had_begun && job.was_given_away(before) {
            self.given_away.note(job.customer, job.quote.price, self.parts.clock.now());
        }
    }

    /// Starts acts. One that is under way already is not started again.
    fn act(self: &Arc<Self>, job: &Job, effects: Vec<Effect>) {
        if effects.is_empty() {
            return;
        }
        let job = Arc::new(job.clone());
        for effect in effects {
            match self.claim(job.id, effect.key()) {
                Some(landing) => self.launch(Arc::clone(&job), effect, landing),
                // The earlier one may be just ending: what it does not do is found in the outbox.
                None => self.stranded.store(true, Ordering::Relaxed),
            }
        }
    }

    /// Claims an act; `None` while it is under way.
    fn claim(self: &Arc<Self>, job: JobId, act: EffectKey) -> Option<Landing> {
        let key = (job, act);
        lock(&self.in_flight).insert(key).then(|| Landing { provider: Arc::clone(self), key })
    }

    /// Starts an act that was claimed.
    fn launch(self: &Arc<Self>, job: Arc<Job>, effect: Effect, landing: Landing) {
        let this = Arc::clone(self);
        let act = effect.key();
        let span = info_span!("job", id = %job.id, act = act.word());
        self.tasks.spawn(
            async move {
                this.parts.witness.at(Moment::Before(act), job.id).await;
                let done = tokio::select! {
                    done = this.perform(&job, effect) => done,
                    // The grace period is over, and a wallet or a relay still has not answered: as after a crash, the
                    // outbox has it. A run is told to stop and ends by itself.
                    () = this.stop.cancelled(), if act != EffectKey::Run => Ok(()),
                };
                drop(landing);
                if let Err(problem) = done {
                    error!(%problem, "The act stays in the outbox");
                    this.stranded.store(true, Ordering::Relaxed);
                }
            }
            .instrument(span),
        );
    }

    async fn perform(self: &Arc<Self>, job: &Job, effect: Effect) -> Result<(), StoreError> {
        match effect {
            Effect::IssueInvoice { amount } => self.issue_invoice(job, amount).await,
            Effect::Run => self.run(job).await,
            Effect::StopRun => self.stop_run(job.id).await,
            Effect::SettleHold => self.settle_hold(job).await,
            Effect::CancelHold => self.cancel_hold(job).await,
            Effect::Publish(Notice::Result) => self.publish_result(job).await,
            Effect::Publish(Notice::PaymentRequired) => self.publish_payment_required(job).await,
            Effect::Publish(Notice::Processing) => self.publish_processing(job).await,
            Effect::Publish(Notice::Error(refusal)) => self.publish_error(job, &refusal).await,
        }
    }

    /// What is needed of a job's request, from memory or the store. `None` when it has been forgotten.
    async fn live(&self, job: JobId) -> Result<Option<Arc<Live>>, StoreError> {
        if let Some(live) = lock(&self.live).get(&job) {
            return Ok(Some(Arc::clone(live)));
        }
        let Some(stored) = self.parts.store.job(job).await? else { return Ok(None) };
        let (Some(request), Some(prepared)) = (stored.request, stored.prepared) else { return Ok(None) };
        Ok(Some(self.remember(request, prepared, stored.result)))
    }

    fn remember(&self, request: crate::job::JobRequest, prepared: Prepared, result: Option<SignedEvent>) -> Arc<Live> {
        // What was fetched is not in the event, and may be much longer.
        let inline = request.inputs.iter().all(|input| input.kind == crate::job::InputKind::Text);
        let small = inline && request.event_json.len() <= LIVE_JOB_BYTES;
        let live = Arc::new(Live {
            reply_to: ReplyTo::from(&request),
            expires_at: request.expires_at,
            prepared,
            request: Arc::new(request),
            result: Mutex::new(result),
        });
        if small {
            lock(&self.live).put(live.reply_to.job, Arc::clone(&live));
        }
        live
    }

    fn forget(&self, job: JobId) {
        lock(&self.live).pop(&job);
    }
}

/// An act under way: over when this is dropped, however that comes about.
struct Landing {
    provider: Arc<Provider>,
    key: (JobId, EffectKey),
}

impl Drop for Landing {
    fn drop(&mut self) {
        lock(&self.provider.in_flight).remove(&self.key);
    }
}

/// Locks a mutex nobody panics under half-way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
