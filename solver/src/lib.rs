//! The build graph of cbs: LLB vertices, cache keys and the scheduler.
