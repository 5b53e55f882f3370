//! Steps for other platforms: qemu's user-mode emulators, registered for one container alone.
//!
//! Linux 6.7 gives every user namespace a `binfmt_misc` table of its own, so nothing is registered on the host. Where the host
//! has a registration already, that one is used.

mod host;
mod interpreter;

use std::path::Path;

use cbs_solver::{FailureKind, StepError, pb, platform_text};
use cbs_store::KnownIds;

use crate::config::EmulationChoice;
use crate::launch::{Emulator, IdMappings, IdRange, LaunchError};

use interpreter::Found;

/// Where the machine's own table is.
const HOST_TABLE: &str = "/proc/sys/fs/binfmt_misc";
/// As the kernel calls it.
const FILE_SYSTEM: &str = "binfmt_misc";

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
pub(super) fn emulation(
    platform: Option<&pb::Platform>,
    choice: &EmulationChoice,
    owners: &KnownIds,
) -> Result<Emulation, StepError> {
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
    let found = match choice {
        EmulationChoice::Never => {
            return Err(unsupported(format!(
                "this machine cannot run steps for {text}: emulation is switched off"
            )));
        }
        EmulationChoice::Folder(folder) => interpreter::find_in(folder, machine.qemu),
        EmulationChoice::Auto => {
            if host::runs(Path::new(HOST_TABLE), &machine.header()) {
                return Ok(Emulation::default());
            }
            interpreter::find(Path::new("/"), machine.qemu)
        }
    };
    let interpreter = match found {
        Found::Usable(path) => path,
        Found::NeedsLibraries(path) => {
            return Err(unsupported(format!(
                "this machine cannot run steps for {text}: `{}` needs libraries of this machine; install the package \
                 `qemu-user-static`",
                path.display()
            )));
        }
        Found::Nothing => {
            let what_to_do = match choice {
                EmulationChoice::Folder(folder) => {
                    format!("there is no `qemu-{}` in `{}`", machine.qemu, folder.display())
                }
                _ => "install the package `qemu-user-static`".to_owned(),
            };
            return Err(unsupported(format!(
                "this machine cannot run steps for {text}: {what_to_do}"
            )));
        }
    };
    // Everybody stays who he is; only what exists here can be passed on.
    let same = |(first, count)| IdRange {
        inside: first,
        outside: first,
        count,
    };
    Ok(Emulation {
        emulators: vec![Emulator {
            registration: registration(machine, &interpreter),
            interpreter,
        }],
        user_namespace: Some(IdMappings {
            uids: owners.users().map(same).collect(),
            gids: owners.groups().map(same).collect(),
        }),
    })
}

/// Says what to do when the kernel has no private `binfmt_misc`.
pub(super) fn explain(error: LaunchError, platform: Option<&pb::Platform>) -> LaunchError {
    match error {
        LaunchError::Setup { action, path, source } if path == Path::new(FILE_SYSTEM) => LaunchError::Setup {
            action,
            path,
            source: std::io::Error::new(
                source.kind(),
                format!(
                    "{source}; steps for {} need Linux 6.7 with binfmt_misc, or an emulator registered for the whole \
                     machine: install the packages `qemu-user-static` and `binfmt-support` there",
                    platform.map(platform_text).unwrap_or_default()
                ),
            ),
        },
        other => other,
    }
}

impl Machine {
    /// How its programs begin.
    fn header(&self) -> Vec<u8> {
        let mut header = vec![0x7f, b'E', b'L', b'F', self.class, self.data, 1, 0];
        header.extend([0; 8]);
        // An executable, in the machine's own byte order.
        if self.data == 1 {
            header.extend([2, 0]);
            header.extend(self.number.to_le_bytes());
        } else {
            header.extend([0, 2]);
            header.extend(self.number.to_be_bytes());
        }
        header
    }
}

/// The line that the kernel's `binfmt_misc` reads: matches executables and shared objects of the machine. Flags: F opens
/// the interpreter now, O hands over the file, C takes credentials from it, and P tells the name that the program was
/// called by, without which programs such as busybox do not know what to be (qemu 6 and Linux 5.12).
fn registration(machine: &Machine, interpreter: &Path) -> Vec<u8> {
    let magic = machine.header();
    let mut mask = vec![0xff_u8; magic.len()];
    // The ABI byte says anything; both executable (2) and shared object (3) are programs.
    mask[7] = 0;
    mask[if machine.data == 1 { 16 } else { 17 }] = 0xfe;
    let escaped = |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect() };
    let (magic, mask) = (escaped(&magic), escaped(&mask));
    format!(
        ":cbs-{}:M::{magic}:{mask}:{}:FOCP",
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
            line.ends_with("\\xfe\\xff\\xff\\xff:/usr/bin/qemu-aarch64-static:FOCP"),
            "{line}"
        );
        assert!(line.len() < 1920, "the kernel's limit");
    }

    /// A line for the kernel as the bytes of its magic and its mask.
    fn magic_and_mask(line: &str) -> (Vec<u8>, Vec<u8>) {
        let bytes = |text: &str| {
            let (mut bytes, mut rest) = (Vec::new(), text);
            while let Some(character) = rest.chars().next() {
                match rest.strip_prefix("\\x") {
                    Some(digits) => {
                        bytes.push(u8::from_str_radix(&digits[..2], 16).expect("two digits"));
                        rest = &digits[2..];
                    }
                    None => {
                        bytes.push(character as u8);
                        rest = &rest[1..];
                    }
                }
            }
            bytes
        };
        let fields: Vec<&str> = line.split(':').collect();
        (bytes(fields[4]), bytes(fields[5]))
    }

    #[test]
    fn every_machine_is_told_as_qemus_package_tells_it() {
        let mut compared = 0;
        for machine in &MACHINES {
            // What is of this machine has no file there.
            let Ok(theirs) = std::fs::read_to_string(format!("/usr/lib/binfmt.d/qemu-{}.conf", machine.qemu)) else {
                continue;
            };
            let ours = String::from_utf8(registration(machine, Path::new("/q"))).expect("ASCII");
            let matches = |line: &str, header: &[u8]| {
                let (magic, mask) = magic_and_mask(line);
                let bytes = magic.iter().zip(&mask).zip(header);
                magic.len() == header.len()
                    && bytes
                        .into_iter()
                        .all(|((magic, mask), byte)| (magic ^ byte) & mask == 0)
            };
            let is_little = machine.data == 1;
            let mut shared_object = machine.header();
            shared_object[if is_little { 16 } else { 17 }] = 3;
            let mut relocatable = machine.header();
            relocatable[if is_little { 16 } else { 17 }] = 1;
            let other = MACHINES
                .iter()
                .filter(|other| other.qemu != machine.qemu)
                .map(Machine::header);
            let headers = [machine.header(), shared_object, relocatable].into_iter().chain(other);
            for header in headers {
                assert_eq!(
                    matches(&ours, &header),
                    matches(theirs.trim(), &header),
                    "{}: {header:x?}",
                    machine.qemu
                );
            }
            assert!(matches(&ours, &machine.header()), "{}", machine.qemu);
            compared += 1;
        }
        if compared == 0 {
            eprintln!("SKIPPED: no qemu-user-static");
        }
    }

    #[test]
    fn native_platforms_need_nothing() {
        let platform = pb::Platform {
            os: "linux".into(),
            architecture: "386".into(),
            ..Default::default()
        };
        if std::env::consts::ARCH == "x86_64" {
            assert!(
                emulation(Some(&platform), &EmulationChoice::Auto, &KnownIds::all())
                    .expect("native")
                    .emulators
                    .is_empty()
            );
        }
        let platform = pb::Platform {
            os: "linux".into(),
            architecture: "vax".into(),
            ..Default::default()
        };
        assert!(
            emulation(Some(&platform), &EmulationChoice::Auto, &KnownIds::all())
                .expect_err("unknown")
                .message
                .contains("linux/vax")
        );
    }

    #[test]
    fn emulation_can_be_switched_off_or_come_from_a_folder() {
        let platform = pb::Platform {
            os: "linux".into(),
            architecture: "s390x".into(),
            ..Default::default()
        };
        let folder = tempfile::tempdir().expect("tempdir");
        for (choice, want) in [
            (EmulationChoice::Never, "switched off"),
            (EmulationChoice::Folder(folder.path().to_owned()), "no `qemu-s390x` in"),
        ] {
            let error = emulation(Some(&platform), &choice, &KnownIds::all()).expect_err(want);
            assert!(error.message.contains(want), "{}", error.message);
        }
    }
}
