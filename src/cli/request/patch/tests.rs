use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::plan::{Edit, PlainFile};
use super::*;
use crate::cli::prompt::Script;
use crate::job::RelativePath;

/// Files in memory; a text of `->` and more is a link.
struct Files(BTreeMap<&'static str, &'static str>);

impl Tree for Files {
    fn find(&self, path: &RelativePath) -> std::io::Result<Found> {
        Ok(match self.0.get(path.as_str()) {
            None => Found::Nothing,
            Some(text) if text.starts_with("->") => Found::Other,
            Some(text) => Found::File { content: text.as_bytes().to_vec(), executable: text.starts_with("#!") },
        })
    }
}

fn files() -> Files {
    Files(BTreeMap::from([
        ("src/lib.rs", "one\ntwo\nthree\n"),
        ("README", "hello\n"),
        ("run.sh", "#!/bin/sh\n"),
        ("link", "-> elsewhere"),
    ]))
}

fn path(text: &str) -> RelativePath {
    text.parse().unwrap()
}

fn after<'a>(edits: &'a Edits, name: &str) -> Option<&'a PlainFile> {
    edits.edits.iter().find(|edit| edit.path.as_str() == name).unwrap().after.as_ref()
}

const CHANGE: &str = "\
diff --git a/src/lib.rs b/src/lib.rs
--- a/src/lib.rs
+++ b/src/lib.rs
@@ -1,3 +1,3 @@
 one
-two
+2
 three
";

const EVERYTHING: &str = "\
diff --git a/README b/docs/README
similarity index 100%
rename from README
rename to docs/README
diff --git a/new.sh b/new.sh
new file mode 100755
--- /dev/null
+++ b/new.sh
@@ -0,0 +1 @@
+#!/bin/sh
diff --git a/run.sh b/run.sh
deleted file mode 100755
--- a/run.sh
+++ /dev/null
@@ -1 +0,0 @@
-#!/bin/sh
diff --git a/src/lib.rs b/src/lib.rs
--- a/src/lib.rs
+++ b/src/lib.rs
@@ -1,3 +1,4 @@
 one
 two
 three
+four
";

#[test]
fn a_diff_says_what_becomes_of_each_file() {
    let edits = plan(EVERYTHING, &files()).unwrap();
    let names: Vec<&str> = edits.edits.iter().map(|edit| edit.path.as_str()).collect();
    assert_eq!(names, ["README", "docs/README", "new.sh", "run.sh", "src/lib.rs"]);
    assert_eq!((after(&edits, "README"), after(&edits, "run.sh")), (None, None));
    assert_eq!(after(&edits, "docs/README").unwrap().content, b"hello\n");
    assert!(after(&edits, "new.sh").unwrap().executable);
    assert_eq!(after(&edits, "src/lib.rs").unwrap().content, b"one\ntwo\nthree\nfour\n");
    assert_eq!((edits.added, edits.removed), (2, 1));
}

#[test]
fn a_diff_without_git_s_headers_is_applied_too() {
    let plain = CHANGE.split_once('\n').unwrap().1;
    assert_eq!(after(&plan(plain, &files()).unwrap(), "src/lib.rs").unwrap().content, b"one\n2\nthree\n");
}

#[test]
fn a_diff_that_reaches_where_it_must_not_is_refused() {
    let make = |name: &str| {
        format!("diff --git a/{name} b/{name}\nnew file mode 100644\n--- /dev/null\n+++ b/{name}\n@@ -0,0 +1 @@\n+x\n")
    };
    for name in ["../outside", "/etc/passwd", "a/../../outside", "a//b"] {
        let refused = plan(&make(name), &files()).unwrap_err();
        assert!(matches!(refused, PatchError::Outside(_) | PatchError::NoDiff(_)), "{name}: {refused}");
    }
    for name in
        [".git/hooks/pre-commit", ".GIT/config", "sub/.git/config", ".git./x", "git~1/x", ".g\u{200c}it/x", ".git:x/y"]
    {
        let refused = plan(&make(name), &files()).unwrap_err();
        assert!(matches!(refused, PatchError::Git(_)), "{name}: {refused}");
    }
    assert!(plan(&make(".gitignore"), &files()).is_ok());
}

#[test]
fn links_submodules_and_binaries_are_refused() {
    let link = "diff --git a/l b/l\nnew file mode 120000\n--- /dev/null\n+++ b/l\n@@ -0,0 +1 @@\n+/etc\n\\ No newline at end of file\n";
    assert!(matches!(plan(link, &files()), Err(PatchError::Link(name)) if name == "l"));
    let submodule = link.replace("120000", "160000");
    assert!(matches!(plan(&submodule, &files()), Err(PatchError::Link(_))));
    let binary = "diff --git a/README b/README\nindex 1..2 100644\nBinary files a/README and b/README differ\n";
    assert!(matches!(plan(binary, &files()), Err(PatchError::Binary(_))));
    let through = CHANGE.replace("src/lib.rs", "link");
    assert!(matches!(plan(&through, &files()), Err(PatchError::NotAFile(_))));
}

#[test]
fn a_diff_that_does_not_fit_is_refused_whole() {
    let missing = CHANGE.replace("src/lib.rs", "src/main.rs");
    assert!(matches!(plan(&missing, &files()), Err(PatchError::Missing(_))));
    let other = CHANGE.replace("-two", "-zwei");
    assert!(matches!(plan(&other, &files()), Err(PatchError::DoesNotFit { .. })));
    let there = EVERYTHING.replace("new.sh", "README").split_off(EVERYTHING.find("diff --git a/new.sh").unwrap());
    assert!(matches!(plan(&there, &files()), Err(PatchError::Exists(name)) if name == "README"));
    let half_gone = "diff --git a/src/lib.rs b/src/lib.rs\ndeleted file mode 100644\n--- a/src/lib.rs\n+++ /dev/null\n@@ -1,2 +0,0 @@\n-one\n-two\n";
    assert!(matches!(plan(half_gone, &files()), Err(PatchError::DoesNotFit { .. })));
    assert!(matches!(plan(&format!("{CHANGE}{CHANGE}"), &files()), Err(PatchError::Twice(_))));
    let renamed = CHANGE.replace("+++ b/src/lib.rs", "+++ b/src/other.rs");
    assert!(plan(&renamed, &files()).is_err());
}

#[test]
fn what_is_no_diff_or_holds_something_unseen_is_refused() {
    for text in ["", "no diff at all", "diff --git a/README b/README\n", "@@ -1 +1 @@\n-a\n+b\n"] {
        assert!(plan(text, &files()).is_err(), "{text}");
    }
    // Behind the last part of git's, and without a header of its own: some programs would apply it.
    let hidden = format!("{CHANGE}--- a/README\n+++ b/README\n@@ -1 +1 @@\n-hello\n+goodbye\n");
    assert!(matches!(plan(&hidden, &files()), Err(PatchError::Ambiguous)));
}

/// The same files on the disk.
fn on_disk() -> (tempfile::TempDir, WorkTree) {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("src")).unwrap();
    for (name, text) in files().0 {
        if !text.starts_with("->") {
            fs::write(folder.path().join(name), text).unwrap();
        }
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(folder.path().join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let tree = WorkTree::at(folder.path());
    (folder, tree)
}

fn everything(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let place = entry.unwrap().path();
            let name = place.strip_prefix(folder).unwrap().to_string_lossy().into_owned();
            if place.is_dir() && !place.is_symlink() {
                found.insert(format!("{name}/"), Vec::new());
                folders.push(place);
            } else {
                found.insert(name, fs::read(&place).unwrap());
            }
        }
    }
    found
}

#[test]
fn edits_are_made_on_the_disk_and_nothing_else_is_left_there() {
    let (folder, tree) = on_disk();
    tree.write(&plan(EVERYTHING, &tree).unwrap().edits).unwrap();
    let names: Vec<String> = everything(folder.path()).into_keys().collect();
    assert_eq!(names, ["docs/", "docs/README", "new.sh", "src/", "src/lib.rs"]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = |name: &str| fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!((mode("new.sh") & 0o100, mode("docs/README") & 0o111), (0o100, 0));
    }
    // The folder goes with its last file.
    let gone = "diff --git a/docs/README b/docs/README\ndeleted file mode 100644\n--- a/docs/README\n+++ /dev/null\n@@ -1 +0,0 @@\n-hello\n";
    tree.write(&plan(gone, &tree).unwrap().edits).unwrap();
    assert!(!folder.path().join("docs").exists());
}

#[test]
fn an_edit_that_fails_takes_the_others_back() {
    let (folder, tree) = on_disk();
    let mut edits = plan(EVERYTHING, &tree).unwrap().edits;
    // The last one can't be put where a folder is that holds something.
    fs::create_dir_all(folder.path().join("zzz/full")).unwrap();
    let before = everything(folder.path());
    edits.push(Edit {
        path: path("zzz"),
        before: None,
        after: Some(PlainFile { content: b"x".to_vec(), executable: false }),
    });
    // The check beforehand would find it; somebody makes the folder after that.
    let problem = tree.put_all(&edits).unwrap_err();
    assert!(matches!(&problem, PatchError::Write { path, .. } if path == "zzz"), "{problem}");
    assert_eq!(everything(folder.path()), before);
    assert!(matches!(tree.write(&edits), Err(PatchError::Moved(name)) if name == "zzz"));
    assert_eq!(everything(folder.path()), before);
}

#[test]
fn a_file_that_changes_while_the_patch_is_looked_at_is_left_alone() {
    let (folder, tree) = on_disk();
    let edits = plan(CHANGE, &tree).unwrap().edits;
    fs::write(folder.path().join("src/lib.rs"), "one\ntwo\nthree\nmine\n").unwrap();
    assert!(matches!(tree.write(&edits), Err(PatchError::Moved(_))));
    assert_eq!(fs::read_to_string(folder.path().join("src/lib.rs")).unwrap(), "one\ntwo\nthree\nmine\n");
}

#[cfg(unix)]
#[test]
fn a_link_in_the_tree_leads_no_patch_out_of_it() {
    let (folder, tree) = on_disk();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("lib.rs"), "one\ntwo\nthree\n").unwrap();
    std::os::unix::fs::symlink(outside.path(), folder.path().join("behind")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("lib.rs"), folder.path().join("same.rs")).unwrap();
    for name in ["behind/lib.rs", "same.rs"] {
        let refused = plan(&CHANGE.replace("src/lib.rs", name), &tree).unwrap_err();
        assert!(matches!(refused, PatchError::NotAFile(_)), "{name}: {refused}");
    }
    let new =
        "diff --git a/behind/x b/behind/x\nnew file mode 100644\n--- /dev/null\n+++ b/behind/x\n@@ -0,0 +1 @@\n+x\n";
    assert!(matches!(plan(new, &tree), Err(PatchError::NotAFile(_))));
}

#[test]
fn somebody_at_a_terminal_is_asked_before_it_is_applied() {
    let (folder, tree) = on_disk();
    let quiet = Globals { quiet: true, ..Globals::default() };
    let lib = || fs::read_to_string(folder.path().join("src/lib.rs")).unwrap();
    assert!(apply(CHANGE, &tree, false, &mut Script::new(&["n"]), &quiet).is_err());
    // An empty answer is no yes.
    assert!(apply(CHANGE, &tree, false, &mut Script::new(&[""]), &quiet).is_err());
    assert_eq!(lib(), "one\ntwo\nthree\n");
    let mut nobody_asked = Script::new(&[]);
    apply(CHANGE, &tree, true, &mut nobody_asked, &quiet).unwrap();
    assert_eq!((lib().as_str(), nobody_asked.transcript.len()), ("one\n2\nthree\n", 0));
    // It is applied once.
    assert!(apply(CHANGE, &tree, false, &mut Script::new(&["y"]), &quiet).is_err());
}

#[test]
fn an_order_is_read_by_the_provider_as_it_was_meant() {
    use clap::Parser as _;
    #[derive(clap::Parser)]
    struct Typed {
        #[command(flatten)]
        args: PatchArgs,
    }
    let words = ["patch", "fix the typo", "--repo", "https://example.com/a/b", "--ref", "v1", "--test", "make test"];
    let more =
        ["--include", "src/**", "--exclude", "**/gen/**", "--time", "20m", "--issue-url", "https://example.com/1"];
    let args = Typed::parse_from(words.into_iter().chain(more)).args;
    let wanted = args.wanted(&Globals { quiet: true, ..Globals::default() }).unwrap();
    assert_eq!(wanted.time_limit, Some(Duration::from_secs(1_200)));
    let read = wanted
        .read_with(|request| crate::job::patch_gen::PatchGen::parse(request, &PatchGenLimits::default()))
        .unwrap();
    assert_eq!((read.issue.as_str(), read.verified_with()), ("fix the typo", Some("make test")));
    assert_eq!((&read.include[..], &read.exclude[..]), (&["src/**".to_owned()][..], &["**/gen/**".to_owned()][..]));
    assert_eq!(read.time_limit, Some(Duration::from_secs(1_200)));
}
