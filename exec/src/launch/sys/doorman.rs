//! The instructions of the doorman, see the module of that name.

use std::arch::global_asm;

use super::super::step::ExecOutcome;
use super::child::{Failure, KEPT_REPORT};

// What it does: closes the report at the next exec, executes argv[0] with the rest of argv as its arguments and the same
// environment, and reports the error number when that fails. Executed by what it executed, it finds no report and ends.
#[cfg(target_arch = "x86_64")]
global_asm!(
    ".pushsection .rodata.cbs_doorman, \"a\", @progbits",
    ".globl cbs_doorman_begin",
    ".hidden cbs_doorman_begin",
    ".globl cbs_doorman_end",
    ".hidden cbs_doorman_end",
    "cbs_doorman_begin:",
    "mov eax, {fcntl}",
    "mov edi, {report}",
    "mov esi, {f_setfd}",
    "mov edx, {fd_cloexec}",
    "syscall",
    "test eax, eax",
    "js 2f",
    "mov rcx, [rsp]",
    "mov rdi, [rsp + 8]",
    "lea rsi, [rsp + 16]",
    "lea rdx, [rsp + rcx * 8 + 16]",
    "mov eax, {execve}",
    "syscall",
    "neg eax",
    "sub rsp, 16",
    "mov dword ptr [rsp], {step}",
    "mov dword ptr [rsp + 4], eax",
    "mov dword ptr [rsp + 8], {outcome}",
    "mov eax, {write}",
    "mov edi, {report}",
    "mov rsi, rsp",
    "mov edx, 12",
    "syscall",
    "2:",
    "mov eax, {exit_group}",
    "mov edi, 1",
    "syscall",
    "ud2",
    "cbs_doorman_end:",
    ".popsection",
    fcntl = const libc::SYS_fcntl,
    f_setfd = const libc::F_SETFD,
    fd_cloexec = const libc::FD_CLOEXEC,
    execve = const libc::SYS_execve,
    write = const libc::SYS_write,
    exit_group = const libc::SYS_exit_group,
    report = const KEPT_REPORT,
    step = const Failure::OF_THE_DOORMAN,
    outcome = const ExecOutcome::Exists as u32,
);

#[cfg(target_arch = "aarch64")]
global_asm!(
    ".pushsection .rodata.cbs_doorman, \"a\", @progbits",
    ".globl cbs_doorman_begin",
    ".hidden cbs_doorman_begin",
    ".globl cbs_doorman_end",
    ".hidden cbs_doorman_end",
    ".balign 4",
    "cbs_doorman_begin:",
    "mov x0, #{report}",
    "mov x1, #{f_setfd}",
    "mov x2, #{fd_cloexec}",
    "mov x8, #{fcntl}",
    "svc 0",
    "tbnz x0, #63, 2f",
    "ldr x3, [sp]",
    "ldr x0, [sp, #8]",
    "add x1, sp, #16",
    "add x2, x1, x3, lsl #3",
    "mov x8, #{execve}",
    "svc 0",
    "neg w0, w0",
    "sub sp, sp, #16",
    "mov w1, #-1",
    "str w1, [sp]",
    "str w0, [sp, #4]",
    "mov w1, #{outcome}",
    "str w1, [sp, #8]",
    "mov x0, #{report}",
    "mov x1, sp",
    "mov x2, #12",
    "mov x8, #{write}",
    "svc 0",
    "2:",
    "mov x0, #1",
    "mov x8, #{exit_group}",
    "svc 0",
    "brk 1",
    "cbs_doorman_end:",
    ".popsection",
    fcntl = const libc::SYS_fcntl,
    f_setfd = const libc::F_SETFD,
    fd_cloexec = const libc::FD_CLOEXEC,
    execve = const libc::SYS_execve,
    write = const libc::SYS_write,
    exit_group = const libc::SYS_exit_group,
    report = const KEPT_REPORT,
    outcome = const ExecOutcome::Exists as u32,
);

// Read as -1 by the instructions for arm64.
const _: () = assert!(Failure::OF_THE_DOORMAN == u32::MAX);

unsafe extern "C" {
    static cbs_doorman_begin: u8;
    static cbs_doorman_end: u8;
}

/// The instructions; they run at any address.
pub(in crate::launch) fn doorman_code() -> &'static [u8] {
    let (begin, end) = (&raw const cbs_doorman_begin, &raw const cbs_doorman_end);
    // SAFETY: both symbols are of one section of this program, the second behind the first, and nobody writes there.
    unsafe { std::slice::from_raw_parts(begin, end.addr() - begin.addr()) }
}
