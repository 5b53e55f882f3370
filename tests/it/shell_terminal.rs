//! `cbs shell` at a terminal: `script` gives it one, and a thread types.

use std::io::{Read as _, Write as _};
use std::process::{ChildStdin, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::env::TestEnv;
use crate::steps::{Running, world};

/// A terminal with a command in it.
struct Terminal {
    child: Running,
    keys: ChildStdin,
    screen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn open(env: &TestEnv, command: &str) -> Self {
        let line = format!("tty > {}; stty rows 33 cols 99; exec {command}", env.at("tty"));
        let mut child = env
            .command("script")
            .args(["-qfec", &line, "/dev/null"])
            .env("TERM", "xterm")
            .env("SHELL", "/bin/sh")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("script must be installed");
        let (keys, mut output) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let screen = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut buffer) {
                seen.lock().expect("screen").extend_from_slice(&buffer[..length]);
            }
        });
        Self {
            child: Running(child),
            keys,
            screen,
        }
    }

    fn kind(&mut self, keys: &str) {
        self.keys
            .write_all(keys.as_bytes())
            .and_then(|()| self.keys.flush())
            .expect("type");
    }

    /// Waits until the screen shows it, then clears what was shown.
    #[track_caller]
    fn sees(&mut self, wanted: &str) -> String {
        let start = Instant::now();
        loop {
            let text = String::from_utf8_lossy(&self.screen.lock().expect("screen")).into_owned();
            if text.contains(wanted) {
                self.screen.lock().expect("screen").clear();
                return text;
            }
            assert!(start.elapsed() < Duration::from_secs(120), "no {wanted:?} in {text:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn a_shell_has_a_terminal_with_size_and_job_control_as_root() {
    let env = world();
    env.write("ctx/Dockerfile", "FROM scratch\nCOPY rootfs /\nRUN echo one > /one\n");
    env.cbs(&["build", "ctx"]).ok();
    let command = format!("{} shell ctx", env!("CARGO_BIN_EXE_cbs"));
    let mut terminal = Terminal::open(&env, &command);
    let first = terminal.sees("# ");
    assert!(!first.contains("job control turned off"), "{first}");
    terminal.kind("stty size; echo do''ne\n");
    let seen = terminal.sees("done");
    assert!(seen.contains("33 99"), "{seen:?}");
    // The size follows ours.
    let tty = std::fs::read_to_string(env.path("tty")).expect("tty");
    env.tool("stty", &["-F", tty.trim(), "rows", "44", "cols", "111"]).ok();
    let start = Instant::now();
    loop {
        terminal.kind("stty size; echo ag''ain\n");
        if terminal.sees("again").contains("44 111") {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(120), "the size does not follow");
    }
    // Ctrl-C ends what runs, not the shell; Ctrl-Z stops it.
    terminal.kind("sh -c 'echo ru\"\"ns; exec sleep 1000'; echo inter''rupted $?\n");
    terminal.sees("runs");
    terminal.kind("\x03");
    terminal.sees("# ");
    terminal.kind("echo st''ill here\n");
    terminal.sees("still here");
    terminal.kind("sh -c 'echo ru\"\"ns; exec sleep 1000'\n");
    terminal.sees("runs");
    terminal.kind("\x1a");
    terminal.sees("Stopped");
    terminal.kind("kill -9 %1; echo $TERM\n");
    terminal.sees("xterm");
    // A shell that has not heard of the job's end yet warns the first time.
    terminal.kind("exit 5\nexit 5\n");
    let status = terminal.child.0.wait().expect("wait");
    assert_eq!(status.code(), Some(5));
    env.nothing_left();
}

#[test]
fn a_failure_opens_a_shell_when_asked_to_as_root() {
    let env = world();
    env.write(
        "ctx/Dockerfile",
        "FROM scratch\nCOPY rootfs /\nRUN echo left > /left; exit 3\n",
    );
    let command = format!("{} build --on-failure shell ctx", env!("CARGO_BIN_EXE_cbs"));
    let mut terminal = Terminal::open(&env, &command);
    let first = terminal.sees("# ");
    assert!(first.contains("exit code: 3"), "the failure comes first: {first}");
    terminal.kind("cat /le''ft; echo sh''own\n");
    assert!(terminal.sees("shown").contains("left"));
    terminal.kind("exit\n");
    let status = terminal.child.0.wait().expect("wait");
    assert_eq!(status.code(), Some(1), "the build failed all the same");
    // Nobody asked to keep it.
    crate::failing::shell(&env, &["ctx", "--after"], "").fails_with(&["--keep-failed"]);
    env.nothing_left();
}
