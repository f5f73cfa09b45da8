//! Reading tags somebody else wrote: nothing here panics, nothing slices inside a character, and nothing allocates by a
//! number the other side chose.

use jiff::Timestamp;
use nostr::{Event, PublicKey, Tag, ToBech32};

use crate::job::id::EventId;
use crate::money::Msat;

/// Characters of a stranger's value that are shown back to them.
const QUOTED_CHARS: usize = 40;

/// An event's tags as lists of words, the encrypted ones behind the clear ones. No Debug: they may hold prompts.
pub(super) struct TagList<'a>(Vec<&'a [String]>);

impl<'a> TagList<'a> {
    /// The clear tags of an event.
    pub(super) fn of(event: &'a Event) -> Self {
        Self(event.tags.iter().map(Tag::as_slice).collect())
    }

    /// These tags with others behind them.
    pub(super) fn followed_by(&self, others: &'a [Vec<String>]) -> TagList<'a> {
        TagList(self.0.iter().copied().chain(others.iter().map(Vec::as_slice)).collect())
    }

    /// These tags with others before them.
    pub(super) fn preceded_by(&self, others: &'a [Vec<String>]) -> TagList<'a> {
        TagList(others.iter().map(Vec::as_slice).chain(self.0.iter().copied()).collect())
    }

    /// Every tag with its name and its values.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'a str, &'a [String])> + '_ {
        self.0.iter().filter_map(|tag| tag.split_first().map(|(name, values)| (name.as_str(), values)))
    }

    /// The values of every tag of that name.
    pub(super) fn all<'n>(&'n self, name: &'n str) -> impl Iterator<Item = &'a [String]> + 'n {
        self.iter().filter(move |(found, _)| *found == name).map(|(_, values)| values)
    }

    /// The values of the first tag of that name.
    pub(super) fn first(&self, name: &str) -> Option<&'a [String]> {
        self.all(name).next()
    }

    /// The first value of the first tag of that name, trimmed.
    pub(super) fn value(&self, name: &str) -> Option<&'a str> {
        self.first(name).and_then(|values| values.first()).map(|value| value.trim())
    }

    /// Whether there is a tag of that name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.first(name).is_some()
    }
}

/// Who an event speaks to, by its `p` tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Addressing {
    /// It names nobody.
    Anybody,
    /// It names us, perhaps beside others.
    Us,
    /// It names others only.
    Others,
}

/// Reads the `p` tags. Keys are hex; an `npub` is understood too. An empty `p` tag names nobody.
pub(super) fn addressing(tags: &TagList<'_>, us: &PublicKey) -> Addressing {
    let mut named =
        tags.all("p").filter_map(|values| values.first()).map(|key| key.trim()).filter(|key| !key.is_empty());
    let Some(first) = named.next() else { return Addressing::Anybody };
    let hex = us.to_hex();
    let is_us = |key: &str| {
        key.eq_ignore_ascii_case(&hex) || (key.starts_with("npub1") && us.to_bech32().is_ok_and(|npub| npub == key))
    };
    if is_us(first) || named.any(is_us) { Addressing::Us } else { Addressing::Others }
}

/// An event id: 64 hex digits in either case.
pub(super) fn event_id(text: &str) -> Option<EventId> {
    text.trim().parse().ok()
}

/// An amount in whole millisatoshis. Underscores between the digits are understood (`100_000` is in the wild); anything
/// else is no amount.
pub(super) fn msat(text: &str) -> Option<Msat> {
    let digits: String = text.trim().chars().filter(|c| *c != '_').take(QUOTED_CHARS).collect();
    whole_number(&digits).and_then(|number| Msat::from_msat(number).ok())
}

/// A whole number in digits only.
pub(super) fn whole_number<N: std::str::FromStr>(text: &str) -> Option<N> {
    let text = text.trim();
    // `parse` takes a leading plus, which nobody means.
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) { None } else { text.parse().ok() }
}

/// A unix time in seconds.
pub(super) fn unix_seconds(text: &str) -> Option<Timestamp> {
    whole_number::<i64>(text).and_then(|seconds| Timestamp::from_second(seconds).ok())
}

/// When an event says it was written; `None` for a time past the calendar.
pub(super) fn written_at(event: &Event) -> Option<Timestamp> {
    i64::try_from(event.created_at.as_secs()).ok().and_then(|seconds| Timestamp::from_second(seconds).ok())
}

/// The start of a text, at most `max_bytes` long and ending with a whole character.
pub(super) fn cut(text: &str, max_bytes: usize) -> &str {
    let mut end = text.len().min(max_bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// A stranger's text as one line that is safe on a terminal: no control characters, at most `max_bytes`.
pub(super) fn plain_line(text: &str, max_bytes: usize) -> String {
    let mut line = String::new();
    for c in text.trim().chars() {
        let c = if c.is_control() { ' ' } else { c };
        if line.len() + c.len_utf8() > max_bytes {
            break;
        }
        line.push(c);
    }
    line
}

/// A stranger's value as it is shown back to them: short and on one line.
pub(super) fn quoted(text: &str) -> String {
    let shown: String = text.chars().take(QUOTED_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if shown.len() < text.len() { format!("'{shown}…'") } else { format!("'{shown}'") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_never_splits_a_character() {
        assert_eq!(cut("añb", 2), "a");
        assert_eq!(cut("añb", 3), "añ");
        assert_eq!(cut("𝕏", 3), "");
        assert_eq!(cut("ab", 10), "ab");
        assert_eq!(plain_line("a\u{1b}[31mñ", 3), "a [");
    }

    #[test]
    fn an_amount_in_the_wild_is_read_or_is_none() {
        assert_eq!(msat("100_000"), Some(Msat::sat(100)));
        assert_eq!(msat(" 21000 "), Some(Msat::sat(21)));
        for junk in
            ["", "_", "-1", "+1", "1.5", "21 sat", "100,000", "٣", "99999999999999999999999", "18446744073709551615"]
        {
            assert_eq!(msat(junk), None, "{junk} was read");
        }
    }

    #[test]
    fn a_time_past_the_calendar_is_no_time() {
        assert!(unix_seconds("1700000000").is_some());
        for junk in ["1700000000000", "-1", "1e9", "99999999999999999999", ""] {
            assert_eq!(unix_seconds(junk), None, "{junk} was read");
        }
    }

    #[test]
    fn a_quoted_value_is_short_and_on_one_line() {
        assert_eq!(quoted("a\nb"), "'a b'");
        assert_eq!(quoted(&"é".repeat(100)).chars().count(), 43);
    }
}
