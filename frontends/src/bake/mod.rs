//! Bake: from files in HCL, JSON and Compose YAML to builds.
//!
//! ```text
//! files ─┬─ *.yml ───────────► compose ─┐
//!        └─ *.hcl, *.json ─ hcl ─► program ─► config ─ resolve ─► targets ─ plan ─► builds
//!                              ▲                         ▲                  │
//!              variables, environment          --set, flags        print, entitlements
//! ```
//! The semantics are those of `docker buildx bake`: file names, the language with its functions, inheritance,
//! overrides, and what is checked although nothing is built yet.
//!
//! Nothing here touches the process: the environment, the clock, the file system and the network are given by the
//! caller, through [`BakeOptions`], [`Host`] and [`Fetcher`].
//!
//! ```
//! use cbs_frontends::bake::{BakeOptions, MemoryHost, NoFetcher, load};
//!
//! let host = MemoryHost::default().with("/src/docker-bake.hcl", r#"
//!     variable "TAG" { default = "latest" }
//!     target "app" { tags = ["acme/app:${TAG}"] }
//! "#);
//! let options = BakeOptions {
//!     targets: vec!["app".into()],
//!     variables: vec!["TAG=v1".into()],
//!     working_directory: "/src".into(),
//!     ..BakeOptions::default()
//! };
//! let bake = load(&options, &host, &NoFetcher)?;
//! assert_eq!(bake.builds[0].tags, ["acme/app:v1"]);
//! # Ok::<(), cbs_frontends::bake::BakeError>(())
//! ```
#![doc = include_str!("differences.md")]

mod compose;
mod csv_line;
mod entitlements;
mod entries;
mod error;
mod files;
mod functions;
mod hcl;
mod host;
mod list;
mod model;
mod options;
mod overrides;
mod paths;
mod pem;
mod places;
mod plan;
mod print;
mod program;
mod rebase;
mod remote;
mod resolve;
mod source;
#[cfg(test)]
mod tests;
mod value;

use std::collections::BTreeMap;

pub use self::compose::yaml_to_json;
pub use self::entitlements::{DeviceGrant, Grants, Privilege};
pub use self::entries::{Attestation, CacheEntry, Output, Policy, Resources, Secret, Ssh};
pub use self::error::{BakeError, SourceError};
pub use self::host::{FileKind, GivenInput, Host, LocalHost, MemoryHost};
pub use self::list::{ListFormat, Listed, Listing};
pub use self::model::{Group, Target};
pub use self::options::{BakeOptions, Call};
pub use self::plan::{
    Annotation, AnnotationKind, Build, Context, DockerfileSource, SecretSource, SecretValue, SshForward, SshSource,
    Ulimit, read_session,
};
pub use self::program::Variable;
pub use self::remote::{Fetcher, NoFetcher, Remote, RemoteInput, RemoteTree};
pub use self::source::SourceLocation;

use self::compose::Compose;
use self::files::{Reading, complain};
use self::functions::Environment;
use self::plan::Surroundings;
use self::program::{Config, Inputs, Program};
use self::source::Sources;

/// What a definition comes to for the targets that were asked for.
#[derive(Clone, Debug)]
pub struct Bake {
    /// The groups that were asked for, and `default` with everything that was.
    pub groups: BTreeMap<String, Group>,
    /// The targets that were asked for, and those whose results they use.
    pub targets: BTreeMap<String, Target>,
    /// What to build for each target. A build comes after those whose results it uses.
    pub builds: Vec<Build>,
    /// Where the definition was fetched from, if it was.
    pub remote: Option<RemoteInput>,
    /// What may be done besides building: `--allow`, and what overrides name.
    pub grants: Grants,
}

impl Bake {
    /// The groups and targets as a bake file in JSON, without a line break at the end.
    pub fn print_json(&self) -> String {
        print::print(&self.groups, &self.targets)
    }

    /// One target as [`Bake::print_json`] has it.
    pub fn target_json(&self, name: &str) -> Option<serde_json::Value> {
        self.targets
            .get(name)
            .map(|target| serde_json::Value::Object(print::target_json(target)))
    }

    /// What the builds ask for and nobody granted. The caller asks a person, or refuses to build.
    ///
    /// # Errors
    /// When a path cannot be looked at, or a variable that switches the check has no sense.
    pub fn missing_privileges(&self, options: &BakeOptions, host: &dyn Host) -> Result<Vec<Privilege>, BakeError> {
        let checks_files = entitlements::checks_file_access(&options.environment, self.remote.is_some())?;
        let mut missing = self.grants.missing(&self.builds, host, &options.working_directory)?;
        missing.retain(|privilege| checks_files || !privilege.is_file_access);
        Ok(missing)
    }
}

/// Loads a definition and works out the targets that are asked for.
///
/// # Errors
/// The first thing that is wrong: files that cannot be read or understood, values that make no sense, targets that do
/// not exist. Errors in HCL and JSON come with their place in the file.
pub fn load(options: &BakeOptions, host: &dyn Host, fetcher: &dyn Fetcher) -> Result<Bake, BakeError> {
    on_large_stack(|| load_here(options, host, fetcher))
}

/// What a definition offers, as text with a line break at the end.
///
/// # Errors
/// Like [`load`], except that it does not matter which targets are asked for.
pub fn list(
    options: &BakeOptions,
    listing: Listing,
    host: &dyn Host,
    fetcher: &dyn Fetcher,
) -> Result<String, BakeError> {
    on_large_stack(|| {
        let parsed = parse(options, host, fetcher)?;
        Ok(match listing.what {
            Listed::Targets => list::targets(&parsed.config.targets, &parsed.config.groups, listing.format),
            Listed::Variables => list::variables(&parsed.variables, listing.format),
        })
    })
}

/// Evaluation follows the nesting of expressions and of what they refer to; the stack of a thread may be small.
fn on_large_stack<T: Send>(work: impl FnOnce() -> Result<T, BakeError> + Send) -> Result<T, BakeError> {
    const STACK: usize = 256 << 20;
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(String::from("bake")).stack_size(STACK);
        let handle = thread.spawn_scoped(scope, work).map_err(BakeError::Stack)?;
        handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A definition with everything in it.
struct Parsed {
    config: Config,
    variables: Vec<Variable>,
    remote: Option<RemoteInput>,
    sources: Sources,
}

fn parse(options: &BakeOptions, host: &dyn Host, fetcher: &dyn Fetcher) -> Result<Parsed, BakeError> {
    let positional = options.positional();
    let given = options.variable_map()?;
    let file_relative = options.file_relative_paths()?;
    let compose = Compose::new(options, host, &given)?;
    let reading = Reading {
        options,
        host,
        fetcher,
        compose: &compose,
    };
    let files = reading.read(positional.url.as_deref())?;
    let mut config = Config::default();
    if !files.compose.is_empty() {
        config = compose.load(&files.compose)?;
        if file_relative {
            rebase::set_bases(&mut config.targets, &files.compose[0].name);
        }
    }
    let mut variables = Vec::new();
    if !files.bodies.is_empty() {
        let sees_environment = options.sees_environment();
        let lookup = |name: &str| {
            let own = given.get(name);
            own.or_else(|| options.environment.get(name).filter(|_| sees_environment))
                .cloned()
        };
        let random = |buffer: &mut [u8]| host.random(buffer);
        let inputs = Inputs {
            environment: Environment::new(options.now, &options.home_directory, &random),
            builtins: vec![
                ("BAKE_CMD_CONTEXT", positional.command_context.clone()),
                ("BAKE_LOCAL_PLATFORM", options.local_platform.clone()),
            ],
            lookup: &lookup,
        };
        variables = Program::run(files.bodies, inputs, &mut config, &files.sources)
            .map_err(|problems| complain(&files.sources, problems))?;
    }
    if file_relative {
        rebase::rebase_all(&mut config.targets);
    }
    Ok(Parsed {
        config,
        variables,
        remote: files.remote,
        sources: files.sources,
    })
}

fn load_here(options: &BakeOptions, host: &dyn Host, fetcher: &dyn Fetcher) -> Result<Bake, BakeError> {
    let positional = options.positional();
    let mut grants = Grants::parse(&options.allow)?;
    let overrides = options.all_overrides()?;
    let parsed = parse(options, host, fetcher)?;
    let sees_environment = options.sees_environment();
    let lookup = |name: &str| options.environment.get(name).filter(|_| sees_environment).cloned();
    let place = |error: BakeError| places::place(error, &parsed.config, &parsed.sources, &overrides.settings);
    let mut resolved =
        resolve::resolve(&parsed.config, &positional.targets, &overrides.settings, &lookup).map_err(place)?;
    grants.add(resolved.grants);
    let surroundings = Surroundings {
        options,
        host,
        remote: parsed.remote.as_ref(),
    };
    let mut builds = Vec::with_capacity(resolved.order.len());
    for name in &resolved.order {
        let Some(target) = resolved.targets.get_mut(name) else {
            continue;
        };
        if overrides.without_policies {
            target.policy = vec![Policy {
                disabled: true,
                ..Policy::default()
            }];
        }
        add_source_date(target, &options.environment);
        builds.push(surroundings.plan(target).map_err(place)?);
    }
    Ok(Bake {
        groups: resolved.groups,
        targets: resolved.targets,
        builds,
        remote: parsed.remote,
        grants,
    })
}

/// The time that reproducible builds pretend to run at is an argument like any other.
fn add_source_date(target: &mut Target, environment: &BTreeMap<String, String>) {
    const NAME: &str = "SOURCE_DATE_EPOCH";
    if let Some(value) = environment.get(NAME).filter(|value| !value.is_empty()) {
        target.args.entry(String::from(NAME)).or_insert_with(|| value.clone());
    }
}
