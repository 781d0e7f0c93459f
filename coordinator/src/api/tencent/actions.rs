//! The table of actions: what is offered, with its right and its rate, and what is known and not offered.

use std::pin::Pin;

use serde_json::{Map, Value};
use shared::store::Txn;

use super::{
    callbacks, domains, error::ApiError, gate::Caller, log, params::Fields, pulls, rules, streams, tasks, templates,
    vod,
};
use crate::{
    actors::{
        coordinator::{Change, Decide, Look, Moment, Tools},
        supervisor::Handle,
    },
    catalog::{Catalog, CatalogError},
    media::link::Links,
    planner::State,
};

/// Version of the live service.
pub(crate) const LIVE: &str = "2018-08-01";
/// Version of the video-on-demand service.
pub(crate) const VOD: &str = "2018-07-17";

/// Every action that the official clients know, one a line, `service action`: what is not offered is told from what is
/// misspelt.
const KNOWN: &str = include_str!("known_actions.txt");

/// What an action works with.
pub(crate) struct Context<'a> {
    pub(crate) handle: &'a Handle,
    pub(crate) tools: &'a Tools,
    pub(crate) links: &'a Links,
    /// Where this server is reached over HTTP, without a slash at its end.
    pub(crate) public_url: &'a str,
    pub(crate) caller: Caller,
}

/// Fields of an answer.
pub(crate) type Answer = Result<Map<String, Value>, ApiError>;
type Running<'a> = Pin<Box<dyn Future<Output = Answer> + 'a>>;

/// An action that is offered.
pub(crate) struct Action {
    pub(crate) name: &'static str,
    version: &'static str,
    /// Needs a key that may manage.
    pub(crate) changes: bool,
    /// Requests a second for each key.
    pub(crate) per_second: u32,
    pub(crate) run: for<'a> fn(&'a Context<'a>, Fields) -> Running<'a>,
}

macro_rules! actions {
    ($($version:ident $right:ident $rate:literal $name:ident => $run:path,)*) => {
        const OFFERED: &[Action] = &[$(Action {
            name: stringify!($name),
            version: $version,
            changes: right::$right,
            per_second: $rate,
            run: |context, fields| Box::pin($run(context, fields)),
        }),*];
    };
}

#[allow(non_upper_case_globals, reason = "words of the table below")]
mod right {
    pub(super) const reads: bool = false;
    pub(super) const changes: bool = true;
}

// Rates are those of the protocol's documentation where it gives one, else 100.
actions! {
    LIVE changes 200 CreateLiveRecordTemplate => templates::create,
    LIVE changes 200 ModifyLiveRecordTemplate => templates::modify,
    LIVE changes 200 DeleteLiveRecordTemplate => templates::delete,
    LIVE reads 500 DescribeLiveRecordTemplate => templates::describe,
    LIVE reads 500 DescribeLiveRecordTemplates => templates::list,
    LIVE changes 200 CreateLiveRecordRule => rules::create,
    LIVE changes 200 DeleteLiveRecordRule => rules::delete,
    LIVE reads 100 DescribeLiveRecordRules => rules::list,
    LIVE changes 100 CreateLiveCallbackTemplate => callbacks::create,
    LIVE changes 100 ModifyLiveCallbackTemplate => callbacks::modify,
    LIVE changes 100 DeleteLiveCallbackTemplate => callbacks::delete,
    LIVE reads 100 DescribeLiveCallbackTemplate => callbacks::describe,
    LIVE reads 100 DescribeLiveCallbackTemplates => callbacks::list,
    LIVE changes 100 CreateLiveCallbackRule => callbacks::create_rule,
    LIVE changes 100 DeleteLiveCallbackRule => callbacks::delete_rule,
    LIVE reads 100 DescribeLiveCallbackRules => callbacks::list_rules,
    LIVE reads 100 DescribeCallbackRecordsList => log::callbacks,
    LIVE changes 20 CreateRecordTask => tasks::create,
    LIVE changes 20 StopRecordTask => tasks::stop,
    LIVE changes 20 DeleteRecordTask => tasks::delete,
    LIVE reads 20 DescribeRecordTask => tasks::list,
    LIVE changes 200 CreateLiveRecord => tasks::create_older,
    LIVE changes 200 StopLiveRecord => tasks::stop_older,
    LIVE changes 200 DeleteLiveRecord => tasks::delete_older,
    LIVE reads 100 DescribeLiveStreamOnlineList => streams::online,
    LIVE reads 100 DescribeLiveStreamState => streams::state,
    LIVE changes 100 DropLiveStream => streams::drop_stream,
    LIVE changes 100 ForbidLiveStream => streams::forbid,
    LIVE changes 100 ResumeLiveStream => streams::resume,
    LIVE reads 100 DescribeLiveForbidStreamList => streams::forbidden,
    LIVE changes 100 AddLiveDomain => domains::add,
    LIVE changes 100 DeleteLiveDomain => domains::delete,
    LIVE changes 100 EnableLiveDomain => domains::enable,
    LIVE changes 100 ForbidLiveDomain => domains::forbid,
    LIVE reads 100 DescribeLiveDomain => domains::describe,
    LIVE reads 100 DescribeLiveDomains => domains::list,
    LIVE reads 100 DescribeLivePushAuthKey => domains::describe_keys,
    LIVE changes 100 ModifyLivePushAuthKey => domains::modify_keys,
    LIVE changes 100 CreateLivePullStreamTask => pulls::create,
    LIVE changes 100 ModifyLivePullStreamTask => pulls::modify,
    LIVE changes 100 RestartLivePullStreamTask => pulls::restart,
    LIVE changes 100 DeleteLivePullStreamTask => pulls::delete,
    LIVE reads 100 DescribeLivePullStreamTasks => pulls::list,
    LIVE reads 100 DescribeLivePullStreamTaskStatus => pulls::status,
    VOD reads 100 SearchMedia => vod::search,
    VOD reads 100 DescribeMediaInfos => vod::describe,
    VOD changes 100 ModifyMediaInfo => vod::modify,
    VOD changes 100 DeleteMedia => vod::delete,
    VOD changes 100 ComposeMedia => vod::compose,
    VOD reads 100 DescribeTaskDetail => vod::describe_task,
}

/// Finds an action.
///
/// # Errors
/// `NoSuchVersion`, `InvalidAction`, `UnsupportedOperation`.
pub(crate) fn find(version: &str, name: &str) -> Result<&'static Action, ApiError> {
    let service = match version {
        LIVE => "live",
        VOD => "vod",
        _ => {
            return Err(ApiError::new(
                "NoSuchVersion",
                format!("version {version:?} is unknown: {LIVE} (live) and {VOD} (vod) are served"),
            ));
        }
    };
    if let Some(action) = OFFERED
        .iter()
        .find(|action| action.version == version && action.name == name)
    {
        return Ok(action);
    }
    match KNOWN.lines().any(|line| line.split_once(' ') == Some((service, name))) {
        true => Err(ApiError::unsupported(format!("{name} is not offered by this server"))),
        false => Err(ApiError::new(
            "InvalidAction",
            format!("{name:?} is not an action of {service} {version}"),
        )),
    }
}

impl Context<'_> {
    /// Changes templates or rules; the answer comes when the change is durable.
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        decide: impl FnOnce(&mut Catalog, Moment<'_>) -> Result<(T, Txn), CatalogError> + Send + 'static,
    ) -> Result<Result<T, CatalogError>, ApiError> {
        match self.handle.ask(Change(Box::new(decide))).await? {
            Err(CatalogError::Store(error)) => Err(error.into()),
            decided => Ok(decided),
        }
    }

    /// Decides upon the whole state; the answer comes when the decision is durable.
    pub(crate) async fn decide<T: Send + 'static>(
        &self,
        decide: impl FnOnce(&mut State, Moment<'_>) -> Result<(T, Txn), ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        self.handle.ask(Decide(Box::new(decide))).await?
    }

    /// Looks at what is decided upon.
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&State) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        Ok(self.handle.ask(Look(Box::new(look))).await?)
    }
}

/// An answer without fields of its own.
pub(crate) fn done() -> Answer {
    Ok(Map::new())
}

/// An answer with one field.
pub(crate) fn field(name: &str, value: impl Into<Value>) -> Answer {
    Ok(Map::from_iter([(name.to_owned(), value.into())]))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_is_offered_is_known_to_the_clients_and_named_once() {
        let known: BTreeSet<&str> = KNOWN.lines().collect();
        let mut names = BTreeSet::new();
        for action in OFFERED {
            let service = if action.version == LIVE { "live" } else { "vod" };
            let line = format!("{service} {}", action.name);
            assert!(known.contains(line.as_str()), "{line}");
            assert!(names.insert(line), "twice");
            assert_eq!(
                action.changes,
                !action.name.starts_with("Describe") && action.name != "SearchMedia"
            );
        }
    }

    /// The names in the documentation's table of actions.
    fn documented() -> BTreeSet<&'static str> {
        let text = include_str!("../../../../docs/tencent.md");
        let (_, rest) = text.split_once("\n## Actions\n").unwrap();
        let (table, _) = rest.split_once("\nNot offered:").unwrap();
        let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
        let cells = rows.filter_map(|row| row.split_once(" | ")).map(|(names, _)| names);
        cells
            .flat_map(|cell| cell.split('`'))
            .filter(|name| name.starts_with(char::is_alphabetic))
            .collect()
    }

    #[test]
    fn every_known_action_is_in_the_documented_table_or_answers_that_it_is_not_offered() {
        let mut left = documented();
        assert!(left.len() > 40, "{left:?}");
        for line in KNOWN.lines() {
            let (service, name) = line.split_once(' ').unwrap();
            let version = if service == "live" { LIVE } else { VOD };
            let code = find(version, name).map(|_| ()).map_err(|error| error.code().to_owned());
            match left.remove(name) {
                true => assert_eq!(code, Ok(()), "{line} is documented"),
                false => assert_eq!(code, Err("UnsupportedOperation".to_owned()), "{line} is not"),
            }
        }
        assert!(left.is_empty(), "documented and unknown to the clients: {left:?}");
    }

    #[test]
    fn an_action_is_offered_known_or_misspelt() {
        let code = |version, name| {
            find(version, name)
                .map(|action| action.name)
                .map_err(|error| error.code().to_owned())
        };
        assert_eq!(code(LIVE, "CreateLiveRecordRule"), Ok("CreateLiveRecordRule"));
        assert_eq!(code(VOD, "CreateLiveRecordRule"), Err("InvalidAction".to_owned()));
        assert_eq!(
            code(LIVE, "CreateCommonMixStream"),
            Err("UnsupportedOperation".to_owned())
        );
        assert_eq!(code(LIVE, "createLiveRecordRule"), Err("InvalidAction".to_owned()));
        assert_eq!(
            code("2017-03-12", "CreateLiveRecordRule"),
            Err("NoSuchVersion".to_owned())
        );
    }
}
