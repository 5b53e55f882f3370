//! From answers per system call number to a program of the kernel's classic BPF machine.

use std::collections::BTreeMap;

use super::super::sys::BpfInstruction;

/// Offsets in the kernel's `struct seccomp_data`.
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCHITECTURE: u32 = 4;
/// Low and high half of the first argument, on little-endian machines.
const OFFSET_ARGUMENT_LOW: u32 = 16;
const OFFSET_ARGUMENT_HIGH: u32 = 20;

const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
const JUMP_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

const RETURN_ALLOW: u32 = 0x7fff_0000;
const RETURN_ERRNO: u32 = 0x0005_0000;
const RETURN_KILL_PROCESS: u32 = 0x8000_0000;

/// What happens to a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It runs.
    Allow,
    /// It fails with this number.
    Errno(i32),
    /// It runs if its first argument passes, else it fails with EPERM.
    If(ArgumentTest),
}

/// A test of a call's first argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ArgumentTest {
    /// None of these bits are set; the upper half of the argument is not looked at, as the kernel itself ignores it.
    NoneOf(u32),
    /// It is one of these.
    OneOf(&'static [u32]),
    /// It is at most the first, and none of the others.
    AtMostExcept(u32, &'static [u32]),
}

/// Answers for all numbers of one instruction set.
pub(super) struct Program {
    /// From each key on, up to the next one, this answer holds.
    exceptions: BTreeMap<u32, Verdict>,
    default: Verdict,
    newest: u32,
    beyond: Verdict,
}

impl Program {
    /// `default` for all numbers up to `newest`, `beyond` for those above.
    pub(super) fn new(default: Verdict, newest: u32, beyond: Verdict) -> Self {
        Self {
            exceptions: BTreeMap::new(),
            default,
            newest,
            beyond,
        }
    }

    /// Sets the answer for one number.
    pub(super) fn set(&mut self, number: u32, verdict: Verdict) {
        self.exceptions.insert(number, verdict);
    }

    /// The program, which expects nothing and returns in every path.
    pub(super) fn compile(&self) -> Vec<BpfInstruction> {
        let mut code = vec![load(OFFSET_NUMBER)];
        code.extend(bisect(&self.runs()));
        code
    }

    /// Numbers at which the answer changes, with the answer from there on; the first is 0.
    fn runs(&self) -> Vec<(u32, Verdict)> {
        let usual = |number: u32| {
            if number <= self.newest {
                self.default
            } else {
                self.beyond
            }
        };
        let mut runs = vec![(0, self.default), (self.newest + 1, self.beyond)];
        for (&number, &verdict) in &self.exceptions {
            runs.retain(|(start, _)| *start != number);
            runs.push((number, verdict));
            if !self.exceptions.contains_key(&(number + 1)) {
                runs.retain(|(start, _)| *start != number + 1);
                runs.push((number + 1, usual(number + 1)));
            }
        }
        runs.sort_by_key(|(start, _)| *start);
        runs.dedup_by(|next, kept| next.1 == kept.1);
        runs
    }
}

/// Joins the programs of several instruction sets; a call of any other kills the process.
pub(super) fn select_architecture(programs: &[(u32, Vec<BpfInstruction>)]) -> Vec<BpfInstruction> {
    let mut code = vec![load(OFFSET_ARCHITECTURE)];
    for (audit, program) in programs {
        code.push(jump_if(JUMP_EQUAL, *audit, 1, 0));
        code.push(jump(program.len()));
        code.extend_from_slice(program);
    }
    code.push(BpfInstruction {
        code: RETURN,
        jump_true: 0,
        jump_false: 0,
        k: RETURN_KILL_PROCESS,
    });
    code
}

/// Looks the loaded number up in sorted runs.
fn bisect(runs: &[(u32, Verdict)]) -> Vec<BpfInstruction> {
    let [first, rest @ ..] = runs else {
        return give(Verdict::Errno(libc::EPERM));
    };
    if rest.is_empty() {
        return give(first.1);
    }
    let (low, high) = runs.split_at(runs.len() / 2);
    let pivot = high.first().map_or(0, |(start, _)| *start);
    let (low, high) = (bisect(low), bisect(high));
    let mut code = match u8::try_from(low.len()) {
        Ok(distance) => vec![jump_if(JUMP_GREATER_OR_EQUAL, pivot, distance, 0)],
        // A conditional jump reaches 255 instructions, an unconditional one any number.
        Err(_too_far) => vec![jump_if(JUMP_GREATER_OR_EQUAL, pivot, 0, 1), jump(low.len())],
    };
    code.extend(low);
    code.extend(high);
    code
}

fn give(verdict: Verdict) -> Vec<BpfInstruction> {
    match verdict {
        Verdict::Allow => vec![answer(RETURN_ALLOW)],
        Verdict::Errno(errno) => vec![refuse(errno)],
        Verdict::If(ArgumentTest::NoneOf(bits)) => vec![
            load(OFFSET_ARGUMENT_LOW),
            jump_if(JUMP_ANY_BIT, bits, 1, 0),
            answer(RETURN_ALLOW),
            refuse(libc::EPERM),
        ],
        Verdict::If(ArgumentTest::OneOf(values)) => {
            let mut code = upper_half_is_zero();
            code.push(load(OFFSET_ARGUMENT_LOW));
            for value in values {
                code.extend([jump_if(JUMP_EQUAL, *value, 0, 1), answer(RETURN_ALLOW)]);
            }
            code.push(refuse(libc::EPERM));
            code
        }
        Verdict::If(ArgumentTest::AtMostExcept(most, except)) => {
            let mut code = upper_half_is_zero();
            code.push(load(OFFSET_ARGUMENT_LOW));
            code.extend([jump_if(JUMP_GREATER, most, 0, 1), refuse(libc::EPERM)]);
            for value in except {
                code.extend([jump_if(JUMP_EQUAL, *value, 0, 1), refuse(libc::EPERM)]);
            }
            code.push(answer(RETURN_ALLOW));
            code
        }
    }
}

/// Refuses unless the upper half of the first argument is zero.
fn upper_half_is_zero() -> Vec<BpfInstruction> {
    vec![
        load(OFFSET_ARGUMENT_HIGH),
        jump_if(JUMP_EQUAL, 0, 1, 0),
        refuse(libc::EPERM),
    ]
}

fn load(offset: u32) -> BpfInstruction {
    BpfInstruction {
        code: LOAD,
        jump_true: 0,
        jump_false: 0,
        k: offset,
    }
}

fn jump(distance: usize) -> BpfInstruction {
    // Programs have at most 4096 instructions.
    BpfInstruction {
        code: JUMP,
        jump_true: 0,
        jump_false: 0,
        k: distance as u32,
    }
}

fn jump_if(code: u16, k: u32, jump_true: u8, jump_false: u8) -> BpfInstruction {
    BpfInstruction {
        code,
        jump_true,
        jump_false,
        k,
    }
}

fn answer(value: u32) -> BpfInstruction {
    BpfInstruction {
        code: RETURN,
        jump_true: 0,
        jump_false: 0,
        k: value,
    }
}

fn refuse(errno: i32) -> BpfInstruction {
    answer(RETURN_ERRNO | errno as u32)
}
