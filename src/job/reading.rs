//! Reads what agent jobs are asked with: parameters with aliases, numbers with limits, lists in either spelling, the
//! repository.
//!
//! A list is written `cmd_0`, `cmd_1`, … or by repeating `cmd`. Numbered entries come first, in the order of their numbers
//! (which may have gaps and decide nothing else), then the others as they stand. A number that is used twice is refused: it
//! would be a guess which of the two was meant. Of a single value that is given twice the first counts.
//!
//! Every refusal names the field as the customer wrote it and says what to change.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::text::{LONGEST_URL_BYTES, excerpt};
use super::{InputKind, JobRequest, Refusal, RelativePath};

/// Bytes of a branch, tag or commit at most: what file systems take for a branch's file.
pub const LONGEST_REFERENCE_BYTES: usize = 250;

/// The names of the parameter that says which commit.
const REFERENCE: [&str; 2] = ["git_ref", "repo_ref"];

/// A size the customer may choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound<T> {
    /// What is taken when nothing is asked.
    pub default: T,
    /// The most that may be asked.
    pub max: T,
}

impl<T: Ord + Copy> Bound<T> {
    /// What is taken when nothing is asked: never more than may be asked.
    pub fn usual(&self) -> T {
        self.default.min(self.max)
    }
}

/// The repository a job works on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskedRepository {
    /// Where it is.
    pub url: String,
    /// The wanted branch, tag or commit; `None` is the default branch.
    pub reference: Option<String>,
}

/// Reads one request.
#[derive(Clone, Copy)]
pub struct Reader<'a>(&'a JobRequest);

impl std::fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Reader").field(&self.0.id).finish()
    }
}

/// What an entry of a list is known by.
enum Place {
    Numbered(u64),
    Unnumbered,
}

impl<'a> Reader<'a> {
    /// A reader of this request.
    pub fn new(request: &'a JobRequest) -> Self {
        Self(request)
    }

    /// The value of the first of these names that is there, with the name. An empty one is refused: a silent default would
    /// surprise.
    pub fn value(&self, names: &[&'static str]) -> Result<Option<(&'static str, &'a str)>, Refusal> {
        for name in names {
            let Some((_, values)) = self.0.params.iter().find(|(key, _)| key == name) else { continue };
            return match values.first().map(|value| value.trim()) {
                Some(value) if !value.is_empty() => Ok(Some((name, value))),
                _ => Err(Refusal::bad_request(format!("param {name} has no value; give it one or leave it out"))),
            };
        }
        Ok(None)
    }

    /// A text of at most so many bytes.
    pub fn text(&self, names: &[&'static str], most_bytes: usize) -> Result<Option<&'a str>, Refusal> {
        match self.value(names)? {
            Some((name, text)) if text.len() > most_bytes => Err(too_long(name, text.len(), most_bytes)),
            found => Ok(found.map(|(_, text)| text)),
        }
    }

    /// A whole number from `low` to `most`, which is the operator's limit.
    pub fn number(&self, names: &[&'static str], low: u64, most: u64, unit: &str) -> Result<Option<u64>, Refusal> {
        let Some((name, text)) = self.value(names)? else { return Ok(None) };
        match text.parse::<u64>() {
            Ok(value) if value > most => Err(above(name, text, &format!("{most}{unit}"))),
            Ok(value) if value >= low => Ok(Some(value)),
            _ => Err(bad_value(name, text, &format!("a whole number from {low} to {most}"))),
        }
    }

    /// So many seconds, at least one; with nothing asked, the usual time.
    pub fn seconds(&self, names: &[&'static str], bound: Bound<Duration>) -> Result<Option<Duration>, Refusal> {
        Ok(self.number(names, 1, bound.max.as_secs(), " s")?.map(Duration::from_secs))
    }

    /// `true` or `false`.
    pub fn flag(&self, names: &[&'static str]) -> Result<Option<bool>, Refusal> {
        let Some((name, text)) = self.value(names)? else { return Ok(None) };
        match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" => Ok(Some(true)),
            "false" | "0" | "no" => Ok(Some(false)),
            _ => Err(bad_value(name, text, "true or false")),
        }
    }

    /// The entries of a list, each with the name it was written under. See the module for their order.
    pub fn list(&self, names: &[&'static str], most: usize) -> Result<Vec<(&'a str, &'a str)>, Refusal> {
        let (mut numbered, mut others) = (BTreeMap::new(), Vec::new());
        for (key, values) in self.0.params.iter() {
            let Some(place) = names.iter().find_map(|name| place(key, name)).transpose()? else { continue };
            if values.is_empty() || values.iter().any(|value| value.trim().is_empty()) {
                return Err(Refusal::bad_request(format!("param {key} has no value; give it one or leave it out")));
            }
            if numbered.len() + others.len() + values.len() > most {
                let name = names.first().copied().unwrap_or_default();
                return Err(Refusal::bad_request(format!(
                    "param {name}: more than {most} entries; this provider takes at most {most}: send fewer"
                )));
            }
            match (place, values) {
                (Place::Unnumbered, values) => others.extend(values.iter().map(|value| (key, value.as_str()))),
                (Place::Numbered(number), [value]) => {
                    if numbered.insert(number, (key, value.as_str())).is_some() {
                        return Err(Refusal::bad_request(format!(
                            "param {key}: the number {number} is used twice; number the entries 0, 1, 2 and so on"
                        )));
                    }
                }
                (Place::Numbered(_), values) => {
                    return Err(Refusal::bad_request(format!(
                        "param {key}: it has {} values; a numbered entry has one",
                        values.len()
                    )));
                }
            }
        }
        Ok(numbered.into_values().chain(others).collect())
    }

    /// The entries of a list as paths inside the repository.
    pub fn paths(&self, names: &[&'static str], most: usize) -> Result<Vec<RelativePath>, Refusal> {
        self.list(names, most)?.into_iter().map(|(name, text)| path(name, text)).collect()
    }

    /// The repository: the one `url` input that is marked `repo` or not marked, at the commit that `git_ref` names.
    pub fn repository(&self) -> Result<Option<AskedRepository>, Refusal> {
        let is_repository = |marker: Option<&str>| matches!(marker, None | Some("repo" | "repository"));
        let mut urls =
            self.0.inputs.iter().enumerate().filter(|(_, input)| {
                input.kind == InputKind::Url && is_repository(input.marker.as_deref().map(str::trim))
            });
        let reference = self.reference()?;
        let Some((at, input)) = urls.next() else {
            return match reference {
                Some((name, _)) => Err(Refusal::bad_request(format!(
                    "param {name}: there is no repository; name it in an i tag, such as [\"i\", \"https://…\", \"url\", \
                     \"\", \"repo\"]"
                ))),
                None => Ok(None),
            };
        };
        if let Some((second, _)) = urls.next() {
            return Err(Refusal::bad_request(format!(
                "input {} (url): a second repository; a job works on one: leave it out",
                second + 1
            )));
        }
        let url = input.data.trim();
        if url.is_empty() || url.len() > LONGEST_URL_BYTES {
            return Err(Refusal::bad_request(format!(
                "input {} (url): it must be an address of 1 to {LONGEST_URL_BYTES} bytes",
                at + 1
            )));
        }
        Ok(Some(AskedRepository { url: url.to_owned(), reference: reference.map(|(_, text)| text.to_owned()) }))
    }

    /// A branch, tag or commit by its name. What git can't have is refused before anybody is asked for it.
    fn reference(&self) -> Result<Option<(&'static str, &'a str)>, Refusal> {
        let found = self.value(&REFERENCE)?;
        match found {
            Some((name, text)) if text.len() > LONGEST_REFERENCE_BYTES => {
                Err(too_long(name, text.len(), LONGEST_REFERENCE_BYTES))
            }
            Some((name, text))
                if text.starts_with('-') || text.chars().any(|c| c.is_control() || c.is_whitespace()) =>
            {
                Err(bad_value(name, text, "the name of a branch, a tag or a commit"))
            }
            found => Ok(found),
        }
    }
}

/// Whether `key` is `name` or `name_7`; a number that no list has is refused.
fn place(key: &str, name: &str) -> Option<Result<Place, Refusal>> {
    let rest = key.strip_prefix(name)?;
    if rest.is_empty() {
        return Some(Ok(Place::Unnumbered));
    }
    let number = rest.strip_prefix('_')?;
    if number.is_empty() || !number.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    Some(
        number.parse().map(Place::Numbered).map_err(|_| {
            Refusal::bad_request(format!("param {}: its number is too large; count from 0", excerpt(key)))
        }),
    )
}

/// A path inside the repository or workspace.
pub fn path(name: &str, text: &str) -> Result<RelativePath, Refusal> {
    text.parse().map_err(|why| Refusal::bad_request(format!("param {name}: '{}': {why}", excerpt(text))))
}

/// The refusal of a value that is not what it should be.
pub fn bad_value(name: &str, value: &str, wanted: &str) -> Refusal {
    Refusal::bad_request(format!("param {name}: '{}' is not {wanted}; change it or leave it out", excerpt(value)))
}

/// The refusal of more than the operator allows.
pub fn above(name: &str, value: &str, most: &str) -> Refusal {
    Refusal::bad_request(format!(
        "param {name}: {} is above this provider's limit: ask for at most {most}",
        excerpt(value)
    ))
}

/// The refusal of a text that is too long.
pub fn too_long(name: &str, bytes: usize, most: usize) -> Refusal {
    Refusal::bad_request(format!("param {name}: {bytes} bytes; this provider takes at most {most}: shorten it"))
}

#[cfg(test)]
#[path = "reading_tests.rs"]
mod tests;
