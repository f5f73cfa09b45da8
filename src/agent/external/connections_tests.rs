use proptest::prelude::*;

use super::*;

fn frame(kind: Kind, id: u32, carried: &[u8]) -> Frame {
    Frame { kind, id, carried: Bytes::copy_from_slice(carried) }
}

fn with_one() -> Connections {
    let mut all = Connections::new(u64::MAX);
    assert_eq!(all.take(&frame(Kind::Open, 1, &[])).unwrap(), Some(1));
    all
}

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// The frames that wait to be written.
fn sent(all: &mut Connections) -> Vec<(Kind, u32, usize)> {
    use tokio_util::codec::Decoder;
    let mut bytes = BytesMut::new();
    if let Poll::Ready(waiting) = all.poll_waiting(&cx()) {
        bytes.extend_from_slice(&waiting);
    }
    let mut found = Vec::new();
    while let Some(frame) = super::super::frame::Frames.decode(&mut bytes).unwrap() {
        found.push((frame.kind, frame.id, frame.carried.len()));
    }
    found
}

#[test]
fn data_is_read_in_order_and_ends() {
    let mut all = with_one();
    assert!(all.poll_read(1, 10, &cx()).is_pending());
    all.take(&frame(Kind::Data, 1, b"hello")).unwrap();
    all.take(&frame(Kind::End, 1, &[])).unwrap();
    assert_eq!(all.poll_read(1, 3, &cx()), Poll::Ready(Some(Bytes::from_static(b"hel"))));
    assert_eq!(all.poll_read(1, 9, &cx()), Poll::Ready(Some(Bytes::from_static(b"lo"))));
    assert_eq!(all.poll_read(1, 9, &cx()), Poll::Ready(Some(Bytes::new())));
    all.end(1);
    all.forget(1);
    assert_eq!(sent(&mut all), [(Kind::End, 1, 0)], "what has ended on both sides needs no reset");
}

#[test]
fn a_reader_is_told_of_a_reset_and_of_the_end_of_all() {
    let mut all = with_one();
    all.take(&frame(Kind::Reset, 1, &[])).unwrap();
    assert_eq!(all.poll_read(1, 9, &cx()), Poll::Ready(None));
    assert_eq!(all.poll_write(1, b"a", &cx()), Poll::Ready(None));
    let mut all = with_one();
    all.close();
    assert_eq!(all.poll_read(1, 9, &cx()), Poll::Ready(None));
    assert_eq!(all.poll_write(1, b"a", &cx()), Poll::Ready(None));
}

#[test]
fn no_more_is_sent_than_the_cell_has_room_for() {
    let mut all = with_one();
    let bytes = vec![7; 2 * WINDOW];
    let mut written = 0;
    while let Poll::Ready(Some(size)) = all.poll_write(1, &bytes[written..], &cx()) {
        written += size;
    }
    assert_eq!(written, WINDOW);
    assert_eq!(sent(&mut all).iter().map(|(_, _, size)| size).sum::<usize>(), WINDOW);
    assert!(all.poll_write(1, &bytes, &cx()).is_pending());
    all.take(&frame(Kind::Credit, 1, &5_u32.to_be_bytes())).unwrap();
    assert_eq!(all.poll_write(1, &bytes, &cx()), Poll::Ready(Some(5)));
}

#[test]
fn room_is_told_of_as_it_is_made() {
    let mut all = with_one();
    let data = frame(Kind::Data, 1, &[1; MOST_CARRIED]);
    for _ in 0..4 {
        all.take(&data).unwrap();
    }
    assert!(matches!(all.take(&data), Err(Broken::OutOfPlace(_))), "the window is full");
    let mut all = with_one();
    for _ in 0..40 {
        all.take(&data).unwrap();
        assert!(matches!(all.poll_read(1, usize::MAX, &cx()), Poll::Ready(Some(bytes)) if bytes.len() == MOST_CARRIED));
    }
    assert_eq!(sent(&mut all).len(), 20, "a credit for each half window");
}

#[test]
fn what_cannot_be_ends_the_session() {
    let none = || Connections::new(u64::MAX);
    let ended = || {
        let mut all = with_one();
        all.take(&frame(Kind::End, 1, &[])).unwrap();
        all
    };
    for (mut all, wrong) in [
        (none(), frame(Kind::Data, 1, b"x")),
        (none(), frame(Kind::Open, 0, &[])),
        (with_one(), frame(Kind::Open, 1, &[])),
        (with_one(), frame(Kind::Credit, 1, &1_u32.to_be_bytes())),
        (with_one(), frame(Kind::Credit, 1, &u32::MAX.to_be_bytes())),
        (with_one(), frame(Kind::Credit, 1, b"123")),
        (with_one(), frame(Kind::Hello, 0, &[1])),
        (with_one(), frame(Kind::File, 0, b"x")),
        (with_one(), frame(Kind::Stop, 0, &[])),
        (ended(), frame(Kind::Data, 1, b"x")),
        (Connections::new(10), frame(Kind::Open, 1, &[0; 4])),
    ] {
        assert!(all.take(&wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn more_connections_than_there_is_room_for_are_turned_away_and_late_frames_ignored() {
    let mut all = Connections::new(u64::MAX);
    for id in 1..=100 {
        all.take(&frame(Kind::Open, id, &[])).unwrap();
        all.take(&frame(Kind::Data, id, b"x")).unwrap();
    }
    assert_eq!(sent(&mut all).len(), 100 - MOST_OPEN);
    all.forget(1);
    assert_eq!(sent(&mut all), [(Kind::Reset, 1, 0)]);
    all.take(&frame(Kind::Data, 1, b"late")).unwrap();
    assert_eq!(all.take(&frame(Kind::Open, 200, &[])).unwrap(), Some(200));
}

#[test]
fn nothing_more_is_read_while_the_cell_does_not_read() {
    let mut all = Connections::new(u64::MAX);
    let mut id = 0;
    // A cell that opens and never takes an answer.
    while all.poll_room(&cx()).is_ready() {
        id += 1;
        all.take(&frame(Kind::Open, id, &[])).unwrap();
        let _ = all.poll_write(id, &[0; MOST_CARRIED], &cx());
        all.forget(id);
        assert!(id < 1_000, "it goes on");
    }
    assert!(all.held() < MOST_WAITING + 2 * MOST_CARRIED);
    assert!(all.poll_waiting(&cx()).is_ready());
    assert!(all.poll_room(&cx()).is_ready());
}

proptest! {
    #[test]
    fn whatever_comes_what_is_held_is_bounded(
        frames in proptest::collection::vec((0..9_usize, 0..40_u32, 0..3_usize), 0..400),
    ) {
        let mut all = Connections::new(u64::MAX);
        for (kind, id, size) in frames {
            let carried = [&[][..], &[0, 0, 0, 9], &[1; MOST_CARRIED]][size];
            if all.poll_room(&cx()).is_pending() {
                let _ = all.poll_waiting(&cx());
            }
            if let Ok(Some(opened)) = all.take(&frame(Kind::ALL[kind], id, carried)) {
                let _ = all.poll_write(opened, carried, &cx());
            }
            prop_assert!(all.open.len() <= MOST_OPEN);
            prop_assert!(all.held() <= MOST_OPEN * WINDOW + MOST_WAITING + 2 * MOST_CARRIED);
        }
    }
}
