//! Being sure about a payment: what a wallet's answers say together.

use std::future::Future;

use crate::money::Msat;
use crate::wallet::{Payment, PaymentHash, WalletError, bolt11};

/// What a wallet knows of a payment of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outgoing {
    /// Nothing.
    Unknown,
    /// It may still succeed.
    UnderWay,
    /// It failed for certain.
    Failed(String),
    /// It was made.
    Made(Payment),
}

/// [`Payer::payment`](crate::wallet::Payer::payment) of what a wallet knows.
pub(crate) fn known_payment(outgoing: Outgoing) -> Result<Option<Payment>, WalletError> {
    match outgoing {
        Outgoing::Unknown | Outgoing::UnderWay => Ok(None),
        Outgoing::Failed(why) => Err(WalletError::PaymentFailed(why)),
        Outgoing::Made(payment) => Ok(Some(payment)),
    }
}

/// What a payment came to that the wallet answered with an error. An error that leaves doubt is passed on: what was asked
/// may still be on its way. A certain one is believed only after looking, because the invoice may have been paid before.
pub(crate) async fn after_failure(
    error: WalletError,
    look: impl Future<Output = Result<Outgoing, WalletError>>,
) -> Result<Payment, WalletError> {
    if !error.is_definitive() {
        return Err(error);
    }
    match look.await {
        Ok(Outgoing::Made(payment)) => Ok(payment),
        Ok(Outgoing::UnderWay) => Err(WalletError::Internal("the payment is under way still".into())),
        Ok(Outgoing::Unknown | Outgoing::Failed(_)) => Err(error),
        // An answer about the question, not about the payment: that stays in doubt.
        Err(doubt) => Err(WalletError::Internal(format!("what became of the payment is unknown: {doubt}"))),
    }
}

/// The proof that `hash` is paid, from the preimage in hexadecimal.
pub(crate) fn proof(preimage: &str, fees: Option<Msat>, hash: &PaymentHash) -> Result<Payment, WalletError> {
    let mut bytes = [0; 32];
    match hex::decode_to_slice(preimage, &mut bytes) {
        Ok(()) if bolt11::is_preimage(&bytes, hash) => Ok(Payment { preimage: bytes, fees }),
        _ => Err(WalletError::BadAnswer("it claims a payment without its preimage".into())),
    }
}
