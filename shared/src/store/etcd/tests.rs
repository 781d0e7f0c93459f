use std::{sync::Arc, time::Instant};

use anyhow::{Context as _, Result, ensure};
use support::etcd::{Certificates, Etcd as Server};

use super::{super::contract, *};
use crate::{config::StoreConfig, store::open, time::System};

/// A store of its own prefix on a server.
fn store(url: &str) -> Result<Arc<dyn MetaStore>> {
    let config = StoreConfig {
        url: url.parse()?,
        ..Default::default()
    };
    Ok(open(&config, std::path::Path::new(""), Arc::new(System::new()))?)
}

macro_rules! contract_cases {
    ($($case:ident)*) => {
        mod etcd_keeps {
            $(#[tokio::test(flavor = "multi_thread")] async fn $case() {
                let server = super::Server::start(1).unwrap();
                let other = super::store(&server.url("contract-")).unwrap();
                other.commit(super::Txn::new().put("beside", "the prefix")).await.unwrap();
                let store = super::store(&server.url("contract")).unwrap();
                super::contract::$case(store.as_ref()).await;
            })*
        }
    };
}
crate::for_each_contract_case!(contract_cases);

/// Takes the next batch of a watch, or says that there is none.
async fn next(watch: &mut Watch) -> Result<super::super::Batch> {
    let told = tokio::time::timeout(Duration::from_secs(30), watch.next()).await;
    Ok(told.context("the watch is silent")??)
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_and_watches_go_on_after_a_kill() -> Result<()> {
    let mut server = Server::start(1)?;
    let store = store(&server.url("kill"))?;
    let first = store.commit(Txn::new().put("a", "1")).await?;
    let mut watch = store.watch("", first).await?;
    store.commit(Txn::new().put("a", "2")).await?;
    ensure!(next(&mut watch).await?.changes.len() == 1);
    server.kill(0)?;
    let begin = Instant::now();
    let refused = store.get("a").await;
    ensure!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    ensure!(
        begin.elapsed() < Duration::from_secs(8),
        "a call ends: {:?}",
        begin.elapsed()
    );
    server.restart(0)?;
    server.healthy()?;
    let entry = store.get("a").await?.context("what was committed is there")?;
    ensure!(entry.value == "2");
    store
        .commit(
            Txn::new()
                .guard(Guard::AtRevision("a".into(), entry.revision))
                .put("a", "3"),
        )
        .await?;
    let told = next(&mut watch).await?;
    ensure!(
        matches!(&told.changes[..], [super::super::Change::Put(entry)] if entry.value == "3"),
        "{told:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_member_is_left_for_another() -> Result<()> {
    let server = Server::start(3)?;
    let store = store(&server.url("frozen"))?;
    let leader = server.leader()?;
    let start = store.commit(Txn::new().put("a", "0")).await?;
    // Calls go to the first member as long as it answers: freeze that, and the one that leads.
    for member in [0, leader] {
        let entry = store.get("a").await?.context("a")?;
        let mut watch = store.watch("", entry.revision).await?;
        server.signal(member, "STOP")?;
        let begin = Instant::now();
        let txn = Txn::new()
            .guard(Guard::AtRevision("a".into(), entry.revision))
            .put("a", format!("{member}"));
        let committed = store.commit(txn).await;
        let took = begin.elapsed();
        // Of one that was under way when the leader froze nothing may be known for sure but that it happened at most once.
        if let Err(StoreError::Stale { .. }) = &committed {
            ensure!(store.get("a").await?.context("a")?.value == format!("{member}"));
        } else {
            committed?;
        }
        ensure!(took < Duration::from_secs(7), "{took:?}");
        let told = next(&mut watch).await?;
        ensure!(told.changes.len() == 1, "{told:?}");
        server.signal(member, "CONT")?;
        ensure!(next_after(store.as_ref(), start).await?);
    }
    Ok(())
}

/// True if every change after a revision can be told.
async fn next_after(store: &dyn MetaStore, start: Revision) -> Result<bool> {
    let now = store.scan(Scan::prefix("")).await?.revision;
    let mut watch = store.watch("", start).await?;
    while next(&mut watch).await?.revision < now {}
    Ok(true)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_death_of_the_leading_member_costs_seconds() -> Result<()> {
    let mut server = Server::start(3)?;
    let store = store(&server.url("leader"))?;
    let lease = store.grant_lease(Duration::from_secs(10)).await?;
    let mut revision = store.commit(Txn::new().put_leased("n", "0", lease)).await?;
    let mut watch = store.watch("n", revision).await?;
    let leader = server.leader()?;
    server.kill(leader)?;
    let begin = Instant::now();
    for n in 1..=20 {
        let txn = Txn::new()
            .guard(Guard::AtRevision("n".into(), revision))
            .put_leased("n", n.to_string(), lease);
        revision = store.commit(txn).await?;
    }
    store.renew_lease(lease).await?;
    ensure!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
    for n in 1..=20 {
        let told = next(&mut watch).await?;
        ensure!(
            matches!(&told.changes[..], [super::super::Change::Put(entry)] if entry.value == n.to_string()),
            "{told:?}"
        );
    }
    server.restart(leader)?;
    server.healthy()?;
    ensure!(store.get("n").await?.context("n")?.value == "20");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_nothing_is_done_and_nobody_waits_for_ever() -> Result<()> {
    let mut server = Server::start(3)?;
    let store = store(&server.url("majority"))?;
    let revision = store.commit(Txn::new().put("a", "1")).await?;
    server.kill(1)?;
    server.kill(2)?;
    let begin = Instant::now();
    let guarded = Txn::new().guard(Guard::AtRevision("a".into(), revision)).put("a", "2");
    for refused in [
        store.commit(guarded.clone()).await,
        store.commit(Txn::new().put("b", "1")).await,
        store.get("a").await.map(|_| Revision(0)),
    ] {
        ensure!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    }
    ensure!(begin.elapsed() < Duration::from_secs(25), "{:?}", begin.elapsed());
    server.restart(1)?;
    server.healthy()?;
    // What was refused as unavailable may have happened all the same, once.
    let value = store.get("a").await?.context("a")?.value;
    ensure!(value == "1" || value == "2", "{value:?}");
    match store.commit(guarded).await {
        Ok(_) | Err(StoreError::Stale { .. }) => {}
        other => ensure!(false, "{other:?}"),
    }
    ensure!(store.get("a").await?.context("a")?.value == "2");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_is_told() -> Result<()> {
    let server = Server::start(1)?;
    let store = store(&server.url("compact"))?;
    let first = store.commit(Txn::new().put("a", "0")).await?;
    let mut last = first;
    for n in 1..=10 {
        last = store.commit(Txn::new().put("a", n.to_string())).await?;
    }
    let mut before = store.watch("a", first).await?;
    ensure!(next(&mut before).await?.revision == Revision(first.0 + 1));
    server.ctl(&["compact", &last.0.to_string()])?;
    let mut late = store.watch("a", first).await?;
    let told = tokio::time::timeout(Duration::from_secs(10), late.next()).await?;
    ensure!(matches!(told, Err(StoreError::Compacted { .. })), "{told:?}");
    let mut fresh = store.watch("a", store.scan(Scan::prefix("a")).await?.revision).await?;
    let after = store.commit(Txn::new().put("a", "11")).await?;
    ensure!(next(&mut fresh).await?.revision == after);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_member_among_the_endpoints_is_not_noticed() -> Result<()> {
    let server = Server::start(1)?;
    let dead = support::etcd::free_port()?;
    let url = format!("etcd://127.0.0.1:{dead},{}/dead", server.endpoint(0));
    let store = store(&url)?;
    for n in 0..50 {
        store.commit(Txn::new().put(format!("k/{n}"), "")).await?;
        ensure!(store.get(&format!("k/{n}")).await?.is_some());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn many_large_values_are_read_in_several_answers() -> Result<()> {
    let server = Server::start(1)?;
    let store = store(&server.url("large"))?;
    for n in 0..40 {
        let value = vec![n; super::super::MAX_VALUE_BYTES];
        store.commit(Txn::new().put(format!("v/{n:02}"), value)).await?;
    }
    let (mut after, mut keys) = (None, Vec::new());
    loop {
        let page = store.scan(Scan::prefix("v/").after(after)).await?;
        ensure!(!page.entries.is_empty());
        keys.extend(page.entries.iter().map(|entry| entry.key.clone()));
        after = keys.last().cloned();
        if !page.more {
            break;
        }
    }
    let expected: Vec<String> = (0..40).map(|n| format!("v/{n:02}")).collect();
    ensure!(keys == expected, "{keys:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_and_passwords_let_in_and_keep_out() -> Result<()> {
    let server = Server::start_tls()?;
    let certificates = server.certificates().context("certificates")?;
    let mut config = StoreConfig {
        url: server.url("tls").parse()?,
        ca_file: Some(certificates.path("ca.pem")),
        cert_file: Some(certificates.path("client.pem")),
        key_file: Some(certificates.path("client.key")),
        ..Default::default()
    };
    let open_with = |config: &StoreConfig| open(config, std::path::Path::new(""), Arc::new(System::new()));
    let store = open_with(&config)?;
    store.commit(Txn::new().put("a", "1")).await?;

    for words in [
        "user add root:rootword --interactive=false",
        "role add root",
        "user grant-role root root",
        "user add air:airword --interactive=false",
        "role add air",
        "role grant-permission air readwrite tls/ --prefix=true",
        "user grant-role air air",
        "auth enable",
    ] {
        let words: Vec<&str> = words.split(' ').collect();
        server.ctl(&words)?;
    }
    let refused = store.get("a").await;
    ensure!(matches!(refused, Err(StoreError::Forbidden(_))), "{refused:?}");

    let folder = tempfile::tempdir()?;
    config.user = Some("air".to_owned());
    config.password_file = Some(folder.path().join("password"));
    std::fs::write(folder.path().join("password"), "wrong\n")?;
    let refused = open_with(&config)?.get("a").await;
    ensure!(
        matches!(&refused, Err(StoreError::Forbidden(why)) if why.contains("password") && !why.contains("wrong")),
        "{refused:?}"
    );
    std::fs::write(folder.path().join("password"), "airword\n")?;
    let store = open_with(&config)?;
    ensure!(store.get("a").await?.context("a")?.value == "1");
    let mut watch = store.watch("", store.scan(Scan::prefix("")).await?.revision).await?;
    store.commit(Txn::new().put("b", "1")).await?;
    next(&mut watch).await?;

    let mut elsewhere = config.clone();
    elsewhere.url = server.url("other").parse()?;
    let refused = open_with(&elsewhere)?.get("a").await;
    ensure!(
        matches!(&refused, Err(StoreError::Forbidden(why)) if why.contains("rights")),
        "{refused:?}"
    );

    config.cert_file = None;
    config.key_file = None;
    let refused = open_with(&config)?.get("a").await;
    ensure!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_changes_is_taken_without_a_restart() -> Result<()> {
    let server = Server::start(1)?;
    for words in [
        "user add root:rootword --interactive=false",
        "user grant-role root root",
        "user add air:first --interactive=false",
        "role add air",
        "role grant-permission air readwrite word/ --prefix=true",
        "user grant-role air air",
        "auth enable",
    ] {
        let words: Vec<&str> = words.split(' ').collect();
        server.ctl(&words)?;
    }
    let as_root = etcd_client::ConnectOptions::new().with_user("root", "rootword");
    let mut root = etcd_client::Client::connect([server.endpoint(0)], Some(as_root)).await?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("password");
    let config = StoreConfig {
        url: server.url("word").parse()?,
        user: Some("air".to_owned()),
        password_file: Some(file.clone()),
        ..Default::default()
    };
    let open = || open(&config, std::path::Path::new(""), Arc::new(System::new()));
    std::fs::write(&file, "\n")?;
    let empty = open().map(drop).unwrap_err().to_string();
    ensure!(empty.contains("is empty"), "{empty}");
    std::fs::write(&file, "first\n")?;
    let store = open()?;
    store.commit(Txn::new().put("a", "1")).await?;

    // etcd knows the new one first: it is used once it is in the file.
    root.user_change_password("air", "second").await?;
    let refused = store.get("a").await;
    ensure!(matches!(refused, Err(StoreError::Forbidden(_))), "{refused:?}");
    std::fs::write(&file, "second\n")?;
    tokio::time::timeout(Duration::from_secs(10), async {
        while store.get("a").await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await; // how often it is asked
        }
    })
    .await?;

    // The file has the new one first, and for a moment none: the old one is used until etcd knows the new one, and nothing fails.
    for word in ["", "third\n"] {
        std::fs::write(&file, word)?;
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(4) {
            store.commit(Txn::new().put("a", word)).await?;
            tokio::time::sleep(Duration::from_millis(200)).await; // how often it is asked
        }
    }
    root.user_change_password("air", "third").await?;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(4) {
        ensure!(store.get("a").await?.is_some());
        tokio::time::sleep(Duration::from_millis(200)).await; // how often it is asked
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_change_are_taken_without_a_restart() -> Result<()> {
    let mut server = Server::start_tls()?;
    let folder = tempfile::tempdir()?;
    let own = |name: &str| folder.path().join(name);
    let config = StoreConfig {
        url: server.url("renewed").parse()?,
        ca_file: Some(own("ca.pem")),
        cert_file: Some(own("client.pem")),
        key_file: Some(own("client.key")),
        ..Default::default()
    };
    let certificates = server.certificates().context("certificates")?.clone();
    let take = |names: &[&str]| -> Result<()> {
        for name in names {
            std::fs::copy(certificates.path(name), own(name))?;
        }
        Ok(())
    };
    take(&["ca.pem", "client.pem", "client.key"])?;
    let store = open(&config, std::path::Path::new(""), Arc::new(System::new()))?;
    store.commit(Txn::new().put("a", "1")).await?;

    // Another authority signs all of them. A certificate without its key is none yet: what was is used on.
    Certificates::make(&certificates.path(""))?;
    take(&["client.pem"])?;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(7) {
        store.get("a").await?;
        tokio::time::sleep(Duration::from_millis(200)).await; // how often it is asked
    }
    server.kill(0)?;
    server.restart(0)?;
    server.healthy()?;
    let refused = store.get("a").await;
    ensure!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    take(&["ca.pem", "client.key"])?;
    let begin = Instant::now();
    let value = loop {
        match store.get("a").await {
            Ok(entry) => break entry.context("a")?.value,
            Err(error) => ensure!(begin.elapsed() < Duration::from_secs(30), "{error}"),
        }
    };
    ensure!(value == "1");
    Ok(())
}
