//! What servers tell of their models and answers, as far as it is believed and shown to anybody.

use serde::{Deserialize, Deserializer};

use crate::job::text::LONGEST_MODEL_BYTES;

/// A model with more parameters than that is a mistake of its server: the largest that anybody has heard of have some 10^13.
pub const MOST_PARAMETERS: u64 = 1_000_000_000_000_000;

/// So many events of an answer in a row may say nothing: no text, no thought, no count. Some servers send them to keep a
/// connection open while a long prompt is read; one that only ever sends them must not hold a job until its time is over.
pub(super) const MOST_EMPTY_EVENTS: u32 = 10_000;

/// How files of weights end.
const ENDING: &str = ".gguf";

/// The tag that Ollama writes out and people leave away.
const LATEST: &str = ":latest";

/// A parameter count as a receipt may state it: unknown when it can't be true.
pub fn parameters(told: u64) -> Option<u64> {
    (1..=MOST_PARAMETERS).contains(&told).then_some(told)
}

/// What a model is called in public, of which its server says `id`: a path on that machine is nobody's business, so only
/// its last component is left of it. `None` when it can't be shown or asked for: too long, or with control characters.
pub fn public_name(id: &str) -> Option<String> {
    let name = if is_path(id) { stem(id) } else { id };
    is_plain(name).then(|| name.to_owned())
}

/// Whether a name (or a version) can be shown as it is.
pub(super) fn is_plain(text: &str) -> bool {
    !text.trim().is_empty() && text.len() <= LONGEST_MODEL_BYTES && !text.chars().any(char::is_control)
}

/// Whether the model called `name` is the one that `wanted` names: exactly, without `:latest`, or by the path that the
/// operator knows it by.
pub fn names(name: &str, wanted: &str) -> bool {
    name == wanted
        || name.strip_suffix(LATEST) == Some(wanted)
        || (is_path(wanted) && public_name(wanted).as_deref() == Some(name))
}

/// The one of `all` that `wanted` means: one of exactly that name before one it [`names`]. `is` tells whether any of an
/// item's names is the one it is given a test for.
pub fn meant<T>(
    all: impl Iterator<Item = T> + Clone,
    wanted: &str,
    is: impl Fn(&T, &dyn Fn(&str) -> bool) -> bool,
) -> Option<T> {
    let exactly = all.clone().find(|item| is(item, &|name| name == wanted));
    exactly.or_else(|| all.clone().find(|item| is(item, &|name| names(name, wanted))))
}

fn is_path(id: &str) -> bool {
    let on_a_drive = id.as_bytes().get(1..3) == Some(b":/");
    let is_file = id.contains('/') && stem(id) != last(id);
    id.starts_with(['/', '~', '.']) || id.contains('\\') || on_a_drive || is_file
}

fn last(id: &str) -> &str {
    id.trim_end_matches(['/', '\\']).rsplit(['/', '\\']).next().unwrap_or(id)
}

/// The last component of a path, without the ending of a file of weights.
pub(super) fn stem(id: &str) -> &str {
    let name = last(id);
    let begin = name.len().checked_sub(ENDING.len()).filter(|begin| *begin > 0 && name.is_char_boundary(*begin));
    match begin {
        Some(begin) if name[begin..].eq_ignore_ascii_case(ENDING) => &name[..begin],
        _ => name,
    }
}

/// Reads a count of tokens that may be missing. One beyond all counts is as good as the largest: what is billed is bounded
/// by what was asked for, and a lie about it is no reason to lose the answer.
pub(super) fn tokens<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    let Some(number) = Option::<serde_json::Number>::deserialize(from)? else { return Ok(None) };
    if let Some(count) = number.as_u64() {
        return Ok(Some(u32::try_from(count).unwrap_or(u32::MAX)));
    }
    if number.as_f64().is_some_and(|count| count >= f64::from(u32::MAX)) {
        return Ok(Some(u32::MAX));
    }
    Err(serde::de::Error::custom("a count is a whole number, zero or more"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_nobodys_business() {
        for (id, name) in [
            ("/srv/models/Qwen3-8B-Q4_K_M.GGUF", "Qwen3-8B-Q4_K_M"),
            ("/home/me/secret/llama/", "llama"),
            (r"C:\models\a.gguf", "a"),
            ("C:/models/a.gguf", "a"),
            ("~/m/a", "a"),
            ("./a.gguf", "a"),
            ("models/a.gguf", "a"),
            ("meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B-Instruct"),
            ("hf.co/org/m-GGUF:Q4_K_M", "hf.co/org/m-GGUF:Q4_K_M"),
            ("tiny.gguf", "tiny.gguf"),
            ("日本語", "日本語"),
        ] {
            assert_eq!(public_name(id).as_deref(), Some(name), "{id}");
        }
    }

    #[test]
    fn what_nobody_could_show_or_ask_for_has_no_name() {
        let long = "x".repeat(LONGEST_MODEL_BYTES);
        assert!(public_name(&long).is_some());
        for id in ["", " ", "/", "a\u{1b}[31m", "a\nb", "a\u{9b}m", &format!("{long}x")] {
            assert_eq!(public_name(id), None, "{id:?}");
        }
    }

    #[test]
    fn a_model_is_known_without_its_tag_and_by_its_path() {
        assert!(names("llama3.2:latest", "llama3.2") && names("llama3.2", "llama3.2"));
        assert!(!names("llama3.2:1b", "llama3.2") && !names("llama3.2", "llama3.2:latest"));
        assert!(names("a", "/srv/a.gguf") && !names("a", "org/a"));
    }

    #[test]
    fn the_exact_name_comes_first() {
        let found = |all: &[&str]| meant(all.iter().copied(), "a", |name, is_it| is_it(name)).map(str::to_owned);
        assert_eq!(found(&["a:latest", "a"]).as_deref(), Some("a"));
        assert_eq!(found(&["b", "a:latest"]).as_deref(), Some("a:latest"));
        assert_eq!(found(&["b"]), None);
    }

    #[test]
    fn parameters_that_cannot_be_are_unknown() {
        assert_eq!(parameters(8_030_261_248), Some(8_030_261_248));
        assert_eq!([0, MOST_PARAMETERS + 1, u64::MAX].map(parameters), [None; 3]);
    }

    #[test]
    fn a_count_beyond_all_counts_is_the_largest() {
        let read = |text: &str| tokens(&mut serde_json::Deserializer::from_str(text)).ok();
        assert_eq!(["7", "null"].map(read), [Some(Some(7)), Some(None)]);
        assert_eq!(["4294967296", "18446744073709551616", "1e30"].map(read), [Some(Some(u32::MAX)); 3]);
        assert_eq!(["-1", "1.5", "\"7\""].map(read), [None; 3]);
    }
}
