//! `coinop sandbox image list`

use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;

use super::{Engines, connect};
use crate::cli::exit::Exit;
use crate::cli::{Globals, table};

/// What there is, for scripts.
#[derive(Debug, Serialize)]
struct Listed {
    images: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    reference: String,
    host: String,
    /// The engine's id of it.
    digest: Option<String>,
    /// Why it can't be used.
    trouble: Option<String>,
}

pub(super) async fn run(engines: &Engines, globals: &Globals) -> Result<ExitCode> {
    let settings = engines.settings(globals)?;
    let mut listed = Listed { images: Vec::new() };
    for host in &settings.hosts {
        let connected = connect(host).await;
        for image in &settings.images {
            let found = match &connected {
                Ok((engine, _)) => match engine.image(&image.name, &image.reference).await {
                    Ok(found) => found.map(|image| image.digest),
                    Err(error) => Err(error.to_string()),
                },
                Err(error) => Err(error.to_string()),
            };
            listed.images.push(Row {
                name: image.name.clone(),
                reference: image.reference.clone(),
                host: host.name.clone(),
                digest: found.as_ref().ok().cloned(),
                trouble: found.err(),
            });
        }
    }
    globals.print(&listed, || text(&listed))?;
    let complete = listed.images.iter().all(|row| row.digest.is_some());
    Ok(if complete { Exit::Ok } else { Exit::Failure }.into())
}

fn text(listed: &Listed) -> String {
    let mut rows = table::new(["image", "reference", "engine", "digest"]);
    for row in &listed.images {
        let digest = row.digest.as_deref().or(row.trouble.as_deref()).unwrap_or_default();
        rows.add_row([&row.name, &row.reference, &row.host, digest]);
    }
    let missing = listed.images.iter().any(|row| row.digest.is_none());
    let cure = if missing { "\n'coinop sandbox image build' makes one.\n" } else { "" };
    format!("{rows}\n{cure}")
}
