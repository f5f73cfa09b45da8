//! From the sections' texts to settings.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::resolve::MAX_TOKENS;
use super::super::values::Values;
use super::super::{RawConfig, WalletSettings};
use super::raw::{
    RawAgent, RawCodeReview, RawFiles, RawHost, RawPatchGen, RawRepoIndex, RawRepositories, RawSandbox, RawSandboxRun,
};
use super::{
    AgentSettings, CodeReviewSettings, ExternalSettings, FileSettings, HostAddress, HostSettings, ImageSettings,
    KeyHeader, PatchGenSettings, RepoIndexSettings, RepositorySettings, Sale, SandboxRunSettings, SandboxSettings,
    TlsFiles,
};
use crate::job::{Rates, Terms};
use crate::money::Msat;
use crate::sandbox::Runtime;
use crate::sandbox::settings::AddressError;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Bytes of a MiB.
const MIB: u64 = 1_024 * 1_024;
/// The most MiB worth configuring: a machine with four TiB.
const MOST_MIB: u32 = 4 * 1_024 * 1_024;
/// The least memory in which a shell starts, in MiB.
const LEAST_MEMORY_MIB: u32 = 32;
/// The most cores.
const MOST_CPUS: u32 = 1_024;
/// Counts that are bounded only so that they are not typing errors.
const PLENTY: u32 = 1_000_000;

/// Reads everything about agent jobs.
pub(in super::super) fn agents(values: &mut Values<'_>, raw: &RawConfig) -> AgentSettings {
    AgentSettings {
        sandbox: sandbox(values, &raw.sandbox),
        repositories: repositories(values, &raw.repositories),
        files: files(values, &raw.files),
        sandbox_run: sandbox_run(values, &raw.sandbox_run),
        repo_index: repo_index(values, &raw.repo_index),
        patch_gen: patch_gen(values, &raw.patch_gen),
        code_review: code_review(values, &raw.code_review),
    }
}

fn sandbox(values: &mut Values<'_>, raw: &RawSandbox) -> SandboxSettings {
    let own = [RawHost { name: "local".into(), ..RawHost::default() }];
    let hosts = if raw.hosts.is_empty() { &own[..] } else { &raw.hosts[..] };
    let hosts: Vec<HostSettings> = hosts.iter().enumerate().map(|(at, host)| self::host(values, host, at)).collect();
    let mut names = BTreeSet::new();
    if let Some((at, twice)) = hosts.iter().enumerate().find(|(_, host)| !names.insert(&host.name)) {
        let what = format!("'{}' stands there twice", twice.name);
        values.problem(&format!("sandbox.hosts[{at}].name"), what, "give each its own name");
    }
    let default_image = [super::raw::RawImage { name: "default".into(), reference: "coinop-default".into() }];
    let images = if raw.images.is_empty() { &default_image[..] } else { &raw.images[..] };
    let mut seen = BTreeSet::new();
    let images = images
        .iter()
        .enumerate()
        .map(|(at, image)| {
            let field = |key: &str| format!("sandbox.images[{at}].{key}");
            let name = values.line(&field("name"), &image.name, 60).unwrap_or_default();
            if name.is_empty() {
                values.problem(&field("name"), "an image without a name", "write what customers call it");
            } else if !seen.insert(name.clone()) {
                values.problem(&field("name"), format!("'{name}' stands there twice"), "give each its own name");
            }
            let reference = values.line(&field("reference"), &image.reference, 300);
            if reference.is_none() {
                let cure = "write what 'docker images' calls it, such as \"coinop-default\"";
                values.problem(&field("reference"), "the image that is meant is not named", cure);
            }
            ImageSettings { name, reference: reference.unwrap_or_default() }
        })
        .collect();
    let sweep_every = values.duration("sandbox.sweep_every", &raw.sweep_every, 10 * SECOND, DAY);
    SandboxSettings { hosts, images, sweep_every }
}

fn host(values: &mut Values<'_>, raw: &RawHost, at: usize) -> HostSettings {
    let field = |key: &str| format!("sandbox.hosts[{at}].{key}");
    let address = raw.address.trim();
    let tls = match [&raw.ca, &raw.certificate, &raw.key].map(|path| values.path(path)) {
        [None, None, None] => Ok(None),
        [Some(ca), Some(certificate), Some(key)] => Ok(Some(TlsFiles { ca, certificate, key })),
        _ => Err(()),
    };
    let read = match tls {
        Ok(tls) => HostAddress::parse(address, tls).map_err(|error| {
            let cure = match error {
                AddressError::Form(_) => "write \"unix:///var/run/docker.sock\" or \"tcp://host:2376\"",
                AddressError::NeedsTls(_) => {
                    "whoever reaches an engine owns its machine: name sandbox.hosts.ca, sandbox.hosts.certificate and \
                     sandbox.hosts.key"
                }
            };
            values.problem(&field("address"), error.to_string(), cure);
        }),
        Err(()) => {
            values.problem(
                &field("ca"),
                "TLS needs three files, and some are not named",
                "name sandbox.hosts.ca, sandbox.hosts.certificate and sandbox.hosts.key, or none of them",
            );
            Err(())
        }
    };
    let mut runtimes: Vec<Runtime> =
        raw.runtimes.iter().map(|word| runtime(values, &field("runtimes"), word)).collect();
    runtimes.sort_unstable();
    runtimes.dedup();
    if runtimes.is_empty() {
        let cure = "write [\"runsc\"], [\"runc\"] or both";
        values.problem(&field("runtimes"), "an engine without a runtime runs nothing", cure);
    }
    let name = values.line(&field("name"), &raw.name, 60);
    HostSettings {
        name: name.unwrap_or_else(|| address.to_owned()),
        address: read.unwrap_or_else(|()| HostAddress::Unix(HostAddress::DEFAULT_SOCKET.into())),
        runtimes,
        slots: values.count(&field("slots"), raw.slots, 1, 10_000),
        memory_mib: match values.number(&field("memory_mib"), raw.memory_mib, 0, MOST_MIB) {
            0 => None,
            some => Some(some.into()),
        },
    }
}

fn runtime(values: &mut Values<'_>, field: &str, text: &str) -> Runtime {
    values.word(field, text, &Runtime::ALL.map(|runtime| (runtime.word(), runtime)))
}

fn repositories(values: &mut Values<'_>, raw: &RawRepositories) -> RepositorySettings {
    RepositorySettings {
        max_bytes: mib(values, "repositories.max_mib", raw.max_mib, 1),
        max_files: u64::from(values.number("repositories.max_files", raw.max_files, 1, 10 * PLENTY)),
        time_limit: values.duration("repositories.time_limit", &raw.time_limit, SECOND, 60 * MINUTE),
        cache_bytes: mib(values, "repositories.cache_mib", raw.cache_mib, 0),
        allow_private: raw.allow_private,
    }
}

fn mib(values: &mut Values<'_>, field: &str, number: u32, least: u32) -> u64 {
    u64::from(values.number(field, number, least, MOST_MIB)) * MIB
}

fn files(values: &mut Values<'_>, raw: &RawFiles) -> Option<FileSettings> {
    let max_bytes = mib(values, "files.max_mib", raw.max_mib, 1);
    let server = values.optional_url("files.server", &raw.server)?;
    Some(FileSettings { server, max_bytes })
}

/// What a section says of how its kind is sold.
struct RawSale<'a> {
    section: &'a str,
    enabled: bool,
    terms: &'a str,
    free_per_day: u32,
    time_limit: &'a str,
    amounts: &'a [(&'a str, &'a str)],
}

fn sale(values: &mut Values<'_>, raw: &RawSale<'_>) -> Sale {
    let field = |key: &str| format!("{}.{key}", raw.section);
    let words = [Terms::Prepay, Terms::Postpay, Terms::Free, Terms::Hold].map(|terms| (terms.word(), terms));
    let terms = values.word(&field("terms"), raw.terms, &words);
    let mut rates = Rates::FREE;
    for (key, text) in raw.amounts {
        let amount: Msat = values.amount(&field(key), text);
        match *key {
            "per_1k_prompt" => rates.per_1k_prompt = amount,
            "per_1k_generated" => rates.per_1k_generated = amount,
            "per_second" => rates.per_second = amount,
            "per_gb_minute" => rates.per_gb_minute = amount,
            _ => rates.base = amount,
        }
    }
    Sale {
        enabled: raw.enabled,
        terms,
        // Whoever works for nothing need not clear the price list as well.
        rates: if terms == Terms::Free { Rates::FREE } else { rates },
        free_per_day: values.number(&field("free_per_day"), raw.free_per_day, 0, PLENTY),
        time_limit: values.duration(&field("time_limit"), raw.time_limit, 10 * SECOND, DAY),
    }
}

fn sandbox_run(values: &mut Values<'_>, raw: &RawSandboxRun) -> SandboxRunSettings {
    let sale = sale(
        values,
        &RawSale {
            section: "sandbox_run",
            enabled: raw.enabled,
            terms: &raw.terms,
            free_per_day: raw.free_per_day,
            time_limit: &raw.time_limit,
            amounts: &[("base", &raw.base), ("per_second", &raw.per_second), ("per_gb_minute", &raw.per_gb_minute)],
        },
    );
    SandboxRunSettings {
        sale,
        runtime: runtime(values, "sandbox_run.runtime", &raw.runtime),
        max_memory_mib: values.number("sandbox_run.max_memory_mib", raw.max_memory_mib, LEAST_MEMORY_MIB, MOST_MIB),
        max_disk_mib: values.number("sandbox_run.max_disk_mib", raw.max_disk_mib, 1, MOST_MIB),
        max_cpus: values.number("sandbox_run.max_cpus", raw.max_cpus, 1, MOST_CPUS),
    }
}

fn repo_index(values: &mut Values<'_>, raw: &RawRepoIndex) -> RepoIndexSettings {
    let sale = sale(
        values,
        &RawSale {
            section: "repo_index",
            enabled: raw.enabled,
            terms: &raw.terms,
            free_per_day: raw.free_per_day,
            time_limit: &raw.time_limit,
            amounts: &[("base", &raw.base), ("per_second", &raw.per_second), ("per_1k_prompt", &raw.per_1k_prompt)],
        },
    );
    RepoIndexSettings { sale, embeddings: raw.embeddings }
}

fn patch_gen(values: &mut Values<'_>, raw: &RawPatchGen) -> PatchGenSettings {
    let sale = sale(
        values,
        &RawSale {
            section: "patch_gen",
            enabled: raw.enabled,
            terms: &raw.terms,
            free_per_day: raw.free_per_day,
            time_limit: &raw.time_limit,
            amounts: &[
                ("base", &raw.base),
                ("per_1k_prompt", &raw.per_1k_prompt),
                ("per_1k_generated", &raw.per_1k_generated),
                ("per_second", &raw.per_second),
                ("per_gb_minute", &raw.per_gb_minute),
            ],
        },
    );
    PatchGenSettings {
        sale,
        runtime: runtime(values, "patch_gen.runtime", &raw.runtime),
        image: values.line("patch_gen.image", &raw.image, 60),
        max_steps: values.number("patch_gen.max_steps", raw.max_steps, 1, 10_000),
        max_prompt_tokens: values.number("patch_gen.max_prompt_tokens", raw.max_prompt_tokens, 1, 10 * MAX_TOKENS),
        max_generated_tokens: values.number("patch_gen.max_generated_tokens", raw.max_generated_tokens, 1, MAX_TOKENS),
        memory_mib: values.number("patch_gen.memory_mib", raw.memory_mib, LEAST_MEMORY_MIB, MOST_MIB),
        disk_mib: values.number("patch_gen.disk_mib", raw.disk_mib, 1, MOST_MIB),
        cpus: values.number("patch_gen.cpus", raw.cpus, 1, MOST_CPUS),
        agent: external(values, &raw.agent),
    }
}

fn external(values: &mut Values<'_>, raw: &RawAgent) -> Option<ExternalSettings> {
    let command = values.line("patch_gen.agent.command", &raw.command, 2_000);
    let key = values.secret("patch_gen.agent.key", &raw.key);
    let model = values.line("patch_gen.agent.model", &raw.model, 200);
    let endpoint = values.optional_url("patch_gen.agent.endpoint", &raw.endpoint);
    let mut env = Vec::new();
    for text in &raw.env {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') => {
                env.push((name.to_owned(), value.to_owned()));
            }
            _ => values.problem(
                "patch_gen.agent.env",
                format!("'{}' is no variable", super::super::values::shown(text)),
                "write NAME=value",
            ),
        }
    }
    let words = [("auto", KeyHeader::Usual), ("bearer", KeyHeader::Bearer), ("x-api-key", KeyHeader::XApiKey)];
    let key_header = values.word("patch_gen.agent.key_header", &raw.key_header, &words);
    let parameters = (raw.parameters > 0).then_some(raw.parameters);
    let command = command?;
    if endpoint.is_none() && values.are_fine(&["patch_gen.agent.endpoint"]) {
        values.problem(
            "patch_gen.agent.endpoint",
            "an agent without a model's address can't think",
            "write the address of its API, such as \"https://api.example.com/v1\"",
        );
    }
    if model.is_none() && values.are_fine(&["patch_gen.agent.model"]) {
        values.problem(
            "patch_gen.agent.model",
            "without it whatever runs in the sandbox chooses among all of the endpoint's models, the dearest too",
            "name the one model it may ask",
        );
    }
    Some(ExternalSettings { command, endpoint: endpoint?, key, key_header, model, parameters, env })
}

fn code_review(values: &mut Values<'_>, raw: &RawCodeReview) -> CodeReviewSettings {
    let sale = sale(
        values,
        &RawSale {
            section: "code_review",
            enabled: raw.enabled,
            terms: &raw.terms,
            free_per_day: raw.free_per_day,
            time_limit: &raw.time_limit,
            amounts: &[
                ("base", &raw.base),
                ("per_1k_prompt", &raw.per_1k_prompt),
                ("per_1k_generated", &raw.per_1k_generated),
            ],
        },
    );
    CodeReviewSettings {
        sale,
        max_generated_tokens: values.number(
            "code_review.max_generated_tokens",
            raw.max_generated_tokens,
            1,
            MAX_TOKENS,
        ),
    }
}

/// What only shows when values are looked at together.
pub(in super::super) fn together(values: &mut Values<'_>, agents: &AgentSettings, wallet: &WalletSettings) {
    for (_, section, sale) in agents.sales() {
        let terms = format!("{section}.terms");
        if !sale.enabled || !values.are_fine(&[&terms]) {
            continue;
        }
        if sale.terms != Terms::Free && sale.rates.is_free() {
            values.problem(
                &terms,
                format!("\"{}\" with a price of nothing", sale.terms),
                format!("set a price ({section}.base and the others), or {section}.terms = \"free\""),
            );
        }
        if sale.terms == Terms::Hold && !wallet.may_hold() && !matches!(wallet, WalletSettings::None) {
            values.problem(
                &terms,
                "\"hold\" needs a wallet with hold invoices, and the configured one has none",
                "use \"prepay\"",
            );
        }
    }
    for (section, wanted, enabled) in [
        ("sandbox_run", agents.sandbox_run.runtime, agents.sandbox_run.sale.enabled),
        ("patch_gen", agents.patch_gen.runtime, agents.patch_gen.sale.enabled),
    ] {
        let field = format!("{section}.runtime");
        let offered = agents.sandbox.hosts.iter().any(|host| host.runtimes.contains(&wanted));
        let hosts_are_fine = !values.problems.iter().any(|problem| problem.field.starts_with("sandbox.hosts["));
        if enabled && !offered && hosts_are_fine && values.are_fine(&[&field]) {
            values.problem(
                &field,
                format!("no engine in sandbox.hosts has the runtime {wanted}"),
                "add it to an engine's sandbox.hosts.runtimes, or choose another",
            );
        }
    }
    if let Some(image) = &agents.patch_gen.image
        && !agents.sandbox.images.iter().any(|known| known.name == *image)
    {
        values.problem(
            "patch_gen.image",
            format!("no image '{image}' in sandbox.images"),
            "write the name of one of them, or nothing for the first",
        );
    }
}
