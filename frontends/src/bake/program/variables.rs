//! Variables and constants: their values, where those come from, and the rules they must keep.

use std::rc::Rc;

use super::definitions::VariableDefinition;
use super::overrides::{csv, primitive, takes_csv};
use super::{Missing, Program, Progress, Unresolved, Variable, settle};
use crate::bake::hcl::scope::Scope;
use crate::bake::hcl::type_expression;
use crate::bake::source::{Diagnostic, Diagnostics};
use crate::bake::value::{Type, Value, convert, from_json, to_json};

/// A value given by another name than that of the variable is JSON.
const JSON_SUFFIX: &str = "_JSON";

/// A value from outside.
struct Given {
    text: String,
    is_json: bool,
}

impl Program<'_> {
    /// Resolves and checks all variables.
    pub(super) fn variables(&self) -> Result<Vec<Variable>, Diagnostics> {
        let mut variables = Vec::with_capacity(self.definitions.variables.len());
        let mut diagnostics = Vec::new();
        for (name, definition) in &self.definitions.variables {
            if let Err(Unresolved::Failed(more)) = self.resolve_value(name) {
                diagnostics.extend(more);
                continue;
            }
            let description = match self.description(definition) {
                Ok(description) => description,
                Err(more) => {
                    diagnostics.extend(more);
                    continue;
                }
            };
            let constraint = self.declared_type(definition).ok().flatten();
            let value = self.evaluator.global(name).unwrap_or_else(Value::null);
            variables.push(Variable {
                name: name.to_string(),
                description,
                kind: constraint.map(|of| of.constraint_name()).unwrap_or_default(),
                value: listed(&value),
            });
        }
        settle(diagnostics)?;
        self.validate()?;
        Ok(variables)
    }

    fn description(&self, definition: &VariableDefinition) -> Result<String, Diagnostics> {
        let Some(expression) = &definition.description else {
            return Ok(String::new());
        };
        let value = self.evaluator.evaluate(expression, &Scope::root())?;
        match convert(&value, &Type::String) {
            Ok(Value::String(text)) => Ok(String::from(&*text)),
            _ => {
                let message = "the description of a variable must be text";
                Err(vec![Diagnostic::new(expression.span, message)])
            }
        }
    }

    /// The declared type; `None` when there is no declaration.
    fn declared_type(&self, definition: &VariableDefinition) -> Result<Option<Type>, Diagnostics> {
        match &definition.of {
            Some(expression) => type_expression::type_of(expression).map(Some),
            None => Ok(None),
        }
    }

    /// Makes sure that a variable or constant has its value.
    pub(super) fn resolve_value(&self, name: &Rc<str>) -> Result<(), Unresolved> {
        let earlier = self.values.borrow().get(name).cloned();
        match earlier {
            Some(Progress::Done) => return Ok(()),
            Some(Progress::Failed(diagnostics)) => return Err(Unresolved::Failed(diagnostics)),
            Some(Progress::Started) => {
                let span = self.definitions.variables.get(name).map(|definition| definition.span);
                let span = self
                    .definitions
                    .constants
                    .get(name)
                    .map(|constant| constant.name_span)
                    .or(span);
                let message = format!("variable {name:?} depends on itself; cycles are not allowed");
                return Err(Unresolved::Failed(vec![Diagnostic::fatal(span, message)]));
            }
            None => {}
        }
        if self.builtins.iter().any(|(builtin, _)| **builtin == **name) {
            return Ok(());
        }
        if !self.definitions.constants.contains_key(name) && !self.definitions.variables.contains_key(name) {
            return Err(Unresolved::Undefined);
        }
        self.values.borrow_mut().insert(name.clone(), Progress::Started);
        let outcome = self.compute(name);
        let progress = match &outcome {
            Ok(_) => Progress::Done,
            Err(diagnostics) => Progress::Failed(diagnostics.clone()),
        };
        self.values.borrow_mut().insert(name.clone(), progress);
        match outcome {
            Ok(value) => {
                self.evaluator.set_global(name.clone(), value);
                Ok(())
            }
            Err(diagnostics) => Err(Unresolved::Failed(diagnostics)),
        }
    }

    fn compute(&self, name: &Rc<str>) -> Result<Value, Diagnostics> {
        let definition = self.definitions.variables.get(name);
        let constant = self.definitions.constants.get(name);
        let span = constant
            .map(|constant| constant.name_span)
            .or(definition.map(|definition| definition.span));
        let _level = self.evaluator.enter(span)?;
        let declared = match (constant, definition) {
            (None, Some(definition)) => self.declared_type(definition)?,
            _ => None,
        };
        let wanted = declared.clone().unwrap_or(Type::Dynamic);
        let default = constant
            .map(|constant| constant.expression.clone())
            .or_else(|| definition.and_then(|definition| definition.default.clone()));
        let value = match &default {
            Some(expression) => {
                let value = self.evaluate(expression, &[])?;
                let converted = convert(&value, &wanted).map_err(|error| {
                    let message = format!(
                        "the default of variable {name:?} is not of type {}: {error}",
                        wanted.constraint_name()
                    );
                    vec![Diagnostic::new(expression.span, message)]
                })?;
                Some(converted)
            }
            None => None,
        };
        if definition.is_some()
            && let Some(given) = self.given(name, declared.is_some())
        {
            let overridden = read(&given, declared.as_ref(), value.as_ref());
            return overridden.map_err(|reason| {
                let source = if given.is_json {
                    format!("{name}{JSON_SUFFIX}")
                } else {
                    name.to_string()
                };
                let message = format!("the value given for variable {name:?} (by {source}) cannot be used: {reason}");
                let mut diagnostic = Diagnostic::new(span.unwrap_or(crate::bake::source::Span::new(0, 0, 0)), message);
                diagnostic.span = span;
                vec![diagnostic]
            });
        }
        // Without a default, a variable with a type is null and one without is an empty string.
        Ok(
            value
                .unwrap_or_else(|| declared.map_or_else(|| Value::string(""), |of| Value::Null(of.without_optional()))),
        )
    }

    /// The value given from outside; JSON is looked for first when the type is declared.
    fn given(&self, name: &str, prefer_json: bool) -> Option<Given> {
        let plain = (self.lookup)(name);
        if plain.is_none() || prefer_json {
            let json_name = format!("{name}{JSON_SUFFIX}");
            let is_taken = self.definitions.variables.contains_key(&*json_name)
                || self.builtins.iter().any(|(builtin, _)| *builtin == json_name);
            if !is_taken && let Some(text) = (self.lookup)(&json_name) {
                return Some(Given { text, is_json: true });
            }
        }
        plain.map(|text| Given { text, is_json: false })
    }

    fn validate(&self) -> Result<(), Diagnostics> {
        let mut diagnostics = Vec::new();
        for (name, definition) in &self.definitions.variables {
            for validation in &definition.validations {
                let Some(condition) = &validation.condition else {
                    let message = format!("a validation of variable {name:?} has no condition");
                    diagnostics.push(Diagnostic::new(validation.span, message));
                    continue;
                };
                let outcome = self
                    .load(condition, &[], Missing::Ignore)
                    .and_then(|()| self.evaluator.evaluate(condition, &Scope::root()));
                let holds = match outcome {
                    Ok(value) => convert(&value, &Type::Bool).map_err(|error| error.to_string()),
                    Err(more) => {
                        diagnostics.extend(more);
                        continue;
                    }
                };
                match holds {
                    Ok(Value::Bool(true)) => {}
                    Ok(Value::Bool(false)) => {
                        let said = match &validation.error_message {
                            Some(message) => self.evaluate(message, &[]),
                            None => Ok(Value::null()),
                        };
                        match said {
                            Ok(said) => {
                                let said = said
                                    .as_str()
                                    .unwrap_or("a condition does not hold, and has no error message");
                                let message = format!("validation of variable {name:?} failed: {said}");
                                diagnostics.push(Diagnostic::new(condition.span, message));
                            }
                            Err(more) => diagnostics.extend(more),
                        }
                    }
                    Ok(_) => {
                        let message = "the condition of a validation must be true or false, not null";
                        diagnostics.push(Diagnostic::new(condition.span, message));
                    }
                    Err(error) => {
                        let message = format!("the condition of a validation must be a bool: {error}");
                        diagnostics.push(Diagnostic::new(condition.span, message));
                    }
                }
            }
        }
        settle(diagnostics)
    }
}

/// Reads a given text by the declared type or, if none is declared, by that of the default.
fn read(given: &Given, declared: Option<&Type>, default: Option<&Value>) -> Result<Value, String> {
    let Some(wanted) = declared else {
        return match default {
            None | Some(Value::Null(Type::Dynamic)) => Ok(Value::string(&given.text)),
            Some(default) => {
                let of = default.type_of();
                if !of.is_primitive() {
                    return Err(format!(
                        "type {of} is unsupported here; declare the type of the variable"
                    ));
                }
                primitive(&given.text, &of)
            }
        };
    };
    if given.is_json {
        return from_json(&given.text, wanted).map_err(|error| error.to_string());
    }
    if takes_csv(wanted) {
        return csv(&given.text, wanted);
    }
    if wanted.is_primitive() {
        return primitive(&given.text, wanted);
    }
    Err(format!(
        "type {} is unsupported as plain text; give it as JSON by the name with {JSON_SUFFIX}",
        wanted.constraint_name()
    ))
}

/// Strings bare, everything else as JSON.
fn listed(value: &Value) -> Option<String> {
    match value {
        Value::Null(_) => None,
        Value::String(text) => Some(String::from(&**text)),
        Value::Number(number) => Some(number.to_text()),
        other => to_json(other).ok(),
    }
}
