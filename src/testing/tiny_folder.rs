//! The carried tiny model as a folder of safetensors, made of the GGUF file: the same weights in the other form models
//! come in.
//!
//! A GGUF file of the llama family keeps the rows of the query and key matrices in another order (rotary pairs beside each
//! other instead of half a head apart); here they are put back.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

use crate::inference::tiny::MODEL_BYTES;

const HEADS: usize = 4;
const KEY_VALUE_HEADS: usize = 2;
/// How the tokenizer cuts text before it merges.
const SPLIT: &str = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/// Writes the model into `folder`, its weights in `shards` files.
pub fn write_to(folder: &Path, shards: usize) {
    let (entries, tensors) = read_gguf();
    fs::create_dir_all(folder).expect("a folder");
    let write_json = |name: &str, value: &Value| fs::write(folder.join(name), value.to_string()).expect("written");
    write_json("config.json", &config());
    write_json("tokenizer.json", &tokenizer(&entries));
    write_json(
        "tokenizer_config.json",
        &json!({ "chat_template": entries["tokenizer.chat_template"], "eos_token": "<|im_end|>",
            "bos_token": "<|endoftext|>" }),
    );
    let mut weight_map = BTreeMap::new();
    for (index, part) in tensors.chunks(tensors.len().div_ceil(shards)).enumerate() {
        let name = match shards {
            1 => "model.safetensors".to_owned(),
            _ => format!("model-{:05}-of-{shards:05}.safetensors", index + 1),
        };
        let views = part.iter().map(|tensor| {
            weight_map.insert(tensor.name.clone(), name.clone());
            let view = TensorView::new(tensor.kind, tensor.shape.clone(), &tensor.data);
            (&tensor.name, view.expect("a whole tensor"))
        });
        fs::write(folder.join(&name), safetensors::serialize(views, None).expect("tensors")).expect("written");
    }
    if shards > 1 {
        write_json("model.safetensors.index.json", &json!({ "metadata": {}, "weight_map": weight_map }));
    }
}

fn config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": 128,
        "intermediate_size": 384, "vocab_size": 768, "num_hidden_layers": 4, "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_VALUE_HEADS, "rms_norm_eps": 1e-5, "rope_theta": 10_000.0,
        "max_position_embeddings": 1_024, "tie_word_embeddings": true, "torch_dtype": "float16"
    })
}

fn tokenizer(entries: &BTreeMap<String, Value>) -> Value {
    let list = |key: &str| entries[key].as_array().expect("a list");
    let tokens = list("tokenizer.ggml.tokens").iter().map(|token| token.as_str().expect("text"));
    let types = list("tokenizer.ggml.token_type");
    let added: Vec<Value> = tokens
        .clone()
        .enumerate()
        .filter(|(id, _)| types[*id] != 1)
        .map(|(id, content)| {
            json!({ "id": id, "content": content, "special": true, "normalized": false, "single_word": false,
                "lstrip": false, "rstrip": false })
        })
        .collect();
    let vocabulary: serde_json::Map<String, Value> =
        tokens.enumerate().map(|(id, token)| (token.to_owned(), json!(id))).collect();
    let bytes = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false });
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": [
            { "type": "Split", "pattern": { "Regex": SPLIT }, "behavior": "Isolated", "invert": false }, bytes] },
        "post_processor": bytes, "decoder": bytes,
        "model": { "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocabulary,
            "merges": entries["tokenizer.ggml.merges"] }
    })
}

struct Tensor {
    name: String,
    kind: Dtype,
    /// Rows first.
    shape: Vec<usize>,
    data: Vec<u8>,
}

/// A reader of a file that is known to be whole.
struct Reader {
    at: usize,
}

impl Reader {
    fn take(&mut self, bytes: usize) -> &'static [u8] {
        self.at += bytes;
        &MODEL_BYTES[self.at - bytes..self.at]
    }

    fn number<const N: usize>(&mut self) -> u64 {
        let mut bytes = [0; 8];
        bytes[..N].copy_from_slice(self.take(N));
        u64::from_le_bytes(bytes)
    }

    fn text(&mut self) -> String {
        let size = self.number::<8>() as usize;
        String::from_utf8(self.take(size).to_vec()).expect("text")
    }

    fn value(&mut self, kind: u64) -> Value {
        match kind {
            0 | 1 | 7 => json!(self.number::<1>()),
            2 | 3 => json!(self.number::<2>()),
            4..=6 => json!(self.number::<4>()),
            10..=12 => json!(self.number::<8>()),
            8 => json!(self.text()),
            9 => {
                let (kind, size) = (self.number::<4>(), self.number::<8>());
                (0..size).map(|_| self.value(kind)).collect()
            }
            other => panic!("a value of type {other}"),
        }
    }
}

fn read_gguf() -> (BTreeMap<String, Value>, Vec<Tensor>) {
    let mut reader = Reader { at: 8 };
    let (tensors, entries) = (reader.number::<8>(), reader.number::<8>());
    let entry = |reader: &mut Reader| {
        let key = reader.text();
        let kind = reader.number::<4>();
        (key, reader.value(kind))
    };
    let entries = (0..entries).map(|_| entry(&mut reader)).collect();
    let about: Vec<_> = (0..tensors)
        .map(|_| {
            let name = reader.text();
            let dimensions = reader.number::<4>();
            let mut shape: Vec<usize> = (0..dimensions).map(|_| reader.number::<8>() as usize).collect();
            shape.reverse();
            let kind = if reader.number::<4>() == 0 { Dtype::F32 } else { Dtype::F16 };
            (name, shape, kind, reader.number::<8>() as usize)
        })
        .collect();
    let begin = reader.at.next_multiple_of(32);
    let tensor = |(name, shape, kind, offset): (String, Vec<usize>, Dtype, usize)| {
        let bytes = shape.iter().product::<usize>() * kind.bitsize() / 8;
        let data = MODEL_BYTES[begin + offset..][..bytes].to_vec();
        let data = match name.rsplit('.').nth(1) {
            Some("attn_q") => half_a_head_apart(&data, shape[0], HEADS),
            Some("attn_k") => half_a_head_apart(&data, shape[0], KEY_VALUE_HEADS),
            _ => data,
        };
        Tensor { name: other_name(&name), kind, shape, data }
    };
    (entries, about.into_iter().map(tensor).collect())
}

/// Puts the first of each rotary pair into the first half of its head and the second into the second.
fn half_a_head_apart(data: &[u8], rows: usize, heads: usize) -> Vec<u8> {
    let (row_bytes, head) = (data.len() / rows, rows / heads);
    let source = |row: usize| {
        let (start, within) = (row / head * head, row % head);
        start + 2 * (within % (head / 2)) + within / (head / 2)
    };
    (0..rows).flat_map(|row| &data[source(row) * row_bytes..][..row_bytes]).copied().collect()
}

fn other_name(name: &str) -> String {
    let Some((layer, part)) = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) else {
        return match name {
            "token_embd.weight" => "model.embed_tokens.weight".to_owned(),
            "output_norm.weight" => "model.norm.weight".to_owned(),
            other => panic!("a tensor {other}"),
        };
    };
    let part = match part.trim_end_matches(".weight") {
        "attn_norm" => "input_layernorm",
        "ffn_norm" => "post_attention_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_output" => "self_attn.o_proj",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        other => panic!("a tensor {other}"),
    };
    format!("model.layers.{layer}.{part}.weight")
}
