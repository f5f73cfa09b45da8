//! `coinop doctor` and `coinop ad` as an operator uses them: the real program, a real relay and play money.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;

use assert_cmd::Command;
use coinop::daemon::lock::ServeLock;
use coinop::money::Msat;
use coinop::store::Store;
use coinop::testing::nwc_service::{NwcService, NwcServiceOptions};
use coinop::testing::relay::{RelayRules, TestRelay};
use coinop::wallet::fake::{FakeNetwork, FakeWallet, FakeWalletOptions};
use nostr::{Event, Filter, JsonUtil, Kind};
use serde_json::Value;
use tempfile::TempDir;

const PASSWORD: &str = "orbit velvet tundra seven";
const WORDS: &str = "leader monkey parrot ring guide accident before fence cannon height naive bean";
const NPUB: &str = "npub1zutzeysacnf9rru6zqwmxd54mud0k44tst6l70ja5mhv8jjumytsd2x7nu";

/// What an installation is made with: a provider of echoes for play money.
const SELLER: [&str; 9] =
    ["--backend", "echo", "--play-money", "--terms", "prepay", "--base", "2sat", "--name", "Echo & Sons"];

struct Installation {
    folder: TempDir,
}

struct Ended {
    code: i32,
    out: String,
    err: String,
}

impl Installation {
    /// `coinop init`, without asking.
    async fn new(relays: &[&str], options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("pw"), PASSWORD).unwrap();
        fs::write(folder.path().join("words"), WORDS).unwrap();
        let installation = Self { folder };
        let words = installation.folder.path().join("words");
        let mut args = vec!["init", "--yes", "--phrase-file", words.to_str().unwrap()];
        args.extend(relays.iter().flat_map(|relay| ["--relay", relay]));
        args.extend(options);
        let done = installation.coinop(&args).await;
        assert_eq!(done.code, 0, "{}", done.err);
        installation
    }

    fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// Changes one line of the configuration.
    fn set(&self, line: &str, new: &str) {
        let file = self.home().join("config.toml");
        let before = fs::read_to_string(&file).unwrap();
        assert_eq!(before.matches(line).count(), 1, "{line} in {before}");
        fs::write(&file, before.replace(line, new)).unwrap();
    }

    /// Runs the program while the relays of the test go on.
    async fn coinop(&self, args: &[&str]) -> Ended {
        let mut command = Command::cargo_bin("coinop").unwrap();
        command.env_clear().arg("--home").arg(self.home()).arg("--password-file").arg(self.folder.path().join("pw"));
        command.args(args);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let ended = Ended {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        };
        for secret in [PASSWORD, "leader monkey", "lnbc", "nsec1", "panicked"] {
            assert!(!ended.out.contains(secret) && !ended.err.contains(secret), "{secret}: {}{}", ended.out, ended.err);
        }
        ended
    }

    /// `coinop doctor --json`.
    async fn doctor(&self) -> Diagnosis {
        let ended = self.coinop(&["doctor", "--json"]).await;
        let report: Value = serde_json::from_str(&ended.out).unwrap_or_else(|_| panic!("{}{}", ended.out, ended.err));
        assert_eq!(report["healthy"], ended.code == 0);
        for check in report["checks"].as_array().unwrap() {
            let bad = check["verdict"] == "failed" || check["verdict"] == "warning";
            assert_eq!(check["cure"].is_string(), bad, "{check}");
        }
        Diagnosis { code: ended.code, report, progress: ended.err }
    }
}

struct Diagnosis {
    code: i32,
    report: Value,
    progress: String,
}

impl Diagnosis {
    fn all(&self, check: &str, subject: Option<&str>) -> Vec<&Value> {
        let of = |finding: &&Value| {
            finding["check"] == check && subject.is_none_or(|subject| finding["subject"].as_str() == Some(subject))
        };
        self.report["checks"].as_array().unwrap().iter().filter(of).collect()
    }

    /// The only finding of a check.
    fn the(&self, check: &str, subject: Option<&str>) -> (&str, &str) {
        let found = self.all(check, subject);
        assert_eq!(found.len(), 1, "{check}: {:#}", self.report);
        (found[0]["verdict"].as_str().unwrap(), found[0]["finding"].as_str().unwrap())
    }

    fn verdict(&self, check: &str) -> &str {
        self.the(check, None).0
    }
}

/// As the configuration writes it.
fn address(relay: &TestRelay) -> String {
    format!("{}/", relay.url())
}

fn ads() -> Filter {
    Filter::new().kind(Kind::from_u16(31_990))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_installation_is_healthy_and_its_ad_is_followed_from_nowhere_to_the_relays_and_back() {
    let relay = TestRelay::start().await.unwrap();
    let here = Installation::new(&[&relay.url()], &SELLER).await;

    let first = here.doctor().await;
    assert_eq!(first.code, 0, "{:#}", first.report);
    for check in ["config", "identity", "ready", "data", "provider", "database", "price", "model"] {
        assert_eq!(first.verdict(check), "ok", "{check}");
    }
    for check in ["relay", "relay.accepts", "wallet.terms", "wallet.invoice"] {
        assert_eq!(first.verdict(check), "ok", "{check}");
    }
    assert!(first.the("identity", None).1.contains(NPUB));
    assert!(first.all("permissions", None).iter().all(|finding| finding["verdict"] == "ok"), "{:#}", first.report);
    assert_eq!(first.verdict("wallet"), "warning", "play money is worth a word");
    assert_eq!(first.verdict("ad"), "warning", "nobody finds us yet");
    assert!(first.progress.contains("relay ws://127.0.0.1") && first.progress.contains("wallet"), "{}", first.progress);
    assert!(!here.home().join("coinop.db").exists() && !here.home().join("serve.lock").exists(), "doctor made a file");
    assert!(relay.events(Filter::new()).await.is_empty(), "doctor left something on the relay");

    let published = here.coinop(&["ad", "publish"]).await;
    assert_eq!(published.code, 0, "{}", published.err);
    assert!(published.out.contains("accepted") && published.out.contains("31990"), "{}", published.out);
    let mut kinds: Vec<u16> = relay.events(Filter::new()).await.iter().map(|event| event.kind.as_u16()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, [0, 10_002, 31_990]);
    assert_eq!(here.doctor().await.verdict("ad"), "ok");

    here.set("base = \"2sat\"\nper_1k_prompt", "base = \"3sat\"\nper_1k_prompt");
    let dearer = here.doctor().await;
    assert_eq!(dearer.the("ad", None).0, "warning");
    assert!(dearer.the("ad", None).1.contains("another price"), "{:#}", dearer.report);

    let withdrawn = here.coinop(&["ad", "withdraw", "--json"]).await;
    assert_eq!(withdrawn.code, 0, "{}", withdrawn.err);
    let withdrawn: Value = serde_json::from_str(&withdrawn.out).unwrap();
    assert_eq!(withdrawn["events"][0]["kind"], 5);
    assert!(relay.events(ads()).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_refuses_and_one_that_is_gone_are_failures_with_cures() {
    let words = "blocked: not \u{1b}[31mhere";
    let good = TestRelay::start().await.unwrap();
    let closed =
        TestRelay::start_with(RelayRules { refuse: Some(words.into()), ..RelayRules::default() }).await.unwrap();
    // A port that was free a moment ago and that nobody listens on.
    let gone = format!("ws://{}", TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap());
    let here = Installation::new(&[&good.url(), &closed.url(), &gone], &SELLER).await;
    here.set("publish_timeout = \"10s\"", "publish_timeout = \"3s\"");

    let found = here.doctor().await;
    assert_eq!(found.code, 1);
    assert_eq!(found.the("relay.accepts", Some(&address(&good))).0, "ok");
    assert_eq!(found.the("relay", Some(&address(&closed))).0, "ok");
    let (verdict, refusal) = found.the("relay.accepts", Some(&address(&closed)));
    assert_eq!(verdict, "failed");
    assert!(refusal.contains("blocked: not") && !refusal.contains('\u{1b}'), "{refusal}");
    assert_eq!(found.the("relay", Some(&format!("{gone}/"))).0, "failed");
    assert_eq!(found.report["failed"], 2, "{:#}", found.report);

    let published = here.coinop(&["ad", "publish", "--json"]).await;
    assert_eq!(published.code, 0, "one is enough for a quorum of 1: {}", published.err);
    let told: Value = serde_json::from_str(&published.out).unwrap();
    for event in told["events"].as_array().unwrap() {
        let said: Vec<_> = event["relays"].as_array().unwrap().iter().map(|said| &said["verdict"]).collect();
        assert_eq!(said, ["accepted", "refused", "silent"], "{event:#}");
    }

    here.set("quorum = 1", "quorum = 2");
    let missed = here.coinop(&["ad", "withdraw"]).await;
    assert_eq!(missed.code, 1);
    assert!(missed.err.contains("fewer than 2 relays") && missed.err.contains("help: "), "{}", missed.err);
    assert!(missed.out.contains("refused: blocked") && missed.out.contains("can't be reached"), "{}", missed.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_behind_a_relay_is_tried_with_an_invoice_and_one_that_lies_is_found_out() {
    let relay = TestRelay::start().await.unwrap();
    let theirs = FakeWallet::open(&FakeNetwork::in_memory(), &[7; 32], FakeWalletOptions::default()).unwrap();
    let service = NwcService::start(&[relay.url()], theirs, NwcServiceOptions::default()).await.unwrap();
    let options = ["--backend", "echo", "--nwc", "file:nwc", "--base", "2sat"];
    let here = Installation::new(&[&relay.url()], &options).await;
    fs::write(here.home().join("nwc"), service.uri()).unwrap();
    here.set("network = \"bitcoin\"", "network = \"regtest\"");

    let good = here.doctor().await;
    assert_eq!(good.code, 0, "{:#}", good.report);
    for check in ["wallet", "wallet.terms", "wallet.invoice"] {
        assert_eq!(good.verdict(check), "ok", "{check}");
    }
    let secret = service.uri().split("secret=").nth(1).unwrap().split('&').next().unwrap();
    assert!(!good.report.to_string().contains(secret) && !good.progress.contains(secret));

    service.faults().lie_about_amount(Some(Msat::sat(1_000)));
    let lied = here.doctor().await;
    assert_eq!((lied.code, lied.verdict("wallet"), lied.verdict("wallet.invoice")), (1, "ok", "failed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_a_finding_and_the_rest_is_checked_as_far_as_it_goes() {
    let relay = TestRelay::start().await.unwrap();
    let here = Installation::new(&[&relay.url()], &SELLER).await;
    fs::write(here.folder.path().join("pw"), "something else altogether").unwrap();
    let found = here.doctor().await;
    assert_eq!(found.code, 1);
    assert_eq!(found.verdict("identity"), "failed");
    assert_eq!(found.verdict("relay"), "ok");
    assert!(found.the("relay.accepts", None).1.contains("throwaway key"));
    assert_eq!(found.verdict("wallet"), "skipped");
    assert!(found.all("ad", None).is_empty());
    assert_eq!(found.report["failed"], 1, "{:#}", found.report);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_is_wrong_or_not_complete_is_told_whole() {
    let here = Installation::new(&["ws://127.0.0.1:9"], &["--backend", "echo"]).await;
    here.set("publish_timeout = \"10s\"", "publish_timeout = \"1s\"");
    let incomplete = here.doctor().await;
    assert_eq!(incomplete.code, 1);
    assert_eq!(incomplete.the("ready", Some("wallet.backend")).0, "failed");

    here.set("publish_timeout = \"1s\"", "publish_timeout = \"soon\"");
    let before = "# The longest a job may run.\ntime_limit = ";
    here.set(&format!("{before}\"5m\""), &format!("{before}\"0s\""));
    let unsound = here.doctor().await;
    assert_eq!(unsound.code, 1);
    let fields: Vec<_> = unsound.all("config", None).iter().map(|finding| &finding["subject"]).collect();
    assert_eq!(fields, ["relays.publish_timeout", "text.time_limit"]);

    fs::remove_file(here.home().join("config.toml")).unwrap();
    let missing = here.coinop(&["doctor"]).await;
    assert_eq!(missing.code, 1);
    assert!(missing.out.contains("there is no configuration") && missing.out.contains("cure: "), "{}", missing.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn books_that_do_not_balance_and_a_provider_that_serves_are_seen() {
    let relay = TestRelay::start().await.unwrap();
    let here = Installation::new(&[&relay.url()], &["--backend", "echo", "--free"]).await;
    let database = here.home().join("coinop.db");
    let (store, closing) = Store::open(&database).unwrap();
    drop(store);
    closing.wait();
    let serving = ServeLock::take(&here.home()).unwrap();

    let good = here.doctor().await;
    assert_eq!((good.code, good.verdict("books")), (0, "ok"), "{:#}", good.report);
    assert!(good.the("provider", None).1.contains("a provider is serving"));
    drop(serving);

    let connection = rusqlite::Connection::open(&database).unwrap();
    connection.execute("INSERT INTO balances (account, msat) VALUES ('wallet', 5)", []).unwrap();
    connection.execute("INSERT INTO entries (at, job, reason) VALUES (0, zeroblob(32), 'payment')", []).unwrap();
    let entry = connection.last_insert_rowid();
    connection.execute("INSERT INTO postings (entry, account, msat) VALUES (?1, 'wallet', 7)", [entry]).unwrap();
    drop(connection);
    let bad = here.doctor().await;
    assert_eq!((bad.code, bad.verdict("books")), (1, "failed"));
    assert!(bad.the("books", None).1.contains("do not sum to zero"), "{:#}", bad.report);
    assert!(bad.the("provider", None).1.contains("no provider"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ad_show_prints_is_signed_and_published_nowhere() {
    let relay = TestRelay::start().await.unwrap();
    let here = Installation::new(&[&relay.url()], &SELLER).await;
    let shown = here.coinop(&["ad", "show", "--json"]).await;
    assert_eq!(shown.code, 0, "{}", shown.err);
    let shown: Value = serde_json::from_str(&shown.out).unwrap();
    assert_eq!((&shown["npub"], &shown["published_by_serve"]), (&Value::from(NPUB), &Value::from(true)));
    let events: Vec<Event> =
        shown["events"].as_array().unwrap().iter().map(|event| Event::from_json(event.to_string()).unwrap()).collect();
    assert_eq!(events.iter().map(|event| event.kind.as_u16()).collect::<Vec<_>>(), [0, 10_002, 31_990]);
    assert!(events.iter().all(|event| event.verify().is_ok()));
    let ad: Value = serde_json::from_str(&events[2].content).unwrap();
    assert_eq!(ad["models"], serde_json::json!(["echo"]));
    assert_eq!(ad["name"], "Echo & Sons");

    let text = here.coinop(&["ad", "show"]).await.out;
    for part in ["Echo & Sons", "coinop-5050", "prepay", "echo", &address(&relay)] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert_eq!(relay.taken(), 0);

    here.set("name = \"Echo & Sons\"", "name = \"\"");
    let nameless: Value = serde_json::from_str(&here.coinop(&["ad", "show", "--json"]).await.out).unwrap();
    assert_eq!(nameless["events"][0]["kind"], 10_002, "a profile nobody wrote is not published");
}
