use std::fs;

use super::work::odd;
use super::*;
use crate::cli::phrase_input::NewPhraseArgs;
use crate::cli::prompt::Script;
use crate::config::WalletSettings;
use crate::identity::{IdentityError, Password, PasswordSources, WordCount};
use crate::money::Msat;

const PASSWORD: &str = "orbit velvet tundra seven";

fn globals(home: &std::path::Path) -> Globals {
    let password_file = home.join("pw");
    fs::write(&password_file, PASSWORD).unwrap();
    Globals { home: Some(home.join("home")), password_file: Some(password_file), ..Globals::default() }
}

#[test]
fn the_wizard_asks_and_writes_what_was_answered() {
    let home = tempfile::tempdir().unwrap();
    // Without a password file: it is typed.
    let globals = Globals { password_file: None, ..globals(home.path()) };
    if PasswordSources::of_process(None).unwrap().read().unwrap().is_some() {
        return;
    }
    let mut script = Script::new(&[
        "wss://one.example,bad",                // relays, mistyped
        "wss://one.example, wss://two.example", // relays
        "My shop",                              // name
        "",                                     // model: later
        "Nostr Wallet",                         // paid how
        "",                                     // connection
        "7",                                    // base, without its unit
        "7sat",                                 // base
        "",                                     // prompt
        "1sat",                                 // generated
        "new",                                  // phrase
        "24",                                   // words
        PASSWORD,
        PASSWORD,
        "y", // show
    ]);
    let done = init(InitArgs::default(), &globals, &mut script, &[]).unwrap();
    assert!(script.is_used_up());
    let shown = script.transcript.last().unwrap();
    assert_eq!(shown.trim().lines().count(), 24);

    let (_, config) = globals.load_config().unwrap();
    assert_eq!(config.relays.urls.len(), 2);
    assert_eq!(config.profile.name.as_deref(), Some("My shop"));
    assert_eq!(config.text.rates.base, Msat::sat(7));
    assert!(matches!(config.wallet, WalletSettings::Nwc { .. }));
    let phrase = config.identity.keystore.open(&Password::new(PASSWORD.into()).unwrap()).unwrap();
    assert_eq!(phrase.words().count(), 24);
    assert!(!done.kept_identity);
}

#[test]
fn nothing_is_written_when_an_answer_is_wrong() {
    let home = tempfile::tempdir().unwrap();
    let globals = globals(home.path());
    for args in [
        InitArgs { relays: vec!["https://x".into()], ..InitArgs::default() },
        InitArgs { base: Some("2".into()), ..InitArgs::default() },
        InitArgs { nwc: Some("nostr+walletconnect://abc".into()), ..InitArgs::default() },
        InitArgs { account: Some(u32::MAX), ..InitArgs::default() },
        InitArgs { phrase_file: Some(home.path().join("missing")), ..InitArgs::default() },
    ] {
        let error = init(args, &globals, &mut Nobody, &[]).unwrap_err();
        assert!(!format!("{error:#}").contains("abc"));
        assert!(!home.path().join("home").exists(), "something was written: {error:#}");
    }
}

#[test]
fn an_identity_is_kept_and_a_configuration_only_replaced_when_forced() {
    let home = tempfile::tempdir().unwrap();
    let globals = globals(home.path());
    let free = || InitArgs { free: true, ..InitArgs::default() };
    let first = init(free(), &globals, &mut Nobody, &[]).unwrap();
    let before = fs::read(&first.keystore).unwrap();

    assert!(init(free(), &globals, &mut Nobody, &[]).is_err());
    let again = InitArgs { force: true, name: Some("other".into()), ..free() };
    let second = init(again, &globals, &mut Nobody, &[]).unwrap();
    assert!(second.kept_identity);
    assert_eq!(fs::read(&first.keystore).unwrap(), before);
    assert!(first.config.with_file_name("config.toml.old").exists());
    assert!(fs::read_to_string(&first.config).unwrap().contains("name = \"other\""));

    let words = InitArgs { force: true, new_phrase: NewPhraseArgs { words: Some(WordCount::Twelve) }, ..free() };
    let refused = init(words, &globals, &mut Nobody, &[]).unwrap_err();
    assert!(matches!(refused.downcast_ref(), Some(IdentityError::KeystoreExists(_))));
    assert_eq!(fs::read(&first.keystore).unwrap(), before);
}

#[test]
fn a_wrong_address_is_blamed_on_its_option_and_another_server_is_named_with_its_own() {
    let home = tempfile::tempdir().unwrap();
    let wrong = InitArgs {
        ollama: vec!["http://127.0.0.1:11434".into()],
        openai: vec!["http://127.0.0.1:8000".into()],
        free: true,
        ..InitArgs::default()
    };
    let error = init(wrong, &globals(home.path()), &mut Nobody, &[]).unwrap_err().to_string();
    assert!(error.contains("\n  --openai: ") && !error.contains("config.toml"), "{error}");

    let ollama = found("http://127.0.0.1:11434");
    assert_eq!(odd("--ollama", "ollama", "http://127.0.0.1:11434", Some(&ollama)), None);
    let other = odd("--openai", "openai", "http://127.0.0.1:11434/v1", Some(&ollama)).unwrap();
    assert!(other.contains("Ollama") && other.ends_with("--ollama http://127.0.0.1:11434"), "{other}");
    assert!(odd("--ollama", "ollama", "http://127.0.0.1:1", None).unwrap().contains("no model server answers"));
}

#[tokio::test]
async fn what_was_taken_is_said_at_the_end() {
    let home = tempfile::tempdir().unwrap();
    let args = InitArgs { backend: Some("echo".into()), free: true, ..InitArgs::default() };
    let mut done = init(args, &globals(home.path()), &mut Nobody, &[]).unwrap();
    done.ask_what_was_taken().await;
    let text = done.text();
    assert!(text.contains("work      echo: echo\ndefault   echo, for customers"), "{text}");
}

fn found(url: &str) -> FoundServer {
    let model = crate::inference::detect::FoundModel { name: "m".into(), bytes: None };
    FoundServer {
        software: crate::inference::detect::Software::Ollama,
        version: None,
        url: url.parse().unwrap(),
        models: vec![model],
        trouble: None,
    }
}

#[test]
fn model_servers_that_were_found_are_taken_unless_somebody_says_otherwise() {
    let home = tempfile::tempdir().unwrap();
    let globals = globals(home.path());
    let servers = [found("http://127.0.0.1:11434"), found("http://127.0.0.1:11435")];
    let free = || InitArgs { free: true, force: true, ..InitArgs::default() };
    let endpoints = |args, ask: &mut dyn Ask| {
        init(args, &globals, ask, &servers).unwrap();
        globals.load_config().unwrap().1.inference.endpoints
    };
    let names: Vec<_> = endpoints(free(), &mut Nobody).into_iter().map(|endpoint| endpoint.name).collect();
    assert_eq!(names, ["ollama", "ollama-2"], "nobody was asked: all");

    let answers = ["", "11435"]; // name, what does the work
    let mut script = Script::new(&answers);
    let args = InitArgs { relays: vec!["wss://one.example".into()], ..free() };
    let chosen = endpoints(args, &mut script);
    assert!(script.is_used_up(), "{:?}", script.transcript);
    assert_eq!(chosen[0].server().unwrap().url.port(), Some(11_435));
    assert_eq!(chosen.len(), 1);

    let named = InitArgs {
        llamacpp: vec!["http://127.0.0.1:8080".into(), "http://127.0.0.1:8081".into()],
        openai: vec!["http://127.0.0.1:8000/v1".into()],
        ..free()
    };
    let kinds: Vec<_> = endpoints(named, &mut Nobody).into_iter().map(|endpoint| endpoint.name).collect();
    assert_eq!(kinds, ["llamacpp", "llamacpp-2", "openai"]);
}
