//! The key that secrets are sealed with is replaced while everything goes on.

use anyhow::{Result, ensure};
use serde_json::json;
use support::server::Server;
use support::tencent::{Client, Key, Sdk};

use crate::{data, setup};

const DOMAIN: &str = "push.example.com";

#[test]
fn the_key_of_all_secrets_is_replaced_without_losing_one() -> Result<()> {
    let (folder, data) = data()?;
    let file = folder.path().join("secrets.key");
    let (old, new) = ("1a".repeat(32), "2b".repeat(32));
    let start = |lines: &str| -> Result<Server> {
        std::fs::write(&file, lines)?;
        let setting = format!("coordinator.secrets_key_file={}", file.display());
        setup(&data).args(&["--set", &setting]).start()
    };
    let server = start(&old)?;
    let key = Key::create(&server, &[])?;
    let mut sdk = Sdk::start(Client::Python(&[]), server.http(), &key)?;
    sdk.ask("live", "AddLiveDomain", &json!({"DomainName": DOMAIN, "DomainType": 0}))?;
    let keys = json!({"DomainName": DOMAIN, "Enable": 1, "MasterAuthKey": "master", "BackupAuthKey": "backup"});
    sdk.ask("live", "ModifyLivePushAuthKey", &keys)?;
    let template =
        json!({"TemplateName": "told", "RecordNotifyUrl": "https://receiver.example/x", "CallbackKey": "signed"});
    let template = sdk.ask("live", "CreateLiveCallbackTemplate", &template)?;
    let nothing = server.ask(&["key", "reseal"])?;
    ensure!(nothing == json!({"resealed": 0, "total": 4}), "{nothing}");
    server.kill()?;

    // Everything that was sealed opens, whichever key it was sealed with.
    let all_open = |server: &Server| -> Result<()> {
        let mut sdk = Sdk::start(Client::Python(&[]), server.http(), &key)?;
        let keys = sdk.ask("live", "DescribeLivePushAuthKey", &json!({"DomainName": DOMAIN}))?;
        let keys = &keys["PushAuthKeyInfo"];
        ensure!(
            keys["MasterAuthKey"] == "master" && keys["BackupAuthKey"] == "backup",
            "{keys}"
        );
        let id = json!({"TemplateId": template["TemplateId"]});
        let shown = sdk.ask("live", "DescribeLiveCallbackTemplate", &id)?;
        ensure!(shown["Template"]["CallbackKey"] == "signed", "{shown}");
        Ok(())
    };
    let server = start(&format!("{new}\n{old}\n"))?;
    all_open(&server)?;
    let fresh = Key::create(&server, &[])?;
    let done = server.ask(&["key", "reseal"])?;
    ensure!(done == json!({"resealed": 4, "total": 5}), "{done}");
    all_open(&server)?;
    let again = server.ask(&["key", "reseal"])?;
    ensure!(again == json!({"resealed": 0, "total": 5}), "{again}");
    server.kill()?;

    // The old one is of no use any more.
    let refused = match start(&old) {
        Ok(_) => "it started".to_owned(),
        Err(error) => format!("{error:#}"),
    };
    ensure!(refused.contains("sealed with another key"), "{refused}");
    let server = start(&new)?;
    all_open(&server)?;
    let mut sdk = Sdk::start(Client::Python(&[]), server.http(), &fresh)?;
    sdk.ask("live", "DescribeLiveDomains", &json!({}))?;
    Ok(())
}
