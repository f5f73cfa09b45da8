//! What a model is shown: its instructions, the task, and what came since, as far as there is room.
//!
//! When it gets too long, it is condensed, the oldest first and always in this order, until it takes three quarters of the room,
//! so that it does not begin anew at every step:
//! 1. what commands printed becomes a line that says how much it was, except for the last one;
//! 2. whole steps go, and a line with the task says how many, except for the last one;
//! 3. what the last command printed is halved, its beginning and its end kept.

use crate::inference::Message;
use crate::job::text::Role;

/// An output that is no longer than this is not made shorter, in bytes.
const SHORT_OUTPUT_BYTES: usize = 512;

/// Bytes of an answer that could not be read which the model is shown again.
const SHOWN_OF_GARBAGE: usize = 500;

/// What an answer of nothing is shown as: templates don't take empty messages.
const NOTHING: &str = "(nothing)";

/// A conversation with a worker.
#[derive(Debug)]
pub(super) struct Conversation {
    system: String,
    task: String,
    steps: Vec<Step>,
    /// Steps that are no longer shown.
    forgotten: usize,
}

#[derive(Debug)]
struct Step {
    said: String,
    heard: String,
    /// What it is condensed to, until it is.
    short: Option<String>,
}

/// How much was condensed so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Condensed {
    pub(super) outputs: usize,
    pub(super) steps: usize,
}

impl Conversation {
    pub(super) fn new(system: String, task: String) -> Self {
        Self { system, task, steps: Vec::new(), forgotten: 0 }
    }

    /// Adds a command and what came of it.
    pub(super) fn ran(&mut self, said: &str, heard: String, short: String) {
        self.steps.push(Step { said: said.to_owned(), heard, short: Some(short) });
    }

    /// Adds an answer that could not be read, and what was said about it.
    pub(super) fn corrected(&mut self, said: &str, correction: String) {
        let said = match said.trim() {
            "" => NOTHING.to_owned(),
            said => middle_out(said, SHOWN_OF_GARBAGE),
        };
        self.steps.push(Step { said, heard: correction, short: None });
    }

    /// As the model gets it.
    pub(super) fn messages(&self) -> Vec<Message> {
        let task = match self.forgotten {
            0 => self.task.clone(),
            steps => {
                format!("{}\n\n(Your first {steps} answers and what came of them are no longer shown.)", self.task)
            }
        };
        let mut messages = vec![Message::new(Role::System, &*self.system), Message::new(Role::User, task)];
        for step in &self.steps {
            messages.push(Message::new(Role::Assistant, &*step.said));
            messages.push(Message::new(Role::User, &*step.heard));
        }
        messages
    }

    /// Makes it shorter by about so many bytes. Says what it did; nothing when there is nothing left to leave out.
    pub(super) fn condense(&mut self, bytes: usize) -> Condensed {
        let (mut done, mut saved) = (Condensed::default(), 0);
        let last = self.steps.len().saturating_sub(1);
        for step in self.steps.iter_mut().take(last) {
            if saved >= bytes {
                return done;
            }
            if let Some(short) = step.short.take().filter(|short| short.len() < step.heard.len()) {
                saved += step.heard.len() - short.len();
                step.heard = short;
                done.outputs += 1;
            }
        }
        while saved < bytes && self.steps.len() > 1 {
            let step = self.steps.remove(0);
            saved += step.said.len() + step.heard.len();
            self.forgotten += 1;
            done.steps += 1;
        }
        if let Some(last) = self.steps.last_mut()
            && saved < bytes
            && last.heard.len() > SHORT_OUTPUT_BYTES
        {
            last.heard = middle_out(&last.heard, last.heard.len() / 2);
            done.outputs += 1;
        }
        done
    }
}

impl Condensed {
    pub(super) fn is_nothing(self) -> bool {
        self == Self::default()
    }
}

/// A text of at most about so many bytes: its beginning and its end, and in between how much is left out.
pub(super) fn middle_out(text: &str, most_bytes: usize) -> String {
    if text.len() <= most_bytes {
        return text.to_owned();
    }
    let half = most_bytes / 2;
    let head = text.floor_char_boundary(half);
    let tail = text.ceil_char_boundary(text.len() - half);
    format!("{}\n[{} bytes left out]\n{}", &text[..head], tail - head, &text[tail..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(steps: usize) -> Conversation {
        let mut conversation = Conversation::new("rules".into(), "task".into());
        for step in 0..steps {
            conversation.ran(&format!("say {step}"), format!("{step}").repeat(1_000), format!("short {step}"));
        }
        conversation
    }

    fn shown(conversation: &Conversation) -> Vec<String> {
        let cut = |message: Message| message.content.chars().take(8).collect();
        conversation.messages().into_iter().map(cut).collect()
    }

    #[test]
    fn the_oldest_outputs_go_first_and_the_last_stays() {
        let mut long = conversation(3);
        assert_eq!(long.condense(900), Condensed { outputs: 1, steps: 0 });
        assert_eq!(shown(&long), ["rules", "task", "say 0", "short 0", "say 1", "11111111", "say 2", "22222222"]);
        assert_eq!(long.condense(900), Condensed { outputs: 1, steps: 0 });
        assert_eq!(shown(&long), ["rules", "task", "say 0", "short 0", "say 1", "short 1", "say 2", "22222222"]);
    }

    #[test]
    fn then_whole_steps_go_and_at_last_half_of_the_last_output() {
        let mut long = conversation(3);
        assert_eq!(long.condense(2_000), Condensed { outputs: 2, steps: 2 });
        assert!(
            long.messages()[1].content.ends_with("(Your first 2 answers and what came of them are no longer shown.)")
        );
        assert_eq!(shown(&long)[2..], ["say 2", "22222222"]);
        assert_eq!(long.condense(10), Condensed { outputs: 1, steps: 0 });
        let halved = &long.messages()[3].content;
        assert!(halved.contains("\n[500 bytes left out]\n") && halved.len() < 600, "{halved}");
        long.condense(10);
        assert!(long.condense(10).is_nothing());
    }

    #[test]
    fn corrections_are_short_and_never_empty() {
        let mut talk = conversation(0);
        talk.corrected(" \n", "Give a command.".into());
        talk.corrected(&"é".repeat(5_000), "Give a command.".into());
        let messages = talk.messages();
        assert_eq!(messages[2].content, NOTHING);
        assert!(messages[4].content.len() < 600);
    }
}
