//! Frames: how the relay in a cell and we talk over its two pipes.
//!
//! ```text
//!   kind  1 byte    what it is
//!   id    4 bytes   the connection it is about, big endian; 0 where it is about none
//!   size  2 bytes   bytes of what follows, big endian, at most 16,384
//!   …               what follows
//! ```
//!
//! | kind | from | means |
//! |---|---|---|
//! | 1 hello | relay | it listens; what follows is the version of this form, one byte |
//! | 2 open | relay | a program in the cell has connected; ids only grow |
//! | 3 data | both | bytes of a connection, no more than the other side has room for |
//! | 4 end | both | no more data from this side |
//! | 5 reset | both | nobody is there any more who would read; after our end what we sent is still delivered |
//! | 6 credit | both | room for so many more bytes, 4 bytes, big endian; at the beginning there is room for 65,536 |
//! | 7 file | us | bytes of the instructions, to be put into a file |
//! | 8 start | us | the file is whole: listen |
//! | 9 stop | us | end the agent |
//!
//! Whatever comes from the cell is hostile: a frame that can't be ends the session, and no more than one frame is ever held.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio_util::codec::Decoder;

/// The version of this form.
pub(super) const VERSION: u8 = 1;
/// Bytes of a frame besides what it carries.
pub(super) const HEAD_BYTES: usize = 7;
/// The most bytes a frame carries.
pub(super) const MOST_CARRIED: usize = 16 * 1024;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Hello,
    Open,
    Data,
    End,
    Reset,
    Credit,
    File,
    Start,
    Stop,
}

impl Kind {
    pub(super) const ALL: [Self; 9] = [
        Self::Hello,
        Self::Open,
        Self::Data,
        Self::End,
        Self::Reset,
        Self::Credit,
        Self::File,
        Self::Start,
        Self::Stop,
    ];

    /// Its number.
    fn number(self) -> u8 {
        let place = Self::ALL.iter().position(|kind| *kind == self).expect("all kinds are listed");
        u8::try_from(place + 1).expect("there are few kinds")
    }

    fn of(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }
}

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) id: u32,
    pub(super) carried: Bytes,
}

/// Why what came is no conversation with a relay. Nothing that comes after it is believed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// No such frame.
    #[error("what came from the cell is no frame")]
    Garbage,
    /// A frame that is none of the relay's, or not now.
    #[error("a frame came from the cell that can't be: {0}")]
    OutOfPlace(&'static str),
    /// More than any agent says.
    #[error("more than {0} bytes came from the cell")]
    TooMuch(u64),
    /// The relay is gone.
    #[error("the relay in the cell has ended")]
    Closed,
    /// The pipe failed.
    #[error("the pipe to the cell failed: {0}")]
    Pipe(#[from] std::io::Error),
}

/// Appends a frame; what is carried is at most [`MOST_CARRIED`] bytes.
pub(super) fn put(out: &mut BytesMut, kind: Kind, id: u32, carried: &[u8]) {
    let size = u16::try_from(carried.len()).expect("whoever sends cuts it into pieces");
    out.reserve(HEAD_BYTES + carried.len());
    out.put_u8(kind.number());
    out.put_u32(id);
    out.put_u16(size);
    out.put_slice(carried);
}

/// Reads frames, cut anywhere.
#[derive(Debug, Default)]
pub(super) struct Frames;

impl Decoder for Frames {
    type Item = Frame;
    type Error = Broken;

    fn decode(&mut self, from: &mut BytesMut) -> Result<Option<Frame>, Broken> {
        let Some(mut head) = from.get(..HEAD_BYTES) else { return Ok(None) };
        let (kind, id, size) = (head.get_u8(), head.get_u32(), usize::from(head.get_u16()));
        let kind = Kind::of(kind).filter(|_| size <= MOST_CARRIED).ok_or(Broken::Garbage)?;
        if from.len() < HEAD_BYTES + size {
            from.reserve(HEAD_BYTES + size - from.len());
            return Ok(None);
        }
        from.advance(HEAD_BYTES);
        Ok(Some(Frame { kind, id, carried: from.split_to(size).freeze() }))
    }

    /// A frame that was begun and not ended is as good as none: whoever wrote it is gone.
    fn decode_eof(&mut self, from: &mut BytesMut) -> Result<Option<Frame>, Broken> {
        self.decode(from)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames() -> impl Strategy<Value = Vec<Frame>> {
        let carried = prop_oneof![Just(0), 1..40_usize, Just(MOST_CARRIED)]
            .prop_flat_map(|size| proptest::collection::vec(any::<u8>(), size).prop_map(Bytes::from));
        let kind = (0..Kind::ALL.len()).prop_map(|place| Kind::ALL[place]);
        let frame = (kind, any::<u32>(), carried).prop_map(|(kind, id, carried)| Frame { kind, id, carried });
        proptest::collection::vec(frame, 0..6)
    }

    /// What is read of bytes that come in pieces of these sizes.
    fn read(bytes: &[u8], pieces: &[usize]) -> Result<Vec<Frame>, Broken> {
        let (mut buffer, mut found, mut rest) = (BytesMut::new(), Vec::new(), bytes);
        let mut pieces = pieces.iter().copied().chain(std::iter::repeat(4_096));
        while !rest.is_empty() {
            let (now, later) = rest.split_at(pieces.next().unwrap_or(1).clamp(1, rest.len()));
            buffer.extend_from_slice(now);
            rest = later;
            while let Some(frame) = Frames.decode(&mut buffer)? {
                found.push(frame);
            }
            assert!(buffer.len() < HEAD_BYTES + MOST_CARRIED, "no more than a frame is held");
        }
        Ok(found)
    }

    proptest! {
        #[test]
        fn frames_survive_being_cut_anywhere(frames in frames(), pieces in proptest::collection::vec(1..50_usize, 0..200)) {
            let mut bytes = BytesMut::new();
            for frame in &frames {
                put(&mut bytes, frame.kind, frame.id, &frame.carried);
            }
            prop_assert_eq!(read(&bytes, &pieces).unwrap(), frames);
        }

        #[test]
        fn garbage_is_an_error_or_waited_for_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            let _ = read(&bytes, &[]);
        }
    }

    #[test]
    fn a_frame_is_written_as_the_table_says() {
        let mut bytes = BytesMut::new();
        put(&mut bytes, Kind::Credit, 0x0102_0304, &[0, 0, 1, 0]);
        assert_eq!(bytes[..], [6, 1, 2, 3, 4, 0, 4, 0, 0, 1, 0]);
        let numbers: Vec<u8> = Kind::ALL.iter().map(|kind| kind.number()).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn what_is_no_kind_and_what_is_too_large_is_garbage_at_once() {
        for head in
            [[0, 0, 0, 0, 1, 0, 0], [10, 0, 0, 0, 1, 0, 0], [3, 0, 0, 0, 1, 0x40, 1], [3, 0, 0, 0, 1, 0xff, 0xff]]
        {
            assert!(matches!(read(&head, &[]), Err(Broken::Garbage)), "{head:?}");
        }
        assert_eq!(read(&[3, 0, 0, 0, 1, 0x40, 0], &[]).unwrap(), []);
    }
}
