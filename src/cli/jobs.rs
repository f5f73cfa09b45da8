//! `coinop jobs`: what was ordered, and calling one off.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Subcommand, ValueEnum};
use comfy_table::{Cell, CellAlignment};
use serde::Serialize;

use super::exit::{CommandError, Exit};
use super::{Globals, table};
use crate::job::{Canceller, Job, JobEvent, JobId, Outcome, TokenRate, WorkState};
use crate::provider::Clock;
use crate::store::{JobFilter, Store, StoredJob};

/// Jobs listed unless told otherwise.
const DEFAULT_LIMIT: u32 = 50;

/// Hex digits of a job's id shown in a list: enough to name one.
const SHORT_ID: usize = 12;

/// List the jobs that were ordered, look at one, or cancel one
#[derive(Debug, clap::Args)]
pub struct JobsArgs {
    #[command(subcommand)]
    command: JobsCommand,
}

const LIST_EXAMPLES: &str = "\
Examples:
  coinop jobs list
  coinop jobs list --state running
  coinop jobs list --limit 0 --json | jq '.[].paid_msat'";

const SHOW_EXAMPLES: &str = "\
Prompts and results are shown only with --content.

Examples:
  coinop jobs show 3f2a91
  coinop jobs show 3f2a91 --content --json";

const CANCEL_EXAMPLES: &str = "\
Works beside a running 'coinop serve', which stops the work within a second or two. What the customer paid becomes credit;
held money goes back.

Examples:
  coinop jobs cancel 3f2a91";

#[derive(Debug, Subcommand)]
enum JobsCommand {
    /// List jobs, newest first
    #[command(after_help = LIST_EXAMPLES)]
    List {
        /// Only jobs in this state
        #[arg(long, value_enum)]
        state: Option<State>,
        /// At most so many; 0 for all
        #[arg(long, default_value_t = DEFAULT_LIMIT, value_name = "JOBS")]
        limit: u32,
    },
    /// Show one job
    #[command(after_help = SHOW_EXAMPLES)]
    Show {
        /// The request event's id, or its first digits
        id: String,
        /// Show the prompt and the result too
        #[arg(long)]
        content: bool,
    },
    /// Cancel a job; what was paid becomes the customer's credit
    #[command(after_help = CANCEL_EXAMPLES)]
    Cancel {
        /// The request event's id, or its first digits
        id: String,
    },
}

/// How far the work is.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum State {
    /// Quoted, not paid yet
    Waiting,
    /// Being done, or queued for it
    Running,
    /// Done, not out yet
    Finished,
    /// The customer has it
    Delivered,
    /// Given up
    Failed,
    /// Called off
    Cancelled,
    /// Never paid
    Expired,
}

impl From<State> for WorkState {
    fn from(state: State) -> Self {
        match state {
            State::Waiting => Self::Waiting,
            State::Running => Self::Running,
            State::Finished => Self::Finished,
            State::Delivered => Self::Delivered,
            State::Failed => Self::Failed,
            State::Cancelled => Self::Cancelled,
            State::Expired => Self::Expired,
        }
    }
}

/// A job as scripts see it.
#[derive(Debug, Serialize)]
struct Line {
    id: JobId,
    customer: String,
    kind: u16,
    work: &'static str,
    payment: &'static str,
    terms: &'static str,
    price_msat: u64,
    paid_msat: u64,
    cost_msat: Option<u64>,
    credited_msat: u64,
    prompt_tokens: Option<u32>,
    generated_tokens: Option<u32>,
    shown_tokens: Option<u32>,
    reason: Option<String>,
    opened_at: jiff::Timestamp,
    changed_at: jiff::Timestamp,
}

impl From<&Job> for Line {
    fn from(job: &Job) -> Self {
        Self {
            id: job.id,
            customer: job.customer.to_string(),
            kind: job.kind.request_kind(),
            work: job.work.word(),
            payment: job.payment.word(),
            terms: job.quote.terms.word(),
            price_msat: job.quote.price.as_msat(),
            paid_msat: job.paid.as_msat(),
            cost_msat: job.cost.map(crate::money::Msat::as_msat),
            credited_msat: job.credited.as_msat(),
            prompt_tokens: job.usage.map(|usage| usage.prompt_tokens),
            generated_tokens: job.usage.map(|usage| usage.generated_tokens),
            shown_tokens: job.shown.map(|shown| shown.generated_tokens),
            reason: job.failure.as_ref().map(|failure| failure.text.clone()),
            opened_at: job.opened_at,
            changed_at: job.changed_at,
        }
    }
}

/// Runs the command.
pub async fn run(args: JobsArgs, globals: &Globals) -> Result<ExitCode> {
    let store = globals.open_store()?;
    match args.command {
        JobsCommand::List { state, limit } => {
            let filter = JobFilter { work: state.map(Into::into), since: None, limit };
            let jobs = store.list_jobs(filter).await?;
            let lines: Vec<Line> = jobs.iter().map(Line::from).collect();
            globals.print(&lines, || list(&jobs))?;
        }
        JobsCommand::Show { id, content } => show(&store, &id, content, globals).await?,
        JobsCommand::Cancel { id } => cancel(&store, &id, globals).await?,
    }
    Ok(Exit::Ok.into())
}

fn list(jobs: &[Job]) -> String {
    if jobs.is_empty() {
        return "No jobs.\n".into();
    }
    let mut table = table::new(["job", "opened (UTC)", "kind", "work", "payment", "price", "cost", "tokens"]);
    for job in jobs {
        table.add_row([
            Cell::new(&job.id.to_string()[..SHORT_ID]),
            Cell::new(table::time(job.opened_at)),
            Cell::new(job.kind.request_kind()),
            Cell::new(job.work.word()),
            Cell::new(job.payment.word()),
            Cell::new(job.quote.price).set_alignment(CellAlignment::Right),
            Cell::new(job.cost.map_or_else(String::new, |cost| cost.to_string())).set_alignment(CellAlignment::Right),
            Cell::new(job.usage.map_or_else(String::new, |usage| usage.total().to_string()))
                .set_alignment(CellAlignment::Right),
        ]);
    }
    format!("{table}\n")
}

#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    line: Line,
    model: Option<String>,
    digest: Option<String>,
    parameters: Option<u64>,
    mflops: Option<u64>,
    duration_ms: Option<u64>,
    tokens_per_second: Option<TokenRate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<String>,
}

async fn show(store: &Store, id: &str, content: bool, globals: &Globals) -> Result<()> {
    let id = find(store, id).await?;
    let StoredJob { job, request, outcome, .. } =
        store.job(id).await?.ok_or_else(|| CommandError::failure(format!("there is no job {id}")))?;
    let shown = Shown {
        line: Line::from(&job),
        model: outcome.as_ref().and_then(|outcome| outcome.model.clone()),
        digest: outcome.as_ref().and_then(|outcome| outcome.digest.clone()),
        parameters: outcome.as_ref().and_then(|outcome| outcome.parameters),
        mflops: outcome.as_ref().and_then(Outcome::mflops),
        duration_ms: outcome.as_ref().map(|outcome| u64::try_from(outcome.duration.as_millis()).unwrap_or(u64::MAX)),
        tokens_per_second: outcome.as_ref().and_then(Outcome::tokens_per_second),
        request: if content {
            request.and_then(|request| serde_json::from_str(&request.event_json).ok())
        } else {
            None
        },
        result: outcome.filter(|_| content).map(|outcome| outcome.content),
    };
    let text = || -> Result<String> {
        let serde_json::Value::Object(fields) = serde_json::to_value(&shown)? else { return Ok(String::new()) };
        let mut table = table::new(["field", "value"]);
        for (field, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
            table.add_row([field.clone(), value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)]);
        }
        Ok(format!("{table}\n"))
    };
    let text = text()?;
    globals.print(&shown, || text)
}

async fn cancel(store: &Store, id: &str, globals: &Globals) -> Result<()> {
    let id = find(store, id).await?;
    let cancelled = store.advance(id, JobEvent::cancelled(Canceller::Operator), Clock::system().now()).await?;
    let job = cancelled.job;
    if !cancelled.changed {
        return Err(CommandError::failure(format!("job {id} can no longer be cancelled: it is {}", job.work.word()))
            .help("only jobs that wait or run can be; 'coinop jobs list --state running' lists those that run")
            .into());
    }
    globals.print(&Line::from(&job), || {
        let returned = if job.credited.is_zero() {
            String::new()
        } else {
            format!("; {} became the customer's credit", job.credited)
        };
        format!("Cancelled job {id}{returned}. A running 'coinop serve' stops it and tells the customer.\n")
    })
}

/// The job whose id begins with what was typed.
async fn find(store: &Store, typed: &str) -> Result<JobId> {
    if typed.is_empty() || typed.len() > 64 || !typed.chars().all(|c| c.is_ascii_hexdigit()) {
        return Err(CommandError::usage(format!("'{}' is no job id", typed.chars().take(80).collect::<String>()))
            .help("give the hex digits 'coinop jobs list' shows, or the first few of them")
            .into());
    }
    match store.jobs_beginning(typed.to_owned()).await?.as_slice() {
        [id] => Ok(*id),
        [] => Err(CommandError::failure(format!("no job's id begins with {typed}")).into()),
        _ => Err(CommandError::usage(format!("several jobs' ids begin with {typed}")).help("give more digits").into()),
    }
}
