//! Every state a job can reach is reached here, and every fact is tried on it.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use jiff::SignedDuration;

use super::*;
use crate::job::event::{Canceller, Invoice, Purse};
use crate::job::id::PaymentHash;
use crate::job::{CustomerId, Estimate, JobId, JobKind, Params, Rates};
use crate::money::MsatDelta;

const QUOTED: Timestamp = Timestamp::UNIX_EPOCH;
const CUSTOMER: CustomerId = CustomerId([7; 32]);
const JOB: JobId = JobId([1; 32]);

fn in_time() -> Timestamp {
    QUOTED + SignedDuration::from_secs(1)
}

fn too_late() -> Timestamp {
    QUOTED + SignedDuration::from_secs(1_000)
}

fn request(bid: Option<Msat>) -> JobRequest {
    JobRequest {
        id: JOB,
        customer: CUSTOMER,
        kind: JobKind::TextGeneration,
        created_at: QUOTED,
        expires_at: Some(QUOTED + SignedDuration::from_secs(500)),
        inputs: vec![],
        params: Params::default(),
        output: None,
        bid,
        addressed: true,
        relays: vec![],
        encryption: None,
        event_json: String::new(),
    }
}

/// 1 sat + 1 sat a token read or written; at most 10 + 10 tokens: 21 sat.
fn draft(terms: Terms, whole_sats: bool) -> QuoteDraft {
    QuoteDraft {
        rates: Rates {
            base: Msat::sat(1),
            per_1k_prompt: Msat::sat(1_000),
            per_1k_generated: Msat::sat(1_000),
            ..Rates::FREE
        },
        estimate: Estimate::tokens(10, 10),
        terms,
        on_the_house: false,
        free_per_day: 0,
        whole_sats,
        payment_window: SignedDuration::from_secs(60),
    }
}

fn open(terms: Terms, credit: Msat) -> Transition {
    let context = Context { now: QUOTED, credit, free_jobs_today: 0 };
    Job::open(&request(None), &draft(terms, false), &context).unwrap()
}

fn invoice(amount: Msat) -> Invoice {
    Invoice {
        bolt11: "lnbcrt".into(),
        payment_hash: PaymentHash([9; 32]),
        amount,
        expires_at: QUOTED + SignedDuration::from_secs(60),
    }
}

fn used(tokens: u32) -> JobEvent {
    JobEvent::RunFinished { usage: Usage::tokens(10, tokens) }
}

/// Output shown, after a prompt that was read.
fn shown(tokens: u32) -> Usage {
    Usage::tokens(10, tokens)
}

/// Every fact, with the amounts that make a difference.
fn facts(job: &Job) -> Vec<JobEvent> {
    let asked = job.invoice.as_ref().map_or(Msat::sat(21), |invoice| invoice.amount);
    let less = asked.saturating_sub(Msat::msat(1));
    let more = asked.saturating_add(Msat::msat(1));
    let mut facts = vec![
        JobEvent::InvoiceIssued(invoice(invoice_amount(job))),
        JobEvent::InvoiceRefused,
        JobEvent::HoldReleased,
        JobEvent::Lapsed,
        used(0),
        used(10),
        JobEvent::run_failed(Failure::timeout(Duration::from_secs(1))),
        JobEvent::cancelled(Canceller::Customer),
        JobEvent::ResultPublished,
        JobEvent::ResultUndeliverable,
    ];
    for shown in [shown(3), shown(u32::MAX)] {
        for failure in [Failure::timeout(Duration::from_secs(1)), Failure::backend("x")] {
            facts.push(JobEvent::RunFailed { failure, shown });
        }
        facts.extend([Canceller::Customer, Canceller::Operator].map(|by| JobEvent::Cancelled { by, shown }));
    }
    for amount in [less, asked, more] {
        facts.push(JobEvent::PaymentSettled { amount });
        facts.push(JobEvent::PaymentHeld { amount });
    }
    // Every zap is news, so a story ends somewhere: after twice the price.
    if job.paid < Msat::sat(22) {
        for (amount, purse) in [(less, Purse::Wallet), (asked, Purse::Address)] {
            facts.push(JobEvent::Zapped { amount, purse });
        }
    }
    facts.extend(EffectKey::ALL.map(JobEvent::NoticeDone));
    facts
}

/// What the job asked the wallet for: the due amount before the work, the rest of the cost after it.
fn invoice_amount(job: &Job) -> Msat {
    match job.usage {
        None => job.quote.due,
        Some(usage) => job.quote.cost(usage).saturating_sub(job.escrow),
    }
}

/// Balances after a job's moves; the customer's starting credit is a debt of ours.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Books(Vec<(Account, MsatDelta)>);

impl Books {
    fn owing(credit: Msat) -> Self {
        Self(vec![(Account::Customer(CUSTOMER), MsatDelta::minus(credit))])
    }

    fn post(&mut self, entries: &[Entry]) {
        let mut sums: BTreeMap<Account, MsatDelta> = self.0.iter().copied().collect();
        for posting in entries.iter().flat_map(Entry::postings) {
            let balance = sums.entry(posting.account).or_default();
            *balance = balance.checked_add(posting.amount).unwrap();
        }
        self.0 = sums.into_iter().filter(|(_, balance)| *balance != MsatDelta::ZERO).collect();
    }

    fn of(&self, account: Account) -> MsatDelta {
        self.0.iter().find(|(known, _)| *known == account).map_or(MsatDelta::ZERO, |(_, balance)| *balance)
    }
}

/// The rules no reachable state may break.
fn check(job: &Job, effects: &[Effect], books: &Books, start: Msat, story: &str) {
    assert_eq!(books.of(Account::Escrow(job.id)), MsatDelta::minus(job.escrow), "escrow and books differ\n{story}");
    if job.work.is_over() {
        assert_eq!(job.escrow, Msat::ZERO, "a job that is over holds money\n{story}");
    }
    let arrived = books.of(Account::Wallet).checked_add(books.of(Account::Address)).unwrap();
    assert_eq!(arrived, MsatDelta::plus(job.paid), "money out of nowhere\n{story}");
    let owed = books.of(Account::Customer(CUSTOMER)).negated();
    let income = books.of(Account::Income(job.kind)).negated();
    let escrow = MsatDelta::plus(job.escrow);
    let total = owed.checked_add(income).and_then(|sum| sum.checked_add(escrow)).unwrap();
    assert_eq!(
        total,
        MsatDelta::plus(start).checked_add(MsatDelta::plus(job.paid)).unwrap(),
        "credit + income + escrow is not what was paid\n{story}"
    );
    assert!(owed >= MsatDelta::ZERO, "a customer owes us\n{story}");
    assert!(income <= MsatDelta::plus(job.quote.price), "earned more than quoted\n{story}");
    if matches!(job.work, WorkState::Failed | WorkState::Cancelled | WorkState::Expired) {
        let most = job.shown.map_or(Msat::ZERO, |shown| job.quote.cost(shown));
        assert!(income <= MsatDelta::plus(most), "earned from a job that was not done\n{story}");
        assert_eq!(income, MsatDelta::plus(job.cost.unwrap_or(Msat::ZERO)), "the job and the books differ\n{story}");
    }
    if job.shown.is_some() {
        let ran_out = job.failure.as_ref().is_some_and(|failure| failure.code == Code::Timeout);
        let ended_by_customer = job.cancelled_by == Some(Canceller::Customer) || ran_out;
        assert!(ended_by_customer, "charged for what is our fault\n{story}");
        assert!(matches!(job.payment, PaymentState::Covered | PaymentState::Settled), "charged unpaid\n{story}");
    }
    for effect in effects {
        if *effect == Effect::Publish(Notice::Result) {
            assert!(job.payment.allows_publishing() && job.work == WorkState::Finished, "unpaid result out\n{story}");
        }
        if *effect == Effect::Run {
            assert_eq!(job.work, WorkState::Running, "{story}");
            assert!(
                job.payment.allows_publishing() || matches!(job.payment, PaymentState::Held | PaymentState::Deferred),
                "ran without a promise of payment\n{story}"
            );
        }
    }
}

/// Walks every state reachable from `first` by any order of facts at either time, checking each. Returns the pairs seen.
fn walk(first: Transition, start: Msat) -> HashSet<(WorkState, PaymentState)> {
    let mut books = Books::owing(start);
    books.post(&first.entries);
    check(&first.job, &first.effects, &books, start, "opened");
    let mut pairs = HashSet::from([(first.job.work, first.job.payment)]);
    let mut seen: HashMap<String, ()> = HashMap::new();
    let mut todo = VecDeque::from([(first.job, books, String::from("opened"))]);
    while let Some((job, books, story)) = todo.pop_front() {
        for fact in facts(&job) {
            for now in [in_time(), too_late()] {
                let Ok(next) = job.apply(&fact, now) else { continue };
                let mut after = books.clone();
                after.post(&next.entries);
                let story = format!("{story}\n{} at {now}: {fact:?}", fact.name());
                if job.shown != next.job.shown {
                    assert_eq!(next.job.shown, shown_by(&fact), "charged for what was not shown\n{story}");
                }
                check(&next.job, &next.effects, &after, start, &story);
                if !next.changed {
                    // A hold of a job that a zap has paid goes back, as often as it is seen.
                    let goes_back = next.job.paid_by == PaidBy::Zap && next.effects == [Effect::CancelHold];
                    assert!(next.entries.is_empty(), "an old fact moved money\n{story}");
                    assert!(next.effects.is_empty() || goes_back, "an old fact had an effect\n{story}");
                    continue;
                }
                pairs.insert((next.job.work, next.job.payment));
                let mut known = next.job.clone();
                known.changed_at = QUOTED;
                let key = format!("{known:?}{after:?}");
                if seen.insert(key, ()).is_none() {
                    todo.push_back((next.job, after, story));
                }
            }
        }
    }
    pairs
}

/// What a fact says was shown.
fn shown_by(fact: &JobEvent) -> Option<Usage> {
    match fact {
        JobEvent::RunFailed { shown, .. } | JobEvent::Cancelled { shown, .. } => Some(*shown),
        _ => None,
    }
    .filter(|shown| shown.generated_tokens > 0)
}

#[test]
fn no_order_of_facts_breaks_a_money_rule() {
    let mut reached = HashSet::new();
    for terms in [Terms::Free, Terms::Prepay, Terms::Postpay, Terms::Hold] {
        for credit in [Msat::ZERO, Msat::sat(5), Msat::sat(21), Msat::sat(100)] {
            reached.extend(walk(open(terms, credit), credit));
        }
    }
    for state in WorkState::ALL {
        assert!(reached.iter().any(|(work, _)| *work == state), "{state:?} is never reached");
    }
    for state in PaymentState::ALL {
        assert!(reached.iter().any(|(_, payment)| *payment == state), "{state:?} is never reached");
    }
    // Delivered means paid for, or nothing to pay.
    assert!(
        reached.iter().all(|(work, payment)| *work != WorkState::Delivered || payment.allows_publishing()),
        "{reached:?}"
    );
}

#[test]
fn every_fact_is_answered_in_every_state_reachable_or_not() {
    for work in WorkState::ALL {
        for payment in PaymentState::ALL {
            for with_invoice in [false, true] {
                let mut job = open(Terms::Hold, Msat::ZERO).job;
                (job.work, job.payment) = (work, payment);
                job.invoice = with_invoice.then(|| invoice(Msat::sat(21)));
                for fact in facts(&job) {
                    if let Ok(next) = job.apply(&fact, in_time()) {
                        let publishes = next.effects.contains(&Effect::Publish(Notice::Result));
                        assert!(!publishes || next.job.payment.allows_publishing(), "{work:?} {payment:?} {fact:?}");
                    }
                }
            }
        }
    }
}

fn after(job: &Job, facts: &[JobEvent]) -> Transition {
    let (last, before) = facts.split_last().unwrap();
    let job = before.iter().fold(job.clone(), |job, fact| job.apply(fact, in_time()).unwrap().job);
    job.apply(last, in_time()).unwrap()
}

#[test]
fn a_prepaid_job_runs_when_paid_and_returns_what_was_not_used() {
    let opened = open(Terms::Prepay, Msat::ZERO);
    assert_eq!(opened.effects, [Effect::IssueInvoice { amount: Msat::sat(21) }]);
    let issued = after(&opened.job, &[JobEvent::InvoiceIssued(invoice(Msat::sat(21)))]);
    assert_eq!(issued.effects, [Effect::Publish(Notice::PaymentRequired)]);
    let paid = after(&issued.job, &[JobEvent::PaymentSettled { amount: Msat::sat(21) }]);
    assert_eq!(paid.effects[0], Effect::Run);
    let finished = after(&paid.job, &[used(3)]);
    assert_eq!(finished.effects, [Effect::Publish(Notice::Result)]);
    assert_eq!((finished.job.cost, finished.job.credited), (Some(Msat::sat(14)), Msat::sat(7)));
}

#[test]
fn credit_pays_first_and_a_covered_job_asks_for_no_invoice() {
    let opened = open(Terms::Prepay, Msat::sat(5));
    assert_eq!(opened.effects, [Effect::IssueInvoice { amount: Msat::sat(16) }]);
    let covered = open(Terms::Prepay, Msat::sat(100));
    assert_eq!((covered.job.payment, covered.job.quote.credit), (PaymentState::Covered, Msat::sat(21)));
    assert_eq!(covered.effects[0], Effect::Run);
}

fn running(terms: Terms) -> Job {
    let issued = after(&open(terms, Msat::ZERO).job, &[JobEvent::InvoiceIssued(invoice(Msat::sat(21)))]);
    let amount = Msat::sat(21);
    let paid =
        if terms == Terms::Hold { JobEvent::PaymentHeld { amount } } else { JobEvent::PaymentSettled { amount } };
    after(&issued.job, &[paid]).job
}

fn told(transition: &Transition) -> &Refusal {
    let told = transition.effects.iter().find_map(|effect| match effect {
        Effect::Publish(Notice::Error(refusal)) => Some(refusal),
        _ => None,
    });
    told.unwrap()
}

#[test]
fn a_customer_who_cancels_pays_for_what_was_shown_and_has_the_rest_as_credit() {
    let cancelled = |tokens| JobEvent::Cancelled { by: Canceller::Customer, shown: shown(tokens) };
    let ended = after(&running(Terms::Prepay), &[cancelled(3)]);
    assert_eq!((ended.job.work, ended.effects[0].key()), (WorkState::Cancelled, EffectKey::StopRun));
    assert_eq!((ended.job.cost, ended.job.credited), (Some(Msat::sat(14)), Msat::sat(7)));
    let words = "cancelled as you asked; 14 sat was charged for the 3 tokens you were shown; 7 sat became credit";
    assert!(told(&ended).text.starts_with(words), "{}", told(&ended).text);
    // Credit pays for what was shown like a payment does.
    let covered = after(&open(Terms::Prepay, Msat::sat(100)).job, &[cancelled(3)]);
    assert_eq!((covered.job.cost, covered.job.credited), (Some(Msat::sat(14)), Msat::sat(7)));
    // Never more than the quote, and nothing for nothing.
    assert_eq!(after(&running(Terms::Prepay), &[cancelled(99)]).job.cost, Some(Msat::sat(21)));
    let unseen = after(&running(Terms::Prepay), &[cancelled(0)]);
    assert_eq!((unseen.job.cost, unseen.job.credited), (None, Msat::sat(21)));
    // Money that is not ours is not taken.
    let held = after(&running(Terms::Hold), &[cancelled(3)]);
    assert_eq!((held.job.cost, held.effects.contains(&Effect::CancelHold)), (None, true));
}

#[test]
fn what_was_shown_is_charged_at_the_time_limit_and_not_when_the_failure_is_ours() {
    let failed = |failure| after(&running(Terms::Prepay), &[JobEvent::RunFailed { failure, shown: shown(3) }]).job;
    let late = failed(Failure::timeout(Duration::from_secs(1)));
    assert_eq!((late.cost, late.credited, late.work), (Some(Msat::sat(14)), Msat::sat(7), WorkState::Failed));
    let broken = failed(Failure::backend("x"));
    assert_eq!((broken.cost, broken.credited), (None, Msat::sat(21)));
    let by = Canceller::Operator;
    let stopped = after(&running(Terms::Prepay), &[JobEvent::Cancelled { by, shown: shown(3) }]).job;
    assert_eq!((stopped.cost, stopped.credited), (None, Msat::sat(21)));
}

#[test]
fn what_ends_uncharged_by_the_customers_doing_was_given_away() {
    let given_away = |job: &Job, fact: JobEvent| after(job, &[fact]).job.was_given_away();
    let cancelled = |by, tokens| JobEvent::Cancelled { by, shown: shown(tokens) };
    let failed = |failure| JobEvent::RunFailed { failure, shown: shown(3) };
    let broken = || Failure::backend("x");
    let (prepaid, held) = (running(Terms::Prepay), running(Terms::Hold));
    for (fact, from_prepaid, from_held) in [
        (cancelled(Canceller::Customer, 0), true, true),
        // Shown before it was paid it can't be, so nothing is charged for it.
        (cancelled(Canceller::Customer, 3), false, true),
        (cancelled(Canceller::Operator, 0), false, false),
        (failed(Failure::new(Code::BadRequest, "the tests fail")), true, true),
        (failed(Failure::timeout(Duration::from_secs(1))), false, true),
        (failed(broken()), false, false),
        (failed(broken().in_vain()), true, true),
        (used(10), false, false),
    ] {
        let found = (given_away(&prepaid, fact.clone()), given_away(&held, fact.clone()));
        assert_eq!(found, (from_prepaid, from_held), "{fact:?}");
    }
    // Free jobs are given away in any case.
    let free = open(Terms::Free, Msat::ZERO).job;
    assert!(!given_away(&free, cancelled(Canceller::Customer, 0)));
}

#[test]
fn a_failure_is_told_with_its_log() {
    let failure = Failure::new(Code::BadRequest, "the tests fail").with_log("$ make test");
    let failed = after(&running(Terms::Hold), &[JobEvent::RunFailed { failure: failure.clone(), shown: Usage::NONE }]);
    assert!(failed.effects.contains(&Effect::Publish(Notice::Error(failure.clone().into()))));
    assert_eq!(failed.job.failure, Some(failure));
}

#[test]
fn postpay_charges_what_was_used_and_keeps_the_result_until_it_is_paid() {
    let finished = after(&open(Terms::Postpay, Msat::ZERO).job, &[used(3)]);
    assert_eq!(finished.effects, [Effect::IssueInvoice { amount: Msat::sat(14) }]);
    let paid = after(
        &finished.job,
        &[JobEvent::InvoiceIssued(invoice(Msat::sat(14))), JobEvent::PaymentSettled { amount: Msat::sat(14) }],
    );
    assert_eq!(paid.effects, [Effect::Publish(Notice::Result)]);
}

#[test]
fn a_hold_is_settled_only_after_the_result_is_stored_and_published_only_after_that() {
    let issued = after(&open(Terms::Hold, Msat::ZERO).job, &[JobEvent::InvoiceIssued(invoice(Msat::sat(21)))]);
    let held = after(&issued.job, &[JobEvent::PaymentHeld { amount: Msat::sat(21) }]);
    assert_eq!(held.effects[0], Effect::Run);
    let finished = after(&held.job, &[used(10)]);
    assert_eq!(finished.effects, [Effect::SettleHold]);
    let settled = after(&finished.job, &[JobEvent::PaymentSettled { amount: Msat::sat(21) }]);
    assert_eq!(settled.effects, [Effect::Publish(Notice::Result)]);
    let failed = after(&held.job, &[JobEvent::run_failed(Failure::backend("x"))]);
    assert_eq!(failed.effects[0], Effect::CancelHold);
    let lost = after(&finished.job, &[JobEvent::HoldReleased]);
    assert_eq!((lost.job.work, lost.job.payment), (WorkState::Failed, PaymentState::Released));
}

#[test]
fn expired_invoice_never_starts_a_run_unless_it_is_paid_after_all() {
    let issued = after(&open(Terms::Prepay, Msat::ZERO).job, &[JobEvent::InvoiceIssued(invoice(Msat::sat(21)))]);
    let lapsed = after(&issued.job, &[JobEvent::Lapsed]);
    assert_eq!((lapsed.job.work, lapsed.effects.len()), (WorkState::Expired, 0));
    let paid = JobEvent::PaymentSettled { amount: Msat::sat(21) };
    let late = lapsed.job.apply(&paid, in_time()).unwrap();
    assert_eq!(late.effects[0], Effect::Run);
    let too_late = lapsed.job.apply(&paid, too_late()).unwrap();
    assert_eq!((too_late.job.work, too_late.job.credited), (WorkState::Expired, Msat::sat(21)));
}

#[test]
fn a_payment_of_another_amount_is_credited_and_starts_nothing() {
    let issued = after(&open(Terms::Prepay, Msat::ZERO).job, &[JobEvent::InvoiceIssued(invoice(Msat::sat(21)))]);
    let short = after(&issued.job, &[JobEvent::PaymentSettled { amount: Msat::sat(20) }]);
    assert_eq!((short.job.work, short.job.credited), (WorkState::Failed, Msat::sat(20)));
    assert!(!short.effects.contains(&Effect::Run));
}

#[test]
fn a_bid_below_the_price_opens_nothing_and_states_the_price() {
    let context = Context { now: QUOTED, credit: Msat::ZERO, free_jobs_today: 0 };
    let refused = Job::open(&request(Some(Msat::sat(20))), &draft(Terms::Prepay, false), &context);
    assert_eq!(refused.unwrap_err(), TooDear { price: Msat::sat(21) });
    assert!(Job::open(&request(Some(Msat::sat(21))), &draft(Terms::Prepay, false), &context).is_ok());
}

#[test]
fn the_free_quota_is_used_up_before_anything_is_charged() {
    let draft = QuoteDraft { free_per_day: 2, ..draft(Terms::Prepay, false) };
    let open = |used| {
        let context = Context { now: QUOTED, credit: Msat::ZERO, free_jobs_today: used };
        Job::open(&request(None), &draft, &context).unwrap().job.payment
    };
    assert_eq!((open(0), open(1), open(2)), (PaymentState::Free, PaymentState::Free, PaymentState::Invoicing));
}

#[test]
fn a_wallet_of_whole_sats_rounds_up_and_the_rest_is_credit() {
    let context = Context { now: QUOTED, credit: Msat::msat(500), free_jobs_today: 0 };
    let opened = Job::open(&request(None), &draft(Terms::Prepay, true), &context).unwrap();
    assert_eq!(opened.job.quote.due, Msat::sat(21));
    let paid = after(
        &opened.job,
        &[JobEvent::InvoiceIssued(invoice(Msat::sat(21))), JobEvent::PaymentSettled { amount: Msat::sat(21) }],
    );
    let finished = after(&paid.job, &[used(10)]);
    assert_eq!((finished.job.cost, finished.job.credited), (Some(Msat::sat(21)), Msat::msat(500)));
}

fn zap(amount: Msat) -> JobEvent {
    JobEvent::Zapped { amount, purse: Purse::Address }
}

fn awaiting(terms: Terms) -> Job {
    after(&open(terms, Msat::ZERO).job, &[JobEvent::InvoiceIssued(invoice(Msat::sat(21)))]).job
}

#[test]
fn a_zap_of_the_price_pays_like_the_invoice() {
    let zapped = after(&awaiting(Terms::Prepay), &[zap(Msat::sat(21))]);
    assert_eq!((zapped.job.work, zapped.job.payment), (WorkState::Running, PaymentState::Settled));
    assert_eq!(zapped.effects[0], Effect::Run);
    let finished = after(&zapped.job, &[used(3)]);
    assert_eq!(finished.effects, [Effect::Publish(Notice::Result)]);
    assert_eq!((finished.job.cost, finished.job.credited), (Some(Msat::sat(14)), Msat::sat(7)));
}

#[test]
fn a_zap_of_too_little_is_credit_and_neither_starts_nor_fails_the_job() {
    let job = awaiting(Terms::Prepay);
    let zapped = after(&job, &[zap(Msat::sat(20))]);
    assert_eq!((zapped.job.work, zapped.job.payment), (job.work, job.payment));
    assert_eq!((zapped.effects.len(), zapped.job.credited), (0, Msat::sat(20)));
}

#[test]
fn the_invoice_paid_after_a_zap_and_a_second_zap_are_credit() {
    let zapped = after(&awaiting(Terms::Prepay), &[zap(Msat::sat(21))]);
    let paid = JobEvent::PaymentSettled { amount: Msat::sat(21) };
    let both = after(&zapped.job, std::slice::from_ref(&paid));
    assert_eq!((both.job.credited, both.job.paid_by), (Msat::sat(21), PaidBy::Both));
    assert_eq!(after(&both.job, std::slice::from_ref(&paid)).job, both.job);
    let twice = after(&both.job, &[zap(Msat::sat(5))]);
    assert_eq!((twice.job.credited, twice.job.paid), (Msat::sat(26), Msat::sat(47)));
    // The other way round: the invoice first.
    let zapped_after = after(&awaiting(Terms::Prepay), &[paid.clone(), zap(Msat::sat(21)), paid]);
    assert_eq!((zapped_after.job.credited, zapped_after.job.paid_by), (Msat::sat(21), PaidBy::Invoice));
}

#[test]
fn a_zap_withdraws_the_hold_invoice_and_a_hold_that_comes_all_the_same_goes_back() {
    let zapped = after(&awaiting(Terms::Hold), &[zap(Msat::sat(21))]);
    assert_eq!(zapped.effects[0], Effect::CancelHold);
    let held = after(&zapped.job, &[JobEvent::PaymentHeld { amount: Msat::sat(21) }]);
    assert_eq!((held.effects, held.job.payment), (vec![Effect::CancelHold], PaymentState::Settled));
    let released = after(&zapped.job, &[JobEvent::HoldReleased]);
    assert_eq!(released.settled_effects, [EffectKey::CancelHold]);
    assert_eq!(released.job, zapped.job);
}

#[test]
fn a_zap_of_a_held_job_is_credit_and_the_hold_stands() {
    let held = after(&awaiting(Terms::Hold), &[JobEvent::PaymentHeld { amount: Msat::sat(21) }]);
    let zapped = after(&held.job, &[zap(Msat::sat(21))]);
    assert_eq!((zapped.job.payment, zapped.job.credited), (PaymentState::Held, Msat::sat(21)));
    assert!(zapped.effects.is_empty());
}

#[test]
fn a_late_zap_is_honoured_like_a_late_payment() {
    let lapsed = after(&awaiting(Terms::Prepay), &[JobEvent::Lapsed]);
    assert_eq!(after(&lapsed.job, &[zap(Msat::sat(21))]).effects[0], Effect::Run);
    let too_late = lapsed.job.apply(&zap(Msat::sat(21)), too_late()).unwrap();
    assert_eq!((too_late.job.work, too_late.job.credited), (WorkState::Expired, Msat::sat(21)));
    let waited_too_long = awaiting(Terms::Prepay).apply(&zap(Msat::sat(21)), self::too_late()).unwrap();
    assert_eq!((waited_too_long.job.work, waited_too_long.job.credited), (WorkState::Expired, Msat::sat(21)));
}

#[test]
fn a_zap_lets_a_postpaid_result_out() {
    let finished =
        after(&open(Terms::Postpay, Msat::ZERO).job, &[used(3), JobEvent::InvoiceIssued(invoice(Msat::sat(14)))]);
    let zapped = after(&finished.job, &[zap(Msat::sat(14))]);
    assert_eq!(zapped.effects, [Effect::Publish(Notice::Result)]);
}

#[test]
fn a_zap_of_a_job_that_asks_for_nothing_is_a_gift() {
    assert!(open(Terms::Free, Msat::ZERO).job.apply(&zap(Msat::sat(21)), in_time()).is_err());
    assert!(open(Terms::Prepay, Msat::sat(21)).job.apply(&zap(Msat::sat(21)), in_time()).is_err());
}
