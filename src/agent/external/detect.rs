//! Which agent CLIs an image has, and how each that is known is started, for the operator who sets one up.
//!
//! What an image says of itself is shown and nothing else: an agent counts when its program is there.

use std::time::Duration;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::Door;
use crate::sandbox::{Cell, Command, SandboxError};

/// How long all of them may take to say their versions. Some start slowly, and look for a network first.
const PATIENCE: Duration = Duration::from_secs(120);
/// Seconds that one of them may take.
const PATIENCE_EACH_SECS: u32 = 15;
/// Bytes of what they say.
const MOST_BYTES: usize = 16 * 1024;
/// Characters of a version that are shown.
const LONGEST_VERSION: usize = 80;

/// The program that the relay needs.
pub const PYTHON: &str = "python3";

/// An agent CLI and how it is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownAgent {
    /// Its program.
    pub program: &'static str,
    /// What people call it.
    pub title: &'static str,
    /// What it asks a model's endpoint.
    pub doors: &'static [Door],
    /// What starts it, with placeholders.
    pub command: &'static str,
    /// Its variables, with placeholders.
    pub env: &'static [(&'static str, &'static str)],
}

/// The agents that are known, by their makers' descriptions. Each is started so that it asks nobody anything: the cell is what
/// holds it.
pub const KNOWN: [KnownAgent; 5] = [
    KnownAgent {
        program: "codex",
        title: "Codex",
        doors: &[Door::Responses, Door::Models],
        command: "codex exec --skip-git-repo-check --dangerously-bypass-approvals-and-sandbox -m {model} \
                  -c model_provider=coinop -c model_providers.coinop.name=coinop \
                  -c model_providers.coinop.base_url={base_url} -c model_providers.coinop.wire_api=responses \
                  -c model_providers.coinop.env_key=OPENAI_API_KEY - < {instructions_file}",
        env: &[],
    },
    KnownAgent {
        program: "claude",
        title: "Claude Code",
        doors: &[Door::Messages, Door::Models],
        command: "claude -p --dangerously-skip-permissions --model {model} < {instructions_file}",
        env: &[("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"), ("DISABLE_AUTOUPDATER", "1")],
    },
    KnownAgent {
        program: "aider",
        title: "aider",
        doors: &[Door::ChatCompletions, Door::Models],
        command: "aider --model openai/{model} --message-file {instructions_file} --yes-always --no-git --no-check-update \
                  --no-show-model-warnings --analytics-disable --no-gitignore --chat-history-file /tmp/aider.md \
                  --input-history-file /tmp/aider.history",
        env: &[],
    },
    KnownAgent {
        program: "opencode",
        title: "OpenCode",
        doors: &[Door::ChatCompletions, Door::Models],
        command: "opencode run -m coinop/{model} \"$(cat {instructions_file})\"",
        env: &[(
            "OPENCODE_CONFIG_CONTENT",
            "{\"provider\":{\"coinop\":{\"npm\":\"@ai-sdk/openai-compatible\",\"options\":{\"baseURL\":\"{base_url}\",\
             \"apiKey\":\"coinop\"},\"models\":{\"{model}\":{}}}}}",
        )],
    },
    KnownAgent {
        program: "goose",
        title: "goose",
        doors: &[Door::ChatCompletions, Door::Models],
        command: "goose run --no-session -i {instructions_file}",
        env: &[
            ("GOOSE_PROVIDER", "openai"),
            ("GOOSE_MODEL", "{model}"),
            ("GOOSE_DISABLE_KEYRING", "1"),
            ("GOOSE_MODE", "auto"),
            ("OPENAI_HOST", "{address}"),
        ],
    },
];

/// An agent that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FoundAgent {
    /// Its program.
    pub program: &'static str,
    /// What people call it.
    pub title: &'static str,
    /// Its version as it says it, when it does.
    pub version: Option<String>,
}

impl FoundAgent {
    /// How it is started.
    ///
    /// # Panics
    /// Never: only known agents are found.
    pub fn known(&self) -> &'static KnownAgent {
        KNOWN.iter().find(|known| known.program == self.program).expect("only known agents are found")
    }
}

/// What an image has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// Whether the relay can run: it needs Python 3.
    pub python: bool,
    /// The agents, in the order of [`KNOWN`].
    pub agents: Vec<FoundAgent>,
}

/// Looks for agents in a cell's image.
///
/// # Errors
/// When the cell can't be asked.
pub async fn detect(cell: &dyn Cell, cancel: &CancellationToken) -> Result<Found, SandboxError> {
    let command =
        Command { shell: question(), workdir: None, env: Vec::new(), timeout: PATIENCE, keep_bytes: MOST_BYTES };
    let ran = cell.run(&command, cancel).await?;
    Ok(read(&ran.stdout.text))
}

/// Asks which programs are there, and then each for its version. The first part is quick, so that it is there even if a program
/// hangs.
fn question() -> String {
    let programs = KNOWN.map(|known| known.program).join(" ");
    format!(
        "for p in {PYTHON} {programs}; do command -v $p >/dev/null 2>&1 && echo \"has $p\"; done\n\
         for p in {programs}; do command -v $p >/dev/null 2>&1 || continue\n\
         if command -v timeout >/dev/null 2>&1; then v=$(timeout {PATIENCE_EACH_SECS} $p --version 2>/dev/null </dev/null)\n\
         else v=$($p --version 2>/dev/null </dev/null); fi\n\
         echo \"version $p $(echo \"$v\" | head -n 1)\"; done\n:"
    )
}

/// Reads the answer. Lines of an image that says something else are passed over.
fn read(said: &str) -> Found {
    let has = |program: &str| said.lines().any(|line| line.strip_prefix("has ") == Some(program));
    let version = |program: &str| {
        let after =
            said.lines().find_map(|line| line.strip_prefix("version ")?.strip_prefix(program)?.strip_prefix(' '));
        let shown: String = after?.chars().filter(|c| !c.is_control()).take(LONGEST_VERSION).collect();
        Some(shown.trim().to_owned()).filter(|shown| !shown.is_empty())
    };
    let found = KNOWN.iter().filter(|known| has(known.program)).map(|known| FoundAgent {
        program: known.program,
        title: known.title,
        version: version(known.program),
    });
    Found { python: has(PYTHON), agents: found.collect() }
}

#[cfg(test)]
mod tests {
    use super::super::{ExternalAgent, ExternalAgentSettings};
    use super::*;

    #[test]
    fn an_images_answer_is_read_and_what_else_it_says_is_not() {
        let said = "motd\nhas python3\nhas aider\nhas claude\nhas rm\nversion claude 1.0.9 (Claude Code)\u{1b}[31m\nversion aider \n";
        let found = read(said);
        assert!(found.python);
        let agents: Vec<_> = found.agents.iter().map(|agent| (agent.program, agent.version.as_deref())).collect();
        assert_eq!(agents, [("claude", Some("1.0.9 (Claude Code)[31m")), ("aider", None)]);
        assert_eq!(read(""), Found { python: false, agents: Vec::new() });
    }

    #[test]
    fn every_known_agent_can_be_configured_as_it_is_described() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        for known in KNOWN {
            let mut settings = ExternalAgentSettings::new(known.command, "http://127.0.0.1:1/v1".parse().unwrap());
            settings.model = Some("org/model-1".into());
            settings.env = known.env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            ExternalAgent::new(settings).unwrap_or_else(|error| panic!("{}: {error}", known.program));
        }
    }
}
