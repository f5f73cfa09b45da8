//! Images for tests made of this machine's own programs and the libraries they ask for, beside a static busybox: in seconds,
//! without a registry.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use tar::{EntryType, Header};

use crate::sandbox::docker::Engine;
use crate::sandbox::images;

/// Debian's, of the package busybox-static.
const BUSYBOX: &str = "/bin/busybox";

/// An image's files, as a tar file in the making.
pub type Root = tar::Builder<Vec<u8>>;

/// What a program says of its version, behind the words it says first; none when it is not here.
pub fn version(program: &str, first: &str) -> Option<String> {
    let said = Command::new(program).arg("--version").output().ok().filter(|said| said.status.success())?;
    let version = String::from_utf8(said.stdout).ok()?;
    version.trim().strip_prefix(first).map(|version| version.replace(' ', "-"))
}

/// Makes an image unless it is there: one test at a time, whatever process it is in, as making it twice would change what the
/// name means. `reference` has to change when what it is made of does.
pub async fn make(engine: &Engine, name: &'static str, reference: &str, add: fn(&mut Root) -> io::Result<()>) {
    let lock = tokio::task::spawn_blocking(move || {
        let file = File::create(std::env::temp_dir().join(format!("coinop-test-{name}.lock")));
        let file = file.expect("a lock can be made");
        file.lock().expect("a lock can be taken");
        file
    });
    let _lock = lock.await.expect("nothing panics");
    if engine.image(name, reference).await.expect("an engine that answers says what it has").is_ok() {
        return;
    }
    let root = tokio::task::spawn_blocking(move || {
        let mut root = busybox()?;
        add(&mut root)?;
        root.into_inner()
    });
    let root = root.await.expect("nothing panics").expect("an image is made of this machine's programs");
    images::import(engine, reference, "for tests of coinop", futures::stream::iter([Ok(Bytes::from(root))]))
        .await
        .expect("the engine takes an image");
}

fn busybox() -> io::Result<Root> {
    let said = Command::new(BUSYBOX).arg("--list").output()?;
    let tools: Vec<String> = String::from_utf8_lossy(&said.stdout).lines().map(str::to_owned).collect();
    let busybox = images::busybox(Path::new(BUSYBOX), &tools).map_err(io::Error::other)?;
    let mut root = tar::Builder::new(Vec::new());
    for entry in tar::Archive::new(&busybox[..]).entries()? {
        let entry = entry?;
        root.append(&entry.header().clone(), entry)?;
    }
    Ok(root)
}

/// Adds a program and what it is linked to, by the names that the loader looks for.
pub fn add_program(root: &mut Root, program: &str) -> io::Result<()> {
    let said = Command::new("ldd").arg(program).output()?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let libraries = said.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from);
    for file in libraries.chain([PathBuf::from(program)]) {
        add_file(root, &file, 0o755)?;
    }
    Ok(())
}

/// Adds a file's content under its own path, wherever links lead.
pub fn add_file(root: &mut Root, path: &Path, mode: u32) -> io::Result<()> {
    let content = std::fs::read(path)?;
    let inside = path.strip_prefix("/").map_err(io::Error::other)?;
    root.append_data(&mut header(EntryType::Regular, mode, content.len()), inside, &content[..])
}

/// The header of an entry that belongs to root and was never changed.
pub fn header(kind: EntryType, mode: u32, size: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size as u64);
    header
}
