//! `coinop serve`: the provider.

use std::process::ExitCode;

use anyhow::{Context, Result};
use tracing::{info, warn};

use super::Globals;
use super::exit::{CommandError, Exit};
use super::servers::{self, Findings};
use crate::daemon::lock::ServeLock;
use crate::daemon::service::Service;
use crate::daemon::wiring::found::InForce;
use crate::daemon::wiring::inference::OpenInference;
use crate::daemon::wiring::wallets;
use crate::daemon::{signals, wiring};
use crate::hardware::Hardware;
use crate::wallet::desk::Desk;

const EXAMPLES: &str = "\
Runs until SIGTERM or Ctrl-C: then no new jobs are taken, running ones get shutdown.grace to finish (those that do not are
taken up again by the next start), and what is owed is sent. A second signal ends it at once; nothing is lost then either.

Without a model or an endpoint in [inference] it looks for model servers on this machine (Ollama, llama.cpp, vLLM, LM Studio,
SGLang; OLLAMA_HOST counts too), says what it found, and sells that.

Exit codes: 0 stopped when asked, 1 something failed, 2 a command line or configuration to correct.

Examples:
  coinop serve
  coinop serve --password-file /run/secrets/coinop -v
  COINOP_PASSWORD=… coinop --home /srv/coinop serve";

/// Go online and sell
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct ServeArgs {}

/// Runs the command.
pub async fn run(_: ServeArgs, globals: &Globals) -> Result<ExitCode> {
    let (paths, mut config) = globals.load_config()?;
    servers::look_where_ollama_is(&mut config.inference);
    config.check_ready_to_serve(&paths)?;
    let asks_a_model = config.asks_a_model();
    let in_force = InForce::of(&config.inference).await;
    config.inference = in_force.settings.clone();
    let was_looked_for = asks_a_model && in_force.was_looked_for;
    let default = if was_looked_for {
        let findings = Findings::of(in_force, Hardware::look()).await?;
        if !globals.quiet {
            eprint!("{}", findings.text(&paths));
        }
        findings.default_model()
    } else {
        None
    };
    let identity = globals.open_identity(&config)?;
    std::fs::create_dir_all(&paths.data_dir)
        .with_context(|| format!("the data folder {} can't be made", paths.data_dir.display()))?;
    let _lock = ServeLock::take(&paths.data_dir)?;

    let opened = wallets::for_serving(&config, &paths, &identity).await?;
    // Whoever sells nothing that asks a model may still have one for embeddings.
    let embeds = config.agents.repo_index.sale.enabled && config.agents.repo_index.embeddings;
    let inference = if asks_a_model || (embeds && !config.inference.endpoints.is_empty()) {
        Some(OpenInference::open(&config.inference, default).await?)
    } else {
        None
    };
    let models = match &inference {
        Some(inference) if asks_a_model => inference
            .models()
            .await
            .map_err(|error| CommandError::failure(error.to_string()).help(servers::NO_MODEL_HELP))?,
        _ => Vec::new(),
    };
    if was_looked_for && !globals.quiet {
        let default = models.first().map_or("", |model| model.name.as_str());
        let all = servers::some_of(models.iter().map(|model| model.name.as_str()));
        eprintln!("Offered: {all}. Customers who name no model get {default}.");
    }
    if config.metrics.is_exposed() {
        warn!("metrics.listen lets others than this machine read what is earned: 127.0.0.1 keeps it to yourself");
    }
    let wallet = opened.as_ref().map(|opened| opened.wallet.clone());
    let mut plan = wiring::plan(&config, &paths, &identity, wallet, inference).await?;
    if plan.wallet.as_ref().is_some_and(|wallet| wallet.node().is_some()) {
        match Desk::open(&paths.data_dir) {
            Ok(desk) => plan.desk = Some(desk),
            Err(problem) => warn!(%problem, "The commands beside this one can't use the wallet"),
        }
    }
    let kinds: Vec<String> =
        plan.settings.offers.iter().map(|(kind, offer)| format!("{kind} ({})", offer.terms)).collect();
    let mut service = Service::start(plan).await?;
    info!(
        npub = identity.npub(),
        relays = config.relays.urls.len(),
        models = models.iter().map(|model| model.name.as_str()).collect::<Vec<_>>().join(", "),
        kinds = kinds.join(", "),
        "Serving"
    );

    let ended = tokio::select! {
        signal = signals::asked_to_stop() => Ok(signal.context("signals can't be listened for")?),
        failed = service.failed() => Err(failed),
    };
    match ended {
        Ok(signal) => {
            info!(grace_s = config.shutdown_grace.as_secs(), "Stopping after {signal}");
            let stopped = tokio::select! {
                finished = async {
                    let finished = service.stop(config.shutdown_grace).await;
                    close(opened).await;
                    finished
                } => finished,
                again = signals::asked_to_stop() => {
                    again.context("signals can't be listened for")?;
                    return Err(CommandError::failure("stopped at once by a second signal")
                        .help("what was under way is taken up by the next 'coinop serve'")
                        .into());
                }
            };
            info!(finished = stopped, "Stopped");
            Ok(Exit::Ok.into())
        }
        Err(what) => {
            service.stop(config.shutdown_grace).await;
            close(opened).await;
            Err(CommandError::failure(format!("{what}; stopped so that a supervisor can start it anew"))
                .help("the log above says why")
                .into())
        }
    }
}

async fn close(opened: Option<wallets::OpenWallet>) {
    if let Some(opened) = opened {
        opened.close().await;
    }
}
