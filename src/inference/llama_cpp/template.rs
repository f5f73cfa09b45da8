//! The marks of a chat template: what its text looks like where a message begins, ends, or belongs to somebody.

/// Longest mark, in characters.
const LONGEST: usize = 48;

/// Everything in a template that has the shape of a mark: `<…>` without a space, and `[…]` in capitals. That is more than the
/// model's control tokens, and may be: it only costs a customer who writes one a space within it.
pub(super) fn marks(template: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, opening) in template.char_indices().filter(|(_, character)| matches!(character, '<' | '[')) {
        let closing = if opening == '<' { '>' } else { ']' };
        let inside = template[at + 1..].chars().take(LONGEST).take_while(|character| *character != closing);
        let inside: String = inside.collect();
        let is_closed = template[at + 1 + inside.len()..].starts_with(closing);
        let is_mark = if opening == '<' { is_tag(&inside) } else { is_bracketed(&inside) };
        if is_closed && is_mark {
            found.push(format!("{opening}{inside}{closing}"));
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn is_tag(inside: &str) -> bool {
    let breaks = |character: char| character.is_whitespace() || "<'\"{}".contains(character);
    inside.chars().any(char::is_alphanumeric) && !inside.contains(breaks)
}

/// Not `[0]` or `[::-1]`, which are of the template's own language.
fn is_bracketed(inside: &str) -> bool {
    let is_capital = |character: char| character.is_ascii_uppercase() || matches!(character, '_' | '/');
    inside.chars().any(|character| character.is_ascii_uppercase()) && inside.chars().all(is_capital)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_and_the_templates_own_language_is_not() {
        let template = "{% if a < b and c > d %}{{ messages[0]['role'] }}{{ messages[::-1] }}<|im_start|>{{ role }}\n<｜User｜>\
            [INST] {{ '<tool_call>' }}</think>[/AVAILABLE_TOOLS]{{ '<|' + role + '|>' }}<s>{{ x[A] }}[GMASK";
        let expected =
            ["</think>", "<s>", "<tool_call>", "<|im_start|>", "<｜User｜>", "[/AVAILABLE_TOOLS]", "[A]", "[INST]"];
        assert_eq!(marks(template), expected);
    }

    #[test]
    fn a_broken_or_endless_template_has_no_marks() {
        for template in ["", "<", "[", "<>", "[]", "< a>", "<a", &format!("<{}>", "x".repeat(1_000))] {
            assert_eq!(marks(template), [""; 0], "{template}");
        }
    }
}
