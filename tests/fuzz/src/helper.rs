//! What a site's own helper program prints, before a node is configured by it.

use std::path::Path;

use choria_host::Settings;
use choria_provisioner::helper::{HelperReply, check_line};

use crate::Target;
use crate::corpus::texts;
use crate::pieces::Script;

pub(crate) const TARGETS: &[Target] = &[Target {
    name: "helper_output",
    oracle: "an answer that is used makes exactly the lines it names, as the node reads them, and no file outside",
    run: helper_output,
    seeds: || {
        texts(&[
            r#"{"defer":false,"msg":"done","extra":[1],"key":null,"configuration":{"identity":"n1.example.net","plugin.choria.server.provision":"false"},"action_policies":null,"opa_policies":{"main.rego":"package x"},"server_claims":{"exp":1767225600,"permissions":{"streams":true}}}"#,
            r#"{"defer":true,"msg":"not yet"}"#,
            r#"{"shutdown":true}"#,
            r##"{"configuration":{"#a":"x","b":"y\nz"}}"##,
            r#"{"configuration":{"a":"x"},"action_policies":{"../x.policy":"p"}}"#,
        ])
    },
    words: &[
        "\"configuration\":{",
        "\"defer\":",
        "\"shutdown\":true",
        "\"server_claims\":{",
        "\"action_policies\":{",
        "\"opa_policies\":{",
        ".rego\":",
        ".policy\":",
        "\\n",
        "\\r",
        "\\u0000",
        "\\u0085",
        "=",
        "# ",
        "null",
    ],
    longest: 2048,
}];

fn helper_output(input: &[u8]) {
    // Two halves as one line, whatever they hold.
    let mut script = Script::new(input);
    let (key, value) = (
        String::from_utf8_lossy(script.text()).into_owned(),
        String::from_utf8_lossy(script.text()).into_owned(),
    );
    if check_line(&key, &value).is_ok() {
        reads_back(&key, &value);
    }
    let Ok(reply) = HelperReply::parse(input) else { return };
    if reply.defer || reply.shutdown {
        return;
    }
    assert!(!reply.configuration.is_empty());
    for (key, value) in &reply.configuration {
        reads_back(key, value);
    }
    for name in reply.action_policies.keys().chain(reply.opa_policies.keys()) {
        assert!(
            Path::new(name).file_name().is_some_and(|file| file == name.as_str()) && !name.contains(".."),
            "{name:?}"
        );
    }
    if reply.leaves_provisioning() {
        let text: String =
            reply.configuration.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        let settings = Settings::parse(&text, Path::new("server.conf")).expect("settings");
        assert!(!settings.bool("plugin.choria.server.provision", true), "the node would ask again");
    }
}

/// The node reads the line as it was meant: this key, this value, nothing else.
fn reads_back(key: &str, value: &str) {
    let settings =
        Settings::parse(&format!("{key} = {value}\n"), Path::new("server.conf")).expect("settings");
    let keys: Vec<&str> = settings.keys().collect();
    if value.trim().is_empty() {
        return assert!(keys.is_empty(), "{key:?} = {value:?} becomes {keys:?}");
    }
    assert_eq!(keys, [key], "{key:?} = {value:?}: {:?}", settings.warnings());
    assert_eq!(settings.get(key), Some(value.trim()));
}
