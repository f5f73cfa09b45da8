//! Whether an image has a program that a kind of job can't be done without, and whether its programs run.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Cell, CellLimits, CellSpec, Command, Ended, Runtime, Sandbox, SandboxError};

/// Small, and over soon.
const LIMITS: CellLimits =
    CellLimits { memory_mib: 64, disk_mib: 1, milli_cpus: 1_000, pids: 16, time: Duration::from_secs(60) };

/// The shell itself looks at a folder by an old system call, and finds it. `ls` of coreutils 9 has a newer one (statx with
/// `AT_NO_AUTOMOUNT`), which gVisor refuses before 2023; busybox has the old one. Without an `ls` there is nothing to tell.
const REFUSES_TO_LIST: &str = "command -v ls >/dev/null && [ -d . ] && ! ls -ld . >/dev/null 2>&1";

/// Whether a shell in a cell of that image finds the program: asked before anything is sold that needs it.
///
/// # Errors
/// When no such cell can be opened, or it can't be asked.
pub async fn finds(sandbox: &dyn Sandbox, runtime: Runtime, image: &str, program: &str) -> Result<bool, SandboxError> {
    let cell = sandbox.open(&spec(image, runtime), &CancellationToken::new()).await?;
    let name = ("COINOP_PROGRAM".to_owned(), program.to_owned());
    let found = is_so(&*cell, "command -v -- \"$COINOP_PROGRAM\" >/dev/null", vec![name]).await;
    cell.close().await;
    found
}

/// The cell of a question.
pub(super) fn spec(image: &str, runtime: Runtime) -> CellSpec {
    CellSpec { job: "probe".into(), image: image.into(), runtime, limits: LIMITS }
}

/// Whether `ls -l` fails in a cell for no fault of the image's: its runtime is too old for it.
pub(super) async fn refuses_to_list(cell: &dyn Cell) -> Result<bool, SandboxError> {
    is_so(cell, REFUSES_TO_LIST, Vec::new()).await
}

/// Whether a question to the shell ends with yes.
async fn is_so(cell: &dyn Cell, shell: &str, env: Vec<(String, String)>) -> Result<bool, SandboxError> {
    let question = Command { shell: shell.into(), workdir: None, env, timeout: LIMITS.time, keep_bytes: 0 };
    let ran = cell.run(&question, &CancellationToken::new()).await?;
    Ok(ran.ended == Ended::Exited && ran.exit_code == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::engine;

    #[tokio::test]
    async fn an_image_has_what_its_shell_finds_and_nothing_else() {
        for runtime in Runtime::ALL {
            let Some(sandbox) = engine::sandbox(runtime).await else { continue };
            for (program, there) in [("sh", true), ("git", false), ("no such program; true", false)] {
                let found = finds(&*sandbox, runtime, engine::IMAGE, program).await.unwrap();
                assert_eq!(found, there, "{program} under {runtime}");
            }
        }
    }
}
