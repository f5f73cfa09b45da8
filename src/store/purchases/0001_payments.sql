-- Times are Unix milliseconds, amounts millisatoshis, ids 32 raw bytes.

-- What was paid, or may have been. A payment hash stands here before the wallet is asked, and is never paid again.
CREATE TABLE payments (
    payment_hash       BLOB PRIMARY KEY NOT NULL,
    job                BLOB NOT NULL,
    provider           BLOB NOT NULL,
    network            TEXT NOT NULL,
    amount             INTEGER NOT NULL,
    max_fee            INTEGER NOT NULL,
    invoice_expires_at INTEGER NOT NULL,
    state              TEXT NOT NULL,
    began_at           INTEGER NOT NULL,
    -- When the wallet's last word came.
    ended_at           INTEGER,
    fees               INTEGER,
    -- The proof of payment.
    preimage           BLOB,
    problem            TEXT
) STRICT;
CREATE INDEX payments_by_job ON payments (job);
CREATE INDEX payments_by_time ON payments (began_at);
CREATE INDEX payments_by_state ON payments (network, state);

-- Results that came, paid or free.
CREATE TABLE receipts (
    job      BLOB PRIMARY KEY NOT NULL,
    provider BLOB NOT NULL,
    result   BLOB NOT NULL,
    at       INTEGER NOT NULL,
    -- What the provider says it cost, and what it owes us after it.
    cost     INTEGER,
    credit   INTEGER
) STRICT;
CREATE INDEX receipts_by_time ON receipts (at);
