//! A root file system of busybox, and one way to run things in it.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use cbs_exec::launch::probe::Facts;
use cbs_exec::launch::{
    Access, CancelHandle, Collect, ContainerSpec, ExitReport, Ids, LaunchError, Launcher, MountSource, MountSpec,
    Network, OverlayMount, OverlayXattrs, ProcessSpec, Resources, RootFs, Security, Stdio,
};
use tempfile::TempDir;

/// What the root has in it, beside busybox and its names.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n";
const GROUP: &str = "root:x:0:\napp:x:1001:\nvideo:x:27:app\n";

/// A place to run containers in.
pub(crate) struct World {
    pub(crate) launcher: Launcher,
    dir: TempDir,
    next: AtomicUsize,
}

/// A finished run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) report: ExitReport,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl World {
    /// `None`, with a word about it, where containers cannot be tested.
    pub(crate) fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: not root");
            return None;
        }
        let Some(busybox) = find_busybox() else {
            eprintln!("SKIPPED: no busybox in PATH");
            return None;
        };
        let dir = tempfile::tempdir().expect("tempdir");
        make_root(&dir.path().join("lower"), &busybox);
        Some(Self {
            launcher: Launcher::new(Facts::probe()),
            dir,
            next: AtomicUsize::new(0),
        })
    }

    /// A fresh directory.
    pub(crate) fn fresh(&self, name: &str) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.path().join(format!("{name}-{number}"));
        fs::create_dir(&path).expect("mkdir");
        path
    }

    pub(crate) fn lower(&self) -> PathBuf {
        self.dir.path().join("lower")
    }

    /// An overlay over a tree, with a fresh upper directory.
    pub(crate) fn overlay(&self, lower: PathBuf) -> OverlayMount {
        OverlayMount {
            lower: vec![lower],
            data_only: Vec::new(),
            upper: self.fresh("upper"),
            work: self.fresh("work"),
            xattrs: OverlayXattrs::Trusted,
        }
    }

    /// A sandboxed container as BuildKit would run it.
    pub(crate) fn spec(&self, args: &[&str]) -> ContainerSpec {
        ContainerSpec {
            rootfs: RootFs::Overlay(self.overlay(self.lower())),
            rootfs_access: Access::ReadWrite,
            mounts: Vec::new(),
            process: ProcessSpec {
                args: args.iter().map(OsString::from).collect(),
                env: vec!["PATH=/usr/bin:/bin".into(), "HOME=/root".into()],
                cwd: "/".into(),
                user: Ids {
                    uid: 0,
                    gid: 0,
                    supplementary: vec![0],
                },
                rlimits: Vec::new(),
                stdio: Stdio::Captured,
            },
            hostname: "buildkitsandbox".into(),
            network: Network::Host,
            security: Security::Sandbox,
            user_namespace: None,
            emulators: Vec::new(),
            shm_size: None,
            devices: Vec::new(),
            resources: Resources::default(),
            oom_score_adj: None,
        }
    }

    /// A container that runs a shell script.
    pub(crate) fn script(&self, script: &str) -> ContainerSpec {
        self.spec(&["/bin/sh", "-c", script])
    }

    pub(crate) fn try_run(&self, spec: &ContainerSpec) -> Result<Run, LaunchError> {
        let mut output = Collect::default();
        let cancel = CancelHandle::new().expect("eventfd");
        let report = self.launcher.run(spec, &cancel, &mut output)?;
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Ok(Run {
            report,
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        })
    }

    pub(crate) fn run(&self, spec: &ContainerSpec) -> Run {
        self.try_run(spec)
            .unwrap_or_else(|err| panic!("{err}: {:?}", std::error::Error::source(&err)))
    }

    /// The output of a script that must succeed.
    pub(crate) fn sh(&self, script: &str) -> String {
        self.success(&self.script(script))
    }

    /// The output of a container that must succeed.
    pub(crate) fn success(&self, spec: &ContainerSpec) -> String {
        let run = self.run(spec);
        assert!(run.report.status.success(), "{run:?}");
        run.stdout
    }
}

/// The upper directory of a container.
pub(crate) fn upper(spec: &ContainerSpec) -> &Path {
    match &spec.rootfs {
        RootFs::Overlay(overlay) => &overlay.upper,
        RootFs::Bind(path) => path,
    }
}

pub(crate) fn bind(source: impl Into<PathBuf>, target: &str, access: Access) -> MountSpec {
    MountSpec {
        target: target.into(),
        source: MountSource::Bind(source.into()),
        access,
    }
}

fn make_root(root: &Path, busybox: &Path) {
    for name in ["bin", "dev", "etc", "proc", "root", "sys", "tmp", "usr/bin"] {
        fs::create_dir_all(root.join(name)).expect("mkdir");
    }
    fs::copy(busybox, root.join("bin/busybox")).expect("copy busybox");
    let list = Command::new(busybox).arg("--list").output().expect("busybox --list");
    for name in String::from_utf8_lossy(&list.stdout)
        .lines()
        .filter(|&name| name != "busybox")
    {
        symlink("busybox", root.join("bin").join(name)).expect("symlink");
    }
    fs::write(root.join("etc/passwd"), PASSWD).expect("write passwd");
    fs::write(root.join("etc/group"), GROUP).expect("write group");
}

fn find_busybox() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join("busybox"))
        .find(|candidate| candidate.is_file())
}
