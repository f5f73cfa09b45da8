//! `coinop models pull`.

use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::models_folder;
use crate::cli::exit::{CommandError, Exit};
use crate::cli::{Globals, servers};
use crate::config::{BackendSettings, Config, EndpointSettings, Paths};
use crate::daemon::wiring::found;
use crate::daemon::wiring::inference::{Pulling, pull};
use crate::inference::detect::{Software, look, look_at};

#[derive(Serialize)]
struct Pulled<'a> {
    model: &'a str,
    endpoint: &'a str,
}

pub(super) async fn run(
    name: &str,
    endpoint: Option<&str>,
    config: &Config,
    paths: &Paths,
    globals: &Globals,
) -> Result<ExitCode> {
    let name = name.trim();
    if name.is_empty() {
        return Err(CommandError::usage("the model has no name").help("such as: coinop models pull llama3.2").into());
    }
    if name.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(CommandError::usage("a model's name holds neither spaces nor control characters")
            .help("such as: coinop models pull llama3.2")
            .into());
    }
    if Path::new(name).extension().is_some_and(|end| end.eq_ignore_ascii_case("gguf")) || Path::new(name).exists() {
        return Err(CommandError::usage(format!(
            "{name} is a file, and what is fetched is a name in Ollama's library"
        ))
        .help(file_help(paths))
        .into());
    }
    let endpoints = if config.inference.is_auto() {
        // An Ollama without a model can't be used yet, but it can fetch one.
        let found = look(&config.inference.probe).await;
        found::endpoints(found.iter().filter(|server| server.software == Software::Ollama), None)
    } else {
        config.inference.endpoints.clone()
    };
    let chosen = choose(&endpoints, endpoint, paths)?;
    let mut progress = Progress::new(globals);
    let pulled = pull(chosen, name, |at| progress.tell(&at)).await;
    progress.end();
    if let Err(error) = pulled {
        let at = chosen.server().map_or_else(String::new, |server| format!(" at {}", server.url));
        return Err(CommandError::failure(format!("{name} was not fetched by {}{at}: {error:#}", chosen.name))
            .help(help(chosen).await)
            .into());
    }
    globals.print(&Pulled { model: name, endpoint: &chosen.name }, || {
        format!("{name} is at {}; 'coinop models list' shows it, and 'coinop serve' sells it.\n", chosen.name)
    })?;
    Ok(Exit::Ok.into())
}

/// What to do when nothing was fetched, from who answers where the Ollama should be.
async fn help(endpoint: &EndpointSettings) -> String {
    let Some(server) = endpoint.server() else { return "only an Ollama fetches models".into() };
    let url = server.url.as_str().trim_end_matches('/');
    let key = server.key.as_ref().and_then(|key| key.reveal(&endpoint.field("key")).ok());
    match look_at(&server.url, key.as_ref()).await {
        Some(found) if found.software == Software::Ollama => {
            "is the name one of Ollama's library, and has the disk room? What was fetched so far is kept: try again"
                .into()
        }
        Some(found) => {
            format!("{} answers there, which is no Ollama: correct {}", found.title(), endpoint.field("url"))
        }
        None => format!(
            "no Ollama answers at {url}: start it ('ollama serve'), or correct {} or {}",
            endpoint.field("url"),
            endpoint.field("key")
        ),
    }
}

/// The Ollama that is meant.
fn choose<'a>(
    endpoints: &'a [EndpointSettings],
    named: Option<&str>,
    paths: &Paths,
) -> Result<&'a EndpointSettings, CommandError> {
    let is_ollama = |endpoint: &&EndpointSettings| matches!(endpoint.backend, BackendSettings::Ollama(_));
    let names = || servers::some_of(endpoints.iter().map(|endpoint| endpoint.name.as_str()));
    if let Some(named) = named {
        let Some(endpoint) = endpoints.iter().find(|endpoint| endpoint.name == named) else {
            let error = CommandError::usage(format!("there is no endpoint '{named}'"));
            return Err(match endpoints {
                [] => error
                    .help("none is configured, and no Ollama was found: 'coinop models list' says where it was looked"),
                _ => error.help(format!("there are {}", names())),
            });
        };
        return if is_ollama(&endpoint) { Ok(endpoint) } else { Err(no_ollama(endpoint, paths)) };
    }
    let ollamas: Vec<&EndpointSettings> = endpoints.iter().filter(is_ollama).collect();
    match (&ollamas[..], endpoints) {
        ([one], _) => Ok(one),
        ([], [only]) => Err(no_ollama(only, paths)),
        ([], []) => Err(CommandError::failure("no Ollama is configured, and none was found on this machine").help(format!(
            "start it ('ollama serve'), or write an [[inference.endpoints]] with backend \"ollama\" and its url; without \
             Ollama, {}",
            file_help(paths)
        ))),
        ([], _) => Err(CommandError::failure(format!("none of the endpoints ({}) is an Ollama", names()))
            .help(file_help(paths))),
        _ => {
            let names = servers::some_of(ollamas.iter().map(|endpoint| endpoint.name.as_str()));
            Err(CommandError::usage("there are several Ollamas").help(format!("name one with --endpoint: {names}")))
        }
    }
}

fn no_ollama(endpoint: &EndpointSettings, paths: &Paths) -> CommandError {
    let help = match &endpoint.backend {
        BackendSettings::LlamaCpp(_) => {
            "llama.cpp's server gets its model when it starts: llama-server -m MODEL.gguf, or -hf OWNER/NAME".into()
        }
        BackendSettings::OpenAi(_) => "its models are put there by whoever runs it".into(),
        BackendSettings::MistralRs(model) => {
            format!("the model inside coinop is {}; {}", model.model.display(), file_help(paths))
        }
        BackendSettings::Echo | BackendSettings::Ollama(_) => file_help(paths),
    };
    CommandError::usage(format!("the endpoint {} is no Ollama: only an Ollama fetches models", endpoint.name))
        .help(help)
}

fn file_help(paths: &Paths) -> String {
    format!(
        "a model inside coinop is a GGUF file or a folder of safetensors: put it anywhere, such as {}, and write its path to \
         inference.model",
        models_folder(paths).display()
    )
}

/// How a download is shown: a bar to somebody at a terminal, a line for each step to others.
enum Progress {
    Bar(ProgressBar),
    Lines(String),
    Silent,
}

impl Progress {
    fn new(globals: &Globals) -> Self {
        if globals.quiet {
            return Self::Silent;
        }
        if !io::stderr().is_terminal() {
            return Self::Lines(String::new());
        }
        let bar = ProgressBar::no_length();
        let style = "{spinner} {wide_msg} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}";
        bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self::Bar(bar)
    }

    fn tell(&mut self, at: &Pulling) {
        // The server's words, without anything that steers a terminal.
        let doing: String = at.doing.chars().filter(|c| !c.is_control()).take(100).collect();
        match self {
            Self::Silent => {}
            Self::Lines(said) if *said == doing => {}
            Self::Lines(said) => {
                eprintln!("{doing}");
                *said = doing;
            }
            Self::Bar(bar) => {
                bar.set_message(doing);
                match at.total {
                    Some(total) => bar.set_length(total),
                    None => bar.unset_length(),
                }
                bar.set_position(at.done.unwrap_or_default());
            }
        }
    }

    fn end(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(name: &str, toml: &str) -> EndpointSettings {
        let text = format!("[[inference.endpoints]]\nname = \"{name}\"\n{toml}");
        let raw = crate::config::RawConfig::parse(&text, Path::new("c")).unwrap();
        Config::resolve(&raw, &paths()).unwrap().inference.endpoints.remove(0)
    }

    fn paths() -> Paths {
        Paths::find(Some(Path::new("/srv/dvm")), None).unwrap()
    }

    #[test]
    fn the_only_ollama_is_meant_and_of_several_one_is_named() {
        let ollama = |name: &str| endpoint(name, "backend = \"ollama\"\nurl = \"http://127.0.0.1:11434\"");
        let llama = endpoint("llama", "backend = \"llamacpp\"\nurl = \"http://127.0.0.1:8080\"");
        let file = endpoint("file", "backend = \"mistralrs\"\nmodel = \"m.gguf\"");
        let chosen = |endpoints: &[EndpointSettings], named| {
            choose(endpoints, named, &paths())
                .map(|endpoint| endpoint.name.clone())
                .map_err(|error| format!("{error}: {}", error.help_text().expect("every refusal says what to do")))
        };
        assert_eq!(chosen(&[llama.clone(), ollama("one")], None), Ok("one".into()));
        let two = [ollama("one"), ollama("two"), llama.clone()];
        assert!(chosen(&two, None).unwrap_err().contains("--endpoint: one, two"));
        assert_eq!(chosen(&two, Some("two")), Ok("two".into()));
        assert!(chosen(&two, Some("three")).unwrap_err().contains("there are one, two, llama"));
        assert!(chosen(&two, Some("llama")).unwrap_err().contains("llama-server -m"));
        assert!(chosen(&[file], None).unwrap_err().contains("/srv/dvm/models"));
        assert!(chosen(&[], None).unwrap_err().contains("ollama serve"));
    }
}
