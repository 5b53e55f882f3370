//! The compiled filter, run by a small machine of its own.

use super::*;

/// What the filter answers.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Allow,
    Errno(i32),
    Kill,
}

/// Runs the filter for a call with one argument; also counts the instructions.
fn run(filter: &[BpfInstruction], architecture: u32, number: u32, argument: u64) -> (Answer, usize) {
    let (mut at, mut accumulator, mut steps) = (0, 0_u32, 0);
    loop {
        let BpfInstruction {
            code,
            jump_true,
            jump_false,
            k,
        } = filter[at];
        steps += 1;
        at += 1;
        let mut branch = |taken: bool| at += usize::from(if taken { jump_true } else { jump_false });
        match code {
            0x20 => {
                accumulator = match k {
                    0 => number,
                    4 => architecture,
                    16 => argument as u32,
                    20 => (argument >> 32) as u32,
                    other => panic!("load from {other}"),
                }
            }
            0x05 => at += k as usize,
            0x15 => branch(accumulator == k),
            0x25 => branch(accumulator > k),
            0x35 => branch(accumulator >= k),
            0x45 => branch(accumulator & k != 0),
            0x06 => {
                let answer = match k & 0xffff_0000 {
                    0x7fff_0000 => Answer::Allow,
                    0x0005_0000 => Answer::Errno((k & 0xffff) as i32),
                    _ => Answer::Kill,
                };
                return (answer, steps);
            }
            other => panic!("instruction {other:#x}"),
        }
    }
}

#[test]
fn every_number_gets_the_answer_of_the_table() {
    let filter = docker_default();
    for abi in ABIS {
        for number in (0..1000).chain([0x4000_0000, 0x4000_0001, 0xf0001, 0xf0005, u32::MAX]) {
            if [abi.clone, abi.socket, abi.personality].contains(&number) {
                continue;
            }
            let listed = table::ALLOWED
                .iter()
                .any(|(_, numbers)| numbers[abi.column] == number && number != u32::MAX);
            let want = match number {
                _ if number == abi.clone3 => Answer::Errno(libc::ENOSYS),
                _ if listed => Answer::Allow,
                0..=NEWEST_KNOWN => Answer::Errno(libc::EPERM),
                _ => Answer::Errno(libc::ENOSYS),
            };
            assert_eq!(
                run(&filter, abi.audit, number, 0).0,
                want,
                "call {number} of column {}",
                abi.column
            );
        }
    }
    assert_eq!(run(&filter, 0x1234, 0, 0).0, Answer::Kill);
}

#[test]
fn arguments_are_tested() {
    let filter = docker_default();
    let cases = [
        ("clone thread", 0, 0x3d_0f00, true),
        ("clone fork", 0, libc::SIGCHLD as u64, true),
        ("clone new user", 0, libc::CLONE_NEWUSER as u64, false),
        (
            "clone new mounts",
            0,
            libc::CLONE_NEWNS as u64 | libc::SIGCHLD as u64,
            false,
        ),
        ("clone new net", 0, libc::CLONE_NEWNET as u64, false),
        ("socket unix", 1, libc::AF_UNIX as u64, true),
        ("socket inet6", 1, libc::AF_INET6 as u64, true),
        ("socket netlink", 1, libc::AF_NETLINK as u64, true),
        ("socket xdp", 1, libc::AF_XDP as u64, true),
        ("socket alg", 1, libc::AF_ALG as u64, false),
        ("socket vsock", 1, libc::AF_VSOCK as u64, false),
        ("socket unheard of", 1, 46, false),
        ("socket vsock with high bits", 1, libc::AF_VSOCK as u64 | 1 << 32, false),
        ("personality linux", 2, 0, true),
        ("personality ask", 2, 0xffff_ffff, true),
        ("personality 32", 2, 8, true),
        ("personality no randomisation", 2, 0x4_0000, false),
    ];
    for abi in ABIS {
        for (what, call, argument, allowed) in cases {
            let number = [abi.clone, abi.socket, abi.personality][call];
            let want = if allowed {
                Answer::Allow
            } else {
                Answer::Errno(libc::EPERM)
            };
            assert_eq!(
                run(&filter, abi.audit, number, argument).0,
                want,
                "{what} in column {}",
                abi.column
            );
        }
    }
}

#[test]
fn native_numbers_agree_with_the_c_library() {
    let abi = ABIS[0];
    let row = |name: &str| table::ALLOWED.iter().find(|row| row.0 == name).expect("listed").1[abi.column];
    let cases = [
        ("read", libc::SYS_read),
        ("openat2", libc::SYS_openat2),
        ("ptrace", libc::SYS_ptrace),
        ("chroot", libc::SYS_chroot),
        ("statx", libc::SYS_statx),
    ];
    for (name, number) in cases {
        assert_eq!(i64::from(row(name)), number, "{name}");
    }
    let special = [abi.clone, abi.clone3, abi.socket, abi.personality].map(i64::from);
    assert_eq!(
        special,
        [
            libc::SYS_clone,
            libc::SYS_clone3,
            libc::SYS_socket,
            libc::SYS_personality
        ]
    );
    for forbidden in [
        libc::SYS_mount,
        libc::SYS_unshare,
        libc::SYS_keyctl,
        libc::SYS_bpf,
        libc::SYS_io_uring_setup,
    ] {
        let found = table::ALLOWED
            .iter()
            .find(|row| i64::from(row.1[abi.column]) == forbidden);
        assert_eq!(found, None, "forbidden call {forbidden}");
    }
}

#[test]
fn lookups_are_short() {
    let filter = docker_default();
    assert!(filter.len() < 500, "{} instructions", filter.len());
    let longest = (0..500)
        .map(|number| run(&filter, ABIS[0].audit, number, 0).1)
        .max()
        .expect("some");
    assert!(longest < 25, "{longest} instructions for one call");
}
