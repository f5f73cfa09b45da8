//! What is counted, for a Prometheus server that asks. Cloning a [`Metrics`] shares it; it is passed on like any other part,
//! and there is no other registry in the process.
//!
//! Every name, its unit, its labels and its meaning stand in `docs/metrics.md`; a test compares that page with what is
//! registered here. No stranger chooses a label's value: models and backends are those on offer, the rest are words of ours.

mod families;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use crate::job::{Code, JobKind, Outcome};
use crate::money::Msat;
use families::{Backend, BackendOutcome, CodeLabel, Families, Kind, KindResult, Model, ModelDirection};

/// The media type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobEnd {
    /// The result is out.
    Delivered,
    /// Given up by our side.
    Failed,
    /// No longer wanted.
    Cancelled,
    /// Never paid in time.
    Expired,
}

impl JobEnd {
    /// Every way.
    const ALL: [Self; 4] = [Self::Delivered, Self::Failed, Self::Cancelled, Self::Expired];

    const fn word(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }
}

/// How a backend ended what it was asked to generate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendEnd {
    /// It wrote the answer.
    Answered,
    /// It failed, broke off or panicked.
    Failed,
    /// It had its hands full.
    Busy,
    /// It can't be used as it is.
    Unusable,
    /// It does not do what was asked: a prompt too long, a model it does not have.
    Refused,
    /// Whoever asked no longer wanted it, or waited no longer.
    Cancelled,
}

impl BackendEnd {
    const fn word(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::Busy => "busy",
            Self::Unusable => "unusable",
            Self::Refused => "refused",
            Self::Cancelled => "cancelled",
        }
    }
}

/// How many jobs are open, asked at each scrape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OpenJobs {
    /// Running, or waiting for their turn.
    pub queued: usize,
    /// Quoted and not paid yet.
    pub quoted: usize,
}

type Source = Box<dyn Fn() -> Option<OpenJobs> + Send + Sync>;

/// The counters of one process. Clones count into the same.
#[derive(Clone)]
pub struct Metrics(Arc<Counts>);

struct Counts {
    registry: Registry,
    families: Families,
    open_jobs: Mutex<Option<Source>>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// A run under way: counted as running until this is dropped.
#[derive(Debug)]
#[must_use = "the run is over when this is dropped"]
pub struct Running(Metrics);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.0.families.jobs_running.dec();
    }
}

/// A request a backend works on. Counted as cancelled when it is dropped without [`BackendRun::ended`], as one that is not
/// waited for any more is; as failed when a panic drops it.
#[derive(Debug)]
#[must_use = "the request is over when this is dropped"]
pub struct BackendRun {
    metrics: Metrics,
    backend: Arc<str>,
    end: Option<BackendEnd>,
}

impl BackendRun {
    /// It ended like this.
    pub fn ended(mut self, end: BackendEnd) {
        self.end = Some(end);
    }
}

impl Drop for BackendRun {
    fn drop(&mut self) {
        let dropped = if std::thread::panicking() { BackendEnd::Failed } else { BackendEnd::Cancelled };
        let outcome = self.end.unwrap_or(dropped).word();
        let families = &self.metrics.0.families;
        families.backend_busy.get_or_create(&Backend { backend: Arc::clone(&self.backend) }).dec();
        let labels = BackendOutcome { backend: Arc::clone(&self.backend), outcome };
        families.backend_requests.get_or_create(&labels).inc();
    }
}

impl Metrics {
    /// Nothing counted yet.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("coinop");
        let families = Families::registered(&mut registry);
        Self(Arc::new(Counts { registry, families, open_jobs: Mutex::default() }))
    }

    /// Everything in the text form of OpenMetrics; see [`CONTENT_TYPE`].
    pub fn encode(&self) -> String {
        self.look_at_open_jobs();
        let mut text = String::new();
        encode(&mut text, &self.0.registry).expect("a String takes whatever is written");
        text
    }

    /// Asks `source` at each scrape how many jobs are open. `None` changes nothing.
    pub fn open_jobs_from(&self, source: impl Fn() -> Option<OpenJobs> + Send + Sync + 'static) {
        *self.0.open_jobs.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(source));
    }

    fn look_at_open_jobs(&self) {
        let source = self.0.open_jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(open) = source.as_ref().and_then(|source| source()) else { return };
        let families = &self.0.families;
        let waiting = number(open.queued).saturating_sub(families.jobs_running.get());
        families.jobs_queued.set(waiting.max(0));
        families.quotes_open.set(number(open.quoted));
    }

    /// Jobs of that kind are sold. Every way they can end is shown from the start, at zero, so that shares can be formed.
    pub fn sells(&self, kind: JobKind) {
        for end in JobEnd::ALL {
            drop(self.0.families.jobs.get_or_create(&KindResult { kind: kind.name(), result: end.word() }));
        }
    }

    /// A job ended.
    pub fn job_ended(&self, kind: JobKind, end: JobEnd) {
        let labels = KindResult { kind: kind.name(), result: end.word() };
        self.0.families.jobs.get_or_create(&labels).inc();
    }

    /// A delivered job earned this.
    pub fn earned(&self, kind: JobKind, amount: Msat) {
        self.0.families.earned_msat.get_or_create(&Kind { kind: kind.name() }).inc_by(amount.as_msat());
    }

    /// A request was refused, and told so.
    pub fn refused(&self, code: Code) {
        self.0.families.refusals.get_or_create(&CodeLabel { code: code.word() }).inc();
    }

    /// A run begins.
    pub fn run_begins(&self) -> Running {
        self.0.families.jobs_running.inc();
        Running(self.clone())
    }

    /// A run finished well.
    pub fn run_finished(&self, kind: JobKind, outcome: &Outcome) {
        let families = &self.0.families;
        let wall = outcome.usage.compute.wall;
        if !wall.is_zero() {
            families.sandbox_seconds.get_or_create(&Kind { kind: kind.name() }).inc_by(wall.as_secs_f64());
        }
        let model: Arc<str> = outcome.model.as_deref().unwrap_or("none").into();
        families
            .run_seconds
            .get_or_create(&Model { model: Arc::clone(&model) })
            .observe(outcome.duration.as_secs_f64());
        for (direction, tokens) in
            [("prompt", outcome.usage.prompt_tokens), ("generated", outcome.usage.generated_tokens)]
        {
            let labels = ModelDirection { model: Arc::clone(&model), direction };
            families.tokens.get_or_create(&labels).inc_by(tokens.into());
        }
    }

    /// There is a backend of that name. It is shown as idle until it is asked for something, so that ratios and alerts find it.
    pub fn backend(&self, backend: &Arc<str>) {
        // Made by being asked for, at zero.
        drop(self.0.families.backend_busy.get_or_create(&Backend { backend: Arc::clone(backend) }));
    }

    /// A backend is asked to generate.
    pub fn backend_begins(&self, backend: &Arc<str>) -> BackendRun {
        self.0.families.backend_busy.get_or_create(&Backend { backend: Arc::clone(backend) }).inc();
        BackendRun { metrics: self.clone(), backend: Arc::clone(backend), end: None }
    }

    /// Whether a backend answers.
    pub fn backend_up(&self, backend: &Arc<str>, up: bool) {
        self.0.families.backend_up.get_or_create(&Backend { backend: Arc::clone(backend) }).set(up.into());
    }

    /// How many requests a backend can work on at once. One that states no limit (`usize::MAX`) shows no number.
    pub fn backend_slots(&self, backend: &Arc<str>, slots: usize) {
        if slots < usize::MAX {
            let labels = Backend { backend: Arc::clone(backend) };
            self.0.families.backend_slots.get_or_create(&labels).set(number(slots));
        }
    }

    /// A backend's first piece of an answer came after this.
    pub fn first_token_after(&self, backend: &Arc<str>, time: Duration) {
        let labels = Backend { backend: Arc::clone(backend) };
        self.0.families.time_to_first_token_seconds.get_or_create(&labels).observe(time.as_secs_f64());
    }

    /// A backend wrote this many tokens in that time, counted from its first piece on. Nothing is known of the speed of
    /// an answer that came in one piece.
    pub fn wrote(&self, backend: &Arc<str>, tokens: u32, time: Duration) {
        if tokens > 0 && !time.is_zero() {
            let labels = Backend { backend: Arc::clone(backend) };
            let speed = f64::from(tokens) / time.as_secs_f64();
            self.0.families.output_tokens_per_second.get_or_create(&labels).observe(speed);
        }
    }

    /// A backend inside this process was started again.
    pub fn backend_restarted(&self, backend: &Arc<str>) {
        self.0.families.backend_restarts.get_or_create(&Backend { backend: Arc::clone(backend) }).inc();
    }
}

/// A count as gauges hold it.
fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
