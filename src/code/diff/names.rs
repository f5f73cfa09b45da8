//! Names that mean something to git.

use gix::validate::path::component::Options;

use crate::job::RelativePath;

/// Which spellings of `.git` file systems take for one another: the Mac's and Windows's. What else Windows forbids is a name like
/// any other.
const SPELLINGS: Options = Options { protect_windows: false, protect_hfs: true, protect_ntfs: true };

/// Whether a path leads into git's own folder, in any spelling that some file system takes for it, or is the list of
/// submodules. A change to one of those acts on whoever applies it.
pub fn is_git_s_own(path: &RelativePath) -> bool {
    let is_list = path.name().eq_ignore_ascii_case(".gitmodules");
    let mut names = path.as_str().split('/');
    is_list || names.any(|name| gix::validate::path::component(name.into(), None, SPELLINGS).is_err())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn git_s_own_files_are_known_in_every_spelling() {
        for own in [
            ".git/config",
            "a/.GIT/hooks/post-checkout",
            ".g\u{200c}it/x",
            "git~1/config",
            ".git /x",
            ".gitmodules",
            "a/.GitModules",
        ] {
            assert!(is_git_s_own(&own.parse().unwrap()), "{own}");
        }
        for plain in [".github/workflows/x.yml", ".gitignore", ".gitattributes", "git/x", "aux.c", "a:b", "x.git/y"] {
            assert!(!is_git_s_own(&plain.parse().unwrap()), "{plain}");
        }
    }
}
