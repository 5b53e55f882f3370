//! `cbs mount`: every tree of the store as files, until Ctrl-C or an unmount.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;

use anyhow::Context as _;
use cbs_fuse::{BrowseConfig, BrowseMount, BrowseRoots, FuseError};
use cbs_store::{Access, Store, StoreError, TreeDigest};
use rustix::io::Errno;

use super::open_store;
use crate::args::{Global, MountArgs};

/// The store's gc roots as folders: a name's slashes become dashes, several snapshots get numbers.
struct Roots(Store);

impl BrowseRoots for Roots {
    fn list(&self) -> Result<Vec<(Vec<u8>, TreeDigest)>, StoreError> {
        let mut names = Vec::new();
        for root in self.0.gc_roots()? {
            let name = root.name.trim_matches('/').replace('/', "-");
            for (number, snapshot) in root.snapshots.iter().enumerate() {
                let name = if number == 0 {
                    name.clone()
                } else {
                    format!("{name}@{number}")
                };
                if cbs_store::check_name(name.as_bytes()).is_ok() {
                    names.push((name.into_bytes(), snapshot.tree));
                }
            }
        }
        Ok(names)
    }
}

pub(crate) fn run(global: &Global, args: &MountArgs) -> anyhow::Result<ExitCode> {
    if args.guard {
        return guard(&args.dir);
    }
    let store = open_store(global, Access::ReadOnly)?;
    let dir = args.dir.display();
    std::fs::create_dir_all(&args.dir).with_context(|| format!("cannot make `{dir}`"))?;
    let config = BrowseConfig {
        blobs: store.blobs_dir(),
        roots: Box::new(Roots(store.clone())),
        store: Arc::new(store),
        mountpoint: args
            .dir
            .canonicalize()
            .with_context(|| format!("cannot resolve `{dir}`"))?,
        threads: cbs_fuse::default_threads(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mount = match BrowseMount::mount(config) {
        Err(err @ FuseError::Helper { .. }) => {
            return Err(err)
                .context("nothing is mounted; `cbs store ls` and `cbs store cat` show trees without a mount");
        }
        mount => Arc::new(mount?),
    };
    let guarded = start_guard(mount.mountpoint());
    tell!("mounted at {dir}; Ctrl-C unmounts");
    let waiting = Arc::clone(&mount);
    let (sender, ended) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        waiting.wait();
        drop(waiting);
        // The other side may have seen a signal first.
        sender.send(()).unwrap_or_default();
    });
    runtime.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! {
            _ = ended => {}
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        anyhow::Ok(())
    })?;
    // Somebody may have unmounted it already; that is what was wanted.
    cbs_fuse::detach(mount.mountpoint()).unwrap_or_default();
    if let Ok(mut child) = guarded {
        drop(child.stdin.take());
        // It has nothing more to do, and nothing to say.
        child.wait().map(drop).unwrap_or_default();
    }
    Ok(ExitCode::SUCCESS)
}

/// Starts the process that takes the mount off when this one is killed. Without it everything works but that.
fn start_guard(at: &Path) -> std::io::Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    // Of a group of its own: what ends the one by the terminal shall not end the other.
    command.args(["mount", "--guard"]).arg(at).process_group(0);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

/// Standard input ends with the process that mounted; whatever it was, nobody serves what is then still mounted.
fn guard(at: &Path) -> anyhow::Result<ExitCode> {
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).context("cannot wait")?;
    if matches!(rustix::fs::statfs(at), Err(Errno::NOTCONN | Errno::CONNABORTED)) {
        cbs_fuse::detach(at).context("cannot take a dead mount off")?;
    }
    Ok(ExitCode::SUCCESS)
}
