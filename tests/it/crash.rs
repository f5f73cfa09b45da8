//! The provider is killed (SIGKILL) between any two of its steps, and started again.
//!
//! It runs in a process of its own: this very test binary, asked for its [`child`] alone. A witness in there counts the
//! steps; at the n-th it says so and nothing more is done, until the parent kills it. The relay, the customer and the
//! wallet (behind Nostr Wallet Connect) live in the parent and see what the world sees.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use coinop::daemon::service::Service;
use coinop::identity::Signer;
use coinop::job::{JobId, Terms, WorkState};
use coinop::ledger::Reason;
use coinop::money::Msat;
use coinop::nip90::{AnswerBody, Order, Status};
use coinop::provider::{Moment, Witness};
use coinop::store::Store;
use coinop::testing::market::{Customer, PATIENCE, POCKET_MONEY, TestMarket, within};
use coinop::testing::nwc_service::{NwcService, NwcServiceOptions};
use coinop::testing::relay::TestRelay;
use coinop::wallet::Payer;
use coinop::wallet::fake::{FakeNetwork, FakeWallet, FakeWalletOptions};
use coinop::wallet::nwc::{NwcOptions, NwcUri, NwcWallet};
use futures::StreamExt;
use nostr::{Filter, Keys, Kind};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Where a child finds its orders, as JSON.
pub const ORDERS: &str = "COINOP_CRASH_CHILD";

/// What stands before the lines meant for the parent: the test harness writes to the same place.
pub const MARK: &str = "@@ ";

/// More steps than any story has: the end of the search if it does not end by itself.
pub const MOST_STEPS: usize = 200;

/// Stories at once: each is a process that mostly waits.
const AT_ONCE: usize = 3;

/// Customers who shop at once.
const CROWD: u8 = 12;

const PRICE: Msat = Msat::sat(21);

/// What the child is to be.
#[derive(Clone, Serialize, Deserialize)]
struct Orders {
    relay: String,
    wallet: String,
    key: String,
    database: PathBuf,
    terms: Terms,
    /// The step to freeze at.
    freeze_at: Option<usize>,
}

/// Counts steps, and freezes the provider at one of them: whoever comes later freezes too.
pub struct Freeze {
    at: Option<usize>,
    steps: AtomicUsize,
}

impl Freeze {
    pub fn at(step: Option<usize>) -> Arc<Self> {
        Arc::new(Self { at: step, steps: AtomicUsize::new(0) })
    }
}

#[async_trait]
impl Witness for Freeze {
    async fn at(&self, moment: Moment, _: JobId) {
        let step = self.steps.fetch_add(1, Ordering::SeqCst) + 1;
        let Some(at) = self.at else { return };
        if step == at {
            println!("{MARK}step {step} {moment}");
        }
        if step >= at {
            std::future::pending::<()>().await;
        }
    }
}

/// Not a test: the provider's process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "is started by the stories here"]
async fn child() {
    let Ok(orders) = std::env::var(ORDERS) else { return };
    let orders: Orders = serde_json::from_str(&orders).unwrap();
    let mut stop = signal(SignalKind::terminate()).unwrap();
    let uri: NwcUri = orders.wallet.parse().unwrap();
    let wallet = NwcWallet::connect(&uri, NwcOptions::default()).await.unwrap();
    let plan = TestMarket::new().price(PRICE).terms(orders.terms).free_per_day(1).plan(
        Signer::new(Keys::parse(&orders.key).unwrap()),
        vec![orders.relay],
        orders.database,
        Some(Arc::new(wallet)),
        Freeze::at(orders.freeze_at),
    );
    let service = Service::start(plan).await.unwrap();
    println!("{MARK}ready");
    stop.recv().await;
    assert!(service.stop(PATIENCE).await);
    println!("{MARK}stopped");
}

/// A provider's process, and what it says.
pub struct Running {
    process: Child,
    lines: mpsc::UnboundedReceiver<String>,
    /// It serves, and can be asked to end.
    ready: bool,
}

/// A story that goes wrong leaves no process behind.
impl Drop for Running {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Running {
    fn start(orders: &Orders) -> Self {
        Self::start_child("crash::child", orders)
    }

    /// Starts the test of this name alone, with these orders.
    pub fn start_child(name: &str, orders: &impl Serialize) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--ignored", "--nocapture"])
            .env(ORDERS, serde_json::to_string(orders).unwrap())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (say, lines) = mpsc::unbounded_channel();
        let output = BufReader::new(process.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some((_, told)) = line.split_once(MARK) {
                    let _ = say.send(told.to_owned());
                }
            }
        });
        Self { process, lines, ready: false }
    }

    /// SIGKILL: it has no say in it.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Waits until it freezes. Never returns when it does not. May be cancelled and called again.
    async fn freezes(&mut self) -> String {
        loop {
            let line = self.says().await;
            if line.starts_with("step") {
                return line;
            }
        }
    }

    /// The next thing it says. Never returns when it says nothing more. May be cancelled and called again.
    pub async fn says(&mut self) -> String {
        let Some(line) = self.lines.recv().await else { std::future::pending().await };
        self.ready |= line == "ready";
        line
    }

    /// Asks it to end, once it is there to hear; false when it froze on the way.
    pub async fn ends(&mut self) -> bool {
        let mut asked = false;
        loop {
            if self.ready && !asked {
                let pid = self.process.id().to_string();
                assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
                asked = true;
            }
            match within("a word of the provider's process", self.lines.recv()).await.as_deref() {
                Some("ready") => self.ready = true,
                Some("stopped") => {
                    assert!(self.process.wait().unwrap().success());
                    return true;
                }
                Some(line) if line.starts_with("step") => return false,
                Some(_) => {}
                None => panic!("the provider's process ended badly"),
            }
        }
    }
}

/// What the customer saw of a job.
#[derive(Clone)]
struct Bought {
    job: JobId,
    paid: bool,
}

/// Orders, pays what is asked once, and waits for the result. A second invoice for the same job is what must never come.
async fn buy(customer: &Customer, order: &Order) -> Bought {
    let mut posted = customer.post(order).await;
    let mut invoice = None;
    let mut held = None;
    loop {
        match posted.next().await.body {
            AnswerBody::Result(result) => {
                assert_eq!(result.content, order.inputs[0].data);
                if let Some(paying) = held {
                    let paying: tokio::task::JoinHandle<_> = paying;
                    within("the payment's end", paying).await.unwrap();
                }
                return Bought { job: posted.job, paid: invoice.is_some() };
            }
            AnswerBody::Feedback(feedback) if feedback.status == Status::PaymentRequired => {
                let bolt11 = feedback.amount.unwrap().bolt11.unwrap();
                match &invoice {
                    Some(first) => assert_eq!(first, &bolt11, "a second invoice for the same job"),
                    None => {
                        let (wallet, text) = (customer.wallet.clone(), bolt11.clone());
                        // A hold is paid only once the work is done.
                        held =
                            Some(tokio::spawn(async move { wallet.pay(&text, Msat::ZERO).await.map(|_| ()).unwrap() }));
                        invoice = Some(bolt11);
                    }
                }
            }
            AnswerBody::Feedback(feedback) => {
                assert_ne!(feedback.status, Status::Error, "refused: {:?}", feedback.text);
            }
        }
    }
}

/// One story: each customer buys a free job and a paid one, with the provider killed at step `n`, and again soon after it
/// came back. Returns where it was killed; `None` when it never got to that step.
async fn story(terms: Terms, n: usize, customers: u8) -> Option<String> {
    let relay = TestRelay::start().await.unwrap();
    let network = FakeNetwork::in_memory();
    let wallet = FakeWallet::open(&network, &[1; 32], FakeWalletOptions::default()).unwrap();
    let service = NwcService::start(&[relay.url()], wallet.clone(), NwcServiceOptions::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let provider = Signer::random();
    let orders = Orders {
        relay: relay.url(),
        wallet: service.uri().to_owned(),
        key: provider.keys().secret_key().to_secret_hex(),
        database: folder.path().join("coinop.sqlite"),
        terms,
        freeze_at: Some(n),
    };
    let shopping = futures::future::join_all((0..customers).map(|number| {
        let purse = FakeWalletOptions { opening_balance: POCKET_MONEY, ..FakeWalletOptions::default() };
        let purse = FakeWallet::open(&network, &[2 + number; 32], purse).unwrap();
        let (relay, provider) = (relay.url(), provider.provider_id());
        async move {
            let customer = Customer::join(Signer::random(), &[relay], provider, purse).await;
            let free = buy(&customer, &customer.order("for nothing")).await;
            assert!(!free.paid);
            let paid = buy(&customer, &customer.order("for money")).await;
            assert!(paid.paid);
            [free, paid]
        }
    }));

    let mut running = Running::start(&orders);
    // The second death comes while the first is being recovered from, a little later each time.
    let mut deaths =
        vec![Orders { freeze_at: None, ..orders.clone() }, Orders { freeze_at: Some(1 + n % 4), ..orders.clone() }];
    let mut froze = None;
    tokio::pin!(shopping);
    let bought = loop {
        tokio::select! {
            bought = &mut shopping => break bought,
            step = running.freezes() => {
                froze.get_or_insert(step);
                running.kill();
                running = Running::start(&deaths.pop().unwrap());
            }
        }
    };
    if !running.ends().await {
        froze.get_or_insert_with(|| "the end".to_owned());
        running.kill();
        running = Running::start(&Orders { freeze_at: None, ..orders.clone() });
        assert!(running.ends().await);
    }

    let bought = bought.concat();
    let charged = Msat::msat(21_000 * u32::from(customers));
    assert_eq!(wallet.funds().unwrap(), charged, "each charged once");
    check_books(&orders, &bought).await;
    for one in &bought {
        check_relay(&relay, one.job).await;
    }
    service.shutdown().await;
    froze
}

/// What the provider has written down.
async fn check_books(orders: &Orders, bought: &[Bought]) {
    let (store, closing) = Store::open(&orders.database).unwrap();
    assert_eq!(store.check_books().await.unwrap(), Vec::<String>::new());
    assert_eq!(store.pending().await.unwrap(), vec![]);
    let jobs = store.list_jobs(Default::default()).await.unwrap();
    assert_eq!(jobs.len(), bought.len());
    for one in bought {
        let job = jobs.iter().find(|job| job.id == one.job).unwrap();
        assert_eq!(job.work, WorkState::Delivered);
        let price = if one.paid { PRICE } else { Msat::ZERO };
        assert_eq!((job.paid, job.cost), (price, Some(price)));
        let entries = store.ledger(None, Some(job.id)).await.unwrap();
        for reason in Reason::ALL {
            let booked: BTreeSet<i64> =
                entries.iter().filter(|line| line.reason == reason).map(|line| line.entry).collect();
            let expected = usize::from(one.paid && matches!(reason, Reason::Payment | Reason::Earned));
            assert_eq!(booked.len(), expected, "{reason} of a job that was {}", if one.paid { "paid" } else { "free" });
        }
    }
    drop(store);
    closing.wait();
}

/// What the world has seen.
pub async fn check_relay(relay: &TestRelay, job: JobId) {
    let about = Filter::new().custom_tag(nostr::SingleLetterTag::lowercase(nostr::Alphabet::E), job.to_string());
    let said = relay.events(about).await;
    assert_eq!(said.iter().filter(|event| event.kind == Kind::from_u16(6050)).count(), 1, "results of a job");
    let invoices: BTreeSet<&str> = said
        .iter()
        .flat_map(|event| event.tags.iter())
        .map(|tag| tag.as_slice())
        .filter(|words| words[0] == "amount")
        .filter_map(|words| words.get(2).map(String::as_str))
        .collect();
    assert!(invoices.len() <= 1, "a job was asked to pay by several invoices");
}

/// Every step of a story in turn, until there are no more.
async fn survives_every_step(terms: Terms, at_least: usize) {
    let mut stories =
        futures::stream::iter(1..=MOST_STEPS).map(|n| async move { (n, story(terms, n, 1).await) }).buffered(AT_ONCE);
    let mut steps = 0;
    while let Some((n, Some(step))) = stories.next().await {
        eprintln!("killed at {n}: {step}");
        steps = n;
    }
    assert!(steps >= at_least, "only {steps} steps were found to be killed at");
    assert!(steps < MOST_STEPS, "there is no end of steps");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_survives_kills_in_the_middle() {
    for n in [1, 13, 60, 110] {
        let killed = story(Terms::Prepay, n, CROWD).await;
        eprintln!("killed a crowd at {n}: {killed:?}");
        assert!(killed.is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn free_and_prepaid_jobs_survive_a_kill_at_every_step() {
    survives_every_step(Terms::Prepay, 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn free_and_postpaid_jobs_survive_a_kill_at_every_step() {
    survives_every_step(Terms::Postpay, 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn free_and_held_jobs_survive_a_kill_at_every_step() {
    survives_every_step(Terms::Hold, 20).await;
}
