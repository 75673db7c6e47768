//! The target that the documents show, behind an agent of a real server.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use maos_server::webhooks::Secret;
use serde_json::{Value, json};

use crate::house::House;

/// The program, ended with its test.
struct Target {
    child: Child,
    url: String,
}

impl Target {
    fn start(secret: &Secret) -> Target {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
        let mut child = Command::new("python3")
            .arg(examples.join("http_agent.py"))
            .arg("0")
            .env("SECRET", secret.text())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("python3 is installed");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listens on ").expect("it says where").to_owned();
        Target { child, url }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn configure(folder: &Path, url: &str, secret: &Secret) -> PathBuf {
    let file = folder.join("shouter.secret");
    fs::write(&file, secret.text()).unwrap();
    let toml = format!(
        "[http_agents.shouter]\nurl = \"{url}\"\nsecret_file = \"shouter.secret\"\n\
         capabilities = [\"shouting\"]\nallow_private = true\n"
    );
    fs::write(folder.join("maos.toml"), toml).unwrap();
    file
}

fn shout(house: &House, parameters: Value) -> Value {
    let id = house.submit(&json!({"name": "shout", "required_capabilities": ["shouting"],
        "parameters": parameters, "max_retries": 0}));
    house.ended(&id)
}

#[test]
fn the_example_answers_at_once_later_and_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let secret = Secret::generate();
    let target = Target::start(&secret);
    configure(folder.path(), &target.url, &secret);
    let house = House::open(folder.path());
    for parameters in [json!({"text": "hi"}), json!({"text": "hi", "slow": true})] {
        let task = shout(&house, parameters);
        assert_eq!(task["result"], json!({"text": "HI"}), "{task}");
    }
    for parameters in [json!({"text": 7}), json!({"text": 7, "slow": true})] {
        let task = shout(&house, parameters);
        assert!(task["error"].as_str().unwrap_or_default().contains("must be a string"), "{task}");
    }
    drop(house);
    configure(folder.path(), &target.url, &Secret::generate());
    let house = House::open(folder.path());
    let task = shout(&house, json!({"text": "hi"}));
    assert!(task["error"].as_str().unwrap_or_default().contains("signature is wrong"), "{task}");
}

#[test]
fn a_server_without_the_secret_does_not_start_and_says_how_to_make_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = configure(folder.path(), "http://127.0.0.1:1/", &Secret::generate());
    fs::remove_file(file).unwrap();
    for words in [vec!["serve", "--port", "0"], vec!["doctor"]] {
        let mut maos = Command::new(env!("CARGO_BIN_EXE_maos"));
        let ran = maos.args(words).current_dir(folder.path()).output().unwrap();
        let said = String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned();
        assert!(!ran.status.success(), "{said}");
        assert!(said.contains("shouter.secret") && said.contains("hint: make a secret"), "{said}");
    }
}
