//! Manifests and lock files that are read line by line.

use super::{Found, Unreadable};

/// `requirements.txt`.
pub(super) fn requirements(text: &str) -> Result<Found, Unreadable> {
    Ok(text.lines().filter_map(|line| python_requirement(line, false)).collect())
}

/// `requirements-dev.txt` and the like.
pub(super) fn requirements_to_develop(text: &str) -> Result<Found, Unreadable> {
    Ok(text.lines().filter_map(|line| python_requirement(line, true)).collect())
}

/// `name[extra] >= 1, < 2; marker  # comment`. Options, addresses and paths are no packages with a name.
pub(super) fn python_requirement(line: &str, dev: bool) -> Option<(String, Option<String>, bool)> {
    let line = line.split(" #").next()?.trim();
    let line = line.split(" --").next()?.trim_end_matches('\\').trim();
    if line.starts_with(['#', '-', '.', '/']) {
        return None;
    }
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let (name, rest) = line.split_at(line.find(|c| !is_name(c)).unwrap_or(line.len()));
    let rest = rest.trim_start();
    let rest = match rest.strip_prefix('[') {
        Some(extras) => extras.split_once(']')?.1,
        None => rest,
    };
    let version = rest.split(';').next()?.trim();
    if name.is_empty() || version.contains("://") && !version.starts_with('@') {
        return None;
    }
    let is_version = version.starts_with(['=', '<', '>', '~', '!', '(', '@']);
    (version.is_empty() || is_version).then(|| {
        let version = version.trim_start_matches('(').trim_end_matches(')');
        (name.to_owned(), (!version.is_empty()).then(|| version.to_owned()), dev)
    })
}

/// `go.mod`.
pub(super) fn go_module(text: &str) -> Result<Found, Unreadable> {
    let mut found = Found::new();
    let (mut in_list, mut has_module) = (false, false);
    for line in text.lines() {
        let line = line.split("//").next().unwrap_or_default().trim();
        has_module |= line.starts_with("module ");
        let required = match line.strip_prefix("require ") {
            Some(rest) if rest.trim() == "(" => {
                in_list = true;
                continue;
            }
            Some(rest) => rest,
            None if line == ")" => {
                in_list = false;
                continue;
            }
            None if in_list => line,
            None => continue,
        };
        if let Some((name, version)) = required.trim().split_once(char::is_whitespace) {
            found.push((name.trim_matches('"').to_owned(), Some(version.trim().to_owned()), false));
        }
    }
    if has_module { Ok(found) } else { Err(Unreadable::Not("go.mod")) }
}

/// `Gemfile.lock`: packages stand four spaces deep below `specs:`, what they need themselves six.
pub(super) fn gem_lock(text: &str) -> Result<Found, Unreadable> {
    let spec = |line: &str| {
        let line = line.strip_prefix("    ").filter(|line| !line.starts_with(' '))?;
        let (name, version) = line.split_once(" (")?;
        Some((name.to_owned(), Some(version.strip_suffix(')')?.to_owned()), false))
    };
    Ok(text.lines().filter_map(spec).collect())
}

/// `build.gradle`: only what is written out, as `implementation 'group:name:1.0'`. It is a program, and nobody runs it here.
pub(super) fn gradle(text: &str) -> Result<Found, Unreadable> {
    let found = text.lines().filter_map(|line| {
        let line = line.trim();
        let end = line.find(|c: char| !c.is_ascii_alphanumeric())?;
        let (configuration, rest) = line.split_at(end);
        let ends = ["implementation", "api", "compile", "only", "classpath", "processor", "kapt", "ksp"];
        let configuration = configuration.to_ascii_lowercase();
        if !ends.iter().any(|known| configuration.ends_with(known)) {
            return None;
        }
        let quote = rest.chars().find(|c| matches!(c, '\'' | '"'))?;
        let coordinates = rest.split(quote).nth(1)?;
        let mut parts = coordinates.split(':');
        let (group, name) = (parts.next()?, parts.next()?);
        let version = parts.next().filter(|version| !version.contains('$')).map(str::to_owned);
        Some((format!("{group}:{name}"), version, configuration.starts_with("test")))
    });
    Ok(found.collect())
}
