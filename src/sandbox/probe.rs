//! What an engine can really do: a cell is opened and looks at itself from the inside.
//!
//! Everything the cell needs for it is a shell: what it reports are the kernel's own files, and the judgement is made here.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::docker::EngineFacts;
use super::{Cell, CellLimits, CellSpec, Command, Ended, Ran, Runtime, SandboxError};
use crate::archive::OWNER;

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Proof {
    /// The kernel that commands meet.
    pub kernel: String,
    /// What does not hold, in words for the operator. Empty when all does.
    pub failures: Vec<String>,
}

impl Proof {
    /// Of a probe that could not even be made.
    pub(super) fn failed(why: impl Into<String>) -> Self {
        Self { kernel: String::new(), failures: vec![why.into()] }
    }

    /// Whether everything holds.
    pub fn holds(&self) -> bool {
        self.failures.is_empty()
    }
}

/// Small, and over soon.
const LIMITS: CellLimits =
    CellLimits { memory_mib: 32, disk_mib: 1, milli_cpus: 1000, pids: 16, time: Duration::from_secs(60) };

/// A name that no customer's job has.
const JOB: &str = "probe";

/// Only what every shell has in itself, and files of the kernel. Each line of the answer begins with what it is about.
const QUESTIONS: &str = r#"
say() { while IFS= read -r line; do echo "$1 $line"; done; }
say kernel < /proc/version
say status < /proc/self/status
say mount < /proc/mounts
say net < /proc/net/dev
for place in / /bin /etc /dev /proc /sys /usr; do
  (: > "$place/coinop-probe") 2>/dev/null && echo "written $place"
done
for secret in /var/run/docker.sock /run/docker.sock /run/containerd/containerd.sock; do
  [ -e "$secret" ] && echo "socket $secret"
done
(: > /proc/sysrq-trigger) 2>/dev/null && echo "written /proc/sysrq-trigger"
(: > here) 2>/dev/null && echo "workspace writable"
x=0123456789abcdef
while [ ${#x} -lt 262144 ]; do x=$x$x; done
for piece in 1 2 3 4 5 6; do
  (echo "$x" > "fill$piece") 2>/dev/null || echo "workspace full at $piece"
done
dmesg 2>/dev/null | say dmesg
"#;

/// The cell of a probe.
pub(super) fn spec(image: &str, runtime: Runtime) -> CellSpec {
    CellSpec { job: JOB.to_owned(), image: image.to_owned(), runtime, limits: LIMITS }
}

/// Looks around in a cell of [`spec`].
pub(super) async fn prove(cell: &dyn Cell, facts: &EngineFacts) -> Proof {
    let command = Command {
        shell: QUESTIONS.to_owned(),
        workdir: None,
        env: Vec::new(),
        timeout: Duration::from_secs(30),
        keep_bytes: 64 * 1024,
    };
    match cell.run(&command, &CancellationToken::new()).await {
        Ok(ran) => judge(cell.runtime(), facts, &ran),
        Err(error) => Proof::failed(unanswered(&error)),
    }
}

fn unanswered(error: &SandboxError) -> String {
    format!("a command that looks around could not be run: {error}")
}

fn judge(runtime: Runtime, facts: &EngineFacts, ran: &Ran) -> Proof {
    if ran.ended != Ended::Exited {
        return Proof::failed(format!("a command that looks around did not come to its end ({:?})", ran.ended));
    }
    let text = &ran.stdout.text;
    let about = |what: &str| -> Vec<&str> {
        text.lines().filter_map(|line| line.strip_prefix(what)?.strip_prefix(' ')).collect()
    };
    // "Linux version 6.1.0 (…": both kernels say it in this way.
    let kernel = about("kernel").first().and_then(|line| line.split_whitespace().nth(2)).unwrap_or_default().to_owned();
    let mut failures: Vec<String> = facts.missing.iter().map(|words| (*words).to_owned()).collect();
    let mut hold = |holds: bool, words: String| {
        if !holds {
            failures.push(words);
        }
    };

    hold(!kernel.is_empty(), "it does not say which kernel it meets".into());
    let own_kernel = kernel != facts.kernel;
    match runtime {
        Runtime::Runsc => {
            hold(own_kernel, format!("runsc does not keep it from the machine's own kernel {kernel}"));
            let dmesg = about("dmesg");
            let says_gvisor = dmesg.is_empty() || dmesg.iter().any(|line| line.contains("gVisor"));
            hold(says_gvisor, "the kernel it meets is not gVisor's".into());
        }
        Runtime::Runc => hold(!own_kernel, format!("runc should meet the machine's kernel, and meets {kernel}")),
    }

    let status = about("status");
    let field = |name: &str| {
        let line = status.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().split_whitespace().collect::<Vec<_>>()
    };
    let owner = OWNER.to_string();
    for ids in ["Uid", "Gid"] {
        let ids_are = field(ids);
        let theirs = !ids_are.is_empty() && ids_are.iter().all(|id| *id == owner);
        hold(theirs, format!("commands run as {ids} {}", ids_are.join(" ")));
    }
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd"] {
        let bits = field(set).first().and_then(|bits| u64::from_str_radix(bits, 16).ok());
        hold(bits == Some(0), format!("commands have capabilities ({set})"));
    }
    // gVisor tells neither; it has no privileges of the machine's to gain, and filters its own calls.
    if runtime == Runtime::Runc {
        hold(field("NoNewPrivs") == ["1"], "commands can gain privileges".into());
        hold(field("Seccomp") == ["2"], "system calls are not filtered".into());
    }

    let interfaces = about("net").into_iter().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim());
    let foreign: Vec<&str> = interfaces.filter(|name| *name != "lo").collect();
    hold(foreign.is_empty(), format!("there is a network: {}", foreign.join(", ")));

    let root_is_read_only = about("mount").iter().any(|line| {
        let mut fields = line.split(' ');
        fields.nth(1) == Some("/") && fields.nth(1).is_some_and(|options| options.split(',').any(|word| word == "ro"))
    });
    hold(root_is_read_only, "the root can be written".into());
    for place in about("written") {
        hold(false, format!("{place} can be written"));
    }
    for socket in about("socket") {
        hold(false, format!("{socket} is there"));
    }
    let workspace = about("workspace");
    hold(workspace.contains(&"writable"), "the workspace can't be written".into());
    hold(workspace.iter().any(|line| line.starts_with("full")), "the workspace has no limit".into());
    Proof { kernel, failures }
}
