//! What does the work: is the model's file whole, and does the backend answer with its models.

use std::time::Instant;

use super::Finding;
use crate::config::{InferenceSettings, TextSettings};
use crate::daemon::wiring;
use crate::inference::ModelInfo;
use crate::inference::gguf::GgufHeader;

/// Bytes of a mebibyte.
const MIB: u64 = 1024 * 1024;

/// Whether the model's file is there and whole. Reads its header only.
pub(super) fn file(settings: &InferenceSettings) -> Finding {
    let check = "model.file";
    let InferenceSettings::MistralRs(model) = settings else {
        return Finding::skipped(check, "this backend needs none");
    };
    let path = model.model.display();
    match GgufHeader::read(&model.model) {
        Ok(header) => {
            let GgufHeader { architecture, parameters, file_bytes, .. } = header;
            Finding::ok(check, format!("{path}: {architecture}, {parameters} parameters, {} MiB", file_bytes / MIB))
        }
        Err(error) => {
            Finding::failed(check, format!("{path} {error}"), "write the path of a whole GGUF file to inference.model")
        }
    }
}

/// What somebody who waits is told before a model is loaded.
pub(super) fn announcement(settings: &InferenceSettings) -> Option<String> {
    match settings {
        InferenceSettings::Echo => None,
        InferenceSettings::MistralRs(model) => Some(format!(
            "Loading the model {}: a large one takes minutes (--skip-model leaves it out)",
            model.model.display()
        )),
    }
}

/// Whether the backend answers with its models, and whether jobs fit them.
pub(super) async fn load(settings: &InferenceSettings, text: &TextSettings) -> Vec<Finding> {
    let check = "model";
    let began = Instant::now();
    let backend = match wiring::backend(settings).await {
        Ok(backend) => backend,
        Err(error) => {
            let cure = "correct [inference]; docs/configuration.md says what this build can load";
            return vec![Finding::failed(check, format!("{error:#}"), cure)];
        }
    };
    let models = match backend.models().await {
        Ok(models) => models,
        Err(error) => return vec![Finding::failed(check, error.to_string(), "is the backend running?")],
    };
    judge(&models, began.elapsed().as_secs_f64(), text)
}

fn judge(models: &[ModelInfo], seconds: f64, text: &TextSettings) -> Vec<Finding> {
    let check = "model";
    let Some(first) = models.first() else {
        return vec![Finding::failed(check, "the backend answers and has no model", "give it one")];
    };
    let told: Vec<String> = models.iter().map(told).collect();
    let mut found = vec![Finding::ok(check, format!("answers after {seconds:.1} s: {}", told.join("; ")))];
    if let Some(context) = first.context_tokens
        && context <= text.default_output_tokens
    {
        found.push(Finding::warning(
            "model.context",
            format!("{context} tokens of context leave no room for a prompt beside text.default_output_tokens"),
            format!("set text.default_output_tokens well below {context}"),
        ));
    }
    found
}

fn told(model: &ModelInfo) -> String {
    let mut text = model.name.clone();
    if let Some(context) = model.context_tokens {
        text.push_str(&format!(", {context} tokens of context"));
    }
    match model.parameters {
        Some(parameters) => text.push_str(&format!(", {parameters} parameters")),
        None => text.push_str(", parameters unknown"),
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Verdict;
    use super::*;
    use crate::config::MistralRsSettings;
    use crate::inference::tiny;
    use crate::job::{Rates, Terms};

    fn model(path: std::path::PathBuf) -> InferenceSettings {
        InferenceSettings::MistralRs(MistralRsSettings {
            model: path,
            model_name: "m".into(),
            chat_template: None,
            context: None,
        })
    }

    #[test]
    fn a_whole_model_is_told_from_a_missing_and_a_cut_one() {
        let folder = tempfile::tempdir().unwrap();
        let whole = tiny::write_to(folder.path()).unwrap();
        let found = file(&model(whole.clone()));
        assert_eq!(found.verdict, Verdict::Ok, "{found:?}");
        assert!(found.finding.contains("885888 parameters"), "{found:?}");

        let cut = folder.path().join("cut.gguf");
        std::fs::write(&cut, &tiny::MODEL_BYTES[..tiny::MODEL_BYTES.len() / 2]).unwrap();
        for path in [cut, folder.path().join("none.gguf")] {
            let found = file(&model(path));
            assert_eq!(found.verdict, Verdict::Failed);
            assert!(found.cure.is_some());
        }
    }

    #[test]
    fn a_context_without_room_for_a_prompt_is_worth_a_word() {
        let text = TextSettings {
            enabled: true,
            terms: Terms::Free,
            rates: Rates::default(),
            free_per_day: 0,
            max_input_bytes: 1,
            max_output_tokens: 4_096,
            default_output_tokens: 512,
            time_limit: Duration::from_secs(1),
        };
        let of = |context| [ModelInfo { context_tokens: Some(context), ..ModelInfo::named("m") }];
        assert_eq!(judge(&of(512), 0.1, &text).last().unwrap().verdict, Verdict::Warning);
        assert_eq!(judge(&of(4_096), 0.1, &text).len(), 1);
        assert_eq!(judge(&[], 0.1, &text)[0].verdict, Verdict::Failed);
    }
}
