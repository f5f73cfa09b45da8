//! A model that the server has.

use serde_json::{Value, json};

use super::NOW;

/// A model that the server has.
#[derive(Debug, Clone)]
pub struct ServedModel {
    /// As it is listed.
    pub name: String,
    /// 64 hexadecimal digits.
    pub digest: String,
    /// Bytes on the disk.
    pub bytes: u64,
    /// Its parameters.
    pub parameters: Option<u64>,
    /// The context it was made for.
    pub context: Option<u32>,
    /// What it can do.
    pub capabilities: Vec<&'static str>,
    /// Its template.
    pub template: String,
    /// Instructions that are built into it.
    pub system: String,
    /// Whether it is in memory.
    pub loaded: bool,
    /// Where it really runs, when that is not here.
    pub remote_host: Option<String>,
}

impl ServedModel {
    /// A small model that chats, with a context of 4,096 tokens.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            digest: format!(
                "{:064x}",
                name.bytes().fold(7_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()))
            ),
            bytes: 1_830_000,
            parameters: Some(885_888),
            context: Some(4_096),
            capabilities: vec!["completion"],
            template: "{{ .System }}{{ .Prompt }}".to_owned(),
            system: String::new(),
            loaded: false,
            remote_host: None,
        }
    }

    pub(super) fn listed(&self) -> Value {
        let mut listed = json!({
            "name": self.name, "model": self.name, "modified_at": NOW, "size": self.bytes, "digest": self.digest,
            "details": {"parent_model": "", "format": "gguf", "family": "llama", "families": ["llama"],
                "parameter_size": "885.89K", "quantization_level": "F16"},
        });
        if let Some(host) = &self.remote_host {
            listed["remote_host"] = host.as_str().into();
            listed["remote_model"] = self.name.as_str().into();
        }
        listed
    }

    pub(super) fn shown(&self) -> Value {
        let mut info = json!({"general.architecture": "llama", "general.file_type": 1, "tokenizer.ggml.tokens": null});
        if let Some(parameters) = self.parameters {
            info["general.parameter_count"] = parameters.into();
        }
        if let Some(context) = self.context {
            info["llama.context_length"] = context.into();
        }
        let mut shown = json!({
            "license": "MIT", "modelfile": "FROM x", "parameters": "stop \"<|im_end|>\"", "template": self.template,
            "details": self.listed()["details"], "model_info": info, "modified_at": NOW,
        });
        if !self.capabilities.is_empty() {
            shown["capabilities"] = json!(self.capabilities);
        }
        if !self.system.is_empty() {
            shown["system"] = self.system.as_str().into();
        }
        shown
    }
}
