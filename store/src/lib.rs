//! The content store of cbs: blobs, trees, realisations and gc roots.
