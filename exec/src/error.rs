//! Failures of the executors, turned into what the solver reports.

use cbs_solver::{FailureKind, StepError};
use cbs_store::edit::EditError;
use cbs_store::ingest::IngestError;
use cbs_store::tar::TarError;

use crate::source::SourceError;

/// A failed edit: a path that is not there is the Dockerfile's fault, all else the machine's or the op's.
pub(crate) fn edit_error(error: EditError) -> StepError {
    let kind = match &error {
        EditError::Store(_) => FailureKind::System,
        EditError::NotFound { .. } => FailureKind::NotFound,
        _ => FailureKind::Invalid,
    };
    // BuildKit's words for a missing source, which people search for.
    let message = match &error {
        EditError::NotFound { path } => format!(
            "\"/{}\": not found",
            String::from_utf8_lossy(path).trim_start_matches('/')
        ),
        other => other.to_string(),
    };
    StepError::caused(kind, message, error)
}

/// A failed read of files.
pub(crate) fn ingest_error(error: IngestError) -> StepError {
    let kind = match &error {
        IngestError::Store(_) => FailureKind::System,
        IngestError::Changed { .. } => FailureKind::Mismatch,
        _ => FailureKind::Invalid,
    };
    StepError::caused(kind, error.to_string(), error)
}

/// An archive that cannot be unpacked.
pub(crate) fn tar_error(error: TarError) -> StepError {
    StepError::caused(FailureKind::Invalid, error.to_string(), error)
}

/// A source that cannot be had.
pub(crate) fn source_error(error: SourceError) -> StepError {
    let kind = match &error {
        SourceError::Store(_) | SourceError::Io { .. } | SourceError::Facts { .. } => FailureKind::System,
        SourceError::Http { .. } | SourceError::Offline(_) => FailureKind::Network,
        SourceError::Checksum { .. } => FailureKind::Mismatch,
        SourceError::UnknownScheme(_) | SourceError::NoGit { .. } => FailureKind::Unsupported,
        SourceError::Attribute { .. } => FailureKind::Invalid,
        SourceError::Image(_)
        | SourceError::HttpStatus { .. }
        | SourceError::Git { .. }
        | SourceError::GitReference { .. }
        | SourceError::NotLocked(_)
        | SourceError::UnknownLocal(_) => FailureKind::MissingSource,
        SourceError::Ingest(_) | SourceError::Edit(_) => FailureKind::System,
    };
    StepError::caused(kind, error.to_string(), error)
}

/// A bug or a definition nobody checked: an index that leads nowhere.
pub(crate) fn invalid(message: impl Into<String>) -> StepError {
    StepError::new(FailureKind::Invalid, message)
}
