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


def dashboard(uid, title, about, rows, by_instance=False):
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
            panel("Workers and streams", "short", 12, ("workers", f"max(aircheck_coordinator_workers{{{OF}}})"), ("streams", f"max(aircheck_coordinator_streams{{{OF}}})")),
            panel("Commits fenced", "cps", 12, ("a second", f"sum(rate(aircheck_coordinator_fenced_total{{{OF}}}[5m]))"),
                  about="A worker showed an epoch that was no longer its own."),
        ]),
        ("Metadata store", [
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
        ("Files", [
            panel("Files finished", "cps", 8, ("{{format}}", f"sum by (format) (rate(aircheck_worker_files_total{{{ONE}}}[5m]))")),
            panel("In and out", "bps", 8, ("taken", f"8 * sum(rate(aircheck_worker_ingest_bytes_total{{{ONE}}}[5m]))"), ("written", f"8 * sum(rate(aircheck_worker_objects_bytes_total{{{ONE}}}[5m]))"),
                  about="Written counts a file when it is whole, and each format."),
            panel("Being finished", "short", 8, ("{{instance}}", f"aircheck_worker_recordings{{{ONE}}} and on (namespace, instance) aircheck_worker_publishes == 0"),
                  about="Recordings of workers that nobody publishes to."),
        ]),
    ], by_instance=True)


DASHBOARDS = {"fleet": fleet, "control-plane": control_plane, "storage": storage}


def main():
    for name, make in DASHBOARDS.items():
        (HERE / "grafana" / f"{name}.json").write_text(json.dumps(make(), indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
