//! The way of every order: identity, wallet and relays are opened, the request is posted, an offer is paid, the answer is
//! waited for, and everything is closed again. What is ordered, and what becomes of the result, is the kind's own. An
//! interruption calls the order off.

use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::SignedDuration;

use super::failure::{called_off, failure, log_of};
use super::folder;
use super::interrupt::Interrupt;
use super::options::OrderOptions;
use super::screen::{Screen, plain};
use super::wanted::Wanted;
use crate::cli::exit::CommandError;
use crate::cli::payments::PrintedReceipt;
use crate::cli::{Globals, purse};
use crate::config::{Config, Paths};
use crate::daemon::wiring;
use crate::identity::{Identity, Signer};
use crate::job::{Encryption, JobId};
use crate::money::Msat;
use crate::nip90::{Codec, Order};
use crate::provider::Clock;
use crate::relays::{PoolConfig, RelayPool};
use crate::requester::{Book, BuyError, Buyer, Choice, Limits, Plan, Receipt};
use crate::store::Closing;
use crate::wallet::Wallet;

/// How long relays get to connect before the request goes out.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// How long offers are collected after the first one, when anybody may answer.
const OFFER_WINDOW: SignedDuration = SignedDuration::from_secs(4);

/// How far before its publication answers are listened for: providers' clocks may be behind.
const ANSWER_CLOCK_SLACK: SignedDuration = SignedDuration::from_secs(600);

/// How often the line that says how long it takes is drawn anew.
const TICK: Duration = Duration::from_millis(200);

/// What offers, payment and delivery may take beside the work itself.
const BESIDE_THE_WORK: Duration = Duration::from_secs(120);

/// What was bought.
#[derive(Debug)]
pub(super) struct Bought {
    /// The purchase, with the result as it came.
    pub(super) receipt: Receipt,
    /// What proves it.
    pub(super) kept: PrintedReceipt,
    /// Whether it came after the order had been called off.
    pub(super) was_called_off: bool,
}

/// Orders what is wanted, and hands the result to `deliver`. Everything is closed when this ends, however it ends.
///
/// # Errors
/// When nothing was bought, in words that say what to do and with the exit code; or as `deliver` says.
pub(super) async fn order(
    wanted: Wanted,
    options: &OrderOptions,
    globals: &Globals,
    deliver: impl AsyncFnOnce(Bought, &Config) -> Result<ExitCode>,
) -> Result<ExitCode> {
    options.check()?;
    if let Some(out) = &options.out {
        folder::check(out, options.force)?;
    }
    if let Some(file) = &options.receipt {
        folder::check_file("--receipt", file)?;
    }
    let (paths, config) = globals.load_config_or_default()?;
    let max_cost = options.max_cost.unwrap_or(config.requester.max_cost);
    let clock = Clock::system();
    let kind = options.purse();
    let network = options.network.unwrap_or_else(|| purse::network(&config, kind));
    let identity = identity(options, &config, globals)?;
    let signer = identity.as_ref().map_or_else(Signer::random, |identity| identity.signer.clone());
    let keeps_key = identity.is_some();
    let open = || identity.map_or_else(|| globals.open_identity(&config), Ok);
    let opened = purse::wallet(&config, &paths, kind, network, open).await?;
    let wallet = opened.as_ref().map(|opened| Arc::clone(&opened.wallet));
    let (book, closing) = book(wallet.as_deref(), &config, &paths)?.unzip();
    let interrupt = Interrupt::new();
    let shop =
        Shop { options, config: &config, globals, clock, signer, keeps_key, max_cost, network, interrupt: &interrupt };
    let ordering = async {
        let ended = shop.order(wanted, wallet.as_ref(), book.as_ref(), deliver).await;
        // What was written down is on the disk when the command ends.
        drop((book, wallet));
        if let Some(opened) = opened {
            opened.close().await;
        }
        if let Some(closing) = closing {
            tokio::task::spawn_blocking(move || closing.wait()).await?;
        }
        ended
    };
    interrupt.heeding(ordering).await
}

/// How a purchase ended.
struct Ended {
    how: Result<Receipt, BuyError>,
    job: JobId,
    was_called_off: bool,
}

/// Everything that is the same whatever is bought.
struct Shop<'a> {
    options: &'a OrderOptions,
    config: &'a Config,
    globals: &'a Globals,
    clock: Clock,
    signer: Signer,
    /// Whether the key is used again: what a provider owes it is lost otherwise.
    keeps_key: bool,
    max_cost: Msat,
    network: bitcoin::Network,
    interrupt: &'a Interrupt,
}

impl Shop<'_> {
    async fn order(
        &self,
        wanted: Wanted,
        wallet: Option<&Arc<dyn Wallet>>,
        book: Option<&Book>,
        deliver: impl AsyncFnOnce(Bought, &Config) -> Result<ExitCode>,
    ) -> Result<ExitCode> {
        if let (Some(book), Some(wallet)) = (book, wallet) {
            purse::settle_doubts(book, wallet.as_ref(), self.network, self.globals).await?;
            check_budget(book, self.network, self.max_cost, &self.clock).await?;
        }
        let Ended { how, job, was_called_off } = self.buy(wanted, wallet.cloned(), book.cloned()).await?;
        match how {
            Ok(receipt) => {
                let kept = PrintedReceipt::of(&receipt, book).await?;
                if !self.globals.quiet {
                    if was_called_off {
                        eprintln!("It was done before it could be called off: here is the result.");
                    }
                    if kept.is_in_doubt() {
                        eprintln!(
                            "The wallet has not said yet whether the payment went through: 'coinop payments list' asks again."
                        );
                    }
                }
                // The result is handed over whatever becomes of the file.
                let written = self.options.receipt.as_ref().map_or(Ok(()), |path| kept.write(path));
                let written = written.map_err(|problem| match book {
                    Some(_) => CommandError::failure(format!("{problem:#}"))
                        .help(format!("'coinop payments receipt {job}' shows it again"))
                        .into(),
                    None => problem,
                });
                let delivered = deliver(Bought { receipt, kept, was_called_off }, self.config).await;
                delivered.and_then(|code| written.map(|()| code))
            }
            Err(BuyError::CalledOff(how)) => Err(called_off(&how, job, self.keeps_key).into()),
            Err(problem) => {
                if let Some(log) = log_of(&problem) {
                    eprintln!("What the job wrote at the end:\n{}\n", plain(log).trim_end());
                }
                Err(failure(&problem).into())
            }
        }
    }

    async fn buy(&self, wanted: Wanted, wallet: Option<Arc<dyn Wallet>>, book: Option<Book>) -> Result<Ended> {
        let codec = Codec::new(self.signer.clone(), wiring::read_limits(self.config));
        let relays = if self.options.relay.is_empty() {
            self.config.relays.urls.iter().map(ToString::to_string).collect()
        } else {
            self.options.relay.clone()
        };
        let pool_config = PoolConfig { relays: relays.clone(), allow_private: true, ..wiring::pool(self.config) };
        let pool = RelayPool::connect(PoolConfig { quorum: 1, ..pool_config }, &self.signer, None).await?;
        let pool = Arc::new(pool);
        if pool.connected(relays.len(), CONNECT_PATIENCE).await == 0 {
            pool.shutdown().await;
            return Err(CommandError::failure("no relay could be reached")
                .help("try others with --relay, or see what 'coinop doctor' says")
                .into());
        }
        let stream = wanted.stream;
        let timeout = self.timeout(&wanted);
        let order = self.to_order(wanted, timeout, relays)?;
        let request = codec.request(&order, self.clock.now())?;
        let job = JobId(request.id.0);
        let since = self.clock.now().checked_sub(ANSWER_CLOCK_SLACK).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let answers = pool.follow(job, order.kind, &self.options.provider, since, codec.clone());
        let plan = Plan {
            request,
            asked: self.options.provider.clone(),
            limits: Limits {
                max_cost: self.max_cost,
                offer_window: OFFER_WINDOW,
                timeout: SignedDuration::try_from(timeout).context("--timeout is too long")?,
            },
            choice: if self.options.first { Choice::First } else { Choice::Cheapest },
            max_fee_percent: self.config.requester.max_fee_percent,
            network: self.network,
        };
        let pays = wallet.is_some();
        let buyer = Buyer { publisher: pool.clone(), wallet, book, clock: self.clock.clone() };
        let mut screen = Screen::new(self.globals, pays, stream && !self.globals.json);
        let bar = screen.bar();
        let kind = order.kind;
        let cancelling = async {
            self.interrupt.called_off().await;
            codec.cancellation(job, kind, self.clock.now())
        };
        self.interrupt.ordered();
        let how = {
            let mut buying =
                pin!(buyer.buy_unless(plan, answers.readable(), cancelling, |progress| screen.show(progress)));
            let mut ticks = tokio::time::interval(TICK);
            loop {
                tokio::select! {
                    how = &mut buying => break how,
                    _ = ticks.tick(), if bar.is_some() => bar.iter().for_each(indicatif::ProgressBar::tick),
                }
            }
        };
        screen.close();
        // Relays that have not taken the cancellation yet have a while for it.
        pool.shutdown().await;
        Ok(Ended { how, job, was_called_off: self.interrupt.ended() })
    }

    /// How long is waited: as asked, or as configured, but at least as long as the job itself may take.
    fn timeout(&self, wanted: &Wanted) -> Duration {
        self.options.timeout.unwrap_or_else(|| {
            let for_the_work = wanted.time_limit.map_or(Duration::ZERO, |limit| limit.saturating_add(BESIDE_THE_WORK));
            self.config.requester.timeout.max(for_the_work)
        })
    }

    fn to_order(&self, wanted: Wanted, timeout: Duration, relays: Vec<String>) -> Result<Order> {
        let mut params = wanted.params;
        for (key, value) in &self.options.param {
            params.push(key, vec![value.clone()]);
        }
        let timeout = SignedDuration::try_from(timeout).context("--timeout is too long")?;
        Ok(Order {
            kind: wanted.kind,
            inputs: wanted.inputs,
            params,
            output: wanted.output,
            bid: Some(self.options.bid.unwrap_or(self.max_cost)).filter(|bid| !bid.is_zero()),
            providers: self.options.provider.clone(),
            relays,
            expires_at: self.clock.now().checked_add(timeout).ok(),
            encryption: self.options.encrypt.then_some(Encryption::Nip44),
        })
    }
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

/// The identity that signs, unless the request is anonymous or there is none.
fn identity(options: &OrderOptions, config: &Config, globals: &Globals) -> Result<Option<Identity>> {
    if options.anonymous {
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

/// Reads a text that was typed, or `-` for standard input.
///
/// # Errors
/// When it is empty, or can't be read.
pub(super) fn typed(text: &str, what: &str) -> Result<String> {
    use std::io::Read as _;
    let text = if text == "-" {
        let mut read = String::new();
        std::io::stdin()
            .lock()
            .read_to_string(&mut read)
            .with_context(|| format!("the {what} can't be read from standard input"))?;
        read
    } else {
        text.to_owned()
    };
    if text.trim().is_empty() {
        return Err(CommandError::usage(format!("the {what} is empty")).into());
    }
    Ok(text)
}

/// Reads a file of text, or standard input for `-`.
///
/// # Errors
/// When it can't be read, or is no text.
pub(super) fn file_or_input(path: &Path, what: &str) -> Result<String> {
    if path == Path::new("-") {
        return typed("-", what);
    }
    let text = std::fs::read_to_string(path).map_err(|problem| {
        CommandError::usage(format!("the {what} can't be read from {}: {problem}", path.display()))
    })?;
    if text.trim().is_empty() {
        return Err(CommandError::usage(format!("the {what} in {} is empty", path.display())).into());
    }
    Ok(text)
}
