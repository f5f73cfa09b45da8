use super::*;
use crate::fetch::FetchError;
use crate::job::sandbox_run::{CommandEnd, MissingArtifact, RunEnvironment, RunUsage};

fn command(stdout: &str, exit_code: i64) -> CommandResult {
    let hash = |text: &str| sha256::Hash::hash(text.as_bytes()).to_string();
    CommandResult {
        command: "make test".into(),
        exit_code,
        stdout: stdout.into(),
        stderr: String::new(),
        stdout_sha256: hash(stdout),
        stderr_sha256: hash(""),
        duration_ms: 1_234,
        timed_out: false,
        ended: CommandEnd::Exited,
    }
}

fn artifact(path: &str, content: &[u8]) -> Artifact {
    Artifact {
        path: path.into(),
        sha256: sha256::Hash::hash(content).to_string(),
        size: content.len() as u64,
        sealed: None,
        url: None,
        data: Some(BASE64_STANDARD.encode(content)),
        why: None,
    }
}

fn result(commands: Vec<CommandResult>, artifacts: Vec<Artifact>) -> RunResult {
    RunResult {
        exit_code: commands.last().map_or(0, |command| command.exit_code),
        stdout: String::new(),
        stderr: String::new(),
        command_results: commands,
        artifacts,
        missing_artifacts: vec![MissingArtifact { path: "nowhere".into(), why: "there is no such file".into() }],
        usage: RunUsage::default(),
        env: RunEnvironment { image_digest: "sha256:0".into(), runtime: "runsc".into() },
    }
}

fn delivered(result: &RunResult, passes_code: bool) -> Delivery {
    deliver(&serde_json::to_string(result).unwrap(), result, &[], Fetched::new(), passes_code)
}

fn paths(delivery: &Delivery) -> Vec<&str> {
    delivery.files.iter().map(|file| file.path.as_str()).collect()
}

#[test]
fn a_run_is_written_as_the_provider_reads_it() {
    use clap::Parser as _;
    #[derive(clap::Parser)]
    struct Typed {
        #[command(flatten)]
        args: SandboxArgs,
    }
    let typed = ["coinop", "--cmd", "make", "--cmd", "make test", "--no-repo", "--env", "Path=a=b", "--time", "90s"];
    let more = ["--memory", "64", "--cpus", "0.5", "--artifact", "out/x", "--expect-exit", "3", "--workdir", "sub"];
    let args = Typed::parse_from(typed.into_iter().chain(more)).args;
    let mut wanted = Wanted::of(JobKind::SandboxRun);
    args.put_params(&mut wanted);
    let written: Vec<(&str, &str)> = wanted.params.iter().map(|(key, values)| (key, values[0].as_str())).collect();
    let expected = [
        ("cmd_0", "make"),
        ("cmd_1", "make test"),
        ("workdir", "sub"),
        ("env", "Path=a=b"),
        ("max_time_secs", "90"),
        ("max_memory_mb", "64"),
        ("max_cpu_cores", "0.5"),
        ("artifact_0", "out/x"),
        ("expect_exit", "3"),
    ];
    assert_eq!(written, expected);
    assert_eq!(wanted.time_limit, Some(Duration::from_secs(90)));
    let read =
        wanted.read_with(|request| crate::job::sandbox_run::SandboxRun::parse(request, &SandboxRunLimits::default()));
    assert_eq!(read.unwrap().env, [("Path".to_owned(), "a=b".to_owned())]);
}

#[test]
fn what_the_commands_wrote_is_shown_and_kept() {
    let delivery = delivered(&result(vec![command("one", 0), command("two\n", 2)], vec![artifact("a/b", b"x")]), false);
    assert_eq!(delivery.shown, "one\ntwo\n");
    assert!(delivery.told.contains("make test") && delivery.told.contains("1.2 s"), "{}", delivery.told);
    assert!(delivery.told.contains("Not returned: nowhere: there is no such file"));
    let files = ["result.json", "commands/0.stdout", "commands/0.stderr", "commands/1.stdout", "commands/1.stderr"];
    assert_eq!(paths(&delivery), [&files[..], &["artifacts/a/b"]].concat());
    assert_eq!(
        delivery.checks,
        [Check::of("the hashes of 2 outputs", true), Check::of("the hash of 1 artifact", true)]
    );
    assert_eq!(delivery.code, 0, "a command that failed is a result");
}

#[test]
fn commands_behind_one_that_failed_are_told_as_not_run() {
    let asked = ["make test", "make install", "make clean"].map(str::to_owned);
    let told = commands_table(&[command("", 2)], &asked);
    let not_run: Vec<&str> = told.lines().filter(|line| line.contains("not run")).collect();
    assert!(matches!(&not_run[..], [first, second] if first.contains("make install") && second.contains("make clean")));
    assert!(!commands_table(&[command("", 0), command("", 0), command("", 0)], &asked).contains("not run"));
}

#[test]
fn an_artifact_that_the_provider_keeps_is_told_of_in_a_line() {
    let kept =
        |path: &str, why: Option<&str>| Artifact { data: None, why: why.map(str::to_owned), ..artifact(path, b"x") };
    let artifacts = vec![kept("big\n.bin", Some("the file server is full")), kept("other", None)];
    let told = delivered(&result(vec![command("", 0)], artifacts), false).told;
    assert!(told.contains("Not returned: big.bin: the file server is full\n"), "{told}");
    assert!(told.contains("Not returned: other: the provider does not say why\n"), "{told}");
    assert_eq!(told.matches("the file server is full").count(), 1, "{told}");
}

#[test]
fn an_artifact_that_leads_elsewhere_or_is_another_is_never_written() {
    let mut other = artifact("kept", b"x");
    other.data = Some(BASE64_STANDARD.encode(b"y"));
    let mut broken = artifact("broken", b"x");
    broken.data = Some("no base64".into());
    let mut longer = artifact("longer", b"x");
    longer.size = 2;
    let hostile = ["../../.ssh/authorized_keys", "/etc/passwd", "a/../../b", "", "a\0b", "a\nb"];
    let hostile = hostile.map(|path| artifact(path, b"x"));
    let all: Vec<Artifact> = hostile.into_iter().chain([other, broken, longer]).collect();
    let delivery = delivered(&result(vec![command("", 0)], all), false);
    assert!(paths(&delivery).iter().all(|path| !path.starts_with("artifacts")), "{:?}", paths(&delivery));
    assert_eq!(delivery.checks.iter().filter(|check| **check == Check::of(check.what(), false)).count(), 9);
}

#[test]
fn what_was_fetched_is_kept_like_what_came_in_the_result() {
    let elsewhere =
        |path: &str| Artifact { url: Some("https://example.com/0".into()), data: None, ..artifact(path, b"x") };
    let result = result(vec![command("", 0)], vec![elsewhere("big"), elsewhere("../up"), elsewhere("gone")]);
    let fetched: Fetched = [(0, Ok(b"x".to_vec())), (1, Ok(b"x".to_vec())), (2, Err(BlossomError::OtherFile))].into();
    let delivery = deliver("{}", &result, &[], fetched, false);
    assert_eq!(paths(&delivery).last(), Some(&"artifacts/big"));
    let failed: Vec<&Check> = delivery.checks.iter().filter(|check| check.what().contains("is not kept")).collect();
    assert_eq!(failed.len(), 2, "{failed:?}");
}

#[test]
fn what_could_not_be_fetched_says_where_it_is() {
    let open = Artifact { url: Some("https://example.com/0".into()), data: None, ..artifact("open", b"x") };
    let seal = SealedFile {
        encryption_algorithm: "aes-gcm".into(),
        decryption_key: "0".repeat(64),
        decryption_nonce: "0".repeat(24),
        sha256: "0".repeat(64),
        size: 17,
    };
    let sealed = Artifact { sealed: Some(seal), path: "sealed".into(), ..open.clone() };
    let result = result(vec![command("", 0)], vec![open, sealed]);
    let gone = || Err(BlossomError::from(FetchError::Unreachable));
    let delivery = deliver("{}", &result, &[], [(0, gone()), (1, gone())].into(), false);
    assert!(!paths(&delivery).iter().any(|path| path.starts_with("artifacts")));
    let told: Vec<&str> = delivery.checks.iter().filter(|c| c.is_unfetched()).map(Check::what).collect();
    assert_eq!(
        told,
        [
            "the artifact 'open' could not be fetched: the URL could not be reached; its address is in result.json",
            "the artifact 'sealed' could not be fetched: the URL could not be reached; its address and key are in \
             result.json",
        ]
    );
}

#[test]
fn the_job_s_own_exit_code_is_passed_on_when_that_is_wanted() {
    let coded = |code: i64| delivered(&result(vec![command("", code)], Vec::new()), true).code;
    assert_eq!((coded(0), coded(7), coded(-1), coded(256)), (0, 7, 1, 1));
    let mut late = command("", 137);
    late.timed_out = true;
    assert_eq!(delivered(&result(vec![late], Vec::new()), true).code, TIMED_OUT);
}
