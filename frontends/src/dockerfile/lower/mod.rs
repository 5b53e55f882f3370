//! Instructions to LLB, once for each platform.
//!
//! ```text
//! stages ── declare ──► StageState ── link ──► who needs whom ── resolve (async) ──► base images and contexts known
//!        ── dispatch, in the order of the file ──► Graph, image configs, used paths ── definitions ──► pb::Definition
//! ```
//! A [`Convert`] is the state of one platform. Dispatch takes a stage out of it, lowers its instructions, and puts it
//! back, so that an instruction may look at every other stage.

mod config;
mod context;
mod copy;
mod declare;
mod dispatch;
mod env;
mod epoch;
mod expose;
mod graph;
mod link;
mod mode;
mod mounts;
mod names;
mod outline;
mod paths;
mod questions;
mod remote;
mod resolve;
mod run;
mod stages;
mod state;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use cbs_image::config::ImageConfig;
use cbs_image::platform::Platform;
use cbs_solver::patterns::{PatternList, parse_ignore_file};
use cbs_solver::pb;

use self::env::Env;
use self::graph::{Graph, NodeId};
use self::state::{ArgInfo, StageId, StageState};
use super::ast::Dockerfile;
use super::lint::{LintConfig, Linter, check_syntax};
use super::options::{BuildOptions, MainContext};
use super::shell::Shell;
use super::source::{Complaint, SourceFile};

pub use self::context::{context_definition, context_source};
pub(super) use self::outline::{OutlineArg, OutlineData, OutlineNeed};
pub(super) use self::questions::{Questions, Resolver};
pub use self::state::BaseImage;

/// What every platform of a build shares.
pub(super) struct Input<'a> {
    pub(super) file: &'a SourceFile,
    pub(super) dockerfile: &'a Dockerfile,
    pub(super) options: &'a BuildOptions,
    /// The ignore file of the main context.
    pub(super) ignore_file: Option<&'a [u8]>,
    pub(super) resolver: &'a dyn Questions,
    pub(super) scope: Scope,
    /// Whether step names say the platform.
    pub(super) index: bool,
}

/// Which stages are lowered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// The target and what it needs.
    Target,
    /// All, to lint them.
    AllStages,
}

/// One platform, lowered.
pub(super) struct Converted {
    pub(super) definition: pb::Definition,
    pub(super) image: ImageConfig,
    pub(super) base: Option<BaseImage>,
    /// What an SBOM scanner looks at beside the result.
    pub(super) scan: Vec<(String, pb::Definition)>,
    pub(super) ignore_cache: bool,
    pub(super) epoch: Option<i64>,
    pub(super) outline: OutlineData,
}

/// The conversion of one platform.
pub(super) struct Convert<'a> {
    input: &'a Input<'a>,
    target: Platform,
    /// Whether the target platform was chosen by nobody, so that the base image's counts.
    implicit_target: bool,
    shell: Shell,
    build_args: BTreeMap<String, String>,
    /// Platform arguments and global ARGs.
    globals: Env,
    global_info: BTreeMap<String, ArgInfo>,
    epoch: Option<i64>,
    linter: Linter,
    graph: Graph,
    main_context: Option<NodeId>,
    context_paths: BTreeSet<String>,
    /// What is used of each stage that stands for a local context.
    used_paths: HashMap<StageId, BTreeSet<String>>,
    /// Local contexts, and the stage whose paths they are asked for.
    locals: Vec<(NodeId, StageId)>,
    stages: Vec<StageState<'a>>,
    by_name: HashMap<String, StageId>,
    /// Whether a RUN has a mount that comes from nothing or from scratch.
    mounts_scratch: bool,
    ignore_patterns: Vec<String>,
    ignored: Option<PatternList>,
    complaints: Vec<Complaint>,
}

/// The outcome of a conversion: what was lowered or the complaints, and in either case what lint found.
pub(super) type Outcome = (Result<Converted, Vec<Complaint>>, Linter);

impl<'a> Convert<'a> {
    /// Lowers the file for a platform; without one, for the build platform.
    pub(super) async fn run(input: &'a Input<'a>, platform: Option<&Platform>) -> Outcome {
        let options = input.options;
        let target = platform.unwrap_or(&options.build_platform).normalized();
        let mut convert = Self {
            input,
            target,
            implicit_target: platform.is_none(),
            shell: Shell::new(input.dockerfile.escape),
            build_args: options.build_args.clone(),
            globals: Env::default(),
            global_info: BTreeMap::new(),
            epoch: None,
            linter: Linter::default(),
            graph: Graph::default(),
            main_context: None,
            context_paths: BTreeSet::new(),
            used_paths: HashMap::new(),
            locals: Vec::new(),
            stages: Vec::new(),
            by_name: HashMap::new(),
            mounts_scratch: false,
            ignore_patterns: Vec::new(),
            ignored: None,
            complaints: Vec::new(),
        };
        let result = match convert.convert().await {
            Ok(converted) => Ok(converted),
            Err(Stopped) => Err(std::mem::take(&mut convert.complaints)),
        };
        (result, convert.linter)
    }

    async fn convert(&mut self) -> Result<Converted, Stopped> {
        let configured = self.configure_lint();
        self.note(configured);
        if self.input.dockerfile.stages.is_empty() {
            self.note::<()>(Err(Complaint::new("dockerfile contains no stages to build")));
        }
        check_syntax(self.input.dockerfile, &mut self.linter);
        self.go_on()?;
        let globals = self.read_globals();
        self.note(globals);
        self.go_on()?;
        let epoch = self.resolve_epoch().await;
        self.note(epoch);
        self.go_on()?;
        self.declare_stages();
        self.go_on()?;
        let target = self.find_target();
        let Some(target) = self.note(target) else {
            return Err(Stopped);
        };
        self.link_stages();
        self.go_on()?;
        let reachable = self.resolve_stages(target).await?;
        let ignored = self.read_ignore_file();
        self.note(ignored);
        self.dispatch_stages(&reachable);
        self.go_on()?;
        let finished = self.finish(target, &reachable);
        self.note(finished).ok_or(Stopped)
    }

    /// Keeps the complaint of a failed part.
    fn note<T>(&mut self, result: Result<T, Complaint>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(complaint) => {
                // Two instructions may suffer from one mistake.
                if !self.complaints.contains(&complaint) {
                    self.complaints.push(complaint);
                }
                None
            }
        }
    }

    fn go_on(&self) -> Result<(), Stopped> {
        if self.complaints.is_empty() {
            Ok(())
        } else {
            Err(Stopped)
        }
    }

    fn configure_lint(&mut self) -> Result<(), Complaint> {
        let directive = self.input.dockerfile.check.as_ref();
        let argument = self.input.options.build_args.get("BUILDKIT_DOCKERFILE_CHECK");
        let (text, span) = match (argument, directive) {
            (Some(text), _) => (text.as_str(), None),
            (None, Some(word)) => (word.value.as_str(), Some(word.span)),
            (None, None) => return Ok(()),
        };
        self.linter.config = LintConfig::parse(text).map_err(|reason| {
            let complaint = Complaint::new(format!("failed to parse check options: {reason}"));
            span.into_iter().fold(complaint, Complaint::at)
        })?;
        Ok(())
    }

    /// Reads the ignore file. Only a directory of the caller has one.
    fn read_ignore_file(&mut self) -> Result<(), Complaint> {
        let (MainContext::Local { .. }, Some(bytes)) = (&self.input.options.context, self.input.ignore_file) else {
            return Ok(());
        };
        self.ignore_patterns = parse_ignore_file(bytes);
        let list = PatternList::new(&self.ignore_patterns)
            .map_err(|error| Complaint::new(format!("failed to read dockerignore patterns: {error}")))?;
        self.ignored = (!list.is_empty()).then_some(list);
        Ok(())
    }

    fn prefixes_platform(&self) -> bool {
        self.input.index
    }

    /// The stage whose used paths a stage shares: the first of its chain.
    fn paths_owner(&self, mut id: StageId) -> StageId {
        while let Some(base) = self.stages[id.0].base {
            id = base;
        }
        id
    }

    fn finish(&mut self, target: StageId, reachable: &BTreeSet<StageId>) -> Result<Converted, Complaint> {
        if let Some(message) = self.linter.failure() {
            return Err(Complaint::new(message));
        }
        let owner = self.paths_owner(target);
        self.used_paths.entry(owner).or_default().insert("/".to_owned());
        if let Some(context) = self.main_context {
            self.graph.set_paths(context, &self.context_paths);
        }
        for (node, owner) in &self.locals {
            self.graph
                .set_paths(*node, self.used_paths.get(owner).unwrap_or(&BTreeSet::new()));
        }
        let outline = self.outline(target);
        let mut scans = Vec::new();
        if self.stages[target.0].scan_context {
            scans.push(("context".to_owned(), Some(self.main_context())));
        }
        let others = reachable
            .iter()
            .filter(|&&id| id != target)
            .map(|id| &self.stages[id.0]);
        let scanned: Vec<&StageState<'_>> = others.filter(|stage| stage.scan_stage).collect();
        let ignore_cache = self.stages[target.0].ignore_cache || scanned.iter().any(|stage| stage.ignore_cache);
        scans.extend(scanned.iter().map(|stage| (stage.label.clone(), stage.root)));
        let mut roots = vec![self.stages[target.0].root];
        roots.extend(scans.iter().map(|(_, root)| *root));
        let definitions = self
            .graph
            .definitions(&roots, self.input.file)
            .map_err(|reason| Complaint::new(format!("the definition of a named context cannot be read: {reason}")))?;
        let mut definitions = definitions.into_iter();
        let definition = definitions.next().unwrap_or_default();
        let stage = &mut self.stages[target.0];
        let mut image = std::mem::take(&mut stage.image);
        image.config.labels.extend(self.input.options.labels.clone());
        set_platform(&mut image, &self.target, self.implicit_target);
        Ok(Converted {
            definition,
            image,
            base: stage.base_image.take(),
            scan: scans.into_iter().map(|(name, _)| name).zip(definitions).collect(),
            ignore_cache,
            epoch: self.epoch,
            outline,
        })
    }
}

/// Conversion stopped; the complaints say why.
pub(super) struct Stopped;

/// The platform in the config: the one asked for, or else that of the base image.
fn set_platform(image: &mut ImageConfig, target: &Platform, implicit: bool) {
    if !implicit {
        let same = image.os == target.os && image.architecture == target.architecture;
        image.os.clone_from(&target.os);
        image.architecture.clone_from(&target.architecture);
        if !same || !target.variant.is_empty() {
            image.variant.clone_from(&target.variant);
        }
        if !same || !target.os_version.is_empty() {
            image.os_version.clone_from(&target.os_version);
        }
        if !target.os_features.is_empty() {
            image.os_features.clone_from(&target.os_features);
        }
    }
    let normal = platform_of(image).normalized();
    image.os = normal.os;
    image.architecture = normal.architecture;
    image.variant = normal.variant;
    image.os_features = normal.os_features;
}

/// The platform an image config names.
fn platform_of(image: &ImageConfig) -> Platform {
    Platform {
        architecture: image.architecture.clone(),
        os: image.os.clone(),
        os_version: image.os_version.clone(),
        os_features: image.os_features.clone(),
        variant: image.variant.clone(),
    }
}
