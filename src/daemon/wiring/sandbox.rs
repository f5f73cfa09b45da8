//! Container engines, as configured.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, Result};

use crate::config::{self, Paths};
use crate::sandbox::SandboxSettings;

/// The file that tells this installation's containers from others' on the same engine, in the data folder.
pub const INSTANCE_FILE: &str = "sandbox-instance";

/// The engines and images of the configuration.
///
/// # Errors
/// When the data folder can't be written.
pub fn settings(sandbox: &config::SandboxSettings, paths: &Paths) -> Result<SandboxSettings> {
    Ok(SandboxSettings {
        instance: instance(&paths.data_dir)?,
        hosts: sandbox.hosts.clone(),
        images: sandbox.images.clone(),
    })
}

/// This installation's id: made up once, and kept.
fn instance(folder: &Path) -> Result<String> {
    let path = folder.join(INSTANCE_FILE);
    let shown = path.display();
    fs::create_dir_all(folder).with_context(|| format!("{} can't be made", folder.display()))?;
    let fresh = format!("{:016x}", rand::random::<u64>());
    // Whole or not at all, and the first to come decides: others may be at it beside us.
    let mut file = tempfile::NamedTempFile::new_in(folder).with_context(|| format!("{shown} can't be written"))?;
    file.write_all(fresh.as_bytes()).with_context(|| format!("{shown} can't be written"))?;
    match file.persist_noclobber(&path) {
        Ok(_) => return Ok(fresh),
        Err(kept) if kept.error.kind() == ErrorKind::AlreadyExists => {}
        Err(kept) => return Err(kept.error).with_context(|| format!("{shown} can't be written")),
    }
    let kept = fs::read_to_string(&path).with_context(|| format!("{shown} can't be read"))?;
    let kept = kept.trim();
    // It becomes part of a question to the engine.
    let plain = !kept.is_empty() && kept.len() <= 64 && kept.bytes().all(|byte| byte.is_ascii_alphanumeric());
    anyhow::ensure!(plain, "{shown} is no id: remove it, and what it marked has to be removed by hand");
    Ok(kept.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installation_keeps_its_id() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let first = instance(&data).unwrap();
        assert_eq!(instance(&data).unwrap(), first);
        assert_ne!(instance(&folder.path().join("other")).unwrap(), first);
        fs::write(data.join(INSTANCE_FILE), "a,b\n").unwrap();
        assert!(instance(&data).is_err());
    }
}
