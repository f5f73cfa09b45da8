//! Where log lines go: standard error, so that standard output stays for results.

use std::io::{self, IsTerminal};

use tracing_subscriber::filter::{FilterExt as _, FilterFn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt};

use crate::config::{LogFormat, LogSettings};

/// The variable that overrides what is logged.
pub const LOG_VARIABLE: &str = "COINOP_LOG";

/// Crates that log whole messages of relays and container engines, prompts, commands and results included: never heard,
/// whatever the filter says.
const NEVER_HEARD: [&str; 7] = [
    "nostr_relay_pool",
    "nostr_sdk",
    "nostr_relay_builder",
    "async_wsocket",
    "tokio_tungstenite",
    "tungstenite",
    "bollard",
];

/// What commands other than the daemon log.
pub fn quiet_settings() -> LogSettings {
    LogSettings { format: LogFormat::Text, filter: "warn,mistralrs_core=error".into() }
}

/// Starts logging. The variable `COINOP_LOG` comes before `-v` and `-q`, those before the configuration. Done once a
/// process; later calls change nothing.
pub fn start(settings: &LogSettings, verbose: u8, quiet: bool) {
    let directives = match (std::env::var(LOG_VARIABLE), quiet, verbose) {
        (Ok(directives), _, _) if !directives.is_empty() => directives,
        (_, true, _) => "error".into(),
        (_, _, 0) => settings.filter.clone(),
        (_, _, 1) => "info,coinop=debug".into(),
        _ => "debug,coinop=trace".into(),
    };
    let filter = EnvFilter::builder().parse_lossy(directives).and(FilterFn::new(|event| is_heard(event.target())));
    let layer = fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    let layer = match settings.format {
        LogFormat::Text => layer.with_filter(filter).boxed(),
        LogFormat::Json => layer.json().with_filter(filter).boxed(),
    };
    // Only fails when a subscriber is there already, as in a test.
    let _ = tracing_subscriber::registry().with(layer).try_init();
}

fn is_heard(target: &str) -> bool {
    !NEVER_HEARD.iter().any(|silent| target == *silent || target.starts_with(&format!("{silent}::")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_that_log_whole_messages_are_never_heard() {
        assert!(!is_heard("nostr_relay_pool"));
        assert!(!is_heard("nostr_relay_pool::relay::inner"));
        assert!(!is_heard("nostr_sdk::client"));
        assert!(!is_heard("bollard::docker"));
        assert!(is_heard("coinop::relays"));
        assert!(is_heard("nostr_sdk_but_not_really"));
    }
}
