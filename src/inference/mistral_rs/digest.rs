//! What a model is, to the byte: the SHA-256 of its files, read as a stream.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use bitcoin::hashes::{Hash, HashEngine, sha256};

/// How hashes are written.
const PREFIX: &str = "sha256:";
/// How much is read at once.
const CHUNK_BYTES: usize = 1 << 20;

/// The hash of one file.
pub(super) fn of_file(path: &Path) -> io::Result<String> {
    Ok(format!("{PREFIX}{}", hash(path)?))
}

/// The hash of a folder's files: of a line `name sha256` for each, sorted by name.
pub(super) fn of_folder(files: &[PathBuf]) -> io::Result<String> {
    let mut lines = Vec::with_capacity(files.len());
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        lines.push(format!("{name} {}\n", hash(file)?));
    }
    lines.sort_unstable();
    Ok(format!("{PREFIX}{}", sha256::Hash::hash(lines.concat().as_bytes())))
}

fn hash(path: &Path) -> io::Result<sha256::Hash> {
    let mut file = File::open(path)?;
    let mut engine = sha256::Hash::engine();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match io::Read::read(&mut file, &mut chunk) {
            Ok(0) => return Ok(sha256::Hash::from_engine(engine)),
            Ok(bytes) => engine.input(&chunk[..bytes]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::inference::tiny;

    #[test]
    fn a_files_digest_is_its_sha256() {
        let home = tempfile::tempdir().unwrap();
        let path = tiny::write_to(home.path()).unwrap();
        assert_eq!(of_file(&path).unwrap(), format!("sha256:{}", tiny::SHA256));
        assert!(of_file(&home.path().join("none")).is_err());
    }

    #[test]
    fn a_folders_digest_depends_on_names_and_contents_and_not_on_the_order() {
        let home = tempfile::tempdir().unwrap();
        let files = ["b", "a"].map(|name| home.path().join(name));
        fs::write(&files[0], "2").unwrap();
        fs::write(&files[1], "1").unwrap();
        // printf 'a %s\nb %s\n' "$(printf 1 | sha256sum | cut -c-64)" "$(printf 2 | sha256sum | cut -c-64)" | sha256sum
        let digest = of_folder(&files).unwrap();
        assert_eq!(digest, of_folder(&[files[1].clone(), files[0].clone()]).unwrap());
        let one = "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b";
        let two = "d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35";
        let lines = format!("a {one}\nb {two}\n");
        assert_eq!(digest, format!("sha256:{}", sha256::Hash::hash(lines.as_bytes())));
        fs::write(&files[0], "3").unwrap();
        assert_ne!(of_folder(&files).unwrap(), digest);
    }
}
