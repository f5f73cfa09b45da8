//! What servers say of themselves, as far as it tells them apart.

use serde::Deserialize;

use super::{FoundModel, Software};
use crate::inference::public_name;

/// More models than that are not shown to anybody.
const MOST_MODELS: usize = 500;

/// Families of models that turn text into numbers and write none.
const EMBEDDING_FAMILIES: [&str; 2] = ["bert", "nomic-bert"];

/// Ollama's `/api/version`, vLLM's `/version`.
#[derive(Debug, Deserialize)]
pub(super) struct Version {
    pub(super) version: String,
}

/// Ollama's `/api/tags`.
#[derive(Debug, Deserialize)]
pub(super) struct Tags {
    models: Vec<Tag>,
}

#[derive(Debug, Deserialize)]
struct Tag {
    name: String,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    details: Option<Details>,
}

#[derive(Debug, Deserialize)]
struct Details {
    #[serde(default)]
    family: Option<String>,
}

impl Tags {
    pub(super) fn models(self) -> Vec<FoundModel> {
        let embeds = |tag: &Tag| {
            let family = tag.details.as_ref().and_then(|details| details.family.as_deref());
            family.is_some_and(|family| EMBEDDING_FAMILIES.contains(&family))
        };
        let tags = self.models.into_iter().filter(|tag| !embeds(tag));
        let found = tags.filter_map(|tag| Some(FoundModel { name: public_name(&tag.name)?, bytes: tag.size }));
        found.take(MOST_MODELS).collect()
    }
}

/// llama.cpp's `/props`.
#[derive(Debug, Deserialize)]
pub(super) struct Props {
    pub(super) total_slots: Option<u32>,
}

/// `/v1/models`, which everybody has.
#[derive(Debug, Deserialize)]
pub(super) struct Listed {
    data: Vec<ListedModel>,
}

#[derive(Debug, Deserialize)]
struct ListedModel {
    id: String,
    #[serde(default)]
    owned_by: Option<String>,
    #[serde(default)]
    meta: Option<Meta>,
}

/// What llama.cpp adds.
#[derive(Debug, Deserialize)]
struct Meta {
    #[serde(default)]
    size: Option<u64>,
}

impl Listed {
    pub(super) fn software(&self) -> Software {
        match self.data.first().and_then(|model| model.owned_by.as_deref()) {
            Some("vllm") => Software::Vllm,
            Some("sglang") => Software::Sglang,
            Some("organization_owner") => Software::LmStudio,
            Some("llamacpp") => Software::LlamaCpp,
            _ => Software::OpenAi,
        }
    }

    pub(super) fn models(self) -> Vec<FoundModel> {
        let found = self.data.into_iter().filter_map(|model| {
            Some(FoundModel { name: public_name(&model.id)?, bytes: model.meta.and_then(|meta| meta.size) })
        });
        found.take(MOST_MODELS).collect()
    }
}

#[derive(Debug, Deserialize)]
struct Refused {
    error: serde_json::Value,
}

/// llama.cpp answers every question so until its model is loaded.
pub(super) fn is_loading(body: &[u8]) -> bool {
    let refused: Option<Refused> = serde_json::from_slice(body).ok();
    refused.is_some_and(|refused| refused.error["type"] == "unavailable_error")
}

/// Whether a refusal is that of a server of OpenAI's form without the right key, and not of any other program.
pub(super) fn wants_key(status: u16, body: &[u8]) -> bool {
    matches!(status, 401 | 403) && serde_json::from_slice::<Refused>(body).is_ok()
}
