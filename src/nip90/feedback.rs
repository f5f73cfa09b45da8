//! Feedback (NIP-90, kind 7000): what a provider says while a job is on its way.
//!
//! To an encrypted request nothing that tells of its content is in the clear. A piece of output is encrypted as it is.
//! Other feedback encrypts everything it says as a JSON array of tags, like the request's own, and repeats in the clear what
//! a client that does not decrypt needs to go on: status, invoice, code.

use std::time::Duration;

use jiff::Timestamp;
use nostr::PublicKey;

use super::draft::{Draft, Words, fitting, tag_bytes, truncated, words};
use super::tags::{self, TagList, plain_line};
use super::{Amount, Codec, EncodeError, Feedback, ReplyTo, SignedEvent, Status, encrypted, kinds};
use crate::job::queue::Standing;
use crate::job::{Code, Terms};

/// Bytes of the line for people.
const MAX_TEXT_BYTES: usize = 2_000;

/// Bytes of an invoice. BOLT 11 sets no limit; wallets' own stay far below.
const MAX_INVOICE_BYTES: usize = 7_089;

/// What BOLT 11 invoices begin with: the `ln` of every network.
const INVOICE_PREFIXES: [&str; 5] = ["lnbcrt", "lnbc", "lntbs", "lntb", "lnsb"];

impl Status {
    const ALL: [Self; 6] =
        [Self::PaymentRequired, Self::Processing, Self::Partial, Self::Error, Self::Success, Self::Pong];

    /// The word on the wire.
    pub const fn word(self) -> &'static str {
        match self {
            Self::PaymentRequired => "payment-required",
            Self::Processing => "processing",
            Self::Partial => "partial",
            Self::Error => "error",
            Self::Success => "success",
            Self::Pong => "pong",
        }
    }

    /// The status a word stands for, in either case and with hyphens or underscores.
    pub fn from_word(word: &str) -> Option<Self> {
        let word = word.trim().to_ascii_lowercase().replace('_', "-");
        Self::ALL.into_iter().find(|status| status.word() == word)
    }
}

impl Codec {
    /// Writes feedback. A piece of output larger than an event may be is cut and says so.
    ///
    /// # Errors
    /// [`EncodeError::Crypto`] when signing or encrypting fails.
    pub fn feedback(&self, to: &ReplyTo, feedback: &Feedback, at: Timestamp) -> Result<SignedEvent, EncodeError> {
        let mut tags = said(feedback, to.encryption.is_none());
        tags.extend(answering(to));
        let content = match to.encryption {
            None => self.payload(&feedback.content, None, &mut tags).to_owned(),
            Some(scheme) => {
                tags.push(words!["encrypted"]);
                let plain = if feedback.status == Status::Partial {
                    self.payload(&feedback.content, Some(scheme), &mut tags).to_owned()
                } else {
                    let room = encrypted::largest_plaintext(scheme, self.room_beside(&tags));
                    private_part(to, feedback, room).map_err(|error| EncodeError::Crypto(error.to_string()))?
                };
                encrypted::seal(self.signer.keys(), &PublicKey::from_byte_array(to.customer.0), &plain, scheme)?
            }
        };
        self.sign(Draft { kind: kinds::FEEDBACK, tags, content }, at)
    }
}

/// Everything the feedback says as a JSON array of tags of at most `room` bytes.
fn private_part(to: &ReplyTo, feedback: &Feedback, room: usize) -> serde_json::Result<String> {
    let mut tags = said(feedback, true);
    tags.push(words!["e", to.job]);
    if !feedback.content.is_empty() {
        let notice = truncated(&feedback.content);
        let taken: usize = tags.iter().chain([&notice, &words!["content", ""]]).map(tag_bytes).sum();
        let content = fitting(&feedback.content, usize::MAX, room.saturating_sub(taken));
        if content.len() < feedback.content.len() {
            tags.push(notice);
        }
        tags.push(words!["content", content]);
    }
    serde_json::to_string(&tags)
}

/// What the feedback says, with or without the words for people.
fn said(feedback: &Feedback, with_text: bool) -> Vec<Words> {
    let mut status = words!["status", feedback.status.word()];
    if with_text && let Some(text) = &feedback.text {
        status.push(tags::cut(text, MAX_TEXT_BYTES).to_owned());
    }
    let mut tags = vec![status];
    if let Some(code) = feedback.code {
        tags.push(words!["code", code]);
    }
    tags.extend(feedback.amount.as_ref().map(amount_words));
    if let Some(terms) = feedback.terms {
        tags.push(words!["terms", terms]);
    }
    if let Some(seq) = feedback.seq {
        tags.push(words!["seq", seq]);
    }
    if let Some(Standing { position, wait }) = feedback.queue {
        let mut queue = words!["queue", position];
        queue.extend(wait.map(|wait| whole_seconds(wait).to_string()));
        tags.push(queue);
    }
    tags
}

/// `["e", request, relay?]` and `["p", customer]`.
pub(super) fn answering(to: &ReplyTo) -> [Words; 2] {
    let mut request = words!["e", to.job];
    request.extend(to.relays.first().cloned());
    [request, words!["p", to.customer]]
}

/// `["amount", msat, bolt11?]`.
pub(super) fn amount_words(amount: &Amount) -> Words {
    let mut tag = words!["amount", amount.amount.as_msat()];
    tag.extend(amount.bolt11.clone());
    tag
}

/// Reads an `amount` tag. An amount that can't be read is none, and what is no BOLT 11 invoice is left out.
pub(super) fn read_amount(tags: &TagList<'_>) -> Option<Amount> {
    let values = tags.first("amount")?;
    let amount = tags::msat(values.first()?)?;
    Some(Amount { amount, bolt11: values.get(1).and_then(|text| invoice(text)) })
}

fn invoice(text: &str) -> Option<String> {
    let text = text.trim();
    if text.len() > MAX_INVOICE_BYTES {
        return None;
    }
    let lower = text.to_ascii_lowercase();
    let bare = lower.strip_prefix("lightning:").unwrap_or(&lower);
    let plausible = bare.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && INVOICE_PREFIXES.iter().any(|prefix| bare.starts_with(prefix));
    plausible.then(|| bare.to_owned())
}

/// Reads `["terms", word]`.
pub(super) fn read_terms(tags: &TagList<'_>) -> Option<Terms> {
    tags.value("terms").and_then(|word| word.to_ascii_lowercase().parse().ok())
}

/// Seconds, rounded up: who is told zero expects it now.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0))
}

/// Reads `["queue", position, seconds?]`.
fn read_queue(tags: &TagList<'_>) -> Option<Standing> {
    let values = tags.first("queue")?;
    let position = tags::whole_number(values.first()?)?;
    let wait = values.get(1).and_then(|seconds| tags::whole_number(seconds)).map(Duration::from_secs);
    Some(Standing { position, wait })
}

/// Reads what feedback says from its tags and content; `None` without a status we know.
pub(super) fn read_feedback(tags: &TagList<'_>, content: String) -> Option<Feedback> {
    let values = tags.first("status")?;
    let status = Status::from_word(values.first()?)?;
    let line = |text: &str| Some(plain_line(text, MAX_TEXT_BYTES)).filter(|line| !line.is_empty());
    let mut text = values.get(1).and_then(|text| line(text));
    if text.is_none() && status == Status::Error {
        // Many providers put the reason into the content.
        text = line(&content);
    }
    Some(Feedback {
        status,
        text,
        code: tags.value("code").and_then(Code::from_word),
        amount: read_amount(tags),
        terms: read_terms(tags),
        seq: tags.value("seq").and_then(tags::whole_number),
        queue: read_queue(tags),
        content,
    })
}
