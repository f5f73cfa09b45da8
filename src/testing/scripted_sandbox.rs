//! A sandbox that runs nothing: cells are folders in memory, and a script says what each command does. For tests of what
//! decides about runs, where the engine is beside the point.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::hashes::{Hash, sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::archive::{Archive, ArchiveBuilder, ArchiveLimits, EntryKind};
use crate::job::RelativePath;
use crate::sandbox::{
    Cell, CellSpec, CellUsage, Command, Ended, Image, Output, Pipe, Ran, Runtime, Sandbox, SandboxError,
};

/// What an archive of a scripted workspace may hold.
const GENEROUS: ArchiveLimits = ArchiveLimits { bytes: 64 * 1024 * 1024, entries: 10_000 };

/// Bytes of a mebibyte.
const MIB: u64 = 1024 * 1024;

/// A cell's files.
pub type Workspace = BTreeMap<RelativePath, Vec<u8>>;

/// What a command does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Does {
    /// It ends by itself.
    Exits {
        /// With this code.
        code: i64,
        /// After it wrote this to standard output.
        stdout: String,
        /// And this to standard error.
        stderr: String,
    },
    /// It is ended from outside.
    IsEnded(Ended),
    /// It never ends: only a cancellation does.
    Hangs,
    /// The engine fails.
    Breaks,
    /// The cell is gone before it begins.
    FindsNoCell(Ended),
}

impl Does {
    /// Nothing to speak of.
    pub fn nothing() -> Self {
        Self::prints("")
    }

    /// It writes this and exits with 0.
    pub fn prints(text: impl Into<String>) -> Self {
        Self::Exits { code: 0, stdout: text.into(), stderr: String::new() }
    }

    /// It complains and exits with this code.
    pub fn fails(code: i64, text: impl Into<String>) -> Self {
        Self::Exits { code, stdout: String::new(), stderr: text.into() }
    }
}

type Script = dyn Fn(&mut Workspace, &Command) -> Does + Send + Sync;

struct Shared {
    script: Box<Script>,
    images: Mutex<Option<Vec<Image>>>,
    places: Arc<Semaphore>,
    room: usize,
    seen: Mutex<Seen>,
    /// Cells that are open.
    open: watch::Sender<usize>,
    /// Commands that were begun.
    begun: watch::Sender<usize>,
}

/// What was asked of a sandbox.
#[derive(Debug, Default)]
struct Seen {
    cells: Vec<CellSpec>,
    commands: Vec<String>,
}

/// A sandbox with a script. Clones are the same one.
#[derive(Clone)]
pub struct ScriptedSandbox(Arc<Shared>);

impl fmt::Debug for ScriptedSandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedSandbox").field("open", &*self.0.open.borrow()).finish_non_exhaustive()
    }
}

impl ScriptedSandbox {
    /// A sandbox whose commands do what `script` says, with two images (`small`, the default, and `large`) and room for four
    /// cells.
    pub fn new(script: impl Fn(&mut Workspace, &Command) -> Does + Send + Sync + 'static) -> Self {
        Self::with_room(4, script)
    }

    /// A sandbox with room for so many cells.
    pub fn with_room(room: usize, script: impl Fn(&mut Workspace, &Command) -> Does + Send + Sync + 'static) -> Self {
        let image =
            |name: &str, digit: &str| Image { name: name.into(), digest: format!("sha256:{}", digit.repeat(64)) };
        Self(Arc::new(Shared {
            script: Box::new(script),
            images: Mutex::new(Some(vec![image("small", "a"), image("large", "b")])),
            places: Arc::new(Semaphore::new(room)),
            room,
            seen: Mutex::default(),
            open: watch::Sender::new(0),
            begun: watch::Sender::new(0),
        }))
    }

    /// From now on there are these images; with `None` the engine does not answer.
    pub fn offers(&self, images: Option<Vec<Image>>) {
        *lock(&self.0.images) = images;
    }

    /// The cells that were opened so far.
    pub fn cells(&self) -> Vec<CellSpec> {
        lock(&self.0.seen).cells.clone()
    }

    /// The commands that were run so far.
    pub fn commands(&self) -> Vec<String> {
        lock(&self.0.seen).commands.clone()
    }

    /// How many cells are open.
    pub fn open_cells(&self) -> usize {
        *self.0.open.borrow()
    }

    /// Waits until so many commands were begun in all.
    pub async fn begun(&self, commands: usize) {
        let mut begun = self.0.begun.subscribe();
        begun.wait_for(|count| *count >= commands).await.expect("the sender is kept here");
    }

    /// Waits until no cell is open.
    pub async fn is_empty(&self) {
        self.0.open.subscribe().wait_for(|open| *open == 0).await.expect("the sender is kept here");
    }
}

#[async_trait]
impl Sandbox for ScriptedSandbox {
    async fn images(&self, _: Runtime) -> Result<Vec<Image>, SandboxError> {
        lock(&self.0.images).clone().ok_or_else(|| SandboxError::Engine("it is down".into()))
    }

    fn room(&self, _: Runtime) -> usize {
        self.0.room
    }

    async fn open(&self, spec: &CellSpec, cancel: &CancellationToken) -> Result<Box<dyn Cell>, SandboxError> {
        let images = self.images(spec.runtime).await?;
        let image = images.iter().find(|image| image.name == spec.image).cloned();
        let image = image.ok_or_else(|| SandboxError::UnknownImage {
            wanted: spec.image.clone(),
            offered: images.into_iter().map(|image| image.name).collect(),
        })?;
        let place = tokio::select! {
            place = Arc::clone(&self.0.places).acquire_owned() => place.expect("it is never closed"),
            () = cancel.cancelled() => return Err(SandboxError::Cancelled),
        };
        lock(&self.0.seen).cells.push(spec.clone());
        self.0.open.send_modify(|open| *open += 1);
        let shared = Arc::clone(&self.0);
        let inside = Inside { files: Workspace::new(), gone: None, place: Some(place) };
        Ok(Box::new(ScriptedCell { shared, image, spec: spec.clone(), inside: Mutex::new(inside) }))
    }
}

struct ScriptedCell {
    shared: Arc<Shared>,
    image: Image,
    spec: CellSpec,
    inside: Mutex<Inside>,
}

struct Inside {
    files: Workspace,
    gone: Option<Ended>,
    /// Kept while it is open.
    place: Option<OwnedSemaphorePermit>,
}

impl ScriptedCell {
    fn end(&self) {
        if lock(&self.inside).place.take().is_some() {
            self.shared.open.send_modify(|open| *open -= 1);
        }
    }

    fn is_full(&self, files: &Workspace) -> bool {
        let bytes: u64 = files.values().map(|content| content.len() as u64).sum();
        bytes > u64::from(self.spec.limits.disk_mib) * MIB
    }
}

impl Drop for ScriptedCell {
    fn drop(&mut self) {
        self.end();
    }
}

#[async_trait]
impl Cell for ScriptedCell {
    fn image(&self) -> &Image {
        &self.image
    }

    fn runtime(&self) -> Runtime {
        self.spec.runtime
    }

    async fn put(&self, files: &Archive) -> Result<(), SandboxError> {
        let mut unpacked = lock(&self.inside).files.clone();
        for entry in files.list(None, GENEROUS)?.entries {
            if matches!(entry.kind, EntryKind::File { .. }) {
                let content = files.read(&entry)?;
                unpacked.insert(entry.path, content);
            }
        }
        if self.is_full(&unpacked) {
            return Err(SandboxError::WorkspaceFull { limit_mib: self.spec.limits.disk_mib });
        }
        lock(&self.inside).files = unpacked;
        Ok(())
    }

    async fn run(&self, command: &Command, cancel: &CancellationToken) -> Result<Ran, SandboxError> {
        if cancel.is_cancelled() {
            self.end();
            return Err(SandboxError::Cancelled);
        }
        if let Some(ended) = lock(&self.inside).gone {
            return Err(SandboxError::Gone(ended));
        }
        lock(&self.shared.seen).commands.push(command.shell.clone());
        let does = (self.shared.script)(&mut lock(&self.inside).files, command);
        self.shared.begun.send_modify(|count| *count += 1);
        match does {
            Does::Exits { code, stdout, stderr } => Ok(ran(command, code, Ended::Exited, &stdout, &stderr)),
            Does::IsEnded(ended) => {
                lock(&self.inside).gone = Some(ended);
                Ok(ran(command, 137, ended, "", ""))
            }
            Does::Hangs => {
                cancel.cancelled().await;
                self.end();
                Err(SandboxError::Cancelled)
            }
            Does::Breaks => Err(SandboxError::Engine("it broke".into())),
            Does::FindsNoCell(ended) => {
                lock(&self.inside).gone = Some(ended);
                Err(SandboxError::Gone(ended))
            }
        }
    }

    async fn pipe(&self, _: &[String]) -> Result<Pipe, SandboxError> {
        Err(SandboxError::Engine("a script has no pipes".into()))
    }

    async fn get(&self, path: Option<&RelativePath>, limits: ArchiveLimits) -> Result<Option<Archive>, SandboxError> {
        let files = lock(&self.inside).files.clone();
        let mut builder = ArchiveBuilder::new(limits)?;
        let mut found = path.is_none();
        for (place, content) in &files {
            if path.is_none_or(|path| is_within(place, path)) {
                found = true;
                builder.file(&below_its_name(place, path), content.starts_with(b"#!"), content)?;
            }
        }
        Ok(if found { Some(builder.finish()?) } else { None })
    }

    async fn usage(&self) -> CellUsage {
        let cpu_time = Duration::from_millis(7);
        CellUsage { cpu_time, peak_memory_bytes: 5 * MIB, disk_writes_bytes: 3, network_bytes: 0 }
    }

    async fn close(&self) {
        self.end();
    }
}

/// Where a file lies in an archive of this path.
fn below_its_name(file: &RelativePath, path: Option<&RelativePath>) -> RelativePath {
    let name = match path.map(RelativePath::parent) {
        None => format!("workspace/{file}"),
        Some(None) => file.to_string(),
        Some(Some(parent)) => file.as_str()[parent.as_str().len() + 1..].to_owned(),
    };
    name.parse().expect("a part of a path is one")
}

/// Whether a file is this one, or lies below it.
fn is_within(file: &RelativePath, path: &RelativePath) -> bool {
    file == path || file.as_str().strip_prefix(path.as_str()).is_some_and(|rest| rest.starts_with('/'))
}

fn ran(command: &Command, exit_code: i64, ended: Ended, stdout: &str, stderr: &str) -> Ran {
    let output = |text: &str| Output {
        text: kept(text, command.keep_bytes),
        bytes: text.len() as u64,
        sha256: sha256::Hash::hash(text.as_bytes()).to_string(),
    };
    Ran { exit_code, ended, stdout: output(stdout), stderr: output(stderr), duration: Duration::from_millis(12) }
}

/// The beginning and the end of a text, of characters of one byte.
fn kept(text: &str, keep: usize) -> String {
    if text.len() <= keep {
        return text.to_owned();
    }
    let half = keep / 2;
    let left_out = text.len() - 2 * half;
    format!("{}\n[{left_out} bytes are left out]\n{}", &text[..half], &text[text.len() - half..])
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
