//! Results for scripts: one JSON document, or JSON lines (docs/spec/07 §7.2).

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::answer::Answer;
use super::summary::Summary;
use crate::failure::Failure;
use crate::output;
use crate::output::form::Form;

fn time(seconds: i64) -> String {
    choria_host::clock::rfc3339_seconds(seconds)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn reply(answer: &Answer) -> Value {
    json!({
        "sender": answer.sender,
        "statuscode": i64::from(answer.status),
        "statusmsg": answer.message,
        "data": answer.data,
        "time_utc": time(answer.at),
        "verification": answer.verification,
    })
}

fn request_stats(summary: &crate::fleet::Summary) -> Value {
    json!({
        "requestid": summary.request_id,
        "no_responses": summary.silent,
        "unexpected_responses": summary.unexpected,
        "discovered": summary.discovered,
        "failed": summary.failed,
        "ok": summary.ok,
        "responses": summary.responses,
        "invalid": summary.invalid,
        "publish_time": nanos(summary.publish),
        "request_time": nanos(summary.took),
        "discover_time": nanos(summary.discovery),
        "start_time_utc": time(summary.started),
    })
}

fn all(summaries: &[Summary]) -> Map<String, Value> {
    summaries.iter().map(Summary::json).collect()
}

pub(crate) fn whole(
    agent: &str,
    action: &str,
    answers: &[Answer],
    summary: &crate::fleet::Summary,
    summaries: &[Summary],
) -> Value {
    let replies: Vec<Value> = answers
        .iter()
        .map(|answer| {
            let mut value = reply(answer);
            if let Some(object) = value.as_object_mut() {
                object.insert(String::from("action"), Value::from(action));
            }
            value
        })
        .collect();
    json!({
        "agent": agent,
        "action": action,
        "replies": replies,
        "request_stats": request_stats(summary),
        "summaries": all(summaries),
    })
}

/// The id of a request whose replies go elsewhere.
pub(crate) fn request_id(id: &str, form: Form) -> Result<String, Failure> {
    Ok(form.document(&json!({"requestid": id}))?.unwrap_or_else(|| format!("{id}\n")))
}

/// What would be sent to whom, in a form that holds any value.
pub(crate) fn plan(
    agent: &str,
    action: &str,
    nodes: &[String],
    data: &Map<String, Value>,
    form: Form,
) -> Result<Option<String>, Failure> {
    let plan = json!({"agent": agent, "action": action, "data": data, "nodes": nodes});
    if form == Form::Jsonl { Ok(Some(line("plan", plan))) } else { form.document(&plan) }
}

fn line(kind: &str, fields: Value) -> String {
    let mut object = Map::new();
    object.insert(String::from("k"), Value::from(kind));
    if let Value::Object(fields) = fields {
        object.extend(fields);
    }
    output::json_line(&object)
}

/// Nodes are being looked for.
pub(crate) fn discovering(method: &str) -> String {
    line("discovery", json!({"dm": method}))
}

pub(crate) fn discovered(method: &str, count: usize, took: Duration) -> String {
    line("discovery", json!({"dm": method, "count": count, "dt": took.as_secs_f64()}))
}

pub(crate) fn error(message: &str) -> String {
    line("error", json!({"err": message}))
}

pub(crate) fn result(answer: &Answer) -> String {
    line("result", json!({"rr": reply(answer)}))
}

pub(crate) fn summaries(summaries: &[Summary]) -> String {
    line("summaries", json!({"agg": all(summaries)}))
}

pub(crate) fn stats(summary: &crate::fleet::Summary) -> String {
    line("stats", json!({"stat": request_stats(summary)}))
}
