//! A working tree on the disk: looked at without following links, and changed all at once or not at all.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::PatchError;
use super::plan::{Edit, Found, PlainFile, Tree};
use crate::job::RelativePath;

/// Bytes of a file that a patch may change.
const LARGEST_FILE: u64 = 64 * 1024 * 1024;

/// The files below a folder.
#[derive(Debug, Clone)]
pub struct WorkTree {
    root: PathBuf,
}

impl Tree for WorkTree {
    fn find(&self, path: &RelativePath) -> io::Result<Found> {
        let mut place = self.root.clone();
        let mut names = path.as_str().split('/').peekable();
        while let Some(name) = names.next() {
            place.push(name);
            let metadata = match fs::symlink_metadata(&place) {
                Ok(metadata) => metadata,
                Err(problem) if problem.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
                Err(problem) => return Err(problem),
            };
            if names.peek().is_some() {
                if !metadata.is_dir() {
                    return Ok(Found::Other);
                }
            } else if metadata.is_file() && metadata.len() <= LARGEST_FILE {
                return Ok(Found::File { content: fs::read(&place)?, executable: is_executable(&metadata) });
            }
        }
        Ok(Found::Other)
    }
}

impl WorkTree {
    /// The files below this folder.
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Which folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes the edits: all of them, or none.
    ///
    /// # Errors
    /// When a file is not as the edit says, or can't be written; then everything is put back.
    pub fn write(&self, edits: &[Edit]) -> Result<(), PatchError> {
        for edit in edits {
            let now =
                self.find(&edit.path).map_err(|source| PatchError::Read { path: edit.path.to_string(), source })?;
            let expected = edit.before.as_ref().map_or(Found::Nothing, |file| Found::File {
                content: file.content.clone(),
                executable: file.executable,
            });
            if now != expected {
                return Err(PatchError::Moved(edit.path.to_string()));
            }
        }
        self.put_all(edits)
    }

    /// Makes the edits, or none, whatever is there now.
    pub(super) fn put_all(&self, edits: &[Edit]) -> Result<(), PatchError> {
        let mut made = MadeFolders::default();
        let mut done: Vec<&Edit> = Vec::new();
        // Everything that can fail for want of room or rights is done before the first file is changed.
        let staged = edits.iter().map(|edit| self.stage(edit, &mut made).map_err(|problem| (edit, problem)));
        let result = staged.collect::<Result<Vec<_>, _>>().and_then(|staged| {
            for (edit, new) in edits.iter().zip(staged) {
                self.put(edit, new).map_err(|problem| (edit, problem))?;
                done.push(edit);
            }
            Ok(())
        });
        match result {
            Ok(()) => {
                for edit in edits.iter().filter(|edit| edit.after.is_none()) {
                    self.leave_no_empty_folder(&edit.path);
                }
                Ok(())
            }
            Err((edit, source)) => Err(self.undo(edit, source, &done, &made)),
        }
    }

    /// Writes the new file beside its place.
    fn stage(&self, edit: &Edit, made: &mut MadeFolders) -> io::Result<Option<NamedTempFile>> {
        let Some(after) = &edit.after else { return Ok(None) };
        let place = self.root.join(edit.path.as_str());
        let folder = place.parent().unwrap_or(&self.root);
        made.make(folder)?;
        new_file(folder, after, &place).map(Some)
    }

    fn put(&self, edit: &Edit, new: Option<NamedTempFile>) -> io::Result<()> {
        let place = self.root.join(edit.path.as_str());
        match new {
            Some(new) => new.persist(&place).map(drop).map_err(|problem| problem.error),
            None => fs::remove_file(&place),
        }
    }

    /// Puts back what was changed, and says what could not be.
    fn undo(&self, failed: &Edit, source: io::Error, done: &[&Edit], made: &MadeFolders) -> PatchError {
        let path = failed.path.to_string();
        let mut left = Vec::new();
        for edit in done.iter().rev() {
            let place = self.root.join(edit.path.as_str());
            let back = match &edit.before {
                None => fs::remove_file(&place),
                Some(before) => new_file(place.parent().unwrap_or(&self.root), before, &place)
                    .and_then(|old| old.persist(&place).map(drop).map_err(|problem| problem.error)),
            };
            if back.is_err() {
                left.push(edit.path.to_string());
            }
        }
        made.remove();
        if left.is_empty() {
            PatchError::Write { path, source }
        } else {
            PatchError::HalfWritten { path, left: left.join(", "), source }
        }
    }

    /// Folders that hold nothing any more go with their last file, as with git.
    fn leave_no_empty_folder(&self, path: &RelativePath) {
        let mut folder = path.parent();
        while let Some(path) = folder {
            // One that still holds something stays.
            if fs::remove_dir(self.root.join(path.as_str())).is_err() {
                return;
            }
            folder = path.parent();
        }
    }
}

/// Folders that were made on the way.
#[derive(Debug, Default)]
struct MadeFolders(Vec<PathBuf>);

impl MadeFolders {
    fn make(&mut self, folder: &Path) -> io::Result<()> {
        let missing: Vec<_> = folder.ancestors().take_while(|place| !place.exists()).collect();
        for place in missing.into_iter().rev() {
            fs::create_dir(place)?;
            self.0.push(place.to_owned());
        }
        Ok(())
    }

    fn remove(&self) {
        for folder in self.0.iter().rev() {
            // Somebody may have put something there meanwhile.
            let _ = fs::remove_dir(folder);
        }
    }
}

/// A file beside its place, with the rights of the one that is there.
fn new_file(folder: &Path, file: &PlainFile, place: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".coinop-");
    let mut new = with_rights(&mut builder, file.executable).tempfile_in(folder)?;
    new.write_all(&file.content)?;
    if let Ok(there) = fs::symlink_metadata(place)
        && there.is_file()
    {
        new.as_file().set_permissions(rights_of(&there, file.executable))?;
    }
    new.as_file().sync_all()?;
    Ok(new)
}

#[cfg(unix)]
fn with_rights<'a, 'b, 'c>(
    builder: &'a mut tempfile::Builder<'b, 'c>,
    executable: bool,
) -> &'a mut tempfile::Builder<'b, 'c> {
    use std::os::unix::fs::PermissionsExt as _;
    // Less what the user's mask takes away.
    builder.permissions(fs::Permissions::from_mode(if executable { 0o777 } else { 0o666 }))
}

#[cfg(not(unix))]
fn with_rights<'a, 'b, 'c>(builder: &'a mut tempfile::Builder<'b, 'c>, _: bool) -> &'a mut tempfile::Builder<'b, 'c> {
    builder
}

/// The rights of a file that is there, with the right to run it for whoever may read it, or for nobody.
#[cfg(unix)]
fn rights_of(there: &fs::Metadata, executable: bool) -> fs::Permissions {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = there.permissions().mode() & 0o777;
    fs::Permissions::from_mode(if executable { mode | ((mode & 0o444) >> 2) } else { mode & !0o111 })
}

#[cfg(not(unix))]
fn rights_of(there: &fs::Metadata, _: bool) -> fs::Permissions {
    there.permissions()
}

#[cfg(unix)]
fn is_executable(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    metadata.permissions().mode() & 0o100 != 0
}

#[cfg(not(unix))]
fn is_executable(_: &fs::Metadata) -> bool {
    false
}
