//! What the fake network knows: who has how much, and where each invoice stands. Pure: time is a parameter, and every
//! move is first a [`Change`], then applied.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::money::Msat;
use crate::wallet::{InvoiceState, InvoiceUpdate, PaymentHash, Received, Sent, WalletError};

/// A wallet's name on the network: its node key in hex.
pub(super) type NodeId = String;

/// A wallet's account.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Account {
    pub(super) id: NodeId,
    pub(super) balance: Msat,
    /// Invoices made so far: what the next preimage is derived from.
    pub(super) made: u64,
}

/// An invoice and what became of it.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) hash: PaymentHash,
    pub(super) owner: NodeId,
    pub(super) bolt11: String,
    pub(super) description: String,
    pub(super) amount: Msat,
    pub(super) expires_at: Timestamp,
    pub(super) hold: bool,
    /// Known from the start, except for hold invoices.
    pub(super) preimage: Option<Preimage>,
    pub(super) state: InvoiceState,
    /// Who paid, when a wallet of this network did, and the fee it paid on top.
    pub(super) payer: Option<(NodeId, Msat)>,
}

/// 32 secret bytes, in hex on disk.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Preimage(pub(super) [u8; 32]);

impl TryFrom<String> for Preimage {
    type Error = hex::FromHexError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map(|()| Self(bytes))
    }
}

impl From<Preimage> for String {
    fn from(preimage: Preimage) -> Self {
        hex::encode(preimage.0)
    }
}

/// Rows that take the place of what was known before: one atomic move.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Change {
    pub(super) accounts: Vec<Account>,
    pub(super) entries: Vec<Entry>,
}

/// Everything known.
#[derive(Default)]
pub(super) struct Ledger {
    accounts: HashMap<NodeId, Account>,
    entries: HashMap<PaymentHash, Entry>,
}

impl Ledger {
    pub(super) fn apply(&mut self, change: &Change) {
        for account in &change.accounts {
            self.accounts.insert(account.id.clone(), account.clone());
        }
        for entry in &change.entries {
            self.entries.insert(entry.hash, entry.clone());
        }
    }

    pub(super) fn account(&self, id: &str) -> Option<&Account> {
        self.accounts.get(id)
    }

    /// The account of a wallet that was opened, which every wallet was before it acts.
    pub(super) fn open_account(&self, id: &str) -> Account {
        self.accounts.get(id).cloned().unwrap_or_else(|| Account { id: id.to_owned(), balance: Msat::ZERO, made: 0 })
    }

    pub(super) fn entry(&self, hash: &PaymentHash) -> Option<&Entry> {
        self.entries.get(hash)
    }

    /// What a wallet was paid since then.
    pub(super) fn received_by(&self, owner: &str, since: Timestamp) -> Vec<Received> {
        let own = self.entries.values().filter(|entry| entry.owner == owner);
        own.filter_map(|entry| match entry.state {
            InvoiceState::Settled { amount, at } if at.is_none_or(|at| at >= since) => {
                Some(Received { payment_hash: entry.hash, amount, at, description: Some(entry.description.clone()) })
            }
            _ => None,
        })
        .collect()
    }

    /// What a wallet paid since then.
    pub(super) fn sent_by(&self, payer: &str, since: Timestamp) -> Vec<Sent> {
        self.entries
            .values()
            .filter_map(|entry| match (&entry.payer, entry.state) {
                (Some((id, fee)), InvoiceState::Settled { amount, at })
                    if id == payer && at.is_none_or(|at| at >= since) =>
                {
                    Some(Sent { payment_hash: entry.hash, amount, fees: Some(*fee), at })
                }
                _ => None,
            })
            .collect()
    }

    /// The entry when it is `owner`'s.
    pub(super) fn entry_of(&self, owner: &str, hash: &PaymentHash) -> Result<&Entry, WalletError> {
        self.entries.get(hash).filter(|entry| entry.owner == owner).ok_or(WalletError::NotFound)
    }

    /// The move that marks an invoice paid: held for a hold invoice, else settled. `payer` is charged when it is a
    /// wallet of this network; otherwise the money comes from outside. That the time to pay is over does not matter:
    /// payments may be late.
    pub(super) fn receive(
        &self,
        entry: &Entry,
        amount: Msat,
        payer: Option<(NodeId, Msat)>,
        now: Timestamp,
    ) -> Result<Change, WalletError> {
        if !matches!(entry.state, InvoiceState::Open | InvoiceState::Expired) {
            return Err(WalletError::Refused("the invoice can't be paid any more".into()));
        }
        let mut change = Change::default();
        if let Some((id, fee)) = &payer {
            let mut account = self.open_account(id);
            let cost = amount.checked_add(*fee).map_err(|_| WalletError::InsufficientFunds)?;
            account.balance = account.balance.checked_sub(cost).map_err(|_| WalletError::InsufficientFunds)?;
            change.accounts.push(account);
        }
        let state = if entry.hold {
            InvoiceState::Held { amount }
        } else {
            change.accounts.push(self.credited(&entry.owner, amount)?);
            InvoiceState::Settled { amount, at: Some(now) }
        };
        change.entries.push(Entry { state, payer, ..entry.clone() });
        Ok(change)
    }

    /// The move that takes held money.
    pub(super) fn take(
        &self,
        entry: &Entry,
        preimage: [u8; 32],
        now: Timestamp,
    ) -> Result<Option<Change>, WalletError> {
        match entry.state {
            InvoiceState::Held { amount } => Ok(Some(Change {
                accounts: vec![self.credited(&entry.owner, amount)?],
                entries: vec![Entry {
                    state: InvoiceState::Settled { amount, at: Some(now) },
                    preimage: Some(Preimage(preimage)),
                    ..entry.clone()
                }],
            })),
            InvoiceState::Settled { .. } => Ok(None),
            InvoiceState::Open | InvoiceState::Expired => Err(WalletError::Refused("nothing is held".into())),
            InvoiceState::Cancelled => Err(WalletError::Refused("the money went back".into())),
        }
    }

    /// The move that gives held money back, or withdraws an unpaid hold invoice.
    pub(super) fn give_back(&self, entry: &Entry) -> Result<Option<Change>, WalletError> {
        match entry.state {
            InvoiceState::Cancelled => Ok(None),
            InvoiceState::Settled { .. } => Err(WalletError::Refused("the money is taken already".into())),
            InvoiceState::Held { amount } => {
                let mut change = Change::default();
                if let Some((payer, fee)) = &entry.payer {
                    change.accounts.push(self.credited(payer, amount.saturating_add(*fee))?);
                }
                change.entries.push(Entry { state: InvoiceState::Cancelled, ..entry.clone() });
                Ok(Some(change))
            }
            InvoiceState::Open | InvoiceState::Expired => Ok(Some(Change {
                entries: vec![Entry { state: InvoiceState::Cancelled, ..entry.clone() }],
                ..Change::default()
            })),
        }
    }

    fn credited(&self, id: &str, amount: Msat) -> Result<Account, WalletError> {
        let mut account = self.open_account(id);
        account.balance =
            account.balance.checked_add(amount).map_err(|error| WalletError::Internal(error.to_string()))?;
        Ok(account)
    }
}

impl Entry {
    /// Where it stands at `now`: unpaid invoices expire by themselves.
    pub(super) fn state_at(&self, now: Timestamp) -> InvoiceState {
        match self.state {
            InvoiceState::Open if self.expires_at <= now => InvoiceState::Expired,
            state => state,
        }
    }

    /// The news of where it stands.
    pub(super) fn update(&self) -> InvoiceUpdate {
        InvoiceUpdate { payment_hash: self.hash, state: self.state }
    }
}
