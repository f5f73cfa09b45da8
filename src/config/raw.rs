//! The configuration file as it is written: texts and numbers, every key with its default, an empty text for "not set".
//! What they mean is checked in [`super::resolve`], so that all mistakes are told at once and each names its field.

use serde::{Deserialize, Serialize};

pub use crate::job::text::BYTES_PER_TOKEN;

pub use super::agents::raw::{
    RawAgent, RawCodeReview, RawFiles, RawHost, RawImage, RawPatchGen, RawRepoIndex, RawRepositories, RawSandbox,
    RawSandboxRun,
};

macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty = $default:expr,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }
    };
}

pub(super) use section;

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawConfig {
    /// `[identity]`
    pub identity: RawIdentity,
    /// `[relays]`
    pub relays: RawRelays,
    /// `[profile]`
    pub profile: RawProfile,
    /// `[text]`
    pub text: RawText,
    /// `[inference]`
    pub inference: RawInference,
    /// `[sandbox_run]`
    pub sandbox_run: RawSandboxRun,
    /// `[repo_index]`
    pub repo_index: RawRepoIndex,
    /// `[patch_gen]`
    pub patch_gen: RawPatchGen,
    /// `[code_review]`
    pub code_review: RawCodeReview,
    /// `[sandbox]`
    pub sandbox: RawSandbox,
    /// `[repositories]`
    pub repositories: RawRepositories,
    /// `[files]`
    pub files: RawFiles,
    /// `[wallet]`
    pub wallet: RawWallet,
    /// `[zaps]`
    pub zaps: RawZaps,
    /// `[refund]`
    pub refund: RawRefund,
    /// `[limits]`
    pub limits: RawLimits,
    /// `[access]`
    pub access: RawAccess,
    /// `[ad]`
    pub ad: RawAd,
    /// `[metrics]`
    pub metrics: RawMetrics,
    /// `[shutdown]`
    pub shutdown: RawShutdown,
    /// `[fetch]`
    pub fetch: RawFetch,
    /// `[log]`
    pub log: RawLog,
    /// `[requester]`
    pub requester: RawRequester,
}

section! {
    /// `[identity]`: who we are.
    RawIdentity {
        /// NIP-06 account.
        account: u32 = 0,
        /// Path of the keystore.
        keystore: String = String::new(),
    }
}

section! {
    /// `[relays]`: where requests come from and answers go.
    RawRelays {
        /// Websocket addresses.
        urls: Vec<String> = ["wss://relay.damus.io", "wss://nos.lol", "wss://relay.primal.net"].map(Into::into).into(),
        /// How many must accept.
        quorum: u32 = 1,
        /// Duration.
        publish_timeout: String = "10s".into(),
        /// Whether customers may name private addresses.
        allow_private: bool = false,
    }
}

section! {
    /// `[profile]`: what customers see.
    RawProfile {
        /// Name.
        name: String = String::new(),
        /// A few words.
        about: String = String::new(),
        /// Address of a picture.
        picture: String = String::new(),
        /// Address of a page.
        website: String = String::new(),
        /// Lightning address.
        lud16: String = String::new(),
    }
}

section! {
    /// `[text]`: kind 5050.
    RawText {
        /// Whether it is sold.
        enabled: bool = true,
        /// Terms of payment.
        terms: String = "prepay".into(),
        /// Amount.
        base: String = "2sat".into(),
        /// Amount.
        per_1k_prompt: String = "500msat".into(),
        /// Amount.
        per_1k_generated: String = "2sat".into(),
        /// Free jobs a key and day.
        free_per_day: u32 = 0,
        /// Bytes.
        max_input_bytes: u32 = 32_768,
        /// Tokens.
        max_output_tokens: u32 = 4_096,
        /// Tokens.
        default_output_tokens: u32 = 512,
        /// Duration.
        time_limit: String = "5m".into(),
    }
}

section! {
    /// `[inference]`: what does the work.
    RawInference {
        /// Which backend: the short way of writing one endpoint, or none.
        backend: String = "auto".into(),
        /// Path of a GGUF file, or of a folder of safetensors.
        model: String = String::new(),
        /// What customers call it.
        model_name: String = String::new(),
        /// Path of a chat template.
        chat_template: String = String::new(),
        /// Tokens; 0 for the model's own.
        context: u32 = 0,
        /// Addresses where model servers are looked for.
        probe: Vec<String> = PROBED.map(Into::into).into(),
        /// `[[inference.endpoints]]`. Left out when empty: TOML has no way to add to a list that is written as empty.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        endpoints: Vec<RawEndpoint> = Vec::new(),
        /// `[[inference.models]]`
        #[serde(skip_serializing_if = "Vec::is_empty")]
        models: Vec<RawModel> = Vec::new(),
    }
}

/// Where Ollama, llama.cpp, vLLM, LM Studio and SGLang are when nobody moved them.
const PROBED: [&str; 5] = [
    "http://127.0.0.1:11434",
    "http://127.0.0.1:8080",
    "http://127.0.0.1:8000",
    "http://127.0.0.1:1234",
    "http://127.0.0.1:30000",
];

section! {
    /// `[[inference.endpoints]]`: one place where models run.
    RawEndpoint {
        /// What the operator calls it; empty for the backend's word.
        name: String = String::new(),
        /// ollama, llamacpp, openai, mistralrs or echo.
        backend: String = String::new(),
        /// Address.
        url: String = String::new(),
        /// Reference to the key it wants.
        key: String = String::new(),
        /// Names; empty for all it has.
        models: Vec<String> = Vec::new(),
        /// Names of its models that make embeddings.
        embeddings: Vec<String> = Vec::new(),
        /// Jobs at once; 0 for what it tells.
        slots: u32 = 0,
        /// Tokens; 0 for what it tells.
        context: u32 = 0,
        /// Parameters of its models; 0 for unknown.
        parameters: u64 = 0,
        /// none, any or schema.
        json: String = String::new(),
        /// Bytes a token is taken to have, where nobody counts.
        bytes_per_token: u32 = BYTES_PER_TOKEN,
        /// Path of a GGUF file, or of a folder of safetensors.
        model: String = String::new(),
        /// What customers call its model.
        model_name: String = String::new(),
        /// Path of a chat template.
        chat_template: String = String::new(),
    }
}

section! {
    /// `[[inference.models]]`: a model as customers see it.
    RawModel {
        /// What customers call it.
        name: String = String::new(),
        /// What the endpoints call it; empty for the same.
        upstream: String = String::new(),
        /// Other names customers may use.
        aliases: Vec<String> = Vec::new(),
        /// Names; empty for all that have it.
        endpoints: Vec<String> = Vec::new(),
        /// Tokens; 0 for the model's own.
        context: u32 = 0,
        /// Parameters; 0 for what the endpoints tell.
        parameters: u64 = 0,
        /// sha256: and 64 hexadecimal digits.
        digest: String = String::new(),
        /// Jobs at once; 0 for as many as there is room for.
        at_once: u32 = 0,
        /// Tokens; 0 for `text.max_output_tokens`.
        max_output_tokens: u32 = 0,
        /// Amount; empty for `text.base`.
        base: String = String::new(),
        /// Amount; empty for `text.per_1k_prompt`.
        per_1k_prompt: String = String::new(),
        /// Amount; empty for `text.per_1k_generated`.
        per_1k_generated: String = String::new(),
    }
}

section! {
    /// `[wallet]`: where the money comes in.
    RawWallet {
        /// Which backend.
        backend: String = "none".into(),
        /// bitcoin, testnet4, signet or regtest.
        network: String = "bitcoin".into(),
        /// Consent to the fake wallet.
        i_know_this_is_play_money: bool = false,
        /// `[wallet.nwc]`
        nwc: RawNwc = RawNwc::default(),
        /// `[wallet.ldk]`
        ldk: RawLdk = RawLdk::default(),
        /// `[wallet.lnd]`
        lnd: RawLnd = RawLnd::default(),
        /// `[wallet.cln]`
        cln: RawCln = RawCln::default(),
        /// `[wallet.phoenixd]`
        phoenixd: RawPhoenixd = RawPhoenixd::default(),
        /// `[wallet.lnbits]`
        lnbits: RawLnbits = RawLnbits::default(),
    }
}

section! {
    /// `[wallet.ldk]`: the embedded node.
    RawLdk {
        /// Consent to keep real money in a program that is always online.
        i_accept_the_risk_on_mainnet: bool = false,
        /// esplora, electrum or bitcoind.
        chain_source: String = "esplora".into(),
        /// Address of the chain source.
        chain_url: String = String::new(),
        /// User of bitcoind's RPC.
        bitcoind_user: String = String::new(),
        /// Reference to the password of bitcoind's RPC.
        bitcoind_password: String = String::new(),
        /// Path of the node's own storage.
        folder: String = String::new(),
        /// Socket addresses.
        listen: Vec<String> = Vec::new(),
        /// The node's name in the network.
        alias: String = String::new(),
        /// node-id@host:port of an LSP (LSPS2).
        lsp: String = String::new(),
        /// Reference to the LSP's token.
        lsp_token: String = String::new(),
    }
}

section! {
    /// `[wallet.lnd]`: somebody's LND, by its REST interface.
    RawLnd {
        /// Address.
        url: String = String::new(),
        /// Reference to the macaroon, hexadecimal.
        macaroon: String = String::new(),
        /// Path of tls.cert.
        certificate: String = String::new(),
    }
}

section! {
    /// `[wallet.cln]`: somebody's Core Lightning, by clnrest.
    RawCln {
        /// Address.
        url: String = String::new(),
        /// Reference to the rune.
        rune: String = String::new(),
        /// Path of the server's certificate.
        certificate: String = String::new(),
    }
}

section! {
    /// `[wallet.phoenixd]`
    RawPhoenixd {
        /// Address.
        url: String = "http://127.0.0.1:9740".into(),
        /// Reference to the password.
        password: String = String::new(),
    }
}

section! {
    /// `[wallet.lnbits]`
    RawLnbits {
        /// Address.
        url: String = String::new(),
        /// Reference to the admin key.
        key: String = String::new(),
    }
}

section! {
    /// `[zaps]`: being paid by zaps (NIP-57).
    RawZaps {
        /// Whether a zap counts as payment, given `profile.lud16`.
        accept: bool = true,
    }
}

section! {
    /// `[refund]`: paying credit back.
    RawRefund {
        /// Amount; empty for never.
        automatic_above: String = String::new(),
        /// Amount.
        max_per_day: String = "10000sat".into(),
        /// Percent.
        max_fee_percent: u32 = 1,
    }
}

section! {
    /// `[wallet.nwc]`: Nostr Wallet Connect.
    RawNwc {
        /// Reference to the connection string.
        connection: String = String::new(),
    }
}

section! {
    /// `[limits]`: how much of what we take on.
    RawLimits {
        /// Bytes.
        max_event_bytes: u32 = 131_072,
        /// Duration.
        max_request_age: String = "1h".into(),
        /// Duration.
        max_clock_skew: String = "10m".into(),
        /// Jobs; 0 for as many as the backends have room for.
        jobs_running: u32 = 0,
        /// Jobs.
        jobs_queued: u32 = 1_000,
        /// Quotes.
        open_quotes: u32 = 5_000,
        /// Jobs.
        per_customer_open: u32 = 20,
        /// Jobs.
        per_customer_per_minute: u32 = 30,
        /// Jobs.
        per_customer_given_away_per_hour: u32 = 10,
        /// Events.
        events_per_second: u32 = 2_000,
        /// Duration.
        payment_window: String = "10m".into(),
        /// Duration.
        late_payment_window: String = "24h".into(),
        /// Duration.
        retention: String = "90days".into(),
    }
}

section! {
    /// `[access]`: who is served.
    RawAccess {
        /// Keys; when not empty nobody else.
        allow: Vec<String> = Vec::new(),
        /// Keys.
        deny: Vec<String> = Vec::new(),
        /// Keys.
        free: Vec<String> = Vec::new(),
        /// Leading zero bits.
        proof_of_work: u32 = 0,
    }
}

section! {
    /// `[ad]`: how customers find us.
    RawAd {
        /// Whether it is published.
        enabled: bool = true,
        /// Topics.
        topics: Vec<String> = Vec::new(),
        /// Whether we say that we are here.
        heartbeat: bool = true,
        /// Duration.
        refresh: String = "12h".into(),
        /// Whether it is taken back.
        withdraw_on_shutdown: bool = false,
    }
}

section! {
    /// `[metrics]`: figures for Prometheus.
    RawMetrics {
        /// Socket address; empty for none.
        listen: String = String::new(),
    }
}

section! {
    /// `[shutdown]`: how we stop.
    RawShutdown {
        /// Duration.
        grace: String = "30s".into(),
    }
}

section! {
    /// `[fetch]`: inputs behind addresses.
    RawFetch {
        /// Whether they are fetched.
        enabled: bool = true,
        /// Bytes.
        max_bytes: u32 = 262_144,
        /// Duration.
        timeout: String = "10s".into(),
        /// Whether private addresses are allowed.
        allow_private: bool = false,
    }
}

section! {
    /// `[log]`: what is told, and how.
    RawLog {
        /// text or json.
        format: String = "text".into(),
        /// Directives.
        filter: String = "info".into(),
    }
}

section! {
    /// `[requester]`: the buyer's side.
    RawRequester {
        /// Amount.
        max_cost: String = "100sat".into(),
        /// Duration.
        timeout: String = "5m".into(),
        /// "own", or a reference to a connection string.
        wallet: String = String::new(),
        /// Amount; empty for no limit.
        max_per_day: String = "1000sat".into(),
        /// Percent.
        max_fee_percent: u32 = 1,
    }
}
