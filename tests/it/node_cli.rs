//! The embedded node as its operator uses it: `coinop wallet`, alone and beside a running `coinop serve`, with real nodes.

use std::fs;

use bitcoin::{Address, Amount};
use coinop::testing::market::within;
use coinop::testing::regtest::{RawNode, Regtest, RegtestNode as _, free_address};
use coinop::testing::relay::TestRelay;
use ldk_node::lightning_invoice::{Bolt11Invoice, Bolt11InvoiceDescription, Description};
use serde_json::Value;

use crate::walk::{Machine, ends_in_order};

/// Confirmations after which a channel can be used.
const DEPTH: u32 = 6;

/// Asks again until the answer is as wanted: each asking looks at the chain.
async fn until(what: &str, machine: &Machine, args: &[&str], wanted: impl Fn(&Value) -> bool) -> Value {
    let looking = async {
        loop {
            let found = machine.json(args).await;
            if wanted(&found) {
                return found;
            }
        }
    };
    within(what, looking).await
}

async fn installed(relay: &TestRelay, regtest: &Regtest) -> Machine {
    let machine = Machine::new();
    let url = regtest.url();
    let mut init = vec!["init", "--yes", "--backend", "echo", "--ldk", &url, "--network", "regtest"];
    let relay = relay.url();
    init.extend(["--base", "21sat", "--per-1k-prompt", "0", "--per-1k-generated", "0", "--relay", &relay]);
    machine.coinop(&init).await;
    let file = machine.home().join("config.toml");
    let config = fs::read_to_string(&file).unwrap();
    assert!(config.contains("listen = []") && config.contains("terms = \"hold\""), "{config}");
    let listen = free_address().unwrap();
    fs::write(&file, config.replace("listen = []", &format!("listen = [\"{listen}\"]"))).unwrap();
    machine
}

fn sats(value: &Value) -> u64 {
    value.as_u64().unwrap() / 1_000
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_filled_tended_and_emptied_from_the_command_line() {
    let relay = TestRelay::start().await.unwrap();
    let regtest = Regtest::start().await.unwrap();
    let machine = installed(&relay, &regtest).await;
    let other = RawNode::start(&regtest.access(), |_| {});
    regtest.fund(&other, Amount::from_sat(100_000)).await;

    // Nobody serves: the command opens the node itself.
    let address = machine.json(&["wallet", "address", "--json"]).await;
    let address: Address<_> = address["address"].as_str().unwrap().parse().unwrap();
    regtest.chain().fund(&address.assume_checked(), Amount::from_sat(500_000));
    regtest.mine(1, &[&other]).await;
    let balance = machine.json(&["wallet", "balance", "--json"]).await;
    assert_eq!(sats(&balance["node"]["on_chain_total"]), 500_000);
    let doctor = machine.command(&["doctor", "--json", "--skip-model"]).output().unwrap();
    assert!(String::from_utf8_lossy(&doctor.stdout).contains("no inbound liquidity"), "it can't be paid yet");

    // Somebody serves and has the node: the commands go to its desk, and need no password.
    let serving = machine.serve();
    within("the provider to come online", relay.wait_subscriptions(1)).await;
    let to = other.address().to_string();
    let opened = machine.json(&["wallet", "open", &to, "200000sat", "--json"]).await;
    let waiting = |chain: &coinop::testing::regtest::Chain| (!chain.mempool().is_empty()).then_some(());
    within("the channel's funding", regtest.chain().until(waiting)).await;
    regtest.mine(DEPTH, &[&other]).await;
    let usable = |channels: &Value| channels[0]["usable"] == Value::Bool(true);
    let channels = until("a usable channel", &machine, &["wallet", "channels", "--json"], usable).await;
    assert_eq!((&channels[0]["id"], sats(&channels[0]["size"])), (&opened["channel"], 200_000));

    // Paying, and being paid back over the same channel.
    let about = Bolt11InvoiceDescription::Direct(Description::new("a bill".into()).unwrap());
    let bill = other.node().bolt11_payment().receive(15_000_000, &about, 600).unwrap().to_string();
    let paid = machine.json(&["wallet", "pay", &bill, "--yes", "--json"]).await;
    assert_eq!(paid["amount"], 15_000_000);
    let unasked = machine.command(&["wallet", "pay", &bill]).output().unwrap();
    assert_eq!(unasked.status.code(), Some(2), "nobody was asked");
    // What was paid is room to receive once it has left the channel for good.
    let room = |balance: &Value| sats(&balance["balance"]["receivable"]) > 10_000;
    until("room to receive", &machine, &["wallet", "balance", "--json"], room).await;
    let invoice = machine.json(&["wallet", "invoice", "7sat", "--json"]).await;
    let invoice: Bolt11Invoice = invoice["bolt11"].as_str().unwrap().parse().unwrap();
    other.node().bolt11_payment().send(&invoice, None).unwrap();
    let history = until("the payment", &machine, &["wallet", "history", "--json"], |history| {
        history["received"].as_array().is_some_and(|received| received.len() == 1)
    });
    let history = history.await;
    assert_eq!((&history["received"][0]["amount"], &history["sent"][0]["amount"]), (&7_000.into(), &15_000_000.into()));
    let balance = machine.json(&["wallet", "balance", "--json"]).await;
    assert!(sats(&balance["balance"]["receivable"]) > 10_000, "{balance}");

    // Closing it and taking the money out.
    machine.coinop(&["wallet", "close", channels[0]["id"].as_str().unwrap()]).await;
    within("the channel's closing", regtest.chain().until(waiting)).await;
    regtest.mine(DEPTH, &[&other]).await;
    until("an empty list", &machine, &["wallet", "channels", "--json"], |channels| *channels == Value::Array(vec![]))
        .await;
    ends_in_order(&machine, serving).await;

    let home = regtest.chain().height();
    let spendable = |balance: &Value| sats(&balance["node"]["on_chain_spendable"]) > 460_000;
    until("the money of the channel", &machine, &["wallet", "balance", "--json"], spendable).await;
    let away = RegtestAddress::new(&other).await;
    machine.coinop(&["wallet", "withdraw", &away.0, "all", "--yes"]).await;
    within("the withdrawal", regtest.chain().until(waiting)).await;
    assert_eq!(regtest.chain().height(), home);
    let log = fs::read_to_string(machine.home().parent().unwrap().join("log")).unwrap();
    for private in ["lnbcrt", "orbit velvet"] {
        assert!(!log.contains(private), "'{private}' is in the log: {log}");
    }
}

/// An address of the other node, as text.
struct RegtestAddress(String);

impl RegtestAddress {
    async fn new(node: &RawNode) -> Self {
        use coinop::testing::regtest::RegtestNode as _;
        Self(node.new_address().await.to_string())
    }
}
