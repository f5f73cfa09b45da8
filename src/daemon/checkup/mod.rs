//! Is everything there and does it work? What `coinop doctor` finds out, apart from how it is printed.
//!
//! Each check tries the real thing (a relay gets an event, the wallet makes an invoice), has its own time limit, and runs
//! on a thread of its own: a wallet or a model loader that blocks holds up neither the others nor its own deadline. What
//! does not end in time is a finding like any other. Nothing secret is in a finding; words of relays and wallets are
//! made one harmless line.

mod file_server;
mod files;
mod machine;
mod model;
mod money;
mod relays;
mod sandbox;

use std::time::{Duration, Instant};

use futures::future::LocalBoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::wiring::found::InForce;
use crate::config::{BackendSettings, Config, ConfigError, Paths};
use crate::identity::Identity;

/// Looking at files, opening the database and adding up the books.
const LOCAL_LIMIT: Duration = Duration::from_secs(60);

/// Reading a model's header, which may lie on a slow disk.
const MODEL_FILE_LIMIT: Duration = Duration::from_secs(60);

/// Loading a model: tens of gigabytes from a slow disk.
const MODEL_LIMIT: Duration = Duration::from_secs(15 * 60);

/// Asking a model server for its models, each of them, and what a prompt comes to.
const SERVER_LIMIT: Duration = Duration::from_secs(60);

/// Connecting a wallet, an invoice and a look-up: above the sum of the wallet's own limits, so that its words are heard.
const WALLET_LIMIT: Duration = Duration::from_secs(120);

/// How long engines may take to run a probe under each runtime.
const SANDBOX_LIMIT: Duration = Duration::from_secs(180);

/// How long a server of files may take to say anything at all.
const FILES_PATIENCE: Duration = Duration::from_secs(10);

/// The longest a relay is waited for at each step, whatever `relays.publish_timeout` says: somebody watches.
const RELAY_PATIENCE: Duration = Duration::from_secs(10);

/// Steps of a relay's check, each of which may take the patience: connecting, publishing, closing.
const RELAY_STEPS: u32 = 4;

/// How much longer than its limit a check may hold its thread before it is given up with the thread.
const STUCK_AFTER: Duration = Duration::from_secs(2);

/// The longest line of a finding, in characters: some of the words are strangers'.
const MAX_LINE: usize = 400;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Left out, or not possible because something else failed.
    Skipped,
    /// As it should be.
    Ok,
    /// Works, but probably not as the operator wants.
    Warning,
    /// Does not work. Comes with a cure.
    Failed,
}

impl Verdict {
    /// The word people and scripts read.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Skipped => "skipped",
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was checked: a fixed word for scripts.
    pub check: &'static str,
    /// Which one, when there are several: a relay's address, a file.
    pub subject: Option<String>,
    /// How it came out.
    pub verdict: Verdict,
    /// What was found, in one line.
    pub finding: String,
    /// What to do about it; always there when it failed.
    pub cure: Option<String>,
}

impl Finding {
    fn new(check: &'static str, verdict: Verdict, finding: impl AsRef<str>, cure: Option<&str>) -> Self {
        Self { check, subject: None, verdict, finding: one_line(finding.as_ref()), cure: cure.map(one_line) }
    }

    /// As it should be.
    pub fn ok(check: &'static str, finding: impl AsRef<str>) -> Self {
        Self::new(check, Verdict::Ok, finding, None)
    }

    /// Not checked, and why.
    pub fn skipped(check: &'static str, why: impl AsRef<str>) -> Self {
        Self::new(check, Verdict::Skipped, why, None)
    }

    /// Works, but.
    pub fn warning(check: &'static str, finding: impl AsRef<str>, cure: impl AsRef<str>) -> Self {
        Self::new(check, Verdict::Warning, finding, Some(cure.as_ref()))
    }

    /// Does not work.
    pub fn failed(check: &'static str, finding: impl AsRef<str>, cure: impl AsRef<str>) -> Self {
        Self::new(check, Verdict::Failed, finding, Some(cure.as_ref()))
    }

    /// About this one of several.
    #[must_use]
    pub fn about(mut self, subject: impl AsRef<str>) -> Self {
        self.subject = Some(one_line(subject.as_ref()));
        self
    }
}

/// Text in one line of bounded length without anything that steers a terminal.
fn one_line(text: &str) -> String {
    let plain = |c: char| if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') { ' ' } else { c };
    let mut chars = text.trim().chars().map(plain).filter(|c| !is_invisible(*c));
    let mut line: String = chars.by_ref().take(MAX_LINE).collect();
    if chars.next().is_some() {
        line.push('…');
    }
    line
}

/// Characters that turn the reading direction or hide: a relay could make its words read as ours.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// What to check.
#[derive(Debug)]
pub struct Checkup {
    /// Where things are.
    pub paths: Paths,
    /// A configuration that is sound.
    pub config: Config,
    /// Who we are; without it, what needs our key is left out.
    pub identity: Option<Identity>,
    /// Leaves the model unloaded.
    pub skip_model: bool,
}

/// What happens while checks run, for somebody who watches.
#[derive(Debug)]
pub enum Step<'a> {
    /// Something that may take long has begun.
    Begun(&'a str),
    /// A check is done.
    Ended {
        /// What was checked.
        name: &'a str,
        /// The worst of what it found.
        verdict: Verdict,
        /// How long it took.
        took: Duration,
    },
}

/// The findings about a configuration that can't be used: one for each problem.
pub fn unsound(error: &ConfigError) -> Vec<Finding> {
    match error {
        ConfigError::Invalid { problems, .. } => problems
            .iter()
            .map(|problem| Finding::failed("config", &problem.what, &problem.cure).about(&problem.field))
            .collect(),
        other => {
            let mut what = other.to_string();
            if let Some(source) = std::error::Error::source(other) {
                what.push_str(&format!(": {source}"));
            }
            let cure =
                other.help().unwrap_or_else(|| "correct the file; 'coinop config check' looks at it again".into());
            vec![Finding::failed("config", what, cure)]
        }
    }
}

impl Checkup {
    /// Runs all checks at the same time and returns what they found, in a fixed order.
    pub async fn run(self, mut tell: impl FnMut(Step<'_>)) -> Vec<Finding> {
        let in_force = InForce::of(&self.config.inference).await;
        let checks = self.checks(in_force);
        for begun in checks.iter().filter_map(|check| check.announcement.as_deref()) {
            tell(Step::Begun(begun));
        }
        let mut findings: Vec<Vec<Finding>> = checks.iter().map(|_| Vec::new()).collect();
        let mut running: FuturesUnordered<_> = checks
            .into_iter()
            .enumerate()
            .map(|(place, check)| async move {
                let began = Instant::now();
                let name = check.name.clone();
                (place, name, check.carry_out().await, began.elapsed())
            })
            .collect();
        while let Some((place, name, found, took)) = running.next().await {
            let verdict = found.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Skipped);
            tell(Step::Ended { name: &name, verdict, took });
            findings[place] = found;
        }
        findings.into_iter().flatten().collect()
    }

    fn checks(self, in_force: InForce) -> Vec<Check> {
        let Self { paths, config, identity, skip_model } = self;
        let mut checks = Vec::new();

        let known = config.clone();
        checks.push(Check::new("ready to serve", "ready", LOCAL_LIMIT, async move || files::ready(&known)));
        let (there, known) = (paths.clone(), config.clone());
        checks.push(Check::new("permissions", "permissions", LOCAL_LIMIT, async move || {
            files::permissions(&there, &known)
        }));
        let there = paths.clone();
        checks.push(Check::new("provider", "provider", LOCAL_LIMIT, async move || vec![files::provider(&there)]));
        let there = paths.database();
        checks.push(Check::new("database", "database", LOCAL_LIMIT, async move || files::database(&there).await));
        let (text, models) = (config.text.clone(), config.inference.models.clone());
        checks.push(Check::new("price", "price", LOCAL_LIMIT, async move || vec![money::price(&text, &models)]));

        let patience = config.relays.publish_timeout.min(RELAY_PATIENCE);
        let limit = patience * RELAY_STEPS + STUCK_AFTER;
        let max_skew = config.limits.max_clock_skew;
        for url in &config.relays.urls {
            let url = url.to_string();
            let key = relays::Key::of(identity.as_ref());
            let name = format!("relay {url}");
            let check = Check::new(name, "relay", limit, {
                let url = url.clone();
                async move || relays::relay(&url, &key, patience, max_skew).await
            });
            checks.push(check.about(url).cure("it may be overloaded: try again later, or take another relay"));
        }
        if let Some(identity) = &identity {
            let (known, signer) = (config.clone(), identity.signer.clone());
            checks.push(Check::new("ad", "ad", limit, async move || vec![relays::ad(&known, &signer, patience).await]));
        }

        checks.extend(work(&paths, &config, in_force, skip_model));
        if let Some(files) = config.agents.files.clone() {
            let look = async move || vec![file_server::answers(&files, FILES_PATIENCE).await];
            checks.push(Check::new("file server", "files", FILES_PATIENCE * 2, look));
        }
        if !config.agents.runtimes().is_empty() {
            let (known, there) = (config.clone(), paths.clone());
            let check =
                Check::new("sandbox", "sandbox", SANDBOX_LIMIT, async move || sandbox::engines(&known, &there).await);
            checks.push(check.cure("is the engine overloaded? 'docker ps' should answer at once"));
        }

        let wallet = Check::new("wallet", "wallet", WALLET_LIMIT, async move || {
            money::wallet(&config, identity.as_ref(), &paths).await
        });
        checks.push(wallet.cure("is the wallet online, and are its relays? Try again, or make a new connection in it"));
        checks
    }
}

/// What does the work: each endpoint, the machine for it, and where its figures can be read.
fn work(paths: &Paths, config: &Config, in_force: InForce, skip_model: bool) -> Vec<Check> {
    let mut checks = Vec::new();
    if in_force.settings.is_auto() {
        let found = model::none(&in_force);
        checks.push(Check::new("model", "model", LOCAL_LIMIT, async move || vec![found]));
    }
    for endpoint in &in_force.settings.endpoints {
        let known = endpoint.clone();
        if matches!(endpoint.backend, BackendSettings::MistralRs(_)) {
            let check = Check::new("model file", "model.file", MODEL_FILE_LIMIT, async move || model::file(&known));
            checks.push(check.about(endpoint.name.clone()));
        }
        let name = format!("model {}", endpoint.name);
        let in_process = endpoint.server().is_none();
        let check = if skip_model && in_process {
            let why = Finding::skipped("model", "not loaded, as asked with --skip-model").about(&endpoint.name);
            Check::new(name, "model", LOCAL_LIMIT, async move || vec![why])
        } else {
            let limit = if in_process { MODEL_LIMIT } else { SERVER_LIMIT };
            let (known, settings, text) = (endpoint.clone(), in_force.settings.clone(), config.text.clone());
            Check::new(name, "model", limit, async move || model::answers(&known, &settings, &text).await)
                .announce(model::announcement(endpoint))
        };
        checks.push(check.about(endpoint.name.clone()).cure("is the server overloaded? Try again, or look at its log"));
    }
    let settings = in_force.settings;
    checks.push(Check::new("hardware", "hardware", MODEL_FILE_LIMIT, async move || {
        vec![machine::hardware(&settings).await]
    }));
    if let Some(at) = config.metrics.listen {
        let (there, exposed) = (paths.clone(), config.metrics.is_exposed());
        checks.push(Check::new("metrics", "metrics", LOCAL_LIMIT, async move || machine::metrics(at, exposed, &there)));
    }
    checks
}

/// Work of a check, made on the thread it runs on.
type Work = Box<dyn FnOnce() -> LocalBoxFuture<'static, Vec<Finding>> + Send>;

/// A check to be carried out.
struct Check {
    name: String,
    /// The word under which it is found that it took too long or broke.
    word: &'static str,
    subject: Option<String>,
    limit: Duration,
    cure: &'static str,
    announcement: Option<String>,
    work: Work,
}

impl Check {
    fn new<F>(name: impl Into<String>, word: &'static str, limit: Duration, work: F) -> Self
    where
        F: AsyncFnOnce() -> Vec<Finding> + Send + 'static,
    {
        Self {
            name: name.into(),
            word,
            subject: None,
            limit,
            cure: "try again; if it stays so, the disk or the machine is too busy, or broken",
            announcement: None,
            work: Box::new(move || Box::pin(async move { work().await })),
        }
    }

    fn about(mut self, subject: String) -> Self {
        self.subject = Some(subject);
        self
    }

    fn cure(mut self, cure: &'static str) -> Self {
        self.cure = cure;
        self
    }

    fn announce(mut self, announcement: Option<String>) -> Self {
        self.announcement = announcement;
        self
    }

    async fn carry_out(self) -> Vec<Finding> {
        let Self { word, subject, limit, cure, work, .. } = self;
        let runtime = Handle::current();
        let job = tokio::task::spawn_blocking(move || runtime.block_on(async { timeout(limit, work()).await }));
        let broken = match timeout(limit + STUCK_AFTER, job).await {
            Ok(Ok(Ok(findings))) => return findings,
            Ok(Err(_)) => Finding::failed(
                word,
                "the check itself broke",
                "the error above is a fault of coinop: please report it",
            ),
            Ok(Ok(Err(_))) | Err(_) => Finding::failed(word, format!("no answer within {} s", limit.as_secs()), cure),
        };
        vec![match subject {
            Some(subject) => broken.about(subject),
            None => broken,
        }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_check_that_does_not_end_is_a_finding_with_a_cure() {
        let check = Check::new("x", "wallet", Duration::from_millis(1), async || std::future::pending().await);
        let found = check.about("y".into()).cure("do something").carry_out().await;
        assert_eq!(found, [Finding::failed("wallet", "no answer within 0 s", "do something").about("y")]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_check_that_blocks_its_thread_holds_up_nobody() {
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let stuck = Check::new("stuck", "wallet", Duration::from_millis(1), async move || {
            let _ = wait.recv();
            Vec::new()
        });
        let prompt = Check::new("prompt", "database", LOCAL_LIMIT, async || vec![Finding::ok("database", "opens")]);
        let (prompt, stuck) = tokio::join!(prompt.carry_out(), stuck.carry_out());
        assert_eq!(prompt, [Finding::ok("database", "opens")]);
        assert_eq!(stuck[0].verdict, Verdict::Failed);
        drop(release);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_check_that_panics_is_a_finding_too() {
        let found = Check::new("x", "model", LOCAL_LIMIT, async || panic!("as the test wants")).carry_out().await;
        assert_eq!(found[0].verdict, Verdict::Failed);
        assert!(found[0].cure.is_some());
    }

    #[test]
    fn words_of_strangers_become_one_harmless_line() {
        let finding = Finding::ok("relay", format!("a\u{1b}[31m\nb\u{202e}c{}", "x".repeat(1_000)));
        assert!(finding.finding.starts_with("a [31m bc"), "{}", finding.finding);
        assert!(finding.finding.chars().count() <= MAX_LINE + 1 && finding.finding.ends_with('…'));
    }
}
