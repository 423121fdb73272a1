//! Running a helper program: JSON in, JSON out, and no way to hurt the provisioner (`docs/spec/10` V14).

use std::process::Stdio;
use std::time::Duration;

use choria_host::one_line;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use crate::helper::{HelperReply, HelperReplyError, HelperRequest};

/// Most bytes of an answer.
const MAX_OUTPUT: u64 = 1 << 20;

/// Most bytes of complaints that are kept for the log.
const MAX_COMPLAINTS: u64 = 64 << 10;

/// Environment variables every helper gets, when the provisioner has them.
const ENVIRONMENT: [&str; 2] = ["PATH", "LANG"];

/// Why a run gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    #[error("the helper {program} cannot be started: {source}")]
    Start { program: String, source: std::io::Error },
    #[error("the helper {program} failed while being read: {source}")]
    Read { program: String, source: std::io::Error },
    #[error("the helper {program} ran longer than {} and was killed with everything it started", choria_host::duration::human(*.limit))]
    TooLong { program: String, limit: Duration },
    #[error("the helper {program} printed more than 1 MiB and was killed")]
    TooMuch { program: String },
    #[error("the helper {program} ended with {status}{complaints}")]
    Failed { program: String, status: std::process::ExitStatus, complaints: String },
    #[error("the request for the helper cannot be written as JSON: {0}")]
    Request(serde_json::Error),
    #[error("{0}")]
    Reply(#[from] HelperReplyError),
}

/// A program and the limits it runs under.
#[derive(Debug)]
pub struct Program {
    /// The program and its arguments; never empty.
    pub words: Vec<String>,
    pub limit: Duration,
    /// Further environment variables it may see.
    pub environment: Vec<String>,
}

impl Program {
    /// One run for one node.
    pub async fn run(&self, request: &HelperRequest) -> Result<HelperReply, ProgramError> {
        let input = request.to_json().map_err(ProgramError::Request)?;
        let mut child = self.start()?;
        let group = child.id();
        let outcome = match tokio::time::timeout(self.limit, self.converse(&mut child, &input)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ProgramError::TooLong { program: self.name(), limit: self.limit }),
        };
        if matches!(outcome, Err(ref error) if !matches!(error, ProgramError::Failed { .. })) {
            // the leader is not reaped yet, so the number still means this group
            kill_group(group);
            if let Err(error) = child.wait().await {
                tracing::debug!(%error, "a killed helper could not be waited for");
            }
        }
        let output = outcome?;
        Ok(HelperReply::parse(&output)?)
    }

    fn start(&self) -> Result<Child, ProgramError> {
        let mut words = self.words.iter();
        let program = words.next().map(String::as_str).unwrap_or_default();
        let mut command = Command::new(program);
        command
            .args(words)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let listed = self.environment.iter().map(String::as_str);
        for name in ENVIRONMENT.into_iter().chain(listed) {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.spawn().map_err(|source| ProgramError::Start { program: self.name(), source })
    }

    async fn converse(&self, child: &mut Child, input: &[u8]) -> Result<Vec<u8>, ProgramError> {
        let failed = |source| ProgramError::Read { program: self.name(), source };
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let ask = async {
            if let Some(mut stdin) = stdin
                && let Err(error) = stdin.write_all(input).await
            {
                // a helper may answer without reading; that is its right
                tracing::debug!(helper = self.name(), %error, "the helper did not read its request");
            }
            Ok(())
        };
        let listen = async {
            let mut bytes = Vec::new();
            if let Some(stdout) = stdout {
                stdout.take(MAX_OUTPUT + 1).read_to_end(&mut bytes).await.map_err(failed)?;
            }
            // an error ends the whole conversation at once, so a helper that prints for ever is not read for ever
            if bytes.len() as u64 > MAX_OUTPUT {
                Err(ProgramError::TooMuch { program: self.name() })
            } else {
                Ok(bytes)
            }
        };
        let overhear = async {
            let mut bytes = Vec::new();
            if let Some(mut stderr) = stderr {
                (&mut stderr).take(MAX_COMPLAINTS).read_to_end(&mut bytes).await.map_err(failed)?;
                // the rest is read as well: a full pipe would stop the helper
                tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await.map_err(failed)?;
            }
            Ok(bytes)
        };
        let (output, complaints, ()) = tokio::try_join!(listen, overhear, ask)?;
        let status = child.wait().await.map_err(failed)?;
        let complaints = one_line(&String::from_utf8_lossy(&complaints));
        if !status.success() {
            let complaints =
                if complaints.is_empty() { complaints } else { format!(", saying: {complaints}") };
            return Err(ProgramError::Failed { program: self.name(), status, complaints });
        }
        if !complaints.is_empty() {
            tracing::debug!(helper = self.name(), "the helper said: {complaints}");
        }
        Ok(output)
    }

    fn name(&self) -> String {
        self.words.first().cloned().unwrap_or_default()
    }
}

fn kill_group(leader: Option<u32>) {
    let pid = leader.and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid
        && let Err(error) = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL)
    {
        tracing::debug!(%error, "a helper's process group was gone already");
    }
}
