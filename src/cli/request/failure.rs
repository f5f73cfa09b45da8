//! A purchase that ended without a result: what is said, what to do, and the exit code.

use crate::cli::exit::CommandError;
use crate::cli::table;
use crate::job::Code;
use crate::requester::purchase::Ending;
use crate::requester::{BuyError, Fate, NotBegun};
use crate::store::purchases::OverBudget;
use crate::wallet::WalletError;

use super::screen::plain;

/// What to do about a payment in doubt.
const ASK_AGAIN: &str = "it is never made twice; 'coinop payments list' asks the wallet what became of it";

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
            Ending::NoOffer => told.exit(5).help(
                "try other relays (--relay), a higher --max-cost, or wait longer (--timeout); whoever can't do what is \
                     asked says nothing to a request that names nobody: with --provider they say why",
            ),
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
        BuyError::Disconnected { .. } => told,
    }
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
