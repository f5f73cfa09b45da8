use super::*;

const LIMITS: DiffLimits = DiffLimits { bytes: 64 * 1024, files: 8 };

fn files(text: &str) -> Vec<FileDiff> {
    super::read(text, LIMITS).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn error(text: &str) -> DiffError {
    super::read(text, LIMITS).unwrap_err()
}

fn names(file: &FileDiff) -> (Option<&str>, Option<&str>) {
    (file.old.as_ref().map(RelativePath::as_str), file.new.as_ref().map(RelativePath::as_str))
}

const MAIL: &str = "\
From 5f1c0a Mon Sep 17 00:00:00 2001
From: Ann <ann@example.com>
Subject: [PATCH] Say less

- not a change
+ neither
---
 a.txt | 3 ++-
 1 file changed, 2 insertions(+), 1 deletion(-)

diff --git a/a.txt b/a.txt
index 4294967..6c493ff 100644
--- a/a.txt
+++ b/a.txt
@@ -1,3 +1,4 @@ fn main
 one
-two
+2
+2.5

@@ -10 +11,0 @@
-ten
\\ No newline at end of file
-- 
2.39.5

";

#[test]
fn a_mail_with_a_patch_is_read_with_its_numbers() {
    let [file] = &files(MAIL)[..] else { panic!("one file") };
    assert_eq!(names(file), (Some("a.txt"), Some("a.txt")));
    assert_eq!((file.added(), file.removed(), file.binary), (2, 2, false));
    let shown: Vec<(Option<u32>, &str)> = file.numbered().map(|(at, line)| (at, line.text.as_str())).collect();
    let expected = [(Some(1), "one"), (None, "two"), (Some(2), "2"), (Some(3), "2.5"), (Some(4), ""), (None, "ten")];
    assert_eq!(shown, expected);
}

#[test]
fn every_kind_of_change_names_its_file() {
    for (text, old, new) in [
        ("diff --git a/x b/x\nold mode 100644\nnew mode 100755\n", Some("x"), Some("x")),
        ("diff --git a/x b/x\nnew file mode 100644\nindex 0000000..e69de29\n", None, Some("x")),
        ("diff --git a/x b/x\ndeleted file mode 100644\nindex e69de29..0000000\n", Some("x"), None),
        ("diff --git a/p q b/p q\nnew file mode 100644\n", None, Some("p q")),
        ("diff --git \"a/\\303\\274 \\\"x\" \"b/\\303\\274 \\\"x\"\nnew file mode 100644\n", None, Some("ü \"x")),
        ("diff --git a/x b/y\nsimilarity index 100%\nrename from x\nrename to y\n", Some("x"), Some("y")),
        ("diff --git a/x b/y\ncopy from x\ncopy to \"\\171\"\n", Some("x"), Some("y")),
        ("diff --git a/x b/x\nindex 1..2 100644\nBinary files a/x and b/x differ\n", Some("x"), Some("x")),
        (
            "diff --git a/x b/x\nindex 1..2 100644\nGIT binary patch\nliteral 1\nIc$@\n\nliteral 0\nH\n",
            Some("x"),
            Some("x"),
        ),
        ("Binary files one/x.png and two/x.png differ\n", Some("x.png"), Some("x.png")),
        ("--- a/x\n+++ b/x\n@@ -1 +1 @@\n-1\n+2\n", Some("x"), Some("x")),
        ("--- src/x\n+++ src/x\n@@ -1 +1 @@\n-1\n+2\n", Some("src/x"), Some("src/x")),
        ("--- one/src/x\t2024-01-01\n+++ two/src/x\t2024-01-02\n@@ -1 +1 @@\n-1\n+2\n", Some("src/x"), Some("src/x")),
        ("--- x.orig\n+++ x\n@@ -1 +1 @@\n-1\n+2\n", Some("x.orig"), Some("x")),
        ("--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+2", None, Some("x")),
        ("--- a/x\r\n+++ /dev/null\r\n@@ -1 +0,0 @@\r\n-2\r\n", Some("x"), None),
        ("Index: x\n====\n--- i/x\t(revision 1)\n+++ w/x\t(working copy)\n@@ -1 +1 @@\n-1\n+2\n", Some("x"), Some("x")),
    ] {
        let read = files(text);
        assert_eq!(read.iter().map(names).collect::<Vec<_>>(), [(old, new)], "{text}");
        assert_eq!(read[0].binary, text.to_lowercase().contains("binary"));
    }
}

#[test]
fn what_cannot_be_read_is_never_passed_over() {
    let head = "--- a/x\n+++ b/x\n";
    for (text, line, problem) in [
        ("@@ -1 +1 @@\n-1\n+2\n".to_owned(), 1, Problem::HunkAlone),
        (format!("{head}@@ one @@\n"), 3, Problem::HunkHeader),
        (format!("{head}@@ -1,99999999999 +1 @@\n"), 3, Problem::HunkHeader),
        (format!("{head}@@ -1,4294967295 +1 @@\n"), 3, Problem::HunkHeader),
        (format!("{head}@@ -1,2 +1 @@\n-1\n"), 5, Problem::HunkShort),
        (format!("{head}@@ -1,2 +1,2 @@\n-1\n+1\n@@ -9 +9 @@\n"), 6, Problem::HunkShort),
        (format!("{head}@@ -1 +1 @@\n-1\n+2\n+3\n"), 6, Problem::HunkLong),
        (format!("{head}@@ -1 +1 @@\n-1\n-2\n+3\n"), 5, Problem::HunkLong),
        (format!("{head}@@ -1 +1 @@\n-1\n+2\n--- three\n"), 6, Problem::HunkLong),
        (format!("{head}@@ -1 +1 @@\n-1\n+2\nso much for this\n@@ -9 +9 @@\n-1\n+2\n"), 7, Problem::HunkAlone),
        ("diff --cc x\n".to_owned(), 1, Problem::Combined),
        ("diff --git a/x b/other\n".to_owned(), 1, Problem::Name),
        ("diff --git x\n".to_owned(), 1, Problem::Name),
        ("diff --git \"a/\\9\" \"b/\\9\"\n".to_owned(), 1, Problem::Name),
        ("--- /dev/null\n+++ /dev/null\n".to_owned(), 1, Problem::Name),
        ("--- a/../x\n+++ b/../x\n".to_owned(), 1, Problem::Path(BadPath::Climbs)),
        ("--- a//etc/passwd\n+++ b//etc/passwd\n".to_owned(), 1, Problem::Path(BadPath::Absolute)),
        ("--- \"a/x\\n\"\n+++ \"b/x\\n\"\n".to_owned(), 1, Problem::Path(BadPath::Control)),
    ] {
        assert_eq!(error(&text), DiffError::Line { line, problem }, "{text}");
    }
    for text in ["", "hello", "*** a\n--- b\n***************\n", "---\n+++\n", "+ a\n- b\n"] {
        assert_eq!(error(text), DiffError::NoDiff, "{text}");
    }
}

#[test]
fn a_diff_is_bounded() {
    let file = "diff --git a/x b/x\nnew file mode 100644\n";
    assert_eq!(files(&file.repeat(8)).len(), 8);
    assert_eq!(error(&file.repeat(9)), DiffError::TooManyFiles { limit: 8 });
    let large = "x".repeat(LIMITS.bytes + 1);
    assert_eq!(error(&large), DiffError::TooLarge { bytes: LIMITS.bytes + 1, limit: LIMITS.bytes });
}

proptest::proptest! {
    #[test]
    fn whatever_is_sent_is_read_or_refused(lines in proptest::collection::vec(
        proptest::prop_oneof![
            "diff --git a/[a-z\" ]{0,4} b/[a-z\" ]{0,4}", "--- (a/)?[a-z/\"\\\\]{0,5}", "\\+\\+\\+ (b/)?[a-z/]{0,5}",
            "@@ -[0-9]{1,2}(,[0-9])? \\+[0-9]{1,2}(,[0-9])? @@", "[-+ ][a-z]{0,3}", "\\\\ No newline", "rename (from|to) [a-z]",
            "(new|deleted) file mode 100644", "GIT binary patch", "Binary files [a-z ]{0,9} differ", "\\PC{0,9}", "\r?",
        ], 0..24)) {
        if let Ok(files) = super::read(&lines.join("\n"), LIMITS) {
            for file in files {
                let _ = (file.path(), file.added(), file.numbered().count());
            }
        }
    }
}
