//! Indexes (kind 5931): how fast a real source tree, this project's own, is fetched and indexed. The limits found in the same
//! run are the same bytes hashed, and the same files parsed, with nothing around it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bitcoin::hashes::{Hash as _, sha256};
use coinop::executor::Executor;
use coinop::executor::repo_index::RepoIndexExecutor;
use coinop::job::repo_index::RepoIndexLimits;
use coinop::job::{CustomerId, Input, InputKind, JobId, JobKind, JobRequest, Params};
use coinop::repository::{Repositories, RepositoryLimits};
use coinop::testing::git_server::GitServer;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

/// Folders of this project that hold sources.
const FOLDERS: [&str; 4] = ["src", "tests", "benches", "docs"];

/// Prints the figures.
pub(crate) async fn measure(quick: bool) -> Result<()> {
    let Some(server) = GitServer::start().await else { return Ok(()) };
    let files = own_sources()?;
    let repository = server.repository("own");
    for (path, content) in &files {
        repository.write(path, content);
    }
    repository.commit("sources");
    let bytes: usize = files.iter().map(|(_, content)| content.len()).sum();
    println!("\n## Indexes of {} files, {:.1} MB\n", files.len(), megabytes(bytes));

    let folder = tempfile::tempdir()?;
    let limits = RepositoryLimits {
        max_bytes: 256 << 20,
        max_files: 50_000,
        time: Duration::from_secs(120),
        cache_bytes: 1 << 30,
        allow_private: true,
    };
    let repositories = Repositories::new(folder.path().to_owned(), limits);
    let executor = RepoIndexExecutor::new(repositories.clone(), None, RepoIndexLimits::default());
    let url = server.git_url("own");

    println!("| what | time | MB/s | files/s |\n|---|---|---|---|");
    let row = |what: &str, took: Duration| {
        let seconds = took.as_secs_f64().max(1e-9);
        let (speed, rate) = (megabytes(bytes) / seconds, files.len() as f64 / seconds);
        println!("| {what} | {:.0} ms | {speed:.1} | {rate:.0} |", seconds * 1e3);
    };
    let hashing = best(rounds(quick), || {
        for (_, content) in &files {
            std::hint::black_box(sha256::Hash::hash(content));
        }
    });
    row("bare SHA-256", hashing);
    let rust: Vec<&Vec<u8>> =
        files.iter().filter(|(path, _)| path.ends_with(".rs")).map(|(_, content)| content).collect();
    let mut parser = tree_sitter::Parser::new();
    parser.set_language(&tree_sitter_rust::LANGUAGE.into()).context("the grammar is of another tree-sitter")?;
    let parsing = best(rounds(quick), || {
        for content in &rust {
            std::hint::black_box(parser.parse(content, None));
        }
    });
    row("bare tree-sitter parse of the Rust files", parsing);

    let begun = Instant::now();
    let commit = repositories.resolve(&url, None).await?;
    repositories.snapshot(&url, &commit, &CancellationToken::new()).await?;
    row("fetched over git, for the first time", begun.elapsed());
    for (what, types) in [
        ("digests", vec!["digests"]),
        ("symbols, digests and dependencies", vec!["symbols", "digests", "dependencies"]),
    ] {
        let mut times = Vec::new();
        for _ in 0..rounds(quick) {
            let request = request(&url, &types);
            let prepared = executor.prepare(&request).await?;
            let begun = Instant::now();
            let outcome = executor.run(&prepared, None, &CancellationToken::new()).await?;
            times.push(begun.elapsed());
            let result: serde_json::Value = serde_json::from_str(&outcome.content)?;
            let indexed = result["files_indexed"].as_u64().unwrap_or_default();
            ensure!(indexed == files.len() as u64, "{indexed} of {} files were indexed", files.len());
        }
        row(&format!("a whole job: {what}"), times.into_iter().min().unwrap_or_default());
    }
    Ok(())
}

const fn rounds(quick: bool) -> usize {
    if quick { 1 } else { 5 }
}

/// The best of some tries: what the machine can do when nobody disturbs it.
fn best(rounds: usize, mut work: impl FnMut()) -> Duration {
    let once = |_| {
        let begun = Instant::now();
        work();
        begun.elapsed()
    };
    (0..rounds).map(once).min().unwrap_or_default()
}

fn megabytes(bytes: usize) -> f64 {
    bytes as f64 / 1e6
}

fn request(url: &str, types: &[&str]) -> JobRequest {
    let mut params = Params::default();
    for (at, kind) in types.iter().enumerate() {
        params.push(&format!("index_type_{at}"), vec![(*kind).to_owned()]);
    }
    JobRequest {
        id: JobId([7; 32]),
        customer: CustomerId([2; 32]),
        kind: JobKind::RepoIndex,
        created_at: Timestamp::UNIX_EPOCH,
        expires_at: None,
        inputs: vec![Input {
            data: url.to_owned(),
            kind: InputKind::Url,
            relay: None,
            marker: Some("repo".to_owned()),
        }],
        params,
        output: None,
        bid: None,
        addressed: true,
        relays: Vec::new(),
        encryption: None,
        event_json: String::new(),
    }
}

/// The files of this project, by their paths.
fn own_sources() -> Result<Vec<(String, Vec<u8>)>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders: Vec<PathBuf> = FOLDERS.iter().map(|folder| root.join(folder)).collect();
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("{} can't be read", folder.display()))? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "md") {
                let name = path.strip_prefix(root).context("it lies in the project")?.to_string_lossy().into_owned();
                files.push((name, fs::read(&path)?));
            }
        }
    }
    files.sort();
    Ok(files)
}
