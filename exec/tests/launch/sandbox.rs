//! What the process can and cannot do.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use cbs_exec::launch::{Access, DeviceKind, DeviceNode, Network, Security};

use crate::harness::{World, bind, upper};
use crate::sys;

#[test]
fn root_capabilities_are_dockers() {
    let Some(world) = World::new() else { return };
    let status = world.sh("grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status | tr -d '\\t'");
    let want = "CapInh:0000000000000000\nCapPrm:00000000a80425fb\nCapEff:00000000a80425fb\nCapBnd:00000000a80425fb\n\
        CapAmb:0000000000000000\nNoNewPrivs:0\nSeccomp:2\n";
    assert_eq!(status, want);
    let mut spec = world.script("grep -E '^(CapEff|Seccomp:)' /proc/self/status | tr -d '\\t'");
    spec.security = Security::Insecure;
    let own = fs::read_to_string("/proc/self/status").expect("status");
    let own = own
        .lines()
        .find_map(|line| line.strip_prefix("CapPrm:\t"))
        .expect("CapPrm");
    assert_eq!(world.success(&spec), format!("CapEff:{own}\nSeccomp:0\n"));
}

#[test]
fn root_system_calls_are_filtered() {
    let Some(world) = World::new() else { return };
    let refused = [
        "mount",
        "umount2",
        "unshare_user",
        "unshare_mounts",
        "clone_user",
        "keyctl",
        "add_key",
        "bpf",
        "io_uring_setup",
        "open_by_handle_at",
        "userfaultfd",
        "kexec_load",
        "sethostname",
        "socket_vsock",
        "socket_alg",
        "personality_norandom",
    ];
    let answers = sys::answers(&world, &sys::inside(&world, "calls"));
    assert_eq!(answers.len(), 22, "{answers:?}");
    for (name, errno) in answers {
        let want = match name.as_str() {
            "clone3" | "unheard_of" => libc::ENOSYS,
            name if refused.contains(&name) => libc::EPERM,
            _ => 0,
        };
        assert_eq!(errno, want, "{name}");
    }
    let mut spec = world.script("mount -t tmpfs x /tmp && touch /tmp/x && hostname other && hostname");
    spec.security = Security::Insecure;
    assert_eq!(world.success(&spec), "other\n");
}

#[test]
fn root_the_kernels_files_are_hidden_or_read_only() {
    let Some(world) = World::new() else { return };
    let hidden = world.sh(
        "for f in kcore keys timer_list sched_debug latency_stats interrupts; do cat /proc/$f 2>/dev/null; done; \
         for d in /proc/acpi /proc/scsi /sys/firmware; do ls $d 2>/dev/null; done; true",
    );
    assert_eq!(hidden, "");
    for path in [
        "/proc/sys/kernel/hostname",
        "/proc/sysrq-trigger",
        "/sys/kernel/mm/ksm/run",
        "/proc/irq/x",
    ] {
        let run = world.run(&world.script(&format!("echo 1 > {path}")));
        assert_eq!(run.report.status.code(), 1, "{path}: {run:?}");
    }
    assert_eq!(
        world.sh("mkdir /sys/fs/cgroup/x 2>/dev/null || echo no; ls /sys/fs/cgroup | wc -l | grep -v '^0'"),
        {
            let count = world.sh("ls /sys/fs/cgroup | wc -l");
            format!("no\n{count}")
        }
    );
    let mut spec = world.script("ls /proc/keys; test -w /proc/sys/kernel/hostname && echo writable");
    spec.security = Security::Insecure;
    assert_eq!(world.success(&spec), "/proc/keys\nwritable\n");
}

#[test]
fn root_devices_are_the_standard_ones_only() {
    let Some(world) = World::new() else { return };
    let names = world.sh("cd /dev; ls | tr '\\n' ' '; head -c 2 zero | wc -c; echo x > null; head -c1 urandom | wc -c");
    assert_eq!(
        names,
        "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero 2\n1\n"
    );
    // A node can be made, and will be in the layer, but does not work; nor does changing ours change the host's.
    let spec = world.script(
        "mknod /sda b 7 0 && dd if=/sda count=1 2>&1 | grep -o 'Permission denied'; \
         mknod /dev/sda b 7 0 && dd if=/dev/sda count=1 2>&1 | grep -o 'Permission denied'; \
         mknod /dev/mynull c 1 3 && (echo x > /dev/mynull) 2>/dev/null && echo works; chmod 600 /dev/null; stat -c %a /dev/null; exit 0",
    );
    let run = world.run(&spec);
    assert_eq!(run.stdout, "Permission denied\nPermission denied\n600\n", "{run:?}");
    assert!(
        fs::symlink_metadata(upper(&spec).join("sda"))
            .expect("stat")
            .file_type()
            .is_block_device()
    );
    assert_eq!(
        fs::metadata("/dev/null").expect("stat").mode() & 0o777,
        0o666,
        "the host's null is as it was"
    );
    // An image that brings a node along.
    let tree = world.fresh("tree");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        tree.join("zero"),
        rustix::fs::FileType::CharacterDevice,
        0o666.into(),
        rustix::fs::makedev(1, 5),
    )
    .expect("mknod");
    let mut spec = world.script("head -c1 /m/zero");
    spec.mounts.push(bind(tree, "/m", Access::ReadOnly));
    assert_eq!(world.run(&spec).report.status.code(), 1);

    let mut spec = world.script("stat -c '%t:%T %a' /dev/net/tun /dev/null && head -c1 /dev/deep/zero | wc -c");
    let device = |path: &str, major, minor| DeviceNode {
        path: path.into(),
        source: path.into(),
        kind: DeviceKind::Character,
        major,
        minor,
        mode: 0o640,
        uid: 0,
        gid: 0,
    };
    spec.devices = vec![device("/dev/net/tun", 10, 200), device("/dev/deep/zero", 1, 5)];
    assert_eq!(world.success(&spec), "a:c8 640\n1:3 666\n1\n");
    spec.security = Security::Insecure;
    assert_eq!(
        world.success(&world_with_fresh_root(&world, spec)),
        "a:c8 640\n1:3 666\n1\n"
    );
    let mut spec = world.script("ls /dev | tr '\\n' ' '");
    spec.security = Security::Insecure;
    let names = world.success(&spec);
    assert!(names.contains("fuse kmsg kvm loop-control loop0"), "{names}");
}

fn world_with_fresh_root(world: &World, spec: cbs_exec::launch::ContainerSpec) -> cbs_exec::launch::ContainerSpec {
    cbs_exec::launch::ContainerSpec {
        rootfs: world.spec(&[]).rootfs,
        ..spec
    }
}

#[test]
fn root_no_network_leaves_loopback_up() {
    let Some(world) = World::new() else { return };
    let mut spec = world.script("ls /sys/class/net; ip addr show lo | grep -o 'inet 127.0.0.1'; ping -c1 -W1 127.0.0.1 >/dev/null && echo up; ping -c1 -W1 192.0.2.1 2>&1 | grep -o unreachable");
    spec.network = Network::None;
    assert_eq!(world.success(&spec), "lo\ninet 127.0.0.1\nup\nunreachable\n");
    let host = fs::read_link("/proc/self/ns/net")
        .expect("link")
        .into_os_string()
        .into_string()
        .expect("text");
    assert_eq!(world.sh("readlink /proc/self/ns/net").trim(), host);
    let namespace = std::sync::Arc::new(fs::File::open("/proc/self/ns/net").expect("open").into());
    let mut spec = world.script("readlink /proc/self/ns/net");
    spec.network = Network::Namespace(namespace);
    assert_eq!(world.success(&spec).trim(), host);
}

#[test]
fn root_namespaces_are_its_own() {
    let Some(world) = World::new() else { return };
    for name in ["mnt", "pid", "ipc", "uts", "cgroup"] {
        let host = fs::read_link(format!("/proc/self/ns/{name}")).expect("link");
        let inside = world.sh(&format!("readlink /proc/self/ns/{name}"));
        assert_ne!(inside.trim(), host.to_str().expect("text"), "{name}");
    }
    let before = fs::read_to_string("/proc/self/mountinfo").expect("read");
    world.sh("true");
    assert_eq!(
        fs::read_to_string("/proc/self/mountinfo").expect("read"),
        before,
        "no mount reaches the host"
    );
    // Nothing of the host's is mounted inside.
    let kinds = world.sh("cut -d' ' -f3 /proc/mounts | sort -u | tr '\\n' ' '");
    for kind in kinds.split_whitespace() {
        assert!(
            [
                "overlay", "proc", "tmpfs", "devpts", "mqueue", "sysfs", "cgroup", "cgroup2"
            ]
            .contains(&kind),
            "{kinds}"
        );
    }
}
