//! Serving a mount through fuser: the one file that names it.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use cbs_store::{KnownIds, Timestamp};
use fuser::{
    BackingId, Config, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, Notifier, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyXattr, Request, SessionACL,
};
use rustix::io::Errno;

use crate::backing::BackingTable;
use crate::mount::Trust;
use crate::server::{Attributes, Fit, Found, Keep, Kind, Listing, ListingSink, NodeId, Opened, Server};
use crate::sync::Once;
use crate::{FuseError, fusermount, mount, sys};

/// For ever, as far as the kernel is concerned.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Requests in flight that nobody waits for (read-ahead).
const MAX_BACKGROUND: u16 = 64;
/// Largest piece the kernel may ask for.
const MAX_PIECE: u32 = 1 << 20;
/// How long dropping a mount waits for its last user.
const LAST_USER: Duration = Duration::from_millis(500);
/// The handle of a file the kernel reads by itself, as against [`PLAIN`].
const BACKED: FileHandle = FileHandle(1);
/// The handle of a file whose reads come to us.
const PLAIN: FileHandle = FileHandle(0);

/// Whether the kernel may be asked to read files by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passthrough {
    /// Never.
    Off,
    /// When it can and may.
    Try,
}

/// How a mount is served.
#[derive(Clone, Debug)]
pub(crate) struct SessionConfig {
    pub(crate) mountpoint: PathBuf,
    pub(crate) threads: NonZeroUsize,
    pub(crate) passthrough: Passthrough,
    pub(crate) trust: Trust,
    /// The owners files can have here; others are shown as root's.
    pub(crate) owners: KnownIds,
    pub(crate) by: Mounting,
}

/// Who asks the kernel for a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mounting {
    /// This process, which must be root of its namespaces.
    Itself,
    /// This process, or the program that does it for users.
    AsUsersMay,
}

/// Names at the root of the mount that the kernel shall forget.
pub(crate) type Notices = Sender<Vec<u8>>;

/// A mount being served. Dropping it takes the mount off; those still using it are served until they end.
#[derive(Debug)]
pub(crate) struct Session {
    mountpoint: PathBuf,
    notices: Notices,
    passthrough: Arc<AtomicBool>,
    finished: Arc<Once>,
    /// Threads that work for the serving ones and end after them.
    helpers: Vec<JoinHandle<()>>,
}

impl Session {
    /// Mounts and serves what `build` makes; it runs on the serving side, with the descriptor table of that side.
    /// `helpers` end when what was built is dropped.
    pub(crate) fn start<S: Server>(
        config: SessionConfig,
        helpers: Vec<JoinHandle<()>>,
        build: impl FnOnce(Notices) -> Result<S, FuseError> + Send + 'static,
    ) -> Result<Self, FuseError> {
        let (notices, wanted) = channel();
        let (ready, is_ready) = channel();
        let finished = Arc::new(Once::default());
        let finish = Arc::clone(&finished);
        let passthrough = Arc::new(AtomicBool::new(false));
        let session = Self {
            mountpoint: config.mountpoint.clone(),
            notices: notices.clone(),
            passthrough: Arc::clone(&passthrough),
            finished,
            helpers,
        };
        let serve = move || {
            match prepare(&config, passthrough, || build(notices)) {
                Ok(prepared) => {
                    start_notifier(prepared.notifier(), wanted);
                    // The receiver waits for exactly this message.
                    let _ = ready.send(Ok(()));
                    // How a session ended is of no interest once the mount is gone.
                    let _ = prepared.run();
                }
                Err(err) => {
                    let _ = ready.send(Err(err));
                }
            }
            finish.happen();
        };
        thread::Builder::new()
            .name("cbs-fuse".to_owned())
            .spawn(serve)
            .map_err(FuseError::session("start a thread"))?;
        match is_ready.recv() {
            Ok(Ok(())) => Ok(session),
            Ok(Err(err)) => Err(err),
            Err(err) => Err(FuseError::session("start serving")(io::Error::other(err))),
        }
    }

    /// Where it is mounted.
    pub(crate) fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// Makes the kernel forget a name at the root and all it keeps below it.
    pub(crate) fn forget_root(&self, name: Vec<u8>) {
        // A session that has ended has nothing to forget.
        let _ = self.notices.send(name);
    }

    /// Whether the kernel reads large files by itself.
    pub(crate) fn passthrough(&self) -> bool {
        self.passthrough.load(Ordering::Relaxed)
    }

    /// Waits until somebody takes the mount off.
    pub(crate) fn wait(&self) {
        self.finished.wait();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.finished.has_happened() {
            // Somebody else may have taken it off; there is nobody to tell.
            let _ = mount::detach(&self.mountpoint);
            // A container may still stand on it: its requests are answered for as long as this process lives.
            self.finished.wait_for(LAST_USER);
        }
        if self.finished.has_happened() {
            // What they hold, such as the store, is to be free when we are gone.
            for helper in self.helpers.drain(..) {
                // A panic was said out loud when it happened.
                let _ = helper.join();
            }
        }
    }
}

/// Mounts, on the serving side.
fn prepare<S: Server>(
    config: &SessionConfig,
    passthrough: Arc<AtomicBool>,
    build: impl FnOnce() -> Result<S, FuseError>,
) -> Result<fuser::Session<Adapter<S>>, FuseError> {
    sys::private_descriptor_table().map_err(FuseError::session("take a descriptor table"))?;
    let (device, mounted) = match mount_itself(config) {
        Ok((device, mounted)) => (device, Some(mounted)),
        Err(err) if config.by == Mounting::Itself || rustix::process::geteuid().is_root() => return Err(err),
        Err(_) => (fusermount::mount(&config.mountpoint)?, None),
    };
    let adapter = Adapter {
        server: build()?,
        try_passthrough: config.passthrough == Passthrough::Try,
        passthrough,
        owners: config.owners.clone(),
        backing: BackingTable::default(),
    };
    let mut options = Config::default();
    options.acl = SessionACL::All;
    options.n_threads = Some(config.threads.get());
    options.clone_fd = true;
    let session = fuser::Session::from_fd(adapter, OwnedFd::from(device), SessionACL::All, options)
        .map_err(FuseError::session("agree on the protocol"))?;
    if let Some(mounted) = mounted {
        mount::attach(&mounted, &config.mountpoint)?;
    }
    Ok(session)
}

fn mount_itself(config: &SessionConfig) -> Result<(File, OwnedFd), FuseError> {
    let device = open_device()?;
    let mounted = mount::fuse(&device, config.trust).map_err(FuseError::mount("mount fuse on", &config.mountpoint))?;
    Ok((device, mounted))
}

fn open_device() -> Result<File, FuseError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .map_err(|source| FuseError::NoDevice { source })
}

/// Forgetting names has a thread of its own: the kernel locks the root for it, which a lookup that waits for a serving
/// thread may hold. It ends with the session.
fn start_notifier(notifier: Notifier, wanted: Receiver<Vec<u8>>) {
    let forget = move || {
        for name in wanted {
            // The kernel may have dropped the name by itself, or the mount may be gone.
            let _ = notifier.inval_entry(INodeNo::ROOT, OsStr::from_bytes(&name));
        }
    };
    // Without it the kernel keeps more than it needs to, no more than that.
    let _ = thread::Builder::new().name("cbs-fuse-forget".to_owned()).spawn(forget);
}

/// A [`Server`] as fuser wants it.
struct Adapter<S> {
    server: S,
    try_passthrough: bool,
    /// Whether the kernel agreed to it and has not refused it since.
    passthrough: Arc<AtomicBool>,
    owners: KnownIds,
    backing: BackingTable<BackingId>,
}

impl<S: Server> Filesystem for Adapter<S> {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = [
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_NO_OPEN_SUPPORT,
            InitFlags::FUSE_NO_OPENDIR_SUPPORT,
            InitFlags::FUSE_EXPLICIT_INVAL_DATA,
            InitFlags::FUSE_ABORT_ERROR,
        ];
        for flag in wanted {
            // What an older kernel lacks costs time, not correctness.
            let _ = config.add_capabilities(flag);
        }
        let _ = config.set_max_background(MAX_BACKGROUND);
        let _ = config.set_max_write(MAX_PIECE);
        if self.try_passthrough
            && config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok()
            && config.set_max_stack_depth(1).is_ok()
        {
            self.passthrough.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.server.lookup(NodeId(parent.0), name.as_bytes()) {
            Ok(Found::Node(attributes, keep)) => {
                let attr = file_attr(&attributes, &self.owners);
                reply.entry_with_ttls(&FOREVER, &lifetime(keep), &attr, Generation(0));
            }
            // Node zero is how the protocol says "nothing, and remember that".
            Ok(Found::Nothing(Keep::Forever)) => reply.entry(&FOREVER, &self.nothing(), Generation(0)),
            Ok(Found::Nothing(Keep::Never)) => reply.error(fuser::Errno::ENOENT),
            Err(err) => reply.error(errno(err)),
        }
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.server.forget(NodeId(ino.0), nlookup);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.server.attributes(NodeId(ino.0)) {
            Ok(attributes) => reply.attr(&FOREVER, &file_attr(&attributes, &self.owners)),
            Err(err) => reply.error(errno(err)),
        }
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        match self.server.read_link(NodeId(ino.0)) {
            Ok(target) => reply.data(target.as_ref()),
            Err(err) => reply.error(errno(err)),
        }
    }

    fn open(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let flags = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH;
        let node = NodeId(ino.0);
        let file = match self.server.open(node) {
            Ok(Opened::Backed(file)) if self.passthrough.load(Ordering::Relaxed) => file,
            Ok(_) => return reply.opened(PLAIN, flags),
            Err(err) => return reply.error(errno(err)),
        };
        // The reply is both what registers a file and what the answer goes to, but only one of the two happens last.
        let reply = std::cell::Cell::new(Some(reply));
        let register = || {
            let asked = reply.take().ok_or_else(|| io::Error::from(Errno::IO))?;
            let registered = asked.open_backing(file.descriptor());
            reply.set(Some(asked));
            registered
        };
        let answer = |id: &BackingId| {
            if let Some(reply) = reply.take() {
                reply.opened_passthrough(BACKED, FopenFlags::FOPEN_NOFLUSH, id);
            }
        };
        if self.backing.open(node, register, answer).is_err() {
            // Not allowed here (a user namespace), or not on this file system: never try again.
            self.passthrough.store(false, Ordering::Relaxed);
            if let Some(reply) = reply.take() {
                reply.opened(PLAIN, flags);
            }
        }
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.server.read(NodeId(ino.0), offset, size as usize) {
            Ok(bytes) => reply.data(bytes.as_ref()),
            Err(err) => reply.error(errno(err)),
        }
    }

    fn release(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        if fh == BACKED {
            self.backing.close(NodeId(ino.0));
        }
        reply.ok();
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.server.open_directory(NodeId(ino.0)) {
            Ok(Keep::Forever) => reply.opened(PLAIN, FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR),
            Ok(Keep::Never) => reply.opened(PLAIN, FopenFlags::empty()),
            Err(err) => reply.error(errno(err)),
        }
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, reply: ReplyDirectory) {
        let mut sink = NamesSink(reply);
        match self.server.list(NodeId(ino.0), offset, Listing::Names, &mut sink) {
            Ok(()) => sink.0.ok(),
            Err(err) => sink.0.error(errno(err)),
        }
    }

    fn readdirplus(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, reply: ReplyDirectoryPlus) {
        let mut sink = PlusSink(reply, &self.owners);
        match self.server.list(NodeId(ino.0), offset, Listing::Plus, &mut sink) {
            Ok(()) => sink.0.ok(),
            Err(err) => sink.0.error(errno(err)),
        }
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        reply_xattr(self.server.xattr(NodeId(ino.0), name.as_bytes()), size, reply);
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        reply_xattr(self.server.xattr_names(NodeId(ino.0)), size, reply);
    }
}

/// A listing of names.
struct NamesSink(ReplyDirectory);

impl ListingSink for NamesSink {
    fn add(&mut self, name: &[u8], attributes: &Attributes, _keep: Keep, next: u64) -> Fit {
        let (node, kind) = (INodeNo(attributes.node.0), file_type(attributes.kind));
        fit(self.0.add(node, next, kind, OsStr::from_bytes(name)))
    }
}

/// A listing with attributes.
struct PlusSink<'a>(ReplyDirectoryPlus, &'a KnownIds);

impl ListingSink for PlusSink<'_> {
    fn add(&mut self, name: &[u8], attributes: &Attributes, keep: Keep, next: u64) -> Fit {
        let (node, attr, name) = (
            INodeNo(attributes.node.0),
            file_attr(attributes, self.1),
            OsStr::from_bytes(name),
        );
        fit(self.0.add(node, next, name, &lifetime(keep), &attr, Generation(0)))
    }
}

fn fit(full: bool) -> Fit {
    if full { Fit::Full } else { Fit::Taken }
}

/// Answers with a value, its length (asked for with `size` 0), or that `size` is too small.
fn reply_xattr(value: Result<crate::server::Bytes, Errno>, size: u32, reply: ReplyXattr) {
    match value {
        Ok(value) => {
            let value = value.as_ref();
            match u32::try_from(value.len()) {
                Ok(length) if size == 0 => reply.size(length),
                Ok(length) if length <= size => reply.data(value),
                _ => reply.error(fuser::Errno::ERANGE),
            }
        }
        Err(err) => reply.error(errno(err)),
    }
}

fn lifetime(keep: Keep) -> Duration {
    match keep {
        Keep::Forever => FOREVER,
        Keep::Never => Duration::ZERO,
    }
}

fn errno(err: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(err.raw_os_error())
}

fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::CharDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
        Kind::Fifo => FileType::NamedPipe,
    }
}

fn file_attr(attributes: &Attributes, owners: &KnownIds) -> FileAttr {
    let time = system_time(attributes.mtime);
    let (uid, gid) = owners.shown(attributes.uid, attributes.gid);
    FileAttr {
        ino: INodeNo(attributes.node.0),
        size: attributes.size,
        blocks: attributes.size.div_ceil(512),
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind: file_type(attributes.kind),
        perm: attributes.mode,
        nlink: attributes.links,
        uid,
        gid,
        rdev: attributes.device,
        blksize: 4096,
        flags: 0,
    }
}

impl<S> Adapter<S> {
    fn nothing(&self) -> FileAttr {
        let attributes = Attributes {
            node: NodeId(0),
            kind: Kind::File,
            mode: 0,
            size: 0,
            links: 0,
            uid: 0,
            gid: 0,
            device: 0,
            mtime: Timestamp::default(),
        };
        file_attr(&attributes, &self.owners)
    }
}

/// A stored time; one that no clock can show becomes 1970.
fn system_time(time: Timestamp) -> SystemTime {
    let whole = Duration::from_secs(time.seconds.unsigned_abs());
    let second = if time.seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(whole)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(whole)
    };
    second
        .and_then(|second| second.checked_add(Duration::from_nanos(time.nanos.into())))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}
