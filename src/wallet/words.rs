//! A wallet's own words, made fit for logs and people.

/// The most of a wallet's own words that is passed on.
const MAX_WORDS_SHOWN: usize = 24;

/// Words longer than this are invoices, keys or preimages, which must not reach logs.
const MAX_WORD_CHARS: usize = 24;

/// A wallet's words, made fit to be shown: no control characters, nothing that could be a secret or an invoice, not too
/// long.
pub(crate) fn spoken(message: &str) -> String {
    let words = message.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let shown: Vec<_> = words
        .take(MAX_WORDS_SHOWN)
        .map(|word| if word.chars().count() > MAX_WORD_CHARS { "…" } else { word })
        .collect();
    if shown.is_empty() { "it gave no reason".to_owned() } else { shown.join(" ") }
}
