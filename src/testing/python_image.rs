//! An image with Python for tests of what runs on it: this machine's own Python and the libraries it asks for, beside a static
//! busybox. Made in seconds, without a registry.

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
pub const IMAGE: &str = "python";

/// An agent that is known, which it has for looks: it says a version and does nothing.
pub const AGENT: (&str, &str) = ("aider", "aider 9.9.9");

/// Debian's Python; another one on the path may lie anywhere.
const PYTHON: &str = "/usr/bin/python3";
const BUSYBOX: &str = "/bin/busybox";

/// The installation that these tests belong to.
const INSTANCE: &str = "coinop-tests-python";

/// Folders of the standard library that no test needs.
const LEFT_OUT: [&str; 9] =
    ["__pycache__", "test", "tests", "idlelib", "lib2to3", "tkinter", "ensurepip", "dist-packages", "pydoc_data"];

/// Cells with Python and, second, without, on the engine of this machine; or nothing, which is said.
pub async fn sandbox(runtime: Runtime) -> Option<Arc<Hosts>> {
    sandbox_with(runtime, &[]).await
}

/// The same with more images, by their names and the engine's.
pub async fn sandbox_with(runtime: Runtime, more: &[(&str, &str)]) -> Option<Arc<Hosts>> {
    let mut settings = engine::settings(INSTANCE, runtime).await?;
    let (_, engine) = engine::engine().await?;
    let Some(version) = version() else {
        require::skip("docker", "apt-get install python3: an image is made of it");
        return None;
    };
    // To be renamed when what it is made of changes.
    let reference = format!("coinop-test-python:{version}-1");
    make_image(&engine, &reference).await;
    settings.images.insert(0, ImageSettings { name: IMAGE.into(), reference });
    let more =
        more.iter().map(|(name, reference)| ImageSettings { name: (*name).into(), reference: (*reference).into() });
    settings.images.extend(more);
    let hosts = Arc::new(Hosts::new(settings));
    hosts.sweep_leftovers().await;
    Some(hosts)
}

fn version() -> Option<String> {
    let said = Command::new(PYTHON).arg("--version").output().ok().filter(|said| said.status.success())?;
    String::from_utf8(said.stdout).ok()?.trim().strip_prefix("Python ").map(str::to_owned)
}

/// One test at a time, whatever process it is in: making it twice would change what the name means.
async fn make_image(engine: &Engine, reference: &str) {
    let lock = tokio::task::spawn_blocking(|| {
        let file = File::create(std::env::temp_dir().join("coinop-test-python.lock")).expect("a lock can be made");
        file.lock().expect("a lock can be taken");
        file
    });
    let _lock = lock.await.expect("nothing panics");
    if engine.image(IMAGE, reference).await.expect("an engine that answers says what it has").is_ok() {
        return;
    }
    let root = tokio::task::spawn_blocking(|| root().expect("an image is made of this machine's Python"));
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
    add(&mut tar, Path::new(PYTHON), 0o755)?;
    for library in libraries()? {
        add(&mut tar, &library, 0o755)?;
    }
    let asked = Command::new(PYTHON).args(["-c", "import sysconfig; print(sysconfig.get_path('stdlib'))"]).output()?;
    add_folder(&mut tar, Path::new(String::from_utf8_lossy(&asked.stdout).trim()))?;
    let (program, version) = AGENT;
    let script = format!("#!/bin/sh\necho {version}\n");
    tar.append_data(&mut header(0o755, script.len()), format!("usr/local/bin/{program}"), script.as_bytes())?;
    tar.into_inner()
}

/// What the program is linked to, by the names that the loader looks for.
fn libraries() -> io::Result<Vec<PathBuf>> {
    let said = Command::new("ldd").arg(PYTHON).output()?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    Ok(said.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

fn add_folder(tar: &mut tar::Builder<Vec<u8>>, folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if LEFT_OUT.contains(&name.as_str()) || name.starts_with("config-") {
            continue;
        }
        if path.is_dir() {
            add_folder(tar, &path)?;
        } else if path.is_file() {
            add(tar, &path, 0o644)?;
        }
    }
    Ok(())
}

/// A file's content under its own path, wherever links lead.
fn add(tar: &mut tar::Builder<Vec<u8>>, path: &Path, mode: u32) -> io::Result<()> {
    let content = std::fs::read(path)?;
    let inside = path.strip_prefix("/").map_err(io::Error::other)?;
    tar.append_data(&mut header(mode, content.len()), inside, &content[..])
}

fn header(mode: u32, size: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size as u64);
    header
}
