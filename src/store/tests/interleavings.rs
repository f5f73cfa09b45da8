//! The money rules over the real database, under random interleavings of several jobs and customers.

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;

use super::{at, draft, invoice, prepared, request, work};
use crate::job::event::Purse;
use crate::job::id::{EventId, PaymentHash};
use crate::job::{
    Canceller, CustomerId, Effect, EffectKey, Failure, Job, JobEvent, JobId, Notice, PaidBy, PaymentState, Terms,
    Usage, WorkState,
};
use crate::ledger::{Account, RefundState};
use crate::money::{Msat, MsatDelta};
use crate::store::{Advanced, JobFilter, NewRefund, NotReserved, Opened, Store, StoreError, ZapRow};

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
