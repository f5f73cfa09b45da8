//! `coinop sandbox probe`

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;

use super::{Engines, start};
use crate::cli::Globals;
use crate::cli::exit::Exit;
use crate::sandbox::{HostReport, HostSettings, Hosts, TooOld};

/// What was found, for scripts.
#[derive(Debug, Serialize)]
struct Probed {
    healthy: bool,
    engines: Vec<OfEngine>,
}

#[derive(Debug, Serialize)]
struct OfEngine {
    host: String,
    version: Option<String>,
    /// Why it does not answer, and what to do.
    trouble: Option<String>,
    cure: Option<String>,
    images: Vec<OfImage>,
    runtimes: Vec<OfRuntime>,
    /// What works, but not all of it.
    warnings: Vec<Warning>,
}

#[derive(Debug, Serialize)]
struct Warning {
    image: String,
    runtime: String,
    finding: String,
    cure: &'static str,
}

#[derive(Debug, Serialize)]
struct OfImage {
    name: String,
    digest: Option<String>,
    trouble: Option<String>,
}

#[derive(Debug, Serialize)]
struct OfRuntime {
    runtime: String,
    holds: bool,
    kernel: String,
    failures: Vec<String>,
}

pub(super) async fn run(engines: &Engines, globals: &Globals) -> Result<ExitCode> {
    let settings = engines.settings(globals)?;
    let hosts = Hosts::new(settings.clone());
    if !globals.quiet {
        eprintln!("Opening a cell under each runtime");
    }
    let reports = hosts.report().await;
    hosts.shut_down().await;
    let engines: Vec<OfEngine> =
        reports.into_iter().zip(&settings.hosts).map(|(report, host)| of_engine(report, host)).collect();
    let healthy = engines.iter().all(|engine| {
        engine.trouble.is_none()
            && engine.images.iter().all(|image| image.digest.is_some())
            && engine.runtimes.iter().all(|runtime| runtime.holds)
    });
    let probed = Probed { healthy, engines };
    globals.print(&probed, || text(&probed))?;
    Ok(if healthy { Exit::Ok } else { Exit::Failure }.into())
}

fn of_engine(report: HostReport, settings: &HostSettings) -> OfEngine {
    let images = report.images.into_iter().map(|(name, found)| OfImage {
        name,
        digest: found.as_ref().ok().cloned(),
        trouble: found.err(),
    });
    let runtimes = report.runtimes.into_iter().map(|(runtime, proof)| OfRuntime {
        runtime: runtime.to_string(),
        holds: proof.holds(),
        kernel: proof.kernel,
        failures: proof.failures,
    });
    let warnings = report.too_old.into_iter().map(|too_old| Warning {
        finding: too_old.to_string(),
        cure: TooOld::CURE,
        runtime: too_old.runtime.to_string(),
        image: too_old.image,
    });
    OfEngine {
        host: report.host,
        version: report.engine.as_ref().ok().map(|facts| facts.version.clone()),
        cure: report.engine.is_err().then(|| start(settings)),
        trouble: report.engine.err(),
        images: images.collect(),
        runtimes: runtimes.collect(),
        warnings: warnings.collect(),
    }
}

fn text(probed: &Probed) -> String {
    let mut text = String::new();
    for engine in &probed.engines {
        match (&engine.version, &engine.trouble) {
            (Some(version), _) => writeln!(text, "{}: Docker {version}", engine.host),
            (None, trouble) => {
                writeln!(text, "{}: {}", engine.host, trouble.as_deref().unwrap_or("it does not answer"))
            }
        }
        .expect("a text takes every line");
        if let Some(cure) = &engine.cure {
            let _ = writeln!(text, "  cure: {cure}");
        }
        for image in &engine.images {
            let found = image.digest.as_deref().or(image.trouble.as_deref()).unwrap_or_default();
            let _ = writeln!(text, "  image {}: {found}", image.name);
        }
        for runtime in &engine.runtimes {
            let name = &runtime.runtime;
            if runtime.holds {
                let _ = writeln!(text, "  {name} holds (commands meet the kernel {})", runtime.kernel);
            } else {
                let _ = writeln!(text, "  {name} is not offered:");
                for failure in &runtime.failures {
                    let _ = writeln!(text, "    {failure}");
                }
            }
        }
        for Warning { finding, cure, .. } in &engine.warnings {
            let _ = writeln!(text, "  warning: image {finding}\n    cure: {cure}");
        }
    }
    text
}
