//! The network of RUN steps.

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::env::TestEnv;
use crate::steps::{Running, build, out, world};

/// A server on this machine's loopback that answers every connection with `hello`; its port.
fn server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("address").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 1024];
            // Whoever hangs up early has seen enough.
            let _read = stream.read(&mut request);
            let _written = stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        }
    });
    port
}

#[test]
fn steps_have_a_network_of_their_own_as_root() {
    let env = world();
    let before = orphans(&env);
    let port = server();
    let said = build(
        &env,
        &format!(
            "RUN ip -o addr > /addr && ip route > /route && cat /proc/net/unix > /unix\n\
             RUN for ip in 127.0.0.1 10.0.2.2; do echo GET / | timeout 2 nc -w 2 $ip {port} > /got-$ip; test ! -s /got-$ip || exit 1; done\n\
             RUN cp /etc/hosts /hosts && cp /etc/resolv.conf /resolv && readlink /proc/self/ns/net > /ns1\n\
             RUN readlink /proc/self/ns/net > /ns2\n"
        ),
        &["--add-host", "Db:192.0.2.7"],
    )
    .ok();
    let (addresses, routes) = (out(&env, "addr"), out(&env, "route"));
    assert!(
        addresses.contains("10.0.2.100/24") && addresses.contains("127.0.0.1/8"),
        "{addresses}"
    );
    assert!(routes.contains("default via 10.0.2.2"), "{routes}");
    assert_eq!(
        out(&env, "hosts"),
        "127.0.0.1\tlocalhost buildkitsandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n192.0.2.7\tdb\n"
    );
    assert!(out(&env, "resolv").contains("nameserver"), "{}", out(&env, "resolv"));
    // No socket of this machine is to be seen, abstract ones above all.
    assert_eq!(out(&env, "unix").lines().count(), 1, "{}", out(&env, "unix"));
    let own = std::fs::read_link("/proc/self/ns/net").expect("ns");
    assert_eq!(out(&env, "ns1"), out(&env, "ns2"), "one namespace serves a build");
    assert_ne!(out(&env, "ns1").trim(), own.to_str().expect("text"));
    assert!(!said.stderr.contains("share the network"), "{}", said.stderr);
    env.nothing_left();
    no_helper_left(&env, &before);
}

/// Helpers behind networks that have outlived who started them, one a line.
fn orphans(env: &TestEnv) -> HashSet<String> {
    let list = "for p in /proc/[0-9]*; do \
        case $(tr '\\0' ' ' < $p/cmdline 2>/dev/null) in *pasta*|*slirp4netns*) \
        [ $(awk '/PPid/{print $2}' $p/status) = 1 ] && echo $p;; esac; done; true";
    let said = env.tool("sh", &["-c", list]);
    said.stdout.lines().map(str::to_owned).collect()
}

/// No helper behind a network has been left since `before`. Those of builds that other tests kill end in a moment.
fn no_helper_left(env: &TestEnv, before: &HashSet<String>) {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let left: Vec<_> = orphans(env).difference(before).cloned().collect();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "an orphan serves a network: {left:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn the_gateway_leads_to_this_machine_on_request_only_as_root() {
    let env = world();
    let port = server();
    // By its address: names are looked up by libraries that a static busybox does not have.
    let step = format!(
        "RUN grep builder /etc/hosts > /hosts && echo GET / | timeout 2 nc -w 2 $(cut -f1 /hosts) {port} | tail -1 > /got; test -s /got\n"
    );
    build(&env, &step, &["--add-host", "builder:host-gateway"]).ok();
    assert_eq!(
        (out(&env, "got"), out(&env, "hosts")),
        ("hello".to_owned(), "10.0.2.2\tbuilder\n".to_owned())
    );
    // On the host's network that is this machine itself.
    build(
        &env,
        &step,
        &[
            "--add-host",
            "builder:host-gateway",
            "--network",
            "host",
            "--allow",
            "network.host",
        ],
    )
    .ok();
    assert_eq!(out(&env, "hosts"), "127.0.0.1\tbuilder\n");
}

#[test]
fn the_hosts_network_needs_to_be_granted_as_root() {
    let env = world();
    let port = server();
    let step = format!("RUN --network=host echo GET / | nc -w 5 127.0.0.1 {port} | tail -1 > /got\n");
    build(&env, &step, &[]).fails_with(&["network.host", "--allow network.host"]);
    build(&env, &step, &["--allow", "network.host"]).ok();
    assert_eq!(out(&env, "got"), "hello");
    build(&env, "RUN true\n", &["--network", "host"]).fails_with(&["network.host"]);
    build(&env, "RUN --security=insecure true\n", &[]).fails_with(&["security.insecure", "--allow security.insecure"]);
}

#[test]
fn no_network_is_loopback_only_as_root() {
    let env = world();
    let port = server();
    build(
        &env,
        &format!(
            "RUN --network=none ip -o link | cut -d: -f2 > /links && ip -o addr show lo > /lo && \
             echo GET / | nc -w 2 127.0.0.1 {port} > /got; test ! -s /got\n"
        ),
        &[],
    )
    .ok();
    assert_eq!(out(&env, "links").split_whitespace().collect::<Vec<_>>(), ["lo"]);
    assert!(out(&env, "lo").contains("127.0.0.1"), "{}", out(&env, "lo"));
}

#[test]
fn without_a_helper_steps_share_the_network_and_that_is_said_as_root() {
    let env = world();
    env.write(
        "ctx/Dockerfile",
        "FROM scratch\nCOPY rootfs /\nRUN readlink /proc/self/ns/net > /ns\nRUN true\n",
    );
    std::fs::create_dir(env.path("empty")).expect("mkdir");
    let output = format!("type=local,dest={}", env.at("out"));
    let said: crate::env::Said = env
        .cbs_command(&["build", "--progress", "plain", "--output", &output, "ctx"])
        .env("PATH", env.path("empty"))
        .output()
        .expect("cbs starts")
        .into();
    let said = said.ok();
    assert_eq!(
        said.stderr.matches("share the network of this machine").count(),
        1,
        "{}",
        said.stderr
    );
    assert!(said.stderr.contains("passt"), "{}", said.stderr);
    let own = std::fs::read_link("/proc/self/ns/net").expect("ns");
    assert_eq!(out(&env, "ns").trim(), own.to_str().expect("text"));
}

#[test]
fn a_step_that_may_do_anything_has_a_network_to_itself_as_root() {
    let env = world();
    build(
        &env,
        "RUN --security=insecure readlink /proc/self/ns/net > /one && ifconfig eth0 down\n\
         RUN readlink /proc/self/ns/net > /two && ip route > /route\n",
        &["--allow", "security.insecure"],
    )
    .ok();
    assert_ne!(out(&env, "one"), out(&env, "two"));
    assert!(out(&env, "route").contains("default via"), "{}", out(&env, "route"));
}

#[test]
fn slirp4netns_serves_as_well_as_root() {
    let env = world();
    env.write(
        "ctx/Dockerfile",
        "FROM scratch\nCOPY rootfs /\nRUN ip -o addr > /addr; ip route > /route\n",
    );
    std::fs::create_dir(env.path("tools")).expect("mkdir");
    std::os::unix::fs::symlink("/usr/bin/slirp4netns", env.path("tools/slirp4netns")).expect("symlink");
    let output = format!("type=local,dest={}", env.at("out"));
    let said: crate::env::Said = env
        .cbs_command(&["build", "--progress", "plain", "--output", &output, "ctx"])
        .env("PATH", env.path("tools"))
        .output()
        .expect("cbs starts")
        .into();
    said.ok();
    assert!(out(&env, "addr").contains("10.0.2.100"), "{}", out(&env, "addr"));
    assert!(
        out(&env, "route").contains("default via 10.0.2.2"),
        "{}",
        out(&env, "route")
    );
}

#[test]
fn a_killed_build_leaves_no_helper_as_root() {
    // What kills a process for its size kills all that share its memory, so the guard may go as well.
    for (tool, victims) in [
        ("pasta", &["cbs"][..]),
        ("pasta", &["cbs-guard", "cbs"]),
        ("slirp4netns", &["cbs-guard", "cbs"]),
    ] {
        let env = world();
        env.write(
            "ctx/Dockerfile",
            "FROM scratch\nCOPY rootfs /\nRUN touch /begun; sleep 98765\n",
        );
        std::fs::create_dir(env.path("tools")).expect("mkdir");
        std::os::unix::fs::symlink(format!("/usr/bin/{tool}"), env.path("tools").join(tool)).expect("symlink");
        let mut command = env.cbs_command(&["build", "--progress", "quiet", "ctx"]);
        command.env("PATH", env.path("tools"));
        let mut building = Running(command.spawn().expect("cbs starts"));
        let id = building.0.id();
        wait_until("the step runs", || {
            env.tool("sh", &["-c", "ls store/work/*/run*/upper/begun"]).code == 0
        });
        let children = children(id);
        // pasta's file is a link to passt, which executes what suits the processor.
        let part = if tool == "pasta" { "passt" } else { tool };
        let named = |name: &str| children.iter().filter(|(_, child)| child.starts_with(name)).count();
        assert_eq!((named(part), named("cbs-guard")), (1, 1), "{children:?}");
        for victim in victims {
            let guard = children.iter().find(|(_, name)| name == victim);
            let victim = guard.map_or(id, |(guard, _)| *guard);
            env.tool("kill", &["-KILL", &victim.to_string()]).ok();
        }
        building.0.wait().expect("wait");
        wait_until("its helper and its step are gone", || {
            children.iter().all(|(child, _)| has_ended(*child))
        });
        env.cbs(&["gc"]).ok();
        env.nothing_left();
    }
}

#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether a process is no more; one that only waits for somebody to ask how it ended is not.
fn has_ended(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    !status.contains("\nState:") || status.contains("\nState:\tZ")
}

/// The processes whose parent is `parent`, with their names.
fn children(parent: u32) -> Vec<(u32, String)> {
    let mut found = Vec::new();
    for process in std::fs::read_dir("/proc").expect("proc").flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let status = std::fs::read_to_string(process.path().join("status")).unwrap_or_default();
        if status.lines().any(|line| line == format!("PPid:\t{parent}")) {
            let name = status.lines().find_map(|line| line.strip_prefix("Name:\t"));
            found.push((pid, name.unwrap_or_default().to_owned()));
        }
    }
    found
}

#[test]
fn offline_steps_have_loopback_only_as_root() {
    let env = world();
    let port = server();
    let step = format!(
        "RUN ip -o link | cut -d: -f2 > /links && echo GET / | nc -w 2 127.0.0.1 {port} > /got; test ! -s /got\n\
         RUN --security=insecure ip -o link | cut -d: -f2 > /links2\n"
    );
    let granted = ["--allow", "security.insecure", "--allow", "network.host"];
    let mut flags = [&granted[..], &["--offline"]].concat();
    build(&env, &step, &flags).ok();
    for links in ["links", "links2"] {
        assert_eq!(
            out(&env, links).split_whitespace().collect::<Vec<_>>(),
            ["lo"],
            "{links}"
        );
    }
    // A step's key does not say which network it had.
    let said = build(&env, &step, &granted).ok();
    assert!(said.stderr.contains("CACHED"), "{}", said.stderr);
    // The host's own is refused, but for what was run before.
    let step = "RUN --network=host readlink /proc/self/ns/net > /ns\n";
    build(&env, step, &flags).fails_with(&["Dockerfile:3", "--offline"]);
    build(&env, step, &granted).ok();
    build(&env, step, &flags).ok();
    flags.extend(["--network", "host"]);
    build(&env, "RUN echo new\n", &flags).fails_with(&["--offline"]);
    env.nothing_left();
}
