//! Being told of each step, for tests that end the process between any two of them.

use async_trait::async_trait;

use crate::job::{EffectKey, JobId};

/// A point between two steps: everything before is durable or done, nothing after has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// A job was opened and its quote is durable.
    Opened,
    /// A fact is durable, its acts have not begun.
    Told(&'static str),
    /// An act is about to begin.
    Before(EffectKey),
    /// The world has seen the act, the store has not.
    After(EffectKey),
    /// The whole output is on the server of files, and no result tells of it yet.
    PutAway,
    /// A relay has another piece of the output, and it counts as shown.
    Shown,
}

impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Opened => f.write_str("opened"),
            Self::Told(fact) => write!(f, "told {fact}"),
            Self::Before(act) => write!(f, "before {act}"),
            Self::After(act) => write!(f, "after {act}"),
            Self::PutAway => f.write_str("put the output away"),
            Self::Shown => f.write_str("shown another piece"),
        }
    }
}

/// Sees each step. What it awaits, the provider awaits.
#[async_trait]
pub trait Witness: Send + Sync + 'static {
    /// A step of a job has been taken.
    async fn at(&self, moment: Moment, job: JobId);
}

/// Nobody watches.
#[async_trait]
impl Witness for () {
    async fn at(&self, _moment: Moment, _job: JobId) {}
}
