//! What metrics are made of: labels, and kinds of figures that more than one number belongs to.

use std::{
    borrow::Cow,
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder},
    metrics::{MetricType, TypedMetric, counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
};

use crate::{ids::StreamKey, recording::Gap};

/// Label of counters that tell causes apart. Values are stable short names, few of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    /// Short name of the cause.
    pub reason: &'static str,
}

/// Label of counters by track.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TrackLabel {
    /// `video` or `audio`.
    pub track: &'static str,
}

/// Label of what is said of one of several places of objects.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PlaceLabel {
    /// Its name in the settings.
    pub place: String,
}

/// Label of counters by format.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FormatLabel {
    /// `flv`, `hls`, `mp4`, `aac` or `mp3`.
    pub format: &'static str,
}

/// Label of series of single streams, which there are only where `telemetry.stream_metrics` says so.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StreamLabel {
    /// Domain.
    pub domain: String,
    /// App.
    pub app: String,
    /// Stream name.
    pub stream: String,
}

impl From<&StreamKey> for StreamLabel {
    fn from(stream: &StreamKey) -> Self {
        StreamLabel {
            domain: stream.domain().to_owned(),
            app: stream.app().to_owned(),
            stream: stream.stream().to_owned(),
        }
    }
}

/// Upper bounds of a latency's buckets, seconds.
const BUCKETS: [f64; 15] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

/// How long something takes, from a millisecond to a minute.
#[derive(Debug, Clone)]
pub struct Latency(Histogram);

impl Default for Latency {
    fn default() -> Self {
        Latency(Histogram::new(BUCKETS))
    }
}

impl EncodeMetric for Latency {
    fn encode(&self, encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        self.0.encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        Histogram::TYPE
    }
}

impl TypedMetric for Latency {
    const TYPE: MetricType = Histogram::TYPE;
}

impl Latency {
    /// One of them took this long.
    pub fn took(&self, time: Duration) {
        self.0.observe(time.as_secs_f64());
    }
}

/// Most causes that [`Lost`] tells apart; further ones are counted as `other`.
const CAUSES: usize = 64;

/// Access units that recordings lack, by the reason of the gap. The reasons are few and ours, but come as text from journals, which other
/// versions may have written.
#[derive(Debug, Clone, Default)]
pub struct Lost {
    pub(super) units: Family<Cause, Counter>,
    pub(super) gaps: Family<Cause, Counter>,
    known: Arc<Mutex<BTreeSet<String>>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Cause {
    reason: Cow<'static, str>,
}

impl Lost {
    /// Counts gaps that a recording has from now on.
    pub fn count(&self, gaps: &[Gap]) {
        for gap in gaps {
            let cause = Cause {
                reason: self.cause(&gap.reason),
            };
            self.units.get_or_create(&cause).inc_by(gap.units);
            self.gaps.get_or_create(&cause).inc();
        }
    }

    fn cause(&self, reason: &str) -> Cow<'static, str> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains(reason) || known.len() < CAUSES && reason.len() <= 64 {
            known.insert(reason.to_owned());
            return Cow::Owned(reason.to_owned());
        }
        Cow::Borrowed("other")
    }
}

/// Most streams with series of their own in one process.
const STREAMS: usize = 1_000;

/// Series of single streams: off unless switched on, since their number grows with the streams.
#[derive(Debug, Clone, Default)]
pub struct StreamMetrics {
    pub(super) units: Family<StreamLabel, Gauge>,
    pub(super) bytes: Family<StreamLabel, Gauge>,
    pub(super) lag: Family<StreamLabel, Gauge>,
    pub(super) shown: Option<Arc<Mutex<BTreeSet<StreamKey>>>>,
}

/// What one live stream has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamFigures {
    /// Access units of this publish in the journal.
    pub units: u64,
    /// Bytes of this publish in the journal.
    pub bytes: u64,
    /// Bytes of the journal that a recorder has still to render, summed up over its recorders.
    pub lag: u64,
}

impl StreamMetrics {
    /// Shows a live stream's figures; nothing where it is switched off, or of the streams beyond 1,000.
    pub fn show(&self, stream: &StreamKey, figures: StreamFigures) {
        let Some(shown) = &self.shown else { return };
        let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
        if !shown.contains(stream) {
            if shown.len() >= STREAMS {
                return;
            }
            shown.insert(stream.clone());
        }
        let label = StreamLabel::from(stream);
        self.units.get_or_create(&label).set(gauge(figures.units));
        self.bytes.get_or_create(&label).set(gauge(figures.bytes));
        self.lag.get_or_create(&label).set(gauge(figures.lag));
    }

    /// The stream's publish is over.
    pub fn forget(&self, stream: &StreamKey) {
        let Some(shown) = &self.shown else { return };
        let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.remove(stream) {
            let label = StreamLabel::from(stream);
            for family in [&self.units, &self.bytes, &self.lag] {
                family.remove(&label);
            }
        }
    }
}

fn gauge(figure: u64) -> i64 {
    i64::try_from(figure).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    #[test]
    fn units_in_gaps_are_counted_by_reason_and_reasons_are_bounded() {
        let metrics = Metrics::new();
        let gap = |reason: &str, units| Gap {
            reason: reason.to_owned(),
            from_ms: 0,
            to_ms: 5,
            units,
        };
        metrics.worker.lost.count(&[gap("torn_tail", 3), gap("interrupted", 0)]);
        metrics.worker.lost.count(&[gap("torn_tail", 4)]);
        for n in 0..100 {
            metrics.worker.lost.count(&[gap(&format!("strange_{n}"), 1)]);
        }
        let text = metrics.encode().unwrap();
        for line in [
            "aircheck_worker_units_lost_total{reason=\"torn_tail\"} 7",
            "aircheck_worker_gaps_total{reason=\"torn_tail\"} 2",
            "aircheck_worker_gaps_total{reason=\"interrupted\"} 1",
            "aircheck_worker_units_lost_total{reason=\"other\"} 38",
        ] {
            assert!(text.contains(line), "{line} not in\n{text}");
        }
    }

    #[test]
    fn single_streams_have_series_while_they_are_live_and_only_where_that_is_switched_on() {
        let figures = StreamFigures {
            units: 5,
            bytes: 700,
            lag: 30,
        };
        let stream = StreamKey::new("live.example.com", "app", "one").unwrap();
        let series = "aircheck_worker_stream_lag_bytes{domain=\"live.example.com\",app=\"app\",stream=\"one\"} 30";

        let off = Metrics::new();
        off.worker.streams.show(&stream, figures);
        assert!(!off.encode().unwrap().contains("stream_lag"));

        let on = Metrics::with_streams(true);
        on.worker.streams.show(&stream, figures);
        assert!(on.encode().unwrap().contains(series), "{}", on.encode().unwrap());
        on.worker.streams.forget(&stream);
        assert!(!on.encode().unwrap().contains("stream=\"one\""));
    }

    #[test]
    fn the_streams_with_series_are_bounded() {
        let on = Metrics::with_streams(true);
        let figures = StreamFigures {
            units: 1,
            bytes: 1,
            lag: 1,
        };
        for n in 0..STREAMS + 5 {
            let stream = StreamKey::new("d.example.com", "app", &format!("s{n}")).unwrap();
            on.worker.streams.show(&stream, figures);
        }
        let text = on.encode().unwrap();
        let series = text
            .lines()
            .filter(|line| line.starts_with("aircheck_worker_stream_units{"));
        assert_eq!(series.count(), STREAMS);
    }
}
