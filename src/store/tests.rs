//! The money rules over the real database, under random interleavings of several jobs and customers.

use std::collections::HashMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::executor::Prepared;
use crate::job::event::{Invoice, Purse};
use crate::job::id::{EventId, PaymentHash};
use crate::job::{
    Canceller, Compute, CustomerId, Effect, EffectKey, Estimate, Failure, FinishReason, Job, JobEvent, JobId, JobKind,
    JobRequest, Notice, Outcome, PaidBy, Params, PaymentState, QuoteDraft, Rates, Terms, Usage, WorkState,
};
use crate::ledger::{Account, RefundState};
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
    Prepared {
        estimate: estimate(),
        prompt_is_exact: true,
        stream: false,
        rates: None,
        lane: None,
        work: serde_json::Value::Null,
    }
}

fn estimate() -> Estimate {
    Estimate::tokens(10, 10)
}

fn draft(terms: Terms) -> QuoteDraft {
    QuoteDraft {
        rates: Rates {
            base: Msat::sat(1),
            per_1k_prompt: Msat::sat(1_000),
            per_1k_generated: Msat::sat(1_000),
            ..Rates::FREE
        },
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
        usage: Usage::tokens(10, generated),
        finish: FinishReason::Stop,
        model: None,
        parameters: None,
        digest: None,
        facts: Vec::new(),
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
    /// By the time limit or by us, after so many tokens were shown.
    Fail(bool, u32),
    /// After so many tokens were shown.
    Cancel(Canceller, u32),
    /// Of so much more or less than the invoice, to which purse.
    Zap(i8, Purse),
    /// Credit set aside, and what the wallet made of it.
    Refund(u8, Refunding),
    Published,
    Undeliverable,
    Wait,
}

/// How a refund goes.
#[derive(Debug, Clone, Copy)]
enum Refunding {
    Paid,
    Failed,
    GivenUp,
    Open,
}

fn acts() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => prop_oneof![Just(Terms::Prepay), Just(Terms::Postpay), Just(Terms::Hold), Just(Terms::Free)].prop_map(Act::Open),
        6 => (-1i8..=1).prop_map(Act::Pay),
        2 => Just(Act::Hold),
        1 => Just(Act::Release),
        1 => Just(Act::Lapse),
        4 => (0u32..=10).prop_map(Act::Finish),
        1 => (any::<bool>(), 0u32..=12).prop_map(|(late, shown)| Act::Fail(late, shown)),
        1 => (prop_oneof![Just(Canceller::Customer), Just(Canceller::Operator)], 0u32..=12)
            .prop_map(|(by, shown)| Act::Cancel(by, shown)),
        3 => (-1i8..=1, prop_oneof![Just(Purse::Wallet), Just(Purse::Address)]).prop_map(|(d, p)| Act::Zap(d, p)),
        2 => (0u8..=30, prop_oneof![
            Just(Refunding::Paid), Just(Refunding::Failed), Just(Refunding::GivenUp), Just(Refunding::Open)
        ]).prop_map(|(sats, how)| Act::Refund(sats, how)),
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
    zapped: Msat,
    /// Paid back, fees included.
    refunded: Msat,
    hashes: u8,
    published: Vec<JobId>,
    /// The most that was shown of a job that its customer or the time limit ended.
    shown: HashMap<JobId, u32>,
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
                    let advanced = Advanced {
                        job: transition.job,
                        effects: transition.effects,
                        changed: true,
                        before: WorkState::Waiting,
                    };
                    self.follow(job, advanced).await;
                }
            }
            Act::Pay(delta) => {
                let Some(Job { invoice: Some(invoice), payment, paid_by, .. }) = self.job(job).await else { return };
                // A BOLT 11 invoice is paid once at most.
                let paid = payment == PaymentState::Settled && paid_by != PaidBy::Zap;
                if paid || payment == PaymentState::Released {
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
            Act::Fail(late, tokens) => {
                let failure = if *late { Failure::timeout(Duration::ZERO) } else { Failure::backend("x") };
                let shown = self.show(job, *tokens, *late);
                self.tell(job, JobEvent::RunFailed { failure, shown }).await;
            }
            Act::Cancel(by, tokens) => {
                let shown = self.show(job, *tokens, *by == Canceller::Customer);
                self.tell(job, JobEvent::Cancelled { by: *by, shown }).await;
            }
            Act::Zap(delta, purse) => {
                let Some(Job { invoice: Some(invoice), .. }) = self.job(job).await else { return };
                let amount = match delta {
                    1 => invoice.amount.saturating_add(Msat::sat(1)),
                    -1 => invoice.amount.saturating_sub(Msat::msat(1)),
                    _ => invoice.amount,
                };
                let zap = self.zap(job, amount, *purse);
                let counted = self.store.count_zap(zap).await.unwrap().expect("a new hash");
                self.follow(job, counted).await;
                match purse {
                    Purse::Wallet => self.paid = self.paid.saturating_add(amount),
                    Purse::Address => self.zapped = self.zapped.saturating_add(amount),
                }
                // The same payment, for this job or another.
                for replay in [job, (job + 1) % 6] {
                    let again = ZapRow { job: JobId([replay; 32]), ..zap };
                    assert_eq!(self.store.count_zap(again).await.unwrap(), None);
                }
            }
            Act::Refund(sats, how) => self.refund(CustomerId([job % 3; 32]), Msat::sat(u32::from(*sats)), *how).await,
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

impl World {
    fn show(&mut self, job: u8, tokens: u32, may_be_charged: bool) -> Usage {
        if may_be_charged {
            let most = self.shown.entry(JobId([job; 32])).or_default();
            *most = tokens.max(*most);
        }
        Usage::tokens(10, tokens)
    }

    fn next_hash(&mut self) -> PaymentHash {
        self.hashes += 1;
        PaymentHash([100 + self.hashes; 32])
    }

    fn zap(&mut self, job: u8, amount: Msat, purse: Purse) -> ZapRow {
        let payment_hash = self.next_hash();
        let receipt = EventId(payment_hash.0);
        ZapRow { payment_hash, receipt, job: JobId([job; 32]), amount, purse, at: at(self.now) }
    }

    async fn refund(&mut self, customer: CustomerId, amount: Msat, how: Refunding) {
        let (hash, now) = (self.next_hash(), at(self.now));
        let credit = self.store.credit(customer).await.unwrap();
        let new = NewRefund {
            payment_hash: hash,
            customer,
            amount,
            target: "a@example.com".into(),
            expires_at: now,
            automatic_limit: None,
        };
        match self.store.reserve_refund(new, now).await.unwrap() {
            Ok(()) => assert!(amount <= credit),
            Err(NotReserved::TooLittleCredit { credit: said }) => return assert!(amount > said && said == credit),
            Err(NotReserved::UnderWay) => return,
            Err(other) => panic!("{other}"),
        }
        // What was not asked for yet can't have been paid.
        assert_eq!(self.store.refund_paid(hash, Msat::ZERO, now).await.unwrap(), None);
        if matches!(how, Refunding::GivenUp) {
            assert!(self.store.refund_failed(hash, RefundState::Reserved, now).await.unwrap().is_some());
            assert!(!self.store.begin_refund(hash).await.unwrap());
            return;
        }
        assert!(self.store.begin_refund(hash).await.unwrap());
        assert_eq!(self.store.refund_failed(hash, RefundState::Reserved, now).await.unwrap(), None);
        let fees = Msat::msat(7);
        match how {
            Refunding::Paid => {
                assert!(self.store.refund_paid(hash, fees, now).await.unwrap().is_some());
                self.refunded = self.refunded.saturating_add(amount).saturating_add(fees);
            }
            Refunding::Failed => {
                assert!(self.store.refund_failed(hash, RefundState::Paying, now).await.unwrap().is_some());
            }
            Refunding::GivenUp | Refunding::Open => return,
        }
        // Over is over.
        assert_eq!(self.store.refund_paid(hash, fees, now).await.unwrap(), None);
        assert_eq!(self.store.refund_failed(hash, RefundState::Paying, now).await.unwrap(), None);
    }
}

async fn live_through(story: Vec<(u8, Act)>) {
    let (store, _closing) = Store::in_memory().unwrap();
    let mut world = World {
        store,
        now: 0,
        paid: Msat::ZERO,
        zapped: Msat::ZERO,
        refunded: Msat::ZERO,
        hashes: 0,
        published: vec![],
        shown: HashMap::new(),
    };
    for (job, act) in story {
        world.act(job, &act).await;
    }
    assert_eq!(world.store.check_books().await.unwrap(), Vec::<String>::new());
    let balances = world.store.balances().await.unwrap();
    let of =
        |account| balances.iter().find(|line| line.account == account).map_or(MsatDelta::ZERO, |line| line.balance);
    let in_wallet = MsatDelta::plus(world.paid).checked_add(MsatDelta::minus(world.refunded)).unwrap();
    assert_eq!(of(Account::Wallet), in_wallet);
    assert_eq!(of(Account::Address), MsatDelta::plus(world.zapped));
    let sum = balances.iter().try_fold(MsatDelta::ZERO, |sum, line| sum.checked_add(line.balance));
    assert_eq!(sum, Some(MsatDelta::ZERO), "what came in is credit, income or in escrow");
    for job in world.store.list_jobs(JobFilter::default()).await.unwrap() {
        if !world.published.contains(&job.id) {
            let most = world.shown.get(&job.id).copied().unwrap_or(0);
            let charged = job.cost.unwrap_or(Msat::ZERO);
            let allowed = job.quote.cost(Usage::tokens(10, most));
            assert!(charged.is_zero() || most > 0 && charged <= allowed, "{charged} for {most} tokens shown");
        }
    }
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
    store.advance(JobId([1; 32]), JobEvent::run_failed(Failure::backend("x")), START).await.unwrap();
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
async fn quotes_nobody_paid_are_forgotten_after_a_refund_too() {
    let (store, _closing) = Store::in_memory().unwrap();
    store.open_job(request(1, 1), prepared(), draft(Terms::Prepay), START).await.unwrap();
    store.advance(JobId([1; 32]), JobEvent::InvoiceIssued(invoice(1, Msat::sat(21))), START).await.unwrap();
    store.advance(JobId([1; 32]), JobEvent::PaymentSettled { amount: Msat::sat(20) }, START).await.unwrap();
    let new = NewRefund {
        payment_hash: PaymentHash([50; 32]),
        customer: CustomerId([1; 32]),
        amount: Msat::sat(20),
        target: "a@example.com".into(),
        expires_at: START,
        automatic_limit: None,
    };
    store.reserve_refund(new, START).await.unwrap().unwrap();
    store.open_job(request(2, 2), prepared(), draft(Terms::Prepay), START).await.unwrap();
    store.advance(JobId([2; 32]), JobEvent::InvoiceIssued(invoice(2, Msat::sat(21))), START).await.unwrap();
    store.advance(JobId([2; 32]), JobEvent::Lapsed, START).await.unwrap();
    store.prune(at(1), at(1), at(1)).await.unwrap();
    assert!(store.job(JobId([2; 32])).await.unwrap().is_none());
    assert!(store.job(JobId([1; 32])).await.unwrap().is_some());
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

#[tokio::test]
async fn the_work_of_free_and_paid_jobs_is_counted_by_day_and_outlives_their_results() {
    let (store, _closing) = Store::in_memory().unwrap();
    let deliver = async |job: u8, terms, parameters, now| {
        store.open_job(request(job, 1), prepared(), draft(terms), START).await.unwrap();
        if terms != Terms::Free {
            let issued = JobEvent::InvoiceIssued(invoice(job, Msat::sat(21)));
            store.advance(JobId([job; 32]), issued, START).await.unwrap();
            let paid = JobEvent::PaymentSettled { amount: Msat::sat(21) };
            store.advance(JobId([job; 32]), paid, START).await.unwrap();
        }
        let mut outcome = Outcome { parameters, ..outcome(4) };
        outcome.usage.compute = Compute { wall: Duration::from_millis(1_500), memory_mib: 64 };
        store.finish(JobId([job; 32]), FinishedWork { outcome, ..work(4) }, now).await.unwrap();
        store.advance(JobId([job; 32]), JobEvent::ResultPublished, now).await.unwrap();
    };
    deliver(1, Terms::Prepay, Some(1_000_000), START).await;
    deliver(2, Terms::Free, Some(500_000), START).await;
    deliver(3, Terms::Free, None, at(90_000)).await;
    // Finished, and not out yet.
    store.open_job(request(4, 1), prepared(), draft(Terms::Free), START).await.unwrap();
    store.finish(JobId([4; 32]), work(4), START).await.unwrap();
    let days = store.earnings(None).await.unwrap();
    let of = |delivered, tokens: u64, mflops| WorkDone {
        delivered,
        prompt_tokens: 10 * u64::from(delivered),
        generated_tokens: tokens,
        mflops,
        sandbox_ms: 1_500 * u64::from(delivered),
    };
    assert_eq!(days.iter().map(|day| day.work).collect::<Vec<_>>(), [of(2, 8, Some(28 + 14)), of(1, 4, None)]);
    assert_eq!((days[0].jobs, days[0].earned, days[1].jobs), (1, MsatDelta::plus(Msat::sat(15)), 0));
    assert_eq!(days[0].work.plus(days[1].work), of(3, 12, Some(42)));
    store.prune(at(100_000), at(100_000), at(100_000)).await.unwrap();
    assert!(store.job(JobId([3; 32])).await.unwrap().unwrap().outcome.is_none());
    assert_eq!(store.earnings(None).await.unwrap(), days);
    assert_eq!(store.earnings(Some(at(90_000))).await.unwrap(), days[1..]);
}

#[tokio::test]
async fn a_zap_that_the_job_cannot_use_is_not_kept_as_counted() {
    let (store, _closing) = Store::in_memory().unwrap();
    let zap = |job| ZapRow {
        payment_hash: PaymentHash([200; 32]),
        receipt: EventId([200; 32]),
        job: JobId([job; 32]),
        amount: Msat::sat(21),
        purse: Purse::Address,
        at: START,
    };
    store.open_job(request(1, 1), prepared(), draft(Terms::Free), START).await.unwrap();
    assert!(matches!(store.count_zap(zap(1)).await, Err(StoreError::Illegal { .. })));
    assert!(matches!(store.count_zap(zap(9)).await, Err(StoreError::NoSuchJob(_))));
    assert!(!store.knows_zap(PaymentHash([200; 32])).await.unwrap());
    // An invoice of ours counts by itself, whatever a receipt says of it.
    store.open_job(request(2, 1), prepared(), draft(Terms::Prepay), START).await.unwrap();
    store.advance(JobId([2; 32]), JobEvent::InvoiceIssued(invoice(2, Msat::sat(21))), START).await.unwrap();
    let own = ZapRow { payment_hash: PaymentHash([2; 32]), ..zap(2) };
    assert_eq!(store.count_zap(own).await.unwrap(), None);
    assert!(store.count_zap(zap(2)).await.unwrap().is_some());
    let zaps = store.zaps().await.unwrap();
    assert_eq!((zaps.len(), zaps[0].job, zaps[0].purse), (1, JobId([2; 32]), Purse::Address));
}

#[tokio::test]
async fn the_invoice_of_a_zapped_job_is_still_looked_up() {
    let (store, _closing) = Store::in_memory().unwrap();
    store.open_job(request(1, 1), prepared(), draft(Terms::Prepay), START).await.unwrap();
    store.advance(JobId([1; 32]), JobEvent::InvoiceIssued(invoice(1, Msat::sat(21))), START).await.unwrap();
    assert_eq!(store.given_up_invoices(START, 9).await.unwrap().len(), 0);
    let zap = ZapRow {
        payment_hash: PaymentHash([200; 32]),
        receipt: EventId([200; 32]),
        job: JobId([1; 32]),
        amount: Msat::sat(21),
        purse: Purse::Address,
        at: START,
    };
    store.count_zap(zap).await.unwrap().unwrap();
    assert_eq!(store.given_up_invoices(START, 9).await.unwrap().len(), 1);
    store.advance(JobId([1; 32]), JobEvent::PaymentSettled { amount: Msat::sat(21) }, START).await.unwrap();
    assert_eq!(store.given_up_invoices(START, 9).await.unwrap().len(), 0);
    assert_eq!(store.credit(CustomerId([1; 32])).await.unwrap(), Msat::sat(21));
}

#[tokio::test]
async fn what_is_paid_back_by_itself_ends_at_the_day_s_limit() {
    let (store, _closing) = Store::in_memory().unwrap();
    store.open_job(request(1, 1), prepared(), draft(Terms::Prepay), START).await.unwrap();
    store.advance(JobId([1; 32]), JobEvent::InvoiceIssued(invoice(1, Msat::sat(21))), START).await.unwrap();
    store.advance(JobId([1; 32]), JobEvent::PaymentSettled { amount: Msat::sat(100) }, START).await.unwrap();
    store.advance(JobId([1; 32]), JobEvent::run_failed(Failure::backend("x")), START).await.unwrap();
    let new = |hash: u8, sats: u32, limit: Option<u32>| NewRefund {
        payment_hash: PaymentHash([hash; 32]),
        customer: CustomerId([1; 32]),
        amount: Msat::sat(sats),
        target: "a@example.com".into(),
        expires_at: START,
        automatic_limit: limit.map(Msat::sat),
    };
    let pay = async |new: NewRefund, now| -> Result<(), NotReserved> {
        let hash = new.payment_hash;
        store.reserve_refund(new, now).await.unwrap()?;
        assert!(store.begin_refund(hash).await.unwrap());
        assert!(store.refund_paid(hash, Msat::ZERO, now).await.unwrap().is_some());
        Ok(())
    };
    assert_eq!(pay(new(50, 30, Some(40)), START).await, Ok(()));
    let full = NotReserved::DayIsFull { limit: Msat::sat(40), left: Msat::sat(10) };
    assert_eq!(pay(new(51, 11, Some(40)), START).await, Err(full));
    // Not the operator's own word, and not tomorrow.
    assert_eq!(pay(new(52, 11, None), START).await, Ok(()));
    assert_eq!(pay(new(53, 11, Some(40)), at(90_000)).await, Ok(()));
    assert_eq!(pay(new(53, 11, None), at(90_000)).await, Err(NotReserved::KnownHash));
    assert_eq!(pay(new(1, 11, None), at(90_000)).await, Err(NotReserved::KnownHash));
    assert_eq!(store.check_books().await.unwrap(), Vec::<String>::new());
}
