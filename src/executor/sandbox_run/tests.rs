//! Against cells that run nothing but what a test says they do.

use base64::Engine as _;
use bitcoin::hashes::{Hash, sha256};
use serde_json::Value;

use super::*;
use crate::blossom::BlossomConfig;
use crate::identity::Signer;
use crate::job::sandbox_run::{Artifact, CommandEnd, RunResult};
use crate::job::{Encryption, JobKind, Params};
use crate::nip90::{Codec, ReadLimits};
use crate::sandbox::{Command, Ended};
use crate::testing::blossom_server::{BlossomServer, Manners};
use crate::testing::requests;
use crate::testing::scripted_sandbox::{Does, ScriptedSandbox, Workspace};

fn request(params: &[(&str, &str)]) -> JobRequest {
    let mut list = Params::default();
    for (key, value) in params {
        list.push(key, vec![(*value).to_owned()]);
    }
    JobRequest { params: list, ..requests::blank(JobKind::SandboxRun) }
}

/// What a small shell would do.
fn shell(files: &mut Workspace, command: &Command) -> Does {
    let words: Vec<&str> = command.shell.split(' ').collect();
    match words.as_slice() {
        ["echo", rest @ ..] => Does::prints(format!("{}\n", rest.join(" "))),
        ["fail", code] => Does::fails(code.parse().unwrap(), "it does not work\n"),
        ["write", path, bytes] => {
            files.insert(path.parse().unwrap(), vec![b'x'; bytes.parse().unwrap()]);
            Does::nothing()
        }
        ["flood", bytes] => Does::prints(format!("BEGIN{}END", "y".repeat(bytes.parse().unwrap()))),
        ["sleep"] => Does::IsEnded(Ended::TimedOut),
        ["hog"] => Does::IsEnded(Ended::OutOfMemory),
        ["orphan"] => Does::FindsNoCell(Ended::OutOfMemory),
        ["hang"] => Does::Hangs,
        ["break"] => Does::Breaks,
        _ => Does::fails(127, "not found"),
    }
}

fn executor(files: Option<Blossom>) -> (SandboxRunExecutor, ScriptedSandbox) {
    let sandbox = ScriptedSandbox::new(shell);
    let executor =
        SandboxRunExecutor::new(Arc::new(sandbox.clone()), None, files, Runtime::Runsc, SandboxRunLimits::default());
    (executor, sandbox)
}

async fn outcome(executor: &SandboxRunExecutor, request: &JobRequest) -> Result<Outcome, Failure> {
    let mut prepared = executor.prepare(request).await?;
    executor.may_publish(&mut prepared);
    executor.run(&prepared, None, &CancellationToken::new()).await
}

/// Runs, and holds the result against the published schema.
async fn result(executor: &SandboxRunExecutor, request: &JobRequest) -> RunResult {
    let outcome = outcome(executor, request).await.unwrap();
    let json: Value = serde_json::from_str(&outcome.content).unwrap();
    let schema = serde_json::from_str(include_str!("../../../nips/5930.schema.json")).unwrap();
    if let Err(mismatch) = jsonschema::validate(&schema, &json) {
        panic!("{mismatch} in {json:#}");
    }
    serde_json::from_value(json).unwrap()
}

#[tokio::test]
async fn commands_run_in_order_and_the_result_says_what_they_did() {
    let (executor, sandbox) = executor(None);
    let asked = request(&[("cmd_1", "echo two"), ("cmd_0", "echo one"), ("max_memory_mb", "256"), ("image", "large")]);
    let run = result(&executor, &asked).await;
    assert_eq!((run.exit_code, run.stdout.as_str(), run.stderr.as_str()), (0, "two\n", ""));
    assert_eq!(sandbox.commands(), ["echo one", "echo two"]);
    let first = &run.command_results[0];
    assert_eq!((first.command.as_str(), first.stdout.as_str(), first.timed_out), ("echo one", "one\n", false));
    assert_eq!(first.stdout_sha256, sha256::Hash::hash(b"one\n").to_string());
    assert_eq!((run.usage.cpu_time_ms, run.usage.network_bytes), (7, 0));
    assert_eq!(
        (run.env.image_digest.as_str(), run.env.runtime.as_str()),
        (format!("sha256:{}", "b".repeat(64)).as_str(), "runsc")
    );
    let cell = &sandbox.cells()[0];
    assert_eq!((cell.image.as_str(), cell.limits.memory_mib, cell.job.len()), ("large", 256, 64));
    assert_eq!(sandbox.open_cells(), 0);
}

#[tokio::test]
async fn the_receipt_has_the_time_the_memory_and_the_image() {
    let (executor, _) = executor(None);
    let asked = request(&[("cmd", "echo x"), ("max_memory_mb", "256"), ("max_time_secs", "60")]);
    let prepared = executor.prepare(&asked).await.unwrap();
    let wanted = Compute { wall: Duration::from_secs(60), memory_mib: 256 };
    assert_eq!(prepared.estimate, Estimate { compute: wanted, ..Estimate::tokens(0, 0) });
    let outcome = executor.run(&prepared, None, &CancellationToken::new()).await.unwrap();
    assert_eq!(outcome.usage.compute.memory_mib, 256);
    assert!(outcome.usage.compute.wall < Duration::from_secs(60));
    let digest = format!("sha256:{}", "a".repeat(64));
    let facts: Vec<(&str, &str)> = outcome.facts.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(facts, [("exit_code", "0"), ("image_digest", digest.as_str()), ("runtime", "runsc")]);
}

#[tokio::test]
async fn a_command_that_fails_is_a_result_and_the_last_one() {
    let (executor, sandbox) = executor(None);
    let run = result(&executor, &request(&[("cmd_0", "fail 3"), ("cmd_1", "echo never")])).await;
    assert_eq!((run.exit_code, run.stderr.as_str(), run.command_results.len()), (3, "it does not work\n", 1));
    assert_eq!(sandbox.commands(), ["fail 3"]);
}

#[tokio::test]
async fn out_of_time_or_memory_is_a_result_that_says_so() {
    for (command, ended) in [
        ("sleep", CommandEnd::TimedOut),
        ("hog", CommandEnd::OutOfMemory),
        // Something that an earlier command left behind.
        ("orphan", CommandEnd::OutOfMemory),
    ] {
        let (executor, _) = executor(None);
        let run =
            result(&executor, &request(&[("cmd_0", "echo x"), ("cmd_1", command), ("cmd_2", "echo never")])).await;
        let last = run.command_results.last().unwrap();
        assert_eq!((run.exit_code, last.exit_code, last.ended), (137, 137, ended), "{command}");
        assert_eq!(last.timed_out, ended == CommandEnd::TimedOut);
        assert_eq!(last.stdout_sha256, sha256::Hash::hash(b"").to_string());
        assert_eq!(run.command_results.len(), 2);
    }
}

#[tokio::test]
async fn a_flood_is_cut_to_an_event_and_known_by_its_hash() {
    let (executor, _) = executor(None);
    let asked = request(&[("cmd_0", "flood 500000"), ("cmd_1", "flood 700000")]);
    let whole = outcome(&executor, &asked).await.unwrap().content;
    assert!(whole.len() <= SandboxRunLimits::default().result_bytes, "{} bytes", whole.len());
    let run = result(&executor, &asked).await;
    let second = &run.command_results[1];
    assert!(second.stdout.starts_with("BEGIN") && second.stdout.ends_with("END"));
    let all = format!("BEGIN{}END", "y".repeat(700_000));
    assert_eq!(second.stdout_sha256, sha256::Hash::hash(all.as_bytes()).to_string());
}

#[tokio::test]
async fn a_run_that_does_not_end_as_asked_costs_nothing_and_brings_its_log() {
    let (executor, sandbox) = executor(None);
    let asked = request(&[("cmd_0", "echo fine"), ("cmd_1", "fail 2"), ("cmd_2", "echo never"), ("expect_exit", "0")]);
    let failure = outcome(&executor, &asked).await.unwrap_err();
    assert_eq!(failure.code, Code::BadRequest);
    let text = "param expect_exit: the run ended with exit code 2, not with 0 as asked, at command 2 of 3";
    assert!(failure.text.starts_with(text), "{}", failure.text);
    assert_eq!(failure.log, "$ fail 2\nit does not work\n");
    let late = outcome(&executor, &request(&[("cmd", "sleep"), ("expect_exit", "0")])).await.unwrap_err();
    assert_eq!(late.code, Code::Timeout);
    assert!(failure.is_the_customers() && late.is_the_customers());
    assert!(late.text.contains("the run was ended because the time was over"), "{}", late.text);
    assert_eq!(sandbox.open_cells(), 0);
    // A run that fails as it was told to is as good as any.
    let met = request(&[("cmd", "fail 4"), ("expect_exit", "4")]);
    assert_eq!(result(&executor, &met).await.exit_code, 4);
}

#[tokio::test]
async fn the_log_of_a_failure_is_its_end_and_no_result_in_disguise() {
    let (executor, _) = executor(None);
    let asked = request(&[("cmd", "flood 300000"), ("expect_exit", "1")]);
    let log = outcome(&executor, &asked).await.unwrap_err().log;
    assert!(log.len() <= 4 * 1024 + 10 && log.ends_with("END"), "{} bytes", log.len());
}

#[tokio::test]
async fn an_image_that_is_not_there_is_refused_with_those_that_are() {
    let (executor, sandbox) = executor(None);
    let refusal = executor.prepare(&request(&[("cmd", "echo"), ("image", "windows")])).await.unwrap_err();
    assert_eq!(refusal.code, Code::Unsupported);
    assert_eq!(refusal.text, "param image: there is no 'windows' here; on offer: small, large");
    for images in [None, Some(Vec::new())] {
        sandbox.offers(images);
        let refusal = executor.prepare(&request(&[("cmd", "echo"), ("image", "small")])).await.unwrap_err();
        assert_eq!(refusal.code, Code::Backend);
        assert!(refusal.text.starts_with("the sandbox"), "{}", refusal.text);
    }
}

#[tokio::test]
async fn an_image_that_goes_after_the_quote_is_a_failure() {
    let (executor, sandbox) = executor(None);
    let prepared = executor.prepare(&request(&[("cmd", "echo"), ("image", "large")])).await.unwrap();
    sandbox.offers(Some(vec![Image { name: "new".into(), digest: "sha256:1".into() }]));
    let failure = executor.run(&prepared, None, &CancellationToken::new()).await.unwrap_err();
    assert!(failure.text.ends_with("on offer: new"), "{}", failure.text);
}

#[tokio::test]
async fn a_run_is_made_shorter_for_a_bid_unless_its_time_was_asked() {
    let (executor, sandbox) = executor(None);
    let rates = Rates { base: Msat::sat(1), per_second: Msat::sat(1), ..Rates::FREE };
    let time = |bid: u32, params: &[(&str, &str)]| {
        let (executor, asked) = (executor.clone(), request(params));
        async move {
            let prepared = executor.prepare(&asked).await.unwrap();
            executor.within(prepared, &rates, Msat::sat(bid))
        }
    };
    let shorter = time(43, &[("cmd", "echo x")]).await;
    assert_eq!(shorter.estimate.compute.wall, Duration::from_secs(42));
    assert_eq!(rates.cost(shorter.estimate.most()), Msat::sat(43));
    executor.run(&shorter, None, &CancellationToken::new()).await.unwrap();
    assert_eq!(sandbox.cells()[0].limits.time, Duration::from_secs(42 + 30));
    assert_eq!(time(43, &[("cmd", "echo x"), ("max_time_secs", "60")]).await.estimate.compute.wall.as_secs(), 60);
    assert_eq!(time(9, &[("cmd", "echo x")]).await.estimate.compute.wall.as_secs(), 300);
    assert_eq!(time(11, &[("cmd", "echo x")]).await.estimate.compute.wall.as_secs(), 10);
    assert_eq!(time(9_999, &[("cmd", "echo x")]).await.estimate.compute.wall.as_secs(), 300);
}

#[tokio::test]
async fn a_cancelled_run_ends_and_leaves_no_cell() {
    let (executor, sandbox) = executor(None);
    let prepared = executor.prepare(&request(&[("cmd", "hang")])).await.unwrap();
    let cancel = CancellationToken::new();
    let (done, ()) = tokio::join!(executor.run(&prepared, None, &cancel), async {
        sandbox.begun(1).await;
        assert_eq!(sandbox.open_cells(), 1);
        cancel.cancel();
    });
    assert_eq!((done.unwrap_err().code, sandbox.open_cells()), (Code::Cancelled, 0));
}

#[tokio::test]
async fn a_run_that_is_no_longer_waited_for_leaves_no_cell() {
    let (executor, sandbox) = executor(None);
    let prepared = executor.prepare(&request(&[("cmd", "hang")])).await.unwrap();
    let cancel = CancellationToken::new();
    tokio::select! {
        _ = executor.run(&prepared, None, &cancel) => panic!("it hangs"),
        () = sandbox.begun(1) => {}
    }
    sandbox.is_empty().await;
}

#[tokio::test]
async fn an_engine_that_fails_is_our_failure_and_says_nothing_of_itself() {
    let (executor, sandbox) = executor(None);
    let failure = outcome(&executor, &request(&[("cmd", "break")])).await.unwrap_err();
    assert_eq!((failure.code, failure.text.as_str()), (Code::Backend, "the sandbox failed; please try again"));
    assert_eq!(sandbox.open_cells(), 0);
    let unreadable = Prepared { work: Value::Null, ..executor.prepare(&request(&[("cmd", "break")])).await.unwrap() };
    let failure = executor.run(&unreadable, None, &CancellationToken::new()).await.unwrap_err();
    assert_eq!(failure.code, Code::Backend);
}

#[tokio::test]
async fn a_repository_where_none_are_fetched_is_refused() {
    let (executor, _) = executor(None);
    let mut asked = request(&[("cmd", "echo")]);
    let repository = crate::job::Input {
        data: "https://git.example/r".into(),
        kind: crate::job::InputKind::Url,
        relay: None,
        marker: Some("repo".into()),
    };
    asked.inputs.push(repository);
    assert_eq!(executor.prepare(&asked).await.unwrap_err().code, Code::Unsupported);
}

#[test]
fn as_many_runs_as_there_are_places() {
    let sandbox = ScriptedSandbox::with_room(3, |_, _| Does::nothing());
    let executor = SandboxRunExecutor::new(Arc::new(sandbox), None, None, Runtime::Runsc, SandboxRunLimits::default());
    assert_eq!(executor.room(None), 3);
}

fn files_of(run: &RunResult) -> Vec<(&str, u64)> {
    run.artifacts.iter().map(|file| (file.path.as_str(), file.size)).collect()
}

fn content(file: &Artifact) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD.decode(file.data.as_ref().unwrap()).unwrap()
}

#[tokio::test]
async fn files_and_folders_come_back_and_what_is_not_there_is_said() {
    let (executor, _) = executor(None);
    let run = result(
        &executor,
        &request(&[
            ("cmd_0", "write out/a.txt 10"),
            ("cmd_1", "write out/b/c.bin 20"),
            ("cmd_2", "write report.txt 30"),
            ("artifact_0", "report.txt"),
            ("artifact_1", "nothing.txt"),
            ("artifact_2", "out"),
            ("artifact_3", "out/b"),
            ("artifact_4", "out/b/c.bin"),
        ]),
    )
    .await;
    let c = ("out/b/c.bin", 20);
    assert_eq!(files_of(&run), [("report.txt", 30), ("out/a.txt", 10), c, c, c]);
    assert_eq!(content(&run.artifacts[0]), vec![b'x'; 30]);
    assert_eq!(run.artifacts[0].sha256, sha256::Hash::hash(&[b'x'; 30]).to_string());
    let missing: Vec<_> = run.missing_artifacts.iter().map(|file| (file.path.as_str(), file.why.as_str())).collect();
    assert_eq!(missing, [("nothing.txt", "there is no such file or folder")]);
}

#[tokio::test]
async fn files_of_a_run_that_failed_come_back_too() {
    let (executor, _) = executor(None);
    let asked = request(&[("cmd_0", "write log 5"), ("cmd_1", "fail 1"), ("artifact", "log")]);
    assert_eq!(files_of(&result(&executor, &asked).await), [("log", 5)]);
}

#[tokio::test]
async fn a_file_the_result_has_no_room_for_is_named_with_its_hash() {
    let (executor, _) = executor(None);
    let run = result(&executor, &request(&[("cmd", "write big 100000"), ("artifact", "big")])).await;
    let file = &run.artifacts[0];
    assert_eq!(file.sha256, sha256::Hash::hash(&[b'x'; 100_000]).to_string());
    assert_eq!((&file.url, &file.data), (&None, &None));
    assert_eq!(file.why.as_deref(), Some("the result has no room for it"));
}

#[tokio::test]
async fn more_than_is_returned_is_said_and_nothing_is_lost_silently() {
    let sandbox = ScriptedSandbox::new(shell);
    let limits = SandboxRunLimits { max_artifact_bytes: 50, max_artifact_files: 2, ..SandboxRunLimits::default() };
    let executor = SandboxRunExecutor::new(Arc::new(sandbox), None, None, Runtime::Runc, limits);
    let run = result(
        &executor,
        &request(&[
            ("cmd_0", "write out/a 20"),
            ("cmd_1", "write out/b 40"),
            ("cmd_2", "write out/c 20"),
            ("cmd_3", "write out/d 1"),
            ("cmd_4", "write huge 1000000"),
            ("artifact_0", "out"),
            ("artifact_1", "huge"),
        ]),
    )
    .await;
    assert_eq!(files_of(&run), [("out/a", 20), ("out/c", 20)]);
    let missing: Vec<_> = run.missing_artifacts.iter().map(|file| (file.path.as_str(), file.why.as_str())).collect();
    let bytes = "what is returned has at most 50 bytes in all";
    assert_eq!(missing, [("huge", bytes), ("out/b", bytes), ("out/d", "at most 2 files are returned")]);
}

async fn with_server() -> (SandboxRunExecutor, BlossomServer) {
    let server = BlossomServer::start().await.unwrap();
    let codec = Codec::new(Signer::random(), ReadLimits::default());
    let files = Blossom::new(BlossomConfig::new(server.url()), codec).unwrap();
    (executor(Some(files)).0, server)
}

#[tokio::test]
async fn a_large_file_is_put_on_the_server_of_files() {
    let (executor, server) = with_server().await;
    let asked = request(&[
        ("cmd_0", "write big 100000"),
        ("cmd_1", "write small 5"),
        ("artifact_0", "big"),
        ("artifact_1", "small"),
    ]);
    let run = result(&executor, &asked).await;
    let big = &run.artifacts[0];
    assert_eq!(server.files()[&big.sha256], vec![b'x'; 100_000]);
    assert!(big.url.as_ref().unwrap().starts_with(server.url().as_str()));
    assert_eq!(content(&run.artifacts[1]), b"xxxxx");
    assert_eq!(server.files().len(), 1);
}

#[tokio::test]
async fn a_server_that_refuses_does_not_fail_the_run() {
    let (executor, server) = with_server().await;
    server.behave(Manners::Refuses(413));
    let run = result(&executor, &request(&[("cmd", "write big 100000"), ("artifact", "big")])).await;
    let why = run.artifacts[0].why.as_deref().unwrap();
    assert_eq!(why, "it could not be uploaded, and the result has no room for it");
}

#[tokio::test]
async fn a_server_that_is_gone_is_waited_for_once_whatever_the_number_of_files() {
    let (executor, server) = with_server().await;
    server.behave(Manners::Refuses(503));
    let files = ["a", "b", "c"].map(|name| format!("write {name} 9000"));
    let mut asked = vec![("artifact_0", "a"), ("artifact_1", "b"), ("artifact_2", "c")];
    asked.extend([("cmd_0", files[0].as_str()), ("cmd_1", files[1].as_str()), ("cmd_2", files[2].as_str())]);
    let run = result(&executor, &request(&asked)).await;
    assert!(run.artifacts.iter().all(|file| file.why.as_ref().unwrap().starts_with("it could not be uploaded")));
    assert_eq!(server.uploads(), 3, "as often as one file is tried");
}

#[tokio::test]
async fn what_is_sold_or_asked_in_confidence_is_sealed_before_it_is_put_there() {
    let (executor, server) = with_server().await;
    let asked = request(&[("cmd", "write big 100000"), ("artifact", "big")]);
    let unpaid = executor.run(&executor.prepare(&asked).await.unwrap(), None, &CancellationToken::new()).await.unwrap();
    let private = JobRequest { encryption: Some(Encryption::Nip44), ..asked };
    for run in [serde_json::from_str(&unpaid.content).unwrap(), result(&executor, &private).await] {
        let Artifact { sha256, size, url, sealed, .. } = &run.artifacts[0];
        let sealed = sealed.as_ref().unwrap();
        assert_eq!((*size, sealed.size), (100_000, 100_016));
        assert!(!server.files().contains_key(sha256));
        assert!(!server.files()[&sealed.sha256].windows(9).any(|bytes| bytes == b"xxxxxxxxx"));
        assert!(url.as_ref().unwrap().ends_with(&sealed.sha256));
    }
    assert_eq!(server.uploads(), 2);
}
