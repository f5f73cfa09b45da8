//! What a pool offers, from what its endpoints said and what the operator wrote. Pure.

use std::sync::Arc;

use super::PoolModel;
use crate::inference::{JsonSupport, ModelInfo, meant, names};

/// A model on offer, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Offer {
    /// The name customers ask for.
    pub(super) name: Arc<str>,
    /// Other names for it.
    pub(super) aliases: Vec<String>,
    /// What the endpoints call it.
    pub(super) upstream: String,
    /// The places of the endpoints that have it, in the configured order.
    pub(super) endpoints: Vec<usize>,
    /// What holds whichever endpoint does the job.
    pub(super) info: ModelInfo,
    /// Its parameters, where an endpoint does not know them.
    pub(super) parameters: Option<u64>,
    /// Its digest, where an endpoint does not know it.
    pub(super) digest: Option<String>,
    /// Most jobs at once, over all endpoints.
    pub(super) at_once: usize,
}

impl Offer {
    /// Whether any of its names passes the test.
    pub(super) fn is_called(&self, is_it: &dyn Fn(&str) -> bool) -> bool {
        is_it(&self.name) || self.aliases.iter().any(|alias| is_it(alias))
    }
}

/// An endpoint's name, and what it listed when it was last heard of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heard<'a> {
    pub(super) name: &'a str,
    pub(super) models: Option<&'a [ModelInfo]>,
    /// Whether it answered when it was last asked.
    pub(super) answers: bool,
}

impl Heard<'_> {
    pub(super) fn lists(&self, model: &PoolModel) -> bool {
        self.models.is_some_and(|listed| listed.iter().any(|info| names(&info.name, &model.upstream)))
    }
}

/// Whether every endpoint of a configured model answers, and none has it: then it would be sold in vain.
pub(super) fn is_missing(model: &PoolModel, heard: &[Heard<'_>]) -> bool {
    of(model, heard).all(|(_, endpoint)| endpoint.answers && !endpoint.lists(model))
}

/// The endpoints a model may be at.
fn of<'a>(model: &'a PoolModel, heard: &'a [Heard<'a>]) -> impl Iterator<Item = (usize, &'a Heard<'a>)> {
    let may = |endpoint: &Heard<'_>| model.endpoints.is_empty() || is_named(model, endpoint);
    heard.iter().enumerate().filter(move |(_, endpoint)| may(endpoint))
}

fn is_named(model: &PoolModel, endpoint: &Heard<'_>) -> bool {
    model.endpoints.iter().any(|name| name == endpoint.name)
}

/// What is on offer, the default first: the configured models, or else every model some endpoint lists, under its own name.
/// A configured model is on offer as long as an endpoint has it, or may have it once it answers again.
pub(super) fn offers(models: &[PoolModel], heard: &[Heard<'_>]) -> Vec<Offer> {
    if !models.is_empty() {
        return models.iter().filter(|model| !is_missing(model, heard)).map(|model| offer(model, heard)).collect();
    }
    let mut names: Vec<&str> = Vec::new();
    for model in heard.iter().filter_map(|endpoint| endpoint.models).flatten() {
        if !names.contains(&model.name.as_str()) {
            names.push(&model.name);
        }
    }
    names.into_iter().map(|name| offer(&PoolModel::named(name), heard)).collect()
}

fn offer(model: &PoolModel, heard: &[Heard<'_>]) -> Offer {
    let (mut endpoints, mut infos) = (Vec::new(), Vec::new());
    for (place, endpoint) in of(model, heard) {
        match endpoint.models.map(|listed| meant(listed.iter(), &model.upstream, |info, is_it| is_it(&info.name))) {
            Some(Some(info)) => {
                endpoints.push(place);
                infos.push(info);
            }
            // Not heard of yet: the operator says that it has it.
            None if is_named(model, endpoint) => endpoints.push(place),
            Some(None) | None => {}
        }
    }
    Offer {
        name: model.name.as_str().into(),
        aliases: model.aliases.clone(),
        upstream: model.upstream.clone(),
        endpoints,
        info: common(model, &infos),
        parameters: model.parameters,
        digest: model.digest.clone(),
        at_once: model.at_once.unwrap_or(usize::MAX).max(1),
    }
}

/// What is true of a model wherever the job is done: the smallest context, what all say the same of, and the answers that
/// each can be made to give.
fn common(model: &PoolModel, infos: &[&ModelInfo]) -> ModelInfo {
    let contexts = infos.iter().filter_map(|info| info.context_tokens);
    let parameters = infos.iter().map(|info| info.parameters.or(model.parameters));
    let digests = infos.iter().map(|info| info.digest.as_ref().or(model.digest.as_ref()));
    let heard = !infos.is_empty();
    ModelInfo {
        name: model.name.clone(),
        context_tokens: contexts.chain(model.context_tokens).min(),
        parameters: if heard { agreed(parameters) } else { model.parameters },
        digest: if heard { agreed(digests).cloned() } else { model.digest.clone() },
        json: infos.iter().map(|info| info.json).min().unwrap_or(JsonSupport::None),
    }
}

/// What all say, if all say the same. Nothing, when one of them does not know.
fn agreed<T: PartialEq>(mut said: impl Iterator<Item = Option<T>>) -> Option<T> {
    let first = said.next()??;
    said.all(|other| other.as_ref() == Some(&first)).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(name: &str, context: u32, parameters: Option<u64>, json: JsonSupport) -> ModelInfo {
        ModelInfo { context_tokens: Some(context), parameters, json, ..ModelInfo::named(name) }
    }

    #[test]
    fn without_configured_models_everything_listed_is_on_offer_once() {
        let (one, two) = (vec![ModelInfo::named("a"), ModelInfo::named("b")], vec![ModelInfo::named("b")]);
        let heard = [
            Heard { name: "gpu1", models: Some(&one), answers: true },
            Heard { name: "gpu2", models: Some(&two), answers: true },
            Heard { name: "gpu3", models: None, answers: false },
        ];
        let offers = offers(&[], &heard);
        let names: Vec<_> = offers.iter().map(|offer| (&*offer.name, offer.endpoints.clone())).collect();
        assert_eq!(names, [("a", vec![0]), ("b", vec![0, 1])]);
    }

    #[test]
    fn what_endpoints_disagree_about_is_said_no_better_than_the_worst() {
        let one = vec![info("up", 8_192, Some(7), JsonSupport::Schema)];
        let two = vec![info("up", 4_096, Some(8), JsonSupport::Any)];
        let heard = [
            Heard { name: "gpu1", models: Some(&one), answers: true },
            Heard { name: "gpu2", models: Some(&two), answers: true },
        ];
        let model = PoolModel { upstream: "up".into(), context_tokens: Some(6_000), ..PoolModel::named("public") };
        let said = offers(std::slice::from_ref(&model), &heard).remove(0).info;
        assert_eq!(said, info("public", 4_096, None, JsonSupport::Any));
        let capped = PoolModel { context_tokens: Some(2_000), ..model };
        assert_eq!(offers(&[capped], &heard)[0].info.context_tokens, Some(2_000));
    }

    #[test]
    fn configured_parameters_fill_in_what_an_endpoint_does_not_know() {
        let (knows, silent) = (vec![info("m", 10, Some(7), JsonSupport::None)], vec![ModelInfo::named("m")]);
        let heard = [
            Heard { name: "gpu1", models: Some(&knows), answers: true },
            Heard { name: "gpu2", models: Some(&silent), answers: true },
        ];
        assert_eq!(offers(&[PoolModel::named("m")], &heard)[0].info.parameters, None);
        let told = PoolModel { parameters: Some(7), ..PoolModel::named("m") };
        assert_eq!(offers(&[told], &heard)[0].info.parameters, Some(7));
        let otherwise = PoolModel { parameters: Some(8), ..PoolModel::named("m") };
        assert_eq!(offers(&[otherwise], &heard)[0].info.parameters, None, "the first knows better");
    }

    #[test]
    fn an_endpoint_has_a_model_whether_or_not_its_tag_is_written() {
        let listed = vec![ModelInfo::named("llama3.2:latest")];
        let heard = [Heard { name: "gpu1", models: Some(&listed), answers: true }];
        assert_eq!(offers(&[PoolModel::named("llama3.2")], &heard)[0].endpoints, [0]);
    }

    #[test]
    fn a_configured_model_is_on_offer_before_anything_is_heard_and_goes_where_it_is_listed() {
        let other = vec![ModelInfo::named("other")];
        let heard = [
            Heard { name: "gpu1", models: None, answers: false },
            Heard { name: "gpu2", models: Some(&other), answers: true },
            Heard { name: "gpu3", models: None, answers: false },
        ];
        let model = PoolModel {
            endpoints: vec!["gpu1".into(), "gpu2".into()],
            aliases: vec!["big".into()],
            ..PoolModel::named("m")
        };
        let offers = offers(&[model], &heard);
        assert_eq!(offers[0].endpoints, [0], "the second does not list it, the third is not named");
        let is_called = |wanted: &str| offers[0].is_called(&|name| name == wanted);
        assert!(is_called("m") && is_called("big") && !is_called("small"));
    }

    #[test]
    fn a_configured_model_that_all_its_endpoints_say_they_lack_is_not_on_offer() {
        let (has, lacks) = (vec![ModelInfo::named("m")], vec![ModelInfo::named("other")]);
        let heard = |models, answers| Heard { name: "gpu1", models, answers };
        let offered = |endpoints: &[Heard<'_>]| !offers(&[PoolModel::named("m")], endpoints).is_empty();
        assert!(!offered(&[heard(Some(&lacks), true)]));
        assert!(offered(&[heard(Some(&lacks), true), heard(Some(&has), true)]));
        assert!(offered(&[heard(Some(&lacks), false)]), "it may have it when it is back");
        assert!(offered(&[heard(None, false)]));
        // What happens where it can't be is nothing to it.
        let elsewhere = Heard { name: "gpu2", models: None, answers: false };
        let model = PoolModel { endpoints: vec!["gpu1".into()], ..PoolModel::named("m") };
        assert!(offers(&[model], &[heard(Some(&lacks), true), elsewhere]).is_empty());
    }
}
