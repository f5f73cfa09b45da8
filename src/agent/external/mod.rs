//! A worker that is somebody else's program: an agent CLI (Codex, Claude Code, aider, …) that runs in a cell.
//!
//! Such a program asks a model over HTTP. In a cell there is no network; so a relay runs there (`relay.py`), listens on the cell's own
//! loopback, and hands every connection to us over its standard input and output.
//!
//! ```text
//!   cell ┌──────────────────────────────┐             this process
//!        │ agent ─ 127.0.0.1:41011 ─ relay ══ pipe ══ link ─ HTTP ─ proxy ─ upstream ─▶ the one endpoint
//!        └──────────────────────────────┘ (frame)    (connections)  (door, question, budget, usage, journal)
//! ```
//!
//! The rules: a cell reaches one endpoint and only asks it what a [`Door`] lets through; the key is put on outside; whatever comes
//! out of the cell is hostile, bounded, and never passed on as it came; when the job's budget is spent, the agent is told and ended.

mod budget;
mod connections;
pub mod detect;
mod door;
mod frame;
mod http;
mod journal;
mod link;
mod proxy;
mod question;
#[cfg(test)]
mod tests;
mod upstream;
mod usage;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use secrecy::SecretString;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use url::Url;

use self::budget::{Allowed, Budget};
pub use self::door::Door;
use self::frame::Broken;
use self::journal::{Line, Passed};
use self::link::{FOLDER, Link, PORT, relay};
use self::proxy::Proxy;
pub use self::proxy::ProxyBounds;
pub use self::upstream::KeyHeader;
use self::upstream::Upstream;
use super::{Capacity, Stopped, Task, WorkError, Worked, Worker};
use crate::inference::http::ServerOptions;
use crate::inference::parameters;
use crate::job::{Code, Refusal};
use crate::sandbox::{Cell, Command, Ended, Ran, SandboxError};

/// How long the relay may take to start. gVisor on a busy machine needs some seconds.
const RELAY_PATIENCE: Duration = Duration::from_secs(60);
/// How long an agent has for its last words, when nobody says.
const LAST_WORDS: Duration = Duration::from_secs(20);
/// How long an endpoint may take to say anything, when it is asked whether it is there.
const LOOK_PATIENCE: Duration = Duration::from_secs(5);
/// What was found of the endpoint is believed for so long.
const LOOK_AGAIN: Duration = Duration::from_secs(15);
/// What an agent that insists on a key is given. It opens nothing.
const NO_KEY: &str = "coinop";
/// The link carries requests and answers' credit besides: so many times what requests and answers may have.
const LINK_SHARE: u64 = 2;
/// The form of transcripts.
const TRANSCRIPT_VERSION: u32 = 1;

/// Why an external agent can't be used as it is configured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExternalError {
    /// No command.
    #[error("no command is given that starts the agent")]
    NoCommand,
    /// A placeholder that nobody fills in.
    #[error("{{{0}}} is no placeholder; there are {{instructions_file}}, {{base_url}}, {{address}} and {{model}}")]
    Placeholder(String),
    /// A model is asked for by a placeholder, and none is fixed.
    #[error("{{model}} is used, and no model is named")]
    NoModel,
    /// The name of a model that no shell would leave alone.
    #[error("'{0}' is no model's name that can stand in a command: letters, digits and . _ : / @ + - only")]
    Model(String),
    /// The endpoint's address.
    #[error("the endpoint's address is no http:// or https:// address")]
    Endpoint,
    /// The key.
    #[error("the endpoint's key holds characters that no key has")]
    Key,
    /// The HTTP library.
    #[error("no HTTP client can be made here")]
    NoClient,
}

/// Which agent, and which endpoint it may ask.
#[derive(Clone)]
pub struct ExternalAgentSettings {
    /// What starts it, for `/bin/sh -c` in the workspace. `{instructions_file}` is where it finds what to do, `{base_url}` the
    /// address of the API (ending in `/v1`), `{address}` the same without `/v1`, `{model}` the model's name.
    pub command: String,
    /// The one endpoint, up to where `chat/completions` or `messages` begins.
    pub endpoint: Url,
    /// Its key, put on outside the cell.
    pub key: Option<SecretString>,
    /// Where it wants the key.
    pub key_header: KeyHeader,
    /// What may be asked; none for everything a [`Door`] is for.
    pub doors: Vec<Door>,
    /// The model that is asked, whatever the agent says; `None` leaves it to the agent.
    pub model: Option<String>,
    /// The model's parameters, exact, for receipts.
    pub parameters: Option<u64>,
    /// Variables of the agent, with the same placeholders.
    pub env: Vec<(String, String)>,
    /// What programs in a cell may do to us.
    pub bounds: ProxyBounds,
    /// Bounds of talking to the endpoint.
    pub options: ServerOptions,
    /// How long the agent may take to end by itself once its budget is spent. It is told by the answer to what it asks next.
    pub last_words: Duration,
}

impl fmt::Debug for ExternalAgentSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExternalAgentSettings")
            .field("command", &self.command)
            .field("endpoint", &self.endpoint.as_str())
            .field("model", &self.model)
            .finish_non_exhaustive()
    }
}

impl ExternalAgentSettings {
    /// An agent and its endpoint, with everything else at its default.
    pub fn new(command: impl Into<String>, endpoint: Url) -> Self {
        Self {
            command: command.into(),
            key: None,
            key_header: KeyHeader::usual(&endpoint),
            endpoint,
            doors: Vec::new(),
            model: None,
            parameters: None,
            env: Vec::new(),
            bounds: ProxyBounds::default(),
            // A long answer that is not streamed is silent until it is whole.
            options: ServerOptions { silence: Duration::from_secs(600), ..ServerOptions::default() },
            last_words: LAST_WORDS,
        }
    }
}

/// An agent CLI as a worker.
pub struct ExternalAgent {
    settings: ExternalAgentSettings,
    upstream: Arc<Upstream>,
    /// Whether the endpoint answered, and when that was asked.
    looked: Mutex<Option<(Instant, bool)>>,
}

impl fmt::Debug for ExternalAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExternalAgent").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl ExternalAgent {
    /// The agent as configured. Asks nobody anything yet.
    ///
    /// # Errors
    /// What is wrong with the settings.
    pub fn new(settings: ExternalAgentSettings) -> Result<Self, ExternalError> {
        if settings.command.trim().is_empty() {
            return Err(ExternalError::NoCommand);
        }
        if let Some(model) = settings.model.as_ref().filter(|model| !is_plain_model(model)) {
            return Err(ExternalError::Model(model.clone()));
        }
        for text in std::iter::once(&settings.command).chain(settings.env.iter().map(|(_, value)| value)) {
            filled(text, settings.model.as_deref())?;
        }
        let upstream = Upstream::new(&settings.endpoint, settings.key.as_ref(), settings.key_header, settings.options)?;
        Ok(Self { settings, upstream: Arc::new(upstream), looked: Mutex::new(None) })
    }

    /// Whether the endpoint answers, as found not long ago.
    async fn is_there(&self) -> bool {
        let mut looked = self.looked.lock().await;
        if let Some((_, answered)) = looked.filter(|(when, _)| when.elapsed() < LOOK_AGAIN) {
            return answered;
        }
        let asked = timeout(LOOK_PATIENCE, self.upstream.ask(Door::Models, None, &hyper::HeaderMap::new())).await;
        // Whatever it says, unless it is that we may not, or that it is broken: some have no list.
        let answered = asked.is_ok_and(|answer| {
            answer.is_ok_and(|answer| {
                !answer.status().is_server_error() && !matches!(answer.status().as_u16(), 401 | 403)
            })
        });
        *looked = Some((Instant::now(), answered));
        answered
    }

    /// The agent's command in a cell.
    fn command(&self, task: &Task) -> Command {
        let model = self.settings.model.as_deref();
        let fill = |text: &str| filled(text, model).expect("checked when the agent was made");
        // The relay ends what stands there when the budget is spent.
        let shell = format!("echo \"$$\" > {FOLDER}/pid; {}", fill(&self.settings.command));
        let mut env = vec![
            ("OPENAI_BASE_URL", "{base_url}"),
            ("OPENAI_API_BASE", "{base_url}"),
            ("OPENAI_API_KEY", NO_KEY),
            ("ANTHROPIC_BASE_URL", "{address}"),
            ("ANTHROPIC_API_KEY", NO_KEY),
            ("COINOP_INSTRUCTIONS_FILE", "{instructions_file}"),
        ];
        if model.is_some() {
            env.push(("COINOP_MODEL", "{model}"));
        }
        let own = self.settings.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect::<Vec<_>>();
        env.retain(|(name, _)| own.iter().all(|(other, _)| other != name));
        Command {
            shell,
            workdir: None,
            env: env.into_iter().chain(own).map(|(name, value)| (name.to_owned(), fill(value))).collect(),
            timeout: task.limits.time,
            keep_bytes: task.limits.output_bytes,
        }
    }

    fn doors(&self) -> Vec<Door> {
        if self.settings.doors.is_empty() { Door::ALL.into() } else { self.settings.doors.clone() }
    }
}

/// A text with its placeholders filled in.
fn filled(text: &str, model: Option<&str>) -> Result<String, ExternalError> {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(begin) = rest.find('{') {
        let (before, from) = rest.split_at(begin);
        out.push_str(before);
        let word: &str = from[1..].split(|c: char| !(c.is_ascii_lowercase() || c == '_')).next().unwrap_or_default();
        let is_placeholder = !word.is_empty() && from[1 + word.len()..].starts_with('}');
        // Shells and JSON have braces of their own: ${x} and {"a":…}.
        if !is_placeholder || before.ends_with('$') {
            out.push('{');
            rest = &from[1..];
            continue;
        }
        match word {
            "instructions_file" => out.push_str(&format!("{FOLDER}/instructions.md")),
            "base_url" => out.push_str(&format!("http://127.0.0.1:{PORT}/v1")),
            "address" => out.push_str(&format!("http://127.0.0.1:{PORT}")),
            "model" => out.push_str(model.ok_or(ExternalError::NoModel)?),
            other => return Err(ExternalError::Placeholder(other.to_owned())),
        }
        rest = &from[word.len() + 2..];
    }
    out.push_str(rest);
    Ok(out)
}

/// Whether a model's name can stand in a shell's command.
fn is_plain_model(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._:/@+-".contains(&byte);
    !name.is_empty() && name.len() <= 200 && !name.starts_with('-') && name.bytes().all(fits)
}

#[async_trait]
impl Worker for ExternalAgent {
    async fn capacity(&self, model: Option<&str>) -> Result<Capacity, Refusal> {
        let own = self.settings.model.as_deref();
        if model.is_some() && model != own {
            let cure = own.map_or_else(|| "leave it out".to_owned(), |own| format!("ask for {own} or leave it out"));
            return Err(Refusal::unsupported(format!("param model: this provider's agent has one model; {cure}")));
        }
        if !self.is_there().await {
            return Err(Refusal::new(Code::Backend, "the model failed; please try again"));
        }
        Ok(Capacity { model: self.settings.model.clone(), context_tokens: None })
    }

    async fn work(&self, task: &Task, cell: &dyn Cell, cancel: &CancellationToken) -> Result<Worked, WorkError> {
        let limits = &task.limits;
        let bytes = self.settings.bounds.job_bytes;
        let allowed = Allowed {
            requests: limits.steps,
            prompt_tokens: limits.prompt_tokens,
            generated_tokens: limits.generated_tokens,
            bytes,
        };
        let (model, doors) = (self.settings.model.clone(), self.doors());
        let proxy =
            Arc::new(Proxy::new(Arc::clone(&self.upstream), doors, model, Budget::new(allowed), self.settings.bounds));
        let mut instructions = Passed::default();
        instructions.add(task.instructions.as_bytes());
        let model = self.settings.model.as_deref();
        let (version, agent) = (TRANSCRIPT_VERSION, "external");
        proxy.journal.add(&Line::Began { version, agent, model, instructions: &instructions.body() });

        let most = bytes.saturating_mul(LINK_SHARE);
        let opening = async {
            let pipe = cell.pipe(&relay()).await?;
            Link::open(pipe, &task.instructions, RELAY_PATIENCE, most).await.map_err(no_relay)
        };
        let link = tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(WorkError::Cancelled),
            link = opening => link?,
        };
        let command = self.command(task);
        let ran = {
            let running = cell.run(&command, cancel);
            beside(link, &proxy, running, self.settings.last_words).await
        };
        match ran {
            Ok(ran) => Ok(worked(&proxy, self.settings.parameters.and_then(parameters), &ran)),
            Err(SandboxError::Cancelled) => Err(WorkError::Cancelled),
            Err(error) => Err(error.into()),
        }
    }
}

/// Serves the link until the agent's command has ended. Once the budget is spent the agent has a while to end by itself.
async fn beside(
    link: Link,
    proxy: &Arc<Proxy>,
    running: impl Future<Output = Result<Ran, SandboxError>>,
    last_words: Duration,
) -> Result<Ran, SandboxError> {
    let stopper = link.stopper();
    let serving = link.serve(|wire| Arc::clone(proxy).serve(wire).boxed());
    let watching = async {
        proxy.budget.wait_until_spent().await;
        sleep(last_words).await;
        stopper.stop();
        std::future::pending::<()>().await;
    };
    let (mut running, mut serving) = (std::pin::pin!(running), std::pin::pin!(serving));
    let mut watching = std::pin::pin!(watching);
    let mut served = None;
    loop {
        tokio::select! {
            biased;
            ran = &mut running => return ran,
            broken = &mut serving, if served.is_none() => {
                tracing::warn!(%broken, "The link to an external agent broke; it can't ask its model any more");
                proxy.journal.add(&Line::Link { why: &broken.to_string() });
                served = Some(());
            }
            () = &mut watching => {}
        }
    }
}

/// A cell in which no relay starts. It is the image's fault, most likely.
fn no_relay(broken: Broken) -> WorkError {
    let why = format!("the relay does not start ({broken}): has the image python3? 'coinop sandbox agents' tells");
    WorkError::Sandbox(SandboxError::Engine(why))
}

fn worked(proxy: &Proxy, parameters: Option<u64>, ran: &Ran) -> Worked {
    let stopped = match (proxy.budget.spent(), ran.ended) {
        (_, Ended::TimedOut) => Stopped::OutOfTime,
        (Some(spent), _) => spent.into(),
        (None, Ended::Exited) if ran.exit_code == 0 => Stopped::Submitted,
        (None, Ended::Exited) => Stopped::Lost,
        (None, Ended::OutOfMemory | Ended::TooMuchOutput) => Stopped::CellEnded,
    };
    let (usage, steps) = (proxy.budget.usage(), proxy.budget.requests());
    let Ran { exit_code, ended, stdout, stderr, duration } = ran;
    let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let transcript = proxy.journal.finish(&[
        Line::Ran { exit_code: *exit_code, ended: *ended, duration_ms, stdout: stdout.into(), stderr: stderr.into() },
        Line::Stopped { stopped, steps, prompt_tokens: usage.prompt_tokens, generated_tokens: usage.generated_tokens },
    ]);
    Worked { stopped, steps, usage, model: proxy.model(), parameters, digest: None, transcript }
}
