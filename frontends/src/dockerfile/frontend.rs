//! The door to this frontend: lower, check, outline, targets.

use std::collections::BTreeMap;

use cbs_image::config::ImageConfig;
use cbs_image::platform::Platform;
use cbs_image::reference::Reference;
use cbs_solver::pb;
use futures_util::future::join_all;

use super::ast::{Dockerfile, description};
use super::lint::{LintConfig, LintWarning, Linter, check_syntax};
use super::lower::{BaseImage, Convert, Converted, Input, Questions, Resolver, Scope};
use super::options::{BuildOptions, OptionError};
use super::parse::{Syntax, detect_syntax, parse};
use super::resolver::MetaResolver;
use super::source::{Complaint, DockerfileError, LineRange, SourceFile};
use super::subrequest::{LintResults, Location, Outline, TargetEntry, TargetList};

/// The argument that names a frontend in place of the file's directive.
const SYNTAX_ARG: &str = "BUILDKIT_SYNTAX";

/// A Dockerfile and what was read beside it.
#[derive(Clone, Copy, Debug)]
pub struct DockerfileInput<'a> {
    /// The name that messages give, such as `Dockerfile`.
    pub name: &'a str,
    /// Its bytes.
    pub data: &'a [u8],
    /// The ignore file of the main context: `NAME.dockerignore` beside the Dockerfile, or else `.dockerignore` at the
    /// root of the context. Only a local context has one.
    pub ignore_file: Option<&'a [u8]>,
}

/// A lowered build.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// One result for each platform, in the order asked for.
    pub platforms: Vec<PlatformResult>,
    /// What lint found.
    pub warnings: Vec<LintWarning>,
    /// Whether the result is an index, even of one platform.
    pub index: bool,
    /// SOURCE_DATE_EPOCH in seconds, when the build has one.
    pub epoch: Option<i64>,
}

/// One platform of a lowered build.
#[derive(Clone, Debug)]
pub struct PlatformResult {
    /// The platform that was asked for, or the build platform.
    pub platform: Platform,
    /// What makes the tree; empty for an image without layers.
    pub definition: pb::Definition,
    /// The image config. `rootfs` is that of the base, and `history` has no times but the epoch; exporting fills them.
    pub config: ImageConfig,
    /// The image the result is built on, if any.
    pub base: Option<BaseImage>,
    /// What an SBOM scanner should look at beside the result, by name.
    pub scan: Vec<(String, pb::Definition)>,
    /// Whether steps of the result ignore the cache.
    pub ignore_cache: bool,
}

/// Why a build cannot be lowered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrontendError {
    /// The Dockerfile, or what it names, is at fault.
    #[error(transparent)]
    Dockerfile(#[from] DockerfileError),
    /// An option is at fault.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// The file wants a frontend that is not this one.
    #[error(
        "the frontend `{image}` is not available{}: only `docker/dockerfile` is built in, and frontend images are not run",
        line.map(|line| format!(" (syntax directive on line {line})")).unwrap_or_default()
    )]
    Syntax {
        /// The frontend image.
        image: String,
        /// The line of the directive; `None` when a build argument names the frontend.
        line: Option<u32>,
    },
}

/// Lowers a Dockerfile for every platform asked for.
///
/// # Errors
/// [`FrontendError`], with all complaints about the file that could be found.
pub async fn lower(
    input: &DockerfileInput<'_>,
    options: &BuildOptions,
    resolver: &dyn MetaResolver,
) -> Result<Lowered, FrontendError> {
    let index = options.wants_index()?;
    let (file, dockerfile) = read(input, options)?;
    let resolver = Resolver::new(resolver);
    let input = Input {
        file: &file,
        dockerfile: &dockerfile,
        options,
        ignore_file: input.ignore_file,
        resolver: &resolver,
        scope: Scope::Target,
        index,
    };
    let mut platforms: Vec<Option<&Platform>> = options.platforms.iter().map(Some).collect();
    if platforms.is_empty() {
        platforms.push(None);
    }
    let outcomes = join_all(platforms.iter().map(|platform| Convert::run(&input, *platform))).await;
    let mut lowered = Lowered {
        platforms: Vec::new(),
        warnings: Vec::new(),
        index,
        epoch: None,
    };
    let mut complaints: Vec<Complaint> = Vec::new();
    for (number, ((result, linter), platform)) in outcomes.into_iter().zip(platforms).enumerate() {
        if number == 0 {
            lowered.warnings = linter.warnings;
        }
        match result {
            Ok(converted) => {
                lowered.epoch = lowered.epoch.or(converted.epoch);
                lowered
                    .platforms
                    .push(platform_result(converted, platform.unwrap_or(&options.build_platform)));
            }
            // What is wrong for every platform is said once.
            Err(found) => complaints.extend(
                found
                    .into_iter()
                    .filter(|new| !complaints.contains(new))
                    .collect::<Vec<_>>(),
            ),
        }
    }
    if complaints.is_empty() {
        Ok(lowered)
    } else {
        Err(report(&file, &complaints).into())
    }
}

fn platform_result(converted: Converted, platform: &Platform) -> PlatformResult {
    PlatformResult {
        platform: platform.normalized(),
        definition: converted.definition,
        config: converted.image,
        base: converted.base,
        scan: converted.scan,
        ignore_cache: converted.ignore_cache,
    }
}

/// Lints a Dockerfile: `--check`. Without a target, all stages. What keeps the file from building is part of the answer.
///
/// # Errors
/// [`FrontendError::Syntax`] when the file is not for this frontend.
pub async fn check(
    input: &DockerfileInput<'_>,
    options: &BuildOptions,
    resolver: &dyn MetaResolver,
) -> Result<LintResults, FrontendError> {
    check_frontend(input.data, &options.build_args)?;
    let file = SourceFile::new(input.name, input.data);
    let (dockerfile, complaints) = parse(&file);
    let (complaints, warnings) = if complaints.is_empty() {
        let resolver = Resolver::new(resolver);
        let scope = if options.target.is_some() {
            Scope::Target
        } else {
            Scope::AllStages
        };
        let (outcome, linter) = run_first(&file, &dockerfile, input, options, &resolver, scope).await;
        (outcome.err().unwrap_or_default(), linter.warnings)
    } else {
        // The text alone can be judged even if it does not build.
        let mut linter = Linter::default();
        let text = options
            .build_args
            .get("BUILDKIT_DOCKERFILE_CHECK")
            .or(dockerfile.check.as_ref().map(|c| &c.value));
        linter.config = text.and_then(|text| LintConfig::parse(text).ok()).unwrap_or_default();
        check_syntax(&dockerfile, &mut linter);
        (complaints.into_iter().map(as_parse_error).collect(), linter.warnings)
    };
    let diagnostics = if complaints.is_empty() {
        Vec::new()
    } else {
        report(&file, &complaints).diagnostics
    };
    Ok(LintResults::new(&file, &warnings, &diagnostics))
}

/// Tools that read the JSON of a check know errors of the text by these words.
fn as_parse_error(complaint: Complaint) -> Complaint {
    match complaint.lines {
        Some(lines) => {
            let message = format!("dockerfile parse error on line {}: {}", lines.first, complaint.message);
            Complaint { message, ..complaint }
        }
        None => complaint,
    }
}

/// Lists what a target takes: `--call outline`.
///
/// # Errors
/// [`FrontendError`] when the file cannot be lowered.
pub async fn outline(
    input: &DockerfileInput<'_>,
    options: &BuildOptions,
    resolver: &dyn MetaResolver,
) -> Result<Outline, FrontendError> {
    let (file, dockerfile) = read(input, options)?;
    let resolver = Resolver::new(resolver);
    let (outcome, _) = run_first(&file, &dockerfile, input, options, &resolver, Scope::Target).await;
    let converted = outcome.map_err(|complaints| report(&file, &complaints))?;
    Ok(Outline::new(&file, converted.outline))
}

/// Lists the stages of a Dockerfile: `--call targets`.
///
/// # Errors
/// [`FrontendError`] when the file cannot be read.
pub fn targets(input: &DockerfileInput<'_>, options: &BuildOptions) -> Result<TargetList, FrontendError> {
    let (file, dockerfile) = read(input, options)?;
    let last = dockerfile.stages.len().saturating_sub(1);
    let entry = |(number, stage): (usize, &super::ast::Stage)| {
        let name = stage
            .from
            .alias
            .as_ref()
            .map(|alias| alias.name.clone())
            .unwrap_or_default();
        TargetEntry {
            default: number == last,
            description: description(&stage.head.comments, &name),
            name,
            base: stage.from.base.value.clone(),
            platform: stage
                .from
                .platform
                .as_ref()
                .map(|platform| platform.value.clone())
                .unwrap_or_default(),
            location: Location::of(stage.head.lines),
        }
    };
    let sources = Outline::new(&file, super::lower::OutlineData::default()).sources;
    Ok(TargetList {
        targets: dockerfile.stages.iter().enumerate().map(entry).collect(),
        sources,
    })
}

/// The first platform, which is the one that questions about the file are about.
async fn run_first(
    file: &SourceFile,
    dockerfile: &Dockerfile,
    input: &DockerfileInput<'_>,
    options: &BuildOptions,
    resolver: &dyn Questions,
    scope: Scope,
) -> super::lower::Outcome {
    let input = Input {
        file,
        dockerfile,
        options,
        ignore_file: input.ignore_file,
        resolver,
        scope,
        index: false,
    };
    Convert::run(&input, options.platforms.first()).await
}

fn read(input: &DockerfileInput<'_>, options: &BuildOptions) -> Result<(SourceFile, Dockerfile), FrontendError> {
    check_frontend(input.data, &options.build_args)?;
    let file = SourceFile::new(input.name, input.data);
    let (dockerfile, complaints) = parse(&file);
    if complaints.is_empty() {
        Ok((file, dockerfile))
    } else {
        Err(report(&file, &complaints).into())
    }
}

/// Whether this frontend is the one the file asks for.
fn check_frontend(data: &[u8], build_args: &BTreeMap<String, String>) -> Result<(), FrontendError> {
    let (image, line) = match (build_args.get(SYNTAX_ARG), detect_syntax(data)) {
        (Some(text), _) => (text.trim().split(' ').next().unwrap_or_default().to_owned(), None),
        (None, Some(Syntax { image, line, .. })) => (image, Some(line)),
        (None, None) => return Ok(()),
    };
    let is_ours = |reference: Reference| {
        matches!(
            reference.repository(),
            "docker/dockerfile" | "docker/dockerfile-upstream"
        )
    };
    if image == "dockerfile.v0" || image.parse().is_ok_and(is_ours) {
        Ok(())
    } else {
        Err(FrontendError::Syntax { image, line })
    }
}

/// Complaints in the order of the file, shown with its lines.
fn report(file: &SourceFile, complaints: &[Complaint]) -> DockerfileError {
    let mut sorted: Vec<&Complaint> = complaints.iter().collect();
    sorted.sort_by_key(|complaint| complaint.lines.map_or(0, |LineRange { first, .. }| first));
    DockerfileError {
        diagnostics: sorted.into_iter().map(|complaint| file.diagnostic(complaint)).collect(),
    }
}
