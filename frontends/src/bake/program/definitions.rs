//! Sorting the content of all files by what it defines. A later definition of a name replaces an earlier one.

use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;

use crate::bake::hcl::ast::{Attribute, Block, Body, Expression, Kind};
use crate::bake::hcl::json::BlockShape;
use crate::bake::hcl::walk::collect;
use crate::bake::source::{Diagnostic, Diagnostics, Span};
use crate::bake::value::Value;

/// What is a block in the JSON syntax.
pub(crate) const SHAPES: &[BlockShape] = &[
    BlockShape {
        kind: "variable",
        labels: 1,
        inner: &[BlockShape {
            kind: "validation",
            labels: 0,
            inner: &[],
        }],
    },
    BlockShape {
        kind: "function",
        labels: 1,
        inner: &[],
    },
    BlockShape {
        kind: "group",
        labels: 1,
        inner: &[],
    },
    BlockShape {
        kind: "target",
        labels: 1,
        inner: &[],
    },
];

#[derive(Debug)]
pub(super) struct VariableDefinition {
    pub(super) of: Option<Rc<Expression>>,
    pub(super) default: Option<Rc<Expression>>,
    /// Refers to nothing.
    pub(super) description: Option<Rc<Expression>>,
    pub(super) validations: Vec<Validation>,
    pub(super) span: Span,
}

#[derive(Debug)]
pub(super) struct Validation {
    pub(super) condition: Option<Rc<Expression>>,
    pub(super) error_message: Option<Rc<Expression>>,
    pub(super) span: Span,
}

#[derive(Debug)]
pub(super) struct FunctionDefinition {
    pub(super) parameters: Option<Rc<Expression>>,
    pub(super) variadic: Option<Rc<Expression>>,
    pub(super) result: Option<Rc<Expression>>,
    pub(super) span: Span,
}

#[derive(Debug, Default)]
pub(super) struct Definitions {
    pub(super) variables: BTreeMap<Rc<str>, VariableDefinition>,
    pub(super) functions: BTreeMap<Rc<str>, FunctionDefinition>,
    /// Attributes at the top level.
    pub(super) constants: BTreeMap<Rc<str>, Attribute>,
    /// Targets and groups, in the order of the files.
    pub(super) blocks: Vec<Block>,
}

impl Definitions {
    pub(super) fn new(bodies: Vec<Body>, reserved: &HashSet<&str>) -> Result<Definitions, Diagnostics> {
        let mut definitions = Definitions::default();
        let mut diagnostics = Vec::new();
        for body in bodies {
            for attribute in body.attributes {
                // `function` and the kinds of blocks are no names for constants.
                if !reserved.contains(&*attribute.name) && &*attribute.name != "function" {
                    definitions.constants.insert(attribute.name.clone(), attribute);
                }
            }
            for block in body.blocks {
                if !matches!(&*block.kind, "variable" | "function" | "target" | "group") {
                    continue;
                }
                if let Err(diagnostic) = definitions.add(block, reserved) {
                    diagnostics.extend(diagnostic);
                }
            }
        }
        super::settle(diagnostics)?;
        Ok(definitions)
    }

    fn add(&mut self, block: Block, reserved: &HashSet<&str>) -> Result<(), Diagnostics> {
        let [(label, _)] = &block.labels[..] else {
            let message = format!(
                "a {} needs one label, its name; there are {}",
                block.kind,
                block.labels.len()
            );
            return Err(vec![Diagnostic::new(block.span, message)]);
        };
        let label = label.clone();
        match &*block.kind {
            "variable" => {
                let definition = variable(&block)?;
                if !reserved.contains(&*label) {
                    self.variables.insert(label, definition);
                }
            }
            "function" => {
                let definition = function(&block)?;
                self.functions.insert(label, definition);
            }
            _ => self.blocks.push(block),
        }
        Ok(())
    }

    /// The names of variables and constants.
    pub(super) fn value_names(&self) -> impl Iterator<Item = &str> + Clone {
        self.variables.keys().chain(self.constants.keys()).map(|name| &**name)
    }
}

fn expression(body: &Body, name: &str) -> Option<Rc<Expression>> {
    body.attribute(name).map(|attribute| attribute.expression.clone())
}

fn variable(block: &Block) -> Result<VariableDefinition, Diagnostics> {
    let body = &block.body;
    let mut validations = Vec::new();
    for inner in body.blocks.iter().filter(|inner| &*inner.kind == "validation") {
        only(inner, &["condition", "error_message"])?;
        if let Some((_, span)) = inner.labels.first() {
            return Err(vec![Diagnostic::new(*span, "a validation has no label")]);
        }
        validations.push(Validation {
            condition: expression(&inner.body, "condition"),
            error_message: expression(&inner.body, "error_message"),
            span: inner.span,
        });
    }
    let description = expression(body, "description");
    if let Some(description) = &description {
        check_constant(description)?;
    }
    Ok(VariableDefinition {
        of: expression(body, "type").filter(|of| !matches!(of.kind, Kind::Literal(Value::Null(_)))),
        // In JSON, null is the same as nothing there.
        default: expression(body, "default"),
        description,
        validations,
        span: block.span,
    })
}

fn function(block: &Block) -> Result<FunctionDefinition, Diagnostics> {
    only(block, &["params", "variadic_params", "result"])?;
    Ok(FunctionDefinition {
        parameters: expression(&block.body, "params"),
        variadic: expression(&block.body, "variadic_params"),
        result: expression(&block.body, "result"),
        span: block.span,
    })
}

/// Refuses attributes and blocks that mean nothing here.
fn only(block: &Block, names: &[&str]) -> Result<(), Diagnostics> {
    let mut diagnostics = Vec::new();
    for attribute in block
        .body
        .attributes
        .iter()
        .filter(|attribute| !names.contains(&&*attribute.name))
    {
        let message = format!(
            "a {} has no attribute {:?}, there are {}",
            block.kind,
            attribute.name,
            names.join(", ")
        );
        diagnostics.push(Diagnostic::new(attribute.name_span, message));
    }
    for inner in &block.body.blocks {
        diagnostics.push(Diagnostic::new(inner.span, format!("a {} has no blocks", block.kind)));
    }
    if diagnostics.is_empty() {
        Ok(())
    } else {
        Err(diagnostics)
    }
}

/// A description says the same whatever the variables are.
fn check_constant(expression: &Expression) -> Result<(), Diagnostics> {
    let uses = collect(expression);
    if uses.references.is_empty() && uses.functions.is_empty() {
        return Ok(());
    }
    let message = "the description of a variable must be plain text, without variables and functions";
    Err(vec![Diagnostic::new(expression.span, message)])
}
