//! What is wrong on the machine that orders: said before anybody is asked, or, when it was paid by then, with where the
//! result still is.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use coinop::executor::{Executor, Prepared};
use coinop::inference::TextSink;
use coinop::job::{Failure, JobKind, JobRequest, Outcome, Refusal, Terms};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::shop::{Canned, market, order, out, run_result, selling};
use crate::buying::{Shopper, err};

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_wrong_here_is_said_before_anybody_is_asked() {
    let executor = Canned::delivering(&run_result(0, "", "", &json!([])), &[]);
    let (market, shopper) = market(JobKind::SandboxRun, &executor, Terms::Free).await;
    let full = shopper.path().join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("mine"), "mine").unwrap();
    for (args, told) in [
        (vec!["sandbox", "--no-repo", "--cmd", "x", "--out", full.to_str().unwrap()], "is not empty"),
        (vec!["sandbox", "--no-repo", "--cmd", " "], "a command is empty"),
        (vec!["sandbox", "--cmd", "x"], "is in no git repository"),
        (vec!["sandbox", "--cmd", "x", "--repo", "/srv/git/x"], "it is on this machine"),
        (vec!["review"], "no working tree"),
        (vec!["patch", "fix it", "--repo", "https://example.com/a/b", "--apply"], "no working tree"),
        (vec!["hello", "sandbox", "--cmd", "x"], ""),
    ] {
        let refused = order(&shopper, &args).await;
        assert!(matches!(refused.status.code(), Some(1 | 2)), "{args:?}: {}", err(&refused));
        assert!(err(&refused).contains(told) && !err(&refused).contains("Posted"), "{args:?}: {}", err(&refused));
    }
    let (no_file, no_folder) = (full.join("missing"), full.join("mine/below"));
    let (no_file, no_folder) = (no_file.to_str().unwrap(), no_folder.to_str().unwrap());
    let address = "https://example.com/a/b";
    for (args, told) in [
        (vec!["review", "--diff", no_file], "the diff can't be read"),
        (vec!["review", "--diff", full.to_str().unwrap()], "the diff can't be read"),
        (vec!["review", "--repo", address, "--file", "a", "--guidelines", no_file], "the guidelines can't be read"),
        (vec!["patch", "fix it", "--repo", address, "--context", no_file], "the context can't be read"),
        (vec!["sandbox", "--no-repo", "--cmd", "x", "--memory", "2GB"], "MiB as a whole number, such as 2048"),
        (vec!["sandbox", "--no-repo", "--cmd", "x", "--out", no_folder], "can't be written"),
        (vec!["sandbox", "--no-repo", "--cmd", "x", "--out", "/proc/coinop"], "can't be written"),
        (vec!["sandbox", "--no-repo", "--cmd", "x", "--receipt", no_folder], "can't be written"),
    ] {
        let refused = order(&shopper, &args).await;
        assert_eq!(refused.status.code(), Some(2), "{args:?}: {}", err(&refused));
        assert!(err(&refused).contains(told) && !err(&refused).contains("Posted"), "{args:?}: {}", err(&refused));
    }
    assert_eq!(executor.asked.lock().unwrap().len(), 0);
    market.finish().await;
}

/// Takes the place of a folder while its job is at work.
struct InTheWay {
    result: Arc<Canned>,
    folder: Mutex<PathBuf>,
}

#[async_trait]
impl Executor for InTheWay {
    async fn prepare(&self, request: &JobRequest) -> Result<Prepared, Refusal> {
        self.result.prepare(request).await
    }

    async fn run(
        &self,
        prepared: &Prepared,
        sink: Option<TextSink>,
        cancel: &CancellationToken,
    ) -> Result<Outcome, Failure> {
        fs::write(&*self.folder.lock().unwrap(), "a file").unwrap();
        self.result.run(prepared, sink, cancel).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_can_not_be_written_after_it_was_paid_says_where_it_still_is() {
    let result = Canned::delivering(&run_result(0, "fine\n", "", &json!([])), &[]);
    let executor = Arc::new(InTheWay { result, folder: Mutex::default() });
    let market = selling(JobKind::SandboxRun, executor.clone(), Terms::Prepay).start().await;
    let shopper = Shopper::at(&market, "").await;
    let folder = shopper.path().join("out");
    executor.folder.lock().unwrap().clone_from(&folder);
    let bought = order(&shopper, &["sandbox", "--no-repo", "--cmd", "x", "--out", folder.to_str().unwrap()]).await;
    assert_eq!(bought.status.code(), Some(1), "{}", err(&bought));
    assert_eq!(out(&bought), "fine\n", "it is shown all the same");
    for told in ["can't be made", "on the relays as event", "coinop payments receipt"] {
        assert!(err(&bought).contains(told), "{told}: {}", err(&bought));
    }
    market.finish().await;
}
