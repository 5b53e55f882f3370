//! The mount that containers stand on.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cbs_store::{ContentStore, KnownIds, StoreError, TreeDigest};

use crate::content::Content;
use crate::images::{ImageConfig, ImageMount, Images};
use crate::mount::Trust;
use crate::nodes::NodeTable;
use crate::root_key::RootKey;
use crate::session::{Mounting, Notices, Passthrough, Session, SessionConfig};
use crate::shared::Shared;
use crate::store_link::{StoreLink, StoreSide};
use crate::tree_fs::{Parts, Purpose, TreeFs};
use crate::xattrs::Presentation;
use crate::{FuseError, Observer, OverlayXattrs, Privilege, RequestCounts};

/// Threads that wait for the store on behalf of the serving ones.
pub(crate) const STORE_WORKERS: usize = 2;

/// How an overlay above a mount gets at the bytes of large files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LowerMode {
    /// From the blob files themselves, a data-only layer: as fast as without FUSE. Needs Linux 6.5, in a user
    /// namespace 6.16; [`probe`](crate::probe) finds out.
    DataOnly,
    /// Through FUSE, as the small ones.
    Plain,
}

/// How a [`RunMount`] is made.
#[derive(Clone)]
pub struct RunConfig {
    /// Where the trees are.
    pub store: Arc<dyn ContentStore>,
    /// The folder of its large blob files.
    pub blobs: PathBuf,
    /// An existing directory to mount on, best in a namespace of our own
    /// ([`enter_private_namespace`](crate::enter_private_namespace)).
    pub mountpoint: PathBuf,
    /// How overlays get at large files.
    pub mode: LowerMode,
    /// Who we are.
    pub privilege: Privilege,
    /// How many threads serve; [`default_threads`] is a good number.
    pub threads: NonZeroUsize,
    /// Where images of much used trees are kept, which make later overlays over the same tree as fast as over a
    /// directory. They only serve [`LowerMode::DataOnly`] as [`Privilege::Root`], and are ignored otherwise.
    pub images: Option<ImageConfig>,
    /// Entries the kernel may know of trees that are not in use, before the oldest are dropped. An entry takes about
    /// 250 bytes here and a kilobyte in the kernel; [`DEFAULT_ENTRY_BUDGET`] is a good number.
    pub entry_budget: u64,
    /// The owners files can have here; others are shown as root's, since the kernel would let nobody touch them.
    pub owners: KnownIds,
}

/// Entries that stay known on a machine of ordinary size: about 60 MB here.
pub const DEFAULT_ENTRY_BUDGET: u64 = 250_000;

/// At least 2, so that one slow answer does not stop the rest; at most 4, since more gain nothing.
pub fn default_threads() -> NonZeroUsize {
    let cpus = std::thread::available_parallelism().map_or(2, NonZeroUsize::get);
    NonZeroUsize::new(cpus.clamp(2, 4)).unwrap_or(NonZeroUsize::MIN)
}

/// One mount with every tree of a store below its digest. Dropping it unmounts.
#[derive(Debug)]
pub struct RunMount {
    session: Arc<Session>,
    shared: Arc<Shared>,
    nodes: Arc<NodeTable>,
    data_dir: Option<PathBuf>,
    xattrs: OverlayXattrs,
    images: Option<Images>,
}

/// A tree in a mount, to stand an overlay on. While it lives its nodes are kept.
#[derive(Debug)]
pub struct View {
    session: Arc<Session>,
    shared: Arc<Shared>,
    key: RootKey,
    path: PathBuf,
    image: Option<Arc<ImageMount>>,
    data_dir: Option<PathBuf>,
    xattrs: OverlayXattrs,
}

impl RunMount {
    /// Mounts it and starts to serve.
    ///
    /// # Errors
    /// [`FuseError::NoDevice`] where there is no FUSE, [`FuseError::Mount`] when mounting is refused,
    /// [`FuseError::Session`] when threads or the protocol fail.
    pub fn mount(config: RunConfig) -> Result<Self, FuseError> {
        let xattrs = match config.privilege {
            Privilege::Root => OverlayXattrs::Trusted,
            Privilege::UserNamespace => OverlayXattrs::User,
        };
        let presentation = match config.mode {
            LowerMode::DataOnly => Presentation::DataLayer(xattrs),
            LowerMode::Plain => Presentation::Layer(xattrs),
        };
        let (images, wanted) = match (config.images, config.mode, config.privilege) {
            (Some(images), LowerMode::DataOnly, Privilege::Root) => {
                let (images, wanted) =
                    Images::start(images, Arc::clone(&config.store)).map_err(FuseError::session("start a thread"))?;
                (Some(images), Some(wanted))
            }
            _ => (None, None),
        };
        let side = StoreSide {
            store: config.store,
            roots: None,
        };
        let session_config = SessionConfig {
            mountpoint: config.mountpoint,
            threads: config.threads,
            passthrough: Passthrough::Off,
            trust: Trust::Full,
            owners: config.owners,
            by: Mounting::Itself,
        };
        let shared = Arc::new(Shared::default());
        let nodes = Arc::new(NodeTable::default());
        let parts = Parts {
            purpose: Purpose::Run,
            presentation,
            blobs: config.blobs.clone(),
            entry_budget: config.entry_budget,
            images: wanted,
            shared: Arc::clone(&shared),
            nodes: Arc::clone(&nodes),
        };
        let session = start(session_config, side, parts)?;
        Ok(Self {
            session: Arc::new(session),
            shared,
            nodes,
            data_dir: (config.mode == LowerMode::DataOnly).then_some(config.blobs),
            xattrs,
            images,
        })
    }

    /// A tree. Whether the store has it shows when it is used.
    pub fn view(&self, tree: TreeDigest) -> View {
        let image = self.images.as_ref().and_then(|images| images.get(tree));
        self.view_of(self.shared.open_tree(tree), image)
    }

    /// A tree of which `observer` sees what is used. It shares no cache with other views, so that all first uses show.
    pub fn observed_view(&self, tree: TreeDigest, observer: Arc<dyn Observer>) -> View {
        self.view_of(self.shared.open_observed(tree, observer), None)
    }

    /// Has an image of a tree made in the background, without waiting until it is used much.
    pub fn want_image(&self, tree: TreeDigest) {
        if let Some(images) = &self.images {
            images.want(tree);
        }
    }

    fn view_of(&self, key: RootKey, image: Option<Arc<ImageMount>>) -> View {
        View {
            session: Arc::clone(&self.session),
            shared: Arc::clone(&self.shared),
            path: self.session.mountpoint().join(key.file_name()),
            key,
            image,
            data_dir: self.data_dir.clone(),
            xattrs: self.xattrs,
        }
    }

    /// Where it is mounted.
    pub fn mountpoint(&self) -> &Path {
        self.session.mountpoint()
    }

    /// Requests answered so far.
    pub fn counts(&self) -> RequestCounts {
        self.shared.counters.snapshot()
    }

    /// Entries of directories that the kernel may know, now.
    pub fn known_entries(&self) -> u64 {
        self.nodes.size().entries
    }

    /// The first failure of the store since this was last asked. Programs in the mount only saw an input/output error.
    pub fn take_failure(&self) -> Option<StoreError> {
        self.shared.take_failure()
    }
}

impl View {
    /// The directory that is the tree's root, for bind mounts and for reading.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory to put below overlays, and for nothing else: when the tree has an image it is that, where large
    /// files are empty unless [`View::data_dir`] is below it.
    pub fn lower_dir(&self) -> &Path {
        self.image.as_ref().map_or(&*self.path, |image| image.path())
    }

    /// What must be a data-only layer below it in every overlay (and must not be given to a plain one).
    pub fn data_dir(&self) -> Option<&Path> {
        self.data_dir.as_deref()
    }

    /// In which name space overlays over it keep their attributes.
    pub fn xattrs(&self) -> OverlayXattrs {
        self.xattrs
    }

    /// The value of overlayfs's `lowerdir` option for `mount(8)`: the tree and, after `::`, the data-only layer.
    pub fn lowerdir(&self) -> std::ffi::OsString {
        let mut text = escape(self.lower_dir());
        if let Some(data) = &self.data_dir {
            text.extend_from_slice(b"::");
            text.extend_from_slice(&escape(data));
        }
        std::os::unix::ffi::OsStringExt::from_vec(text)
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.shared.close(&self.key);
        // A plain tree stays cached for the next step over it; nobody can come back to an observed one.
        if matches!(self.key, RootKey::Observed(..)) {
            self.session.forget_root(self.key.name());
        }
    }
}

/// Escapes what separates layers and options in `lowerdir`.
fn escape(path: &Path) -> Vec<u8> {
    let mut text = Vec::new();
    for &byte in std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()) {
        if matches!(byte, b':' | b',' | b'\\') {
            text.push(b'\\');
        }
        text.push(byte);
    }
    text
}

/// Starts to serve trees.
pub(crate) fn start(config: SessionConfig, side: StoreSide, parts: Parts) -> Result<Session, FuseError> {
    let (link, workers) = StoreLink::start(side, STORE_WORKERS).map_err(FuseError::session("start a thread"))?;
    Session::start(config, workers, move |notices: Notices| {
        let content = Content::open(link, &parts.blobs, Arc::clone(&parts.shared))
            .map_err(FuseError::mount("open the blobs in", &parts.blobs))?;
        Ok(TreeFs::new(parts, content, notices))
    })
}

impl std::fmt::Debug for RunConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunConfig")
            .field("blobs", &self.blobs)
            .field("mountpoint", &self.mountpoint)
            .field("mode", &self.mode)
            .field("privilege", &self.privilege)
            .field("threads", &self.threads)
            .field("entry_budget", &self.entry_budget)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_can_be_shared_between_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<RunMount>();
        shared::<View>();
        shared::<crate::BrowseMount>();
    }
}
