//! An image with git for tests of what works on repositories.

use std::io;
use std::sync::Arc;

use tar::EntryType;

use super::own_image::{self, Root};
use super::{engine, require};
use crate::sandbox::{Hosts, ImageSettings, Runtime};

/// What customers of the tests call the image.
pub const IMAGE: &str = "git";

/// Debian's git; another one on the path may lie anywhere.
const GIT: &str = "/usr/bin/git";
/// Where git looks for itself.
const GIT_ITSELF: &str = "usr/lib/git-core/git";

/// Cells with git, on the engine of this machine, for an installation of that name; or nothing, which is said.
pub async fn hosts(instance: &str, runtime: Runtime) -> Option<Arc<Hosts>> {
    let mut settings = engine::settings(instance, runtime).await?;
    let (_, engine) = engine::engine().await?;
    let Some(version) = own_image::version(GIT, "git version ") else {
        require::skip("git", "apt-get install git: an image is made of it");
        return None;
    };
    // To be renamed when what it is made of changes.
    let reference = format!("coinop-test-git:{version}-1");
    own_image::make(&engine, IMAGE, &reference, add).await;
    settings.images.insert(0, ImageSettings { name: IMAGE.into(), reference });
    let hosts = Arc::new(Hosts::new(settings));
    hosts.sweep_leftovers().await;
    Some(hosts)
}

fn add(root: &mut Root) -> io::Result<()> {
    own_image::add_program(root, GIT)?;
    root.append_link(&mut own_image::header(EntryType::Symlink, 0o755, 0), GIT_ITSELF, GIT)
}
