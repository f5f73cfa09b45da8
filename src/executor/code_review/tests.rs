use serde_json::Value;

use super::*;
use crate::executor::sources::TextOnly;
use crate::inference::{Format, JsonSupport};
use crate::job::code_review::{Review, Verdict};
use crate::job::reading::Bound;
use crate::job::{Code, Input, InputKind, JobKind, Params};
use crate::repository::RepositoryLimits;
use crate::testing::git_server::GitServer;
use crate::testing::input_sources::FixedInputs;
use crate::testing::requests;
use crate::testing::scripted_model::{MODEL_NAME, Says, ScriptedModel};

const DIFF: &str = "--- a/a.rs\n+++ b/a.rs\n@@ -1,2 +1,3 @@\n one\n-two\n+2\n+3\n";

const LIMITS: CodeReviewLimits = CodeReviewLimits {
    time: Bound { default: Duration::from_secs(60), max: Duration::from_secs(120) },
    max_generated_tokens: 4_000,
    max_diff_bytes: 60_000,
    max_files: 20,
    max_parts: 4,
    max_guideline_bytes: 40_000,
    result_bytes: 30_000,
};

fn request(inputs: &[(InputKind, &str, &str)], params: &[(&str, &str)]) -> JobRequest {
    let mut list = Params::default();
    for (key, value) in params {
        list.push(key, vec![(*value).to_owned()]);
    }
    let input = |(kind, data, marker): &(InputKind, &str, &str)| Input {
        data: (*data).to_owned(),
        kind: *kind,
        relay: None,
        marker: Some((*marker).to_owned()),
    };
    JobRequest { inputs: inputs.iter().map(input).collect(), params: list, ..requests::blank(JobKind::CodeReview) }
}

fn of_diff(diff: &str, params: &[(&str, &str)]) -> JobRequest {
    request(&[(InputKind::Text, diff, "diff")], params)
}

/// An answer with issues at these places of `a.rs`.
fn answer(status: &str, severity: &str, lines: &[u32]) -> String {
    let issue = |line: &u32| {
        serde_json::json!({"path": "a.rs", "line": line, "severity": severity, "category": "bug", "title": format!("At {line}"),
            "description": "It is wrong."})
    };
    let issues: Vec<Value> = lines.iter().map(issue).collect();
    serde_json::json!({"status": status, "summary": "It changes two.", "issues": issues}).to_string()
}

fn executor(model: &ScriptedModel) -> CodeReviewExecutor {
    CodeReviewExecutor::new(Arc::new(model.clone()), None, Arc::new(TextOnly), LIMITS)
}

async fn run(executor: &CodeReviewExecutor, request: &JobRequest) -> Result<(Review, Outcome), Failure> {
    let prepared = executor.prepare(request).await?;
    let outcome = executor.run(&prepared, None, &CancellationToken::new()).await?;
    let most = prepared.estimate.most();
    assert!(outcome.usage.prompt_tokens > 0 && outcome.usage.generated_tokens <= most.generated_tokens * 2);
    Ok((serde_json::from_str(&outcome.content).unwrap(), outcome))
}

#[tokio::test]
async fn a_diff_is_reviewed_and_what_the_model_made_up_is_dropped() {
    let model = ScriptedModel::saying([answer("approve", "major", &[2, 44])]);
    let (review, outcome) = run(&executor(&model), &of_diff(DIFF, &[("focus", "locks")])).await.unwrap();
    assert_eq!((review.status, review.model.as_str()), (Verdict::RequestChanges, MODEL_NAME));
    assert_eq!(review.issues.iter().map(|issue| issue.line).collect::<Vec<_>>(), [Some(2)]);
    assert!(review.is_sealed());
    let facts: Vec<&str> = outcome.facts.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(facts, ["status", "review_sha256", "diff_sha256"]);
    let [asked] = &model.asked()[..] else { panic!("asked once") };
    assert!(asked.messages[1].content.contains("    2 +2\n") && asked.messages[1].content.contains("locks"));
    assert_eq!(asked.format, Format::Text);
    assert_eq!(outcome.usage.prompt_tokens, review.tokens.prompt);
}

#[tokio::test]
async fn a_model_is_held_to_what_it_can_be_held_to() {
    for (json, is_held) in [
        (JsonSupport::Any, (|format: &Format| *format == Format::Json) as fn(&Format) -> bool),
        (JsonSupport::Schema, |format| matches!(format, Format::Schema(schema) if schema.to_string().contains("a.rs"))),
    ] {
        let model = ScriptedModel::saying([answer("approve", "minor", &[1])]).with_json(json);
        run(&executor(&model), &of_diff(DIFF, &[])).await.unwrap();
        assert!(is_held(&model.asked()[0].format));
    }
}

#[tokio::test]
async fn an_unreadable_answer_is_asked_for_once_more_and_never_guessed_at() {
    let model = ScriptedModel::saying(["LGTM, approved!".to_owned(), answer("comment", "minor", &[3])]);
    let (review, outcome) = run(&executor(&model), &of_diff(DIFF, &[])).await.unwrap();
    assert_eq!((review.status, review.issues.len()), (Verdict::Comment, 1));
    let again = model.asked()[1].messages.clone();
    assert_eq!(again[2].content, "LGTM, approved!");
    assert!(again[3].content.contains("can't be used"), "{}", again[3].content);
    assert!(outcome.usage.prompt_tokens > model.asked()[0].messages[1].content.len() as u32 / 4);
    let stubborn = ScriptedModel::saying(["LGTM", "Approved."]);
    let failure = run(&executor(&stubborn), &of_diff(DIFF, &[])).await.unwrap_err();
    assert_eq!(failure.code, Code::Backend);
    assert!(failure.text.contains("twice") && failure.text.contains("nothing is charged"), "{}", failure.text);
}

#[tokio::test]
async fn what_has_no_room_in_the_model_is_cut_and_what_is_too_much_is_refused_with_the_numbers() {
    let file = |name: &str, lines: usize| {
        format!("--- /dev/null\n+++ b/{name}\n@@ -0,0 +1,{lines} @@\n{}", "+some words\n".repeat(lines))
    };
    let diff = file("a.rs", 200) + &file("b.rs", 200);
    let model = ScriptedModel::new(|_, _| answer("approve", "minor", &[200]).into()).with_context(Some(2_500));
    let prepared = executor(&model).prepare(&of_diff(&diff, &[])).await.unwrap();
    let (review, _) = run(&executor(&model), &of_diff(&diff, &[])).await.unwrap();
    let asked = model.asked();
    assert!((2..=4).contains(&asked.len()), "{}", asked.len());
    assert!(asked[1].messages[1].content.contains(&format!("part 2 of {}", asked.len())));
    // The same issue in every part is one, and the quote was for what was read.
    assert_eq!((review.issues.len(), review.stats.files_reviewed, review.stats.lines_reviewed), (1, 2, 400));
    assert_eq!(prepared.estimate.prompt_tokens, review.tokens.prompt);
    let refusal = executor(&model).prepare(&of_diff(&file("a.rs", 2_000), &[])).await.unwrap_err();
    assert!(refusal.text.contains("at most 4 are given"), "{}", refusal.text);
}

#[tokio::test]
async fn bad_input_is_refused_before_anything_is_promised() {
    let model = ScriptedModel::saying([""]);
    let long = "x".repeat(39_000);
    let large = format!("{DIFF}\n{}", "x".repeat(70_000));
    let many: String =
        (0..21).map(|number| format!("diff --git a/{number} b/{number}\nnew file mode 100644\n")).collect();
    for (diff, params, named) in [
        ("not a diff", &[][..], "input diff: it holds no diff"),
        ("--- a/x\n+++ b/x\n@@ -1,5 +1 @@\n-1\n", &[], "input diff: line 5: the hunk ends"),
        ("--- a/../../x\n+++ b/../../x\n", &[], "line 1: the file's name can't be used"),
        (&large, &[], "at most 60000"),
        (&many, &[], "more than 20 files"),
        (DIFF, &[("model", "gpt-9")], "there is no 'gpt-9' here"),
        (DIFF, &[("guidelines", &long)], "shorten param guidelines"),
        (DIFF, &[("time_limit_secs", "121")], "at most 120 s"),
    ] {
        let refusal = executor(&model).prepare(&of_diff(diff, params)).await.unwrap_err();
        assert!(refusal.text.contains(named), "{named}: {}", refusal.text);
    }
    let repo = request(&[(InputKind::Url, "https://example.com/r", "repo")], &[("commit", "main")]);
    assert_eq!(executor(&model).prepare(&repo).await.unwrap_err().code, Code::Unsupported);
    assert!(model.asked().is_empty());
}

#[tokio::test]
async fn a_pull_request_is_fetched_before_the_quote() {
    let model = ScriptedModel::saying([answer("approve", "minor", &[2])]);
    let pages = FixedInputs::default()
        .url("https://example.com/r/pull/7.diff", DIFF)
        .url("https://example.com/r/pull/8.diff", "<html>Sign in</html>");
    let executor = CodeReviewExecutor::new(Arc::new(model.clone()), None, Arc::new(pages), LIMITS);
    let pull = |number: &str| {
        let url = format!("https://example.com/r/pull/{number}/files");
        request(&[(InputKind::Url, &url, "pr")], &[])
    };
    assert_eq!(run(&executor, &pull("7")).await.unwrap().0.issues.len(), 1);
    let no_diff = executor.prepare(&pull("8")).await.unwrap_err();
    assert!(no_diff.text.starts_with("input pr (url): it holds no diff"), "{}", no_diff.text);
    assert!(executor.prepare(&pull("9")).await.is_err());
}

fn part_of(whole: Msat, parts: u64) -> Msat {
    Msat::from_msat(whole.as_msat() / parts).unwrap()
}

#[tokio::test]
async fn a_bid_makes_answers_shorter_but_not_the_diff() {
    let model = ScriptedModel::saying([""]);
    let executor = executor(&model);
    let prepared = executor.prepare(&of_diff(DIFF, &[])).await.unwrap();
    let rates = Rates { per_1k_generated: Msat::sat(1), ..Rates::FREE };
    let price = |prepared: &Prepared| rates.cost(prepared.estimate.most());
    let whole = price(&prepared);
    let half = part_of(whole, 2);
    let smaller = executor.within(prepared.clone(), &rates, half);
    assert!(price(&smaller) <= half && price(&smaller) > part_of(whole, 3));
    assert_eq!(smaller.estimate.prompt_tokens, prepared.estimate.prompt_tokens);
    let tenth = part_of(whole, 10);
    assert_eq!(price(&executor.within(prepared, &rates, tenth)), whole);
}

#[tokio::test]
async fn time_and_cancellation_end_a_review() {
    let model = ScriptedModel::saying([Says::Hangs, Says::Hangs]);
    let limits =
        CodeReviewLimits { time: Bound { default: Duration::from_millis(50), max: Duration::from_secs(1) }, ..LIMITS };
    let slow = CodeReviewExecutor::new(Arc::new(model.clone()), None, Arc::new(TextOnly), limits);
    assert_eq!(run(&slow, &of_diff(DIFF, &[])).await.unwrap_err().code, Code::Timeout);
    let patient = executor(&model);
    let prepared = patient.prepare(&of_diff(DIFF, &[])).await.unwrap();
    let cancel = CancellationToken::new();
    let canceller = async {
        model.begun(2).await;
        cancel.cancel();
    };
    let (ended, ()) = tokio::join!(patient.run(&prepared, None, &cancel), canceller);
    assert_eq!(ended.unwrap_err().code, Code::Cancelled);
}

/// A repository with two commits and a branch, and who fetches from it.
async fn repository() -> Option<(GitServer, Repositories, tempfile::TempDir)> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let server = GitServer::start().await?;
    let repository = server.repository("r");
    repository.write("a.rs", "one\ntwo\n").write("b.bin", b"\0").commit("first");
    repository.git(&["branch", "old"]);
    repository.write("a.rs", "one\n2\n3\n").commit("second");
    let cache = tempfile::tempdir().unwrap();
    let limits = RepositoryLimits {
        max_bytes: 1_000_000,
        max_files: 100,
        time: Duration::from_secs(30),
        cache_bytes: 1_000_000,
        allow_private: true,
    };
    let repositories = Repositories::new(cache.path().to_owned(), limits);
    Some((server, repositories, cache))
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_repository_commits_files_and_what_lies_between_refs_are_reviewed() {
    let Some((server, repositories, _cache)) = repository().await else { return };
    let url = server.http_url("r");
    for (params, facts, lines) in [
        (&[("commit_0", "main")][..], 1, 4),
        (&[("commit_0", "old")], 1, 2),
        (&[("commit_0", "old"), ("commit_1", "main")], 2, 6),
        (&[("file_0", "a.rs")], 1, 3),
        (&[("file_0", "a.rs"), ("git_ref", "old")], 1, 2),
        (&[("base_ref", "old"), ("head_ref", "main")], 2, 4),
        (&[("base_ref", "old")], 2, 4),
    ] {
        let model = ScriptedModel::new(|_, _| answer("approve", "minor", &[1]).into());
        let executor =
            CodeReviewExecutor::new(Arc::new(model.clone()), Some(repositories.clone()), Arc::new(TextOnly), LIMITS);
        let (review, outcome) = run(&executor, &request(&[(InputKind::Url, &url, "repo")], params)).await.unwrap();
        assert_eq!(outcome.facts.iter().filter(|(key, _)| key == "commit").count(), facts, "{params:?}");
        assert_eq!((review.stats.lines_reviewed, review.issues.len()), (lines, 1), "{params:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_repository_does_not_have_is_refused() {
    let Some((server, repositories, _cache)) = repository().await else { return };
    let url = server.http_url("r");
    let model = ScriptedModel::saying([""]);
    let executor = CodeReviewExecutor::new(Arc::new(model), Some(repositories), Arc::new(TextOnly), LIMITS);
    for (params, named) in [
        (&[("commit_0", "nowhere")][..], "'nowhere'"),
        (&[("base_ref", "main"), ("head_ref", "main")], "the same commit"),
        (&[("file_0", "c.rs")], "'c.rs' is not in the commit"),
        (&[("file_0", "b.bin")], "'b.bin' is no text"),
    ] {
        let failure = run(&executor, &request(&[(InputKind::Url, &url, "repo")], params)).await.unwrap_err();
        assert!(failure.text.contains(named), "{named}: {}", failure.text);
    }
}
