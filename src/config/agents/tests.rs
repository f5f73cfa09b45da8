use std::path::Path;

use super::*;
use crate::config::{Config, Paths, RawConfig};

fn paths() -> Paths {
    Paths::find(Some(Path::new("/srv/dvm")), None).unwrap()
}

fn resolve(text: &str) -> Result<Config, Vec<String>> {
    let raw = RawConfig::parse(text, Path::new("config.toml")).expect("TOML");
    Config::resolve(&raw, &paths()).map_err(|error| match error {
        crate::config::ConfigError::Invalid { problems, .. } => {
            problems.into_iter().map(|problem| problem.field).collect()
        }
        other => panic!("{other}"),
    })
}

#[test]
fn nothing_is_sold_that_was_not_asked_for_and_the_own_engine_is_the_default() {
    let agents = resolve("").unwrap().agents;
    assert!(!agents.any() && !agents.asks_a_model() && agents.runtimes().is_empty() && agents.files.is_none());
    let [host] = &agents.sandbox.hosts[..] else { panic!("{agents:?}") };
    assert_eq!(host.address, HostAddress::Unix("/var/run/docker.sock".into()));
    assert_eq!(host.runtimes, [Runtime::Runsc]);
    assert_eq!(agents.sandbox.images[0].name, "default");
}

#[test]
fn each_mistake_is_told_with_its_field() {
    for (text, field) in [
        ("[[sandbox.hosts]]\naddress = 'tcp://10.0.0.1:2375'", "sandbox.hosts[0].address"),
        ("[[sandbox.hosts]]\naddress = 'ssh://host'", "sandbox.hosts[0].address"),
        ("[[sandbox.hosts]]\naddress = 'tcp://10.0.0.1:2376'\nca = 'x'", "sandbox.hosts[0].ca"),
        ("[[sandbox.hosts]]\nruntimes = []", "sandbox.hosts[0].runtimes"),
        ("[[sandbox.hosts]]\nruntimes = ['kata']", "sandbox.hosts[0].runtimes"),
        ("[[sandbox.hosts]]\n[[sandbox.hosts]]", "sandbox.hosts[1].name"),
        ("[[sandbox.images]]\nname = 'a'", "sandbox.images[0].reference"),
        ("[[sandbox.images]]\nreference = 'a'", "sandbox.images[0].name"),
        ("[sandbox_run]\nenabled = true\nruntime = 'runc'", "sandbox_run.runtime"),
        ("[sandbox_run]\nmax_memory_mib = 1", "sandbox_run.max_memory_mib"),
        ("[sandbox_run]\nper_second = '5'", "sandbox_run.per_second"),
        ("[repo_index]\ntime_limit = 'soon'", "repo_index.time_limit"),
        ("[code_review]\nenabled = true\nbase = '0'\nper_1k_prompt = '0'\nper_1k_generated = '0'", "code_review.terms"),
        ("[patch_gen]\nimage = 'rust'", "patch_gen.image"),
        ("[patch_gen.agent]\ncommand = 'codex'\nmodel = 'm'", "patch_gen.agent.endpoint"),
        ("[patch_gen.agent]\ncommand = 'codex'\nendpoint = 'https://x.example/v1'", "patch_gen.agent.model"),
        ("[patch_gen.agent]\nenv = ['A B=1']", "patch_gen.agent.env"),
        ("[files]\nserver = 'ftp://x'", "files.server"),
    ] {
        assert_eq!(resolve(text).unwrap_err(), [field], "{text}");
    }
}

#[test]
fn engines_elsewhere_are_reached_with_tls_or_at_loopback() {
    let tls =
        "[[sandbox.hosts]]\naddress = 'tcp://10.0.0.1:2376'\nca = 'ca.pem'\ncertificate = '/c.pem'\nkey = 'k.pem'";
    let hosts = resolve(tls).unwrap().agents.sandbox.hosts;
    let HostAddress::Tls { address, files: tls } = &hosts[0].address else { panic!("{hosts:?}") };
    assert_eq!((address.as_str(), tls.certificate.as_path()), ("10.0.0.1:2376", Path::new("/c.pem")));
    assert!(tls.ca.is_absolute());
    assert!(resolve("[[sandbox.hosts]]\naddress = 'tcp://127.0.0.1:2375'").is_ok());
}

#[test]
fn who_sells_sandboxes_only_needs_no_model() {
    let config = resolve("[text]\nenabled = false\n[sandbox_run]\nenabled = true\nterms = 'free'\n").unwrap();
    assert!(config.sells() && !config.asks_a_model() && !config.asks_for_money());
    assert_eq!(config.missing_to_serve(), []);
    let config = resolve("[text]\nenabled = false\n[repo_index]\nenabled = true\n").unwrap();
    let missing: Vec<_> = config.missing_to_serve().into_iter().map(|problem| problem.field).collect();
    assert_eq!(missing, ["wallet.backend"]);
}
