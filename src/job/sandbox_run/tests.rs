use super::super::{Code, JobKind, Params};
use super::*;
use crate::testing::requests;

const LIMITS: SandboxRunLimits = SandboxRunLimits {
    max_commands: 64,
    max_command_bytes: 100,
    max_commands_bytes: 300,
    max_env: 3,
    max_env_bytes: 50,
    max_artifacts: 2,
    max_artifact_files: 10,
    max_artifact_bytes: 1_000,
    time: Bound { default: Duration::from_secs(300), max: Duration::from_secs(600) },
    memory_mib: Bound { default: 1_024, max: 2_048 },
    disk_mib: Bound { default: 512, max: 512 },
    milli_cpus: Bound { default: 1_000, max: 1_500 },
    pids: 64,
    result_bytes: 10_000,
};

fn request(inputs: Vec<Input>, params: &[(&str, &[&str])]) -> JobRequest {
    let mut list = Params::default();
    for (key, values) in params {
        list.push(key, values.iter().map(|value| (*value).to_owned()).collect());
    }
    JobRequest { inputs, params: list, ..requests::blank(JobKind::SandboxRun) }
}

fn input(kind: InputKind, data: &str) -> Input {
    Input { data: data.to_owned(), kind, relay: None, marker: None }
}

fn with(params: &[(&str, &[&str])]) -> Result<SandboxRun, Refusal> {
    let params: Vec<(&str, &[&str])> = [("cmd_0", &["true"][..])].into_iter().chain(params.iter().copied()).collect();
    SandboxRun::parse(&request(Vec::new(), &params), &LIMITS)
}

fn refused(params: &[(&str, &[&str])]) -> String {
    with(params).unwrap_err().text
}

#[test]
fn a_run_of_nothing_but_commands_takes_what_is_usual() {
    let run = SandboxRun::parse(&request(vec![], &[("command", &["make"]), ("command", &["make test"])]), &LIMITS);
    let expected = SandboxRun {
        repository: None,
        commands: vec!["make".into(), "make test".into()],
        workdir: None,
        env: vec![],
        image: None,
        time: None,
        memory_mib: 1_024,
        disk_mib: 512,
        milli_cpus: 1_000,
        artifacts: vec![],
        expect_exit: None,
    };
    assert_eq!(run.unwrap(), expected);
}

#[test]
fn everything_can_be_asked_in_either_name() {
    let mut asked = request(
        vec![input(InputKind::Url, "https://git.example/r")],
        &[
            ("cmd-1", &["b"]),
            ("cmd-0", &["a"]),
            ("repo_ref", &["v1"]),
            ("workdir", &["./crates/x/"]),
            ("env_rust_log", &["debug"]),
            ("env", &["Path=/bin=x"]),
            ("image", &["debian"]),
            ("timeout_secs", &["60"]),
            ("memory_mb", &["64"]),
            ("max_disk_mb", &["10"]),
            ("cpu_limit", &["1.25"]),
            ("allow_network", &["false"]),
            ("artifact_0", &["out/report.txt"]),
            ("artifact", &["dist"]),
            ("expect_exit", &["3"]),
        ],
    );
    asked.output = Some("application/json; charset=utf-8".into());
    let run = SandboxRun::parse(&asked, &LIMITS).unwrap();
    let repository = run.repository.unwrap();
    assert_eq!((repository.url.as_str(), repository.reference.as_deref()), ("https://git.example/r", Some("v1")));
    assert_eq!(run.commands, ["a", "b"]);
    assert_eq!(run.workdir.unwrap().as_str(), "crates/x");
    assert_eq!(run.env, [("RUST_LOG".into(), "debug".into()), ("Path".into(), "/bin=x".into())]);
    assert_eq!(run.image.as_deref(), Some("debian"));
    assert_eq!((run.time, run.memory_mib, run.disk_mib), (Some(Duration::from_secs(60)), 64, 10));
    assert_eq!((run.milli_cpus, run.expect_exit), (1_250, Some(3)));
    let artifacts: Vec<_> = run.artifacts.iter().map(RelativePath::as_str).collect();
    assert_eq!(artifacts, ["out/report.txt", "dist"]);
}

#[test]
fn what_is_above_the_limits_is_refused_with_the_limit() {
    for (key, value, most) in [
        ("max_time_secs", "601", "600 s"),
        ("max_memory_mb", "2049", "2048"),
        ("max_disk_mb", "513", "512"),
        ("max_cpu_cores", "1.501", "1.5"),
        ("max_cpu_cores", "99999999999999999999", "1.5"),
        ("expect_exit", "256", "255"),
    ] {
        let text = refused(&[(key, &[value])]);
        let expected = format!("param {key}: {value} is above this provider's limit: ask for at most {most}");
        assert_eq!(text, expected);
    }
}

#[test]
fn nothing_and_nonsense_are_refused_by_name() {
    for (key, junk) in [
        ("max_time_secs", "0"),
        ("max_memory_mb", "31"),
        ("max_memory_mb", "lots"),
        ("max_disk_mb", "0"),
        ("max_cpu_cores", "0"),
        ("max_cpu_cores", "0.0999"),
        ("max_cpu_cores", "NaN"),
        ("max_cpu_cores", "inf"),
        ("max_cpu_cores", "1."),
        ("max_cpu_cores", "-1"),
        ("max_cpu_cores", "1é1"),
        ("expect_exit", "-1"),
        ("workdir", "/etc"),
        ("workdir", "../x"),
        ("artifact_0", "/etc/shadow"),
        ("artifact_0", "a/../../b"),
        ("env_0", "x"),
        ("env_a.b", "x"),
        ("env", "no-equals-sign"),
        ("env", "=x"),
        ("env", "1A=x"),
        ("env_a", "zero\0byte"),
        ("allow_network", "perhaps"),
    ] {
        let refusal = with(&[(key, &[junk])]).unwrap_err();
        assert_eq!(refusal.code, Code::BadRequest, "{key} {junk}");
        assert!(refusal.text.starts_with(&format!("param {key}: ")), "{}", refusal.text);
    }
    assert_eq!(with(&[("workdir", &["."])]).unwrap().workdir, None);
}

#[test]
fn a_network_is_refused_and_not_silently_left_out() {
    let refusal = with(&[("allow_network", &["true"])]).unwrap_err();
    assert_eq!(refusal.code, Code::Unsupported);
    assert!(refusal.text.starts_with("param allow_network: runs have no network here"));
}

#[test]
fn no_command_is_no_run_and_ten_thousand_are_too_many() {
    let none = SandboxRun::parse(&request(vec![], &[("workdir", &["x"])]), &LIMITS).unwrap_err();
    assert!(none.text.starts_with("the request has no command"), "{}", none.text);
    let many = vec!["true"; 10_000];
    let text = SandboxRun::parse(&request(vec![], &[("cmd", &many)]), &LIMITS).unwrap_err().text;
    assert_eq!(text, "param cmd: more than 64 entries; this provider takes at most 64: send fewer");
    let keys: Vec<String> = (0..10_000).map(|n| format!("cmd_{n}")).collect();
    let numbered: Vec<(&str, &[&str])> = keys.iter().map(|key| (key.as_str(), &["true"][..])).collect();
    assert_eq!(SandboxRun::parse(&request(vec![], &numbered), &LIMITS).unwrap_err().text, text);
}

#[test]
fn long_texts_are_refused_with_their_length() {
    let long = "x".repeat(101);
    assert!(refused(&[("cmd_1", &[&long])]).starts_with("param cmd_1: 101 bytes; this provider takes at most 100"));
    let three = "x".repeat(99);
    let all = refused(&[("cmd_1", &[&three]), ("cmd_2", &[&three]), ("cmd_3", &[&three])]);
    assert!(all.starts_with("param cmd (all commands together): 301 bytes"), "{all}");
    assert!(refused(&[("cmd_1", &["a\0b"])]).starts_with("param cmd_1: "));
    assert!(refused(&[("env_a", &[&three])]).starts_with("param env (all variables together)"));
    let four: &[(&str, &[&str])] = &[("env_a", &["1"]), ("env_b", &["1"]), ("env", &["c=1", "d=1"])];
    assert!(refused(four).contains("more than 3 variables"));
    assert!(refused(&[("env_a", &["1"]), ("env", &["A=1"])]).contains("the variable A is given twice"));
    assert!(refused(&[("artifact", &["a", "b", "c"])]).contains("at most 2"));
    assert!(refused(&[("image", &["x".repeat(200).as_str()])]).starts_with("param image: 200 bytes"));
}

#[test]
fn a_run_takes_one_repository_and_no_other_input() {
    let run = |inputs: Vec<Input>| SandboxRun::parse(&request(inputs, &[("cmd", &["ls"])]), &LIMITS);
    let repository = || input(InputKind::Url, "https://git.example/r");
    assert!(run(vec![repository()]).is_ok());
    let text = run(vec![repository(), input(InputKind::Text, "make test")]).unwrap_err();
    assert_eq!(text.code, Code::Unsupported);
    assert!(text.text.starts_with("input 2 (text): a run takes one url input"), "{}", text.text);
    assert!(run(vec![input(InputKind::Job, "ab")]).unwrap_err().text.starts_with("input 1 (job)"));
    let mut marked = repository();
    marked.marker = Some("diff".into());
    assert!(run(vec![marked]).unwrap_err().text.starts_with("input 1 (url)"));
    let mut asked = request(vec![], &[("cmd", &["ls"])]);
    asked.output = Some("text/plain".into());
    let refusal = SandboxRun::parse(&asked, &LIMITS).unwrap_err();
    assert!(refusal.text.contains("application/json"), "{}", refusal.text);
}

#[test]
fn a_customers_commands_stay_out_of_logs() {
    let run = with(&[("cmd_1", &["echo secret"]), ("env_token", &["secret"])]).unwrap();
    assert!(!format!("{run:?}").contains("secret"));
    let result = CommandResult {
        command: "secret".into(),
        exit_code: 0,
        stdout: "secret".into(),
        stderr: "secret".into(),
        stdout_sha256: String::new(),
        stderr_sha256: String::new(),
        duration_ms: 1,
        timed_out: false,
        ended: CommandEnd::Exited,
    };
    assert!(!format!("{result:?}").contains("secret"));
}
