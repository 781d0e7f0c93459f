//! What a service is shown and told with each request: whose it is, and how to encrypt what it stores.

use std::time::Duration;

use anyhow::{Result, ensure};
use support::faults::{Passed, Proxy};
use support::pacer::Pacer;
use support::s3::{BUCKET, Kind, S3};

use crate::{FAT, data, setup};

/// The temporary keys' third part.
const TOKEN: &str = "token-of-temporary-keys";

/// That a header is this, in each of these requests.
fn ensure_said<'a>(passed: impl IntoIterator<Item = &'a Passed>, name: &str, value: &str) -> Result<()> {
    for request in passed {
        let said = request.header(name);
        ensure!(said == Some(value), "{name} is {said:?} with {}", request.line);
    }
    Ok(())
}

#[test]
fn each_request_shows_the_token_and_each_object_is_to_be_encrypted() -> Result<()> {
    let s3 = S3::start(Kind::Moto)?;
    let proxy = Proxy::start(s3.endpoint())?;
    let (_folder, data) = data()?;
    let mut setup = setup(&data).record("flv,hls,mp4").args(&[
        "--objects",
        &format!("s3://{BUCKET}/tv"),
        "--set",
        "objects.part_size=5 MiB",
        "--set",
        "objects.sse=aws:kms",
        "--set",
        "objects.sse_key=alias/recordings",
    ]);
    for (name, value) in s3.env() {
        setup = setup.env(name, &value);
    }
    let server = setup
        .env("AWS_ENDPOINT_URL", &proxy.endpoint())
        .env("AWS_SESSION_TOKEN", TOKEN)
        .start()?;
    Pacer::start_for(server.rtmp(), "one", FAT, Some(Duration::from_secs(4)))?.ended()?;
    server.finished("one", 1)?;
    let passed = proxy.passed();
    ensure_said(&passed, "x-amz-security-token", TOKEN)?;
    let stores = |request: &&Passed| request.line.starts_with("PUT ") && !request.line.contains("partNumber=");
    let begins = |request: &&Passed| request.line.starts_with("POST ") && request.line.contains("?uploads");
    let (objects, uploads): (Vec<_>, Vec<_>) = (
        passed.iter().filter(stores).collect(),
        passed.iter().filter(begins).collect(),
    );
    ensure!(objects.len() > 3 && !uploads.is_empty(), "{passed:#?}");
    for told in [objects, uploads] {
        ensure_said(told.iter().copied(), "x-amz-server-side-encryption", "aws:kms")?;
        ensure_said(told, "x-amz-server-side-encryption-aws-kms-key-id", "alias/recordings")?;
    }
    Ok(())
}
