//! Trees that are made to hurt, walked over without a server.

use std::time::Duration;

use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::repository::watch::Time;

const LIMITS: RepositoryLimits = RepositoryLimits {
    max_bytes: 100_000,
    max_files: 1_000,
    time: Duration::from_secs(60),
    cache_bytes: 0,
    allow_private: false,
};

/// Objects in the making.
struct Made(Objects);

impl Made {
    fn new() -> Self {
        Self(Objects::new(tempfile::tempfile().unwrap()))
    }

    fn object(&mut self, kind: Kind, content: &[u8]) -> ObjectId {
        let mut writing = self.0.begin(kind, content.len() as u64);
        self.0.add(&mut writing, content).unwrap();
        self.0.finish(writing).unwrap().0
    }

    fn blob(&mut self, content: &[u8]) -> ObjectId {
        self.object(Kind::Blob, content)
    }

    fn tree(&mut self, entries: &[(&str, &[u8], ObjectId)]) -> ObjectId {
        let mut list = Vec::new();
        for (mode, name, id) in entries {
            list.extend_from_slice(mode.as_bytes());
            list.push(b' ');
            list.extend_from_slice(name);
            list.push(0);
            list.extend_from_slice(id.as_slice());
        }
        self.object(Kind::Tree, &list)
    }

    fn walk(mut self, root: ObjectId) -> Result<Vec<TreeEntry>, RepositoryError> {
        let text = format!("tree {root}\nauthor A <a@b> 0 +0000\ncommitter A <a@b> 0 +0000\n\nx");
        let commit = self.object(Kind::Commit, text.as_bytes());
        self.walk_from(commit)
    }

    fn walk_from(mut self, commit: ObjectId) -> Result<Vec<TreeEntry>, RepositoryError> {
        let runtime = Runtime::new().unwrap();
        let watch =
            Watch::new(runtime.handle().clone(), Time::from_now(LIMITS.time), u64::MAX, CancellationToken::new());
        let commit = commit.to_hex().to_string().parse().unwrap();
        let found = walk(&mut self.0, &commit, &LIMITS, &watch)?;
        Ok(found.entries.into_iter().map(|(entry, _)| entry).collect())
    }
}

fn broken(result: Result<Vec<TreeEntry>, RepositoryError>) -> String {
    match result {
        Err(RepositoryError::Broken(what)) => what,
        other => panic!("not broken: {other:?}"),
    }
}

#[test]
fn files_are_listed_by_path_wherever_they_are() {
    let mut made = Made::new();
    let blob = made.blob(b"x");
    let inner = made.tree(&[("100644", b"z", blob), ("100755", b"a", blob)]);
    // Group-writable files and folders with a leading zero are from old times.
    let root = made.tree(&[("100664", b"b.txt", blob), ("040000", b"b", inner), ("40000", b"c", inner)]);
    let found = made.walk(root).unwrap();
    let paths: Vec<_> = found.iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(paths, ["b.txt", "b/a", "b/z", "c/a", "c/z"]);
    let executable: Vec<_> = found.iter().map(|entry| entry.kind == EntryKind::File { executable: true }).collect();
    assert_eq!(executable, [false, true, false, true, false]);
}

#[test]
fn names_that_lead_elsewhere_or_pretend_to_be_git_are_refused_by_name() {
    let long = vec![b'x'; 300];
    let names: &[(&[u8], &str)] = &[
        (b"..", "outside"),
        (b".", "outside"),
        (b"a/b", "outside"),
        (b"/etc", "outside"),
        (b"../up", "outside"),
        (b"", "empty"),
        (b".git", "git's own"),
        (b".GIT", "git's own"),
        (b".Git", "git's own"),
        (b"git~1", "git's own"),
        (b".git.", "git's own"),
        (b".git ", "git's own"),
        (b".git::$INDEX_ALLOCATION", "git's own"),
        (".g\u{200c}it".as_bytes(), "git's own"),
        (b"a\nb", "control"),
        (b"\x1b[2J", "control"),
        (b"caf\xe9", "UTF-8"),
        (&long, "longer"),
    ];
    for kind in ["100644", "40000", "120000"] {
        for (name, why) in names {
            let mut made = Made::new();
            let blob = made.blob(b"target");
            let empty = made.tree(&[("100644", b"in", blob)]);
            let root = made.tree(&[(kind, name, if kind == "40000" { empty } else { blob })]);
            let what = broken(made.walk(root));
            assert!(what.contains(why), "{kind} {name:?}: {what}");
            assert!(!what.chars().any(char::is_control), "{what:?}");
        }
    }
}

#[test]
fn a_name_that_is_there_twice_is_refused() {
    for (second, same) in [("100644", "a"), ("40000", "a"), ("120000", "a")] {
        let mut made = Made::new();
        let blob = made.blob(b"x");
        let inner = made.tree(&[("100644", b"b", blob)]);
        let id = if second == "40000" { inner } else { blob };
        // What comes between keeps them apart in git's own order.
        let root = made.tree(&[("100644", b"a", blob), ("100644", b"a.b", blob), (second, same.as_bytes(), id)]);
        assert!(broken(made.walk(root)).contains("'a' is there twice"));
    }
}

#[test]
fn a_small_repository_can_not_describe_endless_files() {
    let mut made = Made::new();
    let blob = made.blob(b"");
    let mut folder = made.tree(&[("100644", b"f", blob)]);
    for _ in 0..12 {
        let names: Vec<String> = (0..10).map(|n| format!("d{n}")).collect();
        let entries: Vec<_> = names.iter().map(|name| ("40000", name.as_bytes(), folder)).collect();
        folder = made.tree(&entries);
    }
    let found = made.walk(folder);
    assert!(matches!(found, Err(RepositoryError::TooManyFiles { limit: 1_000 })), "{found:?}");
}

#[test]
fn folders_without_files_are_counted_too() {
    let mut made = Made::new();
    let mut folder = made.tree(&[]);
    for _ in 0..12 {
        let names: Vec<String> = (0..10).map(|n| format!("d{n}")).collect();
        let entries: Vec<_> = names.iter().map(|name| ("40000", name.as_bytes(), folder)).collect();
        folder = made.tree(&entries);
    }
    let found = made.walk(folder);
    assert!(matches!(found, Err(RepositoryError::TooManyFiles { .. })), "{found:?}");
}

#[test]
fn one_file_in_many_places_is_as_large_as_many() {
    let mut made = Made::new();
    let blob = made.blob(&[0; 10_000]);
    let names: Vec<String> = (0..11).map(|n| format!("f{n}")).collect();
    let entries: Vec<_> = names.iter().map(|name| ("100644", name.as_bytes(), blob)).collect();
    let root = made.tree(&entries);
    let found = made.walk(root);
    assert!(matches!(found, Err(RepositoryError::TooLarge { limit: 100_000 })), "{found:?}");
}

#[test]
fn folders_nest_only_so_deep() {
    let mut made = Made::new();
    let blob = made.blob(b"");
    let mut folder = made.tree(&[("100644", b"f", blob)]);
    for _ in 0..=MAX_DEPTH {
        folder = made.tree(&[("40000", b"d", folder)]);
    }
    assert!(broken(made.walk(folder)).contains("nest deeper"));
}

#[test]
fn links_are_texts_of_a_bounded_length() {
    for target in [&b"../../etc/passwd"[..], b"/var/run/docker.sock", b"nowhere"] {
        let mut made = Made::new();
        let blob = made.blob(target);
        let root = made.tree(&[("120000", b"link", blob)]);
        let found = made.walk(root).unwrap();
        assert_eq!(found[0].kind, EntryKind::Link { target: String::from_utf8(target.to_vec()).unwrap() });
    }
    for target in [&b""[..], &[b'x'; 5_000], b"a\0b", b"a\nb", b"caf\xe9"] {
        let mut made = Made::new();
        let blob = made.blob(target);
        let root = made.tree(&[("120000", b"link", blob)]);
        assert!(broken(made.walk(root)).contains("the link 'link'"));
    }
    let mut made = Made::new();
    let blob = made.blob(b"elsewhere");
    let root = made.tree(&[("120000", b".gitmodules", blob)]);
    broken(made.walk(root));
}

#[test]
fn modes_that_git_does_not_write_are_refused() {
    for mode in ["104755", "102644", "170000", "60000", "10644", "0", "20666"] {
        let mut made = Made::new();
        let blob = made.blob(b"x");
        let root = made.tree(&[(mode, b"f", blob)]);
        broken(made.walk(root));
    }
}

#[test]
fn an_object_that_is_missing_or_something_else_is_no_repository() {
    let nowhere = ObjectId::from_hex(b"1234567890123456789012345678901234567890").unwrap();
    let mut made = Made::new();
    let root = made.tree(&[("100644", b"f", nowhere)]);
    assert!(broken(made.walk(root)).contains("missing"));

    let mut made = Made::new();
    let blob = made.blob(b"x");
    let root = made.tree(&[("40000", b"d", blob)]);
    assert!(broken(made.walk(root)).contains("something else"));

    let mut made = Made::new();
    let inner = made.tree(&[]);
    let root = made.tree(&[("100644", b"f", inner)]);
    assert!(broken(made.walk(root)).contains("something else"));

    let mut made = Made::new();
    let blob = made.blob(b"x");
    assert!(broken(made.walk_from(blob)).contains("something else"));
    assert!(broken(Made::new().walk_from(nowhere)).contains("missing"));

    let mut made = Made::new();
    let commit = made.object(Kind::Commit, b"no tree at all\n");
    assert!(broken(made.walk_from(commit)).contains("names no tree"));

    for list in [&b"100644"[..], b"100644 f", b"100644 f\0short", b"x f\0", b"\xff\xff\xff\xff"] {
        let mut made = Made::new();
        let root = made.object(Kind::Tree, list);
        broken(made.walk(root));
    }
}
