//! Chat templates, and what stands beside them in a `tokenizer_config.json`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::inference::InferenceError;

/// Largest file of this kind; real ones have some ten thousand bytes, of which token lists are the most.
const LARGEST_BYTES: u64 = 16 * 1024 * 1024;

/// How a model writes a conversation.
#[derive(Debug, Default, Deserialize)]
pub(super) struct TokenizerConfig {
    #[serde(default)]
    chat_template: Option<Value>,
    #[serde(default)]
    eos_token: Option<Value>,
}

impl TokenizerConfig {
    /// The template, or all of them one after the other where there are several by name.
    pub(super) fn template(&self) -> Option<String> {
        match self.chat_template.as_ref()? {
            Value::String(template) => Some(template.clone()),
            Value::Array(several) => {
                let texts = several.iter().filter_map(|one| one.get("template")?.as_str());
                Some(texts.collect::<Vec<_>>().join("\n")).filter(|text| !text.is_empty())
            }
            _ => None,
        }
    }

    /// The token that ends an answer, as text.
    pub(super) fn end_token(&self) -> Option<String> {
        let token = self.eos_token.as_ref()?;
        token.as_str().or_else(|| token.get("content")?.as_str()).map(str::to_owned)
    }
}

/// Reads a `tokenizer_config.json`.
pub(super) fn read_config(path: &Path) -> Result<TokenizerConfig, String> {
    serde_json::from_str(&read_text(path)?).map_err(|error| format!("is damaged: {error}"))
}

/// Reads a text file of bounded size.
pub(super) fn read_text(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let opened = File::open(path).and_then(|file| file.take(LARGEST_BYTES + 1).read_to_string(&mut text));
    match opened {
        Ok(bytes) if bytes as u64 > LARGEST_BYTES => Err(format!("is larger than {LARGEST_BYTES} bytes")),
        Ok(_) => Ok(text),
        Err(error) => Err(format!("can't be read: {error}")),
    }
}

/// A template the operator named: where it lies, what it says, and the end token if it names one.
pub(super) struct Configured {
    /// For the engine.
    pub(super) path: String,
    /// What it says.
    pub(super) text: String,
    /// The token that ends an answer, as text.
    pub(super) end_token: Option<String>,
}

/// Reads the template of the configuration. The engine panics on one that is missing or has another ending.
pub(super) fn configured(path: &Path) -> Result<Configured, InferenceError> {
    let wrong = |what: &str| InferenceError::Unusable(format!("the chat template {} {what}", path.display()));
    if !path.is_file() {
        return Err(wrong("does not exist; change chat_template"));
    }
    let (text, end_token) = match path.extension().and_then(|ending| ending.to_str()) {
        Some("jinja") => (read_text(path).map_err(|what| wrong(&what))?, None),
        Some("json") => {
            let config = read_config(path).map_err(|what| wrong(&what))?;
            let text = config.template().ok_or_else(|| wrong("holds no chat_template; name a .jinja file instead"))?;
            (text, config.end_token())
        }
        _ => return Err(wrong("must end in .jinja (or .json for a tokenizer_config.json)")),
    };
    match std::path::absolute(path).ok().and_then(|path| path.to_str().map(str::to_owned)) {
        Some(path) => Ok(Configured { path, text, end_token }),
        None => Err(wrong("has a name that is not UTF-8; rename it")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn templates_and_end_tokens_are_read_in_every_form_they_come_in() {
        let read = |text: &str| serde_json::from_str::<TokenizerConfig>(text).unwrap();
        let plain = read(r#"{"chat_template": "a", "eos_token": "</s>", "bos_token": null}"#);
        assert_eq!((plain.template().as_deref(), plain.end_token().as_deref()), (Some("a"), Some("</s>")));
        let nested = read(
            r#"{"chat_template": [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}],
                "eos_token": {"content": "<|im_end|>", "special": true}}"#,
        );
        assert_eq!((nested.template().as_deref(), nested.end_token().as_deref()), (Some("a\nb"), Some("<|im_end|>")));
        let none = read("{}");
        assert_eq!((none.template(), none.end_token()), (None, None));
    }

    #[test]
    fn a_json_without_a_template_is_none() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("tokenizer_config.json");
        for (text, says) in [("{}", "holds no chat_template"), ("{", "is damaged")] {
            fs::write(&path, text).unwrap();
            let Err(InferenceError::Unusable(error)) = configured(&path) else { panic!("taken") };
            assert!(error.contains(says), "{error}");
        }
        fs::write(&path, r#"{"chat_template": "x", "eos_token": "e"}"#).unwrap();
        let taken = configured(&path).unwrap();
        assert_eq!((taken.text.as_str(), taken.end_token.as_deref()), ("x", Some("e")));
    }
}
