//! What needs a launcher put together by hand; `tests/launch` has the rest.

use std::path::PathBuf;

use super::super::cgroup::CgroupBase;
use super::super::report::OutputStream;
use super::super::spec::{Access, Ids, ProcessSpec, Resources, RootFs};
use super::*;

/// Looks at the cgroup's processes when the container first says something.
struct Look {
    group: PathBuf,
    seen: Option<String>,
    /// The container waits until this is closed.
    holds_up: Option<io::PipeWriter>,
}

impl OutputSink for Look {
    fn write(&mut self, _stream: OutputStream, _bytes: &[u8]) {
        let first = fs::read_dir(&self.group)
            .expect("base")
            .flatten()
            .find(|entry| entry.path().is_dir());
        let procs = first.map(|group| fs::read_to_string(group.path().join("cgroup.procs")).expect("procs"));
        self.seen = self.seen.take().or(procs);
        self.holds_up = None;
    }
}

#[test]
fn root_a_container_is_born_in_its_version_2_cgroup() {
    let hierarchies = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
    let hierarchy = hierarchies.into_iter().find(|path| path.join("cgroup.procs").exists());
    let base = hierarchy.map(|path| path.join(format!("cbs-test-{}", std::process::id())));
    let Some(base) = base.filter(|base| fs::create_dir(base).is_ok()) else {
        eprintln!("SKIPPED: no version 2 cgroup may be made here");
        return;
    };
    let launcher = Launcher {
        cgroups: Cgroups::new(CgroupBase::Unified(base.clone())),
        ..Launcher::new(Facts::probe())
    };
    let (stdin, holds_up) = io::pipe().expect("pipe");
    let spec = ContainerSpec {
        // The host's own root, read-only: enough for a shell.
        rootfs: RootFs::Bind("/".into()),
        rootfs_access: Access::ReadOnly,
        mounts: Vec::new(),
        process: ProcessSpec {
            args: vec!["/bin/sh".into(), "-c".into(), "echo ready; read -r line; exit 0".into()],
            env: Vec::new(),
            cwd: "/".into(),
            user: Ids::default(),
            rlimits: Vec::new(),
            stdio: Stdio::CapturedWithStdin(Arc::new(stdin.into())),
        },
        hostname: "test".into(),
        network: Network::Host,
        security: Security::Sandbox,
        user_namespace: None,
        emulators: Vec::new(),
        shm_size: None,
        devices: Vec::new(),
        resources: Resources {
            pids: Some(100),
            ..Resources::default()
        },
        oom_score_adj: None,
    };
    let mut look = Look {
        group: base.clone(),
        seen: None,
        holds_up: Some(holds_up),
    };
    let result = launcher.run(&spec, &CancelHandle::new().expect("eventfd"), &mut look);
    let left = fs::read_dir(&base)
        .expect("base")
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .count();
    fs::remove_dir(&base).expect("nothing is left in it");
    let report = result.expect("run");
    assert!(report.status.success(), "{report:?}");
    let seen = look.seen.expect("the group was there while the container ran");
    assert_eq!(seen.lines().count(), 1, "{seen:?}");
    assert_eq!(left, 0);
}
