//! An image with Python for tests of what runs on it.

use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use tar::EntryType;

use super::own_image::{self, Root};
use super::{engine, require};
use crate::sandbox::{Hosts, ImageSettings, Runtime};

/// What customers of the tests call the image.
pub const IMAGE: &str = "python";

/// An agent that is known, which it has for looks: it says a version and does nothing.
pub const AGENT: (&str, &str) = ("aider", "aider 9.9.9");

/// Debian's Python; another one on the path may lie anywhere.
const PYTHON: &str = "/usr/bin/python3";

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
    let reference = reference().await?;
    settings.images.insert(0, ImageSettings { name: IMAGE.into(), reference });
    let more =
        more.iter().map(|(name, reference)| ImageSettings { name: (*name).into(), reference: (*reference).into() });
    settings.images.extend(more);
    let hosts = Arc::new(Hosts::new(settings));
    hosts.sweep_leftovers().await;
    Some(hosts)
}

/// What the engine of this machine calls the image, which is made when it is not there; nothing where there is no engine.
pub async fn reference() -> Option<String> {
    let (_, engine) = engine::engine().await?;
    let Some(version) = own_image::version(PYTHON, "Python ") else {
        require::skip("docker", "apt-get install python3: an image is made of it");
        return None;
    };
    // To be renamed when what it is made of changes.
    let reference = format!("coinop-test-python:{version}-1");
    own_image::make(&engine, IMAGE, &reference, add).await;
    Some(reference)
}

fn add(root: &mut Root) -> io::Result<()> {
    own_image::add_program(root, PYTHON)?;
    let asked = Command::new(PYTHON).args(["-c", "import sysconfig; print(sysconfig.get_path('stdlib'))"]).output()?;
    add_folder(root, Path::new(String::from_utf8_lossy(&asked.stdout).trim()))?;
    let (program, version) = AGENT;
    let script = format!("#!/bin/sh\necho {version}\n");
    let mut header = own_image::header(EntryType::Regular, 0o755, script.len());
    root.append_data(&mut header, format!("usr/local/bin/{program}"), script.as_bytes())
}

fn add_folder(root: &mut Root, folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if LEFT_OUT.contains(&name.as_str()) || name.starts_with("config-") {
            continue;
        }
        if path.is_dir() {
            add_folder(root, &path)?;
        } else if path.is_file() {
            own_image::add_file(root, &path, 0o644)?;
        }
    }
    Ok(())
}
