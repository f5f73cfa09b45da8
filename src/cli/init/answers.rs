//! What is not said on the command line is asked: the configuration out of both.

use anyhow::Result;

use super::args::InitArgs;
use super::money::money;
use super::work::models;
use crate::cli::prompt::Ask;
use crate::config::{RawConfig, Template};
use crate::inference::detect::FoundServer;

/// The configuration: what was given, then what is answered, then the defaults.
pub(super) fn settings(args: &InitArgs, ask: &mut dyn Ask, found: &[FoundServer]) -> Result<Template> {
    let defaults = RawConfig::default();
    let mut template = Template::default();
    if let Some(account) = args.account {
        template = template.with("identity.account", i64::from(account));
    }

    let relays = if args.relays.is_empty() {
        let listed = |answer: &str| -> Vec<String> {
            answer.split([' ', ',']).filter(|url| !url.is_empty()).map(ToOwned::to_owned).collect()
        };
        let check = |answer: &str| match listed(answer).iter().find(|url| !is_relay(url)) {
            Some(bad) => Err(format!("'{bad}' is no relay: an address begins with wss:// (or ws://)")),
            None => Ok(()),
        };
        listed(&ask_again(ask, "Relays, separated by spaces", &defaults.relays.urls.join(" "), check)?)
    } else {
        args.relays.clone()
    };
    template = template.with("relays.urls", relays);

    let mut text = |template: Template, field: &str, given: Option<&String>, question: &str, default: &str| {
        let value = match given {
            Some(given) => given.clone(),
            None => ask.text(question, default)?,
        };
        Ok::<_, anyhow::Error>(template.with(field, value.trim()))
    };
    template = text(template, "profile.name", args.name.as_ref(), "Name customers see (may be empty)", "")?;
    if let Some(about) = &args.about {
        template = template.with("profile.about", about.as_str());
    }
    template = models(args, ask, found, template)?;
    if let Some(number) = args.free_per_day {
        template = template.with("text.free_per_day", i64::from(number));
    }
    money(args, ask, template)
}

/// Asks until the answer is usable; whoever cannot be asked again gets the error with everything else.
pub(super) fn ask_again(
    ask: &mut dyn Ask,
    question: &str,
    default: &str,
    check: impl Fn(&str) -> Result<(), String>,
) -> Result<String> {
    loop {
        let answer = ask.text(question, default)?;
        match check(&answer) {
            Err(problem) if ask.is_there() => ask.say(&problem)?,
            _ => return Ok(answer),
        }
    }
}

fn is_relay(url: &str) -> bool {
    url::Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "ws" | "wss") && url.has_host())
}
