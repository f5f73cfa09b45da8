//! What an index comes back as: the JSON of a kind 6931 result, for the seller and the buyer.

use serde::{Deserialize, Serialize};

/// An index of a repository at one commit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RepoIndexResult {
    /// The commit.
    pub commit: String,
    /// The hash of all files that were indexed; see `nips/5931.md` for how to check it.
    pub tree_sha256: String,
    /// The indexes that were asked for.
    pub indexes: Indexes,
    /// Files that were read.
    pub files_indexed: u64,
    /// Bytes of them.
    pub bytes_processed: u64,
    /// Tokens that embeddings took.
    pub tokens_processed: u64,
    /// Time worked.
    pub duration_ms: u64,
    /// Whether something is left out because there would be too much of it; `errors` says what.
    #[serde(default)]
    pub truncated: bool,
    /// What could not be read, or was left out, and why.
    pub errors: Vec<String>,
}

/// The indexes that were asked for; the others are not there.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Indexes {
    /// What is defined where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub symbols: Option<Vec<Symbol>>,
    /// What the files are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digests: Option<Vec<FileDigest>>,
    /// What the manifests and lock files name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dependencies: Option<Vec<Dependency>>,
    /// What the texts mean, as vectors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embeddings: Option<EmbeddingIndex>,
}

/// Something that has a name in a source file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Symbol {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: SymbolKind,
    /// The file.
    pub path: String,
    /// The line of the name, from 1.
    pub line: u32,
    /// The character in that line where the name begins, from 1.
    pub column: u32,
    /// The first line of what declares it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// The comment that documents it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub documentation: Option<String>,
}

/// What a symbol is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SymbolKind {
    /// A function of its own.
    Function,
    /// A function of a type.
    Method,
    /// A class or record.
    Class,
    /// A struct.
    Struct,
    /// A union.
    Union,
    /// An enumeration.
    Enum,
    /// An interface, also one of annotations.
    Interface,
    /// A trait or concept.
    Trait,
    /// Another name for a type.
    Type,
    /// A value that stays as it is.
    Constant,
    /// A module, namespace or package.
    Module,
    /// A macro.
    Macro,
}

/// What a file is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDigest {
    /// The file.
    pub path: String,
    /// Its hash, in hexadecimal digits.
    pub sha256: String,
    /// Its bytes.
    pub size: u64,
    /// What it is written in, by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Its lines; a last one without a line break counts.
    pub lines: u64,
}

/// Something that the project needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// Its name.
    pub name: String,
    /// The wanted version as it is written, or the one a lock file has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Whether it is only needed to work on the project.
    pub dev: bool,
    /// The file that names it.
    pub source: String,
}

/// What texts mean, as vectors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EmbeddingIndex {
    /// The model that made them.
    pub model: String,
    /// Numbers of a vector.
    pub dimension: usize,
    /// Pieces of files.
    pub entries: Vec<Embedding>,
}

/// A piece of a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Embedding {
    /// The file.
    pub path: String,
    /// The first and the last line, from 1.
    pub lines: [u32; 2],
    /// How the piece begins.
    pub preview: String,
    /// Its vector.
    pub vector: Vec<f32>,
}
