//! An agent at work: the relay is the real one, the agent a script that does what agents do.

use super::host_cell::HostCell;
use super::*;
use crate::inference::echo::Echo;
use crate::testing::openai_server::{Manners, OpenAiServer};

/// Asks its model what it was told, and writes the answer into a file.
const AGENT: &str = include_str!("agent.py");

/// What a task may take where that is not what it is about.
const LIMITS: crate::agent::WorkLimits = crate::agent::WorkLimits {
    steps: 50,
    prompt_tokens: 100_000,
    generated_tokens: 10_000,
    time: LONG,
    command_time: LONG,
    output_bytes: 8 * 1024,
};

fn task(instructions: &str) -> Task {
    Task { instructions: instructions.into(), model: None, limits: LIMITS }
}

/// An endpoint that repeats what it is told, and opens to the operator's key only.
async fn echoing(echo: &Echo) -> OpenAiServer {
    let _ = rustls::crypto::ring::default_provider().install_default();
    OpenAiServer::start(Arc::new(echo.clone()), Manners { key: Some(KEY.into()), ..Manners::default() }).await.unwrap()
}

fn settings(server: &OpenAiServer, command: &str) -> ExternalAgentSettings {
    ExternalAgentSettings {
        key: Some(KEY.into()),
        model: Some("echo".into()),
        parameters: Some(7_000),
        last_words: Duration::ZERO,
        ..ExternalAgentSettings::new(command, server.url())
    }
}

async fn work(settings: ExternalAgentSettings, task: &Task, cell: &HostCell) -> Result<Worked, WorkError> {
    ExternalAgent::new(settings).unwrap().work(task, cell, &CancellationToken::new()).await
}

#[tokio::test]
async fn an_agent_asks_its_model_and_changes_a_file() {
    let Some(cell) = HostCell::with(&[("agent.py", AGENT)]) else { return };
    let server = echoing(&Echo::new()).await;
    let settings = settings(&server, "python3 agent.py {instructions_file} answer.txt");
    let worked = work(settings, &task("change the colour to green"), &cell).await.unwrap();
    assert_eq!((worked.stopped, worked.steps), (Stopped::Submitted, 2), "{}", worked.transcript);
    assert_eq!(cell.read("answer.txt").as_deref(), Some("change the colour to green|change the colour to green"));
    assert_eq!(worked.usage, crate::job::Usage::tokens(10, 10));
    assert_eq!((worked.model.as_deref(), worked.parameters), (Some("echo"), Some(7_000)));
    let lines = lines(&worked.transcript);
    let events: Vec<_> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["began", "asked", "asked", "ran", "stopped"]);
    assert_eq!(lines[1]["answer"]["text"].as_str().map(|text| text.contains("green")), Some(true));
}

#[tokio::test]
async fn the_key_is_nowhere_in_the_cell() {
    let agent = "env > seen; cat {instructions_file} /proc/[0-9]*/environ /proc/[0-9]*/cmdline >> seen 2>/dev/null; \
                 cat {instructions_file}/../* >> seen; python3 agent.py {instructions_file} answer.txt";
    let Some(cell) = HostCell::with(&[("agent.py", AGENT)]) else { return };
    let server = echoing(&Echo::new()).await;
    let worked = work(settings(&server, agent), &task("a b c"), &cell).await.unwrap();
    assert_eq!(worked.stopped, Stopped::Submitted, "{}", worked.transcript);
    let seen = std::fs::read(cell.workspace().join("seen")).unwrap();
    assert!(
        seen.windows(10).any(|part| part == b"OPENAI_API")
            && !seen.windows(KEY.len()).any(|part| part == KEY.as_bytes())
    );
    assert!(!worked.transcript.contains(KEY));
}

#[tokio::test]
async fn an_agent_whose_budget_is_spent_is_told_and_then_ended() {
    // It goes on whatever it is told.
    let stubborn = "trap '' TERM; while :; do python3 agent.py {instructions_file} answer.txt; done";
    let Some(cell) = HostCell::with(&[("agent.py", AGENT)]) else { return };
    let server = echoing(&Echo::new()).await;
    let mut task = task("a b c");
    task.limits.steps = 3;
    let worked = work(settings(&server, stubborn), &task, &cell).await.unwrap();
    assert_eq!((worked.stopped, worked.steps), (Stopped::OutOfSteps, 3));
    assert!(worked.transcript.contains("budget is spent"), "{}", worked.transcript);
    assert_eq!(server.asked().len(), 3);
}

#[tokio::test]
async fn an_agent_that_says_it_failed_did_not_submit() {
    let Some(cell) = HostCell::with(&[]) else { return };
    let server = echoing(&Echo::new()).await;
    let worked = work(settings(&server, "echo why >&2; exit 3"), &task("a"), &cell).await.unwrap();
    assert_eq!((worked.stopped, worked.steps), (Stopped::Lost, 0));
    let ran = lines(&worked.transcript).into_iter().find(|line| line["event"] == "ran").unwrap();
    assert_eq!((&ran["exit_code"], &ran["stderr"]["text"]), (&json!(3), &json!("why\n")));
}

#[tokio::test]
async fn an_agent_that_takes_too_long_is_out_of_time() {
    let Some(cell) = HostCell::with(&[]) else { return };
    let server = echoing(&Echo::new()).await;
    let mut task = task("a");
    task.limits.time = Duration::from_millis(300);
    let worked = work(settings(&server, "sleep 1000"), &task, &cell).await.unwrap();
    assert_eq!(worked.stopped, Stopped::OutOfTime);
}

#[tokio::test]
async fn cancelling_ends_the_agent_and_its_question() {
    let Some(cell) = HostCell::with(&[("agent.py", AGENT)]) else { return };
    let echo = Echo::new().gated();
    let server = echoing(&echo).await;
    let agent = ExternalAgent::new(settings(&server, "python3 agent.py {instructions_file} answer.txt")).unwrap();
    let (cancel, task) = (CancellationToken::new(), task("a b c"));
    let (worked, ()) = tokio::join!(agent.work(&task, &cell, &cancel), async {
        echo.wait_for_runs(1).await;
        cancel.cancel();
    });
    assert!(matches!(worked, Err(WorkError::Cancelled)));
    server.wait_for_abandoned(1).await;
    assert_eq!(cell.read("answer.txt"), None);
}

#[tokio::test]
async fn an_agent_that_ends_the_relay_has_only_itself_to_blame() {
    let Some(cell) = HostCell::with(&[("agent.py", AGENT)]) else { return };
    let server = echoing(&Echo::new()).await;
    let killer = "python3 agent.py {instructions_file} before.txt; pid=$(pgrep -f \" 41011 \" | head -n 1); \
                  kill -9 $pid; while kill -0 $pid 2>/dev/null && [ \"$(ps -o stat= -p $pid)\" != Z ]; do :; done; \
                  python3 agent.py {instructions_file} after.txt";
    let worked = work(settings(&server, killer), &task("a b"), &cell).await.unwrap();
    assert_eq!(worked.stopped, Stopped::Lost, "{}", worked.transcript);
    assert!(cell.read("before.txt").is_some() && cell.read("after.txt").is_none());
    assert!(lines(&worked.transcript).iter().any(|line| line["event"] == "link"), "{}", worked.transcript);
}

#[tokio::test]
async fn large_requests_and_answers_pass_the_relay_whole() {
    let Some(cell) = HostCell::with(&[("agent.py", AGENT)]) else { return };
    let server = echoing(&Echo::new().with_context(1_000_000)).await;
    let said = (0..20_000).map(|number| number.to_string()).collect::<Vec<_>>().join(" ");
    let mut task = task(&said);
    (task.limits.prompt_tokens, task.limits.generated_tokens) = (10_000_000, 10_000_000);
    let worked =
        work(settings(&server, "python3 agent.py {instructions_file} answer.txt"), &task, &cell).await.unwrap();
    assert_eq!(worked.stopped, Stopped::Submitted, "{}", worked.transcript);
    assert!(cell.read("answer.txt").is_some_and(|answer| answer == format!("{said}|{said}")));
}

#[tokio::test]
async fn an_agent_has_one_model_and_an_endpoint_that_is_there() {
    let server = echoing(&Echo::new()).await;
    let agent = ExternalAgent::new(settings(&server, "x")).unwrap();
    assert_eq!(agent.capacity(None).await.unwrap().model.as_deref(), Some("echo"));
    assert_eq!(agent.capacity(Some("echo")).await.unwrap().model.as_deref(), Some("echo"));
    let refused = agent.capacity(Some("gpt")).await.unwrap_err();
    assert!(refused.text.contains("ask for echo"), "{refused:?}");
    let wrong_key = ExternalAgentSettings { key: Some("wrong".into()), ..settings(&server, "x") };
    assert!(ExternalAgent::new(wrong_key).unwrap().capacity(None).await.is_err());
    let gone = ExternalAgentSettings { endpoint: "http://127.0.0.1:1/v1".parse().unwrap(), ..settings(&server, "x") };
    assert!(ExternalAgent::new(gone).unwrap().capacity(None).await.is_err());
}

#[test]
fn placeholders_are_filled_in_and_braces_of_shells_and_json_left_alone() {
    let text = "run ${HOME} {} {\"a\": {\"url\": \"{base_url}\"}} {address} -m {model} < {instructions_file}";
    let expected = "run ${HOME} {} {\"a\": {\"url\": \"http://127.0.0.1:41011/v1\"}} http://127.0.0.1:41011 -m m/1 \
                    < /tmp/coinop-agent/instructions.md";
    assert_eq!(filled(text, Some("m/1")).as_deref(), Ok(expected));
    assert_eq!(filled("{", None).as_deref(), Ok("{"));
    assert_eq!(filled("a {b", None).as_deref(), Ok("a {b"));
    assert_eq!(filled("{model}", None), Err(ExternalError::NoModel));
    assert_eq!(filled("{prompt}", None), Err(ExternalError::Placeholder("prompt".into())));
}

#[test]
fn settings_that_cannot_be_right_are_refused() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let good = ExternalAgentSettings::new("agent", "https://api.anthropic.com/v1".parse().unwrap());
    assert_eq!(good.key_header, KeyHeader::XApiKey);
    assert!(ExternalAgent::new(good.clone()).is_ok());
    for wrong in [
        ExternalAgentSettings { command: " ".into(), ..good.clone() },
        ExternalAgentSettings { command: "agent {promt}".into(), ..good.clone() },
        ExternalAgentSettings { command: "agent {model}".into(), ..good.clone() },
        ExternalAgentSettings { model: Some("m; rm -rf /".into()), ..good.clone() },
        ExternalAgentSettings { model: Some("-m".into()), ..good.clone() },
        ExternalAgentSettings { env: vec![("A".into(), "{x}".into())], ..good.clone() },
        ExternalAgentSettings { endpoint: "ftp://x".parse().unwrap(), ..good.clone() },
        ExternalAgentSettings { key: Some("line\nbreak".into()), ..good },
    ] {
        assert!(ExternalAgent::new(wrong.clone()).is_err(), "{wrong:?}");
    }
}
