//! What does the work: is a model's file whole, does each endpoint answer with its models, and what can be said of them.

use std::time::Instant;

use super::Finding;
use crate::config::{BackendSettings, EndpointSettings, InferenceSettings, TextSettings};
use crate::daemon::wiring::found::InForce;
use crate::daemon::wiring::inference::{model_files, open_endpoint};
use crate::hardware::Gibibytes;
use crate::inference::detect::{FoundServer, look_at};
use crate::inference::{Inference, InferenceError, Message, ModelInfo, Role, names};

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
        [] if !in_force.was_looked_for => {
            "no model is configured, and inference.probe names no address where a model server is looked for".to_owned()
        }
        [] => "no model is configured, and no model server was found on this machine".to_owned(),
        seen => format!("no model is configured, and what was found can't be used: {}", seen.join("; ")),
    };
    let cure = "start a model server and give it a model ('coinop models pull'), write a GGUF file to inference.model, or \
                write an [[inference.endpoints]]; 'coinop models list' shows what is seen";
    Finding::failed("model", what, cure)
}

/// Whether the model's files are there and whole. Reads their headers only.
pub(super) fn file(endpoint: &EndpointSettings) -> Vec<Finding> {
    let check = "model.file";
    let BackendSettings::MistralRs(model) = &endpoint.backend else { return Vec::new() };
    let found = match model_files(model) {
        Ok(files) => {
            let parameters = files.parameters.map_or_else(|| "unknown".to_owned(), |number| number.to_string());
            let (path, size) = (model.model.display(), Gibibytes(files.bytes));
            Finding::ok(check, format!("{path}: {}, {parameters} parameters, {size}", files.architecture))
        }
        Err(what) => {
            let field = endpoint.field("model");
            let cure = format!("write the path of a whole GGUF file, or of a folder of safetensors, to {field}");
            Finding::failed(check, what, cure)
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
            let what = match &error {
                InferenceError::Unusable(why) | InferenceError::Busy(why) | InferenceError::Backend(why) => why.clone(),
                other => other.to_string(),
            };
            let cure = cure(endpoint, &error, who_answers(endpoint).await.as_ref());
            return vec![Finding::failed(check, format!("{at}{what}"), cure).about(&endpoint.name)];
        }
    };
    let room = match backend.room(None) {
        usize::MAX => "any number of jobs at once".to_owned(),
        1 => "one job at a time".to_owned(),
        jobs => format!("{jobs} jobs at once"),
    };
    let how = format!("{at}answers after {:.1} s, {room}", began.elapsed().as_secs_f64());
    let embedding = backend.embedding_models().await.unwrap_or_default();
    let mut found = match embedding.first() {
        Some(_) if models.is_empty() => vec![Finding::ok(check, how)],
        _ => judge(&models, &how, text),
    };
    found.extend(embeddings(&embedding));
    found.extend(expected(endpoint, settings, &models));
    if !matches!(endpoint.backend, BackendSettings::Echo) {
        found.extend(unknown_parameters(endpoint, settings, &models));
        found.extend(counting(&*backend, &models).await);
    }
    found.into_iter().map(|finding| finding.about(&endpoint.name)).collect()
}

/// Who answers where an endpoint's server should be.
async fn who_answers(endpoint: &EndpointSettings) -> Option<FoundServer> {
    let server = endpoint.server()?;
    let key = server.key.as_ref().and_then(|key| key.reveal(&endpoint.field("key")).ok());
    look_at(&server.url, key.as_ref()).await
}

/// What to do about an endpoint that does not tell its models, from the kind of its error and from who answers there.
fn cure(endpoint: &EndpointSettings, error: &InferenceError, found: Option<&FoundServer>) -> String {
    let (url, key, models) = (endpoint.field("url"), endpoint.field("key"), endpoint.field("models"));
    let word = endpoint.backend.word();
    match (error, found) {
        _ if endpoint.server().is_none() => "the model's file or folder is at fault, or this machine too small".into(),
        (InferenceError::Busy(_), _) => "wait until it has loaded its model or has less to do, and try again".into(),
        // Each of them speaks OpenAI's form too.
        (_, Some(found)) if word != "openai" && found.software.backend() != word && found.trouble.is_none() => format!(
            "{} answers there: write its backend (\"{}\") to {}, or the right address to {url}",
            found.title(),
            found.software.backend(),
            endpoint.field("backend")
        ),
        (InferenceError::Unusable(_), Some(found)) if found.trouble.is_some() => {
            format!("it wants another key: write where the right one stands to {key} (env:NAME or file:/path)")
        }
        (InferenceError::Unusable(_), Some(found)) if found.models.is_empty() => {
            "give it a model: for an Ollama, 'coinop models pull llama3.2'".into()
        }
        (InferenceError::Unusable(_), Some(found)) => {
            let wanted = endpoint.named_models();
            let has = |name: &String| found.models.iter().any(|model| model.name.trim_end_matches(":latest") == name);
            if wanted.is_empty() || wanted.iter().any(|name| has(&name.trim_end_matches(":latest").to_owned())) {
                return format!("update or set up {} as it says", found.title());
            }
            let names: Vec<&str> = found.models.iter().take(MOST_TOLD).map(|model| model.name.as_str()).collect();
            format!("correct {models}: it has {}", names.join(", "))
        }
        (InferenceError::Unusable(_), None) => {
            format!("if it wants a key, write where it stands to {key}; else correct {url}: that is no {word} server's")
        }
        (_, None) => format!("is it running, and is {url} right?"),
        (_, Some(_)) => "it answers, but not as it should: its log says more".into(),
    }
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

/// Which models make embeddings, which are sold as part of an index and never as text.
fn embeddings(models: &[ModelInfo]) -> Option<Finding> {
    let names: Vec<&str> = models.iter().take(MOST_TOLD).map(|model| model.name.as_str()).collect();
    (!names.is_empty()).then(|| Finding::ok("model.embeddings", format!("made by {}", names.join(", "))))
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

    #[test]
    fn the_cure_fits_what_is_wrong_with_a_server() {
        use crate::config::{OllamaSettings, ServerSettings};
        use crate::inference::detect::{FoundModel, Software};
        let url: url::Url = "http://127.0.0.1:11434".parse().unwrap();
        let endpoint = |models: &[&str]| {
            let settings = OllamaSettings {
                server: ServerSettings { url: url.clone(), key: None },
                models: models.iter().map(|name| (*name).to_owned()).collect(),
                embeddings: Vec::new(),
                slots: None,
                context: None,
                bytes_per_token: 2,
            };
            let (section, backend) = ("inference.endpoints[3]".into(), BackendSettings::Ollama(settings));
            EndpointSettings { name: "o".into(), section, backend }
        };
        let found = |software, models: &[&str], trouble| {
            let models = models.iter().map(|name| FoundModel { name: (*name).into(), bytes: None }).collect();
            FoundServer { software, version: None, url: url.clone(), models, trouble }
        };
        let (ollama, wants_key) = (found(Software::Ollama, &["m:latest"], None), Some("it wants a key"));
        let unusable = InferenceError::Unusable("no".into());
        let down = InferenceError::Backend("no".into());
        let busy = InferenceError::Busy("no".into());
        for (models, error, found, words) in [
            (&[][..], &down, None, "is it running, and is inference.endpoints[3].url right?"),
            (&[], &busy, None, "wait until"),
            (&[], &unusable, Some(found(Software::OpenAi, &[], wants_key)), "inference.endpoints[3].key"),
            (&[], &unusable, None, "inference.endpoints[3].key"),
            (&[], &unusable, Some(ollama.clone()), "update"),
            (&["x"], &unusable, Some(ollama.clone()), "inference.endpoints[3].models: it has m:latest"),
            (&["m"], &unusable, Some(ollama), "update"),
            (&[], &down, Some(found(Software::Vllm, &["v"], None)), "vLLM at http://127.0.0.1:11434 answers there"),
        ] {
            let cure = cure(&endpoint(models), error, found.as_ref());
            assert!(cure.contains(words), "{words}: {cure}");
        }
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
