//! Patches for an issue (kind 5932): the model is a script behind a real server's wire form, and everything else is real: its
//! commands run in a sandbox, on repositories from a git server, and what comes out is applied by git.

mod shop;
mod trials;

use std::process::Command;

use coinop::job::patch_gen::PatchFacts;
use coinop::job::{Code, JobKind, Terms};
use coinop::nip90::Order;
use coinop::sandbox::Runtime;
use coinop::testing::market::within;
use coinop::testing::scripted_model::Says;
use coinop::wallet::WalletError;

use shop::{FIX, PRICE, Shop, error, market, order, run};

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
async fn a_cancelled_job_leaves_nothing_running() {
    let Some(shop) = Shop::open("cancel", Runtime::Runc, [run("ls"), Says::Hangs]).await else { return };
    let (market, customer) = market(&shop, Runtime::Runc, Terms::Hold).await;
    let mut posted = customer.post(&order(&shop, &customer, &[])).await;
    let invoice = posted.invoice().await;
    let paying = customer.begin_to_pay(&invoice);
    within("the agent's second thought", shop.model.begun(2)).await;
    let cancellation = customer.codec.cancellation(posted.job, JobKind::PatchGen, jiff::Timestamp::now()).unwrap();
    customer.send(&cancellation).await;
    assert!(matches!(paying.await.unwrap(), Err(WalletError::PaymentFailed(_))));
    market.finish().await;
    shop.closes().await;
}

/// In the image that operators build: what the repository's own tools say counts.
async fn a_good_patch_in_the_default_image(name: &str, runtime: Runtime) {
    let script = [
        run("make check"),
        run(
            "python3 - <<'END'\nfrom pathlib import Path\nfile = Path('sum.c')\nfile.write_text(file.read_text().replace(' + 1;', ';'))\nEND\nmake check && rm sum",
        ),
        "SUBMIT".into(),
    ];
    let Some(shop) = Shop::with_tools(name, runtime, script).await else { return };
    let (market, customer) = market(&shop, runtime, Terms::Hold).await;
    let mut posted = customer.post(&order(&shop, &customer, &[("test_command", "make check")])).await;
    let paying = customer.begin_to_pay(&posted.invoice().await);
    let result = posted.result().await;
    paying.await.unwrap().unwrap();
    assert!(shop.model.asked()[1].messages.last().unwrap().content.contains("AssertionError"));
    let facts = PatchFacts::read(&result.receipt.facts);
    assert_eq!((facts.test_exit_code, facts.files_changed, facts.lines_added), (Some(0), 1, 1), "{}", result.content);
    assert!(std::fs::read_to_string(shop.apply(&result.content).path().join("sum.c")).unwrap().contains("atoi(v[2]);"));
    market.finish().await;
    shop.closes().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_patch_is_made_in_the_image_that_operators_build() {
    a_good_patch_in_the_default_image("tools", Runtime::Runc).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_patch_is_made_in_the_image_that_operators_build_under_gvisor_too() {
    a_good_patch_in_the_default_image("tools-gvisor", Runtime::Runsc).await;
}
