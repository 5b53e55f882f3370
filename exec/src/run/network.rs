//! The network of steps that ask for none in particular: a namespace of the build's own, joined to the outside by a
//! user-mode helper.
//!
//! One namespace serves all steps of a build, as starting the helper costs as much as several steps: it begins when the
//! first step is prepared, beside that preparation. A step that may do anything gets one of its own, so that what it does
//! to interfaces and routes meets no other step. Addresses are the same on every machine.
//!
//! Of a build that is offline no step has more than loopback, and none that asks for this machine's network runs. Keys do not
//! tell: what a step made with a network it also is offline.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use cbs_image::source::Network as Outside;
use cbs_solver::{FailureKind, StepError, pb};

use crate::executor::Shared;
use crate::launch::{Helper, HelperNetwork, HelperSpec, Network};

/// What a step finds at the other end of its interface.
const GATEWAY: &str = "10.0.2.2";
/// The step's own address.
const ADDRESS: &str = "10.0.2.100";
/// Where questions about names are passed on to the host's first resolver.
const RESOLVER: &str = "10.0.2.3";
/// What an extra host's address says when it means the machine that builds.
const HOST_GATEWAY: &str = "host-gateway";

/// A program that joins a network namespace to the outside without privileges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserNetwork {
    /// Which one.
    pub tool: UserNetworkTool,
    /// Where it is.
    pub program: PathBuf,
}

/// The programs that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserNetworkTool {
    /// `pasta`, of the package `passt`.
    Pasta,
    /// `slirp4netns`.
    Slirp4netns,
}

impl UserNetwork {
    /// The best one that these directories have.
    pub fn find(directories: impl IntoIterator<Item = PathBuf>) -> Option<Self> {
        let directories: Vec<PathBuf> = directories.into_iter().filter(|path| path.is_absolute()).collect();
        let tools = [
            (UserNetworkTool::Pasta, "pasta"),
            (UserNetworkTool::Slirp4netns, "slirp4netns"),
        ];
        tools.into_iter().find_map(|(tool, name)| {
            let mut candidates = directories.iter().map(|directory| directory.join(name));
            let program = candidates.find(|program| program.is_file())?;
            Some(Self { tool, program })
        })
    }

    fn args(&self, reach: Reach, resolver: &Resolver) -> Vec<OsString> {
        let mut args: Vec<OsString> = vec![self.program.clone().into()];
        let mut add = |text: &str| args.extend(text.split(' ').map(OsString::from));
        match self.tool {
            UserNetworkTool::Pasta => {
                add("--quiet --foreground --config-net --no-netns-quit --runas 0");
                // Nothing is passed on to ports of this machine or of a step unless it is asked for.
                add("-t none -u none -T none -U none -I eth0 -n 24 -a");
                add(ADDRESS);
                add("-g");
                add(GATEWAY);
                if reach == Reach::Outside {
                    add("--no-map-gw");
                }
                // Where it is not needed it is left out: answers of the real resolver would seem to come from it.
                if *resolver == Resolver::Forwarded {
                    add("--dns-forward");
                    add(RESOLVER);
                }
                add("--netns /proc/self/fd/0");
            }
            UserNetworkTool::Slirp4netns => {
                add("--configure --mtu=65520 --netns-type=path");
                if reach == Reach::Outside {
                    add("--disable-host-loopback");
                }
                add("/proc/self/fd/0 eth0");
            }
        }
        args
    }
}

/// What steps may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// Everything but this machine's loopback.
    Outside,
    /// That too, at the gateway, since the build asked for `host-gateway`.
    ThisMachine,
}

/// How names are resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resolver {
    /// The host's resolvers can be asked as they are.
    AsOnHost,
    /// One of them listens on loopback, which is not the step's.
    Forwarded,
}

impl Resolver {
    fn of(resolv_conf: &str) -> Self {
        let mut servers = servers(resolv_conf).peekable();
        let is_local = |server: &str| {
            let bare = server.split('%').next().unwrap_or(server);
            bare.parse()
                .is_ok_and(|address: std::net::IpAddr| address.is_loopback())
        };
        if servers.peek().is_none() || servers.any(is_local) {
            Self::Forwarded
        } else {
            Self::AsOnHost
        }
    }
}

fn servers(resolv_conf: &str) -> impl Iterator<Item = &str> {
    resolv_conf.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()).flatten()
    })
}

/// The networks of an executor, started when they are needed.
#[derive(Default)]
pub(crate) struct Networks {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    outside: Option<Arc<Helper>>,
    this_machine: Option<Arc<Helper>>,
    has_noted: bool,
}

/// The network of one step, perhaps still being made.
pub(super) struct StepNetwork {
    kind: Kind,
    /// Lives as long as the step runs in it.
    helper: Option<Arc<Helper>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    None,
    Host,
    User,
}

/// Chooses a step's network and begins to make it.
pub(super) fn begin(shared: &Shared, op: &pb::ExecOp, meta: &pb::Meta) -> Result<StepNetwork, StepError> {
    let plain = |kind| StepNetwork { kind, helper: None };
    let is_offline = shared.config.network == Outside::Offline;
    let tool = match (op.network(), &shared.config.sandbox.user_network) {
        (pb::NetMode::None, _) => return Ok(plain(Kind::None)),
        (pb::NetMode::Host, _) if !shared.config.sandbox.allow_host_network => {
            return Err(StepError::new(
                FailureKind::Denied,
                "network.host is not allowed; grant it with --allow network.host",
            ));
        }
        (pb::NetMode::Host, _) if is_offline => {
            return Err(StepError::new(
                FailureKind::Denied,
                "the step runs in the network of this machine, which --offline rules out; build without --offline",
            ));
        }
        // Not even a helper is started: it would be the build that talks to the network.
        (pb::NetMode::Unset, _) if is_offline => return Ok(plain(Kind::None)),
        (pb::NetMode::Host, _) | (pb::NetMode::Unset, None) => return Ok(plain(Kind::Host)),
        (pb::NetMode::Unset, Some(tool)) => tool,
    };
    let reach = if meta.extra_hosts.iter().any(|host| host.ip == HOST_GATEWAY) {
        Reach::ThisMachine
    } else {
        Reach::Outside
    };
    let start = || start(shared, tool, reach).map(Arc::new);
    let helper = if op.security() == pb::SecurityMode::Insecure {
        start()?
    } else {
        let mut known = shared.networks.known.lock().unwrap_or_else(PoisonError::into_inner);
        let place = match reach {
            Reach::Outside => &mut known.outside,
            Reach::ThisMachine => &mut known.this_machine,
        };
        match place {
            Some(helper) => Arc::clone(helper),
            None => Arc::clone(place.insert(start()?)),
        }
    };
    Ok(StepNetwork {
        kind: Kind::User,
        helper: Some(helper),
    })
}

fn start(shared: &Shared, tool: &UserNetwork, reach: Reach) -> Result<Helper, StepError> {
    let spec = HelperSpec {
        args: tool.args(reach, &Resolver::of(&host_resolv_conf())),
        env: Vec::new(),
        stdin: None,
        network: HelperNetwork::Serve,
        is_ready: Box::new(has_default_route),
    };
    let failed = |err: crate::launch::LaunchError| StepError::caused(FailureKind::System, err.to_string(), err);
    shared.launcher().helper(spec).map_err(failed)
}

/// Whether the network of this thread leads somewhere.
fn has_default_route() -> bool {
    let routes = std::fs::read_to_string("/proc/thread-self/net/route").unwrap_or_default();
    // Columns: interface, destination, gateway, flags; a default route's destination is zero and it is up (bit 0).
    routes.lines().skip(1).any(|line| {
        let mut words = line.split_whitespace().skip(1);
        words.next() == Some("00000000")
    })
}

impl StepNetwork {
    /// What the launcher is told; waits until the network is there. One that cannot be had is replaced by the host's,
    /// as where no helper is installed; `note` is told once per build.
    pub(super) fn ready(&mut self, shared: &Shared, note: &dyn Fn(String)) -> Result<Network, StepError> {
        match self.kind {
            Kind::None => return Ok(Network::None),
            Kind::User => {}
            Kind::Host => return Ok(Network::Host),
        }
        let Some(helper) = &self.helper else {
            return Ok(Network::Host);
        };
        match helper.wait() {
            Ok(Some(namespace)) => Ok(Network::Namespace(namespace)),
            Ok(None) => Ok(Network::Host),
            Err(why) => {
                let mut known = shared.networks.known.lock().unwrap_or_else(PoisonError::into_inner);
                if !std::mem::replace(&mut known.has_noted, true) {
                    note(format!(
                        "steps share the network of this machine, as no other could be made: {why}"
                    ));
                }
                self.kind = Kind::Host;
                Ok(Network::Host)
            }
        }
    }

    /// Says once per build that steps are not kept apart from the host's network.
    pub(super) fn note_sharing(&self, shared: &Shared, op: &pb::ExecOp, note: &dyn Fn(String)) {
        let is_fallback = self.kind == Kind::Host && op.network() == pb::NetMode::Unset;
        let mut known = shared.networks.known.lock().unwrap_or_else(PoisonError::into_inner);
        if is_fallback && !std::mem::replace(&mut known.has_noted, true) {
            note(
                "steps share the network of this machine; install the package `passt` or `slirp4netns` to keep them apart"
                    .to_owned(),
            );
        }
    }

    /// `/etc/resolv.conf` for it.
    pub(super) fn resolv_conf(&self) -> Arc<[u8]> {
        let text = host_resolv_conf();
        if self.kind != Kind::User || Resolver::of(&text) == Resolver::AsOnHost {
            return text.into_bytes().into();
        }
        let kept = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("nameserver"))
            .map(|line| format!("{line}\n"));
        let text: String = std::iter::once(format!("nameserver {RESOLVER}\n"))
            .chain(kept)
            .collect();
        text.into_bytes().into()
    }

    /// The address of an extra host.
    pub(super) fn address<'a>(&self, ip: &'a str) -> &'a str {
        match (ip, self.kind) {
            (HOST_GATEWAY, Kind::User) => GATEWAY,
            (HOST_GATEWAY, _) => "127.0.0.1",
            (ip, _) => ip,
        }
    }
}

fn host_resolv_conf() -> String {
    let bytes = std::fs::read("/etc/resolv.conf").unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_on_loopback_are_forwarded() {
        let cases = [
            ("nameserver 192.0.2.1\nsearch a\n", Resolver::AsOnHost),
            ("nameserver 127.0.0.53\n", Resolver::Forwarded),
            ("nameserver 192.0.2.1\nnameserver ::1\n", Resolver::Forwarded),
            ("nameserver fe80::1%eth0\n", Resolver::AsOnHost),
            ("# nothing\n", Resolver::Forwarded),
        ];
        for (text, want) in cases {
            assert_eq!(Resolver::of(text), want, "{text:?}");
        }
    }

    #[test]
    fn host_loopback_is_mapped_on_request_only() {
        let tool = |tool| UserNetwork {
            tool,
            program: "/usr/bin/tool".into(),
        };
        for (tool, flag) in [
            (tool(UserNetworkTool::Pasta), "--no-map-gw"),
            (tool(UserNetworkTool::Slirp4netns), "--disable-host-loopback"),
        ] {
            let args = tool.args(Reach::Outside, &Resolver::AsOnHost);
            assert!(args.iter().any(|arg| arg == flag), "{args:?}");
            let args = tool.args(Reach::ThisMachine, &Resolver::AsOnHost);
            assert!(args.iter().all(|arg| arg != flag), "{args:?}");
        }
    }
}
