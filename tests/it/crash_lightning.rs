//! The provider is killed (SIGKILL) between any two steps of a held job, its Lightning node with it, and started again.
//!
//! As in `crash`, it runs in a process of its own. Here its wallet is an embedded node in that process; the customer's node,
//! the chain and the relay live in the parent. Money is real: what moved is asked of both nodes.
//!
//! LDK writes a channel's monitor down before the rest of its state. Killed in between (some milliseconds around each
//! payment), it closes the channel at the next start, because it can't know what it told the peer. No money is lost by that:
//! here it comes home over the chain. So stories end with an open channel or a closed one, and the right money either way. A
//! channel that closes before the payment was held leaves the customer without a way to pay: the job is cancelled.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use coinop::daemon::service::Service;
use coinop::identity::Signer;
use coinop::inference::echo::Echo;
use coinop::job::{JobId, Terms, WorkState};
use coinop::ledger::Reason;
use coinop::money::Msat;
use coinop::nip90::{AnswerBody, SignedEvent, Status};
use coinop::store::Store;
use coinop::testing::market::{Customer, PATIENCE, TestMarket, within};
use coinop::testing::regtest::{ChainAccess, Regtest, RegtestNode, own_node};
use coinop::testing::relay::TestRelay;
use coinop::wallet::fake::{FakeNetwork, FakeWallet, FakeWalletOptions};
use coinop::wallet::ldk::LdkWallet;
use coinop::wallet::node::NodeAddress;
use coinop::wallet::{Node as _, Payer, Wallet, WalletError};
use futures::StreamExt;
use jiff::Timestamp;
use nostr::Keys;
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::crash::{Freeze, MARK, MOST_STEPS, ORDERS, Running, check_relay};
use crate::lightning::{CUSTOMER, TILL, listening, node, open_channel, spendable};
use crate::on_chain::{BURIED, Kept, LONGEST_HOLD, SELF_DELAY, network};

/// Worth being claimed on the chain, and more than all that costs; a tenth of the channel is the most there may be under way.
const PRICE: Msat = Msat::sat(60_000);

/// More than all the transactions of a closing cost at the fees of this chain.
const CLOSING_COSTS: Msat = Msat::sat(20_000);

/// Blocks after which everything of a closed channel is home.
const LONGEST_CLOSING: u32 = SELF_DELAY + LONGEST_HOLD;

/// Stories at once: each is two nodes, and a process that mostly waits.
const AT_ONCE: usize = 3;

/// Between two looks at what nobody tells.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// This test's name, for [`Running::start_child`].
const CHILD: &str = "crash_lightning::child";

/// What the child is to be.
#[derive(Clone, Serialize, Deserialize)]
struct Orders {
    relay: String,
    esplora: String,
    node: PathBuf,
    listen: String,
    key: String,
    database: PathBuf,
    /// Whether the work succeeds.
    works: bool,
    /// The step to freeze at.
    freeze_at: Option<usize>,
}

/// Not a test: the provider's process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "is started by the stories here"]
async fn child() {
    let Ok(orders) = std::env::var(ORDERS) else { return };
    let orders: Orders = serde_json::from_str(&orders).unwrap();
    let mut stop = signal(SignalKind::terminate()).unwrap();
    let mut config = own_node(&ChainAccess::Esplora { url: orders.esplora }, &orders.node);
    config.listen = vec![orders.listen];
    let till = node(config, &TILL).await;
    println!("{MARK}node");
    let echo = Echo::new();
    if !orders.works {
        echo.fail(u32::MAX);
    }
    let plan = TestMarket::new().price(PRICE).terms(Terms::Hold).backend(echo).plan(
        Signer::new(Keys::parse(&orders.key).unwrap()),
        vec![orders.relay],
        orders.database,
        Some(till.clone()),
        Freeze::at(orders.freeze_at),
    );
    let service = Service::start(plan).await.unwrap();
    println!("{MARK}ready");
    stop.recv().await;
    assert!(service.stop(PATIENCE).await);
    till.shut_down().await;
    println!("{MARK}stopped");
}

/// The customer's node looks for the provider's until they are connected: a node tells nobody that it is back. `false` when
/// they have no channel any more.
async fn meet(purse: &LdkWallet, till: &NodeAddress) -> bool {
    while purse.usable_channels(&till.node).await == 0 {
        if purse.channels().await.unwrap().is_empty() {
            return false;
        }
        // Refused while it starts, or is frozen in the middle of it.
        let _ = purse.connect(till).await;
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    true
}

/// Pays, as often as it takes: what fails for certain while the provider is away is tried again, until the job is over or the
/// channel gone.
async fn pay(purse: Arc<LdkWallet>, till: NodeAddress, bolt11: String, over: watch::Receiver<bool>) {
    while !*over.borrow() {
        match purse.pay(&bolt11, Msat::ZERO).await {
            Ok(_) => return,
            Err(WalletError::PaymentFailed(_) | WalletError::InsufficientFunds | WalletError::Unreachable(_)) => {
                tokio::time::sleep(LOOK_AGAIN).await;
                let mut ended = over.clone();
                tokio::select! {
                    met = meet(&purse, &till) => if !met { return },
                    _ = ended.wait_for(|over| *over) => {}
                }
            }
            Err(other) => panic!("the payment ends in {other}"),
        }
    }
}

/// What came of an order.
struct Bought {
    /// Whether there was a result.
    delivered: bool,
    /// Ends when the customer's node knows what became of its payment.
    paying: Option<JoinHandle<()>>,
}

/// Orders, begins to pay what is asked, and waits for the end.
async fn buy(customer: &Customer, order: &SignedEvent, purse: Arc<LdkWallet>, till: NodeAddress) -> Bought {
    let mut posted = customer.publish(order).await;
    let (over, ended) = watch::channel(false);
    let mut paying: Option<(String, JoinHandle<()>)> = None;
    let delivered = loop {
        match posted.next().await.body {
            AnswerBody::Result(result) => {
                assert_eq!(result.content, "for real money");
                break true;
            }
            AnswerBody::Feedback(feedback) => match feedback.status {
                Status::PaymentRequired => {
                    let bolt11 = feedback.amount.unwrap().bolt11.unwrap();
                    let (first, _) = paying.get_or_insert_with(|| {
                        let paying = pay(purse.clone(), till.clone(), bolt11.clone(), ended.clone());
                        (bolt11.clone(), tokio::spawn(paying))
                    });
                    assert_eq!(*first, bolt11, "a second invoice for the same job");
                }
                Status::Error => break false,
                _ => {}
            },
        }
    };
    over.send_replace(true);
    Bought { delivered, paying: paying.map(|(_, paying)| paying) }
}

/// One story: a customer orders a held job, with the provider killed at step `n`, and again soon after it came back. Returns
/// where it was killed; `None` when it never got to that step.
async fn story(works: bool, n: usize) -> Option<String> {
    let regtest = network(Kept::Here).await.unwrap();
    let relay = TestRelay::start().await.unwrap();
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let config = listening(own_node(&regtest.access(), &folders[0].path().join("node")));
    let purse = node(own_node(&regtest.access(), &folders[1].path().join("node")), &CUSTOMER).await;
    let till = node(config.clone(), &TILL).await;
    open_channel(&regtest, &till, &purse).await;
    let address = RegtestNode::address(&*till);
    let funds_before = funds(&purse, &till).await;
    let wealth_before = (wealth(&purse).await, wealth(&till).await);
    till.shut_down().await;
    drop(till);

    let provider = Signer::random();
    let orders = Orders {
        relay: relay.url(),
        esplora: regtest.url(),
        node: config.folder.clone(),
        listen: config.listen[0].clone(),
        key: provider.keys().secret_key().to_secret_hex(),
        database: folders[0].path().join("coinop.sqlite"),
        works,
        freeze_at: Some(n),
    };
    let play_money = FakeWallet::open(&FakeNetwork::in_memory(), &[2; 32], FakeWalletOptions::default()).unwrap();
    let customer = Customer::join(Signer::random(), &[relay.url()], provider.provider_id(), play_money).await;
    let order = customer.sign(&customer.order("for real money"));
    let job = JobId(order.id.0);
    let shopping = buy(&customer, &order, purse.clone(), address.clone());
    tokio::pin!(shopping);

    let mut running = Running::start_child(CHILD, &orders);
    // The second death comes while the first is being recovered from, a little later each time.
    let mut deaths =
        vec![Orders { freeze_at: None, ..orders.clone() }, Orders { freeze_at: Some(1 + n % 4), ..orders.clone() }];
    let (mut froze, mut gave_up) = (None, false);
    let Bought { delivered, paying } = loop {
        tokio::select! {
            bought = &mut shopping => break bought,
            line = running.says() => {
                if line == "node" && !within("the nodes to meet", meet(&purse, &address)).await && !gave_up {
                    // Without a channel nobody knows when a payment under way ends; the customer does not wait for it.
                    gave_up = true;
                    customer.cancel(job).await;
                }
                if line.starts_with("step") {
                    froze.get_or_insert(line);
                    running.kill();
                    running = Running::start_child(CHILD, &deaths.pop().unwrap());
                }
            }
        }
    };
    if !running.ends().await {
        froze.get_or_insert_with(|| "the end".to_owned());
        running.kill();
        running = Running::start_child(CHILD, &Orders { freeze_at: None, ..orders.clone() });
        assert!(running.ends().await);
    }

    assert!(delivered == works || gave_up && !delivered);
    let charged = if delivered { PRICE } else { Msat::ZERO };
    check_books(&orders, job, charged, gave_up).await;
    if delivered {
        check_relay(&relay, job).await;
    }
    let till = node(config, &TILL).await;
    let ending = Ending { regtest: &regtest, purse: &purse, till: &till, charged };
    let alive = ending.check(funds_before, wealth_before).await;
    if let Some(paying) = paying {
        within("the payment's end", paying).await.unwrap();
    }
    till.shut_down().await;
    purse.shut_down().await;
    froze.map(|step| if alive { step } else { format!("{step}; the node closed the channel") })
}

/// What the provider has written down.
async fn check_books(orders: &Orders, job: JobId, charged: Msat, gave_up: bool) {
    let (store, closing) = Store::open(&orders.database).unwrap();
    assert_eq!(store.check_books().await.unwrap(), Vec::<String>::new());
    assert_eq!(store.pending().await.unwrap(), vec![]);
    let jobs = store.list_jobs(Default::default()).await.unwrap();
    assert_eq!(jobs.iter().map(|job| job.id).collect::<Vec<_>>(), [job]);
    let ended = match jobs[0].work {
        WorkState::Delivered => !charged.is_zero(),
        WorkState::Failed => charged.is_zero(),
        WorkState::Cancelled => charged.is_zero() && gave_up,
        _ => false,
    };
    assert!(ended, "it ended {:?}, and {charged} should have been charged", jobs[0].work);
    assert_eq!(jobs[0].paid, charged);
    let entries = store.ledger(None, Some(job)).await.unwrap();
    let booked: BTreeMap<i64, Reason> = entries.iter().map(|line| (line.entry, line.reason)).collect();
    let reasons: Vec<Reason> = booked.into_values().collect();
    let expected: &[Reason] = if charged.is_zero() { &[] } else { &[Reason::Payment, Reason::Earned] };
    assert_eq!(reasons, expected);
    drop(store);
    tokio::task::spawn_blocking(move || closing.wait()).await.unwrap();
}

/// What a node has, on the chain and in channels.
async fn wealth(node: &LdkWallet) -> Msat {
    let status = node.status().await.unwrap();
    status.on_chain_total.saturating_add(status.in_channels)
}

/// What both can pay over their channel, the customer first.
async fn funds(purse: &LdkWallet, till: &LdkWallet) -> (Msat, Msat) {
    (spendable(purse).await, spendable(till).await)
}

/// What both nodes say when all is over.
struct Ending<'a> {
    regtest: &'a Regtest,
    purse: &'a LdkWallet,
    till: &'a LdkWallet,
    charged: Msat,
}

impl Ending<'_> {
    /// Paid once or not at all, whatever became of the channel. Returns whether it is still there.
    async fn check(&self, funds_before: (Msat, Msat), wealth_before: (Msat, Msat)) -> bool {
        let received = self.till.history().unwrap().received(Timestamp::UNIX_EPOCH).await.unwrap();
        assert_eq!(received.iter().map(|one| one.amount).sum::<Msat>(), self.charged);
        assert_eq!(received.len(), usize::from(!self.charged.is_zero()), "paid more than once");
        let alive = self.meet_again().await;
        if alive {
            let after = self.moved(funds_before);
            let settled = async {
                while funds(self.purse, self.till).await != after {
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
            };
            within(&format!("{} to have moved", self.charged), settled).await;
        } else {
            self.come_home().await;
            let after = self.moved(wealth_before);
            let is_about = |found: Msat, expected: Msat| {
                (expected.checked_sub(CLOSING_COSTS).unwrap()..=expected).contains(&found)
            };
            // What is swept at last is broadcast when its node gets to it, which may be after the block it was swept in.
            let mut blocks = 0;
            loop {
                let found = (wealth(self.purse).await, wealth(self.till).await);
                if is_about(found.0, after.0) && is_about(found.1, after.1) {
                    break;
                }
                assert!(
                    blocks < LONGEST_CLOSING,
                    "{} and {} are not about {} and {}",
                    found.0,
                    found.1,
                    after.0,
                    after.1
                );
                self.regtest.mine(1, &[self.purse, self.till]).await;
                blocks += 1;
            }
        }
        alive
    }

    fn moved(&self, (purse, till): (Msat, Msat)) -> (Msat, Msat) {
        (purse.checked_sub(self.charged).unwrap(), till.saturating_add(self.charged))
    }

    /// Connects the nodes. `false` when they have no channel any more.
    async fn meet_again(&self) -> bool {
        let address = RegtestNode::address(self.till);
        let met = async { meet(self.purse, &address).await && !self.till.channels().await.unwrap().is_empty() };
        within("the nodes to meet", met).await
    }

    /// Mines until the money of the closed channel is where it belongs.
    async fn come_home(&self) {
        let home = async |node: &LdkWallet| node.status().await.unwrap().in_channels.is_zero();
        let mut blocks = 0;
        while !(home(self.purse).await && home(self.till).await) {
            assert!(blocks < LONGEST_CLOSING, "the closing never ends");
            self.regtest.mine(1, &[self.purse, self.till]).await;
            blocks += 1;
        }
        // What is swept at last has to be mined, too.
        for _ in 0..BURIED {
            self.regtest.mine(1, &[self.purse, self.till]).await;
        }
    }
}

/// Every step of a story in turn, until there are no more. Stories that have begun are told to their end: nodes are to be
/// shut down in order.
async fn survives_every_step(works: bool, at_least: usize) {
    let over = AtomicBool::new(false);
    let tell = async |n| if over.load(Ordering::SeqCst) { None } else { story(works, n).await };
    let mut stories =
        futures::stream::iter(1..=MOST_STEPS).map(|n| async move { (n, tell(n).await) }).buffered(AT_ONCE);
    let mut steps = 0;
    while let Some((n, told)) = stories.next().await {
        match told {
            Some(step) => {
                eprintln!("killed at {n}: {step}");
                steps = n;
            }
            None => over.store(true, Ordering::SeqCst),
        }
    }
    assert!(steps >= at_least, "only {steps} steps were found to be killed at");
    assert!(steps < MOST_STEPS, "there is no end of steps");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_job_survives_a_kill_at_every_step_with_real_nodes() {
    survives_every_step(true, 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_job_that_fails_survives_a_kill_at_every_step_with_real_nodes() {
    survives_every_step(false, 8).await;
}
