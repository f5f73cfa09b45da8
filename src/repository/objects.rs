//! The objects of one commit, whole and side by side in one file, each found by its id.
//!
//! They lie there as they are, not as git packs them: reading one later is one read of a known size, whatever tricks the pack
//! was made of.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;

use gix::ObjectId;
use gix::hash::{Hasher, Kind as HashKind};
use gix::objs::Kind;

use super::RepositoryError;

/// Where an object lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// What it is.
    pub(super) kind: Kind,
    /// Where it begins.
    pub(super) at: u64,
    /// Its bytes.
    pub(super) size: u64,
}

/// The objects of one commit.
#[derive(Debug)]
pub(super) struct Objects {
    file: BufWriter<File>,
    places: HashMap<ObjectId, Place>,
    end: u64,
    /// How far the file can be read.
    flushed: u64,
}

/// An object that is being written.
pub(super) struct Writing {
    hasher: Hasher,
    place: Place,
}

impl Objects {
    /// None yet, in an empty file.
    pub(super) fn new(file: File) -> Self {
        Self { file: BufWriter::with_capacity(256 * 1024, file), places: HashMap::new(), end: 0, flushed: 0 }
    }

    /// Bytes of all of them.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> u64 {
        self.end
    }

    /// Begins an object of a known size.
    pub(super) fn begin(&self, kind: Kind, size: u64) -> Writing {
        let mut hasher = gix::hash::hasher(HashKind::Sha1);
        hasher.update(&gix::objs::encode::loose_header(kind, size));
        Writing { hasher, place: Place { kind, at: self.end, size } }
    }

    /// Adds bytes to the object that was begun.
    pub(super) fn add(&mut self, object: &mut Writing, bytes: &[u8]) -> Result<(), RepositoryError> {
        object.hasher.update(bytes);
        self.file.write_all(bytes).map_err(RepositoryError::Disk)?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Ends it. Its id follows from its bytes, so nobody can give out one object for another.
    pub(super) fn finish(&mut self, object: Writing) -> Result<(ObjectId, Place), RepositoryError> {
        let id = object.hasher.try_finalize();
        let id = id.map_err(|_| RepositoryError::broken("an object was made to pass for another (SHA-1 collision)"))?;
        self.places.insert(id, object.place);
        Ok((id, object.place))
    }

    /// Where an object lies, if it is there and of that kind.
    pub(super) fn find(&self, id: &gix::oid, kind: Kind) -> Result<Place, RepositoryError> {
        match self.places.get(id) {
            Some(place) if place.kind == kind => Ok(*place),
            Some(_) => Err(RepositoryError::broken(format!("what should be a {kind} is something else"))),
            None => Err(RepositoryError::broken(format!("a {kind} is missing"))),
        }
    }

    /// The bytes at a place.
    pub(super) fn read(&mut self, place: Place) -> Result<Vec<u8>, RepositoryError> {
        if place.at + place.size > self.flushed {
            self.file.flush().map_err(RepositoryError::Disk)?;
            self.flushed = self.end;
        }
        let size = usize::try_from(place.size).map_err(|_| RepositoryError::broken("an object is too large"))?;
        let mut bytes = vec![0; size];
        self.file.get_ref().read_exact_at(&mut bytes, place.at).map_err(RepositoryError::Disk)?;
        Ok(bytes)
    }

    /// Sees to it that all of it is on the disk.
    pub(super) fn sync(&mut self) -> Result<(), RepositoryError> {
        self.file.flush().map_err(RepositoryError::Disk)?;
        self.file.get_ref().sync_all().map_err(RepositoryError::Disk)
    }
}
