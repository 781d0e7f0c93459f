//! `aircheck callback …`

use proto::v1::callbacks_client::CallbacksClient;
use proto::v1::{
    CallbackRule, CallbackTemplate, CallbackTemplateSpec, CallbackUrls, CreateCallbackRuleRequest,
    CreateCallbackTemplateRequest, DeleteCallbackRuleRequest, DeleteCallbackTemplateRequest, ListCallbackRulesRequest,
    ListCallbackTemplatesRequest, UpdateCallbackTemplateRequest,
};
use serde_json::{Value, json};

use super::{Done, connect, given, instant, print, said, table};
use crate::cli::{self, CallbackCommand, CallbackRuleCommand, CallbackTemplateCommand, Client};

pub(crate) async fn run(command: CallbackCommand) -> Done {
    match command {
        CallbackCommand::Template { command } => templates(command).await,
        CallbackCommand::Rule { command } => rules(command).await,
    }
}

fn spec(args: &cli::CallbackTemplate) -> CallbackTemplateSpec {
    let url = |own: &Option<String>| given(own.as_ref().or(args.url.as_ref()));
    CallbackTemplateSpec {
        name: args.name.clone(),
        description: args.description.clone(),
        urls: Some(CallbackUrls {
            push_start: url(&args.push_start),
            push_end: url(&args.push_end),
            file: url(&args.file),
            status: url(&args.status),
            exception: url(&args.exception),
            push_exception: url(&args.push_exception),
        }),
        exception_levels: args.level.clone(),
    }
}

fn key(args: &cli::CallbackTemplate) -> Result<Option<String>, std::io::Error> {
    let Some(path) = &args.key_file else { return Ok(None) };
    let text = std::fs::read_to_string(path)
        .map_err(|error| std::io::Error::other(format!("--key-file {}: {error}", path.display())))?;
    Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
}

async fn templates(command: CallbackTemplateCommand) -> Done {
    match command {
        CallbackTemplateCommand::Create(args) => {
            let request = CreateCallbackTemplateRequest {
                spec: Some(spec(&args)),
                key: key(&args)?.unwrap_or_default(),
            };
            let answer = CallbacksClient::new(connect(&args.client)?)
                .create_callback_template(request)
                .await
                .map_err(said)?;
            show(&args.client, answer.into_inner().template)
        }
        CallbackTemplateCommand::Update { template: args, no_key } => {
            let mut service = CallbacksClient::new(connect(&args.client)?);
            let known = service
                .list_callback_templates(ListCallbackTemplatesRequest {})
                .await
                .map_err(said)?
                .into_inner()
                .templates;
            let mut spec = spec(&args);
            // An id names the template and is not its new name.
            let number = args.name.parse::<u64>().ok();
            let by_id = known.iter().find(|template| Some(template.id) == number);
            if let Some(named) = by_id.and_then(|template| template.spec.as_ref()) {
                spec.name.clone_from(&named.name);
            }
            let request = UpdateCallbackTemplateRequest {
                template: args.name.clone(),
                spec: Some(spec),
                key: if no_key { Some(String::new()) } else { key(&args)? },
            };
            let answer = service.update_callback_template(request).await.map_err(said)?;
            show(&args.client, answer.into_inner().template)
        }
        CallbackTemplateCommand::List { client } => {
            let answer = CallbacksClient::new(connect(&client)?)
                .list_callback_templates(ListCallbackTemplatesRequest {})
                .await
                .map_err(said)?
                .into_inner();
            let document = json!({ "templates": answer.templates.iter().map(document).collect::<Vec<_>>() });
            print(&client, &document, || {
                table(&HEADINGS, &answer.templates.iter().map(row).collect::<Vec<_>>())
            })
        }
        CallbackTemplateCommand::Delete { template, client } => {
            let request = DeleteCallbackTemplateRequest {
                template: template.clone(),
            };
            CallbacksClient::new(connect(&client)?)
                .delete_callback_template(request)
                .await
                .map_err(said)?;
            print(&client, &json!({ "deleted": template }), || {
                format!("callback template {template} deleted\n")
            })
        }
    }
}

async fn rules(command: CallbackRuleCommand) -> Done {
    match command {
        CallbackRuleCommand::Create {
            place,
            template,
            client,
        } => {
            let request = CreateCallbackRuleRequest {
                domain: place.domain,
                app: given(place.app.as_ref()),
                template,
            };
            let answer = CallbacksClient::new(connect(&client)?)
                .create_callback_rule(request)
                .await
                .map_err(said)?;
            let rule = answer.into_inner().rule.ok_or("the coordinator sent no rule")?;
            print(&client, &rule_document(&rule), || {
                table(&RULE_HEADINGS, &[rule_row(&rule)])
            })
        }
        CallbackRuleCommand::List { client } => {
            let answer = CallbacksClient::new(connect(&client)?)
                .list_callback_rules(ListCallbackRulesRequest {})
                .await
                .map_err(said)?
                .into_inner();
            let document = json!({ "rules": answer.rules.iter().map(rule_document).collect::<Vec<_>>() });
            print(&client, &document, || {
                table(&RULE_HEADINGS, &answer.rules.iter().map(rule_row).collect::<Vec<_>>())
            })
        }
        CallbackRuleCommand::Delete { place, client } => {
            let deleted = json!({ "domain": place.domain, "app": place.app });
            let request = DeleteCallbackRuleRequest {
                domain: place.domain,
                app: given(place.app.as_ref()),
            };
            CallbacksClient::new(connect(&client)?)
                .delete_callback_rule(request)
                .await
                .map_err(said)?;
            print(&client, &json!({ "deleted": deleted }), || {
                "callback rule deleted\n".to_owned()
            })
        }
    }
}

fn show(client: &Client, template: Option<CallbackTemplate>) -> Done {
    let template = template.ok_or("the coordinator sent no callback template")?;
    print(client, &document(&template), || table(&HEADINGS, &[row(&template)]))
}

const HEADINGS: [&str; 4] = ["id", "name", "signed", "tells"];

/// Kinds of events with their URLs; those without are left out.
fn urls(template: &CallbackTemplate) -> Vec<(&'static str, String)> {
    let urls = template.spec.clone().and_then(|spec| spec.urls).unwrap_or_default();
    let all = [
        ("push_start", urls.push_start),
        ("push_end", urls.push_end),
        ("file", urls.file),
        ("status", urls.status),
        ("exception", urls.exception),
        ("push_exception", urls.push_exception),
    ];
    all.into_iter().filter(|(_, url)| !url.is_empty()).collect()
}

fn document(template: &CallbackTemplate) -> Value {
    let spec = template.spec.clone().unwrap_or_default();
    let urls: serde_json::Map<String, Value> = urls(template)
        .into_iter()
        .map(|(kind, url)| (kind.to_owned(), json!(url)))
        .collect();
    json!({
        "id": template.id,
        "name": spec.name,
        "description": spec.description,
        "urls": urls,
        "exception_levels": spec.exception_levels,
        "signed": template.signed,
        "created": instant(template.created_ms),
        "updated": instant(template.updated_ms),
    })
}

fn row(template: &CallbackTemplate) -> Vec<String> {
    let spec = template.spec.clone().unwrap_or_default();
    let kinds: Vec<&str> = urls(template).iter().map(|(kind, _)| *kind).collect();
    let signed = if template.signed { "yes" } else { "no" };
    vec![template.id.to_string(), spec.name, signed.to_owned(), kinds.join(",")]
}

const RULE_HEADINGS: [&str; 3] = ["domain", "app", "template"];

fn rule_document(rule: &CallbackRule) -> Value {
    let app = (!rule.app.is_empty()).then_some(&rule.app);
    json!({
        "domain": rule.domain,
        "app": app,
        "template_id": rule.template_id,
        "template": rule.template_name,
        "created": instant(rule.created_ms),
    })
}

fn rule_row(rule: &CallbackRule) -> Vec<String> {
    let app = if rule.app.is_empty() { "*" } else { &rule.app };
    vec![rule.domain.clone(), app.to_owned(), rule.template_name.clone()]
}
