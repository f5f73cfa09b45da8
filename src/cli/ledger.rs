//! `coinop ledger`: the books, and whether the wallet agrees with them.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Subcommand, ValueEnum};
use comfy_table::{Cell, CellAlignment};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::exit::{CommandError, Exit};
use super::{Globals, globals, table};
use crate::daemon::wiring::wallets;
use crate::money::Msat;
use crate::provider::audit::WalletSide;
use crate::provider::{self, AuditReport, DifferenceKind};
use crate::store::{AccountBalance, EntryRow, Store};
use crate::wallet::Wallet;

/// How long a serving provider is given to write down a payment that just came.
const ON_ITS_WAY: Duration = Duration::from_secs(2);

const EXAMPLES: &str = "\
Double entry: the postings of an entry sum to zero. What we have (wallet, and address for zaps that another wallet than
ours received) and what refunds cost (fees) is positive; what we owe customers (customer:<key>), hold for unfinished jobs
(escrow:<job>), are paying back (refunds) and have earned (income:<kind>) is negative.

Exit codes: 0 the books are in order, 1 they are not (what is wrong is printed).

Examples:
  coinop ledger
  coinop ledger --balances
  coinop ledger audit
  coinop ledger --format csv > books.csv
  coinop ledger --since 2026-11-01 --json";

const AUDIT_EXAMPLES: &str = "\
Every settled invoice of the wallet that is ours must be in the books with its amount, and every payment in the books must
be settled in the wallet. Nothing is changed: 'coinop serve' compares the last days by itself and honours what it finds.
Works beside a running 'coinop serve'.

Exit codes: 0 they agree, 1 they do not (each difference is listed with what to do about it), or the wallet does not answer.

Examples:
  coinop ledger audit
  coinop ledger audit --since 2026-11-01 --json | jq '.differences[]'";

#[derive(Debug, Subcommand)]
enum LedgerCommand {
    /// Compare the books with the wallet
    #[command(after_help = AUDIT_EXAMPLES)]
    Audit {
        /// From this day on (UTC)
        #[arg(long, value_name = "YYYY-MM-DD")]
        since: Option<Date>,
    },
}

/// Show the books, and check them
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct LedgerArgs {
    #[command(subcommand)]
    command: Option<LedgerCommand>,
    /// From this day on (UTC)
    #[arg(long, value_name = "YYYY-MM-DD")]
    since: Option<Date>,
    /// Only the accounts and what is in them
    #[arg(long, conflicts_with = "since")]
    balances: bool,
    /// How to print it (--json comes first)
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// How to print the books.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table for people
    #[default]
    Table,
    /// Comma-separated values for a spreadsheet: times in UTC (RFC 3339), amounts in msat
    Csv,
}

#[derive(Serialize)]
struct Books {
    entries: Vec<EntryRow>,
    balances: Vec<AccountBalance>,
    problems: Vec<String>,
}

/// Runs the command.
pub async fn run(args: LedgerArgs, globals: &Globals) -> Result<ExitCode> {
    if let Some(LedgerCommand::Audit { since }) = args.command {
        return audit(beginning(since)?, globals).await;
    }
    let since = beginning(args.since)?;
    let store = globals.open_store()?;
    let entries = if args.balances { Vec::new() } else { store.ledger(since, None).await? };
    let books = Books { entries, balances: store.balances().await?, problems: store.check_books().await? };
    match (globals.json, args.format, args.balances) {
        (false, Format::Csv, true) => globals::print(&csv(&["account", "msat"], &books.balances)?)?,
        (false, Format::Csv, false) => {
            globals::print(&csv(&["entry", "at", "job", "reason", "account", "msat"], &books.entries)?)?;
        }
        _ => globals.print(&books, || text(&books, args.balances))?,
    }
    if books.problems.is_empty() {
        Ok(Exit::Ok.into())
    } else {
        Err(CommandError::failure(format!("the books are not in order: {}", books.problems.join("; "))).into())
    }
}

/// The first moment of a day.
fn beginning(day: Option<Date>) -> Result<Option<Timestamp>> {
    Ok(day.map(|day| day.to_zoned(TimeZone::UTC)).transpose()?.map(|midnight| midnight.timestamp()))
}

/// `coinop ledger audit`
async fn audit(since: Option<Timestamp>, globals: &Globals) -> Result<ExitCode> {
    let (paths, config) = globals.load_config()?;
    let store = globals.open_store()?;
    let opened = wallets::for_command(&config, &paths, || globals.open_identity(&config)).await?;
    let opened = opened.ok_or_else(|| CommandError::usage("no wallet is configured: there is nothing to compare"))?;
    let compared = compare(&store, opened.wallet.as_ref(), since).await;
    opened.close().await;
    let report = compared?;
    globals.print(&report, || report_text(&report))?;
    match (report.differences.len(), report.unanswered) {
        (0, 0) => Ok(Exit::Ok.into()),
        (0, unanswered) => Err(CommandError::failure(format!("the wallet gave no answer about {unanswered} invoices"))
            .help("try again when it is there")
            .into()),
        (differences, _) => {
            let places = if differences == 1 { "place" } else { "places" };
            Err(CommandError::failure(format!("the books and the wallet differ in {differences} {places}")).into())
        }
    }
}

async fn compare(store: &Store, wallet: &dyn Wallet, since: Option<Timestamp>) -> Result<AuditReport> {
    let mut report = provider::audit(store, wallet, since).await?;
    if report.differences.iter().any(|difference| difference.kind == DifferenceKind::Unbooked) {
        // A provider that is serving may be writing it down just now.
        tokio::time::sleep(ON_ITS_WAY).await;
        report = provider::audit(store, wallet, since).await?;
    }
    Ok(report)
}

fn report_text(report: &AuditReport) -> String {
    let compared = format!(
        "Compared {} payments in the books with {} settled invoices of the wallet{}.\n",
        report.booked,
        report.settled,
        match report.wallet_side {
            WalletSide::History => "",
            WalletSide::LookUps => " (looked up one by one: it tells no history, so what else came is not seen)",
        }
    );
    if report.differences.is_empty() {
        return compared;
    }
    let right = |amount: Option<Msat>| {
        Cell::new(amount.map_or_else(|| "-".into(), |amount| amount.to_string())).set_alignment(CellAlignment::Right)
    };
    let id = |text: Option<String>| text.map_or_else(String::new, |text| text[..12].to_owned());
    let mut differences = table::new(["what", "job", "invoice", "at (UTC)", "booked", "in the wallet"]);
    for difference in &report.differences {
        differences.add_row([
            Cell::new(difference.kind.word()),
            Cell::new(id(difference.job.map(|job| job.to_string()))),
            Cell::new(id(difference.payment_hash.map(|hash| hash.to_string()))),
            Cell::new(difference.at.map_or_else(String::new, table::time)),
            right(difference.booked),
            right(difference.in_wallet),
        ]);
    }
    let kinds: BTreeSet<DifferenceKind> = report.differences.iter().map(|difference| difference.kind).collect();
    let advice: String = kinds.iter().map(|kind| format!("{}: {}\n", kind.word(), kind.what_to_do())).collect();
    format!("{compared}\n{differences}\n\n{advice}")
}

/// The heading is there without rows too.
fn csv(heading: &[&str], rows: &[impl Serialize]) -> Result<String> {
    let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    writer.write_record(heading)?;
    for row in rows {
        writer.serialize(row)?;
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}

fn text(books: &Books, only_balances: bool) -> String {
    if books.balances.is_empty() && books.entries.is_empty() {
        return "The books are empty.\n".into();
    }
    if only_balances { accounts_text(&books.balances) } else { books_text(&books.entries, &books.balances) }
}

fn accounts_text(accounts: &[AccountBalance]) -> String {
    let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    let mut balances = table::new(["account", "balance"]);
    for line in accounts {
        balances.add_row([Cell::new(short(&line.account.to_string())), right(line.balance.to_string())]);
    }
    format!("{balances}\n")
}

/// Entries and accounts as tables.
pub(super) fn books_text(rows: &[EntryRow], accounts: &[AccountBalance]) -> String {
    let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    let mut entries = table::new(["entry", "at (UTC)", "job", "why", "account", "amount"]);
    let mut last = None;
    for row in rows {
        let first = last.replace(row.entry) != Some(row.entry);
        let head = |text: String| Cell::new(if first { text } else { String::new() });
        entries.add_row([
            head(row.entry.to_string()),
            head(table::time(row.at)),
            head(row.job.map(|job| job.to_string()[..12].to_owned()).unwrap_or_default()),
            head(row.reason.to_string()),
            Cell::new(short(&row.account.to_string())),
            right(row.amount.to_string()),
        ]);
    }
    format!("{entries}\n\n{}", accounts_text(accounts))
}

/// An account's name with its id cut to what tells it apart.
fn short(account: &str) -> String {
    match account.split_once(':') {
        Some((sort, id)) if id.len() == 64 => format!("{sort}:{}", &id[..12]),
        _ => account.to_owned(),
    }
}
