//! What is sold and does not work now: its ad is taken back, it is not advertised, and who names us for it hears so.

use std::fs;
use std::process::Output;

use coinop::identity::{Account, Identity, Phrase, Signer};
use coinop::job::{Code, JobKind, Terms};
use coinop::nip90::handler_info::{Ad, AdPrice};
use coinop::nip90::{Codec, Order, ReadLimits};
use coinop::testing::market::{Customer, TestMarket, within};
use coinop::testing::relay::TestRelay;
use coinop::wallet::fake::{FakeNetwork, FakeWallet, FakeWalletOptions};
use jiff::{SignedDuration, Timestamp};
use nostr::{Event, Filter, JsonUtil as _, Kind};
use serde_json::Value;

use crate::walk::{Machine, ends_in_order};

const WORDS: &str = "leader monkey parrot ring guide accident before fence cannon height naive bean";

/// An engine that is not there, and an image that nobody can look for.
const GONE: &str = "
[[sandbox.hosts]]
name = 'gone'
address = 'unix:///nowhere/docker.sock'
runtimes = ['runsc']

[[sandbox.images]]
name = 'default'
reference = 'coinop-default'
";

fn us() -> Signer {
    Identity::from_phrase(&Phrase::parse(WORDS).unwrap(), Account::default()).signer
}

/// Sells text and runs, and the engine for the runs is gone since.
async fn seller(relay: &TestRelay) -> Machine {
    let machine = Machine::new();
    let words = machine.home().with_file_name("words");
    fs::write(&words, WORDS).unwrap();
    let words = words.to_str().unwrap();
    let url = relay.url();
    machine
        .coinop(&["init", "--yes", "--phrase-file", words, "--backend", "echo", "--play-money", "--relay", &url])
        .await;
    change(&machine, "container without a network. See docs/sandbox.md.\nenabled = false", |line| {
        line.replace("false", "true")
    });
    let file = machine.home().join("config.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text + GONE).unwrap();
    machine
}

/// Changes one place of the configuration.
fn change(machine: &Machine, place: &str, to: impl Fn(&str) -> String) {
    let file = machine.home().join("config.toml");
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(text.matches(place).count(), 1, "{place} in {text}");
    fs::write(&file, text.replace(place, &to(place))).unwrap();
}

/// The ad of an earlier time, when it worked.
async fn leave_ad(relay: &TestRelay, kind: JobKind) {
    let ad = Ad {
        kind,
        name: "Echo & Sons".into(),
        about: String::new(),
        picture: None,
        website: None,
        lud16: None,
        price: Some(AdPrice::Free),
        params: Vec::new(),
        models: Vec::new(),
        terms: vec![Terms::Free],
        topics: Vec::new(),
        encryption: true,
    };
    let earlier = Timestamp::now() - SignedDuration::from_secs(60);
    let signed = Codec::new(us(), ReadLimits::default()).ad(&ad, earlier).unwrap();
    relay.publish(Event::from_json(signed.json).unwrap()).await;
}

/// The identifiers of the ads that stand.
async fn ads(relay: &TestRelay) -> Vec<String> {
    let ads = relay.events(Filter::new().kind(Kind::from_u16(31_990))).await;
    let mut names: Vec<String> = ads.iter().filter_map(|ad| ad.tags.identifier().map(str::to_owned)).collect();
    names.sort_unstable();
    names
}

async fn run(machine: &Machine, args: &[&str]) -> Output {
    let mut command = machine.command(args);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_takes_back_the_ad_of_what_does_not_work_now_and_tells_who_asks_for_it() {
    let relay = TestRelay::start().await.unwrap();
    let machine = seller(&relay).await;
    leave_ad(&relay, JobKind::SandboxRun).await;
    assert_eq!(ads(&relay).await, ["coinop-5930"]);

    let serving = machine.serve();
    within("the provider to come online", relay.wait_subscriptions(1)).await;
    // The one that stood, its withdrawal, the relay list, the ad of what works, the sign of life.
    within("the ads", relay.wait_taken(5)).await;
    assert_eq!(ads(&relay).await, ["coinop-5050"]);

    let purse = FakeWallet::open(&FakeNetwork::in_memory(), &[2; 32], FakeWalletOptions::default()).unwrap();
    let customer = Customer::join(Signer::random(), &[relay.url()], us().provider_id(), purse).await;
    let order = Order { kind: JobKind::SandboxRun, ..customer.order("https://example.com/somebody/thing.git") };
    let refusal = customer.post(&order).await.refusal().await;
    assert_eq!(refusal.code, Code::Unsupported);
    assert_eq!(refusal.text, "this provider does not offer sandbox-run now");
    ends_in_order(&machine, serving).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_with_nothing_that_works_takes_the_ad_back_and_ends() {
    let relay = TestRelay::start().await.unwrap();
    let machine = seller(&relay).await;
    change(&machine, "# Text generation (kind 5050).\nenabled = true", |line| line.replace("true", "false"));
    leave_ad(&relay, JobKind::SandboxRun).await;

    for left in [1, 0] {
        let taken = relay.taken();
        let ended = run(&machine, &["serve"]).await;
        let told = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(1), "{told}");
        assert!(told.contains("coinop doctor"), "{told}");
        assert!(ads(&relay).await.is_empty());
        assert_eq!(relay.taken() - taken, left, "a withdrawal, and only of what stands");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_work_now_is_neither_shown_nor_published_as_an_ad_and_is_named() {
    let relay = TestRelay::start().await.unwrap();
    let machine = seller(&relay).await;
    leave_ad(&relay, JobKind::SandboxRun).await;
    let left_out = "not offered now: sandbox-run (5930): no engine has a usable image and the runtime runsc; \
                    'coinop doctor' says what to do";

    let shown = machine.coinop(&["ad", "show"]).await;
    let text = String::from_utf8_lossy(&shown.stdout);
    assert!(text.contains(left_out) && text.contains("coinop-5050") && !text.contains("coinop-5930"), "{text}");
    let waiting = String::from_utf8_lossy(&shown.stderr);
    assert!(waiting.contains("Trying the sandboxes"), "{waiting}");
    let shown = machine.json(&["ad", "show", "--json"]).await;
    assert_eq!(shown["not_offered"][0]["kind"], 5930);
    let kinds: Vec<&Value> = shown["events"].as_array().unwrap().iter().map(|event| &event["kind"]).collect();
    assert_eq!(kinds, [5, 10_002, 31_990], "a withdrawal, the relays, one ad");
    assert_eq!(relay.taken(), 1, "only what was left there");

    let published = machine.coinop(&["ad", "publish"]).await;
    let text = String::from_utf8_lossy(&published.stdout);
    assert!(text.contains(left_out) && text.contains("withdrawal"), "{text}");
    assert_eq!(ads(&relay).await, ["coinop-5050"]);

    change(&machine, "# Text generation (kind 5050).\nenabled = true", |line| line.replace("true", "false"));
    let nothing = run(&machine, &["ad", "publish"]).await;
    assert_eq!(nothing.status.code(), Some(1));
    let told = String::from_utf8_lossy(&nothing.stderr).into_owned();
    assert!(told.contains("nothing is advertised") && told.contains("help: "), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_is_withheld_is_refused_to_who_names_us_and_nobody_else_hears_of_it() {
    let denied = Signer::random();
    let key = denied.customer_id();
    let market = TestMarket::new()
        .rules(|rules| rules.deny = [key].into())
        .settings(|settings| settings.withheld = [JobKind::SandboxRun].into())
        .start()
        .await;
    let customer = market.customer().await;
    let denied = market.customer_as(denied, &[market.relay(0).url()]).await;
    let run = |order: Order| Order { kind: JobKind::SandboxRun, ..order };
    let unheard = denied.post(&run(denied.order("please"))).await;
    let broadcast = customer.post(&run(customer.broadcast("anybody"))).await;
    let refusal = customer.post(&run(customer.order("you"))).await.refusal().await;
    assert_eq!(refusal.code, Code::Unsupported);
    assert!(refusal.text.ends_with("does not offer sandbox-run now"), "{}", refusal.text);
    customer.ping().await;
    let closed = market.finish().await;
    closed.was_silent_about(unheard.job).await;
    closed.was_silent_about(broadcast.job).await;
}
