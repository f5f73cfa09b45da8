//! An invoice for people to pay: the amount, a QR code, and the text to copy.

use std::fmt::Write as _;

use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

use crate::requester::Offer;

/// Shows an offer's invoice on standard error.
pub fn show(offer: &Offer) {
    eprint!("{}", text(offer));
}

fn text(offer: &Offer) -> String {
    let mut text = format!(
        "\nPay {} with any Lightning wallet before {} UTC:\n\n",
        offer.amount,
        super::table::time(offer.expires_at)
    );
    text.push_str(&picture(&offer.bolt11));
    let _ = writeln!(text, "lightning:{}\n\nWaiting for the payment… (Ctrl-C calls it off)", offer.bolt11);
    text
}

/// Shows an invoice as a QR code on standard error.
pub fn qr(bolt11: &str) {
    eprint!("{}", picture(bolt11));
}

fn picture(bolt11: &str) -> String {
    // Upper case packs a bech32 text into a smaller code.
    match QrCode::with_error_correction_level(bolt11.to_ascii_uppercase(), EcLevel::L) {
        Ok(code) => {
            let picture = code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build();
            format!("{picture}\n\n")
        }
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::id::{PaymentHash, ProviderId};
    use crate::money::Msat;

    #[test]
    fn the_invoice_can_be_copied_and_scanned() {
        let offer = Offer {
            provider: ProviderId([1; 32]),
            amount: Msat::sat(21),
            bolt11: "lnbcrt210n1qqqq".into(),
            payment_hash: PaymentHash([2; 32]),
            expires_at: jiff::Timestamp::UNIX_EPOCH,
            terms: None,
            text: None,
        };
        let text = text(&offer);
        assert!(text.contains("lightning:lnbcrt210n1qqqq") && text.contains("21 sat") && text.contains('█'));
    }
}
