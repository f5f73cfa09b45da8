//! Numbers for people.

use std::time::Duration;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use crate::signatures::SignatureCost;

/// What was measured of one stretch of jobs.
#[derive(Debug, Clone)]
pub(crate) struct Stretch {
    pub(crate) name: &'static str,
    pub(crate) in_flight: usize,
    pub(crate) took: Duration,
    /// From published to seen, of each job; sorted.
    pub(crate) latencies: Vec<Duration>,
    /// Processor time of the provider, the relay, and the customers with their wallets.
    pub(crate) cpu: [Duration; 3],
    /// Events of ours a job takes.
    pub(crate) answers: u32,
    /// The provider's memory at the end.
    pub(crate) memory: u64,
}

impl Stretch {
    pub(crate) fn jobs_per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64().max(f64::EPSILON)
    }

    /// The latency that `percent` of the jobs did not exceed (nearest rank).
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.latencies.len() * percent).div_ceil(100).max(1);
        self.latencies.get(rank - 1).or(self.latencies.last()).copied().unwrap_or_default()
    }

    fn per_job(&self, used: Duration) -> Duration {
        used / u32::try_from(self.latencies.len().max(1)).unwrap_or(u32::MAX)
    }
}

/// The table of all stretches.
pub(crate) fn table(stretches: &[Stretch], signatures: SignatureCost) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_content_arrangement(ContentArrangement::Disabled).set_header([
        "",
        "in flight",
        "jobs",
        "jobs/s",
        "p50",
        "p95",
        "p99",
        "CPU a job",
        "× signatures",
        "relay CPU",
        "customer CPU",
        "memory",
    ]);
    for stretch in stretches {
        let [provider, relay, customers] = stretch.cpu.map(|used| stretch.per_job(used));
        let multiple = provider.as_secs_f64() / signatures.of_job(stretch.answers).as_secs_f64();
        table.add_row([
            stretch.name.to_owned(),
            stretch.in_flight.to_string(),
            stretch.latencies.len().to_string(),
            format!("{:.0}", stretch.jobs_per_second()),
            millis(stretch.percentile(50)),
            millis(stretch.percentile(95)),
            millis(stretch.percentile(99)),
            millis(provider),
            format!("{multiple:.1}"),
            millis(relay),
            millis(customers),
            mebibytes(stretch.memory),
        ]);
    }
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table
}

pub(crate) fn millis(span: Duration) -> String {
    let millis = span.as_secs_f64() * 1e3;
    if millis < 10.0 { format!("{millis:.2} ms") } else { format!("{millis:.0} ms") }
}

pub(crate) fn micros(span: Duration) -> String {
    format!("{:.1} µs", span.as_secs_f64() * 1e6)
}

pub(crate) fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / 1_048_576.0)
}

/// How many a second at this cost each.
pub(crate) fn rate(cost: Duration) -> String {
    format!("{:.0}/s", 1.0 / cost.as_secs_f64().max(f64::EPSILON))
}
