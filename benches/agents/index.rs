//! Indexes (kind 5931): how fast a real source tree is fetched and read.
//!
//! The tree is this project's own, in a repository on a real git server on loopback. The limits found in the same run are the
//! same files in memory, hashed and parsed with nothing around it, and what `git clone` takes for the same commit.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bitcoin::hashes::{Hash, sha256};
use coinop::executor::Executor;
use coinop::executor::repo_index::RepoIndexExecutor;
use coinop::job::repo_index::{RepoIndexLimits, RepoIndexResult};
use coinop::job::{CustomerId, Input, InputKind, JobKind, JobRequest, Params};
use coinop::repository::{CommitId, Repositories, RepositoryLimits};
use coinop::testing::git_server::GitServer;
use coinop::testing::requests;
use comfy_table::{ContentArrangement, Table, presets};
use tokio_util::sync::CancellationToken;

/// What is indexed, of this project.
const FOLDERS: [&str; 5] = ["src", "tests", "benches", "docs", "nips"];

/// Bounds that none of this reaches.
const LIMITS: RepositoryLimits = RepositoryLimits {
    max_bytes: 256 * 1024 * 1024,
    max_files: 50_000,
    time: Duration::from_secs(120),
    cache_bytes: 1024 * 1024 * 1024,
    allow_private: true,
};

/// For whom everything is fetched here.
const CUSTOMER: CustomerId = CustomerId([1; 32]);

/// A source tree in memory.
struct Tree {
    files: Vec<(PathBuf, Vec<u8>)>,
    bytes: usize,
}

impl Tree {
    fn read(root: &Path) -> Result<Self> {
        let mut tree = Self { files: Vec::new(), bytes: 0 };
        for folder in FOLDERS {
            tree.add(root, Path::new(folder))?;
        }
        ensure!(!tree.files.is_empty(), "the project's sources are not where it was built");
        Ok(tree)
    }

    fn add(&mut self, root: &Path, folder: &Path) -> Result<()> {
        for entry in fs::read_dir(root.join(folder))? {
            let path = folder.join(entry?.file_name());
            if root.join(&path).is_dir() {
                self.add(root, &path)?;
            } else {
                let content = fs::read(root.join(&path))?;
                self.bytes += content.len();
                self.files.push((path, content));
            }
        }
        Ok(())
    }

    fn of_rust(&self) -> Self {
        let is_rust = |(path, _): &&(PathBuf, Vec<u8>)| path.extension().is_some_and(|ending| ending == "rs");
        let files: Vec<_> = self.files.iter().filter(is_rust).cloned().collect();
        Self { bytes: files.iter().map(|(_, content)| content.len()).sum(), files }
    }
}

/// The figures as a table.
struct Figures {
    table: Table,
    files: usize,
    bytes: usize,
}

impl Figures {
    fn new(tree: &Tree) -> Self {
        let mut table = Table::new();
        table.load_preset(presets::ASCII_MARKDOWN).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(["", "files", "time p50", "files/s", "MB/s"]);
        Self { table, files: tree.files.len(), bytes: tree.bytes }
    }

    fn add(&mut self, name: &str, times: &mut [Duration], of: Option<&Tree>) -> Result<()> {
        times.sort_unstable();
        let median = times.get(times.len() / 2).context("nothing was measured")?.as_secs_f64();
        let (files, bytes) = of.map_or((self.files, self.bytes), |tree| (tree.files.len(), tree.bytes));
        let a_second = |amount: usize| amount as f64 / median;
        self.table.add_row([
            name.to_owned(),
            files.to_string(),
            format!("{:.1} ms", median * 1e3),
            format!("{:.0}", a_second(files)),
            format!("{:.1}", a_second(bytes) / 1e6),
        ]);
        Ok(())
    }
}

/// Prints the figures.
pub(crate) async fn measure(quick: bool) -> Result<()> {
    let rounds = if quick { 1 } else { 9 };
    let Some(server) = GitServer::start().await else { return Ok(()) };
    println!("\n## Indexes\n");
    let tree = Tree::read(Path::new(env!("CARGO_MANIFEST_DIR")))?;
    let repository = server.repository("project");
    for (path, content) in &tree.files {
        repository.write(&path.to_string_lossy(), content);
    }
    let commit = repository.commit("the project's own sources");
    let url = server.git_url("project");
    let mut figures = Figures::new(&tree);
    limits(&tree, rounds, &mut figures)?;
    fetching(&url, &commit, rounds, &mut figures).await?;
    indexing(&url, rounds, &mut figures).await?;
    println!("{}", figures.table);
    println!("\nThe tree is {} files of {:.1} MB.", tree.files.len(), tree.bytes as f64 / 1e6);
    Ok(())
}

/// What the machine can do, with nothing around it.
fn limits(tree: &Tree, rounds: usize, figures: &mut Figures) -> Result<()> {
    let mut times = Vec::new();
    for _ in 0..rounds {
        let begun = Instant::now();
        let hashes: Vec<_> = tree.files.iter().map(|(_, content)| sha256::Hash::hash(content)).collect();
        times.push(begun.elapsed());
        ensure!(hashes.len() == tree.files.len());
    }
    figures.add("limit: SHA-256 of the files", &mut times, None)?;
    let rust = tree.of_rust();
    let mut times = Vec::new();
    for _ in 0..rounds {
        let mut parser = tree_sitter::Parser::new();
        parser.set_language(&tree_sitter_rust::LANGUAGE.into())?;
        let begun = Instant::now();
        for (_, content) in &rust.files {
            let parsed = parser.parse(content, None).context("the parser stopped")?;
            ensure!(parsed.root_node().child_count() > 0);
        }
        times.push(begun.elapsed());
    }
    figures.add("limit: tree-sitter on those in Rust", &mut times, Some(&rust))
}

async fn fetching(url: &str, commit: &CommitId, rounds: usize, figures: &mut Figures) -> Result<()> {
    let mut times = Vec::new();
    for _ in 0..rounds {
        let folder = tempfile::tempdir()?;
        let mut clone = Command::new("git");
        clone.args(["clone", "--quiet", "--depth=1", "--no-tags", url]).arg(folder.path().join("clone"));
        clone.stdout(Stdio::null()).stderr(Stdio::null());
        let begun = Instant::now();
        let status = tokio::task::spawn_blocking(move || clone.status()).await??;
        times.push(begun.elapsed());
        ensure!(status.success(), "git does not clone the repository");
    }
    figures.add("limit: git clone --depth 1", &mut times, None)?;
    let mut times = Vec::new();
    for _ in 0..rounds {
        let folder = tempfile::tempdir()?;
        let repositories = Repositories::new(folder.path().to_owned(), LIMITS);
        let begun = Instant::now();
        repositories.snapshot(url, commit, CUSTOMER, &CancellationToken::new()).await?;
        times.push(begun.elapsed());
    }
    figures.add("fetched", &mut times, None)
}

async fn indexing(url: &str, rounds: usize, figures: &mut Figures) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let repositories = Repositories::new(folder.path().to_owned(), LIMITS);
    let limits = RepoIndexLimits { max_result_bytes: 64 * 1024 * 1024, ..RepoIndexLimits::default() };
    let executor = RepoIndexExecutor::new(repositories, None, limits);
    for (name, types) in [
        ("indexed, already fetched: digests", "digests"),
        ("indexed, already fetched: symbols", "symbols"),
        ("indexed, already fetched: all", "symbols,digests,dependencies"),
    ] {
        let prepared = executor.prepare(&request(url, types)).await?;
        // Fetches.
        executor.run(&prepared, None, &CancellationToken::new()).await?;
        let mut times = Vec::new();
        for _ in 0..rounds {
            let begun = Instant::now();
            let outcome = executor.run(&prepared, None, &CancellationToken::new()).await?;
            times.push(begun.elapsed());
            let result: RepoIndexResult = serde_json::from_str(&outcome.content)?;
            ensure!(!result.truncated && result.files_indexed as usize == figures.files, "the index is not whole");
        }
        figures.add(name, &mut times, None)?;
    }
    Ok(())
}

fn request(url: &str, types: &str) -> JobRequest {
    let mut params = Params::default();
    params.push("index_types", vec![types.to_owned()]);
    let repository = Input { data: url.to_owned(), kind: InputKind::Url, relay: None, marker: Some("repo".to_owned()) };
    JobRequest { inputs: vec![repository], params, ..requests::blank(JobKind::RepoIndex) }
}
