//! What a llama.cpp server says of itself, as far as it is read.

use serde::Deserialize;
use serde_json::Value;

/// `GET /props`.
#[derive(Debug, Deserialize)]
pub(super) struct About {
    pub(super) total_slots: usize,
    pub(super) default_generation_settings: Settings,
    #[serde(default)]
    pub(super) chat_template: String,
    pub(super) bos_token: Option<String>,
    pub(super) eos_token: Option<String>,
}

/// The part of it that is of one slot.
#[derive(Debug, Deserialize)]
pub(super) struct Settings {
    pub(super) n_ctx: u32,
}

/// `GET /v1/models`.
#[derive(Debug, Deserialize)]
pub(super) struct Listed {
    pub(super) data: Vec<ListedModel>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ListedModel {
    pub(super) id: String,
    pub(super) meta: Option<Meta>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Meta {
    pub(super) n_params: Option<Value>,
}

/// `POST /apply-template`.
#[derive(Deserialize)]
pub(super) struct Prompt {
    pub(super) prompt: String,
}

/// `POST /tokenize`.
#[derive(PartialEq, Deserialize)]
pub(super) struct Tokens {
    pub(super) tokens: Vec<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::http::parse;
    use crate::inference::told::stem;

    #[test]
    fn recorded_answers_are_read() {
        let about: About = parse(include_bytes!("../../../tests/data/llama-server/props.json")).unwrap();
        assert_eq!((about.total_slots, about.default_generation_settings.n_ctx), (2, 1_024));
        assert_eq!(about.eos_token.as_deref(), Some("<|im_end|>"));
        assert!(about.chat_template.contains("<|im_start|>"));
        let listed: Listed = parse(include_bytes!("../../../tests/data/llama-server/models.json")).unwrap();
        let model = &listed.data[0];
        assert_eq!(stem(&model.id), "tiny-lean");
        assert_eq!(model.meta.as_ref().unwrap().n_params, Some(Value::from(803_968)));
    }
}
