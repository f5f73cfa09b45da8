//! One provider a database: two would both do what is in the outbox.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The serving lock's file, in the data folder.
const LOCK_FILE: &str = "serve.lock";

/// The embedded node's lock, in the data folder: one process has the node, a provider or a command.
const NODE_LOCK_FILE: &str = "node.lock";

/// Why the lock could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("another coinop is serving from {}", .0.display())]
    Taken(PathBuf),
    /// Another process has the embedded node.
    #[error("another coinop has the embedded node of {} open", .0.display())]
    NodeTaken(PathBuf),
    /// The lock file can't be used.
    #[error("the lock file {} can't be used: {source}", path.display())]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Held while a provider serves; the system releases it with the process, however that ends.
#[derive(Debug)]
pub struct ServeLock(#[allow(dead_code)] File); // Held, never read.

impl ServeLock {
    /// Takes the lock of a data folder.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn take(folder: &Path) -> Result<Self, LockError> {
        take(&folder.join(LOCK_FILE))?.map(Self).ok_or_else(|| LockError::Taken(folder.to_owned()))
    }

    /// Whether a provider is serving from a data folder. Makes no file.
    ///
    /// # Errors
    /// [`LockError::Unusable`].
    pub fn is_held(folder: &Path) -> Result<bool, LockError> {
        let path = folder.join(LOCK_FILE);
        let tried = match File::open(&path) {
            Ok(file) => file.try_lock_shared(),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(source) => return Err(LockError::Unusable { path, source }),
        };
        match tried {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(source)) => Err(LockError::Unusable { path, source }),
        }
    }
}

/// Held by the process that has the embedded node open: two would lose its money.
#[derive(Debug)]
pub struct NodeLock(#[allow(dead_code)] File); // Held, never read.

impl NodeLock {
    /// Takes the lock of a data folder.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn take(folder: &Path) -> Result<Self, LockError> {
        take(&folder.join(NODE_LOCK_FILE))?.map(Self).ok_or_else(|| LockError::NodeTaken(folder.to_owned()))
    }
}

/// Locks a file; `None` when another process has it.
fn take(path: &Path) -> Result<Option<File>, LockError> {
    let unusable = |source| LockError::Unusable { path: path.to_owned(), source };
    let file = File::options().create(true).truncate(false).write(true).open(path).map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(unusable(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_provider_on_the_same_folder_is_refused_until_the_first_ends() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!ServeLock::is_held(folder.path()).unwrap());
        let first = ServeLock::take(folder.path()).unwrap();
        assert!(ServeLock::is_held(folder.path()).unwrap());
        assert!(matches!(ServeLock::take(folder.path()), Err(LockError::Taken(_))));
        drop(first);
        assert!(!ServeLock::is_held(folder.path()).unwrap());
        ServeLock::take(folder.path()).unwrap();
    }
}
