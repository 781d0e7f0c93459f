//! Every action, good and bad, through every form of request that the SDKs can send.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use support::tencent::{CLIENTS, Client, Key, Sdk};

use super::{DOMAIN, world};

/// Makes a template by one client and goes through its life.
fn templates(sdk: &mut Sdk, name: &str) -> Result<()> {
    let made = sdk.ask(
        "live",
        "CreateLiveRecordTemplate",
        &json!({
            "TemplateName": name,
            "Description": "한글 and spaces & more=1+1",
            "Mp4Param": {"Enable": 1, "RecordInterval": 3600, "StorageTime": 86400},
            "HlsParam": {"Enable": 1},
            "HlsSpecialParam": {"FlowContinueDuration": 600},
            "RemoveWatermark": true,
        }),
    )?;
    let id = made["TemplateId"].as_i64().context("no TemplateId")?;
    let shown = sdk.ask("live", "DescribeLiveRecordTemplate", &json!({"TemplateId": id}))?;
    let shown = &shown["Template"];
    ensure!(shown["TemplateName"] == name && shown["TemplateId"] == id, "{shown}");
    ensure!(shown["Description"] == "한글 and spaces & more=1+1", "{shown}");
    ensure!(
        shown["Mp4Param"]["Enable"] == 1 && shown["Mp4Param"]["RecordInterval"] == 3600,
        "{shown}"
    );
    ensure!(shown["FlvParam"]["Enable"] == 0, "{shown}");
    ensure!(shown["HlsSpecialParam"]["FlowContinueDuration"] == 600, "{shown}");
    sdk.ask(
        "live",
        "ModifyLiveRecordTemplate",
        &json!({"TemplateId": id, "FlvParam": {"Enable": 1, "VodFileName": "{StreamID}"}, "Mp4Param": {"Enable": 0}}),
    )?;
    let all = sdk.ask("live", "DescribeLiveRecordTemplates", &json!({}))?;
    let shown = all["Templates"]
        .as_array()
        .and_then(|all| all.iter().find(|template| template["TemplateId"] == id))
        .context("not in the list")?;
    ensure!(
        shown["Mp4Param"]["Enable"] == 0 && shown["FlvParam"]["VodFileName"] == "{StreamID}",
        "{shown}"
    );
    ensure!(
        shown["HlsSpecialParam"]["FlowContinueDuration"] == 600,
        "what is left out stays: {shown}"
    );
    let rule = json!({"DomainName": DOMAIN, "AppName": "", "StreamName": name, "TemplateId": id});
    sdk.ask("live", "CreateLiveRecordRule", &rule)?;
    sdk.refused(
        "live",
        "CreateLiveRecordRule",
        &rule,
        "FailedOperation.RuleAlreadyExist",
    )?;
    let rules = sdk.ask("live", "DescribeLiveRecordRules", &json!({}))?;
    let shown = rules["Rules"]
        .as_array()
        .and_then(|rules| rules.iter().find(|rule| rule["StreamName"] == name))
        .context("no rule")?;
    ensure!(
        shown["AppName"] == "" && shown["TemplateId"] == id && shown["DomainName"] == DOMAIN,
        "{shown}"
    );
    let template = json!({"TemplateId": id});
    sdk.refused(
        "live",
        "DeleteLiveRecordTemplate",
        &template,
        "FailedOperation.ConfInUsed",
    )?;
    let triple = json!({"DomainName": DOMAIN, "AppName": "", "StreamName": name});
    sdk.ask("live", "DeleteLiveRecordRule", &triple)?;
    sdk.refused("live", "DeleteLiveRecordRule", &triple, "FailedOperation.NotFound")?;
    sdk.ask("live", "DeleteLiveRecordTemplate", &template)?;
    sdk.refused(
        "live",
        "DescribeLiveRecordTemplate",
        &template,
        "FailedOperation.NotFound",
    )?;
    sdk.refused(
        "live",
        "DeleteLiveRecordTemplate",
        &template,
        "InternalError.ConfNotFound",
    )?;
    let found = sdk.ask(
        "vod",
        "SearchMedia",
        &json!({"SourceTypes": ["Record"], "StreamIds": [name], "Sort": {"Field": "CreateTime", "Order": "Desc"}, "Limit": 10}),
    )?;
    ensure!(found["TotalCount"] == 0, "{found}");
    Ok(())
}

#[test]
fn every_form_of_request_of_every_sdk_is_understood() -> Result<()> {
    let (_folder, server, key, _) = world()?;
    for (index, client) in CLIENTS.into_iter().enumerate() {
        let mut sdk = Sdk::start(client, server.http(), &key)?;
        templates(&mut sdk, &format!("t{index}")).with_context(|| format!("{client:?}"))?;
    }
    Ok(())
}

#[test]
fn a_wrong_key_is_refused_in_every_form() -> Result<()> {
    let (_folder, server, key, _) = world()?;
    let wrong = Key {
        secret: format!("{}x", key.secret),
        ..key.clone()
    };
    let unknown = Key {
        id: "AKIDunknown".to_owned(),
        ..key.clone()
    };
    let ask = |client: Client, key: &Key, code: &str| -> Result<()> {
        let mut sdk = Sdk::start(client, server.http(), key)?;
        sdk.refused("live", "DescribeLiveRecordRules", &json!({}), code)
            .with_context(|| format!("{client:?}"))?;
        Ok(())
    };
    for client in CLIENTS {
        ask(client, &wrong, "AuthFailure.SignatureFailure")?;
    }
    ask(Client::Python(&[]), &unknown, "AuthFailure.SecretIdNotFound")?;
    server.ask(&["key", "disable", &key.id])?;
    ask(Client::Python(&[]), &key, "AuthFailure.InvalidSecretId")?;
    let listed = server.ask(&["key", "list"])?;
    ensure!(!listed.to_string().contains(&key.secret), "a list shows a secret");
    ensure!(!server.log().contains(&key.secret), "the log shows a secret");
    for entry in std::fs::read_dir(server.data())? {
        let path = entry?.path();
        if path.is_file() {
            let bytes = std::fs::read(&path)?;
            let secret = key.secret.as_bytes();
            ensure!(
                !bytes.windows(secret.len()).any(|window| window == secret),
                "{} holds a secret",
                path.display()
            );
        }
    }
    Ok(())
}

#[test]
fn a_key_may_do_what_it_is_for() -> Result<()> {
    let (_folder, server, _, mut sdk) = world()?;
    let start =
        |more: &[&str]| -> Result<Sdk> { Sdk::start(Client::Python(&[]), server.http(), &Key::create(&server, more)?) };
    let mut reader = start(&["--read-only"])?;
    let mut of_domain = start(&["--domain", DOMAIN])?;
    let template = json!({"TemplateName": "t", "FlvParam": {"Enable": 1}});
    reader.refused("live", "CreateLiveRecordTemplate", &template, "UnauthorizedOperation")?;
    of_domain.refused("live", "CreateLiveRecordTemplate", &template, "UnauthorizedOperation")?;
    let id = sdk.ask("live", "CreateLiveRecordTemplate", &template)?["TemplateId"].clone();
    reader.ask("live", "DescribeLiveRecordTemplate", &json!({"TemplateId": id}))?;
    let rule = |domain: &str| json!({"DomainName": domain, "AppName": "", "StreamName": "", "TemplateId": id});
    of_domain.ask("live", "CreateLiveRecordRule", &rule(DOMAIN))?;
    of_domain.refused(
        "live",
        "CreateLiveRecordRule",
        &rule("other.example"),
        "UnauthorizedOperation",
    )?;
    sdk.ask("live", "CreateLiveRecordRule", &rule("other.example"))?;
    let count = |sdk: &mut Sdk| -> Result<usize> {
        let rules = sdk.ask("live", "DescribeLiveRecordRules", &json!({}))?;
        Ok(rules["Rules"].as_array().context("no list")?.len())
    };
    ensure!(
        count(&mut of_domain)? == 1 && count(&mut reader)? == 2,
        "a key sees its domains alone"
    );
    Ok(())
}

#[test]
fn what_is_wrong_has_its_documented_code() -> Result<()> {
    let (_folder, _server, _, mut sdk) = world()?;
    let made = sdk.ask("live", "CreateLiveRecordTemplate", &json!({"TemplateName": "taken"}))?;
    let id = &made["TemplateId"];
    let stream = |more: Value| {
        let mut all = json!({"DomainName": DOMAIN, "AppName": "live", "StreamName": "s"});
        if let (Some(all), Some(more)) = (all.as_object_mut(), more.as_object()) {
            all.extend(more.clone());
        }
        all
    };
    let cases = [
        ("live", "CreateLiveRecordTemplate", json!({}), "MissingParameter"),
        (
            "live",
            "CreateLiveRecordTemplate",
            json!({"TemplateName": "no good"}),
            "InvalidParameterValue",
        ),
        (
            "live",
            "CreateLiveRecordTemplate",
            json!({"TemplateName": "taken"}),
            "InvalidParameterValue",
        ),
        (
            "live",
            "CreateLiveRecordTemplate",
            json!({"TemplateName": 7}),
            "InvalidParameter",
        ),
        (
            "live",
            "CreateLiveRecordTemplate",
            json!({"TemplateName": "a", "FlvParam": {"Enable": 1, "RecordInterval": 29}}),
            "InvalidParameterValue",
        ),
        (
            "live",
            "CreateLiveRecordTemplate",
            json!({"TemplateName": "a", "FlvParam": {"Enable": 1, "VodFileName": "{Nobody}"}}),
            "InvalidParameter.InvalidVodFileName",
        ),
        (
            "live",
            "CreateLiveRecordTemplate",
            json!({"TemplateName": "a", "IsDelayLive": 1}),
            "UnsupportedOperation",
        ),
        (
            "live",
            "CreateLiveRecordTemplate",
            json!({"TemplateName": "a", "CosStore": 1}),
            "UnsupportedOperation",
        ),
        (
            "live",
            "ModifyLiveRecordTemplate",
            json!({"TemplateId": 1, "Description": "x"}),
            "FailedOperation.NotFound",
        ),
        (
            "live",
            "CreateLiveRecordRule",
            json!({"DomainName": "a b", "TemplateId": id}),
            "InvalidParameter.DomainFormatError",
        ),
        (
            "live",
            "CreateLiveRecordRule",
            json!({"DomainName": DOMAIN, "TemplateId": 1}),
            "InvalidParameter.ConfNotFound",
        ),
        (
            "live",
            "CreateLiveRecordRule",
            json!({"DomainName": DOMAIN}),
            "MissingParameter",
        ),
        (
            "live",
            "DescribeLiveStreamOnlineList",
            json!({"PageSize": 9}),
            "InvalidParameterValue",
        ),
        (
            "live",
            "DescribeLiveStreamState",
            json!({"DomainName": DOMAIN, "AppName": "live"}),
            "MissingParameter",
        ),
        (
            "live",
            "ForbidLiveStream",
            stream(json!({"ResumeTime": "2018-08-01T00:00:00Z"})),
            "InvalidParameterValue",
        ),
        (
            "live",
            "ForbidLiveStream",
            stream(json!({"ResumeTime": "soon"})),
            "InvalidParameterValue",
        ),
        (
            "live",
            "AddLiveDomain",
            json!({"DomainName": "a/b", "DomainType": 0}),
            "InvalidParameter.DomainFormatError",
        ),
        (
            "live",
            "AddLiveDomain",
            json!({"DomainName": "play.example", "DomainType": 1}),
            "UnsupportedOperation",
        ),
        (
            "live",
            "DeleteLiveDomain",
            json!({"DomainName": "none.example", "DomainType": 0}),
            "ResourceNotFound.DomainNotExist",
        ),
        (
            "live",
            "DescribeLiveDomain",
            json!({"DomainName": "none.example"}),
            "ResourceNotFound.DomainNotExist",
        ),
        (
            "live",
            "EnableLiveDomain",
            json!({"DomainName": "none.example"}),
            "ResourceNotFound",
        ),
        (
            "live",
            "DescribeLivePushAuthKey",
            json!({"DomainName": "none.example"}),
            "ResourceNotFound.PushDomainNoRecord",
        ),
        (
            "live",
            "ModifyLivePushAuthKey",
            json!({"DomainName": "none.example", "Enable": 0}),
            "ResourceNotFound.PushDomainNoRecord",
        ),
        (
            "live",
            "CreateLiveSnapshotTemplate",
            json!({"TemplateName": "a"}),
            "UnsupportedOperation",
        ),
        (
            "vod",
            "SearchMedia",
            json!({"Offset": 5000}),
            "InvalidParameterValue.Offset",
        ),
        (
            "vod",
            "SearchMedia",
            json!({"Sort": {"Field": "Size", "Order": "Asc"}}),
            "InvalidParameterValue.Sort",
        ),
        (
            "vod",
            "DescribeMediaInfos",
            json!({"FileIds": []}),
            "InvalidParameterValue.FileIdsEmpty",
        ),
        (
            "vod",
            "DescribeMediaInfos",
            json!({"FileIds": vec!["x"; 21]}),
            "InvalidParameterValue.FileIdsOverLimit",
        ),
        (
            "vod",
            "ModifyMediaInfo",
            json!({"FileId": "none"}),
            "ResourceNotFound.FileNotExist",
        ),
        ("vod", "DeleteMedia", json!({"FileId": "none"}), "ResourceNotFound"),
        (
            "vod",
            "ComposeMedia",
            json!({"Tracks": [], "Output": {"FileName": "x"}}),
            "MissingParameter",
        ),
        ("vod", "EditMedia", json!({"InputType": "File"}), "UnsupportedOperation"),
    ];
    for (service, action, params, code) in cases {
        sdk.refused(service, action, &params, code)?;
    }
    for index in 1..50 {
        let name = format!("t{index}");
        sdk.ask("live", "CreateLiveRecordTemplate", &json!({"TemplateName": name}))?;
    }
    let more = json!({"TemplateName": "t50"});
    sdk.refused("live", "CreateLiveRecordTemplate", &more, "InternalError.ConfOutLimit")?;
    let all = sdk.ask("live", "DescribeLiveRecordTemplates", &json!({}))?;
    let ids: std::collections::BTreeSet<i64> = all["Templates"]
        .as_array()
        .context("no list")?
        .iter()
        .filter_map(|template| template["TemplateId"].as_i64())
        .collect();
    ensure!(ids.len() == 50, "each template has a number of its own: {ids:?}");
    Ok(())
}

#[test]
fn domains_and_push_keys_are_kept_over_a_restart() -> Result<()> {
    let (_folder, server, key, mut sdk) = world()?;
    let domain = json!({"DomainName": "Push.Example.com"});
    sdk.ask("live", "AddLiveDomain", &json!({"DomainName": DOMAIN, "DomainType": 0}))?;
    sdk.refused(
        "live",
        "AddLiveDomain",
        &json!({"DomainName": DOMAIN, "DomainType": 0}),
        "FailedOperation.DomainAdded",
    )?;
    let auth = sdk.ask("live", "DescribeLivePushAuthKey", &domain)?["PushAuthKeyInfo"].clone();
    ensure!(
        auth["Enable"] == 1 && auth["MasterAuthKey"].as_str().is_some_and(|key| key.len() == 32),
        "{auth}"
    );
    sdk.ask(
        "live",
        "ModifyLivePushAuthKey",
        &json!({"DomainName": DOMAIN, "MasterAuthKey": "first0key", "BackupAuthKey": "second0key", "AuthDelta": 60}),
    )?;
    sdk.ask("live", "ForbidLiveDomain", &domain)?;
    let server = server.kill()?.start()?;
    let mut sdk = Sdk::start(Client::Node(&[]), server.http(), &key)?;
    let auth = sdk.ask("live", "DescribeLivePushAuthKey", &domain)?["PushAuthKeyInfo"].clone();
    ensure!(
        auth["Enable"] == 1
            && auth["MasterAuthKey"] == "first0key"
            && auth["BackupAuthKey"] == "second0key"
            && auth["AuthDelta"] == 60,
        "{auth}"
    );
    let store = std::fs::read(server.data().join("metadata.redb"))?;
    ensure!(
        !store.windows(9).any(|window| window == b"first0key"),
        "the store holds a push key as it is"
    );
    let list = sdk.ask("live", "DescribeLiveDomains", &json!({"DomainStatus": 0}))?;
    ensure!(
        list["AllCount"] == 1 && list["DomainList"][0]["Name"] == DOMAIN,
        "{list}"
    );
    sdk.ask("live", "EnableLiveDomain", &domain)?;
    let shown = sdk.ask("live", "DescribeLiveDomain", &domain)?;
    ensure!(shown["DomainInfo"]["Status"] == 1, "{shown}");
    sdk.ask(
        "live",
        "DeleteLiveDomain",
        &json!({"DomainName": DOMAIN, "DomainType": 0}),
    )?;
    let list = sdk.ask("live", "DescribeLiveDomains", &json!({}))?;
    ensure!(list["AllCount"] == 0, "{list}");
    Ok(())
}
