//! What is kept on the disk, without a server.

use gix::objs::Kind;

use super::*;

fn commit(n: u8) -> CommitId {
    hex::encode([n; 20]).parse().unwrap()
}

fn keep(cache: &Cache, n: u8, bytes: usize) -> Snapshot {
    let unfinished = cache.begin().unwrap();
    let mut objects = unfinished.objects().unwrap();
    let content = vec![n; bytes];
    let mut writing = objects.begin(Kind::Blob, bytes as u64);
    objects.add(&mut writing, &content).unwrap();
    let (_, place) = objects.finish(writing).unwrap();
    let kind = EntryKind::File { executable: false };
    let entry = TreeEntry { path: "file".parse().unwrap(), kind, size: place.size };
    cache
        .keep(unfinished, &key(n), &commit(n), objects, Found { parents: Vec::new(), entries: vec![(entry, place.at)] })
        .unwrap()
}

fn key(n: u8) -> String {
    format!("key{n}")
}

fn has(cache: &Cache, n: u8) -> bool {
    cache.find(&key(n), &commit(n)).unwrap().is_some()
}

fn content(snapshot: &Snapshot) -> Vec<u8> {
    snapshot.read(&"file".parse().unwrap()).unwrap().unwrap()
}

#[test]
fn what_was_used_longest_ago_leaves_first_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Cache::new(folder.path().to_owned(), 3_500);
    let cache = open();
    (1..=3).for_each(|n| drop(keep(&cache, n, 1_000)));
    assert!(has(&cache, 1));
    drop(cache);
    let cache = open();
    keep(&cache, 4, 1_000);
    assert_eq!([1, 2, 3, 4].map(|n| has(&cache, n)), [true, false, true, true]);
}

#[test]
fn what_leaves_can_still_be_read_by_who_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path().to_owned(), 1_500);
    let first = keep(&cache, 1, 1_000);
    let large = keep(&cache, 2, 100_000);
    assert!(!has(&cache, 1) && !has(&cache, 2));
    assert_eq!(content(&first), vec![1; 1_000]);
    assert_eq!(content(&large), vec![2; 100_000]);
}

#[test]
fn what_a_process_left_behind_is_cleared_away_when_nobody_else_is_at_work() {
    let folder = tempfile::tempdir().unwrap();
    let left = folder.path().join("unfinished-abc");
    fs::create_dir_all(left.join("inside")).unwrap();
    fs::write(left.join("objects"), "half").unwrap();
    // Somebody else's, who is alive: theirs may be among it.
    let other = Cache::new(folder.path().to_owned(), 10_000);
    drop(other.begin().unwrap());
    assert!(!left.exists());
    fs::create_dir_all(&left).unwrap();
    let cache = Cache::new(folder.path().to_owned(), 10_000);
    keep(&cache, 1, 10);
    assert!(left.exists());
    drop((cache, other));
    assert!(has(&Cache::new(folder.path().to_owned(), 10_000), 1));
    assert!(!left.exists());
}

#[test]
fn a_fetch_that_fails_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path().to_owned(), 10_000);
    let unfinished = cache.begin().unwrap();
    let _objects = unfinished.objects().unwrap();
    let _pack = unfinished.pack().unwrap();
    drop(unfinished);
    let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, [LOCK]);
}

#[test]
fn what_is_damaged_on_the_disk_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path().to_owned(), 10_000);
    for (name, damage) in [
        (LIST, &b"[{"[..]),
        (LIST, br#"{"parents":[],"entries":[{"path":"../up","kind":"File","size":1,"at":0}]}"#),
        (OBJECTS, b"x"),
    ] {
        keep(&cache, 1, 1_000);
        fs::write(folder.path().join(key(1)).join(name), damage).unwrap();
        assert!(!has(&cache, 1), "{name}");
        assert!(!folder.path().join(key(1)).exists());
    }
    keep(&cache, 1, 1_000);
    assert!(has(&cache, 1));
}

#[test]
fn two_who_fetched_the_same_are_both_right() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path().to_owned(), 10_000);
    let (first, second) = (keep(&cache, 1, 100), keep(&cache, 1, 100));
    assert_eq!(content(&first), content(&second));
    assert!(has(&cache, 1));
}
