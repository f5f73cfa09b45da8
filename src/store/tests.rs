//! The money rules over the real database, under random interleavings of several jobs and customers.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::executor::Prepared;
use crate::job::event::Invoice;
use crate::job::id::{EventId, PaymentHash};
use crate::job::{
    Canceller, CustomerId, Effect, EffectKey, Estimate, Failure, FinishReason, Job, JobEvent, JobId, JobKind,
    JobRequest, Notice, Outcome, Params, PaymentState, QuoteDraft, Rates, Terms, Usage, WorkState,
};
use crate::ledger::Account;
use crate::money::{Msat, MsatDelta};
use crate::nip90::SignedEvent;

const START: Timestamp = Timestamp::UNIX_EPOCH;

fn at(seconds: u32) -> Timestamp {
    START + SignedDuration::from_secs(i64::from(seconds))
}

fn request(job: u8, customer: u8) -> JobRequest {
    JobRequest {
        id: JobId([job; 32]),
        customer: CustomerId([customer; 32]),
        kind: JobKind::TextGeneration,
        created_at: START,
        expires_at: Some(at(1_000)),
        inputs: vec![],
        params: Params::default(),
        output: None,
        bid: None,
        addressed: true,
        relays: vec![],
        encryption: None,
        event_json: "{}".into(),
    }
}

fn prepared() -> Prepared {
    Prepared { estimate: estimate(), stream: false, work: serde_json::Value::Null }
}

fn estimate() -> Estimate {
    Estimate { prompt_tokens: 10, max_generated_tokens: 10 }
}

fn draft(terms: Terms) -> QuoteDraft {
    QuoteDraft {
        rates: Rates { base: Msat::sat(1), per_1k_prompt: Msat::sat(1_000), per_1k_generated: Msat::sat(1_000) },
        estimate: estimate(),
        terms,
        on_the_house: false,
        free_per_day: 0,
        whole_sats: false,
        payment_window: SignedDuration::from_secs(60),
    }
}

fn outcome(generated: u32) -> Outcome {
    Outcome {
        content: "text".into(),
        usage: Usage { prompt_tokens: 10, generated_tokens: generated },
        finish: FinishReason::Stop,
        model: None,
        parameters: None,
        duration: Duration::ZERO,
    }
}

fn work(generated: u32) -> FinishedWork {
    FinishedWork {
        outcome: outcome(generated),
        sign: Box::new(|job, _, _| Ok(SignedEvent { id: EventId(job.id.0), kind: 6050, json: "{}".into() })),
    }
}

fn invoice(job: u8, amount: Msat) -> Invoice {
    Invoice { bolt11: "lnbcrt".into(), payment_hash: PaymentHash([job; 32]), amount, expires_at: at(60) }
}

/// Something that happens to one of the jobs.
#[derive(Debug, Clone)]
enum Act {
    Open(Terms),
    Pay(i8),
    Hold,
    Release,
    Lapse,
    Finish(u32),
    Fail,
    Cancel,
    Published,
    Undeliverable,
    Wait,
}

fn acts() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => prop_oneof![Just(Terms::Prepay), Just(Terms::Postpay), Just(Terms::Hold), Just(Terms::Free)].prop_map(Act::Open),
        6 => (-1i8..=1).prop_map(Act::Pay),
        2 => Just(Act::Hold),
        1 => Just(Act::Release),
        1 => Just(Act::Lapse),
        4 => (0u32..=10).prop_map(Act::Finish),
        1 => Just(Act::Fail),
        1 => Just(Act::Cancel),
        2 => Just(Act::Published),
        1 => Just(Act::Undeliverable),
        1 => Just(Act::Wait),
    ]
}

/// A wallet, relays and clock that do what the acts say, as far as that can happen.
struct World {
    store: Store,
    now: u32,
    paid: Msat,
    published: Vec<JobId>,
}

impl World {
    async fn job(&self, job: u8) -> Option<Job> {
        self.store.job(JobId([job; 32])).await.unwrap().map(|stored| stored.job)
    }

    async fn tell(&mut self, job: u8, event: JobEvent) -> Vec<Effect> {
        match self.store.advance(JobId([job; 32]), event, at(self.now)).await {
            Ok(advanced) => self.follow(job, advanced).await,
            Err(StoreError::Illegal { .. } | StoreError::NoSuchJob(_)) => vec![],
            Err(other) => panic!("{other}"),
        }
    }

    async fn follow(&mut self, job: u8, advanced: Advanced) -> Vec<Effect> {
        for effect in &advanced.effects {
            match effect {
                Effect::IssueInvoice { amount } => {
                    Box::pin(self.tell(job, JobEvent::InvoiceIssued(invoice(job, *amount)))).await;
                }
                Effect::Publish(Notice::Result) => {
                    assert!(advanced.job.payment.allows_publishing());
                    assert!(!self.published.contains(&advanced.job.id), "published twice");
                    self.published.push(advanced.job.id);
                }
                _ => {}
            }
        }
        advanced.effects
    }

    async fn act(&mut self, job: u8, act: &Act) {
        match act {
            Act::Open(terms) => {
                let opened = self.store.open_job(request(job, job % 3), prepared(), draft(*terms), at(self.now)).await;
                if let Opened::New(transition) = opened.unwrap() {
                    let advanced = Advanced { job: transition.job, effects: transition.effects, changed: true };
                    self.follow(job, advanced).await;
                }
            }
            Act::Pay(delta) => {
                let Some(Job { invoice: Some(invoice), payment, .. }) = self.job(job).await else { return };
                // A BOLT 11 invoice is paid once at most.
                if payment == PaymentState::Settled || payment == PaymentState::Released {
                    return;
                }
                let amount = match delta {
                    1 => invoice.amount.saturating_add(Msat::sat(1)),
                    -1 => invoice.amount.saturating_sub(Msat::msat(1)),
                    _ => invoice.amount,
                };
                self.paid = self.paid.saturating_add(amount);
                self.tell(job, JobEvent::PaymentSettled { amount }).await;
                self.tell(job, JobEvent::PaymentSettled { amount }).await;
            }
            Act::Hold => {
                if let Some(Job { invoice: Some(invoice), .. }) = self.job(job).await {
                    self.tell(job, JobEvent::PaymentHeld { amount: invoice.amount }).await;
                }
            }
            Act::Release => {
                self.tell(job, JobEvent::HoldReleased).await;
            }
            Act::Lapse => {
                self.tell(job, JobEvent::Lapsed).await;
            }
            Act::Finish(generated) => {
                if self.job(job).await.is_some_and(|job| job.work == WorkState::Running) {
                    let done = self.store.finish(JobId([job; 32]), work(*generated), at(self.now)).await.unwrap();
                    self.follow(job, done).await;
                }
            }
            Act::Fail => {
                self.tell(job, JobEvent::RunFailed(Failure::backend("x"))).await;
            }
            Act::Cancel => {
                self.tell(job, JobEvent::Cancelled(Canceller::Customer)).await;
            }
            Act::Published => {
                if self.published.contains(&JobId([job; 32])) {
                    self.tell(job, JobEvent::ResultPublished).await;
                }
            }
            Act::Undeliverable => {
                if self.published.contains(&JobId([job; 32])) {
                    self.tell(job, JobEvent::ResultUndeliverable).await;
                }
            }
            Act::Wait => self.now += 200,
        }
    }
}

async fn live_through(story: Vec<(u8, Act)>) {
    let (store, _closing) = Store::in_memory().unwrap();
    let mut world = World { store, now: 0, paid: Msat::ZERO, published: vec![] };
    for (job, act) in story {
        world.act(job, &act).await;
    }
    assert_eq!(world.store.check_books().await.unwrap(), Vec::<String>::new());
    let balances = world.store.balances().await.unwrap();
    let wallet = balances.iter().find(|line| line.account == Account::Wallet);
    assert_eq!(wallet.map_or(MsatDelta::ZERO, |line| line.balance), MsatDelta::plus(world.paid));
    let sum = balances.iter().try_fold(MsatDelta::ZERO, |sum, line| sum.checked_add(line.balance));
    assert_eq!(sum, Some(MsatDelta::ZERO), "what came in is credit, income or in escrow");
    for pending in world.store.pending().await.unwrap() {
        let job = world.store.job(pending.job).await.unwrap().unwrap();
        if pending.effect.key() == EffectKey::PublishResult {
            assert!(job.job.payment.allows_publishing() && job.result.is_some());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    #[test]
    fn the_books_balance_whatever_happens_in_whatever_order(
        story in prop::collection::vec((0u8..6, acts()), 1..80)
    ) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(live_through(story));
    }
}

#[tokio::test]
async fn a_request_opens_one_job_however_often_it_comes() {
    let (store, _closing) = Store::in_memory().unwrap();
    let open = || store.open_job(request(1, 1), prepared(), draft(Terms::Prepay), START);
    let (first, second, third) = tokio::join!(open(), open(), open());
    let new = [first, second, third].into_iter().filter(|opened| matches!(opened, Ok(Opened::New(_)))).count();
    assert_eq!(new, 1);
}

#[tokio::test]
async fn two_quotes_at_once_never_spend_the_same_credit() {
    let (store, _closing) = Store::in_memory().unwrap();
    let customer = CustomerId([1; 32]);
    // 42 sat of credit: an overpaid job.
    store.open_job(request(1, 1), prepared(), draft(Terms::Prepay), START).await.unwrap();
    store.advance(JobId([1; 32]), JobEvent::InvoiceIssued(invoice(1, Msat::sat(21))), START).await.unwrap();
    store.advance(JobId([1; 32]), JobEvent::PaymentSettled { amount: Msat::sat(42) }, START).await.unwrap();
    store.advance(JobId([1; 32]), JobEvent::RunFailed(Failure::backend("x")), START).await.unwrap();
    assert_eq!(store.credit(customer).await.unwrap(), Msat::sat(42));
    let open = |job| store.open_job(request(job, 1), prepared(), draft(Terms::Prepay), START);
    let (two, three, four) = tokio::join!(open(2), open(3), open(4));
    let credits: Vec<Msat> = [two, three, four]
        .into_iter()
        .map(|opened| match opened.unwrap() {
            Opened::New(transition) => transition.job.quote.credit,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(credits.iter().copied().sum::<Msat>(), Msat::sat(42));
    assert_eq!(store.credit(customer).await.unwrap(), Msat::ZERO);
}

#[tokio::test]
async fn the_result_tells_the_credit_the_customer_has_after_it() {
    let (store, _closing) = Store::in_memory().unwrap();
    store.open_job(request(1, 1), prepared(), draft(Terms::Prepay), START).await.unwrap();
    store.advance(JobId([1; 32]), JobEvent::InvoiceIssued(invoice(1, Msat::sat(21))), START).await.unwrap();
    store.advance(JobId([1; 32]), JobEvent::PaymentSettled { amount: Msat::sat(21) }, START).await.unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let sign = move |job: &Job, credit: Msat, _: &Outcome| {
        tell.send(credit).unwrap();
        Ok(SignedEvent { id: EventId(job.id.0), kind: 6050, json: "{}".into() })
    };
    let done = FinishedWork { outcome: outcome(4), sign: Box::new(sign) };
    store.finish(JobId([1; 32]), done, START).await.unwrap();
    assert_eq!(told.recv().unwrap(), Msat::sat(6));
    assert_eq!(store.credit(CustomerId([1; 32])).await.unwrap(), Msat::sat(6));
}

#[tokio::test]
async fn everything_durable_is_there_after_closing_and_opening_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("coinop.db");
    let (store, closing) = Store::open(&path).unwrap();
    store.open_job(request(1, 1), prepared(), draft(Terms::Prepay), START).await.unwrap();
    store.set_cursor("relays", at(5)).await.unwrap();
    store.set_cursor("relays", at(3)).await.unwrap();
    drop(store);
    closing.wait();
    let (store, _closing) = Store::open(&path).unwrap();
    let pending = store.recover_pending().await.unwrap();
    assert_eq!(pending.len(), 1);
    assert_eq!((pending[0].effect.key(), pending[0].recoveries), (EffectKey::IssueInvoice, 1));
    assert_eq!(store.cursor("relays").await.unwrap(), Some(at(5)));
    assert!(store.knows(JobId([1; 32])).await.unwrap());
}

#[cfg(unix)]
#[tokio::test]
async fn the_database_is_readable_by_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("coinop.db");
    let _store = Store::open(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0);
}

#[tokio::test]
async fn a_failing_piece_of_a_group_takes_nobody_with_it() {
    let (store, _closing) = Store::in_memory().unwrap();
    let good = store.open_job(request(1, 1), prepared(), draft(Terms::Prepay), START);
    let bad = store.advance(JobId([9; 32]), JobEvent::Lapsed, START);
    let also_good = store.open_job(request(2, 2), prepared(), draft(Terms::Prepay), START);
    let (good, bad, also_good) = tokio::join!(good, bad, also_good);
    assert!(matches!((good, also_good), (Ok(Opened::New(_)), Ok(Opened::New(_)))));
    assert!(matches!(bad, Err(StoreError::NoSuchJob(_))));
}

#[tokio::test]
async fn pruning_forgets_prompts_but_never_the_books() {
    let (store, _closing) = Store::in_memory().unwrap();
    store.open_job(request(1, 1), prepared(), draft(Terms::Prepay), START).await.unwrap();
    store.advance(JobId([1; 32]), JobEvent::InvoiceIssued(invoice(1, Msat::sat(21))), START).await.unwrap();
    store.advance(JobId([1; 32]), JobEvent::PaymentSettled { amount: Msat::sat(21) }, START).await.unwrap();
    store.finish(JobId([1; 32]), work(4), START).await.unwrap();
    store.advance(JobId([1; 32]), JobEvent::ResultPublished, START).await.unwrap();
    for key in EffectKey::ALL {
        store.advance(JobId([1; 32]), JobEvent::NoticeDone(key), START).await.unwrap();
    }
    let before = store.ledger(None, None).await.unwrap();
    store.prune(at(1), at(1), at(1)).await.unwrap();
    let kept = store.job(JobId([1; 32])).await.unwrap().unwrap();
    assert!(kept.request.is_none() && kept.result.is_none());
    assert_eq!(store.ledger(None, None).await.unwrap(), before);
    assert_eq!(store.check_books().await.unwrap(), Vec::<String>::new());
}
