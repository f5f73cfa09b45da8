//! The chat-completions interface, which OpenAI published and nearly every server speaks: what is asked ([`ChatRequest`]),
//! how the answer's events are read ([`Reading`]), and what a refusal means ([`refused`]).
//!
//! Shared by the backends that use it, so that what is wrong with an answer is found in one place.

mod reading;
mod refusal;
mod request;

pub use self::reading::{Bounds, Reading, read};
pub use self::refusal::{Known, refused, wants_limit_renamed};
pub use self::request::{ChatRequest, Dialect};
use super::control::ControlTokens;
use super::{InferenceError, Message, ModelInfo, meant};

/// The conversation as a server may see it: the customers' texts can't speak as the model's template.
///
/// # Errors
/// [`InferenceError::BadRequest`] when there is no message.
pub fn conversation(messages: &[Message], control: &ControlTokens) -> Result<Vec<Message>, InferenceError> {
    if messages.is_empty() {
        return Err(InferenceError::BadRequest("the conversation is empty".to_owned()));
    }
    Ok(messages.iter().map(|message| Message::new(message.role, control.split(&message.content))).collect())
}

/// The model that is [`meant`] by that name, or the first one; `info` is what is known of each.
///
/// # Errors
/// [`InferenceError::UnknownModel`]; [`InferenceError::Unusable`] when there is none at all.
pub fn chosen<'a, T>(
    models: &'a [T],
    info: impl Fn(&T) -> &ModelInfo,
    wanted: Option<&str>,
) -> Result<&'a T, InferenceError> {
    let found = match wanted {
        None => models.first(),
        Some(wanted) => meant(models.iter(), wanted, |model, is_it| is_it(&info(model).name)),
    };
    found.ok_or_else(|| match wanted {
        Some(wanted) => InferenceError::UnknownModel {
            wanted: wanted.to_owned(),
            offered: models.iter().map(|model| info(model).name.clone()).collect(),
        },
        None => InferenceError::Unusable("it offers no model".to_owned()),
    })
}

/// How many of the `wanted` tokens fit behind the prompt. One stays free: engines fail at the very end of the context.
///
/// # Errors
/// [`InferenceError::ContextOverflow`] when none does.
pub fn fitting(wanted: u32, prompt_tokens: u32, context_tokens: u32) -> Result<u32, InferenceError> {
    match context_tokens.saturating_sub(prompt_tokens).saturating_sub(1) {
        0 => Err(InferenceError::ContextOverflow { prompt_tokens, context_tokens }),
        room => Ok(wanted.min(room)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::Role;

    #[test]
    fn a_model_is_found_by_name_or_by_default() {
        let models = ["small", "large", "other:latest"].map(ModelInfo::named);
        let chosen = |wanted| chosen(&models, |model| model, wanted);
        assert_eq!(chosen(None).unwrap().name, "small");
        assert_eq!(chosen(Some("large")).unwrap().name, "large");
        assert_eq!(chosen(Some("other")).unwrap().name, "other:latest");
        let error = chosen(Some("huge")).unwrap_err();
        let offered = ["small", "large", "other:latest"].map(String::from).to_vec();
        assert_eq!(error, InferenceError::UnknownModel { wanted: "huge".into(), offered });
        let none: &[ModelInfo] = &[];
        assert!(matches!(super::chosen(none, |model| model, None), Err(InferenceError::Unusable(_))));
    }

    #[test]
    fn an_answer_gets_what_the_prompt_leaves() {
        assert_eq!(fitting(10, 100, 1_000), Ok(10));
        assert_eq!(fitting(u32::MAX, 100, 1_000), Ok(899));
        for prompt_tokens in [999, 1_000, u32::MAX] {
            let overflow = InferenceError::ContextOverflow { prompt_tokens, context_tokens: 1_000 };
            assert_eq!(fitting(1, prompt_tokens, 1_000), Err(overflow));
        }
    }

    #[test]
    fn a_conversation_has_messages_and_no_control_tokens() {
        let control = ControlTokens::usual([]);
        assert!(matches!(conversation(&[], &control), Err(InferenceError::BadRequest(_))));
        let messages = conversation(&[Message::new(Role::User, "a<|im_end|>")], &control).unwrap();
        assert!(!messages[0].content.contains("<|im_end|>"));
    }
}
