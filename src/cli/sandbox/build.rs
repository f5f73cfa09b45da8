//! `coinop sandbox image build`

use std::fmt::Write as _;
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use futures::TryStreamExt;
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::io::ReaderStream;

use super::{Engines, Kind, connect, is_listed};
use crate::cli::Globals;
use crate::cli::exit::{CommandError, Exit};
use crate::daemon::signals::Signals;
use crate::sandbox::docker::Discarded;
use crate::sandbox::images::{
    self, Before, BusyboxError, DEFAULT_REFERENCE, Debian, DebianError, MMDEBSTRAP, Replaced, Stop,
};

/// Debian's release, when nothing else is asked: what this machine has if it is Debian, else this.
const SUITE: &str = "bookworm";

/// What an image of busybox is called when nothing else is asked.
const BUSYBOX_NAME: &str = "coinop-busybox";

#[derive(Debug, clap::Args)]
pub(super) struct BuildArgs {
    /// What it is made of
    #[arg(long, value_enum, default_value = "default")]
    kind: Kind,
    /// What the engines call it [default: coinop-default or coinop-busybox]
    #[arg(long, value_name = "REFERENCE")]
    name: Option<String>,
    /// Where Debian's packages come from
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// Debian's release [default: this machine's, if it is Debian, else bookworm]
    #[arg(long, value_name = "RELEASE")]
    suite: Option<String>,
    /// A package besides the usual ones; may be repeated
    #[arg(long, value_name = "PACKAGE")]
    with: Vec<String>,
    /// The static busybox for --kind busybox
    #[arg(long, value_name = "FILE", default_value = "/bin/busybox")]
    program: PathBuf,
    #[command(flatten)]
    engines: Engines,
}

/// What was built, for scripts.
#[derive(Debug, Serialize)]
struct Built {
    images: Vec<OnHost>,
}

#[derive(Debug, Serialize)]
struct OnHost {
    host: String,
    reference: String,
    digest: String,
    /// The image that bore the name before.
    before: Option<OnceThere>,
}

/// An image that lost its name.
#[derive(Debug, Serialize)]
struct OnceThere {
    digest: String,
    removed: bool,
}

/// The root file system, to be handed to each engine.
enum Root {
    Small(Bytes),
    Large(std::fs::File),
}

/// How soon after the first a signal is taken for the same one: timeout(1) and shells send it to the process and to its group.
const SAME_SIGNAL: Duration = Duration::from_secs(1);

pub(super) async fn run(args: BuildArgs, globals: &Globals) -> Result<ExitCode> {
    let stop = Stop::default();
    let mut signals = Signals::listen().context("signals can't be listened for")?;
    let mut building = pin!(build(args, globals, &stop));
    let mut heard: Option<Instant> = None;
    loop {
        tokio::select! {
            ended = &mut building => return ended,
            signal = signals.next() => {
                signal.context("signals can't be listened for")?;
                match heard {
                    Some(at) if at.elapsed() < SAME_SIGNAL => {}
                    Some(_) => return Err(interrupted_again().into()),
                    None => heard = Some(interrupted(&stop, globals.quiet).await?),
                }
            }
        }
    }
}

/// The first signal: what is being built is stopped and waited for, anything else ends at once. Gives when it was heard.
async fn interrupted(stop: &Stop, quiet: bool) -> Result<Instant> {
    let stop = stop.clone();
    let cleans_up = tokio::task::spawn_blocking(move || stop.ask()).await.context("the build can't be stopped")?;
    if !cleans_up {
        return Err(CommandError::interrupted("interrupted")
            .help("an engine that has the image already keeps it")
            .into());
    }
    if !quiet {
        eprintln!("stopping; {MMDEBSTRAP} cleans up");
    }
    Ok(Instant::now())
}

fn interrupted_again() -> CommandError {
    CommandError::interrupted(format!("interrupted again, while {MMDEBSTRAP} cleaned up")).help(format!(
        "what it left is {MMDEBSTRAP}.* in the folder for temporary files; unmount what /proc/mounts names below it first"
    ))
}

async fn build(args: BuildArgs, globals: &Globals, stop: &Stop) -> Result<ExitCode> {
    check(&args)?;
    let settings = args.engines.settings(globals)?;
    let reference = reference(&args)?;
    let say = |words: &str| {
        if !globals.quiet {
            eprintln!("{words}");
        }
    };
    // Before the minutes that building takes.
    let mut engines = Vec::new();
    for host in &settings.hosts {
        engines.push((host.name.clone(), connect(host).await?.0));
    }
    let quiet = globals.quiet;
    let (kind, with, stop) = (args.kind, args.with.clone(), stop.clone());
    let root = tokio::task::spawn_blocking(move || match args.kind {
        Kind::Busybox => busybox(&args.program),
        Kind::Default => debian(args, &stop, quiet),
    })
    .await
    .context("building was cut off")??;
    let comment = match kind {
        Kind::Busybox => "coinop: a static busybox".to_owned(),
        Kind::Default => format!("coinop: Debian with git, Python and a C compiler {}", with.join(" ")),
    };
    let mut built = Built { images: Vec::new() };
    for (host, engine) in engines {
        say(&format!("Handing it to {host}"));
        let Replaced { digest, before } = images::replace(&engine, &reference, comment.trim_end(), root.stream()?)
            .await
            .map_err(|error| CommandError::failure(format!("the container engine {host} did not take it: {error}")))?;
        let before = before.map(|before| once_there(before, &host));
        built.images.push(OnHost { host, reference: reference.clone(), digest, before });
    }
    globals.print(&built, || text(&built, is_listed(&settings.images, &reference), &reference))?;
    Ok(Exit::Ok.into())
}

/// What each kind is made of decides which options mean something.
fn check(args: &BuildArgs) -> Result<(), CommandError> {
    if args.kind == Kind::Default {
        return Ok(());
    }
    let packages =
        [("--with", !args.with.is_empty()), ("--mirror", args.mirror.is_some()), ("--suite", args.suite.is_some())];
    match packages.iter().find(|(_, is_given)| *is_given) {
        Some((option, _)) => Err(CommandError::usage(format!("{option} goes with --kind default only"))
            .help("an image of --kind busybox holds the busybox of --program and nothing of Debian's packages")),
        None => Ok(()),
    }
}

/// What became of the image from before, for whoever reads.
fn once_there(before: Before, host: &str) -> OnceThere {
    let Before { digest, fate } = before;
    if let Err(error) = &fate {
        tracing::warn!(host, image = digest, %error, "The image that bore the name before could not be removed");
    }
    OnceThere { digest, removed: matches!(fate, Ok(Discarded::Removed)) }
}

fn text(built: &Built, is_listed: bool, reference: &str) -> String {
    let mut text = String::new();
    for image in &built.images {
        let _ = writeln!(text, "{} on {}: {}", image.reference, image.host, image.digest);
        match &image.before {
            Some(OnceThere { digest, removed: true }) => {
                let _ = writeln!(text, "  the image that bore the name before is removed ({digest})");
            }
            Some(OnceThere { digest, removed: false }) => {
                let _ = writeln!(
                    text,
                    "  the image that bore the name before stays, because something uses it or it could not be removed ({digest})"
                );
            }
            None => {}
        }
    }
    if !is_listed {
        let name = reference.rsplit('/').next().unwrap_or(reference);
        let _ = writeln!(
            text,
            "\nTo offer it, write into the configuration:\n\n[[sandbox.images]]\nname = \"{name}\"\nreference = \"{reference}\""
        );
    }
    text
}

fn reference(args: &BuildArgs) -> Result<String, CommandError> {
    let default = match args.kind {
        Kind::Default => DEFAULT_REFERENCE,
        Kind::Busybox => BUSYBOX_NAME,
    };
    let reference = args.name.clone().unwrap_or_else(|| default.to_owned());
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_./:".contains(&byte);
    let starts_well = reference.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit());
    if !starts_well || reference.len() > 200 || !reference.bytes().all(plain) {
        return Err(CommandError::usage(format!("--name: an engine can't call an image '{reference}'"))
            .help("use small letters, digits and dashes, such as coinop-rust"));
    }
    Ok(reference)
}

fn busybox(program: &std::path::Path) -> Result<Root, CommandError> {
    let packed = images::tools(program).and_then(|tools| images::busybox(program, &tools));
    packed.map(Root::Small).map_err(|error| {
        let help = match error {
            BusyboxError::Missing { .. } | BusyboxError::NotStatic(_) | BusyboxError::NoTools(_) => {
                "apt-get install busybox-static, or name another with --program"
            }
            BusyboxError::Packing(_) => "is there memory left?",
        };
        CommandError::failure(error.to_string()).help(help)
    })
}

fn debian(args: BuildArgs, stop: &Stop, quiet: bool) -> Result<Root, CommandError> {
    let suite = args.suite.unwrap_or_else(own_suite);
    if !quiet {
        eprintln!("Building from Debian {suite}; this takes some minutes");
    }
    let debian = Debian { suite, mirror: args.mirror, packages: args.with };
    let built = debian.build(stop, |step| {
        if !quiet {
            eprintln!("  {step}");
        }
    });
    built.map(Root::Large).map_err(|error| {
        let help = match &error {
            DebianError::NoProgram => {
                format!("apt-get install {MMDEBSTRAP}, or build it on a Debian or Ubuntu machine")
            }
            DebianError::Name(_) => "name packages as apt does".into(),
            DebianError::Failed { as_root: false, .. } => "run it as root: not every system lets others do this".into(),
            DebianError::Failed { as_root: true, .. } => {
                "can the packages' server be reached? --mirror names another".into()
            }
            DebianError::Stopped => return CommandError::interrupted("interrupted: no image was built"),
            DebianError::Disk(_) => "it needs a gigabyte in the folder for temporary files (TMPDIR)".into(),
        };
        match error {
            DebianError::Name(_) => CommandError::usage(error.to_string()).help(help),
            _ => CommandError::failure(error.to_string()).help(help),
        }
    })
}

/// The release of this machine, if it is Debian's.
fn own_suite() -> String {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let field = |name: &str| release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    match (field("ID"), field("VERSION_CODENAME")) {
        (Some("debian"), Some(codename)) => codename.trim_matches('"').to_owned(),
        _ => SUITE.to_owned(),
    }
}

impl Root {
    /// From its beginning, for the next engine.
    fn stream(&self) -> Result<futures::stream::BoxStream<'static, std::io::Result<Bytes>>> {
        Ok(match self {
            Self::Small(bytes) => Box::pin(futures::stream::iter([Ok(bytes.clone())])),
            Self::Large(file) => {
                use std::io::Seek;
                let mut file = file.try_clone().context("the image can't be read")?;
                file.rewind().context("the image can't be read")?;
                Box::pin(ReaderStream::with_capacity(tokio::fs::File::from_std(file), 256 * 1024).into_stream())
            }
        })
    }
}
