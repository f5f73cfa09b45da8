//! Errors as people read them: what failed, why, and what to do.

use std::fmt::Write as _;

use super::exit::{CommandError, Exit};
use crate::config::ConfigError;
use crate::identity::IdentityError;

/// The text for standard error: `error:`, a `cause:` for each further reason, `help:` when anybody knows one.
pub fn render(error: &anyhow::Error) -> String {
    let mut text = format!("error: {error}\n");
    let mut said = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // Wrappers that only repeat what they wrap would say it twice.
        if !said.ends_with(&cause) {
            let _ = writeln!(text, "cause: {cause}");
        }
        said = cause;
    }
    if let Some(help) = cure(error) {
        let _ = writeln!(text, "help: {help}");
    }
    text
}

/// What to do about an error, when anybody along its chain knows.
pub fn cure(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(help)
}

/// The exit code of an error.
pub fn code(error: &anyhow::Error) -> u8 {
    error
        .chain()
        .find_map(|cause| {
            if let Some(command) = cause.downcast_ref::<CommandError>() {
                return Some(command.code());
            }
            cause.downcast_ref::<ConfigError>().map(|_| Exit::Usage as u8)
        })
        .unwrap_or(Exit::Failure as u8)
}

fn help(cause: &(dyn std::error::Error + 'static)) -> Option<String> {
    if let Some(command) = cause.downcast_ref::<CommandError>() {
        return command.help_text().map(ToOwned::to_owned);
    }
    if let Some(identity) = cause.downcast_ref::<IdentityError>() {
        return identity.help();
    }
    cause.downcast_ref::<ConfigError>().and_then(ConfigError::help)
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn an_error_says_what_why_and_what_to_do() {
        let error = Err::<(), _>(IdentityError::NoKeystore("/x/id".into())).context("can't sell").unwrap_err();
        assert_eq!(
            render(&error),
            "error: can't sell\ncause: there is no identity at /x/id\nhelp: make one with 'coinop init', or 'coinop \
             identity new' or 'coinop identity import'\n"
        );
        assert_eq!(code(&error), 1);
    }

    #[test]
    fn a_configuration_to_correct_has_a_code_of_its_own() {
        let error = anyhow::Error::from(ConfigError::NotFound("/x/config.toml".into()));
        assert_eq!(code(&error), 2);
        assert_eq!(code(&CommandError::failure("no").exit(7).into()), 7);
        assert_eq!(code(&anyhow::anyhow!("no")), 1);
    }
}
