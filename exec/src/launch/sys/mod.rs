//! Everything unsafe of the launcher: raw system calls, the clone, and the child that runs on the other side of it.
//!
//! The child shares its memory with its parent until it executes its program, so that launching costs the same from a
//! large process as from a small one. In return its code obeys three rules, which is why all of it is in here:
//! it allocates nothing and frees nothing (another thread may be doing that right now with the same thread-local
//! caches), it calls nothing of the C library (whose `errno` belongs to the parent's thread), and it never returns or
//! unwinds.
#![expect(
    unsafe_code,
    reason = "raw system calls, a clone with a stack of its own, and exec have no safe form"
)]

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the launcher knows the system call conventions of x86_64 and aarch64 only");

mod calls;
mod child;
mod clone;
mod doorman;
mod guard;
mod raw;
mod stack;

pub(super) use calls::{
    BpfInstruction, MountAttributes, Recursion, enter_network, enter_new_network, set_mount_attributes,
};
pub(super) use child::{Failure, Program};
pub(super) use clone::{Child, CloneOptions, Ended, Memory};
pub(super) use doorman::doorman_code;
pub(super) use guard::Guard;
