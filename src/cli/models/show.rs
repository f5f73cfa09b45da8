//! `coinop models show`.

use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;

use super::list::ModelRow;
use super::{View, or_unknown};
use crate::cli::exit::{CommandError, Exit};
use crate::cli::{Globals, servers, table};
use crate::config::Config;
use crate::hardware::{Fit, Gibibytes};
use crate::inference::{JsonSupport, meant};

#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    row: &'a ModelRow<'a>,
    on_this_machine: Option<Fit>,
}

pub(super) fn run(name: &str, view: &View, config: &Config, globals: &Globals) -> Result<ExitCode> {
    let rows = ModelRow::all(view, config);
    let found = meant(rows.iter(), name, |row, is_it| {
        let model = row.model();
        is_it(&model.name) || model.aliases.iter().any(|alias| is_it(alias))
    });
    let Some(row) = found else { return Err(unknown(name, &rows).into()) };
    let model = row.model();
    let fits = view.recommendation.verdicts.iter().find(|(of, _)| *of == model.name).map(|(_, fit)| *fit);
    globals.print(&Shown { row, on_this_machine: fits }, || {
        let mut table = table::new(["model", &model.name]);
        let mut add = |what: &str, value: String| {
            table.add_row([what, &value]);
        };
        if row.is_default() {
            add("default", "yes: for customers who name no model".into());
        }
        if !model.aliases.is_empty() {
            add("aliases", model.aliases.join(", "));
        }
        if model.upstream != model.name {
            add("called by its endpoints", model.upstream.clone());
        }
        let nobody = "none has it just now";
        add("endpoints", if model.endpoints.is_empty() { nobody.into() } else { model.endpoints.join(", ") });
        add("context", or_unknown(model.context_tokens.map(|tokens| format!("{tokens} tokens"))));
        add("longest answer", format!("{} tokens", row.max_output_tokens()));
        add(
            "parameters",
            match model.parameters {
                Some(parameters) => parameters.to_string(),
                None => "unknown: receipts say so; inference.models.parameters tells".into(),
            },
        );
        add("digest", or_unknown(model.digest.as_ref()));
        add(
            "answers",
            match model.json {
                JsonSupport::None => "text; JSON is only checked",
                JsonSupport::Any => "text, JSON",
                JsonSupport::Schema => "text, JSON, JSON of a schema",
            }
            .into(),
        );
        add("size", or_unknown(model.bytes.map(Gibibytes)));
        if let Some(fit) = fits {
            add("on this machine", fit.to_string());
        }
        add("price", row.price(config));
        format!("{table}\n")
    })?;
    Ok(Exit::Ok.into())
}

fn unknown(name: &str, rows: &[ModelRow<'_>]) -> CommandError {
    let error = CommandError::failure(format!("there is no model '{name}'"));
    if rows.is_empty() {
        return error.help("there is none at all: 'coinop models list' says what was looked at");
    }
    error.help(format!("there are {}", servers::some_of(rows.iter().map(|row| row.model().name.as_str()))))
}
