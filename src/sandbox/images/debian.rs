//! A usable image from Debian's packages: a shell, git, Python and a C compiler. No registry is asked; `mmdebstrap` fetches
//! packages, checks their signatures and unpacks them.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::archive::OWNER;

/// The program that does it; Debian's package has the same name.
pub const MMDEBSTRAP: &str = "mmdebstrap";

/// What is in it besides Debian's smallest system: what most commands and tests of repositories want.
const PACKAGES: [&str; 14] = [
    "ca-certificates",
    "diffutils",
    "file",
    "findutils",
    "gcc",
    "git",
    "libc6-dev",
    "make",
    "patch",
    "procps",
    "python3",
    "python3-pytest",
    "python3-venv",
    "xz-utils",
];

/// What nobody reads in a cell.
const LEFT_OUT: [&str; 4] = ["/usr/share/man/*", "/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*"];

/// Lines of a failed build that are shown.
const LAST_LINES: usize = 12;

/// What is to be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Debian {
    /// The release: `bookworm`.
    pub suite: String,
    /// Where packages come from; `None`: Debian's own servers, or what this machine's `apt` says of them.
    pub mirror: Option<String>,
    /// Packages besides the usual ones.
    pub packages: Vec<String>,
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum DebianError {
    /// No program to build it with.
    #[error("there is no program {MMDEBSTRAP} here")]
    NoProgram,
    /// A package's or release's name that is none.
    #[error("'{0}' is no name of a package or release")]
    Name(String),
    /// It failed.
    #[error("{MMDEBSTRAP} failed:\n  {}", lines.join("\n  "))]
    Failed {
        /// Its last words.
        lines: Vec<String>,
        /// Whether it had the rights that it needs for certain.
        as_root: bool,
    },
    /// Somebody did not want it any more.
    #[error("the build was stopped")]
    Stopped,
    /// No room, or no rights, for what it makes.
    #[error("the image can't be kept while it is built: {0}")]
    Disk(#[from] io::Error),
}

/// Stops a build from outside.
///
/// The builder has a tree of half a gigabyte with mounts in it, which only it can take away: it is asked to, and waited for. It
/// must be able to speak meanwhile; a builder whose words nobody reads any more dies before it has cleaned up.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<Mutex<Stopping>>);

#[derive(Debug, Default)]
struct Stopping {
    asked: bool,
    /// The builder's process, and the group of all that it starts.
    builder: Option<u32>,
}

impl Stop {
    /// Asks for it. Says whether there is a builder that cleans up now, for which [`Debian::build`] waits. Waits for another
    /// process, a moment.
    pub fn ask(&self) -> bool {
        let mut stopping = self.lock();
        stopping.asked = true;
        // Held, so that the process is not waited for meanwhile and its number given to another.
        stopping.builder.is_some_and(|builder| {
            // Its whole group: by itself it would wait for the packages' programs, which know nothing of it.
            let kill = ["-c", "kill -s TERM -- \"-$1\"", "sh", &builder.to_string()].map(str::to_owned);
            let sent = Command::new("/bin/sh").args(kill).stdin(Stdio::null()).status();
            sent.is_ok_and(|status| status.success())
        })
    }

    fn is_asked(&self) -> bool {
        self.lock().asked
    }

    /// Starts the builder, unless it was stopped before.
    fn start(&self, command: &mut Command) -> Result<std::process::Child, DebianError> {
        let mut stopping = self.lock();
        if stopping.asked {
            return Err(DebianError::Stopped);
        }
        let child = command.process_group(0).spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => DebianError::NoProgram,
            _ => DebianError::Disk(error),
        })?;
        stopping.builder = Some(child.id());
        Ok(child)
    }

    /// It has said its last.
    fn ended(&self) {
        self.lock().builder = None;
    }

    fn lock(&self) -> MutexGuard<'_, Stopping> {
        self.0.lock().expect("nobody panics while holding it")
    }
}

impl Debian {
    /// Builds the root file system, a tar file. Tells each step, and waits: minutes.
    ///
    /// # Errors
    /// When it can't be built, or was stopped.
    pub fn build(&self, stop: &Stop, mut tell: impl FnMut(&str)) -> Result<File, DebianError> {
        let arguments = self.arguments()?;
        let mut root = tempfile::tempfile()?;
        let mut command = Command::new(MMDEBSTRAP);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::from(root.try_clone()?)).stderr(Stdio::piped());
        let mut child = stop.start(&mut command)?;
        let mut lines: Vec<String> = Vec::new();
        let said = child.stderr.take().expect("it is piped");
        for line in BufReader::new(said).split(b'\n') {
            let line = String::from_utf8_lossy(&line?).trim_end().to_owned();
            // Of its own steps; ours are no news.
            if let Some(step) = line.strip_prefix("I: ").filter(|step| !step.starts_with("running --")) {
                tell(step);
            }
            if !line.is_empty() {
                lines.push(line);
            }
            if lines.len() > LAST_LINES {
                lines.remove(0);
            }
        }
        stop.ended();
        let succeeded = child.wait()?.success();
        if stop.is_asked() {
            return Err(DebianError::Stopped);
        }
        if !succeeded {
            return Err(DebianError::Failed { lines, as_root: is_root() });
        }
        root.rewind()?;
        Ok(root)
    }

    fn arguments(&self) -> Result<Vec<String>, DebianError> {
        for name in self.packages.iter().chain([&self.suite]) {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.:".contains(&byte);
            if name.is_empty() || name.starts_with('-') || !name.bytes().all(plain) {
                return Err(DebianError::Name(name.clone()));
            }
        }
        let mut packages: Vec<&str> = PACKAGES.into_iter().chain(self.packages.iter().map(String::as_str)).collect();
        packages.sort_unstable();
        packages.dedup();
        let mut arguments = vec![
            "--variant=minbase".to_owned(),
            "--format=tar".to_owned(),
            format!("--include={}", packages.join(",")),
        ];
        arguments.extend(LEFT_OUT.map(|path| format!("--dpkgopt=path-exclude={path}")));
        let user = format!("echo 'cell:x:{OWNER}:{OWNER}:cell:/tmp:/bin/sh' >> \"$1/etc/passwd\"");
        let group = format!("echo 'cell:x:{OWNER}:' >> \"$1/etc/group\"");
        // Nobody in a cell becomes somebody else. The engine sees to it too.
        let rights = "find \"$1\" -xdev -type f -perm /6000 -exec chmod a-s {} +".to_owned();
        let folders = "mkdir -p \"$1/workspace\"".to_owned();
        arguments.extend([user, group, rights, folders].map(|hook| format!("--customize-hook={hook}")));
        arguments.push(self.suite.clone());
        arguments.push("-".to_owned());
        arguments.extend(self.mirror.clone());
        Ok(arguments)
    }
}

/// Whether this process is root's; the system tells by who owns what it says of the process.
fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn debian() -> Debian {
        Debian { suite: "bookworm".into(), mirror: None, packages: Vec::new() }
    }

    #[test]
    fn packages_are_added_once_and_the_mirror_comes_last() {
        let more = Debian {
            mirror: Some("http://mirror.example/debian".into()),
            packages: ["cargo", "git"].map(str::to_owned).into(),
            ..debian()
        };
        let arguments = more.arguments().unwrap();
        let include = arguments.iter().find(|argument| argument.starts_with("--include=")).unwrap();
        assert!(include.contains("ca-certificates,cargo,diffutils") && include.matches("git").count() == 1);
        assert_eq!(arguments[arguments.len() - 3..], ["bookworm", "-", "http://mirror.example/debian"]);
        assert_eq!(debian().arguments().unwrap().last().unwrap(), "-");
    }

    #[test]
    fn what_is_stopped_before_it_begins_starts_nothing() {
        let stop = Stop::default();
        assert!(!stop.ask(), "there is no builder");
        let built = debian().build(&stop, |step| panic!("{step}"));
        assert!(matches!(built, Err(DebianError::Stopped)));
    }

    #[test]
    fn a_name_cannot_be_an_option() {
        for evil in ["--setup-hook=reboot", "a b", "", "$(x)", "a,b"] {
            let named = Debian { packages: vec![evil.into()], ..debian() };
            assert!(matches!(named.arguments(), Err(DebianError::Name(_))), "{evil}");
            let suite = Debian { suite: evil.into(), ..debian() };
            assert!(matches!(suite.arguments(), Err(DebianError::Name(_))), "{evil}");
        }
    }
}
