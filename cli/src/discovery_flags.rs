//! The flags that say how nodes are found (docs/spec/07 §5.1, §6).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use choria_client::ClientConfig;
use choria_client::discovery::external::ExternalOptions;
use choria_client::discovery::flatfile::{ListFormat, ListOptions};
use clap::Args;

use crate::failure::Failure;
use crate::nodes_file;

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Finding nodes")]
pub(crate) struct DiscoveryFlags {
    /// How to find nodes: mc or broadcast asks the network, flatfile reads a list of names, inventory a file of known
    /// nodes, external runs a program
    #[arg(long = "dm", value_name = "METHOD")]
    pub(crate) method: Option<String>,
    /// Option of the discovery method, such as `file=nodes.txt`
    #[arg(long = "do", value_name = "KEY=VALUE")]
    pub(crate) options: Vec<String>,
    /// File with the nodes to use; `-` reads stdin
    #[arg(long, value_name = "FILE")]
    pub(crate) nodes: Option<PathBuf>,
    /// How long to wait for nodes to answer, in seconds or as a duration
    #[arg(long, value_name = "SECONDS", value_parser = crate::arguments::seconds)]
    pub(crate) discovery_timeout: Option<Duration>,
    /// Stop looking shortly after the last answer
    #[arg(long)]
    pub(crate) discovery_window: bool,
}

/// A way to find nodes with all that it needs.
#[derive(Debug)]
pub(crate) enum Method {
    Broadcast,
    List { text: String, options: ListOptions },
    Inventory(PathBuf),
    External(ExternalOptions),
}

impl DiscoveryFlags {
    /// The word for the method, as the person or the configuration gave it.
    pub(crate) fn word<'a>(&'a self, config: &'a ClientConfig) -> &'a str {
        match (&self.nodes, &self.method) {
            (Some(_), _) => "flatfile",
            (None, Some(method)) => method,
            (None, None) => &config.discovery_method,
        }
    }

    /// The method and its word. Reads the list of nodes, so
    /// that a wrong name is told before anybody is asked anything.
    pub(crate) fn method(
        &self,
        config: &ClientConfig,
        collective: &str,
    ) -> Result<(String, Method), Failure> {
        let word = self.word(config);
        let method = match word {
            "mc" | "broadcast" => Method::Broadcast,
            "flatfile" | "file" => self.list(config)?,
            "inventory" => {
                let file = self.options(config)?.remove("file");
                let configured = config.settings.get("plugin.choria.discovery.inventory.source");
                Method::Inventory(file.or_else(|| configured.map(str::to_owned)).map(PathBuf::from).ok_or_else(
                    || Failure::usage("which inventory? give --do file=FILE, or set plugin.choria.discovery.inventory.source"),
                )?)
            }
            "external" => {
                let mut options = self.options(config)?;
                let configured = config.settings.get("plugin.choria.discovery.external.command");
                let command = options.remove("command").or_else(|| configured.map(str::to_owned)).ok_or_else(|| {
                    Failure::usage("which program? give --do command=PROGRAM, or set plugin.choria.discovery.external.command")
                })?;
                Method::External(ExternalOptions {
                    command: command.split_whitespace().map(str::to_owned).collect(),
                    collective: collective.to_owned(),
                    federations: config.brokers.federations.clone(),
                    options,
                    timeout: self.discovery_timeout.unwrap_or(config.discovery_timeout),
                })
            }
            other => {
                return Err(Failure::usage(format!("discovery method {other:?} is not known"))
                    .hint("use mc, broadcast, flatfile, inventory or external"));
            }
        };
        Ok((word.to_owned(), method))
    }

    fn list(&self, config: &ClientConfig) -> Result<Method, Failure> {
        let mut options = self.options(config)?;
        let file = self
            .nodes
            .clone()
            .or_else(|| options.remove("file").map(PathBuf::from))
            .ok_or_else(|| Failure::usage("which file? give --nodes FILE, or --do file=FILE"))?;
        let text = nodes_file::contents(&file)?;
        let path = options.remove("filter");
        let format = match options.remove("format") {
            Some(word) => ListFormat::named(&word).ok_or_else(|| {
                Failure::usage(format!("format {word:?} is not known: text, json, yaml or results"))
            })?,
            None if path.is_some() => ListFormat::of_file(&file),
            None => nodes_file::guess(&file, &text),
        };
        Ok(Method::List { text, options: ListOptions { format, path, all_results: false } })
    }

    /// `key=value` of the configuration, and of the flags, which win.
    fn options(&self, config: &ClientConfig) -> Result<BTreeMap<String, String>, Failure> {
        config
            .discovery_options
            .iter()
            .chain(&self.options)
            .map(|text| {
                text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())).ok_or_else(|| {
                    Failure::usage(format!("{text:?} is no option of a discovery method: write key=value"))
                })
            })
            .collect()
    }
}
