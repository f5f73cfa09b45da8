//! The same in real cells, under each runtime: what an agent can do there, and what it can't reach.

use super::*;
use crate::archive::{Archive, ArchiveBuilder, ArchiveLimits};
use crate::inference::echo::Echo;
use crate::job::RelativePath;
use crate::sandbox::{CellLimits, CellSpec, Hosts, Runtime, Sandbox};
use crate::testing::openai_server::{Manners, OpenAiServer};
use crate::testing::{engine, python_image};

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
    let command = format!("python3 agent.py {{instructions_file}} answer.txt && python3 spy.py {port} {} found.json", &KEY[..8]);
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
