//! System calls of the tests that have no safe wrapper.
#![expect(unsafe_code, reason = "namespaces have no safe wrapper in our dependencies")]

use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::UnshareFlags;

/// What a test mounts is seen by its thread, and the threads and processes it starts, only.
pub(crate) fn private_namespace_of_this_thread() {
    // SAFETY: the unsafety of `unshare` is about descriptor tables; this flag touches none.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.expect("unshare");
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).expect("make private");
}
