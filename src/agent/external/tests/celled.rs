//! The same in real cells, under each runtime: what an agent can do there, and what it can't reach.

use super::*;
use crate::archive::{Archive, ArchiveBuilder, ArchiveLimits};
use crate::inference::echo::Echo;
use crate::job::RelativePath;
use crate::sandbox::{CellLimits, CellSpec, Hosts, Runtime, Sandbox};
use crate::testing::openai_server::{Manners, OpenAiServer};
use crate::testing::{engine, python_image, require};

/// Asks its model what it was told, and writes the answer into a file.
const AGENT: &str = include_str!("agent.py");

/// Looks for a way out and for what it must not see, and says what it found.
const SPY: &str = include_str!("spy.py");

const ARCHIVE: ArchiveLimits = ArchiveLimits { bytes: 1024 * 1024, entries: 100 };

struct Place {
    hosts: Arc<Hosts>,
    runtime: Runtime,
    echo: Echo,
    server: OpenAiServer,
}

impl Place {
    /// An engine and an endpoint; `None` where there is no such engine, which is said.
    async fn with(runtime: Runtime, echo: Echo) -> Option<Self> {
        let hosts = python_image::sandbox(runtime).await?;
        let manners = Manners { key: Some(KEY.into()), ..Manners::default() };
        let server = OpenAiServer::start(Arc::new(echo.clone()), manners).await.unwrap();
        Some(Self { hosts, runtime, echo, server })
    }

    async fn cell(&self, image: &str, scripts: &[(&str, &str)]) -> Box<dyn Cell> {
        let spec = CellSpec {
            job: "external-agent".into(),
            image: image.into(),
            runtime: self.runtime,
            limits: CellLimits { memory_mib: 256, ..engine::LIMITS },
        };
        let cell = self.hosts.open(&spec, &CancellationToken::new()).await.unwrap();
        let mut files = ArchiveBuilder::new(ARCHIVE).unwrap();
        for (name, text) in scripts {
            files.file(&path(name), true, text.as_bytes()).unwrap();
        }
        cell.put(&files.finish().unwrap()).await.unwrap();
        cell
    }

    fn agent(&self, command: &str) -> ExternalAgent {
        let settings = ExternalAgentSettings {
            key: Some(KEY.into()),
            model: Some("echo".into()),
            last_words: Duration::ZERO,
            ..ExternalAgentSettings::new(command, self.server.url())
        };
        ExternalAgent::new(settings).unwrap()
    }
}

fn path(name: &str) -> RelativePath {
    name.parse().unwrap()
}

fn task(instructions: &str) -> Task {
    let limits = crate::agent::WorkLimits {
        steps: 50,
        prompt_tokens: 100_000,
        generated_tokens: 10_000,
        time: LONG,
        command_time: LONG,
        output_bytes: 64 * 1024,
    };
    Task { instructions: instructions.into(), model: None, limits }
}

async fn read(cell: &dyn Cell, name: &str) -> Option<String> {
    let archive: Archive = cell.get(Some(&path(name)), ARCHIVE).await.unwrap()?;
    let listing = archive.list(None, ARCHIVE).unwrap();
    let entry = listing.entries.iter().find(|entry| entry.path == path(name))?;
    Some(String::from_utf8(archive.read(entry).unwrap()).unwrap())
}

async fn an_agent_works_and_reaches_nothing_but_its_model(runtime: Runtime) {
    let Some(place) = Place::with(runtime, Echo::new()).await else { return };
    let cell = place.cell(python_image::IMAGE, &[("agent.py", AGENT), ("spy.py", SPY)]).await;
    let port = place.server.url().port().unwrap();
    let command =
        format!("python3 agent.py {{instructions_file}} answer.txt && python3 spy.py {port} {} found.json", &KEY[..8]);
    let cancel = CancellationToken::new();
    let worked = place.agent(&command).work(&task("make it green"), &*cell, &cancel).await.unwrap();
    assert_eq!(worked.stopped, Stopped::Submitted, "{}", worked.transcript);
    assert_eq!(read(&*cell, "answer.txt").await.as_deref(), Some("make it green|make it green"));
    let found: Value = serde_json::from_str(&read(&*cell, "found.json").await.unwrap()).unwrap();
    assert_eq!(found["reached"], json!([]), "{found}");
    assert_eq!(found["key"], json!([]), "{found}");
    assert_eq!(found["listens"], json!(["127.0.0.1:41011"]), "{found}");
    // What was put outside the workspace stays out of the patch.
    assert_eq!(cell.get(Some(&path("instructions.md")), ARCHIVE).await.unwrap().map(|_| ()), None);
    cell.close().await;
}

async fn a_budget_and_a_cancellation_end_an_agent(runtime: Runtime) {
    let Some(place) = Place::with(runtime, Echo::new()).await else { return };
    let cell = place.cell(python_image::IMAGE, &[("agent.py", AGENT)]).await;
    let stubborn = "trap '' TERM; while :; do python3 agent.py {instructions_file} answer.txt; done";
    let mut task = task("a b c");
    task.limits.steps = 2;
    let worked = place.agent(stubborn).work(&task, &*cell, &CancellationToken::new()).await.unwrap();
    assert_eq!((worked.stopped, worked.steps), (Stopped::OutOfSteps, 2), "{}", worked.transcript);
    // Its work is still there.
    assert!(read(&*cell, "answer.txt").await.is_some());
    cell.close().await;

    let place = Place { echo: Echo::new().gated(), ..place };
    let manners = Manners { key: Some(KEY.into()), ..Manners::default() };
    let place = Place { server: OpenAiServer::start(Arc::new(place.echo.clone()), manners).await.unwrap(), ..place };
    let cell = place.cell(python_image::IMAGE, &[("agent.py", AGENT)]).await;
    let agent = place.agent("python3 agent.py {instructions_file} answer.txt");
    let cancel = CancellationToken::new();
    let (worked, ()) = tokio::join!(agent.work(&task, &*cell, &cancel), async {
        place.echo.wait_for_runs(1).await;
        cancel.cancel();
    });
    assert!(matches!(worked, Err(WorkError::Cancelled)));
    place.server.wait_for_abandoned(1).await;
    cell.close().await;
}

async fn an_image_says_which_agents_it_has(runtime: Runtime) {
    let Some(place) = Place::with(runtime, Echo::new()).await else { return };
    let cancel = CancellationToken::new();
    let cell = place.cell(python_image::IMAGE, &[]).await;
    let found = detect::detect(&*cell, &cancel).await.unwrap();
    cell.close().await;
    let agents: Vec<_> = found.agents.iter().map(|agent| (agent.program, agent.version.as_deref())).collect();
    let (program, version) = python_image::AGENT;
    assert_eq!((found.python, agents), (true, vec![(program, Some(version))]));
    // One without Python is found out, and work in it fails with the reason.
    let cell = place.cell(engine::IMAGE, &[]).await;
    let found = detect::detect(&*cell, &cancel).await.unwrap();
    assert_eq!((found.python, found.agents.len()), (false, 0));
    let failed = place.agent("true").work(&task("a"), &*cell, &cancel).await.unwrap_err();
    assert!(failed.to_string().contains("python3"), "{failed}");
    cell.close().await;
}

/// What an endpoint of OpenAI's form answers: first that a file be written, then that it is done.
fn responses(turn: usize) -> String {
    let item = if turn == 0 {
        let arguments = json!({"cmd": "echo green > colour.txt"}).to_string();
        json!({"type": "function_call", "id": "f1", "call_id": "c1", "name": "exec_command", "arguments": arguments})
    } else {
        let content = json!([{"type": "output_text", "text": "done"}]);
        json!({"type": "message", "role": "assistant", "id": "m1", "content": content})
    };
    let usage = json!({"input_tokens": 100, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 105});
    [
        json!({"type": "response.created", "response": {"id": "r1"}}),
        json!({"type": "response.output_item.done", "output_index": 0, "item": item}),
        json!({"type": "response.completed", "response": {"id": "r1", "usage": usage}}),
    ]
    .iter()
    .map(|event| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap()))
    .collect()
}

/// With an image that has Codex, which nobody here can make: docs/external-agents.md says how it was tried.
#[tokio::test]
async fn a_real_codex_works_in_a_cell_as_it_is_described() {
    let Ok(reference) = std::env::var("COINOP_TEST_CODEX_IMAGE") else {
        require::skip("codex", "name an image that has it in COINOP_TEST_CODEX_IMAGE (docs/external-agents.md)");
        return;
    };
    for runtime in Runtime::ALL {
        let Some(hosts) = python_image::sandbox_with(runtime, &[("codex", &reference)]).await else { continue };
        let turn = std::sync::atomic::AtomicUsize::new(0);
        let server =
            FaultyServer::scripted(move |_| Some(responses(turn.fetch_add(1, std::sync::atomic::Ordering::SeqCst))))
                .await
                .unwrap();
        let limits = CellLimits { memory_mib: 512, pids: 200, ..engine::LIMITS };
        let spec = CellSpec { job: "codex".into(), image: "codex".into(), runtime, limits };
        let cancel = CancellationToken::new();
        let cell = hosts.open(&spec, &cancel).await.unwrap();
        let found = detect::detect(&*cell, &cancel).await.unwrap();
        let codex = found.agents.iter().find(|agent| agent.program == "codex").expect("the image has it");
        let settings = ExternalAgentSettings {
            key: Some(KEY.into()),
            model: Some("some-model".into()),
            ..ExternalAgentSettings::new(codex.known().command, server.url().join("v1").unwrap())
        };
        let worked = ExternalAgent::new(settings).unwrap().work(&task("make it green"), &*cell, &cancel).await.unwrap();
        assert_eq!((worked.stopped, worked.steps), (Stopped::Submitted, 2), "{}", worked.transcript);
        assert_eq!(read(&*cell, "colour.txt").await.as_deref(), Some("green\n"));
        assert_eq!(worked.usage, crate::job::Usage::tokens(200, 10));
        assert!(!server.heard().concat().contains("web_search"), "tools of the endpoint's are not let through");
        cell.close().await;
    }
}

#[tokio::test]
async fn an_agent_works_and_reaches_nothing_but_its_model_under_runc() {
    an_agent_works_and_reaches_nothing_but_its_model(Runtime::Runc).await;
}

#[tokio::test]
async fn an_agent_works_and_reaches_nothing_but_its_model_under_gvisor() {
    an_agent_works_and_reaches_nothing_but_its_model(Runtime::Runsc).await;
}

#[tokio::test]
async fn a_budget_and_a_cancellation_end_an_agent_under_runc() {
    a_budget_and_a_cancellation_end_an_agent(Runtime::Runc).await;
}

#[tokio::test]
async fn a_budget_and_a_cancellation_end_an_agent_under_gvisor() {
    a_budget_and_a_cancellation_end_an_agent(Runtime::Runsc).await;
}

#[tokio::test]
async fn an_image_says_which_agents_it_has_under_runc() {
    an_image_says_which_agents_it_has(Runtime::Runc).await;
}

#[tokio::test]
async fn an_image_says_which_agents_it_has_under_gvisor() {
    an_image_says_which_agents_it_has(Runtime::Runsc).await;
}
