//! What this machine and this process's rights offer to containers: found out once, then values.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, XattrFlags};

use super::cgroup::{CgroupBase, SweepDepth};
use super::overlay;
use super::plan::{CgroupView, DeviceSupply, HostSysfs, LegacyHierarchy, LegacyVersion, Surroundings};
use super::spec::{ContainerSpec, OverlayMount, OverlayXattrs};

/// Facts about the machine that the launcher goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Whether this process is in the initial user namespace.
    pub user_namespace: UserNamespace,
    /// The capabilities this process holds, as bits.
    pub capabilities: u64,
    /// Whether supplementary groups may be set, which a single mapping of one's own id excludes.
    pub groups: GroupChange,
    /// What the cgroup file systems look like.
    pub cgroups: CgroupVersion,
    view: CgroupView,
    base: CgroupBase,
}

/// Which user namespace a process is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserNamespace {
    /// The machine's own, where root is root.
    Initial,
    /// Another one: no device nodes, no `trusted.*` attributes, no version 1 cgroups.
    Nested,
}

/// Whether processes of this user namespace may change their groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupChange {
    /// They may.
    Allowed,
    /// They keep those they have.
    Denied,
}

/// Which version of cgroups has the controllers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupVersion {
    /// No cgroups are mounted.
    None,
    /// Version 1, perhaps with a version 2 hierarchy beside it.
    Legacy,
    /// Version 2.
    Unified,
}

/// Whether overlayfs can take file contents from a data-only layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataOnly {
    /// It can, and a file was read that way.
    Supported,
    /// It cannot; the reason is for a log.
    Unsupported(String),
}

impl Facts {
    /// Finds the facts out. Absent files are answers too, so this cannot fail.
    #[must_use]
    pub fn probe() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let user_namespace = user_namespace(&read("/proc/self/uid_map"));
        // Where even this cannot be asked, the container gets what the kernel lets it have.
        let capabilities = rustix::thread::capabilities(None).map_or(u64::MAX, |sets| sets.permitted.bits());
        let found = find_cgroups(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"));
        let (cgroups, view) = match &found {
            Found::Nothing => (CgroupVersion::None, CgroupView::None),
            Found::Unified { .. } => (CgroupVersion::Unified, CgroupView::Unified),
            Found::Legacy { view, .. } => (CgroupVersion::Legacy, CgroupView::Legacy(view.clone())),
        };
        let base = match found {
            Found::Nothing => CgroupBase::None,
            Found::Legacy { bases, .. } => CgroupBase::Legacy(bases),
            // Controllers reach only groups below one without processes; the root may have both, anyone's own not.
            Found::Unified { mount, own } => CgroupBase::Unified(match user_namespace {
                UserNamespace::Initial => mount.join("cbs"),
                UserNamespace::Nested => own.join("cbs"),
            }),
        };
        let denied = read("/proc/self/setgroups").trim() == "deny";
        let groups = if denied {
            GroupChange::Denied
        } else {
            GroupChange::Allowed
        };
        Self {
            user_namespace,
            capabilities,
            groups,
            cgroups,
            view,
            base,
        }
    }

    /// Removes the cgroups that killed processes left; false when some were still in use and want another sweep.
    pub fn sweep_groups(&self, depth: SweepDepth) -> bool {
        self.base.sweep(depth)
    }

    pub(super) fn cgroup_base(&self) -> CgroupBase {
        self.base.clone()
    }

    /// What the mounts of a container depend on.
    pub(super) fn surroundings(&self, spec: &ContainerSpec) -> Surroundings {
        const CAP_MKNOD: u64 = 1 << 27;
        let nested = self.user_namespace == UserNamespace::Nested;
        let container_nested = nested || spec.user_namespace.is_some();
        let legacy = matches!(self.view, CgroupView::Legacy(_));
        Surroundings {
            devices: if nested || self.capabilities & CAP_MKNOD == 0 {
                DeviceSupply::ShowHosts
            } else {
                DeviceSupply::MakeNodes
            },
            host_sysfs: if container_nested {
                HostSysfs::Bind
            } else {
                HostSysfs::Mount
            },
            // Version 1 hierarchies cannot be mounted in a user namespace.
            cgroups: if container_nested && legacy {
                CgroupView::None
            } else {
                self.view.clone()
            },
        }
    }
}

/// Tries an overlay with a data-only layer, by making a small one in `scratch` and reading through it.
///
/// # Errors
/// When the files for the trial cannot be made; the refusal of the overlay itself is an answer.
pub fn data_only_layers(scratch: &Path, xattrs: OverlayXattrs) -> io::Result<DataOnly> {
    let trial = scratch.join(format!("probe-{}-{xattrs:?}", std::process::id()));
    let result = try_data_only(&trial, xattrs);
    // A leftover is a few empty directories in a scratch directory.
    let _removed = fs::remove_dir_all(&trial);
    result
}

fn try_data_only(trial: &Path, xattrs: OverlayXattrs) -> io::Result<DataOnly> {
    const CONTENT: &[u8] = b"data";
    let dir = |name: &str| trial.join(name);
    for name in ["lower", "data", "upper", "work"] {
        fs::create_dir_all(dir(name))?;
    }
    fs::write(dir("data").join("blob"), CONTENT)?;
    let stub = dir("lower").join("file");
    fs::File::create(&stub)?.set_len(CONTENT.len() as u64)?;
    let prefix = match xattrs {
        OverlayXattrs::Trusted => "trusted",
        OverlayXattrs::User => "user",
    };
    for (name, value) in [("metacopy", &b""[..]), ("redirect", b"/blob")] {
        match rustix::fs::setxattr(&stub, format!("{prefix}.overlay.{name}"), value, XattrFlags::empty()) {
            Ok(()) => {}
            Err(errno) => return Ok(DataOnly::Unsupported(format!("no {prefix}.* attributes here: {errno}"))),
        }
    }
    let layers = OverlayMount {
        lower: vec![dir("lower")],
        data_only: vec![dir("data")],
        upper: dir("upper"),
        work: dir("work"),
        xattrs,
    };
    let mounted = match overlay::mount(&layers, 0) {
        Ok(mounted) => mounted,
        Err(err) => {
            let cause = std::error::Error::source(&err)
                .map(ToString::to_string)
                .unwrap_or_default();
            return Ok(DataOnly::Unsupported(format!("{err}: {cause}")));
        }
    };
    let read = || -> io::Result<Vec<u8>> {
        let file = rustix::fs::openat(mounted.as_fd(), "file", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let mut content = vec![0; CONTENT.len()];
        let length = rustix::io::read(file, &mut content)?;
        content.truncate(length);
        Ok(content)
    };
    Ok(match read() {
        Ok(content) if content == CONTENT => DataOnly::Supported,
        Ok(content) => DataOnly::Unsupported(format!("read {content:?} instead of the data")),
        Err(err) => DataOnly::Unsupported(err.to_string()),
    })
}

fn user_namespace(uid_map: &str) -> UserNamespace {
    // The initial namespace alone maps all ids to themselves; one made to look so works like it for identity.
    let fields: Vec<_> = uid_map.split_ascii_whitespace().collect();
    if fields == ["0", "0", "4294967295"] {
        UserNamespace::Initial
    } else {
        UserNamespace::Nested
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    Unified {
        mount: PathBuf,
        own: PathBuf,
    },
    Legacy {
        view: Vec<LegacyHierarchy>,
        bases: Vec<(String, PathBuf)>,
    },
}

/// The version 1 controllers that limits need.
const LIMITING: [&str; 4] = ["cpu", "cpuset", "memory", "pids"];

/// Reads mountinfo and cgroup files of /proc.
fn find_cgroups(mountinfo: &str, own: &str) -> Found {
    let mut unified = None;
    let (mut view, mut bases) = (Vec::new(), Vec::new());
    for mount in mountinfo.lines().filter_map(CgroupMount::parse) {
        let Some(name) = mount
            .point
            .file_name()
            .and_then(|name| name.to_str())
            .map(ToOwned::to_owned)
        else {
            continue;
        };
        match &mount.controllers {
            None => {
                unified = Some((mount.point.clone(), mount.place_of(own_path(own, "").unwrap_or("/"))));
                view.push(LegacyHierarchy {
                    directory: name,
                    version: LegacyVersion::Unified,
                });
            }
            Some(controllers) => {
                let version = match controllers.as_slice() {
                    [] => continue,
                    [only] if only.starts_with("name=") => {
                        LegacyVersion::Named(only.trim_start_matches("name=").to_owned())
                    }
                    all => LegacyVersion::Controllers(all.iter().map(|&name| name.to_owned()).collect()),
                };
                for &controller in controllers.iter().filter(|name| LIMITING.contains(name)) {
                    let place = mount.place_of(own_path(own, controller).unwrap_or("/"));
                    bases.push((controller.to_owned(), place));
                }
                view.push(LegacyHierarchy {
                    directory: name,
                    version,
                });
            }
        }
    }
    let is_legacy = view.iter().any(|hierarchy| hierarchy.version != LegacyVersion::Unified);
    match unified {
        _ if is_legacy => Found::Legacy { view, bases },
        Some((mount, own)) => Found::Unified { mount, own },
        None => Found::Nothing,
    }
}

/// One cgroup line of mountinfo.
struct CgroupMount<'a> {
    root: &'a str,
    point: PathBuf,
    /// `None` for version 2.
    controllers: Option<Vec<&'a str>>,
}

impl<'a> CgroupMount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let (root, point) = (left.next()?, PathBuf::from(left.next()?));
        let mut right = right.split(' ');
        let (kind, options) = (right.next()?, right.nth(1)?);
        let controllers = match kind {
            "cgroup2" => None,
            "cgroup" => {
                let generic = [
                    "rw",
                    "ro",
                    "none",
                    "xattr",
                    "noprefix",
                    "clone_children",
                    "favordynmods",
                    "nofavordynmods",
                ];
                let is_controller = |option: &&str| !generic.contains(option) && !option.starts_with("release_agent=");
                Some(options.split(',').filter(is_controller).collect())
            }
            _ => return None,
        };
        Some(Self {
            root,
            point,
            controllers,
        })
    }

    /// Where a group, named as /proc/self/cgroup names it, is in the file system.
    fn place_of(&self, group: &str) -> PathBuf {
        let below = group.strip_prefix(self.root).unwrap_or(group).trim_start_matches('/');
        self.point.join(below)
    }
}

/// The group a process is in, by controller; the empty controller is version 2.
fn own_path<'a>(own: &'a str, controller: &str) -> Option<&'a str> {
    own.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers.split(',').any(|name| name == controller).then_some(path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
29 24 0:25 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
30 29 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
31 29 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
32 29 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 29 0:29 /docker/x /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
";

    #[test]
    fn finds_the_hierarchies_of_each_layout() {
        let own = "5:memory:/docker/x/y\n4:cpu,cpuacct:/a\n1:name=systemd:/\n0::/u\n";
        let Found::Legacy { view, bases } = find_cgroups(HYBRID, own) else {
            panic!("hybrid counts as version 1")
        };
        let names: Vec<_> = view.iter().map(|hierarchy| hierarchy.directory.as_str()).collect();
        assert_eq!(names, ["unified", "systemd", "cpu,cpuacct", "memory"]);
        let want = [
            ("cpu", "/sys/fs/cgroup/cpu,cpuacct/a"),
            ("memory", "/sys/fs/cgroup/memory/y"),
        ];
        assert_eq!(
            bases,
            want.map(|(controller, path)| (controller.to_owned(), PathBuf::from(path)))
        );

        let unified = "30 29 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        let want = Found::Unified {
            mount: "/sys/fs/cgroup".into(),
            own: "/sys/fs/cgroup/u/v".into(),
        };
        assert_eq!(find_cgroups(unified, "0::/u/v\n"), want);
        assert_eq!(find_cgroups("", ""), Found::Nothing);
    }

    #[test]
    fn tells_the_initial_user_namespace() {
        assert_eq!(
            user_namespace("         0          0 4294967295\n"),
            UserNamespace::Initial
        );
        assert_eq!(
            user_namespace("         0       1000          1\n"),
            UserNamespace::Nested
        );
    }
}
