//! Packs that are made to hurt, unpacked without a server.

use std::io::Write;
use std::time::Duration;

use gix::odb::pack::data::Version;
use gix::zlib::Compression;
use gix::zlib::stream::deflate;
use proptest::prelude::*;
use tokio::runtime::{Handle, Runtime};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::repository::watch::Time;

const LIMITS: PackLimits = PackLimits { bytes: 1_000_000, objects: 20_000, files: 7 };

fn deflated(content: &[u8]) -> Vec<u8> {
    let mut out = deflate::Write::new(Vec::new(), Compression::BEST_SPEED);
    out.write_all(content).unwrap();
    out.flush().unwrap();
    out.into_inner()
}

/// A pack in the making.
#[derive(Default)]
struct Made {
    bytes: Vec<u8>,
    count: u32,
}

impl Made {
    /// Adds an object that says it has `size` bytes, and tells where it begins.
    fn add(&mut self, header: Header, size: u64, content: &[u8]) -> u64 {
        let start = (header::SIZE + self.bytes.len()) as u64;
        header.write_to(size, &mut self.bytes).unwrap();
        self.bytes.extend(deflated(content));
        self.count += 1;
        start
    }

    fn blob(&mut self, content: &[u8]) -> u64 {
        self.add(Header::Blob, content.len() as u64, content)
    }

    fn difference(&mut self, base: u64, delta: &[u8]) -> u64 {
        let base_distance = (header::SIZE + self.bytes.len()) as u64 - base;
        self.add(Header::OfsDelta { base_distance }, delta.len() as u64, delta)
    }

    fn whole(&self) -> Vec<u8> {
        [&header::encode(Version::V2, self.count)[..], &self.bytes, &[0; ID_BYTES]].concat()
    }

    fn unpack(&self) -> (Result<(), RepositoryError>, Objects) {
        unpack_bytes(&self.whole())
    }
}

fn unpack_bytes(bytes: &[u8]) -> (Result<(), RepositoryError>, Objects) {
    let runtime = Runtime::new().unwrap();
    let watch = Watch::new(
        runtime.handle().clone(),
        Time::from_now(Duration::from_secs(60)),
        u64::MAX,
        CancellationToken::new(),
    );
    unpack_under(bytes, &watch)
}

fn unpack_under(bytes: &[u8], watch: &Watch) -> (Result<(), RepositoryError>, Objects) {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    let mut objects = Objects::new(tempfile::tempfile().unwrap());
    (unpack(file, &mut objects, LIMITS, watch), objects)
}

fn id_of(content: &[u8]) -> ObjectId {
    gix::objs::compute_hash(gix::hash::Kind::Sha1, Kind::Blob, content).unwrap()
}

fn read(objects: &mut Objects, content: &[u8]) -> Vec<u8> {
    let place = objects.find(&id_of(content), Kind::Blob).unwrap();
    objects.read(place).unwrap()
}

/// A size as differences have it.
fn number(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    bytes.push(u8::try_from(value).unwrap());
    bytes
}

#[test]
fn objects_and_differences_come_out_whole() {
    let mut made = Made::default();
    // Based on an object that comes later, by its id.
    let base_id = id_of(b"hello world");
    made.add(Header::RefDelta { base_id }, 8, &[11, 5, 5, b'H', b'e', b'l', b'l', b'o']);
    let first = made.blob(b"hello world");
    let second = made.difference(first, &[11, 8, 0x90, 6, 2, b'm', b'e']);
    made.difference(second, &[8, 3, 0x91, 6, 2, 1, b'!']);
    let (done, mut objects) = made.unpack();
    done.unwrap();
    for content in [&b"hello world"[..], b"hello me", b"me!", b"Hello"] {
        assert_eq!(read(&mut objects, content), content);
    }
}

#[test]
fn what_promises_too_much_is_refused_before_it_is_unpacked() {
    for size in [LIMITS.bytes + 1, 10_000_000_000, u64::MAX] {
        let mut made = Made::default();
        made.add(Header::Blob, size, &vec![0; 5_000_000]);
        let (done, objects) = made.unpack();
        assert!(matches!(done, Err(RepositoryError::TooLarge { limit: 1_000_000 })), "{done:?}");
        assert_eq!(objects.bytes(), 0);
    }
}

#[test]
fn many_small_promises_add_up() {
    let mut made = Made::default();
    for n in 0_u32..11 {
        made.blob(&[&n.to_be_bytes()[..], &[0; 99_996]].concat());
    }
    let (done, objects) = made.unpack();
    assert!(matches!(done, Err(RepositoryError::TooLarge { .. })), "{done:?}");
    assert_eq!(objects.bytes(), 1_000_000);
}

#[test]
fn an_object_that_becomes_larger_or_smaller_than_it_promised_ends_there() {
    for size in [10, 500_000, 700_000] {
        let mut made = Made::default();
        made.add(Header::Blob, size, &vec![0; 600_000]);
        let (done, objects) = made.unpack();
        assert!(matches!(done, Err(RepositoryError::Broken(_))), "{done:?}");
        assert!(objects.bytes() <= size, "{}", objects.bytes());
    }
}

#[test]
fn a_difference_may_promise_no_more_than_anything_else() {
    for (result, too_large) in [(2_000_000, true), (MAX_IN_MEMORY + 1, false), (u64::MAX >> 1, false)] {
        let mut made = Made::default();
        let base = made.blob(&[0; 1_000]);
        let delta = [number(1_000), number(result), vec![0x80; 100_000]].concat();
        made.difference(base, &delta);
        let (done, objects) = made.unpack();
        assert_eq!(matches!(done, Err(RepositoryError::TooLarge { .. })), too_large, "{done:?}");
        assert!(done.is_err());
        assert_eq!(objects.bytes(), 1_000);
    }
}

#[test]
fn one_base_of_many_does_not_multiply() {
    let mut made = Made::default();
    let base = made.blob(&[7; 10_000]);
    // A hundred copies of the base are a million bytes: with the base itself too many.
    for n in 0_u8..100 {
        let copy = [number(10_000), number(10_001), vec![0xb0, 0x10, 0x27, 1, n]].concat();
        made.difference(base, &copy);
    }
    let (done, _) = made.unpack();
    assert!(matches!(done, Err(RepositoryError::TooLarge { .. })), "{done:?}");
}

#[test]
fn a_long_chain_of_differences_is_only_long() {
    let mut made = Made::default();
    let mut last = made.blob(b"0000");
    for n in 1_u32..10_000 {
        let text = format!("{n:04}");
        let delta = [&[4, 4, 4][..], text.as_bytes()].concat();
        last = made.difference(last, &delta);
    }
    let (done, mut objects) = made.unpack();
    done.unwrap();
    assert_eq!(read(&mut objects, b"9999"), b"9999");
}

#[test]
fn differences_that_wait_for_what_never_comes_are_refused() {
    let nowhere = id_of(b"nowhere");
    let mut made = Made::default();
    made.blob(b"abc");
    made.add(Header::RefDelta { base_id: nowhere }, 4, &[3, 1, 1, b'x']);
    let (done, _) = made.unpack();
    assert!(matches!(done, Err(RepositoryError::Broken(_))), "{done:?}");

    for base_distance in [0, 1, 5, 1 << 40] {
        let mut made = Made::default();
        made.add(Header::OfsDelta { base_distance }, 4, &[3, 1, 1, b'x']);
        let (done, _) = made.unpack();
        assert!(matches!(done, Err(RepositoryError::Broken(_))), "{base_distance}: {done:?}");
    }
}

#[test]
fn more_objects_than_a_repository_may_have_are_not_even_begun() {
    let mut made = Made::default();
    made.blob(b"abc");
    made.count = u32::MAX;
    let (done, objects) = made.unpack();
    assert!(matches!(done, Err(RepositoryError::TooManyFiles { limit: 7 })), "{done:?}");
    assert_eq!(objects.bytes(), 0);
}

#[test]
fn a_pack_that_ends_early_is_refused_wherever_it_ends() {
    let mut made = Made::default();
    let base = made.blob(b"hello world, hello everybody");
    made.difference(base, &[28, 2, 2, b'm', b'e']);
    let whole = made.whole();
    for end in 0..whole.len() - ID_BYTES {
        let (done, _) = unpack_bytes(&whole[..end]);
        assert!(matches!(done, Err(RepositoryError::Broken(_))), "{end}: {done:?}");
    }
}

#[tokio::test]
async fn unpacking_ends_when_it_is_not_wanted_any_more() {
    let mut made = Made::default();
    made.blob(b"abc");
    let cancel = CancellationToken::new();
    let watch = Watch::new(Handle::current(), Time::from_now(Duration::from_secs(60)), u64::MAX, cancel.clone());
    cancel.cancel();
    assert!(matches!(unpack_under(&made.whole(), &watch).0, Err(RepositoryError::Cancelled)));
    let watch = Watch::new(Handle::current(), Time::from_now(Duration::ZERO), u64::MAX, CancellationToken::new());
    assert!(matches!(unpack_under(&made.whole(), &watch).0, Err(RepositoryError::Timeout { .. })));
}

proptest! {
    #[test]
    fn a_damaged_pack_is_an_error_or_other_objects_but_never_a_panic(places: Vec<(u16, u8)>) {
        let mut made = Made::default();
        let base = made.blob(b"hello world");
        made.difference(base, &[11, 8, 0x90, 6, 2, b'm', b'e']);
        made.add(Header::RefDelta { base_id: id_of(b"hello world") }, 4, &[11, 1, 1, b'x']);
        let mut whole = made.whole();
        for (place, byte) in places {
            let length = whole.len();
            whole[usize::from(place) % length] = byte;
        }
        let (_, objects) = unpack_bytes(&whole);
        prop_assert!(objects.bytes() <= LIMITS.bytes);
    }

    #[test]
    fn random_bytes_are_no_pack(bytes: Vec<u8>) {
        prop_assert!(unpack_bytes(&bytes).0.is_err());
        let headed = [&header::encode(Version::V2, 3)[..], &bytes].concat();
        prop_assert!(unpack_bytes(&headed).0.is_err());
    }
}
