//! RUN.

use cbs_solver::patterns::clean_path;
use cbs_solver::pb;

use super::super::ast::{CommandForm, Head, Heredoc, Network, Run, Security};
use super::super::parse::heredoc_word;
use super::super::parse::mount::Mount;
use super::super::shell::Variables;
use super::super::source::Complaint;
use super::Convert;
use super::config::with_shell;
use super::graph::{ExecNode, FileStep, MountNode, NONE, NodeId, NodeOp, named};
use super::mounts::{Mounts, tmpfs_mount};
use super::names::run_text;
use super::state::{Layer, StageId, StageState};

/// Where a document that is a program is mounted.
const PIPES: &str = "/dev/pipes/";

/// What a RUN executes, before the shell is put in front.
enum Script<'a> {
    /// The words of the exec form.
    Words(Vec<String>),
    /// A text for the shell.
    Text(String),
    /// A document that starts with `#!`.
    Program(&'a Heredoc, Vec<u8>),
}

impl<'a> Convert<'a> {
    pub(super) fn run_step(
        &mut self,
        stage: &mut StageState<'a>,
        head: &Head,
        run: &Run,
        sources: &[Option<StageId>],
    ) -> Result<(), Complaint> {
        let parsed = self.expand_mounts(stage, head, run)?;
        let owner = self.paths_owner_of(stage);
        self.used_paths.entry(owner).or_default().insert("/".to_owned());
        let script = script(stage, run)?;
        let is_document = is_single_document(run);
        let mut mounts = Mounts::default();
        let args = match script {
            Script::Words(words) => words,
            Script::Text(text) => with_shell(stage, &text),
            Script::Program(document, data) => {
                let path = format!("{PIPES}{}", document.name);
                mounts.nodes.push(self.program_mount(&document.name, data));
                // Shell form still means that the shell starts it.
                with_shell(stage, &clean_path(&path))
            }
        };
        if args.is_empty() {
            return Err(Complaint::new("RUN requires at least one argument"));
        }
        for (mount, source) in parsed.iter().zip(sources) {
            self.add_mount(stage, head, mount, *source, &mut mounts)?;
        }
        if self.input.options.shm_size > 0 {
            let tmpfs = pb::TmpfsOpt {
                size: self.input.options.shm_size,
            };
            mounts.nodes.push(MountNode {
                source: None,
                mount: tmpfs_mount("/dev/shm", tmpfs),
            });
        }
        let shown = self.shown_run(&run_text(head, run, is_document), &parsed, &stage.env);
        let name = self.step_name(stage, &shown);
        let history = format!("RUN {}", history_text(&args, stage));
        let exec = self.exec_node(stage, run, args, mounts);
        let mut metadata = named(name);
        metadata
            .description
            .insert("com.docker.dockerfile.v1.command".to_owned(), head.code.clone());
        metadata.ignore_cache = stage.ignore_cache;
        stage.root = Some(self.graph.add(NodeOp::Exec(Box::new(exec)), metadata, Some(head.lines)));
        stage.commit(history + " # buildkit", Layer::Yes, self.epoch);
        Ok(())
    }

    /// The stage whose paths a stage uses, also for one that is taken out while it is lowered.
    pub(super) fn paths_owner_of(&self, stage: &StageState<'_>) -> StageId {
        stage.base.map_or(stage.id, |base| self.paths_owner(base))
    }

    fn expand_mounts(&mut self, stage: &StageState<'_>, head: &Head, run: &Run) -> Result<Vec<Mount>, Complaint> {
        let mut mounts = Vec::new();
        for raw in &run.mounts {
            let mut expand = |value: &str| self.expand(stage, head, value).map_err(|complaint| complaint.message);
            let mount = Mount::parse(&raw.text.value, &mut expand);
            mounts.push(mount.map_err(|message| Complaint::new(message).at(raw.text.span))?);
        }
        Ok(mounts)
    }

    fn program_mount(&mut self, name: &str, data: Vec<u8>) -> MountNode {
        let source = Some(self.inline_document(name, 0o755, data));
        let mount = pb::Mount {
            dest: PIPES.to_owned(),
            selector: "/".to_owned(),
            readonly: true,
            output: NONE,
            ..Default::default()
        };
        MountNode { source, mount }
    }

    /// A tree that holds one file.
    pub(super) fn inline_document(&mut self, name: &str, mode: i32, data: Vec<u8>) -> NodeId {
        let mkfile = pb::FileActionMkFile {
            path: clean_path(&format!("/{name}")),
            mode,
            data,
            owner: None,
            timestamp: NONE,
        };
        let step = FileStep {
            source: None,
            action: pb::file_action::Action::Mkfile(mkfile),
        };
        let op = NodeOp::File {
            base: None,
            actions: vec![step],
        };
        self.graph.add(op, named("[internal] preparing inline document"), None)
    }

    fn exec_node(&self, stage: &StageState<'_>, run: &Run, args: Vec<String>, mounts: Mounts) -> ExecNode {
        let options = self.input.options;
        let mut env = stage.env.to_vec();
        if let Some(socket) = mounts.sockets.first()
            && stage.env.get("SSH_AUTH_SOCK").is_none()
        {
            env.push(format!("SSH_AUTH_SOCK={}", socket.dest));
        }
        let hostname = self
            .build_args
            .get("BUILDKIT_SANDBOX_HOSTNAME")
            .filter(|name| !name.is_empty());
        let hosts = options.extra_hosts.iter();
        let meta = pb::Meta {
            args,
            env,
            cwd: stage.dir.clone(),
            user: stage.image.config.user.clone(),
            proxy_env: self.proxy_env(),
            extra_hosts: hosts
                .map(|(host, ip)| pb::HostIp {
                    host: host.clone(),
                    ip: ip.to_string(),
                })
                .collect(),
            hostname: hostname.unwrap_or(&options.hostname).clone(),
            ulimit: options.ulimits.clone(),
            cgroup_parent: options.cgroup_parent.clone(),
            remove_mount_stubs_recursive: true,
            valid_exit_codes: Vec::new(),
        };
        let devices = run.devices.iter().map(|device| pb::CdiDevice {
            name: device.name.clone(),
            optional: !device.required,
        });
        ExecNode {
            meta,
            root: stage.root,
            mounts: mounts.nodes,
            extra_mounts: mounts.secrets.into_iter().chain(mounts.sockets).collect(),
            secret_env: mounts.secret_env,
            devices: options.devices.iter().cloned().chain(devices).collect(),
            network: match run.network {
                Network::Default => options.network,
                Network::None => pb::NetMode::None,
                Network::Host => pb::NetMode::Host,
            },
            security: match run.security {
                Security::Sandbox => pb::SecurityMode::Sandbox,
                Security::Insecure => pb::SecurityMode::Insecure,
            },
            platform: stage.platform_or(&self.target).clone(),
        }
    }

    /// Proxies given as build arguments, which need no ARG.
    fn proxy_env(&self) -> Option<pb::ProxyEnv> {
        let mut proxies = pb::ProxyEnv::default();
        let mut any = false;
        for (name, value) in &self.build_args {
            let slot = match name.to_ascii_lowercase().as_str() {
                "http_proxy" => &mut proxies.http_proxy,
                "https_proxy" => &mut proxies.https_proxy,
                "ftp_proxy" => &mut proxies.ftp_proxy,
                "no_proxy" => &mut proxies.no_proxy,
                "all_proxy" => &mut proxies.all_proxy,
                _ => continue,
            };
            slot.clone_from(value);
            any = true;
        }
        any.then_some(proxies)
    }
}

/// Whether all that is run is one document: `RUN <<EOF`.
fn is_single_document(run: &Run) -> bool {
    !run.command.heredocs.is_empty()
        && run
            .command
            .args
            .first()
            .is_some_and(|text| heredoc_word(text).is_some())
}

fn script<'r>(stage: &StageState<'_>, run: &'r Run) -> Result<Script<'r>, Complaint> {
    let command = &run.command;
    let text = command.args.first().cloned().unwrap_or_default();
    let Some(first) = command.heredocs.first() else {
        return Ok(match command.form {
            CommandForm::Exec => Script::Words(command.args.clone()),
            CommandForm::Shell => Script::Text(text),
        });
    };
    if is_single_document(run) {
        let data = first.chomped();
        // Windows has no `#!`.
        if stage.image.os != "windows" && data.starts_with(b"#!") {
            return Ok(Script::Program(first, data));
        }
        return Ok(Script::Text(String::from_utf8_lossy(&data).into_owned()));
    }
    // Anything else is put together again, for the shell to read the documents itself.
    let mut whole = text;
    for document in &command.heredocs {
        whole.push('\n');
        whole.push_str(&String::from_utf8_lossy(&document.content));
        whole.push_str(&document.name);
    }
    Ok(Script::Text(whole))
}

/// `|2 A=1 B= /bin/sh -c …`: the declared arguments with their present values, each once, and the words.
fn history_text(args: &[String], stage: &StageState<'_>) -> String {
    let mut declared: Vec<(&str, &str)> = Vec::new();
    let mut positions = std::collections::HashMap::new();
    for (name, default) in &stage.build_args {
        let name = name.as_str();
        let value = stage.env.get(name).or(default.as_deref()).unwrap_or_default();
        match positions.get(name) {
            Some(&position) => declared[position] = (name, value),
            None => {
                positions.insert(name, declared.len());
                declared.push((name, value));
            }
        }
    }
    let mut words = Vec::new();
    if !declared.is_empty() {
        words.push(format!("|{}", declared.len()));
        words.extend(declared.into_iter().map(|(name, value)| format!("{name}={value}")));
    }
    words.extend(args.iter().cloned());
    words.join(" ")
}
