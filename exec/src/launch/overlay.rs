//! Overlay file systems by the mount API of descriptors.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use super::error::LaunchError;
use super::spec::{OverlayMount, OverlayXattrs};

/// Mounts an overlay, detached.
///
/// # Errors
/// The kernel's answer, with the words it left in its log for this mount.
pub(super) fn mount(overlay: &OverlayMount, attributes: u64) -> Result<OwnedFd, LaunchError> {
    // One layer per parameter has no limit on the length of all of them together; Linux has it since 6.8.
    let mounted = match try_mount(overlay, attributes, LayerSyntax::Separate) {
        Err(Failure {
            errno: Errno::INVAL,
            at: Stage::Lower,
            ..
        }) => try_mount(overlay, attributes, LayerSyntax::Joined),
        other => other,
    };
    mounted.map_err(|failure| LaunchError::Setup {
        action: "mount an overlay with upper directory",
        path: overlay.upper.clone(),
        source: failure.into_io(),
    })
}

/// How the lower layers are named to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LayerSyntax {
    /// `lowerdir+` and `datadir+`, once per layer.
    Separate,
    /// `lowerdir=a:b::data`.
    Joined,
}

/// What was being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Lower,
    Other,
}

struct Failure {
    errno: Errno,
    at: Stage,
    log: String,
}

impl Failure {
    fn into_io(self) -> io::Error {
        let source = io::Error::from(self.errno);
        if self.log.is_empty() {
            source
        } else {
            io::Error::new(source.kind(), format!("{source} ({})", self.log))
        }
    }
}

fn try_mount(overlay: &OverlayMount, attributes: u64, syntax: LayerSyntax) -> Result<OwnedFd, Failure> {
    let bare = |errno| Failure {
        errno,
        at: Stage::Other,
        log: String::new(),
    };
    let fs = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(bare)?;
    let failure = |at: Stage| {
        let fs = &fs;
        move |errno| Failure {
            errno,
            at,
            log: kernel_log(fs),
        }
    };
    let set = |key: &str, value: &OsStr| rustix::mount::fsconfig_set_string(&fs, key, value);
    set("source", OsStr::new("overlay")).map_err(failure(Stage::Other))?;
    match syntax {
        LayerSyntax::Separate => {
            for layer in &overlay.lower {
                set("lowerdir+", layer.as_os_str()).map_err(failure(Stage::Lower))?;
            }
            for layer in &overlay.data_only {
                set("datadir+", layer.as_os_str()).map_err(failure(Stage::Lower))?;
            }
        }
        LayerSyntax::Joined => set("lowerdir", &joined(overlay)).map_err(failure(Stage::Lower))?,
    }
    set("upperdir", &escaped(&overlay.upper)).map_err(failure(Stage::Other))?;
    set("workdir", &escaped(&overlay.work)).map_err(failure(Stage::Other))?;
    let off: &[&str] = match overlay.xattrs {
        OverlayXattrs::Trusted => &["index", "redirect_dir", "metacopy", "xino"],
        // `userxattr` switches the other two off by itself, and refuses to be told so: the kernel may be built to
        // read `redirect_dir=off` as "follow".
        OverlayXattrs::User => &["index", "xino"],
    };
    for option in off {
        set(option, OsStr::new("off")).map_err(failure(Stage::Other))?;
    }
    rustix::mount::fsconfig_set_flag(&fs, "volatile").map_err(failure(Stage::Other))?;
    if overlay.xattrs == OverlayXattrs::User {
        rustix::mount::fsconfig_set_flag(&fs, "userxattr").map_err(failure(Stage::Other))?;
    }
    rustix::mount::fsconfig_create(&fs).map_err(failure(Stage::Other))?;
    let attributes = MountAttrFlags::from_bits_retain(attributes as u32);
    rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(failure(Stage::Other))
}

/// `a:b::data::data`, with the characters that separate layers escaped.
fn joined(overlay: &OverlayMount) -> OsString {
    let mut text = Vec::new();
    for (index, layer) in overlay.lower.iter().enumerate() {
        if index > 0 {
            text.push(b':');
        }
        escape(layer, &mut text);
    }
    for layer in &overlay.data_only {
        text.extend_from_slice(b"::");
        escape(layer, &mut text);
    }
    OsString::from_vec(text)
}

fn escaped(path: &Path) -> OsString {
    let mut text = Vec::new();
    escape(path, &mut text);
    OsString::from_vec(text)
}

fn escape(path: &Path, text: &mut Vec<u8>) {
    for &byte in path.as_os_str().as_bytes() {
        if matches!(byte, b'\\' | b':') {
            text.push(b'\\');
        }
        text.push(byte);
    }
}

/// What the kernel says about a failed configuration, one message per read.
fn kernel_log(fs: &OwnedFd) -> String {
    let mut messages = Vec::new();
    let mut buffer = [0_u8; 512];
    while let Ok(length) = rustix::io::read(fs, &mut buffer) {
        if length == 0 || messages.len() == 8 {
            break;
        }
        messages.push(String::from_utf8_lossy(&buffer[..length]).trim().to_owned());
    }
    messages.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joined_layers_are_escaped() {
        let overlay = OverlayMount {
            lower: vec!["/a:b".into(), r"/c\d".into()],
            data_only: vec!["/blobs".into(), "/more".into()],
            upper: "/u".into(),
            work: "/w".into(),
            xattrs: OverlayXattrs::Trusted,
        };
        assert_eq!(joined(&overlay), OsStr::new(r"/a\:b:/c\\d::/blobs::/more"));
    }
}
