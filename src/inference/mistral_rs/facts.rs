//! What a model's files say of it, read and checked before the engine sees them: it answers most of what can be wrong
//! with a panic.

use std::path::{Path, PathBuf};

use super::{MistralRsConfig, folder, grammar, template};
use crate::inference::InferenceError;
use crate::inference::gguf::{GgufError, GgufHeader};

/// Architectures the engine loads from GGUF files.
const ARCHITECTURES: [&str; 8] = ["llama", "mistral3", "phi2", "phi3", "qwen2", "qwen3", "qwen3moe", "starcoder2"];
/// Tokenizers the engine reads from GGUF files.
const TOKENIZERS: [&str; 3] = ["gpt2", "llama", "replit"];
/// The smallest context that holds a question and an answer.
const SMALLEST_CONTEXT: u32 = 16;

/// A model that the engine can load, as far as its files tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFacts {
    /// The name it is offered under.
    pub name: String,
    /// Its family.
    pub architecture: String,
    /// Its parameters, exact: the elements of all tensors stored. Unknown for quantised safetensors, which pack several
    /// into one element.
    pub parameters: Option<u64>,
    /// Tokens of prompt and answer together.
    pub context_tokens: u32,
    /// Bytes of its weights.
    pub weight_bytes: u64,
    /// The files it is made of: one GGUF file, or those of a folder.
    pub files: Vec<PathBuf>,
    /// Texts that the tokenizer takes for control tokens.
    pub(super) control_tokens: Vec<String>,
    /// Tokens that end an answer.
    pub(super) end_tokens: Vec<u32>,
    /// The template the operator named, for the engine.
    pub(super) template_path: Option<String>,
}

/// Reads and checks. Blocks for as long as it takes to read headers.
///
/// # Errors
/// [`InferenceError::Unusable`], naming the file, what is wrong with it and the cure.
pub fn inspect(config: &MistralRsConfig) -> Result<ModelFacts, InferenceError> {
    let configured = config.chat_template.as_deref().map(template::configured).transpose()?;
    if config.model_path.is_dir() { folder::inspect(config, configured) } else { gguf(config, configured) }
}

pub(super) fn unusable(path: &Path, what: &str) -> InferenceError {
    let kind = if path.is_dir() { "folder" } else { "file" };
    InferenceError::Unusable(format!("the model {kind} {} {what}", path.display()))
}

fn gguf(config: &MistralRsConfig, configured: Option<template::Configured>) -> Result<ModelFacts, InferenceError> {
    let path = &config.model_path;
    let wrong = |what: String| Err(unusable(path, &what));
    let header = GgufHeader::read(path).map_err(|error| unusable(path, &explain(&error)))?;
    if !ARCHITECTURES.contains(&header.architecture.to_ascii_lowercase().as_str()) {
        return wrong(unknown_architecture(&header.architecture, &ARCHITECTURES));
    }
    match header.tokenizer.as_deref() {
        Some(tokenizer) if TOKENIZERS.contains(&tokenizer) => {}
        Some(tokenizer) => {
            return wrong(format!("has a tokenizer '{tokenizer}', which the built-in engine can't read"));
        }
        None => return wrong("holds no tokenizer; choose a file with everything in it".to_owned()),
    }
    let Some(end_token) = header.end_token else {
        return wrong("doesn't say which token ends an answer (tokenizer.ggml.eos_token_id)".to_owned());
    };
    let own_template = header.chat_template.as_deref();
    let Some(template) = configured.as_ref().map(|configured| configured.text.as_str()).or(own_template) else {
        return wrong("holds no chat template; set chat_template to a .jinja file that suits the model".to_owned());
    };
    // A tokenizer_config.json that names an end token takes the place of the file's own.
    let named = configured.as_ref().and_then(|configured| configured.end_token.as_deref());
    let named = named.and_then(|name| header.special_tokens.iter().find(|(_, text)| text == name));
    let end_token = named.map_or(end_token, |(id, _)| *id);
    Ok(ModelFacts {
        context_tokens: context(config, header.context_tokens).map_err(|what| unusable(path, &what))?,
        name: offered_name(config, header.name),
        end_tokens: grammar::end_tokens([end_token], &header.special_tokens, template),
        architecture: header.architecture,
        parameters: Some(header.parameters),
        weight_bytes: header.file_bytes,
        files: vec![path.clone()],
        control_tokens: header.control_tokens,
        template_path: configured.map(|configured| configured.path),
    })
}

pub(super) fn unknown_architecture(architecture: &str, known: &[&str]) -> String {
    format!(
        "has the architecture '{architecture}', which the built-in engine can't run (it runs {}); choose another model or \
         serve this one with llama.cpp or Ollama",
        known.join(", ")
    )
}

/// The context a model is offered with: its own, or less when the operator wants to save memory.
pub(super) fn context(config: &MistralRsConfig, own: Option<u32>) -> Result<u32, String> {
    let context = match (config.context_tokens, own) {
        (Some(wanted), Some(most)) => wanted.min(most),
        (Some(only), None) | (None, Some(only)) => only,
        (None, None) => return Err("doesn't say how long its context is; set context_tokens".to_owned()),
    };
    if context < SMALLEST_CONTEXT {
        return Err(format!("has a context of {context} tokens; at least {SMALLEST_CONTEXT} are needed"));
    }
    Ok(context)
}

/// The configured name, else the model's own, else the file's.
pub(super) fn offered_name(config: &MistralRsConfig, own: Option<String>) -> String {
    let file = || config.model_path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    config.name.clone().or(own).or_else(file).unwrap_or_else(|| "model".to_owned())
}

fn explain(error: &GgufError) -> String {
    match error {
        GgufError::Io(io) if io.kind() == std::io::ErrorKind::NotFound => {
            "does not exist; put a GGUF model or a folder with safetensors there, or change model_path".to_owned()
        }
        other => other.to_string(),
    }
}
