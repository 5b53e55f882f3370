//! The images of trees that are used much: kept in a folder from process to process, mounted once in each.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::SystemTime;

use cbs_store::{ContentStore, TreeDigest};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};

use crate::image::{ImageError, write_image};
use crate::mount;
use crate::sync::lock;

/// The end of an image's name; it changes with what we write into images.
const SUFFIX: &str = ".1.erofs";
/// An image is made of no tree with more entries.
const MOST_ENTRIES: u64 = 4 << 20;
/// Fewer questions than this are never worth an image.
const LEAST_QUESTIONS: u64 = 2048;

/// Where images are kept.
#[derive(Clone, Debug)]
pub struct ImageConfig {
    /// A folder that outlives the process, on a disk file system. All in it can be made again: removing a file there
    /// harms nobody, not even those who use it.
    pub folder: PathBuf,
    /// An empty folder of this process, to mount images in.
    pub mounts: PathBuf,
    /// Bytes of disk they may take together; the longest unused go first.
    pub budget: u64,
}

/// Images as one mount sees them.
#[derive(Debug)]
pub(crate) struct Images {
    config: ImageConfig,
    mounted: Mutex<HashMap<TreeDigest, Arc<ImageMount>>>,
    wanted: Wanted,
    cancelled: Arc<AtomicBool>,
    maker: Option<JoinHandle<()>>,
}

/// A mounted image; unmounted with its last user.
#[derive(Debug)]
pub(crate) struct ImageMount {
    path: PathBuf,
}

/// Asks for images of trees; held by the serving threads.
#[derive(Clone, Debug)]
pub(crate) struct Wanted(Sender<Order>);

/// What the maker of images is told.
#[derive(Debug)]
enum Order {
    Make(TreeDigest),
    Stop,
}

impl Wanted {
    /// Asks for the image of a tree.
    pub(crate) fn want(&self, tree: TreeDigest) {
        // A maker that has ended makes no images; the tree is served without.
        let _ = self.0.send(Order::Make(tree));
    }
}

impl Images {
    /// Starts the thread that makes images. It runs at the lowest priority and ends with what this returns.
    pub(crate) fn start(config: ImageConfig, store: Arc<dyn ContentStore>) -> io::Result<(Self, Wanted)> {
        let (orders, asked) = channel();
        let wanted = Wanted(orders);
        let mut images = Self {
            config,
            mounted: Mutex::default(),
            wanted: wanted.clone(),
            cancelled: Arc::default(),
            maker: None,
        };
        let maker = Maker {
            config: images.config.clone(),
            store,
            cancelled: Arc::clone(&images.cancelled),
        };
        let thread = thread::Builder::new().name("cbs-fuse-image".to_owned());
        images.maker = Some(thread.spawn(move || maker.work(&asked))?);
        Ok((images, wanted))
    }

    /// Asks for the image of a tree.
    pub(crate) fn want(&self, tree: TreeDigest) {
        self.wanted.want(tree);
    }

    /// The mounted image of a tree, if it has one. An image that cannot be mounted is none.
    pub(crate) fn get(&self, tree: TreeDigest) -> Option<Arc<ImageMount>> {
        let mut mounted = lock(&self.mounted);
        if let Some(image) = mounted.get(&tree) {
            return Some(Arc::clone(image));
        }
        let file = image_path(&self.config.folder, tree);
        if !file.exists() {
            return None;
        }
        let path = self.config.mounts.join(tree.to_string());
        // An earlier attempt may have left it.
        let _ = fs::create_dir(&path);
        let attached = mount::erofs(&file)
            .ok()
            .and_then(|image| mount::attach(&image, &path).ok());
        if attached.is_none() {
            let _ = fs::remove_dir(&path);
            return None;
        }
        // Says when it was last used. If that fails it merely goes earlier.
        let _ = File::open(&file).and_then(|file| file.set_modified(SystemTime::now()));
        let image = Arc::new(ImageMount { path });
        mounted.insert(tree, Arc::clone(&image));
        Some(image)
    }
}

impl Drop for Images {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
        // The serving threads may ask for more, so the end of this handle alone would not end the maker.
        let _ = self.wanted.0.send(Order::Stop);
        if let Some(maker) = self.maker.take() {
            // A panic was said out loud when it happened.
            let _ = maker.join();
        }
    }
}

impl ImageMount {
    /// The root of the tree.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ImageMount {
    fn drop(&mut self) {
        // What is left is gone with the namespace.
        let _ = mount::detach(&self.path);
        let _ = fs::remove_dir(&self.path);
    }
}

/// How many questions about a tree are worth an image of it: as many as it has entries, since making it costs about as
/// much as being asked that often. `None` when no number is.
pub(crate) fn worth_an_image(entries: u64) -> Option<u64> {
    (entries <= MOST_ENTRIES).then_some(entries.max(LEAST_QUESTIONS))
}

/// What a file takes up; an image has holes.
fn disk_use(stat: &fs::Metadata) -> u64 {
    stat.blocks() * 512
}

fn image_path(folder: &Path, tree: TreeDigest) -> PathBuf {
    folder.join(format!("{tree}{SUFFIX}"))
}

/// Makes images, one after the other.
struct Maker {
    config: ImageConfig,
    store: Arc<dyn ContentStore>,
    cancelled: Arc<AtomicBool>,
}

impl Maker {
    fn work(&self, asked: &Receiver<Order>) {
        // On Linux this is about the calling thread only. Without it an image is made at the expense of others.
        let _ = rustix::process::setpriority_process(None, 19);
        while let Ok(Order::Make(tree)) = asked.recv() {
            if self.is_cancelled() {
                return;
            }
            // Nobody waits for an image: the tree is served without it, and asked for again another time.
            let _ = self.make(tree);
        }
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    fn make(&self, tree: TreeDigest) -> Result<(), ImageError> {
        let folder = &self.config.folder;
        let path = image_path(folder, tree);
        if path.exists() {
            return Ok(());
        }
        fs::create_dir_all(folder)?;
        // The file has no name before it is complete and on disk, so a killed process leaves nothing, and no loss of
        // power can leave half an image under a good name.
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR).map_err(io::Error::from)?);
        write_image(&*self.store, tree, &file, &|| self.is_cancelled())?;
        self.make_room(disk_use(&file.metadata()?))?;
        file.sync_data()?;
        match rustix::fs::linkat(&file, "", CWD, &path, AtFlags::EMPTY_PATH) {
            // Another process was faster.
            Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
            Err(err) => Err(ImageError::Io(err.into())),
        }
    }

    /// Removes the images unused for longest until there is room.
    fn make_room(&self, wanted: u64) -> io::Result<()> {
        let mut images = Vec::new();
        for entry in fs::read_dir(&self.config.folder)? {
            let entry = entry?;
            if entry.path().extension().is_some_and(|extension| extension == "erofs") {
                let stat = entry.metadata()?;
                images.push((stat.modified()?, disk_use(&stat), entry.path()));
            }
        }
        let mut total: u64 = images.iter().map(|(_, size, _)| size).sum();
        images.sort();
        for (_, size, path) in images {
            if total + wanted <= self.config.budget {
                break;
            }
            // Another process may have removed it.
            let _ = fs::remove_file(path);
            total -= size;
        }
        Ok(())
    }
}
