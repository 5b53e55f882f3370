//! Who a step runs as, and what limits it has.

use crate::steps::{Running, build, out, world};

#[test]
fn users_are_those_of_the_image_as_root() {
    let env = world();
    for (user, id, home) in [
        (
            "app",
            "uid=1000(app) gid=1000(app) groups=1000(app),2000(extra),2001(more)",
            "/home/app",
        ),
        (
            "1000",
            "uid=1000(app) gid=1000(app) groups=1000(app),2000(extra),2001(more)",
            "/home/app",
        ),
        ("lone", "uid=1001(lone) gid=1001 groups=1001,2000(extra)", "/"),
        (
            "app:extra",
            "uid=1000(app) gid=2000(extra) groups=2000(extra)",
            "/home/app",
        ),
        ("app:7", "uid=1000(app) gid=7 groups=7", "/home/app"),
        ("4242", "uid=4242 gid=0(root) groups=0(root)", "/"),
        ("4242:4343", "uid=4242 gid=4343 groups=4343", "/"),
        ("root", "uid=0(root) gid=0(root) groups=0(root)", "/root"),
    ] {
        let step =
            format!("USER {user}\nRUN --mount=type=tmpfs,target=/t id > /t/id && cat /t/id && echo $HOME && umask\n");
        let said = build(&env, &step, &["--output", "type=image"]).ok();
        let mut lines = said.stderr.lines().filter_map(|line| line.splitn(3, ' ').nth(2));
        assert!(
            lines.any(|line| line == id),
            "USER {user}: no `{id}` in\n{}",
            said.stderr
        );
        let mut lines = said.stderr.lines().filter_map(|line| line.splitn(3, ' ').nth(2));
        assert!(
            lines.any(|line| line == home),
            "USER {user}: no `{home}` in\n{}",
            said.stderr
        );
        assert!(
            said.stderr.lines().any(|line| line.ends_with(" 0022")),
            "{}",
            said.stderr
        );
    }
    build(&env, "USER nobody-of-that-name\nRUN true\n", &[]).fails_with(&["nobody-of-that-name", "passwd"]);
    build(&env, "USER app:no-group\nRUN true\n", &[]).fails_with(&["no-group", "group"]);
    build(&env, "USER app:\nRUN id -g > /tmp/g\n", &["--output", "type=image"]).fails_with(&["app:"]);
    // An image's own HOME stands.
    build(
        &env,
        "ENV HOME=/elsewhere\nUSER app\nRUN test \"$HOME\" = /elsewhere\n",
        &[],
    )
    .ok();
}

#[test]
fn files_belong_to_the_user_as_root() {
    let env = world();
    let step = "USER app\nWORKDIR /made\nRUN echo x > file && stat -c '%u:%g %a' . file > stat\n\
        RUN ! touch /etc/passwd && ! mkdir /new\n";
    build(&env, step, &[]).ok();
    assert_eq!(out(&env, "made/stat"), "1000:1000 755\n1000:1000 644\n");
}

#[test]
fn limits_are_set_as_root() {
    let env = world();
    let step = "RUN ulimit -n > /files; ulimit -Hn >> /files; df -k /dev/shm | tail -1 | awk '{print $2}' > /shm\n";
    build(&env, step, &["--ulimit", "nofile=123:456", "--shm-size", "3m"]).ok();
    assert_eq!(
        (out(&env, "files"), out(&env, "shm")),
        ("123\n456\n".into(), "3072\n".into())
    );
    build(&env, step, &["--ulimit", "nofiles=1"]).fails_with(&["nofiles"]);
    build(&env, step, &["--ulimit", "nofile=9:1"]).fails_with(&["nofile"]);
    build(&env, step, &["--shm-size", "lots"]).fails_with(&["lots"]);
}

#[test]
fn proxies_are_seen_by_steps_and_by_no_image_as_root() {
    let env = world();
    let step = "RUN echo $HTTP_PROXY $http_proxy $no_proxy\n";
    let flags = [
        "--build-arg",
        "HTTP_PROXY=http://proxy.example:3128",
        "--build-arg",
        "no_proxy=localhost",
        "--output",
        "type=image",
    ];
    let said = build(&env, step, &flags).ok();
    assert!(
        said.stderr
            .contains("http://proxy.example:3128 http://proxy.example:3128 localhost"),
        "{}",
        said.stderr
    );
    // Another proxy is no other step.
    let said = build(
        &env,
        step,
        &[
            "--build-arg",
            "HTTP_PROXY=http://other.example",
            "--output",
            "type=image",
        ],
    )
    .ok();
    assert!(said.stderr.contains("CACHED"), "{}", said.stderr);
}

#[test]
fn steps_are_put_into_cgroups_with_limits_as_root() {
    let env = world();
    env.write(
        "ctx/Dockerfile",
        "FROM scratch\nCOPY rootfs /\nRUN --mount=type=cache,target=/c for f in memory/memory.limit_in_bytes memory.max \
         cpu/cpu.cfs_quota_us cpu.max; do cat /sys/fs/cgroup/$f 2>/dev/null; done; touch /c/ready; \
         while ! test -e /c/go; do sleep 0.02; done\n",
    );
    env.write(
        "ctx/docker-bake.hcl",
        "target \"default\" {\n  resources = { memory = \"48m\", cpu-quota = 50000 }\n  output = [\"type=image\"]\n}\n",
    );
    let parent = format!("it-parent-{}", std::process::id());
    let mut command = env.cbs_command(&["build", "--progress", "plain", "--cgroup-parent", &parent, "ctx"]);
    let command = command.stderr(std::process::Stdio::null());
    let mut building = Running(command.spawn().expect("cbs starts"));
    let start = std::time::Instant::now();
    while env.tool("sh", &["-c", "ls store/caches/*/0/ready"]).code != 0 {
        assert!(
            start.elapsed() < std::time::Duration::from_secs(120),
            "the step does not begin"
        );
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let find = [
        "-c",
        &format!("find /sys/fs/cgroup -type d -path '*/{parent}/cbs-*' 2>/dev/null; true"),
    ];
    let groups = env.tool("sh", &find).ok().stdout;
    assert!(!groups.is_empty(), "no group below the parent");
    env.tool("sh", &["-c", "for slot in store/caches/*/0; do touch $slot/go; done"])
        .ok();
    assert!(building.0.wait().expect("wait").success());
    let left = env
        .tool(
            "sh",
            &[
                "-c",
                &format!("find /sys/fs/cgroup -type d -name '{parent}' 2>/dev/null; true"),
            ],
        )
        .ok()
        .stdout;
    assert_eq!(left, "", "a group was left");
    let said: crate::env::Said = env
        .cbs_command(&["bake", "--progress", "plain", "--no-cache"])
        .current_dir(env.path("ctx"))
        .output()
        .expect("cbs starts")
        .into();
    let said = said.ok();
    for limit in ["50331648", "50000"] {
        assert!(said.stderr.contains(limit), "no {limit}:\n{}", said.stderr);
    }
    build(&env, "RUN true\n", &["--cgroup-parent", "../up", "--no-cache"]).ok();
    env.nothing_left();
}

/// A file of a step's cgroup, in whichever version this machine has.
const LIMIT: &str =
    "limit() { for f in $1/$2 $2 $3; do test -e /sys/fs/cgroup/$f && cat /sys/fs/cgroup/$f && return; done; }";

#[test]
fn every_limit_has_its_flag_as_root() {
    let env = world();
    let step = format!(
        "RUN {LIMIT}; (limit memory memory.limit_in_bytes memory.max; \
         limit cpu cpu.shares cpu.weight; limit cpu cpu.cfs_quota_us cpu.max; limit cpu cpu.cfs_period_us cpu.max; \
         limit cpuset cpuset.cpus; limit cpuset cpuset.mems; limit pids pids.max) > /limits\n"
    );
    let version_1 = ["50331648", "256", "20000", "50000", "0", "0", "77"];
    let version_2 = ["50331648", "10", "20000 50000", "20000 50000", "0", "0", "77"];
    let flags = [
        "--memory=48m",
        "--memory-swap=96m",
        "--cpu-shares=256",
        "--cpu-quota=20000",
        "--cpu-period=50000",
        "--cpuset-cpus=0",
        "--cpuset-mems=0",
        "--resource=pids=77",
    ];
    let check = |said: crate::env::Said| {
        let said = said.ok();
        assert!(!said.stderr.contains("was not set"), "{}", said.stderr);
        let got = out(&env, "limits");
        let got: Vec<&str> = got.lines().collect();
        assert!(got == version_1 || got == version_2, "{got:?}");
    };
    check(build(&env, &step, &flags));
    let resource = "memory=48m,memory-swap=96m,cpu-shares=256,cpu-quota=20000,cpu-period=50000,cpuset-cpus=0,cpuset-mems=0,pids=77";
    check(build(&env, &step, &["--no-cache", "--resource", resource]));
    let output = format!("type=local,dest={}", env.at("out"));
    env.write(
        "ctx/docker-bake.hcl",
        &format!(
            "target \"default\" {{\n  output = [\"{output}\"]\n  resources = {{ memory = \"48m\", memory-swap = \"96m\", cpu-shares = 256, \
             cpu-quota = 20000, cpu-period = 50000, cpuset-cpus = \"0\", cpuset-mems = \"0\", pids = 77 }}\n}}\n"
        ),
    );
    let mut command = env.cbs_command(&["bake", "--no-cache", "--allow", "fs=*"]);
    check(
        command
            .current_dir(env.path("ctx"))
            .output()
            .expect("cbs starts")
            .into(),
    );
    for (flag, needles) in [
        ("--resource=pids=some", &["pids", "some"][..]),
        ("--resource=pids=-5", &["pids", "negative"]),
        ("--memory=lots", &["--memory", "lots"]),
        ("--cpuset-cpus=9999", &["cpuset-cpus was not set"]),
    ] {
        let said = build(&env, "RUN true\n", &["--no-cache", flag]);
        for needle in needles {
            assert!(said.stderr.contains(needle), "{flag}: {}", said.stderr);
        }
    }
    env.nothing_left();
}

#[test]
fn limits_hold_as_root() {
    let env = world();
    // More processes than it may have: that is the shell's to say.
    let forks = "RUN (i=0; while [ $i -lt 60 ]; do sleep 100 & i=$((i+1)); done) 2> /said; test -s /said\n";
    build(&env, forks, &["--resource=pids=20"]).ok();
    build(&env, "RUN tail -c 200000000 /dev/zero > /dev/null\n", &["--memory=32m"]).fails_with(&["lack of memory"]);
    // The process that ran out need not be the step's first.
    build(
        &env,
        "RUN sh -c 'tail -c 200000000 /dev/zero > /dev/null'; exit 3\n",
        &["--memory=32m"],
    )
    .fails_with(&["lack of memory"]);
    build(&env, "RUN ulimit -f 4; dd if=/dev/zero of=/big bs=1k count=100\n", &[]).fails_with(&["exit code"]);
    build(
        &env,
        "RUN dd if=/dev/zero of=/dev/shm/x bs=1k count=200\n",
        &["--shm-size=100k"],
    )
    .fails_with(&["No space left"]);
    // A stack that never ends: the kernel's signal, by its number.
    build(
        &env,
        "RUN [\"/bin/sh\", \"-c\", \"f() { f; }; f\"]\n",
        &["--ulimit", "stack=1000000"],
    )
    .fails_with(&["killed by signal 11"]);
    env.nothing_left();
}

#[test]
fn the_group_of_a_killed_build_goes_with_the_next_of_its_parent_as_root() {
    let env = world();
    let parent = format!("it-killed-{}", std::process::id());
    let find = format!("find /sys/fs/cgroup -type d -path '*/{parent}/cbs-*' 2>/dev/null; true");
    let groups = || env.tool("sh", &["-c", &find]).ok().stdout;
    env.write(
        "ctx/Dockerfile",
        "FROM scratch\nCOPY rootfs /\nRUN touch /begun; sleep 98765\n",
    );
    for next in ["build", "gc"] {
        let mut command = env.cbs_command(&["build", "--progress", "quiet", "--cgroup-parent", &parent, "ctx"]);
        let mut building = Running(command.spawn().expect("cbs starts"));
        let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while env.tool("sh", &["-c", "ls store/work/*/run*/upper/begun"]).code != 0 {
            assert!(std::time::Instant::now() < end, "the step never ran");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        building.0.kill().expect("kill");
        building.0.wait().expect("wait");
        assert!(groups().contains(&format!("cbs-{}-", building.0.id())));
        // What was still dying when the first one looked is gone when the second one does.
        for _ in 0..2 {
            if next == "gc" {
                env.cbs(&["gc"]).ok();
            } else {
                env.write("next/Dockerfile", "FROM scratch\nCOPY rootfs /\nRUN true\n");
                env.tool("cp", &["-r", &env.at("ctx/rootfs"), &env.at("next")]).ok();
                env.cbs(&["build", "--no-cache", "--cgroup-parent", &parent, "next"])
                    .ok();
            }
        }
        assert_eq!(groups(), "", "after {next}");
    }
    let remove = format!("find /sys/fs/cgroup -depth -type d -name {parent} -exec rmdir {{}} +");
    env.tool("sh", &["-c", &remove]).ok();
}
