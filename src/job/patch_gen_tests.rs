use super::super::{Input, JobKind, Params};
use super::*;
use crate::testing::requests;

fn request(inputs: &[(InputKind, &str, &str)], params: &[(&str, &[&str])]) -> JobRequest {
    let mut list = Params::default();
    for (key, values) in params {
        list.push(key, values.iter().map(|value| (*value).to_owned()).collect());
    }
    let input = |(kind, data, marker): &(InputKind, &str, &str)| Input {
        data: (*data).to_owned(),
        kind: *kind,
        relay: None,
        marker: (!marker.is_empty()).then(|| (*marker).to_owned()),
    };
    JobRequest { inputs: inputs.iter().map(input).collect(), params: list, ..requests::blank(JobKind::PatchGen) }
}

const REPO: (InputKind, &str, &str) = (InputKind::Url, "https://example.com/r", "repo");
const ISSUE: (InputKind, &str, &str) = (InputKind::Text, "It crashes.", "issue");

fn read(inputs: &[(InputKind, &str, &str)], params: &[(&str, &[&str])]) -> Result<PatchGen, Refusal> {
    PatchGen::parse(&request(inputs, params), &PatchGenLimits::default())
}

#[test]
fn a_request_says_where_what_and_how_it_is_tested() {
    let params: &[(&str, &[&str])] = &[
        ("git-ref", &["main"]),
        ("test_command", &["make test"]),
        ("time_limit_secs", &["120"]),
        ("model", &["m"]),
        ("context", &["Small."]),
        ("issue_url", &["https://example.com/1"]),
        ("include_1", &["src/**"]),
        ("include_0", &["docs/"]),
        ("disallowed_paths", &["src/gen", "ci"]),
    ];
    let expected = PatchGen {
        repository: AskedRepository { url: "https://example.com/r".into(), reference: Some("main".into()) },
        issue: "It crashes.\n\nOften.".into(),
        issue_url: Some("https://example.com/1".into()),
        context: Some("Small.".into()),
        test_command: Some("make test".into()),
        run_tests: true,
        model: Some("m".into()),
        time_limit: Some(Duration::from_secs(120)),
        include: vec!["docs/".into(), "src/**".into()],
        exclude: vec!["src/gen".into(), "ci".into()],
    };
    let asked = read(&[REPO, ISSUE, (InputKind::Text, "Often.", "")], params).unwrap();
    assert_eq!(asked, expected);
    assert_eq!(asked.verified_with(), Some("make test"));
    let untested = read(&[REPO, ISSUE], &[("test_command", &["make"]), ("run_tests", &["false"])]).unwrap();
    assert_eq!((untested.verified_with(), untested.test_command.as_deref()), (None, Some("make")));
}

#[test]
#[allow(clippy::type_complexity)] // A table.
fn what_is_wrong_is_refused_by_name() {
    let long = "x".repeat(40_000);
    let cases: &[(&[(InputKind, &str, &str)], &[(&str, &[&str])], &str)] = &[
        (&[ISSUE], &[], "no repository"),
        (&[REPO], &[], "no issue"),
        (&[REPO, (InputKind::Text, " \n", "issue")], &[], "no issue"),
        (&[REPO, REPO, ISSUE], &[], "second repository"),
        (&[REPO, ISSUE, (InputKind::Event, "00", "issue")], &[], "type event"),
        (&[REPO, (InputKind::Text, &long, "issue")], &[], "40000 bytes"),
        (&[REPO, ISSUE], &[("context", &[long.as_str()])], "param context"),
        (&[REPO, ISSUE], &[("test_command", &["a\0b"])], "param test_command"),
        (&[REPO, ISSUE], &[("git_ref", &["--upload-pack=x"])], "param git_ref"),
        (&[REPO, ISSUE], &[("time_limit_secs", &["86400"])], "at most 1800 s"),
        (&[REPO, ISSUE], &[("run_tests", &["perhaps"])], "param run_tests"),
        (&[REPO, ISSUE], &[("include", &["../etc"])], "param include"),
        (&[REPO, ISSUE], &[("exclude_0", &["["])], "param exclude"),
        (&[REPO, ISSUE], &[("include", &["a"; 65])], "param include"),
        (&[REPO, ISSUE], &[("model", &["a\nb"])], "param model"),
    ];
    for (inputs, params, named) in cases {
        let refusal = read(inputs, params).unwrap_err();
        assert!(refusal.text.contains(*named), "{named}: {}", refusal.text);
    }
    let json = JobRequest { output: Some("application/json".into()), ..request(&[REPO, ISSUE], &[]) };
    assert!(PatchGen::parse(&json, &PatchGenLimits::default()).unwrap_err().text.contains("text/x-diff"));
}

#[test]
fn what_is_said_of_a_patch_is_read_as_it_was_written() {
    let facts = PatchFacts {
        patch_sha256: "ab".repeat(32),
        commit: "cd".repeat(20),
        applies_cleanly: true,
        test_exit_code: Some(0),
        files_changed: 2,
        lines_added: 30,
        lines_removed: 4,
        model: Some("m".into()),
        steps: 9,
        transcript_sha256: Some("ef".repeat(32)),
        image_digest: Some("sha256:00".into()),
        runtime: Some("runsc".into()),
    };
    assert_eq!(PatchFacts::read(&facts.pairs()), facts);
    let untested = PatchFacts { test_exit_code: None, model: None, ..facts };
    assert_eq!(PatchFacts::read(&untested.pairs()), untested);
    assert_eq!(PatchFacts::read(&[("lines_added".into(), "many".into())]), PatchFacts::default());
}
