//! `coinop init`: from nothing to a configuration and an identity. Everything can be given as an option; at a terminal
//! the rest is asked, elsewhere it takes its default.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::future::join_all;
use serde::Serialize;
use tokio::time::timeout;
use url::Url;

use super::exit::{CommandError, Exit};
use super::identity::PublicIdentity;
use super::phrase_input::{self, NewPhraseArgs, PassphraseArgs};
use super::prompt::{Ask, Nobody, Terminal};
use super::{Globals, servers};
use crate::config::{Config, ConfigError, InferenceSettings, Paths, RawConfig, RawEndpoint, Template};
use crate::daemon::inventory;
use crate::daemon::wiring::found::to_keep;
use crate::identity::{Identity, IdentityError, Keystore, PasswordSources, Phrase, WordCount};
use crate::inference::detect::{FoundServer, Software, look, look_at};
use crate::job::Terms;
use crate::money::Msat;

const EXAMPLES: &str = "\
At a terminal it asks what you do not say. Without one, or with --yes, the rest takes its default; model servers that are
found on this machine are then taken to do the work.

Examples:
  coinop init
  coinop init --yes --password-file /run/secrets/coinop --model /srv/models/qwen3.gguf --nwc env:COINOP_NWC
  coinop init --yes --ollama http://127.0.0.1:11434 --nwc file:/etc/coinop/nwc
  coinop init --yes --free --relay wss://relay.example --phrase-file words.txt --password-file pw.txt";

/// How long what does the work is asked for its models, which are told at the end.
const PATIENCE: Duration = Duration::from_secs(3);

/// Options whose values stand in the configuration: what is wrong there is wrong here.
const FIELDS: [(&str, &str); 10] = [
    ("identity.account", "--account"),
    ("relays.urls", "--relay"),
    ("profile.name", "--name"),
    ("profile.about", "--about"),
    ("text.terms", "--terms"),
    ("text.base", "--base"),
    ("text.per_1k_prompt", "--per-1k-prompt"),
    ("text.per_1k_generated", "--per-1k-generated"),
    ("inference.model", "--model"),
    ("inference.backend", "--backend"),
];

/// Write a configuration and an identity, asking what is needed
#[derive(Debug, Default, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct InitArgs {
    /// Ask nothing: what is not given takes its default
    #[arg(short, long)]
    yes: bool,
    /// Replace an existing configuration, keeping the old one as config.toml.old (an identity is never replaced)
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    new_phrase: NewPhraseArgs,
    /// Import an existing phrase, from the keyboard or standard input
    #[arg(long, conflicts_with = "words")]
    import: bool,
    /// Import the phrase in this file; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "words")]
    phrase_file: Option<PathBuf>,
    #[command(flatten)]
    passphrase: PassphraseArgs,
    /// Which of the phrase's identities to use (NIP-06)
    #[arg(long, value_name = "NUMBER")]
    account: Option<u32>,
    /// Take a weak password
    #[arg(long)]
    force_weak_password: bool,

    /// A relay to work on; may be given several times
    #[arg(long = "relay", value_name = "URL")]
    relays: Vec<String>,
    /// The name customers see
    #[arg(long)]
    name: Option<String>,
    /// A few words about the service
    #[arg(long)]
    about: Option<String>,

    /// Ask for nothing: all work is free
    #[arg(long, conflicts_with_all = ["terms", "base", "per_1k_prompt", "per_1k_generated", "nwc", "ldk", "play_money"])]
    free: bool,
    /// Terms of payment: prepay, postpay, free, hold
    #[arg(long)]
    terms: Option<String>,
    /// The price of a job, such as 2sat
    #[arg(long, value_name = "AMOUNT")]
    base: Option<String>,
    /// The price of 1,000 tokens read, such as 500msat
    #[arg(long, value_name = "AMOUNT")]
    per_1k_prompt: Option<String>,
    /// The price of 1,000 tokens written, such as 2sat
    #[arg(long, value_name = "AMOUNT")]
    per_1k_generated: Option<String>,
    /// Free jobs a key has a day
    #[arg(long, value_name = "NUMBER")]
    free_per_day: Option<u32>,

    /// The GGUF file of the model, or the folder of its safetensors
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Sell what this Ollama has, such as http://127.0.0.1:11434; like the next two it may be given several times
    #[arg(long, value_name = "URL", conflicts_with_all = ["model", "backend"])]
    ollama: Vec<String>,
    /// Sell what this llama.cpp server has, such as http://127.0.0.1:8080
    #[arg(long, value_name = "URL", conflicts_with_all = ["model", "backend"])]
    llamacpp: Vec<String>,
    /// Sell what this OpenAI-compatible server has, such as http://127.0.0.1:8000/v1 (its key: see the configuration)
    #[arg(long, value_name = "URL", conflicts_with_all = ["model", "backend"])]
    openai: Vec<String>,
    /// What does the work: auto, mistralrs, or echo for tests
    #[arg(long, value_name = "BACKEND")]
    backend: Option<String>,
    /// Be paid into this Nostr Wallet Connect wallet; its connection string stands in env:NAME or file:/path
    #[arg(long, value_name = "REFERENCE")]
    nwc: Option<String>,
    /// Run a Lightning node inside coinop that sees the chain at this Esplora address
    #[arg(long, value_name = "URL", conflicts_with = "nwc")]
    ldk: Option<String>,
    /// The Lightning network: bitcoin, testnet4, signet or regtest (default: bitcoin; signet with --ldk)
    #[arg(long, value_name = "NETWORK")]
    network: Option<String>,
    /// Run that node with real money (--network bitcoin): a stolen machine or phrase, a lost storage folder or a long outage
    /// can cost all that is in it
    #[arg(long, requires = "ldk")]
    i_accept_the_risk_on_mainnet: bool,
    /// Use a wallet of play money, to be paid by 'coinop request --play-money' on this machine
    #[arg(long, conflicts_with_all = ["nwc", "ldk", "network"])]
    play_money: bool,
}

impl InitArgs {
    fn says_what_does_the_work(&self) -> bool {
        let servers = [&self.ollama, &self.llamacpp, &self.openai];
        self.model.is_some() || self.backend.is_some() || servers.iter().any(|urls| !urls.is_empty())
    }

    /// The servers that were named: the option, the backend's word and the address, in the order of their endpoints.
    fn servers(&self) -> impl Iterator<Item = (&'static str, &'static str, &str)> {
        let named = [
            ("--ollama", "ollama", &self.ollama),
            ("--llamacpp", "llamacpp", &self.llamacpp),
            ("--openai", "openai", &self.openai),
        ];
        named.into_iter().flat_map(|(flag, word, urls)| urls.iter().map(move |url| (flag, word, url.trim())))
    }
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Done {
    config: PathBuf,
    keystore: PathBuf,
    kept_identity: bool,
    identity: Option<PublicIdentity>,
    /// What does the work; nothing when that is looked for at each start.
    endpoints: Vec<Taken>,
    /// What a customer gets who names no model, as far as the endpoints tell.
    default_model: Option<String>,
    /// What is odd about the servers that were named.
    warnings: Vec<String>,
    missing_to_serve: Vec<String>,
    #[serde(skip)]
    inference: InferenceSettings,
}

/// An endpoint that was written down.
#[derive(Debug, Serialize)]
struct Taken {
    /// Its name, and where it is.
    endpoint: String,
    backend: &'static str,
    models: Vec<String>,
    /// Why it has none.
    why: Option<String>,
}

/// Runs the command.
pub async fn run(args: InitArgs, globals: &Globals) -> Result<ExitCode> {
    let mut asked: Box<dyn Ask> = if args.yes { Box::new(Nobody) } else { Terminal::open() };
    // An offer for whoever says nothing of models.
    let found = if args.says_what_does_the_work() {
        Vec::new()
    } else {
        let mut defaults = Config::resolve(&RawConfig::default(), &globals.paths()?)?.inference;
        servers::look_where_ollama_is(&mut defaults);
        look(&defaults.probe).await.into_iter().filter(FoundServer::is_usable).collect()
    };
    let named: Vec<_> = args.servers().map(|(flag, word, url)| (flag, word, url.to_owned())).collect();
    let mut done = init(args, globals, &mut *asked, &found)?;
    let ((), warnings) = tokio::join!(done.ask_what_was_taken(), look_at_named(&named));
    done.warnings = warnings;
    if !globals.quiet {
        for warning in &done.warnings {
            eprintln!("warning: {warning}");
        }
    }
    globals.print(&done, || done.text())?;
    Ok(Exit::Ok.into())
}

/// What answers at the addresses that were named, where that is not what they were named as.
async fn look_at_named(named: &[(&'static str, &'static str, String)]) -> Vec<String> {
    let one = async |(flag, word, url): &(&'static str, &'static str, String)| {
        let found = look_at(&Url::parse(url).ok()?, None).await;
        odd(flag, word, url, found.as_ref())
    };
    join_all(named.iter().map(one)).await.into_iter().flatten().collect()
}

/// What is odd about a server that was named.
fn odd(flag: &str, word: &str, url: &str, found: Option<&FoundServer>) -> Option<String> {
    Some(match found {
        None => format!("{flag} {url}: no model server answers there now; 'coinop doctor' looks again"),
        Some(found) if found.software.backend() != word => {
            let right = match found.software {
                Software::Ollama => "--ollama",
                Software::LlamaCpp => "--llamacpp",
                _ => "--openai",
            };
            let address = found.url.as_str().trim_end_matches('/');
            format!("{flag} {url}: {} is what answers there; name it with {right} {address}", found.title())
        }
        Some(found) if !found.is_usable() => format!("{flag} {url}: {}", servers::line(found)),
        Some(_) => return None,
    })
}

impl Done {
    /// Asks the endpoints for their models. Whoever takes too long has not said.
    async fn ask_what_was_taken(&mut self) {
        let Ok(stock) = timeout(PATIENCE, inventory::take(&self.inference)).await else { return };
        self.default_model = inventory::on_offer(&self.inference, &stock).first().map(|model| model.name.clone());
        for (taken, stock) in self.endpoints.iter_mut().zip(stock) {
            match stock.models {
                Ok(models) => taken.models = models.into_iter().map(|model| model.info.name).collect(),
                Err(why) => taken.why = Some(why),
            }
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        match &self.identity {
            Some(identity) => text.push_str(&identity.lines()),
            None => text.push_str(&format!("keystore  {} (was there, kept)\n", self.keystore.display())),
        }
        text.push_str(&format!("config    {}\n", self.config.display()));
        for Taken { endpoint, models, why, .. } in &self.endpoints {
            let what = match (why, &models[..]) {
                (Some(why), _) => why.clone(),
                (None, []) => "it has not said which models it has".into(),
                (None, models) => servers::some_of(models.iter().map(String::as_str)),
            };
            text.push_str(&format!("work      {endpoint}: {what}\n"));
        }
        if self.endpoints.is_empty() {
            text.push_str("work      what is found on this machine at each start\n");
        }
        if let Some(model) = &self.default_model {
            text.push_str(&format!("default   {model}, for customers who name no model\n"));
        }
        text.push_str("\nNext:\n");
        if !self.kept_identity {
            text.push_str("  coinop identity backup    write the words down; they are the identity and the money\n");
        }
        for missing in &self.missing_to_serve {
            text.push_str(&format!("  edit {}: {missing}\n", self.config.display()));
        }
        text.push_str("  coinop serve              start selling\n");
        text
    }
}

fn init(args: InitArgs, globals: &Globals, ask: &mut dyn Ask, found: &[FoundServer]) -> Result<Done> {
    let paths = globals.paths()?;
    let config_file = &paths.config_file;
    if config_file.symlink_metadata().is_ok() && !args.force {
        return Err(CommandError::failure(format!("there is a configuration at {} already", config_file.display()))
            .help("edit it, or use --force to replace it (the old one is kept beside it)")
            .into());
    }

    // Everything is decided and checked before anything is written.
    let template = settings(&args, ask, found)?;
    let rendered = template.render();
    let resolved = Config::resolve(&RawConfig::parse(&rendered, config_file)?, &paths);
    let config = resolved.map_err(|error| blame_options(error, &args))?;
    let keystore = &config.identity.keystore;
    let (identity, kept_identity) = if keystore.exists() {
        (keep_identity(&args, globals, &config)?, true)
    } else {
        (Some(make_identity(&args, globals, &config, ask)?), false)
    };
    write_config(&paths, &rendered)?;

    Ok(Done {
        config: config_file.clone(),
        keystore: keystore.path().to_owned(),
        kept_identity,
        identity,
        endpoints: config
            .inference
            .endpoints
            .iter()
            .map(|endpoint| Taken {
                endpoint: endpoint.place(),
                backend: endpoint.backend.word(),
                models: Vec::new(),
                why: None,
            })
            .collect(),
        default_model: None,
        warnings: Vec::new(),
        missing_to_serve: config.missing_to_serve().iter().map(ToString::to_string).collect(),
        inference: config.inference,
    })
}

/// What is wrong is said of the options that were given: the file they would stand in is not there.
fn blame_options(error: ConfigError, args: &InitArgs) -> anyhow::Error {
    let ConfigError::Invalid { problems, .. } = error else { return error.into() };
    let servers: Vec<_> = args.servers().enumerate().map(|(at, (flag, ..))| (format!("[{at}]."), flag)).collect();
    let option = |field: &str| {
        let listed = field.strip_prefix("inference.endpoints");
        let server = servers.iter().find(|(place, _)| listed.is_some_and(|rest| rest.starts_with(place)));
        let known = || FIELDS.iter().find(|(of, _)| *of == field).map(|(_, flag)| *flag);
        server.map(|(_, flag)| *flag).or_else(known).unwrap_or(field).to_owned()
    };
    let lines =
        problems.iter().map(|problem| format!("\n  {}: {}; {}", option(&problem.field), problem.what, problem.cure));
    CommandError::usage(format!("nothing was written, for what was given can't be used:{}", lines.collect::<String>()))
        .into()
}

/// The configuration: what was given, then what is answered, then the defaults.
fn settings(args: &InitArgs, ask: &mut dyn Ask, found: &[FoundServer]) -> Result<Template> {
    let defaults = RawConfig::default();
    let mut template = Template::default();
    if let Some(account) = args.account {
        template = template.with("identity.account", i64::from(account));
    }

    let relays = if args.relays.is_empty() {
        let listed = |answer: &str| -> Vec<String> {
            answer.split([' ', ',']).filter(|url| !url.is_empty()).map(ToOwned::to_owned).collect()
        };
        let check = |answer: &str| match listed(answer).iter().find(|url| !is_relay(url)) {
            Some(bad) => Err(format!("'{bad}' is no relay: an address begins with wss:// (or ws://)")),
            None => Ok(()),
        };
        listed(&ask_again(ask, "Relays, separated by spaces", &defaults.relays.urls.join(" "), check)?)
    } else {
        args.relays.clone()
    };
    template = template.with("relays.urls", relays);

    let mut text = |template: Template, field: &str, given: Option<&String>, question: &str, default: &str| {
        let value = match given {
            Some(given) => given.clone(),
            None => ask.text(question, default)?,
        };
        Ok::<_, anyhow::Error>(template.with(field, value.trim()))
    };
    template = text(template, "profile.name", args.name.as_ref(), "Name customers see (may be empty)", "")?;
    if let Some(about) = &args.about {
        template = template.with("profile.about", about.as_str());
    }
    template = models(args, ask, found, template)?;
    if let Some(number) = args.free_per_day {
        template = template.with("text.free_per_day", i64::from(number));
    }
    money(args, ask, template)
}

/// What does the work: what is said, else what is found and wanted, else what is answered.
fn models(args: &InitArgs, ask: &mut dyn Ask, found: &[FoundServer], template: Template) -> Result<Template> {
    let mut template = template;
    let mut last = ("", 0_usize);
    for (_, word, url) in args.servers() {
        last = if last.0 == word { (word, last.1 + 1) } else { (word, 1) };
        let name = if last.1 == 1 { String::new() } else { format!("{word}-{}", last.1) };
        let (backend, url) = (word.to_owned(), url.to_owned());
        template = template.with_endpoint(&RawEndpoint { name, backend, url, ..RawEndpoint::default() });
    }
    if let Some(backend) = &args.backend {
        template = template.with("inference.backend", backend.as_str());
    }
    if let Some(model) = &args.model {
        return Ok(template.with("inference.model", absolute(model)?));
    }
    if args.says_what_does_the_work() {
        return Ok(template);
    }
    let wanted = wanted(ask, found)?;
    if !wanted.is_empty() {
        return Ok(to_keep(&wanted).iter().fold(template, |template, endpoint| template.with_endpoint(endpoint)));
    }
    let question =
        "GGUF file of the model, or folder of its safetensors (empty: a model server, looked for at each start)";
    let model = ask_again(ask, question, "", |answer| {
        let missing = !answer.trim().is_empty() && !PathBuf::from(answer.trim()).exists();
        if missing { Err(format!("there is no file {}", answer.trim())) } else { Ok(()) }
    })?;
    // Typed where the person is, like a flag.
    Ok(match model.trim() {
        "" => template,
        typed => template.with("inference.model", absolute(&PathBuf::from(typed))?),
    })
}

/// Which of the servers that were found are to do the work. Nobody who could be asked takes all of them.
fn wanted<'a>(ask: &mut dyn Ask, found: &'a [FoundServer]) -> Result<Vec<&'a FoundServer>> {
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let mut choices: Vec<String> = found.iter().map(servers::line).collect();
    if found.len() > 1 {
        choices.insert(0, "all model servers on this machine".into());
    }
    choices.push("a model file, or later".into());
    let shown: Vec<&str> = choices.iter().map(String::as_str).collect();
    let chosen = ask.choose("What does the work?", &shown, 0)?;
    let of_all = usize::from(found.len() > 1);
    Ok(match chosen {
        0 if of_all == 1 => found.iter().collect(),
        chosen => found.get(chosen - of_all).into_iter().collect(),
    })
}

/// The price and where it is paid.
fn money(args: &InitArgs, ask: &mut dyn Ask, template: Template) -> Result<Template> {
    const CHOICES: [&str; 5] = [
        "later (the configuration says how)",
        "Nostr Wallet Connect",
        "nothing: all work is free",
        "play money: try it out with 'coinop request --play-money' on this machine",
        "a Lightning node inside coinop, its keys from your phrase",
    ];
    let prices = [&args.terms, &args.base, &args.per_1k_prompt, &args.per_1k_generated];
    let choice = if args.free {
        2
    } else if args.nwc.is_some() {
        1
    } else if args.play_money {
        3
    } else if args.ldk.is_some() {
        4
    } else {
        ask.choose("How are you paid?", &CHOICES, 0)?
    };
    let mut template = template;
    if choice == 2 && prices.iter().all(|price| price.is_none()) {
        return Ok(template.with("text.terms", "free"));
    }
    match choice {
        1 => {
            let reference = match &args.nwc {
                Some(reference) => reference.clone(),
                None => {
                    ask.text("Where does its connection string stand? (env:NAME or file:/path)", "env:COINOP_NWC")?
                }
            };
            template = template.with("wallet.backend", "nwc").with("wallet.nwc.connection", reference.trim());
        }
        3 => template = template.with("wallet.backend", "fake").with("wallet.i_know_this_is_play_money", true),
        4 => {
            let chain = match &args.ldk {
                Some(url) => url.clone(),
                None => ask.text("Address of an Esplora server on that network (https://…)", "")?,
            };
            // Held payments are the fairest terms, and this wallet can hold.
            template = template
                .with("wallet.backend", "ldk")
                .with("wallet.ldk.chain_url", chain.trim())
                .with("text.terms", Terms::Hold.word());
        }
        _ => {}
    }
    // Real money in a node is a decision of its own, made in the configuration.
    let default = if choice == 4 { Some("signet") } else { None };
    if let Some(network) = args.network.as_deref().or(default) {
        template = template.with("wallet.network", network);
        if choice == 4 && network == "bitcoin" {
            if !args.i_accept_the_risk_on_mainnet {
                return Err(CommandError::usage(
                    "the embedded node would hold real money in a program that is always online",
                )
                .help(
                    "begin with --network signet; to go on, say --i-accept-the-risk-on-mainnet and keep little in the \
                         node",
                )
                .into());
            }
            template = template.with("wallet.ldk.i_accept_the_risk_on_mainnet", true);
        }
    }
    let defaults = RawConfig::default().text;
    if let Some(terms) = &args.terms {
        template = template.with("text.terms", terms.as_str());
    }
    for (field, given, question, default) in [
        ("text.base", &args.base, "Price of a job", defaults.base),
        ("text.per_1k_prompt", &args.per_1k_prompt, "… and of 1,000 tokens read", defaults.per_1k_prompt),
        ("text.per_1k_generated", &args.per_1k_generated, "… and of 1,000 tokens written", defaults.per_1k_generated),
    ] {
        let amount = match given {
            Some(given) => given.clone(),
            None => ask_again(ask, question, &default, |answer| {
                answer.trim().parse::<Msat>().map(|_| ()).map_err(|problem| problem.to_string())
            })?,
        };
        template = template.with(field, amount.trim());
    }
    Ok(template)
}

/// Asks until the answer is usable; whoever cannot be asked again gets the error with everything else.
fn ask_again(
    ask: &mut dyn Ask,
    question: &str,
    default: &str,
    check: impl Fn(&str) -> Result<(), String>,
) -> Result<String> {
    loop {
        let answer = ask.text(question, default)?;
        match check(&answer) {
            Err(problem) if ask.is_there() => ask.say(&problem)?,
            _ => return Ok(answer),
        }
    }
}

fn is_relay(url: &str) -> bool {
    url::Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "ws" | "wss") && url.has_host())
}

/// A path from the command line starts where the person is, one in the configuration where the file is.
fn absolute(path: &PathBuf) -> Result<String> {
    let path = std::path::absolute(path).with_context(|| format!("can't use the path {}", path.display()))?;
    match path.into_os_string().into_string() {
        Ok(path) => Ok(path),
        Err(_) => Err(CommandError::usage("the model's path is not UTF-8 text").into()),
    }
}

/// Keeps the identity that is there, which is never overwritten; its key is shown when a password source is at hand.
fn keep_identity(args: &InitArgs, globals: &Globals, config: &Config) -> Result<Option<PublicIdentity>> {
    let keystore = &config.identity.keystore;
    if args.import || args.phrase_file.is_some() || args.new_phrase.words.is_some() {
        return Err(IdentityError::KeystoreExists(keystore.path().to_owned()).into());
    }
    let Some(password) = PasswordSources::of_process(globals.password_file.clone())?.read()? else { return Ok(None) };
    let identity = Identity::open(keystore, &password, config.identity.account)?;
    Ok(Some(PublicIdentity::of(&identity, keystore)))
}

fn make_identity(args: &InitArgs, globals: &Globals, config: &Config, ask: &mut dyn Ask) -> Result<PublicIdentity> {
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

/// Writes the configuration in one step; a configuration that was there is kept beside it.
fn write_config(paths: &Paths, text: &str) -> Result<()> {
    let path = &paths.config_file;
    let beside = |ending: &str| {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(ending);
        path.with_file_name(name)
    };
    let written = || -> std::io::Result<()> {
        fs::create_dir_all(paths.config_dir())?;
        if path.exists() {
            fs::copy(path, beside(".old"))?;
        }
        let draft = beside(".new");
        fs::write(&draft, text)?;
        fs::rename(&draft, path)
    };
    written().with_context(|| format!("can't write the configuration {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::super::prompt::Script;
    use super::*;
    use crate::config::WalletSettings;
    use crate::identity::Password;

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
}
