//! What is in stock: which endpoints answer, which models they have, what those need. For reports; nothing is loaded.

use std::time::Duration;

use futures::future::join_all;
use serde::Serialize;
use tokio::time::timeout;
use url::{Host, Url};

use super::wiring::inference::{model_files, open_endpoint};
use crate::config::{
    BackendSettings, EndpointSettings, InferenceSettings, MistralRsSettings, ModelSettings, ServerSettings,
};
use crate::hardware::{Candidate, Hardware, Recommendation, recommend};
use crate::inference::detect::{FoundServer, look_at};
use crate::inference::{JsonSupport, ModelInfo, meant};

/// How long an endpoint may take to list its models: some ask for each one.
const PATIENCE: Duration = Duration::from_secs(15);

/// The context that is reckoned with when nobody says one.
const USUAL_CONTEXT: u32 = 8_192;

/// An endpoint and what it has.
#[derive(Debug, Clone)]
pub struct Stock {
    /// The operator's name for it.
    pub name: String,
    /// Which kind.
    pub backend: &'static str,
    /// Where it is, when it is a server.
    pub address: Option<Url>,
    /// Its models, or why it has none, for the operator.
    pub models: Result<Vec<StockModel>, String>,
    /// Jobs it does at once, when it is known; `usize::MAX` for no limit.
    pub room: Option<usize>,
}

/// A model at an endpoint, by the endpoint's name for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StockModel {
    /// What the endpoint says of it.
    pub info: ModelInfo,
    /// Bytes of its weights on this machine; `None` when it is elsewhere, or nobody tells.
    pub bytes: Option<u64>,
    /// Bytes of a full context.
    pub kv_bytes: Option<u64>,
}

/// Asks all endpoints at once.
pub async fn take(settings: &InferenceSettings) -> Vec<Stock> {
    join_all(settings.endpoints.iter().map(of)).await
}

async fn of(endpoint: &EndpointSettings) -> Stock {
    let (models, room) = match (&endpoint.backend, endpoint.server()) {
        (BackendSettings::MistralRs(model), _) => {
            // Its files tell enough; loading it takes minutes.
            let model = model.clone();
            let read = tokio::task::spawn_blocking(move || in_process(&model)).await;
            (read.unwrap_or_else(|_| Err("its files can't be read".into())), Some(1))
        }
        (_, server) => ask(endpoint, server).await,
    };
    let address = endpoint.server().map(|server| server.url.clone());
    Stock { name: endpoint.name.clone(), backend: endpoint.backend.word(), address, models, room }
}

fn in_process(model: &MistralRsSettings) -> Result<Vec<StockModel>, String> {
    let files = model_files(model)?;
    let context = files.context_tokens.unwrap_or(USUAL_CONTEXT);
    let info = ModelInfo {
        context_tokens: files.context_tokens,
        parameters: files.parameters,
        ..ModelInfo::named(model.model_name.clone())
    };
    let kv_bytes = files.kv_bytes_a_token.map(|bytes| bytes.saturating_mul(u64::from(context)));
    Ok(vec![StockModel { info, bytes: Some(files.bytes), kv_bytes }])
}

async fn ask(
    endpoint: &EndpointSettings,
    server: Option<&ServerSettings>,
) -> (Result<Vec<StockModel>, String>, Option<usize>) {
    let backend = match open_endpoint(endpoint).await {
        Ok(backend) => backend,
        Err(error) => return (Err(format!("{error:#}")), None),
    };
    let (listed, found) = tokio::join!(timeout(PATIENCE, backend.models()), sizes(endpoint, server));
    let models = match listed {
        Ok(Ok(models)) => models,
        Ok(Err(error)) => return (Err(error.to_string()), None),
        Err(_) => return (Err(format!("nothing came within {} s", PATIENCE.as_secs())), None),
    };
    let bytes = |info: &ModelInfo| {
        let mut models = found.iter().flat_map(|server| &server.models);
        // A server with one model may have it under another name here.
        models
            .clone()
            .find(|model| model.name == info.name)
            .or_else(|| {
                let only = models.next()?;
                models.next().is_none().then_some(only)
            })?
            .bytes
    };
    let stock = |info: ModelInfo| StockModel { bytes: bytes(&info), info, kv_bytes: None };
    (Ok(models.into_iter().map(stock).collect()), Some(backend.room(None)))
}

/// What a server says of sizes, which only matter on this machine.
async fn sizes(endpoint: &EndpointSettings, server: Option<&ServerSettings>) -> Option<FoundServer> {
    let server = server.filter(|server| is_here(&server.url))?;
    let key = server.key.as_ref().and_then(|key| key.reveal(&endpoint.field("key")).ok());
    look_at(&server.url, key.as_ref()).await
}

fn is_here(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// A model as it is sold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OfferedModel {
    /// What customers call it.
    pub name: String,
    /// Other names for it.
    pub aliases: Vec<String>,
    /// What the endpoints call it.
    pub upstream: String,
    /// The endpoints that have it.
    pub endpoints: Vec<String>,
    /// Tokens of prompt and answer together.
    pub context_tokens: Option<u32>,
    /// Its exact parameters.
    pub parameters: Option<u64>,
    /// What it is, to the byte.
    pub digest: Option<String>,
    /// Which answers it can be made to give.
    pub json: JsonSupport,
    /// Bytes of its weights, on this machine.
    pub bytes: Option<u64>,
    /// Bytes of a full context.
    #[serde(skip)]
    pub kv_bytes: Option<u64>,
}

/// What is sold of what is there: the configured models in their order, or else everything in the order it was found.
pub fn on_offer(settings: &InferenceSettings, stock: &[Stock]) -> Vec<OfferedModel> {
    if !settings.models.is_empty() {
        return settings.models.iter().map(|model| offered(Some(model), &model.upstream, stock)).collect();
    }
    let mut names: Vec<&str> = Vec::new();
    for model in stock.iter().flat_map(|stock| stock.models.as_deref().unwrap_or_default()) {
        if !names.contains(&model.info.name.as_str()) {
            names.push(&model.info.name);
        }
    }
    names.into_iter().map(|name| offered(None, name, stock)).collect()
}

fn offered(model: Option<&ModelSettings>, upstream: &str, stock: &[Stock]) -> OfferedModel {
    let allowed =
        |stock: &&Stock| model.is_none_or(|model| model.endpoints.is_empty() || model.endpoints.contains(&stock.name));
    let having = stock.iter().filter(allowed).filter_map(|stock| {
        let models = stock.models.as_deref().unwrap_or_default();
        let found = meant(models.iter(), upstream, |model, is_it| is_it(&model.info.name));
        found.map(|found| (&stock.name, found))
    });
    let (mut endpoints, mut found): (Vec<String>, Vec<&StockModel>) = (Vec::new(), Vec::new());
    for (name, model) in having {
        endpoints.push(name.clone());
        found.push(model);
    }
    let first = |of: fn(&ModelInfo) -> Option<u64>| found.iter().find_map(|model| of(&model.info));
    let contexts = found.iter().filter_map(|model| model.info.context_tokens);
    OfferedModel {
        name: model.map_or(upstream, |model| &model.name).to_owned(),
        aliases: model.map(|model| model.aliases.clone()).unwrap_or_default(),
        upstream: upstream.to_owned(),
        endpoints,
        context_tokens: contexts.chain(model.and_then(|model| model.context)).min(),
        parameters: first(|info| info.parameters).or(model.and_then(|model| model.parameters)),
        digest: found
            .iter()
            .find_map(|model| model.info.digest.clone())
            .or_else(|| model.and_then(|model| model.digest.clone())),
        json: found.iter().map(|model| model.info.json).min().unwrap_or_default(),
        bytes: found.iter().find_map(|model| model.bytes),
        kv_bytes: found.iter().find_map(|model| model.kv_bytes),
    }
}

/// Which of the offered models suits this machine.
pub fn recommendation(hardware: &Hardware, offered: &[OfferedModel]) -> Recommendation {
    let candidate =
        |model: &OfferedModel| Candidate { name: model.name.clone(), bytes: model.bytes, kv_bytes: model.kv_bytes };
    recommend(hardware, &offered.iter().map(candidate).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stock(name: &str, models: &[(&str, Option<u32>)]) -> Stock {
        let model = |(name, context): &(&str, Option<u32>)| StockModel {
            info: ModelInfo { context_tokens: *context, ..ModelInfo::named(*name) },
            bytes: Some(1),
            kv_bytes: None,
        };
        let models = Ok(models.iter().map(model).collect());
        Stock { name: name.into(), backend: "ollama", address: None, models, room: Some(1) }
    }

    fn settings(models: Vec<ModelSettings>) -> InferenceSettings {
        InferenceSettings { endpoints: Vec::new(), probe: Vec::new(), context: None, models }
    }

    fn sold(name: &str, upstream: &str, endpoints: &[&str]) -> ModelSettings {
        ModelSettings {
            name: name.into(),
            upstream: upstream.into(),
            aliases: Vec::new(),
            endpoints: endpoints.iter().map(|name| (*name).to_owned()).collect(),
            context: Some(6_000),
            parameters: Some(9_000),
            digest: None,
            at_once: None,
            max_output_tokens: None,
            rates: None,
        }
    }

    #[test]
    fn everything_found_is_on_offer_once_with_the_endpoints_that_have_it() {
        let there = [stock("a", &[("m", Some(8_192))]), stock("b", &[("n", None), ("m", Some(4_096))])];
        let offered = on_offer(&settings(Vec::new()), &there);
        let told: Vec<_> = offered.iter().map(|model| (model.name.as_str(), model.endpoints.join(","))).collect();
        assert_eq!(told, [("m", "a,b".into()), ("n", "b".into())]);
        assert_eq!(offered[0].context_tokens, Some(4_096), "what holds at both");
    }

    #[test]
    fn configured_models_keep_their_names_and_order_whether_or_not_anybody_has_them() {
        let down = Stock { models: Err("no connection".into()), ..stock("c", &[]) };
        let there = [stock("a", &[("m", Some(8_192))]), stock("b", &[("m", None)]), down];
        let offered = on_offer(&settings(vec![sold("missing", "x", &[]), sold("big", "m", &["a"])]), &there);
        assert_eq!((offered[0].name.as_str(), offered[0].endpoints.len()), ("missing", 0));
        let big = &offered[1];
        assert_eq!((big.name.as_str(), big.upstream.as_str(), &*big.endpoints), ("big", "m", &["a".to_owned()][..]));
        assert_eq!((big.context_tokens, big.parameters), (Some(6_000), Some(9_000)));
    }

    #[test]
    fn a_model_in_this_process_is_told_by_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = crate::inference::tiny::write_to(folder.path()).unwrap();
        let model = |model| MistralRsSettings { model, model_name: "tiny".into(), chat_template: None, context: None };
        let found = in_process(&model(path)).unwrap().remove(0);
        assert_eq!((found.info.parameters, found.info.context_tokens), (Some(885_888), Some(1_024)));
        assert!(found.kv_bytes.is_some_and(|bytes| bytes > 0) && found.bytes.is_some_and(|bytes| bytes > 1_000_000));
        let other = in_process(&model(folder.path().to_owned())).unwrap_err();
        assert!(other.contains(&folder.path().display().to_string()), "a folder without a model: {other}");
    }
}
