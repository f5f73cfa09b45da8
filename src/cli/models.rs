//! `coinop models`: what there is to sell, and fetching more.

mod list;
mod pull;
mod show;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use super::{Globals, servers};
use crate::config::{Config, Paths};
use crate::daemon::inventory::{self, OfferedModel, Stock};
use crate::daemon::wiring::found::InForce;
use crate::hardware::{Hardware, Recommendation};

const LIST_EXAMPLES: &str = "\
Asks every endpoint of the configuration; without one, the model servers found on this machine
(inference.probe and OLLAMA_HOST say where they are looked for). Nothing is loaded.

Exit codes: 0 there is a model to sell, 1 there is none, 2 a configuration to correct.

Examples:
  coinop models list
  coinop models list --json | jq '.endpoints[] | select(.up | not)'";

const SHOW_EXAMPLES: &str = "\
Examples:
  coinop models show llama3.2
  coinop models show llama3.2 --json | jq .parameters";

const PULL_EXAMPLES: &str = "\
Has an Ollama fetch a model by its name in Ollama's library. The other servers get their models
when they are started; a model inside coinop is a GGUF file or a folder of safetensors that you
put where inference.model says.

Exit codes: 0 the model is there, 1 it is not, 2 a command line or configuration to correct.

Examples:
  coinop models pull llama3.2
  coinop models pull qwen3:4b --endpoint rack";

/// List, look at and fetch models
#[derive(Debug, clap::Args)]
pub struct ModelsArgs {
    #[command(subcommand)]
    command: ModelsCommand,
}

#[derive(Debug, Subcommand)]
enum ModelsCommand {
    /// Show this machine, every endpoint, the models with their prices, and which of them suits the machine
    #[command(after_help = LIST_EXAMPLES)]
    List,
    /// Show everything known of a model
    #[command(after_help = SHOW_EXAMPLES)]
    Show {
        /// Its name, or an alias
        name: String,
    },
    /// Fetch a model into an Ollama
    #[command(after_help = PULL_EXAMPLES)]
    Pull {
        /// Its name in Ollama's library, such as llama3.2 or qwen3:4b
        name: String,
        /// The endpoint that fetches it, when there are several
        #[arg(long, value_name = "ENDPOINT")]
        endpoint: Option<String>,
    },
}

/// Runs the command.
pub async fn run(args: ModelsArgs, globals: &Globals) -> Result<ExitCode> {
    let (paths, mut config) = globals.load_config_or_default()?;
    servers::look_where_ollama_is(&mut config.inference);
    match args.command {
        ModelsCommand::List => list::run(&View::of(&config).await, &config, globals),
        ModelsCommand::Show { name } => show::run(&name, &View::of(&config).await, &config, globals),
        ModelsCommand::Pull { name, endpoint } => pull::run(&name, endpoint.as_deref(), &config, &paths, globals).await,
    }
}

/// What there is, and what suits this machine.
#[derive(Debug)]
struct View {
    hardware: Hardware,
    in_force: InForce,
    stock: Vec<Stock>,
    /// The default first.
    offered: Vec<OfferedModel>,
    recommendation: Recommendation,
}

impl View {
    async fn of(config: &Config) -> Self {
        let in_force = InForce::of(&config.inference).await;
        let stock = inventory::take(&in_force.settings).await;
        let mut offered = inventory::on_offer(&in_force.settings, &stock);
        let hardware = Hardware::look();
        let recommendation = inventory::recommendation(&hardware, &offered);
        // As 'coinop serve' chooses: what was found has no order of the operator's.
        if in_force.was_looked_for && in_force.settings.models.is_empty() {
            offered.sort_by_key(|model| Some(&model.name) != recommendation.chosen.as_ref());
        }
        Self { hardware, in_force, stock, offered, recommendation }
    }
}

/// The folder suggested for model files.
fn models_folder(paths: &Paths) -> std::path::PathBuf {
    paths.data_dir.join("models")
}

/// A digest as people compare it.
fn short(digest: Option<&String>) -> String {
    let Some(digest) = digest else { return "unknown".into() };
    digest.strip_prefix("sha256:").unwrap_or(digest).chars().take(12).collect()
}

/// A number, or that nobody tells.
fn or_unknown(number: Option<impl ToString>) -> String {
    number.map_or_else(|| "unknown".into(), |number| number.to_string())
}
