//! `coinop sandbox`: images for strangers' commands, what is in them, what the engines can do, and leftovers.

mod agents;
mod build;
mod list;
mod probe;
mod sweep;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Subcommand, ValueEnum};

use super::Globals;
use super::exit::CommandError;
use crate::daemon::wiring;
use crate::sandbox::{
    Engine, EngineError, EngineFacts, HostAddress, HostSettings, ImageSettings, Runtime, SandboxSettings,
};

const BUILD_EXAMPLES: &str = "\
'default' is Debian with git, Python and a C compiler. Its packages come from Debian's servers, or from --mirror; no image
registry is asked. It needs the program mmdebstrap (a package of Debian and Ubuntu), a gigabyte of disk for the while, and
usually root. 'busybox' is a shell and its tools, from a static busybox, for trying things.

An image that bore the name before is removed when the new one is there, unless it has another name or a container uses it.

Ctrl-C or SIGTERM has mmdebstrap clean up, which takes a moment; a second one ends at once.

Exit codes: 0 every engine has it, 1 not, 2 a command line or configuration to correct, 130 interrupted.

Examples:
  coinop sandbox image build
  coinop sandbox image build --with cargo --with g++ --name coinop-rust
  coinop sandbox image build --kind busybox --host unix:///var/run/docker.sock";

const LIST_EXAMPLES: &str = "\
Exit codes: 0 every engine has every image of the configuration, 1 not.

Examples:
  coinop sandbox image list
  coinop sandbox image list --json | jq -r '.images[].digest'";

const PROBE_EXAMPLES: &str = "\
Opens a cell under each runtime and looks around in it: which kernel it meets, who commands run as, whether there is a
network, what can be written. A runtime that does not hold is not offered to anybody.

Exit codes: 0 all that is configured holds, 1 not.

Examples:
  coinop sandbox probe
  coinop sandbox probe --host tcp://127.0.0.1:2375";

const AGENTS_EXAMPLES: &str = "\
Opens a cell from the image and looks for the agent programs that coinop knows how to start: codex, claude, aider, opencode,
goose. Prints the lines that have one of them work on PatchGen jobs (kind 5932). docs/external-agents.md says how such an
image is made, and how any other program is set up.

Exit codes: 0 there is one, 1 there is none or the image can't be used, 2 a command line or configuration to correct.

Examples:
  coinop sandbox agents
  coinop sandbox agents --image agents --json | jq .agents";

const SWEEP_EXAMPLES: &str = "\
'coinop serve' does it by itself, when it starts and now and then. With --all, running jobs of a 'coinop serve' are ended
too: their customers are not charged.

Exit codes: 0 no leftovers are there any more, 1 some are, or an engine does not answer.

Examples:
  coinop sandbox sweep
  coinop sandbox sweep --all";

/// Build images for strangers' commands, prove what engines can do, remove leftovers
#[derive(Debug, clap::Args)]
pub struct SandboxArgs {
    #[command(subcommand)]
    command: SandboxCommand,
}

#[derive(Debug, Subcommand)]
enum SandboxCommand {
    /// Build and list images
    Image {
        #[command(subcommand)]
        command: ImageCommand,
    },
    /// Prove what each engine can do
    #[command(after_help = PROBE_EXAMPLES)]
    Probe {
        #[command(flatten)]
        engines: Engines,
    },
    /// Look for agent programs in an image
    #[command(after_help = AGENTS_EXAMPLES)]
    Agents(agents::AgentsArgs),
    /// Remove containers and volumes that earlier jobs left
    #[command(after_help = SWEEP_EXAMPLES)]
    Sweep {
        /// Also what is not past its time yet
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        engines: Engines,
    },
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    /// Build an image and hand it to the engines
    #[command(after_help = BUILD_EXAMPLES)]
    Build(build::BuildArgs),
    /// List the images of the configuration and which engines have them
    #[command(after_help = LIST_EXAMPLES)]
    List {
        #[command(flatten)]
        engines: Engines,
    },
}

/// Which engines are meant.
#[derive(Debug, clap::Args)]
struct Engines {
    /// Only this engine: its name in sandbox.hosts, or an address like unix:///var/run/docker.sock
    #[arg(long, value_name = "NAME|ADDRESS")]
    host: Option<String>,
}

/// What an image is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Debian with git, Python and a C compiler
    Default,
    /// A static busybox
    Busybox,
}

/// Runs the command.
pub async fn run(args: SandboxArgs, globals: &Globals) -> Result<ExitCode> {
    match args.command {
        SandboxCommand::Image { command: ImageCommand::Build(args) } => build::run(args, globals).await,
        SandboxCommand::Image { command: ImageCommand::List { engines } } => list::run(&engines, globals).await,
        SandboxCommand::Probe { engines } => probe::run(&engines, globals).await,
        SandboxCommand::Agents(args) => agents::run(args, globals).await,
        SandboxCommand::Sweep { all, engines } => sweep::run(all, &engines, globals).await,
    }
}

impl Engines {
    /// The engines and images of the configuration, or the one engine that was named.
    fn settings(&self, globals: &Globals) -> Result<SandboxSettings> {
        let (paths, config) = globals.load_config_or_default()?;
        let mut settings = wiring::sandbox::settings(&config.agents.sandbox, &paths)?;
        let Some(wanted) = &self.host else { return Ok(settings) };
        if settings.hosts.iter().any(|host| host.name == *wanted) {
            settings.hosts.retain(|host| host.name == *wanted);
        } else {
            settings.hosts = vec![named(wanted, &settings.hosts)?];
        }
        Ok(settings)
    }
}

/// An engine that is not in the configuration.
fn named(wanted: &str, known: &[HostSettings]) -> Result<HostSettings, CommandError> {
    let address = HostAddress::parse(wanted, None).map_err(|error| {
        let names: Vec<&str> = known.iter().map(|host| host.name.as_str()).collect();
        CommandError::usage(format!("--host: {error}"))
            .help(format!("or one of the configuration: {}", names.join(", ")))
    })?;
    Ok(HostSettings { name: wanted.into(), address, runtimes: Runtime::ALL.into(), slots: 1, memory_mib: None })
}

/// Connects, or says how to start it.
async fn connect(host: &HostSettings) -> Result<(Engine, EngineFacts), CommandError> {
    let asked = async {
        let engine = Engine::connect(host).await?;
        let facts = engine.facts().await?;
        Ok((engine, facts))
    };
    asked.await.map_err(|error: EngineError| {
        CommandError::failure(format!("the container engine {} does not answer: {error}", host.name)).help(start(host))
    })
}

/// Fails as [`connect`] does when no engine answers: then that is to be mended, and nothing about images or runtimes.
async fn any_answers(hosts: &[HostSettings]) -> Result<(), CommandError> {
    let mut failed = None;
    for host in hosts {
        match connect(host).await {
            Ok(_) => return Ok(()),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(()), Err)
}

/// How an engine that does not answer is brought to it.
fn start(host: &HostSettings) -> String {
    match &host.address {
        HostAddress::Unix(path) => format!(
            "install Docker ('apt-get install docker.io') and start it ('systemctl start docker', or 'dockerd'); whoever \
             runs coinop must be allowed to use {}",
            path.display()
        ),
        HostAddress::Loopback(_) | HostAddress::Tls { .. } => {
            "is dockerd running there, and listening at that address? See docs/sandbox.md".into()
        }
    }
}

/// Whether the configuration names it.
fn is_listed(images: &[ImageSettings], reference: &str) -> bool {
    let bare = |text: &str| text.strip_suffix(":latest").unwrap_or(text).to_owned();
    images.iter().any(|image| bare(&image.reference) == bare(reference))
}
