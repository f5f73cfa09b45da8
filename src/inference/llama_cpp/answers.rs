//! What a llama.cpp server says of itself, as far as it is read.

use serde::Deserialize;

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
    pub(super) n_params: Option<u64>,
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

/// The name in what a server calls its model: that may be a path, which is nobody's business.
pub(super) fn stem(id: &str) -> &str {
    const ENDING: &str = ".gguf";
    let name = id.rsplit(['/', '\\']).next().unwrap_or(id);
    let begin = name.len().checked_sub(ENDING.len()).filter(|begin| *begin > 0 && name.is_char_boundary(*begin));
    match begin {
        Some(begin) if name[begin..].eq_ignore_ascii_case(ENDING) => &name[..begin],
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::http::parse;

    #[test]
    fn recorded_answers_are_read() {
        let about: About = parse(include_bytes!("../../../tests/data/llama-server/props.json")).unwrap();
        assert_eq!((about.total_slots, about.default_generation_settings.n_ctx), (2, 1_024));
        assert_eq!(about.eos_token.as_deref(), Some("<|im_end|>"));
        assert!(about.chat_template.contains("<|im_start|>"));
        let listed: Listed = parse(include_bytes!("../../../tests/data/llama-server/models.json")).unwrap();
        let model = &listed.data[0];
        assert_eq!(stem(&model.id), "tiny-lean");
        assert_eq!(model.meta.as_ref().unwrap().n_params, Some(803_968));
    }

    #[test]
    fn a_name_tells_no_path() {
        for (id, name) in [
            ("tiny-lean.gguf", "tiny-lean"),
            ("/srv/models/Qwen3-8B-Q4_K_M.GGUF", "Qwen3-8B-Q4_K_M"),
            (r"C:\models\a.gguf", "a"),
            ("ggml-org/gemma-3-4b-it-GGUF:Q4_K_M", "gemma-3-4b-it-GGUF:Q4_K_M"),
            ("my-model", "my-model"),
            (".gguf", ".gguf"),
            ("日本語", "日本語"),
        ] {
            assert_eq!(stem(id), name);
        }
    }
}
