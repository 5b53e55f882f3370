//! Times one step of the launcher against a bare fork and exec of the same program, and against other launchers.
//!
//! `cargo run --release -p cbs-exec --example launch_bench -- [RUNS] [BALLAST_MIB]`, as root, with a static busybox, runc
//! and crun in the path; who is missing has no row. The ballast is memory that this process touches first, to show that
//! its size does not matter.

use std::error::Error;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio as ProcessStdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cbs_exec::launch::probe::Facts;
use cbs_exec::launch::{
    Access, CancelHandle, ContainerSpec, Discard, FileSource, Helper, HelperNetwork, HelperSpec, Ids, Launcher,
    MountSource, MountSpec, Network, OverlayMount, OverlayXattrs, ProcessSpec, Resources, Rlimit, RlimitResource,
    RootFs, Security, Stdio,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let runs: usize = args.next().map_or(Ok(200), |text| text.parse())?;
    let ballast: usize = args.next().map_or(Ok(0), |text| text.parse())?;
    let memory = vec![1_u8; ballast << 20];
    let bench = Bench::new(runs)?;

    let busybox = bench.busybox.clone();
    let bare = bench.command("bare fork and exec", &busybox, &["true"], Duration::ZERO)?;
    let lower = bench.lower.to_str().ok_or("the folder's name is no text")?.to_owned();
    let unshare = "--mount --pid --fork --uts --ipc --net chroot";
    let words: Vec<&str> = unshare
        .split(' ')
        .chain([lower.as_str(), "/bin/busybox", "true"])
        .collect();
    bench.command("unshare, chroot", Path::new("unshare"), &words, bare)?;
    for (name, network, security) in [
        ("sandbox, host network", Network::Host, Security::Sandbox),
        ("sandbox, no network", Network::None, Security::Sandbox),
        ("insecure, host network", Network::Host, Security::Insecure),
    ] {
        bench.launcher(name, bare, |_, spec| {
            spec.network = network.clone();
            spec.security = security;
        })?;
    }
    let (_helper, network) = bench.network()?;
    let _agent = UnixListener::bind(bench.dir.path().join("agent"))?;
    let (cache, agent) = (bench.dir.path().join("cache"), bench.dir.path().join("agent"));
    fs::create_dir(&cache)?;
    let tree = bench.lower.join("etc");
    let everything = |run: usize, spec: &mut ContainerSpec| {
        spec.network = Network::Namespace(Arc::clone(&network));
        let mount = |target: &str, source, access| MountSpec {
            target: target.into(),
            source,
            access,
        };
        let secret = FileSource {
            bytes: b"hush".as_slice().into(),
            mode: 0o400,
            uid: 0,
            gid: 0,
        };
        let scratch = |name: &str| bench.dir.path().join(format!("{name}{run}"));
        let overlay = OverlayMount {
            lower: vec![tree.clone()],
            data_only: Vec::new(),
            upper: scratch("bind-upper"),
            work: scratch("bind-work"),
            xattrs: OverlayXattrs::Trusted,
        };
        spec.mounts.extend([
            mount("/root/.cache", MountSource::Bind(cache.clone()), Access::ReadWrite),
            mount("/src", MountSource::Bind(tree.clone()), Access::ReadOnly),
            mount("/src-rw", MountSource::Overlay(overlay), Access::ReadWrite),
            mount(
                "/memory",
                MountSource::Tmpfs {
                    size: Some(1 << 20),
                    mode: 0o1777,
                },
                Access::ReadWrite,
            ),
            mount("/run/secrets/token", MountSource::File(secret), Access::ReadOnly),
            mount(
                "/run/buildkit/ssh_agent.0",
                MountSource::Bind(agent.clone()),
                Access::ReadOnly,
            ),
        ]);
        spec.shm_size = Some(64 << 20);
        spec.process.user = Ids {
            uid: 1000,
            gid: 1000,
            supplementary: vec![1000, 2000],
        };
        spec.process.rlimits = vec![Rlimit {
            resource: RlimitResource::Nofile,
            soft: Some(1024),
            hard: Some(4096),
        }];
    };
    bench.launcher("everything but cgroups", bare, everything)?;
    bench.launcher("everything", bare, |run, spec| {
        everything(run, spec);
        spec.resources = Resources {
            memory: Some(512 << 20),
            cpu_shares: Some(512),
            cpu_quota: Some(200_000),
            pids: Some(1000),
            ..Resources::default()
        };
    })?;
    // It knows no cgroups of both versions side by side.
    bench.runtime("crun", &["--cgroup-manager", "disabled"], bare)?;
    bench.runtime("runc", &[], bare)?;
    println!("(ballast {} MiB)", memory.len() >> 20);
    Ok(())
}

struct Bench {
    runs: usize,
    dir: tempfile::TempDir,
    lower: PathBuf,
    busybox: PathBuf,
    launcher: Launcher,
    cancel: CancelHandle,
}

impl Bench {
    fn new(runs: usize) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let lower = dir.path().join("lower");
        for name in ["bin", "proc", "sys", "dev", "etc", "tmp"] {
            fs::create_dir_all(lower.join(name))?;
        }
        let busybox = find_busybox().ok_or("no busybox in PATH")?;
        fs::copy(&busybox, lower.join("bin/busybox"))?;
        Ok(Self {
            runs,
            dir,
            lower,
            busybox,
            launcher: Launcher::new(Facts::probe()),
            cancel: CancelHandle::new()?,
        })
    }

    fn command(&self, name: &str, program: &Path, args: &[&str], bare: Duration) -> Result<Duration> {
        let taken = median(self.runs, |_| {
            let mut command = Command::new(program);
            command
                .args(args)
                .stdin(ProcessStdio::null())
                .stdout(ProcessStdio::null());
            let start = Instant::now();
            let status = command.status()?;
            let taken = start.elapsed();
            assert!(status.success(), "{name} failed");
            Ok(taken)
        })?;
        say(name, taken, if bare.is_zero() { taken } else { bare });
        Ok(taken)
    }

    fn launcher(&self, name: &str, bare: Duration, change: impl Fn(usize, &mut ContainerSpec)) -> Result<()> {
        let taken = median(self.runs, |run| {
            let scratch = ["upper", "work", "bind-upper", "bind-work"];
            let scratch = scratch.map(|name| self.dir.path().join(format!("{name}{run}")));
            for folder in &scratch {
                fs::create_dir(folder)?;
            }
            let mut spec = spec(&self.lower, scratch[0].clone(), scratch[1].clone());
            change(run, &mut spec);
            let start = Instant::now();
            let report = self.launcher.run(&spec, &self.cancel, &mut Discard)?;
            let taken = start.elapsed();
            assert!(report.status.success() && report.unmet_limits.is_empty(), "{report:?}");
            // Not part of a step: the caller reads them first, and may remove them whenever it likes.
            for folder in scratch {
                fs::remove_dir_all(folder)?;
            }
            Ok(taken)
        })?;
        say(name, taken, bare);
        Ok(())
    }

    /// A network namespace as a build has it; who serves it does not matter to those who enter it.
    fn network(&self) -> Result<(Helper, Arc<OwnedFd>)> {
        let sleeper = [self.busybox.as_os_str().to_owned(), "sleep".into(), "1000".into()];
        let helper = self.launcher.helper(HelperSpec {
            args: sleeper.into(),
            env: Vec::new(),
            stdin: None,
            network: HelperNetwork::Serve,
            is_ready: Box::new(|| true),
        })?;
        let network = helper.wait()?.ok_or("the helper serves no network")?;
        Ok((helper, network))
    }

    /// Another launcher, with the configuration it makes for itself.
    fn runtime(&self, program: &str, flags: &[&str], bare: Duration) -> Result<()> {
        let bundle = self.dir.path().join(program);
        fs::create_dir(&bundle)?;
        let made = Command::new(program).arg("spec").current_dir(&bundle).status();
        if !made.is_ok_and(|status| status.success()) {
            return Ok(());
        }
        let config = bundle.join("config.json");
        let mut value: serde_json::Value = serde_json::from_slice(&fs::read(&config)?)?;
        value["process"]["terminal"] = false.into();
        value["process"]["args"] = vec!["/bin/busybox", "true"].into();
        value["root"]["path"] = self.lower.to_str().into();
        fs::write(&config, serde_json::to_vec(&value)?)?;
        let bundle = bundle.to_str().ok_or("the folder's name is no text")?;
        let id = format!("cbs-bench-{}", std::process::id());
        let run = [flags, &["run", "--bundle", bundle, &id]].concat();
        let tried = Command::new(program).args(&run).output()?;
        if !tried.status.success() {
            let why = String::from_utf8_lossy(&tried.stderr);
            println!("| {program} run | does not run here: {} | | |", why.trim());
            return Ok(());
        }
        self.command(&format!("{program} run"), Path::new(program), &run, bare)?;
        Ok(())
    }
}

fn spec(lower: &Path, upper: PathBuf, work: PathBuf) -> ContainerSpec {
    ContainerSpec {
        rootfs: RootFs::Overlay(OverlayMount {
            lower: vec![lower.to_owned()],
            data_only: Vec::new(),
            upper,
            work,
            xattrs: OverlayXattrs::Trusted,
        }),
        rootfs_access: Access::ReadWrite,
        mounts: vec![
            MountSpec::root_file("/etc/hosts", *b"127.0.0.1 localhost\n"),
            MountSpec::root_file("/etc/resolv.conf", *b"nameserver 127.0.0.1\n"),
        ],
        process: ProcessSpec {
            args: vec!["/bin/busybox".into(), "true".into()],
            env: vec!["PATH=/bin".into()],
            cwd: "/".into(),
            user: Ids::default(),
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

fn median(runs: usize, mut run: impl FnMut(usize) -> Result<Duration>) -> Result<Duration> {
    let mut taken = (0..runs).map(&mut run).collect::<Result<Vec<_>>>()?;
    taken.sort_unstable();
    Ok(taken.get(taken.len() / 2).copied().unwrap_or_default())
}

/// A row of the table.
fn say(name: &str, taken: Duration, bare: Duration) {
    let (taken, bare) = (ms(taken), ms(bare));
    println!(
        "| {name} | {taken:.2} ms | + {:.2} ms | {:.1} |",
        taken - bare,
        taken / bare
    );
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn find_busybox() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join("busybox"))
        .find(|candidate| candidate.is_file())
}
