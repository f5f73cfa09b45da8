//! `pom.xml`, of Maven.

use quick_xml::Reader;
use quick_xml::events::Event;

use super::{Found, Unreadable};

/// Elements within elements: a real file has ten or so.
const DEEPEST: usize = 64;

#[derive(Default)]
struct Package {
    group: String,
    name: String,
    version: String,
    scope: String,
}

/// The dependencies of a project. Nothing that the file defines or refers to is put in its place: a reader of XML that does
/// that can be made to grow without end.
pub(super) fn project(text: &str) -> Result<Found, Unreadable> {
    let wrong = Unreadable::Not("XML");
    let mut reader = Reader::from_str(text);
    let mut found = Found::new();
    let mut open: Vec<String> = Vec::new();
    let mut package: Option<Package> = None;
    loop {
        match reader.read_event().map_err(|_| wrong)? {
            Event::Start(start) => {
                if open.len() >= DEEPEST {
                    return Err(wrong);
                }
                let name = start.local_name().as_ref().to_owned();
                if name == "dependency" && open.last().is_some_and(|parent| parent == "dependencies") {
                    package = Some(Package::default());
                }
                open.push(name);
            }
            Event::Text(said) => {
                let within = open.len().checked_sub(2).and_then(|at| open.get(at));
                if let (Some(package), true) = (&mut package, within.is_some_and(|within| within == "dependency")) {
                    let field = match open.last().map(String::as_str) {
                        Some("groupId") => &mut package.group,
                        Some("artifactId") => &mut package.name,
                        Some("version") => &mut package.version,
                        Some("scope") => &mut package.scope,
                        _ => continue,
                    };
                    field.push_str(said.trim());
                }
            }
            Event::End(_) => {
                if open.pop().is_some_and(|name| name == "dependency")
                    && let Some(Package { group, name, version, scope }) = package.take()
                    && !name.is_empty()
                {
                    // A version may be the name of another place's.
                    let version = (!version.is_empty() && !version.contains("${")).then_some(version);
                    found.push((format!("{group}:{name}"), version, scope == "test"));
                }
            }
            Event::Eof if open.is_empty() => return Ok(found),
            Event::Eof => return Err(wrong),
            _ => {}
        }
    }
}
