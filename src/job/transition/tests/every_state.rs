//! Every state a job can reach is reached here, and every fact is tried on it.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use super::*;
use crate::job::event::{Canceller, Purse};
use crate::money::MsatDelta;

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
