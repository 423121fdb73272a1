//! Facts and classes of this node, read from files and again when they change (docs/spec/03 §15).

use std::io::Read;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::SystemTime;

use serde_json::{Map, Value};

/// Largest file read, in bytes.
const MAX_FILE: u64 = 16 * 1024 * 1024;
/// Most classes kept.
const MAX_CLASSES: usize = 65_536;

/// What tells one state of a file from the next; `None`: not there.
type Stamp = Option<(SystemTime, u64, u64)>;

fn stamp(path: &Path) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len(), meta.ino()))
}

#[derive(Debug)]
struct FactFile {
    path: PathBuf,
    stamp: Stamp,
    /// The last good content.
    facts: Map<String, Value>,
}

/// The facts: a shallow merge of all files, later files win.
#[derive(Debug)]
pub struct Facts {
    files: Vec<FactFile>,
    merged: Value,
    text: Rc<[u8]>,
    read: bool,
}

impl Facts {
    pub fn new(paths: &[PathBuf]) -> Self {
        let files = paths.iter().map(|path| FactFile { path: path.clone(), stamp: None, facts: Map::new() });
        Facts {
            files: files.collect(),
            merged: Value::Object(Map::new()),
            text: Rc::from(b"{}".as_slice()),
            read: false,
        }
    }

    /// The facts as one JSON object.
    pub fn value(&mut self) -> &Value {
        self.refresh();
        &self.merged
    }

    /// The facts as the text of one JSON object.
    pub fn text(&mut self) -> Rc<[u8]> {
        self.refresh();
        Rc::clone(&self.text)
    }

    fn refresh(&mut self) {
        let mut changed = !self.read;
        self.read = true;
        for file in &mut self.files {
            let now = stamp(&file.path);
            if now == file.stamp {
                continue;
            }
            file.stamp = now;
            if now.is_none() {
                tracing::warn!(path = %file.path.display(), "the facts file is gone");
                file.facts = Map::new();
                changed = true;
                continue;
            }
            match read_facts(&file.path) {
                Ok(facts) => {
                    file.facts = facts;
                    changed = true;
                }
                Err(reason) => {
                    tracing::warn!(path = %file.path.display(), %reason, "keeping the last good facts");
                }
            }
        }
        if !changed {
            return;
        }
        let mut merged = Map::new();
        for file in &self.files {
            merged.extend(file.facts.clone());
        }
        self.merged = Value::Object(merged);
        self.text = Rc::from(self.merged.to_string().into_bytes());
    }
}

fn read_bounded(path: &Path) -> Result<String, String> {
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut text = String::new();
    file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > MAX_FILE {
        return Err(format!("it is larger than {MAX_FILE} bytes"));
    }
    Ok(text)
}

fn read_facts(path: &Path) -> Result<Map<String, Value>, String> {
    let text = read_bounded(path)?;
    let yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
    let value: Value = if yaml {
        serde_saphyr::from_str(&text).map_err(|error| error.to_string())?
    } else {
        serde_json::from_str(&text).map_err(|error| error.to_string())?
    };
    match value {
        Value::Object(facts) => Ok(facts),
        _ => Err("its top level is not an object".to_owned()),
    }
}

/// The classes: one per line, sorted.
#[derive(Debug)]
pub struct Classes {
    path: PathBuf,
    stamp: Stamp,
    list: Rc<[String]>,
}

impl Classes {
    pub fn new(path: &Path) -> Self {
        Classes { path: path.to_path_buf(), stamp: None, list: Rc::from(Vec::new()) }
    }

    /// The classes now; a file that cannot be read gives none.
    pub fn list(&mut self) -> Rc<[String]> {
        let now = stamp(&self.path);
        if now != self.stamp {
            self.stamp = now;
            let text = if now.is_some() { read_bounded(&self.path) } else { Ok(String::new()) };
            let mut list: Vec<String> = match text {
                Ok(text) => {
                    text.lines().filter(|l| !l.is_empty()).take(MAX_CLASSES).map(str::to_owned).collect()
                }
                Err(reason) => {
                    tracing::warn!(path = %self.path.display(), %reason, "could not read the classes");
                    Vec::new()
                }
            };
            list.sort();
            self.list = Rc::from(list);
        }
        Rc::clone(&self.list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_and_yaml_merge_and_are_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b, c) = (dir.path().join("a.json"), dir.path().join("b.yaml"), dir.path().join("c.yml"));
        std::fs::write(&a, r#"{"os":{"name":"Debian"},"cpus":2}"#).unwrap();
        std::fs::write(&b, "site: mt\nos: &x\n  family: debian\ncopy: *x\n").unwrap();
        std::fs::write(&c, "[1, 2]").unwrap();
        let mut facts = Facts::new(&[a.clone(), b, c, dir.path().join("none.json")]);
        assert_eq!(
            *facts.value(),
            json!({"os":{"family":"debian"},"cpus":2,"site":"mt","copy":{"family":"debian"}})
        );
        let text: Value = serde_json::from_slice(&facts.text()).unwrap();
        assert_eq!(text["cpus"], 2);
        std::fs::write(&a, r#"{"cpus":16}"#).unwrap();
        assert_eq!(facts.value()["cpus"], 16);
        std::fs::write(&a, r#"{"cpus":"#).unwrap();
        assert_eq!(facts.value()["cpus"], 16, "a half written file does not lose the facts");
        std::fs::remove_file(&a).unwrap();
        assert_eq!(facts.value().get("cpus"), None);
    }

    #[test]
    fn no_facts_are_an_empty_object() {
        assert_eq!(*Facts::new(&[]).text(), *b"{}");
    }

    #[test]
    fn classes_are_sorted_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("classes.txt");
        let mut classes = Classes::new(&path);
        assert!(classes.list().is_empty());
        std::fs::write(&path, "settings\napache\n\nrole::web\n").unwrap();
        assert_eq!(classes.list().as_ref(), ["apache", "role::web", "settings"]);
    }
}
