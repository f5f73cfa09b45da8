//! What pay endpoints answer, read without asking anybody.

use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::error::LnurlError;
use crate::job::id::NostrKey;
use crate::money::Msat;

/// Characters of a service's own words that are shown.
const MAX_REASON_CHARS: usize = 200;

/// Bytes of metadata (LUD-06): text, and perhaps a small picture.
const MAX_METADATA_BYTES: usize = 192 * 1024;

/// How an address is paid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayEndpoint {
    /// Where to ask for an invoice.
    pub callback: Url,
    /// The least it takes. Never zero.
    pub min_sendable: Msat,
    /// The most it takes.
    pub max_sendable: Msat,
    /// What every invoice commits to, byte for byte.
    pub metadata: String,
    /// Characters of a comment it takes (LUD-12).
    pub comment_allowed: u32,
    /// Who signs its zap receipts (NIP-57); `None` when it does not do zaps.
    pub zap_signer: Option<NostrKey>,
}

/// The first answer. Everything is optional to serde, so that what is missing is told in words.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    tag: Option<String>,
    callback: Option<String>,
    min_sendable: Option<u64>,
    max_sendable: Option<u64>,
    metadata: Option<String>,
    #[serde(default)]
    comment_allowed: Option<Value>,
    #[serde(default)]
    allows_nostr: Option<Value>,
    #[serde(default)]
    nostr_pubkey: Option<Value>,
}

/// The second answer.
#[derive(Deserialize)]
struct Invoice {
    pr: Option<String>,
}

/// `{"status":"ERROR","reason":"…"}`, in either answer.
#[derive(Deserialize)]
struct Status {
    status: Option<Value>,
    reason: Option<Value>,
}

/// Reads the answer of an address (LUD-06).
pub(super) fn read_endpoint(body: &str) -> Result<PayEndpoint, LnurlError> {
    refusal(body)?;
    let answer: Endpoint =
        serde_json::from_str(body).map_err(|_| LnurlError::BadAnswer("it is no JSON of an LNURL service"))?;
    if answer.tag.as_deref() != Some("payRequest") {
        return Err(LnurlError::BadAnswer("it is not there to be paid (tag payRequest)"));
    }
    let callback = answer.callback.as_deref().and_then(|url| Url::parse(url).ok());
    let callback = callback.ok_or(LnurlError::BadAnswer("it has no callback"))?;
    let amount = |msat: Option<u64>| msat.and_then(|msat| Msat::from_msat(msat).ok());
    // "Unlimited" is written as any number; more than all bitcoin is not taken.
    let max = answer.max_sendable.map(|msat| Msat::from_msat(msat).unwrap_or(Msat::MAX));
    let (Some(min), Some(max)) = (amount(answer.min_sendable), max) else {
        return Err(LnurlError::BadAnswer("it does not say how much it takes"));
    };
    if min > max || max.is_zero() {
        return Err(LnurlError::BadAnswer("it takes no amount at all"));
    }
    let metadata = answer.metadata.ok_or(LnurlError::BadAnswer("it has no metadata"))?;
    if metadata.len() > MAX_METADATA_BYTES || !has_text(&metadata) {
        return Err(LnurlError::BadAnswer("its metadata is not what LUD-06 asks for"));
    }
    let does_zaps = matches!(answer.allows_nostr, Some(Value::Bool(true)));
    let key = answer.nostr_pubkey.as_ref().and_then(Value::as_str).and_then(|key| key.trim().parse().ok());
    Ok(PayEndpoint {
        callback,
        min_sendable: min.max(Msat::msat(1)),
        max_sendable: max,
        metadata,
        comment_allowed: answer
            .comment_allowed
            .and_then(|value| value.as_u64())
            .and_then(|chars| u32::try_from(chars).ok())
            .unwrap_or(0),
        zap_signer: key.filter(|_| does_zaps),
    })
}

/// Reads the answer of a callback: the invoice's text, not yet checked.
pub(super) fn read_invoice(body: &str) -> Result<String, LnurlError> {
    refusal(body)?;
    let answer: Invoice =
        serde_json::from_str(body).map_err(|_| LnurlError::BadAnswer("it is no JSON of an LNURL service"))?;
    answer.pr.ok_or(LnurlError::BadAnswer("it holds no invoice"))
}

/// The service's own refusal, in its words, on one line.
fn refusal(body: &str) -> Result<(), LnurlError> {
    let Ok(Status { status: Some(Value::String(status)), reason }) = serde_json::from_str(body) else { return Ok(()) };
    if !status.eq_ignore_ascii_case("error") {
        return Ok(());
    }
    let reason = reason.as_ref().and_then(Value::as_str).unwrap_or("no reason given");
    let line = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_REASON_CHARS).collect();
    Err(LnurlError::Refused(line))
}

/// Metadata is a JSON list of `[type, value]` pairs, one of them `text/plain` (LUD-06).
fn has_text(metadata: &str) -> bool {
    let Ok(Value::Array(entries)) = serde_json::from_str(metadata) else { return false };
    entries.iter().any(|entry| entry.get(0).and_then(Value::as_str) == Some("text/plain") && entry[1].is_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> Value {
        serde_json::json!({
            "tag": "payRequest",
            "callback": "https://example.com/pay?id=7",
            "minSendable": 1_000,
            "maxSendable": 100_000_000,
            "metadata": "[[\"text/plain\",\"for ann\"],[\"text/identifier\",\"ann@example.com\"]]",
            "commentAllowed": 140,
            "allowsNostr": true,
            "nostrPubkey": "17162c921dc4d2518f9a101db33695df1afb56ab82f5ff3e5da6eec3ca5cd917",
        })
    }

    fn with(key: &str, value: Value) -> Result<PayEndpoint, LnurlError> {
        let mut answer = endpoint();
        answer[key] = value;
        read_endpoint(&answer.to_string())
    }

    #[test]
    fn an_endpoint_says_how_it_is_paid_and_who_signs_for_zaps() {
        let read = read_endpoint(&endpoint().to_string()).unwrap();
        assert_eq!((read.min_sendable, read.max_sendable), (Msat::sat(1), Msat::sat(100_000)));
        assert_eq!(read.comment_allowed, 140);
        assert!(read.zap_signer.is_some());
        assert_eq!(with("allowsNostr", false.into()).unwrap().zap_signer, None);
        assert_eq!(with("nostrPubkey", "npub1junk".into()).unwrap().zap_signer, None);
        assert_eq!(with("nostrPubkey", 7.into()).unwrap().zap_signer, None);
        assert_eq!(with("maxSendable", u64::MAX.into()).unwrap().max_sendable, Msat::MAX);
    }

    #[test]
    fn hostile_answers_are_errors_in_words() {
        for (key, value) in [
            ("tag", "withdrawRequest".into()),
            ("callback", "not a url".into()),
            ("callback", Value::Null),
            ("minSendable", (-1).into()),
            ("minSendable", "1000".into()),
            ("minSendable", 200_000_000_u64.into()),
            ("maxSendable", 0.into()),
            ("metadata", Value::Null),
            ("metadata", "[]".into()),
            ("metadata", "{}".into()),
            ("metadata", "[[\"image/png\",\"x\"]]".into()),
        ] {
            assert!(matches!(with(key, value.clone()), Err(LnurlError::BadAnswer(_))), "{key} {value}");
        }
        for body in ["", "null", "[]", "<html>", "{}", "\"x\""] {
            assert!(matches!(read_endpoint(body), Err(LnurlError::BadAnswer(_))), "{body}");
            assert!(matches!(read_invoice(body), Err(LnurlError::BadAnswer(_))), "{body}");
        }
    }

    #[test]
    fn a_refusal_is_told_in_the_service_s_words_on_one_line() {
        let body =
            serde_json::json!({ "status": "ERROR", "reason": format!("no\u{1b}[31m such\nuser{}", "x".repeat(999)) });
        let Err(LnurlError::Refused(words)) = read_endpoint(&body.to_string()) else { panic!("no refusal") };
        assert!(words.starts_with("no [31m such user") && words.chars().count() == MAX_REASON_CHARS, "{words}");
        assert!(read_invoice(r#"{"status":"error"}"#).is_err());
        assert_eq!(read_invoice(r#"{"status":"OK","pr":"lnbc1"}"#).as_deref(), Ok("lnbc1"));
    }
}
