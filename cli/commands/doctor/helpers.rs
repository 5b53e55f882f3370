//! What some builds need: other programs, emulators, ranges of ids.

use std::path::{Path, PathBuf};
use std::process::Command;

use cbs_exec::EmulationChoice;
use cbs_exec::rootless::Standing;

use super::Finding;
use super::checks::World;

/// What qemu calls machines, and what OCI does.
const MACHINES: [(&str, &str); 10] = [
    ("x86_64", "amd64"),
    ("i386", "386"),
    ("aarch64", "arm64"),
    ("arm", "arm"),
    ("riscv64", "riscv64"),
    ("ppc64le", "ppc64le"),
    ("s390x", "s390x"),
    ("mips64el", "mips64le"),
    ("mips64", "mips64"),
    ("loongarch64", "loong64"),
];

/// All of them.
pub(super) fn all(world: &World<'_>) -> Vec<Finding> {
    let mut findings = vec![
        git(),
        emulation(&world.global.settings.build.emulation),
        ids(world),
        network(world),
        certificates(),
        docker(),
    ];
    findings.retain(|finding| !finding.detail.is_empty());
    findings
}

/// A program in PATH.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

fn git() -> Finding {
    const NAME: &str = "git";
    let answer = Command::new("git").arg("--version").output();
    match answer {
        Ok(answer) if answer.status.success() => {
            let text = String::from_utf8_lossy(&answer.stdout);
            let text = text.trim().trim_start_matches("git version ");
            match program("ssh") {
                Some(_) => Finding::works(NAME, text),
                None => Finding::limited(
                    NAME,
                    format!("{text}, without ssh"),
                    "for repositories behind ssh: apt install openssh-client",
                ),
            }
        }
        _ => Finding::limited(
            NAME,
            "not installed",
            "for git contexts, ADD of repositories and commit times: apt install git",
        ),
    }
}

/// Which platforms' steps can run.
fn emulation(choice: &EmulationChoice) -> Finding {
    const NAME: &str = "emulation";
    let (folder, host_counts) = match choice {
        EmulationChoice::Never => return Finding::works(NAME, "switched off by build.emulation"),
        EmulationChoice::Folder(folder) => (folder.as_path(), false),
        EmulationChoice::Auto => (Path::new("/usr/bin"), true),
    };
    let mut found = Vec::new();
    for (qemu, platform) in MACHINES {
        let registered = std::fs::read_to_string(format!("/proc/sys/fs/binfmt_misc/qemu-{qemu}"));
        let is_registered = host_counts && registered.is_ok_and(|text| text.starts_with("enabled"));
        let is_installed = ["-static", ""]
            .iter()
            .any(|suffix| folder.join(format!("qemu-{qemu}{suffix}")).exists());
        if (is_registered || is_installed) && qemu != std::env::consts::ARCH {
            found.push(platform);
        }
    }
    if found.is_empty() {
        return Finding::limited(
            NAME,
            "none: steps run for this machine's platform only",
            "for other platforms: apt install qemu-user-static",
        );
    }
    Finding::works(NAME, format!("qemu for {}", found.join(", ")))
}

/// Ranges of ids for users without root.
fn ids(world: &World<'_>) -> Finding {
    const NAME: &str = "ids";
    if world.is_root {
        return Finding::works(NAME, "");
    }
    if let Standing::SingleId { why } = &world.global.standing {
        return Finding::limited(
            NAME,
            format!("steps have one user only: {why}"),
            "apt install uidmap, and usermod --add-subuids 100000-165535 --add-subgids 100000-165535 for the user",
        );
    }
    Finding::works(NAME, "ranges of user and group ids")
}

/// What gives steps without root a network of their own.
fn network(world: &World<'_>) -> Finding {
    const NAME: &str = "network";
    if world.is_root {
        return Finding::works(NAME, "");
    }
    match ["pasta", "slirp4netns"]
        .into_iter()
        .find(|name| program(name).is_some())
    {
        Some(name) => Finding::works(NAME, format!("steps without root go through {name}")),
        None => Finding::limited(
            NAME,
            "neither pasta nor slirp4netns is installed",
            "for a network of their own for steps without root: apt install passt",
        ),
    }
}

fn certificates() -> Finding {
    const NAME: &str = "certificates";
    const BUNDLES: [&str; 4] = [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/ca-bundle.pem",
        "/etc/ssl/cert.pem",
    ];
    let variable = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let bundles = variable.into_iter().chain(BUNDLES.map(PathBuf::from));
    match bundles.into_iter().find(|path| path.is_file()) {
        Some(path) => Finding::works(NAME, path.display().to_string()),
        None => Finding::limited(
            NAME,
            "no certificate authorities are installed",
            "for registries and downloads over https: apt install ca-certificates",
        ),
    }
}

fn docker() -> Finding {
    const NAME: &str = "docker";
    if program("docker").is_none() {
        return Finding::limited(
            NAME,
            "the client is not installed",
            "only --load and `docker cbs` need it: apt install docker-cli, or docker.io",
        );
    }
    let engine = Command::new("docker")
        .args(["version", "--format", "{{.Server.Version}}"])
        .output();
    match engine {
        Ok(answer) if answer.status.success() => {
            let version = String::from_utf8_lossy(&answer.stdout).trim().to_owned();
            Finding::works(NAME, format!("engine {version}"))
        }
        _ => Finding::limited(NAME, "the client has no engine to talk to", "only --load needs one"),
    }
}
