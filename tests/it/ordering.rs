//! Ordering runs, indexes, patches and reviews with the program itself: what goes out, what is handed over, what is written
//! where, and how it ends. The providers here do as they are told; some of them lie.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bitcoin::hashes::{Hash as _, sha256};
use coinop::blossom::{Blob, Blossom, BlossomConfig};
use coinop::executor::{Executor, Prepared};
use coinop::identity::Signer;
use coinop::inference::TextSink;
use coinop::job::code_review::{Category, Issue, Review, Severity, Stats, TokenCounts, Verdict};
use coinop::job::{
    Canceller, Code, Estimate, Failure, FinishReason, JobKind, JobRequest, Outcome, PaymentState, Rates, Refusal,
    Terms, Usage, WorkState,
};
use coinop::money::Msat;
use coinop::nip90::{Codec, ReadLimits};
use coinop::provider::Offer;
use coinop::testing::blossom_server::{BlossomServer, Manners};
use coinop::testing::market::{MarketBuilder, PATIENCE, TestMarket, within};
use coinop::testing::require;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::buying::{Shopper, ended, err, run, signal};

/// What a job costs.
const PRICE: Msat = Msat::sat(21);

/// Delivers what it was given, and remembers what it was asked for.
struct Canned {
    outcome: Result<Outcome, Failure>,
    asked: Mutex<Vec<JobRequest>>,
}

#[async_trait]
impl Executor for Canned {
    async fn prepare(&self, request: &JobRequest) -> Result<Prepared, Refusal> {
        self.asked.lock().unwrap().push(request.clone());
        Ok(Prepared {
            estimate: Estimate::tokens(0, 0),
            prompt_is_exact: false,
            stream: false,
            rates: None,
            lane: None,
            work: Value::Null,
        })
    }

    async fn run(&self, _: &Prepared, _: Option<TextSink>, _: &CancellationToken) -> Result<Outcome, Failure> {
        self.outcome.clone()
    }
}

impl Canned {
    fn delivering(content: &str, facts: &[(&str, &str)]) -> Arc<Self> {
        let facts = facts.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let outcome = Outcome {
            content: content.to_owned(),
            usage: Usage::NONE,
            finish: FinishReason::Stop,
            model: None,
            parameters: None,
            digest: None,
            facts,
            duration: Duration::from_millis(10),
        };
        Arc::new(Self { outcome: Ok(outcome), asked: Mutex::default() })
    }

    fn failing(failure: Failure) -> Arc<Self> {
        Arc::new(Self { outcome: Err(failure), asked: Mutex::default() })
    }

    /// The only request there was.
    fn asked(&self) -> JobRequest {
        match self.asked.lock().unwrap().as_slice() {
            [request] => request.clone(),
            other => panic!("{} requests came", other.len()),
        }
    }

    /// Its inputs as marker and data.
    fn inputs(&self) -> Vec<(Option<String>, String)> {
        self.asked().inputs.into_iter().map(|input| (input.marker, input.data)).collect()
    }

    /// Its parameters as key and value.
    fn params(&self) -> Vec<(String, String)> {
        self.asked().params.iter().map(|(key, values)| (key.to_owned(), values.join(" "))).collect()
    }
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// A market that sells one kind of work, and somebody who buys there.
async fn market(kind: JobKind, executor: &Arc<Canned>, terms: Terms) -> (TestMarket, Shopper) {
    let market = selling(kind, executor.clone(), terms).start().await;
    let shopper = Shopper::at(&market, "").await;
    (market, shopper)
}

fn selling(kind: JobKind, executor: Arc<dyn Executor>, terms: Terms) -> MarketBuilder {
    let offer = Offer {
        rates: Rates { base: PRICE, ..Rates::default() },
        terms,
        free_per_day: 0,
        hold_for: Offer::hold_for(PATIENCE),
    };
    TestMarket::new().selling(kind, executor, offer)
}

/// `coinop request …` in a folder.
fn command_in(folder: &Path, shopper: &Shopper, args: &[&str]) -> Command {
    let provider = shopper.provider.to_string();
    let mut command = shopper.command(&["request"]);
    command.args(args).args(["--provider", &provider, "--max-cost", "50sat", "--timeout", "2m"]).current_dir(folder);
    command
}

async fn order_in(folder: &Path, shopper: &Shopper, args: &[&str]) -> Output {
    run(command_in(folder, shopper, args)).await
}

async fn order(shopper: &Shopper, args: &[&str]) -> Output {
    order_in(shopper.path(), shopper, args).await
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn hash(content: &[u8]) -> String {
    sha256::Hash::hash(content).to_string()
}

fn read(path: PathBuf) -> String {
    fs::read_to_string(&path).unwrap_or_else(|problem| panic!("{}: {problem}", path.display()))
}

/// A run's result with one command, written by hand as another provider may write it.
fn run_result(exit_code: i64, stdout: &str, stderr: &str, artifacts: &Value) -> String {
    json!({
        "exit_code": exit_code, "stdout": stdout, "stderr": stderr,
        "command_results": [{
            "command": "make test", "exit_code": exit_code, "stdout": stdout, "stderr": stderr,
            "stdout_sha256": hash(stdout.as_bytes()), "stderr_sha256": hash(stderr.as_bytes()),
            "duration_ms": 1200, "timed_out": false
        }],
        "artifacts": artifacts,
        "usage": {"cpu_time_ms": 1, "peak_memory_bytes": 2, "disk_writes_bytes": 3, "network_bytes": 0},
        "env": {"image_digest": "sha256:00", "runtime": "runsc"}
    })
    .to_string()
}

fn artifact(path: &str, content: &[u8]) -> Value {
    json!({"path": path, "sha256": hash(content), "size": content.len(), "data": BASE64_STANDARD.encode(content)})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_ordered_and_everything_of_it_is_written_down() {
    let content = run_result(0, "fine\n", "a warning\n", &json!([artifact("build/app", b"\x7fELF")]));
    let executor = Canned::delivering(&content, &[]);
    let (market, shopper) = market(JobKind::SandboxRun, &executor, Terms::Prepay).await;
    let folder = shopper.path().join("out");
    let args = ["sandbox", "--no-repo", "--cmd", "make test", "--env", "Path=a=b", "--time", "90s"];
    let place = folder.to_str().unwrap().to_owned();
    let bought = order(&shopper, &[&args[..], &["--artifact", "build/app", "--out", &place]].concat()).await;
    assert!(bought.status.success(), "{}", err(&bought));

    assert_eq!(executor.asked().kind, JobKind::SandboxRun);
    assert_eq!(executor.inputs(), []);
    let params = [("cmd_0", "make test"), ("env", "Path=a=b"), ("max_time_secs", "90"), ("artifact_0", "build/app")];
    assert_eq!(executor.params(), pairs(&params));

    assert_eq!(out(&bought), "fine\n");
    for told in ["make test", "1.2 s", "a warning", "the hashes of 1 artifacts", "cost 21 sat"] {
        assert!(err(&bought).contains(told), "{told}: {}", err(&bought));
    }
    assert_eq!(read(folder.join("result.json")), content);
    assert_eq!(read(folder.join("commands/0.stdout")), "fine\n");
    assert_eq!(read(folder.join("commands/0.stderr")), "a warning\n");
    assert_eq!(fs::read(folder.join("artifacts/build/app")).unwrap(), b"\x7fELF");
    let receipt: Value = serde_json::from_str(&read(folder.join("receipt.json"))).unwrap();
    assert_eq!(receipt["payment"]["amount_msat"], 21_000);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs::metadata(folder.join("receipt.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "the proof of a payment is nobody else's");
    }
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_failed_is_a_result_and_its_code_is_passed_on_when_wanted() {
    let executor = Canned::delivering(&run_result(3, "", "2 tests failed", &json!([])), &[]);
    let (market, shopper) = market(JobKind::SandboxRun, &executor, Terms::Free).await;
    let args = ["sandbox", "--no-repo", "--cmd", "make test"];
    let bought = order(&shopper, &args).await;
    assert_eq!(bought.status.code(), Some(0), "{}", err(&bought));
    assert!(err(&bought).contains("2 tests failed"));
    let passed_on = order(&shopper, &[&args[..], &["--exit-code", "--json"]].concat()).await;
    assert_eq!(passed_on.status.code(), Some(3), "{}", err(&passed_on));
    let printed: Value = serde_json::from_str(&out(&passed_on)).unwrap();
    assert_eq!((&printed["result"]["exit_code"], &printed["content"]), (&3.into(), &Value::Null));
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_s_paths_lead_nowhere_else_and_its_lies_are_found_out() {
    let mut other = artifact("other", b"x");
    other["data"] = BASE64_STANDARD.encode(b"y").into();
    let hostile = json!([
        artifact("../escaped", b"x"),
        artifact("/tmp/coinop-escaped", b"x"),
        artifact("a/../../../escaped", b"x"),
        artifact("kept", b"x"),
        other,
    ]);
    let executor = Canned::delivering(&run_result(0, "fine\n", "", &hostile), &[]);
    let (market, shopper) = market(JobKind::SandboxRun, &executor, Terms::Free).await;
    let folder = shopper.path().join("deep/out");
    let bought = order(&shopper, &["sandbox", "--no-repo", "--cmd", "x", "--out", folder.to_str().unwrap()]).await;
    assert_eq!(bought.status.code(), Some(1), "{}", err(&bought));
    assert!(err(&bought).contains("is not what the provider says"), "{}", err(&bought));
    assert_eq!(out(&bought), "fine\n", "it is shown all the same");
    let kept: Vec<String> = fs::read_dir(folder.join("artifacts"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(kept, ["kept"]);
    assert!(!shopper.path().join("deep/escaped").exists() && !shopper.path().join("escaped").exists());
    assert!(!Path::new("/tmp/coinop-escaped").exists());
    market.finish().await;
}

/// A server of files on this machine, and somebody who may upload there.
async fn file_server() -> (BlossomServer, Blossom) {
    let server = BlossomServer::start().await.unwrap();
    let codec = Codec::new(Signer::random(), ReadLimits::default());
    let files = Blossom::new(BlossomConfig::new(server.url()), codec).unwrap();
    (server, files)
}

/// Has files fetched from this machine, too.
fn allow_private(shopper: &Shopper) {
    let config = shopper.path().join("config.toml");
    fs::write(&config, format!("{}[fetch]\nallow_private = true\n", read(config.clone()))).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_no_event_has_room_for_is_fetched_whole_and_compared() {
    let (server, files) = file_server().await;
    let long = "a line of the output\n".repeat(10_000);
    let content = run_result(0, &long, "", &json!([]));
    let executor = Canned::delivering(&content, &[]);
    let market = selling(JobKind::SandboxRun, executor, Terms::Free).files(files).start().await;
    let shopper = Shopper::at(&market, "").await;
    allow_private(&shopper);
    let bought = order(&shopper, &["sandbox", "--no-repo", "--cmd", "make test"]).await;
    assert!(bought.status.success(), "{}", err(&bought));
    assert_eq!(out(&bought), long);
    assert!(err(&bought).contains("the hash of the file that it came as"), "{}", err(&bought));

    server.behave(Manners::KeepsAnother);
    let other = order(&shopper, &["sandbox", "--no-repo", "--cmd", "make test"]).await;
    assert_eq!(other.status.code(), Some(1), "{}", err(&other));
    assert!(err(&other).contains("could not be fetched from there"), "{}", err(&other));
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_on_a_file_server_is_fetched_and_compared() {
    let (_server, files) = file_server().await;
    let Blob { url, sha256, size, .. } = files.upload(b"large".to_vec(), "application/octet-stream").await.unwrap();
    let sealed = files.upload_sealed(b"secret".to_vec()).await.unwrap();
    let seal = sealed.seal.unwrap();
    let opened_by = json!({
        "encryption_algorithm": "aes-gcm", "decryption_key": seal.key, "decryption_nonce": seal.nonce,
        "sha256": sealed.sha256, "size": sealed.size,
    });
    let artifacts = json!([
        {"path": "large", "sha256": sha256, "size": size, "url": url},
        {"path": "another", "sha256": hash(b"another"), "size": 7, "url": url},
        {"path": "sealed", "sha256": hash(b"secret"), "size": 6, "url": sealed.url, "sealed": opened_by},
    ]);
    let executor = Canned::delivering(&run_result(0, "", "", &artifacts), &[]);
    let (market, shopper) = market(JobKind::SandboxRun, &executor, Terms::Free).await;
    let folder = shopper.path().join("out");
    let args = ["sandbox", "--no-repo", "--cmd", "x", "--force", "--out", folder.to_str().unwrap()];
    // A server on this machine is none that strangers may send us to.
    let careful = order(&shopper, &args).await;
    assert_eq!(careful.status.code(), Some(1), "{}", err(&careful));
    assert!(!folder.join("artifacts/large").exists());

    allow_private(&shopper);
    let bought = order(&shopper, &args).await;
    assert_eq!(bought.status.code(), Some(1), "the other file is not what was promised: {}", err(&bought));
    assert_eq!(read(folder.join("artifacts/large")), "large");
    assert_eq!(read(folder.join("artifacts/sealed")), "secret");
    assert!(!folder.join("artifacts/another").exists());
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_job_shows_the_end_of_its_log() {
    let failure =
        Failure::new(Code::BadRequest, "the run did not end as expected").with_log("line 1\nassertion failed\n");
    let executor = Canned::failing(failure);
    let (market, shopper) = market(JobKind::SandboxRun, &executor, Terms::Hold).await;
    let failed = order(&shopper, &["sandbox", "--no-repo", "--cmd", "make test", "--expect-exit", "0"]).await;
    assert_eq!(failed.status.code(), Some(6), "{}", err(&failed));
    for told in ["did not end as expected", "line 1\nassertion failed\n", "nothing was paid"] {
        assert!(err(&failed).contains(told), "{told}: {}", err(&failed));
    }
    market.finish().await;
}

/// Works until it is told to stop.
#[derive(Default)]
struct Endless {
    began: Notify,
}

#[async_trait]
impl Executor for Endless {
    async fn prepare(&self, request: &JobRequest) -> Result<Prepared, Refusal> {
        Canned::delivering("", &[]).prepare(request).await
    }

    async fn run(&self, _: &Prepared, _: Option<TextSink>, cancel: &CancellationToken) -> Result<Outcome, Failure> {
        self.began.notify_one();
        cancel.cancelled().await;
        Err(Failure::new(Code::Cancelled, "told to stop"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_interrupted_while_the_job_runs_is_called_off_and_the_money_is_told_of() {
    for (terms, name, told, payment, credit, state) in [
        (Terms::Hold, "INT", "came back: nothing was paid", PaymentState::Released, Msat::ZERO, "failed"),
        (Terms::Prepay, "INT", "21 sat became credit", PaymentState::Settled, PRICE, "paid"),
        (Terms::Prepay, "TERM", "21 sat became credit", PaymentState::Settled, PRICE, "paid"),
    ] {
        let executor = Arc::new(Endless::default());
        let market = selling(JobKind::SandboxRun, executor.clone(), terms).start().await;
        let shopper = Shopper::at(&market, "").await;
        let args = ["sandbox", "--no-repo", "--cmd", "make test"];
        let ordering = command_in(shopper.path(), &shopper, &args).spawn().unwrap();
        within("the run", executor.began.notified()).await;
        signal(&ordering, name);
        let called_off = ended(ordering).await;
        assert_eq!(called_off.status.code(), Some(130), "{terms}: {}", err(&called_off));
        for told in ["Calling the order off", "cancelled as you asked", told] {
            assert!(err(&called_off).contains(told), "{terms}, {told}: {}", err(&called_off));
        }

        if terms == Terms::Hold {
            market.moments().told_in_all("hold-released", 1).await;
        }
        let store = market.service().provider().store();
        let jobs = store.list_jobs(Default::default()).await.unwrap();
        let [job] = jobs.as_slice() else { panic!("{} jobs", jobs.len()) };
        let ended = (job.work, job.payment, job.cancelled_by);
        assert_eq!(ended, (WorkState::Cancelled, payment, Some(Canceller::Customer)), "{terms}");
        assert_eq!(store.credit(job.customer).await.unwrap(), credit, "{terms}");
        let listed = run(shopper.command(&["payments", "list", "--json"])).await;
        let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
        assert_eq!(listed["payments"][0]["state"], state, "{terms}");
        market.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_wrong_here_is_said_before_anybody_is_asked() {
    let executor = Canned::delivering(&run_result(0, "", "", &json!([])), &[]);
    let (market, shopper) = market(JobKind::SandboxRun, &executor, Terms::Free).await;
    let full = shopper.path().join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("mine"), "mine").unwrap();
    for (args, told) in [
        (vec!["sandbox", "--no-repo", "--cmd", "x", "--out", full.to_str().unwrap()], "is not empty"),
        (vec!["sandbox", "--no-repo", "--cmd", " "], "a command is empty"),
        (vec!["sandbox", "--cmd", "x"], "is in no git repository"),
        (vec!["sandbox", "--cmd", "x", "--repo", "/srv/git/x"], "it is on this machine"),
        (vec!["review"], "no working tree"),
        (vec!["patch", "fix it", "--repo", "https://example.com/a/b", "--apply"], "no working tree"),
        (vec!["hello", "sandbox", "--cmd", "x"], ""),
    ] {
        let refused = order(&shopper, &args).await;
        assert!(matches!(refused.status.code(), Some(1 | 2)), "{args:?}: {}", err(&refused));
        assert!(err(&refused).contains(told) && !err(&refused).contains("Posted"), "{args:?}: {}", err(&refused));
    }
    let (no_file, no_folder) = (full.join("missing"), full.join("mine/below"));
    let (no_file, no_folder) = (no_file.to_str().unwrap(), no_folder.to_str().unwrap());
    let address = "https://example.com/a/b";
    for (args, told) in [
        (vec!["review", "--diff", no_file], "the diff can't be read"),
        (vec!["review", "--diff", full.to_str().unwrap()], "the diff can't be read"),
        (vec!["review", "--repo", address, "--file", "a", "--guidelines", no_file], "the guidelines can't be read"),
        (vec!["patch", "fix it", "--repo", address, "--context", no_file], "the context can't be read"),
        (vec!["sandbox", "--no-repo", "--cmd", "x", "--out", no_folder], "can't be written"),
        (vec!["sandbox", "--no-repo", "--cmd", "x", "--out", "/proc/coinop"], "can't be written"),
        (vec!["sandbox", "--no-repo", "--cmd", "x", "--receipt", no_folder], "can't be written"),
    ] {
        let refused = order(&shopper, &args).await;
        assert_eq!(refused.status.code(), Some(2), "{args:?}: {}", err(&refused));
        assert!(err(&refused).contains(told) && !err(&refused).contains("Posted"), "{args:?}: {}", err(&refused));
    }
    assert_eq!(executor.asked.lock().unwrap().len(), 0);
    market.finish().await;
}

/// Takes the place of a folder while its job is at work.
struct InTheWay {
    result: Arc<Canned>,
    folder: Mutex<PathBuf>,
}

#[async_trait]
impl Executor for InTheWay {
    async fn prepare(&self, request: &JobRequest) -> Result<Prepared, Refusal> {
        self.result.prepare(request).await
    }

    async fn run(
        &self,
        prepared: &Prepared,
        sink: Option<TextSink>,
        cancel: &CancellationToken,
    ) -> Result<Outcome, Failure> {
        fs::write(&*self.folder.lock().unwrap(), "a file").unwrap();
        self.result.run(prepared, sink, cancel).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_can_not_be_written_after_it_was_paid_says_where_it_still_is() {
    let result = Canned::delivering(&run_result(0, "fine\n", "", &json!([])), &[]);
    let executor = Arc::new(InTheWay { result, folder: Mutex::default() });
    let market = selling(JobKind::SandboxRun, executor.clone(), Terms::Prepay).start().await;
    let shopper = Shopper::at(&market, "").await;
    let folder = shopper.path().join("out");
    executor.folder.lock().unwrap().clone_from(&folder);
    let bought = order(&shopper, &["sandbox", "--no-repo", "--cmd", "x", "--out", folder.to_str().unwrap()]).await;
    assert_eq!(bought.status.code(), Some(1), "{}", err(&bought));
    assert_eq!(out(&bought), "fine\n", "it is shown all the same");
    for told in ["can't be made", "on the relays as event", "coinop payments receipt"] {
        assert!(err(&bought).contains(told), "{told}: {}", err(&bought));
    }
    market.finish().await;
}

/// A repository that somebody works in, made by git itself.
struct Repository(TempDir);

impl Repository {
    /// With one commit; `None` where there is no git.
    fn new() -> Option<Self> {
        if Command::new("git").arg("--version").output().is_err() {
            require::skip("git", "install git");
            return None;
        }
        let repository = Self(tempfile::tempdir().unwrap());
        repository.git(&["init", "--quiet", "--initial-branch", "main"]);
        repository.git(&["remote", "add", "origin", "git@example.com:owner/name.git"]);
        fs::write(repository.file("greeting"), "hello\nwrold\n").unwrap();
        repository.git(&["add", "."]);
        repository.git(&["commit", "--quiet", "--message", "begin"]);
        Some(repository)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    fn git(&self, args: &[&str]) -> String {
        let output = Command::new("git")
            .current_dir(self.path())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .args(["-c", "user.name=n", "-c", "user.email=n@example.com"])
            .args(args)
            .output()
            .unwrap();
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

const DIFF: &str = "\
diff --git a/greeting b/greeting
--- a/greeting
+++ b/greeting
@@ -1,2 +1,2 @@
 hello
-wrold
+world
diff --git a/docs/new b/docs/new
new file mode 100644
--- /dev/null
+++ b/docs/new
@@ -0,0 +1 @@
+new
";

#[tokio::test(flavor = "multi_thread")]
async fn a_patch_is_ordered_for_the_commit_here_checked_and_applied() {
    let Some(here) = Repository::new() else { return };
    let commit = here.git(&["rev-parse", "HEAD"]);
    let (patch_hash, facts_commit) = (hash(DIFF.as_bytes()), commit.clone());
    let facts = [("patch_sha256", patch_hash.as_str()), ("commit", &facts_commit), ("test_exit_code", "0")];
    let executor = Canned::delivering(DIFF, &facts);
    let (market, shopper) = market(JobKind::PatchGen, &executor, Terms::Prepay).await;
    let folder = shopper.path().join("out");
    let args = ["patch", "the greeting has a typo", "--test", "make test", "--include", "**", "--apply"];
    let args = [&args[..], &["--out", folder.to_str().unwrap()]].concat();
    let bought = order_in(here.path(), &shopper, &args).await;
    assert!(bought.status.success(), "{}", err(&bought));

    let address = "https://example.com/owner/name.git".to_owned();
    let inputs = [(Some("repo".to_owned()), address), (Some("issue".to_owned()), "the greeting has a typo".to_owned())];
    assert_eq!(executor.inputs(), inputs);
    let params = [("git_ref", commit.as_str()), ("test_command", "make test"), ("include_0", "**")];
    assert_eq!(executor.params(), pairs(&params));

    assert_eq!(out(&bought), DIFF);
    for told in [
        "no branch of the remote is known to have this commit",
        "the hash of the diff",
        "it applies to the commit it was made for",
        "the test command exited with 0",
        "Applied: 2 files changed.",
    ] {
        assert!(err(&bought).contains(told), "{told}: {}", err(&bought));
    }
    assert_eq!(read(here.file("greeting")), "hello\nworld\n");
    assert_eq!(read(here.file("docs/new")), "new\n");
    assert_eq!(here.git(&["status", "--porcelain"]), "M greeting\n?? docs/");
    assert_eq!(read(folder.join("patch.diff")), DIFF);
    let kept: Value = serde_json::from_str(&read(folder.join("result.json"))).unwrap();
    assert_eq!(kept["commit"], commit.as_str());

    // Once more it does not fit: what is here is not what it was made for.
    let again = order_in(here.path(), &shopper, &["patch", "again", "--apply"]).await;
    assert_eq!(again.status.code(), Some(1), "{}", err(&again));
    assert!(err(&again).contains("the patch was not applied"), "{}", err(&again));
    assert_eq!(here.git(&["status", "--porcelain"]), "M greeting\n?? docs/");
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patch_that_is_not_what_it_says_or_reaches_too_far_changes_nothing() {
    let Some(here) = Repository::new() else { return };
    let commit = here.git(&["rev-parse", "HEAD"]);
    let hook = format!(
        "{DIFF}diff --git a/.git/hooks/post-checkout b/.git/hooks/post-checkout\nnew file mode 100755\n--- /dev/null\n+++ b/.git/hooks/post-checkout\n@@ -0,0 +1 @@\n+#!/bin/sh\n"
    );
    let outside = DIFF.replace("docs/new", "../outside");
    let elsewhere = DIFF.replace("-wrold", "-other");
    let right = hash(DIFF.as_bytes());
    for (diff, stated) in [
        (DIFF.to_owned(), hash(b"something else")),
        (hook.clone(), hash(hook.as_bytes())),
        (outside.clone(), hash(outside.as_bytes())),
        (elsewhere.clone(), hash(elsewhere.as_bytes())),
        ("Sorry, I can't do that.".to_owned(), right),
    ] {
        let executor = Canned::delivering(&diff, &[("patch_sha256", &stated), ("commit", &commit)]);
        let (market, shopper) = market(JobKind::PatchGen, &executor, Terms::Free).await;
        let bought = order_in(here.path(), &shopper, &["patch", "fix it", "--apply", "--yes"]).await;
        assert_eq!(bought.status.code(), Some(1), "{diff}: {}", err(&bought));
        assert_eq!(here.git(&["status", "--porcelain"]), "", "{diff}");
        market.finish().await;
    }
    assert!(!here.file(".git/hooks/post-checkout").exists());
    assert!(!here.path().parent().unwrap().join("outside").exists());
}

fn review() -> String {
    let issue = |severity, title: &str, line| Issue {
        path: "greeting".parse().unwrap(),
        line: Some(line),
        end_line: None,
        severity,
        category: Category::Bug,
        title: title.into(),
        description: "what is wrong".into(),
        suggestion: Some("what to do".into()),
    };
    let issues = vec![issue(Severity::Nit, "a trifle", 1), issue(Severity::Critical, "a catastrophe", 2)];
    let review = Review {
        status: Verdict::RequestChanges,
        summary: "It can't stay so.".into(),
        stats: Stats::of(1, 3, &issues),
        issues,
        review_sha256: String::new(),
        model: "m".into(),
        tokens: TokenCounts::default(),
    };
    serde_json::to_string(&review.sealed()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_committed_is_reviewed_and_the_gravest_comes_first() {
    let Some(here) = Repository::new() else { return };
    let executor = Canned::delivering(&review(), &[]);
    let (market, shopper) = market(JobKind::CodeReview, &executor, Terms::Free).await;
    let nothing = order_in(here.path(), &shopper, &["review"]).await;
    assert_eq!(nothing.status.code(), Some(2), "{}", err(&nothing));

    fs::write(here.file("greeting"), "hello\nworld\n").unwrap();
    let rules = shopper.path().join("rules");
    fs::write(&rules, "be brief").unwrap();
    let args = ["review", "--nits", "--focus", "style", "--guidelines", rules.to_str().unwrap()];
    let bought = order_in(here.path(), &shopper, &args).await;
    assert!(bought.status.success(), "{}", err(&bought));
    let inputs = executor.inputs();
    let [(Some(marker), diff)] = inputs.as_slice() else { panic!("{} inputs", inputs.len()) };
    assert_eq!(marker, "diff");
    assert!(diff.contains("-wrold\n+world\n"), "{diff}");
    let params = [("focus_0", "style"), ("guidelines", "be brief"), ("include_nits", "true")];
    assert_eq!(executor.params(), pairs(&params));
    let shown = out(&bought);
    assert!(shown.starts_with("Verdict: changes requested\n"), "{shown}");
    assert!(shown.find("a catastrophe").unwrap() < shown.find("a trifle").unwrap(), "{shown}");
    assert!(shown.contains("greeting:2") && shown.contains("what to do"), "{shown}");
    assert!(err(&bought).contains("the hash of the review"), "{}", err(&bought));
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_review_of_what_was_pushed_names_it_and_sends_nothing() {
    let Some(here) = Repository::new() else { return };
    for (args, marker, params) in [
        (vec!["--base", "main", "--head", "topic"], "repo", vec![("base_ref", "main"), ("head_ref", "topic")]),
        (vec!["--commit", "abc", "--commit", "def"], "repo", vec![("commit_0", "abc"), ("commit_1", "def")]),
        (vec!["--pr", "https://example.com/owner/name.git"], "pr", vec![]),
        (vec!["--ref", "v1", "--file", "greeting"], "repo", vec![("git_ref", "v1"), ("file_0", "greeting")]),
    ] {
        let executor = Canned::delivering(&review().replace("a trifle", "a lie"), &[]);
        let (market, shopper) = market(JobKind::CodeReview, &executor, Terms::Free).await;
        let bought = order_in(here.path(), &shopper, &[&["review"], &args[..]].concat()).await;
        assert_eq!(bought.status.code(), Some(1), "it was changed after it was sealed: {}", err(&bought));
        let address = "https://example.com/owner/name.git".to_owned();
        assert_eq!(executor.inputs(), [(Some(marker.to_owned()), address)], "{args:?}");
        assert_eq!(executor.params(), pairs(&params), "{args:?}");
        market.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_result_of_its_kind_is_shown_as_it_came() {
    let executor = Canned::delivering("I am a teapot\u{1b}[2J", &[]);
    let (market, shopper) = market(JobKind::RepoIndex, &executor, Terms::Free).await;
    let args =
        ["index", "--repo", "https://example.com/owner/name", "--type", "symbols,digests", "--include", "src/**"];
    let bought = order(&shopper, &args).await;
    assert_eq!(bought.status.code(), Some(1), "{}", err(&bought));
    assert!(out(&bought).starts_with("I am a teapot"), "{}", out(&bought));
    let params = [("index_type_0", "symbols"), ("index_type_1", "digests"), ("include_0", "src/**")];
    assert_eq!(executor.params(), pairs(&params));
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_counted_kept_and_its_tree_is_hashed_again() {
    let line = format!("{}  src/lib.rs\n", "a".repeat(64));
    let digests = json!([{"path": "src/lib.rs", "sha256": "a".repeat(64), "size": 10, "lines": 2}]);
    let index = |tree_sha256: &str| {
        json!({
            "commit": "c".repeat(40), "tree_sha256": tree_sha256, "indexes": {"digests": digests},
            "files_indexed": 1, "bytes_processed": 10, "tokens_processed": 0, "duration_ms": 3,
            "errors": ["big.bin: larger than allowed"]
        })
        .to_string()
    };
    let args = ["index", "--repo", "https://example.com/owner/name", "--type", "digests", "--out"];
    for (tree, code) in [(hash(line.as_bytes()), 0), (hash(b"another tree"), 1)] {
        let content = index(&tree);
        let executor = Canned::delivering(&content, &[]);
        let (market, shopper) = market(JobKind::RepoIndex, &executor, Terms::Free).await;
        let folder = shopper.path().join("out");
        let bought = order(&shopper, &[&args[..], &[folder.to_str().unwrap()]].concat()).await;
        assert_eq!(bought.status.code(), Some(code), "{}", err(&bought));
        assert!(out(&bought).contains(&tree) && out(&bought).contains("digests"), "{}", out(&bought));
        assert!(err(&bought).contains("Left out: big.bin: larger than allowed"), "{}", err(&bought));
        assert_eq!(read(folder.join("result.json")), content);
        market.finish().await;
    }
}
