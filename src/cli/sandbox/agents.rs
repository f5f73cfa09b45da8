//! `coinop sandbox agents`: which agent CLIs an image has, and the lines that set one up.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{Engines, any_answers};
use crate::agent::external::Door;
use crate::agent::external::detect::{Found, FoundAgent, KnownAgent, detect};
use crate::cli::exit::{CommandError, Exit};
use crate::cli::{Globals, table};
use crate::sandbox::{CellLimits, CellSpec, Hosts, Image, Runtime, Sandbox, images};

/// A cell in which programs say their versions: some take a lot of memory for that.
const LIMITS: CellLimits =
    CellLimits { memory_mib: 1024, disk_mib: 64, milli_cpus: 2000, pids: 256, time: Duration::from_secs(180) };

#[derive(Debug, clap::Args)]
pub(super) struct AgentsArgs {
    /// The image, by its name in sandbox.images [default: patch_gen.image, else the first]
    #[arg(long, value_name = "NAME")]
    image: Option<String>,
    #[command(flatten)]
    engines: Engines,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    image: &'a Image,
    runtime: Runtime,
    #[serde(flatten)]
    found: &'a Found,
    /// The lines for each agent.
    settings: Vec<String>,
}

pub(super) async fn run(args: AgentsArgs, globals: &Globals) -> Result<ExitCode> {
    let (_, config) = globals.load_config_or_default()?;
    let (runtime, image) = (config.agents.patch_gen.runtime, args.image.or(config.agents.patch_gen.image));
    let sandbox = args.engines.settings(globals)?;
    any_answers(&sandbox.hosts).await?;
    let build = sandbox.images.first().map(|image| images::build_command(&image.reference)).unwrap_or_default();
    let hosts = Hosts::new(sandbox);
    let looked = look(&hosts, runtime, image, &build).await;
    hosts.shut_down().await;
    let (image, found) = looked?;
    let settings = found.agents.iter().map(|agent| settings(agent.known(), &image.name)).collect();
    let report = Report { image: &image, runtime, found: &found, settings };
    globals.print(&report, || text(&report))?;
    match (found.python, found.agents.is_empty()) {
        (true, false) => Ok(Exit::Ok.into()),
        (false, _) => Err(CommandError::failure(format!("the image {} has no python3", image.name))
            .help("put it in: the relay between an agent and its model is written in it")
            .into()),
        (true, true) => Err(CommandError::failure(format!("the image {} has no agent that is known", image.name))
            .help("docs/external-agents.md says how one is put in, and how any other program is set up")
            .into()),
    }
}

/// Starts a cell from the image and looks. `build` is the command that makes the first image.
async fn look(sandbox: &dyn Sandbox, runtime: Runtime, image: Option<String>, build: &str) -> Result<(Image, Found)> {
    let images = sandbox.images(runtime).await?;
    let wanted = match image {
        Some(name) => name,
        None => match images.first() {
            Some(image) => image.name.clone(),
            None => {
                return Err(CommandError::failure(format!(
                    "there is no image that a cell under {runtime} can be made from"
                ))
                .help(format!("'{build}' makes one; 'coinop doctor' says what is missing"))
                .into());
            }
        },
    };
    let spec = CellSpec { job: "agents".into(), image: wanted, runtime, limits: LIMITS };
    let cancel = CancellationToken::new();
    let cell = sandbox.open(&spec, &cancel).await?;
    let found = detect(&*cell, &cancel).await;
    let image = cell.image().clone();
    cell.close().await;
    Ok((image, found?))
}

fn text(report: &Report<'_>) -> String {
    let mut text = format!("The image {} ({}), under {}:\n", report.image.name, report.image.digest, report.runtime);
    let python = if report.found.python { "is there" } else { "is missing" };
    let _ = writeln!(text, "python3, which the relay needs, {python}.");
    if report.found.agents.is_empty() {
        return text;
    }
    let mut table = table::new(["agent", "program", "version", "asks"]);
    for FoundAgent { program, title, version } in &report.found.agents {
        let known = report.found.agents.iter().find(|agent| agent.program == *program).map(FoundAgent::known);
        let asks = known.map(|known| asks(known.doors)).unwrap_or_default();
        table.add_row([*title, *program, version.as_deref().unwrap_or("it does not say"), &asks]);
    }
    let _ = writeln!(text, "{table}\n\nTo have one work on PatchGen jobs, write into the configuration:");
    for settings in &report.settings {
        let _ = write!(text, "\n{settings}");
    }
    text
}

fn asks(doors: &[Door]) -> String {
    doors.iter().map(|door| format!("/v1/{door}")).collect::<Vec<_>>().join(", ")
}

/// The lines that set an agent up.
fn settings(known: &KnownAgent, image: &str) -> String {
    let written = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let (endpoint, key) = if known.doors.contains(&Door::Messages) {
        ("https://api.anthropic.com/v1", "env:ANTHROPIC_API_KEY")
    } else {
        ("https://api.openai.com/v1", "env:OPENAI_API_KEY")
    };
    let env: Vec<String> = known.env.iter().map(|(name, value)| written(&format!("{name}={value}"))).collect();
    let mut text = format!("[patch_gen]\nimage = {}\n\n[patch_gen.agent] # {}\n", written(image), known.title);
    let _ = writeln!(text, "command = {}", written(known.command));
    let _ = writeln!(text, "endpoint = {} # yours: the only address it reaches", written(endpoint));
    let _ = writeln!(text, "key = {} # where the key stands; it never enters the cell", written(key));
    let _ = writeln!(text, "model = \"MODEL\" # the one it is to ask");
    let _ = writeln!(text, "env = [{}]", env.join(", "));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::external::detect::KNOWN;

    #[test]
    fn the_lines_that_are_printed_are_read_as_they_are_meant() {
        for known in &KNOWN {
            let read: toml::Table = settings(known, "my \"image\"").parse().unwrap();
            let patch_gen = &read["patch_gen"];
            assert_eq!(patch_gen["image"].as_str(), Some("my \"image\""));
            assert_eq!(patch_gen["agent"]["command"].as_str(), Some(known.command));
            let env: Vec<_> =
                patch_gen["agent"]["env"].as_array().unwrap().iter().filter_map(toml::Value::as_str).collect();
            let expected: Vec<_> = known.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
            assert_eq!(env, expected);
        }
    }

    #[test]
    fn what_was_found_is_shown_with_the_lines_for_it() {
        let image = Image { name: "agents".into(), digest: "sha256:12".into() };
        let agent = |known: &KnownAgent, version: Option<&str>| FoundAgent {
            program: known.program,
            title: known.title,
            version: version.map(str::to_owned),
        };
        let found = Found { python: true, agents: vec![agent(&KNOWN[0], Some("1.2")), agent(&KNOWN[2], None)] };
        let settings = found.agents.iter().map(|agent| super::settings(agent.known(), "agents")).collect();
        let report = Report { image: &image, runtime: Runtime::Runc, found: &found, settings };
        let shown = text(&report);
        for has in
            ["Codex", "1.2", "it does not say", "/v1/responses", "[patch_gen.agent] # aider", "{instructions_file}"]
        {
            assert!(shown.contains(has), "no {has} in\n{shown}");
        }
        let none = Found { python: false, agents: Vec::new() };
        let report = Report { found: &none, settings: Vec::new(), ..report };
        assert!(text(&report).contains("is missing") && !text(&report).contains("patch_gen"));
    }
}
