//! `cbs build`: a Dockerfile to an image.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use cbs_image::codec::Decoder;

use super::{finish, plan};
use crate::args::Global;
use crate::build_args::{BuildArgs, ProgressMode};
use crate::failure::Usage;
use crate::planned::{Planned, StandardInput};
use crate::record::absolute;
use crate::remote::is_archive;
use crate::session::Session;

/// `cbs build`.
pub(crate) fn run(global: &Global, args: &BuildArgs) -> anyhow::Result<ExitCode> {
    if args.iidfile.is_some() && args.platform.len() > 1 {
        bail!(Usage("--iidfile needs an image of one platform".to_owned()));
    }
    let mut common = args.common.clone();
    if args.quiet {
        common.progress = Some(ProgressMode::Quiet);
    }
    let session = Session::start(global, common.progress, common.network())?;
    let input = standard_input(args, &session)?;
    let mut planned = Planned::new(global);
    planned.add_build(args, &input, root_name(args))?;
    if let Some(what) = &args.print {
        return plan::print_llb(&session, planned, what);
    }
    let answers = finish::Answers::One {
        iidfile: args.iidfile.clone(),
        prints: args.quiet,
    };
    finish(session, planned, &common, &answers)
}

/// What the result is kept under: the Dockerfile that was named, else the context; with the stage.
fn root_name(args: &BuildArgs) -> String {
    let place = match (&args.file, args.context.as_str()) {
        (_, "-") => "-".to_owned(),
        (Some(file), context) if file == "-" => context.to_owned(),
        (Some(file), _) => file.clone(),
        (None, context) => context.to_owned(),
    };
    let place = if place == "-" || place.contains("://") {
        place
    } else {
        absolute(&place).unwrap_or(place)
    };
    match &args.target {
        Some(stage) => format!("{place}#{stage}"),
        None => place,
    }
}

/// Reads what `-` stands for: a Dockerfile, or an archive that is the context.
fn standard_input(args: &BuildArgs, session: &Session) -> anyhow::Result<StandardInput> {
    let (is_context, is_file) = (args.context == "-", args.file.as_deref() == Some("-"));
    if is_context && is_file {
        bail!(Usage(
            "context and Dockerfile cannot both come from standard input".to_owned()
        ));
    }
    if !is_context && !is_file {
        return Ok(StandardInput::default());
    }
    let mut data = Vec::new();
    let read = std::io::stdin().lock().read_to_end(&mut data);
    read.context("cannot read standard input")?;
    if is_file {
        return Ok(StandardInput {
            context: None,
            dockerfile: Some(String::from_utf8_lossy(&data).into_owned()),
        });
    }
    let folder = session.lease.new_dir("context")?;
    if is_archive(&data) {
        unpack(&data, &folder)?;
        return Ok(StandardInput {
            context: Some(folder),
            dockerfile: None,
        });
    }
    Ok(StandardInput {
        context: Some(folder),
        dockerfile: Some(String::from_utf8_lossy(&data).into_owned()),
    })
}

fn unpack(data: &[u8], folder: &PathBuf) -> anyhow::Result<()> {
    let decoder = Decoder::new(data).context("cannot read the context on standard input")?;
    let mut archive = tar::Archive::new(decoder);
    archive.set_preserve_permissions(true);
    archive
        .unpack(folder)
        .context("cannot unpack the context on standard input")
}
