//! Reading zap receipts (NIP-57, kind 9735), as far as that needs Nostr alone.
//!
//! A receipt is a claim of whoever signed it. What makes it worth money is checked by the provider: that the signer is the
//! one our lightning address announces, and what the invoice inside says. Here: that the zap request inside is a real one,
//! for us, and about which event.

use nostr::{Event, JsonUtil as _};

use super::tags::{self, TagList};
use super::{Codec, Incoming, Unreadable, kinds};
use crate::job::id::{EventId, NostrKey};
use crate::money::Msat;

/// Bytes of the invoice in a receipt, as in feedback.
const MAX_INVOICE_BYTES: usize = 7_089;

/// Bytes of the zap request in a receipt: some tags and a comment.
const MAX_REQUEST_BYTES: usize = 32 * 1024;

/// A zap receipt that names us and holds a valid zap request for one event.
#[derive(Clone, PartialEq, Eq)]
pub struct ZapReceipt {
    /// The receipt's own id.
    pub id: EventId,
    /// Who vouches for the payment.
    pub signer: NostrKey,
    /// The invoice that is said to be paid.
    pub bolt11: String,
    /// The zap request as it stands in the receipt: the invoice commits to exactly these bytes.
    pub request: String,
    /// Which event was zapped.
    pub zapped: EventId,
    /// What the zap request says it pays.
    pub amount: Option<Msat>,
}

impl std::fmt::Debug for ZapReceipt {
    /// Without the invoice and without the comment.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ZapReceipt")
            .field("id", &self.id)
            .field("signer", &self.signer)
            .field("zapped", &self.zapped)
            .field("amount", &self.amount)
            .finish_non_exhaustive()
    }
}

impl Codec {
    /// Reads a receipt whose id and signature the relay intake has checked.
    pub(super) fn read_zap(&self, event: &Event) -> Result<Incoming, Unreadable> {
        let broken = |why: &str| Unreadable::Broken(format!("zap: {why}"));
        let us = self.signer.keys().public_key().to_hex();
        let receipt = TagList::of(event);
        if only(&receipt, "p").map_err(broken)?.is_none_or(|key| !key.eq_ignore_ascii_case(&us)) {
            return Err(Unreadable::NotForUs);
        }
        let bolt11 = only(&receipt, "bolt11").map_err(broken)?.unwrap_or_default();
        if bolt11.is_empty() || bolt11.len() > MAX_INVOICE_BYTES {
            return Err(broken("no invoice"));
        }
        // Not trimmed: the invoice commits to every byte.
        let json = receipt.first("description").and_then(<[String]>::first).map(String::as_str).unwrap_or_default();
        if json.is_empty() || json.len() > MAX_REQUEST_BYTES {
            return Err(broken("no zap request"));
        }
        let request = Event::from_json(json).map_err(|_| broken("the zap request is no event"))?;
        if request.kind.as_u16() != kinds::ZAP_REQUEST {
            return Err(broken("the zap request is of another kind"));
        }
        request.verify().map_err(|_| broken("the zap request is not signed by its author"))?;
        let asked = TagList::of(&request);
        if only(&asked, "p").map_err(broken)?.is_none_or(|key| !key.eq_ignore_ascii_case(&us)) {
            return Err(broken("the zap request is for somebody else"));
        }
        let zapped = only(&asked, "e").map_err(broken)?.and_then(tags::event_id);
        let zapped = zapped.ok_or_else(|| broken("the zap request names no event"))?;
        // The receipt repeats it; one that says otherwise is nobody's honest work.
        if only(&receipt, "e").map_err(broken)?.is_some_and(|id| tags::event_id(id) != Some(zapped)) {
            return Err(broken("receipt and zap request name different events"));
        }
        let amount = match only(&asked, "amount").map_err(broken)? {
            None => None,
            Some(digits) => Some(
                tags::whole_number(digits)
                    .and_then(|msat| Msat::from_msat(msat).ok())
                    .ok_or_else(|| broken("the zap request's amount is none"))?,
            ),
        };
        Ok(Incoming::Zap(Box::new(ZapReceipt {
            id: EventId(event.id.to_bytes()),
            signer: NostrKey(event.pubkey.to_bytes()),
            bolt11: bolt11.to_owned(),
            request: json.to_owned(),
            zapped,
            amount,
        })))
    }
}

/// The value of a tag that may stand once at most (NIP-57, appendix D).
fn only<'a>(tags: &TagList<'a>, name: &str) -> Result<Option<&'a str>, &'static str> {
    let mut values = tags.all(name).map(|values| values.first().map_or("", |value| value.trim()));
    let first = values.next();
    if values.next().is_some() { Err("a tag stands twice") } else { Ok(first) }
}
