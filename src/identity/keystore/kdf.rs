//! From a password to keys: Argon2id (RFC 9106), with parameters neither too weak to protect nor too large to be meant.

use argon2::{Algorithm, Argon2, Block, Params, Version};
use zeroize::{Zeroize, Zeroizing};

use crate::identity::error::IdentityError;
use crate::identity::password::Password;

/// What OWASP's password storage cheat sheet calls equally strong minimums: at least so many KiB with so many passes.
const OWASP_MINIMUMS: [(u32, u32); 5] = [(47_104, 1), (19_456, 2), (12_288, 3), (9_216, 4), (7_168, 5)];
/// The most memory a file may ask of us (1 GiB): opening a keystore somebody changed must not take the machine down.
const MAX_MEMORY_KIB: u32 = 1 << 20;
/// The most work a file may ask of us, memory times passes: about eight seconds of one core.
const MAX_MEMORY_KIB_PASSES: u64 = 1 << 23;
/// The most lanes; more than any machine has cores to use for this.
const MAX_LANES: u32 = 16;
/// Bytes of salt of a new keystore (RFC 9106 recommends 16).
pub const SALT_BYTES: usize = 16;

/// Argon2id's parameters. Only made by [`KdfParams::new`], so weaker ones than OWASP's minimum do not exist, not even in
/// tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KdfParams {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl KdfParams {
    /// What new keystores use: 64 MiB and 3 passes, RFC 9106's choice for machines short of memory with one lane, about
    /// an eighth of a second.
    pub const STANDARD: Self = Self { memory_kib: 65_536, passes: 3, lanes: 1 };
    /// The cheapest that OWASP accepts, for tests that open many.
    pub const MINIMUM: Self = Self { memory_kib: 19_456, passes: 2, lanes: 1 };

    /// Checks the parameters.
    ///
    /// # Errors
    /// [`IdentityError::KdfParams`] below OWASP's minimum or above what a keystore can sensibly ask.
    pub fn new(memory_kib: u32, passes: u32, lanes: u32) -> Result<Self, IdentityError> {
        let refused = |why| Err(IdentityError::KdfParams { memory_kib, passes, lanes, why });
        if memory_kib > MAX_MEMORY_KIB || u64::from(memory_kib) * u64::from(passes) > MAX_MEMORY_KIB_PASSES {
            return refused("it asks for more memory or time than a keystore needs");
        }
        if lanes == 0 || lanes > MAX_LANES {
            return refused("there must be 1 to 16 lanes");
        }
        if !OWASP_MINIMUMS.iter().any(|&(memory, least)| memory_kib >= memory && passes >= least) {
            return refused("it is weaker than OWASP's minimum (19 MiB with 2 passes, or as strong)");
        }
        Ok(Self { memory_kib, passes, lanes })
    }

    /// The stronger of both in each respect: what a changed password is protected with.
    #[must_use]
    pub fn strengthened(self, other: Self) -> Self {
        let stronger = Self {
            memory_kib: self.memory_kib.max(other.memory_kib),
            passes: self.passes.max(other.passes),
            lanes: self.lanes.max(other.lanes),
        };
        // Two allowed sets can add up to one above the bound: then ours is as good.
        Self::new(stronger.memory_kib, stronger.passes, stronger.lanes).unwrap_or(self)
    }

    /// Memory in KiB.
    pub const fn memory_kib(self) -> u32 {
        self.memory_kib
    }

    /// Passes over the memory.
    pub const fn passes(self) -> u32 {
        self.passes
    }

    /// Lanes.
    pub const fn lanes(self) -> u32 {
        self.lanes
    }

    /// Derives both keys from a password. Takes its memory once and wipes it.
    pub(super) fn derive(self, password: &Password, salt: &[u8]) -> Result<DerivedKeys, IdentityError> {
        let unusable = |_| IdentityError::System("a key from the password");
        let params =
            Params::new(self.memory_kib, self.passes, self.lanes, Some(DerivedKeys::BYTES)).map_err(unusable)?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let mut memory = Vec::new();
        memory
            .try_reserve_exact(argon2.params().block_count())
            .map_err(|_| IdentityError::System("the memory to derive a key from the password"))?;
        memory.resize(argon2.params().block_count(), Block::default());
        let mut keys = DerivedKeys(Zeroizing::new([0; DerivedKeys::BYTES]));
        let derived =
            argon2.hash_password_into_with_memory(password.as_bytes(), salt, &mut keys.0[..], memory.as_mut_slice());
        memory.zeroize();
        derived.map_err(unusable)?;
        Ok(keys)
    }
}

/// Two keys from one run of Argon2id: one encrypts, one only tells whether the password was right.
pub(super) struct DerivedKeys(Zeroizing<[u8; Self::BYTES]>);

impl DerivedKeys {
    const BYTES: usize = 64;

    /// The key of the cipher.
    pub(super) fn cipher(&self) -> &[u8] {
        &self.0[..32]
    }

    /// The key of the password check.
    pub(super) fn check(&self) -> &[u8] {
        &self.0[32..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_below_owasps_minimum_or_absurd_ones_do_not_exist() {
        for (memory, passes, lanes) in [(8, 1, 1), (19_456, 1, 1), (7_168, 4, 1), (0, 0, 0), (65_536, 0, 1)] {
            let refused = KdfParams::new(memory, passes, lanes);
            assert!(matches!(refused, Err(IdentityError::KdfParams { .. })), "{memory} {passes} {lanes}");
        }
        for (memory, passes, lanes) in
            [(u32::MAX, 3, 1), (65_536, u32::MAX, 1), (MAX_MEMORY_KIB, 9, 1), (65_536, 3, 0), (65_536, 3, 17)]
        {
            let refused = KdfParams::new(memory, passes, lanes);
            assert!(matches!(refused, Err(IdentityError::KdfParams { .. })), "{memory} {passes} {lanes}");
        }
        for params in [KdfParams::STANDARD, KdfParams::MINIMUM] {
            assert_eq!(KdfParams::new(params.memory_kib, params.passes, params.lanes).unwrap(), params);
        }
    }

    #[test]
    fn the_stronger_parameters_win_each_for_itself() {
        let odd = KdfParams::new(19_456, 7, 2).unwrap();
        assert_eq!(KdfParams::STANDARD.strengthened(odd), KdfParams::new(65_536, 7, 2).unwrap());
        let huge = KdfParams::new(MAX_MEMORY_KIB, 1, 1).unwrap();
        let slow = KdfParams::new(19_456, 400, 1).unwrap();
        assert_eq!(huge.strengthened(slow), huge);
    }
}
