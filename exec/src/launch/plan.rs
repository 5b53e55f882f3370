//! Which mounts a container gets, in which order and with which flags: a pure function of its specification.
//!
//! Outer targets come before inner ones, the system's own before the caller's, so that a caller's mount at `/dev/shm`
//! covers ours and a script at `/dev/pipes` lands in ours. What goes where, and with which options, is what runc does
//! for BuildKit.
//!
//! Device nodes work only where this module puts them: every file system of a sandboxed container is mounted `nodev`,
//! and the allowed devices are mounts of single files from a tree that the container cannot reach. Docker forbids the
//! other devices by a cgroup instead; this way needs no cgroup, and a node made in the root still ends up in the layer.

use std::ffi::{CStr, CString};
use std::path::{Path, PathBuf};

use super::error::SpecError;
use super::report::CreatedFor;
use super::resolve::normalise;
use super::spec::{
    Access, ContainerSpec, DeviceKind, DeviceNode, FileSource, MountSource, Network, OverlayMount, Security,
};
use super::step::NewFs;

/// `MOUNT_ATTR_` flags by the names mount(8) gives them.
pub(super) const NOSUID: u64 = libc::MOUNT_ATTR_NOSUID;
pub(super) const NODEV: u64 = libc::MOUNT_ATTR_NODEV;
pub(super) const NOEXEC: u64 = libc::MOUNT_ATTR_NOEXEC;
pub(super) const RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
const STRICTATIME: u64 = libc::MOUNT_ATTR_STRICTATIME;

/// Docker's size of `/dev/shm`.
const DEFAULT_SHM_SIZE: u64 = 64 << 20;

/// What a sandboxed process must not see; missing ones are passed over.
const MASKED: [&CStr; 11] = [
    c"/proc/acpi",
    c"/proc/asound",
    c"/proc/interrupts",
    c"/proc/kcore",
    c"/proc/keys",
    c"/proc/latency_stats",
    c"/proc/sched_debug",
    c"/proc/scsi",
    c"/proc/timer_list",
    c"/sys/devices/virtual/powercap",
    c"/sys/firmware",
];

/// What a sandboxed process must not write.
const SEALED: [&CStr; 5] = [
    c"/proc/bus",
    c"/proc/fs",
    c"/proc/irq",
    c"/proc/sys",
    c"/proc/sysrq-trigger",
];

/// Links in `/dev`, as every container runtime makes them.
pub(super) const DEV_LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];

/// The devices every container has: name, major, minor.
const STANDARD_DEVICES: [(&str, u32, u32); 6] = [
    ("full", 1, 7),
    ("null", 1, 3),
    ("random", 1, 8),
    ("tty", 5, 0),
    ("urandom", 1, 9),
    ("zero", 1, 5),
];

/// The devices BuildKit adds to an insecure container.
const INSECURE_DEVICES: [(&str, u32, u32); 6] = [
    ("cuse", 10, 203),
    ("fuse", 10, 229),
    ("kmsg", 1, 11),
    ("kvm", 10, 232),
    ("loop-control", 10, 237),
    ("net/tun", 10, 200),
];

/// How many loop devices an insecure container gets.
const LOOP_DEVICES: u32 = 8;

/// What of the machine matters for the mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Surroundings {
    /// Where device nodes come from.
    pub(super) devices: DeviceSupply,
    /// Whether `sysfs` of the host's network can be mounted, which only the owner of that network can.
    pub(super) host_sysfs: HostSysfs,
    /// What lies at `/sys/fs/cgroup`.
    pub(super) cgroups: CgroupView,
}

/// Whether this process may make device nodes that work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DeviceSupply {
    /// Root of the initial user namespace: nodes are made.
    MakeNodes,
    /// Anyone else: the host's nodes are shown.
    ShowHosts,
}

/// How to show the host's `/sys`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HostSysfs {
    /// By a mount of its own.
    Mount,
    /// By a recursive bind mount of the host's.
    Bind,
}

/// The cgroup file systems of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CgroupView {
    /// None that could be shown.
    None,
    /// One hierarchy.
    Unified,
    /// Version 1: the directories at `/sys/fs/cgroup` with their mount options, and links to them.
    Legacy(Vec<LegacyHierarchy>),
}

/// One version 1 hierarchy, or the version 2 one that lies beside them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LegacyHierarchy {
    /// Name of its directory, such as `cpu,cpuacct`.
    pub(super) directory: String,
    /// `cgroup` or `cgroup2`.
    pub(super) version: LegacyVersion,
}

/// What kind of hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LegacyVersion {
    /// With these controllers.
    Controllers(Vec<String>),
    /// With a name only, as systemd's.
    Named(String),
    /// The version 2 hierarchy.
    Unified,
}

/// All mounts of a container.
pub(super) struct Plan<'a> {
    /// Files and nodes on a memory file system that the container sees only one by one.
    pub(super) private: Vec<PrivateEntry<'a>>,
    /// The mounts, in order.
    pub(super) mounts: Vec<PlannedMount<'a>>,
    /// Paths to hide.
    pub(super) masked: &'static [&'static CStr],
    /// Paths to make read-only.
    pub(super) sealed: &'static [&'static CStr],
    /// The flags of the root mount.
    pub(super) root_attributes: u64,
}

/// An entry of the private memory file system, named by its index.
pub(super) enum PrivateEntry<'a> {
    /// A file.
    File(&'a FileSource),
    /// A device node.
    Node(DeviceNode),
    /// An empty directory.
    EmptyDirectory,
}

/// A mount that will be made.
pub(super) struct PlannedMount<'a> {
    /// Where, normalised but with symlinks unresolved.
    pub(super) target: PathBuf,
    /// What.
    pub(super) what: What<'a>,
    /// `MOUNT_ATTR_` flags.
    pub(super) attributes: u64,
    /// Why.
    pub(super) purpose: CreatedFor,
}

/// What is mounted.
pub(super) enum What<'a> {
    /// A file system that the child has to make, in its namespaces.
    InChild(NewFs),
    /// A file system in memory.
    Memory {
        /// Size limit.
        size: Option<u64>,
        /// Mode of the root directory.
        mode: u32,
        /// What is in it from the start.
        content: MemoryContent,
    },
    /// Pseudo terminals.
    Terminals,
    /// The host's tree with all mounts in it.
    HostTree(&'static Path),
    /// A host path.
    Bind(PathBuf),
    /// An overlay.
    Overlay(&'a OverlayMount),
    /// An entry of [`Plan::private`].
    Private(usize),
}

/// The content of a new memory file system.
pub(super) enum MemoryContent {
    /// None.
    Empty,
    /// `/dev`: the usual links, and these nodes.
    Dev(Vec<DeviceNode>),
    /// `/sys/fs/cgroup` of version 1: directories, and links to them.
    Cgroups {
        /// Directories to mount on.
        directories: Vec<String>,
        /// Link name and target.
        links: Vec<(String, String)>,
    },
}

impl<'a> Plan<'a> {
    /// Plans the mounts of a container.
    ///
    /// # Errors
    /// A target that is no clean absolute path or must not be mounted on, a device outside `/dev`, an overlay without
    /// layers.
    pub(super) fn new(spec: &'a ContainerSpec, around: &Surroundings) -> Result<Self, SpecError> {
        let sandboxed = spec.security == Security::Sandbox;
        let nodev = if sandboxed { NODEV } else { 0 };
        let mut plan = Self {
            private: vec![PrivateEntry::EmptyDirectory],
            mounts: Vec::new(),
            masked: if sandboxed { &MASKED } else { &[] },
            sealed: if sandboxed { &SEALED } else { &[] },
            root_attributes: nodev,
        };
        plan.system("/proc", What::InChild(new_fs(c"proc", &[], NOSUID | NOEXEC | NODEV)));
        plan.devices(spec, around)?;
        plan.sys(spec, around);
        let mut own = Vec::with_capacity(spec.mounts.len());
        for mount in &spec.mounts {
            own.push(plan.callers(mount, nodev)?);
        }
        // Stable, so that of two mounts at one target the later one is seen.
        own.sort_by_key(|mount: &PlannedMount<'_>| mount.target.components().count());
        plan.mounts.extend(own);
        Ok(plan)
    }

    fn system(&mut self, target: &str, what: What<'a>) {
        let attributes = match &what {
            What::InChild(fs) => fs.attributes,
            _ => NOSUID | NOEXEC,
        };
        self.push(target, what, attributes);
    }

    fn push(&mut self, target: impl Into<PathBuf>, what: What<'a>, attributes: u64) {
        self.mounts.push(PlannedMount {
            target: target.into(),
            what,
            attributes,
            purpose: CreatedFor::System,
        });
    }

    /// `/dev` and all that is in it.
    fn devices(&mut self, spec: &ContainerSpec, around: &Surroundings) -> Result<(), SpecError> {
        let standard = STANDARD_DEVICES.map(|(name, major, minor)| character(name, major, minor));
        let mut nodes: Vec<DeviceNode> = standard.into();
        if spec.security == Security::Insecure && around.devices == DeviceSupply::MakeNodes {
            nodes.extend(INSECURE_DEVICES.map(|(name, major, minor)| character(name, major, minor)));
            nodes.extend((0..LOOP_DEVICES).map(loop_device));
        }
        for device in &spec.devices {
            let path = normalise(&device.path)?;
            if !path.starts_with("/dev") || path == Path::new("/dev") {
                return Err(SpecError::DeviceOutsideDev {
                    path: device.path.clone(),
                });
            }
            nodes.retain(|node| node.path != path);
            nodes.push(DeviceNode { path, ..device.clone() });
        }
        let in_place = around.devices == DeviceSupply::MakeNodes && spec.security == Security::Insecure;
        let (direct, single) = if in_place {
            (nodes, Vec::new())
        } else {
            (Vec::new(), nodes)
        };
        let nodev = if in_place { 0 } else { NODEV };
        let dev = What::Memory {
            size: Some(64 << 20),
            mode: 0o755,
            content: MemoryContent::Dev(direct),
        };
        self.push("/dev", dev, NOSUID | STRICTATIME | nodev);
        self.push("/dev/pts", What::Terminals, NOSUID | NOEXEC);
        let shm = What::Memory {
            size: Some(spec.shm_size.unwrap_or(DEFAULT_SHM_SIZE)),
            mode: 0o1777,
            content: MemoryContent::Empty,
        };
        self.push("/dev/shm", shm, NOSUID | NOEXEC | NODEV);
        self.system(
            "/dev/mqueue",
            What::InChild(new_fs(c"mqueue", &[], NOSUID | NOEXEC | NODEV)),
        );
        for node in single {
            let target = node.path.clone();
            let what = match around.devices {
                DeviceSupply::ShowHosts => What::Bind(node.source),
                DeviceSupply::MakeNodes => {
                    self.private.push(PrivateEntry::Node(node));
                    What::Private(self.private.len() - 1)
                }
            };
            self.push(target, what, NOSUID | NOEXEC);
        }
        Ok(())
    }

    /// `/sys` and `/sys/fs/cgroup`.
    fn sys(&mut self, spec: &ContainerSpec, around: &Surroundings) {
        let read_only = if spec.security == Security::Sandbox { RDONLY } else { 0 };
        let attributes = NOSUID | NOEXEC | NODEV | read_only;
        match (&spec.network, around.host_sysfs) {
            (Network::Host, HostSysfs::Bind) => {
                return self.push("/sys", What::HostTree(Path::new("/sys")), attributes);
            }
            _ => self.system("/sys", What::InChild(new_fs(c"sysfs", &[], attributes))),
        }
        match &around.cgroups {
            CgroupView::None => {}
            CgroupView::Unified => {
                self.system("/sys/fs/cgroup", What::InChild(new_fs(c"cgroup2", &[], attributes)));
            }
            CgroupView::Legacy(hierarchies) => self.legacy_cgroups(hierarchies, attributes),
        }
    }

    fn legacy_cgroups(&mut self, hierarchies: &[LegacyHierarchy], attributes: u64) {
        let directories = hierarchies
            .iter()
            .map(|hierarchy| hierarchy.directory.clone())
            .collect();
        // `cpu,cpuacct` can also be found as `cpu` and as `cpuacct`.
        let links = hierarchies
            .iter()
            .filter(|hierarchy| hierarchy.directory.contains(','))
            .flat_map(|hierarchy| {
                hierarchy
                    .directory
                    .split(',')
                    .map(|name| (name.to_owned(), hierarchy.directory.clone()))
            });
        let content = MemoryContent::Cgroups {
            directories,
            links: links.collect(),
        };
        self.push(
            "/sys/fs/cgroup",
            What::Memory {
                size: Some(1 << 20),
                mode: 0o755,
                content,
            },
            attributes,
        );
        for hierarchy in hierarchies {
            let fs = match &hierarchy.version {
                LegacyVersion::Unified => new_fs(c"cgroup2", &[], attributes),
                LegacyVersion::Named(name) => new_fs(c"cgroup", &[("none", None), ("name", Some(name))], attributes),
                LegacyVersion::Controllers(names) => {
                    let options: Vec<_> = names.iter().map(|name| (name.as_str(), None)).collect();
                    new_fs(c"cgroup", &options, attributes)
                }
            };
            self.system(&format!("/sys/fs/cgroup/{}", hierarchy.directory), What::InChild(fs));
        }
    }

    /// One of the caller's mounts.
    fn callers(&mut self, mount: &'a super::spec::MountSpec, nodev: u64) -> Result<PlannedMount<'a>, SpecError> {
        let target = normalise(&mount.target)?;
        if is_forbidden(&target) {
            return Err(SpecError::ForbiddenTarget {
                path: mount.target.clone(),
            });
        }
        let read_only = match mount.access {
            Access::ReadOnly => RDONLY,
            Access::ReadWrite => 0,
        };
        let (what, attributes) = match &mount.source {
            MountSource::Bind(path) => (What::Bind(path.clone()), nodev),
            MountSource::Overlay(overlay) => (What::Overlay(check_overlay(overlay, &target)?), nodev),
            MountSource::Tmpfs { size, mode } => (
                What::Memory {
                    size: *size,
                    mode: *mode,
                    content: MemoryContent::Empty,
                },
                NOSUID | nodev,
            ),
            MountSource::File(file) => {
                self.private.push(PrivateEntry::File(file));
                let noexec = if file.mode & 0o111 == 0 { NOEXEC } else { 0 };
                (What::Private(self.private.len() - 1), NOSUID | NODEV | noexec)
            }
        };
        Ok(PlannedMount {
            target,
            what,
            attributes: attributes | read_only,
            purpose: CreatedFor::Mount,
        })
    }
}

/// Refuses an overlay that the kernel would refuse with less clear words.
pub(super) fn check_overlay<'a>(overlay: &'a OverlayMount, target: &Path) -> Result<&'a OverlayMount, SpecError> {
    if overlay.lower.is_empty() {
        Err(SpecError::NoLower {
            target: target.to_owned(),
        })
    } else {
        Ok(overlay)
    }
}

/// Whether nothing of the caller's may be mounted there: a mount inside `/proc` could undo the masks and the seals.
pub(super) fn is_forbidden(target: &Path) -> bool {
    target == Path::new("/") || target.starts_with("/proc")
}

fn new_fs(name: &CStr, options: &[(&str, Option<&str>)], attributes: u64) -> NewFs {
    // Names of controllers come from the kernel and hold no NUL; one that did would be passed over.
    let text = |text: &str| CString::new(text).ok();
    let option = |(key, value): &(&str, Option<&str>)| Some((text(key)?, value.and_then(text)));
    NewFs {
        name: name.to_owned(),
        options: options.iter().filter_map(option).collect(),
        attributes,
    }
}

fn character(name: &str, major: u32, minor: u32) -> DeviceNode {
    let path = Path::new("/dev").join(name);
    DeviceNode {
        source: path.clone(),
        path,
        kind: DeviceKind::Character,
        major,
        minor,
        mode: 0o666,
        uid: 0,
        gid: 0,
    }
}

fn loop_device(number: u32) -> DeviceNode {
    let path = PathBuf::from(format!("/dev/loop{number}"));
    DeviceNode {
        source: path.clone(),
        path,
        kind: DeviceKind::Block,
        major: 7,
        minor: number,
        mode: 0o660,
        uid: 0,
        gid: 0,
    }
}

#[cfg(test)]
mod tests;
