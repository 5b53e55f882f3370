//! Steps for other platforms: qemu's user-mode emulators, registered for one container alone.
//!
//! Linux 6.7 gives every user namespace a `binfmt_misc` table of its own, so nothing is registered on the host. Where the host
//! has a registration already, that one is used.

use std::path::{Path, PathBuf};

use cbs_solver::{FailureKind, StepError, pb, platform_text};

use crate::launch::{Emulator, IdMappings, IdRange};

/// An architecture as ELF headers say it.
struct Machine {
    /// In Go's words, as platforms have it.
    architecture: &'static str,
    /// In qemu's words.
    qemu: &'static str,
    /// `e_machine`.
    number: u16,
    /// `EI_CLASS`: 1 is 32 bits, 2 is 64.
    class: u8,
    /// `EI_DATA`: 1 is little endian, 2 is big.
    data: u8,
}

const MACHINES: [Machine; 10] = [
    Machine {
        architecture: "amd64",
        qemu: "x86_64",
        number: 62,
        class: 2,
        data: 1,
    },
    Machine {
        architecture: "386",
        qemu: "i386",
        number: 3,
        class: 1,
        data: 1,
    },
    Machine {
        architecture: "arm64",
        qemu: "aarch64",
        number: 183,
        class: 2,
        data: 1,
    },
    Machine {
        architecture: "arm",
        qemu: "arm",
        number: 40,
        class: 1,
        data: 1,
    },
    Machine {
        architecture: "riscv64",
        qemu: "riscv64",
        number: 243,
        class: 2,
        data: 1,
    },
    Machine {
        architecture: "ppc64le",
        qemu: "ppc64le",
        number: 21,
        class: 2,
        data: 1,
    },
    Machine {
        architecture: "s390x",
        qemu: "s390x",
        number: 22,
        class: 2,
        data: 2,
    },
    Machine {
        architecture: "mips64le",
        qemu: "mips64el",
        number: 8,
        class: 2,
        data: 1,
    },
    Machine {
        architecture: "mips64",
        qemu: "mips64",
        number: 8,
        class: 2,
        data: 2,
    },
    Machine {
        architecture: "loong64",
        qemu: "loongarch64",
        number: 258,
        class: 2,
        data: 1,
    },
];

/// What a container for a platform needs.
#[derive(Debug, Default)]
pub(super) struct Emulation {
    pub(super) emulators: Vec<Emulator>,
    pub(super) user_namespace: Option<IdMappings>,
}

/// Finds how to run a platform's programs here.
pub(super) fn emulation(platform: Option<&pb::Platform>) -> Result<Emulation, StepError> {
    let Some(platform) = platform.filter(|platform| !platform.architecture.is_empty()) else {
        return Ok(Emulation::default());
    };
    let native: &[&str] = match std::env::consts::ARCH {
        "x86_64" => &["amd64", "386"],
        "aarch64" => &["arm64"],
        other => &[other],
    };
    if native.contains(&platform.architecture.as_str()) {
        return Ok(Emulation::default());
    }
    let text = platform_text(platform);
    let unsupported = |why: String| StepError::new(FailureKind::Unsupported, why);
    let machine = MACHINES
        .iter()
        .find(|machine| machine.architecture == platform.architecture)
        .ok_or_else(|| {
            unsupported(format!(
                "this machine cannot run steps for {text}: no emulator is known"
            ))
        })?;
    if host_runs(machine) {
        return Ok(Emulation::default());
    }
    let interpreter = ["-static", ""]
        .iter()
        .map(|suffix| PathBuf::from(format!("/usr/bin/qemu-{}{suffix}", machine.qemu)))
        .find(|path| path.exists())
        .ok_or_else(|| {
            unsupported(format!(
                "this machine cannot run steps for {text}: install the package `qemu-user-static`"
            ))
        })?;
    let all = vec![IdRange {
        inside: 0,
        outside: 0,
        count: u32::MAX,
    }];
    Ok(Emulation {
        emulators: vec![Emulator {
            registration: registration(machine, &interpreter),
        }],
        user_namespace: Some(IdMappings {
            uids: all.clone(),
            gids: all,
        }),
    })
}

/// Whether the host has an enabled registration for it.
fn host_runs(machine: &Machine) -> bool {
    let path = format!("/proc/sys/fs/binfmt_misc/qemu-{}", machine.qemu);
    std::fs::read_to_string(path).is_ok_and(|text| text.starts_with("enabled"))
}

/// The line that the kernel's `binfmt_misc` reads: matches executables and shared objects of the machine. Flags: F opens
/// the interpreter now, O hands over the file, C takes credentials from it.
fn registration(machine: &Machine, interpreter: &Path) -> Vec<u8> {
    let mut magic = vec![0x7f, b'E', b'L', b'F', machine.class, machine.data, 1, 0];
    magic.extend([0; 8]);
    let mut mask = vec![0xff_u8; 20];
    // The ABI byte says anything; both executable (2) and shared object (3) are programs.
    mask[7] = 0;
    if machine.data == 1 {
        magic.extend([2, 0]);
        magic.extend(machine.number.to_le_bytes());
        mask[16] = 0xfe;
    } else {
        magic.extend([0, 2]);
        magic.extend(machine.number.to_be_bytes());
        mask[17] = 0xfe;
    }
    let escaped = |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect() };
    let (magic, mask) = (escaped(&magic), escaped(&mask));
    format!(
        ":cbs-{}:M::{magic}:{mask}:{}:FOC",
        machine.architecture,
        interpreter.display()
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_what_qemus_own_script_registers() {
        let arm64 = MACHINES
            .iter()
            .find(|machine| machine.architecture == "arm64")
            .expect("known");
        let line = String::from_utf8(registration(arm64, Path::new("/usr/bin/qemu-aarch64-static"))).expect("ASCII");
        assert!(line.contains(":M::\\x7f\\x45\\x4c\\x46\\x02\\x01\\x01\\x00"), "{line}");
        assert!(
            line.contains("\\x02\\x00\\xb7\\x00:\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x00"),
            "{line}"
        );
        assert!(
            line.ends_with("\\xfe\\xff\\xff\\xff:/usr/bin/qemu-aarch64-static:FOC"),
            "{line}"
        );
        assert!(line.len() < 1920, "the kernel's limit");
    }

    #[test]
    fn native_platforms_need_nothing() {
        let platform = pb::Platform {
            os: "linux".into(),
            architecture: "386".into(),
            ..Default::default()
        };
        if std::env::consts::ARCH == "x86_64" {
            assert!(emulation(Some(&platform)).expect("native").emulators.is_empty());
        }
        let platform = pb::Platform {
            os: "linux".into(),
            architecture: "vax".into(),
            ..Default::default()
        };
        assert!(
            emulation(Some(&platform))
                .expect_err("unknown")
                .message
                .contains("linux/vax")
        );
    }
}
