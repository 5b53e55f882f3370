//! Git repositories for tests, and ways to them: a git daemon, an ssh server.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::env::TestEnv;

/// A server that ends with its test.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that is gone already is no failure.
        self.child
            .kill()
            .and_then(|()| self.child.wait().map(drop))
            .unwrap_or_default();
    }
}

fn free_port() -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").expect("bind");
    socket.local_addr().expect("address").port()
}

fn start(mut command: Command, port: u16) -> Server {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let server = Server {
        child: child.expect("the server must be installed"),
        port,
    };
    let start = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(start.elapsed() < Duration::from_secs(10), "the server does not answer");
        std::thread::sleep(Duration::from_millis(10));
    }
    server
}

/// Serves all repositories below a folder of the world as `git://127.0.0.1:PORT/NAME`.
pub(crate) fn git_daemon(env: &TestEnv, folder: &str) -> Server {
    let port = free_port();
    // `git daemon` would be a child of `git`, and outlive it.
    let program = env.tool("git", &["--exec-path"]).ok().stdout;
    let mut daemon = env.command(Path::new(program.trim()).join("git-daemon"));
    daemon
        .args(["--listen=127.0.0.1", "--export-all", "--reuseaddr"])
        .arg(format!("--port={port}"))
        .arg(format!("--base-path={}", env.at(folder)));
    start(daemon, port)
}

/// An ssh server that lets in the key `key.pub` of the world.
pub(crate) fn ssh_server(env: &TestEnv) -> Server {
    let port = free_port();
    env.tool(
        "ssh-keygen",
        &["-q", "-t", "ed25519", "-N", "", "-f", &env.at("host_key")],
    )
    .ok();
    let config = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\n\
         StrictModes no\nPermitRootLogin yes\nPasswordAuthentication no\n",
        env.at("host_key"),
        env.at("key.pub"),
    );
    env.write("sshd_config", &config);
    std::fs::create_dir_all("/run/sshd").expect("mkdir");
    let mut command = env.command("/usr/sbin/sshd");
    command.args(["-D", "-f", &env.at("sshd_config")]);
    start(command, port)
}

/// Runs git in a folder of the world, at a fixed time.
pub(crate) fn git(env: &TestEnv, folder: &str, args: &[&str]) -> String {
    let mut command = env.command("git");
    let output = command
        .args([
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@example.invalid",
            "-c",
            "init.defaultBranch=main",
        ])
        .args(["-c", "protocol.file.allow=always", "-C", &env.at(folder)])
        .args(args)
        .env("GIT_COMMITTER_DATE", "2020-02-02T02:02:02Z")
        .env("GIT_AUTHOR_DATE", "2020-02-02T02:02:02Z")
        .output()
        .expect("git");
    assert!(
        output.status.success(),
        "git {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A repository with `top`, `sub/file`, and the tag `v1`; gives its commit.
pub(crate) fn repository(env: &TestEnv, folder: &str) -> String {
    env.write(&format!("{folder}/top"), "one\n");
    env.write(&format!("{folder}/sub/file"), "in sub\n");
    git(env, folder, &["init", "--quiet"]);
    git(env, folder, &["add", "."]);
    git(env, folder, &["commit", "--quiet", "-m", "one"]);
    git(env, folder, &["tag", "-a", "v1", "-m", "tagged"]);
    git(env, folder, &["rev-parse", "HEAD"])
}

/// Adds a commit to it.
pub(crate) fn change(env: &TestEnv, folder: &str, text: &str) -> String {
    env.write(&format!("{folder}/top"), text);
    git(env, folder, &["commit", "--quiet", "-a", "-m", "change"]);
    git(env, folder, &["rev-parse", "HEAD"])
}
