//! More files than there is room for.

use super::*;
use crate::archive::ArchiveError;
use crate::sandbox::Ended;

attacks! {
    a_disk_filler_finds_the_end_of_the_workspace
    a_filler_of_tiny_files_finds_it_too
    files_that_do_not_fit_are_not_taken
    files_that_do_not_fit_any_more_are_not_taken
    a_file_larger_than_anybody_reads_is_not_read
    the_image_is_the_same_for_the_next_customer
}

async fn a_disk_filler_finds_the_end_of_the_workspace(runtime: Runtime) {
    let Some(scene) = Scene::open(runtime).await else { return };
    let ran = scene.run("cat /dev/zero > full; stat -c %s full").await;
    assert_eq!(ran.stdout.text.trim(), (16 << 20).to_string());
    assert!(ran.stderr.text.contains("No space left"), "{}", ran.stderr.text);
    assert_eq!(ran.ended, Ended::Exited);
    scene.close().await;
}

async fn a_filler_of_tiny_files_finds_it_too(runtime: Runtime) {
    let Some(scene) = Scene::open(runtime).await else { return };
    let ran = scene.run("i=0; while [ $i -lt 100000 ]; do true > f$i || break; i=$((i+1)); done; echo $i").await;
    let made: u64 = ran.stdout.text.trim().parse().expect("it counts");
    assert!((1000..=16 * 256).contains(&made), "{made} files were made");
    // Where that many are not wanted, they are not looked at.
    let all = scene.everything().await;
    let few = ArchiveLimits { entries: 100, ..LIMITS };
    assert!(matches!(all.list(Some("workspace"), few), Err(ArchiveError::TooMany { limit: 100 })));
    scene.close().await;
}

async fn files_that_do_not_fit_are_not_taken(runtime: Runtime) {
    let Some(scene) = Scene::open(runtime).await else { return };
    let large = files(&[("large", &vec![1; (16 << 20) + 1])]);
    let put = scene.cell.put(&large).await;
    assert!(matches!(put, Err(SandboxError::WorkspaceFull { limit_mib: 16 })), "{put:?}");
    let names: Vec<String> = (0..5000).map(|number| format!("f{number}")).collect();
    let many: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
    let put = scene.cell.put(&files(&many)).await;
    assert!(matches!(put, Err(SandboxError::WorkspaceFull { limit_mib: 16 })), "{put:?}");
    // Nothing of it was begun.
    assert_eq!(scene.run("ls -A").await.stdout.text, "");
    scene.close().await;
}

async fn files_that_do_not_fit_any_more_are_not_taken(runtime: Runtime) {
    let Some(scene) = Scene::open(runtime).await else { return };
    assert_eq!(scene.run("dd if=/dev/zero of=mine bs=1M count=12 2>/dev/null").await.exit_code, 0);
    let put = scene.cell.put(&files(&[("yours", &vec![1; 8 << 20])])).await;
    assert!(matches!(put, Err(SandboxError::WorkspaceFull { limit_mib: 16 })), "{put:?}");
    scene.close().await;
}

async fn a_file_larger_than_anybody_reads_is_not_read(runtime: Runtime) {
    let Some(scene) = Scene::open(runtime).await else { return };
    // A hole that takes no room at all.
    let ran = scene.run("truncate -s 100G hole").await;
    assert_eq!(ran.exit_code, 0, "{}", ran.stderr.text);
    for path in [None, Some("hole".parse().unwrap())] {
        let got = scene.cell.get(path.as_ref(), LIMITS).await;
        let too_large = matches!(got, Err(SandboxError::Archive(ArchiveError::TooLarge { .. })));
        assert!(too_large, "{got:?}");
    }
    scene.close().await;
}

async fn the_image_is_the_same_for_the_next_customer(runtime: Runtime) {
    let Some(scene) = Scene::open(runtime).await else { return };
    scene.run("echo evil > /bin/ls; echo evil > /etc/profile; echo evil > /tmp/left; echo evil > left").await;
    let next = scene.hosts.open(&engine::cell("the next", runtime), &CancellationToken::new()).await.unwrap();
    let look = "cat /etc/profile /tmp/left left 2>/dev/null; ls -A /tmp .; ls / >/dev/null && echo fine";
    let ran = next.run(&command(look, PATIENCE), &CancellationToken::new()).await.unwrap();
    assert_eq!(ran.stdout.text.replace(".:\n", "").replace("/tmp:\n", "").trim(), "fine", "{}", ran.stdout.text);
    next.close().await;
    scene.close().await;
}
