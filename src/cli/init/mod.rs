//! `coinop init`: from nothing to a configuration and an identity. Everything can be given as an option; at a terminal
//! the rest is asked, elsewhere it takes its default.

mod answers;
mod args;
mod done;
mod identity;
mod money;
mod work;

#[cfg(test)]
mod tests;

use std::fs;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

pub use args::InitArgs;

use self::answers::settings;
use self::done::{Done, Taken};
use self::identity::{keep_identity, make_identity};
use self::work::look_at_named;
use super::exit::{CommandError, Exit};
use super::prompt::{Ask, Nobody, Terminal};
use super::{Globals, servers};
use crate::config::{Config, ConfigError, Paths, RawConfig};
use crate::inference::detect::{FoundServer, look};

/// Options whose values stand in the configuration: what is wrong there is wrong here.
const FIELDS: [(&str, &str); 10] = [
    ("identity.account", "--account"),
    ("relays.urls", "--relay"),
    ("profile.name", "--name"),
    ("profile.about", "--about"),
    ("text.terms", "--terms"),
    ("text.base", "--base"),
    ("text.per_1k_prompt", "--per-1k-prompt"),
    ("text.per_1k_generated", "--per-1k-generated"),
    ("inference.model", "--model"),
    ("inference.backend", "--backend"),
];

/// Runs the command.
pub async fn run(args: InitArgs, globals: &Globals) -> Result<ExitCode> {
    let mut asked: Box<dyn Ask> = if args.yes { Box::new(Nobody) } else { Terminal::open() };
    // An offer for whoever says nothing of models.
    let found = if args.says_what_does_the_work() {
        Vec::new()
    } else {
        let mut defaults = Config::resolve(&RawConfig::default(), &globals.paths()?)?.inference;
        servers::look_where_ollama_is(&mut defaults);
        look(&defaults.probe).await.into_iter().filter(FoundServer::is_usable).collect()
    };
    let named: Vec<_> = args.servers().map(|(flag, word, url)| (flag, word, url.to_owned())).collect();
    let mut done = init(args, globals, &mut *asked, &found)?;
    let ((), warnings) = tokio::join!(done.ask_what_was_taken(), look_at_named(&named));
    done.warnings = warnings;
    if !globals.quiet {
        for warning in &done.warnings {
            eprintln!("warning: {warning}");
        }
    }
    globals.print(&done, || done.text())?;
    Ok(Exit::Ok.into())
}

fn init(args: InitArgs, globals: &Globals, ask: &mut dyn Ask, found: &[FoundServer]) -> Result<Done> {
    let paths = globals.paths()?;
    let config_file = &paths.config_file;
    if config_file.symlink_metadata().is_ok() && !args.force {
        return Err(CommandError::failure(format!("there is a configuration at {} already", config_file.display()))
            .help("edit it, or use --force to replace it (the old one is kept beside it)")
            .into());
    }

    // Everything is decided and checked before anything is written.
    let template = settings(&args, ask, found)?;
    let rendered = template.render();
    let resolved = Config::resolve(&RawConfig::parse(&rendered, config_file)?, &paths);
    let config = resolved.map_err(|error| blame_options(error, &args))?;
    let keystore = &config.identity.keystore;
    let (identity, kept_identity) = if keystore.exists() {
        (keep_identity(&args, globals, &config)?, true)
    } else {
        (Some(make_identity(&args, globals, &config, ask)?), false)
    };
    write_config(&paths, &rendered)?;

    Ok(Done {
        config: config_file.clone(),
        keystore: keystore.path().to_owned(),
        kept_identity,
        identity,
        endpoints: config
            .inference
            .endpoints
            .iter()
            .map(|endpoint| Taken {
                endpoint: endpoint.place(),
                backend: endpoint.backend.word(),
                models: Vec::new(),
                why: None,
            })
            .collect(),
        default_model: None,
        warnings: Vec::new(),
        missing_to_serve: config.missing_to_serve().iter().map(ToString::to_string).collect(),
        inference: config.inference,
    })
}

/// What is wrong is said of the options that were given: the file they would stand in is not there.
fn blame_options(error: ConfigError, args: &InitArgs) -> anyhow::Error {
    let ConfigError::Invalid { problems, .. } = error else { return error.into() };
    let servers: Vec<_> = args.servers().enumerate().map(|(at, (flag, ..))| (format!("[{at}]."), flag)).collect();
    let option = |field: &str| {
        let listed = field.strip_prefix("inference.endpoints");
        let server = servers.iter().find(|(place, _)| listed.is_some_and(|rest| rest.starts_with(place)));
        let known = || FIELDS.iter().find(|(of, _)| *of == field).map(|(_, flag)| *flag);
        server.map(|(_, flag)| *flag).or_else(known).unwrap_or(field).to_owned()
    };
    let lines =
        problems.iter().map(|problem| format!("\n  {}: {}; {}", option(&problem.field), problem.what, problem.cure));
    CommandError::usage(format!("nothing was written, for what was given can't be used:{}", lines.collect::<String>()))
        .into()
}

/// Writes the configuration in one step; a configuration that was there is kept beside it.
fn write_config(paths: &Paths, text: &str) -> Result<()> {
    let path = &paths.config_file;
    let beside = |ending: &str| {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(ending);
        path.with_file_name(name)
    };
    let written = || -> std::io::Result<()> {
        fs::create_dir_all(paths.config_dir())?;
        if path.exists() {
            fs::copy(path, beside(".old"))?;
        }
        let draft = beside(".new");
        fs::write(&draft, text)?;
        fs::rename(&draft, path)
    };
    written().with_context(|| format!("can't write the configuration {}", path.display()))
}
