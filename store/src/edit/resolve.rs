//! Paths with symbolic links, resolved inside the tree.

use super::draft::{Cursor, Draft, Names, join};
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
        self.resolve_below(&[], path, last)
    }

    /// As [`Draft::resolve`], with the directory `base` for the root.
    pub(crate) fn resolve_below(&self, base: &[Vec<u8>], path: &[u8], last: LastLink) -> Result<Place, EditError> {
        let mut done: Names = base.to_vec();
        // What each beginning of `done` names; `None` when it is not there.
        let mut here: Vec<Option<Cursor<'_>>> = vec![Some(self.top())];
        for name in base {
            let next = self.step(here.last(), name)?;
            here.push(next);
        }
        let mut todo: Vec<Vec<u8>> = Vec::new();
        push_names(&mut todo, path);
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == b".." {
                if done.len() > base.len() {
                    done.pop();
                    here.pop();
                }
                continue;
            }
            if let Some(Some(Cursor::Other(_))) = here.last() {
                return Err(EditError::NotADirectory { path: join(&done) });
            }
            let next = self.step(here.last(), &name)?;
            match next {
                Some(Cursor::Other(Node::Symlink(target))) if last == LastLink::Follow || !todo.is_empty() => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(EditError::TooManyLinks { path: path.to_vec() });
                    }
                    if target.first() == Some(&b'/') {
                        done.truncate(base.len());
                        here.truncate(base.len() + 1);
                    }
                    push_names(&mut todo, &target);
                }
                next => {
                    done.push(name);
                    here.push(next);
                }
            }
        }
        let found = match here.last() {
            Some(Some(_)) => self.get(&done)?,
            _ => None,
        };
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
