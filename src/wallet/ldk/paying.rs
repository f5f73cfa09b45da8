//! Paying from the node: at most once for a payment hash, whatever happens in between.
//!
//! A payment is written down before the node is asked, the node refuses a second one to the same hash while the first is
//! under way or done, and only the node's word that it failed lets another attempt begin.

use std::sync::PoisonError;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use ldk_node::lightning::routing::router::RouteParametersConfig;
use ldk_node::payment::{PaymentDetails, PaymentDirection, PaymentKind, PaymentStatus};
use ldk_node::{LightningBalance, NodeError};
use lightning_invoice::Bolt11Invoice;

use super::book::PaymentRow;
use super::{LdkWallet, Payer, Payment, PaymentHash, Shared, WalletError, bolt11, msat, payment_id, translated};
use crate::money::Msat;

/// How long the proof of a payment may lie before its last traces are gone from the channel, so that the balance asked for next is
/// the one after the payment.
const CHANNEL_PATIENCE: Duration = Duration::from_secs(2);

/// How often the channel is looked at meanwhile.
const CHANNEL_POLL: Duration = Duration::from_millis(10);

/// What is known of a payment to a hash.
#[derive(Clone, PartialEq, Eq)]
enum Outcome {
    /// It was made.
    Paid(Payment),
    /// It failed, for certain.
    Failed,
    /// It is under way, or nobody knows.
    Pending,
    /// There is none.
    None,
}

fn failed() -> WalletError {
    WalletError::PaymentFailed("no way to the payee within the fee limit, or the payee did not take it".into())
}

fn proof(details: PaymentDetails) -> Option<Payment> {
    match details.kind {
        PaymentKind::Bolt11 { preimage: Some(preimage), .. } => {
            Some(Payment { preimage: preimage.0, fees: details.fee_paid_msat.map(msat) })
        }
        _ => None,
    }
}

impl Shared {
    fn outcome(&self, hash: &PaymentHash) -> Result<Outcome, WalletError> {
        let row = self.book.payment(hash)?;
        if let Some(PaymentRow::Paid(payment)) = row {
            return Ok(Outcome::Paid(payment));
        }
        let node =
            self.node.payment(&payment_id(hash)).filter(|payment| payment.direction == PaymentDirection::Outbound);
        let status = node.as_ref().map(|payment| payment.status);
        if status == Some(PaymentStatus::Succeeded)
            && let Some(payment) = node.and_then(proof)
        {
            // The event is on its way; what is said to be paid stands in the history as well.
            self.write_down_paid(hash, &payment)?;
            return Ok(Outcome::Paid(payment));
        }
        Ok(match (row, status) {
            (Some(PaymentRow::Failed), _) | (None, Some(PaymentStatus::Failed)) => Outcome::Failed,
            (Some(_), _) | (None, Some(_)) => Outcome::Pending,
            (None, None) => Outcome::None,
        })
    }

    /// Whether a payment of ours to that hash stands in a channel.
    pub(super) fn has_on_the_way(&self, hash: &PaymentHash) -> bool {
        self.node.list_balances().lightning_balances.iter().any(|balance| match balance {
            LightningBalance::MaybeTimeoutClaimableHTLC { payment_hash, outbound_payment: true, .. } => {
                payment_hash.0 == *hash.as_bytes()
            }
            _ => false,
        })
    }

    /// Begins to pay, unless that was done before.
    fn start_paying(&self, text: &str, hash: &PaymentHash, max_fee: Msat) -> Result<(), WalletError> {
        let _starting = self.paying.lock().unwrap_or_else(PoisonError::into_inner);
        match self.outcome(hash)? {
            Outcome::Paid(_) | Outcome::Pending => return Ok(()),
            Outcome::Failed | Outcome::None => {}
        }
        let now = Timestamp::now();
        let read = bolt11::read_for_paying(text, self.network, now)?;
        let unreadable = |_| WalletError::BadInvoice("it is no valid BOLT 11 invoice".into());
        let invoice: Bolt11Invoice = read.bolt11.parse().map_err(unreadable)?;
        if invoice.get_payee_pub_key() == self.key.node_id() || self.book.entry(hash)?.is_some() {
            return Err(WalletError::Refused("a wallet does not pay itself".into()));
        }
        if read.amount > self.can_send() {
            return Err(WalletError::InsufficientFunds);
        }
        self.book.start_payment(hash, read.amount, now)?;
        let limit = RouteParametersConfig {
            max_total_routing_fee_msat: Some(max_fee.as_msat()),
            ..RouteParametersConfig::default()
        };
        match self.node.bolt11_payment().send(&invoice, Some(limit)) {
            // Known to LDK although not to its records: after a crash. Whoever asked waits for its end.
            Ok(_) | Err(NodeError::DuplicatePayment) => Ok(()),
            Err(error @ (NodeError::PaymentSendingFailed | NodeError::InvalidInvoice | NodeError::NotRunning)) => {
                // Nothing was sent.
                self.book.payment_failed(hash, now)?;
                Err(translated(error))
            }
            Err(error) => Err(WalletError::Internal(format!("whether it was paid is unknown: {}", translated(error)))),
        }
    }

    /// What is ours in channels that are ready.
    fn can_send(&self) -> Msat {
        let ready = self.node.list_channels().into_iter().filter(|channel| channel.is_channel_ready);
        ready.map(|channel| msat(channel.outbound_capacity_msat)).sum()
    }
}

impl LdkWallet {
    /// Waits until a payment that was made is gone from the channel. It is made all the same when that takes longer.
    async fn until_gone(&self, hash: PaymentHash) {
        let gone = async {
            while let Ok(true) = self.run(move |shared| Ok(shared.has_on_the_way(&hash))).await {
                tokio::time::sleep(CHANNEL_POLL).await;
            }
        };
        let _ = tokio::time::timeout(CHANNEL_PATIENCE, gone).await;
    }
}

#[async_trait]
impl Payer for LdkWallet {
    /// Waits for as long as [`LdkTimes::payment`](super::LdkTimes) for the end; a payment that is held by its receiver takes longer,
    /// is reported as in doubt, and [`Payer::payment`] knows what became of it.
    async fn pay(&self, bolt11: &str, max_fee: Msat) -> Result<Payment, WalletError> {
        let hash = bolt11::payment_hash_of(bolt11)?;
        let text = bolt11.to_owned();
        self.run(move |shared| shared.start_paying(&text, &hash, max_fee)).await?;
        let ended = move |shared: &Shared| {
            Ok(match shared.outcome(&hash)? {
                Outcome::Paid(payment) => Some(Ok(payment)),
                Outcome::Failed => Some(Err(failed())),
                Outcome::Pending | Outcome::None => None,
            })
        };
        let doubt = || WalletError::Unreachable("the payment is under way still: ask what became of it".into());
        let payment = self.wait_for(self.shared.times.payment, ended).await?.unwrap_or_else(|| Err(doubt()))?;
        self.until_gone(hash).await;
        Ok(payment)
    }

    async fn payment(&self, payment_hash: &PaymentHash) -> Result<Option<Payment>, WalletError> {
        let hash = *payment_hash;
        match self.run(move |shared| shared.outcome(&hash)).await? {
            Outcome::Paid(payment) => Ok(Some(payment)),
            Outcome::Failed => Err(failed()),
            Outcome::Pending | Outcome::None => Ok(None),
        }
    }
}
