//! Plans, written one mount a line.

use std::sync::Arc;

use super::*;
use crate::launch::spec::{ContainerSpec, Ids, MountSpec, OverlayXattrs, ProcessSpec, Resources, RootFs, Stdio};

fn spec(mounts: Vec<MountSpec>) -> ContainerSpec {
    ContainerSpec {
        rootfs: RootFs::Bind("/root".into()),
        rootfs_access: Access::ReadWrite,
        mounts,
        process: ProcessSpec {
            args: vec!["true".into()],
            env: Vec::new(),
            cwd: "/".into(),
            user: Ids::default(),
            rlimits: Vec::new(),
            stdio: Stdio::Captured,
        },
        hostname: "h".into(),
        network: Network::Host,
        security: Security::Sandbox,
        user_namespace: None,
        emulators: Vec::new(),
        shm_size: None,
        devices: Vec::new(),
        resources: Resources::default(),
        oom_score_adj: None,
    }
}

fn around(cgroups: CgroupView) -> Surroundings {
    Surroundings {
        devices: DeviceSupply::MakeNodes,
        host_sysfs: HostSysfs::Mount,
        cgroups,
    }
}

fn tmpfs(target: &str) -> MountSpec {
    let source = MountSource::Tmpfs {
        size: None,
        mode: 0o1777,
    };
    MountSpec {
        target: target.into(),
        source,
        access: Access::ReadWrite,
    }
}

fn flags(attributes: u64) -> String {
    let names = [(NOSUID, "nosuid"), (NODEV, "nodev"), (NOEXEC, "noexec"), (RDONLY, "ro")];
    names
        .iter()
        .filter(|(flag, _)| attributes & flag != 0)
        .map(|(_, name)| format!(" {name}"))
        .collect()
}

/// One line per mount: target, kind, flags.
fn lines(plan: &Plan<'_>) -> Vec<String> {
    let kind = |what: &What<'_>| match what {
        What::InChild(fs) => fs.name.to_str().expect("ascii").to_owned(),
        What::Memory { .. } => "memory".to_owned(),
        What::Terminals => "devpts".to_owned(),
        What::HostTree(path) => format!("tree {}", path.display()),
        What::Bind(path) => format!("bind {}", path.display()),
        What::Overlay(_) => "overlay".to_owned(),
        What::Private(entry) => match &plan.private[*entry] {
            PrivateEntry::File(_) => "file".to_owned(),
            PrivateEntry::Node(node) => format!("node {}:{}", node.major, node.minor),
            PrivateEntry::EmptyDirectory => "empty".to_owned(),
        },
    };
    let line = |mount: &PlannedMount<'_>| {
        format!(
            "{} {}{}",
            mount.target.display(),
            kind(&mount.what),
            flags(mount.attributes)
        )
    };
    plan.mounts.iter().map(line).collect()
}

#[test]
fn a_sandbox_gets_the_mounts_of_docker() {
    let spec = spec(vec![
        tmpfs("/a/b"),
        MountSpec::root_file("/etc/hosts", *b"x"),
        MountSpec {
            target: "/dev/pipes/EOF".into(),
            source: MountSource::File(FileSource {
                bytes: Arc::from(*b"#!"),
                mode: 0o755,
                uid: 0,
                gid: 0,
            }),
            access: Access::ReadOnly,
        },
        MountSpec {
            target: "/a".into(),
            source: MountSource::Bind("/cache".into()),
            access: Access::ReadWrite,
        },
    ]);
    let plan = Plan::new(&spec, &around(CgroupView::Unified)).expect("plan");
    let want = "\
/proc proc nosuid nodev noexec
/dev memory nosuid nodev
/dev/pts devpts nosuid noexec
/dev/shm memory nosuid nodev noexec
/dev/mqueue mqueue nosuid nodev noexec
/dev/full node 1:7 nosuid noexec
/dev/null node 1:3 nosuid noexec
/dev/random node 1:8 nosuid noexec
/dev/tty node 5:0 nosuid noexec
/dev/urandom node 1:9 nosuid noexec
/dev/zero node 1:5 nosuid noexec
/sys sysfs nosuid nodev noexec ro
/sys/fs/cgroup cgroup2 nosuid nodev noexec ro
/a bind /cache nodev
/a/b memory nosuid nodev
/etc/hosts file nosuid nodev noexec ro
/dev/pipes/EOF file nosuid nodev ro";
    assert_eq!(lines(&plan).join("\n"), want);
    assert_eq!(
        (plan.masked.len(), plan.sealed.len(), plan.root_attributes),
        (11, 5, NODEV)
    );
}

#[test]
fn an_insecure_container_has_real_devices_and_no_masks() {
    let mut spec = spec(Vec::new());
    spec.security = Security::Insecure;
    let plan = Plan::new(&spec, &around(CgroupView::None)).expect("plan");
    let want = "\
/proc proc nosuid nodev noexec
/dev memory nosuid
/dev/pts devpts nosuid noexec
/dev/shm memory nosuid nodev noexec
/dev/mqueue mqueue nosuid nodev noexec
/sys sysfs nosuid nodev noexec";
    assert_eq!(lines(&plan).join("\n"), want);
    assert_eq!((plan.masked.len(), plan.sealed.len(), plan.root_attributes), (0, 0, 0));
    let nodes = plan.mounts.iter().find_map(|mount| match &mount.what {
        What::Memory {
            content: MemoryContent::Dev(nodes),
            ..
        } => Some(nodes.len()),
        _ => None,
    });
    assert_eq!(nodes, Some(20));
}

#[test]
fn without_rights_the_hosts_own_things_are_shown() {
    let spec = spec(Vec::new());
    let around = Surroundings {
        devices: DeviceSupply::ShowHosts,
        host_sysfs: HostSysfs::Bind,
        cgroups: CgroupView::None,
    };
    let lines = lines(&Plan::new(&spec, &around).expect("plan"));
    assert!(
        lines.contains(&"/dev/null bind /dev/null nosuid noexec".to_owned()),
        "{lines:?}"
    );
    assert!(
        lines.contains(&"/sys tree /sys nosuid nodev noexec ro".to_owned()),
        "{lines:?}"
    );
}

#[test]
fn legacy_cgroups_are_shown_one_by_one() {
    let hierarchy = |directory: &str, version| LegacyHierarchy {
        directory: directory.to_owned(),
        version,
    };
    let view = CgroupView::Legacy(vec![
        hierarchy(
            "cpu,cpuacct",
            LegacyVersion::Controllers(vec!["cpu".to_owned(), "cpuacct".to_owned()]),
        ),
        hierarchy("systemd", LegacyVersion::Named("systemd".to_owned())),
        hierarchy("unified", LegacyVersion::Unified),
    ]);
    let spec = spec(Vec::new());
    let plan = Plan::new(&spec, &around(view)).expect("plan");
    let lines = lines(&plan);
    let want = [
        "/sys/fs/cgroup memory nosuid nodev noexec ro",
        "/sys/fs/cgroup/cpu,cpuacct cgroup nosuid nodev noexec ro",
        "/sys/fs/cgroup/systemd cgroup nosuid nodev noexec ro",
        "/sys/fs/cgroup/unified cgroup2 nosuid nodev noexec ro",
    ];
    assert_eq!(lines[lines.len() - 4..], want);
    let links = plan.mounts.iter().find_map(|mount| match &mount.what {
        What::Memory {
            content: MemoryContent::Cgroups { links, .. },
            ..
        } => Some(links.clone()),
        _ => None,
    });
    let link = |name: &str| (name.to_owned(), "cpu,cpuacct".to_owned());
    assert_eq!(links, Some(vec![link("cpu"), link("cpuacct")]));
}

#[test]
fn bad_targets_are_refused() {
    let none = OverlayMount {
        lower: Vec::new(),
        data_only: Vec::new(),
        upper: "/u".into(),
        work: "/w".into(),
        xattrs: OverlayXattrs::Trusted,
    };
    let empty = MountSpec {
        target: "/o".into(),
        source: MountSource::Overlay(none),
        access: Access::ReadWrite,
    };
    let cases = [
        (tmpfs("/"), SpecError::ForbiddenTarget { path: "/".into() }),
        (tmpfs("/x/.."), SpecError::ForbiddenTarget { path: "/x/..".into() }),
        (
            tmpfs("/proc/sys"),
            SpecError::ForbiddenTarget {
                path: "/proc/sys".into(),
            },
        ),
        (tmpfs("/../x"), SpecError::Escapes { path: "/../x".into() }),
        (tmpfs("x"), SpecError::NotAbsolute { path: "x".into() }),
        (empty, SpecError::NoLower { target: "/o".into() }),
    ];
    for (mount, want) in cases {
        let target = mount.target.clone();
        let spec = spec(vec![mount]);
        let got = Plan::new(&spec, &around(CgroupView::None)).err();
        assert_eq!(got, Some(want), "{}", target.display());
    }
    let mut spec = spec(Vec::new());
    spec.devices = vec![character("../etc/x", 1, 3)];
    let got = Plan::new(&spec, &around(CgroupView::None)).err();
    assert_eq!(
        got,
        Some(SpecError::DeviceOutsideDev {
            path: "/dev/../etc/x".into()
        })
    );
}
