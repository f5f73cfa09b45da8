//! The words an agent is given for its work.

use super::PatchWork;

/// What is to be done, under which rules.
pub(super) fn of(work: &PatchWork, with_git: bool) -> String {
    let asked = &work.asked;
    let mut text =
        format!("Solve this issue by changing the files in the current folder.\n\n# The issue\n\n{}\n", asked.issue);
    let mut section = |title: &str, body: &str| text.push_str(&format!("\n# {title}\n\n{body}\n"));
    if let Some(context) = &asked.context {
        section("What else to know", context);
    }
    if let Some(url) = &asked.issue_url {
        section("Where the issue comes from", &format!("{url} (it can't be fetched from here)"));
    }
    match (&asked.test_command, asked.verified_with()) {
        (Some(command), Some(_)) => section(
            "The test",
            &format!("This command must end with exit code 0 on a fresh checkout with your change:\n\n    {command}"),
        ),
        (Some(command), None) => section("The test", &format!("The change is usually tested with:\n\n    {command}")),
        (None, _) => {}
    }
    let mut rules = vec![
        "Your change is what differs in the files when you submit; there is nothing to commit.".to_owned(),
        "Text files only: a change with a binary file, or one that makes or alters a symbolic link, is not taken."
            .to_owned(),
        "Files that .gitignore names are left out of the change.".to_owned(),
    ];
    if !asked.include.is_empty() {
        rules.push(format!("Only files that match one of these may change: {}", asked.include.join(", ")));
    }
    if !asked.exclude.is_empty() {
        rules.push(format!("No file that matches one of these may change: {}", asked.exclude.join(", ")));
    }
    if with_git {
        rules.push("git diff shows what you changed so far.".to_owned());
    }
    section("Rules", &rules.iter().map(|rule| format!("- {rule}")).collect::<Vec<_>>().join("\n"));
    text
}
