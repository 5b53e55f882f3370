//! The executors of cbs: containers, sources and file operations.

pub mod launch;
