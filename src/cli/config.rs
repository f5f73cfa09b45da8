//! `coinop config`: is it right, and what is in force.

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;
use serde::Serialize;

use super::Globals;
use super::exit::Exit;
use crate::config::{Config, ConfigError, Paths, Problem, RawConfig};

/// Check the configuration, or show what is in force
#[derive(Debug, clap::Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

const CHECK_EXAMPLES: &str = "\
Exit codes: 0 sound, 2 something to correct.

Examples:
  coinop config check
  coinop --config /etc/coinop/config.toml config check --json";

const SHOW_EXAMPLES: &str = "\
Examples:
  coinop config show
  coinop config show --json | jq .config.text";

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Tell everything that is wrong with the configuration, and what is missing to serve
    #[command(after_help = CHECK_EXAMPLES)]
    Check,
    /// Print every value in force; secrets appear as the places they stand in
    #[command(after_help = SHOW_EXAMPLES)]
    Show,
}

/// Runs the command.
pub async fn run(args: ConfigArgs, globals: &Globals) -> Result<ExitCode> {
    let paths = globals.paths()?;
    match args.command {
        ConfigCommand::Check => check(&paths, globals),
        ConfigCommand::Show => show(&paths, globals),
    }
}

#[derive(Serialize)]
struct Check<'a> {
    file: &'a std::path::Path,
    sound: bool,
    problems: Vec<Told>,
    missing_to_serve: Vec<Told>,
}

#[derive(Serialize)]
struct Told {
    field: String,
    what: String,
    cure: String,
}

impl From<Problem> for Told {
    fn from(problem: Problem) -> Self {
        Self { field: problem.field, what: problem.what, cure: problem.cure }
    }
}

fn check(paths: &Paths, globals: &Globals) -> Result<ExitCode> {
    let report = |sound, problems: Vec<Problem>, missing: Vec<Problem>| Check {
        file: &paths.config_file,
        sound,
        problems: problems.into_iter().map(Into::into).collect(),
        missing_to_serve: missing.into_iter().map(Into::into).collect(),
    };
    match Config::load(paths) {
        Ok(config) => {
            let missing = config.missing_to_serve();
            let text = if missing.is_empty() {
                format!("{} is sound and ready to serve.\n", paths.config_file.display())
            } else {
                let listed: String = missing.iter().map(|problem| format!("  {problem}\n")).collect();
                format!("{} is sound. Missing to serve:\n{listed}", paths.config_file.display())
            };
            globals.print(&report(true, Vec::new(), missing), || text)?;
            Ok(Exit::Ok.into())
        }
        Err(ConfigError::Invalid { problems, .. }) if globals.json => {
            globals.print(&report(false, problems, Vec::new()), String::new)?;
            Ok(Exit::Usage.into())
        }
        Err(error) => Err(error.into()),
    }
}

#[derive(Serialize)]
struct Shown<'a> {
    file: &'a std::path::Path,
    keystore: &'a std::path::Path,
    database: &'a std::path::Path,
    config: &'a RawConfig,
}

fn show(paths: &Paths, globals: &Globals) -> Result<ExitCode> {
    let raw = RawConfig::read_or_default(paths)?;
    // Nothing is shown that was not checked: a secret in the place of a reference is an error here.
    let config = Config::resolve(&raw, paths)?;
    let toml = toml::to_string_pretty(&raw)?;
    let keystore = config.identity.keystore.path();
    let database = paths.database();
    let origin = if paths.config_file.exists() { "" } else { " (not there; these are the defaults)" };
    let shown = Shown { file: &paths.config_file, keystore, database: &database, config: &raw };
    globals.print(&shown, || {
        format!(
            "# configuration: {}{origin}\n# identity:      {}\n# database:      {}\n\n{toml}",
            paths.config_file.display(),
            keystore.display(),
            database.display(),
        )
    })?;
    Ok(Exit::Ok.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_reads_back_as_the_same_configuration() {
        let raw = RawConfig::default();
        let again: RawConfig = toml::from_str(&toml::to_string_pretty(&raw).unwrap()).unwrap();
        assert_eq!(again, raw);
    }
}
