//! `aircheck compose …`

use std::error::Error;
use std::time::Duration;

use proto::v1::compositions_client::CompositionsClient;
use proto::v1::{
    Composition, CompositionState, CreateCompositionRequest, GetCompositionRequest, ListCompositionsRequest, Piece,
};
use serde_json::{Value, json};

use super::{Done, PAGE, connect, instant, print, said, stream_json, stream_name, table, when};
use crate::cli::{Client, ComposeCommand};

/// How often a composition that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(500);

pub(crate) async fn run(command: ComposeCommand) -> Done {
    match command {
        ComposeCommand::Create {
            pieces,
            name,
            description,
            no_video,
            no_audio,
            token,
            wait,
            client,
        } => {
            let pieces = pieces.iter().map(|text| piece(text)).collect::<Result<_, _>>()?;
            let request = CreateCompositionRequest {
                pieces,
                name,
                description,
                remove_video: no_video,
                remove_audio: no_audio,
                token,
                context: String::new(),
            };
            let answer = CompositionsClient::new(connect(&client)?)
                .create_composition(request)
                .await;
            let mut made = there(answer.map_err(said)?.into_inner().composition)?;
            while wait && matches!(made.state(), CompositionState::Waiting | CompositionState::Running) {
                tokio::time::sleep(LOOK).await;
                made = get(&client, made.composition_id).await?;
            }
            show(&client, &made)?;
            match made.state() {
                CompositionState::Failed => Err(format!("it was not made: {}", made.problem).into()),
                _ => Ok(()),
            }
        }
        ComposeCommand::Get { composition, client } => show(&client, &get(&client, composition).await?),
        ComposeCommand::List { client } => {
            let mut service = CompositionsClient::new(connect(&client)?);
            let (mut all, mut page_token) = (Vec::new(), String::new());
            loop {
                let request = ListCompositionsRequest {
                    page_size: PAGE,
                    page_token,
                };
                let page = service.list_compositions(request).await.map_err(said)?.into_inner();
                all.extend(page.compositions);
                page_token = page.next_page_token;
                if page_token.is_empty() {
                    break;
                }
            }
            let document = json!({ "compositions": all.iter().map(document).collect::<Vec<_>>() });
            print(&client, &document, || {
                table(&HEADINGS, &all.iter().map(row).collect::<Vec<_>>())
            })
        }
    }
}

async fn get(client: &Client, composition_id: String) -> Result<Composition, Box<dyn Error + Send + Sync>> {
    let request = GetCompositionRequest { composition_id };
    let answer = CompositionsClient::new(connect(client)?).get_composition(request).await;
    there(answer.map_err(said)?.into_inner().composition)
}

fn there(composition: Option<Composition>) -> Result<Composition, Box<dyn Error + Send + Sync>> {
    composition.ok_or_else(|| "the coordinator sent no composition".into())
}

fn show(client: &Client, composition: &Composition) -> Done {
    print(client, &document(composition), || table(&HEADINGS, &[row(composition)]))
}

/// `FILE` or `FILE@FROM..TO`.
fn piece(text: &str) -> Result<Piece, String> {
    let Some((file, span)) = text.split_once('@') else {
        return Ok(Piece {
            file_id: text.to_owned(),
            from_ms: 0,
            for_ms: None,
        });
    };
    let wrong = || format!("{text:?} is no piece: write FILE, or FILE@FROM..TO with times such as 90s or 2m30s");
    let (from, to) = span.split_once("..").ok_or_else(wrong)?;
    let time = |text: &str| match text {
        "" => Ok(None),
        text => {
            let length: Duration = text.parse::<humantime::Duration>().map_err(|_| wrong())?.into();
            u64::try_from(length.as_millis()).map(Some).map_err(|_| wrong())
        }
    };
    let (from, to) = (time(from)?.unwrap_or(0), time(to)?);
    if to.is_some_and(|to| to <= from) {
        return Err(wrong());
    }
    Ok(Piece {
        file_id: file.to_owned(),
        from_ms: from,
        for_ms: to.map(|to| to - from),
    })
}

fn state(composition: &Composition) -> &'static str {
    match composition.state() {
        CompositionState::Unspecified => "unknown",
        CompositionState::Waiting => "waiting",
        CompositionState::Running => "running",
        CompositionState::Finished => "finished",
        CompositionState::Failed => "failed",
    }
}

fn document(composition: &Composition) -> Value {
    let or_null = |text: &String| if text.is_empty() { Value::Null } else { json!(text) };
    let pieces = composition.pieces.iter().map(|piece| {
        json!({
            "file_id": piece.file_id,
            "from_ms": piece.from_ms,
            "for_ms": piece.for_ms,
        })
    });
    json!({
        "composition_id": composition.composition_id,
        "state": state(composition),
        "progress": composition.progress,
        "problem": or_null(&composition.problem),
        "file_id": or_null(&composition.file_id),
        "stream": stream_json(composition.stream.as_ref()),
        "pieces": pieces.collect::<Vec<_>>(),
        "name": composition.name,
        "description": composition.description,
        "video": !composition.remove_video,
        "audio": !composition.remove_audio,
        "token": composition.token,
        "attempts": composition.attempts,
        "worker_id": or_null(&composition.worker_id),
        "created": instant(composition.created_ms),
        "begun": instant(composition.begun_ms),
        "ended": instant(composition.ended_ms),
    })
}

const HEADINGS: [&str; 7] = ["id", "name", "state", "progress", "made", "stream", "file"];

fn row(composition: &Composition) -> Vec<String> {
    let file = match composition.state() {
        CompositionState::Failed => composition.problem.clone(),
        _ => composition.file_id.clone(),
    };
    vec![
        composition.composition_id.clone(),
        composition.name.clone(),
        state(composition).to_owned(),
        format!("{} %", composition.progress),
        when(composition.created_ms),
        stream_name(composition.stream.as_ref()),
        file,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_written_as_people_write_them() {
        let spans = |text: &str| piece(text).map(|piece| (piece.file_id, piece.from_ms, piece.for_ms));
        assert_eq!(spans("f"), Ok(("f".to_owned(), 0, None)));
        assert_eq!(spans("f@90s..2m30s"), Ok(("f".to_owned(), 90_000, Some(60_000))));
        assert_eq!(spans("f@..1m"), Ok(("f".to_owned(), 0, Some(60_000))));
        assert_eq!(spans("f@500ms.."), Ok(("f".to_owned(), 500, None)));
        for bad in ["f@", "f@10s", "f@10s..5s", "f@5s..5s", "f@a..b"] {
            assert!(spans(bad).is_err_and(|said| said.contains("is no piece")), "{bad}");
        }
    }
}
