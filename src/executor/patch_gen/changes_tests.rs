use super::*;
use crate::archive::ArchiveBuilder;
use crate::code::diff::{DiffLimits, read};

const WORKSPACE: ArchiveLimits = ArchiveLimits { bytes: 32 * 1024 * 1024, entries: 100 };

fn path(text: &str) -> RelativePath {
    text.parse().unwrap()
}

fn snapshot(files: &[(&str, &[u8])]) -> Snapshot {
    let files = files.iter().map(|(name, content)| (path(name), content.to_vec()));
    Snapshot::of_files("0123456789012345678901234567890123456789".parse().unwrap(), files.collect())
}

/// Where a file lies in the archive of a workspace.
fn inside(text: &str) -> RelativePath {
    path(&format!("workspace/{text}"))
}

/// A workspace of files, made by hand where they are no plain files.
fn workspace(files: &[(&str, &[u8])], more: impl FnOnce(&mut ArchiveBuilder)) -> Archive {
    let mut builder = ArchiveBuilder::new(WORKSPACE).unwrap();
    builder.folder(&inside("empty folder")).unwrap();
    for (name, content) in files {
        builder.file(&inside(name), content.starts_with(b"#!"), content).unwrap();
    }
    more(&mut builder);
    builder.finish().unwrap()
}

fn compare(snapshot: &Snapshot, workspace: &Archive, include: &[&str], exclude: &[&str]) -> Result<Patch, NoPatch> {
    let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let paths = Globs::new(&owned(include), &owned(exclude)).unwrap();
    let size = PatchLimits { bytes: 10_000, files: 10 };
    between(snapshot, workspace, &Allowed { paths: &paths, size, workspace: WORKSPACE })
}

const BEFORE: &[(&str, &[u8])] =
    &[(".gitignore", b"*.o\n"), ("a.c", b"int a;\n"), ("tool", b"#!/bin/sh\n"), ("tracked.o", b"x\n")];

#[test]
fn a_change_is_what_differs_and_nothing_else() {
    let after: &[(&str, &[u8])] = &[
        (".gitignore", b"*.o\n"),
        ("a.c", b"int b;\n"),
        ("b.c", b"new\n"),
        ("tracked.o", b"y\n"),
        ("new.o", b"ignored"),
        (".git/hooks/post-checkout", b"#!/bin/sh\nevil\n"),
        ("target/debug/x", b"\0built"),
        ("node_modules/m/.git/config", b"x"),
    ];
    let patch = compare(&snapshot(BEFORE), &workspace(after, |_| {}), &[], &[]).unwrap();
    assert_eq!(patch.files, [path("a.c"), path("b.c"), path("tool"), path("tracked.o")]);
    let files = read(&patch.text, DiffLimits { bytes: 10_000, files: 10 }).unwrap();
    assert!(files[1].old.is_none() && files[2].new.is_none());
}

#[test]
fn a_change_outside_what_is_allowed_is_refused() {
    let after: &[(&str, &[u8])] =
        &[(".gitignore", b"*.o\n"), ("a.c", b"int b;\n"), ("tool", b"#!/bin/sh\n"), ("tracked.o", b"x\n")];
    let change = |include, exclude| compare(&snapshot(BEFORE), &workspace(after, |_| {}), include, exclude);
    assert!(change(&["*.c"], &[]).is_ok());
    for (include, exclude) in [(&["src/**"][..], &[][..]), (&[], &["a.*"]), (&["*.c"], &["a.c"])] {
        assert!(matches!(change(include, exclude), Err(NoPatch::NotAllowed(at)) if at == path("a.c")));
    }
    // A file that is gone was changed, too.
    let gone = workspace(&after[..3], |_| {});
    assert!(
        matches!(compare(&snapshot(BEFORE), &gone, &["*.c"], &[]), Err(NoPatch::NotAllowed(at)) if at == path("tracked.o"))
    );
}

#[test]
fn hostile_changes_are_refused() {
    let before = snapshot(&[("a", b"a\n"), (".gitmodules", b"[submodule]\n")]);
    let kept: &[(&str, &[u8])] = &[("a", b"a\n"), (".gitmodules", b"[submodule]\n")];
    let refused = |files: &[(&str, &[u8])], more: &dyn Fn(&mut ArchiveBuilder)| {
        let files = [kept, files].concat();
        compare(&before, &workspace(&files, more), &[], &[]).unwrap_err()
    };
    let nothing = |_: &mut ArchiveBuilder| {};
    let link = |builder: &mut ArchiveBuilder| builder.link(&inside("out"), "/etc/passwd").unwrap();
    assert!(matches!(refused(&[], &link), NoPatch::Link(at) if at == path("out")));
    let within = |builder: &mut ArchiveBuilder| builder.link(&inside("in"), "a").unwrap();
    assert!(matches!(refused(&[], &within), NoPatch::Link(_)));
    for own in [".GIT/config", "sub/.gitmodules", "git~1/hooks/x"] {
        assert!(matches!(refused(&[(own, b"x")], &nothing), NoPatch::GitsOwn(at) if at == path(own)), "{own}");
    }
    let modules = workspace(&[("a", b"a\n"), (".gitmodules", b"[evil]\n")], |_| {});
    assert!(matches!(compare(&before, &modules, &[], &[]), Err(NoPatch::GitsOwn(_))));
    assert!(
        matches!(refused(&[("image", b"\0")], &nothing), NoPatch::Patch(PatchError::Binary(at)) if at == path("image"))
    );
    assert!(matches!(refused(&[("long", &[b'x'; 20_000])], &nothing), NoPatch::Patch(PatchError::TooLarge { .. })));
    assert!(
        matches!(refused(&[("huge", &vec![b'x'; 5_000_000])], &nothing), NoPatch::LargeFile(at) if at == path("huge"))
    );
    let many = |builder: &mut ArchiveBuilder| {
        for number in 0..11 {
            builder.file(&inside(&format!("n{number}")), false, b"").unwrap();
        }
    };
    assert!(matches!(refused(&[], &many), NoPatch::Patch(PatchError::TooManyFiles { limit: 10 })));
}

#[test]
fn links_of_the_commit_stay_or_go_but_never_lead_elsewhere() {
    let entry = |name: &str, kind| TreeEntry { path: path(name), kind, size: 1 };
    struct Bytes;
    impl crate::repository::Blobs for Bytes {
        fn read(&self, _: usize) -> Result<Vec<u8>, RepositoryError> {
            Ok(b"a".to_vec())
        }
    }
    let entries = vec![
        entry("file", EntryKind::File { executable: false }),
        entry("link", EntryKind::Link { target: "file".into() }),
    ];
    let commit = "0123456789012345678901234567890123456789".parse().unwrap();
    let before = Snapshot::new(commit, entries, std::sync::Arc::new(Bytes));
    let with = |target: Option<&str>, more: &[(&str, &[u8])]| {
        let files = [&[("file", &b"a"[..])], more].concat();
        let archive = workspace(&files, |builder| {
            if let Some(target) = target {
                builder.link(&inside("link"), target).unwrap();
            }
        });
        compare(&before, &archive, &[], &[])
    };
    assert!(matches!(with(Some("file"), &[]), Err(NoPatch::Empty)));
    assert!(matches!(with(Some("/etc/passwd"), &[]), Err(NoPatch::Link(_))));
    assert!(matches!(with(None, &[("link", b"file")]), Err(NoPatch::Link(_))));
    let gone = with(None, &[]).unwrap();
    assert!(gone.text.contains("deleted file mode 120000"), "{}", gone.text);
}

#[test]
fn nothing_changed_is_no_patch() {
    let same: Vec<(&str, &[u8])> = BEFORE.to_vec();
    assert!(matches!(compare(&snapshot(BEFORE), &workspace(&same, |_| {}), &[], &[]), Err(NoPatch::Empty)));
}
