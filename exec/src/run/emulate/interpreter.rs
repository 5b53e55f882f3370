//! qemu's emulators on this machine, and whether one of them works in a container.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// What there is for a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A program that needs nothing but itself.
    Usable(PathBuf),
    /// One that needs libraries, which a container does not have.
    NeedsLibraries(PathBuf),
    /// None.
    Nothing,
}

/// Looks for qemu's emulator of `machine`, in qemu's words, below `root`.
pub(super) fn find(root: &Path, machine: &str) -> Found {
    let candidates = [
        // By this name Debian's qemu 5 knows how it is called; later ones ask the kernel.
        format!("usr/libexec/qemu-binfmt/{machine}-binfmt-P"),
        format!("usr/bin/qemu-{machine}-static"),
        format!("usr/bin/qemu-{machine}"),
        format!("usr/local/bin/qemu-{machine}-static"),
        format!("usr/local/bin/qemu-{machine}"),
    ];
    first(candidates.map(|name| root.join(name)))
}

/// Looks for it in one folder.
pub(super) fn find_in(folder: &Path, machine: &str) -> Found {
    let candidates = [format!("qemu-{machine}-static"), format!("qemu-{machine}")];
    first(candidates.map(|name| folder.join(name)))
}

fn first(candidates: impl IntoIterator<Item = PathBuf>) -> Found {
    let mut with_libraries = None;
    for path in candidates {
        match loader(&path) {
            Ok(Loader::None) => return Found::Usable(path),
            Ok(Loader::Needed) => with_libraries = with_libraries.or(Some(path)),
            // Not there, or no program.
            Err(_) => {}
        }
    }
    with_libraries.map_or(Found::Nothing, Found::NeedsLibraries)
}

/// Whether a program is loaded by another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loader {
    None,
    Needed,
}

/// The type of the program header that names a loader.
const PT_INTERP: u32 = 3;
/// Far more than linkers make.
const MOST_HEADERS: u16 = 256;

/// Reads the program headers of an ELF file of this machine's byte order.
fn loader(path: &Path) -> io::Result<Loader> {
    let file = File::open(path)?;
    let no_program = || io::Error::from(io::ErrorKind::InvalidData);
    let mut head = [0; 64];
    file.read_exact_at(&mut head, 0)?;
    if !head.starts_with(b"\x7fELF") {
        return Err(no_program());
    }
    let half = |at: usize| u16::from_ne_bytes([head[at], head[at + 1]]);
    let (offset, size, count) = if head[4] == 2 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&head[32..40]);
        (u64::from_ne_bytes(bytes), half(54), half(56))
    } else {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&head[28..32]);
        (u32::from_ne_bytes(bytes).into(), half(42), half(44))
    };
    for index in 0..count.min(MOST_HEADERS) {
        let at = u64::from(index) * u64::from(size);
        let at = offset.checked_add(at).ok_or_else(no_program)?;
        let mut kind = [0; 4];
        file.read_exact_at(&mut kind, at)?;
        if u32::from_ne_bytes(kind) == PT_INTERP {
            return Ok(Loader::Needed);
        }
    }
    Ok(Loader::None)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A 64-bit file with one program header of this type.
    fn program(kind: u32) -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56];
        bytes[..5].copy_from_slice(b"\x7fELF\x02");
        bytes[32..40].copy_from_slice(&64_u64.to_ne_bytes());
        bytes[54..56].copy_from_slice(&56_u16.to_ne_bytes());
        bytes[56..58].copy_from_slice(&1_u16.to_ne_bytes());
        bytes[64..68].copy_from_slice(&kind.to_ne_bytes());
        bytes
    }

    #[test]
    fn takes_the_first_that_needs_nothing() {
        let root = tempfile::tempdir().expect("tempdir");
        let put = |name: &str, bytes: &[u8]| {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("mkdir");
            fs::write(&path, bytes).expect("write");
            path
        };
        assert_eq!(find(root.path(), "arm"), Found::Nothing);
        put("usr/bin/qemu-arm-static", b"");
        put("usr/local/bin/qemu-arm-static", b"\x7fELF\x02 cut off");
        assert_eq!(find(root.path(), "arm"), Found::Nothing);
        let dynamic = put("usr/bin/qemu-arm", &program(PT_INTERP));
        assert_eq!(find(root.path(), "arm"), Found::NeedsLibraries(dynamic));
        let local = put("usr/local/bin/qemu-arm", &program(1));
        assert_eq!(find(root.path(), "arm"), Found::Usable(local.clone()));
        let folder = local.parent().expect("a folder");
        assert_eq!(find_in(folder, "arm"), Found::Usable(local.clone()));
        assert_eq!(find_in(folder, "mips"), Found::Nothing);
        let first = put("usr/libexec/qemu-binfmt/arm-binfmt-P", &program(1));
        assert_eq!(find(root.path(), "arm"), Found::Usable(first));
    }

    #[test]
    fn headers_beyond_the_file_are_no_program() {
        let root = tempfile::tempdir().expect("tempdir");
        let path = root.path().join("p");
        let mut bytes = program(1);
        bytes[32..40].copy_from_slice(&u64::MAX.to_ne_bytes());
        fs::write(&path, &bytes).expect("write");
        assert!(loader(&path).is_err());
        bytes[56..58].copy_from_slice(&u16::MAX.to_ne_bytes());
        bytes[32..40].copy_from_slice(&64_u64.to_ne_bytes());
        fs::write(&path, &bytes).expect("write");
        assert!(loader(&path).is_err());
    }
}
