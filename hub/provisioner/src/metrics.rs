//! Counters under the names that dashboards know (`docs/spec/04 §10.10`), and the page that shows them.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType, Summary};
use prometheus::{Encoder as _, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

/// All metrics of one provisioner, in a registry of their own.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    pub discovered: IntCounter,
    pub event_discovered: IntCounter,
    pub discover_cycles: IntCounter,
    pub discovery_errors: IntCounter,
    pub provision_errors: IntCounter,
    pub provisioned: IntCounter,
    pub helper_errors: IntCounter,
    pub helper_shutdown_requests: IntCounter,
    rpc_errors: IntCounterVec,
    rpc_time: Times,
    helper_time: Times,
    pub busy_workers: IntGauge,
    pub work_queue_entries: IntGauge,
    pub waiting_nodes: IntGauge,
    pub paused: IntGauge,
    /// Replies of the wrong node, to no request, or unreadable [ours].
    pub unexpected_replies: IntCounter,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// Fails only when a name were registered twice or malformed.
    pub fn new(site: &str) -> Result<Metrics, prometheus::Error> {
        let registry = Registry::new();
        let named = |name: &str, help: &str| {
            Opts::new(format!("choria_provisioner_{name}"), help).const_label("site", site)
        };
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::with_opts(named(name, help))?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::with_opts(named(name, help))?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let rpc_errors = IntCounterVec::new(named("rpc_errors", "Requests to nodes that failed"), &["rpc"])?;
        registry.register(Box::new(rpc_errors.clone()))?;
        let rpc_time = Times::new(named("rpc_time", "Seconds that requests to nodes took"), Some("rpc"))?;
        registry.register(Box::new(rpc_time.clone()))?;
        let helper_time = Times::new(named("helper_time", "Seconds that the helper took"), None)?;
        registry.register(Box::new(helper_time.clone()))?;
        Ok(Metrics {
            discovered: counter("discovered", "Nodes found by broadcast")?,
            event_discovered: counter("event_discovered", "Nodes found by their startup event")?,
            discover_cycles: counter("discover_cycles", "Broadcast discoveries")?,
            discovery_errors: counter("discovery_errors", "Broadcast discoveries that failed")?,
            provision_errors: counter("provision_errors", "Nodes that could not be provisioned")?,
            provisioned: counter("provisioned", "Nodes that were provisioned")?,
            helper_errors: counter("helper_errors", "Failed runs of the helper")?,
            helper_shutdown_requests: counter("helper_shutdown_requests", "Nodes the helper shut down")?,
            rpc_errors,
            rpc_time,
            helper_time,
            busy_workers: gauge("busy_workers", "Nodes being worked on")?,
            work_queue_entries: gauge("work_queue_entries", "Entries of the work queue")?,
            waiting_nodes: gauge("waiting_nodes", "Nodes waiting, being worked on, or just done")?,
            paused: gauge("paused", "1 while paused")?,
            unexpected_replies: counter("unexpected_replies", "Replies that were ignored")?,
            registry,
        })
    }

    /// One request to a node ended; `rpc` is `agent#action`.
    pub fn rpc(&self, rpc: &str, took: Duration, failed: bool) {
        self.rpc_time.observe(rpc, took);
        if failed {
            self.rpc_errors.with_label_values(&[rpc]).inc();
        }
    }

    /// One run of the helper ended.
    pub fn helper(&self, took: Duration) {
        self.helper_time.observe("", took);
    }

    /// The page in the text format of Prometheus.
    pub fn page(&self) -> String {
        let mut page = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut page) {
            Ok(()) => String::from_utf8_lossy(&page).into_owned(),
            Err(error) => format!("# {error}\n"),
        }
    }
}

/// A summary without quantiles, which is what upstream exports: a sum and a count, for each value of one label.
#[derive(Clone)]
struct Times {
    desc: Desc,
    label: Option<&'static str>,
    seen: std::sync::Arc<Mutex<BTreeMap<String, (u64, f64)>>>,
}

impl Times {
    fn new(opts: Opts, label: Option<&'static str>) -> Result<Times, prometheus::Error> {
        let labels = label.iter().map(|label| (*label).to_string()).collect();
        let constant: HashMap<String, String> = opts.const_labels.clone();
        let desc = Desc::new(opts.name, opts.help, labels, constant)?;
        Ok(Times { desc, label, seen: std::sync::Arc::default() })
    }

    fn observe(&self, value: &str, took: Duration) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // the label has a handful of values, all ours
        let (count, sum) = match seen.get_mut(value) {
            Some(entry) => entry,
            None => seen.entry(value.to_string()).or_default(),
        };
        *count += 1;
        *sum += took.as_secs_f64();
    }
}

impl Collector for Times {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let metrics = seen.iter().map(|(value, (count, sum))| {
            let mut labels = self.desc.const_label_pairs.clone();
            if let Some(name) = self.label {
                let mut pair = LabelPair::default();
                pair.set_name(name.to_string());
                pair.set_value(value.clone());
                labels.push(pair);
            }
            let mut summary = Summary::default();
            summary.set_sample_count(*count);
            summary.set_sample_sum(*sum);
            let mut metric = Metric::default();
            metric.set_label(labels);
            metric.set_summary(summary);
            metric
        });
        let mut family = MetricFamily::default();
        family.set_name(self.desc.fq_name.clone());
        family.set_help(self.desc.help.clone());
        family.set_field_type(MetricType::SUMMARY);
        family.set_metric(metrics.collect::<Vec<_>>());
        if family.get_metric().is_empty() { Vec::new() } else { vec![family] }
    }
}

/// Most connections to the page at once, and the longest one may take.
const PAGE_LIMITS: (usize, Duration) = (64, Duration::from_secs(5));

/// Serves `/metrics` until dropped.
pub async fn serve(metrics: Metrics, address: SocketAddr) -> Result<Infallible, std::io::Error> {
    use http_body_util::Full;
    use hyper::body::{Bytes, Incoming};
    use hyper::{Request, Response, StatusCode, header};

    let listener = tokio::net::TcpListener::bind(address).await?;
    let places = std::sync::Arc::new(tokio::sync::Semaphore::new(PAGE_LIMITS.0));
    loop {
        let (stream, _) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection to the metrics page");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let metrics = metrics.clone();
        tokio::spawn(async move {
            let _place = place;
            let answer = hyper::service::service_fn(move |request: Request<Incoming>| {
                let (status, page) = match request.uri().path() {
                    "/metrics" => (StatusCode::OK, metrics.page()),
                    _ => (StatusCode::NOT_FOUND, "the page is /metrics\n".to_string()),
                };
                let mut response = Response::new(Full::new(Bytes::from(page)));
                *response.status_mut() = status;
                let kind = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                response.headers_mut().insert(header::CONTENT_TYPE, kind);
                std::future::ready(Ok::<_, Infallible>(response))
            });
            let stream = hyper_util::rt::TokioIo::new(stream);
            let connection =
                hyper::server::conn::http1::Builder::new().keep_alive(false).serve_connection(stream, answer);
            if let Ok(Err(error)) = tokio::time::timeout(PAGE_LIMITS.1, connection).await {
                tracing::debug!(%error, "a reader of the metrics page went away");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_the_upstream_names() {
        let metrics = Metrics::new("lon").unwrap();
        metrics.rpc("choria_provision#jwt", Duration::from_millis(500), true);
        metrics.helper(Duration::from_millis(250));
        let page = metrics.page();
        for line in [
            "choria_provisioner_discovered{site=\"lon\"} 0",
            "choria_provisioner_event_discovered{site=\"lon\"} 0",
            "choria_provisioner_discover_cycles{site=\"lon\"} 0",
            "choria_provisioner_discovery_errors{site=\"lon\"} 0",
            "choria_provisioner_provision_errors{site=\"lon\"} 0",
            "choria_provisioner_provisioned{site=\"lon\"} 0",
            "choria_provisioner_helper_errors{site=\"lon\"} 0",
            "choria_provisioner_helper_shutdown_requests{site=\"lon\"} 0",
            "choria_provisioner_rpc_errors{rpc=\"choria_provision#jwt\",site=\"lon\"} 1",
            "# TYPE choria_provisioner_rpc_time summary",
            "choria_provisioner_rpc_time_sum{site=\"lon\",rpc=\"choria_provision#jwt\"} 0.5",
            "choria_provisioner_rpc_time_count{site=\"lon\",rpc=\"choria_provision#jwt\"} 1",
            "choria_provisioner_helper_time_sum{site=\"lon\"} 0.25",
            "choria_provisioner_busy_workers{site=\"lon\"} 0",
            "choria_provisioner_work_queue_entries{site=\"lon\"} 0",
            "choria_provisioner_waiting_nodes{site=\"lon\"} 0",
            "choria_provisioner_paused{site=\"lon\"} 0",
        ] {
            assert!(page.lines().any(|l| l == line), "{line}\n{page}");
        }
    }
}
