//! The order of the steps, on which the sandbox rests.

use super::*;
use crate::launch::spec::{Emulator, IdMappings, Ids, Resources, Rlimit, RootFs, Security};

fn spec() -> ContainerSpec {
    ContainerSpec {
        rootfs: RootFs::Bind("/root".into()),
        rootfs_access: Access::ReadOnly,
        mounts: Vec::new(),
        process: ProcessSpec {
            args: vec!["tool".into(), "arg".into()],
            env: vec!["PATH=/usr/bin:bin::/bin".into(), "PATH=/other".into()],
            cwd: "/".into(),
            user: Ids {
                uid: 7,
                gid: 8,
                supplementary: vec![8],
            },
            rlimits: vec![Rlimit {
                resource: RlimitResource::Nofile,
                soft: Some(1),
                hard: None,
            }],
            stdio: Stdio::Captured,
        },
        hostname: "h".into(),
        network: Network::None,
        security: Security::Sandbox,
        user_namespace: Some(IdMappings::default()),
        emulators: vec![Emulator {
            registration: b":x:".to_vec(),
            interpreter: "/qemu".into(),
        }],
        shm_size: None,
        devices: Vec::new(),
        resources: Resources::default(),
        oom_score_adj: Some(3),
    }
}

fn mounts() -> Vec<PreparedMount> {
    let proc = NewFs {
        name: c"proc".to_owned(),
        options: Vec::new(),
        attributes: 0,
    };
    vec![
        PreparedMount {
            source: Source::InChild(proc),
            target: "/proc".into(),
            purpose: CreatedFor::System,
        },
        PreparedMount {
            source: Source::Private {
                entry: 3,
                attributes: RDONLY,
            },
            target: "/etc/hosts".into(),
            purpose: CreatedFor::Mount,
        },
    ]
}

fn inputs(mounts: &[PreparedMount]) -> Inputs<'_> {
    Inputs {
        root: 100,
        private: 101,
        mounts,
        masked: &[c"/proc/kcore"],
        sealed: &[c"/proc/sys"],
        cwd: Path::new("/w"),
        cgroups: &[102],
        id_maps_ready: Some(103),
        output: Some([104, 105]),
        groups: GroupChange::Allowed,
        capabilities: CapabilitySets {
            bounding: 3,
            permitted: 1,
        },
        filter: Some(&[]),
    }
}

#[test]
fn steps_come_in_the_order_that_keeps_the_sandbox() {
    let mounts = mounts();
    let script = write(&spec(), &inputs(&mounts)).expect("script");
    let lines: Vec<_> = script.steps.iter().map(ToString::to_string).collect();
    let want = "\
reset the signals of container
become root in the user namespace of container
put into its cgroup the container
make a cgroup namespace for the container
start a session for the container
make a keyring for the container
bring up the interface lo
set oom_score_adj to 3
cut from the host the mounts of the container
make a file system of type proc
make a file system of type binfmt_misc
make read-only /qemu
write to register
change the root directory to /
mount at /dev
copy the mount /dev/0
copy the mount /dev/3
unmount /dev
mount at /proc
mount at /proc/sys/fs/binfmt_misc
mask /proc/kcore
make read-only /proc/sys
set up standard stream 0
mount at /etc/hosts
make read-only /
set the host name h
set resource limit number 7
set the umask of the container
chdir to /w
set up standard stream 1
set up standard stream 2
change the owner of standard stream 1
change the owner of standard stream 2
close inherited descriptors of the container
install the system call filter of the container
limit the capabilities of the container
become user 7:8
set the capabilities of the container
tie to its parent the container
execute tool";
    assert_eq!(lines.join("\n"), want);
    assert_eq!(script.slots, 4);
}

#[test]
fn programs_are_looked_for_in_absolute_directories_of_the_first_path() {
    let mounts = mounts();
    let candidates = |spec: &ContainerSpec| {
        let script = write(spec, &inputs(&mounts)).expect("script");
        match script.steps.into_iter().last() {
            Some(Step::Exec(plan)) => {
                let paths = plan.candidates.into_iter().map(|candidate| candidate.path);
                (plan.lookup, paths.collect::<Vec<_>>())
            }
            _ => panic!("the last step executes"),
        }
    };
    let mut spec = spec();
    assert_eq!(
        candidates(&spec),
        (
            Lookup::InPath,
            vec![c"/usr/bin/tool".to_owned(), c"/bin/tool".to_owned()]
        )
    );
    spec.process.args[0] = "./tool".into();
    assert_eq!(candidates(&spec), (Lookup::AsGiven, vec![c"./tool".to_owned()]));
    spec.process.args[0] = "tool".into();
    spec.process.env.clear();
    assert_eq!(candidates(&spec), (Lookup::InPath, Vec::new()));
}

#[test]
fn strings_with_nul_are_refused() {
    let mounts = mounts();
    let mut spec = spec();
    spec.process.env.push("A=\0".into());
    let want = SpecError::NulByte {
        what: "environment variable",
        text: "A=\0".into(),
    };
    assert_eq!(write(&spec, &inputs(&mounts)).err(), Some(want));
    spec.process.args.clear();
    assert_eq!(write(&spec, &inputs(&mounts)).err(), Some(SpecError::NoCommand));
}
