//! The conversations in `relay-fixtures/`, replayed through the embedded relay. `relay-fixtures/README.md` says how they
//! are written.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use coinop::identity::Signer;
use coinop::inference::echo::Echo;
use coinop::job::{JobId, Terms};
use coinop::money::Msat;
use coinop::nip90::SignedEvent;
use coinop::testing::market::{Customer, PATIENCE, Posted, TestMarket, within};
use coinop::wallet::WalletError;
use jiff::{SignedDuration, Timestamp};
use nostr::nips::{nip04, nip44};
use nostr::{Event, PublicKey};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// A line of `events.jsonl`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Line {
    Market { market: Shape },
    Act(Act),
    Event(Template),
}

/// What is special about the provider.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Shape {
    price_msat: Option<u32>,
    terms: Option<Terms>,
    relays: Option<usize>,
    /// Runs wait until released.
    gated: bool,
    /// Seconds a request must still be wanted for.
    min_time_left: Option<u64>,
}

/// Something that happens besides events.
#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
enum Act {
    /// The customer waits for the invoice and pays it.
    Pay { job: String },
    /// The invoice is waited for, and not paid.
    Invoiced { job: String },
    /// The result is waited for.
    Result { job: String },
    /// An error is waited for.
    Error { job: String },
    /// So many runs have begun.
    Running { runs: u32 },
    /// So many runs may end.
    Release { runs: usize },
    /// An event signed before is sent now, to these relays.
    Send { event: String, relays: Vec<usize> },
    /// The provider has read everything so far.
    Read,
    /// The provider stops and starts again.
    Restart,
}

/// An event to be signed by a named key when it is sent.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Template {
    name: String,
    by: String,
    kind: u16,
    #[serde(default)]
    tags: Vec<Vec<String>>,
    #[serde(default)]
    content: String,
    /// Tags for the encrypted content, instead of `content`.
    #[serde(default)]
    private: Vec<Vec<String>>,
    encrypt: Option<String>,
    /// Seconds from now.
    #[serde(default)]
    at: i64,
    /// The relays it is sent to; all unless said.
    relays: Option<Vec<usize>>,
}

/// A line of `expected.jsonl`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    about: String,
    #[serde(default)]
    nothing: bool,
    kind: Option<u16>,
    #[serde(default)]
    tags: Vec<Vec<String>>,
    /// Names of tags there must not be.
    #[serde(default)]
    without: Vec<String>,
    /// The content, decrypted.
    content: Option<String>,
    /// Tags in the encrypted content.
    #[serde(default)]
    private: Vec<Vec<String>>,
}

struct Replay {
    market: TestMarket,
    echo: Echo,
    keys: BTreeMap<String, Signer>,
    customers: BTreeMap<String, Customer>,
    sent: BTreeMap<String, (String, SignedEvent)>,
    posted: BTreeMap<String, Posted>,
}

fn lines<T: DeserializeOwned>(file: &Path) -> Vec<T> {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let read = |(number, line): (usize, &str)| {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{}:{}: {error}", file.display(), number + 1))
    };
    text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(read).collect()
}

impl Replay {
    async fn open(shape: Shape) -> Self {
        let echo = if shape.gated { Echo::new().gated() } else { Echo::new() };
        let mut how = TestMarket::new().relays(shape.relays.unwrap_or(1)).backend(echo.clone());
        if let Some(price) = shape.price_msat {
            how = how.price(Msat::msat(price));
        }
        if let Some(terms) = shape.terms {
            how = how.terms(terms);
        }
        if let Some(seconds) = shape.min_time_left {
            how = how.rules(|rules| rules.min_time_left = std::time::Duration::from_secs(seconds));
        }
        let market = how.start().await;
        let (keys, customers, sent, posted) = Default::default();
        Self { market, echo, keys, customers, sent, posted }
    }

    fn key(&mut self, name: &str) -> Signer {
        self.keys.entry(name.to_owned()).or_insert_with(Signer::random).clone()
    }

    async fn customer(&mut self, name: &str) -> &Customer {
        if !self.customers.contains_key(name) {
            let signer = self.key(name);
            let relays: Vec<String> = self.market.relays().iter().map(|relay| relay.url()).collect();
            let customer = self.market.customer_as(signer, &relays).await;
            self.customers.insert(name.to_owned(), customer);
        }
        &self.customers[name]
    }

    /// `{provider}`, `{key:name}`, `{id:name}` and `{now+seconds}` become what they stand for.
    fn fill(&mut self, word: &str) -> String {
        let Some(inner) = word.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else {
            return word.to_owned();
        };
        if inner == "provider" {
            return self.market.provider().public_hex();
        }
        if let Some(name) = inner.strip_prefix("key:") {
            return self.key(name).public_hex();
        }
        if let Some(name) = inner.strip_prefix("id:") {
            return self.sent[name].1.id.to_string();
        }
        match inner.strip_prefix("now").map(str::parse::<i64>) {
            Some(Ok(seconds)) => (Timestamp::now() + SignedDuration::from_secs(seconds)).as_second().to_string(),
            _ => word.to_owned(),
        }
    }

    fn fill_all(&mut self, tags: &[Vec<String>]) -> Vec<Vec<String>> {
        tags.iter().map(|words| words.iter().map(|word| self.fill(word)).collect()).collect()
    }

    async fn send(&mut self, template: Template) {
        let tags = self.fill_all(&template.tags);
        let private = self.fill_all(&template.private);
        let plain =
            if private.is_empty() { template.content.clone() } else { serde_json::to_string(&private).unwrap() };
        let provider = PublicKey::parse(&self.market.provider().public_hex()).unwrap();
        let customer = self.customer(&template.by).await;
        let secret = customer.signer.keys().secret_key();
        let content = match template.encrypt.as_deref() {
            None => plain,
            Some("nip44") => nip44::encrypt(secret, &provider, plain, nip44::Version::V2).unwrap(),
            Some("nip04") => nip04::encrypt(secret, &provider, plain).unwrap(),
            Some(other) => panic!("no encryption is called {other}"),
        };
        let tags: Vec<&[String]> = tags.iter().map(Vec::as_slice).collect();
        let at = Timestamp::now() + SignedDuration::from_secs(template.at);
        let event = customer.raw(template.kind, &tags, &content, at);
        let posted = customer.follow(JobId(event.id.0));
        let all: Vec<usize> = (0..self.market.relays().len()).collect();
        for place in template.relays.unwrap_or(all) {
            self.customers[&template.by].leave_at(self.market.relay(place), &event).await;
        }
        self.posted.insert(template.name.clone(), posted);
        assert!(
            self.sent.insert(template.name.clone(), (template.by, event)).is_none(),
            "two are called {}",
            template.name
        );
    }

    fn answers_to(&mut self, job: &str) -> &mut Posted {
        self.posted.get_mut(job).unwrap_or_else(|| panic!("nothing is called {job}"))
    }

    async fn act(&mut self, act: Act) {
        match act {
            Act::Invoiced { job } => {
                self.answers_to(&job).invoice().await;
            }
            Act::Pay { job } => {
                let invoice = self.answers_to(&job).invoice().await;
                let paid: Result<_, WalletError> = self.customers[&self.sent[&job].0].pay(&invoice).await;
                paid.unwrap();
            }
            Act::Result { job } => {
                self.answers_to(&job).result().await;
            }
            Act::Error { job } => {
                self.answers_to(&job).refusal().await;
            }
            Act::Running { runs } => within("the runs", self.echo.wait_for_runs(runs)).await,
            Act::Release { runs } => self.echo.release(runs),
            Act::Send { event, relays } => {
                let (by, event) = &self.sent[&event];
                for place in relays {
                    self.customers[by].leave_at(self.market.relay(place), event).await;
                }
            }
            Act::Read => self.all_read().await,
            Act::Restart => {
                self.all_read().await;
                self.market.stop(PATIENCE).await;
                self.market.start_again().await.unwrap();
            }
        }
    }

    /// The provider has read what every relay brought: each answers a ping behind it.
    async fn all_read(&self) {
        for relay in self.market.relays() {
            self.market.customer_at(&[relay.url()]).await.ping().await;
        }
    }
}

/// What an answer says, decrypted.
struct Said {
    kind: u16,
    tags: Vec<Vec<String>>,
    content: String,
    private: Vec<Vec<String>>,
}

impl Said {
    fn read(event: &Event, customer: &Signer) -> Self {
        let tags: Vec<Vec<String>> = event.tags.iter().map(|tag| tag.as_slice().to_vec()).collect();
        let secret = customer.keys().secret_key();
        let content = match tags.iter().any(|words| words[0] == "encrypted") {
            false => event.content.clone(),
            true if event.content.contains("?iv=") => nip04::decrypt(secret, &event.pubkey, &event.content).unwrap(),
            true => nip44::decrypt(secret, &event.pubkey, &event.content).unwrap(),
        };
        let private = serde_json::from_str(&content).unwrap_or_default();
        Self { kind: event.kind.as_u16(), tags, content, private }
    }

    /// That the work goes on is said or not, as time has it.
    fn is_timely(&self) -> bool {
        self.tags.iter().any(|words| words.len() > 1 && words[0] == "status" && words[1] == "processing")
    }

    fn is(&self, expected: &Expected) -> bool {
        expected.kind.is_none_or(|kind| kind == self.kind)
            && expected.tags.iter().all(|wanted| has(&self.tags, wanted))
            && expected.private.iter().all(|wanted| has(&self.private, wanted))
            && expected.without.iter().all(|name| self.tags.iter().all(|words| words[0] != *name))
            && expected.content.as_ref().is_none_or(|content| *content == self.content)
    }
}

/// A tag that begins with these words; `*` stands for any, `~part` for one that contains it.
fn has(tags: &[Vec<String>], wanted: &[String]) -> bool {
    let same = |(wanted, found): (&String, &String)| match wanted.strip_prefix('~') {
        Some(part) => found.contains(part),
        None => wanted == "*" || wanted == found,
    };
    tags.iter().any(|words| words.len() >= wanted.len() && wanted.iter().zip(words).all(same))
}

async fn replay(folder: &Path) {
    assert!(fs::read_to_string(folder.join("about")).is_ok_and(|about| !about.trim().is_empty()), "no `about`");
    let mut events = lines::<Line>(&folder.join("events.jsonl")).into_iter().peekable();
    let shape = match events.next_if(|line| matches!(line, Line::Market { .. })) {
        Some(Line::Market { market }) => market,
        _ => Shape::default(),
    };
    let mut replay = Replay::open(shape).await;
    for line in events {
        match line {
            Line::Market { .. } => panic!("the market stands in the first line"),
            Line::Act(act) => replay.act(act).await,
            Line::Event(template) => replay.send(template).await,
        }
    }
    replay.all_read().await;

    let mut expected = lines::<Expected>(&folder.join("expected.jsonl"));
    for one in &mut expected {
        one.tags = replay.fill_all(&std::mem::take(&mut one.tags));
        one.private = replay.fill_all(&std::mem::take(&mut one.private));
    }
    let Replay { market, keys, sent, posted, .. } = replay;
    drop(posted);
    // From here on nothing more can be said: what is missing now is silence.
    let closed = market.finish().await;
    for (name, (by, event)) in &sent {
        let answers = closed.answers(JobId(event.id.0)).await;
        let mut said: Vec<Said> = answers.iter().map(|answer| Said::read(answer, &keys[by])).collect();
        said.retain(|said| !said.is_timely());
        let about: Vec<&Expected> = expected.iter().filter(|expected| expected.about == *name).collect();
        assert!(!about.is_empty(), "{name}: what is expected of it is not written down");
        for wanted in about.iter().filter(|wanted| !wanted.nothing) {
            let found = said.iter().position(|said| said.is(wanted));
            let all: Vec<_> = answers.iter().map(|event| (event.kind, &event.tags, &event.content)).collect();
            said.remove(found.unwrap_or_else(|| panic!("{name}: no {wanted:?} among {all:#?}")));
        }
        let more: Vec<_> = said.iter().map(|said| (said.kind, &said.tags)).collect();
        assert!(more.is_empty(), "{name}: more was said than expected: {more:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_recorded_conversation_goes_as_expected() {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("relay-fixtures");
    let mut folders: Vec<PathBuf> =
        fs::read_dir(all).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    assert!(folders.len() >= 10, "only {} conversations were found", folders.len());
    let mut replays = Vec::new();
    for folder in folders {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        replays.push((name, tokio::spawn(async move { replay(&folder).await })));
    }
    let mut failed = Vec::new();
    for (name, replay) in replays {
        if replay.await.is_err() {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "these conversations went otherwise (see above): {failed:?}");
}
