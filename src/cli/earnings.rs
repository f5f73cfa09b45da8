//! `coinop earnings`: what was earned, and the work that was done for it, by day and kind.

use std::process::ExitCode;

use anyhow::Result;
use comfy_table::{Cell, CellAlignment};
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::exit::Exit;
use super::{Globals, table};
use crate::money::MsatDelta;
use crate::store::WorkDone;

const EXAMPLES: &str = "\
'paid' counts the jobs something was earned from; 'delivered' counts free ones too, and so do tokens and mflops (2 x parameters x
tokens / 1,000,000, of the models whose parameter count is known) and the time in sandboxes.

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
        let mut table =
            table::new(["day (UTC)", "kind", "paid", "earned", "delivered", "read", "written", "mflops", "sandbox"]);
        let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        let row = |day: Cell, kind: Cell, jobs: u32, earned: MsatDelta, work: WorkDone| {
            let mflops = work.mflops.map_or_else(String::new, |mflops| mflops.to_string());
            let counts = [work.prompt_tokens.to_string(), work.generated_tokens.to_string(), mflops];
            let mut cells = vec![day, kind, right(jobs.to_string()), right(earned.to_string())];
            cells.push(right(work.delivered.to_string()));
            cells.extend(counts.map(right));
            cells.push(right(in_a_sandbox(work.sandbox_ms)));
            cells
        };
        for line in &days {
            table.add_row(row(Cell::new(line.day), Cell::new(line.kind), line.jobs, line.earned, line.work));
        }
        let total = days.iter().fold(MsatDelta::ZERO, |sum, line| sum.checked_add(line.earned).unwrap_or(sum));
        let jobs: u32 = days.iter().map(|line| line.jobs).sum();
        let work = days.iter().fold(WorkDone::default(), |sum, line| sum.plus(line.work));
        table.add_row(row(Cell::new("total"), Cell::new(""), jobs, total, work));
        format!("{table}\n")
    })?;
    Ok(Exit::Ok.into())
}

/// Time in sandboxes in whole seconds, begun ones included; nothing where there was none.
fn in_a_sandbox(millis: u64) -> String {
    if millis == 0 { String::new() } else { format!("{} s", millis.div_ceil(1_000)) }
}
