//! Objects that are written as a difference to another one, as git packs them.

use super::RepositoryError;

/// The sizes that a difference begins with: of what it is applied to, and of what comes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Of the base.
    pub(super) base: u64,
    /// Of the result.
    pub(super) result: u64,
    /// Bytes that the two numbers took.
    pub(super) header: usize,
}

/// Bytes that the two numbers take at most.
pub(super) const LONGEST_HEADER: usize = 20;

fn wrong() -> RepositoryError {
    RepositoryError::broken("an object's difference to another does not fit it")
}

/// Reads the sizes.
pub(super) fn sizes(delta: &[u8]) -> Result<Sizes, RepositoryError> {
    let (base, first) = number(delta)?;
    let (result, second) = number(&delta[first..])?;
    Ok(Sizes { base, result, header: first + second })
}

fn number(bytes: &[u8]) -> Result<(u64, usize), RepositoryError> {
    let mut value = 0_u64;
    for (at, byte) in bytes.iter().enumerate().take(LONGEST_HEADER / 2) {
        let part = u64::from(byte & 0x7f);
        let shifted = part.checked_shl(7 * u32::try_from(at).unwrap_or(u32::MAX)).ok_or_else(wrong)?;
        value |= shifted;
        if byte & 0x80 == 0 {
            return Ok((value, at + 1));
        }
    }
    Err(wrong())
}

/// Applies a difference. What comes out has exactly the size it promised; the caller has looked whether that is too much.
pub(super) fn apply(base: &[u8], delta: &[u8]) -> Result<Vec<u8>, RepositoryError> {
    let sizes = sizes(delta)?;
    if sizes.base != base.len() as u64 {
        return Err(wrong());
    }
    let size = usize::try_from(sizes.result).map_err(|_| wrong())?;
    let mut result = Vec::with_capacity(size);
    let mut rest = delta[sizes.header..].iter();
    while let Some(&command) = rest.next() {
        let piece = if command & 0x80 != 0 {
            // Which bytes of offset and length follow is a bit each.
            let mut field = |bits: std::ops::Range<u32>| -> Result<usize, RepositoryError> {
                let mut value = 0_usize;
                for (place, bit) in bits.enumerate() {
                    if command & (1 << bit) != 0 {
                        value |= usize::from(*rest.next().ok_or_else(wrong)?) << (8 * place);
                    }
                }
                Ok(value)
            };
            let (offset, length) = (field(0..4)?, field(4..7)?);
            let length = if length == 0 { 0x1_0000 } else { length };
            offset.checked_add(length).and_then(|end| base.get(offset..end)).ok_or_else(wrong)?
        } else {
            let (piece, after) = rest.as_slice().split_at_checked(usize::from(command)).ok_or_else(wrong)?;
            rest = after.iter();
            if piece.is_empty() {
                return Err(wrong());
            }
            piece
        };
        if result.len() + piece.len() > size {
            return Err(wrong());
        }
        result.extend_from_slice(piece);
    }
    if result.len() == size { Ok(result) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_difference_copies_and_inserts() {
        let base = b"the quick brown fox";
        // Copy 4..10, insert "red ", copy 16..19.
        let delta = [19, 13, 0x91, 4, 6, 4, b'r', b'e', b'd', b' ', 0x91, 16, 3];
        assert_eq!(apply(base, &delta).unwrap(), b"quick red fox");
    }

    #[test]
    fn a_difference_that_does_not_fit_is_refused() {
        let base = b"abc";
        for delta in [
            &b""[..],
            &[0x80],
            &[3],
            &[4, 1, 1, b'x'],       // Another base.
            &[3, 1],                // Less than promised.
            &[3, 1, 2, b'x', b'y'], // More than promised.
            &[3, 2, 2, b'x'],       // Ends early.
            &[3, 1, 0],             // The reserved command.
            &[3, 4, 0x90, 4],       // Past the base's end.
            &[3, 4, 0x9f, 255, 255, 255, 255, 1],
            &[3, 1, 0x91], // A copy without its numbers.
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
        ] {
            assert!(matches!(apply(base, delta), Err(RepositoryError::Broken(_))), "{delta:?}");
        }
    }

    proptest! {
        #[test]
        fn anything_is_a_result_or_an_error(base: Vec<u8>, mut delta: Vec<u8>) {
            // Most random numbers are no small sizes: they are put in front.
            delta.insert(0, 40);
            delta.insert(0, u8::try_from(base.len().min(127)).unwrap());
            let _ = apply(&base[..base.len().min(127)], &delta);
        }
    }
}
