//! `coinop sandbox sweep`

use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;

use super::Engines;
use crate::cli::Globals;
use crate::cli::exit::Exit;
use crate::sandbox::{Hosts, Swept};

/// What was done, for scripts.
#[derive(Debug, Serialize)]
struct Done {
    removed: usize,
    failed: usize,
    unseen_engines: usize,
}

pub(super) async fn run(all: bool, engines: &Engines, globals: &Globals) -> Result<ExitCode> {
    let hosts = Hosts::new(engines.settings(globals)?);
    let Swept { removed, failed, unseen } = if all { hosts.sweep_all().await } else { hosts.sweep_leftovers().await };
    hosts.shut_down().await;
    let done = Done { removed, failed, unseen_engines: unseen };
    globals.print(&done, || {
        let failed = if failed == 0 { String::new() } else { format!(", {failed} could not be removed (see the log)") };
        let unseen = if unseen == 0 { String::new() } else { format!(", {unseen} engines do not answer") };
        format!("{removed} removed{failed}{unseen}\n")
    })?;
    Ok(if failed == 0 && unseen == 0 { Exit::Ok } else { Exit::Failure }.into())
}
