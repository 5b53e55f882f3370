//! Members of an archive into a tree.

use std::collections::HashMap;
use std::io::Read;

use super::archive::{Archive, Member, MemberKind};
use super::{OPAQUE, TarError, WHITEOUT, Whiteouts};
use crate::edit::{Draft, Edit, EditError, LastLink, Level, Names, Owner, Slot, join, lookup, renamed_link, split};
use crate::{ContentStore, Directory, LinkGroup, Metadata, NAME_MAX, Node, StoreError, Timestamp, TreeDigest};

/// Longest path that is taken, as the kernel's own limit.
const PATH_MAX: usize = 4096;

/// Which extended attributes are kept. Those of overlayfs never are: in a lower tree they would be obeyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attributes {
    /// All.
    All,
    /// `security.capability` alone, all that layers made here hold.
    Capability,
}

/// How an archive becomes a tree of its own.
#[derive(Clone, Copy, Debug)]
pub struct ReadOptions<'a> {
    /// [`Whiteouts::Oci`] gives a layer, [`Whiteouts::Plain`] a tree.
    pub whiteouts: Whiteouts,
    /// What the layer will be applied to, when that is known: it tells the metadata of parents that have no member of
    /// their own, and the files that hard links may mean.
    pub lower: Option<&'a TreeDigest>,
    /// What is kept of extended attributes.
    pub attributes: Attributes,
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// The tree or layer.
    pub tree: TreeDigest,
    /// Directories that have no member of their own and were not found in `lower` either: they were made 0755 and
    /// root's. A layer that has some depends on what it is applied to.
    pub implied: Vec<Vec<u8>>,
}

/// How an archive is unpacked onto a tree, as ADD does.
#[derive(Clone, Copy, Debug)]
pub struct UnpackOptions {
    /// Owner of all that is unpacked, else what the archive says; also of the destination when it has to be made.
    pub owner: Option<Owner>,
    /// Modification time of directories that have to be made.
    pub made: Timestamp,
    /// What is kept of extended attributes.
    pub attributes: Attributes,
}

/// Reads an archive into the store.
///
/// Names are cleaned and confined to the root, links on the way are followed inside it, missing parents are made, a
/// later member replaces an earlier one, a directory over a directory changes its metadata. A member for the root
/// itself says nothing.
///
/// # Errors
/// [`TarError`] names the member.
pub fn read(store: &dyn ContentStore, source: &mut dyn Read, options: &ReadOptions<'_>) -> Result<Unpacked, TarError> {
    let root = match options.whiteouts {
        Whiteouts::Oci => Directory::default(),
        Whiteouts::Plain => Directory::empty_root(),
    };
    let mut draft = Draft::from_level(store, Level::from_directory(&root));
    let mut unpacker = Unpacker {
        store,
        draft: &mut draft,
        base: Vec::new(),
        options: *options,
        owner: None,
        made: Timestamp::default(),
        groups: HashMap::new(),
        implied: Vec::new(),
    };
    unpacker.all(source)?;
    let implied = std::mem::take(&mut unpacker.implied);
    Ok(Unpacked {
        tree: draft.commit()?.digest,
        implied,
    })
}

/// Unpacks an archive into a directory of a tree that is being edited, making the directory when it is not there.
/// Nothing leaves that directory.
///
/// # Errors
/// [`TarError`] names the member; [`EditError::NotADirectory`] when `path` is something else.
pub fn unpack(
    store: &dyn ContentStore,
    edit: &mut Edit<'_>,
    path: &str,
    source: &mut dyn Read,
    options: &UnpackOptions,
) -> Result<(), TarError> {
    let draft = edit.draft_mut();
    let base = draft.resolve(path.as_bytes(), LastLink::Follow)?.path;
    let mut meta = Metadata::new(0o755);
    meta.mtime = options.made;
    if let Some(owner) = options.owner {
        (meta.uid, meta.gid) = (owner.uid, owner.gid);
    }
    draft.make_directories(&base, &meta)?;
    let mut unpacker = Unpacker {
        store,
        draft,
        base,
        options: ReadOptions {
            whiteouts: Whiteouts::Plain,
            lower: None,
            attributes: options.attributes,
        },
        owner: options.owner,
        made: options.made,
        groups: HashMap::new(),
        implied: Vec::new(),
    };
    unpacker.all(source)
}

/// Whether bytes begin as a tar archive does, as far as its first header tells. An empty archive is none.
pub fn is_archive(source: &mut dyn Read) -> bool {
    matches!(Archive::new(source).next_member(), Ok(Some(_)))
}

struct Unpacker<'u, 'a> {
    store: &'u dyn ContentStore,
    draft: &'u mut Draft<'a>,
    /// The directory that nothing leaves.
    base: Names,
    options: ReadOptions<'u>,
    owner: Option<Owner>,
    made: Timestamp,
    /// The names of each link group that was made here.
    groups: HashMap<u64, Vec<Names>>,
    implied: Vec<Vec<u8>>,
}

impl Unpacker<'_, '_> {
    fn all(&mut self, source: &mut dyn Read) -> Result<(), TarError> {
        let mut archive = Archive::new(source);
        while let Some(mut member) = archive.next_member()? {
            // Before the name is looked at: an archive must be sound even where it says nothing.
            let node = match &member.kind {
                MemberKind::File => {
                    let (blob, size) =
                        self.store
                            .put_reader(&mut archive.contents(&member))
                            .map_err(|err| match err {
                                // The store only knows that it was reading a stream.
                                StoreError::Io {
                                    action: "read", source, ..
                                } => TarError::Read {
                                    after: member.name.clone(),
                                    source,
                                },
                                other => TarError::Store(other),
                            })?;
                    Some(Node::File { blob, size, link: None })
                }
                MemberKind::Link(_) => None,
                MemberKind::Symlink(target) => Some(Node::Symlink(target.clone())),
                MemberKind::CharDevice(major, minor) => Some(Node::CharDevice(*major, *minor)),
                MemberKind::BlockDevice(major, minor) => Some(Node::BlockDevice(*major, *minor)),
                MemberKind::Directory => Some(Node::Directory(Directory::default().seal().0)),
                MemberKind::Fifo => Some(Node::Fifo),
            };
            self.adjust(&mut member.meta);
            self.member(&member, node)?;
        }
        Ok(())
    }

    fn adjust(&self, meta: &mut Metadata) {
        if let Some(owner) = self.owner {
            (meta.uid, meta.gid) = (owner.uid, owner.gid);
        }
        meta.xattrs.retain(|(name, _)| match self.options.attributes {
            Attributes::All => !name.starts_with(b"trusted.overlay.") && !name.starts_with(b"user.overlay."),
            Attributes::Capability => name == b"security.capability",
        });
    }

    fn member(&mut self, member: &Member, node: Option<Node>) -> Result<(), TarError> {
        let bad = |reason| TarError::BadMember {
            path: member.name.clone(),
            reason,
        };
        if member.name.len() >= PATH_MAX {
            return Err(bad("the path is too long"));
        }
        let mut path = clean(&member.name);
        if path.iter().any(|name| name.len() > NAME_MAX) {
            return Err(bad("a name is too long"));
        }
        let Some(name) = path.pop() else {
            // The root: its metadata is the tree's own business.
            return Ok(());
        };
        let parent = self.place(&path, LastLink::Follow)?;
        self.make_parents(&parent)?;
        let mut place = parent.clone();
        place.push(name.clone());
        if self.options.whiteouts == Whiteouts::Oci
            && let Some(hidden) = name.strip_prefix(WHITEOUT)
        {
            return self.whiteout(&parent, &name, hidden, bad);
        }
        match node {
            Some(Node::Directory(_)) => self.directory(&place, &member.meta),
            Some(node) => self.set(&place, Slot::new(member.meta.clone(), node)),
            None => self.link(&place, member),
        }
    }

    /// Where a path leads below the base.
    fn place(&self, path: &[Vec<u8>], last: LastLink) -> Result<Names, TarError> {
        Ok(self.draft.resolve_below(&self.base, &join(path), last)?.path)
    }

    fn set(&mut self, place: &[Vec<u8>], slot: Slot) -> Result<(), TarError> {
        Ok(self.draft.set(place, slot)?)
    }

    /// Makes the parents that are not there, as they are in the lower tree. What is no directory is replaced: a
    /// member below it says that it is one.
    fn make_parents(&mut self, parent: &[Vec<u8>]) -> Result<(), TarError> {
        if let Some((_, Node::Directory(_))) = self.draft.get(parent)? {
            return Ok(());
        }
        for depth in self.base.len() + 1..=parent.len() {
            let (place, name) = (&parent[..depth], &parent[depth - 1]);
            if name.len() > NAME_MAX {
                return Err(TarError::BadMember {
                    path: join(place),
                    reason: "a name is too long",
                });
            }
            match self.draft.get(place)? {
                Some((_, Node::Directory(_))) => continue,
                Some((_, Node::Whiteout)) => {
                    self.set(place, Slot::empty_directory(self.implied_metadata()))?;
                    self.draft.level(place)?.opaque = true;
                }
                Some(_) => return Err(EditError::NotADirectory { path: join(place) }.into()),
                None => {
                    let known = match self.options.lower {
                        Some(lower) => lookup(self.store, lower, join(place))?,
                        None => None,
                    };
                    let meta = match known.filter(|entry| entry.directory().is_some()) {
                        Some(entry) => entry.meta,
                        None => {
                            self.implied.push(join(place));
                            self.implied_metadata()
                        }
                    };
                    self.set(place, Slot::empty_directory(meta))?;
                }
            }
        }
        Ok(())
    }

    fn implied_metadata(&self) -> Metadata {
        let mut meta = Metadata::new(0o755);
        meta.mtime = self.made;
        meta
    }

    fn whiteout(
        &mut self,
        parent: &[Vec<u8>],
        name: &[u8],
        hidden: &[u8],
        bad: impl Fn(&'static str) -> TarError,
    ) -> Result<(), TarError> {
        if name == OPAQUE {
            self.draft.level(parent)?.opaque = true;
            return Ok(());
        }
        if hidden.starts_with(WHITEOUT) {
            // Bookkeeping of AUFS, which older tools left in.
            return Ok(());
        }
        if hidden.is_empty() || hidden == b"." || hidden == b".." {
            return Err(bad("a whiteout of no name"));
        }
        let place = [parent, &[hidden.to_vec()]].concat();
        match self.draft.get(&place)? {
            None => self.set(&place, Slot::new(Metadata::new(0), Node::Whiteout)),
            // Whiteouts are about lower layers, wherever they stand: the directory of this layer starts from nothing.
            Some((_, Node::Directory(_))) => {
                self.draft.level(&place)?.opaque = true;
                Ok(())
            }
            Some(_) => Ok(()),
        }
    }

    fn directory(&mut self, place: &[Vec<u8>], meta: &Metadata) -> Result<(), TarError> {
        match self.draft.get(place)? {
            Some((_, Node::Directory(_))) => {
                self.implied.retain(|implied| *implied != join(place));
                let old = self.draft.meta(place)?;
                let mut meta = meta.clone();
                let kept = std::mem::take(&mut old.xattrs);
                for attribute in kept {
                    if let Err(index) = meta.xattrs.binary_search_by(|(name, _)| name.cmp(&attribute.0)) {
                        meta.xattrs.insert(index, attribute);
                    }
                }
                *old = meta;
            }
            old => {
                self.set(place, Slot::empty_directory(meta.clone()))?;
                if matches!(old, Some((_, Node::Whiteout))) {
                    self.draft.level(place)?.opaque = true;
                }
            }
        }
        Ok(())
    }

    /// A hard link: another name of a file, whose metadata becomes what this member says, as it is one inode.
    fn link(&mut self, place: &[Vec<u8>], member: &Member) -> Result<(), TarError> {
        let MemberKind::Link(text) = &member.kind else {
            return Ok(());
        };
        let mut target = clean(text);
        let bad = || TarError::BadLink {
            path: member.name.clone(),
            target: text.clone(),
        };
        let name = target.pop().ok_or_else(bad)?;
        let mut target = self.place(&target, LastLink::Follow)?;
        target.push(name);
        if target == place {
            return Ok(());
        }
        let (mut meta, node) = match self.draft.get(&target)? {
            Some((_, Node::Directory(_) | Node::Whiteout)) => return Err(bad()),
            Some(found) => found,
            // A file of a lower layer becomes one of this layer, which can link only what it holds.
            None => match self.options.lower {
                Some(lower) => match lookup(self.store, lower, join(&target))? {
                    Some(entry) if entry.directory().is_none() => {
                        let mut node = entry.node;
                        if let Node::File { link, .. } = &mut node {
                            *link = None;
                        }
                        return self.set(place, Slot::new(entry.meta, node));
                    }
                    _ => return Err(bad()),
                },
                None => return Err(bad()),
            },
        };
        let Node::File { blob, size, link } = node else {
            // Other kinds have no group: the second name is a thing of its own.
            return self.set(place, Slot::new(meta, node));
        };
        let said = &member.meta;
        (meta.mode, meta.uid, meta.gid, meta.mtime) = (said.mode, said.uid, said.gid, said.mtime);
        if !said.xattrs.is_empty() {
            meta.xattrs.clone_from(&said.xattrs);
        }
        self.draft.imports += 1;
        let link = link.unwrap_or_else(|| renamed_link(&LinkGroup { id: 0, count: 0 }, self.draft.imports));
        let members = self.groups.entry(link.id).or_default();
        if !members.contains(&target) {
            members.push(target);
        }
        members.retain(|known| known != place);
        members.push(place.to_vec());
        for name in members.clone() {
            // A member that was replaced since is no member any more.
            let is_member = name == place
                || matches!(self.draft.get(&name)?, Some((_, Node::File { blob: known, link: group, .. }))
                    if known == blob && group.is_none_or(|group| group.id == link.id));
            if is_member {
                let node = Node::File {
                    blob,
                    size,
                    link: Some(link),
                };
                self.set(&name, Slot::new(meta.clone(), node))?;
            }
        }
        Ok(())
    }
}

/// The names of a path, cleaned by text alone and confined: `..` takes a name back and stops at the root.
fn clean(path: &[u8]) -> Names {
    let mut names: Names = Vec::new();
    for name in split(path) {
        match name.as_slice() {
            b"." => {}
            b".." => {
                names.pop();
            }
            _ => names.push(name),
        }
    }
    names
}
