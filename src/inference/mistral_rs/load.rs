//! Loading: everything that can be wrong with a model file is found before the engine sees it, because the engine
//! answers most of it with a panic.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mistralrs::{GgufModelBuilder, Model, TokenSource};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::{MistralRs, MistralRsConfig};
use crate::inference::control::ControlTokens;
use crate::inference::gguf::{GgufError, GgufHeader};
use crate::inference::{InferenceError, JsonSupport, Message, ModelInfo, Role};

/// Architectures the engine loads from GGUF files.
const ARCHITECTURES: [&str; 8] = ["llama", "mistral3", "phi2", "phi3", "qwen2", "qwen3", "qwen3moe", "starcoder2"];
/// Tokenizers the engine reads from GGUF files.
const TOKENIZERS: [&str; 3] = ["gpt2", "llama", "replit"];
/// How often a long load is heard of.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);
/// The smallest context that holds a question and an answer.
const SMALLEST_CONTEXT: u32 = 16;

/// A step of loading a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadProgress {
    /// The file is a model the engine knows.
    Checked {
        /// The name it is offered under.
        name: String,
        /// Its family.
        architecture: String,
        /// Its parameters.
        parameters: u64,
        /// The file's size in bytes.
        file_bytes: u64,
    },
    /// Still loading.
    Loading {
        /// Since the beginning.
        elapsed: Duration,
    },
    /// Ready for jobs.
    Ready {
        /// The name it is offered under.
        name: String,
        /// Tokens of prompt and answer together.
        context_tokens: u32,
        /// From beginning to end.
        elapsed: Duration,
    },
}

impl fmt::Display for LoadProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Checked { name, architecture, parameters, file_bytes } => {
                let megabytes = file_bytes.div_ceil(1_000_000);
                write!(f, "loading model {name} ({architecture}, {parameters} parameters, {megabytes} MB)")
            }
            Self::Loading { elapsed } => write!(f, "still loading the model after {} s", elapsed.as_secs()),
            Self::Ready { name, context_tokens, elapsed } => {
                write!(
                    f,
                    "model {name} is ready after {:.1} s (context {context_tokens} tokens)",
                    elapsed.as_secs_f32()
                )
            }
        }
    }
}

pub(super) async fn load(
    config: MistralRsConfig,
    progress: impl Fn(LoadProgress),
) -> Result<MistralRs, InferenceError> {
    let begun = Instant::now();
    let path = config.model_path.clone();
    let header = tokio::task::spawn_blocking(move || GgufHeader::read(&path)).await;
    let header = header
        .unwrap_or_else(|_| Err(GgufError::Damaged("its header can't be read".to_owned())))
        .map_err(|error| unusable(&config.model_path, &explain(&error)))?;
    let context_tokens = check(&config, &header)?;
    let name = offered_name(&config, &header);
    progress(LoadProgress::Checked {
        name: name.clone(),
        architecture: header.architecture.clone(),
        parameters: header.parameters,
        file_bytes: header.file_bytes,
    });

    let builder = builder(&config)?;
    let runtime = tokio::runtime::Handle::current();
    // Loading computes without pause; on a worker thread it would hold up everything else.
    let mut building = tokio::task::spawn_blocking(move || runtime.block_on(builder.build()));
    let built = loop {
        match tokio::time::timeout(PROGRESS_INTERVAL, &mut building).await {
            Ok(built) => break built,
            Err(_) => progress(LoadProgress::Loading { elapsed: begun.elapsed() }),
        }
    };
    let engine: Model = match built {
        Ok(Ok(engine)) => engine,
        Ok(Err(error)) => return Err(unusable(&config.model_path, &format!("can't be loaded: {error:#}"))),
        // The engine's panic message is on standard error.
        Err(_) => return Err(unusable(&config.model_path, "made the engine give up; try another file of this model")),
    };
    let loaded = MistralRs {
        engine: Arc::new(engine),
        turn: Arc::new(Semaphore::new(1)),
        info: ModelInfo {
            name: name.clone(),
            context_tokens: Some(context_tokens),
            parameters: Some(header.parameters),
            digest: None,
            json: JsonSupport::None,
        },
        context_tokens,
        control: Arc::new(ControlTokens::new(header.control_tokens)),
    };
    // A chat template that fails on the simplest conversation fails on every job.
    let chat = loaded.to_engine(&[Message::new(Role::User, "Hello")])?;
    loaded.count(&chat).await.map_err(|error| unusable(&config.model_path, &format!("can't be used: {error}")))?;
    progress(LoadProgress::Ready { name, context_tokens, elapsed: begun.elapsed() });
    Ok(loaded)
}

fn unusable(path: &Path, what: &str) -> InferenceError {
    InferenceError::Unusable(format!("the model file {} {what}", path.display()))
}

fn explain(error: &GgufError) -> String {
    match error {
        GgufError::Io(io) if io.kind() == std::io::ErrorKind::NotFound => {
            "does not exist; put a GGUF model there or change model_path".to_owned()
        }
        other => other.to_string(),
    }
}

/// Finds what the engine would panic on or refuse. Returns the context the model is offered with.
fn check(config: &MistralRsConfig, header: &GgufHeader) -> Result<u32, InferenceError> {
    let wrong = |what: String| Err(unusable(&config.model_path, &what));
    if !ARCHITECTURES.contains(&header.architecture.to_ascii_lowercase().as_str()) {
        return wrong(format!(
            "has the architecture '{}', which the built-in engine can't run (it runs {}); choose another model or serve \
             this one with llama.cpp or Ollama",
            header.architecture,
            ARCHITECTURES.join(", ")
        ));
    }
    match header.tokenizer.as_deref() {
        Some(tokenizer) if TOKENIZERS.contains(&tokenizer) => {}
        Some(tokenizer) => {
            return wrong(format!("has a tokenizer '{tokenizer}', which the built-in engine can't read"));
        }
        None => return wrong("holds no tokenizer; choose a file with everything in it".to_owned()),
    }
    if !header.has_end_token {
        return wrong("doesn't say which token ends an answer (tokenizer.ggml.eos_token_id)".to_owned());
    }
    if header.chat_template.is_none() && config.chat_template.is_none() {
        return wrong("holds no chat template; set chat_template to a .jinja file that suits the model".to_owned());
    }
    let context = match (config.context_tokens, header.context_tokens) {
        (Some(wanted), Some(most)) => wanted.min(most),
        (Some(only), None) | (None, Some(only)) => only,
        (None, None) => return wrong("doesn't say how long its context is; set context_tokens".to_owned()),
    };
    if context < SMALLEST_CONTEXT {
        return wrong(format!("has a context of {context} tokens; at least {SMALLEST_CONTEXT} are needed"));
    }
    Ok(context)
}

fn offered_name(config: &MistralRsConfig, header: &GgufHeader) -> String {
    let file = || config.model_path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    config.name.clone().or_else(|| header.name.clone()).or_else(file).unwrap_or_else(|| "model".to_owned())
}

fn builder(config: &MistralRsConfig) -> Result<GgufModelBuilder, InferenceError> {
    let path = std::path::absolute(&config.model_path)
        .map_err(|error| unusable(&config.model_path, &format!("can't be found: {error}")))?;
    let (Some(folder), Some(file)) = (path.parent().and_then(Path::to_str), path.file_name().and_then(|f| f.to_str()))
    else {
        return Err(unusable(&config.model_path, "has a name that is not UTF-8; rename it"));
    };
    let mut builder = GgufModelBuilder::new(folder, vec![file])
        .with_token_source(TokenSource::None)
        .with_max_num_seqs(1)
        .with_prefix_cache_n(None);
    if cfg!(not(any(feature = "cuda", feature = "metal"))) {
        builder = builder.with_force_cpu();
    }
    if let Some(template) = &config.chat_template {
        builder = builder.with_chat_template(template_path(template)?);
    }
    Ok(builder)
}

/// The engine panics on a template that is missing or has another ending.
fn template_path(path: &Path) -> Result<String, InferenceError> {
    let wrong = |what: &str| Err(InferenceError::Unusable(format!("the chat template {} {what}", path.display())));
    if !path.is_file() {
        return wrong("does not exist; change chat_template");
    }
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("jinja" | "json") => {}
        _ => return wrong("must end in .jinja (or .json for a tokenizer_config.json)"),
    }
    match std::path::absolute(path).ok().and_then(|path| path.to_str().map(str::to_owned)) {
        Some(path) => Ok(path),
        None => wrong("has a name that is not UTF-8; rename it"),
    }
}
