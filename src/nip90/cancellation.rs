//! Cancelling a job: a deletion request (NIP-09, kind 5) that names the request, by the key that signed it.

use jiff::Timestamp;
use nostr::Event;

use super::draft::{Draft, words};
use super::tags::{TagList, event_id};
use super::{Codec, EncodeError, Incoming, SignedEvent, Unreadable, kinds};
use crate::job::{CustomerId, JobId, JobKind};

impl Codec {
    /// Reads a deletion as the wish to cancel. Whether the jobs are the author's own is for the caller to check: this only
    /// says who signed.
    pub(super) fn read_cancellation(&self, event: &Event) -> Result<Incoming, Unreadable> {
        let mut jobs: Vec<JobId> = Vec::new();
        let named = TagList::of(event);
        for id in named.all("e").filter_map(|values| values.first()).filter_map(|id| event_id(id)) {
            if jobs.len() >= self.limits.max_tags {
                break;
            }
            if !jobs.contains(&JobId(id.0)) {
                jobs.push(JobId(id.0));
            }
        }
        if jobs.is_empty() {
            return Err(Unreadable::Broken("the deletion names no event".to_owned()));
        }
        Ok(Incoming::Cancel { customer: CustomerId(event.pubkey.to_bytes()), jobs })
    }

    /// Writes the wish that a request of ours be dropped.
    ///
    /// # Errors
    /// [`EncodeError::Crypto`] when signing fails.
    pub fn cancellation(&self, job: JobId, kind: JobKind, at: Timestamp) -> Result<SignedEvent, EncodeError> {
        let tags = vec![words!["e", job], words!["k", kind.request_kind()]];
        self.sign(Draft { kind: kinds::DELETION, tags, content: String::new() }, at)
    }
}
