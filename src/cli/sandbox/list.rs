//! `coinop sandbox image list`

use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;

use super::{Engines, connect, start};
use crate::cli::exit::Exit;
use crate::cli::{Globals, table};
use crate::sandbox::images;

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
    /// Why it can't be used, and what to do.
    trouble: Option<String>,
    cure: Option<String>,
}

pub(super) async fn run(engines: &Engines, globals: &Globals) -> Result<ExitCode> {
    let settings = engines.settings(globals)?;
    let mut listed = Listed { images: Vec::new() };
    for host in &settings.hosts {
        let connected = connect(host).await;
        for image in &settings.images {
            let down = |error: String| (error, start(host));
            let found = match &connected {
                Ok((engine, _)) => match engine.image(&image.name, &image.reference).await {
                    Ok(Ok(image)) => Ok(image.digest),
                    Ok(Err(why)) => Err((why, format!("'{}' makes one", images::build_command(&image.reference)))),
                    Err(error) => Err(down(error.to_string())),
                },
                Err(error) => Err(down(error.to_string())),
            };
            let (digest, trouble, cure) = match found {
                Ok(digest) => (Some(digest), None, None),
                Err((trouble, cure)) => (None, Some(trouble), Some(cure)),
            };
            let (name, reference) = (image.name.clone(), image.reference.clone());
            listed.images.push(Row { name, reference, host: host.name.clone(), digest, trouble, cure });
        }
    }
    globals.print(&listed, || text(&listed))?;
    let complete = listed.images.iter().all(|row| row.digest.is_some());
    Ok(if complete { Exit::Ok } else { Exit::Failure }.into())
}

fn text(listed: &Listed) -> String {
    let mut rows = table::new(["image", "reference", "engine", "digest"]);
    let mut cures: Vec<&str> = Vec::new();
    for row in &listed.images {
        let digest = row.digest.as_deref().or(row.trouble.as_deref()).unwrap_or_default();
        rows.add_row([&row.name, &row.reference, &row.host, digest]);
        // An engine that does not answer lacks every image.
        cures.extend(row.cure.as_deref().filter(|cure| !cures.contains(cure)));
    }
    let cures: String = cures.iter().map(|cure| format!("cure: {cure}\n")).collect();
    format!("{rows}\n{cures}")
}
