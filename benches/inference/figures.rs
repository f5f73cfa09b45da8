//! Numbers for people.

use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};

/// One answer, measured from being asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timed {
    /// Until its first piece was seen; `None` where nothing is shown before the end.
    pub(crate) first: Option<Duration>,
    /// Until its end.
    pub(crate) whole: Duration,
    /// Tokens written.
    pub(crate) tokens: u32,
}

impl Timed {
    /// Time a token, the first one left out where it was seen.
    pub(crate) fn per_token(&self) -> Duration {
        match self.first {
            Some(first) => (self.whole - first.min(self.whole)) / self.tokens.saturating_sub(1).max(1),
            None => self.whole / self.tokens.max(1),
        }
    }
}

/// The answers of one layer.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) name: &'static str,
    pub(crate) answers: Vec<Timed>,
}

impl Layer {
    fn of(&self, percent: usize, pick: impl Fn(&Timed) -> Option<Duration>) -> Option<Duration> {
        let mut times: Vec<Duration> = self.answers.iter().filter_map(pick).collect();
        times.sort_unstable();
        let rank = (times.len() * percent).div_ceil(100).max(1);
        times.get(rank - 1).copied()
    }

    fn median(&self, pick: impl Fn(&Timed) -> Option<Duration>) -> Option<Duration> {
        self.of(50, pick)
    }
}

/// A table with the first layer as what the others are compared with.
pub(crate) fn layers(layers: &[Layer]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_content_arrangement(ContentArrangement::Disabled).set_header([
        "",
        "answers",
        "first token p50",
        "p95",
        "added",
        "a token p50",
        "added",
        "whole p50",
        "p95",
        "added",
    ]);
    let Some(bare) = layers.first() else { return String::new() };
    for layer in layers {
        let column = |pick: fn(&Timed) -> Option<Duration>| {
            let (ours, theirs) = (layer.median(pick), bare.median(pick));
            (shown(ours), layer.of(95, pick), added(ours, theirs))
        };
        let (first, first_95, first_added) = column(|timed| timed.first);
        let (token, _, token_added) = column(|timed| Some(timed.per_token()));
        let (whole, whole_95, whole_added) = column(|timed| Some(timed.whole));
        table.add_row([
            layer.name.to_owned(),
            layer.answers.len().to_string(),
            first,
            shown(first_95),
            first_added,
            token,
            token_added,
            whole,
            shown(whole_95),
            whole_added,
        ]);
    }
    table.to_string()
}

fn shown(time: Option<Duration>) -> String {
    time.map_or_else(|| "–".into(), |time| format!("{:.2} ms", time.as_secs_f64() * 1e3))
}

fn added(ours: Option<Duration>, theirs: Option<Duration>) -> String {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) => format!("{:+.2} ms", (ours.as_secs_f64() - theirs.as_secs_f64()) * 1e3),
        _ => "–".into(),
    }
}

/// This process's memory in MiB, as the system counts it; zero where it does not tell.
pub(crate) fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB"));
    kib.and_then(|kib| kib.trim().parse::<u64>().ok()).unwrap_or(0) / 1024
}
