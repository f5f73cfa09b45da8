//! `[inference]`: what does the work. One place where models run (an endpoint), several, or none: then whatever model server
//! is found on this machine does it.

mod read;
mod servers;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use url::Url;

pub(super) use self::read::{fits_text, inference};
use super::secret::SecretRef;
use super::values::Values;
use crate::job::Rates;

/// `[inference]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InferenceSettings {
    /// Where models run, each with a name of its own. None: what is found does the work.
    pub endpoints: Vec<EndpointSettings>,
    /// Where model servers are looked for when there are no endpoints.
    pub probe: Vec<Url>,
    /// Tokens of prompt and answer together with what is found; `None` for the models' own.
    pub context: Option<u32>,
    /// Models as customers see them; none when all that the endpoints have are sold, by their own names.
    pub models: Vec<ModelSettings>,
}

impl InferenceSettings {
    /// Whether what does the work is still to be found.
    pub fn is_auto(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// What a model is called that goes by this name or by an alias.
    pub fn model(&self, name: &str) -> Option<&ModelSettings> {
        self.models.iter().find(|model| model.name == name || model.aliases.iter().any(|alias| alias == name))
    }

    /// What is missing before work can be done: files and secrets are looked at.
    pub(super) fn missing_to_serve(&self, missing: &mut Values<'_>) {
        if self.is_auto() && self.probe.is_empty() {
            missing.problem(
                "inference.model",
                "no model is configured, and inference.probe names no address where a model server is looked for",
                "write the path of a GGUF file here, add an [[inference.endpoints]], or take probe = [] out",
            );
        }
        for endpoint in &self.endpoints {
            endpoint.missing_to_serve(missing);
        }
    }
}

/// One place where models run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSettings {
    /// What the operator calls it. Customers never see it.
    pub name: String,
    /// Where it stands in the file, for what is said about it: `inference`, or `inference.endpoints[0]`.
    pub section: String,
    /// What runs there.
    pub backend: BackendSettings,
}

impl EndpointSettings {
    /// The full name of one of its keys.
    pub fn field(&self, key: &str) -> String {
        format!("{}.{key}", self.section)
    }

    /// The server it is, unless it runs in this process.
    pub fn server(&self) -> Option<&ServerSettings> {
        match &self.backend {
            BackendSettings::Echo | BackendSettings::MistralRs(_) => None,
            BackendSettings::Ollama(OllamaSettings { server, .. })
            | BackendSettings::LlamaCpp(LlamaCppSettings { server, .. })
            | BackendSettings::OpenAi(OpenAiSettings { server, .. }) => Some(server),
        }
    }

    /// Its name, where it is, and the field that says so, for what is told of it. What was found has no field.
    pub fn place(&self) -> String {
        let name = &self.name;
        match (self.server(), &self.backend) {
            (Some(server), _) => {
                let url = server.url.as_str().trim_end_matches('/');
                let field =
                    if self.section == "inference" { String::new() } else { format!(" ({})", self.field("url")) };
                format!("{name} at {url}{field}")
            }
            (None, BackendSettings::MistralRs(_)) => format!("{name} ({})", self.field("model")),
            (None, _) => name.clone(),
        }
    }

    /// Models it is known to have without being asked.
    pub fn named_models(&self) -> Vec<String> {
        match &self.backend {
            BackendSettings::Echo => vec!["echo".into()],
            BackendSettings::MistralRs(model) => vec![model.model_name.clone()],
            BackendSettings::Ollama(OllamaSettings { models, .. })
            | BackendSettings::OpenAi(OpenAiSettings { models, .. }) => models.clone(),
            BackendSettings::LlamaCpp(server) => server.model_name.iter().cloned().collect(),
        }
    }

    fn missing_to_serve(&self, missing: &mut Values<'_>) {
        if let Some(key) = self.server().and_then(|server| server.key.as_ref())
            && let Err(error) = key.reveal(&self.field("key"))
        {
            missing.problem(&self.field("key"), super::resolve::error_words(&error), "put the key there");
        }
        let BackendSettings::MistralRs(model) = &self.backend else { return };
        // Not an error of the configuration: another build reads the same file.
        if !cfg!(feature = "mistralrs") {
            missing.problem(
                &self.field("backend"),
                "this coinop was built without the in-process model",
                "use one built with the feature mistralrs, which is on by default, or a model server",
            );
        }
        let (path, cure) = (model.model.display(), "name the model's GGUF file, or the folder of its safetensors");
        if !model.model.exists() {
            let what = format!("there is no file or folder {path}");
            missing.problem(&self.field("model"), what, "correct the path");
        } else if model.model.is_dir() && !model.model.join("config.json").is_file() {
            let what = format!("the folder {path} is no model's: it holds no config.json");
            missing.problem(&self.field("model"), what, format!("{cure} with config.json and tokenizer.json"));
        } else if model.model.is_file() && !has_ending(&model.model, "gguf") {
            missing.problem(&self.field("model"), format!("{path} is no .gguf file"), cure);
        }
        if let Some(template) = model.chat_template.as_ref().filter(|path| !path.is_file()) {
            let what = format!("there is no file {}", template.display());
            missing.problem(&self.field("chat_template"), what, "correct the path");
        }
    }
}

fn has_ending(path: &Path, ending: &str) -> bool {
    path.extension().is_some_and(|end| end.eq_ignore_ascii_case(ending))
}

/// What runs at an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendSettings {
    /// Repeats the prompt, in this process.
    Echo,
    /// A model in this process.
    MistralRs(MistralRsSettings),
    /// Ollama.
    Ollama(OllamaSettings),
    /// llama.cpp's server.
    LlamaCpp(LlamaCppSettings),
    /// Any server that speaks OpenAI's chat completions.
    OpenAi(OpenAiSettings),
}

impl BackendSettings {
    /// The word it is configured by.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::MistralRs(_) => "mistralrs",
            Self::Ollama(_) => "ollama",
            Self::LlamaCpp(_) => "llamacpp",
            Self::OpenAi(_) => "openai",
        }
    }
}

/// The in-process model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MistralRsSettings {
    /// The GGUF file, or the folder of safetensors.
    pub model: PathBuf,
    /// What customers call it.
    pub model_name: String,
    /// A chat template instead of the file's own.
    pub chat_template: Option<PathBuf>,
    /// Tokens of prompt and answer together; `None` for the model's own.
    pub context: Option<u32>,
}

/// A server's address and what opens it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSettings {
    /// Where its paths begin.
    pub url: Url,
    /// The key it wants.
    pub key: Option<SecretRef>,
}

/// An Ollama.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OllamaSettings {
    /// Where it is.
    pub server: ServerSettings,
    /// The models taken from it; none for all that can chat.
    pub models: Vec<String>,
    /// Its models that make embeddings, never offered for text; none for what is found.
    pub embeddings: Vec<String>,
    /// Jobs it does at once (`OLLAMA_NUM_PARALLEL`); it does not tell.
    pub slots: Option<usize>,
    /// Tokens of prompt and answer together; `None` for the models' own.
    pub context: Option<u32>,
    /// Bytes a token has at least, when a prompt's tokens are estimated.
    pub bytes_per_token: u32,
}

/// A llama.cpp server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LlamaCppSettings {
    /// Where it is.
    pub server: ServerSettings,
    /// What customers call its model; `None` for what the server calls it.
    pub model_name: Option<String>,
    /// Jobs it does at once; `None` for its slots.
    pub slots: Option<usize>,
}

/// A server of OpenAI's form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenAiSettings {
    /// Where it is; the address ends where `/chat/completions` begins.
    pub server: ServerSettings,
    /// The models taken from it; none for all it lists.
    pub models: Vec<String>,
    /// Its models that make embeddings, never offered for text.
    pub embeddings: Vec<String>,
    /// Jobs it does at once; it does not tell.
    pub slots: Option<usize>,
    /// Tokens of prompt and answer together; `None` for what it tells.
    pub context: Option<u32>,
    /// Parameters of its models; it does not tell.
    pub parameters: Option<u64>,
    /// Which answers it can be made to give.
    pub json: JsonAnswers,
    /// Bytes a token has at least, when a prompt's tokens are estimated.
    pub bytes_per_token: u32,
}

/// Which answers a server can be made to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum JsonAnswers {
    /// Text.
    #[default]
    None,
    /// JSON of any shape.
    Any,
    /// JSON that a schema describes.
    Schema,
}

/// A model as customers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSettings {
    /// What customers call it.
    pub name: String,
    /// What the endpoints call it.
    pub upstream: String,
    /// Other names customers may use.
    pub aliases: Vec<String>,
    /// Names of the endpoints it runs at; none for all that have it.
    pub endpoints: Vec<String>,
    /// Tokens of prompt and answer together; `None` for its own.
    pub context: Option<u32>,
    /// Its parameters; `None` for what the endpoints tell.
    pub parameters: Option<u64>,
    /// `sha256:` and 64 hexadecimal digits.
    pub digest: Option<String>,
    /// Jobs at once, all endpoints together; `None` for as many as there is room for.
    pub at_once: Option<usize>,
    /// The most tokens a customer may ask for; `None` for `text.max_output_tokens`.
    pub max_output_tokens: Option<u32>,
    /// Its price list; `None` for the one of `[text]`.
    pub rates: Option<Rates>,
}
