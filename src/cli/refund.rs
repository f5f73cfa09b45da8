//! `coinop refund`: what customers have left, and paying it back.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use comfy_table::{Cell, CellAlignment};
use serde::Serialize;

use super::exit::{CommandError, Exit};
use super::{Globals, table};
use crate::daemon::lock::ServeLock;
use crate::daemon::wiring::{self, wallets};
use crate::identity::{Signer, public_key};
use crate::job::CustomerId;
use crate::ledger::{Refund, RefundState};
use crate::money::Msat;
use crate::provider::{
    Clock, RefundError, RefundOrder, RefundTerms, reconcile_refunds, refund_now, return_unasked_refunds,
};
use crate::relays::{PaymentAddresses, RelayPool};
use crate::store::Store;

const EXAMPLES: &str = "\
Without a customer: lists what customers have left, and refunds whose end is not known. It goes to --to, else to where the
customer's last request said (parameter \"refund\"), else to the lightning address of their profile. Routing fees are
the operator's, at most refund.max_fee_percent but 5 sat (over NWC: what the wallet lets them be). Works beside a running 'coinop serve', and with its wallet.

A refund is paid at most once: when the wallet does not say whether it paid, the credit stays set aside and the wallet is asked
again by 'coinop serve' and by this command.

Exit codes: 0 listed or all paid, 1 something was not paid (each reason is printed), 2 a command line to correct.

Examples:
  coinop refund
  coinop refund npub1zutzeysacnf9rru6zqwmxd54mud0k44tst6l70ja5mhv8jjumytsd2x7nu
  coinop refund 17162c921dc4d2518f9a101db33695df1afb56ab82f5ff3e5da6eec3ca5cd917 --amount 500sat --to ann@example.com
  coinop refund --all --json";

/// List customers' credit, or pay it back
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct RefundArgs {
    /// Whose credit (npub or hexadecimal)
    customer: Option<String>,
    /// Pay back this much, such as 500sat; else all there is
    #[arg(long, requires = "customer", value_name = "AMOUNT")]
    amount: Option<Msat>,
    /// Pay to this lightning address or LNURL
    #[arg(long, requires = "customer", value_name = "ADDRESS")]
    to: Option<String>,
    /// Pay back all customers
    #[arg(long, conflicts_with = "customer")]
    all: bool,
}

/// A customer with credit.
#[derive(Serialize)]
struct Creditor {
    customer: CustomerId,
    npub: String,
    credit_msat: Msat,
    /// Where their requests said it should go.
    target: Option<String>,
}

#[derive(Serialize)]
struct Owed {
    credit: Vec<Creditor>,
    under_way: Vec<Refund>,
}

/// What became of one customer's refund.
#[derive(Serialize)]
struct Outcome {
    customer: CustomerId,
    npub: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    refund: Option<Refund>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// Runs the command.
pub async fn run(args: RefundArgs, globals: &Globals) -> Result<ExitCode> {
    let customer = match &args.customer {
        None => None,
        Some(text) => Some(CustomerId(public_key::read(text).map_err(|error| CommandError::usage(error.to_string()))?)),
    };
    if customer.is_none() && !args.all {
        let owed = owed(&globals.open_store()?).await?;
        globals.print(&owed, || owed_text(&owed))?;
        return Ok(Exit::Ok.into());
    }
    let (paths, config) = globals.load_config()?;
    let store = globals.open_store()?;
    let serving = ServeLock::is_held(&paths.data_dir)?;
    // The running provider's, when it has the embedded node.
    let opened = wallets::for_command(&config, &paths, || globals.open_identity(&config)).await?;
    let opened = opened.ok_or_else(|| {
        CommandError::failure("no wallet is configured, so nothing can be paid back").help("set wallet.backend")
    })?;
    let wallet = Arc::clone(&opened.wallet);
    let pool = match &args.to {
        Some(_) => None,
        // Profiles are read in nobody's name.
        None => Some(Arc::new(RelayPool::connect(wiring::pool(&config), &Signer::random(), None).await?)),
    };
    let addresses: Arc<dyn PaymentAddresses> = match &pool {
        Some(pool) => pool.clone(),
        None => Arc::new(()),
    };
    let clock = Clock::system();
    let terms = RefundTerms {
        lnurl: wiring::lnurl(&config),
        addresses,
        max_fee_percent: config.refund.max_fee_percent,
        clock: clock.clone(),
    };
    // Doubts of earlier refunds first: they may be the very ones asked for.
    if !serving {
        return_unasked_refunds(&store, clock.now()).await?;
    }
    reconcile_refunds(&store, wallet.as_ref(), clock.now()).await?;
    let customers = match customer {
        Some(customer) => vec![customer],
        None => store.creditors(Msat::sat(1)).await?.into_iter().map(|(customer, _)| customer).collect(),
    };
    let mut outcomes = Vec::new();
    for customer in customers {
        let order = RefundOrder { customer, amount: args.amount, to: args.to.clone(), automatic_limit: None };
        outcomes.push(outcome(customer, refund_now(&store, wallet.as_ref(), &terms, order).await)?);
    }
    if let Some(pool) = pool {
        pool.shutdown().await;
    }
    drop((store, wallet));
    opened.close().await;
    globals.print(&outcomes, || outcomes_text(&outcomes))?;
    match outcomes.iter().filter(|outcome| outcome.problem.is_some()).count() {
        0 => Ok(Exit::Ok.into()),
        missed => Err(CommandError::failure(format!("{missed} of {} refunds were not paid", outcomes.len()))
            .help("the credit of those is as it was, except where the wallet did not say; 'coinop refund' lists both")
            .into()),
    }
}

fn outcome(customer: CustomerId, paid: Result<Refund, RefundError>) -> Result<Outcome> {
    let npub = public_key::npub(&customer.0);
    match paid {
        Ok(refund) => Ok(Outcome { customer, npub, refund: Some(refund), problem: None }),
        Err(RefundError::Store(problem)) => Err(problem).context("the refund could not be recorded"),
        Err(problem) => Ok(Outcome { customer, npub, refund: None, problem: Some(problem.to_string()) }),
    }
}

async fn owed(store: &Store) -> Result<Owed> {
    let mut credit = Vec::new();
    for (customer, amount) in store.creditors(Msat::msat(1)).await? {
        let target = store.refund_target(customer).await?;
        credit.push(Creditor { customer, npub: public_key::npub(&customer.0), credit_msat: amount, target });
    }
    Ok(Owed { credit, under_way: store.open_refunds().await? })
}

fn right(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

/// A stranger's text, safe on a terminal.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(80).collect()
}

fn owed_text(owed: &Owed) -> String {
    let mut text = if owed.credit.is_empty() {
        "No customer has credit.\n".to_owned()
    } else {
        let mut credit = table::new(["customer", "credit", "goes to"]);
        for line in &owed.credit {
            let target = line.target.as_deref().map_or_else(|| "as their profile says".to_owned(), plain);
            credit.add_row([Cell::new(&line.npub), right(line.credit_msat.to_string()), Cell::new(target)]);
        }
        format!("{credit}\n")
    };
    if !owed.under_way.is_empty() {
        let mut refunds = table::new(["under way since (UTC)", "customer", "amount", "to", "state"]);
        for refund in &owed.under_way {
            let state = match refund.state {
                RefundState::Reserved => "set aside, not paid",
                _ => "the wallet has not said yet",
            };
            refunds.add_row([
                Cell::new(table::time(refund.at)),
                Cell::new(public_key::npub(&refund.customer.0)),
                right(refund.amount.to_string()),
                Cell::new(plain(&refund.target)),
                Cell::new(state),
            ]);
        }
        text = format!("{text}\n{refunds}\n");
    }
    text
}

fn outcomes_text(outcomes: &[Outcome]) -> String {
    if outcomes.is_empty() {
        return "No customer has credit.\n".to_owned();
    }
    let line = |outcome: &Outcome| match (&outcome.refund, &outcome.problem) {
        (Some(refund), _) => {
            let fees = refund.fees.filter(|fees| !fees.is_zero());
            let fees = fees.map(|fees| format!(" (and {fees} in fees)")).unwrap_or_default();
            format!("Paid {}{fees} back to {} at {}\n", refund.amount, outcome.npub, plain(&refund.target))
        }
        (None, problem) => format!("{}: {}\n", outcome.npub, problem.as_deref().unwrap_or("nothing was paid")),
    };
    outcomes.iter().map(line).collect()
}
