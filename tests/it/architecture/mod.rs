//! The direction rules of `docs/architecture.md`, checked on the sources themselves.
//!
//! Read is what the compiler would build for users: comments, literals and everything under `#[cfg(test)]` are left out.
//! A rule that has to give way is changed here and in `docs/architecture.md` together, with the reason.

mod code;
mod sources;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use code::{modules_named, names, without_comments_and_literals};
use sources::{all_rust, pages, read, root, sources};

/// Each module and the modules it may name, from the heart outwards. A module names only what stands above it, which is
/// what makes the list a direction; `job` and `ledger` are one room and may name each other.
const MAY_USE: &[(&str, &[&str])] = &[
    // Pure: money, jobs and books.
    ("money", &[]),
    ("ledger", &["money", "job"]),
    ("job", &["money", "ledger"]),
    // Who we are, and the wire. Nothing here waits.
    ("identity", &["job"]),
    ("nip90", &["money", "job", "identity"]),
    // Adapters: the world, each behind its own door.
    ("archive", &["job"]),
    ("fetch", &[]),
    ("hardware", &[]),
    ("code", &["job"]),
    ("repository", &["job", "archive", "fetch"]),
    ("sandbox", &["job", "archive"]),
    ("blossom", &["identity", "nip90", "fetch"]),
    // Counted by the adapters and the seller alike.
    ("metrics", &["money", "job"]),
    ("inference", &["job", "metrics"]),
    // A model at work in a sandbox.
    ("agent", &["job", "archive", "inference", "sandbox"]),
    ("executor", &["money", "job", "archive", "code", "repository", "sandbox", "blossom", "inference", "agent"]),
    ("wallet", &["money", "job", "fetch"]),
    ("lnurl", &["money", "job", "fetch", "wallet"]),
    ("relays", &["job", "identity", "nip90", "fetch", "executor"]),
    ("store", &["money", "job", "ledger", "nip90", "executor"]),
    // What is written in the file.
    ("config", &["money", "job", "identity", "sandbox"]),
    // The two sides of a sale: traits in, no concrete wallet, backend or relay.
    (
        "provider",
        &[
            "money", "job", "ledger", "identity", "nip90", "blossom", "metrics", "executor", "wallet", "lnurl",
            "relays", "store",
        ],
    ),
    ("requester", &["money", "job", "nip90", "wallet", "relays", "store", "provider"]),
    // What a browser or a scraper sees.
    ("web", &["metrics"]),
    // Putting it together.
    (
        "daemon",
        &[
            "money",
            "job",
            "identity",
            "nip90",
            "fetch",
            "hardware",
            "archive",
            "repository",
            "sandbox",
            "blossom",
            "metrics",
            "inference",
            "agent",
            "executor",
            "wallet",
            "lnurl",
            "relays",
            "store",
            "config",
            "provider",
            "web",
        ],
    ),
    // The other side of the wire, whole markets, and suites that adapters must pass. Of the program only the demo may use
    // it; see `only_the_demo_plays_with_the_test_doubles`.
    (
        "testing",
        &[
            "money",
            "job",
            "ledger",
            "identity",
            "nip90",
            "metrics",
            "archive",
            "fetch",
            "repository",
            "sandbox",
            "blossom",
            "inference",
            "agent",
            "executor",
            "wallet",
            "lnurl",
            "relays",
            "store",
            "provider",
            "requester",
            "daemon",
        ],
    ),
    (
        "cli",
        &[
            "money",
            "job",
            "ledger",
            "identity",
            "nip90",
            "hardware",
            "archive",
            "code",
            "fetch",
            "repository",
            "sandbox",
            "blossom",
            "metrics",
            "inference",
            "agent",
            "executor",
            "wallet",
            "relays",
            "store",
            "config",
            "provider",
            "requester",
            "testing",
            "daemon",
        ],
    ),
];

/// Modules without waiting, network, database or wall clock.
const PURE: &[&str] = &["money", "job", "ledger"];

/// What a pure module must not even name.
const WORLDLY: &[&str] = &[
    "tokio",
    "tokio_util",
    "futures",
    "reqwest",
    "tungstenite",
    "tokio_tungstenite",
    "rusqlite",
    "bollard",
    "axum",
    "nostr",
    "nostr_sdk",
    "nostr_relay_builder",
    "rand",
    "tracing",
    "async fn",
    ".await",
    "std::env",
    "std::fs",
    "std::io",
    "std::net",
    "std::process",
    "std::thread",
    "Instant",
    "SystemTime",
    "Timestamp::now",
];

/// Where types of the Nostr crates may stand: their next version drops much of what is used, so they stay at the edge.
const NOSTR_ROOMS: &[&str] = &[
    "nip90/",
    "identity/",
    "relays/",
    "testing/",
    // Nostr Wallet Connect is a wallet reached over relays: the wire is Nostr.
    "wallet/nwc/",
];

/// The wall clock. Everybody else is handed the time.
const CLOCKS: &[(&str, &str)] = &[
    ("provider/clock.rs", "the clock that is handed around"),
    ("blossom/", "a permit is dated when it is sent, and the server measures it against its own clock"),
    ("relays/", "the age of an event and the skew of a server are measured against the machine's clock as they arrive"),
    ("wallet/fake/network.rs", "the default of a clock that tests replace"),
    ("wallet/nwc/", "expiry of what a wallet on the other side of a wire has just sent"),
    ("wallet/ldk/", "invoices of a node that lives by the machine's clock, and when it said that money came"),
    ("wallet/lnd/", "expiry of what a wallet on the other side of a wire has just sent"),
    ("wallet/cln/", "expiry of what a wallet on the other side of a wire has just sent"),
    ("wallet/phoenixd/", "expiry of what a wallet on the other side of a wire has just sent"),
    ("wallet/lnbits/", "expiry of what a wallet on the other side of a wire has just sent"),
    ("sandbox/docker/labels.rs", "until when a cell lives, for other processes, which only have the clock in common"),
    ("testing/", "the other side of the wire"),
];

/// Tasks and threads. A task that nobody owns is lost work, so each place says who ends it.
const SPAWNERS: &[(&str, &str)] = &[
    ("daemon/service.rs", "the intake, which must end before the other tasks do; joined by Service::stop"),
    ("inference/mistral_rs/", "drains the engine, which waits for its reader; ends with the answer"),
    ("store/", "the threads that own the database connections; joined by Closing::wait"),
    ("wallet/nwc/mod.rs", "listens to the wallet; aborted when the wallet is dropped"),
    ("wallet/ldk/mod.rs", "listens to the node; joined by shut_down, aborted when the wallet is dropped"),
    ("wallet/http/news.rs", "reads a wallet's news; aborted when the stream it feeds is dropped"),
    ("testing/", "servers of the tests"),
];

/// Where concrete wallets and backends may be named, besides their own folder.
const WIRING: &[&str] = &["daemon/wiring/", "cli/demo/", "testing/"];

/// Concrete wallets and backends, each with its own folder.
const CONCRETE: &[(&str, &[&str])] = &[
    ("wallet/fake", &["wallet::fake", "FakeWallet", "FakeNetwork"]),
    ("wallet/nwc", &["wallet::nwc", "NwcWallet"]),
    ("wallet/ldk", &["wallet::ldk", "LdkWallet"]),
    ("wallet/lnd", &["wallet::lnd", "LndWallet"]),
    ("wallet/cln", &["wallet::cln", "ClnWallet"]),
    ("wallet/phoenixd", &["wallet::phoenixd", "PhoenixdWallet"]),
    ("wallet/lnbits", &["wallet::lnbits", "LnbitsWallet"]),
    ("inference/echo", &["inference::echo", "echo::Echo"]),
    ("inference/llama_cpp", &["inference::llama_cpp", "llama_cpp::LlamaCpp"]),
    ("inference/mistral_rs", &["inference::mistral_rs", "mistral_rs::MistralRs"]),
    ("inference/ollama", &["inference::ollama", "ollama::Ollama"]),
    ("inference/openai", &["inference::openai", "openai::OpenAi"]),
    ("inference/pool", &["inference::pool", "pool::Pool"]),
];

/// Rooms where things are put when nobody knows where they belong.
const NO_SUCH_ROOM: &[&str] =
    &["util", "utils", "common", "helper", "helpers", "manager", "managers", "misc", "shared"];

#[test]
fn modules_name_only_what_stands_above_them() {
    let allowed: BTreeMap<&str, &[&str]> = MAY_USE.iter().copied().collect();
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| !["lib.rs", "main.rs"].contains(&source.path.as_str())) {
        let module = source.module();
        let Some(may_use) = allowed.get(module) else {
            source.complain(&mut wrong, 1, "a module this test does not know; give it its place in MAY_USE");
            continue;
        };
        for (line, named) in modules_named(&source.code) {
            if named != module && !may_use.contains(&named.as_str()) {
                source.complain(&mut wrong, line, &format!("{module} must not know {named}"));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn the_list_of_directions_has_no_way_back() {
    let mut above = BTreeSet::from(["job"]); // One room with ledger.
    for (module, may_use) in MAY_USE {
        for used in *may_use {
            assert!(above.contains(used) || (*module, *used) == ("job", "ledger"), "{module} names {used} below it");
        }
        above.insert(module);
    }
}

#[test]
fn jobs_money_and_books_touch_nothing() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| PURE.contains(&source.module())) {
        for word in WORLDLY {
            for line in source.naming(word) {
                source.complain(&mut wrong, line, &format!("pure code names {word}"));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn the_codec_and_the_identity_never_wait() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| ["nip90", "identity"].contains(&source.module())) {
        for word in ["async fn", ".await", "tokio", "futures", "reqwest", "rusqlite", "nostr_sdk", "Timestamp::now"] {
            for line in source.naming(word) {
                source.complain(&mut wrong, line, &format!("sync code names {word}"));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn types_of_the_nostr_crates_stay_at_the_edge() {
    let mut wrong = Vec::new();
    for source in &sources() {
        if NOSTR_ROOMS.iter().any(|room| source.lies_in(room)) {
            continue;
        }
        for word in ["nostr", "nostr_sdk", "nostr_relay_builder", "nostr_relay_pool"] {
            for line in source.naming(word) {
                source.complain(&mut wrong, line, &format!("{word} outside its rooms"));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn only_the_wiring_names_wallets_and_backends() {
    let mut wrong = Vec::new();
    for source in &sources() {
        if WIRING.iter().any(|place| source.lies_in(place)) {
            continue;
        }
        for (home, words) in CONCRETE {
            if source.path.starts_with(home) {
                continue;
            }
            for word in *words {
                for line in source.naming(word) {
                    source.complain(&mut wrong, line, &format!("{word} is named outside the wiring"));
                }
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn only_the_demo_plays_with_the_test_doubles() {
    let mut wrong = Vec::new();
    for source in &sources() {
        if source.module() == "testing" || source.path.starts_with("cli/demo/") {
            continue;
        }
        for (line, named) in modules_named(&source.code) {
            if named == "testing" {
                source.complain(&mut wrong, line, "test doubles outside tests and the demo");
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn every_task_has_an_owner() {
    let mut wrong = Vec::new();
    for source in &sources() {
        if SPAWNERS.iter().any(|(place, _)| source.lies_in(place)) {
            continue;
        }
        for word in ["tokio::spawn", "task::spawn", "thread::spawn", "thread::Builder"] {
            for line in source.naming(word) {
                source.complain(&mut wrong, line, &format!("{word}: use daemon::tasks, a TaskTracker or a JoinSet"));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn the_time_is_a_parameter() {
    let mut wrong = Vec::new();
    for source in &sources() {
        if CLOCKS.iter().any(|(place, _)| source.lies_in(place)) {
            continue;
        }
        for word in ["Timestamp::now", "SystemTime", "Zoned::now"] {
            for line in source.naming(word) {
                source.complain(&mut wrong, line, &format!("{word}: take the time as a parameter"));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn anyhow_stays_where_errors_are_shown() {
    let mut wrong = Vec::new();
    for source in &sources() {
        if ["main.rs", "cli/", "daemon/wiring/", "bin/"].iter().any(|place| source.lies_in(place)) {
            continue;
        }
        for line in source.naming("anyhow") {
            source.complain(&mut wrong, line, "anyhow: give the folder's error enum a variant");
        }
    }
    assert_none(&wrong);
}

#[test]
fn no_room_is_called_after_what_nobody_knows_where_to_put() {
    let mut wrong = Vec::new();
    for source in &sources() {
        for part in source.path.trim_end_matches(".rs").split('/') {
            if NO_SUCH_ROOM.contains(&part) {
                source.complain(&mut wrong, 1, &format!("'{part}' says nothing about what is in it"));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn every_file_says_what_it_is() {
    let mut wrong = Vec::new();
    for source in &sources() {
        if !source.text.starts_with("//!") {
            source.complain(&mut wrong, 1, "no module documentation at the top");
        }
    }
    assert_none(&wrong);
}

#[test]
fn exceptions_that_nobody_needs_any_more_are_removed() {
    let sources = sources();
    let used = |place: &str, words: &[&str]| {
        let mut inside = sources.iter().filter(|source| source.lies_in(place));
        inside.any(|source| words.iter().any(|word| source.naming(word).next().is_some()))
    };
    let unused = |(place, _): &&(&str, &str), words: &[&str]| *place != "testing/" && !used(place, words);
    let clocks = CLOCKS.iter().filter(|entry| unused(entry, &["Timestamp::now"]));
    let spawns = ["tokio::spawn", "task::spawn", "thread::spawn", "thread::Builder"];
    let spawners = SPAWNERS.iter().filter(|entry| unused(entry, &spawns));
    assert_none(&clocks.chain(spawners).map(|(place, _)| format!("{place} needs no exception")).collect::<Vec<_>>());
}

#[test]
fn every_direct_dependency_has_its_reason_on_the_page() {
    let manifest: toml::Table = read("Cargo.toml").parse().expect("Cargo.toml is TOML");
    let page = read("docs/dependencies.md");
    let listed: BTreeSet<&str> =
        page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).map(|(name, _)| name).collect();
    let direct: BTreeSet<&str> = ["dependencies", "dev-dependencies"]
        .iter()
        .filter_map(|section| manifest.get(*section)?.as_table())
        .flat_map(|section| section.keys().map(String::as_str))
        .collect();
    assert_eq!(direct, listed, "docs/dependencies.md and Cargo.toml differ");
}

#[test]
fn the_pages_name_only_tests_and_files_that_are_there() {
    let sources = without_comments_and_literals(&all_rust());
    let mut wrong = Vec::new();
    for page in pages() {
        let text = read(&page);
        // A test's name is a sentence: `like_this_one`.
        // Names of metrics are compared with the registry where that is.
        let code = text.split('`').skip(1).step_by(2);
        let names_of_tests = code.filter(|name| name.matches('_').count() >= 3 && !name.starts_with("coinop_"));
        for name in names_of_tests {
            let is_name = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
            if is_name && names(&sources, &format!("fn {name}")).next().is_none() {
                wrong.push(format!("{page}: there is no {name}"));
            }
        }
        let folder = Path::new(&page).parent().expect("a page is in a folder");
        for (at, _) in text.match_indices("](") {
            let link = text[at + 2..].split([')', '#']).next().unwrap_or_default();
            if !link.is_empty() && !link.contains("://") && !root().join(folder).join(link).exists() {
                wrong.push(format!("{page}: {link} is not there"));
            }
        }
    }
    assert_none(&wrong);
}

fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}
