//! Unpacks what a server sent, within limits that are looked at before anything is unpacked.
//!
//! A pack says of each object how large it becomes. That number is believed only as a promise: what is above the limit is
//! refused before a byte of it is unpacked, and an object that becomes larger than it promised ends the job there. Objects
//! that stand alone go to the disk as they are unpacked. Those that are a difference to another are put together in memory
//! one by one, so they may not be large; the base of many is read once for all of them.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

use gix::ObjectId;
use gix::objs::Kind;
use gix::odb::pack::data::entry::Header;
use gix::odb::pack::data::{Entry, header};
use gix::zlib::{Decompress, FlushDecompress, Status};

use super::RepositoryError;
use super::delta;
use super::objects::{Objects, Place};
use super::watch::Watch;

/// Bytes of an object that is written as a difference, of the difference, and of what it is applied to: three of these are
/// the most memory that unpacking takes. Git does not look for differences between files this large by itself.
const MAX_IN_MEMORY: u64 = 64 * 1024 * 1024;

/// Bytes of an id in a pack.
const ID_BYTES: usize = 20;

/// Bytes unpacked at once.
const CHUNK: usize = 64 * 1024;

/// How much may come out of a pack.
#[derive(Debug, Clone, Copy)]
pub(super) struct PackLimits {
    /// Bytes of all objects together.
    pub(super) bytes: u64,
    /// Objects: files, folders, the commit.
    pub(super) objects: u64,
    /// Files that the customer is told are too many.
    pub(super) files: u64,
}

/// What a difference is to be applied to.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Base {
    /// The object at this place of the pack.
    Start(u64),
    /// An object of the pack, by its id.
    Id(ObjectId),
}

/// An object that is written as a difference.
#[derive(Debug, Clone, Copy)]
struct Difference {
    start: u64,
    data: u64,
    size: u64,
}

struct Unpacking<'a> {
    packed: Packed<'a>,
    objects: &'a mut Objects,
    limits: PackLimits,
    /// Bytes that all objects are going to have.
    promised: u64,
}

/// Unpacks `pack` into `objects`.
pub(super) fn unpack(
    pack: File,
    objects: &mut Objects,
    limits: PackLimits,
    watch: &Watch,
) -> Result<(), RepositoryError> {
    let input = Input { file: BufReader::with_capacity(CHUNK, pack), at: 0 };
    let mut packed = Packed { input, zlib: Decompress::new(), out: vec![0; CHUNK].into(), watch };
    packed.input.seek_to(0)?;
    let mut head = [0; header::SIZE];
    packed.input.read_exact(&mut head).map_err(ended)?;
    let (_, count) = header::decode(&head).map_err(|_| RepositoryError::broken("what its server sent is no pack"))?;
    if u64::from(count) > limits.objects {
        return Err(RepositoryError::TooManyFiles { limit: limits.files });
    }
    let mut unpacking = Unpacking { packed, objects, limits, promised: 0 };
    let (whole, waiting) = unpacking.those_that_stand_alone(count)?;
    unpacking.differences(whole, waiting)
}

/// Objects that are there, by where they were in the pack.
type Whole = Vec<(u64, ObjectId, Place)>;
/// Differences, by what they need.
type Waiting = HashMap<Base, Vec<Difference>>;

impl Unpacking<'_> {
    fn those_that_stand_alone(&mut self, count: u32) -> Result<(Whole, Waiting), RepositoryError> {
        let (mut whole, mut waiting) = (Whole::new(), Waiting::new());
        for _ in 0..count {
            self.packed.watch.check()?;
            let start = self.packed.input.at;
            let entry = Entry::from_read(&mut self.packed.input, start, ID_BYTES).map_err(ended)?;
            let base = match entry.header {
                Header::RefDelta { base_id } => Base::Id(base_id),
                Header::OfsDelta { base_distance } => {
                    let base = Header::verified_base_pack_offset(start, base_distance);
                    Base::Start(base.ok_or_else(|| RepositoryError::broken("an object is based on none"))?)
                }
                Header::Commit | Header::Tree | Header::Blob | Header::Tag => {
                    let kind = entry.header.as_kind().expect("it is no difference");
                    let (id, place) = self.alone(kind, entry.decompressed_size)?;
                    whole.push((start, id, place));
                    continue;
                }
            };
            let size = entry.decompressed_size;
            self.sizes_of_difference(size)?;
            let data = entry.data_offset;
            waiting.entry(base).or_default().push(Difference { start, data, size });
        }
        Ok((whole, waiting))
    }

    /// Says that an object of that size comes.
    fn promise(&mut self, size: u64) -> Result<(), RepositoryError> {
        let promised = self.promised.checked_add(size).filter(|promised| *promised <= self.limits.bytes);
        self.promised = promised.ok_or(RepositoryError::TooLarge { limit: self.limits.bytes })?;
        Ok(())
    }

    fn alone(&mut self, kind: Kind, size: u64) -> Result<(ObjectId, Place), RepositoryError> {
        self.promise(size)?;
        let mut writing = self.objects.begin(kind, size);
        let objects = &mut *self.objects;
        self.packed.inflate(size, |bytes| objects.add(&mut writing, bytes))?;
        self.objects.finish(writing)
    }

    /// Looks how large the object becomes, before anything is put together.
    fn sizes_of_difference(&mut self, size: u64) -> Result<(), RepositoryError> {
        in_memory(size)?;
        let mut head = Vec::with_capacity(delta::LONGEST_HEADER);
        self.packed.inflate(size, |bytes| {
            let missing = delta::LONGEST_HEADER - head.len();
            head.extend_from_slice(&bytes[..missing.min(bytes.len())]);
            Ok(())
        })?;
        let sizes = delta::sizes(&head)?;
        in_memory(sizes.base)?;
        in_memory(sizes.result)?;
        self.promise(sizes.result)
    }

    /// Puts together what is written as differences: each base wakes those that wait for it.
    fn differences(&mut self, mut ready: Whole, mut waiting: Waiting) -> Result<(), RepositoryError> {
        while let Some((start, id, place)) = ready.pop() {
            let mut woken = waiting.remove(&Base::Start(start)).unwrap_or_default();
            woken.append(&mut waiting.remove(&Base::Id(id)).unwrap_or_default());
            if woken.is_empty() {
                continue;
            }
            in_memory(place.size)?;
            let base = self.objects.read(place)?;
            for difference in woken {
                self.packed.watch.check()?;
                let result = delta::apply(&base, &self.difference(difference)?)?;
                let mut writing = self.objects.begin(place.kind, result.len() as u64);
                self.objects.add(&mut writing, &result)?;
                let (id, place) = self.objects.finish(writing)?;
                ready.push((difference.start, id, place));
            }
        }
        if waiting.is_empty() {
            Ok(())
        } else {
            Err(RepositoryError::broken("an object is based on one that is missing"))
        }
    }

    fn difference(&mut self, difference: Difference) -> Result<Vec<u8>, RepositoryError> {
        self.packed.input.seek_to(difference.data)?;
        let mut bytes = Vec::with_capacity(usize::try_from(difference.size).expect("it fits into memory"));
        self.packed.inflate(difference.size, |chunk| {
            bytes.extend_from_slice(chunk);
            Ok(())
        })?;
        Ok(bytes)
    }
}

fn in_memory(size: u64) -> Result<(), RepositoryError> {
    if size <= MAX_IN_MEMORY {
        return Ok(());
    }
    Err(RepositoryError::broken(format!("a file that is packed as a difference has more than {MAX_IN_MEMORY} bytes")))
}

/// The pack, and what takes it apart.
struct Packed<'a> {
    input: Input,
    zlib: Decompress,
    out: Box<[u8]>,
    watch: &'a Watch,
}

impl Packed<'_> {
    /// Unpacks one stream that becomes exactly `size` bytes.
    fn inflate(
        &mut self,
        size: u64,
        mut sink: impl FnMut(&[u8]) -> Result<(), RepositoryError>,
    ) -> Result<(), RepositoryError> {
        let Self { input, zlib, out, watch } = self;
        let wrong = || RepositoryError::broken("an object is not packed as its pack says");
        zlib.reset();
        loop {
            watch.check()?;
            let packed = input.fill_buf().map_err(ended)?;
            let before = (zlib.total_in(), zlib.total_out());
            let status = zlib.decompress(packed, out, FlushDecompress::None).map_err(|_| wrong())?;
            let taken = usize::try_from(zlib.total_in() - before.0).map_err(|_| wrong())?;
            let made = usize::try_from(zlib.total_out() - before.1).map_err(|_| wrong())?;
            input.consume(taken);
            if zlib.total_out() > size {
                return Err(wrong());
            }
            sink(&out[..made])?;
            match status {
                Status::StreamEnd if zlib.total_out() == size => return Ok(()),
                Status::StreamEnd => return Err(wrong()),
                Status::Ok | Status::BufError if taken == 0 && made == 0 => return Err(wrong()),
                Status::Ok | Status::BufError => {}
            }
        }
    }
}

fn ended(error: io::Error) -> RepositoryError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::Other => {
            RepositoryError::broken("what its server sent is no whole pack")
        }
        _ => RepositoryError::Disk(error),
    }
}

/// A pack that knows how far it was read.
struct Input {
    file: BufReader<File>,
    at: u64,
}

impl Input {
    fn seek_to(&mut self, at: u64) -> Result<(), RepositoryError> {
        self.file.seek(SeekFrom::Start(at)).map_err(RepositoryError::Disk)?;
        self.at = at;
        Ok(())
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl BufRead for Input {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.file.fill_buf()
    }

    fn consume(&mut self, bytes: usize) {
        self.file.consume(bytes);
        self.at += bytes as u64;
    }
}

#[cfg(test)]
#[path = "pack_tests.rs"]
mod tests;
