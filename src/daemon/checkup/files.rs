//! What lies on this machine: what is missing to serve, who may read what, the database, another provider.

use std::path::Path;

use super::Finding;
use crate::config::{Config, Paths, PayFrom, SecretRef};
#[cfg(unix)]
use crate::daemon::lock::ServeLock;
use crate::store::{Store, StoreError};

/// Permission bits of group and others.
#[cfg(unix)]
const OTHERS: u32 = 0o077;

/// Those of them that allow to change something.
#[cfg(unix)]
const OTHERS_CHANGE: u32 = 0o022;

/// What is missing before anything can be sold.
pub(super) fn ready(config: &Config) -> Vec<Finding> {
    let missing = config.missing_to_serve();
    if missing.is_empty() {
        return vec![Finding::ok("ready", "everything 'coinop serve' needs is configured")];
    }
    missing.iter().map(|problem| Finding::failed("ready", &problem.what, &problem.cure).about(&problem.field)).collect()
}

/// Whether another provider serves from the same folder.
pub(super) fn provider(paths: &Paths) -> Finding {
    match ServeLock::is_held(&paths.data_dir) {
        Ok(true) => Finding::ok("provider", "a provider is serving from this folder"),
        Ok(false) => Finding::ok("provider", "no provider is serving from this folder"),
        Err(error) => Finding::failed("provider", error.to_string(), "give the file to the user who runs coinop"),
    }
}

/// Whether the database opens, and whether the books in it are in order.
pub(super) async fn database(path: &Path) -> Vec<Finding> {
    if !path.exists() {
        return vec![Finding::ok("database", "there is none yet; the first 'coinop serve' makes it")];
    }
    let (store, closing) = match Store::open(path) {
        Ok(open) => open,
        Err(error) => return vec![Finding::failed("database", error.to_string(), cure(&error))],
    };
    let books = match store.check_books().await {
        Ok(wrong) if wrong.is_empty() => Finding::ok("books", "in order: every entry balances"),
        Ok(wrong) => Finding::failed(
            "books",
            wrong.join("; "),
            "a fault of coinop or of the disk: keep a copy of the database and report it; 'coinop ledger' shows the books",
        ),
        Err(error) => Finding::failed("books", error.to_string(), cure(&error)),
    };
    drop(store);
    closing.wait();
    vec![Finding::ok("database", format!("{} opens", path.display())), books]
}

fn cure(error: &StoreError) -> &'static str {
    match error {
        StoreError::Open { .. } => "does it belong to the user who runs coinop, and is the disk not full?",
        StoreError::Migration(_) => "use the coinop that wrote it, or a newer one",
        StoreError::Corrupt { .. } => "restore the file from a backup, and report it if the disk is fine",
        _ => "is the disk full or failing, or is another program writing to it?",
    }
}

/// Whether others on this machine can read or change what they must not.
#[cfg(unix)]
pub(super) fn permissions(paths: &Paths, config: &Config) -> Vec<Finding> {
    let check = "permissions";
    let mut found = Vec::new();
    let mut look = |path: &Path, judge: &dyn Fn(u32) -> Finding| {
        use std::os::unix::fs::PermissionsExt as _;
        // What is not there is for other checks to miss.
        if let Ok(about) = path.metadata() {
            found.push(judge(about.permissions().mode() & OTHERS).about(path.display().to_string()));
        }
    };
    let chmod = |mode: &str, path: &Path| format!("chmod {mode} {}", path.display());

    let keystore = config.identity.keystore.path();
    look(keystore, &|others| match others {
        0 => Finding::ok(check, "the identity is for its owner alone"),
        _ => Finding::failed(check, "other users can read or change the identity", chmod("600", keystore)),
    });
    let file = &paths.config_file;
    look(file, &|others| match others & OTHERS_CHANGE {
        0 => Finding::ok(check, "only its owner can change the configuration"),
        _ => {
            Finding::failed(check, "other users can change the configuration, and so who is paid", chmod("go-w", file))
        }
    });
    let data = &paths.data_dir;
    look(data, &|others| match (others, others & OTHERS_CHANGE) {
        (0, _) => Finding::ok(check, "the data folder is for its owner alone"),
        (_, 0) => Finding::warning(check, "other users can look into the data folder", chmod("700", data)),
        _ => Finding::failed(check, "other users can change what is in the data folder", chmod("700", data)),
    });
    for path in secret_files(config) {
        look(path, &|others| match others {
            0 => Finding::ok(check, "the secret is for its owner alone"),
            _ => Finding::warning(check, "other users can read or change the secret", chmod("600", path)),
        });
    }
    found.extend(writable(data));
    found
}

/// This system has no such permissions.
#[cfg(not(unix))]
pub(super) fn permissions(paths: &Paths, _: &Config) -> Vec<Finding> {
    let unknown =
        Finding::skipped("permissions", "only known of on Unix: see that nobody else can read the data folder");
    writable(&paths.data_dir).into_iter().chain([unknown]).collect()
}

/// Whether we can write where the database is.
fn writable(data: &Path) -> Option<Finding> {
    let check = "data";
    if !data.exists() {
        return Some(Finding::skipped(check, "there is no data folder yet; 'coinop init' or 'coinop serve' makes it"));
    }
    Some(match tempfile::tempfile_in(data) {
        Ok(_) => Finding::ok(check, format!("{} can be written to", data.display())),
        Err(error) => Finding::failed(
            check,
            format!("{} can't be written to: {error}", data.display()),
            "give the folder to the user who runs coinop, and see that the disk is not full or read-only",
        ),
    })
}

/// Files that hold a secret the configuration refers to.
#[cfg(unix)]
fn secret_files(config: &Config) -> impl Iterator<Item = &Path> {
    let purse = match &config.requester.wallet {
        Some(PayFrom::Nwc(connection)) => Some(connection),
        Some(PayFrom::Own) | None => None,
    };
    let wallet = config.wallet.secrets().into_iter().map(|(_, secret)| secret);
    wallet.chain(purse).filter_map(|secret| match secret {
        SecretRef::File(path) => Some(path.as_path()),
        SecretRef::Env(_) => None,
    })
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::Verdict;
    use super::*;
    use crate::config::RawConfig;

    fn installation(home: &Path) -> (Paths, Config) {
        let paths = Paths::find(Some(home), None).unwrap();
        let text = "wallet.backend = \"nwc\"\nwallet.nwc.connection = \"file:nwc\"\n";
        for (name, content) in [("config.toml", text), ("identity.keystore", "x"), ("nwc", "x")] {
            fs::write(home.join(name), content).unwrap();
            fs::set_permissions(home.join(name), Permissions::from_mode(0o600)).unwrap();
        }
        fs::set_permissions(home, Permissions::from_mode(0o700)).unwrap();
        let config = Config::resolve(&RawConfig::parse(text, &paths.config_file).unwrap(), &paths).unwrap();
        (paths, config)
    }

    fn worst(paths: &Paths, config: &Config) -> Verdict {
        permissions(paths, config).iter().map(|finding| finding.verdict).max().unwrap()
    }

    #[test]
    fn what_others_may_read_or_change_is_found_with_the_command_that_cures_it() {
        let home = tempfile::tempdir().unwrap();
        let (paths, config) = installation(home.path());
        assert_eq!(worst(&paths, &config), Verdict::Ok);

        for (name, wrong, right, verdict) in [
            ("identity.keystore", 0o640, 0o600, Verdict::Failed),
            ("config.toml", 0o644, 0o600, Verdict::Ok),
            ("config.toml", 0o664, 0o600, Verdict::Failed),
            ("nwc", 0o644, 0o600, Verdict::Warning),
            ("", 0o755, 0o700, Verdict::Warning),
            ("", 0o777, 0o700, Verdict::Failed),
        ] {
            let path = home.path().join(name);
            fs::set_permissions(&path, Permissions::from_mode(wrong)).unwrap();
            assert_eq!(worst(&paths, &config), verdict, "{name} {wrong:o}");
            let cures: Vec<_> = permissions(&paths, &config).into_iter().filter_map(|finding| finding.cure).collect();
            assert!(cures.iter().all(|cure| cure.starts_with("chmod ")), "{cures:?}");
            fs::set_permissions(&path, Permissions::from_mode(right)).unwrap();
        }
    }

    #[tokio::test]
    async fn a_file_that_is_no_database_is_found_and_none_is_made() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("coinop.db");
        assert_eq!(database(&path).await[0].verdict, Verdict::Ok);
        assert!(!path.exists());
        fs::write(&path, "this is no database, but long enough to look like one at a glance".repeat(100)).unwrap();
        let found = database(&path).await;
        assert_eq!(found[0].verdict, Verdict::Failed, "{found:?}");
        assert!(found[0].cure.is_some());
    }
}
