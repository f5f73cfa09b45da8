//! The engines: whether each answers, has the images, and runs cells as safely as its runtimes promise.

use std::collections::BTreeSet;

use super::Finding;
use crate::config::{Config, Paths};
use crate::daemon::wiring::agents;
use crate::sandbox::images::build_command;
use crate::sandbox::{HostReport, ImageSettings, Runtime, TooOld};

/// Looks at every engine of the configuration, and runs a probe in a container of each runtime.
pub(super) async fn engines(config: &Config, paths: &Paths) -> Vec<Finding> {
    let hosts = match agents::engines(config, paths) {
        Ok(hosts) => hosts,
        Err(error) => {
            return vec![Finding::failed("sandbox", format!("{error:#}"), "see to the data folder's owner and mode")];
        }
    };
    let reports = hosts.report().await;
    let sells_patches = config.agents.patch_gen.sale.enabled;
    let patches = if sells_patches { Some(agents::has_git(&hosts, config).await) } else { None };
    let agent = if sells_patches { agents::has_agent(&hosts, config).await } else { None };
    let sells_runs = config.agents.sandbox_run.sale.enabled;
    let offered = if sells_runs { usable(&reports, config.agents.sandbox_run.runtime) } else { Vec::new() };
    let shells = agents::without_shell(&hosts, config.agents.sandbox_run.runtime, &offered).await;
    hosts.shut_down().await;
    let mut found: Vec<Finding> =
        reports.iter().flat_map(|report| of_engine(report, &config.agents.sandbox.images)).collect();
    found.extend(config.agents.runtimes().into_iter().map(|wanted| {
        let works = |report: &&HostReport| {
            let runs = report.runtimes.iter().any(|(runtime, proof)| *runtime == wanted && proof.holds());
            runs && report.images.iter().any(|(_, image)| image.is_ok())
        };
        let working = reports.iter().filter(works).count();
        let check = "sandbox";
        match working {
            0 => Finding::failed(
                check,
                format!("no engine runs an image under {wanted}: what is sold with it is not offered"),
                "mend what is said about the engines; docs/sandbox.md says how they are set up",
            ),
            engines => Finding::ok(check, format!("{engines} of {} engines run cells under {wanted}", reports.len())),
        }
    }));
    found.extend(patches.map(|git| match git {
        Ok(()) => Finding::ok("sandbox.git", "the image that patches are made in has git"),
        Err(why) => Finding::failed(
            "sandbox.git",
            format!("{why}: patches can't be verified and are not offered"),
            "name an image with git in patch_gen.image; the one of 'coinop sandbox image build' has it",
        ),
    }));
    found.extend(agent.map(|agent| match agent {
        Ok(()) => Finding::ok("sandbox.agent", "the image that patches are made in has what the agent is started with"),
        Err(why) => Finding::failed(
            "sandbox.agent",
            format!("{why}: the agent of patch_gen.agent.command does not start, and every job fails"),
            "put it into the image (docs/external-agents.md); 'coinop sandbox agents' says what is in there",
        ),
    }));
    found.extend(shells.into_iter().map(|why| {
        let cure = "commands are given to a shell: put one into the image, or leave it out of sandbox.images";
        Finding::warning("sandbox.image", format!("{why}: runs that ask for it fail"), cure)
    }));
    found
}

/// The images that an engine has and can run.
fn usable(reports: &[HostReport], runtime: Runtime) -> Vec<&str> {
    let runs = |report: &&HostReport| report.runtimes.iter().any(|(known, proof)| *known == runtime && proof.holds());
    let images = reports.iter().filter(runs).flat_map(|report| &report.images);
    let names: BTreeSet<&str> = images.filter(|(_, image)| image.is_ok()).map(|(name, _)| name.as_str()).collect();
    names.into_iter().collect()
}

fn of_engine(report: &HostReport, images: &[ImageSettings]) -> Vec<Finding> {
    let check = "sandbox.engine";
    let about = |finding: Finding| finding.about(&report.host);
    let facts = match &report.engine {
        Ok(facts) => facts,
        Err(why) => {
            let cure =
                "start it (systemctl start docker), or correct sandbox.hosts.address; may this user use its socket?";
            return vec![about(Finding::failed(check, format!("it can't be used: {why}"), cure))];
        }
    };
    let told = format!("Docker {}, {} cores, {} MiB of memory", facts.version, facts.cpus, facts.memory_mib);
    let mut found = vec![about(if facts.missing.is_empty() {
        Finding::ok(check, told)
    } else {
        let cure = "its machine's kernel needs these cgroup controllers";
        Finding::failed(check, format!("{told}; it can't hold to {}", facts.missing.join(", ")), cure)
    })];
    for (name, image) in &report.images {
        found.push(about(match image {
            Ok(digest) => Finding::ok("sandbox.image", format!("{name} is there ({digest})")),
            Err(why) => {
                let reference = images.iter().find(|image| image.name == *name).map(|image| image.reference.as_str());
                let command = build_command(reference.unwrap_or(name));
                let cure = format!("make it with '{command}', or correct sandbox.images.reference");
                Finding::failed("sandbox.image", format!("{name}: {why}"), cure)
            }
        }));
    }
    let warned = |too_old: &TooOld| about(Finding::warning("sandbox.image", too_old.to_string(), TooOld::CURE));
    found.extend(report.too_old.iter().map(warned));
    // Without an image nothing can be tried, which is said of the image.
    let has_image = report.images.iter().any(|(_, image)| image.is_ok());
    for (runtime, proof) in report.runtimes.iter().filter(|(_, proof)| has_image || proof.holds()) {
        found.push(about(if proof.holds() {
            Finding::ok("sandbox.runtime", format!("{runtime} keeps what it promises ({})", proof.kernel))
        } else {
            Finding::failed(
                "sandbox.runtime",
                format!("{runtime}: {}", proof.failures.join("; ")),
                "install the runtime in the engine (docs/sandbox.md), or leave it out of sandbox.hosts.runtimes",
            )
        }));
    }
    found
}
