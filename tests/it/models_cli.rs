//! Model servers as an operator meets them: found by themselves, listed, filled, configured, checked. The real program, and
//! servers that speak as the real ones do.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Output, Stdio};
use std::sync::Arc;

use coinop::identity::Signer;
use coinop::inference::echo::Echo;
use coinop::job::id::ProviderId;
use coinop::money::Msat;
use coinop::testing::market::{Customer, POCKET_MONEY, within};
use coinop::testing::ollama_server::{OllamaServer, ServedModel};
use coinop::testing::relay::TestRelay;
use coinop::wallet::fake::{FakeNetwork, FakeWallet, FakeWalletOptions};
use serde_json::Value;

use crate::walk::{Machine, ends_in_order};

/// An Ollama with these models.
async fn ollama(models: &[(&str, u64)]) -> OllamaServer {
    let served = |(name, bytes): &(&str, u64)| ServedModel { bytes: *bytes, ..ServedModel::new(name) };
    OllamaServer::start(models.iter().map(served).collect(), Arc::new(Echo::new())).await.unwrap()
}

/// A port where nothing listens.
fn nowhere() -> String {
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    format!("http://{address}")
}

/// Writes another `[inference]` section, or none.
fn rewrite_inference(machine: &Machine, section: &str) {
    let file = machine.home().join("config.toml");
    let text = fs::read_to_string(&file).unwrap();
    let (before, rest) = text.split_once("[inference]\n").unwrap();
    let (_, after) = rest.split_once("\n[wallet]\n").unwrap();
    fs::write(&file, format!("{before}{section}\n[wallet]\n{after}")).unwrap();
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

async fn run(machine: &Machine, args: &[&str], ollama_host: Option<&str>) -> Output {
    let mut command = machine.command(args);
    if let Some(host) = ollama_host {
        command.env("OLLAMA_HOST", host);
    }
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(!err(&output).contains("panicked"), "{}", err(&output));
    output
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", err(output)))
}

async fn installed(relay: &TestRelay, more: &[&str]) -> Machine {
    let machine = Machine::new();
    let relay = relay.url();
    let mut init = vec!["init", "--yes", "--play-money", "--terms", "prepay", "--relay", &relay];
    init.extend(["--base", "21sat", "--per-1k-prompt", "0", "--per-1k-generated", "0"]);
    init.extend(more);
    machine.coinop(&init).await;
    machine
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_with_an_ollama_sells_without_having_said_so() {
    let relay = TestRelay::start().await.unwrap();
    let server = ollama(&[("small:1b", 1_000_000), ("large:8b", 900_000_000)]).await;
    let machine = installed(&relay, &["--backend", "auto"]).await;
    rewrite_inference(&machine, "");
    assert!(!fs::read_to_string(machine.home().join("config.toml")).unwrap().contains("[inference]"));

    let told = machine.home().join("told");
    let serving: Child = machine
        .command(&["serve"])
        .env("OLLAMA_HOST", server.url().as_str())
        .stdout(Stdio::null())
        .stderr(fs::File::create(&told).unwrap())
        .spawn()
        .unwrap();
    within("the provider to come online", relay.wait_subscriptions(1)).await;
    let identity = machine.json(&["identity", "show", "--json"]).await;
    let provider: ProviderId = identity["public_key"].as_str().unwrap().parse().unwrap();
    let network = FakeNetwork::open(&machine.home().join("play-money.journal")).unwrap();
    let purse = FakeWalletOptions { opening_balance: POCKET_MONEY, ..FakeWalletOptions::default() };
    let purse = FakeWallet::open(&network, &[2; 32], purse).unwrap();
    let customer = Customer::join(Signer::random(), &[relay.url()], provider, purse).await;
    let result = customer.buys("found and sold").await;
    assert_eq!(result.content, "found and sold");
    assert_eq!(result.receipt.paid, Some(Msat::sat(21)));
    assert_eq!(result.receipt.model.as_deref(), Some("large:8b"), "the largest that fits");
    ends_in_order(&machine, serving).await;

    let told = fs::read_to_string(told).unwrap();
    for part in [
        "found on this machine:\n",
        "Ollama",
        "small:1b, large:8b",
        "large:8b suits this machine",
        "[[inference.endpoints]]\n  backend = \"ollama\"",
        // What else happens to run on this machine is offered too.
        "Offered: large:8b, ",
        "Customers who name no model get large:8b.",
    ] {
        assert!(told.contains(part), "{part} in {told}");
    }
    assert!(!told.contains("found and sold"), "a prompt was told: {told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_without_a_model_is_told_how_to_come_by_one() {
    let relay = TestRelay::start().await.unwrap();
    let machine = installed(&relay, &["--backend", "auto"]).await;
    rewrite_inference(&machine, &format!("[inference]\nprobe = [\"{}\"]\n", nowhere()));
    let refused = run(&machine, &["serve"], None).await;
    assert_eq!(refused.status.code(), Some(1));
    let said = err(&refused);
    assert!(said.contains("no model server was found") && said.contains("help: start a model server"), "{said}");
    let listed = run(&machine, &["models", "list"], None).await;
    assert_eq!(listed.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&listed.stdout).contains("none answers"), "{listed:?}");
    assert!(err(&listed).contains("no model server was found") && err(&listed).contains("help: start"), "{listed:?}");

    let idle = ollama(&[]).await;
    let host = idle.url().to_string();
    let refused = run(&machine, &["serve"], Some(&host)).await;
    assert!(err(&refused).contains("it has no model") && err(&refused).contains("coinop models pull"), "{refused:?}");
    idle.set_library(vec![ServedModel::new("llama3.2:1b")]);
    let pulled = run(&machine, &["models", "pull", "llama3.2:1b"], Some(&host)).await;
    assert_eq!(pulled.status.code(), Some(0), "{}", err(&pulled));
    assert!(err(&pulled).contains("pulling manifest"), "the steps, a line each: {}", err(&pulled));
    let nobody = run(&machine, &["models", "pull", "nobody:1b"], Some(&host)).await;
    assert_eq!(nobody.status.code(), Some(1));
    assert!(err(&nobody).contains("nobody:1b was not fetched") && err(&nobody).contains("help: "), "{}", err(&nobody));
    let there = json(&run(&machine, &["models", "list", "--json"], Some(&host)).await);
    assert_eq!(there["models"][0]["name"], "llama3.2:1b", "{there:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_and_models_are_listed_with_what_is_wrong_with_them() {
    let relay = TestRelay::start().await.unwrap();
    let server = ollama(&[("up:1b", 1_000_000)]).await;
    let machine = installed(&relay, &["--backend", "auto"]).await;
    let gone = nowhere();
    let section = format!(
        "[[inference.endpoints]]\nname = \"near\"\nbackend = \"ollama\"\nurl = \"{}\"\nslots = 3\n\
         [[inference.endpoints]]\nname = \"far\"\nbackend = \"openai\"\nurl = \"{gone}/v1\"\n\
         [[inference.models]]\nname = \"good\"\nupstream = \"up:1b\"\naliases = [\"best\"]\nbase = \"7sat\"\n\
         max_output_tokens = 99\n\
         [[inference.models]]\nname = \"dream\"\nendpoints = [\"far\"]\n",
        server.url()
    );
    rewrite_inference(&machine, &section);
    let listed = run(&machine, &["models", "list", "--json"], None).await;
    assert_eq!(listed.status.code(), Some(0), "{}", err(&listed));
    let listed = json(&listed);
    let endpoints = &listed["endpoints"];
    assert_eq!((&endpoints[0]["up"], &endpoints[0]["jobs_at_once"]), (&true.into(), &3.into()), "{listed:#}");
    assert_eq!((&endpoints[1]["up"], &endpoints[1]["name"]), (&false.into(), &"far".into()));
    assert!(endpoints[1]["why"].as_str().unwrap().contains("is it running?"), "{listed:#}");
    let good = &listed["models"][0];
    assert_eq!((&good["name"], &good["default"], &good["parameters"]), (&"good".into(), &true.into(), &885_888.into()));
    assert_eq!((&good["rates"]["base"], &good["bytes"]), (&7_000.into(), &1_000_000.into()), "{good:#}");
    assert_eq!(listed["models"][1]["endpoints"], serde_json::json!([]));
    assert_eq!(listed["recommendation"]["chosen"], "good");
    assert!(listed["hardware"]["memory_total"].as_u64().unwrap() > 0);

    let text = String::from_utf8(run(&machine, &["models", "list"], None).await.stdout).unwrap();
    for part in ["This machine: ", "good (default)", "down: ", "none has it", "good suits this machine"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let shown = json(&run(&machine, &["models", "show", "best", "--json"], None).await);
    assert_eq!((&shown["name"], &shown["max_output_tokens"]), (&"good".into(), &99.into()));
    let unknown = run(&machine, &["models", "show", "nobody"], None).await;
    assert_eq!(unknown.status.code(), Some(1));
    assert!(err(&unknown).contains("help: there are good, dream"), "{}", err(&unknown));
    let spaced = run(&machine, &["models", "pull", "x y"], None).await;
    assert_eq!(spaced.status.code(), Some(2), "{}", err(&spaced));
    let wrong = run(&machine, &["models", "pull", "x", "--endpoint", "far"], None).await;
    assert_eq!(wrong.status.code(), Some(2), "{}", err(&wrong));
    assert!(err(&wrong).contains("is no Ollama"), "{}", err(&wrong));

    let ad = json(&run(&machine, &["ad", "show", "--json"], None).await);
    assert!(ad.to_string().contains("good") && !ad.to_string().contains("up:1b"), "customers see public names: {ad:#}");
    let doctor = json(&run(&machine, &["doctor", "--json"], None).await);
    let checks = doctor["checks"].as_array().unwrap();
    let verdict = |check: &str, subject: Option<&str>| {
        let found = checks
            .iter()
            .find(|finding| finding["check"] == check && subject.is_none_or(|subject| finding["subject"] == subject));
        found.unwrap_or_else(|| panic!("{check}: {doctor:#}"))["verdict"].as_str().unwrap()
    };
    assert_eq!((verdict("model", Some("near")), verdict("model", Some("far"))), ("ok", "failed"));
    assert_eq!((verdict("model.tokens", Some("near")), verdict("hardware", None)), ("ok", "ok"));
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_that_are_all_down_are_named_with_why_and_what_to_do() {
    let relay = TestRelay::start().await.unwrap();
    let machine = installed(&relay, &["--backend", "auto"]).await;
    let gone = nowhere();
    let section =
        format!("[inference]\n[[inference.endpoints]]\nname = \"far\"\nbackend = \"openai\"\nurl = \"{gone}/v1\"\n");
    rewrite_inference(&machine, &section);
    let place = format!("there is no model to sell: far at {gone}/v1 (inference.endpoints[0].url): ");
    for command in [&["serve"][..], &["models", "list"], &["models", "list", "--json"]] {
        let refused = run(&machine, command, None).await;
        assert_eq!(refused.status.code(), Some(1), "{command:?}");
        let said = err(&refused);
        assert!(said.contains(&place) && said.contains("help: ") && said.contains("coinop models list"), "{said}");
    }
    rewrite_inference(&machine, "[inference]\nprobe = []\n");
    let listed = run(&machine, &["models", "list"], None).await;
    assert_eq!(listed.status.code(), Some(1));
    assert!(!String::from_utf8_lossy(&listed.stdout).contains("looked"), "nobody looked: {listed:?}");
    assert!(err(&listed).contains("inference.probe"), "{}", err(&listed));
}

#[tokio::test(flavor = "multi_thread")]
async fn init_takes_the_servers_it_is_told_of_or_finds() {
    let relay = TestRelay::start().await.unwrap();
    let server = ollama(&[("m", 1_000_000)]).await;
    let machine = Machine::new();
    let relay = relay.url();
    let init = run(&machine, &["init", "--yes", "--free", "--relay", &relay], Some(server.url().as_str())).await;
    assert_eq!(init.status.code(), Some(0), "{}", err(&init));
    let said = String::from_utf8_lossy(&init.stdout).into_owned();
    assert!(said.contains("work      ollama at ") && said.contains("default   "), "{said}");
    let config = fs::read_to_string(machine.home().join("config.toml")).unwrap();
    let url = server.url().to_string();
    assert!(config.contains(&format!("url = \"{}\"", url.trim_end_matches('/'))), "{config}");
    let checked = json(&run(&machine, &["config", "check", "--json"], None).await);
    assert_eq!((&checked["sound"], &checked["missing_to_serve"]), (&true.into(), &serde_json::json!([])));

    let told = ["init", "--yes", "--force", "--free", "--relay", &relay, "--llamacpp", "http://127.0.0.1:8080"];
    assert_eq!(run(&machine, &told, None).await.status.code(), Some(0));
    let config = fs::read_to_string(machine.home().join("config.toml")).unwrap();
    assert!(config.contains("backend = \"llamacpp\""), "{config}");
    let both = ["init", "--yes", "--force", "--ollama", "http://x", "--model", "m.gguf"];
    assert_eq!(run(&machine, &both, None).await.status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_in_the_configuration_of_models_is_told_with_its_field_and_cure() {
    let machine = Machine::new();
    fs::create_dir_all(machine.home()).unwrap();
    let text = "[inference]\nprobe = [\"ftp://x\"]\n\
                [[inference.endpoints]]\nbackend = \"ollama\"\n\
                [[inference.endpoints]]\nbackend = \"openai\"\nurl = \"http://api.example/v1\"\nkey = \"env:K\"\n\
                [[inference.endpoints]]\nbackend = \"magic\"\n\
                [[inference.models]]\nname = \"m\"\nendpoints = [\"rack\"]\nbase = \"5\"\ndigest = \"12\"\n\
                [metrics]\nlisten = \"here\"\n[limits]\njobs_running = 20000\n";
    fs::write(machine.home().join("config.toml"), text).unwrap();
    let checked = run(&machine, &["config", "check", "--json"], None).await;
    assert_eq!(checked.status.code(), Some(2));
    let problems = json(&checked)["problems"].clone();
    let problems = problems.as_array().unwrap();
    let fields: Vec<&str> = problems.iter().map(|problem| problem["field"].as_str().unwrap()).collect();
    assert_eq!(
        fields,
        [
            "inference.endpoints[0].url",
            "inference.endpoints[1].url",
            "inference.endpoints[2].backend",
            "inference.probe",
            "inference.models[0].endpoints",
            "inference.models[0].digest",
            "inference.models[0].base",
            "limits.jobs_running",
            "metrics.listen",
        ]
    );
    assert!(problems.iter().all(|problem| problem["cure"].as_str().is_some_and(|cure| !cure.is_empty())));
    let unknown = "[[inference.endpoints]]\nbackend = \"ollama\"\naddress = \"http://x\"\n";
    fs::write(machine.home().join("config.toml"), unknown).unwrap();
    let refused = run(&machine, &["config", "check"], None).await;
    assert_eq!(refused.status.code(), Some(2));
    assert!(err(&refused).contains("line 3") && err(&refused).contains("address"), "{}", err(&refused));
}
