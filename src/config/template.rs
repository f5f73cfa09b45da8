//! The commented configuration that `coinop init` writes: the template with some values replaced.

/// Every key with its default and a comment. A test keeps it equal to [`super::raw::RawConfig::default`].
pub const TEMPLATE: &str = include_str!("template.toml");

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

    /// The configuration file.
    pub fn render(&self) -> String {
        let mut text = self.lines.join("\n");
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::raw::RawConfig;
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
        for field in fields_of(TEMPLATE) {
            assert!(page.contains(&format!("`{field}`")), "docs/configuration.md does not describe `{field}`");
        }
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
