//! How many requests of each kind a mount answered.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Requests answered so far, by kind. Each costs about 20 µs of latency, so these numbers explain a mount's
        /// speed.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct RequestCounts {
            $($(#[$doc])* pub $name: u64,)*
        }

        /// The counters behind [`RequestCounts`].
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)*
        }

        impl Counters {
            /// The numbers now.
            pub(crate) fn snapshot(&self) -> RequestCounts {
                RequestCounts { $($name: self.$name.0.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counts! {
    /// Names looked up.
    lookup,
    /// Of these, names that are not there.
    miss,
    /// Attributes asked for by themselves.
    getattr,
    /// Symbolic links read.
    readlink,
    /// Files opened.
    open,
    /// Pieces of files read.
    read,
    /// Pieces of directories listed.
    readdir,
    /// Extended attributes asked for.
    getxattr,
    /// Lists of extended attributes asked for.
    listxattr,
    /// Times the kernel dropped a node.
    forget,
}

/// One number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub(crate) fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
