use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bitcoin::hashes::{Hash, sha256};
use futures::FutureExt;

use super::*;
use crate::agent::{Capacity, ModelWorker, Task, WorkError, Worked};
use crate::job::patch_gen::PatchFacts;
use crate::job::{CustomerId, Input, InputKind, JobKind, Params};
use crate::repository::RepositoryLimits;
use crate::sandbox::{Cell, Command, Ended};
use crate::testing::git_server::GitServer;
use crate::testing::scripted_model::{MODEL_NAME, Says, ScriptedModel};
use crate::testing::scripted_sandbox::{Does, ScriptedSandbox, Workspace};

/// A repository on a server, and who fetches from it.
struct World {
    server: GitServer,
    commit: CommitId,
    folder: tempfile::TempDir,
}

impl World {
    async fn new() -> Option<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let server = GitServer::start().await?;
        let commit = server.repository("r").write("a.c", "int a;\n").write("notes", "x\n").commit("first");
        Some(Self { server, commit, folder: tempfile::tempdir().unwrap() })
    }

    fn executor(&self, sandbox: &ScriptedSandbox, worker: impl Worker) -> PatchGenExecutor {
        let limits = RepositoryLimits {
            max_bytes: 1_000_000,
            max_files: 100,
            time: Duration::from_secs(30),
            cache_bytes: 1_000_000,
            allow_private: true,
        };
        let repositories = Repositories::new(self.folder.path().join("cache"), limits);
        let sandbox = Arc::new(sandbox.clone());
        let limits = PatchGenLimits { steps: 5, ..PatchGenLimits::default() };
        PatchGenExecutor::new(sandbox, repositories, Arc::new(worker), Runtime::Runsc, limits)
            .with_transcripts(Transcripts::new(self.folder.path().join("transcripts")))
    }

    fn request(&self, params: &[(&str, &str)]) -> JobRequest {
        let mut list = Params::default();
        for (key, value) in params {
            list.push(key, vec![(*value).to_owned()]);
        }
        let input = |data: &str, kind, marker: &str| Input {
            data: data.into(),
            kind,
            relay: None,
            marker: Some(marker.into()),
        };
        JobRequest {
            id: JobId([1; 32]),
            customer: CustomerId([2; 32]),
            kind: JobKind::PatchGen,
            created_at: jiff::Timestamp::UNIX_EPOCH,
            expires_at: None,
            inputs: vec![
                input(&self.server.http_url("r"), InputKind::Url, "repo"),
                input("a should be b", InputKind::Text, "issue"),
            ],
            params: list,
            output: None,
            bid: None,
            addressed: true,
            relays: Vec::new(),
            encryption: None,
            event_json: String::new(),
        }
    }
}

fn path(text: &str) -> crate::job::RelativePath {
    text.parse().unwrap()
}

/// What a command means in these tests.
fn does(files: &mut Workspace, command: &Command) -> Does {
    let shell = &command.shell;
    if shell.contains("git init") {
        Does::nothing()
    } else if shell.starts_with("git apply") {
        // A fresh checkout, and the patch.
        assert_eq!(files[&path("a.c")], b"int a;\n");
        assert_eq!(files.len(), 3);
        Does::nothing()
    } else if shell.contains("fix it") {
        files.insert(path("a.c"), b"int b;\n".to_vec());
        Does::nothing()
    } else if shell.contains("break out") {
        files.insert(path(".GIT/hooks/x"), b"#!/bin/sh\n".to_vec());
        Does::nothing()
    } else if shell.contains("eat memory") {
        Does::IsEnded(Ended::OutOfMemory)
    } else if shell == "make test" {
        Does::prints("all good\n")
    } else if shell == "make fail" {
        Does::fails(2, "1 test failed\n")
    } else if shell == "make endless" {
        Does::IsEnded(Ended::TimedOut)
    } else if shell == "make hang" {
        Does::Hangs
    } else {
        Does::prints("?")
    }
}

fn run(command: &str) -> Says {
    format!("```sh\n{command}\n```").into()
}

fn fixes() -> ScriptedModel {
    ScriptedModel::new(|_, place| if place == 0 { run("fix it") } else { "SUBMIT".into() })
}

async fn outcome(executor: &PatchGenExecutor, request: &JobRequest) -> Result<Outcome, Failure> {
    let prepared = executor.prepare(request).await?;
    executor.run(&prepared, None, &CancellationToken::new()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patch_is_made_in_one_cell_and_holds_good_in_another() {
    let Some(world) = World::new().await else { return };
    let sandbox = ScriptedSandbox::new(does);
    let executor = world.executor(&sandbox, ModelWorker::new(Arc::new(fixes())));
    let outcome = outcome(&executor, &world.request(&[("test_command", "make test")])).await.unwrap();
    assert!(outcome.content.contains("-int a;\n+int b;\n"), "{}", outcome.content);
    let facts = PatchFacts::read(&outcome.facts);
    let kept =
        std::fs::read(world.folder.path().join("transcripts").join(format!("{}.jsonl", JobId([1; 32])))).unwrap();
    let expected = PatchFacts {
        patch_sha256: sha256::Hash::hash(outcome.content.as_bytes()).to_string(),
        commit: world.commit.to_string(),
        applies_cleanly: true,
        test_exit_code: Some(0),
        files_changed: 1,
        lines_added: 1,
        lines_removed: 1,
        model: Some(MODEL_NAME.into()),
        steps: 1,
        transcript_sha256: Some(sha256::Hash::hash(&kept).to_string()),
        image_digest: Some(format!("sha256:{}", "a".repeat(64))),
        runtime: Some("runsc".into()),
    };
    assert_eq!(facts, expected);
    assert_eq!((sandbox.cells().len(), sandbox.open_cells()), (2, 0));
    assert!(outcome.usage.prompt_tokens > 0 && outcome.usage.compute.memory_mib == 1_024);
    // Without a test command verified means that it applies.
    let executor = world.executor(&sandbox, ModelWorker::new(Arc::new(fixes())));
    let untested = super::tests::outcome(&executor, &world.request(&[])).await.unwrap();
    assert_eq!(PatchFacts::read(&untested.facts).test_exit_code, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patch_that_fails_its_test_is_no_result() {
    let Some(world) = World::new().await else { return };
    let sandbox = ScriptedSandbox::new(does);
    for (test, code, said, log) in [
        ("make fail", Code::Backend, "it ended with exit code 2", "1 test failed"),
        ("make endless", Code::Timeout, "it took longer than", ""),
    ] {
        let executor = world.executor(&sandbox, ModelWorker::new(Arc::new(fixes())));
        let failure = outcome(&executor, &world.request(&[("test_command", test)])).await.unwrap_err();
        assert_eq!((failure.code, failure.log.as_str()), (code, log));
        assert!(failure.text.contains(said) && failure.text.contains("nothing is charged"), "{}", failure.text);
        assert_eq!(sandbox.open_cells(), 0);
    }
    // Asked not to be run, it is not.
    let executor = world.executor(&sandbox, ModelWorker::new(Arc::new(fixes())));
    let request = world.request(&[("test_command", "make fail"), ("run_tests", "false")]);
    assert!(outcome(&executor, &request).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_brings_nothing_to_an_end_costs_nothing_and_tells_its_last_steps() {
    let Some(world) = World::new().await else { return };
    for (script, code, said, log) in [
        (vec!["SUBMIT".into()], Code::Backend, "the agent changed nothing", ""),
        (vec!["a".into(), "b".into(), "c".into()], Code::Backend, "could not be understood", "> c"),
        ((0..9).map(|step| run(&format!("look {step}"))).collect(), Code::Backend, "used up its commands", "look 5"),
        (vec![run("eat memory")], Code::Backend, "more time or memory", "eat memory"),
        (vec![run("break out"), "SUBMIT".into()], Code::Backend, ".GIT/hooks/x, which is git's own", ""),
        (
            vec![Says::Fails(crate::inference::InferenceError::Unusable("x".into()))],
            Code::Backend,
            "the model failed",
            "",
        ),
    ] {
        let sandbox = ScriptedSandbox::new(does);
        let executor = world.executor(&sandbox, ModelWorker::new(Arc::new(ScriptedModel::saying(script))));
        let failure = outcome(&executor, &world.request(&[])).await.unwrap_err();
        assert_eq!(failure.code, code, "{said}");
        assert!(failure.text.contains(said), "{}", failure.text);
        assert!(failure.log.contains(log) && failure.log.is_empty() == log.is_empty(), "{said}: {}", failure.log);
        assert_eq!(sandbox.open_cells(), 0, "{said}");
    }
    let sandbox = ScriptedSandbox::new(does);
    let executor = world.executor(&sandbox, ModelWorker::new(Arc::new(fixes())));
    let failure = outcome(&executor, &world.request(&[("exclude", "*.c")])).await.unwrap_err();
    assert!(failure.text.contains("a.c, which include and exclude do not allow"), "{}", failure.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn work_in_vain_is_the_customers_and_a_model_that_fails_is_ours() {
    let Some(world) = World::new().await else { return };
    let down = ScriptedModel::saying([Says::Fails(crate::inference::InferenceError::Unusable("x".into()))]);
    let nothing_done = ScriptedModel::saying(["SUBMIT"]);
    for (model, test, theirs) in
        [(fixes(), "make fail", true), (nothing_done, "make test", true), (down, "make test", false)]
    {
        let sandbox = ScriptedSandbox::new(does);
        let executor = world.executor(&sandbox, ModelWorker::new(Arc::new(model)));
        let failure = outcome(&executor, &world.request(&[("test_command", test)])).await.unwrap_err();
        assert_eq!((failure.code, failure.is_the_customers()), (Code::Backend, theirs), "{failure}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_leaves_no_cell() {
    let Some(world) = World::new().await else { return };
    let hanging = ScriptedModel::saying([Says::Hangs]);
    // At the agent's first thought, and at the test.
    for (model, commands, test) in [(hanging, 1, "make test"), (fixes(), 4, "make hang")] {
        let sandbox = ScriptedSandbox::new(does);
        let executor = world.executor(&sandbox, ModelWorker::new(Arc::new(model.clone())));
        let prepared = executor.prepare(&world.request(&[("test_command", test)])).await.unwrap();
        let cancel = CancellationToken::new();
        let canceller = async {
            sandbox.begun(commands).await;
            model.begun(1).await;
            cancel.cancel();
        };
        let (ended, ()) = tokio::join!(executor.run(&prepared, None, &cancel), canceller);
        assert_eq!(ended.unwrap_err().code, Code::Cancelled);
        assert_eq!(sandbox.open_cells(), 0);
    }
}

/// A worker that falls over.
struct Panics;

#[async_trait]
impl Worker for Panics {
    async fn capacity(&self, _: Option<&str>) -> Result<Capacity, Refusal> {
        Ok(Capacity { model: None, context_tokens: None })
    }

    async fn work(&self, _: &Task, _: &dyn Cell, _: &CancellationToken) -> Result<Worked, WorkError> {
        panic!("a panic that a test asked for")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_leaves_no_cell() {
    let Some(world) = World::new().await else { return };
    let sandbox = ScriptedSandbox::new(does);
    let executor = world.executor(&sandbox, Panics);
    let prepared = executor.prepare(&world.request(&[])).await.unwrap();
    let cancel = CancellationToken::new();
    let run = std::panic::AssertUnwindSafe(executor.run(&prepared, None, &cancel));
    assert!(run.catch_unwind().await.is_err());
    assert_eq!(sandbox.open_cells(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_known_before_is_refused_before() {
    let Some(world) = World::new().await else { return };
    let sandbox = ScriptedSandbox::new(does);
    let executor = world.executor(&sandbox, ModelWorker::new(Arc::new(fixes())));
    for (params, named) in [
        (&[("model", "gpt-9")][..], "gpt-9"),
        (&[("git_ref", "nowhere")], "param git_ref"),
        (&[("include", "[")], "param include"),
        (&[("time_limit_secs", "99999")], "param time_limit_secs"),
    ] {
        let refusal = executor.prepare(&world.request(params)).await.unwrap_err();
        assert!(refusal.text.contains(named), "{named}: {}", refusal.text);
    }
    let nowhere = JobRequest {
        inputs: vec![
            Input { data: world.server.http_url("gone"), ..world.request(&[]).inputs[0].clone() },
            world.request(&[]).inputs[1].clone(),
        ],
        ..world.request(&[])
    };
    assert!(executor.prepare(&nowhere).await.unwrap_err().text.contains("input repo"));
    sandbox.offers(Some(Vec::new()));
    let refusal = executor.prepare(&world.request(&[])).await.unwrap_err();
    assert_eq!((refusal.code, refusal.text.contains("sandbox")), (Code::Backend, true));
    assert!(sandbox.cells().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bid_makes_the_work_smaller_where_its_size_was_left_to_us() {
    let Some(world) = World::new().await else { return };
    let executor = world.executor(&ScriptedSandbox::new(does), ModelWorker::new(Arc::new(fixes())));
    let rates = Rates { base: Msat::sat(1), per_1k_prompt: Msat::sat(1), per_second: Msat::sat(1), ..Rates::FREE };
    let price = |prepared: &Prepared| rates.cost(prepared.estimate.most());
    for (params, time) in [(&[][..], None), (&[("time_limit_secs", "600")], Some(600))] {
        let prepared = executor.prepare(&world.request(params)).await.unwrap();
        let whole = price(&prepared);
        let bid = Msat::from_msat(whole.as_msat() / 10 * 8).unwrap();
        let smaller = executor.within(prepared.clone(), &rates, bid);
        assert!(price(&smaller) <= bid && price(&smaller) > Msat::from_msat(whole.as_msat() / 10 * 7).unwrap());
        assert!(smaller.estimate.prompt_tokens < prepared.estimate.prompt_tokens);
        let shrunk = smaller.estimate.compute.wall;
        assert!(time.map_or(shrunk < prepared.estimate.compute.wall, |time| shrunk.as_secs() == time));
        // Too little is too little.
        assert_eq!(executor.within(prepared.clone(), &rates, Msat::sat(2)), prepared);
        assert_eq!(executor.within(prepared.clone(), &rates, whole), prepared);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn time_is_divided_between_work_and_proof() {
    let size = Size { time: Duration::from_secs(900), prompt_tokens: 1, generated_tokens: 1 };
    assert_eq!(size.work_time(), Duration::from_secs(600));
    let Some(world) = World::new().await else { return };
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&seen);
    let sandbox = ScriptedSandbox::new(move |files, command| {
        if command.shell == "make test" {
            let most = command.timeout.as_secs();
            assert!((30..=90).contains(&most), "{most}");
            counted.fetch_add(1, Ordering::SeqCst);
        }
        does(files, command)
    });
    let executor = world.executor(&sandbox, ModelWorker::new(Arc::new(fixes())));
    outcome(&executor, &world.request(&[("test_command", "make test"), ("time_limit_secs", "90")])).await.unwrap();
    assert_eq!(seen.load(Ordering::SeqCst), 1);
}
