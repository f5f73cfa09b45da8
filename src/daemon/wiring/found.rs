//! From servers that were found on this machine to endpoints, for now (`serve` without an endpoint) or for good (`init`).

use crate::config::raw::BYTES_PER_TOKEN;
use crate::config::{
    BackendSettings, EndpointSettings, InferenceSettings, JsonAnswers, LlamaCppSettings, OllamaSettings,
    OpenAiSettings, RawEndpoint, ServerSettings,
};
use crate::inference::detect::{FoundServer, Software, look};

/// What does the work now: what is configured, or else what is found.
#[derive(Debug, Clone)]
pub struct InForce {
    /// The settings, with endpoints.
    pub settings: InferenceSettings,
    /// What answered, when it was looked for: also what can't be used.
    pub found: Vec<FoundServer>,
    /// Whether it was looked for: no endpoint is configured, and where to look is.
    pub was_looked_for: bool,
}

impl InForce {
    /// Looks for model servers when no endpoint is configured.
    pub async fn of(settings: &InferenceSettings) -> Self {
        if !settings.is_auto() {
            return Self { settings: settings.clone(), found: Vec::new(), was_looked_for: false };
        }
        let found = look(&settings.probe).await;
        let endpoints = endpoints(found.iter().filter(|server| server.is_usable()), settings.context);
        let settings = InferenceSettings { endpoints, ..settings.clone() };
        let was_looked_for = !settings.probe.is_empty();
        Self { settings, found, was_looked_for }
    }
}

/// Endpoints of these servers, each with a name of its own.
pub fn endpoints<'a>(found: impl IntoIterator<Item = &'a FoundServer>, context: Option<u32>) -> Vec<EndpointSettings> {
    let mut made: Vec<EndpointSettings> = Vec::new();
    for server in found {
        let name = free_name(server.software, |name| made.iter().any(|endpoint| endpoint.name == name));
        made.push(EndpointSettings { name, section: "inference".into(), backend: backend(server, context) });
    }
    made
}

/// What is written into the configuration to keep what was found, whether or not anything else changes.
pub fn to_keep(found: &[&FoundServer]) -> Vec<RawEndpoint> {
    let mut made: Vec<RawEndpoint> = Vec::new();
    for server in found {
        made.push(RawEndpoint {
            name: free_name(server.software, |name| made.iter().any(|endpoint| endpoint.name == name)),
            backend: server.software.backend().into(),
            url: server.url.as_str().trim_end_matches('/').into(),
            ..RawEndpoint::default()
        });
    }
    made
}

fn backend(found: &FoundServer, context: Option<u32>) -> BackendSettings {
    let server = ServerSettings { url: found.url.clone(), key: None };
    match found.software {
        Software::Ollama => BackendSettings::Ollama(OllamaSettings {
            server,
            models: Vec::new(),
            embeddings: Vec::new(),
            slots: None,
            context,
            bytes_per_token: BYTES_PER_TOKEN,
        }),
        Software::LlamaCpp => BackendSettings::LlamaCpp(LlamaCppSettings { server, model_name: None, slots: None }),
        Software::Vllm | Software::LmStudio | Software::Sglang | Software::OpenAi => {
            BackendSettings::OpenAi(OpenAiSettings {
                server,
                models: Vec::new(),
                embeddings: Vec::new(),
                slots: None,
                context,
                parameters: None,
                json: JsonAnswers::None,
                bytes_per_token: BYTES_PER_TOKEN,
            })
        }
    }
}

/// `ollama`, and `ollama-2` for the second.
fn free_name(software: Software, is_taken: impl Fn(&str) -> bool) -> String {
    let word = match software {
        Software::Ollama => "ollama",
        Software::LlamaCpp => "llamacpp",
        Software::Vllm => "vllm",
        Software::LmStudio => "lmstudio",
        Software::Sglang => "sglang",
        Software::OpenAi => "openai",
    };
    let mut name = word.to_owned();
    let mut number = 1_u32;
    while is_taken(&name) {
        number = number.saturating_add(1);
        name = format!("{word}-{number}");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::detect::FoundModel;

    fn server(software: Software, url: &str, models: &[(&str, u64)]) -> FoundServer {
        let model = |(name, bytes): &(&str, u64)| FoundModel { name: (*name).into(), bytes: Some(*bytes) };
        let url = url.parse().unwrap();
        FoundServer { software, version: None, url, models: models.iter().map(model).collect(), trouble: None }
    }

    #[test]
    fn what_was_found_becomes_endpoints_with_names_of_their_own() {
        let found = [
            server(Software::Ollama, "http://127.0.0.1:11434", &[("a", 1)]),
            server(Software::Vllm, "http://127.0.0.1:8000/v1", &[("b", 1)]),
            server(Software::Ollama, "http://127.0.0.1:11435", &[("c", 1)]),
        ];
        let made = endpoints(&found, Some(4_096));
        let names: Vec<_> = made.iter().map(|made| (made.name.as_str(), made.backend.word())).collect();
        assert_eq!(names, [("ollama", "ollama"), ("vllm", "openai"), ("ollama-2", "ollama")]);
        assert!(matches!(&made[0].backend, BackendSettings::Ollama(ollama) if ollama.context == Some(4_096)));
        let kept = to_keep(&found.iter().collect::<Vec<_>>());
        let written = kept[1].to_toml();
        assert!(written.contains("backend = \"openai\"") && written.contains("url = \"http://127.0.0.1:8000/v1\""));
        assert!(!written.contains("slots"), "{written}");
    }
}
