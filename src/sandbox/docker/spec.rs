//! What a cell is to the engine: every limit stands here, and nowhere else.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig, Mount, MountType,
    MountVolumeOptions, ResourcesUlimits, VolumeCreateRequest,
};

use crate::archive::OWNER;
use crate::sandbox::{CellLimits, Runtime};

/// Where the workspace is.
pub(super) const WORKSPACE: &str = "/workspace";

/// Who owns the process that keeps a cell open: another than who runs commands, so that these can't kill it.
const KEEPER: u64 = OWNER - 1;

/// What commands find in their environment besides their own.
const ENVIRONMENT: [&str; 3] =
    ["HOME=/tmp", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"];

/// How long a cell outlives its time, so that the files of a command that was ended at the limit can be read out.
pub(super) const GRACE: Duration = Duration::from_secs(60);

/// The longest that any `sleep` can count to.
const LONGEST_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);

/// Files, folders and links for each MiB of the workspace. Each takes about a KiB of the kernel's memory, whatever is in it.
const INODES_PER_MIB: u64 = 256;
const LEAST_INODES: u64 = 1024;

/// Room in `/tmp`, in MiB. It counts as memory of the processes.
const TMP_MIB: u64 = 64;
/// Room in `/dev/shm`, in MiB. It counts as memory of the processes.
const SHARED_MEMORY_MIB: u64 = 16;

/// Files that may be open at once in a process.
const OPEN_FILES: i64 = 4096;

/// What gVisor itself needs: its kernel is a process among those it limits.
const GVISOR_MIB: u64 = 64;
/// For a process inside, gVisor keeps several outside.
const GVISOR_PIDS_EACH: i64 = 16;
const GVISOR_PIDS: i64 = 256;
/// The process that keeps the cell open, and what the engine needs for a moment to start a command.
const RUNC_PIDS: i64 = 16;

/// When the machine runs out of memory, strangers' processes go first.
const FIRST_TO_DIE: i64 = 500;

/// Memory that a cell takes of its engine at most, in MiB: that of its processes and its workspace, which lies in memory too.
pub(in crate::sandbox) fn memory_mib(runtime: Runtime, limits: &CellLimits) -> u64 {
    let own = match runtime {
        Runtime::Runc => 0,
        Runtime::Runsc => GVISOR_MIB,
    };
    u64::from(limits.memory_mib) + u64::from(limits.disk_mib) + own
}

/// Entries that a workspace of that size has room for.
pub(super) fn inodes(disk_mib: u32) -> u64 {
    (u64::from(disk_mib) * INODES_PER_MIB).max(LEAST_INODES)
}

/// How long the engine's own clock lets a cell live.
pub(super) fn life(limits: &CellLimits) -> Duration {
    limits.time.saturating_add(GRACE)
}

/// The workspace: memory of a fixed size, since the kernel itself then holds to the limit, and since no folder of the machine
/// is ever shared with a cell.
pub(super) fn volume(name: &str, labels: HashMap<String, String>, limits: &CellLimits) -> VolumeCreateRequest {
    let options = format!(
        "size={}m,nr_inodes={},uid={OWNER},gid={OWNER},mode=0700,nosuid,nodev",
        limits.disk_mib,
        inodes(limits.disk_mib)
    );
    let driver_opts = [("type", "tmpfs"), ("device", "tmpfs"), ("o", &options)];
    VolumeCreateRequest {
        name: Some(name.to_owned()),
        driver: Some("local".to_owned()),
        driver_opts: Some(driver_opts.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
        labels: Some(labels),
        cluster_volume_spec: None,
    }
}

/// The container, whose volume has the same name. `cpus` are those of the machine.
pub(super) fn container(
    name: &str,
    labels: HashMap<String, String>,
    image: &str,
    runtime: Runtime,
    limits: &CellLimits,
    cpus: u32,
) -> ContainerCreateBody {
    let memory = i64::try_from(memory_mib(runtime, limits) << 20).unwrap_or(i64::MAX);
    let pids = i64::from(limits.pids);
    let pids = match runtime {
        Runtime::Runc => pids.saturating_add(RUNC_PIDS),
        Runtime::Runsc => pids.saturating_mul(GVISOR_PIDS_EACH).saturating_add(GVISOR_PIDS),
    };
    // The engine refuses more than there are.
    let milli_cpus = limits.milli_cpus.min(cpus.saturating_mul(1000)).max(10);
    let workspace = Mount {
        typ: Some(MountType::VOLUME),
        source: Some(name.to_owned()),
        target: Some(WORKSPACE.to_owned()),
        read_only: Some(false),
        // What the image has there stays out: it would belong to root.
        volume_options: Some(MountVolumeOptions { no_copy: Some(true), ..MountVolumeOptions::default() }),
        ..Mount::default()
    };
    let tmp_mib = TMP_MIB.min(u64::from(limits.memory_mib) / 2).max(1);
    let tmp = format!("rw,exec,nosuid,nodev,mode=1777,size={tmp_mib}m,nr_inodes={}", tmp_mib * INODES_PER_MIB);
    let host_config = HostConfig {
        runtime: Some(runtime.word().to_owned()),
        readonly_rootfs: Some(true),
        network_mode: Some("none".to_owned()),
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(vec!["no-new-privileges:true".to_owned()]),
        privileged: Some(false),
        memory: Some(memory),
        // The same: no swap besides.
        memory_swap: Some(memory),
        pids_limit: Some(pids),
        nano_cpus: Some(i64::from(milli_cpus) * 1_000_000),
        ulimits: Some(vec![limit("nofile", OPEN_FILES), limit("core", 0)]),
        oom_score_adj: Some(FIRST_TO_DIE),
        mounts: Some(vec![workspace]),
        tmpfs: Some(HashMap::from([("/tmp".to_owned(), tmp)])),
        shm_size: Some((SHARED_MEMORY_MIB << 20).cast_signed()),
        ipc_mode: Some("private".to_owned()),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
        ..HostConfig::default()
    };
    ContainerCreateBody {
        hostname: Some("cell".to_owned()),
        user: Some(format!("{KEEPER}:{KEEPER}")),
        working_dir: Some("/".to_owned()),
        image: Some(image.to_owned()),
        env: Some(ENVIRONMENT.map(str::to_owned).into()),
        // Whatever the image would start.
        entrypoint: Some(keeper(life(limits))),
        cmd: Some(Vec::new()),
        network_disabled: Some(true),
        labels: Some(labels),
        // What the image would have the engine run now and then.
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }),
        host_config: Some(host_config),
        ..ContainerCreateBody::default()
    }
}

/// The process that keeps a cell open. It waits for orphans, as the first process must, forks nothing once it runs, and ends
/// by itself, so that a cell has an end even when nobody is left who could end it.
pub(super) fn keeper(life: Duration) -> Vec<String> {
    let seconds = life.as_secs().clamp(1, LONGEST_LIFE.as_secs()).to_string();
    ["/bin/sh", "-c", "sleep \"$1\" & wait \"$!\"", "keeper", &seconds].map(str::to_owned).into()
}

fn limit(name: &str, value: i64) -> ResourcesUlimits {
    ResourcesUlimits { name: Some(name.to_owned()), soft: Some(value), hard: Some(value) }
}
