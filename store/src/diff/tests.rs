use proptest::prelude::*;

use super::*;
use crate::MemoryStore;
use crate::testing::{any_tree, check, check_links, dump, layer, tree};

#[track_caller]
fn differs(lower: &str, upper: &str, want: &str) {
    let store = MemoryStore::default();
    let (lower, upper) = (tree(&store, lower), tree(&store, upper));
    let layer = diff(&store, Some(&lower), &upper).expect("diff");
    check(&store, &layer, want);
    laws(&store, &lower, &upper);
}

#[test]
fn records_what_an_oci_layer_records() {
    differs("f a =x", "f a =x", "");
    differs(
        "d a 700 1:2 @1\n f a/b/c =x",
        "d a 700 1:2 @3\n d a/b 711 @5\n f a/b/c =x",
        "d a 700 1:2 @3\n d a/b 711 @5",
    );
    differs("d a @1\n f a/f =", "d a @2\n f a/f =", "");
    differs("f a @1 =x", "f a @2 =x", "f a @2 =x");
    differs("f a =x", "f a 600 =x", "f a 600 =x");
    differs("f d/x/y =\n f d/z =", "f d/z =", "d d\n w d/x");
    differs("f d/x =\n f d/y =", "f d/n =", "d d\n f d/n =\n w d/x\n w d/y");
    differs("f a/b =", "f a =", "f a =");
    differs("f a =", "f a/b =", "d a\n f a/b =");
    differs("l a ->b", "l a ->c", "l a ->c");
    differs("f a =x\n f b =", "f a =x\n h c =>a", "w b\n f c =x");
    differs("f a =x\n h b =>a", "f a =x\n f b =y", "f b =y");
    differs(
        "d d",
        "f d/a =x\n h d/b =>d/a\n h d/s/c =>d/a",
        "d d\n f d/a =x\n h d/b =>d/a\n d d/s\n h d/s/c =>d/a",
    );
}

#[test]
fn the_root_is_never_recorded() {
    let store = MemoryStore::default();
    let lower = empty_tree(&store).expect("tree");
    let mut directory = Directory::empty_root();
    directory.root.as_mut().expect("root").mode = 0o700;
    let upper = store.put_directory(directory).expect("put").digest;
    let layer = diff(&store, Some(&lower), &upper).expect("diff");
    assert_eq!(layer, empty_layer(&store).expect("layer"));
}

#[track_caller]
fn applies(base: &str, changes: &str, want: &str) {
    let store = MemoryStore::default();
    let base = tree(&store, base);
    let layer = layer(&store, changes);
    check(&store, &apply(&store, Some(&base), &layer).expect("apply"), want);
}

#[test]
fn applies_marks() {
    applies("f a =\n f b/c =", "w a\n w none\n w b", "");
    applies("f d/a =\n f d/b =", "d d 700\n o d\n f d/c =", "d d 700\n f d/c =");
    applies(
        "f d/a/x =\n f d/b =",
        "d d 700 @4\n f d/c =",
        "d d 700 @4\n d d/a\n f d/a/x =\n f d/b =\n f d/c =",
    );
    applies(
        "f d =",
        "d d\n o d\n w d/x\n d d/e\n o d/e\n f d/e/f =",
        "d d\n d d/e\n f d/e/f =",
    );
    applies("d d\n f d/x =", "f d =file", "f d =file");
    applies("f a =x\n h b =>a\n h c =>a", "w b", "f a =x\n h c =>a");
    applies("f a =x\n h b =>a", "f b =x\n h c =>b", "f a =x\n f b =x\n h c =>b");
}

#[test]
fn stacks_marks() {
    let stacks = |lower: &str, upper: &str, want: &str| {
        let store = MemoryStore::default();
        let (lower, upper) = (layer(&store, lower), layer(&store, upper));
        check(&store, &stack(&store, &lower, &upper).expect("stack"), want);
    };
    stacks("f a =", "w a\n w b", "w a\n w b");
    stacks("w a", "f a/b =", "d a\n o a\n f a/b =");
    stacks("f a =", "f a/b =", "d a\n o a\n f a/b =");
    stacks("f a/b =\n w a/c", "f a/c =", "d a\n f a/b =\n f a/c =");
    stacks("f a/b =", "d a\n o a", "d a\n o a");
    stacks("d a\n o a", "f a/b =\n w a/c", "d a\n o a\n f a/b =\n w a/c");
}

/// What trees have in common that differ in link groups and in times of directories only.
fn flat(store: &MemoryStore, root: &TreeDigest) -> Vec<String> {
    let mut out = Vec::new();
    let mut todo = vec![(String::new(), *root)];
    while let Some((path, digest)) = todo.pop() {
        for entry in &store.need_directory(&digest).expect("directory").entries {
            let path = format!("{path}/{}", String::from_utf8_lossy(&entry.name));
            let mut entry = entry.clone();
            match &mut entry.node {
                Node::Directory(below) => {
                    todo.push((path.clone(), below.digest));
                    entry.meta.mtime = crate::Timestamp::default();
                    entry.node = Node::Fifo;
                }
                Node::File { link, .. } => *link = None,
                _ => {}
            }
            out.push(format!("{path} {entry:?}"));
        }
    }
    out.sort();
    out
}

/// The laws that hold for any two trees.
fn laws(store: &MemoryStore, a: &TreeDigest, b: &TreeDigest) {
    let changes = diff(store, Some(a), b).expect("diff");
    check_links(store, &changes);
    let made = apply(store, Some(a), &changes).expect("apply");
    check_links(store, &made);
    assert_eq!(flat(store, &made), flat(store, b), "apply(a, diff(a, b)) is b");
    let again = diff(store, Some(a), &made).expect("diff");
    assert_eq!(
        dump(store, &again),
        dump(store, &changes),
        "a layer is all that differs"
    );
    assert_eq!(
        diff(store, Some(a), a).expect("diff"),
        empty_layer(store).expect("layer")
    );
    // Directories without a change keep the time they have in `a`, the others take the one of `b`.
    let same = diff(store, Some(&made), b).expect("diff");
    assert_eq!(same, empty_layer(store).expect("layer"));
    let whole = diff(store, None, b).expect("diff");
    assert_eq!(
        apply(store, None, &whole).expect("apply"),
        *b,
        "nothing is lost from scratch"
    );
    // A tree over a tree is the same as its layer over it.
    assert_eq!(
        merge(store, Some(a), b).expect("merge"),
        apply(store, Some(a), &whole).expect("apply")
    );
}

proptest! {
    #[test]
    fn diff_and_apply_are_inverse(a in any_tree(), b in any_tree()) {
        let store = MemoryStore::default();
        let (a, b) = (tree(&store, &a), tree(&store, &b));
        laws(&store, &a, &b);
    }

    #[test]
    fn applying_is_associative(
        texts in prop::array::uniform4(any_tree()),
        opaque in prop::collection::vec("[abc]", 0..2),
    ) {
        let store = MemoryStore::default();
        let [a, b, c, d] = texts.each_ref().map(|text| tree(&store, text));
        let first = diff(&store, Some(&a), &b).expect("diff");
        let second = diff(&store, Some(&c), &d).expect("diff");
        // Some directories of the second layer hide what is below them.
        let marks: String = opaque
            .iter()
            .filter(|name| dump(&store, &second).lines().any(|line| line.starts_with(&format!("d {name}"))))
            .map(|name| format!("o {name}\n"))
            .collect();
        let second = layer(&store, &(dump(&store, &second) + &marks));
        let one_by_one = {
            let middle = apply(&store, Some(&c), &first).expect("apply");
            apply(&store, Some(&middle), &second).expect("apply")
        };
        let stacked = stack(&store, &first, &second).expect("stack");
        check_links(&store, &stacked);
        let at_once = apply(&store, Some(&c), &stacked).expect("apply");
        prop_assert_eq!(dump(&store, &at_once), dump(&store, &one_by_one));
        prop_assert_eq!(at_once, one_by_one);
    }
}
