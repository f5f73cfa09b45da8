//! Runs (kind 5930) on a real engine: bought, paid, cancelled, failed and refused, and afterwards nothing is left of them.

mod killed;
mod shop;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use coinop::blossom::{Blob, BlossomConfig, Seal, fetch};
use coinop::fetch::{FetchLimits, Fetcher};
use coinop::job::sandbox_run::{CommandEnd, SealedFile};
use coinop::job::{Code, Encryption, InputKind, Rates, Terms};
use coinop::money::Msat;
use coinop::nip90::Order;
use coinop::sandbox::Runtime;
use coinop::testing::blossom_server::BlossomServer;
use coinop::testing::engine::IMAGE;
use coinop::testing::git_server::GitServer;
use coinop::testing::market::POCKET_MONEY;
use nostr::hashes::{Hash, sha256};

use shop::{Shop, fact, read};

/// The price of every run here: 10 sat and one for each second.
const RATES: Rates = Rates { base: Msat::sat(10), per_second: Msat::sat(1), ..Rates::FREE };

async fn bought_on(runtime: Runtime) {
    let Some(shop) = Shop::open(runtime, Terms::Prepay).await else { return };
    let Some(git) = GitServer::start().await else { return };
    let repository = git.repository("hello");
    repository
        .write("hello.txt", "hello from the repository\n")
        .write("tools/build.sh", "mkdir -p out && echo $GREETING > out/built");
    let commit = repository.commit("the files");
    let mut order = shop.order(&[
        ("cmd_0", "cat hello.txt; echo aside >&2"),
        ("cmd_1", "sh tools/build.sh && test \"$(id -u)\" != 0"),
        ("env_greeting", "good morning"),
        ("artifact", "out"),
        ("max_time_secs", "100"),
        ("max_memory_mb", "64"),
        ("expect_exit", "0"),
    ]);
    order.inputs = vec![shop::repository(&git.http_url("hello"))];
    let mut posted = shop.customer.post(&order).await;
    let invoice = posted.invoice().await;
    assert_eq!(invoice.amount, Msat::sat(110));
    shop.customer.pay(&invoice).await.unwrap();
    let result = posted.result().await;
    let run = read(&result);
    assert_eq!(run.exit_code, 0, "{run:?}");
    assert_eq!(run.command_results[0].stdout, "hello from the repository\n");
    assert_eq!(run.command_results[0].stderr, "aside\n");
    let hash = sha256::Hash::hash(b"hello from the repository\n").to_string();
    assert_eq!(run.command_results[0].stdout_sha256, hash);
    let [built] = &run.artifacts[..] else { panic!("{:?}", run.artifacts) };
    assert_eq!((built.path.as_str(), built.size), ("out/built", 13));
    assert_eq!(STANDARD.decode(built.data.as_ref().unwrap()).unwrap(), b"good morning\n");
    assert_eq!(run.env.runtime, runtime.word());
    assert_eq!(run.usage.network_bytes, 0);
    // The receipt says the same, and what was not used became credit.
    assert_eq!(fact(&result, "commit"), commit.as_str());
    assert_eq!(fact(&result, "runtime"), runtime.word());
    assert_eq!(fact(&result, "image_digest"), run.env.image_digest);
    let (paid, credit) = (result.receipt.paid.unwrap(), result.receipt.credit.unwrap());
    assert!(paid > Msat::sat(10) && paid < Msat::sat(100), "{paid}");
    assert_eq!(paid.checked_add(credit).unwrap(), Msat::sat(110));
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paid_run_in_gvisor_is_delivered_with_its_receipt() {
    bought_on(Runtime::Runsc).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paid_run_in_runc_is_delivered_with_its_receipt() {
    bought_on(Runtime::Runc).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_is_settled_when_the_run_ends_as_asked() {
    let Some(shop) = Shop::open(Runtime::Runc, Terms::Hold).await else { return };
    let mut posted = shop.customer.post(&shop.order(&[("cmd", "exit 3"), ("expect_exit", "3")])).await;
    let invoice = posted.invoice().await;
    let paying = shop.customer.begin_to_pay(&invoice);
    assert_eq!(read(&posted.result().await).exit_code, 3);
    paying.await.unwrap().unwrap();
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_goes_back_with_the_reason_and_the_log_when_it_does_not() {
    let Some(shop) = Shop::open(Runtime::Runc, Terms::Hold).await else { return };
    let order = shop.order(&[("cmd", "echo 12 passed; echo 1 failed >&2; exit 1"), ("expect_exit", "0")]);
    let mut posted = shop.customer.post(&order).await;
    let invoice = posted.invoice().await;
    let paying = shop.customer.begin_to_pay(&invoice);
    let refusal = posted.refusal().await;
    assert!(paying.await.unwrap().is_err());
    assert_eq!(shop.customer.wallet.funds().unwrap(), POCKET_MONEY);
    assert_eq!(refusal.code, Code::BadRequest);
    assert!(refusal.text.contains("ended with exit code 1, not with 0 as asked"), "{}", refusal.text);
    assert!(refusal.log.contains("12 passed") && refusal.log.ends_with("1 failed\n"), "{}", refusal.log);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepaid_run_that_does_not_becomes_credit() {
    let Some(shop) = Shop::open(Runtime::Runc, Terms::Prepay).await else { return };
    let mut posted = shop.customer.post(&shop.order(&[("cmd", "false"), ("expect_exit", "0")])).await;
    let invoice = posted.invoice().await;
    shop.customer.pay(&invoice).await.unwrap();
    let refusal = posted.refusal().await;
    assert!(refusal.text.contains("became credit"), "{}", refusal.text);
    assert_eq!(shop.credit().await, invoice.amount);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_without_an_expectation_is_charged_however_it_ends() {
    let Some(shop) = Shop::open(Runtime::Runc, Terms::Prepay).await else { return };
    let run = read(&shop.buy(&shop.order(&[("cmd_0", "echo a; exit 7"), ("cmd_1", "echo never")])).await);
    assert_eq!((run.exit_code, run.stdout.as_str(), run.command_results.len()), (7, "a\n", 1));
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_cancelled_is_killed_and_given_back() {
    for terms in [Terms::Prepay, Terms::Hold] {
        let Some(shop) = Shop::open(Runtime::Runc, terms).await else { return };
        let mut news = shop.engine.commands(&shop.instance);
        let mut posted = shop.customer.post(&shop.order(&[("cmd", "sleep 1000")])).await;
        let invoice = posted.invoice().await;
        let paying = shop.customer.begin_to_pay(&invoice);
        news.begun_by(posted.job).await;
        shop.customer.cancel(posted.job).await;
        assert_eq!(posted.refusal().await.code, Code::Cancelled);
        let paid = paying.await.unwrap();
        match terms {
            Terms::Hold => assert!(paid.is_err()),
            _ => assert_eq!(shop.credit().await, invoice.amount),
        }
        // Nobody waits for a thousand seconds: the market closes at once.
        shop.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_out_of_time_or_memory_says_so_and_is_charged() {
    let Some(shop) = Shop::open(Runtime::Runc, Terms::Prepay).await else { return };
    let order = shop.order(&[
        ("cmd_0", "echo begun; echo kept > kept; sleep 1000"),
        ("cmd_1", "echo never"),
        ("max_time_secs", "5"),
        ("artifact", "kept"),
    ]);
    let result = shop.buy(&order).await;
    let run = read(&result);
    assert_eq!((run.exit_code, run.stdout.as_str()), (137, "begun\n"));
    let [only] = &run.command_results[..] else { panic!("{run:?}") };
    assert_eq!((only.timed_out, only.ended), (true, CommandEnd::TimedOut));
    // What was written before is returned all the same.
    let [kept] = &run.artifacts[..] else { panic!("{run:?}") };
    assert_eq!(STANDARD.decode(kept.data.as_ref().unwrap()).unwrap(), b"kept\n");
    // The whole time was used, and no more is charged.
    assert_eq!(result.receipt.paid, Some(Msat::sat(15)));

    let hungry = "x=a; while true; do x=$x$x; done";
    let run = read(&shop.buy(&shop.order(&[("cmd_0", hungry), ("max_memory_mb", "32")])).await);
    assert_eq!((run.exit_code, run.command_results[0].ended), (137, CommandEnd::OutOfMemory), "{run:?}");
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_run_is_refused_before_anything_is_paid() {
    let Some(shop) = Shop::open(Runtime::Runc, Terms::Prepay).await else { return };
    let Some(git) = GitServer::start().await else { return };
    git.repository("there").write("a", "b").commit("a file");
    git.repository("empty");
    let asks = |params: &[(&str, &str)], url: Option<&str>| {
        let mut order = shop.order(params);
        order.inputs = url.map(|url| shop::repository(&git.http_url(url))).into_iter().collect();
        order
    };
    let command = ("cmd", "true");
    let many: Vec<(&str, &str)> = vec![command; 65];
    for (order, code, reason) in [
        (asks(&[command, ("max_time_secs", "99999")], None), Code::BadRequest, "param max_time_secs: 99999 is above"),
        (asks(&[command, ("max_memory_mb", "99999")], None), Code::BadRequest, "param max_memory_mb: 99999 is above"),
        (asks(&[command, ("image", "windows")], None), Code::Unsupported, "param image: there is no 'windows' here"),
        (asks(&[command, ("allow_network", "true")], None), Code::Unsupported, "param allow_network: runs have no"),
        (asks(&many, None), Code::BadRequest, "param cmd: more than 64 entries"),
        (asks(&[], None), Code::BadRequest, "the request has no command"),
        (asks(&[command], Some("gone")), Code::BadRequest, "input repo: there is no repository"),
        (asks(&[command], Some("private/there")), Code::BadRequest, "input repo: there is no repository"),
        (asks(&[command], Some("empty")), Code::BadRequest, "input repo: the repository is empty"),
        (
            asks(&[command, ("git_ref", "nobody")], Some("there")),
            Code::BadRequest,
            "param git_ref: the repository has no",
        ),
    ] {
        let mut posted = shop.customer.post(&order).await;
        let refusal = posted.refusal().await;
        assert_eq!(refusal.code, code, "{}", refusal.text);
        assert!(refusal.text.starts_with(reason), "{}", refusal.text);
        let asked = posted.heard.iter().any(|answer| format!("{:?}", answer.body).contains("PaymentRequired"));
        assert!(!asked && shop.market.stored(posted.job).await.is_none(), "it was sold: {}", refusal.text);
    }
    assert!(shop.on_offer().await.contains(&IMAGE.to_owned()));
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_does_not_fit_is_paid_back() {
    let Some(shop) = Shop::open(Runtime::Runc, Terms::Prepay).await else { return };
    let Some(git) = GitServer::start().await else { return };
    let repository = git.repository("large");
    (0..3).for_each(|number| {
        let noise: Vec<u8> =
            (0..1_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8 ^ number).collect();
        repository.write(&format!("noise-{number}"), noise);
    });
    repository.commit("much");
    let mut order = shop.order(&[("cmd", "ls"), ("max_disk_mb", "2")]);
    order.inputs = vec![shop::repository(&git.http_url("large"))];
    let mut posted = shop.customer.post(&order).await;
    let invoice = posted.invoice().await;
    shop.customer.pay(&invoice).await.unwrap();
    let refusal = posted.refusal().await;
    assert!(refusal.text.starts_with("param max_disk_mb: the repository does not fit into 2 MiB"), "{}", refusal.text);
    assert_eq!(shop.credit().await, invoice.amount);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bid_makes_a_run_shorter_and_not_refused() {
    let Some(shop) = Shop::open(Runtime::Runc, Terms::Prepay).await else { return };
    let mut order = shop.order(&[("cmd", "echo short")]);
    order.bid = Some(Msat::sat(30));
    let mut posted = shop.customer.post(&order).await;
    let invoice = posted.invoice().await;
    assert_eq!(invoice.amount, Msat::sat(30));
    shop.customer.pay(&invoice).await.unwrap();
    assert_eq!(read(&posted.result().await).stdout, "short\n");
    order.params.push("max_time_secs", vec!["60".into()]);
    let refusal = shop.customer.post(&order).await.refusal().await;
    assert_eq!(refusal.code, Code::Price);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_comes_by_a_server_of_files() {
    let server = BlossomServer::start().await.unwrap();
    let Some(shop) = Shop::with_files(Runtime::Runc, Terms::Prepay, Some(BlossomConfig::new(server.url()))).await
    else {
        return;
    };
    let fetcher = Fetcher::new(FetchLimits { max_bytes: 1 << 20, allow_private: true, ..FetchLimits::default() });
    let params =
        [("cmd", "head -c 300000 /dev/zero > big; echo tiny > small"), ("artifact_0", "big"), ("artifact_1", "small")];
    for encryption in [None, Some(Encryption::Nip44)] {
        let run = read(&shop.buy(&Order { encryption, ..shop.order(&params) }).await);
        let [big, small] = &run.artifacts[..] else { panic!("{run:?}") };
        assert_eq!(STANDARD.decode(small.data.as_ref().unwrap()).unwrap(), b"tiny\n");
        // It is sold, so it lies there sealed.
        let sealed = big.sealed.as_ref().unwrap();
        assert_eq!((big.size, sealed.size), (300_000, 300_016));
        let SealedFile { encryption_algorithm, decryption_key, decryption_nonce, .. } = sealed;
        let seal = Seal::told(encryption_algorithm, decryption_key, decryption_nonce, &big.sha256);
        let blob = Blob { seal, ..Blob::told(big.url.as_ref().unwrap(), &sealed.sha256, sealed.size).unwrap() };
        assert_eq!(fetch(&fetcher, &blob).await.unwrap(), vec![0; 300_000]);
    }
    assert_eq!(server.uploads(), 2);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_in_confidence_is_answered_in_confidence() {
    let Some(shop) = Shop::open(Runtime::Runc, Terms::Hold).await else { return };
    let mut order = shop.order(&[("cmd", "echo the secret word; exit 1"), ("expect_exit", "0")]);
    order.encryption = Some(Encryption::Nip44);
    let mut posted = shop.customer.post(&order).await;
    let invoice = posted.invoice().await;
    let paying = shop.customer.begin_to_pay(&invoice);
    assert!(posted.refusal().await.log.contains("the secret word"));
    assert!(paying.await.unwrap().is_err());
    for event in shop.market.answers(posted.job).await {
        assert!(!serde_json::to_string(&event).unwrap().contains("secret"), "it is out in the clear");
    }
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_output_is_cut_and_the_job_is_delivered() {
    let Some(shop) = Shop::open(Runtime::Runc, Terms::Prepay).await else { return };
    let order = shop.order(&[("cmd", "echo BEGIN; head -c 3000000 /dev/zero | tr '\\0' 'x'; echo; echo END")]);
    let result = shop.buy(&order).await;
    assert_eq!(result.truncated, None);
    let run = read(&result);
    assert!(run.stdout.starts_with("BEGIN\n") && run.stdout.ends_with("END\n") && run.stdout.len() < 40_000);
    let all = format!("BEGIN\n{}\nEND\n", "x".repeat(3_000_000));
    assert_eq!(run.command_results[0].stdout_sha256, sha256::Hash::hash(all.as_bytes()).to_string());
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_that_keep_failing_for_nothing_are_refused() {
    let Some(shop) = Shop::open(Runtime::Runc, Terms::Hold).await else { return };
    let order = shop.order(&[("cmd", "false"), ("expect_exit", "0")]);
    for _ in 0..shop::GIVEN_AWAY {
        let mut posted = shop.customer.post(&order).await;
        let invoice = posted.invoice().await;
        let paying = shop.customer.begin_to_pay(&invoice);
        assert_eq!(posted.refusal().await.code, Code::BadRequest);
        assert!(paying.await.unwrap().is_err());
    }
    let mut posted = shop.customer.post(&order).await;
    assert_eq!(posted.refusal().await.code, Code::RateLimited);
    assert!(shop.market.stored(posted.job).await.is_none());
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_of_another_kind_of_input_is_no_run() {
    let Some(shop) = Shop::open(Runtime::Runc, Terms::Prepay).await else { return };
    let mut order = shop.order(&[("cmd", "true")]);
    order.inputs = shop.customer.order("make test").inputs;
    assert_eq!(order.inputs[0].kind, InputKind::Text);
    assert_eq!(shop.customer.post(&order).await.refusal().await.code, Code::Unsupported);
    // A broadcast that is not for us is met with silence.
    order.providers.clear();
    let posted = shop.customer.post(&order).await;
    shop.customer.ping().await;
    assert_eq!(shop.market.answers(posted.job).await.len(), 0);
    shop.close().await;
}
