//! The target that the documents show, behind an agent of a real server.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use maos_api::client::{Client, ClientError};
use maos_api::worker::AttemptRef;
use maos_server::webhooks::Secret;
use serde_json::{Value, json};

use crate::clients::wait;
use crate::house::{House, PATIENCE};

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

/// Takes one attempt and answers it: what was posted.
fn take(listener: &TcpListener, status: u16, body: &str) -> Value {
    let mut stream = listener.accept().unwrap().0;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut length, mut line) = (0, String::new());
    while reader.read_line(&mut line).unwrap() > 2 {
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap();
        }
        line.clear();
    }
    let mut posted = vec![0; length];
    reader.read_exact(&mut posted).unwrap();
    let head = format!("HTTP/1.1 {status} x\r\nconnection: close\r\n");
    write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len()).unwrap();
    serde_json::from_slice(&posted).unwrap()
}

/// A callback to `house`, as the attempt `posted` allows it: all that is answered.
fn call_back(house: &House, posted: &Value) -> String {
    let (id, token) = (&posted["task_id"], &posted["callback"]["token"]);
    let path = format!("/api/v1/tasks/{}/attempts/1/outcome", id.as_str().unwrap());
    let body = r#"{"status": "completed", "result": "late"}"#;
    let mut stream = TcpStream::connect(house.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!("POST {path} HTTP/1.1\r\nhost: maos\r\nconnection: close\r\n");
    let token = format!("authorization: Bearer {}\r\n", token.as_str().unwrap());
    let rest = format!("content-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(format!("{head}{token}{rest}").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn what_a_killed_server_had_asked_for_is_asked_for_again_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    configure(folder.path(), &url, &Secret::generate());
    let mut house = House::open(folder.path());
    let id = house.submit(&json!({"name": "shout", "required_capabilities": ["shouting"],
        "max_retries": 0}));
    let first = take(&listener, 202, "");
    assert_eq!((&first["task_id"], &first["attempt"]), (&json!(id), &json!(1)));
    house.kill();
    let house = House::open(folder.path());
    let again = take(&listener, 200, r#""anew""#);
    assert_eq!((&again["task_id"], &again["attempt"]), (&json!(id), &json!(2)));
    let refused = call_back(&house, &first);
    assert!(refused.starts_with("HTTP/1.1 401") && refused.contains("BAD_TOKEN"), "{refused}");
    let task = house.ended(&id);
    assert_eq!((&task["result"], &task["retry_count"]), (&json!("anew"), &json!(0)), "{task}");
}

#[test]
fn the_client_brings_an_outcome_and_needs_its_token() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    configure(folder.path(), &url, &Secret::generate());
    let house = House::open(folder.path());
    let id = house.submit(&json!({"name": "shout", "required_capabilities": ["shouting"]}));
    let posted = take(&listener, 202, "");
    let token = posted["callback"]["token"].as_str().unwrap();
    let client = Client::new(&format!("http://{}", house.address)).unwrap();
    let body = json!({"status": "completed", "result": "HI"});
    wait(async {
        let of = AttemptRef { task_id: id.parse().unwrap(), attempt: 1 };
        let forged = client.bring_outcome(of, "forged", &body).await.unwrap_err();
        assert!(matches!(forged, ClientError::Api { status: 401, .. }), "{forged}");
        // The second time it is known already.
        for _ in 0..2 {
            let taken = client.bring_outcome(of, token, &body).await.unwrap();
            assert_eq!((taken.task_id, taken.attempt), (of.task_id, 1));
        }
    });
    assert_eq!(house.ended(&id)["result"], json!("HI"));
}
