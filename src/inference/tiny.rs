//! The tiny model the program carries: it proves simple Lean and Rocq statements and makes `demo` and the tests real
//! without a download. 885,888 parameters, context 1,024, ChatML template inside. Ours, trained on synthetic data.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bitcoin::hashes::{Hash, sha256};

/// The name it is offered under.
pub const MODEL_NAME: &str = "tiny-prover";
/// The file's name.
pub const FILE_NAME: &str = "tiny-prover.gguf";
/// The whole model, a GGUF file.
pub const MODEL_BYTES: &[u8] = include_bytes!("../../assets/tiny-prover.gguf");
/// The file's SHA-256.
pub const SHA256: &str = "7771e4d93c8a1015159b4bfb66a4dd7b597e6d52b946c05100d10fecf2bc4d86";

/// Puts the model into `dir` (made if missing) and says where it lies. A file that is there and right is left alone; a
/// wrong one is replaced in one step, so that nobody ever sees half a model.
///
/// # Errors
/// The folder or file can't be written.
pub fn write_to(dir: &Path) -> io::Result<PathBuf> {
    let path = dir.join(FILE_NAME);
    if is_intact(&path)? {
        return Ok(path);
    }
    fs::create_dir_all(dir)?;
    // The name is ours alone: two processes that start together don't write into each other's file.
    let draft = dir.join(format!(".{FILE_NAME}.{}.{:08x}", std::process::id(), rand::random::<u32>()));
    let written = write_and_sync(&draft).and_then(|()| fs::rename(&draft, &path));
    if written.is_err() {
        // The first error is the one worth reporting.
        let _ = fs::remove_file(&draft);
    }
    written.map(|()| path)
}

fn write_and_sync(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(MODEL_BYTES)?;
    file.sync_all()
}

fn is_intact(path: &Path) -> io::Result<bool> {
    // The size first: no need to read a large file that happens to have this name.
    match fs::metadata(path) {
        Ok(about) if about.len() != MODEL_BYTES.len() as u64 => return Ok(false),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    }
    let mut hash = sha256::Hash::engine();
    io::copy(&mut File::open(path)?, &mut hash)?;
    Ok(sha256::Hash::from_engine(hash).to_string() == SHA256)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_carried_model_is_the_one_described() {
        assert_eq!(sha256::Hash::hash(MODEL_BYTES).to_string(), SHA256);
    }

    #[test]
    fn a_missing_or_damaged_model_is_written_and_an_intact_one_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("models");
        let path = write_to(&dir).unwrap();
        assert_eq!(fs::read(&path).unwrap(), MODEL_BYTES);

        let written_at = fs::metadata(&path).unwrap().modified().unwrap();
        assert_eq!(write_to(&dir).unwrap(), path);
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), written_at);

        let mut damaged = MODEL_BYTES.to_vec();
        damaged[1_000] ^= 1;
        for wrong in [damaged.as_slice(), b"short", b""] {
            fs::write(&path, wrong).unwrap();
            write_to(&dir).unwrap();
            assert_eq!(fs::read(&path).unwrap(), MODEL_BYTES);
        }
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "a draft was left behind");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("file");
        fs::write(&file, "x").unwrap();
        assert!(write_to(&file).is_err());
    }
}
