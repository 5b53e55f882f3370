//! Evaluating a whole definition: variables, functions and constants first, then every target and group.
//!
//! ```text
//! bodies of all files ─► definitions ─► variables ─► validations ─► functions ─► names ─► blocks ─► constants
//! ```
//! Definitions are resolved on demand and once: an expression first has everything resolved that it refers to, so the
//! order in a file does not matter and cycles are found. A cycle is an error that `try` cannot hide.

mod blocks;
mod decode;
mod definitions;
mod encode;
mod overrides;
mod variables;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use super::functions::Environment;
use super::hcl::ast::{Body, Expression, Kind, StepKind};
use super::hcl::eval::{Evaluator, UserFunction};
use super::hcl::scope::Scope;
use super::hcl::walk::collect;
use super::model::{Group, Target};
use super::places::Places;
use super::source::{Diagnostic, Diagnostics, Sources, Span};
use super::value::Value;
use blocks::BlockState;
pub(crate) use blocks::is_valid_name;
pub(crate) use definitions::SHAPES;
use definitions::{Definitions, FunctionDefinition};

/// The result: all targets and groups, whether or not somebody asks for them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Config {
    pub(crate) groups: Vec<Group>,
    pub(crate) targets: Vec<Target>,
    /// Where they are defined.
    pub(crate) places: Places,
}

/// A variable of the definition, as a listing shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variable {
    /// The name.
    pub name: String,
    /// What it is for; empty when nothing is said.
    pub description: String,
    /// The declared type in words; empty when none is declared.
    pub kind: String,
    /// The value as text; `None` for null.
    pub value: Option<String>,
}

/// What a program takes from outside.
pub(crate) struct Inputs<'h> {
    pub(crate) environment: Environment<'h>,
    /// Names whose values cannot be changed.
    pub(crate) builtins: Vec<(&'static str, String)>,
    /// The value somebody gives to a variable, from the command line or the environment.
    pub(crate) lookup: &'h dyn Fn(&str) -> Option<String>,
}

/// How far a definition is resolved.
#[derive(Clone, Debug)]
enum Progress {
    Started,
    Done,
    Failed(Diagnostics),
}

/// What stands in the way of resolving a name.
enum Unresolved {
    /// There is no such definition.
    Undefined,
    Failed(Diagnostics),
}

/// What to do about names that are not defined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    /// Leave them to the evaluation, which may never get there.
    Ignore,
    Refuse,
}

/// A definition that is being evaluated.
pub(crate) struct Program<'h> {
    definitions: Definitions,
    evaluator: Evaluator<'h>,
    lookup: &'h dyn Fn(&str) -> Option<String>,
    builtins: Vec<(&'static str, String)>,
    values: RefCell<HashMap<Rc<str>, Progress>>,
    functions: RefCell<HashMap<Rc<str>, Progress>>,
    blocks: Vec<BlockState>,
    /// The blocks of a kind and a name, which can be several.
    by_name: BTreeMap<(&'static str, Rc<str>), Vec<usize>>,
}

impl<'h> Program<'h> {
    /// Evaluates the bodies on top of what is in the config already, which comes from Compose files.
    ///
    /// # Errors
    /// All complaints of the first step that has some.
    pub(crate) fn run(
        bodies: Vec<Body>,
        inputs: Inputs<'h>,
        config: &mut Config,
        sources: &Sources,
    ) -> Result<Vec<Variable>, Diagnostics> {
        let reserved: HashSet<&str> = inputs
            .builtins
            .iter()
            .map(|(name, _)| *name)
            .chain(["target", "group"])
            .collect();
        let definitions = Definitions::new(bodies, &reserved)?;
        let evaluator = Evaluator::new(inputs.environment);
        let mut program = Program {
            definitions,
            evaluator,
            lookup: inputs.lookup,
            builtins: inputs.builtins,
            values: RefCell::default(),
            functions: RefCell::default(),
            blocks: Vec::new(),
            by_name: BTreeMap::new(),
        };
        for (name, value) in &program.builtins {
            program.evaluator.set_global(Rc::from(*name), Value::string(value));
        }
        let variables = program.variables()?;
        program.check_functions()?;
        program.name_blocks()?;
        program.evaluate_blocks()?;
        let constants: Vec<Rc<str>> = program.definitions.constants.keys().cloned().collect();
        let mut diagnostics = Vec::new();
        for name in constants {
            if let Err(Unresolved::Failed(more)) = program.resolve_value(&name) {
                diagnostics.extend(more);
            }
        }
        settle(diagnostics)?;
        program.finish(config, sources);
        Ok(variables)
    }

    /// Resolves every definition, also those that nothing calls.
    fn check_functions(&self) -> Result<(), Diagnostics> {
        let mut diagnostics = Vec::new();
        for name in self.definitions.functions.keys() {
            if let Err(Unresolved::Failed(more)) = self.resolve_function(name) {
                diagnostics.extend(more);
            }
        }
        settle(diagnostics)
    }

    /// Resolves what an expression refers to, except for names that are bound around it.
    fn load(&self, expression: &Expression, bound: &[Rc<str>], missing: Missing) -> Result<(), Diagnostics> {
        let uses = collect(expression);
        for (name, span) in uses.functions {
            match self.resolve_function(name) {
                Ok(()) => {}
                Err(Unresolved::Failed(diagnostics)) => return Err(diagnostics),
                Err(Unresolved::Undefined) if missing == Missing::Ignore => {}
                Err(Unresolved::Undefined) => {
                    return Err(vec![Diagnostic::new(
                        span,
                        format!("there is no function named {name:?}"),
                    )]);
                }
            }
        }
        for reference in uses.references {
            if bound.contains(reference.name) {
                continue;
            }
            if let Some(kind) = blocks::kind_of(reference.name) {
                let first = reference.steps.first().map(|step| &step.kind);
                let Some(StepKind::Attribute(name)) = first else {
                    let message =
                        format!("{kind} is no value by itself; name one and an attribute, as in {kind}.app.tags");
                    return Err(vec![Diagnostic::new(reference.span, message)]);
                };
                let attribute = reference.steps.get(1).and_then(|step| match &step.kind {
                    StepKind::Attribute(attribute) => Some(&**attribute),
                    StepKind::Index(_) => None,
                });
                self.load_block(kind, name, attribute, reference.span)?;
                continue;
            }
            match self.resolve_value(reference.name) {
                Ok(()) => {}
                Err(Unresolved::Failed(diagnostics)) => return Err(diagnostics),
                Err(Unresolved::Undefined) if missing == Missing::Ignore => {}
                Err(Unresolved::Undefined) => {
                    let names: Vec<&str> = self.definitions.value_names().collect();
                    let hint = super::hcl::traversal::hint(reference.name, names.into_iter());
                    let message = format!("there is no variable named {:?}{hint}", reference.name);
                    return Err(vec![Diagnostic::new(reference.span, message)]);
                }
            }
        }
        Ok(())
    }

    fn resolve_function(&self, name: &Rc<str>) -> Result<(), Unresolved> {
        if self.evaluator.has_function(name) {
            return Ok(());
        }
        let Some(definition) = self.definitions.functions.get(name) else {
            return Err(Unresolved::Undefined);
        };
        let earlier = self.functions.borrow_mut().insert(name.clone(), Progress::Started);
        let outcome = match earlier {
            Some(Progress::Started) => {
                let message =
                    format!("function {name:?} calls itself, directly or through others; cycles are not allowed");
                Err(vec![Diagnostic::fatal(Some(definition.span), message)])
            }
            Some(Progress::Failed(diagnostics)) => Err(diagnostics),
            Some(Progress::Done) => Ok(()),
            None => self.define_function(name, definition),
        };
        let progress = match &outcome {
            Ok(()) => Progress::Done,
            Err(diagnostics) => Progress::Failed(diagnostics.clone()),
        };
        self.functions.borrow_mut().insert(name.clone(), progress);
        outcome.map_err(Unresolved::Failed)
    }

    fn define_function(&self, name: &Rc<str>, definition: &FunctionDefinition) -> Result<(), Diagnostics> {
        let _level = self.evaluator.enter(Some(definition.span))?;
        let complain = |span: Span, message: String| Err(vec![Diagnostic::new(span, message)]);
        let Some(result) = &definition.result else {
            return complain(definition.span, format!("function {name:?} has no result"));
        };
        let Some(parameters) = &definition.parameters else {
            return complain(
                definition.span,
                format!("function {name:?} has no params; write params = [] for none"),
            );
        };
        let Kind::Tuple(elements) = &parameters.kind else {
            return complain(
                parameters.span,
                format!("the params of function {name:?} must be a list of names"),
            );
        };
        let keyword = |expression: &Expression| {
            expression
                .keyword()
                .ok_or_else(|| vec![Diagnostic::new(expression.span, "a parameter must be a bare name")])
        };
        let names: Result<Vec<Rc<str>>, Diagnostics> = elements.iter().map(keyword).collect();
        let names = names?;
        let variadic = definition
            .variadic
            .as_ref()
            .map(|expression| keyword(expression))
            .transpose()?;
        let bound: Vec<Rc<str>> = names.iter().chain(variadic.iter()).cloned().collect();
        self.load(result, &bound, Missing::Refuse)?;
        let function = UserFunction {
            parameters: names,
            variadic,
            result: result.clone(),
        };
        self.evaluator.define(name.clone(), function);
        Ok(())
    }

    /// Resolves what an expression refers to, then evaluates it.
    fn evaluate(&self, expression: &Expression, bound: &[(Rc<str>, Value)]) -> Result<Value, Diagnostics> {
        let names: Vec<Rc<str>> = bound.iter().map(|(name, _)| name.clone()).collect();
        self.load(expression, &names, Missing::Ignore)?;
        if bound.is_empty() {
            self.evaluator.evaluate(expression, &Scope::root())
        } else {
            self.evaluator.evaluate(expression, &Scope::with(bound.to_vec()))
        }
    }
}

/// An error when there are complaints, each once.
fn settle(diagnostics: Diagnostics) -> Result<(), Diagnostics> {
    let mut seen = HashSet::new();
    let mut distinct = Vec::new();
    for diagnostic in diagnostics {
        let key = (
            diagnostic.span.map(|span| (span.file, span.start, span.end)),
            diagnostic.message.clone(),
        );
        if seen.insert(key) {
            distinct.push(diagnostic);
        }
    }
    if distinct.is_empty() { Ok(()) } else { Err(distinct) }
}
