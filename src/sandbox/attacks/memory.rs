//! More memory than there is.

use super::*;
use crate::sandbox::Ended;

attacks! {
    a_memory_bomb_ends_and_says_why
    a_full_workspace_is_no_want_of_memory
    shared_memory_and_tmp_are_bounded
}

async fn a_memory_bomb_ends_and_says_why(runtime: Runtime) {
    let Some(scene) = Scene::open(runtime).await else { return };
    let ran = scene.run("echo begun; x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done").await;
    assert_eq!(ran.ended, Ended::OutOfMemory, "{ran:?} {}", ran.stderr.text);
    assert_eq!(ran.exit_code, 137);
    assert!(ran.stdout.text.starts_with("begun\n"));
    assert!(scene.others_are_well().await);
    scene.close().await;
}

async fn a_full_workspace_is_no_want_of_memory(runtime: Runtime) {
    // The workspace is larger than the memory of the processes.
    let Some(scene) =
        Scene::open_with(runtime, |spec| (spec.limits.memory_mib, spec.limits.disk_mib) = (64, 128)).await
    else {
        return;
    };
    let ran = scene.run("dd if=/dev/zero of=full bs=1M count=1000; stat -c %s full; rm full; echo again > full").await;
    assert_eq!((ran.exit_code, ran.ended), (0, Ended::Exited), "{}", ran.stderr.text);
    assert_eq!(ran.stdout.text.trim(), (128 << 20).to_string());
    scene.close().await;
}

async fn shared_memory_and_tmp_are_bounded(runtime: Runtime) {
    let Some(scene) = Scene::open(runtime).await else { return };
    for folder in ["/tmp", "/dev/shm"] {
        let ran = scene.try_run(&format!("dd if=/dev/zero of={folder}/full bs=1M count=1000"), PATIENCE).await;
        match ran {
            Ok(ran) => assert!(ran.exit_code != 0, "{folder} took a GiB"),
            Err(error) => assert!(matches!(error, SandboxError::Gone(Ended::OutOfMemory)), "{error}"),
        }
    }
    assert!(scene.others_are_well().await);
    scene.close().await;
}
