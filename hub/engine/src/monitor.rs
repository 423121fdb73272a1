//! The bodies of monitoring, for HTTP and for system requests alike (`docs/spec/09 §A14`).

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::clock::{now_nanos, rfc3339};
use crate::close::CloseReason;
use crate::connections::ConnectionInfo;
use crate::engine::Shared;
use crate::subject;

/// Most connections in one answer.
const MAX_LIMIT: usize = 4096;
const DEFAULT_LIMIT: usize = 1024;

/// What a monitoring request may ask for; the same names in a query string and in request JSON.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(crate) struct Query {
    pub(crate) server_name: String,
    pub(crate) cluster: String,
    pub(crate) host: String,
    pub(crate) exact_match: bool,
    pub(crate) sort: String,
    pub(crate) auth: bool,
    pub(crate) subscriptions: bool,
    pub(crate) subscriptions_detail: bool,
    pub(crate) offset: usize,
    pub(crate) limit: usize,
    pub(crate) cid: u64,
    /// 0 open, 1 closed, 2 all.
    pub(crate) state: u8,
    pub(crate) user: String,
    pub(crate) acc: String,
    pub(crate) account: String,
    pub(crate) filter_subject: String,
}

impl Query {
    /// Whether this server is meant.
    pub(crate) fn selects(&self, shared: &Shared) -> bool {
        let meets = |wanted: &str, have: &str| {
            wanted.is_empty() || if self.exact_match { have == wanted } else { have.contains(wanted) }
        };
        meets(&self.server_name, shared.name())
            && meets(&self.cluster, &shared.config.cluster_name)
            && meets(&self.host, &shared.host())
    }

    fn limit(&self) -> usize {
        if self.limit == 0 { DEFAULT_LIMIT } else { self.limit.min(MAX_LIMIT) }
    }
}

impl Shared {
    pub(crate) fn varz(&self) -> Value {
        let mut body = self.varz_settings();
        if let (Some(map), Value::Object(traffic)) = (body.as_object_mut(), self.varz_traffic()) {
            map.extend(traffic);
        }
        body
    }

    fn varz_settings(&self) -> Value {
        let config = &self.config;
        let listening = self.listening.read().unwrap_or_else(PoisonError::into_inner).first().copied();
        json!({
            "server_id": self.server_id, "server_name": self.name(), "version": config.version, "proto": 1,
            "go": "rust", "host": self.host(), "port": listening.map_or(0, |bound| bound.address.port()),
            "auth_required": self.authenticator.required(),
            "tls_required": listening.is_some_and(|bound| bound.tls),
            "connect_urls": config.connect_urls, "max_connections": config.max_connections,
            "max_subscriptions": config.max_subscriptions,
            "ping_interval": nanos(config.ping_interval), "ping_max": config.max_pings_out,
            "http_host": "", "http_port": 0, "http_base_path": "", "https_port": 0,
            "auth_timeout": config.auth_timeout.as_secs_f64(), "max_control_line": config.max_control_line,
            "max_payload": config.max_payload, "max_pending": config.max_pending,
            "cluster": if config.cluster_name.is_empty() { json!({}) } else { json!({ "name": config.cluster_name }) },
            "gateway": {}, "leaf": {}, "mqtt": {}, "websocket": {}, "jetstream": {},
            "tls_timeout": config.tls_timeout.as_secs_f64(), "write_deadline": nanos(config.write_deadline),
        })
    }

    fn varz_traffic(&self) -> Value {
        let stats = self.stats();
        let uptime = self.started_at.elapsed();
        json!({
            "start": rfc3339(self.started), "now": rfc3339(now_nanos()), "uptime": uptime_text(uptime),
            "mem": resident_bytes(), "cores": cores(), "gomaxprocs": cores(), "cpu": 0,
            "connections": stats.connections, "total_connections": stats.total_connections,
            "routes": 0, "remotes": 0, "leafnodes": 0,
            "in_msgs": stats.in_msgs, "out_msgs": stats.out_msgs,
            "in_bytes": stats.in_bytes, "out_bytes": stats.out_bytes,
            "slow_consumers": stats.slow_consumers, "stale_connections": stats.stale_connections,
            "denied_connections": stats.denied,
            "subscriptions": stats.subscriptions, "http_req_stats": {},
            "config_load_time": rfc3339(self.started), "config_digest": "",
            "system_account": self.config.system_account,
            "slow_consumer_stats": {
                "clients": stats.slow_consumers, "routes": 0, "gateways": 0, "leafs": 0,
            },
        })
    }

    pub(crate) fn connz(&self, query: &Query) -> Value {
        let mut found: Vec<(ConnectionInfo, Option<(CloseReason, i64)>)> = Vec::new();
        if query.state != 1 {
            found.extend(self.all_clients().iter().map(|client| (ConnectionInfo::of(client), None)));
        }
        if query.state != 0 {
            let closed = self.lock_closed();
            found.extend(closed.iter().map(|it| (it.connection.clone(), Some((it.reason, it.stop)))));
        }
        let account = if query.acc.is_empty() { &query.account } else { &query.acc };
        found.retain(|(info, _)| {
            (query.cid == 0 || info.cid == query.cid)
                && (query.user.is_empty() || info.user == query.user)
                && (account.is_empty() || info.account == *account)
                && (query.filter_subject.is_empty() || self.subscribes(info.cid, &query.filter_subject))
        });
        sort(&mut found, &query.sort);
        let total = found.len();
        let page = found.iter().skip(query.offset).take(query.limit());
        let connections: Vec<Value> =
            page.map(|(info, closed)| self.connection(info, *closed, query)).collect();
        json!({
            "server_id": self.server_id, "now": rfc3339(now_nanos()), "num_connections": connections.len(),
            "total": total, "offset": query.offset, "limit": query.limit(), "connections": connections,
        })
    }

    /// Whether a connection has a subscription that meets `filter`.
    fn subscribes(&self, cid: u64, filter: &str) -> bool {
        let Some(client) = self.lock_clients().get(&cid).cloned() else { return false };
        let subs = client.lock_subs();
        subs.values().any(|held| subject::overlaps(filter.as_bytes(), &held.sub.subject))
    }

    fn connection(&self, info: &ConnectionInfo, closed: Option<(CloseReason, i64)>, query: &Query) -> Value {
        let now = closed.map_or_else(now_nanos, |(_, stop)| stop);
        let since = |then: i64| {
            uptime_text(std::time::Duration::from_nanos(u64::try_from(now.saturating_sub(then)).unwrap_or(0)))
        };
        let mut body = json!({
            "cid": info.cid, "kind": "Client", "type": "nats",
            "ip": info.remote.map(|remote| remote.ip().to_string()).unwrap_or_default(),
            "port": info.remote.map_or(0, |remote| remote.port()),
            "start": rfc3339(info.started), "last_activity": rfc3339(info.last_activity),
            "uptime": since(info.started), "idle": since(info.last_activity),
            "pending_bytes": info.pending_bytes,
            "in_msgs": info.in_msgs, "out_msgs": info.out_msgs,
            "in_bytes": info.in_bytes, "out_bytes": info.out_bytes, "subscriptions": info.subscriptions,
        });
        let Some(map) = body.as_object_mut() else { return body };
        let mut put = |key: &str, value: &str| {
            if !value.is_empty() {
                map.insert(key.to_owned(), value.into());
            }
        };
        put("name", &info.name);
        put("lang", &info.lang);
        put("version", &info.version);
        put("tls_version", info.tls_version.as_deref().unwrap_or_default());
        put("tls_cipher_suite", info.tls_cipher.as_deref().unwrap_or_default());
        put("rtt", &info.rtt.map(|rtt| format!("{}µs", rtt.as_micros())).unwrap_or_default());
        if let Some((reason, stop)) = closed {
            put("reason", reason.text());
            put("stop", &rfc3339(stop));
        }
        put("account", &info.account);
        if query.auth {
            put("authorized_user", &info.user);
        }
        if info.stalls > 0 {
            map.insert("stalls".to_owned(), info.stalls.into());
        }
        if !info.tags.is_empty() {
            map.insert("tags".to_owned(), json!(info.tags));
        }
        if query.subscriptions || query.subscriptions_detail {
            self.list_subscriptions(info.cid, query.subscriptions_detail, map);
        }
        body
    }

    fn list_subscriptions(&self, cid: u64, detail: bool, map: &mut Map<String, Value>) {
        let Some(client) = self.lock_clients().get(&cid).cloned() else { return };
        let subs = client.lock_subs();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if detail {
            let list: Vec<Value> = subs
                .values()
                .map(|held| {
                    json!({
                        "account": client.account.name, "subject": text(&held.sub.subject),
                        "qgroup": text(&held.sub.queue), "sid": text(held.sub.sid.bytes()),
                        "msgs": held.sub.delivered.load(Ordering::Relaxed),
                        "max": held.sub.max.load(Ordering::Relaxed), "cid": cid,
                    })
                })
                .collect();
            map.insert("subscriptions_list_detail".to_owned(), list.into());
        } else {
            let list: Vec<String> = subs.values().map(|held| text(&held.sub.subject)).collect();
            map.insert("subscriptions_list".to_owned(), list.into());
        }
    }

    pub(crate) fn subsz(&self) -> Value {
        let total: usize = self.accounts.iter().map(|account| account.subscriptions()).sum();
        json!({
            "server_id": self.server_id, "now": rfc3339(now_nanos()), "num_subscriptions": total,
            "num_cache": 0, "num_inserts": 0, "num_removes": 0, "num_matches": 0, "cache_hit_rate": 0,
            "max_fanout": 0, "avg_fanout": 0, "total": total, "offset": 0, "limit": 0,
        })
    }

    pub(crate) fn accountz(&self, name: &str) -> Value {
        let mut body = json!({
            "server_id": self.server_id, "now": rfc3339(now_nanos()),
            "system_account": self.config.system_account,
            "accounts": self.accounts.iter().map(|account| account.name.as_str()).collect::<Vec<_>>(),
        });
        if let (Some(account), Some(map)) = (self.account(name), body.as_object_mut()) {
            map.insert(
                "account_detail".to_owned(),
                json!({
                    "account_name": account.name, "client_cnt": account.connections.load(Ordering::Relaxed),
                    "leafnode_cnt": 0, "sub_cnt": account.subscriptions(), "expired": false, "complete": true,
                    "is_system": self.config.system_account.as_deref() == Some(account.name.as_str()),
                }),
            );
        }
        body
    }

    /// Counters of every account that has connections, or of the named one.
    pub(crate) fn accstatz(&self, name: &str) -> Value {
        let statz: Vec<Value> = self
            .accounts
            .iter()
            .filter(|account| if name.is_empty() { true } else { account.name == name })
            .map(|account| {
                let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
                json!({
                    "acc": account.name, "name": account.name, "conns": load(&account.connections),
                    "leafnodes": 0, "total_conns": load(&account.total_connections),
                    "num_subscriptions": account.subscriptions(),
                    "sent": { "msgs": 0, "bytes": 0 },
                    "received": { "msgs": load(&account.in_msgs), "bytes": load(&account.in_bytes) },
                    "slow_consumers": load(&account.slow_consumers),
                })
            })
            .collect();
        json!({ "server_id": self.server_id, "now": rfc3339(now_nanos()), "account_statz": statz })
    }

    /// The body of STATSZ.
    pub(crate) fn statsz(&self) -> Value {
        let stats = self.stats();
        let active =
            self.accounts.iter().filter(|account| account.connections.load(Ordering::Relaxed) > 0).count();
        let sent = json!({ "msgs": stats.out_msgs, "bytes": stats.out_bytes });
        let received = json!({ "msgs": stats.in_msgs, "bytes": stats.in_bytes });
        json!({
            "start": rfc3339(self.started), "mem": resident_bytes(), "cores": cores(), "cpu": 0,
            "connections": stats.connections, "total_connections": stats.total_connections,
            "active_accounts": active, "subscriptions": stats.subscriptions,
            "sent": sent, "sent_to_clients": sent, "received": received, "received_from_clients": received,
            "slow_consumers": stats.slow_consumers, "stale_connections": stats.stale_connections,
            "active_servers": 1,
        })
    }

    /// The engine itself stores nothing; who adds streams answers for them.
    pub(crate) fn jsz(&self) -> Value {
        json!({
            "server_id": self.server_id, "now": rfc3339(now_nanos()), "disabled": true,
            "memory": 0, "storage": 0, "accounts": 0, "streams": 0, "consumers": 0, "messages": 0, "bytes": 0,
        })
    }

    pub(crate) fn healthz(&self) -> (bool, Value) {
        let listening = !self.listening.read().unwrap_or_else(PoisonError::into_inner).is_empty();
        if listening && !self.is_shut_down() {
            (true, json!({ "status": "ok" }))
        } else {
            (
                false,
                json!({ "status": "unavailable", "status_code": 503, "error": "not listening for clients" }),
            )
        }
    }
}

fn sort(found: &mut [(ConnectionInfo, Option<(CloseReason, i64)>)], by: &str) {
    let number = |info: &ConnectionInfo, stop: i64| -> i128 {
        match by {
            "start" => i128::from(info.started),
            "subs" => info.subscriptions as i128,
            "pending" => info.pending_bytes as i128,
            "msgs_to" => i128::from(info.out_msgs),
            "msgs_from" => i128::from(info.in_msgs),
            "bytes_to" => i128::from(info.out_bytes),
            "bytes_from" => i128::from(info.in_bytes),
            "last" => i128::from(info.last_activity),
            "idle" => -i128::from(info.last_activity),
            "uptime" => -i128::from(info.started),
            "stop" => i128::from(stop),
            "rtt" => info.rtt.map_or(0, |rtt| rtt.as_nanos().cast_signed()),
            _ => -i128::from(info.cid),
        }
    };
    found.sort_by_key(|(info, closed)| std::cmp::Reverse(number(info, closed.map_or(0, |(_, stop)| stop))));
}

fn nanos(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// `1y2d3h4m5s`, leading zero units left out.
fn uptime_text(uptime: std::time::Duration) -> String {
    let seconds = uptime.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    let tail = seconds % 60;
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{tail}s"),
        (0, 0, _) => format!("{minutes}m{tail}s"),
        (0, _, _) => format!("{hours}h{minutes}m{tail}s"),
        _ => format!("{days}d{hours}h{minutes}m{tail}s"),
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Resident memory of the process, bytes; 0 where the kernel does not say.
fn resident_bytes() -> u64 {
    let Ok(text) = std::fs::read_to_string("/proc/self/status") else { return 0 };
    text.lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024)
}
