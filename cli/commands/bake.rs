//! `cbs bake`: bake files to builds, or to what is known about them.

use std::path::Path;
use std::process::ExitCode;

use cbs_frontends::bake::{BakeOptions, Fetcher, Listing, LocalHost, NoFetcher, list, load};

use super::{finish, print};
use crate::args::Global;
use crate::build_args::BakeArgs;
use crate::fetcher::{SessionFetcher, is_remote};
use crate::planned::{Planned, bake_options, call, refuse_flags};
use crate::record::absolute;
use crate::session::Session;

/// The bake files of a folder, in the order of their weight for a name.
const FILES: [&str; 8] = [
    "docker-bake.hcl",
    "docker-bake.json",
    "docker-bake.override.hcl",
    "docker-bake.override.json",
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
];

/// `cbs bake`.
pub(crate) fn run(global: &Global, args: &BakeArgs) -> anyhow::Result<ExitCode> {
    let options = options(args)?;
    // Only a definition that is elsewhere needs the store before it is known what to build.
    let early = match args.targets.first() {
        Some(word) if is_remote(word) => Some(Session::start(global, args.common.progress, args.common.network())?),
        _ => None,
    };
    let session_fetcher = early.as_ref().map(SessionFetcher);
    let fetcher: &dyn Fetcher = match &session_fetcher {
        Some(fetcher) => fetcher,
        None => &NoFetcher,
    };
    if let Some(what) = &args.list {
        print(&list(&options, Listing::parse(what)?, &LocalHost, fetcher)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let bake = load(&options, &LocalHost, fetcher)?;
    if args.print {
        print(&format!("{}\n", bake.print_json()))?;
        return Ok(ExitCode::SUCCESS);
    }
    refuse_flags(&args.common)?;
    let file = match args.targets.first() {
        Some(url) if early.is_some() => url.clone(),
        _ => root_file(&options),
    };
    let session = match early {
        Some(session) => session,
        None => Session::start(global, args.common.progress, args.common.network())?,
    };
    let mut planned = Planned::new(global);
    planned.add_bake(&bake, &options, |target| format!("{file}#{target}"))?;
    finish(session, planned, &args.common, &finish::Answers::PerTarget)
}

fn options(args: &BakeArgs) -> anyhow::Result<BakeOptions> {
    Ok(BakeOptions {
        files: args.file.clone(),
        targets: args.targets.clone(),
        overrides: args.set.clone(),
        variables: args.var.clone(),
        call: call(args.call.as_deref(), args.check),
        policies: args.policy.clone(),
        ..bake_options(&args.common)?
    })
}

/// What roots are named after: the first file, by its absolute path.
pub(crate) fn root_file(options: &BakeOptions) -> String {
    let folder = Path::new(&options.working_directory);
    let found = FILES.into_iter().find(|name| folder.join(name).is_file());
    let first = match (options.files.first(), found) {
        (Some(file), _) if file == "-" => return "-".to_owned(),
        (Some(file), _) => folder.join(file),
        (None, Some(name)) => folder.join(name),
        (None, None) => folder.to_owned(),
    };
    let first = first.to_string_lossy();
    absolute(&first).unwrap_or_else(|| first.into_owned())
}

/// Whether a folder has a file that is for bake only.
pub(crate) fn has_bake_file(folder: &Path) -> bool {
    FILES[..4].iter().any(|name| folder.join(name).is_file())
}

/// Whether a folder has a Compose file.
pub(crate) fn has_compose_file(folder: &Path) -> bool {
    FILES[4..].iter().any(|name| folder.join(name).is_file())
}
