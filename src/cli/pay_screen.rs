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
    // Upper case packs a bech32 text into a smaller code.
    if let Ok(code) = QrCode::with_error_correction_level(offer.bolt11.to_ascii_uppercase(), EcLevel::L) {
        let picture = code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build();
        let _ = writeln!(text, "{picture}\n");
    }
    let _ = writeln!(text, "lightning:{}\n\nWaiting for the payment… (Ctrl-C to give up)", offer.bolt11);
    text
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
