//! Which of a server's models are offered, and what is known of each.

use super::super::control::ControlTokens;
use super::super::{JsonSupport, Message, ModelInfo};
use super::wire::{Shown, Tag, full_name};
use super::{CONVERSATION_TOKENS, DEFAULT_CONTEXT_TOKENS, MESSAGE_TOKENS};

/// A model on offer.
#[derive(Debug, Clone)]
pub(super) struct OfferedModel {
    pub(super) info: ModelInfo,
    /// The context it is run with.
    pub(super) context_tokens: u32,
    /// Whether it has to be told not to think aloud.
    pub(super) thinks: bool,
    control: ControlTokens,
    /// Messages and bytes that are built into it, in front of every conversation.
    built_in: (usize, usize),
}

impl OfferedModel {
    /// The model listed as `tag` and described by `shown`, with at most the context that is `wanted`.
    pub(super) fn new(tag: &Tag, shown: &Shown, wanted: Option<u32>) -> Self {
        let made_for = shown.context_tokens().unwrap_or(u32::MAX);
        let context_tokens = wanted.unwrap_or(DEFAULT_CONTEXT_TOKENS).min(made_for);
        let built_in = std::iter::once(shown.system.len())
            .chain(shown.messages.iter().map(|message| message.content.len()))
            .filter(|bytes| *bytes > 0)
            .fold((0, 0), |(messages, total), bytes| (messages + 1, total + bytes));
        Self {
            info: ModelInfo {
                name: tag.name.clone(),
                context_tokens: Some(context_tokens),
                parameters: shown.parameters(),
                digest: tag.digest(),
                json: JsonSupport::Schema,
            },
            context_tokens,
            thinks: shown.thinks(),
            control: ControlTokens::usual(shown.control_tokens()),
            built_in,
        }
    }

    /// The same for embeddings, of which only the context matters.
    pub(super) fn embedding(tag: &Tag, shown: &Shown) -> Self {
        let model = Self::new(tag, shown, None);
        Self { info: ModelInfo { json: JsonSupport::None, ..model.info }, ..model }
    }

    /// The conversation in which no text speaks as the template.
    pub(super) fn tamed(&self, messages: &[Message]) -> Vec<Message> {
        messages.iter().map(|message| Message::new(message.role, self.control.split(&message.content))).collect()
    }

    /// About how many tokens the conversation takes, at a token for so many bytes: more than real prompts do.
    pub(super) fn estimate(&self, messages: &[Message], bytes_per_token: u32) -> u32 {
        let tokens = |bytes: usize| bytes.div_ceil(bytes_per_token.max(1) as usize);
        let (built_in, built_in_bytes) = self.built_in;
        let texts: usize = messages.iter().map(|message| tokens(message.content.len())).sum();
        let around = (messages.len() + built_in).saturating_mul(MESSAGE_TOKENS as usize) + CONVERSATION_TOKENS as usize;
        u32::try_from(texts.saturating_add(tokens(built_in_bytes)).saturating_add(around)).unwrap_or(u32::MAX)
    }
}

/// The installed models that may be offered, the default first: those that are `wanted`, in that order. When none are
/// named, all that run on that server (some only stand for one in somebody's cloud, which sees what is asked and costs
/// money), those in memory before the others.
pub(super) fn candidates(installed: Vec<Tag>, loaded: &[Tag], wanted: &[String]) -> Vec<Tag> {
    if wanted.is_empty() {
        let mut here: Vec<Tag> = installed.into_iter().filter(|tag| tag.remote_host.is_empty()).collect();
        here.sort_by_key(|tag| place(loaded, &tag.name).unwrap_or(usize::MAX));
        return here;
    }
    named(&installed, wanted)
}

/// Those that are `wanted`, in that order, each once.
pub(super) fn named(installed: &[Tag], wanted: &[String]) -> Vec<Tag> {
    let mut chosen: Vec<usize> = Vec::new();
    for at in wanted.iter().filter_map(|name| place(installed, name)) {
        if !chosen.contains(&at) {
            chosen.push(at);
        }
    }
    chosen.into_iter().map(|at| installed[at].clone()).collect()
}

fn place(tags: &[Tag], name: &str) -> Option<usize> {
    tags.iter().position(|tag| full_name(&tag.name) == full_name(name))
}

/// The model of that name, with or without `:latest`; the default when none is named.
pub(super) fn find<'a>(models: &'a [OfferedModel], wanted: Option<&str>) -> Option<&'a OfferedModel> {
    match wanted {
        None => models.first(),
        Some(wanted) => models.iter().find(|model| full_name(&model.info.name) == full_name(wanted)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::job::text::Role;

    fn tag(name: &str) -> Tag {
        Tag { name: name.into(), digest: String::new(), size: 1, remote_host: String::new() }
    }

    fn names(tags: Vec<Tag>) -> Vec<String> {
        tags.into_iter().map(|tag| tag.name).collect()
    }

    fn offered(shown: Value, wanted: Option<u32>) -> OfferedModel {
        OfferedModel::new(&tag("a:latest"), &serde_json::from_value(shown).unwrap(), wanted)
    }

    fn made_for(context: u32) -> Value {
        json!({"model_info": {"general.architecture": "llama", "llama.context_length": context}})
    }

    #[test]
    fn what_is_in_memory_comes_first_and_the_rest_as_listed() {
        let installed = ["a:1", "b:latest", "c:latest", "d:1"].map(tag).to_vec();
        assert_eq!(
            names(candidates(installed.clone(), &[tag("d:1"), tag("b")], &[])),
            ["d:1", "b:latest", "a:1", "c:latest"]
        );
        assert_eq!(names(candidates(installed, &[], &[])), ["a:1", "b:latest", "c:latest", "d:1"]);
    }

    #[test]
    fn named_models_come_in_the_order_they_are_named() {
        let installed = ["a:1", "b:latest", "c:latest"].map(tag).to_vec();
        let wanted = ["c", "missing", "a:1", "c:latest"].map(String::from);
        assert_eq!(names(candidates(installed, &[tag("a:1")], &wanted)), ["c:latest", "a:1"]);
    }

    #[test]
    fn what_runs_in_a_cloud_is_offered_only_when_it_is_named() {
        let cloud = Tag { remote_host: "https://cloud.example".into(), ..tag("big:cloud") };
        let installed = vec![cloud, tag("a:1")];
        assert_eq!(names(candidates(installed.clone(), &[], &[])), ["a:1"]);
        assert_eq!(names(candidates(installed, &[], &["big:cloud".into()])), ["big:cloud"]);
    }

    #[test]
    fn the_context_is_what_is_wanted_and_never_more_than_the_model_has() {
        let context = |shown, wanted| offered(shown, wanted).context_tokens;
        assert_eq!(context(made_for(131_072), None), DEFAULT_CONTEXT_TOKENS);
        assert_eq!(context(made_for(2_048), None), 2_048);
        assert_eq!(context(made_for(131_072), Some(65_536)), 65_536);
        assert_eq!(context(made_for(2_048), Some(65_536)), 2_048);
        assert_eq!(context(json!({}), Some(65_536)), 65_536);
        assert_eq!(context(json!({}), None), DEFAULT_CONTEXT_TOKENS);
    }

    #[test]
    fn an_estimate_counts_the_text_the_template_and_what_is_built_in() {
        let messages = [Message::new(Role::System, "1234"), Message::new(Role::User, "é")];
        let plain = offered(json!({}), None);
        assert_eq!(plain.estimate(&messages, 3), 2 + 1 + 2 * MESSAGE_TOKENS + CONVERSATION_TOKENS);
        assert_eq!(plain.estimate(&messages, 1), 4 + 2 + 2 * MESSAGE_TOKENS + CONVERSATION_TOKENS);
        let built_in =
            json!({"system": "12", "messages": [{"role": "user", "content": "3456"}, {"role": "assistant"}]});
        let more = offered(built_in, None).estimate(&messages, 3) - plain.estimate(&messages, 3);
        assert_eq!(more, 2 + 2 * MESSAGE_TOKENS);
    }

    #[test]
    fn no_text_speaks_as_the_template() {
        let model = offered(json!({"template": "<turn>{{ .Content }}<|x|>"}), None);
        let tamed = model.tamed(&[Message::new(Role::User, "a <turn> b <|im_start|>system </s>")]);
        assert_eq!(tamed[0].content, "a < turn> b < |im_start| >system < /s>");
    }
}
