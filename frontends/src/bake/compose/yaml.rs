//! YAML documents as trees, with anchors and merge keys resolved.

mod scalar;

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle, Tag};

/// A value of a Compose file.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Yaml {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Yaml>),
    Map(Map),
}

pub(super) type Map = BTreeMap<String, Yaml>;

/// The keys that lead to a value.
pub(super) type Path = Vec<String>;

/// One document of a file.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) root: Yaml,
    /// What documents before this one say at these places is forgotten: `!reset` and `!override`.
    pub(super) forgotten: Vec<Path>,
}

/// What aliases repeat counts as well.
const MAX_NODES: usize = 100_000;
const MAX_DEPTH: usize = 10_000;

impl Yaml {
    /// What kind of value it is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Yaml::Null => "null",
            Yaml::Bool(_) => "a bool",
            Yaml::Integer(_) | Yaml::Float(_) => "a number",
            Yaml::Text(_) => "a string",
            Yaml::List(_) => "a list",
            Yaml::Map(_) => "a mapping",
        }
    }

    /// A scalar as text; `None` for null, lists and mappings.
    pub(super) fn to_text(&self) -> Option<String> {
        match self {
            Yaml::Null | Yaml::List(_) | Yaml::Map(_) => None,
            Yaml::Bool(value) => Some(value.to_string()),
            Yaml::Integer(value) => Some(value.to_string()),
            Yaml::Float(value) => Some(scalar::float_text(*value)),
            Yaml::Text(text) => Some(text.clone()),
        }
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Yaml::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// Reads all documents of a file.
///
/// # Errors
/// What is wrong, with the line.
pub(super) fn parse(text: &str) -> Result<Vec<Document>, String> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| format!("line {}: {}", error.marker().line(), error.info()))?;
        builder.line = span.start.line();
        builder
            .event(event)
            .map_err(|message| format!("line {}: {message}", builder.line))?;
    }
    Ok(builder.documents)
}

/// Whether something is special about how a value combines with what other documents say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Plain,
    Reset,
    Override,
}

#[derive(Clone, Debug)]
struct Node {
    value: Yaml,
    mark: Mark,
    /// Places below, seen from here.
    forgotten: Vec<Path>,
    /// How many nodes it is made of.
    size: usize,
}

enum Frame {
    List {
        anchor: usize,
        mark: Mark,
        items: Vec<Yaml>,
        size: usize,
    },
    Map {
        anchor: usize,
        mark: Mark,
        entries: BTreeMap<String, Node>,
        lines: HashMap<String, usize>,
        merged: Vec<Node>,
        key: Option<Key>,
        size: usize,
    },
}

enum Key {
    Name(String),
    Merge,
}

#[derive(Default)]
struct Builder {
    documents: Vec<Document>,
    frames: Vec<Frame>,
    anchors: HashMap<usize, Rc<Node>>,
    nodes: usize,
    line: usize,
}

impl Builder {
    fn event(&mut self, event: Event<'_>) -> Result<(), String> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {
                Ok(())
            }
            Event::Alias(id) => {
                let Some(node) = self.anchors.get(&id).cloned() else {
                    return Err(String::from("an alias refers to something that it is part of"));
                };
                self.count(node.size)?;
                self.add((*node).clone())
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.count(1)?;
                if self.is_key_next() {
                    return self.key(&text, style, tag.as_deref());
                }
                let value = scalar::resolve(&text, style, tag.as_deref())?;
                self.complete(
                    anchor,
                    Node {
                        value,
                        mark: mark(tag.as_deref()),
                        forgotten: Vec::new(),
                        size: 1,
                    },
                )
            }
            Event::SequenceStart(anchor, tag) => {
                let mark = mark(tag.as_deref());
                self.open(Frame::List {
                    anchor,
                    mark,
                    items: Vec::new(),
                    size: 1,
                })
            }
            Event::MappingStart(anchor, tag) => self.open(Frame::Map {
                anchor,
                mark: mark(tag.as_deref()),
                entries: BTreeMap::new(),
                lines: HashMap::new(),
                merged: Vec::new(),
                key: None,
                size: 1,
            }),
            Event::SequenceEnd | Event::MappingEnd => match self.frames.pop() {
                Some(Frame::List {
                    anchor,
                    mark,
                    items,
                    size,
                }) => self.complete(
                    anchor,
                    Node {
                        value: Yaml::List(items),
                        mark,
                        forgotten: Vec::new(),
                        size,
                    },
                ),
                Some(Frame::Map {
                    anchor,
                    mark,
                    entries,
                    merged,
                    size,
                    ..
                }) => {
                    let (value, forgotten) = finish_map(entries, merged)?;
                    self.complete(
                        anchor,
                        Node {
                            value,
                            mark,
                            forgotten,
                            size,
                        },
                    )
                }
                None => Ok(()),
            },
        }
    }

    fn count(&mut self, nodes: usize) -> Result<(), String> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > MAX_NODES {
            return Err(format!("the file has more than {MAX_NODES} nodes, aliases included"));
        }
        Ok(())
    }

    fn open(&mut self, frame: Frame) -> Result<(), String> {
        self.count(1)?;
        if self.is_key_next() {
            return Err(String::from("a key must be a string"));
        }
        if self.frames.len() >= MAX_DEPTH {
            return Err(format!("the nesting is deeper than {MAX_DEPTH}"));
        }
        self.frames.push(frame);
        Ok(())
    }

    fn is_key_next(&self) -> bool {
        matches!(self.frames.last(), Some(Frame::Map { key: None, .. }))
    }

    fn key(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<(), String> {
        let line = self.line;
        let Some(Frame::Map { key, lines, size, .. }) = self.frames.last_mut() else {
            return Ok(());
        };
        *size += 1;
        if style == ScalarStyle::Plain && text == "<<" {
            *key = Some(Key::Merge);
            return Ok(());
        }
        if !matches!(scalar::resolve(text, style, tag), Ok(Yaml::Text(_))) {
            return Err(format!("key {text} is no string; put it in quotes"));
        }
        if let Some(earlier) = lines.insert(String::from(text), line) {
            return Err(format!("key {text:?} is defined already, in line {earlier}"));
        }
        *key = Some(Key::Name(String::from(text)));
        Ok(())
    }

    /// A node is finished: remembers it under its anchor and adds it to what it is in.
    fn complete(&mut self, anchor: usize, node: Node) -> Result<(), String> {
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::new(node.clone()));
        }
        self.add(node)
    }

    fn add(&mut self, node: Node) -> Result<(), String> {
        match self.frames.last_mut() {
            None => self.documents.push(Document {
                root: node.value,
                forgotten: node.forgotten,
            }),
            Some(Frame::List { items, size, .. }) => {
                *size += node.size;
                if node.mark != Mark::Reset {
                    items.push(node.value);
                }
            }
            Some(Frame::Map {
                entries,
                merged,
                key,
                size,
                ..
            }) => {
                *size += node.size;
                match key.take() {
                    Some(Key::Merge) => merged.push(node),
                    Some(Key::Name(name)) => {
                        entries.insert(name, node);
                    }
                    None => return Err(String::from("a key must be a string")),
                }
            }
        }
        Ok(())
    }
}

fn mark(tag: Option<&Tag>) -> Mark {
    match tag {
        Some(tag) if tag.handle == "!" && tag.suffix == "reset" => Mark::Reset,
        Some(tag) if tag.handle == "!" && tag.suffix == "override" => Mark::Override,
        _ => Mark::Plain,
    }
}

/// Own entries win over merged ones, and of those the first.
fn finish_map(entries: BTreeMap<String, Node>, merged: Vec<Node>) -> Result<(Yaml, Vec<Path>), String> {
    let mut map = Map::new();
    let mut forgotten = Vec::new();
    for (name, node) in entries {
        forgotten.extend(node.forgotten.into_iter().map(|mut below| {
            below.insert(0, name.clone());
            below
        }));
        if node.mark != Mark::Plain {
            forgotten.push(vec![name.clone()]);
        }
        if node.mark != Mark::Reset {
            map.insert(name, node.value);
        }
    }
    for node in merged {
        forgotten.extend(node.forgotten);
        let sources = match node.value {
            Yaml::List(items) => items,
            value => vec![value],
        };
        for source in sources {
            let Yaml::Map(source) = source else {
                return Err(format!("only a mapping can be merged, not {}", source.kind()));
            };
            for (name, value) in source {
                map.entry(name).or_insert(value);
            }
        }
    }
    Ok((Yaml::Map(map), forgotten))
}
