//! Why something ran, from what the store remembers of it and of the run before it.

use cbs_store::patterns::{Glob, PatternList, clean_path};
use cbs_store::{CacheKey, Realisation, StoreError, TreeDigest};

use super::EARLIER_NOTE;
use super::content::{EXCLUDE_NOTE, INCLUDE_NOTE, INPUT_NOTE, SEEN_NOTE};
use super::parts::{Difference, KeyParts, PartValue, differences};
use crate::index::Index;

/// A run compared with the one before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The step's name.
    pub name: String,
    /// When it ran, seconds since 1970.
    pub created: i64,
    /// The key of the run it is compared with; `None` when nothing like it ran before.
    pub earlier: Option<CacheKey>,
    /// What differs between the keys.
    pub differences: Vec<Difference>,
    /// Inputs whose trees differ, to be compared file by file.
    pub trees: Vec<ChangedTree>,
}

/// The tree of an input, then and now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedTree {
    /// Which input of the op.
    pub input: usize,
    /// What it was, if it was there.
    pub before: Option<TreeDigest>,
    /// What it is.
    pub after: TreeDigest,
    /// What the op looks at in it.
    pub seen: SeenPaths,
}

/// What an op looks at in an input, as far as its paths tell: links are not followed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenPaths {
    /// Paths, with wildcards when the op was a copy; without any it is the whole tree.
    pub paths: Vec<String>,
    /// Only what one of these matches, relative to the path.
    pub include: Vec<String>,
    /// Not what one of these matches, relative to the path.
    pub exclude: Vec<String>,
}

impl SeenPaths {
    /// Whether a changed path, without its leading slash, is likely to be what the op saw.
    pub fn covers(&self, path: &[u8]) -> bool {
        self.paths.is_empty() || self.paths.iter().any(|seen| self.covers_below(seen, path))
    }

    fn covers_below(&self, seen: &str, path: &[u8]) -> bool {
        let seen = clean_path(&format!("/{seen}"));
        let elements: Vec<&str> = seen.split('/').filter(|element| !element.is_empty()).collect();
        let names: Vec<&[u8]> = path
            .split(|&byte| byte == b'/')
            .filter(|name| !name.is_empty())
            .collect();
        let matches = |(element, name): (&&str, &&[u8])| {
            element.as_bytes() == *name || Glob::new(element).is_ok_and(|glob| glob.matches(name))
        };
        if !elements.iter().zip(&names).all(matches) {
            return false;
        }
        // A directory on the way matters only to who looks at all of it.
        if names.len() < elements.len() {
            return false;
        }
        let rest = names[elements.len()..].join(&b'/');
        if rest.is_empty() {
            return true;
        }
        let list = |patterns: &[String]| PatternList::new(patterns.iter().map(String::as_str));
        let included = match list(&self.include) {
            Ok(list) if !list.is_empty() => list.matches(&rest),
            _ => true,
        };
        included && !list(&self.exclude).is_ok_and(|list| list.matches(&rest))
    }
}

/// Explains the run that is remembered under a key; `None` when none is. Blocking.
///
/// # Errors
/// [`StoreError`] when the store cannot be asked.
pub fn explain(index: &dyn Index, key: &CacheKey) -> Result<Option<Explanation>, StoreError> {
    explain_against(&|key| index.realisation(key), key, None)
}

/// [`explain`] for who has no more than a way to look runs up, compared with `other` when the run itself knows no
/// earlier one.
///
/// # Errors
/// What `look` gives.
pub fn explain_against(
    look: &dyn Fn(&CacheKey) -> Result<Option<Realisation>, StoreError>,
    key: &CacheKey,
    other: Option<&CacheKey>,
) -> Result<Option<Explanation>, StoreError> {
    let Some(run) = look(key)? else {
        return Ok(None);
    };
    let mut explanation = Explanation {
        name: run.name,
        created: run.created,
        earlier: None,
        differences: Vec::new(),
        trees: Vec::new(),
    };
    // Parts written by another version of the program cannot be compared; that the step ran is still known.
    let Ok(after) = KeyParts::decode(&run.key_parts) else {
        return Ok(Some(explanation));
    };
    let noted = after.note_digest(EARLIER_NOTE).map(CacheKey::from_bytes);
    let Some(earlier) = noted.or(other.copied()).filter(|earlier| earlier != key) else {
        return Ok(Some(explanation));
    };
    explanation.earlier = Some(earlier);
    if let Some(Ok(before)) = look(&earlier)?.map(|run| KeyParts::decode(&run.key_parts)) {
        explanation.differences = differences(&before, &after);
        let then = trees(&before);
        for (input, tree) in trees(&after) {
            let before = then.iter().find(|(other, _)| *other == input).map(|(_, tree)| *tree);
            if before != Some(tree) {
                explanation.trees.push(ChangedTree {
                    input,
                    before,
                    after: tree,
                    seen: seen(&after, input),
                });
            }
        }
    }
    Ok(Some(explanation))
}

fn seen(parts: &KeyParts, input: usize) -> SeenPaths {
    let texts = |prefix: &str| -> Vec<String> {
        let name = format!("{prefix}{input}");
        let notes = parts.notes().iter().filter(|note| note.name == name);
        notes.map(|note| note.value.to_string()).collect()
    };
    SeenPaths {
        paths: texts(SEEN_NOTE),
        include: texts(INCLUDE_NOTE),
        exclude: texts(EXCLUDE_NOTE),
    }
}

fn trees(parts: &KeyParts) -> Vec<(usize, TreeDigest)> {
    let tree = |note: &super::Part| match note.value {
        PartValue::Digest(digest) => {
            let input = note.name.strip_prefix(INPUT_NOTE)?.parse().ok()?;
            Some((input, TreeDigest::from_bytes(digest)))
        }
        _ => None,
    };
    parts.notes().iter().filter_map(tree).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_covers_what_it_names() {
        let seen = |path: &str, exclude: &[&str]| SeenPaths {
            paths: vec![path.to_owned()],
            include: Vec::new(),
            exclude: exclude.iter().map(|pattern| (*pattern).to_owned()).collect(),
        };
        let cases = [
            (seen("/", &[]), "a/b", true),
            (seen("/src", &[]), "src/a", true),
            (seen("src/", &[]), "src", true),
            (seen("/src/a", &[]), "src", false),
            (seen("/src", &[]), "lib/a", false),
            (seen("/*.txt", &[]), "a.txt", true),
            (seen("/*.txt", &[]), "a.md", false),
            (seen("/src", &["*.o"]), "src/a.o", false),
            (seen("/src", &["*.o"]), "src/a.c", true),
        ];
        for (seen, path, want) in cases {
            assert_eq!(seen.covers(path.as_bytes()), want, "{seen:?} {path}");
        }
        assert!(SeenPaths::default().covers(b"any"));
    }
}
