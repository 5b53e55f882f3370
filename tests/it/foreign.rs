//! Steps for other machines: qemu registered for one container, or by the host.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use crate::env::{Said, TestEnv};
use crate::users::User;

const HOST_TABLE: &str = "/proc/sys/fs/binfmt_misc";
const APPLETS: [&str; 10] = [
    "sh", "ls", "cat", "uname", "echo", "env", "id", "sleep", "mkdir", "test",
];

/// What Debian calls the machines that its busybox is taken for. It has no riscv64 before its version 13.
const DEBIAN: [&str; 5] = ["arm64", "armhf", "i386", "ppc64el", "s390x"];

/// Debian's static busybox for a machine, fetched by the apt of this machine without a trace in its state; those for all
/// machines at once, as it is the lists of packages that take time.
fn busybox(env: &TestEnv, architecture: &str) -> PathBuf {
    static DOWNLOAD: Mutex<()> = Mutex::new(());
    let _guard = DOWNLOAD.lock().unwrap_or_else(PoisonError::into_inner);
    let kept = |architecture: &str| Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("busybox-{architecture}"));
    if !kept(architecture).exists() {
        download(env, &kept);
    }
    kept(architecture)
}

fn download(env: &TestEnv, kept: &dyn Fn(&str) -> PathBuf) {
    for folder in ["apt/state/lists/partial", "apt/cache/archives/partial"] {
        fs::create_dir_all(env.path(folder)).expect("mkdir");
    }
    env.write("apt/status", "");
    let format = "$(REPO_URI) $(RELEASE) $(COMPONENT)";
    let arguments = [
        "indextargets",
        "--format",
        format,
        "Created-By: Packages",
        "Origin: Debian",
    ];
    let indexes = env.tool("apt-get", &arguments).ok().stdout;
    let mut mains = indexes.lines().filter(|line| line.ends_with(" main"));
    let main = mains
        .clone()
        .find(|line| !line.contains('-'))
        .or_else(|| mains.find(|line| !line.contains("-security")))
        .expect("apt knows a mirror of Debian");
    env.write("apt/sources.list", &format!("deb {main}\n"));
    let apt = |arguments: &[&str]| {
        let mut command = env.command("apt-get");
        command.current_dir(env.path("apt")).arg("-qq");
        for (key, value) in [
            ("Dir::State", env.at("apt/state")),
            ("Dir::State::status", env.at("apt/status")),
            ("Dir::Cache", env.at("apt/cache")),
            ("Dir::Etc::sourcelist", env.at("apt/sources.list")),
            ("Dir::Etc::sourceparts", "/dev/null".to_owned()),
            ("APT::Architecture", DEBIAN[0].to_owned()),
            ("APT::Architectures", DEBIAN.join(",")),
            ("APT::Sandbox::User", "root".to_owned()),
            ("Acquire::Languages", "none".to_owned()),
        ] {
            command.args(["-o", &format!("{key}={value}")]);
        }
        // A machine behind a proxy says so in its environment.
        command.envs(std::env::vars().filter(|(name, _)| name.to_lowercase().ends_with("_proxy")));
        Said::from(command.args(arguments).output().expect("apt-get")).ok()
    };
    apt(&["update"]);
    let packages = DEBIAN.map(|architecture| format!("busybox-static:{architecture}"));
    let packages: Vec<&str> = packages.iter().map(String::as_str).collect();
    apt(&[&["download"], &packages[..]].concat());
    for architecture in DEBIAN {
        let end = format!("_{architecture}.deb");
        let mut files = fs::read_dir(env.path("apt"))
            .expect("apt")
            .flatten()
            .map(|entry| entry.path());
        let package = files
            .find(|path| path.to_str().is_some_and(|path| path.ends_with(&end)))
            .expect("a package");
        let unpacked = format!("apt/unpacked-{architecture}");
        fs::create_dir_all(env.path(&unpacked)).expect("mkdir");
        env.tool(
            "dpkg-deb",
            &["-x", package.to_str().expect("UTF-8"), &env.at(&unpacked)],
        )
        .ok();
        let program = ["bin/busybox", "usr/bin/busybox"]
            .map(|name| env.path(&unpacked).join(name))
            .into_iter()
            .find(|path| path.exists())
            .expect("busybox in its package");
        let part = kept(architecture).with_extension("part");
        fs::copy(program, &part).expect("copy");
        fs::rename(part, kept(architecture)).expect("rename");
    }
}

/// A world whose registry has `foreign/base:1` for amd64 and arm64, made by `cbs` itself.
fn world() -> TestEnv {
    world_of(&[("linux/arm64", "arm64", "arm64")])
}

/// The same for other machines: platforms, what Dockerfiles call their architecture, and what Debian does.
fn world_of(machines: &[(&str, &str, &str)]) -> TestEnv {
    let mut env = TestEnv::new();
    env.start_registry();
    let mut programs = vec![("amd64", PathBuf::from("/bin/busybox"))];
    programs.extend(machines.iter().map(|(_, name, debian)| (*name, busybox(&env, debian))));
    for (name, program) in programs {
        let bin = env.path("base").join(name).join("bin");
        fs::create_dir_all(&bin).expect("mkdir");
        fs::copy(program, bin.join("busybox")).expect("copy");
        for applet in APPLETS {
            symlink("busybox", bin.join(applet)).expect("link");
        }
        fs::create_dir(env.path("base").join(name).join("tmp")).expect("mkdir");
    }
    env.write("base/Dockerfile", "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /\n");
    let tag = format!("{}/foreign/base:1", env.registry());
    let platforms: Vec<&str> = std::iter::once("linux/amd64")
        .chain(machines.iter().map(|(platform, ..)| *platform))
        .collect();
    let platforms = platforms.join(",");
    env.cbs(&["build", "--platform", &platforms, "--push", "-t", &tag, "base"])
        .ok();
    env
}

fn host_table() -> Vec<String> {
    let entries = fs::read_dir(HOST_TABLE)
        .map(|entries| entries.flatten().collect())
        .unwrap_or_default();
    let entries: Vec<fs::DirEntry> = entries;
    entries
        .iter()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

const NESTED: &str = r#"FROM REGISTRY/foreign/base:1
RUN uname -m > /arch && cat /arch
COPY --chmod=755 script /bin/script
RUN <<END
script by-path
/bin/env script by-env
sh -c 'sh -c "script by-shell"'
script in-background &
wait
exec script by-exec
END
RUN ["/bin/script", "as-entrypoint"]
"#;
const SCRIPT: &str = "#!/bin/sh\necho $1 says $(uname -m) and $(/bin/busybox uname -m)\n";

#[test]
fn steps_of_a_foreign_platform_run_whatever_they_start() {
    let env = world();
    let before = host_table();
    env.write("ctx/script", SCRIPT);
    env.write("ctx/Dockerfile", NESTED);
    let output = format!("type=tar,dest={}", env.at("out.tar"));
    let said = env
        .cbs(&[
            "build",
            "--progress=plain",
            "--platform",
            "linux/arm64",
            "-o",
            &output,
            "ctx",
        ])
        .ok();
    for who in [
        "by-path",
        "by-env",
        "by-shell",
        "in-background",
        "by-exec",
        "as-entrypoint",
    ] {
        let line = format!("{who} says aarch64 and aarch64");
        assert!(said.stderr.contains(&line), "no `{line}` in:\n{}", said.stderr);
    }
    assert_eq!(
        env.tool("tar", &["-xOf", &env.at("out.tar"), "arch"]).ok().stdout,
        "aarch64\n"
    );
    assert_eq!(host_table(), before, "nothing is registered for the machine");

    // Both settings hold for steps that would run otherwise.
    let configured = |emulation: &str| {
        env.write("c.toml", &format!("[build]\nemulation = \"{emulation}\"\n"));
        let config = env.at("c.toml");
        env.cbs(&[
            "--config",
            &config,
            "build",
            "--no-cache",
            "--platform",
            "linux/arm64",
            "ctx",
        ])
    };
    configured("never").fails_with(&["linux/arm64", "switched off"]);
    configured(&env.at("qemu")).fails_with(&["linux/arm64", "no `qemu-aarch64` in"]);
    let installed = [
        "/usr/libexec/qemu-binfmt/aarch64-binfmt-P",
        "/usr/bin/qemu-aarch64-static",
    ];
    let installed = installed
        .iter()
        .find(|path| Path::new(path).exists())
        .expect("qemu-user-static");
    fs::create_dir(env.path("qemu")).expect("mkdir");
    symlink(installed, env.path("qemu/qemu-aarch64-static")).expect("link");
    configured(&env.at("qemu")).ok();
    env.nothing_left();
}

#[test]
fn steps_of_every_machine_run() {
    let machines = [
        ("linux/386", "386", "i386", "x86_64"),
        ("linux/arm/v7", "arm", "armhf", "armv7l"),
        ("linux/ppc64le", "ppc64le", "ppc64el", "ppc64le"),
        ("linux/s390x", "s390x", "s390x", "s390x"),
    ];
    let env = world_of(&machines.map(|(platform, name, debian, _)| (platform, name, debian)));
    env.write("ctx/script", SCRIPT);
    env.write(
        "ctx/Dockerfile",
        "FROM REGISTRY/foreign/base:1\nARG TARGETPLATFORM\nCOPY --chmod=755 script /bin/script\n\
         RUN echo $TARGETPLATFORM > /said && sh -c 'script nested & wait' >> /said\n\
         RUN [\"/bin/script\", \"direct\"]\n",
    );
    let output = format!("type=local,dest={}", env.at("out"));
    let platforms = machines.map(|(platform, ..)| platform).join(",");
    env.cbs(&["build", "--platform", &platforms, "-o", &output, "ctx"]).ok();
    for (platform, _, _, machine) in machines {
        let folder = env.path("out").join(platform.replace('/', "_"));
        let said = fs::read_to_string(folder.join("said")).expect(platform);
        assert_eq!(said, format!("{platform}\nnested says {machine} and {machine}\n"));
    }
    // An amd64 kernel runs 386 itself; its name for the machine stays, as with other builders.
    env.write("c.toml", "[build]\nemulation = \"never\"\n");
    let config = env.at("c.toml");
    let build = |platform: &str| {
        env.cbs(&[
            "--config",
            &config,
            "build",
            "--no-cache",
            "--platform",
            platform,
            "ctx",
        ])
    };
    build("linux/386").ok();
    build("linux/arm/v7").fails_with(&["linux/arm/v7", "switched off"]);
    env.nothing_left();
}

/// A program for riscv64, for which Debian 12 has no busybox: it says so and ends with 42.
fn riscv64() -> Vec<u8> {
    const TEXT: &[u8] = b"riscv64 ran\n";
    // li a7, write; li a0, 1; auipc a1, 0; addi a1, a1, 28; li a2, 12; ecall; li a7, exit; li a0, 42; ecall
    let code: [u32; 9] = [
        64 << 20 | 17 << 7 | 0x13,
        1 << 20 | 10 << 7 | 0x13,
        11 << 7 | 0x17,
        28 << 20 | 11 << 15 | 11 << 7 | 0x13,
        (TEXT.len() as u32) << 20 | 12 << 7 | 0x13,
        0x73,
        93 << 20 | 17 << 7 | 0x13,
        42 << 20 | 10 << 7 | 0x13,
        0x73,
    ];
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend([2, 0, 243, 0, 1, 0, 0, 0]);
    for number in [0x1_0078_u64, 64, 0] {
        file.extend(number.to_le_bytes());
    }
    file.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    file.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    let size = 120 + 36 + TEXT.len() as u64;
    for number in [0, 0x1_0000, 0x1_0000, size, size, 0x1000] {
        file.extend(number.to_le_bytes());
    }
    file.extend(code.iter().flat_map(|word| word.to_le_bytes()));
    file.extend(TEXT);
    file
}

#[test]
fn a_step_for_riscv64_runs() {
    use std::os::unix::fs::PermissionsExt as _;
    let env = TestEnv::new();
    env.write("ctx/Dockerfile", "FROM scratch\nCOPY program /\nRUN [\"/program\"]\n");
    fs::write(env.path("ctx/program"), riscv64()).expect("write");
    fs::set_permissions(env.path("ctx/program"), fs::Permissions::from_mode(0o755)).expect("chmod");
    env.cbs(&["build", "--progress=plain", "--platform", "linux/riscv64", "ctx"])
        .fails_with(&["riscv64 ran", "exit code: 42"]);
    env.nothing_left();
}

#[test]
fn steps_cannot_change_the_emulator_that_runs_them() {
    use std::os::unix::fs::PermissionsExt as _;
    let env = world();
    fs::create_dir(env.path("qemu")).expect("mkdir");
    let emulator = env.path("qemu/qemu-aarch64-static");
    fs::copy("/usr/bin/qemu-aarch64-static", &emulator).expect("qemu-user-static");
    env.write("c.toml", &format!("[build]\nemulation = \"{}\"\n", env.at("qemu")));
    // It is the file of their processes, and root there is root here as far as files go.
    env.write(
        "ctx/Dockerfile",
        "FROM REGISTRY/foreign/base:1\nRUN test $(uname -m) = aarch64 && test -e /proc/1/exe\n\
         RUN ! /bin/busybox chmod 4777 /proc/1/exe\nRUN ! /bin/busybox chown 1:1 /proc/1/exe\n\
         RUN ! (echo x >> /proc/1/exe)\n",
    );
    let config = env.at("c.toml");
    env.cbs(&["--config", &config, "build", "--platform", "linux/arm64", "ctx"])
        .ok();
    let mode = fs::metadata(&emulator).expect("stat").permissions().mode();
    assert_eq!(mode & 0o7777, 0o755);
    env.nothing_left();
}

#[test]
fn a_cross_stage_runs_here_and_the_last_stage_there() {
    let env = world();
    env.write(
        "ctx/Dockerfile",
        "FROM --platform=$BUILDPLATFORM REGISTRY/foreign/base:1 AS cross\nARG TARGETARCH BUILDARCH\n\
         RUN echo $(uname -m) makes $TARGETARCH on $BUILDARCH > /made\n\
         FROM REGISTRY/foreign/base:1\nCOPY --from=cross /made /\nRUN uname -m > /runs\n",
    );
    let output = format!("type=local,dest={}", env.at("out"));
    env.cbs(&["build", "--platform", "linux/amd64,linux/arm64", "-o", &output, "ctx"])
        .ok();
    let read = |name: &str| fs::read_to_string(env.path("out").join(name)).expect(name);
    // The tests run on amd64, as the base image has it.
    for (target, machine) in [("amd64", "x86_64"), ("arm64", "aarch64")] {
        assert_eq!(
            read(&format!("linux_{target}/made")),
            format!("x86_64 makes {target} on amd64\n")
        );
        assert_eq!(read(&format!("linux_{target}/runs")), format!("{machine}\n"));
    }
    env.nothing_left();
}

#[test]
fn users_build_foreign_platforms_too() {
    let env = world();
    env.write("ctx/script", SCRIPT);
    env.write("ctx/Dockerfile", NESTED);
    let mut digests = Vec::new();
    let (ranges, single) = (User::with_ranges(&env), User::with_one_id(&env));
    let command =
        |who: Option<&User<'_>>, args: &[&str]| who.map_or_else(|| env.cbs_command(args), |user| user.command(args));
    for who in [None, Some(&ranges), Some(&single)] {
        let at = |name: &str| who.map_or_else(|| env.at(name), |user| user.at(name));
        let output = format!("type=oci,dest={},rewrite-timestamp=true", at("out.tar"));
        let metadata = at("metadata.json");
        let args = [
            "build",
            "--platform",
            "linux/arm64",
            "--metadata-file",
            &metadata,
            "-o",
            &output,
            "ctx",
        ];
        let mut command: Command = command(who, &args);
        Said::from(command.env("SOURCE_DATE_EPOCH", "1").output().expect("cbs")).ok();
        let text = fs::read_to_string(&metadata).expect("metadata");
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        digests.push(value["containerimage.digest"].clone());
    }
    assert!(digests[0].is_string());
    assert_eq!(digests, vec![digests[0].clone(); 3]);
    ranges.nothing_left();
    single.nothing_left();
}

/// `cbs` in a mount namespace where this was done before.
fn after(env: &TestEnv, unshare: &[&str], setup: &str, args: &[&str]) -> Said {
    let mut command = env.command("unshare");
    command
        .args(unshare)
        .args([
            "--mount",
            "sh",
            "-ec",
            &format!("{setup}\nexec \"$@\""),
            "sh",
            env!("CARGO_BIN_EXE_cbs"),
        ])
        .args(args);
    command.output().expect("unshare").into()
}

/// Hides qemu, and a table of the host's if there is one.
const HIDE: &str =
    "mount --bind /dev/null /usr/bin/qemu-aarch64-static\numount /proc/sys/fs/binfmt_misc 2>/dev/null || :";

#[test]
fn without_an_emulator_the_error_says_what_to_install() {
    let env = world();
    env.write("ctx/Dockerfile", "FROM REGISTRY/foreign/base:1\nRUN id\n");
    let args = ["build", "--platform", "linux/arm64", "ctx"];
    after(&env, &[], HIDE, &args).fails_with(&[
        "Dockerfile:2",
        "cannot run steps for linux/arm64",
        "install the package `qemu-user-static`",
    ]);
    // What runs nothing needs none.
    env.write("ctx/Dockerfile", "FROM REGISTRY/foreign/base:1\nCOPY Dockerfile /\n");
    after(&env, &[], HIDE, &args).ok();
    env.nothing_left();
}

#[test]
fn an_emulator_of_the_host_is_used() {
    let env = world();
    env.write(
        "ctx/Dockerfile",
        "FROM REGISTRY/foreign/base:1\nRUN uname -m; ls /proc/sys/fs/binfmt_misc; echo listed\n",
    );
    // The host is a user namespace here, so that this machine's own table stays as it is.
    let setup = format!(
        "mount -t binfmt_misc none {HOST_TABLE}\n\
         printf '%s' ':qemu-aarch64:M::\\x7f\\x45\\x4c\\x46\\x02\\x01\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02\\x00\\xb7\\x00:\
\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x00\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xfe\\xff\\xff\\xff:\
/usr/bin/qemu-aarch64-static:OCF' > {HOST_TABLE}/register\n\
         mount --bind /dev/null /usr/bin/qemu-aarch64-static"
    );
    let args = ["build", "--progress=plain", "--platform", "linux/arm64", "ctx"];
    let said = after(&env, &["--user", "--map-root-user"], &setup, &args).ok();
    assert!(said.stderr.contains(" aarch64\n"), "{}", said.stderr);
    assert!(!said.stderr.contains("cbs-arm64"), "{}", said.stderr);
    env.nothing_left();
}
