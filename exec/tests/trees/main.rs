//! Containers over trees of a store: what a step leaves becomes the tree that the next one stands on.

mod sys;

use std::ffi::OsString;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cbs_exec::launch::probe::Facts;
use cbs_exec::launch::{
    Access, CancelHandle, Collect, ContainerSpec, Ids, Launcher, MountSource, MountSpec, Network, OverlayMount,
    OverlayXattrs, ProcessSpec, Resources, RootFs, Security, Stdio,
};
use cbs_fuse::{DEFAULT_ENTRY_BUDGET, ImageConfig, LowerMode, Privilege, RunConfig, RunMount, View, default_threads};
use cbs_store::ingest::{Ingested, OverlayAttributes, UpperOptions, upperdir};
use cbs_store::{Directory, DirectoryStore, KnownIds, Store, TreeDigest};
use tempfile::TempDir;

struct World {
    launcher: Launcher,
    store: Store,
    run: Option<RunMount>,
    dir: TempDir,
    next: AtomicUsize,
}

impl World {
    /// `None`, with a word about it, where containers cannot be tested.
    fn new(mode: LowerMode) -> Option<Self> {
        if !rustix::process::geteuid().is_root() || !Path::new("/dev/fuse").exists() {
            eprintln!("skipped: needs root and /dev/fuse");
            return None;
        }
        sys::private_namespace_of_this_thread();
        let dir = TempDir::with_prefix("cbs-trees-").expect("make a folder");
        let store = Store::open(&dir.path().join("store"), cbs_store::Access::ReadWrite).expect("store");
        let mut world = Self {
            launcher: Launcher::new(Facts::probe()),
            store,
            run: None,
            dir,
            next: AtomicUsize::new(0),
        };
        let mountpoint = world.fresh("mount");
        world.run = Some(
            RunMount::mount(RunConfig {
                store: Arc::new(world.store.clone()),
                blobs: world.store.blobs_dir(),
                mountpoint,
                mode,
                privilege: Privilege::detect(),
                threads: default_threads(),
                images: Some(ImageConfig {
                    folder: world.dir.path().join("images"),
                    mounts: world.fresh("image-mounts"),
                    budget: 1 << 30,
                }),
                entry_budget: DEFAULT_ENTRY_BUDGET,
                owners: KnownIds::all(),
            })
            .expect("mount"),
        );
        Some(world)
    }

    fn run_mount(&self) -> &RunMount {
        self.run.as_ref().expect("mounted")
    }

    fn fresh(&self, name: &str) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.path().join(format!("{name}-{number}"));
        fs::create_dir(&path).expect("mkdir");
        path
    }

    /// The tree of a directory, which is used up.
    fn ingest(&self, upper: &Path, lower: &TreeDigest) -> Ingested {
        let options = UpperOptions {
            stubs: &[],
            owners: &KnownIds::all(),
            attributes: OverlayAttributes::Trusted,
            threads: NonZeroUsize::MIN,
        };
        upperdir(&self.store, upper, lower, &options).expect("ingest")
    }

    /// A tree with busybox in it.
    fn base(&self) -> Option<TreeDigest> {
        let found = Command::new("sh")
            .args(["-c", "command -v busybox"])
            .output()
            .expect("run sh");
        let busybox = String::from_utf8(found.stdout).expect("a path");
        if busybox.is_empty() {
            eprintln!("skipped: no busybox in PATH");
            return None;
        }
        let root = self.fresh("base");
        for name in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
            fs::create_dir_all(root.join(name)).expect("mkdir");
        }
        fs::copy(busybox.trim(), root.join("bin/busybox")).expect("copy busybox");
        fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").expect("write");
        let status = Command::new("sh")
            .args([
                "-ec",
                "for n in $(busybox --list); do test -e bin/$n || ln -s busybox bin/$n; done",
            ])
            .current_dir(&root)
            .status();
        assert!(status.expect("run sh").success());
        let empty = self.store.put_directory(Directory::empty_root()).expect("store").digest;
        Some(self.ingest(&root, &empty).tree)
    }

    fn overlay(&self, view: &View) -> OverlayMount {
        OverlayMount {
            lower: vec![view.lower_dir().to_owned()],
            data_only: view.data_dir().into_iter().map(Path::to_owned).collect(),
            upper: self.fresh("upper"),
            work: self.fresh("work"),
            xattrs: OverlayXattrs::Trusted,
        }
    }

    /// Runs a script over a tree; answers with its output and what it left.
    fn step(&self, tree: TreeDigest, script: &str, mounts: Vec<MountSpec>) -> (String, Ingested) {
        let view = self.run_mount().view(tree);
        let overlay = self.overlay(&view);
        let upper = overlay.upper.clone();
        let spec = ContainerSpec {
            rootfs: RootFs::Overlay(overlay),
            rootfs_access: Access::ReadWrite,
            mounts,
            process: ProcessSpec {
                args: ["/bin/sh", "-euc", script].iter().map(OsString::from).collect(),
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
        };
        let mut output = Collect::default();
        let cancel = CancelHandle::new().expect("eventfd");
        let report = self.launcher.run(&spec, &cancel, &mut output).expect("run");
        assert!(
            report.status.success(),
            "{script}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        (
            String::from_utf8(output.stdout).expect("text"),
            self.ingest(&upper, &tree),
        )
    }
}

const MODES: [LowerMode; 2] = [LowerMode::DataOnly, LowerMode::Plain];

#[test]
fn each_step_stands_on_what_the_last_one_left_needs_root() {
    for mode in MODES {
        let Some(world) = World::new(mode) else { return };
        let Some(base) = world.base() else { return };
        let (_, first) = world.step(
            base,
            "mkdir -p /data/deep /old; echo small > /data/small; seq 200000 > /data/large; seq 9000 > /data/middle
            ln /data/large /data/deep/hard; ln -s ../data/small /etc/link; mkfifo /data/fifo; echo x > /old/file
            chown 12:34 /data/small; chmod 4750 /data/small; touch -d @1000 /data/large",
            Vec::new(),
        );
        let (out, second) = world.step(
            first.tree,
            "stat -c '%a %u:%g %s %h' /data/small /data/large /data/middle; cat /etc/link; tail -n1 /data/deep/hard
            stat -c %Y /data/large; test -p /data/fifo; test $(stat -c %i /data/large) = $(stat -c %i /data/deep/hard)
            rm -r /old; mkdir /old; echo more >> /data/large; rm /data/fifo; mv /data/middle /moved",
            Vec::new(),
        );
        assert_eq!(
            out,
            "4750 12:34 6 1\n644 0:0 1288895 2\n644 0:0 43893 1\nsmall\n200000\n1000\n"
        );
        let (out, third) = world.step(
            second.tree,
            "ls /old /data; tail -n2 /data/large; tail -n1 /data/deep/hard; wc -c < /moved; stat -c %h /data/large",
            Vec::new(),
        );
        // Changing one name of a hard link over an overlay breaks the pair.
        assert_eq!(
            out,
            "/data:\ndeep\nlarge\nsmall\n\n/old:\n200000\nmore\n200000\n43893\n1\n"
        );
        assert_eq!(third.tree, second.tree, "reading changes nothing");
        assert!(world.run_mount().take_failure().is_none());
    }
}

#[test]
fn a_part_of_another_tree_can_be_mounted_needs_root() {
    for mode in MODES {
        let Some(world) = World::new(mode) else { return };
        let Some(base) = world.base() else { return };
        let (_, made) = world.step(
            base,
            "mkdir -p /out/bin; seq 100000 > /out/bin/large; echo x > /out/bin/small",
            Vec::new(),
        );
        let source = world.run_mount().view(made.tree);
        let mount = MountSpec {
            target: "/from".into(),
            source: MountSource::Bind(source.path().join("out/bin")),
            access: Access::ReadOnly,
        };
        let script = "tail -n1 /from/large; cat /from/small; if touch /from/new 2> /dev/null; then exit 1; fi";
        let (out, _) = world.step(base, script, vec![mount]);
        assert_eq!(out, "100000\nx\n");
        let mount = MountSpec {
            target: "/from".into(),
            source: MountSource::Overlay(world.overlay(&source)),
            access: Access::ReadWrite,
        };
        let (out, _) = world.step(
            base,
            "echo y >> /from/out/bin/large; tail -n2 /from/out/bin/large",
            vec![mount],
        );
        assert_eq!(out, "100000\ny\n");
    }
}

#[test]
fn many_steps_at_once_needs_root() {
    for mode in MODES {
        many_steps_at_once(mode);
    }
}

fn many_steps_at_once(mode: LowerMode) {
    let Some(world) = World::new(mode) else {
        return;
    };
    let Some(base) = world.base() else { return };
    let results: Vec<TreeDigest> = thread::scope(|scope| {
        let world = &world;
        let chain = |number: usize| {
            move || {
                let mut tree = base;
                for step in 0..8 {
                    let script = format!(
                        "test ! -e /s{step}; echo {number} > /s{step}; touch -d @1 /s{step}; for n in $(seq 0 {step}); do grep -qx {number} /s$n; done"
                    );
                    tree = world.step(tree, &script, Vec::new()).1.tree;
                }
                tree
            }
        };
        // Two of each, to see that they meet.
        let chains: Vec<_> = (0..8).map(|number| scope.spawn(chain(number / 2))).collect();
        chains
            .into_iter()
            .map(|chain| chain.join().expect("no panic"))
            .collect()
    });
    for pair in results.chunks(2) {
        assert_eq!(pair[0], pair[1]);
    }
    assert!(world.run_mount().take_failure().is_none());
}

#[test]
fn a_step_leaves_the_same_over_an_image_needs_root() {
    let Some(world) = World::new(LowerMode::DataOnly) else {
        return;
    };
    let Some(base) = world.base() else { return };
    let (_, made) = world.step(
        base,
        "mkdir -p /data/a /data/b; seq 100000 > /data/large; ln /data/large /data/a/hard
        for n in $(seq 500); do echo $n > /data/b/$n; done; chmod 1777 /data/a; ln -s nowhere /data/link",
        Vec::new(),
    );
    let script =
        "cd /data; echo more >> large; rm -r a; mkdir a; rm b/17; chmod 600 b/18; mv b/19 a; ls -ld b/2* | wc -l
        find . -exec touch -h -d @5 {} +; find . | sort; tail -n1 large; cat b/*";
    let (out, plain) = world.step(made.tree, script, Vec::new());
    world.run_mount().want_image(made.tree);
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let view = world.run_mount().view(made.tree);
        if view.lower_dir() != view.path() {
            break;
        }
        assert!(Instant::now() < end, "no image was made");
        thread::sleep(Duration::from_millis(5));
    }
    let before = world.run_mount().counts();
    let (image_out, image) = world.step(made.tree, script, Vec::new());
    assert_eq!(world.run_mount().counts(), before, "the image is not used");
    assert_eq!(image_out, out);
    assert_eq!((image.tree, image.layer), (plain.tree, plain.layer));
}
