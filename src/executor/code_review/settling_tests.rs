use super::*;
use crate::code::diff::{DiffLimits, read};
use crate::job::code_review::Category;

const DIFF: &str =
    "--- a/a.rs\n+++ b/a.rs\n@@ -1,2 +1,4 @@\n one\n-two\n+2\n+3\n+4\n--- a/b.rs\n+++ b/b.rs\n@@ -7 +7 @@\n-x\n+y\n";

fn material() -> Material {
    Material::of_diff(&read(DIFF, DiffLimits { bytes: 10_000, files: 10 }).unwrap())
}

fn frame(material: &Material) -> Frame<'_> {
    Frame {
        material,
        include_nits: false,
        model: "m",
        tokens: TokenCounts { prompt: 9, generated: 3 },
        most_bytes: 30_000,
    }
}

fn issue(path: &str, line: Option<u32>, end_line: Option<u32>, severity: Severity) -> SaidIssue {
    SaidIssue {
        path: path.into(),
        line,
        end_line,
        severity,
        category: Category::Bug,
        title: "A bug".into(),
        description: "It is wrong.".into(),
        suggestion: Some(String::new()),
    }
}

fn said(status: Verdict, issues: Vec<SaidIssue>) -> Said {
    Said { status, summary: "Changes a.".into(), issues }
}

#[test]
fn issues_about_what_was_not_shown_are_dropped() {
    use Severity::Minor;
    let grounded = [
        issue("a.rs", Some(1), None, Minor),
        issue("a.rs", Some(2), Some(4), Minor),
        issue("b.rs", Some(7), Some(7), Minor),
        issue("b.rs", Some(0), Some(0), Minor),
    ];
    let made_up = [
        issue("c.rs", None, None, Minor),
        issue("../a.rs", None, None, Minor),
        issue("", None, None, Minor),
        issue("a.rs", Some(5), None, Minor),
        issue("a.rs", Some(2), Some(90), Minor),
        issue("a.rs", Some(4), Some(2), Minor),
        issue("a.rs", None, Some(2), Minor),
        issue("b.rs", Some(u32::MAX), None, Minor),
        SaidIssue { title: " ".into(), ..issue("a.rs", None, None, Minor) },
    ];
    let all = grounded.iter().chain(&made_up).cloned().collect();
    let material = material();
    let review = settle(vec![said(Verdict::Comment, all)], &frame(&material)).unwrap();
    let places: Vec<_> = review.issues.iter().map(|issue| (issue.path.as_str(), issue.line, issue.end_line)).collect();
    assert_eq!(
        places,
        [("a.rs", Some(1), None), ("a.rs", Some(2), Some(4)), ("b.rs", None, None), ("b.rs", Some(7), None)]
    );
    assert_eq!(
        (review.stats.issues, review.stats.minor, review.stats.files_reviewed, review.stats.lines_reviewed),
        (4, 4, 2, 7)
    );
    assert!(review.is_sealed());
    // A verdict that rests on what was made up is none.
    let only_made_up = settle(vec![said(Verdict::RequestChanges, made_up.to_vec())], &frame(&material)).unwrap();
    assert_eq!((only_made_up.status, only_made_up.issues.len()), (Verdict::Comment, 0));
}

#[test]
fn parts_make_one_review_with_the_strictest_verdict() {
    let material = material();
    let parts = vec![
        Said {
            summary: "First.".into(),
            ..said(Verdict::Approve, vec![issue("b.rs", Some(7), None, Severity::Minor)])
        },
        Said {
            summary: "Second.".into(),
            ..said(Verdict::Comment, vec![issue("a.rs", Some(2), None, Severity::Critical)])
        },
        Said { summary: " ".into(), ..said(Verdict::Approve, vec![issue("b.rs", Some(7), None, Severity::Minor)]) },
    ];
    let review = settle(parts, &frame(&material)).unwrap();
    assert_eq!((review.status, review.summary.as_str()), (Verdict::RequestChanges, "First.\n\nSecond."));
    assert_eq!(
        review.issues.iter().map(|issue| issue.severity).collect::<Vec<_>>(),
        [Severity::Critical, Severity::Minor]
    );
    assert_eq!((review.stats.critical, review.stats.minor), (1, 1));
}

#[test]
fn nits_are_told_when_they_are_wanted() {
    let material = material();
    let nit = || vec![said(Verdict::Approve, vec![issue("a.rs", Some(1), None, Severity::Nit)])];
    assert_eq!(settle(nit(), &frame(&material)).unwrap().stats.nits, 0);
    let wanted = Frame { include_nits: true, ..frame(&material) };
    assert_eq!(settle(nit(), &wanted).unwrap().stats.nits, 1);
}

#[test]
fn a_review_fits_into_an_event_and_leaves_out_the_mildest_first() {
    let material = material();
    let long = |severity, title: String| SaidIssue {
        title,
        description: "x\u{1b}é\"".repeat(2_000),
        suggestion: Some("y".repeat(5_000)),
        ..issue("a.rs", Some(2), None, severity)
    };
    let issues = (0..30).map(|number| {
        let severity = if number % 2 == 0 { Severity::Major } else { Severity::Minor };
        long(severity, format!("{number} {}", "t".repeat(500)))
    });
    let review = settle(vec![said(Verdict::Approve, issues.collect())], &frame(&material)).unwrap();
    let text = serde_json::to_string(&review).unwrap();
    assert!(text.len() <= 30_000 && text.len() > 20_000, "{}", text.len());
    assert!(review.summary.contains("milder issues are left out"));
    assert_eq!((review.status, review.stats.minor), (Verdict::RequestChanges, 0));
    assert!(!text.contains("\\u001b"));
}

#[test]
fn a_review_of_nothing_wrong_is_a_review() {
    let material = material();
    let review = settle(vec![said(Verdict::Approve, Vec::new())], &frame(&material)).unwrap();
    assert_eq!((review.status, review.issues.len()), (Verdict::Approve, 0));
}

#[test]
fn the_published_example_is_a_review_of_the_published_form() {
    let page = include_str!("../../../nips/5933.md");
    let blocks = page.split("```json\n").skip(1).map(|block| block.split("```").next().unwrap());
    let examples: Vec<Value> = blocks.map(|block| serde_json::from_str(block).unwrap()).collect();
    let content = examples.iter().map(|example| &example["content"]).find(|content| content.is_object()).unwrap();
    let form: Value = serde_json::from_str(SCHEMA).unwrap();
    assert_eq!(schema::matches(&form, content), Ok(()));
    let review: Review = serde_json::from_value(content.clone()).unwrap();
    assert!(review.is_sealed(), "{}", review.hash());
}

#[test]
fn the_published_form_knows_what_is_no_review() {
    let form: Value = serde_json::from_str(SCHEMA).unwrap();
    let material = material();
    let said = said(Verdict::Comment, vec![issue("a.rs", Some(2), Some(3), Severity::Minor)]);
    let review = serde_json::to_value(settle(vec![said], &frame(&material)).unwrap()).unwrap();
    assert_eq!(schema::matches(&form, &review), Ok(()));
    let spoiled: [fn(&mut Value); 6] = [
        |review| review["status"] = "LGTM".into(),
        |review| review["issues"][0]["severity"] = "high".into(),
        |review| review["issues"][0]["line"] = 0.into(),
        |review| drop(review["issues"][0].as_object_mut().unwrap().remove("line")),
        |review| review["more"] = true.into(),
        |review| review["review_sha256"] = "AB".into(),
    ];
    for spoil in spoiled {
        let mut review = review.clone();
        spoil(&mut review);
        assert!(schema::matches(&form, &review).is_err(), "{review}");
    }
}
