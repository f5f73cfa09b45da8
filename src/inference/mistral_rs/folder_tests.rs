use std::path::PathBuf;

use serde_json::json;

use super::super::inspect;
use super::*;
use crate::testing::tiny_folder;

/// A folder with the tiny model, in which things can be broken.
struct Broken(tempfile::TempDir);

impl Broken {
    fn new(shards: usize) -> Self {
        let home = tempfile::tempdir().unwrap();
        tiny_folder::write_to(home.path(), shards);
        Self(home)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        fs::write(self.path(name), content).unwrap();
        self
    }

    fn remove(self, name: &str) -> Self {
        fs::remove_file(self.path(name)).unwrap();
        self
    }

    fn change(self, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut bytes = fs::read(self.path(name)).unwrap();
        change(&mut bytes);
        self.write(name, bytes)
    }

    fn change_json(self, name: &str, change: impl FnOnce(&mut Value)) -> Self {
        let mut value: Value = serde_json::from_slice(&fs::read(self.path(name)).unwrap()).unwrap();
        change(&mut value);
        self.write(name, value.to_string())
    }

    fn inspect(&self) -> Result<ModelFacts, InferenceError> {
        inspect(&MistralRsConfig { model_path: self.0.path().to_owned(), ..MistralRsConfig::default() })
    }

    fn complaint(&self) -> String {
        match self.inspect() {
            Err(InferenceError::Unusable(text)) => text,
            other => panic!("{other:?}"),
        }
    }
}

const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const SECOND: &str = "model-00002-of-00003.safetensors";

#[test]
fn a_folder_says_the_same_of_the_model_as_the_file() {
    for shards in [1, 3] {
        let facts = Broken::new(shards).inspect().unwrap();
        assert_eq!(facts.parameters, Some(885_888));
        assert_eq!(facts.context_tokens, 1_024);
        assert_eq!(facts.architecture, "LlamaForCausalLM");
        assert_eq!(facts.end_tokens, [2]);
        assert_eq!(facts.control_tokens[..3], ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]);
        assert_eq!(facts.files.len(), if shards == 1 { 4 } else { 7 });
        assert!(facts.weight_bytes > 1_770_000);
    }
}

#[test]
fn what_is_missing_or_damaged_is_named_with_the_cure() {
    let whole = || Broken::new(1);
    let cases = [
        (whole().remove("config.json"), "holds no config.json"),
        (whole().remove("tokenizer.json"), "holds no tokenizer.json"),
        (whole().write("config.json", "{"), "config.json, which is damaged"),
        (whole().write("tokenizer.json", "[]"), "tokenizer.json, which is damaged"),
        (whole().write("params.json", "{}"), "params.json"),
        (
            whole().change_json("config.json", |config| config["architectures"] = json!(["BloomForCausalLM"])),
            "'BloomFor",
        ),
        (whole().change_json("config.json", |config| config["architectures"] = json!([])), "architecture ''"),
        (whole().change_json("config.json", |config| config["max_position_embeddings"] = json!(0)), "context_tokens"),
        (whole().remove("tokenizer_config.json"), "holds no chat template"),
        (whole().write("tokenizer_config.json", "{}"), "holds no chat template"),
        (whole().remove(WEIGHTS), "holds no .safetensors file"),
        (whole().write("adapter_model.safetensors", "x"), "adapter_model.safetensors beside the model"),
        (whole().write(WEIGHTS, "x"), "cut short"),
        (whole().change(WEIGHTS, |bytes| bytes.truncate(100)), "cut short"),
        (whole().change(WEIGHTS, |bytes| bytes.truncate(1_000_000)), "cut short"),
        (whole().change(WEIGHTS, |bytes| bytes.push(0)), "is damaged"),
        (whole().change(WEIGHTS, |bytes| bytes[8] = b'['), "is damaged"),
        (whole().change(WEIGHTS, |bytes| bytes[..8].fill(255)), "is no safetensors file"),
    ];
    for (broken, says) in cases {
        let text = broken.complaint();
        assert!(text.contains(says) && text.contains("the model folder"), "{says}: {text}");
    }
}

#[test]
fn an_index_and_its_files_agree_or_it_is_said_which_does_not() {
    let whole = || Broken::new(3);
    let tensor = "model.layers.1.mlp.up_proj.weight";
    let cases = [
        (whole().remove(SECOND), "lacks model-00002-of-00003.safetensors"),
        (whole().remove(INDEX), "holds neither"),
        (whole().write(INDEX, "{}"), "index.json, which is damaged"),
        (whole().change_json(INDEX, |index| index["weight_map"]["more"] = json!(SECOND)), "lacks the tensor more"),
        (whole().change_json(INDEX, |index| index["weight_map"][tensor] = json!("../x")), "lacks ../x"),
        (whole().change(SECOND, |bytes| bytes.truncate(5_000)), "model-00002-of-00003.safetensors, which is cut short"),
        (
            {
                let broken = whole();
                let first = fs::read(broken.path("model-00001-of-00003.safetensors")).unwrap();
                broken.write(SECOND, first)
            },
            "twice",
        ),
    ];
    for (broken, says) in cases {
        let text = broken.complaint();
        assert!(text.contains(says), "{says}: {text}");
    }
}

#[test]
fn packed_weights_are_no_count_of_parameters() {
    let quantised = Broken::new(1).change_json("config.json", |config| {
        config["quantization_config"] = json!({ "quant_method": "gptq" });
    });
    assert_eq!(quantised.inspect().unwrap().parameters, None);
}

#[test]
fn the_template_is_the_one_the_engine_takes() {
    let beside = Broken::new(1).write("chat_template.jinja", "{{ messages }}<|endoftext|>");
    assert_eq!(beside.inspect().unwrap().end_tokens, [2], "named by tokenizer_config.json");
    let own = Broken::new(1)
        .change_json("tokenizer_config.json", |config| config["eos_token"] = Value::Null)
        .write("generation_config.json", r#"{"eos_token_id": [0, 2]}"#);
    assert_eq!(own.inspect().unwrap().end_tokens, [0, 2]);
    let none = Broken::new(1).write("tokenizer_config.json", r#"{"chat_template": "{{ messages }}"}"#);
    assert!(none.complaint().contains("which token ends an answer"));
}
