//! From what a model said of the parts to one review: what it made up is dropped, what is told twice is told once, numbers are
//! counted here, and the whole is held against its published schema.

use std::collections::HashMap;

use serde_json::Value;

use super::answers::{Said, SaidIssue};
use super::material::Material;
use crate::job::code_review::{Issue, Review, Severity, Stats, TokenCounts, Verdict};
use crate::job::{RelativePath, schema};

/// The published form of a review.
const SCHEMA: &str = include_str!("../../../nips/5933.schema.json");

/// Characters of a title.
const TITLE_CHARS: usize = 200;
/// Characters of a description, a suggestion or a part's summary.
const TEXT_CHARS: usize = 2_000;
/// Characters of the summary of all parts.
const SUMMARY_CHARS: usize = 4_000;

/// What a review is made of besides what was said.
#[derive(Debug, Clone)]
pub(super) struct Frame<'a> {
    pub(super) material: &'a Material,
    pub(super) include_nits: bool,
    pub(super) model: &'a str,
    pub(super) tokens: TokenCounts,
    /// Bytes of the result as JSON.
    pub(super) most_bytes: usize,
}

/// The published form does not fit what was made. A mistake of ours.
#[derive(Debug, thiserror::Error)]
#[error("the review does not match its schema: {0}")]
pub(super) struct Malformed(String);

/// Makes the review.
pub(super) fn settle(said: Vec<Said>, frame: &Frame<'_>) -> Result<Review, Malformed> {
    let shown = frame.material.shown();
    let verdict = said.iter().map(|part| part.status).max().unwrap_or(Verdict::Approve);
    let summaries = said.iter().map(|part| cut(&part.summary, TEXT_CHARS)).filter(|text| !text.is_empty());
    let summary = cut(&summaries.collect::<Vec<_>>().join("\n\n"), SUMMARY_CHARS);
    let (mut issues, mut dropped) = (Vec::new(), 0);
    for found in said.into_iter().flat_map(|part| part.issues) {
        match grounded(found, &shown) {
            None => dropped += 1,
            Some(issue) if issue.severity == Severity::Nit && !frame.include_nits => {}
            Some(issue) if issues.contains(&issue) => {}
            Some(issue) => issues.push(issue),
        }
    }
    issues.sort_by(|one, other| (&one.path, one.line, one.severity).cmp(&(&other.path, other.line, other.severity)));
    let status = Verdict::of(verdict, &issues, dropped);
    let review = fitted(status, summary, issues, frame);
    check(&review)?;
    Ok(review)
}

/// The issue, when its file and lines are among what was shown.
fn grounded(said: SaidIssue, shown: &HashMap<&RelativePath, Vec<u32>>) -> Option<Issue> {
    let path: RelativePath = said.path.trim().parse().ok()?;
    let lines = shown.get(&path)?;
    let there = |line: u32| lines.binary_search(&line).is_ok();
    let line = said.line.filter(|line| *line > 0);
    let end_line = said.end_line.filter(|end| *end > 0 && Some(*end) != line);
    let holds = match (line, end_line) {
        (None, None) => true,
        (None, Some(_)) => false,
        (Some(line), None) => there(line),
        (Some(line), Some(end)) => line < end && there(line) && there(end),
    };
    let (title, description) = (cut(&one_line(&said.title), TITLE_CHARS), cut(&said.description, TEXT_CHARS));
    let suggestion = said.suggestion.map(|text| cut(&text, TEXT_CHARS)).filter(|text| !text.is_empty());
    let is_said = !title.is_empty() && !description.is_empty();
    let (severity, category) = (said.severity, said.category);
    (holds && is_said).then_some(Issue { path, line, end_line, severity, category, title, description, suggestion })
}

/// A review that fits: when it is too long, the mildest issues go first, and the summary says how many.
fn fitted(status: Verdict, summary: String, mut issues: Vec<Issue>, frame: &Frame<'_>) -> Review {
    let mut left_out = 0_u64;
    loop {
        let note = match left_out {
            0 => String::new(),
            count => format!("\n\n({count} milder issues are left out for want of room.)"),
        };
        let review = Review {
            status,
            summary: format!("{summary}{note}"),
            stats: Stats::of(frame.material.files(), frame.material.lines(), &issues),
            issues: issues.clone(),
            review_sha256: String::new(),
            model: frame.model.to_owned(),
            tokens: frame.tokens,
        }
        .sealed();
        let bytes = serde_json::to_string(&review).map_or(0, |text| text.len());
        let mildest = issues.iter().enumerate().max_by_key(|(at, issue)| (issue.severity, *at)).map(|(at, _)| at);
        match mildest {
            Some(at) if bytes > frame.most_bytes => {
                issues.remove(at);
                left_out += 1;
            }
            _ => return review,
        }
    }
}

fn check(review: &Review) -> Result<(), Malformed> {
    let malformed = |error: serde_json::Error| Malformed(error.to_string());
    let form: Value = serde_json::from_str(SCHEMA).map_err(malformed)?;
    let value = serde_json::to_value(review).map_err(malformed)?;
    schema::matches(&form, &value).map_err(|mismatch| Malformed(mismatch.to_string()))
}

/// A text of so many characters, without control characters but line breaks and tabs.
fn cut(text: &str, most: usize) -> String {
    let plain = text.trim().chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t'));
    let mut short: String = plain.clone().take(most).collect();
    if plain.count() > most {
        short.pop();
        short.push('…');
    }
    short
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
#[path = "settling_tests.rs"]
mod tests;
