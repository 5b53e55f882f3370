//! Eight commands on one store while it is collected all the time.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::env::{Said, TestEnv};

/// Each step notes that it ran, where no cache hides it.
const DOCKERFILE: &str = r#"FROM scratch AS base
COPY rootfs /
RUN --mount=type=cache,id=log,target=/log echo base >> /log/ran; sleep 0.2; head -c 100000 /bin/busybox > /base
FROM base AS left
RUN --mount=type=cache,id=log,target=/log echo left >> /log/ran; sleep 0.2; cat /base /base > /left
FROM base AS right
RUN --mount=type=cache,id=log,target=/log echo right >> /log/ran; sleep 0.1; cat /base > /right
FROM base AS common
COPY --from=left /left /
COPY --from=right /right /
RUN --mount=type=cache,id=log,target=/log echo common >> /log/ran; sleep 0.1; cat /left /right > /all
FROM common AS last
ARG NAME
RUN --mount=type=cache,id=log,target=/log echo last-$NAME >> /log/ran; echo $NAME > /name
"#;

fn start(env: &TestEnv, words: &[&str]) -> Child {
    env.cbs_command(words)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("cbs starts")
}

fn end(child: Child) -> Said {
    child.wait_with_output().expect("wait").into()
}

/// Ends the others when a check fails.
struct Stopper<'a>(&'a AtomicBool);

impl Drop for Stopper<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[track_caller]
fn is_quiet(said: &Said) {
    for word in ["is busy", "is locked", "SQLITE", "panicked"] {
        assert!(!said.stderr.contains(word), "{}", said.stderr);
    }
}

#[test]
fn eight_builds_beside_gc_run_each_step_once_as_root() {
    let env = TestEnv::new();
    env.write("ctx/Dockerfile", DOCKERFILE);
    env.busybox("ctx/rootfs");
    // Something to collect, round after round.
    env.write(
        "old/Dockerfile",
        "FROM scratch\nCOPY rootfs /\nARG N\nRUN i=0; while [ $i -lt 300 ]; do echo $N$i > /$i; i=$((i+1)); done\n",
    );
    env.busybox("old/rootfs");
    for number in 0..3 {
        env.cbs(&["build", "--build-arg", &format!("N={number}"), &env.at("old")])
            .ok();
    }
    // The oldest lease: what is used from now on is kept, so a step that runs twice would be a fault.
    env.write(
        "wait/Dockerfile",
        "FROM scratch\nCOPY rootfs /\nRUN while ! [ -e /go/on ]; do sleep 0.05; done\n",
    );
    env.busybox("wait/rootfs");
    let go = env.path("go");
    fs::create_dir(&go).expect("mkdir");
    let mut holder = start(&env, &["build", "--output", "type=cacheonly", "wait"]);
    let begun = Instant::now();
    while !fs::read_dir(env.path("store/work")).is_ok_and(|mut entries| entries.next().is_some()) {
        assert!(begun.elapsed() < Duration::from_secs(10), "no lease appears");
        std::thread::sleep(Duration::from_millis(5));
    }

    let stop = AtomicBool::new(false);
    let rounds = std::thread::scope(|scope| {
        let _stopper = Stopper(&stop);
        let collector = scope.spawn(|| {
            let mut rounds = 0;
            while !stop.load(Ordering::Relaxed) {
                let said = env.cbs(&["gc"]).ok();
                is_quiet(&said);
                rounds += 1;
            }
            rounds
        });
        let mut running = Vec::new();
        for number in 0..8 {
            let dest = format!("type=oci,compression=zstd,dest={}", env.at(&format!("out{number}.tar")));
            // Four times the same, and four that differ in the last step.
            let (target, name) = if number < 4 {
                ("common", "NAME".to_owned())
            } else {
                ("last", format!("NAME={number}"))
            };
            let words = [
                "build",
                "--progress",
                "plain",
                "--target",
                target,
                "--build-arg",
                &name,
                "--output",
                &dest,
                "ctx",
            ];
            running.push(start(&env, &words));
        }
        for child in running {
            let said = end(child).ok();
            is_quiet(&said);
        }
        stop.store(true, Ordering::Relaxed);
        collector.join().expect("gc never fails")
    });
    assert!(rounds >= 3, "gc ran {rounds} times");
    holder.kill().expect("kill");
    holder.wait().expect("wait");

    let mut ran: BTreeMap<String, usize> = BTreeMap::new();
    for line in log(&env).lines() {
        *ran.entry(line.to_owned()).or_default() += 1;
    }
    let steps = [
        "base", "common", "last-4", "last-5", "last-6", "last-7", "left", "right",
    ];
    assert_eq!(ran, steps.iter().map(|step| ((*step).to_owned(), 1)).collect());
    let read = |number: u32| fs::read(env.path(&format!("out{number}.tar"))).expect("an archive");
    for number in 1..4 {
        assert!(read(number) == read(0), "the same build gives the same bytes");
    }
    assert!(env.cbs(&["store", "verify"]).ok().stdout.contains("all as named"));
    env.cbs(&["gc"]).ok();
    crate::crash::assert_nothing_left(&env, &[holder.id()].into());
}

/// What the steps noted.
fn log(env: &TestEnv) -> String {
    let mut text = String::new();
    for mount in fs::read_dir(env.path("store/caches")).expect("caches").flatten() {
        text.push_str(&fs::read_to_string(mount.path().join("0/ran")).unwrap_or_default());
    }
    text
}

#[test]
fn builds_beside_gc_of_everything_only_ever_succeed_as_root() {
    let env = TestEnv::new();
    env.write("ctx/Dockerfile", DOCKERFILE);
    env.busybox("ctx/rootfs");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stopper = Stopper(&stop);
        let collectors: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        is_quiet(&env.cbs(&["gc", "--all"]).ok());
                    }
                })
            })
            .collect();
        for round in 0..3 {
            let running: Vec<_> = (0..3)
                .map(|number| {
                    let name = format!("NAME={}", (round + number) % 2);
                    let dest = format!("type=tar,dest={}", env.at(&format!("out{number}.tar")));
                    start(
                        &env,
                        &[
                            "build",
                            "--target",
                            "last",
                            "--build-arg",
                            &name,
                            "--output",
                            &dest,
                            "ctx",
                        ],
                    )
                })
                .collect();
            for child in running {
                is_quiet(&end(child).ok());
            }
            for root in env.cbs(&["roots", "--quiet"]).ok().stdout.lines() {
                env.cbs(&["store", "unroot", root]).ok();
            }
        }
        stop.store(true, Ordering::Relaxed);
        for collector in collectors {
            collector.join().expect("gc never fails");
        }
    });
    assert!(env.cbs(&["store", "verify"]).ok().stdout.contains("all as named"));
    env.nothing_left();
}
