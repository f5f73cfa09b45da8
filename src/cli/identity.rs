//! `coinop identity`: make, import, look at, back up.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;
use serde::Serialize;

use super::exit::{CommandError, Exit};
use super::phrase_input::{self, NewPhraseArgs, PassphraseArgs};
use super::prompt::{Ask, Terminal};
use super::{Globals, globals};
use crate::config::Config;
use crate::identity::{Account, Identity, IdentityError, Keystore, Password, Phrase};

/// What has to be typed before the words are shown.
const CONFIRMATION: &str = "show my words";

/// Make, import, look at or back up the identity
#[derive(Debug, clap::Args)]
pub struct IdentityArgs {
    #[command(subcommand)]
    command: IdentityCommand,
}

#[derive(Debug, Subcommand)]
enum IdentityCommand {
    /// Make a new phrase and keep it encrypted
    #[command(
        after_help = "Examples:\n  coinop identity new\n  coinop identity new --words 24 --password-file /run/secrets/coinop"
    )]
    New(NewArgs),
    /// Keep an existing phrase encrypted
    #[command(
        after_help = "The phrase is never taken from the command line.\n\nExamples:\n  coinop identity import\n  coinop identity import --phrase-file words.txt\n  pass show nostr/words | coinop identity import --password-file /run/secrets/coinop"
    )]
    Import(ImportArgs),
    /// Show the public key and the wallet's fingerprint
    #[command(after_help = "Examples:\n  coinop identity show\n  coinop identity show --account 1 --json")]
    Show(ShowArgs),
    /// Show the words, to write them down
    #[command(
        after_help = "Whoever has the words has the identity and its money.\n\nExamples:\n  coinop identity backup"
    )]
    Backup(BackupArgs),
    /// Change the password, and bring the encryption up to date
    #[command(
        after_help = "Examples:\n  coinop identity password\n  coinop identity password --password-file old.txt --new-password-file new.txt"
    )]
    Password(PasswordArgs),
}

#[derive(Debug, clap::Args)]
struct NewArgs {
    #[command(flatten)]
    phrase: NewPhraseArgs,
    #[command(flatten)]
    passphrase: PassphraseArgs,
    /// Take a weak password
    #[arg(long)]
    force_weak_password: bool,
}

#[derive(Debug, clap::Args)]
struct ImportArgs {
    /// Read the words from this file; - is standard input
    #[arg(long, value_name = "FILE")]
    phrase_file: Option<PathBuf>,
    #[command(flatten)]
    passphrase: PassphraseArgs,
    /// Take a weak password
    #[arg(long)]
    force_weak_password: bool,
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    /// Another account of the same phrase (NIP-06)
    #[arg(long, value_name = "NUMBER")]
    account: Option<u32>,
}

#[derive(Debug, clap::Args)]
struct BackupArgs {
    /// Print the words without asking, even into a file or a pipe
    #[arg(long)]
    yes_show_my_words: bool,
}

#[derive(Debug, clap::Args)]
struct PasswordArgs {
    /// Read the new password from this file
    #[arg(long, value_name = "FILE")]
    new_password_file: Option<PathBuf>,
    /// Take a weak password
    #[arg(long)]
    force_weak_password: bool,
}

/// What may be known of an identity by everybody.
#[derive(Debug, Clone, Serialize)]
pub struct PublicIdentity {
    /// NIP-19.
    npub: String,
    /// The same in hexadecimal digits.
    public_key: String,
    /// NIP-06 account.
    account: u32,
    /// The wallet's public name.
    wallet_fingerprint: String,
    /// Where the phrase is kept.
    keystore: PathBuf,
}

impl PublicIdentity {
    /// The public side of an identity.
    pub fn of(identity: &Identity, keystore: &Keystore) -> Self {
        Self {
            npub: identity.npub(),
            public_key: identity.signer.public_hex(),
            account: identity.account.number(),
            wallet_fingerprint: identity.wallet_fingerprint().to_string(),
            keystore: keystore.path().to_owned(),
        }
    }

    /// As lines for people.
    pub fn lines(&self) -> String {
        format!(
            "npub      {}\nhex       {}\naccount   {}\nwallet    {}\nkeystore  {}\n",
            self.npub,
            self.public_key,
            self.account,
            self.wallet_fingerprint,
            self.keystore.display()
        )
    }
}

/// Runs the command.
pub async fn run(args: IdentityArgs, globals: &Globals) -> Result<ExitCode> {
    let (_, config) = globals.load_config_or_default()?;
    let ask = &mut *Terminal::open();
    match args.command {
        IdentityCommand::New(args) => {
            refuse_to_overwrite(&config)?;
            let phrase = args.passphrase.apply(Phrase::generate(args.phrase.words.unwrap_or_default())?)?;
            let password = globals.new_password(ask, args.force_weak_password)?;
            let made = store(&config, &phrase, &password)?;
            globals.print(&made, || format!("{}\nWrite the words down now: coinop identity backup\n", made.lines()))?;
        }
        IdentityCommand::Import(args) => {
            refuse_to_overwrite(&config)?;
            let phrase = args.passphrase.apply(phrase_input::existing(args.phrase_file.as_deref(), ask)?)?;
            let password = globals.new_password(ask, args.force_weak_password)?;
            let made = store(&config, &phrase, &password)?;
            globals.print(&made, || made.lines())?;
        }
        IdentityCommand::Show(args) => {
            let account = args.account.map_or(Ok(config.identity.account), Account::try_from)?;
            let identity = globals.open_account(&config, account)?;
            let public = PublicIdentity::of(&identity, &config.identity.keystore);
            globals.print(&public, || public.lines())?;
        }
        IdentityCommand::Backup(args) => backup(&args, globals, &config, ask)?,
        IdentityCommand::Password(args) => change_password(args, globals, &config, ask)?,
    }
    Ok(Exit::Ok.into())
}

fn refuse_to_overwrite(config: &Config) -> Result<()> {
    let keystore = &config.identity.keystore;
    if keystore.exists() {
        return Err(IdentityError::KeystoreExists(keystore.path().to_owned()).into());
    }
    Ok(())
}

fn store(config: &Config, phrase: &Phrase, password: &Password) -> Result<PublicIdentity> {
    let keystore = &config.identity.keystore;
    keystore.create(phrase, password)?;
    Ok(PublicIdentity::of(&Identity::from_phrase(phrase, config.identity.account), keystore))
}

fn backup(args: &BackupArgs, globals: &Globals, config: &Config, ask: &mut dyn Ask) -> Result<()> {
    let somebody_watches = globals::stdout_is_terminal() && ask.is_there();
    if !args.yes_show_my_words && !somebody_watches {
        return Err(CommandError::usage("the words would not go to a screen with somebody before it")
            .help("run it at a terminal, or add --yes-show-my-words if a file or a pipe is what you want")
            .into());
    }
    let keystore = existing_keystore(config)?;
    let phrase = keystore.open(&globals.password(ask)?)?;
    if !args.yes_show_my_words {
        confirm_showing(ask)?;
    }
    let words: Vec<&str> = phrase.words().collect();
    let shown = Backup { words: &words, has_passphrase: phrase.has_passphrase() };
    globals.print(&shown, || {
        let mut text = String::new();
        for (index, word) in words.iter().enumerate() {
            text.push_str(&format!("{:>2}. {word}\n", index + 1));
        }
        if phrase.has_passphrase() {
            text.push_str("A BIP 39 passphrase belongs to them, which is not shown: write it down separately.\n");
        }
        text
    })
}

#[derive(Serialize)]
struct Backup<'a> {
    words: &'a [&'a str],
    has_passphrase: bool,
}

fn confirm_showing(ask: &mut dyn Ask) -> Result<()> {
    ask.say("Whoever sees the words has the identity and its money. Is nobody watching, no screen shared?")?;
    let typed = ask.text(&format!("Type '{CONFIRMATION}' to go on"), "")?;
    if typed.trim() == CONFIRMATION {
        return Ok(());
    }
    Err(CommandError::failure("not confirmed; nothing was shown").into())
}

/// Before anybody is asked for its password.
fn existing_keystore(config: &Config) -> Result<&Keystore> {
    let keystore = &config.identity.keystore;
    if keystore.exists() { Ok(keystore) } else { Err(IdentityError::NoKeystore(keystore.path().to_owned()).into()) }
}

fn change_password(args: PasswordArgs, globals: &Globals, config: &Config, ask: &mut dyn Ask) -> Result<()> {
    let keystore = existing_keystore(config)?;
    let given = args.new_password_file.as_deref().map(Password::from_file).transpose()?;
    if given.is_none() && !ask.is_there() {
        return Err(CommandError::usage("there is no terminal to ask for the new password")
            .help("give it with --new-password-file")
            .into());
    }
    let old = globals.password(ask)?;
    // Before a new one is thought of.
    keystore.open(&old)?;
    let new = globals::new_password(given, ask, args.force_weak_password)?;
    keystore.change_password(&old, &new)?;
    let path = keystore.path();
    globals.print(&serde_json::json!({ "keystore": path, "changed": true }), || {
        format!("The password of {} is changed.\n", path.display())
    })
}

#[cfg(test)]
mod tests {
    use super::super::prompt::{Nobody, Script};
    use super::*;

    #[test]
    fn the_words_are_only_shown_after_the_exact_confirmation() {
        assert!(confirm_showing(&mut Script::new(&[CONFIRMATION])).is_ok());
        for other in ["", "y", "yes", "SHOW MY WORDS"] {
            assert!(confirm_showing(&mut Script::new(&[other])).is_err(), "{other}");
        }
    }

    #[test]
    fn a_typed_new_password_is_asked_until_it_is_strong_and_typed_twice_alike() {
        let good = "orbit velvet tundra seven";
        let mut script = Script::new(&["password", "", good, "something else", good, good]);
        let password = globals::new_password(None, &mut script, false).unwrap();
        assert!(password.is(&Password::new(good.into()).unwrap()));
        assert!(script.is_used_up());
        assert!(script.transcript.iter().any(|line| line.contains("too weak")));
        assert!(script.transcript.iter().any(|line| line.contains("not the same")));
    }

    #[test]
    fn a_weak_password_is_taken_only_when_forced() {
        let weak = || Some(Password::new("password".into()).unwrap());
        assert!(globals::new_password(weak(), &mut Nobody, false).is_err());
        assert!(globals::new_password(weak(), &mut Nobody, true).is_ok());
    }
}
