//! `coinop request`: the buyer's side.

use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::SignedDuration;
use serde::Serialize;

use super::exit::{CommandError, Exit};
use super::purse::{self, PurseKind};
use super::{Globals, globals, pay_screen, payments, table};
use crate::config::{Config, Paths};
use crate::daemon::wiring;
use crate::identity::{Identity, Signer, provider_from_npub};
use crate::job::id::ProviderId;
use crate::job::{Encryption, Input, InputKind, JobId, JobKind, Params};
use crate::money::Msat;
use crate::nip90::{Codec, Order};
use crate::provider::Clock;
use crate::relays::{PoolConfig, RelayPool};
use crate::requester::purchase::Ending;
use crate::requester::{Book, BuyError, Buyer, Choice, Fate, Limits, NotBegun, Plan, Progress, Receipt};
use crate::store::Closing;
use crate::store::purchases::{OverBudget, SpendingState};
use crate::wallet::{Wallet, WalletError};

/// How long relays get to connect before the request goes out.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// How long offers are collected after the first one, when anybody may answer.
const OFFER_WINDOW: SignedDuration = SignedDuration::from_secs(4);

/// How far before its publication answers are listened for: providers' clocks may be behind.
const ANSWER_CLOCK_SLACK: SignedDuration = SignedDuration::from_secs(600);

/// How long the wallet is asked what became of a payment when the command is interrupted.
const LAST_QUESTION: Duration = Duration::from_secs(2);

/// What to do about a payment in doubt.
const ASK_AGAIN: &str = "it is never made twice; 'coinop payments list' asks the wallet what became of it";

const EXAMPLES: &str = "\
The result goes to standard output, everything else to standard error. Without --provider the request goes to anybody and
the cheapest offer within --max-cost is taken. With a wallet in the configuration (requester.wallet) the invoice is paid
at once, within requester.max_per_day; without one it is shown, as text and QR code, for any wallet to pay. What was paid,
and whether it is certain, is listed by 'coinop payments list'.

Exit codes: 0 here is the result, 1 something failed, 2 a command line or configuration to correct, 3 refused by the
provider, 4 too dear or over the budget, 5 no answer in time, 6 the provider failed after it was chosen.

Examples:
  coinop request \"theorem t (p q : Prop) (hp : p) (hq : q) : p ∧ q := by\" --max-cost 100sat
  coinop request --provider npub1… --encrypt --stream - < prompt.txt
  coinop request \"Say hello\" --play-money --relay ws://127.0.0.1:7777
  coinop request \"Say hello\" --receipt hello.json
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
    /// Show the text as it is written, where the provider sends it (what is shown is charged)
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
    /// The Lightning network invoices must be of: bitcoin, testnet4, signet or regtest (default: wallet.network)
    #[arg(long, value_name = "NETWORK")]
    network: Option<bitcoin::Network>,
    /// Write a receipt (request, result, provider, amounts, proof of payment) to this file, as JSON
    #[arg(long, value_name = "FILE")]
    receipt: Option<PathBuf>,
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
    let kind = match (args.play_money, args.no_pay) {
        (true, _) => PurseKind::PlayMoney,
        (false, true) => PurseKind::None,
        (false, false) => PurseKind::Configured,
    };
    let network = args.network.unwrap_or_else(|| purse::network(&config, kind));
    let identity = identity(&args, &config, globals)?;
    let signer = identity.as_ref().map_or_else(Signer::random, |identity| identity.signer.clone());
    let open = || identity.map_or_else(|| globals.open_identity(&config), Ok);
    let opened = purse::wallet(&config, &paths, kind, network, open).await?;
    let wallet = opened.as_ref().map(|opened| Arc::clone(&opened.wallet));
    let (book, closing) = book(wallet.as_deref(), &config, &paths)?.unzip();
    if let (Some(book), Some(wallet)) = (&book, &wallet) {
        purse::settle_doubts(book, wallet.as_ref(), network, globals).await?;
        check_budget(book, network, max_cost, &clock).await?;
    }
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
    let job = JobId(request.id.0);
    let since = clock.now().checked_sub(ANSWER_CLOCK_SLACK).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let answers = pool.follow(job, order.kind, &args.provider, since, codec);
    let plan = Plan {
        request,
        asked: args.provider.clone(),
        limits: Limits {
            max_cost,
            offer_window: OFFER_WINDOW,
            timeout: SignedDuration::try_from(timeout).context("--timeout is too long")?,
        },
        choice: if args.first { Choice::First } else { Choice::Cheapest },
        max_fee_percent: config.requester.max_fee_percent,
        network,
    };
    let pays = wallet.is_some();
    let buyer = Buyer { publisher: pool.clone(), wallet: wallet.clone(), book: book.clone(), clock: clock.clone() };
    let mut screen = Screen { globals, pays, stream: args.stream && !globals.json, written: Written::default() };
    let bought = tokio::select! {
        bought = buyer.buy(plan, answers.readable(), |progress| screen.show(progress)) => Some(bought),
        _ = tokio::signal::ctrl_c() => None,
    };
    drop(buyer);
    screen.end();
    pool.shutdown().await;
    let ended = match bought {
        Some(Ok(receipt)) => done(&receipt, book.as_ref(), &args, globals).await,
        Some(Err(problem)) => Err(failure(problem).into()),
        None => Err(interrupted(job, book.as_ref(), wallet.as_deref(), &clock).await?.into()),
    };
    // What was written down is on the disk when the command ends.
    drop((book, wallet));
    if let Some(opened) = opened {
        opened.close().await;
    }
    if let Some(closing) = closing {
        tokio::task::spawn_blocking(move || closing.wait()).await?;
    }
    ended
}

/// The book is needed to pay; without a wallet it only keeps receipts, where there is a folder for it.
fn book(wallet: Option<&dyn Wallet>, config: &Config, paths: &Paths) -> Result<Option<(Book, Closing)>> {
    if wallet.is_none() && !paths.data_dir.exists() {
        return Ok(None);
    }
    match purse::book(config, paths) {
        Err(problem) if wallet.is_none() => {
            eprintln!("No receipt will be kept: {problem:#}");
            Ok(None)
        }
        opened => opened.map(Some).context("the payments book can't be opened, and nothing is paid without it"),
    }
}

/// Nobody's work is asked for when nothing can be paid.
async fn check_budget(book: &Book, network: bitcoin::Network, max_cost: Msat, clock: &Clock) -> Result<()> {
    let Some(budget) = book.max_per_day else { return Ok(()) };
    let left = book.purchases.left(network, budget, clock.now()).await?;
    if left.is_zero() && !max_cost.is_zero() {
        return Err(CommandError::failure(format!("nothing is left of the budget of {budget} for 24 hours"))
            .exit(4)
            .help("'coinop payments list' shows what it went into; requester.max_per_day sets it")
            .into());
    }
    Ok(())
}

async fn done(receipt: &Receipt, book: Option<&Book>, args: &RequestArgs, globals: &Globals) -> Result<ExitCode> {
    let kept = payments::PrintedReceipt::of(receipt, book).await?;
    // The result is printed whatever becomes of the file.
    let written = args.receipt.as_ref().map_or(Ok(()), |path| kept.write(path));
    if kept.is_in_doubt() && !globals.quiet {
        eprintln!("The wallet has not said yet whether the payment went through: 'coinop payments list' asks again.");
    }
    report(receipt, kept.payment_state(), globals)?;
    written?;
    Ok(Exit::Ok.into())
}

/// Ctrl-C: says what became of the money, as far as the wallet can say at once.
async fn interrupted(
    job: JobId,
    book: Option<&Book>,
    wallet: Option<&dyn Wallet>,
    clock: &Clock,
) -> Result<CommandError> {
    let told = CommandError::failure("interrupted");
    let (Some(book), Some(payer)) = (book, wallet.and_then(Wallet::payer)) else {
        return Ok(told.help("an invoice already paid is honoured by the provider"));
    };
    let Some(spent) = book.purchases.of_job(job).await?.into_iter().next() else {
        return Ok(told.help("nothing was paid"));
    };
    if spent.state == SpendingState::Paying {
        book.reconcile(payer, spent.spending.network, clock.now(), LAST_QUESTION).await?;
    }
    let state = book.purchases.of_job(job).await?.first().map_or(spent.state, |spent| spent.state);
    let amount = spent.spending.amount;
    Ok(match state {
        SpendingState::Paid => told.help(format!("{amount} was paid: the provider owes you the result or credit")),
        SpendingState::Failed => told.help("the payment failed: nothing was paid"),
        SpendingState::Paying | SpendingState::Lapsed => told.help(format!(
            "the payment of {amount} is under way or in doubt; it is not made again, and the next 'coinop request' or \
             'coinop payments list' asks the wallet what became of it"
        )),
    })
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

/// The identity that signs, unless the request is anonymous or there is none.
fn identity(args: &RequestArgs, config: &Config, globals: &Globals) -> Result<Option<Identity>> {
    if args.anonymous {
        return Ok(None);
    }
    if !config.identity.keystore.exists() {
        eprintln!(
            "There is no identity: signing with a key made up for this request. What the provider owes it is lost."
        );
        return Ok(None);
    }
    globals.open_identity(config).map(Some)
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
    written: Written,
}

/// The text shown so far. What is told meanwhile waits for its next line break, so that it does not land inside a line.
#[derive(Debug, Default)]
struct Written {
    is_inside_a_line: bool,
    held: Vec<String>,
}

impl Written {
    /// A line to be told: now, or later.
    fn tell(&mut self, line: String) -> Option<String> {
        if self.is_inside_a_line {
            self.held.push(line);
            return None;
        }
        Some(line)
    }

    /// More of the text, with what was held behind its last line break.
    fn text(&mut self, text: &str) -> String {
        if text.is_empty() {
            return String::new();
        }
        let (before, after) = text.rsplit_once('\n').map_or(("", text), |(before, after)| (before, after));
        let breaks = after.len() < text.len();
        self.is_inside_a_line = !after.is_empty();
        if !breaks {
            return text.to_owned();
        }
        format!("{before}\n{}{after}", self.release())
    }

    /// Ends the line, and what was held.
    fn end(&mut self) -> String {
        let end = if std::mem::take(&mut self.is_inside_a_line) { "\n" } else { "" };
        format!("{end}{}", self.release())
    }

    fn release(&mut self) -> String {
        self.held.drain(..).map(|line| format!("{line}\n")).collect()
    }
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
            Progress::Chosen(offer) => {
                // Somebody has to see it now.
                self.end();
                pay_screen::show(&offer);
            }
            Progress::Paid { amount, fees } => {
                let fees = fees.map_or_else(String::new, |fees| format!(" and {fees} in fees"));
                self.say(&format!("Paid {amount}{fees}."));
            }
            Progress::Returned { amount } => self.say(&format!("The payment of {amount} came back: nothing was paid.")),
            // In our own words: the numbers are what counts.
            Progress::Working { provider, queue: Some(queue), .. } => {
                self.say(&format!("{}… has it waiting: {queue}", short(provider)));
            }
            Progress::Working { provider, text, queue: None } => {
                let text = text.map_or_else(String::new, |text| format!(": {text}"));
                self.say(&format!("{}… is working{text}", short(provider)));
            }
            Progress::Refused { provider, refusal } => {
                self.say(&format!("{}… refused ({}): {refusal}", short(provider), refusal.code));
            }
            Progress::Piece(text) if self.stream => {
                let text = self.written.text(&plain(&text));
                put(&text);
            }
            Progress::Piece(_) => {}
        }
    }

    fn say(&mut self, line: &str) {
        if self.globals.quiet {
            return;
        }
        if let Some(line) = self.written.tell(plain(line)) {
            put(&format!("{line}\n"));
        }
    }

    fn end(&mut self) {
        put(&self.written.end());
    }
}

/// Writes to standard error. A terminal that went away does not stop a purchase.
fn put(text: &str) {
    let mut err = std::io::stderr().lock();
    let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
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
    /// Whether the wallet has said that it was paid: `paid`, or `paying` while that is open.
    payment: Option<SpendingState>,
    cost_msat: Option<u64>,
    credit_msat: Option<u64>,
    truncated: bool,
    receipt: &'a crate::nip90::Receipt,
}

fn report(receipt: &Receipt, payment: Option<SpendingState>, globals: &Globals) -> Result<()> {
    let told = &receipt.result.receipt;
    let bought = Bought {
        job: receipt.job,
        provider: receipt.provider,
        event: receipt.event.to_string(),
        content: &receipt.result.content,
        paid_msat: receipt.paid.as_msat(),
        payment,
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
        if let Some(rate) = told.tokens_per_second {
            facts.push(format!("{rate} tokens a second"));
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
        BuyError::Ended { ending, fate } => match ending {
            Ending::Refused(refusal) => match refusal.code {
                crate::job::Code::Price => told.exit(4).help("raise --bid and --max-cost, or ask somebody else"),
                _ => told.exit(3),
            },
            Ending::TooDear { .. } => told.exit(4).help("raise --max-cost, or ask for fewer tokens with --max-tokens"),
            Ending::NoOffer => {
                told.exit(5).help("try other relays (--relay), a higher --max-cost, or wait longer (--timeout)")
            }
            Ending::NoResult if fate == Fate::Returned => told.exit(5),
            Ending::NoResult if fate == Fate::InDoubt => told.exit(5).help(ASK_AGAIN),
            Ending::NoResult => {
                told.exit(5).help("was the invoice paid? What was paid stays with the provider as your credit")
            }
            Ending::InvoiceExpired => told.exit(5).help("nobody paid it; ask again"),
            Ending::Failed(_) if fate == Fate::InDoubt => told.exit(6).help(ASK_AGAIN),
            Ending::Failed(_) => told.exit(6),
        },
        // It was held, and given back.
        BuyError::Payment(WalletError::PaymentFailed(_)) => {
            told.help("nothing was paid; ask again, or somebody else; --no-pay shows the invoice for another wallet")
        }
        BuyError::Payment(_) => told.help("nothing was paid; --no-pay shows the invoice for another wallet"),
        BuyError::NotBegun(NotBegun::OverBudget(over)) => told.exit(4).help(free_again(&over)),
        BuyError::NotBegun(_) => told.help("nothing was paid now; see 'coinop payments list'"),
        BuyError::NotPosted(_) => told.help("see what 'coinop doctor' says of the relays"),
        BuyError::Disconnected { fate: Fate::InDoubt } => told.help(ASK_AGAIN),
        BuyError::Disconnected { .. } => told,
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

    #[test]
    fn a_strangers_text_can_not_command_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\u{7}\n"), "a[2Jb\n");
    }

    #[test]
    fn what_is_told_meanwhile_never_lands_inside_a_line_of_the_text() {
        let mut written = Written::default();
        assert_eq!(written.tell("first".into()).as_deref(), Some("first"));
        assert_eq!(written.text("one "), "one ");
        assert_eq!(written.tell("paid".into()), None);
        assert_eq!(written.text("line"), "line");
        assert_eq!(written.text(".\n\nnext"), ".\n\npaid\nnext");
        assert_eq!(written.tell("done".into()), None);
        assert_eq!(written.end(), "\ndone\n");
        assert_eq!((written.end(), written.tell("later".into()).as_deref()), (String::new(), Some("later")));
    }

    #[test]
    fn a_parameter_is_written_with_an_equals_sign() {
        assert_eq!(key_value("top_k=5"), Ok(("top_k".into(), "5".into())));
        assert!(key_value("top_k").is_err());
    }
}
