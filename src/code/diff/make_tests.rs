use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;
use crate::code::diff::{DiffLimits, read};
use crate::testing::require;

const LIMITS: PatchLimits = PatchLimits { bytes: 1_000_000, files: 100 };

/// Files by their names.
type Tree = BTreeMap<String, (Mode, Vec<u8>)>;

fn tree(files: &[(&str, Mode, &str)]) -> Tree {
    files.iter().map(|(name, mode, content)| ((*name).to_owned(), (*mode, content.as_bytes().to_vec()))).collect()
}

fn patch_of(old: &Tree, new: &Tree) -> Result<Patch, PatchError> {
    let mut builder = PatchBuilder::new(LIMITS);
    let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for name in names {
        builder.change(&name.parse().unwrap(), version(old, name), version(new, name))?;
    }
    Ok(builder.finish())
}

fn version<'t>(tree: &'t Tree, name: &str) -> Option<Version<'t>> {
    tree.get(name).map(|(mode, content)| Version { mode: *mode, content })
}

fn write(folder: &Path, tree: &Tree) {
    for (name, (mode, content)) in tree {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match mode {
            Mode::Link => std::os::unix::fs::symlink(String::from_utf8_lossy(content).as_ref(), &path).unwrap(),
            Mode::File | Mode::Executable => {
                fs::write(&path, content).unwrap();
                let bits = if *mode == Mode::Executable { 0o755 } else { 0o644 };
                fs::set_permissions(&path, fs::Permissions::from_mode(bits)).unwrap();
            }
        }
    }
}

fn list(folder: &Path, below: &str, found: &mut Tree) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{below}{}", entry.file_name().to_str().unwrap());
        let kind = entry.file_type().unwrap();
        if kind.is_symlink() {
            let target = fs::read_link(entry.path()).unwrap();
            found.insert(name, (Mode::Link, target.to_str().unwrap().as_bytes().to_vec()));
        } else if kind.is_dir() {
            list(&entry.path(), &format!("{name}/"), found);
        } else {
            let runs = entry.metadata().unwrap().permissions().mode() & 0o111 != 0;
            let mode = if runs { Mode::Executable } else { Mode::File };
            found.insert(name, (mode, fs::read(entry.path()).unwrap()));
        }
    }
}

fn there_is_git() -> bool {
    let there = Command::new("git").arg("--version").output().is_ok_and(|output| output.status.success());
    if !there {
        require::skip("git", "install it");
    }
    there
}

/// What git makes of a tree with a patch; its words when it does not take it.
fn applied(old: &Tree, patch: &str) -> Result<Tree, String> {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), old);
    let apply = |args: &[&str]| {
        let mut git = Command::new("git")
            .args(["apply", "--whitespace=nowarn"])
            .args(args)
            .arg("-")
            .current_dir(folder.path())
            .env("GIT_CEILING_DIRECTORIES", folder.path().parent().unwrap())
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut git.stdin.take().unwrap(), patch.as_bytes()).unwrap();
        let output = git.wait_with_output().unwrap();
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    };
    apply(&[])?;
    let mut found = Tree::new();
    list(folder.path(), "", &mut found);
    Ok(found)
}

#[test]
fn git_applies_every_kind_of_change_and_the_new_tree_comes_out() {
    if !there_is_git() {
        return;
    }
    use Mode::{Executable, File, Link};
    let old = tree(&[
        ("kept", File, "as it is\n"),
        ("changed", File, "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n13\n14\n15\n16\n17\n18\n19\n20\n"),
        ("gone", File, "a\nb"),
        ("empty and gone", File, ""),
        ("gets its end", File, "a\nb"),
        ("loses its end", File, "a\nb\n"),
        ("dos", File, "a\r\nb\r\nc\r\n"),
        ("mode", File, "#!/bin/sh\n"),
        ("mode and text", Executable, "#!/bin/sh\necho 1\n"),
        ("emptied", File, "a\n"),
        ("filled", File, ""),
        ("a folder/with spaces/x y.txt", File, "a\n"),
        ("ü/é.txt", File, "é\n"),
        ("\"quoted\" \\", File, "q\n"),
        ("link gone", Link, "kept"),
        ("becomes a folder", File, "x\n"),
        ("-- dashes", File, "-- a\n++ b\n@@ -1 +1 @@\n"),
    ]);
    let new = tree(&[
        ("kept", File, "as it is\n"),
        ("changed", File, "0\n1\n2\n3\n4\n5\n7\n8\n9\n10\n11\n12\n13\n14\n15\n16\n17\n18\n19\ntwenty\n"),
        ("gets its end", File, "a\nb\n"),
        ("loses its end", File, "a\nb"),
        ("dos", File, "a\r\nb\n\r\nc\r"),
        ("mode", Executable, "#!/bin/sh\n"),
        ("mode and text", File, "#!/bin/sh\necho 2\n"),
        ("emptied", File, ""),
        ("filled", File, "a"),
        ("a folder/with spaces/x y.txt", File, "b\n"),
        ("ü/é.txt", File, "è\n"),
        ("\"quoted\" \\", File, "Q\n"),
        ("becomes a folder/y", File, "x\n"),
        ("new", File, "n\n"),
        ("new and empty", Executable, ""),
        ("new without an end", File, "n"),
        ("-- dashes", File, "-- b\n++ c\n@@ -2 +1 @@\n"),
    ]);
    let patch = patch_of(&old, &new).unwrap();
    assert_eq!(applied(&old, &patch.text).unwrap_or_else(|error| panic!("{error}\n{}", patch.text)), new);
    // And back: what is made is read by our own reader as what it is.
    let limits = DiffLimits { bytes: LIMITS.bytes, files: LIMITS.files };
    let read = read(&patch.text, limits).unwrap();
    assert_eq!(read.iter().map(|file| file.path().clone()).collect::<Vec<_>>(), patch.files);
    let counted = read.iter().fold((0, 0), |(added, removed), file| (added + file.added(), removed + file.removed()));
    assert_eq!(counted, (patch.added, patch.removed));
}

#[test]
fn the_text_is_the_one_git_writes() {
    let old = tree(&[("a", Mode::File, "1\n2\n3\n4\n5\n6\n7\n8\n9\n")]);
    let new = tree(&[("a", Mode::File, "1\n2\n3\n4\nfive\n6\n7\n8\n9\n"), ("b c", Mode::Executable, "x")]);
    let expected = "\
diff --git a/a b/a
--- a/a
+++ b/a
@@ -2,7 +2,7 @@
 2
 3
 4
-5
+five
 6
 7
 8
diff --git a/b c b/b c
new file mode 100755
--- /dev/null
+++ b/b c\t
@@ -0,0 +1 @@
+x
\\ No newline at end of file
";
    let patch = patch_of(&old, &new).unwrap();
    let (objects, rest): (Vec<&str>, Vec<&str>) = patch.text.lines().partition(|line| line.starts_with("index "));
    assert_eq!(rest, expected.lines().collect::<Vec<_>>());
    assert!(objects[0].ends_with(" 100644") && objects[1].contains(&format!("{NO_OBJECT}..")), "{objects:?}");
    // Known to everybody: the empty file's.
    assert_eq!(object(Some(Version { mode: Mode::File, content: b"" })), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
    assert_eq!((patch.added, patch.removed, patch.files.len()), (2, 1, 2));
}

#[test]
fn nothing_changed_is_nothing() {
    let same = tree(&[("a", Mode::File, "1\n")]);
    assert_eq!(patch_of(&same, &same).unwrap(), Patch::default());
}

#[test]
fn what_is_no_text_is_refused_by_name() {
    for content in [&b"a\0b"[..], b"\xff\xfe", b"caf\xe9"] {
        let file = |content: &[u8]| Tree::from([("image".to_owned(), (Mode::File, content.to_vec()))]);
        for (old, new) in [(file(b"text"), file(content)), (file(content), file(b"text")), (Tree::new(), file(content))]
        {
            assert_eq!(patch_of(&old, &new), Err(PatchError::Binary("image".parse().unwrap())));
        }
    }
}

#[test]
fn a_patch_is_bounded() {
    let limits = PatchLimits { bytes: 1_000, files: 2 };
    let path = |text: &str| text.parse::<RelativePath>().unwrap();
    let file = |content| Some(Version { mode: Mode::File, content });
    let mut builder = PatchBuilder::new(limits);
    let large = "x\n".repeat(1_000);
    assert_eq!(builder.change(&path("a"), None, file(large.as_bytes())), Err(PatchError::TooLarge { limit: 1_000 }));
    builder.change(&path("b"), None, file(b"")).unwrap();
    builder.change(&path("c"), None, file(b"")).unwrap();
    assert_eq!(builder.change(&path("d"), None, file(b"")), Err(PatchError::TooManyFiles { limit: 2 }));
    assert_eq!(builder.finish().files, [path("b"), path("c")]);
}

#[test]
fn files_made_to_take_for_ever_do_not() {
    // A plain search takes hours: half a million lines, all of them moved.
    let line = |number: u32| format!("{}\n", number.wrapping_mul(2_654_435_761) % 1_000);
    let old: String = (0..250_000).map(line).collect();
    let new: String = (0..250_000).rev().map(line).collect();
    let limits = PatchLimits { bytes: 10_000_000, files: 1 };
    let mut builder = PatchBuilder::new(limits);
    let file = |content| Some(Version { mode: Mode::File, content });
    builder.change(&"a".parse().unwrap(), file(old.as_bytes()), file(new.as_bytes())).unwrap();
}

/// Text of few different lines, with and without an end.
fn text() -> impl Strategy<Value = String> {
    (proptest::collection::vec("[ab \r]{0,2}", 0..30), any::<bool>())
        .prop_map(|(lines, end)| lines.join("\n") + if end { "\n" } else { "" })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn whatever_the_files_hold_git_makes_the_new_one_of_the_old_one(old in text(), new in text()) {
        if there_is_git() {
            let (old, new) = (tree(&[("f", Mode::File, &old)]), tree(&[("f", Mode::File, &new)]));
            let patch = patch_of(&old, &new).unwrap();
            if !patch.text.is_empty() {
                prop_assert_eq!(applied(&old, &patch.text), Ok(new), "{}", patch.text);
            }
        }
    }
}
