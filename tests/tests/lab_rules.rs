//! Rows of docs/spec/10 §14.11 about what a lab may relax and what it has to say.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use choria_tests::{Network, binary, is_alive};
use serde_json::Value;

/// What `lab up` prints with these arguments, and whether it went well.
fn lab_up(folder: &std::path::Path, arguments: &[&str]) -> Result<(bool, String)> {
    let mut command = Command::new(binary("choria"));
    command.args(["lab", "up", "--detach", "--servers", "1", "--dir"]).arg(folder).args(arguments);
    let output = command.env("CHORIA_LAB_ALLOW_ROOT", "1").output()?;
    Ok((output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned()))
}

fn listeners(port: u64) -> Result<Vec<String>> {
    let table = std::fs::read_to_string("/proc/net/tcp")?;
    let suffix = format!(":{port:04X}");
    let local = table.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next()?;
        (local.ends_with(&suffix) && fields.nth(1) == Some("0A")).then(|| local.to_owned())
    });
    Ok(local.collect())
}

#[test]
fn t_370_t_371_t_372_t_373_a_lab_stays_a_lab() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let open = folder.path().join("open");
    let (fine, said) = lab_up(&open, &["--bind", "0.0.0.0"])?;
    ensure!(!fine && said.contains("--insecure-lab"), "{said}");
    ensure!(!open.join("lab.json").exists(), "something was made");
    let (fine, said) = lab_up(&open, &["--bind", "192.0.2.1", "--insecure-lab"])?;
    ensure!(!fine && said.contains("192.0.2.1"), "{said}");
    choria_rows::row(370, "lab up --bind 0.0.0.0", "refused, --insecure-lab is asked for; nothing is made");

    let network = Network::lab(1)?;
    let lab = network.lab_folder();
    let record: Value = serde_json::from_slice(&std::fs::read(lab.join("lab.json"))?)?;
    let port = record.pointer("/ports/broker").and_then(Value::as_u64).context("a port")?;
    ensure!(listeners(port)? == [format!("0100007F:{port:04X}")], "{:?}", listeners(port)?);
    ensure!(std::fs::metadata(&lab)?.permissions().mode() & 0o777 == 0o700, "the folder is open");
    let mut status = Command::new(binary("choria"));
    let output = status.args(["lab", "status", "--dir"]).arg(&lab).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(text.contains("Lab in") && text.contains("Good until"), "{text}");
    let page = record.pointer("/ports/broker_statistics").and_then(Value::as_u64).context("a port")?;
    let varz = ureq::get(format!("http://127.0.0.1:{page}/varz")).call()?.body_mut().read_to_string()?;
    ensure!(varz.contains("lab-broker.lab.choria.local"), "{varz}");
    choria_rows::row(
        371,
        "lab up, lab status, /varz",
        "folder 0700; says that it is a lab and until when; server name lab-broker…; on 127.0.0.1 only",
    );

    // a folder with keys that no lab made
    let foreign = folder.path().join("foreign");
    std::fs::create_dir(&foreign)?;
    std::fs::write(foreign.join("org.seed"), "00".repeat(32))?;
    let (fine, said) = lab_up(&foreign, &[])?;
    ensure!(!fine, "{said}");
    ensure!(std::fs::read_dir(&foreign)?.count() == 1, "something was made beside it");
    choria_rows::row(
        372,
        "lab up in a folder that holds somebody's org.seed",
        format!("refused: {}", said.lines().last().unwrap_or_default()),
    );

    let processes = network.processes()?;
    network.down()?;
    ensure!(processes.iter().all(|(_, id)| !is_alive(*id)), "{processes:?}");
    let mut left = Vec::new();
    let mut folders = vec![lab];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "seed" || end == "jwt" || end == "key") {
                left.push(path);
            }
        }
    }
    ensure!(left.is_empty(), "left behind: {left:?}");
    choria_rows::row(
        373,
        "lab down",
        format!("{} processes ended, no seed, token or key left", processes.len()),
    );
    Ok(())
}
