//! `coinop ad`: what customers find us by (NIP-89), looked at, published, taken back.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use clap::Subcommand;
use serde::Serialize;

use super::exit::{CommandError, Exit};
use super::{Globals, table};
use crate::config::{Config, Paths};
use crate::daemon::lock::ServeLock;
use crate::daemon::service::AdPlan;
use crate::daemon::wiring;
use crate::daemon::wiring::agents::{Withheld, proven_ads};
use crate::identity::Identity;
use crate::nip90::handler_info::{Ad, AdPrice, Profile};
use crate::nip90::{Codec, SignedEvent, kinds};
use crate::provider::{Advertiser, Clock};
use crate::relays::{PublishReport, Publisher, RelayPool, RelayVerdict};

const SHOW_EXAMPLES: &str = "\
Signs what 'coinop ad publish' and 'coinop serve' would publish, and publishes nothing. Sandboxes are
tried, which takes seconds; a kind whose sandbox does not work now is not offered, and is named with
the reason. The model is not loaded: its name is the configuration's. A provider that serves adds a
heartbeat (kind 11998), unless ad.heartbeat is false.

Examples:
  coinop ad show
  coinop ad show --json | jq '.events[] | select(.kind == 31990) | .content | fromjson'";

const PUBLISH_EXAMPLES: &str = "\
'coinop serve' does this by itself, at its start and every ad.refresh, when ad.enabled is true. A kind
whose sandbox does not work now is left out, is named with the reason, and an ad for it that is out
there is taken back.

Exit codes: 0 as many relays as relays.quorum took each event, 1 fewer did, or nothing that is sold works now,
2 a configuration to correct.

Examples:
  coinop ad publish
  coinop ad publish --json | jq '.events[].relays'";

const WITHDRAW_EXAMPLES: &str = "\
Asks the relays to delete the ad (NIP-09, kind 5). Profile and relay list stay: they may be a
person's. A provider that serves publishes the ad again: stop it, or set ad.enabled = false.

Exit codes: 0 as many relays as relays.quorum took it, 1 fewer did, 2 a configuration to correct.

Examples:
  coinop ad withdraw
  coinop ad withdraw --json";

/// Look at, publish or take back what customers find us by
#[derive(Debug, clap::Args)]
pub struct AdArgs {
    #[command(subcommand)]
    command: AdCommand,
}

#[derive(Debug, Subcommand)]
enum AdCommand {
    /// Print what would be published
    #[command(after_help = SHOW_EXAMPLES)]
    Show,
    /// Publish ad, relay list and (if you wrote one) profile, and print what each relay says
    #[command(after_help = PUBLISH_EXAMPLES)]
    Publish,
    /// Ask the relays to delete the ad
    #[command(after_help = WITHDRAW_EXAMPLES)]
    Withdraw,
}

/// Runs the command.
pub async fn run(args: AdArgs, globals: &Globals) -> Result<ExitCode> {
    let (paths, config) = globals.load_config()?;
    match args.command {
        AdCommand::Show => show(globals, &paths, &config).await,
        AdCommand::Publish => publish(globals, &paths, &config).await,
        AdCommand::Withdraw => withdraw(globals, &paths, config).await,
    }
}

async fn show(globals: &Globals, paths: &Paths, config: &Config) -> Result<ExitCode> {
    let identity = globals.open_identity(config)?;
    let (plan, not_offered) = proven(globals, paths, config, &identity).await?;
    let advertiser = advertiser(plan, config, &identity, Arc::new(Nowhere));
    let events = advertiser.events()?;
    let shown = Shown {
        npub: identity.npub(),
        published_by_serve: config.ad.enabled,
        events: events.iter().map(|event| serde_json::from_str(&event.json)).collect::<Result<_, _>>()?,
        not_offered,
    };
    globals.print(&shown, || {
        let mut text = summary(&advertiser, &shown.npub);
        for event in &events {
            let _ = writeln!(text, "event {}  {}", event.id, what(event.kind));
        }
        text.push_str(&left_out(&shown.not_offered));
        if !config.ad.enabled {
            text.push_str("\nad.enabled is false: 'coinop serve' does not publish it.\n");
        }
        text
    })?;
    Ok(Exit::Ok.into())
}

async fn publish(globals: &Globals, paths: &Paths, config: &Config) -> Result<ExitCode> {
    if !config.sells() {
        return Err(CommandError::usage("there is nothing to advertise: nothing is sold")
            .help("set text.enabled or that of another kind to true; to take back an ad that is out there: coinop ad withdraw")
            .into());
    }
    let identity = globals.open_identity(config)?;
    let (plan, not_offered) = proven(globals, paths, config, &identity).await?;
    let nothing_works = plan.ads.is_empty();
    let pool = connect(config, &identity).await?;
    let reports = advertiser(plan, config, &identity, pool.clone()).publish().await;
    let ended = finish(globals, config, &pool, reports?, not_offered).await?;
    if nothing_works {
        return Err(CommandError::failure("nothing is advertised: nothing that is sold can be done now")
            .help("'coinop doctor' says what is missing and what to do")
            .into());
    }
    Ok(ended)
}

/// The ads of what works now. Says that it tries the sandboxes, because that takes a while.
async fn proven(
    globals: &Globals,
    paths: &Paths,
    config: &Config,
    identity: &Identity,
) -> Result<(AdPlan, Vec<LeftOut>)> {
    if !globals.quiet && !config.agents.runtimes().is_empty() {
        eprintln!("Trying the sandboxes that are sold …");
    }
    let (plan, withheld) = proven_ads(config, paths, identity).await?;
    let left_out = |Withheld { kind, why }| LeftOut { kind: kind.request_kind(), name: kind.name(), why };
    Ok((plan, withheld.into_iter().map(left_out).collect()))
}

async fn withdraw(globals: &Globals, paths: &Paths, mut config: Config) -> Result<ExitCode> {
    let identity = globals.open_identity(&config)?;
    if config.ad.enabled && ServeLock::is_held(&paths.data_dir).unwrap_or(false) && !globals.quiet {
        eprintln!("A provider is serving and will publish the ad again: stop it, or set ad.enabled = false.");
    }
    // What is no longer sold may still be advertised.
    config.text.enabled = true;
    config.agents.advertise_all();
    let pool = connect(&config, &identity).await?;
    let plan = wiring::configured_ads(&config);
    let reports = advertiser(plan, &config, &identity, pool.clone()).withdraw().await;
    finish(globals, &config, &pool, reports?, Vec::new()).await
}

/// The relays, all of which are waited for: each one's verdict is wanted, not only the quorum's.
async fn connect(config: &Config, identity: &Identity) -> Result<Arc<RelayPool>> {
    let mut pool = wiring::pool(config);
    pool.quorum = pool.relays.len();
    Ok(Arc::new(RelayPool::connect(pool, &identity.signer, None).await.context("the relays can't be used")?))
}

fn advertiser(plan: AdPlan, config: &Config, identity: &Identity, publisher: Arc<dyn Publisher>) -> Advertiser {
    Advertiser {
        codec: Codec::new(identity.signer.clone(), wiring::read_limits(config)),
        publisher,
        clock: Clock::system(),
        ads: plan.ads,
        withheld: plan.withheld,
        profile: plan.profile,
        relays: config.relays.urls.iter().map(ToString::to_string).collect(),
        heartbeat: plan.heartbeat,
        refresh: plan.refresh,
        withdraw_on_shutdown: plan.withdraw_on_shutdown,
    }
}

/// Prints what each relay said, and fails when too few took something.
async fn finish(
    globals: &Globals,
    config: &Config,
    pool: &RelayPool,
    reports: Vec<(SignedEvent, PublishReport)>,
    not_offered: Vec<LeftOut>,
) -> Result<ExitCode> {
    let quorum = config.relays.quorum;
    let unreached: Vec<_> = pool.health().into_iter().filter(|relay| !relay.connected).collect();
    let why_silent = |url: &str| {
        let problem = unreached.iter().find(|relay| relay.url == url).map(|relay| relay.problem.as_deref());
        match problem {
            Some(Some(problem)) => format!("can't be reached: {problem}"),
            Some(None) => "can't be reached".into(),
            None => "did not answer in time".into(),
        }
    };
    let told: Vec<Told> = reports.iter().map(|(event, report)| Told::of(event, report, quorum, why_silent)).collect();
    pool.shutdown().await;
    let published = Published { quorum, events: &told, not_offered };
    globals.print(&published, || text(&told) + &left_out(&published.not_offered))?;
    let missed = told.iter().filter(|told| !told.enough).count();
    if missed == 0 {
        return Ok(Exit::Ok.into());
    }
    Err(CommandError::failure(format!("{missed} of {} events were taken by fewer than {quorum} relays", told.len()))
        .help("'coinop doctor' tries each relay; sending again is harmless")
        .into())
}

/// A way out that leads nowhere, for what is only looked at.
struct Nowhere;

#[async_trait]
impl Publisher for Nowhere {
    async fn publish(&self, _: &SignedEvent, _: &[String]) -> PublishReport {
        PublishReport::default()
    }
}

#[derive(Serialize)]
struct Shown {
    npub: String,
    /// Whether the provider publishes it by itself.
    published_by_serve: bool,
    /// Whole, signed Nostr events.
    events: Vec<serde_json::Value>,
    /// Kinds that are sold and do not work now.
    not_offered: Vec<LeftOut>,
}

/// A kind that is sold and does not work now.
#[derive(Debug, Serialize)]
struct LeftOut {
    kind: u16,
    name: &'static str,
    why: String,
}

#[derive(Serialize)]
struct Published<'a> {
    quorum: usize,
    events: &'a [Told],
    /// Kinds that are sold and do not work now.
    not_offered: Vec<LeftOut>,
}

/// What the relays said to one event.
#[derive(Debug, Serialize)]
struct Told {
    id: String,
    kind: u16,
    what: &'static str,
    accepted: usize,
    /// As many as the quorum took it.
    enough: bool,
    relays: Vec<Said>,
}

#[derive(Debug, Serialize)]
struct Said {
    relay: String,
    verdict: &'static str,
    /// Its words, or why there are none.
    why: Option<String>,
}

impl Told {
    fn of(event: &SignedEvent, report: &PublishReport, quorum: usize, why_silent: impl Fn(&str) -> String) -> Self {
        let said = |(relay, verdict): &(String, RelayVerdict)| {
            let (verdict, why) = match verdict {
                RelayVerdict::Accepted => ("accepted", None),
                RelayVerdict::Refused(words) => ("refused", Some(words.chars().filter(|c| !c.is_control()).collect())),
                RelayVerdict::Silent => ("silent", Some(why_silent(relay))),
            };
            Said { relay: relay.clone(), verdict, why }
        };
        let accepted = report.accepted();
        Self {
            id: event.id.to_string(),
            kind: event.kind,
            what: what(event.kind),
            accepted,
            enough: accepted >= quorum,
            relays: report.verdicts.iter().map(said).collect(),
        }
    }
}

fn what(kind: u16) -> &'static str {
    match kind {
        kinds::PROFILE => "profile",
        kinds::RELAY_LIST => "relay list",
        kinds::AD => "ad",
        kinds::DELETION => "withdrawal",
        _ => "event",
    }
}

/// What is not offered, for people.
fn left_out(kinds: &[LeftOut]) -> String {
    let mut text = String::new();
    for LeftOut { kind, name, why } in kinds {
        let _ = writeln!(text, "not offered now: {name} ({kind}): {why}; 'coinop doctor' says what to do");
    }
    text
}

fn text(told: &[Told]) -> String {
    let mut table = table::new(["kind", "what", "relay", "verdict"]);
    for event in told {
        for said in &event.relays {
            let verdict = match &said.why {
                Some(why) => format!("{}: {why}", said.verdict),
                None => said.verdict.into(),
            };
            table.add_row([event.kind.to_string(), event.what.into(), said.relay.clone(), verdict]);
        }
    }
    format!("{table}\n")
}

/// The ads, profile and relay list for people.
fn summary(advertiser: &Advertiser, npub: &str) -> String {
    let mut table = table::new(["", ""]);
    table.set_header(["ad of", npub]);
    if let Some(Profile { name, about, .. }) = &advertiser.profile {
        table.add_row(["profile (kind 0)", &format!("{name}: {about}")]);
    }
    table.add_row(["relays (kind 10002)", &advertiser.relays.join("\n")]);
    for ad in &advertiser.ads {
        table.add_row(["ad (kind 31990)", &Ad::identifier(ad.kind)]);
        table.add_row(["  job kind", &ad.kind.request_kind().to_string()]);
        table.add_row(["  name", &ad.name]);
        table.add_row(["  about", &ad.about]);
        let price = match ad.price {
            Some(AdPrice::From(price)) => format!("from {price}"),
            Some(AdPrice::Free) | None => "free".into(),
        };
        table.add_row(["  price", &price]);
        table.add_row(["  terms", &ad.terms.iter().map(|terms| terms.word()).collect::<Vec<_>>().join(", ")]);
        table.add_row(["  models", &ad.models.join(", ")]);
        table.add_row(["  topics", &ad.topics.join(", ")]);
        for (row, value) in [("  website", &ad.website), ("  picture", &ad.picture), ("  lud16", &ad.lud16)] {
            if let Some(value) = value {
                table.add_row([row, value]);
            }
        }
    }
    format!("{table}\n\n")
}
