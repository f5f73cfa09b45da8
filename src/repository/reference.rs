//! Which commit a customer means: the default branch, a branch, a tag or a commit.

use gix::bstr::BStr;
use gix::hash::ObjectId;
use gix::protocol::handshake::Ref;

use super::talk::Talk;
use super::{CommitId, RepositoryError};

/// Bytes of a reference's name at most.
const MAX_NAME: usize = 512;

/// Fewest digits of a shortened commit, as git has it.
const FEWEST_DIGITS: usize = 4;

const BRANCHES: &str = "refs/heads/";
const TAGS: &str = "refs/tags/";

/// Finds the commit. Of a branch and a tag of one name the branch is meant. A tag with a message is followed to what it
/// names.
pub(super) fn resolve(talk: &mut Talk, reference: Option<&str>) -> Result<CommitId, RepositoryError> {
    let name = match reference.map(str::trim) {
        None | Some("" | "HEAD") => return default_branch(talk),
        Some(name) => name,
    };
    if let Ok(commit) = name.parse::<CommitId>() {
        return talk.offers(&commit).map(|()| commit);
    }
    let is_name = name.len() <= MAX_NAME && gix::validate::reference::name_partial(name.into()).is_ok();
    if !is_name {
        return Err(RepositoryError::NoSuchRef);
    }
    let candidates = candidates(name);
    let listed = talk.references(&candidates)?;
    let found = candidates.iter().find_map(|candidate| {
        let same = |listed: &&Ref| listed.unpack().0 == candidate.as_str();
        listed.iter().find(same).and_then(commit_of)
    });
    match found {
        Some(commit) => Ok(commit),
        None if is_shortened(name) => shortened(talk, name),
        None => Err(RepositoryError::NoSuchRef),
    }
}

/// The full names that a name may stand for, the likeliest first.
fn candidates(name: &str) -> Vec<String> {
    if name.starts_with("refs/") {
        return vec![name.to_owned()];
    }
    vec![format!("{BRANCHES}{name}"), format!("{TAGS}{name}"), format!("refs/{name}")]
}

fn default_branch(talk: &mut Talk) -> Result<CommitId, RepositoryError> {
    let listed = talk.references(&["HEAD".to_owned()])?;
    let head = listed.iter().find(|listed| listed.unpack().0 == "HEAD");
    if let Some(commit) = head.and_then(commit_of) {
        return Ok(commit);
    }
    // A default branch without commits: is there any other?
    let branches = talk.references(&[BRANCHES.to_owned()])?;
    Err(if branches.is_empty() { RepositoryError::Empty } else { RepositoryError::NoSuchRef })
}

fn is_shortened(name: &str) -> bool {
    name.len() >= FEWEST_DIGITS && name.bytes().all(|digit| digit.is_ascii_hexdigit())
}

fn shortened(talk: &mut Talk, digits: &str) -> Result<CommitId, RepositoryError> {
    let digits = digits.to_ascii_lowercase();
    let listed = talk.references(&[BRANCHES.to_owned(), TAGS.to_owned()])?;
    let mut matching: Vec<CommitId> =
        listed.iter().filter_map(commit_of).filter(|commit| commit.as_str().starts_with(&digits)).collect();
    matching.sort();
    matching.dedup();
    match <[CommitId; 1]>::try_from(matching) {
        Ok([commit]) => Ok(commit),
        Err(_) => Err(RepositoryError::Shortened),
    }
}

/// The object a reference leads to in the end.
fn commit_of(listed: &Ref) -> Option<CommitId> {
    let (_, object, peeled): (&BStr, _, _) = listed.unpack();
    let id: ObjectId = peeled.or(object)?.to_owned();
    if id.is_null() { None } else { id.to_hex().to_string().parse().ok() }
}
