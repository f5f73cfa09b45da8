//! The repository that somebody orders from.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use coinop::testing::require;
use tempfile::TempDir;

/// A repository that somebody works in, made by git itself.
pub struct Repository(TempDir);

impl Repository {
    /// With one commit; `None` where there is no git.
    pub fn new() -> Option<Self> {
        if Command::new("git").arg("--version").output().is_err() {
            require::skip("git", "install git");
            return None;
        }
        let repository = Self(tempfile::tempdir().unwrap());
        repository.git(&["init", "--quiet", "--initial-branch", "main"]);
        repository.git(&["remote", "add", "origin", "git@example.com:owner/name.git"]);
        fs::write(repository.file("greeting"), "hello\nwrold\n").unwrap();
        repository.git(&["add", "."]);
        repository.git(&["commit", "--quiet", "--message", "begin"]);
        Some(repository)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub fn git(&self, args: &[&str]) -> String {
        let output = Command::new("git")
            .current_dir(self.path())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .args(["-c", "user.name=n", "-c", "user.email=n@example.com"])
            .args(args)
            .output()
            .unwrap();
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}
