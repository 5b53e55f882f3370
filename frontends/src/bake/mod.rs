//! Bake.

pub(crate) mod csv_line;
pub(crate) mod entries;
pub(crate) mod entitlements;
pub(crate) mod error;
pub(crate) mod functions;
pub(crate) mod hcl;
pub(crate) mod host;
pub(crate) mod model;
pub(crate) mod options;
pub(crate) mod overrides;
pub(crate) mod paths;
pub(crate) mod program;
pub(crate) mod rebase;
pub(crate) mod remote;
pub(crate) mod resolve;
pub(crate) mod source;
pub(crate) mod value;
