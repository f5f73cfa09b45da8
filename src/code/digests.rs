//! What files are: their hashes, sizes and lines, and one hash over all of them that anybody can compute again.

use bitcoin::hashes::{Hash, HashEngine, sha256};

use super::languages;
use crate::job::RelativePath;
use crate::job::repo_index::FileDigest;

/// The digest of a file.
pub fn digest(path: &RelativePath, content: &[u8]) -> FileDigest {
    FileDigest {
        path: path.as_str().to_owned(),
        sha256: sha256::Hash::hash(content).to_string(),
        size: content.len() as u64,
        language: languages::language(path).map(str::to_owned),
        lines: lines(content),
    }
}

/// Lines of a file; a last one without a line break counts.
fn lines(content: &[u8]) -> u64 {
    let breaks = content.iter().filter(|byte| **byte == b'\n').count() as u64;
    breaks + u64::from(content.last().is_some_and(|last| *last != b'\n'))
}

/// The hash of all files. They are added in the order of their paths.
///
/// It is the SHA-256 of one line for each file: its SHA-256 in 64 hexadecimal digits, two spaces, its path, a line break,
/// sorted by the bytes of the path. That is what `sha256sum` writes, so in a checkout
///
/// ```text
/// git ls-files -z | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum
/// ```
///
/// gives the hash of a repository without links and submodules, of which nothing was left out.
#[derive(Default, Clone)]
pub struct TreeHash(sha256::HashEngine);

impl std::fmt::Debug for TreeHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TreeHash").finish_non_exhaustive()
    }
}

impl TreeHash {
    /// Adds a file.
    pub fn add(&mut self, digest: &FileDigest) {
        self.0.input(format!("{}  {}\n", digest.sha256, digest.path).as_bytes());
    }

    /// The hash of those that were added, in hexadecimal digits.
    pub fn finish(self) -> String {
        sha256::Hash::from_engine(self.0).to_string()
    }
}

/// The hash of files whose digests somebody has.
pub fn tree_sha256(digests: &[FileDigest]) -> String {
    let mut sorted: Vec<&FileDigest> = digests.iter().collect();
    sorted.sort_by(|a, b| a.path.as_bytes().cmp(b.path.as_bytes()));
    let mut hash = TreeHash::default();
    sorted.into_iter().for_each(|digest| hash.add(digest));
    hash.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str, content: &str) -> FileDigest {
        digest(&path.parse().unwrap(), content.as_bytes())
    }

    #[test]
    fn a_digest_says_what_a_file_is() {
        let digest = of("src/main.rs", "fn main() {\n}");
        assert_eq!((digest.size, digest.lines, digest.language.as_deref()), (13, 2, Some("Rust")));
        assert_eq!(of("empty", "").sha256, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        for (content, lines) in [("", 0), ("a", 1), ("a\n", 1), ("a\nb", 2), ("\n\n", 2)] {
            assert_eq!(of("a", content).lines, lines, "{content:?}");
        }
    }

    #[test]
    fn the_hash_of_a_tree_is_that_of_what_sha256sum_writes() {
        // printf 'hello\n' > a; mkdir b; printf 'world\n' > b/c; sha256sum a b/c | sha256sum
        let files = [of("b/c", "world\n"), of("a", "hello\n")];
        let lines = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03  a\n\
                     e258d248fda94c63753607f7c4494ee0fcbe92f1a76bfdac795c9d84101eb317  b/c\n";
        assert_eq!(tree_sha256(&files), sha256::Hash::hash(lines.as_bytes()).to_string());
        assert_ne!(tree_sha256(&files), tree_sha256(&files[..1]));
        assert_eq!(tree_sha256(&[]), of("empty", "").sha256);
    }

    #[test]
    fn files_are_sorted_by_the_bytes_of_their_paths() {
        let (upper, lower, slash, point) = (of("B", ""), of("a", ""), of("a/b", ""), of("a.b", ""));
        let mut hash = TreeHash::default();
        [&upper, &lower, &point, &slash].into_iter().for_each(|digest| hash.add(digest));
        assert_eq!(hash.finish(), tree_sha256(&[slash, lower, point, upper]));
    }
}
