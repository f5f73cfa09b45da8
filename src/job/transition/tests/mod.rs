//! Jobs of 21 sat, and what becomes of them.

mod endings;
mod every_state;
mod payments;
mod zaps;

use jiff::SignedDuration;

use super::*;
use crate::job::event::Invoice;
use crate::job::id::PaymentHash;
use crate::job::{CustomerId, Estimate, JobId, JobKind, Params, Rates};

const QUOTED: Timestamp = Timestamp::UNIX_EPOCH;
const CUSTOMER: CustomerId = CustomerId([7; 32]);
const JOB: JobId = JobId([1; 32]);

fn in_time() -> Timestamp {
    QUOTED + SignedDuration::from_secs(1)
}

fn too_late() -> Timestamp {
    QUOTED + SignedDuration::from_secs(1_000)
}

fn request(bid: Option<Msat>) -> JobRequest {
    JobRequest {
        id: JOB,
        customer: CUSTOMER,
        kind: JobKind::TextGeneration,
        created_at: QUOTED,
        expires_at: Some(QUOTED + SignedDuration::from_secs(500)),
        inputs: vec![],
        params: Params::default(),
        output: None,
        bid,
        addressed: true,
        relays: vec![],
        encryption: None,
        event_json: String::new(),
    }
}

/// 1 sat + 1 sat a token read or written; at most 10 + 10 tokens: 21 sat.
fn draft(terms: Terms, whole_sats: bool) -> QuoteDraft {
    QuoteDraft {
        rates: Rates {
            base: Msat::sat(1),
            per_1k_prompt: Msat::sat(1_000),
            per_1k_generated: Msat::sat(1_000),
            ..Rates::FREE
        },
        estimate: Estimate::tokens(10, 10),
        terms,
        on_the_house: false,
        free_per_day: 0,
        whole_sats,
        payment_window: SignedDuration::from_secs(60),
    }
}

fn open(terms: Terms, credit: Msat) -> Transition {
    let context = Context { now: QUOTED, credit, free_jobs_today: 0 };
    Job::open(&request(None), &draft(terms, false), &context).unwrap()
}

fn invoice(amount: Msat) -> Invoice {
    Invoice {
        bolt11: "lnbcrt".into(),
        payment_hash: PaymentHash([9; 32]),
        amount,
        expires_at: QUOTED + SignedDuration::from_secs(60),
    }
}

fn used(tokens: u32) -> JobEvent {
    JobEvent::RunFinished { usage: Usage::tokens(10, tokens) }
}

/// Output shown, after a prompt that was read.
fn shown(tokens: u32) -> Usage {
    Usage::tokens(10, tokens)
}

fn after(job: &Job, facts: &[JobEvent]) -> Transition {
    let (last, before) = facts.split_last().unwrap();
    let job = before.iter().fold(job.clone(), |job, fact| job.apply(fact, in_time()).unwrap().job);
    job.apply(last, in_time()).unwrap()
}
