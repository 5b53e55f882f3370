//! Whole Dockerfiles through the front door.

mod calls;
mod config;
mod contexts;
mod errors;
mod lint;
mod llb;
mod speed;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use cbs_image::platform::Platform;
use cbs_solver::llb::VertexDigest;
use cbs_solver::{BoxFuture, pb};
use cbs_store::Sha256Digest;
use prost::Message as _;

use super::{
    BuildOptions, DockerfileInput, FrontendError, ImageRequest, LintResults, Lowered, MetaResolver, NamedContext,
    ResolveError, ResolvedImage, check, lower,
};

/// A world with a few images.
struct World;

impl MetaResolver for World {
    fn image_config(&self, request: ImageRequest) -> BoxFuture<'_, Result<ResolvedImage, ResolveError>> {
        Box::pin(async move {
            let architecture = &request.platform.architecture;
            let inner = match request.reference.repository() {
                "library/alpine" | "library/lay" => r#"{"Env":["PATH=/bin"],"WorkingDir":"/"}"#,
                "library/user" => r#"{"Env":["PATH=/bin"],"User":"app","WorkingDir":"/srv"}"#,
                "library/trigger" => r#"{"Env":["PATH=/bin"],"OnBuild":["COPY --from=tools /t /t","ENV B=1"]}"#,
                "library/tools" => r#"{"Env":["PATH=/bin"]}"#,
                _ => {
                    let subject = request.reference.to_string();
                    return Err(ResolveError {
                        subject,
                        source: "not found".into(),
                    });
                }
            };
            let config = format!(
                r#"{{"architecture":"{architecture}","os":"linux","config":{inner},"history":[{{"created_by":"base"}}],
                "rootfs":{{"type":"layers","diff_ids":["sha256:00"]}}}}"#
            );
            let digest = Some(Sha256Digest::of(request.reference.repository().as_bytes()));
            Ok(ResolvedImage {
                reference: request.reference,
                digest,
                config: config.into_bytes(),
            })
        })
    }

    fn ignore_file<'a>(&'a self, local: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, ResolveError>> {
        Box::pin(async move { Ok((local == "dir").then(|| b"ignored\n".to_vec())) })
    }

    fn source_time(&self, source: pb::SourceOp) -> BoxFuture<'_, Result<Option<i64>, ResolveError>> {
        Box::pin(async move { Ok((!source.identifier.starts_with("docker-image")).then_some(1_600_000_000)) })
    }
}

fn options(attrs: &[(&str, &str)]) -> BuildOptions {
    let attrs: BTreeMap<String, String> = attrs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    BuildOptions::from_attrs(&attrs, Platform::new("linux", "amd64", "")).expect("options")
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime")
        .block_on(future)
}

fn try_lower_with(text: &str, ignore: Option<&str>, options: &BuildOptions) -> Result<Lowered, FrontendError> {
    let input = DockerfileInput {
        name: "Dockerfile",
        data: text.as_bytes(),
        ignore_file: ignore.map(str::as_bytes),
    };
    run(lower(&input, options, &World))
}

fn try_lower(text: &str, attrs: &[(&str, &str)]) -> Result<Lowered, FrontendError> {
    try_lower_with(text, None, &options(attrs))
}

fn lowered(text: &str, attrs: &[(&str, &str)]) -> Lowered {
    try_lower(text, attrs).unwrap_or_else(|error| panic!("{error}"))
}

fn linted(text: &str, ignore: Option<&str>, attrs: &[(&str, &str)]) -> LintResults {
    let input = DockerfileInput {
        name: "Dockerfile",
        data: text.as_bytes(),
        ignore_file: ignore.map(str::as_bytes),
    };
    run(check(&input, &options(attrs), &World)).expect("checks")
}

/// The first platform's graph, one vertex a line, inputs first.
fn llb(text: &str, attrs: &[(&str, &str)]) -> String {
    dump(&lowered(text, attrs).platforms[0].definition)
}

fn dump(definition: &pb::Definition) -> String {
    let mut text = String::new();
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    for (number, encoded) in definition.def.iter().enumerate() {
        let digest = VertexDigest::of(encoded).to_string();
        let op = pb::Op::decode(&encoded[..]).expect("an op");
        let inputs: Vec<String> = op.inputs.iter().map(|input| names[&input.digest].clone()).collect();
        let shown = match &op.op {
            None => format!("= {}", inputs.join(" ")),
            Some(pb::op::Op::Source(source)) => {
                let mut shown = format!("v{number} source {}", source.identifier);
                for (name, value) in &source.attrs {
                    let _ok = write!(shown, " {name}={value}");
                }
                shown
            }
            Some(pb::op::Op::Merge(_)) => format!("v{number} merge {}", inputs.join(" ")),
            Some(pb::op::Op::File(file)) => format!("v{number} file {}", dump_actions(file, &inputs)),
            Some(pb::op::Op::Exec(exec)) => format!("v{number} exec {}", dump_exec(exec, &inputs)),
            Some(other) => format!("v{number} {other:?}"),
        };
        let metadata = &definition.metadata[&digest];
        let name = metadata.description.get("llb.customname").map_or("", String::as_str);
        let platform = op.platform.as_ref().filter(|platform| platform.architecture != "amd64");
        let platform = platform
            .map(|platform| format!(" on {}", platform.architecture))
            .unwrap_or_default();
        let cache = if metadata.ignore_cache { " (no cache)" } else { "" };
        let lines = definition
            .source
            .as_ref()
            .and_then(|source| source.locations.get(&digest))
            .map(|locations| {
                let ranges = locations.locations.iter().flat_map(|location| &location.ranges);
                ranges
                    .filter_map(|range| range.start)
                    .map(|start| format!(" :{}", start.line))
                    .collect::<String>()
            });
        let comment = format!("{name}{platform}{cache}{}", lines.unwrap_or_default());
        let comment = if comment.is_empty() {
            comment
        } else {
            format!("  # {comment}")
        };
        let _ok = writeln!(text, "{shown}{comment}");
        names.insert(digest, format!("v{number}"));
    }
    text
}

fn input_name(index: i64, inputs: &[String]) -> String {
    match usize::try_from(index) {
        Err(_) => "-".to_owned(),
        Ok(index) => inputs
            .get(index)
            .cloned()
            .unwrap_or_else(|| format!("action{}", index - inputs.len())),
    }
}

fn dump_owner(owner: Option<&pb::ChownOpt>) -> String {
    let part = |user: &Option<pb::UserOpt>| match user.as_ref().and_then(|user| user.user.as_ref()) {
        None => String::new(),
        Some(pb::user_opt::User::ById(id)) => id.to_string(),
        Some(pb::user_opt::User::ByName(named)) => format!("{}@{}", named.name, named.input),
    };
    owner
        .map(|owner| format!(" owner={}:{}", part(&owner.user), part(&owner.group)))
        .unwrap_or_default()
}

fn dump_actions(file: &pb::FileOp, inputs: &[String]) -> String {
    let mut shown = Vec::new();
    for action in &file.actions {
        let on = input_name(action.input, inputs);
        let from = input_name(action.secondary_input, inputs);
        shown.push(match action.action.as_ref().expect("an action") {
            pb::file_action::Action::Copy(copy) => {
                let mut text = format!(
                    "{on} copy {from}:{} -> {}{}",
                    copy.src,
                    copy.dest,
                    dump_owner(copy.owner.as_ref())
                );
                if copy.mode >= 0 && copy.mode_str.is_empty() {
                    let _ok = write!(text, " mode={:o}", copy.mode);
                }
                if !copy.mode_str.is_empty() {
                    let _ok = write!(text, " mode={}", copy.mode_str);
                }
                for (flag, set) in [
                    ("unpack", copy.attempt_unpack_docker_compatibility),
                    ("wild", copy.allow_wildcard && copy.allow_empty_wildcard),
                    ("contents", copy.dir_copy_contents),
                    ("follow", copy.follow_symlink),
                    ("parents", copy.create_dest_path),
                ] {
                    text.push_str(&if set { format!(" {flag}") } else { String::new() });
                }
                for (flag, list) in [
                    ("include", &copy.include_patterns),
                    ("exclude", &copy.exclude_patterns),
                    ("required", &copy.required_paths),
                ] {
                    text.push_str(&if list.is_empty() {
                        String::new()
                    } else {
                        format!(" {flag}={list:?}")
                    });
                }
                text
            }
            pb::file_action::Action::Mkdir(mkdir) => format!(
                "{on} mkdir {} {:o}{}{}",
                mkdir.path,
                mkdir.mode,
                dump_owner(mkdir.owner.as_ref()),
                if mkdir.timestamp == -1 {
                    String::new()
                } else {
                    format!(" time={}", mkdir.timestamp)
                }
            ),
            pb::file_action::Action::Mkfile(mkfile) => format!(
                "{on} mkfile {} {:o} {:?}",
                mkfile.path,
                mkfile.mode,
                String::from_utf8_lossy(&mkfile.data)
            ),
            other => format!("{on} {other:?}"),
        });
    }
    shown.join("; ")
}

fn dump_exec(exec: &pb::ExecOp, inputs: &[String]) -> String {
    let meta = exec.meta.as_ref().expect("meta");
    let mut text = format!("{:?} env={:?} cwd={}", meta.args, meta.env, meta.cwd);
    if !meta.user.is_empty() {
        let _ok = write!(text, " user={}", meta.user);
    }
    if let Some(proxy) = &meta.proxy_env {
        let _ok = write!(text, " proxy={}|{}", proxy.http_proxy, proxy.no_proxy);
    }
    for host in &meta.extra_hosts {
        let _ok = write!(text, " host={}:{}", host.host, host.ip);
    }
    for limit in &meta.ulimit {
        let _ok = write!(text, " ulimit={}:{}:{}", limit.name, limit.soft, limit.hard);
    }
    if !meta.hostname.is_empty() {
        let _ok = write!(text, " hostname={}", meta.hostname);
    }
    if exec.network != 0 || exec.security != 0 {
        let _ok = write!(
            text,
            " net={} sec={}",
            exec.network().as_str_name(),
            exec.security().as_str_name()
        );
    }
    for env in &exec.secretenv {
        let _ok = write!(
            text,
            " secretenv={}={}{}",
            env.name,
            env.id,
            if env.optional { "?" } else { "" }
        );
    }
    for device in &exec.cdi_devices {
        let _ok = write!(
            text,
            " device={}{}",
            device.name,
            if device.optional { "?" } else { "" }
        );
    }
    for mount in &exec.mounts {
        let _ok = write!(
            text,
            "\n     {} {} <- {}",
            mount.mount_type().as_str_name(),
            mount.dest,
            input_name(mount.input, inputs)
        );
        text.push_str(&if mount.selector.is_empty() {
            String::new()
        } else {
            format!(":{}", mount.selector)
        });
        text.push_str(if mount.readonly { " ro" } else { "" });
        text.push_str(&if mount.output == -1 {
            String::new()
        } else {
            format!(" out={}", mount.output)
        });
        if let Some(cache) = &mount.cache_opt {
            let _ok = write!(text, " id={} {}", cache.id, cache.sharing().as_str_name());
        }
        if let Some(tmpfs) = &mount.tmpfs_opt {
            let _ok = write!(text, " size={}", tmpfs.size);
        }
        if let Some(secret) = &mount.secret_opt {
            let _ok = write!(
                text,
                " id={} {}:{} {:o} optional={}",
                secret.id, secret.uid, secret.gid, secret.mode, secret.optional
            );
        }
        if let Some(ssh) = &mount.ssh_opt {
            let _ok = write!(
                text,
                " id={} {}:{} {:o} optional={}",
                ssh.id, ssh.uid, ssh.gid, ssh.mode, ssh.optional
            );
        }
    }
    text
}

/// `created_by` of what the file itself adds, with `*` where there is a layer.
fn history(lowered: &Lowered) -> Vec<String> {
    let entries = lowered.platforms[0]
        .config
        .history
        .iter()
        .filter(|entry| !entry.comment.is_empty());
    entries
        .map(|entry| format!("{}{}", if entry.empty_layer { "" } else { "* " }, entry.created_by))
        .collect()
}

/// Rules and lines of all warnings.
fn rules(results: &LintResults) -> Vec<String> {
    let line = |entry: &super::LintEntry| entry.location.ranges.first().map_or(0, |range| range.start.line);
    results
        .warnings
        .iter()
        .map(|entry| format!("{}:{}", entry.rule_name, line(entry)))
        .collect()
}

fn with_context(mut options: BuildOptions, name: &str, context: NamedContext) -> BuildOptions {
    options.contexts.insert(name.to_owned(), context);
    options
}
