//! Docker's default system call filter, compiled for the kernel.
//!
//! The profile is a list of names; what the kernel takes is a small program that sees a number. The program looks the
//! number up by bisection over runs of numbers with the same answer, about eight comparisons, where a list of one
//! comparison per name would cost hundreds in each system call (and in the emulation by which the kernel finds out,
//! at each start of a container, which numbers are always allowed).
//!
//! Calls that the profile does not name answer EPERM. Those newer than the profile, and `clone3` whose flags no filter
//! can see, answer ENOSYS, so that programs fall back to what they did before.

mod bpf;
mod table;

use super::sys::BpfInstruction;
use bpf::{ArgumentTest, Program, Verdict};

/// The highest number of the tables in [`table`], Linux 6.17. A newer call is unknown rather than forbidden.
const NEWEST_KNOWN: u32 = 469;

/// `CLONE_NEWNS`, `NEWCGROUP`, `NEWUTS`, `NEWIPC`, `NEWUSER`, `NEWPID` and `NEWNET`.
const CLONE_NAMESPACES: u32 = 0x7e02_0000;

/// The address families up to this one are known; later ones are refused.
const LAST_KNOWN_FAMILY: u32 = 45;

/// Families that Docker refuses: DECnet, Econet, ATM SVC, IrDA, WANPIPE, ISDN, CAIF, ALG and vsock. They lead around
/// the network namespace or into code of the kernel that builds have no use for.
const REFUSED_FAMILIES: [u32; 9] = [12, 19, 20, 23, 25, 34, 37, 38, 40];

/// Personalities that change nothing a build could use to escape: the normal one, 32-bit, old uname, both, and asking.
const PERSONALITIES: [u32; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// An instruction set whose programs this machine may run.
#[derive(Clone, Copy)]
struct Abi {
    /// `AUDIT_ARCH_` value.
    audit: u32,
    /// Column of the table.
    column: usize,
    clone: u32,
    clone3: u32,
    socket: u32,
    personality: u32,
}

/// The native instruction set first, then the one of 32-bit programs.
#[cfg(target_arch = "x86_64")]
const ABIS: [Abi; 2] = [
    Abi {
        audit: 0xc000_003e,
        column: 0,
        clone: 56,
        clone3: 435,
        socket: 41,
        personality: 135,
    },
    Abi {
        audit: 0x4000_0003,
        column: 1,
        clone: 120,
        clone3: 435,
        socket: 359,
        personality: 136,
    },
];

/// The native instruction set first, then the one of 32-bit programs.
#[cfg(target_arch = "aarch64")]
const ABIS: [Abi; 2] = [
    Abi {
        audit: 0xc000_00b7,
        column: 2,
        clone: 220,
        clone3: 435,
        socket: 198,
        personality: 92,
    },
    Abi {
        audit: 0x4000_0028,
        column: 3,
        clone: 120,
        clone3: 435,
        socket: 281,
        personality: 136,
    },
];

/// The filter of a sandboxed container.
pub(super) fn docker_default() -> Vec<BpfInstruction> {
    bpf::select_architecture(&ABIS.map(|abi| (abi.audit, rules(abi).compile())))
}

/// The answers for one instruction set.
fn rules(abi: Abi) -> Program {
    let mut program = Program::new(Verdict::Errno(libc::EPERM), NEWEST_KNOWN, Verdict::Errno(libc::ENOSYS));
    for (_name, numbers) in table::ALLOWED {
        // The column exists: each row has one number per instruction set.
        if let Some(&number) = numbers.get(abi.column)
            && number != u32::MAX
        {
            program.set(number, Verdict::Allow);
        }
    }
    program.set(abi.clone3, Verdict::Errno(libc::ENOSYS));
    program.set(abi.clone, Verdict::If(ArgumentTest::NoneOf(CLONE_NAMESPACES)));
    program.set(
        abi.socket,
        Verdict::If(ArgumentTest::AtMostExcept(LAST_KNOWN_FAMILY, &REFUSED_FAMILIES)),
    );
    program.set(abi.personality, Verdict::If(ArgumentTest::OneOf(&PERSONALITIES)));
    program
}

#[cfg(test)]
mod tests;
