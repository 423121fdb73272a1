//! Readers that are slow, obvious and independent of ours.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// What serde_json makes of a document that has exactly one reading.
#[derive(Debug, PartialEq)]
pub(crate) enum Reading {
    One(Value),
    /// A name twice in one object; with [`Case::Folded`] also one that differs only in case.
    Ambiguous,
    TooDeep,
    /// A number outside of what serde_json represents: it has no opinion on the rest.
    Unrepresentable,
    NotJson,
}

/// Which names are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Case {
    Exact,
    Folded,
}

const AMBIGUOUS: &str = "fuzz: ambiguous";
const DEEP: &str = "fuzz: too deep";

/// Reads a document with serde_json, at most `depth` containers open.
pub(crate) fn read(document: &[u8], case: Case, depth: usize) -> Reading {
    let mut deserializer = serde_json::Deserializer::from_slice(document);
    let seed = Strict { case, left: depth };
    match seed.deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value)) {
        Ok(value) => Reading::One(value),
        Err(error) => {
            let text = error.to_string();
            if text.contains(AMBIGUOUS) {
                Reading::Ambiguous
            } else if text.contains(DEEP) || text.contains("recursion limit") {
                Reading::TooDeep
            } else if text.contains("number out of range") {
                Reading::Unrepresentable
            } else {
                Reading::NotJson
            }
        }
    }
}

struct Strict {
    case: Case,
    left: usize,
}

impl Strict {
    fn inner<E: serde::de::Error>(&self) -> Result<Strict, E> {
        Ok(Strict { left: self.left.checked_sub(1).ok_or_else(|| E::custom(DEEP))?, case: self.case })
    }

    fn name(&self, name: &str) -> String {
        match self.case {
            Case::Exact => name.to_owned(),
            // What Go's encoding/json takes for equal, as far as it reaches ASCII names.
            Case::Folded => name
                .chars()
                .map(|c| match c {
                    '\u{17f}' => 's',
                    '\u{212a}' => 'k',
                    other => other.to_ascii_lowercase(),
                })
                .collect(),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        self.inner::<A::Error>()?;
        while let Some(value) = list.next_element_seed(self.inner()?)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        let mut names = std::collections::BTreeSet::new();
        self.inner::<A::Error>()?;
        while let Some(name) = map.next_key::<String>()? {
            if !names.insert(self.name(&name)) {
                return Err(A::Error::custom(AMBIGUOUS));
            }
            let value = map.next_value_seed(self.inner()?)?;
            members.insert(name, value);
        }
        Ok(Value::Object(members))
    }
}

/// The members of these names in the outermost object, when none is there twice. Nobody looks into the others.
pub(crate) fn members(document: &[u8], names: &[&str]) -> Option<serde_json::Map<String, Value>> {
    struct Named<'n>(&'n [&'n str]);
    impl<'de> serde::de::Visitor<'de> for Named<'_> {
        type Value = serde_json::Map<String, Value>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = serde_json::Map::new();
            while let Some(name) = map.next_key::<String>()? {
                if !self.0.contains(&name.as_str()) {
                    map.next_value::<serde::de::IgnoredAny>()?;
                } else if members.insert(name, map.next_value()?).is_some() {
                    return Err(serde::de::Error::custom("twice"));
                }
            }
            Ok(members)
        }
    }
    let mut deserializer = serde_json::Deserializer::from_slice(document);
    let members = serde::Deserializer::deserialize_any(&mut deserializer, Named(names)).ok()?;
    deserializer.end().ok().map(|()| members)
}

/// Whether the outermost object names each of these at most once, and none of them in another case.
pub(crate) fn each_once(document: &[u8], names: &[&str]) -> bool {
    struct Once<'n>(&'n [&'n str]);
    impl<'de> Visitor<'de> for Once<'_> {
        type Value = bool;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
            let mut seen = std::collections::BTreeSet::new();
            let mut once = true;
            while let Some(name) = map.next_key::<String>()? {
                if let Some(known) = self.0.iter().find(|known| known.eq_ignore_ascii_case(&name)) {
                    once &= *known == name && seen.insert(*known);
                }
                map.next_value::<serde::de::IgnoredAny>()?;
            }
            Ok(once)
        }
    }
    serde_json::Deserializer::from_slice(document).deserialize_any(Once(names)).unwrap_or(false)
}
