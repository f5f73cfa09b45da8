//! Endpoints that are servers: where they are, what opens them, and what they don't tell of themselves.

use url::{Host, Url};

use super::read::{MOST_AT_ONCE, parameters, tokens};
use super::{JsonAnswers, LlamaCppSettings, OllamaSettings, OpenAiSettings, ServerSettings};
use crate::config::raw::RawEndpoint;
use crate::config::values::{Values, shown};

/// The keys of each kind of server: Ollama, llama.cpp, OpenAI's form.
pub(super) const SERVER_FIELDS: [&[&str]; 3] = [
    &["url", "key", "models", "embeddings", "slots", "context", "bytes_per_token"],
    &["url", "key", "model_name", "slots"],
    &["url", "key", "models", "embeddings", "slots", "context", "parameters", "json", "bytes_per_token"],
];

/// The longest name of a model on a server, in characters: some are paths.
const LONGEST_NAME: usize = 200;

/// Endings of names that are resolved on the own network only.
const PRIVATE_NAMES: [&str; 5] = [".localhost", ".local", ".lan", ".internal", ".home.arpa"];

pub(super) fn ollama(values: &mut Values<'_>, section: &str, raw: &RawEndpoint) -> Option<OllamaSettings> {
    let (models, embeddings) = (named(values, section, "models", &raw.models), embeddings(values, section, raw));
    let slots = slots(values, section, raw.slots);
    let context = tokens(values, &format!("{section}.context"), raw.context);
    let bytes_per_token = bytes_per_token(values, section, raw.bytes_per_token);
    let server = server(values, section, raw, "http://127.0.0.1:11434")?;
    // Ollama's own interface lies beside the one it imitates.
    bare(values, section, &server.url, &["/v1", "/api"]);
    Some(OllamaSettings { server, models, embeddings, slots, context, bytes_per_token })
}

pub(super) fn llama_cpp(values: &mut Values<'_>, section: &str, raw: &RawEndpoint) -> Option<LlamaCppSettings> {
    let model_name = values.line(&format!("{section}.model_name"), &raw.model_name, LONGEST_NAME);
    let slots = slots(values, section, raw.slots);
    let server = server(values, section, raw, "http://127.0.0.1:8080")?;
    bare(values, section, &server.url, &["/v1", "/completion"]);
    Some(LlamaCppSettings { server, model_name, slots })
}

pub(super) fn openai(values: &mut Values<'_>, section: &str, raw: &RawEndpoint) -> Option<OpenAiSettings> {
    let (models, embeddings) = (named(values, section, "models", &raw.models), embeddings(values, section, raw));
    let slots = slots(values, section, raw.slots);
    let context = tokens(values, &format!("{section}.context"), raw.context);
    let parameters = parameters(values, &format!("{section}.parameters"), raw.parameters);
    let words = [("none", JsonAnswers::None), ("any", JsonAnswers::Any), ("schema", JsonAnswers::Schema)];
    let json = match raw.json.as_str() {
        "" => JsonAnswers::None,
        word => values.word(&format!("{section}.json"), word, &words),
    };
    let bytes_per_token = bytes_per_token(values, section, raw.bytes_per_token);
    let server = server(values, section, raw, "http://127.0.0.1:8000/v1")?;
    let field = format!("{section}.url");
    if server.url.path() == "/" {
        let mut with_path = server.url.clone();
        with_path.set_path("/v1");
        values.problem(
            &field,
            "an OpenAI-compatible interface has a path, usually /v1",
            format!(
                "write the address up to where /chat/completions begins, such as \"{}\"",
                shown(with_path.as_str())
            ),
        );
    }
    bare(values, section, &server.url, &["/chat/completions", "/completions", "/models"]);
    Some(OpenAiSettings { server, models, embeddings, slots, context, parameters, json, bytes_per_token })
}

fn server(values: &mut Values<'_>, section: &str, raw: &RawEndpoint, example: &str) -> Option<ServerSettings> {
    let (url_field, key_field) = (format!("{section}.url"), format!("{section}.key"));
    let key = values.secret(&key_field, &raw.key);
    if raw.url.trim().is_empty() {
        values.problem(&url_field, "the server's address is not named", format!("write it, such as \"{example}\""));
        return None;
    }
    let url = values.url(&url_field, &raw.url, ["http", "https"])?;
    if url.query().is_some() || url.fragment().is_some() {
        let what = "an address with a query or fragment in it";
        values.problem(&url_field, what, format!("write where the server's paths begin, such as \"{example}\""));
    }
    if !raw.key.is_empty() && url.scheme() == "http" && !is_private(&url) {
        values.problem(
            &url_field,
            "the key would cross the internet in the clear",
            "write https://, or for a server on your own network its address in numbers or under .local, .lan or .internal",
        );
    }
    Some(ServerSettings { url, key })
}

/// Whether a host is on this machine or network, as far as its name tells. What a name resolves to is not asked here.
fn is_private(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        Some(Host::Ipv6(ip)) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
        Some(Host::Domain(name)) => !name.contains('.') || PRIVATE_NAMES.iter().any(|ending| name.ends_with(ending)),
        None => false,
    }
}

/// The server's own paths are put behind the address; it must not end in one already.
fn bare(values: &mut Values<'_>, section: &str, url: &Url, ends: &[&str]) {
    let path = url.path().trim_end_matches('/');
    if let Some(end) = ends.iter().find(|end| path.ends_with(*end)) {
        let mut without = url.clone();
        without.set_path(path.strip_suffix(end).unwrap_or_default());
        values.problem(
            &format!("{section}.url"),
            format!("the address ends in {end}, which is put behind it"),
            format!("write \"{}\"", shown(without.as_str().trim_end_matches('/'))),
        );
    }
}

/// The models that make embeddings. Servers take text for them as well, and answer with nothing of use.
fn embeddings(values: &mut Values<'_>, section: &str, raw: &RawEndpoint) -> Vec<String> {
    let whole = |name: &str| name.trim().trim_end_matches(":latest").to_owned();
    let found = named(values, section, "embeddings", &raw.embeddings);
    for name in found.iter().filter(|name| raw.models.iter().any(|model| whole(model) == whole(name))) {
        values.problem(
            &format!("{section}.embeddings"),
            format!("'{}' stands in models too", shown(name)),
            "take it out of one of them: a model makes text or embeddings",
        );
    }
    found
}

fn named(values: &mut Values<'_>, section: &str, key: &str, names: &[String]) -> Vec<String> {
    let field = format!("{section}.{key}");
    let mut found: Vec<String> = Vec::new();
    for name in names {
        let Some(name) = values.line(&field, name, LONGEST_NAME) else {
            values.problem(&field, "a model without a name", "take it out");
            continue;
        };
        if found.contains(&name) {
            values.problem(&field, format!("'{}' stands there twice", shown(&name)), "leave one out");
        } else {
            found.push(name);
        }
    }
    found
}

fn slots(values: &mut Values<'_>, section: &str, number: u32) -> Option<usize> {
    Some(values.count(&format!("{section}.slots"), number, 0, MOST_AT_ONCE)).filter(|slots| *slots > 0)
}

fn bytes_per_token(values: &mut Values<'_>, section: &str, number: u32) -> u32 {
    values.number(&format!("{section}.bytes_per_token"), number, 1, 8)
}
