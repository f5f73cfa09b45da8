//! A real container engine for tests that run commands, with an image of a static busybox.
//!
//! Tests ask for [`sandbox`] and are skipped where there is none; `docker` and `gvisor` are the names under which
//! [`super::require`] can be told not to skip them.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::require;
use crate::sandbox::docker::Engine;
use crate::sandbox::{
    CellLimits, CellSpec, HostAddress, HostSettings, Hosts, ImageSettings, Runtime, SandboxSettings, images,
};

/// What customers of the tests call the image.
pub const IMAGE: &str = "busybox";

/// What the engine calls it. Made once; to be renamed when what it is made of changes.
pub const REFERENCE: &str = "coinop-test-busybox:1";

/// The image of `coinop sandbox image build`, as tests name it.
pub const DEFAULT_IMAGE: &str = "default";

/// What the engine calls that one. `.ci/run` has it built.
pub const DEFAULT_REFERENCE: &str = "coinop-test-default:1";

/// Where Debian's `busybox-static` puts it.
const PROGRAM: &str = "/bin/busybox";

/// The installation that all tests belong to, but for those that are about installations.
const INSTANCE: &str = "coinop-tests";

/// A cell that is large enough for small things.
pub const LIMITS: CellLimits =
    CellLimits { memory_mib: 128, disk_mib: 16, milli_cpus: 2000, pids: 64, time: Duration::from_secs(300) };

/// The engine, or nothing, which is said.
pub async fn engine() -> Option<(HostSettings, Engine)> {
    let how = "apt-get install docker.io busybox-static, and start dockerd (DOCKER_HOST names another engine)";
    let address = std::env::var("DOCKER_HOST").unwrap_or_else(|_| format!("unix://{}", HostAddress::DEFAULT_SOCKET));
    let address = HostAddress::parse(&address, None).expect("DOCKER_HOST is a socket or at loopback");
    let settings =
        HostSettings { name: "test".into(), address, runtimes: Runtime::ALL.into(), slots: 16, memory_mib: None };
    let Ok(engine) = Engine::connect(&settings).await else {
        require::skip("docker", how);
        return None;
    };
    if !Path::new(PROGRAM).exists() {
        require::skip("docker", how);
        return None;
    }
    make_image(&engine).await;
    Some((settings, engine))
}

/// Cells of that runtime on the engine of this machine, or nothing, which is said.
pub async fn sandbox(runtime: Runtime) -> Option<Arc<Hosts>> {
    let hosts = hosts(INSTANCE, runtime).await?;
    // What tests that were killed left.
    hosts.sweep_leftovers().await;
    Some(hosts)
}

/// The same as an installation of its own.
pub async fn hosts(instance: &str, runtime: Runtime) -> Option<Arc<Hosts>> {
    let settings = settings(instance, runtime).await?;
    Some(Arc::new(Hosts::new(settings)))
}

/// What an operator would have written for it.
pub async fn settings(instance: &str, runtime: Runtime) -> Option<SandboxSettings> {
    let (mut host, engine) = engine().await?;
    let facts = engine.facts().await.expect("an engine that answers says what it is");
    if !Engine::knows(&facts, runtime) {
        let how = "apt-get install runsc, and name it in /etc/docker/daemon.json (docs/sandbox.md)";
        require::skip(if runtime == Runtime::Runsc { "gvisor" } else { "docker" }, how);
        return None;
    }
    host.runtimes = vec![runtime];
    let image = ImageSettings { name: IMAGE.into(), reference: REFERENCE.into() };
    Some(SandboxSettings { instance: instance.into(), hosts: vec![host], images: vec![image] })
}

/// Cells with git, Python and a C compiler, or nothing, which is said: the image takes minutes and is made beforehand.
pub async fn sandbox_with_tools(runtime: Runtime) -> Option<Arc<Hosts>> {
    hosts_with_tools(INSTANCE, runtime).await
}

/// The same as an installation of its own.
pub async fn hosts_with_tools(instance: &str, runtime: Runtime) -> Option<Arc<Hosts>> {
    let mut settings = settings(instance, runtime).await?;
    let (_, engine) = engine().await?;
    let found = engine.image(DEFAULT_IMAGE, DEFAULT_REFERENCE).await.expect("an engine that answers says what it has");
    if found.is_err() {
        require::skip("docker", &format!("coinop sandbox image build --name {DEFAULT_REFERENCE}"));
        return None;
    }
    settings.images.insert(0, ImageSettings { name: DEFAULT_IMAGE.into(), reference: DEFAULT_REFERENCE.into() });
    Some(Arc::new(Hosts::new(settings)))
}

/// A cell of the tests' image, for a job of that name.
pub fn cell(job: &str, runtime: Runtime) -> CellSpec {
    CellSpec { job: job.into(), image: IMAGE.into(), runtime, limits: LIMITS }
}

/// Makes the image when the engine has none. One test at a time, whatever process it is in: making it twice would change
/// what the name means.
async fn make_image(engine: &Engine) {
    let lock = tokio::task::spawn_blocking(|| {
        let file = File::create(std::env::temp_dir().join("coinop-test-image.lock")).expect("a lock can be made");
        file.lock().expect("a lock can be taken");
        file
    });
    let _lock = lock.await.expect("nothing panics");
    let found = engine.image(IMAGE, REFERENCE).await.expect("an engine that answers says what it has");
    if found.is_ok() {
        return;
    }
    let root = futures::stream::iter([Ok(root())]);
    images::import(engine, REFERENCE, "for tests of coinop", root).await.expect("the engine takes an image");
}

/// What the image is made of, for a test that makes one of its own.
pub fn root() -> Bytes {
    let tools = images::tools(Path::new(PROGRAM)).expect("busybox runs");
    images::busybox(Path::new(PROGRAM), &tools).expect("Debian's busybox-static is static")
}
