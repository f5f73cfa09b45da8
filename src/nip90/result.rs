//! A job's result (NIP-90, kind of the request + 1000) with its receipt.
//!
//! The output comes first when room is short: an event that no relay takes helps nobody. Then the echo of the request goes
//! (`request`, the `i` tags), which the customer has anyway, and only then is the output cut, saying so. Where the whole was put
//! on a server of files, it says where.

use std::time::Duration;

use jiff::Timestamp;
use nostr::PublicKey;

use super::draft::{Draft, Words, escaped_bytes, tag_bytes, words};
use super::feedback::{amount_words, answering, read_amount, read_terms};
use super::file::{HIDDEN_FILE, blob_words, read_blob, sha256_digits};
use super::order::input_words;
use super::tags::{self, TagList, cut, plain_line};
use super::{Codec, EncodeError, JobResult, Receipt, ReplyTo, SignedEvent, encrypted};
use crate::job::{JobRequest, Usage};

/// Bytes of a model's name.
const MAX_MODEL_BYTES: usize = 200;

/// Bytes of a model's digest: a name of a hash and its digits.
const MAX_DIGEST_BYTES: usize = 150;

/// What an agent job's result says of itself, at most.
const MAX_FACTS: usize = 32;

/// Bytes of the name or the value of one of those.
const MAX_FACT_BYTES: usize = 300;

impl Codec {
    /// Writes a result. The same result at the same time is the same event, id and all, unless it is encrypted.
    ///
    /// # Errors
    /// [`EncodeError::Crypto`] when signing or encrypting fails.
    pub fn result(&self, request: &JobRequest, result: &JobResult, at: Timestamp) -> Result<SignedEvent, EncodeError> {
        let to = ReplyTo::from(request);
        let mut tags = self.said(&to, result)?;
        let output = self.payload(&result.content, to.encryption, &mut tags);
        if let (true, Some((size, hash))) = (output.len() == result.content.len(), &result.truncated) {
            tags.push(words!["truncated", size, hash]);
        }
        let content = match to.encryption {
            None => {
                let left = self.room_beside(&tags).saturating_sub(escaped_bytes(output));
                echo(request, left, &mut tags);
                output.to_owned()
            }
            Some(scheme) => {
                encrypted::seal(self.signer.keys(), &PublicKey::from_byte_array(to.customer.0), output, scheme)?
            }
        };
        self.sign(Draft { kind: request.kind.result_kind(), tags, content }, at)
    }

    /// Whether an event has room for the whole output of a result.
    pub fn has_room_for(&self, request: &JobRequest, result: &JobResult) -> bool {
        let to = ReplyTo::from(request);
        self.said(&to, result)
            .is_ok_and(|mut tags| self.payload(&result.content, to.encryption, &mut tags).len() == result.content.len())
    }

    /// The tags of a result without the echo of its request.
    fn said(&self, to: &ReplyTo, result: &JobResult) -> Result<Vec<Words>, EncodeError> {
        let mut tags = Vec::from(answering(to));
        tags.extend(result.amount.as_ref().map(amount_words));
        tags.extend(receipt_words(&result.receipt));
        let file = result.file.as_ref().map(blob_words).unwrap_or_default();
        match to.encryption {
            None => tags.extend(file),
            Some(scheme) => {
                // Who may read the tags could open the file.
                if !file.is_empty() {
                    let plain = serde_json::to_string(&file).expect("words are always JSON");
                    let customer = PublicKey::from_byte_array(to.customer.0);
                    let hidden = encrypted::seal(self.signer.keys(), &customer, &plain, scheme)?;
                    tags.push(words![HIDDEN_FILE, hidden]);
                }
                tags.push(words!["encrypted"]);
            }
        }
        Ok(tags)
    }
}

/// Puts the request and its inputs among the tags, each as far as there is room.
fn echo(request: &JobRequest, mut room: usize, tags: &mut Vec<Words>) {
    let whole = words!["request", request.event_json];
    let whole = (tag_bytes(&whole) <= room).then_some(whole);
    room -= whole.as_ref().map_or(0, tag_bytes);
    let inputs: Vec<Words> = request.inputs.iter().filter_map(|input| input_words(input).ok()).collect();
    if inputs.iter().map(tag_bytes).sum::<usize>() <= room {
        let behind_addresses = tags.len().min(2);
        tags.splice(behind_addresses..behind_addresses, inputs);
    }
    tags.splice(..0, whole);
}

fn receipt_words(receipt: &Receipt) -> Vec<Words> {
    let mut tags = Vec::new();
    if let Some(model) = &receipt.model {
        tags.push(words!["model", cut(model, MAX_MODEL_BYTES)]);
    }
    if let Some(digest) = &receipt.digest {
        tags.push(words!["digest", cut(digest, MAX_DIGEST_BYTES)]);
    }
    for (key, value) in receipt.facts.iter().take(MAX_FACTS) {
        tags.push(words!["result", cut(key, MAX_FACT_BYTES), cut(value, MAX_FACT_BYTES)]);
    }
    if let Some(usage) = receipt.usage {
        tags.push(words!["tokens", usage.prompt_tokens, usage.generated_tokens]);
    }
    if let Some(parameters) = receipt.parameters {
        tags.push(words!["params", parameters]);
    }
    if let Some(mflops) = receipt.mflops {
        tags.push(words!["mflops", mflops]);
    }
    if let Some(duration) = receipt.duration {
        tags.push(words!["duration_ms", duration.as_millis()]);
    }
    if let Some(rate) = receipt.tokens_per_second {
        tags.push(words!["tokens_per_second", rate]);
    }
    if let Some(paid) = receipt.paid {
        tags.push(words!["paid", paid.as_msat()]);
    }
    if let Some(credit) = receipt.credit {
        tags.push(words!["credit", credit.as_msat()]);
    }
    if let Some(terms) = receipt.terms {
        tags.push(words!["terms", terms]);
    }
    tags
}

/// Reads a result from its tags and its (decrypted) content. What can't be read of the receipt is left out: it is the
/// provider's claim, not ours.
pub(super) fn read_result(tags: &TagList<'_>, content: String) -> JobResult {
    let number = |name: &str| tags.value(name).and_then(tags::whole_number::<u64>);
    let usage = || {
        let [prompt, generated, ..] = tags.first("tokens")? else { return None };
        Some(Usage::tokens(tags::whole_number(prompt)?, tags::whole_number(generated)?))
    };
    let cut_from = || {
        let [size, hash, ..] = tags.first("truncated")? else { return None };
        Some((tags::whole_number(size)?, sha256_digits(hash)?))
    };
    JobResult {
        content,
        amount: read_amount(tags),
        receipt: Receipt {
            model: tags.value("model").map(|m| plain_line(m, MAX_MODEL_BYTES)).filter(|model| !model.is_empty()),
            usage: usage(),
            parameters: number("params"),
            mflops: number("mflops"),
            digest: tags.value("digest").map(|d| plain_line(d, MAX_DIGEST_BYTES)).filter(|digest| !digest.is_empty()),
            facts: facts(tags),
            duration: number("duration_ms").map(Duration::from_millis),
            tokens_per_second: tags.value("tokens_per_second").and_then(|rate| rate.parse().ok()),
            paid: tags.value("paid").and_then(tags::msat),
            credit: tags.value("credit").and_then(tags::msat),
            terms: read_terms(tags),
        },
        file: read_blob(tags),
        truncated: cut_from(),
    }
}

/// The `["result", key, value]` tags.
fn facts(tags: &TagList<'_>) -> Vec<(String, String)> {
    let pairs = tags.all("result").filter_map(|values| match values {
        [key, value, ..] => Some((plain_line(key, MAX_FACT_BYTES), plain_line(value, MAX_FACT_BYTES))),
        _ => None,
    });
    pairs.filter(|(key, _)| !key.is_empty()).take(MAX_FACTS).collect()
}
