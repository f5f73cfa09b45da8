//! What does the work: model servers that are named or found, or a model file.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use futures::future::join_all;
use url::Url;

use super::answers::ask_again;
use super::args::InitArgs;
use crate::cli::exit::CommandError;
use crate::cli::prompt::Ask;
use crate::cli::servers;
use crate::config::{RawEndpoint, Template};
use crate::daemon::wiring::found::to_keep;
use crate::inference::detect::{FoundServer, Software, look_at};

/// What does the work: what is said, else what is found and wanted, else what is answered.
pub(super) fn models(
    args: &InitArgs,
    ask: &mut dyn Ask,
    found: &[FoundServer],
    template: Template,
) -> Result<Template> {
    let mut template = template;
    let mut last = ("", 0_usize);
    for (_, word, url) in args.servers() {
        last = if last.0 == word { (word, last.1 + 1) } else { (word, 1) };
        let name = if last.1 == 1 { String::new() } else { format!("{word}-{}", last.1) };
        let (backend, url) = (word.to_owned(), url.to_owned());
        template = template.with_endpoint(&RawEndpoint { name, backend, url, ..RawEndpoint::default() });
    }
    if let Some(backend) = &args.backend {
        template = template.with("inference.backend", backend.as_str());
    }
    if let Some(model) = &args.model {
        return Ok(template.with("inference.model", absolute(model)?));
    }
    if args.says_what_does_the_work() {
        return Ok(template);
    }
    let wanted = wanted(ask, found)?;
    if !wanted.is_empty() {
        return Ok(to_keep(&wanted).iter().fold(template, |template, endpoint| template.with_endpoint(endpoint)));
    }
    let question =
        "GGUF file of the model, or folder of its safetensors (empty: a model server, looked for at each start)";
    let model = ask_again(ask, question, "", |answer| {
        let missing = !answer.trim().is_empty() && !PathBuf::from(answer.trim()).exists();
        if missing { Err(format!("there is no file {}", answer.trim())) } else { Ok(()) }
    })?;
    // Typed where the person is, like a flag.
    Ok(match model.trim() {
        "" => template,
        typed => template.with("inference.model", absolute(&PathBuf::from(typed))?),
    })
}

/// Which of the servers that were found are to do the work. Nobody who could be asked takes all of them.
fn wanted<'a>(ask: &mut dyn Ask, found: &'a [FoundServer]) -> Result<Vec<&'a FoundServer>> {
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let mut choices: Vec<String> = found.iter().map(servers::line).collect();
    if found.len() > 1 {
        choices.insert(0, "all model servers on this machine".into());
    }
    choices.push("a model file, or later".into());
    let shown: Vec<&str> = choices.iter().map(String::as_str).collect();
    let chosen = ask.choose("What does the work?", &shown, 0)?;
    let of_all = usize::from(found.len() > 1);
    Ok(match chosen {
        0 if of_all == 1 => found.iter().collect(),
        chosen => found.get(chosen - of_all).into_iter().collect(),
    })
}

/// A path from the command line starts where the person is, one in the configuration where the file is.
fn absolute(path: &PathBuf) -> Result<String> {
    let path = std::path::absolute(path).with_context(|| format!("can't use the path {}", path.display()))?;
    match path.into_os_string().into_string() {
        Ok(path) => Ok(path),
        Err(_) => Err(CommandError::usage("the model's path is not UTF-8 text").into()),
    }
}

/// What answers at the addresses that were named, where that is not what they were named as.
pub(super) async fn look_at_named(named: &[(&'static str, &'static str, String)]) -> Vec<String> {
    let one = async |(flag, word, url): &(&'static str, &'static str, String)| {
        let found = look_at(&Url::parse(url).ok()?, None).await;
        odd(flag, word, url, found.as_ref())
    };
    join_all(named.iter().map(one)).await.into_iter().flatten().collect()
}

/// What is odd about a server that was named.
pub(super) fn odd(flag: &str, word: &str, url: &str, found: Option<&FoundServer>) -> Option<String> {
    Some(match found {
        None => format!("{flag} {url}: no model server answers there now; 'coinop doctor' looks again"),
        Some(found) if found.software.backend() != word => {
            let right = match found.software {
                Software::Ollama => "--ollama",
                Software::LlamaCpp => "--llamacpp",
                _ => "--openai",
            };
            let address = found.url.as_str().trim_end_matches('/');
            format!("{flag} {url}: {} is what answers there; name it with {right} {address}", found.title())
        }
        Some(found) if !found.is_usable() => format!("{flag} {url}: {}", servers::line(found)),
        Some(_) => return None,
    })
}
