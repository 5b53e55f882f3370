//! `for` expressions.

use std::collections::HashMap;
use std::rc::Rc;

use super::{Evaluator, gather2, key_text};
use crate::bake::hcl::ast::{Expression, For};
use crate::bake::hcl::scope::Scope;
use crate::bake::hcl::walk::collect;
use crate::bake::source::{Diagnostic, Diagnostics, Span};
use crate::bake::value::{Members, Type, Value, convert};

/// One element of the result, with its key in an object.
type Element = (Option<Rc<str>>, Value);

impl Evaluator<'_> {
    pub(super) fn iterate(&self, iteration: &For, span: Span, scope: &Scope<'_>) -> Result<Value, Diagnostics> {
        let collection = self.evaluate(&iteration.collection, scope)?;
        let Some(entries) = collection.entries() else {
            let message = match &collection {
                Value::Null(_) => String::from("null cannot be iterated over in a for expression"),
                other => format!("a {} cannot be iterated over in a for expression", other.type_of()),
            };
            return Err(vec![Diagnostic::new(iteration.collection.span, message)]);
        };
        if entries.is_empty()
            && let Some(condition) = &iteration.condition
        {
            // Nothing will ask the condition, but one that can be judged without an element is.
            let uses = collect(condition);
            let bound = |name: &Rc<str>| *name == iteration.value_name || iteration.key_name.as_ref() == Some(name);
            if !uses.references.iter().any(|reference| bound(reference.name)) {
                self.holds(condition, scope)?;
            }
        }
        let mut tuple = Vec::new();
        let mut groups: Vec<(Rc<str>, Vec<Value>)> = Vec::new();
        let mut members = Members::new();
        let mut positions: HashMap<Rc<str>, usize> = HashMap::new();
        let mut diagnostics = Vec::new();
        for (entry_key, entry_value) in entries {
            self.charge_elements(2, span)?;
            let mut names = Vec::with_capacity(2);
            if let Some(name) = &iteration.key_name {
                names.push((name.clone(), entry_key));
            }
            names.push((iteration.value_name.clone(), entry_value));
            let inner = scope.child(names);
            let step = || -> Result<Option<Element>, Diagnostics> {
                if let Some(condition) = &iteration.condition
                    && !self.holds(condition, &inner)?
                {
                    return Ok(None);
                }
                let Some(key) = &iteration.key else {
                    return Ok(Some((None, self.evaluate(&iteration.value, &inner)?)));
                };
                let name = self.evaluate(key, &inner).and_then(|value| key_text(&value, key.span));
                let (name, value) = gather2(name, self.evaluate(&iteration.value, &inner))?;
                Ok(Some((Some(name), value)))
            };
            match step() {
                Ok(None) => {}
                Ok(Some((None, value))) => tuple.push(value),
                Ok(Some((Some(name), value))) if iteration.group => {
                    let position = *positions.entry(name.clone()).or_insert_with(|| {
                        groups.push((name, Vec::new()));
                        groups.len() - 1
                    });
                    groups[position].1.push(value);
                }
                Ok(Some((Some(name), value))) => {
                    if members.insert(name.clone(), value).is_some() {
                        let key_span = iteration.key.as_ref().map_or(span, |key| key.span);
                        let message = format!(
                            "two elements give the key {name:?}; put ... behind the value to gather values of equal keys"
                        );
                        diagnostics.push(Diagnostic::new(key_span, message));
                    }
                }
                Err(more) => diagnostics.extend(more),
            }
            if diagnostics.len() > 20 {
                break;
            }
        }
        if !diagnostics.is_empty() {
            return Err(diagnostics);
        }
        if iteration.key.is_none() {
            return Ok(Value::tuple(tuple));
        }
        members.extend(groups.into_iter().map(|(name, values)| (name, Value::tuple(values))));
        Ok(Value::object(members))
    }

    /// Whether the `if` clause of a `for` is true.
    fn holds(&self, condition: &Expression, scope: &Scope<'_>) -> Result<bool, Diagnostics> {
        let value = self.evaluate(condition, scope)?;
        match convert(&value, &Type::Bool) {
            Ok(Value::Bool(holds)) => Ok(holds),
            Ok(_) => Err(vec![Diagnostic::new(
                condition.span,
                "the if clause of a for expression must not be null",
            )]),
            Err(error) => {
                let message = format!("the if clause of a for expression must be a bool: {error}");
                Err(vec![Diagnostic::new(condition.span, message)])
            }
        }
    }
}
