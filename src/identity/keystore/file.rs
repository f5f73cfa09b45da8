//! Secret files on disk: whole or not at all, and for nobody else to read.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use crate::identity::error::IdentityError;

/// What happens when the file is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Existing {
    /// Nothing is written.
    Keep,
    /// It is replaced in one step.
    Replace,
}

/// Reads a small file. Anything but a plain file (a pipe, a folder) is refused, since reading it could take forever.
pub(super) fn read(path: &Path, max_bytes: u64) -> Result<Vec<u8>, IdentityError> {
    let io = |what, source| IdentityError::Io { what, path: path.to_owned(), source };
    let meta = fs::metadata(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => IdentityError::NoKeystore(path.to_owned()),
        _ => io("look at", error),
    })?;
    let foreign = |why: &str| IdentityError::NotAKeystore { path: path.to_owned(), why: why.into() };
    if !meta.is_file() {
        return Err(foreign("it is not a file"));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| io("open", error))?;
    file.take(max_bytes + 1).read_to_end(&mut bytes).map_err(|error| io("read", error))?;
    if bytes.len() as u64 > max_bytes {
        return Err(foreign("it is far too large"));
    }
    Ok(bytes)
}

/// Whether others than the owner may read the file.
#[cfg(unix)]
pub(super) fn is_open_to_others(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
pub(super) fn is_open_to_others(_: &Path) -> bool {
    false
}

/// Writes a file that only its owner can read: to a neighbour first, flushed to the disk, then given its name in one
/// step, then the folder flushed. After a power cut there is the old file, or the new one, never half of one.
pub(super) fn write(path: &Path, bytes: &[u8], existing: Existing) -> Result<(), IdentityError> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    create_private_folder(&folder)?;
    // Replacing a link must replace what it points to, not the link.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = target.parent().map_or(folder, Path::to_owned);
    let draft = Draft::create(&folder, &target)?;
    draft.fill(bytes)?;
    let io = |what, source| IdentityError::Io { what, path: target.clone(), source };
    match existing {
        // A link fails when the name is taken, where a rename would overwrite it. Where the file system knows no
        // links, looking first is the best there is.
        Existing::Keep => match fs::hard_link(&draft.path, &target) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists || target.symlink_metadata().is_ok() => {
                return Err(IdentityError::KeystoreExists(path.to_owned()));
            }
            Err(_) => fs::rename(&draft.path, &target).map_err(|error| io("create", error))?,
        },
        Existing::Replace => fs::rename(&draft.path, &target).map_err(|error| io("replace", error))?,
    }
    drop(draft);
    flush_folder(&folder).map_err(|error| io("flush the folder of", error))
}

/// Creates a folder, with its parents, that only its owner can enter. One that is there stays as it is.
pub(super) fn create_private_folder(folder: &Path) -> Result<(), IdentityError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(|source| IdentityError::Io { what: "create", path: folder.to_owned(), source })
}

/// A file beside its destination; removed when dropped, whatever happened.
struct Draft {
    path: PathBuf,
    file: File,
}

impl Draft {
    fn create(folder: &Path, target: &Path) -> Result<Self, IdentityError> {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let path = folder.join(format!(".{name}.{:016x}.new", rand::random::<u64>()));
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file =
            options.open(&path).map_err(|source| IdentityError::Io { what: "create", path: path.clone(), source })?;
        Ok(Self { path, file })
    }

    fn fill(&self, bytes: &[u8]) -> Result<(), IdentityError> {
        (&self.file).write_all(bytes).and_then(|()| self.file.sync_all()).map_err(|source| IdentityError::Io {
            what: "write",
            path: self.path.clone(),
            source,
        })
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After a rename there is nothing left to remove, which is fine.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(unix)]
fn flush_folder(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn flush_folder(_: &Path) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_existing_file_is_kept_or_replaced_as_asked_and_no_draft_remains() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("deep/er/id");
        write(&path, b"one", Existing::Keep).unwrap();
        assert!(matches!(write(&path, b"two", Existing::Keep), Err(IdentityError::KeystoreExists(_))));
        assert_eq!(read(&path, 10).unwrap(), b"one");
        write(&path, b"two", Existing::Replace).unwrap();
        assert_eq!(read(&path, 10).unwrap(), b"two");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_can_read_file_and_folder() {
        use std::os::unix::fs::PermissionsExt as _;
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("new/id");
        for existing in [Existing::Keep, Existing::Replace] {
            write(&path, b"x", existing).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            assert!(!is_open_to_others(&path));
        }
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(is_open_to_others(&path));
    }

    #[cfg(unix)]
    #[test]
    fn replacing_through_a_link_keeps_the_link() {
        let home = tempfile::tempdir().unwrap();
        let (real, link) = (home.path().join("real"), home.path().join("link"));
        write(&real, b"one", Existing::Keep).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        write(&link, b"two", Existing::Replace).unwrap();
        assert_eq!(fs::read(&real).unwrap(), b"two");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(matches!(write(&link, b"three", Existing::Keep), Err(IdentityError::KeystoreExists(_))));
    }

    #[test]
    fn a_missing_a_huge_and_a_strange_file_each_say_so() {
        let home = tempfile::tempdir().unwrap();
        assert!(matches!(read(&home.path().join("none"), 10), Err(IdentityError::NoKeystore(_))));
        assert!(matches!(read(home.path(), 10), Err(IdentityError::NotAKeystore { .. })));
        fs::write(home.path().join("big"), [b'x'; 11]).unwrap();
        assert!(matches!(read(&home.path().join("big"), 10), Err(IdentityError::NotAKeystore { .. })));
    }
}
