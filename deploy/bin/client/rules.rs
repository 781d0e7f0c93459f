//! `aircheck rule …`

use proto::v1::rules_client::RulesClient;
use proto::v1::{CreateRuleRequest, DeleteRuleRequest, ListRulesRequest, Rule, create_rule_request, template_ref};
use serde_json::{Value, json};

use super::templates::named;
use super::{Done, PAGE, connect, given, instant, print, said, table};
use crate::cli::{RuleCommand, RuleKey};

pub(crate) async fn run(command: RuleCommand) -> Done {
    match command {
        RuleCommand::Create { key, template, client } => {
            let template = named(&template).by.map(|by| match by {
                template_ref::By::TemplateId(id) => create_rule_request::Template::TemplateId(id),
                template_ref::By::Name(name) => create_rule_request::Template::TemplateName(name),
            });
            let request = CreateRuleRequest {
                key: Some(wire(&key)),
                template,
            };
            let answer = RulesClient::new(connect(&client)?)
                .create_rule(request)
                .await
                .map_err(said)?;
            let rule = answer.into_inner().rule.ok_or("the coordinator sent no rule")?;
            print(&client, &document(&rule), || table(&HEADINGS, &[row(&rule)]))
        }
        RuleCommand::List { client } => {
            let mut service = RulesClient::new(connect(&client)?);
            let (mut all, mut page_token) = (Vec::new(), String::new());
            loop {
                let request = ListRulesRequest {
                    page_size: PAGE,
                    page_token,
                };
                let page = service.list_rules(request).await.map_err(said)?.into_inner();
                all.extend(page.rules);
                page_token = page.next_page_token;
                if page_token.is_empty() {
                    break;
                }
            }
            let document = json!({ "rules": all.iter().map(document).collect::<Vec<_>>() });
            print(&client, &document, || {
                table(&HEADINGS, &all.iter().map(row).collect::<Vec<_>>())
            })
        }
        RuleCommand::Delete { key, client } => {
            let request = DeleteRuleRequest { key: Some(wire(&key)) };
            RulesClient::new(connect(&client)?)
                .delete_rule(request)
                .await
                .map_err(said)?;
            let deleted = json!({ "domain": key.domain, "app": key.app, "stream": key.stream });
            print(&client, &json!({ "deleted": deleted }), || "rule deleted\n".to_owned())
        }
    }
}

const HEADINGS: [&str; 4] = ["domain", "app", "stream", "template"];

fn wire(key: &RuleKey) -> proto::v1::RuleKey {
    proto::v1::RuleKey {
        domain: key.domain.clone(),
        app: given(key.app.as_ref()),
        stream: given(key.stream.as_ref()),
    }
}

fn or_null(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { json!(text) }
}

fn document(rule: &Rule) -> Value {
    let key = rule.key.clone().unwrap_or_default();
    json!({
        "domain": key.domain,
        "app": or_null(&key.app),
        "stream": or_null(&key.stream),
        "template_id": rule.template_id,
        "template": rule.template_name,
        "created": instant(rule.created_ms),
    })
}

fn row(rule: &Rule) -> Vec<String> {
    let key = rule.key.clone().unwrap_or_default();
    let any = |text: String| if text.is_empty() { "*".to_owned() } else { text };
    vec![key.domain, any(key.app), any(key.stream), rule.template_name.clone()]
}
