//! Reading BOLT 11 invoices, from our own wallet and from strangers.
//!
//! Both sides believe nothing: the seller checks that the wallet made what was asked ([`check_ours`]), the buyer that
//! what a provider sent can be paid and says what it costs ([`read_for_paying`]). Pure: time and network are parameters.

use bitcoin::Network;
use bitcoin::hashes::{Hash, sha256};
use jiff::Timestamp;
use lightning_invoice::{
    Bolt11Invoice, Bolt11InvoiceDescriptionRef, Bolt11ParseError, Bolt11SemanticError, ParseOrSemanticError,
};

use super::error::{InvoiceError, WalletError};
use super::{Invoice, InvoiceRequest, PaymentHash};
use crate::money::Msat;

/// The longest invoice looked at, in bytes: what fits a QR code (version 40, alphanumeric), like other readers allow.
const MAX_INVOICE_BYTES: usize = 7_089;

/// The URI scheme invoices are often wrapped in.
const URI_SCHEME: &str = "lightning:";

/// A stranger's invoice that may be paid, as far as it can be told without asking anybody.
#[derive(Clone, PartialEq, Eq)]
pub struct PayableInvoice {
    /// The invoice in its canonical form: no URI scheme, lowercase.
    pub bolt11: String,
    /// What it costs, without routing fees. Never zero.
    pub amount: Msat,
    /// What the payment will be known by.
    pub payment_hash: PaymentHash,
    /// What it says it is for. `None` when only a hash of that is given.
    pub description: Option<String>,
    /// When it can no longer be paid.
    pub expires_at: Timestamp,
    /// The network it is for.
    pub network: Network,
}

impl std::fmt::Debug for PayableInvoice {
    /// Without the invoice itself: it must not reach logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PayableInvoice")
            .field("amount", &self.amount)
            .field("payment_hash", &self.payment_hash)
            .field("expires_at", &self.expires_at)
            .field("network", &self.network)
            .finish_non_exhaustive()
    }
}

/// Reads an invoice somebody wants us to pay. Refuses what has no amount, is expired or is for another network.
///
/// # Errors
/// The reason, ready for the person who would pay.
pub fn read_for_paying(bolt11: &str, network: Network, now: Timestamp) -> Result<PayableInvoice, InvoiceError> {
    let (bolt11, invoice) = parse(bolt11)?;
    let amount = amount(&invoice)?;
    check_network(&invoice, network)?;
    let expires_at = check_expiry(&invoice, now)?;
    let description = description(&invoice);
    Ok(PayableInvoice { bolt11, amount, payment_hash: payment_hash(&invoice), description, expires_at, network })
}

/// Checks that what our wallet returned is the invoice asked for: signed, our network, exactly the amount, still open,
/// our description, and (for a hold invoice) our payment hash. Every adapter calls this before handing an invoice on.
///
/// # Errors
/// [`WalletError::InvoiceAmountMismatch`] for another amount, [`WalletError::BadInvoice`] for anything else: both mean
/// that the invoice must never reach a customer.
pub fn check_ours(
    asked: &InvoiceRequest,
    hash: Option<&PaymentHash>,
    bolt11: &str,
    network: Network,
    now: Timestamp,
) -> Result<Invoice, WalletError> {
    let (bolt11, invoice) = parse(bolt11)?;
    check_network(&invoice, network)?;
    let invoiced = amount(&invoice)?;
    if invoiced != asked.amount {
        return Err(WalletError::InvoiceAmountMismatch { asked: asked.amount, invoiced });
    }
    let payment_hash = payment_hash(&invoice);
    if hash.is_some_and(|hash| *hash != payment_hash) {
        return Err(InvoiceError::OtherHash.into());
    }
    if !says(&invoice, &asked.description) {
        return Err(InvoiceError::OtherDescription.into());
    }
    let expires_at = check_expiry(&invoice, now)?;
    Ok(Invoice { bolt11, payment_hash, amount: invoiced, expires_at })
}

/// An invoice that somebody says was paid: what it was over, and what it commits to. Whether it was paid it can't tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settlement {
    /// What it was over. Never zero.
    pub amount: Msat,
    /// What its payment is known by.
    pub payment_hash: PaymentHash,
}

/// Reads an invoice whose description must be this text, by its hash (BOLT 11 `h`), as LUD-06 and NIP-57 ask. Its expiry
/// does not matter: it is over when the payment is.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn read_committed(bolt11: &str, text: &str, network: Network) -> Result<Settlement, InvoiceError> {
    let (_, invoice) = parse(bolt11)?;
    check_network(&invoice, network)?;
    let amount = amount(&invoice)?;
    match invoice.description() {
        Bolt11InvoiceDescriptionRef::Hash(hash) if hash.0 == sha256::Hash::hash(text.as_bytes()) => {}
        _ => return Err(InvoiceError::OtherDescription),
    }
    Ok(Settlement { amount, payment_hash: payment_hash(&invoice) })
}

/// The payment hash of an invoice, whatever else it says.
///
/// # Errors
/// [`InvoiceError::Unreadable`] when it is none.
pub fn payment_hash_of(bolt11: &str) -> Result<PaymentHash, InvoiceError> {
    Ok(payment_hash(&parse(bolt11)?.1))
}

/// When an invoice can no longer be paid, which may be past.
///
/// # Errors
/// [`InvoiceError::Unreadable`] when it is none, [`InvoiceError::ImpossibleExpiry`].
pub fn expiry_of(bolt11: &str) -> Result<Timestamp, InvoiceError> {
    expiry(&parse(bolt11)?.1)
}

/// What an invoice says it is for. `None` when only a hash of that is given.
///
/// # Errors
/// [`InvoiceError::Unreadable`] when it is none.
pub fn description_of(bolt11: &str) -> Result<Option<String>, InvoiceError> {
    Ok(description(&parse(bolt11)?.1))
}

/// Blocks the invoice asks for at the last hop (BOLT 11 `c`): the time its payment can be held, the receiver's own margin
/// included.
///
/// # Errors
/// [`InvoiceError::Unreadable`] when it is no invoice.
pub fn final_blocks(bolt11: &str) -> Result<u32, InvoiceError> {
    Ok(u32::try_from(parse(bolt11)?.1.min_final_cltv_expiry_delta()).unwrap_or(u32::MAX))
}

/// Whether the preimage is the secret behind the hash: the proof of payment.
pub fn is_preimage(preimage: &[u8; 32], hash: &PaymentHash) -> bool {
    hash_of(preimage) == *hash
}

/// The payment hash of a preimage (BOLT 11 `p`: its SHA-256).
pub fn hash_of(preimage: &[u8; 32]) -> PaymentHash {
    PaymentHash(sha256::Hash::hash(preimage).to_byte_array())
}

/// Parses and verifies the signature, and gives the text back in its canonical form. The length is checked first, so
/// that a hostile string costs little.
fn parse(bolt11: &str) -> Result<(String, Bolt11Invoice), InvoiceError> {
    let text = bolt11.trim();
    if text.len() > MAX_INVOICE_BYTES {
        return Err(InvoiceError::Unreadable("too long"));
    }
    let plain = match text.get(..URI_SCHEME.len()) {
        Some(scheme) if scheme.eq_ignore_ascii_case(URI_SCHEME) => &text[URI_SCHEME.len()..],
        _ => text,
    };
    let invoice = plain.parse::<Bolt11Invoice>().map_err(|error| InvoiceError::Unreadable(reason(&error)))?;
    // The text itself, not the parsed invoice written again: fields this reader does not know stay as they are signed.
    Ok((plain.to_ascii_lowercase(), invoice))
}

/// What was wrong, in words that never quote the invoice.
fn reason(error: &ParseOrSemanticError) -> &'static str {
    match error {
        ParseOrSemanticError::ParseError(parse) => match parse {
            Bolt11ParseError::Bech32Error(_) => "its checksum or letters are wrong",
            Bolt11ParseError::BadPrefix | Bolt11ParseError::UnknownCurrency => "it does not begin like one",
            Bolt11ParseError::ParseAmountError(_)
            | Bolt11ParseError::UnknownSiPrefix
            | Bolt11ParseError::IntegerOverflowError => "its amount can't be read",
            Bolt11ParseError::MalformedSignature(_) => "its signature is malformed",
            _ => "a field can't be read",
        },
        ParseOrSemanticError::SemanticError(semantic) => match semantic {
            Bolt11SemanticError::InvalidSignature => "its signature is wrong",
            Bolt11SemanticError::ImpreciseAmount => "its amount is not a whole number of millisatoshis",
            Bolt11SemanticError::NoPaymentHash | Bolt11SemanticError::MultiplePaymentHashes => {
                "it does not have one payment hash"
            }
            Bolt11SemanticError::NoDescription | Bolt11SemanticError::MultipleDescriptions => {
                "it does not have one description"
            }
            Bolt11SemanticError::NoPaymentSecret | Bolt11SemanticError::MultiplePaymentSecrets => {
                "it does not have one payment secret"
            }
            Bolt11SemanticError::InvalidFeatures => "its features contradict it",
        },
    }
}

fn amount(invoice: &Bolt11Invoice) -> Result<Msat, InvoiceError> {
    let msat = invoice.amount_milli_satoshis().ok_or(InvoiceError::NoAmount)?;
    match Msat::from_msat(msat) {
        Ok(amount) if !amount.is_zero() => Ok(amount),
        _ => Err(InvoiceError::ImpossibleAmount),
    }
}

fn payment_hash(invoice: &Bolt11Invoice) -> PaymentHash {
    PaymentHash(invoice.payment_hash().to_byte_array())
}

fn check_network(invoice: &Bolt11Invoice, expected: Network) -> Result<(), InvoiceError> {
    let found = invoice.network();
    // Invoices of both test networks begin alike, and are read as the older one's.
    let alike = (expected, found) == (Network::Testnet4, Network::Testnet);
    if found == expected || alike { Ok(()) } else { Err(InvoiceError::WrongNetwork { expected, found }) }
}

fn description(invoice: &Bolt11Invoice) -> Option<String> {
    match invoice.description() {
        Bolt11InvoiceDescriptionRef::Direct(text) => Some(text.as_inner().0.clone()),
        Bolt11InvoiceDescriptionRef::Hash(_) => None,
    }
}

fn expiry(invoice: &Bolt11Invoice) -> Result<Timestamp, InvoiceError> {
    invoice
        .expires_at()
        .and_then(|since_epoch| i64::try_from(since_epoch.as_secs()).ok())
        .and_then(|second| Timestamp::from_second(second).ok())
        .ok_or(InvoiceError::ImpossibleExpiry)
}

fn check_expiry(invoice: &Bolt11Invoice, now: Timestamp) -> Result<Timestamp, InvoiceError> {
    let at = expiry(invoice)?;
    if at <= now { Err(InvoiceError::Expired { at }) } else { Ok(at) }
}

/// Whether the invoice's description is `text`, in clear or by its hash (BOLT 11 `h`).
fn says(invoice: &Bolt11Invoice, text: &str) -> bool {
    match invoice.description() {
        Bolt11InvoiceDescriptionRef::Direct(found) => found.as_inner().0.trim() == text.trim(),
        Bolt11InvoiceDescriptionRef::Hash(found) => found.0 == sha256::Hash::hash(text.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bitcoin::secp256k1::{Secp256k1, SecretKey};
    use lightning_invoice::{Currency, InvoiceBuilder, PaymentSecret};
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);
    const EXPIRY: Duration = Duration::from_secs(600);
    const PREIMAGE: [u8; 32] = [1; 32];

    /// An invoice with these parts, really signed.
    fn invoice(currency: Currency, msat: Option<u64>, description: &str) -> String {
        let key = SecretKey::from_slice(&[3; 32]).unwrap();
        let builder = InvoiceBuilder::new(currency)
            .description(description.to_owned())
            .payment_hash(sha256::Hash::hash(&PREIMAGE))
            .payment_secret(PaymentSecret([2; 32]))
            .duration_since_epoch(Duration::from_secs(1_800_000_000))
            .min_final_cltv_expiry_delta(144)
            .expiry_time(EXPIRY);
        let builder = match msat {
            Some(msat) => builder.amount_milli_satoshis(msat),
            None => builder,
        };
        let invoice = builder.build_signed(|digest| Secp256k1::signing_only().sign_ecdsa_recoverable(digest, &key));
        invoice.unwrap().to_string()
    }

    fn asked(amount: Msat) -> InvoiceRequest {
        InvoiceRequest { amount, description: "job 5a".into(), expiry: EXPIRY }
    }

    fn check(bolt11: &str, amount: Msat) -> Result<Invoice, WalletError> {
        check_ours(&asked(amount), None, bolt11, Network::Regtest, NOW)
    }

    #[test]
    fn an_invoice_for_paying_says_everything_a_payer_needs() {
        let bolt11 = invoice(Currency::Bitcoin, Some(21_001), "for a job");
        let read = read_for_paying(&bolt11, Network::Bitcoin, NOW).unwrap();
        assert_eq!(read.amount, Msat::msat(21_001));
        assert_eq!(read.payment_hash, hash_of(&PREIMAGE));
        assert_eq!(read.description.as_deref(), Some("for a job"));
        assert_eq!(read.expires_at, NOW + EXPIRY);
        assert!(!format!("{read:?}").contains(&bolt11));
    }

    #[test]
    fn capitals_and_the_uri_scheme_change_nothing() {
        let bolt11 = invoice(Currency::Bitcoin, Some(1_000), "x");
        for text in [bolt11.to_uppercase(), format!("lightning:{bolt11}"), format!(" LIGHTNING:{bolt11}\n")] {
            assert_eq!(read_for_paying(&text, Network::Bitcoin, NOW).unwrap().bolt11, bolt11);
        }
    }

    #[test]
    fn an_invoice_without_amount_is_not_paid() {
        let bolt11 = invoice(Currency::Bitcoin, None, "x");
        assert_eq!(read_for_paying(&bolt11, Network::Bitcoin, NOW), Err(InvoiceError::NoAmount));
    }

    #[test]
    fn an_expired_invoice_is_not_paid() {
        let bolt11 = invoice(Currency::Bitcoin, Some(1_000), "x");
        let at = NOW + EXPIRY;
        assert_eq!(read_for_paying(&bolt11, Network::Bitcoin, at), Err(InvoiceError::Expired { at }));
        assert!(read_for_paying(&bolt11, Network::Bitcoin, at - Duration::from_secs(1)).is_ok());
    }

    #[test]
    fn an_invoice_for_another_network_is_not_paid() {
        let bolt11 = invoice(Currency::Signet, Some(1_000), "x");
        let wrong = InvoiceError::WrongNetwork { expected: Network::Bitcoin, found: Network::Signet };
        assert_eq!(read_for_paying(&bolt11, Network::Bitcoin, NOW), Err(wrong));
    }

    #[test]
    fn an_invoice_that_must_commit_to_a_text_does_so_by_its_hash_alone() {
        let key = SecretKey::from_slice(&[3; 32]).unwrap();
        let committed = InvoiceBuilder::new(Currency::Bitcoin)
            .description_hash(sha256::Hash::hash(b"a zap request"))
            .payment_hash(sha256::Hash::hash(&PREIMAGE))
            .payment_secret(PaymentSecret([2; 32]))
            .duration_since_epoch(Duration::from_secs(1_800_000_000))
            .min_final_cltv_expiry_delta(144)
            .amount_milli_satoshis(21_000)
            .build_signed(|digest| Secp256k1::signing_only().sign_ecdsa_recoverable(digest, &key))
            .unwrap()
            .to_string();
        let read = read_committed(&committed, "a zap request", Network::Bitcoin).unwrap();
        assert_eq!(read, Settlement { amount: Msat::sat(21), payment_hash: hash_of(&PREIMAGE) });
        let other = read_committed(&committed, "another zap request", Network::Bitcoin);
        assert_eq!(other, Err(InvoiceError::OtherDescription));
        let elsewhere = read_committed(&committed, "a zap request", Network::Regtest);
        assert!(matches!(elsewhere, Err(InvoiceError::WrongNetwork { .. })));
        let in_clear = invoice(Currency::Bitcoin, Some(21_000), "a zap request");
        assert_eq!(read_committed(&in_clear, "a zap request", Network::Bitcoin), Err(InvoiceError::OtherDescription));
        let any_amount = invoice(Currency::Bitcoin, None, "x");
        assert_eq!(read_committed(&any_amount, "x", Network::Bitcoin), Err(InvoiceError::NoAmount));
    }

    #[test]
    fn a_changed_letter_is_noticed() {
        let bolt11 = invoice(Currency::Bitcoin, Some(1_000), "x");
        let changed = bolt11.replacen("10n", "20n", 1);
        assert_ne!(changed, bolt11);
        let error = read_for_paying(&changed, Network::Bitcoin, NOW).unwrap_err();
        assert_eq!(error, InvoiceError::Unreadable("its checksum or letters are wrong"));
    }

    #[test]
    fn what_peers_put_in_the_slot_of_the_invoice_is_refused_in_words() {
        for junk in [
            "",
            "100_000",
            "lno1qcp4256ypq",
            "spark1qqq",
            "me@example.com",
            "lightning:",
            "\u{1f4b8}".repeat(9).as_str(),
        ] {
            assert!(matches!(read_for_paying(junk, Network::Bitcoin, NOW), Err(InvoiceError::Unreadable(_))), "{junk}");
        }
        let long = "lnbc".repeat(MAX_INVOICE_BYTES);
        assert_eq!(read_for_paying(&long, Network::Bitcoin, NOW), Err(InvoiceError::Unreadable("too long")));
    }

    #[test]
    fn our_wallets_invoice_is_the_one_asked_for() {
        let bolt11 = invoice(Currency::Regtest, Some(21_000), "job 5a");
        let made = check(&bolt11, Msat::sat(21)).unwrap();
        assert_eq!(made.payment_hash, hash_of(&PREIMAGE));
        assert_eq!((made.amount, made.expires_at), (Msat::sat(21), NOW + EXPIRY));
    }

    #[test]
    fn our_wallets_invoice_over_another_amount_is_refused() {
        let bolt11 = invoice(Currency::Regtest, Some(20_999), "job 5a");
        let mismatch = WalletError::InvoiceAmountMismatch { asked: Msat::sat(21), invoiced: Msat::msat(20_999) };
        assert_eq!(check(&bolt11, Msat::sat(21)), Err(mismatch));
    }

    #[test]
    fn our_wallets_invoice_for_something_else_is_refused() {
        let bolt11 = invoice(Currency::Regtest, Some(21_000), "job 5b");
        assert_eq!(check(&bolt11, Msat::sat(21)), Err(InvoiceError::OtherDescription.into()));
        let bolt11 = invoice(Currency::Bitcoin, Some(21_000), "job 5a");
        assert!(matches!(check(&bolt11, Msat::sat(21)), Err(WalletError::BadInvoice(_))));
        let bolt11 = invoice(Currency::Regtest, Some(21_000), "job 5a");
        let other = PaymentHash([9; 32]);
        let checked = check_ours(&asked(Msat::sat(21)), Some(&other), &bolt11, Network::Regtest, NOW);
        assert_eq!(checked, Err(InvoiceError::OtherHash.into()));
        let late = check_ours(&asked(Msat::sat(21)), None, &bolt11, Network::Regtest, NOW + EXPIRY);
        assert_eq!(late, Err(InvoiceError::Expired { at: NOW + EXPIRY }.into()));
    }

    proptest! {
        #[test]
        fn no_text_panics_the_reader(text in "(lightning:)?(lnbc|LNBC|lnbcrt)?[0-9a-z]{0,9}[munp]?1?\\PC{0,80}") {
            let _ = read_for_paying(&text, Network::Bitcoin, NOW);
        }
    }
}
