use super::super::{JobKind, Params};
use super::*;
use crate::testing::requests;

fn request(inputs: &[(InputKind, &str, &str)], params: &[(&str, &str)]) -> JobRequest {
    let mut list = Params::default();
    for (key, value) in params {
        list.push(key, vec![(*value).to_owned()]);
    }
    let input = |(kind, data, marker): &(InputKind, &str, &str)| Input {
        data: (*data).to_owned(),
        kind: *kind,
        relay: None,
        marker: (!marker.is_empty()).then(|| (*marker).to_owned()),
    };
    JobRequest { inputs: inputs.iter().map(input).collect(), params: list, ..requests::blank(JobKind::CodeReview) }
}

fn read(inputs: &[(InputKind, &str, &str)], params: &[(&str, &str)]) -> Result<CodeReview, Refusal> {
    CodeReview::parse(&request(inputs, params), &CodeReviewLimits::default())
}

const DIFF: (InputKind, &str, &str) = (InputKind::Text, "--- a/x\n+++ b/x\n", "diff");
const REPO: (InputKind, &str, &str) = (InputKind::Url, "https://example.com/r", "repo");

#[test]
fn every_way_to_say_what_is_reviewed_is_read() {
    let repository = AskedRepository { url: "https://example.com/r".into(), reference: None };
    let bare = (InputKind::Url, "https://example.com/r", "");
    let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    for (input, params, expected) in [
        (DIFF, &[][..], Reviewed::Diff(DIFF.1.into())),
        ((InputKind::Text, DIFF.1, ""), &[], Reviewed::Diff(DIFF.1.into())),
        ((InputKind::Url, "https://x.example/1", "pr"), &[], Reviewed::Pull("https://x.example/1".into())),
        (bare, &[], Reviewed::Pull("https://example.com/r".into())),
        (
            REPO,
            &[("commit_0", "abc"), ("commit_1", "main")],
            Reviewed::Commits(repository.clone(), words(&["abc", "main"])),
        ),
        (bare, &[("commit", "abc")], Reviewed::Commits(repository.clone(), words(&["abc"]))),
        (REPO, &[("file_0", "./src/a.rs")], Reviewed::Files(repository.clone(), vec!["src/a.rs".parse().unwrap()])),
        (
            REPO,
            &[("base-ref", "v1"), ("head_ref", "v2")],
            Reviewed::Between { repository: repository.clone(), base: "v1".into(), head: Some("v2".into()) },
        ),
        (REPO, &[("base_ref", "v1")], Reviewed::Between { repository, base: "v1".into(), head: None }),
    ] {
        assert_eq!(read(&[input], params).unwrap().reviewed, expected);
    }
}

#[test]
fn the_other_wishes_are_read() {
    let params = [
        ("focus_0", "security"),
        ("focus_1", "locks"),
        ("include_nits", "1"),
        ("guidelines", "Be kind."),
        ("timeout-secs", "60"),
    ];
    let asked = read(&[DIFF], &params).unwrap();
    assert_eq!(asked.focus, ["security", "locks"]);
    assert_eq!((asked.include_nits, asked.guidelines.as_deref()), (true, Some("Be kind.")));
    assert_eq!(asked.time_limit, Some(Duration::from_secs(60)));
}

#[test]
fn what_is_wrong_is_refused_by_name() {
    let long = "x".repeat(200_000);
    for (inputs, params, named) in [
        (&[][..], &[][..], "nothing to review"),
        (&[REPO], &[], "commit_0"),
        (&[DIFF, REPO], &[("commit", "a")], "several things"),
        (&[DIFF], &[("commit", "a")], "several things"),
        (&[], &[("commit", "a")], "no repository"),
        (&[REPO], &[("commit", "a"), ("file", "b")], "exclude each other"),
        (&[REPO], &[("head_ref", "b")], "base_ref"),
        (&[REPO], &[("commit", "-rf")], "param commit"),
        (&[REPO], &[("file_0", "../x")], "param file_0"),
        (&[REPO], &[("base_ref", "a b")], "param base_ref"),
        (&[(InputKind::Text, &long, "diff")], &[], "200000 bytes"),
        (&[(InputKind::Job, "0", "diff")], &[], "type job"),
        (&[(InputKind::Text, "x", "issue")], &[], "'issue'"),
        (&[DIFF], &[("time_limit_secs", "901")], "param time_limit_secs"),
        (&[DIFF], &[("include_nits", "maybe")], "param include_nits"),
    ] {
        let refusal = read(inputs, params).unwrap_err();
        assert!(refusal.text.contains(named), "{named}: {}", refusal.text);
    }
    let mut markdown = request(&[DIFF], &[]);
    markdown.output = Some("text/markdown".into());
    assert!(CodeReview::parse(&markdown, &CodeReviewLimits::default()).unwrap_err().text.contains("application/json"));
}

fn issue(severity: Severity) -> Issue {
    Issue {
        path: "src/a.rs".parse().unwrap(),
        line: Some(3),
        end_line: None,
        severity,
        category: Category::Bug,
        title: "Off by one".into(),
        description: "Reads \"past\" the end.\n\tü".into(),
        suggestion: None,
    }
}

#[test]
fn a_verdict_fits_what_was_found() {
    use Severity::{Critical, Major, Minor, Nit};
    for (said, found, dropped, verdict) in [
        (Verdict::Approve, &[][..], 0, Verdict::Approve),
        (Verdict::Approve, &[Minor, Nit], 0, Verdict::Approve),
        (Verdict::Approve, &[Nit, Major], 0, Verdict::RequestChanges),
        (Verdict::Comment, &[Critical], 0, Verdict::RequestChanges),
        (Verdict::Comment, &[], 2, Verdict::Comment),
        (Verdict::RequestChanges, &[Minor], 1, Verdict::RequestChanges),
        (Verdict::RequestChanges, &[], 0, Verdict::RequestChanges),
        (Verdict::RequestChanges, &[], 1, Verdict::Comment),
    ] {
        let issues: Vec<Issue> = found.iter().copied().map(issue).collect();
        assert_eq!(Verdict::of(said, &issues, dropped), verdict, "{said} {found:?} {dropped}");
    }
}

#[test]
fn the_hash_is_of_the_rest_in_one_order() {
    let issues = vec![issue(Severity::Major), issue(Severity::Nit)];
    let stats = Stats::of(1, 40, &issues);
    assert_eq!((stats.issues, stats.critical, stats.major, stats.minor, stats.nits), (2, 0, 1, 0, 1));
    let review = Review {
        status: Verdict::RequestChanges,
        summary: "One bug.".into(),
        issues: vec![issue(Severity::Major)],
        stats: Stats::of(1, 40, &issues[..1]),
        review_sha256: String::new(),
        model: "m".into(),
        tokens: TokenCounts { prompt: 7, generated: 5 },
    }
    .sealed();
    let text = "{\"issues\":[{\"category\":\"bug\",\"description\":\"Reads \\\"past\\\" the end.\\n\\tü\",\"line\":3,\"path\":\
                \"src/a.rs\",\"severity\":\"major\",\"title\":\"Off by one\"}],\"model\":\"m\",\"stats\":{\"critical\":0,\
                \"files_reviewed\":1,\"issues\":1,\"lines_reviewed\":40,\"major\":1,\"minor\":0,\"nits\":0},\"status\":\
                \"request_changes\",\"summary\":\"One bug.\",\"tokens\":{\"generated\":5,\"prompt\":7}}";
    use bitcoin::hashes::{Hash, sha256};
    assert_eq!(review.review_sha256, sha256::Hash::hash(text.as_bytes()).to_string());
    assert!(review.is_sealed());
    assert!(!Review { summary: "No bug.".into(), ..review }.is_sealed());
}
