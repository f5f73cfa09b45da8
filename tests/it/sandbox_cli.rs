//! `coinop sandbox` as an operator uses it: the real program and a real container engine.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use assert_cmd::Command;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{
    CreateContainerOptions, RemoveContainerOptions, RemoveImageOptionsBuilder, TagImageOptionsBuilder,
};
use coinop::testing::{engine, python_image};
use serde_json::Value;
use tempfile::TempDir;

/// A home folder with programs of its own, and nothing of the surrounding environment.
struct Home {
    folder: TempDir,
    host: String,
}

struct Ended {
    code: i32,
    out: String,
    err: String,
}

impl Home {
    /// Where the engine of this machine is named; nothing where there is none.
    async fn new() -> Option<Self> {
        let (settings, _) = engine::engine().await?;
        Some(Self::with(&settings.address.to_string()))
    }

    fn with(host: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("home")).unwrap();
        fs::create_dir_all(folder.path().join("bin")).unwrap();
        Self { folder, host: host.to_owned() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A program on the path.
    fn program(&self, name: &str, script: &str) {
        let path = self.path("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn configure(&self, sandbox: &str) {
        let text = format!("[sandbox]\n{sandbox}\n");
        fs::write(self.path("home").join("config.toml"), text).unwrap();
    }

    async fn coinop(&self, args: &[&str]) -> Ended {
        let mut command = Command::cargo_bin("coinop").unwrap();
        command
            .env_clear()
            .env("PATH", self.path("bin"))
            .arg("--home")
            .arg(self.path("home"))
            .arg("sandbox")
            .args(args);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        Ended {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    async fn at_host(&self, args: &[&str]) -> Ended {
        self.coinop(&[args, &["--host", &self.host]].concat()).await
    }
}

impl Ended {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|_| panic!("{}{}", self.out, self.err))
    }
}

async fn remove_image(reference: &str) {
    let docker = bollard::Docker::connect_with_local_defaults().unwrap().negotiate_version().await.unwrap();
    let options = RemoveImageOptionsBuilder::new().force(true).build();
    docker.remove_image(reference, Some(options), None).await.unwrap();
}

async fn engine_has(image: &str) -> bool {
    let docker = bollard::Docker::connect_with_local_defaults().unwrap().negotiate_version().await.unwrap();
    docker.inspect_image(image).await.is_ok()
}

#[tokio::test]
async fn an_image_is_built_named_in_the_configuration_and_proven() {
    let Some(home) = Home::new().await else { return };
    let reference = "coinop-test-cli:1";
    let built = home.at_host(&["image", "build", "--kind", "busybox", "--name", reference]).await;
    assert_eq!(built.code, 0, "{}", built.err);
    assert!(built.out.contains("sha256:") && built.out.contains(&format!("reference = \"{reference}\"")));
    assert!(built.err.contains("Handing it to"), "{}", built.err);

    home.configure(&format!(
        "[[sandbox.hosts]]\nname = 'here'\naddress = '{}'\nruntimes = ['runc']\n\
         [[sandbox.images]]\nname = 'tools'\nreference = '{reference}'\n\
         [[sandbox.images]]\nname = 'missing'\nreference = 'coinop-test-missing'",
        home.host
    ));
    let listed = home.coinop(&["image", "list", "--json"]).await;
    assert_eq!(listed.code, 1, "one is missing");
    let images = listed.json()["images"].clone();
    assert_eq!((&images[0]["name"], &images[0]["host"]), (&Value::from("tools"), &Value::from("here")));
    assert!(built.out.contains(images[0]["digest"].as_str().unwrap()));
    assert_eq!(images[1]["digest"], Value::Null);
    let listed = home.coinop(&["image", "list", "--host", "here"]).await;
    assert!(listed.out.contains("'coinop sandbox image build --name coinop-test-missing' makes one"), "{}", listed.out);

    let probed = home.coinop(&["probe", "--json"]).await;
    assert_eq!(probed.code, 1, "one image is missing");
    let runtime = &probed.json()["engines"][0]["runtimes"][0];
    assert_eq!((&runtime["runtime"], &runtime["holds"]), (&Value::from("runc"), &Value::from(true)), "{runtime}");
    home.configure(&format!("[[sandbox.images]]\nname = 'tools'\nreference = '{reference}'"));
    let again = home.coinop(&["image", "build", "--kind", "busybox", "--name", reference, "--host", &home.host]).await;
    assert!(!again.out.contains("sandbox.images"), "it is in the configuration already");
    let first = images[0]["digest"].as_str().unwrap();
    assert!(again.out.contains(&format!("is removed ({first})")), "{}{}", again.out, again.err);
    assert!(!engine_has(first).await, "nobody used it");

    let swept = home.at_host(&["sweep", "--all", "--json"]).await;
    assert_eq!((swept.code, &swept.json()["removed"]), (0, &Value::from(0)), "the probe left nothing");
    remove_image(reference).await;
}

#[tokio::test]
async fn an_image_that_is_used_or_has_another_name_stays_when_its_name_is_given_to_another() {
    let Some(home) = Home::new().await else { return };
    let (reference, other) = ("coinop-test-cli-used:1", "coinop-test-cli-used:2");
    let build = ["image", "build", "--kind", "busybox", "--name", reference, "--json"];
    let digest = |built: &Ended| built.json()["images"][0]["digest"].as_str().unwrap().to_owned();
    let first = home.at_host(&build).await;
    assert_eq!(first.json()["images"][0]["before"], Value::Null, "{}", first.err);
    let first = digest(&first);
    let docker = bollard::Docker::connect_with_local_defaults().unwrap().negotiate_version().await.unwrap();
    let body = ContainerCreateBody { image: Some(first.clone()), ..ContainerCreateBody::default() };
    let container = docker.create_container(None::<CreateContainerOptions>, body).await.unwrap().id;
    let second = home.at_host(&build).await;
    let before = second.json()["images"][0]["before"].clone();
    assert_eq!((&before["digest"], &before["removed"]), (&Value::from(first.clone()), &Value::from(false)));
    assert!(engine_has(&first).await);
    docker.remove_container(&container, None::<RemoveContainerOptions>).await.unwrap();
    remove_image(&first).await;

    let second = digest(&second);
    let options = TagImageOptionsBuilder::new().repo("coinop-test-cli-used").tag("2").build();
    docker.tag_image(reference, Some(options)).await.unwrap();
    let third = home.at_host(&build).await;
    assert_eq!(third.json()["images"][0]["before"]["removed"], false);
    assert!(engine_has(&second).await);
    remove_image(reference).await;
    remove_image(other).await;
}

#[tokio::test]
async fn what_is_made_of_packages_is_refused_for_a_busybox() {
    // Said before an engine is asked.
    let home = Home::with("unix:///nowhere/docker.sock");
    for option in [["--with", "git"], ["--suite", "trixie"], ["--mirror", "http://mirror.example/"]] {
        let refused = home.at_host(&[&["image", "build", "--kind", "busybox"][..], &option].concat()).await;
        assert_eq!(refused.code, 2, "{}", refused.err);
        assert!(refused.err.contains(option[0]) && refused.err.contains("--kind default"), "{}", refused.err);
    }
}

#[tokio::test]
async fn the_default_image_is_what_mmdebstrap_makes() {
    let Some(home) = Home::new().await else { return };
    let missing = home.at_host(&["image", "build"]).await;
    assert_eq!(missing.code, 1);
    assert!(missing.err.contains("no program mmdebstrap") && missing.err.contains("apt-get install mmdebstrap"));

    // A folder and nothing else, but as it would come.
    let root = home.path("root.tar");
    let mut tar = tar::Builder::new(fs::File::create(&root).unwrap());
    tar.append_dir("etc", "/etc").unwrap();
    tar.finish().unwrap();
    let said = home.path("said");
    let script = |end: &str| {
        format!(
            "echo \"$@\" > {}\necho 'I: unpacking everything' >&2\n/bin/cat {}\n{end}",
            said.display(),
            root.display()
        )
    };
    home.program("mmdebstrap", &script("exit 0"));
    let reference = "coinop-test-default-cli:1";
    let options = ["--name", reference, "--suite", "trixie", "--mirror", "http://mirror.example/", "--with", "cargo"];
    let built = home.at_host(&[&["image", "build"][..], &options].concat()).await;
    assert_eq!(built.code, 0, "{}", built.err);
    assert!(built.err.contains("unpacking everything"), "{}", built.err);
    let said = fs::read_to_string(&said).unwrap();
    assert!(said.contains("cargo,") && said.trim_end().ends_with("trixie - http://mirror.example/"), "{said}");
    remove_image(reference).await;

    home.program("mmdebstrap", &script("echo 'E: no such server' >&2; exit 25"));
    let failed = home.at_host(&["image", "build", "--name", reference, "--quiet"]).await;
    assert_eq!(failed.code, 1);
    assert!(failed.err.contains("E: no such server") && failed.err.contains("--mirror"), "{}", failed.err);
}

#[tokio::test]
async fn a_build_that_is_interrupted_has_its_builder_clean_up_and_says_so() {
    let Some(home) = Home::new().await else { return };
    let tree = home.path("tree");
    // It cleans up when it is told to and all that it started has ended, and dies of a word that nobody reads.
    home.program(
        "mmdebstrap",
        &format!(
            "trap 'wait; echo \"I: removing tempdir\" >&2 && /bin/rmdir {tree}; exit 1' TERM\n\
             /bin/mkdir {tree}\n/bin/sleep 1000 &\necho 'I: unpacking everything' >&2\nwait",
            tree = tree.display()
        ),
    );
    for signal in ["-TERM", "-INT"] {
        let mut coinop = std::process::Command::new(env!("CARGO_BIN_EXE_coinop"))
            .env_clear()
            .env("PATH", home.path("bin"))
            .arg("--home")
            .arg(home.path("home"))
            .args(["sandbox", "image", "build", "--name", "coinop-test-interrupted:1", "--host", &home.host])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = coinop.id().to_string();
        let mut lines = BufReader::new(coinop.stderr.take().unwrap()).lines().map(Result::unwrap);
        let rest = tokio::task::spawn_blocking(move || {
            assert!(lines.any(|line| line.contains("unpacking everything")), "it builds");
            let sent = std::process::Command::new("kill").args([signal, &pid]).status().unwrap();
            assert!(sent.success());
            lines.collect::<Vec<_>>().join("\n")
        });
        let rest = rest.await.unwrap();
        let ended = tokio::task::spawn_blocking(move || coinop.wait().unwrap()).await.unwrap();
        assert_eq!(ended.code(), Some(130), "{signal}: {rest}");
        for says in ["stopping; mmdebstrap cleans up", "removing tempdir", "no image was built"] {
            assert!(rest.contains(says), "{signal}: no '{says}' in {rest}");
        }
        assert!(!tree.exists(), "{signal}: {rest}");
    }
}

#[tokio::test]
async fn the_agents_of_an_image_are_shown_with_the_lines_that_set_them_up() {
    let Some(home) = Home::new().await else { return };
    let Some(reference) = python_image::reference().await else { return };
    home.configure(&format!(
        "[[sandbox.hosts]]\nname = 'here'\naddress = '{}'\nruntimes = ['runc']\n\
         [[sandbox.images]]\nname = 'tools'\nreference = '{}'\n\
         [[sandbox.images]]\nname = 'python'\nreference = '{reference}'\n\
         [patch_gen]\nruntime = 'runc'",
        home.host,
        engine::REFERENCE
    ));
    let found = home.coinop(&["agents", "--image", "python"]).await;
    assert_eq!(found.code, 0, "{}", found.err);
    let (program, version) = python_image::AGENT;
    assert!(found.out.contains(version) && found.out.contains("python3, which the relay needs, is there"));
    assert!(found.out.contains("[patch_gen.agent]") && found.out.contains("image = \"python\""), "{}", found.out);
    let json = home.coinop(&["agents", "--image", "python", "--json"]).await.json();
    assert_eq!((&json["agents"][0]["program"], &json["runtime"]), (&Value::from(program), &Value::from("runc")));
    let none = home.coinop(&["agents"]).await;
    assert_eq!(none.code, 1, "the first image has no Python");
    assert!(none.err.contains("no python3"), "{}", none.err);
    let missing = home.coinop(&["agents", "--image", "missing"]).await;
    assert_eq!(missing.code, 1);
    assert!(missing.err.contains("no image 'missing'"), "{}", missing.err);
}

#[tokio::test]
async fn what_is_wrong_is_said_with_what_to_do() {
    let home = Home::with("unix:///nowhere/docker.sock");
    let down = home.at_host(&["image", "build", "--kind", "busybox"]).await;
    assert_eq!(down.code, 1);
    assert!(down.err.contains("does not answer") && down.err.contains("systemctl start docker"), "{}", down.err);
    let probed = home.at_host(&["probe"]).await;
    assert_eq!(probed.code, 1);
    assert!(probed.out.contains("cure: install Docker"), "{}", probed.out);
    let listed = home.at_host(&["image", "list"]).await;
    assert_eq!(listed.code, 1);
    assert!(listed.out.contains("cure: install Docker") && !listed.out.contains("image build"), "{}", listed.out);
    let agents = home.at_host(&["agents"]).await;
    assert_eq!(agents.code, 1);
    assert!(agents.err.contains("install Docker") && !agents.err.contains("image build"), "{}", agents.err);
    let swept = home.at_host(&["sweep"]).await;
    assert_eq!(swept.code, 1);
    assert!(swept.out.contains("1 engines do not answer"), "{}", swept.out);

    for (host, says) in [("tcp://10.0.0.1:2375", "needs TLS"), ("big", "local")] {
        let bad = home.coinop(&["probe", "--host", host]).await;
        assert_eq!(bad.code, 2);
        assert!(bad.err.contains(says), "{}", bad.err);
    }
    let name = home.at_host(&["image", "build", "--kind", "busybox", "--name", "--privileged"]).await;
    assert_eq!(name.code, 2);
    let name = home.at_host(&["image", "build", "--kind", "busybox", "--name", "Big Image"]).await;
    assert_eq!(name.code, 2);
    assert!(name.err.contains("small letters"), "{}", name.err);
}

#[tokio::test]
async fn a_program_that_is_no_busybox_makes_no_image() {
    let Some(home) = Home::new().await else { return };
    for (program, says) in [("/nowhere/busybox", "can't be read"), ("/usr/bin/env", "not statically linked")] {
        assert!(says == "can't be read" || Path::new(program).exists());
        let built = home.at_host(&["image", "build", "--kind", "busybox", "--program", program]).await;
        assert_eq!(built.code, 1);
        assert!(built.err.contains(says) && built.err.contains("busybox-static"), "{}", built.err);
    }
}
