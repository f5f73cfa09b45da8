//! What the node says, for our log: for developers only, and without what must not be read there.
//!
//! ldk-node logs whole invoices, hashes and sometimes the structures they stand in. Every long word is shortened and every
//! address cut after its host, so that no invoice, preimage, key or token gets through, whatever is logged.

use std::fmt::Write as _;

use ldk_node::logger::{LogLevel, LogRecord, LogWriter};

/// Letters and digits in a row from which on a word may be a secret: 16 bytes as hexadecimal digits.
const LONG_WORD: usize = 32;

/// What is left of a long word: enough to tell two nodes apart, nothing to pay or claim with.
const KEPT: usize = 8;

/// Hands the node's messages to `tracing`, one level lower than the node thinks of them.
#[derive(Debug)]
pub(super) struct Quiet;

impl LogWriter for Quiet {
    fn log(&self, record: LogRecord<'_>) {
        match record.level {
            LogLevel::Error | LogLevel::Warn | LogLevel::Info if tracing::enabled!(tracing::Level::DEBUG) => {
                tracing::debug!(module = record.module_path, "{}", shortened(&record.args.to_string()));
            }
            LogLevel::Debug if tracing::enabled!(tracing::Level::TRACE) => {
                tracing::trace!(module = record.module_path, "{}", shortened(&record.args.to_string()));
            }
            _ => {}
        }
    }
}

/// The text with its long words shortened and its addresses cut after the host.
fn shortened(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (index, word) in text.split(' ').enumerate() {
        if index > 0 {
            out.push(' ');
        }
        match word.split_once("://") {
            Some((scheme, rest)) => {
                let host =
                    rest.rsplit('@').next().unwrap_or_default().split(['/', '?', '#']).next().unwrap_or_default();
                // Writing to a string does not fail.
                let _ = write!(out, "{}://{}/…", shorten_runs(scheme), shorten_runs(host));
            }
            None => out.push_str(&shorten_runs(word)),
        }
    }
    out
}

fn shorten_runs(word: &str) -> String {
    let mut out = String::with_capacity(word.len());
    let mut rest = word;
    while !rest.is_empty() {
        let run = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let (letters, after) = rest.split_at(run);
        if letters.len() >= LONG_WORD {
            out.push_str(&letters[..KEPT]);
            out.push('…');
        } else {
            out.push_str(letters);
        }
        let next = after.find(|c: char| c.is_ascii_alphanumeric()).unwrap_or(after.len());
        out.push_str(&after[..next]);
        rest = &after[next..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_invoice_hash_or_path_gets_through() {
        let invoice = format!("lnbcrt210n1{}", "pjq8z0y".repeat(20));
        let hash = "ab".repeat(32);
        let text =
            format!("Invoice created: {invoice} for ({hash}) via https://u:pw@esplora.example/secret-path?k=1 — ok");
        let shown = shortened(&text);
        assert_eq!(shown, "Invoice created: lnbcrt21… for (abababab…) via https://esplora.example/… — ok");
    }

    #[test]
    fn plain_words_stay_as_they_are() {
        let text = "Synced 12 blocks:\n height=144, “näh”  two spaces ";
        assert_eq!(shortened(text), text);
    }
}
