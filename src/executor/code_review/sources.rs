//! Where the text of a review comes from: a diff that was sent, a pull request's page, or a repository.

use tokio_util::sync::CancellationToken;
use url::Url;

use super::material::Material;
use super::{CodeReviewExecutor, ReviewWork};
use crate::archive::EntryKind;
use crate::code::diff::{DiffLimits, Mode, PatchBuilder, PatchError, PatchLimits, Version, read};
use crate::executor::told::not_fetched;
use crate::job::code_review::Reviewed;
use crate::job::reading::AskedRepository;
use crate::job::text::excerpt;
use crate::job::{Failure, Refusal, RelativePath};
use crate::repository::{CommitId, Repositories, RepositoryError, Snapshot, TreeEntry};

/// What pages about a pull request have behind its own address.
const TABS: [&str; 4] = ["/files", "/commits", "/changes", "/diffs"];

impl CodeReviewExecutor {
    /// The diff of a pull request: what its page gives with `.diff` behind its address, as GitHub, GitLab, Gitea and Forgejo do.
    pub(super) async fn pull(&self, url: &str) -> Result<String, Refusal> {
        let address = diff_address(url).ok_or_else(|| {
            Refusal::bad_request(format!(
                "input pr (url) '{}': write the address of the pull request's page, https://…",
                excerpt(url)
            ))
        })?;
        self.sources.fetch_url(&address).await
    }

    /// The material of a diff. `what` is what it is called in errors.
    pub(super) fn material_of(&self, diff: &str, what: &str) -> Result<Material, Refusal> {
        let limits = DiffLimits { bytes: self.limits.max_diff_bytes, files: self.limits.max_files };
        let files = read(diff, limits).map_err(|error| Refusal::bad_request(format!("{what}: {error}")))?;
        Ok(Material::of_diff(&files))
    }

    /// The commits that a review of a repository is about.
    pub(super) async fn commits_of(&self, reviewed: &Reviewed) -> Result<Vec<CommitId>, Refusal> {
        let (repository, refs): (&AskedRepository, Vec<Option<&str>>) = match reviewed {
            Reviewed::Diff(_) | Reviewed::Pull(_) => return Ok(Vec::new()),
            Reviewed::Commits(repository, commits) => {
                (repository, commits.iter().map(|commit| Some(commit.as_str())).collect())
            }
            Reviewed::Files(repository, _) => (repository, vec![repository.reference.as_deref()]),
            Reviewed::Between { repository, base, head } => (repository, vec![Some(base), head.as_deref()]),
        };
        let repositories = self.repositories.as_ref().ok_or_else(|| {
            Refusal::unsupported("repositories are not fetched here; send the change as a diff (type text)")
        })?;
        let mut commits = Vec::with_capacity(refs.len());
        for name in refs {
            let found = repositories.resolve(&repository.url, name).await;
            commits.push(found.map_err(|error| not_found(&error, name))?);
        }
        match (reviewed, &commits[..]) {
            (Reviewed::Between { .. }, [base, head]) if base == head => Err(Refusal::bad_request(
                "base_ref and head_ref are the same commit: there is nothing to review between them",
            )),
            _ => Ok(commits),
        }
    }

    /// The material of a repository, which is fetched now.
    pub(super) async fn of_repository(
        &self,
        work: &ReviewWork,
        cancel: &CancellationToken,
    ) -> Result<Material, Failure> {
        let repositories = self.repositories.as_ref();
        let repositories = repositories.ok_or_else(|| Failure::backend("repositories are no longer fetched here"))?;
        match (&work.asked.reviewed, &work.commits[..]) {
            (Reviewed::Files(repository, files), [commit]) => {
                let snapshot = fetched(repositories, repository, commit, work, cancel).await?;
                self.files_of(snapshot, files.clone()).await
            }
            (Reviewed::Between { repository, .. }, [base, head]) => {
                let before = fetched(repositories, repository, base, work, cancel).await?;
                let afterwards = fetched(repositories, repository, head, work, cancel).await?;
                let diff = self.diff_of(Some(before), afterwards).await?;
                self.material_of(&diff, "the change").map_err(Failure::from)
            }
            (Reviewed::Commits(repository, _), commits) => {
                let mut diff = String::new();
                for commit in commits {
                    let afterwards = fetched(repositories, repository, commit, work, cancel).await?;
                    let before = match afterwards.parents().first() {
                        Some(parent) => Some(fetched(repositories, repository, parent, work, cancel).await?),
                        None => None,
                    };
                    diff.push_str(&self.diff_of(before, afterwards).await?);
                }
                self.material_of(&diff, "the change").map_err(Failure::from)
            }
            _ => Err(Failure::backend("the job can't be run any more; please ask again")),
        }
    }

    /// Files as they are.
    async fn files_of(&self, snapshot: Snapshot, paths: Vec<RelativePath>) -> Result<Material, Failure> {
        let most = self.limits.max_diff_bytes;
        let reading = tokio::task::spawn_blocking(move || {
            let (mut files, mut bytes) = (Vec::new(), 0_usize);
            for path in paths {
                let wrong = |what: &str| Failure::from(Refusal::bad_request(format!("param file: '{path}' {what}")));
                let entry = snapshot.entries().iter().find(|entry| entry.path == path);
                let entry = entry.ok_or_else(|| wrong("is not in the commit; name another"))?;
                bytes = bytes.saturating_add(usize::try_from(entry.size).unwrap_or(usize::MAX));
                if bytes > most {
                    return Err(wrong(&format!(
                        "is too much: at most {most} bytes are reviewed at once; name fewer files"
                    )));
                }
                if !matches!(entry.kind, EntryKind::File { .. }) {
                    return Err(wrong("is no file; name another"));
                }
                let content = snapshot.read(&path).map_err(|error| not_fetched(&error))?.unwrap_or_default();
                let text = String::from_utf8(content).ok().filter(|text| !text.contains('\0'));
                let text = text.ok_or_else(|| wrong("is no text; name another"))?;
                files.push((path, text));
            }
            Ok(Material::of_files(files))
        });
        reading.await.map_err(|_| Failure::backend("the provider failed while reading the files"))?
    }

    /// What differs between two commits, as a diff. Without the first all of the second is new.
    async fn diff_of(&self, before: Option<Snapshot>, afterwards: Snapshot) -> Result<String, Failure> {
        let limits = PatchLimits { bytes: self.limits.max_diff_bytes, files: self.limits.max_files };
        let comparing = tokio::task::spawn_blocking(move || diff_between(before.as_ref(), &afterwards, limits));
        comparing.await.map_err(|_| Failure::backend("the provider failed while comparing the commits"))?
    }
}

async fn fetched(
    repositories: &Repositories,
    repository: &AskedRepository,
    commit: &CommitId,
    work: &ReviewWork,
    cancel: &CancellationToken,
) -> Result<Snapshot, Failure> {
    repositories
        .snapshot(&repository.url, commit, work.customer, cancel)
        .await
        .map_err(|error| not_fetched(&error).into())
}

/// Why there is no commit of that name, with the parameter that named it.
fn not_found(error: &RepositoryError, name: Option<&str>) -> Refusal {
    match (error, name) {
        (RepositoryError::NoSuchRef, Some(name)) => Refusal::bad_request(format!(
            "the repository has no branch, tag or commit '{}'; name another",
            excerpt(name)
        )),
        _ => not_fetched(error),
    }
}

/// Waits for the disk.
fn diff_between(before: Option<&Snapshot>, afterwards: &Snapshot, limits: PatchLimits) -> Result<String, Failure> {
    let too_large = |what: String| {
        Failure::from(Refusal::bad_request(format!(
            "the change is too much to review at once: {what}; name less of it"
        )))
    };
    let mut builder = PatchBuilder::new(limits);
    let (mut binary, mut is_empty) = (String::new(), true);
    for (was, is) in pairs(before.map_or(&[][..], Snapshot::entries), afterwards.entries()) {
        let large = [was, is].into_iter().flatten().find(|entry| entry.size > limits.bytes as u64 * 64);
        let same_size = was.zip(is).is_some_and(|(was, is)| was.size == is.size && was.kind == is.kind);
        if let Some(entry) = large.filter(|_| !same_size) {
            binary.push_str(&binary_note(&entry.path));
            continue;
        }
        let content = |of: Option<&Snapshot>, entry: Option<&TreeEntry>| match (of, entry) {
            (Some(snapshot), Some(entry)) => version(snapshot, entry).map(Some),
            _ => Ok(None),
        };
        let (old, new) = (content(before, was)?, content(Some(afterwards), is)?);
        if old == new {
            continue;
        }
        let Some(path) = was.or(is).map(|entry| &entry.path) else { continue };
        is_empty = false;
        match builder.change(path, as_version(old.as_ref()), as_version(new.as_ref())) {
            Ok(()) => {}
            Err(PatchError::Binary(path)) => binary.push_str(&binary_note(&path)),
            Err(PatchError::TooLarge { limit }) => return Err(too_large(format!("it has more than {limit} bytes"))),
            Err(PatchError::TooManyFiles { limit }) => {
                return Err(too_large(format!("it has more than {limit} files")));
            }
        }
    }
    if is_empty && binary.is_empty() {
        return Err(Refusal::bad_request("nothing differs there: there is nothing to review").into());
    }
    Ok(builder.finish().text + &binary)
}

/// A line that says that a file changed whose bytes are not shown.
fn binary_note(path: &RelativePath) -> String {
    let quoted = path.as_str().replace('\\', "\\\\").replace('"', "\\\"");
    format!("diff --git \"a/{quoted}\" \"b/{quoted}\"\nGIT binary patch\n\n")
}

/// The entries of two lists that are sorted by path, side by side.
fn pairs<'e>(
    old: &'e [TreeEntry],
    new: &'e [TreeEntry],
) -> impl Iterator<Item = (Option<&'e TreeEntry>, Option<&'e TreeEntry>)> {
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    std::iter::from_fn(move || match (old.peek(), new.peek()) {
        (None, None) => None,
        (Some(was), Some(is)) if was.path == is.path => Some((old.next(), new.next())),
        (Some(was), Some(is)) if was.path > is.path => Some((None, new.next())),
        (None, Some(_)) => Some((None, new.next())),
        (Some(_), _) => Some((old.next(), None)),
    })
}

fn version(snapshot: &Snapshot, entry: &TreeEntry) -> Result<(Mode, Vec<u8>), Failure> {
    let read =
        || Ok::<_, Failure>(snapshot.read(&entry.path).map_err(|error| not_fetched(&error))?.unwrap_or_default());
    Ok(match &entry.kind {
        EntryKind::Link { target } => (Mode::Link, target.as_bytes().to_vec()),
        EntryKind::File { executable: true } => (Mode::Executable, read()?),
        EntryKind::File { executable: false } | EntryKind::Folder => (Mode::File, read()?),
    })
}

fn as_version(of: Option<&(Mode, Vec<u8>)>) -> Option<Version<'_>> {
    of.map(|(mode, content)| Version { mode: *mode, content })
}

/// Where a pull request's diff is.
fn diff_address(url: &str) -> Option<String> {
    let mut url = Url::parse(url.trim()).ok()?;
    if !matches!(url.scheme(), "https" | "http") {
        return None;
    }
    url.set_query(None);
    url.set_fragment(None);
    let path = url.path().trim_end_matches('/').to_owned();
    let path = TABS.iter().find_map(|tab| path.strip_suffix(tab)).unwrap_or(&path);
    if path.is_empty() {
        return None;
    }
    let is_diff = path.ends_with(".diff") || path.ends_with(".patch");
    let path = if is_diff { path.to_owned() } else { format!("{path}.diff") };
    url.set_path(&path);
    Some(url.into())
}

#[cfg(test)]
#[path = "sources_tests.rs"]
mod tests;
