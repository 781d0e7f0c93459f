//! What the product relies on in object storage, held against every service that tests can start, and one in memory.

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use shared::config::{ChecksumMode, ObjectsConfig};
use shared::objects::{Bucket, ObjectError, ObjectsUrl};
use support::s3::{BUCKET, Kind, S3};

const PART: usize = 5 << 20;

fn bytes(len: usize, seed: usize) -> Bytes {
    (0..len).map(|n| ((n * 31 + seed) % 251) as u8).collect()
}

/// The bucket of a server, below a prefix. The library reads its keys from the environment alone, and so does this process.
fn bucket(s3: &S3, config: ObjectsConfig) -> Result<Bucket> {
    let config = ObjectsConfig {
        endpoint: Some(s3.endpoint().to_owned()),
        ..config
    };
    let ObjectsUrl::S3 { bucket, prefix } = format!("s3://{BUCKET}/some/where").parse()? else {
        bail!("not a bucket")
    };
    let keys = s3.env();
    let value = |name: &str| keys.iter().find(|(n, _)| *n == name).map(|(_, value)| value.as_str());
    let (key, secret) = (
        value("AWS_ACCESS_KEY_ID").context("key")?,
        value("AWS_SECRET_ACCESS_KEY").context("secret")?,
    );
    Ok(Bucket::s3_with_keys(&bucket, &prefix, &config, Some((key, secret)))?)
}

async fn objects(bucket: &Bucket) -> Result<()> {
    ensure!(bucket.size("a/b").await?.is_none());
    ensure!(matches!(bucket.get("a/b").await, Err(ObjectError::Missing(_))));
    bucket.put("a/b", vec![Bytes::from_static(b"first")]).await?;
    bucket
        .put("a/b", vec![Bytes::from_static(b"sec"), Bytes::from_static(b"ond")])
        .await?;
    bucket.put("a/c d/ü#1%41.ts", vec![bytes(100_000, 1)]).await?;
    ensure!(bucket.get("a/b").await? == "second");
    ensure!(bucket.size("a/b").await? == Some(6));
    ensure!(bucket.get("a/c d/ü#1%41.ts").await? == bytes(100_000, 1));
    ensure!(
        bucket.keys("a/").await? == ["a/b", "a/c d/ü#1%41.ts"],
        "{:?}",
        bucket.keys("a/").await?
    );
    bucket.delete("a/b").await?;
    bucket.delete("a/b").await?;
    ensure!(bucket.keys("a/").await?.len() == 1);
    Ok(())
}

async fn parts(bucket: &Bucket, lists: bool) -> Result<()> {
    let (head, body, tail) = (bytes(PART + 3, 1), bytes(PART, 2), bytes(77, 3));
    let upload = bucket.begin("f.mp4").await?;
    // The last first, the first last, and one of them twice.
    let last = bucket.put_part("f.mp4", &upload, 2, vec![tail.clone()]).await?;
    bucket.put_part("f.mp4", &upload, 1, vec![bytes(PART, 9)]).await?;
    let middle = bucket.put_part("f.mp4", &upload, 1, vec![body.clone()]).await?;
    if lists {
        let pending = bucket.pending("f").await?;
        ensure!(
            pending.len() == 1 && pending[0].upload_id == upload && pending[0].key == "f.mp4",
            "{pending:?}"
        );
        ensure!(bucket.pending("g").await?.is_empty());
    }
    ensure!(bucket.size("f.mp4").await?.is_none(), "there before it is whole");
    let (h1, h2) = (head.slice(..100), head.slice(100..));
    let first = bucket.put_part("f.mp4", &upload, 0, vec![h1, h2]).await?;
    if lists {
        let len = (2 * PART + 80) as u64;
        let ids = bucket.known_ids("f.mp4", &upload, (3, len)).await?;
        ensure!(
            ids == Some(vec![first.clone(), middle.clone(), last.clone()]),
            "{ids:?}"
        );
        ensure!(bucket.known_ids("f.mp4", &upload, (3, len + 1)).await?.is_none());
        ensure!(bucket.known_ids("f.mp4", &upload, (4, len)).await?.is_none());
    }
    bucket
        .complete("f.mp4", &upload, vec![first.clone(), middle.clone(), last.clone()])
        .await?;
    ensure!(bucket.get("f.mp4").await? == [head, body, tail].concat());
    // Asked again: it may say that the upload is gone, or that it is done.
    match bucket.complete("f.mp4", &upload, vec![first, middle, last]).await {
        Ok(()) | Err(ObjectError::Missing(_)) => {}
        Err(_) if !lists => {}
        Err(other) => bail!("{other}"),
    }
    ensure!(bucket.size("f.mp4").await? == Some((2 * PART + 80) as u64));
    ensure!(!lists || bucket.known_ids("f.mp4", &upload, (1, 1)).await?.is_none());

    let upload = bucket.begin("g.mp4").await?;
    bucket.put_part("g.mp4", &upload, 0, vec![bytes(10, 1)]).await?;
    bucket.abort("g.mp4", &upload).await?;
    if lists {
        bucket.abort("g.mp4", &upload).await?;
    }
    ensure!(bucket.pending("").await?.is_empty());
    ensure!(bucket.size("g.mp4").await?.is_none());
    ensure!(matches!(
        bucket.complete("g.mp4", &upload, Vec::new()).await,
        Err(ObjectError::Refused(_))
    ));
    Ok(())
}

#[tokio::test]
async fn in_memory() -> Result<()> {
    let bucket = Bucket::in_memory();
    objects(&bucket).await?;
    parts(&bucket, false).await
}

#[tokio::test]
async fn juicefs() -> Result<()> {
    let s3 = S3::start(Kind::JuiceFs)?;
    let plain = bucket(&s3, ObjectsConfig::default())?;
    objects(&plain).await?;
    parts(&plain, true).await?;
    let upload = "00000000-0000-0000-0000-000000000000";
    ensure!(matches!(
        plain.put_part("n", upload, 0, vec![bytes(10, 1)]).await,
        Err(ObjectError::Missing(_))
    ));
    // Nobody's keys: that may be mended, so it is waited for.
    let stranger = Bucket::s3_with_keys(
        BUCKET,
        "",
        &ObjectsConfig {
            endpoint: Some(s3.endpoint().to_owned()),
            ..ObjectsConfig::default()
        },
        Some(("test-access-key", "wrong")),
    )?;
    let refused = stranger.put("x", vec![bytes(10, 1)]).await;
    ensure!(matches!(refused, Err(ObjectError::Unavailable(_))), "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn moto() -> Result<()> {
    let s3 = S3::start(Kind::Moto)?;
    let plain = bucket(&s3, ObjectsConfig::default())?;
    objects(&plain).await?;
    parts(&plain, true).await?;
    // It takes a checksum and does not say that it verified it: that is not taken for stored.
    let summed = bucket(
        &s3,
        ObjectsConfig {
            checksum: ChecksumMode::Sha256,
            ..ObjectsConfig::default()
        },
    )?;
    let upload = summed.begin("summed").await?;
    let part = summed.put_part("summed", &upload, 0, vec![bytes(10, 1)]).await;
    ensure!(
        matches!(&part, Err(ObjectError::Refused(said)) if said.contains("objects.checksum")),
        "{part:?}"
    );
    summed.abort("summed", &upload).await?;
    // Parts that are too short are refused for good, as by the original.
    let upload = plain.begin("short").await?;
    let one = plain.put_part("short", &upload, 0, vec![bytes(10, 1)]).await?;
    let two = plain.put_part("short", &upload, 1, vec![bytes(10, 2)]).await?;
    let refused = plain.complete("short", &upload, vec![one, two]).await;
    ensure!(matches!(refused, Err(ObjectError::Refused(_))), "{refused:?}");
    plain.abort("short", &upload).await?;
    Ok(())
}

#[tokio::test]
async fn nobody_there() -> Result<()> {
    let config = ObjectsConfig {
        endpoint: Some("http://127.0.0.1:1".to_owned()),
        ..ObjectsConfig::default()
    };
    let bucket = Bucket::s3_with_keys("nobody", "", &config, Some(("a", "b")))?;
    for result in [
        bucket.put("x", vec![bytes(10, 1)]).await,
        bucket.size("x").await.map(drop),
        bucket.pending("").await.map(drop),
        bucket.begin("x").await.map(drop),
    ] {
        ensure!(matches!(result, Err(ObjectError::Unavailable(_))), "{result:?}");
    }
    Ok(())
}
