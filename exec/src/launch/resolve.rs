//! Paths of the container, walked by the parent before the container exists.
//!
//! The mounts are still detached, so no path of the kernel's leads through all of them. [`Tree`] therefore walks by
//! hand, one name at a time: symlinks are followed inside the container only, `..` stops at its root, and a name at
//! which a mount will lie leads into that mount. What is missing is made, also at the end of a dangling symlink, as
//! the container runtimes do it (`/etc/resolv.conf` is one in many images).

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};

use super::error::SpecError;
use super::report::{CreatedFor, CreatedKind, CreatedPath};

/// As many symlinks as Linux follows in one path.
const MAX_SYMLINKS: usize = 40;

/// An absolute path without `.`, `..` and repeated slashes, not climbing above the root.
///
/// # Errors
/// A relative path, and one whose `..` lead out.
pub(super) fn normalise(path: &Path) -> Result<PathBuf, SpecError> {
    if !path.is_absolute() {
        return Err(SpecError::NotAbsolute { path: path.to_owned() });
    }
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir if !clean.pop() => return Err(SpecError::Escapes { path: path.to_owned() }),
            Component::ParentDir | Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    Ok(clean)
}

/// What a path is wanted for, and so what to make of it when it is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// A directory of this owner.
    Directory {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
    },
    /// Anything but a directory; an empty file is made.
    File,
}

impl Want {
    /// A directory of root's.
    pub(super) const ROOT_DIRECTORY: Self = Self::Directory { uid: 0, gid: 0 };
}

/// A mount that has a place in the tree.
struct Placed {
    /// Where, without symlinks.
    at: PathBuf,
    /// The mount's root, or `None` for one that only the child will make.
    root: Option<Rc<OwnedFd>>,
}

/// The container's tree as it will be.
pub(super) struct Tree {
    root: Rc<OwnedFd>,
    mounts: Vec<Placed>,
    created: Vec<CreatedPath>,
}

/// A directory on the way.
#[derive(Clone)]
struct Visited {
    path: PathBuf,
    dir: Rc<OwnedFd>,
    on_root_mount: bool,
}

impl Tree {
    /// The tree of a detached root mount.
    pub(super) fn new(root: Rc<OwnedFd>) -> Self {
        Self {
            root,
            mounts: Vec::new(),
            created: Vec::new(),
        }
    }

    /// Puts a mount at a path that [`Self::resolve`] gave; later paths lead into it.
    pub(super) fn place(&mut self, at: PathBuf, root: Option<Rc<OwnedFd>>) {
        self.mounts.push(Placed { at, root });
    }

    /// All that was made on the root mount, in order.
    pub(super) fn into_created(self) -> Vec<CreatedPath> {
        self.created
    }

    /// The path without symlinks, made if it is missing.
    ///
    /// Below a mount that only the child will make, the rest of the path is taken as it stands.
    ///
    /// # Errors
    /// The kernel's answers, a name on the way that is no directory, too many symlinks, or a wanted directory that is
    /// a file and the reverse.
    pub(super) fn resolve(&mut self, path: &Path, want: Want, purpose: CreatedFor) -> io::Result<PathBuf> {
        let top = Visited {
            path: PathBuf::from("/"),
            dir: Rc::clone(&self.root),
            on_root_mount: true,
        };
        let mut stack: Vec<Visited> = Vec::new();
        let mut names = names_reversed(path);
        let mut symlinks = 0;
        while let Some(name) = names.pop() {
            if name == OsStr::new("..") {
                stack.pop();
                continue;
            }
            let here = stack.last().unwrap_or(&top).clone();
            let path = here.path.join(&name);
            if let Some(placed) = self.mounts.iter().rev().find(|placed| placed.at == path) {
                let Some(root) = placed.root.clone() else {
                    return Ok(append_plain(path, names));
                };
                if !is_directory(&root)? {
                    return if names.is_empty() && want == Want::File {
                        Ok(path)
                    } else {
                        Err(not_a_directory())
                    };
                }
                stack.push(Visited {
                    path,
                    dir: root,
                    on_root_mount: false,
                });
                continue;
            }
            match rustix::fs::openat(
                &here.dir,
                &name,
                OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            ) {
                Ok(found) => match FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode) {
                    FileType::Directory => {
                        let on_root_mount = here.on_root_mount;
                        stack.push(Visited {
                            path,
                            dir: Rc::new(found),
                            on_root_mount,
                        });
                    }
                    FileType::Symlink => {
                        symlinks += 1;
                        if symlinks > MAX_SYMLINKS {
                            return Err(io::Error::from_raw_os_error(libc::ELOOP));
                        }
                        let target = rustix::fs::readlinkat(&found, "", Vec::new())?;
                        let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                        if target.is_absolute() {
                            stack.clear();
                        }
                        names.extend(names_reversed(&target));
                    }
                    _ if names.is_empty() && want == Want::File => return Ok(path),
                    _ => return Err(not_a_directory()),
                },
                Err(rustix::io::Errno::NOENT) => {
                    if names.is_empty() && want == Want::File {
                        make_file(here.dir.as_fd(), &name)?;
                        self.record(&here, &path, CreatedKind::File, purpose);
                        return Ok(path);
                    }
                    let dir = Rc::new(make_directory(here.dir.as_fd(), &name, want)?);
                    self.record(&here, &path, CreatedKind::Directory, purpose);
                    stack.push(Visited {
                        path,
                        dir,
                        on_root_mount: here.on_root_mount,
                    });
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        match want {
            Want::Directory { .. } => Ok(stack.pop().unwrap_or(top).path),
            Want::File => Err(io::Error::from_raw_os_error(libc::EISDIR)),
        }
    }

    fn record(&mut self, parent: &Visited, path: &Path, kind: CreatedKind, purpose: CreatedFor) {
        if parent.on_root_mount {
            let path = path.strip_prefix("/").unwrap_or(path).to_owned();
            self.created.push(CreatedPath { path, kind, purpose });
        }
    }
}

/// The names of a path, last first, without `.` and slashes; `..` stays.
fn names_reversed(path: &Path) -> Vec<OsString> {
    let name = |component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
    };
    path.components().rev().filter_map(name).collect()
}

/// Appends names (last first) to a path, reading `..` as text.
fn append_plain(mut path: PathBuf, mut names: Vec<OsString>) -> PathBuf {
    while let Some(name) = names.pop() {
        if name == OsStr::new("..") {
            path.pop();
        } else {
            path.push(name);
        }
    }
    path
}

fn is_directory(fd: &OwnedFd) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode) == FileType::Directory)
}

fn not_a_directory() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOTDIR)
}

fn make_file(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o644))?;
    // The process's own umask must not show in the container.
    rustix::fs::fchmod(&file, Mode::from_raw_mode(0o644))?;
    Ok(())
}

fn make_directory(dir: BorrowedFd<'_>, name: &OsStr, want: Want) -> io::Result<OwnedFd> {
    rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o755))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755))?;
    if let Want::Directory { uid, gid } = want
        && (uid, gid) != (0, 0)
    {
        rustix::fs::chownat(
            dir,
            name,
            Some(Uid::from_raw(uid)),
            Some(Gid::from_raw(gid)),
            AtFlags::SYMLINK_NOFOLLOW,
        )?;
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn tree(dir: &Path) -> Tree {
        Tree::new(Rc::new(open(dir)))
    }

    fn open(dir: &Path) -> OwnedFd {
        rustix::fs::open(dir, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).expect("open")
    }

    #[test]
    fn normalises_lexically() {
        let cases = [
            ("/", Ok("/")),
            ("/a//b/./c/", Ok("/a/b/c")),
            ("/a/../b", Ok("/b")),
            ("a", Err(SpecError::NotAbsolute { path: "a".into() })),
            (
                "/a/../../b",
                Err(SpecError::Escapes {
                    path: "/a/../../b".into(),
                }),
            ),
        ];
        for (text, want) in cases {
            assert_eq!(
                normalise(Path::new(text)),
                want.map(PathBuf::from),
                "normalising {text}"
            );
        }
    }

    #[test]
    fn symlinks_stay_inside() {
        let dir = tempfile::tempdir().expect("tempdir");
        fs::create_dir_all(dir.path().join("real/deep")).expect("mkdir");
        fs::write(dir.path().join("real/file"), "").expect("write");
        symlink("/real", dir.path().join("abs")).expect("symlink");
        symlink("../../../../real/deep", dir.path().join("up")).expect("symlink");
        symlink("loop", dir.path().join("loop")).expect("symlink");
        let mut tree = tree(dir.path());
        let cases = [
            ("/abs/deep", Want::ROOT_DIRECTORY, Ok("/real/deep")),
            ("/up", Want::ROOT_DIRECTORY, Ok("/real/deep")),
            ("/up/../../../..", Want::ROOT_DIRECTORY, Ok("/")),
            ("/abs/file", Want::File, Ok("/real/file")),
            ("/abs/file", Want::ROOT_DIRECTORY, Err(libc::ENOTDIR)),
            ("/abs/file/x", Want::File, Err(libc::ENOTDIR)),
            ("/abs", Want::File, Err(libc::EISDIR)),
            ("/loop/x", Want::ROOT_DIRECTORY, Err(libc::ELOOP)),
        ];
        for (text, want, expected) in cases {
            let got = tree.resolve(Path::new(text), want, CreatedFor::Mount);
            let got = got.map_err(|err| err.raw_os_error().expect("from the kernel"));
            assert_eq!(got, expected.map(PathBuf::from), "resolving {text}");
        }
        assert_eq!(tree.into_created(), []);
    }

    #[test]
    fn missing_paths_are_made_and_reported() {
        let dir = tempfile::tempdir().expect("tempdir");
        fs::create_dir(dir.path().join("etc")).expect("mkdir");
        symlink("../run/stub/resolv.conf", dir.path().join("etc/resolv.conf")).expect("symlink");
        let mut tree = tree(dir.path());
        let resolved = tree.resolve(Path::new("/etc/resolv.conf"), Want::File, CreatedFor::Mount);
        assert_eq!(resolved.expect("dangling symlink"), Path::new("/run/stub/resolv.conf"));
        let work = tree.resolve(
            Path::new("/a/b"),
            Want::Directory { uid: 0, gid: 0 },
            CreatedFor::WorkDir,
        );
        assert_eq!(work.expect("work dir"), Path::new("/a/b"));
        let made: Vec<_> = tree
            .into_created()
            .into_iter()
            .map(|made| (made.path, made.kind, made.purpose))
            .collect();
        let want = [
            ("run", CreatedKind::Directory, CreatedFor::Mount),
            ("run/stub", CreatedKind::Directory, CreatedFor::Mount),
            ("run/stub/resolv.conf", CreatedKind::File, CreatedFor::Mount),
            ("a", CreatedKind::Directory, CreatedFor::WorkDir),
            ("a/b", CreatedKind::Directory, CreatedFor::WorkDir),
        ];
        assert_eq!(
            made,
            want.map(|(path, kind, purpose)| (PathBuf::from(path), kind, purpose))
        );
        let mode = |path: &str| fs::metadata(dir.path().join(path)).expect("stat").permissions().mode() & 0o7777;
        assert_eq!((mode("a/b"), mode("run/stub/resolv.conf")), (0o755, 0o644));
    }

    #[test]
    fn mounts_are_entered_and_their_stubs_are_not_reported() {
        let root = tempfile::tempdir().expect("tempdir");
        let over = tempfile::tempdir().expect("tempdir");
        fs::create_dir(root.path().join("m")).expect("mkdir");
        symlink("m", root.path().join("link")).expect("symlink");
        let mut tree = tree(root.path());
        tree.place("/m".into(), Some(Rc::new(open(over.path()))));
        tree.place("/opaque".into(), None);
        let inner = tree
            .resolve(Path::new("/link/x/y"), Want::ROOT_DIRECTORY, CreatedFor::Mount)
            .expect("inner");
        assert_eq!(inner, Path::new("/m/x/y"));
        assert!(over.path().join("x/y").is_dir() && !root.path().join("m/x").exists());
        let below = tree
            .resolve(Path::new("/opaque/a/../b"), Want::File, CreatedFor::Mount)
            .expect("opaque");
        assert_eq!(below, Path::new("/opaque/b"));
        assert_eq!(tree.into_created(), []);
        assert_eq!(
            fs::metadata(over.path().join("x")).expect("stat").uid(),
            rustix::process::getuid().as_raw()
        );
    }

    #[test]
    fn names_may_be_any_bytes() {
        let dir = tempfile::tempdir().expect("tempdir");
        let name = OsStr::from_bytes(b"/\xff\xfe");
        let path = tree(dir.path())
            .resolve(Path::new(name), Want::ROOT_DIRECTORY, CreatedFor::Mount)
            .expect("resolve");
        assert_eq!(path.as_os_str(), name);
    }
}
