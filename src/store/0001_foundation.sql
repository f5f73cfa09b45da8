-- Times are Unix milliseconds, amounts millisatoshis, ids 32 raw bytes.

CREATE TABLE jobs (
    id           BLOB PRIMARY KEY NOT NULL,
    customer     BLOB NOT NULL,
    kind         INTEGER NOT NULL,
    work         TEXT NOT NULL,
    payment      TEXT NOT NULL,
    terms        TEXT NOT NULL,
    payment_hash BLOB,
    opened_at    INTEGER NOT NULL,
    changed_at   INTEGER NOT NULL,
    -- Compare-and-set: a change names the version it read.
    version      INTEGER NOT NULL,
    -- job::Job as JSON; the columns above repeat what is searched by.
    state        TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX jobs_by_payment_hash ON jobs (payment_hash) WHERE payment_hash IS NOT NULL;
CREATE INDEX jobs_by_time ON jobs (opened_at);
CREATE INDEX jobs_unfinished ON jobs (work) WHERE work IN ('waiting', 'running', 'finished');
CREATE INDEX jobs_void ON jobs (changed_at) WHERE payment = 'void' AND payment_hash IS NOT NULL;

-- What was asked, and the work made ready: written once.
CREATE TABLE requests (
    job      BLOB PRIMARY KEY NOT NULL,
    request  TEXT NOT NULL,
    prepared TEXT NOT NULL
) STRICT;

-- What came of it: written once, before anything of it is published.
CREATE TABLE results (
    job     BLOB PRIMARY KEY NOT NULL,
    event   TEXT NOT NULL,
    outcome TEXT NOT NULL
) STRICT;

-- Acts still to be done.
CREATE TABLE outbox (
    job        BLOB NOT NULL,
    effect     TEXT NOT NULL,
    body       TEXT NOT NULL,
    -- How often a starting process found it still to be done.
    recoveries INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (job, effect)
) STRICT, WITHOUT ROWID;

-- The books.
CREATE TABLE entries (
    id     INTEGER PRIMARY KEY NOT NULL,
    at     INTEGER NOT NULL,
    job    BLOB NOT NULL,
    reason TEXT NOT NULL
) STRICT;
CREATE INDEX entries_by_job ON entries (job);
CREATE TABLE postings (
    entry   INTEGER NOT NULL REFERENCES entries (id),
    account TEXT NOT NULL,
    msat    INTEGER NOT NULL
) STRICT;
CREATE INDEX postings_by_entry ON postings (entry);

-- The sum of an account's postings, kept in the same transaction; an account at zero has no row.
CREATE TABLE balances (
    account TEXT PRIMARY KEY NOT NULL,
    msat    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Free jobs a key had on a day (days since 1970, UTC).
CREATE TABLE free_jobs (
    customer BLOB NOT NULL,
    day      INTEGER NOT NULL,
    jobs     INTEGER NOT NULL,
    PRIMARY KEY (customer, day)
) STRICT, WITHOUT ROWID;

-- Requests answered with a refusal, so that a restart does not answer them again.
CREATE TABLE declined (
    id BLOB PRIMARY KEY NOT NULL,
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Where we were: up to when the relays have been read.
CREATE TABLE cursors (
    name TEXT PRIMARY KEY NOT NULL,
    at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
