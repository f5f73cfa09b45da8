//! Looking for model servers: which program answers at an address, and which models it lists. Asks little, waits briefly,
//! believes nothing. What it finds is an offer to the operator; the backends ask for themselves again.

mod read;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::Ipv6Addr;
use std::time::Duration;

use futures::future::join_all;
use secrecy::SecretString;
use serde::{Serialize, Serializer};
use tokio::time::timeout;
use url::{Host, Url};

use self::read::{Listed, Props, Tags, Version, is_loading, wants_key};
use super::http::{Server, ServerOptions, Trouble};
use super::told::is_plain;

/// How long everything together may take: somebody waits for the program to start.
const PATIENCE: Duration = Duration::from_millis(1_800);

/// Bytes of an answer: a list of some thousand models.
const MAX_BODY: usize = 4 * 1024 * 1024;

/// Where Ollama is when nobody moved it.
const OLLAMA_PORT: u16 = 11_434;

/// A program that serves models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Software {
    /// Ollama.
    Ollama,
    /// llama.cpp's llama-server.
    LlamaCpp,
    /// vLLM.
    Vllm,
    /// LM Studio.
    LmStudio,
    /// SGLang.
    Sglang,
    /// Some other program with OpenAI's interface.
    OpenAi,
}

impl Software {
    /// The word its endpoints are configured by.
    pub const fn backend(self) -> &'static str {
        match self {
            Self::Ollama => "ollama",
            Self::LlamaCpp => "llamacpp",
            Self::Vllm | Self::LmStudio | Self::Sglang | Self::OpenAi => "openai",
        }
    }
}

impl fmt::Display for Software {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ollama => "Ollama",
            Self::LlamaCpp => "llama.cpp",
            Self::Vllm => "vLLM",
            Self::LmStudio => "LM Studio",
            Self::Sglang => "SGLang",
            Self::OpenAi => "an OpenAI-compatible server",
        })
    }
}

/// A model that a server lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FoundModel {
    /// What the server calls it, as far as that can be shown: [`super::public_name`].
    pub name: String,
    /// Bytes of its weights, when the server tells.
    pub bytes: Option<u64>,
}

/// A server that answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FoundServer {
    /// Which program.
    pub software: Software,
    /// Its version, when it tells.
    pub version: Option<String>,
    /// Where it is, as an endpoint of its kind is configured.
    #[serde(serialize_with = "as_text")]
    pub url: Url,
    /// What it lists.
    pub models: Vec<FoundModel>,
    /// Why it can't be used as it is, for the operator.
    pub trouble: Option<&'static str>,
}

fn as_text<S: Serializer>(url: &Url, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(url.as_str())
}

impl FoundServer {
    /// Whether work can be given to it.
    pub fn is_usable(&self) -> bool {
        self.trouble.is_none() && !self.models.is_empty()
    }

    /// Program, version and address.
    pub fn title(&self) -> String {
        let version = self.version.as_ref().map_or_else(String::new, |version| format!(" {version}"));
        format!("{}{version} at {}", self.software, self.url.as_str().trim_end_matches('/'))
    }
}

/// Looks at all these addresses at once, and returns who answered, in their order. Takes two seconds at most, whatever is
/// there.
pub async fn look(addresses: &[Url]) -> Vec<FoundServer> {
    join_all(addresses.iter().map(|url| look_at(url, None))).await.into_iter().flatten().collect()
}

/// Looks at one address. Nothing is found where nothing answers in time, or nothing that serves models.
pub async fn look_at(url: &Url, key: Option<&SecretString>) -> Option<FoundServer> {
    let options =
        ServerOptions { connect_timeout: PATIENCE, answer_timeout: PATIENCE, silence: PATIENCE, max_body: MAX_BODY };
    // An OpenAI-compatible endpoint is configured with its path; what tells programs apart lies beside that.
    let mut root = url.clone();
    let path = root.path().trim_end_matches('/').to_owned();
    root.set_path(path.strip_suffix("/v1").unwrap_or(&path));
    let server = Server::new(&root, key, options).ok()?;
    timeout(PATIENCE, ask(&server, root)).await.ok().flatten()
}

async fn ask(server: &Server, root: Url) -> Option<FoundServer> {
    let (ollama, tags, props, listed, version) = tokio::join!(
        server.get::<Version>("api/version"),
        server.get::<Tags>("api/tags"),
        server.get::<Props>("props"),
        server.get::<Listed>("v1/models"),
        server.get::<Version>("version"),
    );
    let found = |software, version: Option<Version>, models, trouble| {
        let mut url = root.clone();
        if software == Software::LlamaCpp || software == Software::Ollama {
            url.set_path(root.path());
        } else {
            url.set_path(&format!("{}/v1", root.path().trim_end_matches('/')));
        }
        let version = version.map(|version| version.version).filter(|version| is_plain(version));
        Some(FoundServer { software, version, url, models, trouble })
    };
    if let (Ok(version), Ok(tags)) = (ollama, tags) {
        return found(Software::Ollama, Some(version), tags.models(), None);
    }
    match (props, listed) {
        (Ok(props), listed) if props.total_slots.is_some() => {
            found(Software::LlamaCpp, None, listed.map(Listed::models).unwrap_or_default(), None)
        }
        (Err(Trouble::Status { body, .. }), _) if is_loading(&body) => {
            found(Software::LlamaCpp, None, Vec::new(), Some("it is still loading its model"))
        }
        (_, Ok(listed)) => {
            let software = listed.software();
            // llama.cpp lists its model to anybody, and tells the rest to whoever has the key.
            let trouble = (software == Software::LlamaCpp).then_some("it wants a key");
            found(software, version.ok(), listed.models(), trouble)
        }
        (_, Err(Trouble::Status { status, body })) if wants_key(status.as_u16(), &body) => {
            found(Software::OpenAi, None, Vec::new(), Some("it wants a key"))
        }
        _ => None,
    }
}

/// The address that Ollama's own variable `OLLAMA_HOST` means: a host, a port, both, or a whole address. Where it says
/// "listen everywhere", this machine is meant.
pub fn ollama_host(text: &str) -> Option<Url> {
    let text = text.trim().trim_matches(['"', '\'']);
    if text.is_empty() {
        return None;
    }
    let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
    // An address of version 6 may stand there without brackets, and a port without an address.
    let rest = match rest.strip_prefix(':') {
        _ if rest.parse::<Ipv6Addr>().is_ok() => format!("[{rest}]"),
        Some(port) => format!("127.0.0.1:{port}"),
        None => rest.to_owned(),
    };
    let mut url =
        Url::parse(&format!("{scheme}://{rest}")).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    let anywhere = match url.host()? {
        Host::Ipv4(ip) => ip.is_unspecified(),
        Host::Ipv6(ip) => ip.is_unspecified(),
        Host::Domain(_) => false,
    };
    if anywhere {
        url.set_host(Some("127.0.0.1")).ok()?;
    }
    // Port 80 is written away by the parser: whoever wants it writes http://.
    if url.port().is_none() && !text.contains("://") {
        url.set_port(Some(OLLAMA_PORT)).ok()?;
    }
    Some(url)
}
