//! Blossom: files on servers that keep them by their SHA-256 (BUD-01, BUD-02), for results that no event has room for.

use serde::{Deserialize, Serialize};

/// A file on a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    /// Where it can be fetched.
    pub url: String,
    /// SHA-256 in hexadecimal digits.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
}

/// Why a file is not there, or not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BlossomError {
    /// No connection, no answer in time, or it broke off.
    #[error("the file server can't be reached")]
    Unreachable,
}

/// One server, and our key that it knows us by.
#[derive(Debug, Clone)]
pub struct Blossom {}

impl Blossom {
    /// Puts a file there.
    ///
    /// # Errors
    /// When the server does not take it, or says it has something else.
    pub async fn upload(&self, _content: Vec<u8>, _media_type: &str) -> Result<Blob, BlossomError> {
        Err(BlossomError::Unreachable)
    }
}
