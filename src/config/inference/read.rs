//! Reads `[inference]`: the short way, the endpoints and the models, each by itself and then together. A field of a list is
//! named by its place, from 0: `inference.endpoints[0].url`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::servers::{SERVER_FIELDS, llama_cpp, ollama, openai};
use super::{BackendSettings, EndpointSettings, InferenceSettings, MistralRsSettings, ModelSettings, has_ending};
use crate::config::Config;
use crate::config::raw::{BYTES_PER_TOKEN, RawEndpoint, RawInference, RawModel};
use crate::config::resolve::MAX_TOKENS;
use crate::config::resolved::TextSettings;
use crate::config::values::{Values, shown};
use crate::job::{Rates, Terms};

/// More endpoints or models than that are a typing error.
const MOST_LISTED: usize = 1_000;
/// More places than that to look at are a scan.
const MOST_PROBED: usize = 20;
/// The longest name of a model or an endpoint, in characters.
const LONGEST_NAME: usize = 100;
/// Fewer parameters than any model has: whoever writes 7 means seven billion.
const LEAST_PARAMETERS: u64 = 1_000;
/// More parameters than any model has.
const MOST_PARAMETERS: u64 = 1_000_000_000_000_000;
/// More jobs at once than any endpoint does.
pub(super) const MOST_AT_ONCE: u32 = 10_000;
/// Hexadecimal digits of a SHA-256.
const DIGEST_DIGITS: usize = 64;
/// Endings of model files that nothing here loads by itself.
const OTHER_MODEL_FILES: [&str; 6] = ["safetensors", "bin", "pt", "pth", "onnx", "ggml"];

/// Reads the section. Prices that a model leaves open are those of `text`.
pub(in crate::config) fn inference(
    values: &mut Values<'_>,
    raw: &RawInference,
    text: &TextSettings,
) -> InferenceSettings {
    let context = values.number("inference.context", raw.context, 0, MAX_TOKENS);
    let context = (context > 0).then_some(context);
    let endpoints = if raw.endpoints.is_empty() {
        short(values, raw).into_iter().collect()
    } else {
        beside_endpoints(values, raw);
        endpoints(values, &raw.endpoints)
    };
    let mut probe = Vec::new();
    if raw.probe.len() > MOST_PROBED {
        values.problem("inference.probe", "too many addresses", format!("name at most {MOST_PROBED}"));
    }
    for address in raw.probe.iter().take(MOST_PROBED) {
        probe.extend(values.url("inference.probe", address, ["http", "https"]).filter(|url| !probe.contains(url)));
    }
    let models = models(values, raw, text);
    InferenceSettings { endpoints, probe, context, models }
}

/// One endpoint, or none, by `inference.backend` and the keys beside it.
fn short(values: &mut Values<'_>, raw: &RawInference) -> Option<EndpointSettings> {
    let backend = values.word("inference.backend", &raw.backend, &[("auto", 0), ("mistralrs", 1), ("echo", 2)]);
    let named = |backend: BackendSettings| EndpointSettings {
        name: backend.word().into(),
        section: "inference".into(),
        backend,
    };
    let template = chat_template(values, "inference.chat_template", &raw.chat_template);
    match backend {
        2 => Some(named(BackendSettings::Echo)),
        0 if raw.model.is_empty() => None,
        _ => {
            let context = (1..=MAX_TOKENS).contains(&raw.context).then_some(raw.context);
            let model =
                in_process(values, ["inference.model", "inference.model_name"], &raw.model, &raw.model_name, context);
            model.map(|model| named(BackendSettings::MistralRs(MistralRsSettings { chat_template: template, ..model })))
        }
    }
}

/// The short way and the long one exclude each other: which would be meant?
fn beside_endpoints(values: &mut Values<'_>, raw: &RawInference) {
    let short = [
        ("inference.backend", raw.backend != RawInference::default().backend),
        ("inference.model", !raw.model.is_empty()),
        ("inference.model_name", !raw.model_name.is_empty()),
        ("inference.chat_template", !raw.chat_template.is_empty()),
        ("inference.context", raw.context > 0),
    ];
    for (field, _) in short.into_iter().filter(|(_, is_set)| *is_set) {
        values.problem(
            field,
            "it stands beside [[inference.endpoints]], which say it each for itself",
            "write it into the endpoint it belongs to, and take it out here",
        );
    }
}

/// The model of an endpoint in this process, without its template.
fn in_process(
    values: &mut Values<'_>,
    [model_field, name_field]: [&str; 2],
    model: &str,
    name: &str,
    context: Option<u32>,
) -> Option<MistralRsSettings> {
    let name = values.line(name_field, name, LONGEST_NAME);
    let Some(model) = values.path(model) else {
        values.problem(
            model_field,
            "no model is named",
            "write the path of a GGUF file, such as \"/srv/models/qwen3-4b-q4_k_m.gguf\" (instruction-tuned models of 1 to \
             8 billion parameters suit a computer without a GPU)",
        );
        return None;
    };
    if OTHER_MODEL_FILES.iter().any(|ending| has_ending(&model, ending)) && !model.is_dir() {
        values.problem(
            model_field,
            "it is no .gguf file",
            "name the model's GGUF file, or the folder that its safetensors and tokenizer.json are in",
        );
    }
    let file = if has_ending(&model, "gguf") { model.file_stem() } else { model.file_name() };
    let file = file.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Some(MistralRsSettings { model, model_name: name.unwrap_or(file), chat_template: None, context })
}

fn chat_template(values: &mut Values<'_>, field: &str, text: &str) -> Option<PathBuf> {
    let path = values.path(text);
    if path.as_ref().is_some_and(|path| !has_ending(path, "jinja") && !has_ending(path, "json")) {
        values.problem(field, "it is neither .jinja nor .json", "name a template file");
    }
    path
}

fn endpoints(values: &mut Values<'_>, raw: &[RawEndpoint]) -> Vec<EndpointSettings> {
    if raw.len() > MOST_LISTED {
        values.problem("inference.endpoints", "too many endpoints", format!("list at most {MOST_LISTED}"));
    }
    let mut names = BTreeMap::new();
    let mut found: Vec<EndpointSettings> = Vec::new();
    for (at, raw) in raw.iter().enumerate().take(MOST_LISTED) {
        let section = format!("inference.endpoints[{at}]");
        let name_field = format!("{section}.name");
        let name = values.line(&name_field, name_of(raw), LONGEST_NAME).unwrap_or_default();
        // Without either word it has no name to be confused by.
        let first = if name.is_empty() { None } else { names.insert(name.clone(), at) };
        if let Some(first) = first {
            values.problem(
                &name_field,
                format!("'{}' is the name of inference.endpoints[{first}] too", shown(&name)),
                "give each endpoint a name of its own",
            );
        }
        let Some(backend) = backend(values, &section, raw) else { continue };
        let endpoint = EndpointSettings { name, section, backend };
        if let Some(first) = found.iter().find(|first| is_one_server(first, &endpoint)) {
            values.problem(
                &endpoint.field("url"),
                format!("it is the server of {} too, whose room would count twice", first.section),
                "leave one of the two out; the models of one server are told apart by [[inference.models]]",
            );
        }
        found.push(endpoint);
    }
    found
}

/// Whether two endpoints are one server, opened by one key.
fn is_one_server(one: &EndpointSettings, other: &EndpointSettings) -> bool {
    let address = |endpoint: &EndpointSettings| {
        let server = endpoint.server()?;
        let mut url = server.url.clone();
        if url.host_str() == Some("localhost") {
            url.set_host(Some("127.0.0.1")).ok()?;
        }
        Some((url.as_str().trim_end_matches('/').to_owned(), server.key.clone()))
    };
    address(one).is_some_and(|one| address(other) == Some(one))
}

/// Whoever has one of a kind need not name it.
fn name_of(raw: &RawEndpoint) -> &str {
    if raw.name.trim().is_empty() { &raw.backend } else { raw.name.trim() }
}

fn backend(values: &mut Values<'_>, section: &str, raw: &RawEndpoint) -> Option<BackendSettings> {
    let field = |key: &str| format!("{section}.{key}");
    // The words stand in the order of their field lists.
    let words = [("ollama", 0), ("llamacpp", 1), ("openai", 2), ("mistralrs", 3), ("echo", 4)];
    if raw.backend.is_empty() {
        let words = words.map(|(word, _)| word).join(", ");
        values.problem(&field("backend"), "the backend is not named", format!("write one of {words}"));
        return None;
    }
    let known = words.iter().any(|(word, _)| *word == raw.backend);
    let backend = values.word(&field("backend"), &raw.backend, &words);
    if !known {
        return None;
    }
    let fields = match backend {
        3 => &["model", "model_name", "chat_template", "context"][..],
        4 => &[],
        server => SERVER_FIELDS[server],
    };
    only(values, section, raw, fields);
    match backend {
        0 => ollama(values, section, raw).map(BackendSettings::Ollama),
        1 => llama_cpp(values, section, raw).map(BackendSettings::LlamaCpp),
        2 => openai(values, section, raw).map(BackendSettings::OpenAi),
        3 => {
            let template = chat_template(values, &field("chat_template"), &raw.chat_template);
            let context = tokens(values, &field("context"), raw.context);
            let fields = [&*field("model"), &*field("model_name")];
            let model = in_process(values, fields, &raw.model, &raw.model_name, context)?;
            Some(BackendSettings::MistralRs(MistralRsSettings { chat_template: template, ..model }))
        }
        _ => Some(BackendSettings::Echo),
    }
}

/// What is set that this backend does not know would be ignored: better said.
fn only(values: &mut Values<'_>, section: &str, raw: &RawEndpoint, fields: &[&str]) {
    let set = [
        ("url", !raw.url.is_empty()),
        ("key", !raw.key.is_empty()),
        ("models", !raw.models.is_empty()),
        ("embeddings", !raw.embeddings.is_empty()),
        ("slots", raw.slots > 0),
        ("context", raw.context > 0),
        ("parameters", raw.parameters > 0),
        ("json", !raw.json.is_empty()),
        ("bytes_per_token", raw.bytes_per_token != BYTES_PER_TOKEN),
        ("model", !raw.model.is_empty()),
        ("model_name", !raw.model_name.is_empty()),
        ("chat_template", !raw.chat_template.is_empty()),
    ];
    for (key, _) in set.into_iter().filter(|(key, is_set)| *is_set && !fields.contains(key)) {
        let cure = match fields {
            [] => "take it out".into(),
            fields => format!("take it out; it knows {}", fields.join(", ")),
        };
        values.problem(
            &format!("{section}.{key}"),
            format!("an endpoint with backend \"{}\" has no such key", raw.backend),
            cure,
        );
    }
}

fn models(values: &mut Values<'_>, raw: &RawInference, text: &TextSettings) -> Vec<ModelSettings> {
    if raw.models.len() > MOST_LISTED {
        values.problem("inference.models", "too many models", format!("list at most {MOST_LISTED}"));
    }
    let known: Vec<&str> = match raw.endpoints.is_empty() {
        false => raw.endpoints.iter().map(name_of).collect(),
        true if raw.backend == "echo" => vec!["echo"],
        true if raw.model.is_empty() => Vec::new(),
        true => vec!["mistralrs"],
    };
    let all = &raw.endpoints;
    let mut taken: BTreeMap<String, String> = BTreeMap::new();
    let mut found = Vec::new();
    for (at, raw) in raw.models.iter().enumerate().take(MOST_LISTED) {
        let section = format!("inference.models[{at}]");
        let field = |key: &str| format!("{section}.{key}");
        let name = values.line(&field("name"), &raw.name, LONGEST_NAME).unwrap_or_default();
        if name.is_empty() {
            values.problem(&field("name"), "the model has no name", "write what customers call it");
        }
        let mut aliases = Vec::new();
        for alias in &raw.aliases {
            aliases.extend(values.line(&field("aliases"), alias, LONGEST_NAME));
        }
        let calls = std::iter::once(("name", &name)).chain(aliases.iter().map(|alias| ("aliases", alias)));
        for (key, call) in calls.filter(|(_, call)| !call.is_empty()) {
            if let Some(first) = taken.insert(call.clone(), field(key)) {
                let what = format!("'{}' stands in {first} too", shown(call));
                values.problem(&field(key), what, "each name and alias leads to one model: take one of them out");
            }
        }
        for endpoint in raw.endpoints.iter().filter(|endpoint| !known.contains(&endpoint.as_str())) {
            let cure = match known[..] {
                [] => "write an [[inference.endpoints]] of that name, or leave the list empty".into(),
                _ => format!("write one of {}, or leave the list empty for all that have the model", known.join(", ")),
            };
            values.problem(&field("endpoints"), format!("there is no endpoint '{}'", shown(endpoint)), cure);
        }
        let upstream = values.line(&field("upstream"), &raw.upstream, 2 * LONGEST_NAME).unwrap_or_else(|| name.clone());
        if !name.is_empty() && is_left_out(all, &raw.endpoints, &upstream) {
            values.problem(
                &field(if raw.upstream.trim().is_empty() { "name" } else { "upstream" }),
                format!("no endpoint it may run at takes '{}': their lists of models leave it out", shown(&upstream)),
                "add it to the endpoint's models, or write what the endpoint calls it to upstream",
            );
        }
        let at_once = values.count(&field("at_once"), raw.at_once, 0, MOST_AT_ONCE);
        found.push(ModelSettings {
            upstream,
            aliases,
            endpoints: raw.endpoints.clone(),
            context: tokens(values, &field("context"), raw.context),
            parameters: parameters(values, &field("parameters"), raw.parameters),
            digest: digest(values, &field("digest"), &raw.digest),
            at_once: (at_once > 0).then_some(at_once),
            max_output_tokens: tokens(values, &field("max_output_tokens"), raw.max_output_tokens),
            rates: rates(values, &section, raw, text),
            name,
        });
    }
    found
}

/// Whether every endpoint that a model may run at leaves it out: it has a list of models without it, or has it for
/// embeddings. Of Ollama's names the tag may be left out.
fn is_left_out(all: &[RawEndpoint], named: &[String], upstream: &str) -> bool {
    let mut may =
        all.iter().filter(|endpoint| named.is_empty() || named.iter().any(|name| name == name_of(endpoint))).peekable();
    let whole = |name: &str| name.trim().trim_end_matches(":latest").to_owned();
    let is_in = |names: &[String]| names.iter().any(|model| whole(model) == whole(upstream));
    let lacks = |endpoint: &RawEndpoint| {
        is_in(&endpoint.embeddings) || (!endpoint.models.is_empty() && !is_in(&endpoint.models))
    };
    may.peek().is_some() && may.all(lacks)
}

/// A number of tokens; 0 is not set.
pub(super) fn tokens(values: &mut Values<'_>, field: &str, number: u32) -> Option<u32> {
    Some(values.number(field, number, 0, MAX_TOKENS)).filter(|number| *number > 0)
}

/// An exact number of parameters; 0 is not set.
pub(super) fn parameters(values: &mut Values<'_>, field: &str, number: u64) -> Option<u64> {
    if number > 0 && !(LEAST_PARAMETERS..=MOST_PARAMETERS).contains(&number) {
        values.problem(
            field,
            format!("no model has {number} parameters"),
            "write the exact number, such as 7241732096, or 0 when you don't know it: receipts are made of it",
        );
    }
    (number > 0).then_some(number)
}

fn digest(values: &mut Values<'_>, field: &str, text: &str) -> Option<String> {
    if text.is_empty() {
        return None;
    }
    let digits = text.strip_prefix("sha256:").unwrap_or_default();
    if digits.len() != DIGEST_DIGITS || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        values.problem(
            field,
            format!("'{}' is no digest", shown(text)),
            "write sha256: and the 64 hexadecimal digits of the model's file, as sha256sum prints them",
        );
    }
    Some(text.to_ascii_lowercase())
}

/// A price list of its own when any part of it is set; what is left open is as for every model.
fn rates(values: &mut Values<'_>, section: &str, raw: &RawModel, text: &TextSettings) -> Option<Rates> {
    let mut amount = |key: &str, written: &str, otherwise| {
        if written.is_empty() { otherwise } else { values.amount(&format!("{section}.{key}"), written) }
    };
    let rates = Rates {
        base: amount("base", &raw.base, text.rates.base),
        per_1k_prompt: amount("per_1k_prompt", &raw.per_1k_prompt, text.rates.per_1k_prompt),
        per_1k_generated: amount("per_1k_generated", &raw.per_1k_generated, text.rates.per_1k_generated),
        ..Rates::FREE
    };
    let own = [&raw.base, &raw.per_1k_prompt, &raw.per_1k_generated].iter().any(|written| !written.is_empty());
    // Whoever works for nothing need not clear the price lists as well.
    (own && text.terms != Terms::Free).then_some(rates)
}

/// Contexts that leave no room for a prompt beside the answer a job has when its customer says nothing.
pub(in crate::config) fn fits_text(values: &mut Values<'_>, raw: &RawInference, config: &Config) {
    let endpoints = raw.endpoints.iter().enumerate();
    let models = raw.models.iter().enumerate();
    let contexts = std::iter::once(("inference.context".to_owned(), raw.context))
        .chain(endpoints.map(|(at, raw)| (format!("inference.endpoints[{at}].context"), raw.context)))
        .chain(models.map(|(at, raw)| (format!("inference.models[{at}].context"), raw.context)));
    for (field, context) in contexts.collect::<Vec<_>>() {
        let no_room = context > 0 && config.text.default_output_tokens >= context;
        if no_room && values.are_fine(&[&field, "text.default_output_tokens"]) {
            values.problem(
                &field,
                format!("{context} leaves no room for a prompt beside text.default_output_tokens"),
                "raise it, or lower the other",
            );
        }
    }
}
