//! Too many of them, ones that never end, and ones that end what they should not.

use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::sandbox::Ended;

attacks! {
    a_fork_bomb_ends_with_its_cell
    no_more_processes_than_allowed
    a_command_at_its_time_limit_is_killed_and_its_files_are_kept
    a_cell_at_its_time_limit_runs_nothing_more
    who_kills_everybody_does_not_kill_the_cell
    who_kills_its_own_shell_is_told_so
    what_runs_in_the_background_ends_with_its_cell
    what_runs_in_the_background_does_not_hold_a_command_up
    a_cancelled_command_is_gone_within_a_second
    a_command_that_nobody_waits_for_is_gone
    a_cell_that_is_dropped_is_gone
    orphans_do_not_stay_as_zombies
}

async fn a_fork_bomb_ends_with_its_cell(runtime: Runtime) {
    let Some(scene) = Scene::open(runtime).await else { return };
    let bomb = "bomb() { bomb | bomb & }; bomb; while :; do bomb; done";
    match scene.try_run(bomb, Duration::from_secs(3)).await {
        // It ran into the limit of processes or of time, or took gVisor's kernel down with it.
        Ok(ran) => assert_ne!(ran.exit_code, 0, "{ran:?}"),
        Err(error) => assert!(matches!(error, SandboxError::Gone(_)), "{error}"),
    }
    assert!(scene.others_are_well().await);
    scene.close().await;
}

async fn no_more_processes_than_allowed(runtime: Runtime) {
    let Some(scene) = Scene::open_with(runtime, |spec| spec.limits.pids = 20).await else { return };
    let count = "i=0; while [ $i -lt 2000 ]; do sleep 1000 & i=$((i+1)); echo $i; done";
    let ran = scene.try_run(count, Duration::from_secs(60)).await.unwrap();
    assert_ne!((ran.exit_code, ran.ended), (0, Ended::Exited), "2,000 processes were started");
    let begun: u32 = ran.stdout.text.lines().last().and_then(|line| line.parse().ok()).unwrap_or(0);
    // gVisor is held to what its own processes need for that many.
    assert!(begun < 20 + if runtime == Runtime::Runc { 16 } else { 600 }, "{begun} processes were started");
    scene.close().await;
}

async fn a_command_at_its_time_limit_is_killed_and_its_files_are_kept(runtime: Runtime) {
    let Some(scene) = Scene::open(runtime).await else { return };
    let deaf = "echo kept > file; echo begun; trap '' TERM INT HUP QUIT; while :; do sleep 1000; done";
    let ran = scene.try_run(deaf, Duration::from_secs(2)).await.unwrap();
    assert_eq!((ran.exit_code, ran.ended), (137, Ended::TimedOut));
    assert_eq!(ran.stdout.text, "begun\n");
    assert!(ran.duration >= Duration::from_secs(2));
    let listing = scene.everything().await;
    let listing = listing.list(Some("workspace"), LIMITS).unwrap();
    assert_eq!(listing.entries.iter().map(|entry| entry.path.as_str()).collect::<Vec<_>>(), ["file"]);
    let again = scene.try_run("echo more", PATIENCE).await;
    assert!(matches!(again, Err(SandboxError::Gone(Ended::TimedOut))), "{again:?}");
    scene.close().await;
}

async fn a_cell_at_its_time_limit_runs_nothing_more(runtime: Runtime) {
    let time = Duration::from_secs(3);
    let Some(scene) = Scene::open_with(runtime, |spec| spec.limits.time = time).await else { return };
    let ran = scene.run("sleep 1000").await;
    assert_eq!(ran.ended, Ended::TimedOut);
    assert!(ran.duration < PATIENCE / 2, "{:?}", ran.duration);
    // Nor does it begin anything.
    assert!(matches!(scene.try_run("echo", PATIENCE).await, Err(SandboxError::Gone(Ended::TimedOut))));
    scene.close().await;
}

async fn who_kills_everybody_does_not_kill_the_cell(runtime: Runtime) {
    let Some(scene) = Scene::open(runtime).await else { return };
    for kill in ["kill -9 -1", "kill -9 1", "kill -9 -- $(ls /proc | grep '^[0-9]')", "kill -15 -1; kill -15 1"] {
        scene.run(kill).await;
        let ran = scene.run("echo alive; ps -o comm | grep -c sleep").await;
        assert_eq!(ran.stdout.text, "alive\n1\n", "after {kill}: {}", ran.stderr.text);
    }
    scene.close().await;
}

async fn who_kills_its_own_shell_is_told_so(runtime: Runtime) {
    let Some(scene) = Scene::open(runtime).await else { return };
    let ran = scene.run("echo last words; kill -9 $$").await;
    assert_eq!((ran.exit_code, ran.ended), (137, Ended::Exited));
    assert_eq!(ran.stdout.text, "last words\n");
    assert_eq!(scene.run("kill -15 $$").await.exit_code, 143);
    scene.close().await;
}

async fn what_runs_in_the_background_ends_with_its_cell(runtime: Runtime) {
    let Some(scene) = Scene::open(runtime).await else { return };
    let ran = scene.run("setsid sh -c 'trap \"\" TERM HUP; while :; do sleep 1; done' >/dev/null 2>&1 & echo on").await;
    assert_eq!(ran.stdout.text, "on\n");
    assert_eq!(scene.run("ps | grep -c '[t]rap'").await.exit_code, 0, "it is still there for the next command");
    scene.close().await;
}

async fn what_runs_in_the_background_does_not_hold_a_command_up(runtime: Runtime) {
    let Some(scene) = Scene::open(runtime).await else { return };
    // It keeps the output open.
    let ran = scene.run("sleep 1000 & echo done").await;
    assert_eq!((ran.exit_code, ran.stdout.text.as_str()), (0, "done\n"));
    assert!(ran.duration < Duration::from_secs(30), "{:?}", ran.duration);
    scene.close().await;
}

async fn a_cancelled_command_is_gone_within_a_second(runtime: Runtime) {
    let Some(scene) = Scene::open(runtime).await else { return };
    let cancel = CancellationToken::new();
    assert_eq!(scene.run("mkfifo /tmp/begun").await.exit_code, 0);
    let mut begun = scene.cell.pipe(&["cat", "/tmp/begun"].map(str::to_owned)).await.unwrap();
    let running = command("echo yes > /tmp/begun; while :; do :; done", PATIENCE);
    let (ended, asked) = tokio::join!(scene.cell.run(&running, &cancel), async {
        let mut word = [0; 4];
        begun.stdout.read_exact(&mut word).await.expect("it says when it has begun");
        cancel.cancel();
        Instant::now()
    });
    let took = asked.elapsed();
    assert!(matches!(ended, Err(SandboxError::Cancelled)), "{ended:?}");
    // Within a second, on a machine that has nothing else to do.
    assert!(took <= Duration::from_secs(10), "{took:?}");
    assert!(matches!(scene.try_run("echo more", PATIENCE).await, Err(SandboxError::Cancelled | SandboxError::Gone(_))));
    scene.close().await;
}

async fn a_command_that_nobody_waits_for_is_gone(runtime: Runtime) {
    let Some(scene) = Scene::open(runtime).await else { return };
    let forgotten = tokio::time::timeout(Duration::from_secs(1), scene.run("while :; do :; done")).await;
    assert!(forgotten.is_err());
    assert!(matches!(scene.try_run("echo more", PATIENCE).await, Err(SandboxError::Cancelled)));
    scene.close().await;
}

async fn a_cell_that_is_dropped_is_gone(runtime: Runtime) {
    let Some(scene) = Scene::open(runtime).await else { return };
    let Scene { hosts, cell, job } = scene;
    cell.run(&command("sleep 1000 &", PATIENCE), &CancellationToken::new()).await.unwrap();
    drop(cell);
    hosts.shut_down().await;
    assert_eq!(leftovers(&job).await, [] as [&str; 0]);
}

async fn orphans_do_not_stay_as_zombies(runtime: Runtime) {
    let Some(scene) = Scene::open_with(runtime, |spec| spec.limits.pids = 20).await else { return };
    // Each loses its parent at once. More than there may be at a time.
    let ran = scene.run("i=0; while [ $i -lt 100 ]; do (sleep 0.01 &); i=$((i+1)); sleep 0.02; done; echo $i").await;
    assert_eq!(ran.stdout.text, "100\n", "{}", ran.stderr.text);
    scene.close().await;
}
