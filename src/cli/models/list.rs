//! `coinop models list`.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::Result;
use comfy_table::{Cell, CellAlignment};
use serde::Serialize;

use super::{View, or_unknown, short};
use crate::cli::exit::{CommandError, Exit};
use crate::cli::{Globals, servers, table};
use crate::config::Config;
use crate::daemon::inventory::{OfferedModel, Stock};
use crate::daemon::wiring::inference::no_model;
use crate::hardware::{Gibibytes, Hardware, Recommendation};
use crate::inference::detect::FoundServer;
use crate::job::Rates;

#[derive(Debug, Serialize)]
struct Listing<'a> {
    hardware: &'a Hardware,
    /// Whether the endpoints were looked for because none is configured.
    looked_for: bool,
    /// What answered then.
    found: &'a [FoundServer],
    endpoints: Vec<EndpointRow<'a>>,
    models: Vec<ModelRow<'a>>,
    recommendation: &'a Recommendation,
}

#[derive(Debug, Serialize)]
struct EndpointRow<'a> {
    name: &'a str,
    backend: &'a str,
    url: Option<&'a str>,
    up: bool,
    /// Why it is not.
    why: Option<&'a str>,
    /// Jobs it does at once; nothing for no limit, or for one that is down.
    jobs_at_once: Option<usize>,
    models: usize,
}

impl<'a> EndpointRow<'a> {
    fn of(stock: &'a Stock) -> Self {
        Self {
            name: &stock.name,
            backend: stock.backend,
            url: stock.address.as_ref().map(url::Url::as_str),
            up: stock.models.is_ok(),
            why: stock.models.as_ref().err().map(String::as_str),
            jobs_at_once: stock.room.filter(|room| *room < usize::MAX),
            models: stock.models.as_ref().map_or(0, Vec::len),
        }
    }
}

/// A model on offer.
#[derive(Debug, Serialize)]
pub(super) struct ModelRow<'a> {
    /// What a customer gets who names none.
    default: bool,
    #[serde(flatten)]
    model: &'a OfferedModel,
    rates: Rates,
    terms: &'static str,
    /// The longest answer: what the configuration allows, and what the context leaves beside a prompt of one token.
    max_output_tokens: u32,
}

impl<'a> ModelRow<'a> {
    /// The rows of a view.
    pub(super) fn all(view: &'a View, config: &Config) -> Vec<Self> {
        let row = |(place, model): (usize, &'a OfferedModel)| {
            let own = view.in_force.settings.model(&model.name);
            let limit = own.and_then(|own| own.max_output_tokens).unwrap_or(config.text.max_output_tokens);
            ModelRow {
                default: place == 0,
                model,
                rates: own.and_then(|own| own.rates).unwrap_or(config.text.rates),
                terms: config.text.terms.word(),
                max_output_tokens: model.context_tokens.map_or(limit, |context| limit.min(context.saturating_sub(1))),
            }
        };
        view.offered.iter().enumerate().map(row).collect()
    }

    /// The model.
    pub(super) fn model(&self) -> &OfferedModel {
        self.model
    }

    /// Its price, in words.
    pub(super) fn price(&self, config: &Config) -> String {
        servers::price(&config.text, Some(self.rates))
    }

    /// Whether it is the default.
    pub(super) fn is_default(&self) -> bool {
        self.default
    }

    /// The most tokens a customer may ask of it.
    pub(super) fn max_output_tokens(&self) -> u32 {
        self.max_output_tokens
    }
}

pub(super) fn run(view: &View, config: &Config, globals: &Globals) -> Result<ExitCode> {
    let listing = Listing {
        hardware: &view.hardware,
        looked_for: view.in_force.was_looked_for,
        found: &view.in_force.found,
        endpoints: view.stock.iter().map(EndpointRow::of).collect(),
        models: ModelRow::all(view, config),
        recommendation: &view.recommendation,
    };
    globals.print(&listing, || text(&listing, config))?;
    // One that nobody has just now can't be sold.
    let sellable = view.offered.iter().any(|model| !model.endpoints.is_empty());
    if sellable { Ok(Exit::Ok.into()) } else { Err(nothing_to_sell(view).into()) }
}

/// Why 'coinop serve' would sell nothing now, in its words.
fn nothing_to_sell(view: &View) -> CommandError {
    let settings = &view.in_force.settings;
    if settings.is_auto() {
        return servers::nothing(&view.in_force.found, settings);
    }
    let why = |stock: &Stock| match &stock.models {
        Ok(models) if models.is_empty() => None,
        Ok(models) => {
            let names = servers::some_of(models.iter().map(|model| model.info.name.as_str()));
            Some(format!("none of what it has is sold ({names})"))
        }
        Err(why) => Some(why.clone()),
    };
    let endpoints = settings.endpoints.iter().zip(&view.stock);
    CommandError::failure(no_model(endpoints.map(|(endpoint, stock)| (endpoint.place(), why(stock)))))
        .help(servers::NO_MODEL_HELP)
}

fn text(listing: &Listing<'_>, config: &Config) -> String {
    let mut text = format!("This machine: {}\n\n", listing.hardware);
    if listing.looked_for {
        let _ = writeln!(text, "No endpoint is configured; looked for model servers on this machine:");
        for found in listing.found {
            let _ = writeln!(text, "  {}", servers::line(found));
        }
        if listing.found.is_empty() {
            let _ = writeln!(text, "  none answers");
        }
        text.push('\n');
    }
    if !listing.endpoints.is_empty() {
        let mut table = table::new(["endpoint", "backend", "address", "models", "at once", "state"]);
        for row in &listing.endpoints {
            let state = row.why.map_or_else(|| "up".into(), |why| format!("down: {why}"));
            let at_once = match (row.up, row.jobs_at_once) {
                (true, None) => "any".into(),
                (_, at_once) => at_once.map_or_else(String::new, |jobs| jobs.to_string()),
            };
            let address = row.url.unwrap_or("in this process");
            table.add_row([row.name, row.backend, address, &row.models.to_string(), &at_once, &state]);
        }
        let _ = writeln!(text, "{table}\n");
    }
    if !listing.models.is_empty() {
        let mut table = table::new(["model", "endpoints", "context", "parameters", "digest", "size", "price"]);
        let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        for row in &listing.models {
            let model = row.model;
            let name = if row.default { format!("{} (default)", model.name) } else { model.name.clone() };
            let endpoints = if model.endpoints.is_empty() { "none has it".into() } else { model.endpoints.join(", ") };
            table.add_row([
                Cell::new(name),
                Cell::new(endpoints),
                right(or_unknown(model.context_tokens)),
                right(or_unknown(model.parameters)),
                Cell::new(short(model.digest.as_ref())),
                right(or_unknown(model.bytes.map(Gibibytes))),
                Cell::new(row.price(config)),
            ]);
        }
        let _ = writeln!(text, "{table}");
    }
    if let Some(sentence) = listing.recommendation.sentence() {
        let _ = writeln!(text, "\n{sentence}.");
    }
    text
}
