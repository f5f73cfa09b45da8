//! How a change is put to a model: cut into parts that it has room for, each asked of once, and once more when the answer
//! can't be read.

use tokio_util::sync::CancellationToken;

use super::answers::{Said, again, question, read, schema};
use super::material::{LEAST_PART_BYTES, Material, Part};
use super::{CodeReviewExecutor, ReviewWork};
use crate::inference::{Format, Generate, InferenceError, JsonSupport, ModelInfo, Sampling, refusal};
use crate::job::code_review::CodeReview;
use crate::job::text::BYTES_PER_TOKEN;
use crate::job::{Failure, Refusal, Usage};

/// The context of a model whose server does not tell.
const ASSUMED_CONTEXT: u32 = 8_192;
/// Tokens of an answer at most.
const MOST_ANSWER_TOKENS: u32 = 3_000;
/// Tokens of an answer at least: below that no issue has room.
const LEAST_ANSWER_TOKENS: u32 = 300;
/// Tokens that stay free: engines fail at the very end of the context, and estimates are estimates.
const SPARE_TOKENS: u32 = 32;
/// How often parts are made smaller when they turn out to have more tokens than their bytes let expect.
const MOST_CUTS: u32 = 6;

/// How a review is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) parts: Vec<Part>,
    /// Tokens of all questions.
    pub(super) prompt_tokens: u32,
    /// Tokens of one answer at most.
    pub(super) answer_tokens: u32,
}

impl CodeReviewExecutor {
    /// Cuts the material into parts. The same material, model and wishes, the same plan.
    ///
    /// # Errors
    /// When it takes more parts than there may be, with the numbers.
    pub(super) async fn plan(
        &self,
        asked: &CodeReview,
        model: &ModelInfo,
        material: &Material,
        generated_tokens: u32,
    ) -> Result<Plan, Refusal> {
        let context = model.context_tokens.unwrap_or(ASSUMED_CONTEXT);
        let answer = MOST_ANSWER_TOKENS.min(context / 4).min(generated_tokens);
        let most = context.saturating_sub(answer).saturating_sub(SPARE_TOKENS);
        let empty = Part { paths: Vec::new(), text: String::new() };
        let around = self.count(asked, model, &empty, 0, 1).await?;
        let bytes =
            |tokens: u32| usize::try_from(tokens).unwrap_or(usize::MAX).saturating_mul(BYTES_PER_TOKEN as usize);
        let mut budget = bytes(most.saturating_sub(around));
        if budget < LEAST_PART_BYTES || answer < LEAST_ANSWER_TOKENS {
            return Err(Refusal::bad_request(format!(
                "the model reads and writes {context} tokens together, of which the rules and the guidelines take {around}: \
                 shorten param guidelines, or choose a model that reads more"
            )));
        }
        let most_parts = self.limits.max_parts.min((generated_tokens / LEAST_ANSWER_TOKENS) as usize);
        for _ in 0..MOST_CUTS {
            let parts = material.parts(budget);
            if parts.len() > most_parts {
                return Err(Refusal::bad_request(format!(
                    "what is to be reviewed has {} bytes, which takes {} answers of this model; at most {most_parts} are \
                     given: send it in several requests, or choose a model that reads more",
                    material.bytes(),
                    parts.len()
                )));
            }
            let mut counts = Vec::with_capacity(parts.len());
            for (place, part) in parts.iter().enumerate() {
                counts.push(self.count(asked, model, part, place, parts.len()).await?);
            }
            if counts.iter().all(|count| *count <= most) {
                let each = generated_tokens / u32::try_from(parts.len().max(1)).unwrap_or(u32::MAX);
                let prompt_tokens = counts.into_iter().fold(0, u32::saturating_add);
                return Ok(Plan { parts, prompt_tokens, answer_tokens: answer.min(each) });
            }
            budget = budget / 4 * 3;
        }
        Err(Refusal::bad_request("what is to be reviewed does not fit the model; leave out what people don't read"))
    }

    async fn count(
        &self,
        asked: &CodeReview,
        model: &ModelInfo,
        part: &Part,
        place: usize,
        parts: usize,
    ) -> Result<u32, Refusal> {
        let counted = self.inference.count_prompt_tokens(Some(&model.name), &question(asked, part, place, parts)).await;
        Ok(counted.map_err(refusal)?.count)
    }

    /// Asks of a part, and once more when the answer can't be read.
    pub(super) async fn ask(
        &self,
        work: &ReviewWork,
        plan: &super::asking::Plan,
        place: usize,
        usage: &mut Usage,
        cancel: &CancellationToken,
    ) -> Result<Said, Failure> {
        let part = &plan.parts[place];
        let format = self.format(&work.model, part).await?;
        let first = question(&work.asked, part, place, plan.parts.len());
        let mut request = Generate {
            model: Some(work.model.name.clone()),
            messages: first.clone(),
            sampling: Sampling::default(),
            stop: Vec::new(),
            max_tokens: plan.answer_tokens,
            format,
        };
        let mut wrong = None;
        for _ in 0..2 {
            let answer = match self.inference.generate(&request, None, cancel).await {
                Ok(answer) => answer,
                // There was no room for the answer that was wrong: the question alone, then.
                Err(InferenceError::ContextOverflow { .. }) if request.messages.len() > first.len() => {
                    request.messages.clone_from(&first);
                    self.inference
                        .generate(&request, None, cancel)
                        .await
                        .map_err(|error| Failure::from(refusal(error)))?
                }
                Err(error) => return Err(refusal(error).into()),
            };
            usage.prompt_tokens = usage.prompt_tokens.saturating_add(answer.usage.prompt_tokens);
            usage.generated_tokens = usage.generated_tokens.saturating_add(answer.usage.generated_tokens);
            match read(&answer.text, answer.finish) {
                Ok(said) => return Ok(said),
                Err(unreadable) => {
                    request.messages = again(first.clone(), &answer.text, &unreadable);
                    wrong = Some(unreadable);
                }
            }
        }
        let why = wrong.map_or_else(String::new, |wrong| format!(" ({wrong})"));
        Err(Failure::backend(format!(
            "the model did not answer in the form of a review, twice{why}; nothing is charged: choose another model, or send \
             less at once"
        ))
        .in_vain())
    }

    /// What the model is held to, as far as it can be.
    async fn format(&self, model: &ModelInfo, part: &Part) -> Result<Format, Failure> {
        if model.json >= JsonSupport::Schema {
            let format = Format::Schema(schema(&part.paths));
            match self.inference.check_format(Some(&model.name), &format).await {
                Ok(()) => return Ok(format),
                // This one is beyond its grammars; it is read as strictly all the same.
                Err(InferenceError::BadRequest(_)) => {}
                Err(error) => return Err(refusal(error).into()),
            }
        }
        Ok(if model.json >= JsonSupport::Any { Format::Json } else { Format::Text })
    }
}
