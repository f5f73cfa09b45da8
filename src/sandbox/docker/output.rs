//! What is kept of what a command prints: its beginning and its end, its size and its hash. Nothing here grows with what is
//! printed.

use bitcoin::hashes::{Hash, HashEngine, sha256};

use crate::sandbox::Output;

/// One output of a command, as it comes.
pub(super) struct Collector {
    keep_head: usize,
    keep_tail: usize,
    head: Vec<u8>,
    tail: Vec<u8>,
    bytes: u64,
    hash: sha256::HashEngine,
}

impl Collector {
    /// Keeps so many bytes, half from the beginning and half from the end.
    pub(super) fn new(keep_bytes: usize) -> Self {
        let keep_tail = keep_bytes / 2;
        Self {
            keep_head: keep_bytes - keep_tail,
            keep_tail,
            head: Vec::new(),
            tail: Vec::new(),
            bytes: 0,
            hash: sha256::Hash::engine(),
        }
    }

    /// Bytes in all.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What comes next.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.hash.input(bytes);
        let (first, rest) = bytes.split_at(bytes.len().min(self.keep_head - self.head.len()));
        self.head.extend_from_slice(first);
        // Of a large piece only the end can stay.
        let last = &rest[rest.len().saturating_sub(self.keep_tail)..];
        self.tail.extend_from_slice(last);
        // Not with every piece: moving the end is work.
        if self.tail.len() > 2 * self.keep_tail {
            self.cut_tail();
        }
    }

    fn cut_tail(&mut self) {
        let surplus = self.tail.len().saturating_sub(self.keep_tail);
        self.tail.drain(..surplus);
    }

    /// All there was.
    pub(super) fn finish(mut self) -> Output {
        self.cut_tail();
        let kept = (self.head.len() + self.tail.len()) as u64;
        let text = if kept == self.bytes {
            self.head.extend_from_slice(&self.tail);
            String::from_utf8_lossy(&self.head).into_owned()
        } else {
            let (head, tail) = (whole_beginning(&self.head), whole_end(&self.tail));
            let left_out = self.bytes - (head.len() + tail.len()) as u64;
            let (head, tail) = (String::from_utf8_lossy(head), String::from_utf8_lossy(tail));
            let newline = if head.is_empty() || head.ends_with('\n') { "" } else { "\n" };
            format!("{head}{newline}[{left_out} bytes left out]\n{tail}")
        };
        Output { text, bytes: self.bytes, sha256: sha256::Hash::from_engine(self.hash).to_string() }
    }
}

/// Without a character that is cut at the end.
fn whole_beginning(bytes: &[u8]) -> &[u8] {
    let begun = bytes.iter().rposition(|byte| !is_continuation(*byte)).unwrap_or(bytes.len());
    let cut = std::str::from_utf8(&bytes[begun..]).is_err_and(|error| error.error_len().is_none());
    if cut { &bytes[..begun] } else { bytes }
}

/// Without a character that is cut at the beginning.
fn whole_end(bytes: &[u8]) -> &[u8] {
    let rest = bytes.iter().take(3).take_while(|byte| is_continuation(**byte)).count();
    &bytes[rest..]
}

fn is_continuation(byte: u8) -> bool {
    byte & 0b1100_0000 == 0b1000_0000
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn collected(keep: usize, pieces: &[&[u8]]) -> Output {
        let mut collector = Collector::new(keep);
        for piece in pieces {
            collector.push(piece);
        }
        collector.finish()
    }

    #[test]
    fn a_short_output_is_whole() {
        let output = collected(10, &[b"hello", b" ", b"you"]);
        assert_eq!(output.text, "hello you");
        assert_eq!(output.bytes, 9);
        assert_eq!(output.sha256, sha256::Hash::hash(b"hello you").to_string());
        assert_eq!(collected(10, &[]), Output { sha256: sha256::Hash::hash(b"").to_string(), ..Output::default() });
    }

    #[test]
    fn a_long_output_keeps_its_beginning_and_its_end() {
        let output = collected(8, &[b"begin, and then so much more that nobody reads it, the end"]);
        assert_eq!(output.text, "begi\n[50 bytes left out]\n end");
        assert_eq!(output.bytes, 58);
    }

    #[test]
    fn characters_are_not_cut_in_two() {
        let output = collected(6, &["aé€€€€€éa".as_bytes()]);
        assert_eq!(output.text, "aé\n[15 bytes left out]\néa");
        assert_eq!(collected(6, &[b"\xff\xfe"]).text, "\u{fffd}\u{fffd}");
    }

    proptest! {
        #[test]
        fn however_it_comes_the_same_is_kept(
            bytes in proptest::collection::vec(any::<u8>(), 0..400),
            keep in 0_usize..64,
            piece in 1_usize..50,
        ) {
            let pieces: Vec<&[u8]> = bytes.chunks(piece).collect();
            let output = collected(keep, &pieces);
            prop_assert_eq!(&output, &collected(keep, &[&bytes]));
            prop_assert_eq!(output.bytes, bytes.len() as u64);
            prop_assert_eq!(&output.sha256, &sha256::Hash::hash(&bytes).to_string());
            // A byte that is no text becomes three.
            prop_assert!(output.text.len() <= keep * 3 + 64);
        }
    }
}
