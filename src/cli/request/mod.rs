//! `coinop request`: the buyer's side. A file a kind says what is ordered and what becomes of the result; `flow` is the way
//! that every order takes.

mod checkout;
mod delivery;
mod failure;
mod flow;
mod folder;
mod index;
mod interrupt;
mod options;
mod patch;
mod repo;
mod review;
mod sandbox;
mod screen;
mod text;
mod wanted;
mod whole;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

pub(crate) use screen::plain;

use self::index::IndexArgs;
use self::options::OrderOptions;
use self::patch::PatchArgs;
use self::review::ReviewArgs;
use self::sandbox::SandboxArgs;
use self::text::TextArgs;
use super::Globals;
use super::exit::CommandError;

const EXAMPLES: &str = "\
The first word says what is ordered when it is one of the commands above; any other first word is the prompt of a text. A
prompt that is one of these words is ordered with 'coinop request text'.

The result goes to standard output, everything else to standard error. Without --provider the request goes to anybody and
the cheapest offer within --max-cost is taken. With a wallet in the configuration (requester.wallet) the invoice is paid
at once, within requester.max_per_day; without one it is shown, as text and QR code, for any wallet to pay. What was paid,
and whether it is certain, is listed by 'coinop payments list'.

Exit codes: 0 here is the result, 1 something failed or the result is not what the provider says of it, 2 a command line or
configuration to correct, 3 refused by the provider, 4 too dear or over the budget, 5 no answer in time, 6 the provider
failed after it was chosen, 130 called off.

Ctrl-C calls the order off: the provider is told, and what becomes of the money is said. A second Ctrl-C ends at once.

Examples:
  coinop request \"theorem t (p q : Prop) (hp : p) (hq : q) : p ∧ q := by\" --max-cost 100sat
  coinop request --provider npub1… --encrypt --stream - < prompt.txt
  coinop request \"Say hello\" --play-money --relay ws://127.0.0.1:7777
  coinop request \"Say hello\" --receipt hello.json
  coinop request \"Say hello\" --model qwen3-4b --max-tokens 64 --json | jq -r .content
  coinop request sandbox --cmd \"make test\"";

/// Order a text, a run of commands, an index, a patch or a review, and get the result
#[derive(Debug, clap::Args)]
#[command(
    after_help = EXAMPLES,
    subcommand_negates_reqs = true,
    disable_help_subcommand = true,
    subcommand_value_name = "KIND",
    subcommand_help_heading = "Kinds"
)]
pub struct RequestArgs {
    #[command(subcommand)]
    kind: Option<Kind>,
    #[command(flatten)]
    options: OrderOptions,
    #[command(flatten)]
    text: TextArgs,
}

#[derive(Debug, Subcommand)]
enum Kind {
    /// Order a text (the same as a prompt alone)
    #[command(after_help = text::EXAMPLES)]
    Text(TextArgs),
    /// Have commands run in a sandbox
    #[command(after_help = sandbox::EXAMPLES)]
    Sandbox(SandboxArgs),
    /// Have a repository indexed
    #[command(after_help = index::EXAMPLES)]
    Index(IndexArgs),
    /// Have an issue of a repository solved
    #[command(after_help = patch::EXAMPLES)]
    Patch(PatchArgs),
    /// Have a change reviewed
    #[command(after_help = review::EXAMPLES)]
    Review(ReviewArgs),
}

/// Runs the command.
///
/// # Errors
/// When nothing was bought, or what was bought can't be handed over.
pub async fn run(args: RequestArgs, globals: &Globals) -> Result<ExitCode> {
    let RequestArgs { kind, options, text } = args;
    if kind.is_some() && text != TextArgs::default() {
        return Err(CommandError::usage("a prompt or an option of texts stands in front of the kind")
            .help("options of a kind follow its name; a prompt alone orders a text: coinop request \"PROMPT\"")
            .into());
    }
    match kind {
        None => text::run(text, &options, globals).await,
        Some(Kind::Text(args)) => text::run(args, &options, globals).await,
        Some(Kind::Sandbox(args)) => sandbox::run(args, &options, globals).await,
        Some(Kind::Index(args)) => index::run(args, &options, globals).await,
        Some(Kind::Patch(args)) => patch::run(args, &options, globals).await,
        Some(Kind::Review(args)) => review::run(args, &options, globals).await,
    }
}

/// How many there are, in words.
fn counted<N: std::fmt::Display + PartialEq + From<u8>>(count: N, one: &str, more: &str) -> String {
    format!("{count} {}", if count == N::from(1) { one } else { more })
}

/// A problem with everything that led to it.
fn in_full(problem: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(problem.source(), |cause| cause.source());
    causes.fold(problem.to_string(), |told, cause| format!("{told}: {cause}"))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Typed {
        #[command(flatten)]
        request: RequestArgs,
    }

    fn typed(words: &[&str]) -> Result<RequestArgs, clap::Error> {
        Typed::try_parse_from(["request"].iter().chain(words)).map(|typed| typed.request)
    }

    fn prompt(words: &[&str]) -> Option<String> {
        let typed = typed(words).unwrap();
        match typed.kind {
            None => typed.text.prompt,
            Some(Kind::Text(args)) => args.prompt,
            Some(_) => None,
        }
    }

    #[test]
    fn one_of_something_is_not_told_as_several() {
        let told = [0_u64, 1, 2].map(|count| counted(count, "file", "files"));
        assert_eq!(told, ["0 files", "1 file", "2 files"]);
    }

    #[test]
    fn a_first_word_is_a_kind_or_else_a_prompt() {
        assert_eq!(prompt(&["Say hello"]).as_deref(), Some("Say hello"));
        assert_eq!(prompt(&["--max-cost", "5sat", "-"]).as_deref(), Some("-"));
        assert_eq!(prompt(&["help"]).as_deref(), Some("help"));
        assert_eq!(
            prompt(&["sandboxes are for children", "--temperature", "0"]).as_deref(),
            Some("sandboxes are for children")
        );
        assert_eq!(prompt(&["text", "sandbox"]).as_deref(), Some("sandbox"));
        assert_eq!(prompt(&["--", "sandbox"]).as_deref(), Some("sandbox"));
        assert_eq!(prompt(&["sandbox", "--cmd", "make"]), None);
        assert!(typed(&["sandbox"]).is_err(), "a run without a command");
        assert!(typed(&[]).is_err(), "nothing at all");
        assert!(typed(&["sandbox", "--cmd", "x", "--temperature", "1"]).is_err(), "an option of texts");
    }

    #[test]
    fn what_every_order_takes_stands_before_or_behind_the_kind() {
        for words in [
            ["--max-cost", "5sat", "--relay", "ws://a", "sandbox", "--cmd", "make"],
            ["sandbox", "--cmd", "make", "--max-cost", "5sat", "--relay", "ws://a"],
        ] {
            let typed = typed(&words).unwrap();
            assert!(matches!(typed.kind, Some(Kind::Sandbox(_))));
            assert_eq!(typed.options.max_cost, Some(crate::money::Msat::sat(5)));
            assert_eq!(typed.options.relay, ["ws://a"]);
        }
    }

    #[tokio::test]
    async fn a_prompt_in_front_of_a_kind_is_refused() {
        for words in [vec!["hello", "sandbox", "--cmd", "x"], vec!["--temperature", "1", "sandbox", "--cmd", "x"]] {
            let Ok(typed) = typed(&words) else { continue };
            let problem = run(typed, &Globals::default()).await.unwrap_err();
            assert_eq!(super::super::report::code(&problem), 2, "{words:?}");
        }
    }

    #[test]
    fn one_subject_of_a_review_excludes_the_others() {
        assert!(typed(&["review"]).is_ok());
        assert!(typed(&["review", "--base", "main"]).is_ok());
        assert!(typed(&["review", "--base", "main", "--head", "topic", "--repo", "https://example.com/a/b"]).is_ok());
        assert!(typed(&["review", "--file", "a", "--file", "b", "--ref", "v1"]).is_ok());
        for words in [
            vec!["--head", "topic"],
            vec!["--diff", "-", "--pr", "https://example.com/a/b/pull/1"],
            vec!["--diff", "-", "--repo", "https://example.com/a/b"],
            vec!["--commit", "abc", "--file", "a"],
            vec!["--file", "../outside"],
        ] {
            assert!(typed(&[&["review"], &words[..]].concat()).is_err(), "{words:?}");
        }
    }
}
