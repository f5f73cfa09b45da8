//! The families of numbers, their labels and buckets, and how they are registered.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Seconds of a run: from a word to a night's work.
const RUN_SECONDS: [f64; 12] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 180.0, 600.0, 1_800.0];

/// Seconds until the first piece: a warm small model answers in hundredths, a long prompt in a queue takes minutes.
const FIRST_TOKEN_SECONDS: [f64; 12] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];

/// Tokens a second of one answer: from a large model on a CPU to a small one on a large GPU.
const TOKENS_PER_SECOND: [f64; 11] = [1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 1_280.0];

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct KindResult {
    pub(super) kind: &'static str,
    pub(super) result: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct Kind {
    pub(super) kind: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct CodeLabel {
    pub(super) code: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct Model {
    pub(super) model: Arc<str>,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct ModelDirection {
    pub(super) model: Arc<str>,
    pub(super) direction: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct Backend {
    pub(super) backend: Arc<str>,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct BackendOutcome {
    pub(super) backend: Arc<str>,
    pub(super) outcome: &'static str,
}

/// Every family. The registry holds the same ones.
pub(super) struct Families {
    pub(super) jobs: Family<KindResult, Counter>,
    pub(super) refusals: Family<CodeLabel, Counter>,
    pub(super) tokens: Family<ModelDirection, Counter>,
    pub(super) earned_msat: Family<Kind, Counter>,
    pub(super) jobs_queued: Gauge,
    pub(super) jobs_running: Gauge,
    pub(super) quotes_open: Gauge,
    pub(super) run_seconds: Family<Model, Histogram>,
    pub(super) sandbox_seconds: Family<Kind, Counter<f64, AtomicU64>>,
    pub(super) backend_requests: Family<BackendOutcome, Counter>,
    pub(super) backend_up: Family<Backend, Gauge>,
    pub(super) backend_slots: Family<Backend, Gauge>,
    pub(super) backend_busy: Family<Backend, Gauge>,
    pub(super) time_to_first_token_seconds: Family<Backend, Histogram>,
    pub(super) output_tokens_per_second: Family<Backend, Histogram>,
    pub(super) backend_restarts: Family<Backend, Counter>,
}

impl Families {
    /// All of them, known to the registry. The encoder appends `_total` to the names of counters.
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let families = Self {
            jobs: Family::default(),
            refusals: Family::default(),
            tokens: Family::default(),
            earned_msat: Family::default(),
            jobs_queued: Gauge::default(),
            jobs_running: Gauge::default(),
            quotes_open: Gauge::default(),
            run_seconds: Family::new_with_constructor(|| Histogram::new(RUN_SECONDS)),
            sandbox_seconds: Family::default(),
            backend_requests: Family::default(),
            backend_up: Family::default(),
            backend_slots: Family::default(),
            backend_busy: Family::default(),
            time_to_first_token_seconds: Family::new_with_constructor(|| Histogram::new(FIRST_TOKEN_SECONDS)),
            output_tokens_per_second: Family::new_with_constructor(|| Histogram::new(TOKENS_PER_SECOND)),
            backend_restarts: Family::default(),
        };
        registry.register("jobs", "Jobs that ended", families.jobs.clone());
        registry.register("refusals", "Requests refused with a word", families.refusals.clone());
        registry.register("tokens", "Tokens of finished runs", families.tokens.clone());
        registry.register("earned_msat", "Millisatoshis earned by delivered jobs", families.earned_msat.clone());
        registry.register("jobs_queued", "Jobs waiting for their turn", families.jobs_queued.clone());
        registry.register("jobs_running", "Jobs being worked on", families.jobs_running.clone());
        registry.register("quotes_open", "Quotes waiting for payment", families.quotes_open.clone());
        registry.register("run_seconds", "Time finished runs took", families.run_seconds.clone());
        registry.register("sandbox_seconds", "Time finished runs were in a sandbox", families.sandbox_seconds.clone());
        registry.register("backend_requests", "Generations a backend ended", families.backend_requests.clone());
        registry.register("backend_up", "Whether a backend answers", families.backend_up.clone());
        registry.register("backend_slots", "Generations a backend takes at once", families.backend_slots.clone());
        registry.register("backend_busy", "Generations a backend works on", families.backend_busy.clone());
        registry.register(
            "time_to_first_token_seconds",
            "Time until a backend's first piece of an answer",
            families.time_to_first_token_seconds.clone(),
        );
        registry.register(
            "output_tokens_per_second",
            "Speed of an answer after its first piece",
            families.output_tokens_per_second.clone(),
        );
        registry.register("backend_restarts", "Times a backend was started again", families.backend_restarts.clone());
        families
    }
}
