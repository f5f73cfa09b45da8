//! What does the work: is a model's file whole, does each endpoint answer with its models, and what can be said of them.

use std::time::Instant;

use super::Finding;
use crate::config::{BackendSettings, EndpointSettings, InferenceSettings, TextSettings};
use crate::daemon::wiring::found::InForce;
use crate::daemon::wiring::inference::open_endpoint;
use crate::inference::gguf::GgufHeader;
use crate::inference::{Inference, Message, ModelInfo, Role, names};

/// Bytes of a mebibyte.
const MIB: u64 = 1024 * 1024;

/// Most models told of one endpoint.
const MOST_TOLD: usize = 5;

/// No endpoint is configured, and none was found.
pub(super) fn none(in_force: &InForce) -> Finding {
    let seen: Vec<String> = in_force
        .found
        .iter()
        .map(|found| match found.trouble {
            Some(trouble) => format!("{}: {trouble}", found.title()),
            None => format!("{}: it has no model", found.title()),
        })
        .collect();
    let what = match &seen[..] {
        [] => "no model is configured, and no model server was found on this machine".to_owned(),
        seen => format!("no model is configured, and what was found can't be used: {}", seen.join("; ")),
    };
    let cure = "start a model server and give it a model ('coinop models pull'), write a GGUF file to inference.model, or \
                write an [[inference.endpoints]]; 'coinop models list' shows what is seen";
    Finding::failed("model", what, cure)
}

/// Whether the model's file is there and whole. Reads its header only.
pub(super) fn file(endpoint: &EndpointSettings) -> Vec<Finding> {
    let check = "model.file";
    let BackendSettings::MistralRs(model) = &endpoint.backend else { return Vec::new() };
    let path = model.model.display();
    if model.model.is_dir() {
        return vec![Finding::ok(check, format!("{path} is a folder; its files are read when it is loaded"))];
    }
    let found = match GgufHeader::read(&model.model) {
        Ok(header) => {
            let GgufHeader { architecture, parameters, file_bytes, .. } = header;
            Finding::ok(check, format!("{path}: {architecture}, {parameters} parameters, {} MiB", file_bytes / MIB))
        }
        Err(error) => {
            let cure = format!("write the path of a whole GGUF file to {}", endpoint.field("model"));
            Finding::failed(check, format!("{path} {error}"), cure)
        }
    };
    vec![found.about(&endpoint.name)]
}

/// What somebody who waits is told before a model is loaded.
pub(super) fn announcement(endpoint: &EndpointSettings) -> Option<String> {
    match &endpoint.backend {
        BackendSettings::MistralRs(model) => Some(format!(
            "Loading the model {}: a large one takes minutes (--skip-model leaves it out)",
            model.model.display()
        )),
        _ => None,
    }
}

/// Whether the endpoint answers with its models, and whether jobs fit them.
pub(super) async fn answers(
    endpoint: &EndpointSettings,
    settings: &InferenceSettings,
    text: &TextSettings,
) -> Vec<Finding> {
    let check = "model";
    let began = Instant::now();
    let backend = match open_endpoint(endpoint).await {
        Ok(backend) => backend,
        Err(error) => {
            let cure = format!("correct [{}]; docs/configuration.md says what this build can use", endpoint.section);
            return vec![Finding::failed(check, format!("{error:#}"), cure).about(&endpoint.name)];
        }
    };
    let at = endpoint.server().map_or_else(String::new, |server| format!("{}: ", server.url));
    let models = match backend.models().await {
        Ok(models) => models,
        Err(error) => {
            let cure = format!("is it running, and is {} right? Its log says more", endpoint.field("url"));
            return vec![Finding::failed(check, format!("{at}{error}"), cure).about(&endpoint.name)];
        }
    };
    let room = match backend.room(None) {
        usize::MAX => "any number of jobs at once".to_owned(),
        1 => "one job at a time".to_owned(),
        jobs => format!("{jobs} jobs at once"),
    };
    let mut found = judge(&models, &format!("{at}answers after {:.1} s, {room}", began.elapsed().as_secs_f64()), text);
    found.extend(expected(endpoint, settings, &models));
    if !matches!(endpoint.backend, BackendSettings::Echo) {
        found.extend(unknown_parameters(endpoint, settings, &models));
        found.extend(counting(&*backend, &models).await);
    }
    found.into_iter().map(|finding| finding.about(&endpoint.name)).collect()
}

fn judge(models: &[ModelInfo], how: &str, text: &TextSettings) -> Vec<Finding> {
    let check = "model";
    let Some(first) = models.first() else {
        let cure = "give it one: for an Ollama, 'coinop models pull llama3.2'";
        return vec![Finding::failed(check, format!("{how}, and has no model"), cure)];
    };
    let mut told: Vec<String> = models.iter().take(MOST_TOLD).map(told).collect();
    if models.len() > MOST_TOLD {
        told.push(format!("and {} more", models.len() - MOST_TOLD));
    }
    let mut found = vec![Finding::ok(check, format!("{how}: {}", told.join("; ")))];
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

/// Whether an endpoint has the models that are sold from it.
fn expected(endpoint: &EndpointSettings, settings: &InferenceSettings, models: &[ModelInfo]) -> Vec<Finding> {
    let only = settings.endpoints.len() == 1;
    let sold = settings
        .models
        .iter()
        .filter(|model| model.endpoints.contains(&endpoint.name) || (only && model.endpoints.is_empty()));
    let missing = sold.filter(|model| !models.iter().any(|has| names(&has.name, &model.upstream)));
    missing
        .map(|model| {
            Finding::failed(
                "model.offer",
                format!("it has no '{}', which is sold as {}", model.upstream, model.name),
                "correct inference.models.upstream, or give it the model ('coinop models list' shows what it has)",
            )
        })
        .collect()
}

/// Receipts state what a job took in floating-point operations, which the exact number of parameters is needed for.
fn unknown_parameters(
    endpoint: &EndpointSettings,
    settings: &InferenceSettings,
    models: &[ModelInfo],
) -> Option<Finding> {
    let told = |name: &str| settings.models.iter().any(|model| model.upstream == name && model.parameters.is_some());
    let unknown: Vec<&str> = models
        .iter()
        .filter(|model| model.parameters.is_none() && !told(&model.name))
        .map(|model| model.name.as_str())
        .take(MOST_TOLD)
        .collect();
    let cure = match endpoint.backend {
        BackendSettings::OpenAi(_) => format!("set {} or inference.models.parameters", endpoint.field("parameters")),
        _ => "set inference.models.parameters".to_owned(),
    };
    (!unknown.is_empty()).then(|| {
        let what = format!("receipts say \"unknown\" of the parameters of {}", unknown.join(", "));
        Finding::warning("model.parameters", what, cure)
    })
}

/// Whether a prompt's tokens are counted before the price is said, or estimated.
async fn counting(backend: &dyn Inference, models: &[ModelInfo]) -> Option<Finding> {
    let check = "model.tokens";
    let model = models.first()?;
    let asked = [Message::new(Role::User, "How many tokens has this?")];
    Some(match backend.count_prompt_tokens(Some(&model.name), &asked).await {
        Ok(tokens) if tokens.exact => Finding::ok(check, "prompts are counted by the backend itself"),
        Ok(_) => Finding::ok(
            check,
            "prompts are estimated for the quote (bytes_per_token), and counted by the backend when they are read",
        ),
        Err(error) => {
            Finding::warning(check, format!("a prompt's tokens can't be counted: {error}"), "look at the server's log")
        }
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Verdict;
    use super::*;
    use crate::config::{MistralRsSettings, ModelSettings};
    use crate::inference::echo::Echo;
    use crate::inference::tiny;
    use crate::job::{Rates, Terms};

    fn model(path: std::path::PathBuf) -> EndpointSettings {
        let model = MistralRsSettings { model: path, model_name: "m".into(), chat_template: None, context: None };
        let backend = BackendSettings::MistralRs(model);
        EndpointSettings { name: "m".into(), section: "inference".into(), backend }
    }

    /// Settings with one endpoint, which sell `upstream` as `m`.
    fn selling(upstream: &str, parameters: Option<u64>) -> InferenceSettings {
        let sold = ModelSettings {
            name: "m".into(),
            upstream: upstream.into(),
            aliases: Vec::new(),
            endpoints: Vec::new(),
            context: None,
            parameters,
            digest: None,
            at_once: None,
            max_output_tokens: None,
            rates: None,
        };
        let endpoints = vec![model("m.gguf".into())];
        InferenceSettings { endpoints, probe: Vec::new(), context: None, models: vec![sold] }
    }

    #[test]
    fn a_whole_model_is_told_from_a_missing_and_a_cut_one() {
        let folder = tempfile::tempdir().unwrap();
        let whole = tiny::write_to(folder.path()).unwrap();
        let found = file(&model(whole.clone())).remove(0);
        assert_eq!(found.verdict, Verdict::Ok, "{found:?}");
        assert!(found.finding.contains("885888 parameters"), "{found:?}");

        let cut = folder.path().join("cut.gguf");
        std::fs::write(&cut, &tiny::MODEL_BYTES[..tiny::MODEL_BYTES.len() / 2]).unwrap();
        for path in [cut, folder.path().join("none.gguf")] {
            let found = file(&model(path)).remove(0);
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
        assert_eq!(judge(&of(512), "answers", &text).last().unwrap().verdict, Verdict::Warning);
        assert_eq!(judge(&of(4_096), "answers", &text).len(), 1);
        assert_eq!(judge(&[], "answers", &text)[0].verdict, Verdict::Failed);
    }

    #[test]
    fn a_model_that_is_sold_and_not_there_is_a_failure_and_unknown_parameters_a_warning() {
        let has = [ModelInfo::named("upstream")];
        let endpoint = model("m.gguf".into());
        assert_eq!(expected(&endpoint, &selling("upstream", None), &has), []);
        let missing = expected(&endpoint, &selling("another", None), &has);
        assert_eq!(missing[0].verdict, Verdict::Failed);
        let unknown = unknown_parameters(&endpoint, &selling("upstream", None), &has).unwrap();
        assert!(unknown.cure.unwrap().contains("inference.models.parameters"));
        assert_eq!(unknown_parameters(&endpoint, &selling("upstream", Some(9_000)), &has), None);
    }

    #[tokio::test]
    async fn what_the_backend_counts_itself_is_told_from_an_estimate() {
        let models = Echo::new().models().await.unwrap();
        let found = counting(&Echo::new(), &models).await.unwrap();
        assert_eq!(found.verdict, Verdict::Ok);
    }

    #[test]
    fn nothing_found_is_a_failure_with_next_steps() {
        let settings = selling("m", None);
        let in_force = InForce { settings, found: Vec::new(), was_looked_for: true };
        let found = none(&in_force);
        assert!(found.verdict == Verdict::Failed && found.cure.unwrap().contains("coinop models pull"));
    }
}
