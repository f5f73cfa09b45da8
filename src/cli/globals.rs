//! What every command takes: where things are, what to say, and how to get the password.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use anyhow::Result;
use clap::ArgAction;
use serde::Serialize;

use super::exit::CommandError;
use super::prompt::{Ask, Terminal};
use crate::config::{Config, Paths};
use crate::identity::{Account, Identity, IdentityError, Password, PasswordSources};
use crate::store::Store;

/// Options of every command.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Globals {
    /// Keep everything (configuration, identity, database) in this folder instead of the XDG folders (else: COINOP_HOME)
    #[arg(long, global = true, value_name = "FOLDER", help_heading = "Everywhere")]
    pub home: Option<PathBuf>,

    /// Read this configuration file (else: COINOP_CONFIG)
    #[arg(long, global = true, value_name = "FILE", help_heading = "Everywhere")]
    pub config: Option<PathBuf>,

    /// Print JSON for scripts
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub json: bool,

    /// Say more (-vv: everything)
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "quiet", help_heading = "Everywhere")]
    pub verbose: u8,

    /// Say only what went wrong
    #[arg(short, long, global = true, help_heading = "Everywhere")]
    pub quiet: bool,

    /// Read the identity's password from this file (else: COINOP_PASSWORD, the systemd credential coinop-password, a prompt)
    #[arg(long, global = true, value_name = "FILE", help_heading = "Everywhere")]
    pub password_file: Option<PathBuf>,
}

/// Where everything is, when `--home` does not say it.
const HOME_VARIABLE: &str = "COINOP_HOME";
/// Where the configuration is, when `--config` does not say it.
const CONFIG_VARIABLE: &str = "COINOP_CONFIG";

/// What an existing password is asked with.
const PASSWORD_QUESTION: &str = "Password of the identity";
/// How often a mistyped new password may be tried again.
const NEW_PASSWORD_TRIES: usize = 5;

impl Globals {
    /// With the places that the environment names and the command line does not. It is not read by clap, which would show them
    /// as typed, and needed, wherever it says how a command is used.
    #[must_use]
    pub(super) fn or_of(mut self, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let place = |name| variable(name).filter(|place| !place.is_empty()).map(PathBuf::from);
        self.home = self.home.or_else(|| place(HOME_VARIABLE));
        self.config = self.config.or_else(|| place(CONFIG_VARIABLE));
        self
    }

    /// Where things are.
    ///
    /// # Errors
    /// When the user has no home folder and names none.
    pub fn paths(&self) -> Result<Paths> {
        Ok(Paths::find(self.home.as_deref(), self.config.as_deref())?)
    }

    /// The configuration, which must be there and sound.
    ///
    /// # Errors
    /// With everything that is wrong with it.
    pub fn load_config(&self) -> Result<(Paths, Config)> {
        let paths = self.paths()?;
        let config = Config::load(&paths)?;
        Ok((paths, config))
    }

    /// The configuration, or the defaults when there is none and none was named.
    ///
    /// # Errors
    /// With everything that is wrong with it.
    pub fn load_config_or_default(&self) -> Result<(Paths, Config)> {
        let paths = self.paths()?;
        let config = Config::load_or_default(&paths)?;
        Ok((paths, config))
    }

    /// The database, which must be there: reports make none.
    ///
    /// # Errors
    /// When there is none, or it can't be opened.
    pub fn open_store(&self) -> Result<Store> {
        let path = self.paths()?.database();
        if !path.exists() {
            return Err(CommandError::failure(format!("there is no database at {}", path.display()))
                .help("it is made by the first 'coinop serve'; is --home right?")
                .into());
        }
        Ok(Store::open(&path)?.0)
    }

    /// Opens the identity the configuration names, asking for the password when no source has it.
    ///
    /// # Errors
    /// No keystore, no password, a wrong one, or a damaged file: each in its own words.
    pub fn open_identity(&self, config: &Config) -> Result<Identity> {
        self.open_account(config, config.identity.account)
    }

    /// [`Globals::open_identity`] for another account.
    ///
    /// # Errors
    /// As [`Globals::open_identity`].
    pub fn open_account(&self, config: &Config, account: Account) -> Result<Identity> {
        let keystore = &config.identity.keystore;
        if !keystore.exists() {
            // Before anybody is asked for its password.
            return Err(IdentityError::NoKeystore(keystore.path().to_owned()).into());
        }
        let password = self.password(&mut *Terminal::open())?;
        Ok(Identity::open(keystore, &password, account)?)
    }

    /// The password of the existing identity.
    ///
    /// # Errors
    /// When no source has one and there is nobody to ask.
    pub fn password(&self, ask: &mut dyn Ask) -> Result<Password> {
        if let Some(password) = PasswordSources::of_process(self.password_file.clone())?.read()? {
            return Ok(password);
        }
        if !ask.is_there() {
            return Err(no_password().into());
        }
        Ok(Password::new(ask.secret(PASSWORD_QUESTION)?.to_string())?)
    }

    /// A password for a new identity: from the same sources, or typed twice. Weak ones are refused unless forced.
    ///
    /// # Errors
    /// A weak password, or nobody to ask.
    pub fn new_password(&self, ask: &mut dyn Ask, force_weak: bool) -> Result<Password> {
        let given = PasswordSources::of_process(self.password_file.clone())?.read()?;
        new_password(given, ask, force_weak)
    }

    /// Prints a result to standard output: JSON with `--json`, else `text`.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn print(&self, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
        if self.json { print(&format!("{}\n", serde_json::to_string_pretty(value)?)) } else { print(&text()) }
    }
}

/// Whether standard output is a terminal.
pub fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Prints to standard output. A reader that has seen enough (`| head`) is no error.
///
/// # Errors
/// When it can't be written for any other reason.
pub fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// Checks a given new password, or asks for one.
pub(super) fn new_password(given: Option<Password>, ask: &mut dyn Ask, force_weak: bool) -> Result<Password> {
    if let Some(password) = given {
        if !force_weak {
            password.check_strength()?;
        }
        return Ok(password);
    }
    if !ask.is_there() {
        return Err(no_password().into());
    }
    for _ in 0..NEW_PASSWORD_TRIES {
        let checked = Password::new(ask.secret("New password (it encrypts the phrase on this machine)")?.to_string())
            .and_then(|password| if force_weak { Ok(password) } else { password.check_strength().map(|()| password) });
        let password = match checked {
            Ok(password) => password,
            Err(error) => {
                ask.say(&format!("{error}"))?;
                continue;
            }
        };
        if Password::new(ask.secret("The same password again")?.to_string()).is_ok_and(|again| again.is(&password)) {
            return Ok(password);
        }
        ask.say("The two are not the same.")?;
    }
    Err(CommandError::failure("no usable password was given").into())
}

fn no_password() -> CommandError {
    CommandError::usage("a password is needed, and there is no terminal to ask for it")
        .help("give --password-file, or set COINOP_PASSWORD, or load the systemd credential coinop-password")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_goes_before_the_environment_and_nothing_names_no_place() {
        let variable = |name: &str| Some(OsString::from(if name == HOME_VARIABLE { "/home" } else { "" }));
        let of_environment = Globals::default().or_of(variable);
        assert_eq!((of_environment.home, of_environment.config), (Some("/home".into()), None));
        let typed = Globals { home: Some("/typed".into()), ..Globals::default() }.or_of(variable);
        assert_eq!(typed.home, Some("/typed".into()));
    }
}
