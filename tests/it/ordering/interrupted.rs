//! An order that is interrupted while the job runs.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use async_trait::async_trait;
use coinop::executor::{Executor, Prepared};
use coinop::inference::TextSink;
use coinop::job::{Canceller, Code, Failure, JobKind, JobRequest, Outcome, PaymentState, Refusal, Terms, WorkState};
use coinop::money::Msat;
use coinop::testing::market::within;
use serde_json::Value;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::shop::{Canned, PRICE, command_in, selling};
use crate::buying::{Shopper, ended, err, run, signal};

/// Works until it is told to stop.
#[derive(Default)]
struct Endless {
    began: Notify,
}

#[async_trait]
impl Executor for Endless {
    async fn prepare(&self, request: &JobRequest) -> Result<Prepared, Refusal> {
        Canned::delivering("", &[]).prepare(request).await
    }

    async fn run(&self, _: &Prepared, _: Option<TextSink>, cancel: &CancellationToken) -> Result<Outcome, Failure> {
        self.began.notify_one();
        cancel.cancelled().await;
        Err(Failure::new(Code::Cancelled, "told to stop"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_interrupted_while_the_job_runs_is_called_off_and_the_money_is_told_of() {
    for (terms, name, told, payment, credit, state) in [
        (Terms::Hold, "INT", "came back: nothing was paid", PaymentState::Released, Msat::ZERO, "failed"),
        (Terms::Prepay, "INT", "21 sat became credit", PaymentState::Settled, PRICE, "paid"),
        (Terms::Prepay, "TERM", "21 sat became credit", PaymentState::Settled, PRICE, "paid"),
    ] {
        let executor = Arc::new(Endless::default());
        let market = selling(JobKind::SandboxRun, executor.clone(), terms).start().await;
        let shopper = Shopper::at(&market, "").await;
        let args = ["sandbox", "--no-repo", "--cmd", "make test"];
        let ordering = command_in(shopper.path(), &shopper, &args).spawn().unwrap();
        within("the run", executor.began.notified()).await;
        signal(&ordering, name);
        let called_off = ended(ordering).await;
        assert_eq!(called_off.status.code(), Some(130), "{terms}: {}", err(&called_off));
        for told in ["Calling the order off", "cancelled as you asked", told] {
            assert!(err(&called_off).contains(told), "{terms}, {told}: {}", err(&called_off));
        }

        if terms == Terms::Hold {
            market.moments().told_in_all("hold-released", 1).await;
        }
        let store = market.service().provider().store();
        let jobs = store.list_jobs(Default::default()).await.unwrap();
        let [job] = jobs.as_slice() else { panic!("{} jobs", jobs.len()) };
        let ended = (job.work, job.payment, job.cancelled_by);
        assert_eq!(ended, (WorkState::Cancelled, payment, Some(Canceller::Customer)), "{terms}");
        assert_eq!(store.credit(job.customer).await.unwrap(), credit, "{terms}");
        let listed = run(shopper.command(&["payments", "list", "--json"])).await;
        let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
        assert_eq!(listed["payments"][0]["state"], state, "{terms}");
        market.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_on_credit_that_is_interrupted_says_that_the_credit_is_there_again() {
    let executor = Arc::new(Endless::default());
    let market = selling(JobKind::SandboxRun, executor.clone(), Terms::Prepay).start().await;
    let shopper = Shopper::at(&market, "").await;
    // Credit belongs to a key.
    let password = shopper.path().join("pw");
    fs::write(&password, "orbit velvet tundra seven").unwrap();
    let with_password = |mut command: Command| {
        command.arg("--password-file").arg(&password);
        command
    };
    let made = run(with_password(shopper.command(&["identity", "new"]))).await;
    assert!(made.status.success(), "{}", err(&made));

    // Two orders: the same one in the same second would be one event.
    for (wanted, told, denied) in
        [("make one", "21 sat was paid", "is credit again"), ("make two", "is credit again", "nothing was paid")]
    {
        let args = ["sandbox", "--no-repo", "--cmd", wanted];
        let ordering = with_password(command_in(shopper.path(), &shopper, &args)).spawn().unwrap();
        within("the run", executor.began.notified()).await;
        signal(&ordering, "INT");
        let called_off = err(&ended(ordering).await);
        assert!(called_off.contains("21 sat became credit"), "{called_off}");
        assert!(called_off.contains(told) && !called_off.contains(denied), "{called_off}");
    }
    market.finish().await;
}
