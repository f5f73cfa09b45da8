//! `coinop request index`: an index of a repository (kind 5931).

use std::process::ExitCode;

use anyhow::Result;

use super::delivery::{self, Check, Delivery, hand_over};
use super::flow;
use super::folder::OutFile;
use super::options::OrderOptions;
use super::repo::RepoArgs;
use super::wanted::Wanted;
use super::whole;
use crate::cli::{Globals, table};
use crate::code::digests;
use crate::job::JobKind;
use crate::job::repo_index::{RepoIndexLimits, RepoIndexResult};

/// Errors of an index that are shown.
const MOST_ERRORS: usize = 10;

/// Characters of a stranger's word in a line.
const MOST_SHOWN: usize = 200;

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
        wanted.time_limit = Some(RepoIndexLimits::default().time);
    }
}

pub(super) async fn run(args: IndexArgs, options: &OrderOptions, globals: &Globals) -> Result<ExitCode> {
    let wanted = args.wanted(globals)?;
    flow::order(wanted, options, globals, async |bought, config| {
        let whole = whole::of(&bought, config).await;
        let delivery = match serde_json::from_str::<RepoIndexResult>(&whole.text) {
            Ok(index) => deliver(&whole.text, &index, options.out.is_some()),
            Err(problem) => delivery::unreadable(&whole, &problem.to_string()),
        };
        hand_over(&bought, &whole, &delivery, options, globals)
    })
    .await
}

fn deliver(content: &str, index: &RepoIndexResult, is_kept: bool) -> Delivery {
    let mut told = String::new();
    for error in index.errors.iter().take(MOST_ERRORS) {
        told.push_str(&format!("Left out: {}\n", error.replace(char::is_control, " ")));
    }
    match index.errors.len() {
        more if more > MOST_ERRORS => told.push_str(&format!("… and {} more.\n", more - MOST_ERRORS)),
        _ => {}
    }
    if !is_kept {
        told.push_str("The index itself: with --json, or --out FOLDER.\n");
    }
    Delivery {
        result: serde_json::from_str(content).ok(),
        told,
        shown: counts(index),
        files: vec![OutFile::new("result.json", content)],
        checks: tree_hash(index).into_iter().collect(),
        ..Delivery::default()
    }
}

/// Whether the hash of the tree is that of the digests, where those are asked for.
fn tree_hash(index: &RepoIndexResult) -> Option<Check> {
    let digests = index.indexes.digests.as_ref()?;
    let holds = digests::tree_sha256(digests) == index.tree_sha256.to_ascii_lowercase();
    Some(match (holds, index.truncated) {
        (true, _) => Check::of("the hash of the tree, from its digests", true),
        (false, true) => Check::open("the hash of the tree: not all digests are here"),
        (false, false) => Check::of("the tree has another hash than its digests give", false),
    })
}

fn counts(index: &RepoIndexResult) -> String {
    let mut table = table::new(["", ""]);
    let word = |text: &str| text.chars().filter(|c| !c.is_control()).take(MOST_SHOWN).collect::<String>();
    table.add_row(["commit".to_owned(), word(&index.commit)]);
    table.add_row(["tree sha256".to_owned(), word(&index.tree_sha256)]);
    let indexes = &index.indexes;
    let counted = [
        ("files", Some(index.files_indexed)),
        ("bytes", Some(index.bytes_processed)),
        ("symbols", indexes.symbols.as_ref().map(|symbols| symbols.len() as u64)),
        ("digests", indexes.digests.as_ref().map(|digests| digests.len() as u64)),
        ("dependencies", indexes.dependencies.as_ref().map(|dependencies| dependencies.len() as u64)),
        ("embeddings", indexes.embeddings.as_ref().map(|embeddings| embeddings.entries.len() as u64)),
    ];
    for (name, count) in counted.into_iter().filter_map(|(name, count)| Some((name, count?))) {
        table.add_row([name.to_owned(), count.to_string()]);
    }
    format!("{table}\n")
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::job::repo_index::{FileDigest, Indexes, RepoIndex, Wanted as Embeddings};

    #[derive(clap::Parser)]
    struct Typed {
        #[command(flatten)]
        args: IndexArgs,
    }

    fn result() -> RepoIndexResult {
        let digest =
            |path: &str| FileDigest { path: path.into(), sha256: "a".repeat(64), size: 1, language: None, lines: 1 };
        let digests = vec![digest("b"), digest("a")];
        RepoIndexResult {
            commit: "c".repeat(40),
            tree_sha256: digests::tree_sha256(&digests),
            indexes: Indexes { digests: Some(digests), ..Indexes::default() },
            files_indexed: 2,
            bytes_processed: 2,
            tokens_processed: 0,
            duration_ms: 5,
            truncated: false,
            errors: vec!["x: too\nlarge".into()],
        }
    }

    #[test]
    fn an_index_is_read_by_the_provider_as_it_was_meant() {
        let words = ["index", "--repo", "https://example.com/a/b", "--type", "digests,embeddings", "--ref", "v1"];
        let more = ["--include", "src/**", "--exclude", "**/gen/**", "--max-file-size", "1000"];
        let args = Typed::parse_from(words.into_iter().chain(more)).args;
        let wanted = args.wanted(&Globals { quiet: true, ..Globals::default() }).unwrap();
        let read = wanted.read_with(|request| RepoIndex::parse(request, &RepoIndexLimits::default())).unwrap();
        assert_eq!(read.repository.reference.as_deref(), Some("v1"));
        assert_eq!((read.types.symbols, read.types.digests, read.types.embeddings), (false, true, Embeddings::Yes));
        assert_eq!((read.max_file_bytes, read.include[0].as_str()), (1_000, "src/**"));
    }

    #[test]
    fn the_hash_of_the_tree_is_computed_again() {
        let good = result();
        assert_eq!(tree_hash(&good), Some(Check::of("the hash of the tree, from its digests", true)));
        let mut lie = result();
        lie.tree_sha256 = "b".repeat(64);
        assert_eq!(tree_hash(&lie).unwrap(), Check::of("the tree has another hash than its digests give", false));
        lie.truncated = true;
        assert_eq!(tree_hash(&lie).unwrap(), Check::open("the hash of the tree: not all digests are here"));
        lie.indexes.digests = None;
        assert_eq!(tree_hash(&lie), None);
    }

    #[test]
    fn what_was_counted_is_shown_and_what_was_left_out_is_said() {
        let delivery = deliver("{}", &result(), false);
        assert!(delivery.shown.contains("digests") && !delivery.shown.contains("symbols"), "{}", delivery.shown);
        assert!(
            delivery.told.contains("Left out: x: too large\n") && delivery.told.contains("--out"),
            "{}",
            delivery.told
        );
    }
}
