//! Times one step of the launcher against a bare fork and exec of the same program.
//!
//! `cargo run --release -p cbs-exec --example launch_bench -- [RUNS] [BALLAST_MIB]`, as root, with a static busybox in
//! the path. The ballast is memory that this process touches first, to show that its size does not matter.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio as ProcessStdio};
use std::time::{Duration, Instant};

use cbs_exec::launch::probe::Facts;
use cbs_exec::launch::{
    Access, CancelHandle, ContainerSpec, Discard, Ids, Launcher, MountSpec, Network, OverlayMount, OverlayXattrs,
    ProcessSpec, Resources, RootFs, Security, Stdio,
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let runs: usize = args.next().map_or(Ok(200), |text| text.parse())?;
    let ballast: usize = args.next().map_or(Ok(0), |text| text.parse())?;
    let memory = vec![1_u8; ballast << 20];

    let dir = tempfile::tempdir()?;
    let lower = dir.path().join("lower");
    for name in ["bin", "proc", "sys", "dev", "etc", "tmp"] {
        fs::create_dir_all(lower.join(name))?;
    }
    let busybox = find_busybox().ok_or("no busybox in PATH")?;
    fs::copy(&busybox, lower.join("bin/busybox"))?;

    let launcher = Launcher::new(Facts::probe());
    let cancel = CancelHandle::new()?;
    let bare = median(runs, |_| {
        let start = Instant::now();
        let status = Command::new(&busybox)
            .arg("true")
            .stdin(ProcessStdio::null())
            .status()?;
        assert!(status.success());
        Ok(start.elapsed())
    })?;
    println!("bare fork and exec               {:.2} ms", ms(bare));
    for (name, network, security) in [
        ("sandbox, host network", Network::Host, Security::Sandbox),
        ("sandbox, no network", Network::None, Security::Sandbox),
        ("insecure, host network", Network::Host, Security::Insecure),
    ] {
        let taken = median(runs, |run| {
            let (upper, work) = (dir.path().join(format!("u{run}")), dir.path().join(format!("w{run}")));
            fs::create_dir(&upper)?;
            fs::create_dir(&work)?;
            let spec = spec(&lower, upper.clone(), work.clone(), network.clone(), security);
            let start = Instant::now();
            let report = launcher.run(&spec, &cancel, &mut Discard)?;
            let taken = start.elapsed();
            assert!(report.status.success(), "{report:?}");
            // Not part of a step: the caller reads them first, and may remove them whenever it likes.
            fs::remove_dir_all(upper)?;
            fs::remove_dir_all(work)?;
            Ok(taken)
        })?;
        println!(
            "{name:32} {:.2} ms, {:.2} ms over bare",
            ms(taken),
            ms(taken) - ms(bare)
        );
    }
    println!("(ballast {} MiB)", memory.len() >> 20);
    Ok(())
}

fn spec(lower: &Path, upper: PathBuf, work: PathBuf, network: Network, security: Security) -> ContainerSpec {
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
        network,
        security,
        user_namespace: None,
        emulators: Vec::new(),
        shm_size: None,
        devices: Vec::new(),
        resources: Resources::default(),
        oom_score_adj: None,
    }
}

fn median(
    runs: usize,
    mut run: impl FnMut(usize) -> Result<Duration, Box<dyn Error>>,
) -> Result<Duration, Box<dyn Error>> {
    let mut taken = (0..runs).map(&mut run).collect::<Result<Vec<_>, _>>()?;
    taken.sort_unstable();
    Ok(taken.get(taken.len() / 2).copied().unwrap_or_default())
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
