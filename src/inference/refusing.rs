//! What customers are told when a model can't do their work.

use super::{InferenceError, ModelInfo, meant};
use crate::job::text::excerpt;
use crate::job::{Code, Refusal};

/// Most model names an error lists.
pub const MODELS_LISTED: usize = 20;

/// The refusal of a model that is not there, with those that are.
pub fn unknown_model(wanted: &str, offered: impl Iterator<Item = String>) -> Refusal {
    let names: Vec<String> = offered.take(MODELS_LISTED).collect();
    let (wanted, names) = (excerpt(wanted), names.join(", "));
    Refusal::unsupported(format!("param model: there is no '{wanted}' here; on offer: {names}"))
}

/// What a customer may know of a backend's trouble; the operator reads the rest in the log.
pub fn refusal(error: InferenceError) -> Refusal {
    match error {
        InferenceError::UnknownModel { wanted, offered } => unknown_model(&wanted, offered.into_iter()),
        InferenceError::ContextOverflow { prompt_tokens, context_tokens } => Refusal::bad_request(format!(
            "the prompt has {prompt_tokens} tokens; the model reads and writes {context_tokens} together: shorten the \
             prompt"
        )),
        InferenceError::BadRequest(reason) => {
            tracing::warn!(%reason, "The backend refused a conversation");
            Refusal::bad_request(
                "the model can't read this conversation; send one prompt, or messages marked user and assistant in turn",
            )
        }
        InferenceError::NoEmbeddings => {
            Refusal::unsupported("no model here makes embeddings; leave them out or ask elsewhere")
        }
        InferenceError::Cancelled => Refusal::new(Code::Cancelled, "the job was cancelled"),
        InferenceError::Busy(reason) => {
            tracing::warn!(%reason, "The backend is busy");
            Refusal::new(Code::RateLimited, "the model has its hands full; try again in a few minutes")
        }
        InferenceError::Backend(reason) => {
            tracing::warn!(%reason, "The backend failed");
            Refusal::new(Code::Backend, "the model failed; please try again")
        }
        InferenceError::Unusable(reason) => {
            tracing::error!(%reason, "The backend is not usable");
            Refusal::new(Code::Backend, "the model is out of order; please try later or elsewhere")
        }
    }
}

/// The model a customer names among those on offer, by its own name; without a name the first.
///
/// # Errors
/// A refusal that lists the names there are.
pub fn choose(models: &[ModelInfo], wanted: Option<&str>) -> Result<ModelInfo, Refusal> {
    let chosen = match wanted {
        None => models.first(),
        Some(wanted) => meant(models.iter(), wanted, |model, is_it| is_it(&model.name)),
    };
    match (chosen, wanted) {
        (Some(model), _) => Ok(model.clone()),
        (None, Some(wanted)) => Err(unknown_model(wanted, models.iter().map(|model| model.name.clone()))),
        (None, None) => Err(refusal(InferenceError::Unusable("the backend offers no model".to_owned()))),
    }
}
