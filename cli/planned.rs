//! From flags to planned builds. `cbs build` is a bake file of one target that is never written down: flags are read
//! and checked by the same code as the attributes of a target.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::{Context as _, bail};
use cbs_frontends::bake::{Bake, BakeOptions, Fetcher, GivenInput, Grants, LocalHost, NoFetcher, load};
use cbs_frontends::dockerfile::HostAddress;
use cbs_image::platform::Platform;
use cbs_solver::pb;
use serde_json::{Map, Value, json};

use crate::args::Global;
use crate::build_args::{BuildArgs, CommonBuildArgs};
use crate::consent;
use crate::failure::Usage;
use crate::flag_errors::{as_flag, of_target};
use crate::sources::Sources;
use crate::target::{BuildTarget, Surroundings, extra_host};

/// The name of the one target of `cbs build`, which names nothing outside.
const TARGET: &str = "build";

/// Targets and what they read.
#[derive(Debug, Default)]
pub(crate) struct Planned {
    /// In an order in which each comes after those it is built on.
    pub(crate) targets: Vec<BuildTarget>,
    /// What they read.
    pub(crate) sources: Sources,
    /// Platforms of those that name none.
    platforms: Vec<Platform>,
}

/// What this process and the flags that all commands share say to a bake.
pub(crate) fn bake_options(common: &CommonBuildArgs) -> anyhow::Result<BakeOptions> {
    let folder = std::env::current_dir().context("cannot tell the working directory")?;
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Ok(BakeOptions {
        no_cache: common.no_cache,
        pull: common.pull,
        push: common.push,
        load: common.load,
        provenance: common.provenance.clone(),
        sbom: common.sbom.clone(),
        allow: common.allow.clone(),
        // A variable that is no text cannot be one of a bake file.
        environment: std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
        working_directory: folder.to_string_lossy().into_owned(),
        home_directory: std::env::var("HOME").unwrap_or_default(),
        now: since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX)),
        local_platform: Platform::host().to_string(),
        ..BakeOptions::default()
    })
}

/// Refuses flags that ask for what is not there: who asks on the command line waits for it.
pub(crate) fn refuse_flags(common: &CommonBuildArgs) -> anyhow::Result<()> {
    for (flag, value) in [("--provenance", &common.provenance), ("--sbom", &common.sbom)] {
        if value.as_deref().is_some_and(is_wanted) {
            bail!(Usage(format!(
                "{flag}: attestations are not written yet; only `false` is possible"
            )));
        }
    }
    Ok(())
}

/// Whether the value of an attestation flag asks for one.
fn is_wanted(value: &str) -> bool {
    !matches!(value, "" | "false" | "0")
        && !value
            .split(',')
            .any(|field| matches!(field, "disabled=true" | "disabled=1"))
}

/// The value of `--call`, for which `--check` is short.
pub(crate) fn call(call: Option<&str>, check: bool) -> Option<String> {
    call.or(check.then_some("check")).map(str::to_owned)
}

impl Planned {
    /// Nothing yet.
    pub(crate) fn new(global: &Global) -> Self {
        Self {
            platforms: global.settings.build.platforms.clone(),
            ..Self::default()
        }
    }

    /// Adds the targets of a loaded bake. `root` names the gc root of a target.
    pub(crate) fn add_bake(
        &mut self,
        bake: &Bake,
        options: &BakeOptions,
        root: impl Fn(&str) -> String,
    ) -> anyhow::Result<()> {
        let missing = bake.missing_privileges(options, &LocalHost)?;
        if !missing.is_empty() {
            self.grant(&consent::ask(&missing)?);
        }
        self.grant(&bake.grants);
        let around = surroundings(options, &self.platforms);
        for build in &bake.builds {
            let target = BuildTarget::of_build(build, root(&build.name), &mut self.sources, &around)?;
            self.targets.push(target);
        }
        Ok(())
    }

    fn grant(&mut self, grants: &Grants) {
        self.sources.sandbox.allow_host_network |= grants.network_host;
        self.sources.sandbox.allow_insecure |= grants.security_insecure;
        self.sources.grant_devices(&grants.devices);
    }

    /// Adds the one target of `cbs build`. With `context`, the folder stands for what the flag says, which came from
    /// standard input.
    pub(crate) fn add_build(&mut self, args: &BuildArgs, input: &StandardInput, root: String) -> anyhow::Result<()> {
        refuse_flags(&args.common)?;
        if args.attest.iter().any(|value| is_wanted(value)) {
            bail!(Usage("--attest: attestations are not written yet".to_owned()));
        }
        if !args.cache_to.is_empty() {
            bail!(Usage(
                "--cache-to: caches are not exported yet; the store itself is the cache".to_owned()
            ));
        }
        for flag in args.legacy.without_effect() {
            tell!("warning: {flag} has no effect");
        }
        let mut options = bake_options(&args.common)?;
        options.files = vec!["-".to_owned()];
        options.targets = vec![TARGET.to_owned()];
        options.call = call(args.call.as_deref(), args.check);
        // Settings for bake files do not apply to a file that does not exist.
        let environment = options.environment.clone();
        options.environment.retain(|name, _| !name.starts_with("BUILDX_BAKE_"));
        let host = GivenInput(definition(args, input, &environment)?.into_bytes());
        let fetcher: &dyn Fetcher = &NoFetcher;
        let bake = load(&options, &host, fetcher).map_err(|error| as_flag(error, args))?;
        self.grant(&bake.grants);
        let mut around = surroundings(&options, &self.platforms);
        if let Some(folder) = &input.context {
            // Nobody needs to know where it was put.
            around.working_directory.clone_from(folder);
        }
        for build in &bake.builds {
            let mut build = build.clone();
            if let (Some(text), cbs_frontends::bake::DockerfileSource::Inline(inline)) =
                (&input.dockerfile, &mut build.dockerfile)
            {
                inline.clone_from(text);
            }
            let target = BuildTarget::of_build(&build, root.clone(), &mut self.sources, &around);
            let mut target = target.map_err(|error| of_target(error, args))?;
            target.name = args.target.clone().unwrap_or_else(|| "build".to_owned());
            if let crate::target::Work::Dockerfile { options, .. } = &mut target.work {
                options.devices = args.device.iter().map(|text| device(text)).collect::<Result<_, _>>()?;
                options.cgroup_parent = args.cgroup_parent.clone().unwrap_or_default();
                // Several addresses for one name, and their order, count.
                options.extra_hosts = args
                    .add_host
                    .iter()
                    .map(|text| add_host(text))
                    .collect::<Result<_, _>>()?;
            }
            self.targets.push(target);
        }
        Ok(())
    }
}

/// What `-` stands for.
#[derive(Debug, Default)]
pub(crate) struct StandardInput {
    /// The folder that the context is in, when it came from there.
    pub(crate) context: Option<PathBuf>,
    /// The Dockerfile, when it came from there.
    pub(crate) dockerfile: Option<String>,
}

fn surroundings(options: &BakeOptions, platforms: &[Platform]) -> Surroundings {
    Surroundings {
        platforms: platforms.to_vec(),
        environment: options.environment.clone(),
        working_directory: PathBuf::from(&options.working_directory),
    }
}

/// Text that stands for itself in a definition, where `${…}` and `%{…}` are templates.
fn literal(text: &str) -> String {
    text.replace("${", "$${").replace("%{", "%%{")
}

fn texts(list: &[String]) -> Value {
    list.iter().map(|text| Value::from(literal(text))).collect()
}

fn pairs(flag: &str, list: &[String]) -> anyhow::Result<Map<String, Value>> {
    let mut map = Map::new();
    for text in list {
        let (name, value) = text
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| Usage(format!("{flag} `{text}`: it must have the form NAME=VALUE")))?;
        map.insert(literal(name), Value::from(literal(value)));
    }
    Ok(map)
}

/// Docker's forms of an extra host: `NAME:IP` and `NAME=IP`.
fn split_host(text: &str) -> anyhow::Result<(&str, &str)> {
    let split = text.split_once('=').or_else(|| text.split_once(':'));
    Ok(split.ok_or_else(|| Usage(format!("--add-host `{text}`: it must have the form NAME:IP")))?)
}

fn add_host(text: &str) -> anyhow::Result<(String, HostAddress)> {
    let (name, address) = split_host(text)?;
    Ok(extra_host(name, address).map_err(|err| Usage(format!("--add-host `{text}`: {err:#}")))?)
}

/// `NAME`, with `optional` or `required` behind a comma.
fn device(text: &str) -> anyhow::Result<pb::CdiDevice> {
    let wrong = |why: &str| Usage(format!("--device `{text}`: {why}"));
    let (name, field) = text.split_once(',').unwrap_or((text, "required"));
    if name.is_empty() {
        bail!(wrong("it must begin with a name such as vendor.com/class=name"));
    }
    let optional = match field {
        "required" | "required=true" | "optional=false" => false,
        "optional" | "optional=true" | "required=false" => true,
        _ => bail!(wrong(&format!("`{field}` is neither `optional` nor `required`"))),
    };
    Ok(pb::CdiDevice {
        name: name.to_owned(),
        optional,
    })
}

/// The flags as a bake file in JSON.
fn definition(
    args: &BuildArgs,
    input: &StandardInput,
    environment: &BTreeMap<String, String>,
) -> anyhow::Result<String> {
    let mut target = Map::new();
    let mut set = |name: &str, value: Value| drop(target.insert(name.to_owned(), value));
    match &input.context {
        Some(folder) => set("context", literal(&folder.to_string_lossy()).into()),
        None => set("context", literal(&args.context).into()),
    }
    if input.dockerfile.is_some() {
        // The text is put in later, as it is.
        set("dockerfile-inline", "FROM scratch".into());
    } else if let Some(file) = &args.file {
        set("dockerfile", dockerfile(file, &args.context)?.into());
    }
    let mut build_args = Map::new();
    for text in &args.build_arg {
        if text.is_empty() || text.starts_with('=') {
            bail!(Usage(format!(
                "--build-arg `{text}`: it must have the form NAME[=VALUE]"
            )));
        }
        match text.split_once('=') {
            Some((name, value)) => drop(build_args.insert(literal(name), literal(value).into())),
            // Without a value it is the environment's, if that has one.
            None => {
                if let Some(value) = environment.get(text) {
                    build_args.insert(literal(text), literal(value).into());
                }
            }
        }
    }
    set("args", build_args.into());
    set("labels", pairs("--label", &args.label)?.into());
    for text in &args.build_context {
        if text.ends_with('=') {
            bail!(Usage(format!(
                "--build-context `{text}`: it must have the form NAME=VALUE"
            )));
        }
        if text
            .split_once('=')
            .is_some_and(|(_, value)| value.starts_with("target:"))
        {
            bail!(Usage(format!(
                "--build-context `{text}`: results of other targets are contexts of targets in bake files"
            )));
        }
    }
    set("contexts", pairs("--build-context", &args.build_context)?.into());
    let resources = args.legacy.resources(&args.resource, literal)?;
    if !resources.is_empty() {
        set("resources", resources.into());
    }
    let mut tags = args.tag.clone();
    tags.retain(|tag| !tag.is_empty());
    for (name, list) in [
        ("tags", &tags),
        ("output", &args.output),
        ("platforms", &args.platform),
        ("annotations", &args.annotation),
        ("secret", &args.secret),
        ("ssh", &args.ssh),
        ("ulimits", &args.ulimit),
        ("no-cache-filter", &args.no_cache_filter),
        ("cache-from", &args.cache_from),
        ("cache-to", &args.cache_to),
        ("attest", &args.attest),
        ("policy", &args.policy),
    ] {
        if !list.is_empty() {
            set(name, texts(list));
        }
    }
    for (name, text) in [
        ("target", &args.target),
        ("network", &args.network),
        ("shm-size", &args.shm_size),
    ] {
        if let Some(text) = text {
            set(name, literal(text).into());
        }
    }
    Ok(json!({ "target": { TARGET: target } }).to_string())
}

/// Docker reads `-f` from where it is called; in a bake file it is seen from the context.
fn dockerfile(file: &str, context: &str) -> anyhow::Result<String> {
    let is_remote = |text: &str| text.contains("://") || text.starts_with("git@") || text.starts_with("github.com/");
    if is_remote(file) || (is_remote(context) && !std::path::Path::new(file).exists()) {
        return Ok(literal(file));
    }
    let path = std::path::absolute(file).with_context(|| format!("--file `{file}`"))?;
    if is_remote(context) {
        return Ok(literal(&format!("cwd://{}", path.to_string_lossy())));
    }
    Ok(literal(&path.to_string_lossy()))
}

#[cfg(test)]
mod tests;
