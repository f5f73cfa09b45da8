//! Leftovers, and what the engine is told of a cell.

use std::collections::HashMap;
use std::time::Duration;

use bollard::query_parameters::{CreateContainerOptionsBuilder, EventsOptionsBuilder};
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use super::labels::{EXPIRES, Identity, labels};
use super::*;
use crate::archive::ArchiveLimits;
use crate::sandbox::{CellSpec, Command, Ended, Hosts, Runtime, Sandbox, SandboxError};
use crate::testing::engine;

fn unique(what: &str) -> String {
    format!("{what}-{:016x}", rand::random::<u64>())
}

const LONG: Duration = Duration::from_secs(3600);

/// Whether the time of something is over.
#[derive(PartialEq, Eq)]
enum Life {
    Long,
    Over,
}

/// What a process that died left: a container that was never started with its workspace, and one workspace more.
struct Wreck {
    engine: Engine,
    instance: String,
    names: [String; 2],
}

impl Wreck {
    async fn of(instance: &str, life: Life) -> Option<Self> {
        let (_, engine) = engine::engine().await?;
        let names = [unique("wreck"), unique("wreck")];
        let mut labels = labels(&Identity::of(instance), "its job", LONG);
        if life == Life::Over {
            labels.insert(EXPIRES.to_owned(), "1".to_owned());
        }
        for name in &names {
            let volume = spec::volume(name, labels.clone(), &engine::LIMITS);
            engine.docker.create_volume(volume).await.expect("a volume can be made");
        }
        let options = CreateContainerOptionsBuilder::new().name(&names[0]).build();
        let container = spec::container(&names[0], labels, engine::REFERENCE, Runtime::Runc, &engine::LIMITS, 2);
        engine.docker.create_container(Some(options), container).await.expect("a container can be made");
        Some(Self { engine, instance: instance.to_owned(), names })
    }

    /// Which of its names the engine still has.
    async fn left(&self) -> usize {
        let found = self.engine.labelled(&labels::of_instance(&self.instance)).await.unwrap();
        found.iter().filter(|(name, _)| self.names.contains(name)).count()
    }

    async fn clear(self) {
        for name in &self.names {
            self.engine.remove(name).await.unwrap();
        }
    }
}

async fn hosts(instance: &str) -> Option<std::sync::Arc<Hosts>> {
    engine::hosts(instance, Runtime::Runc).await
}

#[tokio::test]
async fn what_a_dead_process_left_is_swept_at_the_next_start() {
    let instance = unique("instance");
    let Some(wreck) = Wreck::of(&instance, Life::Long).await else { return };
    let hosts = hosts(&instance).await.unwrap();
    assert_eq!(hosts.sweep_leftovers().await, Swept::default(), "it may belong to a command that runs beside us");
    assert_eq!(wreck.left().await, 2);
    assert_eq!(hosts.sweep_all().await, Swept { removed: 2, ..Swept::default() });
    assert_eq!(wreck.left().await, 0);
}

#[tokio::test]
async fn what_is_past_its_time_is_swept_while_we_run() {
    let instance = unique("instance");
    let Some(wreck) = Wreck::of(&instance, Life::Over).await else { return };
    let hosts = hosts(&instance).await.unwrap();
    assert_eq!(hosts.sweep_leftovers().await, Swept { removed: 2, ..Swept::default() });
    assert_eq!(wreck.left().await, 0);
}

#[tokio::test]
async fn two_installations_on_one_engine_leave_each_other_alone() {
    let Some(wreck) = Wreck::of(&unique("theirs"), Life::Over).await else { return };
    let ours = hosts(&unique("ours")).await.unwrap();
    assert_eq!(ours.sweep_all().await, Swept::default());
    assert_eq!(wreck.left().await, 2);
    wreck.clear().await;
}

#[tokio::test]
async fn an_open_cell_is_nobodys_leftover() {
    let instance = unique("instance");
    let Some(hosts) = hosts(&instance).await else { return };
    let cancel = CancellationToken::new();
    let cell = hosts.open(&engine::cell("at work", Runtime::Runc), &cancel).await.unwrap();
    hosts.sweep_all().await;
    hosts.sweep_leftovers().await;
    let ran = cell.run(&command("echo here"), &cancel).await.unwrap();
    assert_eq!(ran.stdout.text, "here\n");
    cell.close().await;
}

#[tokio::test]
async fn a_cell_that_was_given_up_while_it_opened_leaves_nothing() {
    let Some(hosts) = engine::hosts(&unique("instance"), Runtime::Runsc).await else { return };
    hosts.images(Runtime::Runsc).await.unwrap();
    let job = unique("given up");
    let spec = engine::cell(&job, Runtime::Runsc);
    let cancel = CancellationToken::new();
    // At whatever point of its opening.
    for millis in [0, 5, 20, 60, 150, 400] {
        let opened = tokio::time::timeout(Duration::from_millis(millis), hosts.open(&spec, &cancel)).await;
        drop(opened);
    }
    hosts.shut_down().await;
    let (_, engine) = engine::engine().await.unwrap();
    assert_eq!(engine.labelled(&format!("{JOB_LABEL}={job}")).await.unwrap(), []);
    assert!(matches!(hosts.open(&spec, &cancel).await, Err(SandboxError::Cancelled)), "it opens no more");
}

#[tokio::test]
async fn a_cell_ends_by_itself_when_nobody_is_left_to_end_it() {
    let Some((_, engine)) = engine::engine().await else { return };
    let name = unique("alone");
    let labels = labels(&Identity::of(&unique("instance")), "its job", LONG);
    engine.docker.create_volume(spec::volume(&name, labels.clone(), &engine::LIMITS)).await.unwrap();
    let mut container = spec::container(&name, labels, engine::REFERENCE, Runtime::Runc, &engine::LIMITS, 2);
    container.entrypoint = Some(spec::keeper(Duration::from_secs(1)));
    let options = CreateContainerOptionsBuilder::new().name(&name).build();
    engine.docker.create_container(Some(options), container).await.unwrap();
    let wait = engine.docker.wait_container(&name, None::<bollard::query_parameters::WaitContainerOptions>);
    let mut wait = Box::pin(wait);
    engine.docker.start_container(&name, None::<bollard::query_parameters::StartContainerOptions>).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(60), wait.next()).await;
    assert!(ended.is_ok(), "it lives on");
    engine.remove(&name).await.unwrap();
}

/// Under gVisor killing what stands still takes the engine ten seconds more, for which the result and the slot would wait.
#[tokio::test]
async fn a_cell_that_stands_still_is_let_go_on_before_it_is_killed() {
    for runtime in Runtime::ALL {
        let Some(sandbox) = engine::sandbox(runtime).await else { continue };
        let (_, engine) = engine::engine().await.unwrap();
        let job = unique("stands still");
        let cancel = CancellationToken::new();
        let cell = sandbox.open(&engine::cell(&job, runtime), &cancel).await.unwrap();
        let told = tokio::spawn(what_the_engine_tells_of(engine, job));
        let slow = Command { timeout: Duration::from_secs(1), ..command("echo kept > file; sleep 1000") };
        assert_eq!(cell.run(&slow, &cancel).await.unwrap().ended, Ended::TimedOut);
        let limits = ArchiveLimits { bytes: 1 << 20, entries: 100 };
        assert!(cell.get(None, limits).await.unwrap().is_some(), "its files can be read");
        cell.close().await;
        let told = tokio::time::timeout(Duration::from_secs(60), told).await.expect("it tells of the end").unwrap();
        assert_eq!(told, ["pause", "unpause", "die"], "under {runtime}");
    }
}

#[tokio::test]
async fn an_engine_that_knows_late_that_a_cell_goes_on_is_asked_again() {
    for runtime in Runtime::ALL {
        let Some(sandbox) = engine::sandbox(runtime).await else { continue };
        let (_, engine) = engine::engine().await.unwrap();
        let job = unique("late");
        let cancel = CancellationToken::new();
        let cell = sandbox.open(&engine::cell(&job, runtime), &cancel).await.unwrap();
        cell.run(&command("echo kept > file"), &cancel).await.unwrap();
        let found = engine.labelled(&format!("{JOB_LABEL}={job}")).await.unwrap();
        let (name, _) = &found[0];
        engine.docker.pause_container(name).await.unwrap();
        let (path, limits) = ("file".parse().unwrap(), ArchiveLimits { bytes: 1 << 20, entries: 100 });
        let (got, gone_on) = tokio::join!(cell.get(Some(&path), limits), engine.docker.unpause_container(name));
        gone_on.unwrap();
        assert!(got.unwrap().is_some(), "under {runtime}");
        cell.close().await;
    }
}

/// Of the job's container, until it is destroyed.
async fn what_the_engine_tells_of(engine: Engine, job: String) -> Vec<String> {
    let label = format!("{JOB_LABEL}={job}");
    let filters = HashMap::from([
        ("type", vec!["container"]),
        ("label", vec![label.as_str()]),
        ("event", vec!["pause", "unpause", "die", "destroy"]),
    ]);
    // Also what happened before the engine hears the question.
    let since = (jiff::Timestamp::now() - jiff::SignedDuration::from_mins(1)).as_second().to_string();
    let options = EventsOptionsBuilder::new().since(&since).filters(&filters).build();
    let events = engine.docker.events(Some(options));
    let actions = events.filter_map(|event| std::future::ready(event.expect("the engine answers").action));
    actions.take_while(|action| std::future::ready(action != "destroy")).collect().await
}

#[tokio::test]
async fn a_command_gets_its_folder_its_variables_and_no_more() {
    for runtime in Runtime::ALL {
        let Some(sandbox) = engine::sandbox(runtime).await else { continue };
        let cancel = CancellationToken::new();
        let cell = sandbox.open(&engine::cell("a command", runtime), &cancel).await.unwrap();
        cell.run(&command("mkdir -p 'a b/c'"), &cancel).await.unwrap();
        let there = Command {
            workdir: Some("a b/c".parse().unwrap()),
            env: vec![("NAME".into(), "a value\nof two lines".into()), ("PATH".into(), "/bin".into())],
            ..command(
                "pwd; echo \"$NAME\"; env | cut -d= -f1 | grep -v -E '^(NAME|of two lines)' | sort | tr '\\n' ' '",
            )
        };
        let ran = cell.run(&there, &cancel).await.unwrap();
        assert_eq!(
            ran.stdout.text, "/workspace/a b/c\na value\nof two lines\nHOME HOSTNAME LANG PATH PWD SHLVL ",
            "{}",
            ran.stderr.text
        );
        let nowhere = Command { workdir: Some("missing".parse().unwrap()), ..command("echo here") };
        let ran = cell.run(&nowhere, &cancel).await.unwrap();
        assert_eq!((ran.exit_code, ran.ended, ran.stdout.text.as_str()), (126, Ended::Exited, ""));
        let long = command(&format!("echo {}", "x".repeat(200_000)));
        let ran = cell.run(&long, &cancel).await.unwrap();
        assert_eq!(ran.exit_code, 126, "longer than the kernel takes");
        assert_eq!(cell.run(&command("echo well"), &cancel).await.unwrap().stdout.text, "well\n");
        cell.close().await;
    }
}

#[tokio::test]
async fn a_program_at_the_end_of_a_pipe_talks_to_us() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    for runtime in Runtime::ALL {
        let Some(sandbox) = engine::sandbox(runtime).await else { continue };
        let cancel = CancellationToken::new();
        let cell = sandbox.open(&engine::cell("a pipe", runtime), &cancel).await.unwrap();
        let mut pipe = cell.pipe(&["cat"].map(str::to_owned)).await.unwrap();
        // Commands run beside it.
        assert_eq!(cell.run(&command("echo beside"), &cancel).await.unwrap().stdout.text, "beside\n");
        let sent: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        let (wrote, got) = tokio::join!(
            async {
                pipe.stdin.write_all(&sent).await?;
                pipe.stdin.shutdown().await
            },
            async {
                let mut got = Vec::new();
                pipe.stdout.read_to_end(&mut got).await.map(|_| got)
            }
        );
        wrote.unwrap();
        assert_eq!(got.unwrap(), sent);
        cell.close().await;
    }
}

#[tokio::test]
async fn a_program_whose_pipe_is_dropped_hears_of_it() {
    let Some(sandbox) = engine::sandbox(Runtime::Runc).await else { return };
    let cancel = CancellationToken::new();
    let cell = sandbox.open(&engine::cell("a pipe", Runtime::Runc), &cancel).await.unwrap();
    cell.run(&command("mkfifo /tmp/over"), &cancel).await.unwrap();
    let program = ["sh", "-c", "cat >/dev/null; echo over > /tmp/over"].map(str::to_owned);
    drop(cell.pipe(&program).await.unwrap());
    assert_eq!(cell.run(&command("cat /tmp/over"), &cancel).await.unwrap().stdout.text, "over\n");
    cell.close().await;
}

#[tokio::test]
async fn what_a_cell_used_is_told() {
    let Some(sandbox) = engine::sandbox(Runtime::Runc).await else { return };
    let cancel = CancellationToken::new();
    let cell = sandbox.open(&engine::cell("usage", Runtime::Runc), &cancel).await.unwrap();
    cell.run(&command("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; head -c 8000000 /dev/zero > f"), &cancel)
        .await
        .unwrap();
    let usage = cell.usage().await;
    assert!(usage.cpu_time > Duration::from_millis(10), "{usage:?}");
    assert!((8_000_000..200 << 20).contains(&usage.peak_memory_bytes), "{usage:?}");
    assert_eq!(usage.network_bytes, 0);
    cell.close().await;
}

#[tokio::test]
async fn an_image_without_a_shell_proves_nothing_and_is_not_offered() {
    let Some(mut settings) = engine::settings(&unique("instance"), Runtime::Runc).await else { return };
    let (_, engine) = engine::engine().await.unwrap();
    let reference = "coinop-test-empty:1";
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    header.set_mode(0o755);
    header.set_entry_type(tar::EntryType::Directory);
    tar.append_data(&mut header, "etc/", std::io::empty()).unwrap();
    let root = futures::stream::iter([Ok(bytes::Bytes::from(tar.into_inner().unwrap()))]);
    crate::sandbox::images::import(&engine, reference, "for tests of coinop", root).await.unwrap();
    settings.images[0].reference = reference.into();
    let hosts = Hosts::new(settings);
    assert_eq!(hosts.images(Runtime::Runc).await.unwrap(), []);
    assert_eq!(hosts.room(Runtime::Runc), 0);
    let report = &hosts.report().await[0];
    assert!(report.images[0].1.is_ok());
    assert!(!report.runtimes[0].1.holds());
    let spec = engine::cell("closed", Runtime::Runc);
    let opened = hosts.open(&spec, &CancellationToken::new()).await;
    assert!(matches!(opened, Err(SandboxError::NoRuntime(Runtime::Runc))));
    hosts.shut_down().await;
}

#[tokio::test]
async fn an_unknown_image_is_named_with_those_there_are() {
    let Some(hosts) = hosts(&unique("instance")).await else { return };
    let spec = CellSpec { image: "windows".into(), ..engine::cell("no image", Runtime::Runc) };
    let error = hosts.open(&spec, &CancellationToken::new()).await.err().expect("there is none");
    assert_eq!(error.to_string(), "no image 'windows'; on offer: busybox");
}

#[tokio::test]
async fn the_default_image_has_what_it_promises() {
    for runtime in Runtime::ALL {
        let Some(sandbox) = engine::sandbox_with_tools(runtime).await else { continue };
        let cancel = CancellationToken::new();
        let mut spec = engine::cell("tools", runtime);
        spec.image = engine::DEFAULT_IMAGE.into();
        spec.limits.memory_mib = 256;
        let cell = sandbox.open(&spec, &cancel).await.unwrap();
        let steps = [
            "git init -q . && echo 'int main(void){return 0;}' > a.c && git add a.c && git -c user.name=a -c user.email=a@b \
             commit -qm first",
            "printf 'all: a\\n' > Makefile && make -s && ./a",
            "printf 'def test_a():\\n    assert 1 + 1 == 2\\n' > test_a.py && python3 -m pytest -q test_a.py",
            "printf -- '--- a/a.c\\n+++ b/a.c\\n@@ -1 +1 @@\\n-int main(void){return 0;}\\n+int main(void){return 7;}\\n' | patch -p1",
            "[ -z \"$(find / -xdev -type f -perm /6000 2>/dev/null)\" ]",
            "[ \"$(whoami)\" = cell ]",
        ];
        for step in steps {
            let ran = cell.run(&command(step), &cancel).await.unwrap();
            assert_eq!(ran.exit_code, 0, "{step}: {}{}", ran.stdout.text, ran.stderr.text);
        }
        cell.close().await;
    }
}

#[tokio::test]
async fn a_gvisor_that_is_too_old_for_an_image_is_told_with_it_and_offered_all_the_same() {
    let Some(hosts) = engine::hosts_with_tools(&unique("instance"), Runtime::Runsc).await else { return };
    let report = &hosts.report().await[0];
    let cancel = CancellationToken::new();
    // Of this machine's gVisor nobody knows how old it is.
    let spec = CellSpec { image: engine::DEFAULT_IMAGE.into(), ..engine::cell("how old", Runtime::Runsc) };
    let cell = hosts.open(&spec, &cancel).await.unwrap();
    let ran = cell.run(&command("stat ."), &cancel).await.unwrap();
    cell.close().await;
    let too_old: Vec<_> = report.too_old.iter().map(|found| (found.runtime, found.image.as_str())).collect();
    let expected: &[_] = if ran.exit_code == 0 { &[] } else { &[(Runtime::Runsc, engine::DEFAULT_IMAGE)] };
    assert_eq!(too_old, expected, "busybox is fine in any case: {}", ran.stderr.text);
    assert_eq!(hosts.images(Runtime::Runsc).await.unwrap().len(), 2, "both are offered");
    hosts.shut_down().await;
}

fn command(shell: &str) -> Command {
    let timeout = Duration::from_secs(120);
    Command { shell: shell.into(), workdir: None, env: Vec::new(), timeout, keep_bytes: 16 * 1024 }
}
