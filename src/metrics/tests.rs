//! What is counted is shown, under the names that are documented.

use std::collections::BTreeSet;

use super::*;
use crate::job::{Compute, FinishReason, Usage};

fn outcome(model: &str) -> Outcome {
    Outcome {
        content: "secret".to_owned(),
        usage: Usage::tokens(10, 5),
        finish: FinishReason::Stop,
        model: Some(model.to_owned()),
        parameters: None,
        digest: None,
        facts: Vec::new(),
        duration: Duration::from_millis(1_500),
    }
}

/// Metrics with something in every family.
fn sampled() -> Metrics {
    let metrics = Metrics::new();
    let kind = JobKind::TextGeneration;
    metrics.job_ended(kind, JobEnd::Delivered);
    metrics.earned(kind, Msat::sat(21));
    metrics.refused(Code::Price);
    metrics.run_finished(kind, &outcome("llama"));
    let compute = Compute { wall: Duration::from_millis(2_500), memory_mib: 512 };
    let run = Outcome { usage: Usage { compute, ..Usage::NONE }, model: None, ..outcome("none") };
    metrics.run_finished(JobKind::SandboxRun, &run);
    let gpu: Arc<str> = "gpu1".into();
    metrics.backend_begins(&gpu).ended(BackendEnd::Answered);
    metrics.backend_up(&gpu, true);
    metrics.backend_slots(&gpu, 16);
    metrics.first_token_after(&gpu, Duration::from_millis(30));
    metrics.wrote(&gpu, 40, Duration::from_secs(1));
    metrics.backend_restarted(&gpu);
    metrics
}

fn has(text: &str, line: &str) {
    assert!(text.lines().any(|found| found == line), "no '{line}' in\n{text}");
}

#[test]
fn what_happened_is_what_is_shown() {
    let text = sampled().encode();
    has(&text, r#"coinop_jobs_total{kind="text-generation",result="delivered"} 1"#);
    has(&text, r#"coinop_earned_msat_total{kind="text-generation"} 21000"#);
    has(&text, r#"coinop_refusals_total{code="price"} 1"#);
    has(&text, r#"coinop_tokens_total{model="llama",direction="prompt"} 10"#);
    has(&text, r#"coinop_tokens_total{model="llama",direction="generated"} 5"#);
    has(&text, r#"coinop_run_seconds_sum{model="llama"} 1.5"#);
    has(&text, r#"coinop_sandbox_seconds_total{kind="sandbox-run"} 2.5"#);
    assert!(!text.contains(r#"coinop_sandbox_seconds_total{kind="text-generation"}"#));
    has(&text, r#"coinop_backend_requests_total{backend="gpu1",outcome="answered"} 1"#);
    has(&text, r#"coinop_backend_up{backend="gpu1"} 1"#);
    has(&text, r#"coinop_backend_slots{backend="gpu1"} 16"#);
    has(&text, r#"coinop_backend_busy{backend="gpu1"} 0"#);
    has(&text, r#"coinop_output_tokens_per_second_sum{backend="gpu1"} 40.0"#);
    has(&text, r#"coinop_backend_restarts_total{backend="gpu1"} 1"#);
    assert!(text.ends_with("# EOF\n"));
    assert!(!text.contains("secret"));
}

#[test]
fn what_is_sold_is_shown_before_any_of_it_is() {
    let metrics = Metrics::new();
    metrics.sells(JobKind::TextGeneration);
    for result in ["delivered", "failed", "cancelled", "expired"] {
        has(&metrics.encode(), &format!(r#"coinop_jobs_total{{kind="text-generation",result="{result}"}} 0"#));
    }
    assert!(!metrics.encode().contains("sandbox"));
}

#[test]
fn clones_count_into_the_same_and_two_registries_do_not() {
    let (one, other) = (Metrics::new(), Metrics::new());
    one.clone().refused(Code::Price);
    has(&one.encode(), r#"coinop_refusals_total{code="price"} 1"#);
    assert!(!other.encode().contains("coinop_refusals_total{"));
}

#[test]
fn open_jobs_are_those_of_the_moment_of_the_scrape() {
    let metrics = Metrics::new();
    let first = metrics.run_begins();
    let second = metrics.run_begins();
    drop(first);
    metrics.open_jobs_from(|| Some(OpenJobs { queued: 4, quoted: 2 }));
    let text = metrics.encode();
    has(&text, "coinop_jobs_running 1");
    has(&text, "coinop_jobs_queued 3");
    has(&text, "coinop_quotes_open 2");
    drop(second);
    metrics.open_jobs_from(|| None);
    let text = metrics.encode();
    has(&text, "coinop_jobs_running 0");
    has(&text, "coinop_quotes_open 2");
}

#[test]
fn a_request_that_nobody_waits_for_any_more_counts_as_cancelled() {
    let metrics = Metrics::new();
    let gpu: Arc<str> = "gpu1".into();
    let run = metrics.backend_begins(&gpu);
    has(&metrics.encode(), r#"coinop_backend_busy{backend="gpu1"} 1"#);
    drop(run);
    let text = metrics.encode();
    has(&text, r#"coinop_backend_busy{backend="gpu1"} 0"#);
    has(&text, r#"coinop_backend_requests_total{backend="gpu1",outcome="cancelled"} 1"#);
}

#[test]
fn a_backend_without_a_limit_shows_no_number_of_slots() {
    let metrics = Metrics::new();
    metrics.backend_slots(&"echo".into(), usize::MAX);
    assert!(!metrics.encode().contains("coinop_backend_slots{"));
}

#[test]
fn the_page_lists_every_metric_and_no_other() {
    let text = sampled().encode();
    let shown: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, kind)| if kind == "counter" { format!("{name}_total") } else { name.to_owned() })
        .collect();
    let page = include_str!("../../docs/metrics.md");
    let listed: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `coinop_")?.split_once('`'))
        .map(|(name, _)| format!("coinop_{name}"))
        .collect();
    assert_eq!(listed, shown, "docs/metrics.md and the registry differ");
}
