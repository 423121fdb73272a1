//! The three shapes of a log line.

use std::sync::Arc;
use std::time::Instant;

use tracing::{Event, Level, Subscriber, span};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::fields::Fields;
use super::sink::{Shape, Sink};

pub(super) struct LineLayer {
    pub(super) sink: Arc<Sink>,
    pub(super) started: Instant,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LineLayer {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        if let Some(scope) = context.event_scope(event) {
            for span in scope.from_root() {
                if let Some(of_span) = span.extensions().get::<Fields>() {
                    fields.values.extend(of_span.values.clone());
                }
            }
        }
        event.record(&mut fields);
        let level = *event.metadata().level();
        let line = match self.sink.shape() {
            Shape::Terminal { ansi } => terminal(level, self.started.elapsed().as_secs(), &fields, ansi),
            Shape::Plain => plain(level, &now(), &fields),
            Shape::Json => json(level, &now(), &fields),
            Shape::Nothing => return,
        };
        self.sink.write(&line);
    }
}

fn now() -> String {
    crate::clock::rfc3339_seconds(crate::clock::unix_seconds())
}

fn word(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        _ => "debug",
    }
}

fn terminal(level: Level, seconds: u64, fields: &Fields, ansi: bool) -> String {
    let (tag, colour) = match level {
        Level::ERROR => ("ERRO", 31),
        Level::WARN => ("WARN", 33),
        Level::INFO => ("INFO", 36),
        _ => ("DEBU", 37),
    };
    let tag = if ansi { format!("\u{1b}[{colour}m{tag}\u{1b}[0m") } else { tag.to_owned() };
    let mut line = if fields.values.is_empty() {
        format!("{tag}[{seconds:04}] {}", fields.message)
    } else {
        format!("{tag}[{seconds:04}] {:<44}", fields.message)
    };
    pairs(&mut line, fields);
    line.push('\n');
    line
}

fn plain(level: Level, time: &str, fields: &Fields) -> String {
    let mut line = format!("time=\"{time}\" level={} msg={}", word(level), quoted(&fields.message));
    pairs(&mut line, fields);
    line.push('\n');
    line
}

fn json(level: Level, time: &str, fields: &Fields) -> String {
    let mut object = serde_json::Map::new();
    for (key, value) in &fields.values {
        object.insert((*key).to_owned(), value.as_str().into());
    }
    // Last, so that no field of an event can replace them.
    object.insert("level".into(), word(level).into());
    object.insert("msg".into(), fields.message.as_str().into());
    object.insert("time".into(), time.into());
    let mut line = serde_json::Value::Object(object).to_string();
    line.push('\n');
    line
}

fn pairs(line: &mut String, fields: &Fields) {
    for (key, value) in &fields.values {
        line.push(' ');
        line.push_str(key);
        line.push('=');
        if needs_quotes(value) { line.push_str(&quoted(value)) } else { line.push_str(value) }
    }
}

fn needs_quotes(value: &str) -> bool {
    value.is_empty() || value.contains([' ', '"', '=', '\\'])
}

fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> Fields {
        Fields {
            message: "Starting".into(),
            values: [("version", "0.1.0".to_owned()), ("config", "a b".to_owned())].into(),
        }
    }

    #[test]
    fn shapes() {
        assert_eq!(
            terminal(Level::INFO, 7, &fields(), false),
            "INFO[0007] Starting                                     config=\"a b\" version=0.1.0\n"
        );
        assert_eq!(
            plain(Level::WARN, "2024-05-01T10:00:00Z", &fields()),
            "time=\"2024-05-01T10:00:00Z\" level=warning msg=\"Starting\" config=\"a b\" version=0.1.0\n"
        );
        assert_eq!(
            json(Level::ERROR, "2024-05-01T10:00:00Z", &fields()),
            "{\"config\":\"a b\",\"level\":\"error\",\"msg\":\"Starting\",\"time\":\"2024-05-01T10:00:00Z\",\"version\":\"0.1.0\"}\n"
        );
    }
}
