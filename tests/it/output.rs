//! Steps that print much: nothing is lost, nothing waits, and memory does not grow with it.

use std::io::Read as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::env::TestEnv;
use crate::steps::{Running, build, world};

/// Megabytes that a step prints; `CBS_IT_OUTPUT_MB=1024` for the real thing.
fn amount() -> u64 {
    let text = std::env::var("CBS_IT_OUTPUT_MB").unwrap_or_default();
    text.parse().unwrap_or(32)
}

/// As much memory as a command may have resident; what a build needs anyhow is less than half of it.
const MOST_RESIDENT_MB: u64 = 160;

/// Runs `cbs` with its standard streams as a shell redirects them; the most megabytes it had resident, or a program of its
/// steps.
fn resident(env: &TestEnv, args: &[&str], redirections: &str) -> u64 {
    let script = format!(
        "import os, resource, subprocess, sys\n\
         command = 'exec \"$0\" \"$@\" {redirections}'\n\
         code = subprocess.run(['/bin/sh', '-c', command] + sys.argv[1:]).returncode\n\
         print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)\n\
         sys.exit(code)\n"
    );
    let all = [&["-c", &script, env!("CARGO_BIN_EXE_cbs")], args].concat();
    let said = env.tool("python3", &all).ok();
    said.stdout.trim().parse().expect("a number")
}

/// Bytes that a step printed; the last line gets an end if it had none.
fn count(env: &TestEnv, step: &str) -> u64 {
    let script = "\"$0\" log \"ctx#$1\" --stream stdout | tail -n +2 | wc -c";
    let said = env.tool("sh", &["-c", script, env!("CARGO_BIN_EXE_cbs"), step]).ok();
    said.stdout.trim().parse().expect("a number")
}

#[test]
fn much_output_is_kept_whole_in_little_memory_as_root() {
    let env = world();
    let size = amount();
    env.write(
        "ctx/Dockerfile",
        &format!(
            "FROM scratch\nCOPY rootfs /\n\
             RUN yes 'a line as compilers print it, with a number such as 12345 in it' | head -c {size}m\n\
             RUN yes x | tr -d '\\n' | head -c {size}m\n\
             RUN for i in 1 2 3 4 5 6 7 8; do head -c 1000000 /dev/zero | tr '\\0' o; echo; done\n\
             RUN head -c 4m /dev/urandom\n"
        ),
    );
    let plain = resident(&env, &["build", "--progress", "plain", "ctx"], "2>progress");
    assert!(plain < MOST_RESIDENT_MB, "{plain} MB were resident");
    let printed = size << 20;
    let lines = 8_000_008;
    for (step, least) in [
        ("yes 'a", printed),
        ("tr -d", printed),
        ("for i in", lines),
        ("urandom", 4 << 20),
    ] {
        let got = count(&env, step);
        assert!((least..=least + 1).contains(&got), "{step}: {got} of {least}");
    }
    let log = resident(&env, &["log", "ctx"], ">/dev/null");
    assert!(log < MOST_RESIDENT_MB, "{log} MB were resident");
    let json = resident(&env, &["log", "ctx#1", "--json"], ">/dev/null");
    assert!(json < MOST_RESIDENT_MB, "{json} MB were resident");
    env.nothing_left();
}

#[test]
fn nobody_reads_what_a_step_prints_and_it_goes_on_as_root() {
    let env = world();
    env.write(
        "ctx/Dockerfile",
        "FROM scratch\nCOPY rootfs /\nRUN --mount=type=cache,target=/c yes line | head -c 32m; touch /c/done\n",
    );
    let mut command = env.cbs_command(&["build", "--progress", "plain", "ctx"]);
    let mut building = Running(command.stderr(Stdio::piped()).spawn().expect("cbs starts"));
    let end = Instant::now() + Duration::from_secs(120);
    while env.tool("sh", &["-c", "ls store/caches/*/0/done"]).code != 0 {
        assert!(Instant::now() < end, "the step waits for whoever reads the progress");
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut text = String::new();
    let mut stderr = building.0.stderr.take().expect("piped");
    stderr.read_to_string(&mut text).expect("read");
    assert!(building.0.wait().expect("wait").success());
    assert!(
        text.contains("of output not shown; the stored log has it"),
        "{}",
        text.len()
    );
    let got = count(&env, "yes line") - (32 << 20);
    assert!(got <= 1, "{got} too many");
}

#[test]
fn a_step_that_prints_without_end_can_be_ended_as_root() {
    let env = world();
    build(
        &env,
        "RUN yes 'a line of a usual length, of some fifty bytes'\n",
        &["--step-timeout", "1s"],
    )
    .fails_with(&["--step-timeout"]);
    env.nothing_left();
    // Its output is not read any more when the process has ended, whoever else holds the pipe.
    build(
        &env,
        "RUN yes 'a line of a usual length, of some fifty bytes' >&2 & exit 0\n",
        &[],
    )
    .ok();
    env.nothing_left();
}
