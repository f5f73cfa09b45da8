//! An image with git for tests of what works on repositories: this machine's own git and the libraries it asks for, beside a
//! static busybox. Made in seconds, without a registry.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use tar::{EntryType, Header};

use super::{engine, require};
use crate::sandbox::docker::Engine;
use crate::sandbox::{Hosts, ImageSettings, Runtime, images};

/// What customers of the tests call the image.
pub const IMAGE: &str = "git";

/// Debian's git; another one on the path may lie anywhere.
const GIT: &str = "/usr/bin/git";
/// Where git looks for itself.
const GIT_ITSELF: &str = "usr/lib/git-core/git";
const BUSYBOX: &str = "/bin/busybox";

/// Cells with git, on the engine of this machine, for an installation of that name; or nothing, which is said.
pub async fn hosts(instance: &str, runtime: Runtime) -> Option<Arc<Hosts>> {
    let mut settings = engine::settings(instance, runtime).await?;
    let (_, engine) = engine::engine().await?;
    let Some(version) = version() else {
        require::skip("git", "apt-get install git: an image is made of it");
        return None;
    };
    // To be renamed when what it is made of changes.
    let reference = format!("coinop-test-git:{version}-1");
    make_image(&engine, &reference).await;
    settings.images.insert(0, ImageSettings { name: IMAGE.into(), reference });
    let hosts = Arc::new(Hosts::new(settings));
    hosts.sweep_leftovers().await;
    Some(hosts)
}

fn version() -> Option<String> {
    let said = Command::new(GIT).arg("--version").output().ok().filter(|said| said.status.success())?;
    let version = String::from_utf8(said.stdout).ok()?;
    version.trim().strip_prefix("git version ").map(|version| version.replace(' ', "-"))
}

/// One test at a time, whatever process it is in: making it twice would change what the name means.
async fn make_image(engine: &Engine, reference: &str) {
    let lock = tokio::task::spawn_blocking(|| {
        let file = File::create(std::env::temp_dir().join("coinop-test-git.lock")).expect("a lock can be made");
        file.lock().expect("a lock can be taken");
        file
    });
    let _lock = lock.await.expect("nothing panics");
    if engine.image(IMAGE, reference).await.expect("an engine that answers says what it has").is_ok() {
        return;
    }
    let root = tokio::task::spawn_blocking(|| root().expect("an image is made of this machine's git"));
    let root = root.await.expect("nothing panics");
    images::import(engine, reference, "for tests of coinop", futures::stream::iter([Ok(Bytes::from(root))]))
        .await
        .expect("the engine takes an image");
}

fn root() -> io::Result<Vec<u8>> {
    let said = Command::new(BUSYBOX).arg("--list").output()?;
    let tools: Vec<String> = String::from_utf8_lossy(&said.stdout).lines().map(str::to_owned).collect();
    let busybox = images::busybox(Path::new(BUSYBOX), &tools).map_err(io::Error::other)?;
    let mut tar = tar::Builder::new(Vec::new());
    for entry in tar::Archive::new(&busybox[..]).entries()? {
        let entry = entry?;
        tar.append(&entry.header().clone(), entry)?;
    }
    for file in libraries()?.into_iter().chain([PathBuf::from(GIT)]) {
        let content = std::fs::read(&file)?;
        let inside = file.strip_prefix("/").map_err(io::Error::other)?;
        tar.append_data(&mut header(EntryType::Regular, content.len()), inside, &content[..])?;
    }
    tar.append_link(&mut header(EntryType::Symlink, 0), GIT_ITSELF, GIT)?;
    tar.into_inner()
}

/// What the program is linked to, by the names that the loader looks for.
fn libraries() -> io::Result<Vec<PathBuf>> {
    let said = Command::new("ldd").arg(GIT).output()?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    Ok(said.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

fn header(kind: EntryType, size: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size as u64);
    header
}
