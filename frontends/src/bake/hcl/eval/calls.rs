//! Calling functions: those of the language, those of the file, and those that want expressions.

use std::rc::Rc;

use super::{Call, Evaluator, UserFunction, gather, gather2};
use crate::bake::functions::{Accepts, CallError, EXPRESSION_FUNCTIONS, Function, Parameter};
use crate::bake::hcl::scope::{Scope, similar};
use crate::bake::hcl::type_expression;
use crate::bake::source::{Diagnostic, Diagnostics, Span};
use crate::bake::value::{Value, convert};

impl Evaluator<'_> {
    pub(super) fn call(&self, call: &Call, span: Span, scope: &Scope<'_>) -> Result<Value, Diagnostics> {
        match &*call.name {
            "try" => return self.call_try(call, span, scope),
            "can" => return self.call_can(call, span, scope),
            "convert" => return self.call_convert(call, span, scope),
            _ => {}
        }
        if let Some(function) = self.builtins.get(&*call.name) {
            return self.call_builtin(function, call, span, scope);
        }
        let user = self.functions.borrow().get(&call.name).cloned();
        if let Some(function) = user {
            return self.call_user(&function, call, span, scope);
        }
        let functions = self.functions.borrow();
        let names: Vec<&str> = self
            .builtins
            .keys()
            .copied()
            .chain(EXPRESSION_FUNCTIONS)
            .chain(functions.keys().map(|name| &**name))
            .collect();
        let near = similar(&call.name, names);
        let near = near.map_or_else(String::new, |near| format!(", did you mean {near:?}?"));
        Err(vec![Diagnostic::new(
            call.name_span,
            format!("there is no function named {:?}{near}", call.name),
        )])
    }

    /// The values of the arguments, each with its place; the last one spread out if it is marked so.
    fn arguments(&self, call: &Call, scope: &Scope<'_>) -> Result<Vec<(Value, Span)>, Diagnostics> {
        let values = gather(call.arguments.iter().map(|argument| self.evaluate(argument, scope)))?;
        let mut placed: Vec<(Value, Span)> = values
            .into_iter()
            .zip(&call.arguments)
            .map(|(value, argument)| (value, argument.span))
            .collect();
        if call.expand
            && let Some((last, last_span)) = placed.pop()
        {
            match last.as_sequence() {
                Some(elements) => placed.extend(elements.iter().map(|element| (element.clone(), last_span))),
                None => {
                    let message = "the argument marked with ... must be a list, tuple or set";
                    return Err(vec![Diagnostic::new(last_span, message)]);
                }
            }
        }
        Ok(placed)
    }

    fn check_count(call: &Call, span: Span, given: usize, names: &[&str], variadic: bool) -> Result<(), Diagnostics> {
        let wanted = names.len();
        if given < wanted {
            let more = if variadic { "at least " } else { "" };
            let message = format!(
                "function {:?} takes {more}{wanted} argument(s), {given} given; {:?} is missing",
                call.name, names[given]
            );
            return Err(vec![Diagnostic::new(span, message)]);
        }
        if given > wanted && !variadic {
            let message = format!("function {:?} takes {wanted} argument(s), {given} given", call.name);
            return Err(vec![Diagnostic::new(span, message)]);
        }
        Ok(())
    }

    fn call_builtin(
        &self,
        function: &Function,
        call: &Call,
        span: Span,
        scope: &Scope<'_>,
    ) -> Result<Value, Diagnostics> {
        let placed = self.arguments(call, scope)?;
        let names: Vec<&str> = function.parameters.iter().map(|parameter| parameter.name).collect();
        Self::check_count(call, span, placed.len(), &names, function.variadic.is_some())?;
        let parameter_of =
            |position: usize| -> Option<Parameter> { function.parameters.get(position).copied().or(function.variadic) };
        let mut values = Vec::with_capacity(placed.len());
        let mut diagnostics = Vec::new();
        for (position, (value, value_span)) in placed.iter().enumerate() {
            let Some(parameter) = parameter_of(position) else {
                continue;
            };
            match argument(value, parameter) {
                Ok(value) => values.push(value),
                Err(message) => {
                    let message = format!("argument {:?} of {}: {message}", parameter.name, call.name);
                    diagnostics.push(Diagnostic::new(*value_span, message));
                }
            }
        }
        if !diagnostics.is_empty() {
            return Err(diagnostics);
        }
        (function.run)(&self.environment, &values).map_err(|error| match error {
            CallError::Argument(position, message) => {
                let value_span = placed.get(position).map_or(span, |(_, value_span)| *value_span);
                let name = parameter_of(position).map_or("", |parameter| parameter.name);
                vec![Diagnostic::new(
                    value_span,
                    format!("argument {name:?} of {}: {message}", call.name),
                )]
            }
            CallError::Whole(message) => vec![Diagnostic::new(span, format!("{}: {message}", call.name))],
        })
    }

    fn call_user(
        &self,
        function: &UserFunction,
        call: &Call,
        span: Span,
        scope: &Scope<'_>,
    ) -> Result<Value, Diagnostics> {
        let placed = self.arguments(call, scope)?;
        let names: Vec<&str> = function.parameters.iter().map(|name| &**name).collect();
        Self::check_count(call, span, placed.len(), &names, function.variadic.is_some())?;
        if let Some(position) = placed.iter().position(|(value, _)| value.is_null()) {
            let name = names.get(position).copied().unwrap_or("");
            let message = format!("argument {name:?} of {} must not be null", call.name);
            return Err(vec![Diagnostic::new(placed[position].1, message)]);
        }
        let mut values: Vec<Value> = placed.into_iter().map(|(value, _)| value).collect();
        let rest = values.split_off(function.parameters.len());
        let mut bound: Vec<(Rc<str>, Value)> = function.parameters.iter().cloned().zip(values).collect();
        if let Some(name) = &function.variadic {
            bound.push((name.clone(), Value::tuple(rest)));
        }
        self.evaluate(&function.result, &Scope::with(bound))
            .map_err(|mut diagnostics| {
                for diagnostic in &mut diagnostics {
                    if !diagnostic.message.contains("(called as ") {
                        diagnostic.message = format!("{} (called as {})", diagnostic.message, call.name);
                    }
                }
                diagnostics
            })
    }

    /// The first argument that can be evaluated.
    fn call_try(&self, call: &Call, span: Span, scope: &Scope<'_>) -> Result<Value, Diagnostics> {
        let mut reasons = Vec::new();
        for argument in &call.arguments {
            match self.evaluate(argument, scope) {
                Ok(value) => return Ok(value),
                Err(diagnostics) if diagnostics.iter().any(|diagnostic| diagnostic.fatal) => return Err(diagnostics),
                Err(diagnostics) => reasons.extend(diagnostics),
            }
        }
        if reasons.is_empty() {
            return Err(vec![Diagnostic::new(span, "try: at least one argument is required")]);
        }
        let reasons: Vec<String> = reasons.into_iter().map(|diagnostic| diagnostic.message).collect();
        Err(vec![Diagnostic::new(
            span,
            format!("try: no argument could be evaluated: {}", reasons.join("; ")),
        )])
    }

    fn call_can(&self, call: &Call, span: Span, scope: &Scope<'_>) -> Result<Value, Diagnostics> {
        Self::check_count(call, span, call.arguments.len(), &["expression"], false)?;
        match call.arguments.first().map(|argument| self.evaluate(argument, scope)) {
            Some(Err(diagnostics)) if diagnostics.iter().any(|diagnostic| diagnostic.fatal) => Err(diagnostics),
            outcome => Ok(Value::Bool(matches!(outcome, Some(Ok(_))))),
        }
    }

    fn call_convert(&self, call: &Call, span: Span, scope: &Scope<'_>) -> Result<Value, Diagnostics> {
        Self::check_count(call, span, call.arguments.len(), &["value", "type"], false)?;
        let [value, wanted] = &call.arguments[..] else {
            return Ok(Value::null());
        };
        let (given, wanted) = gather2(self.evaluate(value, scope), type_expression::type_of(wanted))?;
        // Unlike a variable, this function wants every attribute, also those that are declared optional.
        convert(&given, &wanted.without_optional()).map_err(|error| {
            vec![Diagnostic::new(
                value.span,
                format!("argument \"value\" of convert: {error}"),
            )]
        })
    }
}

fn argument(value: &Value, parameter: Parameter) -> Result<Value, String> {
    if value.is_null() && parameter.accepts != Accepts::AnyOrNull {
        return Err(String::from("must not be null"));
    }
    convert(value, &parameter.accepts.wanted()).map_err(|error| error.to_string())
}
