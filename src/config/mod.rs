//! The operator's configuration: one TOML file, read whole, checked whole, with every mistake told at once.
//!
//! [`raw`] is the file as written, [`resolved`] what the rest of coinop takes, [`resolve`] the way from one to the
//! other. Secrets stand elsewhere and are named by reference ([`secret`]).

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

pub mod agents;
pub mod error;
pub mod inference;
pub mod paths;
pub mod raw;
mod resolve;
pub mod resolved;
pub mod secret;
pub mod template;
mod values;
mod wallet;

pub use agents::{
    AgentSettings, CodeReviewSettings, ExternalSettings, FileSettings, HostAddress, HostSettings, ImageSettings,
    KeyHeader, PatchGenSettings, RepoIndexSettings, RepositorySettings, Sale, SandboxRunSettings, SandboxSettings,
    TlsFiles,
};
pub use error::{ConfigError, Problem};
pub use inference::{
    BackendSettings, EndpointSettings, InferenceSettings, JsonAnswers, LlamaCppSettings, MistralRsSettings,
    ModelSettings, OllamaSettings, OpenAiSettings, ServerSettings,
};
pub use paths::Paths;
pub use raw::{RawConfig, RawEndpoint};
pub use resolved::{
    Access, AdSettings, ChainSource, ClnSettings, Config, FetchSettings, IdentitySettings, LdkSettings, Limits,
    LndSettings, LogFormat, LogSettings, LspSettings, MetricsSettings, PayFrom, Profile, RefundSettings, RelaySettings,
    RequesterSettings, TextSettings, WalletSettings, ZapSettings,
};
pub use secret::SecretRef;
pub use template::Template;

impl RawConfig {
    /// Reads TOML. `path` is for the errors alone.
    ///
    /// # Errors
    /// [`ConfigError::Syntax`] with line and column, and without the line's text, which may hold a secret.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start).min(text.len());
            let before = text.get(..at).unwrap_or_default();
            ConfigError::Syntax {
                path: path.to_owned(),
                line: before.matches('\n').count() + 1,
                column: before.rsplit('\n').next().unwrap_or_default().chars().count() + 1,
                message: without_values(error.message()),
            }
        })
    }

    /// Reads the configuration file.
    ///
    /// # Errors
    /// [`ConfigError::NotFound`] when there is none, [`ConfigError::Syntax`] when it can't be understood.
    pub fn read(paths: &Paths) -> Result<Self, ConfigError> {
        let path = &paths.config_file;
        let text = fs::read_to_string(path).map_err(|source| match source.kind() {
            ErrorKind::NotFound => ConfigError::NotFound(path.clone()),
            _ => ConfigError::Unreadable { path: path.clone(), source },
        })?;
        Self::parse(&text, path)
    }

    /// [`RawConfig::read`], or the defaults when there is no file and none was named.
    ///
    /// # Errors
    /// As [`RawConfig::read`].
    pub fn read_or_default(paths: &Paths) -> Result<Self, ConfigError> {
        match Self::read(paths) {
            Err(ConfigError::NotFound(_)) if !paths.config_named => Ok(Self::default()),
            read => read,
        }
    }
}

impl Config {
    /// Reads and checks the configuration.
    ///
    /// # Errors
    /// As [`RawConfig::read`], or [`ConfigError::Invalid`] with everything that is wrong.
    pub fn load(paths: &Paths) -> Result<Self, ConfigError> {
        Self::resolve(&RawConfig::read(paths)?, paths)
    }

    /// [`Config::load`], or the defaults when there is no file and none was named: for what works without one.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_or_default(paths: &Paths) -> Result<Self, ConfigError> {
        Self::resolve(&RawConfig::read_or_default(paths)?, paths)
    }
}

/// A message of the TOML reader without the value it complains about: `invalid type: string "…", expected u32`.
fn without_values(message: &str) -> String {
    let Some(start) = message.find("string \"") else { return message.lines().next().unwrap_or_default().to_owned() };
    let end = message.rfind('"').map_or(message.len(), |at| at + 1);
    format!("{}text{}", &message[..start], &message[end.max(start)..]).lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::job::{CustomerId, Terms};
    use crate::money::Msat;

    fn paths() -> Paths {
        Paths::find(Some(Path::new("/srv/dvm")), None).unwrap()
    }

    fn resolve(text: &str) -> Result<Config, ConfigError> {
        Config::resolve(&RawConfig::parse(text, Path::new("config.toml"))?, &paths())
    }

    /// The fields complained about.
    fn problems(text: &str) -> Vec<Problem> {
        match resolve(text) {
            Ok(_) => Vec::new(),
            Err(ConfigError::Invalid { problems, .. }) => problems,
            Err(other) => panic!("{other}"),
        }
    }

    fn fields(text: &str) -> Vec<String> {
        problems(text).into_iter().map(|problem| problem.field).collect()
    }

    #[test]
    fn the_defaults_are_sound_and_lack_only_a_wallet() {
        let config = resolve("").unwrap();
        assert_eq!(config.text.terms, Terms::Prepay);
        assert_eq!(config.text.rates.base, Msat::sat(2));
        assert_eq!(config.limits.payment_window, Duration::from_secs(600));
        assert_eq!(config.identity.keystore.path(), Path::new("/srv/dvm/identity.keystore"));
        let missing: Vec<_> = config.missing_to_serve().into_iter().map(|problem| problem.field).collect();
        assert_eq!(missing, ["wallet.backend"]);
        assert!(config.inference.is_auto() && config.inference.probe.len() == 5);
        assert_eq!((config.limits.jobs_running, config.metrics.listen), (None, None));
    }

    #[test]
    fn a_sellers_configuration_is_ready_to_serve() {
        let config = resolve(
            r#"
            text.terms = "free"
            text.base = "0"
            inference.backend = "echo"
            access.free = ["npub1zutzeysacnf9rru6zqwmxd54mud0k44tst6l70ja5mhv8jjumytsd2x7nu"]
            relays.urls = ["ws://127.0.0.1:7777"]
            "#,
        )
        .unwrap();
        assert!(config.check_ready_to_serve(&paths()).is_ok());
        assert!(!config.text.asks_for_money());
        let free = "17162c921dc4d2518f9a101db33695df1afb56ab82f5ff3e5da6eec3ca5cd917".parse::<CustomerId>().unwrap();
        assert!(config.access.free.contains(&free));
    }

    #[test]
    fn every_mistake_is_told_at_once_with_its_field_and_cure() {
        let found = problems(
            r#"
            identity.account = 4294967295
            relays.urls = ["https://x.example", "wss://a.example", "wss://a.example/", "wss://u:p@b.example"]
            relays.quorum = 9
            relays.publish_timeout = "soon"
            profile.lud16 = "nobody"
            profile.website = "ftp://x"
            text.terms = "later"
            text.base = "2"
            text.time_limit = "0s"
            text.max_output_tokens = 0
            inference.backend = "magic"
            inference.chat_template = "{{ literal }}"
            wallet.backend = "fake"
            limits.jobs_running = 10001
            metrics.listen = "9090"
            access.allow = ["nsec10allq0gjx7fddtzef0ax00mdps9t2kmtrldkyjfs8l5xruwvh2dq0lhhkp", "me"]
            access.proof_of_work = 200
            log.filter = "coinop=loud=very"
            log.format = "xml"
            requester.wallet = "nostr+walletconnect://secret"
            "#,
        );
        let mut named: Vec<_> = found.iter().map(|problem| problem.field.as_str()).collect();
        named.dedup();
        assert_eq!(
            named,
            [
                "identity.account",
                "relays.urls",
                "relays.quorum",
                "relays.publish_timeout",
                "profile.lud16",
                "profile.website",
                "text.terms",
                "text.base",
                "text.max_output_tokens",
                "text.time_limit",
                "inference.backend",
                "inference.chat_template",
                "wallet.backend",
                "limits.jobs_running",
                "access.allow",
                "access.proof_of_work",
                "metrics.listen",
                "log.filter",
                "log.format",
                "requester.wallet",
            ]
        );
        assert!(found.iter().all(|problem| !problem.what.is_empty() && !problem.cure.is_empty()));
        let all: String = found.iter().map(ToString::to_string).collect();
        for secret in ["walletconnect", "10allq0", "u:p@"] {
            assert!(!all.contains(secret), "{secret} is repeated");
        }
    }

    #[test]
    fn values_that_contradict_each_other_are_found() {
        let key = "17162c921dc4d2518f9a101db33695df1afb56ab82f5ff3e5da6eec3ca5cd917";
        assert_eq!(fields("text = { default_output_tokens = 5000 }"), ["text.default_output_tokens"]);
        assert_eq!(
            fields("text = { base = \"0\", per_1k_prompt = \"0sat\", per_1k_generated = \"0\" }"),
            ["text.terms"]
        );
        assert_eq!(fields("text.terms = \"hold\""), ["text.terms"]);
        assert_eq!(fields("wallet.backend = \"nwc\""), ["wallet.nwc.connection"]);
        assert_eq!(fields(&format!("access = {{ allow = [\"{key}\"], deny = [\"{key}\"] }}")), ["access.deny"]);
        let other = "d41b22899549e1f3d335a31002cfd382174006e166d3e658e3a5eecdb6463573";
        assert_eq!(fields(&format!("access = {{ allow = [\"{other}\"], free = [\"{key}\"] }}")), ["access.free"]);
        assert_eq!(fields(&format!("access = {{ free = [\"{key}\"], deny = [\"{key}\"] }}")), ["access.deny"]);
        assert_eq!(fields("inference = { model = \"m.gguf\", context = 512 }"), ["inference.context"]);
    }

    #[test]
    fn play_money_needs_the_operators_explicit_word() {
        assert_eq!(fields("wallet.backend = \"fake\""), ["wallet.backend"]);
        let config = resolve("wallet = { backend = \"fake\", i_know_this_is_play_money = true }").unwrap();
        assert_eq!(config.wallet, WalletSettings::PlayMoney);
    }

    #[test]
    fn every_wallet_says_what_it_lacks_and_how_to_write_it() {
        for (section, wrong) in [
            ("backend = \"lnd\"", vec!["wallet.lnd.url", "wallet.lnd.macaroon"]),
            ("backend = \"cln\"", vec!["wallet.cln.url", "wallet.cln.rune"]),
            ("backend = \"phoenixd\"", vec!["wallet.phoenixd.password"]),
            ("backend = \"lnbits\"", vec!["wallet.lnbits.url", "wallet.lnbits.key"]),
            ("backend = \"lnd\", lnd.url = \"https://x\", lnd.macaroon = \"0201\"", vec!["wallet.lnd.macaroon"]),
            ("backend = \"ldk\", network = \"signet\"", vec!["wallet.ldk.chain_url"]),
            ("backend = \"ldk\", network = \"testnet4\", ldk.chain_url = \"https://x\"", vec!["wallet.network"]),
            (
                "backend = \"ldk\", network = \"regtest\", ldk = { chain_url = \"https://x\", lsp = \"somebody\" }",
                vec!["wallet.ldk.lsp"],
            ),
            (
                "backend = \"ldk\", network = \"regtest\", ldk = { chain_source = \"bitcoind\", chain_url = \"http://x:1\" }",
                vec!["wallet.ldk.bitcoind_password"],
            ),
        ] {
            assert_eq!(fields(&format!("wallet = {{ {section} }}")), wrong, "{section}");
        }
        let phoenixd = "wallet = { backend = \"phoenixd\", phoenixd.password = \"env:P\" }\ntext.terms = \"hold\"";
        assert_eq!(fields(phoenixd), ["text.terms"], "phoenixd can't hold");
        let nwc = "wallet = { backend = \"nwc\", nwc.connection = \"env:C\" }\nrefund.automatic_above = \"5sat\"";
        assert_eq!(fields(nwc), ["refund.automatic_above"], "nobody can limit its fees");
        let lnbits = "wallet = { backend = \"lnbits\", lnbits = { url = \"https://x\", key = \"env:K\" } }\ntext.terms = \"hold\"";
        assert_eq!(fields(lnbits), ["text.terms"], "nor can LNbits");
    }

    #[test]
    fn real_money_in_the_embedded_node_needs_the_operators_explicit_word() {
        let node =
            |more: &str| format!("wallet = {{ backend = \"ldk\", ldk = {{ chain_url = \"https://x\"{more} }} }}");
        assert_eq!(fields(&node("")), ["wallet.ldk.i_accept_the_risk_on_mainnet"]);
        let config = resolve(&node(", i_accept_the_risk_on_mainnet = true")).unwrap();
        assert!(matches!(config.wallet, WalletSettings::Ldk(_)));
        assert_eq!(config.network, bitcoin::Network::Bitcoin);
    }

    #[test]
    fn relative_paths_start_at_the_files_folder() {
        let config =
            resolve("identity.keystore = \"keys/me\"\nwallet.nwc.connection = \"file:nwc\"\nwallet.backend = \"nwc\"");
        let config = config.unwrap();
        assert_eq!(config.identity.keystore.path(), Path::new("/srv/dvm/keys/me"));
        assert_eq!(config.wallet, WalletSettings::Nwc { connection: SecretRef::File("/srv/dvm/nwc".into()) });
        assert_eq!(config.missing_to_serve()[0].field, "wallet.nwc.connection");
    }

    #[test]
    fn a_wrong_key_or_type_names_its_line_and_shows_no_value() {
        let at = |text: &str| match resolve(text) {
            Err(ConfigError::Syntax { line, message, .. }) => (line, message),
            other => panic!("{other:?}"),
        };
        let (line, message) = at("[text]\nenabled = true\nprize = \"2sat\"\n");
        assert_eq!(line, 3);
        assert!(message.contains("prize"), "{message}");
        assert_eq!(at("\n\n[limits]\njobs_running = -1").0, 4);
        let (line, message) = at("[wallet]\nnwc = \"nostr+walletconnect://k?secret=s\"");
        assert_eq!(line, 2);
        assert!(!message.contains("secret"), "{message}");
        let (_, message) = at("[wallet.nwc]\nconnection = nostr+walletconnect://k?secret=s");
        assert!(!message.contains("secret"), "{message}");
        assert_eq!(at("a = 1\na = 2").0, 2);
    }

    #[test]
    fn a_missing_file_is_an_error_only_when_one_was_named() {
        let home = tempfile::tempdir().unwrap();
        let paths = Paths::find(Some(home.path()), None).unwrap();
        assert!(matches!(Config::load(&paths), Err(ConfigError::NotFound(_))));
        assert!(Config::load_or_default(&paths).is_ok());
        let named = Paths::find(Some(home.path()), Some(&home.path().join("mine.toml"))).unwrap();
        assert!(matches!(Config::load_or_default(&named), Err(ConfigError::NotFound(_))));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "\\PC{0,80}") {
            let _ = resolve(&text);
            let _ = resolve(&format!("text.base = '{text}'\ntext.time_limit = '{text}'\nrelays.urls = ['{text}']\naccess.deny = ['{text}']"));
        }
    }
}
