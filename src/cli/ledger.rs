//! `coinop ledger`: the books.

use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum;
use comfy_table::{Cell, CellAlignment};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::exit::{CommandError, Exit};
use super::{Globals, globals, table};
use crate::store::{AccountBalance, EntryRow};

const EXAMPLES: &str = "\
Double entry: the postings of an entry sum to zero. What we have (wallet, and address for zaps that another wallet than
ours received) and what refunds cost (fees) is positive; what we owe customers (customer:<key>), hold for unfinished jobs
(escrow:<job>), are paying back (refunds) and have earned (income:<kind>) is negative.

Exit codes: 0 the books are in order, 1 they are not (what is wrong is printed).

Examples:
  coinop ledger
  coinop ledger --balances
  coinop ledger --format csv > books.csv
  coinop ledger --since 2026-11-01 --json";

/// Show the books, and check them
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct LedgerArgs {
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
    let since = args.since.map(|day| day.to_zoned(TimeZone::UTC)).transpose()?.map(|midnight| midnight.timestamp());
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
