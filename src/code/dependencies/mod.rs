//! What a project needs, from its manifests and lock files.
//!
//! These are a stranger's files: a parser here returns what it understands or says why it understands nothing, and its work
//! is in proportion to the file.

mod lines;
mod maven;
mod scripts;
mod tables;
#[cfg(test)]
mod tests;

use crate::job::RelativePath;
use crate::job::repo_index::Dependency;

/// Dependencies of a file at most: the longest lock files have a few thousand.
pub const MOST_DEPENDENCIES: usize = 20_000;

/// Bytes of a name and of a version.
const LONGEST: usize = 200;

/// Why nothing of a file is understood. Never its own words: those are a stranger's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is not of its format.
    #[error("it is no valid {0}")]
    Not(&'static str),
    /// There is too much of it.
    #[error("it names more than {MOST_DEPENDENCIES} packages")]
    TooMany,
}

/// What a parser finds: a name, a version, and whether it is only needed to work on the project.
type Found = Vec<(String, Option<String>, bool)>;

type Parse = fn(&str) -> Result<Found, Unreadable>;

/// Reads a file that names dependencies; `None` when it is none of those. A package that is named twice in the same way is
/// listed once.
pub fn read(path: &RelativePath, text: &str) -> Option<Result<Vec<Dependency>, Unreadable>> {
    let parse = parser(path.name())?;
    Some(parse(text).and_then(|mut found| {
        found.retain(|(name, ..)| is_name(name));
        found.sort();
        found.dedup();
        if found.len() > MOST_DEPENDENCIES {
            return Err(Unreadable::TooMany);
        }
        let dependency = |(name, version, dev): (String, Option<String>, bool)| Dependency {
            name,
            version: version.as_deref().and_then(version_of),
            dev,
            source: path.as_str().to_owned(),
        };
        Ok(found.into_iter().map(dependency).collect())
    }))
}

/// Whether a file names dependencies, by its name.
pub fn is_manifest(path: &RelativePath) -> bool {
    parser(path.name()).is_some()
}

fn parser(name: &str) -> Option<Parse> {
    Some(match name {
        "Cargo.toml" => tables::cargo_manifest,
        "Cargo.lock" => tables::cargo_lock,
        "pyproject.toml" => tables::pyproject,
        "poetry.lock" | "uv.lock" => tables::python_lock,
        "package.json" => scripts::manifest,
        "package-lock.json" | "npm-shrinkwrap.json" => scripts::npm_lock,
        "yarn.lock" => scripts::yarn_lock,
        "go.mod" => lines::go_module,
        "Gemfile.lock" => lines::gem_lock,
        "build.gradle" | "build.gradle.kts" => lines::gradle,
        "pom.xml" => maven::project,
        _ => {
            let requirements = name.strip_prefix("requirements")?.strip_suffix(".txt")?;
            // requirements-dev.txt and the like.
            if ["dev", "test", "lint", "doc"].iter().any(|word| requirements.contains(word)) {
                lines::requirements_to_develop
            } else {
                lines::requirements
            }
        }
    })
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= LONGEST && !name.chars().any(|c| c.is_control() || c.is_whitespace())
}

/// A version that can be shown.
fn version_of(text: &str) -> Option<String> {
    let text = text.trim();
    let is_fine = !text.is_empty() && text.len() <= LONGEST && !text.chars().any(char::is_control);
    is_fine.then(|| text.to_owned())
}
