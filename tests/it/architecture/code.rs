//! What Rust code names: its words and modules, without comments, literals and tests.

/// Blanks comments, strings and characters; every byte keeps its place.
pub fn without_comments_and_literals(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let blank = |out: &mut [u8], from: usize, to: usize| {
        for byte in &mut out[from..to.min(bytes.len())] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
    };
    let find = |from: usize, what: &str| text.get(from..).and_then(|rest| rest.find(what)).map(|at| from + at);
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let after_word = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
        let hashes = rest.iter().skip(1).take_while(|byte| **byte == b'#').count();
        let end = if rest.starts_with(b"//") {
            find(at, "\n").unwrap_or(bytes.len())
        } else if rest.starts_with(b"/*") {
            end_of_block_comment(bytes, at)
        } else if !after_word && rest[0] == b'r' && rest.get(1 + hashes) == Some(&b'"') {
            let close = format!("\"{}", "#".repeat(hashes));
            find(at + hashes + 2, &close).map_or(bytes.len(), |close_at| close_at + close.len())
        } else if rest[0] == b'"' {
            end_of_string(bytes, at)
        } else if rest.starts_with(b"'\\") {
            // An escaped character: the quote after the escape's second byte ends it.
            find(at + 3, "'").map_or(bytes.len(), |close| close + 1)
        } else if rest[0] == b'\'' {
            // A character, unless it is a lifetime.
            let width = text[at + 1..].chars().next().map_or(0, char::len_utf8);
            if bytes.get(at + 1 + width) == Some(&b'\'') { at + width + 2 } else { at }
        } else {
            at
        };
        if end > at {
            blank(&mut out, at, end);
            at = end;
        } else {
            at += 1;
        }
    }
    String::from_utf8(out).expect("whole characters were blanked")
}

fn end_of_block_comment(bytes: &[u8], from: usize) -> usize {
    let (mut at, mut depth) = (from, 0_u32);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += 1;
        }
    }
    at
}

fn end_of_string(bytes: &[u8], from: usize) -> usize {
    let mut at = from + 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

/// Blanks items under `#[cfg(test)]`.
pub fn without_tests(bare: &str) -> String {
    let mut out = bare.as_bytes().to_vec();
    for (at, _) in bare.match_indices("#[cfg(test)]") {
        let rest = &bare.as_bytes()[at..];
        let mut depth = 0_usize;
        let mut end = rest.len();
        for (offset, byte) in rest.iter().enumerate() {
            match byte {
                b'{' => depth += 1,
                b'}' if depth <= 1 => {
                    end = offset + 1;
                    break;
                }
                b'}' => depth -= 1,
                b';' if depth == 0 => {
                    end = offset + 1;
                    break;
                }
                _ => {}
            }
        }
        for byte in &mut out[at..at + end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
    }
    String::from_utf8(out).expect("only ASCII was blanked around")
}

/// Where `word` stands as a whole word. A word may be a path (`std::env`).
pub fn names<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let part = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let bytes = code.as_bytes();
        !part(at.checked_sub(1).and_then(|before| bytes.get(before))) && !part(bytes.get(at + word.len()))
    })
}

/// The top modules of this crate that code names, with the line: `crate::x`, and each of `crate::{x, y}`.
pub fn modules_named(code: &str) -> Vec<(usize, String)> {
    let mut named = Vec::new();
    for at in names(code, "crate") {
        let Some(rest) = code[at + "crate".len()..].strip_prefix("::") else { continue };
        let line = line_of(code, at);
        match rest.strip_prefix('{') {
            None => named.push((line, word_at(rest))),
            Some(group) => named.extend(heads_of_group(group).into_iter().map(|head| (line, head))),
        }
    }
    // Macros of the crate are named at its root; capitals are re-exports.
    named.retain(|(_, name)| !name.is_empty() && !name.ends_with("_contract"));
    named
}

fn heads_of_group(group: &str) -> Vec<String> {
    let (mut depth, mut heads, mut fresh) = (0_usize, Vec::new(), true);
    for (at, byte) in group.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 0 => break,
            b'}' => depth -= 1,
            b',' if depth == 0 => fresh = true,
            byte if fresh && !byte.is_ascii_whitespace() => {
                heads.push(word_at(&group[at..]));
                fresh = false;
            }
            _ => {}
        }
    }
    heads
}

fn word_at(text: &str) -> String {
    text.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect()
}

pub fn line_of(code: &str, at: usize) -> usize {
    code[..at].bytes().filter(|byte| *byte == b'\n').count() + 1
}

#[test]
fn the_reader_of_sources_is_not_fooled() {
    let text = "let a = \"tokio // \\\" \"; // tokio\nlet b = r#\"tokio\"#; /* tokio /* */ */ let c = '\"'; let d = '\\''; tokio\n";
    let bare = without_comments_and_literals(text);
    assert_eq!(bare.len(), text.len());
    assert_eq!(names(&bare, "tokio").map(|at| line_of(&bare, at)).collect::<Vec<_>>(), [2]);
    let tested = without_tests("use a; #[cfg(test)]\nmod tests { fn f() { tokio() } } fn g<'a>() {}");
    assert!(names(&tested, "tokio").next().is_none() && tested.contains("fn g"));
    let named = modules_named("use crate::{store::{A, B}, money::Msat}; crate::job::x();");
    let named: Vec<_> = named.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(named, ["store", "money", "job"]);
}
