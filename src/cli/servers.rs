//! Model servers as the command line sees them: where else to look for them, and how what was found is told.

use std::fmt::Write as _;

use anyhow::Result;

use super::exit::CommandError;
use crate::config::{InferenceSettings, Paths, TextSettings};
use crate::daemon::inventory;
use crate::daemon::wiring::found::{InForce, to_keep};
use crate::hardware::{Hardware, Recommendation};
use crate::inference::detect::{FoundServer, ollama_host};
use crate::job::{Rates, Terms};

/// Ollama's own variable, which its users have set when it is not at its usual place.
const OLLAMA_HOST: &str = "OLLAMA_HOST";

/// Most model names in a line.
const MOST_NAMES: usize = 12;

/// How to come by a model, for whoever has none.
pub const FIRST_STEPS: &str = "start a model server ('ollama serve', then 'coinop models pull llama3.2'; or 'llama-server -m \
                               MODEL.gguf'), or write the path of a GGUF file to inference.model; a server elsewhere is an \
                               [[inference.endpoints]] in the configuration; 'coinop models list' shows what is seen";

/// What to do when endpoints are there and none has a model to sell.
pub const NO_MODEL_HELP: &str = "start them, or give them a model ('coinop models pull' for an Ollama); 'coinop models list' \
                                 shows what is seen of each, 'coinop doctor' what to do about it";

/// Looks for Ollama where its own variable says, too. Nothing is looked for when the configuration says so. Of a variable
/// that can't be read the operator hears.
pub fn look_where_ollama_is(settings: &mut InferenceSettings) {
    if !settings.is_auto() || settings.probe.is_empty() {
        return;
    }
    let Some(text) = std::env::var_os(OLLAMA_HOST).filter(|text| !text.is_empty()) else { return };
    match text.to_str().and_then(ollama_host) {
        Some(url) if settings.probe.contains(&url) => {}
        Some(url) => settings.probe.insert(0, url),
        None => eprintln!(
            "{OLLAMA_HOST} names no address and is left alone: write it as HOST:PORT, such as 127.0.0.1:11434"
        ),
    }
}

/// Names in a line, and how many more there are.
pub fn some_of<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    let more = names.len().saturating_sub(MOST_NAMES);
    let mut line = names[..names.len() - more].join(", ");
    if more > 0 {
        let _ = write!(line, " and {more} more");
    }
    line
}

/// A line for a server that answered.
pub fn line(found: &FoundServer) -> String {
    let what = match found.trouble {
        Some(trouble) => trouble.to_owned(),
        None if found.models.is_empty() => "it has no model".to_owned(),
        None => some_of(found.models.iter().map(|model| model.name.as_str())),
    };
    format!("{}: {what}", found.title())
}

/// A price list as people read it.
pub fn price(text: &TextSettings, own: Option<Rates>) -> String {
    let rates = own.unwrap_or(text.rates);
    if text.terms == Terms::Free || rates.is_free() {
        return "free".into();
    }
    let parts = [
        (rates.base, ""),
        (rates.per_1k_prompt, " per 1,000 tokens read"),
        (rates.per_1k_generated, " per 1,000 written"),
    ];
    let parts = parts.iter().filter(|(amount, _)| *amount != crate::money::Msat::ZERO);
    parts.map(|(amount, of)| format!("{amount}{of}")).collect::<Vec<_>>().join(" + ")
}

/// What was found, told to whoever starts the provider without having said what does the work.
#[derive(Debug)]
pub struct Findings {
    in_force: InForce,
    hardware: Hardware,
    recommendation: Recommendation,
}

impl Findings {
    /// Judges what was found: which of its models, by the names they are offered under, suits this machine.
    ///
    /// # Errors
    /// When nothing can be used, with what to do.
    pub async fn of(in_force: InForce, hardware: Hardware) -> Result<Self> {
        if in_force.settings.is_auto() {
            return Err(nothing(&in_force.found, &in_force.settings).into());
        }
        let stock = inventory::take(&in_force.settings).await;
        let offered = inventory::on_offer(&in_force.settings, &stock);
        let recommendation = inventory::recommendation(&hardware, &offered);
        Ok(Self { in_force, hardware, recommendation })
    }

    /// The model a customer gets who names none, unless the servers' own order is as good.
    pub fn default_model(&self) -> Option<String> {
        self.recommendation.chosen.clone()
    }

    /// What to tell before the servers are used.
    pub fn text(&self, paths: &Paths) -> String {
        let mut text = String::from("No model is configured; found on this machine:\n");
        for found in &self.in_force.found {
            let _ = writeln!(text, "  {}", line(found));
        }
        let _ = writeln!(text, "This machine: {}", self.hardware);
        if let Some(sentence) = self.recommendation.sentence() {
            let _ = writeln!(text, "  {sentence}");
        }
        let used: Vec<_> = self.in_force.found.iter().filter(|found| found.is_usable()).collect();
        let _ = writeln!(text, "To keep it so, write into {}:", paths.config_file.display());
        for line in
            to_keep(&used).iter().flat_map(|endpoint| endpoint.to_toml().lines().map(str::to_owned).collect::<Vec<_>>())
        {
            let _ = writeln!(text, "  {line}");
        }
        text
    }
}

/// The error of a start without anything that could do the work.
pub fn nothing(found: &[FoundServer], settings: &InferenceSettings) -> CommandError {
    if settings.probe.is_empty() {
        return CommandError::failure(
            "no model is configured, and inference.probe names no address where a model server is looked for",
        )
        .help(FIRST_STEPS);
    }
    if found.is_empty() {
        let looked = some_of(settings.probe.iter().map(|url| url.as_str().trim_end_matches('/')));
        return CommandError::failure(format!(
            "no model is configured, and no model server was found on this machine (looked at {looked})"
        ))
        .help(FIRST_STEPS);
    }
    let lines: Vec<String> = found.iter().map(line).collect();
    CommandError::failure(format!("no model server that was found can be used: {}", lines.join("; "))).help(
        "fetch a model ('coinop models pull llama3.2'), wait until it is loaded, or write an [[inference.endpoints]] with \
         its key",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::detect::{FoundModel, Software};
    use crate::money::Msat;

    fn found(models: usize, trouble: Option<&'static str>) -> FoundServer {
        let models = (0..models).map(|number| FoundModel { name: format!("m{number}"), bytes: Some(1) });
        let url = "http://127.0.0.1:11434/".parse().unwrap();
        FoundServer { software: Software::Ollama, version: None, url, models: models.collect(), trouble }
    }

    #[test]
    fn a_server_is_told_in_a_line_whatever_it_has() {
        assert_eq!(line(&found(2, None)), "Ollama at http://127.0.0.1:11434: m0, m1");
        assert!(line(&found(14, None)).ends_with("m11 and 2 more"));
        assert!(line(&found(0, None)).ends_with("it has no model"));
        assert!(line(&found(1, Some("it wants a key"))).ends_with("it wants a key"));
    }

    #[test]
    fn nothing_to_do_the_work_is_an_error_that_says_what_to_do() {
        let probe = vec!["http://127.0.0.1:11434".parse().unwrap()];
        let settings = InferenceSettings { endpoints: Vec::new(), probe, context: None, models: Vec::new() };
        let none = nothing(&[], &settings);
        assert!(none.to_string().contains("looked at http://127.0.0.1:11434)") && none.help_text().is_some());
        let told_not_to = InferenceSettings { probe: Vec::new(), ..settings.clone() };
        assert!(!nothing(&[], &told_not_to).to_string().contains("looked at"), "nobody looked");
        let idle = nothing(&[found(0, None)], &settings);
        assert!(idle.to_string().contains("it has no model") && idle.help_text().unwrap().contains("models pull"));
    }

    #[test]
    fn a_price_list_is_told_in_words() {
        let rates =
            Rates { base: Msat::sat(2), per_1k_prompt: Msat::ZERO, per_1k_generated: Msat::sat(3), ..Rates::FREE };
        let text = TextSettings {
            enabled: true,
            terms: Terms::Prepay,
            rates,
            free_per_day: 0,
            max_input_bytes: 1,
            max_output_tokens: 1,
            default_output_tokens: 1,
            time_limit: std::time::Duration::from_secs(1),
        };
        assert_eq!(price(&text, None), format!("{} + {} per 1,000 written", Msat::sat(2), Msat::sat(3)));
        assert_eq!(price(&text, Some(Rates::default())), "free");
        assert_eq!(price(&TextSettings { terms: Terms::Free, ..text }, None), "free");
    }
}
