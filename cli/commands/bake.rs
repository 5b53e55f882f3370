//! `cbs bake`: bake files to builds, or to what is known about them.

use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Context as _;
use cbs_frontends::bake::{BakeOptions, Listing, LocalHost, NoFetcher, list, load};
use cbs_image::platform::Platform;

use super::print;
use crate::args::Global;
use crate::build_args::{BakeArgs, CommonBuildArgs};

/// `cbs bake`.
pub(crate) fn run(_global: &Global, args: &BakeArgs) -> anyhow::Result<ExitCode> {
    let options = options(args)?;
    if let Some(what) = &args.list {
        print(&list(&options, Listing::parse(what)?, &LocalHost, &NoFetcher)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let bake = load(&options, &LocalHost, &NoFetcher)?;
    if args.print {
        print(&format!("{}\n", bake.print_json()))?;
        return Ok(ExitCode::SUCCESS);
    }
    anyhow::bail!("building is on its way")
}

fn options(args: &BakeArgs) -> anyhow::Result<BakeOptions> {
    Ok(BakeOptions {
        files: args.file.clone(),
        targets: args.targets.clone(),
        overrides: args.set.clone(),
        variables: args.var.clone(),
        call: call(args.call.as_deref(), args.check),
        policies: args.policy.clone(),
        ..surroundings(&args.common)?
    })
}

/// The value of `--call`, for which `--check` is short.
pub(crate) fn call(call: Option<&str>, check: bool) -> Option<String> {
    call.or(check.then_some("check")).map(str::to_owned)
}

/// What the flags that all commands share and this process say.
pub(crate) fn surroundings(common: &CommonBuildArgs) -> anyhow::Result<BakeOptions> {
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
