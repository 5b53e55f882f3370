//! What the process finds itself to be.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Arc;

use cbs_exec::launch::{
    CreatedFor, CreatedKind, CreatedPath, ExecError, ExitStatus, Ids, LaunchError, Rlimit, RlimitResource, SpecError,
    Stdio,
};

use crate::harness::{World, upper};

#[test]
fn root_exit_codes_and_signals_are_reported() {
    let Some(world) = World::new() else { return };
    for code in [0, 1, 42, 255] {
        let run = world.run(&world.script(&format!("exit {code}")));
        assert_eq!(run.report.status, ExitStatus::Exited(code));
    }
    let run = world.run(&world.script("sh -c 'kill -9 $$'; exit $?"));
    assert_eq!(
        run.report.status.code(),
        137,
        "a shell passes the signal of its child on as a code"
    );
    let run = world.run(&crate::sys::inside(&world, "crash"));
    assert_eq!(run.report.status, ExitStatus::Signaled(libc::SIGSEGV));
    assert_eq!(run.report.status.code(), 139);
}

#[test]
fn root_output_arrives_whole_and_apart() {
    let Some(world) = World::new() else { return };
    let run = world.run(&world.script("echo out; echo err >&2; printf tail"));
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("out\ntail", "err\n"));
    let run = world.run(&world.script("dd if=/dev/zero bs=1M count=10 2>/dev/null | tr '\\0' x; echo end >&2"));
    assert_eq!((run.stdout.len(), run.stderr.as_str()), (10 << 20, "end\n"));
    let line = world.sh("head -c 1000000 /dev/zero | tr '\\0' y; echo");
    assert_eq!(line.len(), 1_000_001);
}

#[test]
fn root_streams_can_be_the_callers() {
    let Some(world) = World::new() else { return };
    let mut spec = world.script("cat; echo err >&2");
    let (stdin, mut feed) = std::io::pipe().expect("pipe");
    spec.process.stdio = Stdio::CapturedWithStdin(Arc::new(OwnedFd::from(stdin)));
    feed.write_all(b"fed").expect("write");
    drop(feed);
    let run = world.run(&spec);
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("fed", "err\n"));

    let mut spec = world.script("echo out; echo err >&2; cat");
    let (mut read, write) = std::io::pipe().expect("pipe");
    let write = Arc::new(OwnedFd::from(write));
    let stdin = Arc::new(OwnedFd::from(fs::File::open("/dev/null").expect("open")));
    spec.process.stdio = Stdio::Fds {
        stdin,
        stdout: Arc::clone(&write),
        stderr: write,
    };
    let run = world.run(&spec);
    drop(spec);
    let mut text = String::new();
    read.read_to_string(&mut text).expect("read");
    assert_eq!((text.as_str(), run.stdout.as_str()), ("out\nerr\n", ""));
}

#[test]
fn root_nothing_is_inherited() {
    let Some(world) = World::new() else { return };
    assert_eq!(
        world.success(&world.spec(&["/bin/env"])),
        "PATH=/usr/bin:/bin\nHOME=/root\n"
    );
    // Deliberately without close-on-exec.
    let leak = rustix::io::dup(std::io::stderr()).expect("dup");
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).expect("fcntl");
    let fds = world.success(&world.spec(&["/bin/ls", "/proc/self/fd"]));
    // The last one is ls reading the directory.
    assert_eq!(fds, "0\n1\n2\n3\n");
    assert_eq!(
        world.sh("cat; readlink /proc/self/fd/0"),
        "/dev/null\n",
        "stdin is empty"
    );
    let status = world.sh("grep -E '^(SigBlk|SigIgn|SigCgt)' /proc/self/status | tr -d '\\t'");
    assert_eq!(
        status,
        ["SigBlk", "SigIgn", "SigCgt"]
            .map(|name| format!("{name}:0000000000000000\n"))
            .concat()
    );
}

#[test]
fn root_it_is_pid_1_of_a_session_with_the_given_name() {
    let Some(world) = World::new() else { return };
    assert_eq!(
        world.sh("echo $$; hostname; umask; pwd"),
        "1\nbuildkitsandbox\n0022\n/\n"
    );
    // Fields 5 and 6 are the process group and the session.
    assert_eq!(world.sh("cut -d' ' -f5,6 /proc/1/stat"), "1 1\n");
    assert_eq!(
        world.sh("ls /proc | grep -c '^[0-9]*$'"),
        "3\n",
        "only the container's processes are seen"
    );
}

#[test]
fn root_users_and_groups_are_set() {
    let Some(world) = World::new() else { return };
    let mut spec = world.script("id; grep -E '^(Uid|Gid|Groups|CapEff|CapBnd)' /proc/self/status; touch /tmp/mine");
    spec.process.user = Ids {
        uid: 1000,
        gid: 1001,
        supplementary: vec![1001, 27],
    };
    fs::create_dir_all(upper(&spec).join("tmp")).expect("mkdir");
    fs::set_permissions(upper(&spec).join("tmp"), PermissionsExt::from_mode(0o1777)).expect("chmod");
    let out = world.success(&spec);
    let want = "uid=1000(app) gid=1001(app) groups=27(video),1001(app)\n\
        Uid:\t1000\t1000\t1000\t1000\nGid:\t1001\t1001\t1001\t1001\nGroups:\t27 1001 \n\
        CapEff:\t0000000000000000\nCapBnd:\t00000000a80425fb\n";
    let got = out.replace("groups=1001(app),27(video)", "groups=27(video),1001(app)");
    assert_eq!(got, want);
    let mut again = world.script("echo out > /dev/stdout; echo err > /dev/stderr");
    again.process.user = spec.process.user.clone();
    let run = world.run(&again);
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("out\n", "err\n"));
    let made = fs::metadata(upper(&spec).join("tmp/mine")).expect("stat");
    assert_eq!((made.uid(), made.gid(), made.mode() & 0o777), (1000, 1001, 0o644));
}

#[test]
fn root_a_missing_working_directory_is_made_and_reported() {
    let Some(world) = World::new() else { return };
    let mut spec = world.script("pwd; stat -c '%a %u %g' . ..");
    spec.process.cwd = "/a/../w/./deep".into();
    spec.process.user = Ids {
        uid: 1000,
        gid: 1001,
        supplementary: Vec::new(),
    };
    let run = world.run(&spec);
    assert_eq!(run.stdout, "/w/deep\n755 1000 1001\n755 1000 1001\n");
    let made = |path: &str| CreatedPath {
        path: path.into(),
        kind: CreatedKind::Directory,
        purpose: CreatedFor::WorkDir,
    };
    assert_eq!(run.report.created, [made("w"), made("w/deep")]);

    // A directory only root may enter, and a symlink that stays inside.
    let mut spec = world.script("pwd");
    fs::create_dir(upper(&spec).join("secret")).expect("mkdir");
    fs::set_permissions(upper(&spec).join("secret"), PermissionsExt::from_mode(0o700)).expect("chmod");
    std::os::unix::fs::symlink("../../secret", upper(&spec).join("link")).expect("symlink");
    spec.process.cwd = "/link".into();
    spec.process.user = Ids {
        uid: 1000,
        gid: 1001,
        supplementary: Vec::new(),
    };
    assert_eq!(world.success(&spec), "/secret\n");

    // The way out that runc once had.
    let mut spec = world.script("pwd");
    spec.process.cwd = "/proc/self/fd/4".into();
    let err = world.try_run(&spec).expect_err("no step through a descriptor");
    assert!(matches!(err, LaunchError::Setup { action: "chdir to", .. }), "{err:?}");
    spec.rootfs = world.spec(&[]).rootfs;
    spec.process.cwd = "relative".into();
    let err = world.try_run(&spec).expect_err("relative");
    assert!(
        matches!(err, LaunchError::Spec(SpecError::NotAbsolute { .. })),
        "{err:?}"
    );
}

#[test]
fn root_programs_are_found_as_runc_finds_them() {
    let Some(world) = World::new() else { return };
    assert_eq!(world.success(&world.spec(&["echo", "by PATH"])), "by PATH\n");
    let mut spec = world.spec(&["ghost"]);
    let root = upper(&spec).to_owned();
    fs::create_dir_all(root.join("usr/bin/dir")).expect("mkdir");
    let file = |name: &str, mode, text: &str| {
        fs::write(root.join("usr/bin").join(name), text).expect("write");
        fs::set_permissions(root.join("usr/bin").join(name), PermissionsExt::from_mode(mode)).expect("chmod");
    };
    file("noexec", 0o644, "#!/bin/sh\n");
    file("orphan", 0o755, "#!/no/such/interpreter\n");
    file("text", 0o755, "just text\n");
    file("script", 0o755, "#!/bin/sh\necho script $0\n");
    let program = |name: &str| name.to_owned();
    let cases = [
        (
            "ghost",
            ExecError::NotInPath {
                program: program("ghost"),
            },
            127,
        ),
        (
            "dir",
            ExecError::NotInPath {
                program: program("dir"),
            },
            127,
        ),
        (
            "/bin/ghost",
            ExecError::NoSuchFile {
                program: program("/bin/ghost"),
            },
            127,
        ),
        (
            "/bin/sh/x",
            ExecError::NoSuchFile {
                program: program("/bin/sh/x"),
            },
            127,
        ),
        (
            "orphan",
            ExecError::NoInterpreter {
                program: program("orphan"),
            },
            127,
        ),
        (
            "noexec",
            ExecError::PermissionDenied {
                program: program("noexec"),
            },
            126,
        ),
        (
            "/usr/bin",
            ExecError::IsDirectory {
                program: program("/usr/bin"),
            },
            126,
        ),
        (
            "text",
            ExecError::Format {
                program: program("text"),
            },
            126,
        ),
    ];
    for (name, want, code) in cases {
        spec.process.args = vec![name.into()];
        spec.rootfs = world.spec(&[]).rootfs;
        copy_dir(&root, upper(&spec));
        match world.try_run(&spec) {
            Err(LaunchError::Exec(err)) => assert_eq!((&err, err.exit_code()), (&want, code), "{name}"),
            other => panic!("{name}: {other:?}"),
        }
    }
    let message = ExecError::NotInPath {
        program: program("ghost"),
    }
    .to_string();
    assert_eq!(message, "exec: \"ghost\": executable file not found in $PATH");
    spec.process.args = vec!["script".into()];
    spec.rootfs = world.spec(&[]).rootfs;
    copy_dir(&root, upper(&spec));
    assert_eq!(world.success(&spec), "script /usr/bin/script\n");
    spec.process.args = Vec::new();
    let err = world.try_run(&spec).expect_err("no command");
    assert!(matches!(err, LaunchError::Spec(SpecError::NoCommand)), "{err:?}");
}

#[test]
fn root_limits_and_scores_are_set() {
    let Some(world) = World::new() else { return };
    let mut spec = world.script("ulimit -n; ulimit -Hn; ulimit -c; cat /proc/self/oom_score_adj");
    spec.process.rlimits = vec![
        Rlimit {
            resource: RlimitResource::Nofile,
            soft: Some(100),
            hard: Some(200),
        },
        Rlimit {
            resource: RlimitResource::Core,
            soft: None,
            hard: None,
        },
    ];
    spec.oom_score_adj = Some(500);
    assert_eq!(world.success(&spec), "100\n200\nunlimited\n500\n");
    let own = fs::read_to_string("/proc/self/oom_score_adj").expect("read");
    assert_ne!(own, "500\n", "the launcher's own score is untouched");
}

#[test]
fn root_a_terminal_becomes_the_controlling_one() {
    let Some(world) = World::new() else { return };
    let (controller, replica) = crate::sys::terminal();
    let mut spec =
        world.script("stty size; test -t 0 && test -t 1 && echo terminal > /dev/tty; ps -o tty | grep -c '?'");
    spec.process.stdio = Stdio::Terminal(Arc::new(replica));
    let run = world.run(&spec);
    assert!(run.report.status.code() <= 1, "{run:?}");
    drop(spec);
    let mut text = Vec::new();
    // A terminal whose last user is gone answers EIO.
    let _hung_up = fs::File::from(controller).read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text);
    assert!(text.starts_with("24 80\r\nterminal\r\n"), "{text:?}");
}

#[test]
fn root_programs_of_32_bits_run() {
    let Some(world) = World::new() else { return };
    let spec = world.spec(&["/exit42"]);
    fs::write(upper(&spec).join("exit42"), crate::sys::exit42_i386()).expect("write");
    fs::set_permissions(upper(&spec).join("exit42"), PermissionsExt::from_mode(0o755)).expect("chmod");
    match world.try_run(&spec) {
        Ok(run) => assert_eq!(run.report.status, ExitStatus::Exited(42)),
        Err(LaunchError::Exec(ExecError::Format { .. })) => eprintln!("SKIPPED: no 32-bit programs on this machine"),
        Err(err) => panic!("{err}"),
    }
}

fn copy_dir(from: &std::path::Path, to: &std::path::Path) {
    let status = std::process::Command::new("cp")
        .arg("-aT")
        .args([from, to])
        .status()
        .expect("cp");
    assert!(status.success());
}
