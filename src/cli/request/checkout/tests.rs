use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::*;
use crate::testing::require;

/// A repository made by git itself, without anybody's configuration.
struct Made(TempDir);

impl Made {
    /// With a commit; `None` where there is no git.
    fn new() -> Option<Self> {
        if Command::new("git").arg("--version").output().is_err() {
            require::skip("git", "install git");
            return None;
        }
        let made = Self(tempfile::tempdir().unwrap());
        made.git(&["init", "--quiet", "--initial-branch", "main"]);
        for (name, text) in
            [("kept", "kept\n"), ("changed", "one\ntwo\nthree\n"), ("removed", "gone\n"), ("run", "#!/bin/sh\n")]
        {
            made.write(name, text);
        }
        made.git(&["add", "."]);
        made.git(&["commit", "--quiet", "--message", "begin"]);
        Some(made)
    }

    fn root(&self) -> &Path {
        self.0.path()
    }

    fn git(&self, args: &[&str]) -> String {
        let output = Command::new("git")
            .current_dir(self.root())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .args(["-c", "user.name=n", "-c", "user.email=n@example.com", "-c", "protocol.file.allow=always"])
            .args(args)
            .output()
            .unwrap();
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let place = self.root().join(name);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, content).unwrap();
    }

    fn checkout(&self) -> Checkout {
        Checkout::around(self.root()).unwrap()
    }
}

#[test]
fn the_repository_is_found_from_below_and_its_remote_is_told_in_public_form() {
    let Some(made) = Made::new() else { return };
    made.write("deep/down/file", "x");
    let here = Checkout::around(&made.root().join("deep/down")).unwrap();
    assert_eq!(here.commit().unwrap(), made.git(&["rev-parse", "HEAD"]).trim());
    assert!(matches!(here.address(), Err(CheckoutError::NoRemote)));
    made.git(&["remote", "add", "fork", "git@example.com:me/name.git"]);
    assert_eq!(made.checkout().address().unwrap(), "https://example.com/me/name.git");
    made.git(&["remote", "add", "other", "https://example.com/other"]);
    assert!(matches!(made.checkout().address(), Err(CheckoutError::NoRemote)), "which of two is anybody's guess");
    made.git(&["remote", "add", "origin", "https://me:s3cret@example.com/owner/name"]);
    assert_eq!(made.checkout().address().unwrap(), "https://example.com/owner/name");
    made.git(&["remote", "set-url", "origin", "/srv/git/name"]);
    assert!(matches!(made.checkout().address(), Err(CheckoutError::NotPublic { .. })));
}

#[test]
fn a_second_working_tree_has_its_own_commit_and_changes() {
    let Some(made) = Made::new() else { return };
    let begin = made.git(&["rev-parse", "HEAD"]);
    made.git(&["commit", "--quiet", "--allow-empty", "--message", "more"]);
    let place = tempfile::tempdir().unwrap();
    let second = place.path().join("second");
    made.git(&["worktree", "add", "--quiet", "--detach", second.to_str().unwrap(), begin.trim()]);
    fs::write(second.join("kept"), "changed here\n").unwrap();
    let here = Checkout::around(&second).unwrap();
    assert_eq!((here.commit().unwrap().as_str(), here.root()), (begin.trim(), second.as_path()));
    assert!(here.change(usize::MAX).unwrap().diff.contains("+changed here"));
    assert!(!made.checkout().unshared().unwrap().changes);
}

#[test]
fn a_folder_without_a_repository_and_a_repository_without_a_commit_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(Checkout::around(folder.path()), Err(CheckoutError::None)));
    gix::init(folder.path()).unwrap();
    assert!(matches!(Checkout::around(folder.path()).unwrap().commit(), Err(CheckoutError::NoCommit)));
    let bare = tempfile::tempdir().unwrap();
    gix::init_bare(bare.path()).unwrap();
    assert!(matches!(Checkout::around(bare.path()), Err(CheckoutError::Bare)));
}

#[test]
fn a_commit_counts_as_shared_when_a_branch_of_the_remote_has_it() {
    let Some(made) = Made::new() else { return };
    let bare = tempfile::tempdir().unwrap();
    gix::init_bare(bare.path()).unwrap();
    made.git(&["remote", "add", "origin", bare.path().to_str().unwrap()]);
    assert_eq!(made.checkout().unshared().unwrap(), Unshared { commit: true, changes: false });
    made.git(&["push", "--quiet", "origin", "main"]);
    assert_eq!(made.checkout().unshared().unwrap(), Unshared { commit: false, changes: false });
    let pushed = made.git(&["rev-parse", "HEAD"]);
    made.git(&["commit", "--quiet", "--allow-empty", "--message", "more"]);
    assert_eq!(made.checkout().unshared().unwrap(), Unshared { commit: true, changes: false });
    made.git(&["push", "--quiet", "origin", "main:topic"]);
    assert!(!made.checkout().unshared().unwrap().commit);
    // An ancestor of what was pushed was pushed, too.
    made.git(&["checkout", "--quiet", pushed.trim()]);
    assert!(!made.checkout().unshared().unwrap().commit);
    made.write("changed", "other\n");
    assert!(made.checkout().unshared().unwrap().changes);
}

#[test]
fn the_change_is_what_git_diff_shows() {
    let Some(made) = Made::new() else { return };
    assert_eq!(made.checkout().change(usize::MAX).unwrap(), LocalChange::default());
    made.write("changed", "one\n2\nthree\n");
    made.write("new/staged", "new\n");
    made.write("untracked", "not of interest\n");
    made.git(&["add", "new/staged"]);
    made.write("new/staged", "new, and changed since\n");
    fs::remove_file(made.root().join("removed")).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(made.root().join("run"), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let change = made.checkout().change(usize::MAX).unwrap();
    assert_eq!((change.files, change.left_out.len()), (4, 0));
    let expected = made.git(&["diff", "HEAD", "--full-index", "--no-renames", "--no-ext-diff", "--no-color"]);
    assert_eq!(change.diff, expected);
    assert!(matches!(made.checkout().change(100), Err(CheckoutError::TooLarge { limit: 100 })));
    // What was only touched is no change.
    let kept = made.root().join("kept");
    let touched = fs::read(&kept).unwrap();
    fs::remove_file(&kept).unwrap();
    fs::write(&kept, touched).unwrap();
    assert_eq!(made.checkout().change(usize::MAX).unwrap().files, 4);
}

#[test]
fn what_is_no_text_is_left_out_and_a_merge_must_be_finished() {
    let Some(made) = Made::new() else { return };
    made.write("changed", b"one\0two");
    made.write("kept", vec![b'x'; 5 * 1024 * 1024]);
    let change = made.checkout().change(usize::MAX).unwrap();
    assert_eq!((change.files, change.left_out), (0, vec!["changed".to_owned(), "kept".to_owned()]));

    made.git(&["checkout", "--quiet", "--force", "-b", "one"]);
    made.write("changed", "here\n");
    made.git(&["commit", "--quiet", "--all", "--message", "here"]);
    made.git(&["checkout", "--quiet", "main"]);
    made.write("changed", "there\n");
    made.git(&["commit", "--quiet", "--all", "--message", "there"]);
    let merge = Command::new("git").current_dir(made.root()).args(["merge", "--quiet", "one"]).output().unwrap();
    assert!(!merge.status.success());
    assert!(matches!(made.checkout().change(usize::MAX), Err(CheckoutError::Conflict(name)) if name == "changed"));
    assert!(made.checkout().unshared().unwrap().changes);
}

#[test]
fn the_files_of_a_commit_are_read_from_the_repository_and_not_from_the_disk() {
    let Some(made) = Made::new() else { return };
    let commit = made.git(&["rev-parse", "HEAD"]);
    made.write("changed", "other\n");
    let here = made.checkout();
    let tree = here.tree_of(commit.trim()).unwrap();
    let find = |name: &str| tree.find(&name.parse().unwrap()).unwrap();
    assert_eq!(find("changed"), Found::File { content: b"one\ntwo\nthree\n".to_vec(), executable: false });
    assert_eq!(find("nothing/here"), Found::Nothing);
    for unknown in ["", "HEAD", "0123456789012345678901234567890123456789"] {
        assert!(here.tree_of(unknown).is_none());
    }
}
