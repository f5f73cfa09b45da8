//! Jobs: opened, moved on, read.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::columns::{from_json, id, millis, to_json};
use super::error::StoreError;
use super::{Store, books, outbox, refunds, zaps};
use crate::executor::Prepared;
use crate::job::id::PaymentHash;
use crate::job::{
    Context, CustomerId, Effect, Job, JobEvent, JobId, JobRequest, Outcome, PaidBy, PaymentState, QuoteDraft, TooDear,
    Transition, WorkState,
};
use crate::money::Msat;
use crate::nip90::SignedEvent;

/// Milliseconds of a day.
const DAY_MILLIS: i64 = 86_400_000;

/// The day a moment falls on, counted from 1970 in UTC.
pub(super) fn day(at: Timestamp) -> i64 {
    at.as_millisecond().div_euclid(DAY_MILLIS)
}

/// What came of opening a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// It is new: this is to be done.
    New(Box<Transition>),
    /// This request was taken, or turned away, before.
    Known,
    /// It costs more than the customer bid.
    TooDear(TooDear),
}

/// What came of a fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advanced {
    /// The job afterwards.
    pub job: Job,
    /// To be done now.
    pub effects: Vec<Effect>,
    /// Whether the fact was news.
    pub changed: bool,
    /// How far the work was before.
    pub before: WorkState,
}

/// A job with what was asked and what came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredJob {
    /// Where it stands.
    pub job: Job,
    /// What was asked; gone after the retention time.
    pub request: Option<JobRequest>,
    /// The work made ready; gone after the retention time.
    pub prepared: Option<Prepared>,
    /// The signed result, once there is one.
    pub result: Option<SignedEvent>,
    /// The outcome, once there is one.
    pub outcome: Option<Outcome>,
}

/// Finished work and how its result event is written. Signing happens inside the transaction, where the customer's credit
/// after the job is certain.
pub struct FinishedWork {
    /// What came of the work.
    pub outcome: Outcome,
    /// Writes the result event, given the job and the customer's credit once it is paid.
    #[allow(clippy::type_complexity)] // Named by its field; an alias would only move the words.
    pub sign: Box<dyn FnOnce(&Job, Msat, &Outcome) -> Result<SignedEvent, String> + Send>,
}

impl std::fmt::Debug for FinishedWork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FinishedWork").finish_non_exhaustive()
    }
}

/// An invoice the wallet is to be asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenInvoice {
    /// Whose.
    pub job: JobId,
    /// Which.
    pub payment_hash: PaymentHash,
    /// When it can no longer be paid.
    pub expires_at: Timestamp,
    /// Where the payment stands.
    pub payment: PaymentState,
    /// When the job last changed.
    pub changed_at: Timestamp,
}

impl Store {
    /// Whether a request was taken or turned away before. Only a hint, that saves making it ready: opening a job and
    /// turning one away look again.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn knows(&self, job: JobId) -> Result<bool, StoreError> {
        self.look(move |db| known(db, job)).await
    }

    /// Opens a job: quote, credit set aside and first acts in one transaction. A request that is known opens nothing.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open_job(
        &self,
        request: JobRequest,
        prepared: Prepared,
        draft: QuoteDraft,
        now: Timestamp,
    ) -> Result<Opened, StoreError> {
        self.writer
            .run(move |db| {
                if known(db, request.id)? {
                    return Ok(Opened::Known);
                }
                let context = Context {
                    now,
                    credit: books::credit(db, request.customer)?,
                    free_jobs_today: if draft.free_per_day > 0 {
                        free_jobs(db, request.customer, day(now))?
                    } else {
                        0
                    },
                };
                let transition = match Job::open(&request, &draft, &context) {
                    Ok(transition) => transition,
                    Err(too_dear) => return Ok(Opened::TooDear(too_dear)),
                };
                let job = &transition.job;
                db.prepare_cached(
                    "INSERT INTO jobs (id, customer, kind, work, payment, terms, payment_hash, opened_at, changed_at,
                     version, state) VALUES (?1, ?2, ?3, ?4, ?5, ?6, NULL, ?7, ?7, 1, ?8)",
                )?
                .execute(params![
                    job.id.0,
                    job.customer.0,
                    job.kind.request_kind(),
                    job.work.word(),
                    job.payment.word(),
                    job.quote.terms.word(),
                    millis(now),
                    to_json(job, "jobs.state")?,
                ])?;
                db.prepare_cached("INSERT INTO requests (job, request, prepared) VALUES (?1, ?2, ?3)")?.execute(
                    params![job.id.0, to_json(&request, "requests.request")?, to_json(&prepared, "requests.prepared")?],
                )?;
                if let Some(target) = request.params.get(JobRequest::REFUND_PARAM) {
                    refunds::remember_target(db, request.customer, target, now)?;
                }
                if job.payment == PaymentState::Free && draft.free_per_day > 0 {
                    count_free_job(db, job.customer, day(now))?;
                }
                settle(db, &transition, now)?;
                Ok(Opened::New(Box::new(transition)))
            })
            .await
    }

    /// Tells a job a fact: its new state, the money moved and the acts asked for become durable together.
    ///
    /// # Errors
    /// [`StoreError::Illegal`] for a fact that cannot be, [`StoreError::NoSuchJob`].
    pub async fn advance(&self, job: JobId, event: JobEvent, now: Timestamp) -> Result<Advanced, StoreError> {
        self.writer.run(move |db| advance(db, job, &event, now)).await
    }

    /// Tells a job that its work is done, and keeps the signed result with it. The result of a job that is no longer
    /// wanted is dropped.
    ///
    /// # Errors
    /// As [`Store::advance`], and [`StoreError::Unwritten`] when the result can't be signed.
    pub async fn finish(&self, job: JobId, work: FinishedWork, now: Timestamp) -> Result<Advanced, StoreError> {
        self.writer
            .run(move |db| {
                let FinishedWork { outcome, sign } = work;
                let advanced = advance(db, job, &JobEvent::RunFinished { usage: outcome.usage }, now)?;
                if advanced.changed {
                    let event = sign(&advanced.job, credit_after(db, &advanced)?, &outcome)
                        .map_err(|problem| StoreError::Unwritten { job, problem })?;
                    db.prepare_cached("INSERT INTO results (job, event, outcome) VALUES (?1, ?2, ?3)")?.execute(
                        params![job.0, to_json(&event, "results.event")?, to_json(&outcome, "results.outcome")?],
                    )?;
                    count_work(db, &advanced.job, &outcome, now)?;
                    zaps::remember_event(db, event.id, job, now)?;
                }
                Ok(advanced)
            })
            .await
    }

    /// Remembers that a request was answered with a refusal, or a ping answered. `false` when it was known before.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn decline(&self, job: JobId, now: Timestamp) -> Result<bool, StoreError> {
        self.writer
            .run(move |db| {
                if known(db, job)? {
                    return Ok(false);
                }
                db.prepare_cached("INSERT INTO declined (id, at) VALUES (?1, ?2)")?
                    .execute(params![job.0, millis(now)])?;
                Ok(true)
            })
            .await
    }

    /// A job with its request and result.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn job(&self, job: JobId) -> Result<Option<StoredJob>, StoreError> {
        self.writer.run(move |db| load(db, job)).await
    }

    /// The jobs whose id begins with these hex digits, for people who type; at most two, to tell one from several.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn jobs_beginning(&self, prefix: String) -> Result<Vec<JobId>, StoreError> {
        self.writer
            .run(move |db| {
                let mut statement =
                    db.prepare_cached("SELECT id FROM jobs WHERE substr(lower(hex(id)), 1, length(?1)) = ?1 LIMIT 2")?;
                let mut rows = statement.query([prefix.to_ascii_lowercase()])?;
                let mut found = Vec::new();
                while let Some(row) = rows.next()? {
                    found.push(JobId(id(row, 0, "jobs.id")?));
                }
                Ok(found)
            })
            .await
    }

    /// Those of `jobs` that exist and are this customer's.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn jobs_of(&self, customer: CustomerId, jobs: Vec<JobId>) -> Result<Vec<JobId>, StoreError> {
        self.writer
            .run(move |db| {
                let mut statement = db.prepare_cached("SELECT 1 FROM jobs WHERE id = ?1 AND customer = ?2")?;
                let mut own = Vec::new();
                for job in jobs {
                    if statement.exists(params![job.0, customer.0])? {
                        own.push(job);
                    }
                }
                Ok(own)
            })
            .await
    }

    /// The job an invoice belongs to. An invoice is shown to nobody before it is committed, so its news finds it here.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn job_of_invoice(&self, payment_hash: PaymentHash) -> Result<Option<JobId>, StoreError> {
        self.look(move |db| {
            let mut statement = db.prepare_cached("SELECT id FROM jobs WHERE payment_hash = ?1")?;
            let mut rows = statement.query([payment_hash.0])?;
            rows.next()?.map(|row| id(row, 0, "jobs.id").map(JobId)).transpose()
        })
        .await
    }

    /// Jobs that are not over: waiting, running or finished.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn unfinished_jobs(&self) -> Result<Vec<Job>, StoreError> {
        self.writer
            .run(|db| {
                let mut statement = db.prepare_cached(
                    "SELECT state FROM jobs WHERE work IN ('waiting', 'running', 'finished') ORDER BY opened_at",
                )?;
                let states = statement.query_map([], |row| row.get::<_, String>(0))?;
                states.map(|state| from_json(&state?, "jobs.state")).collect()
            })
            .await
    }

    /// Invoices a payment is expected of, or held by: as many as there are open quotes and unfinished jobs.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open_invoices(&self) -> Result<Vec<OpenInvoice>, StoreError> {
        self.writer
            .run(move |db| {
                let mut statement = db.prepare_cached(
                    "SELECT state FROM jobs WHERE payment_hash IS NOT NULL AND work IN ('waiting', 'running', 'finished')
                     AND payment IN ('awaiting', 'held', 'settling', 'releasing')
                     UNION ALL
                     SELECT state FROM jobs JOIN outbox ON outbox.job = jobs.id AND outbox.effect = 'cancel-hold'
                     WHERE payment = 'releasing' AND work NOT IN ('waiting', 'running', 'finished')",
                )?;
                invoices(&mut statement, [])
            })
            .await
    }

    /// At most `limit` invoices that were given up at or after `since`, or that a zap made needless, oldest first: what a
    /// late payment may still come for. Strangers decide how many there are, so they are read a few at a time; [`OpenInvoice::changed_at`] of the last
    /// one is where to go on.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn given_up_invoices(&self, since: Timestamp, limit: u32) -> Result<Vec<OpenInvoice>, StoreError> {
        self.writer
            .run(move |db| {
                let mut statement = db.prepare_cached(
                    // Each half with its own limit, so that its index is read no further.
                    "SELECT state FROM (
                         SELECT * FROM (SELECT state, changed_at FROM jobs
                             WHERE payment_hash IS NOT NULL AND payment = 'void' AND changed_at >= ?1
                             ORDER BY changed_at LIMIT ?2)
                         UNION ALL SELECT * FROM (SELECT state, changed_at FROM jobs
                             WHERE zapped = 1 AND changed_at >= ?1 ORDER BY changed_at LIMIT ?2)
                     ) ORDER BY changed_at LIMIT ?2",
                )?;
                invoices(&mut statement, params![millis(since), limit])
            })
            .await
    }

    /// What we owe a customer.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn credit(&self, customer: CustomerId) -> Result<Msat, StoreError> {
        self.writer.run(move |db| books::credit(db, customer)).await
    }
}

fn invoices(
    statement: &mut rusqlite::CachedStatement<'_>,
    params: impl rusqlite::Params,
) -> Result<Vec<OpenInvoice>, StoreError> {
    let states = statement.query_map(params, |row| row.get::<_, String>(0))?;
    let mut invoices = Vec::new();
    for state in states {
        let job: Job = from_json(&state?, "jobs.state")?;
        if let Some(invoice) = job.invoice {
            invoices.push(OpenInvoice {
                job: job.id,
                payment_hash: invoice.payment_hash,
                expires_at: invoice.expires_at,
                payment: job.payment,
                changed_at: job.changed_at,
            });
        }
    }
    Ok(invoices)
}

fn known(db: &Connection, job: JobId) -> Result<bool, StoreError> {
    Ok(db
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM jobs WHERE id = ?1) OR EXISTS (SELECT 1 FROM declined WHERE id = ?1)",
        )?
        .query_row([job.0], |row| row.get(0))?)
}

fn free_jobs(db: &Connection, customer: CustomerId, day: i64) -> Result<u32, StoreError> {
    let jobs: Option<u32> = db
        .prepare_cached("SELECT jobs FROM free_jobs WHERE customer = ?1 AND day = ?2")?
        .query_row(params![customer.0, day], |row| row.get(0))
        .optional()?;
    Ok(jobs.unwrap_or(0))
}

fn count_free_job(db: &Connection, customer: CustomerId, day: i64) -> Result<(), StoreError> {
    db.prepare_cached(
        "INSERT INTO free_jobs (customer, day, jobs) VALUES (?1, ?2, 1)
         ON CONFLICT (customer, day) DO UPDATE SET jobs = jobs + 1",
    )?
    .execute(params![customer.0, day])?;
    Ok(())
}

/// Keeps what a job took for longer than its result.
fn count_work(db: &Connection, job: &Job, outcome: &Outcome, now: Timestamp) -> Result<(), StoreError> {
    // More than fits the column is more than anybody computes.
    let mflops = outcome.mflops().map(|mflops| i64::try_from(mflops).unwrap_or(i64::MAX));
    db.prepare_cached(
        "INSERT INTO work_done (job, kind, at, prompt_tokens, generated_tokens, mflops, sandbox_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![
        job.id.0,
        job.kind.request_kind(),
        millis(now),
        outcome.usage.prompt_tokens,
        outcome.usage.generated_tokens,
        mflops,
        i64::try_from(outcome.usage.compute.wall_ms()).unwrap_or(i64::MAX),
    ])?;
    Ok(())
}

/// The one place a job changes.
pub(super) fn advance(db: &Connection, job: JobId, event: &JobEvent, now: Timestamp) -> Result<Advanced, StoreError> {
    let read: Option<(i64, String)> = db
        .prepare_cached("SELECT version, state FROM jobs WHERE id = ?1")?
        .query_row([job.0], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (version, state) = read.ok_or(StoreError::NoSuchJob(job))?;
    let before: Job = from_json(&state, "jobs.state")?;
    let work = before.work;
    let transition = before.apply(event, now).map_err(|source| StoreError::Illegal { job, source })?;
    if transition.changed {
        let after = &transition.job;
        let changed = db
            .prepare_cached(
                "UPDATE jobs SET work = ?3, payment = ?4, payment_hash = ?5, changed_at = ?6, state = ?7,
                 zapped = ?8, version = version + 1 WHERE id = ?1 AND version = ?2",
            )?
            .execute(params![
                job.0,
                version,
                after.work.word(),
                after.payment.word(),
                after.invoice.as_ref().map(|invoice| invoice.payment_hash.0),
                millis(now),
                to_json(after, "jobs.state")?,
                after.payment == PaymentState::Settled && after.paid_by == PaidBy::Zap,
            ])?;
        if changed != 1 {
            return Err(StoreError::Conflict(job));
        }
    }
    settle(db, &transition, now)?;
    let Transition { job, effects, changed, .. } = transition;
    Ok(Advanced { job, effects, changed, before: work })
}

/// Writes what a move asks for besides the job itself.
fn settle(db: &Connection, transition: &Transition, now: Timestamp) -> Result<(), StoreError> {
    for key in &transition.settled_effects {
        outbox::take(db, transition.job.id, *key)?;
    }
    for effect in transition.effects.iter().filter(|effect| effect.key().is_durable()) {
        outbox::put(db, transition.job.id, effect, now)?;
    }
    for entry in &transition.entries {
        books::post(db, entry)?;
    }
    Ok(())
}

/// The customer's credit once the job is paid: what is owed now, and what will come back of a payment still expected.
fn credit_after(db: &Connection, advanced: &Advanced) -> Result<Msat, StoreError> {
    let job = &advanced.job;
    let now = books::credit(db, job.customer)?;
    let expected = advanced
        .effects
        .iter()
        .find_map(|effect| match effect {
            Effect::IssueInvoice { amount } => Some(*amount),
            Effect::SettleHold => job.invoice.as_ref().map(|invoice| invoice.amount),
            _ => None,
        })
        .unwrap_or(Msat::ZERO);
    let cost = job.usage.map_or(Msat::ZERO, |usage| job.quote.cost(usage));
    let back = if job.cost.is_some() { Msat::ZERO } else { job.escrow.saturating_add(expected).saturating_sub(cost) };
    Ok(now.saturating_add(back))
}

fn load(db: &Connection, job: JobId) -> Result<Option<StoredJob>, StoreError> {
    type Columns = (String, Option<String>, Option<String>, Option<String>, Option<String>);
    let read: Option<Columns> = db
        .prepare_cached(
            "SELECT state, request, prepared, event, outcome FROM jobs
             LEFT JOIN requests ON requests.job = jobs.id LEFT JOIN results ON results.job = jobs.id WHERE jobs.id = ?1",
        )?
        .query_row([job.0], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))
        .optional()?;
    let Some((state, request, prepared, event, outcome)) = read else { return Ok(None) };
    Ok(Some(StoredJob {
        job: from_json(&state, "jobs.state")?,
        request: request.map(|json| from_json(&json, "requests.request")).transpose()?,
        prepared: prepared.map(|json| from_json(&json, "requests.prepared")).transpose()?,
        result: event.map(|json| from_json(&json, "results.event")).transpose()?,
        outcome: outcome.map(|json| from_json(&json, "results.outcome")).transpose()?,
    }))
}
