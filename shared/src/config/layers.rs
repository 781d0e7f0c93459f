//! Lays one source of settings over another: a key and its text into a table, read as what stands there by default.

use super::Config;

/// `AIRCHECK_WORKER__JOURNAL__PREROLL` to `[worker, journal, preroll]`. Without two underscores it is no setting (`AIRCHECK_SERVER` is the client's).
pub(super) fn env_path(name: &str) -> Option<Vec<String>> {
    let rest = name.strip_prefix("AIRCHECK_")?;
    if let "JOIN_TOKEN" | "API_TOKEN" = rest {
        return Some(vec!["auth".to_owned(), rest.to_ascii_lowercase()]);
    }
    rest.contains("__")
        .then(|| rest.split("__").map(str::to_ascii_lowercase).collect())
}

/// Sets `path` in `merged` to `text`, read as the type that the default at the same place has, and checks that it fits there.
pub(super) fn lay(merged: &mut toml::Table, shape: &toml::Table, path: &[String], text: &str) -> Result<(), String> {
    // Places have the names that somebody gave them, and settings of the types that those of `objects` have.
    let value = match path {
        [objects, places, _, key] if objects == "objects" && places == "places" => {
            typed(lookup(shape, &[objects.clone(), key.clone()]), text)?
        }
        path => typed(lookup(shape, path), text)?,
    };
    // By itself first, so that the error is about this one and nothing else.
    let mut alone = toml::Table::new();
    put(&mut alone, path, value.clone())?;
    alone.try_into::<Config>().map_err(|error| error.message().to_owned())?;
    put(merged, path, value)
}

fn lookup<'a>(table: &'a toml::Table, path: &[String]) -> Option<&'a toml::Value> {
    let (first, rest) = path.split_first()?;
    let value = table.get(first)?;
    if rest.is_empty() {
        Some(value)
    } else {
        lookup(value.as_table()?, rest)
    }
}

fn typed(default: Option<&toml::Value>, text: &str) -> Result<toml::Value, String> {
    use toml::Value;
    match default {
        Some(Value::Integer(_)) => text
            .parse()
            .map(Value::Integer)
            .map_err(|_| format!("{text:?} is not a whole number")),
        Some(Value::Boolean(_)) => match text {
            "true" | "1" | "yes" | "on" => Ok(Value::Boolean(true)),
            "false" | "0" | "no" | "off" | "" => Ok(Value::Boolean(false)),
            _ => Err(format!("{text:?} is neither true nor false")),
        },
        Some(Value::Array(_)) => Ok(Value::Array(
            text.split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(|item| Value::String(item.to_owned()))
                .collect(),
        )),
        Some(Value::Table(_)) => Err("this is a section, not a setting".to_owned()),
        // Absent defaults are optional texts; unknown keys are refused by the shape itself.
        _ => Ok(Value::String(text.to_owned())),
    }
}

fn put(table: &mut toml::Table, path: &[String], value: toml::Value) -> Result<(), String> {
    let Some((first, rest)) = path.split_first() else {
        return Err("a setting has a section and a key".to_owned());
    };
    if rest.is_empty() {
        table.insert(first.clone(), value);
        return Ok(());
    }
    match table
        .entry(first.clone())
        .or_insert_with(|| toml::Value::Table(toml::Table::new()))
    {
        toml::Value::Table(inner) => put(inner, rest, value),
        _ => Err(format!("{first} is not a section")),
    }
}
