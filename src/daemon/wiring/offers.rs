//! What is sold, for how much, and what customers see of it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::TEXT_PARAMS;
use crate::config::{Config, Sale, WalletSettings};
use crate::daemon::service::AdPlan;
use crate::inference::ModelInfo;
use crate::job::admission::Rules;
use crate::job::{Compute, JobKind, Rates, Terms, Usage};
use crate::money::Msat;
use crate::nip90::handler_info::{Ad, AdParam, AdPrice, Profile};
use crate::provider::{Offer, Settings};
use crate::wallet::Wallet;

/// What customers may choose from, for the ad.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Choices {
    /// Models that write text.
    pub models: Vec<ModelInfo>,
    /// Images that cells are made from.
    pub images: Vec<String>,
}

/// A kind of job that the configuration sells, and the section it does so in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sold {
    /// Which.
    pub kind: JobKind,
    /// Where it stands.
    pub section: &'static str,
    /// How.
    pub sale: Sale,
}

/// Everything that the configuration sells.
pub fn sold(config: &Config) -> Vec<Sold> {
    let text = config.text.sale();
    let all = std::iter::once((JobKind::TextGeneration, "text", &text)).chain(config.agents.sales());
    all.filter(|(_, _, sale)| sale.enabled)
        .map(|(kind, section, sale)| Sold { kind, section, sale: sale.clone() })
        .collect()
}

/// The terms need a wallet that can do them.
///
/// # Errors
/// When it can't.
pub fn check_terms(sold: &[Sold], wallet: Option<&dyn Wallet>) -> Result<()> {
    let can = wallet.is_some_and(|wallet| wallet.capabilities().hold_invoices);
    for Sold { section, sale, .. } in sold {
        anyhow::ensure!(
            can || sale.terms != Terms::Hold || !sale.asks_for_money(),
            "{section}.terms is \"hold\", and the wallet makes no hold invoices; set it to \"prepay\" or \"postpay\""
        );
    }
    Ok(())
}

/// What each kind is offered for.
pub fn offers(sold: &[Sold]) -> BTreeMap<JobKind, Offer> {
    let offer = |sale: &Sale| Offer {
        rates: sale.rates,
        terms: sale.terms,
        free_per_day: sale.free_per_day,
        hold_for: Offer::hold_for(sale.time_limit),
    };
    sold.iter().map(|sold| (sold.kind, offer(&sold.sale))).collect()
}

/// The terms each kind is really sold on with this wallet; says where they are not those of the configuration.
pub fn terms_in_force(sold: &[Sold], wallet: Option<&dyn Wallet>) -> BTreeMap<JobKind, Terms> {
    let mut in_force = BTreeMap::new();
    for (Sold { kind, section, sale }, offer) in sold.iter().zip(offers(sold).into_values()) {
        let terms = offer.terms_with(wallet);
        if terms != sale.terms && sale.asks_for_money() {
            tracing::warn!(
                "The wallet can't hold a payment for as long as a job may take ({section}.time_limit): it is sold on {terms} \
                 terms"
            );
        }
        in_force.insert(*kind, terms);
    }
    in_force
}

/// How the provider sells.
pub(super) fn settings(config: &Config, sold: &[Sold], withheld: BTreeSet<JobKind>) -> Settings {
    Settings {
        offers: offers(sold),
        withheld,
        rules: Rules {
            allow: config.access.allow.clone(),
            deny: config.access.deny.clone(),
            on_the_house: config.access.free.clone(),
            max_queued: config.limits.jobs_queued,
            max_open_quotes: config.limits.open_quotes,
            max_per_customer: config.limits.per_customer_open,
            max_given_away: config.limits.per_customer_given_away_per_hour,
            min_pow_bits: config.access.proof_of_work,
            ..Rules::default()
        },
        jobs_running: config.limits.jobs_running.unwrap_or(0),
        payment_window: config.limits.payment_window,
        late_payment_window: config.limits.late_payment_window,
        // Play money is paid by another process, of which there is no news.
        payment_poll: match config.wallet {
            WalletSettings::PlayMoney => super::PLAY_MONEY_POLL,
            _ => Settings::default().payment_poll,
        },
        ..Settings::default()
    }
}

/// What customers see of us: an ad for each kind that is sold, on the terms in force where they are known.
pub fn ad_plan(config: &Config, sold: &[Sold], choices: &Choices, terms: &BTreeMap<JobKind, Terms>) -> AdPlan {
    let profile = &config.profile;
    let address = |url: &Option<url::Url>| url.as_ref().map(ToString::to_string);
    let name = profile.name.clone().unwrap_or_else(|| "coinop".into());
    let about = profile.about.clone();
    let ads = sold.iter().map(|Sold { kind, sale, .. }| Ad {
        kind: *kind,
        name: name.clone(),
        about: about.clone().unwrap_or_else(|| format!("{} for Lightning payments (NIP-90).", what(*kind))),
        picture: address(&profile.picture),
        website: address(&profile.website),
        lud16: profile.lud16.clone(),
        price: Some(price(config, *kind, sale, &choices.models)),
        params: params(*kind, choices),
        models: match kind {
            JobKind::TextGeneration | JobKind::CodeReview | JobKind::PatchGen => {
                choices.models.iter().map(|model| model.name.clone()).collect()
            }
            JobKind::SandboxRun | JobKind::RepoIndex => Vec::new(),
        },
        terms: vec![if sale.asks_for_money() { *terms.get(kind).unwrap_or(&sale.terms) } else { Terms::Free }],
        topics: config.ad.topics.clone(),
        encryption: true,
    });
    AdPlan {
        ads: ads.collect(),
        withheld: Vec::new(),
        // A profile is published only when the operator wrote one: it may be a person's key.
        profile: profile.name.is_some().then(|| Profile {
            name: name.clone(),
            about: about.clone().unwrap_or_else(|| "Compute for Lightning payments (NIP-90).".into()),
            picture: address(&profile.picture),
            website: address(&profile.website),
            lud16: profile.lud16.clone(),
            nip05: None,
        }),
        heartbeat: config.ad.heartbeat,
        refresh: config.ad.refresh,
        withdraw_on_shutdown: config.ad.withdraw_on_shutdown,
    }
}

/// What a kind is, for people.
const fn what(kind: JobKind) -> &'static str {
    match kind {
        JobKind::TextGeneration => "Text generation",
        JobKind::SandboxRun => "Commands in a sandbox",
        JobKind::RepoIndex => "Symbols, digests and dependencies of a repository",
        JobKind::PatchGen => "Patches that are tested before they are paid",
        JobKind::CodeReview => "Reviews of a change",
    }
}

/// What a job takes at least: nobody is asked less.
fn price(config: &Config, kind: JobKind, sale: &Sale, models: &[ModelInfo]) -> AdPrice {
    if !sale.asks_for_money() {
        return AdPrice::Free;
    }
    let least = match kind {
        JobKind::TextGeneration | JobKind::CodeReview => Usage::tokens(1, 1),
        JobKind::SandboxRun | JobKind::RepoIndex | JobKind::PatchGen => {
            Usage { compute: Compute { wall: std::time::Duration::from_secs(1), memory_mib: 0 }, ..Usage::NONE }
        }
    };
    let own = |model: &ModelInfo| config.inference.model(&model.name).and_then(|model| model.rates);
    let rates: Vec<Rates> = match kind {
        JobKind::TextGeneration if !models.is_empty() => {
            models.iter().map(|model| own(model).unwrap_or(sale.rates)).collect()
        }
        _ => vec![sale.rates],
    };
    let least = rates.iter().map(|rates| rates.cost(least)).min().unwrap_or_default();
    AdPrice::From(least.max(Msat::msat(1)))
}

fn params(kind: JobKind, choices: &Choices) -> Vec<AdParam> {
    let names: &[&str] = match kind {
        JobKind::TextGeneration => &TEXT_PARAMS,
        JobKind::SandboxRun => &[
            "git_ref",
            "cmd_0",
            "workdir",
            "image",
            "max_time_secs",
            "max_memory_mb",
            "max_disk_mb",
            "max_cpu_cores",
            "expect_exit",
            "artifact_0",
        ],
        JobKind::RepoIndex => {
            &["git_ref", "index_type_0", "include_0", "exclude_0", "max_file_size", "embedding_model"]
        }
        JobKind::PatchGen => &[
            "git_ref",
            "test_command",
            "run_tests",
            "time_limit_secs",
            "model",
            "context",
            "issue_url",
            "include_0",
            "exclude_0",
        ],
        JobKind::CodeReview => &[
            "commit_0",
            "file_0",
            "base_ref",
            "head_ref",
            "focus_0",
            "include_nits",
            "guidelines",
            "model",
            "time_limit_secs",
        ],
    };
    let param = |name: &&str| AdParam {
        name: (*name).to_owned(),
        required: false,
        values: if *name == "image" { choices.images.clone() } else { Vec::new() },
    };
    names.iter().map(param).collect()
}

/// The ads as the configuration has them, without asking anybody what works: for showing and taking back.
pub fn configured_ads(config: &Config) -> AdPlan {
    let images = config.agents.sandbox.images.iter().map(|image| image.name.clone()).collect();
    let choices = Choices { models: super::configured_models(&config.inference), images };
    ad_plan(config, &sold(config), &choices, &BTreeMap::new())
}
