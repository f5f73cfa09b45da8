use std::io::Cursor;

use proptest::prelude::*;

use super::*;
use crate::inference::tiny;

fn parse(bytes: &[u8]) -> Result<GgufHeader, GgufError> {
    GgufHeader::parse(Cursor::new(bytes), bytes.len() as u64)
}

/// Writes headers for the tests.
#[derive(Default)]
struct Writer {
    entries: Vec<Vec<u8>>,
    tensors: Vec<Vec<u8>>,
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

impl Writer {
    fn entry(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        self.entries.push([&text(key)[..], &kind.to_le_bytes(), value].concat());
        self
    }

    fn text(self, key: &str, value: &str) -> Self {
        self.entry(key, 8, &text(value))
    }

    fn tensor(mut self, dimensions: &[u64], kind: u32, offset: u64) -> Self {
        let mut bytes = [&text("t")[..], &(dimensions.len() as u32).to_le_bytes()].concat();
        dimensions.iter().for_each(|size| bytes.extend(size.to_le_bytes()));
        bytes.extend(kind.to_le_bytes());
        bytes.extend(offset.to_le_bytes());
        self.tensors.push(bytes);
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = [&MAGIC[..], &3u32.to_le_bytes()].concat();
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.entries.len() as u64).to_le_bytes());
        bytes.extend(self.entries.concat());
        bytes.extend(self.tensors.concat());
        bytes
    }
}

#[test]
fn the_tiny_models_header_says_what_it_is() {
    let header = parse(tiny::MODEL_BYTES).unwrap();
    assert_eq!(header.architecture, "llama");
    assert_eq!(header.name.as_deref(), Some("tiny-prover"));
    assert_eq!(header.context_tokens, Some(1_024));
    assert_eq!(header.parameters, 885_888);
    assert_eq!(header.tokenizer.as_deref(), Some("gpt2"));
    assert!(header.kv_bytes_a_token.is_some_and(|bytes| bytes > 0));
    assert_eq!(header.end_token, Some(2));
    assert_eq!(header.special_tokens[..2], [(0, "<|endoftext|>".to_owned()), (1, "<|im_start|>".to_owned())]);
    assert!(header.chat_template.unwrap().contains("<|im_start|>"));
    assert_eq!(header.control_tokens, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]);
}

#[test]
fn a_file_cut_anywhere_is_an_error_that_says_so() {
    let whole = tiny::MODEL_BYTES;
    let header_ends = 22_381;
    for size in (4..header_ends).step_by(97).chain([header_ends + 1, whole.len() / 2, whole.len() - 1]) {
        let error = parse(&whole[..size]).unwrap_err();
        assert!(matches!(error, GgufError::Truncated { .. }), "{size}: {error}");
    }
}

#[test]
fn another_format_and_another_version_are_named() {
    assert!(matches!(parse(b""), Err(GgufError::NotGguf)));
    assert!(matches!(parse(b"GG"), Err(GgufError::NotGguf)));
    assert!(matches!(parse(b"PK\x03\x04 a zip file"), Err(GgufError::NotGguf)));
    assert!(matches!(parse(b"GGUF\x01\0\0\0"), Err(GgufError::Version(1))));
}

#[test]
fn numbers_of_an_attacker_allocate_nothing() {
    let announce = |tensors: u64, entries: u64| {
        [&MAGIC[..], &3u32.to_le_bytes(), &tensors.to_le_bytes(), &entries.to_le_bytes()].concat()
    };
    assert!(matches!(parse(&announce(u64::MAX, 0)), Err(GgufError::Damaged(_))));
    assert!(matches!(parse(&announce(0, u64::MAX)), Err(GgufError::Damaged(_))));
    assert!(matches!(parse(&announce(0, 60_000)), Err(GgufError::Truncated { .. })));

    let long_text = Writer::default().entry("general.name", 8, &u64::MAX.to_le_bytes());
    assert!(matches!(parse(&long_text.bytes()), Err(GgufError::Damaged(_))));
    let long_list = [&4u32.to_le_bytes()[..], &u64::MAX.to_le_bytes()].concat();
    assert!(matches!(parse(&Writer::default().entry("x", 9, &long_list).bytes()), Err(GgufError::Damaged(_))));
    let overflow = Writer::default().text("general.architecture", "llama").tensor(&[u64::MAX, 2], 0, 0);
    assert!(matches!(parse(&overflow.bytes()), Err(GgufError::Damaged(_))));
    let far = Writer::default().text("general.architecture", "llama").tensor(&[1], 0, u64::MAX - 1);
    assert!(matches!(parse(&far.bytes()), Err(GgufError::Damaged(_))));
}

#[test]
fn lists_nested_too_deep_are_refused_without_recursion() {
    let one = 1u64.to_le_bytes();
    let nine = 9u32.to_le_bytes();
    let deep: Vec<u8> = (0..10_000).flat_map(|_| [&nine[..], &one].concat()).collect();
    for key in ["x", "tokenizer.ggml.tokens"] {
        assert!(matches!(parse(&Writer::default().entry(key, 9, &deep).bytes()), Err(GgufError::Damaged(_))), "{key}");
    }
}

#[test]
fn one_part_of_a_split_model_is_named_as_such() {
    let split = Writer::default().text("general.architecture", "llama").entry("split.count", 2, &3u16.to_le_bytes());
    assert!(matches!(parse(&split.bytes()), Err(GgufError::Split(3))));
}

#[test]
fn a_quantised_tensor_needs_its_blocks() {
    let writer = Writer::default().text("general.architecture", "llama").tensor(&[256, 2], 12, 0);
    let mut bytes = writer.bytes();
    let start = bytes.len().next_multiple_of(32);
    bytes.resize(start + 287, 0);
    assert!(matches!(parse(&bytes), Err(GgufError::Truncated { .. })));
    bytes.push(0);
    assert_eq!(parse(&bytes).unwrap().parameters, 512);
}

proptest! {
    #[test]
    fn no_bytes_panic_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse(&bytes);
        let _ = parse(&[&MAGIC[..], &3u32.to_le_bytes(), &bytes].concat());
    }

    #[test]
    fn no_damage_panics_the_reader(at in 0usize..22_381, to in any::<u8>()) {
        let mut bytes = tiny::MODEL_BYTES[..22_400].to_vec();
        bytes[at] = to;
        // The announced size is the whole file's, so that damage is met before the end of the header.
        let _ = GgufHeader::parse(Cursor::new(&bytes), tiny::MODEL_BYTES.len() as u64);
    }
}
