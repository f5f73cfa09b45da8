//! What happens in the demo, line by line.

use std::time::Instant;

use serde::Serialize;

use crate::job::{JobKind, Terms};
use crate::money::Msat;
use crate::requester::{Progress, Receipt};

/// A line of the timeline.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Happening {
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
pub(super) struct Timeline {
    pub(super) began: Instant,
    pub(super) quiet: bool,
    pub(super) happenings: Vec<Happening>,
}

impl Timeline {
    pub(super) fn tell(
        &mut self,
        job: Option<u32>,
        kind: Option<u16>,
        who: &'static str,
        what: String,
        amount: Option<Msat>,
    ) {
        let at = self.began.elapsed();
        if !self.quiet {
            let kind = kind.map_or_else(|| "-".into(), |kind| kind.to_string());
            let amount = amount.map_or_else(String::new, |amount| amount.to_string());
            eprintln!("{:>8.3} s  {kind:>5}  {who:<8}  {amount:>10}  {what}", at.as_secs_f64());
        }
        let at_ms = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
        self.happenings.push(Happening { at_ms, job, kind, who, what, amount_msat: amount.map(Msat::as_msat) });
    }

    pub(super) fn hear(&mut self, job: u32, progress: Progress) {
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
            Progress::Unanswered => self.tell(some, None, "customer", "hears from nobody".into(), None),
            Progress::CallingOff => self.tell(some, Some(5), "customer", "calls the order off".into(), None),
            Progress::Refused { refusal, .. } => {
                self.tell(some, Some(7000), "provider", format!("error {}: {refusal}", refusal.code), None);
            }
        }
    }

    pub(super) fn delivered(&mut self, job: u32, receipt: &Receipt) {
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
pub(super) fn first(text: &str, characters: usize) -> String {
    text.chars().take(characters).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
