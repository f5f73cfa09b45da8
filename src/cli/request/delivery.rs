//! Handing over what was bought: files, what is shown, what was checked, and the exit code.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;
use serde_json::Value;

use super::flow::Bought;
use super::folder::{self, OutFile};
use super::options::OrderOptions;
use super::screen::{plain, put};
use super::whole::Whole;
use crate::blossom::BlossomError;
use crate::cli::exit::CommandError;
use crate::cli::{Globals, globals};
use crate::job::JobId;
use crate::job::id::ProviderId;
use crate::money::Msat;
use crate::nip90;
use crate::store::purchases::SpendingState;

/// Whether the result is what the provider says of it, as far as that shows here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) struct Check {
    /// What was looked at.
    what: String,
    /// `true` when it holds, `false` when it does not, nothing when it could not be looked at.
    holds: Option<bool>,
    /// Why it could not, when something could not be fetched that the buyer is to have.
    #[serde(skip)]
    unfetched: Option<Unfetched>,
}

/// Why something of a result is not here, though the provider says where it is. That is nobody's lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unfetched {
    /// Its address is none of a public host.
    NotPublic,
    /// Anything else: nobody answers, it takes too long, it is too large.
    Otherwise,
}

impl Unfetched {
    /// Why a file is not here; `None` when what is here, or what was promised, is wrong.
    pub(super) fn of(problem: &BlossomError) -> Option<Self> {
        match problem {
            problem if problem.is_another() => None,
            problem if problem.is_not_public() => Some(Self::NotPublic),
            _ => Some(Self::Otherwise),
        }
    }
}

impl Check {
    /// Something that holds, or does not.
    pub(super) fn of(what: impl Into<String>, holds: bool) -> Self {
        Self { what: what.into(), holds: Some(holds), unfetched: None }
    }

    /// What was looked at.
    #[cfg(test)]
    pub(super) fn what(&self) -> &str {
        &self.what
    }

    /// Something that can't be found out here.
    pub(super) fn open(what: impl Into<String>) -> Self {
        Self { what: what.into(), holds: None, unfetched: None }
    }

    /// Something that is not here.
    pub(super) fn unfetched(what: impl Into<String>, why: Unfetched) -> Self {
        Self { what: what.into(), holds: None, unfetched: Some(why) }
    }

    /// Whether something is not here.
    pub(super) fn is_unfetched(&self) -> bool {
        self.unfetched.is_some()
    }
}

/// A result, made ready for people and programs.
#[derive(Debug, Default)]
pub(super) struct Delivery {
    /// The result for programs; without it its text stands there.
    pub(super) result: Option<Value>,
    /// For standard error: what goes around the result.
    pub(super) told: String,
    /// For standard error, however little is to be said: what is wrong with the result.
    pub(super) warning: String,
    /// For standard output: the result.
    pub(super) shown: String,
    /// For `--out`.
    pub(super) files: Vec<OutFile>,
    /// What was checked.
    pub(super) checks: Vec<Check>,
    /// The exit code, when everything holds.
    pub(super) code: u8,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Printed<'a> {
    job: JobId,
    provider: ProviderId,
    event: String,
    /// The result as it came, where it is a text.
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
    /// The result, where it is JSON or tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a Value>,
    #[serde(skip_serializing_if = "<[Check]>::is_empty")]
    checks: &'a [Check],
    paid_msat: u64,
    /// Whether the wallet has said that it was paid: `paid`, or `paying` while that is open.
    payment: Option<SpendingState>,
    cost_msat: Option<u64>,
    credit_msat: Option<u64>,
    truncated: bool,
    receipt: &'a nip90::Receipt,
}

/// Writes the files, prints the result, and says what was checked.
///
/// # Errors
/// When a file can't be written or fetched, or the result is not what the provider says of it. It is shown all the same.
pub(super) fn hand_over(
    bought: &Bought,
    whole: &Whole,
    delivery: &Delivery,
    options: &OrderOptions,
    globals: &Globals,
) -> Result<ExitCode> {
    let receipt = &bought.receipt;
    let told = &receipt.result.receipt;
    let checks: Vec<Check> = whole.checks.iter().chain(&delivery.checks).cloned().collect();
    let written = match &options.out {
        None => Ok(()),
        Some(out) => {
            let mut files = delivery.files.clone();
            files.push(OutFile::private("receipt.json", bought.kept.json()?));
            folder::write(out, &files, options.force)
        }
    };
    if !delivery.warning.is_empty() {
        put(&format!("{}\n", plain(&delivery.warning)));
    }
    if globals.json {
        let printed = Printed {
            job: receipt.job,
            provider: receipt.provider,
            event: receipt.event.to_string(),
            content: delivery.result.is_none().then_some(whole.text.as_str()),
            result: delivery.result.as_ref(),
            checks: &checks,
            paid_msat: receipt.paid.as_msat(),
            payment: bought.kept.payment_state(),
            cost_msat: told.paid.map(Msat::as_msat),
            credit_msat: told.credit.map(Msat::as_msat),
            truncated: whole.cut_from.is_some(),
            receipt: told,
        };
        globals.print(&printed, String::new)?;
    } else {
        if !globals.quiet {
            put(&around(&delivery.told, &facts(told, receipt.is_from_credit()), &checks));
        }
        show(&delivery.shown)?;
    }
    written.map_err(|problem| problem.help(elsewhere(bought)))?;
    match shortcomings(&checks) {
        Some(shortcomings) => Err(shortcomings.into()),
        None => Ok(ExitCode::from(delivery.code)),
    }
}

/// What is wrong with the result, and what of it could not be fetched. Only of the first is the provider to blame.
fn shortcomings(checks: &[Check]) -> Option<CommandError> {
    let those = |wanted: fn(&Check) -> bool| -> Vec<&str> {
        checks.iter().filter(|check| wanted(check)).map(|check| check.what.as_str()).collect()
    };
    let (wrong, unfetched) = (those(|check| check.holds == Some(false)), those(Check::is_unfetched));
    let (mut told, mut helps) = (Vec::new(), Vec::new());
    if !wrong.is_empty() {
        told.push(format!("the result is not what the provider says of it: {}", wrong.join("; ")));
        helps.push("the receipt and the result are signed by the provider; ask somebody else");
    }
    if !unfetched.is_empty() {
        told.push(unfetched.join("; "));
        let not_public = checks.iter().any(|check| check.unfetched == Some(Unfetched::NotPublic));
        helps.push(if not_public {
            "fetch.allow_private = true in the configuration allows addresses that are not public, such as those of your \
             own network"
        } else {
            "it can be fetched later, and its hash says whether it is the right one"
        });
    }
    (!told.is_empty()).then(|| CommandError::failure(told.join("; and ")).help(helps.join("; ")))
}

/// Where what was bought can still be had.
fn elsewhere(bought: &Bought) -> String {
    let Bought { receipt, kept, .. } = bought;
    let result = format!("the result stands on standard output, and on the relays as event {}", receipt.event);
    match kept.payment_state() {
        Some(_) => format!("{result}; 'coinop payments receipt {}' shows the receipt", receipt.job),
        None => result,
    }
}

/// Prints the result: to a terminal nothing of a stranger's goes that it would obey, a pipe gets the bytes as they are.
fn show(text: &str) -> Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    let text = if std::io::stdout().is_terminal() { plain(text) } else { text.to_owned() };
    globals::print(&if text.ends_with('\n') { text } else { format!("{text}\n") })
}

/// What is said around the result.
fn around(told: &str, facts: &str, checks: &[Check]) -> String {
    let mut text = told.trim_end().to_owned();
    let lines = [(Some(true), "Checked"), (None, "Not checked")].map(|(holds, heading)| {
        let those: Vec<&str> = checks
            .iter()
            .filter(|check| check.holds == holds && !check.is_unfetched())
            .map(|check| check.what.as_str())
            .collect();
        if those.is_empty() { String::new() } else { format!("{heading}: {}.", those.join("; ")) }
    });
    for line in lines.iter().map(String::as_str).chain([facts]).filter(|line| !line.is_empty()) {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(line);
    }
    if text.is_empty() { text } else { format!("{}\n", plain(&text)) }
}

/// The receipt in a line.
fn facts(told: &nip90::Receipt, from_credit: bool) -> String {
    let mut facts = Vec::new();
    if let Some(model) = &told.model {
        facts.push(format!("model {model}"));
    }
    if let Some(usage) = told.usage.filter(|usage| usage.total() > 0) {
        facts.push(format!("{} + {} tokens", usage.prompt_tokens, usage.generated_tokens));
    }
    if let Some(rate) = told.tokens_per_second {
        facts.push(format!("{rate} tokens a second"));
    }
    if let Some(cost) = told.paid {
        facts.push(format!("cost {cost}"));
    }
    if from_credit {
        facts.push("paid from your credit".to_owned());
    }
    if let Some(credit) = told.credit.filter(|credit| !credit.is_zero()) {
        facts.push(format!("your credit there is {credit}"));
    }
    facts.join(", ")
}

/// That a result is not all there, if it is not.
pub(super) fn cut(whole: &Whole) -> Option<String> {
    whole.cut_from.map(|size| format!("the result is cut: {} of {size} bytes are here", whole.text.len()))
}

/// The delivery of something that is no result of its kind: as it came, so that it can be looked at.
pub(super) fn unreadable(whole: &Whole, why: &str) -> Delivery {
    let what = cut(whole).unwrap_or_else(|| format!("it can't be read ({})", plain(why)));
    // What is not all here can't be read, and that it is not here is said already.
    let checks = if whole.is_here() { vec![Check::of(what, false)] } else { Vec::new() };
    Delivery {
        shown: whole.text.clone(),
        files: vec![OutFile::new("result.txt", whole.text.as_bytes())],
        checks,
        ..Delivery::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::FetchError;

    #[test]
    fn what_was_checked_and_what_was_not_is_said() {
        let checks = [Check::of("2 hashes", true), Check::open("the commit: it is not in this repository")];
        assert_eq!(
            around("a table\n", "cost 21 sat", &checks),
            "a table\nChecked: 2 hashes.\nNot checked: the commit: it is not in this repository.\ncost 21 sat\n"
        );
        assert_eq!(around("", "", &[]), "");
        assert_eq!(around("a\u{1b}[2J", "", &[]), "a[2J\n");
    }

    #[test]
    fn what_was_paid_from_credit_is_said() {
        let told = nip90::Receipt { paid: Some(Msat::sat(6)), credit: Some(Msat::sat(4)), ..nip90::Receipt::default() };
        assert_eq!(facts(&told, true), "cost 6 sat, paid from your credit, your credit there is 4 sat");
        assert_eq!(facts(&told, false), "cost 6 sat, your credit there is 4 sat");
    }

    #[test]
    fn what_could_not_be_fetched_is_not_held_against_the_provider() {
        assert!(shortcomings(&[Check::of("2 hashes", true), Check::open("the commit")]).is_none());
        let away = [Check::unfetched("the artifact 'a' could not be fetched: gone", Unfetched::Otherwise)];
        assert_eq!(around("", "", &away), "", "it is said once, as the error");
        let error = shortcomings(&away).unwrap();
        assert_eq!((error.to_string().as_str(), error.code()), ("the artifact 'a' could not be fetched: gone", 1));
        assert!(!error.help_text().unwrap().contains("somebody else"), "{error:?}");

        let private = Check::unfetched("the artifact 'b' could not be fetched: not public", Unfetched::NotPublic);
        let error = shortcomings(std::slice::from_ref(&private)).unwrap();
        assert!(error.help_text().unwrap().contains("fetch.allow_private"), "{error:?}");

        let both = shortcomings(&[Check::of("the artifact 'c' is not kept", false), private]).unwrap();
        let help = both.help_text().unwrap();
        assert!(both.to_string().starts_with("the result is not what the provider says of it: the artifact 'c'"));
        assert!(help.contains("somebody else") && help.contains("fetch.allow_private"), "{help}");
    }

    #[test]
    fn another_file_than_promised_is_told_from_none_at_all() {
        assert_eq!(Unfetched::of(&BlossomError::OtherFile), None);
        assert_eq!(Unfetched::of(&BlossomError::Cipher), None);
        assert_eq!(Unfetched::of(&FetchError::NotPublic.into()), Some(Unfetched::NotPublic));
        for problem in [FetchError::Unreachable.into(), BlossomError::TooLarge { bytes: 2, limit: 1 }] {
            assert_eq!(Unfetched::of(&problem), Some(Unfetched::Otherwise), "{problem}");
        }
    }
}
