//! The executor under the real solver: containers over FUSE trees, edits, local sources. Needs root, FUSE and
//! busybox-static.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use cbs_exec::{ExecConfig, LocalExecutor, SandboxConfig, SecretSource};
use cbs_fuse::{LowerMode, Privilege};
use cbs_image::registry::{Registry, RegistryConfig};
use cbs_image::source::{ImageSource, Network};
use cbs_solver::llb::{DefinitionBuilder, Edge};
use cbs_solver::{
    CANCEL_GRACE, CacheUse, Ctx, Graph, Need, OnFailure, Parallelism, Request, SolveConfig, SolveError, SolveResult, pb,
};
use cbs_store::{Access, Blob, BlobStore, Node, Store, TreeDigest};

struct World {
    dir: tempfile::TempDir,
    store: Store,
    mode: Option<LowerMode>,
}

/// `CBS_LOWER_MODE`, so that all of these can be run in the mode that this kernel would not choose.
fn forced() -> Option<LowerMode> {
    match std::env::var("CBS_LOWER_MODE").as_deref() {
        Ok("plain") => Some(LowerMode::Plain),
        Ok("data-only") => Some(LowerMode::DataOnly),
        Ok(other) => panic!("CBS_LOWER_MODE={other}: there are plain and data-only"),
        Err(_) => None,
    }
}

impl World {
    fn new(mode: Option<LowerMode>) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("cbs-exec-")
            .tempdir()
            .expect("temp dir");
        let bin = dir.path().join("rootfs/bin");
        std::fs::create_dir_all(&bin).expect("mkdir");
        std::fs::copy("/bin/busybox", bin.join("busybox")).expect("busybox-static must be installed");
        for applet in [
            "sh", "echo", "cat", "cp", "stat", "seq", "wc", "rm", "mkdir", "ls", "id", "chmod", "sleep",
        ] {
            std::os::unix::fs::symlink("busybox", bin.join(applet)).expect("link");
        }
        std::fs::create_dir(dir.path().join("rootfs/etc")).expect("mkdir");
        std::fs::write(
            dir.path().join("rootfs/etc/passwd"),
            "root:x:0:0::/root:/bin/sh\napp:x:7:8::/home/app:/bin/sh\n",
        )
        .expect("write");
        let store = Store::open(&dir.path().join("store"), Access::ReadWrite).expect("store");
        Self { dir, store, mode }
    }

    fn solve(&self, graph: &Arc<Graph>) -> Result<SolveResult, SolveError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .expect("runtime");
        let lease = Arc::new(self.store.lease().expect("lease"));
        let registry = Registry::new(RegistryConfig::default());
        let executor = LocalExecutor::new(ExecConfig {
            store: self.store.clone(),
            lease: Arc::clone(&lease),
            images: ImageSource::new(self.store.clone(), registry, Network::Offline, NonZeroUsize::MIN),
            locals: BTreeMap::from([("rootfs".to_owned(), self.dir.path().join("rootfs"))]),
            layouts: BTreeMap::new(),
            secrets: BTreeMap::from([("token".to_owned(), SecretSource::Value(b"s3cret".as_slice().into()))]),
            ssh: BTreeMap::new(),
            pins: Arc::default(),
            network: Network::Online,
            sandbox: SandboxConfig::default(),
            privilege: Privilege::detect(),
            standing: Default::default(),
            devices: Default::default(),
            lower_mode: self.mode,
        });
        let mut ctx = Ctx::over_store(self.store.clone(), Arc::new(executor)).expect("context");
        ctx.lease = Some(lease);
        let config = SolveConfig {
            parallelism: Parallelism::Fixed(NonZeroUsize::new(4).expect("not zero")),
            on_failure: OnFailure::Stop,
            cache: CacheUse::ReadWrite,
            need: Need::Layers,
            cancel_grace: CANCEL_GRACE,
        };
        runtime.block_on(cbs_solver::solve(&ctx, graph, &config))
    }

    fn has(&self, tree: &TreeDigest, path: &str) -> bool {
        cbs_store::edit::lookup(&self.store, tree, path)
            .expect("lookup")
            .is_some()
    }

    fn text(&self, tree: &TreeDigest, path: &str) -> String {
        let entry = cbs_store::edit::lookup(&self.store, tree, path)
            .expect("lookup")
            .expect(path);
        let Node::File { blob, .. } = entry.node else {
            panic!("{path} is no file")
        };
        match self.store.blob(&blob).expect("blob").expect("present") {
            Blob::Small(bytes) => String::from_utf8(bytes.to_vec()).expect("UTF-8"),
            large => std::io::read_to_string(large.reader()).expect("read"),
        }
    }
}

fn source(builder: &mut DefinitionBuilder) -> Edge {
    let source = pb::SourceOp {
        identifier: "local://rootfs".into(),
        ..Default::default()
    };
    Edge::first(builder.add(&op(pb::op::Op::Source(source), &[]), pb::OpMetadata::default()))
}

fn op(op: pb::op::Op, inputs: &[Edge]) -> pb::Op {
    pb::Op {
        inputs: inputs.iter().map(|edge| edge.to_input()).collect(),
        op: Some(op),
        ..Default::default()
    }
}

fn exec(builder: &mut DefinitionBuilder, base: Edge, script: &str, more: Vec<pb::Mount>, user: &str) -> Edge {
    let meta = pb::Meta {
        args: vec!["/bin/sh".into(), "-c".into(), script.into()],
        env: vec!["PATH=/bin".into()],
        cwd: "/".into(),
        user: user.into(),
        ..Default::default()
    };
    let mut mounts = vec![pb::Mount {
        dest: "/".into(),
        ..Default::default()
    }];
    mounts.extend(more);
    let exec = pb::ExecOp {
        meta: Some(meta),
        mounts,
        ..Default::default()
    };
    Edge::first(builder.add(&op(pb::op::Op::Exec(exec), &[base]), pb::OpMetadata::default()))
}

fn graph(builder: &DefinitionBuilder, root: Edge) -> Arc<Graph> {
    let definition = builder.definition(Some(root));
    Arc::new(
        Graph::build(&[Request {
            name: "test".into(),
            definition,
        }])
        .expect("graph"),
    )
}

fn root_of(result: &SolveResult) -> (TreeDigest, usize) {
    let snapshot = result.targets[0].snapshot.as_ref().expect("a snapshot");
    (snapshot.tree, snapshot.layers.len())
}

fn steps_build_on_each_other(mode: LowerMode) {
    let world = World::new(Some(mode));
    let mut builder = DefinitionBuilder::default();
    let base = source(&mut builder);
    let script = "seq 20000 > /large; echo small > /small; mkdir -p /d/e; chmod 777 /d /d/e";
    let one = exec(&mut builder, base, script, vec![], "");
    let user = exec(&mut builder, one, "id > /d/id; echo $HOME >> /d/id", vec![], "app");
    let script = "cat /large | wc -l > /lines; rm /small; cp /d/id /d/e/copy; ls /proc/self > /dev/null";
    let two = exec(&mut builder, user, script, vec![], "");
    let graph = graph(&builder, two);
    let result = world.solve(&graph).unwrap_or_else(|err| panic!("{err}: {err:?}"));
    let (tree, layers) = root_of(&result);
    assert_eq!(layers, 4);
    assert_eq!(world.text(&tree, "/lines").trim(), "20000");
    assert_eq!(world.text(&tree, "/d/e/copy"), "uid=7(app) gid=8 groups=8\n/home/app\n");
    assert!(!world.has(&tree, "/small"));
    assert!(
        !world.has(&tree, "/etc/hosts") && !world.has(&tree, "/etc/resolv.conf"),
        "stubs never reach a layer"
    );
    let again = world.solve(&graph).expect("again");
    assert_eq!((again.stats.ran, root_of(&again)), (0, (tree, layers)));
    assert_eq!(leftovers(world), Vec::<String>::new());
}

#[test]
fn steps_over_data_only_layers_as_root() {
    steps_build_on_each_other(LowerMode::DataOnly);
}

#[test]
fn steps_over_plain_fuse_as_root() {
    steps_build_on_each_other(LowerMode::Plain);
}

#[test]
fn mounts_are_seen_and_leave_nothing_as_root() {
    let world = World::new(forced());
    let mut builder = DefinitionBuilder::default();
    let base = source(&mut builder);
    let kind = |kind: pb::MountType| i32::from(kind);
    let secret = pb::SecretOpt {
        id: "token".into(),
        mode: 0o400,
        ..Default::default()
    };
    let cache = pb::CacheOpt {
        id: "c".into(),
        sharing: 0,
    };
    let none = pb::Mount {
        input: -1,
        output: -1,
        ..Default::default()
    };
    let mounts = vec![
        pb::Mount {
            dest: "/run/secrets/token".into(),
            mount_type: kind(pb::MountType::Secret),
            secret_opt: Some(secret),
            ..none.clone()
        },
        pb::Mount {
            dest: "/cache".into(),
            mount_type: kind(pb::MountType::Cache),
            cache_opt: Some(cache),
            ..none.clone()
        },
        pb::Mount {
            dest: "/tmp/t".into(),
            mount_type: kind(pb::MountType::Tmpfs),
            ..none.clone()
        },
        pb::Mount {
            input: 0,
            selector: "/etc".into(),
            dest: "/ro".into(),
            readonly: true,
            ..none.clone()
        },
        pb::Mount {
            input: 0,
            selector: "/etc".into(),
            dest: "/rw".into(),
            ..none
        },
    ];
    let script = "cat /run/secrets/token > /cache/kept; echo x > /tmp/t/x; cat /ro/passwd > /seen; \
                  echo y > /rw/y; cat /rw/passwd >> /seen; if echo z > /ro/z; then exit 9; fi; cat /cache/kept | wc -c > /size";
    let one = exec(&mut builder, base, script, mounts, "");
    let result = world
        .solve(&graph(&builder, one))
        .unwrap_or_else(|err| panic!("{err}: {err:?}"));
    let (tree, _) = root_of(&result);
    assert_eq!(world.text(&tree, "/size").trim(), "6");
    assert_eq!(world.text(&tree, "/seen").lines().count(), 4);
    for gone in ["/cache", "/ro", "/rw", "/tmp", "/run"] {
        assert!(!world.has(&tree, gone), "{gone} reached the layer");
    }
}

#[test]
fn a_failing_step_says_its_command_and_code_as_root() {
    let world = World::new(forced());
    let mut builder = DefinitionBuilder::default();
    let base = source(&mut builder);
    let one = exec(&mut builder, base, "echo last words; exit 7", vec![], "");
    let Err(SolveError::Failed { failures, .. }) = world.solve(&graph(&builder, one)) else {
        panic!("it succeeded")
    };
    let want = "process \"/bin/sh -c echo last words; exit 7\" did not complete successfully: exit code: 7";
    assert_eq!(failures[0].error.message, want);
    assert_eq!(failures[0].log_tail, ["last words"]);
    assert_eq!(leftovers(world), Vec::<String>::new());
}

/// What is still there once nobody uses the store any more.
fn leftovers(world: World) -> Vec<String> {
    let World { dir, store, .. } = world;
    drop(store);
    let dir = dir.path();
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
    let mut left: Vec<String> = mounts
        .lines()
        .filter(|line| line.contains(&*dir.to_string_lossy()))
        .map(str::to_owned)
        .collect();
    let work = std::fs::read_dir(dir.join("store/work"))
        .into_iter()
        .flatten()
        .flatten();
    left.extend(work.map(|entry| entry.path().display().to_string()));
    left
}
