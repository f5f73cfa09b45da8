//! `coinop request "prompt"`, or `coinop request text "prompt"`: text generation (kind 5050).

use std::process::ExitCode;

use anyhow::Result;

use super::delivery::{self, Delivery, hand_over};
use super::flow;
use super::folder::OutFile;
use super::options::OrderOptions;
use super::wanted::Wanted;
use super::whole::{self, Whole};
use crate::cli::Globals;
use crate::job::JobKind;

pub(super) const EXAMPLES: &str = "\
The form for a prompt that is the name of a kind, and for scripts that never want a prompt taken for one.

Examples:
  coinop request text \"sandbox\"
  coinop request text --provider npub1… --stream - < prompt.txt";

/// What text is ordered.
#[derive(Debug, Clone, Default, PartialEq, clap::Args)]
pub(super) struct TextArgs {
    /// The prompt; '-' reads it from standard input
    #[arg(required = true)]
    pub(super) prompt: Option<String>,
    /// Which model
    #[arg(long)]
    model: Option<String>,
    /// The most tokens to write
    #[arg(long, value_name = "TOKENS")]
    max_tokens: Option<u32>,
    /// Randomness, 0 to 2
    #[arg(long)]
    temperature: Option<f64>,
    /// For a repeatable answer
    #[arg(long)]
    seed: Option<u64>,
    /// Instructions ahead of the prompt
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// A text that ends the answer; may be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// The wanted format
    #[arg(long, value_name = "MEDIA_TYPE")]
    output: Option<String>,
    /// Show the text as it is written, where the provider sends it (what is shown is charged)
    #[arg(long)]
    stream: bool,
}

impl TextArgs {
    fn wanted(self) -> Result<Wanted> {
        let mut wanted = Wanted::of(JobKind::TextGeneration);
        wanted.text(flow::typed(&self.prompt.unwrap_or_default(), "prompt")?, None);
        wanted.maybe("model", self.model);
        wanted.maybe("max_tokens", self.max_tokens);
        wanted.maybe("temperature", self.temperature);
        wanted.maybe("seed", self.seed);
        wanted.maybe("system", self.system);
        for stop in self.stop {
            wanted.param("stop", stop);
        }
        if self.stream {
            wanted.param("stream", true);
        }
        (wanted.output, wanted.stream) = (self.output, self.stream);
        Ok(wanted)
    }
}

pub(super) async fn run(args: TextArgs, options: &OrderOptions, globals: &Globals) -> Result<ExitCode> {
    flow::order(args.wanted()?, options, globals, async |bought, config| {
        let whole = whole::of(&bought, config).await;
        hand_over(&bought, &whole, &deliver(&whole), options, globals)
    })
    .await
}

fn deliver(whole: &Whole) -> Delivery {
    let cut = delivery::cut(whole);
    Delivery {
        warning: cut.map_or_else(String::new, |cut| format!("Note: {cut}.")),
        shown: whole.text.clone(),
        files: vec![OutFile::new("result.txt", whole.text.as_bytes())],
        ..Delivery::default()
    }
}
