//! `coinop wallet`: what is in the wallet, and the channels of the embedded node.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Subcommand;
use comfy_table::{Cell, CellAlignment};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::exit::{CommandError, Exit};
use super::prompt::Terminal;
use super::request::plain;
use super::{Globals, globals, pay_screen, table};
use crate::config::Config;
use crate::daemon::wiring::wallets::{self, OpenWallet};
use crate::money::Msat;
use crate::provider::Clock;
use crate::wallet::node::{Channel, NodeAddress, NodeStatus, Peer};
use crate::wallet::{Balance, InvoiceRequest, Node, Received, Sent, Wallet, WalletError, bolt11};

/// What an invoice made by hand says when nothing else is asked. Not beginning with "coinop ": the audit takes such for jobs.
const DESCRIPTION: &str = "made by hand";

/// The least that may be paid in routing fees: below it hardly any path is found.
const LEAST_FEE_LIMIT: Msat = Msat::sat(5);

/// How long a peer may take to agree to a channel or its end.
const AGREEING: Duration = Duration::from_secs(60);

/// Between two looks at what is agreed in the background.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How long a node that ends with the command gets to hand its transaction to the chain source, which it does in the
/// background and tells nobody.
const HANDING_OVER: Duration = Duration::from_secs(3);

const ABOUT: &str = "\
The wallet is the one of [wallet] in the configuration. While 'coinop serve' runs with the embedded
node, these commands use its node; else they open the node themselves for as long as they run.

Exit codes: 0 done, 1 not (the reason is printed), 2 a command line or configuration to correct.

Examples:
  coinop wallet balance
  coinop wallet channels --json";

const BALANCE: &str = "\
What can be paid and received over Lightning, and what is on the chain, as far as the wallet says.

Examples:
  coinop wallet balance
  coinop wallet balance --json | jq .balance.spendable";

const ADDRESS: &str = "\
A new address each time. What is sent there can open channels once it is confirmed.

Examples:
  coinop wallet address
  coinop wallet address --json | jq -r .address";

const INVOICE: &str = "\
Examples:
  coinop wallet invoice 500sat
  coinop wallet invoice 500sat --description 'lunch' --expiry 1h";

const PAY: &str = "\
Asks before it pays, unless --yes. Whatever goes wrong, the same invoice is never paid twice: ask again with the same
command.

Exit codes: 0 paid, 1 not paid, 2 a command line or configuration to correct, 3 not known yet (run it again).

Examples:
  coinop wallet pay lnbc…
  coinop wallet pay lnbc… --max-fee 10sat --yes";

const CHANNELS: &str = "\
Of the embedded node only; another node's channels are shown by its own tools.

Examples:
  coinop wallet channels
  coinop wallet channels --json | jq '.[] | select(.usable | not)'";

const OPEN: &str = "\
Pays for the channel with the node's money on the chain, miners' fees on top. It can be used once its funding is
confirmed (3 to 6 blocks). What you put in is what you can pay; to be paid, let others open channels to you, or
set wallet.ldk.lsp.

Examples:
  coinop wallet open 02…@203.0.113.7:9735 200000sat
  coinop wallet open 02…@203.0.113.7:9735 200000sat --announce";

const CLOSE: &str = "\
The money goes to the chain, into this node. --force is for a peer that is gone: slower and dearer.

Examples:
  coinop wallet close 5f3a…
  coinop wallet close 5f3a… --force";

const PEERS: &str = "\
Examples:
  coinop wallet peers
  coinop wallet peers --connect 02…@203.0.113.7:9735
  coinop wallet peers --disconnect 02…";

const WITHDRAW: &str = "\
Sends the node's money on the chain to an address. What is in channels stays there: close them first.

Examples:
  coinop wallet withdraw bc1q… 100000sat
  coinop wallet withdraw bc1q… all";

const HISTORY: &str = "\
What the wallet received and paid over Lightning, as the wallet remembers it. The books are 'coinop ledger'; whether the
two agree says 'coinop ledger audit'.

Examples:
  coinop wallet history
  coinop wallet history --days 365 --json";

/// Look into the wallet, pay and be paid by hand, and tend the embedded node's channels
#[derive(Debug, clap::Args)]
#[command(after_help = ABOUT)]
pub struct WalletArgs {
    #[command(subcommand)]
    command: WalletCommand,
}

#[derive(Debug, Subcommand)]
enum WalletCommand {
    /// Show what can be paid and received
    #[command(after_help = BALANCE)]
    Balance,
    /// Make an address to put money on the chain into the embedded node
    #[command(after_help = ADDRESS)]
    Address,
    /// Make an invoice
    #[command(after_help = INVOICE)]
    Invoice {
        /// The amount with its unit, such as 500sat or 1500msat
        amount: Msat,
        /// What the payer sees
        #[arg(long, value_name = "TEXT", default_value = DESCRIPTION)]
        description: String,
        /// How long it can be paid, such as 10m or 1h
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
        expiry: Duration,
    },
    /// Pay an invoice
    #[command(after_help = PAY)]
    Pay {
        /// A BOLT 11 invoice that names its amount
        #[arg(value_name = "INVOICE")]
        bolt11: String,
        /// The most to be paid in routing fees (default: 1 % of the amount, at least 5 sat)
        #[arg(long, value_name = "AMOUNT")]
        max_fee: Option<Msat>,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// List the embedded node's channels
    #[command(after_help = CHANNELS)]
    Channels,
    /// Open a channel
    #[command(after_help = OPEN)]
    Open {
        /// To whom: node-id@host:port
        #[arg(value_name = "NODE")]
        to: NodeAddress,
        /// How much to put in, such as 200000sat
        #[arg(value_name = "AMOUNT")]
        size: Msat,
        /// Let the network know of it (needs wallet.ldk.listen and wallet.ldk.alias)
        #[arg(long)]
        announce: bool,
    },
    /// Close a channel
    #[command(after_help = CLOSE)]
    Close {
        /// The channel's id, from 'coinop wallet channels'
        #[arg(value_name = "CHANNEL")]
        id: String,
        /// Without the peer: for one that is gone
        #[arg(long)]
        force: bool,
    },
    /// List the nodes the embedded node has to do with, or change that
    #[command(after_help = PEERS)]
    Peers {
        /// Connect to a node, and keep doing so
        #[arg(long, value_name = "NODE", conflicts_with = "disconnect")]
        connect: Option<NodeAddress>,
        /// Let go of a node
        #[arg(long, value_name = "NODE-ID")]
        disconnect: Option<bitcoin::secp256k1::PublicKey>,
    },
    /// Send the embedded node's money on the chain elsewhere
    #[command(after_help = WITHDRAW)]
    Withdraw {
        /// Where to
        address: String,
        /// How much, such as 100000sat, or all
        #[arg(value_parser = amount_or_all)]
        amount: AmountOrAll,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// List what was received and paid
    #[command(after_help = HISTORY)]
    History {
        /// How far back
        #[arg(long, value_name = "DAYS", default_value_t = 30)]
        days: u16,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AmountOrAll {
    All,
    Amount(Msat),
}

fn amount_or_all(text: &str) -> Result<AmountOrAll, String> {
    match text {
        "all" => Ok(AmountOrAll::All),
        text => text.parse().map(AmountOrAll::Amount).map_err(|error| format!("{error}; or write all")),
    }
}

/// Runs the command.
pub async fn run(args: WalletArgs, globals: &Globals) -> Result<ExitCode> {
    let (paths, config) = globals.load_config()?;
    let opened = wallets::for_command(&config, &paths, || globals.open_identity(&config)).await?;
    let Some(opened) = opened else {
        return Err(CommandError::usage("there is no wallet: wallet.backend is \"none\"")
            .help("set it to \"ldk\" for a node of your own, or see docs/wallets.md for the others")
            .into());
    };
    let done = act(args.command, globals, &config, &opened).await;
    opened.close().await;
    done
}

async fn act(command: WalletCommand, globals: &Globals, config: &Config, opened: &OpenWallet) -> Result<ExitCode> {
    let wallet = &opened.wallet;
    let looks_at_the_chain = matches!(
        command,
        WalletCommand::Balance
            | WalletCommand::Channels
            | WalletCommand::Open { .. }
            | WalletCommand::Close { .. }
            | WalletCommand::Withdraw { .. }
    );
    if let Some(node) = wallet.node().filter(|_| looks_at_the_chain)
        && let Err(problem) = node.sync().await
    {
        eprintln!("The chain could not be looked at ({problem}); what follows may be old.");
    }
    match command {
        WalletCommand::Balance => balance(globals, wallet.as_ref()).await?,
        WalletCommand::Address => {
            let address = node(wallet.as_ref())?.new_address().await?;
            globals.print(&serde_json::json!({ "address": address }), || format!("{address}\n"))?;
        }
        WalletCommand::Invoice { amount, description, expiry } => {
            let request = InvoiceRequest { amount, description, expiry };
            let invoice = wallet.create_invoice(&request).await?;
            globals.print(&invoice, || format!("{}\n", invoice.bolt11))?;
            if globals::stdout_is_terminal() && !globals.json && !globals.quiet {
                pay_screen::qr(&invoice.bolt11);
            }
        }
        WalletCommand::Pay { bolt11, max_fee, yes } => {
            return pay(globals, config, wallet, &bolt11, max_fee, yes).await;
        }
        WalletCommand::Channels => {
            let channels = node(wallet.as_ref())?.channels().await?;
            globals.print(&channels, || channels_text(&channels))?;
        }
        WalletCommand::Open { to, size, announce } => {
            let node = node(wallet.as_ref())?;
            let id = node.open_channel(&to, size, announce).await?;
            if opened.is_ours {
                stay_until(node, |channels| {
                    channels.iter().any(|channel| channel.id == id && channel.funding.is_some())
                })
                .await?;
            }
            globals.print(&serde_json::json!({ "channel": id }), || {
                format!("Channel {id} is being opened; 'coinop wallet channels' says when it can be used.\n")
            })?;
        }
        WalletCommand::Close { id, force } => {
            let node = node(wallet.as_ref())?;
            node.close_channel(&id, force).await?;
            if opened.is_ours {
                stay_until(node, |channels| channels.iter().all(|channel| channel.id != id)).await?;
            }
            globals.print(&serde_json::json!({ "closing": id }), || format!("Channel {id} is being closed.\n"))?;
        }
        WalletCommand::Peers { connect, disconnect } => {
            let node = node(wallet.as_ref())?;
            if let Some(to) = connect {
                node.connect(&to).await?;
            }
            if let Some(other) = disconnect {
                node.disconnect(&other).await?;
            }
            let peers = node.peers().await?;
            globals.print(&peers, || peers_text(&peers))?;
        }
        WalletCommand::Withdraw { address, amount, yes } => {
            let node = node(wallet.as_ref())?;
            let amount = match amount {
                AmountOrAll::All => None,
                AmountOrAll::Amount(amount) => Some(amount),
            };
            let what = amount.map_or_else(|| "everything on the chain".to_owned(), |amount| amount.to_string());
            agreed(globals, yes, &format!("Send {what} to {address}?"))?;
            let txid = node.send_on_chain(&address, amount).await?;
            if opened.is_ours {
                tokio::time::sleep(HANDING_OVER).await;
            }
            globals.print(&serde_json::json!({ "txid": txid.to_string() }), || format!("{txid}\n"))?;
        }
        WalletCommand::History { days } => history(globals, wallet.as_ref(), days).await?,
    }
    Ok(Exit::Ok.into())
}

/// Keeps a node that ends with this command running until the channels are as wanted: what begins here is agreed with the
/// peer in the background. Then the transaction is handed over.
async fn stay_until(node: &dyn Node, wanted: impl Fn(&[Channel]) -> bool) -> Result<()> {
    let agreed = async {
        while !wanted(&node.channels().await?) {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        anyhow::Ok(())
    };
    match tokio::time::timeout(AGREEING, agreed).await {
        Ok(agreed) => agreed?,
        Err(_) => eprintln!("The peer has not agreed yet; it goes on when the node runs again ('coinop serve')."),
    }
    tokio::time::sleep(HANDING_OVER).await;
    Ok(())
}

/// The node, when the wallet is one of ours.
fn node(wallet: &dyn Wallet) -> Result<&dyn Node> {
    wallet.node().ok_or_else(|| {
        CommandError::failure(format!("the wallet ({}) is no node of coinop's", wallet.name()))
            .help("its own tools show and open channels; the embedded node is wallet.backend = \"ldk\"")
            .into()
    })
}

fn agreed(globals: &Globals, yes: bool, question: &str) -> Result<()> {
    if yes {
        return Ok(());
    }
    let mut terminal = Terminal::open();
    if globals.json || !terminal.is_there() {
        return Err(CommandError::usage("there is nobody to ask whether to pay").help("say --yes").into());
    }
    if terminal.confirm(question, false)? { Ok(()) } else { Err(CommandError::failure("nothing was paid").into()) }
}

#[derive(Serialize)]
struct BalanceReport<'a> {
    wallet: &'a str,
    balance: Option<Balance>,
    node: Option<NodeStatus>,
}

async fn balance(globals: &Globals, wallet: &dyn Wallet) -> Result<()> {
    let status = match wallet.node() {
        Some(node) => Some(node.status().await?),
        None => None,
    };
    let report = BalanceReport { wallet: wallet.name(), balance: wallet.balance().await?, node: status };
    globals.print(&report, || balance_text(&report))
}

fn balance_text(report: &BalanceReport<'_>) -> String {
    let mut rows = table::new(["", "amount"]);
    let mut row = |name: &str, amount: Option<Msat>| {
        let amount = amount.map_or_else(|| "not told".to_owned(), |amount| amount.to_string());
        rows.add_row([Cell::new(name), Cell::new(amount).set_alignment(CellAlignment::Right)]);
    };
    let Some(balance) = report.balance else {
        return format!("The wallet ({}) does not say what it has.\n", report.wallet);
    };
    row("can be paid", Some(balance.spendable));
    row("can be received", balance.receivable);
    if let Some(node) = &report.node {
        row("in channels, reserves included", Some(node.in_channels));
        row("on the chain, spendable", Some(node.on_chain_spendable));
        row("on the chain, all", Some(node.on_chain_total));
    } else if balance.on_chain.is_some() {
        row("on the chain", balance.on_chain);
    }
    let mut text = format!("{rows}\n");
    if let Some(node) = &report.node {
        let listening = if node.listening.is_empty() { "nobody".to_owned() } else { node.listening.join(", ") };
        let _ = writeln!(text, "Node {}, block {}, listening for {listening}.", node.node, node.height);
        if node.receivable.is_zero() {
            text.push_str(
                "Nothing can be received: let somebody open a channel to you, spend from one of yours, or set \
                 wallet.ldk.lsp.\n",
            );
        }
    }
    text
}

#[derive(Serialize)]
struct Paid {
    payment_hash: crate::wallet::PaymentHash,
    amount: Msat,
    fees: Option<Msat>,
    preimage: String,
}

async fn pay(
    globals: &Globals,
    config: &Config,
    wallet: &Arc<dyn Wallet>,
    bolt11: &str,
    max_fee: Option<Msat>,
    yes: bool,
) -> Result<ExitCode> {
    let network = wallets::network(config);
    let invoice = bolt11::read_for_paying(bolt11.trim(), network, Clock::system().now())
        .map_err(|error| CommandError::usage(format!("this invoice can't be paid: {error}")))?;
    let payer = wallet.payer().with_context(|| format!("the wallet ({}) does not pay", wallet.name()))?;
    let max_fee = max_fee.unwrap_or_else(|| invoice.amount.per(1, 100).max(LEAST_FEE_LIMIT));
    let what = invoice.description.as_deref().map(plain).unwrap_or_default();
    agreed(globals, yes, &format!("Pay {} and at most {max_fee} in fees for '{what}'?", invoice.amount))?;
    match payer.pay(&invoice.bolt11, max_fee).await {
        Ok(payment) => {
            let paid = Paid {
                payment_hash: invoice.payment_hash,
                amount: invoice.amount,
                fees: payment.fees,
                preimage: hex::encode(payment.preimage),
            };
            globals.print(&paid, || {
                let fees = paid.fees.map_or_else(String::new, |fees| format!(" and {fees} in fees"));
                format!("Paid {}{fees}.\n", paid.amount)
            })?;
            Ok(Exit::Ok.into())
        }
        Err(problem) if problem.is_definitive() => Err(not_paid(&problem).into()),
        Err(problem) => Err(CommandError::failure(format!("whether it was paid is not known: {problem}"))
            .help("run the same command again: an invoice that was paid is not paid twice")
            .exit(3)
            .into()),
    }
}

fn not_paid(problem: &WalletError) -> CommandError {
    CommandError::failure(format!("nothing was paid: {problem}")).help(match problem {
        WalletError::InsufficientFunds => "see 'coinop wallet balance'",
        WalletError::PaymentFailed(_) => "try again later, or allow more with --max-fee",
        _ => "see what 'coinop doctor' says of the wallet",
    })
}

fn channels_text(channels: &[Channel]) -> String {
    if channels.is_empty() {
        return "There are no channels. Put money on the chain into this node (coinop wallet address) and open one (coinop \
                wallet open), or set wallet.ldk.lsp to be paid through a provider's channel.\n"
            .into();
    }
    let right = |amount: Msat| Cell::new(amount.to_string()).set_alignment(CellAlignment::Right);
    let mut rows = table::new(["channel", "with", "size", "can pay", "can receive", "state"]);
    for channel in channels {
        let state = match (channel.ready, channel.usable) {
            (false, _) => "waiting for blocks",
            (true, false) => "peer away",
            (true, true) => "usable",
        };
        rows.add_row([
            Cell::new(&channel.id),
            Cell::new(&channel.peer.to_string()[..16]),
            right(channel.size),
            right(channel.spendable),
            right(channel.receivable),
            Cell::new(state),
        ]);
    }
    format!("{rows}\n")
}

fn peers_text(peers: &[Peer]) -> String {
    if peers.is_empty() {
        return "There are no peers.\n".into();
    }
    let mut rows = table::new(["node", "address", "connected"]);
    for peer in peers {
        let connected = if peer.connected { "yes" } else { "no" };
        rows.add_row([peer.node.to_string(), peer.address.clone(), connected.to_owned()]);
    }
    format!("{rows}\n")
}

#[derive(Serialize)]
struct HistoryReport {
    received: Vec<Received>,
    sent: Vec<Sent>,
}

async fn history(globals: &Globals, wallet: &dyn Wallet, days: u16) -> Result<()> {
    let history =
        wallet.history().with_context(|| format!("the wallet ({}) does not tell its history", wallet.name()))?;
    let since = Clock::system()
        .now()
        .checked_sub(SignedDuration::from_hours(i64::from(days) * 24))
        .unwrap_or(Timestamp::UNIX_EPOCH);
    let mut report = HistoryReport { received: history.received(since).await?, sent: history.sent(since).await? };
    report.received.sort_by_key(|one| one.at);
    report.sent.sort_by_key(|one| one.at);
    globals.print(&report, || history_text(&report))
}

fn history_text(report: &HistoryReport) -> String {
    if report.received.is_empty() && report.sent.is_empty() {
        return "Nothing was received or paid in that time.\n".into();
    }
    let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    let hash = |hash: &crate::wallet::PaymentHash| hash.to_string()[..16].to_owned();
    let time = |at: Option<Timestamp>| at.map_or_else(|| "not told".to_owned(), table::time);
    let mut lines: Vec<(Option<Timestamp>, [Cell; 5])> = Vec::new();
    for one in &report.received {
        let about = one.description.as_deref().map(plain).unwrap_or_default();
        let cells = [
            Cell::new(time(one.at)),
            Cell::new(hash(&one.payment_hash)),
            right(one.amount.to_string()),
            right(String::new()),
            Cell::new(about),
        ];
        lines.push((one.at, cells));
    }
    for one in &report.sent {
        let fees = one.fees.map_or_else(String::new, |fees| fees.to_string());
        let cells = [
            Cell::new(time(one.at)),
            Cell::new(hash(&one.payment_hash)),
            right(format!("-{}", one.amount)),
            right(fees),
            Cell::new(""),
        ];
        lines.push((one.at, cells));
    }
    lines.sort_by_key(|(at, _)| *at);
    let mut rows = table::new(["at (UTC)", "payment", "amount", "fees", "for"]);
    for (_, cells) in lines {
        rows.add_row(cells);
    }
    format!("{rows}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_or_an_amount_is_withdrawn() {
        assert_eq!(amount_or_all("all"), Ok(AmountOrAll::All));
        assert_eq!(amount_or_all("5sat"), Ok(AmountOrAll::Amount(Msat::sat(5))));
        assert!(amount_or_all("5").is_err());
    }

    #[test]
    fn a_wallet_that_can_receive_nothing_is_told_what_to_do() {
        let key = "02eec7245d6b7d2ccb30380bfbe2a3648cd7a942653f5aa340edcea1f283686619".parse().unwrap();
        let node = NodeStatus {
            node: key,
            listening: Vec::new(),
            height: 1,
            on_chain_spendable: Msat::ZERO,
            on_chain_total: Msat::ZERO,
            in_channels: Msat::ZERO,
            spendable: Msat::ZERO,
            receivable: Msat::ZERO,
        };
        let balance = Balance { spendable: Msat::ZERO, receivable: Some(Msat::ZERO), on_chain: None };
        let text = balance_text(&BalanceReport { wallet: "ldk", balance: Some(balance), node: Some(node) });
        assert!(text.contains("wallet.ldk.lsp"), "{text}");
    }
}
