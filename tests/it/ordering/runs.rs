//! Runs: what goes out, what is written where, and what a provider may not do with it.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use coinop::job::{Code, Failure, JobKind, Terms};
use serde_json::{Value, json};

use super::shop::{Canned, artifact, market, order, out, pairs, read, run_result};
use crate::buying::err;

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_ordered_and_everything_of_it_is_written_down() {
    let content = run_result(0, "fine\n", "a warning\n", &json!([artifact("build/app", b"\x7fELF")]));
    let executor = Canned::delivering(&content, &[]);
    let (market, shopper) = market(JobKind::SandboxRun, &executor, Terms::Prepay).await;
    let folder = shopper.path().join("out");
    let args = ["sandbox", "--no-repo", "--cmd", "make test", "--env", "Path=a=b", "--time", "90s"];
    let place = folder.to_str().unwrap().to_owned();
    let bought = order(&shopper, &[&args[..], &["--artifact", "build/app", "--out", &place]].concat()).await;
    assert!(bought.status.success(), "{}", err(&bought));

    assert_eq!(executor.asked().kind, JobKind::SandboxRun);
    assert_eq!(executor.inputs(), []);
    let params = [("cmd_0", "make test"), ("env", "Path=a=b"), ("max_time_secs", "90"), ("artifact_0", "build/app")];
    assert_eq!(executor.params(), pairs(&params));

    assert_eq!(out(&bought), "fine\n");
    for told in ["make test", "1.2 s", "a warning", "the hash of 1 artifact", "cost 21 sat"] {
        assert!(err(&bought).contains(told), "{told}: {}", err(&bought));
    }
    assert_eq!(read(folder.join("result.json")), content);
    assert_eq!(read(folder.join("commands/0.stdout")), "fine\n");
    assert_eq!(read(folder.join("commands/0.stderr")), "a warning\n");
    assert_eq!(fs::read(folder.join("artifacts/build/app")).unwrap(), b"\x7fELF");
    let receipt: Value = serde_json::from_str(&read(folder.join("receipt.json"))).unwrap();
    assert_eq!(receipt["payment"]["amount_msat"], 21_000);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs::metadata(folder.join("receipt.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "the proof of a payment is nobody else's");
    }
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_failed_is_a_result_and_its_code_is_passed_on_when_wanted() {
    let executor = Canned::delivering(&run_result(3, "", "2 tests failed", &json!([])), &[]);
    let (market, shopper) = market(JobKind::SandboxRun, &executor, Terms::Free).await;
    let args = ["sandbox", "--no-repo", "--cmd", "make test"];
    let bought = order(&shopper, &args).await;
    assert_eq!(bought.status.code(), Some(0), "{}", err(&bought));
    assert!(err(&bought).contains("2 tests failed"));
    let more = order(&shopper, &[&args[..], &["--cmd", "make install"]].concat()).await;
    let told = err(&more);
    let line = told.lines().find(|line| line.contains("make install")).unwrap_or_else(|| panic!("{told}"));
    assert!(line.contains("not run"), "{told}");
    let passed_on = order(&shopper, &[&args[..], &["--exit-code", "--json"]].concat()).await;
    assert_eq!(passed_on.status.code(), Some(3), "{}", err(&passed_on));
    let printed: Value = serde_json::from_str(&out(&passed_on)).unwrap();
    assert_eq!((&printed["result"]["exit_code"], &printed["content"]), (&3.into(), &Value::Null));
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_s_paths_lead_nowhere_else_and_its_lies_are_found_out() {
    let mut other = artifact("other", b"x");
    other["data"] = BASE64_STANDARD.encode(b"y").into();
    let hostile = json!([
        artifact("../escaped", b"x"),
        artifact("/tmp/coinop-escaped", b"x"),
        artifact("a/../../../escaped", b"x"),
        artifact("kept", b"x"),
        other,
    ]);
    let executor = Canned::delivering(&run_result(0, "fine\n", "", &hostile), &[]);
    let (market, shopper) = market(JobKind::SandboxRun, &executor, Terms::Free).await;
    let folder = shopper.path().join("deep/out");
    let bought = order(&shopper, &["sandbox", "--no-repo", "--cmd", "x", "--out", folder.to_str().unwrap()]).await;
    assert_eq!(bought.status.code(), Some(1), "{}", err(&bought));
    assert!(err(&bought).contains("is not what the provider says"), "{}", err(&bought));
    assert_eq!(out(&bought), "fine\n", "it is shown all the same");
    let kept: Vec<String> = fs::read_dir(folder.join("artifacts"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(kept, ["kept"]);
    assert!(!shopper.path().join("deep/escaped").exists() && !shopper.path().join("escaped").exists());
    assert!(!Path::new("/tmp/coinop-escaped").exists());
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_job_shows_the_end_of_its_log() {
    let failure =
        Failure::new(Code::BadRequest, "the run did not end as expected").with_log("line 1\nassertion failed\n");
    let executor = Canned::failing(failure);
    let (market, shopper) = market(JobKind::SandboxRun, &executor, Terms::Hold).await;
    let failed = order(&shopper, &["sandbox", "--no-repo", "--cmd", "make test", "--expect-exit", "0"]).await;
    assert_eq!(failed.status.code(), Some(6), "{}", err(&failed));
    for told in ["did not end as expected", "line 1\nassertion failed\n", "nothing was paid"] {
        assert!(err(&failed).contains(told), "{told}: {}", err(&failed));
    }
    assert_eq!(err(&failed).matches("did not end as expected").count(), 1, "said once: {}", err(&failed));
    assert!(err(&failed).contains("failed (bad-request).") && !err(&failed).contains("refused"), "{}", err(&failed));
    market.finish().await;
}
