//! Progress in a real terminal: tmux shows what a person would see.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::env::{Said, TestEnv};

/// A terminal of its own tmux server.
struct Terminal {
    socket: String,
    home: std::path::PathBuf,
}

impl Terminal {
    fn open(env: &TestEnv, width: usize, height: usize) -> Self {
        let terminal = Self {
            socket: env.at("tmux.sock"),
            home: env.path(""),
        };
        let (width, height) = (width.to_string(), height.to_string());
        terminal.tmux(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            &width,
            "-y",
            &height,
            "sh",
        ]);
        terminal.tmux(&["set", "-g", "window-size", "manual"]);
        terminal
    }

    fn tmux(&self, args: &[&str]) -> String {
        let mut command = Command::new("tmux");
        command.args(["-S", &self.socket]).args(args).current_dir(&self.home);
        command
            .env_remove("TMUX")
            .env("TERM", "xterm-256color")
            .env("LC_ALL", "C.UTF-8")
            .env("PS1", "$ ");
        let output = command.output().expect("tmux must be installed");
        let said = Said::from(output);
        assert_eq!(said.code, 0, "tmux {args:?}: {}", said.stderr);
        said.stdout
    }

    fn resize(&self, width: usize, height: usize) {
        let (width, height) = (width.to_string(), height.to_string());
        self.tmux(&["resize-window", "-x", &width, "-y", &height]);
    }

    /// Types a line.
    fn enter(&self, line: &str) {
        self.tmux(&["send-keys", "-l", line]);
        self.tmux(&["send-keys", "Enter"]);
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// The screen with its colours as escape sequences.
    fn colours(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-e"])
    }

    /// Waits until the screen shows a text.
    #[track_caller]
    fn wait_for(&self, needle: &str) -> String {
        let start = Instant::now();
        loop {
            let screen = self.screen();
            if screen.contains(needle) {
                return screen;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "no `{needle}` in:\n{screen}");
            std::thread::sleep(Duration::from_millis(30));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Not through `tmux`, which fails the test: it may be failing already.
        let ask = |args: &[&str]| {
            let output = Command::new("tmux").args(["-S", &self.socket]).args(args).output();
            output
                .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
                .unwrap_or_default()
        };
        let server = ask(&["display-message", "-p", "#{pid}"]);
        ask(&["kill-server"]);
        if server.trim().is_empty() {
            return;
        }
        // It says goodbye first.
        let process = std::path::Path::new("/proc").join(server.trim());
        for _ in 0..250 {
            if !process.exists() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn world() -> TestEnv {
    let env = TestEnv::with_registry();
    env.write(
        "ctx/Dockerfile",
        "FROM REGISTRY/cbs-test/busybox:1\nARG N=0\nRUN echo $N; for i in 1 2 3 4 5 6 7 8; do echo working on part number $i of a \
         build with a line that is longer than eighty columns would ever be; done; sleep 4\n",
    );
    env
}

/// Starts a build whose step takes some seconds, so that the live view can be looked at. The screen may show the
/// end of the one before for a moment yet, so each ends with words of its own: `{end} $?`.
fn start(terminal: &Terminal, env: &TestEnv, number: usize, prefix: &str, end: &str) {
    terminal.enter(&format!(
        "clear; {prefix} CBS_STORE={} HOME={} {} build --build-arg N={number} ctx; echo {end} $?",
        env.at("store"),
        env.at("home"),
        env!("CARGO_BIN_EXE_cbs"),
    ));
}

#[test]
fn the_live_view_fits_the_terminal_as_root() {
    let env = world();
    let terminal = Terminal::open(&env, 80, 24);
    start(&terminal, &env, 1, "", "first");
    let live = terminal.wait_for("part number 8");
    let has = |screen: &str, needle: &str| assert!(screen.contains(needle), "no `{needle}` in:\n{screen}");
    has(&live, "[+] Building");
    has(&live, " => [2/2] RUN echo");
    has(&live, " => => # working on part number 8");
    // Nothing wraps: each line of output takes one row, and a step's time is at the right edge of its row.
    assert_eq!(live.matches("part number 8").count(), 1, "{live}");
    let row = live
        .lines()
        .find(|line| line.contains("=> [2/2] RUN"))
        .expect("the step's row");
    assert!(row.chars().count() <= 80 && row.trim_end().ends_with('s'), "{row}");
    assert!(terminal.colours().contains('\u{1b}'), "colours are on in a terminal");

    // Half way it gets wider, and the view with it; nothing is left of the old one.
    terminal.resize(200, 40);
    let start_of_wait = Instant::now();
    let wide = loop {
        let screen = terminal.screen();
        let row = screen
            .lines()
            .find(|line| line.contains("=> [2/2] RUN"))
            .unwrap_or_default();
        if row.trim_end().chars().count() > 150 {
            break screen;
        }
        assert!(
            start_of_wait.elapsed() < Duration::from_secs(20),
            "it does not use the width:\n{screen}"
        );
        std::thread::sleep(Duration::from_millis(30));
    };
    assert_eq!(wide.matches("[+] Building").count(), 1, "{wide}");
    has(&wide, "longer than eighty columns would ever be");

    let end = terminal.wait_for("first 0");
    assert_eq!(end.matches("[+] Building").count(), 1, "{end}");
    has(&end, "kept as");
    assert_eq!(
        end.matches("=> [2/2] RUN").count(),
        1,
        "one row remains of the step:\n{end}"
    );

    // Without colour when nobody wants it; a second run says what was known.
    start(&terminal, &env, 1, "NO_COLOR=1", "second");
    let cached = terminal.wait_for("second 0");
    has(&cached, "CACHED [2/2] RUN");
    assert!(!terminal.colours().contains("\u{1b}[3"), "{}", terminal.colours());

    // Narrower while it runs.
    start(&terminal, &env, 2, "", "third");
    terminal.wait_for("part number 8");
    terminal.resize(60, 20);
    let end = terminal.wait_for("third 0");
    assert!(end.lines().all(|line| line.chars().count() <= 60), "{end}");
    drop(terminal);
    env.nothing_left();
}

#[test]
fn a_person_is_asked_for_consent_as_root() {
    let env = world();
    env.write("app/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    env.write(
        "app/docker-bake.hcl",
        "target \"default\" { output = [\"type=local,dest=../out\"] }\n",
    );
    let terminal = Terminal::open(&env, 100, 24);
    let ask = |answer: &str, status: &str| {
        terminal.enter(&format!(
            "clear; cd {} && CBS_STORE={} HOME={} {} bake; echo status $?",
            env.at("app"),
            env.at("store"),
            env.at("home"),
            env!("CARGO_BIN_EXE_cbs"),
        ));
        let question = terminal.wait_for("[y/N]");
        assert!(question.contains("Write access to path ../out"), "{question}");
        assert!(question.contains("--allow fs.write=../out"), "{question}");
        terminal.enter(answer);
        terminal.wait_for(status)
    };
    ask("n", "status 2");
    assert!(!env.path("out").exists());
    ask("y", "status 0");
    assert!(env.path("out/Dockerfile").exists());
}

#[test]
fn without_a_terminal_there_is_no_colour_and_modes_are_what_they_say_as_root() {
    let env = world();
    env.write(
        "ctx/Dockerfile",
        "FROM REGISTRY/cbs-test/busybox:1\nRUN echo one; echo two >&2\n",
    );
    let plain = env.cbs(&["build", "ctx"]).ok();
    assert!(!plain.stderr.contains('\u{1b}'), "{}", plain.stderr);
    for needle in [
        "#1 [internal] load build definition from",
        "[2/2] RUN echo one",
        " one\n",
        " two\n",
        " DONE ",
    ] {
        assert!(plain.stderr.contains(needle), "no `{needle}` in:\n{}", plain.stderr);
    }
    assert_eq!(plain.stdout, "");
    assert!(env.cbs(&["build", "ctx"]).ok().stderr.contains(" CACHED\n"));
    for mode in ["quiet", "none"] {
        assert_eq!(env.cbs(&["build", "--progress", mode, "ctx"]).ok().stderr, "", "{mode}");
    }
    let quiet = env.cbs(&["build", "-q", "ctx"]).ok();
    assert!(
        quiet.stdout.starts_with("sha256:") && quiet.stderr.is_empty(),
        "{}{}",
        quiet.stdout,
        quiet.stderr
    );

    // Each line of rawjson is one status, as BuildKit's clients read it.
    let raw = env.cbs(&["build", "--progress", "rawjson", "--no-cache", "ctx"]).ok();
    let (mut vertexes, mut logs, mut done) = (0, String::new(), 0);
    for line in raw.stderr.lines().filter(|line| line.starts_with('{')) {
        let status: serde_json::Value = serde_json::from_str(line).expect("JSON");
        for vertex in status["vertexes"].as_array().into_iter().flatten() {
            vertexes += 1;
            assert!(
                vertex["digest"]
                    .as_str()
                    .is_some_and(|digest| digest.starts_with("sha256:")),
                "{line}"
            );
            assert!(vertex["name"].is_string(), "{line}");
            done += usize::from(vertex["completed"].is_string());
        }
        for log in status["logs"].as_array().into_iter().flatten() {
            assert!(
                log["timestamp"].is_string() && log["vertex"].is_string() && log["stream"].is_u64(),
                "{line}"
            );
            logs.push_str(log["data"].as_str().expect("base64"));
        }
    }
    assert!(vertexes > 4 && done > 1, "{}", raw.stderr);
    // `one` and `two` with their line ends, in base64.
    assert!(logs.contains("b25l") && logs.contains("dHdv"), "{logs}");
}
