//! Reading the fields of a mapping as what they have to be.

use std::collections::{BTreeMap, HashSet};

use super::yaml::{Map, Yaml};

/// A mapping and where it is, for messages.
#[derive(Clone, Copy)]
pub(super) struct Fields<'m> {
    map: &'m Map,
    path: &'m str,
}

/// Values by key; `None` for a key without a value.
pub(super) type Dictionary = BTreeMap<String, Option<String>>;

impl<'m> Fields<'m> {
    pub(super) fn new(map: &'m Map, path: &'m str) -> Fields<'m> {
        Fields { map, path }
    }

    fn complain<T>(&self, key: &str, wanted: &str, found: &Yaml) -> Result<T, String> {
        Err(format!("{}.{key} must be {wanted}, not {}", self.path, found.kind()))
    }

    /// Refuses keys that are not known, except for those of extensions.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), String> {
        let unknown = self
            .map
            .keys()
            .find(|key| !known.contains(&key.as_str()) && !key.starts_with("x-"));
        match unknown {
            None => Ok(()),
            Some(key) => {
                let hint = crate::bake::hcl::traversal::hint(key, known.iter().copied());
                Err(format!("{}: unknown key {key:?}{hint}", self.path))
            }
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&'m Yaml> {
        self.map.get(key)
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<String>, String> {
        match self.map.get(key) {
            None => Ok(None),
            Some(Yaml::Text(text)) => Ok(Some(text.clone())),
            Some(other) => self.complain(key, "a string", other),
        }
    }

    /// A text that is not empty.
    pub(super) fn filled(&self, key: &str) -> Result<Option<String>, String> {
        Ok(self.text(key)?.filter(|text| !text.is_empty()))
    }

    /// A text or a bool, as text.
    pub(super) fn text_or_bool(&self, key: &str) -> Result<Option<String>, String> {
        match self.map.get(key) {
            None => Ok(None),
            Some(value @ (Yaml::Text(_) | Yaml::Bool(_))) => Ok(value.to_text()),
            Some(other) => self.complain(key, "a string or a bool", other),
        }
    }

    pub(super) fn bool(&self, key: &str) -> Result<bool, String> {
        match self.map.get(key) {
            None => Ok(false),
            Some(Yaml::Bool(value)) => Ok(*value),
            Some(Yaml::Text(text)) => match text.to_lowercase().as_str() {
                "true" | "y" | "yes" | "on" => Ok(true),
                "false" | "n" | "no" | "off" => Ok(false),
                _ => Err(format!("{}.{key} must be a bool, not {text:?}", self.path)),
            },
            Some(other) => self.complain(key, "a bool", other),
        }
    }

    pub(super) fn texts(&self, key: &str) -> Result<Vec<String>, String> {
        match self.map.get(key) {
            None => Ok(Vec::new()),
            Some(Yaml::List(items)) => self.items(key, items),
            Some(other) => self.complain(key, "a list of strings", other),
        }
    }

    /// A list of texts, or one alone.
    pub(super) fn text_or_texts(&self, key: &str) -> Result<Vec<String>, String> {
        match self.map.get(key) {
            Some(Yaml::Text(text)) => Ok(vec![text.clone()]),
            _ => self.texts(key),
        }
    }

    fn items(&self, key: &str, items: &[Yaml]) -> Result<Vec<String>, String> {
        let text = |item: &Yaml| match item {
            Yaml::Text(text) => Ok(text.clone()),
            other => Err(format!(
                "{}.{key} must hold strings only, not {}",
                self.path,
                other.kind()
            )),
        };
        items.iter().map(text).collect()
    }

    /// A mapping of scalars, or a list of `key=value`.
    pub(super) fn dictionary(&self, key: &str) -> Result<Dictionary, String> {
        match self.map.get(key) {
            None => Ok(Dictionary::new()),
            Some(Yaml::Map(map)) => map
                .iter()
                .map(|(name, value)| match value {
                    Yaml::List(_) | Yaml::Map(_) => self.complain(&format!("{key}.{name}"), "a scalar", value),
                    Yaml::Float(number) if !number.is_finite() => {
                        Err(format!("{}.{key}.{name} must be a finite number", self.path))
                    }
                    _ if name.is_empty() => Err(format!("{}.{key} has an entry without a name", self.path)),
                    value => Ok((name.clone(), value.to_text())),
                })
                .collect(),
            Some(Yaml::List(items)) => {
                let mut dictionary = Dictionary::new();
                for text in self.items(key, items)? {
                    let (name, value) = match text.split_once('=') {
                        Some((name, value)) => (name, Some(String::from(value))),
                        None => (text.as_str(), None),
                    };
                    if name.ends_with(char::is_whitespace) {
                        return Err(format!("{}.{key}: {name:?} ends with a blank", self.path));
                    }
                    dictionary.insert(String::from(name), value);
                }
                Ok(dictionary)
            }
            Some(other) => self.complain(key, "a mapping or a list", other),
        }
    }

    /// Host names with their addresses: a mapping, or a list of `host=address` or `host:address`.
    pub(super) fn hosts(&self, key: &str) -> Result<BTreeMap<String, Vec<String>>, String> {
        let mut hosts: BTreeMap<String, Vec<String>> = BTreeMap::new();
        match self.map.get(key) {
            None => {}
            Some(Yaml::Map(map)) => {
                for (host, value) in map {
                    let addresses = match value {
                        Yaml::Text(address) => vec![address.clone()],
                        Yaml::List(items) => self.items(&format!("{key}.{host}"), items)?,
                        other => {
                            return self.complain(&format!("{key}.{host}"), "a string or a list of strings", other);
                        }
                    };
                    hosts.insert(host.clone(), addresses);
                }
            }
            Some(Yaml::List(items)) => {
                let mut seen = HashSet::new();
                for text in self.items(key, items)? {
                    if !seen.insert(text.clone()) {
                        return Err(format!("{}.{key}: {text:?} is there twice", self.path));
                    }
                    let Some((host, addresses)) = text.split_once('=').or_else(|| text.split_once(':')) else {
                        return Err(format!(
                            "{}.{key}: {text:?} has no address; write host=address",
                            self.path
                        ));
                    };
                    let addresses = addresses.split(',').map(String::from);
                    hosts.entry(String::from(host)).or_default().extend(addresses);
                }
            }
            Some(other) => return self.complain(key, "a mapping or a list", other),
        }
        for (host, addresses) in &mut hosts {
            if host.is_empty() || host.contains([':', '=']) {
                return Err(format!("{}.{key}: {host:?} is no host name", self.path));
            }
            for address in addresses {
                // Brackets around an address belong into URLs only.
                if let Some(bare) = address.strip_prefix('[').and_then(|address| address.strip_suffix(']'))
                    && !bare.is_empty()
                {
                    *address = String::from(bare);
                }
            }
        }
        Ok(hosts)
    }
}
