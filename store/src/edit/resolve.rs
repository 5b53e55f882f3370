//! Paths with symbolic links, resolved inside the tree.

use super::draft::{Draft, Names, join};
use super::{EditError, LastLink};
use crate::{Metadata, Node};

/// As BuildKit: more links than this on one path are taken for a circle.
const MAX_LINKS: u32 = 255;

/// Where a path leads.
pub(crate) struct Place {
    /// Without links. Names that are not there are taken as written.
    pub(crate) path: Names,
    /// What is there.
    pub(crate) found: Option<(Metadata, Node)>,
}

impl Draft<'_> {
    /// Resolves a path from the root: absolute links start there again, `..` cannot leave it.
    ///
    /// # Errors
    /// [`EditError::TooManyLinks`]; [`EditError::NotADirectory`] when a file stands on the way.
    pub(crate) fn resolve(&self, path: &[u8], last: LastLink) -> Result<Place, EditError> {
        let mut done: Names = Vec::new();
        let mut todo: Vec<Vec<u8>> = Vec::new();
        push_names(&mut todo, path);
        let mut links = 0;
        // What `done` names, once looked at; nothing below a missing name needs a look-up.
        let mut missing_from: Option<usize> = None;
        while let Some(name) = todo.pop() {
            if name == b".." {
                done.pop();
                missing_from = missing_from.filter(|&from| from < done.len());
                continue;
            }
            done.push(name);
            if missing_from.is_some() {
                continue;
            }
            match self.get(&done)? {
                None => missing_from = Some(done.len() - 1),
                Some((_, Node::Symlink(target))) if last == LastLink::Follow || !todo.is_empty() => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(EditError::TooManyLinks { path: path.to_vec() });
                    }
                    if target.first() == Some(&b'/') {
                        done.clear();
                    } else {
                        done.pop();
                    }
                    push_names(&mut todo, &target);
                }
                Some(_) => {}
            }
        }
        let found = if missing_from.is_some() { None } else { self.get(&done)? };
        Ok(Place { path: done, found })
    }

    /// Resolves a path that must lead somewhere.
    pub(crate) fn resolve_existing(&self, path: &[u8], last: LastLink) -> Result<(Names, Metadata, Node), EditError> {
        let place = self.resolve(path, last)?;
        match place.found {
            Some((meta, node)) => Ok((place.path, meta, node)),
            None => Err(EditError::NotFound {
                path: join(&place.path),
            }),
        }
    }
}

/// Adds the names of a path to a stack, the first on top; empty names and `.` do not count.
fn push_names(todo: &mut Vec<Vec<u8>>, path: &[u8]) {
    todo.extend(
        path.split(|&byte| byte == b'/')
            .filter(|name| !name.is_empty() && *name != b".")
            .rev()
            .map(<[u8]>::to_vec),
    );
}
