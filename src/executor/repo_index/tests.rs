use std::process::Command;

use tempfile::TempDir;

use super::*;
use crate::inference::echo::{EMBEDDING_MODEL_NAME, Echo};
use crate::job::repo_index::SymbolKind;
use crate::job::{Code, Input, InputKind, JobKind, Params};
use crate::repository::RepositoryLimits;
use crate::testing::git_server::{GitRepository, GitServer};
use crate::testing::requests;

const RATES: Rates =
    Rates { base: Msat::sat(5), per_second: Msat::msat(100), per_1k_prompt: Msat::msat(50), ..Rates::FREE };

/// An executor, and the folder its repositories are kept in.
fn executor(limits: RepoIndexLimits, backend: Option<Echo>) -> (RepoIndexExecutor, TempDir) {
    // Another test may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let fetched = RepositoryLimits {
        max_bytes: 4 * 1024 * 1024,
        max_files: 2_000,
        time: Duration::from_secs(60),
        cache_bytes: 64 * 1024 * 1024,
        allow_private: true,
    };
    let repositories = Repositories::new(folder.path().to_owned(), fetched);
    let backend = backend.map(|backend| Arc::new(backend) as Arc<dyn Inference>);
    (RepoIndexExecutor::new(repositories, backend, limits), folder)
}

fn request(url: &str, params: &[(&str, &str)]) -> JobRequest {
    let mut list = Params::default();
    params.iter().for_each(|(key, value)| list.push(key, vec![(*value).to_owned()]));
    let repository = Input { data: url.to_owned(), kind: InputKind::Url, relay: None, marker: Some("repo".to_owned()) };
    JobRequest { inputs: vec![repository], params: list, ..requests::blank(JobKind::RepoIndex) }
}

async fn index(executor: &RepoIndexExecutor, url: &str, params: &[(&str, &str)]) -> (Outcome, RepoIndexResult) {
    let prepared = executor.prepare(&request(url, params)).await.unwrap();
    let outcome = executor.run(&prepared, None, &CancellationToken::new()).await.unwrap();
    let result = serde_json::from_str(&outcome.content).unwrap();
    (outcome, result)
}

fn project(server: &GitServer) -> GitRepository {
    let repository = server.repository("project");
    repository
        .write("src/main.rs", "/// Begins.\nfn main() {\n    println!(\"hi\");\n}\n")
        .write("tools/go.py", "class Tool:\n    def run(self):\n        pass\n")
        .write("Cargo.toml", "[dependencies]\nserde = \"1\"\n")
        .write("package.json", "{ not json")
        .write("image.png", [0x89, b'P', b'N', b'G', 0, 0xff])
        .write("node_modules/x/index.js", "function left() {}\n")
        .write("README.md", "# Project\n\nSays hi to everybody.\n");
    repository
}

#[tokio::test(flavor = "multi_thread")]
async fn all_indexes_of_a_repository_are_made() {
    let Some(server) = GitServer::start().await else { return };
    let repository = project(&server);
    let commit = repository.commit("all of it");
    let (executor, _folder) = executor(RepoIndexLimits::default(), Some(Echo::new().with_embeddings()));
    let (outcome, result) = index(&executor, &server.git_url("project"), &[("index_type", "all")]).await;
    assert_eq!((result.commit.as_str(), result.truncated), (commit.as_str(), false));
    let symbols = result.indexes.symbols.unwrap();
    let names: Vec<_> = symbols.iter().map(|symbol| (symbol.name.as_str(), symbol.kind)).collect();
    let expected = [("main", SymbolKind::Function), ("Tool", SymbolKind::Class), ("run", SymbolKind::Method)];
    assert_eq!(names, expected);
    assert_eq!(symbols[0].documentation.as_deref(), Some("Begins."));
    let digests = result.indexes.digests.unwrap();
    let paths: Vec<_> = digests.iter().map(|digest| digest.path.as_str()).collect();
    let all = ["Cargo.toml", "README.md", "image.png", "package.json", "src/main.rs", "tools/go.py"];
    assert_eq!(paths, all);
    assert_eq!(result.files_indexed, 6);
    assert_eq!(result.bytes_processed, digests.iter().map(|digest| digest.size).sum::<u64>());
    assert_eq!(result.indexes.dependencies.unwrap().len(), 1);
    let embeddings = result.indexes.embeddings.unwrap();
    assert_eq!((embeddings.model.as_str(), embeddings.dimension), (EMBEDDING_MODEL_NAME, 16));
    let main = embeddings.entries.iter().find(|entry| entry.path == "src/main.rs").unwrap();
    assert_eq!((main.lines, main.vector.len(), main.preview.lines().next()), ([1, 4], 16, Some("/// Begins.")));
    assert_eq!(result.errors, ["package.json: not read, it is no valid JSON object"]);
    assert_eq!(u64::from(outcome.usage.prompt_tokens), result.tokens_processed);
    assert!(result.tokens_processed > 0 && outcome.usage.compute.memory_mib == 0);
    assert_eq!(outcome.model.as_deref(), Some(EMBEDDING_MODEL_NAME));
    assert!(outcome.facts.contains(&("tree_sha256".to_owned(), result.tree_sha256)));
}

#[tokio::test(flavor = "multi_thread")]
async fn anybody_can_check_the_hash_of_the_tree() {
    let Some(server) = GitServer::start().await else { return };
    let repository = project(&server);
    repository.write("a b/ü.txt", "odd names\n").write("a-b", "").write("B", "capital");
    repository.commit("all of it");
    let (executor, _folder) = executor(RepoIndexLimits::default(), None);
    let params = [("index_type", "digests"), ("exclude", "nothing")];
    let (_, result) = index(&executor, &server.git_url("project"), &params).await;
    // As the page says.
    let check = "git ls-files -z | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum";
    let checked = Command::new("sh").args(["-c", check]).current_dir(repository.folder()).output().unwrap();
    assert_eq!(String::from_utf8(checked.stdout).unwrap().split(' ').next(), Some(result.tree_sha256.as_str()));
    let digests = result.indexes.digests.unwrap();
    assert_eq!(crate::code::digests::tree_sha256(&digests), result.tree_sha256);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_not_meant_or_too_large_are_left_out() {
    let Some(server) = GitServer::start().await else { return };
    let repository = project(&server);
    repository.write("src/large.rs", "fn f() {}\n".repeat(1_000));
    repository.commit("all of it");
    let (executor, _folder) = executor(RepoIndexLimits::default(), None);
    let url = server.git_url("project");
    let params = [("index_types", "symbols,digests"), ("include", "src/**"), ("max_file_size", "5000")];
    let (_, result) = index(&executor, &url, &params).await;
    assert_eq!(result.errors, ["src/large.rs: left out, it has 10000 bytes and max_file_size is 5000"]);
    assert_eq!((result.indexes.digests.unwrap().len(), result.indexes.symbols.unwrap().len()), (1, 1));
    let params = [("include", "nowhere/**")];
    let (_, result) = index(&executor, &url, &params).await;
    assert_eq!(result.errors, ["no file matches include and exclude"]);
    assert_eq!(result.indexes.symbols.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_would_be_too_large_is_cut_into_a_whole_one_that_says_so() {
    let Some(server) = GitServer::start().await else { return };
    let repository = server.repository("large");
    for n in 0..300 {
        let odd = format!("\u{7f}{n}");
        let functions: String = (0..20).map(|f| format!("/// {odd}\nfn f{f}() {{}}\n")).collect();
        repository.write(&format!("src/file{n}.rs"), functions);
        repository.write(&format!("src/file{n}/package.json"), "{");
    }
    repository.commit("large");
    let limits = RepoIndexLimits { max_result_bytes: 40 * 1024, ..RepoIndexLimits::default() };
    let (executor, _folder) = executor(limits, Some(Echo::new().with_embeddings()));
    let (outcome, result) = index(&executor, &server.git_url("large"), &[("index_type", "all")]).await;
    assert!(outcome.content.len() <= 40 * 1024, "{}", outcome.content.len());
    assert!(result.truncated);
    assert_eq!(result.files_indexed, 600);
    let listed = result.indexes.symbols.unwrap().len();
    assert!(listed > 10);
    let said = format!("symbols: {} more are left out", 6_000 - listed);
    assert!(
        result.errors.iter().any(|line| line.starts_with(&said)) || result.errors.len() > 50,
        "{:?}",
        result.errors
    );
    assert!(result.errors.last().unwrap().ends_with("more problems are not listed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn embeddings_take_no_more_tokens_than_were_quoted() {
    let Some(server) = GitServer::start().await else { return };
    let repository = server.repository("words");
    for n in 0..50 {
        repository.write(&format!("file{n:02}.md"), "one two three four five six seven eight nine ten\n".repeat(20));
    }
    repository.commit("words");
    let limits = RepoIndexLimits { max_tokens: 2_000, ..RepoIndexLimits::default() };
    let (executor, _folder) = executor(limits, Some(Echo::new().with_embeddings()));
    let url = server.git_url("words");
    let prepared = executor.prepare(&request(&url, &[("index_type", "embeddings")])).await.unwrap();
    assert_eq!(prepared.estimate.prompt_tokens, 2_000);
    let outcome = executor.run(&prepared, None, &CancellationToken::new()).await.unwrap();
    let result: RepoIndexResult = serde_json::from_str(&outcome.content).unwrap();
    assert!(outcome.usage.prompt_tokens > 500 && outcome.usage.prompt_tokens <= 2_000, "{:?}", outcome.usage);
    assert!(result.truncated && result.errors[0].contains("the tokens that were quoted for are used"));
    assert!(result.indexes.symbols.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_piece_that_the_model_can_not_read_is_left_out_alone() {
    let Some(server) = GitServer::start().await else { return };
    let repository = server.repository("words");
    repository.write("long.md", "a ".repeat(60)).write("short.md", "few words");
    repository.commit("words");
    let backend = Echo::new().with_embeddings().with_context(50);
    let (executor, _folder) = executor(RepoIndexLimits::default(), Some(backend));
    let (_, result) = index(&executor, &server.git_url("words"), &[("index_type", "embeddings")]).await;
    let entries = result.indexes.embeddings.unwrap().entries;
    assert_eq!(entries.iter().map(|entry| entry.path.as_str()).collect::<Vec<_>>(), ["short.md"]);
    assert_eq!(result.errors, ["long.md, lines 1 to 1: not embedded, the model can't read that much at once"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn embeddings_that_nobody_makes_are_refused_by_name_and_left_out_of_all() {
    let Some(server) = GitServer::start().await else { return };
    project(&server).commit("all of it");
    let url = server.git_url("project");
    let refused = |limits: RepoIndexLimits, backend: Option<Echo>, params: &'static [(&'static str, &'static str)]| {
        let url = url.clone();
        async move {
            let (executor, _folder) = executor(limits, backend);
            executor.prepare(&request(&url, params)).await.unwrap_err()
        }
    };
    let wanted: &[(&str, &str)] = &[("index_type", "embeddings")];
    let off = RepoIndexLimits { embeddings: false, ..RepoIndexLimits::default() };
    for (limits, backend) in [
        (RepoIndexLimits::default(), None),
        (RepoIndexLimits::default(), Some(Echo::new())),
        (off, Some(Echo::new().with_embeddings())),
    ] {
        let refusal = refused(limits, backend, wanted).await;
        assert_eq!(refusal.code, Code::Unsupported);
        assert!(refusal.text.contains("param index_type: embeddings are not offered here"), "{}", refusal.text);
    }
    let other: &[(&str, &str)] = &[("index_type", "all"), ("embedding_model", "gpt")];
    let refusal = refused(RepoIndexLimits::default(), Some(Echo::new().with_embeddings()), other).await;
    assert!(refusal.text.contains("param embedding_model: there is no 'gpt' here; on offer: echo-embed"));
    let (executor, _folder) = executor(RepoIndexLimits::default(), None);
    let (_, result) = index(&executor, &url, &[("index_type", "all")]).await;
    assert!(result.indexes.embeddings.is_none());
    assert_eq!(result.errors[0], "embeddings: not offered by this provider");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_indexed_is_refused_before_it_is_quoted() {
    let Some(server) = GitServer::start().await else { return };
    server.repository("empty");
    project(&server).commit("all of it");
    let (executor, _folder) = executor(RepoIndexLimits::default(), None);
    for (url, params, said) in [
        (server.git_url("missing"), &[][..], "input repo: there is no repository"),
        (server.http_url("private/project"), &[], "input repo: there is no repository"),
        (server.git_url("empty"), &[], "input repo: the repository is empty"),
        (server.git_url("project"), &[("git_ref", "nope")], "param git_ref: the repository has no branch"),
        (server.git_url("project"), &[("git_ref", "abcd")], "param git_ref: a shortened commit"),
        ("file:///etc".to_owned(), &[], "input repo: this is no address"),
        ("git@example.com:a/b".to_owned(), &[], "input repo: this is no address"),
    ] {
        let refusal = executor.prepare(&request(&url, params)).await.unwrap_err();
        assert_eq!(refusal.code, Code::BadRequest, "{url}");
        assert!(refusal.text.contains(said), "{}", refusal.text);
        assert!(!refusal.text.contains("127.0.0.1"), "{}", refusal.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_after_the_quote_says_why() {
    let Some(server) = GitServer::start().await else { return };
    let repository = project(&server);
    repository.commit("all of it");
    let url = server.git_url("project");
    let (executor, _folder) = executor(RepoIndexLimits::default(), None);
    let prepared = executor.prepare(&request(&url, &[])).await.unwrap();
    let cancelled = CancellationToken::new();
    cancelled.cancel();
    assert_eq!(executor.run(&prepared, None, &cancelled).await.unwrap_err().code, Code::Cancelled);
    std::fs::remove_dir_all(repository.folder()).unwrap();
    let failure = executor.run(&prepared, None, &CancellationToken::new()).await.unwrap_err();
    assert_eq!(failure.code, Code::BadRequest);
    assert!(failure.text.starts_with("input repo: there is no repository"), "{}", failure.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_takes_too_long_fails() {
    let Some(server) = GitServer::start().await else { return };
    project(&server).commit("all of it");
    let limits = RepoIndexLimits { time: Duration::ZERO, ..RepoIndexLimits::default() };
    let (executor, _folder) = executor(limits, None);
    let prepared = executor.prepare(&request(&server.git_url("project"), &[])).await.unwrap();
    let failure = executor.run(&prepared, None, &CancellationToken::new()).await.unwrap_err();
    assert_eq!(failure.code, Code::Timeout);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_made_smaller_to_fit_a_bid_but_not_too_small() {
    let Some(server) = GitServer::start().await else { return };
    project(&server).commit("all of it");
    let (executor, _folder) = executor(RepoIndexLimits::default(), Some(Echo::new().with_embeddings()));
    let prepared = executor.prepare(&request(&server.git_url("project"), &[("index_type", "all")])).await.unwrap();
    let price = |prepared: &Prepared| RATES.cost(prepared.estimate.most());
    assert_eq!(price(&prepared), Msat::sat(5 + 30 + 10));
    assert_eq!(executor.within(prepared.clone(), &RATES, Msat::sat(45)), prepared);
    let smaller = executor.within(prepared.clone(), &RATES, Msat::sat(20));
    assert!(price(&smaller) <= Msat::sat(20) && price(&smaller) > Msat::sat(10), "{}", price(&smaller));
    assert_eq!(executor.within(prepared.clone(), &RATES, Msat::sat(5)), prepared);
    let outcome = executor.run(&smaller, None, &CancellationToken::new()).await.unwrap();
    assert!(outcome.content.contains("tree_sha256"));
}

#[test]
fn the_published_schema_fits_what_is_written_and_nothing_else() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let result = |symbols: &str| {
        format!(
            r#"{{"commit": "{}", "tree_sha256": "{}", "indexes": {{"symbols": [{symbols}]}}, "files_indexed": 1,
               "bytes_processed": 1, "tokens_processed": 0, "duration_ms": 1, "truncated": false, "errors": []}}"#,
            "a".repeat(40),
            "b".repeat(64)
        )
    };
    let good = r#"{"name": "f", "kind": "function", "path": "a", "line": 1, "column": 1}"#;
    let matches = |text: &str| schema::matches(&schema, &serde_json::from_str(text).unwrap());
    assert_eq!(matches(&result(good)), Ok(()));
    for bad in [good.replace("function", "lambda"), good.replace("\"line\": 1", "\"line\": 0"), "{}".to_owned()] {
        assert!(matches(&result(&bad)).is_err(), "{bad}");
    }
    // Every kind of symbol that there is stands in it.
    let kinds = schema["$defs"]["symbol"]["properties"]["kind"]["enum"].as_array().unwrap();
    for kind in kinds {
        serde_json::from_value::<SymbolKind>(kind.clone()).unwrap();
    }
    assert_eq!(kinds.len(), 12);
}
