#!/usr/bin/env python3
"""Writes Grafana's dashboards into grafana/: python3 deploy/observability/dashboards.py

A panel is one line here: title, unit, width, and what it draws. `tests/deploy` holds the JSON to this file, every metric to
those the program has, and every expression to a running Prometheus.
"""

import json
import pathlib

HERE = pathlib.Path(__file__).parent
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
# What a panel looks at: the installation that is chosen, and for single workers the one that is.
OF = 'namespace=~"$namespace"'
ONE = 'namespace=~"$namespace", instance=~"$instance"'
# One stream, on whichever worker it is.
STREAM = 'namespace=~"$namespace", domain="$domain", app="$app", stream="$stream"'


def quantiles(metric, of, by=""):
    """The middle and the slow end of a latency."""
    labels = ", ".join(part for part in ("le", by) if part)
    legend = f"{{{{{by}}}}} " if by else ""
    return [
        (f"{legend}p{percent}", f"histogram_quantile({percent / 100}, sum by ({labels}) (rate({metric}_bucket{{{of}}}[5m])))")
        for percent in (50, 99)
    ]



def panel(title, unit, width, *queries, kind="timeseries", about="", bad_above=None, stack=False):
    """Queries are (legend, expression)."""
    steps = [{"color": "green", "value": None}]
    if bad_above is not None:
        steps.append({"color": "red", "value": bad_above})
    defaults = {"unit": unit, "min": 0, "thresholds": {"mode": "absolute", "steps": steps}}
    if kind == "timeseries":
        defaults["custom"] = {"fillOpacity": 10, "stacking": {"mode": "normal" if stack else "none"}}
        options = {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True}, "tooltip": {"mode": "multi"}}
    else:
        options = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "area"}
    return {
        "title": title,
        "description": about,
        "type": kind,
        "datasource": SOURCE,
        "width": width,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [
            {"refId": chr(ord("A") + at), "datasource": SOURCE, "expr": expr, "legendFormat": legend}
            for at, (legend, expr) in enumerate(queries)
        ],
    }


def stat(title, unit, expr, **more):
    return panel(title, unit, 4, ("", expr), kind="stat", **more)


def variable(name, label, metric, several=True):
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": SOURCE,
        "query": {"query": f"label_values({metric}, {name})", "refId": name},
        "refresh": 2,
        "includeAll": several,
        "multi": several,
        # Where nothing adds the label, the series without it.
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
        "sort": 1,
    }


def dashboard(uid, title, about, rows, by_instance=False, by_stream=False):
    panels, top = [], 0
    for name, row in rows:
        panels.append({"type": "row", "title": name, "collapsed": False, "panels": [], "gridPos": {"h": 1, "w": 24, "x": 0, "y": top}})
        top += 1
        left, height = 0, 0
        for each in row:
            width = each.pop("width")
            tall = 4 if each["type"] == "stat" else 8
            if left + width > 24:
                left, top = 0, top + height
            each["gridPos"] = {"h": tall, "w": width, "x": left, "y": top}
            left, height = left + width, tall
            panels.append(each)
        top += height
    for number, each in enumerate(panels, 1):
        each["id"] = number
    variables = [
        {"type": "datasource", "name": "datasource", "label": "Prometheus", "query": "prometheus", "current": {}},
        variable("namespace", "Namespace", "aircheck_build_info"),
    ]
    if by_instance:
        variables.append(variable("instance", "Worker", "aircheck_worker_disk_min_free_bytes"))
    if by_stream:
        variables += [variable(name, name.title(), "aircheck_worker_stream_units", several=False) for name in ("domain", "app", "stream")]
    return {
        "uid": uid,
        "title": title,
        "description": about,
        "tags": ["aircheck"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "15s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "links": [{"type": "dashboards", "title": "Aircheck", "tags": ["aircheck"], "asDropdown": True}],
        "templating": {"list": variables},
        "annotations": {"list": []},
        "panels": panels,
    }


def fleet():
    return dashboard("aircheck-fleet", "Aircheck / fleet", "Streams, recordings and what is lost, of all workers together.", [
        ("Now", [
            stat("Streams", "short", f"sum(aircheck_worker_publishes{{{OF}}})"),
            stat("Recordings", "short", f"sum(aircheck_worker_recordings{{{OF}}})", about="Running or being finished; one stream may have several."),
            stat("Taken", "bps", f"8 * sum(rate(aircheck_worker_ingest_bytes_total{{{OF}}}[1m]))"),
            stat("Workers", "short", f"max(aircheck_coordinator_workers{{{OF}}})"),
            stat("Publishers sent away, last hour", "short", f"sum(increase(aircheck_worker_publish_refused_total{{{OF}}}[1h])) or vector(0)", bad_above=1),
            stat("Failed journal writes, last hour", "short", f"sum(increase(aircheck_worker_journal_errors_total{{{OF}}}[1h])) or vector(0)", bad_above=1),
        ]),
        ("Load", [
            panel("Streams by worker", "short", 12, ("{{instance}}", f"sum by (instance) (aircheck_worker_publishes{{{OF}}})"), stack=True),
            panel("Media taken by worker", "bps", 12, ("{{instance}}", f"8 * sum by (instance) (rate(aircheck_worker_ingest_bytes_total{{{OF}}}[1m]))"), stack=True),
            panel("Units journaled", "cps", 12, ("{{track}}", f"sum by (track) (rate(aircheck_worker_units_total{{{OF}}}[1m]))"),
                  about="Access units: coded pictures and audio frames."),
            panel("Recordings", "short", 12, ("running or being finished", f"sum(aircheck_worker_recordings{{{OF}}})"), ("streams", f"sum(aircheck_worker_publishes{{{OF}}})")),
        ]),
        ("What recordings lack", [
            panel("Units in gaps", "cps", 12, ("{{reason}}", f"sum by (reason) (rate(aircheck_worker_units_lost_total{{{OF}}}[5m]))"),
                  about="Access units that arrived, or are known to have been sent, and are in no file; counted when the file or recording that lacks them ends."),
            panel("Gaps", "cps", 12, ("{{reason}}", f"sum by (reason) (rate(aircheck_worker_gaps_total{{{OF}}}[5m]))"),
                  about="`interrupted` is a stream that was away: what it did not send nobody knows."),
            panel("Units journaled and recorded", "cps", 12, ("journaled", f"sum(rate(aircheck_worker_units_total{{{OF}}}[5m]))"),
                  ("recorded {{format}}", f"sum by (format) (rate(aircheck_worker_units_recorded_total{{{OF}}}[5m]))"),
                  about="Recorded counts a file when it enters the library: in steps, and once for each format of each recording."),
            panel("Journaled and not rendered", "bytes", 12, ("{{instance}}", f"aircheck_worker_cursor_lag_bytes{{{OF}}}"),
                  about="Grows while storage is away, and shrinks by itself behind that."),
        ]),
        ("Publishers", [
            panel("Connections", "short", 8, ("open", f"sum(aircheck_worker_connections{{{OF}}})"), ("publishing", f"sum(aircheck_worker_publishes{{{OF}}})")),
            panel("Accepted", "cps", 8, ("a second", f"sum(rate(aircheck_worker_connections_accepted_total{{{OF}}}[1m]))")),
            panel("Ended for a fault of the peer", "cps", 8, ("{{reason}}", f"sum by (reason) (rate(aircheck_worker_connection_errors_total{{{OF}}}[5m]))")),
            panel("Sent away by workers", "cps", 12, ("{{reason}}", f"sum by (reason) (rate(aircheck_worker_publish_refused_total{{{OF}}}[5m]))")),
            panel("Sent away by the coordinator", "cps", 12, ("{{reason}}", f"sum by (reason) (rate(aircheck_coordinator_leases_refused_total{{{OF}}}[5m]))")),
        ]),
    ])


def control_plane():
    return dashboard("aircheck-control", "Aircheck / control plane", "Coordinators, leases and the metadata store.", [
        ("Now", [
            stat("Workers heard", "short", f"max(aircheck_coordinator_workers{{{OF}}})"),
            stat("Leaders", "short", f"sum(aircheck_coordinator_leading{{{OF}}})"),
            stat("Streams live", "short", f"max(aircheck_coordinator_streams{{{OF}}})"),
            stat("Commits fenced, last hour", "short", f"sum(increase(aircheck_coordinator_fenced_total{{{OF}}}[1h])) or vector(0)", bad_above=1),
            stat("Store errors, last hour", "short", f"sum(increase(aircheck_coordinator_store_errors_total{{{OF}}}[1h])) or vector(0)", bad_above=1),
            panel("Versions", "short", 4, ("{{version}}", f"count by (version) (aircheck_build_info{{{OF}}})"), kind="stat"),
        ]),
        ("Leadership", [
            panel("Leads", "short", 12, ("{{instance}}", f"aircheck_coordinator_leading{{{OF}}} > 0"), about="One line at a time; a gap is a time without a leader."),
            panel("Passed on to the leader", "cps", 12, ("{{instance}}", f"sum by (instance) (rate(aircheck_coordinator_forwarded_total{{{OF}}}[1m]))")),
        ]),
        ("Leases", [
            panel("Granted", "cps", 12, ("a second", f"sum(rate(aircheck_coordinator_leases_granted_total{{{OF}}}[1m]))")),
            panel("Refused", "cps", 12, ("{{reason}}", f"sum by (reason) (rate(aircheck_coordinator_leases_refused_total{{{OF}}}[5m]))")),
            panel("Lease, as workers see it", "s", 12, *quantiles("aircheck_worker_lease_seconds", OF), about="From a question to its answer, all tries included; the stream is journaled meanwhile."),
            panel("Lease, at the coordinator", "s", 12, *quantiles("aircheck_coordinator_lease_seconds", OF), about="Until the decision is durable."),
            panel("Workers and streams", "short", 12, ("workers", f"max(aircheck_coordinator_workers{{{OF}}})"), ("streams", f"max(aircheck_coordinator_streams{{{OF}}})")),
            panel("Commits fenced", "cps", 12, ("a second", f"sum(rate(aircheck_coordinator_fenced_total{{{OF}}}[5m]))"),
                  about="A worker showed an epoch that was no longer its own."),
        ]),
        ("Callbacks", [
            panel("Events on their way", "short", 8, ("events", f"max(aircheck_coordinator_events_pending{{{OF}}})")),
            panel("Oldest event on its way", "s", 8, ("age", f"max(aircheck_coordinator_events_age_seconds{{{OF}}})")),
            panel("Attempts", "cps", 8, ("{{reason}}", f"sum by (reason) (rate(aircheck_coordinator_callbacks_total{{{OF}}}[5m]))")),
        ]),
        ("Metadata store", [
            panel("One transaction", "s", 12, *quantiles("aircheck_coordinator_store_commit_seconds", OF)),
            panel("One look of the planner", "s", 12, *quantiles("aircheck_coordinator_plan_seconds", OF), about="Over all streams, tasks and recordings, each second."),
            panel("Transactions", "cps", 12, ("{{instance}}", f"sum by (instance) (rate(aircheck_coordinator_store_commits_total{{{OF}}}[1m]))"),
                  about="Many decisions share one transaction under load."),
            panel("Failed", "cps", 12, ("{{reason}}", f"sum by (reason) (rate(aircheck_coordinator_store_errors_total{{{OF}}}[5m]))")),
        ]),
    ])


def storage():
    return dashboard("aircheck-storage", "Aircheck / storage", "Journals, their disks, and the files that are made of them.", [
        ("Now", [
            stat("Least free, of any journal disk", "bytes", f"min(aircheck_worker_disk_free_bytes{{{ONE}}} and aircheck_worker_disk_min_free_bytes{{{ONE}}} > 0)"),
            stat("A power loss would cost", "s", f"max(aircheck_worker_unsynced_seconds{{{ONE}}})", bad_above=5),
            stat("Workers whose storage answers", "short", f"sum(aircheck_worker_storage_up{{{ONE}}})", about="Of those with a bucket."),
            stat("Written", "bps", f"8 * sum(rate(aircheck_worker_objects_bytes_total{{{ONE}}}[5m]))"),
            stat("Failed journal writes, last hour", "short", f"sum(increase(aircheck_worker_journal_errors_total{{{ONE}}}[1h])) or vector(0)", bad_above=1),
        ]),
        ("Journals", [
            panel("Free space", "bytes", 12, ("{{instance}}", f"aircheck_worker_disk_free_bytes{{{ONE}}}"), ("below this {{instance}} takes no stream", f"aircheck_worker_disk_min_free_bytes{{{ONE}}}")),
            panel("Time until full", "s", 12,
                  ("{{instance}}", f"(aircheck_worker_disk_free_bytes{{{ONE}}} - aircheck_worker_disk_min_free_bytes{{{ONE}}}) / clamp_min(-deriv(aircheck_worker_disk_free_bytes{{{ONE}}}[30m]), 1)"),
                  about="At the pace of the last half hour; meaningless while space is growing."),
            panel("Journals", "bytes", 12, ("{{instance}}", f"aircheck_worker_journal_bytes{{{ONE}}}"), ("budget of {{instance}}", f"aircheck_worker_journal_budget_bytes{{{ONE}}} > 0")),
            panel("Oldest journal", "s", 12, ("{{instance}}", f"aircheck_worker_journal_age_seconds{{{ONE}}}"), about="A long stream has an old journal; one without a stream waits for storage or the coordinator."),
            panel("Syncs of the disk", "s", 12,
                  ("{{instance}}", f"rate(aircheck_worker_sync_seconds_total{{{ONE}}}[5m]) / rate(aircheck_worker_syncs_total{{{ONE}}}[5m])"), about="How long one takes, on average."),
            panel("Oldest write not yet safe", "s", 12, ("{{instance}}", f"aircheck_worker_unsynced_seconds{{{ONE}}}"), bad_above=5,
                  about="What a power loss would cost now."),
            panel("Failed writes and syncs", "cps", 12, ("{{instance}} {{reason}}", f"sum by (instance, reason) (rate(aircheck_worker_journal_errors_total{{{ONE}}}[5m]))")),
        ]),
        ("Object storage", [
            panel("Taken by storage", "bps", 8, ("{{instance}}", f"8 * sum by (instance) (rate(aircheck_worker_uploaded_bytes_total{{{ONE}}}[1m]))"), stack=True,
                  about="Repeated requests too."),
            panel("Uploads", "short", 8, ("under way", f"sum(aircheck_worker_uploads{{{ONE}}})"), ("waiting for their turn", f"sum(aircheck_worker_uploads_waiting{{{ONE}}})")),
            panel("Failed requests", "cps", 8, ("{{instance}} {{reason}}", f"sum by (instance, reason) (rate(aircheck_worker_upload_errors_total{{{ONE}}}[5m]))")),
        ]),
        ("Latencies", [
            panel("One step of a recorder", "s", 8, *quantiles("aircheck_worker_render_seconds", ONE, by="format")),
            panel("One upload", "s", 8, *quantiles("aircheck_worker_upload_seconds", ONE), about="An object or a part, until storage has it, retries included."),
            panel("From a finished file to the library", "s", 8, *quantiles("aircheck_worker_commit_seconds", ONE)),
        ]),
        ("Files", [
            panel("Files finished", "cps", 8, ("{{format}}", f"sum by (format) (rate(aircheck_worker_files_total{{{ONE}}}[5m]))")),
            panel("In and out", "bps", 8, ("taken", f"8 * sum(rate(aircheck_worker_ingest_bytes_total{{{ONE}}}[5m]))"), ("written", f"8 * sum(rate(aircheck_worker_objects_bytes_total{{{ONE}}}[5m]))"),
                  about="Written counts a file when it is whole, and each format."),
            panel("Being finished", "short", 8, ("{{instance}}", f"aircheck_worker_recordings{{{ONE}}} and on (namespace, instance) aircheck_worker_publishes == 0"),
                  about="Recordings of workers that nobody publishes to."),
        ]),
    ], by_instance=True)


def stream():
    return dashboard("aircheck-stream", "Aircheck / one stream", "One live stream. Needs telemetry.stream_metrics = true on the workers; there is one series for each stream then.", [
        ("Now", [
            stat("Units a second", "cps", f"sum(rate(aircheck_worker_stream_units{{{STREAM}}}[1m]))"),
            stat("Taken", "bps", f"8 * sum(rate(aircheck_worker_stream_journaled_bytes{{{STREAM}}}[1m]))"),
            stat("Not rendered yet", "bytes", f"sum(aircheck_worker_stream_lag_bytes{{{STREAM}}})"),
            panel("Worker", "short", 8, ("{{instance}}", f"count by (instance) (aircheck_worker_stream_units{{{STREAM}}})"), kind="stat", about="Where it is live."),
        ]),
        ("The stream", [
            panel("Units", "cps", 12, ("{{instance}}", f"sum by (instance) (rate(aircheck_worker_stream_units{{{STREAM}}}[1m]))"),
                  about="Coded pictures and audio frames. A gap is a time without a publish; another colour is another worker."),
            panel("Media taken", "bps", 12, ("{{instance}}", f"8 * sum by (instance) (rate(aircheck_worker_stream_journaled_bytes{{{STREAM}}}[1m]))")),
            panel("Of this publish", "bytes", 12, ("{{instance}}", f"sum by (instance) (aircheck_worker_stream_journaled_bytes{{{STREAM}}})"), about="Begins anew with each publish."),
            panel("Journaled and not rendered", "bytes", 12, ("{{instance}}", f"sum by (instance) (aircheck_worker_stream_lag_bytes{{{STREAM}}})"),
                  about="Of all its recordings and formats. Sawtooth: a step renders a segment, or some seconds of a file."),
        ]),
        ("Where it is", [
            panel("Failed requests to storage, of its worker", "cps", 12,
                  ("{{instance}} {{reason}}", f"sum by (instance, reason) (rate(aircheck_worker_upload_errors_total{{{OF}}}[5m])) and on (instance) count by (instance) (aircheck_worker_stream_units{{{STREAM}}})")),
            panel("Oldest write not yet safe, of its worker", "s", 12,
                  ("{{instance}}", f"aircheck_worker_unsynced_seconds{{{OF}}} and on (instance) count by (instance) (aircheck_worker_stream_units{{{STREAM}}})"), bad_above=5),
        ]),
    ], by_stream=True)


DASHBOARDS = {"fleet": fleet, "stream": stream, "control-plane": control_plane, "storage": storage}


def main():
    for name, make in DASHBOARDS.items():
        (HERE / "grafana" / f"{name}.json").write_text(json.dumps(make(), indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
