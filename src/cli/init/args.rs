//! What can be said of an installation on the command line.

use std::path::PathBuf;

use crate::cli::phrase_input::{NewPhraseArgs, PassphraseArgs};

const EXAMPLES: &str = "\
At a terminal it asks what you do not say. Without one, or with --yes, the rest takes its default; model servers that are
found on this machine are then taken to do the work.

Examples:
  coinop init
  coinop init --yes --password-file /run/secrets/coinop --model /srv/models/qwen3.gguf --nwc env:COINOP_NWC
  coinop init --yes --ollama http://127.0.0.1:11434 --nwc file:/etc/coinop/nwc
  coinop init --yes --free --relay wss://relay.example --phrase-file words.txt --password-file pw.txt";

/// Write a configuration and an identity, asking what is needed
#[derive(Debug, Default, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct InitArgs {
    /// Ask nothing: what is not given takes its default
    #[arg(short, long)]
    pub(super) yes: bool,
    /// Replace an existing configuration, keeping the old one as config.toml.old (an identity is never replaced)
    #[arg(long)]
    pub(super) force: bool,

    #[command(flatten)]
    pub(super) new_phrase: NewPhraseArgs,
    /// Import an existing phrase, from the keyboard or standard input
    #[arg(long, conflicts_with = "words")]
    pub(super) import: bool,
    /// Import the phrase in this file; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "words")]
    pub(super) phrase_file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) passphrase: PassphraseArgs,
    /// Which of the phrase's identities to use (NIP-06)
    #[arg(long, value_name = "NUMBER")]
    pub(super) account: Option<u32>,
    /// Take a weak password
    #[arg(long)]
    pub(super) force_weak_password: bool,

    /// A relay to work on; may be given several times
    #[arg(long = "relay", value_name = "URL")]
    pub(super) relays: Vec<String>,
    /// The name customers see
    #[arg(long)]
    pub(super) name: Option<String>,
    /// A few words about the service
    #[arg(long)]
    pub(super) about: Option<String>,

    /// Ask for nothing: all work is free
    #[arg(long, conflicts_with_all = ["terms", "base", "per_1k_prompt", "per_1k_generated", "nwc", "ldk", "play_money"])]
    pub(super) free: bool,
    /// Terms of payment: prepay, postpay, free, hold
    #[arg(long)]
    pub(super) terms: Option<String>,
    /// The price of a job, such as 2sat
    #[arg(long, value_name = "AMOUNT")]
    pub(super) base: Option<String>,
    /// The price of 1,000 tokens read, such as 500msat
    #[arg(long, value_name = "AMOUNT")]
    pub(super) per_1k_prompt: Option<String>,
    /// The price of 1,000 tokens written, such as 2sat
    #[arg(long, value_name = "AMOUNT")]
    pub(super) per_1k_generated: Option<String>,
    /// Free jobs a key has a day
    #[arg(long, value_name = "NUMBER")]
    pub(super) free_per_day: Option<u32>,

    /// The GGUF file of the model, or the folder of its safetensors
    #[arg(long, value_name = "FILE")]
    pub(super) model: Option<PathBuf>,
    /// Sell what this Ollama has, such as http://127.0.0.1:11434; like the next two it may be given several times
    #[arg(long, value_name = "URL", conflicts_with_all = ["model", "backend"])]
    pub(super) ollama: Vec<String>,
    /// Sell what this llama.cpp server has, such as http://127.0.0.1:8080
    #[arg(long, value_name = "URL", conflicts_with_all = ["model", "backend"])]
    pub(super) llamacpp: Vec<String>,
    /// Sell what this OpenAI-compatible server has, such as http://127.0.0.1:8000/v1 (its key: see the configuration)
    #[arg(long, value_name = "URL", conflicts_with_all = ["model", "backend"])]
    pub(super) openai: Vec<String>,
    /// What does the work: auto, mistralrs, or echo for tests
    #[arg(long, value_name = "BACKEND")]
    pub(super) backend: Option<String>,
    /// Be paid into this Nostr Wallet Connect wallet; its connection string stands in env:NAME or file:/path
    #[arg(long, value_name = "REFERENCE")]
    pub(super) nwc: Option<String>,
    /// Run a Lightning node inside coinop that sees the chain at this Esplora address
    #[arg(long, value_name = "URL", conflicts_with = "nwc")]
    pub(super) ldk: Option<String>,
    /// The Lightning network: bitcoin, testnet4, signet or regtest (default: bitcoin; signet with --ldk)
    #[arg(long, value_name = "NETWORK")]
    pub(super) network: Option<String>,
    /// Run that node with real money (--network bitcoin): a stolen machine or phrase, a lost storage folder or a long outage
    /// can cost all that is in it
    #[arg(long, requires = "ldk")]
    pub(super) i_accept_the_risk_on_mainnet: bool,
    /// Use a wallet of play money, to be paid by 'coinop request --play-money' on this machine
    #[arg(long, conflicts_with_all = ["nwc", "ldk", "network"])]
    pub(super) play_money: bool,
}

impl InitArgs {
    pub(super) fn says_what_does_the_work(&self) -> bool {
        let servers = [&self.ollama, &self.llamacpp, &self.openai];
        self.model.is_some() || self.backend.is_some() || servers.iter().any(|urls| !urls.is_empty())
    }

    /// The servers that were named: the option, the backend's word and the address, in the order of their endpoints.
    pub(super) fn servers(&self) -> impl Iterator<Item = (&'static str, &'static str, &str)> {
        let named = [
            ("--ollama", "ollama", &self.ollama),
            ("--llamacpp", "llamacpp", &self.llamacpp),
            ("--openai", "openai", &self.openai),
        ];
        named.into_iter().flat_map(|(flag, word, urls)| urls.iter().map(move |url| (flag, word, url.trim())))
    }
}
