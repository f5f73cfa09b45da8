//! A real llama.cpp server with the tiny model, where there is one: see `docs/testing.md`.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use reqwest::Client;
use serde_json::Value;
use tempfile::TempDir;
use url::Url;

use super::require;
use crate::inference::tiny;

/// The program to test against, when it is not the first on the path.
const PROGRAM: &str = "COINOP_TEST_LLAMA_SERVER";
/// Its name, on the path and where it is required.
const NAME: &str = "llama-server";

/// How many requests it works on at once.
pub const SLOTS: usize = 4;
/// Tokens of prompt and answer of each.
pub const CONTEXT_TOKENS: u32 = 1_024;

/// Between two looks at a server that tells nobody.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long it may take to load the model, and to become idle.
const PATIENCE: Duration = Duration::from_secs(120);
/// A free port may be somebody else's a moment later: so often another is tried.
const TRIES: usize = 5;

/// A running server on a port of its own. Killed when dropped.
#[derive(Debug)]
pub struct LlamaServer {
    process: Child,
    address: SocketAddr,
    key: Option<String>,
    client: Client,
    home: TempDir,
}

impl Drop for LlamaServer {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl LlamaServer {
    /// Starts one and waits until the model is loaded; `None` when there is no such program, which is said.
    ///
    /// # Panics
    /// When there is none and there must be, or when it does not start.
    pub async fn start() -> Option<Self> {
        Self::start_as(None, &[]).await
    }

    /// One that makes embeddings.
    ///
    /// # Panics
    /// As [`LlamaServer::start`].
    pub async fn start_for_embeddings() -> Option<Self> {
        Self::start_as(None, &["--embeddings", "--pooling", "mean"]).await
    }

    /// The same with a key.
    ///
    /// # Panics
    /// As [`LlamaServer::start`].
    pub async fn start_with(key: Option<&str>) -> Option<Self> {
        Self::start_as(key, &[]).await
    }

    async fn start_as(key: Option<&str>, more: &[&str]) -> Option<Self> {
        let Some(program) = program() else {
            require::skip(NAME, &format!("put it on the PATH, or name it in {PROGRAM} (docs/testing.md)"));
            return None;
        };
        for _ in 0..TRIES {
            let mut server = Self::launch(&program, key, more).expect("llama-server starts");
            if server.is_healthy_in_time().await {
                return Some(server);
            }
        }
        panic!("llama-server ends at once, again and again");
    }

    fn launch(program: &Path, key: Option<&str>, more: &[&str]) -> io::Result<Self> {
        super::faulty_server::crypto();
        let home = tempfile::tempdir()?;
        let model = tiny::write_to(home.path())?;
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let log = File::create(home.path().join("log"))?;
        let mut command = Command::new(program);
        command
            .arg("--model")
            .arg(model)
            .args(["--host", &address.ip().to_string(), "--port", &address.port().to_string()])
            // One thread: several tests run at once. Each slot has its part of the context.
            .args(["--threads", "1", "--parallel", &SLOTS.to_string()])
            .args(["--ctx-size", &(CONTEXT_TOKENS * u32::try_from(SLOTS).unwrap_or(1)).to_string()])
            // Unlikely tokens are cut before temperature comes, unless told not to; this model is too sure for that.
            .args(["--min-p", "0"])
            .args(["--no-webui", "--slots"])
            .args(more)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        if let Some(key) = key {
            // Not on the command line, which everybody can read.
            command.env("LLAMA_API_KEY", key);
        }
        let client = Client::builder().no_proxy().build().map_err(io::Error::other)?;
        Ok(Self { process: command.spawn()?, address, key: key.map(str::to_owned), client, home })
    }

    /// Waits until it has loaded its model; `false` when it ended instead, because its port was taken.
    async fn is_healthy_in_time(&mut self) -> bool {
        let healthy = async {
            loop {
                if matches!(self.process.try_wait(), Ok(Some(_))) {
                    return false;
                }
                let answer = self.client.get(self.at("health")).send().await;
                if answer.is_ok_and(|answer| answer.status().is_success()) {
                    return true;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        let Ok(healthy) = tokio::time::timeout(PATIENCE, healthy).await else {
            panic!("llama-server should be ready by now; it says:\n{}", self.log());
        };
        if !healthy {
            eprintln!("llama-server ended:\n{}", self.log());
        }
        healthy
    }

    /// Where it listens.
    ///
    /// # Panics
    /// Never: a socket address makes a URL.
    pub fn url(&self) -> Url {
        format!("http://{}/", self.address).parse().expect("a socket address makes a URL")
    }

    /// Waits until it works on nothing, which is what it should do soon after its last client went away.
    ///
    /// # Panics
    /// When that takes too long.
    pub async fn wait_until_idle(&self) {
        let idle = async {
            while self.slots().await.iter().any(|slot| slot["is_processing"] != false) {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        tokio::time::timeout(PATIENCE, idle).await.expect("llama-server should be idle by now");
    }

    /// What it tells of each slot.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn slots(&self) -> Vec<Value> {
        let Value::Array(slots) = self.answer(self.client.get(self.at("slots"))).await else {
            panic!("slots are a list")
        };
        slots
    }

    /// What it answers to a question of its own interface.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn ask(&self, path: &str, question: &Value) -> Value {
        let asked =
            self.client.post(self.at(path)).header("content-type", "application/json").body(question.to_string());
        self.answer(asked).await
    }

    async fn answer(&self, asked: reqwest::RequestBuilder) -> Value {
        let asked = match &self.key {
            Some(key) => asked.bearer_auth(key),
            None => asked,
        };
        let answer = asked.send().await.and_then(reqwest::Response::error_for_status).expect("llama-server answers");
        serde_json::from_slice(&answer.bytes().await.expect("llama-server answers")).expect("it answers in JSON")
    }

    fn at(&self, path: &str) -> Url {
        self.url().join(path).expect("a path makes a URL")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }
}

fn program() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os(PROGRAM) {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(NAME)).find(|program| program.is_file())
}
