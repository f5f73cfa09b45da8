//! Kind 5050, text generation: from a request to a conversation that fits a model, and from the model's answer to a
//! result that is worth its price.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::sources::InputSource;
use super::{Executor, Prepared};
use crate::inference::{
    Format, Generate, Generation, Inference, InferenceError, JsonSupport, MODELS_LISTED, Message, ModelInfo,
    PromptTokens, TextSink, meant, refusal, unknown_model,
};
use crate::job::schema::{self, Schema};
use crate::job::text::{PART_SEPARATOR, Part, TextGeneration, TextLimits, TextOutput, Turn};
use crate::job::{Estimate, Failure, FinishReason, JobRequest, Outcome, Rates, Refusal};

/// Generates text with a model.
#[derive(Clone)]
pub struct TextExecutor {
    backend: Arc<dyn Inference>,
    sources: Arc<dyn InputSource>,
    limits: TextLimits,
    time_limit: Duration,
    models: BTreeMap<String, ModelTerms>,
}

/// What the operator says of one model.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ModelTerms {
    /// Its price list, when it has one of its own.
    pub rates: Option<Rates>,
    /// The most tokens an answer of it may be asked to have, instead of [`TextLimits::max_tokens`].
    pub max_tokens: Option<u32>,
    /// Other names it is asked for by.
    pub aliases: Vec<String>,
}

impl std::fmt::Debug for TextExecutor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextExecutor")
            .field("limits", &self.limits)
            .field("time_limit", &self.time_limit)
            .finish_non_exhaustive()
    }
}

/// What is kept between quote and run.
#[derive(Serialize, Deserialize)]
struct TextWork {
    generate: Generate,
    output: TextOutput,
}

impl TextExecutor {
    /// Generates with `backend` what fits `limits`; inputs that are references come from `sources`; a run that takes longer
    /// than `time_limit` fails. Waiting for a backend that does one thing at a time counts, so don't start more runs than
    /// the backend does at once.
    pub fn new(
        backend: Arc<dyn Inference>,
        sources: Arc<dyn InputSource>,
        limits: TextLimits,
        time_limit: Duration,
    ) -> Self {
        Self { backend, sources, limits, time_limit, models: BTreeMap::new() }
    }

    /// With what the operator says of some models, by their names.
    #[must_use]
    pub fn with_models(mut self, models: BTreeMap<String, ModelTerms>) -> Self {
        self.models = models;
        self
    }

    /// What a request may ask for before its model is known: the most that any model may.
    fn widest_limits(&self) -> TextLimits {
        let widest = self.models.values().filter_map(|model| model.max_tokens).max().unwrap_or(0);
        TextLimits { max_tokens: self.limits.max_tokens.max(widest), ..self.limits }
    }

    /// Whether any name of the model passes the test.
    fn is_called(&self, model: &ModelInfo, is_it: &dyn Fn(&str) -> bool) -> bool {
        let alias = |terms: &ModelTerms| terms.aliases.iter().any(|alias| is_it(alias));
        is_it(&model.name) || self.models.get(&model.name).is_some_and(alias)
    }

    async fn resolve(&self, turns: Vec<Turn>) -> Result<Vec<Message>, Refusal> {
        let mut messages = Vec::with_capacity(turns.len());
        let mut bytes = 0;
        for turn in turns {
            let mut texts = Vec::with_capacity(turn.parts.len());
            for part in &turn.parts {
                let text = self.text_of(part).await?;
                bytes += text.len();
                // Checked after each one: what is too much already needs no more fetching.
                self.limits.check_input_bytes(bytes)?;
                texts.push(text);
            }
            messages.push(Message::new(turn.role, texts.join(PART_SEPARATOR)));
        }
        match messages.last() {
            Some(last) if !last.content.trim().is_empty() => Ok(messages),
            _ => Err(Refusal::bad_request("the inputs hold no text: the address, event or job they name is empty")),
        }
    }

    async fn text_of(&self, part: &Part) -> Result<String, Refusal> {
        match part {
            Part::Text(text) => Ok(text.clone()),
            Part::Url(url) => self.sources.fetch_url(url).await,
            Part::Event { id, relay } => self.sources.event(*id, relay.as_deref()).await,
            Part::Job { id, relay } => self.sources.job_result(*id, relay.as_deref()).await,
        }
    }

    async fn model(&self, wanted: Option<&str>) -> Result<ModelInfo, Refusal> {
        let models = self.backend.models().await.map_err(refusal)?;
        let chosen = match wanted {
            None => models.first(),
            Some(wanted) => meant(models.iter(), wanted, |model, is_it| self.is_called(model, is_it)),
        };
        match (chosen, wanted) {
            (Some(model), _) => Ok(model.clone()),
            (None, Some(wanted)) => Err(unknown_model(wanted, models.into_iter().map(|model| model.name))),
            (None, None) => Err(refusal(InferenceError::Unusable("the backend offers no model".to_owned()))),
        }
    }

    /// What the backend is made to write. Where it can't be made to write JSON, the answer is only checked; but a schema is
    /// promised only where it can be kept.
    async fn format(
        &self,
        output: TextOutput,
        json_schema: Option<Schema>,
        model: &ModelInfo,
    ) -> Result<Format, Refusal> {
        match (output, json_schema) {
            (_, Some(schema)) if model.json >= JsonSupport::Schema => {
                let format = Format::Schema(schema.into_value());
                match self.backend.check_format(Some(&model.name), &format).await {
                    Ok(()) => Ok(format),
                    // The backend's words repeat the customer's text: not for the log.
                    Err(InferenceError::BadRequest(_)) => Err(Refusal::bad_request(
                        "param json_schema: the model can't be held to this schema; make it simpler (fewer allOf, \
                             anyOf and oneOf, no limits that contradict each other)",
                    )),
                    Err(other) => Err(refusal(other)),
                }
            }
            (_, Some(_)) => {
                let models = self.backend.models().await.map_err(refusal)?;
                let able = models.into_iter().filter(|model| model.json >= JsonSupport::Schema);
                Err(no_schemas(&model.name, able.map(|model| model.name)))
            }
            (TextOutput::Json, None) if model.json >= JsonSupport::Any => Ok(Format::Json),
            _ => Ok(Format::Text),
        }
    }

    /// How many tokens the answer may have. With a known context it is certain to fit.
    fn max_tokens(&self, wanted: Option<u32>, prompt_tokens: u32, model: &ModelInfo) -> Result<u32, Refusal> {
        let own = self.models.get(&model.name).and_then(|terms| terms.max_tokens);
        let most = own.unwrap_or(self.limits.max_tokens);
        if let Some(wanted) = wanted.filter(|wanted| *wanted > most) {
            return Err(Refusal::bad_request(format!(
                "param max_tokens: {wanted} is above this provider's limit for the model {}: ask for at most {most}",
                model.name
            )));
        }
        let wanted_or_default = wanted.unwrap_or(self.limits.default_max_tokens.min(most));
        let Some(context) = model.context_tokens else { return Ok(wanted_or_default) };
        // One token stays free: engines fail at the very end of the context.
        let room = context.saturating_sub(prompt_tokens).saturating_sub(1);
        if room == 0 {
            return Err(Refusal::bad_request(format!(
                "the prompt has {prompt_tokens} tokens; the model reads and writes {context} together: shorten the prompt"
            )));
        }
        match wanted {
            Some(wanted) if wanted > room => Err(Refusal::bad_request(format!(
                "param max_tokens: {wanted} do not fit; the prompt has {prompt_tokens} tokens and the model reads and \
                 writes {context} together: ask for at most {room} or shorten the prompt"
            ))),
            _ => Ok(wanted_or_default.min(room)),
        }
    }
}

#[async_trait]
impl Executor for TextExecutor {
    async fn prepare(&self, request: &JobRequest) -> Result<Prepared, Refusal> {
        let asked = TextGeneration::parse(request, &self.widest_limits())?;
        // Before anything is fetched: a wrong name costs us nothing then.
        let model = self.model(asked.model.as_deref()).await?;
        let format = self.format(asked.output, asked.json_schema, &model).await?;
        let messages = self.resolve(asked.turns).await?;
        let counted = self.backend.count_prompt_tokens(Some(&model.name), &messages).await;
        let PromptTokens { count: prompt_tokens, exact } = counted.map_err(refusal)?;
        let max_tokens = self.max_tokens(asked.max_tokens, prompt_tokens, &model)?;
        let work = TextWork {
            generate: Generate {
                model: Some(model.name.clone()),
                messages,
                sampling: asked.sampling,
                stop: asked.stop,
                max_tokens,
                format,
            },
            output: asked.output,
        };
        Ok(Prepared {
            estimate: Estimate::tokens(prompt_tokens, max_tokens),
            prompt_is_exact: exact,
            // What may still turn out to be no JSON is not shown.
            stream: asked.stream && asked.output != TextOutput::Json,
            rates: self.models.get(&model.name).and_then(|terms| terms.rates),
            lane: Some(model.name),
            work: serde_json::to_value(work).expect("plain data is always JSON"),
        })
    }

    fn room(&self, lane: Option<&str>) -> usize {
        self.backend.room(lane)
    }

    async fn run(
        &self,
        prepared: &Prepared,
        partial: Option<TextSink>,
        cancel: &CancellationToken,
    ) -> Result<Outcome, Failure> {
        let work = TextWork::deserialize(&prepared.work).map_err(|error| {
            tracing::error!(%error, "Prepared text generation can't be read: was it made by another version?");
            Failure::backend("the job can't be run any more; please ask again")
        })?;
        let begun = Instant::now();
        // Dropping the future would do; the token also reaches work that runs beside it.
        let cancel = cancel.child_token();
        let _stop_when_done = cancel.clone().drop_guard();
        let running = self.backend.generate(&work.generate, partial, &cancel);
        let generation = match tokio::time::timeout(self.time_limit, running).await {
            Ok(done) => done.map_err(failure)?,
            Err(_) => return Err(Failure::timeout(self.time_limit)),
        };
        outcome(generation, work.output, &work.generate.format, begun.elapsed())
    }
}

/// A result is worth something, or the job fails and costs nothing.
fn outcome(
    generation: Generation,
    output: TextOutput,
    format: &Format,
    duration: Duration,
) -> Result<Outcome, Failure> {
    let Generation { text, finish, usage, model, parameters, digest } = generation;
    if text.trim().is_empty() {
        return Err(Failure::backend("the model wrote nothing; rephrase the prompt or change stop").in_vain());
    }
    let content = match output {
        TextOutput::Plain | TextOutput::Markdown => text,
        TextOutput::Json => json(&text, format, finish)?,
    };
    Ok(Outcome { content, usage, finish, model: Some(model), parameters, digest, facts: Vec::new(), duration })
}

/// The answer as JSON: as it is, or out of the one code block around it, which models like to add.
fn json(text: &str, format: &Format, finish: FinishReason) -> Result<String, Failure> {
    let text = text.trim();
    let block = text.strip_prefix("```").and_then(|rest| rest.strip_suffix("```"));
    let inner = block.map(|block| block.strip_prefix("json").unwrap_or(block).trim());
    let mut readings = [Some(text), inner].into_iter().flatten();
    let read = readings.find_map(|reading| serde_json::from_str(reading).ok().map(|value| (reading, value)));
    let Some((content, value)) = read else {
        return Err(Failure::backend(match finish {
            FinishReason::Length => {
                "the answer ended at max_tokens before its JSON did (output application/json); raise max_tokens or ask \
                 for less"
            }
            FinishReason::Stop => {
                "the answer is not the JSON that output application/json asks for; ask for JSON in the prompt, or ask \
                 for text/plain"
            }
        })
        .in_vain());
    };
    if let Format::Schema(schema) = format {
        schema::matches(schema, &value).map_err(|mismatch| {
            Failure::backend(format!(
                "the answer does not match param json_schema, {mismatch}; describe the form in the prompt too, or \
                 loosen the schema"
            ))
            .in_vain()
        })?;
    }
    Ok(content.to_owned())
}

fn no_schemas(asked: &str, able: impl Iterator<Item = String>) -> Refusal {
    let able: Vec<String> = able.take(MODELS_LISTED).collect();
    let cure = if able.is_empty() {
        "leave it out and describe the form in the prompt".to_owned()
    } else {
        format!("choose one of {} or leave it out", able.join(", "))
    };
    Refusal::unsupported(format!("param json_schema: the model '{asked}' can't be held to a schema; {cure}"))
}

fn failure(error: InferenceError) -> Failure {
    refusal(error).into()
}

#[cfg(test)]
#[path = "inference_tests.rs"]
mod tests;
