//! What is shown while a purchase goes on: on standard error, a line for each step, and at a terminal how long it takes.

use std::io::{IsTerminal as _, Write as _};

use indicatif::{ProgressBar, ProgressStyle};

use super::counted;
use super::failure::SILENCE;
use crate::cli::{Globals, pay_screen};
use crate::job::Refusal;
use crate::job::id::ProviderId;
use crate::requester::Progress;

/// Digits of a key that name somebody well enough for a line.
const SHORT_KEY: usize = 12;

/// What is shown while a purchase goes on.
pub(super) struct Screen {
    quiet: bool,
    /// Whether a wallet pays by itself.
    pays: bool,
    /// Whether pieces of the text are shown.
    stream: bool,
    written: Written,
    bar: Option<ProgressBar>,
}

/// The text shown so far. What is told meanwhile waits for its next line break, so that it does not land inside a line.
#[derive(Debug, Default)]
struct Written {
    is_inside_a_line: bool,
    held: Vec<String>,
}

impl Written {
    /// A line to be told: now, or later.
    fn tell(&mut self, line: String) -> Option<String> {
        if self.is_inside_a_line {
            self.held.push(line);
            return None;
        }
        Some(line)
    }

    /// More of the text, with what was held behind its last line break.
    fn text(&mut self, text: &str) -> String {
        if text.is_empty() {
            return String::new();
        }
        let (before, after) = text.rsplit_once('\n').map_or(("", text), |(before, after)| (before, after));
        let breaks = after.len() < text.len();
        self.is_inside_a_line = !after.is_empty();
        if !breaks {
            return text.to_owned();
        }
        format!("{before}\n{}{after}", self.release())
    }

    /// Ends the line, and what was held.
    fn end(&mut self) -> String {
        let end = if std::mem::take(&mut self.is_inside_a_line) { "\n" } else { "" };
        format!("{end}{}", self.release())
    }

    fn release(&mut self) -> String {
        self.held.drain(..).map(|line| format!("{line}\n")).collect()
    }
}

impl Screen {
    /// A screen. `stream`: whether pieces of text are shown as they come.
    pub(super) fn new(globals: &Globals, pays: bool, stream: bool) -> Self {
        let has_bar = !globals.quiet && !stream && std::io::stderr().is_terminal();
        let bar = has_bar.then(|| {
            let style = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}");
            let bar = ProgressBar::new_spinner().with_message("waiting for offers");
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
        });
        Self { quiet: globals.quiet, pays, stream, written: Written::default(), bar }
    }

    /// The line that says how long it takes, if there is one. Whoever waits ticks it.
    pub(super) fn bar(&self) -> Option<ProgressBar> {
        self.bar.clone()
    }

    /// Shows a step.
    pub(super) fn show(&mut self, progress: Progress) {
        let short = |provider: ProviderId| provider.to_string()[..SHORT_KEY].to_owned();
        match progress {
            Progress::Posted(report) => {
                let relays = counted(report.verdicts.len(), "relay", "relays");
                self.say(&format!("Posted to {} of {relays}.", report.accepted()));
            }
            Progress::Offered(offer) => {
                let terms = offer.terms.map_or_else(String::new, |terms| format!(" ({terms})"));
                self.say(&format!("Offer: {} by {}…{terms}", offer.amount, short(offer.provider)));
            }
            Progress::Passed { provider, why } => self.say(&format!("No offer by {}…: {why}", short(provider))),
            Progress::Chosen(offer) if self.pays => {
                self.say(&format!("Paying {} to {}…", offer.amount, short(offer.provider)));
                self.now("paying");
            }
            Progress::Chosen(offer) => {
                // Somebody has to see it now.
                self.end();
                self.apart(|| pay_screen::show(&offer));
                self.now("waiting for the payment");
            }
            Progress::Paid { amount, fees } => {
                let fees = fees.map_or_else(String::new, |fees| format!(" and {fees} in fees"));
                self.say(&format!("Paid {amount}{fees}."));
                self.now("paid; waiting for the work to begin");
            }
            Progress::Returned { amount } => self.say(&format!("The payment of {amount} came back: nothing was paid.")),
            // In our own words: the numbers are what counts.
            Progress::Working { provider, queue: Some(queue), .. } => {
                self.say(&format!("{}… has it waiting: {queue}", short(provider)));
                self.now("queued");
            }
            Progress::Working { provider, text, queue: None } => {
                let text = text.map_or_else(String::new, |text| format!(": {text}"));
                self.say(&format!("{}… is working{text}", short(provider)));
                self.now("processing");
            }
            Progress::Refused { provider, refusal, had_begun, is_the_end } => {
                let who = short(provider);
                self.say(&refused(&who, &refusal, had_begun, is_the_end));
            }
            Progress::Unanswered => self.say(&format!("Nobody has answered yet: {SILENCE}.")),
            Progress::CallingOff => {
                self.say("Calling the order off… (once more ends at once)");
                self.now("calling it off");
            }
            Progress::Piece(text) if self.stream => {
                let text = self.written.text(&plain(&text));
                put(&text);
            }
            Progress::Piece(_) => {}
        }
    }

    /// What the line at the bottom says.
    fn now(&self, doing: &'static str) {
        if let Some(bar) = &self.bar {
            bar.set_message(doing);
        }
    }

    /// A line of news.
    pub(super) fn say(&mut self, line: &str) {
        if self.quiet {
            return;
        }
        if let Some(line) = self.written.tell(plain(line)) {
            self.apart(|| put(&format!("{line}\n")));
        }
    }

    /// Writes without the line at the bottom in between.
    fn apart(&self, write: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Ends the line that was begun.
    pub(super) fn end(&mut self) {
        let end = self.written.end();
        self.apart(|| put(&end));
    }

    /// Takes the line at the bottom away.
    pub(super) fn close(mut self) {
        self.end();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// That somebody will not do it, or could not. Of what ends the order the reason is told as the error.
fn refused(who: &str, refusal: &Refusal, had_begun: bool, is_the_end: bool) -> String {
    let how = if had_begun { "failed" } else { "refused" };
    let why = if is_the_end { ".".to_owned() } else { format!(": {refusal}") };
    format!("{who}… {how} ({}){why}", refusal.code)
}

/// Writes to standard error. A terminal that went away does not stop a purchase.
pub(super) fn put(text: &str) {
    let mut err = std::io::stderr().lock();
    let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
}

/// Text of a stranger without what a terminal would obey.
pub(crate) fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Code;

    #[test]
    fn a_strangers_text_can_not_command_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\u{7}\n"), "a[2Jb\n");
    }

    #[test]
    fn a_reason_is_told_once_and_who_had_begun_has_failed() {
        let refusal = Refusal::new(Code::BadRequest, "a long reason");
        assert_eq!(refused("npub1", &refusal, false, false), "npub1… refused (bad-request): a long reason");
        assert_eq!(refused("npub1", &refusal, true, true), "npub1… failed (bad-request).");
    }

    #[test]
    fn what_is_told_meanwhile_never_lands_inside_a_line_of_the_text() {
        let mut written = Written::default();
        assert_eq!(written.tell("first".into()).as_deref(), Some("first"));
        assert_eq!(written.text("one "), "one ");
        assert_eq!(written.tell("paid".into()), None);
        assert_eq!(written.text("line"), "line");
        assert_eq!(written.text(".\n\nnext"), ".\n\npaid\nnext");
        assert_eq!(written.tell("done".into()), None);
        assert_eq!(written.end(), "\ndone\n");
        assert_eq!((written.end(), written.tell("later".into()).as_deref()), (String::new(), Some("later")));
    }
}
