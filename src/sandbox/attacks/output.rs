//! More output than anybody reads.

use super::*;
use crate::sandbox::Ended;

attacks! {
    output_without_end_is_cut_off
    what_is_kept_of_an_output_does_not_grow_with_it
    an_output_that_is_no_text_is_made_one
}

async fn output_without_end_is_cut_off(runtime: Runtime) {
    let Some(scene) = Scene::open(runtime).await else { return };
    let ran = scene.run("echo kept > file; cat /dev/zero").await;
    assert_eq!((ran.exit_code, ran.ended), (137, Ended::TooMuchOutput));
    assert!(ran.stdout.bytes < 80 << 20, "{}", ran.stdout.bytes);
    let listing = scene.everything().await.list(Some("workspace"), LIMITS).unwrap();
    assert_eq!(listing.entries.len(), 1, "its files can be read");
    assert!(matches!(scene.try_run("echo", PATIENCE).await, Err(SandboxError::Gone(Ended::TooMuchOutput))));
    scene.close().await;
}

async fn what_is_kept_of_an_output_does_not_grow_with_it(runtime: Runtime) {
    let Some(scene) = Scene::open(runtime).await else { return };
    let ran = scene.run("echo first; yes | head -c 8000000; echo last; yes e | head -c 100000 >&2").await;
    assert_eq!((ran.exit_code, ran.ended), (0, Ended::Exited));
    assert_eq!(ran.stdout.bytes, 8_000_000 + 11);
    assert_eq!(ran.stderr.bytes, 100_000);
    assert!(ran.stdout.text.len() < 17 * 1024);
    assert!(ran.stdout.text.starts_with("first\ny\n") && ran.stdout.text.ends_with("last\n"));
    scene.close().await;
}

async fn an_output_that_is_no_text_is_made_one(runtime: Runtime) {
    let Some(scene) = Scene::open(runtime).await else { return };
    // Looks like the engine's own framing, too.
    let ran = scene.run(r"printf '\001\000\000\000\377\377\377\377\200'; printf '\002\000\000\000' >&2").await;
    assert_eq!(ran.stdout.bytes, 9);
    assert!(ran.stdout.text.ends_with('\u{fffd}'));
    assert_eq!(ran.stderr.bytes, 4);
    scene.close().await;
}
