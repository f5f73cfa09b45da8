//! Places outside the workspace, and rights that nobody gave.

use super::*;
use crate::sandbox::Ended;

attacks! {
    nothing_outside_the_workspace_can_be_written
    a_setuid_program_gives_no_rights
    nothing_can_be_mounted
    no_device_can_be_made
    the_machine_does_not_show_in_proc
    the_kernel_cannot_be_told_anything
    there_is_no_socket_of_the_engine
    no_rights_are_there_to_begin_with
}

async fn nothing_outside_the_workspace_can_be_written(runtime: Runtime) {
    let Some(scene) = Scene::open(runtime).await else { return };
    let look = "find / -path /proc -prune -o -type d -print 2>/dev/null | while read -r place; do \
                (: > \"$place/written\") 2>/dev/null && echo \"$place\"; done; \
                find / -path /proc -prune -o -path /workspace -prune -o -path /tmp -prune -o -path /dev -prune \
                -o -type f -print 2>/dev/null | while read -r file; do (: >> \"$file\") 2>/dev/null && echo \"$file\"; done";
    let ran = scene.run(look).await;
    assert_eq!(ran.ended, Ended::Exited);
    let mut places: Vec<&str> = ran.stdout.text.lines().collect();
    places.sort_unstable();
    places.retain(|place| *place != "/dev/mqueue");
    assert_eq!(places, ["/dev/shm", "/tmp", "/workspace"]);
    scene.close().await;
}

async fn a_setuid_program_gives_no_rights(runtime: Runtime) {
    let Some(scene) = Scene::open(runtime).await else { return };
    // As it might come from somewhere else than our own builder: a shell that belongs to root and says so.
    let program = std::fs::read("/bin/busybox").unwrap();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(program.len() as u64);
    header.set_mode(0o6755);
    header.set_uid(0);
    header.set_gid(0);
    tar.append_data(&mut header, "busybox", &program[..]).unwrap();
    let tar = tar.into_inner().unwrap();
    let stream = futures::stream::iter([Ok::<_, std::io::Error>(bytes::Bytes::from(tar))]);
    let archive = Archive::receive(stream, LIMITS).await.unwrap();
    scene.cell.put(&archive).await.unwrap();
    let ran =
        scene.run("stat -c '%u %a' busybox; ./busybox id -u; ./busybox sh -c 'busybox id -u; cat /etc/shadow'").await;
    assert_eq!(ran.stdout.text, "0 6755\n65532\n65532\n", "{}", ran.stderr.text);
    // Nor one that they make themselves.
    let own = scene
        .run(
            "mkdir own; cp /bin/busybox own; cd own; chmod 6755 busybox; ./busybox id -u; \
                   ./busybox chown 0:0 busybox && echo chowned",
        )
        .await;
    assert_eq!(own.stdout.text, "65532\n");
    scene.close().await;
}

async fn nothing_can_be_mounted(runtime: Runtime) {
    let Some(scene) = Scene::open(runtime).await else { return };
    let mounts = "mkdir here; for try in '-t tmpfs none here' '-t proc proc here' '-o bind / here' '-o remount,rw /' \
                  '-t sysfs sysfs here' '-t overlay overlay -o lowerdir=/,upperdir=here,workdir=here /'; do \
                  mount $try && echo \"mounted $try\"; done; umount /proc && echo unmounted; \
                  chroot / true && echo changed the root; pivot_root . . && echo turned; true";
    let ran = scene.run(mounts).await;
    assert_eq!(ran.stdout.text, "", "{}", ran.stderr.text);
    if runtime == Runtime::Runc {
        // gVisor has namespaces of its own, which are not the machine's.
        let ran =
            scene.run("unshare -U true && echo namespace; unshare -r mount -t tmpfs none here && echo mounted").await;
        assert_eq!(ran.stdout.text, "");
    }
    scene.close().await;
}

async fn no_device_can_be_made(runtime: Runtime) {
    let Some(scene) = Scene::open(runtime).await else { return };
    let ran = scene.run("mknod disk b 8 0 && echo made; mknod memory c 1 1 && echo made; ls /dev | sort").await;
    let devices: Vec<&str> = ran.stdout.text.split_whitespace().collect();
    let known = [
        "console", "core", "fd", "full", "fuse", "mqueue", "net", "null", "ptmx", "pts", "random", "shm", "stderr",
        "stdin", "stdout", "tty", "urandom", "zero",
    ];
    let strange: Vec<_> = devices.iter().filter(|name| !known.contains(name)).collect();
    assert!(strange.is_empty(), "{strange:?}");
    scene.close().await;
}

async fn the_machine_does_not_show_in_proc(runtime: Runtime) {
    let Some(scene) = Scene::open(runtime).await else { return };
    let ran = scene.run("for process in /proc/[0-9]*; do tr '\\0' ' ' < $process/cmdline; echo; done; hostname").await;
    for theirs in ["dockerd", "containerd", "coinop-", "init", "rustc"] {
        assert!(!ran.stdout.text.contains(theirs), "{}", ran.stdout.text);
    }
    assert!(ran.stdout.text.lines().count() < 12, "{}", ran.stdout.text);
    assert!(ran.stdout.text.ends_with("cell\n"));
    // What the first process sees is no more.
    let root = scene
        .run("cat /proc/1/root/etc/hostname /proc/self/root/etc/hostname | sort -u; ls /proc/1/root/var/lib/docker")
        .await;
    assert!(["cell\n", ""].contains(&root.stdout.text.as_str()), "{}", root.stdout.text);
    scene.close().await;
}

async fn the_kernel_cannot_be_told_anything(runtime: Runtime) {
    let Some(scene) = Scene::open(runtime).await else { return };
    let tell = "for file in /proc/sysrq-trigger /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe \
                /proc/sys/vm/drop_caches /proc/sys/fs/binfmt_misc/register /proc/self/oom_score_adj_ /proc/mtrr \
                /sys/kernel/uevent_helper /sys/fs/cgroup/*/release_agent /sys/fs/cgroup/*/notify_on_release \
                /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/power/state; do \
                (echo 1 > $file) 2>/dev/null && echo \"told $file\"; done; \
                for file in /proc/kcore /proc/kmem /dev/mem /dev/kmem /proc/kmsg /dev/kmsg /proc/timer_list /proc/sched_debug; do \
                head -c 1 $file 2>/dev/null | grep -q . && echo \"read $file\"; done; \
                insmod /tmp/x.ko && echo loaded; reboot -f && echo rebooted; sysctl -w kernel.hostname=x 2>/dev/null && echo set; \
                hostname evil && echo renamed; date -s 2001-01-01 >/dev/null; \
                [ \"$(date +%Y)\" = 2001 ] && echo dated; true";
    let ran = scene.run(tell).await;
    assert_eq!(ran.stdout.text, "", "{}", ran.stderr.text);
    assert_eq!(ran.ended, Ended::Exited);
    scene.close().await;
}

async fn there_is_no_socket_of_the_engine(runtime: Runtime) {
    let Some(scene) = Scene::open(runtime).await else { return };
    let look = "find / -path /proc -prune -o -type s -print 2>/dev/null; \
                ls -d /var/run/docker* /run/docker* /run/containerd* 2>/dev/null; \
                env | grep -i -E 'docker|coinop|secret|token|key'; cat /proc/net/unix | grep -i docker";
    assert_eq!(scene.run(look).await.stdout.text, "");
    scene.close().await;
}

async fn no_rights_are_there_to_begin_with(runtime: Runtime) {
    let Some(scene) = Scene::open(runtime).await else { return };
    let ran = scene
        .run("id -u; id -g; id -G; grep -E '^Cap(Inh|Prm|Eff|Bnd)' /proc/self/status | cut -f2 | sort -u; ulimit -c")
        .await;
    assert_eq!(ran.stdout.text, "65532\n65532\n65532\n0000000000000000\n0\n");
    let su = scene.run("su -c id root && echo root; echo root::0:0::/:/bin/sh > /etc/passwd && echo root").await;
    assert_eq!(su.stdout.text, "");
    scene.close().await;
}
