//! Service `Rules`.

use proto::v1;
use shared::{
    rule::{Rule, RuleKey},
    store::Page,
    wire::{self, WireError},
};
use tonic::{Request, Response, Status};

use super::{Api, cut, status::Failure};
use crate::catalog::TemplateRef;

fn key(key: Option<v1::RuleKey>) -> Result<RuleKey, WireError> {
    let key = wire::required("key", key)?;
    RuleKey::new(&key.domain, &key.app, &key.stream).map_err(|error| WireError::new("key", error))
}

fn written(rule: &Rule, template_name: &str) -> v1::Rule {
    v1::Rule {
        key: Some(v1::RuleKey {
            domain: rule.key.domain().to_owned(),
            app: rule.key.app().unwrap_or_default().to_owned(),
            stream: rule.key.stream().unwrap_or_default().to_owned(),
        }),
        template_id: rule.template.to_string(),
        template_name: template_name.to_owned(),
        created_ms: rule.created.as_millis(),
    }
}

#[tonic::async_trait]
impl v1::rules_server::Rules for Api {
    async fn create_rule(
        &self,
        request: Request<v1::CreateRuleRequest>,
    ) -> Result<Response<v1::CreateRuleResponse>, Status> {
        let request = request.into_inner();
        let key = key(request.key).map_err(Failure::from)?;
        let template = match request.template {
            Some(v1::create_rule_request::Template::TemplateId(text)) => {
                TemplateRef::Id(wire::id("template_id", &text).map_err(Failure::from)?)
            }
            Some(v1::create_rule_request::Template::TemplateName(name)) => TemplateRef::Name(name),
            None => return Err(Failure::invalid("template is missing: give its id or its name").into()),
        };
        let rule = self
            .change(move |catalog, moment| {
                let (rule, txn) = catalog.create_rule(key, &template, moment.now)?;
                Ok((written(&rule, catalog.template_name(rule.template)), txn))
            })
            .await?;
        Ok(Response::new(v1::CreateRuleResponse { rule: Some(rule) }))
    }

    async fn list_rules(
        &self,
        request: Request<v1::ListRulesRequest>,
    ) -> Result<Response<v1::ListRulesResponse>, Status> {
        let scope = super::scope(&request);
        let request = request.into_inner();
        let page = Page {
            size: request.page_size,
            token: request.page_token,
        };
        let after: Option<RuleKey> = match page.token.as_str() {
            "" => None,
            token => Some(
                token
                    .parse()
                    .map_err(|_| Failure::invalid("page_token is not one of this list's"))?,
            ),
        };
        let wanted = page.entries() + 1;
        let list: Vec<(RuleKey, v1::Rule)> = self
            .look(move |state| {
                let rest = state
                    .catalog
                    .rules()
                    .filter(|rule| scope.covers(rule.key.domain()))
                    .filter(|rule| after.as_ref().is_none_or(|after| rule.key > *after));
                rest.take(wanted)
                    .map(|rule| {
                        (
                            rule.key.clone(),
                            written(rule, state.catalog.template_name(rule.template)),
                        )
                    })
                    .collect()
            })
            .await?;
        let (list, next_page_token) = cut(list, &page, |(key, _)| key.to_string());
        let rules = list.into_iter().map(|(_, rule)| rule).collect();
        Ok(Response::new(v1::ListRulesResponse { rules, next_page_token }))
    }

    async fn delete_rule(
        &self,
        request: Request<v1::DeleteRuleRequest>,
    ) -> Result<Response<v1::DeleteRuleResponse>, Status> {
        let key = key(request.into_inner().key).map_err(Failure::from)?;
        self.change(move |catalog, _| Ok(((), catalog.delete_rule(&key)?)))
            .await?;
        Ok(Response::new(v1::DeleteRuleResponse {}))
    }
}
