//! The mount for people.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::num::NonZeroUsize;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::{Arc, Mutex};

use cbs_fuse::{BrowseConfig, BrowseMount, BrowseRoots};
use cbs_store::{Node, StoreError, TreeDigest};

use crate::common::{World, entry, noise, shell, shell_output};

type NameList = Vec<(Vec<u8>, TreeDigest)>;

#[derive(Clone, Debug, Default)]
struct Names(Arc<Mutex<NameList>>);

impl BrowseRoots for Names {
    fn list(&self) -> Result<NameList, StoreError> {
        Ok(self.0.lock().expect("unpoisoned").clone())
    }
}

impl Names {
    fn set(&self, names: &[(&str, TreeDigest)]) {
        *self.0.lock().expect("unpoisoned") = names
            .iter()
            .map(|(name, tree)| (name.as_bytes().to_vec(), *tree))
            .collect();
    }
}

fn browse(world: &World, names: &Names) -> BrowseMount {
    BrowseMount::mount(BrowseConfig {
        store: Arc::clone(&world.store) as Arc<dyn cbs_store::ContentStore>,
        blobs: world.path("blobs"),
        mountpoint: world.folder("browse"),
        roots: Box::new(names.clone()),
        threads: NonZeroUsize::new(2).expect("not zero"),
    })
    .expect("mount")
}

fn is_mounted(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").expect("mountinfo");
    mounts.contains(&format!(" {} ", path.display()))
}

#[test]
fn names_lead_to_trees_and_may_change_needs_root() {
    let Some(world) = World::new() else { return };
    let first = world.put_root(vec![world.file("file", b"first")]);
    let second = world.put_root(vec![world.file("file", b"second")]);
    let names = Names::default();
    names.set(&[("app", first), ("bake.hcl#release", second)]);
    let mount = browse(&world, &names);
    let root = mount.mountpoint().to_owned();
    assert_eq!(shell(&format!("ls '{}'", root.display())), "app\nbake.hcl#release\n");
    assert_eq!(fs::read(root.join("app/file")).expect("read"), b"first");
    assert_eq!(fs::read(root.join(format!("{second}/file"))).expect("read"), b"second");
    assert_eq!(
        fs::read_link(root.join("app")).expect("link"),
        Path::new(&first.to_string())
    );
    assert!(!root.join("new").exists());
    names.set(&[("app", second), ("new", first)]);
    assert_eq!(fs::read(root.join("app/file")).expect("read"), b"second");
    assert_eq!(fs::read(root.join("new/file")).expect("read"), b"first");
    assert_eq!(shell(&format!("ls '{}'", root.display())), "app\nnew\n");
    assert!(!root.join("bake.hcl#release").exists());
    assert!(!root.join("0".repeat(64)).exists());

    assert!(is_mounted(&root));
    let mounts = fs::read_to_string("/proc/thread-self/mounts").expect("mounts");
    let options = mounts
        .lines()
        .find(|line| line.contains(&*root.to_string_lossy()))
        .expect("our mount");
    assert!(
        options.contains("fuse.cbs ro,nosuid,nodev,noatime"),
        "anybody may have made these trees: {options}"
    );
    drop(mount);
    assert!(!is_mounted(&root));
    fs::remove_dir(&root).expect("nothing is left");
}

#[test]
fn the_kernel_reads_large_files_by_itself_needs_root() {
    let Some(world) = World::new() else { return };
    let (large, small) = (noise(3_000_000, 1), noise(1000, 2));
    let tree = world.put_root(vec![world.file("large", &large), world.file("small", &small)]);
    let mount = browse(&world, &Names::default());
    let root = mount.mountpoint().join(tree.to_string());
    let mut first = File::open(root.join("large")).expect("open");
    // A second open while the first lasts: needs the same registration.
    let second = File::open(root.join("large")).expect("second open");
    let mut bytes = Vec::new();
    first.read_to_end(&mut bytes).expect("read");
    assert!(bytes == large);
    let mut piece = vec![0; 5000];
    second.read_exact_at(&mut piece, 1_234_567).expect("read at");
    assert!(piece == large[1_234_567..1_239_567]);
    assert!(mount.passthrough(), "root of the machine may");
    assert_eq!(mount.counts().read, 0);
    drop(first);
    drop(second);
    let mut again = File::open(root.join("large")).expect("third open");
    again.seek(SeekFrom::End(-3)).expect("seek");
    assert_eq!(again.read_to_end(&mut Vec::new()).expect("read"), 3);
    assert!(fs::read(root.join("small")).expect("read") == small);
    assert_eq!(mount.counts().read, 1);
    for name in ["large", "small"] {
        let err = OpenOptions::new()
            .append(true)
            .open(root.join(name))
            .expect_err("read-only");
        assert_eq!(err.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    }
    shell(&format!(
        "cmp '{0}/large' '{0}/large'; sha256sum '{0}/large' '{0}/large' > /dev/null",
        root.display()
    ));
    assert_eq!(mount.counts().read, 1);
}

#[test]
fn layers_show_their_whiteouts_needs_root() {
    let Some(world) = World::new() else { return };
    let tree = world.put_root(vec![entry("gone", 0, Node::Whiteout), world.file("file", b"x")]);
    let mount = browse(&world, &Names::default());
    let stat = fs::symlink_metadata(mount.mountpoint().join(format!("{tree}/gone"))).expect("stat");
    assert!(stat.file_type().is_char_device());
    assert_eq!((stat.rdev(), stat.mode() & 0o7777), (0, 0));
}

#[test]
fn somebody_else_may_unmount_it_needs_root() {
    let Some(world) = World::new() else { return };
    let mount = browse(&world, &Names::default());
    let path = mount.mountpoint().to_owned();
    assert!(!shell_output(&format!("touch '{}/x'", path.display())).status.success());
    shell(&format!("umount '{}'", path.display()));
    mount.wait();
    drop(mount);
    drop(browse(&world, &Names::default()));
    assert!(!is_mounted(&path));
}
