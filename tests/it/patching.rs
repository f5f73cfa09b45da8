//! Patches for an issue (kind 5932): the model is a script behind a real server's wire form, and everything else is real: its
//! commands run in a sandbox, on repositories from a git server, and what comes out is applied by git.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use coinop::agent::{ModelWorker, Transcripts};
use coinop::executor::Executor;
use coinop::executor::patch_gen::PatchGenExecutor;
use coinop::inference::Inference;
use coinop::inference::JsonSupport;
use coinop::inference::http::ServerOptions;
use coinop::inference::openai::{OpenAi, OpenAiConfig};
use coinop::job::patch_gen::{PatchFacts, PatchGenLimits};
use coinop::job::{Code, Failure, Input, InputKind, JobKind, JobRequest, Outcome, Params, Rates, Terms};
use coinop::money::Msat;
use coinop::nip90::{AnswerBody, Feedback, Order, Status};
use coinop::provider::Offer;
use coinop::repository::{CommitId, Repositories, RepositoryLimits};
use coinop::sandbox::{Hosts, Runtime};
use coinop::testing::git_image;
use coinop::testing::git_server::{GitRepository, GitServer};
use coinop::testing::market::{Customer, Posted, TestMarket};
use coinop::testing::openai_server::{Manners, OpenAiServer};
use coinop::testing::scripted_model::{Says, ScriptedModel};
use coinop::wallet::WalletError;
use tokio_util::sync::CancellationToken;

/// The price of a job, whatever it takes.
const PRICE: Msat = Msat::sat(21);

/// What the issue is about: 2 and 2 are 5 here.
const ADD: &str = "#!/bin/sh\necho $(($1 + $2 + 1))\n";
const TEST: &str =
    "#!/bin/sh\nsum=$(sh add.sh 2 2)\n[ \"$sum\" = 4 ] && exit 0\necho \"2 and 2 are $sum\" >&2\nexit 1\n";

/// The command that solves it.
const FIX: &str = "sed -i 's/ + 1))/))/' add.sh";

/// A provider's machine: a sandbox, a model's server, a git server with the repository `adder`.
struct Shop {
    hosts: Arc<Hosts>,
    git: GitServer,
    repository: GitRepository,
    commit: CommitId,
    model: ScriptedModel,
    worker: ModelWorker,
    folder: tempfile::TempDir,
    _server: OpenAiServer,
}

impl Shop {
    /// With a model that says this. Nothing where there is no engine, which is said.
    async fn open<S: Into<Says>>(name: &str, runtime: Runtime, script: impl IntoIterator<Item = S>) -> Option<Self> {
        // Clients want it chosen, as `main` does.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let hosts = git_image::hosts(&format!("coinop-tests-patching-{name}"), runtime).await?;
        let git = GitServer::start().await?;
        let repository = git.repository("adder");
        repository.write("add.sh", ADD).write("test.sh", TEST).write(".gitignore", "*.o\n");
        repository.write("a folder/dos file.txt", "one\r\ntwo\r\n").write("no end", "a\nb").write("empty", "");
        let commit = repository.commit("first");
        let model = ScriptedModel::saying(script);
        let manners = Manners { vllm: true, ..Manners::default() };
        let server = OpenAiServer::start(Arc::new(model.clone()), manners).await.unwrap();
        let backend = OpenAi::new(OpenAiConfig {
            url: server.url(),
            key: None,
            models: Vec::new(),
            embeddings: Vec::new(),
            context_tokens: None,
            parameters: Some(1_000_000),
            slots: 4,
            bytes_per_token: 3,
            json: JsonSupport::None,
            options: ServerOptions::default(),
        });
        let worker = ModelWorker::new(Arc::new(backend.unwrap()) as Arc<dyn Inference>);
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
    async fn makes(&self, params: &[(&str, &str)]) -> Result<Outcome, Failure> {
        let (inputs, params) = self.asks(params);
        let request = JobRequest {
            id: coinop::job::JobId([1; 32]),
            customer: coinop::job::CustomerId([2; 32]),
            kind: JobKind::PatchGen,
            created_at: jiff::Timestamp::UNIX_EPOCH,
            expires_at: None,
            inputs,
            params,
            output: None,
            bid: None,
            addressed: true,
            relays: Vec::new(),
            encryption: None,
            event_json: String::new(),
        };
        let executor = self.executor(Runtime::Runc, small());
        let prepared = executor.prepare(&request).await?;
        executor.run(&prepared, None, &CancellationToken::new()).await
    }

    /// What was said and run in the last job.
    fn transcript(&self) -> String {
        let file = format!("{}.jsonl", coinop::job::JobId([1; 32]));
        std::fs::read_to_string(self.folder.path().join("transcripts").join(file)).unwrap()
    }

    /// A fresh checkout with the patch, applied by git.
    fn apply(&self, patch: &str) -> tempfile::TempDir {
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
    async fn closes(self) {
        assert_eq!(self.hosts.sweep_leftovers().await.removed, 0);
    }
}

/// Limits that small stories keep.
fn small() -> PatchGenLimits {
    PatchGenLimits {
        steps: 12,
        command_time: Duration::from_secs(20),
        memory_mib: 128,
        disk_mib: 32,
        ..PatchGenLimits::default()
    }
}

fn run(command: &str) -> Says {
    format!("Let me see.\n\n```sh\n{command}\n```").into()
}

/// A market in which the shop sells on these terms, and an order for it.
async fn market(shop: &Shop, runtime: Runtime, terms: Terms) -> (TestMarket, Customer) {
    let rates = Rates { base: PRICE, ..Rates::default() };
    let offer = Offer { rates, terms, free_per_day: 0, hold_for: Offer::hold_for(Duration::from_secs(600)) };
    let executor = Arc::new(shop.executor(runtime, small()));
    let market = TestMarket::new().selling(JobKind::PatchGen, executor, offer).start().await;
    let customer = market.customer().await;
    (market, customer)
}

fn order(shop: &Shop, customer: &Customer, params: &[(&str, &str)]) -> Order {
    let (inputs, params) = shop.asks(params);
    Order { kind: JobKind::PatchGen, inputs, params, ..customer.order("") }
}

/// Reads on until there is an error, with what goes with it.
async fn error(posted: &mut Posted) -> Feedback {
    posted
        .until(|body| match body {
            AnswerBody::Feedback(feedback) if feedback.status == Status::Error => Some(feedback.clone()),
            AnswerBody::Feedback(_) => None,
            AnswerBody::Result(_) => panic!("expected an error, got a result"),
        })
        .await
}

/// A good patch, with hold terms: found, verified, paid, delivered, and taken by git.
async fn a_good_patch(name: &str, runtime: Runtime) {
    let script = [
        run("sh test.sh; cat add.sh"),
        run(&format!("{FIX}; sh test.sh && git diff --stat")),
        run(
            "printf 'ONE\\r\\ntwo\\r\\n' > 'a folder/dos file.txt'; printf 'a\\nb\\n' > 'no end'; rm empty; chmod +x add.sh; \
             printf 'no end' > 'a new file'; : > 'new and empty'; echo built > x.o; mkdir target; echo built > target/x",
        ),
        "It is done.\n\nSUBMIT".into(),
    ];
    let Some(shop) = Shop::open(name, runtime, script).await else { return };
    let (market, customer) = market(&shop, runtime, Terms::Hold).await;
    let mut posted = customer.post(&order(&shop, &customer, &[("test_command", "sh test.sh")])).await;
    let invoice = posted.invoice().await;
    let paying = customer.begin_to_pay(&invoice);
    let result = posted.result().await;
    paying.await.unwrap().unwrap();
    assert_eq!(market.wallet().funds().unwrap(), PRICE);

    let facts = PatchFacts::read(&result.receipt.facts);
    assert_eq!((facts.commit, facts.test_exit_code, facts.applies_cleanly), (shop.commit.to_string(), Some(0), true));
    assert_eq!((facts.files_changed, facts.runtime.as_deref(), facts.steps), (6, Some(runtime.word()), 3));
    assert!(facts.image_digest.unwrap().starts_with("sha256:"));
    // What it was told of its commands is what they did.
    let asked = shop.model.asked();
    assert!(asked[1].messages.last().unwrap().content.contains("2 and 2 are 5"));
    assert!(asked[2].messages.last().unwrap().content.contains("add.sh | 2 +-"));

    let checkout = shop.apply(&result.content);
    let tested = Command::new("sh").arg("test.sh").current_dir(checkout.path()).status().unwrap();
    assert!(tested.success());
    let read = |file: &str| std::fs::read_to_string(checkout.path().join(file)).unwrap();
    assert_eq!(read("a folder/dos file.txt"), "ONE\r\ntwo\r\n");
    assert_eq!(
        (read("no end"), read("a new file"), read("new and empty")),
        ("a\nb\n".into(), "no end".into(), String::new())
    );
    assert!(!checkout.path().join("empty").exists() && !checkout.path().join("x.o").exists());
    market.finish().await;
    shop.closes().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_patch_is_delivered_and_git_applies_it() {
    a_good_patch("good", Runtime::Runc).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_patch_is_delivered_under_gvisor_too() {
    a_good_patch("good-gvisor", Runtime::Runsc).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patch_that_fails_its_tests_is_not_charged_under_hold_terms() {
    let script = [run("sed -i 's/ + 1))/ + 2))/' add.sh"), "SUBMIT".into()];
    let Some(shop) = Shop::open("hold", Runtime::Runc, script).await else { return };
    let (market, customer) = market(&shop, Runtime::Runc, Terms::Hold).await;
    let before = customer.wallet.funds().unwrap();
    let mut posted = customer.post(&order(&shop, &customer, &[("test_command", "sh test.sh")])).await;
    let invoice = posted.invoice().await;
    let paying = customer.begin_to_pay(&invoice);
    let failed = error(&mut posted).await;
    assert_eq!(failed.code, Some(Code::Backend));
    assert!(failed.text.unwrap().contains("does not pass its test command: it ended with exit code 1"));
    assert_eq!(failed.content, "2 and 2 are 6");
    assert!(matches!(paying.await.unwrap(), Err(WalletError::PaymentFailed(_))));
    assert_eq!(customer.wallet.funds().unwrap(), before);
    market.finish().await;
    shop.closes().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patch_that_fails_its_tests_becomes_credit_under_prepay() {
    let script = [run("echo '# nothing' >> add.sh"), "SUBMIT".into()];
    let Some(shop) = Shop::open("prepay", Runtime::Runc, script).await else { return };
    let (market, customer) = market(&shop, Runtime::Runc, Terms::Prepay).await;
    let mut posted = customer.post(&order(&shop, &customer, &[("test_command", "sh test.sh")])).await;
    let invoice = posted.invoice().await;
    customer.pay(&invoice).await.unwrap();
    let failed = error(&mut posted).await;
    assert_eq!(failed.content, "2 and 2 are 5");
    let store = market.service().provider().store().clone();
    assert_eq!(store.credit(customer.signer.customer_id()).await.unwrap(), PRICE);
    drop(store);
    market.finish().await;
    shop.closes().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_request_is_said_before_anything_is_paid() {
    let Some(shop) = Shop::open("refusing", Runtime::Runc, ["SUBMIT"]).await else { return };
    let (market, customer) = market(&shop, Runtime::Runc, Terms::Hold).await;
    for (params, named) in [
        (&[("git_ref", "nowhere")][..], "param git_ref"),
        (&[("model", "gpt-9")], "param model"),
        (&[("include_0", "../x")], "param include"),
    ] {
        let refusal = customer.post(&order(&shop, &customer, params)).await.refusal().await;
        assert!(refusal.text.contains(named), "{}", refusal.text);
    }
    let gone = Order { inputs: vec![order(&shop, &customer, &[]).inputs.remove(1)], ..order(&shop, &customer, &[]) };
    assert!(customer.post(&gone).await.refusal().await.text.contains("no repository"));
    assert!(shop.model.asked().is_empty());
    market.finish().await;
    shop.closes().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_works_in_the_agent_s_own_cell_does_not_hold_good() {
    // The test is made to pass by a file that is no part of the patch.
    let script = [
        run("sed -i '2i [ -e lucky.o ] && exit 0' test.sh; echo > lucky.o; sh test.sh && echo passes here"),
        "SUBMIT".into(),
    ];
    let Some(shop) = Shop::open("fresh", Runtime::Runc, script).await else { return };
    let failure = shop.makes(&[("test_command", "sh test.sh")]).await.unwrap_err();
    assert!(shop.transcript().contains("passes here"));
    assert!(failure.text.contains("does not pass its test command"), "{}", failure.text);
    assert_eq!(failure.log, "2 and 2 are 5");
    shop.closes().await;
}

/// What a model tries, and what comes of the patch.
async fn tries(name: &str, commands: &[&str], params: &[(&str, &str)]) -> Option<(Result<Outcome, Failure>, String)> {
    let script = commands.iter().map(|command| run(command)).chain(["SUBMIT".into()]);
    let shop = Shop::open(name, Runtime::Runc, script).await?;
    let made = shop.makes(params).await;
    let transcript = shop.transcript();
    shop.closes().await;
    Some((made, transcript))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_looks_for_a_way_out_finds_none() {
    let commands = [
        "wget -q -T 3 -O- http://1.1.1.1/ || echo no way out; cat /sys/class/net/*/operstate",
        "ls -la /var/run/docker.sock /run/docker.sock; cat /etc/shadow /proc/1/environ; env; id -u",
        "mount -t tmpfs none /mnt; echo x > /bin/busybox; echo x > /etc/passwd; ls /root",
        "rm -rf / 2>/dev/null; ls; echo still here",
    ];
    let Some((made, transcript)) = tries("escape", &commands, &[("test_command", "sh test.sh")]).await else { return };
    assert!(transcript.contains("no way out") && transcript.contains("still here"), "{transcript}");
    for secret in ["PRIVMSG", "SECRET", "TOKEN", "API_KEY", "root:$", "root:*"] {
        assert!(!transcript.contains(secret), "{secret} in {transcript}");
    }
    // Its own workspace it may ruin; then it has no patch that holds good.
    let failure = made.unwrap_err();
    assert!(failure.text.contains("does not pass its test command"), "{}", failure.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_patch_may_not_hold_is_refused_by_name() {
    for (name, command, params, refused) in [
        ("link", "ln -s /etc/passwd out", &[][..], "symbolic link out"),
        ("link-folder", "rm -r 'a folder' && ln -s /etc 'a folder'", &[], "symbolic link a folder"),
        ("binary", "head -c 100 /dev/urandom > image.png", &[], "binary file image.png"),
        ("modules", "echo '[submodule]' > .gitmodules", &[], ".gitmodules, which is git's own"),
        ("outside", FIX, &[("include_0", "docs/**")], "add.sh, which include and exclude do not allow"),
        (
            "excluded",
            "echo exit 0 > test.sh",
            &[("exclude_0", "test.sh")],
            "test.sh, which include and exclude do not allow",
        ),
        ("large", "yes 'a line of text' | head -n 9000 > long", &[], "more than 40960 bytes"),
        ("nothing", "ls", &[], "the agent changed nothing"),
    ] {
        let Some((made, _)) = tries(name, &[command], params).await else { return };
        let failure = made.unwrap_err();
        assert!(
            failure.text.contains(refused) && failure.text.contains("nothing is charged"),
            "{name}: {}",
            failure.text
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tricks_with_git_s_folder_modes_and_names_are_no_part_of_a_patch() {
    let commands = [
        "echo '#!/bin/sh' > .git/hooks/post-checkout; chmod +x .git/hooks/post-checkout; git config core.fsmonitor 'touch /tmp/x #'",
        "mkdir -p deep/.git && echo x > deep/.git/config; mkfifo pipe; chmod 4755 add.sh",
        FIX,
        "git add -A; git commit -q -m hidden; git update-index --assume-unchanged add.sh; echo > \"$(printf 'line\\nbreak')\"",
    ];
    let Some((made, _)) = tries("tricks", &commands, &[("test_command", "sh test.sh")]).await else { return };
    let outcome = made.unwrap_or_else(|failure| panic!("{failure} {}", failure.log));
    let facts = PatchFacts::read(&outcome.facts);
    let changed = (facts.files_changed, facts.lines_added, facts.lines_removed);
    assert_eq!(changed, (1, 1, 1), "{}", outcome.content);
    assert!(
        outcome.content.starts_with("diff --git a/add.sh b/add.sh\nold mode 100644\nnew mode 100755\n"),
        "{}",
        outcome.content
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_command_is_stopped_and_the_work_goes_on() {
    let Some(shop) = Shop::open("slow", Runtime::Runc, [run("sleep 500; echo never"), run(FIX), "SUBMIT".into()]).await
    else {
        return;
    };
    let outcome = shop.makes(&[("test_command", "sh test.sh")]).await;
    assert!(outcome.is_ok(), "{outcome:?}");
    let asked = shop.model.asked();
    let told = &asked[1].messages.last().unwrap().content;
    assert!(told.starts_with("Command 1 of 12 was stopped after 20 s"), "{told}");
    shop.closes().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_takes_too_much_ends_the_work() {
    for (name, command) in [("memory", "tail -c 2000000000 /dev/zero | wc -c"), ("output", "yes")] {
        let Some((made, _)) = tries(name, &[command], &[]).await else { return };
        let failure = made.unwrap_err();
        // What is killed in a pipe may also just fail, and the model go on to submit nothing.
        assert!(
            failure.text.contains("took more time or memory, or wrote more")
                || failure.text.contains("changed nothing"),
            "{name}: {}",
            failure.text
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_circles_and_endless_work_end_and_tell_the_last_steps() {
    let numbered: Vec<Says> = (0..20).map(|number| run(&format!("echo {number}"))).collect();
    for (name, script, said, log) in [
        (
            "garbage",
            vec!["Sure!".into(), "I would run ls.".into(), "```python\n1\n```".into()],
            "could not be understood",
            "> Sure!",
        ),
        ("circles", vec![run("ls"); 9], "went in circles", "(exit code 0)"),
        ("steps", numbered, "used up its commands", "echo 12"),
    ] {
        let Some(shop) = Shop::open(name, Runtime::Runc, script).await else { return };
        let failure = shop.makes(&[]).await.unwrap_err();
        assert!(failure.text.contains(said), "{name}: {}", failure.text);
        assert!(failure.log.contains(log), "{name}: {}", failure.log);
        shop.closes().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_leaves_nothing_running() {
    let Some(shop) = Shop::open("cancel", Runtime::Runc, [run("ls"), Says::Hangs]).await else { return };
    let (market, customer) = market(&shop, Runtime::Runc, Terms::Hold).await;
    let mut posted = customer.post(&order(&shop, &customer, &[])).await;
    let invoice = posted.invoice().await;
    let paying = customer.begin_to_pay(&invoice);
    coinop::testing::market::within("the agent's second thought", shop.model.begun(2)).await;
    let cancellation = customer.codec.cancellation(posted.job, JobKind::PatchGen, jiff::Timestamp::now()).unwrap();
    customer.send(&cancellation).await;
    assert!(matches!(paying.await.unwrap(), Err(WalletError::PaymentFailed(_))));
    market.finish().await;
    shop.closes().await;
}
