//! Where settings come from: the default file, a file, the environment; later ones win.

use std::collections::BTreeMap;

use toml::{Table, Value};

use crate::domain::Fault;

/// The default file, which names every key there is.
pub(super) const DEFAULTS: &str = include_str!("../../config.toml");
/// What the name of a variable that overrides a key begins with.
const PREFIX: &str = "TALLYBOX_";
/// Bytes of the original's "GB".
const GIB: f64 = 1_073_741_824.0;
/// The keys of a tier.
pub(super) const TIER_KEYS: [&str; 3] = ["llm_tokens_day", "memory_storage_bytes", "agent_minutes_month"];

/// The environment, read once.
#[derive(Clone, Debug, Default)]
pub struct Environment(pub BTreeMap<String, String>);

impl Environment {
    /// That of this process. Names and values that are not UTF-8 are none of ours.
    pub fn of_process() -> Self {
        let pairs = std::env::vars_os();
        Self(pairs.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect())
    }

    /// The value of a variable, where it is set and not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// The settings that hold, as one table with every key.
pub(super) fn merge(file: Option<&str>, environment: &Environment, faults: &mut Vec<Fault>) -> Table {
    let mut table: Table = DEFAULTS.parse().unwrap_or_default();
    if let Some(text) = file {
        match text.parse::<Table>() {
            Ok(settings) => merge_table(&mut table, settings, "", faults),
            Err(error) => faults.push(Fault::new("config file", error.to_string().trim_end())),
        }
    }
    merge_original(&mut table, environment, faults);
    merge_environment(&mut table, environment, faults);
    table
}

fn merge_table(into: &mut Table, from: Table, path: &str, faults: &mut Vec<Fault>) {
    for (key, value) in from {
        let here = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match (into.get_mut(&key), value) {
            (Some(Value::Table(inner)), Value::Table(table)) => merge_table(inner, table, &here, faults),
            (Some(Value::Table(_)), _) => faults.push(Fault::new(here, "must be a section")),
            (Some(known), value) => *known = value,
            (None, value) if ["tiers", "gateway.aliases"].contains(&path) => {
                into.insert(key, value);
            }
            (None, _) => faults.push(Fault::new(here, "unknown key")),
        }
    }
}

/// The variables of the original system: tokens a day, and gigabytes (1024^3 bytes, decimals allowed).
fn merge_original(table: &mut Table, environment: &Environment, faults: &mut Vec<Fault>) {
    for (word, tier) in [("FREE", "free_trial"), ("BASIC", "basic"), ("PRO", "pro")] {
        let tokens = format!("{word}_TIER_TOKENS_DAY");
        if let Some(text) = environment.get(&tokens) {
            match text.trim().parse::<i64>() {
                Ok(number) => set_limit(table, tier, "llm_tokens_day", number),
                Err(_) => faults.push(Fault::new(tokens, "must be a whole number, -1 for unlimited")),
            }
        }
        let storage = format!("{word}_TIER_MEMORY_GB");
        if let Some(text) = environment.get(&storage) {
            match text.trim().parse::<f64>() {
                Ok(-1.0) => set_limit(table, tier, "memory_storage_bytes", -1),
                Ok(number) if (0.0..=8.0e9).contains(&number) => {
                    #[expect(clippy::cast_possible_truncation, reason = "at most 2^63, checked in the guard")]
                    let bytes = (number * GIB).round() as i64;
                    set_limit(table, tier, "memory_storage_bytes", bytes);
                }
                _ => faults.push(Fault::new(storage, "must be a number of gigabytes of at least 0, -1 for unlimited")),
            }
        }
    }
}

fn set_limit(table: &mut Table, tier: &str, key: &str, number: i64) {
    if let Some(Value::Table(limits)) = table.get_mut("tiers").and_then(|tiers| tiers.get_mut(tier)) {
        limits.insert(key.to_owned(), Value::Integer(number));
    }
}

/// `TALLYBOX_<SECTION>__<KEY>`: only names with `__` are keys, any other name is none of ours.
fn merge_environment(table: &mut Table, environment: &Environment, faults: &mut Vec<Fault>) {
    for (name, text) in &environment.0 {
        let Some(path) = name.strip_prefix(PREFIX).filter(|rest| rest.contains("__")) else { continue };
        match place(table, &path.to_lowercase()) {
            Some(value) => match parse_like(value, text) {
                Ok(parsed) => *value = parsed,
                Err(message) => faults.push(Fault::new(name.clone(), message)),
            },
            None => faults.push(Fault::new(name.clone(), "unknown key")),
        }
    }
}

/// The value that a variable stands for, by its name in lower case. What the file names in its own way, a tier or an alias,
/// is found however its letters are cased.
fn place<'t>(table: &'t mut Table, path: &str) -> Option<&'t mut Value> {
    let (section, rest) = path.split_once("__")?;
    let keys = table.get_mut(section)?.as_table_mut()?;
    if section == "tiers" {
        // A tier's own name may hold `__` too, where the file has it.
        let (tier, key) = rest.rsplit_once("__").filter(|(_, key)| TIER_KEYS.contains(key))?;
        let tier = match own_name(keys, tier) {
            Some(name) => name,
            None if tier.contains("__") => return None,
            None => tier.to_owned(),
        };
        let limits = keys.entry(tier).or_insert_with(|| Value::Table(Table::new()));
        return Some(limits.as_table_mut()?.entry(key).or_insert(Value::Integer(0)));
    }
    if let Some(alias) = rest.strip_prefix("aliases__").filter(|_| section == "gateway") {
        let aliases = keys.get_mut("aliases")?.as_table_mut()?;
        let name = own_name(aliases, alias)?;
        return aliases.get_mut(&name);
    }
    keys.get_mut(rest)
}

/// How `keys` spell a name: as it is, or with letters of other cases.
fn own_name(keys: &Table, name: &str) -> Option<String> {
    let same = keys.keys().find(|key| *key == name).or_else(|| keys.keys().find(|key| key.to_lowercase() == name));
    same.cloned()
}

/// Reads a variable's text as the kind of value that the default has.
fn parse_like(default: &Value, text: &str) -> Result<Value, String> {
    match default {
        Value::Integer(_) => text.trim().parse().map(Value::Integer).map_err(|_| "must be a whole number".to_owned()),
        Value::Boolean(_) => text.trim().parse().map(Value::Boolean).map_err(|_| "must be true or false".to_owned()),
        Value::Array(_) if text.trim_start().starts_with('[') => {
            let line = format!("list = {text}");
            let mut table: Table = line.parse().map_err(|_| "must be a list".to_owned())?;
            table.remove("list").ok_or_else(|| "must be a list".to_owned())
        }
        Value::Array(_) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Ok(Value::Array(items.map(|item| Value::String(item.to_owned())).collect()))
        }
        Value::Table(_) => Err("is a section: name its keys one by one".to_owned()),
        _ => Ok(Value::String(text.to_owned())),
    }
}
