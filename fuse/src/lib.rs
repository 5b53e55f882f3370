//! The FUSE mounts of cbs: store trees as files.
