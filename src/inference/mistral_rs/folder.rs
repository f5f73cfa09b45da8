//! A model as a folder of safetensors: `config.json`, `tokenizer.json`, the weights, and a chat template somewhere.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::Path;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::facts::{ModelFacts, context, offered_name, unknown_architecture, unusable};
use super::template::{self, Configured, TokenizerConfig};
use super::{MistralRsConfig, grammar, weights};
use crate::inference::InferenceError;

/// Architectures (of `config.json`) the engine loads from folders.
const ARCHITECTURES: [&str; 21] = [
    "DeepseekV2ForCausalLM",
    "DeepseekV3ForCausalLM",
    "Gemma2ForCausalLM",
    "GemmaForCausalLM",
    "Glm4ForCausalLM",
    "Glm4MoeForCausalLM",
    "Glm4MoeLiteForCausalLM",
    "GptOssForCausalLM",
    "GraniteMoeHybridForCausalLM",
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "MixtralForCausalLM",
    "Phi3ForCausalLM",
    "PhiForCausalLM",
    "PhiMoEForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "Qwen3MoeForCausalLM",
    "Qwen3NextForCausalLM",
    "SmolLM3ForCausalLM",
    "Starcoder2ForCausalLM",
];
/// Most files in the folder; a model has some dozens.
const MOST_FILES: usize = 4_096;
/// Largest `tokenizer.json`; real ones have some ten megabytes.
const LARGEST_TOKENIZER_BYTES: u64 = 256 * 1024 * 1024;
/// A token shorter than this is too common in ordinary text to be called a control token because a template writes it.
const SHORTEST_MARK_BYTES: usize = 3;
/// Files that say how the model is used; whatever of them is there belongs to it.
const BESIDE: [&str; 6] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
];

#[derive(Deserialize)]
struct ModelConfig {
    #[serde(default)]
    architectures: Vec<String>,
    max_position_embeddings: Option<u64>,
    quantization_config: Option<Value>,
}

#[derive(Default, Deserialize)]
struct GenerationConfig {
    eos_token_id: Option<Value>,
}

/// Of `tokenizer.json` only what is added to the vocabulary; the rest is passed over while it is read.
#[derive(Deserialize)]
struct Tokenizer {
    #[serde(rename = "model")]
    _model: IgnoredAny,
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
}

/// Reads and checks a folder.
pub(super) fn inspect(config: &MistralRsConfig, configured: Option<Configured>) -> Result<ModelFacts, InferenceError> {
    read(config, configured).map_err(|what| unusable(&config.model_path, &what))
}

fn read(config: &MistralRsConfig, configured: Option<Configured>) -> Result<ModelFacts, String> {
    let folder = &config.model_path;
    let names = names(folder)?;
    for needed in ["config.json", "tokenizer.json"] {
        if !names.contains(needed) {
            return Err(format!("holds no {needed}; download the whole model, or name a GGUF file"));
        }
    }
    if names.contains("params.json") {
        return Err("holds a params.json, which the engine would read instead of config.json; move it elsewhere".into());
    }
    let about: ModelConfig = json(folder, "config.json")?;
    let architecture = about.architectures.first().cloned().unwrap_or_default();
    if !ARCHITECTURES.contains(&architecture.as_str()) {
        return Err(unknown_architecture(&architecture, &ARCHITECTURES));
    }
    let own_context = about.max_position_embeddings.filter(|tokens| *tokens > 0);
    let own_context = own_context.map(|tokens| u32::try_from(tokens).unwrap_or(u32::MAX));

    let weights = weights::read(folder, &names)?;
    let tokenizer = tokenizer(&folder.join("tokenizer.json"))?;
    let tokenizer_config: TokenizerConfig = optional(folder, &names, "tokenizer_config.json")?.unwrap_or_default();
    let template = template_of(folder, &names, &tokenizer_config, configured.as_ref())?;
    let generation: GenerationConfig = optional(folder, &names, "generation_config.json")?.unwrap_or_default();

    let special: Vec<(u32, String)> =
        tokenizer.added_tokens.iter().map(|token| (token.id, token.content.clone())).collect();
    let named = configured.as_ref().and_then(|configured| configured.end_token.clone());
    let named = named.or_else(|| tokenizer_config.end_token());
    let named = named.and_then(|name| special.iter().find(|(_, text)| *text == name).map(|(id, _)| *id));
    let end_tokens =
        grammar::end_tokens(named.into_iter().chain(numbers(generation.eos_token_id)), &special, &template);
    if end_tokens.is_empty() {
        return Err("doesn't say which token ends an answer (eos_token in tokenizer_config.json)".to_owned());
    }
    let is_control = |token: &AddedToken| {
        token.special || (token.content.len() >= SHORTEST_MARK_BYTES && template.contains(&token.content))
    };
    let control = tokenizer.added_tokens.iter().filter(|token| is_control(token) && !token.content.trim().is_empty());

    let beside = BESIDE.iter().filter(|name| names.contains(**name)).map(|name| folder.join(name));
    Ok(ModelFacts {
        name: offered_name(config, folder.file_name().map(|name| name.to_string_lossy().into_owned())),
        architecture,
        // Quantised weights pack several parameters into one element; what is stored is no count of them.
        parameters: weights.parameters.filter(|_| about.quantization_config.is_none()),
        context_tokens: context(config, own_context)?,
        weight_bytes: weights.bytes,
        files: weights.files.iter().map(|name| folder.join(name)).chain(beside).collect(),
        control_tokens: control.map(|token| token.content.clone()).collect(),
        end_tokens,
        template_path: configured.map(|configured| configured.path),
    })
}

fn names(folder: &Path) -> Result<BTreeSet<String>, String> {
    let unreadable = |error: std::io::Error| format!("can't be read: {error}");
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        names.extend(entry.map_err(unreadable)?.file_name().to_str().map(str::to_owned));
        if names.len() > MOST_FILES {
            return Err(format!("holds more than {MOST_FILES} files; name the folder of one model"));
        }
    }
    Ok(names)
}

fn json<T: serde::de::DeserializeOwned>(folder: &Path, name: &str) -> Result<T, String> {
    let text = template::read_text(&folder.join(name)).map_err(|what| format!("holds {name}, which {what}"))?;
    serde_json::from_str(&text).map_err(|error| format!("holds {name}, which is damaged: {error}"))
}

fn optional<T: serde::de::DeserializeOwned>(
    folder: &Path,
    names: &BTreeSet<String>,
    name: &str,
) -> Result<Option<T>, String> {
    if names.contains(name) { json(folder, name).map(Some) } else { Ok(None) }
}

fn tokenizer(path: &Path) -> Result<Tokenizer, String> {
    let file = File::open(path).map_err(|error| format!("holds tokenizer.json, which can't be read: {error}"))?;
    serde_json::from_reader(BufReader::new(file.take(LARGEST_TOKENIZER_BYTES)))
        .map_err(|error| format!("holds tokenizer.json, which is damaged: {error}"))
}

/// The template the engine will use, in its order: the operator's, `chat_template.jinja`, `tokenizer_config.json`,
/// `chat_template.json`.
fn template_of(
    folder: &Path,
    names: &BTreeSet<String>,
    tokenizer_config: &TokenizerConfig,
    configured: Option<&Configured>,
) -> Result<String, String> {
    if let Some(configured) = configured {
        return Ok(configured.text.clone());
    }
    if names.contains("chat_template.jinja") {
        let path = folder.join("chat_template.jinja");
        return template::read_text(&path).map_err(|what| format!("holds chat_template.jinja, which {what}"));
    }
    let beside: Option<TokenizerConfig> = optional(folder, names, "chat_template.json")?;
    let found = tokenizer_config.template().or_else(|| beside.and_then(|config| config.template()));
    found.ok_or_else(|| "holds no chat template; set chat_template to a .jinja file that suits the model".to_owned())
}

/// One number or several.
fn numbers(value: Option<Value>) -> Vec<u32> {
    let several = match value {
        Some(Value::Array(several)) => several,
        Some(one) => vec![one],
        None => Vec::new(),
    };
    several.iter().filter_map(|number| u32::try_from(number.as_u64()?).ok()).collect()
}

#[cfg(test)]
#[path = "folder_tests.rs"]
mod tests;
