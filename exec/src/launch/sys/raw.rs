//! One system call, by the machine's own instruction.

use std::arch::asm;

/// An error number, positive.
pub(in crate::launch) type Errno = i32;

/// Calls the kernel.
///
/// # Safety
/// Every pointer among the arguments must be valid for what call `number` does with it.
#[cfg(target_arch = "x86_64")]
pub(super) unsafe fn syscall(number: libc::c_long, args: [usize; 6]) -> Result<usize, Errno> {
    let result: isize;
    // SAFETY: the registers are those of the x86-64 system call convention, rcx and r11 are declared lost, and the
    // caller vouches for the memory behind the arguments.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            in("r10") args[3],
            in("r8") args[4],
            in("r9") args[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    checked(result)
}

/// Calls the kernel.
///
/// # Safety
/// Every pointer among the arguments must be valid for what call `number` does with it.
#[cfg(target_arch = "aarch64")]
pub(super) unsafe fn syscall(number: libc::c_long, args: [usize; 6]) -> Result<usize, Errno> {
    let result: isize;
    // SAFETY: the registers are those of the arm64 system call convention, and the caller vouches for the memory
    // behind the arguments.
    unsafe {
        asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") args[0] as isize => result,
            in("x1") args[1],
            in("x2") args[2],
            in("x3") args[3],
            in("x4") args[4],
            in("x5") args[5],
            options(nostack),
        );
    }
    checked(result)
}

/// Splits the kernel's answer: the last 4095 values are negated error numbers.
fn checked(result: isize) -> Result<usize, Errno> {
    if (-4095..0).contains(&result) {
        Err(-result as Errno)
    } else {
        Ok(result as usize)
    }
}

/// The arguments of clone3 that matter here, see clone(2).
#[repr(C)]
#[derive(Default)]
pub(super) struct CloneArgs {
    pub(super) flags: u64,
    pub(super) pidfd: u64,
    pub(super) child_tid: u64,
    pub(super) parent_tid: u64,
    pub(super) exit_signal: u64,
    pub(super) stack: u64,
    pub(super) stack_size: u64,
    pub(super) tls: u64,
    pub(super) set_tid: u64,
    pub(super) set_tid_size: u64,
    pub(super) cgroup: u64,
}

/// Clones; the child starts in `entry(argument)` on the stack named by `args`.
///
/// # Safety
/// The stack and all that `argument` leads to must stay in place for as long as the child runs in this memory, and
/// `entry` must keep the rules of the parent module.
pub(super) unsafe fn clone3(
    args: &CloneArgs,
    entry: unsafe extern "C" fn(usize) -> !,
    argument: usize,
) -> Result<i32, Errno> {
    let result: isize;
    // SAFETY: in the parent this is an ordinary system call that clobbers what `syscall` declares. The child continues
    // behind the instruction with the same registers but an empty stack (16-byte aligned, as the call needs), so it
    // must not return into this frame: it clears the frame pointer and calls `entry`, which does not return.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r9",
            "call r8",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") std::ptr::from_ref(args),
            in("rsi") size_of::<CloneArgs>(),
            in("r8") entry,
            in("r9") argument,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    // SAFETY: as above, with the arm64 convention.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x30, xzr",
            "mov x0, x3",
            "blr x2",
            "brk 1",
            "2:",
            in("x8") libc::SYS_clone3,
            inlateout("x0") std::ptr::from_ref(args) as isize => result,
            in("x1") size_of::<CloneArgs>(),
            in("x2") entry,
            in("x3") argument,
        );
    }
    checked(result).map(|pid| pid as i32)
}
