//! Where things are kept: the XDG folders, or one folder of the operator's choice.

use std::path::{Path, PathBuf};

use directories::ProjectDirs;

use super::error::ConfigError;

/// The configuration's file name.
const CONFIG_FILE: &str = "config.toml";
/// The keystore's, in the data folder.
const KEYSTORE_FILE: &str = "identity.keystore";
/// The database's, in the data folder.
const DATABASE_FILE: &str = "coinop.db";
/// The payments book's, in the data folder.
const PAYMENTS_FILE: &str = "payments.db";

/// The places of one installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// The configuration.
    pub config_file: PathBuf,
    /// Whether the operator named the configuration, so that it must be there.
    pub config_named: bool,
    /// Where coinop keeps what it writes.
    pub data_dir: PathBuf,
}

impl Paths {
    /// Finds the places. With `home` (`--home`, `COINOP_HOME`) everything is in that folder; else the configuration is in
    /// the XDG configuration folder and the rest in the XDG data folder. `config` (`--config`) names another
    /// configuration.
    ///
    /// # Errors
    /// [`ConfigError::NoHome`] when the user has no home folder and `home` is `None`.
    pub fn find(home: Option<&Path>, config: Option<&Path>) -> Result<Self, ConfigError> {
        let (config_dir, data_dir) = match home {
            Some(home) => (home.to_owned(), home.to_owned()),
            None => {
                let dirs = ProjectDirs::from("", "", "coinop").ok_or(ConfigError::NoHome)?;
                (dirs.config_dir().to_owned(), dirs.data_dir().to_owned())
            }
        };
        Ok(Self {
            config_file: config.map_or_else(|| config_dir.join(CONFIG_FILE), Path::to_owned),
            config_named: config.is_some(),
            data_dir,
        })
    }

    /// The folder relative paths in the configuration start at.
    pub fn config_dir(&self) -> &Path {
        match self.config_file.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        }
    }

    /// The keystore, unless the configuration names another.
    pub fn default_keystore(&self) -> PathBuf {
        self.data_dir.join(KEYSTORE_FILE)
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.data_dir.join(DATABASE_FILE)
    }

    /// The payments book of the buying side.
    pub fn payments(&self) -> PathBuf {
        self.data_dir.join(PAYMENTS_FILE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_of_ones_own_holds_everything() {
        let paths = Paths::find(Some(Path::new("/srv/dvm")), None).unwrap();
        assert_eq!(paths.config_file, Path::new("/srv/dvm/config.toml"));
        assert_eq!(paths.default_keystore(), Path::new("/srv/dvm/identity.keystore"));
        assert_eq!(paths.database(), Path::new("/srv/dvm/coinop.db"));
        assert!(!paths.config_named);
    }

    #[test]
    fn a_named_configuration_leaves_the_data_where_it_is() {
        let paths = Paths::find(Some(Path::new("/srv/dvm")), Some(Path::new("other.toml"))).unwrap();
        assert_eq!(paths.config_file, Path::new("other.toml"));
        assert_eq!(paths.config_dir(), Path::new("."));
        assert_eq!(paths.data_dir, Path::new("/srv/dvm"));
        assert!(paths.config_named);
    }
}
