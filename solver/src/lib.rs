//! The build graph of cbs: LLB vertices, cache keys and the scheduler.

pub mod llb;

pub use cbs_store::patterns;
pub use llb::pb;
