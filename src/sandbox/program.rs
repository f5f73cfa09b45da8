//! Whether an image has a program that a kind of job can't be done without.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{CellLimits, CellSpec, Command, Ended, Runtime, Sandbox, SandboxError};

/// Small, and over soon.
const LIMITS: CellLimits =
    CellLimits { memory_mib: 64, disk_mib: 1, milli_cpus: 1_000, pids: 16, time: Duration::from_secs(60) };

/// Whether a shell in a cell of that image finds the program: asked before anything is sold that needs it.
///
/// # Errors
/// When no such cell can be opened, or it can't be asked.
pub async fn finds(sandbox: &dyn Sandbox, runtime: Runtime, image: &str, program: &str) -> Result<bool, SandboxError> {
    let cancel = CancellationToken::new();
    let spec = CellSpec { job: "probe".into(), image: image.into(), runtime, limits: LIMITS };
    let cell = sandbox.open(&spec, &cancel).await?;
    let question = Command {
        shell: "command -v -- \"$COINOP_PROGRAM\" >/dev/null".into(),
        workdir: None,
        env: vec![("COINOP_PROGRAM".into(), program.into())],
        timeout: LIMITS.time,
        keep_bytes: 0,
    };
    let ran = cell.run(&question, &cancel).await;
    cell.close().await;
    let ran = ran?;
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
