//! A server that plays a script: for each request line the answers in order, the last one for ever.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Output;
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

/// Answers by request line, as `GET /health`.
type Answers = HashMap<String, Vec<(u16, String)>>;

pub(crate) struct Server {
    pub(crate) url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(crate) fn new(script: &[(&str, u16, Value)]) -> Server {
        let mut answers = Answers::new();
        for (line, status, body) in script {
            answers.entry((*line).to_owned()).or_default().insert(0, (*status, body.to_string()));
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let shared = (Arc::new(Mutex::new(answers)), Arc::clone(&requests));
        // The threads end with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answers, requests) = shared.clone();
                thread::spawn(move || serve(&stream, &answers, &requests));
            }
        });
        Server { url, requests }
    }

    /// Runs `maos` against this server; its address reads `SERVER` in what is printed.
    pub(crate) fn maos(&self, arguments: &[&str]) -> Output {
        let mut output = super::maos(arguments).env("MAOS_SERVER", &self.url).output().unwrap();
        for stream in [&mut output.stdout, &mut output.stderr] {
            let text = String::from_utf8(std::mem::take(stream)).unwrap();
            *stream = text.replace(&self.url, "SERVER").into_bytes();
        }
        output
    }

    /// The body of a request, from 0.
    pub(crate) fn body(&self, index: usize) -> Value {
        let request = &self.requests()[index];
        serde_json::from_str(&request[request.find('{').unwrap()..]).unwrap()
    }

    /// What was asked so far: request line, then the body.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn serve(stream: &TcpStream, answers: &Mutex<Answers>, requests: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let line = line.trim().trim_end_matches(" HTTP/1.1").to_owned();
        let mut length = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).unwrap();
            let Some((name, value)) = header.split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let body = String::from_utf8(body).unwrap();
        requests.lock().unwrap().push(format!("{line} {body}").trim().to_owned());
        let (status, answer) = answer(&mut answers.lock().unwrap(), &line);
        let length = answer.len();
        let mut stream = stream;
        write!(stream, "HTTP/1.1 {status} x\r\ncontent-length: {length}\r\n\r\n{answer}").unwrap();
    }
}

fn answer(answers: &mut Answers, line: &str) -> (u16, String) {
    match answers.get_mut(line) {
        Some(left) if left.len() > 1 => left.pop().unwrap(),
        Some(left) => left[0].clone(),
        None => {
            let message = format!("the script has no answer to `{line}`");
            (404, error("PATH_NOT_FOUND", &message).to_string())
        }
    }
}

pub(crate) fn error(code: &str, message: &str) -> Value {
    json!({
        "error": message, "error_code": code, "details": {},
        "timestamp": "2026-01-01T00:00:00Z", "request_id": "r-1"
    })
}

/// The id of task or agent number `n`.
pub(crate) fn id(n: u32) -> String {
    format!("01900000-0000-7000-8000-{n:012}")
}

/// The task number `n`.
pub(crate) fn task(n: u32, name: &str, status: &str) -> Value {
    json!({
        "id": id(n), "name": name, "description": null, "status": status, "priority": "medium",
        "agent_id": null, "parent_task_id": null, "dependencies": [], "subtasks": [],
        "parameters": {"action": "noop"}, "result": null, "error": null,
        "created_at": "2026-01-01T00:00:00.5Z", "started_at": null, "completed_at": null,
        "updated_at": "2026-01-01T00:00:00.5Z", "timeout_seconds": 300, "retry_count": 0,
        "max_retries": 3, "resource_requirements": {}, "tags": [], "metadata": {}
    })
}

pub(crate) fn envelope(task: &Value) -> Value {
    json!({
        "task": task, "execution_plan_id": id(900), "message": "task", "newer_field": 7
    })
}

/// `value` with these fields put in.
pub(crate) fn with(mut value: Value, fields: Value) -> Value {
    let Value::Object(fields) = fields else { panic!("fields are an object") };
    value.as_object_mut().unwrap().extend(fields);
    value
}
