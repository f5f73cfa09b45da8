//! Being paid: the price list, the wallet, and whether it can do what the terms ask.

use std::time::{Duration, Instant};

use super::Finding;
use crate::config::{Config, ModelSettings, Paths, TextSettings, WalletSettings};
use crate::daemon::wiring::{self, wallets};
use crate::identity::Identity;
use crate::job::{Rates, Terms, Usage};
use crate::money::Msat;
use crate::wallet::{Capabilities, InvoiceRequest, InvoiceState, Wallet};

/// What the trial invoice asks: the least every wallet knows.
const TRIAL_AMOUNT: Msat = Msat::sat(1);

/// What it says, for whoever finds it in the wallet.
const TRIAL_DESCRIPTION: &str = "coinop doctor: a check, not to be paid";

/// How long it can be paid: long enough for a slow wallet to make it and look it up, then it is gone.
const TRIAL_EXPIRY: Duration = Duration::from_secs(120);

/// A job of middling size, to show what the price list comes to.
const SAMPLE: Usage = Usage::tokens(500, 500);

/// The price list of the model that a customer gets who names none.
fn usual_rates(text: &TextSettings, models: &[ModelSettings]) -> Rates {
    models.first().and_then(|model| model.rates).unwrap_or(text.rates)
}

/// Whether the price lists of the models sold are ones to live by.
pub(super) fn price(text: &TextSettings, models: &[ModelSettings]) -> Finding {
    let check = "price";
    if !text.enabled {
        return Finding::skipped(check, "nothing is sold (text.enabled)");
    }
    let all_free = match models {
        [] => text.rates.is_free(),
        models => models.iter().all(|model| model.rates.unwrap_or(text.rates).is_free()),
    };
    match text.terms {
        Terms::Free => Finding::ok(check, "free for everybody who may order"),
        terms if all_free => Finding::warning(
            check,
            format!("the terms are {terms}, and every rate is zero: nobody will be asked to pay"),
            "set text.base, text.per_1k_prompt or text.per_1k_generated, or text.terms = \"free\"",
        ),
        terms => {
            let Usage { prompt_tokens, generated_tokens, .. } = SAMPLE;
            let cost = usual_rates(text, models).cost(SAMPLE);
            let of = models.first().map_or_else(String::new, |model| format!(" with {}", model.name));
            Finding::ok(
                check,
                format!("{terms}; {prompt_tokens} tokens read and {generated_tokens} written{of} cost {cost}"),
            )
        }
    }
}

/// Connects the wallet, sees what it can do, and has it make an invoice and look it up.
pub(super) async fn wallet(config: &Config, identity: Option<&Identity>, paths: &Paths) -> Vec<Finding> {
    let check = "wallet";
    if config.wallet == WalletSettings::None {
        let why = if config.asks_for_money() { "none is configured" } else { "none, and none is needed" };
        return vec![Finding::skipped(check, why)];
    }
    let Some(identity) = identity else {
        return vec![Finding::skipped(check, "needs the identity, which did not open")];
    };
    let began = Instant::now();
    let opened = match wallets::for_command(config, paths, || Ok(identity.clone())).await {
        Ok(Some(opened)) => opened,
        Ok(None) => return vec![Finding::skipped(check, "none is configured")],
        Err(error) => {
            let cure = "is the wallet online, and is what [wallet] says of it right and still allowed in it?";
            return vec![Finding::failed(check, format!("{error:#}"), cure)];
        }
    };
    let found = look_at(config, opened.wallet.as_ref(), began).await;
    opened.close().await;
    found
}

async fn look_at(config: &Config, wallet: &dyn Wallet, began: Instant) -> Vec<Finding> {
    let check = "wallet";
    let (name, can) = (wallet.name(), abilities(wallet.capabilities()));
    let connected = format!("{name} is there after {} ms; it can {can}", began.elapsed().as_millis());
    let mut found = vec![if config.wallet == WalletSettings::PlayMoney {
        Finding::warning(
            check,
            format!("{connected}; it is play money: nobody really pays"),
            "to earn, set wallet.backend = \"nwc\" and wallet.nwc.connection",
        )
    } else {
        Finding::ok(check, connected)
    }];
    found.push(match wiring::check_terms(&wiring::sold(config), Some(wallet)) {
        Ok(()) => Finding::ok("wallet.terms", "the wallet can do the terms of what is sold"),
        Err(error) => Finding::failed(
            "wallet.terms",
            format!("{error:#}"),
            "set the terms to \"prepay\" or \"postpay\", or use a wallet with hold invoices",
        ),
    });
    found.push(invoice(wallet).await);
    found.extend(liquidity(config, wallet).await);
    found
}

/// Whether anything can be received: a node without inbound liquidity makes invoices nobody can pay.
async fn liquidity(config: &Config, wallet: &dyn Wallet) -> Option<Finding> {
    let check = "wallet.liquidity";
    let receivable = match wallet.balance().await {
        Ok(balance) => balance?.receivable?,
        Err(error) => {
            let cure = "see whether the wallet's own tools show a balance";
            return Some(Finding::warning(check, format!("it does not say what it has: {error}"), cure));
        }
    };
    // What a job takes at least, and one of middling size.
    let usual = usual_rates(&config.text, &config.inference.models).cost(SAMPLE);
    let through_lsp = matches!(&config.wallet, WalletSettings::Ldk(ldk) if ldk.lsp.is_some());
    let cure = "get inbound liquidity: set wallet.ldk.lsp to a provider of channels (LSPS2), or have somebody open a channel \
                to the node that 'coinop wallet balance' names, or pay something from a channel of yours ('coinop wallet \
                open', 'coinop wallet pay')";
    Some(if through_lsp && receivable < usual {
        Finding::ok(check, format!("{receivable} can be received; the LSP opens a channel for what is above"))
    } else if receivable.is_zero() {
        Finding::failed(check, "there is no inbound liquidity: nobody can pay an invoice of this wallet", cure)
    } else if receivable < usual {
        Finding::warning(check, format!("only {receivable} can be received, and a middling job costs {usual}"), cure)
    } else {
        Finding::ok(check, format!("{receivable} can be received"))
    })
}

fn abilities(can: Capabilities) -> String {
    let mut text = String::from("make invoices");
    for (able, what) in
        [(can.hold_invoices, ", hold invoices too"), (can.pay, ", pay"), (can.whole_sats, "; only whole sats")]
    {
        if able {
            text.push_str(what);
        }
    }
    text
}

async fn invoice(wallet: &dyn Wallet) -> Finding {
    let check = "wallet.invoice";
    let request = InvoiceRequest { amount: TRIAL_AMOUNT, description: TRIAL_DESCRIPTION.into(), expiry: TRIAL_EXPIRY };
    let invoice = match wallet.create_invoice(&request).await {
        Ok(invoice) => invoice,
        Err(error) => {
            let cure = "allow this connection to make invoices (make_invoice), and see that the wallet can receive";
            return Finding::failed(check, format!("no invoice over {TRIAL_AMOUNT}: {error}"), cure);
        }
    };
    match wallet.look_up(&invoice.payment_hash).await {
        Ok(InvoiceState::Open) => {
            Finding::ok(check, format!("made an invoice over {TRIAL_AMOUNT} (never to be paid) and finds it again"))
        }
        Ok(InvoiceState::Held { .. } | InvoiceState::Settled { .. }) => Finding::failed(
            check,
            "says that an invoice nobody has seen is paid",
            "do not sell with this wallet: it would give work away; report it to its makers",
        ),
        Ok(InvoiceState::Expired | InvoiceState::Cancelled) => Finding::failed(
            check,
            format!("says that an invoice is over which can be paid for {} s", TRIAL_EXPIRY.as_secs()),
            "set the clocks of this machine and of the wallet",
        ),
        Err(error) => Finding::failed(
            check,
            format!("made an invoice over {TRIAL_AMOUNT} and does not find it again: {error}"),
            "allow this connection to look invoices up (lookup_invoice): without it no payment is noticed",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;
    use crate::job::JobKind;
    use crate::wallet::fake::{FakeNetwork, FakeWallet, FakeWalletOptions};

    fn text(terms: Terms, base: Msat) -> TextSettings {
        TextSettings {
            enabled: true,
            terms,
            rates: Rates { base, ..Rates::default() },
            free_per_day: 0,
            max_input_bytes: 1,
            max_output_tokens: 1,
            default_output_tokens: 1,
            time_limit: Duration::from_secs(1),
        }
    }

    #[test]
    fn a_price_list_of_nothing_is_worth_a_word_unless_work_is_free() {
        assert_eq!(price(&text(Terms::Prepay, Msat::ZERO), &[]).verdict, Verdict::Warning);
        assert_eq!(price(&text(Terms::Free, Msat::ZERO), &[]).verdict, Verdict::Ok);
        let paid = price(&text(Terms::Prepay, Msat::sat(2)), &[]);
        assert_eq!((paid.verdict, paid.finding.contains("2 sat")), (Verdict::Ok, true), "{paid:?}");
        let own = |base| ModelSettings {
            name: "m".into(),
            upstream: "m".into(),
            aliases: Vec::new(),
            endpoints: Vec::new(),
            context: None,
            parameters: None,
            digest: None,
            at_once: None,
            max_output_tokens: None,
            rates: Some(Rates { base, ..Rates::default() }),
        };
        let default = price(&text(Terms::Prepay, Msat::sat(2)), &[own(Msat::sat(7))]);
        assert!(default.finding.contains("with m cost 7 sat"), "{default:?}");
        let given_away = price(&text(Terms::Prepay, Msat::sat(2)), &[own(Msat::ZERO)]);
        assert_eq!(given_away.verdict, Verdict::Warning, "the models sold cost nothing");
    }

    fn wallet() -> FakeWallet {
        FakeWallet::open(&FakeNetwork::in_memory(), &[7; 32], FakeWalletOptions::default()).unwrap()
    }

    #[tokio::test]
    async fn a_wallet_makes_an_invoice_and_finds_it_again_and_the_invoice_is_not_shown() {
        let found = invoice(&wallet()).await;
        assert_eq!(found.verdict, Verdict::Ok, "{found:?}");
        assert!(!found.finding.contains("lnbc"), "{found:?}");
    }

    #[tokio::test]
    async fn terms_the_wallet_cannot_do_are_found_before_a_customer_finds_them() {
        let options = FakeWalletOptions { hold_invoices: false, ..FakeWalletOptions::default() };
        let plain = FakeWallet::open(&FakeNetwork::in_memory(), &[7; 32], options).unwrap();
        let sale = text(Terms::Hold, Msat::sat(2)).sale();
        let sold = [wiring::offers::Sold { kind: JobKind::TextGeneration, section: "text", sale }];
        assert!(wiring::check_terms(&sold, Some(&plain)).is_err());
        assert!(wiring::check_terms(&sold, Some(&wallet())).is_ok());
    }
}
