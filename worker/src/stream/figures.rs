//! What a publish adds to its worker's metrics: [`Figures`].

use journal::Snapshot;
use shared::ids::StreamKey;
use shared::recording::{FinishedFile, Gap};
use shared::telemetry::{FormatLabel, StreamFigures, TrackLabel, WorkerMetrics};

/// What was counted of one publish so far. What is no count but how things are now, ends with this value.
#[derive(Debug)]
pub(super) struct Figures {
    metrics: WorkerMetrics,
    stream: StreamKey,
    video_units: u64,
    audio_units: u64,
    lag: i64,
}

impl Figures {
    /// What is in the journal already was counted by the process before.
    pub(super) fn new(metrics: WorkerMetrics, stream: StreamKey, before: &Snapshot) -> Self {
        Self {
            metrics,
            stream,
            video_units: before.video_units,
            audio_units: before.audio_units,
            lag: 0,
        }
    }

    /// Counts what has arrived since the last look, and says how far recorders are behind, each with what it has behind it for good.
    pub(super) fn look(&mut self, journaled: &Snapshot, cursors: impl Iterator<Item = u64>) {
        let counted = [
            ("video", &mut self.video_units, journaled.video_units),
            ("audio", &mut self.audio_units, journaled.audio_units),
        ];
        for (track, counted, now) in counted {
            let more = now.saturating_sub(std::mem::replace(counted, now));
            self.metrics.units.get_or_create(&TrackLabel { track }).inc_by(more);
        }
        let lag = cursors.map(|cursor| journaled.end.0.saturating_sub(cursor)).sum();
        let gauge = i64::try_from(lag).unwrap_or(i64::MAX);
        let before = std::mem::replace(&mut self.lag, gauge);
        self.metrics.cursor_lag.inc_by(gauge - before);
        let figures = StreamFigures {
            units: journaled.video_units + journaled.audio_units,
            bytes: journaled.bytes,
            lag,
        };
        self.metrics.streams.show(&self.stream, figures);
    }

    /// A file has entered the library.
    pub(super) fn entered(&self, file: &FinishedFile) {
        let format = FormatLabel {
            format: file.format.as_str(),
        };
        let units = file.video_units + file.audio_units;
        self.metrics.units_recorded.get_or_create(&format).inc_by(units);
        self.metrics.files.get_or_create(&format).inc();
        self.metrics.object_bytes.inc_by(file.size);
        self.metrics.lost.count(&file.gaps);
    }

    /// A recorder has ended, with gaps that are in no file.
    pub(super) fn lacks(&self, gaps: &[Gap]) {
        self.metrics.lost.count(gaps);
    }
}

impl Drop for Figures {
    fn drop(&mut self) {
        self.metrics.cursor_lag.dec_by(self.lag);
        self.metrics.streams.forget(&self.stream);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use journal::Position;
    use shared::telemetry::Metrics;

    fn journaled(units: u64, end: u64) -> Snapshot {
        Snapshot {
            video_units: units,
            audio_units: 2 * units,
            end: Position(end),
            bytes: end,
            ..Snapshot::default()
        }
    }

    #[test]
    fn units_are_counted_while_the_stream_is_live_and_each_once() {
        let metrics = Metrics::new();
        let stream = StreamKey::new("live.example.com", "app", "one").unwrap();
        let mut figures = Figures::new(metrics.worker.clone(), stream, &journaled(10, 100));
        for units in [10, 15, 15, 40] {
            figures.look(&journaled(units, 100), std::iter::empty());
        }
        let text = metrics.encode().unwrap();
        assert!(
            text.contains("aircheck_worker_units_total{track=\"video\"} 30"),
            "{text}"
        );
        assert!(
            text.contains("aircheck_worker_units_total{track=\"audio\"} 60"),
            "{text}"
        );
    }

    #[test]
    fn how_far_recorders_are_behind_is_summed_up_over_streams_and_gone_with_them() {
        let metrics = Metrics::with_streams(true);
        let figures = |name| {
            let stream = StreamKey::new("live.example.com", "app", name).unwrap();
            Figures::new(metrics.worker.clone(), stream, &Snapshot::default())
        };
        let (mut one, mut two) = (figures("one"), figures("two"));
        one.look(&journaled(1, 1_000), [400, 900, u64::MAX].into_iter());
        assert_eq!(metrics.worker.cursor_lag.get(), 700, "one that is done is not behind");
        two.look(&journaled(1, 50), [0].into_iter());
        assert_eq!(metrics.worker.cursor_lag.get(), 750);
        one.look(&journaled(1, 1_000), [1_000, 1_000].into_iter());
        assert_eq!(metrics.worker.cursor_lag.get(), 50);
        drop(two);
        assert_eq!(metrics.worker.cursor_lag.get(), 0);
        let text = metrics.encode().unwrap();
        assert!(
            text.contains("stream=\"one\"") && !text.contains("stream=\"two\""),
            "{text}"
        );
    }
}
