//! The mounts of a RUN.

use cbs_solver::patterns::clean_path;
use cbs_solver::pb;

use super::super::ast::Head;
use super::super::parse::mount::{Access, Mount, MountKind, Sharing};
use super::super::source::Complaint;
use super::Convert;
use super::graph::{FileStep, MountNode, NONE, NodeId, NodeOp, named};
use super::state::{NeedInfo, StageId, StageState};

/// Mounts of a step, in the parts an op has for them.
#[derive(Default)]
pub(super) struct Mounts {
    pub(super) nodes: Vec<MountNode>,
    pub(super) secrets: Vec<pb::Mount>,
    pub(super) secret_env: Vec<pb::SecretEnv>,
    pub(super) sockets: Vec<pb::Mount>,
}

impl<'a> Convert<'a> {
    pub(super) fn add_mount(
        &mut self,
        stage: &mut StageState<'a>,
        head: &Head,
        mount: &Mount,
        source: Option<StageId>,
        mounts: &mut Mounts,
    ) -> Result<(), Complaint> {
        let need = NeedInfo {
            required: mount.required,
            lines: head.lines,
        };
        match mount.kind {
            MountKind::Secret => {
                let id = secret_id(mount);
                stage.outline.secrets.entry(id.clone()).or_insert(need);
                mounts.secrets.extend(secret_mount(mount, &id));
                mounts.secret_env.extend(mount.env.iter().map(|name| pb::SecretEnv {
                    id: id.clone(),
                    name: name.clone(),
                    optional: !mount.required,
                }));
            }
            MountKind::Ssh => {
                if !mount.source.is_empty() {
                    return Err(Complaint::new("ssh does not support source"));
                }
                let id = if mount.id.is_empty() {
                    "default".to_owned()
                } else {
                    mount.id.clone()
                };
                stage.outline.ssh.entry(id.clone()).or_insert(need);
                let socket = ssh_mount(mount, id, mounts.sockets.len());
                mounts.sockets.push(socket);
            }
            MountKind::Bind | MountKind::Cache | MountKind::Tmpfs => {
                let node = self.tree_mount(stage, mount, source)?;
                mounts.nodes.push(node);
            }
        }
        Ok(())
    }

    /// A bind, cache or tmpfs mount.
    fn tree_mount(
        &mut self,
        stage: &mut StageState<'a>,
        mount: &Mount,
        source: Option<StageId>,
    ) -> Result<MountNode, Complaint> {
        let target = clean_path(&mount.target);
        let target = if target.starts_with('/') {
            mount.target.clone()
        } else {
            clean_path(&format!("/{}/{target}", stage.dir))
        };
        if clean_path(&target) == "/" {
            return Err(Complaint::new(format!(
                "invalid mount target {target:?} (a path below it is needed: target=PATH)"
            )));
        }
        if mount.kind == MountKind::Tmpfs {
            return Ok(MountNode {
                source: None,
                mount: tmpfs_mount(&target, pb::TmpfsOpt { size: mount.size }),
            });
        }
        let path = clean_path(&format!("/{}", mount.source));
        let mut tree = match (source, &mount.from) {
            (Some(id), from) => {
                let (root, dispatched) = (self.stages[id.0].root, self.stages[id.0].dispatched);
                if !dispatched {
                    let from = from.as_deref().unwrap_or_default();
                    let message = format!(
                        "cannot mount from stage {from:?} to {:?}, stage needs to be defined before current command",
                        mount.target
                    );
                    return Err(Complaint::new(message));
                }
                let owner = self.paths_owner(id);
                self.used_paths.entry(owner).or_default().insert(path.clone());
                root
            }
            // `from=scratch`, and caches from nothing.
            (None, Some(_)) => None,
            (None, None) if mount.kind == MountKind::Cache => None,
            (None, None) => {
                self.context_paths.insert(path.clone());
                Some(self.main_context())
            }
        };
        let mut selector = if path == "/" { String::new() } else { path };
        let has_owner = mount.uid.is_some() || mount.gid.is_some() || mount.mode.is_some();
        if selector.is_empty() && has_owner {
            tree = Some(self.owned_seed(tree, mount));
            "/cache".clone_into(&mut selector);
        }
        let mut op = pb::Mount {
            selector,
            dest: target,
            output: NONE,
            readonly: mount.access == Access::ReadOnly,
            ..Default::default()
        };
        if mount.kind == MountKind::Cache {
            let namespace = self
                .build_args
                .get("BUILDKIT_CACHE_MOUNT_NS")
                .map_or("", String::as_str);
            let id = if mount.id.is_empty() {
                clean_path(&mount.target)
            } else {
                mount.id.clone()
            };
            let sharing = match mount.sharing {
                None | Some(Sharing::Shared) => pb::CacheSharingOpt::Shared,
                Some(Sharing::Private) => pb::CacheSharingOpt::Private,
                Some(Sharing::Locked) => pb::CacheSharingOpt::Locked,
            };
            op.mount_type = pb::MountType::Cache.into();
            op.cache_opt = Some(pb::CacheOpt {
                id: format!("{namespace}/{id}"),
                sharing: sharing.into(),
            });
        }
        Ok(MountNode {
            source: tree,
            mount: op,
        })
    }

    /// The first contents of a cache that belongs to someone: an empty directory of that owner and mode.
    fn owned_seed(&mut self, tree: Option<NodeId>, mount: &Mount) -> NodeId {
        let id = |id: Option<u32>| {
            Some(pb::UserOpt {
                user: Some(pb::user_opt::User::ById(id.unwrap_or(0))),
            })
        };
        let mkdir = pb::FileActionMkDir {
            path: "/cache".to_owned(),
            mode: i32::try_from(mount.mode.unwrap_or(0o755) & 0o777).unwrap_or(0o755),
            make_parents: false,
            owner: Some(pb::ChownOpt {
                user: id(mount.uid),
                group: id(mount.gid),
            }),
            timestamp: NONE,
        };
        let step = FileStep {
            source: None,
            action: pb::file_action::Action::Mkdir(mkdir),
        };
        let op = NodeOp::File {
            base: tree,
            actions: vec![step],
        };
        self.graph
            .add(op, named("[internal] setting cache mount permissions"), None)
    }
}

pub(super) fn tmpfs_mount(target: &str, tmpfs: pb::TmpfsOpt) -> pb::Mount {
    pb::Mount {
        dest: target.to_owned(),
        output: NONE,
        mount_type: pb::MountType::Tmpfs.into(),
        tmpfs_opt: Some(tmpfs),
        ..Default::default()
    }
}

fn base_name(path: &str) -> String {
    let cleaned = clean_path(path);
    cleaned
        .rsplit('/')
        .next()
        .filter(|name| !name.is_empty())
        .unwrap_or("/")
        .to_owned()
}

fn secret_id(mount: &Mount) -> String {
    match (mount.source.is_empty(), mount.id.is_empty()) {
        (false, _) => mount.source.clone(),
        (true, false) => mount.id.clone(),
        (true, true) => base_name(&mount.target),
    }
}

/// The file of a secret; one that is a variable has none unless it names a target.
fn secret_mount(mount: &Mount, id: &str) -> Option<pb::Mount> {
    let target = match (mount.target.is_empty(), &mount.env) {
        (false, _) => mount.target.clone(),
        (true, Some(_)) => return None,
        (true, None) => format!("/run/secrets/{}", base_name(id)),
    };
    Some(pb::Mount {
        input: NONE,
        output: NONE,
        dest: target,
        mount_type: pb::MountType::Secret.into(),
        secret_opt: Some(pb::SecretOpt {
            id: id.to_owned(),
            uid: mount.uid.unwrap_or(0),
            gid: mount.gid.unwrap_or(0),
            mode: mount.mode.unwrap_or(0o400),
            optional: !mount.required,
        }),
        ..Default::default()
    })
}

fn ssh_mount(mount: &Mount, id: String, number: usize) -> pb::Mount {
    let dest = if mount.target.is_empty() {
        format!("/run/buildkit/ssh_agent.{number}")
    } else {
        mount.target.clone()
    };
    pb::Mount {
        input: NONE,
        output: NONE,
        dest,
        mount_type: pb::MountType::Ssh.into(),
        ssh_opt: Some(pb::SshOpt {
            id,
            uid: mount.uid.unwrap_or(0),
            gid: mount.gid.unwrap_or(0),
            mode: mount.mode.unwrap_or(0o600),
            optional: !mount.required,
        }),
        ..Default::default()
    }
}
