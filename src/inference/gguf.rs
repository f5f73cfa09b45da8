//! The header of a GGUF model file (versions 2 and 3): what a model is, without loading it.
//!
//! Why our own: the engine exposes neither the exact parameter count, which receipts are computed from, nor the control
//! tokens, which customers' text must not contain; and it answers a damaged file with a panic. Nothing here trusts the
//! file: every count is bounded before anything is allocated by it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek};
use std::path::Path;

/// The first four bytes.
const MAGIC: [u8; 4] = *b"GGUF";
/// Most metadata entries; real files have some dozens.
const MOST_ENTRIES: u64 = 65_536;
/// Most tensors; the largest models have some thousands.
const MOST_TENSORS: u64 = 1_048_576;
/// Most elements of an array; the largest vocabularies have some hundred thousand tokens.
const MOST_ELEMENTS: u64 = 16_777_216;
/// Longest string, in bytes; chat templates are the longest, with some ten thousand.
const LONGEST_STRING: u64 = 4_194_304;
/// Deepest nesting of arrays; real files nest none.
const DEEPEST_ARRAY: u32 = 2;
/// Most dimensions of a tensor: ggml's own limit.
const MOST_DIMENSIONS: u32 = 4;
/// Alignment of the tensor data when the file names none.
const DEFAULT_ALIGNMENT: u64 = 32;
/// Token types of the vocabulary (`tokenizer.ggml.token_type`).
const TOKEN_NORMAL: i64 = 1;
const TOKEN_UNKNOWN: i64 = 2;
const TOKEN_CONTROL: i64 = 3;
/// A piece of a chat template shorter than this is too common in ordinary text to be called a control token.
const SHORTEST_MARK_BYTES: usize = 3;

/// Why a file is no usable model.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// It can't be read.
    #[error("can't be read: {0}")]
    Io(#[from] io::Error),
    /// It begins differently.
    #[error("is no GGUF file; download the model in GGUF format (a file name that ends in .gguf)")]
    NotGguf,
    /// Another version of the format.
    #[error("has GGUF version {0}; versions 2 and 3 are read: convert or download it anew")]
    Version(u32),
    /// It ends too early.
    #[error("is cut short: it holds {found} bytes of at least {expected}; download it again")]
    Truncated {
        /// Bytes there are.
        found: u64,
        /// Bytes there must be.
        expected: u64,
    },
    /// A part of it makes no sense.
    #[error("is damaged: {0}; download it again")]
    Damaged(String),
    /// One of several files.
    #[error("is one part of {0}; join them into one file (llama-gguf-split --merge)")]
    Split(u64),
}

/// What the header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GgufHeader {
    /// The family of model (`general.architecture`), such as `llama` or `qwen2`.
    pub architecture: String,
    /// The model's own name.
    pub name: Option<String>,
    /// Tokens of prompt and answer together that it was made for.
    pub context_tokens: Option<u32>,
    /// Parameters: the elements of all tensors, exactly.
    pub parameters: u64,
    /// The kind of tokenizer (`tokenizer.ggml.model`).
    pub tokenizer: Option<String>,
    /// The token that ends an answer, by number.
    pub end_token: Option<u32>,
    /// How it writes a conversation, in Jinja.
    pub chat_template: Option<String>,
    /// Texts that the tokenizer takes for control tokens.
    pub control_tokens: Vec<String>,
    /// Every token that is marked as something else than text, by number.
    pub special_tokens: Vec<(u32, String)>,
    /// The file's size in bytes.
    pub file_bytes: u64,
    /// Bytes that keys and values of one token take in memory, in half precision; `None` for a model whose layers differ.
    pub kv_bytes_a_token: Option<u64>,
}

impl GgufHeader {
    /// Reads a file's header and checks that all the tensors it announces are there.
    ///
    /// # Errors
    /// What is wrong with the file, and the cure.
    pub fn read(path: &Path) -> Result<Self, GgufError> {
        let file = File::open(path)?;
        let about = file.metadata()?;
        if about.is_dir() {
            return Err(GgufError::Io(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder")));
        }
        Self::parse(BufReader::new(file), about.len())
    }

    /// Reads a header from `source`, a file of `file_bytes` bytes.
    ///
    /// # Errors
    /// As [`GgufHeader::read`].
    pub fn parse(source: impl BufRead + Seek, file_bytes: u64) -> Result<Self, GgufError> {
        let mut reader = Reader { source, file_bytes };
        if reader.bytes::<4>().map_err(|error| if file_bytes < 4 { GgufError::NotGguf } else { error })? != MAGIC {
            return Err(GgufError::NotGguf);
        }
        let version = reader.u32()?;
        if !(2..=3).contains(&version) {
            return Err(GgufError::Version(version));
        }
        let tensors = reader.count("tensors", MOST_TENSORS)?;
        let entries = reader.count("metadata entries", MOST_ENTRIES)?;
        let mut metadata = HashMap::new();
        for _ in 0..entries {
            let key = reader.string()?;
            let kind = reader.u32()?;
            // Only what is used below is kept: a file can't make us hold all of its arrays.
            let value =
                if is_wanted(&key) { Some(reader.value(kind, 0)?) } else { reader.skip(kind, 0).map(|()| None)? };
            metadata.extend(value.map(|value| (key, value)));
        }
        let (parameters, data_bytes) = reader.tensors(tensors)?;
        let metadata = Metadata(metadata);
        if let Some(parts @ 2..) = metadata.number("split.count") {
            return Err(GgufError::Split(parts));
        }
        let alignment = metadata.number("general.alignment").unwrap_or(DEFAULT_ALIGNMENT).clamp(1, 1 << 20);
        let expected = reader.source.stream_position()?.next_multiple_of(alignment).saturating_add(data_bytes);
        if file_bytes < expected {
            return Err(GgufError::Truncated { found: file_bytes, expected });
        }
        let architecture = metadata
            .text("general.architecture")
            .ok_or_else(|| GgufError::Damaged("it names no architecture (general.architecture)".into()))?;
        let context = metadata.number(&format!("{architecture}.context_length"));
        let chat_template = metadata.text("tokenizer.chat_template");
        Ok(Self {
            name: metadata.text("general.name").filter(|name| !name.trim().is_empty()),
            context_tokens: context
                .map(|tokens| u32::try_from(tokens).unwrap_or(u32::MAX))
                .filter(|tokens| *tokens > 0),
            parameters,
            tokenizer: metadata.text("tokenizer.ggml.model"),
            end_token: metadata.number("tokenizer.ggml.eos_token_id").and_then(|id| u32::try_from(id).ok()),
            special_tokens: metadata.special_tokens(),
            control_tokens: metadata.control_tokens(chat_template.as_deref().unwrap_or_default()),
            chat_template,
            kv_bytes_a_token: metadata.kv_bytes_a_token(&architecture),
            architecture,
            file_bytes,
        })
    }
}

/// What a model's shape is told by, below the name of its architecture.
const SHAPE: [&str; 7] = [
    ".context_length",
    ".block_count",
    ".embedding_length",
    ".attention.head_count",
    ".attention.head_count_kv",
    ".attention.key_length",
    ".attention.value_length",
];

fn is_wanted(key: &str) -> bool {
    SHAPE.iter().any(|end| key.ends_with(end))
        || matches!(
            key,
            "general.architecture"
                | "general.name"
                | "general.alignment"
                | "split.count"
                | "tokenizer.chat_template"
                | "tokenizer.ggml.model"
                | "tokenizer.ggml.tokens"
                | "tokenizer.ggml.token_type"
                | "tokenizer.ggml.bos_token_id"
                | "tokenizer.ggml.eos_token_id"
                | "tokenizer.ggml.unknown_token_id"
        )
}

#[derive(Debug)]
enum Value {
    Number(i64),
    Text(String),
    Numbers(Vec<i64>),
    Texts(Vec<String>),
    Other,
}

struct Metadata(HashMap<String, Value>);

impl Metadata {
    fn number(&self, key: &str) -> Option<u64> {
        match self.0.get(key) {
            Some(Value::Number(number)) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    fn text(&self, key: &str) -> Option<String> {
        match self.0.get(key) {
            Some(Value::Text(text)) => Some(text.clone()),
            _ => None,
        }
    }

    /// Layers × heads that keep keys and values × (size of a key + size of a value) × two bytes.
    fn kv_bytes_a_token(&self, architecture: &str) -> Option<u64> {
        let of = |key: &str| self.number(&format!("{architecture}.{key}")).filter(|number| *number > 0);
        let heads = of("attention.head_count")?;
        let kv_heads = match self.0.get(&format!("{architecture}.attention.head_count_kv")) {
            None => heads,
            Some(_) => of("attention.head_count_kv")?,
        };
        let even = of("embedding_length").map(|width| width / heads);
        let key = of("attention.key_length").or(even)?;
        let value = of("attention.value_length").or(even)?;
        of("block_count")?.checked_mul(kv_heads)?.checked_mul(key.checked_add(value)?)?.checked_mul(2)
    }

    /// The vocabulary, and what each token of it is; no types when the file has none.
    fn tokens_and_types(&self) -> (&[String], &[i64]) {
        let Some(Value::Texts(tokens)) = self.0.get("tokenizer.ggml.tokens") else { return (&[], &[]) };
        match self.0.get("tokenizer.ggml.token_type") {
            Some(Value::Numbers(types)) if types.len() == tokens.len() => (tokens, types),
            _ => (tokens, &[]),
        }
    }

    fn special_tokens(&self) -> Vec<(u32, String)> {
        let (tokens, types) = self.tokens_and_types();
        let marked = types.iter().zip(tokens).enumerate().filter(|(_, (kind, _))| **kind != TOKEN_NORMAL);
        marked.filter_map(|(index, (_, token))| Some((u32::try_from(index).ok()?, token.clone()))).collect()
    }

    /// Tokens that mean something other than their text: those typed control or unknown, those that begin and end
    /// texts, and of the other special ones those that the chat template writes. (Vocabularies also mark whitespace
    /// and HTML tags as special; that does no harm.)
    fn control_tokens(&self, chat_template: &str) -> Vec<String> {
        let (tokens, types) = self.tokens_and_types();
        let named: Vec<u64> = ["bos", "eos", "unknown"]
            .iter()
            .filter_map(|which| self.number(&format!("tokenizer.ggml.{which}_token_id")))
            .collect();
        let is_control = |index: usize, token: &str| match types.get(index).copied().unwrap_or(TOKEN_NORMAL) {
            _ if named.contains(&(index as u64)) => true,
            TOKEN_NORMAL => false,
            TOKEN_UNKNOWN | TOKEN_CONTROL => true,
            _ => token.len() >= SHORTEST_MARK_BYTES && !token.trim().is_empty() && chat_template.contains(token),
        };
        tokens
            .iter()
            .enumerate()
            .filter(|(index, token)| token.chars().nth(1).is_some() && is_control(*index, token))
            .map(|(_, token)| token.clone())
            .collect()
    }
}

struct Reader<R> {
    source: R,
    file_bytes: u64,
}

impl<R: BufRead + Seek> Reader<R> {
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        let mut bytes = [0; N];
        match self.source.read_exact(&mut bytes) {
            Ok(()) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(self.cut_short(N as u64)),
            Err(error) => Err(error.into()),
        }
    }

    fn cut_short(&self, missing: u64) -> GgufError {
        GgufError::Truncated { found: self.file_bytes, expected: self.file_bytes.saturating_add(missing) }
    }

    fn u32(&mut self) -> Result<u32, GgufError> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, GgufError> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn count(&mut self, what: &str, most: u64) -> Result<u64, GgufError> {
        let count = self.u64()?;
        if count > most {
            return Err(GgufError::Damaged(format!("it announces {count} {what}")));
        }
        // Each of them takes a byte at least.
        if count > self.file_bytes { Err(self.cut_short(count)) } else { Ok(count) }
    }

    fn string(&mut self) -> Result<String, GgufError> {
        let size = self.count("bytes of one text", LONGEST_STRING)?;
        let mut bytes = vec![0; usize::try_from(size).expect("bounded by LONGEST_STRING")];
        match self.source.read_exact(&mut bytes) {
            Ok(()) => Ok(String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(self.cut_short(size)),
            Err(error) => Err(error.into()),
        }
    }

    fn advance(&mut self, bytes: u64) -> Result<(), GgufError> {
        let here = self.source.stream_position()?;
        match here.checked_add(bytes) {
            Some(there) if there <= self.file_bytes => {
                let step = i64::try_from(bytes).map_err(|_| self.cut_short(bytes))?;
                Ok(self.source.seek_relative(step)?)
            }
            _ => Err(self.cut_short(bytes)),
        }
    }

    fn value(&mut self, kind: u32, depth: u32) -> Result<Value, GgufError> {
        Ok(match kind {
            0 | 7 => Value::Number(i64::from(self.bytes::<1>()?[0])),
            1 => Value::Number(i64::from(i8::from_le_bytes(self.bytes()?))),
            2 => Value::Number(i64::from(u16::from_le_bytes(self.bytes()?))),
            3 => Value::Number(i64::from(i16::from_le_bytes(self.bytes()?))),
            4 => Value::Number(i64::from(self.u32()?)),
            5 => Value::Number(i64::from(i32::from_le_bytes(self.bytes()?))),
            10 => Value::Number(i64::try_from(self.u64()?).unwrap_or(i64::MAX)),
            11 => Value::Number(i64::from_le_bytes(self.bytes()?)),
            8 => Value::Text(self.string()?),
            9 => self.array(depth)?,
            _ => self.skip(kind, depth).map(|()| Value::Other)?,
        })
    }

    fn array(&mut self, depth: u32) -> Result<Value, GgufError> {
        if depth >= DEEPEST_ARRAY {
            return Err(too_deep());
        }
        let kind = self.u32()?;
        let size = self.count("elements of one list", MOST_ELEMENTS)?;
        let (mut numbers, mut texts) = (Vec::new(), Vec::new());
        for _ in 0..size {
            match self.value(kind, depth + 1)? {
                Value::Number(number) => numbers.push(number),
                Value::Text(text) => texts.push(text),
                _ => {}
            }
        }
        Ok(if kind == 8 { Value::Texts(texts) } else { Value::Numbers(numbers) })
    }

    fn skip(&mut self, kind: u32, depth: u32) -> Result<(), GgufError> {
        match kind {
            8 => {
                let size = self.count("bytes of one text", LONGEST_STRING)?;
                self.advance(size)
            }
            9 if depth < DEEPEST_ARRAY => {
                let kind = self.u32()?;
                let size = self.count("elements of one list", MOST_ELEMENTS)?;
                match scalar_bytes(kind) {
                    Some(bytes) => self.advance(size * bytes),
                    None => (0..size).try_for_each(|_| self.skip(kind, depth + 1)),
                }
            }
            9 => Err(too_deep()),
            _ => match scalar_bytes(kind) {
                Some(bytes) => self.advance(bytes),
                None => Err(GgufError::Damaged(format!("it holds a value of unknown type {kind}"))),
            },
        }
    }

    /// Elements of all tensors, and the bytes their data takes at least.
    fn tensors(&mut self, count: u64) -> Result<(u64, u64), GgufError> {
        let (mut parameters, mut data_bytes) = (0u64, 0u64);
        for _ in 0..count {
            let name_bytes = self.count("bytes of one text", LONGEST_STRING)?;
            self.advance(name_bytes)?;
            let dimensions = self.u32()?;
            if dimensions > MOST_DIMENSIONS {
                return Err(GgufError::Damaged(format!("it holds a tensor of {dimensions} dimensions")));
            }
            let mut elements = Some(1u64);
            for _ in 0..dimensions {
                let size = self.u64()?;
                elements = elements.and_then(|elements| elements.checked_mul(size));
            }
            let kind = self.u32()?;
            let offset = self.u64()?;
            let too_large = || GgufError::Damaged("it holds a tensor of impossible size".into());
            let elements = elements.ok_or_else(too_large)?;
            parameters = parameters.checked_add(elements).ok_or_else(too_large)?;
            let end = offset.checked_add(tensor_bytes(kind, elements)).ok_or_else(too_large)?;
            data_bytes = data_bytes.max(end);
        }
        Ok((parameters, data_bytes))
    }
}

fn too_deep() -> GgufError {
    GgufError::Damaged("it holds lists within lists within lists".into())
}

/// Bytes of a metadata value of fixed size.
const fn scalar_bytes(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

/// Bytes of a tensor's data (ggml's block layouts). An unknown type counts as nothing: the engine will name it.
const fn tensor_bytes(kind: u32, elements: u64) -> u64 {
    let (block, bytes) = match kind {
        0 | 26 => (1, 4),      // F32, I32
        1 | 25 | 30 => (1, 2), // F16, I16, BF16
        24 => (1, 1),          // I8
        27 | 28 => (1, 8),     // I64, F64
        2 => (32, 18),         // Q4_0
        3 => (32, 20),         // Q4_1
        6 => (32, 22),         // Q5_0
        7 => (32, 24),         // Q5_1
        8 => (32, 34),         // Q8_0
        9 => (32, 36),         // Q8_1
        10 => (256, 84),       // Q2_K
        11 => (256, 110),      // Q3_K
        12 => (256, 144),      // Q4_K
        13 => (256, 176),      // Q5_K
        14 => (256, 210),      // Q6_K
        15 => (256, 292),      // Q8_K
        _ => (1, 0),
    };
    elements.div_ceil(block).saturating_mul(bytes)
}

#[cfg(test)]
#[path = "gguf_tests.rs"]
mod tests;
