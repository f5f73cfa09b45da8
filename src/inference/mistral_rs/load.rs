//! Loading: the files are checked, then read twice at the same time, by the engine and for their hash.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mistralrs::{GgufModelBuilder, Model, TextModelBuilder, TokenSource};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::facts::{ModelFacts, inspect, unusable};
use super::supervisor::Supervisor;
use super::{MistralRs, MistralRsConfig, digest};
use crate::inference::control::ControlTokens;
use crate::inference::{InferenceError, JsonSupport, Message, ModelInfo, Role};

/// How often a long load is heard of.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// A step of loading a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadProgress {
    /// The file is a model the engine knows.
    Checked {
        /// The name it is offered under.
        name: String,
        /// Its family.
        architecture: String,
        /// Its parameters, when they can be counted.
        parameters: Option<u64>,
        /// The size of its weights in bytes.
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
                let parameters = parameters.map_or("parameters unknown".to_owned(), |n| format!("{n} parameters"));
                write!(f, "loading model {name} ({architecture}, {parameters}, {megabytes} MB)")
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
    let inspected = tokio::task::spawn_blocking(move || inspect(&config)).await;
    let facts = inspected.unwrap_or_else(|_| Err(unusable(&path, "can't be read")))?;
    let name = facts.name.clone();
    progress(LoadProgress::Checked {
        name: name.clone(),
        architecture: facts.architecture.clone(),
        parameters: facts.parameters,
        file_bytes: facts.weight_bytes,
    });

    let folder = path.is_dir();
    let files = facts.files.clone();
    let hashing = tokio::task::spawn_blocking(move || hash(folder, &files));
    let builder = Builder::new(&path, &facts)?;
    let runtime = tokio::runtime::Handle::current();
    // Loading computes without pause; on a worker thread it would hold up everything else.
    let building = tokio::task::spawn_blocking(move || {
        runtime.block_on(async {
            match builder {
                Builder::File(builder) => builder.build().await,
                Builder::Folder(builder) => builder.build().await,
            }
        })
    });
    let mut both = std::pin::pin!(async { tokio::join!(building, hashing) });
    let (built, hashed) = loop {
        match tokio::time::timeout(PROGRESS_INTERVAL, &mut both).await {
            Ok(both) => break both,
            Err(_) => progress(LoadProgress::Loading { elapsed: begun.elapsed() }),
        }
    };
    let engine: Model = match built {
        Ok(Ok(engine)) => engine,
        Ok(Err(error)) => return Err(unusable(&path, &format!("can't be loaded: {error:#}"))),
        // The engine's panic message is on standard error.
        Err(_) => return Err(unusable(&path, "made the engine give up; try another file of this model")),
    };
    let digest = match hashed {
        Ok(Ok(digest)) => digest,
        Ok(Err(error)) => return Err(unusable(&path, &format!("can't be read to the end: {error}"))),
        Err(_) => return Err(unusable(&path, "can't be hashed")),
    };
    let context_tokens = facts.context_tokens;
    let loaded = MistralRs {
        engine: Arc::new(Supervisor::new(engine)),
        turn: Arc::new(Semaphore::new(1)),
        info: ModelInfo {
            name: name.clone(),
            context_tokens: Some(context_tokens),
            parameters: facts.parameters,
            digest: Some(digest),
            json: JsonSupport::Schema,
        },
        context_tokens,
        control: Arc::new(ControlTokens::new(facts.control_tokens)),
        end_tokens: facts.end_tokens.into(),
    };
    // A chat template that fails on the simplest conversation fails on every job.
    let chat = loaded.to_engine(&[Message::new(Role::User, "Hello")])?;
    loaded.count(&chat).await.map_err(|error| unusable(&path, &format!("can't be used: {error}")))?;
    progress(LoadProgress::Ready { name, context_tokens, elapsed: begun.elapsed() });
    Ok(loaded)
}

fn hash(folder: bool, files: &[PathBuf]) -> std::io::Result<String> {
    match files {
        [file] if !folder => digest::of_file(file),
        files => digest::of_folder(files),
    }
}

/// The engine's two ways to be built, which share no type.
enum Builder {
    File(Box<GgufModelBuilder>),
    Folder(Box<TextModelBuilder>),
}

impl Builder {
    /// Without network (the path is absolute and there), one sequence, no prefix cache.
    fn new(model: &Path, facts: &ModelFacts) -> Result<Self, InferenceError> {
        let path = std::path::absolute(model).map_err(|error| unusable(model, &format!("can't be found: {error}")))?;
        let not_utf8 = || unusable(model, "has a name that is not UTF-8; rename it");
        let force_cpu = cfg!(not(any(feature = "cuda", feature = "metal")));
        if path.is_dir() {
            let mut builder = TextModelBuilder::new(path.to_str().ok_or_else(not_utf8)?)
                .with_token_source(TokenSource::None)
                .with_max_num_seqs(1)
                .with_prefix_cache_n(None);
            if force_cpu {
                builder = builder.with_force_cpu();
            }
            if let Some(template) = &facts.template_path {
                builder = builder.with_chat_template(template);
            }
            return Ok(Self::Folder(Box::new(builder)));
        }
        let (Some(folder), Some(file)) =
            (path.parent().and_then(Path::to_str), path.file_name().and_then(|f| f.to_str()))
        else {
            return Err(not_utf8());
        };
        let mut builder = GgufModelBuilder::new(folder, vec![file])
            .with_token_source(TokenSource::None)
            .with_max_num_seqs(1)
            .with_prefix_cache_n(None);
        if force_cpu {
            builder = builder.with_force_cpu();
        }
        if let Some(template) = &facts.template_path {
            builder = builder.with_chat_template(template);
        }
        Ok(Self::File(Box::new(builder)))
    }
}
