//! `coinop earnings`: what was earned, by day and kind.

use std::process::ExitCode;

use anyhow::Result;
use comfy_table::{Cell, CellAlignment};
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::exit::Exit;
use super::{Globals, table};
use crate::money::MsatDelta;

const EXAMPLES: &str = "\
Examples:
  coinop earnings
  coinop earnings --since 2026-11-01 --json";

/// Show what was earned, by day (UTC) and kind of job
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct EarningsArgs {
    /// From this day on (UTC)
    #[arg(long, value_name = "YYYY-MM-DD")]
    since: Option<Date>,
}

/// Runs the command.
pub async fn run(args: EarningsArgs, globals: &Globals) -> Result<ExitCode> {
    let since = args.since.map(|day| day.to_zoned(TimeZone::UTC)).transpose()?.map(|midnight| midnight.timestamp());
    let store = globals.open_store()?;
    let days = store.earnings(since).await?;
    globals.print(&days, || {
        if days.is_empty() {
            return "Nothing earned yet.\n".into();
        }
        let mut table = table::new(["day (UTC)", "kind", "jobs", "earned"]);
        let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        for line in &days {
            table.add_row([
                Cell::new(line.day),
                Cell::new(line.kind),
                right(line.jobs.to_string()),
                right(line.earned.to_string()),
            ]);
        }
        let total = days.iter().fold(MsatDelta::ZERO, |sum, line| sum.checked_add(line.earned).unwrap_or(sum));
        let jobs: u32 = days.iter().map(|line| line.jobs).sum();
        table.add_row([Cell::new("total"), Cell::new(""), right(jobs.to_string()), right(total.to_string())]);
        format!("{table}\n")
    })?;
    Ok(Exit::Ok.into())
}
