//! The folder that everything delivered is written into (`--out`).
//!
//! Names of files come from the provider. They are paths below the folder or nothing; no link is followed, and nothing that
//! is there is overwritten unless that was asked for.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::cli::exit::CommandError;
use crate::job::RelativePath;

/// A file to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OutFile {
    /// Where, below the folder.
    pub(super) path: RelativePath,
    /// What.
    pub(super) content: Vec<u8>,
    /// Whether nobody else may read it.
    pub(super) is_private: bool,
}

impl OutFile {
    /// A file of ours.
    pub(super) fn new(path: &str, content: impl Into<Vec<u8>>) -> Self {
        let path = path.parse().expect("the names of our own files lead nowhere else");
        Self { path, content: content.into(), is_private: false }
    }

    /// A file of ours that nobody else may read.
    pub(super) fn private(path: &str, content: impl Into<Vec<u8>>) -> Self {
        Self { is_private: true, ..Self::new(path, content) }
    }

    /// A file whose name comes from the provider, below a folder of ours.
    pub(super) fn below(folder: &str, path: &RelativePath, content: Vec<u8>) -> Option<Self> {
        // Together they may be too long for a path.
        let path = format!("{folder}/{path}").parse().ok()?;
        Some(Self { path, content, is_private: false })
    }
}

/// Checks that the folder can be used, before anything is paid for. Nothing is left there by it.
///
/// # Errors
/// When it is no folder that can be written, or holds something and that was not allowed.
pub(super) fn check(folder: &Path, force: bool) -> Result<(), CommandError> {
    match fs::read_dir(folder).map(|mut entries| entries.next().is_none()) {
        Ok(is_empty) if is_empty || force => {}
        Ok(_) => {
            return Err(CommandError::usage(format!("the folder {} is not empty", folder.display()))
                .help("name another with --out, or allow files there to be overwritten with --force"));
        }
        Err(problem) if problem.kind() == io::ErrorKind::NotFound => {}
        Err(problem) => return Err(unusable("--out", folder, &problem)),
    }
    try_to_write(folder).map_err(|problem| unusable("--out", folder, &problem))
}

/// Checks that a file can be written, as [`check`] does a folder.
///
/// # Errors
/// When it can't.
pub(super) fn check_file(option: &str, file: &Path) -> Result<(), CommandError> {
    let tried = match fs::metadata(file) {
        Ok(there) if there.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(_) => fs::OpenOptions::new().append(true).open(file).map(drop),
        // It is not made with its folders.
        Err(problem) if problem.kind() == io::ErrorKind::NotFound => {
            let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            tempfile::tempfile_in(folder).map(drop)
        }
        Err(problem) => Err(problem),
    };
    tried.map_err(|problem| unusable(option, file, &problem))
}

/// Makes a file that has no name in the folder, or in the nearest one above that is there.
fn try_to_write(folder: &Path) -> io::Result<()> {
    let is_there =
        |place: &&Path| !matches!(fs::metadata(place), Err(problem) if problem.kind() == io::ErrorKind::NotFound);
    // The empty path is the folder we are in.
    let here = |place: &'_ Path| place.as_os_str().is_empty();
    let nearest = folder.ancestors().find(|place| here(place) || is_there(place));
    tempfile::tempfile_in(nearest.filter(|place| !here(place)).unwrap_or(Path::new("."))).map(drop)
}

fn unusable(option: &str, place: &Path, problem: &io::Error) -> CommandError {
    CommandError::usage(format!("{option} {} can't be written: {problem}", place.display()))
        .help("nobody was asked for anything; name another place")
}

/// Writes the files. Those that can't be written are said, and do not keep the others.
///
/// # Errors
/// When the folder can't be made, or a file was not written.
pub(super) fn write(folder: &Path, files: &[OutFile], force: bool) -> Result<(), CommandError> {
    let made = fs::create_dir_all(folder);
    made.map_err(|problem| CommandError::failure(format!("the folder {} can't be made: {problem}", folder.display())))?;
    let mut failed = Vec::new();
    for file in files {
        if let Err(problem) = write_one(folder, file, force) {
            failed.push(format!("{}: {problem}", file.path));
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    let failed = failed.join("; ");
    Err(CommandError::failure(format!("not everything could be written to {}: {failed}", folder.display())))
}

fn write_one(folder: &Path, file: &OutFile, force: bool) -> io::Result<()> {
    let mut place: PathBuf = folder.to_owned();
    let mut names = file.path.as_str().split('/').peekable();
    while let Some(name) = names.next() {
        place.push(name);
        if names.peek().is_none() {
            break;
        }
        match fs::symlink_metadata(&place) {
            Ok(there) if there.is_dir() => {}
            Ok(_) => return Err(io::Error::new(io::ErrorKind::NotADirectory, "something else is in its place")),
            Err(problem) if problem.kind() == io::ErrorKind::NotFound => fs::create_dir(&place)?,
            Err(problem) => return Err(problem),
        }
    }
    if force && fs::symlink_metadata(&place).is_ok_and(|there| !there.is_dir()) {
        // A link is removed itself, whatever it leads to.
        fs::remove_file(&place)?;
    }
    // Made anew or not at all: no link is followed, and nothing is overwritten.
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if file.is_private {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    options.open(&place)?.write_all(&file.content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, content: &str) -> OutFile {
        OutFile::new(path, content)
    }

    #[test]
    fn a_folder_with_something_in_it_is_left_alone_unless_forced() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        check(&out, false).unwrap();
        write(&out, &[file("result.json", "{}"), file("artifacts/a/b.txt", "b")], false).unwrap();
        assert_eq!(fs::read_to_string(out.join("artifacts/a/b.txt")).unwrap(), "b");

        assert!(check(&out, false).is_err());
        check(&out, true).unwrap();
        assert!(write(&out, &[file("result.json", "other")], false).is_err());
        assert_eq!(fs::read_to_string(out.join("result.json")).unwrap(), "{}");
        write(&out, &[file("result.json", "other")], true).unwrap();
        assert_eq!(fs::read_to_string(out.join("result.json")).unwrap(), "other");
        assert_eq!(check(&out.join("result.json"), true).unwrap_err().code(), 2);
        assert_eq!(check(&out.join("result.json/below"), true).unwrap_err().code(), 2);
    }

    #[test]
    fn looking_whether_something_can_be_written_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        check(&folder.path().join("a/b/c"), false).unwrap();
        check_file("--receipt", &folder.path().join("receipt.json")).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);

        assert_eq!(check_file("--receipt", folder.path()).unwrap_err().code(), 2);
        let nowhere = check_file("--receipt", &folder.path().join("missing/receipt.json")).unwrap_err();
        assert_eq!(nowhere.code(), 2);
        assert!(nowhere.to_string().contains("--receipt"), "{nowhere}");
    }

    #[cfg(unix)]
    #[test]
    fn no_link_leads_a_delivered_file_out_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let (out, elsewhere) = (folder.path().join("out"), folder.path().join("elsewhere"));
        fs::create_dir(&out).unwrap();
        fs::create_dir(&elsewhere).unwrap();
        fs::write(elsewhere.join("kept"), "mine").unwrap();
        std::os::unix::fs::symlink(&elsewhere, out.join("artifacts")).unwrap();
        std::os::unix::fs::symlink(elsewhere.join("kept"), out.join("result.json")).unwrap();
        let problem = write(&out, &[file("artifacts/x", "x"), file("result.json", "y")], true).unwrap_err();
        assert!(problem.to_string().contains("artifacts/x"), "{problem}");
        assert!(!elsewhere.join("x").exists());
        assert_eq!(fs::read_to_string(elsewhere.join("kept")).unwrap(), "mine");
        assert_eq!(fs::read_to_string(out.join("result.json")).unwrap(), "y");
    }

    #[test]
    fn one_file_that_can_not_be_written_does_not_keep_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let files = [file("a", "1"), file("a/b", "2"), file("c", "3")];
        assert!(write(folder.path(), &files, false).is_err());
        assert_eq!(fs::read_to_string(folder.path().join("c")).unwrap(), "3");
    }
}
