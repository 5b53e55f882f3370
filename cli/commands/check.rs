//! `cbs check`: what a Dockerfile would warn about. Short for `cbs build --call=check`.

use std::process::ExitCode;

use clap::Args;

use super::build;
use crate::args::Global;
use crate::build_args::{BuildArgs, CommonBuildArgs, ProgressMode};

/// `cbs check`.
#[derive(Clone, Debug, Default, Args)]
#[command(
    after_help = "The exit code is 1 when there is anything to say, as with `docker build --check`.
Builds do not fail for warnings unless the Dockerfile says `# check=error=true`.

Examples:
  cbs check .
  cbs check -f docker/app.Dockerfile --json .
  cbs check --skip JSONArgsRecommended,StageNameCasing ."
)]
pub(crate) struct CheckArgs {
    /// The build context: a folder, or a git or http URL
    #[arg(value_name = "PATH|URL", default_value = ".")]
    pub(crate) context: String,
    /// The Dockerfile [default: PATH/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<String>,
    /// Check this stage and what it needs only [default: all stages]
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,
    /// Set a build argument; without a value it is taken from the environment
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(crate) build_arg: Vec<String>,
    /// An extra context: NAME=PATH|URL|docker-image://REF|oci-layout://DIR
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) build_context: Vec<String>,
    /// The platform to check for
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<String>,
    /// Rules to leave out, or `all`
    #[arg(long, value_delimiter = ',', value_name = "RULE")]
    pub(crate) skip: Vec<String>,
    /// Experimental rules to hear, or `all`
    #[arg(long, value_delimiter = ',', value_name = "RULE")]
    pub(crate) experimental: Vec<String>,
    /// Print what was found as JSON, in BuildKit's shape
    #[arg(long)]
    pub(crate) json: bool,
    /// Never touch the network
    #[arg(long)]
    pub(crate) offline: bool,
}

/// `cbs check`.
pub(crate) fn run(global: &Global, args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let mut build_arg = args.build_arg.clone();
    if !args.skip.is_empty() || !args.experimental.is_empty() {
        let rules = |name: &str, rules: &[String]| match rules {
            [] => String::new(),
            rules => format!("{name}={};", rules.join(",")),
        };
        let text = rules("skip", &args.skip) + &rules("experimental", &args.experimental);
        build_arg.push(format!("BUILDKIT_DOCKERFILE_CHECK={}", text.trim_end_matches(';')));
    }
    let format = if args.json { ",format=json" } else { "" };
    build::run(
        global,
        &BuildArgs {
            context: args.context.clone(),
            file: args.file.clone(),
            target: args.target.clone(),
            build_arg,
            build_context: args.build_context.clone(),
            platform: args.platform.clone().into_iter().collect(),
            call: Some(format!("check{format}")),
            common: CommonBuildArgs {
                progress: Some(ProgressMode::Quiet),
                offline: args.offline,
                ..CommonBuildArgs::default()
            },
            ..BuildArgs::default()
        },
    )
}
