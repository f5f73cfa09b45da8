//! What must be done about a job: acts on the world, each safe to do twice.
//!
//! A durable effect is written in the same transaction as the state that asks for it and leaves the outbox in the
//! transaction that records its outcome, so a process that dies in between does it again.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::refusal::Refusal;
use crate::money::Msat;

/// An act on the world.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// Ask the wallet for an invoice (a hold invoice for [`super::Terms::Hold`]).
    IssueInvoice {
        /// What to ask for.
        amount: Msat,
    },
    /// Do the work.
    Run,
    /// Stop doing it.
    StopRun,
    /// Take the held money.
    SettleHold,
    /// Give the held money back.
    CancelHold,
    /// Tell the customer.
    Publish(Notice),
}

/// What the customer is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Notice {
    /// The result event, as signed when the work finished.
    Result,
    /// `payment-required` with the invoice.
    PaymentRequired,
    /// `processing`: the work begins. Not kept: a restart says it again.
    Processing,
    /// `error` with the reason.
    Error(Refusal),
}

/// An effect's place in the outbox: a job has at most one of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EffectKey {
    /// [`Effect::IssueInvoice`].
    IssueInvoice,
    /// [`Effect::Run`].
    Run,
    /// [`Effect::StopRun`].
    StopRun,
    /// [`Effect::SettleHold`].
    SettleHold,
    /// [`Effect::CancelHold`].
    CancelHold,
    /// [`Notice::Result`].
    PublishResult,
    /// [`Notice::PaymentRequired`].
    PublishPaymentRequired,
    /// [`Notice::Processing`].
    PublishProcessing,
    /// [`Notice::Error`].
    PublishError,
}

impl EffectKey {
    /// Every key.
    pub const ALL: [Self; 9] = [
        Self::IssueInvoice,
        Self::Run,
        Self::StopRun,
        Self::SettleHold,
        Self::CancelHold,
        Self::PublishResult,
        Self::PublishPaymentRequired,
        Self::PublishProcessing,
        Self::PublishError,
    ];

    /// The word kept in the store.
    pub const fn word(self) -> &'static str {
        match self {
            Self::IssueInvoice => "issue-invoice",
            Self::Run => "run",
            Self::StopRun => "stop-run",
            Self::SettleHold => "settle-hold",
            Self::CancelHold => "cancel-hold",
            Self::PublishResult => "publish-result",
            Self::PublishPaymentRequired => "publish-payment-required",
            Self::PublishProcessing => "publish-processing",
            Self::PublishError => "publish-error",
        }
    }

    /// The key a word stands for.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|key| key.word() == word)
    }

    /// Whether it outlives the process. The others are only worth doing at once.
    pub const fn is_durable(self) -> bool {
        !matches!(self, Self::PublishProcessing)
    }
}

impl fmt::Display for EffectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl Effect {
    /// Its place in the outbox.
    pub const fn key(&self) -> EffectKey {
        match self {
            Self::IssueInvoice { .. } => EffectKey::IssueInvoice,
            Self::Run => EffectKey::Run,
            Self::StopRun => EffectKey::StopRun,
            Self::SettleHold => EffectKey::SettleHold,
            Self::CancelHold => EffectKey::CancelHold,
            Self::Publish(Notice::Result) => EffectKey::PublishResult,
            Self::Publish(Notice::PaymentRequired) => EffectKey::PublishPaymentRequired,
            Self::Publish(Notice::Processing) => EffectKey::PublishProcessing,
            Self::Publish(Notice::Error(_)) => EffectKey::PublishError,
        }
    }
}
