//! Facts for the lab's nodes: some true of this machine, some that tell the nodes apart (decision D9).

use serde_json::{Value, json};

/// The facts of node number `number`, from 1.
pub(crate) fn of_node(number: usize, name: &str) -> Value {
    let pick =
        |choices: &[&str]| choices.get(number % choices.len().max(1)).copied().unwrap_or_default().to_owned();
    let system = rustix::system::uname();
    let text = |value: &std::ffi::CStr| value.to_string_lossy().into_owned();
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    json!({
        "role": pick(&["web", "web", "database", "cache"]),
        "rack": format!("r{}", number % 4 + 1),
        "site": pick(&["london", "paris"]),
        "lab": true,
        "hostname": name,
        "memory": { "size": megabytes(&memory, "MemTotal"), "type": "RAM" },
        "cpu": { "cpus": std::thread::available_parallelism().map_or(1, usize::from) },
        "os": { "name": os_name(), "kernel": text(system.release()), "architecture": text(system.machine()) },
    })
}

fn megabytes(meminfo: &str, key: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn os_name() -> String {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or("Linux").trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_differ_and_share_the_machine() {
        let (one, two) = (of_node(1, "a"), of_node(2, "b"));
        assert_ne!(one["rack"], two["rack"]);
        assert_eq!(one["memory"], two["memory"]);
        assert_eq!(megabytes("MemFree: 1 kB\nMemTotal:       8150016 kB\n", "MemTotal"), 7959);
    }
}
