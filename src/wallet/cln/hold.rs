//! Hold invoices with the plugin `hold`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::Network;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use jiff::Timestamp;
use lightning_invoice::{Currency, InvoiceBuilder, PaymentSecret};
use rand::RngCore;

use super::{ClnWallet, Inner, wire};
use crate::wallet::http::{News, hash_or_other};
use crate::wallet::{
    HoldInvoices, Invoice, InvoiceRequest, InvoiceState, InvoiceUpdate, PaymentHash, WalletError, bolt11, hold_window,
};

/// Hold invoices that are looked at as often as can be. The more there are, the more rarely each: every look costs the node
/// several calls.
const LOOKED_AT_OFTEN: usize = 8;

/// What the plugin and the node must offer.
pub(super) const METHODS: [&str; 5] =
    ["signinvoice", "injectholdinvoice", "listholdinvoices", "settleholdinvoice", "cancelholdinvoice"];

#[async_trait]
impl HoldInvoices for ClnWallet {
    fn longest_hold(&self) -> Duration {
        hold_window::longest(hold_window::MOST_BLOCKS)
    }

    async fn create_hold_invoice(
        &self,
        request: &InvoiceRequest,
        payment_hash: &PaymentHash,
        hold_for: Duration,
    ) -> Result<Invoice, WalletError> {
        let blocks = hold_window::blocks(hold_for);
        if blocks > hold_window::MOST_BLOCKS {
            return Err(WalletError::Refused("no payment can be held that long".into()));
        }
        let inner = &self.inner;
        let now = Timestamp::now();
        let known = match inner.hold_invoice(payment_hash).await {
            Ok(known) if known.standing(now)? == InvoiceState::Open => Some(known.invoice),
            Ok(_) => return Err(WalletError::Refused("the payment hash is in use".into())),
            Err(WalletError::NotFound) => None,
            Err(error) => return Err(error),
        };
        let made = match known {
            Some(known) => known,
            None => {
                let unsigned = write(request, payment_hash, blocks, inner.network, now)?;
                let signed: wire::Made = inner.call("signinvoice", &wire::Sign { invstring: &unsigned }).await?;
                // Checked before the plugin waits for money on it.
                bolt11::check_ours(request, Some(payment_hash), &signed.bolt11, inner.network, now)?;
                let body = wire::Inject { invoice: &signed.bolt11 };
                match inner.call::<serde_json::Value>("injectholdinvoice", &body).await {
                    Ok(_) => signed.bolt11,
                    // Somebody was quicker, or the answer is not the whole truth: what is there counts.
                    Err(error) => match inner.hold_invoice(payment_hash).await {
                        Ok(known) if known.standing(now)? == InvoiceState::Open => known.invoice,
                        _ => return Err(error),
                    },
                }
            }
        };
        let invoice = bolt11::check_ours(request, Some(payment_hash), &made, inner.network, now)?;
        inner.held.add(*payment_hash);
        Ok(invoice)
    }

    async fn settle(&self, preimage: &[u8; 32]) -> Result<(), WalletError> {
        let body = wire::Settle { preimage: hex::encode(preimage) };
        let done = self.inner.call::<serde_json::Value>("settleholdinvoice", &body).await;
        let settled = |state| matches!(state, InvoiceState::Settled { .. });
        self.inner.unless_already(done, &bolt11::hash_of(preimage), settled).await
    }

    async fn cancel(&self, payment_hash: &PaymentHash) -> Result<(), WalletError> {
        let body = wire::ByHash { payment_hash: *payment_hash };
        let done = self.inner.call::<serde_json::Value>("cancelholdinvoice", &body).await;
        self.inner.unless_already(done, payment_hash, |state| state == InvoiceState::Cancelled).await
    }
}

impl Inner {
    pub(super) async fn hold_invoice(&self, hash: &PaymentHash) -> Result<wire::HoldInvoice, WalletError> {
        let found: wire::HoldInvoices = self.call("listholdinvoices", &wire::ByHash { payment_hash: *hash }).await?;
        let invoice = found.holdinvoices.into_iter().next().ok_or(WalletError::NotFound)?;
        hash_or_other(&invoice.payment_hash, hash)?;
        Ok(invoice)
    }

    /// A settle or cancel that was answered with an error may have been done before: the state decides.
    async fn unless_already(
        &self,
        done: Result<serde_json::Value, WalletError>,
        hash: &PaymentHash,
        over: impl Fn(InvoiceState) -> bool,
    ) -> Result<(), WalletError> {
        let error = match done {
            Ok(_) => return Ok(()),
            Err(error @ WalletError::Unreachable(_)) => return Err(error),
            Err(error) => error,
        };
        match self.standing(hash).await {
            Ok(state) if over(state) => Ok(()),
            _ => Err(error),
        }
    }
}

/// What becomes of one hold invoice, looked at again and again: the plugin tells of it only over another interface.
pub(super) fn changes(inner: Arc<Inner>, hash: PaymentHash) -> BoxStream<'static, News> {
    stream::unfold(Some((inner, InvoiceState::Open)), move |open| async move {
        let (inner, before) = open?;
        loop {
            let state = match inner.standing(&hash).await {
                Ok(state) => state,
                Err(WalletError::NotFound) => return None,
                Err(error) => return Some((Err(error), None)),
            };
            if state != before {
                let over = !matches!(state, InvoiceState::Open | InvoiceState::Held { .. });
                let next = (!over).then_some((inner, state));
                return Some((Ok(InvoiceUpdate { payment_hash: hash, state }), next));
            }
            let turns = inner.held.len().div_ceil(LOOKED_AT_OFTEN).max(1);
            tokio::time::sleep(inner.caller.options().poll * u32::try_from(turns).unwrap_or(u32::MAX)).await;
        }
    })
    .boxed()
}

/// The invoice as the node shall sign it: the signature under this one is nobody's.
fn write(
    request: &InvoiceRequest,
    hash: &PaymentHash,
    blocks: u32,
    network: Network,
    now: Timestamp,
) -> Result<String, WalletError> {
    let refused = |error: lightning_invoice::CreationError| WalletError::Refused(error.to_string());
    let mut rng = rand::thread_rng();
    let nobody = SecretKey::new(&mut rng);
    let mut secret = [0; 32];
    rng.fill_bytes(&mut secret);
    let since_epoch = u64::try_from(now.as_second()).map(Duration::from_secs).unwrap_or_default();
    InvoiceBuilder::new(Currency::from(network))
        .description(request.description.clone())
        .amount_milli_satoshis(request.amount.as_msat())
        .payment_hash(sha256::Hash::from_byte_array(*hash.as_bytes()))
        .payment_secret(PaymentSecret(secret))
        .duration_since_epoch(since_epoch)
        .min_final_cltv_expiry_delta(blocks.into())
        .expiry_time(request.expiry)
        .basic_mpp()
        .build_signed(|digest| Secp256k1::signing_only().sign_ecdsa_recoverable(digest, &nobody))
        .map(|invoice| invoice.to_string())
        .map_err(refused)
}
