//! The smallest image that commands can run in: one program that is a shell and a hundred tools.

use std::io;
use std::path::Path;

use bytes::Bytes;
use tar::{EntryType, Header};

/// Why there is no such image.
#[derive(Debug, thiserror::Error)]
pub enum BusyboxError {
    /// No program there.
    #[error("{path} can't be read: {error}")]
    Missing {
        /// Where it was looked for.
        path: String,
        /// What the system says.
        error: io::Error,
    },
    /// It needs libraries that are not in the image.
    #[error("{0} is not statically linked")]
    NotStatic(String),
    /// It does not say what it can do.
    #[error("{0} does not list its tools")]
    NoTools(String),
    /// The archive could not be made.
    #[error("the image could not be packed: {0}")]
    Packing(io::Error),
}

/// Folders that programs expect, beside the mount points that the engine makes.
const FOLDERS: [(&str, u32); 8] = [
    ("bin", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("proc", 0o755),
    ("sys", 0o755),
    ("tmp", 0o1777),
    ("usr/bin", 0o755),
    ("workspace", 0o755),
];

const USERS: &str = "root:x:0:0:root:/:/bin/sh\ncell:x:65532:65532:cell:/tmp:/bin/sh\n";
const GROUPS: &str = "root:x:0:\ncell:x:65532:\n";

/// The root file system of an image made of a static busybox: a tar file. `tools` are the names it answers to. Waits for the
/// disk.
///
/// # Errors
/// When the program can't be read, or is not a static one.
pub fn busybox(program: &Path, tools: &[String]) -> Result<Bytes, BusyboxError> {
    let path = program.display().to_string();
    let content = std::fs::read(program).map_err(|error| BusyboxError::Missing { path: path.clone(), error })?;
    if has_interpreter(&content) {
        return Err(BusyboxError::NotStatic(path));
    }
    let plain = |name: &&String| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
    let tools: Vec<&String> = tools.iter().filter(plain).filter(|name| *name != "busybox").collect();
    if !tools.iter().any(|name| *name == "sh") {
        return Err(BusyboxError::NoTools(path));
    }
    pack(&content, &tools).map(Bytes::from).map_err(BusyboxError::Packing)
}

/// The names that a busybox answers to, which it says itself. Waits for it.
///
/// # Errors
/// When it can't be run.
pub fn tools(program: &Path) -> Result<Vec<String>, BusyboxError> {
    let missing = |error| BusyboxError::Missing { path: program.display().to_string(), error };
    let said = std::process::Command::new(program).arg("--list").output().map_err(missing)?;
    Ok(String::from_utf8_lossy(&said.stdout).lines().map(str::to_owned).collect())
}

fn pack(program: &[u8], tools: &[&String]) -> io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (folder, mode) in FOLDERS {
        tar.append_data(&mut header(EntryType::Directory, mode, 0), format!("{folder}/"), io::empty())?;
    }
    let mut file = |path: &str, mode: u32, content: &[u8]| {
        tar.append_data(&mut header(EntryType::Regular, mode, content.len() as u64), path, content)
    };
    file("bin/busybox", 0o755, program)?;
    file("etc/passwd", 0o644, USERS.as_bytes())?;
    file("etc/group", 0o644, GROUPS.as_bytes())?;
    for tool in tools {
        tar.append_link(&mut header(EntryType::Symlink, 0o777, 0), format!("bin/{tool}"), "busybox")?;
    }
    // What scripts begin with.
    tar.append_link(&mut header(EntryType::Symlink, 0o777, 0), "usr/bin/env", "../../bin/busybox")?;
    tar.into_inner()
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header
}

/// Whether an ELF program asks for a dynamic linker. What is no ELF program of 64 bits does not run in an image by itself
/// either.
fn has_interpreter(program: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    let number = |at: usize, width: usize| -> Option<u64> {
        let bytes = program.get(at..at.checked_add(width)?)?;
        Some(bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    };
    let table = || {
        if program.get(..6)? != [0x7f, b'E', b'L', b'F', 2, 1] {
            return None;
        }
        let start = usize::try_from(number(0x20, 8)?).ok()?;
        let (size, count) = (number(0x36, 2)? as usize, number(0x38, 2)? as usize);
        (0..count).map(|index| number(start.checked_add(index * size)?, 4)).collect::<Option<Vec<_>>>()
    };
    table().is_none_or(|kinds| kinds.contains(&u64::from(PT_INTERP)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The head of an ELF program with one entry in its table.
    fn program(kind: u8) -> Vec<u8> {
        let mut program = vec![0; 0x40 + 56];
        program[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1]);
        program[0x20] = 0x40;
        program[0x36] = 56;
        program[0x38] = 1;
        program[0x40] = kind;
        program
    }

    #[test]
    fn only_a_static_program_will_do() {
        assert!(!has_interpreter(&program(1)));
        assert!(has_interpreter(&program(3)));
        assert!(has_interpreter(b"#!/bin/sh"));
        assert!(has_interpreter(&program(1)[..0x42]), "a table that is cut off says nothing");
    }

    #[test]
    fn the_image_has_a_shell_and_somebody_to_run_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("busybox");
        std::fs::write(&path, program(1)).unwrap();
        let tools = ["sh", "ls", "../evil", "busybox"].map(str::to_owned);
        let tar = busybox(&path, &tools).unwrap();
        let mut archive = tar::Archive::new(&tar[..]);
        let names: Vec<String> = (archive.entries().unwrap())
            .map(|entry| entry.unwrap().path().unwrap().to_string_lossy().into_owned())
            .collect();
        assert!(names.contains(&"bin/sh".to_owned()) && names.contains(&"etc/passwd".to_owned()));
        assert!(!names.iter().any(|name| name.contains("evil")));
        assert!(matches!(busybox(&path, &[]), Err(BusyboxError::NoTools(_))));
        std::fs::write(&path, program(3)).unwrap();
        assert!(matches!(busybox(&path, &tools), Err(BusyboxError::NotStatic(_))));
        assert!(matches!(busybox(Path::new("/nowhere"), &tools), Err(BusyboxError::Missing { .. })));
    }
}
