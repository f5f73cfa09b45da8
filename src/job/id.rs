//! Who a job is and whose it is. Both are 32 bytes on the wire (NIP-01), shown as lowercase hex.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Text that is not 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected 64 hexadecimal digits, found {found} characters")]
pub struct IdError {
    /// How many characters there were.
    pub found: usize,
}

macro_rules! id32 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// The raw bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), hex::encode(&self.0[..4]))
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let mut bytes = [0; 32];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| IdError { found: text.chars().count() })?;
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id32! {
    /// A job: the id of the request event that asked for it.
    JobId
}
id32! {
    /// A customer: the x-only public key that signed the request.
    CustomerId
}
id32! {
    /// A BOLT 11 payment hash: what a payment is matched by, together with its amount.
    PaymentHash
}
id32! {
    /// A provider: the x-only public key that signs results.
    ProviderId
}
id32! {
    /// Any Nostr key, x-only (NIP-01): whoever signed an event.
    NostrKey
}
id32! {
    /// Any Nostr event's id (NIP-01).
    EventId
}

impl From<JobId> for EventId {
    fn from(job: JobId) -> Self {
        Self(job.0)
    }
}
