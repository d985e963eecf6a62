//! `[gateway]`: who serves which models, and what a call may hold.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use toml::{Table, Value};

use super::read_secret_file;
use super::source::Environment;
use super::values::Values;
use crate::domain::Fault;
use crate::domain::gateway::OutputBounds;
use crate::domain::gateway::estimate::PartBounds;
use crate::domain::gateway::route::{Glob, Routes};

/// A secret, which no log shows.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    pub(super) const fn new(secret: String) -> Self {
        Self(secret)
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("********")
    }
}

/// `[gateway]`
#[derive(Clone, Debug)]
pub struct Gateway {
    /// Those that serve models, in the order in which they are tried.
    pub upstreams: Vec<Upstream>,
    /// Which of them serves what, by the same order.
    pub routes: Routes,
    /// Whether calls may name state that an upstream keeps.
    pub stateful: bool,
    /// Tokens of answers.
    pub output: OutputBounds,
    /// Tokens of parts that are no text.
    pub parts: PartBounds,
    /// Largest answer that is no stream, and largest event of one, in bytes.
    pub answer_bytes_max: usize,
    /// Longest wait for a place at an upstream, in milliseconds.
    pub place_timeout_ms: i64,
}

/// `[[gateway.upstreams]]`
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Its name in entries and logs.
    pub name: String,
    /// Where its API begins, without a slash at the end.
    pub base_url: String,
    /// Its key.
    pub api_key: Option<Secret>,
    /// Authorities whose certificates it may show, beside those that everyone trusts.
    pub authorities: Vec<CertificateDer<'static>>,
    /// Longest silence, in milliseconds.
    pub timeout_ms: i64,
    /// Calls at once.
    pub max_concurrent: usize,
}

/// Keys of an upstream.
const KEYS: [&str; 9] =
    ["name", "base_url", "api_key", "api_key_file", "api_key_env", "ca_file", "models", "timeout", "max_concurrent"];
/// What an upstream has that does not say otherwise.
const TIMEOUT_MS: i64 = 120_000;
const CONCURRENT: i64 = 256;

pub(super) fn gateway(table: &Table, environment: &Environment, faults: &RefCell<Vec<Fault>>) -> Gateway {
    let values = Values { table, section: "gateway", faults };
    let tokens = |key: &str| values.integer(key, 1..=10_000_000_i64);
    let mut upstreams = Vec::new();
    let mut globs = Vec::new();
    let listed = table.get("gateway").and_then(|section| section.get("upstreams"));
    match listed.map(|listed| listed.as_array().map(|items| (items, items.iter().all(Value::is_table)))) {
        Some(Some((items, true))) => {
            for (index, item) in items.iter().filter_map(Value::as_table).enumerate() {
                let (upstream, models) = upstream(item, index, environment, faults);
                upstreams.push(upstream);
                globs.push(models);
            }
        }
        _ => values.fault("upstreams", "must be a list of [[gateway.upstreams]]"),
    }
    let mut names = BTreeSet::new();
    for (index, upstream) in upstreams.iter().enumerate().filter(|(_, upstream)| !upstream.name.is_empty()) {
        if !names.insert(upstream.name.as_str()) {
            values.fault(&format!("upstreams[{index}].name"), "must not be another one's");
        }
    }
    Gateway {
        upstreams,
        routes: Routes { upstreams: globs, aliases: aliases(&values, table) },
        stateful: values.flag("stateful"),
        output: OutputBounds { default: tokens("output_tokens_default"), min: tokens("output_tokens_min") },
        parts: PartBounds { image: tokens("image_tokens_max"), audio: tokens("audio_tokens_max") },
        answer_bytes_max: values.integer("answer_bytes_max", 65_536..=1_073_741_824),
        place_timeout_ms: values.time("place_timeout"),
    }
}

fn aliases(values: &Values<'_>, table: &Table) -> BTreeMap<String, String> {
    let named = table.get("gateway").and_then(|section| section.get("aliases")).and_then(Value::as_table);
    let mut aliases = BTreeMap::new();
    for (alias, model) in named.into_iter().flatten() {
        match model.as_str().filter(|model| !model.is_empty()) {
            Some(model) => drop(aliases.insert(alias.clone(), model.to_owned())),
            None => values.fault(&format!("aliases.{alias}"), "must be the name of a model"),
        }
    }
    aliases
}

fn upstream(
    item: &Table,
    index: usize,
    environment: &Environment,
    faults: &RefCell<Vec<Fault>>,
) -> (Upstream, Vec<Glob>) {
    let fault = |key: &str, message: &str| {
        faults.borrow_mut().push(Fault::new(format!("gateway.upstreams[{index}].{key}"), message));
    };
    for key in item.keys().filter(|key| !KEYS.contains(&key.as_str())) {
        fault(key, "unknown key");
    }
    // Read like a section whose defaults are these.
    let mut read = Table::new();
    for (key, default) in [
        ("name", Value::from("")),
        ("base_url", Value::from("")),
        ("ca_file", Value::from("")),
        ("models", Value::Array(Vec::new())),
        ("timeout", Value::Integer(TIMEOUT_MS / 1_000)),
        ("max_concurrent", Value::Integer(CONCURRENT)),
    ] {
        read.insert(key.to_owned(), item.get(key).cloned().unwrap_or(default));
    }
    let section = format!("gateway.upstreams[{index}]");
    let table = Table::from_iter([(section.clone(), Value::Table(read))]);
    let values = Values { table: &table, section: &section, faults };
    let name = values.text("name");
    if name.is_empty() || name.chars().count() > 64 || name.chars().any(char::is_control) {
        fault("name", "must have 1 to 64 characters");
    }
    let base_url = values.text("base_url").trim_end_matches('/').to_owned();
    if !is_address(&base_url) {
        fault("base_url", "must be an address such as https://api.openai.com/v1");
    }
    let models: Vec<Glob> = values.list("models", "a model's name, in which * stands for anything");
    if item.get("models").is_none_or(|models| models.as_array().is_some_and(Vec::is_empty)) {
        fault("models", "must name at least one model, such as \"gpt-*\"");
    }
    let upstream = Upstream {
        name,
        base_url,
        api_key: api_key(item, environment, &fault),
        authorities: authorities(values.text("ca_file").as_str()).unwrap_or_else(|message| {
            fault("ca_file", &message);
            Vec::new()
        }),
        timeout_ms: values.time("timeout"),
        max_concurrent: values.integer("max_concurrent", 1..=100_000),
    };
    (upstream, models)
}

/// Whether programs can be asked there: without a user or a password, which would be shown with the address, and a query.
pub(super) fn is_address(url: &str) -> bool {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(['@', '?', '#', ' ']))
        && reqwest::Url::parse(url).is_ok()
}

/// The certificates of a PEM file, each of which may vouch for others.
fn authorities(path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    if path.is_empty() {
        return Ok(Vec::new());
    }
    let text = std::fs::read(path).map_err(|error| format!("{path} cannot be read: {error}"))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let certificates = certificates.map_err(|error| format!("{path} is no PEM file: {error}"))?;
    if certificates.is_empty() {
        return Err(format!("{path} must hold at least one certificate, in PEM"));
    }
    let mut roots = RootCertStore::empty();
    for certificate in &certificates {
        roots.add(certificate.clone()).map_err(|error| format!("{path} holds what is no certificate: {error}"))?;
    }
    Ok(certificates)
}

/// The key itself, or where it is: at most one of the three.
fn api_key(item: &Table, environment: &Environment, fault: &impl Fn(&str, &str)) -> Option<Secret> {
    let mut given = Vec::new();
    for key in ["api_key", "api_key_file", "api_key_env"] {
        match item.get(key) {
            None => {}
            Some(Value::String(text)) if text.is_empty() => {}
            Some(Value::String(text)) => given.push((key, text.as_str())),
            Some(_) => fault(key, "must be a text"),
        }
    }
    let secret = match given.as_slice() {
        [] => return None,
        [("api_key", secret)] => Ok((*secret).to_owned()),
        [("api_key_file", path)] => read_secret_file(path),
        [(_, name)] => environment.get(name).map(str::to_owned).ok_or_else(|| format!("{name} is not set")),
        [_, (key, _), ..] => {
            fault(key, "must not be set together with another one of api_key, api_key_file and api_key_env");
            return None;
        }
    };
    let (key, _) = given.first()?;
    match secret {
        Ok(secret) if secret.bytes().all(|byte| byte.is_ascii_graphic()) => Some(Secret(secret)),
        Ok(_) => {
            fault(key, "must be visible ASCII characters");
            None
        }
        Err(message) => {
            fault(key, &message);
            None
        }
    }
}
