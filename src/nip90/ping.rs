//! "Are you there?": a ping (kind 7007) that names us is answered by feedback with the status `pong`. A ping to nobody in
//! particular is not: everybody would answer.

use jiff::Timestamp;
use nostr::Event;

use super::draft::{Draft, words};
use super::tags::{Addressing, TagList, addressing};
use super::{Codec, EncodeError, Feedback, Incoming, ReplyTo, SignedEvent, Status, Unreadable, kinds, request};
use crate::job::id::ProviderId;
use crate::job::{CustomerId, JobId};

impl Codec {
    pub(super) fn read_ping(&self, event: &Event) -> Result<Incoming, Unreadable> {
        let tags = TagList::of(event);
        if addressing(&tags, &self.signer.keys().public_key()) != Addressing::Us {
            return Err(Unreadable::NotForUs);
        }
        let to = ReplyTo {
            job: JobId(event.id.to_bytes()),
            customer: CustomerId(event.pubkey.to_bytes()),
            addressed: true,
            encryption: None,
            relays: request::relays(&tags, &self.limits),
        };
        Ok(Incoming::Ping { to })
    }

    /// Writes a ping to a provider; the answer is feedback with [`Status::Pong`].
    ///
    /// # Errors
    /// [`EncodeError::Crypto`] when signing fails.
    pub fn ping(&self, provider: ProviderId, relays: &[String], at: Timestamp) -> Result<SignedEvent, EncodeError> {
        let mut tags = vec![words!["p", provider]];
        if !relays.is_empty() {
            tags.push(std::iter::once("relays".to_owned()).chain(relays.iter().cloned()).collect());
        }
        self.sign(Draft { kind: kinds::PING, tags, content: String::new() }, at)
    }

    /// Writes the answer to a ping.
    ///
    /// # Errors
    /// [`EncodeError::Crypto`] when signing fails.
    pub fn pong(&self, to: &ReplyTo, at: Timestamp) -> Result<SignedEvent, EncodeError> {
        self.feedback(to, &Feedback::of(Status::Pong), at)
    }
}
