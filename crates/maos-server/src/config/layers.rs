//! The layers of a configuration, merged key by key, each key with the layer it came from.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::{Config, ConfigError};

/// Where settings come from; later ones win.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// The file, if one is read.
    pub file: Option<PathBuf>,
    /// The environment, whole. It may hold what is no text: that is refused where it is ours.
    pub environment: BTreeMap<OsString, OsString>,
    /// Flags: dotted key, value, and the flag's name.
    pub flags: Vec<(&'static str, Value, &'static str)>,
}

/// Where one value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The file.
    File(PathBuf),
    /// A variable of the environment.
    Environment(String),
    /// A flag.
    Flag(&'static str),
}

/// One key with its value in force and where that came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    /// Dotted.
    pub key: String,
    /// As TOML.
    pub value: Value,
    /// Who set it.
    pub origin: Origin,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path) => write!(f, "`{}`", path.display()),
            Origin::Environment(name) => write!(f, "environment variable `{name}`"),
            Origin::Flag(name) => write!(f, "flag `{name}`"),
        }
    }
}

/// Variables that ask for something that is not built yet.
const NOT_BUILT: [(&str, &str); 8] = [
    ("SECURITY_REQUIRE_AUTH", "authentication"),
    ("SECURITY_REQUIRE_ENCRYPTION", "encryption"),
    ("SECURITY_RATE_LIMIT", "rate limits"),
    ("REDIS_HOST", "Redis as the journal"),
    ("REDIS_PORT", "Redis as the journal"),
    ("REDIS_PASSWORD", "Redis as the journal"),
    ("REDIS_DB", "Redis as the journal"),
    ("REDIS_URL", "Redis as the journal"),
];

/// Sections whose keys variables can set.
pub(super) const SECTIONS: [&str; 13] = [
    "api",
    "blobs",
    "checkpoints",
    "files",
    "log",
    "logs",
    "message_bus",
    "outbound",
    "pools",
    "resources",
    "scheduling",
    "store",
    "webhooks",
];

/// The contract's own names for keys.
const CONTRACT: [(&str, &str); 2] = [
    ("MESSAGE_BUS_MAX_QUEUE_SIZE", "message_bus.max_queue_size"),
    ("MESSAGE_BUS_WORKER_COUNT", "message_bus.worker_count"),
];

impl Layers {
    pub(super) fn resolve(&self) -> Result<(Config, Vec<Shown>), ConfigError> {
        let mut merged = table_of(&Config::default());
        let mut origins: BTreeMap<String, Origin> = BTreeMap::new();
        let mut lines = Lines::default();
        if let Some(path) = &self.file {
            let (text, table) = read_file(path)?;
            lines = Lines::of(&text);
            let origin = Origin::File(path.clone());
            check_alone(&table, &origin).map_err(|why| lines.name(&table, why))?;
            lay_over(&mut merged, &table, &origin, "", &mut origins);
        }
        let flag = |(key, value, name): &(&str, Value, &'static str)| {
            ((*key).to_owned(), value.clone(), Origin::Flag(name))
        };
        let settings = self.environment_settings()?;
        for (key, value, origin) in settings.into_iter().chain(self.flags.iter().map(flag)) {
            let table = nested(&key, value);
            check_alone(&table, &origin)?;
            lay_over(&mut merged, &table, &origin, "", &mut origins);
        }
        let mut config: Config = deserialize(&merged, &Origin::Default)?;
        if let Some(folder) = self.file.as_ref().and_then(|file| file.parent()) {
            let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
            for command in config.commands.values_mut() {
                command.folder.clone_from(&folder);
            }
            for agent in config.http_agents.values_mut() {
                agent.folder.clone_from(&folder);
            }
        }
        config.check().map_err(|why| blame(why, &origins, &lines))?;
        let mut shown = Vec::new();
        // With what sections of the file leave open.
        leaves(&table_of(&config), "", &mut |key, value| {
            let origin = origins.get(key).cloned().unwrap_or(Origin::Default);
            shown.push(Shown { key: key.to_owned(), value: value.clone(), origin });
        });
        Ok((config, shown))
    }

    /// `MAOS_<SECTION>_<KEY>` for every key, and the contract's own names.
    fn environment_settings(&self) -> Result<Vec<(String, Value, Origin)>, ConfigError> {
        let environment = self.readable()?;
        for (variable, what) in NOT_BUILT {
            let asked = environment.get(variable).map(|value| value.to_lowercase());
            if asked.is_some_and(|value| asks_for_something(&value)) {
                return Err(ConfigError::NotBuilt { variable: variable.to_owned(), what });
            }
        }
        let mut found = Vec::new();
        match environment.get("MAOS_ENV").copied() {
            None | Some("development" | "testing") => {}
            Some("staging") => found.push(("log.format", "json".to_owned(), "MAOS_ENV")),
            Some("production") => {
                let what = "authentication, which production has on by default";
                return Err(ConfigError::NotBuilt { variable: "MAOS_ENV".into(), what });
            }
            Some(other) => {
                return Err(ConfigError::OutOfBounds {
                    key: "MAOS_ENV".into(),
                    found: format!("`{other}`"),
                    wanted: "development, testing, staging or production".into(),
                });
            }
        }
        if let Some(level) = environment.get("LOG_LEVEL") {
            found.push(("log.level", level.to_uppercase(), "LOG_LEVEL"));
        }
        let mut settings: Vec<(String, Value, Origin)> = found
            .into_iter()
            .map(|(key, value, name)| {
                (key.to_owned(), Value::String(value), Origin::Environment(name.to_owned()))
            })
            .collect();
        for (name, key) in CONTRACT {
            if let Some(value) = environment.get(name)
                && !is_of_a_service(name, value)
            {
                let origin = Origin::Environment(name.to_owned());
                settings.push((key.to_owned(), literal(value), origin));
            }
        }
        for (name, value) in environment {
            let Some((section, key)) = section_and_key(name) else { continue };
            if is_of_a_service(name, value) {
                continue;
            }
            let origin = Origin::Environment(name.to_owned());
            settings.push((format!("{section}.{key}"), literal(value), origin));
        }
        Ok(settings)
    }

    /// The environment as far as it is text. What is none cannot be ours by its name, and is a
    /// fault as the value of a variable that is.
    fn readable(&self) -> Result<BTreeMap<&str, &str>, ConfigError> {
        let mut readable = BTreeMap::new();
        for (name, value) in &self.environment {
            let Some(name) = name.to_str() else { continue };
            match value.to_str() {
                Some(value) => drop(readable.insert(name, value)),
                None if is_ours(name) => {
                    let origin = Origin::Environment(name.to_owned()).to_string();
                    let fault = "its value is not UTF-8".to_owned();
                    return Err(ConfigError::Invalid { origin, fault });
                }
                None => {}
            }
        }
        Ok(readable)
    }
}

/// Whether a variable of this name says something to the server.
fn is_ours(name: &str) -> bool {
    let named = NOT_BUILT.iter().chain(&CONTRACT).map(|(ours, _)| *ours);
    named.chain(["MAOS_ENV", "LOG_LEVEL"]).any(|ours| ours == name)
        || section_and_key(name).is_some()
}

fn read_file(path: &PathBuf) -> Result<(String, Table), ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Unreadable { path: path.clone(), source })?;
    let table = text.parse().map_err(|fault: toml::de::Error| ConfigError::NotToml {
        path: path.clone(),
        fault: fault.to_string(),
    })?;
    Ok((text, table))
}

/// Where the keys of a file stand: what is in a table before the table itself.
#[derive(Default)]
struct Lines(Vec<(Vec<String>, usize)>);

impl Lines {
    fn of(text: &str) -> Lines {
        let mut lines = Lines::default();
        if let Ok(table) = DeTable::parse(text) {
            lines.note(text, table.get_ref(), &[]);
        }
        lines
    }

    fn note(&mut self, text: &str, table: &DeTable<'_>, above: &[String]) {
        for (key, value) in table {
            let path = [above, &[key.get_ref().to_string()]].concat();
            if let DeValue::Table(below) = value.get_ref() {
                self.note(text, below, &path);
            }
            let before = text.get(..key.span().start).unwrap_or_default();
            self.0.push((path, before.matches('\n').count() + 1));
        }
    }

    /// The same fault with the line of the key that has it: the one without which it is gone. The
    /// library tells no line for a value that has been merged.
    fn name(&self, table: &Table, why: ConfigError) -> ConfigError {
        let ConfigError::Invalid { origin, fault } = why else { return why };
        let stays = |path: &[String]| {
            let mut without = table.clone();
            remove(&mut without, path);
            let checked = check_alone(&without, &Origin::Default);
            matches!(checked, Err(ConfigError::Invalid { fault: left, .. }) if left == fault)
        };
        let line = self.0.iter().find(|(path, _)| !stays(path)).map(|(_, line)| *line);
        let origin = line.map_or(origin.clone(), |line| format!("{origin} line {line}"));
        ConfigError::Invalid { origin, fault }
    }
}

fn remove(table: &mut Table, path: &[String]) {
    match path {
        [] => {}
        [name] => drop(table.remove(name)),
        [name, rest @ ..] => {
            if let Some(Value::Table(below)) = table.get_mut(name) {
                remove(below, rest);
            }
        }
    }
}

/// The same fault with who set the value.
fn blame(why: ConfigError, origins: &BTreeMap<String, Origin>, lines: &Lines) -> ConfigError {
    let ConfigError::OutOfBounds { key, .. } = &why else { return why };
    let Some(origin) = origins.get(key) else { return why };
    let line = lines.0.iter().find(|(path, _)| path.join(".") == *key).map(|(_, line)| *line);
    let line = line.filter(|_| matches!(origin, Origin::File(_)));
    let line = line.map_or(String::new(), |line| format!(" line {line}"));
    ConfigError::Invalid { origin: format!("{origin}{line}"), fault: why.to_string() }
}

fn asks_for_something(value: &str) -> bool {
    !["", "false", "0", "no"].contains(&value) && !is_address_of_a_service(value)
}

/// Whether Kubernetes sets such a variable by itself, for a service beside the container that is
/// called `maos`, `maos-api`, `api`: nobody asked us for anything then.
pub(super) fn is_of_a_service(name: &str, value: &str) -> bool {
    let of_a_port = |rest: &str| {
        let (port, protocol) = rest.split_once('_').unwrap_or((rest, ""));
        port.parse::<u16>().is_ok()
            && ["TCP", "UDP", "SCTP"].iter().any(|p| protocol.starts_with(p))
    };
    is_address_of_a_service(value)
        || name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.split_once("_PORT_").is_some_and(|(_, rest)| of_a_port(rest))
}

/// `REDIS_PORT`, `API_PORT` and the like are of this form then.
fn is_address_of_a_service(value: &str) -> bool {
    ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme))
}

/// `MAOS_API_MAX_AGENTS` is `max_agents` of `api`. Variables of other sections are not ours.
pub(super) fn section_and_key(name: &str) -> Option<(&'static str, String)> {
    let rest = name.strip_prefix("MAOS_")?;
    // `logs` before `log`: the longer name first.
    SECTIONS.into_iter().rev().find_map(|section| {
        let key = rest.strip_prefix(&section.to_uppercase())?.strip_prefix('_')?;
        let key = key.to_lowercase();
        Some((section, if section == "pools" { pool_and_key(&key) } else { key }))
    })
}

/// `data_processor_max` is `max` of `data_processor`; where one word ends is known of the pools
/// that are there by default. Other pools are set whole, as a TOML table in one line.
fn pool_and_key(name: &str) -> String {
    let defaults = Config::default();
    let of = |pool: &String| Some((pool.clone(), name.strip_prefix(pool)?.strip_prefix('_')?));
    match defaults.pools.keys().find_map(of) {
        Some((pool, key)) => format!("{pool}.{key}"),
        None => name.to_owned(),
    }
}

/// A TOML value if it reads as one, else the text itself.
fn literal(text: &str) -> Value {
    let parsed: Result<Table, _> = format!("value = {text}").parse();
    let value = parsed.ok().and_then(|mut table| table.remove("value"));
    value.unwrap_or_else(|| Value::String(text.to_owned()))
}

fn table_of(config: &Config) -> Table {
    Table::try_from(config).expect("a configuration can be written as TOML")
}

fn nested(key: &str, value: Value) -> Table {
    let mut table = Table::new();
    match key.split_once('.') {
        None => drop(table.insert(key.to_owned(), value)),
        Some((section, rest)) => {
            drop(table.insert(section.to_owned(), Value::Table(nested(rest, value))));
        }
    }
    table
}

/// Checks one layer over the defaults, so that a fault is told with the layer that has it.
fn check_alone(table: &Table, origin: &Origin) -> Result<(), ConfigError> {
    let mut over_defaults = table_of(&Config::default());
    lay_over(&mut over_defaults, table, origin, "", &mut BTreeMap::new());
    deserialize(&over_defaults, origin).map(drop)
}

fn deserialize(table: &Table, origin: &Origin) -> Result<Config, ConfigError> {
    table.clone().try_into().map_err(|fault: toml::de::Error| {
        let fault = fault.to_string().trim_end().replace('\n', ", ");
        ConfigError::Invalid { origin: origin.to_string(), fault }
    })
}

fn lay_over(
    under: &mut Table,
    over: &Table,
    origin: &Origin,
    at: &str,
    origins: &mut BTreeMap<String, Origin>,
) {
    for (name, value) in over {
        let key = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
        match (under.get_mut(name), value) {
            (Some(Value::Table(under)), Value::Table(over)) => {
                lay_over(under, over, origin, &key, origins);
            }
            (_, value) => {
                leaves_of(value, &key, &mut |key, _| {
                    drop(origins.insert(key.to_owned(), origin.clone()));
                });
                under.insert(name.clone(), value.clone());
            }
        }
    }
}

fn leaves(table: &Table, at: &str, visit: &mut dyn FnMut(&str, &Value)) {
    for (name, value) in table {
        let key = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
        leaves_of(value, &key, visit);
    }
}

fn leaves_of(value: &Value, key: &str, visit: &mut dyn FnMut(&str, &Value)) {
    match value {
        Value::Table(table) => leaves(table, key, visit),
        other => visit(key, other),
    }
}

/// The defaults by dotted key.
#[cfg(test)]
pub(super) fn defaults() -> Vec<(String, Value)> {
    let mut found = Vec::new();
    leaves(&table_of(&Config::default()), "", &mut |key, value| {
        found.push((key.to_owned(), value.clone()));
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(file: &str, environment: &[(&str, &str)]) -> (Layers, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("maos.toml");
        std::fs::write(&path, file).unwrap();
        let environment =
            environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        (Layers { file: Some(path), environment, flags: vec![] }, folder)
    }

    #[test]
    fn what_kubernetes_sets_for_services_beside_the_container_is_no_setting() {
        let address = "tcp://10.0.0.7:80";
        let (layers, _folder) = layers(
            "",
            &[
                ("API_PORT", address),
                ("MAOS_PORT", address),
                ("MAOS_API_PORT", address),
                ("MAOS_API_PORT_80_TCP_PORT", "80"),
                ("MAOS_API_SERVICE_HOST", "10.0.0.7"),
                ("MAOS_LOG_SERVICE_PORT_HTTP", "80"),
            ],
        );
        let (config, _) = Config::load(&layers).unwrap();
        assert_eq!(config.api.port, Config::default().api.port);
        assert_eq!(layers.unheeded(&config), Vec::<String>::new());
    }

    #[test]
    fn later_layers_win_and_every_key_knows_who_set_it() {
        let (mut layers, _folder) =
            layers("[api]\nport = 1\nmax_agents = 7\n", &[("MAOS_API_PORT", "2")]);
        layers.flags.push(("api.host", Value::String("0.0.0.0".into()), "--host"));
        let (config, shown) = Config::load(&layers).unwrap();
        assert_eq!((config.api.port, config.api.max_agents), (2, 7));
        let origin = |key: &str| {
            let found = shown.iter().find(|shown| shown.key == key);
            found.unwrap().origin.to_string()
        };
        assert_eq!(origin("api.port"), "environment variable `MAOS_API_PORT`");
        assert!(origin("api.max_agents").ends_with("maos.toml`"));
        assert_eq!(origin("api.host"), "flag `--host`");
        assert_eq!(origin("api.default_task_timeout"), "default");
    }

    #[test]
    fn what_a_section_of_the_file_leaves_open_is_shown_with_its_default() {
        let (layers, folder) = layers(
            "[http_agents.poet]\nurl = \"https://example.com/\"\nsecret_file = \"poet.secret\"\n\
             capabilities = [\"poetry\"]\nretries = 7\n",
            &[],
        );
        let (config, shown) = Config::load(&layers).unwrap();
        assert_eq!(config.http_agents["poet"].folder, folder.path());
        let setting = |key: &str| {
            let key = format!("http_agents.poet.{key}");
            let found = shown.iter().find(|shown| shown.key == key).unwrap();
            (found.value.as_integer(), found.origin == Origin::Default)
        };
        assert_eq!(setting("retries"), (Some(7), false));
        assert_eq!(setting("timeout_seconds"), (Some(60), true));
    }

    #[test]
    fn the_contracts_own_variables_are_taken() {
        let environment = [("MESSAGE_BUS_MAX_QUEUE_SIZE", "7"), ("MESSAGE_BUS_WORKER_COUNT", "2")];
        let (layers, _folder) = layers("[message_bus]\nmax_queue_size = 5\n", &environment);
        let (config, shown) = Config::load(&layers).unwrap();
        let bus = config.message_bus;
        assert_eq!((bus.max_queue_size, bus.worker_count), (7, 2));
        let origin = Origin::Environment("MESSAGE_BUS_WORKER_COUNT".to_owned());
        let found = shown.iter().find(|shown| shown.key == "message_bus.worker_count");
        assert_eq!(found.unwrap().origin, origin);
    }

    #[test]
    fn unknown_keys_and_wrong_values_are_errors_that_name_their_layer() {
        for (file, environment, expected) in [
            ("[api]\nprot = 1\n", &[][..], "unknown field `prot`"),
            ("[apis]\nport = 1\n", &[], "unknown field `apis`"),
            ("", &[("MAOS_API_PROT", "1")], "environment variable `MAOS_API_PROT`"),
            ("", &[("MAOS_API_PORT", "many")], "environment variable `MAOS_API_PORT`"),
            ("", &[("LOG_LEVEL", "LOUD")], "unknown variant `LOUD`"),
            ("[api]\nmax_agents = 0\n", &[], "`api.max_agents` is 0, it must be 1 to"),
            ("", &[("MAOS_STORE_KEEP_DAYS", "40000")], "`store.keep_days` is 40000, it must be 0"),
            ("api = [", &[], "is not TOML"),
            ("api = [", &[], "hint: correct it where it says"),
            ("", &[("MAOS_ENV", "moon")], "development, testing, staging or production"),
        ] {
            let (layers, _folder) = layers(file, environment);
            let error = Config::load(&layers).unwrap_err().to_string();
            assert!(error.contains(expected), "{file} {environment:?}: {error}");
        }
    }

    #[test]
    fn a_fault_of_a_file_is_told_with_its_line() {
        let poet = "[commands.poet]\ncommand = [\"sh\"]\ncapabilities = [\"a\"]\n";
        for (file, line, expected) in [
            ("[api]\nport = 1\nprot = 1\n".to_owned(), 3, "unknown field `prot`"),
            ("[api]\nport = 1\n\n[apis]\nport = 1\n".to_owned(), 4, "unknown field `apis`"),
            ("[apis]\n".to_owned(), 1, "unknown field `apis`"),
            ("[log]\nlevel = \"LOUD\"\n".to_owned(), 2, "unknown variant `LOUD`"),
            ("api.port = \"many\"\napi.prot = 1\n".to_owned(), 1, "expected u16, in `api.port`"),
            ("[api]\n\nmax_agents = 0\n".to_owned(), 3, "`api.max_agents` is 0, it must be 1"),
            ("[commands.poet]\nslots = 1\n".to_owned(), 1, "missing field `command`"),
            (format!("{poet}slots = \"x\"\n"), 4, "in `commands.poet.slots`"),
            (
                poet.replace("[\"sh\"]", "[]"),
                2,
                "`commands.poet.command` is without a program, it must be a list of a program",
            ),
            (poet.replace("sh", " "), 2, "`commands.poet.command` is without a program"),
        ] {
            let (layers, _folder) = layers(&file, &[]);
            let error = Config::load(&layers).unwrap_err().to_string();
            assert!(error.contains(&format!("maos.toml` line {line}: ")), "{file}: {error}");
            assert!(error.contains(expected), "{file}: {error}");
            assert!(error.contains("\nhint: docs/config.md describes every key"), "{error}");
        }
    }

    #[test]
    fn an_address_is_localhost_or_of_numbers() {
        let load = |host: &str, is_flag: bool| {
            let environment: &[_] = if is_flag { &[] } else { &[("MAOS_API_HOST", host)] };
            let (mut layers, _folder) = layers("", environment);
            if is_flag {
                layers.flags.push(("api.host", Value::String(host.into()), "--host"));
            }
            Config::load(&layers).map(|(config, _)| config.api.host.to_string())
        };
        for (host, address) in [
            ("localhost", "127.0.0.1"),
            ("LocalHost", "127.0.0.1"),
            ("[::1]", "::1"),
            ("::1", "::1"),
            ("0.0.0.0", "0.0.0.0"),
        ] {
            assert_eq!(load(host, true).unwrap(), address);
            assert_eq!(load(host, false).unwrap(), address);
        }
        for host in ["example.org", "[127.0.0.1]", "[::1", "", "1.2.3"] {
            let wanted = format!("`{host}` is no address to listen on, it must be `localhost` or");
            let error = load(host, true).unwrap_err().to_string();
            assert!(error.starts_with(&format!("flag `--host`: {wanted}")), "{error}");
            assert!(error.contains("\nhint: "), "{error}");
            let error = load(host, false).unwrap_err().to_string();
            let origin = "environment variable `MAOS_API_HOST`: ";
            assert!(error.starts_with(&format!("{origin}{wanted}")), "{error}");
        }
    }

    #[test]
    fn what_is_not_built_yet_is_refused() {
        for (variable, value) in [
            ("SECURITY_REQUIRE_AUTH", "true"),
            ("SECURITY_REQUIRE_ENCRYPTION", "1"),
            ("SECURITY_RATE_LIMIT", "1000"),
            ("REDIS_HOST", "localhost"),
            ("MAOS_ENV", "production"),
        ] {
            let (layers, _folder) = layers("", &[(variable, value)]);
            let error = Config::load(&layers).unwrap_err().to_string();
            assert!(error.contains(variable) && error.contains("cannot do that yet"), "{error}");
        }
        let (layers, _folder) = layers("", &[("SECURITY_REQUIRE_AUTH", "false")]);
        assert!(Config::load(&layers).is_ok());
    }
}
