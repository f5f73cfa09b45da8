//! A market that sells runs on this machine's engine, and what is looked at afterwards.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use bollard::models::EventMessage;
use bollard::query_parameters::{
    EventsOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder, ListVolumesOptionsBuilder,
};
use coinop::blossom::{Blossom, BlossomConfig};
use coinop::executor::sandbox_run::SandboxRunExecutor;
use coinop::identity::Signer;
use coinop::job::sandbox_run::{RunResult, SandboxRunLimits};
use coinop::job::{Input, InputKind, JobId, JobKind, Params, Rates, Terms};
use coinop::money::Msat;
use coinop::nip90::{Codec, JobResult, Order, ReadLimits};
use coinop::provider::Offer;
use coinop::repository::{Repositories, RepositoryLimits};
use coinop::sandbox::{Hosts, Runtime, Sandbox};
use coinop::testing::engine;
use coinop::testing::market::{Customer, MarketBuilder, TestMarket, within};
use futures::{Stream, StreamExt};
use serde_json::Value;
use tempfile::TempDir;

use super::RATES;

/// Runs a customer may have for nothing an hour.
pub const GIVEN_AWAY: usize = 2;

/// The label that says whose a container is.
const INSTANCE: &str = "coinop.instance";

/// A market that sells runs.
pub struct Shop {
    pub market: TestMarket,
    pub customer: Customer,
    pub engine: Engine,
    pub instance: String,
    hosts: Arc<Hosts>,
    runtime: Runtime,
    _folder: TempDir,
}

/// The executor of these tests.
pub fn executor(hosts: Arc<Hosts>, runtime: Runtime, folder: &TempDir, files: Option<Blossom>) -> SandboxRunExecutor {
    let bounds = RepositoryLimits {
        max_bytes: 50_000_000,
        max_files: 10_000,
        time: Duration::from_secs(60),
        cache_bytes: 100_000_000,
        allow_private: true,
    };
    let repositories = Repositories::new(folder.path().to_owned(), bounds);
    SandboxRunExecutor::new(hosts, Some(repositories), files, runtime, SandboxRunLimits::default())
}

/// A market that sells with this executor.
pub fn selling(executor: SandboxRunExecutor, rates: Rates, terms: Terms) -> MarketBuilder {
    let hold_for = Offer::hold_for(SandboxRunLimits::default().time.max);
    let offer = Offer { rates, terms, free_per_day: 0, hold_for };
    let market = TestMarket::new().selling(JobKind::SandboxRun, Arc::new(executor), offer);
    market.rules(|rules| rules.max_given_away = GIVEN_AWAY)
}

/// The input that names a repository.
pub fn repository(url: &str) -> Input {
    Input { data: url.to_owned(), kind: InputKind::Url, relay: None, marker: Some("repo".into()) }
}

/// An order of a run.
pub fn order(customer: &Customer, params: &[(&str, &str)]) -> Order {
    let mut list = Params::default();
    for (key, value) in params {
        list.push(key, vec![(*value).to_owned()]);
    }
    Order { kind: JobKind::SandboxRun, inputs: Vec::new(), params: list, ..customer.order("") }
}

/// What a run came back as, held against the published schema.
pub fn read(result: &JobResult) -> RunResult {
    let json: Value = serde_json::from_str(&result.content).unwrap();
    let schema = serde_json::from_str(include_str!("../../../nips/5930.schema.json")).unwrap();
    if let Err(mismatch) = jsonschema::validate(&schema, &json) {
        panic!("{mismatch} in {json:#}");
    }
    serde_json::from_value(json).unwrap()
}

/// What a result says of itself.
pub fn fact<'a>(result: &'a JobResult, key: &str) -> &'a str {
    let found = result.receipt.facts.iter().find(|(name, _)| name == key);
    found.map(|(_, value)| value.as_str()).unwrap_or_else(|| panic!("the result does not say its {key}"))
}

impl Shop {
    /// Opens; `None` where there is no such engine, which is said.
    pub async fn open(runtime: Runtime, terms: Terms) -> Option<Self> {
        Self::with_files(runtime, terms, None).await
    }

    /// Opens one that uploads.
    pub async fn with_files(runtime: Runtime, terms: Terms, files: Option<BlossomConfig>) -> Option<Self> {
        let instance = format!("coinop-runs-{:016x}", rand::random::<u64>());
        let hosts = engine::hosts(&instance, runtime).await?;
        let folder = tempfile::tempdir().unwrap();
        let codec = Codec::new(Signer::random(), ReadLimits::default());
        let files = files.map(|config| Blossom::new(config, codec).unwrap());
        let executor = executor(Arc::clone(&hosts), runtime, &folder, files);
        let market = selling(executor, RATES, terms).start().await;
        let customer = market.customer().await;
        Some(Self { market, customer, engine: Engine::of_this_machine(), instance, hosts, runtime, _folder: folder })
    }

    /// An order of a run.
    pub fn order(&self, params: &[(&str, &str)]) -> Order {
        order(&self.customer, params)
    }

    /// Buys a run that is delivered.
    pub async fn buy(&self, order: &Order) -> JobResult {
        let mut posted = self.customer.post(order).await;
        let invoice = posted.invoice().await;
        self.customer.pay(&invoice).await.unwrap();
        posted.result().await
    }

    /// What the customer has with the provider.
    pub async fn credit(&self) -> Msat {
        self.market.service().provider().store().credit(self.customer.signer.customer_id()).await.unwrap()
    }

    /// The images on offer.
    pub async fn on_offer(&self) -> Vec<String> {
        self.hosts.images(self.runtime).await.unwrap().into_iter().map(|image| image.name).collect()
    }

    /// Closes: nothing is left to be done, nothing runs any more, and nothing lies on the engine.
    pub async fn close(self) {
        self.market.finish().await;
        // A cell that was no longer wanted while it was being opened is removed beside everything else.
        self.hosts.shut_down().await;
        self.engine.has_nothing_of(&self.instance).await;
    }
}

/// The engine as somebody sees it who looks from outside.
pub struct Engine(Docker);

/// The commands that are begun in an installation's cells.
pub struct Commands(Pin<Box<dyn Stream<Item = Result<EventMessage, bollard::errors::Error>> + Send>>);

impl Commands {
    /// Waits until a command of a job is begun; in which container. Others' are those of the probe.
    pub async fn begun_by(&mut self, job: JobId) -> String {
        let job = job.to_string();
        loop {
            let event = within("a command to be begun", self.0.next()).await.unwrap().unwrap();
            let actor = event.actor.unwrap();
            if actor.attributes.is_some_and(|labels| labels.get("coinop.job") == Some(&job)) {
                return actor.id.unwrap();
            }
        }
    }
}

impl Engine {
    pub fn of_this_machine() -> Self {
        Self(Docker::connect_with_local_defaults().unwrap())
    }

    /// The commands that are begun from now on.
    pub fn commands(&self, instance: &str) -> Commands {
        let label = format!("{INSTANCE}={instance}");
        let filters = HashMap::from([("label", vec![label.as_str()]), ("event", vec!["exec_start"])]);
        // From now on by whatever clock the engine has: nothing of this installation was there before.
        let options = EventsOptionsBuilder::new().since("0").filters(&filters).build();
        Commands(Box::pin(self.0.events(Some(options))))
    }

    /// Whether a container is there.
    pub async fn has(&self, container: &str) -> bool {
        let inspect = self.0.inspect_container(container, None::<InspectContainerOptions>);
        inspect.await.is_ok()
    }

    /// No container and no volume of an installation is left.
    pub async fn has_nothing_of(&self, instance: &str) {
        let label = format!("{INSTANCE}={instance}");
        let filters = HashMap::from([("label", vec![label.as_str()])]);
        let all = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let containers = self.0.list_containers(Some(all)).await.unwrap();
        assert!(containers.is_empty(), "left running: {containers:?}");
        let all = ListVolumesOptionsBuilder::new().filters(&filters).build();
        let volumes = self.0.list_volumes(Some(all)).await.unwrap().volumes.unwrap_or_default();
        assert!(volumes.is_empty(), "left on disk: {volumes:?}");
    }
}
