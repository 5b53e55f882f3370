//! The flags of `bake`, as the example and the conformance test read them.

use std::collections::BTreeMap;
use std::error::Error;

use cbs_frontends::bake::{BakeOptions, Host, Listing, NoFetcher, list, load};
use cbs_image::platform::Platform;
use clap::Parser;

/// Print what a bake definition comes to.
#[derive(Parser)]
pub(crate) struct Arguments {
    /// Targets, groups and patterns; `default` if there are none
    targets: Vec<String>,
    /// Definition files
    #[arg(short, long)]
    file: Vec<String>,
    /// Override an attribute: PATTERN.KEY[+]=VALUE
    #[arg(long)]
    set: Vec<String>,
    /// Set a variable: NAME=VALUE
    #[arg(long)]
    var: Vec<String>,
    /// Print the resolved targets, which is what happens anyway
    #[arg(long)]
    print: bool,
    /// List targets or variables instead
    #[arg(long)]
    list: Option<String>,
    /// Grant access to something
    #[arg(long)]
    allow: Vec<String>,
    /// Ignore the cache
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    no_cache: Option<bool>,
    /// Look base images up again
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pull: Option<bool>,
    /// Push the results
    #[arg(long)]
    push: bool,
    /// Load the results
    #[arg(long)]
    load: bool,
    /// What to do instead of building
    #[arg(long)]
    call: Option<String>,
    /// Short for --call=check
    #[arg(long)]
    check: bool,
    /// Add provenance
    #[arg(long)]
    provenance: Option<String>,
    /// Add an SBOM
    #[arg(long)]
    sbom: Option<String>,
    /// How source policies are applied
    #[arg(long)]
    policy: Vec<String>,
    /// Where results are described; nothing is built here
    #[arg(long)]
    metadata_file: Option<String>,
    /// How progress is shown; there is none here
    #[arg(long)]
    progress: Option<String>,
    /// Which builder builds; none does here
    #[arg(long)]
    builder: Option<String>,
}

/// What the program knows of its surroundings.
pub(crate) struct Surroundings {
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) working_directory: String,
    /// Seconds since 1970.
    pub(crate) now: i64,
}

/// What is printed on stdout.
pub(crate) fn run(arguments: Arguments, surroundings: Surroundings, host: &dyn Host) -> Result<String, Box<dyn Error>> {
    if arguments.print && arguments.list.is_some() {
        return Err("--print and --list exclude each other".into());
    }
    let platform = Platform::host();
    let home_directory = surroundings.environment.get("HOME").cloned().unwrap_or_default();
    let options = BakeOptions {
        files: arguments.file,
        targets: arguments.targets,
        overrides: arguments.set,
        variables: arguments.var,
        no_cache: arguments.no_cache,
        pull: arguments.pull,
        push: arguments.push,
        load: arguments.load,
        call: arguments
            .call
            .or_else(|| arguments.check.then(|| String::from("check"))),
        provenance: arguments.provenance,
        sbom: arguments.sbom,
        allow: arguments.allow,
        policies: arguments.policy,
        environment: surroundings.environment,
        working_directory: surroundings.working_directory,
        home_directory,
        now: surroundings.now,
        local_platform: platform.to_string(),
    };
    if let Some(what) = &arguments.list {
        return Ok(list(&options, Listing::parse(what)?, host, &NoFetcher)?);
    }
    let bake = load(&options, host, &NoFetcher)?;
    Ok(format!("{}\n", bake.print_json()))
}
