//! Paying credit back, at most once each, whatever happens in between.
//!
//! The order is load-bearing. An invoice is asked for first, which costs nothing. Then the credit is set aside in the books
//! together with the invoice's payment hash (`reserved`). Then it is recorded that the wallet is about to be asked (`paying`),
//! and only then is it asked. So a process that finds a refund `reserved` knows that nothing was paid and gives the credit
//! back; one that finds it `paying` knows nothing, asks the wallet what became of the hash, and never pays again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::Clock;
use crate::job::CustomerId;
use crate::job::id::PaymentHash;
use crate::ledger::{Refund, RefundState};
use crate::lnurl::{LnurlClient, LnurlError, Target, TargetError};
use crate::money::Msat;
use crate::relays::PaymentAddresses;
use crate::store::{NewRefund, NotReserved, Store, StoreError};
use crate::wallet::{Payer, Payment, Wallet, WalletError, bolt11};

/// How long a payment is waited for. What takes longer is under way, and asked about later.
const PAY_PATIENCE: Duration = Duration::from_secs(90);

/// How long after its invoice's expiry a payment may still be under way: the network lets go of a payment after 2,016 blocks,
/// about two weeks. A wallet that knows of none after that never made it.
const LONGEST_UNDER_WAY: SignedDuration = SignedDuration::from_hours(15 * 24);

/// The first and the longest pause before a customer's refund is tried again by itself.
const PAUSES: (SignedDuration, SignedDuration) = (SignedDuration::from_mins(10), SignedDuration::from_hours(12));

/// How credit is paid back, whoever asks.
#[derive(Clone)]
#[allow(missing_debug_implementations)] // Made of traits.
pub struct RefundTerms {
    /// How addresses are asked for invoices.
    pub lnurl: LnurlClient,
    /// Where customers want to be paid who did not say so in a request.
    pub addresses: Arc<dyn PaymentAddresses>,
    /// The most paid in routing fees, in percent of the amount.
    pub max_fee_percent: u32,
    /// The time.
    pub clock: Clock,
}

/// Paying back without being asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AutomaticRefunds {
    /// Credit from this amount on.
    pub above: Msat,
    /// The most in 24 hours, all customers together.
    pub max_per_day: Msat,
}

/// A refund somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefundOrder {
    /// Whose credit.
    pub customer: CustomerId,
    /// How much, in whole satoshis; all there is when none is given.
    pub amount: Option<Msat>,
    /// Where to; else where the customer's requests said, else what their profile says.
    pub to: Option<String>,
    /// For a refund nobody asked for: the most that is paid back so in 24 hours.
    pub automatic_limit: Option<Msat>,
}

/// Why a refund was not paid.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RefundError {
    /// Less than a satoshi.
    #[error("the customer has {credit} of credit, and less than a satoshi can't be paid back")]
    NothingToPay {
        /// What there is.
        credit: Msat,
    },
    /// A part of a satoshi was asked for.
    #[error("only whole satoshis can be paid back")]
    WholeSats,
    /// Nobody knows where the customer wants the money.
    #[error("no lightning address of this customer is known: neither their requests nor their profile name one")]
    NoAddress,
    /// What was given is no address.
    #[error("the address to pay to can't be used: {0}")]
    Target(#[from] TargetError),
    /// The address gave no invoice.
    #[error(transparent)]
    Lnurl(#[from] LnurlError),
    /// A wallet that only receives.
    #[error("the wallet can't pay")]
    CannotPay,
    /// The books say no.
    #[error(transparent)]
    NotReserved(#[from] NotReserved),
    /// Another process gave it back in between.
    #[error("another process took this refund back")]
    Overtaken,
    /// The payment failed for certain; the customer has the credit again.
    #[error("the wallet did not pay, and the credit is as it was: {0}")]
    Failed(WalletError),
    /// The payment may have gone through.
    #[error("it is not known whether the payment {hash} went through; the wallet is asked again, and never pays twice")]
    InDoubt {
        /// What it is known by.
        hash: PaymentHash,
    },
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Pays a customer's credit back. Whoever calls this owns the wallet meanwhile, or shares it.
///
/// # Errors
/// [`RefundError`]. After [`RefundError::InDoubt`] the credit stays set aside until [`reconcile_refunds`] learns more; after
/// any other nothing was paid and the credit is as it was.
pub async fn refund_now(
    store: &Store,
    wallet: &dyn Wallet,
    terms: &RefundTerms,
    order: RefundOrder,
) -> Result<Refund, RefundError> {
    let payer = wallet.payer().ok_or(RefundError::CannotPay)?;
    let credit = store.credit(order.customer).await?;
    let asked = order.amount.unwrap_or_else(|| whole_sats(credit));
    if asked.is_zero() {
        return Err(RefundError::NothingToPay { credit });
    }
    if asked != whole_sats(asked) {
        return Err(RefundError::WholeSats);
    }
    if asked > credit {
        return Err(NotReserved::TooLittleCredit { credit }.into());
    }
    let target = target_of(store, terms, &order).await?;
    let endpoint = terms.lnurl.resolve(&target).await?;
    // All there is may be more than the address takes at once; what is left is credit still.
    let exact = order.amount.is_some() && order.automatic_limit.is_none();
    let amount = if exact { asked } else { asked.min(whole_sats(endpoint.max_sendable)) };
    let invoice = terms.lnurl.invoice(&endpoint, amount, terms.clock.now()).await?;
    let hash = invoice.payment_hash;
    let new = NewRefund {
        payment_hash: hash,
        customer: order.customer,
        amount,
        target: target.to_string(),
        expires_at: invoice.expires_at,
        automatic_limit: order.automatic_limit,
    };
    store.reserve_refund(new, terms.clock.now()).await??;
    if !store.begin_refund(hash).await? {
        return Err(RefundError::Overtaken);
    }
    let max_fee = fee_limit(amount, terms.max_fee_percent);
    let paid = match tokio::time::timeout(PAY_PATIENCE, payer.pay(&invoice.bolt11, max_fee)).await {
        Ok(paid) => paid.map(Some),
        Err(_) => Ok(None),
    };
    match conclude(store, payer, hash, paid, terms.clock.now()).await? {
        Ended::Paid(refund) => Ok(*refund),
        Ended::Failed(problem) => Err(RefundError::Failed(problem)),
        Ended::Open => Err(RefundError::InDoubt { hash }),
    }
}

/// What became of asking a wallet to pay.
enum Ended {
    Paid(Box<Refund>),
    Failed(WalletError),
    Open,
}

/// Records what the wallet said to a payment. On doubt it is asked what became of it; while it does not say, the refund stays
/// open and the credit set aside.
async fn conclude(
    store: &Store,
    payer: &dyn Payer,
    hash: PaymentHash,
    said: Result<Option<Payment>, WalletError>,
    now: Timestamp,
) -> Result<Ended, RefundError> {
    let known = match said {
        Ok(Some(payment)) => Ok(Some(payment)),
        Err(problem) if problem.is_definitive() => Err(problem),
        Ok(None) | Err(_) => match payer.payment(&hash).await {
            Ok(payment) => Ok(payment),
            Err(problem @ WalletError::PaymentFailed(_)) => Err(problem),
            Err(problem) => {
                debug!(%problem, "The wallet does not say what became of a refund");
                Ok(None)
            }
        },
    };
    Ok(match known {
        Ok(Some(payment)) if !bolt11::is_preimage(&payment.preimage, &hash) => {
            warn!(payment_hash = %hash, "The wallet calls a refund paid and proves it with something else");
            Ended::Open
        }
        Ok(Some(payment)) => match store.refund_paid(hash, payment.fees.unwrap_or(Msat::ZERO), now).await? {
            Some(refund) => {
                info!(amount_msat = refund.amount.as_msat(), "Paid {} of credit back", refund.amount);
                Ended::Paid(Box::new(refund))
            }
            // Another process recorded it first.
            None => store.refunds().await?.into_iter().find(|refund| refund.payment_hash == hash).map_or(
                Ended::Open,
                |refund| match refund.state {
                    RefundState::Paid => Ended::Paid(Box::new(refund)),
                    _ => Ended::Open,
                },
            ),
        },
        Err(problem) => {
            store.refund_failed(hash, RefundState::Paying, now).await?;
            Ended::Failed(problem)
        }
        Ok(None) => Ended::Open,
    })
}

/// Gives back what a process that died had set aside and never asked the wallet to pay. For a process that begins to serve;
/// should another be in the middle of such a refund after all, it finds it taken back and does not pay.
///
/// # Errors
/// [`StoreError`].
pub async fn return_unasked_refunds(store: &Store, now: Timestamp) -> Result<usize, StoreError> {
    let mut returned = 0;
    for refund in store.open_refunds().await? {
        if store.refund_failed(refund.payment_hash, RefundState::Reserved, now).await?.is_some() {
            info!(amount_msat = refund.amount.as_msat(), "Gave back credit that was set aside and never paid");
            returned += 1;
        }
    }
    Ok(returned)
}

/// Asks the wallet what became of refunds whose end is not known. Pays nothing. Returns how many stay open.
///
/// # Errors
/// [`RefundError::Store`].
pub async fn reconcile_refunds(store: &Store, wallet: &dyn Wallet, now: Timestamp) -> Result<usize, RefundError> {
    let mut open = 0;
    for refund in store.open_refunds().await? {
        let hash = refund.payment_hash;
        let Some(payer) = wallet.payer().filter(|_| refund.state == RefundState::Paying) else {
            open += 1;
            continue;
        };
        match conclude(store, payer, hash, Ok(None), now).await? {
            Ended::Paid(_) => {}
            Ended::Failed(problem) => info!(%problem, "A refund was not paid; the customer has the credit again"),
            Ended::Open
                if now.duration_since(refund.expires_at) > LONGEST_UNDER_WAY
                    && wallet_has_none(wallet, payer, &hash, refund.at).await =>
            {
                store.refund_failed(hash, RefundState::Paying, now).await?;
                warn!(
                    "A refund was never paid, as the wallet still says after {LONGEST_UNDER_WAY:#}; it is credit again"
                );
            }
            Ended::Open => open += 1,
        }
    }
    Ok(open)
}

/// The least that may be paid in routing fees, as soon as anything may: below it hardly any path is found.
const LEAST_FEE_LIMIT: Msat = Msat::sat(5);

/// The most that may go into routing fees on top of a refund: so many percent of it, at least [`LEAST_FEE_LIMIT`]; with 0
/// percent nothing at all.
fn fee_limit(amount: Msat, percent: u32) -> Msat {
    if percent == 0 { Msat::ZERO } else { amount.per(u64::from(percent), 100).max(LEAST_FEE_LIMIT) }
}

/// Whether the wallet says, now, that it knows of no payment. Only one that tells what it paid is believed: the answer of
/// any other may be about something else, and the refund waits for the operator.
async fn wallet_has_none(wallet: &dyn Wallet, payer: &dyn Payer, hash: &PaymentHash, since: Timestamp) -> bool {
    let Some(history) = wallet.history() else { return false };
    let unlisted = match history.sent(since).await {
        Ok(sent) => sent.iter().all(|payment| payment.payment_hash != *hash),
        Err(_) => false,
    };
    unlisted && matches!(payer.payment(hash).await, Ok(None) | Err(WalletError::NotFound))
}

/// Looks after refunds until `shutdown`: at each interval, from the first moment on, what is open and, if the operator
/// wants, what has grown large enough to be paid back by itself.
pub async fn keep_refunding(
    store: Store,
    wallet: Arc<dyn Wallet>,
    terms: RefundTerms,
    automatic: Option<AutomaticRefunds>,
    every: Duration,
    shutdown: CancellationToken,
) {
    let mut patience = Patience::default();
    let mut tick = tokio::time::interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = tick.tick() => {}
        }
        // Not cut off by a shutdown in the middle of a payment: the grace period of tasks does that, and then the next start
        // finds what is open.
        if let Err(problem) = reconcile_refunds(&store, wallet.as_ref(), terms.clock.now()).await {
            warn!(%problem, "Refunds could not be looked at; they will be again");
            continue;
        }
        if let Some(automatic) = automatic
            && let Err(problem) =
                pay_back_what_is_due(&store, wallet.as_ref(), &terms, automatic, &mut patience, &shutdown).await
        {
            warn!(%problem, "Automatic refunds could not be looked at; they will be again");
        }
    }
}

async fn pay_back_what_is_due(
    store: &Store,
    wallet: &dyn Wallet,
    terms: &RefundTerms,
    automatic: AutomaticRefunds,
    patience: &mut Patience,
    shutdown: &CancellationToken,
) -> Result<(), StoreError> {
    let due = store.creditors(automatic.above.max(Msat::sat(1))).await?;
    patience.keep_only(&due);
    for (customer, credit) in due {
        let now = terms.clock.now();
        if shutdown.is_cancelled() {
            return Ok(());
        }
        if !patience.is_up(customer, now) {
            continue;
        }
        let order = |amount: Msat| RefundOrder {
            customer,
            amount: Some(whole_sats(amount)),
            to: None,
            automatic_limit: Some(automatic.max_per_day),
        };
        let mut paid = refund_now(store, wallet, terms, order(credit.min(automatic.max_per_day))).await;
        // What is left of the day is still worth it.
        if let Err(RefundError::NotReserved(NotReserved::DayIsFull { left, .. })) = paid
            && left >= automatic.above.max(Msat::sat(1))
        {
            paid = refund_now(store, wallet, terms, order(left)).await;
        }
        match paid {
            Ok(_) => patience.forget(customer),
            Err(RefundError::Store(problem)) => return Err(problem),
            Err(problem) => {
                patience.wait(customer, now);
                info!(%customer, %problem, "Credit could not be paid back by itself; it is tried again later");
            }
        }
    }
    Ok(())
}

/// When a customer's refund is worth another try.
#[derive(Debug, Default)]
struct Patience(HashMap<CustomerId, (Timestamp, SignedDuration)>);

impl Patience {
    fn is_up(&self, customer: CustomerId, now: Timestamp) -> bool {
        self.0.get(&customer).is_none_or(|(at, _)| *at <= now)
    }

    fn wait(&mut self, customer: CustomerId, now: Timestamp) {
        let pause = self.0.get(&customer).map_or(PAUSES.0, |(_, pause)| pause.saturating_mul(2).min(PAUSES.1));
        self.0.insert(customer, (now.checked_add(pause).unwrap_or(Timestamp::MAX), pause));
    }

    fn forget(&mut self, customer: CustomerId) {
        self.0.remove(&customer);
    }

    fn keep_only(&mut self, due: &[(CustomerId, Msat)]) {
        self.0.retain(|customer, _| due.iter().any(|(other, _)| other == customer));
    }
}

/// Where it goes. An address that was given is used or refused; a remembered one that is none gives way to the profile's.
async fn target_of(store: &Store, terms: &RefundTerms, order: &RefundOrder) -> Result<Target, RefundError> {
    if let Some(to) = &order.to {
        return Ok(to.parse()?);
    }
    if let Some(remembered) = store.refund_target(order.customer).await?
        && let Ok(target) = remembered.parse()
    {
        return Ok(target);
    }
    let published = terms.addresses.of(order.customer).await.ok_or(RefundError::NoAddress)?;
    Ok(published.parse()?)
}

/// The amount without parts of a satoshi: many wallets and addresses know none.
fn whole_sats(amount: Msat) -> Msat {
    Msat::from_sat(amount.as_msat() / 1_000).unwrap_or(amount)
}
