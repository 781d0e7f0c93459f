//! One coordinator leads, all answer, and another takes over within seconds.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use support::cluster::Cluster;
use support::wait::{Seen, until};

use crate::shape;

/// What is promised: from the leader's death to an answer.
const FAILOVER: Duration = Duration::from_secs(5);

#[test]
fn every_coordinator_answers_and_sees_what_any_other_wrote() -> Result<()> {
    let cluster = Cluster::start(&shape(1, 3, 1))?;
    let leader = cluster.leader(None)?;
    for writer in 0..3 {
        let name = format!("by-{writer}");
        cluster.ask_one(writer)?.ask(&["template", "create", &name, "--flv"])?;
        for reader in 0..3 {
            let read = cluster.ask_one(reader)?.ask(&["template", "get", &name])?;
            ensure!(read["name"] == name.as_str(), "{read}");
        }
        let (status, text) = cluster.coordinators[writer].up()?.get("/readyz")?;
        let role = if writer == leader { "leads" } else { "follows c" };
        ensure!(status == 200 && text.contains(role), "{status} {text}");
    }
    let refused = cluster
        .ask_one((leader + 1) % 3)?
        .refused(&["template", "get", "nobody"])?;
    ensure!(
        refused.contains("nobody"),
        "a refusal comes through in its own words: {refused}"
    );
    Ok(())
}

#[test]
fn a_leader_that_is_killed_frozen_or_stopped_is_replaced() -> Result<()> {
    let mut cluster = Cluster::start(&shape(1, 3, 0))?;
    let old = cluster.leader(None)?;
    cluster.asker().ask(&["template", "create", "before", "--flv"])?;

    let begin = Instant::now();
    cluster.coordinators[old].kill()?;
    let took = cluster.answered_since(begin)?;
    eprintln!("answered {took:?} after kill -9 of the leader");
    ensure!(took < FAILOVER, "{took:?}");
    let second = cluster.leader(Some(old))?;
    cluster.asker().ask(&["template", "get", "before"])?;
    cluster.coordinators[old].start()?;

    let begin = Instant::now();
    cluster.coordinators[second].up()?.signal("STOP")?;
    let took = cluster.answered_since(begin)?;
    eprintln!("answered {took:?} after SIGSTOP of the leader");
    ensure!(took < FAILOVER, "{took:?}");
    let third = cluster.leader(Some(second))?;
    cluster.asker().ask(&["template", "create", "meanwhile", "--flv"])?;
    cluster.coordinators[second].up()?.signal("CONT")?;
    // What was paused finds out, follows, and answers with what was written meanwhile.
    until(Duration::from_secs(10), "the old leader to follow", || {
        let (status, text) = cluster.coordinators[second].up()?.get("/readyz")?;
        Ok(Seen::when(status == 200 && text.contains("follows"), text))
    })?;
    cluster.ask_one(second)?.ask(&["template", "get", "meanwhile"])?;

    let begin = Instant::now();
    cluster.coordinators[third].stop()?;
    let took = cluster.answered_since(begin)?;
    eprintln!("answered {took:?} after SIGTERM of the leader, its whole stop included");
    ensure!(took < Duration::from_secs(3), "{took:?}");
    cluster.asker().ask(&["template", "get", "meanwhile"])?;
    Ok(())
}
