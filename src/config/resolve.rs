//! From the file's texts to a [`Config`]: each value by itself, then together. All problems are told at once.

use std::time::Duration;

use tracing_subscriber::EnvFilter;

use super::agents::agents;
use super::error::{ConfigError, Problem};
use super::inference::{fits_text, inference};
use super::paths::Paths;
use super::raw::{
    RawAccess, RawAd, RawConfig, RawFetch, RawIdentity, RawLimits, RawLog, RawProfile, RawRelays, RawRequester, RawText,
};
use super::resolved::{
    Access, AdSettings, Config, FetchSettings, IdentitySettings, Limits, LogFormat, LogSettings, MetricsSettings,
    PayFrom, Profile, RelaySettings, RequesterSettings, TextSettings, WalletSettings, ZapSettings,
};
use super::values::Values;
use super::wallet::{network, refund, wallet};
use crate::identity::{Account, Keystore};
use crate::job::{Rates, Terms};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const YEAR: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// More relays than that cost connections and bring only duplicates.
const MAX_RELAYS: usize = 50;
/// NIP-13 work a customer's machine does in minutes; more would keep everybody out.
const MAX_POW_BITS: u32 = 40;
/// Counts that are bounded only so that they are not typing errors.
const PLENTY: u32 = 1_000_000;
/// The largest event or input worth configuring: far above what relays carry.
const MAX_BYTES: u32 = 64 * 1024 * 1024;
/// More than any model has.
pub(super) const MAX_TOKENS: u32 = 10_000_000;

impl Config {
    /// Checks a configuration as written.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with everything that is wrong.
    pub fn resolve(raw: &RawConfig, paths: &Paths) -> Result<Self, ConfigError> {
        let mut values = Values::new(paths.config_dir());
        let values_mut = &mut values;
        // In the file's order, which is that of the problems.
        let identity = identity(values_mut, &raw.identity, paths);
        let relays = relays(values_mut, &raw.relays);
        let profile = profile(values_mut, &raw.profile);
        let text = text(values_mut, &raw.text);
        let config = Self {
            identity,
            relays,
            profile,
            inference: inference(values_mut, &raw.inference, &text),
            text,
            agents: agents(values_mut, raw),
            wallet: wallet(values_mut, &raw.wallet),
            network: network(values_mut, &raw.wallet.network),
            zaps: ZapSettings { accept: raw.zaps.accept },
            refund: refund(values_mut, &raw.refund),
            limits: limits(values_mut, &raw.limits),
            access: access(values_mut, &raw.access),
            ad: ad(values_mut, &raw.ad),
            metrics: MetricsSettings { listen: values_mut.socket("metrics.listen", &raw.metrics.listen) },
            shutdown_grace: values_mut.duration("shutdown.grace", &raw.shutdown.grace, Duration::ZERO, HOUR),
            fetch: fetch(values_mut, &raw.fetch),
            log: log(values_mut, &raw.log),
            requester: requester(values_mut, &raw.requester),
        };
        together(values_mut, &config);
        super::agents::together(values_mut, &config.agents, &config.wallet);
        fits_text(values_mut, &raw.inference, &config);
        if values.problems.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError::Invalid { path: paths.config_file.clone(), problems: values.problems })
        }
    }

    /// Whether everything is there to sell: something to sell, what does the work, where the money comes in. Files and
    /// variables are looked at. What is missing is named with its cure; nothing is missing when the list is empty.
    pub fn missing_to_serve(&self) -> Vec<Problem> {
        let mut missing = Values::new(std::path::Path::new(""));
        if !self.sells() {
            missing.problem("text.enabled", "nothing is sold", "set it to true, or that of another kind of job");
        }
        if self.asks_a_model() {
            self.inference.missing_to_serve(&mut missing);
        }
        match &self.wallet {
            WalletSettings::None if self.asks_for_money() => missing.problem(
                "wallet.backend",
                "work is sold, and there is no wallet to be paid with",
                "set it to \"nwc\" with wallet.nwc.connection, or the terms of what is sold (text.terms) to \"free\"",
            ),
            wallet => {
                // Not an error of the configuration: another build reads the same file.
                if matches!(wallet, WalletSettings::Ldk(_)) && !cfg!(feature = "ldk") {
                    missing.problem(
                        "wallet.backend",
                        "this coinop was built without the embedded node",
                        "use one built with the feature ldk, which is on by default",
                    );
                }
                for (field, secret) in wallet.secrets() {
                    if let Err(error) = secret.reveal(field) {
                        missing.problem(field, error_words(&error), "put the secret there");
                    }
                }
                if let Some((field, path)) = wallet.certificate().filter(|(_, path)| !path.is_file()) {
                    missing.problem(field, format!("there is no file {}", path.display()), "correct the path");
                }
            }
        }
        missing.problems
    }

    /// [`Config::missing_to_serve`] as a result.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with everything that is missing.
    pub fn check_ready_to_serve(&self, paths: &Paths) -> Result<(), ConfigError> {
        match self.missing_to_serve() {
            problems if problems.is_empty() => Ok(()),
            problems => Err(ConfigError::Invalid { path: paths.config_file.clone(), problems }),
        }
    }
}

pub(super) fn error_words(error: &ConfigError) -> String {
    match error {
        ConfigError::Secret { why, .. } => why.clone(),
        other => other.to_string(),
    }
}

fn identity(values: &mut Values<'_>, raw: &RawIdentity, paths: &Paths) -> IdentitySettings {
    let account = Account::try_from(raw.account).unwrap_or_else(|error| {
        values.problem("identity.account", error.to_string(), "write 0 unless you know you want another");
        Account::default()
    });
    let keystore = values.path(&raw.keystore).unwrap_or_else(|| paths.default_keystore());
    IdentitySettings { account, keystore: Keystore::at(keystore) }
}

fn relays(values: &mut Values<'_>, raw: &RawRelays) -> RelaySettings {
    let mut urls = Vec::new();
    for text in &raw.urls {
        if let Some(url) = values.url("relays.urls", text, ["wss", "ws"]) {
            if urls.contains(&url) {
                values.problem("relays.urls", format!("{url} stands there twice"), "leave one out");
            } else {
                urls.push(url);
            }
        }
    }
    if raw.urls.is_empty() {
        values.problem("relays.urls", "no relay", "name at least one, such as \"wss://relay.damus.io\"");
    }
    if raw.urls.len() > MAX_RELAYS {
        values.problem("relays.urls", "too many relays", format!("name at most {MAX_RELAYS}"));
    }
    let most = u32::try_from(raw.urls.len()).unwrap_or(u32::MAX).max(1);
    RelaySettings {
        quorum: values.count("relays.quorum", raw.quorum, 1, most),
        publish_timeout: values.duration("relays.publish_timeout", &raw.publish_timeout, SECOND, 5 * MINUTE),
        allow_private: raw.allow_private,
        urls,
    }
}

fn profile(values: &mut Values<'_>, raw: &RawProfile) -> Profile {
    let lud16 = values.line("profile.lud16", &raw.lud16, 200);
    if let Some(address) = &lud16 {
        let parts: Vec<&str> = address.split('@').collect();
        if !matches!(parts[..], [name, host] if !name.is_empty() && host.contains('.') && !address.contains(char::is_whitespace))
        {
            values.problem("profile.lud16", "it is no lightning address", "write name@host, or nothing");
        }
    }
    Profile {
        name: values.line("profile.name", &raw.name, 100),
        about: values.line("profile.about", &raw.about, 2_000),
        picture: values.optional_url("profile.picture", &raw.picture),
        website: values.optional_url("profile.website", &raw.website),
        lud16,
    }
}

fn text(values: &mut Values<'_>, raw: &RawText) -> TextSettings {
    let words = [Terms::Prepay, Terms::Postpay, Terms::Free, Terms::Hold].map(|terms| (terms.word(), terms));
    let terms = values.word("text.terms", &raw.terms, &words);
    let rates = Rates {
        base: values.amount("text.base", &raw.base),
        per_1k_prompt: values.amount("text.per_1k_prompt", &raw.per_1k_prompt),
        per_1k_generated: values.amount("text.per_1k_generated", &raw.per_1k_generated),
        ..Rates::FREE
    };
    TextSettings {
        enabled: raw.enabled,
        terms,
        // Whoever works for nothing need not clear the price list as well.
        rates: if terms == Terms::Free { Rates::default() } else { rates },
        free_per_day: values.number("text.free_per_day", raw.free_per_day, 0, PLENTY),
        max_input_bytes: values.count("text.max_input_bytes", raw.max_input_bytes, 1, MAX_BYTES),
        max_output_tokens: values.number("text.max_output_tokens", raw.max_output_tokens, 1, MAX_TOKENS),
        default_output_tokens: values.number("text.default_output_tokens", raw.default_output_tokens, 1, MAX_TOKENS),
        time_limit: values.duration("text.time_limit", &raw.time_limit, SECOND, DAY),
    }
}

fn limits(values: &mut Values<'_>, raw: &RawLimits) -> Limits {
    Limits {
        max_event_bytes: values.count("limits.max_event_bytes", raw.max_event_bytes, 1_024, MAX_BYTES),
        max_request_age: values.duration("limits.max_request_age", &raw.max_request_age, SECOND, 30 * DAY),
        max_clock_skew: values.duration("limits.max_clock_skew", &raw.max_clock_skew, SECOND, DAY),
        jobs_running: match values.count("limits.jobs_running", raw.jobs_running, 0, 10_000) {
            0 => None,
            jobs => Some(jobs),
        },
        jobs_queued: values.count("limits.jobs_queued", raw.jobs_queued, 1, PLENTY),
        open_quotes: values.count("limits.open_quotes", raw.open_quotes, 1, PLENTY),
        per_customer_open: values.count("limits.per_customer_open", raw.per_customer_open, 1, PLENTY),
        per_customer_per_minute: values.number(
            "limits.per_customer_per_minute",
            raw.per_customer_per_minute,
            1,
            PLENTY,
        ),
        per_customer_given_away_per_hour: values.count(
            "limits.per_customer_given_away_per_hour",
            raw.per_customer_given_away_per_hour,
            1,
            PLENTY,
        ),
        events_per_second: values.number("limits.events_per_second", raw.events_per_second, 1, PLENTY),
        payment_window: values.duration("limits.payment_window", &raw.payment_window, 10 * SECOND, 7 * DAY),
        late_payment_window: values.duration(
            "limits.late_payment_window",
            &raw.late_payment_window,
            Duration::ZERO,
            YEAR,
        ),
        retention: values.duration("limits.retention", &raw.retention, DAY, 100 * YEAR),
    }
}

fn access(values: &mut Values<'_>, raw: &RawAccess) -> Access {
    Access {
        allow: values.keys("access.allow", &raw.allow),
        deny: values.keys("access.deny", &raw.deny),
        free: values.keys("access.free", &raw.free),
        proof_of_work: values.number("access.proof_of_work", raw.proof_of_work, 0, MAX_POW_BITS),
    }
}

fn ad(values: &mut Values<'_>, raw: &RawAd) -> AdSettings {
    let topics = raw.topics.iter().filter_map(|topic| values.line("ad.topics", topic, 50)).collect();
    if raw.topics.len() > 20 {
        values.problem("ad.topics", "too many topics", "name at most 20");
    }
    AdSettings {
        enabled: raw.enabled,
        topics,
        heartbeat: raw.heartbeat,
        refresh: values.duration("ad.refresh", &raw.refresh, MINUTE, 30 * DAY),
        withdraw_on_shutdown: raw.withdraw_on_shutdown,
    }
}

fn fetch(values: &mut Values<'_>, raw: &RawFetch) -> FetchSettings {
    FetchSettings {
        enabled: raw.enabled,
        max_bytes: values.count("fetch.max_bytes", raw.max_bytes, 1, MAX_BYTES),
        timeout: values.duration("fetch.timeout", &raw.timeout, SECOND, 10 * MINUTE),
        allow_private: raw.allow_private,
    }
}

fn log(values: &mut Values<'_>, raw: &RawLog) -> LogSettings {
    if let Err(error) = EnvFilter::try_new(&raw.filter) {
        values.problem(
            "log.filter",
            format!("it can't be read ({error})"),
            "write error, warn, info, debug or trace, or a list such as \"info,coinop::relays=debug\"",
        );
    }
    let format = values.word("log.format", &raw.format, &[("text", LogFormat::Text), ("json", LogFormat::Json)]);
    LogSettings { format, filter: raw.filter.clone() }
}

fn requester(values: &mut Values<'_>, raw: &RawRequester) -> RequesterSettings {
    RequesterSettings {
        max_cost: values.amount("requester.max_cost", &raw.max_cost),
        timeout: values.duration("requester.timeout", &raw.timeout, SECOND, DAY),
        wallet: if raw.wallet == "own" {
            Some(PayFrom::Own)
        } else {
            values.secret("requester.wallet", &raw.wallet).map(PayFrom::Nwc)
        },
        max_per_day: (!raw.max_per_day.is_empty()).then(|| values.amount("requester.max_per_day", &raw.max_per_day)),
        max_fee_percent: values.number("requester.max_fee_percent", raw.max_fee_percent, 0, 100),
    }
}

/// What only shows when values are looked at together. A value that is wrong by itself stands in with something
/// harmless, so nothing is said about it twice.
fn together(values: &mut Values<'_>, config: &Config) {
    let text = &config.text;
    let fits = text.default_output_tokens <= text.max_output_tokens;
    if !fits && values.are_fine(&["text.default_output_tokens", "text.max_output_tokens"]) {
        values.problem(
            "text.default_output_tokens",
            format!("{} is above text.max_output_tokens ({})", text.default_output_tokens, text.max_output_tokens),
            "lower it, or raise the other",
        );
    }
    let price = ["text.terms", "text.base", "text.per_1k_prompt", "text.per_1k_generated"];
    if text.enabled && text.terms != Terms::Free && text.rates.is_free() && values.are_fine(&price) {
        values.problem(
            "text.terms",
            format!("\"{}\" with a price of nothing", text.terms),
            "set a price (text.base, text.per_1k_prompt, text.per_1k_generated), or text.terms = \"free\"",
        );
    }
    // What a wallet really can is seen when it is connected.
    let wallet = ["wallet.backend", "text.terms"];
    if text.terms == Terms::Hold && !config.wallet.may_hold() && values.problems.is_empty() && values.are_fine(&wallet)
    {
        values.problem(
            "text.terms",
            "\"hold\" needs a wallet with hold invoices, and the configured one has none",
            "use \"prepay\" or \"postpay\"",
        );
    }
    if config.refund.automatic_above.is_some() && matches!(config.wallet, WalletSettings::Nwc { .. }) {
        values.problem(
            "refund.automatic_above",
            "over NWC nobody can limit routing fees, and whoever is paid back chooses the route's end",
            "leave it empty and pay back by hand ('coinop refund'), or use another wallet",
        );
    }
    keys_together(values, &config.access);
}

fn keys_together(values: &mut Values<'_>, access: &Access) {
    let both = |one: &str, other: &str| format!("a key stands in access.{one} and in access.{other}");
    if !access.allow.is_disjoint(&access.deny) {
        values.problem("access.deny", both("allow", "deny"), "take it out of one of them");
    }
    if !access.free.is_disjoint(&access.deny) {
        values.problem("access.deny", both("free", "deny"), "take it out of one of them");
    }
    let lets_in = |key| access.allow.is_empty() || access.allow.contains(key);
    if values.are_fine(&["access.allow"]) && !access.free.iter().all(lets_in) {
        values.problem(
            "access.free",
            "a key stands there that access.allow does not let in",
            "add it to access.allow as well",
        );
    }
}
