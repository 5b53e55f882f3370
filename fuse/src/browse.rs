//! The mount that people look at: `cbs mount DIR`.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cbs_store::{ContentStore, Directory, Entry, KnownIds, Metadata, Node, StoreError, TreeDigest};

use crate::mount::Trust;
use crate::nodes::NodeTable;
use crate::run::start;
use crate::session::{Mounting, Passthrough, Session, SessionConfig};
use crate::shared::Shared;
use crate::store_link::StoreSide;
use crate::tree_fs::{Parts, Purpose};
use crate::xattrs::Presentation;
use crate::{DEFAULT_ENTRY_BUDGET, FuseError, RequestCounts, mount};

/// The names at the root of a browsing mount, beside the digests. They may change while it is mounted.
pub trait BrowseRoots: Send + Sync {
    /// All names and the trees they lead to. Names that no directory can hold have to be rewritten or left out.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read; the mount then shows an input/output error.
    fn list(&self) -> Result<Vec<(Vec<u8>, TreeDigest)>, StoreError>;

    /// The tree of one name, `None` when there is no such name.
    ///
    /// # Errors
    /// As [`BrowseRoots::list`].
    fn find(&self, name: &[u8]) -> Result<Option<TreeDigest>, StoreError> {
        let mut roots = self.list()?.into_iter();
        Ok(roots.find_map(|(known, tree)| (known == name).then_some(tree)))
    }
}

/// How a [`BrowseMount`] is made.
pub struct BrowseConfig {
    /// Where the trees are.
    pub store: Arc<dyn ContentStore>,
    /// The folder of its large blob files.
    pub blobs: PathBuf,
    /// An existing directory to mount on. The mount is seen by everyone who shares the caller's mount namespace, and used
    /// by everyone if root mounts it, else by the user alone. What a killed process left mounted there is taken off first.
    pub mountpoint: PathBuf,
    /// What its root lists.
    pub roots: Box<dyn BrowseRoots>,
    /// How many threads serve; [`default_threads`](crate::default_threads) is a good number.
    pub threads: NonZeroUsize,
}

/// One mount with every tree of a store below its digest, and names as links to them. Dropping it unmounts.
///
/// Who is not root mounts with `fusermount3`. Set-user-id programs and device nodes in it do not work.
///
/// Where the kernel allows it (Linux 6.9, root of the machine), large files are read by the kernel straight from the
/// blob files.
#[derive(Debug)]
pub struct BrowseMount {
    session: Session,
    shared: Arc<Shared>,
}

impl BrowseMount {
    /// Mounts it and starts to serve.
    ///
    /// # Errors
    /// As [`RunMount::mount`](crate::RunMount::mount).
    pub fn mount(config: BrowseConfig) -> Result<Self, FuseError> {
        mount::clear_dead_mount(&config.mountpoint);
        let shared = Arc::new(Shared::default());
        let side = StoreSide {
            store: config.store,
            roots: Some(config.roots),
        };
        let parts = Parts {
            purpose: Purpose::Browse,
            presentation: Presentation::Plain,
            blobs: config.blobs,
            entry_budget: DEFAULT_ENTRY_BUDGET,
            images: None,
            shared: Arc::clone(&shared),
            nodes: Arc::new(NodeTable::default()),
        };
        let session_config = SessionConfig {
            mountpoint: config.mountpoint,
            threads: config.threads,
            passthrough: Passthrough::Try,
            trust: Trust::None,
            owners: KnownIds::all(),
            by: Mounting::AsUsersMay,
        };
        Ok(Self {
            session: start(session_config, side, parts)?,
            shared,
        })
    }

    /// Waits until somebody unmounts it.
    pub fn wait(&self) {
        self.session.wait();
    }

    /// Where it is mounted.
    pub fn mountpoint(&self) -> &Path {
        self.session.mountpoint()
    }

    /// Whether the kernel reads large files by itself, as far as is known: it may refuse at the first open.
    pub fn passthrough(&self) -> bool {
        self.session.passthrough()
    }

    /// Requests answered so far.
    pub fn counts(&self) -> RequestCounts {
        self.shared.counters.snapshot()
    }

    /// The first failure of the store since this was last asked. Programs in the mount only saw an input/output error.
    pub fn take_failure(&self) -> Option<StoreError> {
        self.shared.take_failure()
    }
}

/// A directory that holds one link, from a name to a tree.
pub(crate) fn link_entry(name: &[u8], tree: TreeDigest) -> Directory {
    Directory {
        entries: vec![Entry {
            name: name.to_vec(),
            meta: Metadata::new(0o777),
            node: Node::Symlink(tree.to_string().into_bytes()),
        }],
        ..Directory::default()
    }
}
