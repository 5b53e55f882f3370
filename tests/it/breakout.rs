//! What a step must not be able to do: a checklist, each line tried from inside.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};

use crate::env::TestEnv;
use crate::steps::{build, out, world};

/// Each line fails for root inside; its step fails when it does not.
fn all_fail(env: &TestEnv, lines: &[&str]) {
    let steps: String = lines
        .iter()
        .map(|line| format!("RUN if ({line}) >/dev/null 2>&1; then echo POSSIBLE: '{line}'; exit 1; fi\n"))
        .collect();
    build(env, &steps, &[]).ok();
}

#[test]
fn the_kernels_files_are_sealed_as_root() {
    let env = world();
    let tries = [
        "echo 1 > /proc/sys/kernel/panic",
        "echo x > /proc/sys/kernel/core_pattern",
        "echo b > /proc/sysrq-trigger",
        "echo 1 > /proc/sys/vm/drop_caches",
        "echo x > /proc/irq/default_smp_affinity",
        "cat /proc/kcore | head -c 1 | grep -q .",
        "cat /proc/keys | grep -q .",
        "cat /proc/timer_list | grep -q .",
        "cat /proc/sched_debug",
        "ls /proc/scsi | grep -q .",
        "ls /proc/acpi | grep -q .",
        "ls /sys/firmware | grep -q .",
        "touch /sys/x",
        "echo 0 > /sys/kernel/mm/transparent_hugepage/enabled",
        "echo x > /sys/fs/cgroup/cgroup.procs",
        "mkdir /sys/fs/cgroup/x",
        "echo -1000 > /proc/1/oom_score_adj",
    ];
    all_fail(&env, &tries);
}

#[test]
fn mounts_devices_and_namespaces_are_out_of_reach_as_root() {
    let env = world();
    let tries = [
        "mount -t tmpfs none /tmp",
        "mount -t proc none /tmp",
        "mount -o remount,rw /sys",
        "mount -o remount,rw /proc/sys",
        "mount --bind / /tmp",
        "umount /proc/kcore",
        "umount /proc/sys",
        "umount /etc/hosts",
        "unshare -m true",
        "unshare -U true",
        "mknod /disk b 254 0 && head -c 1 /disk",
        "mknod /disk2 b 8 0 && head -c 1 /disk2",
        "mknod /mem c 1 1 && head -c 1 /mem",
        "ls /dev/vda /dev/sda /dev/mem /dev/kmsg /dev/fuse /dev/net/tun /dev/loop-control",
        "dd if=/dev/zero of=/dev/full",
        "hostname other",
        "ip link add dummy0 type dummy",
        "ip addr add 10.9.9.9/24 dev lo",
        "date -s 2000-01-01; test $(date +%Y) = 2000",
    ];
    all_fail(&env, &tries);
}

#[test]
fn other_processes_and_their_memory_are_not_to_be_seen_as_root() {
    let env = world();
    let pid = std::process::id();
    build(
        &env,
        &format!(
            "RUN ls -d /proc/[0-9]* | wc -l > /count && ! test -e /proc/{pid}/root && ! kill -0 {pid} 2>/dev/null\n\
             RUN for n in pid mnt ipc uts cgroup net; do readlink /proc/self/ns/$n; done > /ns\n\
             RUN ! ls /proc/1/root/root/.docker 2>/dev/null; test \"$(ls /)\" = \"$(ls /proc/1/root)\"\n\
             RUN cat /proc/self/status > /status; cat /proc/self/limits > /limits; cat /proc/self/mountinfo > /mounts\n"
        ),
        &[],
    )
    .ok();
    let count: u32 = out(&env, "count").trim().parse().expect("a number");
    assert!(count <= 4, "{count} processes are seen");
    for (line, kind) in out(&env, "ns")
        .lines()
        .zip(["pid", "mnt", "ipc", "uts", "cgroup", "net"])
    {
        let own = std::fs::read_link(format!("/proc/self/ns/{kind}")).expect("ns");
        assert_ne!(line, own.to_str().expect("text"), "{kind} is this machine's");
    }
    let status = out(&env, "status");
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).expect(name);
        line.split_whitespace().nth(1).expect("a value").to_owned()
    };
    // Docker's fourteen capabilities; a filter; set-user-ID programs work, as with BuildKit.
    assert_eq!(field("CapEff:"), "00000000a80425fb");
    assert_eq!(field("CapBnd:"), "00000000a80425fb");
    assert_eq!(
        (field("CapInh:"), field("CapAmb:")),
        ("0000000000000000".into(), "0000000000000000".into())
    );
    assert_eq!((field("Seccomp:"), field("NoNewPrivs:")), ("2".into(), "0".into()));
    // An overlay's own line says where its folders are, whoever makes it.
    let mounts = out(&env, "mounts");
    let mounts: Vec<&str> = mounts.lines().filter(|line| !line.contains(" - overlay ")).collect();
    let mounts = mounts.join("\n");
    for needle in [env.at(""), "/var/lib".into(), "shared:".into()] {
        assert!(!mounts.contains(&needle), "{needle} in {mounts}");
    }
}

#[test]
fn nothing_of_the_caller_comes_along_as_root() {
    let env = world();
    // An abstract socket of this machine, an open descriptor, a variable.
    let name = format!("cbs-it-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(name.as_bytes()).expect("address");
    let _listener = UnixListener::bind_addr(&address).expect("bind");
    env.write("ctx/Dockerfile", "FROM scratch\nCOPY rootfs /\nRUN env > /env; ls -l /proc/self/fd > /fds; cat /proc/net/unix > /unix; umask > /umask; cat /proc/self/cgroup > /cgroup; ulimit -c > /core\n");
    let output = format!("type=local,dest={}", env.at("out"));
    let secret = std::fs::File::create(env.path("open-file")).expect("create");
    // A descriptor without close-on-exec, as careless parents leave them.
    let script = format!(
        "exec 7<open-file; exec {} build --output {output} ctx",
        env!("CARGO_BIN_EXE_cbs")
    );
    drop(secret);
    let said: crate::env::Said = env
        .command("sh")
        .args(["-c", &script])
        .env("LEAKED_TOKEN", "xyzzy")
        .env("LD_PRELOAD", "")
        .output()
        .expect("sh")
        .into();
    said.ok();
    let variables = out(&env, "env");
    let mut names: Vec<&str> = variables.lines().filter_map(|line| line.split('=').next()).collect();
    names.sort_unstable();
    assert_eq!(names, ["HOME", "PATH", "PWD", "SHLVL"], "{variables}");
    let descriptors = out(&env, "fds");
    assert!(
        !descriptors.contains("open-file") && !descriptors.contains("/store"),
        "{descriptors}"
    );
    // Three streams and the directory being read.
    assert_eq!(
        descriptors
            .lines()
            .filter(|line| line.contains("->") || line.contains(" 3"))
            .count(),
        4,
        "{descriptors}"
    );
    assert!(!out(&env, "unix").contains(&name), "an abstract socket is in reach");
    assert_eq!(out(&env, "umask"), "0022\n");
    for line in out(&env, "cgroup").lines() {
        assert!(line.ends_with(":/"), "the cgroup's place shows: {line}");
    }
}

#[test]
fn mount_targets_lead_nowhere_outside_as_root() {
    let env = world();
    let outside = env.at("outside");
    std::fs::create_dir(&outside).expect("mkdir");
    // Links and dots that point out of the root end inside it.
    build(
        &env,
        &format!(
            "RUN ln -s {outside} /link && ln -s ../../../../../../..{outside} /dots && ln -s /proc /kernel\n\
             RUN --mount=type=tmpfs,target=/link touch /link/x\n\
             RUN --mount=type=tmpfs,target=/dots touch /dots/x\n\
             RUN --mount=type=cache,target=/link/deeper touch /link/deeper/x\n\
             WORKDIR /link\n\
             RUN touch here\n"
        ),
        &[],
    )
    .ok();
    assert_eq!(
        std::fs::read_dir(&outside).expect("list").count(),
        0,
        "a step wrote outside"
    );
    let up = format!("RUN --mount=type=tmpfs,target=/a/../../../..{outside} true\n");
    build(&env, &up, &[]).fails_with(&["leads out of the root file system"]);
    for target in ["/proc", "/proc/self", "/proc/sys/kernel", "/kernel/sys", "/kernel"] {
        let said = build(
            &env,
            &format!("RUN ln -s /proc /kernel\nRUN --mount=type=tmpfs,target={target} true\n"),
            &[],
        );
        said.fails_with(&[target]);
    }
    env.nothing_left();
}

#[test]
fn insecure_steps_can_what_others_cannot_as_root() {
    let env = world();
    let step = "RUN --security=insecure mount -t tmpfs none /tmp && grep CapEff /proc/self/status > /caps && \
        grep -q 'Seccomp:.*0' /proc/self/status\n\
        RUN ! mount -t tmpfs none /tmp\n";
    build(&env, step, &["--allow", "security.insecure"]).ok();
    assert!(!out(&env, "caps").contains("a80425fb"));
}
