//! `coinop completions`: tab completion for shells.

use std::process::ExitCode;

use anyhow::Result;
use clap::CommandFactory as _;
use clap_complete::Shell;

use super::exit::Exit;
use super::{Cli, Globals, globals};

const EXAMPLES: &str = "\
Examples:
  coinop completions bash > ~/.local/share/bash-completion/completions/coinop
  coinop completions zsh > ~/.zfunc/_coinop
  coinop completions fish > ~/.config/fish/completions/coinop.fish";

/// Write tab completions for a shell to standard output
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct CompletionsArgs {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Runs the command.
pub async fn run(args: CompletionsArgs, _: &Globals) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "coinop", &mut script);
    globals::print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Ok.into())
}
