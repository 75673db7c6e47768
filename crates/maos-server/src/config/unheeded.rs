//! Variables that look like settings and are none: whoever sets one should hear that it changes
//! nothing.
//!
//! Law: what others set by themselves is passed over in silence, and nothing here is an error, as
//! Kubernetes names variables after the services beside a container.

use std::cmp::Reverse;
use std::ffi::OsString;

use super::layers::{SECTIONS, is_of_a_service, section_and_key};
use super::{Config, Layers};

/// What maos itself, its tests, its scripts and its examples read or set.
const OURS: [&str; 10] = [
    "MAOS_ATTEMPT",
    "MAOS_BIN",
    "MAOS_BINARY",
    "MAOS_ENV",
    "MAOS_FULL",
    "MAOS_MESSAGES",
    "MAOS_SERVER",
    "MAOS_SERVER_CA",
    "MAOS_SUPERVISOR",
    "MAOS_URL",
];

impl Layers {
    /// What to tell of each variable that begins as settings do and has no effect; `config` is what
    /// these layers gave.
    #[must_use]
    pub fn unheeded(&self, config: &Config) -> Vec<String> {
        let secrets: Vec<&str> =
            config.http_agents.values().filter_map(|agent| agent.secret_env.as_deref()).collect();
        let is_known = |name: &str, value: &str| {
            section_and_key(name).is_some()
                || OURS.contains(&name)
                || secrets.contains(&name)
                || is_of_a_service(name, value)
        };
        let told = |(name, value): (&OsString, &OsString)| {
            let (name, value) = (name.to_str()?, value.to_string_lossy());
            let hint = name.strip_prefix("MAOS_").filter(|_| !is_known(name, &value)).map(hint)?;
            let what = format!("environment variable `{name}` is no setting and has no effect");
            Some(format!("{what}\nhint: {hint}"))
        };
        self.environment.iter().filter_map(told).collect()
    }
}

fn hint(rest: &str) -> String {
    for (start, section) in [("COMMAND", "commands"), ("HTTP_AGENT", "http_agents")] {
        if rest.starts_with(start) {
            return format!("define it in maos.toml, under [{section}.NAME]: variables cannot");
        }
    }
    let in_common = |section: &str| {
        let pairs = section.bytes().zip(rest.bytes());
        pairs.take_while(|(ours, theirs)| ours.to_ascii_uppercase() == *theirs).count()
    };
    let nearest =
        SECTIONS.into_iter().max_by_key(|section| (in_common(section), Reverse(section.len())));
    // A beginning alone is chance.
    match nearest.filter(|section| 3 * in_common(section) >= 2 * section.len()) {
        Some(section) => {
            let start = section.to_uppercase();
            format!("keys of [{section}] are set by `MAOS_{start}_<KEY>`: docs/config.md has them")
        }
        None => "docs/config.md has all settings; unset it if it is none of another program".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unheeded(names: &[&str]) -> Vec<String> {
        let environment = names.iter().map(|name| ((*name).into(), "1".into())).collect();
        let layers = Layers { environment, ..Layers::default() };
        layers.unheeded(&Config::default())
    }

    #[test]
    fn what_looks_like_a_setting_and_is_none_is_told_with_what_is_near() {
        for (name, hint) in [
            ("MAOS_RESOURCE_CPU_CORES", "keys of [resources] are set by `MAOS_RESOURCES_<KEY>`"),
            ("MAOS_CHECKPOINT_KEEP", "keys of [checkpoints] are"),
            ("MAOS_LOGGING_LEVEL", "keys of [log] are"),
            ("MAOS_PORT", "docs/config.md has all settings"),
            ("MAOS_BOGUS_KEY", "docs/config.md has all settings"),
            ("MAOS_COMMANDS_POET", "define it in maos.toml, under [commands.NAME]"),
            ("MAOS_HTTP_AGENTS_X", "define it in maos.toml, under [http_agents.NAME]"),
        ] {
            let told = unheeded(&[name]);
            let expected = format!(
                "environment variable `{name}` is no setting and has no effect\nhint: {hint}"
            );
            assert!(told.len() == 1 && told[0].starts_with(&expected), "{told:?}");
        }
    }

    #[test]
    fn what_is_set_by_itself_is_passed_over() {
        let settings = ["MAOS_API_PORT", "MAOS_LOGS_KEEP_DAYS", "MESSAGE_BUS_X", "PATH"];
        let others = ["MAOS_PORT_8000_TCP_ADDR", "MAOS_SERVICE_HOST", "MAOS_SERVICE_PORT"];
        let more = ["MAOS_WEB_PORT_80_TCP", "MAOS_WEB_SERVICE_PORT_HTTP"];
        for names in [&settings[..], &others, &more, &OURS] {
            assert_eq!(unheeded(names), Vec::<String>::new());
        }
    }

    #[test]
    fn the_secret_of_an_agent_is_passed_over() {
        let toml = "[http_agents.poet]\nurl = \"https://example.com/\"\ncapabilities = [\"a\"]\n\
                    secret_env = \"MAOS_POET_SECRET\"\n";
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("maos.toml");
        std::fs::write(&file, toml).unwrap();
        let environment = [("MAOS_POET_SECRET".into(), "x".into())].into();
        let layers = Layers { file: Some(file), environment, flags: Vec::new() };
        let (config, _) = Config::load(&layers).unwrap();
        assert_eq!(layers.unheeded(&config), Vec::<String>::new());
        assert_eq!(layers.unheeded(&Config::default()).len(), 1);
    }
}
