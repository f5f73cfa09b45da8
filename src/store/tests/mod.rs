//! What is stored is there again, counted once, over the real database.

mod credit;
mod forgetting;
mod interleavings;
mod jobs;
mod zaps;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::FinishedWork;
use crate::executor::Prepared;
use crate::job::event::Invoice;
use crate::job::id::{EventId, PaymentHash};
use crate::job::{
    CustomerId, Estimate, FinishReason, JobId, JobKind, JobRequest, Outcome, Params, QuoteDraft, Rates, Terms, Usage,
};
use crate::money::Msat;
use crate::nip90::SignedEvent;

const START: Timestamp = Timestamp::UNIX_EPOCH;

fn at(seconds: u32) -> Timestamp {
    START + SignedDuration::from_secs(i64::from(seconds))
}

fn request(job: u8, customer: u8) -> JobRequest {
    JobRequest {
        id: JobId([job; 32]),
        customer: CustomerId([customer; 32]),
        kind: JobKind::TextGeneration,
        created_at: START,
        expires_at: Some(at(1_000)),
        inputs: vec![],
        params: Params::default(),
        output: None,
        bid: None,
        addressed: true,
        relays: vec![],
        encryption: None,
        event_json: "{}".into(),
    }
}

fn prepared() -> Prepared {
    Prepared {
        estimate: estimate(),
        prompt_is_exact: true,
        stream: false,
        rates: None,
        lane: None,
        work: serde_json::Value::Null,
    }
}

fn estimate() -> Estimate {
    Estimate::tokens(10, 10)
}

fn draft(terms: Terms) -> QuoteDraft {
    QuoteDraft {
        rates: Rates {
            base: Msat::sat(1),
            per_1k_prompt: Msat::sat(1_000),
            per_1k_generated: Msat::sat(1_000),
            ..Rates::FREE
        },
        estimate: estimate(),
        terms,
        on_the_house: false,
        free_per_day: 0,
        whole_sats: false,
        payment_window: SignedDuration::from_secs(60),
    }
}

fn outcome(generated: u32) -> Outcome {
    Outcome {
        content: "text".into(),
        usage: Usage::tokens(10, generated),
        finish: FinishReason::Stop,
        model: None,
        parameters: None,
        digest: None,
        facts: Vec::new(),
        duration: Duration::ZERO,
    }
}

fn work(generated: u32) -> FinishedWork {
    FinishedWork {
        outcome: outcome(generated),
        sign: Box::new(|job, _, _| Ok(SignedEvent { id: EventId(job.id.0), kind: 6050, json: "{}".into() })),
    }
}

fn invoice(job: u8, amount: Msat) -> Invoice {
    Invoice { bolt11: "lnbcrt".into(), payment_hash: PaymentHash([job; 32]), amount, expires_at: at(60) }
}
