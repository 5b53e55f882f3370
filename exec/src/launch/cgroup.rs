//! Limits of a container, by cgroups of either version.
//!
//! A group exists only for a container that has limits: entering a version 1 group costs milliseconds, and nothing
//! else here needs one. Groups lie below the caller's own, so the caller's limits hold as well.

mod abandoned;

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use super::report::UnmetLimit;
use super::spec::Resources;
use abandoned::Owner;
pub use abandoned::SweepDepth;

/// What version 2 is told to hand down.
const CONTROLLERS: [&str; 4] = ["+cpu", "+cpuset", "+memory", "+pids"];

/// Where groups can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CgroupBase {
    /// Nowhere.
    None,
    /// Below this directory of the version 2 hierarchy.
    Unified(PathBuf),
    /// Below these directories of version 1 hierarchies, by controller.
    Legacy(Vec<(String, PathBuf)>),
}

/// Makes groups.
pub(super) struct Cgroups {
    base: CgroupBase,
    /// Said by every group's name.
    owner: Owner,
    next: AtomicU64,
    prepared: OnceLock<()>,
}

/// The group of one container. Dropping it removes it, once the container's processes are gone.
pub(super) struct Cgroup {
    version: Version,
    /// Directories to remove.
    directories: Vec<PathBuf>,
    /// Those above them that had to be made, innermost first; removed if nobody else has come to use them.
    parents: Vec<PathBuf>,
    /// Where the memory is accounted.
    memory: Option<PathBuf>,
    unmet: Vec<UnmetLimit>,
}

enum Version {
    /// The directory, to be born in.
    Unified(OwnedFd),
    /// The `cgroup.procs` files, to be entered by.
    Legacy(Vec<OwnedFd>),
}

/// One file to write.
struct Setting {
    limit: &'static str,
    controller: &'static str,
    file: &'static str,
    value: String,
}

impl Cgroups {
    /// Groups below `base`.
    pub(super) fn new(base: CgroupBase) -> Self {
        Self {
            base,
            owner: Owner::this_process(),
            next: AtomicU64::new(0),
            prepared: OnceLock::new(),
        }
    }

    /// Makes a group with these limits; what cannot be set is noted in the group.
    ///
    /// `None` when there are no limits, or when none of them can be set; then `unmet` has all of them.
    pub(super) fn make(&self, resources: &Resources, unmet: &mut Vec<UnmetLimit>) -> Option<Cgroup> {
        if resources.is_empty() {
            return None;
        }
        self.prepared.get_or_init(|| self.prepare());
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let name = self.owner.name(number);
        if resources.parent.is_some()
            && let Ok(parent) = below(resources.parent.as_deref())
        {
            // Nobody else looks there, but a gc.
            self.base.sweep_parent(&parent);
        }
        let made = below(resources.parent.as_deref()).and_then(|parent| match &self.base {
            CgroupBase::None => Err(io::Error::other("no cgroup may be made here")),
            CgroupBase::Unified(base) => make_unified(&base.join(&parent).join(name), &unified_settings(resources)),
            CgroupBase::Legacy(bases) => {
                let whole = parent.join(name);
                // A parent is entered in every hierarchy, as its limits may be in any.
                let also = if resources.parent.is_some() {
                    bases.as_slice()
                } else {
                    &[]
                };
                make_legacy(bases, &whole, &legacy_settings(resources), also)
            }
        });
        match made {
            Ok(mut group) => {
                unmet.append(&mut group.unmet);
                Some(group)
            }
            Err(err) => {
                let reason = err.to_string();
                if resources.parent.is_some() {
                    unmet.push(UnmetLimit {
                        limit: "cgroup-parent",
                        reason: reason.clone(),
                    });
                }
                let limits = unified_settings(resources);
                unmet.extend(limits.iter().map(|limit| UnmetLimit {
                    limit: limit.limit,
                    reason: reason.clone(),
                }));
                None
            }
        }
    }

    /// Once per process: lets version 2 hand its controllers down.
    fn prepare(&self) {
        if let CgroupBase::Unified(base) = &self.base {
            // Without them the settings fail one by one, and each failure is reported there.
            let _made = fs::create_dir(base);
            for directory in base.parent().into_iter().chain([base.as_path()]) {
                for controller in CONTROLLERS {
                    let _enabled = fs::write(directory.join("cgroup.subtree_control"), controller);
                }
            }
        }
    }
}

impl Cgroup {
    /// The directory to be born in, for version 2.
    pub(super) fn birthplace(&self) -> Option<BorrowedFd<'_>> {
        match &self.version {
            Version::Unified(directory) => Some(directory.as_fd()),
            Version::Legacy(_) => None,
        }
    }

    /// The files to enter by, for version 1.
    pub(super) fn entrances(&self) -> &[OwnedFd] {
        match &self.version {
            Version::Unified(_) => &[],
            Version::Legacy(procs) => procs,
        }
    }

    /// Whether the kernel has killed a process for going over the memory limit.
    pub(super) fn has_run_out_of_memory(&self) -> bool {
        let file = match self.version {
            Version::Unified(_) => "memory.events",
            Version::Legacy(_) => "memory.oom_control",
        };
        let killed = self
            .memory
            .as_deref()
            .and_then(|memory| fs::read_to_string(memory.join(file)).ok());
        killed.as_deref().and_then(oom_kills).is_some_and(|kills| kills > 0)
    }

    /// The most memory in use at once.
    pub(super) fn peak_memory(&self) -> Option<u64> {
        let file = match self.version {
            Version::Unified(_) => "memory.peak",
            Version::Legacy(_) => "memory.max_usage_in_bytes",
        };
        fs::read_to_string(self.memory.as_deref()?.join(file))
            .ok()?
            .trim()
            .parse()
            .ok()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for directory in &self.directories {
            // A process that was just waited for may take a moment to leave its group.
            for _attempt in 0..50 {
                match fs::remove_dir(directory) {
                    Err(err) if err.kind() == io::ErrorKind::ResourceBusy => thread::sleep(Duration::from_millis(1)),
                    // Gone, or left to the sweep of a later process.
                    _ => break,
                }
            }
        }
        for parent in &self.parents {
            let _in_use = fs::remove_dir(parent);
        }
    }
}

/// A parent as a path that leads down only.
fn below(parent: Option<&Path>) -> io::Result<PathBuf> {
    let mut path = PathBuf::new();
    for part in parent.unwrap_or(Path::new("")).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::Error::other("a parent must not lead upwards"));
            }
        }
    }
    Ok(path)
}

fn make_unified(directory: &Path, settings: &[Setting]) -> io::Result<Cgroup> {
    let parents = missing_above(directory);
    if let Some(parent) = directory.parent() {
        fs::create_dir_all(parent)?;
        for controller in CONTROLLERS {
            // Without them the settings fail one by one, and each failure is reported there.
            let _enabled = fs::write(parent.join("cgroup.subtree_control"), controller);
        }
    }
    fs::create_dir(directory)?;
    let fd = rustix::fs::open(
        directory,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let mut group = Cgroup {
        version: Version::Unified(fd),
        directories: vec![directory.to_owned()],
        parents,
        memory: Some(directory.to_owned()),
        unmet: Vec::new(),
    };
    for setting in settings {
        group.apply(setting, directory);
    }
    Ok(group)
}

fn make_legacy(
    bases: &[(String, PathBuf)],
    name: &Path,
    settings: &[Setting],
    also: &[(String, PathBuf)],
) -> io::Result<Cgroup> {
    let (directories, unmet) = (Vec::new(), Vec::new());
    let mut group = Cgroup {
        version: Version::Legacy(Vec::new()),
        directories,
        parents: Vec::new(),
        memory: None,
        unmet,
    };
    let mut procs = Vec::new();
    for setting in settings {
        let Some((_, base)) = bases.iter().find(|(controller, _)| controller == setting.controller) else {
            let reason = format!("no {} controller", setting.controller);
            group.unmet.push(UnmetLimit {
                limit: setting.limit,
                reason,
            });
            continue;
        };
        let directory = base.join(name);
        if !group.directories.contains(&directory) {
            let parents = missing_above(&directory);
            if let Err(err) = make_legacy_directory(base, &directory, setting.controller) {
                group.unmet.push(UnmetLimit {
                    limit: setting.limit,
                    reason: err.to_string(),
                });
                continue;
            }
            group.directories.push(directory.clone());
            group.parents.extend(parents);
            procs.push(entrance(&directory)?);
        }
        if setting.controller == "memory" {
            group.memory = Some(directory.clone());
        }
        group.apply(setting, &directory);
    }
    for (controller, base) in also {
        let directory = base.join(name);
        if !group.directories.contains(&directory) {
            group.parents.extend(missing_above(&directory));
            make_legacy_directory(base, &directory, controller)?;
            group.directories.push(directory.clone());
            procs.push(entrance(&directory)?);
        }
    }
    group.version = Version::Legacy(procs);
    Ok(group)
}

/// The directories above this one that are not there, innermost first.
fn missing_above(directory: &Path) -> Vec<PathBuf> {
    let above = directory.ancestors().skip(1);
    above.take_while(|path| !path.exists()).map(Path::to_owned).collect()
}

fn entrance(directory: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(directory.join("cgroup.procs"), flags, Mode::empty())?)
}

/// Makes a group of one hierarchy, and those above it up to `base`.
fn make_legacy_directory(base: &Path, directory: &Path, controller: &str) -> io::Result<()> {
    let fresh = directory.ancestors().take_while(|path| *path != base);
    let fresh: Vec<&Path> = fresh.collect();
    for (depth, path) in fresh.iter().rev().enumerate() {
        match fs::create_dir(path) {
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists && depth + 1 < fresh.len() => continue,
            other => other?,
        }
        if controller == "cpuset" {
            // Version 1 lets nobody into a group whose cpus or memory nodes are not said.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let above = path.parent().unwrap_or(base);
                fs::write(path.join(file), fs::read(above.join(file))?)?;
            }
        }
    }
    Ok(())
}

impl Cgroup {
    fn apply(&mut self, setting: &Setting, directory: &Path) {
        if let Err(err) = fs::write(directory.join(setting.file), &setting.value) {
            self.unmet.push(UnmetLimit {
                limit: setting.limit,
                reason: err.to_string(),
            });
        }
    }
}

fn legacy_settings(resources: &Resources) -> Vec<Setting> {
    let setting = |limit, controller, file, value: Option<String>| {
        value.map(|value| Setting {
            limit,
            controller,
            file,
            value,
        })
    };
    let text = |value: Option<u64>| value.map(|value| value.to_string());
    let settings = [
        setting("memory", "memory", "memory.limit_in_bytes", text(resources.memory)),
        setting(
            "memory-swap",
            "memory",
            "memory.memsw.limit_in_bytes",
            resources.memory_swap.map(|value| value.to_string()),
        ),
        setting("cpu-shares", "cpu", "cpu.shares", text(resources.cpu_shares)),
        setting("cpu-period", "cpu", "cpu.cfs_period_us", text(resources.cpu_period)),
        setting(
            "cpu-quota",
            "cpu",
            "cpu.cfs_quota_us",
            resources.cpu_quota.map(|value| value.to_string()),
        ),
        setting("cpuset-cpus", "cpuset", "cpuset.cpus", resources.cpuset_cpus.clone()),
        setting("cpuset-mems", "cpuset", "cpuset.mems", resources.cpuset_mems.clone()),
        setting("pids", "pids", "pids.max", text(resources.pids)),
    ];
    settings.into_iter().flatten().collect()
}

fn unified_settings(resources: &Resources) -> Vec<Setting> {
    let setting = |limit, controller, file, value: Option<String>| {
        value.map(|value| Setting {
            limit,
            controller,
            file,
            value,
        })
    };
    let text = |value: Option<u64>| value.map(|value| value.to_string());
    let settings = [
        setting("memory", "memory", "memory.max", text(resources.memory)),
        setting("memory-swap", "memory", "memory.swap.max", swap_alone(resources)),
        setting(
            "cpu-shares",
            "cpu",
            "cpu.weight",
            text(resources.cpu_shares.map(weight_of_shares)),
        ),
        setting("cpu-quota", "cpu", "cpu.max", cpu_max(resources)),
        setting("cpuset-cpus", "cpuset", "cpuset.cpus", resources.cpuset_cpus.clone()),
        setting("cpuset-mems", "cpuset", "cpuset.mems", resources.cpuset_mems.clone()),
        setting("pids", "pids", "pids.max", text(resources.pids)),
    ];
    settings.into_iter().flatten().collect()
}

/// Version 2 counts swap by itself, Docker together with the memory.
fn swap_alone(resources: &Resources) -> Option<String> {
    let both = resources.memory_swap?;
    match u64::try_from(both) {
        Err(_negative) => Some("max".to_owned()),
        Ok(both) => Some(both.saturating_sub(resources.memory.unwrap_or(0)).to_string()),
    }
}

/// Shares from 2 to 262144 as weights from 1 to 10000, the conversion that the container runtimes agree on.
fn weight_of_shares(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

fn cpu_max(resources: &Resources) -> Option<String> {
    if resources.cpu_quota.is_none() && resources.cpu_period.is_none() {
        return None;
    }
    let quota = resources
        .cpu_quota
        .filter(|&quota| quota > 0)
        .map_or("max".to_owned(), |quota| quota.to_string());
    Some(format!("{quota} {}", resources.cpu_period.unwrap_or(100_000)))
}

/// The number behind `oom_kill` in `memory.events` or `memory.oom_control`.
fn oom_kills(text: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_translated_for_version_2() {
        let resources = Resources {
            memory: Some(100),
            memory_swap: Some(150),
            cpu_shares: Some(1024),
            cpu_quota: Some(50_000),
            pids: Some(7),
            ..Resources::default()
        };
        let got: Vec<_> = unified_settings(&resources)
            .into_iter()
            .map(|setting| (setting.file, setting.value))
            .collect();
        let want = [
            ("memory.max", "100"),
            ("memory.swap.max", "50"),
            ("cpu.weight", "39"),
            ("cpu.max", "50000 100000"),
            ("pids.max", "7"),
        ];
        assert_eq!(got, want.map(|(file, value)| (file, value.to_owned())));
        assert_eq!((weight_of_shares(2), weight_of_shares(262_144)), (1, 10_000));
    }

    #[test]
    fn without_a_place_every_limit_is_named_as_unmet() {
        let mut unmet = Vec::new();
        let resources = Resources {
            memory: Some(1),
            pids: Some(2),
            ..Resources::default()
        };
        assert!(Cgroups::new(CgroupBase::None).make(&resources, &mut unmet).is_none());
        assert_eq!(
            unmet.iter().map(|limit| limit.limit).collect::<Vec<_>>(),
            ["memory", "pids"]
        );
    }
}
