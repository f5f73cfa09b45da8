//! Every decision, with the answers and the time it is taken at.

use super::*;
use crate::nip90::Amount;
use crate::wallet::PayableInvoice;

const JOB: JobId = JobId([1; 32]);
const START: Timestamp = Timestamp::UNIX_EPOCH;

fn provider(number: u8) -> ProviderId {
    ProviderId([number; 32])
}

fn at(seconds: i64) -> Timestamp {
    START + SignedDuration::from_secs(seconds)
}

fn purchase(asked: &[u8], max_cost: Msat) -> Purchase {
    let limits =
        Limits { max_cost, offer_window: SignedDuration::from_secs(3), timeout: SignedDuration::from_secs(60) };
    Purchase::new(JOB, asked.iter().map(|n| provider(*n)).collect(), limits, Choice::Cheapest, START)
}

fn answer(from: u8, body: AnswerBody) -> Answer {
    Answer { id: EventId([9; 32]), provider: provider(from), job: JOB, at: START, body }
}

fn offer(from: u8, amount: Msat) -> Answer {
    let amount = Some(Amount { amount, bolt11: Some("lnbcrt".into()) });
    answer(from, AnswerBody::Feedback(Feedback { amount, ..Feedback::of(Status::PaymentRequired) }))
}

fn result(from: u8) -> Answer {
    let result = JobResult {
        content: "done".into(),
        amount: None,
        receipt: crate::nip90::Receipt::default(),
        file: None,
        truncated: None,
    };
    answer(from, AnswerBody::Result(result))
}

fn error(from: u8) -> Answer {
    let refusal = Refusal::unsupported("no");
    answer(from, AnswerBody::Feedback(Feedback::error(&refusal)))
}

fn reads(amount: Msat) -> impl FnOnce(&str) -> Result<PayableInvoice, String> {
    move |bolt11| {
        Ok(PayableInvoice {
            bolt11: bolt11.into(),
            amount,
            payment_hash: PaymentHash([3; 32]),
            description: None,
            expires_at: at(600),
            network: bitcoin::Network::Regtest,
        })
    }
}

fn hear(purchase: &mut Purchase, answer: Answer, asked: Msat) -> Vec<Step> {
    purchase.hear(answer, at(1), reads(asked))
}

#[test]
fn the_cheapest_offer_within_the_limit_is_paid_once() {
    let mut buying = purchase(&[], Msat::sat(30));
    hear(&mut buying, offer(1, Msat::sat(20)), Msat::sat(20));
    hear(&mut buying, offer(2, Msat::sat(10)), Msat::sat(10));
    let passed = hear(&mut buying, offer(3, Msat::sat(31)), Msat::sat(31));
    assert!(matches!(&passed[..], [Step::Passed { .. }]));
    assert!(buying.tick(at(2)).is_empty());
    let steps = buying.tick(at(4));
    assert!(matches!(&steps[..], [Step::Pay(offer)] if offer.provider == provider(2)));
    assert!(hear(&mut buying, offer(4, Msat::sat(1)), Msat::sat(1)).is_empty());
    assert!(buying.tick(at(5)).is_empty());
}

#[test]
fn an_invoice_over_another_amount_than_said_is_no_offer() {
    let mut buying = purchase(&[1], Msat::sat(30));
    let steps = hear(&mut buying, offer(1, Msat::sat(5)), Msat::sat(25));
    // The only provider asked has answered: there is nothing to wait for.
    assert!(matches!(&steps[..], [Step::Passed { .. }, Step::Over(Ending::Refused(_))]), "{steps:?}");
}

#[test]
fn a_named_provider_is_paid_without_waiting_for_others() {
    let mut buying = purchase(&[1], Msat::sat(30));
    let steps = hear(&mut buying, offer(1, Msat::sat(5)), Msat::sat(5));
    assert!(matches!(&steps[..], [Step::Offered(_), Step::Pay(_)]));
}

#[test]
fn answers_of_somebody_not_asked_do_not_count() {
    let mut buying = purchase(&[1], Msat::sat(30));
    assert!(hear(&mut buying, offer(2, Msat::sat(1)), Msat::sat(1)).is_empty());
    assert!(hear(&mut buying, result(2), Msat::ZERO).is_empty());
}

#[test]
fn after_the_choice_only_the_chosen_provider_counts() {
    let mut buying = purchase(&[], Msat::sat(30));
    hear(&mut buying, offer(1, Msat::sat(5)), Msat::sat(5));
    buying.tick(at(10));
    buying.note_paid();
    assert!(hear(&mut buying, result(2), Msat::ZERO).is_empty());
    let steps = hear(&mut buying, result(1), Msat::ZERO);
    assert!(matches!(&steps[..], [Step::Done(receipt)] if receipt.paid == Msat::sat(5)));
}

#[test]
fn what_was_called_off_is_not_paid_any_more_but_its_result_is_taken() {
    let mut buying = purchase(&[1], Msat::sat(30));
    assert!(buying.may_be_at_work(), "who was asked and says nothing may be");
    buying.call_off();
    assert!(hear(&mut buying, offer(1, Msat::sat(5)), Msat::sat(5)).is_empty());
    let steps = hear(&mut buying, result(1), Msat::ZERO);
    assert!(matches!(&steps[..], [Step::Done(_)]), "{steps:?}");
    assert!(!buying.may_be_at_work());

    // The last of those asked refuses: the offer that is left is not chosen.
    let mut buying = purchase(&[1, 2], Msat::sat(30));
    hear(&mut buying, offer(1, Msat::sat(5)), Msat::sat(5));
    buying.call_off();
    assert!(buying.may_be_at_work());
    let steps = hear(&mut buying, error(2), Msat::ZERO);
    assert!(matches!(&steps[..], [Step::Refused { .. }]), "{steps:?}");
    assert!(!buying.may_be_at_work(), "whoever made an offer waits for the payment");
}

#[test]
fn the_chosen_provider_s_word_ends_what_was_called_off() {
    let mut buying = purchase(&[1], Msat::sat(30));
    hear(&mut buying, offer(1, Msat::sat(5)), Msat::sat(5));
    buying.call_off();
    assert_eq!(buying.chosen().map(|offer| offer.amount), Some(Msat::sat(5)));
    assert!(buying.may_be_at_work());
    let steps = hear(&mut buying, error(1), Msat::ZERO);
    assert!(matches!(&steps[..], [Step::Refused { .. }, Step::Over(Ending::Failed(_))]), "{steps:?}");
    assert!(!buying.may_be_at_work());
}

#[test]
fn an_invoice_shown_to_somebody_expires_and_one_being_paid_does_not() {
    let ends = |paying: bool| {
        let mut buying = purchase(&[1], Msat::sat(30));
        buying.limits.timeout = SignedDuration::from_secs(10_000);
        hear(&mut buying, offer(1, Msat::sat(5)), Msat::sat(5));
        if paying {
            buying.note_paying();
        }
        (buying.wake_at() < at(1_000), buying.tick(at(1_000)))
    };
    assert_eq!(ends(false), (true, vec![Step::Over(Ending::InvoiceExpired)]));
    assert_eq!(ends(true), (false, vec![]));
}

#[test]
fn a_free_result_is_taken_without_paying_anybody() {
    let mut buying = purchase(&[], Msat::ZERO);
    let steps = hear(&mut buying, result(1), Msat::ZERO);
    assert!(matches!(&steps[..], [Step::Done(receipt)] if receipt.paid == Msat::ZERO));
}

#[test]
fn that_nobody_answers_is_said_once_when_the_request_names_nobody() {
    let mut silent = purchase(&[], Msat::sat(30));
    assert_eq!(silent.wake_at(), at(15));
    assert!(silent.tick(at(14)).is_empty());
    assert_eq!(silent.tick(at(15)), [Step::Unanswered]);
    assert_eq!((silent.tick(at(16)), silent.wake_at()), (Vec::new(), at(60)));

    // Whoever was asked by name, and whoever got any answer, waits for something.
    let mut refused = purchase(&[], Msat::sat(30));
    hear(&mut refused, error(1), Msat::ZERO);
    let mut dear = purchase(&[], Msat::sat(3));
    hear(&mut dear, offer(1, Msat::sat(5)), Msat::sat(5));
    for mut other in [purchase(&[1], Msat::sat(30)), refused, dear] {
        assert_eq!((other.wake_at(), other.tick(at(20))), (at(60), Vec::new()));
    }
}

#[test]
fn what_costs_something_without_an_invoice_is_paid_from_credit() {
    let costing = |cost: Msat| {
        let AnswerBody::Result(mut result) = result(1).body else { unreachable!() };
        result.receipt.paid = Some(cost);
        answer(1, AnswerBody::Result(result))
    };
    let working = || answer(1, AnswerBody::Feedback(Feedback::of(Status::Processing)));
    let bought = |buying: &mut Purchase, cost: Msat| match hear(buying, costing(cost), Msat::ZERO).pop() {
        Some(Step::Done(receipt)) => receipt,
        other => panic!("{other:?}"),
    };
    let mut on_credit = purchase(&[1], Msat::sat(30));
    hear(&mut on_credit, working(), Msat::ZERO);
    assert!(on_credit.runs_without_an_invoice());
    assert!(bought(&mut on_credit, Msat::sat(5)).is_from_credit());
    assert!(!bought(&mut purchase(&[1], Msat::sat(30)), Msat::ZERO).is_from_credit(), "it was free");

    // Whoever paid the invoice.
    let mut by_hand = purchase(&[1], Msat::sat(30));
    hear(&mut by_hand, offer(1, Msat::sat(5)), Msat::sat(5));
    hear(&mut by_hand, working(), Msat::ZERO);
    assert!(!by_hand.runs_without_an_invoice());
    assert!(!bought(&mut by_hand, Msat::sat(5)).is_from_credit());
}

#[test]
fn the_log_of_a_failure_reaches_the_buyer_bounded_and_is_not_said_twice() {
    let failed = |text: Option<&str>, content: String| {
        let mut buying = purchase(&[1], Msat::sat(30));
        hear(&mut buying, offer(1, Msat::sat(5)), Msat::sat(5));
        let feedback = Feedback { text: text.map(str::to_owned), content, ..Feedback::of(Status::Error) };
        match hear(&mut buying, answer(1, AnswerBody::Feedback(feedback)), Msat::ZERO).pop() {
            Some(Step::Over(Ending::Failed(refusal))) => refusal,
            other => panic!("{other:?}"),
        }
    };
    let refusal = failed(Some("it failed"), "$ make test\nboom".into());
    assert_eq!((refusal.text.as_str(), refusal.log.as_str()), ("it failed", "$ make test\nboom"));
    assert_eq!(failed(Some("only a reason"), "only a reason\n".into()).log, "");
    assert_eq!(failed(None, "x".repeat(100_000)).log.len(), crate::job::outcome::MAX_LOG_BYTES);
}

#[test]
fn too_dear_and_refused_and_silent_end_differently() {
    let mut dear = purchase(&[1], Msat::sat(3));
    let steps = hear(&mut dear, offer(1, Msat::sat(5)), Msat::sat(5));
    assert!(matches!(&steps[..], [_, Step::Over(Ending::TooDear { .. })]), "{steps:?}");
    let mut refused = purchase(&[1], Msat::sat(3));
    let steps = hear(&mut refused, error(1), Msat::ZERO);
    assert!(
        matches!(
            &steps[..],
            [Step::Refused { had_begun: false, is_the_end: true, .. }, Step::Over(Ending::Refused(_))]
        ),
        "{steps:?}"
    );
    let mut begun = purchase(&[1], Msat::sat(3));
    hear(&mut begun, answer(1, AnswerBody::Feedback(Feedback::of(Status::Processing))), Msat::ZERO);
    let steps = hear(&mut begun, error(1), Msat::ZERO);
    assert!(matches!(&steps[..], [Step::Refused { had_begun: true, .. }, Step::Over(Ending::Failed(_))]), "{steps:?}");
    let mut one_of_two = purchase(&[1, 2], Msat::sat(3));
    let steps = hear(&mut one_of_two, error(1), Msat::ZERO);
    assert!(matches!(&steps[..], [Step::Refused { is_the_end: false, .. }]), "{steps:?}");
    let mut silent = purchase(&[1], Msat::sat(3));
    assert!(matches!(&silent.tick(at(60))[..], [Step::Over(Ending::NoOffer)]));
}

#[test]
fn pieces_come_in_order_and_none_twice() {
    let mut buying = purchase(&[1], Msat::sat(3));
    let piece = |seq: u32, text: &str| {
        let feedback = Feedback { seq: Some(seq), content: text.into(), ..Feedback::of(Status::Partial) };
        answer(1, AnswerBody::Feedback(feedback))
    };
    assert!(hear(&mut buying, piece(1, "b"), Msat::ZERO).is_empty());
    let steps = hear(&mut buying, piece(0, "a"), Msat::ZERO);
    assert_eq!(steps, [Step::Piece("a".into()), Step::Piece("b".into())]);
    assert!(hear(&mut buying, piece(0, "a"), Msat::ZERO).is_empty());
}
