//! The price, and where it is paid.

use anyhow::Result;

use super::answers::ask_again;
use super::args::InitArgs;
use crate::cli::exit::CommandError;
use crate::cli::prompt::Ask;
use crate::config::{RawConfig, Template};
use crate::job::Terms;
use crate::money::Msat;

/// The price and where it is paid.
pub(super) fn money(args: &InitArgs, ask: &mut dyn Ask, template: Template) -> Result<Template> {
    const CHOICES: [&str; 5] = [
        "later (the configuration says how)",
        "Nostr Wallet Connect",
        "nothing: all work is free",
        "play money: try it out with 'coinop request --play-money' on this machine",
        "a Lightning node inside coinop, its keys from your phrase",
    ];
    let prices = [&args.terms, &args.base, &args.per_1k_prompt, &args.per_1k_generated];
    let choice = if args.free {
        2
    } else if args.nwc.is_some() {
        1
    } else if args.play_money {
        3
    } else if args.ldk.is_some() {
        4
    } else {
        ask.choose("How are you paid?", &CHOICES, 0)?
    };
    let mut template = template;
    if choice == 2 && prices.iter().all(|price| price.is_none()) {
        return Ok(template.with("text.terms", "free"));
    }
    match choice {
        1 => {
            let reference = match &args.nwc {
                Some(reference) => reference.clone(),
                None => {
                    ask.text("Where does its connection string stand? (env:NAME or file:/path)", "env:COINOP_NWC")?
                }
            };
            template = template.with("wallet.backend", "nwc").with("wallet.nwc.connection", reference.trim());
        }
        3 => template = template.with("wallet.backend", "fake").with("wallet.i_know_this_is_play_money", true),
        4 => {
            let chain = match &args.ldk {
                Some(url) => url.clone(),
                None => ask.text("Address of an Esplora server on that network (https://…)", "")?,
            };
            // Held payments are the fairest terms, and this wallet can hold.
            template = template
                .with("wallet.backend", "ldk")
                .with("wallet.ldk.chain_url", chain.trim())
                .with("text.terms", Terms::Hold.word());
        }
        _ => {}
    }
    // Real money in a node is a decision of its own, made in the configuration.
    let default = if choice == 4 { Some("signet") } else { None };
    if let Some(network) = args.network.as_deref().or(default) {
        template = template.with("wallet.network", network);
        if choice == 4 && network == "bitcoin" {
            if !args.i_accept_the_risk_on_mainnet {
                return Err(CommandError::usage(
                    "the embedded node would hold real money in a program that is always online",
                )
                .help(
                    "begin with --network signet; to go on, say --i-accept-the-risk-on-mainnet and keep little in the \
                         node",
                )
                .into());
            }
            template = template.with("wallet.ldk.i_accept_the_risk_on_mainnet", true);
        }
    }
    let defaults = RawConfig::default().text;
    if let Some(terms) = &args.terms {
        template = template.with("text.terms", terms.as_str());
    }
    for (field, given, question, default) in [
        ("text.base", &args.base, "Price of a job", defaults.base),
        ("text.per_1k_prompt", &args.per_1k_prompt, "… and of 1,000 tokens read", defaults.per_1k_prompt),
        ("text.per_1k_generated", &args.per_1k_generated, "… and of 1,000 tokens written", defaults.per_1k_generated),
    ] {
        let amount = match given {
            Some(given) => given.clone(),
            None => ask_again(ask, question, &default, |answer| {
                answer.trim().parse::<Msat>().map(|_| ()).map_err(|problem| problem.to_string())
            })?,
        };
        template = template.with(field, amount.trim());
    }
    Ok(template)
}
