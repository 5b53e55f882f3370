//! `cbs mount`: every tree of the store as files, until Ctrl-C or an unmount.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use cbs_fuse::{BrowseConfig, BrowseMount, BrowseRoots};
use cbs_store::{Access, Store, StoreError, TreeDigest};

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
    let mount = Arc::new(BrowseMount::mount(config)?);
    eprintln!("mounted at {dir}; Ctrl-C unmounts");
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
    if rustix::mount::unmount(mount.mountpoint(), rustix::mount::UnmountFlags::DETACH).is_err() {
        // Somebody unmounted it already; that is what was wanted.
    }
    Ok(ExitCode::SUCCESS)
}
