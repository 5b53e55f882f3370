//! Beginnings and ends: cancellation, death of the launcher, limits, many at once.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::process::{Command, Stdio as ProcessStdio};
use std::thread;
use std::time::{Duration, Instant};

use cbs_exec::launch::{
    CancelHandle, Collect, Emulator, ExitStatus, IdMappings, IdRange, LaunchError, OutputSink, OutputStream,
    OverlayXattrs, Resources, RootFs, SpecError,
};

use crate::harness::{World, upper};

/// Processes whose command line has this text.
fn processes_with(text: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir("/proc").expect("proc").flatten().map(|entry| entry.path());
    let has_text = |path: &PathBuf| {
        let command = fs::read(path.join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).replace('\0', " ").contains(text)
    };
    let own = PathBuf::from(format!("/proc/{}", std::process::id()));
    entries.filter(|path| *path != own && has_text(path)).collect()
}

/// A command that sleeps for long and that no other test, nor another run of this one, has.
fn long_sleep(test: u32) -> String {
    format!("sleep {test}{:08}", std::process::id())
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(10), "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Cancels when it sees the first output, and keeps the moment.
struct CancelOnOutput {
    cancel: CancelHandle,
    since: Option<Instant>,
}

impl OutputSink for CancelOnOutput {
    fn write(&mut self, _stream: OutputStream, _bytes: &[u8]) {
        self.since.get_or_insert_with(Instant::now);
        self.cancel.cancel();
    }
}

#[test]
fn root_cancelling_kills_everything_at_once() {
    let Some(world) = World::new() else { return };
    let sleep = long_sleep(71);
    let script = format!("setsid {sleep} & trap '' TERM INT; echo ready; {sleep}");
    // On a busy machine one attempt may have to wait for a processor.
    let taken = (0..3).map(|_| {
        let cancel = CancelHandle::new().expect("eventfd");
        let mut sink = CancelOnOutput {
            cancel: cancel.clone(),
            since: None,
        };
        let result = world.launcher.run(&world.script(&script), &cancel, &mut sink);
        let taken = sink.since.expect("output").elapsed();
        assert!(matches!(result, Err(LaunchError::Cancelled)), "{result:?}");
        assert_eq!(processes_with(&sleep), Vec::<PathBuf>::new());
        // The request stays: the next one does not even start.
        let result = world
            .launcher
            .run(&world.script("true"), &cancel, &mut Collect::default());
        assert!(matches!(result, Err(LaunchError::Cancelled)), "{result:?}");
        taken
    });
    let best = taken.min().expect("three");
    assert!(best < Duration::from_millis(100), "took {best:?}");
}

#[test]
fn root_background_processes_die_with_the_command() {
    let Some(world) = World::new() else { return };
    let start = Instant::now();
    let sleep = long_sleep(72);
    let run = world.run(&world.script(&format!("{sleep} & setsid {sleep} & echo done")));
    assert_eq!(
        (run.stdout.as_str(), run.report.status),
        ("done\n", ExitStatus::Exited(0))
    );
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!(processes_with(&sleep), Vec::<PathBuf>::new());
}

#[test]
fn root_a_panicking_sink_leaves_nothing() {
    let Some(world) = World::new() else { return };
    struct Panics;
    impl OutputSink for Panics {
        fn write(&mut self, _stream: OutputStream, _bytes: &[u8]) {
            panic!("as a test");
        }
    }
    let sleep = long_sleep(73);
    let spec = world.script(&format!("echo x; {sleep}"));
    let cancel = CancelHandle::new().expect("eventfd");
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        world.launcher.run(&spec, &cancel, &mut Panics).map(drop)
    }));
    assert!(result.is_err());
    assert_eq!(processes_with(&sleep), Vec::<PathBuf>::new());
}

/// What the parent in the next test runs: a container that outlives any patience.
#[test]
fn when_asked_to_run_for_long() {
    let Ok(script) = std::env::var("CBS_RUN_FOR_LONG") else {
        return;
    };
    let Some(world) = World::new() else { return };
    let spec = world.script(&script);
    println!("upper {}", upper(&spec).display());
    let run = world.run(&spec);
    panic!("ended: {run:?}");
}

#[test]
fn root_killing_the_launcher_kills_the_container() {
    let Some(_world) = World::new() else { return };
    let (plain, changed) = (long_sleep(74), long_sleep(75));
    for (script, mark) in [
        (format!("{plain} & {plain}"), &plain),
        // A change of user takes the parent-death signal away from a process.
        (format!("exec su app -c 'exec {changed}'"), &changed),
    ] {
        let mut parent = Command::new(std::env::current_exe().expect("own path"))
            .args(["--exact", "lifecycle::when_asked_to_run_for_long", "--nocapture"])
            .env("CBS_RUN_FOR_LONG", script)
            .stdout(ProcessStdio::piped())
            .spawn()
            .expect("spawn");
        let mut lines = BufReader::new(parent.stdout.take().expect("piped")).lines();
        let line = lines
            .find_map(|line| Some(line.ok()?.strip_prefix("upper ")?.to_owned()))
            .expect("started");
        wait_until("the container starts", || !processes_with(mark).is_empty());
        thread::sleep(Duration::from_millis(50));
        parent.kill().expect("kill");
        parent.wait().expect("wait");
        wait_until(&format!("{mark} dies with its launcher"), || {
            processes_with(mark).is_empty()
        });
        let dir = PathBuf::from(line);
        let _left_by_the_killed = fs::remove_dir_all(dir.parent().expect("parent"));
    }
}

#[test]
fn root_memory_limits_are_kept_and_reported() {
    let Some(world) = World::new() else { return };
    let mut spec = world.script("cat /dev/zero | head -c 200m | tail | wc -c; exit 3");
    spec.resources = Resources {
        memory: Some(32 << 20),
        pids: Some(50),
        ..Resources::default()
    };
    let run = world.run(&spec);
    if run.report.unmet_limits.iter().any(|limit| limit.limit == "memory") {
        eprintln!("SKIPPED: {:?}", run.report.unmet_limits);
        return;
    }
    assert_eq!(run.report.status, ExitStatus::OutOfMemory { code: 3 }, "{run:?}");
    let peak = run.report.peak_memory.expect("a cgroup knows");
    assert!((8 << 20..=33 << 20).contains(&peak), "{peak}");

    let mut spec = world.script("for i in 1 2 3 4 5 6 7 8 9; do sleep 1 & done; echo started");
    spec.resources = Resources {
        pids: Some(5),
        ..Resources::default()
    };
    let run = world.run(&spec);
    assert!(run.stderr.contains("fork"), "{run:?}");
    let mut spec = world.script("true");
    spec.resources = Resources {
        cpu_shares: Some(512),
        cpu_period: Some(50_000),
        cpu_quota: Some(25_000),
        cpuset_cpus: Some("0".to_owned()),
        ..Resources::default()
    };
    let run = world.run(&spec);
    assert!(
        run.report.status.success() && run.report.unmet_limits.is_empty(),
        "{run:?}"
    );
    spec.resources = Resources {
        cpuset_cpus: Some("nonsense".to_owned()),
        ..Resources::default()
    };
    spec.rootfs = world.spec(&[]).rootfs;
    let run = world.run(&spec);
    assert_eq!(run.report.unmet_limits.len(), 1, "{run:?}");

    let groups = walk(
        std::path::Path::new("/sys/fs/cgroup"),
        &format!("cbs-{}-", std::process::id()),
    );
    // Other tests of this process may have one at this moment, but not for long.
    wait_until("cgroups are removed", || groups.iter().all(|group| !group.exists()));
}

fn walk(dir: &std::path::Path, prefix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            found.push(entry.path());
        } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(walk(&entry.path(), prefix));
        }
    }
    found
}

#[test]
fn root_many_containers_run_at_once() {
    let Some(world) = World::new() else { return };
    thread::scope(|scope| {
        for worker in 0..8 {
            let world = &world;
            scope.spawn(move || {
                for round in 0..10 {
                    assert_eq!(
                        world.sh(&format!("echo {worker} {round}")),
                        format!("{worker} {round}\n")
                    );
                }
            });
        }
    });
}

#[test]
fn root_usage_is_reported() {
    let Some(world) = World::new() else { return };
    let run = world.run(&world.script("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"));
    assert!(run.report.cpu_time > Duration::from_millis(10), "{run:?}");
    assert!(run.report.wall_time >= run.report.cpu_time / 4, "{run:?}");
}

#[test]
fn root_a_user_namespace_of_its_own_works() {
    let Some(world) = World::new() else { return };
    let all = vec![IdRange {
        inside: 0,
        outside: 0,
        count: u32::MAX,
    }];
    let mut spec = world.script("cat /proc/self/uid_map | tr -s ' '; id -u; grep CapEff /proc/self/status; chown 5:6 /tmp; ls /sys/class | grep -c net; echo x > /dev/null; magic arg");
    spec.user_namespace = Some(IdMappings {
        uids: all.clone(),
        gids: all,
    });
    // Files that begin with these letters are run by an echo that the container itself cannot see.
    let echo = world.fresh("emulator").join("echo");
    fs::copy(world.lower().join("bin/busybox"), &echo).expect("copy");
    let registration = format!(":cbs-test:M::cbs magic::{}:F", echo.display()).into_bytes();
    spec.emulators = vec![Emulator {
        registration,
        interpreter: echo,
    }];
    let magic = upper(&spec).join("usr/bin");
    fs::create_dir_all(&magic).expect("mkdir");
    fs::write(magic.join("magic"), "cbs magic").expect("write");
    fs::set_permissions(magic.join("magic"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
    let run = world.run(&spec);
    let lines: Vec<_> = run.stdout.lines().collect();
    assert_eq!(
        lines[..4],
        [" 0 0 4294967295", "0", "CapEff:\t00000000a80425fb", "1"],
        "{run:?}"
    );
    assert!(
        !std::path::Path::new("/proc/sys/fs/binfmt_misc/cbs-test").exists(),
        "not registered for the machine"
    );
    spec.user_namespace = None;
    let err = world.try_run(&spec).expect_err("would be for all");
    assert!(
        matches!(err, LaunchError::Spec(SpecError::EmulatorWithoutUserNamespace)),
        "{err:?}"
    );
}

/// What the next test runs as root of a user namespace that is not the machine's.
#[test]
fn when_nested() {
    if std::env::var_os("CBS_NESTED").is_none() {
        return;
    }
    let Some(world) = World::new() else { return };
    let mut spec = world.script(
        "id -u; touch /made; rm /etc/group; echo x > /dev/null; head -c1 /dev/urandom | wc -c; \
         ls /sys/class | grep -c '^net$'; mount -t tmpfs t /tmp 2>/dev/null || echo refused; ls /proc | grep -c '^[0-9]*$'",
    );
    if let RootFs::Overlay(overlay) = &mut spec.rootfs {
        overlay.xattrs = OverlayXattrs::User;
    }
    let run = world.run(&spec);
    assert_eq!(run.stdout, "0\n1\n1\nrefused\n3\n", "{run:?}");
    assert!(upper(&spec).join("made").exists());
    let whiteout = fs::symlink_metadata(upper(&spec).join("etc/group")).expect("whiteout");
    assert!(whiteout.file_type().is_char_device());
    println!("nested: fine");
}

#[test]
fn root_another_user_namespace_is_enough() {
    let Some(_world) = World::new() else { return };
    // The single mapping that anyone may have, without groups.
    let output = Command::new("unshare")
        .args(["--user", "--mount", "--map-root-user"])
        .arg(std::env::current_exe().expect("own path"))
        .args(["--exact", "lifecycle::when_nested", "--nocapture"])
        .env("CBS_NESTED", "1")
        .output()
        .expect("unshare");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(text.contains("nested: fine"), "{text}");
}
