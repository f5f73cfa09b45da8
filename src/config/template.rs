//! The commented configuration that `coinop init` writes: the template with some values replaced.

use super::raw::RawEndpoint;

/// Every key with its default and a comment. A test keeps it equal to [`super::raw::RawConfig::default`].
pub const TEMPLATE: &str = include_str!("template.toml");

impl RawEndpoint {
    /// The endpoint as it is written into the configuration: what differs from the defaults.
    pub fn to_toml(&self) -> String {
        let table = |endpoint: &Self| toml::Table::try_from(endpoint).expect("texts and numbers are TOML");
        let (mut own, defaults) = (table(self), table(&Self::default()));
        own.retain(|key, value| defaults.get(key) != Some(value));
        let lines: String = own.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        format!("[[inference.endpoints]]\n{lines}")
    }
}

/// The template, with values of one's own.
#[derive(Debug, Clone)]
pub struct Template {
    lines: Vec<String>,
}

impl Default for Template {
    fn default() -> Self {
        Self { lines: TEMPLATE.lines().map(ToOwned::to_owned).collect() }
    }
}

impl Template {
    /// Replaces the value of `section.key`. Texts are quoted and escaped as TOML wants it.
    ///
    /// # Panics
    /// When the template has no such key: a mistake in the program, which a test finds.
    #[must_use]
    pub fn with(mut self, field: &str, value: impl Into<toml::Value>) -> Self {
        let (section, key) = field.rsplit_once('.').expect("fields are written section.key");
        let header = format!("[{section}]");
        let assignment = format!("{key} = ");
        let line = self
            .lines
            .iter_mut()
            .skip_while(|line| **line != header)
            .skip(1)
            .take_while(|line| !line.starts_with('['))
            .find(|line| line.starts_with(&assignment))
            .expect("every field that is set stands in the template");
        *line = format!("{assignment}{}", value.into());
        self
    }

    /// Adds an endpoint, before the section that follows `[inference]`.
    ///
    /// # Panics
    /// When the template has no such section: a mistake in the program, which a test finds.
    #[must_use]
    pub fn with_endpoint(mut self, endpoint: &RawEndpoint) -> Self {
        let section = self.lines.iter().position(|line| line == "[inference]").expect("the template has the section");
        let mut rest = self.lines.iter().skip(section + 1);
        let next = rest.position(|line| line.starts_with('[') && !line.starts_with("[["));
        let at = section + 1 + next.expect("other sections follow");
        let block = format!("{}\n", endpoint.to_toml());
        self.lines.splice(at..at, block.lines().map(ToOwned::to_owned).chain([String::new()]));
        self
    }

    /// The configuration file.
    pub fn render(&self) -> String {
        let mut text = self.lines.join("\n");
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::raw::{RawConfig, RawHost, RawImage, RawModel};
    use super::*;

    /// `section.key` of every key in a TOML table.
    fn fields(prefix: &str, table: &toml::Table, found: &mut Vec<String>) {
        for (key, value) in table {
            let field = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            match value {
                toml::Value::Table(inner) => fields(&field, inner, found),
                _ => found.push(field),
            }
        }
    }

    fn fields_of(text: &str) -> Vec<String> {
        let mut found = Vec::new();
        fields("", &text.parse::<toml::Table>().unwrap(), &mut found);
        found.sort();
        found
    }

    #[test]
    fn the_template_says_the_defaults_and_every_key() {
        let parsed: RawConfig = toml::from_str(TEMPLATE).unwrap();
        assert_eq!(parsed, RawConfig::default());
        assert_eq!(fields_of(TEMPLATE), fields_of(&toml::to_string(&RawConfig::default()).unwrap()));
    }

    #[test]
    fn every_key_of_the_template_is_documented() {
        let page = include_str!("../../docs/configuration.md");
        let lists = [
            ("inference.endpoints", toml::Table::try_from(RawEndpoint::default()).unwrap()),
            ("inference.models", toml::Table::try_from(RawModel::default()).unwrap()),
            ("sandbox.hosts", toml::Table::try_from(RawHost::default()).unwrap()),
            ("sandbox.images", toml::Table::try_from(RawImage::default()).unwrap()),
        ];
        let listed = lists.iter().flat_map(|(list, keys)| keys.keys().map(move |key| format!("{list}.{key}")));
        for field in fields_of(TEMPLATE).into_iter().chain(listed) {
            assert!(page.contains(&format!("`{field}`")), "docs/configuration.md does not describe `{field}`");
        }
    }

    #[test]
    fn the_examples_in_the_template_can_be_used() {
        let examples_from = |first: &str| -> RawConfig {
            let examples = TEMPLATE.lines().skip_while(|line| !line.contains(first));
            let examples =
                examples.take_while(|line| !line.starts_with('[')).filter_map(|line| line.strip_prefix("# "));
            let text: String = examples
                .filter(|line| line.contains('=') || line.starts_with("[["))
                .map(|line| line.to_owned() + "\n")
                .collect();
            toml::from_str(&text).unwrap()
        };
        let parsed = examples_from("[[sandbox.hosts]]");
        assert_eq!((parsed.sandbox.hosts[0].slots, parsed.sandbox.images[0].name.as_str()), (8, "default"));
        let parsed = examples_from("[[inference.endpoints]]");
        assert_eq!((parsed.inference.endpoints.len(), parsed.inference.models.len()), (1, 1));
        assert_eq!(parsed.inference.endpoints[0].slots, 16);
    }

    #[test]
    fn an_added_endpoint_reads_back_beside_replaced_values() {
        let endpoint = RawEndpoint {
            backend: "ollama".into(),
            url: "http://127.0.0.1:11434".into(),
            models: vec!["a:1b".into(), "b".into()],
            ..RawEndpoint::default()
        };
        let other = RawEndpoint { backend: "echo".into(), ..RawEndpoint::default() };
        let text = Template::default()
            .with_endpoint(&endpoint)
            .with_endpoint(&other)
            .with("wallet.backend", "fake")
            .with("inference.context", 4_096)
            .render();
        let parsed: RawConfig = toml::from_str(&text).unwrap();
        assert_eq!(parsed.inference.endpoints, [endpoint, other]);
        assert_eq!((parsed.wallet.backend.as_str(), parsed.inference.context), ("fake", 4_096));
    }

    #[test]
    fn a_replaced_value_reads_back_whatever_is_in_it() {
        let nasty = "a \"quoted\" \\ name\nwith = [lines] # and é";
        let text = Template::default()
            .with("profile.name", nasty)
            .with("relays.urls", vec!["ws://127.0.0.1:1"])
            .with("wallet.nwc.connection", "env:X")
            .with("text.free_per_day", 3)
            .render();
        let parsed: RawConfig = toml::from_str(&text).unwrap();
        let mut wanted = RawConfig::default();
        wanted.profile.name = nasty.into();
        wanted.relays.urls = vec!["ws://127.0.0.1:1".into()];
        wanted.wallet.nwc.connection = "env:X".into();
        wanted.text.free_per_day = 3;
        assert_eq!(parsed, wanted);
    }
}
