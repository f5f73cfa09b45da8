//! Manifests and lock files in TOML: of Cargo and of Python's tools.

use toml::{Table, Value};

use super::lines::python_requirement;
use super::{Found, Unreadable};

fn table(text: &str) -> Result<Table, Unreadable> {
    text.parse().map_err(|_| Unreadable::Not("TOML"))
}

fn inner<'a>(table: &'a Table, path: &[&str]) -> Option<&'a Table> {
    path.iter().try_fold(table, |table, key| table.get(*key)?.as_table())
}

fn tables<'a>(table: &'a Table, key: &str) -> impl Iterator<Item = &'a Table> {
    table.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_table)
}

fn text(table: &Table, key: &str) -> Option<String> {
    table.get(key)?.as_str().map(str::to_owned)
}

/// `name = "1"` and `name = { version = "1" }`.
fn listed(found: &mut Found, table: Option<&Table>, dev: bool) {
    for (key, value) in table.into_iter().flatten() {
        let (name, version) = match value {
            Value::String(version) => (key.clone(), Some(version.clone())),
            Value::Table(details) => {
                (text(details, "package").unwrap_or_else(|| key.clone()), text(details, "version"))
            }
            _ => (key.clone(), None),
        };
        found.push((name, version, dev));
    }
}

/// `Cargo.toml`.
pub(super) fn cargo_manifest(manifest: &str) -> Result<Found, Unreadable> {
    let manifest = table(manifest)?;
    let mut found = Found::new();
    let targets = inner(&manifest, &["target"]).into_iter().flatten().filter_map(|(_, target)| target.as_table());
    for part in std::iter::once(&manifest).chain(targets) {
        listed(&mut found, inner(part, &["dependencies"]), false);
        listed(&mut found, inner(part, &["build-dependencies"]), false);
        listed(&mut found, inner(part, &["dev-dependencies"]), true);
    }
    listed(&mut found, inner(&manifest, &["workspace", "dependencies"]), false);
    Ok(found)
}

/// `Cargo.lock`: what does not come from elsewhere is the project itself.
pub(super) fn cargo_lock(lock: &str) -> Result<Found, Unreadable> {
    let lock = table(lock)?;
    let outside = tables(&lock, "package").filter(|package| package.contains_key("source"));
    Ok(outside.filter_map(|package| Some((text(package, "name")?, text(package, "version"), false))).collect())
}

/// `poetry.lock` and `uv.lock`.
pub(super) fn python_lock(lock: &str) -> Result<Found, Unreadable> {
    let lock = table(lock)?;
    let is_own = |package: &Table| {
        let source = inner(package, &["source"]);
        source.is_some_and(|source| source.contains_key("virtual") || source.contains_key("editable"))
    };
    let packages = tables(&lock, "package").filter(|package| !is_own(package));
    let one = |package: &Table| {
        let dev = package.get("category").and_then(Value::as_str) == Some("dev");
        Some((text(package, "name")?, text(package, "version"), dev))
    };
    Ok(packages.filter_map(one).collect())
}

/// `pyproject.toml`, as the standard has it and as Poetry did.
pub(super) fn pyproject(manifest: &str) -> Result<Found, Unreadable> {
    let manifest = table(manifest)?;
    let mut found = Found::new();
    let mut requirements = |list: Option<&Value>, dev: bool| {
        let texts = list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        found.extend(texts.filter_map(|text| python_requirement(text, dev)));
    };
    if let Some(project) = inner(&manifest, &["project"]) {
        requirements(project.get("dependencies"), false);
        for (_, list) in inner(project, &["optional-dependencies"]).into_iter().flatten() {
            requirements(Some(list), false);
        }
    }
    for (_, list) in inner(&manifest, &["dependency-groups"]).into_iter().flatten() {
        requirements(Some(list), true);
    }
    let mut poetry = Found::new();
    if let Some(tool) = inner(&manifest, &["tool", "poetry"]) {
        listed(&mut poetry, inner(tool, &["dependencies"]), false);
        listed(&mut poetry, inner(tool, &["dev-dependencies"]), true);
        for (_, group) in inner(tool, &["group"]).into_iter().flatten() {
            listed(&mut poetry, group.as_table().and_then(|group| inner(group, &["dependencies"])), true);
        }
    }
    // Not a package: the language itself.
    poetry.retain(|(name, ..)| name != "python");
    found.append(&mut poetry);
    Ok(found)
}
