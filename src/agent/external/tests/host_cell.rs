//! A stand-in for a cell: programs of this machine in a folder of their own. It holds nobody; it is for the test's own scripts.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Mutex;

use tempfile::TempDir;

use super::*;
use crate::archive::{Archive, ArchiveLimits};
use crate::job::RelativePath;
use crate::sandbox::{CellUsage, Image, Output, Runtime};
use crate::testing::require;

pub(super) struct HostCell {
    home: TempDir,
    port: u16,
    image: Image,
    relays: Mutex<Vec<Child>>,
}

impl Drop for HostCell {
    fn drop(&mut self) {
        for relay in self.relays.get_mut().unwrap() {
            let _ = relay.kill();
            let _ = relay.wait();
        }
    }
}

impl HostCell {
    /// One with these scripts in its workspace; `None` when there is no Python here, which is said.
    pub(super) fn with(scripts: &[(&str, &str)]) -> Option<Self> {
        let python = std::process::Command::new("python3").arg("--version").output();
        if !python.is_ok_and(|output| output.status.success()) {
            require::skip("python3", "install it: the relay of external agents is written in it");
            return None;
        }
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("workspace")).unwrap();
        for (name, text) in scripts {
            std::fs::write(home.path().join("workspace").join(name), text).unwrap();
        }
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let image = Image { name: "host".into(), digest: "sha256:0".into() };
        Some(Self { home, port, image, relays: Mutex::default() })
    }

    pub(super) fn workspace(&self) -> PathBuf {
        self.home.path().join("workspace")
    }

    pub(super) fn read(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.workspace().join(name)).ok()
    }

    /// What is one cell's own stands in a place of its own here.
    fn moved(&self, text: &str) -> String {
        let folder = self.home.path().join("agent");
        text.replace(FOLDER, folder.to_str().unwrap()).replace(&PORT.to_string(), &self.port.to_string())
    }
}

fn output(path: &std::path::Path) -> Output {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    Output { bytes: text.len() as u64, text, sha256: String::new() }
}

#[async_trait]
impl Cell for HostCell {
    fn image(&self) -> &Image {
        &self.image
    }

    fn runtime(&self) -> Runtime {
        Runtime::Runc
    }

    async fn put(&self, _: &Archive) -> Result<(), SandboxError> {
        Ok(())
    }

    async fn run(&self, command: &Command, cancel: &CancellationToken) -> Result<Ran, SandboxError> {
        let began = Instant::now();
        let [out, err] = ["stdout", "stderr"].map(|name| self.home.path().join(name));
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", &self.moved(&command.shell)])
            .current_dir(self.workspace())
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .envs(command.env.iter().map(|(name, value)| (name, self.moved(value))))
            .stdin(Stdio::null())
            .stdout(File::create(&out).unwrap())
            .stderr(File::create(&err).unwrap())
            .process_group(0)
            .spawn()
            .map_err(|error| SandboxError::Engine(error.to_string()))?;
        let group = child.id();
        let kill = || {
            let _ = std::process::Command::new("/bin/sh").args(["-c", &format!("kill -9 -{group}")]).output();
        };
        let mut waiting = tokio::task::spawn_blocking(move || child.wait());
        let (status, ended) = tokio::select! {
            status = &mut waiting => (status, Ended::Exited),
            () = tokio::time::sleep(command.timeout) => {
                kill();
                (waiting.await, Ended::TimedOut)
            }
            () = cancel.cancelled() => {
                kill();
                let _ = waiting.await;
                return Err(SandboxError::Cancelled);
            }
        };
        let exit_code = status.unwrap().unwrap().code().map_or(137, i64::from);
        Ok(Ran { exit_code, ended, stdout: output(&out), stderr: output(&err), duration: began.elapsed() })
    }

    async fn pipe(&self, program: &[String]) -> Result<Pipe, SandboxError> {
        let failed = |error: std::io::Error| SandboxError::Engine(error.to_string());
        let mut child = std::process::Command::new(&program[0])
            .args(program[1..].iter().map(|argument| self.moved(argument)))
            .current_dir(self.workspace())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        self.relays.lock().unwrap().push(child);
        let file = |fd: OwnedFd| tokio::fs::File::from_std(File::from(fd));
        Ok(Pipe { stdin: Box::new(file(stdin.into())), stdout: Box::new(file(stdout.into())) })
    }

    async fn get(&self, _: Option<&RelativePath>, _: ArchiveLimits) -> Result<Option<Archive>, SandboxError> {
        Ok(None)
    }

    async fn usage(&self) -> CellUsage {
        CellUsage::default()
    }

    async fn close(&self) {}
}
