-- What this folder is the folder of: node id and network.
CREATE TABLE facts (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

-- Invoices of ours. Amounts in msat, times in milliseconds since 1970, deadlines in blocks.
CREATE TABLE invoices (
    hash        BLOB PRIMARY KEY CHECK (length(hash) = 32),
    -- Both NULL when money came that no invoice asked for.
    bolt11      TEXT,
    description TEXT,
    asked       INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    hold        INTEGER NOT NULL CHECK (hold IN (0, 1)),
    stage       TEXT NOT NULL CHECK (stage IN ('open', 'held', 'claiming', 'settled', 'cancelled')),
    -- The blocks a payment has to be left with when it comes; nothing is asked of ordinary invoices.
    blocks      INTEGER NOT NULL DEFAULT 0,
    -- What the payer committed, what of it the node can claim (less what a liquidity provider kept), until which height.
    held        INTEGER,
    claimable   INTEGER,
    deadline    INTEGER,
    received    INTEGER,
    settled_at  INTEGER
) STRICT;

CREATE INDEX invoices_by_stage ON invoices (stage, expires_at);

-- Payments of ours, written before the node is asked to pay.
CREATE TABLE payments (
    hash       BLOB PRIMARY KEY CHECK (length(hash) = 32),
    amount     INTEGER NOT NULL,
    stage      TEXT NOT NULL CHECK (stage IN ('pending', 'paid', 'failed')),
    started_at INTEGER NOT NULL,
    ended_at   INTEGER,
    fees       INTEGER,
    preimage   BLOB CHECK (preimage IS NULL OR length(preimage) = 32)
) STRICT;
