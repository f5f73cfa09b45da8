//! The end of what an agent did, for the customer of work that failed.

use serde_json::Value;

/// Bytes of a log: what fits into feedback.
pub(super) const LOG_BYTES: usize = 8 * 1024;

/// Bytes of one entry.
const ENTRY_BYTES: usize = 2 * 1024;

/// The end of a transcript, in lines that people read: what was answered, run and printed. Entries of a form that is not our own
/// stand as they are.
pub(super) fn end_of(transcript: &str) -> String {
    let mut entries: Vec<String> = Vec::new();
    let mut bytes = 0;
    for line in transcript.lines().rev() {
        let Some(entry) = entry(line) else { continue };
        let entry = end(&entry, ENTRY_BYTES);
        bytes += entry.len() + 1;
        if bytes > LOG_BYTES {
            break;
        }
        entries.push(entry);
    }
    entries.reverse();
    entries.join("\n")
}

fn entry(line: &str) -> Option<String> {
    let Ok(event) = serde_json::from_str::<Value>(line) else { return Some(line.to_owned()) };
    let text = |key: &str| event[key].as_str().unwrap_or_default().trim_end().to_owned();
    match event["event"].as_str() {
        Some("answered") => Some(format!("> {}", text("text").replace('\n', "\n> "))),
        Some("corrected") => Some(format!("({})", text("text"))),
        Some("ran") => {
            let printed = |key: &str| event[key]["text"].as_str().unwrap_or_default().trim_end().to_owned();
            let outputs = [printed("stdout"), printed("stderr")];
            let outputs: Vec<String> = outputs.into_iter().filter(|output| !output.is_empty()).collect();
            Some([vec![format!("(exit code {})", event["exit_code"])], outputs].concat().join("\n"))
        }
        Some("stopped") => Some(format!("(stopped: {})", text("stopped").replace('_', " "))),
        Some("began" | "told" | "condensed" | "cut") => None,
        _ => Some(line.to_owned()),
    }
}

/// The end of a text, in whole characters.
pub(super) fn end(text: &str, most_bytes: usize) -> String {
    if text.len() <= most_bytes {
        return text.to_owned();
    }
    format!("[…]{}", &text[text.ceil_char_boundary(text.len() - most_bytes)..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_transcript_is_told_in_order() {
        let transcript = concat!(
            "{\"event\":\"began\",\"version\":1}\n",
            "{\"event\":\"told\",\"role\":\"user\",\"text\":\"the issue\"}\n",
            "{\"event\":\"answered\",\"text\":\"I look.\\nls\"}\n",
            "{\"event\":\"ran\",\"exit_code\":2,\"stdout\":{\"text\":\"a\\n\"},\"stderr\":{\"text\":\"oh\\n\"}}\n",
            "{\"event\":\"corrected\",\"text\":\"No.\"}\n",
            "{\"event\":\"stopped\",\"stopped\":\"out_of_steps\"}\n",
            "{\"other\":1}\nno JSON\n",
        );
        let expected = "> I look.\n> ls\n(exit code 2)\na\noh\n(No.)\n(stopped: out of steps)\n{\"other\":1}\nno JSON";
        assert_eq!(end_of(transcript), expected);
    }

    #[test]
    fn a_log_is_bounded() {
        let long = format!("{{\"event\":\"answered\",\"text\":\"{}\"}}\n", "é".repeat(10_000));
        let log = end_of(&long.repeat(10));
        assert!(log.len() <= LOG_BYTES && log.len() > LOG_BYTES / 2, "{}", log.len());
    }
}
