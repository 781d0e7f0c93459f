//! Templates and rules.

use proto::v1;
use tonic::Code;

use crate::world::{World, named, spec};

#[actix_rt::test]
async fn templates_live_and_are_limited() {
    let mut world = World::new(|config| config.max_templates = 3).await;
    let made = world
        .create_template("day", &[v1::Format::Flv, v1::Format::Hls])
        .await
        .unwrap();
    let settings = made.spec.clone().unwrap().formats;
    assert_eq!(
        settings
            .iter()
            .map(|f| (f.format(), f.record_interval_s))
            .collect::<Vec<_>>(),
        [(v1::Format::Flv, 1_800), (v1::Format::Hls, 1_800)]
    );
    assert!(
        settings.iter().all(|f| f.file_name.starts_with("{StreamID}_")),
        "defaults are filled in"
    );
    let again = world.create_template("day", &[]).await.unwrap_err();
    assert_eq!(again.code(), Code::AlreadyExists);
    for (name, formats, message) in [
        ("a b", vec![], "letters, digits"),
        ("x", vec![v1::Format::Unspecified], "FLV, HLS, MP4, AAC or MP3"),
        ("x", vec![v1::Format::Flv, v1::Format::Flv], "twice"),
        ("built-in", vec![], "--record"),
    ] {
        let refused = world.create_template(name, &formats).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains(message), "{}", refused.message());
    }
    let long = world.create_template(&"n".repeat(1 << 20), &[]).await.unwrap_err();
    assert_eq!(long.code(), Code::InvalidArgument);
    let get = v1::GetTemplateRequest {
        template: named(&"n".repeat(1 << 20)),
    };
    let unknown = world.templates().get_template(get).await.unwrap_err();
    assert_eq!(
        (unknown.code(), unknown.message().len() < 1_100),
        (Code::NotFound, true)
    );
    world.create_template("night", &[]).await.unwrap();
    world.create_template("third", &[]).await.unwrap();
    let full = world.create_template("fourth", &[]).await.unwrap_err();
    assert_eq!(
        (full.code(), full.message().contains("coordinator.max_templates")),
        (Code::ResourceExhausted, true)
    );

    let update = v1::UpdateTemplateRequest {
        template: named("night"),
        spec: Some(spec("nights", &[v1::Format::Mp4])),
    };
    world.templates().update_template(update.clone()).await.unwrap();
    assert_eq!(
        world.templates().update_template(update).await.unwrap_err().code(),
        Code::NotFound
    );
    world
        .templates()
        .delete_template(v1::DeleteTemplateRequest {
            template: named("third"),
        })
        .await
        .unwrap();
    world.restart().await;
    let mut names = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListTemplatesRequest {
            page_size: 1,
            page_token,
        };
        let page = world.templates().list_templates(request).await.unwrap().into_inner();
        names.extend(page.templates.into_iter().map(|template| template.spec.unwrap().name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["day", "nights"]);
    let get = v1::GetTemplateRequest { template: named("day") };
    assert_eq!(
        world.templates().get_template(get).await.unwrap().into_inner().template,
        Some(made)
    );
    let bad = v1::ListTemplatesRequest {
        page_token: "x".into(),
        page_size: 0,
    };
    assert_eq!(
        world.templates().list_templates(bad).await.unwrap_err().code(),
        Code::InvalidArgument
    );
}

#[actix_rt::test]
async fn rules_bind_templates_and_say_why() {
    let mut world = World::new(|config| config.record = vec![shared::template::Format::Aac]).await;
    world.create_template("day", &[v1::Format::Flv]).await.unwrap();
    world.create_template("never", &[]).await.unwrap();
    assert_eq!(
        world.create_rule("d", "", "", "none").await.unwrap_err().code(),
        Code::NotFound
    );
    assert_eq!(
        world.create_rule("", "", "", "day").await.unwrap_err().code(),
        Code::InvalidArgument
    );
    world.create_rule("D", "", "", "day").await.unwrap();
    assert_eq!(
        world.create_rule("d", "", "", "never").await.unwrap_err().code(),
        Code::AlreadyExists
    );
    world.create_rule("d", "live", "quiet", "never").await.unwrap();
    let used = world
        .templates()
        .delete_template(v1::DeleteTemplateRequest { template: named("day") })
        .await
        .unwrap_err();
    assert_eq!(used.code(), Code::FailedPrecondition);
    assert!(used.message().contains("d/*/*"), "{}", used.message());

    world.restart().await;
    let explain = async |domain: &str, stream: &str| {
        let stream = v1::StreamKey {
            domain: domain.into(),
            app: "live".into(),
            stream: stream.into(),
        };
        let request = v1::ExplainStreamRequest { stream: Some(stream) };
        world.streams().explain_stream(request).await.unwrap().into_inner()
    };
    let said = explain("d", "cam").await;
    assert_eq!(said.formats().collect::<Vec<_>>(), [v1::Format::Flv]);
    assert_eq!(
        said.candidates
            .iter()
            .filter(|c| c.wins)
            .map(|c| c.rule.as_str())
            .collect::<Vec<_>>(),
        ["d/*/*"]
    );
    assert_eq!(said.candidates.len(), 5);
    assert_eq!(explain("d", "quiet").await.formats.len(), 0);
    assert_eq!(
        explain("e", "cam").await.formats().collect::<Vec<_>>(),
        [v1::Format::Aac]
    );
    let quiet = world.grant(&world.ask(world.worker(), "quiet")).await;
    assert!(quiet.recordings.is_empty(), "a no-record template wins like any other");

    let list = world
        .rules()
        .list_rules(v1::ListRulesRequest::default())
        .await
        .unwrap()
        .into_inner()
        .rules;
    let shown: Vec<_> = list
        .iter()
        .map(|rule| (rule.key.clone().unwrap().stream, rule.template_name.clone()))
        .collect();
    assert_eq!(
        shown,
        [
            (String::new(), "day".to_owned()),
            ("quiet".to_owned(), "never".to_owned())
        ]
    );
    let key = Some(v1::RuleKey {
        domain: "d".into(),
        ..Default::default()
    });
    world
        .rules()
        .delete_rule(v1::DeleteRuleRequest { key: key.clone() })
        .await
        .unwrap();
    assert_eq!(
        world
            .rules()
            .delete_rule(v1::DeleteRuleRequest { key })
            .await
            .unwrap_err()
            .code(),
        Code::NotFound
    );
}
