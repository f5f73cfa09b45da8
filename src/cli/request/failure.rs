//! A purchase that ended without a result: what is said, what to do, and the exit code.

use crate::cli::exit::CommandError;
use crate::cli::table;
use crate::job::{Code, JobId};
use crate::requester::purchase::Ending;
use crate::requester::{BuyError, CalledOff, Fate, NotBegun};
use crate::store::purchases::OverBudget;
use crate::wallet::WalletError;

use super::screen::plain;

/// What to do about a payment in doubt.
const ASK_AGAIN: &str = "it is never made twice; 'coinop payments list' asks the wallet what became of it";

/// Why a request that names nobody may meet with silence, and how to find out.
pub(super) const SILENCE: &str = "whoever can't do what is asked (a model or image they do not have, a name with a typo, too \
                                  little money) says nothing to a request that names nobody: with --provider they say why";

/// How the command ends.
pub(super) fn failure(problem: &BuyError) -> CommandError {
    let told = CommandError::failure(plain(&problem.to_string()));
    match problem {
        BuyError::Ended { ending, fate } => match ending {
            Ending::Refused(refusal) => match refusal.code {
                Code::Price => told.exit(4).help("raise --bid and --max-cost, or ask somebody else"),
                _ => told.exit(3),
            },
            Ending::TooDear { .. } => told.exit(4).help("raise --max-cost, or ask for less work"),
            Ending::NoOffer => told.exit(5).help(format!(
                "try other relays (--relay), a higher --max-cost, or wait longer (--timeout); {SILENCE}"
            )),
            Ending::NoResult if *fate == Fate::Returned => told.exit(5),
            Ending::NoResult if *fate == Fate::InDoubt => told.exit(5).help(ASK_AGAIN),
            Ending::NoResult => {
                told.exit(5).help("was the invoice paid? What was paid stays with the provider as your credit")
            }
            Ending::InvoiceExpired => told.exit(5).help("nobody paid it; ask again"),
            Ending::Failed(_) if *fate == Fate::InDoubt => told.exit(6).help(ASK_AGAIN),
            Ending::Failed(_) => told.exit(6),
        },
        // It was held, and given back.
        BuyError::Payment(WalletError::PaymentFailed(_)) => {
            told.help("nothing was paid; ask again, or somebody else; --no-pay shows the invoice for another wallet")
        }
        BuyError::Payment(_) => told.help("nothing was paid; --no-pay shows the invoice for another wallet"),
        BuyError::NotBegun(NotBegun::OverBudget(over)) => told.exit(4).help(free_again(over)),
        BuyError::NotBegun(_) => told.help("nothing was paid now; see 'coinop payments list'"),
        BuyError::NotPosted(_) => told.help("see what 'coinop doctor' says of the relays"),
        BuyError::Disconnected { fate: Fate::InDoubt } => told.help(ASK_AGAIN),
        BuyError::CalledOff(_) | BuyError::Disconnected { .. } => told,
    }
}

/// How an order ended that was called off: what the provider says, what became of the money, and where to look later.
pub(super) fn called_off(how: &CalledOff, job: JobId, keeps_key: bool) -> CommandError {
    let told = match &how.word {
        Some(word) => format!("interrupted: the provider answers the cancellation: {}", plain(&word.text)),
        None if how.taken == 0 => {
            "interrupted, and no relay took the cancellation: a job that has begun goes on".to_owned()
        }
        None if how.may_be_at_work => {
            "interrupted: the cancellation is on the relays, and the provider has not answered it yet".to_owned()
        }
        None => "interrupted: the request is called off".to_owned(),
    };
    let credit = if keeps_key {
        "your credit with the provider"
    } else {
        "credit of the key made up for this request, and lost with it"
    };
    let money = match (how.fate, how.amount) {
        (Fate::Returned, Some(amount)) => format!("the payment of {amount} came back: nothing was paid"),
        (Fate::InDoubt, Some(amount)) => format!("the payment of {amount} is under way or in doubt; {ASK_AGAIN}"),
        (Fate::Paid, Some(amount)) if how.word.is_some() => {
            format!("{amount} was paid; what the provider does not charge is {credit}")
        }
        (Fate::Paid, Some(amount)) => format!(
            "{amount} was paid; what the provider does not charge becomes {credit}; 'coinop payments list' lists the payment"
        ),
        (Fate::NotPaid, Some(_)) if how.was_shown => {
            format!("do not pay the invoice any more; what was paid already becomes {credit}")
        }
        (Fate::NotPaid, None) if how.without_an_invoice && keeps_key => {
            format!("no invoice was paid; if the job ran on {credit}, what is not charged for it is credit again")
        }
        _ => "nothing was paid".to_owned(),
    };
    // Whoever looks later needs its name.
    let name = if how.word.is_none() { format!("; the request is {job}") } else { String::new() };
    CommandError::interrupted(told).help(format!("{money}{name}"))
}

/// What the customer's commands wrote before it went wrong, if the provider sent it along.
pub(super) fn log_of(problem: &BuyError) -> Option<&str> {
    match problem {
        BuyError::Ended { ending: Ending::Refused(refusal) | Ending::Failed(refusal), .. } => {
            Some(refusal.log.as_str()).filter(|log| !log.trim().is_empty())
        }
        _ => None,
    }
}

fn free_again(over: &OverBudget) -> String {
    match over.free_at {
        Some(at) => format!(
            "nothing was paid; enough is free again at {} UTC; requester.max_per_day sets the budget",
            table::time(at)
        ),
        None => "nothing was paid; it is more than the whole budget: requester.max_per_day sets it".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Refusal;
    use crate::money::Msat;

    const SILENT: CalledOff = CalledOff {
        taken: 1,
        word: None,
        may_be_at_work: true,
        amount: Some(Msat::sat(21)),
        was_shown: false,
        without_an_invoice: false,
        fate: Fate::InDoubt,
    };

    fn told(how: &CalledOff) -> String {
        let error = called_off(how, JobId([0xab; 32]), true);
        assert_eq!(error.code(), 130);
        format!("{error}; {}", error.help_text().unwrap())
    }

    #[test]
    fn what_was_called_off_says_what_is_known_of_the_money_and_where_to_look_for_the_rest() {
        let in_doubt = told(&SILENT);
        for part in ["not answered it yet", "21 sat is under way or in doubt", "coinop payments list", "abababab"] {
            assert!(in_doubt.contains(part), "{part}: {in_doubt}");
        }
        let word = Some(Refusal::new(Code::Cancelled, "cancelled as you asked; 21 sat became credit"));
        let paid = told(&CalledOff { word: word.clone(), fate: Fate::Paid, ..SILENT });
        let on_credit =
            CalledOff { word: word.clone(), amount: None, without_an_invoice: true, fate: Fate::NotPaid, ..SILENT };
        let of_no_key = called_off(&on_credit, JobId([0xab; 32]), false);
        assert_eq!(of_no_key.help_text(), Some("nothing was paid"), "a new key has no credit");
        let on_credit = told(&on_credit);
        assert!(on_credit.contains("is credit again") && !on_credit.contains("nothing was paid"), "{on_credit}");
        assert!(paid.contains("21 sat became credit") && paid.contains("21 sat was paid"), "{paid}");
        let returned = told(&CalledOff { word, fate: Fate::Returned, ..SILENT });
        assert!(returned.contains("came back: nothing was paid") && !returned.contains("abababab"), "{returned}");
        let unheard = told(&CalledOff { taken: 0, ..SILENT });
        assert!(unheard.contains("no relay took the cancellation"), "{unheard}");
        let shown = told(&CalledOff { fate: Fate::NotPaid, was_shown: true, ..SILENT });
        assert!(shown.contains("do not pay the invoice any more"), "{shown}");
        let early = told(&CalledOff { fate: Fate::NotPaid, amount: None, may_be_at_work: false, ..SILENT });
        assert!(early.contains("the request is called off; nothing was paid"), "{early}");
    }

    #[test]
    fn the_log_of_a_failed_job_is_there_for_the_customer() {
        let mut refusal = Refusal::new(Code::Backend, "the test failed");
        let ended =
            |refusal: &Refusal| BuyError::Ended { ending: Ending::Failed(refusal.clone()), fate: Fate::Returned };
        assert_eq!(log_of(&ended(&refusal)), None);
        refusal.log = "1 test failed\n".into();
        assert_eq!(log_of(&ended(&refusal)), Some("1 test failed\n"));
        assert_eq!(failure(&ended(&refusal)).code(), 6);
    }
}
