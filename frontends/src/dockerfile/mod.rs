//! Dockerfiles to LLB and image configs, as BuildKit's Dockerfile frontend makes them.
//!
//! ```text
//! bytes ── parse ──► instructions with places ── lower (per platform) ──► pb::Definition, ImageConfig
//!                         │                         ▲     │
//!                         └────── lint ◄────────────┼─────┘
//!                                     MetaResolver: configs of base images, ignore files, times
//! ```
//! Start at [`lower`]; [`check`], [`outline`] and [`targets`] answer `--call`. Nothing here reads a file, runs a step or
//! talks to a registry: the caller brings the bytes, and a [`MetaResolver`] answers the rest.
//!
//! ```
//! use cbs_frontends::dockerfile::{BuildOptions, DockerfileInput, ImageRequest, MetaResolver, ResolveError, ResolvedImage, lower};
//! use cbs_solver::{BoxFuture, pb};
//! use futures_util::FutureExt;
//!
//! /// A world without images.
//! struct Nothing;
//!
//! impl MetaResolver for Nothing {
//!     fn image_config(&self, request: ImageRequest) -> BoxFuture<'_, Result<ResolvedImage, ResolveError>> {
//!         let error = ResolveError { subject: request.reference.to_string(), source: "no registry".into() };
//!         Box::pin(async { Err(error) })
//!     }
//!     fn ignore_file<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, ResolveError>> {
//!         Box::pin(async { Ok(None) })
//!     }
//!     fn source_time(&self, _: pb::SourceOp) -> BoxFuture<'_, Result<Option<i64>, ResolveError>> {
//!         Box::pin(async { Ok(None) })
//!     }
//! }
//!
//! let input = DockerfileInput { name: "Dockerfile", data: b"FROM scratch\nCOPY . /\nCMD [\"/run\"]\n", ignore_file: None };
//! let options = BuildOptions::new("linux/amd64".parse()?);
//! let lowered = lower(&input, &options, &Nothing).now_or_never().expect("nothing to wait for")?;
//! assert_eq!(lowered.platforms[0].config.config.cmd, ["/run"]);
//! assert_eq!(lowered.platforms[0].definition.def.len(), 3, "the context, the copy and the terminal op");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
#![doc = include_str!("differences.md")]

mod ast;
mod frontend;
mod git_ref;
pub(crate) mod go;
mod lint;
mod lower;
mod options;
mod parse;
mod resolver;
mod shell;
mod source;
mod subrequest;

pub use frontend::{DockerfileInput, FrontendError, Lowered, PlatformResult, check, lower, outline, targets};
pub use git_ref::{GitRef, GitRefError, Transport};
pub use lint::{LintRule, LintWarning};
pub use lower::{BaseImage, context_definition, context_source};
pub use options::{BuildOptions, HostAddress, MainContext, NamedContext, NoCache, OptionError, Resources};
pub use parse::{Syntax, detect_syntax};
pub use resolver::{ImageRequest, ImageStore, MetaResolver, ResolveError, ResolveMode, ResolvedImage};
pub use source::{Diagnostic, DockerfileError, LineRange, Place, SourceFile, Span, Spanned};
pub use subrequest::{
    BuildError, LintEntry, LintResults, Location, Outline, OutlineArg, OutlineNeed, Position, Range, SourceEntry,
    TargetEntry, TargetList,
};

#[cfg(test)]
mod tests;
