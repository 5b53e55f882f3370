//! Owners that the step could not see, and what it left of them.

use super::*;

/// Ingests an upper directory in which the paths of `copied_up` bear overlayfs's mark, where only id 0 exists.
#[track_caller]
fn ingests_with_one_id(lower: &str, upper: &str, copied_up: &[&str], layer_text: &str, tree_text: &str) {
    let store = MemoryStore::default();
    let lower = tree(&store, lower);
    let dir = tempfile::tempdir().expect("tempdir");
    write(&store, &layer(&store, upper), dir.path());
    for path in copied_up {
        rustix::fs::setxattr(
            dir.path().join(path),
            "trusted.overlay.origin",
            b"",
            XattrFlags::empty(),
        )
        .expect("mark");
    }
    let owners = KnownIds::from_maps("0 1000 1\n", "0 1000 1\n");
    let options = UpperOptions {
        owners: &owners,
        ..upper_options(&[])
    };
    let ingested = upperdir(&store, dir.path(), &lower, &options).expect("ingest");
    check(&store, &ingested.layer, layer_text);
    check(&store, &ingested.tree, tree_text);
}

#[test]
fn files_changed_in_place_keep_owners_that_do_not_exist_as_root() {
    if !is_root("files_changed_in_place_keep_owners_that_do_not_exist_as_root") {
        return;
    }
    let lower = "d d 750 33:44\n f d/a 33:0 =1\n f d/b 33:44 =2\n l d/l 33:44 ->x";
    // Changed in place, replaced, and made anew.
    ingests_with_one_id(
        lower,
        "d d 750\n f d/a =changed\n f d/b =replaced\n f d/c =new",
        &["d", "d/a"],
        "d d 750 33:44\n f d/a 33:0 =changed\n f d/b =replaced\n f d/c =new",
        "d d 750 33:44\n f d/a 33:0 =changed\n f d/b =replaced\n f d/c =new\n l d/l 33:44 ->x",
    );
    // Copied up and not changed; links cannot bear the mark.
    ingests_with_one_id(lower, "d d 750\n f d/a =1\n l d/l ->x", &["d", "d/a"], "", lower);
    ingests_with_one_id(
        lower,
        "d d 750\n l d/l ->y",
        &["d"],
        "d d 750 33:44\n l d/l ->y",
        "d d 750 33:44\n f d/a 33:0 =1\n f d/b 33:44 =2\n l d/l ->y",
    );
    // Another directory of the same name.
    ingests_with_one_id(
        lower,
        "d d 700\n o d\n f d/a =1",
        &[],
        "d d 700\n f d/a =1\n w d/b\n w d/l",
        "d d 700\n f d/a =1",
    );
    // New names of a changed file have its owner, which is then root for all of them.
    ingests_with_one_id(
        "f a 33:44 =1",
        "f a =2\n h b =>a",
        &["a"],
        "f a =2\n h b =>a",
        "f a =2\n h b =>a",
    );
}
