//! Targets and groups: their names, their attributes one by one, and references between them.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use super::decode::{self, GROUP_ATTRIBUTES, TARGET_ATTRIBUTES};
use super::encode;
use super::{Config, Program, Progress, settle};
use crate::bake::hcl::ast::{Block, Expression, Kind, StepKind};
use crate::bake::model::{Group, Target};
use crate::bake::rebase::folder_of;
use crate::bake::source::{Diagnostic, Diagnostics, Sources, Span};
use crate::bake::value::{Type, Value, convert};

/// One block, and what becomes of it: one target or group, or several for a matrix.
pub(super) struct BlockState {
    block: Block,
    kind: &'static str,
    instances: Vec<Instance>,
}

struct Instance {
    name: Rc<str>,
    /// The values of the matrix.
    bound: Vec<(Rc<str>, Value)>,
    output: RefCell<Output>,
    progress: RefCell<HashMap<&'static str, Progress>>,
}

#[derive(Clone, Debug)]
pub(super) enum Output {
    Target(Box<Target>),
    Group(Group),
}

/// The kind of block that a name stands for in an expression.
pub(super) fn kind_of(name: &str) -> Option<&'static str> {
    ["target", "group"].into_iter().find(|kind| *kind == name)
}

/// Whether a name can be given to a target or group.
pub(crate) fn is_valid_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

fn check_name(name: &str, span: Span) -> Result<(), Diagnostics> {
    if is_valid_name(name) {
        return Ok(());
    }
    let message =
        format!("invalid name {name:?}: only letters, digits, underscores and hyphens are allowed (a-zA-Z0-9_-)");
    Err(vec![Diagnostic::new(span, message)])
}

/// One combination of the values of a matrix, by name.
type Row = Vec<(Rc<str>, Value)>;

impl Program<'_> {
    /// Evaluates the matrices and the names of all blocks.
    pub(super) fn name_blocks(&mut self) -> Result<(), Diagnostics> {
        let mut diagnostics = Vec::new();
        for block in std::mem::take(&mut self.definitions.blocks) {
            let kind = if &*block.kind == "target" { "target" } else { "group" };
            let named = self.instances(&block, kind);
            match named {
                Ok(instances) => {
                    let index = self.blocks.len();
                    for instance in &instances {
                        self.by_name
                            .entry((kind, instance.name.clone()))
                            .or_default()
                            .push(index);
                    }
                    self.blocks.push(BlockState { block, kind, instances });
                }
                Err(more) => diagnostics.extend(more),
            }
        }
        settle(diagnostics)?;
        for kind in ["target", "group"] {
            let names = self
                .by_name
                .keys()
                .filter(|(of, _)| *of == kind)
                .map(|(_, name)| name.clone())
                .collect();
            self.evaluator.set_block_names(kind, names);
        }
        Ok(())
    }

    fn instances(&self, block: &Block, kind: &'static str) -> Result<Vec<Instance>, Diagnostics> {
        let [(label, label_span)] = &block.labels[..] else {
            return Ok(Vec::new());
        };
        let (matrix, name) = (block.body.attribute("matrix"), block.body.attribute("name"));
        if kind == "group" {
            for (attribute, what) in [(matrix, "matrix"), (name, "name")] {
                if let Some(attribute) = attribute {
                    let message = format!("a group cannot have a {what}");
                    return Err(vec![Diagnostic::new(attribute.name_span, message)]);
                }
            }
        }
        let rows = match matrix {
            Some(attribute) => self.matrix(&attribute.expression)?,
            None => vec![Vec::new()],
        };
        check_name(label, *label_span)?;
        if let (Some(attribute), None) = (name, matrix) {
            return Err(vec![Diagnostic::new(
                attribute.name_span,
                "a name requires a matrix; otherwise the label is the name",
            )]);
        }
        let mut instances: Vec<Instance> = Vec::with_capacity(rows.len());
        let mut seen = HashSet::new();
        for bound in rows {
            let instance_name = match name {
                Some(attribute) => {
                    let span = attribute.expression.span;
                    let value = self.evaluate(&attribute.expression, &bound)?;
                    let text = match convert(&value, &Type::String) {
                        Ok(Value::String(text)) => text,
                        Ok(_) => return Err(vec![Diagnostic::new(span, "the name must not be null")]),
                        Err(error) => return Err(vec![Diagnostic::new(span, format!("invalid name: {error}"))]),
                    };
                    check_name(&text, span)?;
                    text
                }
                None => label.clone(),
            };
            if !seen.insert(instance_name.clone()) {
                let message = format!(
                    "duplicate name {instance_name:?}: every combination of the matrix needs a name of its own"
                );
                return Err(vec![Diagnostic::new(*label_span, message)]);
            }
            let output = match kind {
                "target" => Output::Target(Box::new(Target {
                    name: instance_name.to_string(),
                    ..Target::default()
                })),
                _ => Output::Group(Group {
                    name: instance_name.to_string(),
                    ..Group::default()
                }),
            };
            let (output, progress) = (RefCell::new(output), RefCell::default());
            instances.push(Instance {
                name: instance_name,
                bound,
                output,
                progress,
            });
        }
        Ok(instances)
    }

    /// All combinations of the values of a matrix; the first name varies fastest.
    fn matrix(&self, expression: &Expression) -> Result<Vec<Row>, Diagnostics> {
        let complain = |message: String| Err(vec![Diagnostic::new(expression.span, message)]);
        let value = self.evaluate(expression, &[])?;
        let Some(axes) = value.as_members() else {
            return complain(format!("the matrix must be a map of lists, not a {}", value.type_of()));
        };
        let mut rows: Vec<Row> = vec![Vec::new()];
        for (name, axis) in axes {
            let Some(entries) = axis.entries() else {
                return complain(format!(
                    "the values of {name:?} in the matrix must be a list, not a {}",
                    axis.type_of()
                ));
            };
            if let Err(error) = self
                .evaluator
                .environment
                .charge_elements(rows.len().saturating_mul(entries.len()))
            {
                return complain(error.to_string());
            }
            let mut longer = Vec::with_capacity(rows.len() * entries.len());
            for (_, value) in entries {
                for row in &rows {
                    let mut row = row.clone();
                    row.push((name.clone(), value.clone()));
                    longer.push(row);
                }
            }
            rows = longer;
        }
        Ok(rows)
    }

    /// Evaluates every attribute of every block.
    pub(super) fn evaluate_blocks(&self) -> Result<(), Diagnostics> {
        let mut diagnostics = Vec::new();
        for state in &self.blocks {
            if state.kind == "group" && state.block.body.attribute("targets").is_none() {
                let message = "a group requires targets, a list of names";
                diagnostics.push(Diagnostic::new(state.block.span, message));
            }
            for instance in &state.instances {
                for attribute in attributes(state.kind) {
                    if let Err(more) = self.resolve_attribute(state, instance, attribute, state.block.span) {
                        diagnostics.extend(more);
                    }
                }
            }
            if diagnostics.len() > 50 {
                break;
            }
        }
        settle(diagnostics)
    }

    fn resolve_attribute(
        &self,
        state: &BlockState,
        instance: &Instance,
        name: &'static str,
        from: Span,
    ) -> Result<(), Diagnostics> {
        let Some(attribute) = state.block.body.attribute(name) else {
            return Ok(());
        };
        let earlier = instance.progress.borrow().get(name).cloned();
        match earlier {
            Some(Progress::Done) => return Ok(()),
            Some(Progress::Failed(diagnostics)) => return Err(diagnostics),
            Some(Progress::Started) => {
                let message = format!(
                    "{}.{}.{name} refers to itself; cycles are not allowed",
                    state.kind, instance.name
                );
                return Err(vec![Diagnostic::fatal(Some(from), message)]);
            }
            None => {}
        }
        let _level = self.evaluator.enter(Some(from))?;
        instance.progress.borrow_mut().insert(name, Progress::Started);
        let outcome = self.evaluate(&attribute.expression, &instance.bound).and_then(|value| {
            let mut output = instance.output.borrow_mut();
            decode::set(&mut output, name, &value).map_err(|reason| {
                let message = format!("{} {:?}, attribute {name}: {reason}", state.kind, instance.name);
                vec![Diagnostic::new(attribute.expression.span, message)]
            })
        });
        let progress = match &outcome {
            Ok(()) => Progress::Done,
            Err(diagnostics) => Progress::Failed(diagnostics.clone()),
        };
        instance.progress.borrow_mut().insert(name, progress);
        outcome
    }

    /// Makes an attribute of a block readable, or all of them when none is named.
    pub(super) fn load_block(
        &self,
        kind: &'static str,
        name: &Rc<str>,
        attribute: Option<&str>,
        from: Span,
    ) -> Result<(), Diagnostics> {
        // While blocks are being named there is none to refer to yet.
        let Some(indexes) = self.by_name.get(&(kind, name.clone())) else {
            return Ok(());
        };
        for &index in indexes {
            let Some(state) = self.blocks.get(index) else { continue };
            for instance in state.instances.iter().filter(|instance| instance.name == *name) {
                for known in attributes(kind) {
                    if attribute.is_none_or(|wanted| wanted == *known) {
                        self.resolve_attribute(state, instance, known, from)?;
                    }
                }
                // Of several blocks the last one is seen, without what it inherits.
                let value = encode::to_value(&instance.output.borrow());
                self.evaluator.set_block(kind, name.clone(), value);
            }
        }
        Ok(())
    }

    /// Lays the evaluated blocks over the config: targets of one name are merged, groups replaced.
    pub(super) fn finish(self, config: &mut Config, sources: &Sources) {
        let mut target_at: HashMap<String, usize> = config
            .targets
            .iter()
            .enumerate()
            .map(|(at, target)| (target.name.clone(), at))
            .collect();
        let mut group_at: HashMap<String, usize> = HashMap::new();
        for (at, group) in config.groups.iter().enumerate() {
            group_at.entry(group.name.clone()).or_insert(at);
        }
        let mut renamed: Vec<(Rc<str>, Vec<String>)> = Vec::new();
        let mut renamed_at: BTreeMap<Rc<str>, usize> = BTreeMap::new();
        for state in self.blocks {
            let label = state
                .block
                .labels
                .first()
                .map(|(label, _)| label.clone())
                .unwrap_or_else(|| Rc::from(""));
            for instance in state.instances {
                let found = attributes(state.kind).iter().filter_map(|name| {
                    let attribute = state.block.body.attribute(name)?;
                    Some((*name, attribute.expression.clone()))
                });
                config.places.add(state.kind, &instance.name, state.block.span, found);
                if state.kind == "target" {
                    let at = *renamed_at.entry(label.clone()).or_insert_with(|| {
                        renamed.push((label.clone(), Vec::new()));
                        renamed.len() - 1
                    });
                    renamed[at].1.push(instance.name.to_string());
                }
                match instance.output.into_inner() {
                    Output::Target(mut target) => {
                        set_bases(&mut target, &state.block, sources);
                        match target_at.get(&target.name) {
                            Some(&at) => config.targets[at].merge(&target),
                            None => {
                                target_at.insert(target.name.clone(), config.targets.len());
                                config.targets.push(*target);
                            }
                        }
                    }
                    Output::Group(mut group) => {
                        let mut seen = HashSet::new();
                        group.targets.retain(|name| seen.insert(name.clone()));
                        match group_at.get(&group.name) {
                            Some(&at) => config.groups[at] = group,
                            None => {
                                group_at.insert(group.name.clone(), config.groups.len());
                                config.groups.push(group);
                            }
                        }
                    }
                }
            }
        }
        // A label whose targets have other names stands for them.
        for (label, names) in renamed {
            let mut seen = HashSet::new();
            let targets: Vec<String> = names.into_iter().filter(|name| seen.insert(name.clone())).collect();
            if targets.len() == 1 && targets[0] == *label {
                continue;
            }
            config.groups.push(Group {
                name: label.to_string(),
                description: String::new(),
                targets,
            });
        }
    }
}

fn attributes(kind: &str) -> &'static [&'static str] {
    if kind == "target" {
        TARGET_ATTRIBUTES
    } else {
        GROUP_ATTRIBUTES
    }
}

/// Remembers which folder the paths of a target start from, should they be relative to their file.
fn set_bases(target: &mut Target, block: &Block, sources: &Sources) {
    let base = folder_of(sources.name(block.span.file));
    target.bases.file = Some(base.clone());
    if let Some(attribute) = block.body.attribute("context") {
        target.bases.context = Some(base.clone());
        target.bases.context_of = context_reference(&attribute.expression);
    }
    if block.body.attribute("contexts").is_some() {
        for name in target.contexts.keys() {
            target.bases.contexts.insert(name.clone(), base.clone());
        }
    }
}

/// The `x` of an expression that is just `target.x.context`.
fn context_reference(expression: &Expression) -> Option<String> {
    let Kind::Variable(root, steps) = &expression.kind else {
        return None;
    };
    let [first, second] = &steps[..] else { return None };
    let name = match &first.kind {
        StepKind::Attribute(name) => name.to_string(),
        StepKind::Index(value) => String::from(value.as_str()?),
    };
    let is_context = matches!(&second.kind, StepKind::Attribute(attribute) if &**attribute == "context");
    (&**root == "target" && is_context).then_some(name)
}
