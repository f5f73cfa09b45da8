//! Safetensors files: which tensors they hold, from their headers alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde::Deserialize;

/// Longest header; the largest models' have some megabytes.
const LONGEST_HEADER_BYTES: u64 = 64 * 1024 * 1024;
/// The name of a model in one file.
const SINGLE: &str = "model.safetensors";
/// The list of the tensors of a model in several files.
const INDEX: &str = "model.safetensors.index.json";
/// Largest index.
const LARGEST_INDEX_BYTES: u64 = 64 * 1024 * 1024;

/// What all the headers say together.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Weights {
    /// The files, the index included.
    pub(super) files: BTreeSet<String>,
    /// Elements of all tensors, when they are plain numbers and nothing packed.
    pub(super) parameters: Option<u64>,
    /// Bytes of all files with tensors.
    pub(super) bytes: u64,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Reads the headers of a folder's weights. `names` are the files in it.
///
/// # Errors
/// What is wrong, and the cure, to follow the folder's name.
pub(super) fn read(folder: &Path, names: &BTreeSet<String>) -> Result<Weights, String> {
    let index = if names.contains(INDEX) { Some(read_index(&folder.join(INDEX))?) } else { None };
    let wanted: BTreeSet<String> = match &index {
        Some(index) => index.weight_map.values().cloned().collect(),
        None => BTreeSet::from([SINGLE.to_owned()]),
    };
    let present: BTreeSet<String> = names.iter().filter(|name| name.ends_with(".safetensors")).cloned().collect();
    if index.is_none() && !present.contains(SINGLE) {
        return Err(match present.len() {
            0 => "holds no .safetensors file; download the model in that format, or name a GGUF file".to_owned(),
            _ => format!("holds neither {SINGLE} nor {INDEX}; download the missing one"),
        });
    }
    if let Some(missing) = wanted.difference(&present).next() {
        return Err(format!("lacks {missing}, which {INDEX} names; download it"));
    }
    if let Some(odd) = wanted.iter().find(|name| !is_loaded(name)) {
        return Err(format!("holds its weights under the name {odd}, which the built-in engine doesn't look for"));
    }
    // The engine would load them, too.
    if let Some(more) = present.difference(&wanted).next() {
        return Err(format!("holds {more} beside the model; move it elsewhere"));
    }

    let mut weights = Weights { files: BTreeSet::new(), parameters: Some(0), bytes: 0 };
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for name in wanted {
        let (header, bytes) = header(&folder.join(&name)).map_err(|what| format!("holds {name}, which {what}"))?;
        weights.bytes = weights.bytes.saturating_add(bytes);
        for (tensor, info) in header.tensors() {
            let elements = info.shape.iter().try_fold(1_u64, |product, side| product.checked_mul(*side as u64));
            let plain = matches!(info.dtype, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16);
            let counted = weights.parameters.zip(elements).filter(|_| plain);
            weights.parameters = counted.and_then(|(sum, elements)| sum.checked_add(elements));
            if let Some(other) = found.insert(tensor.clone(), name.clone()) {
                return Err(format!("holds the tensor {tensor} twice, in {other} and in {name}; download it again"));
            }
        }
        weights.files.insert(name);
    }
    if let Some(index) = index {
        if let Some((tensor, file)) = index.weight_map.iter().find(|(tensor, file)| found.get(*tensor) != Some(*file)) {
            return Err(format!("lacks the tensor {tensor}, which {INDEX} says is in {file}; download {file} again"));
        }
        weights.files.insert(INDEX.to_owned());
    }
    Ok(weights)
}

/// Whether the engine takes a file of that name for a part of a model.
fn is_loaded(name: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let numbers = name.strip_prefix("model-").and_then(|rest| rest.strip_suffix(".safetensors"));
    name == SINGLE || numbers.and_then(|rest| rest.split_once("-of-")).is_some_and(|(n, of)| digits(n) && digits(of))
}

fn read_index(path: &Path) -> Result<Index, String> {
    let file = File::open(path).map_err(|error| format!("holds {INDEX}, which can't be read: {error}"))?;
    serde_json::from_reader(std::io::BufReader::new(file.take(LARGEST_INDEX_BYTES)))
        .map_err(|error| format!("holds {INDEX}, which is damaged: {error}"))
}

/// A file's header, checked against the file's size: the tensors follow each other without a gap, and all are there.
fn header(path: &Path) -> Result<(Metadata, u64), String> {
    let unreadable = |error: std::io::Error| format!("can't be read: {error}");
    let mut file = File::open(path).map_err(unreadable)?;
    let file_bytes = file.metadata().map_err(unreadable)?.len();
    let mut size = [0; 8];
    if file_bytes < size.len() as u64 {
        return Err("is cut short; download it again".to_owned());
    }
    file.read_exact(&mut size).map_err(unreadable)?;
    let header_bytes = u64::from_le_bytes(size);
    let begins = header_bytes.saturating_add(size.len() as u64);
    if header_bytes > LONGEST_HEADER_BYTES {
        return Err("is no safetensors file; download it again".to_owned());
    }
    if begins > file_bytes {
        return Err(format!("is cut short: it holds {file_bytes} bytes of at least {begins}; download it again"));
    }
    let mut header = vec![0; usize::try_from(header_bytes).map_err(|_| "has a header too long for this machine")?];
    file.read_exact(&mut header).map_err(unreadable)?;
    let metadata: Metadata =
        serde_json::from_slice(&header).map_err(|error| format!("is damaged: {error}; download it again"))?;
    let expected = begins.saturating_add(metadata.data_len() as u64);
    match file_bytes.cmp(&expected) {
        std::cmp::Ordering::Equal => Ok((metadata, file_bytes)),
        std::cmp::Ordering::Less => {
            Err(format!("is cut short: it holds {file_bytes} bytes of {expected}; download it again"))
        }
        std::cmp::Ordering::Greater => {
            Err(format!("is damaged: it holds {file_bytes} bytes instead of {expected}; download it again"))
        }
    }
}
