//! The build graph of cbs: LLB vertices, cache keys and the scheduler.

pub mod llb;
pub mod patterns;

pub use llb::pb;
