//! The executors of cbs: containers, sources and file operations.
