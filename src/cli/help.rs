//! Help texts. They are written in lines of the source's width, and shown in those of the terminal's.

use clap::Command;

/// A command line whose help texts can be broken where the terminal ends: by clap alone, once.
pub(super) fn reflowed(command: Command) -> Command {
    let after = command.get_after_help().map(|text| unwrapped(&text.to_string()));
    let command = command.mut_subcommands(reflowed);
    match after {
        Some(text) => command.after_help(text),
        None => command,
    }
}

/// Each paragraph as one line. What is indented, an example, stays a line of its own.
fn unwrapped(text: &str) -> String {
    let mut unwrapped = String::with_capacity(text.len());
    let mut in_paragraph = false;
    for (place, line) in text.lines().enumerate() {
        let is_prose = !line.is_empty() && !line.starts_with(' ');
        if place > 0 {
            unwrapped.push(if is_prose && in_paragraph { ' ' } else { '\n' });
        }
        unwrapped.push_str(line);
        in_paragraph = is_prose;
    }
    unwrapped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paragraph_is_one_line_and_an_example_stays_one() {
        let written = "One begins\nand ends.\n\nTwo.\n\nExamples:\n  coinop a\n  coinop b\nAfterwards\nmore";
        let shown = "One begins and ends.\n\nTwo.\n\nExamples:\n  coinop a\n  coinop b\nAfterwards more";
        assert_eq!(unwrapped(written), shown);
    }

    #[test]
    fn texts_of_commands_below_are_shown_so_too() {
        let command = Command::new("a").subcommand(Command::new("b").after_help("one\ntwo"));
        let command = reflowed(command);
        let below = command.find_subcommand("b").and_then(Command::get_after_help).map(ToString::to_string);
        assert_eq!(below.as_deref(), Some("one two"));
        assert!(command.get_after_help().is_none());
    }
}
