//! A whole market in one process: relays, a provider behind its [`Service`], play money, and customers, all over real
//! websockets. A test says what is different about its market and tells its story; [`TestMarket::finish`] checks what must
//! hold in every story.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use nostr::{Event, Filter, Kind, SingleLetterTag};
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::relay::TestRelay;
use crate::blossom::Blossom;
use crate::daemon::service::{Plan, RefundPlan, Service, StartError};
use crate::executor::inference::TextExecutor;
use crate::executor::{Executor, Router};
use crate::fetch::Fetcher;
use crate::identity::Signer;
use crate::inference::Inference;
use crate::inference::echo::Echo;
use crate::job::admission::Rules;
use crate::job::text::TextLimits;
use crate::job::{Job, JobId, JobKind, Rates, Terms};
use crate::lnurl::LnurlClient;
use crate::metrics::Metrics;
use crate::money::Msat;
use crate::nip90::{Codec, ReadLimits, kinds};
use crate::provider::{Clock, HoldKey, Offer, Settings, Witness, ZapAddress};
use crate::relays::{IntakeLimits, PoolConfig, Rate, RelayInputs};
use crate::store::{Closing, Store, StoredJob};
use crate::wallet::Wallet;
use crate::wallet::fake::{FakeNetwork, FakeWallet, FakeWalletOptions, NETWORK};

mod customer;
mod moments;

pub use customer::{Customer, Invoiced, Posted};
pub use moments::Moments;

/// How long anything may take before a test gives it up: long, because machines that run tests are busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The secret of the provider's wallet; customers count up from it.
const PROVIDER_WALLET: u8 = 1;

/// What a customer's wallet has at first.
pub const POCKET_MONEY: Msat = Msat::sat(1_000_000);

/// Waits for something that must come, and says what it was when it does not.
pub async fn within<T>(what: &str, coming: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, coming).await {
        Ok(came) => came,
        Err(_) => panic!("waited {} s in vain for {what}", PATIENCE.as_secs()),
    }
}

/// Puts something between the provider and its wallet.
type Front = Arc<dyn Fn(FakeWallet) -> Arc<dyn Wallet> + Send + Sync>;

/// Puts something between the provider and what does its work.
type ExecutorFront = Arc<dyn Fn(Arc<dyn Executor>) -> Arc<dyn Executor> + Send + Sync>;

/// What is different about a market.
#[allow(missing_debug_implementations)] // Made of traits.
pub struct MarketBuilder {
    relays: usize,
    offer: Offer,
    settings: Settings,
    pool: PoolConfig,
    retention: Duration,
    wallet: Option<FakeWalletOptions>,
    front: Option<Front>,
    zaps: Option<String>,
    refunds: Option<RefundPlan>,
    own_wallet: Option<Arc<dyn Wallet>>,
    time_limit: Duration,
    backend: Option<Arc<dyn Inference>>,
    executor: Option<ExecutorFront>,
    sold: Vec<(JobKind, Arc<dyn Executor>, Offer)>,
    files: Option<Blossom>,
    fetcher: Option<Fetcher>,
    job_patience: Duration,
    clock: Clock,
    witness: Option<Arc<dyn Witness>>,
    metrics: Option<Metrics>,
}

/// A market that is open.
#[allow(missing_debug_implementations)] // Made of traits.
pub struct TestMarket {
    folder: TempDir,
    relays: Vec<TestRelay>,
    network: FakeNetwork,
    wallet: Option<FakeWallet>,
    signer: Signer,
    how: MarketBuilder,
    moments: Arc<Moments>,
    service: Option<Service>,
    customers: AtomicU8,
    shown_at: Option<SocketAddr>,
}

impl MarketBuilder {
    /// The price of a job, whatever its size.
    #[must_use]
    pub fn price(mut self, price: Msat) -> Self {
        self.offer.rates = Rates { base: price, ..Rates::default() };
        self
    }

    /// The whole price list.
    #[must_use]
    pub fn rates(mut self, rates: Rates) -> Self {
        self.offer.rates = rates;
        self
    }

    /// When work is paid.
    #[must_use]
    pub fn terms(mut self, terms: Terms) -> Self {
        self.offer.terms = terms;
        self
    }

    /// Jobs a key has for nothing a day.
    #[must_use]
    pub fn free_per_day(mut self, jobs: u32) -> Self {
        self.offer.free_per_day = jobs;
        self
    }

    /// How many relays there are.
    #[must_use]
    pub fn relays(mut self, count: usize) -> Self {
        self.relays = count;
        self
    }

    /// Who does the work; an echo unless told otherwise.
    #[must_use]
    pub fn backend(mut self, backend: impl Inference + 'static) -> Self {
        self.backend = Some(Arc::new(backend));
        self
    }

    /// The provider has its work done through this.
    #[must_use]
    pub fn executor_behind(
        mut self,
        front: impl Fn(Arc<dyn Executor>) -> Arc<dyn Executor> + Send + Sync + 'static,
    ) -> Self {
        self.executor = Some(Arc::new(front));
        self
    }

    /// Sells a further kind of job, or another executor's text generation.
    #[must_use]
    pub fn selling(mut self, kind: JobKind, executor: Arc<dyn Executor>, offer: Offer) -> Self {
        self.sold.push((kind, executor, offer));
        self
    }

    /// Results that are too large for an event go there.
    #[must_use]
    pub fn files(mut self, files: Blossom) -> Self {
        self.files = Some(files);
        self
    }

    /// The provider fetches addresses with this; without it it fetches none.
    #[must_use]
    pub fn fetcher(mut self, fetcher: Fetcher) -> Self {
        self.fetcher = Some(fetcher);
        self
    }

    /// How long another job's result is waited for.
    #[must_use]
    pub fn job_patience(mut self, patience: Duration) -> Self {
        self.job_patience = patience;
        self
    }

    /// What the provider's wallet can do.
    #[must_use]
    pub fn wallet(mut self, options: FakeWalletOptions) -> Self {
        self.wallet = Some(options);
        self
    }

    /// The provider sees its wallet through this.
    #[must_use]
    pub fn wallet_behind(mut self, front: impl Fn(FakeWallet) -> Arc<dyn Wallet> + Send + Sync + 'static) -> Self {
        self.front = Some(Arc::new(front));
        self
    }

    /// Zaps of this lightning address, which may be at loopback, count as payment.
    #[must_use]
    pub fn zaps(mut self, address: String) -> Self {
        self.zaps = Some(address);
        self
    }

    /// How the provider pays credit back; without this it does not.
    #[must_use]
    pub fn refunds(mut self, refunds: RefundPlan) -> Self {
        self.refunds = Some(refunds);
        self
    }

    /// The provider is paid into this instead of play money.
    #[must_use]
    pub fn paid_into(mut self, wallet: Arc<dyn Wallet>) -> Self {
        (self.own_wallet, self.wallet) = (Some(wallet), None);
        self
    }

    /// How long a run may take. What is held is held for as long as that asks for.
    #[must_use]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        (self.time_limit, self.offer.hold_for) = (limit, Offer::hold_for(limit));
        self
    }

    /// A provider that can't be paid.
    #[must_use]
    pub fn without_wallet(mut self) -> Self {
        self.wallet = None;
        self
    }

    /// Who may order, and how much at once.
    #[must_use]
    pub fn rules(mut self, change: impl FnOnce(&mut Rules)) -> Self {
        change(&mut self.settings.rules);
        self
    }

    /// Anything else about how the provider sells.
    #[must_use]
    pub fn settings(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// How the provider uses its relays. Their addresses are filled in.
    #[must_use]
    pub fn pool(mut self, change: impl FnOnce(&mut PoolConfig)) -> Self {
        change(&mut self.pool);
        self
    }

    /// How long finished jobs are kept.
    #[must_use]
    pub fn retention(mut self, retention: Duration) -> Self {
        self.retention = retention;
        self
    }

    /// The provider's clock.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Told of each step, besides [`TestMarket::moments`].
    #[must_use]
    pub fn witness(mut self, witness: Arc<dyn Witness>) -> Self {
        self.witness = Some(witness);
        self
    }

    /// The provider counts into these, and shows them over HTTP; see [`TestMarket::metrics_address`].
    #[must_use]
    pub fn metrics(mut self, metrics: Metrics) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// Opens it.
    pub async fn start(self) -> TestMarket {
        let mut relays = Vec::new();
        for _ in 0..self.relays {
            relays.push(TestRelay::start().await.expect("loopback has free ports"));
        }
        let network = FakeNetwork::in_memory();
        let wallet = self
            .wallet
            .map(|options| FakeWallet::open(&network, &[PROVIDER_WALLET; 32], options).expect("the key is a key"));
        let moments = Arc::new(Moments::new(self.witness.clone()));
        let mut market = TestMarket {
            folder: tempfile::tempdir().expect("temporary files can be made"),
            relays,
            network,
            wallet,
            signer: Signer::random(),
            how: self,
            moments,
            service: None,
            customers: AtomicU8::new(PROVIDER_WALLET + 1),
            shown_at: None,
        };
        market.start_again().await.expect("the service starts");
        market
    }

    /// What a provider in such a market is made of: for those who put it into a process of its own.
    pub fn plan(
        &self,
        signer: Signer,
        relays: Vec<String>,
        database: PathBuf,
        wallet: Option<Arc<dyn Wallet>>,
        witness: Arc<dyn Witness>,
    ) -> Plan {
        let backend = self.backend.clone().unwrap_or_else(|| Arc::new(Echo::new()));
        let read_limits = ReadLimits { allow_private_relays: true, ..ReadLimits::default() };
        let (codec, us) = (Codec::new(signer.clone(), read_limits), signer.provider_id());
        let (time_limit, fetcher, job_patience) = (self.time_limit, self.fetcher, self.job_patience);
        let front = self.executor.clone();
        let sold = self.sold.clone();
        let router = move |relays| {
            let sources = RelayInputs { relays, codec, us, fetcher, lookup: PATIENCE, job_patience };
            let text = TextExecutor::new(backend, Arc::new(sources), TextLimits::default(), time_limit);
            let text: Arc<dyn Executor> = Arc::new(text);
            let text = front.map_or(Arc::clone(&text), |front| front(text));
            let router = Router::new().with(JobKind::TextGeneration, text);
            sold.into_iter().fold(router, |router, (kind, executor, _)| router.with(kind, executor))
        };
        let mut settings = self.settings.clone();
        settings.offers.insert(JobKind::TextGeneration, self.offer);
        settings.offers.extend(self.sold.iter().map(|(kind, _, offer)| (*kind, *offer)));
        Plan {
            signer,
            read_limits,
            database: Some(database),
            relays: PoolConfig { relays, ..self.pool.clone() },
            inbox_room: crate::relays::DEFAULT_INBOX_ROOM,
            settings,
            retention: self.retention,
            wallet,
            desk: None,
            zaps: self.zaps.as_ref().map(|address| ZapAddress {
                address: address.parse().expect("a lightning address"),
                lnurl: LnurlClient::new(NETWORK, true),
            }),
            refunds: self.refunds,
            hold_key: Some(HoldKey::new([PROVIDER_WALLET; 32])),
            files: self.files.clone(),
            router: Box::new(router),
            ad: None,
            clock: self.clock.clone(),
            witness,
            metrics: Metrics::new(),
            metrics_at: None,
            background: Vec::new(),
        }
    }
}

impl TestMarket {
    /// A market with one relay and one provider, prepaid, 21 sat a job, echoing; change what matters, then
    /// [`MarketBuilder::start`].
    #[allow(clippy::new_ret_no_self)] // A story begins with the market; what is built is only how it differs.
    pub fn new() -> MarketBuilder {
        let plenty = Rate::per_minute(100_000, 10_000);
        MarketBuilder {
            relays: 1,
            offer: Offer {
                rates: Rates { base: Msat::sat(21), ..Rates::default() },
                terms: Terms::Prepay,
                free_per_day: 0,
                hold_for: Offer::hold_for(Duration::from_secs(60)),
            },
            settings: Settings {
                // News of the wallet must do; who tests its silence asks for less.
                payment_poll: Duration::from_secs(3_600),
                // Tells the wallet's faults apart by its calls; who tests the audit asks for it.
                audit_every: Duration::ZERO,
                partial_every: Duration::ZERO,
                ..Settings::default()
            },
            pool: PoolConfig {
                retry_interval: Duration::from_millis(50),
                allow_private: true,
                limits: IntakeLimits { per_author: plenty, overall: plenty, ..IntakeLimits::default() },
                ..PoolConfig::default()
            },
            retention: Duration::from_secs(90 * 24 * 3_600),
            wallet: Some(FakeWalletOptions::default()),
            front: None,
            zaps: None,
            refunds: None,
            own_wallet: None,
            time_limit: PATIENCE,
            backend: None,
            executor: None,
            sold: Vec::new(),
            files: None,
            fetcher: None,
            job_patience: PATIENCE,
            clock: Clock::system(),
            witness: None,
            metrics: None,
        }
    }

    /// A customer with money, on every relay.
    pub async fn customer(&self) -> Customer {
        self.customer_at(&self.relays.iter().map(TestRelay::url).collect::<Vec<_>>()).await
    }

    /// A customer with money, on these relays.
    pub async fn customer_at(&self, relays: &[String]) -> Customer {
        self.customer_as(Signer::random(), relays).await
    }

    /// A customer with this key.
    pub async fn customer_as(&self, signer: Signer, relays: &[String]) -> Customer {
        let key = self.customers.fetch_add(1, Ordering::Relaxed);
        let options = FakeWalletOptions { opening_balance: POCKET_MONEY, ..FakeWalletOptions::default() };
        let wallet = FakeWallet::open(&self.network, &[key; 32], options).expect("the key is a key");
        Customer::join(signer, relays, self.signer.provider_id(), wallet).await
    }

    /// The relays.
    pub fn relays(&self) -> &[TestRelay] {
        &self.relays
    }

    /// A relay.
    pub fn relay(&self, place: usize) -> &TestRelay {
        &self.relays[place]
    }

    /// The provider's wallet.
    pub fn wallet(&self) -> &FakeWallet {
        self.wallet.as_ref().expect("a market without a wallet has none to ask for")
    }

    /// The provider's key.
    pub fn provider(&self) -> &Signer {
        &self.signer
    }

    /// Where the provider shows its metrics.
    pub fn metrics_address(&self) -> SocketAddr {
        self.shown_at.expect("the market was made with metrics")
    }

    /// The service that runs.
    pub fn service(&self) -> &Service {
        self.service.as_ref().expect("it was not stopped")
    }

    /// The steps taken so far.
    pub fn moments(&self) -> &Moments {
        &self.moments
    }

    /// The database file.
    pub fn database(&self) -> PathBuf {
        self.folder.path().join("coinop.sqlite")
    }

    /// A job as it stands now.
    pub async fn stored(&self, job: JobId) -> Option<StoredJob> {
        self.service().provider().store().job(job).await.expect("the store answers")
    }

    /// A job as it stands now; it must be there.
    pub async fn job(&self, job: JobId) -> Job {
        self.stored(job).await.expect("the job is known").job
    }

    /// Stops the provider; runs get `grace`. Returns whether all of them finished.
    pub async fn stop(&mut self, grace: Duration) -> bool {
        let service = self.service.take().expect("it was not stopped");
        within("the service to stop", service.stop(grace)).await
    }

    /// Starts the provider again after [`TestMarket::stop`].
    ///
    /// # Errors
    /// As [`Service::start`].
    pub async fn start_again(&mut self) -> Result<(), StartError> {
        let relays = self.relays.iter().map(TestRelay::url).collect();
        let front = self.how.front.clone().unwrap_or_else(|| Arc::new(|wallet| Arc::new(wallet)));
        let play_money = self.wallet.clone().map(|wallet| front(wallet));
        let wallet = self.how.own_wallet.clone().or(play_money);
        let mut plan = self.how.plan(self.signer.clone(), relays, self.database(), wallet, self.moments.clone());
        if let Some(metrics) = &self.how.metrics {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
            self.shown_at = listener.local_addr().ok();
            (plan.metrics, plan.metrics_at) = (metrics.clone(), Some(listener));
        }
        self.service = Some(Service::start(plan).await?);
        Ok(())
    }

    /// Another handle on the same database, as another process has.
    pub fn second_store(&self) -> (Store, Closing) {
        Store::open(&self.database()).expect("the database opens")
    }

    /// Every answer of the provider to a request that any relay has, each once.
    pub async fn answers(&self, job: JobId) -> Vec<Event> {
        let provider = self.signer.keys().public_key();
        let about =
            Filter::new().author(provider).custom_tag(SingleLetterTag::lowercase(nostr::Alphabet::E), job.to_string());
        let mut answers: Vec<Event> = Vec::new();
        for relay in &self.relays {
            for event in relay.events(about.clone()).await {
                if !answers.contains(&event) {
                    answers.push(event);
                }
            }
        }
        answers
    }

    /// Closes the market in order, and checks what must hold after every story: nothing is left to be done, the books are
    /// right, no job has two results or two invoices, and no result is out that is not paid.
    pub async fn finish(mut self) -> Closed {
        if self.service.is_some() {
            assert!(self.stop(PATIENCE).await, "the runs did not finish");
        }
        let (store, closing) = self.second_store();
        let pending = store.pending().await.expect("the store answers");
        assert!(pending.is_empty(), "left in the outbox: {pending:?}");
        let wrong = store.check_books().await.expect("the store answers");
        assert!(wrong.is_empty(), "the books are wrong: {wrong:?}");
        for job in store.list_jobs(Default::default()).await.expect("the store answers") {
            self.check_answers(&job).await;
        }
        drop(store);
        tokio::task::spawn_blocking(move || closing.wait()).await.expect("the database closes");
        Closed { market: self }
    }

    async fn check_answers(&self, job: &Job) {
        let answers = self.answers(job.id).await;
        let result = Kind::from_u16(job.kind.result_kind());
        let results = answers.iter().filter(|event| event.kind == result).count();
        assert!(results <= 1, "job {} has {results} results", job.id);
        assert!(results == 0 || job.payment.allows_publishing(), "the result of job {} is out unpaid", job.id);
        let mut invoices: Vec<_> = answers.iter().filter_map(invoice_of).collect();
        invoices.dedup();
        assert!(invoices.len() <= 1, "job {} was asked to pay by {} invoices", job.id, invoices.len());
    }
}

/// A market after its end: what was said stays readable.
#[allow(missing_debug_implementations)] // Made of traits.
pub struct Closed {
    market: TestMarket,
}

impl Closed {
    /// Nothing was ever said about this request, and now nobody is left to say it.
    pub async fn was_silent_about(&self, job: JobId) {
        let answers = self.market.answers(job).await;
        assert!(answers.is_empty(), "expected silence about {job}, heard {answers:?}");
    }

    /// Everything that was said about a request.
    pub async fn answers(&self, job: JobId) -> Vec<Event> {
        self.market.answers(job).await
    }

    /// How many answers of a kind there were to a request.
    pub async fn answers_of_kind(&self, job: JobId, kind: u16) -> usize {
        self.market.answers(job).await.iter().filter(|event| event.kind == Kind::from_u16(kind)).count()
    }
}

/// The invoice of a `payment-required`.
fn invoice_of(event: &Event) -> Option<String> {
    (event.kind == Kind::from_u16(kinds::FEEDBACK)).then_some(())?;
    let amount = event.tags.iter().map(nostr::Tag::as_slice).find(|words| words.first().is_some_and(|w| w == "amount"));
    amount.and_then(|words| words.get(2)).cloned()
}
