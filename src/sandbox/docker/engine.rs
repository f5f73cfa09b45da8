//! The connection to an engine.

use std::future::Future;
use std::time::Duration;

use bollard::errors::Error;
use bollard::{API_DEFAULT_VERSION, Docker};

use super::error::EngineError;
use super::tls;
use crate::sandbox::settings::{HostAddress, HostSettings};
use crate::sandbox::{Image, Runtime};

/// How long the engine may take for what costs it nothing.
pub(super) const QUICK: Duration = Duration::from_secs(10);
/// How long connecting may take.
pub(super) const GREETING: Duration = Duration::from_secs(5);
/// The library's own limit, which only bounds what has no limit of ours: none.
pub(super) const LONGEST: Duration = Duration::from_secs(3600);

/// One engine. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Engine {
    pub(super) docker: Docker,
}

/// What an engine says of itself and its machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EngineFacts {
    /// Its version.
    pub version: String,
    /// Its machine's kernel.
    pub kernel: String,
    /// Processors.
    pub cpus: u32,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// Names of its runtimes.
    pub runtimes: Vec<String>,
    /// What it can't hold to, in words: no memory limit, no limit on processes.
    pub missing: Vec<&'static str>,
}

impl Engine {
    /// Connects and agrees on a version.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn connect(settings: &HostSettings) -> Result<Self, EngineError> {
        let step = "connecting";
        let limit = LONGEST.as_secs();
        let docker = match &settings.address {
            HostAddress::Unix(path) => Docker::connect_with_unix(&path.to_string_lossy(), limit, API_DEFAULT_VERSION),
            HostAddress::Loopback(address) => Docker::connect_with_http(address, limit, API_DEFAULT_VERSION),
            HostAddress::Tls { address, files } => Docker::connect_with_custom_transport(
                tls::transport(files)?,
                Some(format!("https://{address}")),
                limit,
                API_DEFAULT_VERSION,
            ),
        };
        let docker = docker.map_err(|error| EngineError::of(step, error))?;
        let docker = timed(step, GREETING, docker.negotiate_version()).await?;
        Ok(Self { docker })
    }

    /// Whether it answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ping(&self) -> Result<(), EngineError> {
        timed("a ping", QUICK, self.docker.ping()).await.map(drop)
    }

    /// What it says of itself.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn facts(&self) -> Result<EngineFacts, EngineError> {
        let info = timed("its facts", QUICK, self.docker.info()).await?;
        let missing = [
            (info.memory_limit, "it has no limit on memory"),
            (info.pids_limit, "it has no limit on processes"),
            (info.cpu_cfs_quota, "it has no limit on processor time"),
        ];
        Ok(EngineFacts {
            version: info.server_version.unwrap_or_default(),
            kernel: info.kernel_version.unwrap_or_default(),
            cpus: info.ncpu.and_then(|count| u32::try_from(count).ok()).unwrap_or(1).max(1),
            memory_mib: info.mem_total.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0) >> 20,
            runtimes: info.runtimes.unwrap_or_default().into_keys().collect(),
            missing: missing.into_iter().filter(|(has, _)| *has != Some(true)).map(|(_, words)| words).collect(),
        })
    }

    /// The image of that reference, under the name that customers know, or why it can't be used.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn image(&self, name: &str, reference: &str) -> Result<Result<Image, String>, EngineError> {
        match timed("looking for an image", QUICK, self.docker.inspect_image(reference)).await {
            Ok(found) => {
                let volumes = found.config.and_then(|config| config.volumes).unwrap_or_default();
                Ok(match found.id {
                    // The engine would make them on its disk, as large as they like.
                    _ if !volumes.is_empty() => Err(format!("'{reference}' declares volumes, which have no limit")),
                    Some(digest) => Ok(Image { name: name.to_owned(), digest }),
                    None => Err(format!("'{reference}' has no id")),
                })
            }
            Err(error) if error.is_absent() => Ok(Err(format!("the engine has no '{reference}'"))),
            Err(error) => Err(error),
        }
    }

    /// Whether it knows the runtime at all; a probe tells whether it works.
    pub fn knows(facts: &EngineFacts, runtime: Runtime) -> bool {
        facts.runtimes.iter().any(|name| name == runtime.word())
    }
}

/// Asks, and gives up after a while.
pub(super) async fn timed<T>(
    step: &'static str,
    limit: Duration,
    question: impl Future<Output = Result<T, Error>>,
) -> Result<T, EngineError> {
    match tokio::time::timeout(limit, question).await {
        Ok(answer) => answer.map_err(|error| EngineError::of(step, error)),
        Err(_) => Err(EngineError::Silent { step, limit }),
    }
}
