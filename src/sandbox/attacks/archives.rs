//! Files on their way out that should lead somewhere, and files on their way in over what is there.

use super::*;
use crate::archive::EntryKind;
use crate::job::RelativePath;

attacks! {
    links_are_read_as_links
    a_path_through_a_link_stays_in_the_cell
    what_is_no_file_is_left_out
    names_that_cannot_be_printed_are_left_out
    nobody_changes_files_while_they_are_read
    what_goes_in_comes_out
    folders_belong_to_who_runs_commands
    what_is_not_there_is_no_error
}

async fn entries(scene: &Scene, path: Option<&str>, root: &str) -> Vec<(String, EntryKind)> {
    let path: Option<RelativePath> = path.map(|path| path.parse().unwrap());
    let archive = scene.cell.get(path.as_ref(), LIMITS).await.unwrap().expect("it is there");
    let listing = archive.list(Some(root), LIMITS).unwrap();
    let mut entries: Vec<_> =
        listing.entries.into_iter().map(|entry| (entry.path.as_str().to_owned(), entry.kind)).collect();
    entries.sort_by(|one, other| one.0.cmp(&other.0));
    entries
}

async fn links_are_read_as_links(runtime: Runtime) {
    let Some(scene) = Scene::open(runtime).await else { return };
    scene
        .run("ln -s /etc/shadow shadow; ln -s ../../../etc up; ln -s / root; echo x > a; ln a b; ln -s loop loop")
        .await;
    let link = |target: &str| EntryKind::Link { target: target.into() };
    let file = || EntryKind::File { executable: false };
    let expected = [
        ("a", file()),
        ("b", file()),
        ("loop", link("loop")),
        ("root", link("/")),
        ("shadow", link("/etc/shadow")),
        ("up", link("../../../etc")),
    ];
    let found = entries(&scene, None, "workspace").await;
    assert_eq!(found, expected.map(|(name, kind)| (name.to_owned(), kind)));
    scene.close().await;
}

async fn a_path_through_a_link_stays_in_the_cell(runtime: Runtime) {
    let Some(scene) = Scene::open(runtime).await else { return };
    scene.run("ln -s /etc there; ln -s / top; ln -s ../../../../../../../etc up").await;
    for path in ["there/hostname", "top/etc/hostname", "up/hostname"] {
        let got = scene.cell.get(Some(&path.parse().unwrap()), LIMITS).await.unwrap();
        let Some(got) = got else { continue };
        let listing = got.list(None, LIMITS).unwrap();
        let content = got.read(&listing.entries[0]).unwrap();
        // The image's own, or nothing: never the machine's.
        assert!(content.is_empty() || content == b"cell\n", "{:?}", String::from_utf8_lossy(&content));
    }
    scene.close().await;
}

async fn what_is_no_file_is_left_out(runtime: Runtime) {
    let Some(scene) = Scene::open(runtime).await else { return };
    scene.run("mkfifo pipe; echo x > file; chmod 000 file; mkdir locked; echo y > locked/f; chmod 000 locked").await;
    let found = entries(&scene, None, "workspace").await;
    let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["file", "locked", "locked/f"]);
    scene.close().await;
}

async fn names_that_cannot_be_printed_are_left_out(runtime: Runtime) {
    let Some(scene) = Scene::open(runtime).await else { return };
    scene
        .run(
            r#"for name in 'two
lines' "$(printf 'e\033[31mvil')" "$(printf '\377\376')" '..evil' ' ' '-rf' 'ok'; do echo x > "./$name"; done"#,
        )
        .await;
    let archive = scene.everything().await;
    let listing = archive.list(Some("workspace"), LIMITS).unwrap();
    let mut names: Vec<&str> = listing.entries.iter().map(|entry| entry.path.as_str()).collect();
    names.sort_unstable();
    assert_eq!(listing.skipped, 3, "{names:?}");
    assert!(names.contains(&"ok") && names.contains(&"..evil") && names.contains(&"-rf"), "{names:?}");
    scene.close().await;
}

async fn nobody_changes_files_while_they_are_read(runtime: Runtime) {
    let Some(scene) = Scene::open(runtime).await else { return };
    let race = "mkdir d; echo mine > d/hostname; \
                (while :; do mv d e; ln -s /etc d; rm d; mv e d; done) >/dev/null 2>&1 & sleep 1";
    scene.run(race).await;
    for _ in 0..5 {
        let got = scene.cell.get(Some(&"d/hostname".parse().unwrap()), LIMITS).await.unwrap();
        if let Some(got) = got {
            let listing = got.list(None, LIMITS).unwrap();
            let content = got.read(&listing.entries[0]).unwrap();
            assert!([&b"mine\n"[..], b"cell\n", b""].contains(&&content[..]), "{content:?}");
        }
    }
    // It runs on.
    assert_eq!(scene.run("ps | grep -c '[w]hile'").await.exit_code, 0);
    scene.close().await;
}

async fn what_goes_in_comes_out(runtime: Runtime) {
    let Some(scene) = Scene::open(runtime).await else { return };
    let long = "long/".repeat(30) + "name";
    scene.cell.put(&files(&[("a/b/c", b"deep"), (&long, b"x"), ("top", b"")])).await.unwrap();
    assert_eq!(scene.run("cat a/b/c; find . -type f | wc -l").await.stdout.text, "deep3\n");
    scene.cell.put(&files(&[("a/b/c", b"newer")])).await.unwrap();
    let found = entries(&scene, Some("a/b"), "b").await;
    assert_eq!(found, [("c".to_owned(), EntryKind::File { executable: false })]);
    let one = scene.cell.get(Some(&"a/b/c".parse().unwrap()), LIMITS).await.unwrap().unwrap();
    let listing = one.list(None, LIMITS).unwrap();
    assert_eq!(one.read(&listing.entries[0]).unwrap(), b"newer");
    scene.close().await;
}

async fn folders_belong_to_who_runs_commands(runtime: Runtime) {
    let Some(scene) = Scene::open(runtime).await else { return };
    scene.cell.put(&files(&[("a/b/c", b"")])).await.unwrap();
    let ran = scene.run("touch a/x a/b/y && rm -r a && ls -A").await;
    assert_eq!((ran.exit_code, ran.stdout.text.as_str()), (0, ""), "{}", ran.stderr.text);
    scene.close().await;
}

async fn what_is_not_there_is_no_error(runtime: Runtime) {
    let Some(scene) = Scene::open(runtime).await else { return };
    scene.run("echo x > file; ln -s nowhere dangling; ln -s loop loop").await;
    for path in ["missing", "missing/deeper", "file/below", "loop/x"] {
        let got = scene.cell.get(Some(&path.parse().unwrap()), LIMITS).await;
        assert!(matches!(got, Ok(None)), "{path}: {got:?}");
    }
    assert_eq!(entries(&scene, Some("dangling"), "dangling").await.len(), 0);
    scene.close().await;
}
