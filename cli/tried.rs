//! The last build of a name, whether it failed or not: what people think of when they ask about a build.

use cbs_store::{GcRoot, Store};

use crate::failed::{self, FailedStep, Remembered};
use crate::inputs::BuildInputs;
use crate::record::{self, Record};
use crate::steps::StepRecord;

/// A build that came to its end, in one way or the other.
#[derive(Clone, Debug)]
pub(crate) enum Tried {
    /// It failed.
    Failed(Box<Remembered>),
    /// It has a result.
    Built(Box<(GcRoot, Record)>),
}

impl Tried {
    /// The last build of a name; without one, of all.
    ///
    /// # Errors
    /// When there was none, the name is ambiguous, or the store cannot be asked.
    pub(crate) fn last(store: &Store, name: Option<&str>) -> anyhow::Result<Self> {
        let failure = failed::find(store, name)?;
        let built = match name {
            Some(name) => record::find(store, name),
            None => record::newest(store),
        };
        Ok(match (failure, built) {
            (Some(failure), Ok((root, _))) if failure.root.created >= root.created => Self::Failed(Box::new(failure)),
            (Some(failure), Err(_)) => Self::Failed(Box::new(failure)),
            (_, built) => Self::Built(Box::new(built?)),
        })
    }

    /// What it was made from; `None` in records of older programs.
    pub(crate) fn inputs(&self) -> Option<&BuildInputs> {
        let inputs = match self {
            Self::Failed(failure) => Some(&failure.build.inputs),
            Self::Built(built) => built.1.inputs.as_ref(),
        };
        inputs.filter(|inputs| !inputs.is_empty())
    }

    /// All its steps, inputs before their users.
    pub(crate) fn steps(&self) -> &[StepRecord] {
        match self {
            Self::Failed(failure) => &failure.build.steps,
            Self::Built(built) => &built.1.steps,
        }
    }

    /// The failure, and the steps that failed.
    pub(crate) fn failures(&self) -> impl Iterator<Item = (&Remembered, &FailedStep)> {
        let failure = match self {
            Self::Failed(failure) => Some(&**failure),
            Self::Built(_) => None,
        };
        failure
            .into_iter()
            .flat_map(|failure| failure.build.failures.iter().map(move |failed| (failure, failed)))
    }
}
