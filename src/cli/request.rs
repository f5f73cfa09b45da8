//! `coinop request`: the buyer's side.

use std::io::{IsTerminal, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::SignedDuration;
use secrecy::ExposeSecret;
use serde::Serialize;

use super::exit::{CommandError, Exit};
use super::{Globals, globals, pay_screen};
use crate::config::{Config, PayFrom};
use crate::daemon::wiring;
use crate::identity::{Signer, provider_from_npub};
use crate::job::id::ProviderId;
use crate::job::{Encryption, Input, InputKind, JobId, JobKind, Params};
use crate::money::Msat;
use crate::nip90::{Codec, Order};
use crate::provider::Clock;
use crate::relays::{PoolConfig, RelayPool};
use crate::requester::purchase::Ending;
use crate::requester::{BuyError, Buyer, Choice, Limits, Plan, Progress, Receipt};
use crate::wallet::Wallet;

/// How long relays get to connect before the request goes out.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// How long offers are collected after the first one, when anybody may answer.
const OFFER_WINDOW: SignedDuration = SignedDuration::from_secs(4);

/// Routing fees allowed on top of the price: one percent, and at least this much.
const LEAST_FEE_LIMIT: Msat = Msat::sat(5);

/// How far before its publication answers are listened for: providers' clocks may be behind.
const ANSWER_CLOCK_SLACK: SignedDuration = SignedDuration::from_secs(600);

const EXAMPLES: &str = "\
The result goes to standard output, everything else to standard error. Without --provider the request goes to anybody and
the cheapest offer within --max-cost is taken. With a wallet in the configuration (requester.wallet) the invoice is paid
at once; without one it is shown, as text and QR code, for any wallet to pay.

Exit codes: 0 here is the result, 1 something failed, 2 a command line or configuration to correct, 3 refused by the
provider, 4 too dear, 5 no answer in time, 6 the provider failed after it was chosen.

Examples:
  coinop request \"theorem t (p q : Prop) (hp : p) (hq : q) : p ∧ q := by\" --max-cost 100sat
  coinop request --provider npub1… --encrypt --stream - < prompt.txt
  coinop request \"Say hello\" --play-money --relay ws://127.0.0.1:7777
  coinop request \"Say hello\" --model qwen3-4b --max-tokens 64 --json | jq -r .content";

/// Order a text and get the result
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct RequestArgs {
    /// The prompt; '-' reads it from standard input
    prompt: String,
    /// Only this provider (npub or hex); may be given several times
    #[arg(long, value_name = "NPUB", value_parser = provider_from_npub)]
    provider: Vec<ProviderId>,
    /// The most the request says it pays, such as 50sat (default: --max-cost)
    #[arg(long, value_name = "AMOUNT")]
    bid: Option<Msat>,
    /// The most that is paid, such as 100sat (default: requester.max_cost)
    #[arg(long, value_name = "AMOUNT")]
    max_cost: Option<Msat>,
    /// Encrypt prompt and result for the one provider named (NIP-44)
    #[arg(long)]
    encrypt: bool,
    /// Which model
    #[arg(long)]
    model: Option<String>,
    /// The most tokens to write
    #[arg(long, value_name = "TOKENS")]
    max_tokens: Option<u32>,
    /// Randomness, 0 to 2
    #[arg(long)]
    temperature: Option<f64>,
    /// For a repeatable answer
    #[arg(long)]
    seed: Option<u64>,
    /// Instructions ahead of the prompt
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// A text that ends the answer; may be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Another parameter as KEY=VALUE; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    param: Vec<(String, String)>,
    /// The wanted format
    #[arg(long, value_name = "MEDIA_TYPE")]
    output: Option<String>,
    /// Show the text as it is written, where the provider sends it (ours does for free jobs)
    #[arg(long)]
    stream: bool,
    /// Take the first offer that fits instead of waiting for cheaper ones
    #[arg(long)]
    first: bool,
    /// A relay to post to and listen on; may be given several times (default: relays.urls)
    #[arg(long, value_name = "URL")]
    relay: Vec<String>,
    /// How long to wait in all, such as 5m (default: requester.timeout)
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    /// Show the invoice even when a wallet is configured
    #[arg(long)]
    no_pay: bool,
    /// Pay with the play money of this installation: for a 'coinop serve' with wallet.backend = "fake" beside it
    #[arg(long, conflicts_with_all = ["no_pay", "network"])]
    play_money: bool,
    /// Sign with a key made up for this request instead of the identity (credit is lost with it)
    #[arg(long)]
    anonymous: bool,
    /// The Lightning network invoices must be of: bitcoin, testnet4, signet or regtest
    #[arg(long, value_name = "NETWORK", default_value = "bitcoin")]
    network: bitcoin::Network,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().into(), value.into())),
        _ => Err("write it as KEY=VALUE".into()),
    }
}

/// Runs the command.
pub async fn run(args: RequestArgs, globals: &Globals) -> Result<ExitCode> {
    let (paths, config) = globals.load_config_or_default()?;
    let text = prompt(&args.prompt)?;
    if args.encrypt && args.provider.len() != 1 {
        return Err(
            CommandError::usage("--encrypt needs exactly one --provider: only its key can read the request").into()
        );
    }
    let max_cost = args.max_cost.unwrap_or(config.requester.max_cost);
    let timeout = args.timeout.unwrap_or(config.requester.timeout);
    let clock = Clock::system();
    let signer = signer(&args, &config, globals)?;
    let wallet = wallet(&args, &config, &paths.data_dir).await?;
    let codec = Codec::new(signer.clone(), wiring::read_limits(&config));
    let relays = if args.relay.is_empty() {
        config.relays.urls.iter().map(ToString::to_string).collect()
    } else {
        args.relay.clone()
    };
    let pool_config = PoolConfig { relays: relays.clone(), allow_private: true, ..wiring::pool(&config) };
    let pool = RelayPool::connect(PoolConfig { quorum: 1, ..pool_config }, &signer, None).await?;
    let pool = Arc::new(pool);
    if pool.connected(relays.len(), CONNECT_PATIENCE).await == 0 {
        pool.shutdown().await;
        return Err(CommandError::failure("no relay could be reached")
            .help("try others with --relay, or see what 'coinop doctor' says")
            .into());
    }
    let order = order(&args, text, max_cost, timeout, relays, &clock)?;
    let request = codec.request(&order, clock.now())?;
    let since = clock.now().checked_sub(ANSWER_CLOCK_SLACK).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let answers = pool.follow(JobId(request.id.0), order.kind, &args.provider, since, codec);
    let plan = Plan {
        request,
        asked: args.provider.clone(),
        limits: Limits {
            max_cost,
            offer_window: OFFER_WINDOW,
            timeout: SignedDuration::try_from(timeout).context("--timeout is too long")?,
        },
        choice: if args.first { Choice::First } else { Choice::Cheapest },
        max_fee: max_cost.per(1, 100).max(LEAST_FEE_LIMIT),
        network: if args.play_money { bitcoin::Network::Regtest } else { args.network },
    };
    let pays = wallet.is_some();
    let buyer = Buyer { publisher: pool.clone(), wallet, clock };
    let mut screen = Screen { globals, pays, stream: args.stream && !globals.json, pieces: false };
    let bought = tokio::select! {
        bought = buyer.buy(plan, answers.readable(), |progress| screen.show(progress)) => bought,
        _ = tokio::signal::ctrl_c() => {
            pool.shutdown().await;
            return Err(CommandError::failure("interrupted").help("an invoice already paid is honoured by the provider").into());
        }
    };
    screen.end();
    pool.shutdown().await;
    match bought {
        Ok(receipt) => {
            report(&receipt, globals)?;
            Ok(Exit::Ok.into())
        }
        Err(problem) => Err(failure(problem).into()),
    }
}

fn prompt(typed: &str) -> Result<String> {
    let prompt = if typed == "-" {
        let mut text = String::new();
        std::io::stdin().lock().read_to_string(&mut text).context("the prompt can't be read from standard input")?;
        text
    } else {
        typed.to_owned()
    };
    if prompt.trim().is_empty() {
        return Err(CommandError::usage("the prompt is empty").into());
    }
    Ok(prompt)
}

fn signer(args: &RequestArgs, config: &Config, globals: &Globals) -> Result<Signer> {
    if args.anonymous {
        return Ok(Signer::random());
    }
    if !config.identity.keystore.exists() {
        eprintln!(
            "There is no identity: signing with a key made up for this request. What the provider owes it is lost."
        );
        return Ok(Signer::random());
    }
    Ok(globals.open_identity(config)?.signer)
}

async fn wallet(args: &RequestArgs, config: &Config, data: &Path) -> Result<Option<Arc<dyn Wallet>>> {
    if args.play_money {
        return Ok(Some(Arc::new(wiring::play_purse(data)?)));
    }
    let secret = match config.requester.wallet.as_ref().filter(|_| !args.no_pay) {
        None => return Ok(None),
        Some(PayFrom::Own) => anyhow::bail!("requester.wallet \"own\" is not wired yet"),
        Some(PayFrom::Nwc(connection)) => connection.reveal("requester.wallet")?,
    };
    Ok(Some(Arc::new(wiring::connect_nwc(secret.expose_secret()).await.context("requester.wallet")?)))
}

fn order(
    args: &RequestArgs,
    prompt: String,
    max_cost: Msat,
    timeout: Duration,
    relays: Vec<String>,
    clock: &Clock,
) -> Result<Order> {
    let mut params = Params::default();
    let mut put = |key: &str, value: String| params.push(key, vec![value]);
    if let Some(model) = &args.model {
        put("model", model.clone());
    }
    if let Some(tokens) = args.max_tokens {
        put("max_tokens", tokens.to_string());
    }
    if let Some(temperature) = args.temperature {
        put("temperature", temperature.to_string());
    }
    if let Some(seed) = args.seed {
        put("seed", seed.to_string());
    }
    if let Some(system) = &args.system {
        put("system", system.clone());
    }
    for stop in &args.stop {
        put("stop", stop.clone());
    }
    if args.stream {
        put("stream", "true".into());
    }
    for (key, value) in &args.param {
        put(key, value.clone());
    }
    let expires_at = clock.now().checked_add(SignedDuration::try_from(timeout).context("--timeout is too long")?).ok();
    Ok(Order {
        kind: JobKind::TextGeneration,
        inputs: vec![Input { data: prompt, kind: InputKind::Text, relay: None, marker: None }],
        params,
        output: args.output.clone(),
        bid: Some(args.bid.unwrap_or(max_cost)).filter(|bid| !bid.is_zero()),
        providers: args.provider.clone(),
        relays,
        expires_at,
        encryption: args.encrypt.then_some(Encryption::Nip44),
    })
}

/// What is shown while a purchase goes on: on standard error.
struct Screen<'a> {
    globals: &'a Globals,
    pays: bool,
    stream: bool,
    pieces: bool,
}

impl Screen<'_> {
    fn show(&mut self, progress: Progress) {
        let short = |provider: ProviderId| provider.to_string()[..12].to_owned();
        match progress {
            Progress::Posted(report) => {
                self.say(&format!("Posted to {} of {} relays.", report.accepted(), report.verdicts.len()));
            }
            Progress::Offered(offer) => {
                let terms = offer.terms.map_or_else(String::new, |terms| format!(" ({terms})"));
                self.say(&format!("Offer: {} by {}…{terms}", offer.amount, short(offer.provider)));
            }
            Progress::Passed { provider, why } => self.say(&format!("No offer by {}…: {why}", short(provider))),
            Progress::Chosen(offer) if self.pays => {
                self.say(&format!("Paying {} to {}…", offer.amount, short(offer.provider)));
            }
            Progress::Chosen(offer) => pay_screen::show(&offer),
            Progress::Paid { amount, fees } => {
                let fees = fees.map_or_else(String::new, |fees| format!(" and {fees} in fees"));
                self.say(&format!("Paid {amount}{fees}."));
            }
            Progress::Working { provider, text } => {
                let text = text.map_or_else(String::new, |text| format!(": {text}"));
                self.say(&format!("{}… is working{text}", short(provider)));
            }
            Progress::Refused { provider, refusal } => {
                self.say(&format!("{}… refused ({}): {refusal}", short(provider), refusal.code));
            }
            Progress::Piece(text) if self.stream => {
                self.pieces = true;
                let mut err = std::io::stderr().lock();
                // A terminal that went away does not stop a purchase.
                let _ = err.write_all(plain(&text).as_bytes()).and_then(|()| err.flush());
            }
            Progress::Piece(_) => {}
        }
    }

    fn say(&self, line: &str) {
        if !self.globals.quiet {
            eprintln!("{}", plain(line));
        }
    }

    fn end(&self) {
        if self.pieces {
            eprintln!();
        }
    }
}

/// Text of a stranger without what a terminal would obey.
pub(super) fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
}

#[derive(Serialize)]
struct Bought<'a> {
    job: JobId,
    provider: ProviderId,
    event: String,
    content: &'a str,
    paid_msat: u64,
    cost_msat: Option<u64>,
    credit_msat: Option<u64>,
    truncated: bool,
    receipt: &'a crate::nip90::Receipt,
}

fn report(receipt: &Receipt, globals: &Globals) -> Result<()> {
    let told = &receipt.result.receipt;
    let bought = Bought {
        job: receipt.job,
        provider: receipt.provider,
        event: receipt.event.to_string(),
        content: &receipt.result.content,
        paid_msat: receipt.paid.as_msat(),
        cost_msat: told.paid.map(Msat::as_msat),
        credit_msat: told.credit.map(Msat::as_msat),
        truncated: receipt.result.truncated.is_some(),
        receipt: told,
    };
    if globals.json {
        return globals.print(&bought, String::new);
    }
    if !globals.quiet {
        let mut facts = Vec::new();
        if let Some(model) = &told.model {
            facts.push(format!("model {model}"));
        }
        if let Some(usage) = told.usage {
            facts.push(format!("{} + {} tokens", usage.prompt_tokens, usage.generated_tokens));
        }
        if let Some(cost) = told.paid {
            facts.push(format!("cost {cost}"));
        }
        if let Some(credit) = told.credit.filter(|credit| !credit.is_zero()) {
            facts.push(format!("your credit there is {credit}"));
        }
        eprintln!("{}", plain(&facts.join(", ")));
    }
    if let Some((size, _)) = &receipt.result.truncated {
        eprintln!("The provider cut the result: {} of {size} bytes.", receipt.result.content.len());
    }
    // To a terminal nothing of a stranger's goes that it would obey; a pipe gets the bytes as they are.
    let content = &receipt.result.content;
    let text = if std::io::stdout().is_terminal() { plain(content) } else { content.clone() };
    globals::print(&if text.ends_with('\n') { text } else { format!("{text}\n") })
}

fn failure(problem: BuyError) -> CommandError {
    let told = CommandError::failure(plain(&problem.to_string()));
    match problem {
        BuyError::Ended { ending, .. } => match ending {
            Ending::Refused(refusal) => match refusal.code {
                crate::job::Code::Price => told.exit(4).help("raise --bid and --max-cost, or ask somebody else"),
                _ => told.exit(3),
            },
            Ending::TooDear { .. } => told.exit(4).help("raise --max-cost, or ask for fewer tokens with --max-tokens"),
            Ending::NoOffer => {
                told.exit(5).help("try other relays (--relay), a higher --max-cost, or wait longer (--timeout)")
            }
            Ending::NoResult => {
                told.exit(5).help("was the invoice paid? What was paid stays with the provider as your credit")
            }
            Ending::InvoiceExpired => told.exit(5),
            Ending::Failed(_) => told.exit(6),
        },
        BuyError::Payment(_) => told.help("nothing was paid; --no-pay shows the invoice for another wallet"),
        BuyError::NotPosted(_) => told.help("see what 'coinop doctor' says of the relays"),
        BuyError::Disconnected => told,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strangers_text_can_not_command_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\u{7}\n"), "a[2Jb\n");
    }

    #[test]
    fn a_parameter_is_written_with_an_equals_sign() {
        assert_eq!(key_value("top_k=5"), Ok(("top_k".into(), "5".into())));
        assert!(key_value("top_k").is_err());
    }
}
