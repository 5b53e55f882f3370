//! Mounts, their targets, and what is reported of them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use cbs_exec::launch::probe::{DataOnly, data_only_layers};
use cbs_exec::launch::{
    Access, CreatedFor, CreatedKind, CreatedPath, FileSource, LaunchError, MountSource, MountSpec, OverlayXattrs,
    RootFs, SpecError,
};

use crate::harness::{World, bind, upper};

fn file(target: &str, text: &str, mode: u32, owner: (u32, u32)) -> MountSpec {
    let source = FileSource {
        bytes: Arc::from(text.as_bytes()),
        mode,
        uid: owner.0,
        gid: owner.1,
    };
    MountSpec {
        target: target.into(),
        source: MountSource::File(source),
        access: Access::ReadOnly,
    }
}

fn tmpfs(target: &str, size: Option<u64>) -> MountSpec {
    MountSpec {
        target: target.into(),
        source: MountSource::Tmpfs { size, mode: 0o1777 },
        access: Access::ReadWrite,
    }
}

fn created(path: &str, kind: CreatedKind) -> CreatedPath {
    CreatedPath {
        path: path.into(),
        kind,
        purpose: CreatedFor::Mount,
    }
}

#[test]
fn root_secrets_are_in_memory_and_reported_as_stubs() {
    let Some(world) = World::new() else { return };
    let mut spec = world.script(
        "stat -c '%a %u %g' /run/secrets/key; cat /run/secrets/key; echo x > /run/secrets/key; \
         grep /run/secrets/key /proc/mounts | cut -d' ' -f3,4 | cut -d, -f1-4; /dev/pipes/EOF; cat /etc/hosts",
    );
    spec.mounts = vec![
        file("/run/secrets/key", "hush\n", 0o400, (1000, 27)),
        file("/dev/pipes/EOF", "#!/bin/sh\necho ran $0\n", 0o755, (0, 0)),
        MountSpec::root_file("/etc/hosts", *b"127.0.0.1 localhost\n"),
    ];
    let run = world.run(&spec);
    let want = "400 1000 27\nhush\ntmpfs ro,nosuid,nodev,noexec\nran /dev/pipes/EOF\n127.0.0.1 localhost\n";
    assert_eq!(run.stdout, want, "{run:?}");
    assert!(run.stderr.contains("Read-only file system"), "{run:?}");
    let want = [
        created("etc/hosts", CreatedKind::File),
        created("run", CreatedKind::Directory),
        created("run/secrets", CreatedKind::Directory),
        created("run/secrets/key", CreatedKind::File),
    ];
    assert_eq!(run.report.created, want);
    assert_eq!(
        fs::read(upper(&spec).join("run/secrets/key")).expect("stub"),
        b"",
        "the secret is not in the layer"
    );
}

#[test]
fn root_binds_share_the_host_directory() {
    let Some(world) = World::new() else { return };
    let (cache, source) = (world.fresh("cache"), world.fresh("source"));
    fs::write(source.join("given"), "given\n").expect("write");
    let mut spec = world.script("cat /src/given; echo kept > /cache/new; echo x > /src/x; cat /one");
    spec.mounts = vec![
        bind(&cache, "/cache", Access::ReadWrite),
        bind(&source, "/src", Access::ReadOnly),
        bind(source.join("given"), "/one", Access::ReadOnly),
    ];
    let run = world.run(&spec);
    assert_eq!(run.stdout, "given\ngiven\n", "{run:?}");
    assert!(run.stderr.contains("Read-only file system"), "{run:?}");
    assert_eq!(fs::read(cache.join("new")).expect("read"), b"kept\n");
    assert!(!source.join("x").exists());

    let mut spec = world.script("cat /src/given; echo lost > /src/given; cat /src/given");
    let overlay = MountSource::Overlay(world.overlay(source.clone()));
    spec.mounts = vec![MountSpec {
        target: "/src".into(),
        source: overlay,
        access: Access::ReadWrite,
    }];
    assert_eq!(world.success(&spec), "given\nlost\n");
    assert_eq!(
        fs::read(source.join("given")).expect("read"),
        b"given\n",
        "writes to the overlay are discarded"
    );

    let mut spec = world.script("true");
    spec.mounts = vec![bind("/no/such/place", "/m", Access::ReadOnly)];
    let err = world.try_run(&spec).expect_err("missing source");
    assert_eq!(err.to_string(), "cannot bind `/no/such/place`");
}

#[test]
fn root_memory_is_empty_and_limited() {
    let Some(world) = World::new() else { return };
    let mut spec = world.script(
        "ls -A /t; stat -c %a /t; head -c 2000000 /dev/zero > /t/big; ls -l /t | wc -l; \
         df -k /dev/shm /t | tail -n2 | awk '{print $2}'",
    );
    fs::create_dir(upper(&spec).join("t")).expect("mkdir");
    fs::write(upper(&spec).join("t/covered"), "").expect("write");
    spec.mounts = vec![tmpfs("/t", Some(1 << 20))];
    spec.shm_size = Some(8 << 20);
    let run = world.run(&spec);
    assert_eq!(run.stdout, "1777\n2\n8192\n1024\n", "{run:?}");
    assert!(run.stderr.contains("head:"), "{run:?}");
    assert_eq!(run.report.created, []);
}

#[test]
fn root_targets_cannot_lead_out() {
    let Some(world) = World::new() else { return };
    let outside = world.fresh("outside");
    let mut spec = world.script("cat /escape/one /etc/resolv.conf; ls -l /up/two | wc -l");
    let root = upper(&spec).to_owned();
    symlink(&outside, root.join("escape")).expect("symlink");
    symlink("../../../../../../../../../../x", root.join("up")).expect("symlink");
    fs::create_dir(root.join("etc")).expect("mkdir");
    symlink("../run/stub.conf", root.join("etc/resolv.conf")).expect("symlink");
    spec.mounts = vec![
        file("/escape/one", "inside\n", 0o644, (0, 0)),
        file("/etc/resolv.conf", "nameserver\n", 0o644, (0, 0)),
        tmpfs("/up/two", None),
    ];
    let run = world.run(&spec);
    assert_eq!(run.stdout, "inside\nnameserver\n1\n", "{run:?}");
    assert_eq!(fs::read_dir(&outside).expect("read").count(), 0);
    let made: Vec<_> = run
        .report
        .created
        .iter()
        .map(|made| made.path.to_str().expect("text"))
        .collect();
    assert!(made.contains(&"x/two") && made.contains(&"run/stub.conf"), "{made:?}");

    for target in ["/", "/proc", "/proc/sys/kernel", "/a/../proc/1"] {
        spec.mounts = vec![tmpfs(target, None)];
        spec.rootfs = world.spec(&[]).rootfs;
        let err = world.try_run(&spec).expect_err(target);
        assert!(
            matches!(err, LaunchError::Spec(SpecError::ForbiddenTarget { .. })),
            "{target}: {err:?}"
        );
    }
    spec.mounts = vec![tmpfs("/a/../../b", None)];
    let err = world.try_run(&spec).expect_err("dots");
    assert!(matches!(err, LaunchError::Spec(SpecError::Escapes { .. })), "{err:?}");
    spec.mounts = vec![tmpfs("/sneaky/self", None)];
    spec.rootfs = world.spec(&[]).rootfs;
    symlink("/proc", upper(&spec).join("sneaky")).expect("symlink");
    let err = world.try_run(&spec).expect_err("a link into /proc");
    assert!(
        matches!(err, LaunchError::Spec(SpecError::ForbiddenTarget { .. })),
        "{err:?}"
    );
}

#[test]
fn root_a_root_whose_system_directories_are_links_is_refused() {
    let Some(world) = World::new() else { return };
    for name in ["proc", "dev", "sys"] {
        let tree = world.fresh("tree");
        fs::create_dir(tree.join("elsewhere")).expect("mkdir");
        symlink("elsewhere", tree.join(name)).expect("symlink");
        let mut spec = world.script("true");
        spec.rootfs = RootFs::Overlay(world.overlay(tree));
        let err = world.try_run(&spec).expect_err(name);
        assert!(
            matches!(
                err,
                LaunchError::Setup {
                    action: "mount over the symlink",
                    ..
                }
            ),
            "{name}: {err:?}"
        );
    }
}

#[test]
fn root_inner_mounts_come_after_outer_ones() {
    let Some(world) = World::new() else { return };
    let cache = world.fresh("cache");
    let mut spec = world.script("cat /c/in/f; ls /c; df -k /dev/shm | tail -n1 | awk '{print $2}'");
    spec.mounts = vec![
        file("/c/in/f", "deep\n", 0o644, (0, 0)),
        bind(&cache, "/c", Access::ReadWrite),
        tmpfs("/dev/shm", Some(4096)),
    ];
    let run = world.run(&spec);
    assert_eq!(run.stdout, "deep\nin\n4\n", "{run:?}");
    assert_eq!(
        run.report.created,
        [created("c", CreatedKind::Directory)],
        "stubs in a cache are not in the layer"
    );
}

#[test]
fn root_even_dev_can_be_covered() {
    let Some(world) = World::new() else { return };
    let mut spec = world.script("ls -A /dev; cat; cat /proc/timer_list");
    spec.mounts = vec![tmpfs("/dev", None)];
    assert_eq!(world.success(&spec), "");
}

#[test]
fn root_a_root_without_anything_gets_its_directories() {
    let Some(world) = World::new() else { return };
    let tree = world.fresh("tree");
    fs::copy(world.lower().join("bin/busybox"), tree.join("busybox")).expect("copy");
    let mut spec = world.spec(&["/busybox", "ls", "/"]);
    spec.rootfs = RootFs::Overlay(world.overlay(tree));
    let run = world.run(&spec);
    assert_eq!(run.stdout, "busybox\ndev\nproc\nsys\n");
    let system = |path: &str| CreatedPath {
        path: path.into(),
        kind: CreatedKind::Directory,
        purpose: CreatedFor::System,
    };
    assert_eq!(run.report.created, [system("proc"), system("dev"), system("sys")]);
    for made in &run.report.created {
        let mode = fs::metadata(upper(&spec).join(&made.path))
            .expect("stat")
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o755);
    }
}

#[test]
fn root_a_read_only_root_still_gets_its_mounts() {
    let Some(world) = World::new() else { return };
    let mut spec = world.script("echo x > /x; echo y > /t/y && cat /t/y; echo z > /dev/null && echo null");
    spec.rootfs_access = Access::ReadOnly;
    spec.mounts = vec![tmpfs("/t", None)];
    let run = world.run(&spec);
    assert_eq!(run.stdout, "y\nnull\n", "{run:?}");
    assert!(run.stderr.contains("/x: Read-only file system"), "{run:?}");

    let root = world.fresh("plain");
    let status = std::process::Command::new("cp")
        .arg("-aT")
        .args([&world.lower(), &root])
        .status()
        .expect("cp");
    assert!(status.success());
    let mut spec = world.script("echo stays > /stays");
    spec.rootfs = RootFs::Bind(root.clone());
    world.success(&spec);
    assert_eq!(fs::read(root.join("stays")).expect("read"), b"stays\n");
}

#[test]
fn root_upper_directories_hold_plain_changes() {
    let Some(world) = World::new() else { return };
    let spec = world.script("rm /etc/group; mv /etc/passwd /etc/renamed; chmod 700 /root; mkdir -p /n/m");
    world.success(&spec);
    let upper = upper(&spec);
    let whiteout = fs::symlink_metadata(upper.join("etc/group")).expect("whiteout");
    assert_eq!(std::os::unix::fs::MetadataExt::rdev(&whiteout), 0);
    assert!(
        fs::read_to_string(upper.join("etc/renamed"))
            .expect("renamed")
            .starts_with("root:")
    );
    assert!(upper.join("n/m").is_dir());
}

#[test]
fn root_many_layers_and_odd_names_work() {
    let Some(world) = World::new() else { return };
    let mut overlay = world.overlay(world.lower());
    for number in 0..40 {
        let layer = world.fresh("layer:with,odd\\name");
        fs::write(layer.join(format!("file{number}")), "").expect("write");
        overlay.lower.insert(0, layer);
    }
    overlay.upper = world.fresh("up:per,\\odd");
    let mut spec = world.script("ls /file* | wc -l; echo x > /new");
    let odd = overlay.upper.clone();
    spec.rootfs = RootFs::Overlay(overlay);
    assert_eq!(world.success(&spec), "40\n");
    assert!(odd.join("new").exists());
    let mut spec = world.script("true");
    let mut none = world.overlay(world.lower());
    none.lower.clear();
    spec.rootfs = RootFs::Overlay(none);
    let err = world.try_run(&spec).expect_err("no lower");
    assert_eq!(err.to_string(), "the overlay at `/` has no lower layer");
    let mut missing = world.overlay("/no/such/layer".into());
    missing.upper = world.fresh("u");
    spec.rootfs = RootFs::Overlay(missing);
    let err = world.try_run(&spec).expect_err("missing lower");
    assert!(matches!(err, LaunchError::Setup { .. }), "{err:?}");
}

#[test]
fn root_data_only_layers_are_probed() {
    let Some(world) = World::new() else { return };
    let scratch = world.fresh("scratch");
    for xattrs in [OverlayXattrs::Trusted, OverlayXattrs::User] {
        let answer = data_only_layers(&scratch, xattrs).expect("scratch works");
        eprintln!("data-only layers with {xattrs:?} attributes: {answer:?}");
        // Any kernel since 6.5 has them for root.
        assert!(
            xattrs == OverlayXattrs::User || answer == DataOnly::Supported,
            "{answer:?}"
        );
    }
    assert_eq!(fs::read_dir(&scratch).expect("read").count(), 0);
    assert!(Path::new(&scratch).exists());
}
