//! Reading what a provider answers: feedback (kind 7000) and results (kinds 6000–6999).

use nostr::Event;

use super::encrypted;
use super::feedback::read_feedback;
use super::file::HIDDEN_FILE;
use super::result::read_result;
use super::tags::{self, Addressing, TagList};
use super::{Answer, AnswerBody, Codec, Status, Unreadable, kinds};
use crate::job::id::{EventId, ProviderId};
use crate::job::{JobId, JobKind};

impl Codec {
    /// Reads an answer to a request of ours, decrypting it in the scheme it is written in. Which request it answers is in
    /// [`Answer::job`]: the caller keeps only answers to requests it made, from providers it asked.
    ///
    /// # Errors
    /// [`Unreadable::NotForUs`] when it names another customer, [`Unreadable::Broken`] when it names no request, has no
    /// status we know, or can't be decrypted; [`Unreadable::UnknownKind`] when it is no answer at all.
    pub fn read_answer(&self, event: &Event) -> Result<Answer, Unreadable> {
        let clear = TagList::of(event);
        if tags::addressing(&clear, &self.signer.keys().public_key()) == Addressing::Others {
            return Err(Unreadable::NotForUs);
        }
        self.read_any_answer(event)
    }

    /// Reads an answer to anybody's request, unless it is encrypted.
    ///
    /// # Errors
    /// [`Unreadable::NotForUs`] when it is encrypted, else as [`Codec::read_answer`].
    pub fn read_public_answer(&self, event: &Event) -> Result<Answer, Unreadable> {
        if TagList::of(event).has("encrypted") { Err(Unreadable::NotForUs) } else { self.read_any_answer(event) }
    }

    fn read_any_answer(&self, event: &Event) -> Result<Answer, Unreadable> {
        let number = event.kind.as_u16();
        let is_result = JobKind::ALL.into_iter().any(|kind| kind.result_kind() == number);
        if !is_result && number != kinds::FEEDBACK {
            return Err(Unreadable::UnknownKind(number));
        }
        let clear = TagList::of(event);
        let content = if !clear.has("encrypted") || event.content.is_empty() {
            event.content.clone()
        } else {
            match encrypted::open(self.signer.keys(), &event.pubkey, &event.content) {
                Some(plain) => plain,
                // What the clear tags of feedback say (an invoice, an error) is worth having without its words.
                None if !is_result && clear.has("status") => String::new(),
                None => return Err(Unreadable::Broken("the content could not be decrypted".to_owned())),
            }
        };
        let (job, body) = if is_result {
            let hidden = self.hidden_file(event, &clear);
            (job_of(&clear), AnswerBody::Result(read_result(&clear.preceded_by(&hidden), content)))
        } else {
            self.feedback_body(&clear, content)?
        };
        Ok(Answer {
            id: EventId(event.id.to_bytes()),
            provider: ProviderId(event.pubkey.to_bytes()),
            job: job.ok_or_else(|| Unreadable::Broken("the answer names no request".to_owned()))?,
            at: tags::written_at(event)
                .ok_or_else(|| Unreadable::Broken("its time is past the calendar".to_owned()))?,
            body,
        })
    }

    /// The tags of an encrypted result's file, of which its clear tags don't tell.
    fn hidden_file(&self, event: &Event, clear: &TagList<'_>) -> Vec<Vec<String>> {
        let hidden = clear.value(HIDDEN_FILE).filter(|_| clear.has("encrypted"));
        let plain = hidden.and_then(|hidden| encrypted::open(self.signer.keys(), &event.pubkey, hidden));
        plain.and_then(|plain| encrypted::private_tags(&plain)).unwrap_or_default()
    }

    /// Feedback whose encrypted content is a list of tags is what those tags say, the clear ones filling in. The content
    /// of a `partial` is a piece of output whatever it looks like.
    fn feedback_body(&self, clear: &TagList<'_>, content: String) -> Result<(Option<JobId>, AnswerBody), Unreadable> {
        let is_piece = clear.value("status").and_then(Status::from_word) == Some(Status::Partial);
        let private = (clear.has("encrypted") && !is_piece)
            .then(|| encrypted::private_tags(&content))
            .flatten()
            .filter(|tags| tags.iter().any(|tag| tag.first().is_some_and(|name| name == "status")));
        let all = clear.preceded_by(private.as_deref().unwrap_or_default());
        let content = match &private {
            Some(_) => all.first("content").and_then(|values| values.first()).cloned().unwrap_or_default(),
            None => content,
        };
        let feedback = read_feedback(&all, content)
            .ok_or_else(|| Unreadable::Broken("feedback without a known status".to_owned()))?;
        Ok((job_of(&all), AnswerBody::Feedback(feedback)))
    }
}

/// The first event id among the `e` tags.
fn job_of(tags: &TagList<'_>) -> Option<JobId> {
    tags.all("e").filter_map(|values| values.first()).find_map(|id| tags::event_id(id)).map(|id| JobId(id.0))
}
