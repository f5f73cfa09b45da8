//! `coinop doctor`: does everything work, and if not, what to do.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;

use super::exit::Exit;
use super::{Globals, report, servers};
use crate::config::Config;
use crate::daemon::checkup::{self, Checkup, Finding, Step, Verdict};
use crate::identity::Identity;

const EXAMPLES: &str = "\
Tries the real things: each relay gets an event that nobody keeps, the wallet makes an invoice over
1 sat that is never to be paid, each model server is asked, a model in the process is loaded. Nothing secret is printed. It may run beside
'coinop serve', but the model is then in memory twice: use --skip-model.

Exit codes: 0 nothing failed (warnings may be there), 1 something did; the cures stand beside it.

Examples:
  coinop doctor
  coinop doctor --skip-model --password-file /run/secrets/coinop
  coinop doctor --json | jq '.checks[] | select(.verdict == \"failed\")'";

/// Check that everything works: configuration, identity, relays, model, wallet, books
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct DoctorArgs {
    /// Do not load a model into this process; model servers are asked all the same
    #[arg(long)]
    skip_model: bool,
}

/// What was found, for scripts.
#[derive(Debug, Serialize)]
struct Report {
    healthy: bool,
    failed: usize,
    warnings: usize,
    checks: Vec<Finding>,
}

impl Report {
    fn of(checks: Vec<Finding>) -> Self {
        let count = |verdict| checks.iter().filter(|finding| finding.verdict == verdict).count();
        let (failed, warnings) = (count(Verdict::Failed), count(Verdict::Warning));
        Self { healthy: failed == 0, failed, warnings, checks }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for Finding { check, subject, verdict, finding, cure } in &self.checks {
            let subject = subject.as_ref().map_or_else(String::new, |subject| format!(" {subject}"));
            let _ = writeln!(text, "{:<8} {check}{subject}: {finding}", verdict.word());
            if let Some(cure) = cure {
                let _ = writeln!(text, "         cure: {cure}");
            }
        }
        let ok = self.checks.iter().filter(|finding| finding.verdict == Verdict::Ok).count();
        let warnings = if self.warnings == 1 { "warning" } else { "warnings" };
        let _ = writeln!(text, "\n{} failed, {} {warnings}, {ok} ok", self.failed, self.warnings);
        text
    }
}

/// Runs the command.
pub async fn run(args: DoctorArgs, globals: &Globals) -> Result<ExitCode> {
    let report = Report::of(findings(args, globals).await?);
    globals.print(&report, || report.text())?;
    Ok(if report.healthy { Exit::Ok } else { Exit::Failure }.into())
}

async fn findings(args: DoctorArgs, globals: &Globals) -> Result<Vec<Finding>> {
    let paths = globals.paths()?;
    let config = match Config::load(&paths) {
        Ok(mut config) => {
            servers::look_where_ollama_is(&mut config.inference);
            config
        }
        Err(error) => return Ok(checkup::unsound(&error)),
    };
    let mut found = vec![Finding::ok("config", format!("{} is sound", paths.config_file.display()))];
    // Before the rest: somebody may have to type the password.
    let (opened, identity) = open(globals, &config);
    found.push(opened);
    let quiet = globals.quiet;
    let checkup = Checkup { paths, config, identity, skip_model: args.skip_model };
    found.extend(
        checkup
            .run(|step| {
                if !quiet {
                    tell(step)
                }
            })
            .await,
    );
    Ok(found)
}

fn open(globals: &Globals, config: &Config) -> (Finding, Option<Identity>) {
    match globals.open_identity(config) {
        Ok(identity) => (Finding::ok("identity", format!("opens: {}", identity.npub())), Some(identity)),
        Err(error) => {
            let cure = report::cure(&error).unwrap_or_else(|| "see docs/identity.md".into());
            (Finding::failed("identity", format!("{error:#}"), cure), None)
        }
    }
}

/// Progress, for whoever waits: the findings come together at the end, in order.
fn tell(step: Step<'_>) {
    match step {
        Step::Begun(what) => eprintln!("{what}"),
        Step::Ended { name, verdict, took } => {
            eprintln!("{:>6.1} s  {name}: {}", took.as_secs_f64(), verdict.word());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_no_failure_and_each_cure_stands_under_its_finding() {
        let report = Report::of(vec![Finding::ok("a", "fine"), Finding::warning("b", "hm", "do this").about("x")]);
        assert!(report.healthy);
        assert_eq!(
            report.text(),
            "ok       a: fine\nwarning  b x: hm\n         cure: do this\n\n0 failed, 1 warning, 1 ok\n"
        );
        assert!(!Report::of(vec![Finding::failed("c", "no", "do that")]).healthy);
    }
}
