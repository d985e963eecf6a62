//! The settings: one struct a section; file < environment < flags.
//!
//! Reading never stops at the first fault: [`Config::load`] reports every unknown key, wrong type and broken bound at once.

mod gateway;
mod operations;
mod source;
mod values;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;
use toml::{Table, Value};

use crate::domain::Fault;
use crate::domain::calendar::Calendar;
use crate::domain::memory::OnDuplicate;
use crate::domain::quota::{Limit, Limits, Tiers};
use crate::store::StoreOptions;
pub use gateway::{Gateway, Secret, Upstream};
pub use operations::{Backup, Log, Metrics, MetricsAccess};
pub use source::Environment;
use values::Values;

/// Every setting, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// How the box listens.
    pub server: Server,
    /// Who is believed.
    pub auth: Auth,
    /// The calendar that usage is counted in.
    pub calendar: Calendar,
    /// Limits by tier.
    pub tiers: Tiers,
    /// Bounds and lives of memories.
    pub memory: Memory,
    /// Who makes embeddings.
    pub embedding: Embedding,
    /// Who serves models, and what a call may hold.
    pub gateway: Gateway,
    /// Where the dashboard's upgrade prompt leads.
    pub upgrade_url: String,
    /// An agent run without a heartbeat for so long is closed at its last sign of life, in milliseconds.
    pub heartbeat_timeout_ms: i64,
    /// Backups that are made by themselves.
    pub backup: Backup,
    /// Days after which a day's entries give way to one that stands for them.
    pub ledger_keep_days: Option<i32>,
    /// Days after which acts leave the audit log.
    pub audit_keep_days: Option<i64>,
    /// Who may read the metrics.
    pub metrics: Metrics,
    /// Logs.
    pub log: Log,
    /// Sizes of the store.
    pub store: StoreOptions,
    merged: Merged,
}

/// The settings as one table, which may hold secrets.
#[derive(Clone)]
struct Merged(Table);

impl std::fmt::Debug for Merged {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Merged(..)")
    }
}

/// `[server]`
#[derive(Clone, Debug)]
pub struct Server {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// Base of links, without a slash at the end.
    pub public_url: Option<String>,
    /// Proxies whose X-Forwarded-* count.
    pub trusted_proxies: Networks,
    /// Origins that may call the JSON API.
    pub cors_origins: Vec<String>,
    /// Largest body, in bytes.
    pub body_bytes_max: usize,
    /// Longest request, in milliseconds.
    pub request_timeout_ms: i64,
    /// Longest wait for a request's head, in milliseconds.
    pub header_timeout_ms: i64,
    /// Connections at once.
    pub connections_max: u32,
    /// Longest drain, in milliseconds.
    pub drain_timeout_ms: i64,
    /// Whether a container without a volume is refused.
    pub require_volume: bool,
    /// Room on the disk below which the box says that it is not ready, in bytes.
    pub disk_free_bytes_min: u64,
}

impl Server {
    /// Longest wait for a request's head.
    pub fn header_timeout(&self) -> Duration {
        Duration::from_millis(self.header_timeout_ms.unsigned_abs())
    }

    /// Longest request.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms.unsigned_abs())
    }
}

/// `[auth]`
#[derive(Clone, Debug)]
pub struct Auth {
    /// Proxies that name users by header.
    pub identity_proxies: Networks,
    /// Create users that a trusted caller names.
    pub auto_provision: bool,
    /// The tier of a user for whom none is named.
    pub default_tier: String,
    /// Password checks that may wait.
    pub password_queue: usize,
}

/// `[memory]`
#[derive(Clone, Debug)]
pub struct Memory {
    /// Longest text, in bytes.
    pub text_bytes_max: usize,
    /// Bound of a user's short-term memories, in bytes.
    pub stm_bytes_max: i64,
    /// Life of short-term memories, in milliseconds; none: for ever.
    pub stm_ttl_ms: Option<i64>,
    /// Life of intermediate-term memories.
    pub itm_ttl_ms: Option<i64>,
    /// Life of long-term memories.
    pub ltm_ttl_ms: Option<i64>,
    /// What happens to a repetition.
    pub on_duplicate: OnDuplicate,
    /// Largest body of an import, in bytes.
    pub import_bytes_max: usize,
}

/// `[embedding]`
#[derive(Clone, Debug)]
pub struct Embedding {
    /// Who makes them.
    pub provider: Provider,
    /// Texts that may wait.
    pub queue: usize,
}

/// Who makes embeddings.
#[derive(Clone, Debug)]
pub enum Provider {
    /// The model inside.
    Builtin,
    /// An OpenAI-compatible endpoint.
    OpenAi {
        /// Base URL.
        url: String,
        /// Model name.
        model: String,
        /// Key.
        api_key: Option<Secret>,
        /// Longest answer, in milliseconds.
        timeout_ms: i64,
        /// Tries after the first.
        retries: u32,
    },
}

/// A list of networks.
#[derive(Clone, Debug, Default)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// Whether `address` lies in one of them. An IPv4 address in IPv6 clothing is an IPv4 address.
    pub fn contain(&self, address: std::net::IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address.to_canonical()))
    }
}

/// Scheme and authority of a site, as browsers write it.
struct Origin(String);

impl std::str::FromStr for Origin {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let authority = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).ok_or(())?;
        let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
        if authority.is_empty() || !authority.bytes().all(is_good) { Err(()) } else { Ok(Self(text.to_owned())) }
    }
}

/// An address or a CIDR range.
struct Network(IpNet);

impl std::str::FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let network =
            text.parse::<IpNet>().or_else(|_| text.parse().map(|address: std::net::IpAddr| IpNet::from(address)));
        network.map(Self).map_err(|_| ())
    }
}

impl Config {
    /// Reads the settings of `file` (none: the defaults) and the environment.
    ///
    /// # Errors
    /// Every fault there is.
    pub fn load(file: Option<&Path>, environment: &Environment) -> Result<Self, Vec<Fault>> {
        let text = file.map(std::fs::read_to_string).transpose().map_err(|error| {
            let name = file.unwrap_or(Path::new("")).display();
            vec![Fault::new("config file", format!("{name} cannot be read: {error}"))]
        })?;
        Self::parse(text.as_deref(), environment)
    }

    /// As [`Config::load`], of a file's text.
    ///
    /// # Errors
    /// Every fault there is.
    pub fn parse(text: Option<&str>, environment: &Environment) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let merged = source::merge(text, environment, &mut faults);
        let faults = RefCell::new(faults);
        let config = Self::from_table(merged, environment, &faults);
        let faults = faults.into_inner();
        if faults.is_empty() { Ok(config) } else { Err(faults) }
    }

    /// The tiers that a file and the environment name, whatever else is wrong; none where the file cannot be read.
    pub fn tiers_of(file: Option<&Path>, environment: &Environment) -> Option<Tiers> {
        let text = file.map(std::fs::read_to_string).transpose().ok()?;
        if text.as_deref().is_some_and(|text| text.parse::<Table>().is_err()) {
            return None;
        }
        let table = source::merge(text.as_deref(), environment, &mut Vec::new());
        Some(tiers(&table, &RefCell::default()))
    }

    fn from_table(table: Table, environment: &Environment, faults: &RefCell<Vec<Fault>>) -> Self {
        let tiers = tiers(&table, faults);
        let section = |section| Values { table: &table, section, faults };
        let server = server(&section("server"));
        let auth = auth(&section("auth"), &tiers);
        let calendar = Calendar::new(
            section("quota").required("timezone", "an IANA time zone such as Europe/Berlin").unwrap_or(chrono_tz::UTC),
        );
        let memory = memory(&section("memory"));
        let embedding = embedding(&section("embedding"));
        let gateway = gateway::gateway(&table, environment, faults);
        let upgrade_url = section("dashboard").text("upgrade_url");
        let heartbeat_timeout_ms = section("agents").time("heartbeat_timeout");
        let keep_days = section("audit").integer("keep_days", 0..=36_500);
        let log = operations::log(&section("log"));
        let mut store = store(&section("store"));
        store.index_bytes_max = section("memory").integer("index_bytes_max", 0..=1_099_511_627_776);
        let backup = operations::backup(&section("backup"));
        let metrics = operations::metrics(&section("metrics"));
        let ledger_keep_days = operations::ledger_keep_days(&section("ledger"));
        let audit_keep_days = (keep_days > 0).then_some(keep_days);
        Self {
            server,
            auth,
            calendar,
            tiers,
            memory,
            embedding,
            gateway,
            upgrade_url,
            heartbeat_timeout_ms,
            backup,
            ledger_keep_days,
            audit_keep_days,
            metrics,
            log,
            store,
            merged: Merged(table),
        }
    }

    /// Listens on `address` in place of what `server.listen` says.
    pub fn listen_on(&mut self, address: SocketAddr) {
        self.server.listen = address;
        if let Some(Value::Table(server)) = self.merged.0.get_mut("server") {
            server.insert("listen".to_owned(), Value::String(address.to_string()));
        }
    }

    /// The settings that hold, as a file, with secrets masked.
    pub fn to_masked_toml(&self) -> String {
        let mut table = self.merged.0.clone();
        mask(&mut table);
        toml::to_string(&table).unwrap_or_default()
    }
}

fn mask(table: &mut Table) {
    for (key, value) in table.iter_mut() {
        match value {
            Value::Table(inner) => mask(inner),
            Value::Array(items) => items.iter_mut().filter_map(Value::as_table_mut).for_each(mask),
            Value::String(text) if key == "api_key" && !text.is_empty() => "********".clone_into(text),
            _ => {}
        }
    }
}

fn tiers(table: &Table, faults: &RefCell<Vec<Fault>>) -> Tiers {
    let mut tiers = BTreeMap::new();
    let Some(Value::Table(named)) = table.get("tiers") else { return Tiers(tiers) };
    for (name, value) in named {
        let path = format!("tiers.{name}");
        let Some(keys) = value.as_table() else {
            faults.borrow_mut().push(Fault::new(path, "must be a section"));
            continue;
        };
        for key in keys.keys().filter(|key| !source::TIER_KEYS.contains(&key.as_str())) {
            faults.borrow_mut().push(Fault::new(format!("{path}.{key}"), "unknown key"));
        }
        if name.is_empty() || name.chars().count() > 64 || name.chars().any(char::is_control) {
            faults.borrow_mut().push(Fault::new(path.clone(), "a tier's name must have 1 to 64 characters"));
        }
        let limit = |key: &str| {
            let limit = keys.get(key).and_then(Value::as_integer).and_then(Limit::from_number);
            if limit.is_none() {
                faults.borrow_mut().push(Fault::new(
                    format!("{path}.{key}"),
                    "must be a whole number of at least 0, or -1 for unlimited",
                ));
            }
            limit.unwrap_or(Limit::AtMost(0))
        };
        let [tokens, storage, minutes] = source::TIER_KEYS;
        let limits = Limits {
            llm_tokens_day: limit(tokens),
            memory_storage_bytes: limit(storage),
            agent_minutes_month: limit(minutes),
        };
        tiers.insert(name.clone(), limits);
    }
    Tiers(tiers)
}

fn server(values: &Values<'_>) -> Server {
    let listen = values.required("listen", "an address and port such as 127.0.0.1:8080");
    let public_url = Some(values.text("public_url").trim_end_matches('/').to_owned()).filter(|url| !url.is_empty());
    if public_url.as_ref().is_some_and(|url| !url.starts_with("http://") && !url.starts_with("https://")) {
        values.fault("public_url", "must begin with http:// or https://");
    }
    let drain_timeout_ms = values.time("drain_timeout");
    if drain_timeout_ms > 20_000 {
        values.fault("drain_timeout", "must be at most 20s");
    }
    Server {
        listen: listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 8080))),
        public_url,
        trusted_proxies: networks(values, "trusted_proxies"),
        cors_origins: values
            .list::<Origin>("cors_origins", "an origin such as https://app.example.org")
            .into_iter()
            .map(|origin| origin.0)
            .collect(),
        body_bytes_max: values.integer("body_bytes_max", 1_024..=1_073_741_824),
        request_timeout_ms: values.time("request_timeout"),
        header_timeout_ms: values.time("header_timeout"),
        connections_max: values.integer("connections_max", 1..=1_000_000),
        drain_timeout_ms,
        require_volume: values.flag("require_volume"),
        disk_free_bytes_min: values.integer("disk_free_bytes_min", 0..=1_u64 << 50),
    }
}

fn networks(values: &Values<'_>, key: &str) -> Networks {
    let networks: Vec<Network> = values.list(key, "an address or a range such as 10.0.0.0/8");
    Networks(networks.into_iter().map(|network| network.0).collect())
}

fn auth(values: &Values<'_>, tiers: &Tiers) -> Auth {
    let default_tier = values.text("default_tier");
    if !tiers.has(&default_tier) {
        values.fault("default_tier", format!("must be one of the tiers {}", tiers.names()));
    }
    Auth {
        identity_proxies: networks(values, "identity_proxies"),
        auto_provision: values.flag("auto_provision"),
        default_tier,
        password_queue: values.integer("password_queue", 1..=100_000),
    }
}

fn memory(values: &Values<'_>) -> Memory {
    let choices = [("store", OnDuplicate::Store), ("merge", OnDuplicate::Merge), ("refuse", OnDuplicate::Refuse)];
    Memory {
        text_bytes_max: values.integer("text_bytes_max", 1..=1_048_576),
        stm_bytes_max: values.integer("stm_bytes_max", 0..=i64::MAX),
        stm_ttl_ms: values.time_or_never("stm_ttl"),
        itm_ttl_ms: values.time_or_never("itm_ttl"),
        ltm_ttl_ms: values.time_or_never("ltm_ttl"),
        on_duplicate: values.name("on_duplicate", &choices).unwrap_or(OnDuplicate::Store),
        import_bytes_max: values.integer("import_bytes_max", 1_024..=1_073_741_824),
    }
}

fn embedding(values: &Values<'_>) -> Embedding {
    values.integer("dimensions", 384_i64..=384);
    let remote = values.name("provider", &[("builtin", false), ("openai", true)]).unwrap_or(false);
    let (url, model) = (values.text("url"), values.text("model"));
    let api_key = secret(values, "api_key").map(Secret::new);
    let (timeout_ms, retries) = (values.time("timeout"), values.integer("retries", 0..=10));
    let queue = values.integer("queue", 1..=1_000_000);
    if remote {
        for (key, text) in [("url", &url), ("model", &model)] {
            if text.is_empty() {
                values.fault(key, "must be named for the provider openai");
            }
        }
        let url = url.trim_end_matches('/').to_owned();
        if !url.is_empty() && !gateway::is_address(&url) {
            values.fault("url", "must be an address such as https://api.openai.com/v1");
        }
        return Embedding { provider: Provider::OpenAi { url, model, api_key, timeout_ms, retries }, queue };
    }
    Embedding { provider: Provider::Builtin, queue }
}

/// The secret of `key`, or of the file that `<key>_file` names; both is a fault.
fn secret(values: &Values<'_>, key: &str) -> Option<String> {
    let file_key = format!("{key}_file");
    let (secret, file) = (values.text(key), values.text(&file_key));
    match (secret.is_empty(), file.is_empty()) {
        (true, true) => None,
        (false, true) => Some(secret),
        (false, false) => {
            values.fault(key, format!("must not be set together with {file_key}"));
            None
        }
        (true, false) => match read_secret_file(&file) {
            Ok(secret) => Some(secret),
            Err(message) => {
                values.fault(&file_key, message);
                None
            }
        },
    }
}

fn read_secret_file(path: &str) -> Result<String, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{path} cannot be read: {error}"))?;
    let secret = text.lines().next().unwrap_or_default().to_owned();
    if secret.is_empty() { Err(format!("{path} holds nothing")) } else { Ok(secret) }
}

fn store(values: &Values<'_>) -> StoreOptions {
    StoreOptions {
        readers: values.integer("readers", 1..=256),
        read_queue: values.integer("read_queue", 1..=1_000_000),
        write_queue: values.integer("write_queue", 1..=1_000_000),
        commit_jobs_max: values.integer("commit_jobs_max", 1..=100_000),
        checkpoint_pages: values.integer("checkpoint_pages", 100..=1_000_000),
        ..StoreOptions::default()
    }
}

/// The administrator to make at a first start without a browser: `TALLYBOX_ADMIN_EMAIL` with `TALLYBOX_ADMIN_PASSWORD`
/// or `TALLYBOX_ADMIN_PASSWORD_FILE`.
///
/// # Errors
/// Faults: one without the other, both forms of the password, a file that cannot be read.
pub fn admin_bootstrap(environment: &Environment) -> Result<Option<(String, String)>, Vec<Fault>> {
    const EMAIL: &str = "TALLYBOX_ADMIN_EMAIL";
    const PASSWORD: &str = "TALLYBOX_ADMIN_PASSWORD";
    const PASSWORD_FILE: &str = "TALLYBOX_ADMIN_PASSWORD_FILE";
    let one = |field: &str, message: &str| Err(vec![Fault::new(field, message)]);
    let password = match (environment.get(PASSWORD), environment.get(PASSWORD_FILE)) {
        (Some(_), Some(_)) => return one(PASSWORD, "must not be set together with TALLYBOX_ADMIN_PASSWORD_FILE"),
        (Some(password), None) => Some(password.to_owned()),
        (None, Some(path)) => Some(read_secret_file(path).map_err(|message| vec![Fault::new(PASSWORD_FILE, message)])?),
        (None, None) => None,
    };
    match (environment.get(EMAIL), password) {
        (Some(email), Some(password)) => Ok(Some((email.to_owned(), password))),
        (None, None) => Ok(None),
        (Some(_), None) => one(PASSWORD, "must be set together with TALLYBOX_ADMIN_EMAIL"),
        (None, Some(_)) => one(EMAIL, "must be set together with TALLYBOX_ADMIN_PASSWORD"),
    }
}

#[cfg(test)]
mod tests;
