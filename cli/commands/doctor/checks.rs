//! What every build needs: the kernel, FUSE, overlays, namespaces, a place for the store.

use std::path::{Path, PathBuf};

use cbs_exec::launch::probe::{CgroupVersion, Facts, UserNamespace};
use cbs_exec::rootless::Standing;
use cbs_fuse::{LowerMode, Privilege};
use cbs_store::Access;

use super::Finding;
use crate::args::Global;
use crate::commands::{default_store, open_store};
use crate::config::Files;
use crate::failure::chain;
use crate::progress::human_bytes;

/// Below this, a build of any size fails.
const LITTLE_SPACE: u64 = 1 << 30;

/// What checks look at.
pub(super) struct World<'g> {
    pub(super) global: &'g Global,
    /// Whether it was root who called, of the machine or of a namespace.
    pub(super) is_root: bool,
    privilege: Privilege,
    facts: Facts,
}

impl<'g> World<'g> {
    pub(super) fn new(global: &'g Global) -> Self {
        Self {
            global,
            is_root: global.standing == Standing::Root && rustix::process::geteuid().is_root(),
            privilege: Privilege::detect(),
            facts: Facts::probe(),
        }
    }
}

/// All of them, in the order in which one stands on the other.
pub(super) fn all(world: &World<'_>) -> Vec<Finding> {
    vec![
        settings(world),
        kernel(),
        privilege(world),
        namespaces(),
        fuse(),
        overlay(world),
        cgroups(world),
        store(world),
    ]
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn settings(world: &World<'_>) -> Finding {
    const NAME: &str = "settings";
    let files = Files::of(world.global.config.as_deref());
    match files.load() {
        Err(err) => Finding::fails(NAME, chain(err.as_ref()), "mend the file, or see `cbs config keys`"),
        Ok(_) => {
            let found = files.0.iter().filter(|(_, path)| path.exists());
            let names: Vec<String> = found.map(|(_, path)| path.display().to_string()).collect();
            Finding::works(
                NAME,
                if names.is_empty() {
                    "no files, all by default".to_owned()
                } else {
                    names.join(", ")
                },
            )
        }
    }
}

fn kernel() -> Finding {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let text = format!("Linux {release}");
    if version >= (5, 11) {
        Finding::works("kernel", text)
    } else {
        Finding::fails(
            "kernel",
            text,
            "Linux 5.11 or later is needed; 6.5 or later reads large files fastest",
        )
    }
}

fn privilege(world: &World<'_>) -> Finding {
    const NAME: &str = "user";
    match (&world.global.standing, world.facts.user_namespace) {
        (Standing::Root, UserNamespace::Initial) if world.is_root => Finding::works(NAME, "root"),
        (Standing::Root, _) if world.is_root => Finding::works(NAME, "root of a user namespace"),
        (Standing::Refused { why }, _) => {
            Finding::fails(NAME, "without root, and without a user namespace", why.clone())
        }
        _ => Finding::works(NAME, "without root, in a user namespace"),
    }
}

/// The settings of the kernel, and of distributions, that keep users from namespaces.
fn namespaces() -> Finding {
    const NAME: &str = "namespaces";
    let is = |path: &str, value: &str| read(path).as_deref() == Some(value);
    if !Path::new("/proc/self/ns/user").exists() {
        return Finding::limited(
            NAME,
            "this kernel has no user namespaces",
            "builds without root, and steps of other platforms, need a kernel with CONFIG_USER_NS",
        );
    }
    if is("/proc/sys/user/max_user_namespaces", "0") {
        return Finding::limited(
            NAME,
            "user namespaces are switched off",
            "sysctl user.max_user_namespaces=15000",
        );
    }
    if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        return Finding::limited(
            NAME,
            "user namespaces are for root only",
            "for builds without root: sysctl kernel.unprivileged_userns_clone=1",
        );
    }
    if is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        return Finding::limited(
            NAME,
            "AppArmor keeps users without root from user namespaces",
            "for builds without root: sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        );
    }
    Finding::works(NAME, "mount, pid, network and user namespaces")
}

fn fuse() -> Finding {
    const NAME: &str = "fuse";
    let opened = std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse");
    match opened {
        Ok(_) => Finding::works(NAME, "/dev/fuse opens"),
        Err(err) => Finding::fails(
            NAME,
            format!("/dev/fuse does not open: {err}"),
            "RUN steps need it: modprobe fuse; in a container, start it with --device /dev/fuse",
        ),
    }
}

/// Mounts a small one of each kind.
fn overlay(world: &World<'_>) -> Finding {
    const NAME: &str = "overlay";
    const HELP: &str =
        "RUN steps need overlays over FUSE: modprobe overlay; in a container, start it with --privileged";
    let scratch = scratch_folder(world);
    if let Err(err) = std::fs::create_dir(&scratch) {
        let what = format!("cannot try: `{}`: {err}", scratch.display());
        return Finding::fails(NAME, what, "give a store that can be written with --store");
    }
    let mode = cbs_fuse::probe(&scratch, world.privilege);
    // What is left is an empty folder.
    std::fs::remove_dir_all(&scratch).unwrap_or_default();
    match mode {
        Ok(LowerMode::DataOnly) => {
            Finding::works(NAME, "with data-only layers: large files are read by the kernel alone")
        }
        Ok(LowerMode::Plain) => Finding::limited(
            NAME,
            "without data-only layers: everything is read through FUSE",
            "Linux 6.5 or later, and a store on a file system with extended attributes, read faster",
        ),
        Err(err) if !world.is_root => Finding::fails(
            NAME,
            chain(&err),
            "builds without root need user namespaces; or run it as root",
        ),
        Err(err) => Finding::fails(NAME, chain(&err), HELP),
    }
}

/// Where the store is or will be, since it is that file system that counts.
fn scratch_folder(world: &World<'_>) -> PathBuf {
    let store = world
        .global
        .store
        .clone()
        .or_else(|| world.global.settings.store.clone());
    let store = store.or_else(|| default_store().ok());
    let folder = store
        .as_deref()
        .and_then(|store| store.ancestors().find(|folder| folder.is_dir()));
    let folder = folder.map_or_else(std::env::temp_dir, Path::to_owned);
    let writable = rustix::fs::access(&folder, rustix::fs::Access::WRITE_OK).is_ok();
    let folder = if writable { folder } else { std::env::temp_dir() };
    folder.join(format!(".cbs-doctor-{}", std::process::id()))
}

fn cgroups(world: &World<'_>) -> Finding {
    const NAME: &str = "cgroups";
    match world.facts.cgroups {
        CgroupVersion::Unified => Finding::works(NAME, "version 2"),
        CgroupVersion::Legacy => Finding::works(NAME, "version 1"),
        CgroupVersion::None => Finding::limited(
            NAME,
            "none are mounted",
            "limits of memory and CPU (`resources`) need them: mount -t cgroup2 none /sys/fs/cgroup",
        ),
    }
}

fn store(world: &World<'_>) -> Finding {
    const NAME: &str = "store";
    let path = world
        .global
        .store
        .clone()
        .or_else(|| world.global.settings.store.clone());
    let path = match path.map_or_else(default_store, Ok) {
        Ok(path) => path,
        Err(err) => return Finding::fails(NAME, chain(err.as_ref()), "set HOME, or use --store"),
    };
    let shown = path.display().to_string();
    let existing = path
        .ancestors()
        .find(|folder| folder.exists())
        .unwrap_or(Path::new("/"));
    let free = rustix::fs::statvfs(existing).map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    let free = free.unwrap_or(u64::MAX);
    if rustix::fs::access(existing, rustix::fs::Access::WRITE_OK).is_err() {
        let what = format!("`{}` cannot be written", existing.display());
        return Finding::fails(NAME, what, "use --store, or `cbs config set store DIR`");
    }
    let is_used = path.read_dir().is_ok_and(|mut entries| entries.next().is_some());
    if is_used && let Err(err) = open_store(world.global, Access::ReadOnly) {
        return Finding::fails(NAME, chain(err.as_ref()), "see `cbs store verify --repair`");
    }
    let space = human_bytes(free);
    if free < LITTLE_SPACE {
        return Finding::limited(NAME, format!("`{shown}`, only {space} free"), "make room with `cbs gc`");
    }
    Finding::works(NAME, format!("`{shown}`, {space} free"))
}
