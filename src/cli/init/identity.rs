//! The identity: kept, imported or made.

use anyhow::Result;

use super::args::InitArgs;
use crate::cli::Globals;
use crate::cli::identity::PublicIdentity;
use crate::cli::phrase_input;
use crate::cli::prompt::Ask;
use crate::config::Config;
use crate::identity::{Identity, IdentityError, Keystore, PasswordSources, Phrase, WordCount};

/// Keeps the identity that is there, which is never overwritten; its key is shown when a password source is at hand.
pub(super) fn keep_identity(args: &InitArgs, globals: &Globals, config: &Config) -> Result<Option<PublicIdentity>> {
    let keystore = &config.identity.keystore;
    if args.import || args.phrase_file.is_some() || args.new_phrase.words.is_some() {
        return Err(IdentityError::KeystoreExists(keystore.path().to_owned()).into());
    }
    let Some(password) = PasswordSources::of_process(globals.password_file.clone())?.read()? else { return Ok(None) };
    let identity = Identity::open(keystore, &password, config.identity.account)?;
    Ok(Some(PublicIdentity::of(&identity, keystore)))
}

pub(super) fn make_identity(
    args: &InitArgs,
    globals: &Globals,
    config: &Config,
    ask: &mut dyn Ask,
) -> Result<PublicIdentity> {
    let import = args.import || args.phrase_file.is_some();
    let import = import
        || (args.new_phrase.words.is_none()
            && ask.choose("Your phrase", &["make a new one", "import an existing one"], 0)? == 1);
    let phrase = if import {
        phrase_input::existing(args.phrase_file.as_deref(), ask)?
    } else {
        Phrase::generate(word_count(args, ask)?)?
    };
    let phrase = args.passphrase.apply(phrase)?;
    // An imported phrase may have been made with one; without it, it is another identity.
    let phrase = if import && ask.is_there() && !phrase.has_passphrase() {
        match ask.secret("BIP 39 passphrase of the phrase (empty: none)")? {
            none if none.is_empty() => phrase,
            passphrase => phrase.with_passphrase(passphrase)?,
        }
    } else {
        phrase
    };
    let password = globals.new_password(ask, args.force_weak_password)?;
    let keystore: &Keystore = &config.identity.keystore;
    keystore.create(&phrase, &password)?;
    if !import && ask.is_there() && ask.confirm("Show the words now, to write them down?", true)? {
        let words: Vec<&str> = phrase.words().collect();
        let lines: Vec<String> =
            words.iter().enumerate().map(|(index, word)| format!("{:>2}. {word}", index + 1)).collect();
        ask.say(&format!("\n{}\n", lines.join("\n")))?;
    }
    Ok(PublicIdentity::of(&Identity::from_phrase(&phrase, config.identity.account), keystore))
}

fn word_count(args: &InitArgs, ask: &mut dyn Ask) -> Result<WordCount> {
    match args.new_phrase.words {
        Some(count) => Ok(count),
        None if ask.choose("How long?", &["12 words", "24 words"], 0)? == 1 => Ok(WordCount::TwentyFour),
        None => Ok(WordCount::Twelve),
    }
}
