//! The connections that programs in a cell have to us, all over one pipe: who may send how much, and what is out of place.
//!
//! No waiting here but for wakers. What the cell can make us hold is bounded: so many connections, a window of bytes each way for
//! each, and what waits to be written to the relay; while too much waits there nothing more is read.

use std::collections::BTreeMap;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes, BytesMut};

use super::frame::{Broken, Frame, HEAD_BYTES, Kind, MOST_CARRIED, put};

/// Connections at once. Agents use one or two; the relay itself turns away more than these.
pub(super) const MOST_OPEN: usize = 32;
/// Bytes of a connection that may be under way in one direction.
pub(super) const WINDOW: usize = 64 * 1024;
/// While more than this waits to be written to the relay, nothing is read from it.
pub(super) const MOST_WAITING: usize = 256 * 1024;
/// So much is taken in before the relay is told that there is room again.
const CREDIT_AFTER: usize = WINDOW / 2;

/// A connection of a program in the cell.
#[derive(Debug, Default)]
struct Open {
    /// What came and was not read yet.
    came: BytesMut,
    /// What was read since the relay was told of room.
    read: usize,
    /// Nothing more will come.
    ended: bool,
    /// It is gone.
    reset: bool,
    /// What may still be sent.
    credit: usize,
    /// We send nothing more.
    we_ended: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Open {
    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

/// All connections of a cell.
#[derive(Debug)]
pub(super) struct Connections {
    open: BTreeMap<u32, Open>,
    last: u32,
    /// What waits to be written to the relay.
    waiting: BytesMut,
    /// Bytes that came, frames and all.
    came: u64,
    most: u64,
    /// Nobody is at the other end any more.
    closed: bool,
    /// Who writes to the relay, and waits for something to write.
    writer: Option<Waker>,
    /// Who reads from the relay, and waits until there is room for what that may lead to.
    reader: Option<Waker>,
}

impl Connections {
    /// None yet. More than `most` bytes in all are not taken.
    pub(super) fn new(most: u64) -> Self {
        Self {
            open: BTreeMap::new(),
            last: 0,
            waiting: BytesMut::new(),
            came: 0,
            most,
            closed: false,
            writer: None,
            reader: None,
        }
    }

    /// Takes a frame of the relay; says which connection it opened.
    pub(super) fn take(&mut self, frame: &Frame) -> Result<Option<u32>, Broken> {
        self.came = self.came.saturating_add((HEAD_BYTES + frame.carried.len()) as u64);
        if self.came > self.most {
            return Err(Broken::TooMuch(self.most));
        }
        let id = frame.id;
        match frame.kind {
            Kind::Open => return self.opened(id),
            Kind::Hello | Kind::File | Kind::Start | Kind::Stop => {
                return Err(Broken::OutOfPlace("a kind that is not the relay's"));
            }
            Kind::Data | Kind::End | Kind::Reset | Kind::Credit => {}
        }
        let Some(open) = self.open.get_mut(&id) else {
            // Under way while it was closed here.
            return if id <= self.last { Ok(None) } else { Err(Broken::OutOfPlace("nobody opened that connection")) };
        };
        match frame.kind {
            Kind::Data if open.ended => return Err(Broken::OutOfPlace("data behind the end")),
            Kind::Data if open.came.len() + open.read + frame.carried.len() > WINDOW => {
                return Err(Broken::OutOfPlace("more data than there is room for"));
            }
            Kind::Data => open.came.extend_from_slice(&frame.carried),
            Kind::End => open.ended = true,
            Kind::Credit => {
                let more = <[u8; 4]>::try_from(&frame.carried[..]).map(u32::from_be_bytes);
                let more = more.ok().and_then(|more| usize::try_from(more).ok());
                let credit = more.and_then(|more| open.credit.checked_add(more)).filter(|credit| *credit <= WINDOW);
                open.credit = credit.ok_or(Broken::OutOfPlace("room that can't be"))?;
            }
            _ => (open.ended, open.reset) = (true, true),
        }
        open.wake();
        Ok(None)
    }

    fn opened(&mut self, id: u32) -> Result<Option<u32>, Broken> {
        if id <= self.last {
            return Err(Broken::OutOfPlace("a connection that was there already"));
        }
        self.last = id;
        if self.open.len() >= MOST_OPEN {
            self.send(Kind::Reset, id, &[]);
            return Ok(None);
        }
        self.open.insert(id, Open { credit: WINDOW, ..Open::default() });
        Ok(Some(id))
    }

    /// Sends a frame that is about no connection's data.
    pub(super) fn send(&mut self, kind: Kind, id: u32, carried: &[u8]) {
        if self.closed {
            return;
        }
        put(&mut self.waiting, kind, id, carried);
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }

    /// At most `most` bytes of what came; none at the end. `None` when the connection was broken off.
    pub(super) fn poll_read(&mut self, id: u32, most: usize, cx: &Context<'_>) -> Poll<Option<Bytes>> {
        let Some(open) = self.open.get_mut(&id).filter(|open| !open.reset) else { return Poll::Ready(None) };
        if open.came.is_empty() && !open.ended {
            open.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let bytes = Bytes::copy_from_slice(&open.came[..most.min(open.came.len())]);
        open.came.advance(bytes.len());
        open.read += bytes.len();
        if open.read >= CREDIT_AFTER && !open.ended {
            let read = u32::try_from(std::mem::take(&mut open.read)).expect("a window fits");
            self.send(Kind::Credit, id, &read.to_be_bytes());
        }
        Poll::Ready(Some(bytes))
    }

    /// Sends what there is room for, and says how much that was. `None` when the connection is gone.
    pub(super) fn poll_write(&mut self, id: u32, bytes: &[u8], cx: &Context<'_>) -> Poll<Option<usize>> {
        let full = self.waiting.len() >= MOST_WAITING;
        let Some(open) = self.open.get_mut(&id).filter(|open| !open.reset && !open.we_ended) else {
            return Poll::Ready(None);
        };
        let size = bytes.len().min(open.credit).min(MOST_CARRIED);
        if full || size == 0 {
            open.writer = Some(cx.waker().clone());
            return if bytes.is_empty() { Poll::Ready(Some(0)) } else { Poll::Pending };
        }
        open.credit -= size;
        self.send(Kind::Data, id, &bytes[..size]);
        Poll::Ready(Some(size))
    }

    /// We send nothing more.
    pub(super) fn end(&mut self, id: u32) {
        let Some(open) = self.open.get_mut(&id).filter(|open| !open.reset) else { return };
        if !std::mem::replace(&mut open.we_ended, true) {
            self.send(Kind::End, id, &[]);
        }
    }

    /// We have no more to do with it.
    pub(super) fn forget(&mut self, id: u32) {
        let Some(open) = self.open.remove(&id) else { return };
        if !(open.reset || (open.ended && open.we_ended)) {
            self.send(Kind::Reset, id, &[]);
        }
    }

    /// Nobody is there any more: whoever waits is told.
    pub(super) fn close(&mut self) {
        self.closed = true;
        for open in self.open.values_mut() {
            (open.reset, open.ended) = (true, true);
            open.wake();
        }
    }

    /// Ready when another frame may be read.
    pub(super) fn poll_room(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.waiting.len() < MOST_WAITING {
            return Poll::Ready(());
        }
        self.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// What is to be written to the relay next.
    pub(super) fn poll_waiting(&mut self, cx: &Context<'_>) -> Poll<Bytes> {
        if self.waiting.is_empty() {
            self.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let bytes = self.waiting.split().freeze();
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
        for open in self.open.values_mut() {
            if let Some(waker) = open.writer.take() {
                waker.wake();
            }
        }
        Poll::Ready(bytes)
    }

    /// Bytes that are held for the cell, in both directions.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.waiting.len() + self.open.values().map(|open| open.came.len()).sum::<usize>()
    }
}

#[cfg(test)]
#[path = "connections_tests.rs"]
mod tests;
