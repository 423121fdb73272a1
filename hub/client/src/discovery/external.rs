//! Nodes from a program of the site (docs/spec/03 §15.3, 07 §6.2).

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use choria_protocol::Filter;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};

use super::Discovered;
use super::flatfile::{read, unreadable};
use crate::ClientError;

const REQUEST: &str = "io.choria.choria.discovery.v1.external_request";
const REPLY: &str = "io.choria.choria.discovery.v1.external_reply";
const SCHEMA: &str = "https://choria.io/schemas/choria/discovery/v1/external_request.json";

/// Output of the program that is logged, in bytes.
const MAX_OUTPUT: u64 = 64 * 1024;

#[derive(Serialize)]
struct Request<'a> {
    protocol: &'a str,
    collective: &'a str,
    filter: &'a Filter,
    federations: &'a [String],
    options: &'a BTreeMap<String, String>,
    #[serde(rename = "$schema")]
    schema: &'a str,
    /// Seconds.
    timeout: f64,
}

#[derive(Deserialize)]
struct Reply {
    protocol: String,
    #[serde(default)]
    nodes: Vec<String>,
    #[serde(default)]
    error: String,
}

/// What to run.
#[derive(Debug, Clone)]
pub struct ExternalOptions {
    /// The program and its first arguments; no shell is involved.
    pub command: Vec<String>,
    pub collective: String,
    pub federations: Vec<String>,
    /// What the person gave with `--do`.
    pub options: BTreeMap<String, String>,
    /// At least a second is allowed.
    pub timeout: Duration,
}

/// Runs the program with a request file and reads the reply file it leaves.
pub async fn run(options: &ExternalOptions, filter: &Filter) -> Result<Discovered, ClientError> {
    let failed = |text: String| ClientError::Discovery(format!("external discovery failed: {text}"));
    let (program, arguments) =
        options.command.split_first().ok_or_else(|| failed("no command is configured".to_owned()))?;
    let timeout = options.timeout.max(Duration::from_secs(1));
    let directory = Directory::new().map_err(|e| failed(e.to_string()))?;
    let (request_file, reply_file) = (directory.0.join("request.json"), directory.0.join("reply.json"));
    let request = Request {
        protocol: REQUEST,
        collective: &options.collective,
        filter,
        federations: &options.federations,
        options: &options.options,
        schema: SCHEMA,
        timeout: timeout.as_secs_f64(),
    };
    let request = serde_json::to_vec(&request).map_err(|e| failed(e.to_string()))?;
    choria_host::private_file::write_private(&request_file, &request).map_err(|e| failed(e.to_string()))?;
    choria_host::private_file::write_private(&reply_file, b"").map_err(|e| failed(e.to_string()))?;

    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .args([request_file.as_os_str(), reply_file.as_os_str()])
        .arg(REQUEST)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("CHORIA_EXTERNAL_REQUEST", &request_file)
        .env("CHORIA_EXTERNAL_REPLY", &reply_file)
        .env("CHORIA_EXTERNAL_PROTOCOL", REQUEST)
        .current_dir(&directory.0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| failed(format!("{program}: {e}")))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let finished = tokio::time::timeout(timeout, async {
        let (status, (), ()) = tokio::join!(child.wait(), log(stdout, false), log(stderr, true));
        status
    });
    let status = finished
        .await
        .map_err(|_| failed(format!("{program} took longer than {timeout:?}")))?
        .map_err(|e| failed(e.to_string()))?;
    if !status.success() {
        return Err(failed(format!("{program} ended with {status}")));
    }
    parse(&read(&reply_file)?)
}

fn parse(text: &str) -> Result<Discovered, ClientError> {
    let reply: Reply = serde_json::from_str(text).map_err(|e| unreadable(&e))?;
    if reply.protocol != REPLY {
        return Err(ClientError::Discovery(
            "the reply of the external program has another protocol".to_owned(),
        ));
    }
    if !reply.error.is_empty() {
        let error: String = reply.error.chars().take(256).flat_map(char::escape_default).collect();
        return Err(ClientError::Discovery(error));
    }
    if let Some(bad) = reply.nodes.iter().find(|name| !choria_token::names::valid_identity(name)) {
        let shown: String = bad.chars().take(64).flat_map(char::escape_default).collect();
        return Err(ClientError::Discovery(format!("invalid identity string \"{shown}\"")));
    }
    Ok(Discovered::unasked(reply.nodes))
}

/// Logs what the program says, up to a limit; the rest is read and dropped so that it does not block.
async fn log(output: Option<impl AsyncRead + Unpin>, is_error: bool) {
    let Some(output) = output else { return };
    let mut limited = BufReader::new(output.take(MAX_OUTPUT));
    let mut line = Vec::new();
    while limited.read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        if is_error {
            tracing::error!("external discovery: {text}")
        } else {
            tracing::info!("external discovery: {text}")
        }
        line.clear();
    }
    let mut rest = limited.into_inner().into_inner();
    if let Err(error) = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await {
        tracing::debug!("external discovery: {error}");
    }
}

/// A directory of our own, 0700, gone when dropped.
struct Directory(std::path::PathBuf);

impl Directory {
    fn new() -> std::io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        let name = format!("choria-discovery-{}", hex::encode(choria_host::random::array::<12>()));
        let path = std::env::temp_dir().join(name);
        // fails when the name is taken: nobody can prepare it for us
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(Path::new(&self.0)) {
            tracing::debug!(directory = %self.0.display(), "not removed: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(script: &str, timeout: u64) -> ExternalOptions {
        ExternalOptions {
            command: ["/bin/sh", "-c", script, "x"].map(str::to_owned).to_vec(),
            collective: "choria".to_owned(),
            federations: Vec::new(),
            options: BTreeMap::new(),
            timeout: Duration::from_secs(timeout),
        }
    }

    #[tokio::test]
    async fn a_program_answers() {
        let script = r#"grep -q '"collective":"choria"' "$1" && test "$3" = "$CHORIA_EXTERNAL_PROTOCOL" && echo '{"protocol":"io.choria.choria.discovery.v1.external_reply","nodes":["n1","n2"]}' > "$CHORIA_EXTERNAL_REPLY""#;
        assert_eq!(run(&options(script, 10), &Filter::default()).await.unwrap().identities(), ["n1", "n2"]);
    }

    #[tokio::test]
    async fn failures_are_reported() {
        for (script, says) in [
            ("exit 3", "exit status: 3"),
            ("sleep 30", "took longer"),
            ("true", "cannot be read"),
            (r#"echo '{"protocol":"x","nodes":[]}' > "$2""#, "another protocol"),
            (
                r#"echo '{"protocol":"io.choria.choria.discovery.v1.external_reply","error":"no luck"}' > "$2""#,
                "no luck",
            ),
            (
                r#"echo '{"protocol":"io.choria.choria.discovery.v1.external_reply","nodes":["a b"]}' > "$2""#,
                "invalid identity",
            ),
        ] {
            let limit = if script.starts_with("sleep") { 1 } else { 20 };
            let error = run(&options(script, limit), &Filter::default()).await.unwrap_err();
            assert!(error.to_string().contains(says), "{script}: {error}");
        }
    }
}
