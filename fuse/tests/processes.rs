//! Tests that need a process of their own: one that is killed, one that moves its root, one in a user namespace.
//!
//! The program runs itself once more for each, with `--role=NAME` and a folder to work in.

mod common;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use cbs_fuse::{
    BrowseConfig, BrowseMount, BrowseRoots, FuseError, LowerMode, OverlayXattrs, Privilege, enter_private_namespace,
    probe,
};
use cbs_store::{Node, StoreError, TreeDigest};
use common::{World, entry, noise, shell, sys};

/// Longer than any machine takes, shorter than anyone waits.
const PATIENCE: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let role = arguments
        .next()
        .and_then(|argument| argument.strip_prefix("--role=").map(str::to_owned));
    if let (Some(role), Some(folder)) = (role, arguments.next()) {
        let world = |private: fn()| {
            private();
            World::below(Path::new(&folder))
        };
        let enter = || enter_private_namespace().expect("private namespace");
        match role.as_str() {
            "busy" => busy(&world(enter)),
            "pivot-data-only" => pivot(&world(enter), LowerMode::DataOnly),
            "pivot-plain" => pivot(&world(enter), LowerMode::Plain),
            "browse" => browse(&world(|| ())),
            "user" => user(&world(sys::become_root_of_user_namespace)),
            other => panic!("no role {other}"),
        }
        return ExitCode::SUCCESS;
    }
    if !rustix::process::geteuid().is_root() || !Path::new("/dev/fuse").exists() {
        eprintln!("skipped: needs root and /dev/fuse");
        return ExitCode::SUCCESS;
    }
    // The roles' mounts shall not reach the machine, whatever goes wrong.
    sys::private_namespace_of_this_thread();
    for (name, test) in [
        ("killed_at_any_moment_a_process_is_gone_with_its_mounts", killed as fn()),
        (
            "a_killed_browser_leaves_a_mount_that_the_next_one_clears",
            killed_browser,
        ),
        ("moving_the_root_of_the_serving_process_changes_nothing", || {
            run_role("pivot-data-only", &scratch());
            run_role("pivot-plain", &scratch());
        }),
        ("everything_but_passthrough_works_in_a_user_namespace", || {
            run_role("user", &scratch())
        }),
        ("the_namespace_is_left_before_threads_start_or_not_at_all", too_late),
    ] {
        println!("test {name} …");
        test();
    }
    println!("ok");
    ExitCode::SUCCESS
}

fn scratch() -> tempfile::TempDir {
    tempfile::TempDir::with_prefix("cbs-fuse-").expect("make a folder")
}

/// A role being played; killed when the test fails.
struct Role(Child);

impl Drop for Role {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(role: &str, folder: &tempfile::TempDir) -> Role {
    let child = Command::new(std::env::current_exe().expect("own path"))
        .arg(format!("--role={role}"))
        .arg(folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start");
    Role(child)
}

fn run_role(name: &str, folder: &tempfile::TempDir) {
    let status = start(name, folder).0.wait().expect("wait");
    assert!(status.success(), "{name}: {status}");
}

/// Waits until a role says that it is ready.
fn wait_ready(role: &mut Role) {
    let mut line = String::new();
    BufReader::new(role.0.stdout.as_mut().expect("piped"))
        .read_line(&mut line)
        .expect("read");
    assert_eq!(line, "ready\n");
}

fn say_ready() {
    println!("ready");
    std::io::stdout().flush().expect("flush");
}

fn mounts_below(folder: &Path) -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let below = |line: &&str| line.contains(&folder.display().to_string());
    mounts.lines().filter(below).map(str::to_owned).collect()
}

/// Kills it and insists that it really goes.
fn kill(mut role: Role) {
    role.0.kill().expect("kill");
    let end = Instant::now() + PATIENCE;
    while role.0.try_wait().expect("wait").is_none() {
        assert!(Instant::now() < end, "process {} cannot be killed", role.0.id());
        thread::sleep(Duration::from_millis(2));
    }
}

fn killed() {
    for round in 0..25 {
        let folder = scratch();
        let mut child = start("busy", &folder);
        wait_ready(&mut child);
        thread::sleep(Duration::from_micros(1_700 * round));
        kill(child);
        assert_eq!(mounts_below(folder.path()), Vec::<String>::new());
        let path = folder.path().to_owned();
        folder.close().expect("nothing holds the folder");
        assert!(!path.exists());
    }
}

/// Uses its own mount in every way there is, without end.
fn busy(world: &World) {
    let files: Vec<_> = (0..40)
        .map(|n| world.file(format!("f{n}"), &noise(1000 * n, n as u64)))
        .collect();
    let below = world.put(files.clone());
    let trees: Vec<_> = (0..50)
        .map(|n| {
            let mut entries = files.clone();
            entries.push(world.file("number", format!("{n}").as_bytes()));
            entries.push(entry("below", 0o755, Node::Directory(below)));
            world.put_root(entries)
        })
        .collect();
    let run = world.run(LowerMode::DataOnly);
    let run = &run;
    thread::scope(|scope| {
        scope.spawn(move || {
            for n in 0_u64.. {
                // Never cached at the root of the mount.
                assert!(!run.mountpoint().join(format!("{n}")).exists());
            }
        });
        scope.spawn(move || {
            for n in 0_usize.. {
                let view = run.view(trees[n % trees.len()]);
                let overlay = world.overlay(&view, &format!("o{n}"));
                for name in ["f1", "below/f30", "missing"] {
                    let _ = fs::read(overlay.merged.join(name));
                }
                if n == 0 {
                    say_ready();
                }
            }
        });
    });
}

fn killed_browser() {
    let folder = scratch();
    for _ in 0..3 {
        let mut child = start("browse", &folder);
        wait_ready(&mut child);
        let mount = folder.path().join("browse");
        assert_eq!(fs::read(mount.join("name/file")).expect("read"), b"seen");
        assert_eq!(mounts_below(folder.path()).len(), 1);
        kill(child);
        let err = fs::metadata(mount.join("name")).expect_err("nobody serves it");
        assert_eq!(err.kind(), std::io::ErrorKind::NotConnected);
    }
    shell(&format!("umount '{}'", folder.path().join("browse").display()));
}

struct OneName(TreeDigest);

impl BrowseRoots for OneName {
    fn list(&self) -> Result<Vec<(Vec<u8>, TreeDigest)>, StoreError> {
        Ok(vec![(b"name".to_vec(), self.0)])
    }
}

fn mount_browse(world: &World, tree: TreeDigest) -> BrowseMount {
    let mountpoint = world.path("browse");
    // A dead mount cannot even be looked at.
    let _ = fs::create_dir(&mountpoint);
    BrowseMount::mount(BrowseConfig {
        store: Arc::clone(&world.store) as Arc<dyn cbs_store::ContentStore>,
        blobs: world.path("blobs"),
        mountpoint,
        roots: Box::new(OneName(tree)),
        threads: NonZeroUsize::new(2).expect("not zero"),
    })
    .expect("mount")
}

fn browse(world: &World) {
    let tree = world.put_root(vec![world.file("file", b"seen")]);
    let mount = mount_browse(world, tree);
    say_ready();
    mount.wait();
}

/// `pivot_root` moves the root of every thread in the namespace, so of the serving ones too.
fn pivot(world: &World, mode: LowerMode) {
    let (small, large) = (noise(100, 1), noise(1_000_000, 2));
    let entries = |seed: &[u8]| {
        vec![
            world.file("small", &[&small, seed].concat()),
            world.file("large", &[&large, seed].concat()),
            entry("old", 0o755, Node::Directory(world.put(Vec::new()))),
        ]
    };
    let trees = [world.put_root(entries(b"0")), world.put_root(entries(b"1"))];
    let run = world.run(mode);
    let views = trees.map(|tree| run.view(tree));
    let overlays: Vec<_> = views
        .iter()
        .enumerate()
        .map(|(n, view)| world.overlay(view, &format!("{mode:?}{n}")))
        .collect();
    // Its files are opened when the root has moved.
    let other = File::open(&overlays[1].merged).expect("open");
    std::env::set_current_dir(&overlays[0].merged).expect("chdir");
    rustix::process::pivot_root(".", "old").expect("pivot_root");
    std::env::set_current_dir("/").expect("chdir");
    assert!(fs::read("/small").expect("read") == [&small[..], b"0"].concat());
    assert!(fs::read("/large").expect("read") == [&large[..], b"0"].concat());
    for (name, bytes) in [("small", &small), ("large", &large)] {
        let file = rustix::fs::openat(&other, name, rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty());
        let mut got = Vec::new();
        File::from(file.expect("open")).read_to_end(&mut got).expect("read");
        assert!(got == [&bytes[..], b"1"].concat(), "{name}");
    }
    assert_eq!(run.take_failure().map(|err| err.to_string()), None);
    // There is no way back to the old root: the namespace goes with the process.
    std::process::exit(0);
}

fn user(world: &World) {
    assert_eq!(Privilege::detect(), Privilege::UserNamespace);
    let scratch = world.folder("scratch");
    assert_eq!(
        probe(&scratch, Privilege::UserNamespace).expect("probe"),
        LowerMode::DataOnly
    );
    let large = noise(1_000_000, 1);
    let mut opaque = entry(
        "dir",
        0o755,
        Node::Directory(world.put(vec![world.file("inner", b"inner")])),
    );
    opaque.meta.xattrs = vec![(b"user.overlay.opaque".to_vec(), b"y".to_vec())];
    let program = fs::read("/bin/true").expect("read");
    let mut program = world.file("true", &program);
    program.meta.mode = 0o755;
    let tree = world.put_root(vec![
        world.file("large", &large),
        world.file("small", b"small"),
        opaque,
        program,
    ]);
    for mode in [LowerMode::DataOnly, LowerMode::Plain] {
        let run = world.run(mode);
        let view = run.view(tree);
        assert_eq!(view.xattrs(), OverlayXattrs::User);
        let overlay = world.overlay(&view, &format!("{mode:?}"));
        let root = &overlay.merged;
        assert!(fs::read(root.join("large")).expect("read") == large);
        if mode == LowerMode::DataOnly {
            assert_eq!(run.counts().read, 0);
        }
        assert_eq!(fs::read(root.join("dir/inner")).expect("read"), b"inner");
        shell(&format!(
            "cd '{}'; ./true; echo more >> large; rm small; rm -r dir; mkdir dir; chmod 755 .; mknod p p",
            root.display()
        ));
        assert_eq!(
            fs::metadata(overlay.upper.join("large")).expect("copied up").len(),
            1_000_005
        );
        let mark = common::xattr(&overlay.upper.join("dir"), b"user.overlay.opaque");
        assert_eq!(mark, Some(b"y".to_vec()));
    }
    // Passthrough is refused at the first open, and then the bytes come through us.
    let mount = mount_browse(world, tree);
    assert!(fs::read(mount.mountpoint().join("name/large")).expect("read") == large);
    assert!(fs::read(mount.mountpoint().join("name/large")).expect("read again") == large);
    assert!(!mount.passthrough());
    assert!(mount.counts().read > 0);
}

fn too_late() {
    let result = thread::spawn(enter_private_namespace).join().expect("no panic");
    assert!(
        matches!(result, Err(FuseError::NotSingleThreaded { threads: 2 })),
        "{result:?}"
    );
}
