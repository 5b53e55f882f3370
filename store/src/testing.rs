//! Trees as text, for tests. One line an entry, in walking order:
//!
//! ```text
//! d dir 700 5:6 @9        mode, owner and time are left out when they are the usual ones
//! f dir/file =text        l dir/link ->../to        h dir/hard =>dir/file
//! c dir/null 1,3          b dir/disk 8,0            p dir/fifo      w dir/gone      o dir (opaque)
//! ```

use std::collections::HashMap;

use proptest::prelude::*;

use crate::edit::{Draft, Level, Slot, join, split};
use crate::{BlobStore, Directory, DirectoryStore, LinkGroup, MemoryStore, Metadata, Node, Timestamp, TreeDigest};

/// Builds a tree; parents that have no line are 0755.
pub(crate) fn tree(store: &MemoryStore, text: &str) -> TreeDigest {
    build(store, text, Directory::empty_root())
}

/// Builds a layer: a tree without root metadata.
pub(crate) fn layer(store: &MemoryStore, text: &str) -> TreeDigest {
    build(store, text, Directory::default())
}

fn build(store: &MemoryStore, text: &str, root: Directory) -> TreeDigest {
    let mut draft = Draft::from_level(store, Level::from_directory(&root));
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        line_into(store, &mut draft, line);
    }
    draft.commit().expect("commit").digest
}

fn line_into(store: &MemoryStore, draft: &mut Draft<'_>, line: &str) {
    let mut words = line.split(' ');
    let kind = words.next().expect("a kind");
    let path = split(words.next().expect("a path").as_bytes());
    let (_, parents) = path.split_last().expect("no root");
    draft.make_directories(parents, &Metadata::new(0o755)).expect("parents");
    let mut meta = Metadata::new(match kind {
        "d" => 0o755,
        "l" => 0o777,
        "w" => 0,
        _ => 0o644,
    });
    let mut node = match kind {
        "d" | "o" => Node::Directory(Directory::default().seal().0),
        "p" => Node::Fifo,
        "w" => Node::Whiteout,
        _ => file(store, ""),
    };
    for word in words {
        if let Some(text) = word.strip_prefix("=>") {
            let target = split(text.as_bytes());
            let (mut target_meta, target_node) = draft.get(&target).expect("target").expect("target");
            std::mem::swap(&mut meta, &mut target_meta);
            let Node::File { blob, size, link } = target_node else {
                panic!("{line}: no file")
            };
            let link = link.unwrap_or(LinkGroup {
                id: draft.imports,
                count: 0,
            });
            draft.imports += 1;
            node = Node::File {
                blob,
                size,
                link: Some(link),
            };
            draft
                .set(&target, Slot::new(meta.clone(), node.clone()))
                .expect("target");
        } else if let Some(text) = word.strip_prefix("->") {
            node = Node::Symlink(text.as_bytes().to_vec());
        } else if let Some(text) = word.strip_prefix('=') {
            node = file(store, text);
        } else if let Some(text) = word.strip_prefix('@') {
            meta.mtime.seconds = text.parse().expect("time");
        } else if let Some((name, value)) = word.split_once('~') {
            meta.xattrs.push((name.into(), value.into()));
        } else if let Some((major, minor)) = word.split_once(',') {
            let (major, minor) = (major.parse().expect("major"), minor.parse().expect("minor"));
            node = match kind {
                "b" => Node::BlockDevice(major, minor),
                _ => Node::CharDevice(major, minor),
            };
        } else if let Some((uid, gid)) = word.split_once(':') {
            (meta.uid, meta.gid) = (uid.parse().expect("uid"), gid.parse().expect("gid"));
        } else {
            meta.mode = u32::from_str_radix(word, 8).expect("mode");
        }
    }
    if kind == "o" {
        draft.level(&path).expect("opaque").opaque = true;
    } else if matches!(node, Node::Directory(_)) {
        // A directory that a line below it has already made is only adjusted.
        match draft.get(&path).expect("get") {
            Some(_) => *draft.meta(&path).expect("meta") = meta,
            None => draft.set(&path, Slot::empty_directory(meta)).expect("set"),
        }
    } else {
        draft.set(&path, Slot::new(meta, node)).expect("set");
    }
}

fn file(store: &MemoryStore, text: &str) -> Node {
    Node::File {
        blob: store.put_bytes(text.as_bytes()).expect("put"),
        size: text.len() as u64,
        link: None,
    }
}

/// The tree as text, the root left out.
pub(crate) fn dump(store: &MemoryStore, tree: &TreeDigest) -> String {
    let mut out = String::new();
    let mut links = HashMap::new();
    dump_level(store, tree, &mut Vec::new(), &mut links, &mut out);
    out
}

fn dump_level(
    store: &MemoryStore,
    tree: &TreeDigest,
    path: &mut Vec<Vec<u8>>,
    links: &mut HashMap<u64, String>,
    out: &mut String,
) {
    let directory = store.need_directory(tree).expect("directory");
    if directory.opaque {
        out.push_str(&format!("o {}\n", String::from_utf8_lossy(&join(path))));
    }
    for entry in &directory.entries {
        path.push(entry.name.clone());
        let name = String::from_utf8_lossy(&join(path)).into_owned();
        let (kind, usual, detail) = match &entry.node {
            Node::Directory(_) => ("d", 0o755, String::new()),
            Node::Symlink(target) => ("l", 0o777, format!(" ->{}", String::from_utf8_lossy(target))),
            Node::Fifo => ("p", 0o644, String::new()),
            Node::Whiteout => ("w", 0, String::new()),
            Node::CharDevice(major, minor) => ("c", 0o644, format!(" {major},{minor}")),
            Node::BlockDevice(major, minor) => ("b", 0o644, format!(" {major},{minor}")),
            Node::File { blob, size, link } => {
                let first = link.and_then(|link| links.insert(link.id, name.clone()));
                match first {
                    Some(first) => {
                        links.insert(link.expect("linked").id, first.clone());
                        ("h", 0, format!(" =>{first}"))
                    }
                    None => {
                        let blob = store.blob(blob).expect("blob").expect("blob");
                        let mut bytes = vec![0; usize::try_from(*size).expect("size")];
                        blob.read_at(&mut bytes, 0).expect("read");
                        ("f", 0o644, format!(" ={}", String::from_utf8_lossy(&bytes)))
                    }
                }
            }
        };
        out.push_str(&format!("{kind} {name}"));
        if kind != "h" {
            if entry.meta.mode != usual {
                out.push_str(&format!(" {:o}", entry.meta.mode));
            }
            if (entry.meta.uid, entry.meta.gid) != (0, 0) {
                out.push_str(&format!(" {}:{}", entry.meta.uid, entry.meta.gid));
            }
            if entry.meta.mtime != Timestamp::default() {
                out.push_str(&format!(" @{}", entry.meta.mtime.seconds));
            }
            for (name, value) in &entry.meta.xattrs {
                out.push_str(&format!(
                    " {}~{}",
                    String::from_utf8_lossy(name),
                    String::from_utf8_lossy(value)
                ));
            }
        }
        out.push_str(&detail);
        out.push('\n');
        if let Node::Directory(below) = &entry.node {
            dump_level(store, &below.digest, path, links, out);
        }
        path.pop();
    }
}

/// Compares a tree with text, line by line without indentation.
#[track_caller]
pub(crate) fn check(store: &MemoryStore, tree: &TreeDigest, want: &str) {
    let want: Vec<&str> = want.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(dump(store, tree).lines().collect::<Vec<_>>(), want);
    check_links(store, tree);
}

/// Checks that link groups are settled: settling again changes nothing, and totals agree.
#[track_caller]
pub(crate) fn check_links(store: &MemoryStore, tree: &TreeDigest) {
    let again = crate::edit::settled(store, tree).expect("settle");
    assert_eq!(again, *tree, "link groups are not settled:\n{}", dump(store, tree));
}

/// Text of random small trees: few names, so that trees collide a lot.
pub(crate) fn any_tree() -> impl Strategy<Value = String> {
    let path = prop::collection::vec("[abc]", 1..4).prop_map(|names| names.join("/"));
    let line = (path, 0..12_u8, 0..3_u8, 0..3_u8, prop::bool::weighted(0.2));
    prop::collection::vec(line, 0..14).prop_map(|lines| {
        // What each path is, so that no file stands on the way of another path.
        let mut kinds: Vec<(String, bool)> = Vec::new();
        let mut out = String::new();
        for (path, kind, mode, content, chown) in lines {
            let taken = |kinds: &[(String, bool)], path: &str| kinds.iter().any(|(known, _)| known == path);
            let blocked = kinds
                .iter()
                .any(|(known, directory)| !directory && (path == *known || path.starts_with(&format!("{known}/"))));
            if blocked || taken(&kinds, &path) {
                continue;
            }
            let parents: Vec<String> = path
                .match_indices('/')
                .map(|(slash, _)| path[..slash].to_owned())
                .collect();
            let files: Vec<&String> = kinds
                .iter()
                .filter(|(_, directory)| !directory)
                .map(|(name, _)| name)
                .collect();
            let owner = if chown { " 1:2" } else { "" };
            let text = ["x", "yy", ""][usize::from(content)];
            let target = ["x", "../b", "/a/c"][usize::from(content)];
            let bits = ["", " 700", " 4755"][usize::from(mode)];
            let linkable = files
                .get(usize::from(content))
                .filter(|name| out.lines().any(|line: &str| line.starts_with(&format!("f {name} "))));
            let line = match (kind, linkable) {
                (0..=3, _) => format!("d {path}{bits}{owner} @{}", content + 1),
                (4..=7, _) => format!("f {path}{bits}{owner} @{content} ={text}"),
                (8..=9, Some(target)) => format!("h {path} =>{target}"),
                (8, None) => format!("l {path}{owner} ->{target}"),
                (9, None) => format!("p {path}{bits}"),
                (10, _) => format!("l {path} @{mode} ->{target}"),
                _ => format!("c {path} 5,{content}"),
            };
            let directory = line.starts_with("d ");
            for parent in parents {
                if !taken(&kinds, &parent) {
                    kinds.push((parent, true));
                }
            }
            kinds.push((path, directory));
            out.push_str(&line);
            out.push('\n');
        }
        out
    })
}
