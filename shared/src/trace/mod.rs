//! One trace for each recording, across processes, restarts and owners.
//!
//! A recording's id is its trace's id, so whoever knows the recording knows its trace: nothing is handed on, stored or lost with a process. A
//! [`Place`] is a span that others hang below. Spans are short and end before the next begins; what lasts for hours shows as a
//! span where it begins, and is cut into [`Chapters`], each linked to the one before, so that the trace of a long recording can be
//! read while it runs.
//!
//! Between processes the W3C `traceparent` goes with a call ([`inject`], [`extract`]).

mod export;

use std::{
    fmt,
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use opentelemetry::{
    Context, KeyValue, TraceFlags, global,
    propagation::{Extractor, Injector, TextMapPropagator},
    trace::{
        Link, Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceId, TraceState,
        Tracer,
    },
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use uuid::Uuid;

use self::export::NEXT;
pub use self::export::{ExportError, Exporter};
use crate::{ids::RecordingId, lease::Epoch, time::Timestamp};

/// Target of the spans that are exported; no log shows them.
pub const TARGET: &str = "aircheck::trace";
/// Longest stretch of a recorder's work below one span.
const CHAPTER: Duration = Duration::from_secs(15 * 60);
/// A span of a recording's trace that others hang below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    recording: RecordingId,
    span: SpanId,
}

impl Place {
    /// The span that all others are below.
    #[must_use]
    pub fn recording(recording: RecordingId) -> Self {
        let span = SpanId::from_bytes(first_half(Uuid::new_v5(&recording.as_uuid(), b"recording")));
        Place { recording, span }
    }

    /// What one owner of the recording does, from publish to unpublish.
    #[must_use]
    pub fn publish(recording: RecordingId, epoch: Epoch) -> Self {
        let name = epoch.get().to_be_bytes();
        let span = SpanId::from_bytes(first_half(Uuid::new_v5(&recording.as_uuid(), &name)));
        Place { recording, span }
    }

    /// The time without a publish before the owner with this epoch. Whoever shows it again shows the same span.
    #[must_use]
    pub fn interruption(recording: RecordingId, epoch: Epoch) -> Self {
        let name = [b"interruption".as_slice(), &epoch.get().to_be_bytes()].concat();
        let span = SpanId::from_bytes(first_half(Uuid::new_v5(&recording.as_uuid(), &name)));
        Place { recording, span }
    }

    fn span_context(self) -> SpanContext {
        let trace = TraceId::from_bytes(self.recording.as_uuid().into_bytes());
        SpanContext::new(trace, self.span, TraceFlags::SAMPLED, true, TraceState::default())
    }

    fn context(self) -> Context {
        Context::new().with_remote_span_context(self.span_context())
    }

    /// A span of work that happens now, below this one.
    #[must_use]
    pub fn span(self, name: &'static str) -> Span {
        self.span_of(name, "internal")
    }

    /// A span of a call to another process, below this one.
    #[must_use]
    pub fn call(self, name: &'static str) -> Span {
        self.span_of(name, "client")
    }

    fn span_of(self, name: &'static str, kind: &'static str) -> Span {
        let span = tracing::trace_span!(target: "aircheck::trace", "span", otel.name = name, otel.kind = kind, aircheck.recording.id = %self.recording);
        // Only a span that has been entered cannot get a parent, and this one is new.
        let _ = span.set_parent(self.context());
        span
    }

    /// Shows this place itself, as a span that began and ended at these moments. Whatever happened before or after can hang below it.
    pub fn show(self, past: Past) {
        let parent = Self::recording(self.recording);
        let below = if parent == self {
            Context::new()
        } else {
            parent.context()
        };
        let trace = self.span_context().trace_id();
        NEXT.set(Some((trace, self.span)));
        past.emit(self.recording, &below, None);
        NEXT.set(None);
    }

    /// Shows something that happened, below this place. Others can hang below what it gives back.
    pub fn past(self, past: Past) -> Place {
        self.linked(past, None)
    }

    fn linked(self, past: Past, link: Option<Place>) -> Place {
        let shown = past.emit(self.recording, &self.context(), link);
        Place {
            // Where there are no traces there is nothing that could hang anywhere.
            span: if shown == SpanId::INVALID { self.span } else { shown },
            ..self
        }
    }
}

/// The trace's id of a recording, as viewers of traces show it: 32 hexadecimal digits.
#[must_use]
pub fn id(recording: RecordingId) -> String {
    recording.as_uuid().simple().to_string()
}

fn first_half(id: Uuid) -> [u8; 8] {
    let (high, _) = id.as_u64_pair();
    high.to_be_bytes()
}

/// A span whose times are known already.
#[derive(Debug, Clone)]
pub struct Past {
    name: &'static str,
    times: Option<(SystemTime, SystemTime)>,
    failed: Option<String>,
    attributes: Vec<KeyValue>,
}

impl Past {
    /// Something that happens at this moment.
    #[must_use]
    pub fn now(name: &'static str) -> Self {
        Past {
            name,
            times: None,
            failed: None,
            attributes: Vec::new(),
        }
    }

    /// Something that began and ended. An end before the beginning, after a clock was set, is put there.
    #[must_use]
    pub fn between(name: &'static str, begin: Timestamp, end: Timestamp) -> Self {
        let system = |at: Timestamp| {
            SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(at.as_millis()).unwrap_or_default())
        };
        Past {
            times: Some((system(begin), system(end.max(begin)))),
            ..Self::now(name)
        }
    }

    /// Says one thing more about it.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl Into<opentelemetry::Value>) -> Self {
        self.attributes.push(KeyValue::new(key, value));
        self
    }

    /// It failed, for this reason.
    #[must_use]
    pub fn failed(mut self, reason: impl Into<String>) -> Self {
        self.failed = Some(reason.into());
        self
    }

    fn emit(mut self, recording: RecordingId, below: &Context, link: Option<Place>) -> SpanId {
        self.attributes
            .push(KeyValue::new("aircheck.recording.id", recording.to_string()));
        let builder = SpanBuilder {
            span_kind: Some(SpanKind::Internal),
            start_time: self.times.map(|(begin, _)| begin),
            attributes: Some(self.attributes),
            links: link.map(|place| vec![Link::with_context(place.span_context())]),
            ..SpanBuilder::from_name(self.name)
        };
        let mut span = global::tracer("aircheck").build_with_context(builder, below);
        if let Some(reason) = self.failed {
            span.set_status(Status::error(reason));
        }
        match self.times {
            Some((_, end)) => span.end_with_timestamp(end),
            None => span.end(),
        }
        span.span_context().span_id()
    }
}

/// A span of one request that the work of the current span makes; none where that is not traced.
#[must_use]
pub fn request(name: &'static str) -> Span {
    let traced = Span::current()
        .metadata()
        .is_some_and(|metadata| metadata.target() == TARGET);
    if traced {
        tracing::trace_span!(target: "aircheck::trace", "span", otel.name = name, otel.kind = "client")
    } else {
        Span::none()
    }
}

/// Marks a span of work as failed; it is exported then, also of a recording that is not traced.
pub fn fail(span: &Span, reason: impl fmt::Display) {
    span.set_status(Status::error(reason.to_string()));
}

/// Says one thing more about a span of work.
pub fn say(span: &Span, key: &'static str, value: impl Into<opentelemetry::Value>) {
    span.set_attribute(key, value);
}

/// A long stretch of work, cut into chapters of a quarter of an hour.
#[derive(Debug)]
pub struct Chapters {
    below: Place,
    name: &'static str,
    about: KeyValue,
    open: Option<(Place, tokio::time::Instant)>,
}

impl Chapters {
    /// Nothing is shown before the first work.
    #[must_use]
    pub fn new(below: Place, name: &'static str, (key, value): (&'static str, &'static str)) -> Self {
        Chapters {
            below,
            name,
            about: KeyValue::new(key, value),
            open: None,
        }
    }

    /// Where work that begins now belongs.
    pub fn place(&mut self) -> Place {
        match self.open {
            Some((place, begin)) if begin.elapsed() < CHAPTER => place,
            _ => {
                let before = self.open.map(|(place, _)| place);
                let mut past = Past::now(self.name);
                past.attributes.push(self.about.clone());
                let place = self.below.linked(past, before);
                self.open = Some((place, tokio::time::Instant::now()));
                place
            }
        }
    }
}

static W3C: LazyLock<TraceContextPropagator> = LazyLock::new(TraceContextPropagator::new);

/// Puts the `traceparent` of the span that runs now into a call, if there is one.
pub fn inject(into: &mut impl Injector) {
    let context = Span::current().context();
    if context.span().span_context().is_valid() {
        W3C.inject_context(&context, into);
    }
}

/// A span of the call that came with this `traceparent`; none came, none is made.
pub fn extract(from: &impl Extractor, name: &str) -> Option<Span> {
    let context = W3C.extract_with_context(&Context::new(), from);
    if !context.span().span_context().is_valid() {
        return None;
    }
    let span = tracing::trace_span!(target: "aircheck::trace", "span", otel.name = name, otel.kind = "server");
    let _ = span.set_parent(context);
    Some(span)
}

#[cfg(test)]
mod tests;
