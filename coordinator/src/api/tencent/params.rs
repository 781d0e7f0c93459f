//! [`Fields`]: a request's parameters, read one by one by name and kind. Pure.
//!
//! Parameters come as JSON, or as flat text in which names are joined by dots and lists are numbered from 0
//! (`Mp4Param.Enable=1`, `FileIds.0=…`). Both are read by the same words; only in text are numbers and truths read from
//! words. What nobody asked for by name is refused by [`Fields::finish`], so that no parameter is dropped silently.

use std::{collections::BTreeMap, ops::RangeInclusive};

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use super::{error::ApiError, signature::v1::Flat};

/// Most parameters of one request.
const MAX_PARAMETERS: usize = 2_000;
/// Most blocks within blocks.
const MAX_DEPTH: usize = 8;

/// Parameters of a request, or of a block within it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fields {
    /// Name of the block with a dot at its end; empty for the request.
    within: String,
    map: Map<String, Value>,
    /// Numbers and truths are written as text.
    text: bool,
}

/// Reads `name=value` pairs joined by `&`, percent-encoded, with `+` for a space.
///
/// # Errors
/// `InvalidParameter`: no UTF-8, a name twice, too many.
pub(crate) fn decode_form(form: &str) -> Result<Flat, ApiError> {
    let mut all = BTreeMap::new();
    for pair in form.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decode(name)?, decode(value)?);
        if all.len() == MAX_PARAMETERS {
            return Err(ApiError::invalid(format!(
                "there are more than {MAX_PARAMETERS} parameters"
            )));
        }
        if let Some(name) = all.contains_key(&name).then(|| name.clone()) {
            return Err(ApiError::invalid(format!("parameter {name} is there twice")));
        }
        all.insert(name, value);
    }
    Ok(all)
}

fn decode(text: &str) -> Result<String, ApiError> {
    percent_decode_str(&text.replace('+', " "))
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| ApiError::invalid("a parameter is not UTF-8"))
}

/// Puts one dotted name into the tree.
fn plant(map: &mut Map<String, Value>, name: &str, value: String) -> Result<(), ApiError> {
    let clash = || ApiError::invalid(format!("parameter {name} is a value and a block at once"));
    let mut at = map;
    let mut parts = name.split('.').peekable();
    let mut depth = 0;
    while let Some(part) = parts.next() {
        depth += 1;
        if part.is_empty() || depth > MAX_DEPTH {
            return Err(ApiError::invalid(format!(
                "parameter name {name:?} is not of at most {MAX_DEPTH} names joined by dots"
            )));
        }
        if parts.peek().is_none() {
            return match at.insert(part.to_owned(), Value::String(value)) {
                None => Ok(()),
                Some(_) => Err(clash()),
            };
        }
        at = at
            .entry(part)
            .or_insert_with(|| Value::Object(Map::new()))
            .as_object_mut()
            .ok_or_else(clash)?;
    }
    Err(clash())
}

impl Fields {
    /// From flat text.
    ///
    /// # Errors
    /// `InvalidParameter`: names that do not fit together.
    pub(crate) fn from_flat(all: &Flat) -> Result<Self, ApiError> {
        let mut map = Map::new();
        for (name, value) in all {
            plant(&mut map, name, value.clone())?;
        }
        Ok(Fields {
            within: String::new(),
            map,
            text: true,
        })
    }

    /// From a JSON object; an empty body is an empty one.
    ///
    /// # Errors
    /// `InvalidParameter`: not one JSON object.
    pub(crate) fn from_json(body: &[u8]) -> Result<Self, ApiError> {
        let map = if body.is_empty() {
            Map::new()
        } else {
            serde_json::from_slice(body)
                .map_err(|error| ApiError::invalid(format!("the body is not a JSON object: {error}")))?
        };
        Ok(Fields {
            within: String::new(),
            map,
            text: false,
        })
    }

    fn name(&self, name: &str) -> String {
        format!("{}{name}", self.within)
    }

    /// `null` counts as absent.
    fn take(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name).filter(|value| !value.is_null())
    }

    fn wrong(&self, name: &str, kind: &str) -> ApiError {
        ApiError::invalid(format!("{} is not {kind}", self.name(name)))
    }

    /// Text.
    pub(crate) fn text(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(name, "text")),
        }
    }

    /// Text that must be there and not empty.
    pub(crate) fn required(&mut self, name: &str) -> Result<String, ApiError> {
        match self.text(name)? {
            Some(text) if !text.is_empty() => Ok(text),
            _ => Err(ApiError::missing(self.name(name))),
        }
    }

    /// A whole number within `range`.
    pub(crate) fn int(&mut self, name: &str, range: RangeInclusive<i64>) -> Result<Option<i64>, ApiError> {
        let number = match self.take(name) {
            None => return Ok(None),
            Some(Value::Number(number)) => number.as_i64(),
            Some(Value::String(text)) if self.text => text.parse().ok(),
            Some(_) => None,
        };
        let number = number.ok_or_else(|| self.wrong(name, "a whole number"))?;
        if !range.contains(&number) {
            return Err(ApiError::value(
                self.name(name),
                format!("is {number}, it must be {} to {}", range.start(), range.end()),
            ));
        }
        Ok(Some(number))
    }

    /// A number.
    pub(crate) fn number(&mut self, name: &str) -> Result<Option<f64>, ApiError> {
        let number = match self.take(name) {
            None => return Ok(None),
            Some(Value::Number(number)) => number.as_f64(),
            Some(Value::String(text)) if self.text => text.parse().ok(),
            Some(_) => None,
        };
        let number = number.filter(|number: &f64| number.is_finite());
        number.map(Some).ok_or_else(|| self.wrong(name, "a number"))
    }

    /// A whole number within `range` that must be there.
    pub(crate) fn required_int(&mut self, name: &str, range: RangeInclusive<i64>) -> Result<i64, ApiError> {
        self.int(name, range)?.ok_or_else(|| ApiError::missing(self.name(name)))
    }

    /// 0 or 1.
    pub(crate) fn switch(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        Ok(self.int(name, 0..=1)?.map(|number| number == 1))
    }

    /// True or false; in text also with a capital.
    pub(crate) fn truth(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(truth)) => Ok(Some(truth)),
            Some(Value::String(text)) if self.text && text.eq_ignore_ascii_case("true") => Ok(Some(true)),
            Some(Value::String(text)) if self.text && text.eq_ignore_ascii_case("false") => Ok(Some(false)),
            Some(_) => Err(self.wrong(name, "true or false")),
        }
    }

    /// A block.
    pub(crate) fn block(&mut self, name: &str) -> Result<Option<Fields>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(self.inner(name, map))),
            Some(_) => Err(self.wrong(name, "a block of parameters")),
        }
    }

    fn inner(&self, name: &str, map: Map<String, Value>) -> Fields {
        Fields {
            within: format!("{}.", self.name(name)),
            map,
            text: self.text,
        }
    }

    /// The members of a list, each as a block with the one field of its number; empty when absent.
    fn members(&mut self, name: &str, most: usize) -> Result<Vec<Value>, ApiError> {
        let members = match self.take(name) {
            None => Vec::new(),
            Some(Value::Array(members)) => members,
            Some(Value::Object(mut map)) if self.text => {
                let numbered = (0..map.len()).map_while(|index| map.remove(&index.to_string()));
                let members: Vec<Value> = numbered.collect();
                if !map.is_empty() {
                    return Err(self.wrong(name, "a list numbered from 0 without holes"));
                }
                members
            }
            Some(_) => return Err(self.wrong(name, "a list")),
        };
        if members.len() > most {
            return Err(ApiError::value(
                self.name(name),
                format!("has {} members, at most {most} are allowed", members.len()),
            ));
        }
        Ok(members)
    }

    /// A list of texts, each of at most `longest` characters; empty when absent.
    pub(crate) fn texts(&mut self, name: &str, most: usize, longest: usize) -> Result<Vec<String>, ApiError> {
        let mut out = Vec::new();
        for member in self.members(name, most)? {
            match member {
                Value::String(text) if text.chars().count() <= longest => out.push(text),
                Value::String(_) => {
                    let problem = format!("has a member of more than {longest} characters");
                    return Err(ApiError::value(self.name(name), problem));
                }
                _ => return Err(self.wrong(name, "a list of texts")),
            }
        }
        Ok(out)
    }

    /// A list of blocks; empty when absent.
    pub(crate) fn blocks(&mut self, name: &str, most: usize) -> Result<Vec<Fields>, ApiError> {
        let members = self.members(name, most)?;
        let mut out = Vec::new();
        for (index, member) in members.into_iter().enumerate() {
            match member {
                Value::Object(map) => out.push(self.inner(&format!("{name}.{index}"), map)),
                _ => return Err(self.wrong(name, "a list of blocks")),
            }
        }
        Ok(out)
    }

    /// Takes what is documented and has no effect here.
    pub(crate) fn without_effect(&mut self, names: &[&str]) {
        for name in names {
            self.map.remove(*name);
        }
    }

    /// Refuses what is documented and cannot be done here, if it is there and says more than nothing.
    pub(crate) fn refuse(&mut self, names: &[&str]) -> Result<(), ApiError> {
        for name in names {
            let says_nothing = match self.take(name) {
                None => true,
                Some(Value::String(text)) => text.is_empty() || (self.text && text == "0"),
                Some(Value::Number(number)) => number.as_i64() == Some(0),
                Some(Value::Bool(truth)) => !truth,
                Some(Value::Array(members)) => members.is_empty(),
                Some(Value::Object(map)) => map.is_empty(),
                Some(Value::Null) => true,
            };
            if !says_nothing {
                return Err(ApiError::unsupported(format!(
                    "{} is not supported by this server",
                    self.name(name)
                )));
            }
        }
        Ok(())
    }

    /// Nothing else may be left.
    ///
    /// # Errors
    /// `UnknownParameter`, with its name.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        match self.map.keys().next() {
            None => Ok(()),
            Some(name) => Err(ApiError::new(
                "UnknownParameter",
                format!("{} is not a parameter of this action", self.name(name)),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn flat(form: &str) -> Fields {
        Fields::from_flat(&decode_form(form).unwrap()).unwrap()
    }

    fn json(body: &str) -> Fields {
        Fields::from_json(body.as_bytes()).unwrap()
    }

    #[test]
    fn text_and_json_are_read_alike() {
        for mut fields in [
            flat("Mp4Param.Enable=1&Mp4Param.RecordInterval=3600&Ids.0=a&Ids.1=b+c&On=True&Name=%ED%95%9C"),
            json(
                r#"{"Mp4Param": {"Enable": 1, "RecordInterval": 3600}, "Ids": ["a", "b c"], "On": true, "Name": "한"}"#,
            ),
        ] {
            let mut block = fields.block("Mp4Param").unwrap().unwrap();
            assert_eq!(block.switch("Enable").unwrap(), Some(true));
            assert_eq!(block.int("RecordInterval", 0..=9_999).unwrap(), Some(3_600));
            block.finish().unwrap();
            assert_eq!(fields.texts("Ids", 2, 3).unwrap(), ["a", "b c"]);
            assert_eq!(fields.truth("On").unwrap(), Some(true));
            assert_eq!(fields.required("Name").unwrap(), "한");
            assert_eq!(fields.text("Absent").unwrap(), None);
            fields.finish().unwrap();
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let code = |result: Result<(), ApiError>| {
            let error = result.unwrap_err();
            (error.code().to_owned(), error.message().to_owned())
        };
        let fields = || json(r#"{"N": "1", "B": {"X": 2}, "L": ["a", 1]}"#);
        assert_eq!(
            code(fields().int("N", 0..=9).map(drop)),
            ("InvalidParameter".to_owned(), "N is not a whole number".to_owned())
        );
        let mut block = fields().block("B").unwrap().unwrap();
        assert_eq!(
            code(block.int("X", 0..=1).map(drop)),
            (
                "InvalidParameterValue".to_owned(),
                "B.X is 2, it must be 0 to 1".to_owned()
            )
        );
        assert_eq!(
            code(block.required("Y").map(drop)),
            ("MissingParameter".to_owned(), "B.Y is missing".to_owned())
        );
        assert_eq!(code(fields().texts("L", 9, 9).map(drop)).0, "InvalidParameter");
        assert_eq!(code(fields().finish()).0, "UnknownParameter");
        assert_eq!(
            code(flat("A.1=x&A.0=y&A.3=z").texts("A", 9, 9).map(drop)).0,
            "InvalidParameter"
        );
        assert_eq!(
            code(flat("A.0=abc").texts("A", 9, 2).map(drop)).0,
            "InvalidParameterValue"
        );
        assert_eq!(
            code(flat("A.0=a&A.1=b").texts("A", 1, 9).map(drop)).0,
            "InvalidParameterValue"
        );
        assert_eq!(
            flat("A.0=a&A.1=b&A.10=k&A.2=c&A.3=&A.4=&A.5=&A.6=&A.7=&A.8=&A.9=j")
                .texts("A", 11, 1)
                .unwrap()[10],
            "k"
        );
        for form in ["a=1&a=2", "a=%FF"] {
            assert_eq!(decode_form(form).unwrap_err().code(), "InvalidParameter", "{form}");
        }
        for form in ["a=1&a.b=2", "a..b=1", ".=1", "a.b.c.d.e.f.g.h.i=1"] {
            let all = decode_form(form).unwrap();
            assert_eq!(
                Fields::from_flat(&all).unwrap_err().code(),
                "InvalidParameter",
                "{form}"
            );
        }
        for body in ["[]", "{", "1", "{} {}"] {
            assert_eq!(
                Fields::from_json(body.as_bytes()).unwrap_err().code(),
                "InvalidParameter",
                "{body}"
            );
        }
    }

    #[test]
    fn what_cannot_be_done_is_refused_unless_it_says_nothing() {
        for legal in [
            r#"{}"#,
            r#"{"A": 0}"#,
            r#"{"A": ""}"#,
            r#"{"A": false}"#,
            r#"{"A": []}"#,
            r#"{"A": null}"#,
        ] {
            json(legal).refuse(&["A"]).unwrap();
        }
        flat("A=0").refuse(&["A"]).unwrap();
        for bad in [
            r#"{"A": 1}"#,
            r#"{"A": "x"}"#,
            r#"{"A": true}"#,
            r#"{"A": [1]}"#,
            r#"{"A": {"B": 1}}"#,
        ] {
            assert_eq!(json(bad).refuse(&["A"]).unwrap_err().code(), "UnsupportedOperation");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(form in "\\PC{0,200}", body in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(all) = decode_form(&form) {
                let _ = Fields::from_flat(&all);
            }
            let _ = Fields::from_json(&body);
        }

        #[test]
        fn dotted_names_come_out_where_they_say(names in prop::collection::btree_set("[a-c](\\.[a-c]){0,3}", 1..6)) {
            let all: Flat = names.iter().map(|name| (name.clone(), name.clone())).collect();
            if let Ok(mut fields) = Fields::from_flat(&all) {
                for name in &names {
                    let (last, blocks) = { let mut parts: Vec<&str> = name.split('.').collect(); (parts.pop().unwrap(), parts) };
                    let mut at = fields.clone();
                    for block in blocks {
                        at = at.block(block).unwrap().unwrap();
                    }
                    prop_assert_eq!(at.text(last).unwrap().unwrap(), name.clone());
                }
                fields.without_effect(&["a", "b", "c"]);
                fields.finish().unwrap();
            }
        }
    }
}
