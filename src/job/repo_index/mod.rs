//! Kind 5931: which index of a repository a customer wants, and what it comes back as.
//!
//! # Parameters
//!
//! Keys are read in either spelling (`max-file-size`, `max_file_size`). A bad value is refused with its name and range, never
//! replaced by a default; unknown parameters are ignored; of a repeated one the first counts, lists excepted ([`reading`]
//! says how those are written).
//!
//! | `param` | also | values | meaning |
//! |---|---|---|---|
//! | `git_ref` | `repo_ref` | branch, tag or commit | of the repository; its default branch otherwise |
//! | `index_type_N` | `index_type`, `index_types` | `symbols`, `digests`, `dependencies`, `embeddings`, `all` | what is wanted; `symbols` otherwise |
//! | `include_N` | `include` | a pattern of paths | only these files; `**/*` otherwise |
//! | `exclude_N` | `exclude` | a pattern of paths | none of these files, instead of [`EXCLUDED`] |
//! | `max_file_size` | | 1 to the provider's limit | larger files are left out; in bytes |
//! | `embedding_model` | | a name on offer | the provider's default otherwise |
//!
//! [`reading`]: super::reading

mod result;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::globs::{Globs, LONGEST_GLOB_BYTES, MOST_GLOBS};
use super::reading::{AskedRepository, Bound, Reader, bad_value, too_long};
use super::text::{LONGEST_MODEL_BYTES, excerpt};
use super::{InputKind, JobRequest, Refusal};

pub use result::{Dependency, Embedding, EmbeddingIndex, FileDigest, Indexes, RepoIndexResult, Symbol, SymbolKind};

/// What is left out when the customer names nothing to leave out: what others wrote, or a machine.
pub const EXCLUDED: [&str; 4] = ["**/node_modules/**", "**/target/**", "**/.git/**", "**/vendor/**"];

/// Entries of `index_type` at most: more than there are would be repetitions.
const MOST_TYPES: usize = 16;

/// What an operator allows of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RepoIndexLimits {
    /// Time of the whole run, fetching included.
    pub time: Duration,
    /// Bytes of a file that is read.
    pub file_bytes: Bound<u64>,
    /// Bytes of a result. What does not fit is left out, which the result says.
    pub max_result_bytes: usize,
    /// Tokens that embeddings of one job may take.
    pub max_tokens: u32,
    /// Whether embeddings are sold, where a model server makes them.
    pub embeddings: bool,
    /// Indexes that are made at once.
    pub at_once: usize,
}

impl Default for RepoIndexLimits {
    /// Five minutes, files of 4 MiB, a result of 8 MiB, 200,000 tokens, two at once.
    fn default() -> Self {
        Self {
            time: Duration::from_secs(300),
            file_bytes: Bound { default: 1024 * 1024, max: 4 * 1024 * 1024 },
            max_result_bytes: 8 * 1024 * 1024,
            max_tokens: 200_000,
            embeddings: true,
            at_once: 2,
        }
    }
}

/// Which indexes are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct IndexTypes {
    /// What is defined where.
    pub symbols: bool,
    /// What the files are.
    pub digests: bool,
    /// What the manifests and lock files name.
    pub dependencies: bool,
    /// What the texts mean: named, or with `all` wherever it is on offer.
    pub embeddings: Wanted,
}

/// How much something is wanted that not every provider has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wanted {
    /// Not at all.
    #[default]
    No,
    /// Where there is some.
    IfOffered,
    /// Or nothing.
    Yes,
}

/// A kind 5931 request, read and checked as far as that goes without asking anybody.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepoIndex {
    /// What is indexed.
    pub repository: AskedRepository,
    /// What is wanted.
    pub types: IndexTypes,
    /// Only files of these patterns.
    pub include: Vec<String>,
    /// No files of these patterns.
    pub exclude: Vec<String>,
    /// Larger files are left out.
    pub max_file_bytes: u64,
    /// The wanted model for embeddings.
    pub embedding_model: Option<String>,
}

impl std::fmt::Debug for RepoIndex {
    /// What is indexed is the customer's business.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RepoIndex")
            .field("types", &self.types)
            .field("max_file_bytes", &self.max_file_bytes)
            .finish_non_exhaustive()
    }
}

impl RepoIndex {
    /// Reads a request. Pure: the same request and limits, the same answer.
    ///
    /// # Errors
    /// The first thing that is wrong, by name, with the cure.
    pub fn parse(request: &JobRequest, limits: &RepoIndexLimits) -> Result<Self, Refusal> {
        check_output(request.output.as_deref())?;
        let read = Reader::new(request);
        let repository = read.repository()?.ok_or_else(|| {
            Refusal::bad_request(
                "the request names no repository: put its address in an i tag, such as [\"i\", \"https://…\", \"url\", \
                 \"\", \"repo\"]",
            )
        })?;
        if let Some(other) = request.inputs.iter().position(|input| input.kind != InputKind::Url) {
            return Err(Refusal::unsupported(format!(
                "input {} ({}): an index takes one url input, marked repo; leave this out",
                other + 1,
                request.inputs[other].kind.word()
            )));
        }
        let asked = Self {
            repository,
            types: types(&read)?,
            include: patterns(&read, "include")?,
            exclude: match patterns(&read, "exclude")? {
                none if none.is_empty() => EXCLUDED.map(str::to_owned).to_vec(),
                asked => asked,
            },
            max_file_bytes: read
                .number(&["max_file_size"], 1, limits.file_bytes.max, " bytes")?
                .unwrap_or(limits.file_bytes.usual()),
            embedding_model: read.text(&["embedding_model"], LONGEST_MODEL_BYTES)?.map(str::to_owned),
        };
        asked.globs()?;
        Ok(asked)
    }

    /// Which files are meant.
    ///
    /// # Errors
    /// A pattern that is none.
    pub fn globs(&self) -> Result<Globs, Refusal> {
        Globs::new(&self.include, &self.exclude)
    }
}

/// An index is JSON whatever is asked; another wish is not silently ignored.
fn check_output(wanted: Option<&str>) -> Result<(), Refusal> {
    let bare = wanted.map(|wanted| wanted.split(';').next().unwrap_or_default().trim());
    match bare {
        None => Ok(()),
        Some(bare) if bare.eq_ignore_ascii_case("application/json") => Ok(()),
        Some(other) => Err(Refusal::unsupported(format!(
            "output '{}' is not offered; an index is application/json",
            excerpt(other)
        ))),
    }
}

fn types(read: &Reader<'_>) -> Result<IndexTypes, Refusal> {
    let listed = read.list(&["index_type", "index_types"], MOST_TYPES)?;
    if listed.is_empty() {
        return Ok(IndexTypes { symbols: true, ..IndexTypes::default() });
    }
    let mut types = IndexTypes::default();
    for (name, text) in listed {
        for word in text.split(',').map(|word| word.trim().to_ascii_lowercase()) {
            match word.as_str() {
                "symbols" => types.symbols = true,
                "digests" => types.digests = true,
                "dependencies" => types.dependencies = true,
                "embeddings" => types.embeddings = Wanted::Yes,
                "all" => {
                    let embeddings = if types.embeddings == Wanted::Yes { Wanted::Yes } else { Wanted::IfOffered };
                    types = IndexTypes { symbols: true, digests: true, dependencies: true, embeddings };
                }
                _ => {
                    let wanted = "one of symbols, digests, dependencies, embeddings and all";
                    return Err(bad_value(name, text, wanted));
                }
            }
        }
    }
    Ok(types)
}

fn patterns(read: &Reader<'_>, name: &'static str) -> Result<Vec<String>, Refusal> {
    let listed = read.list(&[name], MOST_GLOBS)?;
    if let Some((name, long)) = listed.iter().find(|(_, pattern)| pattern.len() > LONGEST_GLOB_BYTES) {
        return Err(too_long(name, long.len(), LONGEST_GLOB_BYTES));
    }
    Ok(listed.into_iter().map(|(_, pattern)| pattern.to_owned()).collect())
}

#[cfg(test)]
mod tests;
