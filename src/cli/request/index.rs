//! `coinop request index`: an index of a repository (kind 5931).

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use super::delivery::{self, Delivery, hand_over};
use super::flow;
use super::folder::OutFile;
use super::options::OrderOptions;
use super::repo::RepoArgs;
use super::wanted::Wanted;
use super::whole;
use crate::cli::{Globals, table};
use crate::job::JobKind;

/// How long an index may take: it is read, not run.
const USUAL_TIME: Duration = Duration::from_secs(600);

/// Errors of an index that are shown.
const MOST_ERRORS: usize = 10;

pub(super) const EXAMPLES: &str = "\
Without --repo the repository in this folder is meant: its remote 'origin', at the commit that is checked out, which has to
be pushed. What was counted goes to standard output; the index itself with --json, or into a folder with --out. With
digests in it the hash of the tree is computed again here and compared.

Examples:
  coinop request index --type symbols,digests --out index
  coinop request index --repo https://example.com/owner/name --ref v1.2 --type dependencies --json | jq .result.indexes
  coinop request index --include 'src/**' --exclude '**/tests/**' --max-file-size 200000";

/// What an index holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum IndexType {
    /// Functions, types and the like, and where they stand
    Symbols,
    /// SHA-256, size and language of every file, and of the whole tree
    Digests,
    /// What the manifests and lock files name
    Dependencies,
    /// Vectors for a search by meaning
    Embeddings,
    /// All of these
    All,
}

impl IndexType {
    const fn word(self) -> &'static str {
        match self {
            Self::Symbols => "symbols",
            Self::Digests => "digests",
            Self::Dependencies => "dependencies",
            Self::Embeddings => "embeddings",
            Self::All => "all",
        }
    }
}

/// What is indexed.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct IndexArgs {
    /// What the index holds, separated by commas (default: symbols)
    #[arg(long = "type", value_name = "TYPES", value_delimiter = ',')]
    types: Vec<IndexType>,
    #[command(flatten)]
    repo: RepoArgs,
    /// Only files that match this pattern, such as 'src/**'; may be given several times
    #[arg(long, value_name = "PATTERN")]
    include: Vec<String>,
    /// No file that matches this pattern; may be given several times
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// No file larger than this
    #[arg(long, value_name = "BYTES")]
    max_file_size: Option<u64>,
    /// Which model makes the vectors
    #[arg(long, value_name = "MODEL")]
    embedding_model: Option<String>,
}

impl IndexArgs {
    fn wanted(&self, globals: &Globals) -> Result<Wanted> {
        let mut wanted = Wanted::of(JobKind::RepoIndex);
        self.repo.add_to(&mut wanted, globals)?;
        self.put_params(&mut wanted);
        Ok(wanted)
    }

    fn put_params(&self, wanted: &mut Wanted) {
        wanted.list("index_type", self.types.iter().map(|kind| kind.word()));
        wanted.list("include", &self.include);
        wanted.list("exclude", &self.exclude);
        wanted.maybe("max_file_size", self.max_file_size);
        wanted.maybe("embedding_model", self.embedding_model.as_ref());
        wanted.time_limit = Some(USUAL_TIME);
    }
}

pub(super) async fn run(args: IndexArgs, options: &OrderOptions, globals: &Globals) -> Result<ExitCode> {
    let wanted = args.wanted(globals)?;
    flow::order(wanted, options, globals, async |bought, config| {
        let whole = whole::of(&bought, config).await;
        let delivery = match serde_json::from_str::<Index>(&whole.text) {
            Ok(index) => deliver(&whole.text, &index, options.out.is_some()),
            Err(problem) => delivery::unreadable(&whole, &problem.to_string()),
        };
        hand_over(&bought, &whole, &delivery, options, globals)
    })
    .await
}

#[derive(serde::Deserialize)]
struct Index {
    commit: String,
    tree_sha256: String,
    indexes: serde_json::Map<String, serde_json::Value>,
    files_indexed: u64,
    bytes_processed: u64,
    errors: Vec<serde_json::Value>,
}

fn deliver(content: &str, index: &Index, is_kept: bool) -> Delivery {
    let mut told = String::new();
    for error in index.errors.iter().take(MOST_ERRORS) {
        told.push_str(&format!("Not indexed: {}\n", error.as_str().unwrap_or_default()));
    }
    if !is_kept {
        told.push_str("The index itself: with --json, or --out FOLDER.\n");
    }
    Delivery {
        result: serde_json::from_str(content).ok(),
        told,
        shown: counts(index),
        files: vec![OutFile::new("result.json", content)],
        ..Delivery::default()
    }
}

fn counts(index: &Index) -> String {
    let mut table = table::new(["", ""]);
    table.add_row(["commit", index.commit.as_str()]);
    table.add_row(["tree sha256", index.tree_sha256.as_str()]);
    table.add_row(["files", &index.files_indexed.to_string()]);
    table.add_row(["bytes", &index.bytes_processed.to_string()]);
    format!("{table}\n")
}
