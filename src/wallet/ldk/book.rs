//! What the node itself forgets, in a small SQLite file of its own beside the node's: which invoices are ours and where
//! they stand, until when a payment can be held, what was paid.
//!
//! The rule: what an event says is written here, durably, before the event is acknowledged; the node tells it again until
//! then and never after. Every change is conditional on the stage it starts from, so acts that race (settle, cancel, the
//! deadline) cannot both happen. The file is locked for as long as it is open: one folder, one node.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, named_params, params};
use rusqlite_migration::{M, Migrations};

use super::{Invoice, InvoiceState, Payment, PaymentHash, Received, Sent, WalletError};
use crate::money::Msat;

/// The file in the node's folder.
pub(super) const FILE: &str = "coinop.sqlite";

fn migrations() -> Migrations<'static> {
    Migrations::new(vec![M::up(include_str!("book.sql"))])
}

/// Where an invoice stands, in more words than the port's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Not paid.
    Open,
    /// Committed, ours to take or give back until the deadline.
    Held,
    /// We told the node to take it; it has not said yet that it is ours.
    Claiming,
    /// Ours.
    Settled,
    /// Given back, or withdrawn before it was paid.
    Cancelled,
}

impl Stage {
    const fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Held => "held",
            Self::Claiming => "claiming",
            Self::Settled => "settled",
            Self::Cancelled => "cancelled",
        }
    }

    fn read(word: &str) -> Option<Self> {
        [Self::Open, Self::Held, Self::Claiming, Self::Settled, Self::Cancelled].into_iter().find(|s| s.word() == word)
    }
}

/// An invoice of ours.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) hash: PaymentHash,
    pub(super) bolt11: Option<String>,
    pub(super) description: Option<String>,
    pub(super) asked: Msat,
    pub(super) expires_at: Timestamp,
    pub(super) hold: bool,
    /// The blocks it was promised to be holdable for.
    pub(super) blocks: u32,
    pub(super) stage: Stage,
    /// What the payer committed.
    pub(super) held: Msat,
    /// What of it the node can claim.
    pub(super) claimable: Msat,
    /// The height at which the network takes a held payment back.
    pub(super) deadline: u32,
    pub(super) received: Msat,
    pub(super) settled_at: Option<Timestamp>,
}

impl Entry {
    /// In the port's words. A claim whose end is not known is still held: only the node's word makes it settled.
    pub(super) fn state(&self, now: Timestamp) -> InvoiceState {
        match self.stage {
            Stage::Open if now >= self.expires_at => InvoiceState::Expired,
            Stage::Open => InvoiceState::Open,
            Stage::Held | Stage::Claiming => InvoiceState::Held { amount: self.held },
            Stage::Settled => InvoiceState::Settled { amount: self.received, at: self.settled_at },
            Stage::Cancelled => InvoiceState::Cancelled,
        }
    }
}

/// A payment of ours.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum PaymentRow {
    /// The node was asked to pay; how it ended is not known.
    Pending,
    /// Paid.
    Paid(Payment),
    /// Failed, for certain.
    Failed,
}

/// The file.
pub(super) struct Book {
    /// `None` once closed.
    connection: Mutex<Option<Connection>>,
}

fn failed(error: &rusqlite::Error) -> WalletError {
    WalletError::Internal(format!("the node's own records ({FILE}) fail: {error}"))
}

fn millis(time: Timestamp) -> i64 {
    time.as_millisecond()
}

fn time(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX)
}

fn column(amount: Msat) -> i64 {
    i64::try_from(amount.as_msat()).expect("all bitcoin fits an i64 four times over")
}

/// An amount as it was written: never more than all bitcoin.
fn amount(column: i64) -> Msat {
    u64::try_from(column).ok().and_then(|msat| Msat::from_msat(msat).ok()).unwrap_or_default()
}

impl Book {
    /// Opens the file, makes it if need be, and locks it.
    pub(super) fn open(folder: &Path) -> Result<Self, WalletError> {
        let mut connection = Connection::open(folder.join(FILE)).map_err(|error| failed(&error))?;
        let prepare = |connection: &Connection| {
            connection.pragma_update(None, "locking_mode", "exclusive")?;
            connection.pragma_update(None, "journal_mode", "wal")?;
            connection.pragma_update(None, "synchronous", "full")
        };
        prepare(&connection).map_err(|error| match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => WalletError::Refused(
                "another process has the embedded node's folder open: ask it, or stop it first".to_owned(),
            ),
            _ => failed(&error),
        })?;
        migrations()
            .to_latest(&mut connection)
            .map_err(|error| WalletError::Internal(format!("the node's own records ({FILE}) fail: {error}")))?;
        Ok(Self { connection: Mutex::new(Some(connection)) })
    }

    /// Unlocks and closes it. Whoever asks afterwards is told that the node is stopped.
    pub(super) fn close(&self) {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn with<T>(&self, act: impl FnOnce(&mut Connection) -> rusqlite::Result<T>) -> Result<T, WalletError> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let connection = connection.as_mut().ok_or_else(|| WalletError::Unreachable("the node is stopped".into()))?;
        act(connection).map_err(|error| failed(&error))
    }

    /// Writes down what the folder belongs to, or compares with what is written. `Err` has what was written.
    pub(super) fn belongs_to(&self, name: &str, value: &str) -> Result<Result<(), String>, WalletError> {
        self.with(|connection| {
            connection.execute("INSERT OR IGNORE INTO facts (name, value) VALUES (?1, ?2)", params![name, value])?;
            let found: String =
                connection.query_row("SELECT value FROM facts WHERE name = ?1", params![name], |row| row.get(0))?;
            Ok(if found == value { Ok(()) } else { Err(found) })
        })
    }

    /// An invoice that was just made; `hold` has the blocks a hold invoice asks for. An open one of the same hash is replaced.
    pub(super) fn open_invoice(
        &self,
        invoice: &Invoice,
        description: &str,
        hold: Option<u32>,
    ) -> Result<(), WalletError> {
        self.with(|connection| {
            connection.execute(
                "INSERT INTO invoices (hash, bolt11, description, asked, expires_at, hold, blocks, stage)
                 VALUES (:hash, :bolt11, :description, :asked, :expires_at, :hold, :blocks, 'open')
                 ON CONFLICT (hash) DO UPDATE
                 SET bolt11 = excluded.bolt11, expires_at = excluded.expires_at, blocks = excluded.blocks
                 WHERE stage = 'open'",
                named_params! {
                    ":hash": invoice.payment_hash.as_bytes(),
                    ":bolt11": invoice.bolt11,
                    ":description": description,
                    ":asked": column(invoice.amount),
                    ":expires_at": millis(invoice.expires_at),
                    ":hold": hold.is_some(),
                    ":blocks": hold.unwrap_or_default(),
                },
            )?;
            Ok(())
        })
    }

    pub(super) fn entry(&self, hash: &PaymentHash) -> Result<Option<Entry>, WalletError> {
        self.with(|connection| {
            connection
                .prepare_cached("SELECT * FROM invoices WHERE hash = ?1")?
                .query_row(params![hash.as_bytes()], read_entry)
                .optional()
        })
    }

    /// A payment was committed to a hold invoice. `false`: it is not wanted (withdrawn, or no hold invoice of ours) and has to
    /// go back.
    pub(super) fn hold(
        &self,
        hash: &PaymentHash,
        held: Msat,
        claimable: Msat,
        deadline: u32,
    ) -> Result<bool, WalletError> {
        self.with(|connection| {
            let changed = connection.execute(
                "UPDATE invoices SET stage = 'held', held = ?2, claimable = ?3, deadline = ?4
                 WHERE hash = ?1 AND hold AND stage IN ('open', 'held')",
                params![hash.as_bytes(), column(held), column(claimable), deadline],
            )?;
            // So that the next start gives it back as well, should this process die before it is.
            connection.execute(
                "UPDATE invoices SET deadline = ?2 WHERE hash = ?1 AND stage = 'cancelled'",
                params![hash.as_bytes(), deadline],
            )?;
            let taken: Option<bool> = connection
                .query_row(
                    "SELECT stage IN ('claiming', 'settled') FROM invoices WHERE hash = ?1",
                    params![hash.as_bytes()],
                    |row| row.get(0),
                )
                .optional()?;
            Ok(changed > 0 || taken == Some(true))
        })
    }

    /// Writes down that the node is told to take it. `false` when it is neither held nor being claimed.
    pub(super) fn claim(&self, hash: &PaymentHash) -> Result<bool, WalletError> {
        self.move_to(hash, "claiming", "stage IN ('held', 'claiming')")
    }

    /// Writes down that it goes back, or that nobody may pay it any more. `false` when it is taken already.
    pub(super) fn cancel(&self, hash: &PaymentHash) -> Result<bool, WalletError> {
        self.move_to(hash, "cancelled", "hold AND stage IN ('open', 'held', 'cancelled')")
    }

    fn move_to(&self, hash: &PaymentHash, stage: &str, from: &str) -> Result<bool, WalletError> {
        self.with(|connection| {
            let sql = format!("UPDATE invoices SET stage = ?2 WHERE hash = ?1 AND {from}");
            Ok(connection.execute(&sql, params![hash.as_bytes(), stage])? > 0)
        })
    }

    /// The node says it is ours: whatever was thought before. The first time counts. Money nobody asked for is written down
    /// as well.
    pub(super) fn settle(&self, hash: &PaymentHash, received: Msat, at: Timestamp) -> Result<(), WalletError> {
        self.with(|connection| {
            connection.execute(
                "INSERT INTO invoices (hash, asked, expires_at, hold, stage, received, settled_at)
                 VALUES (?1, ?2, ?3, 0, 'settled', ?2, ?3)
                 ON CONFLICT (hash) DO UPDATE
                 SET stage = 'settled', received = excluded.received, settled_at = excluded.settled_at
                 WHERE stage <> 'settled'",
                params![hash.as_bytes(), column(received), millis(at)],
            )?;
            Ok(())
        })
    }

    /// Holds whose deadline comes before the height `needed` are cancelled; so are claims that led to nothing although their
    /// deadline was at `lost` or before. Returns them.
    pub(super) fn expire_holds(&self, needed: u32, lost: u32) -> Result<Vec<PaymentHash>, WalletError> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(
                "UPDATE invoices SET stage = 'cancelled'
                 WHERE (stage = 'held' AND deadline < ?1) OR (stage = 'claiming' AND deadline <= ?2)
                 RETURNING hash",
            )?;
            statement.query_map(params![needed, lost], |row| hash_of(row, 0))?.collect()
        })
    }

    /// Payments that were to go back and may not have: their deadline is still to come.
    pub(super) fn given_back_before(&self, height: u32) -> Result<Vec<PaymentHash>, WalletError> {
        self.with(|connection| {
            let mut statement =
                connection.prepare("SELECT hash FROM invoices WHERE stage = 'cancelled' AND deadline >= ?1")?;
            statement.query_map(params![height], |row| hash_of(row, 0))?.collect()
        })
    }

    /// Invoices nobody paid that expired before `limit`. They are forgotten here and returned, so that the node forgets
    /// them too.
    pub(super) fn forget_unpaid(&self, limit: Timestamp, most: u32) -> Result<Vec<PaymentHash>, WalletError> {
        self.with(|connection| {
            let mut statement = connection.prepare(
                "DELETE FROM invoices WHERE hash IN
                 (SELECT hash FROM invoices WHERE stage = 'open' AND expires_at < ?1 LIMIT ?2) RETURNING hash",
            )?;
            statement.query_map(params![millis(limit), most], |row| hash_of(row, 0))?.collect()
        })
    }

    pub(super) fn received(&self, since: Timestamp) -> Result<Vec<Received>, WalletError> {
        self.with(|connection| {
            let mut statement =
                connection.prepare("SELECT * FROM invoices WHERE stage = 'settled' AND settled_at >= ?1")?;
            let entries = statement.query_map(params![millis(since)], read_entry)?;
            let received = |entry: Entry| Received {
                payment_hash: entry.hash,
                amount: entry.received,
                at: entry.settled_at,
                description: entry.description,
            };
            entries.map(|entry| entry.map(received)).collect()
        })
    }

    /// Written before the node is asked to pay.
    pub(super) fn start_payment(&self, hash: &PaymentHash, asked: Msat, at: Timestamp) -> Result<(), WalletError> {
        self.with(|connection| {
            connection.execute(
                "INSERT INTO payments (hash, amount, stage, started_at) VALUES (?1, ?2, 'pending', ?3)
                 ON CONFLICT (hash) DO UPDATE
                 SET stage = 'pending', amount = excluded.amount, started_at = excluded.started_at, ended_at = NULL
                 WHERE stage = 'failed'",
                params![hash.as_bytes(), column(asked), millis(at)],
            )?;
            Ok(())
        })
    }

    /// The proof is there: whatever was thought before. `amount` is for a payment that was not made through us.
    pub(super) fn paid(
        &self,
        hash: &PaymentHash,
        amount: Msat,
        payment: &Payment,
        at: Timestamp,
    ) -> Result<(), WalletError> {
        self.with(|connection| {
            connection.execute(
                "INSERT INTO payments (hash, amount, stage, started_at, ended_at, fees, preimage)
                 VALUES (?1, ?2, 'paid', ?3, ?3, ?4, ?5)
                 ON CONFLICT (hash) DO UPDATE
                 SET stage = 'paid', ended_at = excluded.ended_at, fees = excluded.fees, preimage = excluded.preimage
                 WHERE stage <> 'paid'",
                params![hash.as_bytes(), column(amount), millis(at), payment.fees.map(column), &payment.preimage],
            )?;
            Ok(())
        })
    }

    /// It failed, for certain.
    pub(super) fn payment_failed(&self, hash: &PaymentHash, at: Timestamp) -> Result<(), WalletError> {
        self.with(|connection| {
            connection.execute(
                "UPDATE payments SET stage = 'failed', ended_at = ?2 WHERE hash = ?1 AND stage = 'pending'",
                params![hash.as_bytes(), millis(at)],
            )?;
            Ok(())
        })
    }

    pub(super) fn payment(&self, hash: &PaymentHash) -> Result<Option<PaymentRow>, WalletError> {
        self.with(|connection| {
            connection
                .prepare_cached("SELECT stage, fees, preimage FROM payments WHERE hash = ?1")?
                .query_row(params![hash.as_bytes()], |row| {
                    let preimage: Option<[u8; 32]> = row.get("preimage")?;
                    let fees = row.get::<_, Option<i64>>("fees")?.map(amount);
                    Ok(match (row.get_ref("stage")?.as_str()?, preimage) {
                        ("paid", Some(preimage)) => PaymentRow::Paid(Payment { preimage, fees }),
                        ("failed", _) => PaymentRow::Failed,
                        _ => PaymentRow::Pending,
                    })
                })
                .optional()
        })
    }

    /// Payments begun before `before` whose end is not known.
    pub(super) fn doubtful_payments(&self, before: Timestamp) -> Result<Vec<PaymentHash>, WalletError> {
        self.with(|connection| {
            let mut statement =
                connection.prepare("SELECT hash FROM payments WHERE stage = 'pending' AND started_at < ?1")?;
            statement.query_map(params![millis(before)], |row| hash_of(row, 0))?.collect()
        })
    }

    pub(super) fn sent(&self, since: Timestamp) -> Result<Vec<Sent>, WalletError> {
        self.with(|connection| {
            let mut statement = connection
                .prepare("SELECT hash, amount, fees, ended_at FROM payments WHERE stage = 'paid' AND ended_at >= ?1")?;
            let sent = |row: &Row<'_>| {
                Ok(Sent {
                    payment_hash: hash_of(row, 0)?,
                    amount: amount(row.get(1)?),
                    fees: row.get::<_, Option<i64>>(2)?.map(amount),
                    at: row.get::<_, Option<i64>>(3)?.map(time),
                })
            };
            statement.query_map(params![millis(since)], sent)?.collect()
        })
    }

    /// For tests: time passes for one invoice.
    #[cfg(test)]
    pub(super) fn expire(&self, hash: &PaymentHash, at: Timestamp) {
        let sql = "UPDATE invoices SET expires_at = ?2 WHERE hash = ?1";
        self.with(|connection| connection.execute(sql, params![hash.as_bytes(), millis(at)])).unwrap();
    }
}

fn hash_of(row: &Row<'_>, column: usize) -> rusqlite::Result<PaymentHash> {
    row.get::<_, [u8; 32]>(column).map(PaymentHash)
}

fn read_entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let optional = |name: &str| row.get::<_, Option<i64>>(name);
    let stage: String = row.get("stage")?;
    Ok(Entry {
        hash: PaymentHash(row.get("hash")?),
        bolt11: row.get("bolt11")?,
        description: row.get("description")?,
        asked: amount(row.get("asked")?),
        expires_at: time(row.get("expires_at")?),
        hold: row.get("hold")?,
        blocks: row.get("blocks")?,
        stage: Stage::read(&stage).ok_or_else(|| {
            rusqlite::Error::InvalidColumnType(0, "stage".to_owned(), Value::Text(stage.clone()).data_type())
        })?,
        held: optional("held")?.map(amount).unwrap_or_default(),
        claimable: optional("claimable")?.map(amount).unwrap_or_default(),
        deadline: row.get::<_, Option<u32>>("deadline")?.unwrap_or_default(),
        received: optional("received")?.map(amount).unwrap_or_default(),
        settled_at: optional("settled_at")?.map(time),
    })
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);
    const HASH: PaymentHash = PaymentHash([1; 32]);
    const AMOUNT: Msat = Msat::sat(21);

    fn book() -> (Book, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        (Book::open(folder.path()).unwrap(), folder)
    }

    fn with_invoice(hold: bool) -> (Book, tempfile::TempDir) {
        let (book, folder) = book();
        let invoice = Invoice {
            bolt11: "lnbcrt…".into(),
            payment_hash: HASH,
            amount: AMOUNT,
            expires_at: NOW + SignedDuration::from_mins(10),
        };
        book.open_invoice(&invoice, "a job", hold.then_some(20)).unwrap();
        (book, folder)
    }

    fn stage(book: &Book) -> Stage {
        book.entry(&HASH).unwrap().unwrap().stage
    }

    #[test]
    fn the_migrations_are_valid() {
        assert_eq!(migrations().validate(), Ok(()));
    }

    #[test]
    fn a_folder_is_opened_once() {
        let (book, folder) = book();
        let second = Book::open(folder.path()).err();
        assert!(matches!(second, Some(WalletError::Refused(_))), "{second:?}");
        book.close();
        assert!(Book::open(folder.path()).is_ok());
        assert!(matches!(book.entry(&HASH), Err(WalletError::Unreachable(_))));
    }

    #[test]
    fn a_folder_of_another_node_is_recognised() {
        let (book, _folder) = book();
        assert_eq!(book.belongs_to("node", "a"), Ok(Ok(())));
        assert_eq!(book.belongs_to("node", "a"), Ok(Ok(())));
        assert_eq!(book.belongs_to("node", "b"), Ok(Err("a".to_owned())));
    }

    #[test]
    fn what_is_cancelled_cannot_be_claimed_and_the_other_way_round() {
        let (book, _folder) = with_invoice(true);
        assert_eq!(book.claim(&HASH), Ok(false), "nothing is held");
        assert_eq!(book.hold(&HASH, AMOUNT, AMOUNT, 100), Ok(true));
        assert_eq!(book.claim(&HASH), Ok(true));
        assert_eq!(book.cancel(&HASH), Ok(false));
        assert_eq!(book.claim(&HASH), Ok(true), "telling the node again is no harm");
        let (book, _folder) = with_invoice(true);
        book.hold(&HASH, AMOUNT, AMOUNT, 100).unwrap();
        assert_eq!(book.cancel(&HASH), Ok(true));
        assert_eq!(book.claim(&HASH), Ok(false));
        assert_eq!(book.hold(&HASH, AMOUNT, AMOUNT, 200), Ok(false), "a withdrawn invoice holds nothing");
        assert_eq!(stage(&book), Stage::Cancelled);
    }

    #[test]
    fn no_payment_is_held_for_an_ordinary_invoice() {
        let (book, _folder) = with_invoice(false);
        assert_eq!(book.hold(&HASH, AMOUNT, AMOUNT, 100), Ok(false));
        assert_eq!(book.hold(&PaymentHash([2; 32]), AMOUNT, AMOUNT, 100), Ok(false));
        assert_eq!(book.cancel(&HASH), Ok(false));
    }

    #[test]
    fn a_hold_ends_with_a_margin_and_a_claim_only_well_past_the_deadline() {
        let (book, _folder) = with_invoice(true);
        book.hold(&HASH, AMOUNT, AMOUNT, 100).unwrap();
        assert_eq!(book.expire_holds(100, 55), Ok(vec![]));
        book.claim(&HASH).unwrap();
        assert_eq!(book.expire_holds(144, 99), Ok(vec![]), "the node may still say that it is ours");
        assert_eq!(book.expire_holds(145, 100), Ok(vec![HASH]));
        assert_eq!(stage(&book), Stage::Cancelled);
        let (book, _folder) = with_invoice(true);
        book.hold(&HASH, AMOUNT, AMOUNT, 100).unwrap();
        assert_eq!(book.expire_holds(101, 56), Ok(vec![HASH]));
        assert_eq!(book.given_back_before(95), Ok(vec![HASH]));
        assert_eq!(book.given_back_before(101), Ok(vec![]));
    }

    #[test]
    fn the_nodes_word_that_it_is_ours_counts_and_the_first_time_stays() {
        let (book, _folder) = with_invoice(true);
        book.hold(&HASH, AMOUNT, AMOUNT, 100).unwrap();
        book.cancel(&HASH).unwrap();
        book.settle(&HASH, AMOUNT, NOW).unwrap();
        book.settle(&HASH, Msat::sat(1), NOW + SignedDuration::from_secs(9)).unwrap();
        let entry = book.entry(&HASH).unwrap().unwrap();
        assert_eq!(entry.state(NOW), InvoiceState::Settled { amount: AMOUNT, at: Some(NOW) });
        assert_eq!(book.cancel(&HASH), Ok(false));
        assert_eq!(book.hold(&HASH, AMOUNT, AMOUNT, 100), Ok(true), "a repeated event takes nothing back");
        assert_eq!(stage(&book), Stage::Settled);
    }

    #[test]
    fn money_nobody_asked_for_is_remembered() {
        let (book, _folder) = book();
        book.settle(&HASH, AMOUNT, NOW).unwrap();
        let received = book.received(NOW).unwrap();
        assert_eq!((received.len(), received[0].amount, received[0].at), (1, AMOUNT, Some(NOW)));
        assert_eq!(book.received(NOW + SignedDuration::from_secs(1)), Ok(vec![]));
    }

    #[test]
    fn a_payment_that_failed_may_be_tried_again_and_one_that_was_made_may_not() {
        let (book, _folder) = book();
        let proof = Payment { preimage: [3; 32], fees: Some(Msat::msat(1)) };
        assert!(book.payment(&HASH).unwrap().is_none());
        book.start_payment(&HASH, AMOUNT, NOW).unwrap();
        book.payment_failed(&HASH, NOW).unwrap();
        assert!(book.payment(&HASH).unwrap() == Some(PaymentRow::Failed));
        book.start_payment(&HASH, AMOUNT, NOW).unwrap();
        assert!(book.payment(&HASH).unwrap() == Some(PaymentRow::Pending));
        assert_eq!(book.doubtful_payments(NOW), Ok(vec![]));
        assert_eq!(book.doubtful_payments(NOW + SignedDuration::from_secs(1)), Ok(vec![HASH]));
        book.paid(&HASH, AMOUNT, &proof, NOW).unwrap();
        book.payment_failed(&HASH, NOW).unwrap();
        book.start_payment(&HASH, AMOUNT, NOW).unwrap();
        assert!(book.payment(&HASH).unwrap() == Some(PaymentRow::Paid(proof)));
        let sent = book.sent(NOW).unwrap();
        assert_eq!((sent.len(), sent[0].amount, sent[0].fees), (1, AMOUNT, Some(Msat::msat(1))));
    }

    #[test]
    fn only_what_nobody_paid_is_forgotten() {
        let (book, _folder) = with_invoice(true);
        let late = NOW + SignedDuration::from_hours(1);
        assert_eq!(book.forget_unpaid(NOW, 10), Ok(vec![]));
        book.hold(&HASH, AMOUNT, AMOUNT, 100).unwrap();
        assert_eq!(book.forget_unpaid(late, 10), Ok(vec![]));
        let (book, _folder) = with_invoice(true);
        assert_eq!(book.forget_unpaid(late, 10), Ok(vec![HASH]));
        assert_eq!(book.entry(&HASH).unwrap().map(|entry| entry.stage), None);
    }
}
