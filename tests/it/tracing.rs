//! What a step can do to processes: to its own everything, to those of this machine and of other steps nothing. The
//! checklist of `breakout.rs` goes on here with what takes a program of its own.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use crate::env::TestEnv;
use crate::steps::{Running, build, out, world};

/// Tries everything that one process can do to another, on the numbers in a file and on all small ones, and prints what
/// had another answer than that there is no such process. `own` does some of it to a child of its own; `traced` makes
/// its parent its tracer, and stops.
const PROBE: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static int found;

static void check(const char *what, int pid, long result) {
    int error = errno;
    if (result >= 0 || (error != ESRCH && error != ENOENT)) {
        printf("POSSIBLE: %s of %d: %s\n", what, pid, result >= 0 ? "done" : strerror(error));
        found = 1;
    }
}

static void reach(int pid) {
    static const char *files[] = {"mem", "root", "root/etc", "cwd", "exe", "environ", "maps", "ns/mnt", "fd", "status"};
    char byte, path[64];
    struct iovec here = {&byte, 1}, there = {(void *)0x400000, 1};
    struct rlimit limit;
    check("attach", pid, ptrace(PTRACE_ATTACH, pid, 0, 0));
    check("seize", pid, ptrace(PTRACE_SEIZE, pid, 0, 0));
    check("read memory", pid, process_vm_readv(pid, &here, 1, &there, 1, 0));
    check("write memory", pid, process_vm_writev(pid, &here, 1, &there, 1, 0));
    check("signal", pid, kill(pid, 0));
    check("pidfd", pid, syscall(SYS_pidfd_open, pid, 0));
    check("limits", pid, prlimit(pid, RLIMIT_NOFILE, NULL, &limit));
    check("session", pid, getsid(pid));
    check("niceness", pid, syscall(SYS_getpriority, PRIO_PROCESS, pid));
    for (unsigned i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "/proc/%d/%s", pid, files[i]);
        check(files[i], pid, open(path, O_RDONLY));
    }
}

static int own(void) {
    int pid = fork(), status;
    if (pid == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        _exit(7);
    }
    waitpid(pid, &status, 0);
    long word = ptrace(PTRACE_PEEKTEXT, pid, (void *)own, 0);
    if (!WIFSTOPPED(status) || word != *(long *)own || ptrace(PTRACE_CONT, pid, 0, 0)) return 1;
    waitpid(pid, &status, 0);
    return !(WIFEXITED(status) && WEXITSTATUS(status) == 7);
}

int main(int argc, char **argv) {
    if (!strcmp(argv[1], "own")) return own();
    if (!strcmp(argv[1], "traced")) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        return 0;
    }
    for (int pid = 1; pid < 3000; pid++)
        if (pid != getpid()) reach(pid);
    FILE *list = fopen(argv[1], "r");
    int pid, count = 0;
    while (list && fscanf(list, "%d", &pid) == 1) {
        count++;
        if (pid != getpid()) reach(pid);
    }
    printf("tried %d\n", count);
    return found || !count;
}
"#;

fn world_with_probe() -> TestEnv {
    let env = world();
    env.write("probe.c", PROBE);
    let program = env.at("ctx/rootfs/bin/probe");
    env.tool("gcc", &["-static", "-O1", "-o", &program, &env.at("probe.c")])
        .ok();
    env
}

/// Every process of this machine, one a line.
fn processes() -> String {
    let entries = std::fs::read_dir("/proc").expect("proc").flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers.map(|number| format!("{number}\n")).collect()
}

#[test]
fn processes_of_this_machine_and_of_other_steps_are_out_of_reach_as_root() {
    let env = world_with_probe();
    env.write(
        "ctx/Dockerfile",
        "FROM scratch AS base\nCOPY rootfs /\n\
         FROM base AS other\n\
         RUN --mount=type=cache,target=/c touch /c/other; until test -e /c/done; do sleep 0.02; done; touch /other\n\
         FROM base AS probing\n\
         RUN --mount=type=cache,target=/c touch /c/probing; until test -e /c/pids; do sleep 0.02; done\n\
         RUN --mount=type=cache,target=/c [\"/bin/probe\", \"/c/pids\"]\n\
         RUN --security=insecure --mount=type=cache,target=/c [\"/bin/probe\", \"/c/pids\"]\n\
         RUN --mount=type=cache,target=/c touch /c/done\n\
         FROM base\nCOPY --from=other /other /\nCOPY --from=probing /bin/true /\n",
    );
    let output = format!("type=local,dest={}", env.at("out"));
    let mut command = env.cbs_command(&[
        "build",
        "--progress",
        "plain",
        "--jobs",
        "2",
        "--allow",
        "security.insecure",
        "--output",
        &output,
        "ctx",
    ]);
    let log = std::fs::File::create(env.path("log")).expect("log");
    let mut building = Running(command.stderr(log).spawn().expect("cbs starts"));
    // Both run: now the list has the processes of the other one.
    let end = Instant::now() + Duration::from_secs(120);
    while env
        .tool("sh", &["-c", "ls store/caches/*/0/other store/caches/*/0/probing"])
        .code
        != 0
    {
        assert!(Instant::now() < end, "the steps never ran");
        assert!(building.0.try_wait().expect("wait").is_none(), "the build ended");
        std::thread::sleep(Duration::from_millis(10));
    }
    env.write("pids", &processes());
    env.tool(
        "sh",
        &[
            "-c",
            "for c in store/caches/*/0; do cp pids $c/new && mv $c/new $c/pids; done",
        ],
    )
    .ok();
    let is_built = building.0.wait().expect("wait").success();
    let log = std::fs::read_to_string(env.path("log")).expect("log");
    // Not even one that may do anything reaches them: it has a pid namespace as well.
    let tries = log.matches(" tried ").count();
    assert!(is_built && tries == 2 && !log.contains("POSSIBLE"), "{log}");
    env.nothing_left();
}

#[test]
fn a_step_can_trace_its_own_processes_as_root() {
    let env = world_with_probe();
    build(&env, "RUN /bin/probe own\nUSER app\nRUN /bin/probe own\n", &[]).ok();
}

#[test]
fn a_step_that_makes_its_parent_its_tracer_hurts_itself_only_as_root() {
    let env = world_with_probe();
    // It waits for its tracer, for ever; that is a step that takes too long, and goes like any other.
    build(&env, "RUN [\"/bin/probe\", \"traced\"]\n", &["--step-timeout", "1s"]).fails_with(&["--step-timeout"]);
    env.nothing_left();
}

#[test]
fn the_program_that_started_a_step_cannot_be_had_as_root() {
    let env = world();
    // All that cbs needs to run, so that it would.
    let libraries = format!(
        "for f in $(ldd {} | grep -o '/[^ ]*'); do mkdir -p ctx/rootfs$(dirname $f) && cp -L $f ctx/rootfs$f; done",
        env!("CARGO_BIN_EXE_cbs")
    );
    env.tool("sh", &["-c", &libraries]).ok();
    for (name, text) in [("script", "#!/proc/self/exe\n"), ("script-1", "#!/proc/1/exe\n")] {
        env.write(&format!("ctx/rootfs/bin/{name}"), text);
        let path = env.path("ctx/rootfs/bin").join(name);
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("chmod");
    }
    std::os::unix::fs::symlink("/proc/self/exe", env.path("ctx/rootfs/bin/link")).expect("link");
    for step in [
        "RUN [\"/proc/self/exe\", \"--version\"]\n",
        "RUN [\"/proc/1/exe\", \"--version\"]\n",
        "RUN [\"/bin/link\", \"--version\"]\n",
        "RUN [\"/bin/script\"]\n",
        "RUN [\"/bin/script-1\"]\n",
        "SHELL [\"/proc/self/exe\"]\nRUN --version\n",
    ] {
        let said = build(&env, step, &[]);
        let is_cbs = said
            .stderr
            .lines()
            .any(|line| line.contains(" cbs 0.") || line.contains("Usage: cbs"));
        assert!(!is_cbs && said.code != 0, "{step}{}", said.stderr);
    }
    // What the kernel says about programs comes through all the same.
    build(
        &env,
        "RUN [\"/bin/sh\", \"-c\", \"readlink /proc/self/exe > /exe; readlink /proc/1/exe >> /exe\"]\n",
        &[],
    )
    .ok();
    assert_eq!(out(&env, "exe"), "/bin/busybox\n/bin/busybox\n");
    env.nothing_left();
}
