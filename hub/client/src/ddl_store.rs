//! Where an agent's DDL is found: built in, in a directory, or at the registry service (docs/spec/07 §4.3, 03 §10.3).

use std::path::{Path, PathBuf};

use choria_protocol::ddl::{self, Ddl, MAX_DDL};
use serde_json::Map;

use crate::{ClientConfig, ClientError, Connection, RpcOptions, Verification, call};

const REGISTRY_AGENT: &str = "choria_registry";
/// Directories below a library directory; agents may lie deeper.
const MAX_DEPTH: usize = 8;

/// The DDL of an agent, without asking the network: built in, library directories, registry cache.
///
/// # Errors
/// [`ClientError::NoDdl`] with every directory looked at, or a DDL that cannot be used.
pub fn find(config: &ClientConfig, agent: &str) -> Result<Ddl, ClientError> {
    let mut looked_at = Vec::new();
    if !is_agent_name(agent) {
        return Err(ClientError::NoDdl { agent: agent.escape_default().to_string(), looked_at });
    }
    if let Some(ddl) = ddl::builtin(agent) {
        return Ok(ddl);
    }
    let file_name = format!("{agent}.json");
    let mut found = None;
    for library in &config.libdirs {
        for family in ["choria", "mcollective"] {
            let directory = library.join(family).join("agent");
            // the last one wins, as for peers
            if let Some(file) = last_below(&directory, &file_name, MAX_DEPTH) {
                found = Some(file);
            }
            looked_at.push(directory);
        }
    }
    if let Some(cache) = &config.registry_cache
        && found.is_none()
    {
        let directory = cache.join("agent");
        let file = directory.join(&file_name);
        looked_at.push(directory);
        found = file.is_file().then_some(file);
    }
    match found {
        Some(file) => load(&file, agent),
        None => Err(ClientError::NoDdl { agent: agent.to_owned(), looked_at }),
    }
}

/// As [`find`], and asks the registry when a cache directory is configured; the answer is kept there.
pub async fn find_or_fetch(connection: &Connection, agent: &str) -> Result<Ddl, ClientError> {
    match find(connection.config(), agent) {
        Err(ClientError::NoDdl { .. })
            if connection.config().registry_cache.is_some() && is_agent_name(agent) =>
        {
            fetch(connection, agent).await
        }
        found => found,
    }
}

/// Asks the registry, whatever is cached.
pub async fn fetch(connection: &Connection, agent: &str) -> Result<Ddl, ClientError> {
    let cache = connection.config().registry_cache.clone().ok_or(ClientError::Setting {
        key: "plugin.choria.services.registry.cache",
        reason: "name a directory to keep DDLs in".to_owned(),
    })?;
    if !is_agent_name(agent) {
        return Err(ClientError::NoDdl { agent: agent.escape_default().to_string(), looked_at: Vec::new() });
    }
    let mut data = Map::new();
    for (input, value) in [("name", agent), ("plugin_type", "agent"), ("format", "json")] {
        data.insert(input.to_owned(), value.into());
    }
    let mut answer = None;
    call(connection, &registry_ddl()?, "ddl", data, RpcOptions::default(), |reply| answer = Some(reply))
        .await?;
    let answer = answer.ok_or(ClientError::NoResponses)?;
    if let Verification::Invalid(reason) = answer.verification {
        return Err(ClientError::Request(format!("the registry's answer does not verify ({reason})")));
    }
    if !answer.status.is_ok() {
        return Err(ClientError::Request(format!(
            "the registry has no DDL for '{agent}': {}",
            answer.message
        )));
    }
    let text = answer.data.get("ddl").and_then(serde_json::Value::as_str).unwrap_or_default();
    let ddl = Ddl::parse(text.as_bytes())?;
    if ddl.name() != agent {
        return Err(ClientError::Request(format!(
            "the registry sent the DDL of another agent than '{agent}'"
        )));
    }
    keep(&cache.join("agent"), agent, text)?;
    Ok(ddl)
}

fn keep(directory: &Path, agent: &str, text: &str) -> Result<(), ClientError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let file = directory.join(format!("{agent}.json"));
    let failed = |reason: String| ClientError::Write { path: file.clone(), reason };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|e| failed(e.to_string()))?;
    choria_host::private_file::write_atomic(&file, text.as_bytes(), 0o644).map_err(|e| failed(e.to_string()))
}

/// The part of the registry's own DDL that is needed to ask it.
fn registry_ddl() -> Result<Ddl, ClientError> {
    let text = |maxlength: u64| serde_json::json!({"type": "string", "optional": false, "validation": "^[a-z0-9_]+$", "maxlength": maxlength});
    let document = serde_json::json!({
        "metadata": {"name": REGISTRY_AGENT, "timeout": 2, "service": true},
        "actions": [{"action": "ddl", "input": {"name": text(64), "plugin_type": text(64), "format": text(64)}}]
    });
    Ok(Ddl::parse(document.to_string().as_bytes())?)
}

fn load(file: &Path, agent: &str) -> Result<Ddl, ClientError> {
    use std::io::Read as _;
    let failed = |reason: String| ClientError::Read { path: file.to_owned(), reason };
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_DDL).unwrap_or(u64::MAX).saturating_add(1);
    std::fs::File::open(file)
        .and_then(|opened| opened.take(limit).read_to_end(&mut bytes))
        .map_err(|e| failed(e.to_string()))?;
    let ddl = Ddl::parse(&bytes).map_err(|e| failed(e.to_string()))?;
    if ddl.name() == agent { Ok(ddl) } else { Err(failed(format!("it describes agent '{}'", ddl.name()))) }
}

/// The last file of that name in the order of a sorted walk.
fn last_below(directory: &Path, file_name: &str, depth: usize) -> Option<PathBuf> {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(directory).ok()?.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    let mut found = None;
    for entry in entries {
        if entry.is_dir() && depth > 0 {
            found = last_below(&entry, file_name, depth - 1).or(found);
        } else if entry.file_name().is_some_and(|name| name == file_name) {
            found = Some(entry);
        }
    }
    found
}

fn is_agent_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 64
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_searched_and_named() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("choria/agent/site");
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::write(deep.join("web.json"), r#"{"metadata":{"name":"web"}}"#).unwrap();
        std::fs::write(deep.join("liar.json"), r#"{"metadata":{"name":"web"}}"#).unwrap();
        let text = format!("libdir = {}", directory.path().display());
        let settings = choria_host::Settings::parse(&text, Path::new("client.conf")).unwrap();
        let config = ClientConfig::from_settings(settings).unwrap();
        assert_eq!(find(&config, "web").unwrap().name(), "web");
        assert_eq!(find(&config, "rpcutil").unwrap().name(), "rpcutil");
        assert!(matches!(find(&config, "liar"), Err(ClientError::Read { .. })));
        let error = find(&config, "nope").unwrap_err();
        assert!(error.to_string().contains("mcollective/agent"), "{error}");
        assert!(find(&config, "../choria/agent/site/web").is_err());
    }

    #[test]
    fn the_registry_can_be_asked() {
        assert!(registry_ddl().unwrap().metadata.service);
    }
}
