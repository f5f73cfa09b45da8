//! A wallet without money: deterministic, offline, and hard to tell from a real one.
//!
//! Its invoices are real BOLT 11 (regtest), signed with the wallet's own key. They are paid on command
//! ([`FakeWallet::settle`] and its like) or by another wallet of the same [`FakeNetwork`]. Tests make things go wrong
//! through [`Faults`].

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::Network;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use lightning_invoice::{Currency, InvoiceBuilder, PaymentSecret};
use tokio::sync::broadcast;

use super::{
    Balance, Capabilities, History, HoldInvoices, Invoice, InvoiceRequest, InvoiceState, InvoiceUpdate, Payer, Payment,
    PaymentHash, Received, Sent, Wallet, WalletError, bolt11, hold_window,
};
use crate::money::Msat;

mod faults;
mod journal;
mod ledger;
mod network;

#[cfg(test)]
mod tests;

use ledger::{Change, Entry, Preimage};

pub use faults::Faults;
pub use network::{Clock, FakeNetwork};

/// The network fake invoices are for: nobody can mistake them for money.
pub const NETWORK: Network = Network::Regtest;

/// Blocks the last hop is given (BOLT 11 `c`), as long as hold invoices usually ask for.
const MIN_FINAL_CLTV_EXPIRY_DELTA: u64 = 144;

/// How often a payer of a hold invoice looks whether another process settled it. Within a process it is told at once.
const OTHER_PROCESS_POLL: Duration = Duration::from_millis(100);

/// What a fake wallet is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FakeWalletOptions {
    /// Offers hold invoices.
    pub hold_invoices: bool,
    /// Pays.
    pub pay: bool,
    /// Makes no invoices over parts of a satoshi.
    pub whole_sats: bool,
    /// What a new wallet has. One that the network already knows keeps what it has.
    pub opening_balance: Msat,
    /// What each payment costs on top.
    pub routing_fee: Msat,
}

impl Default for FakeWalletOptions {
    fn default() -> Self {
        Self { hold_invoices: true, pay: true, whole_sats: false, opening_balance: Msat::ZERO, routing_fee: Msat::ZERO }
    }
}

/// How an invoice says what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    Text,
    Hash,
}

/// A wallet on a [`FakeNetwork`]. Cloning shares it, its faults included.
#[derive(Clone)]
pub struct FakeWallet {
    network: FakeNetwork,
    key: SecretKey,
    id: String,
    options: FakeWalletOptions,
    faults: Arc<Faults>,
}

impl std::fmt::Debug for FakeWallet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeWallet").field("id", &self.id).field("options", &self.options).finish_non_exhaustive()
    }
}

impl FakeWallet {
    /// Opens the wallet with this key, new or known to the network.
    ///
    /// # Errors
    /// [`WalletError::Refused`] when the bytes are no key, [`WalletError::Internal`] when the network's file fails.
    pub fn open(network: &FakeNetwork, key: &[u8; 32], options: FakeWalletOptions) -> Result<Self, WalletError> {
        let key = SecretKey::from_slice(key).map_err(|_| WalletError::Refused("not a secp256k1 key".into()))?;
        let id = PublicKey::from_secret_key(&Secp256k1::signing_only(), &key).to_string();
        network.transact(|ledger| {
            if ledger.account(&id).is_some() {
                return Ok((None, ()));
            }
            let account = ledger::Account { id: id.clone(), balance: options.opening_balance, made: 0 };
            Ok((Some(Change { accounts: vec![account], ..Change::default() }), ()))
        })?;
        Ok(Self { network: network.clone(), key, id, options, faults: Arc::default() })
    }

    /// What goes wrong with it.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// What it has.
    ///
    /// # Errors
    /// When the network's file fails.
    pub fn funds(&self) -> Result<Msat, WalletError> {
        self.network.read(|ledger| ledger.open_account(&self.id).balance)
    }

    /// Somebody from outside pays this invoice of ours in full, in time or late: it is settled, or held when it is a hold
    /// invoice. Paying twice is refused.
    ///
    /// # Errors
    /// [`WalletError::NotFound`], or [`WalletError::Refused`] when it is paid or cancelled already.
    pub fn settle(&self, hash: &PaymentHash) -> Result<(), WalletError> {
        let amount = self.network.read(|ledger| ledger.entry_of(&self.id, hash).map(|entry| entry.amount))??;
        self.settle_amount(hash, amount)
    }

    /// Like [`FakeWallet::settle`], with another amount than asked.
    ///
    /// # Errors
    /// As for [`FakeWallet::settle`].
    pub fn settle_amount(&self, hash: &PaymentHash, amount: Msat) -> Result<(), WalletError> {
        let now = self.network.now();
        self.network.transact(|ledger| {
            let change = ledger.receive(ledger.entry_of(&self.id, hash)?, amount, None, now)?;
            Ok((Some(change), ()))
        })
    }

    /// Somebody from outside commits the money to this hold invoice of ours.
    ///
    /// # Errors
    /// [`WalletError::Refused`] when it is no hold invoice; else as for [`FakeWallet::settle`].
    pub fn hold(&self, hash: &PaymentHash) -> Result<(), WalletError> {
        if !self.network.read(|ledger| ledger.entry_of(&self.id, hash).map(|entry| entry.hold))?? {
            return Err(WalletError::Refused("it is no hold invoice".into()));
        }
        self.settle(hash)
    }

    /// The time to pay this invoice of ours is over now; money held for it goes back.
    ///
    /// # Errors
    /// [`WalletError::NotFound`], or [`WalletError::Refused`] when it is settled.
    pub fn expire(&self, hash: &PaymentHash) -> Result<(), WalletError> {
        self.network.transact(|ledger| {
            let entry = ledger.entry_of(&self.id, hash)?;
            match entry.state {
                InvoiceState::Open => {
                    let expired = Entry { state: InvoiceState::Expired, ..entry.clone() };
                    Ok((Some(Change { entries: vec![expired], ..Change::default() }), ()))
                }
                InvoiceState::Expired => Ok((None, ())),
                InvoiceState::Held { .. } | InvoiceState::Settled { .. } | InvoiceState::Cancelled => {
                    Ok((ledger.give_back(entry)?, ()))
                }
            }
        })
    }

    /// Tells listeners once more where this invoice of ours stands.
    ///
    /// # Errors
    /// [`WalletError::NotFound`].
    pub fn repeat_news(&self, hash: &PaymentHash) -> Result<(), WalletError> {
        let update = self.network.read(|ledger| ledger.entry_of(&self.id, hash).map(Entry::update))??;
        self.network.announce(&self.id, update);
        Ok(())
    }

    /// An invoice that commits to a text by its hash (BOLT 11 `h`), as LUD-06 and NIP-57 ask.
    ///
    /// # Errors
    /// As [`Wallet::create_invoice`].
    pub fn commit_to(&self, request: &InvoiceRequest) -> Result<Invoice, WalletError> {
        self.guarded(|| self.make(request, None, Says::Hash))
    }

    /// The network it is on.
    pub fn network(&self) -> &FakeNetwork {
        &self.network
    }

    /// What became of an invoice of ours, with everything a wallet service tells its client.
    pub(crate) fn record(&self, hash: &PaymentHash) -> Result<Record, WalletError> {
        let now = self.network.now();
        self.network.read(|ledger| {
            let entry = ledger.entry_of(&self.id, hash)?;
            Ok(Record {
                bolt11: entry.bolt11.clone(),
                description: entry.description.clone(),
                amount: entry.amount,
                expires_at: entry.expires_at,
                state: entry.state_at(now),
            })
        })?
    }

    fn guarded<T>(&self, act: impl FnOnce() -> Result<T, WalletError>) -> Result<T, WalletError> {
        self.faults.before()?;
        let answer = act()?;
        self.faults.after()?;
        Ok(answer)
    }

    fn make(&self, request: &InvoiceRequest, hold: Option<&PaymentHash>, says: Says) -> Result<Invoice, WalletError> {
        if request.amount.is_zero() {
            return Err(WalletError::Refused("an invoice needs an amount".into()));
        }
        if self.options.whole_sats && request.amount != request.amount.round_up_to_sat() {
            return Err(WalletError::Refused("this wallet knows whole satoshis only".into()));
        }
        let amount = self.faults.amount(request.amount);
        let now = self.network.now();
        let bolt11 = self.network.transact(|ledger| {
            if let Some(known) = hold.and_then(|hash| ledger.entry(hash)) {
                return match known.owner == self.id && known.amount == amount && known.state == InvoiceState::Open {
                    true => Ok((None, known.bolt11.clone())),
                    false => Err(WalletError::Refused("the payment hash is in use".into())),
                };
            }
            let mut account = ledger.open_account(&self.id);
            let (hash, preimage) = match hold {
                Some(hash) => (*hash, None),
                None => {
                    let preimage = self.derive(b"preimage", &account.made.to_be_bytes());
                    (bolt11::hash_of(&preimage), Some(Preimage(preimage)))
                }
            };
            account.made += 1;
            let bolt11 = self.sign(request, amount, &hash, says, now)?;
            let read = bolt11::read_for_paying(&bolt11, NETWORK, now)?;
            let entry = Entry {
                hash,
                owner: self.id.clone(),
                bolt11: bolt11.clone(),
                description: request.description.clone(),
                amount,
                expires_at: read.expires_at,
                hold: hold.is_some(),
                preimage,
                state: InvoiceState::Open,
                payer: None,
            };
            Ok((Some(Change { accounts: vec![account], entries: vec![entry] }), bolt11))
        })?;
        // As every adapter does with what its wallet returned, so that a lying fake is caught where a real one would be.
        bolt11::check_ours(request, hold, &bolt11, NETWORK, now)
    }

    fn sign(
        &self,
        request: &InvoiceRequest,
        amount: Msat,
        hash: &PaymentHash,
        says: Says,
        now: jiff::Timestamp,
    ) -> Result<String, WalletError> {
        let refused = |error: lightning_invoice::CreationError| WalletError::Refused(error.to_string());
        let since_epoch = u64::try_from(now.as_second()).map(Duration::from_secs).unwrap_or_default();
        let secret = self.derive(b"payment secret", hash.as_bytes());
        let builder = InvoiceBuilder::new(Currency::Regtest);
        let builder = match says {
            Says::Text => builder.description(request.description.clone()),
            Says::Hash => builder.description_hash(sha256::Hash::hash(request.description.as_bytes())),
        };
        builder
            .amount_milli_satoshis(amount.as_msat())
            .payment_hash(sha256::Hash::from_byte_array(*hash.as_bytes()))
            .payment_secret(PaymentSecret(secret))
            .duration_since_epoch(since_epoch)
            .min_final_cltv_expiry_delta(MIN_FINAL_CLTV_EXPIRY_DELTA)
            .expiry_time(request.expiry)
            .build_signed(|digest| Secp256k1::signing_only().sign_ecdsa_recoverable(digest, &self.key))
            .map(|invoice| invoice.to_string())
            .map_err(refused)
    }

    /// 32 bytes that follow from the wallet's key, a purpose and a label: the same in every process.
    fn derive(&self, purpose: &[u8], label: &[u8]) -> [u8; 32] {
        sha256::Hash::hash(&[b"coinop fake wallet ", purpose, &self.key.secret_bytes(), label].concat()).to_byte_array()
    }

    /// The state of our payment to `hash`: `None` when there is none, `Some(None)` when it is under way.
    pub(crate) fn payment_made(&self, hash: &PaymentHash) -> Result<Option<Option<Payment>>, WalletError> {
        self.network.read(|ledger| {
            let Some(entry) = ledger.entry(hash) else { return Ok(None) };
            match &entry.payer {
                Some((payer, fee)) if *payer == self.id => match entry.state {
                    InvoiceState::Settled { .. } => {
                        let preimage = entry.preimage.expect("settling needs the preimage").0;
                        Ok(Some(Some(Payment { preimage, fees: Some(*fee) })))
                    }
                    InvoiceState::Cancelled => Err(WalletError::PaymentFailed("the payee gave the money back".into())),
                    InvoiceState::Open | InvoiceState::Held { .. } | InvoiceState::Expired => Ok(Some(None)),
                },
                _ => Ok(None),
            }
        })?
    }

    fn start_payment(&self, bolt11: &str, max_fee: Msat) -> Result<PaymentHash, WalletError> {
        let now = self.network.now();
        let invoice = bolt11::read_for_paying(bolt11, NETWORK, now)?;
        let failed = |why: &str| Err(WalletError::PaymentFailed(why.to_owned()));
        self.network.transact(|ledger| {
            let Some(entry) = ledger.entry(&invoice.payment_hash) else { return failed("no route to the payee") };
            if entry.owner == self.id {
                return Err(WalletError::Refused("a wallet does not pay itself".into()));
            }
            if entry.payer.as_ref().is_some_and(|(payer, _)| *payer == self.id) {
                return Ok((None, ()));
            }
            match entry.state_at(now) {
                InvoiceState::Open if self.options.routing_fee > max_fee => failed("no route within the fee limit"),
                InvoiceState::Open => {
                    let payer = Some((self.id.clone(), self.options.routing_fee));
                    Ok((Some(ledger.receive(entry, invoice.amount, payer, now)?), ()))
                }
                InvoiceState::Held { .. } | InvoiceState::Settled { .. } => failed("somebody else paid it"),
                InvoiceState::Expired => failed("the invoice is expired"),
                InvoiceState::Cancelled => failed("the payee withdrew it"),
            }
        })?;
        Ok(invoice.payment_hash)
    }
}

/// An invoice of a fake wallet and where it stands.
pub(crate) struct Record {
    pub(crate) bolt11: String,
    pub(crate) description: String,
    pub(crate) amount: Msat,
    pub(crate) expires_at: jiff::Timestamp,
    pub(crate) state: InvoiceState,
}

#[async_trait]
impl Wallet for FakeWallet {
    fn capabilities(&self) -> Capabilities {
        let FakeWalletOptions { hold_invoices, pay, whole_sats, .. } = self.options;
        Capabilities { hold_invoices, pay, whole_sats }
    }

    fn name(&self) -> &str {
        "fake"
    }

    async fn create_invoice(&self, request: &InvoiceRequest) -> Result<Invoice, WalletError> {
        self.guarded(|| self.make(request, None, Says::Text))
    }

    async fn look_up(&self, payment_hash: &PaymentHash) -> Result<InvoiceState, WalletError> {
        self.guarded(|| Ok(self.record(payment_hash)?.state))
    }

    async fn updates(&self) -> Result<BoxStream<'static, InvoiceUpdate>, WalletError> {
        self.faults.before()?;
        let news = self.network.listen(&self.id);
        let faults = Arc::clone(&self.faults);
        let end = self.faults.stream_end();
        let told = stream::unfold((news, faults), |(mut news, faults)| async move {
            match news.recv().await {
                Ok(update) => {
                    let copies = faults.copies();
                    Some((stream::iter(std::iter::repeat_n(update, copies)), (news, faults)))
                }
                Err(broadcast::error::RecvError::Lagged(_) | broadcast::error::RecvError::Closed) => None,
            }
        });
        Ok(told.flatten().take_until(end.cancelled_owned()).boxed())
    }

    async fn balance(&self) -> Result<Option<Balance>, WalletError> {
        self.guarded(|| Ok(Some(Balance { spendable: self.funds()?, receivable: None, on_chain: None })))
    }

    fn history(&self) -> Option<&dyn History> {
        Some(self)
    }

    fn hold_invoices(&self) -> Option<&dyn HoldInvoices> {
        self.options.hold_invoices.then_some(self)
    }

    fn payer(&self) -> Option<&dyn Payer> {
        self.options.pay.then_some(self)
    }
}

#[async_trait]
impl History for FakeWallet {
    async fn received(&self, since: jiff::Timestamp) -> Result<Vec<Received>, WalletError> {
        self.guarded(|| self.network.read(|ledger| ledger.received_by(&self.id, since)))
    }

    async fn sent(&self, since: jiff::Timestamp) -> Result<Vec<Sent>, WalletError> {
        self.guarded(|| self.network.read(|ledger| ledger.sent_by(&self.id, since)))
    }
}

#[async_trait]
impl HoldInvoices for FakeWallet {
    /// Play money can be held for as long as real money can.
    fn longest_hold(&self) -> Duration {
        hold_window::longest(hold_window::MOST_BLOCKS)
    }

    async fn create_hold_invoice(
        &self,
        request: &InvoiceRequest,
        payment_hash: &PaymentHash,
        _hold_for: Duration,
    ) -> Result<Invoice, WalletError> {
        self.guarded(|| self.make(request, Some(payment_hash), Says::Text))
    }

    async fn settle(&self, preimage: &[u8; 32]) -> Result<(), WalletError> {
        let hash = bolt11::hash_of(preimage);
        let now = self.network.now();
        self.guarded(|| {
            self.network.transact(|ledger| {
                let entry = ledger.entry_of(&self.id, &hash)?;
                Ok((ledger.take(entry, *preimage, now)?, ()))
            })
        })
    }

    async fn cancel(&self, payment_hash: &PaymentHash) -> Result<(), WalletError> {
        self.guarded(|| {
            self.network.transact(|ledger| {
                let entry = ledger.entry_of(&self.id, payment_hash)?;
                if !entry.hold {
                    return Err(WalletError::Refused("it is no hold invoice".into()));
                }
                Ok((ledger.give_back(entry)?, ()))
            })
        })
    }
}

#[async_trait]
impl Payer for FakeWallet {
    /// As a real wallet does, waits for as long as a hold invoice's money is held. Paying again what this wallet paid
    /// returns the same proof and costs nothing.
    async fn pay(&self, bolt11: &str, max_fee: Msat) -> Result<Payment, WalletError> {
        self.faults.before()?;
        let mut changes = self.network.changes();
        let hash = self.start_payment(bolt11, max_fee)?;
        loop {
            changes.mark_unchanged();
            if let Some(Some(payment)) = self.payment_made(&hash)? {
                self.faults.after()?;
                return Ok(payment);
            }
            if self.network.is_on_disk() {
                let _ = tokio::time::timeout(OTHER_PROCESS_POLL, changes.changed()).await;
            } else {
                changes.changed().await.map_err(|_| WalletError::Unreachable("the network is gone".into()))?;
            }
        }
    }

    async fn payment(&self, payment_hash: &PaymentHash) -> Result<Option<Payment>, WalletError> {
        self.guarded(|| Ok(self.payment_made(payment_hash)?.flatten()))
    }
}
