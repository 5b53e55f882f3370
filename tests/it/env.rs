//! A world for one test: a folder with a store and a home, and on demand a registry process with the test images.
#![allow(dead_code, reason = "each test program uses its own part of it")]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The top of the checkout.
pub(crate) fn top() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A sealed world; removed on drop.
pub(crate) struct TestEnv {
    dir: tempfile::TempDir,
    registry: Option<(Child, u16)>,
}

/// What a command said.
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Said {
    /// Fails the test unless the command succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, 0, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Fails the test unless the command failed and its errors hold all `needles`.
    #[track_caller]
    pub(crate) fn fails_with(self, needles: &[&str]) -> Self {
        assert_ne!(self.code, 0, "it succeeded:\n{}", self.stderr);
        for needle in needles {
            assert!(self.stderr.contains(needle), "no `{needle}` in:\n{}", self.stderr);
        }
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self
    }
}

impl TestEnv {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("cbs-it-").tempdir().expect("temp dir");
        fs::create_dir(dir.path().join("home")).expect("home");
        Self { dir, registry: None }
    }

    /// With a registry that has the conformance images (`cbs-test/busybox:1` and the others).
    pub(crate) fn with_registry() -> Self {
        let mut env = Self::new();
        env.start_registry();
        let setup = top().join("tests/conformance/dockerfile/setup_bases.py");
        env.tool(
            "python3",
            &[setup.to_str().expect("path"), "--registry", &env.registry()],
        )
        .ok();
        env
    }

    /// Starts an empty registry.
    pub(crate) fn start_registry(&mut self) {
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|socket| socket.local_addr())
            .expect("free port")
            .port();
        let config = self.path("registry.yml");
        let data = self.path("registry");
        let text = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"127.0.0.1:{port}\"}}\n",
            data.display()
        );
        fs::write(&config, text).expect("registry.yml");
        let log = fs::File::create(self.path("registry.log")).expect("log");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(log.try_clone().expect("log"))
            .stderr(log)
            .spawn()
            .expect("docker-registry must be installed");
        self.registry = Some((child, port));
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(
                start.elapsed() < Duration::from_secs(10),
                "the registry does not answer"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// `127.0.0.1:port`.
    pub(crate) fn registry(&self) -> String {
        format!(
            "127.0.0.1:{}",
            self.registry.as_ref().expect("a registry was started").1
        )
    }

    /// Kills the registry: what follows must not need it.
    pub(crate) fn stop_registry(&mut self) {
        if let Some((mut child, _)) = self.registry.take() {
            child.kill().and_then(|()| child.wait()).expect("stop registry");
        }
    }

    /// What the registry was asked so far.
    pub(crate) fn registry_log(&self) -> String {
        fs::read_to_string(self.path("registry.log")).unwrap_or_default()
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The path as text, for arguments.
    pub(crate) fn at(&self, name: &str) -> String {
        self.path(name).to_str().expect("UTF-8 temp dir").to_owned()
    }

    /// Writes a file, its folders made; `REGISTRY` in it becomes the registry's address.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("mkdir");
        let text = match &self.registry {
            Some(_) => text.replace("REGISTRY", &self.registry()),
            None => text.to_owned(),
        };
        fs::write(path, text).expect("write");
    }

    /// Makes a root file system of busybox and a few links to it.
    pub(crate) fn busybox(&self, name: &str) {
        let bin = self.path(name).join("bin");
        fs::create_dir_all(&bin).expect("mkdir");
        fs::copy("/bin/busybox", bin.join("busybox")).expect("busybox-static must be installed");
        let applets =
            "sh cat cp mv rm ln ls mkdir head tail seq chmod chown sleep echo stat find touch dd wc sort cut true";
        for applet in applets.split(' ') {
            std::os::unix::fs::symlink("busybox", bin.join(applet)).expect("link");
        }
    }

    /// The command, sealed: nothing of the environment but a PATH, its own HOME and store.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.path("home"))
            .env("CBS_STORE", self.path("store"))
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        // So that all tests can be run in a mode that this machine's kernel would not choose.
        if let Some(mode) = std::env::var_os("CBS_LOWER_MODE") {
            command.env("CBS_LOWER_MODE", mode);
        }
        command
    }

    pub(crate) fn cbs_command(&self, args: &[&str]) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_cbs"));
        command.args(args);
        command
    }

    pub(crate) fn cbs(&self, args: &[&str]) -> Said {
        self.cbs_command(args).output().expect("cbs starts").into()
    }

    pub(crate) fn tool(&self, program: &str, args: &[&str]) -> Said {
        let mut command = self.command(program);
        let output = command.args(args).output();
        output
            .unwrap_or_else(|err| panic!("`{program}` must be installed: {err}"))
            .into()
    }

    /// Fails the test when anything of this world's store is mounted, runs or lies in scratch.
    #[track_caller]
    pub(crate) fn nothing_left(&self) {
        self.nothing_left_in(&self.path("store"));
    }

    /// The same for a store elsewhere in this world.
    #[track_caller]
    pub(crate) fn nothing_left_in(&self, store: &Path) {
        let here = self.at("");
        let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
        assert!(!mounts.contains(&here), "left mounted:\n{mounts}");
        self.nothing_runs_or_lies(store);
    }

    /// As [`TestEnv::nothing_left`] for a world with disks of its own.
    #[track_caller]
    pub(crate) fn nothing_left_but_the_store_disk(&self) {
        self.nothing_runs_or_lies(&self.path("store"));
    }

    #[track_caller]
    fn nothing_runs_or_lies(&self, store: &Path) {
        let here = self.at("");
        for process in fs::read_dir("/proc").expect("proc").flatten() {
            let Ok(line) = fs::read(process.path().join("cmdline")) else {
                continue;
            };
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            let ours = line.contains(&here) && !line.contains("docker-registry");
            assert!(!ours, "still running: {line}");
        }
        let left: Vec<_> = fs::read_dir(store.join("work"))
            .map(|entries| entries.flatten().collect())
            .unwrap_or_default();
        assert!(left.is_empty(), "left in scratch: {left:?}");
    }
}

impl Drop for TestEnv {
    fn drop(&mut self) {
        if let Some((mut child, _)) = self.registry.take() {
            // The world ends anyhow; a registry that is gone already is no failure.
            child.kill().and_then(|()| child.wait().map(drop)).unwrap_or_default();
        }
    }
}
