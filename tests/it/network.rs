//! The network of RUN steps.

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::env::TestEnv;
use crate::steps::{build, out, world};

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
    let env = world();
    env.write(
        "ctx/Dockerfile",
        "FROM scratch\nCOPY rootfs /\nRUN echo begun; sleep 1000\n",
    );
    let mut child = env
        .cbs_command(&["build", "--progress", "plain", "ctx"])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("cbs starts");
    let mut stderr = std::io::BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    while !line.contains("begun") || line.contains("RUN") {
        line.clear();
        assert!(
            std::io::BufRead::read_line(&mut stderr, &mut line).expect("read") > 0,
            "it ended early"
        );
    }
    let helper = children_named(child.id(), "pasta");
    assert_eq!(helper.len(), 1, "one helper serves the build");
    child.kill().expect("kill");
    child.wait().expect("wait");
    let start = std::time::Instant::now();
    while std::path::Path::new(&format!("/proc/{}", helper[0])).exists() {
        assert!(
            start.elapsed() < std::time::Duration::from_secs(10),
            "the helper still runs"
        );
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// The processes with this name whose parent is `parent`.
fn children_named(parent: u32, name: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for process in std::fs::read_dir("/proc").expect("proc").flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let status = std::fs::read_to_string(process.path().join("status")).unwrap_or_default();
        let is_child = status.lines().any(|line| line == format!("PPid:\t{parent}"));
        let line = std::fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
        if is_child && line.split('\0').next().is_some_and(|program| program.ends_with(name)) {
            found.push(pid);
        }
    }
    found
}
