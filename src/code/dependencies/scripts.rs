//! Manifests and lock files of JavaScript's tools.

use serde_json::{Map, Value};

use super::{Found, Unreadable};

fn object(text: &str) -> Result<Map<String, Value>, Unreadable> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        _ => Err(Unreadable::Not("JSON object")),
    }
}

fn text(value: Option<&Value>) -> Option<String> {
    value?.as_str().map(str::to_owned)
}

/// `package.json`.
pub(super) fn manifest(manifest: &str) -> Result<Found, Unreadable> {
    let manifest = object(manifest)?;
    let mut found = Found::new();
    for (key, dev) in [
        ("dependencies", false),
        ("optionalDependencies", false),
        ("peerDependencies", false),
        ("devDependencies", true),
    ] {
        let listed = manifest.get(key).and_then(Value::as_object).into_iter().flatten();
        found.extend(listed.map(|(name, version)| (name.clone(), text(Some(version)), dev)));
    }
    Ok(found)
}

/// `package-lock.json`: a flat list of places today, a tree before.
pub(super) fn npm_lock(lock: &str) -> Result<Found, Unreadable> {
    let lock = object(lock)?;
    let is_dev = |package: &Value| package.get("dev").and_then(Value::as_bool).unwrap_or(false);
    let mut found = Found::new();
    if let Some(packages) = lock.get("packages").and_then(Value::as_object) {
        for (place, package) in packages {
            // What lies elsewhere is the project's own.
            let Some((_, name)) = place.rsplit_once("node_modules/") else { continue };
            let name = text(package.get("name")).unwrap_or_else(|| name.to_owned());
            found.push((name, text(package.get("version")), is_dev(package)));
        }
        return Ok(found);
    }
    // The parser of JSON has bounded how deep this goes.
    let mut trees = vec![lock.get("dependencies")];
    while let Some(tree) = trees.pop() {
        for (name, package) in tree.and_then(Value::as_object).into_iter().flatten() {
            found.push((name.clone(), text(package.get("version")), is_dev(package)));
            trees.push(package.get("dependencies"));
        }
    }
    Ok(found)
}

/// `yarn.lock` of the first version and of later ones: a line with what was asked for, below it the version.
pub(super) fn yarn_lock(lock: &str) -> Result<Found, Unreadable> {
    let mut found = Found::new();
    let mut name: Option<&str> = None;
    for line in lock.lines() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        if !line.starts_with(' ') {
            let first = line.trim_end().strip_suffix(':').ok_or(Unreadable::Not("lock file of yarn"))?;
            let first = first.split(", ").next().unwrap_or_default().trim_matches('"');
            // The first character may be the @ of a scope.
            let end = first.char_indices().skip(1).find(|(_, c)| *c == '@').map(|(at, _)| at);
            name = end.and_then(|end| first.get(..end));
        } else if let Some(version) = line.strip_prefix("  version") {
            let version = version.trim_start_matches(':').trim().trim_matches('"');
            // What lies in the project has no version that anybody could get.
            if let Some(name) = name.take().filter(|_| version != "0.0.0-use.local") {
                found.push((name.to_owned(), Some(version.to_owned()), false));
            }
        }
    }
    Ok(found)
}
