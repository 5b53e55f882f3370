use cbs_store::{BlobStore, Directory, DirectoryStore, Entry, Layer, Metadata, Node, Snapshot, Timestamp, TreeDigest};
use pb::file_action::Action;

use super::*;
use crate::graph::{EdgeId, Graph, Request};
use crate::index::MemoryIndex;
use crate::llb::{DefinitionBuilder, Edge};

/// A vertex over `inputs` sources, as the graph makes it.
fn vertex(op: pb::op::Op, platform: Option<&str>, inputs: usize) -> Vertex {
    let mut builder = DefinitionBuilder::default();
    let edges: Vec<pb::Input> = (0..inputs)
        .map(|number| {
            let source = pb::op::Op::Source(pb::SourceOp {
                identifier: format!("local://{number}"),
                ..Default::default()
            });
            let op = pb::Op {
                op: Some(source),
                ..Default::default()
            };
            Edge::first(builder.add(&op, Default::default())).to_input()
        })
        .collect();
    let op = pb::Op {
        inputs: edges,
        op: Some(op),
        platform: platform.map(|architecture| pb::Platform {
            architecture: architecture.into(),
            os: "linux".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let root = builder.add(&op, Default::default());
    let request = Request {
        name: "t".into(),
        definition: builder.definition(Some(Edge::first(root))),
    };
    let graph = Graph::build(&[request]).expect("graph");
    Vertex::clone(graph.vertex(graph.find(&root).expect("root")))
}

fn exec() -> pb::ExecOp {
    pb::ExecOp {
        meta: Some(pb::Meta {
            args: vec!["make".into(), "all".into()],
            env: vec!["PATH=/bin".into()],
            cwd: "/src".into(),
            ..Default::default()
        }),
        mounts: vec![
            mount("/", 0, 0),
            pb::Mount {
                readonly: true,
                selector: "/lib".into(),
                ..mount("/lib", 1, -1)
            },
        ],
        ..Default::default()
    }
}

fn mount(dest: &str, input: i64, output: i64) -> pb::Mount {
    pb::Mount {
        dest: dest.into(),
        input,
        output,
        ..Default::default()
    }
}

fn exec_key(exec: pb::ExecOp, platform: &str) -> CacheKey {
    let vertex = vertex(pb::op::Op::Exec(exec), Some(platform), 2);
    definition_key(&vertex, &[CacheKey::from_bytes([1; 32]), CacheKey::from_bytes([2; 32])])
}

/// How an exec is changed in a row of a table.
type Change = fn(&mut pb::ExecOp);

fn meta(exec: &mut pb::ExecOp) -> &mut pb::Meta {
    exec.meta.as_mut().expect("meta")
}

#[test]
fn what_can_change_a_result_is_in_the_key_of_an_exec() {
    let plain = exec_key(exec(), "amd64");
    let rows: &[(&str, Change)] = &[
        ("argument", |exec| meta(exec).args[1] = "test".into()),
        ("argument boundary", |exec| meta(exec).args = vec!["make all".into()]),
        ("environment", |exec| meta(exec).env.push("A=".into())),
        ("order of environment", |exec| {
            meta(exec).env.insert(0, "PATH=/sbin".into())
        }),
        ("directory", |exec| meta(exec).cwd = "/".into()),
        ("user", |exec| meta(exec).user = "app".into()),
        ("hostname", |exec| meta(exec).hostname = "box".into()),
        ("exit codes", |exec| meta(exec).valid_exit_codes = vec![0, 1]),
        ("ulimit", |exec| {
            meta(exec).ulimit.push(pb::Ulimit {
                name: "nofile".into(),
                soft: 1,
                hard: 1,
            })
        }),
        ("network", |exec| exec.network = pb::NetMode::None.into()),
        ("security", |exec| exec.security = pb::SecurityMode::Insecure.into()),
        ("read-only", |exec| exec.mounts[1].readonly = false),
        ("where", |exec| exec.mounts[1].dest = "/usr/lib".into()),
        ("which path", |exec| exec.mounts[1].selector = "/usr/lib".into()),
        ("which input", |exec| exec.mounts[1].input = 0),
        ("scratch", |exec| exec.mounts[1].input = -1),
        ("secret", |exec| {
            exec.secretenv.push(pb::SecretEnv {
                id: "token".into(),
                name: "TOKEN".into(),
                optional: true,
            });
        }),
        ("tmpfs", |exec| {
            exec.mounts.push(pb::Mount {
                mount_type: pb::MountType::Tmpfs.into(),
                ..mount("/tmp", -1, -1)
            });
        }),
    ];
    let mut seen = vec![("plain", plain)];
    for (name, change) in rows {
        let mut changed = exec();
        change(&mut changed);
        let key = exec_key(changed, "amd64");
        let same = seen.iter().find(|(_, other)| *other == key);
        assert_eq!(same, None, "{name} makes no difference");
        seen.push((name, key));
    }
    assert_ne!(exec_key(exec(), "arm64"), plain);
}

#[test]
fn what_cannot_change_a_result_is_in_no_key() {
    let full = || {
        let mut exec = exec();
        meta(&mut exec).extra_hosts = vec![pb::HostIp {
            host: "db".into(),
            ip: "10.0.0.1".into(),
        }];
        exec.mounts.push(pb::Mount {
            mount_type: pb::MountType::Cache.into(),
            cache_opt: Some(pb::CacheOpt {
                id: "apt".into(),
                sharing: 0,
            }),
            ..mount("/var/cache", -1, -1)
        });
        exec
    };
    let plain = exec_key(full(), "amd64");
    let rows: &[(&str, Change)] = &[
        ("proxy", |exec| {
            meta(exec).proxy_env = Some(pb::ProxyEnv {
                http_proxy: "http://proxy".into(),
                ..Default::default()
            });
        }),
        ("address of a host", |exec| {
            meta(exec).extra_hosts[0].ip = "10.0.0.2".into()
        }),
        ("cgroup", |exec| meta(exec).cgroup_parent = "/slow".into()),
        ("cache id", |exec| {
            exec.mounts[2].cache_opt.as_mut().expect("cache").id = "other".into()
        }),
        ("cache sharing", |exec| {
            exec.mounts[2].cache_opt.as_mut().expect("cache").sharing = 2
        }),
        ("result id", |exec| exec.mounts[0].result_id = "x".into()),
    ];
    for (name, change) in rows {
        let mut changed = full();
        change(&mut changed);
        assert_eq!(exec_key(changed, "amd64"), plain, "{name}");
    }
}

#[test]
fn inputs_and_their_outputs_are_in_the_key() {
    let plain = vertex(pb::op::Op::Exec(exec()), None, 2);
    let keys = |a: u8, b: u8| [CacheKey::from_bytes([a; 32]), CacheKey::from_bytes([b; 32])];
    let mut other_output = plain.clone();
    other_output.inputs[1] = EdgeId {
        output: 1,
        ..other_output.inputs[1]
    };
    let all = [
        definition_key(&plain, &keys(1, 2)),
        definition_key(&plain, &keys(2, 1)),
        definition_key(&plain, &keys(1, 3)),
        definition_key(&other_output, &keys(1, 2)),
    ];
    assert!(
        (1..all.len()).all(|number| !all[..number].contains(&all[number])),
        "{all:?}"
    );
    assert_eq!(op_key(&plain), op_key(&plain));
}

#[test]
fn a_source_is_what_it_denotes() {
    let source = |identifier: &str| {
        vertex(
            pb::op::Op::Source(pb::SourceOp {
                identifier: identifier.into(),
                ..Default::default()
            }),
            None,
            0,
        )
    };
    let pin = |key: &str| SourcePin {
        key: key.into(),
        text: String::new(),
        snapshot: None,
    };
    let key = |identifier: &str, text: &str| source_key(&source(identifier), &pin(text)).0;
    assert_eq!(
        key("docker-image://a:1", "sha256:1"),
        key("docker-image://a:2", "sha256:1")
    );
    assert_ne!(
        key("docker-image://a:1", "sha256:1"),
        key("docker-image://a:1", "sha256:2")
    );
    assert_ne!(key("docker-image://a:1", "sha256:1"), key("local://a:1", "sha256:1"));
}

/// A tree from paths one level deep: `("dir/file", text)`.
fn tree(index: &MemoryIndex, files: &[(&str, &str)], mtime: i64, mode: u32) -> TreeDigest {
    let meta = |mode| Metadata {
        mtime: Timestamp {
            seconds: mtime,
            nanos: 0,
        },
        ..Metadata::new(mode)
    };
    let mut root = Directory {
        root: Some(meta(mode)),
        ..Directory::default()
    };
    let mut folders = std::collections::BTreeMap::<&str, Directory>::new();
    for (path, text) in files {
        let (folder, name) = path.split_once('/').unwrap_or(("", path));
        let entry = Entry {
            name: name.into(),
            meta: meta(0o644),
            node: Node::File {
                blob: index.put_bytes(text.as_bytes()).expect("blob"),
                size: text.len() as u64,
                link: None,
            },
        };
        match folder {
            "" => root.set(entry),
            folder => folders.entry(folder).or_default().set(entry),
        }
    }
    for (name, folder) in folders {
        root.set(Entry {
            name: name.into(),
            meta: meta(0o755),
            node: Node::Directory(index.put_directory(folder).expect("directory")),
        });
    }
    index.put_directory(root).expect("directory").digest
}

/// The content key of a vertex over trees, each a snapshot of one layer.
fn key_over(index: &MemoryIndex, vertex: &Vertex, trees: &[TreeDigest]) -> CacheKey {
    let inputs: Vec<ContentInput> = trees
        .iter()
        .map(|&tree| {
            let layers = vec![Layer {
                diff: tree,
                diff_id: None,
            }];
            ContentInput {
                outputs: Outputs::new(vec![Some(Snapshot { tree, layers })], Vec::new()),
                output: 0,
                definition_key: CacheKey::from_bytes([7; 32]),
            }
        })
        .collect();
    content_key(index, &Views::default(), vertex, &inputs).expect("key").0
}

#[test]
fn an_exec_sees_its_root_and_what_is_mounted() {
    let index = MemoryIndex::default();
    let plain = vertex(pb::op::Op::Exec(exec()), None, 2);
    let root = tree(&index, &[("os", "debian")], 1, 0o755);
    let with = |root: TreeDigest, files: &[(&str, &str)], mtime: i64| {
        key_over(&index, &plain, &[root, tree(&index, files, mtime, 0o755)])
    };
    let key = with(root, &[("lib/a", "1"), ("other", "1")], 1);
    assert_eq!(
        with(root, &[("lib/a", "1"), ("other", "2")], 9),
        key,
        "only /lib is mounted, and times do not count"
    );
    assert_ne!(with(root, &[("lib/a", "2"), ("other", "1")], 1), key);
    assert_ne!(with(root, &[("lib/b", "1"), ("other", "1")], 1), key);
    assert_ne!(
        with(root, &[("other", "1")], 1),
        key,
        "that nothing is there counts too"
    );
    let sticky = tree(&index, &[("os", "debian")], 1, 0o1777);
    assert_ne!(
        with(sticky, &[("lib/a", "1"), ("other", "1")], 1),
        key,
        "the root's own mode counts"
    );
    let later = tree(&index, &[("os", "debian")], 5, 0o755);
    assert_eq!(with(later, &[("lib/a", "1"), ("other", "1")], 1), key);
    let mut moved = exec();
    moved.mounts[1].selector = "/usr".into();
    let moved = vertex(pb::op::Op::Exec(moved), None, 2);
    let library = tree(&index, &[("usr/a", "1")], 1, 0o755);
    assert_eq!(
        key_over(&index, &moved, &[root, library]),
        key,
        "the path that led there does not count"
    );
}

fn copy(change: impl FnOnce(&mut pb::FileActionCopy)) -> pb::op::Op {
    let mut copy = pb::FileActionCopy {
        src: "/src".into(),
        dest: "/".into(),
        dir_copy_contents: true,
        ..Default::default()
    };
    change(&mut copy);
    let action = pb::FileAction {
        input: 0,
        secondary_input: 1,
        output: 0,
        action: Some(Action::Copy(copy)),
    };
    pb::op::Op::File(pb::FileOp { actions: vec![action] })
}

#[test]
fn a_copy_sees_what_it_selects() {
    let index = MemoryIndex::default();
    let base = tree(&index, &[("os", "debian")], 1, 0o755);
    let key = |op: pb::op::Op, platform: Option<&str>, files: &[(&str, &str)]| {
        key_over(&index, &vertex(op, platform, 2), &[base, tree(&index, files, 1, 0o755)])
    };
    let files = [("src/a.c", "1"), ("src/a.md", "1"), ("doc/x", "1")];
    let plain = key(copy(|_| {}), None, &files);
    assert_eq!(key(copy(|_| {}), Some("arm64"), &files), plain, "no platform");
    assert_eq!(
        key(
            copy(|_| {}),
            None,
            &[("src/a.c", "1"), ("src/a.md", "1"), ("doc/x", "2")]
        ),
        plain
    );
    let changed = [("src/a.c", "1"), ("src/a.md", "2"), ("doc/x", "1")];
    assert_ne!(key(copy(|_| {}), None, &changed), plain);
    let no_docs = |copy: &mut pb::FileActionCopy| copy.exclude_patterns = vec!["*.md".into()];
    assert_eq!(
        key(copy(no_docs), None, &files),
        key(copy(no_docs), None, &changed),
        "what is excluded does not count"
    );
    let any_c = |copy: &mut pb::FileActionCopy| {
        (copy.src, copy.allow_wildcard) = ("/src/*.c".into(), true);
    };
    assert_eq!(key(copy(any_c), None, &files), key(copy(any_c), None, &changed));
    let renamed = [("src/b.c", "1")];
    assert_ne!(
        key(copy(any_c), None, &files),
        key(copy(any_c), None, &renamed),
        "matched names count"
    );
    let owned = |copy: &mut pb::FileActionCopy| {
        let user = pb::user_opt::User::ByName(pb::NamedUserOpt {
            name: "app".into(),
            input: 1,
        });
        let user = Some(pb::UserOpt { user: Some(user) });
        copy.owner = Some(pb::ChownOpt { user, group: None });
    };
    let passwd = |text| [("src/a.c", "1"), ("etc/passwd", text)];
    assert_ne!(
        key(copy(owned), None, &passwd("app:1")),
        key(copy(owned), None, &passwd("app:2"))
    );
    assert_eq!(
        key(copy(|_| {}), None, &passwd("app:1")),
        key(copy(|_| {}), None, &passwd("app:2"))
    );
    // Copied as a thing rather than for what it holds, its last name shows in the result.
    let whole = |src: &'static str| {
        move |copy: &mut pb::FileActionCopy| {
            (copy.src, copy.dir_copy_contents) = (src.into(), false);
        }
    };
    let twins = [("a/x", "1"), ("b/x", "1")];
    assert_ne!(
        key(copy(whole("/a")), None, &twins),
        key(copy(whole("/b")), None, &twins)
    );
    assert_ne!(
        key(copy(whole("/a")), None, &twins),
        key(copy(whole("/a/.")), None, &twins)
    );
}

#[test]
fn missing_directories_ask_for_the_input_unless_the_notes_know_them() {
    let (here, gone) = (MemoryIndex::default(), MemoryIndex::default());
    let mut run = exec();
    run.mounts.pop();
    let plain = vertex(pb::op::Op::Exec(run), None, 1);
    let root = tree(&here, &[("os", "debian")], 1, 0o755);
    let snapshots = vec![Some(Snapshot {
        tree: root,
        layers: vec![Layer {
            diff: root,
            diff_id: None,
        }],
    })];
    let mut parts = KeyParts::default();
    note_outputs(&here, &Views::default(), &mut parts, &snapshots).expect("notes");
    let input = |key_parts: Vec<u8>| ContentInput {
        outputs: Outputs::new(snapshots.clone(), key_parts),
        output: 0,
        definition_key: CacheKey::from_bytes([7; 32]),
    };
    let key = |index: &MemoryIndex, key_parts| content_key(index, &Views::default(), &plain, &[input(key_parts)]);
    let (known, _) = key(&here, Vec::new()).expect("key");
    assert!(matches!(key(&gone, Vec::new()), Err(ViewError::NeedsInput(0))));
    assert_eq!(key(&gone, parts.encode()).expect("key").0, known);
}

/// Keys are a disk format: when this fails, every store forgets what it knows, and the domain tags must change.
#[test]
fn keys_are_pinned() {
    let index = MemoryIndex::default();
    let root = tree(&index, &[("os", "debian")], 1, 0o755);
    let run = vertex(pb::op::Op::Exec(exec()), Some("amd64"), 2);
    let copied = vertex(copy(|_| {}), None, 2);
    let keys = [
        exec_key(exec(), "amd64"),
        op_key(&run),
        key_over(&index, &run, &[root, root]),
        key_over(&index, &copied, &[root, root]),
    ];
    let short = keys.map(|key| key.to_string()[..16].to_owned());
    assert_eq!(
        short,
        [
            "1513c96cbe4550f0",
            "02de4500128b41f7",
            "62f04c968724c76b",
            "cd36382fee87a0da"
        ]
    );
}
