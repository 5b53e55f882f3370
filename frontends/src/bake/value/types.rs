//! Types of values, how they are named in messages, and which type several types have in common.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;

/// The type of a value, or a constraint on one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    /// Not known: the type of a bare `null`, and as a constraint, anything.
    Dynamic,
    String,
    Number,
    Bool,
    List(Rc<Type>),
    Set(Rc<Type>),
    Map(Rc<Type>),
    Tuple(Rc<[Type]>),
    Object(Rc<ObjectType>),
    /// Raw bytes; nothing in a bake file makes them.
    Bytes,
}

/// The attributes of an object type; the optional ones may be left out by a value that is converted to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ObjectType {
    pub(crate) attributes: BTreeMap<Rc<str>, Type>,
    pub(crate) optional: BTreeSet<Rc<str>>,
}

impl Type {
    pub(crate) fn list(element: Type) -> Type {
        Type::List(Rc::new(element))
    }

    pub(crate) fn set(element: Type) -> Type {
        Type::Set(Rc::new(element))
    }

    pub(crate) fn map(element: Type) -> Type {
        Type::Map(Rc::new(element))
    }

    pub(crate) fn tuple(elements: impl IntoIterator<Item = Type>) -> Type {
        Type::Tuple(elements.into_iter().collect())
    }

    pub(crate) fn object(attributes: BTreeMap<Rc<str>, Type>) -> Type {
        Type::Object(Rc::new(ObjectType {
            attributes,
            optional: BTreeSet::new(),
        }))
    }

    pub(crate) fn is_primitive(&self) -> bool {
        matches!(self, Type::String | Type::Number | Type::Bool)
    }

    /// The element type of a list, set or map.
    pub(crate) fn element(&self) -> Option<&Type> {
        match self {
            Type::List(element) | Type::Set(element) | Type::Map(element) => Some(element),
            _ => None,
        }
    }

    /// The same type with every attribute required: what a value can have.
    pub(crate) fn without_optional(&self) -> Type {
        match self {
            Type::List(element) => Type::list(element.without_optional()),
            Type::Set(element) => Type::set(element.without_optional()),
            Type::Map(element) => Type::map(element.without_optional()),
            Type::Tuple(elements) => Type::tuple(elements.iter().map(Type::without_optional)),
            Type::Object(object) => Type::object(
                object
                    .attributes
                    .iter()
                    .map(|(name, of)| (name.clone(), of.without_optional()))
                    .collect(),
            ),
            other => other.clone(),
        }
    }

    /// The name used in messages and listings; `any` for what is not known.
    pub(crate) fn constraint_name(&self) -> String {
        match self {
            Type::Dynamic => String::from("any type"),
            Type::List(element) => format!("list of {}", element.nested_name()),
            Type::Set(element) => format!("set of {}", element.nested_name()),
            Type::Map(element) => format!("map of {}", element.nested_name()),
            other => other.to_string(),
        }
    }

    fn nested_name(&self) -> String {
        match self {
            Type::Dynamic => String::from("any single type"),
            other => other.constraint_name(),
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Dynamic => f.write_str("dynamic"),
            Type::String => f.write_str("string"),
            Type::Number => f.write_str("number"),
            Type::Bool => f.write_str("bool"),
            Type::List(element) => write!(f, "list of {element}"),
            Type::Set(element) => write!(f, "set of {element}"),
            Type::Map(element) => write!(f, "map of {element}"),
            Type::Tuple(_) => f.write_str("tuple"),
            Type::Object(_) => f.write_str("object"),
            Type::Bytes => f.write_str("bytes"),
        }
    }
}

/// Whether values of one type can (perhaps) be converted to another.
pub(crate) fn convertible(from: &Type, to: &Type) -> bool {
    match (from, to) {
        (_, Type::Dynamic) => true,
        (Type::Dynamic, _) => true,
        (Type::Number | Type::Bool, Type::String) => true,
        (Type::String, Type::Number | Type::Bool) => true,
        (Type::Object(from), Type::Object(to)) => {
            to.attributes
                .iter()
                .all(|(name, to_attribute)| match from.attributes.get(name) {
                    Some(from_attribute) => same_or_convertible(from_attribute, to_attribute),
                    None => to.optional.contains(name),
                })
        }
        (Type::Tuple(from), Type::Tuple(to)) => {
            from.len() == to.len()
                && from
                    .iter()
                    .zip(to.iter())
                    .all(|(from, to)| same_or_convertible(from, to))
        }
        (Type::List(from) | Type::Set(from), Type::List(to)) | (Type::Set(from), Type::Set(to)) => {
            same_or_convertible(from, to)
        }
        (Type::List(from), Type::Set(to)) => same_or_convertible(from, to),
        (Type::Map(from), Type::Map(to)) => same_or_convertible(from, to),
        (Type::Tuple(from), Type::List(to) | Type::Set(to)) => elements_convertible(from.iter(), to),
        (Type::Object(from), Type::Map(to)) => elements_convertible(from.attributes.values(), to),
        (Type::Map(from), Type::Object(to)) => to
            .attributes
            .iter()
            .all(|(name, attribute)| same_or_convertible(from, attribute) || to.optional.contains(name)),
        _ => from == to,
    }
}

fn same_or_convertible(from: &Type, to: &Type) -> bool {
    from == to || convertible(from, to)
}

fn elements_convertible<'a>(elements: impl Iterator<Item = &'a Type> + Clone, to: &Type) -> bool {
    match element_type(elements.clone(), to) {
        Some(common) => elements.into_iter().all(|from| same_or_convertible(from, &common)),
        None => false,
    }
}

/// What the elements of a tuple or object become when converted to a collection of `to`.
pub(crate) fn element_type<'a>(elements: impl Iterator<Item = &'a Type> + Clone, to: &Type) -> Option<Type> {
    if *to != Type::Dynamic {
        return Some(to.clone());
    }
    let types: Vec<Type> = elements.cloned().collect();
    if types.is_empty() {
        return Some(Type::Dynamic);
    }
    unify(&types)
}

/// The type that all of the types can be converted to, preferring one of them; `None` when there is none.
pub(crate) fn unify(types: &[Type]) -> Option<Type> {
    let first = types.first()?;
    if types.iter().all(|other| other == first) {
        return Some(first.clone());
    }
    let count = |test: fn(&Type) -> bool| types.iter().filter(|of| test(of)).count();
    let total = types.len();
    let dynamic = count(|of| matches!(of, Type::Dynamic));
    let maps = count(|of| matches!(of, Type::Map(_)));
    let lists = count(|of| matches!(of, Type::List(_)));
    let sets = count(|of| matches!(of, Type::Set(_)));
    let objects = count(|of| matches!(of, Type::Object(_)));
    let tuples = count(|of| matches!(of, Type::Tuple(_)));
    if maps > 0 && maps + dynamic == total {
        return unify_collections(types, Type::map, dynamic);
    }
    if lists > 0 && lists + dynamic == total {
        return unify_collections(types, Type::list, dynamic);
    }
    if sets > 0 && sets + dynamic == total {
        return unify_collections(types, Type::set, dynamic);
    }
    if objects > 0 && objects + dynamic == total {
        return if dynamic > 0 {
            Some(Type::Dynamic)
        } else {
            unify_objects(types)
        };
    }
    if tuples > 0 && tuples + dynamic == total {
        return if dynamic > 0 {
            Some(Type::Dynamic)
        } else {
            unify_tuples(types)
        };
    }
    if maps > 0 && maps + objects + dynamic == total {
        if let Some(common) = as_collections(types, |of| matches!(of, Type::Object(_)), objects_to_map)
            && matches!(common, Type::Map(_))
        {
            return Some(common);
        }
    } else if lists > 0 && lists + tuples + dynamic == total {
        if let Some(common) = as_collections(types, |of| matches!(of, Type::Tuple(_)), tuples_to_list)
            && matches!(common, Type::List(_))
        {
            return Some(common);
        }
    } else if objects > 0 && tuples > 0 {
        return None;
    }
    preferred(types)
        .into_iter()
        .map(|index| &types[index])
        .find_map(|wanted| {
            let all = types.iter().all(|of| same_or_convertible(of, wanted));
            all.then(|| wanted.clone())
        })
}

fn unify_collections(types: &[Type], wrap: fn(Type) -> Type, dynamic: usize) -> Option<Type> {
    if dynamic > 0 {
        return Some(Type::Dynamic);
    }
    let elements: Vec<Type> = types.iter().filter_map(|of| of.element().cloned()).collect();
    let common = wrap(unify(&elements)?);
    types
        .iter()
        .all(|of| same_or_convertible(of, &common))
        .then_some(common)
}

/// Replaces the structural types by the collection they make together, then unifies again.
fn as_collections(types: &[Type], structural: fn(&Type) -> bool, collect: fn(&[Type]) -> Option<Type>) -> Option<Type> {
    let members: Vec<Type> = types.iter().filter(|of| structural(of)).cloned().collect();
    let collection = collect(&members)?;
    let replaced: Vec<Type> = types
        .iter()
        .map(|of| if structural(of) { collection.clone() } else { of.clone() })
        .collect();
    unify(&replaced)
}

fn objects_to_map(types: &[Type]) -> Option<Type> {
    let mut attributes = Vec::new();
    for of in types {
        if let Type::Object(object) = of {
            attributes.extend(object.attributes.values().cloned());
        }
    }
    let common = Type::map(unify(&attributes)?);
    types
        .iter()
        .all(|of| same_or_convertible(of, &common))
        .then_some(common)
}

fn tuples_to_list(types: &[Type]) -> Option<Type> {
    let mut elements = Vec::new();
    for of in types {
        if let Type::Tuple(tuple) = of {
            elements.extend(tuple.iter().cloned());
        }
    }
    let common = Type::list(unify(&elements)?);
    types
        .iter()
        .all(|of| same_or_convertible(of, &common))
        .then_some(common)
}

fn unify_objects(types: &[Type]) -> Option<Type> {
    let objects: Vec<&ObjectType> = types
        .iter()
        .filter_map(|of| match of {
            Type::Object(object) => Some(&**object),
            _ => None,
        })
        .collect();
    let first = objects.first()?;
    if !objects
        .iter()
        .all(|object| object.attributes.keys().eq(first.attributes.keys()))
    {
        return objects_to_map(types);
    }
    let mut attributes = BTreeMap::new();
    for name in first.attributes.keys() {
        let across: Vec<Type> = objects
            .iter()
            .filter_map(|object| object.attributes.get(name).cloned())
            .collect();
        attributes.insert(name.clone(), unify(&across)?);
    }
    Some(Type::object(attributes))
}

fn unify_tuples(types: &[Type]) -> Option<Type> {
    let tuples: Vec<&[Type]> = types
        .iter()
        .filter_map(|of| match of {
            Type::Tuple(tuple) => Some(&**tuple),
            _ => None,
        })
        .collect();
    let length = tuples.first()?.len();
    if !tuples.iter().all(|tuple| tuple.len() == length) {
        return tuples_to_list(types);
    }
    let mut elements = Vec::with_capacity(length);
    for index in 0..length {
        let across: Vec<Type> = tuples.iter().map(|tuple| tuple[index].clone()).collect();
        elements.push(unify(&across)?);
    }
    Some(Type::tuple(elements))
}

/// The distinct types, more general ones first, otherwise in the order given.
fn preferred(types: &[Type]) -> Vec<usize> {
    let mut distinct: Vec<usize> = Vec::new();
    for (index, of) in types.iter().enumerate() {
        if !distinct.iter().any(|&seen| types[seen] == *of) {
            distinct.push(index);
        }
    }
    let mut order = Vec::with_capacity(distinct.len());
    while !distinct.is_empty() {
        let position = distinct
            .iter()
            .position(|&candidate| {
                !distinct
                    .iter()
                    .any(|&other| generality(&types[other], &types[candidate]) == Rank::First)
            })
            .unwrap_or(0);
        order.push(distinct.remove(position));
    }
    order
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rank {
    First,
    Second,
    Neither,
}

/// Which of two types is the more general one.
fn generality(left: &Type, right: &Type) -> Rank {
    match (left, right) {
        (Type::Dynamic, Type::Dynamic) => Rank::Neither,
        (Type::Dynamic, _) => Rank::Second,
        (_, Type::Dynamic) => Rank::First,
        (Type::String, Type::Number | Type::Bool) => Rank::First,
        (Type::Number | Type::Bool, Type::String) => Rank::Second,
        (Type::List(left), Type::List(right))
        | (Type::Set(left), Type::Set(right))
        | (Type::Map(left), Type::Map(right)) => generality(left, right),
        (Type::List(_), Type::Tuple(_)) | (Type::Map(_), Type::Object(_)) => Rank::First,
        (Type::Tuple(_), Type::List(_)) | (Type::Object(_), Type::Map(_)) => Rank::Second,
        (Type::Tuple(_) | Type::List(_), Type::Set(_)) => Rank::First,
        (Type::Set(_), Type::Tuple(_) | Type::List(_)) => Rank::Second,
        (Type::Object(left), Type::Object(right)) if left.attributes.keys().eq(right.attributes.keys()) => {
            combined(left.attributes.values().zip(right.attributes.values()))
        }
        (Type::Tuple(left), Type::Tuple(right)) if left.len() == right.len() => combined(left.iter().zip(right.iter())),
        _ => Rank::Neither,
    }
}

fn combined<'a>(pairs: impl Iterator<Item = (&'a Type, &'a Type)>) -> Rank {
    let (mut first, mut second) = (false, false);
    for (left, right) in pairs {
        match generality(left, right) {
            Rank::First => first = true,
            Rank::Second => second = true,
            Rank::Neither => {}
        }
    }
    match (first, second) {
        (true, false) => Rank::First,
        (false, true) => Rank::Second,
        _ => Rank::Neither,
    }
}
