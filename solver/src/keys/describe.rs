//! An op as the parts of a cache key: everything that can change its result and nothing else.
//!
//! Left out: names, progress groups, source maps, resource limits, proxy settings, addresses of extra hosts, what
//! secrets and ssh agents hold, and which cache mount is used. Two forms share this code:
//!
//! - [`Form::Definition`] names inputs by their own keys and keeps the paths that pick from them;
//! - [`Form::Content`] names what the op sees in each input, so the paths that led there are left out, as far as the
//!   result does not show them.

use pb::file_action::Action;
use pb::op::Op;

use cbs_store::patterns::clean_path;

use super::parts::KeyParts;
use crate::graph::{Vertex, platform_text};
use crate::llb::pb;

/// Which of the two keys is being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Inputs by their definition keys.
    Definition,
    /// Inputs by what is seen of them.
    Content,
}

/// What an op can see of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen<'a> {
    /// The whole tree and its layers, since the result is built upon it.
    Base,
    /// The whole tree.
    Tree,
    /// A path of the tree, links followed.
    Path(&'a str),
    /// What a copy selects.
    Copy(&'a pb::FileActionCopy),
    /// Only how it was made: the definition says not to look.
    Definition,
}

/// Asks for the digest of what is seen of an input.
pub(crate) trait Resolve {
    /// Why a digest cannot be told.
    type Error;

    /// The digest of what is seen of input `input`; `None` is the empty tree. `parts` takes notes.
    fn resolve(&mut self, parts: &mut KeyParts, input: Option<usize>, seen: &Seen<'_>)
    -> Result<[u8; 32], Self::Error>;
}

/// Describes a vertex that is no source.
pub(crate) fn describe<R: Resolve>(vertex: &Vertex, form: Form, resolve: &mut R) -> Result<KeyParts, R::Error> {
    let mut writer = Writer {
        parts: KeyParts::default(),
        form,
        resolve,
    };
    match &vertex.op {
        Op::Exec(exec) => writer.exec(vertex, exec)?,
        Op::File(file) => writer.file(vertex, file)?,
        Op::Merge(merge) => {
            writer.parts.text("operation", "merge");
            for (number, part) in merge.inputs.iter().enumerate() {
                writer.input(format!("merged input {number}"), part.input, &Seen::Base)?;
            }
        }
        Op::Diff(diff) => {
            writer.parts.text("operation", "diff");
            writer.input("lower input", diff.lower.map_or(-1, |lower| lower.input), &Seen::Base)?;
            writer.input("upper input", diff.upper.map_or(-1, |upper| upper.input), &Seen::Base)?;
        }
        Op::Build(build) => writer.build(vertex, build)?,
        Op::Source(source) => {
            writer.parts.text("operation", "source");
            writer.parts.text("source", &source.identifier);
        }
    }
    Ok(writer.parts)
}

struct Writer<'a, R> {
    parts: KeyParts,
    form: Form,
    resolve: &'a mut R,
}

impl<R: Resolve> Writer<'_, R> {
    fn input(&mut self, name: impl Into<String>, input: i64, seen: &Seen<'_>) -> Result<(), R::Error> {
        // Indices are checked by the graph; -1 is the empty tree.
        let input = usize::try_from(input).ok();
        let digest = self.resolve.resolve(&mut self.parts, input, seen)?;
        self.parts.digest(name, digest);
        Ok(())
    }

    fn platform(&mut self, vertex: &Vertex) {
        let Some(platform) = &vertex.platform else { return };
        self.parts.text("platform", platform_text(platform));
        self.parts.text_if("platform version", &platform.os_version);
        for feature in &platform.os_features {
            self.parts.text("platform feature", feature);
        }
    }

    fn exec(&mut self, vertex: &Vertex, exec: &pb::ExecOp) -> Result<(), R::Error> {
        let parts = &mut self.parts;
        parts.text("operation", "exec");
        if let Some(meta) = &exec.meta {
            for (number, argument) in meta.args.iter().enumerate() {
                parts.text(format!("argument {number}"), argument);
            }
            for variable in &meta.env {
                let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
                parts.text(format!("environment {name}"), value);
            }
            parts.text("working directory", &meta.cwd);
            parts.text_if("user", &meta.user);
            parts.text_if("hostname", &meta.hostname);
            for host in &meta.extra_hosts {
                parts.text("extra host", &host.host);
            }
            for limit in &meta.ulimit {
                parts.text(
                    format!("ulimit {}", limit.name),
                    format!("{}:{}", limit.soft, limit.hard),
                );
            }
            parts.number_if("remove mount stubs", u64::from(meta.remove_mount_stubs_recursive));
            for code in &meta.valid_exit_codes {
                parts.text("valid exit code", code.to_string());
            }
        }
        parts.number_if("network mode", exec.network as u64);
        parts.number_if("security mode", exec.security as u64);
        for secret in &exec.secretenv {
            let text = format!("{} optional={}", secret.id, secret.optional);
            parts.text(format!("secret environment {}", secret.name), text);
        }
        for device in &exec.cdi_devices {
            parts.text("device", format!("{} optional={}", device.name, device.optional));
        }
        self.platform(vertex);
        for mount in &exec.mounts {
            self.mount(mount)?;
        }
        Ok(())
    }

    fn mount(&mut self, mount: &pb::Mount) -> Result<(), R::Error> {
        let name = format!("mount {}", mount.dest);
        let parts = &mut self.parts;
        match mount.mount_type() {
            pb::MountType::Bind => {}
            pb::MountType::Secret => {
                let secret = mount.secret_opt.clone().unwrap_or_default();
                let (id, uid, gid, mode) = (secret.id, secret.uid, secret.gid, secret.mode);
                let text = format!(
                    "secret {id} owner={uid}:{gid} mode={mode:o} optional={}",
                    secret.optional
                );
                parts.text(name, text);
                return Ok(());
            }
            pb::MountType::Ssh => {
                let ssh = mount.ssh_opt.clone().unwrap_or_default();
                let (id, uid, gid, mode) = (ssh.id, ssh.uid, ssh.gid, ssh.mode);
                parts.text(
                    name,
                    format!("ssh {id} owner={uid}:{gid} mode={mode:o} optional={}", ssh.optional),
                );
                return Ok(());
            }
            pb::MountType::Tmpfs => {
                let size = mount.tmpfs_opt.unwrap_or_default().size;
                parts.text(name, format!("tmpfs size={size}"));
                return Ok(());
            }
            // Which cache and who shares it changes how fast a step is, not what it means.
            pb::MountType::Cache => {
                parts.text(&name, "cache");
                if mount.input < 0 {
                    return Ok(());
                }
            }
        }
        let access = if mount.readonly { "read-only" } else { "read-write" };
        self.parts.text(&name, format!("{access} output={}", mount.output));
        // A mount that can be written to and whose result is kept builds upon its input.
        let extends = !mount.readonly && mount.output >= 0;
        let seen = match mount.content_cache() {
            pb::MountContentCache::Off => Seen::Definition,
            // The result is the whole input with changes below the mounted path.
            _ if extends => Seen::Base,
            _ if is_root(&mount.selector) => Seen::Tree,
            _ => Seen::Path(&mount.selector),
        };
        // What is seen below a path says all, unless the digest covers more than that.
        if self.form == Form::Definition || !matches!(seen, Seen::Path(_)) {
            self.parts.text_if(format!("path in {name}"), &mount.selector);
        }
        self.input(format!("content of {name}"), mount.input, &seen)
    }

    fn file(&mut self, vertex: &Vertex, file: &pb::FileOp) -> Result<(), R::Error> {
        let inputs = vertex.inputs.len();
        self.parts.text("operation", "file");
        for (number, action) in file.actions.iter().enumerate() {
            let name = |what: &str| {
                if file.actions.len() == 1 {
                    what.to_owned()
                } else {
                    format!("{what} of action {number}")
                }
            };
            self.parts.text(name("output"), action.output.to_string());
            self.action_input(name("base"), action.input, inputs, &Seen::Base)?;
            match &action.action {
                Some(Action::Copy(copy)) => self.copy(&name, copy, action.secondary_input, inputs)?,
                Some(Action::Mkfile(file)) => {
                    self.parts.text(name("mkfile"), &file.path);
                    self.parts.text(name("mode"), format!("{:o}", file.mode));
                    self.parts.text(name("data"), &file.data);
                    self.made(&name, file.owner.as_ref(), file.timestamp, inputs)?;
                }
                Some(Action::Mkdir(dir)) => {
                    self.parts.text(name("mkdir"), &dir.path);
                    self.parts.text(name("mode"), format!("{:o}", dir.mode));
                    self.parts.number_if(name("make parents"), u64::from(dir.make_parents));
                    self.made(&name, dir.owner.as_ref(), dir.timestamp, inputs)?;
                }
                Some(Action::Symlink(link)) => {
                    self.parts.text(name("symlink"), &link.newpath);
                    self.parts.text(name("link text"), &link.oldpath);
                    self.made(&name, link.owner.as_ref(), link.timestamp, inputs)?;
                }
                Some(Action::Rm(rm)) => {
                    self.parts.text(name("rm"), &rm.path);
                    self.parts
                        .number_if(name("allow not found"), u64::from(rm.allow_not_found));
                    self.parts
                        .number_if(name("allow wildcard"), u64::from(rm.allow_wildcard));
                }
                None => {}
            }
        }
        Ok(())
    }

    fn copy(
        &mut self,
        name: &dyn Fn(&str) -> String,
        copy: &pb::FileActionCopy,
        input: i64,
        inputs: usize,
    ) -> Result<(), R::Error> {
        let parts = &mut self.parts;
        // The result of an earlier action has no content yet, so its path cannot be replaced by what is there.
        let from_input = usize::try_from(input).is_ok_and(|input| input < inputs);
        if self.form == Form::Definition || !from_input {
            parts.text(name("copy"), &copy.src);
        } else {
            // A copied file keeps the last element of its path when the destination is a folder.
            parts.text(name("copy"), base_name(&copy.src));
        }
        parts.text(name("destination"), &copy.dest);
        parts.text(name("mode"), format!("{:o} {}", copy.mode, copy.mode_str));
        let flags = [
            (copy.follow_symlink, "follow-symlink"),
            (copy.dir_copy_contents, "contents"),
            (copy.attempt_unpack_docker_compatibility, "unpack"),
            (copy.create_dest_path, "create-destination"),
            (copy.allow_wildcard, "wildcard"),
            (copy.allow_empty_wildcard, "empty-wildcard"),
            (copy.always_replace_existing_dest_paths, "replace"),
        ];
        let flags: Vec<&str> = flags.iter().filter(|(set, _)| *set).map(|(_, flag)| *flag).collect();
        parts.text_if(name("flags"), flags.join(" "));
        for pattern in &copy.include_patterns {
            parts.text(name("include"), pattern);
        }
        for pattern in &copy.exclude_patterns {
            parts.text(name("exclude"), pattern);
        }
        for path in &copy.required_paths {
            parts.text(name("required path"), path);
        }
        self.made(name, copy.owner.as_ref(), copy.timestamp, inputs)?;
        self.action_input(name("copied content"), input, inputs, &Seen::Copy(copy))
    }

    /// What all actions that make something have: an owner and a time.
    fn made(
        &mut self,
        name: &dyn Fn(&str) -> String,
        owner: Option<&pb::ChownOpt>,
        timestamp: i64,
        inputs: usize,
    ) -> Result<(), R::Error> {
        self.parts.text(name("timestamp"), timestamp.to_string());
        let Some(owner) = owner else { return Ok(()) };
        let kinds = [
            ("owner", &owner.user, "/etc/passwd"),
            ("group", &owner.group, "/etc/group"),
        ];
        for (what, user, table) in kinds {
            match user.as_ref().and_then(|user| user.user.as_ref()) {
                None => {}
                Some(pb::user_opt::User::ById(id)) => self.parts.number(name(what), u64::from(*id)),
                Some(pb::user_opt::User::ByName(user)) => {
                    self.parts.text(name(what), &user.name);
                    self.action_input(
                        name(&format!("{table} for {what}")),
                        user.input,
                        inputs,
                        &Seen::Path(table),
                    )?;
                }
            }
        }
        Ok(())
    }

    /// An action's input: one of the op's, or the result of an earlier action, which its number says fully.
    fn action_input(&mut self, name: String, input: i64, inputs: usize, seen: &Seen<'_>) -> Result<(), R::Error> {
        match usize::try_from(input) {
            Ok(number) if number >= inputs => {
                self.parts.number(name, (number - inputs) as u64);
                Ok(())
            }
            _ => self.input(name, input, seen),
        }
    }

    fn build(&mut self, vertex: &Vertex, build: &pb::BuildOp) -> Result<(), R::Error> {
        self.parts.text("operation", "build");
        for (name, value) in &build.attrs {
            self.parts.text(format!("attribute {name}"), value);
        }
        if let Some(definition) = &build.def {
            for op in &definition.def {
                self.parts.text("definition", op);
            }
        }
        self.platform(vertex);
        self.input("builder", build.builder, &Seen::Base)?;
        for (name, input) in &build.inputs {
            self.input(format!("build input {name}"), input.input, &Seen::Base)?;
        }
        Ok(())
    }
}

fn is_root(path: &str) -> bool {
    path.split('/').all(|element| element.is_empty() || element == ".")
}

/// The last element of a cleaned path, and the `/.` that says that the thing's own name is not wanted.
fn base_name(path: &str) -> String {
    let clean = clean_path(&format!("/{path}"));
    let name = clean.rsplit('/').next().unwrap_or_default();
    let suffix = if path == "." || path.ends_with("/.") { "/." } else { "" };
    format!("{name}{suffix}")
}
