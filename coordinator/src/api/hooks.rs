//! Webhooks of origins under `/hooks/`: an origin that says which streams it has gets each of them pulled and recorded.
//!
//! | Origin | Path | Says |
//! |---|---|---|
//! | nginx-rtmp | `/hooks/nginx-rtmp` | a form with `call=publish` or `call=publish_done`, `app`, `name`, `clientid` |
//! | SRS | `/hooks/srs` | JSON with `action` `on_publish` or `on_unpublish`, `app`, `stream`, `client_id`; wants `0` for an answer |
//! | MediaMTX | `/hooks/mediamtx` | `event=ready` or `event=not-ready` and `path`, in the query or a form, sent by `curl` |
//!
//! The token is the next part of the path, `token=` in the query, or a bearer token. Other calls of an origin are taken
//! and ignored: an origin may refuse its publisher when a hook fails.

use std::{collections::BTreeMap, sync::Arc};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web,
};
use shared::{
    auth::{Secret, SecretError, bearer},
    config::HooksConfig,
    ids::{PullId, StreamKey},
    pull::{MadeBy, PullUrl, from_template},
};
use tracing::{info, warn};

use super::forward;
use crate::{
    actors::{coordinator::Arrange, supervisor::Handle},
    pulls::NewPull,
};

/// Longest body that is read, bytes: real ones stay below 2 kB.
const MAX_BODY_BYTES: usize = 16 << 10;

/// What the hooks work with.
#[derive(Clone)]
pub(crate) struct Hooks {
    pub(crate) handle: Handle,
    pub(crate) settings: Option<Arc<Settings>>,
}

/// What was configured.
pub(crate) struct Settings {
    template: String,
    domain: String,
    token: Secret,
}

impl Settings {
    /// None where no origin is configured.
    ///
    /// # Errors
    /// The token file cannot be read.
    pub(crate) fn load(config: &HooksConfig) -> Result<Option<Arc<Self>>, SecretError> {
        let token = match (&config.token, &config.token_file) {
            (Some(token), _) => Some(token.clone()),
            (None, Some(path)) => Some(Secret::read(path)?),
            (None, None) => None,
        };
        let domain = || {
            let template = config.origin.as_deref()?;
            let host = from_template(template, "app", "stream").ok()?.host();
            Some(config.domain.clone().unwrap_or(host))
        };
        let settings = config.origin.clone().zip(token).zip(domain());
        Ok(settings.map(|((template, token), domain)| {
            Arc::new(Settings {
                template,
                domain,
                token,
            })
        }))
    }
}

/// Adds the paths.
pub(crate) fn routes(config: &mut web::ServiceConfig) {
    config.app_data(web::PayloadConfig::new(MAX_BODY_BYTES)).service(
        web::scope("/hooks")
            .route("/{origin}", web::to(hook))
            .route("/{origin}/{token}", web::to(hook)),
    );
}

/// What an origin can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    NginxRtmp,
    Srs,
    MediaMtx,
}

/// What an origin says, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
struct News {
    began: bool,
    app: String,
    stream: String,
    /// The origin's name for the publisher; empty if it gives none.
    client: String,
}

/// A refusal: status and words.
type Refused = (StatusCode, String);

async fn hook(request: HttpRequest, body: web::Bytes, hooks: web::Data<Hooks>) -> HttpResponse {
    let origin = request.match_info().get("origin").unwrap_or_default().to_owned();
    match answer(&request, &origin, &body, &hooks).await {
        Ok(text) => HttpResponse::Ok().content_type("text/plain; charset=utf-8").body(text),
        Err((status, reason)) => {
            warn!(origin, client = ?forward::client(&request), %status, reason, "webhook refused");
            HttpResponse::build(status)
                .content_type("text/plain; charset=utf-8")
                .body(format!("{reason}\n"))
        }
    }
}

async fn answer(request: &HttpRequest, origin: &str, body: &[u8], hooks: &Hooks) -> Result<&'static str, Refused> {
    let Some(settings) = &hooks.settings else {
        let text = "webhooks are off: set hooks.origin and hooks.token on the coordinator";
        return Err((StatusCode::NOT_FOUND, text.to_owned()));
    };
    let query = pairs(request.query_string().as_bytes());
    let header = request.headers().get(header::AUTHORIZATION);
    let shown = request
        .match_info()
        .get("token")
        .or(header.and_then(|value| value.to_str().ok()).and_then(bearer))
        .or(query.get("token").map(String::as_str));
    if !shown.is_some_and(|shown| settings.token.is(shown)) {
        let text = "the token is missing or wrong: give that of hooks.token, as ?token=… or as the path's last part";
        return Err((StatusCode::UNAUTHORIZED, text.to_owned()));
    }
    let origin = match origin {
        "nginx-rtmp" => Origin::NginxRtmp,
        "srs" => Origin::Srs,
        "mediamtx" => Origin::MediaMtx,
        other => {
            let text =
                format!("no hooks for {other:.40?}: there are /hooks/nginx-rtmp, /hooks/srs and /hooks/mediamtx");
            return Err((StatusCode::NOT_FOUND, text));
        }
    };
    let bad = |reason: String| (StatusCode::BAD_REQUEST, reason);
    if let Some(news) = read(origin, query, body).map_err(bad)? {
        let stream =
            StreamKey::new(&settings.domain, &news.app, &news.stream).map_err(|error| bad(error.to_string()))?;
        let url = from_template(&settings.template, &news.app, &news.stream).map_err(|error| bad(error.to_string()))?;
        tell(hooks, news, stream, url).await?;
    }
    Ok(if origin == Origin::Srs { "0" } else { "ok\n" })
}

/// Has the source made or removed; when this returns it is durable.
async fn tell(hooks: &Hooks, news: News, stream: StreamKey, url: PullUrl) -> Result<(), Refused> {
    let News { began, client, .. } = news;
    info!(%stream, began, client, "an origin tells of a stream");
    let arrange = Arrange(Box::new(move |pulls, moment| {
        if !began {
            let (worker, txn) = pulls.hook_ended(&stream, &client);
            return Ok(((), worker, txn));
        }
        let new = NewPull {
            stream,
            url,
            paused: false,
            from: None,
            until: None,
            made_by: MadeBy::Hook { client },
        };
        let id = PullId::generate(moment.ids, moment.now);
        Ok(((), None, pulls.hook_began(new, id, moment.now)?))
    }));
    let unavailable = |reason: String| (StatusCode::SERVICE_UNAVAILABLE, reason);
    let told = hooks
        .handle
        .ask(arrange)
        .await
        .map_err(|error| unavailable(error.to_string()))?;
    told.map_err(|error| unavailable(error.to_string()))
}

fn pairs(text: &[u8]) -> BTreeMap<String, String> {
    url::form_urlencoded::parse(text).into_owned().collect()
}

/// What an origin says; none: something that does not matter here.
fn read(origin: Origin, query: BTreeMap<String, String>, body: &[u8]) -> Result<Option<News>, String> {
    match origin {
        Origin::NginxRtmp => read_nginx(&merged(query, body)),
        Origin::Srs => read_srs(body),
        Origin::MediaMtx => read_mediamtx(&merged(query, body)),
    }
}

fn merged(mut query: BTreeMap<String, String>, body: &[u8]) -> BTreeMap<String, String> {
    query.extend(pairs(body));
    query
}

fn needed(fields: &BTreeMap<String, String>, name: &str) -> Result<String, String> {
    match fields.get(name) {
        Some(value) if !value.is_empty() => Ok(value.clone()),
        _ => Err(format!("{name} is missing")),
    }
}

fn read_nginx(fields: &BTreeMap<String, String>) -> Result<Option<News>, String> {
    let began = match needed(fields, "call")?.as_str() {
        "publish" => true,
        "publish_done" => false,
        _ => return Ok(None),
    };
    Ok(Some(News {
        began,
        app: needed(fields, "app")?,
        stream: needed(fields, "name")?,
        client: fields.get("clientid").cloned().unwrap_or_default(),
    }))
}

fn read_srs(body: &[u8]) -> Result<Option<News>, String> {
    let said: serde_json::Value =
        serde_json::from_slice(body).map_err(|error| format!("the body is not the JSON that SRS sends: {error}"))?;
    let text = |name: &str| {
        said.get(name)
            .and_then(serde_json::Value::as_str)
            .filter(|text| !text.is_empty())
    };
    let needed = |name: &str| {
        text(name)
            .map(str::to_owned)
            .ok_or_else(|| format!("{name} is missing"))
    };
    let began = match needed("action")?.as_str() {
        "on_publish" => true,
        "on_unpublish" => false,
        _ => return Ok(None),
    };
    // Older versions number their clients.
    let client = said
        .get("client_id")
        .map(|id| id.as_str().map_or_else(|| id.to_string(), str::to_owned));
    Ok(Some(News {
        began,
        app: needed("app")?,
        stream: needed("stream")?,
        client: client.unwrap_or_default(),
    }))
}

fn read_mediamtx(fields: &BTreeMap<String, String>) -> Result<Option<News>, String> {
    let began = match needed(fields, "event")?.as_str() {
        "ready" => true,
        "not-ready" => false,
        other => return Err(format!("event is {other:.40?}: it must be ready or not-ready")),
    };
    let path = needed(fields, "path")?;
    let Some((app, stream)) = path.split_once('/') else {
        return Err(format!(
            "path {path:.100?} has one part: a stream to be recorded is named APP/STREAM"
        ));
    };
    Ok(Some(News {
        began,
        app: app.to_owned(),
        stream: stream.to_owned(),
        client: fields.get("client").cloned().unwrap_or_default(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(origin: Origin, query: &str, body: &str) -> Result<Option<News>, String> {
        read(origin, pairs(query.as_bytes()), body.as_bytes())
    }

    fn news(began: bool, client: &str) -> Option<News> {
        Some(News {
            began,
            app: "live".into(),
            stream: "show".into(),
            client: client.into(),
        })
    }

    #[test]
    fn each_origin_is_understood() {
        use Origin::{MediaMtx, NginxRtmp, Srs};
        let form = "app=live&flashver=FMLE/3.0&swfurl=&tcurl=rtmp%3A%2F%2Fo%2Flive&addr=127.0.0.1&clientid=7&call=publish&name=show&type=live";
        assert_eq!(said(NginxRtmp, "", form), Ok(news(true, "7")));
        assert_eq!(
            said(NginxRtmp, "token=x", &form.replace("publish", "publish_done")),
            Ok(news(false, "7"))
        );
        assert_eq!(said(NginxRtmp, form, ""), Ok(news(true, "7")), "notify_method get");
        assert_eq!(said(NginxRtmp, "", "call=play&app=live&name=show"), Ok(None));
        let json = r#"{"server_id":"v","action":"on_publish","client_id":"9m","ip":"1.2.3.4","vhost":"__defaultVhost__","app":"live","stream":"show","param":""}"#;
        assert_eq!(said(Srs, "", json), Ok(news(true, "9m")));
        let old = r#"{"action":"on_unpublish","client_id":1985,"app":"live","stream":"show"}"#;
        assert_eq!(said(Srs, "", old), Ok(news(false, "1985")));
        assert_eq!(said(Srs, "", r#"{"action":"on_play","app":"live"}"#), Ok(None));
        assert_eq!(said(MediaMtx, "event=ready&path=live/show", ""), Ok(news(true, "")));
        assert_eq!(
            said(MediaMtx, "", "event=not-ready&path=live%2Fshow"),
            Ok(news(false, ""))
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        use Origin::{MediaMtx, NginxRtmp, Srs};
        for (origin, body, says) in [
            (NginxRtmp, "", "call is missing"),
            (NginxRtmp, "call=publish&name=x", "app is missing"),
            (NginxRtmp, "call=publish&app=x&name=", "name is missing"),
            (Srs, "call=publish", "not the JSON"),
            (Srs, "{}", "action is missing"),
            (Srs, r#"{"action":"on_publish","app":"x"}"#, "stream is missing"),
            (MediaMtx, "event=ready", "path is missing"),
            (MediaMtx, "event=ready&path=one", "APP/STREAM"),
            (MediaMtx, "event=gone&path=a/b", "ready or not-ready"),
        ] {
            let error = said(origin, "", body).unwrap_err();
            assert!(error.contains(says), "{body}: {error}");
        }
    }
}
