//! Services `Callbacks` and `Events`.

use proto::v1;
use shared::store::Page;
use tonic::{Request, Response, Status};

use super::{Api, status::Failure};
use crate::events::{
    Kind, Policy,
    book::{Book, BookError, CallbackRule, CallbackSpec, CallbackTemplate, Level, Place},
    desk::{self, Found, KeyError, Replayed, Wanted},
    letter::Outcome,
};

type Answer<T> = Result<Response<T>, Status>;

fn urls_of(spec: &CallbackSpec) -> v1::CallbackUrls {
    let of = |kind: Kind| spec.urls.get(&kind).cloned().unwrap_or_default();
    v1::CallbackUrls {
        push_start: of(Kind::PushStart),
        push_end: of(Kind::PushEnd),
        file: of(Kind::File),
        status: of(Kind::Status),
        exception: of(Kind::Exception),
        push_exception: of(Kind::PushException),
    }
}

fn template(template: &CallbackTemplate) -> v1::CallbackTemplate {
    let spec = &template.spec;
    v1::CallbackTemplate {
        id: template.id,
        spec: Some(v1::CallbackTemplateSpec {
            name: spec.name.clone(),
            description: spec.description.clone(),
            urls: Some(urls_of(spec)),
            exception_levels: spec.levels.iter().map(|level| level.as_str().to_owned()).collect(),
        }),
        signed: spec.key.is_some(),
        created_ms: template.created.as_millis(),
        updated_ms: template.updated.as_millis(),
    }
}

fn level(text: &str) -> Result<Level, Failure> {
    let found = Level::ALL.into_iter().find(|level| level.as_str() == text);
    found.ok_or_else(|| {
        Failure::invalid(format!(
            "exception_levels: {text:?} is none: they are error, warning and info"
        ))
    })
}

/// What was said, without a key.
fn spec(said: v1::CallbackTemplateSpec) -> Result<CallbackSpec, Failure> {
    let urls = said.urls.unwrap_or_default();
    let by_kind = [
        (Kind::PushStart, urls.push_start),
        (Kind::PushEnd, urls.push_end),
        (Kind::File, urls.file),
        (Kind::Status, urls.status),
        (Kind::Exception, urls.exception),
        (Kind::PushException, urls.push_exception),
    ];
    Ok(CallbackSpec {
        name: said.name,
        description: said.description,
        urls: by_kind.into_iter().filter(|(_, url)| !url.is_empty()).collect(),
        levels: said
            .exception_levels
            .iter()
            .map(|text| level(text))
            .collect::<Result<_, _>>()?,
        key: None,
    })
}

fn rule(book: &Book, rule: &CallbackRule) -> v1::CallbackRule {
    let name = book.template(rule.template).map(|template| template.spec.name.clone());
    v1::CallbackRule {
        domain: rule.place.domain.clone(),
        app: rule.place.app.clone().unwrap_or_default(),
        template_id: rule.template,
        template_name: name.unwrap_or_default(),
        created_ms: rule.created.as_millis(),
    }
}

fn place(domain: &str, app: &str) -> Result<Place, Failure> {
    Place::new(domain, app).map_err(Failure::invalid)
}

impl From<BookError> for Failure {
    fn from(error: BookError) -> Self {
        match &error {
            BookError::Name | BookError::Description | BookError::NoUrl | BookError::Url { .. } => {
                Failure::invalid(error)
            }
            BookError::NameTaken(_) | BookError::RuleExists(_) => Failure::exists(error),
            BookError::TooManyTemplates | BookError::TooManyRules => Failure::full(error),
            BookError::NoTemplate(_) | BookError::NoRule(_) => Failure::not_found(error),
            BookError::InUse(..) => Failure::not_now(error),
        }
    }
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Shape => Failure::invalid(error),
            KeyError::Vault(error) => Failure::internal(error),
        }
    }
}

impl Api {
    async fn change_book<T>(&self, decide: impl FnMut(&mut Book) -> Result<T, BookError>) -> Result<T, Failure> {
        Ok(desk::change(&self.tools.repo, decide).await??)
    }

    fn callback_policy(&self) -> Policy {
        Policy {
            allow: self.tools.config.events.allow.clone(),
        }
    }
}

#[tonic::async_trait]
impl v1::callbacks_server::Callbacks for Api {
    async fn create_callback_template(
        &self,
        request: Request<v1::CreateCallbackTemplateRequest>,
    ) -> Answer<v1::CreateCallbackTemplateResponse> {
        let request = request.into_inner();
        let mut spec = spec(request.spec.unwrap_or_default())?;
        spec.key = desk::seal(&self.tools.vault, &request.key).map_err(Failure::from)?;
        let (policy, now) = (self.callback_policy(), self.tools.clock.now());
        let made = self
            .change_book(|book| book.create_template(spec.clone(), &policy, now))
            .await?;
        Ok(Response::new(v1::CreateCallbackTemplateResponse {
            template: Some(template(&made)),
        }))
    }

    async fn update_callback_template(
        &self,
        request: Request<v1::UpdateCallbackTemplateRequest>,
    ) -> Answer<v1::UpdateCallbackTemplateResponse> {
        let request = request.into_inner();
        let said = request.spec.map(spec).transpose()?;
        let key = match &request.key {
            None => None,
            Some(key) => Some(desk::seal(&self.tools.vault, key).map_err(Failure::from)?),
        };
        let (policy, now) = (self.callback_policy(), self.tools.clock.now());
        let changed = self
            .change_book(|book| {
                let id = book.named(&request.template)?.id;
                let over = |spec: &mut CallbackSpec| {
                    let before = spec.key.take();
                    if let Some(said) = &said {
                        *spec = said.clone();
                    }
                    spec.key = key.clone().unwrap_or(before);
                };
                book.update_template(id, over, &policy, now)
            })
            .await?;
        Ok(Response::new(v1::UpdateCallbackTemplateResponse {
            template: Some(template(&changed)),
        }))
    }

    async fn list_callback_templates(
        &self,
        _: Request<v1::ListCallbackTemplatesRequest>,
    ) -> Answer<v1::ListCallbackTemplatesResponse> {
        let book = desk::book(&self.tools.repo).await.map_err(Failure::from)?;
        Ok(Response::new(v1::ListCallbackTemplatesResponse {
            templates: book.templates().iter().map(template).collect(),
        }))
    }

    async fn delete_callback_template(
        &self,
        request: Request<v1::DeleteCallbackTemplateRequest>,
    ) -> Answer<v1::DeleteCallbackTemplateResponse> {
        let named = request.into_inner().template;
        self.change_book(|book| {
            let id = book.named(&named)?.id;
            book.delete_template(id)
        })
        .await?;
        Ok(Response::new(v1::DeleteCallbackTemplateResponse {}))
    }

    async fn create_callback_rule(
        &self,
        request: Request<v1::CreateCallbackRuleRequest>,
    ) -> Answer<v1::CreateCallbackRuleResponse> {
        let request = request.into_inner();
        let place = place(&request.domain, &request.app)?;
        let now = self.tools.clock.now();
        let made = self
            .change_book(|book| {
                let id = book.named(&request.template)?.id;
                let made = book.create_rule(place.clone(), id, now)?;
                Ok(rule(book, &made))
            })
            .await?;
        Ok(Response::new(v1::CreateCallbackRuleResponse { rule: Some(made) }))
    }

    async fn list_callback_rules(
        &self,
        _: Request<v1::ListCallbackRulesRequest>,
    ) -> Answer<v1::ListCallbackRulesResponse> {
        let book = desk::book(&self.tools.repo).await.map_err(Failure::from)?;
        Ok(Response::new(v1::ListCallbackRulesResponse {
            rules: book.rules().iter().map(|known| rule(&book, known)).collect(),
        }))
    }

    async fn delete_callback_rule(
        &self,
        request: Request<v1::DeleteCallbackRuleRequest>,
    ) -> Answer<v1::DeleteCallbackRuleResponse> {
        let request = request.into_inner();
        let place = place(&request.domain, &request.app)?;
        self.change_book(|book| book.delete_rule(&place)).await?;
        Ok(Response::new(v1::DeleteCallbackRuleResponse {}))
    }
}

/// An event as answers show it.
fn event(found: &Found, with_body: bool) -> v1::Event {
    let Found { letter, event } = found;
    let state = match event.outcome {
        None => v1::EventState::Pending,
        Some(Outcome::Delivered) => v1::EventState::Delivered,
        Some(Outcome::GivenUp) => v1::EventState::GivenUp,
    };
    v1::Event {
        id: event.id.clone(),
        kind: event.kind.as_str().to_owned(),
        event_type: event.kind.number(),
        stream: Some((&letter.stream).into()),
        subject: letter.subject.to_string(),
        template_id: letter.template,
        state: state.into(),
        attempts: event.attempts,
        tried_ms: event.tried.map_or(0, |tried| tried.as_millis()),
        problem: event.problem.clone(),
        created_ms: letter.at.as_millis(),
        body: match with_body {
            true => serde_json::Value::Object(event.body.clone()).to_string(),
            false => String::new(),
        },
    }
}

fn unknown(id: &str) -> Failure {
    Failure::not_found(format!(
        "no event {id}, or none any more: `aircheck event list` shows what there is"
    ))
}

#[tonic::async_trait]
impl v1::events_server::Events for Api {
    async fn list_events(&self, request: Request<v1::ListEventsRequest>) -> Answer<v1::ListEventsResponse> {
        let request = request.into_inner();
        let wanted = match request.state() {
            v1::EventState::Unspecified => Wanted::All,
            v1::EventState::Pending => Wanted::Pending,
            v1::EventState::Delivered => Wanted::Settled(Outcome::Delivered),
            v1::EventState::GivenUp => Wanted::Settled(Outcome::GivenUp),
        };
        let page = Page {
            size: request.page_size,
            token: request.page_token,
        };
        let listed = desk::list(&self.tools.repo, wanted, page.entries(), &page.token).await;
        let (found, next_page_token) = listed.map_err(Failure::from)?;
        Ok(Response::new(v1::ListEventsResponse {
            events: found.iter().map(|found| event(found, false)).collect(),
            next_page_token,
        }))
    }

    async fn get_event(&self, request: Request<v1::GetEventRequest>) -> Answer<v1::GetEventResponse> {
        let id = request.into_inner().id;
        let found = desk::get(&self.tools.repo, &id).await.map_err(Failure::from)?;
        let found = found.ok_or_else(|| unknown(&id))?;
        Ok(Response::new(v1::GetEventResponse {
            event: Some(event(&found, true)),
        }))
    }

    async fn replay_event(&self, request: Request<v1::ReplayEventRequest>) -> Answer<v1::ReplayEventResponse> {
        let id = request.into_inner().id;
        match desk::replay(&self.tools.repo, &id).await.map_err(Failure::from)? {
            Replayed::Sent(found) => Ok(Response::new(v1::ReplayEventResponse {
                event: Some(event(&found, true)),
            })),
            Replayed::OnItsWay => Err(Failure::not_now(format!(
                "event {id}, or another of the same change, is still on its way: `aircheck event show {id}` says how it stands"
            ))
            .into()),
            Replayed::Unknown => Err(unknown(&id).into()),
        }
    }
}
