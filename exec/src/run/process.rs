//! The process of an exec op: who it runs as, its environment, and the files that every container gets.

use std::ffi::OsString;
use std::sync::Arc;

use cbs_solver::{FailureKind, StepError, pb};
use cbs_store::TreeDigest;

use super::network::StepNetwork;
use crate::executor::Shared;
use crate::file::read_file;
use crate::launch::users::{self, UserFiles};
use crate::launch::{MountSpec, ProcessSpec, Rlimit, RlimitResource, Stdio};

/// BuildKit's name for its sandboxes.
const HOSTNAME: &str = "buildkitsandbox";
/// BuildKit's default search path on Linux.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What [`build`] makes.
pub(super) struct Process {
    pub(super) process: ProcessSpec,
    pub(super) hostname: String,
    pub(super) files: Vec<MountSpec>,
}

pub(super) fn build(
    shared: &Shared,
    op: &pb::ExecOp,
    meta: &pb::Meta,
    root: &TreeDigest,
    network: &StepNetwork,
) -> Result<Process, StepError> {
    let store = &shared.config.store;
    let passwd = read_file(store, root, "/etc/passwd")?.unwrap_or_default();
    let group = read_file(store, root, "/etc/group")?.unwrap_or_default();
    let files = UserFiles {
        passwd: &passwd,
        group: &group,
    };
    let user = users::resolve(&meta.user, files)
        .map_err(|err| StepError::caused(FailureKind::Invalid, err.to_string(), err))?;

    let mut env: Vec<String> = meta.env.clone();
    let has = |env: &[String], name: &str| env.iter().any(|entry| entry.split('=').next() == Some(name));
    if !has(&env, "PATH") {
        env.push(format!("PATH={PATH}"));
    }
    if !has(&env, "HOME") {
        env.push(format!("HOME={}", users::home(user.uid, &passwd)));
    }
    if let Some(proxy) = &meta.proxy_env {
        let pairs = [
            ("HTTP_PROXY", &proxy.http_proxy),
            ("HTTPS_PROXY", &proxy.https_proxy),
            ("FTP_PROXY", &proxy.ftp_proxy),
            ("NO_PROXY", &proxy.no_proxy),
            ("ALL_PROXY", &proxy.all_proxy),
        ];
        for (name, value) in pairs.into_iter().filter(|(_, value)| !value.is_empty()) {
            for name in [name.to_owned(), name.to_ascii_lowercase()] {
                if !has(&env, &name) {
                    env.push(format!("{name}={value}"));
                }
            }
        }
    }
    let mut env: Vec<OsString> = env.into_iter().map(OsString::from).collect();
    for secret in &op.secretenv {
        if let Some(value) = shared.secret(&secret.id, secret.optional)? {
            let mut entry = OsString::from(format!("{}=", secret.name));
            entry.push(os_string(&value));
            env.push(entry);
        }
    }
    let cwd = if meta.cwd.is_empty() { "/" } else { &meta.cwd };
    let hostname = if meta.hostname.is_empty() {
        HOSTNAME
    } else {
        &meta.hostname
    };
    let process = ProcessSpec {
        args: meta.args.iter().map(OsString::from).collect(),
        env,
        cwd: cwd.into(),
        user,
        rlimits: rlimits(&meta.ulimit)?,
        stdio: Stdio::Captured,
    };
    let files = vec![
        MountSpec::root_file("/etc/hosts", hosts(hostname, &meta.extra_hosts, network)),
        MountSpec::root_file("/etc/resolv.conf", network.resolv_conf()),
    ];
    Ok(Process {
        process,
        hostname: hostname.to_owned(),
        files,
    })
}

/// Secrets are bytes; an environment cannot hold a NUL, so what follows one is cut, as `execve` would.
fn os_string(bytes: &[u8]) -> OsString {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    std::os::unix::ffi::OsStringExt::from_vec(bytes[..end].to_vec())
}

/// `/etc/hosts` as BuildKit writes it.
fn hosts(hostname: &str, extra: &[pb::HostIp], network: &StepNetwork) -> Arc<[u8]> {
    let mut text = format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for host in extra {
        text.push_str(&format!("{}\t{}\n", network.address(&host.ip), host.host));
    }
    text.into_bytes().into()
}

fn rlimits(ulimits: &[pb::Ulimit]) -> Result<Vec<Rlimit>, StepError> {
    let limit = |value: i64| u64::try_from(value).ok();
    let one = |ulimit: &pb::Ulimit| {
        let resource = match ulimit.name.as_str() {
            "as" => RlimitResource::As,
            "core" => RlimitResource::Core,
            "cpu" => RlimitResource::Cpu,
            "data" => RlimitResource::Data,
            "fsize" => RlimitResource::Fsize,
            "locks" => RlimitResource::Locks,
            "memlock" => RlimitResource::Memlock,
            "msgqueue" => RlimitResource::Msgqueue,
            "nice" => RlimitResource::Nice,
            "nofile" => RlimitResource::Nofile,
            "nproc" => RlimitResource::Nproc,
            "rss" => RlimitResource::Rss,
            "rtprio" => RlimitResource::Rtprio,
            "rttime" => RlimitResource::Rttime,
            "sigpending" => RlimitResource::Sigpending,
            "stack" => RlimitResource::Stack,
            name => return Err(crate::error::invalid(format!("there is no ulimit `{name}`"))),
        };
        Ok(Rlimit {
            resource,
            soft: limit(ulimit.soft),
            hard: limit(ulimit.hard),
        })
    };
    ulimits.iter().map(one).collect()
}
