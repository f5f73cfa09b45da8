//! What a model may answer: one command, or that it is done.
//!
//! The form is the one that small models manage. A command stands in a fenced block marked `sh`; `bash` and `shell` are read,
//! too, and of blocks without any mark the only one. Other blocks are talk, like everything around the block. `SUBMIT` alone
//! in a line, or in the block, says that the work is done; beside a command it does not count, since the command may
//! still fail. Thoughts up to `</think>` are passed over.

use crate::job::FinishReason;

/// The word that ends the work.
pub(super) const SUBMIT: &str = "SUBMIT";

/// Bytes of a command at most: a kernel takes 128 KiB for one argument, quotes included.
pub(super) const LONGEST_COMMAND_BYTES: usize = 32 * 1024;

/// Marks of a block that holds a command.
const MARKS: [&str; 3] = ["sh", "bash", "shell"];

/// The end of a model's thoughts.
const THOUGHT: &str = "</think>";

/// An answer as it is understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// Run this.
    Run(String),
    /// The work is done.
    Submit,
    /// Neither.
    Unreadable(Trouble),
}

/// Why an answer can't be understood, in words for the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Trouble {
    /// Neither a command nor the word.
    #[error(
        "There is no command in your answer. Give exactly one, in a block that begins with ```sh; or answer SUBMIT when the work is done."
    )]
    NoCommand,
    /// More than one.
    #[error(
        "There are several commands in your answer, and none was run. Give exactly one block that begins with ```sh, and wait for what it prints."
    )]
    SeveralCommands,
    /// The limit of tokens came first.
    #[error(
        "Your answer was cut off before its command ended, and nothing was run. Give a shorter command; write long files in pieces."
    )]
    CutOff,
    /// Too many bytes, or one that no command has.
    #[error(
        "The command is too long or holds a zero byte, and was not run. Give a shorter one; write long files in pieces."
    )]
    Unusable,
}

/// A fenced block.
struct Block {
    mark: String,
    content: String,
    closed: bool,
}

/// Reads an answer.
pub(super) fn read(text: &str, finish: FinishReason) -> Answer {
    let said = text.rsplit_once(THOUGHT).map_or(text, |(_, said)| said);
    let (blocks, outside) = blocks(said);
    let marked = |block: &&Block| MARKS.contains(&block.mark.as_str());
    let commands: Vec<&Block> = if blocks.iter().any(|block| marked(&block)) {
        blocks.iter().filter(marked).collect()
    } else {
        blocks.iter().filter(|block| block.mark.is_empty()).collect()
    };
    match commands[..] {
        [] if outside.iter().any(|line| is_submit(line)) => Answer::Submit,
        [] => Answer::Unreadable(Trouble::NoCommand),
        [command] if !command.closed && finish == FinishReason::Length => Answer::Unreadable(Trouble::CutOff),
        [command] if is_submit(&command.content) => Answer::Submit,
        [command] if command.content.trim().is_empty() => Answer::Unreadable(Trouble::NoCommand),
        [command] if command.content.len() > LONGEST_COMMAND_BYTES || command.content.contains('\0') => {
            Answer::Unreadable(Trouble::Unusable)
        }
        [command] => Answer::Run(command.content.clone()),
        _ => Answer::Unreadable(Trouble::SeveralCommands),
    }
}

/// The fenced blocks of a text, and the lines outside. A block ends with a line of at least as many backticks as it began
/// with, so that a longer fence can hold a shorter one; the last one may also end with the text.
fn blocks(text: &str) -> (Vec<Block>, Vec<&str>) {
    let (mut blocks, mut outside): (Vec<Block>, Vec<&str>) = (Vec::new(), Vec::new());
    let mut fence = 0;
    for line in text.lines() {
        let bare = line.trim();
        let ticks = bare.len() - bare.trim_start_matches('`').len();
        let rest = &bare[ticks..];
        match blocks.last_mut() {
            Some(block) if !block.closed => {
                if ticks >= fence && rest.is_empty() {
                    block.closed = true;
                } else {
                    block.content.push_str(line);
                    block.content.push('\n');
                }
            }
            _ if ticks >= 3 && !rest.contains('`') => {
                fence = ticks;
                let mark = rest.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
                blocks.push(Block { mark, content: String::new(), closed: false });
            }
            _ => outside.push(line),
        }
    }
    for block in &mut blocks {
        block.content.truncate(block.content.trim_end_matches('\n').len());
    }
    (blocks, outside)
}

/// Whether a line is the word, whatever models put around it.
fn is_submit(line: &str) -> bool {
    line.trim().trim_matches(['*', '`', '.', '"', '\'']) == SUBMIT
}

#[cfg(test)]
mod tests {
    use super::*;

    fn understood(text: &str) -> Answer {
        read(text, FinishReason::Stop)
    }

    fn run(command: &str) -> Answer {
        Answer::Run(command.to_owned())
    }

    #[test]
    fn one_block_is_one_command() {
        for (text, command) in [
            ("```sh\nls -la\n```", "ls -la"),
            ("I look around first.\n\n```sh\nls -la\n```\nThen I go on.\nSUBMIT", "ls -la"),
            ("```bash\nls\n```", "ls"),
            ("```Shell script\nls\n```", "ls"),
            ("```\nls\n```", "ls"),
            ("  ```sh\n  ls\n  ```", "  ls"),
            ("```sh\nls", "ls"),
            ("```sh\ncat > a <<'EOF'\n\nx\n\nEOF\n```", "cat > a <<'EOF'\n\nx\n\nEOF"),
            ("````sh\ncat > a.md <<'EOF'\n```\ncode\n```\nEOF\n````", "cat > a.md <<'EOF'\n```\ncode\n```\nEOF"),
            ("It is like this:\n```python\nx = 1\n```\nso\n```sh\nls\n```", "ls"),
            ("```sh\nls\n```\nIt prints\n```\na b\n```", "ls"),
            ("<think>\n```sh\nrm x\n```\nno\n</think>\n```sh\nls\n```", "ls"),
        ] {
            assert_eq!(understood(text), run(command), "{text}");
        }
    }

    #[test]
    fn the_word_alone_ends_the_work() {
        for text in [
            "SUBMIT",
            "All done.\n\n**SUBMIT**\n",
            "`SUBMIT`",
            "```sh\nSUBMIT\n```",
            "```\nSUBMIT\n```",
            "<think>hm</think>SUBMIT.",
        ] {
            assert_eq!(understood(text), Answer::Submit, "{text}");
        }
    }

    #[test]
    fn everything_else_is_no_answer() {
        let long = format!("```sh\n{}\n```", "x".repeat(LONGEST_COMMAND_BYTES + 1));
        for (text, trouble) in [
            ("", Trouble::NoCommand),
            ("I would SUBMIT this now.", Trouble::NoCommand),
            ("ls -la", Trouble::NoCommand),
            ("```python\nprint(1)\n```", Trouble::NoCommand),
            ("```sh\n\n```", Trouble::NoCommand),
            ("<think>```sh\nls\n```</think>", Trouble::NoCommand),
            ("```sh\nls\n```\n```sh\nmake\n```", Trouble::SeveralCommands),
            ("```\nls\n```\n```\nmake\n```", Trouble::SeveralCommands),
            (&long, Trouble::Unusable),
            ("```sh\na\0b\n```", Trouble::Unusable),
        ] {
            assert_eq!(understood(text), Answer::Unreadable(trouble), "{text}");
        }
        assert_eq!(read("```sh\nls", FinishReason::Length), Answer::Unreadable(Trouble::CutOff));
        assert_eq!(read("```sh\nls\n```", FinishReason::Length), run("ls"));
    }

    proptest::proptest! {
        #[test]
        fn whatever_a_model_says_is_understood_or_not(text in "(```(sh)?|\n|SUBMIT|`|</think>|\\PC){0,40}") {
            let _ = read(&text, FinishReason::Length);
        }
    }
}
