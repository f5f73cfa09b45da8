//! Where patches are sold: a sandbox, a scripted model behind a real server's wire form, and a repository.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use coinop::agent::{ModelWorker, Transcripts};
use coinop::executor::Executor;
use coinop::executor::patch_gen::PatchGenExecutor;
use coinop::inference::JsonSupport;
use coinop::job::patch_gen::PatchGenLimits;
use coinop::job::{Failure, Input, InputKind, JobKind, JobRequest, Outcome, Params, Rates, Terms};
use coinop::money::Msat;
use coinop::nip90::{AnswerBody, Feedback, Order, Status};
use coinop::provider::Offer;
use coinop::repository::{CommitId, Repositories, RepositoryLimits};
use coinop::sandbox::{Hosts, Runtime};
use coinop::testing::git_server::{GitRepository, GitServer};
use coinop::testing::market::{Customer, Posted, TestMarket};
use coinop::testing::openai_server::OpenAiServer;
use coinop::testing::scripted_model::{Says, ScriptedModel};
use coinop::testing::{engine, git_image, requests};
use tokio_util::sync::CancellationToken;

use crate::scripted::{self, Scripted};

/// The price of a job, whatever it takes.
pub const PRICE: Msat = Msat::sat(21);

/// What the issue is about: 2 and 2 are 5 here.
const ADD: &str = "#!/bin/sh\necho $(($1 + $2 + 1))\n";
const TEST: &str =
    "#!/bin/sh\nsum=$(sh add.sh 2 2)\n[ \"$sum\" = 4 ] && exit 0\necho \"2 and 2 are $sum\" >&2\nexit 1\n";

/// The same in C, which only a compiler finds out.
const SUM: &str = "#include <stdlib.h>\nint main(int n, char **v) { return n - 3 + atoi(v[1]) + atoi(v[2]) + 1; }\n";
const MAKEFILE: &str =
    "check: sum\n\tpython3 -c 'import subprocess as s; assert s.call([\"./sum\", \"2\", \"2\"]) == 4'\n";

/// The command that solves it.
pub const FIX: &str = "sed -i 's/ + 1))/))/' add.sh";

/// A provider's machine: a sandbox, a model's server, a git server with the repository `adder`.
pub struct Shop {
    hosts: Arc<Hosts>,
    git: GitServer,
    repository: GitRepository,
    pub commit: CommitId,
    pub model: ScriptedModel,
    worker: ModelWorker,
    folder: tempfile::TempDir,
    _server: OpenAiServer,
}

impl Shop {
    /// With a model that says this. Nothing where there is no engine, which is said.
    pub async fn open<S: Into<Says>>(
        name: &str,
        runtime: Runtime,
        script: impl IntoIterator<Item = S>,
    ) -> Option<Self> {
        let hosts = git_image::hosts(&instance(name), runtime).await?;
        Self::on(hosts, script).await
    }

    /// The same with the image that operators build.
    pub async fn with_tools<S: Into<Says>>(
        name: &str,
        runtime: Runtime,
        script: impl IntoIterator<Item = S>,
    ) -> Option<Self> {
        let hosts = engine::hosts_with_tools(&instance(name), runtime).await?;
        Self::on(hosts, script).await
    }

    async fn on<S: Into<Says>>(hosts: Arc<Hosts>, script: impl IntoIterator<Item = S>) -> Option<Self> {
        let git = GitServer::start().await?;
        let repository = git.repository("adder");
        repository.write("add.sh", ADD).write("test.sh", TEST).write(".gitignore", "*.o\n");
        repository.write("sum.c", SUM).write("Makefile", MAKEFILE);
        repository.write("a folder/dos file.txt", "one\r\ntwo\r\n").write("no end", "a\nb").write("empty", "");
        let commit = repository.commit("first");
        let Scripted { model, backend, server } = scripted::model(script, JsonSupport::None).await;
        let worker = ModelWorker::new(backend);
        let folder = tempfile::tempdir().unwrap();
        Some(Self { hosts, git, repository, commit, model, worker, folder, _server: server })
    }

    fn executor(&self, runtime: Runtime, limits: PatchGenLimits) -> PatchGenExecutor {
        let bounds = RepositoryLimits {
            max_bytes: 1_000_000,
            max_files: 1_000,
            time: Duration::from_secs(60),
            cache_bytes: 10_000_000,
            allow_private: true,
        };
        let repositories = Repositories::new(self.folder.path().join("cache"), bounds);
        PatchGenExecutor::new(self.hosts.clone(), repositories, Arc::new(self.worker.clone()), runtime, limits)
            .with_transcripts(Transcripts::new(self.folder.path().join("transcripts")))
    }

    /// What is asked.
    fn asks(&self, params: &[(&str, &str)]) -> (Vec<Input>, Params) {
        let input = |data: &str, kind, marker: &str| Input {
            data: data.into(),
            kind,
            relay: None,
            marker: Some(marker.into()),
        };
        let inputs = vec![
            input(&self.git.http_url("adder"), InputKind::Url, "repo"),
            input("2 and 2 are 5 here; make them 4.", InputKind::Text, "issue"),
        ];
        let mut list = Params::default();
        for (key, value) in params {
            list.push(key, vec![(*value).to_owned()]);
        }
        (inputs, list)
    }

    /// Does a job without a market.
    pub async fn makes(&self, params: &[(&str, &str)]) -> Result<Outcome, Failure> {
        let (inputs, params) = self.asks(params);
        let request = JobRequest { inputs, params, ..requests::blank(JobKind::PatchGen) };
        let executor = self.executor(Runtime::Runc, small());
        let prepared = executor.prepare(&request).await?;
        executor.run(&prepared, None, &CancellationToken::new()).await
    }

    /// What was said and run in the last job.
    pub fn transcript(&self) -> String {
        let file = format!("{}.jsonl", coinop::job::JobId([1; 32]));
        std::fs::read_to_string(self.folder.path().join("transcripts").join(file)).unwrap()
    }

    /// A fresh checkout with the patch, applied by git.
    pub fn apply(&self, patch: &str) -> tempfile::TempDir {
        let checkout = tempfile::tempdir().unwrap();
        let (from, to) = (self.repository.folder().to_str().unwrap(), checkout.path().to_str().unwrap());
        self.repository.git(&["clone", "--quiet", "--no-hardlinks", from, to]);
        std::fs::write(checkout.path().join(".git/the.patch"), patch).unwrap();
        let applied = Command::new("git")
            .args(["apply", "--index", ".git/the.patch"])
            .current_dir(checkout.path())
            .output()
            .unwrap();
        assert!(applied.status.success(), "{}\n{patch}", String::from_utf8_lossy(&applied.stderr));
        checkout
    }

    /// Nothing is left on the engine.
    pub async fn closes(self) {
        assert_eq!(self.hosts.sweep_leftovers().await.removed, 0);
    }
}

fn instance(name: &str) -> String {
    format!("coinop-tests-patching-{name}")
}

/// Limits that small stories keep.
pub fn small() -> PatchGenLimits {
    PatchGenLimits {
        steps: 12,
        command_time: Duration::from_secs(20),
        memory_mib: 128,
        disk_mib: 32,
        ..PatchGenLimits::default()
    }
}

pub fn run(command: &str) -> Says {
    format!("Let me see.\n\n```sh\n{command}\n```").into()
}

/// A market in which the shop sells on these terms, and an order for it.
pub async fn market(shop: &Shop, runtime: Runtime, terms: Terms) -> (TestMarket, Customer) {
    let rates = Rates { base: PRICE, ..Rates::default() };
    let offer = Offer { rates, terms, free_per_day: 0, hold_for: Offer::hold_for(Duration::from_secs(600)) };
    let executor = Arc::new(shop.executor(runtime, small()));
    let market = TestMarket::new().selling(JobKind::PatchGen, executor, offer).start().await;
    let customer = market.customer().await;
    (market, customer)
}

pub fn order(shop: &Shop, customer: &Customer, params: &[(&str, &str)]) -> Order {
    let (inputs, params) = shop.asks(params);
    Order { kind: JobKind::PatchGen, inputs, params, ..customer.order("") }
}

/// Reads on until there is an error, with what goes with it.
pub async fn error(posted: &mut Posted) -> Feedback {
    posted
        .until(|body| match body {
            AnswerBody::Feedback(feedback) if feedback.status == Status::Error => Some(feedback.clone()),
            AnswerBody::Feedback(_) => None,
            AnswerBody::Result(_) => panic!("expected an error, got a result"),
        })
        .await
}
