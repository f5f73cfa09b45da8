//! Where orders go: a provider that does as it is told, and `coinop request` in a folder of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bitcoin::hashes::{Hash as _, sha256};
use coinop::executor::{Executor, Prepared};
use coinop::inference::TextSink;
use coinop::job::{Estimate, Failure, FinishReason, JobKind, JobRequest, Outcome, Rates, Refusal, Terms, Usage};
use coinop::money::Msat;
use coinop::provider::Offer;
use coinop::testing::market::{MarketBuilder, PATIENCE, TestMarket};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::buying::{Shopper, run};

/// What a job costs.
pub const PRICE: Msat = Msat::sat(21);

/// Delivers what it was given, and remembers what it was asked for.
pub struct Canned {
    outcome: Result<Outcome, Failure>,
    pub asked: Mutex<Vec<JobRequest>>,
}

#[async_trait]
impl Executor for Canned {
    async fn prepare(&self, request: &JobRequest) -> Result<Prepared, Refusal> {
        self.asked.lock().unwrap().push(request.clone());
        Ok(Prepared {
            estimate: Estimate::tokens(0, 0),
            prompt_is_exact: false,
            stream: false,
            rates: None,
            lane: None,
            work: Value::Null,
        })
    }

    async fn run(&self, _: &Prepared, _: Option<TextSink>, _: &CancellationToken) -> Result<Outcome, Failure> {
        self.outcome.clone()
    }
}

impl Canned {
    pub fn delivering(content: &str, facts: &[(&str, &str)]) -> Arc<Self> {
        let facts = facts.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let outcome = Outcome {
            content: content.to_owned(),
            usage: Usage::NONE,
            finish: FinishReason::Stop,
            model: None,
            parameters: None,
            digest: None,
            facts,
            duration: Duration::from_millis(10),
        };
        Arc::new(Self { outcome: Ok(outcome), asked: Mutex::default() })
    }

    pub fn failing(failure: Failure) -> Arc<Self> {
        Arc::new(Self { outcome: Err(failure), asked: Mutex::default() })
    }

    /// The only request there was.
    pub fn asked(&self) -> JobRequest {
        match self.asked.lock().unwrap().as_slice() {
            [request] => request.clone(),
            other => panic!("{} requests came", other.len()),
        }
    }

    /// Its inputs as marker and data.
    pub fn inputs(&self) -> Vec<(Option<String>, String)> {
        self.asked().inputs.into_iter().map(|input| (input.marker, input.data)).collect()
    }

    /// Its parameters as key and value.
    pub fn params(&self) -> Vec<(String, String)> {
        self.asked().params.iter().map(|(key, values)| (key.to_owned(), values.join(" "))).collect()
    }
}

pub fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// A market that sells one kind of work, and somebody who buys there.
pub async fn market(kind: JobKind, executor: &Arc<Canned>, terms: Terms) -> (TestMarket, Shopper) {
    let market = selling(kind, executor.clone(), terms).start().await;
    let shopper = Shopper::at(&market, "").await;
    (market, shopper)
}

pub fn selling(kind: JobKind, executor: Arc<dyn Executor>, terms: Terms) -> MarketBuilder {
    let offer = Offer {
        rates: Rates { base: PRICE, ..Rates::default() },
        terms,
        free_per_day: 0,
        hold_for: Offer::hold_for(PATIENCE),
    };
    TestMarket::new().selling(kind, executor, offer)
}

/// `coinop request …` in a folder.
pub fn command_in(folder: &Path, shopper: &Shopper, args: &[&str]) -> Command {
    let provider = shopper.provider.to_string();
    let mut command = shopper.command(&["request"]);
    command.args(args).args(["--provider", &provider, "--max-cost", "50sat", "--timeout", "2m"]).current_dir(folder);
    command
}

pub async fn order_in(folder: &Path, shopper: &Shopper, args: &[&str]) -> Output {
    run(command_in(folder, shopper, args)).await
}

pub async fn order(shopper: &Shopper, args: &[&str]) -> Output {
    order_in(shopper.path(), shopper, args).await
}

pub fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn hash(content: &[u8]) -> String {
    sha256::Hash::hash(content).to_string()
}

pub fn read(path: PathBuf) -> String {
    fs::read_to_string(&path).unwrap_or_else(|problem| panic!("{}: {problem}", path.display()))
}

/// A run's result with one command, written by hand as another provider may write it.
pub fn run_result(exit_code: i64, stdout: &str, stderr: &str, artifacts: &Value) -> String {
    json!({
        "exit_code": exit_code, "stdout": stdout, "stderr": stderr,
        "command_results": [{
            "command": "make test", "exit_code": exit_code, "stdout": stdout, "stderr": stderr,
            "stdout_sha256": hash(stdout.as_bytes()), "stderr_sha256": hash(stderr.as_bytes()),
            "duration_ms": 1200, "timed_out": false
        }],
        "artifacts": artifacts,
        "usage": {"cpu_time_ms": 1, "peak_memory_bytes": 2, "disk_writes_bytes": 3, "network_bytes": 0},
        "env": {"image_digest": "sha256:00", "runtime": "runsc"}
    })
    .to_string()
}

pub fn artifact(path: &str, content: &[u8]) -> Value {
    json!({"path": path, "sha256": hash(content), "size": content.len(), "data": BASE64_STANDARD.encode(content)})
}
