//! `coinop payments`: what the buying side paid, to whom, and what it got for it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Subcommand;
use comfy_table::{Cell, CellAlignment};
use jiff::Timestamp;
use serde::Serialize;

use super::exit::{CommandError, Exit};
use super::purse::{self, PurseKind};
use super::{Globals, globals, table};
use crate::job::JobId;
use crate::job::id::{EventId, PaymentHash, ProviderId};
use crate::money::Msat;
use crate::provider::Clock;
use crate::requester::{Book, Receipt};
use crate::store::purchases::{Purchases, Received, SpendingState, Spent};

/// Payments listed unless told otherwise.
const DEFAULT_LIMIT: u32 = 50;

/// Hex digits of an id shown in a list: enough to name one.
const SHORT_ID: usize = 12;

/// See what 'coinop request' paid, to whom, and the receipts
#[derive(Debug, clap::Args)]
pub struct PaymentsArgs {
    #[command(subcommand)]
    command: PaymentsCommand,
}

const LIST_EXAMPLES: &str = "\
States: paying (under way or in doubt: reserved in the budget, never made twice), paid, failed (for certain: nothing was
paid), lapsed (in doubt until a day after its invoice expired, and the wallet knows nothing of it: no longer reserved).
The wallet is asked about payments in doubt first, unless --offline.

Examples:
  coinop payments list
  coinop payments list --offline --json | jq '.payments[] | select(.state == \"paid\").amount_msat'";

const RECEIPT_EXAMPLES: &str = "\
The receipt names the request and the signed result by their event ids, who signed it, what was paid, and the preimage: whoever
has it can prove the payment, so it is shown to nobody by itself.

Examples:
  coinop payments receipt 3f2a91
  coinop payments receipt 3f2a91 --out receipt.json";

#[derive(Debug, Subcommand)]
enum PaymentsCommand {
    /// List payments, newest first, and what is left of the budget
    #[command(after_help = LIST_EXAMPLES)]
    List {
        /// At most so many; 0 for all
        #[arg(long, default_value_t = DEFAULT_LIMIT, value_name = "PAYMENTS")]
        limit: u32,
        /// Do not ask the wallet about payments in doubt
        #[arg(long)]
        offline: bool,
    },
    /// Show the receipt of a job
    #[command(after_help = RECEIPT_EXAMPLES)]
    Receipt {
        /// The request event's id, or its first digits
        job: String,
        /// Write it to this file, readable by you alone
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

/// A payment as it is listed. The proof is in the receipt only.
#[derive(Serialize)]
struct Line {
    payment_hash: PaymentHash,
    job: JobId,
    provider: ProviderId,
    network: String,
    amount_msat: u64,
    fees_msat: Option<u64>,
    max_fee_msat: u64,
    state: SpendingState,
    began_at: Timestamp,
    ended_at: Option<Timestamp>,
    invoice_expires_at: Timestamp,
    problem: Option<String>,
    /// The result event, when one came.
    result: Option<EventId>,
}

impl Line {
    fn new(spent: &Spent, receipts: &[Received]) -> Self {
        let spending = &spent.spending;
        Self {
            payment_hash: spending.payment_hash,
            job: spending.job,
            provider: spending.provider,
            network: spending.network.to_string(),
            amount_msat: spending.amount.as_msat(),
            fees_msat: spent.fees.map(Msat::as_msat),
            max_fee_msat: spending.max_fee.as_msat(),
            state: spent.state,
            began_at: spent.began_at,
            ended_at: spent.ended_at,
            invoice_expires_at: spending.invoice_expires_at,
            problem: spent.problem.clone(),
            result: receipts.iter().find(|receipt| receipt.job == spending.job).map(|receipt| receipt.result),
        }
    }
}

#[derive(Serialize)]
struct Listed {
    payments: Vec<Line>,
    /// Of the configured network.
    budget_msat: Option<u64>,
    left_msat: Option<u64>,
}

/// What a purchase is proven with.
#[derive(Serialize)]
pub struct PrintedReceipt {
    /// The request event.
    request: JobId,
    /// The result event, signed by `provider`.
    result: EventId,
    /// Who did the work.
    provider: ProviderId,
    /// When the result came.
    at: Timestamp,
    /// What the provider says it cost.
    cost_msat: Option<u64>,
    /// What the provider says it owes us.
    credit_msat: Option<u64>,
    /// What was paid for it, if anything.
    payment: Option<Proof>,
}

#[derive(Serialize)]
struct Proof {
    state: SpendingState,
    amount_msat: u64,
    fees_msat: Option<u64>,
    network: String,
    payment_hash: PaymentHash,
    /// SHA-256 of it is the payment hash.
    preimage: Option<String>,
    at: Option<Timestamp>,
}

impl std::fmt::Debug for PrintedReceipt {
    /// Without the proof: it must not reach logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PrintedReceipt").field("request", &self.request).finish_non_exhaustive()
    }
}

impl PrintedReceipt {
    /// The receipt of a purchase that just ended.
    ///
    /// # Errors
    /// When the book can't be read.
    pub async fn of(receipt: &Receipt, book: Option<&Book>) -> Result<Self> {
        let told = &receipt.result.receipt;
        let received = Received {
            job: receipt.job,
            provider: receipt.provider,
            result: receipt.event,
            at: Clock::system().now(),
            cost: told.paid,
            credit: told.credit,
        };
        let spent = match book {
            Some(book) => book.purchases.of_job(receipt.job).await?,
            None => Vec::new(),
        };
        Ok(Self::new(&received, &spent))
    }

    fn new(received: &Received, spent: &[Spent]) -> Self {
        let payment = spent.iter().find(|spent| spent.state != SpendingState::Failed).map(|spent| Proof {
            state: spent.state,
            amount_msat: spent.spending.amount.as_msat(),
            fees_msat: spent.fees.map(Msat::as_msat),
            network: spent.spending.network.to_string(),
            payment_hash: spent.spending.payment_hash,
            preimage: spent.preimage.map(hex::encode),
            at: spent.ended_at,
        });
        Self {
            request: received.job,
            result: received.result,
            provider: received.provider,
            at: received.at,
            cost_msat: received.cost.map(Msat::as_msat),
            credit_msat: received.credit.map(Msat::as_msat),
            payment,
        }
    }

    /// How far the payment is, if there is one.
    pub fn payment_state(&self) -> Option<SpendingState> {
        self.payment.as_ref().map(|payment| payment.state)
    }

    /// Whether the wallet has not said yet that it was paid.
    pub fn is_in_doubt(&self) -> bool {
        self.payment_state().is_some_and(|state| state != SpendingState::Paid)
    }

    /// As JSON, which is its only form.
    ///
    /// # Errors
    /// Never; the library thinks it may.
    pub fn json(&self) -> Result<String> {
        Ok(format!("{}\n", serde_json::to_string_pretty(self)?))
    }

    /// Writes it to a file that only its owner reads.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = self.json()?;
        write_private(path, &text).with_context(|| format!("the receipt can't be written to {}", path.display()))
    }
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut options = std::fs::OpenOptions::new();
    options.create(true).truncate(true).write(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    let mut file = options.open(path)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        // One that was there before may be anybody's to read.
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    }
    file.write_all(text.as_bytes())
}

/// Runs the command.
pub async fn run(args: PaymentsArgs, globals: &Globals) -> Result<ExitCode> {
    let (paths, config) = globals.load_config_or_default()?;
    if !paths.payments().exists() {
        return Err(CommandError::failure(format!("there is no payments book at {}", paths.payments().display()))
            .help("it is made by the first 'coinop request' that pays; is --home right?")
            .into());
    }
    let (book, closing) = purse::book(&config, &paths)?;
    let ended = match args.command {
        PaymentsCommand::List { limit, offline } => {
            let kind = PurseKind::Configured;
            let network = purse::network(&config, kind);
            let now = Clock::system().now();
            if !offline && !book.purchases.in_doubt(network, now).await?.is_empty() {
                let open = || globals.open_identity(&config);
                match purse::wallet(&config, &paths, kind, network, open).await {
                    Ok(Some(opened)) => {
                        let settled = purse::settle_doubts(&book, opened.wallet.as_ref(), network, globals).await;
                        opened.close().await;
                        settled?;
                    }
                    Ok(None) => {}
                    Err(problem) => eprintln!("The wallet can't be asked about payments in doubt: {problem:#}"),
                }
            }
            let left = match book.max_per_day {
                Some(budget) => Some(book.purchases.left(network, budget, now).await?),
                None => None,
            };
            list(&book.purchases, limit, book.max_per_day.zip(left), globals).await
        }
        PaymentsCommand::Receipt { job, out } => receipt(&book.purchases, &job, out.as_deref(), globals).await,
    };
    drop(book);
    tokio::task::spawn_blocking(move || closing.wait()).await?;
    ended.map(|()| Exit::Ok.into())
}

async fn list(book: &Purchases, limit: u32, budget: Option<(Msat, Msat)>, globals: &Globals) -> Result<()> {
    let receipts = book.receipts(0).await?;
    let payments: Vec<Line> = book.payments(limit).await?.iter().map(|spent| Line::new(spent, &receipts)).collect();
    let listed = Listed {
        payments,
        budget_msat: budget.map(|(budget, _)| budget.as_msat()),
        left_msat: budget.map(|(_, left)| left.as_msat()),
    };
    globals.print(&listed, || {
        let mut text = if listed.payments.is_empty() { "No payments.\n".into() } else { lines(&listed.payments) };
        if let Some((budget, left)) = budget {
            text.push_str(&format!("\n{left} is left of the {budget} for 24 hours.\n"));
        }
        text
    })
}

fn lines(payments: &[Line]) -> String {
    let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    let sats = |msat: u64| Msat::from_msat(msat).unwrap_or(Msat::MAX).to_string();
    let mut table = table::new(["job", "begun (UTC)", "provider", "amount", "fees", "state", "result"]);
    for line in payments {
        table.add_row([
            Cell::new(&line.job.to_string()[..SHORT_ID]),
            Cell::new(table::time(line.began_at)),
            Cell::new(&line.provider.to_string()[..SHORT_ID]),
            right(sats(line.amount_msat)),
            right(line.fees_msat.map_or_else(String::new, sats)),
            Cell::new(line.state.word()),
            Cell::new(line.result.map_or_else(String::new, |result| result.to_string()[..SHORT_ID].to_owned())),
        ]);
    }
    format!("{table}\n")
}

async fn receipt(book: &Purchases, typed: &str, out: Option<&Path>, globals: &Globals) -> Result<()> {
    if typed.is_empty() || typed.len() > 64 || !typed.chars().all(|c| c.is_ascii_hexdigit()) {
        return Err(CommandError::usage("that is no job id")
            .help("give the hex digits 'coinop payments list' shows, or the first few of them")
            .into());
    }
    let found = book.receipts_beginning(typed.to_owned()).await?;
    let received = match found.as_slice() {
        [received] => received,
        [] => return Err(CommandError::failure(format!("no result came for a job that begins with {typed}")).into()),
        _ => {
            return Err(CommandError::usage(format!("several jobs' ids begin with {typed}"))
                .help("give more digits")
                .into());
        }
    };
    let printed = PrintedReceipt::new(received, &book.of_job(received.job).await?);
    match out {
        Some(path) => printed.write(path),
        // There is no other form of it: it is for programs, and for keeping.
        None => {
            if printed.is_in_doubt() && !globals.quiet {
                eprintln!("The wallet has not said yet whether it was paid.");
            }
            globals::print(&printed.json()?)
        }
    }
}
