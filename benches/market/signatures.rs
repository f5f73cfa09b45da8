//! What the signatures alone cost: the floor under every provider.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::Result;
use nostr::secp256k1::Message;
use nostr::{EventBuilder, Keys, Kind};

use crate::child::thread_cpu;

/// What one signature costs one core.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SignatureCost {
    pub(crate) verify: Duration,
    pub(crate) sign: Duration,
}

impl SignatureCost {
    /// Measures for about `time` each, in this thread's processor time, so that a busy machine does not count.
    pub(crate) fn measure(time: Duration) -> Result<Self> {
        let keys = Keys::generate();
        let event = EventBuilder::new(Kind::from_u16(5050), "a job").sign_with_keys(&keys)?;
        let digest = Message::from_digest(event.id.to_bytes());
        Ok(Self {
            verify: each(time, || {
                black_box(event.verify_signature());
            }),
            sign: each(time, || {
                black_box(keys.sign_schnorr(&digest));
            }),
        })
    }

    /// What the signatures of a job cost that brings one request and `answers` events of ours.
    pub(crate) fn of_job(&self, answers: u32) -> Duration {
        self.verify + self.sign * answers
    }
}

fn each(time: Duration, mut act: impl FnMut()) -> Duration {
    const BATCH: u32 = 64;
    let (begun, before) = (Instant::now(), thread_cpu());
    let mut done = 0;
    while begun.elapsed() < time {
        (0..BATCH).for_each(|_| act());
        done += BATCH;
    }
    let used = match (before, thread_cpu()) {
        (Some(before), Some(after)) if after > before => after - before,
        _ => begun.elapsed(),
    };
    used / done
}
