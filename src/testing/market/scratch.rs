//! A folder that goes when nobody needs it any more.

use std::path::{Path, PathBuf};

/// A folder of its own, removed with everything in it when dropped.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes one among the system's temporary files.
    #[allow(clippy::new_without_default)] // Makes a folder: not what a default does.
    pub fn new() -> Self {
        let path =
            std::env::temp_dir().join(format!("coinop-test-{}-{:016x}", std::process::id(), rand::random::<u64>()));
        std::fs::create_dir_all(&path).expect("temporary files can be made");
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What can't be removed is the system's to tidy.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
