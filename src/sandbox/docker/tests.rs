//! Cells on the engine of this machine.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::sandbox::{Command, Ended, Runtime, Sandbox};
use crate::testing::engine;

#[tokio::test]
async fn a_command_runs_as_nobody_in_an_empty_workspace() {
    for runtime in Runtime::ALL {
        let Some(sandbox) = engine::sandbox(runtime).await else { continue };
        let cancel = CancellationToken::new();
        let cell = sandbox.open(&engine::cell("a command", runtime), &cancel).await.unwrap();
        let command = Command {
            shell: "id -u; pwd; ls -A; exit 3".into(),
            workdir: None,
            env: Vec::new(),
            timeout: Duration::from_secs(60),
            keep_bytes: 1000,
        };
        let ran = cell.run(&command, &cancel).await.unwrap();
        assert_eq!((ran.exit_code, ran.ended), (3, Ended::Exited));
        assert_eq!(ran.stdout.text, "65532\n/workspace\n");
        cell.close().await;
    }
}
