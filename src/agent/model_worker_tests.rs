use serde_json::Value;

use super::*;
use crate::agent::WorkLimits;
use crate::job::text::Role;
use crate::sandbox::{CellLimits, CellSpec, Runtime, Sandbox};
use crate::testing::scripted_model::{MODEL_NAME, Says, ScriptedModel};
use crate::testing::scripted_sandbox::{Does, ScriptedSandbox, Workspace};

const LIMITS: WorkLimits = WorkLimits {
    steps: 6,
    prompt_tokens: 100_000,
    generated_tokens: 5_000,
    time: Duration::from_secs(3_600),
    command_time: Duration::from_secs(60),
    output_bytes: 4_000,
};

fn task(limits: WorkLimits) -> Task {
    Task { instructions: "Fix it.".into(), model: None, limits }
}

/// The command in a shell's quotes.
fn inner(command: &crate::sandbox::Command) -> String {
    let quoted = command.shell.split_once("/bin/sh -c '").unwrap().1;
    quoted.split_once("'; command -v timeout").unwrap().0.replace("'\\''", "'")
}

/// Runs the loop over a sandbox in which every command does what `script` says.
async fn work(
    model: &ScriptedModel,
    limits: WorkLimits,
    script: impl Fn(&str) -> Does + Send + Sync + 'static,
) -> Result<Worked, WorkError> {
    let sandbox = ScriptedSandbox::new(move |_: &mut Workspace, command| script(&inner(command)));
    let cancel = CancellationToken::new();
    let cell = open(&sandbox, &cancel).await;
    let worked = ModelWorker::new(Arc::new(model.clone())).work(&task(limits), &*cell, &cancel).await;
    cell.close().await;
    assert_eq!(sandbox.open_cells(), 0);
    worked
}

async fn open(sandbox: &ScriptedSandbox, cancel: &CancellationToken) -> Box<dyn Cell> {
    let limits =
        CellLimits { memory_mib: 64, disk_mib: 64, milli_cpus: 1_000, pids: 64, time: Duration::from_secs(60) };
    let spec = CellSpec { job: "job".into(), image: "small".into(), runtime: Runtime::Runsc, limits };
    sandbox.open(&spec, cancel).await.unwrap()
}

fn run(command: &str) -> Says {
    format!("```sh\n{command}\n```").into()
}

fn events(worked: &Worked) -> Vec<Value> {
    worked.transcript.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What the model was shown last.
fn last_heard(model: &ScriptedModel) -> String {
    model.asked().last().unwrap().messages.last().unwrap().content.clone()
}

#[tokio::test]
async fn a_model_gives_commands_and_hears_what_they_print_until_it_submits() {
    let model = ScriptedModel::saying([run("cat 'it''s'"), run("make test"), "Done.\nSUBMIT".into()]);
    let worked = work(&model, LIMITS, |command| match command {
        "cat 'it''s'" => Does::prints("hello\n"),
        "make test" => Does::fails(2, "no rule\n"),
        other => panic!("{other}"),
    })
    .await
    .unwrap();
    assert_eq!((worked.stopped, worked.steps, worked.model.as_deref()), (Stopped::Submitted, 2, Some(MODEL_NAME)));
    let asked = model.asked();
    let roles: Vec<Role> = asked[2].messages.iter().map(|message| message.role).collect();
    assert_eq!(roles, [Role::System, Role::User, Role::Assistant, Role::User, Role::Assistant, Role::User]);
    assert_eq!(asked[0].messages[1].content, "Fix it.");
    assert!(asked[1].messages[3].content.contains(">\nhello\n</output "), "{}", asked[1].messages[3].content);
    assert!(last_heard(&model).starts_with("Command 2 of 6 ended with exit code 2.\n<errors "));
    let prompts: u32 =
        asked.iter().map(|ask| ask.messages.iter().map(|m| m.content.len()).sum::<usize>().div_ceil(4) as u32).sum();
    assert_eq!(worked.usage.prompt_tokens, prompts);
    let names: Vec<Value> = events(&worked).iter().map(|event| event["event"].clone()).collect();
    assert_eq!(names, ["began", "told", "told", "answered", "ran", "answered", "ran", "answered", "stopped"]);
    let ran = &events(&worked)[6];
    assert_eq!(
        (&ran["command"], &ran["exit_code"], &ran["stderr"]["text"]),
        (&"make test".into(), &2.into(), &"no rule\n".into())
    );
}

#[tokio::test]
async fn each_unreadable_answer_is_corrected_and_three_in_a_row_end_the_work() {
    let script = [Says::from("hm"), "```python\n1\n```".into(), run("ls"), "".into(), "a".into(), "b".into()];
    let model = ScriptedModel::saying(script);
    let worked = work(&model, LIMITS, |_| Does::nothing()).await.unwrap();
    assert_eq!((worked.stopped, worked.steps), (Stopped::Lost, 1));
    let corrections = events(&worked).iter().filter(|event| event["event"] == "corrected").count();
    assert_eq!(corrections, 4);
    assert!(last_heard(&model).contains("no command in your answer"));
}

#[tokio::test]
async fn a_model_that_goes_in_circles_is_stopped() {
    let circle = ScriptedModel::new(|_, place| run(["make", "ls"][place % 2]));
    let limits = WorkLimits { steps: 100, ..LIMITS };
    let worked = work(&circle, limits, |command| Does::prints(command)).await.unwrap();
    assert_eq!((worked.stopped, worked.steps), (Stopped::Lost, 5));
    assert!(last_heard(&circle).contains("You ran this before"));
    // The same command with another outcome is something new.
    let same = ScriptedModel::new(|_, place| if place < 20 { run("make") } else { "SUBMIT".into() });
    let count = std::sync::atomic::AtomicU32::new(0);
    let next = move |_: &str| Does::prints(count.fetch_add(1, std::sync::atomic::Ordering::SeqCst).to_string());
    assert_eq!(work(&same, limits, next).await.unwrap().stopped, Stopped::Submitted);
}

#[tokio::test]
async fn the_last_command_is_told_to_be_the_last_and_submitting_after_it_counts() {
    let limits = WorkLimits { steps: 2, ..LIMITS };
    for (end, stopped) in [("SUBMIT".into(), Stopped::Submitted), (run("c"), Stopped::OutOfSteps)] {
        let model = ScriptedModel::saying([run("a"), run("b"), end]);
        let worked = work(&model, limits, |_| Does::nothing()).await.unwrap();
        assert_eq!((worked.stopped, worked.steps), (stopped, 2));
        assert!(last_heard(&model).ends_with("That was your last command. Answer SUBMIT when the work is done."));
    }
}

#[tokio::test]
async fn tokens_are_never_more_than_were_allowed() {
    let numbered = || ScriptedModel::new(|_, place| run(&format!("echo {place}")));
    let few_written = WorkLimits { steps: 1_000, generated_tokens: 30, ..LIMITS };
    let worked = work(&numbered(), few_written, |command| Does::prints(command)).await.unwrap();
    assert!(worked.usage.generated_tokens <= 30 && worked.steps >= 3, "{worked:?}");
    assert!(matches!(worked.stopped, Stopped::OutOfTokens | Stopped::Lost), "{worked:?}");
    let few_read = WorkLimits { steps: 1_000, prompt_tokens: 3_000, ..LIMITS };
    let worked = work(&numbered(), few_read, |command| Does::prints(command)).await.unwrap();
    assert_eq!(worked.stopped, Stopped::OutOfTokens);
    assert!(worked.usage.prompt_tokens <= 3_000 && worked.usage.prompt_tokens > 2_000, "{worked:?}");
}

#[tokio::test]
async fn a_long_conversation_is_kept_within_the_context() {
    for context in [Some(2_000), None] {
        let model =
            ScriptedModel::new(|_, place| if place < 30 { run(&format!("cat {place}")) } else { "SUBMIT".into() });
        let model = model.with_context(context);
        let limits = WorkLimits { steps: 50, prompt_tokens: 1_000_000, ..LIMITS };
        let worked = work(&model, limits, |command| Does::prints(format!("{command} ").repeat(300))).await.unwrap();
        assert_eq!((worked.stopped, worked.steps), (Stopped::Submitted, 30));
        let most = context.unwrap_or(ASSUMED_CONTEXT);
        for ask in model.asked() {
            let prompt: usize = ask.messages.iter().map(|message| message.content.len()).sum();
            assert!(prompt.div_ceil(4) as u32 + ask.max_tokens < most, "{prompt}");
            assert_eq!(ask.messages[1].content.split('\n').next(), Some("Fix it."));
        }
        assert!(events(&worked).iter().any(|event| event["event"] == "condensed"));
    }
}

#[tokio::test]
async fn a_task_that_never_fits_is_not_begun() {
    let model = ScriptedModel::saying(["SUBMIT"]).with_context(Some(100));
    assert_eq!(work(&model, LIMITS, |_| Does::nothing()).await.unwrap().stopped, Stopped::OutOfTokens);
    assert_eq!(model.asked().len(), 0);
}

#[tokio::test]
async fn an_estimate_that_was_too_low_is_made_up_for() {
    let overflow = || Says::Fails(InferenceError::ContextOverflow { prompt_tokens: 9_000, context_tokens: 8_192 });
    let model = ScriptedModel::saying([run("ls"), overflow(), overflow(), "SUBMIT".into()]);
    assert_eq!(work(&model, LIMITS, |_| Does::nothing()).await.unwrap().stopped, Stopped::Submitted);
}

#[tokio::test]
async fn a_model_that_fails_once_is_asked_again_and_one_that_stays_down_ends_the_work() {
    let down = || Says::Fails(InferenceError::Backend("down".into()));
    let model = ScriptedModel::saying([down(), run("ls"), down(), "SUBMIT".into()]);
    assert_eq!(work(&model, LIMITS, |_| Does::nothing()).await.unwrap().stopped, Stopped::Submitted);
    let model = ScriptedModel::saying([down(), down()]);
    let error = work(&model, LIMITS, |_| Does::nothing()).await.unwrap_err();
    assert!(matches!(error, WorkError::Model(reason) if reason.contains("down")));
}

#[tokio::test]
async fn a_cell_that_ends_ends_the_work() {
    for (does, stopped) in [
        (Does::IsEnded(Ended::OutOfMemory), Stopped::CellEnded),
        (Does::IsEnded(Ended::TooMuchOutput), Stopped::CellEnded),
        (Does::IsEnded(Ended::TimedOut), Stopped::CellEnded),
        (Does::FindsNoCell(Ended::TimedOut), Stopped::OutOfTime),
        (Does::FindsNoCell(Ended::OutOfMemory), Stopped::CellEnded),
    ] {
        let model = ScriptedModel::saying([run("x"), "SUBMIT".into()]);
        assert_eq!(work(&model, LIMITS, move |_| does.clone()).await.unwrap().stopped, stopped);
    }
    let model = ScriptedModel::saying([run("x")]);
    assert!(matches!(work(&model, LIMITS, |_| Does::Breaks).await, Err(WorkError::Sandbox(_))));
}

#[tokio::test]
async fn time_that_is_over_ends_the_work() {
    let limits = WorkLimits { time: Duration::from_millis(50), ..LIMITS };
    let thinking = ScriptedModel::saying([Says::Hangs]);
    assert_eq!(work(&thinking, limits, |_| Does::nothing()).await.unwrap().stopped, Stopped::OutOfTime);
    // Less than a second is no time for a command.
    let slow = ScriptedModel::saying([run("ls")]);
    let worked = work(&slow, limits, |_| Does::nothing()).await.unwrap();
    assert_eq!((worked.stopped, worked.steps), (Stopped::OutOfTime, 0));
}

#[tokio::test]
async fn a_cancellation_ends_a_thought_and_a_command() {
    for script in [vec![Says::Hangs], vec![run("sleep 9")]] {
        let model = ScriptedModel::saying(script);
        let sandbox = ScriptedSandbox::new(|_: &mut Workspace, _| Does::Hangs);
        let cancel = CancellationToken::new();
        let cell = open(&sandbox, &cancel).await;
        let (worker, task) = (ModelWorker::new(Arc::new(model.clone())), task(LIMITS));
        let canceller = async {
            model.begun(1).await;
            cancel.cancel();
        };
        let (worked, ()) = tokio::join!(worker.work(&task, &*cell, &cancel), canceller);
        assert!(matches!(worked, Err(WorkError::Cancelled)));
    }
}

#[tokio::test]
async fn only_models_on_offer_are_promised() {
    let worker = ModelWorker::new(Arc::new(ScriptedModel::saying(["SUBMIT"])));
    let capacity = worker.capacity(None).await.unwrap();
    assert_eq!((capacity.model.as_deref(), capacity.context_tokens), (Some(MODEL_NAME), Some(8_192)));
    let refusal = worker.capacity(Some("gpt-9")).await.unwrap_err();
    assert!(refusal.text.contains("gpt-9") && refusal.text.contains(MODEL_NAME), "{}", refusal.text);
}
