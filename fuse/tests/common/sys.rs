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

/// Makes the calling process root of a user namespace with only its own ids mapped, and of a mount namespace.
pub(crate) fn become_root_of_user_namespace() {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    // SAFETY: as above.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNS) }.expect("unshare");
    std::fs::write("/proc/self/setgroups", "deny").expect("deny setgroups");
    std::fs::write("/proc/self/uid_map", format!("0 {uid} 1")).expect("map uid");
    std::fs::write("/proc/self/gid_map", format!("0 {gid} 1")).expect("map gid");
}
