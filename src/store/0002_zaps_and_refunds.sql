-- An entry need not be about a job: a refund is about a customer. SQLite can't drop NOT NULL, so both tables are written anew;
-- postings first, because they refer to entries.
CREATE TABLE entries_2 (
    id     INTEGER PRIMARY KEY NOT NULL,
    at     INTEGER NOT NULL,
    job    BLOB,
    reason TEXT NOT NULL
) STRICT;
CREATE TABLE postings_2 (
    entry   INTEGER NOT NULL REFERENCES entries_2 (id),
    account TEXT NOT NULL,
    msat    INTEGER NOT NULL
) STRICT;
INSERT INTO entries_2 (id, at, job, reason) SELECT id, at, job, reason FROM entries ORDER BY id;
INSERT INTO postings_2 (entry, account, msat) SELECT entry, account, msat FROM postings ORDER BY rowid;
DROP TABLE postings;
DROP TABLE entries;
ALTER TABLE entries_2 RENAME TO entries;
ALTER TABLE postings_2 RENAME TO postings;
CREATE INDEX entries_by_job ON entries (job);
CREATE INDEX postings_by_entry ON postings (entry);

-- Whether a zap paid the job while its invoice may still be paid: it is looked up like one that was given up.
ALTER TABLE jobs ADD COLUMN zapped INTEGER NOT NULL DEFAULT 0;
CREATE INDEX jobs_zapped ON jobs (changed_at) WHERE zapped = 1;

-- Events of ours that can be zapped, and the job they are about.
CREATE TABLE our_events (
    id  BLOB PRIMARY KEY NOT NULL,
    job BLOB NOT NULL,
    at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Zaps that were counted, each once.
CREATE TABLE zaps (
    payment_hash BLOB PRIMARY KEY NOT NULL,
    -- The receipt's event id.
    receipt      BLOB NOT NULL,
    job          BLOB NOT NULL,
    msat         INTEGER NOT NULL,
    -- 'wallet' or 'address': the account it was booked to.
    purse        TEXT NOT NULL,
    at           INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Where customers want their credit paid back, by the last of their requests that said so.
CREATE TABLE refund_targets (
    customer BLOB PRIMARY KEY NOT NULL,
    target   TEXT NOT NULL,
    at       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Credit paid back: written before the wallet is asked to pay.
CREATE TABLE refunds (
    payment_hash BLOB PRIMARY KEY NOT NULL,
    customer     BLOB NOT NULL,
    msat         INTEGER NOT NULL,
    target       TEXT NOT NULL,
    automatic    INTEGER NOT NULL,
    -- 'reserved', 'paying', 'paid' or 'failed'.
    state        TEXT NOT NULL,
    fees         INTEGER,
    at           INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX refunds_open ON refunds (at) WHERE state IN ('reserved', 'paying');
CREATE INDEX refunds_by_time ON refunds (at);
