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

mod ast;
mod frontend;
mod git_ref;
mod go;
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
pub use lower::{BaseImage, context_definition};
pub use options::{BuildOptions, MainContext, NamedContext, NoCache, OptionError, Resources};
pub use parse::{Syntax, detect_syntax};
pub use resolver::{ImageRequest, ImageStore, MetaResolver, ResolveError, ResolveMode, ResolvedImage};
pub use source::{Diagnostic, DockerfileError, LineRange, Place, SourceFile, Span, Spanned};
pub use subrequest::{
    BuildError, LintEntry, LintResults, Location, Outline, OutlineArg, OutlineNeed, Position, Range, SourceEntry,
    TargetEntry, TargetList,
};

#[cfg(test)]
mod tests;
