//! Files that no event has room for: where a result's file is, how a sealed one is opened (NIP-17), and the permit to put one
//! on a Blossom server (BUD-01, BUD-02).

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use url::Url;

use super::draft::{Draft, Words, words};
use super::tags::{self, TagList};
use super::{Codec, EncodeError, SignedEvent, kinds};

/// Characters of a file's address at most.
const MAX_URL_BYTES: usize = 2_048;

/// Hexadecimal digits of a SHA-256.
const SHA256_DIGITS: usize = 64;

/// Hexadecimal digits of a sealed file's key.
const KEY_DIGITS: usize = 64;

/// Hexadecimal digits of a sealed file's nonce.
const NONCE_DIGITS: usize = 24;

/// AES-256-GCM by the name that NIP-17's file messages give it.
pub const SEALED_WITH: &str = "aes-gcm";

/// The tag of an encrypted result that hides those of its file.
pub(super) const HIDDEN_FILE: &str = "file";

/// A file on a server that keeps it by its SHA-256.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    /// Where it can be fetched.
    pub url: String,
    /// SHA-256 of what lies there, in lowercase hexadecimal digits.
    pub sha256: String,
    /// Bytes that lie there.
    pub size: u64,
    /// How it is opened, when it lies there sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seal: Option<Seal>,
}

/// What opens a sealed file, which is AES-256-GCM of its content with the tag of 16 bytes at the end and nothing beside it
/// authenticated. Who has this has the file: it is told when the file is paid, and only to whom it is for. Debug does not
/// show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// 32 bytes in lowercase hexadecimal digits.
    pub key: String,
    /// 12 bytes in lowercase hexadecimal digits.
    pub nonce: String,
    /// SHA-256 of the content, in lowercase hexadecimal digits.
    pub sha256: String,
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seal").field("sha256", &self.sha256).finish_non_exhaustive()
    }
}

impl Seal {
    /// What somebody else says opens a file; `None` when that can't be, or not in a way we know.
    pub fn told(algorithm: &str, key: &str, nonce: &str, sha256: &str) -> Option<Self> {
        let known = algorithm.trim().eq_ignore_ascii_case(SEALED_WITH);
        let (key, nonce) = (hex_digits(key, KEY_DIGITS)?, hex_digits(nonce, NONCE_DIGITS)?);
        let sha256 = sha256_digits(sha256)?;
        known.then_some(Self { key, nonce, sha256 })
    }
}

impl Blob {
    /// A file that somebody else tells of; `None` when it can't be one: no http address, or no SHA-256.
    pub fn told(url: &str, sha256: &str, size: u64) -> Option<Self> {
        let url = url.trim();
        let parsed = Url::parse(url).ok().filter(|_| url.len() <= MAX_URL_BYTES)?;
        let plain = parsed.username().is_empty() && parsed.password().is_none() && parsed.has_host();
        let sha256 = sha256_digits(sha256)?;
        (plain && matches!(parsed.scheme(), "http" | "https")).then(|| Self {
            url: url.to_owned(),
            sha256,
            size,
            seal: None,
        })
    }
}

impl Codec {
    /// Writes the permit to upload one file until then, for a server that asks who comes.
    ///
    /// It is sent in base64. Its length is a multiple of three and its text plain ASCII, so that it reads the same in every
    /// alphabet and padding that servers expect.
    ///
    /// # Errors
    /// [`EncodeError::Crypto`] when signing fails.
    pub fn upload_permit(&self, sha256: &str, at: Timestamp, until: Timestamp) -> Result<SignedEvent, EncodeError> {
        let tags = vec![words!["t", "upload"], words!["x", sha256], words!["expiration", until.as_second()]];
        let permit = |dots: usize| {
            let content = format!("Upload a file{}", ".".repeat(dots));
            self.sign(Draft { kind: kinds::FILE_PERMIT, tags: tags.clone(), content }, at)
        };
        let first = permit(0)?;
        match first.json.len() % 3 {
            0 => Ok(first),
            over => permit(3 - over),
        }
    }
}

/// `["url", …]`, `["x", SHA-256]` and `["size", bytes]`, and what opens it as in NIP-17.
pub(super) fn blob_words(blob: &Blob) -> Vec<Words> {
    let mut tags = vec![words!["url", blob.url], words!["x", blob.sha256], words!["size", blob.size]];
    if let Some(seal) = &blob.seal {
        tags.push(words!["encryption-algorithm", SEALED_WITH]);
        tags.push(words!["decryption-key", seal.key]);
        tags.push(words!["decryption-nonce", seal.nonce]);
        tags.push(words!["ox", seal.sha256]);
    }
    tags
}

/// Reads those tags. A file that can't be checked or opened is none.
pub(super) fn read_blob(tags: &TagList<'_>) -> Option<Blob> {
    let blob = Blob::told(tags.value("url")?, tags.value("x")?, tags.value("size").and_then(tags::whole_number)?)?;
    let Some(algorithm) = tags.value("encryption-algorithm") else { return Some(blob) };
    let value = |name| tags.value(name);
    let seal = Seal::told(algorithm, value("decryption-key")?, value("decryption-nonce")?, value("ox")?)?;
    Some(Blob { seal: Some(seal), ..blob })
}

/// A SHA-256 in lowercase hexadecimal digits.
pub(super) fn sha256_digits(text: &str) -> Option<String> {
    hex_digits(text, SHA256_DIGITS)
}

/// So many hexadecimal digits, in lowercase.
fn hex_digits(text: &str, count: usize) -> Option<String> {
    let digits = text.trim().to_ascii_lowercase();
    (digits.len() == count && digits.bytes().all(|digit| digit.is_ascii_hexdigit())).then_some(digits)
}

#[cfg(test)]
mod tests {
    use super::super::test_parties::{customer, noon, provider, received, tags_of};
    use super::super::{AnswerBody, Incoming, JobResult, Order, Receipt};
    use super::*;
    use crate::job::{Encryption, Input, InputKind, JobKind, JobRequest, Params};

    fn request(encryption: Option<Encryption>) -> JobRequest {
        let order = Order {
            kind: JobKind::SandboxRun,
            inputs: vec![Input { data: "x".into(), kind: InputKind::Text, relay: None, marker: None }],
            params: Params::default(),
            output: None,
            bid: None,
            providers: vec![provider().signer.provider_id()],
            relays: Vec::new(),
            expires_at: None,
            encryption,
        };
        let written = customer().request(&order, noon()).unwrap();
        match provider().read(&received(&written)) {
            Ok(Incoming::Request(request)) => *request,
            other => panic!("no request: {other:?}"),
        }
    }

    fn result(content: &str) -> JobResult {
        let file = Blob::told("https://files.example/ab", &"ab".repeat(32), content.len() as u64);
        JobResult { content: content.into(), amount: None, receipt: Receipt::default(), file, truncated: None }
    }

    fn read_back(codec: &Codec, request: &JobRequest, result: &JobResult) -> JobResult {
        let written = codec.result(request, result, noon()).unwrap();
        match customer().read_answer(&received(&written)).unwrap().body {
            AnswerBody::Result(result) => result,
            other => panic!("no result: {other:?}"),
        }
    }

    #[test]
    fn a_result_that_was_cut_says_where_the_whole_is() {
        let whole = result(&"line\n".repeat(20_000));
        let read = read_back(&provider(), &request(None), &whole);
        assert_eq!(read.file, whole.file);
        assert_eq!(read.truncated.as_ref().map(|(size, _)| *size), Some(100_000));
        assert!(whole.content.starts_with(&read.content) && !read.content.is_empty());
        // What was read is written as it was.
        assert_eq!(read_back(&provider(), &request(None), &read), read);
    }

    fn sealed(content: &str) -> JobResult {
        let seal = Seal::told("aes-gcm", &"1f".repeat(32), &"2e".repeat(12), &"cd".repeat(32));
        let result = result(content);
        JobResult { file: result.file.map(|blob| Blob { seal, ..blob }), ..result }
    }

    #[test]
    fn an_encrypted_answer_tells_of_its_file_to_its_customer_alone() {
        for scheme in [Encryption::Nip44, Encryption::Nip04] {
            let (request, result) = (request(Some(scheme)), sealed("secret"));
            let written = provider().result(&request, &result, noon()).unwrap();
            let names: Vec<String> = tags_of(&received(&written)).into_iter().map(|tag| tag[0].clone()).collect();
            assert!(names.iter().all(|name| !["url", "x", "ox", "size"].contains(&name.as_str())), "{names:?}");
            let seal = result.file.clone().unwrap().seal.unwrap();
            for hidden in ["files.example", &seal.key, &seal.nonce, &seal.sha256] {
                assert!(!written.json.contains(hidden), "{hidden}");
            }
            assert_eq!(read_back(&provider(), &request, &result).file, result.file);
        }
    }

    #[test]
    fn a_sealed_file_comes_with_what_opens_it() {
        let result = sealed("the beginning");
        assert_eq!(read_back(&provider(), &request(None), &result).file, result.file);
        assert!(!format!("{result:?}").contains("1f1f"), "a key is no word for a log");
    }

    #[test]
    fn what_can_not_be_opened_is_no_seal() {
        let (key, nonce, hash) = ("AB".repeat(32), "cd".repeat(12), "ef".repeat(32));
        assert_eq!(Seal::told(" AES-GCM", &key, &nonce, &hash).unwrap().key, "ab".repeat(32));
        assert_eq!(Seal::told("rot13", &key, &nonce, &hash), None);
        assert_eq!(Seal::told("aes-gcm", &key[2..], &nonce, &hash), None);
        assert_eq!(Seal::told("aes-gcm", &key, &"cd".repeat(16), &hash), None);
        assert_eq!(Seal::told("aes-gcm", &key, &nonce, "none"), None);
    }

    #[test]
    fn whether_an_event_has_room_is_known_before_it_is_written() {
        for encryption in [None, Some(Encryption::Nip44)] {
            let request = request(encryption);
            for bytes in [10, 40_000, 41_000, 49_152, 49_153, 60_000] {
                let result = result(&"x".repeat(bytes));
                let whole = read_back(&provider(), &request, &result).truncated.is_none();
                assert_eq!(provider().has_room_for(&request, &result), whole, "{bytes} {encryption:?}");
            }
        }
    }

    #[test]
    fn a_permit_is_for_one_file_and_a_short_time_and_fits_base64_without_padding() {
        let until = Timestamp::from_second(1_800_000_300).unwrap();
        for sha256 in ["ab".repeat(32), "00".repeat(32)] {
            let permit = provider().upload_permit(&sha256, noon(), until).unwrap();
            assert_eq!(permit.json.len() % 3, 0);
            assert!(permit.json.is_ascii() && !permit.json.contains(['~', '?', '>', '\u{7f}']));
            let event = received(&permit);
            assert_eq!(event.kind.as_u16(), 24_242);
            assert!(event.content.starts_with("Upload a file"));
            let tags: Vec<String> = tags_of(&event).iter().map(|tag| tag.join(" ")).collect();
            assert_eq!(tags, ["t upload", &format!("x {sha256}"), "expiration 1800000300"]);
        }
    }

    #[test]
    fn what_can_not_be_fetched_and_checked_is_no_file() {
        let sha256 = "AB".repeat(32);
        let told = |url: &str, sha256: &str| Blob::told(url, sha256, 5);
        let blob = told(" https://files.example/ab ", &sha256).unwrap();
        assert_eq!((blob.url.as_str(), blob.sha256), ("https://files.example/ab", "ab".repeat(32)));
        for url in ["", "files.example/ab", "ftp://files.example/ab", "https://me:pw@files.example/ab", "data:,x"] {
            assert_eq!(told(url, &sha256), None, "{url}");
        }
        assert_eq!(told(&format!("https://files.example/{}", "a".repeat(2_048)), &sha256), None);
        for hash in ["", "ab", &"xy".repeat(32), &"ab".repeat(33)] {
            assert_eq!(told("https://files.example/ab", hash), None, "{hash}");
        }
    }
}
