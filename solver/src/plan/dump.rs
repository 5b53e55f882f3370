//! Definitions as JSON lines, in the shape of `buildctl debug dump-llb`: one op a line, with its digest and metadata.
//!
//! That shape is what Go's `encoding/json` makes of BuildKit's structs: names as in `ops.proto`, zero values left out,
//! enumerations as numbers, bytes in base64.

use std::collections::BTreeMap;
use std::io::{self, Write};

use prost::Message;
use serde_json::{Map, Value, json};

use crate::llb::{VertexDigest, pb};
use pb::file_action::Action;

/// Writes a definition's ops, one JSON object a line.
///
/// # Errors
/// [`io::Error`] of kind `InvalidData` when an op cannot be decoded, else what `out` says.
pub fn dump_llb(definition: &pb::Definition, out: &mut dyn Write) -> io::Result<()> {
    for bytes in &definition.def {
        let digest = VertexDigest::of(bytes).to_string();
        let undecodable = |err| io::Error::new(io::ErrorKind::InvalidData, format!("op {digest}: {err}"));
        let op = pb::Op::decode(bytes.as_slice()).map_err(undecodable)?;
        let metadata = definition.metadata.get(&digest).cloned().unwrap_or_default();
        let line = json!({ "Op": op_json(&op), "Digest": digest, "OpMetadata": metadata_json(&metadata) });
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// A JSON object whose zero values are left out.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    /// Adds a value unless it is what protobuf takes for absent.
    fn add(mut self, name: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        let absent = match &value {
            Value::Null | Value::Bool(false) => true,
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Number(number) => number.as_i64() == Some(0),
            Value::Bool(true) | Value::Object(_) => false,
        };
        if !absent {
            self.0.insert(name.to_owned(), value);
        }
        self
    }

    fn add_map<V: Clone + Into<Value>>(self, name: &str, map: &BTreeMap<String, V>) -> Self {
        if map.is_empty() {
            return self;
        }
        let map: Map<String, Value> = map
            .iter()
            .map(|(key, value)| (key.clone(), value.clone().into()))
            .collect();
        self.add(name, map)
    }

    /// Adds a value, zero or not.
    fn keep(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    fn done(self) -> Value {
        Value::Object(self.0)
    }
}

fn list<T>(items: &[T], json: impl Fn(&T) -> Value) -> Value {
    Value::Array(items.iter().map(json).collect())
}

fn option<T>(item: Option<&T>, json: impl Fn(&T) -> Value) -> Value {
    item.map_or(Value::Null, json)
}

fn op_json(op: &pb::Op) -> Value {
    let kind = match &op.op {
        None => Fields::default(),
        Some(pb::op::Op::Exec(exec)) => Fields::default().add("exec", exec_json(exec)),
        Some(pb::op::Op::Source(source)) => Fields::default().add(
            "source",
            Fields::default()
                .add("identifier", source.identifier.as_str())
                .add_map("attrs", &source.attrs)
                .done(),
        ),
        Some(pb::op::Op::File(file)) => {
            let actions = list(&file.actions, action_json);
            Fields::default().add("file", Fields::default().add("actions", actions).done())
        }
        Some(pb::op::Op::Build(build)) => Fields::default().add("build", build_json(build)),
        Some(pb::op::Op::Merge(merge)) => {
            let inputs = list(&merge.inputs, |part| Fields::default().add("input", part.input).done());
            Fields::default().add("merge", Fields::default().add("inputs", inputs).done())
        }
        Some(pb::op::Op::Diff(diff)) => {
            let input = |input: i64| Fields::default().add("input", input).done();
            let lower = option(diff.lower.as_ref(), |lower| input(lower.input));
            let upper = option(diff.upper.as_ref(), |upper| input(upper.input));
            Fields::default().add("diff", Fields::default().add("lower", lower).add("upper", upper).done())
        }
    };
    let input = |input: &pb::Input| {
        Fields::default()
            .add("digest", input.digest.as_str())
            .add("index", input.index)
            .done()
    };
    let constraints =
        |constraints: &pb::WorkerConstraints| Fields::default().add("filter", constraints.filter.clone()).done();
    Fields::default()
        .add("inputs", list(&op.inputs, input))
        .keep("Op", kind.done())
        .add("platform", option(op.platform.as_ref(), platform_json))
        .add("constraints", option(op.constraints.as_ref(), constraints))
        .done()
}

fn platform_json(platform: &pb::Platform) -> Value {
    Fields::default()
        .add("Architecture", platform.architecture.as_str())
        .add("OS", platform.os.as_str())
        .add("Variant", platform.variant.as_str())
        .add("OSVersion", platform.os_version.as_str())
        .add("OSFeatures", platform.os_features.clone())
        .done()
}

fn exec_json(exec: &pb::ExecOp) -> Value {
    let secret = |secret: &pb::SecretEnv| {
        Fields::default()
            .add("ID", secret.id.as_str())
            .add("name", secret.name.as_str())
            .add("optional", secret.optional)
            .done()
    };
    let device = |device: &pb::CdiDevice| {
        Fields::default()
            .add("name", device.name.as_str())
            .add("optional", device.optional)
            .done()
    };
    Fields::default()
        .add("meta", option(exec.meta.as_ref(), meta_json))
        .add("mounts", list(&exec.mounts, mount_json))
        .add("network", exec.network)
        .add("security", exec.security)
        .add("secretenv", list(&exec.secretenv, secret))
        .add("cdiDevices", list(&exec.cdi_devices, device))
        .done()
}

fn meta_json(meta: &pb::Meta) -> Value {
    let proxy = |proxy: &pb::ProxyEnv| {
        Fields::default()
            .add("http_proxy", proxy.http_proxy.as_str())
            .add("https_proxy", proxy.https_proxy.as_str())
            .add("ftp_proxy", proxy.ftp_proxy.as_str())
            .add("no_proxy", proxy.no_proxy.as_str())
            .add("all_proxy", proxy.all_proxy.as_str())
            .done()
    };
    let host = |host: &pb::HostIp| {
        Fields::default()
            .add("Host", host.host.as_str())
            .add("IP", host.ip.as_str())
            .done()
    };
    let limit = |limit: &pb::Ulimit| {
        Fields::default()
            .add("Name", limit.name.as_str())
            .add("Soft", limit.soft)
            .add("Hard", limit.hard)
            .done()
    };
    Fields::default()
        .add("args", meta.args.clone())
        .add("env", meta.env.clone())
        .add("cwd", meta.cwd.as_str())
        .add("user", meta.user.as_str())
        .add("proxy_env", option(meta.proxy_env.as_ref(), proxy))
        .add("extraHosts", list(&meta.extra_hosts, host))
        .add("hostname", meta.hostname.as_str())
        .add("ulimit", list(&meta.ulimit, limit))
        .add("cgroupParent", meta.cgroup_parent.as_str())
        .add("removeMountStubsRecursive", meta.remove_mount_stubs_recursive)
        .add("validExitCodes", meta.valid_exit_codes.clone())
        .done()
}

fn mount_json(mount: &pb::Mount) -> Value {
    let owned = |id: &str, uid: u32, gid: u32, mode: u32, optional: bool| {
        Fields::default()
            .add("ID", id)
            .add("uid", uid)
            .add("gid", gid)
            .add("mode", mode)
            .add("optional", optional)
            .done()
    };
    let tmpfs = option(mount.tmpfs_opt.as_ref(), |tmpfs| {
        Fields::default().add("size", tmpfs.size).done()
    });
    let cache = option(mount.cache_opt.as_ref(), |cache| {
        Fields::default()
            .add("ID", cache.id.as_str())
            .add("sharing", cache.sharing)
            .done()
    });
    let secret = option(mount.secret_opt.as_ref(), |secret| {
        owned(&secret.id, secret.uid, secret.gid, secret.mode, secret.optional)
    });
    let ssh = option(mount.ssh_opt.as_ref(), |ssh| {
        owned(&ssh.id, ssh.uid, ssh.gid, ssh.mode, ssh.optional)
    });
    Fields::default()
        .add("input", mount.input)
        .add("selector", mount.selector.as_str())
        .add("dest", mount.dest.as_str())
        .add("output", mount.output)
        .add("readonly", mount.readonly)
        .add("mountType", mount.mount_type)
        .add("TmpfsOpt", tmpfs)
        .add("cacheOpt", cache)
        .add("secretOpt", secret)
        .add("SSHOpt", ssh)
        .add("resultID", mount.result_id.as_str())
        .add("contentCache", mount.content_cache)
        .done()
}

fn action_json(action: &pb::FileAction) -> Value {
    let kind = match &action.action {
        None => Fields::default(),
        Some(Action::Copy(copy)) => Fields::default().add("copy", copy_json(copy)),
        Some(Action::Mkfile(file)) => Fields::default().add(
            "mkfile",
            Fields::default()
                .add("path", file.path.as_str())
                .add("mode", file.mode)
                .add("data", base64(&file.data))
                .add("owner", option(file.owner.as_ref(), owner_json))
                .add("timestamp", file.timestamp)
                .done(),
        ),
        Some(Action::Mkdir(dir)) => Fields::default().add(
            "mkdir",
            Fields::default()
                .add("path", dir.path.as_str())
                .add("mode", dir.mode)
                .add("makeParents", dir.make_parents)
                .add("owner", option(dir.owner.as_ref(), owner_json))
                .add("timestamp", dir.timestamp)
                .done(),
        ),
        Some(Action::Rm(rm)) => Fields::default().add(
            "rm",
            Fields::default()
                .add("path", rm.path.as_str())
                .add("allowNotFound", rm.allow_not_found)
                .add("allowWildcard", rm.allow_wildcard)
                .done(),
        ),
        Some(Action::Symlink(link)) => Fields::default().add(
            "symlink",
            Fields::default()
                .add("oldpath", link.oldpath.as_str())
                .add("newpath", link.newpath.as_str())
                .add("owner", option(link.owner.as_ref(), owner_json))
                .add("timestamp", link.timestamp)
                .done(),
        ),
    };
    Fields::default()
        .keep("input", action.input)
        .keep("secondaryInput", action.secondary_input)
        .keep("output", action.output)
        .keep("Action", kind.done())
        .done()
}

fn copy_json(copy: &pb::FileActionCopy) -> Value {
    Fields::default()
        .add("src", copy.src.as_str())
        .add("dest", copy.dest.as_str())
        .add("owner", option(copy.owner.as_ref(), owner_json))
        .add("mode", copy.mode)
        .add("followSymlink", copy.follow_symlink)
        .add("dirCopyContents", copy.dir_copy_contents)
        .add(
            "attemptUnpackDockerCompatibility",
            copy.attempt_unpack_docker_compatibility,
        )
        .add("createDestPath", copy.create_dest_path)
        .add("allowWildcard", copy.allow_wildcard)
        .add("allowEmptyWildcard", copy.allow_empty_wildcard)
        .add("timestamp", copy.timestamp)
        .add("include_patterns", copy.include_patterns.clone())
        .add("exclude_patterns", copy.exclude_patterns.clone())
        .add(
            "alwaysReplaceExistingDestPaths",
            copy.always_replace_existing_dest_paths,
        )
        .add("modeStr", copy.mode_str.as_str())
        .add("required_paths", copy.required_paths.clone())
        .done()
}

fn owner_json(owner: &pb::ChownOpt) -> Value {
    let user = |user: &pb::UserOpt| {
        let user = match &user.user {
            None => Fields::default(),
            Some(pb::user_opt::User::ById(id)) => Fields::default().add("byId", *id),
            Some(pb::user_opt::User::ByName(user)) => {
                let named = Fields::default()
                    .add("name", user.name.as_str())
                    .add("input", user.input);
                Fields::default().add("byName", named.done())
            }
        };
        Fields::default().keep("User", user.done()).done()
    };
    Fields::default()
        .add("user", option(owner.user.as_ref(), user))
        .add("group", option(owner.group.as_ref(), user))
        .done()
}

fn build_json(build: &pb::BuildOp) -> Value {
    let inputs: BTreeMap<String, Value> = build
        .inputs
        .iter()
        .map(|(name, input)| (name.clone(), Fields::default().add("input", input.input).done()))
        .collect();
    // The definition of a build op is rare and shown by its ops only.
    let definition = option(build.def.as_ref(), |definition| {
        Fields::default()
            .add("def", list(&definition.def, |op| base64(op).into()))
            .done()
    });
    Fields::default()
        .add("builder", build.builder)
        .add_map("inputs", &inputs)
        .add("def", definition)
        .add_map("attrs", &build.attrs)
        .done()
}

fn metadata_json(metadata: &pb::OpMetadata) -> Value {
    let group = |group: &pb::ProgressGroup| {
        Fields::default()
            .add("id", group.id.as_str())
            .add("name", group.name.as_str())
            .add("weak", group.weak)
            .done()
    };
    let export = |export: &pb::ExportCache| Fields::default().add("Value", export.value).done();
    Fields::default()
        .add("ignore_cache", metadata.ignore_cache)
        .add_map("description", &metadata.description)
        .add("export_cache", option(metadata.export_cache.as_ref(), export))
        .add_map("caps", &metadata.caps)
        .add("progress_group", option(metadata.progress_group.as_ref(), group))
        .done()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            if digit <= chunk.len() {
                text.push(char::from(DIGITS[(bits >> (18 - 6 * digit)) as usize & 63]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llb::{DefinitionBuilder, Edge};

    #[test]
    fn base64_pads() {
        let texts = [&b""[..], b"f", b"fo", b"foo", b"foob", b"\xff\xfe"].map(base64);
        assert_eq!(texts, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "//4="]);
    }

    #[test]
    fn ops_are_written_as_go_writes_them() {
        let mut builder = DefinitionBuilder::default();
        let source = pb::SourceOp {
            identifier: "docker-image://docker.io/library/alpine:3".into(),
            ..Default::default()
        };
        let base = builder.add(
            &pb::Op {
                op: Some(pb::op::Op::Source(source)),
                platform: Some(pb::Platform {
                    architecture: "amd64".into(),
                    os: "linux".into(),
                    ..Default::default()
                }),
                constraints: Some(pb::WorkerConstraints::default()),
                ..Default::default()
            },
            pb::OpMetadata {
                caps: [("source.image".to_owned(), true)].into(),
                ..Default::default()
            },
        );
        let file = pb::FileActionMkFile {
            path: "/f".into(),
            mode: 0o644,
            data: b"hi".to_vec(),
            timestamp: -1,
            ..Default::default()
        };
        let action = pb::FileAction {
            input: 0,
            secondary_input: -1,
            output: 0,
            action: Some(Action::Mkfile(file)),
        };
        let file = builder.add(
            &pb::Op {
                inputs: vec![Edge::first(base).to_input()],
                op: Some(pb::op::Op::File(pb::FileOp { actions: vec![action] })),
                ..Default::default()
            },
            pb::OpMetadata::default(),
        );
        let mut out = Vec::new();
        dump_llb(&builder.definition(Some(Edge::first(file))), &mut out).expect("dump");
        let text = String::from_utf8(out).expect("text");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            format!(
                "{}{}{}",
                r#"{"Op":{"Op":{"source":{"identifier":"docker-image://docker.io/library/alpine:3"}},"#,
                r#""platform":{"Architecture":"amd64","OS":"linux"},"constraints":{}},"#,
                format_args!(r#""Digest":"{base}","OpMetadata":{{"caps":{{"source.image":true}}}}}}"#)
            )
        );
        assert_eq!(
            lines[1],
            format!(
                "{}{}{}",
                format_args!(r#"{{"Op":{{"inputs":[{{"digest":"{base}"}}],"Op":{{"file":{{"actions":[{{"input":0,"#),
                r#""secondaryInput":-1,"output":0,"Action":{"mkfile":{"path":"/f","mode":420,"data":"aGk=","#,
                format_args!(r#""timestamp":-1}}}}}}]}}}}}},"Digest":"{file}","OpMetadata":{{}}}}"#)
            )
        );
        assert_eq!(lines.len(), 3);
        assert!(lines[2].starts_with(&format!(r#"{{"Op":{{"inputs":[{{"digest":"{file}"}}],"Op":{{}}}},"#)));
    }
}
